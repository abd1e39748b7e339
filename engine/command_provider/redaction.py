"""What an error says of a command, and how secrets are kept out of what people read."""

from collections.abc import Iterable

from engine.command_provider.values import Properties, reveal, secret_texts

MARK = "[secret]"
# The engine's own filter leaves out shorter values too: replacing them would spoil any text. A line
# of a secret script must be longer, or every "done" and "fi" would be taken for a secret.
_SHORTEST_VALUE = 3
_SHORTEST_LINE = 8
_MOST_LINES = 200
_LARGEST_OUTPUT_CHARACTERS = 512 * 1024
_CREDENTIALS = ("password", "privateKey", "privateKeyPassword")
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


class Redactor:
    """Replaces secret values in a text."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """:param values: the secret texts; of one with several lines, each line is secret too."""
        secrets: set[str] = set()
        for value in values:
            lines = [line.strip() for line in value.splitlines()[: _MOST_LINES + 1]]
            if 1 < len(lines) <= _MOST_LINES:
                secrets.update(line for line in lines if len(line) >= _SHORTEST_LINE)
            if len(value.strip()) >= _SHORTEST_VALUE:
                secrets.add(value.strip())
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with the mark in place of each secret value."""
        for value in self._secrets:
            text = text.replace(value, MARK)
        return text


def redactor_for(inputs: Properties) -> Redactor:
    """Return the redactor for a resource's inputs.

    A connection is secret as a whole, and hiding its host, port or user would make errors useless:
    of a connection, only the credentials are replaced.
    """
    values = [
        text
        for name, value in inputs.items()
        if name != "connection"
        for text in secret_texts(value)
    ]
    connection = reveal(inputs.get("connection")) or {}
    for settings in (connection, connection.get("proxy") or {}):
        values += [settings[name] for name in _CREDENTIALS if isinstance(settings.get(name), str)]
    return Redactor(values)


def failure_text(reason: str, command: str, output: str) -> str:
    """Return the text of an error, in the form of the official provider.

    Of much output the end is kept: errors travel in a header, which has a limit.
    """
    left_out = len(output) - _LARGEST_OUTPUT_CHARACTERS
    if left_out > 0:
        output = f"({left_out} characters left out)\n{output[left_out:]}"
    return f"{reason}: running {quoted(command)}:\n{output}"


def quoted(text: str) -> str:
    """Quote a text as Go's `%q` does, which is how the official provider's errors show it."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

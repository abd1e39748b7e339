"""The one exception of the lab."""

REAL_CLUSTER_HINT = (
    "To back up a real cluster instead of the demo: make backup BUILD=/path/to/build/dir"
    " TARGET=/where/to"
)


class LabError(Exception):
    """Something the lab needs is missing or went wrong.

    `message` says what, with the last lines of the command that failed; `hint` says what to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def last_lines(output: str | bytes, count: int = 15) -> str:
    """The end of a command's output, where the reason of a failure usually is."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output
    return "\n".join(text.rstrip().splitlines()[-count:])

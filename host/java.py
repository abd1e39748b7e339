"""Java services on a host: their processes, and their .properties files."""

import os
import re
from typing import Dict, List, NamedTuple, Optional

from host import command

ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class JavaProcess(NamedTuple):
    """A running Java program: its arguments after the main class, its working folder, its
    class path as it was given, and the options before the main class."""

    process: int
    arguments: List[str]
    directory: str
    class_path: str
    options: List[str]


def processes(*main_classes: str) -> List[JavaProcess]:
    """This host's processes that run one of these main classes."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open("/proc/%s/cmdline" % entry, "rb") as stream:
                words = [command.decode(word) for word in stream.read().split(b"\0")[:-1]]
            position = next((i for i, word in enumerate(words) if word in main_classes), 0)
            if position and "java" in os.path.basename(words[0]):
                directory = os.readlink("/proc/%s/cwd" % entry)
                options = words[1:position]
                found.append(
                    JavaProcess(
                        int(entry),
                        words[position + 1 :],
                        directory,
                        _class_path(options) or _environment(int(entry)).get("CLASSPATH", ""),
                        options,
                    )
                )
        except OSError:
            continue  # it has ended meanwhile
    return found


def _class_path(options: List[str]) -> str:
    for position, option in enumerate(options[:-1]):
        if option in ("-cp", "-classpath", "--class-path"):
            return options[position + 1]
    return ""


def _environment(process: int) -> Dict[str, str]:
    with open("/proc/%d/environ" % process, "rb") as stream:
        pairs = [command.decode(pair) for pair in stream.read().split(b"\0")]
    return dict(pair.partition("=")[::2] for pair in pairs)


def jar_version(folders: List[str], pattern: str) -> Optional[str]:
    """The version in the name of a jar in one of these folders, by a pattern with one group."""
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(pattern, name)
            if match:
                return match.group(1)
    return None


def parse_properties(text: str) -> Dict[str, str]:
    """The values of a .properties file (java.util.Properties.load): the last of a key holds."""
    values = {}
    for line in _logical_lines(text):
        match = re.match(r"((?:\\.|[^\\=:\s])*)\s*[=:]?\s*(.*)", line, re.DOTALL)
        if match:
            values[_unescaped(match.group(1))] = _unescaped(match.group(2))
    return values


def _logical_lines(text: str) -> List[str]:
    lines = []
    pending = ""
    for line in text.splitlines():
        line = line.lstrip(" \t\f")
        if not pending and (not line or line[0] in "#!"):
            continue
        pending += line
        slashes = len(pending) - len(pending.rstrip("\\"))
        if slashes % 2:
            pending = pending[:-1]
            continue
        lines.append(pending)
        pending = ""
    return [*lines, pending] if pending else lines


def _unescaped(text: str) -> str:
    def plain(match: "re.Match[str]") -> str:
        word = match.group(1)
        return chr(int(word[1:], 16)) if len(word) == 5 else ESCAPES.get(word, word)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", plain, text)


def read_properties(path: str) -> Dict[str, str]:
    """The values of a .properties file; Latin-1, as Java reads it."""
    with open(path, encoding="latin-1") as stream:
        return parse_properties(stream.read())


def replaced_properties(text: str, values: Dict[str, str]) -> str:
    """A .properties file with other values for some keys it has; all else stays as it is.

    A value that went over several lines is one line then.
    """
    made: List[str] = []
    lines = text.splitlines()
    position = 0
    while position < len(lines):
        taken = [lines[position]]
        while _goes_on(taken) and position + len(taken) < len(lines):
            taken.append(lines[position + len(taken)])
        position += len(taken)
        known = parse_properties("\n".join(taken))
        key = next(iter(known), None)
        if key in values:
            taken = ["%s=%s" % (key, values[str(key)].replace("\\", "\\\\"))]
        made += taken
    return "\n".join(made) + "\n"


def _goes_on(lines: List[str]) -> bool:
    """Whether a logical line goes on after these natural ones; comments never do."""
    if lines[0].lstrip(" \t\f")[:1] in ("#", "!", ""):
        return False
    slashes = len(lines[-1]) - len(lines[-1].rstrip("\\"))
    return slashes % 2 == 1

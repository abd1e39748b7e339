"""Reading an Ansible inventory as epicli writes it.

Only what epicli uses (facts: its template ansible_inventory.j2, 0.3 to 2.0): INI, groups with
`NAME key=value` lines, `[group:vars]`, and `[group:children]` for hand-made ones. Anything else
is an error with its line, never a guess.
"""

import difflib
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import UsageError

HOST_VARIABLES = frozenset(
    {
        "ansible_host",
        "ansible_port",
        "ansible_user",
        "ansible_ssh_private_key_file",
        "ansible_ssh_common_args",
        "ansible_ssh_extra_args",
        "ansible_connection",
        "ansible_python_interpreter",
        "ansible_become",
        "ansible_become_user",
        "ansible_become_method",
        "ansible_ssh_host",
        "ansible_ssh_port",
        "ansible_ssh_user",
    }
)
"""Variables of Ansible's ssh connection; a misspelled one would be ignored by Ansible."""

OLD_NAMES = {
    "ansible_ssh_host": "ansible_host",
    "ansible_ssh_port": "ansible_port",
    "ansible_ssh_user": "ansible_user",
}
HEADER = re.compile(r"\[(?P<group>[^\]:]+)(?::(?P<kind>[a-z]+))?\]\s*(?:[#;].*)?")
HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


@dataclass(frozen=True)
class InventoryHost:
    """A host of the inventory: its name there and how it is reached."""

    name: str
    address: str
    port: int
    user: str | None
    key_file: str | None


@dataclass(frozen=True)
class Inventory:
    """hosts: by name; groups: host names by group, both in the order of the file."""

    path: Path
    hosts: dict[str, InventoryHost]
    groups: dict[str, list[str]]
    warnings: list[str] = field(default_factory=list)


def read_inventory(path: Path) -> Inventory:
    """Read an inventory file, or the one file of an inventory folder (epicli before 0.3).

    Raises UsageError with file and line for everything that cannot be read.
    """
    file = _only_file(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the inventory {file} cannot be read: {error}") from error
    return _Parser(file).parse(text)


def _only_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    if len(files) != 1 or not files[0].is_file():
        names = ", ".join(entry.name for entry in files) or "nothing"
        raise UsageError(
            f"the inventory {path} is a folder that holds {names}",
            "an inventory folder holds exactly one file (epicli before 0.3)",
        )
    return files[0]


class _Parser:
    """Reads line by line, and knows where it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._line = 0
        self._groups: dict[str, list[str]] = {}
        self._children: dict[str, list[tuple[str, int]]] = {}
        self._host_variables: dict[str, dict[str, str]] = {}
        self._group_variables: dict[str, dict[str, str]] = {}
        self._warnings: list[str] = []

    def parse(self, text: str) -> Inventory:
        section, kind = "ungrouped", "hosts"
        for self._line, raw in enumerate(text.splitlines(), start=1):
            line = raw.strip()
            if not line or line[0] in "#;":
                continue
            if line.startswith("["):
                section, kind = self._header(line)
            elif kind == "vars":
                self._variable(section, line)
            elif kind == "children":
                self._children.setdefault(section, []).append((line.split()[0], self._line))
            else:
                self._host(section, line)
        self._add_children()
        hosts = {name: self._resolve(name) for name in self._host_variables}
        if not hosts:
            raise UsageError(f"the inventory {self._file} has no hosts")
        return Inventory(self._file, hosts, self._groups, self._warnings)

    def _fail(self, message: str, hint: str = "") -> UsageError:
        return UsageError(f"{self._file}:{self._line}: {message}", hint)

    def _header(self, line: str) -> tuple[str, str]:
        match = HEADER.fullmatch(line)
        kinds = (None, "vars", "children")
        if not match or match["kind"] not in kinds:
            raise self._fail(
                f"{line!r} is no section", "a section is [group], [group:vars] or [group:children]"
            )
        group = match["group"].strip()
        if match["kind"] is None:
            self._groups.setdefault(group, [])
        return group, match["kind"] or "hosts"

    def _host(self, group: str, line: str) -> None:
        words = self._words(line)
        name = words[0]
        if not HOST_NAME.fullmatch(name):
            raise self._fail(
                f"{name!r} is no host name",
                "ranges such as db[1:3] are not supported: write the hosts out",
            )
        variables = self._host_variables.setdefault(name, {})
        for word in words[1:]:
            key, value = self._pair(word)
            if variables.get(key, value) != value:
                raise self._fail(f"{name} has {key}={value} here and {key}={variables[key]} before")
            variables[key] = value
        members = self._groups.setdefault(group, [])
        if name not in members:
            members.append(name)

    def _variable(self, group: str, line: str) -> None:
        # In [group:vars] Ansible takes the rest of the line as the value, quotes aside.
        key, separator, value = line.partition("=")
        if not separator:
            raise self._fail(f"{line!r} is no variable", "write key=value")
        key = self._known(key.strip())
        self._group_variables.setdefault(group, {})[key] = value.strip().strip("'\"")

    def _words(self, line: str) -> list[str]:
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            raise self._fail(f"{line!r} cannot be read: {error}", "check its quotes") from None

    def _pair(self, word: str) -> tuple[str, str]:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise self._fail(f"{word!r} is no variable", "write key=value, one host a line")
        return self._known(key), value

    def _known(self, key: str) -> str:
        """The variable's present name; a misspelled one of Ansible's is an error."""
        if key.startswith("ansible_") and key not in HOST_VARIABLES:
            close = difflib.get_close_matches(key, HOST_VARIABLES, 1, 0.85)
            if close:
                raise self._fail(f"unknown variable {key}", f"did you mean {close[0]}?")
        return OLD_NAMES.get(key, key)

    def _add_children(self) -> None:
        for group, children in self._children.items():
            members = self._groups.setdefault(group, [])
            for child, self._line in children:
                if child not in self._groups and child not in self._children:
                    raise self._fail(*_unknown("group", child, self._groups))
                members += [name for name in self._groups.get(child, []) if name not in members]

    def _resolve(self, name: str) -> InventoryHost:
        variables = dict(self._group_variables.get("all", {}))
        for group, members in self._groups.items():
            if name in members:
                variables |= self._group_variables.get(group, {})
        variables |= self._host_variables[name]
        port = variables.get("ansible_port", "22")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"{self._file}: {name} has ansible_port={port}, which is no port")
        if variables.get("ansible_connection", "ssh") not in ("ssh", "smart", "paramiko"):
            connection = variables["ansible_connection"]
            raise UsageError(f"{self._file}: {name} has ansible_connection={connection}, not ssh")
        arguments = variables.get("ansible_ssh_common_args", "")
        if "Proxy" in arguments:
            self._warnings.append(
                f"{name}: the proxy in ansible_ssh_common_args is not used; "
                "the host has to be reachable directly"
            )
        return InventoryHost(
            name=name,
            address=variables.get("ansible_host", name),
            port=int(port),
            user=variables.get("ansible_user"),
            key_file=variables.get("ansible_ssh_private_key_file"),
        )


def _unknown(what: str, name: str, known: object) -> tuple[str, str]:
    """Message and hint for a name that is not known, with the nearest one that is."""
    names = sorted(str(item) for item in known) if isinstance(known, dict | list | set) else []
    close = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(names)}"
    return f"unknown {what} {name}", hint


def unknown_name(what: str, name: str, known: dict[str, object] | list[str]) -> UsageError:
    """The error for a name that is not known, with the nearest one that is."""
    return UsageError(*_unknown(what, name, known))

"""A node's configuration files: which they are, where they name hosts, and restoring them."""

import os
import re
import socket
from typing import Any, Dict, List, Set

from components.rabbitmq.host.node import HOME, UNIT, host_of
from host import unit
from host.mapping import mapped
from host.packing import outermost
from host.service import Delivered

FOLDER = "/etc/rabbitmq"
COOKIE = ".erlang.cookie"
DEFAULTS = "/etc/default/rabbitmq-server"
LARGEST_TEXT_BYTES = 1 << 20
ABSOLUTE_PATH = re.compile(r"(?<![\w./-])/[^\s\"'#,;()\]}]+")
VOLATILE = ("/proc/", "/sys/", "/dev/", "/run/", "/var/run/", "/var/log/")
PACKAGED = ("/usr/", "/lib/", "/bin/")
"""What comes with packages: the unit, too."""
EVERYWHERE = {"localhost", "127.0.0.1", "::1"}
"""Names that each host has."""


def cookie_path(described: Dict[str, Any]) -> str:
    """Where the secret is that nodes and rabbitmqctl show each other."""
    return os.path.join(described.get("home") or HOME, COOKIE)


def configuration_paths(described: Dict[str, Any]) -> List[str]:
    """All files and folders that make up a node's configuration, its cookie included."""
    paths = [FOLDER, DEFAULTS, cookie_path(described), *unit.files(UNIT)]
    paths += described.get("config_files") or []
    if described.get("plugins_file"):
        paths.append(described["plugins_file"])
    data = described.get("data") or HOME
    for path in list(paths):
        for text_path in _files(path):
            for named in ABSOLUTE_PATH.findall(_text(text_path)):
                if os.path.isfile(named) and not named.startswith((*VOLATILE, data + "/")):
                    paths.append(named)
    own = [path for path in paths if not path.startswith(PACKAGED)]
    return outermost([path for path in own if os.path.lexists(path)])


def _files(path: str) -> List[str]:
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names]


def _text(path: str) -> str:
    """A small file's text without comments; empty for what is no text."""
    try:
        if os.path.getsize(path) > LARGEST_TEXT_BYTES or os.path.basename(path) == COOKIE:
            return ""
        with open(path, encoding="utf-8") as stream:
            return re.sub(r"(?m)^[ \t]*[#%].*$", "", stream.read())
    except (OSError, UnicodeDecodeError):
        return ""


def mentions(paths: List[str], names: List[str]) -> List[Dict[str, Any]]:
    """Where files name hosts: file, line, and the names; nothing else of the line, which may
    hold a password."""
    found: List[Dict[str, Any]] = []
    for file in sorted({name for path in paths for name in _files(path)}):
        for number, line in enumerate(_text(file).splitlines(), start=1):
            there = [name for name in names if mapped(line, {name: ""}) != line]
            if there:
                found.append({"file": file, "line": number, "names": there})
    return found


def names_of_hosts(members: List[str]) -> List[str]:
    """What a configuration may call the hosts of these nodes: long and short names, addresses."""
    found: Set[str] = set()
    for host in map(host_of, members):
        found.update({host, host.split(".")[0]})
        try:
            found.update(str(item[4][0]) for item in socket.getaddrinfo(host, None))
        except OSError:
            continue  # a name that only the other hosts know
    return sorted(found - EVERYWHERE)


def announced(saved: List[Dict[str, Any]], names: Dict[str, str]) -> List[str]:
    """What a restore will rewrite, as far as the snapshot has seen it."""
    lines = []
    for mention in saved:
        changes = ["%s → %s" % (name, names[name]) for name in mention["names"] if name in names]
        if changes:
            lines.append("%s line %d: %s" % (mention["file"], mention["line"], ", ".join(changes)))
    return lines


def rewrite(member: Delivered, names: Dict[str, str]) -> List[str]:
    """Put new names into the delivered files; returns each line that changed, by its place."""
    changed = []
    for path in member.live_paths():
        staged = os.path.join(member.path, path.lstrip("/"))
        if os.path.islink(staged) or not _text(staged):
            continue
        with open(staged, encoding="utf-8") as stream:
            old = stream.read().splitlines(True)
        new = [mapped(line, names) for line in old]
        places = [number for number, line in enumerate(old) if line != new[number]]
        if places:
            with open(staged, "w", encoding="utf-8") as stream:
                stream.write("".join(new))
            changed += ["%s line %d" % (path, number + 1) for number in places]
    return changed


def not_saved(member: Delivered) -> List[str]:
    """Live files of the configuration's folder that the backup does not have."""
    saved = set(member.live_paths())
    before = re.compile(r"\.(before|new)-\d{8}T\d{6}Z$")
    return [path for path in _files(FOLDER) if path not in saved and not before.search(path)]

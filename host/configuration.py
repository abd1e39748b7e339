"""Services that are installed in a folder of their own: where a saved one belongs on this host,
and putting its configuration beside the live one with the names of this cluster."""

import os
import pwd
import stat
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from host import java, unit
from host.errors import HostError
from host.mapping import mapped, replacements
from host.service import Delivered, Restoration
from host.swap import same

LEFT_ALONE = ("/lib/", "/usr/lib/", "/etc/systemd/")
"""Saved, never put back: units belong to the installation."""

STORES = (".jks", ".p12", ".pem", ".keystore")


class Installed(NamedTuple):
    """A service on this host: its unit, whether that runs, its configuration file, its user."""

    unit: str
    active: bool
    config: str
    uid: int
    gid: int


def installed(title: str, saved: Dict[str, Any], find: Callable[[], Any]) -> Installed:
    """Where a saved service (`unit` and `config` of its details) belongs on this host.

    find: gives the live one, with the same names; its HostError means that there is none, as
    after the loss of its configuration: then what was saved says where it was.
    Raises HostError if it is not installed.
    """
    try:
        live = find()
        name, active, config = live.unit, live.active, live.config
    except HostError:
        name, active, config = saved["unit"], False, saved["config"]
        if not unit.exists(name) or not os.path.isdir(os.path.dirname(config)):
            raise HostError(
                "%s is not installed on this host: there is no unit %s, or no folder %s"
                % (title, name, os.path.dirname(config)),
                "install it first (epicli apply), or map to another host: --host-map",
            ) from None
    user = unit.properties(name).get("User") or "root"
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise HostError(
            "the user %s of %s does not exist" % (user, name), "install %s first" % title
        ) from None
    return Installed(name, active, config, entry.pw_uid, entry.pw_gid)


def stage(
    restoration: Restoration, live: Installed, staged: str, is_mapped: Callable[[str], bool]
) -> List[str]:
    """Put the delivered configuration below `staged`, at its live paths; returns those that
    differ from the live files, file by file. Nothing where none was saved.

    The configuration file of another version's folder goes where this version's is; what else
    is in that folder belongs to its version and stays out.
    is_mapped: whether a property names hosts, which then become those of this cluster.
    """
    paths: List[str] = []
    for member in restoration.members:
        if member.content.get("part") == "configuration":
            take_over(member.path, tuple(member.content["owner"]), (live.uid, live.gid))
            paths += _stage(restoration, member, live, staged, is_mapped)
    return sorted(paths)


def _stage(
    restoration: Restoration,
    member: Delivered,
    live: Installed,
    staged: str,
    is_mapped: Callable[[str], bool],
) -> List[str]:
    saved_config = restoration.details["config"]
    saved_folder = os.path.dirname(saved_config)
    elsewhere = saved_folder != os.path.dirname(live.config)
    names = replacements(restoration.options.get("host_map", []))
    paths = []
    for saved in member.live_paths():
        source = os.path.join(member.path, saved.lstrip("/"))
        path = saved
        if saved == saved_config:
            path = live.config
            _map(source, names, is_mapped, restoration)
        elif elsewhere and saved.startswith(saved_folder + "/"):
            continue
        if saved.startswith(LEFT_ALONE):
            if not same(saved, source):
                restoration.warn("%s differs from the saved one and is left as it is" % saved)
            continue
        if names and saved.endswith(STORES):
            restoration.warn("%s is of the old host: its certificate may name that one" % saved)
        if not same(path, source):
            place = os.path.join(staged, path.lstrip("/"))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.rename(source, place)
            paths.append(path)
    return paths


def take_over(tree: str, saved_owner: Tuple[int, int], owner: Tuple[int, int]) -> None:
    """Give files of the saved service's user (user and group id) to this host's: numbers differ
    between hosts."""
    if saved_owner == owner:
        return
    for parent, folders, files in os.walk(tree):
        for name in folders + files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            uid = owner[0] if status.st_uid == saved_owner[0] else -1
            gid = owner[1] if status.st_gid == saved_owner[1] else -1
            if (uid, gid) != (-1, -1):
                os.chown(path, uid, gid, follow_symlinks=False)
                if not os.path.islink(path):
                    os.chmod(path, stat.S_IMODE(status.st_mode))  # chown takes set-user-id away


def _map(
    path: str, names: Dict[str, str], is_mapped: Callable[[str], bool], restoration: Restoration
) -> None:
    values: Dict[str, str] = {}
    for key, value in java.read_properties(path).items():
        if is_mapped(key) and mapped(value, names) != value:
            values[key] = mapped(value, names)
            restoration.say(becomes(key, value, values[key]))
    if values:
        with open(path, encoding="latin-1") as stream:
            text = stream.read()
        with open(path, "w", encoding="latin-1") as stream:
            stream.write(java.replaced_properties(text, values))


def becomes(key: str, old: str, new: str) -> str:
    """How a change of a property is told."""
    return "%s=%s becomes %s" % (key, old, new)


def announced(restoration: Restoration, properties: Dict[str, Any]) -> str:
    """The changes of properties that name hosts, for the text of a step; empty if none."""
    names = replacements(restoration.options.get("host_map", []))
    return "".join(
        "; " + becomes(key, value, mapped(value, names))
        for key, value in properties.items()
        if value and mapped(value, names) != value
    )

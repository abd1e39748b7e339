"""HAProxy on its host.

epicli 0.4-0.7 installs the distribution's package (on RHEL 7 the software collection, with
links from /etc/haproxy); 0.8 and newer run it in runc, with the configuration of the host
mounted into the container (facts: epicli roles `haproxy`, `haproxy_runc`).
"""

import glob
import os
import re
from typing import Any, Dict, List, Optional

from host import command, unit
from host.errors import HostError
from host.packing import outermost
from host.service import HostService, Restoration, Step, nothing
from host.snapshot import Snapshot
from host.swap import Swap, put_aside, remove, same

UNIT = "haproxy.service"
DEFAULT_CONFIG = "/etc/haproxy/haproxy.cfg"
COMPANIONS = [
    "/etc/ssl/haproxy",
    "/etc/default/haproxy",
    "/etc/sysconfig/haproxy",
    "/etc/rsyslog.d/*haproxy*",
    "/etc/logrotate.d/haproxy",
    "/opt/runc/haproxy/config.json",
]
"""What belongs to HAProxy without its configuration naming it."""

LEFT_ALONE = ("/lib/", "/usr/lib/", "/etc/logrotate.d/")
"""Saved, never put back: units of packages come with them, and logrotate would read an old file
beside the new one as well."""

ABSOLUTE_PATH = re.compile(r"(?<![\w./-])/[^\s\"'#,;()]+")
CERTIFICATE = re.compile(r"\b(?:crt|crt-list|ca-file|crl-file|errorfiles)\s+([^\s#]+)")
CERTIFICATE_BASE = re.compile(r"^\s*(?:crt|ca)-base\s+([^\s#]+)", re.MULTILINE)
VOLATILE = ("/proc/", "/sys/", "/dev/", "/run/", "/var/run/")

CHECK = """
staged=$1; shift
for top in "$staged"/*; do
  mount -t overlay overlay -o "lowerdir=$top:/${top##*/}" "/${top##*/}" || exit 97
done
exec "$@"
"""
"""Runs a program in a mount namespace of its own that shows the staged files in their places."""


class HAProxyOnHost(HostService):
    """Configuration, certificates and unit; there is no other state."""

    def discover(self) -> Dict[str, Any]:
        """Paths and version; raises HostError if there is no HAProxy on this host."""
        process = self._process()
        configs = self._configs(process)
        known = unit.properties(UNIT)
        if not configs and known.get("LoadState") != "loaded":
            raise HostError(
                "there is no HAProxy on this host: no process, no unit %s, no %s"
                % (UNIT, DEFAULT_CONFIG),
                "correct the inventory's group haproxy, or skip the service",
            )
        if not configs:
            raise HostError("the configuration %s is missing" % DEFAULT_CONFIG)
        return {
            "version": self._version(),
            "configs": configs,
            "paths": self._paths(configs),
            "active": known.get("ActiveState") == "active",
            "unit_files": unit.files(UNIT),
        }

    def snapshot(self, snapshot: Snapshot) -> None:
        """Freeze all files of HAProxy; a server that is down has its files all the same."""
        found = self.discover()
        snapshot.version = found["version"]
        snapshot.details = {key: found[key] for key in ("configs", "active", "unit_files")}
        if not found["active"]:
            snapshot.warn("%s is not running; its files were saved" % UNIT)
        binary = command.find("haproxy")
        if binary:
            checked = command.run(self._check(binary, found["configs"]), check=False)
            if checked.code != 0:
                snapshot.warn(
                    "the live configuration does not pass haproxy -c: "
                    + command.last_lines(checked.stderr or checked.stdout)
                )
        paths = outermost([*found["paths"], *found["unit_files"]])
        snapshot.add_paths("files", paths, {"paths": paths})

    def restore(self, restoration: Restoration) -> List[Step]:
        """Check the saved configuration as if it were in place, swap, restart, or go back."""
        if not unit.exists(UNIT):
            raise HostError(
                "HAProxy is not installed on this host: there is no unit %s" % UNIT,
                "install it first (apt-get install haproxy), or map to another host",
            )
        member = restoration.of_content("paths")[0]
        configs = restoration.details["configs"]
        was_active = unit.is_active(UNIT)
        binary = command.find("haproxy")
        paths = [path for path in member.content["paths"] if not path.startswith(LEFT_ALONE)]
        swap = Swap(restoration.folder, member.path, paths, restoration.run)

        def check() -> None:
            self._check_staged(str(binary), configs, member.path)
            for path in member.content["paths"]:
                saved = os.path.join(member.path, path.lstrip("/"))
                if path.startswith(LEFT_ALONE) and not same(path, saved):
                    restoration.warn("%s differs from the saved one and is left as it is" % path)

        def prepare() -> None:
            swap.prepare()
            restoration.say("what differs: " + (", ".join(swap.changed) or "nothing"))

        def put() -> None:
            swap.put()
            for path in swap.kept():
                restoration.keep(path)

        def back() -> None:
            swap.back()
            if was_active:
                unit.restart(UNIT)

        steps = [
            Step("check the saved configuration with haproxy -c", check)
            if binary
            else Step("no haproxy program here to check with: the restart decides", nothing)
        ]
        return [
            *steps,
            Step(
                "copy what differs beside the live files: " + ", ".join(paths), prepare, swap.back
            ),
            Step("put it in place; the old files stay as *.before-" + restoration.run, put, back),
            Step("restart %s and wait until it stays up" % UNIT, lambda: unit.restart(UNIT)),
        ]

    def _check_staged(self, binary: str, configs: List[str], staged: str) -> None:
        """Run haproxy -c where the staged files are seen in the place of the live ones."""
        namespace = ["unshare", "--mount", "--propagation", "private"]
        checked = command.run(
            [*namespace, "sh", "-c", CHECK, "check", staged, *self._check(binary, configs)],
            check=False,
        )
        if checked.code == 97:
            raise HostError(
                "the saved configuration could not be checked: " + checked.stderr.strip(),
                "this kernel lacks overlayfs: load the module overlay",
            )
        if checked.code != 0:
            raise HostError(
                "the saved configuration does not pass haproxy -c: "
                + command.last_lines(checked.stderr or checked.stdout)
            )

    def kept(self) -> List[str]:
        """Old files and folders beside the live ones."""
        return put_aside(outermost([*self.discover()["paths"], *unit.files(UNIT)]))

    def discard(self, name: str) -> None:
        """Remove an old file or folder."""
        remove(name)

    def _process(self) -> Optional[int]:
        """The oldest running HAProxy process of this host, or None."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    program = os.path.basename(os.readlink("/proc/%s/exe" % entry))
                except OSError:
                    continue
                if program.split(" ")[0] == "haproxy":
                    found.append(int(entry))
        return min(found) if found else None

    def _configs(self, process: Optional[int]) -> List[str]:
        """The configuration files the process was started with, else the default one.

        A process in a container names paths of its own file system; epicli's runc set-up
        mounts /etc/haproxy there, so the default is right.
        """
        paths = []
        if process and same_file("/proc/%d/root" % process, "/"):
            with open("/proc/%d/cmdline" % process, "rb") as stream:
                words = [command.decode(word) for word in stream.read().split(b"\0")]
            paths = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-f"]
        found = []
        for path in paths or [DEFAULT_CONFIG]:
            if os.path.isdir(path):
                found.extend(sorted(glob.glob(os.path.join(glob.escape(path), "*.cfg"))))
            elif os.path.isfile(path):
                found.append(path)
        return found

    def _paths(self, configs: List[str]) -> List[str]:
        """All files and folders that make up this HAProxy."""
        paths = []
        # Software collections have their own folder, and links to it from the usual one.
        usual = [DEFAULT_CONFIG] if os.path.lexists(DEFAULT_CONFIG) else []
        for config in [*configs, *usual]:
            for path in {config, os.path.realpath(config)}:
                folder = os.path.dirname(path)
                paths.append(folder if "haproxy" in os.path.basename(folder) else path)
        for config in configs:
            paths.extend(referenced(config))
        for pattern in COMPANIONS:
            paths.extend(glob.glob(pattern))
        return outermost(paths)

    def _version(self) -> Optional[str]:
        """The program's version; None where only a container knows it."""
        binary = command.find("haproxy")
        if not binary:
            return None
        shown = command.run([binary, "-v"]).stdout
        match = re.search(r"version (\S+)", shown)
        return match.group(1) if match else None

    def _check(self, binary: str, configs: List[str]) -> List[str]:
        argv = [binary, "-c", "-q"]
        for config in configs:
            argv += ["-f", config]
        return argv


def same_file(one: str, other: str) -> bool:
    """Whether two paths are the same file; False if one is gone."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def referenced(config: str) -> List[str]:
    """Files that a configuration names: certificates, lists, maps, error pages, Lua."""
    with open(config, encoding="utf-8", errors="surrogateescape") as stream:
        text = re.sub(r"(?m)^\s*#.*$", "", stream.read())
    found = [path for path in ABSOLUTE_PATH.findall(text) if os.path.isfile(path)]
    for base in ["", *CERTIFICATE_BASE.findall(text)]:
        for name in CERTIFICATE.findall(text):
            path = os.path.join(base, name)
            if os.path.isabs(path) and os.path.exists(path):
                found.append(path)
    return [path for path in found if not path.startswith(VOLATILE)]

"""The base system of hosts: a Debian tree, made once with mmdebstrap and kept in the cache.

Everything that shapes an image is data in this module and goes into its key, so a changed recipe
makes a new image and an unchanged one is found again.
"""

import hashlib
import json
import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, last_lines
from lab.machine import (
    HOST_TOOLS,
    SYSTEM_PATH,
    Report,
    cache_folder,
    locked,
    remove_tree,
    require_tools,
)

SUITE = "bookworm"
LOGIN_USER = "operations"
LOGIN_USER_ID = 1000

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo"),
    *("python3", "zstd", "unzip", "rsync", "curl", "procps", "iproute2", "openssl"),
    *("acl", "attr", "ca-certificates", "less", "postgresql-15", "pgbouncer", "haproxy"),
)
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
_ENABLED = ("ssh.service", "postgresql.service")

# Units that fail, wait or do nothing useful where the kernel, the devices and the clock belong to
# the machine.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "man-db.timer", "getty.target", "console-getty.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service", "systemd-firstboot.service"),
    # Each takes one of the kernel's inotify instances, of which 128 are for all hosts together.
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("systemd-journald-audit.socket", "systemd-logind.service", "systemd-modules-load.service"),
    *("systemd-networkd.service", "systemd-pstore.service", "systemd-random-seed.service"),
    *("systemd-resolved.service", "systemd-timesyncd.service", "systemd-udevd.service"),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)

# Written before the packages: postgresql-common then makes no cluster of its own.
_EARLY_FILES = {"etc/postgresql-common/createcluster.conf": "create_main_cluster = false\n"}
_FILES = {
    "etc/hostname": "",
    "etc/machine-id": "",
    "etc/resolv.conf": "",
    "etc/fstab": "",
}
_REMOVED = ("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/haproxy/haproxy.cfg")
_COMMANDS = (
    ("useradd", "-m", "-U", "-u", str(LOGIN_USER_ID), "-s", "/bin/bash", LOGIN_USER),
    # A locale per common encoding: databases of real clusters are not all UTF-8.
    ("localedef", "-i", "en_US", "-f", "UTF-8", "en_US.UTF-8"),
    ("localedef", "-i", "de_DE", "-f", "ISO-8859-1", "de_DE.ISO-8859-1"),
)


@dataclass(frozen=True)
class Recipe:
    """What an image holds besides the base: a name for people, and further Debian packages."""

    name: str = "base"
    packages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A short hash of everything that shapes the image."""
        shape = json.dumps(
            [
                *(SUITE, _PACKAGES, self.packages, _EXCLUDED, _ENABLED, _MASKED),
                *(_EARLY_FILES, _FILES, _REMOVED, _COMMANDS),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(shape.encode()).hexdigest()[:12]


BASE = Recipe()


@dataclass(frozen=True)
class Image:
    """A finished image; `tree` is the lower layer of hosts and is never written to again."""

    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def identity(self) -> str:
        """The recipe's key and a number that is another one when the image is made again; empty
        for an image that is not there or not whole. Files of a host fit one identity only."""
        marker = self._marker
        return marker.read_text() if marker.is_file() else ""

    def is_complete(self, recipe: Recipe) -> bool:
        """Whether the marker, written last, is there and names this recipe."""
        return self.identity.split(" ")[0] == recipe.key

    def mark_complete(self, recipe: Recipe) -> None:
        """Writes the marker."""
        self._marker.write_text(f"{recipe.key} {uuid.uuid4()}")

    @property
    def _marker(self) -> Path:
        return self.folder / "recipe"


def find_image(recipe: Recipe) -> Image:
    """Where the image of a recipe is or will be."""
    return Image(cache_folder() / f"image-{recipe.key}")


def obtain_image(recipe: Recipe, report: Report) -> Image:
    """Finds the image of a recipe in the cache, or makes it (about a minute).

    Raises LabError where the machine cannot make or run it.
    """
    require_tools(HOST_TOOLS, report)
    image = find_image(recipe)
    if image.is_complete(recipe):
        return image
    with locked(cache_folder() / "image.lock", report):
        if not image.is_complete(recipe):
            require_tools(("mmdebstrap",), report)
            report(
                f"Making the hosts' base system (Debian {SUITE}, {recipe.name}): once,"
                " about a minute, 500 MB"
            )
            _make(image, recipe)
    return image


def _make(image: Image, recipe: Recipe) -> None:
    """Builds under another name and renames, so that an image under its own name is whole."""
    remove_tree(image.folder)
    unfinished = Image(image.folder.with_name(f"{image.folder.name}.unfinished"))
    remove_tree(unfinished.folder)  # the lock is held: nobody else is building this
    unfinished.folder.mkdir(mode=0o700)
    try:
        _bootstrap(unfinished, recipe)
        _shape(unfinished.tree)
        unfinished.mark_complete(recipe)
        unfinished.folder.rename(image.folder)
    finally:
        remove_tree(unfinished.folder)


def _bootstrap(image: Image, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory(dir=image.folder) as scratch, _apt_options() as apt_options:
        hooks = []
        for path, text in _EARLY_FILES.items():
            source = Path(scratch) / Path(path).name
            source.write_text(text)
            folder = f"/{Path(path).parent}"
            hooks.append(f'--essential-hook=mkdir -p "$1{folder}"')
            hooks.append(f"--essential-hook=copy-in {source} {folder}")
        command = [
            *("mmdebstrap", "--mode=root", "--format=directory", "--variant=essential"),
            f"--aptopt={apt_options}",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
            *hooks,
            f"--include={','.join((*_PACKAGES, *recipe.packages))}",
            *(SUITE, str(image.tree), *_apt_sources()),
        ]
        # It ends with this process, even by kill -9 (or it would go on without the lock), and its
        # mounts and processes are in namespaces that end with it.
        bound = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation", "private"]
        built = subprocess.run(
            [*bound, "--pid", "--kill-child", "--", *command],
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    if built.returncode != 0:
        raise LabError(
            f"mmdebstrap could not make the hosts' base system:\n{last_lines(built.stderr)}",
            "Check that apt-get update works on this machine and that the disk has 1 GB free.",
        )


def _apt_sources() -> Iterator[str]:
    """The machine's own Debian sources of this suite, so that its mirror is used.

    Nothing where the machine has none (another distribution): mmdebstrap then takes its default.
    """
    listed = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages", "Origin: Debian", "Component: main"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for paragraph in listed.split("\n\n"):
        target = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if target.get("Codename", "").split("-")[0] == SUITE and "Repo-URI" in target:
            signed = f"[signed-by={target['Signed-By']}] " if target.get("Signed-By") else ""
            yield f"deb {signed}{target['Repo-URI']} {target['Release']} main"


@contextmanager
def _apt_options() -> Iterator[Path]:
    """A file with the machine's settings for reaching its mirror: proxies, certificates, retries.

    A file, because a proxy's address may hold a password.
    """
    dumped = subprocess.run(
        ["apt-config", "dump"], capture_output=True, text=True, check=False
    ).stdout
    taken = re.compile(r"Acquire::(https?|Retries|Check-|ForceIPv)")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.writelines(f"{line}\n" for line in dumped.splitlines() if taken.match(line))
        file.flush()
        yield Path(file.name)


def _shape(tree: Path) -> None:
    """Makes a host of the bare Debian tree: users, locales, units; nothing of the machine."""
    for name in _REMOVED:
        (tree / name).unlink(missing_ok=True)
    for name, text in _FILES.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).write_text(text)
    for command in _COMMANDS:
        done = subprocess.run(
            ["chroot", tree, *command],
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"{command[0]} failed in the base system:\n{last_lines(done.stderr)}")
    units = tree / "etc/systemd/system"
    for link in units.glob("*.wants/*"):
        if link.name not in _ENABLED:
            link.unlink()
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # every host gets its own
    for log in (*tree.glob("var/log/*.log"), *tree.glob("var/cache/ldconfig/aux-cache")):
        log.unlink()

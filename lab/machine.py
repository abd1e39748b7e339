"""The machine under the lab: its folders, the tools it needs, and whether hosts can run on it."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.errors import REAL_CLUSTER_HINT, LabError, last_lines

Report = Callable[[str], None]

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Which Debian packages bring a tool. Those of NFS and SMB servers, which only tests ask for, have
# services that apt starts where systemd runs.
_PACKAGES = {
    "systemd-nspawn": ("systemd-container",),
    "mmdebstrap": ("mmdebstrap", "debian-archive-keyring"),
    "ssh-keygen": ("openssh-client",),
    "mvn": ("maven",),
    "rsync": ("rsync",),
    "ganesha.nfsd": ("nfs-ganesha", "nfs-ganesha-vfs"),
    "rpcbind": ("rpcbind",),
    "nfs-ls": ("libnfs-utils",),
    "fusermount3": ("fuse3",),
    "smbd": ("samba",),
    "smbnetfs": ("smbnetfs",),
}
HOST_TOOLS = ("systemd-nspawn", "ssh-keygen")


def cache_folder() -> Path:
    """Where images and downloads are kept: `${XDG_CACHE_HOME:-~/.cache}/epibackup/lab`."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Where clusters live: `${XDG_STATE_HOME:-~/.local/state}/epibackup/lab/<cluster>`.

    Not under /tmp or /var/tmp: a machine's clean-up of old files must not thin out a host.
    """
    return _user_folder("XDG_STATE_HOME", ".local/state")


def _user_folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable) or Path.home() / default
    folder = Path(base).resolve() / "epibackup" / "lab"
    if re.search(r"[\s:,\\]", str(folder)):
        # They separate folders and options of an overlay mount, and names in the boot script.
        raise LabError(
            f"the folder {folder} has a space, colon, comma or backslash in its name",
            f"Set {variable} to a folder without one.",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def find_tool(name: str) -> str | None:
    """The path of a program, with the system folders that cron and sudo sometimes leave out."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def has_systemd() -> bool:
    """Whether systemd is the machine's own pid 1 (the test that sd_booted(3) documents)."""
    return Path("/run/systemd/system").is_dir()


def require_root() -> None:
    """Raises LabError where hosts can never run: not Linux, or not root."""
    if sys.platform != "linux":
        raise LabError("the lab's hosts are systemd containers: they need Linux", REAL_CLUSTER_HINT)
    if os.geteuid() != 0:
        raise LabError(
            "the lab's hosts are systemd containers: starting them needs root",
            f"Run the same command as root (sudo -E …). {REAL_CLUSTER_HINT}",
        )


def require_tools(names: tuple[str, ...], report: Report) -> None:
    """Installs the Debian packages of tools that are missing, and says so in one line.

    Raises LabError where apt-get is missing or fails.
    """
    require_root()
    packages = [package for name in names if find_tool(name) is None for package in _PACKAGES[name]]
    if not packages:
        return
    listed = " ".join(packages)
    if find_tool("apt-get") is None:
        raise LabError(
            f"the lab needs {listed} on this machine, and there is no apt-get to install it",
            f"Install it with this system's package manager. {REAL_CLUSTER_HINT}",
        )
    report(f"Installing on this machine, with apt-get: {listed}")
    wait = ["-o", "DPkg::Lock::Timeout=300"]  # another session may be installing
    install = ["apt-get", *wait, "install", "-y", "-q", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (install, ["apt-get", "update", "-q"], install):
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if command is install and done.returncode == 0:
            break
    missing = [name for name in names if find_tool(name) is None]
    if missing:
        raise LabError(
            f"{' '.join(missing)} could not be installed:\n{last_lines(done.stdout + done.stderr)}",
            f"Install {listed} by hand. {REAL_CLUSTER_HINT}",
        )


def overlay_options(lower: Sequence[str], upper: str, work: str) -> str:
    """The mount options of a host's file system: read-only folders, the uppermost first, and the
    folder that is written.

    Without redirect_dir a folder of a lower layer could not be renamed (EXDEV), which is how a
    restore swaps folders.
    """
    return f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},redirect_dir=on"


def require_overlay(folder: Path) -> None:
    """Tries an overlay mount in `folder`, in a private mount namespace.

    Raises LabError with the kernel's reason: an unprivileged container, or a folder on a file
    system that cannot be an upper layer (an overlay itself, NFS).
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for part in ("lower", "upper", "work", "root"):
            (Path(name) / part).mkdir()
        options = overlay_options([f"{name}/lower"], f"{name}/upper", f"{name}/work")
        mount = ["mount", "-t", "overlay", "epibackup-lab", "-o", options, f"{name}/root"]
        tried = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", *mount],
            capture_output=True,
            check=False,
        )
    if tried.returncode != 0:
        raise LabError(
            f"a host's file system cannot be mounted in {folder}: {last_lines(tried.stderr, 2)}",
            "Set XDG_STATE_HOME to a folder on a local disk (ext4, xfs, btrfs or tmpfs); inside"
            f" a container, start that one privileged. {REAL_CLUSTER_HINT}",
        )


@contextmanager
def locked(path: Path, report: Report) -> Iterator[None]:
    """Holds an exclusive lock on a file, and says so when that means waiting for another process.

    The kernel drops the lock with the process, so none is ever stale.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"Waiting for another process that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_tree(folder: Path) -> None:
    """Deletes a folder of the lab with all that is in it; missing is fine.

    Raises LabError if something is mounted below: never delete through a mount.
    """
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    below = [point for line in mounts if (point := line.split()[4]).startswith(f"{folder}/")]
    if below:
        raise LabError(f"{folder} is not deleted: {below[0]} is mounted", f"umount {below[0]}")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a file was still being written: once more, and then tell
        shutil.rmtree(folder)

"""Whether a path is on a network file system, found out without touching one."""

import os
from pathlib import Path

NETWORK_TYPES = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre"),
        *("beegfs", "gpfs", "glusterfs", "orangefs", "pvfs2", "gfs2", "ocfs2", "coda"),
        # Mounted on first use, and often over the network; and file systems that are programs.
        *("autofs", "fuse"),
    }
)  # fmt: skip
"""Types of /proc/self/mountinfo; also every `fuse.…`, but not fuseblk, which is a local disk's."""

LONGEST_CHAIN = 40
"""Links in a path, as the kernel has it (path_resolution(7))."""


def network_file_system(path: str) -> str | None:
    """The type of the network file system that a path leads to; None for local ones.

    Each link on the way is read only once it is known that it is on a local file system: looking
    at a mount whose server is gone would block.
    """
    mounts = _mounts()
    rest = [part for part in path.split("/") if part]
    found = "/"
    links = 0
    while True:
        kind = mounts.get(found, "")
        if kind in NETWORK_TYPES or kind.startswith("fuse."):
            return kind
        if not rest:
            return None
        part = rest.pop(0)
        if part == ".":
            continue
        if part == "..":
            found = os.path.dirname(found)  # noqa: PTH120 - text, and nothing on disk
            continue
        step = f"{found.rstrip('/')}/{part}"
        if step not in mounts and Path(step).is_symlink():
            links += 1
            if links > LONGEST_CHAIN:
                return None  # the first use tells what is wrong
            target = str(Path(step).readlink())
            found = "/" if target.startswith("/") else found
            rest = [part for part in target.split("/") if part] + rest
        else:
            found = step


def _mounts() -> dict[str, str]:
    """Mount points and their types; of several at one place the last counts (proc(5))."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(code, character)
        found[point] = after.split(" ")[0]
    return found

"""Trees of files: frozen for a snapshot, sent as tar, unpacked for a restore."""

import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
from typing import IO, Any, Iterable, List, NamedTuple

from host.command import Program
from host.compression import Compression, compressor, decompressor
from host.errors import HostError
from host.pipeline import PIPE_BYTES, Pipeline
from host.store import read_json

LINK_FROM_BYTES = 4 << 20
"""From this size on a frozen file is a hard link: its copy would cost time and space."""


class Frozen(NamedTuple):
    """What `freeze` put aside; skipped: sockets, devices and pipes, which hold no data."""

    files: int
    bytes: int
    skipped: List[str]


def freeze(paths: Iterable[str], destination: str) -> Frozen:
    """Put files and folders aside under `destination`, at their own path without its first slash.

    Files from `LINK_FROM_BYTES` on are hard links where source and destination share a file
    system: programs that replace a file by renaming do not touch the link; one that writes in
    place is noticed when the tree is sent (`send_tree` fails). Owners, modes, times, links
    and extended attributes are kept. A path that does not exist is left out.
    """
    os.makedirs(destination, mode=0o700, exist_ok=True)
    total = Frozen(0, 0, [])
    for path in sorted(set(paths)):
        if os.path.lexists(path):
            total = _freeze_entry(path, destination, total)
            if os.path.isdir(path) and not os.path.islink(path):
                for folder, folders, files in os.walk(path):
                    for name in sorted(folders + files):
                        total = _freeze_entry(os.path.join(folder, name), destination, total)
    return total


def _freeze_entry(path: str, destination: str, total: Frozen) -> Frozen:
    target = os.path.join(destination, path.lstrip("/"))
    if os.path.lexists(target):
        return total
    _make_parents(os.path.dirname(path), destination)
    status = os.lstat(path)
    size = 0
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(path), target)
    elif stat.S_ISREG(status.st_mode):
        size = status.st_size
        if size < LINK_FROM_BYTES or not _link(path, target):
            shutil.copyfile(path, target)
        else:
            return total._replace(files=total.files + 1, bytes=total.bytes + size)
    else:
        return total._replace(skipped=[*total.skipped, path])
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(path, target, follow_symlinks=False)
    files = total.files + (0 if stat.S_ISDIR(status.st_mode) else 1)
    return total._replace(files=files, bytes=total.bytes + size)


def _make_parents(folder: str, destination: str) -> None:
    """Make the folders above a frozen path, with their owners and modes."""
    target = os.path.join(destination, folder.lstrip("/"))
    if os.path.isdir(target):
        return
    _make_parents(os.path.dirname(folder), destination)
    os.mkdir(target)
    status = os.stat(folder)
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(folder, target)


def _link(path: str, target: str) -> bool:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        return False  # another file system, or one without links: the caller copies
    return True


def send_file(path: str, destination: IO[bytes]) -> None:
    """Write a file's bytes to `destination`, unchanged."""
    with open(path, "rb", buffering=0) as source:
        shutil.copyfileobj(source, destination, PIPE_BYTES)


def send_tree(base: str, compression: Compression, destination: Any) -> None:
    """Write all that is below `base` to `destination`, an open file, as a compressed tar.

    Owners are numbers, so that a restore does not depend on this host's user database;
    extended attributes and ACLs are kept. Raises HostError if tar or the compressor fails:
    tar fails too if a file changes while it is read, because then it is no snapshot.
    """
    tar = [
        "tar", "--create", "--format=posix", "--pax-option=delete=atime,delete=ctime",
        "--numeric-owner", "--xattrs", "--acls", "--sparse", "--directory", base, ".",
    ]  # fmt: skip
    packer = compressor(compression)
    programs = [Program(argv) for argv in (tar, packer) if argv]
    Pipeline(programs, stdout=destination).finish()


def send_cut_tree(listing: str, compression: Compression, destination: Any) -> None:
    """Write the files that a listing names (`Snapshot.add_cut_tree`) to `destination`, an open
    file, as a compressed tar, each cut to its length.

    Not by GNU tar: it takes a file's length from its own look at it, and these go on growing.
    Raises HostError if a file has become shorter than its length.
    """
    files = read_json(listing)["files"]
    packer = compressor(compression)
    if packer is None:
        _write_tar(files, destination)
        destination.flush()
        return
    pipeline = Pipeline([Program(packer)], stdin=subprocess.PIPE, stdout=destination)
    try:
        # A packer that has died is told by finish, not by the broken pipe.
        with contextlib.suppress(BrokenPipeError):
            _write_tar(files, pipeline.input)
    except BaseException:
        pipeline.end()
        raise
    pipeline.finish()


def _write_tar(files: List[List[Any]], destination: Any) -> None:
    with tarfile.open(mode="w|", fileobj=destination, format=tarfile.PAX_FORMAT) as archive:
        for name, path, length in files:
            entry = tarfile.TarInfo("./" + name)
            if length is None:
                status = os.stat(path)
                entry.type = tarfile.DIRTYPE
                _describe(entry, status)
                archive.addfile(entry)
                continue
            with open(path, "rb") as source:
                _describe(entry, os.fstat(source.fileno()))
                entry.size = length
                try:
                    archive.addfile(entry, source)
                except (tarfile.ReadError, OSError) as error:
                    if isinstance(error, BrokenPipeError) or "unexpected end" not in str(error):
                        raise
                    raise HostError(
                        "%s was cut short by its service while it was sent" % path,
                        "run again: a replica was truncated, as after a change of leader",
                    ) from None


def _describe(entry: tarfile.TarInfo, status: os.stat_result) -> None:
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.mtime = int(status.st_mtime)


def receive_file(stored_name: str, source: IO[bytes], path: str) -> None:
    """Write a stored member that is one file to `path`, decompressed as its name says."""
    unpacker = decompressor(stored_name)
    with open(path, "wb") as destination:
        os.chmod(path, 0o600)
        if unpacker:
            Pipeline([Program(unpacker)], stdin=source, stdout=destination).finish()
        else:
            shutil.copyfileobj(source, destination, PIPE_BYTES)
        os.fsync(destination.fileno())


def receive_tree(stored_name: str, source: IO[bytes], folder: str) -> None:
    """Unpack a stored member that is a tree below `folder`, made with mode 0700.

    GNU tar refuses names with `..` and takes the first slash off absolute ones, and makes
    links that point outside only at the end (tar(1), --absolute-names).
    """
    os.makedirs(folder, mode=0o700)
    tar = [
        "tar", "--extract", "--numeric-owner", "--same-owner", "--same-permissions",
        "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--directory", folder, "--file=-",
    ]  # fmt: skip
    unpacker = decompressor(stored_name)
    programs = [Program(argv) for argv in (unpacker, tar) if argv]
    Pipeline(programs, stdin=source).finish()


def outermost(paths: List[str]) -> List[str]:
    """Sorted paths without duplicates and without what is inside another of them."""
    kept: List[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return kept


def folder_bytes(folder: str) -> int:
    """The size of all regular files below a folder, in bytes."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            status = os.lstat(os.path.join(parent, name))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def free_bytes(path: str) -> int:
    """Free space for root on the file system of `path`, in bytes."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize

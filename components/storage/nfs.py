"""`nfs://server/export/path`: an NFS export as a target, without a mount.

NFS version 3 only: the client's header file says of version 4 "not yet functional" (nfsc/libnfs.h
of libnfs 4.0.0), and its exclusive create fails there. A server that has only version 4 is mounted
by the system and given as a path.
"""

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from components.errors import NotFound, TargetUnreachable, UsageError
from components.storage.libnfs import (
    LARGEST_REQUEST_BYTES,
    NO_REASON,
    Connection,
    FileStatus,
    Request,
)
from components.storage.options import TargetOptions
from components.storage.partial import ABANDONED_SECONDS, PARTIAL, partial_name
from components.storage.positioned import PositionedFile
from components.storage.target import Data, Target, Upload

LOCATION = re.compile(r"nfs://(?P<server>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))(?P<path>/.*)")
LONGEST_PATH = 1024
"""MNTPATHLEN of RFC 1813, section 5.1.4."""

REQUESTS = 4
"""Writes under way at the same time, of up to 1 MiB each: enough for 10 Gbit/s at 3 ms. With more,
a server's threads wait for each other, since all write one file."""

COMMIT_BYTES = 64 << 20
"""After how much the server is asked to store durably what it has. Left alone it may keep
gigabytes in memory, and storing all of it at the end would take longer than the time limit."""

NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)
"""What link says where there are none; EINVAL is how libnfs tells NFS3ERR_NOTSUPP."""


class Nfs(Target):
    """A folder of an NFS server."""

    def __init__(self, location: str, options: TargetOptions) -> None:
        self.url = location
        self.server, self.path = parse_location(location)
        self._options = options.nfs

    def check(self) -> None:
        with self.explained(), self._connected() as connection:
            upload = _NfsUpload(self, connection, ["check"])
            try:
                upload.write(b"check")
                upload.complete()
                self._remove_abandoned(connection, upload.status().modified)
            finally:
                upload.abort()

    def free_bytes(self) -> int:
        with self.explained(), self._connected() as connection:
            return connection.free_bytes()

    def create(self, names: Sequence[str]) -> Upload:
        for name in names:
            _checked_name(name)
        with self.explained():
            connection = self._connection()
            try:
                return _NfsUpload(self, connection, names)
            except BaseException:
                connection.close()
                raise

    def names(self) -> list[str]:
        with self.explained(), self._connected() as connection:
            return sorted(name for name in connection.files() if not name.startswith("."))

    def size(self, name: str) -> int:
        with self.explained(name), self._connected() as connection:
            return connection.status(_checked_name(name)).bytes

    def open(self, name: str) -> BinaryIO:
        with self.explained(name):
            connection = self._connection()
            try:
                raw = _NfsFile(self, connection, _checked_name(name))
            except BaseException:
                connection.close()
                raise
            return io.BufferedReader(raw, LARGEST_REQUEST_BYTES)

    def delete(self, name: str) -> None:
        with self.explained(), self._connected() as connection:
            _remove(connection, _checked_name(name))

    def _connection(self) -> Connection:
        return Connection(self.server, self.path, self._options)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        connection = self._connection()
        try:
            yield connection
        finally:
            connection.close()

    def _remove_abandoned(self, connection: Connection, now: int) -> None:
        """Remove what killed runs have left. There are no locks to ask: its age has to tell.

        now: seconds, by the server's clock, as are the files' times.
        """
        for name in connection.files():
            if PARTIAL.fullmatch(name):
                with contextlib.suppress(OSError):  # another run removes it just now
                    if now - connection.status(f"/{name}").modified > ABANDONED_SECONDS:
                        connection.unlink(f"/{name}")

    @contextlib.contextmanager
    def explained(self, name: str = "") -> Iterator[None]:
        """Turn the server's and libnfs's errors into ours."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and name:
                raise NotFound(
                    f"there is no {name} in {self.url}", "epibackup list shows the runs"
                ) from error
            reason, hint = _explanation(error, self.server)
            raise TargetUnreachable(f"the target {self.url} {reason}", hint) from error


class _NfsUpload(Upload):
    """A hidden file that gets its name when it is complete.

    The server stores it durably in steps (RFC 1813, section 3.3.21: COMMIT). What a server has
    acknowledged and lost when it crashed is found when the archive is read back.
    """

    def __init__(self, target: Nfs, connection: Connection, names: Sequence[str]) -> None:
        self._target = target
        self._connection = connection
        self._names = names
        self._path = f"/{partial_name(names[0])}"
        self._handle = connection.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._open = True
        self._waiting = bytearray()
        self._position = 0
        self._requests: list[Request] = []
        self._commits: list[Request] = []
        self._committed = 0

    def write(self, data: Data) -> None:
        with self._target.explained():
            view, largest = memoryview(data), self._connection.write_bytes
            while view:
                room = largest - len(self._waiting)
                if self._waiting or len(view) < largest:
                    self._waiting += view[:room]
                if len(self._waiting) == largest:
                    self._send(bytes(self._waiting))
                    self._waiting.clear()
                elif not self._waiting:
                    self._send(bytes(view[:largest]))
                view = view[room:]

    def publish(self) -> str:
        if not self._open:
            raise TargetUnreachable(f"an upload to {self._target.url} that has ended is no archive")
        with self._target.explained():
            self.complete()
            number = self.status().number
            for name in self._names:
                if self._take(f"/{name}", number):
                    self.abort()
                    return name
        raise TargetUnreachable(f"every name for the archive is taken in {self._target.url}")

    def complete(self) -> None:
        """Make sure that the server has all of it, durably."""
        self._send(bytes(self._waiting))
        self._waiting.clear()
        self._connection.finish(self._requests, 0)
        self._commit()
        self._connection.finish(self._commits, 0)
        stored = self.status().bytes
        if stored != self._position:
            raise OSError(errno.EIO, f"it has {stored} bytes of {self._position}")

    def status(self) -> FileStatus:
        """What the server says of the file."""
        return self._connection.handle_status(self._handle)

    def abort(self) -> None:
        """Whatever cannot be removed now is removed by a check after a day."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError):
            _remove(self._connection, self._path)
        self._connection.close()

    def _send(self, data: bytes) -> None:
        if data:
            self._connection.finish(self._requests, REQUESTS - 1)
            self._requests.append(self._connection.start_write(self._handle, self._position, data))
            self._position += len(data)
            if self._position - self._committed >= COMMIT_BYTES:
                self._commit()

    def _commit(self) -> None:
        """Begin to store durably what the server has, once it is done with the last time."""
        self._connection.finish(self._commits, 0)
        self._commits.append(self._connection.start_sync(self._handle))
        self._committed = self._position

    def _take(self, name: str, number: int) -> bool:
        """Give the file its name, unless that is taken; True if it got it.

        number: the file's inode. Where an answer was lost with a connection, the request is sent
        again and fails on its own work: the inode tells.
        """
        try:
            self._connection.link(self._path, name)
        except FileExistsError:
            return self._connection.status(name).number == number
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            # No hard links there: reserve the name, then rename onto it.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            try:
                self._connection.close_file(self._connection.open(name, flags))
            except FileExistsError:
                return False
            try:
                self._rename(name, number)
            except BaseException:
                with contextlib.suppress(OSError):  # reserved, and no archive
                    self._connection.unlink(name)
                raise
        return True

    def _rename(self, name: str, number: int) -> None:
        try:
            self._connection.rename(self._path, name)
        except FileNotFoundError:
            if self._connection.status(name).number != number:
                raise


class _NfsFile(PositionedFile):
    """A published file, open for reading on a connection of its own."""

    def __init__(self, target: Nfs, connection: Connection, path: str) -> None:
        self._target = target
        self._connection = connection
        self._handle = connection.open(path, os.O_RDONLY)
        super().__init__(connection.handle_status(self._handle).bytes)

    def read_at(self, position: int, size: int) -> bytes:
        with self._target.explained():
            size = min(size, self._connection.read_bytes)
            data = self._connection.read(self._handle, position, size)
            if not data:
                raise OSError(errno.EIO, "a file became shorter while it was read")
        return data

    def close(self) -> None:
        if not self.closed:
            self._connection.close()
        super().close()


def parse_location(location: str) -> tuple[str, str]:
    """Server and path of `nfs://server/path`; raises UsageError for what cannot be one."""
    match = LOCATION.fullmatch(location)
    parts = match["path"].split("/") if match else []
    if (
        not match
        or any(part in (".", "..") for part in parts)
        or re.search(r"[?#\x00-\x1f\x7f]", match["path"])
        or len(os.fsencode(match["path"])) > LONGEST_PATH
    ):
        raise UsageError(
            f"the target {location} is not of the form nfs://server/export/path",
            "the server is a name or an IPv4 address; ports and users are options, "
            "in epibackup:nfs",
        )
    return match["server"], match["path"]


def _checked_name(name: str) -> str:
    """The path of a file in the target's folder; raises UsageError if that is no file's name."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise UsageError(f"{name!r} is no name of an archive")
    return f"/{name}"


def _remove(connection: Connection, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        connection.unlink(path)


def _explanation(error: OSError, server: str) -> tuple[str, str]:
    """What failed, as the end of a sentence, and what to do."""
    text = error.strerror or str(error)
    if "MNT3ERR_ACCES" in text or "MNT3ERR_PERM" in text or text == NO_REASON:
        more = (
            ""
            if os.geteuid() == 0
            else "; a server that takes only ports below 1024 refuses everybody but root: there, "
            "run as root or set `insecure` for the export"
        )
        return (
            "may not be mounted from this machine, or does not exist (permission denied)",
            f"check the path and who may mount it in the exports of {server}{more}",
        )
    if "MNT3ERR_" in text:
        return (
            f"cannot be mounted ({text.rpartition('error ')[2]})",
            f"check the path against the exports of {server}, and make the folder there",
        )
    if isinstance(error, FileNotFoundError):
        return "is gone", f"check the exports of {server}"
    if "resolv" in text:
        return "has a server whose name is not known", f"check the name {server}"
    if error.errno == errno.ETIMEDOUT:
        return (
            f"does not answer: {text}",
            f"check {server} and the network; epibackup:nfs timeout_seconds sets the limit",
        )
    if error.errno == errno.EIO:
        return f"fails: {text}", f"look at the disk and the log of {server}"
    known = _KNOWN.get(error.errno or 0)
    if known:
        return f"refuses: {known[0]}", known[1]
    return (
        f"cannot be used: {text}",
        f"check that {server} serves NFS version 3 over TCP, or mount it and give that path",
    )


_QUOTA = ("the user's quota is used up", "raise the quota, or choose another target")
_DENIED = (
    "permission denied",
    "set epibackup:nfs uid and gid to a user with that right; root is often nobody (root_squash)",
)
_KNOWN = {
    errno.ENOSPC: ("no space left on its disk", "free space there, or choose another target"),
    errno.EDQUOT: _QUOTA,
    errno.ERANGE: _QUOTA,  # how libnfs tells NFS3ERR_DQUOT
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("it is exported read-only", "export it for writing"),
    errno.ESTALE: ("its folder was removed or replaced (stale file handle)", "run it again"),
    errno.EFBIG: ("the archive is larger than a file may be there", "choose another target"),
    errno.EAGAIN: ("it is busy (NFS3ERR_JUKEBOX)", "run it again later"),
}

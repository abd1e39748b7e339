"""The NFS client libnfs, by ctypes: an export mounted inside this process.

libnfs is a C library (LGPL-2.1; Debian: libnfs13) that speaks NFS over its own TCP connection: no
root, no mount, no NFS in the kernel. Its non-blocking functions are used, so that many requests
can be under way and none can wait longer than its limit; nfsc/libnfs.h describes them.
"""

import ctypes
import errno
import functools
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.errors import UsageError
from components.storage.options import NfsOptions

SONAMES = ("libnfs.so.13", "libnfs.so.14")
"""libnfs 4.0 and 5.0. In 6.0 (libnfs.so.16) the same functions take other arguments."""

CONNECT_SECONDS = 30
RECONNECT_SECONDS = 0.2
"""The pause before libnfs connects again to a server that refuses; it makes none itself."""

LARGEST_REQUEST_BYTES = 1 << 20
NO_REASON = "it gives no reason"
"""The text where libnfs has none: a server that denies a call as such (RPC's AUTH_ERROR)."""

_TOLD = re.compile(r"NFS3ERR_\w+\(-?(\d+)\)")

REGULAR_FILE = 1
"""NF3REG of RFC 1813, section 2.6."""

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_pointer, _int, _text, _uint64 = (
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint64,
)
_REQUEST = (_CALLBACK, _pointer)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "nfs_init_context": (_pointer, ()),
    "nfs_destroy_context": (None, (_pointer,)),
    "nfs_parse_url_incomplete": (_pointer, (_pointer, _text)),
    "nfs_destroy_url": (None, (_pointer,)),
    "nfs_set_uid": (None, (_pointer, _int)),
    "nfs_set_gid": (None, (_pointer, _int)),
    "nfs_set_dircache": (None, (_pointer, _int)),
    "nfs_get_fd": (_int, (_pointer,)),
    "nfs_which_events": (_int, (_pointer,)),
    "nfs_service": (_int, (_pointer, _int)),
    "nfs_get_error": (_text, (_pointer,)),
    "nfs_get_writemax": (_uint64, (_pointer,)),
    "nfs_get_readmax": (_uint64, (_pointer,)),
    "nfs_mount_async": (_int, (_pointer, _text, _text, *_REQUEST)),
    "nfs_stat64_async": (_int, (_pointer, _text, *_REQUEST)),
    "nfs_fstat64_async": (_int, (_pointer, _pointer, *_REQUEST)),
    "nfs_statvfs64_async": (_int, (_pointer, _text, *_REQUEST)),
    "nfs_open2_async": (_int, (_pointer, _text, _int, _int, *_REQUEST)),
    "nfs_close_async": (_int, (_pointer, _pointer, *_REQUEST)),
    "nfs_pread_async": (_int, (_pointer, _pointer, _uint64, _uint64, *_REQUEST)),
    "nfs_pwrite_async": (_int, (_pointer, _pointer, _uint64, _uint64, _text, *_REQUEST)),
    "nfs_fsync_async": (_int, (_pointer, _pointer, *_REQUEST)),
    "nfs_unlink_async": (_int, (_pointer, _text, *_REQUEST)),
    "nfs_link_async": (_int, (_pointer, _text, _text, *_REQUEST)),
    "nfs_rename_async": (_int, (_pointer, _text, _text, *_REQUEST)),
    "nfs_opendir_async": (_int, (_pointer, _text, *_REQUEST)),
    "nfs_readdir": (_pointer, (_pointer, _pointer)),
    "nfs_closedir": (None, (_pointer, _pointer)),
}


class _Status(ctypes.Structure):
    """struct nfs_stat_64."""

    _fields_ = [
        (name, _uint64)
        for name in (
            *("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize"),
            *("blocks", "atime", "mtime", "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec"),
            "used",
        )
    ]  # fmt: skip


class _Space(ctypes.Structure):
    """struct nfs_statvfs_64."""

    _fields_ = [
        (name, _uint64)
        for name in (
            *("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"),
            *("fsid", "flag", "namemax"),
        )
    ]  # fmt: skip


class _Entry(ctypes.Structure):
    """The beginning of struct nfsdirent."""

    _fields_ = [("next", _pointer), ("name", _text), ("inode", _uint64), ("type", ctypes.c_uint32)]


@dataclass(frozen=True)
class FileStatus:
    """What a server says of a file. number: its inode; modified: seconds, by the server's clock."""

    number: int
    bytes: int
    modified: int


@dataclass
class Request:
    """A request under way.

    convert: makes its result of libnfs's return value and data, which only the callback may read.
    kept: what libnfs may still need. expected: the result that is no error. error: a positive
    errno; 0 is none.
    """

    convert: Callable[[int, int | None], Any]
    kept: tuple[Any, ...]
    expected: Any = None
    done: bool = False
    result: Any = None
    error: int = 0
    text: str = ""


@functools.cache
def library() -> Any:
    """libnfs; raises UsageError where it is not installed."""
    for name in SONAMES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        for function, (result, arguments) in _FUNCTIONS.items():
            symbol = getattr(found, function)
            symbol.restype, symbol.argtypes = result, arguments
        return found
    raise UsageError(
        f"targets nfs:// need the library libnfs, and this machine has no {' or '.join(SONAMES)}",
        "install it (Debian 12, Ubuntu 22.04: apt-get install libnfs13; Ubuntu 24.04: libnfs14), "
        "or mount the export and give the path of the mount",
    )


class Connection:
    """An export, mounted with NFS version 3. For one thread at a time.

    A connection that breaks is made again by libnfs, and the requests under way are sent again:
    a server that comes back in time goes on. Without any answer for `timeout_seconds` it is given
    up, and can only be closed. Every method raises OSError with the server's errno;
    TimeoutError where it does not answer.
    """

    def __init__(self, server: str, path: str, options: NfsOptions) -> None:
        self._library = library()
        self._limit_seconds = options.timeout_seconds
        self._answers = 0
        self._number = 0
        self._under_way: dict[int, Request] = {}
        self._interruption: BaseException | None = None
        self._callback = _CALLBACK(self._finish)
        self._context = self._library.nfs_init_context()
        if not self._context:
            raise MemoryError("libnfs has no memory for a connection")
        try:
            self._configure(options)
            self._mount(server, path)
        except BaseException:
            self.close()
            raise
        self.write_bytes = min(self._library.nfs_get_writemax(self._context), LARGEST_REQUEST_BYTES)
        self.read_bytes = min(self._library.nfs_get_readmax(self._context), LARGEST_REQUEST_BYTES)

    def close(self) -> None:
        """End it at once; what is under way is lost. Harmless when called again."""
        if self._context:
            self._library.nfs_destroy_context(self._context)
            self._context = None

    def status(self, path: str) -> FileStatus:
        """What the server says of a path."""
        found: FileStatus = self._call("nfs_stat64_async", path.encode(), convert=_status)
        return found

    def handle_status(self, handle: int) -> FileStatus:
        """What the server says of an open file."""
        found: FileStatus = self._call("nfs_fstat64_async", handle, convert=_status)
        return found

    def free_bytes(self) -> int:
        """What this user may still write."""
        found: int = self._call("nfs_statvfs64_async", b"/", convert=_free_bytes)
        return found

    def files(self) -> list[str]:
        """The names of the regular files in the export's folder."""
        folder = self._call("nfs_opendir_async", b"/", convert=_handle)
        try:
            return list(self._entries(folder))
        finally:
            self._library.nfs_closedir(self._context, folder)

    def open(self, path: str, flags: int) -> int:
        """Open a file, with flags of the os module; made for its owner only. Returns a handle."""
        handle: int = self._call("nfs_open2_async", path.encode(), flags, 0o600, convert=_handle)
        return handle

    def close_file(self, handle: int) -> None:
        """Close a file."""
        self._call("nfs_close_async", handle)

    def read(self, handle: int, position: int, size: int) -> bytes:
        """Read at a position; fewer bytes, or none, at the file's end."""
        data: bytes = self._call("nfs_pread_async", handle, position, size, convert=_data)
        return data

    def start_write(self, handle: int, position: int, data: bytes) -> Request:
        """Send bytes to be written at a position, at most `write_bytes`; see `finish`."""
        request = self._start("nfs_pwrite_async", (handle, position, len(data), data), _count)
        request.expected = len(data)
        return request

    def start_sync(self, handle: int) -> Request:
        """Have the server store durably what it has acknowledged (COMMIT); see `finish`."""
        return self._start("nfs_fsync_async", (handle,), _nothing)

    def finish(self, requests: list[Request], left: int) -> None:
        """Wait until at most `left` of the requests are under way; they are taken off the list.

        Raises what became of the others; also where a server took fewer bytes than it was given.
        """
        self._step(0)
        self._wait(lambda: sum(not request.done for request in requests) <= left)
        for request in [request for request in requests if request.done]:
            requests.remove(request)
            self._raise(request)
            if request.result != request.expected:
                raise OSError(errno.EIO, "the server took only a part of what it was given")

    def link(self, path: str, new: str) -> None:
        """Give a file a second name."""
        self._call("nfs_link_async", path.encode(), new.encode())

    def rename(self, path: str, new: str) -> None:
        """Rename a file, over one that has the name."""
        self._call("nfs_rename_async", path.encode(), new.encode())

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._call("nfs_unlink_async", path.encode())

    def _configure(self, options: NfsOptions) -> None:
        # Ports and reconnection are settings that libnfs 4 takes only in a URL.
        settings = ["version=3", "autoreconnect=-1"]
        settings += [f"nfsport={options.port}"] if options.port else []
        settings += [f"mountport={options.mount_port}"] if options.mount_port else []
        url = f"nfs://server/?{'&'.join(settings)}".encode()
        parsed = self._library.nfs_parse_url_incomplete(self._context, url)
        if not parsed:
            raise OSError(errno.EINVAL, self._error())
        self._library.nfs_destroy_url(parsed)
        self._library.nfs_set_dircache(self._context, 0)
        self._library.nfs_set_uid(
            self._context, os.getuid() if options.uid is None else options.uid
        )
        self._library.nfs_set_gid(
            self._context, os.getgid() if options.gid is None else options.gid
        )

    def _mount(self, server: str, path: str) -> None:
        limit_seconds = self._limit_seconds
        self._limit_seconds = min(limit_seconds, CONNECT_SECONDS)
        self._call("nfs_mount_async", server.encode(), path.encode())
        self._limit_seconds = limit_seconds

    def _entries(self, folder: int) -> Iterator[str]:
        while address := self._library.nfs_readdir(self._context, folder):
            entry = _Entry.from_address(address)
            if entry.type == REGULAR_FILE:
                yield os.fsdecode(entry.name)

    def _call(
        self,
        function: str,
        *arguments: Any,
        convert: Callable[[int, int | None], Any] | None = None,
    ) -> Any:
        """One request and its result."""
        request = self._start(function, arguments, convert or _nothing)
        self._wait(lambda: request.done)
        self._raise(request)
        return request.result

    def _start(
        self, function: str, arguments: tuple[Any, ...], convert: Callable[[int, int | None], Any]
    ) -> Request:
        if not self._context:
            raise OSError(errno.ENOTCONN, "the connection was given up")
        self._number += 1
        request = self._under_way[self._number] = Request(convert, arguments)
        start = getattr(self._library, function)
        if start(self._context, *arguments, self._callback, self._number) < 0:
            del self._under_way[self._number]
            raise OSError(errno.EIO, self._error())
        return request

    def _finish(self, code: int, _: int | None, data: int | None, number: int | None) -> None:
        """libnfs's callback: nothing may be raised in it."""
        try:
            request = self._under_way.pop(number or 0)
            request.done = True
            self._answers += 1
            if code < 0:
                request.error = -code
                # Not data: it should be the error's text, and for a failed write is not.
                request.text = self._error()
            else:
                request.result = request.convert(code, data)
        except BaseException as error:  # a signal's, too
            self._interruption = error

    def _raise(self, request: Request) -> None:
        if not request.error:
            return
        # Often the return value is only EFAULT, and the text has the server's own error.
        told = _TOLD.search(request.text)
        number = int(told[1]) if told else request.error
        raise OSError(number, request.text or NO_REASON)

    def _wait(self, until: Callable[[], bool]) -> None:
        """Let libnfs work until something is so; the time limit counts from the last answer."""
        answers, since = self._answers, time.monotonic()
        while not until():
            self._step(1)
            if self._answers != answers:
                answers, since = self._answers, time.monotonic()
            if time.monotonic() - since > self._limit_seconds:
                self.close()
                raise TimeoutError(errno.ETIMEDOUT, f"no answer for {self._limit_seconds} seconds")

    def _step(self, seconds: float) -> None:
        """Wait for the connection, at most so long, and let libnfs send and receive."""
        if not self._context:
            raise OSError(errno.ENOTCONN, "the connection was given up")
        poll = select.poll()
        poll.register(
            self._library.nfs_get_fd(self._context), self._library.nfs_which_events(self._context)
        )
        events = sum(found for _, found in poll.poll(seconds * 1000))
        if events & (select.POLLERR | select.POLLHUP):
            time.sleep(RECONNECT_SECONDS)
        failed = self._library.nfs_service(self._context, events) < 0
        if self._interruption:
            raise self._interruption
        if failed and self._under_way:
            raise ConnectionError(errno.ECONNABORTED, self._error())

    def _error(self) -> str:
        return (self._library.nfs_get_error(self._context) or b"").decode(errors="replace")


def _nothing(_: int, __: int | None) -> None:
    return None


def _status(_: int, data: int | None) -> FileStatus:
    found = _Status.from_address(data or 0)
    return FileStatus(number=found.ino, bytes=found.size, modified=found.mtime)


def _free_bytes(_: int, data: int | None) -> int:
    found = _Space.from_address(data or 0)
    return int(found.bavail * found.frsize)


def _handle(_: int, data: int | None) -> int:
    return data or 0


def _data(size: int, data: int | None) -> bytes:
    return ctypes.string_at(data or 0, size) if size else b""


def _count(size: int, _: int | None) -> int:
    return size

"""A mounted file system whose server can fail: a folder behind FUSE, with faults on request.

It is a real mount of the kernel's (type `fuse.epibackup`), so that whoever uses it while the server
says nothing waits in the kernel, as with NFS. Faults are files in a folder of their own, named
OPERATION-block or OPERATION-ERRNO (`write-block`, `fsync-EDQUOT`, `all-block`).
"""

# ruff: noqa: ARG002 - FUSE hands every operation more than it needs

import errno
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mfusepy  # type: ignore[import-untyped]

from lab.errors import LabError, last_lines
from lab.machine import Report, require_tools

KIND = "fuse.epibackup"
TOOLS = ("fusermount3",)
_START_SECONDS = 20
_STOP_SECONDS = 2
_POLL_SECONDS = 0.01


def require_fuse(report: Report) -> None:
    """Installs what the mount needs; raises LabError if that cannot be done."""
    require_tools(TOOLS, report)


class FaultyMount:
    """A mount of `folder/served` at `folder/mount`; used as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mount"
        self.served = folder / "served"
        self._faults = folder / "faults"
        self._errors = folder / "errors"
        for path in (self.path, self.served, self._faults):
            path.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        paths = map(str, (self.served, self.path, self._faults))
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *paths],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.path.is_mount():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__(None, None, None)
                raise LabError(f"FUSE does not mount: {last_lines(self._errors.read_bytes())}")
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in self._faults.iterdir():
            path.unlink()
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, check=False)
        if self._process:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @contextmanager
    def fault(self, operation: str, what: str) -> Iterator[None]:
        """From now on an operation of FUSE (`write`, `fsync`, `link`, …, or `all`) fails with an
        error (`EDQUOT`), or gets no answer (`block`)."""
        path = self._faults / f"{operation}-{what}"
        path.touch()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def die(self) -> None:
        """End the server at once: the mount stays, and nothing is behind it."""
        if self._process:
            self._process.kill()
            self._process.wait()


def _may_fail(operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that looks at the faults first."""

    @functools.wraps(operation)
    def passed(self: "_Passed", *arguments: Any) -> Any:
        self.fail(operation.__name__)
        return operation(self, *arguments)

    return passed


class _Passed(mfusepy.Operations):  # type: ignore[misc]  # the library has no types for mypy
    """Every operation is done on the served folder, unless a fault is set."""

    use_ns = True

    def __init__(self, served: str, faults: str) -> None:
        self._served = served
        self._faults = Path(faults)

    def fail(self, operation: str) -> None:
        """Raise an operation's error; come back only when it is not blocked."""
        while wanted := self._wanted(operation):
            for name in wanted - {"block"}:
                raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
            time.sleep(_POLL_SECONDS)

    def _wanted(self, operation: str) -> set[str]:
        faults = (path.name.split("-") for path in self._faults.iterdir())
        return {what for name, what in faults if name in (operation, "all")}

    def _at(self, path: str) -> str:
        return self._served + path

    @_may_fail
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        found = {name: getattr(status, name) for name in ("st_mode", "st_nlink", "st_size")}
        found |= {"st_uid": status.st_uid, "st_gid": status.st_gid, "st_ino": status.st_ino}
        return found | {
            "st_mtime": status.st_mtime_ns,
            "st_ctime": status.st_ctime_ns,
            "st_atime": status.st_atime_ns,
        }

    @_may_fail
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        # An entry without a number is none for the kernel.
        found = [(name, {"st_mode": 0, "st_ino": 1}, 0) for name in (".", "..")]
        for entry in os.scandir(self._at(path)):
            status = entry.stat(follow_symlinks=False)
            found.append((entry.name, {"st_mode": status.st_mode, "st_ino": entry.inode()}, 0))
        return found

    @_may_fail
    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at(path))
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_namemax")
        return {name: getattr(status, name) for name in names}

    @_may_fail
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode & 0o7777)

    @_may_fail
    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    @_may_fail
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @_may_fail
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @_may_fail
    def flush(self, path: str, fh: int) -> int:
        return 0

    @_may_fail
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    @_may_fail
    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    @_may_fail
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    @_may_fail
    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    @_may_fail
    def rename(self, old: str, new: str) -> int:
        Path(self._at(old)).rename(self._at(new))
        return 0

    @_may_fail
    def unlink(self, path: str) -> int:
        Path(self._at(path)).unlink()
        return 0


if __name__ == "__main__":
    served, mount, faults = sys.argv[1:]
    mfusepy.FUSE(
        _Passed(served, faults), mount, foreground=True, subtype="epibackup", fsname="lab",
        attr_timeout=0, entry_timeout=0, use_ino=True,
    )  # fmt: skip

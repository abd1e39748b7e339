"""A folder as a target. On network file systems it is used by a process of its own:
components.storage.mounted."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

from components.errors import EpibackupError, NotFound, TargetUnreachable
from components.storage.partial import ABANDONED_SECONDS, PARTIAL, PARTIAL_SUFFIX, partial_name
from components.storage.target import Data, Target, Upload

FLUSH_BYTES = 64 << 20
"""How much may wait for the disk while more arrives. Left alone, Linux lets gigabytes wait, and
all of them hold up the end (vm.dirty_background_ratio)."""


class Directory(Target):
    """A folder that exists. It is not made here: a missing one is often a missing mount.

    network: it is on a network file system, whose locks are not trusted.
    """

    def __init__(self, path: str, network: bool = False) -> None:
        self.url = path
        self._path = Path(path)
        self._network = network

    def check(self) -> None:
        self._require_folder()
        with explained(self.url):
            upload = _DirectoryUpload(self._path, ["check"], self._network)
            try:
                if self._network:
                    self._remove_old(upload.modified())
                else:
                    self._remove_unlocked()
            finally:
                upload.abort()

    def free_bytes(self) -> int:
        with explained(self.url):
            status = os.statvfs(self._path)
        return status.f_bavail * status.f_frsize

    def create(self, names: Sequence[str]) -> Upload:
        self.check()
        with explained(self.url):
            return _DirectoryUpload(self._path, names, self._network)

    def names(self) -> list[str]:
        self._require_folder()
        with explained(self.url):
            return sorted(
                entry.name
                for entry in os.scandir(self._path)
                if entry.is_file() and not entry.name.startswith(".")
            )

    def size(self, name: str) -> int:
        with explained(self.url, name):
            return (self._path / name).stat().st_size

    def open(self, name: str) -> BufferedReader:
        with explained(self.url, name):
            return (self._path / name).open("rb")

    def delete(self, name: str) -> None:
        with explained(self.url):
            (self._path / name).unlink(missing_ok=True)

    def _require_folder(self) -> None:
        with explained(self.url):
            if not self._path.is_dir():
                raise TargetUnreachable(
                    f"the target {self.url} "
                    + ("is not a folder" if self._path.exists() else "does not exist"),
                    f"mount it, or make it: mkdir -m 700 {self.url}",
                )

    def _remove_old(self, now: float) -> None:
        """Remove unfinished archives that nobody has written to for a day.

        now: by the server's clock, as are the files' times.
        """
        for path in self._path.iterdir():
            if PARTIAL.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # removed by another run just now
                    if now - path.stat().st_mtime > ABANDONED_SECONDS:
                        path.unlink()

    def _remove_unlocked(self) -> None:
        """Remove unfinished archives of this machine whose writer is gone.

        The kernel has freed their lock; where locks do not work, they are left alone.
        """
        for path in self._path.glob(f".*-{socket.gethostname()}-*{PARTIAL_SUFFIX}"):
            # Being written, removed by another run just now, or a file system without locks.
            with contextlib.suppress(OSError), path.open("rb+") as partial:
                fcntl.flock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


class _DirectoryUpload(Upload):
    """A hidden file that is linked to its name when it is complete."""

    def __init__(self, folder: Path, names: Sequence[str], network: bool) -> None:
        self._folder = folder
        self._names = names
        self._network = network
        self._path = folder / partial_name(names[0])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._flusher = ThreadPoolExecutor(1)
        self._flush: Future[None] | None = None
        self._unflushed = 0
        self._ended = False
        if not network:
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def modified(self) -> float:
        """When the file was last written, by the clock of the file system."""
        return os.fstat(self._descriptor).st_mtime

    def write(self, data: Data) -> None:
        view = memoryview(data)
        with explained(str(self._folder)):
            while view:
                written = os.write(self._descriptor, view)
                self._unflushed += written
                view = view[written:]
            # A network's server says late how slow it is: what waits for it stays limited there.
            idle = self._network or self._flush is None or self._flush.done()
            if self._unflushed >= FLUSH_BYTES and idle:
                self._flushed()
                self._flush = self._flusher.submit(os.fdatasync, self._descriptor)
                self._unflushed = 0

    def publish(self) -> str:
        if self._ended:
            raise TargetUnreachable(f"the upload of {self._names[0]} has ended already")
        with explained(str(self._folder)):
            self._flushed()
            os.fsync(self._descriptor)
            # NFS and others tell some errors only when a descriptor is closed; a copy does for
            # that, and our own goes on holding the lock.
            os.close(os.dup(self._descriptor))
            # Reading back has to show what the disk has, not what this machine remembers.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for name in self._names:
                if self._take(self._folder / name):
                    self._sync_folder()
                    self.abort()
                    return name
        raise TargetUnreachable(f"every name for the archive is taken in {self._folder}")

    def abort(self) -> None:
        """What cannot be removed now is removed by a later check."""
        if not self._ended:
            self._ended = True
            self._flusher.shutdown()
            # Closed first: some clients of SMB cannot remove what is open.
            with contextlib.suppress(OSError):  # of a file that is gone
                self._close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _flushed(self) -> None:
        """Wait for the last flush; raises what the disk has said."""
        if self._flush:
            self._flush.result()

    def _take(self, name: Path) -> bool:
        """Give the file its name, unless that is taken; True if it got it."""
        try:
            os.link(self._path, name)
        except FileExistsError:
            # Over NFS a request is sent again when its answer was lost: it may be ours (open(2)).
            return os.path.samestat(name.lstat(), os.fstat(self._descriptor))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # No hard links here (FAT, some shares): reserve the name, then rename onto it.
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                return False
            try:
                if self._network:
                    self._close()  # some clients of SMB cannot rename what is open
                self._path.rename(name)
            except BaseException:
                name.unlink(missing_ok=True)  # reserved, and no archive
                raise
        return True

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def explained(url: str, name: str = "") -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except EpibackupError:
        raise
    except FileNotFoundError as error:
        if name:
            raise NotFound(
                f"there is no {name} in {url}", "epibackup list shows the runs"
            ) from error
        raise TargetUnreachable(f"the target {url} is gone", "check that it is mounted") from error
    except OSError as error:
        raise TargetUnreachable(
            f"the target {url} refuses: {error.strerror}", HINTS.get(error.errno or 0, "")
        ) from error


_UNREACHABLE = "check its server and the network, and mount it again"
HINTS = {
    errno.ENOSPC: "free space there, or choose another target",
    errno.EDQUOT: "raise the quota, or choose another target",
    errno.EFBIG: "choose a target that takes larger files",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "mount it for writing",
    errno.ESTALE: "mount it again: its server has forgotten it",
    errno.EIO: "look at the kernel's log (dmesg): the disk or its server has failed",
    errno.ENOTCONN: _UNREACHABLE,
    errno.ECONNABORTED: _UNREACHABLE,
    errno.ECONNREFUSED: _UNREACHABLE,
    errno.ECONNRESET: _UNREACHABLE,
    errno.EHOSTDOWN: _UNREACHABLE,
    errno.EHOSTUNREACH: _UNREACHABLE,
    errno.ENETUNREACH: _UNREACHABLE,
    errno.ETIMEDOUT: _UNREACHABLE,
}
"""What to do about an error of the file system."""

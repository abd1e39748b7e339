"""A folder as a target: a local disk or anything that is mounted."""

import contextlib
import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from components.errors import EpibackupError, NotFound, TargetUnreachable
from components.storage.target import Data, Target, Upload

PARTIAL_SUFFIX = ".partial"

FLUSH_BYTES = 64 << 20
"""How much may wait for the disk while more arrives. Left alone, Linux lets gigabytes wait, and
all of them hold up the end (vm.dirty_background_ratio)."""


class Directory(Target):
    """A folder that exists. It is not made here: a missing one is often a missing mount."""

    def __init__(self, path: str) -> None:
        self.url = path
        self._path = Path(path)

    def check(self) -> None:
        if not self._path.is_dir():
            raise TargetUnreachable(
                f"the target {self.url} "
                + ("is not a folder" if self._path.exists() else "does not exist"),
                f"mount it, or make it: mkdir -m 700 {self.url}",
            )
        with _explained(self.url):
            self._remove_abandoned()
            upload = _DirectoryUpload(self._path, ["check"])
            upload.abort()

    def free_bytes(self) -> int:
        with _explained(self.url):
            status = os.statvfs(self._path)
        return status.f_bavail * status.f_frsize

    def create(self, names: Sequence[str]) -> Upload:
        self.check()
        with _explained(self.url):
            return _DirectoryUpload(self._path, names)

    def names(self) -> list[str]:
        with _explained(self.url):
            return sorted(
                entry.name
                for entry in os.scandir(self._path)
                if entry.is_file() and not entry.name.startswith(".")
            )

    def size(self, name: str) -> int:
        with _explained(self.url, name):
            return (self._path / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        with _explained(self.url, name):
            return (self._path / name).open("rb")

    def delete(self, name: str) -> None:
        with _explained(self.url):
            (self._path / name).unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
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

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = names
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f".{names[0]}-{owner}{PARTIAL_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._flusher = ThreadPoolExecutor(1)
        self._flush: Future[None] | None = None
        self._unflushed = 0
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: Data) -> None:
        view = memoryview(data)
        with _explained(str(self._folder)):
            while view:
                written = os.write(self._descriptor, view)
                self._unflushed += written
                view = view[written:]
            if self._unflushed >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
                self._flushed()
                self._flush = self._flusher.submit(os.fdatasync, self._descriptor)
                self._unflushed = 0

    def publish(self) -> str:
        with _explained(str(self._folder)):
            self._flushed()
            os.fsync(self._descriptor)
            # Reading back has to show what the disk has, not what this machine remembers.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for name in self._names:
                if self._take(self._folder / name):
                    self._sync_folder()
                    self.abort()
                    return name
        raise TargetUnreachable(f"every name for the archive is taken in {self._folder}")

    def abort(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            self._flusher.shutdown()
            os.close(self._descriptor)
            self._descriptor = -1

    def _flushed(self) -> None:
        """Wait for the last flush; raises what the disk has said."""
        if self._flush:
            self._flush.result()

    def _take(self, name: Path) -> bool:
        """Give the file its name, unless that is taken; True if it got it."""
        try:
            os.link(self._path, name)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # No hard links here (FAT, some shares): reserve the name, then rename onto it.
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                return False
            self._path.rename(name)
        return True

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _explained(url: str, name: str = "") -> Iterator[None]:
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
        hints = {
            errno.ENOSPC: "free space there, or choose another target",
            errno.EDQUOT: "raise the quota, or choose another target",
            errno.EACCES: "give this user the right to write there",
            errno.EROFS: "mount it for writing",
            errno.ESTALE: "mount it again: its server has forgotten it",
        }
        raise TargetUnreachable(
            f"the target {url} refuses: {error.strerror}", hints.get(error.errno or 0, "")
        ) from error

"""Folders on mounted network file systems: used through a process of their own.

A thread that waits for a file server that is gone waits in the kernel, without end and often
beyond the reach of SIGKILL (nfs(5), `hard`). So such a folder is touched by a child process only,
which is given up when an answer takes too long: the caller gets an error, and can end.
"""

import contextlib
import io
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, BinaryIO

from components.errors import EpibackupError, TargetUnreachable
from components.storage.directory import Directory, explained
from components.storage.network import network_file_system
from components.storage.options import DirectoryOptions
from components.storage.positioned import PositionedFile
from components.storage.target import Data, Target, Upload

STEP_BYTES = 1 << 20
"""What is written or read in one step. It passes through memory that both processes share, which
has room for two: one is on its way while the next is filled in."""


def directory_target(path: str, options: DirectoryOptions) -> Target:
    """The target for a folder; looks where it is mounted, without touching a network."""
    kind = network_file_system(path)
    return MountedDirectory(path, kind, options.timeout_seconds) if kind else Directory(path)


class MountedDirectory(Target):
    """A folder on a network file system.

    kind: the file system's name, such as nfs4. timeout_seconds: how long one step may take.
    """

    def __init__(self, path: str, kind: str, timeout_seconds: float) -> None:
        self.url = path
        self._kind = kind
        self._timeout_seconds = timeout_seconds
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def check(self) -> None:
        self._ask("check")

    def free_bytes(self) -> int:
        free: int = self._ask("free_bytes")
        return free

    def create(self, names: Sequence[str]) -> Upload:
        worker, _ = self._begin("create", list(names))
        return _MountedUpload(self, worker)

    def names(self) -> list[str]:
        names: list[str] = self._ask("names")
        return names

    def size(self, name: str) -> int:
        size: int = self._ask("size", name)
        return size

    def open(self, name: str) -> BinaryIO:
        worker, size = self._begin("open", name)
        return io.BufferedReader(_MountedFile(self, worker, size), STEP_BYTES)

    def delete(self, name: str) -> None:
        self._ask("delete", name)

    def give_back(self, worker: "_Worker") -> None:
        """Keep a worker, whose work is done, for the next."""
        if worker.usable:
            with self._lock:
                self._idle.append(worker)

    def _ask(self, action: str, *arguments: Any) -> Any:
        worker, answer = self._begin(action, *arguments)
        self.give_back(worker)
        return answer

    def _begin(self, action: str, *arguments: Any) -> "tuple[_Worker, Any]":
        """Ask a worker of one's own, which has to be given back."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker(self.url, self._kind, self._timeout_seconds)
        try:
            return worker, worker.ask(action, *arguments)
        except EpibackupError:
            self.give_back(worker)
            raise


class _MountedUpload(Upload):
    """An upload of the worker's."""

    def __init__(self, target: MountedDirectory, worker: "_Worker") -> None:
        self._target = target
        self._worker: _Worker | None = worker
        self._place = 0

    def write(self, data: Data) -> None:
        worker = self._open_worker()
        view = memoryview(data)
        for start in range(0, len(view), STEP_BYTES):
            step = view[start : start + STEP_BYTES]
            place, self._place = self._place, STEP_BYTES - self._place
            worker.shared[place : place + len(step)] = step
            worker.settle()  # an error of the last step is told with this one
            worker.send("write", place, len(step))

    def publish(self) -> str:
        worker = self._open_worker()
        worker.settle()
        name: str = worker.ask("publish")
        self._end()
        return name

    def abort(self) -> None:
        """Whatever cannot be removed now is removed by a check after a day."""
        if self._worker:
            with contextlib.suppress(EpibackupError):
                self._worker.settle(told=False)
                self._worker.ask("abort")
            self._end()

    def _open_worker(self) -> "_Worker":
        if not self._worker:
            raise TargetUnreachable(f"an upload to {self._target.url} that has ended is no archive")
        return self._worker

    def _end(self) -> None:
        if self._worker:
            self._target.give_back(self._worker)
        self._worker = None


class _MountedFile(PositionedFile):
    """A file that the worker has open."""

    def __init__(self, target: MountedDirectory, worker: "_Worker", size: int) -> None:
        super().__init__(size)
        self._target = target
        self._worker = worker

    def read_at(self, position: int, size: int) -> memoryview:
        count: int = self._worker.ask("read", position, min(size, STEP_BYTES))
        return self._worker.shared[:count]

    def close(self) -> None:
        if not self.closed and self._worker.usable:
            with contextlib.suppress(EpibackupError):
                self._worker.ask("close")
                self._target.give_back(self._worker)
        super().close()


class _Worker:
    """The child process, seen from outside. Questions are answered one after the other.

    usable: False once it was given up. shared: memory that it has, too.
    """

    def __init__(self, path: str, kind: str, timeout_seconds: float) -> None:
        self._path = path
        self._kind = kind
        self._timeout_seconds = timeout_seconds
        self._due = 0
        self.usable = True
        memory = os.memfd_create("epibackup")
        os.ftruncate(memory, 2 * STEP_BYTES)
        self.shared = memoryview(mmap.mmap(memory, 0))
        self._pipe, theirs = Pipe()
        with theirs, os.fdopen(memory):
            # Nothing of ours is handed on: whoever waits for the end of our output must not wait
            # for a process that cannot end. In a session of its own it can tidy up when a
            # terminal's Ctrl-C ends us.
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(memory), path],
                pass_fds=[theirs.fileno(), memory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        threading.Thread(target=self._process.wait, daemon=True).start()

    def ask(self, action: str, *arguments: Any) -> Any:
        """Have it do something; returns the answer or raises its error."""
        self.send(action, *arguments)
        return self._answer()

    def send(self, action: str, *arguments: Any) -> None:
        """Have it do something, and go on; see `settle`."""
        if not self.usable:
            raise TargetUnreachable(f"the target {self._path} was given up")
        try:
            self._pipe.send((action, arguments))
        except OSError as error:
            raise self._lost() from error
        self._due += 1

    def settle(self, told: bool = True) -> None:
        """Wait for the answers that are due; raises their errors unless they need not be told."""
        while self._due:
            with contextlib.nullcontext() if told else contextlib.suppress(EpibackupError):
                self._answer()

    def _answer(self) -> Any:
        if not self._pipe.poll(self._timeout_seconds):
            self._give_up()
            raise TargetUnreachable(
                f"the target {self._path}, mounted by {self._kind}, has not answered for "
                f"{self._timeout_seconds:g} seconds",
                "check its server and the network; if the server stays away: umount -f -l. "
                "epibackup:directory timeout_seconds sets the limit",
            )
        try:
            error, result = self._pipe.recv()
        except (EOFError, OSError) as lost:
            raise self._lost() from lost
        self._due -= 1
        if error:
            raise error
        return result

    def _lost(self) -> EpibackupError:
        self._give_up()
        return EpibackupError(
            f"the process that uses the target {self._path} was ended", "run the command again"
        )

    def _give_up(self) -> None:
        self.usable = False
        self._due = 0
        self._process.kill()  # takes effect once the kernel lets go of it
        self._pipe.close()


class _Served:
    """What the child process does: one upload or one open file at a time."""

    def __init__(self, path: str, shared: memoryview) -> None:
        self._shared = shared
        self._directory = Directory(path, network=True)
        self._upload: Upload | None = None
        self._file: io.BufferedReader | None = None

    def answer(self, action: str, arguments: tuple[Any, ...]) -> Any:
        """Do one thing; raises EpibackupError."""
        if action in ("check", "free_bytes", "names", "size", "delete"):
            return getattr(self._directory, action)(*arguments)
        return getattr(self, action)(*arguments)

    def create(self, names: list[str]) -> None:
        self._upload = self._directory.create(names)

    def write(self, place: int, size: int) -> None:
        if self._upload:
            self._upload.write(self._shared[place : place + size])

    def publish(self) -> str | None:
        return self._upload.publish() if self._upload else None

    def abort(self) -> None:
        if self._upload:
            self._upload.abort()

    def open(self, name: str) -> int:
        size = self._directory.size(name)
        self._file = self._directory.open(name)
        return size

    def read(self, position: int, size: int) -> int:
        if not self._file:
            return 0
        with explained(self._directory.url):
            self._file.seek(position)
            return self._file.readinto(self._shared[:size])

    def close(self) -> None:
        if self._file:
            self._file.close()


def serve(pipe: Connection, memory: int, path: str) -> None:
    """Answer until nobody asks any more; then what is unfinished is removed."""
    served = _Served(path, memoryview(mmap.mmap(memory, 0)))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            action, arguments = pipe.recv()
            try:
                pipe.send((None, served.answer(action, arguments)))
            except EpibackupError as error:
                pipe.send((error, None))
    served.abort()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])

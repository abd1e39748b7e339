"""Faults that a backup meets on real hosts. Each is undone at the end of its `with` block."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.container import HOST_KEY_TYPES, Container, make_key
from lab.errors import LabError
from lab.image import LOGIN_USER


@contextmanager
def connection_refused(host: Container) -> Iterator[None]:
    """Nothing listens on the ssh port any more, and open sessions are cut."""
    host.run(["systemctl", "stop", "ssh.service"])
    kill(host, r"^sshd: ")
    try:
        yield
    finally:
        host.run(["systemctl", "start", "ssh.service"])


@contextmanager
def frozen(host: Container) -> Iterator[None]:
    """All processes of the host stand still: connections stay open and nothing answers."""
    stopped: set[int] = set()
    try:
        # Again until nothing new turns up: a process may be forked between listing and stopping.
        while new := {process.pid for process in host.processes()} - stopped:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new
        yield
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


@contextmanager
def host_keys_replaced(host: Container) -> Iterator[None]:
    """The host shows other ssh keys, of all types, as after a reinstallation or in an attack."""
    scratch = host.folder / "other-keys"
    scratch.mkdir(mode=0o700, exist_ok=True)
    others = {}
    for kind in HOST_KEY_TYPES:
        others[kind] = scratch / kind
        if not others[kind].exists():
            make_key(others[kind], kind, comment=f"other@{host.name}")
    try:
        for kind, key in others.items():
            host.write(f"/etc/ssh/ssh_host_{kind}_key", key.read_bytes(), mode=0o600)
        host.run(["systemctl", "restart", "ssh.service"])
        yield
    finally:
        for kind in HOST_KEY_TYPES:
            key = host.host_key(kind)
            host.write(f"/etc/ssh/{key.name}", key.read_bytes(), mode=0o600)
        host.run(["systemctl", "restart", "ssh.service"])


@contextmanager
def sudo_refused(host: Container) -> Iterator[None]:
    """The login user may not use sudo."""
    rule = f"/etc/sudoers.d/{LOGIN_USER}"
    text = host.read(rule)
    host.run(["rm", rule])
    try:
        yield
    finally:
        host.write(rule, text, mode=0o440)


@contextmanager
def sudo_asks_for_password(host: Container) -> Iterator[None]:
    """The login user may use sudo, but only with a password."""
    rule = f"/etc/sudoers.d/{LOGIN_USER}"
    text = host.read(rule)
    host.write(rule, text.replace("NOPASSWD:", ""), mode=0o440)
    try:
        yield
    finally:
        host.write(rule, text, mode=0o440)


@contextmanager
def program_hidden(host: Container, *names: str) -> Iterator[None]:
    """Programs of these names (`zstd`, `pg_dump`) are not on the host's PATH."""
    paths = [
        path
        for name in names
        for path in host.run(["which", "-a", name], check=False).stdout.split()
        if not path.startswith(("/bin/", "/sbin/"))  # links to /usr
    ]
    if not paths:
        raise LabError(f"{host.name} has no {' '.join(names)} to hide")
    for path in paths:
        host.run(["mv", path, f"{path}.hidden"])
    try:
        yield
    finally:
        for path in paths:
            host.run(["mv", f"{path}.hidden", path])


@contextmanager
def python_hidden(host: Container) -> Iterator[None]:
    """The host has no Python."""
    with program_hidden(host, "python3", "python3.11"):
        yield


@contextmanager
def small_file_system(host: Container, path: str, size_bytes: int) -> Iterator[None]:
    """A file system of a limited size is mounted at a path, over what is there."""
    made = not host.exists(path)
    host.run(["mkdir", "--parents", path])
    mode = host.run(["stat", "--format=%a", path]).stdout.strip()
    host.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode={mode}", "epilab", path])
    try:
        yield
    finally:
        host.run(["umount", "--lazy", path])
        if made:
            host.run(["rmdir", path])


@contextmanager
def full_file_system(host: Container, path: str, free_bytes: int = 0) -> Iterator[None]:
    """A file system is mounted at a path that has `free_bytes` left."""
    filler_bytes = 1024**2
    with small_file_system(host, path, filler_bytes + free_bytes):
        host.run(["fallocate", f"--length={filler_bytes}", f"{path}/filler"])
        yield


@contextmanager
def unit_stopped(host: Container, unit: str) -> Iterator[None]:
    """A service is down."""
    host.run(["systemctl", "stop", unit])
    try:
        yield
    finally:
        host.run(["systemctl", "start", unit])


def kill(host: Container, pattern: str) -> int:
    """kill -9 of the host's processes whose command line matches; returns how many there were."""
    return _signal_matching(host, pattern, signal.SIGKILL)


@contextmanager
def processes_stopped(host: Container, pattern: str) -> Iterator[int]:
    """The processes that match stand still; gives how many there were."""
    count = _signal_matching(host, pattern, signal.SIGSTOP)
    try:
        yield count
    finally:
        _continue_matching(host, pattern)


@contextmanager
def processes_slowed(host: Container, pattern: str, share: float = 0.1) -> Iterator[None]:
    """Processes that match, also those still to come, run for a `share` of the time only."""
    period_seconds = 0.1
    over = threading.Event()

    def alternate() -> None:
        while not over.is_set():
            _signal_matching(host, pattern, signal.SIGSTOP)
            over.wait(period_seconds * (1 - share))
            _signal_matching(host, pattern, signal.SIGCONT)
            over.wait(period_seconds * share)

    thread = threading.Thread(target=alternate, name=f"slow {pattern}")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _continue_matching(host, pattern)


def _signal_matching(host: Container, pattern: str, number: signal.Signals) -> int:
    """Looks from outside, so that nothing that does the looking can match itself."""
    matching = [item.pid for item in host.processes() if re.search(pattern, item.command_line)]
    for pid in matching:
        _signal(pid, number)
    return len(matching)


def _continue_matching(host: Container, pattern: str) -> None:
    """Again until none has been standing still for a while: sudo stops itself some time after it
    sees that its program was stopped, and nobody would wake it (sudo(8), "Signal handling")."""
    calm = 0
    while calm < 5:
        matching = [item for item in host.processes() if re.search(pattern, item.command_line)]
        stopped = [item.pid for item in matching if _stands_still(item.pid)]
        for pid in stopped:
            _signal(pid, signal.SIGCONT)
        calm = 0 if stopped else calm + 1
        time.sleep(0.1)


def _stands_still(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state in ("T", "t")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)

"""Reaching hosts with the OpenSSH client: one multiplexed connection a host.

This is how data moves and how hosts are looked at. Snapshots are commanded through Pulumi's
`remote.Command`, which has a client of its own; both get the same pinned host keys.
"""

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

CONNECT_SECONDS = 10
UNREACHABLE = 255
"""The exit code of ssh(1) for its own failures."""

FAST_CIPHER = "^aes128-gcm@openssh.com"
"""Put in front of the client's own list. On processors with AES instructions it moves 1.3 times
as much as the default cipher (chacha20-poly1305); hosts without it get their own choice."""


@dataclass(frozen=True)
class SshHost:
    """How a host is reached.

    name: its name in the inventory.
    host_keys: the keys it may show, each as in known_hosts without its first column.
    key_file: the private key; None to use the user's agent.
    """

    name: str
    address: str
    port: int
    user: str
    key_file: str | None
    host_keys: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For passing on to another process; holds no secret."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "SshHost":
        """The counterpart of `as_json`."""
        return cls(**{**document, "host_keys": tuple(document["host_keys"])})


@dataclass(frozen=True)
class Completed:
    """A command that has ended on a host. Output is text; bytes that are no UTF-8 survive."""

    code: int
    stdout: str
    stderr: str


class SshClients:
    """Connections to hosts, shared by all commands; used as a context manager.

    They end with the context. After a kill they end by themselves a minute later.
    """

    def __init__(self, hosts: Sequence[SshHost]) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "SshClients":
        # Sockets have short names (108 bytes): not below the user's home.
        self._folder = tempfile.TemporaryDirectory(prefix="epibackup-", ignore_cleanup_errors=True)
        lines = [f"{host.name} {key}\n" for host in self._hosts.values() for key in host.host_keys]
        Path(self._folder.name, "known_hosts").write_text("".join(lines))
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            for socket in Path(self._folder.name).glob("*.socket"):
                # The host name is not used, but ssh wants one.
                subprocess.run(
                    ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={socket}", "any"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                )
            self._folder.cleanup()

    def argv(self, host_name: str, command: Sequence[str]) -> list[str]:
        """The local command line that runs `command` on a host. The only place that quotes
        for the remote shell."""
        if self._folder is None:
            raise RuntimeError("SshClients is used outside its context")
        host = self._hosts[host_name]
        folder = Path(self._folder.name)
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(folder / "known_hosts"),
            "GlobalKnownHostsFile": "none",
            "HostKeyAlias": host.name,
            "UpdateHostKeys": "no",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "ControlMaster": "auto",
            "ControlPersist": "60",
            "ControlPath": str(folder / f"{_socket_name(list(self._hosts), host.name)}.socket"),
            "Ciphers": FAST_CIPHER,
            "Compression": "no",
            "LogLevel": "ERROR",
            "Port": str(host.port),
            "User": host.user,
        }
        if host.key_file:
            options |= {"IdentityFile": host.key_file, "IdentitiesOnly": "yes"}
        arguments = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        # -F none: a user's own ssh configuration would hold for this client and not for Pulumi's.
        return ["ssh", "-F", "none", "-T", *arguments, "--", host.address, shlex.join(command)]

    def run(
        self,
        host_name: str,
        command: Sequence[str],
        stdin: str | bytes | IO[bytes] | None = None,
        timeout_seconds: float | None = None,
    ) -> Completed:
        """Run a command on a host to its end.

        Raises subprocess.TimeoutExpired; the exit code is UNREACHABLE if ssh itself failed.
        """
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        if isinstance(stdin, str | bytes):
            options = {"input": stdin.encode() if isinstance(stdin, str) else stdin}
        elif stdin is not None:
            options = {"stdin": stdin}
        done = subprocess.run(
            self.argv(host_name, command),
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
            **options,
        )
        return Completed(
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="surrogateescape"),
        )

    @contextlib.contextmanager
    def reading(
        self, host_name: str, command: Sequence[str], errors: IO[bytes]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a command on a host whose output is read as a stream; ends it in any case."""
        with subprocess.Popen(
            self.argv(host_name, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            pipesize=1 << 20,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()


def _socket_name(names: list[str], name: str) -> int:
    """A short name for a host's socket: its number."""
    return names.index(name)


def private_folder() -> Path:
    """A folder of this user that is gone after a reboot, for sockets: short and 0700.

    Raises PermissionError if somebody else made it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "epibackup" if base else Path(f"/tmp/epibackup-{os.getuid()}")  # noqa: S108
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not this user's own with mode 0700")
    return folder

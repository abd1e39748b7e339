"""A real OpenSSH server on a loopback port, with keys of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SSHD = Path("/usr/sbin/sshd")
_POLICY = Path("/usr/sbin/policy-rc.d")
_KEY_TYPES = ("ed25519", "ecdsa", "rsa")
PASSPHRASE = "correct horse"  # noqa: S105 - of a key that exists for a minute


def install_openssh() -> None:
    """Install OpenSSH's server if it is missing, without starting any service."""
    if _SSHD.exists() and shutil.which("ssh-agent"):
        return
    assert os.geteuid() == 0, "OpenSSH's server is missing: apt-get install openssh-server"
    had_policy = _POLICY.exists()
    if not had_policy:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-qq", "--no-install-recommends", "openssh-server"]
        if subprocess.run(install, env=environment, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
            subprocess.run(install, env=environment, check=True, capture_output=True)
    finally:
        if not had_policy:
            _POLICY.unlink()


class Keys:
    """Key pairs of a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("ed25519", "rsa"):
            make_key(folder / name, name)
        make_key(folder / "protected", "ed25519", PASSPHRASE)
        make_key(folder / "stranger", "ed25519")

    def path(self, name: str = "ed25519") -> Path:
        """Return the file of a private key."""
        return self._folder / name

    def private(self, name: str = "ed25519") -> str:
        """Return the text of a private key."""
        return self.path(name).read_text()

    def authorized(self) -> str:
        """Return the public keys that may log in."""
        names = ("ed25519", "rsa", "protected")
        return "".join((self._folder / f"{name}.pub").read_text() for name in names)


def make_key(path: Path, key_type: str, passphrase: str = "") -> None:
    """Make a key pair."""
    options = ["-m", "PEM"] if key_type == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", key_type, "-N", passphrase, "-f", str(path), *options],
        check=True,
    )


class Sshd:
    """A running server."""

    def __init__(self, folder: Path, keys: Keys, port: int) -> None:
        self.folder = folder
        self.keys = keys
        self.port = port

    def host_key(self, key_type: str = "ed25519") -> str:
        """Return a host key as the input `hostKey` wants it."""
        kind, key, *_ = (self.folder / f"host_{key_type}.pub").read_text().split()
        return f"{kind} {key}"

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def logins(self) -> int:
        """Return how many logins there were since the server was started."""
        return self.log.count("Accepted publickey")

    def open_connections(self) -> int:
        """Return how many connections are established now."""
        wanted = f"{self.port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(1 for row in rows if row[1].endswith(f":{wanted}") and row[3] == "01")


@contextmanager
def run_sshd(folder: Path, keys: Keys, *extra: str, port: int = 0) -> Iterator[Sshd]:
    """Start a server, and end it with all its connections.

    :param extra: lines for its configuration.
    :param port: where it listens; a free one by default.
    """
    folder.mkdir()
    server = Sshd(folder, keys, port or free_port())
    authorized = folder / "authorized_keys"
    authorized.write_text(keys.authorized())
    host_keys = []
    for key_type in _KEY_TYPES:
        make_key(folder / f"host_{key_type}", key_type)
        host_keys.append(f"HostKey {folder}/host_{key_type}")
    lines = [
        f"Port {server.port}", "ListenAddress 127.0.0.1", f"AuthorizedKeysFile {authorized}",
        f"PidFile {folder}/pid", "UsePAM no", "StrictModes no", "PermitRootLogin yes",
        "PasswordAuthentication no", "Subsystem sftp internal-sftp", "LogLevel VERBOSE",
        "MaxStartups 100:30:200", *host_keys, *extra,
        # Bash reads ~/.bashrc even for a command: whatever that prints is no part of a test.
        f"SetEnv HOME={folder}",
    ]  # fmt: skip
    configuration = folder / "config"
    configuration.write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [_SSHD, "-D", "-f", configuration, "-E", folder / "log"], start_new_session=True
    )
    try:
        wait_until(lambda: _answers(server.port), 10)
        yield server
    finally:
        process.terminate()
        process.wait()


def connection_to(server: Sshd, **changes: Any) -> dict[str, Any]:
    """Return the input `connection` for a server."""
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "user": getpass.getuser(),
        "private_key": server.keys.private(),
        "host_key": server.host_key(),
        "dial_error_limit": 2,
        "per_dial_timeout": 5,
        **changes,
    }


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: object, seconds: float) -> None:
    """Wait until a function returns something true, or fail."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

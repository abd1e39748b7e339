"""The keys that hosts may show: pinned in the stack configuration, else from known_hosts.

`ssh-keygen -F` reads known_hosts, hashed names included; `ssh-keyscan` fetches keys for
`epibackup trust`, where a person decides.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import EpibackupError

PREFERENCE = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
"""Best first. Pulumi's own provider takes one key, and fails with ssh-rsa against an OpenSSH of
8.8 or newer (pulumi-command 1.2.1 offers only the SHA-1 signature for it)."""

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


def known_keys(
    name: str, address: str, port: int, pinned: Mapping[str, str | list[str]]
) -> tuple[str, ...]:
    """The keys a host may show, best first, each as `type base64`; empty if none is known."""
    pins = pinned.get(name)
    if pins is not None:
        return _sorted([pins] if isinstance(pins, str) else pins)
    found: list[str] = []
    for file in KNOWN_HOSTS:
        path = Path(file).expanduser()
        if path.is_file():
            for alias in dict.fromkeys((name, address)):
                found += _lookup(path, alias if port == 22 else f"[{alias}]:{port}")
    return _sorted(found)


def _lookup(path: Path, host: str) -> list[str]:
    """A host's keys in a known_hosts file; revoked ones and those of authorities are left out."""
    shown = subprocess.run(
        ["ssh-keygen", "-F", host, "-f", str(path)], capture_output=True, text=True, check=False
    )
    lines = [line for line in shown.stdout.splitlines() if line[:1] not in ("#", "@", "")]
    return [" ".join(line.split()[1:3]) for line in lines]


def _sorted(keys: Sequence[str]) -> tuple[str, ...]:
    plain = dict.fromkeys(" ".join(key.split()[:2]) for key in keys)
    known = [key for key in plain if key.split()[0] in PREFERENCE]
    return tuple(sorted(known, key=lambda key: PREFERENCE.index(key.split()[0])))


def scan(address: str, port: int, timeout_seconds: int) -> tuple[str, ...]:
    """Fetch a host's keys from the host itself; nothing proves that they are its own.

    Raises EpibackupError if it does not answer.
    """
    shown = subprocess.run(
        ["ssh-keyscan", "-T", str(timeout_seconds), "-p", str(port), "--", address],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in shown.stdout.splitlines() if line[:1] not in ("#", "")]
    if not lines:
        raise EpibackupError(
            f"{address} port {port} showed no ssh host key: {shown.stderr.strip()}"
        )
    return _sorted([" ".join(line.split()[1:3]) for line in lines])


def fingerprint(key: str) -> str:
    """A key's SHA-256 fingerprint, as ssh shows it."""
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"],
        input=key + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.split()[1]

"""The Pulumi project around the program: its folder, stacks, backend and passphrase."""

import hashlib
import os
import pwd
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
NAME = "epibackup"
DEFAULT_STACK = "nightly"


def backend_url() -> str:
    """Where Pulumi keeps the stacks: PULUMI_BACKEND_URL, else what Pulumi.yaml says."""
    if url := os.environ.get("PULUMI_BACKEND_URL"):
        return url
    with (ROOT / "Pulumi.yaml").open() as stream:
        return str(yaml.safe_load(stream)["backend"]["url"])


def backend_folder() -> Path | None:
    """The backend's folder; None if the stacks are not kept in files of this machine."""
    parts = urlsplit(backend_url())
    if parts.scheme != "file":
        return None
    text = parts.netloc + parts.path
    if text.startswith("~/"):
        return _home() / text.removeprefix("~/")
    return Path(text).absolute()


def _home() -> Path:
    """The user's home as Pulumi finds it: in the user database (Go's user.Current). $HOME may be
    another user's, which sudo has kept."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def stack_file(stack: str) -> Path:
    """A stack's configuration."""
    return ROOT / "stacks" / f"Pulumi.{stack}.yaml"


def stack_config(stack: str) -> Mapping[str, Any]:
    """A stack's configuration values as they are in its file; empty if it has none yet.

    Raises UsageError if the file cannot be read.
    """
    path = stack_file(stack)
    try:
        with path.open() as stream:
            document = yaml.safe_load(stream) or {}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    config = document.get("config", {}) if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise UsageError(f"{path} is no stack configuration", "compare stacks/Pulumi.sample.yaml")
    return config


def stack_identity(stack: str) -> str:
    """Tells stacks of one name apart: by checkout and backend, in twelve hexadecimal digits."""
    return hashlib.sha256(f"{ROOT}\n{backend_url()}\n{stack}".encode()).hexdigest()[:12]


def state_folder(stack: str) -> Path:
    """A folder of this user for what a stack's runs leave on this machine: no secrets."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(base).expanduser() / NAME / "runs" / f"{stack}-{stack_identity(stack)}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def passphrase_file() -> Path:
    """Where the passphrase is kept if the user has set none; with the same home as the backend."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else _home() / ".config") / NAME / "passphrase"


def passphrase_environment() -> dict[str, str]:
    """What Pulumi needs to protect a stack's secrets, where the user has set nothing.

    The passphrase is made once and kept in a file only its owner can read. Stacks whose
    configuration names a secrets provider (a cloud's key management) do not use it.
    """
    if {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys():
        return {}
    path = passphrase_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(32))
    return {"PULUMI_CONFIG_PASSPHRASE_FILE": str(path)}

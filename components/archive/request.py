"""What the program asks the archive process to do, and what it answers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.archive.manifest import Manifest, Missing
from components.storage.options import TargetOptions


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceAnswers(_Strict):
    """What the snapshots of one service said (host.snapshot), by host."""

    name: str
    answers: dict[str, dict[str, Any]]
    problems: list[str]


class ArchiveRequest(_Strict):
    """Everything the archive process needs; it holds no secret.

    agent: the command line of the agent on a host, to which an action is added.
    hosts: see components.ssh.SshHost.
    parallel: streams at the same time.
    """

    run: str
    cluster: str
    started: datetime
    epicli_version: str | None
    epibackup_version: str
    target: str
    target_options: TargetOptions
    container: Literal["zip", "tar.gz"]
    parallel: int
    agent: list[str]
    hosts: list[dict[str, Any]]
    services: list[ServiceAnswers]
    missing: list[Missing]
    inventory: dict[str, list[str]]


class ArchiveResult(_Strict):
    """What became of it.

    key: the archive's name on the target; sha256: of the manifest as stored in the archive,
    which has the digest of everything else. bytes: the archive's size.
    """

    key: str
    bytes: int
    sha256: str
    verified: bool
    warnings: list[str]
    manifest: Manifest

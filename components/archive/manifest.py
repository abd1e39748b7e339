"""The manifest: what an archive holds, what it lacks, and how each part is checked.

`docs/manifest.schema.json` is made from these models; `docs/manifest.md` tells about them.
"""

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import UsageError, VerificationFailed

FORMAT = 1
"""Raised when an older epibackup could no longer restore an archive."""

PATH = "manifest.json"
"""Where the manifest is in an archive. It is written last, because it knows everything."""

LARGEST_BYTES = 256 << 20
"""A manifest larger than this is not read: nothing that epibackup writes comes near it."""


class _Model(BaseModel):
    # What a newer epibackup adds within the same format is ignored.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Failure(_Model):
    """Why something was not saved."""

    message: str = Field(description="What failed, with the last lines of the failed program.")
    hint: str = Field("", description="What to do about it; may be empty.")


class Part(_Model):
    """One stored file of the archive."""

    path: str = Field(description="Its name in the archive.")
    bytes: int = Field(description="Its size as stored.")
    sha256: str = Field(description="SHA-256 of the stored bytes, in hexadecimal.")


class Member(_Model):
    """One file or tree of a service, stored as one file or as numbered parts."""

    path: str = Field(
        description="Name in the archive without part numbers; the suffix says how it is stored."
    )
    kind: Literal["file", "tree"] = Field(description="A single file, or a tree packed by tar.")
    raw_bytes: int | None = Field(
        None, description="Size before packing, as well as the service knows it; may be unknown."
    )
    stored_bytes: int = Field(description="Sum of the parts' sizes.")
    parts: list[Part] = Field(description="In order: concatenated they are the member.")
    content: dict[str, Any] = Field(
        default_factory=dict, description="What the service says about it, such as a database."
    )

    @property
    def name(self) -> str:
        """The member's name without service and host."""
        return self.path.split("/", 2)[2]

    def part_names(self) -> list[str]:
        """What --part may call it: its content's `part`, and `parts` where it holds several."""
        names = [self.content["part"]] if "part" in self.content else []
        return [str(name) for name in [*names, *self.content.get("parts", [])]]


class HostRecord(_Model):
    """One service on one host."""

    host: str = Field(description="The host's name in the inventory.")
    address: str = Field(description="Where it was reached.")
    status: Literal["ok", "failed"] = Field(description="ok: all its members are there.")
    version: str | None = Field(None, description="The service's version; may be unknown.")
    error: Failure | None = Field(None, description="Why it failed.")
    warnings: list[str] = Field(default_factory=list, description="What a person should know.")
    details: dict[str, Any] = Field(
        default_factory=dict, description="What the service said about itself."
    )
    members: list[Member] = Field(default_factory=list, description="What was saved.")


class ServiceRecord(_Model):
    """One service of the cluster."""

    name: str = Field(description="As in --service.")
    status: Literal["ok", "failed"] = Field(description="ok: complete on all hosts.")
    problems: list[str] = Field(
        default_factory=list,
        description="What is wrong with the service as a whole, such as no primary server.",
    )
    hosts: list[HostRecord] = Field(description="The service on each of its hosts.")


class Missing(_Model):
    """Something the inventory has that is not in the archive."""

    what: str = Field(description="A service or a group of the inventory.")
    hosts: list[str] = Field(description="Where it is.")
    reason: str = Field(description="Why it was not saved.")


class Manifest(_Model):
    """What is in an archive."""

    format: int = Field(description="Version of this document's format.")
    run: str = Field(description="The run's id: its time in UTC, such as 20261122T013000Z.")
    cluster: str = Field(description="The cluster's name.")
    status: Literal["ok", "incomplete"] = Field(
        description="ok: every service that was asked for is complete."
    )
    started: datetime = Field(description="When the run began, UTC.")
    finished: datetime = Field(description="When the last member had arrived, UTC.")
    epicli_version: str | None = Field(
        None, description="The epicli version of the build directory; may be unknown."
    )
    epibackup_version: str = Field(description="What wrote the archive.")
    encryption: None = Field(None, description="Reserved: the recipients of an encrypted archive.")
    services: list[ServiceRecord] = Field(description="What was asked for.")
    missing: list[Missing] = Field(description="What the inventory has besides.")
    discarded: list[str] = Field(
        default_factory=list,
        description="Stored files that belong to members that failed half-way: of no use.",
    )
    inventory: dict[str, list[str]] = Field(description="Groups of the inventory, with hosts.")

    def members(self) -> list[Member]:
        """All members of all services."""
        return [
            member for service in self.services for host in service.hosts for member in host.members
        ]


def read_manifest(data: bytes) -> Manifest:
    """Parse a manifest.

    Raises UsageError for a newer format, VerificationFailed for anything else that is no
    manifest.
    """
    try:
        document = json.loads(data)
        found = int(document["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationFailed(f"{PATH} is damaged: {error}") from error
    if found > FORMAT:
        raise UsageError(
            f"the archive has format {found}, and this epibackup reads up to {FORMAT}",
            f"use epibackup {document.get('epibackup_version', '')} or newer, or restore by hand "
            "as RESTORE.md in the archive says",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise VerificationFailed(f"{PATH} is damaged: {error}") from error

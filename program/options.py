"""The options of a stack, but those of services.

Kept apart from `program.settings` because it imports no Pulumi: `epibackup --help` takes its
texts from here.
"""

from datetime import date
from typing import Any, Literal

from pydantic import Field

from components.retention.policy import Retention
from components.storage.options import Section, TargetOptions
from components.storage.provision.options import StorageOptions


class Compression(Section):
    """How members are compressed, on the hosts."""

    method: Literal["auto", "zstd", "gzip", "none"] = Field(
        "auto", description="auto is zstd where a host has it, else gzip.", examples=["gzip"]
    )
    level: int | None = Field(
        None,
        ge=1,
        le=19,
        description="The method's own level. Default: 3 for zstd, 6 for gzip.",
        examples=[9],
    )


class Ssh(Section):
    """How hosts are reached, where the inventory is not right for this machine."""

    key_file: str | None = Field(
        None,
        description="The private key, instead of the inventory's. It must be readable only by "
        "its owner, and without a passphrase unless `agent` is on.",
        examples=["/home/backup/.ssh/id_ed25519"],
    )
    key_map: dict[str, str] = Field(
        default_factory=dict,
        description="Replaces the beginning of the inventory's key path, which is a path inside "
        "epicli's container.",
        examples=[{"/shared": "/home/backup/shared"}],
    )
    agent: bool = Field(
        False,
        description="Use the keys of the running ssh-agent (SSH_AUTH_SOCK) instead of a file.",
        examples=[True],
    )
    user: str | None = Field(
        None, description="The login user, instead of the inventory's.", examples=["backup"]
    )
    connect_timeout_seconds: int = Field(
        10, ge=1, le=300, description="How long a host may take to answer.", examples=[30]
    )


class Exemption(Section):
    """Something the inventory has that may stay unsaved for a while, and who answers for it."""

    what: str = Field(min_length=1, description="The inventory's group, as plans name it.")
    owner: str = Field(min_length=1, description="Who answers for it.")
    reason: str = Field(min_length=1, description="Why it need not be saved.")
    until: date = Field(description="The last day on which this holds, UTC.")


class General(Section):
    """What is saved, where to, and how."""

    build: str | None = Field(
        None,
        description="The build directory that epicli made; a relative path begins at the "
        "checkout. Also -b.",
        examples=["/srv/epiphany/build/production"],
    )
    target: str | None = Field(
        None,
        description="Where archives go: an absolute path, which may be a mounted share, or a URL "
        "of another kind of target, such as s3://bucket/prefix (docs/targets.md). Also -t.",
        examples=["/mnt/backups"],
    )
    cluster: str | None = Field(
        None,
        description="The cluster's name in archives. Default: the name in epicli's manifest.yml.",
        examples=["production"],
    )
    services: list[str] | None = Field(
        None,
        description="Save only these services. Default: all that the inventory has. "
        "Also --service.",
        examples=[["postgresql"]],
    )
    skip: list[str] = Field(
        default_factory=list,
        description="Services that are not saved. They are named as missing in each archive. "
        "Also --skip.",
        examples=[["haproxy"]],
    )
    accept: list[str] = Field(
        default_factory=list,
        description="What may be weak about the target, by the ids that `epibackup drift` shows. "
        "Anything else that gets weaker between two runs refuses the second.",
        examples=[["s3-versioning"]],
    )
    exempt: list[Exemption] = Field(
        default_factory=list,
        description="What need not be saved, until a day and with somebody who answers for it: "
        "the policy `covered` accepts that it is missing.",
        examples=[
            [
                {
                    "what": "prometheus",
                    "owner": "jane@example.com",
                    "reason": "metrics of a month can be lost",
                    "until": "2027-03-31",
                }
            ]
        ],
    )
    format: Literal["zip", "tar.gz"] = Field(
        "zip",
        description="The archive's container. zip can be listed and restored in parts without "
        "reading all of it; tar.gz cannot. Also --format.",
        examples=["tar.gz"],
    )
    compression: Compression = Field(
        default_factory=lambda: Compression(), description="How members are compressed."
    )
    ssh: Ssh = Field(default_factory=lambda: Ssh(), description="How hosts are reached.")
    retention: Retention = Field(
        default_factory=lambda: Retention(),
        description="Which archives stay, as restic's users know it; the others are removed after "
        "each good run and by `epibackup prune`. Without a rule nothing is ever removed.",
    )
    storage: StorageOptions = Field(
        default_factory=lambda: StorageOptions(),
        description="What archives are kept in, made and looked after by the stack itself. "
        "`target` may then be left out.",
    )
    host_keys: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="The hosts' pinned keys, by host name; written by `epibackup trust`. A host "
        "that is not here is looked up in known_hosts.",
        examples=[{"postgresql1": "ssh-ed25519 AAAA…"}],
    )
    host_directory: str = Field(
        "/var/lib/epibackup",
        pattern=r"^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$",
        description="The agent's folder on the hosts, where snapshots are kept until the archive "
        "is published. Made if missing; root only.",
        examples=["/data/epibackup"],
    )
    snapshot_timeout_seconds: int = Field(
        4 * 3600,
        ge=10,
        description="How long a service's snapshot may take on a host before it counts as failed.",
        examples=[7200],
    )
    parallel_transfers: int = Field(
        8,
        ge=1,
        le=64,
        description="Members collected at the same time. Each needs memory for one part: 16 MiB, "
        "more only for members over 16 GiB.",
        examples=[4],
    )


class Settings(TargetOptions, General):
    """All options but those of services, which `settings_model` adds."""

    def target_options(self) -> TargetOptions:
        """The options of targets alone."""
        return TargetOptions(**{name: getattr(self, name) for name in TargetOptions.model_fields})

    def of_service(self, name: str) -> Any:
        """A service's own options."""
        return getattr(self, name)

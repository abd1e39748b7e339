"""Options of targets, a section for each scheme; `epibackup:target` says which one is used."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A section of the stack configuration: closed, so that a typing mistake is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class S3Options(Section):
    """S3 targets. Credentials are not among the options: the SDK finds them its ordinary way."""

    endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://[^/@?#\s]+/?$",
        description="The address of a server that speaks S3, instead of AWS.",
        examples=["https://minio.example.com:9000"],
    )
    region: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]+$",
        description="The bucket's region. Default: the SDK's (AWS_REGION, profile).",
        examples=["eu-central-1"],
    )
    profile: str | None = Field(
        None,
        description="The profile of the SDK's configuration that has the credentials. Default: "
        "the SDK's own search (environment, AWS_PROFILE, the machine's role).",
        examples=["backup"],
    )
    ca_file: str | None = Field(
        None,
        pattern=r"^/",
        description="The certificate authority of the endpoint, a PEM file, where this machine "
        "does not trust it.",
        examples=["/etc/ssl/private-ca.pem"],
    )
    path_style: bool = Field(
        False,
        description="Put the bucket's name into the path and not into the host's name. Servers "
        "of one's own often need it; for an address of numbers it is always so.",
        examples=[True],
    )
    storage_class: str | None = Field(
        None,
        pattern=r"^[A-Z0-9_]+$",
        description="The storage class of archives. Default: the bucket's. Not GLACIER or "
        "DEEP_ARCHIVE, which cannot be read: let a lifecycle rule move archives there.",
        examples=["STANDARD_IA"],
    )
    sse: Literal["AES256", "aws:kms"] | None = Field(
        None,
        description="Have the server encrypt archives, with its own key or one of KMS. Default: "
        "what the bucket is set to.",
        examples=["aws:kms"],
    )
    kms_key_id: str | None = Field(
        None,
        min_length=1,
        description="The KMS key; only with `sse: aws:kms`. Default: the account's key for S3.",
        examples=["arn:aws:kms:eu-central-1:111122223333:key/…"],
    )
    parallel: int = Field(
        4,
        ge=1,
        le=32,
        description="Parts sent at the same time. Each needs 8 MiB of memory, as does the one "
        "that is being filled; more only for archives over 8 GiB times `parallel`.",
        examples=[8],
    )
    read_back: bool = Field(
        True,
        description="Read each archive back before its run counts as good. Off, the checksums "
        "that the server confirms have to do, and the run is marked as not verified: for a "
        "writer that must not read.",
        examples=[False],
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kms_key_id and self.sse != "aws:kms":
            raise ValueError("kms_key_id is only used with sse: aws:kms")
        if self.storage_class in ("GLACIER", "DEEP_ARCHIVE"):
            raise ValueError(
                f"archives of class {self.storage_class} cannot be read without restoring them "
                "first; let a lifecycle rule move them there instead"
            )
        return self


class AzureFilesOptions(Section):
    """Azure Files targets. Credentials are not among the options: they are in the environment."""

    endpoint: str | None = Field(
        None,
        pattern=r"^(https://[^/@?#\s]+(/[^@?#\s]*)?|[a-z0-9-]+(\.[a-z0-9-]+)+)$",
        description="Where the File service is, outside of the public cloud: the cloud's suffix, "
        "or the whole address. Default: core.windows.net, or what a connection string says.",
        examples=["core.usgovcloudapi.net"],
    )
    ca_file: str | None = Field(
        None,
        pattern=r"^/",
        description="The certificate authority of the endpoint, a PEM file, where this machine "
        "does not trust it.",
        examples=["/etc/ssl/private-ca.pem"],
    )
    parallel: int = Field(
        4,
        ge=1,
        le=16,
        description="Ranges sent at the same time. Each needs 4 MiB of memory, as does the one "
        "that is being filled.",
        examples=[8],
    )
    connect_timeout_seconds: int = Field(
        10, ge=1, le=300, description="How long a connection may take.", examples=[30]
    )
    read_timeout_seconds: int = Field(
        60, ge=1, le=600, description="How long an answer may take.", examples=[120]
    )
    retries: int = Field(
        4,
        ge=0,
        le=6,
        description="How often a request is sent again where the service is busy or gone, after "
        "2, 4, 8, 16 seconds and so on.",
        examples=[5],
    )


class DirectoryOptions(Section):
    """Folders as targets; for those on a mounted network file system only."""

    timeout_seconds: int = Field(
        120,
        ge=5,
        le=86400,
        description="How long a mounted network file system (NFS, SMB, FUSE) may take for one "
        "step, such as writing 1 MiB, before its server counts as gone.",
        examples=[600],
    )


class NfsOptions(Section):
    """NFS targets that are used without a mount: NFS version 3 over TCP."""

    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="The port of the NFS service. Default: the server's rpcbind (port 111) is "
        "asked.",
        examples=[2049],
    )
    mount_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="The port of the server's MOUNT service. Default: rpcbind is asked.",
        examples=[20048],
    )
    uid: int | None = Field(
        None,
        ge=0,
        le=0xFFFFFFFE,
        description="The user id that the server is told. Default: that of this process.",
        examples=[1100],
    )
    gid: int | None = Field(
        None,
        ge=0,
        le=0xFFFFFFFE,
        description="The group id that the server is told. Default: that of this process.",
        examples=[1100],
    )
    timeout_seconds: int = Field(
        120,
        ge=5,
        le=86400,
        description="How long the server may be silent while an answer is due. One that comes "
        "back within this time goes on. The first connection may take 30 seconds at most.",
        examples=[600],
    )


class TargetOptions(Section):
    """The options of every kind of target, by scheme."""

    azurefiles: AzureFilesOptions = Field(
        default_factory=lambda: AzureFilesOptions(),
        description="Options of `azurefiles://` targets.",
    )
    directory: DirectoryOptions = Field(
        default_factory=lambda: DirectoryOptions(),
        description="Options of targets that are folders.",
    )
    nfs: NfsOptions = Field(
        default_factory=lambda: NfsOptions(), description="Options of `nfs://` targets."
    )
    s3: S3Options = Field(
        default_factory=lambda: S3Options(), description="Options of `s3://` targets."
    )

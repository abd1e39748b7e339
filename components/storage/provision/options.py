"""The section `storage` of the stack configuration: what is made before the first archive.

The components check their arguments with these same models, so that a program in any language
gets the same refusals. Imports no Pulumi: `epibackup --help` reads it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.storage.options import Section
from components.storage.provision.names import (
    AccountName,
    BucketName,
    Folder,
    FolderPath,
    KmsKey,
    ObjectId,
    Principal,
    PublicNetwork,
    ResourceGroup,
    ShareName,
    Subnet,
)

STORAGE_CLASSES = (
    "STANDARD_IA",
    "INTELLIGENT_TIERING",
    "ONEZONE_IA",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
)
"""Storage classes that a lifecycle rule can move objects to, in the only order that it may move
them (Amazon S3 User Guide, "Transitioning objects using Amazon S3 Lifecycle")."""

INFREQUENT_ACCESS_DAYS = 30
"""An object has to be this old before it may move to STANDARD_IA or ONEZONE_IA (same page)."""

NONCURRENT_DAYS = 30
"""How long deleted archives can be brought back where nothing else is asked for."""

AWS_CHILDREN = (
    "bucket",
    "versioning",
    "ownership",
    "public-access",
    "encryption",
    "policy",
    "lifecycle",
    "lock",
    "logging",
)
"""The parts of AwsStorage that can be taken over with `import_ids`."""

AZURE_CHILDREN = ("account", "file-service", "share")
"""The parts of AzureStorage that can be taken over with `import_ids`."""

_SUBNET_EXAMPLE = (
    "/subscriptions/0000/resourceGroups/net/providers/Microsoft.Network"
    "/virtualNetworks/main/subnets/backup"
)

Days = Annotated[int, Field(ge=1, le=36500)]


class _Kept(Section):
    """What all storage in a cloud has in common."""

    protect: bool = Field(
        True,
        description="Refuse a `pulumi destroy`, and any change that would replace the storage.",
        examples=[False],
    )
    retain_on_delete: bool = Field(
        True,
        description="Leave the storage and its settings as they are when they are taken out of "
        "the configuration or the stack.",
        examples=[False],
    )


class AwsOptions(_Kept):
    """A bucket of Amazon S3, its settings, and roles for those who write and read."""

    bucket: BucketName | None = Field(
        None, description="The bucket's name.", examples=["acme-backups"]
    )
    prefix: Folder | None = Field(
        None,
        description="The folder in the bucket that archives go to. The writer and the reader can "
        "use nothing else.",
        examples=["production"],
    )
    kms_key_arn: KmsKey | None = Field(
        None,
        description="Encrypt with this key, and refuse objects with any other. Default: with "
        "keys of S3 (AES256).",
        examples=["arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"],
    )
    lock_mode: Literal["governance", "compliance"] | None = Field(
        None,
        description="Lock each object version (S3 Object Lock). governance: identities with a "
        "special right can lift it. compliance: nobody can, not even the account's root.",
        examples=["governance"],
    )
    lock_days: Days | None = Field(
        None, description="How long a version is locked, from its upload.", examples=[30]
    )
    abort_unfinished_days: Days = Field(
        7, description="Remove uploads that have not been finished after this many days."
    )
    transitions: dict[str, Days] = Field(
        default_factory=dict,
        description="Move archives to cheaper storage classes after so many days: "
        f"{', '.join(STORAGE_CLASSES)}. From GLACIER and DEEP_ARCHIVE they have to be brought "
        "back before they can be read.",
        examples=[{"GLACIER_IR": 30}],
    )
    expire_days: Days | None = Field(
        None,
        description="Delete archives after so many days, whatever else is there: S3 does not "
        "know which is the last good one. Default: never; `epibackup:retention` does it better.",
        examples=[400],
    )
    expire_noncurrent_days: Days | None = Field(
        None,
        description="How long a deleted or overwritten archive can be brought back. Default: "
        f"{NONCURRENT_DAYS}, or the retention's minimum if that is more.",
        examples=[90],
    )
    log_bucket: BucketName | None = Field(
        None,
        description="A bucket that exists and gets the access log.",
        examples=["acme-access-logs"],
    )
    writer_principals: list[Principal] = Field(
        default_factory=list,
        description="Who may take the writer's role: it can upload, and neither read nor delete.",
        examples=[["arn:aws:iam::111122223333:role/backup-controller"]],
    )
    reader_principals: list[Principal] = Field(
        default_factory=list,
        description="Who may take the reader's role, for restores and for reading back.",
        examples=[["arn:aws:iam::111122223333:role/operators"]],
    )
    import_ids: dict[str, str] = Field(
        default_factory=dict,
        description="Parts that exist and are taken over instead of made, with their ids "
        "(docs/provisioning.md).",
        examples=[{"bucket": "acme-backups"}],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.lock_mode is None) != (self.lock_days is None):
            raise ValueError("lock_mode and lock_days belong together")
        if self.log_bucket is not None and self.log_bucket == self.bucket:
            raise ValueError("log_bucket is the bucket itself: its log would log itself for ever")
        _check_transitions(self.transitions, self.expire_days)
        _check_children(self.import_ids, AWS_CHILDREN)
        return self

    def target(self) -> str:
        """The target that the bucket is."""
        return "/".join(["s3:/", *filter(None, (self.bucket, self.prefix))])

    def noncurrent_days(self, minimum_days: int) -> int:
        """Days that deleted or overwritten archives can be brought back."""
        return self.expire_noncurrent_days or max(NONCURRENT_DAYS, minimum_days)


class AzureOptions(_Kept):
    """A storage account and a file share of Azure, and roles for those who write and read."""

    resource_group: ResourceGroup | None = Field(
        None,
        description="The resource group, which exists.",
        examples=["backups"],
    )
    account: AccountName | None = Field(
        None,
        description="The storage account's name; the account is used for archives only.",
        examples=["acmebackups"],
    )
    share: ShareName | None = Field(
        None,
        description="The file share's name.",
        examples=["archives"],
    )
    folder: Folder | None = Field(
        None, description="The folder in the share that archives go to.", examples=["production"]
    )
    location: str | None = Field(
        None,
        description="The region. Default: the resource group's, or azure-native:location.",
        examples=["westeurope"],
    )
    sku: Literal[
        "Standard_LRS", "Standard_ZRS", "Standard_GRS", "Standard_GZRS"
    ] = Field(
        "Standard_ZRS",
        description="How many copies, and where: LRS one building, ZRS three of a region, GRS and "
        "GZRS also another region.",
        examples=["Standard_GZRS"],
    )  # fmt: skip
    access_tier: Literal["TransactionOptimized", "Hot", "Cool"] = Field(
        "Cool", description="The share's tier: Cool is cheapest to keep.", examples=["Hot"]
    )
    quota_gib: int = Field(
        1024, ge=1, le=102400, description="The share's size limit in GiB.", examples=[5120]
    )
    soft_delete_days: int = Field(
        14,
        ge=1,
        le=365,
        description="How long a deleted share can be brought back. Azure has no such thing for a "
        "single file.",
        examples=[30],
    )
    allow_shared_key: bool = Field(
        False,
        description="Accept the account's keys. Needed to mount the share with a key; without it "
        "only identities of Entra ID get in.",
        examples=[True],
    )
    infrastructure_encryption: bool = Field(
        False,
        description="Encrypt a second time, below the service. Can only be chosen when the "
        "account is made.",
        examples=[True],
    )
    allowed_ip_ranges: list[PublicNetwork] = Field(
        default_factory=list,
        description="Public IPv4 addresses and networks that may connect. With any of this and "
        "the next two options, nothing else may.",
        examples=[["203.0.113.0/24"]],
    )
    allowed_subnet_ids: list[Subnet] = Field(
        default_factory=list,
        description="Subnets of Azure, with a service endpoint for storage, that may connect.",
        examples=[[_SUBNET_EXAMPLE]],
    )
    private_endpoint_subnet_id: Subnet | None = Field(
        None,
        description="Make a private endpoint in this subnet. Its name in DNS is yours to make.",
        examples=[_SUBNET_EXAMPLE],
    )
    writer_principal_ids: list[ObjectId] = Field(
        default_factory=list,
        description="Identities of Entra ID that write archives. Azure Files has no role that "
        "writes only: they can also read and delete.",
        examples=[["11111111-2222-3333-4444-555555555555"]],
    )
    reader_principal_ids: list[ObjectId] = Field(
        default_factory=list,
        description="Identities of Entra ID that read archives, for restores.",
        examples=[["11111111-2222-3333-4444-555555555555"]],
    )
    import_ids: dict[str, str] = Field(
        default_factory=dict,
        description="Parts that exist and are taken over instead of made, with their ids "
        "(docs/provisioning.md).",
        examples=[
            {
                "account": "/subscriptions/0000/resourceGroups/backups/providers"
                "/Microsoft.Storage/storageAccounts/acmebackups"
            }
        ],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_children(self.import_ids, AZURE_CHILDREN)
        return self

    def target(self) -> str:
        """The target that the share is."""
        return "/".join(["azurefiles:/", *filter(None, (self.account, self.share, self.folder))])


class DirectoryOptions(Section):
    """A folder of this machine."""

    path: FolderPath | None = Field(
        None,
        description="The folder, an absolute path: made with mode 0700 if it is missing; refused "
        "if it belongs to somebody else.",
        examples=["/srv/backups"],
    )


class StorageOptions(Section):
    """What archives are kept in, where it is made or looked after by the stack."""

    kind: Literal["aws", "azure", "directory", "existing"] | None = Field(
        None,
        description="aws: a bucket is made, azure: a file share, directory: a folder, by the same "
        "update and before the first archive. existing: nothing is made, and how `target` is "
        "protected is looked at. Default: neither.",
        examples=["aws"],
    )
    aws: AwsOptions = Field(default_factory=AwsOptions, description="With kind aws.")
    azure: AzureOptions = Field(default_factory=AzureOptions, description="With kind azure.")
    directory: DirectoryOptions = Field(
        default_factory=DirectoryOptions, description="With kind directory."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "aws": {"aws.bucket": self.aws.bucket},
            "azure": {
                "azure.resource_group": self.azure.resource_group,
                "azure.account": self.azure.account,
                "azure.share": self.azure.share,
            },
            "directory": {"directory.path": self.directory.path},
        }.get(self.kind or "", {})
        if missing := [name for name, value in needed.items() if not value]:
            raise ValueError(f"kind {self.kind} needs {', '.join(missing)}")
        return self

    @property
    def is_made(self) -> bool:
        """Whether the stack makes the storage."""
        return self.kind in ("aws", "azure", "directory")

    @property
    def is_in_cloud(self) -> bool:
        """Whether a cloud's provider makes the storage."""
        return self.kind in ("aws", "azure")

    def target(self) -> str | None:
        """The target that the storage is: None unless the stack makes it."""
        if self.kind == "aws":
            return self.aws.target()
        if self.kind == "azure":
            return self.azure.target()
        return self.directory.path if self.kind == "directory" else None


def expiry_problem(options: AwsOptions, minimum_days: int) -> str | None:
    """What is wrong with the days after which S3 deletes archives; None if nothing.

    minimum_days: how long every archive has to be kept, by `epibackup:retention`.
    """
    floor = max(minimum_days, options.lock_days or 0)
    why = "object lock keeps" if floor > minimum_days else "retention keeps"
    if options.expire_days is not None and options.expire_days < floor:
        return f"expire_days is {options.expire_days}, and {why} every archive for {floor} days"
    if options.noncurrent_days(minimum_days) < minimum_days:
        return (
            f"expire_noncurrent_days is {options.expire_noncurrent_days}: an archive that somebody "
            f"deletes would be gone before the {minimum_days} days that retention promises"
        )
    return None


def _check_transitions(transitions: dict[str, int], expire_days: int | None) -> None:
    before = 0
    for name in transitions:
        if name not in STORAGE_CLASSES:
            raise ValueError(f"transitions: {name} is none of {', '.join(STORAGE_CLASSES)}")
    for name in sorted(transitions, key=STORAGE_CLASSES.index):
        days = transitions[name]
        if name in ("STANDARD_IA", "ONEZONE_IA") and days < INFREQUENT_ACCESS_DAYS:
            raise ValueError(f"transitions: {name} takes objects of {INFREQUENT_ACCESS_DAYS} days")
        if days <= before:
            raise ValueError(f"transitions: {name} has to come later than the class before it")
        before = days
    if expire_days is not None and before >= expire_days:
        raise ValueError(f"transitions: archives are deleted after {expire_days} days already")


def _check_children(import_ids: dict[str, str], known: tuple[str, ...]) -> None:
    for name in import_ids:
        if name not in known:
            raise ValueError(f"import_ids: {name} is none of {', '.join(known)}")

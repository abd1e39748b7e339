"""Policies about storage that the stack makes: buckets, storage accounts, file shares.

Type and input names are those of pulumi-aws 7 and pulumi-azure-native 3. A bucket's settings are
resources of their own there, so these policies look at the whole stack: a setting belongs to a
bucket if it was made from that bucket's outputs or has its name.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyResource,
    ReportViolation,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

BUCKETS = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")
ACCOUNT = "azure-native:storage:StorageAccount"
SHARE = "azure-native:storage:FileShare"
SHARE_SERVICE = "azure-native:storage:FileServiceProperties"
DATA = (*BUCKETS, ACCOUNT, SHARE)
"""What is gone with its data when it is removed."""

BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
ALGORITHMS = ("AES256", "aws:kms", "aws:kms:dsse")
TLS = ("TLS1_2", "TLS1_3")
SOFT_DELETE_DAYS = 7

UNKNOWN = object()
"""A value that only the update will tell."""


def storage_private(args: StackValidationArgs, report: ReportViolation) -> None:
    """Nobody reads storage without credentials."""
    for bucket in _of_type(args, *BUCKETS):
        setting = _setting(args, bucket, "BucketPublicAccessBlock")
        if setting is None:
            report(
                f"The bucket {bucket.name} has no public access block: one wrong ACL or policy "
                "would show every backup to everybody. Add a BucketPublicAccessBlock with all "
                "four settings on.",
                bucket.urn,
            )
            continue
        off = [name for name in BLOCKS if _value(setting.props, name) not in (True, UNKNOWN)]
        if off:
            report(
                f"The public access block of the bucket {bucket.name} leaves {', '.join(off)} "
                "off. Turn all four settings on.",
                setting.urn,
            )
    for policy in _aws(args, "BucketPolicy"):
        for statement in _statements(policy):
            if statement.get("Effect") == "Allow" and _is_everybody(statement.get("Principal")):
                report(
                    f"The bucket policy {policy.name} allows everybody. Name the principals that "
                    "need it.",
                    policy.urn,
                )
    for account in _of_type(args, ACCOUNT):
        if _value(account.props, "allowBlobPublicAccess") not in (False, UNKNOWN):
            report(
                f"The storage account {account.name} allows public access to blobs. Set "
                "allowBlobPublicAccess to false.",
                account.urn,
            )


def storage_encrypted(args: StackValidationArgs, report: ReportViolation) -> None:
    """Data is encrypted where it lies and on its way."""
    for bucket in _of_type(args, *BUCKETS):
        setting = _setting(args, bucket, "BucketServerSideEncryptionConfiguration")
        if setting is None or not any(
            algorithm in (*ALGORITHMS, UNKNOWN) for algorithm in _algorithms(setting)
        ):
            report(
                f"The bucket {bucket.name} does not say how it encrypts what it stores. Add a "
                "BucketServerSideEncryptionConfiguration with AES256 or aws:kms.",
                bucket.urn,
            )
        policy = _setting(args, bucket, "BucketPolicy")
        if policy is None or not _denies_plain_http(policy):
            report(
                f"The bucket {bucket.name} can be reached without TLS. Add a BucketPolicy that "
                "denies everything where aws:SecureTransport is false.",
                (policy or bucket).urn,
            )
    for account in _of_type(args, ACCOUNT):
        # Azure encrypts everything at rest, and that cannot be turned off.
        if _value(account.props, "enableHttpsTrafficOnly") not in (True, UNKNOWN):
            report(
                f"The storage account {account.name} can be reached without TLS. Set "
                "enableHttpsTrafficOnly to true.",
                account.urn,
            )
        if _value(account.props, "minimumTlsVersion") not in (*TLS, UNKNOWN):
            report(
                f"The storage account {account.name} takes old versions of TLS. Set "
                "minimumTlsVersion to TLS1_2 or newer.",
                account.urn,
            )


def storage_versioned(args: StackValidationArgs, report: ReportViolation) -> None:
    """What is overwritten or deleted can be had back."""
    for bucket in _of_type(args, *BUCKETS):
        setting = _setting(args, bucket, "BucketVersioning")
        status = _path(setting, "versioningConfiguration", "status") if setting else None
        if status not in ("Enabled", UNKNOWN):
            report(
                f"The bucket {bucket.name} keeps no versions: an archive that is deleted by "
                "mistake, or by somebody who got in, is gone. Add a BucketVersioning with the "
                "status Enabled.",
                (setting or bucket).urn,
            )
    least = int(args.get_config().get("softDeleteDays", SOFT_DELETE_DAYS))
    for account in _of_type(args, ACCOUNT):
        shares = [found for found in _of_type(args, SHARE) if _belongs(found, account)]
        services = [found for found in _of_type(args, SHARE_SERVICE) if _belongs(found, account)]
        if shares and not any(_soft_delete_days(found) >= least for found in services):
            report(
                f"The storage account {account.name} does not keep deleted shares for {least} "
                "days. Add FileServiceProperties with a shareDeleteRetentionPolicy.",
                account.urn,
            )


def storage_protected(args: StackValidationArgs, report: ReportViolation) -> None:
    """Pulumi refuses to delete or replace what holds backups."""
    for found in _of_type(args, *DATA):
        if not found.opts.protect:
            report(
                f"{found.name} holds backups and is not protected: a `pulumi destroy`, or a "
                "change that replaces it, would delete them. Give it the option protect.",
                found.urn,
            )


def _of_type(args: StackValidationArgs, *types: str) -> Iterator[PolicyResource]:
    return (found for found in args.resources if found.resource_type in types)


def _aws(args: StackValidationArgs, kind: str) -> Iterator[PolicyResource]:
    """Resources of a kind of pulumi-aws's module s3, also under their old names."""
    lower = kind[0].lower() + kind[1:]
    return _of_type(args, f"aws:s3/{lower}:{kind}", f"aws:s3/{lower}V2:{kind}V2")


def _setting(args: StackValidationArgs, owner: PolicyResource, kind: str) -> PolicyResource | None:
    """The resource of this kind that sets something of a bucket."""
    return next((found for found in _aws(args, kind) if _refers(found, owner, "bucket")), None)


def _refers(setting: PolicyResource, owner: PolicyResource, name: str) -> bool:
    """Whether an input of one resource names another."""
    if any(found.urn == owner.urn for found in setting.property_dependencies.get(name, [])):
        return True
    named = _value(setting.props, name)
    own = [_value(owner.props, key) for key in ("bucket", "id", "name", "accountName")]
    return isinstance(named, str) and named in own


def _belongs(found: PolicyResource, account: PolicyResource) -> bool:
    return _refers(found, account, "accountName")


def _value(props: Mapping[str, Any], name: str) -> Any:
    """A property; UNKNOWN if only the update will tell."""
    try:
        return props.get(name)
    except UnknownValueError:
        return UNKNOWN


def _path(found: PolicyResource, *names: str) -> Any:
    """A property inside others; None if it is not there."""
    value: Any = found.props
    for name in names:
        value = _value(value, name) if isinstance(value, Mapping) else value
        if value is None or value is UNKNOWN:
            return value
    return value


def _algorithms(setting: PolicyResource) -> list[Any]:
    rules = _value(setting.props, "rules")
    if rules is UNKNOWN:
        return [UNKNOWN]
    defaults = [_value(rule, "applyServerSideEncryptionByDefault") or {} for rule in rules or []]
    return [_value(default, "sseAlgorithm") for default in defaults]


def _statements(policy: PolicyResource) -> list[Mapping[str, Any]]:
    """A bucket policy's statements; none while it is unknown."""
    text = _value(policy.props, "policy")
    if text is UNKNOWN or text is None:
        return []
    document = json.loads(text) if isinstance(text, str) else text
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def _denies_plain_http(policy: PolicyResource) -> bool:
    """Whether a bucket policy refuses whoever comes without TLS; taken as so while the policy's
    text is unknown: in an update that makes the bucket, it has the bucket's own name in it."""
    if _value(policy.props, "policy") is UNKNOWN:
        return True
    return any(
        statement.get("Effect") == "Deny"
        and _is_everybody(statement.get("Principal"))
        and str(statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")).lower()
        == "false"
        for statement in _statements(policy)
    )


def _is_everybody(principal: Any) -> bool:
    if isinstance(principal, Mapping):
        named = principal.get("AWS")
        return "*" in (named if isinstance(named, list) else [named])
    return bool(principal == "*")


def _soft_delete_days(service: PolicyResource) -> float:
    """For how many days deleted shares can be had back; 0 if they are gone at once."""
    kept = _value(service.props, "shareDeleteRetentionPolicy")
    if kept is UNKNOWN:
        return float("inf")
    if not kept or not _value(kept, "enabled"):
        return 0
    days = _value(kept, "days")
    return float("inf") if days is UNKNOWN else float(days or 0)


def _policy(
    name: str,
    description: str,
    remediation: str,
    validate: Callable[[StackValidationArgs, ReportViolation], None],
    schema: PolicyConfigSchema | None = None,
) -> StackValidationPolicy:
    return StackValidationPolicy(
        name=name,
        description=description,
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps=remediation,
        config_schema=schema,
        validate=validate,
    )


POLICIES = [
    _policy(
        "storage-private",
        "Storage cannot be read by the public.",
        "Block public access of the bucket or the storage account.",
        storage_private,
    ),
    _policy(
        "storage-encrypted",
        "Storage is encrypted at rest, and reached only by TLS.",
        "Add server-side encryption and a TLS-only policy.",
        storage_encrypted,
    ),
    _policy(
        "storage-versioned",
        "Storage keeps what is overwritten or deleted.",
        "Turn on versioning, or soft delete for file shares.",
        storage_versioned,
        PolicyConfigSchema(
            {
                "softDeleteDays": {
                    "type": "integer",
                    "minimum": 1,
                    "default": SOFT_DELETE_DAYS,
                    "description": "For how many days a deleted file share must be kept.",
                }
            }
        ),
    ),
    _policy(
        "storage-protected",
        "What holds backups is protected from deletion.",
        "Give the resource the option protect.",
        storage_protected,
    ),
]

"""How a target is protected, asked of the target itself.

It says what is weak, whoever has made the target. What this user may not ask, or what cannot be
asked where archives are written, is unknown and told as such; nothing is changed.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from components.errors import EpibackupError
from components.storage.options import TargetOptions
from components.storage.s3.bucket import Bucket

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

Level = Literal["weak", "note", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing about a target.

    level: weak is less than archives deserve, note can be a choice, unknown could not be asked.
    remedy: what to do.
    """

    id: str
    level: Level
    message: str
    remedy: str

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def posture(location: str, options: TargetOptions, minimum_days: int = 0) -> list[Finding]:
    """What there is to say about a target; empty if it is as it should be.

    minimum_days: how long every archive has to be kept, by `epibackup:retention`.
    """
    scheme, separator, _ = location.partition("://")
    if not separator:
        return list(_directory(Path(location)))
    if scheme == "s3":
        bucket = Bucket.parse(location, options.s3)
        try:
            client = bucket.quick_client
        except EpibackupError as error:
            return [Finding("s3", "unknown", error.message, error.hint)]
        return list(_s3(client, bucket.name, bucket.prefix, minimum_days))
    return [_not_asked(scheme, location)]


def _directory(path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError as error:
        yield Finding(
            "directory", "unknown", f"{path} cannot be looked at: {error.strerror}", "mount it"
        )
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        yield Finding(
            "directory-mode",
            "weak",
            f"other users of this machine can use {path}: mode {mode:04o}",
            f"chmod 700 {path}",
        )
    if status.st_uid != os.geteuid():
        yield Finding(
            "directory-owner",
            "weak",
            f"{path} belongs to the user {status.st_uid}, who can delete archives; this one is "
            f"{os.geteuid()}",
            f"chown {os.geteuid()} {path}",
        )


def _not_asked(scheme: str, location: str) -> Finding:
    if scheme == "azurefiles":
        return Finding(
            "azure-account",
            "unknown",
            f"whether the account of {location} demands https and TLS 1.2, keeps deleted shares, "
            "and who may connect: the share's own interface does not tell",
            "make it with epibackup:storage, whose drift Pulumi sees, or look at it with "
            "az storage account show",
        )
    return Finding(
        f"{scheme}-server",
        "unknown",
        f"how the server of {location} protects it: it cannot be asked",
        "look at the server's exports",
    )


ABSENT = frozenset(
    {
        "NoSuchBucketPolicy",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "ObjectLockConfigurationNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)
"""How S3 says that a bucket has no such setting."""


class _NotToldError(Exception):
    """The server does not tell; the text says why."""


class _UnreachableError(Exception):
    """The server does not answer, or there are no credentials to ask it with."""


def _asked(call: Callable[..., Any], bucket: str) -> dict[str, Any]:
    """A setting of a bucket; empty if it has none."""
    try:
        return dict(call(Bucket=bucket))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ABSENT:
            return {}
        raise _NotToldError(code) from error
    except BotoCoreError as error:
        raise _UnreachableError(type(error).__name__) from error


def _s3(client: "S3Client", bucket: str, prefix: str, minimum_days: int) -> Iterator[Finding]:
    checks: list[tuple[str, str, Callable[[], Iterator[Finding]]]] = [
        ("s3-public-access", "public access is blocked", lambda: _public_access(client, bucket)),
        ("s3-public-policy", "its policy is public", lambda: _public_policy(client, bucket)),
        ("s3-tls", "requests without TLS are refused", lambda: _tls(client, bucket)),
        ("s3-versioning", "old versions are kept", lambda: _versioning(client, bucket)),
        ("s3-encryption", "archives are encrypted there", lambda: _encryption(client, bucket)),
        ("s3-lock", "archives are locked", lambda: _lock(client, bucket)),
        (
            "s3-lifecycle",
            "archives expire",
            lambda: _lifecycle(client, bucket, prefix, minimum_days),
        ),
    ]
    for identity, question, check in checks:
        try:
            yield from check()
        except _UnreachableError as error:
            # The others would only wait as long for nothing.
            yield Finding(
                "s3",
                "unknown",
                f"how the bucket {bucket} is protected: it cannot be asked ({error})",
                "check credentials and network",
            )
            return
        except _NotToldError as error:
            yield Finding(
                identity,
                "unknown",
                f"whether {question} in the bucket {bucket}: the server does not tell ({error})",
                "look with an administrator's rights; a server of one's own may not have it",
            )


def _public_access(client: "S3Client", bucket: str) -> Iterator[Finding]:
    found = _asked(client.get_public_access_block, bucket)
    block = found.get("PublicAccessBlockConfiguration", {})
    names = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    if open_names := [name for name in names if not block.get(name)]:
        yield Finding(
            "s3-public-access",
            "weak",
            f"public access to the bucket {bucket} is not blocked: {', '.join(open_names)} off",
            "block all public access: aws s3api put-public-access-block",
        )


def _public_policy(client: "S3Client", bucket: str) -> Iterator[Finding]:
    found = _asked(client.get_bucket_policy_status, bucket)
    if found.get("PolicyStatus", {}).get("IsPublic"):
        yield Finding(
            "s3-public-policy",
            "weak",
            f"the policy of the bucket {bucket} lets anybody in",
            "take Principal * out of its Allow statements",
        )


def _tls(client: "S3Client", bucket: str) -> Iterator[Finding]:
    text = _asked(client.get_bucket_policy, bucket).get("Policy", "{}")
    statements = json.loads(text).get("Statement", [])
    statements = [statements] if isinstance(statements, dict) else statements
    if not any(_refuses_plain(statement) for statement in statements):
        yield Finding(
            "s3-tls",
            "weak",
            f"the bucket {bucket} answers without TLS, too",
            "add a Deny statement for aws:SecureTransport false to its policy",
        )


def _refuses_plain(statement: dict[str, Any]) -> bool:
    condition = statement.get("Condition", {}).get("Bool", {})
    value = condition.get("aws:SecureTransport")
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and str(value[0] if isinstance(value, list) else value).lower() == "false"
        and statement.get("Action") in ("s3:*", "*", ["s3:*"], ["*"])
    )


def _versioning(client: "S3Client", bucket: str) -> Iterator[Finding]:
    if _asked(client.get_bucket_versioning, bucket).get("Status") != "Enabled":
        yield Finding(
            "s3-versioning",
            "weak",
            f"the bucket {bucket} keeps no old versions: what is overwritten or deleted is gone",
            "switch versioning on: aws s3api put-bucket-versioning",
        )


def _encryption(client: "S3Client", bucket: str) -> Iterator[Finding]:
    found = _asked(client.get_bucket_encryption, bucket)
    if not found.get("ServerSideEncryptionConfiguration", {}).get("Rules"):
        yield Finding(
            "s3-encryption",
            "weak",
            f"the bucket {bucket} does not encrypt what it stores",
            "set a default: aws s3api put-bucket-encryption",
        )


def _lock(client: "S3Client", bucket: str) -> Iterator[Finding]:
    found = _asked(client.get_object_lock_configuration, bucket)
    if "Rule" not in found.get("ObjectLockConfiguration", {}):
        yield Finding(
            "s3-lock",
            "note",
            f"the bucket {bucket} locks nothing: an administrator can delete every version",
            "consider object lock, which a bucket can have from its first day on",
        )


def _lifecycle(
    client: "S3Client", bucket: str, prefix: str, minimum_days: int
) -> Iterator[Finding]:
    rules = _asked(client.get_bucket_lifecycle_configuration, bucket).get("Rules", [])
    active = [rule for rule in rules if rule.get("Status") == "Enabled" and _covers(rule, prefix)]
    if not any("AbortIncompleteMultipartUpload" in rule for rule in active):
        yield Finding(
            "s3-unfinished",
            "note",
            f"the bucket {bucket} keeps unfinished uploads of killed runs, and bills them",
            "add a lifecycle rule with AbortIncompleteMultipartUpload",
        )
    for rule in active:
        days = rule.get("Expiration", {}).get("Days")
        if days is None and "Date" in rule.get("Expiration", {}):
            days = 0
        if days is not None and days < minimum_days:
            yield Finding(
                "s3-expiry",
                "weak",
                f"the rule {rule.get('ID', 'without a name')} of the bucket {bucket} deletes "
                f"archives after {days} days, and retention promises {minimum_days}",
                "raise its days",
            )
        elif days is not None:
            yield Finding(
                "s3-expiry",
                "note",
                f"the rule {rule.get('ID', 'without a name')} of the bucket {bucket} deletes "
                f"archives after {days} days, the last good one as well",
                "make sure that failing backups are noticed before",
            )


def _covers(rule: dict[str, Any], prefix: str) -> bool:
    """Whether a rule can touch archives. One that also asks for tags or sizes counts: unknown is
    not harmless."""
    limits = rule.get("Filter", {})
    limit = limits.get("Prefix", limits.get("And", {}).get("Prefix", rule.get("Prefix", "")))
    return str(prefix).startswith(limit or "") or str(limit).startswith(prefix)

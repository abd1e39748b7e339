"""What S3 and its SDK refuse, in words, with what to do.

Codes are those of the Amazon S3 API Reference (API version 2006-03-01, "Error responses"), and
MinIO's own.
"""

import re
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from components.errors import EpibackupError, TargetUnreachable, VerificationFailed

PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "DeleteObject": "s3:DeleteObject",
    "GetObjectRetention": "s3:GetObjectRetention",
    "GetObjectLegalHold": "s3:GetObjectLegalHold",
}
"""The permission that each call needs (Service Authorization Reference, Amazon S3)."""

_LONGEST_TEXT = 300

_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.NoAuthTokenError,
)
_CREDENTIALS_HINT = (
    "give credentials the SDK's way: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
    "environment, epibackup:s3 profile, or the machine's role"
)
_REGION_HINT = "set the bucket's own region: epibackup:s3 region (and endpoint_url, if it is set)"

# What a refusal means, and what to do about it.
_REFUSALS: dict[str, tuple[str, str]] = {
    "InvalidAccessKeyId": ("the access key is not known there", _CREDENTIALS_HINT),
    "SignatureDoesNotMatch": (
        "the secret key is wrong",
        "check AWS_SECRET_ACCESS_KEY, or the profile; it is as long as it was shown when made",
    ),
    "ExpiredToken": ("the credentials have expired", "sign in again, then run the same command"),
    "InvalidToken": ("the session token is not valid", "sign in again; check AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": (
        "this machine's clock differs from the server's by more than S3 accepts (15 minutes)",
        "set the clock: timedatectl set-ntp true",
    ),
    "NoSuchBucket": ("there is no such bucket", "make it, or correct -t; it is not made here"),
    "AuthorizationHeaderMalformed": ("the region is wrong", _REGION_HINT),
    "PermanentRedirect": ("the bucket is in another region", _REGION_HINT),
    "IllegalLocationConstraintException": ("the bucket is in another region", _REGION_HINT),
    "NoSuchUpload": (
        "the unfinished upload is gone: somebody, or a lifecycle rule, has removed it",
        "give the rule more days than a run takes, then run it again with the same run id",
    ),
    "InvalidStorageClass": (
        "the server does not know the storage class",
        "correct epibackup:s3 storage_class",
    ),
    "InvalidObjectState": (
        "the object is in an archive tier, where it cannot be read",
        "restore it there first (aws s3api restore-object), or read another run",
    ),
    "QuotaExceeded": ("the bucket's quota is used up", "raise it, or delete old archives"),
    "XMinioStorageFull": ("the server's disks are full", "free space there"),
    "NotImplemented": ("the server lacks this part of S3", "docs/targets.md says what is needed"),
    "SlowDown": ("the server asks for fewer requests", "lower epibackup:s3 parallel"),
}
_DAMAGED_ON_ITS_WAY = (
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
)
_SAME_REFUSAL = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "InvalidTokenId": "InvalidToken",
    "301": "PermanentRedirect",
    "RequestExpired": "RequestTimeTooSkewed",
    "503": "SlowDown",
    "MethodNotAllowed": "NotImplemented",
    "501": "NotImplemented",
    "XMinioInvalidStorageClass": "InvalidStorageClass",
    "XMinioAdminBucketQuotaExceeded": "QuotaExceeded",
}


def code_of(error: ClientError) -> str:
    """The code of a refusal; an HTTP status where the server gives no other."""
    return str(error.response.get("Error", {}).get("Code", ""))


def explain(error: BotoCoreError | ClientError, doing: str, server: str) -> EpibackupError:
    """An error of the SDK as one of ours.

    doing: what was being done and where, such as `reading a.zip in s3://bucket`.
    server: whom it was asked of.
    """
    if isinstance(error, ClientError):
        return _refused(error, doing)
    reason, hint = _unreachable(error, server)
    return TargetUnreachable(f"{doing} failed: {reason}", hint)


def _refused(error: ClientError, doing: str) -> EpibackupError:
    code = code_of(error)
    code = _SAME_REFUSAL.get(code, code)
    words = _plain(error.response.get("Error", {}).get("Message", "")) or "no reason given"
    if code in ("PreconditionFailed", "412"):
        return VerificationFailed(
            f"{doing} failed: it was replaced by somebody else meanwhile", "run the command again"
        )
    if code in ("NoSuchKey", "404"):
        return VerificationFailed(
            f"{doing} failed: it was removed by somebody else meanwhile",
            "epibackup list shows what is there",
        )
    if code in ("AccessDenied", "403", "AllAccessDisabled"):
        permission = PERMISSIONS.get(error.operation_name, error.operation_name)
        return TargetUnreachable(
            f"{doing} failed: access denied for {permission}: {words}", _allow(permission)
        )
    if code in _DAMAGED_ON_ITS_WAY:
        return TargetUnreachable(
            f"{doing} failed: the data was damaged on its way ({code})",
            "check the network between here and there, then run it again with the same run id",
        )
    if code.startswith("KMS."):
        return TargetUnreachable(
            f"{doing} failed: the encryption key cannot be used: {words}",
            "check epibackup:s3 kms_key_id, and that these credentials may use the key",
        )
    known = _REFUSALS.get(code)
    if known:
        return TargetUnreachable(f"{doing} failed: {known[0]} ({code})", known[1])
    return TargetUnreachable(f"{doing} failed: {words} ({_plain(code)})")


def _allow(permission: str) -> str:
    hint = f"allow these credentials {permission} (docs/targets.md has a policy)"
    if permission == "s3:GetObject":
        hint += "; for a backup by a writer that must not read, set epibackup:s3 read_back: false"
    return hint


def _unreachable(error: BotoCoreError, server: str) -> tuple[str, str]:
    """Why there was no answer at all, and what to do about it."""
    if isinstance(error, exceptions.ProfileNotFound):
        return "the profile is not known to the SDK", "correct epibackup:s3 profile, or AWS_PROFILE"
    if isinstance(error, _NO_CREDENTIALS):
        return "there are no credentials that could be used", _CREDENTIALS_HINT
    if isinstance(error, exceptions.SSLError):
        return (
            f"the certificate of {_asked(error, server)} is not trusted",
            "name the PEM file of its certificate authority in epibackup:s3 ca_file",
        )
    if isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
        return (
            f"{_asked(error, server)} does not answer ({type(error).__name__})",
            "check the network and epibackup:s3 endpoint_url, then try again",
        )
    return _plain(str(error)), ""


def _asked(error: BotoCoreError, server: str) -> str:
    """The host that was asked, without path and query."""
    found = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", "")))
    return f"{found.scheme}://{found.netloc}" if found.netloc else server


def _plain(text: object) -> str:
    """A server's words: one short, printable line."""
    return re.sub(r"[^\x20-\x7e]+", " ", str(text))[:_LONGEST_TEXT].strip()

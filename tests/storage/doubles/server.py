"""Asking a server that speaks AWS' protocols."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from tests.storage.doubles.provider import Values

GONE = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "ObjectLockConfigurationNotFoundError",
        "OwnershipControlsNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)


def asked(call: Callable[..., Any], **arguments: Any) -> Any:
    """What a server says; None if there is no such thing."""
    try:
        return call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] in GONE:
            return None
        raise


def present(**values: Any) -> Values:
    """Only what has a value, as Pulumi's state has it."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}

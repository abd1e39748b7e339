"""The storage of a stack: where its archives go, and the component that makes it."""

from typing import cast

import pulumi
from pulumi import Output

from components.errors import UsageError
from components.retention.policy import Retention
from components.storage.provision.component import SDKS, require_sdk
from components.storage.provision.options import expiry_problem
from program.options import Settings

NAME = "storage"
"""The component's name in the stack, which the names of its parts begin with."""


def target_of(settings: Settings) -> str | None:
    """The target that is named, or else the storage that the stack makes."""
    return settings.target or settings.storage.target()


def check_storage(settings: Settings) -> list[str]:
    """Warnings about the storage's options; raises UsageError for what would lose archives."""
    storage = settings.storage
    if storage.kind in SDKS:
        require_sdk(storage.kind)
    if storage.kind == "existing" and not settings.target:
        raise UsageError("storage of the kind existing needs a target", "set epibackup:target")
    if storage.kind == "aws":
        promised = promised_days(settings.retention)
        if problem := expiry_problem(storage.aws, promised):
            raise UsageError(f"epibackup:storage.aws: {problem}", "raise it, or leave it out")
    made, target = storage.target(), settings.target
    if made and target and target != made and not target.startswith(f"{made}/"):
        return [f"epibackup:storage makes {made}, and archives go to {target}"]
    return []


def promised_days(retention: Retention) -> int:
    """How old an archive has to be before S3 may delete it without asking the retention policy:
    the longest that any of its rules, applied to a backup a day, wants one to stay."""
    rules = {
        "minimum_days": 1,
        "keep_within_days": 1,
        "keep_last": 1,
        "keep_daily": 1,
        "keep_weekly": 7,
        "keep_monthly": 31,
        "keep_yearly": 366,
    }
    return max((getattr(retention, rule) or 0) * days for rule, days in rules.items())


def declare_storage(settings: Settings) -> pulumi.ComponentResource | None:
    """Declare the storage and the output `storage`; None where the stack makes none.

    Raises UsageError where the cloud's SDK is not installed.
    """
    storage = settings.storage
    component: pulumi.ComponentResource
    if storage.kind == "aws":
        from components.storage.provision.aws import AwsStorage, AwsStorageArgs

        options = {
            **storage.aws.model_dump(exclude_none=True),
            "minimum_days": promised_days(settings.retention),
        }
        component = made = AwsStorage(NAME, cast(AwsStorageArgs, options))
        told = {
            "location": made.location,
            "writer_policy_arn": made.writer_policy_arn,
            "reader_policy_arn": made.reader_policy_arn,
            "writer_role_arn": made.writer_role_arn,
            "reader_role_arn": made.reader_role_arn,
        }
    elif storage.kind == "azure":
        from components.storage.provision.azure import AzureStorage, AzureStorageArgs

        options = storage.azure.model_dump(exclude_none=True)
        share = AzureStorage(NAME, cast(AzureStorageArgs, options))
        component, told = share, {"location": share.location, "account_id": share.account_id}
    elif storage.kind == "directory" and storage.directory.path:
        from components.storage.provision.directory import DirectoryStorage

        folder = DirectoryStorage(NAME, {"path": storage.directory.path})
        component, told = folder, {"location": folder.location}
    elif storage.kind == "existing" and settings.target:
        from components.storage.provision.existing import ExistingStorage

        existing = ExistingStorage(NAME, {"location": settings.target})
        component, told = existing, {"location": existing.location}
    else:
        return None
    pulumi.export("storage", Output.all(**told))
    return component

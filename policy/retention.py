"""Policies about how long archives are kept."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pulumi.runtime
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

from components.archive.naming import run_of, run_time

SECTION = "epibackup:retention"
RETENTION = "epibackup:index:Retention"
COUNTING = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
LIFECYCLES = (
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
    "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2",
)
LEAST_DAYS = 1
LEAST_ARCHIVES = 2


def retention_minimum(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """The rules keep enough, and nothing that is too young is about to be removed."""
    if args.resource_type != RETENTION:
        return
    rules = args.props["policy"]
    least_days = int(args.get_config().get("leastDays", LEAST_DAYS))
    least_archives = int(args.get_config().get("leastArchives", LEAST_ARCHIVES))
    own = int(rules.get("minimum_days") or 0)
    if own < least_days:
        report(
            f"{SECTION} may remove archives that are {own} days old, and at least {least_days} "
            f"days are asked for. Set minimum_days to {least_days} or more.",
            args.urn,
        )
    # Whatever the rules say, the last good archive stays; of rules that count none, that is all.
    kept = max(1, *(int(rules.get(rule) or 0) for rule in COUNTING))
    if kept < least_archives:
        report(
            f"{SECTION} may leave only {kept} of the archives, and at least {least_archives} are "
            "asked for. Raise keep_last or another rule.",
            args.urn,
        )
    floor = timedelta(days=max(least_days, own))
    now = datetime.now(UTC)
    for key in args.props["removes"]:
        run = run_of(key)
        if run is None or now - run_time(run) < floor:
            report(
                f"{key} would be removed, and is not known to be {floor.days} days old. "
                "`epibackup plan` tells what would be removed, and why.",
                args.urn,
            )


def lifecycle_minimum(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """The storage itself removes nothing that has to be kept."""
    if args.resource_type in LIFECYCLES:
        least = int(args.get_config().get("leastDays", LEAST_DAYS))
        own = int(_declared().get("minimum_days") or 0)
        _check_lifecycle(args, max(least, own), report)


def _check_lifecycle(args: ResourceValidationArgs, floor: int, report: ReportViolation) -> None:
    for rule in args.props.get("rules") or []:
        if rule.get("status") == "Disabled":
            continue
        for name, key in (
            ("expiration", "days"),
            ("noncurrentVersionExpiration", "noncurrentDays"),
        ):
            days = (rule.get(name) or {}).get(key)
            if days is not None and int(days) < floor:
                report(
                    f"The lifecycle {args.name} removes objects after {int(days)} days "
                    f"({name}), whatever epibackup wants to keep, and at least {floor} days are "
                    "asked for. Give the rule more days, or take it away.",
                    args.urn,
                )


def _declared() -> Mapping[str, Any]:
    """The section of the stack's configuration; empty if there is none."""
    text = pulumi.runtime.get_config_env().get(SECTION, "")
    found = json.loads(text) if isinstance(text, str) and text else text
    return found if isinstance(found, Mapping) else {}


LEAST_DAYS_SCHEMA = {
    "type": "integer",
    "minimum": 0,
    "default": LEAST_DAYS,
    "description": "How old an archive has to be, in days, before anything may remove it.",
}

POLICIES = [
    ResourceValidationPolicy(
        name="retention-minimum",
        description="Retention keeps enough archives, for long enough.",
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps="Raise minimum_days or a rule of epibackup:retention.",
        config_schema=PolicyConfigSchema(
            {
                "leastDays": LEAST_DAYS_SCHEMA,
                "leastArchives": {
                    "type": "integer",
                    "minimum": 1,
                    "default": LEAST_ARCHIVES,
                    "description": "How many archives the rules have to keep.",
                },
            }
        ),
        validate=retention_minimum,
    ),
    ResourceValidationPolicy(
        name="lifecycle-minimum",
        description="Storage removes nothing by itself before the declared minimum.",
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps="Raise the days of the lifecycle's rule, or take the rule away.",
        config_schema=PolicyConfigSchema({"leastDays": LEAST_DAYS_SCHEMA}),
        validate=lifecycle_minimum,
    ),
]

"""Policies about what a run saves."""

from datetime import UTC, date, datetime

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

COVERAGE = "epibackup:index:Coverage"
ARCHIVE = "epibackup:index:Archive"
LONGEST_DAYS = 366


def covered(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Every service of the inventory is saved, or exempt for now.

    The resource `coverage` says what is missing, so a service that is left out by an option, by
    a flag or because this version cannot save it looks the same.
    """
    if args.resource_type != COVERAGE:
        return
    longest = int(args.get_config().get("longestDays", LONGEST_DAYS))
    today = datetime.now(UTC).date()
    for item in args.props["missing"]:
        where = f"{item['what']} on {', '.join(item['hosts'])}"
        exempt = item.get("exempt")
        if not exempt:
            report(
                f"{where} is not saved: {item['reason']}. Save it, or say in epibackup:exempt who "
                "answers for that, why, and until when.",
                args.urn,
            )
            continue
        until = date.fromisoformat(exempt["until"])
        if until < today:
            report(
                f"{where} is not saved, and its exemption ended on {until}. {exempt['owner']} "
                "answers for it: save it, or give the exemption a new day.",
                args.urn,
            )
        elif (until - today).days > longest:
            report(
                f"{where} is exempt until {until}, which is more than {longest} days from now. "
                "Give the exemption an earlier day.",
                args.urn,
            )


def recipients(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Archives are encrypted for somebody."""
    if args.resource_type == ARCHIVE and not args.props.get("recipients"):
        report(
            "Archives are written unencrypted: whoever can read the target can read every "
            "database. This version of epibackup has no option for encryption yet, so keep the "
            "target private and encrypted itself.",
            args.urn,
        )


POLICIES = [
    ResourceValidationPolicy(
        name="covered",
        description="Every stateful service of the inventory is saved, or exempt with an owner, "
        "a reason and a day in the future.",
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps="Take it out of epibackup:skip or epibackup:services, or add it to "
        "epibackup:exempt with what, owner, reason and until.",
        config_schema=PolicyConfigSchema(
            {
                "longestDays": {
                    "type": "integer",
                    "minimum": 1,
                    "default": LONGEST_DAYS,
                    "description": "How far in the future an exemption may end.",
                }
            }
        ),
        validate=covered,
    ),
    ResourceValidationPolicy(
        name="recipients",
        description="Archives are encrypted.",
        # Becomes mandatory with the option: demanding what nobody can set would only be noise.
        enforcement_level=EnforcementLevel.ADVISORY,
        remediation_steps="Wait for the option; until then use a target that encrypts at rest.",
        validate=recipients,
    ),
]

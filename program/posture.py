"""The target's protection in a run: checked before anything is done on a host."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Output

from components.posture.component import PostureCheck
from components.posture.judging import posture_of
from components.storage.posture import posture
from program.plan import Plan
from program.storage import promised_days


def request_of(plan: Plan) -> dict[str, Any]:
    """What the posture process has to know beforehand."""
    return {
        "target": plan.target,
        "target_options": plan.settings.target_options().model_dump(),
        "minimum_days": promised_days(plan.settings.retention),
        "accepted": plan.settings.accept,
    }


def declare_posture(
    plan: Plan, run: str, error_file: Path, before: Output[Any], after: Sequence[pulumi.Resource]
) -> PostureCheck | None:
    """Declare the check; None for a folder, which is looked at without a process of its own.

    before: the stack's output `posture` of the last run; None if it has none.
    """
    if "://" not in plan.target:
        return None
    return PostureCheck(
        "posture",
        {
            "run": run,
            "request": request_of(plan),
            "before": before.apply(lambda known: weak_before(plan, known)),
            "error_file": error_file,
            "after": after,
        },
    )


def weak_before(plan: Plan, last: Mapping[str, Any] | None) -> list[str] | None:
    """What was weak at the last run, by id; None if nobody knows.

    last: the stack's output `posture`. Storage that the stack makes was weak in nothing.
    """
    if last:
        return list(last["weak"])
    return [] if plan.settings.storage.is_made else None


def weaknesses_here(plan: Plan) -> list[str]:
    """What is weak about a folder as target, a line each, without what is accepted."""
    if "://" in plan.target or plan.settings.storage.is_made:
        return []
    found = posture_of(posture(plan.target, plan.settings.target_options()))
    return [
        f"{item.message} ({item.id}; {item.remedy})"
        for item in found.findings
        if item.level == "weak" and item.id not in plan.settings.accept
    ]

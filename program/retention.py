"""Retention in a run: what would be removed, told beforehand, and what is declared for it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import Output

from components.archive.naming import run_time
from components.retention.component import Retention
from components.retention.pruning import Forecast, forecast
from components.retention.reading import Known, in_groups
from components.storage.target import open_target
from program.catalog import verified_in
from program.plan import Plan

Catalog = Sequence[Mapping[str, Any]]


def forecast_of(plan: Plan, run: str, catalog: Catalog) -> Forecast | None:
    """What a run would remove if it is good; None without a retention policy.

    catalog: what the stack knows of its runs. Contacts the target and no host; what cannot be
    read there makes the forecast unknown.
    """
    policy = plan.settings.retention
    if not policy.is_active:
        return None
    return forecast(
        open_target(plan.target, plan.settings.target_options()),
        policy,
        Known(plan.cluster, run_time(run), verified_in(catalog)),
        frozenset(service.name for service in plan.services),
        in_groups(plan.groups),
    )


def declare_retention(
    plan: Plan, run: str, result: Output[dict[str, Any]], catalog: Output[Any]
) -> Retention | None:
    """Declare what comes after the archive; nothing without a retention policy.

    result: the archive process's. catalog: what the stack knows of its earlier runs.
    """
    policy = plan.settings.retention
    if not policy.is_active:
        return None

    async def look(known: Catalog | None) -> Forecast:
        found = await asyncio.to_thread(forecast_of, plan, run, known or [])
        found = found or Forecast()
        if pulumi.runtime.is_dry_run():
            for line in found.lines():
                pulumi.log.info(line)
        return found

    def removes(found: Forecast) -> list[str] | Output[list[str]]:
        # What waits for the archive is unknown in a preview, and a saved plan allows anything.
        keys = [item.key for item in found.removes]
        return result.apply(lambda _: keys) if found.unknown else keys

    expected: Output[Forecast] = catalog.apply(look)
    return Retention(
        "retention",
        {
            "run": run,
            "request": {
                "run": run,
                "cluster": plan.cluster,
                "target": plan.target,
                "target_options": plan.settings.target_options().model_dump(),
                "policy": policy.model_dump(),
            },
            "verified": Output.all(result, catalog).apply(
                lambda known: {**verified_in(known[1] or []), known[0]["key"]: known[0]["verified"]}
            ),
            "not_pruned": result.apply(why_not),
            "policy": policy.model_dump(exclude_none=True),
            "removes": expected.apply(removes),
        },
    )


def why_not(result: Mapping[str, Any]) -> str:
    """Why nothing may be removed after a run; empty if it is good."""
    if result["manifest"]["status"] != "ok":
        return "the run is incomplete"
    return "" if result["verified"] else "the archive was not read back"

"""What has changed in the cluster since a stack's last run, as far as it is known beforehand.

The last run is what the stack's outputs say of it. What is inside services, such as databases
and topics, only hosts could tell, and a plan asks none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.archive.manifest import Manifest
from program.plan import Plan

NOT_KNOWN = (
    "databases, topics and queues that are new or gone: known only when a run asks the hosts"
)


class Comparison(BaseModel):
    """The differences between a plan and the last run.

    run, status: of that run; None if there was none, and then the rest is empty.
    new_hosts, gone_hosts: of the inventory. new_services, gone_services: what will be saved and
    was not, or the other way round, as `service on host`.
    new_gaps, closed_gaps: what will not be saved and was not told as missing, or the other way
    round.
    other: settings that differ, a sentence each.
    """

    model_config = ConfigDict(frozen=True)

    run: str | None = None
    status: str | None = None
    new_hosts: list[str] = []
    gone_hosts: list[str] = []
    new_services: list[str] = []
    gone_services: list[str] = []
    new_gaps: list[str] = []
    closed_gaps: list[str] = []
    other: list[str] = []

    def lines(self) -> list[str]:
        """The differences for people, a line each; empty if nothing has changed."""
        titles = {
            "new host": self.new_hosts,
            "host is gone": self.gone_hosts,
            "now saved": self.new_services,
            "no longer saved": self.gone_services,
            "now missing": self.new_gaps,
            "no longer missing": self.closed_gaps,
        }
        told = [f"{title}: {name}" for title, names in titles.items() for name in names]
        return [*told, *self.other]


def compare(plan: Plan, outputs: Mapping[str, Any]) -> Comparison:
    """Compare a plan with a stack's outputs; these are empty before the first run."""
    if not outputs.get("manifest"):
        return Comparison()
    last = Manifest.model_validate(outputs["manifest"])
    hosts, were = _hosts(plan.groups), _hosts(last.inventory)
    saved = {f"{service.name} on {host}" for service in plan.services for host in service.hosts}
    was_saved = {
        f"{service.name} on {host.host}" for service in last.services for host in service.hosts
    }
    gaps = {item.what for item in plan.missing}
    were_gaps = {item.what for item in last.missing}
    return Comparison(
        run=last.run,
        status=last.status,
        new_hosts=sorted(hosts - were),
        gone_hosts=sorted(were - hosts),
        new_services=sorted(saved - was_saved),
        gone_services=sorted(was_saved - saved),
        new_gaps=sorted(gaps - were_gaps),
        closed_gaps=sorted(were_gaps - gaps),
        other=_other(plan, last, outputs.get("archive", {}).get("target")),
    )


def _hosts(groups: Mapping[str, Sequence[str]]) -> set[str]:
    return {host for hosts in groups.values() for host in hosts}


def _other(plan: Plan, last: Manifest, target: str | None) -> list[str]:
    """Settings that differ."""
    pairs = {
        "cluster": (last.cluster, plan.cluster),
        "target": (target, plan.target),
        "epicli version": (last.epicli_version, plan.epicli_version),
    }
    return [
        f"{name}: {was or 'unknown'} → {now or 'unknown'}"
        for name, (was, now) in pairs.items()
        if was != now
    ]

"""A plan as the resource `coverage` declares it."""

from collections.abc import Sequence

from components.archive.manifest import Missing
from components.coverage import CoverageArgs, ExemptionInput, Uncovered
from program.exemptions import exemption_of
from program.options import Exemption
from program.plan import Plan


def coverage_of(plan: Plan) -> CoverageArgs:
    """What a plan saves of the inventory, and what it does not."""
    return CoverageArgs(
        cluster=plan.cluster,
        target=plan.target,
        services={service.name: list(service.hosts) for service in plan.services},
        missing=[uncovered(item, plan.settings.exempt) for item in plan.missing],
    )


def uncovered(item: Missing, exempt: Sequence[Exemption]) -> Uncovered:
    """Something that is not saved, with its exemption if it has one."""
    made = Uncovered(what=item.what, hosts=item.hosts, reason=item.reason)
    known = exemption_of(item, exempt)
    if known:
        made["exempt"] = ExemptionInput(
            owner=known.owner, reason=known.reason, until=known.until.isoformat()
        )
    return made

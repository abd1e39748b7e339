"""`epibackup drift`."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from components.errors import PolicyRefused
from components.storage.target import open_target
from program import output
from program.commands.backup import plan_for
from program.drift import (
    Difference,
    archive_differences,
    protection_differences,
    storage_differences,
)
from program.stack import BackupStack, engine

ORDER = ("drift", "unknown", "note")
STYLES = {"drift": "bold red", "unknown": "yellow"}


def drift(stack: str, flags: Mapping[str, Any], as_json: bool) -> None:
    """Tell what is not as the stack has made it, or as its last runs have told; changes nothing.

    Raises PolicyRefused if something has drifted.
    """
    plan = plan_for(stack, flags)
    pulumi = BackupStack(stack, engine(output.say))
    outputs = pulumi.outputs()
    target = open_target(plan.target, plan.settings.target_options())
    found = [
        *storage_differences(pulumi.drift()),
        *protection_differences(plan, outputs.get("posture")),
        *archive_differences(target, outputs.get("catalog") or [], plan.cluster),
    ]
    drifted = [item for item in found if item.level == "drift"]
    document = {"stack": stack, "differences": [item.model_dump() for item in found]}
    if not as_json:
        _print(found)
    if drifted:
        raise PolicyRefused(
            f"{len(drifted)} of what {stack} has made or stored has drifted: "
            + "; ".join(f"{item.what} {item.message}" for item in drifted[:5]),
            drifted[0].remedy,
            document,
        )
    if as_json:
        output.print_json(document)
        return
    output.say("nothing has drifted")


def _print(found: list[Difference]) -> None:
    if not found:
        return
    rows = output.table("what", "found", "what to do")
    for item in sorted(found, key=lambda item: ORDER.index(item.level)):
        style = STYLES.get(item.level, "")
        told = item.message if item.level == "drift" else f"{item.level}: {item.message}"
        rows.add_row(Text(item.what), Text(told, style=style), Text(item.remedy))
    output.console.print(rows)

"""What the policy pack cannot see, checked on the steps of a preview.

Policies look at resources as they will be. They do not see what is removed, nor which inputs are
secrets (pulumi-policy 1.21: `deserialize_properties`); the engine's steps tell both.
"""

import re
from collections.abc import Iterable

from components.errors import PolicyRefused
from program.preview import MANDATORY, Change, Preview, Violation

STORAGE = re.compile(
    r"aws:(s3|kms)/.*"
    r"|azure-native(_[\w.]+)?:(storage|keyvault)(/[\w.]+)?:.*"
    r"|epibackup:index:\w*Storage"
)
"""Resource types that hold backups, guard them, or can decrypt them."""

HOLDS_DATA = re.compile(
    r"aws:s3/bucket(V2)?:.*|aws:s3/bucketObject(v2)?:.*|aws:kms/key:.*"
    r"|azure-native(_[\w.]+)?:storage(/[\w.]+)?:(StorageAccount|FileShare|BlobContainer)"
    r"|azure-native(_[\w.]+)?:keyvault(/[\w.]+)?:(Vault|Key)"
)
"""Those that are gone with what they hold."""

REMOVING = re.compile(r"delete|delete-replaced|replace|create-replacement|discard-replaced|discard")

COMMAND = re.compile(r"command:(local|remote):Command")
SECRET = "[secret]"  # noqa: S105 - what the engine shows in place of a secret
SHOWN = ("create", "update", "delete")


def check_steps(preview: Preview) -> list[Violation]:
    """What is to be refused in a preview's steps."""
    found = [_removal(change) for change in _once(preview.changes)]
    found += [Violation("no-storage-removal", MANDATORY, error, "") for error in preview.errors]
    found += [
        Violation(
            "no-secret-in-command",
            MANDATORY,
            f"`{name}` of the Command {change.name} is made from a secret, and an error message "
            "would show it. Give the secret by a file on the host.",
            change.name,
        )
        for change in preview.changes
        if COMMAND.fullmatch(change.type)
        for name in SHOWN
        if SECRET in str(change.inputs.get(name, ""))
    ]
    return found


def _removal(change: Change) -> Violation:
    what = "replaced" if "repl" in change.op else "deleted"
    return Violation(
        "no-storage-removal",
        MANDATORY,
        f"{change.name} ({change.type}) would be {what}, and what it holds with it. Keep it as it "
        "is; to give it up for good and keep its data, take it out of the state first: "
        f"pulumi state delete '{change.urn}'.",
        change.name,
    )


def _once(changes: Iterable[Change]) -> list[Change]:
    """The removals of what holds data: a replacement has several steps."""
    removed = {
        change.urn: change
        for change in changes
        if HOLDS_DATA.fullmatch(change.type) and REMOVING.fullmatch(change.op)
    }
    return list(removed.values())


def storage_changes(preview: Preview) -> list[str]:
    """What would change in storage, a line each, in words."""
    lines = {}
    for change in preview.changes:
        if STORAGE.fullmatch(change.type):
            what = f": {', '.join(change.properties)}" if change.op == "update" else ""
            kind = change.type.rpartition(":")[2]
            lines[change.urn, change.op] = f"{change.op} {kind} {change.name}{what}"
    return list(lines.values())


def refuse(violations: Iterable[Violation], details: dict[str, object]) -> None:
    """Raise PolicyRefused if a mandatory policy is not kept.

    details: what `--json` prints beside the error.
    """
    broken = [found for found in violations if found.level == MANDATORY]
    if not broken:
        return
    policies = ", ".join(sorted({found.policy for found in broken}))
    count = f"{len(broken)} violation{'s' if len(broken) != 1 else ''}"
    raise PolicyRefused(
        f"refused by {policies} ({count})",
        "each is told above with what to do; docs/policy.md explains the policies",
        details,
    )

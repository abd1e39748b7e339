"""The catalog: one line a run, carried forward from update to update as a stack output.

The target is the truth; the catalog is what can be known without reading it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 1000
"""Entries kept; older ones are dropped from the list, never from the target."""


def entry_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """A run's entry, from the archive process's result."""
    manifest = result["manifest"]
    return {
        "run": manifest["run"],
        "key": result["key"],
        "bytes": result["bytes"],
        "sha256": result["sha256"],
        "status": manifest["status"],
        "services": {service["name"]: service["status"] for service in manifest["services"]},
        "missing": [item["what"] for item in manifest["missing"]],
        "encrypted": manifest["encryption"] is not None,
        "verified": result["verified"],
        "epibackup_version": manifest["epibackup_version"],
    }


def add_entry(
    catalog: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The catalog with a run's entry, newest first; the same archive is never there twice."""
    others = [dict(known) for known in catalog if known["key"] != entry["key"]]
    together = [dict(entry), *others]
    return sorted(together, key=lambda known: (known["run"], known["key"]), reverse=True)[:LARGEST]

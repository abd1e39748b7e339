"""The catalog: one line a run, carried forward from update to update as a stack output.

The target is the truth; the catalog is what can be known without reading it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from components.archive.manifest import Manifest

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


def entry_from(
    manifest: Manifest, key: str, size_bytes: int, sha256: str, verified: bool | None
) -> dict[str, Any]:
    """An archive's entry as it can be told from the target. verified: None if unknown."""
    document = manifest.model_dump(mode="json")
    return entry_of(
        {"key": key, "bytes": size_bytes, "sha256": sha256, "verified": verified}
        | {"manifest": document}
    )


def add_entry(
    catalog: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The catalog with a run's entry, newest first; the same archive is never there twice."""
    others = [dict(known) for known in catalog if known["key"] != entry["key"]]
    together = [dict(entry), *others]
    return sorted(together, key=lambda known: (known["run"], known["key"]), reverse=True)[:LARGEST]


def without(catalog: Sequence[Mapping[str, Any]], removed: Collection[str]) -> list[dict[str, Any]]:
    """The catalog without archives that were removed from the target."""
    return [dict(known) for known in catalog if known["key"] not in removed]


def verified_in(catalog: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Of which archives it is known whether they were read back."""
    return {
        known["key"]: known["verified"]
        for known in catalog
        if isinstance(known.get("verified"), bool)
    }

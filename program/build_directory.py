"""Reading an epicli build directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.errors import UsageError
from program.inventory import Inventory, read_inventory

LARGEST_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class BuildDirectory:
    """What epicli left about a cluster.

    cluster: its name. epicli_version: None where the directory does not tell.
    """

    path: Path
    cluster: str
    epicli_version: str | None
    inventory: Inventory
    warnings: list[str]


def read_build_directory(path: Path) -> BuildDirectory:
    """Read inventory and manifest. Older copies in `backup_<time>/`, which `epicli upgrade`
    leaves, are not looked into.

    Raises UsageError if there is no build directory or no inventory, or if they can't be read.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise UsageError(
            f"the build directory {path} {what}",
            "give the folder that epicli made, which holds the inventory: -b /…/build/CLUSTER",
        )
    inventory_path = path / "inventory"
    if not inventory_path.exists():
        inside = sorted(
            entry.parent for entry in path.glob("*/inventory") if "backup_" not in str(entry)
        )
        raise UsageError(
            f"there is no inventory in {path}",
            f"did you mean -b {inside[0]}?" if inside else "give the folder that epicli made",
        )
    inventory = read_inventory(inventory_path)
    warnings = list(inventory.warnings)
    cluster, version = path.resolve().name, None
    manifest = path / "manifest.yml"
    if manifest.is_file():
        cluster, version = _read_manifest(manifest, cluster)
    else:
        warnings.append(f"there is no {manifest}: the cluster is called {cluster} after its folder")
    return BuildDirectory(path, cluster, version, inventory, warnings)


class _ManifestLoader(yaml.SafeLoader):
    """Reads what it knows; a tag it does not know (`!vault`) is no value."""


def _no_value(loader: yaml.Loader, suffix: str, node: yaml.Node) -> None:
    del loader, suffix, node


_ManifestLoader.add_multi_constructor("!", _no_value)


def _read_manifest(path: Path, default_cluster: str) -> tuple[str, str | None]:
    """Cluster name and epicli version. Everything else in it, secrets among them, is dropped."""
    if path.stat().st_size > LARGEST_MANIFEST_BYTES:
        raise UsageError(f"{path} is too large to be an epicli manifest")
    try:
        with path.open(encoding="utf-8") as stream:
            documents: list[Any] = list(yaml.load_all(stream, _ManifestLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UsageError(f"{path}:{line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "epiphany-cluster":
            specification = document.get("specification") or {}
            version = document.get("version")
            name = specification.get("name") if isinstance(specification, dict) else None
            return str(name or default_cluster), str(version) if version else None
    return default_cluster, None

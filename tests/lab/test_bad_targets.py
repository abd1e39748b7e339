"""Targets that refuse, and archives that are not what they were."""

import json
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import Site
from tests.lab.product import Product, product

RUN = "20261122T013000Z"


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-targets") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A small file system of this machine at a path."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "epitest", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize(
    ("target", "message"), [("missing", "does not exist"), ("file", "is not a folder")]
)
def test_a_target_that_is_none_is_refused_before_anything_happens(
    epibackup: Product, site: Site, target: str, message: str
) -> None:
    (epibackup.target / "file").touch()
    error = epibackup.backup("-t", str(epibackup.target / target), code=8)["error"]
    assert message in error["message"]
    assert "mkdir -m 700" in error["hint"]
    assert not (epibackup.target / "missing").exists()


def test_a_target_that_cannot_be_written_is_refused_before_anything_happens(
    epibackup: Product, site: Site
) -> None:
    with mounted(epibackup.target, "ro"):
        error = epibackup.backup(code=8)["error"]
    assert "Read-only file system" in error["message"]
    assert error["hint"] == "mount it for writing"


def test_a_full_target_leaves_nothing_and_the_same_run_goes_on(
    epibackup: Product, site: Site
) -> None:
    good = epibackup.backup()["run"]
    with mounted(epibackup.target, "size=64k"):
        error = epibackup.backup("--run", RUN, code=8)["error"]
        assert "No space left on device" in error["message"] or "free" in error["message"]
        assert epibackup.archives() == []
    taken = snapshot_times(epibackup)
    assert len(taken) == 4, "the hosts should keep their snapshots"
    assert [entry["run"] for entry in epibackup.catalog()] == [good]
    done = epibackup.backup("--run", RUN)
    assert done["run"] == RUN
    assert done["status"] == "ok"


def snapshot_times(epibackup: Product) -> list[str]:
    """When each host's snapshot of the run was finished."""
    found = []
    for host in epibackup.cluster.hosts.values():
        find = ["find", f"/var/lib/epibackup/snapshots/{RUN}", "-name", "snapshot.json"]
        found += host.run([*find, "-printf", "%T@\n"], check=False).stdout.split()
    return found


def test_a_taken_name_is_not_overwritten(epibackup: Product, site: Site) -> None:
    name = f"epibackup_{site.cluster.definition.name}_{RUN}.zip"
    (epibackup.target / name).write_bytes(b"somebody's")
    done = epibackup.backup("--run", RUN)
    assert done["archive_key"] == name.replace(".zip", "_1.zip")
    assert (epibackup.target / name).read_bytes() == b"somebody's"


# -- archives -------------------------------------------------------------------------------------


def test_a_damaged_archive_is_listed_as_such_and_never_restored(
    epibackup: Product, clean_site: Site
) -> None:
    epibackup.backup()
    newest = epibackup.backup()
    path = epibackup.target / newest["archive_key"]
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("postgresql/postgresql1/shop.dump.zst")
    whole[member.header_offset + 200] ^= 1
    path.write_bytes(whole)

    before = clean_site.fingerprint()
    error = epibackup.restore(newest["run"], code=9)["error"]
    assert "shop.dump.zst" in error["message"]
    assert "is damaged" in error["message"]
    assert "nothing live was changed" in error["message"]
    assert clean_site.fingerprint() == before

    path.write_bytes(whole[: len(whole) // 2])
    listed = {run["run"]: run["status"] for run in epibackup.json("list")["runs"]}
    assert listed[newest["run"]] == "damaged"
    assert epibackup.json("show", newest["run"], code=9)["error"]["code"] == "verification_failed"
    # The newest good one is still found.
    assert epibackup.json("restore", "latest", "--dry-run")["run"] != newest["run"]


def test_an_archive_of_a_newer_format_is_refused(epibackup: Product, site: Site) -> None:
    done = epibackup.backup("--service", "haproxy")
    path = epibackup.target / done["archive_key"]
    with zipfile.ZipFile(path) as old:
        manifest = json.loads(old.read("manifest.json"))
    manifest.update(format=2, epibackup_version="9.9")
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("manifest.json", json.dumps(manifest))
    error = epibackup.json("show", done["run"], code=2)["error"]
    assert "format 2" in error["message"]
    assert "9.9" in error["hint"]

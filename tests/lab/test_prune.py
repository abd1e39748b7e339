"""Retention through the product: what goes, what stays, and what people are told before."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab import Site, faults
from tests.lab.product import Product, product


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-prune") as made:
        yield made


@pytest.fixture(scope="module")
def seed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good archive of all services, from which older ones are made."""
    with product(site.cluster, tmp_path_factory.mktemp("seed"), "test-prune-seed") as made:
        return made.target / str(made.backup()["archive_key"])


def days_ago(days: int, hour: int = 1) -> str:
    """A run of so many days ago."""
    made = datetime.now(UTC) - timedelta(days=days)
    return f"{made:%Y%m%d}T{hour:02}3000Z"


def give(
    epibackup: Product, seed: Path, run: str, change: Callable[[Any], None] | None = None
) -> str:
    """Put an archive on the target as if that run had made it; returns its name."""
    prefix = seed.name.rpartition("_")[0]
    path = epibackup.target / f"{prefix}_{run}.zip"
    with zipfile.ZipFile(seed) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(data)
                manifest["run"] = run
                if change:
                    change(manifest)
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return path.name


def incomplete(manifest: Any) -> None:
    manifest["status"] = "incomplete"
    manifest["services"][0]["status"] = "failed"


def of_another_cluster(manifest: Any) -> None:
    """One whose name in archives is the same: prod_1 and prod-1."""
    manifest["cluster"] = manifest["cluster"].replace("-", "_")


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """A file that not even root can remove."""
    subprocess.run(["chattr", "+i", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_good_run_removes_what_no_rule_keeps_and_nothing_else(
    epibackup: Product, seed: Path
) -> None:
    first = epibackup.backup("--service", "haproxy")
    late = give(epibackup, seed, days_ago(10, 15))
    early = give(epibackup, seed, days_ago(10))
    bad = give(epibackup, seed, days_ago(10, 20), incomplete)
    stands_in = give(epibackup, seed, days_ago(8), incomplete)
    older = give(epibackup, seed, days_ago(11))
    held = give(epibackup, seed, days_ago(12))
    namesake = give(epibackup, seed, days_ago(13), of_another_cluster)
    damaged = give(epibackup, seed, days_ago(14))
    (epibackup.target / damaged).write_bytes(b"PK, and no zip")
    foreign = ["notes.txt", older + ".md5", f"epibackup_elsewhere_{days_ago(15)}.zip"]
    for name in foreign:
        (epibackup.target / name).write_bytes(b"not ours")
    epibackup.json("hold", days_ago(12), "--reason", "audit 2026")
    assert f"{held}.hold" in epibackup.published()

    epibackup.configure(retention={"keep_daily": 2})
    done = epibackup.backup()
    newest = done["archive_key"]
    assert epibackup.published() == sorted(
        [newest, late, stands_in, held, f"{held}.hold", namesake, damaged, *foreign]
    )
    removed = {item["key"]: item["reasons"] for item in done["retention"]["removed"]}
    assert removed == {
        older: ["no rule keeps it"],
        early: ["no rule keeps it"],
        bad: ["incomplete; no rule keeps it"],
        first["archive_key"]: ["no rule keeps it"],
    }
    assert done["retention"]["problems"] == []
    assert list(done["retention"]["unknown"]) == [damaged]
    assert [entry["key"] for entry in epibackup.catalog()] == [newest]
    listed = epibackup.json("list")["runs"]
    assert newest in [run["key"] for run in listed]
    # Nobody has to wait for the next run to see that there is nothing more to remove.
    again = epibackup.json("prune", "--yes")
    assert again["removed"] == []
    assert {item["key"]: item["reasons"] for item in again["archives"]}[held] == [
        "held: audit 2026"
    ]


def test_an_incomplete_run_removes_nothing(epibackup: Product, seed: Path, site: Site) -> None:
    old = [give(epibackup, seed, days_ago(days)) for days in (3, 4)]
    epibackup.configure(retention={"keep_last": 1})
    with faults.unit_stopped(site.primary.host, "postgresql@15-main"):
        done = epibackup.backup(code=3)
        assert done["retention"]["removed"] == []
        assert done["retention"]["not_pruned"] == "the run is incomplete"
        by_pulumi = epibackup.pulumi("up", "--yes", "--skip-preview")
        assert by_pulumi.returncode != 0
    site.primary.wait_for_standby()
    assert set(old) < set(epibackup.published())
    # The outputs are those of the incomplete run: the gate comes after everything else.
    newest, _ = epibackup.catalog()
    assert newest["status"] == "incomplete"
    assert len(epibackup.published()) == 4


def test_pulumi_shows_what_would_go_and_its_update_removes_just_that(
    epibackup: Product, seed: Path
) -> None:
    stays, goes = give(epibackup, seed, days_ago(3)), give(epibackup, seed, days_ago(4))
    epibackup.configure(retention={"keep_last": 2})
    planned = epibackup.json("plan")["retention"]
    assert [item["key"] for item in planned["removes"]] == [goes]
    assert "if it is good: " + goes in epibackup.run("plan").stderr
    assert epibackup.pulumi("stack", "init").returncode == 0
    shown = epibackup.pulumi("preview")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"would be removed after this run, if it is good: {goes}" in shown.stdout
    assert "retention-prune" in shown.stdout
    assert stays not in shown.stdout
    steps = json.loads(epibackup.pulumi("preview", "--json").stdout)["steps"]
    (resource,) = [step for step in steps if step["urn"].endswith("index:Retention::retention")]
    assert resource["newState"]["inputs"] == {"policy": {"keep_last": 2}, "removes": [goes]}
    assert {stays, goes} <= set(epibackup.published()), "a preview has removed something"
    done = epibackup.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(epibackup.pulumi("stack", "output", "retention", "--json").stdout)
    assert [item["key"] for item in told["removed"]] == [goes]
    assert goes not in epibackup.published()
    assert stays in epibackup.published()


def test_a_preview_that_cannot_read_the_target_says_so_and_goes_on(epibackup: Product) -> None:
    epibackup.configure(retention={"keep_last": 2}, target=str(epibackup.target / "elsewhere"))
    assert epibackup.pulumi("stack", "init").returncode == 0
    shown = epibackup.pulumi("preview")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "what this run would remove is unknown: the target cannot be read" in shown.stdout
    assert "does not exist" in shown.stdout


def test_a_saved_plan_removes_what_it_shows(epibackup: Product, seed: Path) -> None:
    goes = give(epibackup, seed, days_ago(4))
    epibackup.configure(retention={"keep_last": 1})
    run = {"EPIBACKUP_RUN_ID": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"}
    assert epibackup.pulumi("stack", "init").returncode == 0
    plan = str(epibackup.target.parent / "plan.json")
    shown = epibackup.pulumi("preview", "--save-plan", plan, **run)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    more = give(epibackup, seed, days_ago(5))
    refused = epibackup.pulumi("up", "--yes", "--skip-preview", "--plan", plan, **run)
    assert refused.returncode != 0, "more would go than the plan shows"
    assert {goes, more} <= set(epibackup.published())
    (epibackup.target / more).unlink()
    done = epibackup.pulumi("up", "--yes", "--skip-preview", "--plan", plan, **run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert goes not in epibackup.published()


def test_what_cannot_be_removed_does_not_cost_the_run_its_archive(
    epibackup: Product, seed: Path
) -> None:
    goes = give(epibackup, seed, days_ago(4))
    epibackup.configure(retention={"keep_last": 1})
    with immutable(epibackup.target / goes):
        done = epibackup.backup()
        assert f"{goes} could not be removed" in done["retention"]["problems"][0]
        told = epibackup.run("backup")
        assert told.returncode == 0
        assert f"warning: {goes} could not be removed" in told.stderr
        assert f"removed: {done['archive_key']}" in told.stderr, "others go all the same"
    catalog = epibackup.catalog()
    assert len(catalog) == 1
    assert set(epibackup.published()) == {goes, catalog[0]["key"]}


def test_prune_shows_asks_and_removes(epibackup: Product, seed: Path) -> None:
    made = [epibackup.backup("--service", "haproxy")["archive_key"] for _ in range(2)]
    old = give(epibackup, seed, days_ago(4))
    error = epibackup.json("prune", code=2)["error"]
    assert "has no retention policy" in error["message"]
    assert "keep_daily" in error["hint"]

    epibackup.configure(retention={"keep_last": 1})
    dry = epibackup.run("prune", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "to remove: 1 archive" in dry.stderr
    assert "dry run: nothing was removed" in dry.stderr
    # The one with the database goes on: no other has it.
    shown = {item["key"]: item for item in epibackup.json("prune", "--dry-run")["archives"]}
    assert [key for key, item in shown.items() if not item["keep"]] == [made[0]]
    assert "last with postgresql" in shown[old]["reasons"]
    assert epibackup.json("prune", code=2)["error"]["hint"] == "add --yes"
    with read_only(epibackup.target):
        document = epibackup.json("prune", "--yes", code=8)
        assert "Read-only file system" in document["error"]["message"]
        assert document["removed"] == []
    assert set(epibackup.published()) == {*made, old}

    size = (epibackup.target / made[0]).stat().st_size
    done = epibackup.json("prune", "--yes")
    assert done["removed"] == [made[0]]
    assert done["freed_bytes"] == size
    assert epibackup.published() == sorted([made[1], old])
    assert [entry["key"] for entry in epibackup.catalog()] == [made[1]]
    # The stack works on with the catalog that was changed.
    epibackup.backup("--service", "haproxy")
    assert len(epibackup.catalog()) == 1


def test_two_prunes_at_once_do_no_harm(epibackup: Product, seed: Path) -> None:
    names = [give(epibackup, seed, days_ago(days)) for days in range(3, 23)]
    epibackup.configure(retention={"keep_last": 3})
    running = [epibackup.start("prune", "--yes") for _ in range(2)]
    for one in running:
        output, _ = one.communicate(timeout=300)
        assert one.returncode == 0, output
    assert epibackup.published() == sorted(names[:3])


def test_a_hold_is_seen_by_every_machine_and_ends_when_released(
    epibackup: Product, seed: Path
) -> None:
    older, newer = give(epibackup, seed, days_ago(4)), give(epibackup, seed, days_ago(3))
    shutil.copy(epibackup.target / older, epibackup.target / f"epibackup_other_{days_ago(4)}.zip")
    epibackup.configure(retention={"keep_last": 1})
    run = days_ago(4)
    assert epibackup.json("hold", run, code=2)["error"]["hint"]
    assert epibackup.json("hold", "20200101T000000Z", "--reason", "x", code=6)
    assert epibackup.json("hold", run, "--reason", "two\nlines", code=2)
    held = epibackup.json("hold", run, "--reason", "fire in room 3")
    assert held["keys"] == [older], "the other cluster's run of that time is held, too"
    taken = epibackup.json("hold", run, "--reason", "again", code=2)["error"]["message"]
    assert "is held already: fire in room 3" in taken
    (found,) = epibackup.json("hold")["holds"]
    assert found["key"] == older
    assert found["reason"] == "fire in room 3"
    assert "@" in found["by"]
    assert "fire in room 3" in epibackup.run("hold").stderr
    assert epibackup.json("prune", "--yes")["removed"] == []
    # Whatever is in the file, its name holds.
    (epibackup.target / f"{older}.hold").write_text("gone wrong")
    assert epibackup.json("prune", "--yes")["removed"] == []
    epibackup.json("hold", older, "--release")
    assert epibackup.json("hold")["holds"] == []
    assert epibackup.json("hold", run, "--release", code=6)
    assert epibackup.json("prune", "--yes")["removed"] == [older]
    assert newer in epibackup.published()


def test_a_lost_catalog_is_made_again_from_the_target(epibackup: Product, seed: Path) -> None:
    old = give(epibackup, seed, days_ago(4))
    made = epibackup.backup("--service", "haproxy")["archive_key"]
    before = epibackup.catalog()
    rebuilt = epibackup.json("catalog", "rebuild")
    assert rebuilt["added"] == [old]
    assert rebuilt["dropped"] == []
    catalog = epibackup.catalog()
    assert [entry["key"] for entry in catalog] == [made, old]
    assert catalog[0] == before[0], "what was known stays as it was"
    assert catalog[1]["verified"] is None, "nobody knows whether that one was read back"
    assert {**catalog[1], "verified": True}.keys() == before[0].keys()

    backend = epibackup.target.parent / "backend"
    lock = backend / f".pulumi/locks/organization/epibackup/{epibackup.stack}/lock.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = {"pid": 1, "username": "jane", "hostname": "elsewhere"}
    lock.write_text(json.dumps({**holder, "timestamp": "2026-11-22T01:30:00Z"}))
    assert "jane@elsewhere" in epibackup.json("catalog", "rebuild", code=7)["error"]["message"]
    shutil.rmtree(backend)
    backend.mkdir()
    (epibackup.target / old).write_bytes(b"damaged")
    lost = epibackup.json("catalog", "rebuild")
    assert lost["added"] == [made]
    assert list(lost["unreadable"]) == [old]
    newest = epibackup.backup("--service", "haproxy")["archive_key"]
    assert [entry["key"] for entry in epibackup.catalog()] == [newest, made]

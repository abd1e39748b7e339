"""Pruning a target: files as they are found there, and what changes while it goes on."""

import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.archive.manifest import Manifest
from components.errors import TargetUnreachable
from components.retention import holds
from components.retention.__main__ import prune
from components.retention.judging import Verdict
from components.retention.policy import Retention
from components.retention.pruning import Pruned, remove, verdicts_on
from components.retention.reading import Known
from components.retention.request import RetentionRequest
from components.storage.directory import Directory
from components.storage.options import TargetOptions

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEEP_ONE = Retention(keep_last=1)
OLD, MIDDLE, NEW = "20261101T013000Z", "20261110T013000Z", "20261120T013000Z"


class Locking(Directory):
    """A folder whose store locks some of its files, as an object store does."""

    def __init__(self, path: Path, until: Mapping[str, datetime], is_told: bool = True) -> None:
        super().__init__(str(path))
        self.until = until
        self.is_told = is_told
        self.asked: list[str] = []

    def delete(self, name: str) -> None:
        if name in self.until:
            self.is_told = True
            raise TargetUnreachable(f"{name} is protected by object lock")
        super().delete(name)

    def locked_until(self, name: str) -> datetime | None:
        self.asked.append(name)
        return self.until.get(name) if self.is_told else None


class Gone(Directory):
    """A folder whose server goes away when the first archive is to be removed."""

    is_gone = False

    def delete(self, name: str) -> None:
        self.is_gone = True
        raise TargetUnreachable(f"no answer while removing {name}")

    def names(self) -> list[str]:
        if self.is_gone:
            raise TargetUnreachable("no answer")
        return super().names()


def name_of(run: str) -> str:
    return f"epibackup_prod_{run}.zip"


def give(folder: Path, run: str, **changes: Any) -> str:
    """An archive with nothing but a manifest."""
    service = {"name": "postgresql", "status": "ok", "hosts": []}
    document = {
        "format": 1,
        "run": run,
        "cluster": "prod",
        "status": "ok",
        "started": NOW.isoformat(),
        "finished": NOW.isoformat(),
        "epibackup_version": "0",
        "services": [service],
        "missing": [],
        "inventory": {"postgresql": ["db1"]},
        **changes,
    }
    Manifest.model_validate(document)
    with zipfile.ZipFile(folder / name_of(run), "w") as archive:
        archive.writestr("manifest.json", json.dumps(document))
    return name_of(run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run in (OLD, MIDDLE, NEW):
        give(tmp_path, run)
    return tmp_path


def judged(
    target: Directory, verified: Mapping[str, bool] | None = None, as_of: datetime = NOW
) -> list[Verdict]:
    return verdicts_on(target, KEEP_ONE, Known("prod", as_of, verified or {}))


def reasons(verdicts: list[Verdict]) -> dict[str, str]:
    """Why each of those that stay does, by run."""
    return {one.entry.run: ", ".join(one.reasons) for one in verdicts if one.keep}


def removed(target: Directory, between: Callable[[], None] = lambda: None) -> Pruned:
    """Judge, let something happen, and remove."""
    verdicts = judged(target)
    between()
    return remove(target, verdicts, lambda _: None)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".hold")}


def test_the_oldest_goes_first_and_the_last_good_one_stays(folder: Path) -> None:
    done = removed(Directory(str(folder)))
    assert [item.run for item in done.removed] == [OLD, MIDDLE]
    assert left(folder) == {name_of(NEW)}
    assert done.freed_bytes > 0
    assert done.kept == 1


def test_what_the_store_locks_stays_and_is_no_problem(folder: Path) -> None:
    target = Locking(folder, {name_of(OLD): NOW + timedelta(days=30)})
    assert reasons(judged(target))[OLD] == "locked until 2026-12-22 12:00 UTC"
    done = removed(target)
    assert done.problems == []
    assert left(folder) == {name_of(OLD), name_of(NEW)}
    assert name_of(NEW) not in target.asked, "a lock was asked for that nobody needs to know"


def test_a_lock_that_only_the_removal_tells_of_is_no_problem_either(folder: Path) -> None:
    until = datetime.now(UTC) + timedelta(days=30)
    done = removed(Locking(folder, {name_of(OLD): until}, is_told=False))
    assert done.problems == []
    assert [item.run for item in done.removed] == [MIDDLE]


def test_a_refusal_without_a_lock_is_a_problem_and_no_reason_to_keep_others(folder: Path) -> None:
    expired = datetime.now(UTC) - timedelta(days=30)
    done = removed(Locking(folder, {name_of(OLD): expired}))
    (problem,) = done.problems
    assert problem.startswith(f"{name_of(OLD)} could not be removed: ")
    assert left(folder) == {name_of(OLD), name_of(NEW)}


def test_a_target_that_goes_away_ends_it_at_once(folder: Path) -> None:
    mounted = folder / "mounted"
    mounted.mkdir()
    for run in (OLD, MIDDLE, NEW):
        give(mounted, run)
    done = removed(Gone(str(mounted)), lambda: None)
    assert len(done.problems) == 1
    assert left(mounted) == {name_of(OLD), name_of(MIDDLE), name_of(NEW)}


def test_what_is_held_replaced_or_gone_since_it_was_judged_is_left_alone(folder: Path) -> None:
    target = Directory(str(folder))

    def happen() -> None:
        holds.hold(target, name_of(OLD), "just now", "me", NOW)
        (folder / name_of(MIDDLE)).write_bytes(b"somebody else's")

    done = removed(target, happen)
    assert done.removed == []
    assert done.problems == []
    assert left(folder) == {name_of(OLD), name_of(MIDDLE), name_of(NEW)}
    holds.release(target, name_of(OLD))
    again = removed(target, lambda: (folder / name_of(OLD)).unlink())
    assert again.removed == []
    assert again.problems == []


def encrypted(path: Path) -> None:
    """A zip whose manifest wants a password."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)


def deep(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", "[" * 100_000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_run(path: Path) -> None:
    path.write_bytes((path.parent / name_of(NEW)).read_bytes())


def newer_format(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", '{"format": 2}')


@pytest.mark.parametrize("spoil", [encrypted, deep, empty, of_another_run, newer_format])
def test_what_cannot_be_read_is_unknown_and_stays(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder / name_of(OLD))
    done = removed(Directory(str(folder)))
    assert left(folder) == {name_of(OLD), name_of(NEW)}
    assert list(done.unknown) == [name_of(OLD)]
    assert done.unknown[name_of(OLD)]


def test_names_that_are_not_ours_are_not_even_looked_at(folder: Path) -> None:
    names = ["notes.txt", "epibackup_prod_20261399T000000Z.zip", "epibackup_prod.zip", "x.hold"]
    for name in names:
        (folder / name).touch()
    assert len(judged(Directory(str(folder)))) == 3


def test_an_archive_that_nobody_knows_to_be_read_back_counts_after_a_day(folder: Path) -> None:
    """It may be another machine's that is being read back, and goes if that fails."""
    target = Directory(str(folder))
    young = datetime(2026, 11, 20, 6, tzinfo=UTC)
    assert reasons(judged(target, as_of=young)) == {
        NEW: "newer than the last good",
        MIDDLE: "last good, last 1",
    }
    assert list(reasons(judged(target, {name_of(NEW): True}, young))) == [NEW]
    assert list(reasons(judged(target, {name_of(NEW): False}))) == [NEW, MIDDLE]
    assert list(reasons(judged(target))) == [NEW]


# -- the process ----------------------------------------------------------------------------------


def asked(folder: Path, **changes: Any) -> Pruned:
    values = {
        "run": NEW,
        "cluster": "prod",
        "target": str(folder),
        "target_options": TargetOptions(),
        "policy": KEEP_ONE,
        "verified": {name_of(NEW): True},
        "not_pruned": "",
        **changes,
    }
    return prune(RetentionRequest.model_validate(values), lambda _: None)


def test_the_process_removes_for_a_good_run_and_only_for_one(folder: Path) -> None:
    assert asked(folder, not_pruned="the run is incomplete").not_pruned
    assert len(left(folder)) == 3
    assert asked(folder, cluster="other").removed == []
    assert [item.run for item in asked(folder).removed] == [OLD, MIDDLE]


def test_the_process_touches_nothing_that_is_newer_than_its_run(folder: Path) -> None:
    done = asked(folder, run=MIDDLE, verified={name_of(MIDDLE): True})
    assert [item.run for item in done.removed] == [OLD]
    assert left(folder) == {name_of(MIDDLE), name_of(NEW)}


def test_a_target_that_is_gone_is_told_and_costs_nothing(tmp_path: Path) -> None:
    done = asked(tmp_path / "none")
    assert done.removed == []
    assert done.problems[0].startswith("nothing was removed: the target")

"""Restored files take the place of live ones, and the old ones come back if anything fails."""

import os
from pathlib import Path

import pytest

from host.errors import HostError
from host.meeting import Others
from host.service import Step, run_steps
from host.swap import Swap, put_aside, recover, same, unfinished

RUN = "20261122T013000Z"


class Site:
    """Live files, staged files and a restore's folder, all below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = root / "live"
        self.folder = root / "restore"
        self.staged = self.folder / "files"
        for path in (self.live, self.staged / str(self.live).lstrip("/")):
            path.mkdir(parents=True)

    def stage(self, name: str, text: str) -> None:
        path = self.staged / str(self.live).lstrip("/") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def put(self, name: str, text: str) -> Path:
        path = self.live / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def swap(self, *names: str) -> Swap:
        paths = [str(self.live / name) for name in names]
        return Swap(str(self.folder), str(self.staged), paths, RUN)

    def contents(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.live)): path.read_text()
            for path in sorted(self.live.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_only_what_differs_is_replaced_and_the_old_stays_beside(site: Site) -> None:
    site.put("same", "one")
    site.put("other/a", "old")
    site.stage("same", "one")
    site.stage("other/a", "new")
    swap = site.swap("same", "other")
    swap.prepare()
    swap.put()
    assert site.contents() == {
        "same": "one",
        "other/a": "new",
        f"other.before-{RUN}/a": "old",
    }
    assert swap.kept() == [str(site.live / f"other.before-{RUN}")]
    assert put_aside([str(site.live / "other")]) == [f"{site.live}/other.before-{RUN}"]


def test_back_leaves_what_was_there_and_nothing_else(site: Site) -> None:
    site.put("old", "old")
    site.stage("old", "new")
    site.stage("absent", "new")
    before = site.contents()
    swap = site.swap("old", "absent")
    swap.prepare()
    swap.put()
    assert site.contents()["absent"] == "new"
    swap.back()
    swap.back()
    assert site.contents() == before


def test_back_before_put_removes_only_the_copies(site: Site) -> None:
    site.put("old", "old")
    site.stage("old", "new")
    before = site.contents()
    swap = site.swap("old")
    swap.prepare()
    assert len(site.contents()) == 2
    swap.back()
    assert site.contents() == before


def test_a_restore_killed_between_two_renames_is_undone_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        site.put(name, "old")
        site.stage(name, "new")
    before = site.contents()
    swap = site.swap("a", "b", "c")
    swap.prepare()
    renames: list[str] = []
    rename = os.rename

    def killed(source: str, target: str) -> None:
        if len(renames) == 5:
            raise KeyboardInterrupt
        renames.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        swap.put()
    monkeypatch.undo()
    assert site.contents() != before
    assert recover(str(site.folder)) == [str(site.live / name) for name in ("a", "b", "c")]
    assert site.contents() == before
    assert unfinished(str(site.folder)) == []


def test_a_run_that_was_restored_before_is_refused_and_nothing_is_touched(site: Site) -> None:
    site.put("old", "live")
    site.put(f"old.before-{RUN}", "older")
    site.stage("old", "new")
    before = site.contents()
    with pytest.raises(HostError, match="restored before"):
        site.swap("old").prepare()
    assert site.contents() == before


@pytest.mark.parametrize(
    ("live", "saved", "equal"),
    [("one", "one", True), ("one", "two", False), ("one", None, False), (None, "one", False)],
)
def test_files_are_the_same_by_what_they_hold(
    tmp_path: Path, live: str | None, saved: str | None, equal: bool
) -> None:
    for name, text in (("live", live), ("saved", saved)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert same(str(tmp_path / "live"), str(tmp_path / "saved")) is equal


def test_a_link_is_not_the_same_as_the_file_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert not same(str(tmp_path / "file"), str(tmp_path / "link"))


def test_when_a_step_fails_it_and_those_before_it_are_undone_last_first() -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("three")
        raise HostError("three fails")

    def failing_undo() -> None:
        done.append("undo two")
        raise HostError("two cannot be undone")

    steps = [
        Step("one", lambda: done.append("one"), lambda: done.append("undo one")),
        Step("two", lambda: done.append("two"), failing_undo),
        Step("three", fail, lambda: done.append("undo three")),
        Step("four", lambda: done.append("four"), lambda: done.append("undo four")),
    ]
    said: list[str] = []
    with pytest.raises(HostError, match="three fails"):
        run_steps(steps, said.append, Others())
    assert done == ["one", "two", "three", "undo three", "undo two", "undo one"]
    assert "that failed: two cannot be undone" in said

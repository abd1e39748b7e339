"""`CopyToRemote` and `CopyFile`: what arrives where, and when it is copied again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi import Archive, Asset, FileArchive, FileAsset, StringAsset

from tests.engine.support.projects import Run
from tests.engine.support.resources import CommandProject, Resource
from tests.engine.support.sshd import Keys, Sshd, connection_to, run_sshd

Copy = Callable[..., Resource]
BYTES = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def copy(connection: dict[str, Any]) -> Copy:
    """Describes a `CopyToRemote` to this machine."""

    def describe(name: str, source: Asset | Archive, target: Path, **inputs: Any) -> Resource:
        given = {"connection": connection, "source": source, "remote_path": str(target), **inputs}
        return Resource(name, "copy", given)

    return describe


@pytest.fixture(scope="module")
def tree(folder: Path) -> Path:
    """A folder with files in it."""
    tree = folder / "tree"
    (tree / "below" / "deep").mkdir(parents=True)
    (tree / "top").write_text("top")
    (tree / "below" / "deep" / "leaf").write_bytes(BYTES)
    (tree / "link").symlink_to("top")
    return tree


@pytest.fixture(scope="module")
def run(shared: CommandProject, copy: Copy, folder: Path, tree: Path) -> Run:
    """One update that copies to places that exist, that do not, and that cannot be written."""
    exists = folder / "exists"
    (exists / "tree").mkdir(parents=True)
    (exists / "tree" / "kept").write_text("kept")
    (exists / "tree" / "top").write_text("old")
    blocked = folder / "blocked"
    blocked.write_text("")
    return shared.up_with(
        copy("file", FileAsset(str(tree / "top")), folder / "new" / "a" / "renamed"),
        copy("text", StringAsset("grüße\n"), folder / "new" / "b" / "text"),
        copy("folder", FileArchive(str(tree)), folder / "new" / "c"),
        copy("into", FileAsset(str(tree / "top")), exists),
        copy("over", FileArchive(str(tree)), exists),
        copy("blocked-text", StringAsset("x"), blocked / "below"),
        copy("blocked-folder", FileArchive(str(tree)), blocked),
        copy("folder-there", StringAsset("x"), folder),
        flags=("--continue-on-error",),
    ).failed()


def test_a_file_a_text_and_a_folder_are_copied_with_the_parents_that_are_missing(
    run: Run, folder: Path
) -> None:
    there = folder / "new"
    assert (there / "a" / "renamed").read_text() == "top"
    assert (there / "b" / "text").read_text() == "grüße\n"
    assert (there / "c" / "tree" / "below" / "deep" / "leaf").read_bytes() == BYTES
    assert (there / "c" / "tree" / "link").read_text() == "top"


def test_into_a_folder_that_exists_things_go_under_their_own_names(run: Run, folder: Path) -> None:
    there = folder / "exists"
    assert (there / "top").read_text() == "top"
    assert (there / "tree" / "top").read_text() == "top"
    assert (there / "tree" / "kept").read_text() == "kept"


def test_a_target_that_cannot_be_written_is_an_error_with_its_path(run: Run, folder: Path) -> None:
    assert str(folder / "blocked") in run.errors("blocked-text")
    assert str(folder / "blocked") in run.errors("blocked-folder")
    assert str(folder) in run.errors("folder-there")


def test_things_are_copied_again_only_when_their_content_target_or_triggers_change(
    commands: CommandProject, copy: Copy, sshd: Sshd, keys: Keys, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    other = connection_to(sshd, private_key=keys.private("rsa"))

    def up(number: int, **inputs: Any) -> dict[str, str]:
        run = commands.up_with(
            copy("content", FileAsset(str(source)), tmp_path / "content"),
            copy("target", StringAsset("text"), tmp_path / f"target-{number}"),
            copy("triggers", StringAsset("text"), tmp_path / "triggers", triggers=[number]),
            copy("connection", StringAsset("text"), tmp_path / "connection", **inputs),
        ).succeeded()
        return run.operations()

    names = ("content", "target-1", "triggers", "connection")
    source.write_text("one")
    up(1)
    for name in names:
        (tmp_path / name).write_text("changed there")
    source.touch()
    operations = up(1)
    assert [operations[name] for name in ("content", "target", "triggers")] == ["same"] * 3
    assert all((tmp_path / name).read_text() == "changed there" for name in names)

    source.write_text("two")
    operations = up(2, connection=other)
    assert [operations[name] for name in ("content", "target")] == ["update"] * 2
    assert (tmp_path / "content").read_text() == "two"
    assert (tmp_path / "target-2").read_text() == "text"
    assert (tmp_path / "triggers").read_text() == "text"
    # Neither another connection nor the move of a target touches what lies there.
    assert (tmp_path / "connection").read_text() == "changed there"
    assert (tmp_path / "target-1").read_text() == "changed there"

    commands.destroy().succeeded()
    assert (tmp_path / "content").read_text() == "two"


def test_the_deprecated_copy_file_copies_and_is_replaced_by_each_change(
    commands: CommandProject, connection: dict[str, Any], tree: Path, tmp_path: Path
) -> None:
    def copy(target: Path) -> Resource:
        inputs = {"connection": connection, "local_path": str(tree / "top")}
        return Resource("c", "copy_file", {**inputs, "remote_path": str(target)})

    commands.up_with(copy(tmp_path / "one")).succeeded()
    run = commands.up_with(copy(tmp_path / "two")).succeeded()
    assert "remotePath" in run.differences("c")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "top"


def test_files_are_copied_over_a_connection_that_is_full_of_commands(
    commands: CommandProject, keys: Keys, copy: Copy, tmp_path: Path
) -> None:
    with run_sshd(tmp_path / "server", keys, "MaxSessions 1") as server:
        connection = connection_to(server)
        slow = {"connection": connection, "create": "sleep 1"}
        commands.up_with(
            Resource("slow", "remote", slow),
            copy("a", StringAsset("a"), tmp_path / "a", connection=connection),
            copy("b", StringAsset("b"), tmp_path / "b", connection=connection),
        ).succeeded()
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "ab"

"""`CopyToRemote` and `CopyFile`: what arrives where, and when it is copied again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi import Archive, Asset, FileArchive, FileAsset, StringAsset

from tests.engine.support.resources import CommandProject, Resource
from tests.engine.support.sshd import Keys, Sshd, connection_to, run_sshd

Copy = Callable[..., Resource]


@pytest.fixture
def copy(connection: dict[str, Any]) -> Copy:
    """Describes a `CopyToRemote` to this machine."""

    def describe(name: str, source: Asset | Archive, target: Path, **inputs: Any) -> Resource:
        given = {"connection": connection, "source": source, "remote_path": str(target), **inputs}
        return Resource(name, "copy", given)

    return describe


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with files in it."""
    folder = tmp_path / "tree"
    (folder / "below" / "deep").mkdir(parents=True)
    (folder / "top").write_text("top")
    (folder / "below" / "deep" / "leaf").write_bytes(bytes(range(256)) * 1000)
    (folder / "link").symlink_to("top")
    return folder


def test_a_file_a_text_and_a_folder_are_copied_with_the_parents_that_are_missing(
    commands: CommandProject, copy: Copy, tree: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    commands.up_with(
        copy("file", FileAsset(str(tree / "top")), there / "a" / "renamed"),
        copy("text", StringAsset("grüße\n"), there / "b" / "text"),
        copy("folder", FileArchive(str(tree)), there / "c"),
    ).succeeded()
    assert (there / "a" / "renamed").read_text() == "top"
    assert (there / "b" / "text").read_text() == "grüße\n"
    copied = there / "c" / "tree"
    assert (copied / "below" / "deep" / "leaf").read_bytes() == bytes(range(256)) * 1000
    assert (copied / "link").read_text() == "top"


def test_into_a_folder_that_exists_things_go_under_their_own_names(
    commands: CommandProject, copy: Copy, tree: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    (there / "tree").mkdir(parents=True)
    (there / "tree" / "kept").write_text("kept")
    (there / "tree" / "top").write_text("old")
    commands.up_with(
        copy("file", FileAsset(str(tree / "top")), there),
        copy("folder", FileArchive(str(tree)), there),
    ).succeeded()
    assert (there / "top").read_text() == "top"
    assert (there / "tree" / "top").read_text() == "top"
    assert (there / "tree" / "kept").read_text() == "kept"


def test_a_file_is_copied_again_only_when_its_content_or_its_target_changes(
    commands: CommandProject, copy: Copy, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("one")

    def up(path: Path, **inputs: Any) -> str:
        run = commands.up_with(copy("file", FileAsset(str(source)), path, **inputs)).succeeded()
        return run.operations()["file"]

    up(target)
    target.write_text("changed there")
    assert up(target) == "same"
    assert target.read_text() == "changed there"

    source.touch()
    assert up(target) == "same"

    source.write_text("two")
    assert up(target) == "update"
    assert target.read_text() == "two"

    moved = tmp_path / "elsewhere"
    assert up(moved) == "update"
    assert moved.read_text() == "two"
    assert target.exists()


def test_another_connection_alone_copies_nothing(
    commands: CommandProject, copy: Copy, sshd: Sshd, keys: Keys, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    commands.up_with(copy("text", StringAsset("one"), target)).succeeded()
    target.write_text("changed there")
    other = connection_to(sshd, private_key=keys.private("rsa"))
    commands.up_with(copy("text", StringAsset("one"), target, connection=other)).succeeded()
    assert target.read_text() == "changed there"


def test_new_triggers_copy_again_and_deleting_leaves_the_copy(
    commands: CommandProject, copy: Copy, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    commands.up_with(copy("text", StringAsset("one"), target, triggers=[1])).succeeded()
    target.write_text("changed there")
    run = commands.up_with(copy("text", StringAsset("one"), target, triggers=[2])).succeeded()
    assert "replace" in " ".join(run.operations().values()) + run.text
    assert target.read_text() == "one"
    commands.destroy().succeeded()
    assert target.read_text() == "one"


def test_a_target_that_cannot_be_written_is_an_error_with_its_path(
    commands: CommandProject, copy: Copy, tree: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = commands.up_with(
        copy("text", StringAsset("x"), blocked / "below"),
        copy("folder", FileArchive(str(tree)), blocked),
        copy("empty", StringAsset("x"), tmp_path),
        flags=("--continue-on-error",),
    ).failed()
    assert str(blocked) in run.errors("text")
    assert str(blocked) in run.errors("folder")
    assert str(tmp_path) in run.errors("empty")


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

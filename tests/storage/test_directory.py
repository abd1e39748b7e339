"""A folder made by Pulumi."""

import os
from pathlib import Path

import pytest

from tests.engine.support.projects import Project
from tests.storage.conftest import PROGRAM


@pytest.fixture
def path(project: Project, tmp_path: Path) -> Path:
    """Where the folder goes; the project makes it."""
    module = "components.storage.provision.directory"
    project.write(PROGRAM.format(module=module, component="DirectoryStorage"))
    path = tmp_path / "mnt" / "it's here"
    (project.folder / "args.json").write_text(f'{{"path": "{path}"}}')
    return path


def test_a_folder_is_made_for_its_owner_once_and_never_removed(
    project: Project, path: Path
) -> None:
    project.up().succeeded()
    assert path.stat().st_mode & 0o777 == 0o700
    assert project.exports()["location"] == str(path)
    (path / "archive.zip").write_bytes(b"data")
    project.up("--expect-no-changes").succeeded()
    project.destroy().succeeded()
    assert (path / "archive.zip").read_bytes() == b"data"
    # A folder that is there is taken as it is.
    project.up().succeeded()
    assert (path / "archive.zip").read_bytes() == b"data"


def test_a_folder_that_others_can_use_is_refused(project: Project, path: Path) -> None:
    path.mkdir(parents=True, mode=0o755)
    path.chmod(0o755)
    run = project.up().failed()
    assert f"chmod 700 {path}" in run.text
    path.chmod(0o700)
    os.chown(path, 12345, -1)
    assert "belongs to the user 12345" in project.up().failed().text

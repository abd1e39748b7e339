"""NFS servers for the tests of the target; fixtures that a test file imports."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.storage.options import NfsOptions, TargetOptions
from components.storage.target import Target, open_target
from lab.services.faulty_mount import FaultyMount, require_fuse
from lab.services.nfs import NfsServer, require_nfs_server


@pytest.fixture(scope="module")
def installed() -> None:
    require_nfs_server(print)


@pytest.fixture(scope="module")
def shared(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    """A server for tests that do nothing to it; they leave its export empty."""
    folder = tmp_path_factory.mktemp("nfs")
    with NfsServer(folder / "server", folder / "export") as running:
        yield running


@pytest.fixture
def server(shared: NfsServer) -> Iterator[NfsServer]:
    yield shared
    for path in shared.export.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def own(installed: None, tmp_path: Path) -> Iterator[Callable[..., NfsServer]]:
    """Makes servers for one test, with settings of their own."""
    made: list[NfsServer] = []

    def make(*settings: str, **options: Any) -> NfsServer:
        folder = tmp_path / f"server{len(made)}"
        export = options.pop("export", tmp_path / f"export{len(made)}")
        made.append(NfsServer(folder, export, settings, **options))
        made[-1].start()
        return made[-1]

    yield make
    for running in made:
        running.kill()


def options_for(server: NfsServer, **options: Any) -> TargetOptions:
    return TargetOptions(nfs=NfsOptions(port=server.port, mount_port=server.mount_port, **options))


def target_on(server: NfsServer, **options: Any) -> Target:
    return open_target(server.location, options_for(server, **options))


@pytest.fixture
def faulty(installed: None, tmp_path: Path) -> Iterator[FaultyMount]:
    """A disk for a server that fails on request."""
    require_fuse(print)
    with FaultyMount(tmp_path / "disk") as mounted:
        yield mounted

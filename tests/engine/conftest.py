"""Fixtures: the engine (built once), an sshd, and projects."""

import os
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.selection import FORCE_VARIABLE
from tests.engine.support.environments import borrow_packages
from tests.engine.support.projects import Project
from tests.engine.support.resources import CommandProject, ProgramServer, Resource
from tests.engine.support.sshd import Keys, Sshd, connection_to, install_openssh, run_sshd

OTHER_PROVIDER = os.environ.get("EPIBACKUP_TEST_COMMAND_PROVIDER", "")
"""A folder with another `pulumi-resource-command`, to put it through the same suite."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "better(reason): not expected of another provider than the embedded one"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if OTHER_PROVIDER and (marker := item.get_closest_marker("better")):
            item.add_marker(pytest.mark.xfail(reason=marker.args[0], run=False))


@pytest.fixture(scope="session")
def embedded_engine() -> engine.Engine:
    """The embedded engine; it is built if it is not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FORCE_VARIABLE, "embedded")
        return engine.obtain(print)


@pytest.fixture(scope="session")
def engine_environment(embedded_engine: engine.Engine) -> dict[str, str]:
    """The environment for the CLI, with the provider that is to be tested."""
    environment = {**os.environ, **embedded_engine.environment()}
    if OTHER_PROVIDER:
        environment["PATH"] = os.pathsep.join((OTHER_PROVIDER, environment["PATH"]))
    # Whatever agent the person who runs the tests has, it is not theirs to use.
    environment.pop("SSH_AUTH_SOCK", None)
    return environment


@pytest.fixture
def project(
    tmp_path: Path, embedded_engine: engine.Engine, engine_environment: dict[str, str]
) -> Project:
    """An empty project."""
    return Project(tmp_path / "project", engine_environment, embedded_engine.pulumi)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own, which borrows the packages of this one."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place, symlinks=True)
    borrow_packages(place)
    return place


@pytest.fixture(scope="session")
def programs() -> Iterator[ProgramServer]:
    """Serves programs to CLIs."""
    server = ProgramServer()
    yield server
    server.close()


MakeCommands = Callable[[Path], CommandProject]


@pytest.fixture(scope="session")
def make_commands(
    embedded_engine: engine.Engine, engine_environment: dict[str, str], programs: ProgramServer
) -> MakeCommands:
    """Makes a project for resources of the `command` provider in a folder."""

    def make(folder: Path) -> CommandProject:
        pulumi = embedded_engine.pulumi
        return CommandProject(folder / "commands", engine_environment, pulumi, programs)

    return make


@pytest.fixture
def commands(tmp_path: Path, make_commands: MakeCommands) -> CommandProject:
    """A project for resources of the `command` provider."""
    return make_commands(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of a file."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared(folder: Path, make_commands: MakeCommands) -> CommandProject:
    """A project whose runs are looked at by several tests of a file; a run takes a second."""
    return make_commands(folder)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of a client."""
    install_openssh()
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def sshd(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An SSH server on this machine."""
    place = tmp_path_factory.mktemp("sshd") / "server"
    with run_sshd(place, keys, "AcceptEnv ACCEPTED") as server:
        yield server


@pytest.fixture(scope="session")
def connection(sshd: Sshd) -> dict[str, Any]:
    """The input `connection` for that server."""
    return connection_to(sshd)


@pytest.fixture(scope="session")
def remote(connection: dict[str, Any]) -> Callable[..., Resource]:
    """Describes a `command:remote:Command` on that server, that comes after others."""

    def describe(name: str, *after: str, **inputs: Any) -> Resource:
        return Resource(name, "remote", {"connection": connection, **inputs}, list(after))

    return describe

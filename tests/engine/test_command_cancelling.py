"""What is left when an update is interrupted, or when the CLI is killed."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.support.projects import interrupt
from tests.engine.support.resources import CommandProject, Resource, local
from tests.engine.support.sshd import Sshd, wait_until

Describe = Callable[..., Resource]
SECONDS = 15


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A file that a command makes when it has started."""
    return tmp_path / "started"


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not collected yet does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def descendants(process: int) -> set[int]:
    """Return the processes that a process has started, and those that they have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    newest = {process}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest}
        found |= newest
    return found


@pytest.fixture
def up(commands: CommandProject) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts an update, which is ended with the test whatever happens."""
    processes: list[subprocess.Popen[str]] = []

    def start(*resources: Resource) -> "subprocess.Popen[str]":
        processes.append(commands.start_with(*resources))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


Up = Callable[..., "subprocess.Popen[str]"]


def test_after_an_interrupt_a_remote_command_finishes_and_is_recorded(
    commands: CommandProject, remote: Describe, started: Path, up: Up
) -> None:
    process = up(
        remote("slow", create=f"touch {started}; sleep 3; echo finished"),
        remote("next", "slow", create="true"),
    )
    wait_until(started.exists, SECONDS)
    interrupt(process)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "canceled" in text
    assert "Traceback" not in text
    assert commands.outputs("slow")["stdout"] == "finished"
    assert not commands.has("next")
    assert commands.pending() == []


def test_after_an_interrupt_a_local_command_is_ended_with_all_that_it_started(
    commands: CommandProject, started: Path, up: Up
) -> None:
    script = f"sleep 60 & echo $! > {started}.new; mv {started}.new {started}; sleep 60; true"
    process = up(local("slow", create=script))
    wait_until(started.exists, SECONDS)
    interrupt(process)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "signal: " in text
    wait_until(lambda: not is_alive(int(started.read_text())), SECONDS)


@pytest.mark.better("the official provider kills at once")
def test_after_an_interrupt_a_local_command_can_clean_up(
    commands: CommandProject, started: Path, up: Up
) -> None:
    script = (
        f"trap 'sleep 0.5; echo tidy > {started}; exit 3' TERM; touch {started}; sleep 60 & wait"
    )
    process = up(local("slow", create=script))
    wait_until(started.exists, SECONDS)
    interrupt(process)
    process.communicate(timeout=60)
    assert started.read_text() == "tidy\n"


def test_a_second_interrupt_ends_at_once_and_leaves_a_pending_operation(
    commands: CommandProject, remote: Describe, started: Path, up: Up
) -> None:
    process = up(remote("slow", create=f"touch {started}; sleep 30"))
    wait_until(started.exists, SECONDS)
    interrupt(process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=2)
    interrupt(process)
    text, _ = process.communicate(timeout=SECONDS)
    assert process.returncode != 0, text
    assert commands.pending() == ["creating"]


@pytest.mark.better("the official provider dials on, and lives on when the CLI is killed")
def test_an_interrupt_ends_dialling(commands: CommandProject, remote: Describe, up: Up) -> None:
    dead = {"host": "192.0.2.1", "dial_error_limit": -1, "per_dial_timeout": 30, "password": "x"}
    process = up(
        local("first", create="true"), remote("dead", "first", connection=dead, create="x")
    )
    wait_until(lambda: "dead" in commands.result(0, "").operations(), SECONDS)
    interrupt(process)
    text, _ = process.communicate(timeout=SECONDS)
    assert "canceled" in text


@pytest.mark.better("the official provider lives on for more than a minute")
def test_when_the_cli_is_killed_plugins_children_and_connections_are_gone_in_seconds(
    commands: CommandProject, remote: Describe, sshd: Sshd, started: Path, up: Up
) -> None:
    process = up(
        remote("remote", create=f"touch {started}.remote; sleep 60"),
        local("local", create=f"touch {started}.local; sleep 61 & sleep 62"),
        local("stubborn", create=f"trap '' TERM; touch {started}.stubborn; sleep 63; sleep 64"),
    )
    names = ("remote", "local", "stubborn")
    wait_until(lambda: all(Path(f"{started}.{name}").exists() for name in names), SECONDS)
    family = descendants(process.pid)
    assert len(family) >= 5
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)), SECONDS)
    wait_until(lambda: sshd.open_connections() == 0, SECONDS)


@pytest.mark.better("the official provider's commands live on without it")
def test_when_the_provider_is_killed_its_local_commands_end(
    commands: CommandProject, started: Path, up: Up
) -> None:
    process = up(local("slow", create=f"touch {started}; sleep 61 & sleep 62"))
    wait_until(started.exists, SECONDS)
    provider = next(
        child for child in descendants(process.pid)
        if b"command_provider" in Path(f"/proc/{child}/cmdline").read_bytes()
    )  # fmt: skip
    family = descendants(provider)
    os.kill(provider, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, family)), SECONDS)
    process.communicate(timeout=60)
    assert process.returncode != 0


def test_the_next_update_after_a_killed_one_works_when_the_lock_is_removed(
    commands: CommandProject, remote: Describe, started: Path, up: Up
) -> None:
    process = up(remote("slow", create=f"touch {started}; sleep 5"))
    wait_until(started.exists, SECONDS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "locked" in commands.up().failed().text
    commands.cli("cancel", "--stack", "test", "--yes")
    commands.up_with(remote("slow", create="echo again")).succeeded()
    assert commands.outputs("slow")["stdout"] == "again"

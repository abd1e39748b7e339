"""A unit that is stopped for a while runs again, whatever becomes of who stopped it."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from components.host_agent import agent_archive
from lab import Container
from tests.lab.trouble import wait_for

UNIT = "lab-sleeper.service"
AGENT = "/opt/epibackup-test.pyz"
SCRIPT = f"""
import sys, time
sys.path.insert(0, {AGENT!r})
from host import quiesce
from host.errors import HostError
try:
    with quiesce.stopped({UNIT!r}, int(sys.argv[1]), "20260101T000000Z"):
        print("stopped", flush=True)
        time.sleep(float(sys.argv[2]))
        print("copied", flush=True)
except HostError as error:
    print(error.message)
    sys.exit(1)
"""


@pytest.fixture
def sleeper(host: Container) -> Iterator[Container]:
    """A host with the agent's code and a unit that does nothing."""
    host.write(AGENT, agent_archive())
    host.write(f"/etc/systemd/system/{UNIT}", "[Service]\nExecStart=/usr/bin/sleep infinity\n")
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", UNIT])
    yield host
    host.run(["systemctl", "stop", UNIT])
    host.run(["rm", AGENT, f"/etc/systemd/system/{UNIT}"])
    host.run(["systemctl", "daemon-reload"])


def is_active(host: Container) -> bool:
    return host.run(["systemctl", "is-active", UNIT], check=False).returncode == 0


def timers(host: Container) -> str:
    listed = ["systemctl", "list-units", "--all", "--no-legend", "epibackup-start-*"]
    return host.run(listed).stdout


def test_a_unit_is_stopped_and_started_again(sleeper: Container) -> None:
    done = sleeper.run(["python3", "-c", SCRIPT, "60", "0"])
    assert done.stdout == "stopped\ncopied\n"
    assert is_active(sleeper)
    assert timers(sleeper) == ""


def test_a_unit_that_was_not_running_is_left_alone(sleeper: Container) -> None:
    sleeper.run(["systemctl", "stop", UNIT])
    done = sleeper.run(["python3", "-c", SCRIPT, "60", "0"])
    assert done.stdout == "stopped\ncopied\n"
    assert not is_active(sleeper)
    assert timers(sleeper) == ""


def test_a_copy_that_takes_too_long_is_given_up(sleeper: Container) -> None:
    done = sleeper.run(["python3", "-c", SCRIPT, "2", "6"], check=False)
    assert done.returncode == 1
    assert "was started again before the copy of its data was complete" in done.stdout
    assert is_active(sleeper)
    assert timers(sleeper) == ""


def test_a_unit_is_started_though_its_stopper_was_killed(sleeper: Container) -> None:
    command = sleeper.command(["python3", "-uc", SCRIPT, "5", "600"], "root", {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "stopped\n"
        for process in sleeper.processes():
            if AGENT in process.command_line:
                subprocess.run(["kill", f"-{signal.SIGKILL}", str(process.pid)], check=False)
    assert not is_active(sleeper)
    assert "epibackup-start-lab-sleeper.timer" in timers(sleeper)
    wait_for(lambda: is_active(sleeper), "the start by the timer", 30, sleeper)
    done = sleeper.run(["python3", "-c", SCRIPT, "60", "0"])
    assert done.stdout == "stopped\ncopied\n"
    assert timers(sleeper) == ""

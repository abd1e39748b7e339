"""Hosts that are restored together go back together: real processes, without ssh."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from components.errors import EpibackupError
from components.ssh import SshClients
from program.agent import AgentOnHost
from program.together import Participant, Together

HOST = """
import json, os, sys, time
from host import meeting
from host.errors import HostError
from host.service import COMPARE, Restoration, Step, run_steps

request = json.loads(sys.stdin.buffer.readline())
meeting.LOST_SECONDS = 0.2

def note(what):
    with open(request["log"], "a") as log:
        log.write("%s %s\\n" % (request["name"], what))

def put():
    note("put %d" % os.getpid())
    if request["trouble"] == "fails":
        raise HostError("the disk is full")

def start():
    note("start")
    while request["trouble"] == "slow":
        restoration.check_others()
        time.sleep(0.05)
    if request["trouble"] == "hangs":
        time.sleep(600)

def back():
    note("back")
    if request["first"]:
        return
    restoration.others.meet_back("back: the first")
    note("after the first")

def halt():
    time.sleep(request["delay"])
    note("halt")

restoration = Restoration(
    "20261122T013000Z", "/nowhere", [], {}, {}, lambda text: None, meeting.Together()
)
steps = [
    Step("stop", lambda: note("stop"), back),
    restoration.barrier("stopped", "all are stopped"),
    Step("put", put, halt=halt),
    restoration.barrier("replaced", "all have it in place"),
    Step("start", start),
    restoration.barrier(COMPARE, "it was compared"),
    Step("leave it", lambda: note("done")),
]
answer = {"error": None}
try:
    run_steps(steps, lambda text: None, restoration.others)
except HostError as error:
    answer = {"error": error.as_json()}
print(json.dumps(answer))
"""


class Local:
    """Runs the program above instead of an agent on a host."""

    def argv(self, _: str, __: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", HOST]


class Group:
    """Three hosts with trouble of their own, restored together."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.trouble: dict[str, str] = {}

    def restore(self, compare: Any = lambda: None) -> BaseException | None:
        together = Together(3, compare)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(self._restore, ("one", "two", "three"), together.participants))
        return together.failure()

    def _restore(self, name: str, participant: Participant) -> None:
        request = {
            "name": name,
            "log": str(self.log),
            "trouble": self.trouble.get(name, ""),
            "delay": 0.5 if name == "three" else 0,
            "first": name == "three",
        }
        agent = AgentOnHost(cast(SshClients, Local()), name, "/nowhere")
        failure = None
        try:
            agent.call(["restore"], request, lambda _: None, participant)
        except EpibackupError as error:
            failure = error
        participant.ended(failure)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def places(self, word: str) -> list[int]:
        return [number for number, line in enumerate(self.lines()) if line.split()[1:] == [word]]

    def wait_for(self, start: str) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in self.lines():
                if line.startswith(start):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no {start} in {self.lines()}")


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path / "log")


def test_without_trouble_all_are_done_after_the_comparison(group: Group) -> None:
    compared: list[int] = []
    failure = group.restore(lambda: compared.append(len(group.places("done"))))
    assert failure is None
    assert compared == [0]
    assert len(group.places("done")) == 3
    assert group.places("back") == []


@pytest.mark.parametrize("others", ["", "slow"])
def test_nobody_puts_back_before_all_have_stopped(group: Group, others: str) -> None:
    """Old and new servers that meet mix their data: ZooKeeper did."""
    group.trouble = {"one": others, "two": "fails", "three": others}
    failure = group.restore()
    assert isinstance(failure, EpibackupError)
    assert failure.message == "two: the disk is full"
    assert max(group.places("halt")) < min(group.places("back"))
    assert len(group.places("back")) == 3


def test_who_waits_for_the_first_is_started_after_it(group: Group) -> None:
    group.trouble = {"one": "fails"}
    assert group.restore()
    lines = group.lines()
    after = [number for number, line in enumerate(lines) if line.endswith("after the first")]
    assert len(after) == 2
    assert lines.index("three back") < min(after)


def test_a_comparison_that_fails_sends_all_back(group: Group) -> None:
    def compare() -> None:
        raise EpibackupError("it is not what was saved")

    failure = group.restore(compare)
    assert isinstance(failure, EpibackupError)
    assert failure.message == "it is not what was saved"
    assert max(group.places("halt")) < min(group.places("back"))
    assert len(group.places("back")) == 3


def test_a_host_that_is_lost_holds_nobody_up(group: Group) -> None:
    group.trouble = {"two": "hangs", "three": "slow"}
    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(group.restore)
        group.wait_for("two start")
        os.kill(int(group.wait_for("two put").split()[-1]), signal.SIGKILL)
        failure = restore.result(timeout=30)
    assert isinstance(failure, EpibackupError)
    assert "two gave no answer" in failure.message
    assert max(group.places("halt")) < min(group.places("back"))
    assert sorted(group.lines()[number] for number in group.places("back")) == [
        "one back",
        "three back",
    ]


def test_a_host_that_has_lost_the_controller_goes_back_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    request = {"name": "one", "log": str(log), "trouble": "slow", "delay": 0, "first": False}
    with subprocess.Popen(
        [sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as host:
        assert host.stdin
        assert host.stdout
        host.stdin.write(json.dumps(request).encode() + b"\n")
        host.stdin.flush()
        for _ in range(2):
            barrier = json.loads(host.stdout.readline())["barrier"]
            host.stdin.write(f"go {barrier}\n".encode())
            host.stdin.flush()
        Group(log).wait_for("one start")
        host.stdin.close()
        answer = json.loads(host.stdout.read().splitlines()[-1])
    assert "given up" in answer["error"]["message"]
    assert [line.split()[1] for line in log.read_text().splitlines()][-3:] == [
        "halt",
        "back",
        "after",
    ]

"""Runs that meet another run, are stopped, or are killed."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab import Container, Site, faults
from tests.lab.product import Product, product
from tests.lab.trouble import dumping, ended, locked_table, wait_for

RUN = "20261122T013000Z"


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-endings") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def test_a_second_run_is_refused_while_the_first_is_at_work(epibackup: Product, site: Site) -> None:
    with locked_table(site):
        first = epibackup.start("backup")
        wait_for(lambda: dumping(site), "the dump")
        error = epibackup.backup(code=7)["error"]
        assert error["retryable"] is True
        assert "it is running" in error["message"]
        refused = epibackup.run("unlock")
        assert refused.returncode == 7
        assert "--force" in refused.stderr
    output = ended(first, site)
    assert first.returncode == 0, output


def test_the_same_run_again_is_no_second_archive(epibackup: Product, site: Site) -> None:
    first = epibackup.backup("--run", RUN)
    again = epibackup.backup("--run", RUN)
    assert again["archive_key"] == first["archive_key"]
    assert epibackup.archives() == [first["archive_key"]]
    assert len(epibackup.catalog()) == 1


def test_an_interrupted_run_ends_in_order_and_the_next_one_works(
    epibackup: Product, site: Site
) -> None:
    with locked_table(site):
        running = epibackup.start("backup", "--json")
        wait_for(lambda: dumping(site), "the dump")
        os.kill(running.pid, signal.SIGINT)
        time.sleep(2)
        assert running.poll() is None, "what runs is waited for"
        os.kill(running.pid, signal.SIGINT)
        output = ended(running, site)
    assert running.returncode == 130, output
    assert '"code": "interrupted"' in output
    assert "--run" in output
    assert epibackup.archives() == []
    wait_for(lambda: not dumping(site), "the end of the dump")
    assert epibackup.backup()["status"] == "ok"


def test_a_lost_passphrase_is_explained_and_no_archive_needs_it(
    epibackup: Product, site: Site
) -> None:
    first = epibackup.backup("--service", "haproxy")
    passphrase = Path(epibackup.environment["XDG_CONFIG_HOME"], "epibackup", "passphrase")
    passphrase.write_text("another")
    error = epibackup.backup("--service", "haproxy", code=1)["error"]
    assert "was made with another passphrase" in error["message"]
    assert str(passphrase) in error["hint"]
    assert epibackup.published() == [first["archive_key"]]
    assert epibackup.json("list")["runs"][0]["run"] == first["run"]
    assert epibackup.json("restore", "latest", "--dry-run")["run"] == first["run"]


def descendants(process: int) -> dict[int, str]:
    """A process and all below it, with their command lines."""
    found: dict[int, str] = {}
    waiting = [process]
    while waiting:
        current = waiting.pop()
        try:
            line = Path(f"/proc/{current}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[current] = line
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


PROCESSES: dict[str, Callable[[str], bool]] = {
    "the command": lambda line: "epibackup" in line and "backup -s" in line,
    "the engine": lambda line: "/pulumi " in line and " up " in line,
    "the provider": lambda line: "pulumi-resource-command" in line or "command_provider" in line,
    "the archive": lambda line: "components.archive" in line,
    "everything": lambda _: True,
}


def held(site: Site, stage: str) -> AbstractContextManager[Any]:
    """A run stays in a stage: a dump waits for a lock, or a stream crawls."""
    if stage == "snapshot":
        return locked_table(site)
    return faults.processes_slowed(site.primary.host, r" stream postgresql ", 0.001)


def reached(host: Container, stage: str) -> bool:
    pattern = {"snapshot": "pg_dump", "collect": " stream postgresql "}[stage]
    return any(pattern in it.command_line for it in host.processes())


@pytest.mark.parametrize(
    ("stage", "victim"),
    [
        (stage, victim)
        for stage in ("snapshot", "collect")
        for victim in PROCESSES
        if (stage, victim) != ("snapshot", "the archive")  # which does not run yet
    ],
)
def test_after_a_kill_nothing_half_done_is_left_and_the_next_run_works(
    epibackup: Product, site: Site, stage: str, victim: str
) -> None:
    good = epibackup.backup("--service", "haproxy")["archive_key"]
    with held(site, stage):
        running = epibackup.start("backup")
        wait_for(lambda: reached(site.primary.host, stage), stage)
        processes = descendants(running.pid)
        chosen = [pid for pid, line in processes.items() if PROCESSES[victim](line)]
        assert chosen, processes
        for pid in chosen:
            with suppress(ProcessLookupError):  # one may have ended with one killed before
                os.kill(pid, signal.SIGKILL)
        # Nothing of the run goes on alone on this machine, whatever was killed.
        if victim != "the archive":
            wait_for(lambda: not any(alive(pid) for pid in processes), "the end of all", 60)
        output = ended(running, site)
    if running.returncode == 3:
        # The run went on without what was lost, as it does for a host: it says what is missing.
        assert len(epibackup.published()) == 2
        assert epibackup.json("show", "latest")["status"] == "incomplete"
    else:
        assert running.returncode != 0, output
        assert epibackup.published() == [good], output
    assert site.primary.is_running
    host = site.primary.host
    wait_for(lambda: not reached(host, stage), "the end on the host", 180, host)

    again = epibackup.run("backup", "--json")
    if again.returncode == 7:
        error = json.loads(again.stdout)["error"]
        assert "it has ended" in error["message"]
        assert error["hint"].endswith("epibackup unlock -s test-endings removes its lock")
        unlocked = epibackup.run("unlock")
        assert unlocked.returncode == 0, unlocked.stderr
        again = epibackup.run("backup", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["status"] == "ok"
    assert epibackup.archives() == epibackup.published()

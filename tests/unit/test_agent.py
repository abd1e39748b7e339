"""The agent: one file, the same from the same sources, for the oldest Python hosts have."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.host_agent import INSTALL, agent_archive, agent_hash, agent_name
from host.errors import HostError
from host.store import Store, write_json

ROOT = Path(__file__).parents[2]
RUN = "20261122T013000Z"


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_archive())
    return path


def command(agent: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(agent), "--directory", str(agent.parent / "store"), *arguments]


def call(agent: Path, *arguments: str, request: object = None) -> dict[str, Any]:
    done = subprocess.run(
        command(agent, *arguments),
        input=json.dumps(request) if request is not None else "",
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_agent_runs_on_python_3_6() -> None:
    sources = [
        *ROOT.glob("host/*.py"),
        *ROOT.glob("components/*/host.py"),
        *ROOT.glob("components/*/host/*.py"),
    ]
    assert len(sources) > 15
    done = subprocess.run(
        [
            Path(sys.executable).with_name("vermin"),
            "-t=3.6-",
            "--violations",
            "--no-tips",
            *map(str, sources),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_agent_imports_nothing_but_the_standard_library(agent: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(agent), "clean"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["status"] == "ok"


def test_the_agent_is_the_same_wherever_it_is_made() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from components.host_agent import agent_hash; print(agent_hash())"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert made.stdout.strip() == agent_hash()


def test_a_service_that_is_not_there_is_an_answer_and_not_an_exit_code(agent: Path) -> None:
    answer = call(agent, "snapshot", "nosuch", "--run", RUN, request={})
    assert answer["status"] == "failed"
    assert answer["error"]["message"] == "this agent knows no service nosuch"
    assert answer["members"] == []


@pytest.mark.parametrize("run", ["../../etc", "", "a/b", "-x", "a" * 80])
def test_a_run_id_that_leaves_the_folder_is_refused(agent: Path, run: str) -> None:
    answer = call(agent, "snapshot", "haproxy", f"--run={run}", request={})
    assert "is no valid name" in answer["error"]["message"]


def test_a_request_that_is_no_json_is_an_answer(agent: Path) -> None:
    answer = call(agent, "snapshot", "haproxy", "--run", RUN, request=[1])
    assert answer["status"] == "failed"


def test_a_member_that_is_not_there_cannot_be_sent(agent: Path) -> None:
    done = subprocess.run(
        command(agent, "stream", "haproxy", "--run", RUN, "--member", "files.tar"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "there is no snapshot of haproxy" in done.stderr


@pytest.mark.parametrize("member", ["../evil", "a/b", ".hidden", ""])
def test_a_member_name_that_leaves_the_folder_is_refused(agent: Path, member: str) -> None:
    done = subprocess.run(
        command(agent, "deliver", "haproxy", "--run", RUN, f"--member={member}", "--kind", "file"),
        input=b"data",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"is no valid name" in done.stderr


def test_a_delivered_file_is_decompressed_and_root_only(agent: Path) -> None:
    packed = subprocess.run(["zstd", "-qc"], input=b"dump", capture_output=True, check=True).stdout
    subprocess.run(
        command(
            agent, "deliver", "postgresql", "--run", RUN, "--member=shop.dump.zst", "--kind=file"
        ),
        input=packed,
        check=True,
        capture_output=True,
    )
    path = agent.parent / "store" / "restore" / RUN / "postgresql" / "member-shop.dump"
    assert path.read_bytes() == b"dump"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_busy_service_says_who_holds_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.lock("kafka", "snapshot of run 1"):
        with pytest.raises(HostError) as caught, store.lock("kafka", "restore"):
            pass
        with store.lock("postgresql", "another service is free"):
            pass
    assert f"snapshot of run 1, process {os.getpid()}" in caught.value.message


def test_a_snapshot_that_is_being_sent_is_not_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    folder = Path(store.snapshot_folder(RUN, "kafka"))
    folder.mkdir(parents=True)
    with store.reading(str(folder)):
        assert not store.remove(str(folder))
        assert folder.exists()
    assert store.remove(str(folder))
    assert not (tmp_path / "snapshots" / RUN).exists()


def test_earlier_runs_of_a_service_are_freed_and_other_services_are_kept_for_a_while(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path))
    old, other, stale = (
        Path(store.snapshot_folder(run, service))
        for run, service in (("r1", "kafka"), ("r1", "postgresql"), ("r0", "postgresql"))
    )
    for folder in (old, other, stale):
        folder.mkdir(parents=True)
    os.utime(stale, (time.time() - 24 * 3600,) * 2)
    assert {it.path for it in store.old_snapshots("r2", "kafka")} == {str(old), str(stale)}


def test_a_document_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    write_json(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


SUPERVISE = """
import json, sys
agent, seconds = sys.argv[1:]
sys.argv = [agent]
sys.path.insert(0, agent)
from host.supervision import supervise
print(json.dumps(supervise(["gzip", "--level", "1"], int(seconds), "/nowhere")))
"""
"""Supervises a worker that waits for its standard input, as a service may hang."""


def supervised(agent: Path, seconds: int, kill: bool) -> dict[str, Any]:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(agent), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while kill and not (workers := children.read_text().split()):
            time.sleep(0.05)
        if kill:
            os.kill(int(workers[0]), signal.SIGKILL)
        output = process.stdout.read() if process.stdout else b""
    answer = json.loads(output)
    assert isinstance(answer, dict)
    return answer


def test_a_worker_that_hangs_is_a_failed_service(agent: Path) -> None:
    answer = supervised(agent, 1, kill=False)
    assert answer["status"] == "failed"
    assert "took longer than 1 seconds" in answer["error"]["message"]


def test_a_worker_that_is_killed_is_a_failed_service(agent: Path) -> None:
    answer = supervised(agent, 60, kill=True)
    assert answer["status"] == "failed"
    assert "ended with code -9" in answer["error"]["message"]


def test_an_upload_that_was_changed_on_its_way_is_not_installed(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(agent_archive() + b"evil")
    directory = tmp_path / "root"
    done = subprocess.run(
        ["sh", "-s", "--", str(directory), agent_name(agent_hash()), agent_hash(), str(upload)],
        input=INSTALL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "was changed on its way" in done.stderr
    assert list(directory.iterdir()) == []


def test_an_installed_agent_is_root_only_and_the_upload_is_gone(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(agent_archive())
    directory = tmp_path / "root"
    subprocess.run(
        ["sh", "-s", "--", str(directory), agent_name(agent_hash()), agent_hash(), str(upload)],
        input=INSTALL,
        text=True,
        check=True,
    )
    installed = directory / agent_name(agent_hash())
    assert installed.read_bytes() == agent_archive()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert installed.stat().st_mode & 0o077 == 0
    assert not upload.exists()


def test_two_snapshots_of_a_service_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    outcomes: list[str] = []

    def hold() -> None:
        try:
            with store.lock("kafka", "snapshot"):
                time.sleep(0.3)
                outcomes.append("done")
        except HostError:
            outcomes.append("busy")

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy", "done"]

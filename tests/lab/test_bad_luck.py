"""What goes wrong on the night: the message, the exit code, and what is left behind."""

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import Container, Site, faults
from tests.lab.product import Product, product

RUN = "20261122T013000Z"


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-luck") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def failed(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The failures of a run: host to message and hint."""
    return {
        host["host"]: host["error"]
        for service in document["manifest"]["services"]
        for host in service["hosts"]
        if host["error"]
    }


def services(document: dict[str, Any]) -> dict[str, str]:
    return {service["name"]: service["status"] for service in document["manifest"]["services"]}


@contextmanager
def locked_table(site: Site) -> Iterator[None]:
    """A dump of the database shop waits for a lock, as long as this lasts."""
    server = site.primary
    command = server.host.command(
        [server.tool("psql"), "-d", "shop", "-v", "ON_ERROR_STOP=1"], "postgres", {}
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as session:
        assert session.stdin
        session.stdin.write("BEGIN;\nLOCK TABLE sales.customer IN ACCESS EXCLUSIVE MODE;\n")
        session.stdin.flush()
        try:
            yield
        finally:
            session.stdin.close()


def wait_for(condition: Any, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.1)


def dumping(site: Site) -> bool:
    return any("pg_dump" in it.command_line for it in site.primary.host.processes())


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        (faults.connection_refused, "cannot be reached", "check that it is up"),
        (faults.host_keys_replaced, "is not the one that is known", "trust -s test-luck --replace"),
        (faults.sudo_refused, "operations may not use sudo", "NOPASSWD"),
        (faults.sudo_asks_for_password, "a password is required", "NOPASSWD"),
        (faults.python_hidden, "there is no python3", "install python3"),
    ],
)
def test_a_host_that_cannot_be_used_costs_only_its_own_services(
    epibackup: Product, site: Site, fault: Any, message: str, hint: str
) -> None:
    broken = site.cluster.hosts["loadbalancer2"]
    with fault(broken):
        done = epibackup.backup(code=3)
    assert done["error"]["code"] == "incomplete"
    assert services(done) == {"haproxy": "failed", "postgresql": "ok"}
    (host, error), *others = failed(done).items()
    assert (host, others) == ("loadbalancer2", [])
    assert message in error["message"]
    assert hint in error["hint"]
    entry = epibackup.catalog()[0]
    assert (entry["status"], entry["services"]["haproxy"]) == ("incomplete", "failed")
    assert epibackup.archives() == [entry["key"]]
    shown = epibackup.run("show", "latest").stderr
    assert message in shown


def test_a_host_whose_key_nobody_knows_is_not_contacted(epibackup: Product, site: Site) -> None:
    keys = epibackup.pinned_keys()
    del keys["loadbalancer1"]
    epibackup.configure(host_keys=keys)
    done = epibackup.backup(code=3)
    error = failed(done)["loadbalancer1"]
    assert "is not known" in error["message"]
    assert error["hint"] == "compare and pin it: epibackup trust -s test-luck loadbalancer1"
    trusted = epibackup.run("trust", "--yes")
    assert trusted.returncode == 0, trusted.stderr
    assert "ssh-ed25519 SHA256:" in trusted.stderr
    assert epibackup.backup()["status"] == "ok"


def test_if_no_host_can_be_used_nothing_is_changed(epibackup: Product, site: Site) -> None:
    epibackup.configure(ssh={"user": "nobody-there"})
    error = epibackup.backup(code=4)["error"]
    assert error["code"] == "preflight_refused"
    assert error["message"].count("refuses the login") == 4
    assert "user and key" in error["hint"]
    assert epibackup.archives() == []


def test_a_host_that_hangs_is_given_up_in_bounded_time(epibackup: Product, site: Site) -> None:
    epibackup.configure(ssh={"connect_timeout_seconds": 5})
    with faults.frozen(site.cluster.hosts["loadbalancer2"]):
        done = epibackup.backup(code=3)
    assert "cannot be reached" in failed(done)["loadbalancer2"]["message"]


def test_a_host_that_is_lost_in_the_middle_costs_only_its_own_services(
    epibackup: Product, site: Site
) -> None:
    with locked_table(site):
        running = epibackup.start("backup")
        wait_for(lambda: dumping(site), "the dump")
        cut = faults.connection_refused(site.primary.host)
        cut.__enter__()
        try:
            output, _ = running.communicate(timeout=120)
        finally:
            cut.__exit__(None, None, None)
    assert running.returncode == 3, output
    wait_for(lambda: not dumping(site), "the end of the dump")
    document = epibackup.json("show", "latest")
    assert services(document)["haproxy"] == "ok"
    assert "postgresql1" in failed(document)
    epibackup.run("clean", "--remove")


# -- services -------------------------------------------------------------------------------------


def test_a_service_that_is_down_is_not_saved_and_the_others_are(
    epibackup: Product, site: Site
) -> None:
    with faults.unit_stopped(site.primary.host, "postgresql@15-main"):
        done = epibackup.backup(code=3)
    assert services(done) == {"haproxy": "ok", "postgresql": "failed"}
    assert "no PostgreSQL server is running" in failed(done)["postgresql1"]["message"]
    with zipfile.ZipFile(epibackup.target / done["archive_key"]) as archive:
        assert any(name.startswith("haproxy/loadbalancer1/") for name in archive.namelist())
        notes = archive.read("RESTORE.md").decode()
    assert "postgresql1: **not saved**: no PostgreSQL server is running" in notes
    site.primary.wait_for_standby()


def test_a_load_balancer_that_is_down_is_saved_with_a_warning(
    epibackup: Product, site: Site
) -> None:
    with faults.unit_stopped(site.cluster.hosts["loadbalancer1"], "haproxy"):
        done = epibackup.backup("--service", "haproxy")
    warnings = [host["warnings"] for host in done["manifest"]["services"][0]["hosts"]]
    assert "haproxy.service is not running; its files were saved" in warnings[0]


def test_no_primary_means_no_data_and_no_success(epibackup: Product, site: Site) -> None:
    build = epibackup.target.parent / "build"
    build.mkdir()
    inventory = (site.cluster.build_directory / "inventory").read_text()
    lines = [line for line in inventory.splitlines() if not line.startswith("postgresql1 ")]
    (build / "inventory").write_text("\n".join(lines))
    done = epibackup.backup("-b", str(build), "--service", "postgresql", code=3)
    (service,) = done["manifest"]["services"]
    assert service["status"] == "failed"
    assert "no primary was found: postgresql2 is a standby of" in service["problems"][0]


def test_a_dump_that_dies_half_way_fails_the_service_and_leaves_nothing(
    epibackup: Product, site: Site
) -> None:
    with locked_table(site):
        running = epibackup.start("backup", "--json")
        wait_for(lambda: dumping(site), "the dump")
        time.sleep(1)
        assert faults.kill(site.primary.host, r"pg_dump .*dbname='shop'") > 0
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 3, output
    document = epibackup.json("show", "latest")
    assert services(document) == {"haproxy": "ok", "postgresql": "failed"}
    message = failed(document)["postgresql1"]["message"]
    assert "the dump of database shop failed: " in message
    assert "killed by signal 9" in message


def test_an_agent_that_is_killed_fails_its_service_and_leaves_nothing(
    epibackup: Product, site: Site
) -> None:
    with locked_table(site):
        running = epibackup.start("backup")
        wait_for(lambda: dumping(site), "the dump")
        assert faults.kill(site.primary.host, r"agent-\S+ --worker") > 0
        faults.kill(site.primary.host, r"pg_dump ")
        running.communicate(timeout=60)
    assert running.returncode == 3
    document = epibackup.json("show", "latest")
    assert "ended with code -9" in failed(document)["postgresql1"]["message"]
    # What it had put aside goes with the next run.
    assert epibackup.backup()["status"] == "ok"


def test_a_snapshot_that_takes_too_long_is_ended(epibackup: Product, site: Site) -> None:
    epibackup.configure(snapshot_timeout_seconds=10)
    with locked_table(site):
        done = epibackup.backup(code=3)
        assert "took longer than 10 seconds" in failed(done)["postgresql1"]["message"]
        wait_for(lambda: not dumping(site), "the end of the dump")


def test_a_disk_without_room_for_the_dumps_is_not_filled(epibackup: Product, site: Site) -> None:
    host = site.primary.host
    with faults.small_file_system(host, "/var/lib/epibackup", 200 << 20):
        done = epibackup.backup(code=3)
    error = failed(done)["postgresql1"]
    assert "the dumps may need" in error["message"]
    assert "host_directory" in error["hint"]


# -- the target -----------------------------------------------------------------------------------


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A small file system of this machine at a path."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "epitest", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize(
    ("target", "message"), [("missing", "does not exist"), ("file", "is not a folder")]
)
def test_a_target_that_is_none_is_refused_before_anything_happens(
    epibackup: Product, site: Site, target: str, message: str
) -> None:
    (epibackup.target / "file").touch()
    error = epibackup.backup("-t", str(epibackup.target / target), code=8)["error"]
    assert message in error["message"]
    assert "mkdir -m 700" in error["hint"]
    assert not (epibackup.target / "missing").exists()


def test_a_target_that_cannot_be_written_is_refused_before_anything_happens(
    epibackup: Product, site: Site
) -> None:
    with mounted(epibackup.target, "ro"):
        error = epibackup.backup(code=8)["error"]
    assert "Read-only file system" in error["message"]
    assert error["hint"] == "mount it for writing"


def test_a_full_target_leaves_nothing_and_the_same_run_goes_on(
    epibackup: Product, site: Site
) -> None:
    with mounted(epibackup.target, "size=64k"):
        error = epibackup.backup("--run", RUN, code=8)["error"]
        assert "No space left on device" in error["message"] or "free" in error["message"]
        assert epibackup.archives() == []
    taken = snapshot_times(epibackup)
    assert len(taken) == 4, "the hosts should keep their snapshots"
    done = epibackup.backup("--run", RUN)
    assert done["run"] == RUN
    assert done["status"] == "ok"


def snapshot_times(epibackup: Product) -> list[str]:
    """When each host's snapshot of the run was finished."""
    found = []
    for host in epibackup.cluster.hosts.values():
        find = ["find", f"/var/lib/epibackup/snapshots/{RUN}", "-name", "snapshot.json"]
        found += host.run([*find, "-printf", "%T@\n"], check=False).stdout.split()
    return found


def test_a_taken_name_is_not_overwritten(epibackup: Product, site: Site) -> None:
    name = f"epibackup_{site.cluster.definition.name}_{RUN}.zip"
    (epibackup.target / name).write_bytes(b"somebody's")
    done = epibackup.backup("--run", RUN)
    assert done["archive_key"] == name.replace(".zip", "_1.zip")
    assert (epibackup.target / name).read_bytes() == b"somebody's"


# -- archives -------------------------------------------------------------------------------------


def test_a_damaged_archive_is_listed_as_such_and_never_restored(
    epibackup: Product, clean_site: Site
) -> None:
    epibackup.backup()
    newest = epibackup.backup()
    path = epibackup.target / newest["archive_key"]
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("postgresql/postgresql1/shop.dump.zst")
    whole[member.header_offset + 200] ^= 1
    path.write_bytes(whole)

    before = clean_site.fingerprint()
    error = epibackup.restore(newest["run"], code=9)["error"]
    assert "shop.dump.zst" in error["message"]
    assert "is damaged" in error["message"]
    assert "nothing live was changed" in error["message"]
    assert clean_site.fingerprint() == before

    path.write_bytes(whole[: len(whole) // 2])
    listed = {run["run"]: run["status"] for run in epibackup.json("list")["runs"]}
    assert listed[newest["run"]] == "damaged"
    assert epibackup.json("show", newest["run"], code=9)["error"]["code"] == "verification_failed"
    # The newest good one is still found.
    assert epibackup.json("restore", "latest", "--dry-run")["run"] != newest["run"]


def test_an_archive_of_a_newer_format_is_refused(epibackup: Product, site: Site) -> None:
    done = epibackup.backup("--service", "haproxy")
    path = epibackup.target / done["archive_key"]
    with zipfile.ZipFile(path) as old:
        manifest = json.loads(old.read("manifest.json"))
    manifest.update(format=2, epibackup_version="9.9")
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("manifest.json", json.dumps(manifest))
    error = epibackup.json("show", done["run"], code=2)["error"]
    assert "format 2" in error["message"]
    assert "9.9" in error["hint"]


# -- runs that meet, and runs that die ------------------------------------------------------------


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
    assert first.wait(timeout=60) == 0, first.stdout.read() if first.stdout else ""


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
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 130, output
    assert '"code": "interrupted"' in output
    assert "--run" in output
    assert epibackup.archives() == []
    wait_for(lambda: not dumping(site), "the end of the dump")
    assert epibackup.backup()["status"] == "ok"


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
            os.kill(pid, signal.SIGKILL)
        # Nothing of the run goes on alone on this machine, whatever was killed.
        if victim != "the archive":
            wait_for(lambda: not any(alive(pid) for pid in processes), "the end of all", 30)
        output, _ = running.communicate(timeout=60)
    if running.returncode == 3:
        # The run went on without what was lost, as it does for a host: it says what is missing.
        assert len(epibackup.published()) == 2
        assert epibackup.json("show", "latest")["status"] == "incomplete"
    else:
        assert running.returncode != 0, output
        assert epibackup.published() == [good], output
    assert site.primary.is_running
    wait_for(lambda: not reached(site.primary.host, stage), "the end on the host")

    again = epibackup.run("backup", "--json")
    if again.returncode == 7:
        error = json.loads(again.stdout)["error"]
        assert "it has ended" in error["message"]
        assert error["hint"].endswith("epibackup unlock -s test-luck removes its lock")
        unlocked = epibackup.run("unlock")
        assert unlocked.returncode == 0, unlocked.stderr
        again = epibackup.run("backup", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["status"] == "ok"
    assert epibackup.archives() == epibackup.published()

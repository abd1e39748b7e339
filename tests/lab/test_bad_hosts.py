"""Hosts and services that cannot be saved: they cost no more than themselves."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Site, faults
from tests.lab.product import Product, product
from tests.lab.trouble import (
    dumping,
    ended,
    failed,
    locked_table,
    services,
    wait_for,
    waits_for_lock,
)


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-hosts") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        (faults.connection_refused, "cannot be reached", "check that it is up"),
        (
            faults.host_keys_replaced,
            "is not the one that is known",
            "trust -s test-hosts --replace",
        ),
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
    assert error["hint"] == "compare and pin it: epibackup trust -s test-hosts loadbalancer1"
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
            output = ended(running, site)
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
        wait_for(lambda: waits_for_lock(site), "the dump of shop")
        assert faults.kill(site.primary.host, r"pg_dump .*dbname='shop'") > 0
        output = ended(running, site)
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
        wait_for(lambda: waits_for_lock(site), "the dump of shop")
        assert faults.kill(site.primary.host, r"agent-\S+ --worker") > 0
        faults.kill(site.primary.host, r"pg_dump ")
        ended(running, site)
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

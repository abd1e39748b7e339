"""Clusters, their build directories, and the demo by hand."""

import configparser
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lab import Cluster, Image, LabError, Recipe, Site, demo, machine
from lab.cluster import claimed_network
from lab.epicli import InventoryHost, inventory

EXPECTED_INVENTORY = """\
#
# Ansible Inventory File - Automated so do not modify
#

# Written by the lab in epicli's form; the hosts are systemd containers on this machine.


[firewall]
db ansible_host=10.0.0.1
lb ansible_host=10.0.0.2 ansible_port=2222

[postgresql]
db ansible_host=10.0.0.1

[haproxy]
lb ansible_host=10.0.0.2 ansible_port=2222


# Allowing 'all' since for now only Linux is supported
[all:vars]
ansible_user=operations
ansible_ssh_private_key_file=/keys/id_rsa

# --- SSH options ---
ansible_ssh_common_args='-o StrictHostKeyChecking=no'
ansible_ssh_extra_args='-o ServerAliveInterval=60 -o ServerAliveCountMax=1'
"""


def test_an_inventory_has_the_form_that_epicli_gives_it() -> None:
    hosts = [
        InventoryHost("db", "10.0.0.1", ("firewall", "postgresql")),
        InventoryHost("lb", "10.0.0.2", ("firewall", "haproxy"), port=2222),
    ]
    assert inventory(hosts, "operations", Path("/keys/id_rsa")) == EXPECTED_INVENTORY


def test_the_build_directory_describes_the_running_cluster(site: Site) -> None:
    build = site.cluster.build_directory
    parser = configparser.ConfigParser(allow_no_value=True, delimiters=("\0",))
    parser.read_string((build / "inventory").read_text())
    assert list(parser["postgresql"]) == [
        f"{name} ansible_host={site.cluster.hosts[name].address} ansible_port=2222"
        for name in ("postgresql1", "postgresql2")
    ]
    assert f"ansible_ssh_private_key_file={site.cluster.private_key}" in parser["all:vars"]
    assert len(parser["node_exporter"]) == 4

    documents = list(yaml.safe_load_all((build / "manifest.yml").read_text()))
    assert {document["version"] for document in documents} == {"2.0.13"}
    (cluster,) = (found for found in documents if found["kind"] == "epiphany-cluster")
    assert cluster["specification"]["name"] == site.cluster.definition.name
    assert cluster["specification"]["components"]["load_balancer"]["count"] == 2
    assert (build / "ansible/roles/postgresql/vars/main.yml").exists()


def test_two_claims_give_two_networks() -> None:
    with claimed_network() as one, claimed_network() as other:
        assert one != other
    with claimed_network() as again:
        assert again == one


def test_an_image_is_made_once_and_an_unfinished_one_is_not_used(image: Image) -> None:
    assert image.is_complete(Recipe())
    assert not image.is_complete(Recipe("kafka", ("default-jre-headless",)))
    assert image.identity != ""
    assert Recipe("other name").key == Recipe().key
    assert Recipe(packages=("zookeeperd",)).key != Recipe().key


@pytest.mark.parametrize("name", ["with space", "with:colon"])
def test_a_folder_that_cannot_be_mounted_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / name))
    with pytest.raises(LabError, match="Set XDG_STATE_HOME"):
        machine.state_folder()


def test_without_root_the_lab_says_how_to_use_a_real_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"needs root\n.*make backup BUILD="):
        machine.require_root()


def test_a_tool_that_cannot_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_tool", lambda _name: None)
    with pytest.raises(LabError, match=r"needs mmdebstrap .* no apt-get"):
        machine.require_tools(("mmdebstrap",), lambda _: None)


# The command, with the demo on a network of the test's own: a person's demo may be running.
RUN_LAB = """
import sys
from dataclasses import replace
from lab import demo
network, *sys.argv[1:] = sys.argv[1:]
demo.DEMO = replace(demo.DEMO, name=f"demo-{network}", network=int(network))
from lab.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def own_demo(image: Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The network number of a demo of the test's own; ended afterwards."""
    with claimed_network() as network:
        definition = replace(demo.DEMO, name=f"demo-{network}", network=network)
        try:
            yield network
        finally:
            cluster = Cluster(definition)
            cluster.destroy()


def test_the_demo_outlives_the_command_and_is_found_again(own_demo: int) -> None:
    def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RUN_LAB, str(own_demo), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert lab("status").returncode == 3
    first = lab("up")
    assert first.returncode == 0, first.stderr
    assert "Setting up" in first.stderr
    assert "Build directory:" in first.stdout
    again = lab("up")
    assert again.stdout == first.stdout
    assert again.stderr == ""
    assert lab("status").stdout == "postgresql1  running\nloadbalancer1  running\n"
    assert lab("shell", "postgresql1", "sudo", "id", "-un").stdout == "root\n"
    query = [
        "sudo",
        "-u",
        "postgres",
        "psql",
        "-Atc",
        "SELECT count(*) FROM sales.customer",
        "shop",
    ]
    assert lab("shell", "postgresql1", *query).stdout == "2000\n"
    unknown = lab("shell", "nobody")
    assert unknown.returncode == 1
    assert "the demo has no host nobody" in unknown.stderr
    assert lab("down").returncode == 0
    assert lab("status").stdout.startswith("There is no demo cluster")

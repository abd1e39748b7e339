"""Inventories of every epicli generation are read; what cannot be read is named by its line."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UsageError
from program.build_directory import read_build_directory
from program.inventory import read_inventory

BUILDS = Path(__file__).parents[1] / "builds"


def written(folder: Path, text: str) -> Path:
    path = folder / "inventory"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("build", "cluster", "version", "hosts", "postgresql"),
    [
        ("0.4-onprem", "epicluster", "0.4.5", 13, ["postgresql1", "postgresql2"]),
        ("0.6-aws", "0.6-aws", None, 10, ["ec2-52-56-10-8.eu-west-2.compute.amazonaws.com"]),
        (
            "1.0-azure-ha",
            "epi",
            "1.0.13",
            16,
            ["prod-epi-postgresql-vm-1", "prod-epi-postgresql-vm-0"],
        ),
        ("2.0-onprem", "epicluster", "2.0.13", 13, ["postgresql1", "postgresql2"]),
    ],
)
def test_every_epicli_generation_is_read(
    build: str, cluster: str, version: str | None, hosts: int, postgresql: list[str]
) -> None:
    found = read_build_directory(BUILDS / build)
    assert found.cluster == cluster
    assert found.epicli_version == version
    assert len(found.inventory.hosts) == hosts
    # In the inventory's order, which says nothing about who is primary.
    assert found.inventory.groups["postgresql"] == postgresql


def test_a_host_in_many_groups_is_one_host_with_the_variables_of_all() -> None:
    inventory = read_build_directory(BUILDS / "2.0-onprem").inventory
    host = inventory.hosts["kafka1"]
    assert (host.address, host.port, host.user) == ("192.168.100.107", 22, "operations")
    assert host.key_file == "/shared/.ssh/epiphany-operations/id_rsa"
    groups = [group for group, names in inventory.groups.items() if "kafka1" in names]
    assert {"kafka", "zookeeper", "jmx_exporter", "firewall"} <= set(groups)


def test_an_older_build_inside_the_build_is_not_read() -> None:
    inventory = read_build_directory(BUILDS / "2.0-onprem").inventory
    assert "old" not in inventory.hosts


def test_a_missing_manifest_is_a_warning_and_the_folder_names_the_cluster() -> None:
    found = read_build_directory(BUILDS / "0.6-aws")
    assert found.cluster == "0.6-aws"
    assert any("manifest.yml" in warning for warning in found.warnings)


def test_an_inventory_folder_with_one_file_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "development").write_text("[haproxy]\nlb1 ansible_host=10.0.0.1\n")
    assert read_inventory(folder).hosts["lb1"].address == "10.0.0.1"


def test_an_inventory_folder_with_two_files_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "one").write_text("[a]\nx\n")
    (folder / "two").write_text("[a]\nx\n")
    with pytest.raises(UsageError, match="one, two"):
        read_inventory(folder)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[haproxy\nlb1\n", ":1: '[haproxy' is no section", "[group:vars]"),
        ("[a:wars]\n", ":1: '[a:wars]' is no section", "[group:vars]"),
        ("[a]\nx\n\ny ansible_host\n", ":4: 'ansible_host' is no variable", "key=value"),
        ("[a]\nx ansible_host='1\n", ':2: "x ansible_host=\'1" cannot be read', "quotes"),
        ("[a]\nx ansible_hots=1\n", ":2: unknown variable ansible_hots", "ansible_host"),
        ("[a]\nx\n[a:vars]\nansible_usr=me\n", ":4: unknown variable", "ansible_user"),
        ("[a]\ndb[1:3]\n", ":2: 'db[1:3]' is no host name", "write the hosts out"),
        ("[a]\nx ansible_host=1\n[b]\nx ansible_host=2\n", ":4: x has ansible_host=2", ""),
        ("[a]\nx\n[c:children]\nb\n", ":4: unknown group b", "a"),
        ("[a]\nx ansible_port=ssh\n", "x has ansible_port=ssh, which is no port", ""),
        ("# nothing\n", "has no hosts", ""),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_inventory(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_group_variables_children_and_old_names_are_heeded(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "[db]\none ansible_ssh_host=10.0.0.1\n[all:vars]\nansible_user='ops'\n"
        "[db:vars]\nansible_port=2222\n[stateful:children]\ndb\n",
    )
    inventory = read_inventory(path)
    host = inventory.hosts["one"]
    assert (host.address, host.port, host.user) == ("10.0.0.1", 2222, "ops")
    assert inventory.groups["stateful"] == ["one"]


def test_a_proxy_in_the_inventory_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = written(tmp_path, "[a]\nx\n[all:vars]\nansible_ssh_common_args='-o ProxyJump=bastion'\n")
    assert any("proxy" in warning for warning in read_inventory(path).warnings)


@given(st.text(alphabet=st.sampled_from("[]:=# \n'\"ab.1,"), max_size=120))
def test_no_text_at_all_breaks_the_parser(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), text)
        with contextlib.suppress(UsageError):
            assert read_inventory(path).hosts


def test_a_missing_build_directory_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        read_build_directory(tmp_path / "nowhere")
    assert "-b" in caught.value.hint


def test_a_build_directory_without_inventory_points_to_the_one_inside(tmp_path: Path) -> None:
    inside = tmp_path / "production"
    inside.mkdir()
    written(inside, "[a]\nx\n")
    with pytest.raises(UsageError, match="there is no inventory") as caught:
        read_build_directory(tmp_path)
    assert caught.value.hint == f"did you mean -b {inside}?"


def test_vault_values_in_the_manifest_are_no_obstacle(tmp_path: Path) -> None:
    written(tmp_path, "[a]\nx\n")
    (tmp_path / "manifest.yml").write_text(
        "kind: epiphany-cluster\nversion: 1.3.0\nspecification:\n  name: prod\n"
        "  secret: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    6435\n"
    )
    assert read_build_directory(tmp_path).cluster == "prod"


def test_a_damaged_manifest_is_named_with_its_line(tmp_path: Path) -> None:
    written(tmp_path, "[a]\nx\n")
    (tmp_path / "manifest.yml").write_text("kind: epiphany-cluster\nspecification: [\n")
    with pytest.raises(UsageError, match=r"manifest\.yml:3"):
        read_build_directory(tmp_path)

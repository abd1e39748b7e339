"""The plan: everything by default, parts on request, and what is left out is said."""

import os
from pathlib import Path

import pytest

from components.errors import TargetUnreachable, UsageError
from program.plan import Plan, check_here, make_plan, problems_here
from program.settings import read_settings

BUILDS = Path(__file__).parents[1] / "builds"


def plan_of(folder: str, **options: object) -> Plan:
    values = {"build": str(BUILDS / folder), "target": "/backups", **options}
    return make_plan(read_settings({}, values, "test"))


def test_everything_that_can_be_saved_is_saved_by_default() -> None:
    plan = plan_of("2.0-onprem")
    assert [(service.name, service.hosts) for service in plan.services] == [
        ("haproxy", ("loadbalancer1",)),
        ("kafka", ("kafka1", "kafka2")),
        ("postgresql", ("postgresql1", "postgresql2")),
        ("rabbitmq", ("rabbitmq1",)),
        ("zookeeper", ("kafka1", "kafka2")),
    ]


def test_what_the_inventory_has_and_this_version_cannot_save_is_named() -> None:
    missing = {item.what: item for item in plan_of("2.0-onprem").missing}
    prometheus = missing["Prometheus and Alertmanager (prometheus)"]
    assert len(prometheus.hosts) == 1
    assert "cannot save it yet" in prometheus.reason
    # Groups without data of their own are not complained about.
    assert not any("node_exporter" in what or "firewall" in what for what in missing)


def test_a_skipped_service_is_named_as_missing() -> None:
    plan = plan_of("2.0-onprem", skip=["haproxy"])
    assert "haproxy" not in [service.name for service in plan.services]
    reasons = {item.what: item.reason for item in plan.missing}
    assert reasons["HAProxy (haproxy)"] == "skipped on request"


def test_a_service_that_was_not_chosen_is_named_as_missing() -> None:
    plan = plan_of("2.0-onprem", services=["haproxy"])
    reasons = {item.what: item.reason for item in plan.missing}
    assert reasons["PostgreSQL (postgresql)"] == "not chosen with --service"


def test_a_group_that_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text(
        "[haproxy]\nlb\n[postgresqll]\ndb\n[ours]\nx\n"
        "[all:vars]\nansible_user=me\nansible_ssh_private_key_file=/key\n"
    )
    plan = make_plan(read_settings({}, {"build": str(tmp_path), "target": "/b"}, "test"))
    reasons = {item.what: item.reason for item in plan.missing}
    assert "unknown" in reasons["ours (ours)"]
    assert any("did you mean postgresql?" in warning for warning in plan.warnings)


@pytest.mark.parametrize("option", ["services", "skip"])
def test_an_unknown_service_is_refused_with_the_nearest_name(option: str) -> None:
    with pytest.raises(UsageError, match="unknown service postgres") as caught:
        plan_of("2.0-onprem", **{option: ["postgres"]})
    assert caught.value.hint == "did you mean postgresql?"


def test_a_service_that_the_inventory_has_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text("[haproxy]\nlb\n")
    with pytest.raises(UsageError, match="the inventory has no PostgreSQL"):
        plan_of(str(tmp_path), services=["postgresql"])


def test_nothing_to_save_is_an_error_and_not_an_empty_success(tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text("[prometheus]\np1\n")
    with pytest.raises(UsageError, match="nothing to save"):
        plan_of(str(tmp_path))


@pytest.mark.parametrize("missing", ["build", "target"])
def test_a_missing_option_says_how_to_give_it(missing: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of("2.0-onprem", **{missing: None})
    assert f"-{missing[0]}" in caught.value.hint


@pytest.mark.parametrize(
    ("target", "hint"), [("ftp://server/folder", "folder"), ("backups", "write -t /…/backups")]
)
def test_a_target_that_cannot_be_used_is_refused(target: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of("2.0-onprem", target=target)
    assert target in caught.value.message
    assert hint in caught.value.hint


def test_the_beginning_of_the_key_path_is_replaced() -> None:
    plan = plan_of("2.0-onprem", ssh={"key_map": {"/shared": "/home/me/shared"}})
    key = "/home/me/shared/.ssh/epiphany-operations/id_rsa"
    assert {host.key_file for host in plan.hosts.values()} == {key}


def test_keys_of_the_agent_need_no_file() -> None:
    plan = plan_of("2.0-onprem", ssh={"agent": True})
    assert {host.key_file for host in plan.hosts.values()} == {None}


def test_a_missing_key_is_refused_by_a_run_and_warned_of_by_a_plan(tmp_path: Path) -> None:
    plan = plan_of("2.0-onprem", target=str(tmp_path))
    with pytest.raises(UsageError, match="does not exist") as caught:
        check_here(plan)
    assert "key_map" in caught.value.hint
    assert any("does not exist" in problem for problem in problems_here(plan))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("key")
    key.chmod(0o644)
    plan = plan_of("2.0-onprem", target=str(tmp_path), ssh={"key_file": str(key)})
    with pytest.raises(UsageError, match="readable by others") as caught:
        check_here(plan)
    assert caught.value.hint == f"chmod 600 {key}"


def test_a_missing_target_is_refused_before_anything_happens(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("key")
    key.chmod(0o600)
    target = tmp_path / "unmounted"
    plan = plan_of("2.0-onprem", target=str(target), ssh={"key_file": str(key)})
    with pytest.raises(TargetUnreachable, match="does not exist") as caught:
        check_here(plan)
    assert caught.value.exit_code == 8
    assert "mkdir -m 700" in caught.value.hint
    assert not target.exists()


def test_pinned_host_keys_win_over_known_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text("192.168.100.109 ssh-ed25519 AAAAknown\n192.168.100.113 ssh-rsa AAAArsa\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = plan_of("2.0-onprem", host_keys={"postgresql1": "ssh-ed25519 AAAApinned comment"})
    assert plan.hosts["postgresql1"].host_keys == ("ssh-ed25519 AAAApinned",)
    assert plan.hosts["postgresql2"].host_keys == ("ssh-rsa AAAArsa",)
    assert plan.hosts["loadbalancer1"].host_keys == ()
    assert os.environ["HOME"] == str(tmp_path)

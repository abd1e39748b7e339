"""What has changed since the last run: said where it is known, and no more than that."""

from pathlib import Path
from typing import Any

import pytest

from program.comparison import compare
from program.plan import Plan, make_plan
from program.settings import read_settings

INVENTORY = """
[postgresql]
db1 ansible_host=10.0.0.1
{more}
[haproxy]
lb1 ansible_host=10.0.0.3
[grafana]
m1 ansible_host=10.0.0.4
[all:vars]
ansible_user=ops
ansible_ssh_private_key_file=/key
"""


def plan_of(folder: Path, more: str = "", **options: Any) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "inventory").write_text(INVENTORY.format(more=more))
    values = {"build": str(folder), "target": "/backups", "cluster": "c", **options}
    return make_plan(read_settings({}, values, "test"))


def outputs_of(plan: Plan, status: str = "ok") -> dict[str, Any]:
    """A stack's outputs after a run of this plan."""
    services = [
        {
            "name": service.name,
            "status": "ok",
            "hosts": [{"host": name, "address": "", "status": "ok"} for name in service.hosts],
        }
        for service in plan.services
    ]
    manifest = {
        "format": 1,
        "run": "20261122T013000Z",
        "cluster": plan.cluster,
        "status": status,
        "started": "2026-11-22T01:30:00Z",
        "finished": "2026-11-22T01:31:00Z",
        "epicli_version": plan.epicli_version,
        "epibackup_version": "0",
        "services": services,
        "missing": [item.model_dump() for item in plan.missing],
        "inventory": plan.groups,
    }
    return {"manifest": manifest, "archive": {"target": plan.target}}


def test_a_stack_without_a_run_has_nothing_to_compare_with(tmp_path: Path) -> None:
    comparison = compare(plan_of(tmp_path), {})
    assert comparison.run is None
    assert comparison.lines() == []


@pytest.mark.parametrize("status", ["ok", "incomplete"])
def test_nothing_has_changed_if_the_plan_is_the_same(tmp_path: Path, status: str) -> None:
    plan = plan_of(tmp_path)
    comparison = compare(plan, outputs_of(plan, status))
    assert (comparison.run, comparison.status) == ("20261122T013000Z", status)
    assert comparison.lines() == []


def test_new_and_gone_hosts_and_services_are_named(tmp_path: Path) -> None:
    before = plan_of(tmp_path / "before")
    after = plan_of(tmp_path / "after", "db2 ansible_host=10.0.0.2", skip=["haproxy"])
    assert compare(after, outputs_of(before)).lines() == [
        "new host: db2",
        "now saved: postgresql on db2",
        "no longer saved: haproxy on lb1",
        "now missing: HAProxy (haproxy)",
    ]
    assert compare(before, outputs_of(after)).lines() == [
        "host is gone: db2",
        "now saved: haproxy on lb1",
        "no longer saved: postgresql on db2",
        "no longer missing: HAProxy (haproxy)",
    ]


def test_another_target_or_cluster_is_said(tmp_path: Path) -> None:
    before = plan_of(tmp_path)
    after = plan_of(tmp_path, cluster="d", target="/elsewhere")
    assert compare(after, outputs_of(before)).lines() == [
        "cluster: c → d",
        "target: /backups → /elsewhere",
    ]

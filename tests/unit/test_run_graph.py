"""What a run declares, seen with Pulumi's mocks: names, order, and nothing secret."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks

from components.retention.policy import Retention
from components.service import parse_answer
from program.plan import Plan, make_plan
from program.probe import Probed, Problem
from program.retention import why_not
from program.run import Ready, declare, failures_of
from program.settings import read_settings

RUN = "20261122T013000Z"
ANSWER = {
    "format": 1,
    "status": "ok",
    "error": None,
    "version": "1",
    "warnings": [],
    "details": {"instances": [{"role": "primary"}]},
    "members": [],
}


class Recorder(Mocks):
    """Records resources; commands answer as the agent would."""

    def __init__(self) -> None:
        self.resources: dict[str, MockResourceArgs] = {}

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources[args.name] = args
        outputs = dict(args.inputs)
        if args.typ == "command:remote:Command":
            outputs["stdout"] = json.dumps(ANSWER)
        if args.typ == "pulumi:pulumi:StackReference":
            outputs["outputs"] = {}
        if args.name == "archive-make":
            manifest: dict[str, Any] = {
                "run": RUN,
                "status": "ok",
                "services": [],
                "missing": [],
                "encryption": None,
                "epibackup_version": "0",
            }
            outputs["stdout"] = json.dumps(
                {
                    "key": "a.zip",
                    "bytes": 1,
                    "sha256": "x",
                    "verified": True,
                    "warnings": [],
                    "manifest": manifest,
                }
            )
        if args.name == "retention-prune":
            outputs["stdout"] = json.dumps({"removed": []})
        return args.name + "-id", outputs

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"a run calls no function, and called {args.token}")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "inventory").write_text(
        "[postgresql]\ndb1 ansible_host=10.0.0.1\ndb2 ansible_host=10.0.0.2\n"
        "[haproxy]\ndb1 ansible_host=10.0.0.1\n"
        "[all:vars]\nansible_user=ops\nansible_ssh_private_key_file=/key\n"
    )
    keys = {"db1": "ssh-ed25519 AAAA1", "db2": "ssh-ed25519 AAAA2"}
    values = {"build": str(tmp_path), "target": "/backups", "host_keys": keys}
    return make_plan(read_settings({}, values, "test"))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    pulumi.runtime.set_mocks(made, project="epibackup", stack="nightly", preview=False)
    yield made
    pulumi.runtime.set_mocks(Recorder(), project="epibackup", stack="nightly", preview=False)


def declared(recorder: Recorder, plan: Plan, ready: Ready) -> dict[str, MockResourceArgs]:
    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        declare(plan, ready)

    program()
    return recorder.resources


def test_a_snapshot_is_one_command_a_service_and_host(recorder: Recorder, plan: Plan) -> None:
    resources = declared(recorder, plan, Ready("nightly", RUN, None))
    commands = {name for name, made in resources.items() if made.typ == "command:remote:Command"}
    assert {"haproxy-db1", "postgresql-db1", "postgresql-db2"} <= commands
    snapshot = resources["postgresql-db1"].inputs
    assert f"snapshot postgresql --run {RUN}" in snapshot["create"]
    assert snapshot["create"].startswith("sudo -n python3 /var/lib/epibackup/agent-")
    assert "delete" not in snapshot
    assert "triggers" not in snapshot
    assert snapshot["addPreviousOutputInEnv"] is False


def test_every_connection_pins_a_host_key_and_none_holds_a_private_one(
    recorder: Recorder, plan: Plan
) -> None:
    resources = declared(recorder, plan, Ready("nightly", RUN, None))
    connections = [
        made.inputs["connection"]["value"]  # wrapped, because it is marked secret
        for made in resources.values()
        if made.typ.startswith("command:remote:")
    ]
    assert len(connections) == 9
    for connection in connections:
        assert connection["hostKey"].startswith("ssh-ed25519 AAAA")
        assert "privateKey" not in connection
        assert connection["agentSocketPath"].endswith(".agent")


def test_two_runs_differ_only_in_the_run(recorder: Recorder, plan: Plan) -> None:
    first = dict(declared(recorder, plan, Ready("nightly", RUN, None)))
    recorder.resources.clear()
    second = declared(recorder, plan, Ready("nightly", "20261123T013000Z", None))
    changed = {
        name
        for name, made in first.items()
        if json.dumps(made.inputs, default=vars) != json.dumps(second[name].inputs, default=vars)
    }
    assert changed == {
        "haproxy-db1", "postgresql-db1", "postgresql-db2", "archive-make", "gate-check",
    }  # fmt: skip


def with_retention(plan: Plan, folder: Path, **rules: int) -> Plan:
    """The plan with a retention policy, and an old archive on its target."""
    target = folder / "backups"
    target.mkdir()
    policy = Retention(**rules)
    settings = plan.settings.model_copy(update={"retention": policy, "target": str(target)})
    return replace(plan, settings=settings, target=str(target))


def test_retention_is_declared_with_what_it_needs_and_only_where_there_is_a_policy(
    recorder: Recorder, plan: Plan, tmp_path: Path
) -> None:
    assert "retention" not in declared(recorder, plan, Ready("nightly", RUN, None))
    recorder.resources.clear()
    kept = with_retention(plan, tmp_path, keep_last=3, minimum_days=2)
    resources = declared(recorder, kept, Ready("nightly", RUN, None))
    shown = resources["retention"].inputs
    assert shown == {"policy": {"keep_last": 3, "minimum_days": 2}, "removes": []}
    request = json.loads(resources["retention-prune"].inputs["stdin"])
    assert request["run"] == RUN
    assert request["not_pruned"] == ""
    assert request["verified"] == {"a.zip": True}
    assert request["policy"]["keep_last"] == 3


@pytest.mark.parametrize(
    ("status", "verified", "why"),
    [
        ("ok", True, ""),
        ("incomplete", True, "the run is incomplete"),
        ("ok", False, "the archive was not read back"),
    ],
)
def test_only_a_good_run_removes_anything(status: str, verified: bool, why: str) -> None:
    assert why_not({"manifest": {"status": status}, "verified": verified}) == why


def test_a_host_that_cannot_be_used_fails_its_services_and_no_others(
    recorder: Recorder, plan: Plan
) -> None:
    probed = {
        "db1": Probed(None, agent_installed=True),
        "db2": Probed(Problem("db2 cannot be reached", "check it"), agent_installed=False),
    }
    resources = declared(recorder, plan, Ready("nightly", RUN, probed))
    assert "postgresql-db2" not in resources
    assert "agent-db2" not in resources
    request = json.loads(resources["archive-make"].inputs["stdin"])
    answers = {service["name"]: service["answers"] for service in request["services"]}
    assert answers["postgresql"]["db2"]["error"]["message"] == "db2 cannot be reached"
    assert answers["postgresql"]["db1"]["status"] == "ok"


def test_a_host_that_lost_its_agent_gets_it_again(recorder: Recorder, plan: Plan) -> None:
    lost = {name: Probed(None, agent_installed=False) for name in ("db1", "db2")}
    paths = []
    for ready in (Ready("nightly", RUN, None), Ready("nightly", RUN, lost)):
        recorder.resources.clear()
        resources = declared(recorder, plan, ready)
        paths.append(resources["agent-db1-copy"].inputs["remotePath"])
    assert paths[0] != paths[1]
    assert RUN in paths[1]


def test_failures_are_told_with_service_host_and_hint() -> None:
    error = {"message": "no space", "hint": "free some"}
    result = {
        "manifest": {
            "services": [
                {
                    "name": "postgresql",
                    "problems": ["no primary"],
                    "hosts": [{"host": "db1", "error": error}, {"host": "db2", "error": None}],
                }
            ]
        }
    }
    assert failures_of(result) == [
        "postgresql: no primary",
        "postgresql on db1: no space (free some)",
    ]


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"format": 1}'])
def test_an_answer_that_cannot_be_read_is_a_failed_one(text: str) -> None:
    assert parse_answer(text)["status"] == "failed"


def test_an_answer_of_an_unknown_format_is_a_failed_one() -> None:
    answer = parse_answer(json.dumps({**ANSWER, "format": 2}))
    assert answer["status"] == "failed"
    assert "unknown format 2" in answer["error"]["message"]

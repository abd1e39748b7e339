"""The gate on the real program: `pulumi preview --policy-pack` and `epibackup plan --gate`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.policy.stack import BUILD, GAPS, HOSTS, KEY, ROOT, Stack, stack_of_tests

PACK = ("--policy-pack", "policy")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stack_of_tests("test-gate", tmp_path) as made:
        yield made


def test_pulumi_preview_passes_what_is_configured_well(stack: Stack) -> None:
    stack.configure_well(build=str(BUILD.relative_to(ROOT)))
    assert stack.pulumi("stack", "init").returncode == 0
    done = stack.pulumi("preview", *PACK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[mandatory]" not in done.stdout
    # What it cannot demand yet, it says.
    assert "[advisory]  recipients" in done.stdout


def test_pulumi_preview_refuses_what_weakens_the_backup(stack: Stack) -> None:
    stack.configure_well(skip=["postgresql"], host_keys=dict.fromkeys(HOSTS[1:], KEY))
    assert stack.pulumi("stack", "init").returncode == 0
    done = stack.pulumi("preview", *PACK)
    assert done.returncode != 0
    assert "PostgreSQL (postgresql) on postgresql1, postgresql2 is not saved" in done.stdout
    assert done.stdout.count("The ssh host key of 192.168.100.110 is not known") == 1
    assert "[mandatory]  covered" in done.stdout
    assert "[mandatory]  host-keys-pinned" in done.stdout


def test_a_plan_that_policies_refuse_ends_with_code_5_and_says_why(stack: Stack) -> None:
    stack.configure_well(skip=["postgresql"])
    refused = stack.json("plan", "--gate", code=5)
    assert refused["error"]["code"] == "policy_refused"
    assert "covered" in refused["error"]["message"]
    (broken,) = [item for item in refused["violations"] if item["level"] == "mandatory"]
    assert broken["policy"] == "covered"
    assert "PostgreSQL (postgresql)" in broken["message"]
    # The plan itself is in the document all the same.
    assert "postgresql" not in [service["name"] for service in refused["services"]]

    done = stack.run("plan", "--gate")
    assert done.returncode == 5
    assert "mandatory covered: PostgreSQL (postgresql) on postgresql1, postgresql2" in done.stderr
    assert "error: refused by covered" in done.stderr


def test_a_plan_that_policies_accept_says_what_stays_open(stack: Stack) -> None:
    stack.configure_well()
    accepted = stack.json("plan", "--gate", "--diff")
    assert [item["policy"] for item in accepted["violations"]] == ["recipients"]
    assert accepted["since_last_run"]["run"] is None
    assert accepted["storage_changes"] == []
    (grafana,) = [item for item in accepted["missing"] if item["what"].startswith("Grafana")]
    assert grafana["exempt"] == {"owner": "jane", "reason": "made again", "until": "2027-01-31"}

    done = stack.run("plan", "--gate", "--diff")
    assert done.returncode == 0, done.stderr
    assert "exempt until 2027-01-31, jane: made again" in done.stderr
    assert "this stack has no run to compare with" in done.stderr


def test_policies_are_configured_by_a_file(stack: Stack, tmp_path: Path) -> None:
    stack.configure_well()
    config = tmp_path / "policies.json"
    config.write_text(json.dumps({"recipients": "mandatory"}))
    refused = stack.json("plan", "--gate", "--policy-config", str(config), code=5)
    assert "recipients" in refused["error"]["message"]
    config.write_text(json.dumps({"recipients": "disabled", "covered": {"longestDays": 1}}))
    refused = stack.json("plan", "--gate", "--policy-config", str(config), code=5)
    assert len(refused["violations"]) == len(GAPS)
    assert "recipients" not in {item["policy"] for item in refused["violations"]}


def test_a_refused_plan_is_not_saved(stack: Stack, tmp_path: Path) -> None:
    stack.configure_well(skip=["postgresql"])
    plan = tmp_path / "plan.json"
    stack.json("plan", "--gate", "--save-plan", str(plan), code=5)
    assert not plan.exists()
    stack.configure_well()
    saved = stack.json("plan", "--gate", "--save-plan", str(plan))
    assert saved["saved_plan"]["path"] == str(plan)
    assert plan.exists()


def test_storage_that_the_stack_would_make_is_told_and_judged(stack: Stack, echo: Path) -> None:
    """As a pull request that turns it on: `pulumi up` makes the bucket."""
    stack.environment["PATH"] = f"{echo}:{stack.environment['PATH']}"
    stack.environment["AWS_REGION"] = "eu-central-1"
    bucket = {"bucket": "archives-of-ours"}
    stack.configure_well(storage={"kind": "aws", "aws": bucket})
    accepted = stack.json("plan", "--gate", "--diff")
    assert "create Bucket storage-bucket" in accepted["storage_changes"]
    assert [item["policy"] for item in accepted["violations"]] == ["recipients"]

    stack.configure_well(storage={"kind": "aws", "aws": {**bucket, "protect": False}})
    refused = stack.json("plan", "--gate", code=5)
    assert "refused by storage-protected" in refused["error"]["message"]


def test_a_retention_that_keeps_too_little_is_refused(stack: Stack) -> None:
    stack.configure_well(retention={"keep_last": 1})
    refused = stack.json("plan", "--gate", code=5)
    said = [item["message"] for item in refused["violations"] if "retention" in item["policy"]]
    assert any("may leave only 1 of the archives" in message for message in said)
    assert any("Set minimum_days to 1 or more" in message for message in said)


def test_a_mistake_is_told_as_one_and_not_as_a_refusal(stack: Stack, tmp_path: Path) -> None:
    stack.configure(build="/no/such/build")
    assert stack.json("plan", "--gate", code=2)["error"]["code"] == "usage"
    stack.configure_well()
    error = stack.json("plan", "--gate", "--policy-config", str(tmp_path / "none"), code=1)["error"]
    assert "none" in error["message"]


def test_a_state_can_be_checked_without_the_program(stack: Stack, tmp_path: Path) -> None:
    state = {
        "version": 3,
        "deployment": {
            "manifest": {"time": "2026-11-22T01:30:00Z", "magic": "", "version": ""},
            "resources": [
                {
                    "urn": "urn:pulumi:test-gate::epibackup::aws:s3/bucket:Bucket::archives",
                    "custom": True,
                    "type": "aws:s3/bucket:Bucket",
                    "id": "archives",
                    "inputs": {"bucket": "archives"},
                    "outputs": {"bucket": "archives", "id": "archives"},
                }
            ],
        },
    }
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    done = stack.pulumi_alone("policy", "analyze", *PACK, "--file", str(path))
    assert done.returncode != 0
    for policy in ("storage-private", "storage-encrypted", "storage-versioned"):
        assert policy in done.stdout

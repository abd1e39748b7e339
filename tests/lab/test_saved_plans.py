"""Saved plans: what was previewed is what is done, or nothing is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from tests.lab.product import Product, product

RUN = "20261122T013000Z"
NEXT = "20261123T013000Z"


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-saved-plans") as made:
        yield made


def test_pulumi_does_what_its_saved_plan_says(epibackup: Product, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    epibackup.pulumi("stack", "init")
    # The first run brings the agents, the second finds them.
    for run in (RUN, NEXT):
        done = epibackup.pulumi("preview", "--save-plan", str(plan), EPIBACKUP_RUN_ID=run)
        assert done.returncode == 0, done.stdout + done.stderr
        done = epibackup.pulumi(
            "up", "--yes", "--skip-preview", "--plan", str(plan), EPIBACKUP_RUN_ID=run
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert epibackup.catalog()[0]["run"] == run


def test_pulumi_refuses_what_its_saved_plan_does_not_say(
    epibackup: Product, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    epibackup.pulumi("stack", "init")
    done = epibackup.pulumi("preview", "--save-plan", str(plan), EPIBACKUP_RUN_ID=RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    done = epibackup.pulumi(
        "up", "--yes", "--skip-preview", "--plan", str(plan), EPIBACKUP_RUN_ID=NEXT
    )
    assert done.returncode != 0
    assert "violates plan" in done.stdout + done.stderr
    assert epibackup.published() == []


def test_epibackup_does_what_its_saved_plan_says_and_nothing_else(
    epibackup: Product, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    saved = epibackup.json("plan", "--save-plan", str(plan), "--run", RUN)
    assert saved["saved_plan"] == {"path": str(plan), "run": RUN}
    assert plan.stat().st_mode & 0o077 == 0

    # Somebody changes what is saved after the plan was looked at.
    refused = epibackup.json(
        "backup", "--plan", str(plan), "--run", RUN, "--skip", "haproxy", code=5
    )
    assert "violates plan" in refused["error"]["message"]
    assert epibackup.published() == []

    made = epibackup.backup("--plan", str(plan), "--run", RUN)
    assert made["run"] == RUN
    assert epibackup.published() == [made["archive_key"]]
    # Once it is carried out there is nothing in it that is new; what changes after it, is.
    since = epibackup.json("plan", "--diff")["since_last_run"]
    assert since.pop("run") == RUN
    assert since.pop("status") == "ok"
    assert not any(since.values())
    since = epibackup.json("plan", "--diff", "--skip", "haproxy")["since_last_run"]
    assert since["gone_services"] == ["haproxy on loadbalancer1", "haproxy on loadbalancer2"]


def test_a_saved_plan_without_its_run_is_refused(epibackup: Product, tmp_path: Path) -> None:
    error = epibackup.json("backup", "--plan", str(tmp_path / "none"), code=2)["error"]
    assert "run" in error["message"]
    error = epibackup.json("backup", "--plan", str(tmp_path / "none"), "--run", RUN, code=2)[
        "error"
    ]
    assert "no plan" in error["message"]

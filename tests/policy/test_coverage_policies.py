"""What is not saved has an owner, a reason and a day; expired or missing ones are refused."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.archive.manifest import Missing
from components.errors import UsageError
from policy import coverage
from program.coverage import coverage_of
from program.exemptions import exemption_of, exemption_warnings
from program.options import Exemption
from program.plan import make_plan
from program.settings import read_settings
from tests.policy.support import policy_named, told

BUILD = Path(__file__).parents[1] / "builds" / "2.0-onprem"
TODAY = datetime.now(UTC).date()

COVERED = policy_named(coverage.POLICIES, "covered")


def exemption(what: str, until: date) -> dict[str, str]:
    return {"what": what, "owner": "jane", "reason": "it can be made again", "until": f"{until}"}


def said_of(config: dict[str, int] | None = None, **options: Any) -> list[str]:
    """What the policy says of a plan with these options."""
    values: dict[str, Any] = {"build": str(BUILD), "target": "/backups", **options}
    plan = make_plan(read_settings({}, values, "test"))
    return told(COVERED, coverage.COVERAGE, dict(coverage_of(plan)), config)


def gaps() -> list[str]:
    """The groups that this version cannot save, of the sample build."""
    plan = make_plan(read_settings({}, {"build": str(BUILD), "target": "/backups"}, "test"))
    return [item.what.rpartition("(")[2].rstrip(")") for item in plan.missing]


def test_everything_saved_or_exempt_passes() -> None:
    exempt = [exemption(group, TODAY) for group in gaps()]
    assert said_of(exempt=exempt) == []


def test_each_gap_without_an_exemption_is_told_with_its_reason() -> None:
    said = said_of()
    assert len(said) == len(gaps())
    assert any("OpenSearch (opensearch) on opensearch1 is not saved" in text for text in said)
    assert all("epibackup:exempt" in text for text in said)


@pytest.mark.parametrize("option", [{"skip": ["postgresql"]}, {"services": ["haproxy"]}])
def test_a_service_that_is_left_out_by_an_option_is_a_gap_like_any_other(
    option: dict[str, Any],
) -> None:
    exempt = [exemption(group, TODAY) for group in gaps()]
    said = said_of(exempt=exempt, **option)
    assert any(text.startswith("PostgreSQL (postgresql) on postgresql1") for text in said)


def test_an_exemption_ends_after_its_last_day() -> None:
    exempt = [exemption(group, TODAY) for group in gaps()]
    exempt[0]["until"] = f"{TODAY - timedelta(days=1)}"
    (said,) = said_of(exempt=exempt)
    assert "its exemption ended on" in said
    assert "jane answers for it" in said


def test_an_exemption_for_ever_is_none() -> None:
    exempt = [exemption(group, TODAY + timedelta(days=30)) for group in gaps()]
    assert said_of(exempt=exempt) == []
    assert len(said_of({"longestDays": 7}, exempt=exempt)) == len(exempt)


@pytest.mark.parametrize("left_out", ["what", "owner", "reason", "until"])
def test_an_incomplete_exemption_is_a_mistake_in_the_configuration(left_out: str) -> None:
    incomplete = {
        key: value for key, value in exemption("grafana", TODAY).items() if key != left_out
    }
    with pytest.raises(UsageError, match=f"epibackup:exempt.0.{left_out}"):
        said_of(exempt=[incomplete])
    with pytest.raises(UsageError, match=r"epibackup:exempt\.0"):
        said_of(exempt=[exemption("grafana", TODAY) | {left_out: ""}])


def test_a_backup_goes_on_with_an_ended_exemption_and_warns() -> None:
    """A run must not stop on the day an exemption ends; only the gate does."""
    ended = TODAY - timedelta(days=1)
    values: dict[str, Any] = {
        "build": str(BUILD),
        "target": "/b",
        "exempt": [exemption("grafana", ended)],
    }
    plan = make_plan(read_settings({}, values, "test"))
    assert [text for text in plan.warnings if "grafana was exempt until" in text]


def test_an_exemption_that_fits_nothing_is_warned_of() -> None:
    known = Exemption(**exemption("garfana", TODAY))
    item = Missing(what="Grafana (grafana)", hosts=["m1"], reason="not yet")
    (said,) = exemption_warnings([item], [known], TODAY)
    assert said == "epibackup:exempt: garfana names nothing that is missing"


def test_of_two_exemptions_the_longer_one_holds() -> None:
    item = Missing(what="Grafana (grafana)", hosts=["m1"], reason="not yet")
    short = Exemption(what="grafana", owner="a", reason="b", until=TODAY)
    long = Exemption(what="Grafana (grafana)", owner="c", reason="d", until=date(9999, 1, 1))
    assert exemption_of(item, [short, long]) == long
    assert exemption_of(item, [long, short]) == long


def test_unencrypted_archives_are_told_and_encrypted_ones_are_not() -> None:
    recipients = policy_named(coverage.POLICIES, "recipients")
    (said,) = told(recipients, coverage.ARCHIVE, {})
    assert "unencrypted" in said
    assert told(recipients, coverage.ARCHIVE, {"recipients": ["age1…"]}) == []
    assert told(recipients, "command:local:Command", {}) == []

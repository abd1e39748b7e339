"""No archive is removed before its time: not by epibackup, and not by the storage."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pulumi_policy.proxy import UnknownValueError

from policy import retention
from tests.policy.support import UNKNOWN, policy_named, told

RETENTION = policy_named(retention.POLICIES, "retention-minimum")
LIFECYCLE = policy_named(retention.POLICIES, "lifecycle-minimum")
WEEK = {"leastDays": 7, "leastArchives": 3}


def archive(days: int) -> str:
    """The name of an archive that is so old."""
    made = datetime.now(UTC) - timedelta(days=days, minutes=1)
    return f"epibackup_production_{made:%Y%m%dT%H%M%SZ}.zip"


def said_of(rules: dict[str, int], removes: Any = (), config: Any = WEEK) -> list[str]:
    removes = removes if removes == UNKNOWN else list(removes)
    return told(RETENTION, retention.RETENTION, {"policy": rules, "removes": removes}, config)


def test_rules_that_keep_enough_pass() -> None:
    assert said_of({"keep_last": 3, "minimum_days": 7}) == []
    assert said_of({"keep_daily": 7, "minimum_days": 30}, [archive(31), archive(40)]) == []


@pytest.mark.parametrize("rules", [{"keep_last": 3}, {"keep_daily": 4, "minimum_days": 6}])
def test_rules_that_may_remove_sooner_are_refused(rules: dict[str, int]) -> None:
    (said,) = said_of(rules)
    assert "Set minimum_days to 7 or more" in said


@pytest.mark.parametrize("rules", [{"keep_last": 2}, {"keep_within_days": 30}])
def test_rules_that_keep_too_few_are_refused(rules: dict[str, int]) -> None:
    (said,) = said_of({**rules, "minimum_days": 7})
    assert "at least 3 are asked for" in said


def test_more_than_the_last_archive_is_kept_where_nothing_is_configured() -> None:
    (said,) = said_of({"keep_last": 1, "minimum_days": 1}, config=None)
    assert "may leave only 1 of the archives" in said
    assert said_of({"keep_last": 2, "minimum_days": 1}, config=None) == []


def test_an_archive_that_is_too_young_or_of_unknown_age_is_not_removed() -> None:
    rules = {"keep_last": 3, "minimum_days": 10}
    young = archive(9)
    (said,) = said_of(rules, [archive(11), young])
    assert young in said
    (said,) = said_of(rules, ["holiday.zip"])
    assert "holiday.zip" in said


def test_a_removal_that_is_not_known_yet_is_not_taken_for_none() -> None:
    with pytest.raises(UnknownValueError):
        said_of({"keep_last": 3, "minimum_days": 7}, UNKNOWN)


@pytest.mark.parametrize(
    "rule",
    [{"expiration": {"days": 29}}, {"noncurrentVersionExpiration": {"noncurrentDays": 29}}],
)
def test_a_lifecycle_does_not_undercut_the_stacks_own_minimum(
    rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(status: str = "Enabled") -> list[str]:
        props = {"rules": [{**rule, "status": status}]}
        return told(LIFECYCLE, retention.LIFECYCLES[0], props, WEEK)

    declare(monkeypatch, minimum_days=30)
    assert "after 29 days" in said()[0]
    assert "30 days are asked for" in said()[0]
    assert said("Disabled") == []
    declare(monkeypatch, minimum_days=29)
    assert said() == []
    declare(monkeypatch)
    assert said() == []


def test_unfinished_uploads_and_archive_tiers_are_no_removal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, minimum_days=30)
    rule = {
        "status": "Enabled",
        "abortIncompleteMultipartUpload": {"daysAfterInitiation": 1},
        "transitions": [{"days": 1, "storageClass": "GLACIER_IR"}],
    }
    assert told(LIFECYCLE, retention.LIFECYCLES[0], {"rules": [rule]}, WEEK) == []


def declare(monkeypatch: pytest.MonkeyPatch, **section: int) -> None:
    """Set the stack's retention, as Pulumi tells it to a pack."""
    config = {retention.SECTION: json.dumps(section)} if section else {}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))

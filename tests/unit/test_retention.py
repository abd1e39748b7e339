"""Which archives stay: what every policy owes its owner, for any archives at all."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.retention.judging import FOREVER, Entry, Verdict, judge
from components.retention.policy import Retention

CLUSTER = "prod"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SERVICES = ("kafka", "postgresql")
RULES = (
    "keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within_days",
)  # fmt: skip


def entry(day: str, **changes: Any) -> Entry:
    """A good archive of all services, made at a time of 2026: 11-20 or 11-20T15."""
    made = datetime.fromisoformat(f"2026-{day}").replace(tzinfo=UTC)
    run = f"{made:%Y%m%dT%H%M%SZ}"
    return replace(
        Entry(
            key=f"epibackup_prod_{run}.zip",
            run=run,
            made=made,
            cluster=CLUSTER,
            bytes=1,
            status="ok",
            services=frozenset(SERVICES),
            inventory=frozenset(SERVICES),
        ),
        **changes,
    )


def kept(entries: Sequence[Entry], as_of: datetime = NOW, **rules: int) -> dict[str, list[str]]:
    """What stays, by day and hour, with the reasons."""
    return {
        f"{verdict.entry.made:%m-%dT%H}": list(verdict.reasons)
        for verdict in judge(entries, Retention(**rules), CLUSTER, as_of)
        if verdict.keep
    }


@st.composite
def archives(draw: st.DrawFn) -> list[Entry]:
    """Any archives: good and bad, held and locked, of several years, some of one moment."""
    found = []
    for index in range(draw(st.integers(0, 25))):
        hours = draw(st.integers(-48, 24 * 900))
        made = NOW - timedelta(hours=hours)
        services = draw(st.frozensets(st.sampled_from(SERVICES)))
        run = f"{made:%Y%m%dT%H%M%SZ}"
        found.append(
            Entry(
                key=f"epibackup_prod_{run}_{index}.zip",
                run=run,
                made=made,
                cluster=draw(st.sampled_from([CLUSTER] * 9 + ["other"])),
                bytes=1,
                status=draw(st.sampled_from(["ok", "ok", "ok", "incomplete", None])),
                services=services,
                inventory=services | draw(st.frozensets(st.sampled_from(SERVICES))),
                verified=draw(st.sampled_from([True, True, True, False])),
                number=index,
                hold=draw(st.sampled_from([None] * 5 + ["audit"])),
                locked_until=draw(
                    st.sampled_from([None] * 5 + [NOW + timedelta(days=1), NOW, FOREVER])
                ),
            )
        )
    return found


@st.composite
def policies(draw: st.DrawFn) -> Retention:
    rules: dict[str, int] = {
        rule: draw(st.integers(0, 6)) for rule in draw(st.sets(st.sampled_from(RULES), min_size=1))
    }
    if not any(rules.values()):
        rules["keep_last"] = 1
    if draw(st.booleans()):
        rules["minimum_days"] = draw(st.integers(0, 40))
    return Retention(**rules)


def split(verdicts: list[Verdict]) -> tuple[list[Entry], list[Entry]]:
    return (
        [verdict.entry for verdict in verdicts if verdict.keep],
        [verdict.entry for verdict in verdicts if not verdict.keep],
    )


@given(archives(), policies())
def test_every_archive_has_one_verdict_with_a_reason(found: list[Entry], policy: Retention) -> None:
    verdicts = judge(found, policy, CLUSTER, NOW)
    assert sorted(verdict.entry.key for verdict in verdicts) == sorted(one.key for one in found)
    for verdict in verdicts:
        assert verdict.reasons
        assert all(verdict.reasons)
    stay, go = split(verdicts)
    assert not {one.key for one in stay} & {one.key for one in go}


@given(archives(), policies())
def test_pruning_twice_is_pruning_once(found: list[Entry], policy: Retention) -> None:
    stay, _ = split(judge(found, policy, CLUSTER, NOW))
    again, gone = split(judge(stay, policy, CLUSTER, NOW))
    assert gone == []
    assert again == stay


@given(archives(), policies(), st.data())
def test_raising_a_number_never_removes_more(
    found: list[Entry], policy: Retention, data: st.DataObject
) -> None:
    rule = data.draw(st.sampled_from((*RULES, "minimum_days")))
    raised = (getattr(policy, rule) or 0) + data.draw(st.integers(1, 5))
    more = Retention(**{**policy.model_dump(exclude_none=True), rule: raised})
    _, before = split(judge(found, policy, CLUSTER, NOW))
    _, after = split(judge(found, more, CLUSTER, NOW))
    assert {one.key for one in after} <= {one.key for one in before}


@given(archives(), policies(), st.randoms(use_true_random=False))
def test_the_order_of_archives_does_not_matter(
    found: list[Entry], policy: Retention, random: Any
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert judge(shuffled, policy, CLUSTER, NOW) == judge(found, policy, CLUSTER, NOW)


@given(archives(), policies())
def test_what_is_not_known_to_be_safe_to_remove_stays(
    found: list[Entry], policy: Retention
) -> None:
    _, go = split(judge(found, policy, CLUSTER, NOW))
    for one in go:
        assert one.cluster == CLUSTER
        assert one.status is not None, "an unreadable archive would go"
        assert one.made <= NOW, "a later run's archive would go"
        assert one.hold is None
        assert one.locked_until is None or one.locked_until <= NOW
        assert NOW - one.made >= timedelta(days=policy.minimum_days or 0)


@given(archives(), policies())
def test_the_last_good_archive_stays_and_of_each_service_the_last_good_one(
    found: list[Entry], policy: Retention
) -> None:
    stay, _ = split(judge(found, policy, CLUSTER, NOW))
    good = [one for one in found if one.is_good and one.cluster == CLUSTER and one.made <= NOW]
    if good:
        assert max(good, key=lambda one: one.order) in stay
    for service in SERVICES:
        complete = [one for one in good if service in one.services]
        if complete:
            assert max(complete, key=lambda one: one.order) in stay


@given(archives(), policies())
def test_a_bad_archive_stands_in_for_a_day_only_where_no_good_one_could(
    found: list[Entry], policy: Retention
) -> None:
    good = [one for one in found if one.is_good and one.cluster == CLUSTER and one.made <= NOW]
    for verdict in judge(found, policy, CLUSTER, NOW):
        one = verdict.entry
        if one.is_good or not any(reason.startswith("daily") for reason in verdict.reasons):
            continue
        that_day = [other for other in good if other.made.date() == one.made.date()]
        assert one.services - frozenset().union(*(other.services for other in that_day))


# -- what an operator expects, example by example --------------------------------------------------


def test_each_rule_keeps_what_it_says() -> None:
    found = [entry(f"11-{day:02}") for day in range(1, 23)] + [entry("11-22T09")]
    assert kept(found, keep_last=2) == {
        "11-22T09": ["last good", "last 2"],
        "11-22T00": ["last 2"],
    }
    assert kept(found, keep_daily=2) == {
        "11-22T09": ["last good", "daily 2026-11-22"],
        "11-21T00": ["daily 2026-11-21"],
    }
    # 2026-11-22 is a Sunday: the end of ISO week 47.
    assert kept(found, keep_weekly=2) == {
        "11-22T09": ["last good", "weekly 2026-W47"],
        "11-15T00": ["weekly 2026-W46"],
    }
    assert kept([*found, entry("10-31T23")], keep_monthly=5, keep_yearly=1) == {
        "11-22T09": ["last good", "monthly 2026-11", "yearly 2026"],
        "10-31T23": ["monthly 2026-10"],
    }
    assert list(kept(found, keep_within_days=1)) == ["11-22T09", "11-22T00"]


def test_days_without_a_backup_are_not_counted() -> None:
    found = [entry("11-01"), entry("11-10"), entry("11-20")]
    assert list(kept(found, keep_daily=2)) == ["11-20T00", "11-10T00"]


def test_an_incomplete_run_takes_no_good_ones_place() -> None:
    found = [
        entry("11-19"),
        entry("11-20T01"),
        entry("11-20T15", status="incomplete", services=frozenset({"postgresql"})),
        entry("11-21"),
    ]
    assert list(kept(found, keep_daily=3)) == ["11-21T00", "11-20T01", "11-19T00"]


def test_an_incomplete_run_stands_in_for_a_day_without_a_good_one_and_is_not_counted() -> None:
    some = frozenset({"postgresql"})
    found = [
        entry("11-19"),
        entry("11-20", status="incomplete", services=some),
        entry("11-20T15", status="incomplete", services=some),
        entry("11-21"),
    ]
    stay = kept(found, keep_daily=2)
    assert list(stay) == ["11-21T00", "11-20T15", "11-19T00"]
    assert stay["11-20T15"] == ["daily 2026-11-20"]
    assert stay["11-19T00"] == ["daily 2026-11-19"], "of all its services, not only of kafka"


def test_what_is_newer_than_the_last_good_one_stays() -> None:
    found = [
        entry("11-19"),
        entry("11-20", verified=False),
        entry("11-21", status="incomplete", services=frozenset()),
    ]
    assert kept(found, keep_last=1) == {
        "11-21T00": ["newer than the last good"],
        "11-20T00": ["newer than the last good"],
        "11-19T00": ["last good", "last 1"],
    }


def test_without_a_good_archive_nothing_goes() -> None:
    found = [entry("11-19", verified=False), entry("11-20", status="incomplete")]
    assert len(kept(found, keep_last=1)) == 2


def test_an_archive_of_one_service_takes_nothing_from_the_others() -> None:
    """`epibackup --service postgresql` in the afternoon is a good run, too."""
    alone = entry("11-21T15", services=frozenset({"postgresql"}))
    found = [entry("11-20T01"), entry("11-21T01"), alone]
    stay = kept(found, keep_daily=1, keep_last=1)
    assert list(stay) == ["11-21T15", "11-21T01"]
    assert stay["11-21T01"] == ["last with kafka", "last 1 (kafka)", "daily 2026-11-21 (kafka)"]


def test_of_a_service_that_left_the_cluster_the_last_archive_stays_and_only_that() -> None:
    only = frozenset({"postgresql"})
    later = [entry(f"11-{day}", services=only, inventory=only) for day in range(15, 20)]
    found = [entry("11-10"), entry("11-11"), *later]
    stay = kept(found, keep_last=3)
    assert list(stay) == ["11-19T00", "11-18T00", "11-17T00", "11-11T00"]
    assert stay["11-11T00"] == ["last with kafka"]


def test_a_service_that_fails_for_a_while_keeps_what_the_rules_want_of_it() -> None:
    failing = frozenset({"postgresql"})
    found = [
        entry("11-10"),
        entry("11-11"),
        *(entry(f"11-{day}", services=failing) for day in range(15, 20)),
    ]
    assert list(kept(found, keep_last=2)) == ["11-19T00", "11-18T00", "11-11T00", "11-10T00"]


def test_an_archive_of_the_future_stays_and_takes_no_place() -> None:
    """A machine whose clock was a year ahead once must not cost the run its own archive."""
    found = [entry("11-20"), entry("11-21"), entry("12-31")]
    assert kept(found, keep_last=1) == {
        "12-31T00": ["newer than this run"],
        "11-21T00": ["last good", "last 1"],
    }


def test_reasons_say_why_something_stays() -> None:
    found = [
        entry("11-01", hold="audit"),
        entry("11-02", locked_until=NOW + timedelta(days=3)),
        entry("11-03", locked_until=FOREVER),
        entry("11-04", status=None, problem="it is cut"),
        entry("11-05", cluster="prod-2"),
        entry("11-20"),
        entry("11-21"),
    ]
    assert kept(found, keep_last=1, minimum_days=3) == {
        "11-21T00": ["younger than the minimum of 3 days", "last good", "last 1"],
        "11-20T00": ["younger than the minimum of 3 days"],
        "11-05T00": ["other cluster: prod-2"],
        "11-04T00": ["unknown: it is cut"],
        "11-03T00": ["locked"],
        "11-02T00": ["locked until 2026-11-25 12:00 UTC"],
        "11-01T00": ["held: audit"],
    }


def test_a_week_at_the_turn_of_the_year_is_one_week() -> None:
    found = [entry("01-01"), entry("01-03")]  # 2026-01-01 is a Thursday: week 2026-W01
    before = replace(entry("01-01"), key="dec", made=datetime(2025, 12, 30, tzinfo=UTC))
    stay = kept([*found, before], keep_weekly=5)
    assert stay == {"01-03T00": ["last good", "weekly 2026-W01"]}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"keep_last": 0}, "would remove every archive but the last"),
        ({"keep_daily": 0, "keep_within_days": 0, "minimum_days": 5}, "set one of them"),
        ({"keep_last": -1}, "greater than or equal to 0"),
        ({"keep_dayly": 1}, "Extra inputs"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(rules: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Retention(**rules)


def test_without_a_rule_nothing_goes() -> None:
    found = [entry("11-19"), entry("11-20")]
    assert len(kept(found)) == 2
    assert len(kept(found, minimum_days=1)) == 2
    assert not Retention(minimum_days=1).is_active

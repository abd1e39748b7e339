"""The catalog grows by a run at a time, newest first, and never has an archive twice."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from program.catalog import LARGEST, add_entry, entry_of, verified_in, without

ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"run": st.integers(0, 30).map("{:016d}".format), "key": st.integers(0, 30).map(str)}
    ),
    max_size=40,
)


@given(ENTRIES)
def test_every_run_is_kept_once_and_in_order(entries: list[dict[str, Any]]) -> None:
    catalog: list[dict[str, Any]] = []
    for entry in entries:
        catalog = add_entry(catalog, entry)
    assert {entry["key"] for entry in catalog} == {entry["key"] for entry in entries}
    assert len(catalog) == len({entry["key"] for entry in catalog})
    assert [entry["run"] for entry in catalog] == sorted(
        (entry["run"] for entry in catalog), reverse=True
    )


def test_the_catalog_does_not_grow_for_ever() -> None:
    catalog = [{"run": f"{number:016d}", "key": str(number)} for number in range(LARGEST)]
    grown = add_entry(catalog, {"run": "9", "key": "new"})
    assert len(grown) == LARGEST
    assert grown[0]["key"] == "new"


def test_an_entry_says_what_a_run_is_worth() -> None:
    result = {
        "key": "epibackup_prod_20261122T013000Z.zip",
        "bytes": 10,
        "sha256": "ab",
        "verified": True,
        "manifest": {
            "run": "20261122T013000Z",
            "status": "incomplete",
            "services": [{"name": "postgresql", "status": "failed"}],
            "missing": [{"what": "Kafka (kafka)"}],
            "encryption": None,
            "epibackup_version": "0.1.0",
        },
    }
    entry = entry_of(result)
    assert entry["status"] == "incomplete"
    assert entry["services"] == {"postgresql": "failed"}
    assert entry["missing"] == ["Kafka (kafka)"]
    assert entry["encrypted"] is False


def test_what_was_removed_is_no_longer_in_the_catalog() -> None:
    catalog = [{"run": "2", "key": "b"}, {"run": "1", "key": "a"}]
    assert without(catalog, ["a", "c"]) == [{"run": "2", "key": "b"}]


def test_whether_an_archive_was_read_back_may_be_unknown() -> None:
    catalog: list[dict[str, Any]] = [
        {"key": "a", "verified": True},
        {"key": "b", "verified": False},
        {"key": "c", "verified": None},
        {"key": "d"},
    ]
    assert verified_in(catalog) == {"a": True, "b": False}

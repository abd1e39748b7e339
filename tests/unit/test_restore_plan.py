"""Choosing what is restored: the newest good run, its services, parts and hosts."""

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.archive.manifest import (
    FORMAT,
    Failure,
    HostRecord,
    Manifest,
    Member,
    Part,
    ServiceRecord,
)
from components.errors import NotFound, UsageError
from components.storage.directory import Directory
from program.restore import Wanted, plan_restore
from program.runs import find_run, list_runs

TIME = datetime(2026, 11, 22, tzinfo=UTC)


def member(path: str, **content: Any) -> Member:
    part = Part(path=path, bytes=1, sha256="0")
    return Member(path=path, kind="file", stored_bytes=1, parts=[part], content=content)


def manifest(run: str = "20261122T013000Z", **status: str) -> Manifest:
    """A manifest of two services; status: failed for those that are."""
    databases = [
        member("postgresql/db1/shop.dump.zst", part="shop", database="shop"),
        member("postgresql/db1/other.dump.zst", part="other", database="other"),
        member("postgresql/db1/globals.sql.zst", part="globals", always=True),
    ]
    failed = status.get("postgresql") == "failed"
    db1 = HostRecord(
        host="db1",
        address="10.0.0.1",
        status="failed" if failed else "ok",
        error=Failure(message="server is down") if failed else None,
        members=[] if failed else databases,
    )
    lb1 = HostRecord(
        host="lb1", address="10.0.0.2", status="ok", members=[member("haproxy/lb1/files.tar.zst")]
    )
    return Manifest(
        format=FORMAT,
        run=run,
        cluster="prod",
        status="incomplete" if failed else "ok",
        started=TIME,
        finished=TIME,
        epibackup_version="0.1.0",
        services=[
            ServiceRecord(name="haproxy", status="ok", hosts=[lb1]),
            ServiceRecord(name="postgresql", status="failed" if failed else "ok", hosts=[db1]),
        ],
        missing=[],
        inventory={},
    )


def store(folder: Path, made: Manifest, suffix: str = "") -> None:
    name = f"epibackup_{made.cluster}_{made.run}{suffix}.zip"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("manifest.json", made.model_dump_json())


def test_everything_goes_back_where_it_came_from_by_default() -> None:
    planned = plan_restore(manifest(), Wanted()).on_hosts
    assert [(item.service, item.source, item.host, len(item.members)) for item in planned] == [
        ("haproxy", "lb1", "lb1", 1),
        ("postgresql", "db1", "db1", 3),
    ]
    assert planned[1].request["options"]["mapped"] is False


def test_a_part_comes_with_what_it_always_needs() -> None:
    planned = plan_restore(manifest(), Wanted(parts=["shop"], rename={"shop": "shop2"})).on_hosts
    assert [item.service for item in planned] == ["postgresql"]
    assert [member.name for member in planned[0].members] == ["shop.dump.zst", "globals.sql.zst"]
    assert planned[0].request["options"]["rename"] == {"shop": "shop2"}


def test_a_host_gets_another_ones_data() -> None:
    wanted = Wanted(services=["postgresql"], host_map={"db1": "db9"})
    planned = plan_restore(manifest(), wanted).on_hosts
    assert (planned[0].source, planned[0].host) == ("db1", "db9")
    assert planned[0].request["options"]["mapped"] is True


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        (Wanted(services=["postgres"]), "did you mean postgresql?"),
        (Wanted(parts=["shopp"]), "did you mean shop?"),
        (Wanted(hosts=["db11"]), "did you mean db1?"),
        (Wanted(host_map={"db11": "x"}), "did you mean db1?"),
        (Wanted(rename={"shop": "x"}), "--part"),
    ],
)
def test_a_name_that_the_archive_has_not_is_refused_with_the_nearest(
    wanted: Wanted, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_restore(manifest(), wanted)
    assert hint in caught.value.hint


def test_a_service_that_was_not_saved_says_why() -> None:
    with pytest.raises(NotFound, match="has no postgresql: server is down"):
        plan_restore(manifest(postgresql="failed"), Wanted(services=["postgresql"]))


def test_latest_is_the_newest_run_that_is_complete(tmp_path: Path) -> None:
    store(tmp_path, manifest("20261120T013000Z"))
    store(tmp_path, manifest("20261121T013000Z"))
    store(tmp_path, manifest("20261122T013000Z", postgresql="failed"))
    (tmp_path / "epibackup_prod_20261123T013000Z.zip").write_bytes(b"damaged")
    (tmp_path / "other.zip").write_bytes(b"not ours")
    target = Directory(str(tmp_path))
    assert find_run(target, "latest", "prod", []).run == "20261121T013000Z"
    assert find_run(target, "latest", "prod", ["haproxy"]).run == "20261122T013000Z"
    runs = list(list_runs(target))
    assert [run.run[6:8] for run in runs] == ["23", "22", "21", "20"]
    assert "damaged or cut" in runs[0].problem


def test_of_two_archives_of_a_run_the_later_is_taken(tmp_path: Path) -> None:
    for suffix in ("", "_1", "_10", "_2"):
        store(tmp_path, manifest(), suffix)
    found = find_run(Directory(str(tmp_path)), "20261122T013000Z", None, [])
    assert found.key == "epibackup_prod_20261122T013000Z_10.zip"


def test_another_clusters_archive_is_not_latest(tmp_path: Path) -> None:
    store(tmp_path, manifest())
    with pytest.raises(NotFound):
        find_run(Directory(str(tmp_path)), "latest", "staging", [])


def test_a_run_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no run 20260101T000000Z"):
        find_run(Directory(str(tmp_path)), "20260101T000000Z", None, [])

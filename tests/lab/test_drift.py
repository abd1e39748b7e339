"""Storage made as code, its drift, and what becomes of runs then, through the product."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.s3.models import FakeBucket

from lab import Site
from tests.lab.product import Product, product
from tests.storage.conftest import cloud, doubles, s3

__all__ = ["cloud", "doubles", "s3"]


@pytest.fixture(autouse=True)
def without_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks at a bucket's policy but not at its conditions (moto 5.2): it would refuse
    what came by TLS, too."""
    monkeypatch.setattr(FakeBucket, "get_permission", lambda *_: None)


SERVICE = ("--service", "haproxy")


@pytest.fixture
def epibackup(
    site: Site,
    tmp_path: Path,
    cloud: Mapping[str, str],
    doubles: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Product]:
    """The product with a bucket of its own, which the stack makes."""
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**8}"
    with product(site.cluster, tmp_path, "test-drift-storage") as made:
        made.environment |= cloud
        made.environment["PATH"] = os.pathsep.join((str(doubles), made.environment["PATH"]))
        made.configure(
            target=f"s3://{bucket}/nightly",
            storage={"kind": "aws", "aws": {"bucket": bucket, "prefix": "nightly"}},
            s3={"path_style": True},
        )
        made.bucket = bucket  # type: ignore[attr-defined]
        yield made


def found(document: dict[str, Any], level: str) -> set[str]:
    """What drift has found at a level."""
    return {item["what"] for item in document["differences"] if item["level"] == level}


def test_a_run_makes_the_bucket_and_fills_it_and_a_weaker_one_is_refused(
    epibackup: Product, s3: Any
) -> None:
    bucket = epibackup.bucket  # type: ignore[attr-defined]
    made = epibackup.backup(*SERVICE)
    assert made["status"] == "ok"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [f"nightly/{made['archive_key']}"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert found(epibackup.json("drift"), "drift") == set()

    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.delete_public_access_block(Bucket=bucket)
    drifted = epibackup.json("drift", code=5)
    assert {"s3-versioning", "s3-public-access"} <= found(drifted, "drift")
    assert any("storage-versioning" in what for what in found(drifted, "drift"))
    assert "keeps no old versions" in drifted["error"]["message"]
    before = epibackup.json("catalog")
    refused = epibackup.backup(*SERVICE, code=5)["error"]
    assert "protected less than at the last run" in refused["message"]
    assert "pulumi up --refresh" in refused["hint"]
    assert epibackup.json("catalog") == before, "a refused run has changed the catalog"
    assert epibackup.leftovers() == {}, "a refused run has done something on the hosts"

    done = epibackup.pulumi("up", "--yes", "--refresh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert found(epibackup.json("drift"), "drift") == set()
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 2


def test_a_weakness_that_is_accepted_refuses_nothing(epibackup: Product, s3: Any) -> None:
    bucket = epibackup.bucket  # type: ignore[attr-defined]
    epibackup.backup(*SERVICE)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    epibackup.backup(*SERVICE, code=5)
    epibackup.configure(
        target=f"s3://{bucket}/nightly",
        storage={"kind": "aws", "aws": {"bucket": bucket, "prefix": "nightly"}},
        s3={"path_style": True},
        accept=["s3-versioning"],
    )
    assert epibackup.backup(*SERVICE)["status"] == "ok"


def test_a_bucket_that_was_weak_from_the_first_day_is_told_and_used(
    site: Site, tmp_path: Path, cloud: Mapping[str, str], s3: Any
) -> None:
    s3.create_bucket(Bucket="weak-from-the-first-day")
    with product(site.cluster, tmp_path, "test-drift-weak") as made:
        made.environment |= cloud
        made.configure(target="s3://weak-from-the-first-day", s3={"path_style": True})
        assert made.backup(*SERVICE)["status"] == "ok"
        assert made.backup(*SERVICE)["status"] == "ok"
        notes = made.json("drift")["differences"]
        told = {item["what"]: item["message"] for item in notes if item["level"] == "note"}
        assert "as at the last run" in told["s3-versioning"]
        boto3.Session().client("s3").put_bucket_policy(
            Bucket="weak-from-the-first-day",
            Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",'
            ' "Action": "s3:GetObject", "Resource": "arn:aws:s3:::weak-from-the-first-day/*"}]}',
        )
        worse = made.json("drift", code=5)
        assert found(worse, "drift") == {"s3-public-policy"}


def test_archives_that_are_gone_changed_or_unknown_are_told(site: Site, tmp_path: Path) -> None:
    with product(site.cluster, tmp_path, "test-drift") as made:
        names = [made.backup(*SERVICE)["archive_key"] for _ in range(3)]
        assert made.json("drift")["differences"] == []
        state = sorted((tmp_path / "backend").rglob("*.json"))
        before = [path.read_bytes() for path in state]
        paths = [made.target / name for name in names]
        paths[0].unlink()
        paths[1].write_bytes(paths[1].read_bytes() + b"more")
        data = bytearray(paths[2].read_bytes())
        place = data.index(b'"epibackup_version"')
        data[place + 24] ^= 1
        paths[2].write_bytes(data)
        foreign = made.target / names[0].replace(made.cluster.definition.name, "elsewhere")
        foreign.write_bytes(b"of another cluster")
        unknown = made.target / names[0].replace("2026", "2025")
        unknown.write_bytes(b"nobody knows")
        drifted = made.json("drift", code=5)
        assert found(drifted, "drift") == set(names)
        assert found(drifted, "note") == {unknown.name}
        messages = {item["what"]: item["message"] for item in drifted["differences"]}
        assert "gone from the target" in messages[names[0]]
        assert "not what was stored" in messages[names[1]]
        assert [path.read_bytes() for path in state] == before, "drift has written the state"


def test_a_folder_that_others_may_use_is_told(site: Site, tmp_path: Path) -> None:
    with product(site.cluster, tmp_path, "test-drift-folder") as made:
        made.target.chmod(0o755)
        assert "mode 0755" in str(made.json("plan")["warnings"])
        made.configure(accept=["directory-mode"])
        assert made.json("plan")["warnings"] == []

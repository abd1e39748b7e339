"""Storage that the run itself makes: a bucket on a real S3 server, and a folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from lab.services.minio import Minio
from tests.lab.product import Product, product
from tests.storage.conftest import doubles
from tests.targets.minio_servers import client, minio, minio_executable, minio_report

__all__ = ["doubles", "minio", "minio_executable", "minio_report"]


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-provisioning") as made:
        yield made


@pytest.fixture
def in_a_bucket(epibackup: Product, minio: Minio, doubles: Path, tmp_path: Path) -> Product:
    """With storage of the kind aws, and no target."""
    epibackup.environment.update(
        {
            **minio.environment,
            "AWS_ENDPOINT_URL": minio.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "EPIBACKUP_TEST_REMEMBERED": str(tmp_path / "remembered.json"),
            "PATH": os.pathsep.join((str(doubles), os.environ["PATH"])),
        }
    )
    epibackup.configure(
        target=None,
        services=["haproxy"],
        s3={"endpoint_url": minio.endpoint},
        storage={"kind": "aws", "aws": {"bucket": "made-by-the-run", "prefix": "production"}},
    )
    return epibackup


def test_the_first_run_makes_the_bucket_and_fills_it_and_the_next_only_fills_it(
    in_a_bucket: Product, minio: Minio
) -> None:
    first = in_a_bucket.backup()
    assert first["archive"]["target"] == "s3://made-by-the-run/production"
    assert first["archive"]["verified"]
    s3 = client(minio)
    stored = s3.head_object(Bucket="made-by-the-run", Key=f"production/{first['archive_key']}")
    assert stored["ContentLength"] == first["archive"]["bytes"]
    assert stored["ServerSideEncryption"] == "AES256"
    assert s3.get_bucket_versioning(Bucket="made-by-the-run")["Status"] == "Enabled"
    # What follows from the storage is not written down as the target.
    assert "s3://" not in in_a_bucket.stack_file.read_text()

    second = in_a_bucket.backup()
    runs = in_a_bucket.json("list")["runs"]
    assert [run["run"] for run in runs] == [second["run"], first["run"]]
    made = in_a_bucket.pulumi("stack", "output", "storage", "--json")
    assert '"s3://made-by-the-run/production"' in made.stdout
    exported = in_a_bucket.pulumi("stack", "export")
    for secret in (minio.secret_key, minio.access_key):
        assert secret not in exported.stdout

    refused = in_a_bucket.pulumi("destroy", "--yes")
    assert refused.returncode != 0
    assert s3.head_object(Bucket="made-by-the-run", Key=f"production/{first['archive_key']}")


def test_a_bucket_that_cannot_be_made_ends_the_run_before_anything_is_done_on_hosts(
    in_a_bucket: Product, minio: Minio
) -> None:
    in_a_bucket.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"  # noqa: S105
    done = in_a_bucket.run()
    assert done.returncode == 1
    assert "SignatureDoesNotMatch" in done.stderr
    assert in_a_bucket.leftovers() == {}


def test_a_folder_is_made_once_and_is_missed_when_it_is_gone(
    epibackup: Product, tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "archives"
    storage = {"kind": "directory", "directory": {"path": str(folder)}}
    epibackup.configure(target=None, services=["haproxy"], storage=storage)
    first = epibackup.backup()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / first["archive_key"]).exists()
    shutil.rmtree(folder)
    done = epibackup.run()
    assert done.returncode == 8
    assert f"the target {folder} does not exist" in done.stderr
    assert not folder.exists()

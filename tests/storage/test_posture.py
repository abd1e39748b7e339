"""How a target is protected, asked of real servers and folders."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from types_boto3_s3 import S3Client

from components.storage.options import S3Options, TargetOptions
from components.storage.posture import posture
from components.storage.provision.aws_policies import writer_policy
from lab.services.minio import Minio
from tests.engine.support.projects import Project
from tests.storage.conftest import Storage
from tests.storage.test_identities import credentials
from tests.targets.minio_servers import (
    bucket,
    environment,
    minio,
    minio_executable,
    minio_report,
    seen,
)

__all__ = ["bucket", "minio", "minio_executable", "minio_report", "seen"]


def levels(location: str, options: TargetOptions, minimum_days: int = 0) -> dict[str, str]:
    return {found.id: found.level for found in posture(location, options, minimum_days)}


def test_a_bucket_made_by_the_stack_has_nothing_weak_and_a_plain_one_has(
    storage_project: Project, cloud: Mapping[str, str], s3: Any
) -> None:
    options = TargetOptions(s3=S3Options(endpoint_url=cloud["AWS_ENDPOINT_URL"]))
    s3.create_bucket(Bucket="plain")
    found = levels("s3://plain/production", options)
    weak = {name for name, level in found.items() if level == "weak"}
    # This server, like AWS, encrypts where nobody has asked for it.
    assert weak - {"s3-encryption"} == {"s3-public-access", "s3-tls", "s3-versioning"}
    for finding in posture("s3://plain/production", options):
        assert "plain" in finding.message
        assert finding.remedy

    storage = Storage(storage_project, "components.storage.provision.aws", "AwsStorage")
    storage.up({"bucket": "looked-at", "prefix": "production"}).succeeded()
    assert levels("s3://looked-at/production", options) == {"s3-lock": "note"}
    s3.put_bucket_versioning(Bucket="looked-at", VersioningConfiguration={"Status": "Suspended"})
    assert levels("s3://looked-at/production", options)["s3-versioning"] == "weak"


def test_an_expiry_that_retention_does_not_allow_is_weak(cloud: Mapping[str, str], s3: Any) -> None:
    options = TargetOptions(s3=S3Options(endpoint_url=cloud["AWS_ENDPOINT_URL"]))
    s3.create_bucket(Bucket="expiring")
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}
    s3.put_bucket_lifecycle_configuration(
        Bucket="expiring", LifecycleConfiguration={"Rules": [rule]}
    )
    assert levels("s3://expiring/production", options, 90)["s3-expiry"] == "weak"
    assert levels("s3://expiring/production", options, 30)["s3-expiry"] == "note"
    rule["Filter"] = {"Prefix": "another/"}
    s3.put_bucket_lifecycle_configuration(
        Bucket="expiring", LifecycleConfiguration={"Rules": [rule]}
    )
    assert "s3-expiry" not in levels("s3://expiring/production", options, 90)


@pytest.fixture
def administrator(minio: Minio) -> Iterator[None]:
    with environment(minio.environment):
        yield


def test_what_a_server_does_not_have_is_unknown(
    administrator: None, minio: Minio, bucket: str, seen: S3Client
) -> None:
    options = TargetOptions(s3=S3Options(endpoint_url=minio.endpoint))
    found = levels(f"s3://{bucket}", options)
    assert found["s3-public-access"] == "unknown"
    assert found["s3-versioning"] == "weak"
    assert found["s3-encryption"] == "weak"
    seen.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "s3-versioning" not in levels(f"s3://{bucket}", options)


def test_a_writer_that_may_not_ask_is_told_so_and_never_that_all_is_well(
    minio: Minio, bucket: str
) -> None:
    policy = writer_policy(f"arn:aws:s3:::{bucket}", None, None)
    options = TargetOptions(s3=S3Options(endpoint_url=minio.endpoint))
    with environment(credentials(minio, policy)):
        found = posture(f"s3://{bucket}", options)
    assert {finding.level for finding in found} == {"unknown"}
    assert len(found) == 7
    assert all("AccessDenied" in item.message for item in found if item.id == "s3-versioning")


def test_a_server_that_is_gone_is_unknown_and_asked_only_once() -> None:
    options = TargetOptions(s3=S3Options(endpoint_url="http://127.0.0.1:9"))
    with environment({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}):
        assert levels("s3://bucket", options) == {"s3": "unknown"}
    with environment({}):
        assert levels("s3://bucket", options) == {"s3": "unknown"}


def test_a_folder_that_others_can_use_is_weak(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir(mode=0o700)
    assert posture(str(folder), TargetOptions()) == []
    folder.chmod(0o755)
    [found] = posture(str(folder), TargetOptions())
    assert (found.id, found.level, found.remedy) == (
        "directory-mode",
        "weak",
        f"chmod 700 {folder}",
    )
    folder.chmod(0o700)
    os.chown(folder, 12345, -1)
    assert levels(str(folder), TargetOptions()) == {"directory-owner": "weak"}
    assert levels(str(tmp_path / "gone"), TargetOptions()) == {"directory": "unknown"}


def test_what_cannot_be_asked_is_unknown() -> None:
    assert levels("azurefiles://account/share", TargetOptions()) == {"azure-account": "unknown"}
    assert levels("nfs://server/export", TargetOptions()) == {"nfs-server": "unknown"}

"""What the writer and the reader may do, tried on a real S3 server with their own policies."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from types_boto3_s3 import S3Client

from components.errors import TargetUnreachable
from components.storage.options import S3Options, TargetOptions
from components.storage.provision.aws_policies import (
    Document,
    bucket_policy,
    reader_policy,
    writer_policy,
)
from components.storage.s3 import S3
from lab.services.minio import Minio
from tests.targets.contract import publish
from tests.targets.minio_servers import (
    bucket,
    client,
    environment,
    minio,
    minio_executable,
    minio_report,
    seen,
)
from tests.targets.s3_rights import session

__all__ = ["bucket", "minio", "minio_executable", "minio_report", "seen"]

PREFIX = "prod"


@pytest.fixture
def arn(bucket: str, seen: S3Client) -> str:
    """The ARN of a versioned bucket that has an archive of today."""
    seen.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    seen.put_object(Bucket=bucket, Key=f"{PREFIX}/old.zip", Body=b"precious")
    return f"arn:aws:s3:::{bucket}"


def credentials(minio: Minio, policy: Document) -> dict[str, str]:
    """Temporary credentials with a policy, as environment variables."""
    return {**session(minio, policy), "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def writer(minio: Minio, arn: str) -> Iterator[S3Client]:
    """A client with the writer's rights; they are in the environment as well."""
    with environment(credentials(minio, writer_policy(arn, PREFIX, None))):
        yield boto3.Session().client("s3", endpoint_url=minio.endpoint)


@pytest.fixture
def reader(minio: Minio, arn: str) -> Iterator[S3Client]:
    """A client with the reader's rights."""
    with environment(credentials(minio, reader_policy(arn, PREFIX, None))):
        yield boto3.Session().client("s3", endpoint_url=minio.endpoint)


def refused(error: pytest.ExceptionInfo[ClientError]) -> bool:
    return error.value.response["Error"]["Code"] in ("AccessDenied", "403")


def test_the_writer_uploads_in_parts_and_sees_its_uploads(
    writer: S3Client, bucket: str, seen: S3Client
) -> None:
    key = f"{PREFIX}/new.zip"
    upload = writer.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part: Any = {"Bucket": bucket, "Key": key, "UploadId": upload}
    tag = writer.upload_part(**part, PartNumber=1, Body=b"x" * (5 << 20))["ETag"]
    last = writer.upload_part(**part, PartNumber=2, Body=b"y")["ETag"]
    assert len(writer.list_parts(**part)["Parts"]) == 2
    assert writer.list_multipart_uploads(Bucket=bucket, Prefix=key)["Uploads"]
    parts: Any = [{"PartNumber": 1, "ETag": tag}, {"PartNumber": 2, "ETag": last}]
    writer.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    assert seen.head_object(Bucket=bucket, Key=key)["ContentLength"] == (5 << 20) + 1
    begun = writer.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    writer.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun)


def test_the_writer_neither_reads_nor_deletes_nor_leaves_its_folder(
    writer: S3Client, bucket: str, seen: S3Client
) -> None:
    old = f"{PREFIX}/old.zip"
    version = seen.head_object(Bucket=bucket, Key=old)["VersionId"]
    attempts: list[Callable[[], object]] = [
        lambda: writer.get_object(Bucket=bucket, Key=old),
        lambda: writer.head_object(Bucket=bucket, Key=old),
        lambda: writer.get_object(Bucket=bucket, Key=old, VersionId=version),
        lambda: writer.delete_object(Bucket=bucket, Key=old),
        lambda: writer.delete_object(Bucket=bucket, Key=old, VersionId=version),
        lambda: writer.copy_object(
            Bucket=bucket, Key=f"{PREFIX}/copy", CopySource={"Bucket": bucket, "Key": old}
        ),
        lambda: writer.put_object(Bucket=bucket, Key="elsewhere/new.zip", Body=b"x"),
        lambda: writer.put_object(Bucket=bucket, Key=f"{PREFIX}-2/new.zip", Body=b"x"),
        lambda: writer.list_objects_v2(Bucket=bucket, Prefix="elsewhere/"),
        lambda: writer.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
        lambda: writer.put_bucket_policy(Bucket=bucket, Policy="{}"),
        lambda: writer.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": []}
        ),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises(ClientError) as caught:
            attempt()
        assert refused(caught), f"attempt {number}: {caught.value}"
    assert seen.get_object(Bucket=bucket, Key=old)["Body"].read() == b"precious"


def test_what_the_writer_overwrites_can_be_brought_back(
    writer: S3Client, bucket: str, seen: S3Client
) -> None:
    old = f"{PREFIX}/old.zip"
    before = seen.head_object(Bucket=bucket, Key=old)["VersionId"]
    writer.put_object(Bucket=bucket, Key=old, Body=b"harm")
    kept = seen.get_object(Bucket=bucket, Key=old, VersionId=before)["Body"].read()
    assert kept == b"precious"


def test_the_reader_reads_old_versions_and_changes_nothing(
    reader: S3Client, bucket: str, seen: S3Client
) -> None:
    old = f"{PREFIX}/old.zip"
    version = seen.head_object(Bucket=bucket, Key=old)["VersionId"]
    seen.delete_object(Bucket=bucket, Key=old)
    assert [
        item["Key"]
        for item in reader.list_object_versions(Bucket=bucket, Prefix=f"{PREFIX}/")["Versions"]
    ] == [old]
    body = reader.get_object(Bucket=bucket, Key=old, VersionId=version)["Body"]
    assert body.read() == b"precious"
    for attempt in (
        lambda: reader.put_object(Bucket=bucket, Key=f"{PREFIX}/new.zip", Body=b"x"),
        lambda: reader.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/new.zip"),
        lambda: reader.delete_object(Bucket=bucket, Key=old, VersionId=version),
    ):
        with pytest.raises(ClientError) as caught:
            attempt()
        assert refused(caught)


def test_the_buckets_policy_refuses_requests_without_tls_and_only_those(
    minio_executable: Path, tmp_path: Path
) -> None:
    # This server asks a bucket's policy only about strangers, so they are let in first.
    answers = {}
    for tls in (False, True):
        with Minio(minio_executable, tmp_path / str(tls), tls=tls) as server:
            administrator = client(server)
            administrator.create_bucket(Bucket="guarded")
            administrator.put_object(Bucket="guarded", Key="a.zip", Body=b"data")
            policy = bucket_policy("arn:aws:s3:::guarded", None)
            policy["Statement"].append(
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "s3:GetObject",
                    "Resource": "arn:aws:s3:::guarded/*",
                }
            )
            administrator.put_bucket_policy(Bucket="guarded", Policy=json.dumps(policy))
            stranger = boto3.Session().client(
                "s3",
                endpoint_url=server.endpoint,
                verify=str(server.ca_file) if tls else None,
                region_name="us-east-1",
                config=Config(signature_version=UNSIGNED),
            )
            try:
                stranger.get_object(Bucket="guarded", Key="a.zip")
                answers[tls] = "let in"
            except ClientError as error:
                answers[tls] = error.response["Error"]["Code"]
    assert answers == {False: "AccessDenied", True: "let in"}


def test_the_target_works_with_the_writer_alone_when_it_does_not_read_back(
    writer: S3Client, minio: Minio, bucket: str
) -> None:
    options = S3Options(endpoint_url=minio.endpoint, read_back=False)
    target = S3(f"s3://{bucket}/{PREFIX}", TargetOptions(s3=options))
    target.check()
    assert publish(target, b"0123456789", "a.zip") == "a.zip"
    assert target.size("a.zip") == 10
    assert "a.zip" in target.names()
    with pytest.raises(TargetUnreachable):
        target.open("a.zip").read(1)
    with pytest.raises(TargetUnreachable):
        target.delete("a.zip")
    assert client(minio).head_object(Bucket=bucket, Key=f"{PREFIX}/a.zip")


def test_the_target_restores_with_the_reader_alone(
    reader: S3Client, minio: Minio, bucket: str
) -> None:
    target = S3(f"s3://{bucket}/{PREFIX}", TargetOptions(s3=S3Options(endpoint_url=minio.endpoint)))
    assert target.names() == ["old.zip"]
    with target.open("old.zip") as stream:
        assert stream.read() == b"precious"

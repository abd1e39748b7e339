"""What may keep a bucket from being used, and what killed runs leave in it."""

import json
import multiprocessing
import re
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import botocore.compat
import pytest
from types_boto3_s3 import S3Client

from components.errors import TargetUnreachable, UsageError
from components.storage.options import S3Options, TargetOptions
from components.storage.s3 import S3, target
from lab.services.minio import Minio
from tests.targets.contract import MIB, publish, some_bytes
from tests.targets.minio_servers import Make, environment, unfinished
from tests.targets.proxy import Answer, Proxy, Request
from tests.targets.s3_rights import READER, WRITER, rights, session

pytestmark = pytest.mark.usefixtures("s3_environment")


# -- looking first ---------------------------------------------------------------------------------


def test_a_check_leaves_no_upload(make: Make, seen: S3Client, bucket: str) -> None:
    made = make()
    made.check()
    assert unfinished(seen, bucket) == []


@pytest.mark.parametrize(
    ("changed", "message", "hint"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "there are no credentials",
            "AWS_ACCESS_KEY_ID",
        ),
        ({"AWS_SECRET_ACCESS_KEY": "s3cr3tbutwrong"}, "the secret key is wrong", "check AWS_SEC"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "the access key is not known", "profile"),
        ({"AWS_SESSION_TOKEN": "t0k3n"}, "session token|access key is not known", "sign in|give"),
        ({"AWS_PROFILE": "missing"}, "the profile is not known", "epibackup:s3 profile"),
    ],
)
def test_wrong_credentials_are_explained(
    minio: Minio, make: Make, changed: dict[str, str], message: str, hint: str
) -> None:
    with environment({**minio.environment, **changed}):
        with pytest.raises(TargetUnreachable, match=message) as caught:
            make().check()
        told = f"{caught.value.message} {caught.value.hint} {caught.value.args}"
        for secret in (minio.secret_key, minio.access_key, "s3cr3tbutwrong", "t0k3n"):
            assert secret not in told
    assert re.search(hint, caught.value.hint)
    assert "s3://" in caught.value.message
    assert caught.value.exit_code == 8


def test_a_missing_bucket_is_not_made(minio: Minio, seen: S3Client) -> None:
    made = S3("s3://no-such-bucket", TargetOptions(s3=S3Options(endpoint_url=minio.endpoint)))
    with pytest.raises(TargetUnreachable, match="there is no such bucket") as caught:
        made.check()
    assert "make it" in caught.value.hint
    assert "no-such-bucket" not in [item["Name"] for item in seen.list_buckets()["Buckets"]]


def test_a_wrong_region_is_corrected_if_the_server_tells_the_right_one(
    minio_executable: Path, tmp_path: Path
) -> None:
    with (
        Minio(minio_executable, tmp_path / "server", region="eu-central-1") as server,
        environment(server.environment),
    ):
        server.client().create_bucket(Bucket="one")
        wrong = S3Options(endpoint_url=server.endpoint, region="us-west-2")
        S3("s3://one", TargetOptions(s3=wrong)).check()


def test_a_server_that_is_not_there_is_explained_soon(make: Make) -> None:
    with pytest.raises(TargetUnreachable, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        make("http://127.0.0.1:1").check()
    assert "endpoint_url" in caught.value.hint


def test_a_clock_that_is_wrong_is_explained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = botocore.compat.get_current_datetime

    def an_hour_ahead(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, **options) + timedelta(hours=1)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", an_hour_ahead)
    with pytest.raises(TargetUnreachable, match="clock differs") as caught:
        make().check()
    assert "timedatectl" in caught.value.hint


def test_a_certificate_is_trusted_by_its_authoritys_file_alone(
    minio_executable: Path, tmp_path: Path
) -> None:
    with Minio(minio_executable, tmp_path / "server", tls=True) as server:
        server.client().create_bucket(Bucket="safe")
        with environment(server.environment):
            strict = S3Options(endpoint_url=server.endpoint)
            with pytest.raises(TargetUnreachable, match="is not trusted") as caught:
                S3("s3://safe/a", TargetOptions(s3=strict)).check()
            assert "ca_file" in caught.value.hint
            missing = S3Options(endpoint_url=server.endpoint, ca_file="/no/such.pem")
            with pytest.raises(UsageError, match=r"/no/such\.pem does not exist"):
                S3("s3://safe/a", TargetOptions(s3=missing)).check()
            trusting = S3Options(endpoint_url=server.endpoint, ca_file=str(server.ca_file))
            made = S3("s3://safe/a", TargetOptions(s3=trusting))
            made.check()
            data = some_bytes(20 * MIB)
            publish(made, data, "a.zip")
            with made.open("a.zip") as stream:
                assert stream.read() == data


# -- rights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", WRITER)
def test_a_missing_right_is_named_before_a_run(minio: Minio, make: Make, missing: str) -> None:
    allowed = [right for right in WRITER if right != missing]
    with (
        environment(rights(minio, *allowed)),
        pytest.raises(TargetUnreachable, match=f"access denied for {missing}:") as caught,
    ):
        make().check()
    assert f"allow these credentials {missing}" in caught.value.hint


def test_a_writer_that_may_not_read_writes_and_is_told_how_to_go_on(
    minio: Minio, make: Make
) -> None:
    with environment(rights(minio, *WRITER)):
        made = make(read_back=False)
        made.check()
        assert not made.reads_back
        assert publish(made, b"something", "a.zip") == "a.zip"
        assert made.size("a.zip") == 9
        with pytest.raises(TargetUnreachable, match="access denied for s3:GetObject") as caught:
            made.open("a.zip").read()
        assert "read_back: false" in caught.value.hint
        with pytest.raises(TargetUnreachable, match="access denied for s3:DeleteObject"):
            made.delete("a.zip")


def test_a_reader_lists_and_reads_and_cannot_write(minio: Minio, make: Make) -> None:
    publish(make(), b"something", "a.zip")
    with environment(rights(minio, *READER)):
        made = make()
        assert made.names() == ["a.zip"]
        with made.open("a.zip") as stream:
            assert stream.read() == b"something"
        with pytest.raises(TargetUnreachable, match="access denied for s3:PutObject"):
            made.create(["b.zip"])


def test_the_rights_in_the_manual_are_enough(minio: Minio, make: Make, bucket: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    policy = page.partition("```json")[2].partition("```")[0]
    policy = policy.replace("backups", bucket).replace("production", "some/prefix")
    with environment(session(minio, json.loads(policy))):
        made = make()
        made.check()
        publish(made, b"something", "a.zip")
        with made.open("a.zip") as stream:
            assert stream.read() == b"something"
        with pytest.raises(TargetUnreachable, match="access denied for s3:DeleteObject"):
            made.delete("a.zip")
        outside = S3(
            f"s3://{bucket}/other", TargetOptions(s3=S3Options(endpoint_url=minio.endpoint))
        )
        with pytest.raises(TargetUnreachable, match="access denied for s3:PutObject"):
            outside.check()


# -- what killed runs leave ------------------------------------------------------------------------


def _write_and_wait(
    location: str, options: TargetOptions, ready: "multiprocessing.synchronize.Event"
) -> None:
    running = S3(location, options).create(["epibackup_c_20261122T013000Z.zip"])
    running.write(some_bytes(20 * MIB))
    ready.set()
    signal.pause()


def test_a_killed_writer_leaves_an_upload_that_a_later_check_removes(
    make: Make, minio: Minio, seen: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("spawn")
    ready, made = context.Event(), make()
    options = TargetOptions(s3=S3Options(endpoint_url=minio.endpoint))
    writer = context.Process(target=_write_and_wait, args=(made.url, options, ready))
    writer.start()
    assert ready.wait(60)
    writer.kill()
    writer.join()
    others = seen.create_multipart_upload(Bucket=bucket, Key="some/prefix/below/epibackup_x.zip")
    left = "some/prefix/epibackup_c_20261122T013000Z.zip"
    assert made.names() == []
    assert left in unfinished(seen, bucket)

    made.check()
    assert left in unfinished(seen, bucket), "it may still be at work: it is younger than a day"
    monkeypatch.setattr(target, "ABANDONED", timedelta(seconds=-5))
    made.check()
    assert unfinished(seen, bucket) == [others["Key"]], "what is not ours stays"


def test_an_upload_that_still_gets_parts_is_left_alone(
    make: Make, minio: Minio, seen: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago it was begun."""
    began = seen.create_multipart_upload(Bucket=bucket, Key="some/prefix/epibackup_x.zip")
    name = "epibackup_x.zip"

    def two_days_ago(request: Request, answer: Answer) -> None:
        if request.method == "GET" and "uploads" in request.path:
            answer.body = re.sub(
                rb"(<Key>some/prefix/epibackup_x\.zip.*?<Initiated>)[^<]*",
                rb"\g<1>2020-01-01T00:00:00.000Z",
                answer.body,
                flags=re.DOTALL,
            )

    seen.upload_part(
        Bucket=bucket,
        Key=f"some/prefix/{name}",
        UploadId=began["UploadId"],
        PartNumber=1,
        Body=b"a part of just now",
    )
    with Proxy(minio.port, after=two_days_ago) as proxy:
        make(proxy.endpoint).check()
        assert unfinished(seen, bucket) == [f"some/prefix/{name}"]
        # The same one, were its part as old.
        monkeypatch.setattr(target, "ABANDONED", timedelta(seconds=-5))
        make(proxy.endpoint).check()
    assert unfinished(seen, bucket) == []

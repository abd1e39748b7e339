"""A bucket as a target: reading, and networks and servers that fail."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from types_boto3_s3 import S3Client

from components.errors import TargetUnreachable, VerificationFailed
from components.storage.options import S3Options, TargetOptions
from components.storage.s3 import S3
from components.storage.s3 import bucket as bucket_module
from lab.services.minio import Minio
from tests.targets.contract import MIB, publish, some_bytes
from tests.targets.minio_servers import Make, environment, put, unfinished
from tests.targets.proxy import Answer, CutError, Proxy, Request

pytestmark = pytest.mark.usefixtures("s3_environment")


# -- networks and servers that fail ----------------------------------------------------------------


def test_a_part_that_fails_is_sent_again(make: Make, minio: Minio) -> None:
    failed: list[str] = []

    def fail_some(request: Request) -> Answer | None:
        if request.method == "PUT" and request.path not in failed:
            failed.append(request.path)
            if len(failed) % 2:
                raise CutError
            return Answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        return None

    data = some_bytes(30 * MIB)
    with Proxy(minio.port, before=fail_some) as proxy:
        assert publish(make(proxy.endpoint), data, "a.zip") == "a.zip"
    assert len(failed) == 4, "each part failed once"
    with make().open("a.zip") as stream:
        assert stream.read() == data


def test_an_upload_that_has_lost_a_part_is_never_published(
    make: Make, minio: Minio, seen: S3Client, bucket: str
) -> None:
    """S3 itself would make an object of the parts that are there."""

    def refuse_one(request: Request) -> Answer | None:
        if "partNumber=2" in request.path:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        return None

    with Proxy(minio.port, before=refuse_one) as proxy:
        running = make(proxy.endpoint).create(["a.zip"])
        with pytest.raises(TargetUnreachable, match=r"writing part 2 of a\.zip"):
            running.write(some_bytes(100 * MIB))
        with pytest.raises(TargetUnreachable, match="part 2"):
            running.write(b"more")
        with pytest.raises(TargetUnreachable, match="part 2"):
            running.publish()
        running.abort()
    assert make().names() == []
    assert unfinished(seen, bucket) == []


def test_an_answer_that_is_lost_after_publishing_is_no_failure(make: Make, minio: Minio) -> None:
    """The SDK asks again, and is told that the name is taken: by this very upload."""
    lost: list[int] = []

    def lose(request: Request, answer: Answer) -> None:
        if request.method == "POST" and "uploadId=" in request.path and not lost:
            lost.append(answer.status)
            raise CutError

    with Proxy(minio.port, after=lose) as proxy:
        assert publish(make(proxy.endpoint), b"something", "a.zip") == "a.zip"
    assert lost == [200]


def test_a_server_that_dies_while_an_archive_is_written_is_said(
    minio_executable: Path, tmp_path: Path
) -> None:
    server = Minio(minio_executable, tmp_path / "server")
    with server, environment(server.environment):
        server.client().create_bucket(Bucket="one")
        options = TargetOptions(s3=S3Options(endpoint_url=server.endpoint))
        running = S3("s3://one/a", options).create(["epibackup_a.zip"])
        running.write(some_bytes(20 * MIB))
        server.kill()
        with pytest.raises(TargetUnreachable, match="does not answer") as caught:
            running.write(some_bytes(80 * MIB))
        running.abort()
        assert "epibackup_a.zip in s3://one/a" in caught.value.message
        server.start()
        made = S3("s3://one/a", options)
        assert made.names() == []
        assert publish(made, b"x", "epibackup_a.zip", "epibackup_a_1.zip") == "epibackup_a_1.zip"


def test_a_server_that_dies_while_an_archive_is_read_is_said(
    minio_executable: Path, tmp_path: Path
) -> None:
    server = Minio(minio_executable, tmp_path / "server")
    with server, environment(server.environment):
        server.client().create_bucket(Bucket="one")
        made = S3("s3://one", TargetOptions(s3=S3Options(endpoint_url=server.endpoint)))
        publish(made, some_bytes(64 * MIB), "a.zip")
        with made.open("a.zip") as stream:
            assert len(stream.read(MIB)) == MIB
            server.kill()
            with pytest.raises(TargetUnreachable, match=r"reading a\.zip in s3://one"):
                stream.read()


def test_a_server_that_says_nothing_more_is_given_up(
    minio_executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With shorter times than a run's: there it takes five minutes."""
    monkeypatch.setattr(bucket_module, "READ_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(bucket_module, "ATTEMPTS", 2)
    server = Minio(minio_executable, tmp_path / "server")
    with server, environment(server.environment):
        server.client().create_bucket(Bucket="one")
        made = S3("s3://one", TargetOptions(s3=S3Options(endpoint_url=server.endpoint)))
        running = made.create(["epibackup_a.zip"])
        running.write(b"something")
        server.pause()
        with pytest.raises(TargetUnreachable, match="does not answer"):
            running.publish()
        running.abort()
        server.resume()
        assert made.names() == []


def test_reading_goes_on_where_a_connection_broke(make: Make, minio: Minio) -> None:
    data = some_bytes(40 * MIB)
    publish(make(), data, "a.zip")
    broken: list[str] = []

    def cut(request: Request, answer: Answer) -> None:
        if request.method == "GET" and len(answer.body) > 2 * MIB and len(broken) < 3:
            broken.append(request.path)
            answer.cut_after = len(answer.body) // 2 + 17

    with Proxy(minio.port, after=cut) as proxy, make(proxy.endpoint).open("a.zip") as stream:
        assert stream.read() == data
    assert len(broken) == 3


def test_a_connection_that_breaks_again_and_again_is_said(make: Make, minio: Minio) -> None:
    publish(make(), some_bytes(MIB), "a.zip")

    def cut(request: Request, answer: Answer) -> None:
        if "Range" in request.headers:
            answer.cut_after = 0

    with (
        Proxy(minio.port, after=cut) as proxy,
        make(proxy.endpoint).open("a.zip") as stream,
        pytest.raises(TargetUnreachable, match="breaks again and again"),
    ):
        stream.read()


# -- reading ---------------------------------------------------------------------------------------


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(
    make: Make, seen: S3Client, bucket: str
) -> None:
    made = make()
    publish(made, some_bytes(20 * MIB), "a.zip")
    with made.open("a.zip") as stream:
        stream.read(MIB)
        put(seen, bucket, "a.zip", bytes(20 * MIB))
        with pytest.raises(VerificationFailed, match=r"reading a\.zip .* replaced by somebody"):
            stream.read()


def test_an_object_that_is_removed_while_it_is_read_is_said(
    make: Make, seen: S3Client, bucket: str
) -> None:
    made = make()
    publish(made, some_bytes(20 * MIB), "a.zip")
    with made.open("a.zip") as stream:
        stream.read(MIB)
        seen.delete_object(Bucket=bucket, Key="some/prefix/a.zip")
        with pytest.raises(VerificationFailed, match="removed by somebody"):
            stream.read()


def test_reading_in_order_takes_few_requests(make: Make, minio: Minio) -> None:
    data = some_bytes(64 * MIB)
    publish(make(), data, "a.zip")
    with Proxy(minio.port) as proxy, make(proxy.endpoint).open("a.zip") as stream:
        while stream.read(MIB):
            pass
    ranged = [path for method, path in proxy.requests if method == "GET" and "a.zip" in path]
    assert len(ranged) <= 10, ranged


def test_looking_at_the_end_of_an_archive_does_not_read_all_of_it(make: Make, minio: Minio) -> None:
    publish(make(), some_bytes(32 * MIB), "a.zip")
    sent = []

    def count(request: Request, answer: Answer) -> None:
        if "Range" in request.headers:
            sent.append(len(answer.body))

    with Proxy(minio.port, after=count) as proxy, make(proxy.endpoint).open("a.zip") as stream:
        stream.seek(-22, io.SEEK_END)
        stream.read(22)
        stream.seek(5 * MIB)
        stream.read(30)
    assert sum(sent) < 3 * MIB, sent


def test_thousands_of_archives_are_all_listed(make: Make, seen: S3Client, bucket: str) -> None:
    names = [f"{number:04d}.zip" for number in range(2500)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: put(seen, bucket, name, b""), names))
    assert make().names() == names


# -- an end in the middle --------------------------------------------------------------------------


def test_an_upload_that_is_given_up_with_parts_on_their_way_leaves_nothing(
    make: Make, seen: S3Client, bucket: str
) -> None:
    made = make()
    running = made.create(["a.zip"])
    running.write(some_bytes(60 * MIB))
    running.abort()
    assert unfinished(seen, bucket) == []
    assert made.names() == []

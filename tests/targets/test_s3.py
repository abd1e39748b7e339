"""A bucket as a target, on a real S3 server (MinIO)."""

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from types_boto3_s3 import S3Client

from components.errors import TargetUnreachable, UsageError, VerificationFailed
from components.storage.options import S3Options, TargetOptions
from components.storage.s3 import S3, upload
from components.storage.target import Target
from lab.services.minio import KMS_KEY, Minio
from tests.targets.contract import MIB, Contract, PutBeside, publish, some_bytes
from tests.targets.minio_servers import Make, put, unfinished
from tests.targets.proxy import Answer, Proxy, Request

pytestmark = pytest.mark.usefixtures("s3_environment")


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, make: Make, seen: S3Client, bucket: str) -> Iterator[Target]:
        yield make()
        assert unfinished(seen, bucket) == []

    @pytest.fixture
    def put_beside(self, seen: S3Client, bucket: str) -> PutBeside:
        return lambda path, data: put(seen, bucket, path, data)


# -- location and options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://Upper/prefix", "names no bucket"),
        ("s3://bucket/a//b", "cannot be used"),
        ("s3://bucket/../b", "cannot be used"),
        ("s3://bucket/a?region=x", "cannot be used"),
        ("s3://bucket/" + "x" * 900, "too long"),
    ],
)
def test_a_location_that_cannot_be_used_is_refused(location: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        S3(location, TargetOptions())


def test_credentials_in_a_location_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        S3("s3://AKIAKEY:verysecret@bucket/prefix", TargetOptions())
    assert "verysecret" not in f"{caught.value.message}{caught.value.hint}{caught.value.args}"
    assert "environment" in caught.value.hint


def test_a_bucket_without_a_prefix_and_a_prefix_with_a_slash_behind_it(
    minio: Minio, bucket: str
) -> None:
    options = TargetOptions(s3=S3Options(endpoint_url=minio.endpoint))
    whole = S3(f"s3://{bucket}", options)
    publish(whole, b"x", "a.zip")
    assert whole.names() == ["a.zip"]
    below = S3(f"s3://{bucket}/b/", options)
    assert below.url == f"s3://{bucket}/b"
    publish(below, b"y", "c.zip")
    assert whole.names() == ["a.zip"]
    assert below.names() == ["c.zip"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kms_key_id": "x"}, "only used with sse: aws:kms"),
        ({"storage_class": "GLACIER"}, "cannot be read without restoring"),
        ({"endpoint_url": "minio:9000"}, "pattern"),
        ({"endpoint_url": "https://key:secret@minio"}, "pattern"),
        ({"ca_file": "ca.pem"}, "pattern"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S3Options(**options)


# -- who gets a name -------------------------------------------------------------------------------


def _publish_at_a_signal(
    location: str,
    options: TargetOptions,
    start: "multiprocessing.synchronize.Barrier",
    names: "multiprocessing.queues.Queue[str]",
    word: bytes,
) -> None:
    made = S3(location, options)
    made.names()  # connected
    start.wait(60)
    upload = made.create(["a", "a_1", "a_2"])
    upload.write(word * MIB)
    names.put(upload.publish())


def whole_seconds(request: Request, answer: Answer) -> None:
    """As AWS tells when an upload began."""
    if request.method == "GET" and "uploads" in request.path:
        answer.body = re.sub(rb"(<Initiated>[^.<]*)\.\d+Z", rb"\1.000Z", answer.body)


@pytest.mark.parametrize("after", [lambda *_: None, whole_seconds], ids=["MinIO", "AWS"])
def test_processes_that_begin_at_the_same_moment_get_names_of_their_own(
    make: Make,
    minio: Minio,
    bucket: str,
    seen: S3Client,
    after: Callable[[Request, Answer], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    start, names = context.Barrier(3), context.Queue()
    made = make()
    with Proxy(minio.port, after=after) as proxy:
        options = TargetOptions(s3=S3Options(endpoint_url=proxy.endpoint))
        writers = [
            context.Process(
                target=_publish_at_a_signal, args=(made.url, options, start, names, word)
            )
            for word in (b"1", b"2", b"3")
        ]
        for writer in writers:
            writer.start()
        got = sorted(names.get(timeout=120) for _ in writers)
        for writer in writers:
            writer.join()
    assert got == ["a", "a_1", "a_2"]
    contents = set()
    for name in got:
        with made.open(name) as stream:
            contents.add(stream.read()[:1])
    assert contents == {b"1", b"2", b"3"}
    assert unfinished(seen, bucket) == []


def test_a_name_that_is_taken_while_it_is_written_is_not_overwritten(
    make: Make, seen: S3Client, bucket: str
) -> None:
    made = make()
    running = made.create(["a.zip"])
    running.write(some_bytes(9 * MIB))  # one part is on its way: the name is settled
    put(seen, bucket, "a.zip", b"somebody's")
    with pytest.raises(TargetUnreachable, match=r"a\.zip was taken in s3://") as caught:
        running.publish()
    running.abort()
    assert "same run id" in caught.value.hint
    with made.open("a.zip") as stream:
        assert stream.read() == b"somebody's"
    assert unfinished(seen, bucket) == []


def test_when_every_name_is_taken_that_is_said(make: Make) -> None:
    made = make()
    publish(made, b"x", "a.zip")
    with pytest.raises(TargetUnreachable, match="every name"):
        made.create(["a.zip"])


# -- what is sent ----------------------------------------------------------------------------------


def test_parts_grow_so_that_terabytes_fit_into_ten_thousand() -> None:
    sizes = [upload.part_bytes(number) for number in range(1, upload.LARGEST_PARTS + 1)]
    assert sizes[0] == 8 * MIB
    assert sizes == sorted(sizes)
    assert min(sizes) >= 5 * MIB, "S3 takes no smaller part but the last"
    assert max(sizes) <= 5 << 30, "S3 takes no larger part"
    assert sum(sizes) > 5 << 40
    assert sum(sizes[:4000]) > 100 << 30
    assert sizes[3999] <= 64 * MIB, "what is in memory for archives up to 100 GiB"


def test_parts_that_grow_make_one_object(
    make: Make, seen: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PARTS_OF_A_SIZE", 2)
    made, data = make(), some_bytes(70 * MIB)  # 8, 8, 16, 16, 22
    publish(made, data, "a.zip")
    with made.open("a.zip") as stream:
        assert stream.read() == data
    etag = seen.head_object(Bucket=bucket, Key="some/prefix/a.zip")["ETag"]
    assert etag.strip('"').endswith("-5")


def test_the_server_checks_each_part(make: Make, minio: Minio, seen: S3Client, bucket: str) -> None:
    """A byte that flips on the way is refused, though the request is otherwise whole."""

    def flip(request: Request) -> None:
        if request.method == "PUT":
            body = bytearray(request.body)
            body[1000] ^= 1
            request.body = bytes(body)

    with Proxy(minio.port, before=flip) as proxy:
        running = make(proxy.endpoint).create(["a.zip"])
        running.write(some_bytes(MIB))
        with pytest.raises(TargetUnreachable, match="damaged on its way") as caught:
            running.publish()
        running.abort()
    assert "network" in caught.value.hint
    assert make().names() == []
    assert unfinished(seen, bucket) == []


def test_the_object_has_a_checksum_of_its_own(make: Make, seen: S3Client, bucket: str) -> None:
    publish(make(), some_bytes(20 * MIB), "a.zip")
    found = seen.head_object(Bucket=bucket, Key="some/prefix/a.zip", ChecksumMode="ENABLED")
    assert found["ChecksumCRC32C"].endswith("-3")


def test_a_server_that_refuses_newer_checksums_is_sent_the_oldest(make: Make, minio: Minio) -> None:
    """As Backblaze B2 does: "Unsupported header 'x-amz-checksum-algorithm' received"."""
    digests = []

    def refuse(request: Request) -> Answer | None:
        headers = {name.lower(): text for name, text in request.headers.items()}
        found = [name for name in headers if "checksum" in name]
        digests.append(headers.get("content-md5"))
        if not found:
            return None
        words = f"Unsupported header '{found[0]}' received for this API call."
        error = f"<Error><Code>InvalidArgument</Code><Message>{words}</Message></Error>"
        return Answer(400, {"Content-Type": "application/xml"}, error.encode())

    data = some_bytes(10 * MIB)
    with Proxy(minio.port, before=refuse) as proxy:
        made = make(proxy.endpoint)
        made.check()
        publish(made, data, "a.zip")
        with made.open("a.zip") as stream:
            assert stream.read() == data
        assert len([digest for digest in digests if digest]) == 2
        # Without reading back there would be no proof at all.
        with pytest.raises(TargetUnreachable, match="cannot be used without reading back"):
            make(proxy.endpoint, read_back=False).check()


def test_a_checksum_that_is_not_what_was_sent_is_no_success(make: Make, minio: Minio) -> None:
    def change(request: Request, answer: Answer) -> None:
        if request.method == "POST" and "uploadId=" in request.path:
            start, _, rest = answer.body.partition(b"<ChecksumCRC32C>")
            answer.body = start + b"<ChecksumCRC32C>" + b"AAAAAA" + rest[6:]

    with Proxy(minio.port, after=change) as proxy:
        running = make(proxy.endpoint).create(["a.zip"])
        running.write(b"something")
        with pytest.raises(VerificationFailed, match="another checksum"):
            running.publish()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sse": "AES256"}, "AES256"),
        ({"sse": "aws:kms", "kms_key_id": KMS_KEY}, "aws:kms"),
    ],
)
def test_archives_are_encrypted_by_the_server_on_request(
    make: Make, seen: S3Client, bucket: str, options: dict[str, Any], expected: str
) -> None:
    data = some_bytes(20 * MIB)
    made = make(**options)
    made.check()
    publish(made, data, "a.zip")
    found = seen.head_object(Bucket=bucket, Key="some/prefix/a.zip")
    assert found["ServerSideEncryption"] == expected
    with made.open("a.zip") as stream:
        stream.seek(9 * MIB)
        assert stream.read() == data[9 * MIB :]


def test_a_key_that_cannot_be_used_is_said(make: Make) -> None:
    with pytest.raises(TargetUnreachable) as caught:
        make(sse="aws:kms", kms_key_id="nosuchkey").check()
    assert "key" in caught.value.message


# -- versions and locks ----------------------------------------------------------------------------


def test_in_a_versioned_bucket_deleting_only_hides(make: Make, seen: S3Client, bucket: str) -> None:
    seen.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = make()
    publish(made, b"something", "a.zip")
    with made.open("a.zip") as stream:
        assert stream.read() == b"something"
    made.delete("a.zip")
    made.delete("a.zip")
    assert made.names() == []
    versions = seen.list_object_versions(Bucket=bucket, Prefix="some/prefix/a.zip")["Versions"]
    assert [version["Size"] for version in versions] == [9]
    assert publish(made, b"again", "a.zip") == "a.zip"


def test_a_locked_archive_can_be_hidden_and_not_destroyed(minio: Minio, seen: S3Client) -> None:
    name = f"locked-{os.urandom(8).hex()}"
    seen.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    seen.put_object_lock_configuration(
        Bucket=name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    made = S3(f"s3://{name}/a", TargetOptions(s3=S3Options(endpoint_url=minio.endpoint)))
    made.check()
    publish(made, some_bytes(9 * MIB), "a.zip")
    until = made.locked_until("a.zip")
    assert until is not None
    (version,) = seen.list_object_versions(Bucket=name)["Versions"]
    with pytest.raises(seen.exceptions.ClientError, match=r"WORM|AccessDenied|locked"):
        seen.delete_object(Bucket=name, Key="a/a.zip", VersionId=version["VersionId"])
    seen.put_object_legal_hold(Bucket=name, Key="a/a.zip", LegalHold={"Status": "ON"})
    held = made.locked_until("a.zip")
    assert held is not None
    assert held > until + timedelta(days=1000)
    seen.put_object_legal_hold(Bucket=name, Key="a/a.zip", LegalHold={"Status": "OFF"})
    made.delete("a.zip")
    assert made.names() == []


def test_an_archive_without_a_lock_has_none(make: Make) -> None:
    made = make()
    publish(made, b"x", "a.zip")
    assert made.locked_until("a.zip") is None

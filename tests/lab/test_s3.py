"""The product with a bucket as its target: a real cluster, a real S3 server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from types_boto3_s3 import S3Client

from lab import Site
from lab.services.minio import Minio
from tests.lab.product import Product, product
from tests.lab.round_trip import goes_and_comes_back
from tests.targets.minio_servers import bucket, minio, minio_executable, minio_report, seen
from tests.targets.proxy import Answer, Proxy, Request
from tests.targets.s3_rights import READER, WRITER, rights

RUN = "20261122T013000Z"
__all__ = ["bucket", "minio", "minio_executable", "minio_report", "seen"]


@pytest.fixture
def epibackup(site: Site, minio: Minio, bucket: str, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-s3") as made:
        made.environment |= {**minio.environment, "AWS_EC2_METADATA_DISABLED": "true"}
        made.configure(target=f"s3://{bucket}/nightly", s3={"endpoint_url": minio.endpoint})
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def keys(seen: S3Client, bucket: str) -> list[str]:
    return [item["Key"] for item in seen.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_run_goes_to_the_bucket_and_comes_back_from_there(
    epibackup: Product, clean_site: Site, seen: S3Client, bucket: str
) -> None:
    made = goes_and_comes_back(epibackup, clean_site)
    assert keys(seen, bucket) == [f"nightly/{made['archive_key']}"]


def test_a_run_by_pulumi_writes_to_the_bucket_too(
    epibackup: Product, site: Site, seen: S3Client, bucket: str
) -> None:
    epibackup.backup("--service", "haproxy")
    done = epibackup.pulumi("up", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(keys(seen, bucket)) == 2


def test_no_secret_is_in_the_state_the_configuration_or_a_process_list(
    epibackup: Product, site: Site, minio: Minio
) -> None:
    running = epibackup.start("backup")
    lines: set[str] = set()
    archive_environment: dict[str, str] = {}
    while running.poll() is None:
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            lines.add(" ".join(command))
            if "components.archive" in command:
                try:
                    archive_environment = process.environ()
                except psutil.Error:
                    continue
        time.sleep(0.05)
    output, _ = running.communicate()
    assert running.returncode == 0, output
    assert archive_environment.get("AWS_SECRET_ACCESS_KEY") == minio.secret_key, "it is inherited"
    state = epibackup.pulumi("stack", "export", "--show-secrets")
    assert state.returncode == 0, state.stderr
    assert "s3://" in state.stdout
    places = {
        "the process list": "\n".join(lines),
        "the state": state.stdout,
        "the configuration": epibackup.stack_file.read_text(),
        "the output": output,
    }
    backend = Path(epibackup.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    for folder in (backend, Path(epibackup.environment["XDG_STATE_HOME"])):
        for path in folder.rglob("*"):
            if path.is_file():
                places[str(path)] = path.read_bytes().decode(errors="replace")
    for place, text in places.items():
        assert minio.secret_key not in text, place
        assert minio.access_key not in text, place


def test_a_wrong_secret_is_told_before_anything_is_written(
    epibackup: Product, site: Site, minio: Minio, seen: S3Client, bucket: str
) -> None:
    epibackup.environment["AWS_SECRET_ACCESS_KEY"] = "wr0ngs3cr3t"  # noqa: S105 - it is none
    error = epibackup.backup("--run", RUN, code=8)["error"]
    assert error["code"] == "target_unreachable"
    assert f"s3://{bucket}/nightly" in error["message"]
    assert "the secret key is wrong" in error["message"]
    assert "AWS_SECRET_ACCESS_KEY" in error["hint"]
    assert "wr0ngs3cr3t" not in json.dumps(error)
    assert keys(seen, bucket) == []
    assert "the secret key is wrong" in epibackup.json("list", code=8)["error"]["message"]

    # With the right one the same run goes on.
    epibackup.environment |= minio.environment
    assert epibackup.backup("--run", RUN)["run"] == RUN


def test_a_writer_that_may_not_read_makes_a_run_that_says_so(
    epibackup: Product, site: Site, minio: Minio, seen: S3Client, bucket: str
) -> None:
    epibackup.environment |= rights(minio, *WRITER)
    error = epibackup.backup("--service", "haproxy", code=8)["error"]
    (left,) = keys(seen, bucket)
    assert left.removeprefix("nightly/") in error["message"], "what is kept is named"
    assert "could not be read back; it is still there" in error["message"]
    assert "epibackup:s3 read_back: false" in error["hint"]

    s3 = {"endpoint_url": minio.endpoint, "read_back": False}
    epibackup.configure(target=f"s3://{bucket}/nightly", s3=s3)
    done = epibackup.run("backup", "--service", "haproxy")
    assert done.returncode == 0, done.stderr
    assert ", not read back)" in done.stderr
    assert "was not read back, because read_back is off" in done.stderr
    assert [entry["verified"] for entry in epibackup.catalog()] == [False]

    # A reader of its own sees and checks them.
    epibackup.environment |= rights(minio, *READER)
    assert [run["status"] for run in epibackup.json("list")["runs"]] == ["ok", "ok"]


def test_an_archive_that_is_damaged_in_the_bucket_is_removed_and_no_success(
    epibackup: Product, site: Site, minio: Minio, seen: S3Client, bucket: str
) -> None:
    def damage(request: Request, answer: Answer) -> None:
        if "Range" in request.headers and len(answer.body) > 2000:
            changed = bytearray(answer.body)
            changed[200] ^= 1
            answer.body = bytes(changed)

    with Proxy(minio.port, after=damage) as proxy:
        s3 = {"endpoint_url": proxy.endpoint}
        epibackup.configure(target=f"s3://{bucket}/nightly", s3=s3)
        error = epibackup.backup("--run", RUN, code=9)["error"]
    assert "is not what was sent when it is read back" in error["message"]
    assert "was removed" in error["message"]
    assert keys(seen, bucket) == []
    epibackup.configure(target=f"s3://{bucket}/nightly", s3={"endpoint_url": minio.endpoint})
    assert epibackup.backup("--run", RUN)["status"] == "ok"

"""S3 servers for tests: one for a session and what tests ask of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from types_boto3_s3 import S3Client

from components.storage.options import S3Options, TargetOptions
from components.storage.s3 import S3
from lab.machine import Report
from lab.services.minio import Minio, obtain_minio

__all__ = [
    "bucket",
    "make",
    "minio",
    "minio_executable",
    "minio_report",
    "s3_environment",
    "seen",
]
Make = Callable[..., S3]


@pytest.fixture(scope="session")
def minio_report(request: pytest.FixtureRequest) -> Report:
    """Shows what a long step does, in spite of pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)  # noqa: T201

    return show


@pytest.fixture(scope="session")
def minio_executable(minio_report: Report) -> Path:
    """The server; built when it is not in the cache."""
    return obtain_minio(minio_report)


@pytest.fixture(scope="session")
def minio(minio_executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A server that all tests share: nobody stops it."""
    with Minio(minio_executable, tmp_path_factory.mktemp("minio") / "server") as server:
        yield server


def client(server: Minio) -> S3Client:
    """The administrator's view of a server."""
    return server.client()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """The SDK's environment variables for a while: these and no others."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    # Nothing of this machine: neither its files nor a cloud's metadata service.
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true"}
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        nowhere[name] = os.devnull
    os.environ.update({**nowhere, **values})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def s3_environment(minio: Minio) -> Iterator[None]:
    """The administrator's credentials, as a user has them: in the environment."""
    with environment(minio.environment):
        yield


@pytest.fixture
def bucket(minio: Minio) -> str:
    """A bucket of the test's own."""
    name = f"test-{os.urandom(8).hex()}"
    minio.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def seen(minio: Minio) -> S3Client:
    """The administrator's view."""
    return minio.client()


@pytest.fixture
def make(minio: Minio, bucket: str) -> Make:
    """Makes a target at a prefix of the bucket, with options."""

    def made(endpoint: str = minio.endpoint, **options: Any) -> S3:
        chosen = TargetOptions(s3=S3Options(endpoint_url=endpoint, **options))
        return S3(f"s3://{bucket}/some/prefix", chosen)

    return made


def unfinished(seen: S3Client, bucket: str) -> list[str]:
    """The keys of the uploads that were begun and not completed."""
    return [item["Key"] for item in seen.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def put(seen: S3Client, bucket: str, path: str, data: bytes) -> None:
    seen.put_object(Bucket=bucket, Key=f"some/prefix/{path}", Body=data)

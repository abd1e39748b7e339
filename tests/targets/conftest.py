"""Servers for the tests of targets: started once a session, when a test asks for them."""

from tests.targets.minio_servers import (
    bucket,
    make,
    minio,
    minio_executable,
    minio_report,
    s3_environment,
    seen,
)

__all__ = [
    "bucket",
    "make",
    "minio",
    "minio_executable",
    "minio_report",
    "s3_environment",
    "seen",
]

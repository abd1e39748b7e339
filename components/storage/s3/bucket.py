"""A bucket and a prefix in it: where they are, and the SDK's clients for them."""

import contextlib
import re
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from components.errors import UsageError
from components.storage.options import S3Options
from components.storage.s3.failures import explain

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 30
ATTEMPTS = 10
"""How often a request is tried. With the SDK's waits between (its standard mode: at most 50 ms,
then doubling, 26 s in all) a server that refuses connections is given up after half a minute,
one that is gone without a trace after two minutes, one that accepts and never answers after
five and a half."""

FEW_ATTEMPTS = 3
"""For the check before a run, which a person waits for, and for tidying up after a failure."""

_READERS = 10
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LARGEST_KEY_BYTES = 1024
_LONGEST_NAME = 255


class Bucket:
    """A bucket, the prefix of the archives in it, and how it is reached.

    Making one contacts nothing; the clients are made when they are first used, and may be used
    by several threads.
    """

    def __init__(self, name: str, prefix: str, options: S3Options) -> None:
        self.name = name
        self.prefix = prefix
        self.options = options
        self._lock = threading.Lock()

    @classmethod
    def parse(cls, location: str, options: S3Options) -> Self:
        """The bucket of `s3://bucket/prefix`; raises UsageError for anything else.

        The prefix may be missing. A location that could hold a password is not repeated.
        """
        name, _, prefix = location.removeprefix("s3://").partition("/")
        if "@" in location:
            raise UsageError(
                "the target s3://… has an @ in it: credentials do not belong there",
                "write s3://bucket/prefix, and give credentials the SDK's way: environment, "
                "profile or role",
            )
        if not _BUCKET.fullmatch(name):
            raise UsageError(
                f"the target {location} names no bucket",
                "write s3://bucket/prefix; a bucket's name has 3 to 63 of a-z, 0-9, - and .",
            )
        prefix = prefix.strip("/")
        segments = prefix.split("/") if prefix else []
        if not all(segment.strip(".") and segment.isprintable() for segment in segments) or (
            set("?#*") & set(prefix)
        ):
            raise UsageError(
                f"the target {location} has a prefix that cannot be used",
                "write s3://bucket/prefix, without empty parts, ., .., ?, # and *; options are "
                "in epibackup:s3",
            )
        if len(prefix.encode()) > _LARGEST_KEY_BYTES - _LONGEST_NAME:
            raise UsageError(f"the prefix of the target {location} is too long")
        return cls(name, f"{prefix}/" if prefix else "", options)

    @property
    def url(self) -> str:
        """As the user wrote it."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    @property
    def server(self) -> str:
        """Whom requests go to, for messages."""
        return self.options.endpoint_url or "AWS"

    def key(self, name: str) -> str:
        """The key of a file of the target."""
        return self.prefix + name

    @property
    def client(self) -> "S3Client":
        """The client for a run's work."""
        with self._lock:
            return self._patient

    @property
    def quick_client(self) -> "S3Client":
        """The client for what somebody waits for."""
        with self._lock:
            return self._quick

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn the SDK's errors into ours. doing: what is being done, as `reading a.zip`."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"{doing} in {self.url}", self.server) from error

    @cached_property
    def _session(self) -> boto3.Session:
        """One for both clients: it holds the SDK's model of S3, some 10 MiB."""
        return boto3.Session(profile_name=self.options.profile)

    @cached_property
    def _patient(self) -> "S3Client":
        return self._client(ATTEMPTS)

    @cached_property
    def _quick(self) -> "S3Client":
        return self._client(FEW_ATTEMPTS)

    def _client(self, attempts: int) -> "S3Client":
        options = self.options
        if options.ca_file and not Path(options.ca_file).is_file():
            raise UsageError(
                f"the file {options.ca_file} does not exist",
                "epibackup:s3 ca_file names the certificate authority's PEM file",
            )
        is_plain = (options.endpoint_url or "").startswith("http://")
        with self.explained("finding credentials"):
            client: S3Client = self._session.client(
                "s3",
                region_name=options.region,
                endpoint_url=options.endpoint_url,
                verify=options.ca_file,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT_SECONDS,
                    read_timeout=READ_TIMEOUT_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    max_pool_connections=options.parallel + _READERS,
                    # Servers that speak S3 differ in the checksums that the SDK would add by
                    # itself; those of parts are given explicitly.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={
                        "addressing_style": "path" if options.path_style else "auto",
                        # TLS and the checksum of each part protect what is sent; without TLS
                        # the signature does.
                        "payload_signing_enabled": is_plain,
                    },
                ),
            )
        return client

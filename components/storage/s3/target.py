"""A bucket of S3 as a target."""

import io
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError

from components.errors import NotFound, TargetUnreachable
from components.storage.options import TargetOptions
from components.storage.s3.bucket import Bucket
from components.storage.s3.failures import code_of
from components.storage.s3.reading import BUFFER_BYTES, S3Reader
from components.storage.s3.upload import Begun, S3Upload, begin, end
from components.storage.target import Target, Upload

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import MultipartUploadTypeDef, ObjectTypeDef

ABANDONED = timedelta(days=1)
"""An upload of our own that got no part for so long belongs to a run that was killed."""

_CHECK = ".epibackup-check-"
_NO_LOCK = (
    "NoSuchObjectLockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "InvalidRequest",  # a bucket without object lock
    "NotImplemented",
    "NoSuchKey",
)


class S3(Target):
    """`s3://bucket/prefix`, in AWS or on a server that speaks S3. The bucket is not made here.

    In a versioned bucket `delete` only hides an archive: it adds a delete marker, and the version
    stays until a lifecycle rule or a person removes it, which an object lock may forbid.
    """

    def __init__(self, location: str, options: TargetOptions) -> None:
        self._bucket = Bucket.parse(location, options.s3)
        self.url = self._bucket.url
        self.reads_back = options.s3.read_back

    def check(self) -> None:
        """As the interface has it; also removes what killed runs of this user have left."""
        bucket = self._bucket
        with bucket.explained("looking at the target"):
            answer = bucket.quick_client.list_objects_v2(
                Bucket=bucket.name, Prefix=bucket.prefix, MaxKeys=1
            )
        sent = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
        own = begin(bucket, bucket.key(_CHECK + secrets.token_hex(8)), quick=True)
        try:
            with bucket.explained("looking for unfinished uploads"):
                self._remove_abandoned(own, now)
        finally:
            with bucket.explained("ending the upload that was begun as a test"):
                end(bucket, own)
        if not self.reads_back and not own.has_checksums:
            raise TargetUnreachable(
                f"{self.url} cannot be used without reading back: its server does not tell the "
                "checksum of what it has stored (CRC32C)",
                "take epibackup:s3 read_back: false away, and allow s3:GetObject",
            )

    def free_bytes(self) -> None:
        """A bucket has no end, and a quota is not told."""

    def create(self, names: Sequence[str]) -> Upload:
        return S3Upload(self._bucket, names)

    def names(self) -> list[str]:
        with self._bucket.explained("listing"):
            pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket.name, Prefix=self._bucket.prefix, Delimiter="/"
            )
            found = [
                item["Key"].removeprefix(self._bucket.prefix)
                for page in pages
                for item in page.get("Contents", [])
            ]
        return sorted(name for name in found if name and not name.startswith("."))

    def size(self, name: str) -> int:
        return self._find(name)["Size"]

    def open(self, name: str) -> BinaryIO:
        found = self._find(name)
        reader = S3Reader(self._bucket, name, found["Size"], found["ETag"])
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER_BYTES))

    def delete(self, name: str) -> None:
        with self._bucket.explained(f"deleting {name}"):
            self._bucket.client.delete_object(Bucket=self._bucket.name, Key=self._bucket.key(name))

    def locked_until(self, name: str) -> datetime | None:
        """See the interface: the later of retention and legal hold of the newest version."""
        bucket, key = self._bucket, self._bucket.key(name)
        with bucket.explained(f"looking for a lock on {name}"):
            with _no_lock_is_fine():
                hold = bucket.client.get_object_legal_hold(Bucket=bucket.name, Key=key)
                if hold.get("LegalHold", {}).get("Status") == "ON":
                    return datetime.max.replace(tzinfo=UTC)
            with _no_lock_is_fine():
                kept = bucket.client.get_object_retention(Bucket=bucket.name, Key=key)
                return kept["Retention"].get("RetainUntilDate")
        return None

    def _find(self, name: str) -> "ObjectTypeDef":
        """What the list says of an archive: a writer may list, and not read."""
        key = self._bucket.key(name)
        with self._bucket.explained(f"looking for {name}"):
            answer = self._bucket.client.list_objects_v2(
                Bucket=self._bucket.name, Prefix=key, MaxKeys=1
            )
        for item in answer.get("Contents", []):
            if item["Key"] == key:
                return item
        raise NotFound(f"there is no {name} in {self.url}", "epibackup list shows the runs")

    # -- what killed runs have left ---------------------------------------------------------------

    def _remove_abandoned(self, own: Begun, now: datetime) -> None:
        """Abort uploads of this user's that nobody goes on with, where that is allowed.

        own: an upload of this moment, which tells how the server names this user; MinIO names
        none, so there it is anybody's.
        now: the server's time.
        """
        uploads = list(self._uploads(self._bucket.prefix))
        mine = [item for item in uploads if item["UploadId"] == own.id]
        if not mine:
            # MinIO lists uploads by their whole key, or all there are.
            uploads = list(self._uploads(""))
            mine = [item for item in uploads if item["UploadId"] == own.id]
        if not mine:
            return
        user = mine[0].get("Initiator", {}).get("ID")
        for item in uploads:
            is_ours = item.get("Initiator", {}).get("ID") == user and item["UploadId"] != own.id
            if is_ours and now - item["Initiated"] > ABANDONED and self._is_idle(item, now):
                with suppress(ClientError, BotoCoreError):  # not allowed, or gone meanwhile
                    end(self._bucket, Begun(item["Key"], item["UploadId"], False))

    def _uploads(self, prefix: str) -> Iterator["MultipartUploadTypeDef"]:
        """Unfinished uploads of archives here, and of checks; not those below in folders."""
        pages = self._bucket.quick_client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket.name, Prefix=prefix
        )
        for page in pages:
            for item in page.get("Uploads", []):
                name = item["Key"].removeprefix(self._bucket.prefix)
                here = item["Key"].startswith(self._bucket.prefix) and "/" not in name
                if here and name.removeprefix(".").startswith("epibackup"):
                    yield item

    def _is_idle(self, item: "MultipartUploadTypeDef", now: datetime) -> bool:
        """Whether an upload got no part lately; one that does not tell is left alone."""
        try:
            pages = self._bucket.quick_client.get_paginator("list_parts").paginate(
                Bucket=self._bucket.name, Key=item["Key"], UploadId=item["UploadId"]
            )
            times = [part["LastModified"] for page in pages for part in page.get("Parts", [])]
        except (ClientError, BotoCoreError):
            return False
        return not times or now - max(times) > ABANDONED


@contextmanager
def _no_lock_is_fine() -> Iterator[None]:
    """Swallow the refusals that mean: there is no lock."""
    try:
        yield
    except ClientError as error:
        if code_of(error) not in _NO_LOCK:
            raise

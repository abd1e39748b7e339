"""Writing an archive into a bucket: one multipart upload, its parts sent side by side."""

import base64
import hashlib
import io
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from crc32c import crc32c

from components.errors import EpibackupError, TargetUnreachable, VerificationFailed
from components.storage.s3.bucket import Bucket
from components.storage.s3.failures import code_of
from components.storage.target import Data, Upload

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 8 << 20
PARTS_OF_A_SIZE = 1000
LARGEST_PARTS = 10_000
"""An upload has at most that many parts (Amazon S3 User Guide, "multipart upload limits")."""

SETTLING_SECONDS = 1.2
"""S3 tells to the second when an upload began (MinIO to the millisecond). Once that second is over,
all that began in it are listed, and everyone who looks sees the same one as the first."""

CHECKSUM = "CRC32C"
TOKEN = "epibackup-upload"  # noqa: S105 - the name of a metadata field
_PRECISE = datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)
_TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_GONE = ("NoSuchUpload", "404")


def part_bytes(number: int) -> int:
    """The size of a part, counted from 1: 8 MiB, and twice that after each 1,000 parts.

    So 10,000 parts hold 8 TiB, and what is in memory stays small for all but the largest.
    """
    return PART_BYTES << ((number - 1) // PARTS_OF_A_SIZE)


@dataclass(frozen=True)
class Begun:
    """A multipart upload that was begun.

    has_checksums: the server checks CRC32C of parts. One that does not is sent Content-MD5,
    which every S3 server checks, but tells nobody of.
    """

    key: str
    id: str
    has_checksums: bool


@dataclass(frozen=True)
class _Sent:
    """A part that the server has, with the digest that the server was given."""

    etag: str
    digest: bytes


def _buffer(size: int) -> io.BytesIO:
    """A buffer of just that size; one that grows takes more, and copies."""
    made = io.BytesIO()
    made.seek(size - 1)
    made.write(b"\0")
    made.seek(0)
    return made


def begin(bucket: Bucket, key: str, quick: bool = False, token: str = "") -> Begun:
    """Begin a multipart upload; raises TargetUnreachable.

    quick: for somebody who waits. token: is kept with the object, and tells whose it is.
    """
    options = bucket.options
    wanted: dict[str, Any] = {"Bucket": bucket.name, "Key": key, "ChecksumAlgorithm": CHECKSUM}
    if token:
        wanted["Metadata"] = {TOKEN: token}
    if options.storage_class:
        wanted["StorageClass"] = options.storage_class
    if options.sse:
        wanted["ServerSideEncryption"] = options.sse
    if options.kms_key_id:
        wanted["SSEKMSKeyId"] = options.kms_key_id
    client = bucket.quick_client if quick else bucket.client
    with bucket.explained(f"beginning {key.removeprefix(bucket.prefix)}"):
        try:
            answer = client.create_multipart_upload(**wanted)
        except ClientError as error:
            # Servers from before checksums ignore the header; Backblaze B2 refuses it.
            if "checksum-algorithm" not in str(error.response.get("Error", {}).get("Message")):
                raise
            del wanted["ChecksumAlgorithm"]
            answer = client.create_multipart_upload(**wanted)
    return Begun(key, answer["UploadId"], answer.get("ChecksumAlgorithm") == CHECKSUM)


def end(bucket: Bucket, begun: Begun) -> None:
    """Remove an unfinished upload; raises ClientError and BotoCoreError."""
    bucket.quick_client.abort_multipart_upload(Bucket=bucket.name, Key=begun.key, UploadId=begun.id)


class S3Upload(Upload):
    """A multipart upload. Its parts stay in memory until the server has them.

    names: of which it takes the first that is free. Of several uploads that want a name, the one
    that began first gets it; the others see that before they send anything.
    """

    def __init__(self, bucket: Bucket, names: Sequence[str]) -> None:
        self._bucket = bucket
        self._taken = self._existing(names)
        self._names = iter(names)
        self._token = secrets.token_hex(16)
        self._name = ""
        self._begun: Begun | None = None
        self._settled = False
        self._failure: BaseException | None = None
        self._buffer = _buffer(part_bytes(1))
        self._spare: list[io.BytesIO] = []
        self._sent: dict[int, _Sent] = {}
        self._sending: dict[Future[_Sent], tuple[int, io.BytesIO]] = {}
        self._last_part = 0
        self._begin_next()
        self._pool = ThreadPoolExecutor(bucket.options.parallel)

    def write(self, data: Data) -> None:
        self._require_begun()
        view = memoryview(data).cast("B")
        while view:
            room = part_bytes(self._last_part + 1) - self._buffer.tell()
            self._buffer.write(view[:room])
            view = view[room:]
            if self._buffer.tell() == part_bytes(self._last_part + 1):
                self._send()

    def publish(self) -> str:
        begun = self._require_begun()
        if self._buffer.tell() or not self._last_part:
            begun = self._send()
        while self._sending:
            self._collect()
        told = self._complete(begun)
        self._finish()
        # Some servers check each part and do not tell the whole; reading back proves it then.
        is_proven = told == self._checksum() or (not told and self._bucket.options.read_back)
        if begun.has_checksums and not is_proven:
            raise VerificationFailed(
                f"{self._name} in {self._bucket.url} has another checksum ({told}) than what was "
                f"sent ({self._checksum()})",
                "do not use it: delete it, then run it again with the same run id",
            )
        return self._name

    def abort(self) -> None:
        begun = self._begun
        self._finish()
        if begun:
            # What is left is an unfinished upload, which a later check removes.
            with suppress(ClientError, BotoCoreError, EpibackupError):
                end(self._bucket, begun)

    def _require_begun(self) -> Begun:
        if self._failure:  # a part is missing, and so it stays
            raise self._failure
        if self._begun is None:
            raise TargetUnreachable(f"the upload of {self._name} has ended already")
        return self._begun

    def _finish(self) -> None:
        """Nothing is sent any more."""
        self._begun = None
        self._pool.shutdown(cancel_futures=True)
        self._buffer = io.BytesIO()
        self._spare.clear()

    # -- the name ---------------------------------------------------------------------------------

    def _existing(self, names: Sequence[str]) -> set[str]:
        """Those of the names that are taken."""
        # Character by character is what a prefix is here.
        common = self._bucket.key(os.path.commonprefix(list(names)))  # noqa: RUF071
        with self._bucket.explained(f"looking for {names[0]}"):
            pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket.name, Prefix=common
            )
            found = {item["Key"] for page in pages for item in page.get("Contents", [])}
        return {name for name in names if self._bucket.key(name) in found}

    def _begin_next(self) -> Begun:
        for name in self._names:
            if name not in self._taken:
                self._name = name
                self._begun = begin(self._bucket, self._bucket.key(name), token=self._token)
                self._since = time.monotonic()
                return self._begun
        raise TargetUnreachable(f"every name for the archive is taken in {self._bucket.url}")

    def _settle(self) -> Begun:
        """Make sure that the name is this upload's, or take the next one."""
        begun = self._require_begun()
        while not self._settled:
            with self._bucket.explained(f"beginning {self._name}"):
                if self._is_first(begun) and not self._existing([self._name]):
                    self._settled = True
                    break
                end(self._bucket, begun)
            self._begun = None
            begun = self._begin_next()
        return begun

    def _is_first(self, begun: Begun) -> bool:
        rivals = self._rivals(begun)
        if rivals.get(begun.id, _PRECISE).microsecond == 0:
            time.sleep(max(0.0, self._since + SETTLING_SECONDS - time.monotonic()))
            rivals = self._rivals(begun)
        # A server that does not list uploads is left to decide when they are completed.
        first = min(rivals, key=lambda upload: (rivals[upload], upload), default=begun.id)
        return begun.id not in rivals or first == begun.id

    def _rivals(self, begun: Begun) -> dict[str, datetime]:
        """When the unfinished uploads of a key began, this one among them, by their ids."""
        pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket.name, Prefix=begun.key
        )
        return {
            item["UploadId"]: item["Initiated"]
            for page in pages
            for item in page.get("Uploads", [])
            if item["Key"] == begun.key
        }

    # -- the parts --------------------------------------------------------------------------------

    def _send(self) -> Begun:
        """Hand the buffer over as the next part; waits while enough parts are on their way."""
        begun = self._settle()
        if self._last_part == LARGEST_PARTS:
            raise TargetUnreachable(
                f"{self._name} is larger than {LARGEST_PARTS:,} parts of S3 can hold (8 TiB)",
                "save services apart: --service",
            )
        size = part_bytes(self._last_part + 1)
        while len(self._sending) >= max(1, self._bucket.options.parallel * PART_BYTES // size):
            self._collect()
        self._last_part += 1
        full = self._buffer
        full.truncate()  # it may have held a longer part before
        part = self._pool.submit(self._send_part, begun, self._last_part, full)
        self._sending[part] = self._last_part, full
        # Buffers are used again: what is freed and asked for anew does not all go back.
        self._buffer = self._spare.pop() if self._spare else _buffer(size)
        self._buffer.seek(0)
        return begun

    def _collect(self) -> None:
        """Wait for a part that is on its way; raises what went wrong with it."""
        done, _ = wait(self._sending, return_when=FIRST_COMPLETED)
        for part in done:
            number, sent = self._sending.pop(part)
            self._failure = part.exception()
            self._sent[number] = part.result()
            self._spare.append(sent)

    def _send_part(self, begun: Begun, number: int, data: io.BytesIO) -> _Sent:
        checksum: dict[str, Any]
        with data.getbuffer() as view:
            if begun.has_checksums:
                digest = crc32c(view).to_bytes(4, "big")
                checksum = {"ChecksumCRC32C": base64.b64encode(digest).decode()}
            else:
                digest = hashlib.md5(view, usedforsecurity=False).digest()
                checksum = {"ContentMD5": base64.b64encode(digest).decode()}
        data.seek(0)
        with self._bucket.explained(f"writing part {number} of {self._name}"):
            answer = self._bucket.client.upload_part(
                Bucket=self._bucket.name,
                Key=begun.key,
                UploadId=begun.id,
                PartNumber=number,
                Body=data,
                **checksum,
            )
        return _Sent(answer["ETag"], digest)

    def _checksum(self) -> str:
        """What S3 says of the whole: the checksum of the parts' checksums, and their number."""
        together = b"".join(self._sent[number].digest for number in sorted(self._sent))
        digest = base64.b64encode(crc32c(together).to_bytes(4, "big")).decode()
        return f"{digest}-{len(self._sent)}"

    def _complete(self, begun: Begun) -> str:
        """Make the object of the parts; returns the checksum that the server tells."""
        parts: list[CompletedPartTypeDef] = []
        for number, part in sorted(self._sent.items()):
            completed: CompletedPartTypeDef = {"PartNumber": number, "ETag": part.etag}
            if begun.has_checksums:
                completed["ChecksumCRC32C"] = base64.b64encode(part.digest).decode()
            parts.append(completed)
        with self._bucket.explained(f"publishing {self._name}"):
            try:
                answer = self._bucket.client.complete_multipart_upload(
                    Bucket=self._bucket.name,
                    Key=begun.key,
                    UploadId=begun.id,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if code_of(error) not in (*_TAKEN, *_GONE):
                    raise
                return self._completed_before(begun, error)
        return answer.get("ChecksumCRC32C", "")

    def _completed_before(self, begun: Begun, refused: ClientError) -> str:
        """Find out whether an object that is in the way is our own.

        It is when the answer to an earlier try was lost: the SDK has then asked again.
        """
        found = None
        with suppress(ClientError):
            found = self._bucket.client.head_object(
                Bucket=self._bucket.name, Key=begun.key, ChecksumMode="ENABLED"
            )
        if found and found["Metadata"].get(TOKEN) == self._token:
            return found.get("ChecksumCRC32C", "")
        if code_of(refused) in _GONE:
            raise refused
        raise TargetUnreachable(
            f"the name {self._name} was taken in {self._bucket.url} while the archive was written",
            "run again with the same run id: it gets the next name",
        ) from refused

"""Reading an object at any position."""

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from components.errors import TargetUnreachable
from components.storage.s3.bucket import Bucket

if TYPE_CHECKING:
    from botocore.response import StreamingBody

FIRST_RANGE_BYTES = 256 << 10
LARGEST_RANGE_BYTES = 64 << 20
BUFFER_BYTES = 1 << 20
BREAKS = 5
"""How often in a row a connection may break without a byte before that is an error. Each time the
SDK tries, too, to get a new one."""

_BROKEN = (BotoCoreError, HTTPError, OSError)


class S3Reader(io.RawIOBase):
    """An object as a file, by ranged reads that become larger as long as reading goes on in order:
    256 KiB first, then twice as much, up to 64 MiB; so looking around is cheap, and reading all of
    it is a stream over one connection.

    etag: what the object has to be; if it was replaced, VerificationFailed is raised.
    A connection that breaks is made again, and reading goes on where it was.
    """

    def __init__(self, bucket: Bucket, name: str, size: int, etag: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._name = name
        self._size = size
        self._etag = etag
        self._position = 0
        self._body: StreamingBody | None = None
        self._body_position = 0
        self._body_end = 0
        self._range_bytes = FIRST_RANGE_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        if not view:
            return 0
        for _ in range(BREAKS):
            try:
                count = self._read_some(view)
            except _BROKEN as error:
                broken = error
                self._drop()
            else:
                self._position += count
                return count
        raise TargetUnreachable(
            f"reading {self._name} in {self._bucket.url} failed: the connection breaks again and "
            f"again ({type(broken).__name__})",
            "check the network between here and there, then try again",
        ) from broken

    def close(self) -> None:
        self._drop()
        super().close()

    def _read_some(self, view: memoryview) -> int:
        body = self._body_at(self._position, len(view))
        # Any buffer will do, though the annotation says a file.
        count = int(body.readinto(cast(Any, view[: self._body_end - self._body_position])))
        if not count:
            raise OSError("the answer is shorter than it should be")
        self._body_position += count
        return count

    def _body_at(self, position: int, wanted: int) -> "StreamingBody":
        """The stream of a range that goes on at a position."""
        if self._body and self._body_position <= position < self._body_end:
            skipped = position - self._body_position
            if skipped <= FIRST_RANGE_BYTES:
                self._skip(self._body, skipped)
                return self._body
        if self._body_end == position:  # in order
            self._range_bytes = min(self._range_bytes * 2, LARGEST_RANGE_BYTES)
        else:
            self._range_bytes = FIRST_RANGE_BYTES
        if self._body and self._body_end - self._body_position <= FIRST_RANGE_BYTES:
            # Read to its end, the connection can be used again.
            self._skip(self._body, self._body_end - self._body_position)
        self._drop()
        return self._request(position, max(wanted, self._range_bytes))

    def _skip(self, body: "StreamingBody", count: int) -> None:
        while count:
            skipped = len(body.read(count))
            if not skipped:
                raise OSError("the answer is shorter than it should be")
            count -= skipped
            self._body_position += skipped

    def _request(self, start: int, length: int) -> "StreamingBody":
        end = min(start + length, self._size)
        with self._bucket.explained(f"reading {self._name}"):
            answer = self._bucket.client.get_object(
                Bucket=self._bucket.name,
                Key=self._bucket.key(self._name),
                Range=f"bytes={start}-{end - 1}",
                IfMatch=self._etag,
            )
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-{end - 1}/"):
            answer["Body"].close()
            raise TargetUnreachable(
                f"reading {self._name} in {self._bucket.url} failed: the server does not answer "
                "ranged reads as asked"
            )
        self._body, self._body_position, self._body_end = answer["Body"], start, end
        return self._body

    def _drop(self) -> None:
        """End the stream at hand, and its connection with it if there is more to come."""
        if self._body:
            with suppress(*_BROKEN):
                self._body.close()
        self._body = None

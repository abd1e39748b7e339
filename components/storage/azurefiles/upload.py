"""Writing a file of a share: a hidden one, that is renamed when it is complete."""

import contextlib
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)

from components.errors import TargetUnreachable
from components.storage.azurefiles.problems import error_code, explained
from components.storage.azurefiles.service import RANGE_BYTES, Service
from components.storage.partial import partial_name
from components.storage.target import Data, Upload

LARGEST_FILE_BYTES = 4 << 40
"""The largest file ("Azure Files scalability and performance targets")."""

GROWTH_BYTES = 64 << 20
"""A file has its size before its bytes; it grows by this much at least, or by an eighth."""

MARK = "epibackup_upload"
"""The metadata that tells whose file has got a name."""


class AzureFilesUpload(Upload):
    """Sends ranges in parallel; memory is the ranges under way and one that is being filled.

    A range is acknowledged when it is stored in all replicas, so there is nothing to flush.
    """

    def __init__(self, service: Service, names: Sequence[str]) -> None:
        self._service = service
        self._names = names
        self._token = secrets.token_hex(8)
        path = service.location.path(partial_name(names[0]))
        self._file = service.share.get_file_client(path)
        self._buffer = bytearray()
        self._sent = 0
        self._size = 0
        self._pool = ThreadPoolExecutor(service.options.parallel)
        self._under_way: deque[Future[None]] = deque()
        self._ended = False
        self._whole = True
        with explained(service):
            self._file.create_file(0)

    def write(self, data: Data) -> None:
        """See Upload."""
        view = memoryview(data)
        with self._going_on():
            while view:
                taken = view[: RANGE_BYTES - len(self._buffer)]
                self._buffer += taken
                view = view[len(taken) :]
                if len(self._buffer) == RANGE_BYTES:
                    self._send()

    def publish(self) -> str:
        """See Upload."""
        with self._going_on():
            if self._buffer:
                self._send()
            self._wait_for(0)
            if self._size != self._sent:
                self._file.resize_file(self._sent)
            for name in self._names:
                if self._take(name):
                    self._end()
                    return name
        raise TargetUnreachable(
            f"every name for the archive is taken in {self._service.location.url}"
        )

    def abort(self) -> None:
        """See Upload; where the service is gone, `check` removes the file another day."""
        if self._ended:
            return
        self._end()
        try:
            self._file.delete_file(retry_total=0)
        except AzureError:
            return

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """A step; after one that failed something is missing, and there is no further one."""
        if self._ended or not self._whole:
            raise TargetUnreachable(
                "the upload has ended" if self._ended else "a part of the archive is not written",
                "run again",
            )
        self._whole = False
        with explained(self._service):
            yield
        self._whole = True

    def _end(self) -> None:
        self._ended = True
        self._buffer.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _send(self) -> None:
        """Send what is in the buffer, once there is room for it under way."""
        data, start = bytes(self._buffer), self._sent
        self._buffer.clear()
        self._sent += len(data)
        if self._sent > self._size:
            self._wait_for(0)
            self._grow()
        self._wait_for(self._service.options.parallel - 1)
        self._under_way.append(self._pool.submit(self._put, data, start))

    def _put(self, data: bytes, start: int) -> None:
        # The service compares the range with the MD5 before it stores it.
        self._file.upload_range(data, start, len(data), validate_content="md5")

    def _wait_for(self, limit: int) -> None:
        """Wait until no more than so many ranges are under way; raises what went wrong."""
        while len(self._under_way) > limit:
            self._under_way.popleft().result()

    def _grow(self) -> None:
        if self._sent > LARGEST_FILE_BYTES:
            raise TargetUnreachable(
                "the archive is larger than 4 TiB, which is the most that a file in Azure Files "
                "can be",
                "save fewer services in a run (--service), or choose an object store",
            )
        size = max(self._sent, self._size + max(GROWTH_BYTES, self._size // 8))
        size = min(size, LARGEST_FILE_BYTES)
        try:
            self._file.resize_file(size)
        except HttpResponseError as error:
            if error_code(error) != "ShareSizeLimitReached":
                raise
            # Close to the quota: perhaps what is needed now still fits.
            size = self._sent
            self._file.resize_file(size)
        self._size = size

    def _take(self, name: str) -> bool:
        """Give the file its name, unless that is taken; True if it got it.

        Create File replaces what is there and knows no condition; Rename File without
        replace-if-exists is what the service refuses where the name is taken.
        """
        path = self._service.location.path(name)
        try:
            self._file.rename_file(path, overwrite=False, metadata={MARK: self._token})
        except (ResourceExistsError, ResourceNotFoundError) as error:
            # Perhaps the answer to the first try was lost, and this one is to the SDK's second.
            if self._is_ours(path):
                return True
            if isinstance(error, ResourceNotFoundError):
                raise
            return False
        return True

    def _is_ours(self, path: str) -> bool:
        try:
            found = self._service.share.get_file_client(path).get_file_properties()
        except ResourceNotFoundError:
            return False
        return (found.metadata or {}).get(MARK) == self._token

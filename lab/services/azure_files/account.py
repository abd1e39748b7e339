"""What the double knows: one storage account, its shares and files, and faults to come."""

import base64
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

Fault = Literal["busy", "cut", "lost", "half", "flip", "hang"]
"""busy: 503 ServerBusy. cut: the connection ends without an answer, nothing is done. lost: it is
done, and the answer never arrives. half: the connection ends in the middle of the body. flip: a
bit of the request's body changes on its way. hang: no answer until the server stops."""


@dataclass
class Entry:
    """What the service knows of a file besides its content."""

    metadata: dict[str, str] = field(default_factory=dict)
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    etag: str = ""
    identity: str = field(default_factory=lambda: str(uuid.uuid4().int >> 64))

    def touch(self) -> None:
        """Give the file the properties of one that was changed now."""
        self.modified = datetime.now(UTC)
        self.etag = f'"0x{secrets.token_hex(8).upper()}"'

    def headers(self) -> dict[str, str]:
        """The properties as every answer about the file has them."""
        return {
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.modified, usegmt=True),
            "x-ms-file-id": self.identity,
            "x-ms-file-last-write-time": self.modified.isoformat(),
            **{f"x-ms-meta-{name}": value for name, value in self.metadata.items()},
        }


class Account:
    """The account, as tests set it up and look at it.

    folder: where the shares are, a folder each. quota_bytes: of each share. page_size: the most
    entries that a list has at once. keys_allowed: whether keys and SAS tokens are. requests: what
    was done, and the status of the answer. stopped: set when the server ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = "epibackuplab"
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.tokens = {secrets.token_urlsafe(32)}
        self.quota_bytes = 1 << 40
        self.page_size = 50
        self.protocols = "SMB"
        self.clock_offset_seconds = 0.0
        self.keys_allowed = True
        self.stopped = threading.Event()
        self.requests: list[tuple[str, int]] = []
        self.entries: dict[Path, Entry] = {}
        self.lock = threading.RLock()
        self._faults: list[tuple[str, Fault]] = []

    def now(self) -> datetime:
        """The service's clock."""
        return datetime.fromtimestamp(time.time() + self.clock_offset_seconds, UTC)

    def make_share(self, name: str) -> Path:
        """Make an empty share; returns its folder."""
        share = self.folder / name
        share.mkdir()
        return share

    def fail(self, operation: str, fault: Fault, times: int = 1) -> None:
        """Let the next requests of an operation fail."""
        with self.lock:
            self._faults += [(operation, fault)] * times

    def next_fault(self, operation: str) -> Fault | None:
        """The fault that an operation meets now, if any."""
        with self.lock:
            for position, (name, fault) in enumerate(self._faults):
                if name == operation:
                    del self._faults[position]
                    return fault
        return None

    def times(self, operation: str, status: int) -> int:
        """How often an operation was answered so; 0 is a connection that was cut."""
        return self.requests.count((operation, status))

    def used_bytes(self, share: Path) -> int:
        """The sizes of all files of a share."""
        return sum(path.stat().st_size for path in share.rglob("*") if path.is_file())

    def add(self, place: Path, content: bytes) -> None:
        """Put a file into a share as somebody else would; replaces what is there."""
        with self.lock:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            self.entries[place] = Entry()
            self.entries[place].touch()

    def make_older(self, by: timedelta) -> None:
        """Let time pass for all files."""
        with self.lock:
            for entry in self.entries.values():
                entry.modified -= by

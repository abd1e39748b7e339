"""The operations of the File service, each named as in the REST reference."""

import base64
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from lab.services.azure_files.account import Account, Entry
from lab.services.azure_files.signatures import RefusedError

LARGEST_RANGE = 4 << 20
LARGEST_FILE = 4 << 40
_FORBIDDEN = set('"\\:|<>*?') | {chr(code) for code in range(32)}

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Operations:
    """The operations for one request.

    path: as in the request line, still encoded. headers: by lower-case name.
    """

    def __init__(
        self,
        account: Account,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        self.account = account
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body

    def chosen(self, method: str) -> tuple[str, Callable[[], Answer], str]:
        """The operation's name, its method, and the SAS permissions of which one is enough."""
        directory = self.query.get("restype") == "directory"
        share = self.query.get("restype") == "share"
        chosen = (method, self.query.get("comp", ""))
        if share:
            known = {
                ("GET", "stats"): ("stats", self.share_stats, "r"),
                ("GET", ""): ("share", self.share_properties, "r"),
                ("HEAD", ""): ("share", self.share_properties, "r"),
            }
        elif directory:
            known = {
                ("GET", "list"): ("list", self.list_directory, "l"),
                ("PUT", ""): ("create_directory", self.create_directory, "cw"),
            }
        else:
            known = {
                ("PUT", ""): ("create_file", self.create_file, "cw"),
                ("PUT", "range"): ("put_range", self.put_range, "w"),
                ("PUT", "properties"): ("resize", self.resize, "w"),
                ("PUT", "rename"): ("rename", self.rename, "w"),
                ("GET", ""): ("get_file", self.get_file, "r"),
                ("HEAD", ""): ("head_file", self.head_file, "r"),
                ("DELETE", ""): ("delete_file", self.delete_file, "d"),
            }
        return known.get(chosen, ("unknown", self.unknown, ""))

    def _share(self) -> Path:
        name = unquote(self.path).split("/")[1]
        share = self.account.folder / name
        if not share.is_dir():
            raise RefusedError(404, "ShareNotFound")
        return share

    def _place(self, encoded: str) -> Path:
        """The place on disk of a path; its parent exists."""
        share, names = self._share(), unquote(encoded).split("/")[2:]
        for name in names:
            if not name or len(name) > 255 or set(name) & _FORBIDDEN or set(name) <= {"."}:
                raise RefusedError(400, "InvalidResourceName", name)
        place = share.joinpath(*names)
        if not place.parent.is_dir():
            raise RefusedError(404, "ParentNotFound")
        return place

    def _file(self) -> tuple[Path, Entry]:
        place = self._place(self.path)
        if not place.is_file():
            raise RefusedError(404, "ResourceNotFound")
        return place, self.account.entries[place]

    def _require_space(self, growth: int) -> None:
        if self.account.used_bytes(self._share()) + growth > self.account.quota_bytes:
            raise RefusedError(403, "ShareSizeLimitReached")

    # Shares and directories.

    def share_properties(self) -> Answer:
        """Get Share Properties."""
        self._share()
        quota = max(1, self.account.quota_bytes >> 30)
        protocols = self.account.protocols
        return 200, {"x-ms-share-quota": str(quota), "x-ms-enabled-protocols": protocols}, b""

    def share_stats(self) -> Answer:
        """Get Share Stats."""
        used = self.account.used_bytes(self._share())
        text = f"<ShareStats><ShareUsageBytes>{used}</ShareUsageBytes></ShareStats>"
        return 200, {"Content-Type": "application/xml"}, text.encode()

    def create_directory(self) -> Answer:
        """Create Directory."""
        place = self._place(self.path)
        with self.account.lock:
            if place.exists():
                raise RefusedError(409, "ResourceAlreadyExists")
            place.mkdir()
        return 201, {"ETag": '"0x1"'}, b""

    def list_directory(self) -> Answer:
        """List Directories and Files."""
        share = self._share()
        below = unquote(self.path).split("/")[2:]
        place = share.joinpath(*below)
        if not place.is_dir():
            raise RefusedError(404, "ResourceNotFound")
        prefix = self.query.get("prefix", "")
        names = sorted(item.name for item in place.iterdir() if item.name.startswith(prefix))
        names = [name for name in names if name >= self.query.get("marker", "")]
        size = min(int(self.query.get("maxresults", "5000")), self.account.page_size)
        page, rest = names[:size], names[size:]
        with self.account.lock:
            entries = "".join(self._listed(place / name) for name in page)
        marker = escape(rest[0]) if rest else ""
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="" '
            f'ShareName="{share.name}" DirectoryPath=""><Entries>{entries}</Entries>'
            f"<NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        return 200, {"Content-Type": "application/xml"}, text.encode()

    def _listed(self, place: Path) -> str:
        if place.is_dir():
            return f"<Directory><Name>{escape(place.name)}</Name><Properties/></Directory>"
        entry = self.account.entries.get(place)
        if entry is None:  # renamed or deleted just now
            return ""
        times = ""
        if "timestamps" in self.query.get("include", "").lower():
            stamp = format_datetime(entry.modified, usegmt=True)
            times = (
                f"<LastWriteTime>{entry.modified.isoformat()}</LastWriteTime>"
                f"<Last-Modified>{stamp}</Last-Modified>"
            )
        return (
            f"<File><Name>{escape(place.name)}</Name><Properties><Content-Length>"
            f"{place.stat().st_size}</Content-Length>{times}</Properties></File>"
        )

    # Files.

    def create_file(self) -> Answer:
        """Create File: replaces what is there."""
        place = self._place(self.path)
        size = int(self.headers.get("x-ms-content-length", "-1"))
        if self.headers.get("x-ms-type") != "file" or not 0 <= size <= LARGEST_FILE:
            raise RefusedError(400, "InvalidHeaderValue", "x-ms-type or x-ms-content-length")
        with self.account.lock:
            if place.is_dir():
                raise RefusedError(409, "ResourceTypeMismatch")
            self._require_space(size)
            with place.open("wb") as file:
                file.truncate(size)
            entry = self.account.entries[place] = Entry(self._metadata())
            entry.touch()
        return 201, entry.headers(), b""

    def _metadata(self) -> dict[str, str]:
        start = "x-ms-meta-"
        return {
            name.removeprefix(start): value
            for name, value in self.headers.items()
            if name.startswith(start)
        }

    def _range(self, size: int) -> tuple[int, int]:
        """The first byte of a range and the one behind its end."""
        unit, _, text = (self.headers.get("x-ms-range") or self.headers.get("range", "")).partition(
            "="
        )
        first, _, last = text.partition("-")
        if unit != "bytes" or not first.isdigit() or not (last.isdigit() or last == ""):
            raise RefusedError(400, "InvalidHeaderValue", "x-ms-range")
        return int(first), int(last) + 1 if last else size

    def put_range(self) -> Answer:
        """Put Range."""
        place, entry = self._file()
        if self.headers.get("x-ms-write") != "update":
            raise RefusedError(400, "InvalidHeaderValue", "x-ms-write")
        start, end = self._range(0)
        if end - start > LARGEST_RANGE:
            raise RefusedError(413, "RequestBodyTooLarge")
        if end - start != len(self.body):
            raise RefusedError(400, "InvalidHeaderValue", "Content-Length")
        digest = base64.b64encode(hashlib.md5(self.body, usedforsecurity=False).digest()).decode()
        if self.headers.get("content-md5", digest) != digest:
            raise RefusedError(400, "Md5Mismatch")
        with place.open("rb+") as file:
            if end > os.fstat(file.fileno()).st_size:
                raise RefusedError(416, "InvalidRange")
            os.pwrite(file.fileno(), self.body, start)
        with self.account.lock:
            entry.touch()
        return 201, {**entry.headers(), "Content-MD5": digest}, b""

    def resize(self) -> Answer:
        """Set File Properties with a new size."""
        place, entry = self._file()
        size = int(self.headers.get("x-ms-content-length", "-1"))
        if not 0 <= size <= LARGEST_FILE:
            raise RefusedError(400, "InvalidHeaderValue", "x-ms-content-length")
        with self.account.lock:
            self._require_space(size - place.stat().st_size)
            os.truncate(place, size)
            entry.touch()
        return 200, entry.headers(), b""

    def rename(self) -> Answer:
        """Rename File."""
        target = self._place(self.path)
        source_url = urlsplit(self.headers.get("x-ms-file-rename-source", ""))
        replace = self.headers.get("x-ms-file-rename-replace-if-exists", "false").lower() == "true"
        with self.account.lock:
            source = self._place(source_url.path)
            if not source.is_file():
                raise RefusedError(404, "ResourceNotFound")
            if target.is_dir() or (target.exists() and not replace):
                raise RefusedError(409, "ResourceAlreadyExists")
            source.rename(target)
            entry = self.account.entries[target] = self.account.entries.pop(source)
            entry.metadata = self._metadata() or entry.metadata
            entry.touch()
        return 200, entry.headers(), b""

    def head_file(self) -> Answer:
        """Get File Properties."""
        place, entry = self._file()
        return 200, {**entry.headers(), "Content-Length": str(place.stat().st_size)}, b""

    def get_file(self) -> Answer:
        """Get File, all of it or a range."""
        place, entry = self._file()
        with place.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            ranged = "x-ms-range" in self.headers or "range" in self.headers
            start, end = self._range(size) if ranged else (0, size)
            if ranged and start >= size:
                raise RefusedError(416, "InvalidRange")
            end = min(end, size)
            file.seek(start)
            content = file.read(end - start)
        headers = entry.headers()
        if self.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
            if len(content) > LARGEST_RANGE:
                raise RefusedError(400, "InvalidHeaderValue", "x-ms-range-get-content-md5")
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            headers["Content-MD5"] = base64.b64encode(digest).decode()
        if not ranged:
            return 200, headers, content
        return 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, content

    def delete_file(self) -> Answer:
        """Delete File."""
        with self.account.lock:
            place, _ = self._file()
            place.unlink()
            del self.account.entries[place]
        return 202, {}, b""

    def unknown(self) -> Answer:
        """What the double does not have."""
        raise RefusedError(400, "UnsupportedHttpVerb", self.path)

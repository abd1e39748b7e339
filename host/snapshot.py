"""One service's snapshot on one host: what it puts aside, and the answer about it."""

import os
import urllib.parse
from typing import Any, Dict, List, Optional

from host.compression import SUFFIXES, Compression
from host.packing import free_bytes, freeze
from host.store import write_json

FORMAT = 1
"""Version of the answer, checked by the controller."""


def file_name(name: str) -> str:
    """A name from a service (a database, a topic) as a portable file name.

    Percent-encoded UTF-8, so that different names stay different and any can be read back; a
    dot in front, too, because it would hide the file.
    """
    encoded = urllib.parse.quote(name, safe="+=@,", errors="surrogateescape")
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


class Snapshot:
    """What a service's `snapshot` fills in.

    folder: an empty folder for the files it puts aside, root only.
    settings: the service's part of the stack configuration.
    compression: what to compress stored files with.
    """

    def __init__(
        self, folder: str, run: str, settings: Dict[str, Any], compression: Compression
    ) -> None:
        self.folder = folder
        self.run = run
        self.settings = settings
        self.compression = compression
        self.version: Optional[str] = None
        self.details: Dict[str, Any] = {}
        self.warnings: List[str] = []
        self.members: List[Dict[str, Any]] = []

    def path(self, name: str) -> str:
        """Where a file of this snapshot belongs."""
        return os.path.join(self.folder, name)

    def warn(self, message: str) -> None:
        """Something a person should know that does not make the backup incomplete."""
        self.warnings.append(message)

    def free_bytes(self) -> int:
        """Free space where this snapshot is kept."""
        return free_bytes(self.folder)

    def stored_name(self, name: str) -> str:
        """The name of a member that this host compresses itself."""
        return name + SUFFIXES[self.compression.method]

    def add_file(self, path: str, raw_bytes: int, content: Optional[Dict[str, Any]] = None) -> None:
        """Add a file of this snapshot as a member; its name says how it is compressed.

        raw_bytes: its size before compression, as well as it is known.
        """
        name = os.path.relpath(path, self.folder)
        self._add(name, "file", path, raw_bytes, content, os.path.getsize(path))

    def add_folder(
        self, name: str, folder: str, raw_bytes: int, content: Optional[Dict[str, Any]] = None
    ) -> None:
        """Add a folder of this snapshot as a tree, packed and compressed when it is sent."""
        self._add(self.stored_name(name + ".tar"), "tree", folder, raw_bytes, content)

    def add_cut_tree(
        self, name: str, files: List[List[Any]], content: Optional[Dict[str, Any]] = None
    ) -> None:
        """Add files that may go on growing as one tree, each cut to a length.

        files: for each, its path in the tree, where it is, and its length in bytes; a folder has
        no length (None). They are sent in this order.
        """
        listing = self.path(file_name(name) + ".files.json")
        write_json(listing, {"files": files})
        total = sum(length for _, _, length in files if length is not None)
        self._add(self.stored_name(name + ".tar"), "tree", listing, total, content)
        self.members[-1]["cut"] = True

    def add_paths(self, name: str, paths: List[str], content: Dict[str, Any]) -> None:
        """Freeze files and folders of the host and add them as one tree."""
        folder = self.path(name)
        os.makedirs(folder, mode=0o700)
        frozen = freeze(paths, folder)
        if frozen.skipped:
            self.warn("not saved, because they hold no data: " + ", ".join(frozen.skipped))
        described = dict(content, files=frozen.files)
        self.add_folder(name, folder, frozen.bytes, described)

    def _add(
        self,
        name: str,
        kind: str,
        source: str,
        raw_bytes: int,
        content: Optional[Dict[str, Any]],
        stored_bytes: Optional[int] = None,
    ) -> None:
        self.members.append(
            {
                "name": name,
                "kind": kind,
                "raw_bytes": raw_bytes,
                "stored_bytes": stored_bytes,
                "content": content or {},
                "source": source,
                "cut": False,
            }
        )

    def answer(self, service: str, error: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """The document the controller gets; `source` stays on the host (see `public`)."""
        return {
            "format": FORMAT,
            "service": service,
            "run": self.run,
            "status": "failed" if error else "ok",
            "error": error,
            "version": self.version,
            "warnings": self.warnings,
            "details": self.details,
            "members": [] if error else self.members,
        }


def public(answer: Dict[str, Any]) -> Dict[str, Any]:
    """An answer without what only this host needs."""
    members = [
        {key: value for key, value in member.items() if key not in ("source", "cut")}
        for member in answer["members"]
    ]
    return dict(answer, members=members)

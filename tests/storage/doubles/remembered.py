"""Resources that a server does not have, kept in a file."""

import fcntl
import json
from pathlib import Path
from typing import Any

from tests.storage.doubles.provider import Kind, Values


class Remembered(Kind):
    """A type that the server does not have: what was asked for is kept in a file, and nothing
    acts on it."""

    def __init__(self, kind: Kind, path: str) -> None:
        self._kind = kind
        self._path = Path(path)

    @property
    def named(self) -> str:  # type: ignore[override]
        return self._kind.named

    def create(self, inputs: Values) -> str:
        made = f"arn:aws:iam::0:{inputs['name']}" if "name" in inputs else str(inputs["bucket"])
        self.update(made, inputs)
        return made

    def read(self, resource_id: str) -> Values | None:
        found: Values | None = self._known().get(self._key(resource_id))
        return None if found is None else {**found, "arn": resource_id}

    def update(self, resource_id: str, inputs: Values) -> None:
        with Path(f"{self._path}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {**self._known(), self._key(resource_id): inputs}
            self._path.write_text(json.dumps(known))

    def delete(self, resource_id: str) -> None:
        raise NotImplementedError

    def _known(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}

    def _key(self, resource_id: str) -> str:
        return f"{type(self._kind).__name__} {resource_id}"

"""Making trouble for a run, and what its documents say of it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab import Site


def failed(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The failures of a run: host to message and hint."""
    return {
        host["host"]: host["error"]
        for service in document["manifest"]["services"]
        for host in service["hosts"]
        if host["error"]
    }


def services(document: dict[str, Any]) -> dict[str, str]:
    return {service["name"]: service["status"] for service in document["manifest"]["services"]}


@contextmanager
def locked_table(site: Site) -> Iterator[None]:
    """A dump of the database shop waits for a lock, as long as this lasts."""
    server = site.primary
    command = server.host.command(
        [server.tool("psql"), "-d", "shop", "-v", "ON_ERROR_STOP=1"], "postgres", {}
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as session:
        assert session.stdin
        session.stdin.write("BEGIN;\nLOCK TABLE sales.customer IN ACCESS EXCLUSIVE MODE;\n")
        session.stdin.flush()
        try:
            yield
        finally:
            session.stdin.close()


def wait_for(condition: Any, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.1)


def dumping(site: Site) -> bool:
    return any("pg_dump" in it.command_line for it in site.primary.host.processes())

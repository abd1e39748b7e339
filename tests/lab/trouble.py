"""Making trouble for a run, and what its documents say of it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from lab import Cluster, Container, Site


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


def wait_for(condition: Any, what: str, seconds: float = 60, host: Container | None = None) -> None:
    """host: whose processes are shown if it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            shown = processes_of(host) if host else ""
            raise AssertionError(f"{what} did not happen\n{shown}")
        time.sleep(0.1)


class HasCluster(Protocol):
    """Hosts with services on them."""

    @property
    def cluster(self) -> Cluster: ...


def ended(running: "subprocess.Popen[str]", site: HasCluster, seconds: float = 180) -> str:
    """What a run printed, which ends by itself; if it does not, what it and the hosts do."""
    try:
        return running.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired as error:
        os.killpg(running.pid, signal.SIGKILL)
        output = running.communicate()[0]
        shown = "\n".join(processes_of(host) for host in site.cluster.hosts.values())
        raise AssertionError(f"the run did not end:\n{output}\n{shown}") from error


def processes_of(host: Container) -> str:
    """The processes of a host: what each does, how long it has been there, and what it is."""
    columns = "pid,ppid,stat,wchan:20,etimes,args"
    return f"{host.name}:\n" + host.run(["ps", "-e", "-ww", "-o", columns]).stdout


def dumping(site: Site) -> bool:
    return any("pg_dump" in it.command_line for it in site.primary.host.processes())


def waits_for_lock(site: Site) -> bool:
    """Whether a dump of the database shop waits for `locked_table`."""
    processes = site.primary.host.processes()
    return any("shop [local] LOCK TABLE waiting" in it.command_line for it in processes)

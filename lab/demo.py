"""The demo cluster of `make backup`: one database host and one load balancer."""

from collections.abc import Mapping
from pathlib import Path

from lab.cluster import (
    DATABASE_HOST,
    DEMO_NETWORK,
    LOAD_BALANCER_HOST,
    Definition,
    HostDefinition,
)
from lab.machine import Report, locked, state_folder
from lab.services.postgresql import PLAIN_DATABASES
from lab.site import Site

DEMO = Definition(
    name="demo",
    network=DEMO_NETWORK,
    hosts=(
        HostDefinition("postgresql1", DATABASE_HOST),
        HostDefinition("loadbalancer1", LOAD_BALANCER_HOST),
    ),
)


def demo_site() -> Site:
    """The demo's cluster and services, running or not."""
    return Site(DEMO, PLAIN_DATABASES)


def up(report: Report) -> Site:
    """Starts the demo, or finds it running. It outlives this process; `down` ends it.

    Raises LabError where hosts cannot run on this machine.
    """
    site = demo_site()
    with locked(_lock(), report):
        site.start(report)
    return site


def down(report: Report) -> None:
    """Ends the demo and deletes its hosts; the image stays in the cache."""
    with locked(_lock(), report):
        site = demo_site()
        if site.cluster.folder.exists():
            report("Ending the demo cluster")
            site.cluster.destroy()


def status() -> Mapping[str, bool]:
    """Which of the demo's hosts are running; empty when there is no demo."""
    site = demo_site()
    if not site.cluster.folder.exists():
        return {}
    return {name: host.is_running for name, host in site.cluster.hosts.items()}


def _lock() -> Path:
    return state_folder() / "demo.lock"

"""Hosts with RabbitMQ for tests."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from lab import Cluster, Container, Definition, HostDefinition, LabError, obtain_image
from lab.cluster import EVERY_HOST, claimed_network
from lab.machine import Report
from lab.services.rabbitmq import RECIPE, UNIT, RabbitMQ

ONE, OTHER = "rabbitmq1", "rabbitmq2"


@contextmanager
def hosts(names: tuple[str, ...], report: Report) -> Iterator[Cluster]:
    """Hosts with RabbitMQ installed."""
    obtain_image(RECIPE, report)
    with claimed_network() as network:
        found = Cluster(
            Definition(
                name=f"test-rabbitmq-{network}",
                network=network,
                hosts=tuple(HostDefinition(name, (*EVERY_HOST, "rabbitmq")) for name in names),
                recipe=RECIPE,
            )
        )
        if found.folder.exists():
            found.destroy()
        try:
            found.start(report)
            yield found
        finally:
            found.destroy()


def nodes(cluster: Cluster) -> list[RabbitMQ]:
    all_hosts = list(cluster.hosts.values())
    return [RabbitMQ(host, all_hosts) for host in all_hosts]


def reset(cluster: Cluster) -> None:
    """Takes the hosts back to their first state, with all nodes running: those of a cluster wait
    for each other when they boot, and on a slow machine one may have given up."""
    cluster.reset()
    with ThreadPoolExecutor() as pool:
        list(pool.map(_run, nodes(cluster)))


def _run(node: RabbitMQ) -> None:
    deadline = time.monotonic() + 300
    wait = ["rabbitmqctl", "await_startup", "--timeout", "60"]
    while True:
        started = node.host.run(["systemctl", "start", UNIT], check=False)
        if started.returncode == 0 and node.host.run(wait, check=False).returncode == 0:
            return
        if time.monotonic() > deadline:
            raise LabError(f"the node of {node.host.name} does not start: {started.stderr}")


@contextmanager
def pair_of_nodes(report: Report) -> Iterator[Cluster]:
    """Two hosts, each with a node of its own; the first one's is filled."""
    with hosts((ONE, OTHER), report) as found:
        for node in nodes(found):
            node.create()
        nodes(found)[0].fill()
        found.save()
        yield found


def kill(host: Container, what: str) -> None:
    """End the agent's processes on a host, or some of them, without a chance to clean up."""
    found = [process for process in host.processes() if what in process.command_line]
    assert found
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def timers(host: Container) -> str:
    """The timers that would start a service again."""
    listed = ["systemctl", "list-units", "--all", "--no-legend", "epibackup-start-*"]
    return host.run(listed).stdout

"""Clusters for the lab tests: started once a session, and always taken down.

`site` and `host` are shared: a test undoes what it does to them. A test that cannot asks for
`clean_site` or `clean_host` instead, and they are taken back to their first state after it.
"""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from lab import Cluster, Container, Definition, HostDefinition, Image, Site, obtain_image
from lab.cluster import DATABASE_HOST, EVERY_HOST, LOAD_BALANCER_HOST, claimed_network
from lab.image import BASE
from lab.machine import Report
from tests.lab.kafka_site import clean_kafka_site, kafka_site

__all__ = ["clean_kafka_site", "kafka_site"]


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Shows what a long step does, in spite of pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\nlab: {line}", flush=True)  # noqa: T201

    return show


@pytest.fixture(scope="session")
def ends_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM (a time limit, a CI runner) end the session as Ctrl-C does: with clean-up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def image(report: Report) -> Image:
    """The base image; made when it is not in the cache."""
    return obtain_image(BASE, report)


@pytest.fixture(scope="session")
def site(image: Image, report: Report, ends_on_sigterm: None) -> Iterator[Site]:
    """Two database hosts (primary and standby) and two load balancers, with data."""
    with claimed_network() as network:
        definition = Definition(
            name=f"test-{network}",
            network=network,
            hosts=(
                HostDefinition("postgresql1", DATABASE_HOST),
                HostDefinition("postgresql2", DATABASE_HOST),
                HostDefinition("loadbalancer1", LOAD_BALANCER_HOST),
                HostDefinition("loadbalancer2", LOAD_BALANCER_HOST),
            ),
        )
        found = Site(definition)
        _destroy_leftovers(found.cluster)
        try:
            found.start(report)
            found.cluster.save()
            found.primary.wait_for_standby()
            yield found
        finally:
            found.cluster.destroy()


@pytest.fixture
def clean_site(site: Site) -> Iterator[Site]:
    """The site, for a test that changes or breaks it; reset afterwards."""
    try:
        yield site
    finally:
        site.cluster.reset()
        site.primary.wait_for_standby()


@pytest.fixture(scope="session")
def host_cluster(image: Image, report: Report, ends_on_sigterm: None) -> Iterator[Cluster]:
    """A cluster of one host without services."""
    with claimed_network() as network:
        hosts = (HostDefinition("host1", EVERY_HOST),)
        found = Cluster(Definition(name=f"test-{network}", network=network, hosts=hosts))
        _destroy_leftovers(found)
        try:
            found.start(report)
            found.save()
            yield found
        finally:
            found.destroy()


@pytest.fixture
def host(host_cluster: Cluster) -> Container:
    """One host without services; a test undoes what it does."""
    return host_cluster.hosts["host1"]


@pytest.fixture
def clean_host(host_cluster: Cluster) -> Iterator[Container]:
    """The one host, for a test that changes or breaks it; reset afterwards."""
    try:
        yield host_cluster.hosts["host1"]
    finally:
        host_cluster.reset()


def _destroy_leftovers(cluster: Cluster) -> None:
    """Ends what a session that was killed has left under a name that is claimed now."""
    if cluster.folder.exists():
        cluster.destroy()

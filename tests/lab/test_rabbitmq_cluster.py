"""A RabbitMQ cluster: nodes are stopped one at a time, and go back together."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import Cluster, LabError
from lab.machine import Report
from lab.services.rabbitmq import SHOP_PASSWORD, RabbitMQ
from tests.lab.product import Product, product
from tests.lab.rabbitmq_site import hosts, nodes, reset, timers
from tests.lab.trouble import failed

NAMES = ("rabbitmq1", "rabbitmq2", "rabbitmq3")


@pytest.fixture(scope="module")
def trio(report: Report, ends_on_sigterm: None) -> Iterator[Cluster]:
    """Three hosts whose nodes are one cluster, filled."""
    with hosts(NAMES, report) as found:
        members = list(found.hosts.values())
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.create(members), nodes(found)))
        nodes(found)[0].fill()
        found.save()
        yield found


@pytest.fixture
def cluster(trio: Cluster) -> Iterator[list[RabbitMQ]]:
    try:
        yield nodes(trio)
    finally:
        reset(trio)


@pytest.fixture
def epibackup(trio: Cluster, tmp_path: Path) -> Iterator[Product]:
    with product(trio, tmp_path, "test-rabbitmq-cluster") as made:
        made.configure(services=["rabbitmq"], rabbitmq={"messages": True})
        yield made


@contextmanager
def at_work(node: RabbitMQ, running: list[int], cluster: list[RabbitMQ]) -> Iterator[None]:
    """Somebody publishes to a queue on `node`, and counts the nodes that run."""
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.wait(0.1):
            try:
                node.publish("orders", "shop.new", [f"during {number}"])
                number += 1
            except (LabError, AssertionError):
                pass  # that node is stopped just now
            running.append(sum(member.is_running for member in cluster))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_cluster_comes_back_with_its_messages(
    epibackup: Product, cluster: list[RabbitMQ]
) -> None:
    first, _, third = cluster
    third.declare("orders", "of.third", {})
    sent = [f"message {number}" for number in range(20)]
    for queue in ("shop.new", "shop.sure", "of.third"):
        first.publish("orders", queue, sent)
    before = first.definitions()
    running: list[int] = []
    with at_work(third, running, cluster):
        document = epibackup.backup()
    assert document["status"] == "ok"
    assert min(running) == 2, "no node was stopped, or two at once"
    assert all(timers(node.host) == "" for node in cluster)
    for node in cluster:
        node.destroy()
    reports = epibackup.restore("latest")["hosts"]
    assert [report["host"] for report in reports] == list(NAMES)
    assert first.definitions() == before
    restored = first.messages("orders", "shop.new")
    assert restored[: len(sent)] == sent
    assert all(message.startswith("during ") for message in restored[len(sent) :])
    assert sorted(first.messages("orders", "shop.sure")) == sorted(sent)
    assert first.messages("orders", "of.third") == sent
    assert {node["name"]: node["running"] for node in first.call("GET", "nodes").document} == {
        f"rabbit@{name}": True for name in NAMES
    }
    for node in cluster:
        assert node.can_log_in("shop", SHOP_PASSWORD)
        assert timers(node.host) == ""
    assert epibackup.leftovers() == {}


def test_a_node_is_not_stopped_while_another_one_is_down(
    epibackup: Product, cluster: list[RabbitMQ]
) -> None:
    cluster[2].stop()
    epibackup.configure(services=["rabbitmq"])
    document = epibackup.backup(code=3)
    assert list(failed(document)) == [NAMES[2]]
    assert failed(document)[NAMES[2]]["hint"].startswith("start it: systemctl start")
    answers = {host["host"]: host for host in document["manifest"]["services"][0]["hosts"]}
    assert answers[NAMES[0]]["warnings"] == [f"rabbit@{NAMES[2]} of the cluster is down"]
    epibackup.configure(services=["rabbitmq"], rabbitmq={"messages": True})
    error = epibackup.backup(code=1)["error"]
    assert f"rabbit@{NAMES[2]} of the cluster is down" in error["message"]
    assert [node.is_running for node in cluster] == [True, True, False]


def test_a_host_that_fails_takes_all_back_to_what_they_had(
    epibackup: Product, cluster: list[RabbitMQ]
) -> None:
    first, second, _ = cluster
    first.publish("orders", "shop.new", ["saved"])
    epibackup.backup()
    first.publish("orders", "shop.new", ["later"])
    # The node cannot start on its restored data: not its own folder any more.
    drop_in = "/etc/systemd/system/rabbitmq-server.service.d/broken.conf"
    condition = "[Service]\nExecStartPre=/bin/sh -c '! ls /var/lib/rabbitmq/mnesia/*.before-*'\n"
    second.host.write(drop_in, condition)
    second.host.run(["systemctl", "daemon-reload"])
    error = epibackup.restore("latest", code=1)["error"]
    assert "rabbitmq-server.service did not start again" in error["message"]
    assert first.messages("orders", "shop.new") == ["saved", "later"]
    assert [node.is_running for node in cluster] == [True, True, True]
    assert all(timers(node.host) == "" for node in cluster)

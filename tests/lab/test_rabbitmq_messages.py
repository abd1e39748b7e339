"""Messages of RabbitMQ: nodes are stopped for them, and run afterwards whatever happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Cluster
from lab.machine import Report
from lab.services.rabbitmq import SHOP_PASSWORD, UNIT, RabbitMQ
from tests.lab.product import Product, build_directory, product
from tests.lab.rabbitmq_site import ONE, OTHER, kill, nodes, pair_of_nodes, reset, timers
from tests.lab.trouble import failed, wait_for


@pytest.fixture(scope="module")
def pair(report: Report, ends_on_sigterm: None) -> Iterator[Cluster]:
    with pair_of_nodes(report) as found:
        yield found


@pytest.fixture
def both(pair: Cluster) -> Iterator[list[RabbitMQ]]:
    """The nodes of the pair; taken back to their first state afterwards."""
    try:
        yield nodes(pair)
    finally:
        reset(pair)


@pytest.fixture
def epibackup(pair: Cluster, tmp_path: Path) -> Iterator[Product]:
    """The product for the first host alone; the second one can be mapped to."""
    with product(pair, tmp_path, "test-messages") as made:
        only = build_directory(tmp_path / "one", pair, {"rabbitmq": [ONE]})
        made.configure(build=str(only), services=["rabbitmq"])
        yield made


@pytest.fixture
def for_both(pair: Cluster, tmp_path: Path) -> Iterator[Product]:
    """The product for both hosts: where one fails, the other is saved."""
    with product(pair, tmp_path, "test-messages-both") as made:
        made.configure(services=["rabbitmq"])
        yield made


@pytest.fixture
def with_messages(epibackup: Product) -> Product:
    """The product, saving messages."""
    build = str(epibackup.target.parent / "one")
    settings = {"messages": True, "stop_limit_seconds": 30}
    epibackup.configure(build=build, services=["rabbitmq"], rabbitmq=settings)
    return epibackup


def test_messages_of_durable_queues_come_back(with_messages: Product, both: list[RabbitMQ]) -> None:
    node = both[0]
    sent = [f"message {number}" for number in range(40)]
    node.publish("orders", "shop.new", sent)
    node.publish("orders", "shop.sure", sent[:10])
    before = node.fingerprint()
    document = with_messages.backup()
    assert node.is_running
    assert timers(node.host) == ""
    details = document["manifest"]["services"][0]["hosts"][0]["details"]
    assert details["definitions"]["messages"] == 50
    assert details["messages_copied"]["stopped_seconds"] < 60
    node.destroy()
    report = with_messages.restore("latest")["hosts"][0]
    assert node.messages("orders", "shop.new") == sent
    assert sorted(node.messages("orders", "shop.sure")) == sorted(sent[:10])
    assert node.fingerprint() == before
    assert not any("other numbers of messages" in warning for warning in report["warnings"])
    assert timers(node.host) == ""


def test_what_was_there_before_is_kept_until_it_is_discarded(
    with_messages: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    sent = ["saved"]
    node.publish("orders", "shop.new", sent)
    with_messages.backup()
    node.publish("orders", "shop.new", ["later"])
    with_messages.restore("latest")
    assert node.messages("orders", "shop.new") == sent
    kept = with_messages.json("clean")[ONE]["kept"]
    assert any(f"mnesia/rabbit@{ONE}.before-" in item["name"] for item in kept)
    with_messages.json("clean", "--discard")
    assert with_messages.json("clean")[ONE]["kept"] == []
    assert node.messages("orders", "shop.new") == sent


def test_messages_go_back_to_a_node_of_the_same_name_only(
    pair: Cluster, tmp_path: Path, both: list[RabbitMQ]
) -> None:
    second = both[1]
    with product(pair, tmp_path, "test-messages-elsewhere") as made:
        groups = {"rabbitmq": [ONE], "kubernetes_node": [OTHER]}
        made.configure(
            build=str(build_directory(tmp_path / "two", pair, groups)),
            services=["rabbitmq"],
            rabbitmq={"messages": True},
        )
        made.backup()
        map_host = ("--host-map", f"{ONE}={OTHER}")
        error = made.restore("latest", "--part", "messages", *map_host, code=1)["error"]
        assert "a node's data is bound to its name" in error["message"]
        assert "--part definitions" in error["hint"]
        report = made.restore("latest", *map_host)["hosts"][0]
        assert any("messages are not restored" in warning for warning in report["warnings"])
    assert second.can_log_in("shop", SHOP_PASSWORD)


def test_a_node_is_started_by_the_timer_when_the_agent_is_killed(
    with_messages: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    node.publish("orders", "shop.new", ["kept"])
    running = with_messages.start("backup", "--json")
    wait_for(lambda: not node.is_running, "the stop of the node", 120, node.host)
    kill(node.host, ".pyz")
    output = running.communicate(timeout=300)[0]
    assert running.returncode != 0, output
    wait_for(lambda: node.is_running, "the start by the timer", 120, node.host)
    assert node.messages("orders", "shop.new") == ["kept"]
    assert with_messages.backup()["status"] == "ok"
    assert timers(node.host) == ""


def test_a_restore_that_is_killed_while_the_node_is_stopped_is_undone(
    with_messages: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    node.publish("orders", "shop.new", ["saved"])
    with_messages.backup()
    node.publish("orders", "shop.new", ["later"])
    running = with_messages.start("restore", "latest", "--yes", "--json")
    wait_for(lambda: not node.is_running, "the stop of the node", 120, node.host)
    kill(node.host, "--worker")
    output = running.communicate(timeout=300)[0]
    assert running.returncode == 1, output
    assert node.is_running
    assert node.messages("orders", "shop.new") == ["saved", "later"]
    with_messages.restore("latest")
    assert node.messages("orders", "shop.new") == ["saved"]


def test_a_full_disk_is_found_before_the_node_is_stopped(
    for_both: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    for_both.configure(services=["rabbitmq"], rabbitmq={"messages": True})
    place = "/var/lib/epibackup"
    node.host.run(["mkdir", "-p", place])
    node.host.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place])
    since = node.host.run(["systemctl", "show", "-p", "ActiveEnterTimestamp", UNIT]).stdout
    try:
        error = failed(for_both.backup(code=3))[ONE]
        assert "a copy of the messages needs" in error["message"]
        assert "host_directory" in error["hint"]
    finally:
        node.host.run(["umount", place])
    now = node.host.run(["systemctl", "show", "-p", "ActiveEnterTimestamp", UNIT]).stdout
    assert now == since

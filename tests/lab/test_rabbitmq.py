"""RabbitMQ: back up, destroy, restore, compare; conflicts, other hosts, old versions."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import Cluster
from lab.machine import Report
from lab.services.rabbitmq import (
    ADMINISTRATOR,
    ADMINISTRATOR_PASSWORD,
    DATA,
    PASSWORD_FILE,
    SHOP_PASSWORD,
    UNIT,
    RabbitMQ,
)
from tests.lab.product import Product, build_directory, product
from tests.lab.rabbitmq_site import ONE, OTHER, nodes, pair_of_nodes, reset, timers
from tests.lab.trouble import failed


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
    with product(pair, tmp_path, "test-rabbitmq") as made:
        only = build_directory(tmp_path / "one", pair, {"rabbitmq": [ONE]})
        made.configure(build=str(only), services=["rabbitmq"])
        yield made


@pytest.fixture
def for_both(pair: Cluster, tmp_path: Path) -> Iterator[Product]:
    """The product for both hosts: where one fails, the other is saved."""
    with product(pair, tmp_path, "test-rabbitmq-both") as made:
        made.configure(services=["rabbitmq"])
        yield made


def test_a_node_that_lost_everything_comes_back(epibackup: Product, both: list[RabbitMQ]) -> None:
    node = both[0]
    before, limits = node.fingerprint(), node.effective_limits("orders", "shop.new")
    assert limits == {"max-length": 5000, "expires": 99000000}
    document = epibackup.backup()
    assert document["status"] == "ok"
    node.destroy()
    report = epibackup.restore("latest")["hosts"][0]
    left = "the backup has no such: user guest; permission guest in vhost /"
    assert any(left in warning for warning in report["warnings"])
    node.control("delete_user", "guest")
    assert node.fingerprint() == before
    assert node.effective_limits("orders", "shop.new") == limits
    assert node.can_log_in("shop", SHOP_PASSWORD)
    assert epibackup.leftovers() == {}


def test_nothing_secret_is_shown_or_kept_in_the_state(
    epibackup: Product, both: list[RabbitMQ]
) -> None:
    definitions = both[0].definitions()
    cookie = both[0].host.read(f"{DATA}/.erlang.cookie").strip()
    secrets = [user["password_hash"] for user in definitions["users"]] + [cookie]
    document = epibackup.backup()
    shown = epibackup.run("show", "latest", "--json", "--members").stdout
    state = "".join(
        path.read_text(errors="replace")
        for path in (epibackup.target.parent / "backend").rglob("*")
        if path.is_file()
    )
    plan = epibackup.run("restore", "latest", "--dry-run").stdout
    for text in (json.dumps(document), shown, state, plan):
        assert "password_hash" not in text
        assert not [secret for secret in secrets if secret in text]
    details = document["manifest"]["services"][0]["hosts"][0]["details"]
    assert details["definitions"]["counts"]["users"] == 2
    assert {"name": "shop.sure", "durable": True, "type": "quorum", "messages": 0} in details[
        "definitions"
    ]["vhosts"]["orders"]


def test_one_vhost_comes_back_under_another_name(epibackup: Product, both: list[RabbitMQ]) -> None:
    node = both[0]
    before = node.definitions()
    epibackup.backup()
    node.control("delete_user", "shop")
    epibackup.restore("latest", "--part", "vhost:orders", "--rename", "vhost:orders=vhost:copy")
    after = node.definitions()

    def of(vhost: str, found: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        return {
            kind: [
                {key: value for key, value in item.items() if key != "vhost"}
                for item in items
                if item.get("vhost") == vhost
            ]
            for kind, items in found.items()
        }

    assert of("copy", after) == of("orders", before)
    assert of("a/b ü", after) == of("a/b ü", before)
    assert node.can_log_in("shop", SHOP_PASSWORD), "a user of the vhost was not brought back"
    assert [user for user in after["users"] if user["name"] == "operator"] == [
        user for user in before["users"] if user["name"] == "operator"
    ]


def test_a_queue_that_exists_otherwise_is_found_before_anything_is_changed(
    epibackup: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    epibackup.backup()
    node.call("DELETE", "queues/orders/shop.new")
    node.declare("orders", "shop.new", {"x-max-length": 7})
    node.control("delete_user", "shop")
    node.host.run(["sh", "-c", "echo >> /etc/rabbitmq/rabbitmq.conf"])
    before = node.fingerprint()
    error = epibackup.restore("latest", code=1)["error"]
    assert "queue shop.new in vhost orders" in error["message"]
    assert "nothing live was changed" in error["message"]
    assert "--rename" in error["hint"]
    assert node.fingerprint() == before
    assert epibackup.leftovers() == {}


WRAPPER = "/usr/local/sbin/rabbitmqctl"
"""Found before the real one."""


def test_an_import_that_skips_without_a_word_is_caught_and_taken_back(
    epibackup: Product, both: list[RabbitMQ]
) -> None:
    """Somebody declares a queue between the first look and the import, which leaves it alone."""
    node = both[0]
    epibackup.backup()
    node.call("DELETE", "queues/orders/shop.new")
    node.call("DELETE", "policies/orders/limit")
    node.call("PUT", "permissions/orders/shop", {"configure": "", "write": "", "read": ".*"})
    node.control("delete_user", "shop")
    before = node.definitions()
    url = f"http://{node.host.address}:15672/api/queues/orders/shop.new"
    declare = f"""curl -sf -u operator:operator-password -X PUT {url} -d '{{"durable":true}}'"""
    script = f'case "$*" in *import_definitions*) {declare};; esac\nexec /usr/sbin/rabbitmqctl "$@"'
    node.host.write(WRAPPER, f"#!/bin/sh\n{script}\n", 0o755)
    error = epibackup.restore("latest", "--part", "definitions", code=1)["error"]
    assert "without an error, but these are missing or differ" in error["message"]
    assert "queue shop.new in vhost orders" in error["message"]
    after = node.definitions()
    somebodys = [queue for queue in after["queues"] if queue not in before["queues"]]
    assert [queue["name"] for queue in somebodys] == ["shop.new"]
    after["queues"] = [queue for queue in after["queues"] if queue not in somebodys]
    assert after == before
    listed = node.host.run(["find", DATA, "-maxdepth", "1", "-name", "*2026*"]).stdout
    assert listed == ""


def test_a_node_comes_back_on_a_host_of_another_name(
    pair: Cluster, tmp_path: Path, both: list[RabbitMQ]
) -> None:
    first, second = both
    nodes_policy = {
        "pattern": "^ha",
        "definition": {"ha-mode": "nodes", "ha-params": [f"rabbit@{ONE}"]},
        "apply-to": "queues",
    }
    first.call("PUT", "policies/orders/nodes", nodes_policy)
    with product(pair, tmp_path, "test-rabbitmq-mapped") as made:
        groups = {"rabbitmq": [ONE], "kubernetes_node": [OTHER]}
        made.configure(
            build=str(build_directory(tmp_path / "two", pair, groups)), services=["rabbitmq"]
        )
        made.backup()
        map_host = ("--host-map", f"{ONE}={OTHER}")
        steps = made.json("restore", "latest", *map_host, "--dry-run")["hosts"][0]["steps"]
        text = "\n".join(steps)
        assert f"/etc/rabbitmq/rabbitmq-env.conf line 1: {ONE} → {OTHER}" in text
        assert f"{first.host.address} → {second.host.address}" in text
        second.control("add_user", "operator", "another")
        report = made.restore("latest", *map_host)
    assert [item["host"] for item in report["hosts"]] == [OTHER]
    assert second.host.read("/etc/rabbitmq/rabbitmq-env.conf").startswith(
        f"NODENAME=rabbit@{OTHER}"
    )
    assert f"listeners.tcp.1 = {second.host.address}:5672" in second.host.read(
        "/etc/rabbitmq/rabbitmq.conf"
    )
    assert second.can_log_in("shop", SHOP_PASSWORD)
    second.control("delete_user", "guest")
    saved, restored = first.definitions(), second.definitions()
    [policy] = [item for item in restored["policies"] if item["name"] == "nodes"]
    assert policy["definition"]["ha-params"] == [f"rabbit@{OTHER}"]
    for found in (saved, restored):
        found["policies"] = [item for item in found["policies"] if item["name"] != "nodes"]
    assert restored == saved


HIDE = """\
#!/bin/sh
# As rabbitmqctl of 3.7 answers.
case " $* " in *" export_definitions "*|*" import_definitions "*)
  echo "Command '$2' not found." >&2; exit 64;;
esac
exec /usr/sbin/rabbitmqctl "$@"
"""


def test_an_old_node_is_saved_and_restored_by_its_management_api(
    for_both: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    node.host.write(WRAPPER, HIDE, 0o755)
    error = failed(for_both.backup(code=3))[ONE]
    assert "needs an administrator's login" in error["message"]
    assert "password_file" in error["hint"]

    login = {"user": ADMINISTRATOR, "password_file": PASSWORD_FILE}
    for_both.configure(services=["rabbitmq"], rabbitmq={"management": login})
    node.host.write(PASSWORD_FILE, ADMINISTRATOR_PASSWORD + "\n", 0o644)
    assert "may be read by others than root" in failed(for_both.backup(code=3))[ONE]["message"]
    node.host.write(PASSWORD_FILE, "wrong\n", 0o600)
    assert "refuses the user operator" in failed(for_both.backup(code=3))[ONE]["message"]
    node.host.write(PASSWORD_FILE, ADMINISTRATOR_PASSWORD + "\n", 0o600)

    document = for_both.backup()
    assert ADMINISTRATOR_PASSWORD not in json.dumps(document)
    before = node.definitions()
    node.control("delete_vhost", "orders")
    node.control("delete_user", "shop")
    for_both.restore("latest", "--part", "definitions", "--host", ONE)
    assert node.definitions() == before
    assert node.can_log_in("shop", SHOP_PASSWORD)


def test_an_old_node_without_the_plugin_is_not_changed(
    for_both: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    node.host.write(WRAPPER, HIDE, 0o755)
    node.host.run(["rabbitmq-plugins", "disable", "rabbitmq_management"])
    plugins = node.host.read("/etc/rabbitmq/enabled_plugins")
    error = failed(for_both.backup(code=3))[ONE]
    assert "its management plugin is not enabled" in error["message"]
    assert node.host.read("/etc/rabbitmq/enabled_plugins") == plugins


def test_a_node_that_is_down_has_failed_and_says_what_to_do(
    for_both: Product, both: list[RabbitMQ]
) -> None:
    both[0].stop()
    error = failed(for_both.backup(code=3))[ONE]
    assert "does not answer" in error["message"]
    assert error["hint"] == f"start it: systemctl start {UNIT}"


def test_a_configuration_with_which_the_node_does_not_start_is_taken_back(
    epibackup: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    node.host.run(["sh", "-c", "echo management.tcp.port = 2222 >> /etc/rabbitmq/rabbitmq.conf"])
    epibackup.backup()  # of what would not start: the host's sshd has that port
    node.host.run(["sed", "-i", "/2222/d", "/etc/rabbitmq/rabbitmq.conf"])
    before = node.fingerprint()
    error = epibackup.restore("latest", code=1)["error"]
    assert f"{UNIT} did not start again" in error["message"]
    assert node.is_running
    assert node.fingerprint() == before
    assert epibackup.leftovers() == {}
    assert timers(node.host) == ""


def test_a_cookie_of_another_cluster_is_replaced_only_when_it_is_named(
    epibackup: Product, both: list[RabbitMQ]
) -> None:
    node = both[0]
    cookie = f"{DATA}/.erlang.cookie"
    saved = node.host.read(cookie)
    epibackup.backup()
    node.stop()
    node.host.write(cookie, "ANOTHERCOOKIE", 0o400, "rabbitmq:rabbitmq")
    node.host.write("/etc/rabbitmq/conf.d/90-new.conf", "heartbeat = 30\n")
    node.start()
    warnings = "\n".join(epibackup.restore("latest")["hosts"][0]["warnings"])
    assert f"the Erlang cookie {cookie} differs from the saved one" in warnings
    assert "that the backup has not are left as they are: /etc/rabbitmq/conf.d/90-new" in warnings
    assert node.host.read(cookie) == "ANOTHERCOOKIE"
    epibackup.restore("latest", "--part", "configuration")
    assert node.host.read(cookie) == saved
    assert node.can_log_in("shop", SHOP_PASSWORD)

"""RabbitMQ's definitions, configuration and data are handled as RabbitMQ keeps them."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.rabbitmq.component import RabbitMQ, RabbitMQSettings
from components.rabbitmq.host import configuration, messages
from components.rabbitmq.host.definitions import (
    chosen,
    described_otherwise,
    difference,
    importable,
    name_of,
    summary,
)
from components.rabbitmq.host.node import version_numbers
from components.rabbitmq.host.transfer import read_password
from host.errors import HostError
from host.service import Delivered


def export(**more: Any) -> dict[str, Any]:
    """Definitions of two vhosts, as rabbitmqctl of 3.10 writes them."""
    queue = {"durable": True, "auto_delete": False, "arguments": {}, "type": "classic"}
    made: dict[str, Any] = {
        "rabbit_version": "3.10.8",
        "users": [
            {"name": "app", "password_hash": "secret", "tags": ["b", "a"], "limits": {}},
            {"name": "other", "password_hash": "secret", "tags": [], "limits": {}},
        ],
        "vhosts": [
            {"name": "/", "limits": [], "metadata": {"description": "x", "tags": []}},
            {"name": "orders", "limits": [["max-queues", 5]], "metadata": {}},
        ],
        "permissions": [
            {"user": "app", "vhost": "orders", "configure": "", "write": "", "read": ""},
            {"user": "other", "vhost": "/", "configure": "", "write": "", "read": ""},
        ],
        "topic_permissions": [],
        "parameters": [
            {
                "vhost": "orders",
                "component": "operator_policy",
                "name": "guard",
                "value": {"pattern": ".*", "definition": [["expires", 5]]},
            },
            {
                "vhost": "orders",
                "component": "federation-upstream-set",
                "name": "all",
                "value": [[["upstream", "one"]], [["upstream", "two"]]],
            },
        ],
        "global_parameters": [
            {"name": "cluster_name", "value": "rabbit@old1"},
            {"name": "internal_cluster_id", "value": "x"},
        ],
        "policies": [
            {
                "vhost": "orders",
                "name": "nodes",
                "pattern": "",
                "definition": {"ha-mode": "nodes", "ha-params": ["rabbit@old1", "rabbit@old10"]},
            }
        ],
        "exchanges": [{"vhost": "orders", "name": "events", "type": "topic", "durable": True}],
        "queues": [
            {"vhost": "orders", "name": "new", **queue},
            {"vhost": "orders", "name": "amq.gen-x", **queue},
        ],
        "bindings": [
            {
                "vhost": "orders",
                "source": source,
                "destination": destination,
                "destination_type": "queue",
                "routing_key": "",
                "arguments": {},
            }
            for source, destination in [
                ("events", "new"),
                ("amq.topic", "new"),
                ("events", "amq.gen-x"),
                ("events", "of-a-closed-connection"),
            ]
        ],
    }
    return made | more


def test_lists_of_pairs_become_the_objects_that_an_import_takes() -> None:
    made = importable(export())
    values = {item["name"]: item["value"] for item in made["parameters"]}
    assert values["guard"]["definition"] == {"expires": 5}
    assert values["all"] == [{"upstream": "one"}, {"upstream": "two"}]
    assert {item["name"]: item["limits"] for item in made["vhosts"]}["orders"] == {"max-queues": 5}
    assert made["rabbit_version"] == "3.10.8"


def test_an_undefined_type_of_queues_is_left_out() -> None:
    metadata = {"default_queue_type": "undefined", "description": "", "tags": ""}
    made = importable(export(vhosts=[{"name": "/", "metadata": metadata}]))
    assert made["vhosts"][0]["metadata"] == {"description": "", "tags": []}


def test_what_no_import_makes_is_not_asked_for() -> None:
    wanted = chosen(importable(export()), None, {}, {})
    assert [queue["name"] for queue in wanted["queues"]] == ["new"]
    assert sorted(binding["source"] for binding in wanted["bindings"]) == ["amq.topic", "events"]
    assert [item["name"] for item in wanted["global_parameters"]] == ["cluster_name"]


def test_one_vhost_is_chosen_with_its_users_under_a_new_name() -> None:
    wanted = chosen(importable(export()), {"orders"}, {"orders": "copy"}, {})
    assert [user["name"] for user in wanted["users"]] == ["app"]
    assert [vhost["name"] for vhost in wanted["vhosts"]] == ["copy"]
    kinds = ("permissions", "parameters", "policies", "exchanges", "queues", "bindings")
    assert {item["vhost"] for kind in kinds for item in wanted[kind]} == {"copy"}
    assert wanted["global_parameters"] == []


def test_policies_and_the_clusters_name_follow_the_hosts() -> None:
    wanted = chosen(importable(export()), None, {}, {"old1": "new1"})
    assert wanted["policies"][0]["definition"]["ha-params"] == ["rabbit@new1", "rabbit@old10"]
    assert wanted["global_parameters"][0]["value"] == "rabbit@new1"


def test_what_versions_write_differently_is_the_same() -> None:
    live = importable(export())
    live["users"][0] = dict(live["users"][0], tags="a,b")
    live["queues"] = [
        {key: value for key, value in queue.items() if key != "type"} for queue in live["queues"]
    ]
    live["vhosts"][1].pop("limits")
    assert difference(chosen(importable(export()), None, {}, {}), live).lacking() == []


def test_a_vhost_that_is_described_otherwise_is_no_conflict() -> None:
    wanted, live = chosen(importable(export()), None, {}, {}), importable(export())
    assert described_otherwise(wanted, live) == []
    default = next(vhost for vhost in live["vhosts"] if vhost["name"] == "/")
    default["metadata"]["description"] = "another version's words"
    assert difference(wanted, live).lacking() == []
    assert described_otherwise(wanted, live) == ["/"]


def test_a_difference_names_what_is_missing_and_what_an_import_would_leave() -> None:
    live = importable(export())
    queue = next(item for item in live["queues"] if item["name"] == "new")
    queue["arguments"] = {"x-max-length": 1}
    live["users"] = [user for user in live["users"] if user["name"] != "app"]
    live["policies"][0] = dict(live["policies"][0], pattern="^x")
    found = difference(chosen(importable(export()), None, {}, {}), live)
    assert found.conflicts() == ["queue new in vhost orders"]
    assert found.lacking() == [
        "user app",
        "policy nodes in vhost orders",
        "queue new in vhost orders",
    ]
    binding = importable(export())["bindings"][0]
    assert name_of("bindings", binding).endswith("(no key) in vhost orders")


def test_a_summary_has_numbers_and_queues_and_no_secret() -> None:
    made = summary(importable(export()), {("orders", "new"): 3})
    assert made["counts"]["users"] == 2
    assert made["messages"] == 3
    assert {
        "name": "new",
        "durable": True,
        "type": "classic",
        "messages": 3,
    } in made["vhosts"]["orders"]
    assert "secret" not in str(made)
    assert summary(importable(export()), None)["messages"] is None


def test_a_second_copy_has_what_changed_and_lacks_what_is_gone(tmp_path: Path) -> None:
    source, destination = tmp_path / "data", tmp_path / "copy"
    (source / "queue").mkdir(parents=True)
    for name in ("same", "changed", "gone"):
        (source / "queue" / name).write_text(name)
        os.utime(source / "queue" / name, (1000, 1000))
    first = messages.copy([str(source)], str(destination), final=False)
    assert first.total_bytes == len("samechangedgone")
    (source / "queue" / "gone").unlink()
    (source / "queue" / "changed").write_text("CHANGED")
    (source / "queue" / "new").write_text("new")
    second = messages.copy([str(source)], str(destination), final=True)
    assert second.bytes == len("CHANGEDnew")
    found = Path(f"{destination}{source}/queue")
    assert {path.name: path.read_text() for path in found.iterdir()} == {
        "same": "same",
        "changed": "CHANGED",
        "new": "new",
    }
    for name in ("same", "changed", "new"):
        saved, live = (found / name).stat(), (source / "queue" / name).stat()
        assert (saved.st_mtime_ns, saved.st_mode) == (live.st_mtime_ns, live.st_mode)


def test_a_file_that_changed_just_now_is_copied_again(tmp_path: Path) -> None:
    """It may change once more without its time changing."""
    (tmp_path / "log").write_text("aaaa")
    before = (tmp_path / "log").stat()
    messages.copy([str(tmp_path / "log")], str(tmp_path / "copy"), final=False)
    (tmp_path / "log").write_text("bbbb")
    os.utime(tmp_path / "log", ns=(before.st_atime_ns, before.st_mtime_ns))
    messages.copy([str(tmp_path / "log")], str(tmp_path / "copy"), final=True)
    assert Path(f"{tmp_path}/copy{tmp_path}/log").read_text() == "bbbb"


def test_lines_that_name_hosts_are_told_without_their_text(tmp_path: Path) -> None:
    config = tmp_path / "rabbitmq.conf"
    config.write_text(
        "# db1 in a comment\n"
        "default_pass = secret@db1\n"
        "cluster_formation.classic_config.nodes.1 = rabbit@db1\n"
        "other = db10\n"
    )
    found = configuration.mentions([str(tmp_path)], ["db1", "10.0.0.1"])
    assert found == [
        {"file": str(config), "line": 2, "names": ["db1"]},
        {"file": str(config), "line": 3, "names": ["db1"]},
    ]
    assert configuration.announced(found, {"db1": "db2"})[1] == f"{config} line 3: db1 → db2"
    assert configuration.announced(found, {"x": "y"}) == []


def test_a_rewritten_file_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "etc/rabbitmq"
    folder.mkdir(parents=True)
    (folder / "rabbitmq-env.conf").write_text("NODENAME=rabbit@db1\n# db1 stays?\nX=db10\n")
    (folder / "rabbitmq-env.conf").chmod(0o640)
    (folder / "key.der").write_bytes(b"\xff\xfedb1")
    member = Delivered("configuration", "tree", str(tmp_path), {})
    changed = configuration.rewrite(member, {"db1": "db2"})
    assert changed[0] == "/etc/rabbitmq/rabbitmq-env.conf line 1"
    text = (folder / "rabbitmq-env.conf").read_text()
    assert text.startswith("NODENAME=rabbit@db2\n")
    assert "X=db10\n" in text
    assert stat.S_IMODE((folder / "rabbitmq-env.conf").stat().st_mode) == 0o640
    assert (folder / "key.der").read_bytes() == b"\xff\xfedb1"


def test_a_password_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\nanother line\n")
    file.chmod(0o640)
    with pytest.raises(HostError, match="may be read by others than root"):
        read_password(str(file))
    file.chmod(0o600)
    if os.getuid() == 0:
        assert read_password(str(file)) == "secret"


def test_versions_compare_as_numbers() -> None:
    assert version_numbers("3.10.8-rc.1")[:2] > version_numbers("3.9.22")
    assert version_numbers("unknown") == []


@pytest.mark.parametrize(
    "management",
    [
        {"user": "a", "password_file": "relative"},
        {"user": "a"},
        {"user": "a", "password_file": "/p", "url": "http://a:b@localhost:15672"},
        {"user": "a", "password_file": "/p", "url": "localhost:15672"},
        {"user": "a", "password_file": "/p", "password": "secret"},
    ],
)
def test_a_login_that_cannot_be_right_is_refused(management: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RabbitMQSettings.model_validate({"management": management})


def test_nodes_are_stopped_one_at_a_time_and_their_data_goes_back_together() -> None:
    assert not RabbitMQ.one_at_a_time(RabbitMQSettings())
    assert RabbitMQ.one_at_a_time(RabbitMQSettings(messages=True))
    assert RabbitMQ.restored_with([]) == ("rabbitmq",)
    assert RabbitMQ.restored_with(["messages", "definitions"]) == ("rabbitmq",)
    assert RabbitMQ.restored_with(["vhost:/"]) == ()

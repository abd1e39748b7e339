"""A real RabbitMQ on hosts of the lab: one node or a cluster, with something in it to lose."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lab.container import Container
from lab.image import Recipe

RECIPE = Recipe("rabbitmq", ("rabbitmq-server",))
UNIT = "rabbitmq-server.service"
DATA = "/var/lib/rabbitmq"
CONFIGURATION = "/etc/rabbitmq"
AMQP_PORT = 5672
API_PORT = 15672
ADMINISTRATOR = "operator"
ADMINISTRATOR_PASSWORD = "operator-password"  # noqa: S105 - the lab's own
SHOP_PASSWORD = "shop-password"  # noqa: S105
PASSWORD_FILE = "/etc/epibackup-rabbitmq.password"  # noqa: S105 - its place

# What comes from hosts sharing one network is kept out of the configuration that is saved.
_LAB_FILE = "/usr/lib/lab-rabbitmq.env"
_LAB_ENVIRONMENT = """\
export ERL_EPMD_PORT={port}
export RABBITMQ_DIST_PORT={distribution}
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none -kernel inet_dist_use_interface {tuple}"
export RABBITMQ_CTL_ERL_ARGS="+S 1:1 +sbwt none"
"""  # noqa: E501
_ENVIRONMENT = """\
NODENAME=rabbit@{name}
. /usr/lib/lab-rabbitmq.env
"""
_CONFIGURATION = """\
listeners.tcp.1 = {address}:5672
management.tcp.ip = {address}
management.tcp.port = 15672
vm_memory_high_watermark.absolute = 400MB
"""
_ADVANCED = "[{rabbit, [{tcp_listen_options, [{backlog, 64}, {nodelay, true}]}]}].\n"
_PLUGINS = "[rabbitmq_management,rabbitmq_shovel].\n"
_LIMITS = "[Service]\nLimitNOFILE=16384\n"

# epmd always takes 127.0.0.1, to which nodes come to register, and other hosts' nodes look for
# it at the port that they know. So each host has a port of its own for the first, and listens on
# its own address on the ports of all; the sockets are systemd's, as Debian has it. Nodes have
# different ports for each other, too: before a node starts, it tries its own on every address.
_EPMD_SOCKET = "[Socket]\n{streams}\n"
_EPMD_SERVICE = "[Service]\nExecStart=/usr/bin/epmd -systemd -port {port}\nUser=epmd\n"


@dataclass(frozen=True)
class Answer:
    """What the management API said: the HTTP status, and the document if there is one."""

    status: int
    document: Any


class RabbitMQ:
    """The node `rabbit@<host>`; its peers are the other hosts of the cluster's network."""

    def __init__(self, host: Container, peers: Sequence[Container] = ()) -> None:
        self.host = host
        self.peers = [peer for peer in peers if peer.name != host.name]

    # -- life -----------------------------------------------------------------------------------

    def create(self, members: Sequence[Container] = ()) -> None:
        """Writes the configuration and starts the node; nodes that are named as `members` find
        each other by it and make a cluster."""
        self._prepare_network()
        names = [member.name for member in members]
        formation = "cluster_formation.peer_discovery_backend = classic_config\n" if names else ""
        for number, name in enumerate(names, start=1):
            formation += f"cluster_formation.classic_config.nodes.{number} = rabbit@{name}\n"
        text = _CONFIGURATION.format(address=self.host.address) + formation
        files = {
            "rabbitmq-env.conf": _ENVIRONMENT.format(name=self.host.name),
            "rabbitmq.conf": text,
            "advanced.config": _ADVANCED,
            "enabled_plugins": _PLUGINS,
        }
        for name, content in files.items():
            self.host.write(f"{CONFIGURATION}/{name}", content, 0o640, "rabbitmq:rabbitmq")
        self.host.write(f"/etc/systemd/system/{UNIT}.d/limits.conf", _LIMITS)
        self.host.run(["systemctl", "daemon-reload"])
        self.host.run(["systemctl", "enable", "--quiet", UNIT])
        self.start()

    def start(self) -> None:
        self.host.run(["systemctl", "start", UNIT])

    def stop(self) -> None:
        self.host.run(["systemctl", "stop", UNIT])

    @property
    def is_running(self) -> bool:
        ask = ["systemctl", "is-active", "--quiet", UNIT]
        return self.host.run(ask, check=False).returncode == 0

    def destroy(self) -> None:
        """The disaster of a drill: stopped, its data and its configuration gone."""
        self.stop()
        self.host.run(["sh", "-c", f"rm -rf {DATA}/mnesia/* {CONFIGURATION}/*"])

    def control(self, *arguments: str, check: bool = True) -> str:
        """What `rabbitmqctl` says."""
        return self.host.run(["rabbitmqctl", "-q", *arguments], check=check).stdout

    # -- content --------------------------------------------------------------------------------

    def fill(self) -> None:
        """Users, vhosts, permissions, policies, queues, exchanges, bindings, parameters: some of
        each, with names that are not plain."""
        self.control("add_user", ADMINISTRATOR, ADMINISTRATOR_PASSWORD)
        self.control("set_user_tags", ADMINISTRATOR, "administrator")
        self.control("set_permissions", "-p", "/", ADMINISTRATOR, ".*", ".*", ".*")
        self.control("delete_user", "guest")
        for vhost in ("orders", "a/b ü"):
            self.call("PUT", f"vhosts/{quote(vhost, '')}", {"description": f"of {vhost}"})
        self.call(
            "PUT", "users/shop", {"password": SHOP_PASSWORD, "tags": "monitoring,policymaker"}
        )
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", "permissions/orders/shop", everything | {"configure": "^shop"})
        topic = {"exchange": "events", "write": "^a", "read": ".*"}
        for vhost in ("orders", "a/b ü"):
            place = quote(vhost, "")
            self.call("PUT", f"permissions/{place}/{ADMINISTRATOR}", everything)
            self.call("PUT", f"exchanges/{place}/events", {"type": "topic", "durable": True})
            self.declare(vhost, "shop.new", {"x-max-length": 10000})
            self.declare(vhost, "shop.sure", {"x-queue-type": "quorum"})
            self.call(
                "POST",
                f"bindings/{place}/e/events/q/shop.new",
                {"routing_key": "a.#", "arguments": {"x": 1}},
            )
            self.call(
                "PUT",
                f"policies/{place}/limit",
                {"pattern": "^shop", "definition": {"max-length": 5000}, "apply-to": "queues"},
            )
            self.call("PUT", f"vhost-limits/{place}/max-queues", {"value": 50})
        self.call("PUT", "topic-permissions/orders/shop", topic)
        self.call(
            "PUT",
            "operator-policies/orders/guard",
            {"pattern": ".*", "definition": {"expires": 99000000}, "apply-to": "queues"},
        )
        self.call("PUT", "global-parameters/contact", {"value": {"mail": "team@example.com"}})

    def declare(
        self, vhost: str, queue: str, arguments: Mapping[str, Any], durable: bool = True
    ) -> None:
        """Makes a queue."""
        body = {"durable": durable, "arguments": dict(arguments)}
        self.call("PUT", f"queues/{quote(vhost, '')}/{quote(queue, '')}", body)

    def publish(self, vhost: str, queue: str, payloads: Sequence[str]) -> None:
        """Puts persistent messages into a queue."""
        for payload in payloads:
            body = {
                "properties": {"delivery_mode": 2},
                "routing_key": queue,
                "payload": payload,
                "payload_encoding": "string",
            }
            path = f"exchanges/{quote(vhost, '')}/amq.default/publish"
            assert self.call("POST", path, body).document == {"routed": True}  # noqa: S101

    def messages(self, vhost: str, queue: str, count: int = 1000) -> list[str]:
        """The payloads in a queue, which stay there."""
        body = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"}
        path = f"queues/{quote(vhost, '')}/{quote(queue, '')}/get"
        return [message["payload"] for message in self.call("POST", path, body).document]

    def definitions(self) -> dict[str, Any]:
        """What the management API exports, each list in an order of its own.

        Not rabbitmqctl: what it exports depends on how an operator policy came into the node.
        """
        found = self.call("GET", "definitions").document
        found["global_parameters"] = [
            item for item in found["global_parameters"] if not item["name"].startswith("internal")
        ]
        return {
            kind: sorted(objects, key=lambda item: json.dumps(item, sort_keys=True))
            for kind, objects in found.items()
            if isinstance(objects, list)
        }

    def effective_limits(self, vhost: str, queue: str) -> dict[str, Any]:
        """What policy and operator policy together make of a queue."""
        path = f"queues/{quote(vhost, '')}/{quote(queue, '')}"
        deadline = time.monotonic() + 60
        while "effective_policy_definition" not in (found := self.call("GET", path).document):
            assert time.monotonic() < deadline, found  # noqa: S101 - it comes with statistics
            time.sleep(0.2)
        return dict(found["effective_policy_definition"])

    def can_log_in(self, user: str, password: str) -> bool:
        """Whether a user's password is right."""
        done = self.host.run(["rabbitmqctl", "authenticate_user", user, password], check=False)
        return done.returncode == 0

    def call(self, method: str, path: str, body: Any = None, good: bool = True) -> Answer:
        """Asks the management API as the administrator. Fails if it refuses, unless told not to."""
        url = f"http://{self.host.address}:{API_PORT}/api/{path}"
        request = ["--data-binary", json.dumps(body)] if body is not None else []
        done = self.host.run(
            [
                *("curl", "--silent", "--show-error", "--path-as-is", "--max-time", "60"),
                *("--user", f"{ADMINISTRATOR}:{ADMINISTRATOR_PASSWORD}", "--request", method),
                *("--header", "content-type: application/json"),
                *("--write-out", "\n%{http_code}", *request, url),
            ]
        )
        text, _, status = done.stdout.rpartition("\n")
        answer = Answer(
            int(status), json.loads(text) if text.strip().startswith(("{", "[")) else None
        )
        assert not good or answer.status < 400, f"{method} {path}: {done.stdout}"  # noqa: S101
        return answer

    def fingerprint(self) -> dict[str, str]:
        """What makes up the node: its definitions, configuration files, plugins."""
        files = ["rabbitmq.conf", "advanced.config", "enabled_plugins", "rabbitmq-env.conf"]
        paths = [f"{CONFIGURATION}/{name}" for name in files]
        sums = self.host.run(["sha256sum", *paths], check=False).stdout
        modes = self.host.run(["stat", "-c", "%n %a %u:%g", *paths], check=False).stdout
        found = {
            kind: json.dumps(value, sort_keys=True) for kind, value in self.definitions().items()
        }
        return found | {"files": sums, "modes": modes}

    # -- network --------------------------------------------------------------------------------

    def _prepare_network(self) -> None:
        """Gives the host an epmd of its own; see `_EPMD_SOCKET`."""
        address = self.host.address
        own = _epmd_port(address)
        ports = {own, *(_epmd_port(peer.address) for peer in self.peers)}
        streams = [f"127.0.0.1:{own}", *(f"{address}:{port}" for port in sorted(ports))]
        socket = _EPMD_SOCKET.format(streams="\n".join(f"ListenStream={it}" for it in streams))
        self.host.run(["systemctl", "mask", "--quiet", "epmd.socket", "epmd.service"])
        self.host.write("/etc/systemd/system/lab-epmd.socket", socket)
        self.host.write("/etc/systemd/system/lab-epmd.service", _EPMD_SERVICE.format(port=own))
        erlang_tuple = "{" + address.replace(".", ",") + "}"
        environment = _LAB_ENVIRONMENT.format(port=own, distribution=own + 5100, tuple=erlang_tuple)
        self.host.write(_LAB_FILE, environment)
        wants = f"/etc/systemd/system/{UNIT}.d/lab.conf"
        self.host.write(wants, "[Unit]\nRequires=lab-epmd.socket\nAfter=lab-epmd.socket\n")


def _epmd_port(address: str) -> int:
    """A port that no other host of any network has, if none has more than twenty hosts."""
    network, host = (int(number) for number in address.split(".")[2:])
    return 20000 + network * 20 + host - 11

"""RabbitMQ 3.7 to 3.13 on its host, as epicli installs it: a package, one node a host.

Sources: rabbitmq-server and rabbitmq-cli of those versions; the manual pages rabbitmqctl(8) and
rabbitmq-env.conf(5); what is said to be seen was seen with 3.10.8.
"""

import os
import time
from typing import Any, Dict, List

from components.rabbitmq.host import configuration, messages, restoring
from components.rabbitmq.host.definitions import summary
from components.rabbitmq.host.node import (
    HOME,
    UNIT,
    Node,
    remove_private_folders,
    version_numbers,
)
from components.rabbitmq.host.transfer import Transfer
from host import quiesce, unit
from host.command import Program
from host.compression import compressor
from host.errors import HostError
from host.identity import identity
from host.packing import outermost
from host.pipeline import Pipeline
from host.service import HostService, Restoration, Step
from host.snapshot import Snapshot
from host.store import write_json
from host.swap import put_aside, remove

KNOWN_VERSIONS = ([3, 7], [3, 13])
QUORUM_SECONDS = 60
"""How long to wait until quorum queues can do without this node."""


class RabbitMQOnHost(HostService):
    """Definitions, the node's own configuration and cookie, and messages if they are asked for."""

    def discover(self) -> Dict[str, Any]:
        """What the node says of itself, and the paths of its configuration and its data."""
        found = Node().describe()
        paths = configuration.configuration_paths(found)
        return dict(found, paths=paths, data_paths=messages.data_paths(found))

    def snapshot(self, snapshot: Snapshot) -> None:
        """Export definitions, freeze configuration; stop the node for its messages."""
        node = Node()
        found = node.describe()
        down = sorted(set(found["members"]) - set(found["running_members"]))
        with_messages = bool(snapshot.settings.get("messages"))
        if down and with_messages:
            raise HostError(
                "%s of the cluster is down: to stop %s as well could stop the whole cluster"
                % (", ".join(down), found["node"]),
                "start it; or save definitions and configuration only, with "
                "epibackup:rabbitmq messages: false",
            )
        if down:
            snapshot.warn("%s of the cluster is down" % ", ".join(down))
        self._check_version(found["version"], snapshot)
        snapshot.version = found["version"]
        names = configuration.names_of_hosts(found["members"])
        paths = configuration.configuration_paths(found)
        snapshot.details = {
            "host": identity(),
            "node": found["node"],
            "members": sorted(found["members"]),
            "running_members": sorted(found["running_members"]),
            "cluster_name": found["cluster_name"],
            "version": found["version"],
            "erlang": found["erlang"],
            "home": found["home"],
            "data": found["data"],
            "mentions": configuration.mentions(paths, names),
            "management": snapshot.settings.get("management"),
            "stop_limit_seconds": snapshot.settings.get("stop_limit_seconds", 300),
        }
        self._save_definitions(node, found, snapshot)
        self._save_configuration(found, paths, snapshot)
        if with_messages:
            self._save_messages(node, found, snapshot)

    def _check_version(self, version: str, snapshot: Snapshot) -> None:
        numbers = version_numbers(version)[:2]
        if not KNOWN_VERSIONS[0] <= numbers <= KNOWN_VERSIONS[1]:
            snapshot.warn("RabbitMQ %s is none of those that are known, 3.7 to 3.13" % version)

    def _save_definitions(self, node: Node, found: Dict[str, Any], snapshot: Snapshot) -> None:
        """Definitions are the whole cluster's, and each node saves them: one is enough."""
        transfer = Transfer(node, snapshot.settings.get("management"))
        exported = transfer.export()
        counts = node.counts()
        if counts is None:
            snapshot.warn("how many messages the queues hold is unknown: the node did not say")
        path = snapshot.path(snapshot.stored_name("definitions.json"))
        plain = snapshot.path("definitions.json.plain")
        write_json(plain, exported)
        raw_bytes = os.path.getsize(plain)
        packer = compressor(snapshot.compression)
        if packer:
            with open(plain, "rb") as source, open(path, "wb") as stored:
                Pipeline([Program(packer)], stdin=source, stdout=stored).finish()
            os.unlink(plain)
        else:
            os.rename(plain, path)
        vhosts = ["vhost:" + item["name"] for item in exported["vhosts"]]
        content = {
            "part": "definitions",
            "parts": ["definitions", *vhosts],
            "definitions_from": found["node"],
            "exported_by": transfer.way,
        }
        snapshot.add_file(path, raw_bytes, content)
        snapshot.details["definitions_from"] = found["node"]
        snapshot.details["definitions"] = summary(exported, counts)

    def _save_configuration(
        self, found: Dict[str, Any], paths: List[str], snapshot: Snapshot
    ) -> None:
        cookie = configuration.cookie_path(found)
        if not os.path.isfile(cookie):
            raise HostError("the Erlang cookie %s is missing" % cookie)
        owner = os.stat(cookie)
        content = {
            "part": "configuration",
            "paths": paths,
            "cookie": cookie,
            "owner": [owner.st_uid, owner.st_gid],
        }
        snapshot.add_paths("configuration", paths, content)

    def _save_messages(self, node: Node, found: Dict[str, Any], snapshot: Snapshot) -> None:
        paths = messages.data_paths(found)
        messages.require_space(paths, snapshot.folder)
        folder = snapshot.path("messages")
        limit = int(snapshot.details["stop_limit_seconds"])
        try:
            messages.copy(paths, folder, final=False)
            self._await_quorum(node, found, snapshot)
            stopping = time.monotonic()
            with quiesce.stopped(UNIT, limit, snapshot.run):
                copying = time.monotonic()
                copied = messages.copy(paths, folder, final=True)
                copied_in = time.monotonic() - copying
        except OSError as error:
            raise HostError(
                "the messages could not be copied: %s" % error,
                "free space, or set epibackup:host_directory to a folder on a larger disk",
            ) from None
        node.wait()
        stopped = time.monotonic() - stopping
        snapshot.details["messages_copied"] = {
            "stopped_seconds": round(stopped, 1),
            "copied_seconds": round(copied_in, 1),
            "copied_bytes": copied.bytes,
            "bytes": copied.total_bytes,
        }
        owner = os.stat(found["data"])
        content = {
            "part": "messages",
            "paths": paths,
            "node": found["node"],
            "owner": [owner.st_uid, owner.st_gid],
        }
        snapshot.add_folder("messages", folder, copied.total_bytes, content)
        self._await_members(node, found, snapshot)

    def _await_quorum(self, node: Node, found: Dict[str, Any], snapshot: Snapshot) -> None:
        """Wait until all quorum queues have a majority without this node, as they have again some
        time after another node was stopped. Quorum queues came with 3.8, and so did the check."""
        if len(found["members"]) == 1 or version_numbers(found["version"]) < [3, 8]:
            return
        deadline = time.monotonic() + QUORUM_SECONDS
        check = ["rabbitmq-queues", "check_if_node_is_quorum_critical"]
        while node.tool(*check, check=False, timeout_seconds=60).code != 0:
            if time.monotonic() > deadline:
                snapshot.warn(
                    "quorum queues could not be used while %s was stopped: they had no majority "
                    "without it" % found["node"]
                )
                return
            time.sleep(1)

    def _await_members(self, node: Node, found: Dict[str, Any], snapshot: Snapshot) -> None:
        deadline = time.monotonic() + QUORUM_SECONDS
        while set(node.describe()["running_members"]) < set(found["members"]):
            if time.monotonic() > deadline:
                snapshot.warn("%s does not see all other nodes yet after its start" % found["node"])
                return
            time.sleep(1)

    def restore(self, restoration: Restoration) -> List[Step]:
        """See `restoring`."""
        return restoring.steps(restoration)

    def release(self, folder: str) -> None:
        """Remove the folder in which rabbitmqctl wrote, if that was killed."""
        del folder
        remove_private_folders()

    def kept(self) -> List[str]:
        """Old configuration files, data directories and definitions."""
        places = [configuration.FOLDER, configuration.DEFAULTS, restoring.DEFINITIONS]
        places += [os.path.join(HOME, "mnesia"), os.path.join(HOME, configuration.COOKIE)]
        try:
            found = self.discover()
            places += found["paths"] + found["data_paths"]
        except HostError:
            places += unit.files(UNIT)  # a node that is down: the usual places
        return put_aside(outermost(places))

    def discard(self, name: str) -> None:
        """Remove what `kept` lists."""
        if name not in self.kept():
            raise HostError("%s is nothing that a restore has put aside" % name)
        remove(name)

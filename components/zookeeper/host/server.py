"""The ZooKeeper server of this host: found and asked, with epicli's paths where it can't tell.

epicli has it in /opt/zookeeper, with conf/zoo.cfg, snapshots and `myid` in /var/lib/zookeeper,
transaction logs in /var/log/zookeeper, and the unit zookeeper.service.
"""

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional

from components.zookeeper.host.client import ZooKeeperClient
from host import java, unit
from host.errors import HostError

MAIN_CLASSES = (
    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
    "org.apache.zookeeper.server.ZooKeeperServerMain",
)
UNIT = "zookeeper.service"
DEFAULT_CONFIG = "/opt/zookeeper/conf/zoo.cfg"
JAR = r"zookeeper-(\d[\d.]*?)\.jar"
VERSION_FOLDER = "version-2"
SERVER = re.compile(r"server\.\d+")


class Server(NamedTuple):
    """A server: its unit, whether it runs, its configuration and the properties in it."""

    unit: str
    active: bool
    config: str
    properties: Dict[str, str]
    version: Optional[str]

    @property
    def data_dir(self) -> str:
        """Where snapshots and `myid` are."""
        return os.path.realpath(self.properties["dataDir"])

    @property
    def log_dir(self) -> str:
        """Where transaction logs are."""
        return os.path.realpath(self.properties.get("dataLogDir") or self.properties["dataDir"])

    def myid(self) -> Optional[int]:
        """Its number in the ensemble; None for a server that is alone."""
        try:
            with open(os.path.join(self.data_dir, "myid")) as stream:
                return int(stream.read())
        except FileNotFoundError:
            return None
        except ValueError:
            raise HostError("%s/myid does not hold a number" % self.data_dir) from None

    def client_address(self) -> str:
        """Where clients of this host reach it."""
        address = self.properties.get("clientPortAddress", "localhost")
        port = self.properties.get("clientPort", "")
        if not port:
            own = self.properties.get("server.%s" % self.myid(), "")
            address_and_port = own.rpartition(";")[2]  # 3.5: server.1=host:2888:3888;2181
            address, _, port = address_and_port.rpartition(":")
        return "%s:%s" % (address or "localhost", port or "2181")

    def configuration(self) -> List[str]:
        """The files that configure it: its configuration folder and unit."""
        folder = os.path.dirname(self.config)
        paths = [folder if os.path.basename(folder) in ("conf", "zookeeper") else self.config]
        paths += [*unit.files(self.unit), *unit.environment_files(self.unit)]
        for key, value in self.properties.items():
            if key.endswith((".location", "dynamicConfigFile")):
                paths.append(value)
        return [path for path in paths if os.path.isabs(path) and os.path.exists(path)]

    def summary(self) -> Dict[str, Any]:
        """What the manifest tells of it; nothing that is secret."""
        return {
            "active": self.active,
            "unit": self.unit,
            "config": self.config,
            "data_dir": self.data_dir,
            "log_dir": self.log_dir,
            "myid": self.myid(),
            "client_address": self.client_address(),
            "servers": {
                key: value for key, value in self.properties.items() if SERVER.fullmatch(key)
            },
        }


def find() -> Server:
    """This host's server, running or not; raises HostError if there is none."""
    running = java.processes(*MAIN_CLASSES)
    if len(running) > 1:
        raise HostError(
            "%d ZooKeeper servers run on this host, and epibackup saves one a host" % len(running),
            "stop those that do not belong here",
        )
    if running:
        process = running[0]
        config = os.path.realpath(os.path.join(process.directory, process.arguments[0]))
        folders = [os.path.dirname(entry) for entry in process.class_path.split(":")]
        return _server(unit.of_process(process.process) or UNIT, True, config, folders)
    started = unit.properties(UNIT).get("ExecStart", "")
    named: List[str] = re.findall(r"(/\S+\.cfg)", started)
    for path in [*named, DEFAULT_CONFIG]:
        if os.path.isfile(path):
            return _server(UNIT, False, os.path.realpath(path), [])
    raise HostError(
        "there is no ZooKeeper on this host: no process, and no " + DEFAULT_CONFIG,
        "correct the inventory's group zookeeper, or skip the service",
    )


def _server(name: str, active: bool, config: str, folders: List[str]) -> Server:
    properties = java.read_properties(config)
    if not properties.get("dataDir"):
        raise HostError("%s has no dataDir" % config)
    installed = os.path.dirname(os.path.dirname(config))
    places = [installed, os.path.join(installed, "lib"), *folders]
    return Server(name, active, config, properties, java.jar_version(places, JAR))


def answers(server: Server) -> bool:
    """Whether it serves: it takes a session only as a member of an ensemble that has a leader."""
    try:
        with ZooKeeperClient(server.client_address(), timeout_seconds=2) as client:
            client.children("/")
    except HostError:
        return False
    return True

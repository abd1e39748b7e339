"""The Kafka broker of this host: found and asked, with epicli's paths where it can't tell.

epicli has it in /opt/kafka (a link to the version's folder), with
/opt/kafka/config/server.properties, data in /var/lib/kafka and the unit kafka.service.
"""

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional

from host import command, java, unit
from host.errors import HostError

MAIN_CLASS = "kafka.Kafka"
UNIT = "kafka.service"
DEFAULT_CONFIG = "/opt/kafka/config/server.properties"
JAR = r"kafka_\d+\.\d+-(\d[\w.]*?)\.jar"
FILE_KEYS = re.compile(r"(?:.*\.)?(?:ssl\.(?:key|trust)store\.location|sasl\.kerberos\.keytab)")
META = "meta.properties"


class Broker(NamedTuple):
    """A broker: its unit, whether it runs, its configuration and the properties in force."""

    unit: str
    active: bool
    config: str
    properties: Dict[str, str]
    version: Optional[str]
    options: List[str]

    @property
    def log_dirs(self) -> List[str]:
        """Where its data is, in the order of the configuration, links resolved."""
        named = self.properties.get("log.dirs") or self.properties.get("log.dir")
        folders = (named or "/tmp/kafka-logs").split(",")  # noqa: S108 - Kafka's own default
        return [os.path.realpath(folder.strip()) for folder in folders if folder.strip()]

    def meta(self) -> Dict[str, str]:
        """broker.id and cluster.id, as the data has them; raises HostError if it has none."""
        for log_dir in self.log_dirs:
            path = os.path.join(log_dir, META)
            if os.path.isfile(path):
                return java.read_properties(path)
        raise HostError(
            "no log directory of the broker has a %s: %s" % (META, ", ".join(self.log_dirs)),
            "check log.dirs in " + self.config,
        )

    def owner(self) -> os.stat_result:
        """Whose its files are."""
        for log_dir in self.log_dirs:
            if os.path.isdir(log_dir):
                return os.stat(log_dir)
        raise HostError("the broker has no log directory: " + ", ".join(self.log_dirs))

    def configuration(self) -> List[str]:
        """The files that configure it: its configuration folder, stores, logins, unit."""
        folder = os.path.dirname(self.config)
        paths = [folder if os.path.basename(folder) == "config" else self.config]
        for key, value in self.properties.items():
            if FILE_KEYS.fullmatch(key):
                paths.append(value)
        for option in self.options:
            name, _, value = option.partition("=")
            if name in ("-Djava.security.auth.login.config", "-Djava.security.krb5.conf"):
                paths.append(value)
        paths += [*unit.files(self.unit), *unit.environment_files(self.unit)]
        return [path for path in paths if os.path.isabs(path) and os.path.exists(path)]

    def summary(self) -> Dict[str, Any]:
        """What the manifest tells of it; nothing that is secret."""
        meta = self.meta()
        return {
            "broker_id": int(meta["broker.id"]) if "broker.id" in meta else None,
            "cluster_id": meta.get("cluster.id"),
            "active": self.active,
            "unit": self.unit,
            "config": self.config,
            "log_dirs": self.log_dirs,
            "listeners": self.properties.get("listeners"),
            "advertised": self.properties.get("advertised.listeners"),
            "protocols": self.properties.get("listener.security.protocol.map"),
            "zookeeper": self.properties.get("zookeeper.connect"),
            "security": {
                "inter_broker": self.properties.get(
                    "security.inter.broker.protocol",
                    self.properties.get("inter.broker.listener.name", "PLAINTEXT"),
                )
            },
        }


def find() -> Broker:
    """This host's broker, running or not.

    Raises HostError if there is none, more than one, or one without ZooKeeper (KRaft).
    """
    running = java.processes(MAIN_CLASS)
    if len(running) > 1:
        raise HostError(
            "%d Kafka brokers run on this host, and epibackup saves one a host" % len(running),
            "stop those that do not belong here",
        )
    if running:
        process = running[0]
        name = unit.of_process(process.process) or UNIT
        config = os.path.realpath(os.path.join(process.directory, process.arguments[0]))
        properties = java.read_properties(config)
        for word in process.arguments[1:]:  # what --override sets
            key, separator, value = word.partition("=")
            if separator:
                properties[key] = value
        folders = [os.path.dirname(entry) for entry in process.class_path.split(":")]
        broker = Broker(name, True, config, properties, _version(config, folders), process.options)
    else:
        config = _config_of_unit()
        broker = Broker(UNIT, False, config, java.read_properties(config), _version(config, []), [])
    if "process.roles" in broker.properties:
        raise HostError(
            "this broker runs without ZooKeeper (KRaft), which epibackup cannot save yet",
            "skip the service: --skip kafka --skip zookeeper",
        )
    return broker


def _config_of_unit() -> str:
    """The configuration of a broker that does not run."""
    started = unit.properties(UNIT).get("ExecStart", "")
    named: List[str] = re.findall(r"(/\S+\.properties)", started)
    for path in [*named, DEFAULT_CONFIG]:
        if os.path.isfile(path):
            return os.path.realpath(path)
    raise HostError(
        "there is no Kafka on this host: no process %s, and no %s" % (MAIN_CLASS, DEFAULT_CONFIG),
        "correct the inventory's group kafka, or skip the service",
    )


def _version(config: str, folders: List[str]) -> Optional[str]:
    beside = os.path.join(os.path.dirname(os.path.dirname(config)), "libs")
    return java.jar_version([beside, *folders], JAR)


def answers(broker: Broker) -> bool:
    """Whether a port of the broker's listeners is open on this host (`ss`, of iproute2)."""
    ports = re.findall(r":(\d+)(?:,|$)", broker.properties.get("listeners") or "PLAINTEXT://:9092")
    shown = command.run(["ss", "--tcp", "--listening", "--numeric", "--no-header"]).stdout
    listening = {line.split()[3] for line in shown.splitlines() if len(line.split()) > 3}
    return any(place.endswith(":" + port) for port in ports for place in listening)

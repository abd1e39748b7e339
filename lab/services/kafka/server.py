"""A real Kafka cluster with its ZooKeeper ensemble on hosts of the lab."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lab.container import Container
from lab.errors import LabError
from lab.machine import Report
from lab.services.kafka import layout
from lab.services.kafka.contents import KafkaContents
from lab.services.kafka.versions import distribution, install, obtain
from lab.services.kafka.zookeeper import ZooKeeperSession, four_letter_word

_MOUNT_BYTES = 256 * 1024**2
_FIRST_AUTHORIZER = "kafka.security.auth.SimpleAclAuthorizer"
_AUTHORIZER = "kafka.security.authorizer.AclAuthorizer"  # from Kafka 2.4 on


class Server:
    """A broker or a ZooKeeper: one unit of a host."""

    def __init__(self, host: Container, unit: str, port: int) -> None:
        self.host = host
        self.unit = unit
        self.address = f"{host.address}:{port}"
        self._port = port

    def __repr__(self) -> str:
        return f"Server({self.host.name!r}, {self.unit!r})"

    def start(self) -> None:
        """Starts the unit; does not wait until it answers."""
        self.host.run(["systemctl", "start", self.unit])

    def stop(self) -> None:
        """Shuts the server down in order."""
        self.host.run(["systemctl", "stop", self.unit])

    def kill(self) -> None:
        """Ends its process as a crash does; systemd starts it again, as on Epiphany's hosts."""
        self.host.run(["systemctl", "kill", "--kill-who=main", "--signal=KILL", self.unit])

    @property
    def is_running(self) -> bool:
        """Whether systemd has it running; it may not answer yet."""
        ask = ["systemctl", "is-active", "--quiet", self.unit]
        return self.host.run(ask, check=False).returncode == 0

    @property
    def process(self) -> int:
        """The id, inside the host, of its process; 0 if there is none. Tells restarts."""
        show = ["systemctl", "show", "--property=MainPID", "--value", self.unit]
        return int(self.host.run(show).stdout)

    def ask(self, word: str) -> str:
        """What a ZooKeeper answers to a four-letter word; empty if it does not."""
        return four_letter_word(self.host.address, self._port, word)

    def metadata(self) -> dict[str, Any]:
        """What a broker knows of the cluster, as kcat shows it; empty if it does not answer."""
        show = ["kcat", "-b", self.address, "-L", "-J", "-m", "2"]
        done = self.host.run(show, check=False, timeout_seconds=10)
        with suppress(ValueError):
            found = json.loads(done.stdout)
            if isinstance(found, dict):
                return found
        return {}


class KafkaCluster(KafkaContents):
    """Brokers and ZooKeepers on the same `hosts`, as epicli sets them up.

    `broker.id` is the place of a host in `hosts`, `myid` is one more.

    version: one of `VERSIONS`.
    settings: added to server.properties, or in the place of the lab's own.
    zookeeper_settings: the same for zoo.cfg.
    log_dirs: where brokers keep their data.
    mounts: which of them are a file system of their own: in memory, so it is empty again after
        the host was shut down.
    has_acls: brokers have Kafka's own authorizer, which keeps rules in ZooKeeper. Everybody may
        do everything still.
    """

    def __init__(
        self,
        hosts: Sequence[Container],
        version: str = "2.8.2",
        *,
        settings: Mapping[str, str] | None = None,
        zookeeper_settings: Mapping[str, str] | None = None,
        log_dirs: Sequence[str] = (layout.KAFKA_DATA,),
        mounts: Sequence[str] = (),
        has_acls: bool = False,
    ) -> None:
        super().__init__([f"{host.address}:{layout.KAFKA_PORT}" for host in hosts])
        self.hosts = list(hosts)
        self.distribution = distribution(version)
        self.log_dirs = list(log_dirs)
        self.mounts = list(mounts)
        self.brokers = [Server(it, layout.KAFKA_UNIT, layout.KAFKA_PORT) for it in hosts]
        self.zookeepers = [Server(it, layout.ZOOKEEPER_UNIT, layout.ZOOKEEPER_PORT) for it in hosts]
        self._settings = {**(self._authorizer() if has_acls else {}), **(settings or {})}
        self._zookeeper_settings = dict(zookeeper_settings or {})

    def broker(self, host: Container) -> Server:
        """The broker of a host."""
        return self.brokers[self.hosts.index(host)]

    def zookeeper(self, host: Container) -> Server:
        """The ZooKeeper of a host."""
        return self.zookeepers[self.hosts.index(host)]

    # -- life -----------------------------------------------------------------------------------

    def create(self, report: Report) -> None:
        """Installs everything that is missing, writes the configuration, and starts the cluster.

        After `destroy_data` the cluster is a new, empty one.

        Raises LabError when a download fails, or the cluster does not come up.
        """
        trees = obtain(self.distribution, report)
        self._each(lambda host: self._set_up(host, trees))
        self.start()

    def write_configuration(self, host: Container) -> None:
        """Writes a host's server.properties, zoo.cfg and myid; used by the next start."""
        addresses = [it.address for it in self.hosts]
        place = self.hosts.index(host)
        properties = layout.server_properties(
            place, host.address, addresses, self.log_dirs, self._settings
        )
        host.write(layout.KAFKA_CONFIGURATION, properties, owner="kafka:kafka")
        zoo_cfg = layout.zoo_cfg(host.address, addresses, self._zookeeper_settings)
        host.write(layout.ZOOKEEPER_CONFIGURATION, zoo_cfg, owner="zookeeper:zookeeper")
        my_id = f"{layout.ZOOKEEPER_DATA}/myid"
        host.write(my_id, f"{place + 1}\n", owner="zookeeper:zookeeper")

    def start(self) -> None:
        """Starts ZooKeepers, then brokers, and waits until they are ready; running is fine."""
        for zookeeper in self.zookeepers:
            zookeeper.start()
        self.wait_for_zookeepers()
        for broker in self.brokers:
            broker.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """Shuts brokers down, then ZooKeepers."""
        for servers in (self.brokers, self.zookeepers):
            with ThreadPoolExecutor(max_workers=len(servers)) as pool:
                list(pool.map(Server.stop, servers))

    @property
    def is_running(self) -> bool:
        """Whether all brokers and ZooKeepers are running."""
        return all(server.is_running for server in (*self.brokers, *self.zookeepers))

    def destroy_data(self, hosts: Sequence[Container] | None = None) -> None:
        """The disaster of a drill, on some hosts or on all: servers are stopped, and the data of
        brokers and ZooKeepers and their configuration files are gone. The programs stay."""
        chosen = self.hosts if hosts is None else list(hosts)
        for servers in ([self.broker(it) for it in chosen], [self.zookeeper(it) for it in chosen]):
            with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
                list(pool.map(Server.stop, servers))
        folders = [it for it in self.log_dirs if it not in self.mounts]
        folders += [layout.ZOOKEEPER_DATA, layout.ZOOKEEPER_LOGS]
        files = [layout.KAFKA_CONFIGURATION, layout.ZOOKEEPER_CONFIGURATION]
        for host in chosen:
            host.run(["rm", "--recursive", "--force", *folders, *files])
            for mount in self.mounts:  # the file system itself stays
                host.run(["find", mount, "-mindepth", "1", "-delete"])

    # -- waiting --------------------------------------------------------------------------------

    def wait_for_zookeepers(self, timeout_seconds: float = 60) -> None:
        """Waits until every ZooKeeper is part of the ensemble; raises LabError if it is not."""

        def missing() -> str:
            quiet = [it for it in self.zookeepers if "\nMode: " not in it.ask("srvr")]
            return f"no answer from ZooKeeper on {_names(quiet)}" if quiet else ""

        _wait(missing, timeout_seconds)

    def wait_until_ready(
        self, hosts: Sequence[Container] | None = None, timeout_seconds: float = 90
    ) -> None:
        """Waits until the brokers of some hosts (of all, if not said) know each other and every
        topic of ZooKeeper, and there is a leader for every partition that one of them holds.

        A broker that has just started knows the others before it knows the topics. Raises
        LabError with what is missing.
        """
        chosen = self.hosts if hosts is None else list(hosts)
        wanted = {self.hosts.index(host) for host in chosen}

        def missing() -> str:
            try:
                topics = _registered_topics(chosen[0])
            except LabError as error:
                return error.message
            for broker in (self.broker(host) for host in chosen):
                known = broker.metadata()
                strangers = wanted - {it["id"] for it in known.get("brokers", [])}
                if strangers:
                    return f"{broker.host.name} does not know {self._states(strangers)}"
                unknown = topics - {topic for topic, _ in _partitions(known)}
                if unknown:
                    return f"the broker of {broker.host.name} does not know {sorted(unknown)}"
                for topic, partition in _partitions(known):
                    replicas = {it["id"] for it in partition["replicas"]}
                    if replicas & wanted and partition["leader"] not in wanted:
                        return f"{topic} partition {partition['partition']} has no leader"
            return ""

        _wait(missing, timeout_seconds)

    def _states(self, brokers: Iterable[int]) -> str:
        """What brokers do, and the last errors in their logs."""
        shown = []
        for broker in (self.brokers[number] for number in sorted(brokers)):
            errors = f"grep -hE 'ERROR|FATAL' {layout.KAFKA_LOGS}/server.log | tail -n 3"
            ask = ["sh", "-c", f"systemctl is-active {broker.unit}; {errors}"]
            said = broker.host.run(ask, check=False).stdout
            shown.append(f"{broker.host.name}: {said}")
        return "\n".join(shown)

    def wait_for_replicas(self, timeout_seconds: float = 90) -> None:
        """Waits until every replica of every partition is in sync; raises LabError if not."""

        def missing() -> str:
            known = self.brokers[0].metadata()
            for topic, partition in _partitions(known):
                if len(partition["isrs"]) < len(partition["replicas"]):
                    return f"{topic} partition {partition['partition']} is not in sync"
            return "" if known else "the first broker does not answer"

        self.wait_until_ready(timeout_seconds=timeout_seconds)
        _wait(missing, timeout_seconds)

    # -- own ------------------------------------------------------------------------------------

    def _authorizer(self) -> dict[str, str]:
        name = _AUTHORIZER if self.distribution.number >= (2, 4) else _FIRST_AUTHORIZER
        return {"authorizer.class.name": name, "super.users": "User:ANONYMOUS"}

    def _each(self, action: Callable[[Container], None]) -> None:
        with ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
            list(pool.map(action, self.hosts))

    def _set_up(self, host: Container, trees: list[bytes]) -> None:
        """All files of a host; the units are started at boot from now on."""
        install(host, trees)
        for user in ("kafka", "zookeeper"):
            if host.run(["id", user], check=False).returncode != 0:
                add = ["useradd", "--system", "--user-group", "--no-create-home"]
                host.run([*add, "--home-dir=/nonexistent", "--shell=/usr/sbin/nologin", user])
        folders = self.distribution
        for folder, link in (
            (folders.kafka_folder, layout.KAFKA_FOLDER),
            (folders.zookeeper_folder, layout.ZOOKEEPER_FOLDER),
        ):
            host.run(["ln", "--symbolic", "--force", "--no-target-directory", folder, link])
        for path, text in (
            (f"{layout.KAFKA_FOLDER}/bin/kafka-run-class.sh", layout.KAFKA_RUN_CLASS),
            (f"{layout.KAFKA_FOLDER}/bin/kafka-server-start.sh", layout.KAFKA_SERVER_START),
            (f"{layout.ZOOKEEPER_FOLDER}/bin/zkServer.sh", layout.ZOOKEEPER_SERVER),
        ):
            host.write(path, text, mode=0o755)
        kafka_folders = [layout.KAFKA_LOGS, *(it for it in self.log_dirs if it not in self.mounts)]
        zookeeper_folders = [layout.ZOOKEEPER_DATA, layout.ZOOKEEPER_LOGS]
        for owner, paths in (("kafka", kafka_folders), ("zookeeper", zookeeper_folders)):
            make = ["install", "--directory", "--mode=0755", f"--owner={owner}"]
            host.run([*make, f"--group={owner}", *paths])
        host.write(f"{layout.KAFKA_FOLDER}/config/log4j.properties", layout.KAFKA_LOG4J)
        host.write(f"{layout.ZOOKEEPER_FOLDER}/conf/log4j.properties", layout.ZOOKEEPER_LOG4J)
        self.write_configuration(host)
        self._set_up_units(host)

    def _set_up_units(self, host: Container) -> None:
        units = {
            layout.ZOOKEEPER_UNIT: ("/lib/systemd/system", layout.ZOOKEEPER_UNIT_TEXT),
            layout.KAFKA_UNIT: ("/etc/systemd/system", layout.kafka_unit(self.mounts)),
        }
        ids = [int(host.run(["id", option, "kafka"]).stdout) for option in ("-u", "-g")]
        mounts = []
        for path in self.mounts:
            name = host.run(["systemd-escape", "--path", "--suffix=mount", path]).stdout.strip()
            units[name] = ("/etc/systemd/system", layout.mount_unit(path, _MOUNT_BYTES, *ids))
            mounts.append(name)
        for name, (folder, text) in units.items():
            host.write(f"{folder}/{name}", text)
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "enable", "--quiet", *units])
        if mounts:
            host.run(["systemctl", "start", *mounts])


def _names(servers: Sequence[Server]) -> str:
    return " ".join(server.host.name for server in servers)


def _registered_topics(host: Container) -> set[str]:
    with ZooKeeperSession(host.address, layout.ZOOKEEPER_PORT) as session:
        deleted = session.children("/admin/delete_topics")
        return set(session.children("/brokers/topics")) - set(deleted)


def _partitions(metadata: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    topics = metadata.get("topics", [])
    return [(topic["topic"], it) for topic in topics for it in topic["partitions"]]


def _wait(missing: Callable[[], str], timeout_seconds: float) -> None:
    """Waits until nothing is missing; raises LabError with what was missing last."""
    deadline = time.monotonic() + timeout_seconds
    while reason := missing():
        if time.monotonic() > deadline:
            raise LabError(f"Kafka is not ready: {reason}", "Look at /var/log/kafka/server.log.")
        time.sleep(0.1)

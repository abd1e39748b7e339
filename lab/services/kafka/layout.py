"""The files that epicli leaves on a host with Kafka and ZooKeeper.

Paths, owners, units and the form of the configuration are those of epicli's roles `kafka` and
`zookeeper`. Other than there, a broker that is stopped ends as "inactive" and not as "failed"
(`SuccessExitStatus`: a JVM that got SIGTERM exits with 143).
"""

from collections.abc import Mapping, Sequence

KAFKA_FOLDER = "/opt/kafka"
KAFKA_CONFIGURATION = "/opt/kafka/config/server.properties"
KAFKA_DATA = "/var/lib/kafka"
KAFKA_LOGS = "/var/log/kafka"
KAFKA_UNIT = "kafka.service"
KAFKA_PORT = 9092

ZOOKEEPER_FOLDER = "/opt/zookeeper"
ZOOKEEPER_CONFIGURATION = "/opt/zookeeper/conf/zoo.cfg"
ZOOKEEPER_DATA = "/var/lib/zookeeper"
ZOOKEEPER_LOGS = "/var/log/zookeeper"
ZOOKEEPER_UNIT = "zookeeper.service"
ZOOKEEPER_PORT = 2181

# As small and as quick to start as a JVM gets.
_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"

# With the variables of Apache Kafka's script.
KAFKA_RUN_CLASS = f"""\
#!/bin/sh
base=$(dirname "$0")/..
exec java ${{KAFKA_HEAP_OPTS:--Xmx256m}} {_JVM} \\
  -Dkafka.logs.dir="${{LOG_DIR:-$base/logs}}" \\
  -Dlog4j.configuration="file:$base/config/log4j.properties" \\
  ${{KAFKA_OPTS:-}} -cp "$base/libs/*" "$@"
"""
KAFKA_SERVER_START = """\
#!/bin/sh
exec "$(dirname "$0")/kafka-run-class.sh" kafka.Kafka "$@"
"""
KAFKA_LOG4J = """\
log4j.rootLogger=INFO, server
log4j.appender.server=org.apache.log4j.DailyRollingFileAppender
log4j.appender.server.DatePattern='.'yyyy-MM-dd-HH
log4j.appender.server.File=${kafka.logs.dir}/server.log
log4j.appender.server.layout=org.apache.log4j.PatternLayout
log4j.appender.server.layout.ConversionPattern=[%d] %p %m (%c)%n
"""
_KAFKA_UNIT_TEXT = """\
[Unit]
Description=Kafka Daemon
After=zookeeper.service
{mounts}
[Service]
Type=simple
User=kafka
Group=kafka
LimitNOFILE=16384
Restart=on-failure
SuccessExitStatus=143
Environment="KAFKA_HEAP_OPTS=-Xmx256m"
Environment="LOG_DIR=/var/log/kafka"
ExecStart=/opt/kafka/bin/kafka-server-start.sh /opt/kafka/config/server.properties

[Install]
WantedBy=multi-user.target
"""
ZOOKEEPER_SERVER = f"""\
#!/bin/sh
base=$(dirname "$0")/..
[ "$1" = start-foreground ] || {{ echo "only start-foreground is known here" >&2; exit 2; }}
# Some versions want classes for managing log4j that reload4j does not have.
exec java -Xmx256m {_JVM} -Dzookeeper.jmx.log4j.disable=true \\
  -Dlog4j.configuration="file:$base/conf/log4j.properties" \\
  ${{SERVER_JVMFLAGS:-}} -cp "$base/lib/*" \\
  org.apache.zookeeper.server.quorum.QuorumPeerMain "$base/conf/zoo.cfg"
"""
ZOOKEEPER_LOG4J = """\
log4j.rootLogger=INFO, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%p %m (%c)%n
"""
ZOOKEEPER_UNIT_TEXT = """\
[Unit]
Description=ZooKeeper
After=network.target
Wants=network.target

[Service]
Type=simple
User=zookeeper
Group=zookeeper
SuccessExitStatus=143
ExecStart=/opt/zookeeper/bin/zkServer.sh start-foreground
Restart=always
RestartSec=3
TimeoutSec=300

[Install]
WantedBy=multi-user.target
"""
_MOUNT_UNIT_TEXT = """\
[Unit]
Description=A file system of its own for Kafka

[Mount]
What=tmpfs
Where={path}
Type=tmpfs
Options=size={size_bytes},mode=0755,uid={user_id},gid={group_id}

[Install]
WantedBy=multi-user.target
"""
# Epiphany's lines first. Then what makes waiting short: segments are cleaned and deleted within
# seconds, groups do not wait for members, and a broker that was killed is forgotten soon.
_KAFKA_SETTINGS = {
    "auto.create.topics.enable": "true",
    "delete.topic.enable": "true",
    "default.replication.factor": "1",
    "controlled.shutdown.enable": "true",
    "num.partitions": "1",
    "min.insync.replicas": "1",
    "log.retention.hours": "168",
    "log.retention.bytes": "-1",
    "log.segment.bytes": "1073741824",
    "zookeeper.connection.timeout.ms": "6000",
    "zookeeper.set.acl": "false",
    "zookeeper.session.timeout.ms": "6000",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.state.log.min.isr": "1",
    "controlled.shutdown.retry.backoff.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.threads": "1",
    "log.cleaner.dedupe.buffer.size": "2097152",
}


def kafka_unit(mounts: Sequence[str]) -> str:
    """The text of kafka.service; it waits for the file systems `mounts`."""
    line = f"RequiresMountsFor={' '.join(mounts)}\n" if mounts else ""
    return _KAFKA_UNIT_TEXT.format(mounts=line)


def mount_unit(path: str, size_bytes: int, user_id: int, group_id: int) -> str:
    """The text of a unit that mounts a file system of its own, in memory."""
    return _MOUNT_UNIT_TEXT.format(
        path=path, size_bytes=size_bytes, user_id=user_id, group_id=group_id
    )


def server_properties(
    broker_id: int,
    address: str,
    addresses: Sequence[str],
    log_dirs: Sequence[str],
    settings: Mapping[str, str],
) -> str:
    """The text of a broker's server.properties; `settings` overrule everything else."""
    replicas = str(min(3, len(addresses)))
    values = {
        "broker.id": str(broker_id),
        "listeners": f"PLAINTEXT://{address}:{KAFKA_PORT}",
        "log.dirs": ",".join(log_dirs),
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        **_KAFKA_SETTINGS,
        "zookeeper.connect": ",".join(f"{it}:{ZOOKEEPER_PORT}" for it in addresses),
        **settings,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def zoo_cfg(address: str, addresses: Sequence[str], settings: Mapping[str, str]) -> str:
    """The text of a ZooKeeper's zoo.cfg; `settings` overrule everything else."""
    values = {
        "tickTime": "2000",
        "initLimit": "10",
        "syncLimit": "5",
        "dataDir": ZOOKEEPER_DATA,
        "dataLogDir": ZOOKEEPER_LOGS,
        "clientPort": str(ZOOKEEPER_PORT),
        # Of the lab: hosts share the machine's network.
        "clientPortAddress": address,
        "quorumListenOnAllIPs": "false",
        "admin.enableServer": "false",
        **{f"server.{id_}": f"{it}:2888:3888" for id_, it in enumerate(addresses, start=1)},
        **settings,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())

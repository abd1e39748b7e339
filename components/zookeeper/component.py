"""ZooKeeper, seen from the controller."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.archive.manifest import HostRecord, ServiceRecord
from components.service import ServiceBackup


class ZooKeeper(ServiceBackup):
    """Data and configuration of every server, after Kafka's logs."""

    service = "zookeeper"
    groups = ("zookeeper",)
    title = "ZooKeeper"
    # A topic that was made in between comes back empty; the other way round its data would
    # belong to no topic.
    after = ("kafka",)

    @classmethod
    def restored_with(cls, parts: Sequence[str]) -> tuple[str, ...]:
        """Servers and brokers go back together; parts are refused on the host."""
        del parts
        return ("kafka", "zookeeper")

    @classmethod
    def spread(cls, record: ServiceRecord) -> ServiceRecord:
        """All servers get the data of the one that had seen the most transactions, each with its
        own number and configuration."""
        saved = [host for host in record.hosts if _data(host)]
        if not saved:
            return record
        best = max(saved, key=lambda host: host.details["zxid"])
        hosts = []
        for host in record.hosts:
            details = host.details or _details_like(best, host)
            if details:
                own = [member for member in host.members if member not in _data(host)]
                members = [*_data(best), *own]
                hosts.append(host.model_copy(update={"members": members, "details": details}))
        return record.model_copy(update={"hosts": hosts})

    @classmethod
    def conclude(cls, answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """One server's data is enough for all; a majority should have been asked, though: only
        there the newest transaction is certain to be known."""
        saved = [answer for answer in answers.values() if answer["status"] == "ok"]
        servers = max((len(answer["details"]["servers"]) for answer in saved), default=0)
        if saved and len(saved) * 2 <= servers:
            problem = f"only {len(saved)} of {servers} servers were saved"
            return [f"{problem}: the newest transactions may be known to the others alone"]
        return []


def _data(host: HostRecord) -> list[Any]:
    return [member for member in host.members if "data" in member.content]


def _details_like(best: HostRecord, host: HostRecord) -> dict[str, Any]:
    """What is known of a server that was not saved: the others' configuration has its number, by
    its address or name. Empty if they have not."""
    for key, value in best.details["servers"].items():
        if value.split(":")[0] in (host.address, host.host):
            number = int(key.partition(".")[2])
            return {**best.details, "myid": number, "host": {}}
    return {}

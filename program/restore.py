"""A restore: which members go where, and having the agents put them there.

Everything is delivered and checked before anything live is touched; what happens on a host
then is the service's own (host.service), with its own way back. Hosts of a service whose data
belong together take their steps together, from barrier to barrier: all of them, or none.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.archive.manifest import HostRecord, Manifest, Member, ServiceRecord
from components.archive.reader import ArchiveReader
from components.errors import EpibackupError, NotFound, UsageError
from components.service import ServiceBackup, service_types
from components.ssh import SshClients
from program.agent import AgentOnHost
from program.inventory import unknown_name
from program.together import Participant, Together

Say = Callable[[str], None]
DELIVERIES = 4


@dataclass(frozen=True)
class Wanted:
    """What the user asked for. Empty means all.

    host_map: from the saved host's name to the one that gets its data.
    rename: from a part's saved name to its new one.
    """

    services: Sequence[str] = ()
    parts: Sequence[str] = ()
    hosts: Sequence[str] = ()
    host_map: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostRestore:
    """One service's restore on one host.

    address: where the saved host was reached, which others may have known it by.
    together: the services whose hosts take their steps together with this one.
    """

    service: str
    source: str
    address: str
    host: str
    members: tuple[Member, ...]
    request: dict[str, Any]
    together: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """What a restore does: on hosts, and by the controller itself into running services."""

    on_hosts: tuple[HostRestore, ...]
    by_controller: tuple[ServiceRecord, ...] = ()

    def groups(self) -> list[list[HostRestore]]:
        """Restores on hosts in their order; those of one group are done together."""
        groups: dict[tuple[str, ...], list[HostRestore]] = {}
        for item in self.on_hosts:
            groups.setdefault(item.together or (item.service, item.host), []).append(item)
        return list(groups.values())


def plan_restore(manifest: Manifest, wanted: Wanted) -> Planned:
    """What goes where; raises UsageError or NotFound for what the archive has not."""
    _check_names(manifest, wanted)
    types = service_types()
    chosen = _services_with_companions(manifest, wanted)
    on_hosts, by_controller = [], []
    for service in manifest.services:
        if service.name not in chosen:
            continue
        kind = types.get(service.name, ServiceBackup)
        if kind.is_restored_by_controller(wanted.parts):
            if any(_chosen(record, wanted) for record in service.hosts):
                by_controller.append(service)
            continue
        for record in (service if wanted.parts else kind.spread(service)).hosts:
            if wanted.hosts and record.host not in wanted.hosts:
                continue
            members = _chosen(record, wanted)
            if members:
                together = kind.restored_with(wanted.parts)
                on_hosts.append(_host_restore(service.name, record, members, wanted, together))
    if not on_hosts and not by_controller:
        raise NotFound(
            f"run {manifest.run} has nothing of what was asked for",
            f"see what it has: epibackup show {manifest.run}",
        )
    return Planned(tuple(on_hosts), tuple(by_controller))


def _services_with_companions(manifest: Manifest, wanted: Wanted) -> set[str]:
    """The chosen services, and those without which they cannot be restored."""
    saved = {
        service.name
        for service in manifest.services
        if any(record.members for record in service.hosts)
    }
    chosen = set(wanted.services) or {service.name for service in manifest.services}
    for name in sorted(chosen & saved):
        companions = service_types().get(name, ServiceBackup).restored_with(wanted.parts)
        missing = sorted(set(companions) - saved)
        if missing:
            raise NotFound(
                f"{name} can only be restored together with {' and '.join(missing)}, which run "
                f"{manifest.run} has not",
                "restore another run, or single parts: --part",
            )
        if companions and wanted.hosts:
            raise UsageError(
                f"{name} can only be restored on all its hosts together", "leave out --host"
            )
        chosen |= set(companions)
    return chosen


def _check_names(manifest: Manifest, wanted: Wanted) -> None:
    services = {service.name: service for service in manifest.services}
    hosts = {record.host for service in manifest.services for record in service.hosts}
    for name in wanted.services:
        if name not in services:
            raise unknown_name(f"service in run {manifest.run}:", name, list(services))
        if not any(record.members for record in services[name].hosts):
            problems = [record.error.message for record in services[name].hosts if record.error]
            raise NotFound(
                f"run {manifest.run} has no {name}: {'; '.join(problems)}", "restore another run"
            )
    for name in [*wanted.hosts, *wanted.host_map]:
        if name not in hosts:
            raise unknown_name(f"host in run {manifest.run}:", name, sorted(hosts))
    parts = sorted(
        {
            part
            for service in manifest.services
            if not wanted.services or service.name in wanted.services
            for record in service.hosts
            for member in record.members
            for part in member.part_names()
        }
    )
    for name in [*wanted.parts, *wanted.rename]:
        if name not in parts:
            raise unknown_name(f"part in run {manifest.run}:", name, parts)
    if wanted.rename and not set(wanted.rename) <= set(wanted.parts):
        raise UsageError("--rename is for chosen parts", "add --part for each renamed one")


def _chosen(record: HostRecord, wanted: Wanted) -> tuple[Member, ...]:
    if not wanted.parts:
        return tuple(record.members)
    named = [member for member in record.members if set(member.part_names()) & set(wanted.parts)]
    if not named:
        return ()
    others = [member for member in record.members if member.content.get("always")]
    together = {member.path: member for member in [*named, *others]}
    return tuple(together.values())


def _host_restore(
    service: str,
    record: HostRecord,
    members: tuple[Member, ...],
    wanted: Wanted,
    together: tuple[str, ...],
) -> HostRestore:
    host = wanted.host_map.get(record.host, record.host)
    request = {
        "details": record.details,
        "members": [
            {"name": member.name, "kind": member.kind, "content": member.content}
            for member in members
        ],
        "options": {
            "parts": list(wanted.parts),
            "rename": dict(wanted.rename),
            "mapped": host != record.host,
        },
    }
    return HostRestore(service, record.host, record.address, host, members, request, together)


class Restorer:
    """Carries out what `plan_restore` has planned, on hosts that can be reached."""

    def __init__(
        self,
        clients: SshClients,
        addresses: Mapping[str, str],
        run: str,
        host_directory: str,
        say: Say,
    ) -> None:
        self._clients = clients
        self._addresses = addresses
        self._run = run
        self._directory = host_directory
        self._say = say

    def install(self, planned: Sequence[HostRestore]) -> None:
        """Bring the agent to all hosts."""
        hosts = sorted({item.host for item in planned})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda host: self._agent(host).install(), hosts))

    def map_hosts(self, planned: Sequence[HostRestore]) -> None:
        """Tell hosts that are restored together, or onto others, what all hosts of their services
        are called, and were."""
        services: dict[tuple[str, ...], list[HostRestore]] = {}
        for item in planned:
            services.setdefault(item.together or (item.service,), []).append(item)
        for group in services.values():
            if not any(item.together or item.request["options"]["mapped"] for item in group):
                continue
            sides = {
                item.source: {
                    "old": {
                        "name": item.source,
                        "address": item.address,
                        **item.request["details"].get("host", {}),
                    },
                    "new": {
                        "name": item.host,
                        "address": self._addresses[item.host],
                        **self._agent(item.host).call(["identity"], None, _ignore)["identity"],
                    },
                }
                for item in group
            }
            for item in group:
                item.request["options"]["host_map"] = list(sides.values())
                item.request["together"] = bool(item.together)

    def discover(self, service: str, host: str) -> dict[str, Any]:
        """What a service on a host says about itself."""
        agent = self._agent(host)
        agent.install()
        live: dict[str, Any] = agent.call(["discover", service], None, _ignore)["live"]
        return live

    def describe(self, item: HostRestore) -> dict[str, Any]:
        """The steps for a host, which looks at what it has but changes nothing."""
        return self._call(item, dry_run=True)

    def deliver(self, reader: ArchiveReader, planned: Sequence[HostRestore]) -> None:
        """Bring all members to their hosts, each checked against the manifest on its way.

        Raises VerificationFailed for damaged data; nothing live has been touched then.
        """
        todo = [(item, member) for item in planned for member in item.members]
        with ThreadPoolExecutor(DELIVERIES) as pool:
            work = [pool.submit(self._deliver, reader, item, member) for item, member in todo]
            for done in work:
                done.result()

    def restore(
        self, group: Sequence[HostRestore], compare: Callable[[], None]
    ) -> list[dict[str, Any]]:
        """Have the hosts of a group restore what was delivered, together.

        compare: called when all have come to the barrier `COMPARE`; raises EpibackupError if
        what was restored is not what was saved.
        Raises EpibackupError if they went back, all of them.
        """
        together = Together(len(group), compare)
        with ThreadPoolExecutor(len(group)) as pool:
            answers = list(pool.map(self._restore, group, together.participants))
        failure = together.failure()
        if failure:
            raise failure
        return answers

    def _restore(self, item: HostRestore, participant: Participant) -> dict[str, Any]:
        answer, failure = {}, None
        try:
            answer = self._call(
                item, dry_run=False, participant=participant if item.together else None
            )
        except BaseException as error:
            failure = error
        participant.ended(failure)
        return answer

    def forget(self, planned: Sequence[HostRestore]) -> None:
        """Remove what was delivered, after a failure."""
        for host in sorted({item.host for item in planned}):
            try:
                self._agent(host).call(["release", "--run", self._run], None, _ignore)
            except EpibackupError as error:
                self._say(f"warning: {error.message}; epibackup clean removes what is left")

    def _agent(self, host: str) -> AgentOnHost:
        return AgentOnHost(self._clients, host, self._directory)

    def _deliver(self, reader: ArchiveReader, item: HostRestore, member: Member) -> None:
        self._say(f"{item.host}: receiving {member.path}")
        action = ["deliver", item.service, "--run", self._run, "--member", member.name]
        self._agent(item.host).deliver([*action, "--kind", member.kind], reader.chunks(member))

    def _call(
        self, item: HostRestore, dry_run: bool, participant: Participant | None = None
    ) -> dict[str, Any]:
        action = ["restore", item.service, "--run", self._run]
        request = {**item.request, "dry_run": dry_run}
        return self._agent(item.host).call(action, request, self._say, participant)


def _ignore(_: str) -> None:
    """Progress that nobody needs."""

"""A restore: which members go where, and having the agents put them there.

Everything is delivered and checked before anything live is touched; what happens on a host
then is the service's own (host.service), with its own way back.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.archive.manifest import HostRecord, Manifest, Member
from components.archive.reader import ArchiveReader
from components.errors import EpibackupError, NotFound, UsageError
from components.ssh import SshClients
from program.agent import AgentOnHost
from program.inventory import unknown_name

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
    """One service's restore on one host."""

    service: str
    source: str
    host: str
    members: tuple[Member, ...]
    request: dict[str, Any]


def plan_restore(manifest: Manifest, wanted: Wanted) -> list[HostRestore]:
    """What goes where; raises UsageError or NotFound for what the archive has not."""
    _check_names(manifest, wanted)
    planned = []
    for service in manifest.services:
        if wanted.services and service.name not in wanted.services:
            continue
        for record in service.hosts:
            if wanted.hosts and record.host not in wanted.hosts:
                continue
            members = _chosen(record, wanted)
            if members:
                planned.append(_host_restore(service.name, record, members, wanted))
    if not planned:
        raise NotFound(
            f"run {manifest.run} has nothing of what was asked for",
            f"see what it has: epibackup show {manifest.run}",
        )
    return planned


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
        {str(member.content["part"]) for member in manifest.members() if "part" in member.content}
    )
    for name in [*wanted.parts, *wanted.rename]:
        if name not in parts:
            raise unknown_name(f"part in run {manifest.run}:", name, parts)
    if wanted.rename and not set(wanted.rename) <= set(wanted.parts):
        raise UsageError("--rename is for chosen parts", "add --part for each renamed one")


def _chosen(record: HostRecord, wanted: Wanted) -> tuple[Member, ...]:
    if not wanted.parts:
        return tuple(record.members)
    named = [member for member in record.members if member.content.get("part") in wanted.parts]
    if not named:
        return ()
    others = [member for member in record.members if member.content.get("always")]
    together = {member.path: member for member in [*named, *others]}
    return tuple(together.values())


def _host_restore(
    service: str, record: HostRecord, members: tuple[Member, ...], wanted: Wanted
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
    return HostRestore(service, record.host, host, members, request)


class Restorer:
    """Carries out what `plan_restore` has planned, on hosts that can be reached."""

    def __init__(self, clients: SshClients, run: str, host_directory: str, say: Say) -> None:
        self._clients = clients
        self._run = run
        self._directory = host_directory
        self._say = say

    def install(self, planned: Sequence[HostRestore]) -> None:
        """Bring the agent to all hosts."""
        hosts = sorted({item.host for item in planned})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda host: self._agent(host).install(), hosts))

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

    def restore(self, item: HostRestore) -> dict[str, Any]:
        """Have a host restore what was delivered; raises EpibackupError if it went back."""
        return self._call(item, dry_run=False)

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

    def _call(self, item: HostRestore, dry_run: bool) -> dict[str, Any]:
        action = ["restore", item.service, "--run", self._run]
        return self._agent(item.host).call(action, {**item.request, "dry_run": dry_run}, self._say)


def _ignore(_: str) -> None:
    """Progress that nobody needs."""

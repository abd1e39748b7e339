"""Making an archive: collect, describe, publish, read back, free the hosts."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

from components.archive import manifest as manifest_module
from components.archive.collector import Collected, Collector, Progress, Source, size_text
from components.archive.container import container_writer
from components.archive.manifest import (
    Failure,
    HostRecord,
    Manifest,
    Member,
    ServiceRecord,
)
from components.archive.naming import archive_names
from components.archive.reader import open_archive, verify
from components.archive.request import ArchiveRequest, ArchiveResult
from components.archive.restore_notes import PATH as NOTES_PATH
from components.archive.restore_notes import restore_notes
from components.errors import (
    EpibackupError,
    TargetUnreachable,
    VerificationFailed,
)
from components.ssh import SshClients, SshHost
from components.storage.target import Target, open_target

Say = Callable[[str], None]


def make_archive(request: ArchiveRequest, say: Say) -> ArchiveResult:
    """Make, publish and check the archive of a run.

    A member that cannot be collected makes its service failed, not the archive. Raises
    TargetUnreachable if the target fails or cannot be read back, VerificationFailed if what is
    read back is not what was sent, EpibackupError if there is nothing to save at all; then the
    hosts keep their snapshots, and the same run can be tried again.
    """
    sources = _sources(request)
    if not sources:
        raise EpibackupError("nothing was saved: " + "; ".join(_failures(request)), _hint(request))
    target = open_target(request.target, request.target_options)
    _check_space(target, sources)
    with SshClients([SshHost.from_json(host) for host in request.hosts]) as clients:
        names = archive_names(request.cluster, request.run, request.container)
        upload = target.create(list(names))
        try:
            container = container_writer(request.container, upload, request.started)
            progress = Progress(sum(source.expected_bytes or 0 for source in sources), say)
            collector = Collector(clients, container, request.parallel, progress)
            manifest = _manifest(request, collector.collect(sources))
            stored_manifest = manifest.model_dump_json(indent=1).encode()
            notes = restore_notes(manifest).encode()
            container.add(NOTES_PATH, notes)
            container.add(manifest_module.PATH, stored_manifest)
            container.close()
            say("publishing")
            key = upload.publish()
        finally:
            upload.abort()
        warnings = []
        if target.reads_back:
            whole = {NOTES_PATH: notes, manifest_module.PATH: stored_manifest}
            _read_back(target, key, whole, say)
        else:
            warnings.append(
                f"{key} was not read back, because read_back is off: {target.url} has only "
                "confirmed the checksums of what it was sent"
            )
        warnings += _release(clients, request, say)
    return ArchiveResult(
        key=key,
        bytes=target.size(key),
        sha256=hashlib.sha256(stored_manifest).hexdigest(),
        verified=target.reads_back,
        warnings=warnings,
        manifest=manifest,
    )


def _sources(request: ArchiveRequest) -> list[Source]:
    """All members that the snapshots have."""
    return [
        Source(
            service=service.name,
            host=host,
            name=member["name"],
            kind=member["kind"],
            raw_bytes=member["raw_bytes"],
            expected_bytes=member["stored_bytes"] or member["raw_bytes"],
            content=member["content"],
            command=[
                *request.agent, "stream", service.name,
                "--run", request.run, "--member", member["name"],
            ],
        )
        for service in request.services
        for host, answer in service.answers.items()
        for member in answer["members"]
    ]  # fmt: skip


def _failures(request: ArchiveRequest) -> list[str]:
    return [
        f"{service.name} on {host}: {(answer['error'] or {}).get('message', 'it has no members')}"
        for service in request.services
        for host, answer in service.answers.items()
    ]


def _hint(request: ArchiveRequest) -> str:
    """What the first host that failed says can be done."""
    errors = (
        answer["error"] for service in request.services for answer in service.answers.values()
    )
    return next((error["hint"] for error in errors if error and error["hint"]), "")


def _check_space(target: Target, sources: Sequence[Source]) -> None:
    """Refuse what can't fit: compressed members are known, trees may shrink to a tenth."""
    target.check()
    free = target.free_bytes()
    least = sum(
        (source.expected_bytes or 0) // (10 if source.kind == "tree" else 1) for source in sources
    )
    if free is not None and free < least:
        raise TargetUnreachable(
            f"the archive needs at least {size_text(least)} and {target.url} has "
            f"{size_text(free)} free",
            "free space there, or choose another target",
        )


def _manifest(request: ArchiveRequest, collected: Sequence[Collected]) -> Manifest:
    """The manifest for what was collected and what was not."""
    addresses = {host["name"]: host["address"] for host in request.hosts}
    services = []
    for service in request.services:
        hosts = []
        for host, answer in service.answers.items():
            own = [
                item
                for item in collected
                if (item.source.service, item.source.host) == (service.name, host)
            ]
            hosts.append(_host_record(host, addresses.get(host, ""), answer, own))
        failed = bool(service.problems) or any(host.status == "failed" for host in hosts)
        services.append(
            ServiceRecord(
                name=service.name,
                status="failed" if failed else "ok",
                problems=service.problems,
                hosts=hosts,
            )
        )
    incomplete = any(service.status == "failed" for service in services)
    return Manifest(
        format=manifest_module.FORMAT,
        run=request.run,
        cluster=request.cluster,
        status="incomplete" if incomplete else "ok",
        started=request.started,
        finished=datetime.now(UTC).replace(microsecond=0),
        epicli_version=request.epicli_version,
        epibackup_version=request.epibackup_version,
        services=services,
        missing=request.missing,
        discarded=[path for item in collected for path in item.discarded],
        inventory=request.inventory,
    )


def _host_record(
    host: str, address: str, answer: dict[str, Any], collected: Sequence[Collected]
) -> HostRecord:
    error = Failure(**answer["error"]) if answer["error"] else None
    broken = [item.failure for item in collected if item.failure]
    members: list[Member] = [item.member for item in collected if item.member]
    if broken:
        error = Failure(message="; ".join(broken), hint="run the backup again")
    status: Literal["ok", "failed"] = "failed" if error else "ok"
    return HostRecord(
        host=host,
        address=address,
        status=status,
        version=answer["version"],
        error=error,
        warnings=answer["warnings"],
        details=answer["details"],
        members=members,
    )


def _read_back(target: Target, key: str, whole: Mapping[str, bytes], say: Say) -> None:
    """Check what the target gives back; `whole` is for `verify`.

    An archive that is proven to be other than what was sent is removed; one that could not be
    read is left, because it may be good.
    """
    checked = Progress(target.size(key), lambda text: say(text.replace("collected", "read back")))
    try:
        with open_archive(target, key) as reader:
            verify(reader, checked.add, whole)
    except VerificationFailed as error:
        try:
            target.delete(key)
            ending = "was removed"
        except TargetUnreachable as refused:
            ending = f"could not be removed ({refused.message})"
        raise VerificationFailed(
            f"{key} was published, is not what was sent when it is read back from {target.url}, "
            f"and {ending}: {error.message}",
            "check the target's disk and its mount, then run the backup again",
        ) from error
    except TargetUnreachable as error:
        raise TargetUnreachable(
            f"{key} was published in {target.url} and could not be read back; it is still there, "
            f"and nobody has checked it: {error.message}",
            error.hint,
        ) from error


def _release(clients: SshClients, request: ArchiveRequest, say: Say) -> list[str]:
    """Have the hosts remove their snapshots; what can't be removed is a warning."""
    say("removing the snapshots from the hosts")
    hosts = sorted(
        {
            host
            for service in request.services
            for host, answer in service.answers.items()
            if answer["members"]
        }
    )

    def release(host: str) -> str:
        done = clients.run(
            host, [*request.agent, "release", "--run", request.run], timeout_seconds=600
        )
        try:
            kept = json.loads(done.stdout)["kept"]
        except (ValueError, KeyError):
            return f"the snapshots on {host} could not be removed: {done.stderr.strip()[-300:]}"
        return f"left on {host}: {', '.join(kept)}" if kept else ""

    with ThreadPoolExecutor(16) as pool:
        return [warning for warning in pool.map(release, hosts) if warning]

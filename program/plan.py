"""The plan of a backup: what will be saved, where from and where to, and what will not.

Plain values from the build directory and the settings; contacts no host. Every mistake a person
can make in them is found here, so that a preview shows it.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.archive.manifest import Missing
from components.archive.naming import cluster_label
from components.errors import EpibackupError, UsageError
from components.service import ServiceSettings, service_types
from components.ssh import SshHost
from components.storage.target import Target, open_target
from program.build_directory import BuildDirectory, read_build_directory
from program.exemptions import exemption_warnings, today
from program.groups import STATEFUL, STATELESS
from program.host_keys import known_keys
from program.inventory import InventoryHost, unknown_name
from program.options import Settings
from program.storage import check_storage, target_of


@dataclass(frozen=True)
class ServicePlan:
    """A service that will be saved, and its hosts."""

    name: str
    title: str
    hosts: tuple[str, ...]
    settings: ServiceSettings


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    hosts: those of all services, by name, in the inventory's order.
    missing: what the inventory has and the run will not save.
    """

    cluster: str
    epicli_version: str | None
    build: Path
    target: str
    settings: Settings
    hosts: dict[str, SshHost]
    services: tuple[ServicePlan, ...]
    missing: tuple[Missing, ...]
    warnings: tuple[str, ...]
    groups: dict[str, list[str]]


def make_plan(settings: Settings) -> Plan:
    """The plan for a stack's settings; raises UsageError for what is wrong in them."""
    if not settings.build:
        raise UsageError(
            "the build directory is not known",
            "give it with -b /path/to/build/CLUSTER, or set epibackup:build",
        )
    storage_warnings = check_storage(settings)
    target = target_of(settings)
    if not target:
        raise UsageError(
            "the target is not known", "give it with -t /path/to/backups, or set epibackup:target"
        )
    open_target(target, settings.target_options())
    build = read_build_directory(Path(settings.build))
    services = _services(settings, build)
    names = {name for service in services for name in service.hosts}
    hosts = {
        name: ssh_host(host, settings)
        for name, host in build.inventory.hosts.items()
        if name in names
    }
    missing = _missing(settings, build, services)
    warnings = [
        *build.warnings,
        *storage_warnings,
        *_unknown_groups(build),
        *exemption_warnings(missing, settings.exempt, today()),
    ]
    return Plan(
        cluster=settings.cluster or build.cluster,
        epicli_version=build.epicli_version,
        build=build.path,
        target=target,
        settings=settings,
        hosts=hosts,
        services=services,
        missing=tuple(missing),
        warnings=tuple(warnings),
        groups=build.inventory.groups,
    )


def _services(settings: Settings, build: BuildDirectory) -> tuple[ServicePlan, ...]:
    """The services to save: all that the inventory has, or those that were chosen."""
    types = service_types()
    for name in [*(settings.services or []), *settings.skip]:
        if name not in types:
            raise unknown_name("service", name, list(types))
    chosen = []
    for name, kind in types.items():
        hosts = [host for group in kind.groups for host in build.inventory.groups.get(group, [])]
        if settings.services and name in settings.services and not hosts:
            raise UsageError(
                f"the inventory has no {kind.title}: no host in {' or '.join(kind.groups)}",
                f"leave out --service {name}",
            )
        wanted = settings.services is None or name in settings.services
        if hosts and wanted and name not in settings.skip:
            unique = tuple(dict.fromkeys(hosts))
            chosen.append(ServicePlan(name, kind.title, unique, settings.of_service(name)))
    if not chosen:
        raise UsageError(
            f"there is nothing to save: {build.path} has none of {', '.join(types)}"
            + (" that is not skipped" if settings.skip else ""),
            "check -b, --service and --skip",
        )
    return tuple(chosen)


def ssh_host(host: InventoryHost, settings: Settings) -> SshHost:
    """How a host is reached; raises UsageError if neither inventory nor settings say it."""
    user = settings.ssh.user or host.user
    if not user:
        raise UsageError(
            f"the inventory has no ansible_user for {host.name}", "set epibackup:ssh user"
        )
    return SshHost(
        name=host.name,
        address=host.address,
        port=host.port,
        user=user,
        key_file=None if settings.ssh.agent else _key_file(host, settings),
        host_keys=known_keys(host.name, host.address, host.port, settings.host_keys),
    )


def _key_file(host: InventoryHost, settings: Settings) -> str:
    named = settings.ssh.key_file or host.key_file
    if not named:
        raise UsageError(
            f"the inventory has no ansible_ssh_private_key_file for {host.name}",
            "set epibackup:ssh key_file, or agent to use the keys of ssh-agent",
        )
    for old, new in settings.ssh.key_map.items():
        if named.startswith(old):
            named = new + named.removeprefix(old)
            break
    return str(Path(named).expanduser())


def check_key(host: SshHost) -> None:
    """Make sure that a host's private key can be used; raises UsageError.

    A preview only warns of it: in a pull request's check there is no key, and none is needed.
    """
    if host.key_file is None:
        return
    path = Path(host.key_file)
    try:
        status = path.stat()
    except OSError:
        raise UsageError(
            f"the private key {path} does not exist",
            "the inventory names a path inside epicli's container: set epibackup:ssh key_file, "
            "or key_map to replace its beginning",
        ) from None
    if not os.access(path, os.R_OK):
        raise UsageError(f"the private key {path} cannot be read", "run as its owner")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"the private key {path} is readable by others", f"chmod 600 {path}")


def check_here(plan: Plan) -> None:
    """Make sure that this machine has what a run needs: keys and target.

    A target that the update makes first is only looked at after that, by the archive process.
    Raises UsageError or TargetUnreachable.
    """
    for host in plan.hosts.values():
        check_key(host)
    if not plan.settings.storage.is_made:
        _target(plan).check()


def _target(plan: Plan) -> Target:
    return open_target(plan.target, plan.settings.target_options())


def problems_here(plan: Plan) -> list[str]:
    """What `check_here` would refuse, for a plan or preview that only warns."""
    checks: list[Callable[[], None]] = [partial(check_key, host) for host in plan.hosts.values()]
    if not plan.settings.storage.is_made:
        checks.append(_target(plan).check)
    found = []
    for check in checks:
        try:
            check()
        except EpibackupError as error:
            found.append(f"{error.message} ({error.hint})")
    return list(dict.fromkeys(found))


def _missing(
    settings: Settings, build: BuildDirectory, services: tuple[ServicePlan, ...]
) -> list[Missing]:
    """What holds data and will not be saved, and groups nobody here has heard of."""
    types = service_types()
    claimed = {group: name for name, kind in types.items() for group in kind.groups}
    saved = {service.name for service in services}
    found = []
    for group, hosts in build.inventory.groups.items():
        service = claimed.get(group)
        if not hosts or group in STATELESS or service in saved:
            continue
        if service in settings.skip:
            reason = "skipped on request"
        elif service:
            reason = "not chosen with --service"
        elif group in STATEFUL:
            reason = "this version of epibackup cannot save it yet"
        else:
            reason = "epibackup does not know this group: whether it holds data is unknown"
        found.append(
            Missing(what=f"{STATEFUL.get(group, group)} ({group})", hosts=hosts, reason=reason)
        )
    return found


def _unknown_groups(build: BuildDirectory) -> list[str]:
    """Groups that are perhaps misspelled."""
    known = [*STATEFUL, *STATELESS]
    return [
        f"{build.inventory.path}: {error.message} ({error.hint})"
        for group, hosts in build.inventory.groups.items()
        if hosts and group not in known
        for error in [unknown_name("group", group, known)]
        if error.hint.startswith("did you mean")
    ]


def archive_stem(plan: Plan, run: str) -> str:
    """How a run's archive will be called, without suffix."""
    return f"epibackup_{cluster_label(plan.cluster)}_{run}"

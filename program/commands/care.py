"""`epibackup trust`, `unlock`, `clean` and `engine`."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.prompt import Confirm

from components.errors import EpibackupError, Locked, NotFound, UsageError
from components.ssh import SshClients
from engine import find
from program import output, project
from program.agent import AgentOnHost
from program.commands.backup import plan_for, settings_for
from program.commands.restore import build_of
from program.host_keys import fingerprint, known_keys, scan
from program.inventory import unknown_name
from program.locks import lock_of
from program.plan import check_key
from program.probe import probe
from program.stack import BackupStack, engine


def trust(
    stack: str, flags: Mapping[str, Any], names: Sequence[str], replace: bool, yes: bool
) -> None:
    """Pin the ssh host keys of hosts in the stack's configuration, once a person has looked."""
    settings = settings_for(stack, flags)
    build = build_of(settings)
    known = build.inventory.hosts
    for name in names:
        if name not in known:
            raise unknown_name("host", name, list(known))
    pins: dict[str, str] = {}
    for name, host in known.items():
        if names and name not in names:
            continue
        if known_keys(name, host.address, host.port, settings.host_keys) and not replace:
            continue
        try:
            keys = scan(host.address, host.port, settings.ssh.connect_timeout_seconds)
        except EpibackupError as error:
            output.say(f"warning: {error.message}")
            continue
        output.say(f"{name} ({host.address} port {host.port}) shows:")
        output.say(f"  {keys[0].split()[0]} {fingerprint(keys[0])}")
        pins[name] = keys[0]
    if not pins:
        output.say("there is no new key to pin")
        return
    if not yes and not confirmed("Are these the hosts' own keys? Pin them?"):
        raise UsageError("nothing was pinned", "compare the fingerprints on the hosts' consoles")
    values: dict[str, Any] = {"host_keys": pins}
    if "epibackup:build" not in project.stack_config(stack):
        values["build"] = str(build.path)
    BackupStack(stack, engine(output.say)).set_config(values)
    output.say(f"pinned the keys of {', '.join(pins)} in {project.stack_file(stack)}")


def unlock(stack: str, force: bool) -> None:
    """Remove the lock of a run that was killed."""
    lock = lock_of(stack)
    if lock is None:
        if project.backend_folder() is not None:
            output.say(f"the stack {stack} is not locked")
            return
        if not force:
            raise UsageError(
                "whether the stack is locked cannot be told with this backend",
                "if you are sure that no run is at work: --force",
            )
    elif lock.alive is not False and not force:
        raise Locked(
            f"the lock of the stack {stack} is held: {lock.describe()}",
            "a lock of a run that works must stay; if you are sure that it does not: --force",
        )
    BackupStack(stack, engine(output.say)).unlock()
    output.say(f"removed the lock: {lock.describe()}" if lock else "removed the locks")


def clean(stack: str, flags: Mapping[str, Any], remove: bool, discard: bool, as_json: bool) -> None:
    """Tell, or remove, what killed runs and restores have left on the hosts."""
    plan = plan_for(stack, flags)
    by_host: dict[str, list[str]] = {}
    for service in plan.services:
        for name in service.hosts:
            by_host.setdefault(name, []).append(service.name)
    for host in plan.hosts.values():
        check_key(host)
    found: dict[str, Any] = {}
    directory = plan.settings.host_directory
    probed = probe(plan.hosts.values(), directory, "", stack)
    with SshClients(list(plan.hosts.values())) as clients:
        for name, services in by_host.items():
            problem = probed[name].problem
            if problem:
                found[name] = {"problem": problem.message}
                continue
            agent = AgentOnHost(clients, name, directory)
            agent.install()
            flags_for = [*(["--remove"] if remove else []), *(["--discard"] if discard else [])]
            found[name] = agent.call(["clean", *flags_for, *services], None, output.say)
    if as_json:
        output.print_json(found)
        return
    _tell_leftovers(found, remove, discard)


def _tell_leftovers(found: Mapping[str, Any], remove: bool, discard: bool) -> None:
    rows = output.table("host", "service", "what", "state")
    for name, answer in found.items():
        if "problem" in answer:
            output.say(f"warning: {answer['problem']}")
            continue
        for item in answer["leftovers"]:
            state = "removed" if item["removed"] else f"{item['age_seconds'] // 3600} h old"
            rows.add_row(name, item["service"], f"{item['kind']} of run {item['run']}", state)
        for item in answer["kept"]:
            state = "removed" if item["removed"] else "old data of a restore"
            rows.add_row(name, item["service"], item["name"], state)
    if not rows.row_count:
        output.say("there is nothing left on the hosts")
        return
    output.console.print(rows)
    if not remove:
        output.say("remove what runs and restores have left: --remove")
    if not discard:
        output.say("remove old data that restores have put aside: --discard")


def engine_show(as_json: bool) -> None:
    """Tell which engine is in use, and why."""
    found = find()
    if found is None:
        raise NotFound("there is no Pulumi engine yet", "epibackup engine obtain gets or builds it")
    if as_json:
        output.print_json(
            {
                "pulumi": str(found.pulumi),
                "version": found.version,
                "origin": str(found.origin),
                "reason": found.reason,
            }
        )
        return
    output.say(f"{found.pulumi} {found.version}")
    output.say(found.reason)


def engine_env() -> None:
    """Print shell commands that let `pulumi` by hand use the same engine and stacks."""
    chosen = engine(output.say)
    environment = {**chosen.environment(), **project.passphrase_environment()}
    for name, value in environment.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def confirmed(question: str) -> bool:
    """Ask a person; raises UsageError where there is none."""
    if not sys.stdin.isatty():
        raise UsageError("this has to be confirmed", "add --yes")
    return Confirm.ask(question, console=output.console, default=False)

"""The agent: what the controller calls on a host, by `sudo -n python3 agent.pyz`.

Answers are one JSON document on standard output, data of `stream` aside; progress for people
goes to standard error in short lines. A service's failure is an answer, not an exit code: the
codes other than 0 are left to faults of the agent itself and to `stream` and `deliver`.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from typing import Any, Callable, Dict, List

from host import command, compression, identity, meeting, packing, swap
from host.errors import HostError
from host.service import Delivered, Restoration, Step, run_steps, service_class, service_of
from host.snapshot import FORMAT, Snapshot, public
from host.store import Leftover, Store, read_json, write_json
from host.supervision import answer_failure, supervise

DEFAULT_DIRECTORY = "/var/lib/epibackup"


def say(text: str) -> None:
    """One line of progress for people."""
    for line in text.splitlines():
        sys.stderr.write(line[:400] + "\n")
    sys.stderr.flush()


def read_request() -> Dict[str, Any]:
    """The JSON object in the first line of standard input; empty input is an empty object."""
    text = sys.stdin.buffer.readline().decode("utf-8")
    request = json.loads(text) if text.strip() else {}
    if not isinstance(request, dict):
        raise HostError("the request on standard input is no JSON object")
    return request


def snapshot(store: Store, service: str, run: str) -> Dict[str, Any]:
    """Make a service's snapshot for a run, or answer again with the one that is there."""
    request = read_request()
    folder = store.snapshot_folder(run, service)
    with store.lock(service, "snapshot of run " + run):
        with contextlib.suppress(FileNotFoundError):
            return public(read_json(os.path.join(folder, "snapshot.json")))
        for leftover in store.old_snapshots(run, service):
            free(store, leftover)
        if not store.remove(folder):
            raise HostError("%s is being read by another process" % folder)
        os.makedirs(folder, mode=0o700)
        made = Snapshot(
            folder,
            run,
            request.get("settings", {}),
            compression.choose(
                request.get("compression", {}).get("method", "auto"),
                request.get("compression", {}).get("level"),
            ),
        )
        worker = service_of(service)
        try:
            worker.snapshot(made)
        except BaseException:
            worker.release(folder)
            store.remove(folder)
            raise
        answer = made.answer(service)
        answer["compression"] = list(made.compression)
        write_json(os.path.join(folder, "snapshot.json"), answer)
        return public(answer)


def give_way() -> None:
    """Let the host's services go first: this process and its children get the processor and the
    disk when nobody else wants them as much."""
    os.nice(10)
    if command.find("ionice"):
        argv = ["ionice", "--class", "best-effort", "--classdata", "7"]
        command.run([*argv, "--pid", str(os.getpid())], check=False)


def stream(store: Store, service: str, run: str, member: str) -> None:
    """Write one member of a snapshot, as it is stored in the archive, to standard output."""
    give_way()
    folder = store.snapshot_folder(run, service)
    if not os.path.isdir(folder):
        raise HostError("there is no snapshot of %s for run %s on this host" % (service, run))
    with store.reading(folder):
        answer = read_json(os.path.join(folder, "snapshot.json"))
        for candidate in answer["members"]:
            if candidate["name"] == member:
                break
        else:
            raise HostError("the snapshot of %s has no member %s" % (service, member))
        if candidate["kind"] == "file":
            packing.send_file(candidate["source"], sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            method = compression.Compression(*answer["compression"])
            send = packing.send_cut_tree if candidate["cut"] else packing.send_tree
            send(candidate["source"], method, sys.stdout.buffer)


def release(store: Store, run: str) -> Dict[str, Any]:
    """Remove all that a run or its restore has put aside on this host.

    What a restore that was killed has swapped stays: the next restore puts it back.
    """
    left = [leftover for leftover in store.leftovers() if leftover.run == run]
    return {"format": FORMAT, "kept": [item.path for item in left if not free(store, item)]}


def free(store: Store, leftover: Leftover) -> bool:
    """Remove a snapshot or a delivery; False if it is in use."""
    if leftover.kind == "restore" and swap.unfinished(leftover.path):
        return False
    found = service_class(leftover.service)
    if found and leftover.kind == "snapshots":
        found().release(leftover.path)
    return store.remove(leftover.path)


def deliver(store: Store, service: str, run: str, member: str, kind: str) -> Dict[str, Any]:
    """Put a member of an archive, read from standard input, beside the live data."""
    folder = store.restore_folder(run, service)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, delivered_name(member))
    if os.path.isdir(path):
        shutil.rmtree(path)
    try:
        if kind == "tree":
            packing.receive_tree(member, sys.stdin.buffer, path)
        else:
            packing.receive_file(member, sys.stdin.buffer, path)
    except OSError as error:
        raise HostError("cannot write %s: %s" % (path, error)) from None
    return {"format": FORMAT, "path": path}


def delivered_name(member: str) -> str:
    """The name of a delivered member's file or folder, without its compression's suffix.

    Raises HostError if it is no plain name.
    """
    if not member or "/" in member or member.startswith(".") or "\0" in member:
        raise HostError("%r is no valid name for a member" % member)
    return "member-" + re.sub(r"\.(zst|gz)$", "", member)


def restore(store: Store, service: str, run: str) -> Dict[str, Any]:
    """Restore what was delivered, or – for a dry run – say what would be done."""
    request = read_request()
    folder = store.restore_folder(run, service)
    restoration = Restoration(
        run,
        folder,
        [
            Delivered(
                member["name"],
                member["kind"],
                os.path.join(folder, delivered_name(member["name"])),
                member["content"],
            )
            for member in request["members"]
        ],
        request["details"],
        request.get("options", {}),
        say,
        meeting.Together() if request.get("together", False) else meeting.Others(),
    )
    with store.lock(service, "restore of run " + run):
        steps = recovery_steps(store, service, restoration)
        steps += service_of(service).restore(restoration)
        if not request.get("dry_run", False):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            run_steps(steps, say, restoration.others)
            store.remove(folder)
    return {
        "format": FORMAT,
        "status": "ok",
        "error": None,
        "steps": [step.text for step in steps],
        "warnings": restoration.warnings,
        "kept": restoration.kept,
    }


def recovery_steps(store: Store, service: str, restoration: Restoration) -> List[Step]:
    """What has to be put back first, because a restore of this service was killed together with
    what would have put it back at once (`supervise`)."""

    def step(folder: str) -> Step:
        def put_back() -> None:
            for path in swap.recover(folder):
                restoration.warn("an earlier restore was killed; its %s is back" % path)

        paths = ", ".join(swap.unfinished(folder))
        return Step("put back what a restore that was killed has replaced: " + paths, put_back)

    return [
        step(leftover.path)
        for leftover in store.leftovers()
        if leftover.kind == "restore"
        and leftover.service == service
        and swap.unfinished(leftover.path)
    ]


def discover(service: str) -> Dict[str, Any]:
    """What the live service says about itself."""
    return {"format": FORMAT, "status": "ok", "error": None, "live": service_of(service).discover()}


def identify() -> Dict[str, Any]:
    """How this host calls itself."""
    return {"format": FORMAT, "status": "ok", "error": None, "identity": identity.identity()}


def clean(store: Store, services: List[str], remove: bool, discard: bool) -> Dict[str, Any]:
    """List what runs and restores left on this host, and remove it if asked to.

    services: whose old data, put aside by restores, is looked for.
    remove: snapshots and deliveries. discard: old data.
    """
    left = []
    for leftover in store.leftovers():
        removed = remove and free(store, leftover)
        left.append(dict(leftover._asdict(), removed=removed))
    kept = []
    for name in services:
        service = service_of(name)
        for old in service.kept():
            if discard:
                service.discard(old)
            kept.append({"service": name, "name": old, "removed": discard})
    return {"format": FORMAT, "status": "ok", "error": None, "leftovers": left, "kept": kept}


def interrupt(*_: Any) -> None:
    """Turn SIGTERM into an exception, so that every clean-up runs."""
    raise HostError("ended by a signal")


def parse(argv: List[str]) -> argparse.Namespace:
    """The agent's command line."""
    parser = argparse.ArgumentParser(prog="epibackup-agent")
    parser.add_argument("--directory", default=DEFAULT_DIRECTORY)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--timeout", type=int, default=24 * 3600, help="seconds")
    actions = parser.add_subparsers(dest="action")
    for name in ("snapshot", "stream", "deliver", "restore", "discover"):
        action = actions.add_parser(name)
        action.add_argument("service")
        if name != "discover":
            action.add_argument("--run", required=True)
        if name in ("stream", "deliver"):
            action.add_argument("--member", required=True)
        if name == "deliver":
            action.add_argument("--kind", choices=["file", "tree"], required=True)
    actions.add_parser("identity")
    actions.add_parser("release").add_argument("--run", required=True)
    cleaning = actions.add_parser("clean")
    cleaning.add_argument("--remove", action="store_true")
    cleaning.add_argument("--discard", action="store_true")
    cleaning.add_argument("services", nargs="*")
    actions.add_parser("gzip").add_argument("--level", type=int, required=True)
    arguments = parser.parse_args(argv)
    if not arguments.action:  # required= came to subparsers with Python 3.7
        parser.error("an action is missing")
    return arguments


def main(argv: List[str]) -> int:
    """Do what the controller asks; returns the exit code."""
    os.umask(0o077)
    arguments = parse(argv)
    store = Store(arguments.directory)
    answers: Dict[str, Callable[[], Dict[str, Any]]] = {
        "snapshot": lambda: snapshot(store, arguments.service, arguments.run),
        "restore": lambda: restore(store, arguments.service, arguments.run),
        "discover": lambda: discover(arguments.service),
        "identity": identify,
        "release": lambda: release(store, arguments.run),
        "clean": lambda: clean(store, arguments.services, arguments.remove, arguments.discard),
    }
    if arguments.action in answers:
        if arguments.worker or arguments.action not in ("snapshot", "restore"):
            signal.signal(signal.SIGTERM, interrupt)
            answer = answer_failure(answers[arguments.action])
        else:
            answer = answer_failure(
                lambda: supervise(
                    argv,
                    arguments.timeout,
                    store.restore_folder(arguments.run, arguments.service),
                )
            )
        json.dump(answer, sys.stdout)
        return 0
    try:
        if arguments.action == "gzip":
            compression.gzip_filter(sys.stdin.buffer, sys.stdout.buffer, arguments.level)
        elif arguments.action == "stream":
            stream(store, arguments.service, arguments.run, arguments.member)
        else:
            json.dump(
                deliver(store, arguments.service, arguments.run, arguments.member, arguments.kind),
                sys.stdout,
            )
    except HostError as error:
        say(error.message + (" – " + error.hint if error.hint else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Restoring a node: configuration and data directory swapped while it is stopped, then the
definitions, compared with what the node says afterwards.

All hosts of a restore take these steps together, and wait for each other between them. Each
imports the definitions in its turn: what a cluster's first node has imported is there for the
others, which import nothing then; nodes that are no cluster import their own.
"""

import contextlib
import os
import stat
import time
from typing import Any, Dict, List, Optional, Tuple

from components.rabbitmq.host import configuration
from components.rabbitmq.host.loading import Loading
from components.rabbitmq.host.node import HOME, UNIT, Counts, Node, host_of, version_numbers
from host import command, quiesce, unit
from host.configuration import take_over
from host.errors import HostError
from host.identity import identity
from host.mapping import replacements
from host.packing import free_bytes
from host.service import Delivered, Restoration, Step
from host.swap import Swap, same

DEFINITIONS = os.path.join(HOME, "definitions.json")
START_LIMIT_SECONDS = 600
"""When systemd starts a node that a restore has stopped, if nobody else does."""
RESERVE_BYTES = 64 << 20
COUNT_SECONDS = 20


def steps(restoration: Restoration) -> List[Step]:
    """All steps on this host; raises HostError where they cannot even begin."""
    return _Restore(restoration).steps()


class _Restore:
    """The steps, and what they know of each other."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._details = restoration.details
        options = restoration.options
        self._named: List[str] = options.get("parts") or []
        self._hosts: List[Dict[str, Any]] = options.get("host_map") or []
        self._mapped = bool(options.get("mapped"))
        self._names = replacements(self._hosts or self._own_pair())
        self._node = Node()
        self._was_active = unit.is_active(UNIT)
        self._live = self._node.describe() if self._was_active and self._node.answers() else None
        self._configuration = self._configuration_member()
        self._messages = self._messages_member()
        self._loading = self._definitions()
        self._swap: Optional[Swap] = None
        self._made: List[str] = []
        if not (self._configuration or self._messages or self._loading):
            raise HostError("nothing of what was chosen can be restored on this host")

    def _own_pair(self) -> List[Dict[str, Any]]:
        """The host map where this host is restored by itself: of others nothing is known."""
        if not self._mapped:
            return []
        sides = [self._details["host"], identity()]
        old, new = [dict(side, name=side["hostname"], address=side["fqdn"]) for side in sides]
        return [{"old": old, "new": new}]

    # -- what is restored -----------------------------------------------------------------------

    def _member(self, part: str) -> Optional[Delivered]:
        for member in self._restoration.members:
            if member.content.get("part") == part:
                return member
        return None

    def _configuration_member(self) -> Optional[Delivered]:
        member = self._member("configuration")
        if member and self._mapped and not self._names and "configuration" not in self._named:
            self._restoration.warn(
                "the configuration is left as it is: it is another host's, and the names of the "
                "hosts are not known; name the part configuration to restore it"
            )
            return None
        return member

    def _messages_member(self) -> Optional[Delivered]:
        member = self._member("messages")
        obstacle = self._messages_obstacle() if member else ""
        if not obstacle:
            return member
        if "messages" in self._named:
            raise HostError(
                "the messages cannot be restored here: " + obstacle,
                "definitions can be restored anywhere: --part definitions",
            )
        self._restoration.warn("the messages are not restored: " + obstacle)
        return None

    def _messages_obstacle(self) -> str:
        saved = str(self._details["node"])
        here = identity()
        if host_of(saved) not in (here["hostname"], here["fqdn"]) or (
            self._live and self._live["node"] != saved
        ):
            return (
                "they belong to the node %s, and this is %s; a node's data is bound to its name"
                % (saved, self._live["node"] if self._live else "the host " + here["hostname"])
            )
        restored = {
            str(entry["old"].get(key)) for entry in self._hosts for key in ("hostname", "fqdn")
        } | {host_of(saved)}
        absent = [name for name in self._details["members"] if host_of(name) not in restored]
        if absent:
            return (
                "the cluster had other nodes, too, and their data must come back with this one's: "
                + ", ".join(absent)
            )
        version = self._live["version"] if self._live else self._installed_version()
        if version and version_numbers(version) < version_numbers(self._details["version"]):
            return "they are RabbitMQ %s's, and %s here cannot read newer data" % (
                self._details["version"],
                version,
            )
        return ""

    def _installed_version(self) -> Optional[str]:
        """The version of the programs here, where rabbitmqctl says it without a node (3.8)."""
        said = self._node.control("version", check=False)
        return said.stdout.strip() if said.code == 0 and version_numbers(said.stdout) else None

    def _definitions(self) -> Optional[Loading]:
        member = self._member("definitions")
        if member is None:
            return None
        if not self._live and not (self._configuration or self._messages):
            self._node.describe()  # says why it does not answer, and what to do
        kept = "%s.before-%s" % (DEFINITIONS, self._restoration.run)
        return Loading(self._node, self._restoration, member, self._names, kept)

    # -- steps ----------------------------------------------------------------------------------

    def steps(self) -> List[Step]:
        planned = []
        if self._loading:
            # What is replaced altogether cannot be in the way.
            known = self._live is not None and not self._messages
            planned += [self._loading.check_step(known)]
        if self._configuration or self._messages:
            planned += self._replacing_steps()
        if self._loading:
            planned += self._in_turn(self._loading.step())
        if self._messages:
            planned.append(Step("count the messages in the queues", self._count))
        if self._configuration or self._messages:
            planned.append(Step("make it final: a kill no longer takes anything back", self._done))
        return planned

    def _replacing_steps(self) -> List[Step]:
        run = self._restoration.run
        planned = []
        if self._configuration and self._names:
            lines = configuration.announced(self._details["mentions"], self._names)
            text = "put the hosts' new names into the saved configuration: "
            planned.append(Step(text + ("; ".join(lines) or "it names none"), self._rewrite))
        planned.append(Step(self._prepare_text(), self._prepare, self._unprepare))
        planned += self._barrier("prepared", "all hosts are prepared")
        planned.append(
            Step("stop %s if anything differs" % UNIT, self._stop, self._unstop, self._halt)
        )
        planned += self._barrier("stopped", "all hosts have stopped what they will replace")
        planned.append(Step("put it in place; old ones stay as *.before-" + run, self._put))
        planned.append(Step("start %s and wait until it answers" % UNIT, self._start))
        planned += self._barrier("started", "RabbitMQ answers on all hosts")
        return planned

    def _prepare_text(self) -> str:
        what = []
        if self._configuration:
            what.append("configuration files that differ")
        if self._messages:
            what.append(
                "the node's data with all messages (%s)"
                % ", ".join(self._messages.content["paths"])
            )
        return "put beside the live files: " + " and ".join(what)

    def _barrier(self, key: str, text: str) -> List[Step]:
        return [self._restoration.barrier(key, text)] if len(self._hosts) > 1 else []

    def _in_turn(self, step: Step) -> List[Step]:
        """The step when it is this host's turn, between barriers that all hosts have."""
        if len(self._hosts) < 2:
            return [step]
        order = sorted(str(entry["new"]["hostname"]) for entry in self._hosts)
        here = identity()["hostname"]
        if here not in order:
            raise HostError("this host, %s, is none of those restored: %s" % (here, order))
        planned = []
        for name in order:
            if name == here:
                planned.append(step)
            planned += self._barrier("definitions " + name, name + " has its definitions")
        return planned

    def _rewrite(self) -> None:
        changed = configuration.rewrite(_certain(self._configuration), self._names)
        self._restoration.say("rewritten: " + (", ".join(changed) or "nothing"))

    def _prepare(self) -> None:
        """Collect what is replaced in one folder, and put it on the live files' disks."""
        staged = os.path.join(self._restoration.folder, "staged")
        paths: List[str] = []
        if self._configuration:
            paths += self._stage_configuration(self._configuration, staged)
        if self._messages:
            saved, uid_gid = self._messages.content, self._owner()
            take_over(self._messages.path, tuple(saved["owner"]), uid_gid)
            for path in saved["paths"]:
                self._make_parents(path, self._messages.path)
                if _stage(self._messages.path, path, staged):
                    paths.append(path)
            self._require_space(staged)
        started = [UNIT] if self._was_active else []
        self._swap = Swap(
            self._restoration.folder, staged, paths, self._restoration.run, [UNIT], started
        )
        self._swap.prepare_moved()
        self._restoration.say("what is replaced: " + (", ".join(self._swap.changed) or "nothing"))

    def _stage_configuration(self, member: Delivered, staged: str) -> List[str]:
        """File by file: a folder rabbitmq.before-… beside the live one would hold live files."""
        take_over(member.path, tuple(member.content["owner"]), self._owner())
        chosen = []
        others = configuration.not_saved(member)
        for path in member.live_paths():
            saved = os.path.join(member.path, path.lstrip("/"))
            if same(path, saved) or (
                path == member.content["cookie"] and not self._new_cookie(path)
            ):
                continue
            self._make_parents(path, member.path)
            _stage(member.path, path, staged)
            chosen.append(path)
        if others:
            self._restoration.warn(
                "files that the backup has not are left as they are: " + ", ".join(others)
            )
        return chosen

    def _new_cookie(self, path: str) -> bool:
        """Whether the saved cookie replaces another one. Nodes of a cluster share it: one host
        with an old one is cut off. So it does with the data of all nodes, or when named."""
        if self._messages or "configuration" in self._named or not os.path.exists(path):
            return True
        self._restoration.warn(
            "the Erlang cookie %s differs from the saved one and is left as it is; "
            "--part configuration replaces it" % path
        )
        return False

    def _owner(self) -> Any:
        home = os.stat(HOME)
        return (home.st_uid, home.st_gid)

    def _require_space(self, staged: str) -> None:
        """Raise HostError if the data has to be copied to another disk that lacks the space."""
        if os.stat(staged).st_dev == os.stat(HOME).st_dev:
            return
        needed = sum(
            os.lstat(os.path.join(parent, name)).st_size
            for parent, _, names in os.walk(staged)
            for name in names
        )
        if free_bytes(HOME) - RESERVE_BYTES < needed:
            raise HostError(
                "the saved messages need %d MiB, and the disk of %s has %d MiB free"
                % (needed >> 20, HOME, free_bytes(HOME) >> 20),
                "free space there: the old data stays, too",
            )

    def _make_parents(self, path: str, source: str) -> None:
        """Make the folders that are missing above a path, as they were."""
        missing = []
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            os.mkdir(folder)
            self._made.append(folder)
            status = os.stat(os.path.join(source, folder.lstrip("/")))
            os.chown(folder, status.st_uid, status.st_gid)
            os.chmod(folder, stat.S_IMODE(status.st_mode))

    def _unprepare(self) -> None:
        if self._swap:
            self._swap.back()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # somebody has put something there
                os.rmdir(folder)

    def _changes(self) -> bool:
        return bool(self._swap and self._swap.changed)

    def _stop(self) -> None:
        if self._changes():
            quiesce.arm(UNIT, START_LIMIT_SECONDS, self._restoration.run)
            _certain(self._swap).begin()
        else:
            self._restoration.say("nothing differs: the node is not restarted")

    def _halt(self) -> None:
        if self._swap:
            self._swap.halt()

    def _unstop(self) -> None:
        """Old files back, and the node as it was: started by `back` if it was running."""
        if self._swap:
            self._swap.back()
        quiesce.disarm(UNIT)

    def _put(self) -> None:
        if not self._changes():
            return
        if unit.is_active(UNIT):
            raise HostError("%s was started by somebody else meanwhile" % UNIT)
        swap = _certain(self._swap)
        swap.put()
        for path in swap.kept():
            self._restoration.keep(path)
        command.run(["systemctl", "daemon-reload"])
        first = min(str(name) for name in self._details["members"])
        if self._messages and len(self._details["members"]) > 1 and self._details["node"] == first:
            # The copies of the nodes were made one after the other, so each knows the others to
            # be newer and would wait for them. This one does not: rabbitmqctl(8), force_boot.
            self._node.control("force_boot")

    def _start(self) -> None:
        if not self._changes() and self._live:
            return
        quiesce.start(UNIT)
        self._node.wait()
        quiesce.disarm(UNIT)

    def _count(self) -> None:
        """Compare the numbers of messages; a queue says its own some seconds after a start."""
        deadline = time.monotonic() + COUNT_SECONDS
        counts, different = self._counted()
        while different and time.monotonic() < deadline:
            time.sleep(1)
            counts, different = self._counted()
        if counts is None:
            self._restoration.warn("how many messages there are is unknown: the node did not say")
            return
        total = sum(count or 0 for count in counts.values())
        self._restoration.say("%d persistent messages in %d queues" % (total, len(counts)))
        if different:
            self._restoration.warn(
                "queues hold other numbers of messages than before the copy, as they do where "
                "clients were at work: " + "; ".join(different[:20])
            )

    def _counted(self) -> Tuple[Optional[Counts], List[str]]:
        """The numbers of messages now, and the queues in which they are not as saved."""
        counts = self._node.counts()
        different = []
        for vhost, queues in self._details["definitions"]["vhosts"].items() if counts else []:
            for queue in queues:
                now = (counts or {}).get((vhost, queue["name"]))
                if queue["durable"] and queue["messages"] not in (None, now):
                    shown = "unknown" if now is None else str(now)
                    different.append(
                        "%s in vhost %s: %d, now %s"
                        % (queue["name"], vhost, queue["messages"], shown)
                    )
        return counts, different

    def _done(self) -> None:
        if self._swap:
            self._swap.done()


def _stage(source: str, path: str, staged: str) -> bool:
    """Move a delivered file or folder into the folder of what is put in place; False if the
    archive has none of that path."""
    saved = os.path.join(source, path.lstrip("/"))
    if not os.path.lexists(saved):
        return False
    target = os.path.join(staged, path.lstrip("/"))
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    os.rename(saved, target)
    return True


def _certain(value: Any) -> Any:
    """A value that an earlier step has made."""
    assert value is not None  # noqa: S101 - steps run in order
    return value

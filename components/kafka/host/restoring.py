"""Restoring a broker: its logs beside the live ones, then in their place, with all other hosts.

The brokers and the ZooKeepers of a cluster go back together: a broker refuses logs of another
cluster id, and ZooKeeper decides which topics there are. A cut log has no mark of a clean
shutdown, so the broker recovers it when it starts.
"""

import os
import time
from typing import Any, Dict, List

from components.kafka.host import broker
from components.kafka.host.freezing import PARTITION
from host import command, java, unit
from host.configuration import Installed, announced, installed, stage
from host.errors import HostError
from host.packing import folder_bytes, free_bytes
from host.service import COMPARE, Delivered, Restoration, Step
from host.swap import Swap

MAPPED_KEYS = (
    *("listeners", "advertised.listeners", "zookeeper.connect"),
    *("host.name", "advertised.host.name"),
)
SETTLE_SECONDS = 60
SETTLE_ATTEMPTS = 3
START_SECONDS = 3600
"""A broker that recovers large logs answers only when it has read them."""


def is_mapped(key: str) -> bool:
    """Whether a property names hosts."""
    return key in MAPPED_KEYS


def steps(restoration: Restoration) -> List[Step]:
    """All steps on this host; raises HostError where it cannot even begin."""
    if restoration.options.get("parts") == ["configuration"]:
        return _Configuration(restoration).steps()
    return _Whole(restoration).steps()


class _Configuration:
    """The configuration of one broker by itself: put in place, restarted, or put back."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._target = installed("Kafka", restoration.details, broker.find)
        self._swap = Swap(restoration.folder, "", [], restoration.run)

    def steps(self) -> List[Step]:
        return [
            Step("compare the configuration with the saved one", self._prepare, self._back),
            Step(
                "put what differs in place; old files stay as *.before-" + self._restoration.run,
                self._put,
                self._back,
            ),
            Step("restart %s if it runs, and wait until it answers" % self._target.unit, self._up),
        ]

    def _prepare(self) -> None:
        staged = os.path.join(self._restoration.folder, "staged")
        paths = stage(self._restoration, self._target, staged, is_mapped)
        self._swap = Swap(self._restoration.folder, staged, paths, self._restoration.run)
        self._swap.prepare()
        self._restoration.say("what differs: " + (", ".join(self._swap.changed) or "nothing"))

    def _put(self) -> None:
        self._swap.put()
        for path in self._swap.kept():
            self._restoration.keep(path)

    def _back(self) -> None:
        self._swap.back()
        if self._target.active and self._swap.changed:
            unit.restart(self._target.unit)

    def _up(self) -> None:
        if self._target.active and self._swap.changed:
            unit.restart(self._target.unit, _answers, START_SECONDS)
        self._swap.done()


class _Whole:
    """Logs and configuration, step by step with the other brokers and the ZooKeepers."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._target = installed("Kafka", restoration.details, broker.find)
        self._log_dirs: List[str] = restoration.details["log_dirs"]
        self._staged = os.path.join(restoration.folder, "staged")
        units = [self._target.unit]
        self._swap = Swap(
            restoration.folder,
            self._staged,
            [],
            restoration.run,
            units,
            started=units if self._target.active else (),
            after=["back: ZooKeeper"],
        )
        for log_dir in self._log_dirs:
            _check_place(log_dir)

    def steps(self) -> List[Step]:
        """Barriers are the same on all brokers and ZooKeepers, in the same order."""
        restoration = self._restoration
        name = self._target.unit
        beside = "put logs and configuration beside the live ones: %s" % ", ".join(self._log_dirs)
        beside += announced(restoration, self._shown())
        return [
            Step("check the saved logs against the manifest", self._check),
            restoration.barrier("checked", "all hosts have checked their data"),
            Step(beside, self._stage, self._swap_back),
            restoration.barrier("staged", "all hosts have their data beside the live one"),
            Step("stop " + name, self._swap.begin, self._swap_back, self._swap.halt),
            restoration.barrier("stopped", "Kafka is stopped on all hosts"),
            Step("put them in place; the old ones stay as *.before-" + restoration.run, self._put),
            restoration.barrier("replaced", "all hosts have the saved data in place"),
            restoration.barrier(
                "zookeeper", "ZooKeeper answers and has forgotten the brokers that were"
            ),
            Step("start %s and wait until it answers" % name, self._start),
            restoration.barrier(
                COMPARE, "topics, offsets and replicas have been compared with the manifest"
            ),
            Step("leave it running on the restored data", self._swap.done),
        ]

    def _shown(self) -> Dict[str, Any]:
        """What a dry run knows of the saved configuration."""
        saved = self._restoration.details
        return {
            "listeners": saved.get("listeners"),
            "advertised.listeners": saved.get("advertised"),
            "zookeeper.connect": saved.get("zookeeper"),
        }

    def _check(self) -> None:
        saved = self._restoration.details
        for number in range(len(self._log_dirs)):
            path = os.path.join(self._state().path, str(number), broker.META)
            if os.path.isfile(path):
                found = java.read_properties(path)
                if found.get("broker.id") != str(saved["broker_id"]):
                    raise HostError(
                        "the saved logs are of broker %s, and the manifest says %s"
                        % (found.get("broker.id"), saved["broker_id"]),
                        "restore another run; epibackup list shows them",
                    )
        sizes: Dict[str, int] = {}
        for member in self._logs():
            for _, name, path in _partitions(member):
                size = sum(
                    os.path.getsize(os.path.join(path, file))
                    for file in os.listdir(path)
                    if file.endswith(".log")
                )
                sizes[name] = sizes.get(name, 0) + size
        for topic, described in saved["topics"].items():
            for number, _, _, size in described["partitions"]:
                name = "%s-%d" % (topic, number)
                if sizes.get(name) != size:
                    raise HostError(
                        "the saved log of %s has %s bytes, and the manifest says %d"
                        % (name, sizes.get(name, "no"), size),
                        "restore another run; epibackup list shows them",
                    )
        self._check_space()

    def _check_space(self) -> None:
        needed = folder_bytes(self._restoration.folder)
        own = os.stat(self._restoration.folder).st_dev
        for log_dir in self._log_dirs:
            parent = _existing(log_dir)
            if os.stat(parent).st_dev != own and free_bytes(parent) < needed:
                raise HostError(
                    "the saved logs may need %d MiB on the disk of %s, which has %d MiB free"
                    % (needed >> 20, log_dir, free_bytes(parent) >> 20),
                    "free space there",
                )

    def _stage(self) -> None:
        paths: List[str] = []
        state = self._state()
        for number, log_dir in enumerate(self._log_dirs):
            place = os.path.join(self._staged, log_dir.lstrip("/"))
            os.makedirs(place)
            files = os.path.join(state.path, str(number))
            for name in os.listdir(files) if os.path.isdir(files) else []:
                os.rename(os.path.join(files, name), os.path.join(place, name))
            for member in self._logs():
                for log_number, name, path in _partitions(member):
                    if log_number == number:
                        os.rename(path, os.path.join(place, name))
            _give(place, self._target)
            if os.path.ismount(log_dir):
                paths += [os.path.join(log_dir, name) for name in sorted(os.listdir(place))]
            else:
                os.chmod(place, os.stat(log_dir).st_mode if os.path.isdir(log_dir) else 0o750)
                paths.append(log_dir)
        paths += stage(self._restoration, self._target, self._staged, is_mapped)
        self._swap.paths = paths
        self._swap.prepare_moved()

    def _put(self) -> None:
        self._swap.put()
        for path in self._swap.kept():
            self._restoration.keep(path)

    def _start(self) -> None:
        def answers() -> bool:
            self._restoration.check_others()
            return _answers()

        unit.restart(self._target.unit, answers, START_SECONDS)

    def _swap_back(self) -> None:
        begun = self._swap.begun
        self._swap.back(self._restoration.others)
        if begun and self._target.active:
            settle(self._target.unit)

    def _state(self) -> Delivered:
        return self._restoration.of_content("state")[0]

    def _logs(self) -> List[Delivered]:
        return self._restoration.of_content("logs")


def settle(name: str) -> None:
    """Wait until a broker that was started answers. ZooKeeper may be put back at the same time,
    and a broker that has not found it ends, or stays without doing anything: it is restarted.

    Raises HostError if it does not answer in the end.
    """
    for _ in range(SETTLE_ATTEMPTS):
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if _answers():
                return
            time.sleep(1)
        command.run(["systemctl", "restart", "--", name], check=False)
    unit.restart(name, _answers)


def _answers() -> bool:
    return broker.answers(broker.find())


def _check_place(log_dir: str) -> None:
    """Where a log directory is a mount point nothing can be put aside: it has to be empty."""
    if not os.path.ismount(log_dir):
        parent = os.path.dirname(log_dir)
        if not os.path.isdir(parent):
            raise HostError(
                "the log directory was %s, and there is no %s on this host" % (log_dir, parent),
                "mount its disk there, or make the folder",
            )
        return
    held = [entry.name for entry in os.scandir(log_dir) if PARTITION.fullmatch(entry.name)]
    if held:
        raise HostError(
            "%s is a mount point and holds %d partitions: they cannot be put aside, because Kafka "
            "reads every folder in there" % (log_dir, len(held)),
            "stop Kafka and move them to another place yourself, then restore again",
        )


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _partitions(member: Delivered) -> List[Any]:
    """(number of the log directory, topic-partition, path) of the folders in a delivered tree."""
    found = []
    for number in sorted(os.listdir(member.path)):
        folder = os.path.join(member.path, number)
        names = sorted(os.listdir(folder)) if number.isdigit() else []
        found += [
            (int(number), name, os.path.join(folder, name))
            for name in names
            if PARTITION.fullmatch(name)
        ]
    return found


def _give(folder: str, target: Installed) -> None:
    os.chown(folder, target.uid, target.gid)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(parent, name), target.uid, target.gid, follow_symlinks=False)

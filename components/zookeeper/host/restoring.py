"""Restoring ZooKeeper: all servers together, all with the same data, and Kafka with them.

Servers with different data would take that of the one they make their leader, which is not
always the newest; so all get that of the host that had seen the most.
"""

import os
import time
from typing import List

from components.zookeeper.host import files, server
from components.zookeeper.host.client import NoNode, ZooKeeperClient
from components.zookeeper.host.server import SERVER, VERSION_FOLDER
from host import unit
from host.configuration import announced, installed, stage
from host.errors import HostError
from host.service import COMPARE, Delivered, Restoration, Step
from host.swap import Swap

START_SECONDS = 300
SETTLE_SECONDS = 60
FORGET_SECONDS = 300
"""How long the sessions of brokers that are gone may last (zookeeper.session.timeout.ms is 18 s in
Kafka; a server allows 20 ticks at most)."""


def is_mapped(key: str) -> bool:
    """Whether a property names hosts."""
    return bool(SERVER.fullmatch(key)) or key == "clientPortAddress"


def steps(restoration: Restoration) -> List[Step]:
    """All steps on this host; raises HostError where it cannot even begin."""
    if restoration.options.get("parts"):
        raise HostError(
            "ZooKeeper is restored as a whole, together with Kafka",
            "leave out --part, or choose a topic of Kafka",
        )
    return _Whole(restoration).steps()


class _Whole:
    """Data, number and configuration of one server, step by step with all the others."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._target = installed("ZooKeeper", restoration.details, server.find)
        self._staged = os.path.join(restoration.folder, "staged")
        units = [self._target.unit]
        self._swap = Swap(
            restoration.folder,
            self._staged,
            [],
            restoration.run,
            units,
            started=units if self._target.active else (),
        )

    def steps(self) -> List[Step]:
        """Barriers are the same as the brokers'."""
        restoration = self._restoration
        name = self._target.unit
        beside = "put data and configuration beside the live ones: %s" % ", ".join(
            sorted({restoration.details["data_dir"], restoration.details["log_dir"]})
        )
        beside += announced(restoration, restoration.details["servers"])
        return [
            Step("check the saved snapshot and transactions", self._check),
            restoration.barrier("checked", "all hosts have checked their data"),
            Step(beside, self._stage, self._back),
            restoration.barrier("staged", "all hosts have their data beside the live one"),
            restoration.barrier("stopped", "Kafka is stopped on all hosts"),
            Step(
                "stop %s and put them in place; the old ones stay as *.before-%s"
                % (name, restoration.run),
                self._put,
                self._back,
                self._swap.halt,
            ),
            restoration.barrier("replaced", "all hosts have the saved data in place"),
            Step(
                "start %s, and wait until it serves and the brokers that were are forgotten" % name,
                self._start,
            ),
            restoration.barrier(
                "zookeeper", "ZooKeeper answers and has forgotten the brokers that were"
            ),
            restoration.barrier(
                COMPARE, "topics, offsets and replicas have been compared with the manifest"
            ),
            Step("leave it running on the restored data", self._swap.done),
        ]

    def _data(self) -> Delivered:
        return self._restoration.of_content("data")[0]

    def _check(self) -> None:
        snapshots = os.path.join(self._data().path, "snapshot")
        newest = files.newest_snapshot(snapshots)
        if newest is None and files.has_snapshots(snapshots):
            raise HostError(
                "the saved snapshot of ZooKeeper's data is damaged",
                "restore another run; epibackup list shows them",
            )
        last = files.zxid_of(newest) if newest else 0
        for path in files.logs_since(os.path.join(self._data().path, "log"), last):
            log = files.read_log(path)
            if log.length != os.path.getsize(path):
                raise HostError(
                    "the saved transaction log %s is damaged" % os.path.basename(path),
                    "restore another run; epibackup list shows them",
                )
            last = max(last, log.last or 0)
        if last != self._data().content["zxid"]:
            raise HostError("the saved transactions end before those that the manifest names")

    def _stage(self) -> None:
        saved = self._restoration.details
        data_dir, log_dir = saved["data_dir"], saved["log_dir"]
        for folder in (data_dir, log_dir):
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o700)
                os.chown(folder, self._target.uid, self._target.gid)
        paths = []
        for kind, folder in (("snapshot", data_dir), ("log", log_dir)):
            source = os.path.join(self._data().path, kind)
            live = os.path.join(folder, VERSION_FOLDER)
            place = os.path.join(self._staged, live.lstrip("/"))
            os.makedirs(place, exist_ok=True)
            for name in os.listdir(source):
                os.rename(os.path.join(source, name), os.path.join(place, name))
            paths.append(live)
        if saved["myid"] is not None:
            path = os.path.join(data_dir, "myid")
            with open(os.path.join(self._staged, path.lstrip("/")), "w") as stream:
                stream.write("%d\n" % saved["myid"])
            paths.append(path)
        for path in set(paths):
            self._give(os.path.join(self._staged, path.lstrip("/")))
        paths += stage(self._restoration, self._target, self._staged, is_mapped)
        self._swap.paths = sorted(set(paths))
        self._swap.prepare_moved()

    def _give(self, place: str) -> None:
        os.chown(place, self._target.uid, self._target.gid)
        if os.path.isdir(place):
            for name in os.listdir(place):
                os.chown(os.path.join(place, name), self._target.uid, self._target.gid)

    def _put(self) -> None:
        self._swap.begin()
        self._swap.put()
        for path in self._swap.kept():
            self._restoration.keep(path)

    def _back(self) -> None:
        begun = self._swap.begun
        self._swap.back(self._restoration.others)
        if begun and self._target.active:
            settle()

    def _start(self) -> None:
        found = server.find()

        def answers() -> bool:
            self._restoration.check_others()
            return server.answers(found)

        unit.restart(self._target.unit, answers, START_SECONDS)
        deadline = time.monotonic() + FORGET_SECONDS
        while True:
            self._restoration.check_others()
            left = self._brokers(found.client_address())
            if not left:
                return
            if time.monotonic() > deadline:
                raise HostError(
                    "ZooKeeper still has the brokers %s: they run, or their sessions last longer "
                    "than %d seconds" % (", ".join(left), FORGET_SECONDS),
                    "stop Kafka on all hosts of the cluster, and restore again",
                )
            time.sleep(0.5)

    def _brokers(self, address: str) -> List[str]:
        try:
            with ZooKeeperClient(address) as client:
                return client.children("/brokers/ids")
        except NoNode:
            return []
        except HostError as error:
            return ["(unknown: %s)" % error.message]


def settle() -> None:
    """Wait until a server that was put back answers, which takes most of the others.

    Raises HostError if it does not.
    """
    found = server.find()
    deadline = time.monotonic() + SETTLE_SECONDS
    while not server.answers(found):
        if time.monotonic() > deadline:
            raise HostError(
                "%s was started again and does not answer: %s"
                % (found.unit, unit.last_log(found.unit or "")),
                "look at the other servers of the ensemble, too",
            )
        time.sleep(0.5)

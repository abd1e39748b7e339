"""Kafka on its host: 2.0 to 3.x with ZooKeeper."""

import gzip
import json
import os
import shutil
import time
from typing import Any, Dict, List, Tuple

from components.kafka.host import broker, freezing, restoring, topics
from components.kafka.host.broker import Broker
from components.kafka.host.segments import UnreadableOffsets
from host import identity, quiesce
from host.errors import HostError
from host.packing import folder_bytes, outermost
from host.service import HostService, Restoration, Step
from host.snapshot import Snapshot
from host.swap import put_aside, remove

STATE = (
    broker.META,
    "recovery-point-offset-checkpoint",
    "replication-offset-checkpoint",
    "log-start-offset-checkpoint",
    "cleaner-offset-checkpoint",
)
"""Files of a log directory that are no partition's. Older than the logs they are harmless: what
they say is done is done."""


class KafkaOnHost(HostService):
    """Logs, checkpoints and configuration of this host's broker."""

    def discover(self) -> Dict[str, Any]:
        """The broker's summary; raises HostError if there is none."""
        found = broker.find()
        return dict(found.summary(), version=found.version)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Freeze the logs, hot or with the broker stopped; then look at what was frozen."""
        found = broker.find()
        for log_dir in found.log_dirs:
            if not os.path.isdir(log_dir):
                raise HostError(
                    "the broker's log directory %s is not there" % log_dir,
                    "mount its disk, or correct log.dirs in " + found.config,
                )
        snapshot.version = found.version
        snapshot.details = dict(found.summary(), host=identity.identity())
        if not found.active:
            snapshot.warn("%s is not running; its logs were saved as they are" % found.unit)
        if snapshot.settings.get("quiesce") == "stop" and found.active:
            with quiesce.stopped(found.unit, snapshot.settings["stop_limit_seconds"], snapshot.run):
                frozen, seconds = self._freeze(found, snapshot)
        else:
            frozen, seconds = self._freeze(found, snapshot)
        snapshot.details["frozen_seconds"] = round(seconds, 3)
        self._describe(found, frozen, snapshot)
        paths = outermost(found.configuration())
        owner = found.owner()
        content = {"part": "configuration", "paths": paths, "owner": [owner.st_uid, owner.st_gid]}
        snapshot.add_paths("configuration", paths, content)

    def _freeze(self, found: Broker, snapshot: Snapshot) -> Tuple[freezing.Frozen, float]:
        started = time.monotonic()
        state = snapshot.path("state")
        for number, log_dir in enumerate(found.log_dirs):
            place = os.path.join(state, str(number))
            os.makedirs(place, mode=0o700)
            for name in STATE:
                path = os.path.join(log_dir, name)
                if os.path.isfile(path):
                    shutil.copy2(path, os.path.join(place, name))
        frozen = freezing.freeze(found.log_dirs, snapshot.folder, snapshot.run)
        return frozen, time.monotonic() - started

    def _describe(self, found: Broker, frozen: freezing.Frozen, snapshot: Snapshot) -> None:
        """Members and details of frozen logs; nothing here touches the broker."""
        for log_dir in frozen.copied:
            snapshot.warn(
                "%s was copied, because its files cannot be linked from beside it: it is a mount "
                "point, or its file system has no hard links" % log_dir
            )
        if frozen.deleted:
            snapshot.warn("deleted while they were saved: " + ", ".join(frozen.deleted))
        state = snapshot.path("state")
        places = [os.path.join(state, str(number)) for number in range(len(found.log_dirs))]
        logs = topics.measured(frozen, places)
        snapshot.add_folder("state", state, folder_bytes(state), {"state": True})
        topics.add_members(logs, snapshot)
        zookeeper = found.properties.get("zookeeper.connect")
        snapshot.details["topics"] = topics.described(logs, zookeeper, snapshot)
        try:
            groups = topics.committed(logs)
        except UnreadableOffsets as error:
            snapshot.details["groups"] = None
            snapshot.warn(
                "the consumer groups are not in the manifest, because %s cannot be read here: %s; "
                "the data has them" % (freezing.FIRST, error)
            )
            return
        snapshot.details["groups"] = {
            group: sorted(offsets) for group, offsets in sorted(groups.items())
        }
        path = snapshot.path("groups.json.gz")
        text = json.dumps(groups).encode()
        with gzip.open(path, "wb") as stream:
            stream.write(text)
        snapshot.add_file(path, len(text), {"groups": True})

    def restore(self, restoration: Restoration) -> List[Step]:
        """Put logs and configuration in place together with all other hosts; see `restoring`."""
        return restoring.steps(restoration)

    def resume(self) -> None:
        """Wait until the broker answers, which needs ZooKeeper on other hosts."""
        restoring.settle(broker.find().unit)

    def release(self, folder: str) -> None:
        """Remove the links beside the log directories."""
        freezing.release(folder)

    def kept(self) -> List[str]:
        """Old logs and configuration files beside the live ones."""
        found = broker.find()
        beside = []
        for log_dir in found.log_dirs:
            beside += put_aside([log_dir]) if os.path.ismount(log_dir) else _named_like(log_dir)
        return sorted({*beside, *put_aside(outermost(found.configuration()))})

    def discard(self, name: str) -> None:
        """Remove an old log directory or configuration file."""
        remove(name)


def _named_like(log_dir: str) -> List[str]:
    """Old directories beside a log directory, which itself is too large to be walked through."""
    parent = os.path.dirname(log_dir)
    prefix = os.path.basename(log_dir) + ".before-"
    return [os.path.join(parent, name) for name in os.listdir(parent) if name.startswith(prefix)]

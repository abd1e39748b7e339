"""ZooKeeper on its host: 3.4 to 3.9."""

import os
import shutil
from typing import Any, Dict, List

from components.zookeeper.host import files, restoring, server
from components.zookeeper.host.server import VERSION_FOLDER, Server
from host import identity
from host.errors import HostError
from host.packing import folder_bytes, outermost
from host.service import HostService, Restoration, Step
from host.snapshot import Snapshot
from host.swap import put_aside, remove

ATTEMPTS = 5


class ZooKeeperOnHost(HostService):
    """The newest whole snapshot and the transactions since, and the configuration."""

    def discover(self) -> Dict[str, Any]:
        """The server's summary; raises HostError if there is none."""
        found = server.find()
        return dict(found.summary(), version=found.version)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Copy them while the server goes on: its snapshots are made to be replayed with logs."""
        found = server.find()
        snapshot.version = found.version
        snapshot.details = dict(found.summary(), host=identity.identity())
        if not found.active:
            snapshot.warn("%s is not running; its data was saved as it is" % found.unit)
        elif not server.answers(found):
            snapshot.warn(
                "%s does not serve, because it is in no ensemble with a leader; its data may be "
                "older than that of the others" % found.unit
            )
        snapshot.details["zxid"] = self._save(found, snapshot)
        paths = outermost(found.configuration())
        owner = os.stat(found.data_dir)
        content = {"part": "configuration", "paths": paths, "owner": [owner.st_uid, owner.st_gid]}
        snapshot.add_paths("configuration", paths, content)

    def _save(self, found: Server, snapshot: Snapshot) -> int:
        """Save snapshot, logs and epochs; returns the last transaction id."""
        folder = snapshot.path("data")
        for _ in range(ATTEMPTS):
            try:
                last = copy_data(found, folder)
                break
            except FileNotFoundError:  # purged while it was copied
                shutil.rmtree(folder)
        else:
            raise HostError(
                "snapshots and logs were purged faster than they could be copied",
                "run again; see autopurge.purgeInterval in " + found.config,
            )
        size = folder_bytes(folder)
        snapshot.add_folder("data", folder, size, {"data": True, "zxid": last})
        return last

    def restore(self, restoration: Restoration) -> List[Step]:
        """Put data and configuration in place together with all other hosts."""
        return restoring.steps(restoration)

    def resume(self) -> None:
        """Wait until the server answers, which needs the others."""
        restoring.settle()

    def kept(self) -> List[str]:
        """Old data and configuration files beside the live ones."""
        found = server.find()
        places = [
            os.path.join(found.data_dir, VERSION_FOLDER),
            os.path.join(found.data_dir, "myid"),
        ]
        places.append(os.path.join(found.log_dir, VERSION_FOLDER))
        return put_aside([*places, *outermost(found.configuration())])

    def discard(self, name: str) -> None:
        """Remove an old folder or file."""
        remove(name)


def copy_data(found: Server, folder: str) -> int:
    """Copy the newest whole snapshot, all transactions from before it on, and the epochs to
    `folder`/snapshot and `folder`/log; returns the last transaction id.

    A young server of 3.4 has no snapshot yet: its transactions from the first on are all.
    Raises FileNotFoundError if a file was purged meanwhile, HostError if no snapshot is whole.
    """
    snapshots = os.path.join(folder, "snapshot")
    logs = os.path.join(folder, "log")
    os.makedirs(snapshots, mode=0o700)
    os.mkdir(logs, 0o700)
    data = os.path.join(found.data_dir, VERSION_FOLDER)
    newest = files.newest_snapshot(data)
    if newest is None and files.has_snapshots(data):
        raise HostError(
            "%s has no whole snapshot of ZooKeeper's data" % data,
            "look at the server's log; a restart has it make one",
        )
    last = 0
    if newest:
        last = files.zxid_of(newest)
        shutil.copy2(newest, snapshots)
    for name in files.EPOCHS:
        path = os.path.join(data, name)
        if os.path.exists(path):
            shutil.copy2(path, snapshots)
    for path in files.logs_since(os.path.join(found.log_dir, VERSION_FOLDER), last):
        log = files.read_log(path)
        copy = os.path.join(logs, os.path.basename(path))
        with open(path, "rb") as source, open(copy, "wb") as target:
            _copy(source, target, log.length)
        shutil.copystat(path, copy)
        last = max(last, log.last or 0)
    return last


def _copy(source: Any, target: Any, length: int) -> None:
    while length:
        chunk = source.read(min(length, 1 << 20))
        target.write(chunk)
        length -= len(chunk)

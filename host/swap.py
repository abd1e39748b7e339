"""Putting restored files in the place of live ones by renaming, with a way back.

The live file or folder becomes `<path>.before-<run>` and stays until it is removed on request.
A journal tells a later restore what a killed one had done.
"""

import filecmp
import glob
import os
import re
import shutil
from typing import List, Sequence, Set

from host import command, unit
from host.errors import HostError
from host.meeting import Others
from host.store import read_json, write_json

JOURNAL = "swap.json"
START_ATTEMPTS = 4
ALONE = Others()
BEFORE = re.compile(r"\.before-\d{8}T\d{6}Z$")


class Swap:
    """Replaces live paths by staged ones where they differ.

    folder: the restore's own folder, where the journal is kept.
    staged: the folder that holds the new files, each at its live path without the first slash.
    paths: the live paths to replace: files or whole folders, none inside another.
    units: what `begin` stops. started: those of them that were running: started again by `back`,
        and by `recover` after a kill. after: where to meet other hosts, on the way back, before
        that (`host.meeting`).
    changed: those that differ, once `prepare` has compared them.
    placed: whether `put` was called.
    """

    def __init__(
        self,
        folder: str,
        staged: str,
        paths: List[str],
        run: str,
        units: Sequence[str] = (),
        started: Sequence[str] = (),
        after: Sequence[str] = (),
    ) -> None:
        self._journal = os.path.join(folder, JOURNAL)
        self._staged = staged
        self.paths = paths
        self._run = run
        self._units = list(units)
        self._started = list(started)
        self._after = list(after)
        self.changed: List[str] = []
        self.placed = False

    def before(self, path: str) -> str:
        """The name the live file or folder gets."""
        return "%s.before-%s" % (path, self._run)

    def kept(self) -> List[str]:
        """The old files and folders that `put` has left."""
        names = [self.before(path) for path in self.changed]
        return [name for name in names if os.path.lexists(name)]

    def prepare(self) -> None:
        """Find what differs and copy the new files beside the live ones, on their file systems.

        Raises HostError if a file of an earlier restore of the same run is in the way, or if
        there is no space; nothing live is touched.
        """
        self._choose([path for path in self.paths if not same(path, self._source(path))])
        for path in self.changed:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            remove(self._new(path))
            command.run(["cp", "-a", "--", self._source(path), self._new(path)])

    def prepare_moved(self) -> None:
        """As `prepare`, for much data: it is not compared, and moved instead of copied where it
        is on the same file system already."""
        self._choose([path for path in self.paths if os.path.lexists(self._source(path))])
        for path in self.changed:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            remove(self._new(path))
            command.run(["mv", "-T", "--", self._source(path), self._new(path)])

    def _choose(self, changed: List[str]) -> None:
        for path in changed:
            if os.path.lexists(self.before(path)):
                raise HostError(
                    "%s is there already: this run was restored before" % self.before(path),
                    "remove it with epibackup clean --discard if it is no longer needed",
                )
        self.changed = changed

    @property
    def begun(self) -> bool:
        """Whether live files may have been replaced, or units stopped."""
        return os.path.exists(self._journal)

    def begin(self) -> None:
        """Stop the units, last first. From here on a kill is noticed, and they come back."""
        self._write_journal()
        for name in reversed(self._units):
            if name in self._started:
                unit.stop(name)
            else:  # it may not be there, or systemd may just be trying to start it
                command.run(["systemctl", "stop", "--", name], check=False)

    def halt(self) -> None:
        """Stop the units again, if `begin` was called. Those that may run on the new files are
        killed: the files go, and a broker without ZooKeeper would take minutes to stop."""
        for name in reversed(self._units) if self.begun else []:
            if self.placed:
                unit.kill(name)
            else:
                command.run(["systemctl", "stop", "--", name], check=False)

    def _write_journal(self) -> None:
        journal = {
            "paths": self.changed,
            "run": self._run,
            "units": self._units,
            "started": self._started,
            "after": self._after,
            "placed": self.placed,
        }
        write_json(self._journal, journal)

    def put(self) -> None:
        """Rename the live files away and the new ones into their place."""
        self.placed = True
        self._write_journal()
        for path in self.changed:
            if os.path.lexists(path):
                os.rename(path, self.before(path))
            os.rename(self._new(path), path)
            if command.find("restorecon"):
                command.run(["restorecon", "-R", path], check=False)

    def back(self, others: Others = ALONE) -> None:
        """Put the old files back where `put` had renamed them; removes what is new, and starts
        the units if `begin` had stopped them.

        Can be called at any time, and again.
        """
        begun = self.begun
        self.halt()
        for path in reversed(self.changed):
            if os.path.lexists(self.before(path)):
                remove(path)
                os.rename(self.before(path), path)
            elif os.path.exists(self._journal) and not os.path.lexists(self._new(path)):
                remove(path)  # `put` has made it where nothing had been
            remove(self._new(path))
        if begun:
            for key in self._after:
                others.meet_back(key)
            for name in self._started:
                _insist(name)
            os.unlink(self._journal)

    def done(self) -> None:
        """The new files are good: from here on a kill leaves them in place."""
        if os.path.exists(self._journal):
            os.unlink(self._journal)

    def _source(self, path: str) -> str:
        return os.path.join(self._staged, path.lstrip("/"))

    def _new(self, path: str) -> str:
        return "%s.new-%s" % (path, self._run)


def _insist(name: str) -> None:
    """Start a unit, which may have to wait for another host that is being put back as well."""
    for attempt in range(START_ATTEMPTS):
        try:
            unit.restart(name)
            return
        except HostError:
            if attempt == START_ATTEMPTS - 1:
                raise


def unfinished(folder: str) -> List[str]:
    """The live paths that a restore was swapping when it was killed; empty if it was not."""
    try:
        return list(read_json(os.path.join(folder, JOURNAL))["paths"])
    except FileNotFoundError:
        return []


def of_journal(folder: str) -> Swap:
    """The swap of a restore that was killed in it: `halt` and `back` are what can be done."""
    journal = read_json(os.path.join(folder, JOURNAL))
    names = [journal.get(key, []) for key in ("units", "started", "after")]
    swap = Swap(folder, folder, [], journal["run"], *names)
    swap.changed = list(journal["paths"])
    swap.placed = bool(journal.get("placed", True))
    return swap


def recover(folder: str) -> List[str]:
    """Undo the swap of a restore that was killed in it, and start what it had stopped; returns
    the paths that are back."""
    swap = of_journal(folder)
    swap.back()
    return swap.changed


def put_aside(paths: List[str]) -> List[str]:
    """What restores have renamed away from live paths, or from what is below them."""
    found: Set[str] = set()
    for path in paths:
        found.update(name for name in glob.glob(glob.escape(path) + ".before-*"))
        for parent, folders, files in os.walk(path):
            found.update(os.path.join(parent, name) for name in folders + files)
    return sorted(path for path in found if BEFORE.search(path))


def remove(path: str) -> None:
    """Remove a file, a link or a whole folder; nothing if it is not there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def same(live: str, saved: str) -> bool:
    """Whether two files, or two folders with all below them, hold the same."""
    if os.path.islink(live) or os.path.islink(saved):
        both = os.path.islink(live) and os.path.islink(saved)
        return both and os.readlink(live) == os.readlink(saved)
    if os.path.isdir(live) and os.path.isdir(saved):
        names = sorted(os.listdir(live))
        return names == sorted(os.listdir(saved)) and all(
            same(os.path.join(live, name), os.path.join(saved, name)) for name in names
        )
    if not (os.path.isfile(live) and os.path.isfile(saved)):
        return False
    return filecmp.cmp(live, saved, shallow=False)

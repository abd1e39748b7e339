"""What every service's `host.py` provides."""

import abc
import importlib
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from host.errors import HostError
from host.meeting import HALTED, Others
from host.snapshot import Snapshot

COMPARE = "compare"
"""The barrier at which the controller compares what was restored with the manifest."""


GIVEN_UP = "given up, because another host could not go on"


def nothing() -> None:
    """The undo of a step that changes nothing that has to be put back."""


class Step(NamedTuple):
    """One step of a restore.

    text: what it does, for the user; all that a dry run shows.
    do: does it; raises HostError if it can't.
    undo: puts back whatever `do` changed, also when `do` failed half-way.
    halt: stops what may be running on new data; called before anything is put back, on this host
        or on others that are restored together with it.
    """

    text: str
    do: Callable[[], None]
    undo: Callable[[], None] = nothing
    halt: Callable[[], None] = nothing


class Delivered:
    """A member of an archive, as a restore finds it on the host.

    name: the member's name in the archive, without its service and host.
    kind: file or tree.
    path: the file, decompressed, or the folder, unpacked; in a dry run nothing is there.
    content: what the snapshot said about it.
    """

    def __init__(self, name: str, kind: str, path: str, content: Dict[str, Any]) -> None:
        self.name = name
        self.kind = kind
        self.path = path
        self.content = content

    def live_paths(self) -> List[str]:
        """Where the files and links of a tree of configuration were on the saved host, sorted."""
        found = []
        for parent, folders, files in os.walk(self.path):
            links = [folder for folder in folders if os.path.islink(os.path.join(parent, folder))]
            live = os.path.normpath(os.path.join("/", os.path.relpath(parent, self.path)))
            found += [os.path.join(live, name) for name in files + links]
        return sorted(found)


class Restoration:
    """What a restore is asked to do, and what it reports.

    run: the run that is restored; old data stays as `*.before-<run>`.
    folder: the folder of the delivery, on this host, root only.
    members: what is delivered.
    details: what the snapshot said about the service (`Snapshot.details`).
    options: chosen by the user: `parts` (names, empty for all), `rename` (old name to new);
        `mapped`, whether this is another host than the saved one; `host_map`, a list of
        {"old": …, "new": …} with `name`, `address` and what `host.identity` says, for each host
        of the service; there where hosts are restored together, or onto others.
    others: the hosts that are restored together with this one.
    """

    def __init__(
        self,
        run: str,
        folder: str,
        members: List[Delivered],
        details: Dict[str, Any],
        options: Dict[str, Any],
        say: Callable[[str], None],
        others: Others,
    ) -> None:
        self.run = run
        self.folder = folder
        self.members = members
        self.details = details
        self.options = options
        self.warnings: List[str] = []
        self.kept: List[str] = []
        self.say = say
        self.others = others

    def barrier(self, key: str, text: str) -> Step:
        """A step that waits until all hosts of the restore have come to the same point.

        All have the same barriers in the same order. When one host fails, none gets past the
        next barrier: all undo their steps. At the barrier `COMPARE` the controller looks at the
        restored cluster.
        """

        def wait() -> None:
            if not self.others.meet(key):
                raise HostError(GIVEN_UP)

        return Step("wait until " + text, wait)

    def check_others(self) -> None:
        """Raise HostError if another host could not go on; for steps that wait for long."""
        if self.others.gave_up():
            raise HostError(GIVEN_UP)

    def warn(self, text: str) -> None:
        """Something a person should look at, though the restore goes on."""
        self.warnings.append(text)
        self.say("warning: " + text)

    def keep(self, what: str) -> None:
        """Old data that was put aside and not removed."""
        self.kept.append(what)

    def of_content(self, key: str) -> List[Delivered]:
        """The delivered members whose content has that key."""
        return [member for member in self.members if key in member.content]


class HostService(abc.ABC):
    """One kind of service on this host. Subclasses live in `components/<name>/host.py`.

    All methods raise HostError for what a person has to know; any other exception is reported
    as a fault of the agent. All run as root, one at a time for a service and host.
    """

    @abc.abstractmethod
    def discover(self) -> Dict[str, Any]:
        """Versions, paths and role, as the live service tells them.

        Raises HostError if the service is not found on this host.
        """

    @abc.abstractmethod
    def snapshot(self, snapshot: Snapshot) -> None:
        """Put aside what no longer changes, fill in `snapshot`, and free the service."""

    @abc.abstractmethod
    def restore(self, restoration: Restoration) -> List[Step]:
        """The steps that bring the delivered members back, in order.

        Looks at the host, but changes nothing: the agent runs the steps, or shows them.
        """

    def resume(self) -> None:  # noqa: B027 - most services need no more than to be started
        """Make sure that the service works again, after its files were put back and its units
        started; called after a restore that failed or was killed. Raises HostError if it does not.
        """

    def kept(self) -> List[str]:
        """Old data that restores have put aside, by names that `discard` takes."""
        return []

    def discard(self, name: str) -> None:
        """Remove old data that `kept` lists; raises HostError if it can't."""
        raise HostError("%s is not known here" % name)

    def release(self, folder: str) -> None:  # noqa: B027 - most services leave nothing
        """Remove what `snapshot` left outside its folder, which is still there; called after
        failures too."""


def run_steps(steps: List[Step], say: Callable[[str], None], others: Others) -> None:
    """Run steps in order; when one fails, undo it and those before it, last first, and raise.

    Nothing is undone before all hosts have stopped what runs on new data. An undo that fails is
    told and does not keep the others from running.
    """
    begun: List[Step] = []
    try:
        for step in steps:
            say(step.text)
            begun.append(step)
            step.do()
    except BaseException:
        _each(begun, "halt", "stopping what was begun: ", say)
        others.meet_back(HALTED)
        _each(begun, "undo", "undoing: ", say)
        raise


def _each(begun: List[Step], what: str, text: str, say: Callable[[str], None]) -> None:
    for step in reversed(begun):
        action = getattr(step, what)
        if action is nothing:
            continue
        say(text + step.text)
        try:
            action()
        except Exception as error:
            say("that failed: %s" % error)


def service_class(name: str) -> Optional[Callable[[], HostService]]:
    """The HostService of `components/<name>/host.py`; None if there is no such service."""
    try:
        module = importlib.import_module("components.%s.host" % name)
    except ImportError:
        return None
    for candidate in vars(module).values():
        if isinstance(candidate, type) and HostService in candidate.__mro__[1:]:
            return candidate
    return None


def service_of(name: str) -> HostService:
    """The service of that name; raises HostError if this agent has none."""
    found = service_class(name)
    if found is None:
        raise HostError("this agent knows no service %s" % name)
    return found()

"""Hosts whose restored data belongs together: all go ahead together, or all go back together.

The hosts' side, and why they meet on the way back, is in `host.meeting`.
"""

import threading
from collections.abc import Callable

from components.errors import EpibackupError
from host.service import COMPARE


class Together:
    """A restore of several hosts, or services of a host, as one.

    participants: how many.
    goes_back: whether all have been sent back.
    compare: called when all have come to the barrier `COMPARE`; raises EpibackupError if what was
        restored is not what was saved.
    """

    def __init__(self, participants: int, compare: Callable[[], None]) -> None:
        self.participants = [Participant(self) for _ in range(participants)]
        self._compare = compare
        self._ahead = threading.Barrier(participants, self._all_are_here)
        self._keys: set[str] = set()
        self._changed = threading.Condition()
        self.goes_back = False
        self._failure: BaseException | None = None
        self._culprit: Participant | None = None
        self._present = participants
        self._waiting = 0
        self._rounds = 0

    def failure(self) -> BaseException | None:
        """What went wrong first; None if all is well. Known once all participants have ended."""
        return self._failure or (self._culprit.error if self._culprit else None)

    def wait_ahead(self, key: str) -> bool:
        """Wait at a barrier until all are there; returns whether to go on."""
        with self._changed:
            self._keys.add(key)
        try:
            self._ahead.wait()
        except threading.BrokenBarrierError:
            return False
        except BaseException as error:  # of `_all_are_here`
            self.go_back(None, error)
            return False
        return True

    def _all_are_here(self) -> None:
        with self._changed:
            keys, self._keys = self._keys, set()
        if len(keys) > 1:
            raise EpibackupError(f"hosts wait at different barriers: {', '.join(sorted(keys))}")
        if keys == {COMPARE}:
            self._compare()

    def go_back(self, culprit: "Participant | None", failure: BaseException | None) -> None:
        """Send all back, because a participant cannot go on or something else has failed."""
        with self._changed:
            if self.goes_back:
                return
            self.goes_back = True
            self._culprit, self._failure = culprit, failure
        self._ahead.abort()
        for participant in self.participants:
            participant.send_back()

    def wait_back(self) -> None:
        """Wait, on the way back, until all participants who have not ended wait."""
        with self._changed:
            mine = self._rounds
            self._waiting += 1
            self._next_round_if_all_wait()
            self._changed.wait_for(lambda: self._rounds > mine)

    def leave(self) -> None:
        """One participant has ended."""
        with self._changed:
            self._present -= 1
            self._next_round_if_all_wait()

    def _next_round_if_all_wait(self) -> None:
        if self._waiting and self._waiting >= self._present:
            self._waiting = 0
            self._rounds += 1
            self._changed.notify_all()


class Participant:
    """One host's restore of one service.

    error: how it ended, if not well.
    """

    def __init__(self, group: Together) -> None:
        self.error: BaseException | None = None
        self._group = group
        self._tell: Callable[[], None] | None = None

    def began(self, tell: Callable[[], None]) -> None:
        """The host is at work; `tell` tells it to go back."""
        self._tell = tell
        if self._group.goes_back:
            tell()

    def send_back(self) -> None:
        """Tell the host to go back, if it is at work."""
        if self._tell:
            self._tell()

    def meet(self, key: str) -> bool:
        """The host waits at a barrier; returns whether it may go on."""
        return self._group.wait_ahead(key)

    def meet_back(self) -> None:
        """The host is on its way back, and waits for the others to come as far."""
        self._group.go_back(self, None)
        self._group.wait_back()

    def ended(self, error: BaseException | None) -> None:
        """The host has ended, or it cannot be reached any more."""
        self._tell = None
        self.error = error
        if error:
            self._group.go_back(self, None)
        self._group.leave()

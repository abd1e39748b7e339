"""Hosts that are restored together meet each other, through the controller.

Ahead, a host waits at barriers until all have come there. When one fails, all go back: each stops
what it has started and waits for the others to have done so, before any puts its old data back;
servers with old and with new data would mix them. The controller's words come on standard input,
a line each: `go KEY`, or `back`.
"""

import json
import os
import queue
import sys
import threading
import time

HALTED = "back: stopped"
"""Where hosts meet on the way back once they have stopped what they had started."""

LOST_SECONDS = 30
"""How long a host that has lost the controller gives the others to stop: they lose it too."""


class Others:
    """The other hosts; this one has none: no barrier holds a host that is restored by itself."""

    def meet(self, key: str) -> bool:  # noqa: ARG002
        """Wait at a barrier until all are there; returns whether to go on."""
        return True

    def meet_back(self, key: str) -> None:
        """Wait, on the way back, until all who are not back yet wait too."""

    def gave_up(self) -> bool:
        """Whether another host could not go on, or the controller is gone."""
        return False


class Together(Others):
    """Other hosts that are restored at the same time, as the controller tells of them."""

    def __init__(self) -> None:
        self._words = queue.Queue()  # type: queue.Queue[str]
        self._gave_up = threading.Event()
        self._waited = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        # Unbuffered: at the end of the process nobody may wait for the lock of sys.stdin.
        with open(os.dup(sys.stdin.fileno()), "rb", buffering=0) as lines:
            for line in lines:
                word = line.decode("utf-8", "replace").rstrip("\n")
                if word == "back":
                    self._gave_up.set()
                self._words.put(word)
        self._gave_up.set()
        self._words.put("")

    def _next(self) -> str:
        word = self._words.get()
        if not word:
            self._words.put(word)  # the end stays the end
        return word

    def meet(self, key: str) -> bool:
        """Wait at a barrier until all are there; returns whether to go on."""
        _tell(key, False)
        while True:
            word = self._next()
            if word == "go " + key:
                return True
            if word in ("back", ""):
                return False

    def meet_back(self, key: str) -> None:
        """Wait, on the way back, until all who are not back yet wait too; without the controller
        for the time they need."""
        _tell(key, True)
        while True:
            word = self._next()
            if word == "go " + key:
                return
            if not word:
                if not self._waited:
                    self._waited = True
                    time.sleep(LOST_SECONDS)
                return

    def gave_up(self) -> bool:
        """Whether another host could not go on, or the controller is gone."""
        return self._gave_up.is_set()


def _tell(key: str, back: bool) -> None:
    try:
        sys.stdout.write(json.dumps({"barrier": key, "back": back}) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # the controller is gone, as the end of its words will say

"""Child processes that do not outlive this one, however it ends."""

import functools
import shutil
import signal
import subprocess


def dying_with_parent(number: signal.Signals) -> list[str]:
    """What is put in front of a command line so that the child gets a signal when we die.

    Only for children of the main thread: the kernel's parent is the thread that made them
    (prctl(2), PR_SET_PDEATHSIG). Done by setpriv, because code between fork and exec is not safe
    beside gRPC's threads. Empty where setpriv cannot do it (before util-linux 2.33, not Linux):
    there a killed run's children end only when they notice.
    """
    return ["setpriv", f"--pdeathsig={number.name}", "--"] if _has_setpriv() else []


@functools.cache
def _has_setpriv() -> bool:
    if not shutil.which("setpriv"):
        return False
    shown = subprocess.run(["setpriv", "--help"], capture_output=True, text=True, check=False)
    return "--pdeathsig" in shown.stdout

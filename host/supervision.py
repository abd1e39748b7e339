"""Working in a process of its own that is answered for, whatever becomes of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from typing import IO, Any, Callable, Dict, List

from host import meeting, swap
from host.errors import HostError
from host.service import service_of
from host.snapshot import FORMAT


def answer_failure(work: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    """Do the work; a failure becomes an answer with status failed."""
    try:
        return work()
    except HostError as error:
        failure = error.as_json()
    except Exception as error:
        sys.stderr.write(traceback.format_exc()[-4000:])
        failure = {"message": "the agent failed: %r" % error, "hint": ""}
    return {
        "format": FORMAT, "status": "failed", "error": failure,
        "version": None, "warnings": [], "details": {}, "members": [],
        "steps": [], "kept": [],
    }  # fmt: skip


def supervise(argv: List[str], timeout_seconds: int, folder: str) -> Dict[str, Any]:
    """Run the agent once more as a worker and answer for it, whatever becomes of it.

    A worker that is killed (the kernel's out-of-memory killer, an operator) or takes longer
    than `timeout_seconds` is a failed service, not a failed run; what a restore was swapping
    is put back from the journal in its `folder`.
    """
    worker = subprocess.Popen(
        [sys.executable, sys.argv[0], "--worker", *argv],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    answers: List[bytes] = []
    met = threading.Event()
    arguments = (worker.stdout, answers, met)
    reader = threading.Thread(target=pass_on_barriers, args=arguments, daemon=True)
    reader.start()

    def end(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    try:
        worker.wait(timeout=timeout_seconds)
        reader.join(timeout=30)
        reason = "the agent's worker ended with code %d" % worker.returncode
        with contextlib.suppress(ValueError):
            answer = json.loads(b"".join(answers).decode("ascii"))
            if isinstance(answer, dict):
                return answer
    except subprocess.TimeoutExpired:
        end()
        try:
            worker.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        reason = "it took longer than %d seconds and was ended" % timeout_seconds

    def fail() -> Dict[str, Any]:
        others = meeting.Together() if met.is_set() else meeting.Others()
        raise HostError(reason + recovered(folder, others))

    return answer_failure(fail)


def recovered(folder: str, others: meeting.Others) -> str:
    """Put back what a restore was swapping when its worker was killed, and say so."""
    begun = swap.of_journal(folder) if swap.unfinished(folder) else None
    if begun:
        begun.halt()
    others.meet_back(meeting.HALTED)
    if not begun:
        return ""
    begun.back(others)
    service_of(os.path.basename(folder)).resume()
    return "; what it had replaced is back: " + ", ".join(begun.changed)


def pass_on_barriers(output: IO[bytes], answers: List[bytes], met: threading.Event) -> None:
    """Read a worker's output: barriers go to the controller at once, the rest into `answers`."""
    for line in iter(output.readline, b""):
        if line.startswith(b'{"barrier": '):
            met.set()
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        else:
            answers.append(line)

"""Talking to the agent on hosts for what is not part of a run: restores and cleaning up.

It needs no Pulumi engine, on purpose: a restore has to work on a machine that has only this
program, an archive and the way to the hosts.
"""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from components.errors import EpibackupError, VerificationFailed
from components.host_agent import (
    INSTALL,
    UPLOAD_FOLDER,
    agent_archive,
    agent_command,
    agent_hash,
    agent_name,
    install_command,
)
from components.ssh import SshClients
from program.together import Participant

Say = Callable[[str], None]


class AgentOnHost:
    """The agent on one host."""

    def __init__(self, clients: SshClients, host: str, host_directory: str) -> None:
        self._clients = clients
        self._host = host
        self._directory = host_directory

    def install(self) -> None:
        """Bring the agent there, as a run's HostAgent does; raises EpibackupError."""
        upload = f"{UPLOAD_FOLDER}/{agent_name(agent_hash())}"
        self._check(["install", "-d", "-m", "0700", UPLOAD_FOLDER])
        self._check(["tee", "--", upload], agent_archive())
        self._check(install_command(self._directory, agent_hash(), upload), INSTALL)

    def call(
        self,
        action: Sequence[str],
        request: dict[str, Any] | None,
        say: Say,
        participant: Participant | None = None,
    ) -> dict[str, Any]:
        """Have the agent do something; its progress is told line by line.

        participant: its place among others that are restored together.
        Raises EpibackupError with what it said if it failed.
        """
        command = [*agent_command(self._directory, agent_hash()), *action]
        with subprocess.Popen(
            self._clients.argv(self._host, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            if process.stdin is None or process.stdout is None or process.stderr is None:
                raise RuntimeError("the pipes are missing")
            process.stdin.write(json.dumps(request or {}).encode() + b"\n")
            process.stdin.flush()
            if participant is None:
                process.stdin.close()
            with ThreadPoolExecutor(1) as pool:
                progress = pool.submit(self._tell, process.stderr, say)
                if participant is None:
                    output = process.stdout.read()
                else:
                    output = _answer_of(participant, process.stdout, process.stdin)
                last = progress.result()
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError:
            raise EpibackupError(f"the agent on {self._host} gave no answer: {last}") from None
        if answer.get("error"):
            error = answer["error"]
            raise EpibackupError(f"{self._host}: {error['message']}", error["hint"])
        return answer

    def _tell(self, errors: IO[bytes], say: Say) -> str:
        """Pass progress on; returns the last line."""
        last = ""
        for line in errors:
            last = line.decode(errors="replace").rstrip()
            say(f"{self._host}: {last}")
        return last

    def deliver(self, action: Sequence[str], chunks: Iterable[bytes]) -> None:
        """Send a member; raises EpibackupError if the host refuses it, and whatever `chunks`
        raises: then the host has been told nothing that looks whole."""
        command = [*agent_command(self._directory, agent_hash()), *action]
        with subprocess.Popen(
            self._clients.argv(self._host, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            if process.stdin is None or process.stderr is None:
                raise RuntimeError("the pipes are missing")
            try:
                _send(chunks, process.stdin)
            except VerificationFailed:
                process.kill()
                raise
            said = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise EpibackupError(f"{self._host} could not take the data: {said[-500:]}")

    def _check(self, command: Sequence[str], stdin: str | bytes | None = None) -> None:
        done = self._clients.run(self._host, command, stdin)
        if done.code != 0:
            raise EpibackupError(
                f"the agent could not be installed on {self._host}: {done.stderr.strip()[-500:]}"
            )


def _answer_of(participant: Participant, output: IO[bytes], stdin: IO[bytes]) -> bytes:
    """An agent's answer, after it has met the others on the way (`host.meeting`)."""
    lock = threading.Lock()

    def tell(word: str) -> None:
        with lock, contextlib.suppress(OSError, ValueError):  # it has ended, and says no more
            stdin.write(word.encode() + b"\n")
            stdin.flush()

    participant.began(lambda: tell("back"))
    answer = b""
    for line in output:
        if not line.startswith(b'{"barrier": '):
            answer += line
            continue
        met = json.loads(line)
        if met["back"]:
            participant.meet_back()
            tell(f"go {met['barrier']}")
        elif participant.meet(met["barrier"]):
            tell(f"go {met['barrier']}")
    return answer


def _send(chunks: Iterable[bytes], stdin: IO[bytes]) -> None:
    try:
        for chunk in chunks:
            stdin.write(chunk)
        stdin.close()
    except BrokenPipeError:
        return  # the host has ended early; its exit code and message say why

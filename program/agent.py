"""Talking to the agent on hosts for what is not part of a run: restores and cleaning up.

It needs no Pulumi engine, on purpose: a restore has to work on a machine that has only this
program, an archive and the way to the hosts.
"""

import contextlib
import json
import subprocess
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

Say = Callable[[str], None]

Meet = Callable[[str], bool]
"""Waits at a barrier of a restore (`host.service.Restoration.barrier`), by its key; returns
whether the host may go on."""


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
        meet: Meet | None = None,
    ) -> dict[str, Any]:
        """Have the agent do something; its progress is told line by line.

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
            if meet is None:
                process.stdin.close()
            with ThreadPoolExecutor(1) as pool:
                progress = pool.submit(self._tell, process.stderr, say)
                output = _answer(process.stdout, process.stdin, meet)
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


def _answer(output: IO[bytes], stdin: IO[bytes], meet: Meet | None) -> bytes:
    """An agent's answer; at barriers on the way it is told whether to go on."""
    answer = b""
    for line in output:
        if meet is None or not line.startswith(b'{"barrier": '):
            answer += line
        elif meet(json.loads(line)["barrier"]):
            with contextlib.suppress(BrokenPipeError):  # it has died, and says nothing more
                stdin.write(b"go\n")
                stdin.flush()
        else:
            stdin.close()
    return answer


def _send(chunks: Iterable[bytes], stdin: IO[bytes]) -> None:
    try:
        for chunk in chunks:
            stdin.write(chunk)
        stdin.close()
    except BrokenPipeError:
        return  # the host has ended early; its exit code and message say why

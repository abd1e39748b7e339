"""Lending Pulumi the ssh keys without giving them away.

A key in a Command's connection would be in the stack's state, encrypted, for ever and in every
copy of it. So an ssh-agent holds it while the run lasts, and the state has only the agent's
socket.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.errors import EpibackupError, UsageError
from components.ssh import private_folder
from program.project import stack_identity

KEY_LIFE_SECONDS = 48 * 3600
"""Longer than any run; after it the agent forgets the keys, should it outlive us."""


def socket_path(stack: str) -> Path:
    """The agent's socket for a stack; the same in every run, so that it makes no difference."""
    return private_folder() / f"{stack_identity(stack)}.agent"


@contextlib.contextmanager
def lend_keys(stack: str, key_files: Iterable[str]) -> Iterator[None]:
    """Run an ssh-agent with the keys at `socket_path(stack)` while the context lasts.

    Raises UsageError for a key it cannot load, such as one with a passphrase.
    """
    files = sorted(set(key_files))
    if not files:
        yield
        return
    path = socket_path(stack)
    path.unlink(missing_ok=True)
    # An agent that runs a command ends when the command has ended (ssh-agent(1)), and this one
    # ends with its standard input, so with us. PR_SET_PDEATHSIG does not do: ssh-agent is setgid.
    command = ["sh", "-c", 'echo "$SSH_AGENT_PID"; exec cat']
    with subprocess.Popen(
        ["ssh-agent", "-a", str(path), "-t", str(KEY_LIFE_SECONDS), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as waiting:
        agent = waiting.stdout.readline().strip() if waiting.stdout else ""
        if not agent.isdigit():
            raise EpibackupError("ssh-agent did not start", "install the OpenSSH client")
        try:
            for file in files:
                _add(path, file)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(agent), signal.SIGTERM)
            path.unlink(missing_ok=True)


def _add(socket: Path, file: str) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(socket), "SSH_ASKPASS_REQUIRE": "never"}
    added = subprocess.run(
        ["ssh-add", "-q", file],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # no terminal to ask a passphrase on
    )
    if added.returncode != 0:
        raise UsageError(
            f"the private key {file} cannot be loaded: {added.stderr.strip().splitlines()[-1:]}",
            "a key with a passphrase has to be in your own ssh-agent: ssh-add it, and set "
            "epibackup:ssh agent: true",
        )

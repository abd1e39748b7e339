"""Looking at the hosts before a run: which can be reached, and what they lack.

A host that cannot be used costs the run that host's services, not the others'. The same
connection later carries the data.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from components.host_agent import agent_name
from components.ssh import CONNECT_SECONDS, UNREACHABLE, Completed, SshClients, SshHost

SCRIPT = """
directory=$1 agent=$2 hash=$3
if python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 6))' || python="old $python"
else
  python=missing
fi
echo "python $python"
if refused=$(sudo -n true 2>&1); then
  echo "sudo ok"
  installed=$(sudo -n sha256sum "$directory/$agent" 2>/dev/null | cut -c 1-64)
  if [ "$installed" = "$hash" ]; then echo "agent ok"; else echo "agent missing"; fi
else
  echo "sudo $(echo "$refused" | tail -n 1)"
fi
"""
"""Run by sh as the login user; changes nothing."""


@dataclass(frozen=True)
class Problem:
    """Why a host cannot be used, and what to do."""

    message: str
    hint: str

    def as_json(self) -> dict[str, str]:
        """For a service's failed answer."""
        return {"message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Probed:
    """What was found on a host; agent_installed: the agent of this version is there."""

    problem: Problem | None
    agent_installed: bool


def probe(
    hosts: Iterable[SshHost], host_directory: str, hash_of_agent: str, stack: str
) -> dict[str, Probed]:
    """Look at all hosts at the same time; results by host name."""
    listed = list(hosts)
    arguments = [host_directory, agent_name(hash_of_agent), hash_of_agent]
    with SshClients(listed) as clients, ThreadPoolExecutor(32) as pool:
        found = pool.map(lambda host: _probe(clients, host, arguments, stack), listed)
        return {host.name: result for host, result in zip(listed, found, strict=True)}


def _probe(clients: SshClients, host: SshHost, arguments: list[str], stack: str) -> Probed:
    if not host.host_keys:
        return Probed(
            Problem(
                f"the ssh host key of {host.name} ({host.address} port {host.port}) is not known",
                f"compare and pin it: epibackup trust -s {stack} {host.name}",
            ),
            agent_installed=False,
        )
    done = clients.run(host.name, ["sh", "-s", "--", *arguments], SCRIPT, CONNECT_SECONDS * 6)
    if done.code == UNREACHABLE:
        return Probed(_unreachable(host, done, stack), agent_installed=False)
    facts = dict(line.partition(" ")[::2] for line in done.stdout.splitlines() if " " in line)
    return Probed(_lacking(host, facts, done), facts.get("agent") == "ok")


def _unreachable(host: SshHost, done: Completed, stack: str) -> Problem:
    """ssh's own failure, in our words."""
    where = f"{host.name} ({host.user}@{host.address} port {host.port})"
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    if (
        "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
        or "Host key verification" in last[0]
    ):
        return Problem(
            f"the ssh host key of {where} is not the one that is known: the host was set up "
            "again, or somebody else answers in its place",
            f"find out which; if it is right, pin the new key: epibackup trust -s {stack} "
            f"--replace {host.name}",
        )
    if "Permission denied" in done.stderr:
        return Problem(
            f"{where} refuses the login: {last[0]}",
            "check user and key: epibackup:ssh user, key_file",
        )
    return Problem(f"{where} cannot be reached: {last[0]}", "check that it is up and reachable")


def _lacking(host: SshHost, facts: dict[str, str], done: Completed) -> Problem | None:
    """What a reachable host lacks."""
    python = facts.get("python", "")
    if not python or "sudo" not in facts:
        said = (done.stderr or done.stdout).strip()[-300:]
        return Problem(f"{host.name} gave no usable answer: {said}", "is its login shell a shell?")
    if facts["sudo"] != "ok":
        return Problem(
            f"{host.user} may not use sudo on {host.name}: {facts['sudo']}",
            f"allow it without a password: {host.user} ALL=(ALL) NOPASSWD:ALL in /etc/sudoers.d",
        )
    if python == "missing":
        return Problem(f"there is no python3 on {host.name}", "install python3 there")
    if python.startswith("old"):
        return Problem(
            f"python3 on {host.name} is {python.removeprefix('old ')}", "3.6 or newer is needed"
        )
    return None

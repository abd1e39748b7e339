"""How hosts are reached: keys, agents, proxies, hosts that are not there, connections that end."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support.projects import Run
from tests.engine.support.resources import CommandProject, Resource
from tests.engine.support.sshd import (
    PASSPHRASE,
    Keys,
    Sshd,
    connection_to,
    free_port,
    run_sshd,
    wait_until,
)

Describe = Callable[..., Resource]
EVERY = ("--continue-on-error",)


@pytest.fixture(scope="module")
def agent(keys: Keys, folder: Path) -> Iterator[str]:
    """The socket of an agent that has a key."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, 10)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", keys.path()], env=environment, check=True)
        yield str(path)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def proxy(keys: Keys, folder: Path) -> Iterator[Sshd]:
    """A server to go through."""
    with run_sshd(folder / "proxy", keys) as server:
        yield server


def without(name: str, connection: dict[str, Any]) -> dict[str, Any]:
    """Return a connection without one of its inputs."""
    return {key: value for key, value in connection.items() if key != name}


@pytest.fixture(scope="module")
def run(
    shared: CommandProject, sshd: Sshd, proxy: Sshd, keys: Keys, agent: str, remote: Describe,
    folder: Path,
) -> Run:  # fmt: skip
    """One update that reaches hosts in many ways, each with a command of its name."""

    def to(**changes: Any) -> dict[str, Any]:
        return connection_to(sshd, **changes)

    def with_key(name: str, **changes: Any) -> dict[str, Any]:
        return to(private_key=keys.private(name), dial_error_limit=1, **changes)

    stranger = keys.path("stranger").with_suffix(".pub").read_text().strip()
    nobody = to(port=free_port(), dial_error_limit=0)
    connections = {
        "ed25519 host": to(),
        "ecdsa host": to(host_key=sshd.host_key("ecdsa")),
        "rsa host": to(host_key=sshd.host_key("rsa")),
        "any host": without("host_key", to()),
        "other host": to(host_key=stranger, dial_error_limit=1),
        "rsa": with_key("rsa"),
        "protected": with_key("protected", private_key_password=PASSPHRASE),
        "wrong passphrase": with_key("protected", private_key_password=PASSPHRASE[1:]),
        "no passphrase": with_key("protected"),
        "stranger": with_key("stranger"),
        "broken": to(private_key="-----BEGIN not a key at all"),
        "named agent": without("private_key", to(agent_socket_path=agent)),
        "ambient agent": without("private_key", to()),
        "no agent": without("private_key", to(agent_socket_path=f"{agent}-nobody")),
        "proxy": to(proxy=connection_to(proxy)),
        "no proxy": to(proxy=nobody),
        "refused": to(port=free_port(), dial_error_limit=2),
        # An address for documentation: packets to it go nowhere.
        "dead": {"host": "192.0.2.1", "dial_error_limit": 1, "per_dial_timeout": 1},
    }
    resources = [
        remote(name, connection=connection, create="echo hello $SSH_CONNECTION; touch "
               f"'{folder}/{name}'")
        for name, connection in connections.items()
    ]  # fmt: skip
    limit = {"custom_timeouts": {"create": "2s"}}
    endless = to(port=free_port(), dial_error_limit=-1)
    resources += [
        remote("accepted", create="echo $ACCEPTED", environment={"ACCEPTED": "a b"}),
        remote("not accepted", create=f"touch {folder}/ran", environment={"OTHER": "x"}),
        Resource("endless", "remote", {"connection": endless, "create": "true"}, options=limit),
        Resource("slow", "remote", {"connection": to(), "create": "sleep 3; echo done"},
                 options=limit),
    ]  # fmt: skip
    shared.environment["SSH_AUTH_SOCK"] = agent
    started = time.monotonic()
    result = shared.up_with(*resources, flags=EVERY).failed()
    assert time.monotonic() - started < 60
    return result


def said_hello(shared: CommandProject, name: str) -> bool:
    """Whether the command of a name was run."""
    return shared.has(name) and str(shared.outputs(name)["stdout"]).startswith("hello ")


def test_a_pinned_host_key_is_accepted_and_without_one_any_is(
    run: Run, shared: CommandProject
) -> None:
    assert said_hello(shared, "ed25519 host")
    assert said_hello(shared, "ecdsa host")
    assert said_hello(shared, "any host")


@pytest.mark.better("the official provider offers only ssh-rsa, which OpenSSH no longer signs")
def test_a_pinned_rsa_host_key_is_accepted(run: Run, shared: CommandProject) -> None:
    assert said_hello(shared, "rsa host")


def test_another_host_key_than_the_pinned_one_is_refused_and_nothing_runs(
    run: Run, shared: CommandProject, folder: Path
) -> None:
    assert "host key" in run.errors("other host")
    assert "after 1 failed attempts" in run.errors("other host")
    assert not shared.has("other host")
    assert (folder / "ed25519 host").exists()
    assert not (folder / "other host").exists()


def test_keys_of_other_types_and_with_a_passphrase_log_in(run: Run, shared: CommandProject) -> None:
    assert said_hello(shared, "rsa")
    assert said_hello(shared, "protected")


def test_keys_that_cannot_be_used_are_errors_that_show_nothing_of_them(
    run: Run, shared: CommandProject
) -> None:
    for name in ("wrong passphrase", "no passphrase", "broken", "stranger"):
        assert run.errors(name)
        assert not shared.has(name)
    assert "after 1 failed attempts" in run.errors("stranger")
    assert "unable to authenticate" in run.errors("stranger")
    assert "not a key at all" not in run.text
    assert PASSPHRASE[1:] not in run.text


def test_the_agent_that_the_connection_or_the_environment_names_is_asked(
    run: Run, shared: CommandProject
) -> None:
    assert said_hello(shared, "named agent")
    assert said_hello(shared, "ambient agent")
    assert "agent-nobody" in run.errors("no agent")


def test_a_host_is_reached_through_a_proxy_and_one_that_is_not_there_is_named(
    run: Run, shared: CommandProject, proxy: Sshd
) -> None:
    assert said_hello(shared, "proxy")
    assert proxy.logins() == 1
    assert "proxy:" in run.errors("no proxy")
    assert "connection refused" in run.errors("no proxy")


def test_a_host_that_refuses_is_tried_as_often_as_asked_and_each_failure_is_shown(
    run: Run,
) -> None:
    assert "after 2 failed attempts" in run.errors("refused")
    assert "connection refused" in run.errors("refused")
    lines = ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]
    assert run.live_lines("refused") == lines


def test_a_dead_host_is_given_up_in_the_time_that_is_set(run: Run) -> None:
    assert "after 1 failed attempts" in run.errors("dead")


def test_a_time_limit_of_the_resource_bounds_the_dialling_but_not_the_command(
    run: Run, shared: CommandProject
) -> None:
    assert "deadline exceeded" in run.errors("endless")
    assert shared.outputs("slow")["stdout"] == "done"


def test_variables_that_the_server_accepts_are_set_and_others_are_an_error(
    run: Run, shared: CommandProject, folder: Path
) -> None:
    assert shared.outputs("accepted")["stdout"] == "a b"
    assert 'could not set environment variable "OTHER"' in run.errors("not accepted")
    assert not (folder / "ran").exists()


def test_all_connections_are_closed_at_the_end(run: Run, sshd: Sshd) -> None:
    assert sshd.logins() > 0
    wait_until(lambda: sshd.open_connections() == 0, 10)


@pytest.mark.better("the official provider fails on a stale SSH_AUTH_SOCK that it does not need")
def test_a_stale_agent_in_the_environment_does_not_matter_when_there_is_a_key(
    commands: CommandProject, remote: Describe, tmp_path: Path
) -> None:
    commands.environment["SSH_AUTH_SOCK"] = str(tmp_path / "nobody")
    commands.up_with(remote("r", create="echo hello")).succeeded()


@pytest.mark.better("the official provider waits for ever for a server that says nothing")
def test_a_host_that_accepts_and_says_nothing_is_given_up_too(
    commands: CommandProject, remote: Describe
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = {"host": "127.0.0.1", "port": port, "dial_error_limit": 0, "per_dial_timeout": 1,
                "password": "x"}  # fmt: skip
        result = commands.up_with(remote("r", connection=mute, create="true")).failed()
    assert "timeout" in result.errors("r")


def test_a_host_that_comes_up_late_is_reached(
    commands: CommandProject, sshd: Sshd, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    port = free_port()
    late = without("host_key", connection_to(sshd, port=port, dial_error_limit=10))
    process = commands.start_with(remote("r", connection=late, create="echo hello"))
    time.sleep(2)
    with run_sshd(tmp_path / "late", keys, port=port):
        text, _ = process.communicate(timeout=60)
    commands.result(process.returncode, text).succeeded()
    assert commands.outputs("r")["stdout"] == "hello"


@pytest.mark.better("the official provider makes a connection for each command")
def test_commands_on_one_host_share_connections_also_more_than_it_allows_sessions(
    commands: CommandProject, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    with run_sshd(tmp_path / "server", keys, "MaxSessions 3") as server:
        connection = connection_to(server)
        resources = [
            remote(f"r{number}", connection=connection, create=f"sleep 0.5; echo {number}")
            for number in range(12)
        ]
        commands.up_with(*resources, flags=("--parallel", "12")).succeeded()
        assert server.logins() < 12
    for number in range(12):
        assert commands.outputs(f"r{number}")["stdout"] == str(number)


def test_a_command_whose_host_drops_the_connection_fails_and_the_next_one_connects_again(
    commands: CommandProject, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    with run_sshd(tmp_path / "server", keys) as server:
        to = {"connection": connection_to(server)}
        # The parent of the command's shell is the server's process for the connection.
        later = "(sleep 0.3; kill -KILL $PPID) >/dev/null 2>&1 & sleep 0.1"
        result = commands.up_with(
            remote("drop", create="kill -KILL $PPID; sleep 5", **to),
            remote("leave", create=later, **to),
            remote("pause", "leave", connection=connection_to(server), create="sleep 0.1"),
            flags=EVERY,
        ).failed()
        assert "exit" in result.errors("drop") or "lost" in result.errors("drop")
        commands.up_with(remote("pause", create="echo again", **to)).succeeded()
    assert commands.outputs("pause")["stdout"] == "again"


def test_the_output_before_is_offered_to_the_server_and_a_refusal_is_only_a_warning(
    commands: CommandProject, remote: Describe
) -> None:
    quiet = {"add_previous_output_in_env": False}
    commands.up_with(remote("r", create="echo 1"), remote("quiet", create="echo 1", **quiet))
    result = commands.up_with(
        remote("r", create="echo 2"), remote("quiet", create="echo 2", **quiet)
    ).succeeded()
    assert "PULUMI_COMMAND_STDOUT" in result.warnings("r")
    assert not result.warnings("quiet")

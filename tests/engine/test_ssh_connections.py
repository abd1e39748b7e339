"""How hosts are reached: keys, agents, proxies, hosts that are not there, connections that end."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


def test_a_pinned_host_key_is_accepted_and_without_one_any_is(
    commands: CommandProject, sshd: Sshd, remote: Describe
) -> None:
    unpinned = connection_to(sshd)
    del unpinned["host_key"]
    commands.up_with(
        remote("ed25519", connection=connection_to(sshd), create="echo hello"),
        remote("ecdsa", create="echo hello",
               connection=connection_to(sshd, host_key=sshd.host_key("ecdsa"))),
        remote("unpinned", connection=unpinned, create="echo hello"),
    ).succeeded()  # fmt: skip
    for name in ("ed25519", "ecdsa", "unpinned"):
        assert commands.outputs(name)["stdout"] == "hello"


@pytest.mark.better("the official provider offers only ssh-rsa, which OpenSSH no longer signs")
def test_a_pinned_rsa_host_key_is_accepted(
    commands: CommandProject, sshd: Sshd, remote: Describe
) -> None:
    pinned = connection_to(sshd, host_key=sshd.host_key("rsa"))
    commands.up_with(remote("r", connection=pinned, create="echo hello")).succeeded()


def test_another_host_key_than_the_pinned_one_is_refused_and_nothing_runs(
    commands: CommandProject, sshd: Sshd, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    wrong = keys.path("stranger").with_suffix(".pub").read_text().strip()
    pinned = connection_to(sshd, host_key=wrong, dial_error_limit=1)
    run = commands.up_with(remote("r", connection=pinned, create=f"touch {tmp_path}/ran")).failed()
    assert "host key" in run.errors("r")
    assert "after 1 failed attempts" in run.errors("r")
    assert not (tmp_path / "ran").exists()


def test_keys_of_other_types_and_with_a_passphrase_log_in_and_wrong_ones_do_not(
    commands: CommandProject, sshd: Sshd, keys: Keys, remote: Describe
) -> None:
    def with_key(name: str, **changes: Any) -> dict[str, Any]:
        changes = {"private_key": keys.private(name), "dial_error_limit": 1, **changes}
        return connection_to(sshd, **changes)

    connections = {
        "rsa": with_key("rsa"),
        "protected": with_key("protected", private_key_password=PASSPHRASE),
        "wrong passphrase": with_key("protected", private_key_password=PASSPHRASE[1:]),
        "no passphrase": with_key("protected"),
        "stranger": with_key("stranger"),
        "broken": connection_to(sshd, private_key="-----BEGIN not a key at all"),
    }
    run = commands.up_with(
        *(remote(name, connection=to, create="echo hello") for name, to in connections.items()),
        flags=EVERY,
    ).failed()
    assert commands.outputs("rsa")["stdout"] == "hello"
    assert commands.outputs("protected")["stdout"] == "hello"
    for name in ("wrong passphrase", "no passphrase", "broken"):
        assert run.errors(name)
        assert not commands.has(name)
    assert "after 1 failed attempts" in run.errors("stranger")
    assert "unable to authenticate" in run.errors("stranger")
    assert "not a key at all" not in run.text
    assert PASSPHRASE[1:] not in run.text


@pytest.fixture
def agent(keys: Keys, tmp_path: Path) -> Iterator[str]:
    """The socket of an agent that has a key."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, 10)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", keys.path()], env=environment, check=True)
        yield str(path)
    finally:
        process.terminate()
        process.wait()


def without_key(server: Sshd, **changes: Any) -> dict[str, Any]:
    connection = connection_to(server, **changes)
    del connection["private_key"]
    return connection


def test_the_agent_that_the_connection_or_the_environment_names_is_asked(
    commands: CommandProject, sshd: Sshd, agent: str, remote: Describe
) -> None:
    commands.environment["SSH_AUTH_SOCK"] = agent
    named = without_key(sshd, agent_socket_path=agent)
    nobody = without_key(sshd, agent_socket_path=f"{agent}-nobody")
    run = commands.up_with(
        remote("named", connection=named, create="echo hello"),
        remote("ambient", connection=without_key(sshd), create="echo hello"),
        remote("nobody", connection=nobody, create="echo hello"),
        flags=EVERY,
    ).failed()
    assert commands.outputs("named")["stdout"] == "hello"
    assert commands.outputs("ambient")["stdout"] == "hello"
    assert "agent-nobody" in run.errors("nobody")


@pytest.mark.better("the official provider fails on a stale SSH_AUTH_SOCK that it does not need")
def test_a_stale_agent_in_the_environment_does_not_matter_when_there_is_a_key(
    commands: CommandProject, remote: Describe, tmp_path: Path
) -> None:
    commands.environment["SSH_AUTH_SOCK"] = str(tmp_path / "nobody")
    commands.up_with(remote("r", create="echo hello")).succeeded()


def test_a_host_is_reached_through_a_proxy_and_one_that_is_not_there_is_named(
    commands: CommandProject, sshd: Sshd, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    nobody = connection_to(sshd, port=free_port(), dial_error_limit=0)
    with run_sshd(tmp_path / "proxy", keys) as proxy:
        through = connection_to(sshd, proxy=connection_to(proxy))
        run = commands.up_with(
            remote("r", connection=through, create="echo $SSH_CONNECTION"),
            remote("nobody", connection=connection_to(sshd, proxy=nobody), create="true"),
            flags=EVERY,
        ).failed()
        assert proxy.logins() == 1
    assert str(sshd.port) in commands.outputs("r")["stdout"]
    assert "proxy:" in run.errors("nobody")
    assert "connection refused" in run.errors("nobody")


def test_a_host_that_refuses_is_tried_as_often_as_asked_and_each_failure_is_shown(
    commands: CommandProject, sshd: Sshd, remote: Describe
) -> None:
    nobody = connection_to(sshd, port=free_port(), dial_error_limit=2)
    run = commands.up_with(remote("r", connection=nobody, create="true")).failed()
    assert "after 2 failed attempts" in run.errors("r")
    assert "connection refused" in run.errors("r")
    assert run.live_lines("r") == ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]


def test_a_host_that_comes_up_late_is_reached(
    commands: CommandProject, sshd: Sshd, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    port = free_port()
    late = connection_to(sshd, port=port, dial_error_limit=10)
    del late["host_key"]
    process = commands.start_with(remote("r", connection=late, create="echo hello"))
    time.sleep(2)
    with run_sshd(tmp_path / "late", keys, port=port):
        text, _ = process.communicate(timeout=60)
    commands.result(process.returncode, text).succeeded()
    assert commands.outputs("r")["stdout"] == "hello"


def test_a_dead_host_is_given_up_in_the_time_that_is_set(
    commands: CommandProject, remote: Describe
) -> None:
    # An address for documentation: packets to it go nowhere.
    dead = {"host": "192.0.2.1", "dial_error_limit": 1, "per_dial_timeout": 1, "password": "x"}
    started = time.monotonic()
    run = commands.up_with(remote("r", connection=dead, create="true")).failed()
    assert time.monotonic() - started < 20
    assert "192.0.2.1" in run.errors("r")


@pytest.mark.better("the official provider waits for ever for a server that says nothing")
def test_a_host_that_accepts_and_says_nothing_is_given_up_too(
    commands: CommandProject, remote: Describe
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = {"host": "127.0.0.1", "port": port, "dial_error_limit": 0, "per_dial_timeout": 1,
                "password": "x"}  # fmt: skip
        run = commands.up_with(remote("r", connection=mute, create="true")).failed()
    assert "timeout" in run.errors("r")


def test_a_time_limit_of_the_resource_bounds_the_dialling_but_not_the_command(
    commands: CommandProject, sshd: Sshd, remote: Describe
) -> None:
    limit = {"custom_timeouts": {"create": "2s"}}
    nobody = connection_to(sshd, port=free_port(), dial_error_limit=-1)
    unreachable = remote("unreachable", connection=nobody, create="true")
    slow = remote("slow", create="sleep 3; echo done")
    run = commands.up_with(
        Resource("unreachable", "remote", unreachable.inputs, options=limit),
        Resource("slow", "remote", slow.inputs, options=limit),
        flags=EVERY,
    ).failed()
    assert "deadline exceeded" in run.errors("unreachable")
    assert commands.outputs("slow")["stdout"] == "done"


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


def test_all_connections_are_closed_at_the_end(
    commands: CommandProject, sshd: Sshd, remote: Describe
) -> None:
    commands.up_with(*(remote(f"r{number}", create="true") for number in range(5))).succeeded()
    wait_until(lambda: sshd.open_connections() == 0, 10)


def test_a_command_whose_host_drops_the_connection_fails_and_the_next_one_connects_again(
    commands: CommandProject, keys: Keys, remote: Describe, tmp_path: Path
) -> None:
    with run_sshd(tmp_path / "server", keys) as server:
        connection = connection_to(server)
        commands.up_with(
            remote("first", connection=connection, create="echo one"),
            remote("drop", "first", connection=connection, create="kill -KILL $PPID; sleep 5"),
            flags=EVERY,
        ).failed()
        commands.up_with(
            remote("first", connection=connection, create="echo one"),
            remote("leave", "first", connection=connection,
                   create="(sleep 0.3; kill -KILL $PPID) >/dev/null 2>&1 & sleep 0.1"),
            remote("pause", "leave", connection=connection, create="sleep 1; echo two"),
            flags=EVERY,
        )  # fmt: skip
        commands.up_with(remote("pause", connection=connection, create="echo two")).succeeded()
    assert commands.outputs("pause")["stdout"] == "two"


def test_variables_that_the_server_accepts_are_set_and_others_are_an_error(
    commands: CommandProject, remote: Describe, tmp_path: Path
) -> None:
    run = commands.up_with(
        remote("accepted", create="echo $ACCEPTED", environment={"ACCEPTED": "a b"}),
        remote("refused", create=f"touch {tmp_path}/ran", environment={"OTHER": "x"}),
        flags=EVERY,
    ).failed()
    assert commands.outputs("accepted")["stdout"] == "a b"
    assert 'could not set environment variable "OTHER"' in run.errors("refused")
    assert not (tmp_path / "ran").exists()


def test_the_output_before_is_offered_to_the_server_and_a_refusal_is_only_a_warning(
    commands: CommandProject, remote: Describe
) -> None:
    commands.up_with(remote("r", create="echo one")).succeeded()
    run = commands.up_with(remote("r", create="echo two")).succeeded()
    assert "PULUMI_COMMAND_STDOUT" in run.warnings("r")
    quiet = {"create": "echo three", "add_previous_output_in_env": False}
    assert not commands.up_with(remote("r", **quiet)).succeeded().warnings("r")

"""Pulumi programs that are served to a CLI, as the Automation API does it.

Run as a module, this imports Pulumi, which takes half a second, and then serves one program after
the other, each in a fork of its own: it reads the resources of a program from stdin (pickled), and
writes port and process of the fork to stdout.
"""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pulumi
import pulumi_command
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

if TYPE_CHECKING:
    from tests.engine.support.resources import Resource

_KINDS: dict[str, Callable[..., pulumi.CustomResource]] = {
    "local": pulumi_command.local.Command,
    "remote": pulumi_command.remote.Command,
    "copy": pulumi_command.remote.CopyToRemote,
    "copy_file": pulumi_command.remote.CopyFile,
}


@dataclass(frozen=True)
class Secret:
    """An input that is secret."""

    value: Any


@dataclass(frozen=True)
class Output:
    """An input that is an output of another resource."""

    resource: str
    name: str


def main() -> None:
    """Serve programs until stdin ends."""
    # Forks are killed by whoever asked for them; nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            resources = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the tests' own process
        except EOFError:
            return
        if os.fork() == 0:
            _serve(resources)


def _serve(resources: "Sequence[Resource]") -> None:
    """Serve the program that makes these resources, until this process is killed."""

    def program() -> None:
        made: dict[str, pulumi.CustomResource] = {}
        for resource in resources:
            options = pulumi.ResourceOptions(
                depends_on=[made[name] for name in resource.after], **resource.options
            )
            inputs = _input(resource.inputs, made)
            made[resource.name] = _KINDS[resource.kind](resource.name, opts=options, **inputs)

    limit = ("grpc.max_receive_message_length", 400 * 1024 * 1024)
    server = grpc.server(ThreadPoolExecutor(4), options=[limit])
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port} {os.getpid()}\n")
    sys.stdout.flush()
    threading.Event().wait()


def _input(item: Any, made: dict[str, pulumi.CustomResource]) -> Any:
    match item:
        case Secret(value):
            return pulumi.Output.secret(value)
        case Output(resource, name):
            return getattr(made[resource], name)
        case dict():
            return {key: _input(member, made) for key, member in item.items()}
        case list():
            return [_input(member, made) for member in item]
        case _:
            return item


if __name__ == "__main__":
    # Under the name by which the pickled classes are known.
    from tests.engine.support import inline_program

    inline_program.main()

"""`python -m lab`: the demo cluster by hand."""

import argparse
import os
import shlex
import sys

from lab import demo
from lab.errors import LabError


def main() -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args()
    try:
        if options.command == "up":
            return _up()
        if options.command == "down":
            demo.down(_report)
            return 0
        if options.command == "status":
            return _status()
        if options.command == "build-directory":
            _print(str(demo.demo_site().cluster.build_directory))
            return 0
        return _shell(options.host, options.argv)
    except LabError as error:
        print(f"lab: error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"lab: {error.hint}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="The demo cluster: throw-away hosts with real services on this machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start it (or find it running) and say how to use it")
    commands.add_parser("down", help="end it and delete its hosts")
    commands.add_parser("status", help="say which hosts run; exit code 3 if not all do")
    commands.add_parser("build-directory", help="print what -b of epibackup takes")
    shell = commands.add_parser("shell", help="log in to a host, or run a command there")
    shell.add_argument("host", metavar="HOST")
    shell.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER)
    return parser


def _up() -> int:
    cluster = demo.up(_report).cluster
    first = next(iter(cluster.hosts))
    hosts = [f"{name} ({host.address})" for name, host in cluster.hosts.items()]
    _print(f"The demo cluster is up:  {', '.join(hosts)}")
    _print(f"Build directory:         {cluster.build_directory}")
    _print(f"Known host keys:         {cluster.known_hosts_file}")
    _print(f"Look inside:             python -m lab shell {first}")
    _print(f"    or                   {shlex.join(cluster.ssh_command(first))}")
    _print("End it:                  python -m lab down")
    return 0


def _status() -> int:
    running = demo.status()
    for name, is_running in running.items():
        _print(f"{name}  {'running' if is_running else 'stopped'}")
    if not running:
        _print("There is no demo cluster; start one with: python -m lab up")
    return 0 if running and all(running.values()) else 3


def _shell(name: str, argv: list[str]) -> int:
    cluster = demo.demo_site().cluster
    if name not in cluster.hosts:
        raise LabError(f"the demo has no host {name}", f"It has {', '.join(cluster.hosts)}.")
    command = cluster.ssh_command(name) + ([shlex.join(argv)] if argv else [])
    os.execvp(command[0], command)  # noqa: S606 - an argument list, and ssh takes over


def _report(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)  # noqa: T201


def _print(line: str) -> None:
    print(line)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())

"""The agent on a host: one zipapp, brought there and installed for root."""

import functools
import hashlib
import io
import os
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import remote

import components
import host

UPLOAD_FOLDER = ".epibackup"
"""In the login user's home, 0700: SFTP is not root."""

ENTRY_POINT = "import sys\nfrom host.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"

INSTALL = """set -eu
umask 077
directory=$1 name=$2 hash=$3 upload=$4
mkdir -p -m 0700 -- "$directory"
chown 0:0 -- "$directory"
chmod 0700 -- "$directory"
# Copied first, checked then: nobody but root can change what is checked.
cp -- "$upload" "$directory/$name.new"
if ! echo "$hash  $directory/$name.new" | sha256sum --check --status; then
  rm -f -- "$directory/$name.new"
  echo "the agent was changed on its way to this host: run again" >&2
  exit 1
fi
mv -f -- "$directory/$name.new" "$directory/$name"
rm -f -- "$upload"
find "$directory" -maxdepth 1 -name 'agent-*.pyz' ! -name "$name" -mtime +30 -delete
"""
"""Installs an uploaded agent; run by sh as root with the arguments of `install_command`."""


def quoted(command: Sequence[str]) -> str:
    """A command line for a remote shell. The only function that quotes for Pulumi's Commands."""
    return shlex.join(command)


@functools.cache
def agent_archive() -> bytes:
    """The zipapp: `host/` and every service's host side. The same sources give the same bytes."""
    sources: dict[str, bytes] = {"__main__.py": ENTRY_POINT.encode(), "components/__init__.py": b""}
    rooms = Path(components.__path__[0])
    for path in Path(host.__path__[0]).glob("*.py"):
        sources[f"host/{path.name}"] = path.read_bytes()
    for path in [*rooms.glob("*/host.py"), *rooms.glob("*/host/*.py")]:
        service = path.relative_to(rooms).parts[0]
        sources[f"components/{service}/__init__.py"] = b""
        sources[f"components/{path.relative_to(rooms).as_posix()}"] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, sources[name])
    return buffer.getvalue()


@functools.cache
def agent_hash() -> str:
    """SHA-256 of the agent, in hexadecimal."""
    return hashlib.sha256(agent_archive()).hexdigest()


def agent_name(hash_of_agent: str) -> str:
    """The agent's file name on a host."""
    return f"agent-{hash_of_agent[:16]}.pyz"


def agent_file(folder: Path) -> Path:
    """Write the agent into a local folder, for SFTP; returns its path."""
    path = folder / agent_name(agent_hash())
    if not path.exists() or path.read_bytes() != agent_archive():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(agent_archive())
        partial.rename(path)
    return path


def agent_command(host_directory: str, hash_of_agent: str) -> list[str]:
    """The command line of the installed agent, without an action."""
    path = f"{host_directory}/{agent_name(hash_of_agent)}"
    return ["sudo", "-n", "python3", path, "--directory", host_directory]


def install_command(host_directory: str, hash_of_agent: str, upload: str) -> list[str]:
    """The command line that installs an uploaded agent; INSTALL is its standard input."""
    name = agent_name(hash_of_agent)
    return ["sudo", "-n", "sh", "-s", "--", host_directory, name, hash_of_agent, upload]


class HostAgentArgs(TypedDict):
    """What bringing the agent to a host needs."""

    connection: remote.ConnectionArgs
    """How Pulumi reaches the host."""
    host_directory: str
    """Where it is installed: root only, made if missing."""
    agent_path: str
    """The agent on this machine."""
    agent_hash: str
    """Its SHA-256, in hexadecimal."""
    again: Input[str]
    """Empty; or, if the host has lost its agent since the last run, that run's id: Pulumi would
    otherwise see nothing to do."""
    after: NotRequired[Sequence[pulumi.Resource]]
    """What has to be there before anything is done on the host."""


class HostAgent(pulumi.ComponentResource):
    """The agent on one host. Does nothing while the agent is the same as last time."""

    def __init__(self, name: str, args: HostAgentArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("epibackup:index:HostAgent", name, {}, opts)
        folder = remote.Command(
            f"{name}-folder",
            connection=args["connection"],
            create=quoted(["install", "-d", "-m", "0700", UPLOAD_FOLDER]),
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self, depends_on=list(args.get("after", []))),
        )
        name_there = agent_name(args["agent_hash"])
        upload = Output.from_input(args["again"]).apply(
            lambda again: f"{UPLOAD_FOLDER}/{again + '-' if again else ''}{name_there}"
        )
        copy = remote.CopyToRemote(
            f"{name}-copy",
            connection=args["connection"],
            source=pulumi.FileAsset(args["agent_path"]),
            remote_path=upload,
            opts=ResourceOptions(parent=self, depends_on=[folder]),
        )
        remote.Command(
            f"{name}-install",
            connection=args["connection"],
            create=upload.apply(
                lambda path: quoted(
                    install_command(args["host_directory"], args["agent_hash"], path)
                )
            ),
            stdin=INSTALL,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self, depends_on=[copy]),
        )
        self.register_outputs({})

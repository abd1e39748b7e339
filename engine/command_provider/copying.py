"""`command:remote:CopyToRemote` and `CopyFile`: files to other machines."""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from engine.command_provider.connections import Connections, Show
from engine.command_provider.endpoint import Endpoint
from engine.command_provider.values import Properties, reveal
from engine.serving import Refusal

_OPENING_SECONDS = 10.0


async def copy_source(
    connections: Connections, inputs: Properties, *, timeout_seconds: float, show: Show
) -> None:
    """Do what a `CopyToRemote` asks for.

    :raises Refusal: the source cannot be read, or the host or the target cannot be written.
    """
    plain = reveal(inputs)
    source, target = plain["source"], plain["remotePath"]
    async with _sftp(connections, plain, timeout_seconds, show) as sftp:
        if path := source.get("path"):
            await _copy(sftp, path, target)
        else:
            await _write(sftp, source.get("text", ""), target)


async def copy_file(
    connections: Connections, inputs: Properties, *, timeout_seconds: float, show: Show
) -> None:
    """Do what a `CopyFile` asks for.

    :raises Refusal: the file cannot be read, or the host or the target cannot be written.
    """
    plain = reveal(inputs)
    async with _sftp(connections, plain, timeout_seconds, show) as sftp:
        await _put(sftp, plain["localPath"], plain["remotePath"])


@contextlib.asynccontextmanager
async def _sftp(
    connections: Connections, inputs: Properties, timeout_seconds: float, show: Show
) -> AsyncIterator[asyncssh.SFTPClient]:
    endpoint = Endpoint.from_input(inputs["connection"])
    try:
        while True:
            async with connections.borrow(
                endpoint, timeout_seconds=timeout_seconds, show=show
            ) as connection:
                seconds = _OPENING_SECONDS if connection.was_used else None
                try:
                    client = await asyncio.wait_for(connection.ssh.start_sftp_client(), seconds)
                except (TimeoutError, asyncssh.Error) as error:
                    if connection.was_used or connection.sessions > 1:
                        connection.avoid()
                        continue
                    raise Refusal(f"ssh: no SFTP session: {error}") from error
                async with client:
                    yield client
                return
    except (OSError, asyncssh.Error) as error:
        raise Refusal(f"cannot copy to {endpoint.address}: {error}") from error


async def _copy(sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
    """Copy a file or a directory.

    A directory goes below the target under its own name. Written with a `/` at its end, what is in
    it goes into a target that exists. A file goes into a target that is a directory, else its copy
    gets the target's name.
    """
    name = os.path.basename(source)  # noqa: PTH119 - pathlib drops the `/` at the end
    if not Path(source).is_dir():
        if await sftp.isdir(target):
            target = posixpath.join(target, name)
        else:
            await _make_folder(sftp, posixpath.dirname(target))
        await _put(sftp, source, target)
        return
    await _make_folder(sftp, target)
    await _copy_tree(sftp, Path(source), posixpath.join(target, name) if name else target)


async def _copy_tree(sftp: asyncssh.SFTPClient, source: Path, target: str) -> None:
    await _make_folder(sftp, target)
    for entry in sorted(source.iterdir()):
        below = posixpath.join(target, entry.name)
        if entry.is_dir() and not entry.is_symlink():
            await _copy_tree(sftp, entry, below)
        else:
            await _put(sftp, str(entry), below)


async def _write(sftp: asyncssh.SFTPClient, text: str, target: str) -> None:
    await _make_folder(sftp, posixpath.dirname(target))
    try:
        async with sftp.open(target, "wb") as file:
            await file.write(text.encode())
    except asyncssh.SFTPError as error:
        raise Refusal(f"cannot write the remote file {target}: {error}") from error


async def _put(sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
    if not Path(source).is_file():
        raise Refusal(f"cannot copy {source}: it is not a file")
    try:
        await sftp.put(source, target, follow_symlinks=True)
    except (OSError, asyncssh.SFTPError) as error:
        raise Refusal(f"cannot copy {source} to the remote path {target}: {error}") from error


async def _make_folder(sftp: asyncssh.SFTPClient, path: str) -> None:
    if path and not await sftp.isdir(path):
        try:
            await sftp.makedirs(path, exist_ok=True)
        except asyncssh.SFTPError as error:
            raise Refusal(f"cannot make the remote directory {path}: {error}") from error

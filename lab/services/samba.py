"""A real SMB server (samba, Debian) and a mount of its share by a client in user space (smbnetfs).

The server demands what Azure Files demands: SMB 3.1.1 and encryption. Server and client are in a
network of their own, because the client knows port 445 only; the mount is this machine's. The
kernel's own client (mount.cifs) is not used: not every machine's kernel has it.

What smbnetfs cannot do is no statement about SMB: it has no hard links (Azure Files has none
either), tells no free space, and does not flush.
"""

import contextlib
import getpass
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import LabError, last_lines
from lab.machine import Report, require_tools

TOOLS = ("smbd", "smbnetfs", "fusermount3")
SHARE = "backups"
_ADDRESS = "127.0.0.1"
_START_SECONDS = 30
_FREE_PAGES = 1 << 30
_START_SCRIPT = 'ip link set lo up && exec "$@"'

_SERVER = """\
[global]
server role = standalone server
interfaces = {address}/8
bind interfaces only = yes
smb ports = 445
disable netbios = yes
private dir = {folder}/private
lock directory = {folder}/lock
state directory = {folder}/state
cache directory = {folder}/cache
pid directory = {folder}/pid
ncalrpc dir = {folder}/ncalrpc
passdb backend = tdbsam:{folder}/private/passdb.tdb
log file = {folder}/log
load printers = no
printcap name = /dev/null
server min protocol = SMB3_11
server smb encrypt = required

[{share}]
path = {served}
read only = {read_only}
valid users = {user}
"""
_CLIENT = """\
auth "{address}" "{user}" "{password}"
smb_query_browsers "false"
smb_timeout 5000
reply_timeout 10
free_space_size {free_pages}
"""


def require_samba(report: Report) -> None:
    """Installs what server and client need; raises LabError if that cannot be done."""
    require_tools(TOOLS, report)


class Samba:
    """A server with one share, which is mounted; used as a context manager.

    folder: for all that server and client need; made. served: what is shared; made if missing.
    """

    def __init__(self, folder: Path, served: Path, read_only: bool = False) -> None:
        self.served = served
        self._folder = folder
        self._read_only = read_only
        self._user = getpass.getuser()
        self._server: subprocess.Popen[bytes] | None = None
        self._client: subprocess.Popen[bytes] | None = None
        served.mkdir(exist_ok=True)
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "home", "mount"):
            (folder / name).mkdir(parents=True)

    @property
    def path(self) -> Path:
        """The share where it is mounted."""
        return self._folder / "mount" / _ADDRESS / SHARE

    def __enter__(self) -> Self:
        try:
            self._mount(self._start_server())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The mount goes first: unmounting asks its server nothing, but others may.
        subprocess.run(
            ["fusermount3", "-u", "-z", str(self._folder / "mount")],
            capture_output=True,
            check=False,
        )
        if self._client:
            self._client.kill()
            self._client.wait()
        self.kill()

    def kill(self) -> None:
        """End the server, as by a crash of its machine."""
        if self._server:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _start_server(self) -> int:
        """Start it; returns its process."""
        configuration = self._folder / "smb.conf"
        configuration.write_text(
            _SERVER.format(
                folder=self._folder,
                served=self.served,
                share=SHARE,
                address=_ADDRESS,
                user=self._user,
                read_only="yes" if self._read_only else "no",
            )
        )
        password = secrets.token_hex(16)
        subprocess.run(
            ["smbpasswd", "-c", str(configuration), "-s", "-a", self._user],
            input=f"{password}\n{password}\n".encode(),
            check=True,
            capture_output=True,
        )
        client = self._folder / "home" / "smbnetfs.conf"
        client.touch(mode=0o600)
        client.write_text(
            _CLIENT.format(
                address=_ADDRESS, user=self._user, password=password, free_pages=_FREE_PAGES
            )
        )
        with (self._folder / "errors").open("wb") as errors:
            self._server = subprocess.Popen(
                [
                    *("unshare", "--net", "--", "sh", "-c", _START_SCRIPT, "start"),
                    *("smbd", "-F", "--no-process-group", "-s", str(configuration)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )

        return self._server.pid

    def _mount(self, server: int) -> None:
        """Mount as soon as the server listens."""
        home = self._folder / "home"
        (home / ".smb").mkdir()
        (home / ".smb" / "smb.conf").write_text("[global]\nclient min protocol = SMB3_11\n")
        listens = [
            *("nsenter", "--net", f"--target={server}", "--"),
            *("ss", "-Hltn", "sport", "=", ":445"),
        ]
        self._wait_for(
            lambda: b":445" in subprocess.run(listens, capture_output=True, check=False).stdout
        )
        with (self._folder / "errors").open("ab") as errors:
            self._client = subprocess.Popen(
                [
                    *("nsenter", "--net", f"--target={server}", "--"),
                    *("smbnetfs", "-f", "-o", f"config={home / 'smbnetfs.conf'}"),
                    str(self._folder / "mount"),
                ],
                env={**os.environ, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self._wait_for(self.path.is_dir)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            ended = any(
                process.poll() is not None for process in (self._server, self._client) if process
            )
            if ended or time.monotonic() > deadline:
                text = (self._folder / "errors").read_bytes()
                raise LabError("the SMB server or its mount does not start:\n" + last_lines(text))
            time.sleep(0.02)

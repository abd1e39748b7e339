"""A real NFS server in user space: nfs-ganesha (Debian), for versions 3 and 4 over TCP.

Not a service of a host: it is what archives are written to. It runs in a mount namespace with its
own /run, so that this machine never sees its rpcbind, without which ganesha offers no version 3.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import LabError, last_lines
from lab.machine import Report, require_tools

ADDRESS = "127.0.0.1"
TOOLS = ("ganesha.nfsd", "rpcbind", "nfs-ls")
_START_SECONDS = 30
_STOP_SECONDS = 20
_STARTED = "NFS SERVER INITIALIZED"

# In namespaces of its own; the server joins that of the mounts, and finds it by a socket in /run.
_RPCBIND_SCRIPT = """\
set -e
mount -t tmpfs epibackup-lab /run
mkdir /run/rpcbind
ip link set lo up
exec rpcbind -f -w
"""


def require_nfs_server(report: Report) -> None:
    """Installs what the server and the client need; raises LabError if that cannot be done."""
    require_tools(TOOLS, report)


class NfsServer:
    """A server that exports one folder; used as a context manager.

    folder: for its configuration and log. export: what it exports; made if missing. settings:
    further lines of ganesha's EXPORT block (ganesha-export-config(8)), which win over the usual
    ones: everybody may mount and write, root is root. protocols: 3, 4 or both. own_network: the
    server has a network of its own, with its rpcbind on port 111 (see `enter`); else it has free
    ports of this machine's loopback, which it keeps when it is started again.
    """

    def __init__(
        self,
        folder: Path,
        export: Path,
        settings: Sequence[str] = (),
        protocols: Sequence[int] = (3, 4),
        own_network: bool = False,
    ) -> None:
        self.export = export
        self.port = _free_port()
        self.mount_port = _free_port()
        self._folder = folder
        self._settings = settings
        self._protocols = ",".join(map(str, protocols))
        self._own_network = own_network
        self._process: subprocess.Popen[bytes] | None = None
        self._rpcbind: subprocess.Popen[bytes] | None = None
        export.mkdir(exist_ok=True)
        (folder / "recovery").mkdir(parents=True)

    @property
    def location(self) -> str:
        """The export as a target."""
        return f"nfs://{ADDRESS}{self.export}"

    @property
    def process_id(self) -> int:
        """The server's process."""
        if self._process is None:
            raise LabError("the NFS server is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server and wait until it answers; raises LabError if it does not."""
        (self._folder / "ganesha.conf").write_text(self._configuration())
        log = self._folder / "log"
        log.unlink(missing_ok=True)
        separate = ["unshare", "--mount", "--propagation", "private", "--net", "--"]
        self._rpcbind = self._run([*separate, "sh", "-c", _RPCBIND_SCRIPT])
        names = Path(f"/proc/{self._rpcbind.pid}")
        if self._wait_for(lambda: (names / "root/run/rpcbind.sock").exists()):
            network = [f"--net={names}/ns/net"] if self._own_network else []
            self._process = self._run(
                [
                    *("nsenter", f"--mount={names}/ns/mnt", *network, "--"),
                    *("ganesha.nfsd", "-F", "-L", str(log), "-N", "NIV_EVENT"),
                    *("-f", str(self._folder / "ganesha.conf"), "-p", str(self._folder / "pid")),
                ]
            )
            if self._wait_for(lambda: log.exists() and _STARTED in log.read_text()):
                return
        self.kill()
        text = log.read_bytes() if log.exists() else b""
        raise LabError(
            "the NFS server does not start:\n"
            + last_lines(text + (self._folder / "errors").read_bytes())
        )

    def _run(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with (self._folder / "errors").open("ab") as errors:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )

    def _wait_for(self, so: Callable[[], bool]) -> bool:
        """Wait until something is so; False if it takes too long or a process has ended."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if so():
                return True
            running = [process for process in (self._rpcbind, self._process) if process]
            if any(process.poll() is not None for process in running):
                return False
            time.sleep(0.02)
        return False

    def enter(self, command: Sequence[str]) -> list[str]:
        """A command line for the server's own network."""
        return ["nsenter", "--net", f"--target={self.process_id}", "--", *command]

    def stop(self) -> None:
        """End the server in good order; nothing happens if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Have the server say nothing more, with its connections open, until `resume`."""
        os.kill(self.process_id, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.process_id, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._rpcbind:
            self._rpcbind.kill()
            self._rpcbind.wait()
        self._process = self._rpcbind = None

    def _configuration(self) -> str:
        usual = {
            "Access_Type": "RW",
            "Squash": "No_Root_Squash",
            "SecType": "sys",
            "Transports": "TCP",
            "Attr_Expiration_Time": "0",  # what a test changes in the folder is seen at once
        }
        given = [setting.split(" ")[0] for setting in self._settings]
        lines = [f"{name} = {value};" for name, value in usual.items() if name not in given]
        export = "".join(f"  {line}\n" for line in [*lines, *self._settings])
        # In a network that has only lo, ganesha refuses to bind to 127.0.0.1 (AI_ADDRCONFIG).
        address = "" if self._own_network else f"  Bind_addr = {ADDRESS};\n"
        return f"""\
NFS_CORE_PARAM {{
  Protocols = {self._protocols};
{address}  NFS_Port = {self.port};
  MNT_Port = {self.mount_port};
  Enable_NLM = false;
  Enable_RQUOTA = false;
  Enable_UDP = false;
}}
NFSv4 {{
  Graceless = true;
  RecoveryBackend = fs;
  RecoveryRoot = {self._folder}/recovery;
}}
EXPORT {{
  Export_Id = 1;
  Path = {self.export};
  Pseudo = /export;
  Protocols = {self._protocols};
{export}  FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])

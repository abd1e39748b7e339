"""A host: a booted container with an own address, an sshd, and a login user with sudo."""

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import nspawn
from lab.errors import LabError, last_lines
from lab.image import LOGIN_USER, LOGIN_USER_ID, Image
from lab.machine import SYSTEM_PATH, remove_tree, require_overlay

# A machine with an sshd of its own on 0.0.0.0:22 leaves no address on which port 22 is free.
SSH_PORT = 2222
HOST_KEY_TYPES = ("ed25519", "ecdsa", "rsa")


class Container:
    """One host of a cluster.

    `name` is its host name, `address` an address in 127.0.0.0/8 of its own, `machine` its unique
    name on this machine, `folder` where everything about it is kept. `names` maps the host names
    of the cluster to addresses, for /etc/hosts. `authorized_key` is the file of the public key
    that may log in as `operations`. `memory_bytes` limits all its processes together, page cache
    and /tmp included. `nspawn_options` are further options for systemd-nspawn (capabilities,
    binds).
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        machine: str,
        folder: Path,
        image: Image,
        authorized_key: Path,
        names: Mapping[str, str],
        ssh_port: int = SSH_PORT,
        memory_bytes: int = 1024**3,
        nspawn_options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.address = address
        self.machine = machine
        self.folder = folder
        self.ssh_port = ssh_port
        self.image = image
        self._authorized_key = authorized_key
        self._names = dict(names)
        self._memory_bytes = memory_bytes
        self._nspawn_options = tuple(nspawn_options)
        self._nspawn: int | None = None
        self._init: int | None = None

    def __repr__(self) -> str:
        return f"Container({self.name!r}, {self.address!r})"

    # -- life -----------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return nspawn.find(self.machine) is not None

    def start(self, timeout_seconds: float = 60) -> None:
        """Boots the host and waits until systemd has started everything; running is fine.

        Cleans up first what an unclean end left. Raises LabError when the host does not come up,
        or comes up with failed units.
        """
        if self.is_running:
            return
        nspawn.kill(self.machine)
        self._prepare()
        self._require_free_address()
        console = self.folder / "console.log"
        nspawn.launch(
            self.machine,
            self.name,
            self._layers,
            console,
            self._memory_bytes,
            self._nspawn_options,
        )
        nspawn.wait_for_init(self.machine, console, timeout_seconds)
        self.wait_until_ready(timeout_seconds)

    def wait_until_ready(self, timeout_seconds: float = 60) -> None:
        """Waits for systemd's own word that the host is up (`systemctl is-system-running`).

        Raises LabError with the names of failed units.
        """
        deadline = time.monotonic() + timeout_seconds
        ask = ["systemctl", "is-system-running", "--wait"]
        state = ""
        # Before systemd listens, systemctl says `offline`, or nothing on stdout.
        while state in ("", "offline") and time.monotonic() < deadline:
            time.sleep(0.02)
            state = self.run(ask, check=False, timeout_seconds=timeout_seconds).stdout.strip()
        if state != "running":
            failed = self.run(["systemctl", "--failed", "--no-legend", "--plain"], check=False)
            raise LabError(
                f"{self.name} came up {state or 'without an answer'}: {failed.stdout.strip()}",
                f"Look at journalctl in the host, and at {self.folder / 'console.log'}.",
            )

    def stop(self, timeout_seconds: float = 30) -> None:
        """Shuts the host down; kills it after `timeout_seconds`. Its files stay."""
        nspawn.stop(self.machine, timeout_seconds)

    def kill(self) -> None:
        """Ends the host like a power cut. Its files stay."""
        nspawn.kill(self.machine)

    def destroy(self) -> None:
        """Ends the host and deletes its files."""
        self.kill()
        remove_tree(self.folder)

    def save(self) -> None:
        """Shuts the host down and keeps its files as they are now: `reset` comes back to them."""
        self.stop()
        number = len(self._saved) + 1
        self._saved_folder.mkdir(parents=True, exist_ok=True)
        self._layers.upper.rename(self._saved_folder / f"{number:03}")

    def reset(self) -> None:
        """Takes the host back to its last `save` (or to a new host), stopped; quick, as nothing
        is copied: the layer that was written since is thrown away."""
        self.kill()
        remove_tree(self._layers.upper)

    # -- inside ---------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The host's file system as its processes see it, from outside, while it runs.

        Do not follow absolute symbolic links in it: they would lead into the machine.
        """
        return Path(f"/proc/{self._require_init()}/root")

    def command(
        self, argv: Sequence[str], user: str = "root", environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """The argument list that runs `argv` inside the host, for subprocess on the machine."""
        variables = {"LANG": "C.UTF-8", **(environment or {})}
        identity = [f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
        return [
            *("nsenter", f"--target={self._require_init()}"),
            *("--mount", "--uts", "--ipc", "--pid", "--", "setpriv", *identity),
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *([f"PATH={SYSTEM_PATH}"] if user == "root" else []),
            *argv,
        ]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run has
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside the host, without ssh; systemd and D-Bus answer as at home.

        Root has the machine's capabilities here, more than by ssh and sudo. Output that is not
        UTF-8 comes with surrogates. Raises LabError when the command fails (unless `check` is
        false) or takes longer than `timeout_seconds`.
        """
        data = input.encode(errors="surrogateescape") if isinstance(input, str) else input
        limited = ["timeout", "--kill-after=5", str(timeout_seconds), *argv]
        done = subprocess.run(
            self.command(limited, user, environment),
            env={"PATH": SYSTEM_PATH},
            # An empty input, and not this process's: a command that reads must not wait for ever.
            input=data or b"",
            capture_output=True,
            check=False,
        )
        result = subprocess.CompletedProcess(
            list(argv),
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="surrogateescape"),
        )
        if check and done.returncode != 0:
            reason = "took too long" if done.returncode == 124 else f"exit {done.returncode}"
            raise LabError(
                f"{self.name}: {' '.join(argv)[:200]}: {reason}:"
                f"\n{last_lines(result.stderr or result.stdout)}"
            )
        return result

    def write(
        self, path: str, text: str | bytes, mode: int = 0o644, owner: str = "root:root"
    ) -> None:
        """Writes a file inside the host, making its folders (root, 0755)."""
        user, group = owner.split(":")
        self.run(
            [
                *("install", "-D", f"--mode={mode:o}", f"--owner={user}", f"--group={group}"),
                *("/dev/stdin", path),
            ],
            input=text,
        )

    def read(self, path: str) -> str:
        """The text of a file inside the host."""
        return self.run(["cat", "--", path]).stdout

    def exists(self, path: str) -> bool:
        """Whether a path exists inside the host."""
        return self.run(["test", "-e", path], check=False).returncode == 0

    def processes(self) -> list[nspawn.Process]:
        """The host's processes, with their ids on the machine; none when it is down."""
        try:
            return nspawn.processes(self._require_init())
        except LabError:
            return []

    # -- ssh ------------------------------------------------------------------------------------

    def known_hosts(self) -> list[str]:
        """The known_hosts lines of the host: one for each type of key."""
        place = f"[{self.address}]:{self.ssh_port}" if self.ssh_port != 22 else self.address
        lines = []
        for kind in HOST_KEY_TYPES:
            key_type, key, *_ = self.host_key(kind).with_suffix(".pub").read_text().split()
            lines.append(f"{place} {key_type} {key}")
        return lines

    def host_key(self, kind: str) -> Path:
        """The private host key of a type, outside the host; made on first use."""
        key = self.folder / "keys" / f"ssh_host_{kind}_key"
        if not key.exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_key(key, kind, comment=f"root@{self.name}")
        return key

    # -- own ------------------------------------------------------------------------------------

    @property
    def _saved_folder(self) -> Path:
        return self.folder / "saved"

    @property
    def _saved(self) -> list[Path]:
        """Saved layers, newest first."""
        return sorted(self._saved_folder.glob("[0-9]*"), reverse=True)

    @property
    def _layers(self) -> nspawn.Layers:
        return nspawn.Layers(
            lower=(*self._saved, self.image.tree),
            upper=self.folder / "upper",
            work=self.folder / "work",
            root=self.folder / "root",
        )

    def _require_init(self) -> int:
        """The id of the host's pid 1 on this machine; remembered while its systemd-nspawn lives."""
        if self._nspawn is None or nspawn.find_init(self._nspawn) != self._init:
            self._nspawn = nspawn.find(self.machine)
            self._init = None if self._nspawn is None else nspawn.find_init(self._nspawn)
        if self._init is None:
            raise LabError(f"the host {self.name} is not running")
        return self._init

    def _require_free_address(self) -> None:
        with socket.socket() as probe:
            # A server sets this too: without, connections of the last hour would be in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, self.ssh_port))
            except OSError as error:
                raise LabError(
                    f"{self.name} cannot have {self.address}, port {self.ssh_port}:"
                    f" {error.strerror}",
                    "Another program or another cluster of the lab has it: stop that one.",
                ) from error

    def _prepare(self) -> None:
        """Makes the layers and writes the host's own files, before it boots."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_overlay(self.folder)
        layers = self._layers
        if layers.work.exists():
            remove_tree(layers.work)  # of an earlier boot: overlayfs wants it empty
        for folder in (layers.work, layers.root, layers.upper):
            folder.mkdir(exist_ok=True)
        layers.upper.chmod(0o755)
        hosts = [("127.0.0.1", "localhost"), *((at, name) for name, at in self._names.items())]
        self._place("etc/hosts", "".join(f"{address} {name}\n" for address, name in hosts))
        self._place("etc/hostname", f"{self.name}\n")
        sshd = f"Port {self.ssh_port}\nListenAddress {self.address}\nPasswordAuthentication no\n"
        self._place("etc/ssh/sshd_config.d/lab.conf", sshd)
        self._place(f"etc/sudoers.d/{LOGIN_USER}", f"{LOGIN_USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
        for kind in HOST_KEY_TYPES:
            key = self.host_key(kind)
            self._place(f"etc/ssh/{key.name}", key.read_text(), 0o600)
            self._place(f"etc/ssh/{key.name}.pub", key.with_suffix(".pub").read_text())
        home = f"home/{LOGIN_USER}"
        self._place(f"{home}/.ssh/authorized_keys", self._authorized_key.read_text(), 0o600)
        for path in (home, f"{home}/.ssh", f"{home}/.ssh/authorized_keys"):
            os.chown(layers.upper / path, LOGIN_USER_ID, LOGIN_USER_ID)
        for path in (home, f"{home}/.ssh"):
            (layers.upper / path).chmod(0o700)

    def _place(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of root's into the upper layer, while nothing has it mounted."""
        file = self._layers.upper / path
        for folder in reversed(file.relative_to(self._layers.upper).parents):
            here = self._layers.upper / folder
            if here.is_symlink():  # a host's own link would lead out of its layer
                raise LabError(f"{self.name}: /{folder} is a link now; destroy this host")
            if here.exists() and not here.is_dir():  # the overlay's mark of a deleted folder
                here.unlink()
            here.mkdir(mode=0o755, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)


def make_key(path: Path, kind: str, comment: str) -> None:
    """Makes an ssh key pair without a passphrase: `path`, and the public key in `path`.pub.

    Raises LabError if ssh-keygen fails.
    """
    # Other types have one sensible size, which is ssh-keygen's default.
    size = ["-b", "3072"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"ssh-keygen made no key:\n{last_lines(done.stdout + done.stderr)}")

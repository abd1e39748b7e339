"""A cluster: several hosts with the groups they have in the inventory, and a build directory."""

import fcntl
import hashlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.container import SSH_PORT, Container, make_key
from lab.epicli import InventoryHost, write_build_directory
from lab.errors import LabError
from lab.image import BASE, LOGIN_USER, Recipe, find_image, obtain_image
from lab.machine import Report, remove_tree, require_root, state_folder

# The hosts of network N have 127.77.N.11 and following: no configuration is needed for them, they
# are reached from this machine only, and nothing else is known to live there.
_NETWORK_PREFIX = "127.77"
_FIRST_HOST = 11
DEMO_NETWORK = 1
_CLAIMED_NETWORKS = range(2, 200)
_CLAIMS = Path("/run/epibackup-lab")

EVERY_HOST = ("firewall", "filebeat", "node_exporter")
DATABASE_HOST = (*EVERY_HOST, "postgresql", "postgres_exporter")
LOAD_BALANCER_HOST = (*EVERY_HOST, "haproxy")


@dataclass(frozen=True)
class HostDefinition:
    """A host's name and its groups in the inventory."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """What a cluster is made of. `network` (1 to 254) is the third number of its addresses;
    `memory_bytes` is what each host may use."""

    name: str
    network: int
    hosts: tuple[HostDefinition, ...]
    recipe: Recipe = BASE
    ssh_port: int = SSH_PORT
    memory_bytes: int = 1024**3
    nspawn_options: tuple[str, ...] = ()

    def address(self, index: int) -> str:
        return f"{_NETWORK_PREFIX}.{self.network}.{_FIRST_HOST + index}"


class Cluster:
    """Hosts that live in one work folder, `state_folder()/<name>`; making the object starts none.

    `hosts` maps their names to containers.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.folder = state_folder() / definition.name
        image = find_image(definition.recipe)
        names = {
            host.name: definition.address(index) for index, host in enumerate(definition.hosts)
        }
        # Two state folders may hold clusters of one name.
        place = hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]
        self.hosts = {
            name: Container(
                name,
                address,
                machine=f"epibackup-{place}-{name}",
                folder=self.folder / "hosts" / name,
                image=image,
                authorized_key=self.private_key.with_suffix(".pub"),
                names=names,
                ssh_port=definition.ssh_port,
                memory_bytes=definition.memory_bytes,
                nspawn_options=definition.nspawn_options,
            )
            for name, address in names.items()
        }

    @property
    def build_directory(self) -> Path:
        """What `-b` of epibackup takes."""
        return self.folder / "build"

    @property
    def private_key(self) -> Path:
        """The login user's private key, mode 0600, which the inventory names."""
        return self.folder / "ssh" / "id_rsa"

    @property
    def known_hosts_file(self) -> Path:
        """The `known_hosts` lines as a file."""
        return self.folder / "ssh" / "known_hosts"

    def start(self, report: Report) -> None:
        """Starts all hosts, at the same time, and writes the build directory; idempotent.

        Raises LabError where hosts cannot run on this machine, or one does not come up.
        """
        require_root()
        obtain_image(self.definition.recipe, report)
        self.private_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.private_key.exists():
            make_key(self.private_key, "rsa", comment=LOGIN_USER)
        stopped = [host for host in self.hosts.values() if not host.is_running]
        if stopped:
            report(f"Starting {' '.join(host.name for host in stopped)}")
        self._each(Container.start)
        self.known_hosts_file.write_text("".join(f"{line}\n" for line in self.known_hosts()))
        write_build_directory(
            self.build_directory,
            self.definition.name,
            [
                InventoryHost(name, host.address, self._groups(name), host.ssh_port)
                for name, host in self.hosts.items()
            ],
            LOGIN_USER,
            self.private_key,
        )

    def stop(self) -> None:
        """Shuts all hosts down; their files stay. Leaves no process, mount or control group."""
        self._each(Container.stop)

    def destroy(self) -> None:
        """Ends all hosts and deletes the cluster's folder."""
        self._each(Container.kill)
        remove_tree(self.folder)

    def save(self) -> None:
        """Keeps all hosts as they are now, for `reset`; stops and starts them."""
        self._each(Container.save)
        self._each(Container.start)

    def reset(self) -> None:
        """Takes all hosts back to the last `save`, whatever happened to them."""
        self._each(Container.reset)
        self._each(Container.start)

    def known_hosts(self) -> list[str]:
        """The known_hosts lines of all hosts, for every type of key."""
        return [line for host in self.hosts.values() for line in host.known_hosts()]

    def ssh_command(self, name: str) -> list[str]:
        """The argument list of an ssh login to a host, with its key checked."""
        host = self.hosts[name]
        return [
            *("ssh", "-i", str(self.private_key), "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts_file}"),
            *("-p", str(host.ssh_port), f"{LOGIN_USER}@{host.address}"),
        ]

    def ssh(
        self, name: str, *argv: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Runs an argument list on a host as the login user, over ssh, as the product does.

        `options` are ssh's own. The result is returned whatever the exit code; ssh's is 255.
        """
        program, *rest = self.ssh_command(name)
        batch = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
        return subprocess.run(
            [program, *options, *batch, *rest, shlex.join(argv)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _groups(self, name: str) -> tuple[str, ...]:
        return next(host.groups for host in self.definition.hosts if host.name == name)

    def _each(self, action: Callable[[Container], None]) -> None:
        """Does something to all hosts at the same time; tries all, then raises the first error."""
        with ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
            attempts = [pool.submit(action, host) for host in self.hosts.values()]
        for attempt in attempts:
            attempt.result()


@contextmanager
def claimed_network() -> Iterator[int]:
    """A network number that no other process of this machine has, for a cluster of tests.

    The claim is a lock that the kernel drops with the process: a number that can be claimed may
    still have the hosts of a process that was killed, which its new owner should destroy.

    Raises LabError when all are taken.
    """
    require_root()
    _CLAIMS.mkdir(mode=0o700, exist_ok=True)
    for number in _CLAIMED_NETWORKS:
        with (_CLAIMS / f"network-{number}").open("a") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield number
            return
    raise LabError("every network number of the lab is claimed", f"Look at {_CLAIMS}.")

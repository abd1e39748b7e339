"""The ways to save a folder of two hosts that are compared."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import PeakMemory
from lab import Cluster
from tests.lab.product import Product

FOLDER = "etc/haproxy"
"""What is saved, relative to /: HAProxy's folder is taken whole, whatever lies in it."""


@dataclass(frozen=True)
class Measured:
    """One backup: its wall time, what it left on the controller, and peaks of memory if watched."""

    seconds: float
    stored_bytes: int
    controller_bytes: int = 0
    agent_bytes: int = 0


def epibackup(product: Product, watched: bool = False) -> Measured:
    """A whole run of the command, with its archive read back and checked.

    watched: measure memory, which takes a tenth of the processor.
    """
    before = set(product.archives())
    started = time.monotonic()
    process = product.start("backup", "--json")
    memory = PeakMemory(process.pid, product.cluster)
    with memory if watched else nullcontext():
        output, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        raise RuntimeError(f"the backup failed: {output}")
    (name,) = set(product.archives()) - before
    archive = product.target / name
    size = archive.stat().st_size
    archive.unlink()
    return Measured(seconds, size, memory.controller_bytes, memory.agent_bytes)


def hand_made(cluster: Cluster, folder: Path, saved: str = FOLDER) -> Measured:
    """`ssh host 'sudo tar | zstd -3 -T0' > file` for all hosts in parallel.

    saved: a folder of each host, relative to /. Files that change meanwhile are no failure here.
    """

    def save(name: str) -> int:
        command = f"sudo tar -C / --warning=no-file-changed -c {saved} | zstd -3 -T0 -q -c"
        with (folder / f"{name}.tar.zst").open("wb") as file:
            subprocess.run([*cluster.ssh_command(name), command], stdout=file, check=True)
        return (folder / f"{name}.tar.zst").stat().st_size

    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(save, cluster.hosts))
    seconds = time.monotonic() - started
    _remove(folder)
    return Measured(seconds, sum(sizes))


def epicli(cluster: Cluster, folder: Path) -> Measured:
    """As epicli 1.x does it, one host after the other: a gzip -9 archive staged on the host, its
    SHA-1, and rsync (epicli's roles backup/tasks/common: create_snapshot_archive,
    create_snapshot_checksum, download_via_rsync). Ansible's own time is left out."""
    started = time.monotonic()
    for name in cluster.hosts:
        archive = f"/var/tmp/{name}.tar.gz"  # noqa: S108 - on a host of the lab
        stage = (
            f"sudo sh -c 'tar -C / -c {FOLDER} | gzip -9 > {archive}"
            f" && sha1sum {archive} > {archive}.sha1'"
        )
        *login, place = cluster.ssh_command(name)
        subprocess.run([*login, place, stage], check=True)
        subprocess.run(
            [
                *("rsync", "--delay-updates", "-F", "--compress", "--checksum", "--archive"),
                *("--rsync-path=sudo -u root rsync", f"--rsh={' '.join(login)}"),
                *(f"{place}:{archive}", f"{place}:{archive}.sha1", str(folder)),
            ],
            check=True,
        )
        subprocess.run([*login, place, f"sudo rm {archive} {archive}.sha1"], check=True)
    seconds = time.monotonic() - started
    size = sum(path.stat().st_size for path in folder.iterdir())
    _remove(folder)
    return Measured(seconds, size)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()

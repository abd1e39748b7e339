"""S3: a run that writes to a bucket, against one to a local path and boto3's own `upload_file`."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from boto3.s3.transfer import S3Transfer
from types_boto3_s3 import S3Client

from benchmarks import data, ways
from benchmarks.memory import Watch
from lab import Cluster
from lab.machine import Report
from lab.services.minio import Minio, obtain_minio
from tests.lab.product import Product

MB = 1_000_000
MIB = 1 << 20
BUCKET = "benchmark"


@dataclass(frozen=True)
class Measured:
    """One run: its wall time, the archive's size, the archive process's peak of memory, and the
    share of the time that the upload by itself took."""

    seconds: float
    stored_bytes: int
    peak_bytes: int
    upload_seconds: float = 0.0


def runs(cluster: Cluster, product: Product, gib: float, rounds: int, say: Report) -> list[str]:
    """The table's rows for so many GiB of mixed data on the cluster's hosts, the ways in turn."""
    with tempfile.TemporaryDirectory(dir=cluster.folder) as scratch:
        say("S3: making the data")
        total = _fill(cluster, Path(scratch, "set"), gib)
        with Minio(obtain_minio(say), Path(scratch, "minio")) as server:
            seen = server.client()
            seen.create_bucket(Bucket=BUCKET)
            product.environment |= server.environment
            product.configure(s3={"endpoint_url": server.endpoint})
            to_bucket(product, seen)  # agents are there, everything has been read once
            own, other = [], []
            for number in range(rounds):
                say(f"S3: {gib:g} GiB, round {number + 1} of {rounds}")
                other.append(to_path_and_upload(product, seen))
                own.append(to_bucket(product, seen))
    return _table(total, own, other)


def _fill(cluster: Cluster, data_set: Path, gib: float) -> int:
    data.make_set(data_set, next(iter(cluster.hosts.values())).image.tree / "usr/lib")
    total = 0
    for host in cluster.hosts.values():
        folder = host.root / ways.FOLDER / "data"
        subprocess.run(["rm", "-rf", folder], check=True)
        copies = max(1, round(gib * 1024 * MIB / len(cluster.hosts) / data.SET_BYTES))
        total += data.fill(folder, copies, data_set)
    return total


def to_bucket(product: Product, seen: S3Client) -> Measured:
    """A whole run of the command; the archive is read back from the bucket and checked."""
    seconds, peak = _run(product, f"s3://{BUCKET}/archives")
    (found,) = seen.list_objects_v2(Bucket=BUCKET)["Contents"]
    seen.delete_object(Bucket=BUCKET, Key=found["Key"])
    return Measured(seconds, found["Size"], peak)


def to_path_and_upload(product: Product, seen: S3Client) -> Measured:
    """The same run to a local folder, where it is read back; then the SDK's upload of the file,
    with its own settings, which nobody reads back."""
    seconds, peak = _run(product, str(product.target))
    (archive,) = product.target.iterdir()
    started = time.monotonic()
    with S3Transfer(seen) as transfer:
        transfer.upload_file(str(archive), BUCKET, archive.name)
    upload = time.monotonic() - started
    size = archive.stat().st_size
    archive.unlink()
    seen.delete_object(Bucket=BUCKET, Key=archive.name)
    return Measured(seconds + upload, size, peak, upload)


def _run(product: Product, target: str) -> tuple[float, int]:
    started = time.monotonic()
    process = product.start("backup", "-t", target, "--json")
    with _ArchivePeak(process.pid) as peak:
        output, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        raise RuntimeError(f"the backup failed: {output}")
    return seconds, peak.bytes


class _ArchivePeak(Watch):
    """Watches the archive process below a command; used as a context manager.

    bytes: the most that it ever had in memory, as the kernel counts it (VmHWM, proc(5)).
    """

    def __init__(self, process: int) -> None:
        super().__init__()
        self.bytes = 0
        self._process = psutil.Process(process)

    def look(self) -> None:
        """Look once."""
        with suppress(psutil.Error, OSError):
            for child in self._process.children(recursive=True):
                if "components.archive" in child.cmdline():
                    self.bytes = max(self.bytes, _high_water_bytes(child.pid))


def _high_water_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _table(total: int, own: Sequence[Measured], other: Sequence[Measured]) -> list[str]:
    ratio = _median(own) / _median(other)
    upload = statistics.median(one.upload_seconds for one in other)
    peaks = [max(one.peak_bytes for one in found) // MIB for found in (own, other)]
    size, stored = total / MB / 1000, own[0].stored_bytes / MB
    head = f"{size:.1f} GB on two hosts, archive {stored:.0f} MB"
    here = f"epibackup to `s3://`, read back: {ratio:.2f} of the other"
    there = f"epibackup to a path, then `upload_file` ({upload:.1f} s of it)"
    return [
        f"| {head} | seconds | archive process |",
        "| --- | ---: | ---: |",
        f"| {here} | {_spread(own)} | {peaks[0]} MiB |",
        f"| {there} | {_spread(other)} | {peaks[1]} MiB |",
        "",
    ]


def _median(measured: Sequence[Measured]) -> float:
    return statistics.median(one.seconds for one in measured)


def _spread(measured: Sequence[Measured]) -> str:
    values = [one.seconds for one in measured]
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"

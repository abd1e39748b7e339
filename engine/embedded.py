"""The embedded CLI: Pulumi's own, built from its Go modules into the user's cache.

The folder of a build is named by its version and a hash of all that it is made from, so that it can
be copied to another machine of the same platform: there it is found under the same name.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from engine import pins
from engine.cache import cache_folder, locked, write_whole
from engine.errors import EngineError
from engine.golang import Go, go_toolchain, oldest_go

_SOURCE = Path(__file__).with_name("cli")
_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_FLAGS = (
    "-trimpath",
    "-ldflags",
    f"-s -w -X {_VERSION_VARIABLE}=v{pins.EMBEDDED_CLI}",
)
_REPORT_SECONDS = 30
_SHOWN_ERROR_LINES = 12


class EmbeddedCli:
    """The build for this machine's platform, whether it is there or not."""

    @cached_property
    def folder(self) -> Path:
        """Where it is, or will be."""
        made_from = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            made_from.update((_SOURCE / name).read_bytes())
        made_from.update(repr((_FLAGS, platform.system(), platform.machine())).encode())
        return cache_folder() / f"{pins.EMBEDDED_CLI}-{made_from.hexdigest()[:12]}"

    @property
    def executable(self) -> Path:
        """The command `pulumi`."""
        return self.folder / "pulumi"

    @property
    def _checksum_file(self) -> Path:
        return self.folder / "pulumi.sha256"

    @property
    def _seal_file(self) -> Path:
        return self.folder / "pulumi.seal"

    def is_there(self) -> bool:
        """Whether there is a file at all, sound or not."""
        return self.executable.exists()

    def is_sound(self) -> bool:
        """Whether the executable is there and what its checksum says.

        The whole file is read only when it, its time or its place changed since it was found sound.
        """
        try:
            status = self.executable.stat()
            seal = json.dumps(
                [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            )
            checksum = self._checksum_file.read_text("utf-8").split()[0]
            if _text_or_nothing(self._seal_file) == checksum + seal:
                return True
            with self.executable.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, IndexError):
            return False
        if actual != checksum:
            return False
        try:
            write_whole(self._seal_file, checksum + seal)
        except OSError:
            # A cache that is read only: the file is read again next time.
            return True
        return True

    def build(self, report: Callable[[str], None]) -> None:
        """Build it, unless another process has done so meanwhile.

        :param report: takes sentences for people.
        :raises EngineError: that is not possible.
        """
        with locked(self.folder.name, lambda: report("another process builds it: waiting")):
            if self.is_sound():
                return
            if self.is_there():
                report(f"{self.executable} is damaged: building it again")
            self.folder.mkdir(mode=0o700, exist_ok=True)
            go = go_toolchain(oldest_go((_SOURCE / "go.mod").read_text("utf-8")), report)
            report(
                f"building the Pulumi CLI {pins.EMBEDDED_CLI}: 4 to 7 minutes on two cores the "
                "first time, and only once"
            )
            self._build(go, report)

    def _build(self, go: Go, report: Callable[[str], None]) -> None:
        unfinished = self.folder / f"pulumi.{os.getpid()}.unfinished"
        log = self.folder / "build.log"
        scratch = self.folder / "scratch"
        started = time.monotonic()
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [go.executable, "build", *_FLAGS, "-modcacherw", "-o", unfinished, _PACKAGE],
                    cwd=_SOURCE,
                    env=_environment(go, scratch),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                try:
                    _wait(process, started, report)
                finally:
                    # Also when interrupted: no compiler is left behind.
                    process.kill()
                    process.wait()
            if process.returncode:
                raise _build_failure(log)
            unfinished.chmod(0o755)
            with unfinished.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # Half of this done is a checksum that does not fit: the file is not used.
            write_whole(self._checksum_file, f"{digest}  pulumi\n")
            unfinished.replace(self.executable)
            log.unlink()
        finally:
            unfinished.unlink(missing_ok=True)
            if go.is_ours:
                shutil.rmtree(scratch, ignore_errors=True)
        report(f"built {self.executable} in {time.monotonic() - started:.0f} s")


def _environment(go: Go, scratch: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
    }
    if go.is_ours:
        # Whoever has no Go wants no gigabyte of its caches either.
        environment["GOPATH"] = str(scratch / "path")
        environment["GOCACHE"] = str(scratch / "cache")
        environment.pop("GOROOT", None)
        environment.pop("GOMODCACHE", None)
    return environment


def _wait(process: subprocess.Popen[bytes], started: float, report: Callable[[str], None]) -> None:
    while True:
        try:
            process.wait(_REPORT_SECONDS)
            return
        except subprocess.TimeoutExpired:
            report(f"still building ({time.monotonic() - started:.0f} s)")


def _build_failure(log: Path) -> EngineError:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    shown = "\n".join(lines[-_SHOWN_ERROR_LINES:])
    return EngineError(
        f"the Pulumi CLI cannot be built:\n{shown}",
        f"The build needs the Go module proxy (GOPROXY) and about 4 GB of disk; its whole log is "
        f"{log}. Without a network, build it on another machine of the same kind and copy the "
        f"folder {log.parent} here (docs/engine.md, Without a network).",
    )


def _text_or_nothing(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except OSError:
        return None

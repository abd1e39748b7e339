"""A real S3 server on this machine's loopback: MinIO, built from its Go module.

Not a service of a host: it is what archives are written to.
"""

import base64
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine import EngineError
from engine.golang import Go, go_toolchain
from lab.errors import LabError, last_lines
from lab.machine import Report, cache_folder, locked

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The last version that MinIO has published as a Go module."""

KMS_KEY = "lab-key"
"""The one key that the server encrypts with, for SSE-S3 and SSE-KMS."""

ADDRESS = "127.0.0.1"
_OLDEST_GO = (1, 24)
_START_SECONDS = 60
_STOP_SECONDS = 20


def obtain_minio(report: Report) -> Path:
    """The server's executable; built when it is not in the cache, and checked every time.

    Raises LabError if it cannot be built.
    """
    folder = cache_folder() / f"minio-{VERSION}"
    folder.mkdir(exist_ok=True)
    executable, checksum = folder / "minio", folder / "minio.sha256"
    with locked(folder / "lock", report):
        if not executable.exists() or not _is_sound(executable, checksum):
            report("Building the S3 server MinIO: about 3 minutes on two cores, and only once")
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = _build(Path(scratch), report)
                checksum.write_text(_digest(built))
                built.rename(executable)
    return executable


def _is_sound(executable: Path, checksum: Path) -> bool:
    return checksum.exists() and _digest(executable) == checksum.read_text()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(scratch: Path, report: Report) -> Path:
    try:
        go = go_toolchain(_OLDEST_GO, report)
    except EngineError as error:
        raise LabError(error.message, error.hint) from error
    done = subprocess.run(
        [
            *(go.executable, "install", "-trimpath", "-ldflags", "-s -w", "-modcacherw"),
            f"github.com/minio/minio@{VERSION}",
        ],
        cwd=scratch,
        env=_environment(go, scratch),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"MinIO could not be built:\n{last_lines(done.stdout + done.stderr)}",
            "The build needs the Go module proxy (GOPROXY) and about 3 GB of disk.",
        )
    return scratch / "bin" / "minio"


def _environment(go: Go, scratch: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOBIN": str(scratch / "bin"),
    }
    if go.is_ours:  # whoever has no Go wants no gigabyte of its caches either
        environment |= {"GOPATH": str(scratch / "path"), "GOCACHE": str(scratch / "cache")}
        environment.pop("GOROOT", None)
        environment.pop("GOMODCACHE", None)
    return environment


class Minio:
    """A server with random credentials, its data below `folder`; used as a context manager.

    It starts on a free port and keeps that when it is started again.

    tls: serve https, with a certificate of an authority of its own: `ca_file`.
    region: refuse requests for another; empty for any.
    """

    def __init__(self, executable: Path, folder: Path, tls: bool = False, region: str = "") -> None:
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(20)
        self.ca_file: Path | None = None
        self._region = region
        self._executable = executable
        self._folder = folder
        self._kms_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (folder / "certificates").mkdir(mode=0o700)
        if tls:
            self.ca_file = _make_certificates(folder / "certificates")
        self.port = _free_port()

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return f"{'https' if self.ca_file else 'http'}://{ADDRESS}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which an SDK finds the administrator's credentials."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    @property
    def process_id(self) -> int:
        """The server's process."""
        if self._process is None:
            raise LabError("the S3 server is not running")
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
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers; raises LabError if it does not.

        Another process may take the free port first; then another is tried.
        """
        for _ in range(3):
            if self._answers_after_start():
                return
            self.port = _free_port()
        log = (self._folder / "log").read_bytes()
        raise LabError(f"the S3 server does not start:\n{last_lines(log)}")

    def _answers_after_start(self) -> bool:
        command = [
            *(str(self._executable), "server", "--quiet", "--address", f"{ADDRESS}:{self.port}"),
            *("--certs-dir", str(self._folder / "certificates"), str(self._folder / "data")),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "HOME": str(self._folder),
                    "MINIO_ROOT_USER": self.access_key,
                    "MINIO_ROOT_PASSWORD": self.secret_key,
                    "MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:{self._kms_key}",
                    "MINIO_SITE_REGION": self._region,
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        client = self.client()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            # Its own health check is content before it knows its users.
            with suppress(BotoCoreError, ClientError):
                client.list_buckets()
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def client(self) -> "S3Client":
        """A client with the administrator's credentials."""
        made: S3Client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self._region or "us-east-1",
            verify=str(self.ca_file) if self.ca_file else None,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        return made

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
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self._folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _make_certificates(folder: Path) -> Path:
    """A certificate authority, and a certificate of it for the server; returns the authority's.

    public.crt and private.key are the names that MinIO looks for.
    """
    now = datetime.now(UTC)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab authority")])

    def builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )

    authority = (
        builder(issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ADDRESS)])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(ADDRESS))])
    server = (
        builder(subject, server_key)
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    (folder / "public.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    private = folder / "private.key"
    private.touch(mode=0o600)
    private.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    # Beside the folder: MinIO would take every certificate in it for one of its own.
    path = folder.parent / "authority.crt"
    path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return path

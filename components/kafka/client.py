"""Talking to a cluster's brokers from the controller, through one of its hosts.

Brokers listen on addresses that only hosts can reach, so every connection goes through an
OpenSSH dynamic forward to a host of the cluster.
"""

import collections
import contextlib
import logging
import os
import re
import select
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from kafka import (  # type: ignore[import-untyped]  # kafka-python has no type hints
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
)
from kafka import errors as kafka_errors

from components.errors import EpibackupError, PreflightRefused, UsageError
from components.kafka.settings import KafkaSettings
from components.ssh import CONNECT_SECONDS, SshClients

ANSWER_SECONDS = 20
"""How long the first broker may take to answer."""
RETRY_SECONDS = 120
"""How long a request is repeated for reasons that pass, such as a new leader."""
REQUEST_SECONDS = 30
PAUSE_SECONDS = 0.2

LARGEST_SECRET_BYTES = 4096
REASON = re.compile(
    r"(?:Bootstrap (?:connection|attempt) to \S+ failed|Connection failed): "
    r"(?P<reason>.*?)(?: \(backoff [^)]*\))?$",
    re.DOTALL,
)
CHANNEL = re.compile(r"^channel \d+: ")


def read_secret(path: str, what: str) -> str:
    """A secret from a file that only its owner may read; raises UsageError."""
    try:
        with Path(path).open(encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise UsageError(
                    f"{path} with {what} may be read by others", f"chmod 600 {path}, as its owner"
                )
            text = stream.read(LARGEST_SECRET_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} with {what} cannot be read: {error}") from None
    if not text.strip("\r\n"):
        raise UsageError(f"{path} with {what} is empty")
    return text.strip("\r\n")


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.check_hostname = settings.check_hostname
        if settings.certificate_file and settings.key_file:
            # A password, though empty: without one OpenSSL would ask for it on the terminal.
            context.load_cert_chain(settings.certificate_file, settings.key_file, lambda: "")
    except (OSError, ValueError) as error:
        files = (settings.ca_file, settings.certificate_file, settings.key_file)
        named = ", ".join(file for file in files if file)
        raise UsageError(f"Kafka's certificates ({named}) cannot be used: {error}") from None
    return context


class Tunnel:
    """A SOCKS proxy on a loopback port of the controller that connects from a host.

    As long as it is open, every process of the controller that may use the loopback interface
    can connect through it: TCP knows no users there. It listens nowhere else, on a port that
    changes, and only for the length of a proof or a replay; brokers with a login still ask for it.
    """

    def __init__(self, clients: SshClients, host_name: str) -> None:
        self._clients = clients
        self._host = host_name
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.port = 0

    def __enter__(self) -> Self:
        try:
            for _ in range(5):  # another program may get the free port before ssh does
                if self._start():
                    return self
            raise self._failed()
        except BaseException:
            self.__exit__()
            raise

    def _start(self) -> bool:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        # ssh takes the first value of an option. A connection of its own ends with it; `cat` on
        # the host ends when this process does, and with it the forward.
        own = {"ControlMaster": "no", "ControlPath": "none", "ExitOnForwardFailure": "yes"}
        own |= {"LogLevel": "INFO", "DynamicForward": f"127.0.0.1:{self.port}"}
        words = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        program, *arguments = self._clients.argv(self._host, ["cat"])
        self._errors.truncate(0)
        self._process = subprocess.Popen(
            [program, *words, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        if self._answers(self._process):
            return True
        self._end()
        if "Address already in use" in self.said() or "cannot listen" in self.said():
            return False
        raise self._failed()

    @staticmethod
    def _answers(process: "subprocess.Popen[bytes]") -> bool:
        """Whether `cat` echoes: the login is done and the forward is there."""
        asking, telling = process.stdin, process.stdout
        if asking is None or telling is None:
            return False
        with contextlib.suppress(BrokenPipeError):
            asking.write(b"\n")
        ready, _, _ = select.select([telling], [], [], CONNECT_SECONDS * 3)
        return bool(ready) and telling.read(1) == b"\n"

    def said(self) -> str:
        """What ssh has complained about lately, each thing once."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 4000))
        lines = self._errors.read().decode(errors="replace").splitlines()
        return "; ".join(list(dict.fromkeys(CHANNEL.sub("", line) for line in lines))[-4:])

    def _failed(self) -> EpibackupError:
        return EpibackupError(
            f"Kafka's brokers cannot be reached through {self._host}: ssh says: "
            f"{self.said() or 'nothing'}",
            f"see that ssh to {self._host} works and may forward connections",
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __exit__(self, *_: object) -> None:
        self._end()
        self._errors.close()


class _Complaints(logging.Handler):
    """Keeps what kafka-python logs of failed connections: its errors do not have the reasons."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._reasons: collections.deque[str] = collections.deque(maxlen=20)

    def emit(self, record: logging.LogRecord) -> None:
        match = REASON.match(record.getMessage())
        if match:
            self._reasons.append(match["reason"])

    def with_word(self, word: str) -> str:
        """The reasons that have a word, each once; empty if there are none."""
        return "; ".join(dict.fromkeys(reason for reason in self._reasons if word in reason))


class KafkaConnection:
    """A way to a cluster's brokers; used as a context manager.

    host_name: the host of the inventory through which they are reached.
    bootstrap: brokers as host:port, as that host reaches them.
    """

    def __init__(
        self,
        clients: SshClients,
        host_name: str,
        bootstrap: Sequence[str],
        settings: KafkaSettings,
    ) -> None:
        self.bootstrap = list(bootstrap)
        self._settings = settings
        self._tunnel = Tunnel(clients, host_name)
        self._host = host_name
        self._open = contextlib.ExitStack()
        self._admin: Any = None
        self._complaints = _Complaints()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            library = logging.getLogger("kafka")
            level = library.level
            library.setLevel(logging.WARNING)  # below that it logs its settings, with the password
            library.addHandler(self._complaints)
            opened.callback(library.setLevel, level)
            opened.callback(library.removeHandler, self._complaints)
            opened.enter_context(self._tunnel)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._admin = None

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": "epibackup",
            "proxy_url": f"socks5h://127.0.0.1:{self._tunnel.port}",
            "security_protocol": self._settings.security_protocol,
            "bootstrap_timeout_ms": ANSWER_SECONDS * 1000,
            "request_timeout_ms": REQUEST_SECONDS * 1000,
            "reconnect_backoff_max_ms": 1000,
        }
        if self._settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = _ssl_context(self._settings)
        if self._settings.password_file:
            options["sasl_mechanism"] = self._settings.sasl_mechanism
            options["sasl_plain_username"] = self._settings.username
            options["sasl_plain_password"] = read_secret(
                self._settings.password_file, "the password"
            )
        return options

    @property
    def admin(self) -> Any:
        """kafka-python's KafkaAdminClient; raises EpibackupError if no broker answers."""
        if self._admin is None:
            with self.explained("reaching the brokers"):
                self._admin = KafkaAdminClient(**self._options())
            self._open.callback(self._admin.close)
        return self._admin

    def brokers(self) -> set[int]:
        """The ids of the brokers that are registered now."""
        # Not describe_cluster: kafka-python 3.0.12 fails with its answer from Kafka 2.8.
        admin = self.admin
        metadata = self.ask(
            "describing the cluster", admin._manager.run, admin._get_cluster_metadata, []
        )
        return {broker["node_id"] for broker in metadata["brokers"]}

    @contextlib.contextmanager
    def consumer(self, **options: Any) -> Iterator[Any]:
        """kafka-python's KafkaConsumer, closed afterwards."""
        with self.explained("reaching the brokers"):
            made = KafkaConsumer(
                **self._options(), enable_auto_commit=False, allow_auto_create_topics=False,
                **options,
            )  # fmt: skip
        try:
            yield made
        finally:
            made.close(autocommit=False)

    @contextlib.contextmanager
    def producer(self, **options: Any) -> Iterator[Any]:
        """kafka-python's KafkaProducer, closed afterwards; replays have a `BatchProducer`."""
        with self.explained("reaching the brokers"):
            made = KafkaProducer(**self._options(), allow_auto_create_topics=False, **options)
        try:
            yield made
        finally:
            made.close()

    def ask(self, doing: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of `admin`, again while it fails for reasons that pass.

        doing: for the error, as in "listing topics". Raises EpibackupError.
        """
        deadline = time.monotonic() + RETRY_SECONDS
        with self.explained(doing):
            while True:
                try:
                    return function(*arguments, **named)
                except (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError):
                    # An unknown broker is one that has come, or gone, since the client has asked.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(PAUSE_SECONDS)
                    self.refresh()

    def refresh(self) -> None:
        """Ask again where controller, coordinators and brokers are; kafka-python keeps asking
        the old ones, also when they are gone."""
        manager = self.admin._manager
        self.admin._controller_id = None
        manager.cluster._coordinators.clear()
        with contextlib.suppress(kafka_errors.KafkaError):
            manager.run(manager.cluster.refresh_metadata)

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turns kafka-python's errors into ones a person can act upon."""
        try:
            yield
        except kafka_errors.KafkaError as error:
            raise self._explain(doing, error) from error

    def _explain(self, doing: str, error: Exception) -> EpibackupError:
        brokers = ", ".join(self.bootstrap)
        heard, said = self._complaints, self._tunnel.said()
        if "administratively prohibited" in said:
            return PreflightRefused(
                f"{doing} failed: the sshd of {self._host} does not forward connections",
                f"set AllowTcpForwarding local (or yes) in its sshd_config, also for this user's "
                f"Match blocks, and see that PermitOpen allows {brokers}",
            )
        if isinstance(error, kafka_errors.AuthorizationError):
            return EpibackupError(
                f"{doing} failed: the brokers do not allow it: {error}",
                "give this user the operation (kafka-acls.sh), or use another user",
            )
        if reason := heard.with_word("Sasl"):
            return EpibackupError(
                f"{doing} failed: {brokers} did not accept the login: {reason}",
                "check sasl_mechanism, username and the password's file",
            )
        if reason := heard.with_word("Handshake failed"):
            return EpibackupError(
                f"{doing} failed: no TLS connection to {brokers}: {reason}",
                "check security_protocol, ca_file and the certificates; check_hostname: false "
                "accepts a broker whose certificate has another name",
            )
        if isinstance(error, kafka_errors.KafkaTimeoutError) and not said:
            reason = heard.with_word("") or "no answer"
            return EpibackupError(
                f"{doing} failed: {brokers} can be reached from {self._host}, but: {reason}",
                "brokers close the connection if security_protocol, sasl_mechanism or the login "
                "are not those of the listener; their logs say more",
            )
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            return EpibackupError(
                f"{doing} failed: none of {brokers} answers, seen from {self._host}: {said}",
                "see that the brokers run and listen there",
            )
        if isinstance(error, kafka_errors.RetriableError | kafka_errors.UnknownBrokerIdError):
            return EpibackupError(
                f"{doing} failed for {RETRY_SECONDS} s: {error}",
                "see that all brokers run and partitions have leaders and in-sync replicas",
            )
        return EpibackupError(f"{doing} failed: {error}", "see the brokers' logs")

"""The way to the brokers, by a real ssh client and server; and storing batches exactly once."""

import asyncio
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import errors as kafka_errors  # type: ignore[import-untyped]
from kafka.future import Future  # type: ignore[import-untyped]
from kafka.record.default_records import DefaultRecordBatch  # type: ignore[import-untyped]

from components.errors import EpibackupError, PreflightRefused, UsageError
from components.kafka import client
from components.kafka.batches import BatchMaker, ToProduce
from components.kafka.client import KafkaConnection, Tunnel, read_secret
from components.kafka.producer import BatchProducer
from components.kafka.records import RawRecord
from components.kafka.settings import KafkaSettings
from components.ssh import SshClients, SshHost


class _Server(asyncssh.SSHServer):
    """An sshd that forwards connections, or not."""

    forwards = True

    def connection_requested(self, *_: object) -> bool:
        if not self.forwards:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed"
            )
        return True


class _NoForwarding(_Server):
    forwards = False


async def _cat(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    assert process.command == "cat"
    while data := await process.stdin.read(1):
        process.stdout.write(data)
    process.exit(0)


class Sshd:
    """A real SSH server in a thread, and how it is reached."""

    def __init__(self, folder: Path, server: type[_Server]) -> None:
        self.port = 0
        self._server = server
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._user_key = asyncssh.generate_private_key("ssh-ed25519")
        self._key_file = folder / "key"
        self._key_file.write_bytes(self._user_key.export_private_key())
        self._key_file.chmod(0o600)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Sshd":
        self._thread.start()
        self._acceptor = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._acceptor.get_port()
        return self

    async def _listen(self) -> asyncssh.SSHAcceptor:
        allowed = asyncssh.import_authorized_keys(self._user_key.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=self._server, server_host_keys=[self._host_key],
            authorized_client_keys=allowed, process_factory=_cat, encoding=None,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._acceptor.close()
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def host(self) -> SshHost:
        key = self._host_key.export_public_key().decode().strip()
        return SshHost("kafka1", "127.0.0.1", self.port, "operations", str(self._key_file), (key,))


@pytest.fixture
def sshd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sshd]:
    with Sshd(tmp_path, getattr(request, "param", _Server)) as running:
        yield running


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def listening(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def through_socks(proxy: int, host: str, port: int) -> socket.socket:
    """A connection by SOCKS 5 (RFC 1928), the name resolved on the other side."""
    connected = socket.create_connection(("127.0.0.1", proxy), timeout=10)
    connected.sendall(b"\x05\x01\x00")
    assert connected.recv(2) == b"\x05\x00"
    connected.sendall(
        b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack(">H", port)
    )
    assert connected.recv(10)[:2] == b"\x05\x00"
    return connected


def test_connections_go_through_the_host_and_end_with_the_tunnel(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker, SshClients([sshd.host()]) as clients:
        with Tunnel(clients, "kafka1") as tunnel:
            port = broker.getsockname()[1]
            with through_socks(tunnel.port, "localhost", port) as connected:
                accepted, _ = broker.accept()
                connected.sendall(b"request")
                assert accepted.recv(7) == b"request"
                accepted.close()
        assert not listening(tunnel.port)


def test_the_tunnel_ends_when_its_program_is_killed(sshd: Sshd, tmp_path: Path) -> None:
    """A killed program runs no handlers: ssh has to notice."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys, time\n"
        "from components.kafka.client import Tunnel\n"
        "from components.ssh import SshClients, SshHost\n"
        "with SshClients([SshHost.from_json(json.loads(sys.argv[1]))]) as clients:\n"
        "    with Tunnel(clients, 'kafka1') as tunnel:\n"
        "        print(tunnel.port, flush=True)\n"
        "        time.sleep(60)\n"
    )
    command = [sys.executable, str(program), json.dumps(sshd.host().as_json())]
    root = Path(client.__file__).parents[2]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    ) as running:
        assert running.stdout
        port = int(running.stdout.readline())
        assert listening(port)
        running.kill()
    deadline = time.monotonic() + 20
    while listening(port):
        assert time.monotonic() < deadline, "ssh still listens"
        time.sleep(0.05)


def test_a_host_that_does_not_answer_is_named_with_what_ssh_says(sshd: Sshd) -> None:
    host = SshHost(**{**sshd.host().as_json(), "port": free_port()})
    with (
        SshClients([host]) as clients,
        pytest.raises(EpibackupError) as caught,
        Tunnel(clients, "kafka1"),
    ):
        pass
    assert "cannot be reached through kafka1" in caught.value.message
    assert "Connection refused" in caught.value.message


def connect(sshd: Sshd, broker: str, chosen: KafkaSettings) -> EpibackupError:
    """The error of a connection to something that is no broker."""
    with (
        SshClients([sshd.host()]) as clients,
        KafkaConnection(clients, "kafka1", [broker], chosen) as connection,
        pytest.raises(EpibackupError) as caught,
    ):
        connection.brokers()
    return caught.value


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sshd", [_NoForwarding], indirect=True)
def test_an_sshd_that_does_not_forward_is_told_apart(sshd: Sshd) -> None:
    error = connect(sshd, "127.0.0.1:9092", KafkaSettings())
    assert isinstance(error, PreflightRefused)
    assert "kafka1 does not forward" in error.message
    assert "AllowTcpForwarding" in error.hint


@pytest.mark.usefixtures("impatient")
def test_brokers_that_are_down_are_named(sshd: Sshd) -> None:
    broker = f"127.0.0.1:{free_port()}"
    error = connect(sshd, broker, KafkaSettings())
    assert f"none of {broker} answers, seen from kafka1" in error.message


@pytest.mark.usefixtures("impatient")
def test_a_listener_without_tls_is_told_from_one_that_is_down(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def refuse() -> None:
            while True:
                try:
                    accepted, _ = plain.accept()
                except OSError:
                    return
                accepted.recv(100)
                accepted.close()

        threading.Thread(target=refuse, daemon=True).start()
        broker = f"127.0.0.1:{plain.getsockname()[1]}"
        error = connect(sshd, broker, KafkaSettings(security_protocol="SSL"))
        plain.shutdown(socket.SHUT_RDWR)
    assert f"no TLS connection to {broker}" in error.message
    assert "security_protocol" in error.hint


def test_certificates_that_cannot_be_read_are_named_at_once(sshd: Sshd, tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    error = connect(sshd, "127.0.0.1:1", KafkaSettings(security_protocol="SSL", ca_file=missing))
    assert isinstance(error, UsageError)
    assert missing in error.message


def test_a_secret_is_read_only_from_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    assert read_secret(str(file), "the password") == "correct horse"
    file.chmod(0o640)
    with pytest.raises(UsageError, match="may be read by others") as caught:
        read_secret(str(file), "the password")
    assert "chmod 600" in caught.value.hint
    assert "horse" not in str(caught.value)
    file.write_text("\n")
    file.chmod(0o600)
    with pytest.raises(UsageError, match="is empty"):
        read_secret(str(file), "the password")
    with pytest.raises(UsageError, match="cannot be read"):
        read_secret(str(tmp_path / "none"), "the password")


class Broker:
    """A partition's leader with a producer's rules of KIP-98, and faults that no real one can be
    asked for: answers that get lost after or before the batch was stored, and lost leadership.

    Stands for kafka-python's connection manager.
    """

    def __init__(self, faults: Iterator[str]) -> None:
        self.stored: list[bytes] = []
        self.requests = 0
        self._faults = faults
        self._last: list[tuple[int, int]] = []  # first and next sequence of the last five
        self.cluster = SimpleNamespace(refresh_metadata=lambda: None, _coordinators={})

    def run(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def call_soon(self, function: Any, *arguments: Any) -> Any:
        future = Future()
        try:
            return future.success(function(*arguments))
        except kafka_errors.KafkaError as error:
            return future.failure(error)

    def send(self, request: Any, node: int | None = None) -> Any:
        if node is None:
            return SimpleNamespace(error_code=0, producer_id=5, producer_epoch=0)
        self.requests += 1
        fault = next(self._faults, "none")
        if fault == "lost before":
            raise kafka_errors.KafkaConnectionError("the connection broke")
        if fault == "not leader":
            return self._answer(kafka_errors.NotLeaderForPartitionError.errno)
        code = self._store(bytes(request.topic_data[0].partition_data[0].records))
        if fault == "lost after":
            raise kafka_errors.KafkaTimeoutError("no answer")
        return self._answer(code)

    @staticmethod
    def _answer(code: int) -> Any:
        part = SimpleNamespace(error_code=code, error_message=None)
        return SimpleNamespace(responses=[SimpleNamespace(partition_responses=[part])])

    def _store(self, data: bytes) -> int:
        batch = DefaultRecordBatch(data)
        assert batch.validate_crc()
        first, following = batch.base_sequence, batch.base_sequence + batch.records_count
        if (first, following) in self._last:
            return int(kafka_errors.DuplicateSequenceNumberError.errno)
        if self._last and first != self._last[-1][1]:
            return int(kafka_errors.OutOfOrderSequenceNumberError.errno)
        self._last = [*self._last, (first, following)][-5:]
        self.stored += [record.value for record in batch]
        return 0


class Connection(KafkaConnection):
    """A connection whose broker is in this process."""

    def __init__(self, broker: Broker) -> None:
        self.bootstrap = []
        self._complaints = client._Complaints()
        self._tunnel = SimpleNamespace(said=lambda: "")  # type: ignore[assignment]
        self._broker = broker

    @property
    def admin(self) -> Any:
        partition = {"partition_index": 0, "leader_id": 1}
        return SimpleNamespace(
            _manager=self._broker,
            describe_topics=lambda names: [{"name": names[0], "partitions": [partition]}],
        )


def batches(count: int) -> Iterator[ToProduce]:
    for number in range(count):
        maker = BatchMaker(0, 1000, 1000)
        for part in range(number % 3 + 1):
            value = b"%d.%d" % (number, part)
            maker._append(RawRecord(0, 1, b"\x01" + bytes([2 * len(value)]) + value + b"\x00"))
        yield from maker.rest()


def send_all(producer: BatchProducer, count: int) -> None:
    for batch in batches(count):
        producer.send("orders", 0, batch)
    producer.flush()


@given(st.lists(st.sampled_from(["none", "lost before", "lost after", "not leader"]), max_size=40))
@settings(deadline=None, max_examples=60)
def test_whatever_gets_lost_every_batch_is_stored_once_and_in_order(faults: list[str]) -> None:
    broker = Broker(iter(faults))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.kafka.client.PAUSE_SECONDS", 0)
        patch.setattr("components.kafka.producer.PAUSE_SECONDS", 0)
        send_all(BatchProducer(Connection(broker)), 25)
    expected = [b"%d.%d" % (number, part) for number in range(25) for part in range(number % 3 + 1)]
    assert broker.stored == expected


def test_a_leader_that_never_comes_back_is_an_error_with_the_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("components.kafka.client.RETRY_SECONDS", 0.5)
    monkeypatch.setattr("components.kafka.producer.RETRY_SECONDS", 0.5)
    broker = Broker(itertools.chain(["none"], itertools.repeat("not leader")))
    producer = BatchProducer(Connection(broker))
    with pytest.raises(EpibackupError, match=r"storing records in orders-0 failed for 0\.5 s"):
        send_all(producer, 9)


def test_what_does_not_pass_is_not_tried_again() -> None:
    class Refusing(Broker):
        def _store(self, _: bytes) -> int:
            return int(kafka_errors.MessageSizeTooLargeError.errno)

    broker = Refusing(iter(()))
    producer = BatchProducer(Connection(broker))
    with pytest.raises(EpibackupError, match="MessageSizeTooLarge"):
        send_all(producer, 2)
    assert broker.requests == 1

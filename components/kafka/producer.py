"""Storing ready-made batches in partitions, each once and in order."""

import collections
import concurrent.futures
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from kafka import TopicPartition  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka import errors as kafka_errors
from kafka.protocol.producer import (  # type: ignore[import-untyped]
    InitProducerIdRequest,
    ProduceRequest,
)

from components.kafka.batches import ToProduce, stamp
from components.kafka.client import (
    PAUSE_SECONDS,
    REQUEST_SECONDS,
    RETRY_SECONDS,
    KafkaConnection,
)

IN_FLIGHT = 4
"""Batches on their way at once. A broker recognises the last five of a producer (KIP-98), so
that they can be sent again without being stored twice."""


class _Sent(NamedTuple):
    batch: ToProduce
    answer: "concurrent.futures.Future[Any]"


class BatchProducer:
    """Stores batches in partitions: each once, in order, acknowledged by all in-sync replicas.

    Unlike KafkaProducer it takes what a topic may really hold (neither key nor value, headers
    without a value, no timestamp), keeps batches as they are, and holds few of them in memory.
    Uses kafka-python's connection manager, which is not its public interface; its version is
    pinned, and tests/unit/test_kafka_client.py and the lab tests use every call.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._manager = connection.admin._manager
        answer = connection.ask("getting a producer's id", self._new_id)
        self._id, self._epoch = answer.producer_id, answer.producer_epoch
        self._sequences: dict[Any, int] = collections.defaultdict(int)
        self._begun: set[Any] = set()
        self._leaders: dict[Any, int] = {}
        self._partition: Any = None
        self._sent: collections.deque[_Sent] = collections.deque()

    def _new_id(self) -> Any:
        request = InitProducerIdRequest(
            transactional_id=None,
            transaction_timeout_ms=60000,
            producer_id=-1,
            producer_epoch=-1,
        )
        answer = self._manager.run(self._manager.send, request)
        _raise(answer.error_code)
        return answer

    def send(self, topic: str, partition: int, batch: ToProduce) -> None:
        """Send a batch; waits while enough others are on their way. Raises EpibackupError."""
        target = TopicPartition(topic, partition)
        if target != self._partition:
            self.flush()
            self._partition = target
        # A broker that knows nothing of a producer takes any first sequence (KIP-360), so the
        # first batch of a partition goes alone.
        while len(self._sent) >= (IN_FLIGHT if target in self._begun else 1):
            self._settle()
        sequence = self._sequences[target]
        stamp(batch.data, self._id, self._epoch, sequence)
        self._sequences[target] = (sequence + batch.records) & 0x7FFFFFFF
        self._sent.append(_Sent(batch, self._submit(batch)))

    def flush(self) -> None:
        """Wait until all is stored; raises EpibackupError."""
        while self._sent:
            self._settle()

    def _submit(self, batch: ToProduce) -> "concurrent.futures.Future[Any]":
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            leader = self._leader()
        except kafka_errors.KafkaError as error:
            answer.set_exception(error)
            return answer
        topics = ProduceRequest.TopicProduceData
        request = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=REQUEST_SECONDS * 1000,
            topic_data=[
                topics(
                    name=self._partition.topic,
                    partition_data=[
                        topics.PartitionProduceData(
                            index=self._partition.partition, records=batch.data
                        )
                    ],
                )
            ],
            min_version=3,
            max_version=9,
        )
        sent = self._manager.call_soon(self._manager.send, request, leader)
        sent.add_callback(answer.set_result)
        sent.add_errback(answer.set_exception)
        return answer

    def _leader(self) -> int:
        if self._partition not in self._leaders:
            for topic in self._connection.admin.describe_topics([self._partition.topic]):
                for found in topic["partitions"]:
                    key = TopicPartition(topic["name"], found["partition_index"])
                    self._leaders[key] = found["leader_id"]
        leader = self._leaders.get(self._partition, -1)
        if leader < 0:
            raise kafka_errors.LeaderNotAvailableError(f"{self._partition} has no leader")
        return leader

    def _settle(self) -> None:
        """Wait for the oldest batch; on a failure that passes send all again, in order."""
        deadline = time.monotonic() + RETRY_SECONDS
        what = f"storing records in {self._partition.topic}-{self._partition.partition}"
        with self._connection.explained(what):
            while True:
                try:
                    _check_stored(self._sent[0].answer.result(REQUEST_SECONDS * 2))
                    break
                except (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError):
                    concurrent.futures.wait([sent.answer for sent in self._sent])
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(PAUSE_SECONDS)
                    self._again()
        self._sent.popleft()
        self._begun.add(self._partition)

    def _again(self) -> None:
        self._leaders.clear()
        self._connection.refresh()
        waiting = [sent.batch for sent in self._sent]
        self._sent = collections.deque(_Sent(batch, self._submit(batch)) for batch in waiting)


def _check_stored(answer: Any) -> None:
    stored: Mapping[str, Any] = answer.responses[0].partition_responses[0]
    error = stored.error_code  # type: ignore[attr-defined]  # a kafka-python structure
    if error != kafka_errors.DuplicateSequenceNumberError.errno:
        _raise(error, getattr(stored, "error_message", None))


def _raise(code: int, message: str | None = None) -> None:
    if code:
        raise kafka_errors.for_code(code)(message or "")

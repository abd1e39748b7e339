"""Whether a cluster holds what a load was told it holds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from lab.errors import LabError
from lab.services.kafka.contents import KafkaContents, PartitionLog, Record
from lab.services.kafka.load import KafkaLoad, LoadTopic, Written

_EXAMPLES = 3
# What a record needs on disk besides its key, value and headers, at most: as a batch of its own.
_OVERHEAD_BYTES = 100


@dataclass(frozen=True)
class Check:
    """What a check found.

    required: how many records had been acknowledged in time.
    present: how many records are there; more than required, or fewer where Kafka removes some.
    problems: what is lost, doubled or damaged, a line each; empty if nothing is.
    """

    required: int
    present: int
    problems: list[str]


def check_load(
    load: KafkaLoad, before: float | None = None, contents: KafkaContents | None = None
) -> Check:
    """Compares what a cluster holds with what a load, which is over, was told.

    before: monotonic time; what was acknowledged until then has to be there. Later records may
        be, each once and undamaged. None: everything that was ever acknowledged.
    contents: the cluster to look at, if it is another than the load's.

    A record is there at the offset that was acknowledged; or, where a topic is compacted, there
    is a later one of its key; or it is below the log start of a topic with a retention, and what
    is kept of the partition is as much as that demands.
    """
    cluster = contents or load.contents
    topics = cluster.topics()
    problems: list[str] = []
    required = present = 0
    for topic in load.topics.values():
        sent = load.sent(topic.name)
        wanted = [it for it in sent if _is_due(it, before)]
        required += len(wanted)
        if topics.get(topic.name) != topic.partitions:
            problems.append(f"{topic.name} has {topics.get(topic.name, 0)} partitions")
            continue
        try:
            logs = {number: log for (_, number), log in cluster.read(topic.name).items()}
        except LabError as error:
            problems.append(str(error))
            continue
        present += sum(len(log.records) for log in logs.values())
        problems += _Topic(topic, sent, logs).problems(wanted)
    return Check(required, present, problems)


def _is_due(written: Written, before: float | None) -> bool:
    if written.acknowledged_at is None:
        return False
    return before is None or written.acknowledged_at < before


class _Topic:
    """The comparison of one topic."""

    def __init__(
        self, topic: LoadTopic, sent: list[Written], logs: Mapping[int, PartitionLog]
    ) -> None:
        self._topic = topic
        self._sent = sent
        self._logs = logs
        self._found: dict[str, list[str]] = defaultdict(list)

    def problems(self, wanted: list[Written]) -> list[str]:
        """What is wrong, one line for each kind of problem, with examples."""
        places = self._read()
        for written in wanted:
            if written.number not in places and not self._may_be_gone(written, places):
                place = f"{written.partition}/{written.offset}"
                self._found["lost"].append(f"record {written.number} at {place}")
        if self._topic.retention_bytes:
            self._check_retention(self._topic.retention_bytes)
        lines = []
        for kind, examples in self._found.items():
            some = ", ".join(examples[:_EXAMPLES])
            lines.append(f"{self._topic.name}: {len(examples)} {kind}: {some}")
        return lines

    def _read(self) -> dict[int, tuple[int, int]]:
        """Where each number is, having noted what is damaged, doubled or displaced."""
        places: dict[int, tuple[int, int]] = {}
        for partition, log in self._logs.items():
            for record in log.records:
                here = f"{partition}/{record.offset}"
                number = self._number(record)
                if number is None:
                    self._found["damaged"].append(f"at {here}")
                    continue
                if number in places:
                    self._found["twice"].append(f"record {number} at {here}")
                places[number] = (partition, record.offset)
                written = self._sent[number]
                told = (written.partition, written.offset)
                if written.acknowledged_at is not None and told != places[number]:
                    self._found["displaced"].append(f"record {number} at {here}, not at {told}")
        return places

    def _number(self, record: Record) -> int | None:
        """The number of an undamaged record; None for any other."""
        text = dict(record.headers).get("number", b"")
        number = int(text) if text.isdigit() else -1
        if not 0 <= number < len(self._sent):
            return None
        is_whole = (
            record.key == self._topic.key(number)
            and record.value == self._topic.value(number)
            and record.headers == self._topic.headers(number)
            and record.timestamp == self._sent[number].timestamp
        )
        return number if is_whole else None

    def _may_be_gone(self, written: Written, places: Mapping[int, tuple[int, int]]) -> bool:
        if self._topic.is_compacted:
            # Deletions count, too: Kafka keeps them for a day (delete.retention.ms).
            followers = range(written.number, len(self._sent), self._topic.keys)
            return any(
                number in places and places[number] > (written.partition, written.offset)
                for number in followers
            )
        start = self._logs[written.partition].start
        return self._topic.retention_bytes is not None and written.offset < start

    def _check_retention(self, retention_bytes: int) -> None:
        """Kafka deletes a segment only if what is left is as large as the retention says."""
        for partition, log in self._logs.items():
            kept = sum(_stored_bytes(record) for record in log.records)
            if log.start > 0 and kept < retention_bytes:
                self._found["partitions cut too short"].append(f"{partition}: {kept} bytes")


def _stored_bytes(record: Record) -> int:
    parts = [record.key or b"", record.value or b""]
    parts += [part for name, value in record.headers for part in (name.encode(), value)]
    return sum(map(len, parts)) + _OVERHEAD_BYTES

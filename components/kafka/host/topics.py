"""What the broker's logs hold, by topic: offsets, settings, and how they go into the archive."""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional

from components.kafka.host import segments
from components.kafka.host.freezing import FIRST, Frozen, FrozenPartition
from components.zookeeper.host.client import NoNode, ZooKeeperClient
from host.errors import HostError
from host.snapshot import Snapshot, file_name

BUNDLE_BYTES = 64 << 20
"""Topics that hold less than this on a broker share a member, so that thousands of small ones do
not mean thousands of members."""

START_OFFSETS = "log-start-offset-checkpoint"


class Log(NamedTuple):
    """A frozen partition with its first offset, the one after its last, and its size."""

    partition: FrozenPartition
    start: int
    end: int
    bytes: int


def measured(frozen: Frozen, states: List[str]) -> List[Log]:
    """The frozen partitions, cut after their last whole batch.

    states: the folders that hold the checkpoints of the log directories, as they were saved.
    """
    starts: Dict[str, int] = {}
    for state in states:
        starts.update(start_offsets(os.path.join(state, START_OFFSETS)))
    logs = []
    for partition in frozen.partitions:
        names = partition.segments
        if not names:
            logs.append(Log(partition, 0, 0, 0))
            continue
        newest = names[-1]
        found = segments.end_of(
            os.path.join(partition.folder, newest),
            partition.lengths[newest],
            os.path.join(partition.live, newest[:20] + ".index"),
        )
        partition.lengths[newest] = found.length
        # A segment is named by its first offset: that is the end of a log that has nothing in it.
        end = int(newest[:20]) if found.next_offset is None else found.next_offset
        deleted_to = starts.get("%s-%d" % (partition.topic, partition.number), 0)
        start = min(max(int(names[0][:20]), deleted_to), end)
        logs.append(Log(partition, start, end, sum(partition.lengths[name] for name in names)))
    return logs


def start_offsets(path: str) -> Dict[str, int]:
    """A checkpoint file of offsets (OffsetCheckpointFile): version, count, then lines of topic,
    partition and offset; by topic-partition. Empty where there is none."""
    try:
        with open(path) as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines[2:]:
        topic, partition, offset = line.split()
        found["%s-%s" % (topic, partition)] = int(offset)
    return found


def described(logs: List[Log], zookeeper: Optional[str], snapshot: Snapshot) -> Dict[str, Any]:
    """Each topic's partitions here, [number, first offset, one after the last, bytes], and what
    ZooKeeper knows of it; settings are null where it does not answer."""
    topics: Dict[str, Any] = {}
    for log in sorted(logs, key=lambda log: (log.partition.topic, log.partition.number)):
        entry = topics.setdefault(
            log.partition.topic,
            {
                "partitions": [],
                "settings": None,
                "replication": None,
                "assignment": None,
                "in_sync": None,
            },
        )
        entry["partitions"].append([log.partition.number, log.start, log.end, log.bytes])
    try:
        with ZooKeeperClient(zookeeper or "localhost:2181") as client:
            for topic, entry in topics.items():
                entry.update(_settings(client, topic))
    except (HostError, ValueError) as error:
        snapshot.warn(
            "the topics' settings are not in the manifest, because %s; the data has them, and "
            "ZooKeeper's part of this run" % error
        )
    return topics


def _settings(client: ZooKeeperClient, topic: str) -> Dict[str, Any]:
    try:
        assignment = json.loads(client.data("/brokers/topics/" + topic).decode())["partitions"]
    except NoNode:
        return {}  # it was deleted meanwhile
    try:
        settings = json.loads(client.data("/config/topics/" + topic).decode()).get("config", {})
    except NoNode:
        settings = {}
    in_sync = {}
    for partition in assignment:
        path = "/brokers/topics/%s/partitions/%s/state" % (topic, partition)
        try:
            in_sync[partition] = json.loads(client.data(path).decode())["isr"]
        except NoNode:
            continue
    return {
        "settings": settings,
        "replication": max((len(replicas) for replicas in assignment.values()), default=0),
        "assignment": assignment,
        "in_sync": in_sync,
    }


def committed(logs: List[Log]) -> segments.GroupOffsets:
    """What consumer groups have committed, as this broker's replicas of the offsets topic say.

    Raises segments.UnreadableOffsets.
    """
    found: segments.GroupOffsets = {}
    for log in logs:
        if log.partition.topic == FIRST:
            parts = [
                (os.path.join(log.partition.folder, name), log.partition.lengths[name])
                for name in log.partition.segments
            ]
            segments.group_offsets(parts, found)
    return {
        group: {topic: offsets for topic, offsets in topics.items() if offsets}
        for group, topics in found.items()
        if any(topics.values())
    }


def add_members(logs: List[Log], snapshot: Snapshot) -> None:
    """Add the logs to a snapshot: a tree for each large topic, and bundles of small ones."""
    by_topic: Dict[str, List[Log]] = {}
    for log in logs:
        by_topic.setdefault(log.partition.topic, []).append(log)
    bundles: List[List[str]] = [[]]
    filled = 0
    for topic, its_logs in sorted(by_topic.items()):
        size = sum(log.bytes for log in its_logs)
        if size >= BUNDLE_BYTES:
            snapshot.add_cut_tree(
                "topic-" + file_name(topic), _files(its_logs), {"parts": [topic], "logs": True}
            )
            continue
        if filled + size > BUNDLE_BYTES:
            bundles.append([])
            filled = 0
        bundles[-1].append(topic)
        filled += size
    for number, topics in enumerate(bundles):
        if topics:
            files = [entry for topic in topics for entry in _files(by_topic[topic])]
            name = "topics-%04d" % number
            snapshot.add_cut_tree(name, files, {"parts": topics, "logs": True})


def _files(logs: List[Log]) -> List[List[Any]]:
    """Entries of a cut tree, partition after partition, segments in order of their offsets."""
    entries: List[List[Any]] = []
    for log in sorted(logs, key=lambda log: (log.partition.topic, log.partition.number)):
        partition = log.partition
        base = "%d/%s-%d" % (partition.log_dir, partition.topic, partition.number)
        entries.append([base, partition.folder, None])
        for name in sorted(partition.lengths):
            path = os.path.join(partition.folder, name)
            entries.append([base + "/" + name, path, partition.lengths[name]])
    return entries

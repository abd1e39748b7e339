"""Configuration of Java services is read as Java reads it, and names in it become others."""

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from components.archive.manifest import HostRecord, Member, ServiceRecord
from components.zookeeper.component import ZooKeeper
from components.zookeeper.host import files
from host.java import jar_version, parse_properties, replaced_properties
from host.mapping import mapped, replacements


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=b", {"a": "b"}),
        ("a = b \n", {"a": "b "}),
        ("a: b", {"a": "b"}),
        ("a b c", {"a": "b c"}),
        ("# c=d\n! e=f\n  a=b", {"a": "b"}),
        ("a=b\\\n   c\\\n  d", {"a": "bcd"}),
        ("a=x\\ty\\u017b\\=z", {"a": "x\ty\u017b=z"}),
        ("a\\=b=c", {"a=b": "c"}),
        ("a=1\na=2", {"a": "2"}),
        ("a", {"a": ""}),
        ("a=C:\\\\dir\\\\", {"a": "C:\\dir\\"}),
        ("server.1=host:2888:3888", {"server.1": "host:2888:3888"}),
        ("", {}),
    ],
)
def test_properties_are_read_as_java_does(text: str, values: dict[str, str]) -> None:
    assert parse_properties(text) == values


def test_only_the_named_properties_are_replaced() -> None:
    text = "# listeners=old\nlisteners=a,\\\n  b\nlog.dirs = /var\\\nzookeeper.connect=z\n"
    made = replaced_properties(text, {"listeners": "new", "absent": "x"})
    assert made == "# listeners=old\nlisteners=new\nlog.dirs = /var\\\nzookeeper.connect=z\n"


def test_the_version_is_in_a_jars_name(tmp_path: Path) -> None:
    for name in ("zookeeper-jute-3.5.9.jar", "zookeeper-3.5.9.jar", "other-1.jar"):
        (tmp_path / name).touch()
    assert jar_version(["/nowhere", str(tmp_path)], r"zookeeper-(\d[\d.]*?)\.jar") == "3.5.9"
    assert jar_version([str(tmp_path)], r"kafka-(\d+)\.jar") is None


def host(name: str, address: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": address,
        "hostname": name,
        "fqdn": name,
        "addresses": [],
    } | more


def test_names_and_addresses_of_old_hosts_become_those_of_new_ones() -> None:
    pairs = [
        {"old": host("kafka1", "20.1.1.1", fqdn="kafka1.old", addresses=["10.0.0.1", "172.17.0.1"]),
         "new": host("kafka2", "20.9.9.9", fqdn="kafka2.new", addresses=["10.9.0.1"])},
        {"old": host("kafka2", "20.1.1.2", addresses=["10.0.0.2", "172.17.0.1"]),
         "new": host("kafka1", "20.9.9.8", addresses=["10.9.0.2"])},
    ]  # fmt: skip
    names = replacements(pairs)
    text = (
        "PLAINTEXT://10.0.0.1:9092,10.0.0.11:1,kafka1:2,kafka2.old:3,kafka1.old:4,kafka2;kafka1-a"
    )
    assert mapped(text, names) == (
        "PLAINTEXT://10.9.0.1:9092,10.0.0.11:1,kafka2:2,kafka2.old:3,kafka2.new:4,kafka1;kafka1-a"
    )
    # An address that several hosts have, as every docker bridge, says nothing.
    assert mapped("172.17.0.1", names) == "172.17.0.1"
    assert replacements([{"old": host("a", "1.1.1.1"), "new": host("a", "1.1.1.1")}]) == {}


def snapshot(folder: Path, zxid: int, content: bytes = b"tree") -> Path:
    """A snapshot as FileSnap writes it: content, its checksum, a seal."""
    data = b"ZKSN" + content
    path = folder / f"snapshot.{zxid:x}"
    path.write_bytes(data + struct.pack(">q", zlib.adler32(data)) + b"\0\0\0\1/")
    return path


def log(folder: Path, *zxids: int) -> Path:
    """A transaction log as FileTxnLog writes it, with its padding."""
    data = b"ZKLG" + struct.pack(">iq", 2, 0)
    for zxid in zxids:
        entry = struct.pack(">qiqqi", 1, 2, zxid, 3, 4) + b"change"
        data += struct.pack(">qi", zlib.adler32(entry), len(entry)) + entry + b"B"
    path = folder / f"log.{zxids[0]:x}"
    path.write_bytes(data + bytes(1000))
    return path


def test_the_newest_snapshot_that_is_whole_counts(tmp_path: Path) -> None:
    whole = snapshot(tmp_path, 0x10)
    cut = snapshot(tmp_path, 0x20)
    cut.write_bytes(cut.read_bytes()[:-7])
    damaged = snapshot(tmp_path, 0x30)
    damaged.write_bytes(damaged.read_bytes().replace(b"tree", b"trie"))
    (tmp_path / "snapshot.ff").write_bytes(b"")
    assert files.newest_snapshot(str(tmp_path)) == str(whole)


def test_all_transactions_since_a_snapshot_are_needed(tmp_path: Path) -> None:
    logs = [log(tmp_path, zxid, zxid + 1) for zxid in (0x5, 0x8, 0x10, 0x20)]
    assert files.logs_since(str(tmp_path), 0x12) == [str(path) for path in logs[2:]]
    assert files.logs_since(str(tmp_path), 0x1) == [str(path) for path in logs]


def test_a_transaction_log_ends_with_its_last_whole_entry(tmp_path: Path) -> None:
    path = log(tmp_path, 7, 8, 9)
    whole = files.read_log(str(path))
    assert (whole.last, path.stat().st_size - whole.length) == (9, 1000)
    path.write_bytes(path.read_bytes()[: whole.length - 3])  # being written
    assert files.read_log(str(path)).last == 8
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert files.read_log(str(path)).last is None


def test_a_minority_of_servers_is_not_enough() -> None:
    servers = {f"server.{number}": f"zk{number}:2888:3888" for number in (1, 2, 3)}
    saved = {"status": "ok", "details": {"servers": servers}}
    failed: dict[str, Any] = {"status": "failed", "details": {}}
    assert ZooKeeper.conclude({"a": saved, "b": saved, "c": failed}) == []
    (problem,) = ZooKeeper.conclude({"a": saved, "b": failed, "c": failed})
    assert problem.startswith("only 1 of 3 servers were saved")


def server(number: int, zxid: int, status: str = "ok") -> HostRecord:
    """One ZooKeeper of three, as a manifest has it."""
    name = f"zk{number}"
    contents: dict[str, dict[str, Any]] = {
        "data": {"data": True},
        "configuration": {"part": "configuration"},
    }
    members = [
        Member(
            path=f"zookeeper/{name}/{it}.tar", kind="tree", stored_bytes=0, parts=[], content=what
        )
        for it, what in contents.items()
    ]
    servers = {f"server.{other}": f"10.0.0.{other}:2888:3888" for other in (1, 2, 3)}
    return HostRecord(
        host=name,
        address=f"10.0.0.{number}",
        status="ok" if status == "ok" else "failed",
        details={"zxid": zxid, "myid": number, "servers": servers} if status == "ok" else {},
        members=members if status == "ok" else [],
    )


def test_all_servers_get_the_data_of_the_one_that_had_seen_the_most() -> None:
    hosts = [server(1, 10), server(2, 12), server(3, 0, "failed")]
    record = ServiceRecord(name="zookeeper", status="failed", hosts=hosts)
    spread = {host.host: host for host in ZooKeeper.spread(record).hosts}
    for host in spread.values():
        paths = [member.path for member in host.members]
        assert paths[0] == "zookeeper/zk2/data.tar"
        assert "zookeeper/zk1/data.tar" not in paths
    assert spread["zk1"].members[1].path == "zookeeper/zk1/configuration.tar"
    # The server that was down is known by the others' configuration.
    assert [host.details["myid"] for host in spread.values()] == [1, 2, 3]
    assert len(spread["zk3"].members) == 1

"""Locks say whether their run is alive; ssh is called so that nothing is taken on trust."""

import itertools
import json
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from components.ssh import SshClients, SshHost
from program import host_keys, project
from program.locks import lock_of
from program.probe import probe

HOST = SshHost("db1", "10.0.0.1", 2222, "ops", "/key", ("ssh-ed25519 AAAA",))


@pytest.fixture(autouse=True)
def own_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")


def write_lock(tmp_path: Path, process: int, host: str) -> None:
    folder = tmp_path / ".pulumi/locks/organization/epibackup/nightly"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(
        json.dumps(
            {
                "pid": process,
                "username": "root",
                "hostname": host,
                "timestamp": "2026-11-22T01:30:00.123456789Z",
            }
        )
    )


def test_no_lock_is_no_lock() -> None:
    assert lock_of("nightly") is None


def test_a_lock_of_a_process_that_has_ended_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    write_lock(tmp_path, ended.pid, os.uname().nodename)
    lock = lock_of("nightly")
    assert lock is not None
    assert lock.alive is False
    assert "it has ended" in lock.describe()
    assert "2026-11-22 01:30:00 UTC" in lock.describe()


def test_a_number_that_another_program_has_now_is_not_the_run(tmp_path: Path) -> None:
    write_lock(tmp_path, os.getpid(), os.uname().nodename)
    lock = lock_of("nightly")
    assert lock is not None
    assert lock.alive is False


def test_a_lock_of_another_machine_may_be_alive(tmp_path: Path) -> None:
    write_lock(tmp_path, 1, "elsewhere")
    lock = lock_of("nightly")
    assert lock is not None
    assert lock.alive is None
    assert "unknown" in lock.describe()


def test_ssh_accepts_only_the_pinned_key_and_asks_nobody() -> None:
    with SshClients([HOST]) as clients:
        argv = clients.argv("db1", ["echo", "a b", "$(reboot)"])
        options = {word for flag, word in itertools.pairwise(argv) if flag == "-o"}
        known = next(word for word in options if word.startswith("UserKnownHostsFile="))
        assert Path(known.partition("=")[2]).read_text() == "db1 ssh-ed25519 AAAA\n"
    assert {"StrictHostKeyChecking=yes", "BatchMode=yes", "HostKeyAlias=db1"} <= options
    assert "GlobalKnownHostsFile=none" in options
    assert argv[-2:] == ["10.0.0.1", "echo 'a b' '$(reboot)'"]
    assert shlex.split(argv[-1]) == ["echo", "a b", "$(reboot)"]


def test_a_host_whose_key_is_not_known_is_not_contacted() -> None:
    unknown = SshHost("db1", "192.0.2.1", 22, "ops", "/key", ())
    found = probe([unknown], "/var/lib/epibackup", "0" * 64, "nightly")["db1"]
    assert found.problem is not None
    assert "is not known" in found.problem.message
    assert found.problem.hint == "compare and pin it: epibackup trust -s nightly db1"


def test_hashed_names_and_ports_are_found_and_revoked_keys_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text(f"[10.0.0.1]:2222 {public}\n@revoked 10.0.0.2 {public}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "10.0.0.1" not in known.read_text()
    assert host_keys.known_keys("db1", "10.0.0.1", 2222, {}) == (public,)
    assert host_keys.known_keys("db2", "10.0.0.2", 22, {}) == ()


def test_the_best_key_comes_first() -> None:
    keys = ["ssh-rsa AAA", "ssh-dss BBB", "ecdsa-sha2-nistp256 CCC", "ssh-ed25519 DDD comment"]
    assert host_keys.known_keys("x", "x", 22, {"x": keys}) == (
        "ssh-ed25519 DDD",
        "ecdsa-sha2-nistp256 CCC",
        "ssh-rsa AAA",
    )


def test_the_stacks_are_looked_for_where_pulumi_keeps_them_whatever_home_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sudo may keep another user's HOME, and Pulumi does not heed it for its backend."""
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert project.backend_folder() == home / ".local/state/epibackup"
    assert project.passphrase_file() == home / ".config/epibackup/passphrase"

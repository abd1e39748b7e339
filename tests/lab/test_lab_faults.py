"""Each fault does what it says, and is undone."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab import Cluster, Container, faults


def test_connection_refused_cuts_sessions_too(host_cluster: Cluster, host: Container) -> None:
    session = subprocess.Popen(
        [*host_cluster.ssh_command("host1"), "echo here; sleep 60"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == b"here\n"
    with faults.connection_refused(host):
        session.communicate(timeout=10)
        assert session.returncode == 255
        done = host_cluster.ssh("host1", "true")
        assert done.returncode == 255
        assert "refused" in done.stderr
    assert host_cluster.ssh("host1", "true").returncode == 0


def test_a_frozen_host_does_not_answer_until_it_thaws(
    host_cluster: Cluster, host: Container
) -> None:
    with faults.frozen(host):
        done = host_cluster.ssh("host1", "true", options=("-o", "ConnectTimeout=1"))
        assert done.returncode == 255
        assert "timed out" in done.stderr
    assert host_cluster.ssh("host1", "true").returncode == 0


def test_replaced_host_keys_are_refused_by_ssh(host_cluster: Cluster, host: Container) -> None:
    with faults.host_keys_replaced(host):
        done = host_cluster.ssh("host1", "true")
        assert done.returncode == 255
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert host_cluster.ssh("host1", "true").returncode == 0


def test_refused_sudo_is_refused(host_cluster: Cluster, host: Container) -> None:
    for fault in (faults.sudo_refused, faults.sudo_asks_for_password):
        with fault(host):
            done = host_cluster.ssh("host1", "sudo", "-n", "true")
            assert done.returncode == 1
            assert "password" in done.stderr
        assert host_cluster.ssh("host1", "sudo", "-n", "true").returncode == 0


def test_hidden_programs_are_not_found(host_cluster: Cluster, host: Container) -> None:
    with faults.python_hidden(host), faults.program_hidden(host, "zstd"):
        for name in ("python3", "python3.11", "zstd"):
            done = host_cluster.ssh("host1", name, "--version")
            assert done.returncode == 127, done.stdout
    assert host_cluster.ssh("host1", "python3", "--version").returncode == 0
    assert host_cluster.ssh("host1", "zstd", "--version").returncode == 0


def test_a_small_file_system_fills_up_and_goes_away(host_cluster: Cluster, host: Container) -> None:
    path = "/var/lib/lab-test"
    too_much = ("sudo", "dd", "if=/dev/zero", f"of={path}/file", "bs=1M", "count=3")
    with faults.small_file_system(host, path, 2 * 1024**2):
        done = host_cluster.ssh("host1", *too_much)
        assert "No space left" in done.stderr
    assert not host.exists(path)


def test_a_full_file_system_is_full_over_what_was_there(
    host_cluster: Cluster, host: Container
) -> None:
    with faults.full_file_system(host, "/srv"):
        done = host_cluster.ssh("host1", "sudo", "dd", "if=/dev/zero", "of=/srv/x", "count=1")
        assert "No space left" in done.stderr
    assert host.run(["ls", "-A", "/srv"]).stdout == ""


def test_a_stopped_unit_is_started_again(host: Container) -> None:
    def state() -> str:
        return host.run(["systemctl", "is-active", "dbus.socket"], check=False).stdout

    with faults.unit_stopped(host, "dbus.socket"):
        assert state() == "inactive\n"
    assert state() == "active\n"


def test_kill_ends_what_matches_on_this_host_only(host: Container) -> None:
    outside = subprocess.Popen(["sleep", "61.5"])
    try:
        host.run(["systemd-run", "--service-type=exec", "--unit=victim", "sleep", "61.5"])
        assert faults.kill(host, r"sleep 61\.5$") == 1
        deadline = time.monotonic() + 5
        while "signal" not in (result := unit_result(host, "victim")):
            assert time.monotonic() < deadline, result
            time.sleep(0.02)
        assert outside.poll() is None
    finally:
        outside.kill()
        outside.wait()
        host.run(["systemctl", "reset-failed"])


def test_stopped_processes_go_on_afterwards(host: Container) -> None:
    with ticking(host, "/run/stopped"):
        with faults.processes_stopped(host, "/run/stopped") as count:
            assert count >= 1  # the loop, and perhaps a child that it has just forked
            assert ticks(host, "/run/stopped", seconds=0.3) == 0
        assert ticks(host, "/run/stopped", seconds=0.3) > 0


def test_slowed_processes_get_less_done(host: Container) -> None:
    with ticking(host, "/run/slowed"):
        with faults.processes_slowed(host, "/run/slowed", share=0.2):
            slow = ticks(host, "/run/slowed", seconds=1)
        assert 0 < slow < ticks(host, "/run/slowed", seconds=1) * 0.6


@contextmanager
def ticking(host: Container, path: str) -> Iterator[None]:
    """Something that writes a dot into a file every hundredth of a second."""
    host.write(path, "")
    loop = f"while sleep 0.01; do printf . >> {path}; done"
    host.run(["systemd-run", "--service-type=exec", "--unit=ticking", "sh", "-c", loop])
    try:
        yield
    finally:
        host.run(["systemctl", "stop", "ticking"])
        host.run(["rm", path])


def ticks(host: Container, path: str, seconds: float) -> int:
    before = len(host.read(path))
    time.sleep(seconds)
    return len(host.read(path)) - before


def unit_result(host: Container, unit: str) -> str:
    return host.run(["systemctl", "show", "--value", "--property=Result", unit]).stdout

"""Hosts of the lab are real hosts, and leave nothing on the machine."""

import os
import signal
import time
from pathlib import Path

import pytest

from lab import Cluster, Container, LabError, Site, cgroups, nspawn
from lab.container import HOST_KEY_TYPES


def test_a_host_has_systemd_as_pid_1_and_no_failed_unit(host: Container) -> None:
    assert host.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert host.run(["systemctl", "--failed", "--no-legend"]).stdout == ""


def test_the_login_user_becomes_root_by_sudo_over_ssh(host_cluster: Cluster) -> None:
    assert host_cluster.ssh("host1", "id", "-un").stdout == "operations\n"
    assert host_cluster.ssh("host1", "sudo", "-n", "id", "-un").stdout == "root\n"
    assert host_cluster.ssh("host1", "hostname").stdout == "host1\n"
    assert host_cluster.private_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", HOST_KEY_TYPES)
def test_known_hosts_has_the_key_of_each_type(host_cluster: Cluster, kind: str) -> None:
    offered = {
        "ed25519": "ssh-ed25519",
        "ecdsa": "ecdsa-sha2-nistp256",
        "rsa": "rsa-sha2-512",
    }
    only = ("-o", f"HostKeyAlgorithms={offered[kind]}", "-o", "StrictHostKeyChecking=yes")
    done = host_cluster.ssh("host1", "true", options=only)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_machine_is_visible_in_a_host(host: Container) -> None:
    markers = [
        Path(folder) / f"epibackup-lab-marker-{os.getpid()}"
        for folder in ("/tmp", "/var/tmp", "/root", "/opt", "/srv", "/etc", "/usr/local")  # noqa: S108
    ]
    try:
        for marker in markers:
            marker.touch()
        seen = [str(marker) for marker in (*markers, Path(__file__)) if host.exists(str(marker))]
    finally:
        for marker in markers:
            marker.unlink(missing_ok=True)
    assert seen == []
    assert f" {os.getpid()} " not in host.run(["ps", "-e", "-o", "pid="]).stdout
    assert host.read("/etc/resolv.conf") == ""
    machine_id = Path("/etc/machine-id")
    if machine_id.exists():
        assert host.read("/etc/machine-id") != machine_id.read_text()


def test_a_read_only_overlay_can_be_mounted_over_etc_in_a_host(host_cluster: Cluster) -> None:
    """A configuration is checked this way before it is swapped in."""
    script = (
        "mkdir -p /var/lib/lab-test/etc && echo new > /var/lib/lab-test/etc/hostname"
        " && mount -t overlay -o lowerdir=/var/lib/lab-test/etc:/etc overlay /etc"
        " && cat /etc/hostname /etc/hosts && ! touch /etc/written"
    )
    done = host_cluster.ssh("host1", "sudo", "-n", "unshare", "--mount", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("new\n")
    assert "host1" in done.stdout
    outside = host_cluster.ssh("host1", "cat", "/etc/hostname")
    assert outside.stdout == "host1\n"
    host_cluster.hosts["host1"].run(["rm", "-r", "/var/lib/lab-test"])


def test_a_folder_of_the_image_is_renamed_and_a_file_linked_as_on_a_disk(
    clean_host: Container,
) -> None:
    """A restore swaps folders by rename, and a snapshot links files."""
    swap = "mv -T /etc/haproxy /etc/haproxy.before && mkdir /etc/haproxy"
    rename = "import os; os.rename('/etc/ssl', '/etc/ssl.before')"
    link = "ln /etc/passwd /etc/linked"
    for command in (["sh", "-c", swap], ["python3", "-c", rename], ["sh", "-c", link]):
        clean_host.run(command)
    assert clean_host.run(["stat", "--format=%h", "/etc/linked"]).stdout == "2\n"


def test_a_timer_starts_a_service_again_when_nobody_is_left_to_do_it(host: Container) -> None:
    """What a killed backup leans on: `systemd-run --on-active`."""
    host.run(
        ["systemd-run", "--on-active=0.2s", "--timer-property=AccuracySec=10ms", "touch", "/a"]
    )
    deadline = time.monotonic() + 10
    while not host.exists("/a"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.run(["rm", "/a"])


def test_units_of_one_name_on_two_hosts_are_two_units(site: Site) -> None:
    """Hosts that shared control groups would end each other's services."""
    one, other = (site.cluster.hosts[name] for name in ("loadbalancer1", "loadbalancer2"))
    for host in (one, other):
        host.run(["systemd-run", "--unit=twin", "sleep", "60"])
    one.run(["systemctl", "stop", "twin"])
    assert other.run(["systemctl", "is-active", "twin"]).stdout == "active\n"
    other.run(["systemctl", "stop", "twin"])


def test_hosts_know_each_other_by_name(site: Site) -> None:
    host = site.cluster.hosts["loadbalancer1"]
    found = host.run(["getent", "hosts", "postgresql2"]).stdout.split()
    assert found[0] == site.cluster.hosts["postgresql2"].address


def test_a_host_cannot_use_more_memory_than_it_has(host: Container) -> None:
    hungry = "x = bytearray(1536 * 1024 ** 2)"
    unit = ["systemd-run", "--quiet", "--wait", "--pipe", "python3", "-c", hungry]
    assert host.run(unit, check=False).returncode != 0
    assert host.run(["systemctl", "is-active", "ssh"]).stdout == "active\n"
    host.run(["systemctl", "reset-failed"])


def test_stop_leaves_nothing_on_the_machine_and_start_finds_the_files(
    host_cluster: Cluster, clean_host: Container
) -> None:
    clean_host.write("/var/lib/kept", "kept")
    inside = {process.pid for process in clean_host.processes()}
    assert inside
    began = time.monotonic()
    clean_host.stop()
    assert time.monotonic() - began < 10
    assert not clean_host.is_running
    assert_nothing_left(clean_host, inside)

    clean_host.start()
    assert clean_host.read("/var/lib/kept") == "kept"
    assert host_cluster.ssh("host1", "true").returncode == 0


def test_a_host_starts_again_after_kill_9_of_its_systemd_nspawn(
    host_cluster: Cluster, clean_host: Container
) -> None:
    clean_host.write("/var/lib/kept", "kept")
    inside = {process.pid for process in clean_host.processes()}
    supervisor = nspawn.find(clean_host.machine)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    clean_host.start()
    assert clean_host.read("/var/lib/kept") == "kept"
    assert host_cluster.ssh("host1", "true").returncode == 0
    assert not inside & {process.pid for process in clean_host.processes()}

    clean_host.kill()
    assert_nothing_left(clean_host, inside)


def test_stop_ends_a_host_that_does_not_shut_down_in_time(clean_host: Container) -> None:
    clean_host.write(
        "/etc/systemd/system/stubborn.service",
        "[Service]\nExecStart=sleep infinity\nExecStop=sleep 600\nTimeoutStopSec=600\n",
    )
    clean_host.run(["systemctl", "start", "stubborn"])
    began = time.monotonic()
    clean_host.stop(timeout_seconds=1)
    assert time.monotonic() - began < 5
    assert_nothing_left(clean_host, set())


def test_reset_takes_a_host_back_to_where_it_was_saved(host_cluster: Cluster) -> None:
    host = host_cluster.hosts["host1"]
    keys = host.known_hosts()
    host.write("/var/lib/new", "new")
    host.run(["rm", "-r", "/etc/ssh", "/home/operations"])
    host_cluster.reset()
    assert not host.exists("/var/lib/new")
    assert host_cluster.ssh("host1", "true").returncode == 0
    assert host.known_hosts() == keys


def test_a_second_start_of_a_running_host_changes_nothing(host_cluster: Cluster) -> None:
    host = host_cluster.hosts["host1"]
    before = nspawn.find(host.machine)
    host_cluster.start(lambda _: None)
    assert nspawn.find(host.machine) == before


def test_two_hosts_cannot_have_one_address(host_cluster: Cluster, tmp_path: Path) -> None:
    host = host_cluster.hosts["host1"]
    twin = Container(
        "twin",
        host.address,
        machine="epibackup-twin",
        folder=tmp_path,
        image=host.image,
        authorized_key=host_cluster.private_key.with_suffix(".pub"),
        names={},
    )
    with pytest.raises(LabError, match="in use"):
        twin.start()
    assert not twin.is_running


def test_run_gives_back_what_a_command_says_and_how_it_ends(host: Container) -> None:
    assert host.run(["cat"], input="in and out: ż\n").stdout == "in and out: ż\n"
    assert host.run(["id", "-un"], user="operations").stdout == "operations\n"
    assert host.run(["sh", "-c", "exit 7"], check=False).returncode == 7
    with pytest.raises(LabError, match="exit 3:\nthe reason"):
        host.run(["sh", "-c", "echo the reason >&2; exit 3"])
    with pytest.raises(LabError, match="took too long"):
        host.run(["sleep", "60"], timeout_seconds=0.2)


def assert_nothing_left(host: Container, processes: set[int]) -> None:
    """No process, mount, control group or run-time file of a host is on the machine."""
    deadline = time.monotonic() + 5  # what has ended is there until its new parent has noticed
    while left := [pid for pid in processes if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert str(host.folder) not in Path("/proc/self/mountinfo").read_text()
    assert cgroups.group_processes(host.machine) == set()
    for top in ("/sys/fs/cgroup", "/run/systemd/nspawn"):
        found = [folder for folder, _, _ in os.walk(top) if host.machine in folder]
        assert found == []

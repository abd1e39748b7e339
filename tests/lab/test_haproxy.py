"""HAProxy: all hosts, links, and configurations that must not be put in place."""

import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from lab.services.haproxy import SCL_LAYOUT, HAProxy
from tests.lab.product import Product, product, rewrite_member


@pytest.fixture(scope="module")
def saved(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An archive of the site as it is at first, for tests that only restore."""
    folder = tmp_path_factory.mktemp("saved")
    with product(site.cluster, folder, "test-haproxy-saved") as made:
        made.configure(services=["haproxy"])
        yield made.target / made.backup()["archive_key"]


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-haproxy") as made:
        made.configure(services=["haproxy"])
        yield made


def main_process(balancer: HAProxy) -> str:
    show = ["systemctl", "show", "-p", "MainPID", "--value", "haproxy"]
    return balancer.host.run(show).stdout.strip()


def test_every_load_balancer_comes_back_and_serves(epibackup: Product, clean_site: Site) -> None:
    before = [balancer.fingerprint() for balancer in clean_site.load_balancers]
    pages = [balancer.fetch(tls=True) for balancer in clean_site.load_balancers]
    epibackup.backup()
    for balancer in clean_site.load_balancers:
        balancer.destroy()
        assert not balancer.is_running
    epibackup.restore("latest")
    assert [balancer.fingerprint() for balancer in clean_site.load_balancers] == before
    assert [balancer.fetch(tls=True) for balancer in clean_site.load_balancers] == pages


def test_the_software_collections_links_are_kept(epibackup: Product, clean_site: Site) -> None:
    host = clean_site.load_balancers[0].host
    clean_site.load_balancers[0].destroy()
    balancer = HAProxy(host, SCL_LAYOUT)
    balancer.create()
    before = balancer.fingerprint()
    epibackup.backup()
    balancer.destroy()
    epibackup.restore("latest", "--host", host.name)
    assert balancer.fingerprint() == before
    assert balancer.is_running


def test_a_load_balancers_files_come_back_on_another_host(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    first, second = clean_site.load_balancers
    epibackup.give(saved)
    report = epibackup.restore(
        "latest", "--host", first.host.name, "--host-map", f"{first.host.name}={second.host.name}"
    )
    assert [item["host"] for item in report["hosts"]] == [second.host.name]
    certificate = "/etc/ssl/haproxy"
    listing = ["sh", "-c", f"cat {certificate}/*.pem | sha256sum"]
    assert first.host.run(listing).stdout == second.host.run(listing).stdout


def test_a_host_without_haproxy_is_told_to_install_it(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    epibackup.give(saved)
    name, other = clean_site.load_balancers[0].host.name, clean_site.primary.host
    other.run(["rm", "/lib/systemd/system/haproxy.service", "/etc/init.d/haproxy"])
    other.run(["systemctl", "daemon-reload"])
    error = epibackup.restore(
        "latest", "--host", name, "--host-map", f"{name}={other.name}", code=1
    )["error"]
    assert "HAProxy is not installed on this host" in error["message"]
    assert "install it first" in error["hint"]
    assert not other.exists("/etc/haproxy/haproxy.cfg")


def rewrite_configuration(archive: Path, host: str, add: str, folder: Path) -> None:
    """Append lines to a saved haproxy.cfg, with all checksums right."""
    member = f"haproxy/{host}/files.tar.zst"
    with zipfile.ZipFile(archive) as stored:
        data = stored.read(member)
    tree = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=tree, check=True)
    with (folder / "etc/haproxy/haproxy.cfg").open("a") as config:
        config.write(add)
    tree = subprocess.run(
        ["tar", "-c", "-C", str(folder), "."], capture_output=True, check=True
    ).stdout
    packed = subprocess.run(["zstd", "-qc"], input=tree, capture_output=True, check=True).stdout
    rewrite_member(archive, member, packed)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        ("\nfrontend broken\n  use_backend nowhere\n", "does not pass haproxy -c"),
        (
            "\nfrontend missing\n  bind 127.0.0.1:9999 ssl crt /etc/ssl/haproxy/none.pem\n",
            "does not pass haproxy -c",
        ),
    ],
)
def test_a_configuration_that_is_wrong_is_never_put_in_place(
    epibackup: Product, saved: Path, clean_site: Site, tmp_path: Path, add: str, message: str
) -> None:
    balancer = clean_site.load_balancers[0]
    archive = epibackup.give(saved)
    rewrite_configuration(archive, balancer.host.name, add, tmp_path / "files")
    before, process = balancer.fingerprint(), main_process(balancer)
    error = epibackup.restore("latest", "--host", balancer.host.name, code=1)["error"]
    assert message in error["message"]
    assert "nothing live was changed" in error["message"]
    assert balancer.fingerprint() == before
    assert main_process(balancer) == process, "it was restarted for nothing"
    assert epibackup.leftovers() == {}


def test_a_service_that_does_not_come_up_gets_its_old_files_back(
    epibackup: Product, saved: Path, clean_site: Site, tmp_path: Path
) -> None:
    """haproxy -c does not see that another program has the port."""
    balancer = clean_site.load_balancers[0]
    archive = epibackup.give(saved)
    taken = f"\nfrontend taken\n  mode tcp\n  bind {balancer.host.address}:2222\n"
    rewrite_configuration(archive, balancer.host.name, taken, tmp_path / "files")
    before = balancer.fingerprint()
    error = epibackup.restore("latest", "--host", balancer.host.name, code=1)["error"]
    assert "haproxy.service did not come up" in error["message"]
    assert balancer.is_running
    assert balancer.fingerprint() == before
    assert epibackup.leftovers() == {}


def test_a_restore_that_was_killed_while_swapping_is_undone_by_the_next(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    """What a kill between two renames leaves, made by hand: the journal says what was begun."""
    balancer = clean_site.load_balancers[0]
    host = balancer.host
    epibackup.give(saved)
    before = balancer.fingerprint()
    folder = "/var/lib/epibackup/restore/20260101T000000Z/haproxy"
    host.run(["mkdir", "-p", folder])
    host.write(
        f"{folder}/swap.json",
        '{"paths": ["/etc/haproxy"], "run": "20260101T000000Z"}',
        mode=0o600,
    )
    host.run(["mv", "/etc/haproxy", "/etc/haproxy.before-20260101T000000Z"])
    steps = epibackup.json("restore", "latest", "--host", host.name, "--dry-run")["hosts"][0]
    undo = "put back what a restore that was killed has replaced: /etc/haproxy"
    assert steps["steps"][0] == undo
    assert not host.exists("/etc/haproxy"), "a dry run has changed something"
    report = epibackup.restore("latest", "--host", host.name)
    warnings = report["hosts"][0]["warnings"]
    assert warnings == ["an earlier restore was killed; its /etc/haproxy is back"]
    assert balancer.fingerprint() == before
    assert not host.exists("/etc/haproxy.before-20260101T000000Z")
    epibackup.json("clean", "--remove")

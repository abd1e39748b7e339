"""The whole thread: back up, destroy, restore, compare – through the real engine."""

import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from lab.services.postgresql import differences
from host.snapshot import file_name
from tests.lab.product import Product, product


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-thread") as made:
        yield made


def destroy_data(site: Site) -> None:
    """What an operator dreads: databases and roles dropped, configuration deleted."""
    for name in site.primary.databases():
        if name not in ("postgres", "template1"):
            site.primary.sql(f'DROP DATABASE "{name.replace(chr(34), chr(34) * 2)}"')
    for balancer in site.load_balancers:
        balancer.destroy()


def test_all_that_was_destroyed_comes_back_as_it_was(epibackup: Product, clean_site: Site) -> None:
    before = clean_site.fingerprint()
    made = epibackup.backup()
    assert made["status"] == "ok"
    assert epibackup.archives() == [made["archive_key"]]
    assert epibackup.leftovers() == {}

    destroy_data(clean_site)
    assert clean_site.fingerprint() != before
    report = epibackup.restore("latest")
    after = clean_site.fingerprint()
    assert differences(before, after) == []
    # The standby has it all too, and is still a standby.
    clean_site.primary.wait_for_standby()
    assert not clean_site.standbys[0].is_primary
    assert {item["host"] for item in report["hosts"]} == set(clean_site.cluster.hosts)
    assert epibackup.leftovers() == {}


def test_what_is_still_there_stays_beside_until_it_is_discarded(
    epibackup: Product, clean_site: Site
) -> None:
    before = clean_site.fingerprint()
    run = epibackup.backup()["run"]
    clean_site.primary.sql("CREATE TABLE after_the_backup (x int)", "shop")
    (balancer, *_) = clean_site.load_balancers
    balancer.host.run(["sed", "-i", "$a# changed after the backup", "/etc/haproxy/haproxy.cfg"])
    report = epibackup.restore(run)
    assert differences(before, clean_site.fingerprint()) == [
        line for line in differences(before, clean_site.fingerprint()) if f".before-{run}" in line
    ]
    kept = {item["host"]: item["kept"] for item in report["hosts"]}
    assert f"database shop.before-{run}" in kept["postgresql1"]
    assert kept["loadbalancer1"] == [f"/etc/haproxy.before-{run}"]
    assert kept["loadbalancer2"] == []
    assert "after_the_backup" in clean_site.primary.sql(
        "SELECT relname FROM pg_class WHERE relname = 'after_the_backup'", f"shop.before-{run}"
    )
    # The next run does not save old data again, and says so.
    warned = epibackup.backup("--service", "postgresql")["manifest"]["services"][0]
    warnings = [warning for host in warned["hosts"] for warning in host["warnings"]]
    assert any(f"shop.before-{run}" in warning for warning in warnings), warnings

    epibackup.json("clean", "--discard", "--remove")
    assert differences(before, clean_site.fingerprint()) == []
    assert epibackup.json("clean")["loadbalancer1"]["kept"] == []


def test_a_dry_run_prints_every_step_and_changes_nothing(epibackup: Product, site: Site) -> None:
    epibackup.backup()
    before = site.fingerprint()
    done = epibackup.run("restore", "latest", "--dry-run")
    assert done.returncode == 0, done.stderr
    for text in (
        "check the saved configuration with haproxy -c",
        "create the database shop.new-",
        "compare the rows of shop with the backup",
        "end the connections to shop, rename it to shop.before-",
        "dry run: nothing was changed",
    ):
        assert text in done.stderr
    assert site.fingerprint() == before
    assert epibackup.leftovers() == {}


def test_the_steps_that_are_done_are_those_of_the_dry_run(
    epibackup: Product, clean_site: Site
) -> None:
    epibackup.backup()
    planned = epibackup.json("restore", "latest", "--dry-run")
    done = epibackup.restore("latest")
    assert [item["steps"] for item in done["hosts"]] == [item["steps"] for item in planned["hosts"]]
    assert clean_site.primary.is_primary


def test_pulumi_up_and_epibackup_share_stack_and_catalog(epibackup: Product, site: Site) -> None:
    first = epibackup.backup()
    run = "20261122T013000Z"
    done = epibackup.pulumi("up", "--yes", "--skip-preview", EPIBACKUP_RUN_ID=run)
    assert done.returncode == 0, done.stdout + done.stderr
    last = epibackup.backup()
    catalog = epibackup.catalog()
    assert [entry["run"] for entry in catalog] == sorted(
        [first["run"], run, last["run"]], reverse=True
    )
    for entry in catalog:
        assert entry["verified"] is True
        assert entry["encrypted"] is False
        assert (epibackup.target / entry["key"]).stat().st_size == entry["bytes"]
    outputs = json.loads(epibackup.pulumi("stack", "output", "--json").stdout)
    assert set(outputs) == {"run", "status", "archive_key", "archive", "manifest", "catalog"}
    assert outputs["run"] == last["run"]


def test_a_preview_shows_the_plan_and_contacts_no_host(epibackup: Product, site: Site) -> None:
    unreachable = {name: "ssh-ed25519 AAAAnot-their-key" for name in site.cluster.hosts}
    epibackup.configure(host_keys=unreachable, ssh={"key_file": "/no/such/key"})
    epibackup.pulumi("stack", "init", epibackup.stack)
    done = epibackup.pulumi("preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "postgresql-postgresql1 create" in done.stdout
    assert "archive-make create" in done.stdout
    assert "the private key /no/such/key does not exist" in done.stdout
    assert epibackup.archives() == []


def test_a_saved_plan_is_carried_out_with_the_same_run(epibackup: Product, site: Site) -> None:
    epibackup.backup()
    run = {"EPIBACKUP_RUN_ID": "20261122T023000Z"}
    plan = str(epibackup.target.parent / "plan.json")
    assert epibackup.pulumi("preview", "--save-plan", plan, **run).returncode == 0
    done = epibackup.pulumi("up", "--yes", "--skip-preview", "--plan", plan, **run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert epibackup.catalog()[0]["run"] == run["EPIBACKUP_RUN_ID"]


def test_nothing_secret_is_in_state_history_or_outputs(epibackup: Product, site: Site) -> None:
    epibackup.backup()
    epibackup.backup()
    key = site.cluster.private_key.read_text().splitlines()[1]
    hashes = site.primary.sql("SELECT rolpassword FROM pg_authid WHERE rolpassword <> ''").split()
    assert hashes
    folder = epibackup.target.parent
    for path in folder.rglob("*"):
        if path.is_file() and epibackup.target not in path.parents:
            text = path.read_bytes()
            assert key.encode() not in text, path
            for value in hashes:
                assert value.encode() not in text, path


def test_everything_left_on_disk_is_for_its_owner_only(epibackup: Product, site: Site) -> None:
    epibackup.backup()
    folder = epibackup.target.parent
    assert all(path.stat().st_mode & 0o077 == 0 for path in epibackup.target.iterdir())
    assert (folder / "config/epibackup/passphrase").stat().st_mode & 0o077 == 0
    for host in site.cluster.hosts.values():
        assert host.run(["stat", "-c", "%a %U", "/var/lib/epibackup"]).stdout.split() == [
            "700",
            "root",
        ]


@pytest.mark.parametrize("container", ["zip", "tar.gz"])
def test_a_person_gets_everything_back_with_ordinary_tools(
    epibackup: Product, clean_site: Site, container: str
) -> None:
    """What RESTORE.md says, on a host that has never seen epibackup."""
    before = clean_site.fingerprint()
    made = epibackup.backup("--format", container)
    host = clean_site.primary.host
    archive = epibackup.target / made["archive_key"]
    host.write(f"/root/{archive.name}", archive.read_bytes(), mode=0o600)
    unpack = {"zip": ["unzip", "-q"], "tar.gz": ["tar", "xzf"]}[container]
    host.run(["mkdir", "-m", "700", "/root/restore"])
    host.run(["env", "-C", "/root/restore", *unpack, f"/root/{archive.name}"])
    notes = host.read("/root/restore/RESTORE.md")

    check = notes.split("```sh\n")[1].split("```")[0].strip()
    host.run(["env", "-C", "/root/restore", "bash", "-ec", check])
    for line in notes.splitlines():
        if line.startswith("- `"):
            host.run(["env", "-C", "/root/restore", "bash", "-ec", line[3:-1]])

    destroy_data(clean_site)
    folder = "/root/restore/postgresql/postgresql1"
    server = clean_site.primary
    server.sql(host.read(f"{folder}/globals.sql").replace("CREATE ROLE postgres;", ""), "postgres")
    for database in json.loads(host.read(f"{folder}/databases.json")):
        if database["name"] in ("postgres", "template1"):
            continue
        restore_by_hand(clean_site, folder, database)
    rows = "SELECT sum(n) FROM (SELECT count(*) AS n FROM customers) s"
    assert server.sql(rows, "shop").strip() != ""
    after = clean_site.fingerprint()
    missing = [key for key in before if key.startswith("postgresql/") and key not in after]
    assert missing == []
    balancer = clean_site.load_balancers[0]
    for path in ("etc/haproxy", "etc/ssl/haproxy"):
        with zipfile_or_tar(archive, f"haproxy/{balancer.host.name}/files.tar.zst") as data:
            unpacked = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True)
        balancer.host.run(["tar", "-x", "-C", "/", f"./{path}"], input=unpacked.stdout)
    balancer.start()
    assert balancer.is_running


def restore_by_hand(site: Site, folder: str, database: dict[str, str]) -> None:
    """The commands of RESTORE.md for one database."""
    server, name = site.primary, database["name"]
    stored = file_name(name)
    options = [
        *("-T", "template0", "-E", database["encoding"], "-O", database["owner"]),
        *("--lc-collate", database["collate"], "--lc-ctype", database["ctype"]),
    ]
    environment = server.environment("postgres")
    server.host.run(
        [server.tool("createdb"), *options, name], user="postgres", environment=environment
    )
    dump = server.host.run(["cat", f"{folder}/{stored}.dump"]).stdout
    server.host.run(
        [server.tool("pg_restore"), "--exit-on-error"],
        input=dump,
        user="postgres",
        environment=server.environment(name),
    )


def zipfile_or_tar(archive: Path, member: str) -> "Member":
    return Member(archive, member)


class Member:
    """A member's bytes, by Python's own libraries."""

    def __init__(self, archive: Path, member: str) -> None:
        self._archive = archive
        self._member = member

    def __enter__(self) -> bytes:
        if self._archive.suffix == ".zip":
            with zipfile.ZipFile(self._archive) as archive:
                return archive.read(self._member)
        return subprocess.run(
            ["tar", "xzOf", str(self._archive), self._member], capture_output=True, check=True
        ).stdout

    def __exit__(self, *_: object) -> None:
        return None

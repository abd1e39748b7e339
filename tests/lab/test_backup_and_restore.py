"""The whole thread: back up, destroy, restore, compare – through the real engine."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.snapshot import file_name
from lab import Site, faults
from lab.services.postgresql import clear, differences
from tests.lab.product import ROOT, Product, product


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-thread") as made:
        yield made


def destroy_data(site: Site) -> None:
    """What an operator dreads: databases, roles and configuration are gone."""
    clear(site.primary)
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


def test_make_backup_ends_with_what_is_there_and_what_to_try(
    epibackup: Product, site: Site
) -> None:
    command = ["make", "backup", f"BUILD={site.cluster.build_directory}"]
    refused = subprocess.run(
        command, cwd=ROOT, env=epibackup.environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "TARGET is missing" in refused.stderr
    done = subprocess.run(
        [*command, f"TARGET={epibackup.target}", f"STACK={epibackup.stack}"],
        cwd=ROOT,
        env=epibackup.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = epibackup.archives()
    for text in (
        f"archive {epibackup.target}/{archive}",
        "postgresql/postgresql1/shop.dump.zst",
        "==> The catalog",
        f".venv/bin/epibackup restore latest -s {epibackup.stack} --dry-run",
    ):
        assert text in done.stderr
    assert "dropdb" not in done.stderr, "that is for the demo only"


def test_a_person_reads_what_was_done_and_nothing_else(epibackup: Product, site: Site) -> None:
    """No line of Pulumi's own, and one for each step at its end."""
    done = epibackup.run("backup")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    steps = [line for line in lines if line.endswith(": done")]
    hosts = site.cluster.hosts
    assert sorted(steps) == sorted(
        [*(f"agent on {name}: done" for name in hosts)]
        + [f"{'haproxy' if 'load' in name else 'postgresql'} on {name}: done" for name in hosts]
        + ["archive: done"]
    )
    told = [line for line in lines if line not in steps]
    assert told[0].startswith("run ")
    assert told[0].endswith(": ok")
    assert told[1].startswith(f"archive {epibackup.target}/epibackup_")
    assert told[-1].startswith("restore it:  epibackup restore ")
    assert len(told) == 2 + 1 + len(hosts) + 1 + 2, "a table, databases, and what to do next"


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


def test_an_incomplete_run_fails_pulumi_up_and_is_in_the_catalog(
    epibackup: Product, site: Site
) -> None:
    good = epibackup.backup()["run"]
    with faults.unit_stopped(site.primary.host, "postgresql@15-main"):
        done = epibackup.pulumi("up", "--yes", "--skip-preview")
    site.primary.wait_for_standby()
    assert done.returncode != 0
    assert "is incomplete; its archive has everything but:" in done.stdout
    newest, oldest = epibackup.catalog()
    assert newest["status"] == "incomplete"
    assert newest["key"] in epibackup.published()
    assert oldest["run"] == good


def test_a_preview_shows_the_plan_and_contacts_no_host(epibackup: Product, site: Site) -> None:
    unreachable = dict.fromkeys(site.cluster.hosts, "ssh-ed25519 AAAAnot-their-key")
    epibackup.configure(host_keys=unreachable, ssh={"key_file": "/no/such/key"})
    made = epibackup.pulumi("stack", "init")
    assert made.returncode == 0, made.stderr
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
    assert run["EPIBACKUP_RUN_ID"] in [entry["run"] for entry in epibackup.catalog()]


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
    for script in ("globals.sql", "databases.sql"):
        text = host.read(f"{folder}/{script}")
        host.run([server.tool("psql"), "-d", "postgres"], input=text, user="postgres")
    for database in json.loads(host.read(f"{folder}/databases.json")):
        if database["name"] in ("postgres", "template1"):
            continue
        restore_by_hand(clean_site, folder, database)
    after = clean_site.fingerprint()
    missing = [key for key in before if key.startswith("postgresql/") and key not in after]
    assert missing == []
    balancer = clean_site.load_balancers[0]
    for path in ("etc/haproxy", "etc/ssl/haproxy"):
        data = stored_bytes(archive, f"haproxy/{balancer.host.name}/files.tar.zst")
        unpacked = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True)
        balancer.host.run(["tar", "-x", "-C", "/", f"./{path}"], input=unpacked.stdout)
    balancer.start()
    assert balancer.is_running


def restore_by_hand(site: Site, folder: str, database: dict[str, str]) -> None:
    """The commands of RESTORE.md for one database."""
    server, name = site.primary, database["name"]
    stored = file_name(name)
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    server.host.run(
        [server.tool("pg_restore"), "--exit-on-error", "-d", f"dbname='{quoted}'"],
        input=server.host.run(["cat", f"{folder}/{stored}.dump"]).stdout,
        user="postgres",
    )


def stored_bytes(archive: Path, member: str) -> bytes:
    """A member as it is stored, by unzip or tar."""
    command = ["unzip", "-p"] if archive.suffix == ".zip" else ["tar", "xzOf"]
    return subprocess.run([*command, archive, member], capture_output=True, check=True).stdout

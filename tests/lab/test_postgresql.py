"""PostgreSQL: every version and layout, one database, another name, another host, wrong data."""

import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Cluster, Container, Site, faults
from lab.machine import Report
from lab.services.postgresql import (
    PostgreSQL,
    WriteLoad,
    clear,
    differences,
    fill,
    fingerprint,
    highest_number,
    install_version,
)
from tests.lab.product import Product, build_directory, product, rewrite_member

SHOP_DUMP = "postgresql/postgresql1/shop.dump.zst"


@pytest.fixture(scope="module")
def saved(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An archive of the site as it is at first, for tests that only restore."""
    folder = tmp_path_factory.mktemp("saved")
    with product(site.cluster, folder, "test-postgresql-saved") as made:
        made.configure(services=["postgresql"])
        yield made.target / made.backup()["archive_key"]


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-postgresql") as made:
        made.configure(services=["postgresql"])
        yield made


@pytest.fixture
def alone(host_cluster: Cluster, clean_host: Container, tmp_path: Path) -> Iterator[Product]:
    """A product whose only host is an empty one, in the group postgresql."""
    folder = tmp_path / "alone"
    folder.mkdir()
    with product(host_cluster, folder, "test-postgresql-alone") as made:
        groups = {"postgresql": [clean_host.name]}
        made.configure(build=str(build_directory(folder / "build", host_cluster, groups)))
        yield made


def packed(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def unpacked(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as stored:
        data = stored.read(member)
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout


def unchanged(before: dict[str, str], server: PostgreSQL) -> bool:
    return differences(before, fingerprint(server)) == []


@pytest.mark.parametrize("version", [10, 13, 16])
def test_every_version_comes_back_from_where_epicli_put_it(
    alone: Product, clean_host: Container, report: Report, version: int
) -> None:
    server = PostgreSQL(clean_host, install_version(clean_host, version, report))
    server.create()
    fill(server)
    before = fingerprint(server)
    made = alone.backup()
    (saved,) = made["manifest"]["services"][0]["hosts"]
    (instance,) = saved["details"]["instances"]
    assert saved["version"].startswith(str(version))
    assert instance["data_directory"] == server.layout.data
    assert instance["data_checksums"] is True
    clear(server)
    alone.restore("latest")
    assert differences(before, fingerprint(server)) == []


def test_dumps_in_directory_format_come_back(epibackup: Product, clean_site: Site) -> None:
    epibackup.configure(postgresql={"format": "directory", "jobs": 3})
    before = fingerprint(clean_site.primary)
    made = epibackup.backup()
    assert any(path.endswith("shop.dump.tar.zst") for path in members(made["manifest"]))
    clear(clean_site.primary)
    epibackup.restore("latest")
    assert unchanged(before, clean_site.primary)


def members(manifest: dict[str, object]) -> list[str]:
    text = json.dumps(manifest)
    return [part.split('"')[0] for part in text.split('"path": "')[1:]]


def test_a_host_without_zstd_compresses_with_gzip(epibackup: Product, clean_site: Site) -> None:
    host = clean_site.primary.host
    before = fingerprint(clean_site.primary)
    with faults.program_hidden(host, "zstd"):
        made = epibackup.backup()
        assert "postgresql/postgresql1/shop.dump.gz" in members(made["manifest"])
        clear(clean_site.primary)
        epibackup.restore("latest")
    assert unchanged(before, clean_site.primary)


def test_one_database_comes_back_under_another_name_and_the_live_one_is_untouched(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    server = clean_site.primary
    epibackup.give(saved)
    server.sql("DELETE FROM sales.event_2021", "shop")
    before = fingerprint(server)
    epibackup.restore("latest", "--part", "shop", "--rename", "shop=Shop copy")
    after = fingerprint(server)
    changed = [line for line in differences(before, after) if "Shop copy" not in line]
    assert changed == []
    count = "SELECT count(*) FROM sales.event_2021"
    assert server.sql(count, "shop") == "0"
    assert int(server.sql(count, "Shop copy")) > 0


def test_a_database_with_a_name_that_breaks_shells_comes_back_alone(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    server, name = clean_site.primary, "odd \"name'; $(x)"
    before = fingerprint(server)
    epibackup.give(saved)
    server.sql('DROP DATABASE "odd ""name\'; $(x)"')
    epibackup.restore("latest", "--part", name)
    assert unchanged(before, server)


def test_one_database_comes_back_on_another_host_with_the_roles_it_needs(
    epibackup: Product, alone: Product, clean_site: Site, clean_host: Container
) -> None:
    clean_site.primary.sql("CREATE ROLE stranger")
    epibackup.backup()
    other = PostgreSQL(clean_host)
    other.create()
    target = ("-t", str(epibackup.target))
    steps = alone.json(
        "restore", "latest", *target, "--part", "shop", "--host-map", "postgresql1=host1",
        "--dry-run",
    )  # fmt: skip
    assert steps["hosts"][0]["host"] == "host1"
    alone.restore("latest", *target, "--part", "shop", "--host-map", "postgresql1=host1")
    query = "SELECT count(*), sum(hashtext(c::text)) FROM sales.customer c"
    assert other.sql(query, "shop") == clean_site.primary.sql(query, "shop")
    roles = other.sql("SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolname !~ '^pg_'")
    assert "app" in roles.split(",")
    assert "stranger" not in roles.split(","), "nothing in this database needs it"
    query_of_hash = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'"
    assert other.sql(query_of_hash) == clean_site.primary.sql(query_of_hash)


def test_a_host_that_is_gone_has_to_be_mapped(
    epibackup: Product, saved: Path, alone: Product
) -> None:
    epibackup.give(saved)
    error = alone.restore("latest", "-t", str(epibackup.target), code=2)["error"]
    assert "unknown host in this inventory: postgresql1" in error["message"]
    assert "--host-map postgresql1=NEW" in error["hint"]


def test_nothing_is_restored_into_a_standby(epibackup: Product, saved: Path, site: Site) -> None:
    epibackup.give(saved)
    error = epibackup.restore(
        "latest", "--part", "shop", "--host-map", "postgresql1=postgresql2", code=1
    )["error"]
    assert "is a standby" in error["message"]
    assert "PRIMARY" in error["hint"]


def test_without_a_running_server_the_way_to_make_one_is_told(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    epibackup.give(saved)
    clean_site.primary.destroy()
    error = epibackup.restore("latest", "--host", "postgresql1", code=1)["error"]
    assert "no PostgreSQL server is running" in error["message"]
    assert "initdb -D /var/lib/postgresql/15/main --encoding=UTF8 --data-checksums" in error["hint"]


# -- wrong data -----------------------------------------------------------------------------------


def cut_in_half(dump: bytes) -> bytes:
    return dump[: len(dump) // 2]


def no_dump(_: bytes) -> bytes:
    return b"this is no dump"


@pytest.mark.parametrize("damage", [cut_in_half, no_dump])
def test_a_dump_that_is_wrong_leaves_the_old_database_serving(
    epibackup: Product, saved: Path, clean_site: Site, damage: object
) -> None:
    archive = epibackup.give(saved)
    assert callable(damage)
    rewrite_member(archive, SHOP_DUMP, packed(damage(unpacked(archive, SHOP_DUMP))))
    before = fingerprint(clean_site.primary)
    with WriteLoad(clean_site.primary, "shop") as load:
        load.wait_for(10)
        error = epibackup.restore("latest", code=1)["error"]
        load.wait_for(load.acknowledged + 10)
    assert load.longest_wait_seconds < 10
    assert "pg_restore" in error["message"]
    assert "nothing live was changed" in error["message"]
    changed = differences(before, fingerprint(clean_site.primary))
    assert [line for line in changed if "lab_load" not in line] == []
    assert epibackup.leftovers() == {}


def test_a_database_that_is_not_what_was_counted_is_not_put_in_place(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    archive = epibackup.give(saved)
    member = "postgresql/postgresql1/databases.json"
    with zipfile.ZipFile(archive) as stored:
        databases = json.loads(stored.read(member))
    for database in databases:
        if database["name"] == "shop":
            database["rows"][0][2] += 1
    rewrite_member(archive, member, json.dumps(databases).encode())
    before = fingerprint(clean_site.primary)
    error = epibackup.restore("latest", code=1)["error"]
    assert "the restored shop differs from the backup" in error["message"]
    assert "rows instead of" in error["message"]
    assert unchanged(before, clean_site.primary)


def test_roles_that_a_failed_restore_had_made_are_gone_again(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    archive = epibackup.give(saved)
    rewrite_member(archive, SHOP_DUMP, packed(cut_in_half(unpacked(archive, SHOP_DUMP))))
    clear(clean_site.primary)
    before = fingerprint(clean_site.primary)
    epibackup.restore("latest", code=1)
    assert unchanged(before, clean_site.primary)


# -- under load -----------------------------------------------------------------------------------


def test_what_was_acknowledged_before_the_backup_is_in_it(
    epibackup: Product, clean_site: Site
) -> None:
    server = clean_site.primary
    with WriteLoad(server, "shop") as load:
        load.wait_for(50)
        before = load.acknowledged
        epibackup.backup()
        after = load.acknowledged
    assert after > before
    epibackup.restore("latest", "--part", "shop", "--rename", "shop=restored")
    # `highest_number` fails if the two tables that are written together differ.
    assert before <= highest_number(server, "restored") <= after


def test_clients_that_connect_again_and_again_do_not_keep_a_restore_from_its_place(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    server = clean_site.primary
    epibackup.give(saved)
    with WriteLoad(server, "shop", pause_seconds=0) as load:
        load.wait_for(10)
        report = epibackup.restore("latest", "--part", "shop")
    assert any(name.startswith("database shop.before-") for name in report["hosts"][0]["kept"])
    assert server.sql("SELECT count(*) FROM sales.customer", "shop") != "0"


# -- configuration --------------------------------------------------------------------------------

CONFIG = "/etc/postgresql/15/main/postgresql-epiphany.conf"
HBA = "/etc/postgresql/15/main/pg_hba.conf"


def test_changed_configuration_comes_back_and_is_loaded(
    epibackup: Product, saved: Path, clean_site: Site
) -> None:
    server = clean_site.primary
    before = server.host.read(HBA)
    epibackup.give(saved)
    server.host.run(["sed", "-i", "$a host all intruder 0.0.0.0/0 trust", HBA])
    server.sql("SELECT pg_reload_conf()")
    run = epibackup.restore("latest", "--part", "configuration", "--host", "postgresql1")["run"]
    assert server.host.read(HBA) == before
    assert "intruder" in server.host.read(f"{HBA}.before-{run}")
    rules = "SELECT count(*) FROM pg_hba_file_rules WHERE user_name @> '{intruder}'"
    assert server.sql(rules) == "0"
    owner = server.host.run(["stat", "-c", "%U %a", HBA]).stdout.split()
    assert owner == ["postgres", "640"]


def test_configuration_that_the_server_refuses_is_put_back(
    epibackup: Product, saved: Path, clean_site: Site, tmp_path: Path
) -> None:
    server = clean_site.primary
    archive = epibackup.give(saved)
    member = "postgresql/postgresql1/configuration.tar.zst"
    folder = tmp_path / "configuration"
    folder.mkdir()
    tree = unpacked(archive, member)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=tree, check=True)
    with (folder / CONFIG.lstrip("/")).open("a") as config:
        config.write("\nno_such_setting = 1\n")
    tree = subprocess.run(
        ["tar", "-c", "-C", str(folder), "."], capture_output=True, check=True
    ).stdout
    rewrite_member(archive, member, packed(tree))
    before = server.host.read(CONFIG)
    arguments = ("--part", "configuration", "--host", "postgresql1")
    error = epibackup.restore("latest", *arguments, code=1)["error"]
    assert "the server refuses the saved configuration" in error["message"]
    assert "no_such_setting" in error["message"]
    assert server.host.read(CONFIG) == before
    assert server.sql("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"

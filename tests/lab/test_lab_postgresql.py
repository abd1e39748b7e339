"""PostgreSQL in the lab is real, and a fingerprint sees what a restore can lose."""

import pytest

from lab import Container, LabError, Site, faults
from lab.machine import Report
from lab.services.postgresql import (
    ALL_DATABASES,
    PostgreSQL,
    WriteLoad,
    clear,
    differences,
    fill,
    fill_bulk,
    fingerprint,
    highest_number,
    install_version,
)


def test_the_standby_streams_through_its_slot(site: Site) -> None:
    (standby,) = site.standbys
    assert site.primary.is_primary
    assert not standby.is_primary
    slots = "SELECT slot_name, active FROM pg_replication_slots"
    assert site.primary.sql(slots) == "standby_1\tt"
    changed = differences(fingerprint(site.primary), fingerprint(standby))
    # Unlogged tables cannot even be read there.
    assert changed == [line for line in changed if line.startswith("shop/table/sales.cache: ")]


def test_replication_goes_on_without_a_slot(clean_site: Site) -> None:
    (standby,) = clean_site.standbys
    standby.remove()
    clean_site.primary.sql("SELECT pg_drop_replication_slot('standby_1')")
    standby.follow(clean_site.primary)
    clean_site.primary.sql("CREATE TABLE replicated AS SELECT 42 AS answer")
    clean_site.primary.wait_for_standby()
    assert standby.sql("SELECT answer FROM replicated") == "42"


# Database, statement, and what the fingerprint calls the thing that it changes.
CHANGES = [
    ("shop", "UPDATE sales.customer SET name = '?' WHERE id = 7", "shop/table/sales.customer"),
    (
        "shop",
        "DELETE FROM sales.event_2021 WHERE day = '2021-06-01'",
        "shop/table/sales.event_2021",
    ),
    ("shop", "SELECT nextval('sales.invoice_number')", "shop/sequence/sales.invoice_number"),
    ("shop", "SELECT lo_put(424203, 0, 'x')", "shop/large object/424203"),
    ("shop", "DROP INDEX sales.invoice_open", "shop/schema/invoice_open; "),
    ("shop", "ALTER TABLE sales.cache ADD x int DEFAULT 1", "shop/table/sales.cache"),
    ("shop", "REVOKE USAGE ON SCHEMA sales FROM readers", "shop/schema/SCHEMA sales; "),
    ("raw", "UPDATE raw SET value = 'PLAIN' WHERE id = 3", "raw/table/public.raw"),
    ("legacy", "UPDATE street SET number = 0 WHERE number = 3", "legacy/table/public.street"),
    ("postgres", "ALTER ROLE app PASSWORD 'another'", "role/app"),
    ("postgres", "REVOKE readers FROM app", "member/readers/app"),
    ("postgres", "ALTER ROLE app IN DATABASE shop RESET search_path", "setting/shop/app"),
    ("postgres", "ALTER DATABASE shop CONNECTION LIMIT 51", "database/shop"),
    ("postgres", "REVOKE CREATE ON TABLESPACE archive FROM readers", "tablespace/archive"),
]


def test_the_fingerprint_sees_each_change_and_nothing_else(clean_site: Site) -> None:
    server = clean_site.primary
    before = fingerprint(server)
    assert fingerprint(server) == before
    for database, statement, _ in CHANGES:
        server.sql(statement, database)
    changed = differences(before, fingerprint(server))
    for _, statement, key in CHANGES:
        assert [line for line in changed if line.startswith(key)], statement
    keys = (*(key for _, _, key in CHANGES), "shop/schema/cache; ")
    assert [line for line in changed if not line.startswith(keys)] == []


def test_a_dump_and_restore_by_hand_gives_an_equal_fingerprint(clean_site: Site) -> None:
    server, host = clean_site.primary, clean_site.primary.host
    before = fingerprint(server)
    names = server.databases()
    assert {database.name for database in ALL_DATABASES} < set(names)

    def run(name: str, *arguments: str, database: str = "postgres") -> None:
        host.run(
            [server.tool(name), *arguments],
            user="postgres",
            environment=server.environment(database),
        )

    host.run(["install", "-d", "--owner=postgres", "/srv/dumps"])
    run("pg_dumpall", "--globals-only", "--file=/srv/dumps/globals.sql")
    for number, name in enumerate(names):
        run("pg_dump", "--format=custom", f"--file=/srv/dumps/{number}", database=name)

    server.remove()
    server.create()
    server.make_folder("/srv/postgresql/archive")
    assert differences(before, fingerprint(server)) != []

    # Goes on after errors: two roles are there already.
    run("psql", "--no-psqlrc", "--quiet", "--file=/srv/dumps/globals.sql")
    for number, name in enumerate(names):
        create = [] if name == "postgres" else ["--create"]
        run("pg_restore", *create, "--dbname=postgres", f"/srv/dumps/{number}")
    assert differences(before, fingerprint(server)) == []


def test_a_shut_down_host_has_shut_its_server_down_in_order(site: Site) -> None:
    host = site.primary.host
    host.stop()
    host.start()
    log = host.read("/var/log/postgresql/postgresql-15-main.log")
    last_start = log.rpartition("starting PostgreSQL")[2]
    assert "database system was shut down at" in last_start
    assert "ready to accept connections" in last_start
    site.primary.wait_for_standby()


def test_a_write_load_knows_what_was_acknowledged(site: Site) -> None:
    server = site.primary
    with WriteLoad(server, "shop") as load:
        load.wait_for(20)
        faults.kill(server.host, "postgres: .*shop")  # takes the server down for a moment
        reached = load.acknowledged
        load.wait_for(reached + 20)
        assert highest_number(server, "shop") >= reached
    assert highest_number(server, "shop") >= load.acknowledged
    assert load.longest_wait_seconds > 0.05
    server.sql("DELETE FROM lab_load.debit WHERE number = 3", "shop")
    with pytest.raises(LabError, match="not a consistent state"):
        highest_number(server, "shop")
    server.sql("DROP SCHEMA lab_load CASCADE", "shop")


def test_bulk_data_has_the_size_that_was_asked_for(site: Site) -> None:
    server = site.primary
    size_bytes = 20 * 1024**2
    fill_bulk(server, "empty", size_bytes)
    actual = int(server.sql("SELECT pg_relation_size('bulk')", "empty"))
    assert 0.9 * size_bytes < actual < 1.1 * size_bytes
    server.sql("DROP TABLE bulk", "empty")


@pytest.mark.parametrize(
    ("version", "binaries", "data", "unit"),
    [
        (
            10,
            "/opt/rh/rh-postgresql10/root/usr/bin",
            "/var/opt/rh/rh-postgresql10/lib/pgsql/data",
            "postgresql.service",
        ),
        (13, "/usr/pgsql-13/bin", "/var/lib/pgsql/13/data", "postgresql-13.service"),
        (16, "/usr/pgsql-16/bin", "/var/lib/pgsql/16/data", "postgresql-16.service"),
    ],
)
def test_other_versions_run_where_epicli_left_them(
    clean_host: Container, report: Report, version: int, binaries: str, data: str, unit: str
) -> None:
    layout = install_version(clean_host, version, report)
    assert (layout.binaries, layout.data, layout.unit) == (binaries, data, unit)
    server = PostgreSQL(clean_host, layout)
    server.create()
    fill(server)
    assert server.sql("SHOW server_version").startswith(str(version))
    assert server.sql("SHOW data_checksums") == "on"
    assert server.sql("SHOW config_file") == f"{data}/postgresql.conf"
    assert clean_host.run(["systemctl", "is-active", unit]).stdout == "active\n"
    before = fingerprint(server)
    server.restart()
    assert differences(before, fingerprint(server)) == []
    clear(server)
    assert server.databases() == ["postgres"]


def test_a_version_10_primary_has_a_streaming_standby(clean_site: Site, report: Report) -> None:
    """The replication of epicli 0.4: recovery.conf, no slot."""
    servers = []
    for name in ("loadbalancer1", "loadbalancer2"):
        host = clean_site.cluster.hosts[name]
        servers.append(PostgreSQL(host, install_version(host, 10, report)))
    primary, standby = servers
    primary.create()
    standby.follow(primary)
    primary.sql("CREATE TABLE replicated AS SELECT 42 AS answer")
    primary.wait_for_standby()
    assert standby.sql("SELECT answer FROM replicated") == "42"
    assert standby.host.exists(f"{standby.layout.data}/recovery.conf")

"""What the servers hold: databases with everything that a backup can get wrong.

All values are computed from row numbers, so two fills are equal; only password hashes have a salt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.services.postgresql.server import REPLICATION_ROLE, SUPERUSER, PostgreSQL

TABLESPACE_FOLDER = "/srv/postgresql/archive"
_BULK_ROW_BYTES = 745  # on disk, header included
_BULK_PROGRAM = "/usr/local/lib/lab_bulk_rows.py"
# Twice as fast as computing rows in SQL, which matters for gigabytes.
_PRINT_BULK_ROWS = """\
import random, sys

rows, random_bytes, group = int(sys.argv[1]), 400, 1000
noise = random.Random(20200101)
words = "the temperature of sensor number seven in hall four rose slowly overnight".split()
notes = [" ".join(noise.choices(words, k=41)) for _ in range(group)]
for first in range(0, rows, group):
    count = min(group, rows - first)
    payload = noise.randbytes(random_bytes * count).hex()
    width = 2 * random_bytes
    sys.stdout.write("".join(
        f"{first + i}\\t2020-01-01 00:00:00+00\\t\\\\\\\\x"
        f"{payload[width * i:width * (i + 1)]}\\t{notes[i]}\\n"
        for i in range(count)
    ))
"""


@dataclass(frozen=True)
class Database:
    """A database to make: how it is called and encoded, and the file in `sql/` that fills it."""

    name: str
    encoding: str = "UTF8"
    locale: str = "en_US.UTF-8"
    tablespace: str = "pg_default"
    content: str = ""


SHOP = Database("shop", locale="C.UTF-8", content="shop")
PLAIN_DATABASES = (
    SHOP,
    Database("Reports", tablespace="archive", content="odd"),
    Database("legacy", "LATIN1", "de_DE.ISO-8859-1", content="latin1"),
)
"""What a demo shows: some data, an upper-case name, an old encoding."""

ALL_DATABASES = (
    *PLAIN_DATABASES,
    Database("two words", content="odd"),
    Database("odd \"name'; $(x)", content="odd"),
    Database("../path/of a=b", content="odd"),
    Database("Żółć 数据", content="odd"),
    Database("raw", "SQL_ASCII", "C", content="bytes"),
    Database("empty"),
)
"""Names that break shells, paths and connection strings, and databases with nothing in them."""


def fill(server: PostgreSQL, databases: Sequence[Database] = ALL_DATABASES) -> None:
    """Makes roles, a tablespace and databases on a new server.

    Raises LabError if a statement fails, for example because they are there already.
    """
    server.make_folder(TABLESPACE_FOLDER)
    server.run_file("roles", archive_folder=TABLESPACE_FOLDER)
    for database in databases:
        server.run_file(
            "database",
            name=database.name,
            encoding=database.encoding,
            locale=database.locale,
            tablespace=database.tablespace,
        )
        if database.content:
            server.run_file(database.content, database.name)


def fill_bulk(server: PostgreSQL, database: str, size_bytes: int, table: str = "bulk") -> None:
    """Makes a table of about `size_bytes` on disk, the same each time: a third of it compresses
    well, the rest not at all."""
    rows = max(1, size_bytes // _BULK_ROW_BYTES)
    server.host.write(_BULK_PROGRAM, _PRINT_BULK_ROWS)
    server.run_file("bulk", database, table=table, program=f"python3 {_BULK_PROGRAM} {rows}")


def clear(server: PostgreSQL) -> None:
    """Drops all databases, roles and tablespaces but those of a new server."""
    for name in server.databases():
        if name != "postgres":
            server.sql('DROP DATABASE :"name"', name=name)
    server.run_file("clear", superuser=SUPERUSER, replication_role=REPLICATION_ROLE)

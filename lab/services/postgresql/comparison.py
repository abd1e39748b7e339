"""A comparable description of everything that a server holds."""

import hashlib
import re
from collections.abc import Mapping

from lab.services.postgresql.server import SUPERUSER, PostgreSQL

Fingerprint = dict[str, str]


def fingerprint(server: PostgreSQL) -> Fingerprint:
    """What all databases of a server hold, as names of things to a description of each.

    Roles with password hashes, memberships, settings, tablespaces, databases; in each database
    the schema, rows and checksum of every table, sequences, large objects, extensions. Equal
    fingerprints mean equal content, whatever the order of rows and object ids.
    """
    found = _pairs(server.run_file("describe_server"))
    for database in server.databases():
        inside = _pairs(server.run_file("describe_database", database))
        inside |= _schema(server, database)
        found.update({f"{database}/{key}": value for key, value in inside.items()})
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs between two fingerprints, a line each; none if they are equal."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, "missing"), after.get(key, "missing")
        if old != new:
            lines.append(f"{key}: {old} is now {new}")
    return lines


def _pairs(output: str) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)


def _schema(server: PostgreSQL, database: str) -> Fingerprint:
    """The schema as pg_dump writes it (definitions, owners, rights, comments): a hash an object."""
    text = server.host.run(
        [server.tool("pg_dump"), "--schema-only"],
        user=SUPERUSER,
        environment=server.environment(database),
    ).stdout
    # Versions of the tools, and a random key that newer ones write to fence psql's commands.
    text = re.sub(r"^(-- Dumped .*|\\(un)?restrict .*)\n", "", text, flags=re.MULTILINE)
    preamble, *rest = re.split(r"^--\n-- Name: (.*)\n--\n", text, flags=re.MULTILINE)
    objects = [("settings", preamble), *zip(rest[::2], rest[1::2], strict=True)]
    found: dict[str, str] = {}
    for name, definition in objects:
        digest = hashlib.sha256(definition.encode(errors="surrogateescape")).hexdigest()[:16]
        # An object with several entries of one header (rights of columns) has them in order.
        found[f"schema/{name}"] = found.get(f"schema/{name}", "") + digest
    return found

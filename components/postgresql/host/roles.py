"""Roles and tablespaces of a saved server, and the statements that make the missing ones.

`pg_dumpall --globals-only` has each role of the server, among them those every server has
(`CREATE ROLE postgres` always fails). Roles that exist are left as they are: changing their
passwords or rights is no part of getting data back.
"""

import re
from typing import Dict, List, Set

from components.postgresql.host.instance import quote

NAME = r'("(?:[^"]|"")*"|[^\s;]+)'
CREATE = re.compile(r"CREATE ROLE " + NAME)
SUBJECT = re.compile(r"(?:ALTER ROLE|COMMENT ON ROLE) " + NAME)
IN_DATABASE = re.compile(r"ALTER ROLE " + NAME + " IN DATABASE ")
TABLESPACE = re.compile(r"CREATE TABLESPACE " + NAME + r" OWNER .* LOCATION '((?:[^']|'')*)';")
MEMBERSHIP = re.compile(r"GRANT " + NAME + " TO " + NAME)


def statements(text: str) -> List[str]:
    """The SQL statements of a script, without comments and psql's own commands.

    A semicolon in a string literal or a quoted name ends none.
    """
    found: List[str] = []
    pattern = re.compile(r"E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|;", re.DOTALL)
    text = re.sub(r"(?m)^(--.*|\\.*)$", "", text)
    start = 0
    for token in pattern.finditer(text):
        if token.group() == ";":
            found.append(text[start : token.end()].strip())
            start = token.end()
    return found


def names(script: List[str]) -> List[str]:
    """The roles that a script creates, unquoted."""
    matches = (CREATE.match(statement) for statement in script)
    return [plain(match.group(1)) for match in matches if match]


def tablespaces(script: List[str]) -> Dict[str, str]:
    """The tablespaces that a script creates: their names, unquoted, and their folders."""
    matches = (TABLESPACE.match(statement) for statement in script)
    return {plain(match.group(1)): match.group(2).replace("''", "'") for match in matches if match}


def creating_tablespace(script: List[str], name: str) -> List[str]:
    """The statements that make a tablespace, with its settings and privileges."""
    pattern = re.compile(
        r"(?:CREATE TABLESPACE|ALTER TABLESPACE|COMMENT ON TABLESPACE|"
        r"(?:GRANT|REVOKE) .* ON TABLESPACE) (?:%s|%s)(?![\w\"])"
        % (re.escape(quote(name)), re.escape(name))
    )
    return [statement for statement in script if pattern.match(statement)]


def mentioned(role: str, schema_sql: str) -> bool:
    """Whether a database's schema needs the role: as an owner or in a privilege."""
    pattern = r"(?<![\w\"])(?:%s|%s)(?![\w\"])" % (re.escape(quote(role)), re.escape(role))
    return re.search(pattern, schema_sql) is not None


def creating(script: List[str], wanted: Set[str]) -> List[str]:
    """The statements that make the wanted roles, their settings, comments and memberships."""
    chosen = []
    for statement in script:
        match = CREATE.match(statement) or SUBJECT.match(statement)
        if match:
            # Settings for one database come back with that database.
            if plain(match.group(1)) in wanted and not IN_DATABASE.match(statement):
                chosen.append(statement)
            continue
        membership = MEMBERSHIP.match(statement)
        if membership and plain(membership.group(2)) in wanted:
            chosen.append(re.sub(r"\s+GRANTED BY .*;$", ";", statement, flags=re.DOTALL))
    return chosen


def plain(name: str) -> str:
    """A name without its quotes."""
    if name.startswith('"'):
        return name[1:-1].replace('""', '"')
    return name

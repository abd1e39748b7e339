"""PostgreSQL's own names and statements are handled as PostgreSQL writes them."""

from typing import Any

import pytest

from components.postgresql.component import PostgreSQL
from components.postgresql.host.instance import Instance, literal, quote
from components.postgresql.host.properties import properties_sql
from components.postgresql.host.restoring import LARGEST_NAME_BYTES, _suffixed, differences
from components.postgresql.host.roles import (
    creating,
    creating_tablespace,
    mentioned,
    names,
    statements,
    tablespaces,
)

GLOBALS = r'''
--
-- PostgreSQL database cluster dump; not a statement
--
\restrict abc
SET client_encoding = 'UTF8';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b$c:d''e';
CREATE ROLE "we;ird ""name""";
ALTER ROLE "we;ird ""name""" WITH NOLOGIN;
COMMENT ON ROLE app IS E'two\\lines;
CREATE ROLE not_a_statement;';
ALTER ROLE app SET search_path TO 'a', 'b';
ALTER ROLE app IN DATABASE shop SET work_mem TO '1GB';
GRANT app TO "we;ird ""name""" WITH INHERIT TRUE GRANTED BY postgres;
GRANT "we;ird ""name""" TO postgres GRANTED BY postgres;
CREATE TABLESPACE fast OWNER app LOCATION '/fast';
'''


def test_statements_end_at_semicolons_that_are_in_no_string_and_no_name() -> None:
    found = statements(GLOBALS)
    assert names(found) == ["postgres", "app", 'we;ird "name"']
    assert len(found) == 13
    assert found[7].endswith("CREATE ROLE not_a_statement;';")


def test_only_what_makes_the_wanted_roles_is_chosen() -> None:
    chosen = creating(statements(GLOBALS), {"app", 'we;ird "name"'})
    assert chosen[0] == "CREATE ROLE app;"
    granted = 'GRANT app TO "we;ird ""name{} WITH INHERIT TRUE;'.format('"' * 3)
    assert granted in chosen
    assert not any("IN DATABASE" in statement or "TABLESPACE" in statement for statement in chosen)
    assert not any(statement.startswith("ALTER ROLE postgres") for statement in chosen)
    assert not any(statement.startswith("CREATE ROLE postgres") for statement in chosen)


def test_a_tablespace_is_made_with_its_privileges_and_no_others() -> None:
    script = statements(GLOBALS + "GRANT ALL ON TABLESPACE fast TO app;\nGRANT app TO fast;\n")
    assert tablespaces(script) == {"fast": "/fast"}
    assert creating_tablespace(script, "fast") == [
        "CREATE TABLESPACE fast OWNER app LOCATION '/fast';",
        "GRANT ALL ON TABLESPACE fast TO app;",
    ]


@pytest.mark.parametrize(
    ("role", "schema", "needed"),
    [
        ("app", "ALTER TABLE public.t OWNER TO app;", True),
        ("app", "ALTER TABLE public.t OWNER TO application;", False),
        ("My Role", 'GRANT SELECT ON t TO "My Role";', True),
        ("app", 'COMMENT ON TABLE "app-x" IS NULL;', False),
    ],
)
def test_a_role_is_needed_if_the_schema_names_it(role: str, schema: str, needed: bool) -> None:
    assert mentioned(role, schema) is needed


def test_names_and_values_are_quoted_whatever_they_hold() -> None:
    assert quote('a"b; DROP') == '"a""b; DROP"'
    assert literal("it's \\ here") == "E'it''s \\\\ here'"


def test_a_name_that_looks_like_a_connection_string_is_only_a_name() -> None:
    instance = Instance(1, "/data", 5432, "/run/postgresql", "postgres", "/bin", "")
    assert instance.conninfo("host=evil x'y") == (
        "dbname='host=evil x\\'y' host='/run/postgresql' port=5432"
    )


def saved(**changes: Any) -> dict[str, Any]:
    return {
        "owner": "app",
        "connection_limit": -1,
        "is_template": False,
        "comment": None,
        "privileges": None,
        "settings": None,
        **changes,
    }


def test_a_plain_database_needs_no_statements() -> None:
    assert properties_sql("shop", saved()) == ""


def test_properties_of_a_database_come_back() -> None:
    sql = properties_sql(
        "shop",
        saved(
            connection_limit=5,
            comment="it's",
            privileges=[
                {"grantee": None, "privilege": "CONNECT", "grantable": False},
                {"grantee": "app", "privilege": "CREATE", "grantable": True},
            ],
            settings=[
                {"role": None, "settings": ["search_path=a, b", "work_mem=64MB"]},
                {"role": "app", "settings": ["my.setting=x'y"]},
            ],
        ),
    )
    assert sql.splitlines() == [
        'ALTER DATABASE "shop" CONNECTION LIMIT 5;',
        "COMMENT ON DATABASE \"shop\" IS E'it''s';",
        'REVOKE ALL ON DATABASE "shop" FROM PUBLIC;',
        'REVOKE ALL ON DATABASE "shop" FROM "app";',
        'GRANT CONNECT ON DATABASE "shop" TO PUBLIC;',
        'GRANT CREATE ON DATABASE "shop" TO "app" WITH GRANT OPTION;',
        'ALTER DATABASE "shop" SET "search_path" TO a, b;',
        'ALTER DATABASE "shop" SET "work_mem" TO E\'64MB\';',
        'ALTER ROLE "app" IN DATABASE "shop" SET "my"."setting" TO E\'x\'\'y\';',
    ]


@pytest.mark.parametrize("name", ["shop", "x" * 63, "ü" * 31, "日本" * 10])
def test_a_name_with_a_suffix_is_never_cut_by_the_server(name: str) -> None:
    made = _suffixed(name, ".before-20261122T013000Z")
    assert len(made.encode()) <= LARGEST_NAME_BYTES
    assert made.endswith(".before-20261122T013000Z")


def test_different_long_names_stay_different() -> None:
    suffix = ".new-20261122T013000Z"
    assert _suffixed("x" * 60 + "a", suffix) != _suffixed("x" * 60 + "b", suffix)


def test_differing_tables_are_named() -> None:
    said = differences([["public", "a", 2], ["public", "b", 1]], [["public", "a", 1]])
    assert said == [
        "public.a has 1 rows instead of 2",
        "public.b has no such table and 0 rows instead of 1",
    ]


def server(role: str, follows: str | None = None) -> dict[str, Any]:
    return {"status": "ok", "details": {"instances": [{"role": role, "follows": follows}]}}


def test_a_cluster_without_a_primary_has_saved_nothing_and_says_so() -> None:
    problems = PostgreSQL.conclude({"a": server("standby", "c:5432"), "b": server("standby")})
    assert len(problems) == 1
    assert "a is a standby of c:5432" in problems[0]
    assert "unknown server" in problems[0]


def test_a_primary_is_enough() -> None:
    assert PostgreSQL.conclude({"a": server("standby"), "b": server("primary")}) == []


def test_hosts_that_failed_speak_for_themselves() -> None:
    failed = {"status": "failed", "details": {}}
    assert PostgreSQL.conclude({"a": failed}) == []
    assert PostgreSQL.conclude({"a": failed, "b": server("standby")}) == []

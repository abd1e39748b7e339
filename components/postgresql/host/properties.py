"""What belongs to a database as a whole, and is in no dump of it."""

from typing import Any, Dict

from components.postgresql.host.instance import literal, quote


def creation_sql(name: str, saved: Dict[str, Any], version: int, has_tablespace: bool) -> str:
    """The statement that makes an empty database with a saved one's encoding, locale and owner.

    version: of the server it is for, as in 150020. has_tablespace: whether it has the saved one.
    """
    options = [
        "TEMPLATE = template0",
        "OWNER = " + quote(saved["owner"]),
        "ENCODING = " + literal(saved["encoding"]),
    ]
    if saved["collate"] is not None:
        options.append("LC_COLLATE = " + literal(saved["collate"]))
        options.append("LC_CTYPE = " + literal(saved["ctype"]))
    if saved["locale_provider"] == "i" and version >= 150000:
        options += ["LOCALE_PROVIDER = icu", "ICU_LOCALE = " + literal(saved["icu_locale"])]
    if has_tablespace:
        options.append("TABLESPACE = " + quote(saved["tablespace"]))
    return "CREATE DATABASE %s WITH %s;\n" % (quote(name), " ".join(options))


def properties_sql(name: str, saved: Dict[str, Any]) -> str:
    """What belongs to a database as a whole and is in no dump of it."""
    target = quote(name)
    sql = []
    if saved["connection_limit"] >= 0:
        sql.append("ALTER DATABASE %s CONNECTION LIMIT %d" % (target, saved["connection_limit"]))
    if saved["is_template"]:
        sql.append("ALTER DATABASE %s IS_TEMPLATE true" % target)
    if saved["comment"] is not None:
        sql.append("COMMENT ON DATABASE %s IS %s" % (target, literal(saved["comment"])))
    if saved["privileges"] is not None:
        sql.append("REVOKE ALL ON DATABASE %s FROM PUBLIC" % target)
        sql.append("REVOKE ALL ON DATABASE %s FROM %s" % (target, quote(saved["owner"])))
        for granted in saved["privileges"]:
            grantee = "PUBLIC" if granted["grantee"] is None else quote(granted["grantee"])
            option = " WITH GRANT OPTION" if granted["grantable"] else ""
            sql.append(
                "GRANT %s ON DATABASE %s TO %s%s" % (granted["privilege"], target, grantee, option)
            )
    for entry in saved["settings"] or []:
        subject = "DATABASE " + target
        if entry["role"] is not None:
            subject = "ROLE %s IN DATABASE %s" % (quote(entry["role"]), target)
        for setting in entry["settings"]:
            key, _, value = setting.partition("=")
            sql.append("ALTER %s SET %s TO %s" % (subject, quoted_setting(key), values(key, value)))
    return ";\n".join([*sql, ""])


LIST_SETTINGS = {
    "local_preload_libraries", "search_path", "session_preload_libraries",
    "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
}  # fmt: skip
"""Settings whose value is a list of names: GUC_LIST_QUOTE, src/bin/pg_dump/dumputils.c."""


def values(key: str, value: str) -> str:
    """The right side of SET: a stored list is quoted already, anything else is one literal."""
    return value if key.lower() in LIST_SETTINGS and value else literal(value)


def quoted_setting(key: str) -> str:
    """A parameter's name; those of extensions have a dot in them."""
    return ".".join(quote(part) for part in key.split("."))

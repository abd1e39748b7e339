"""What a PostgreSQL server holds and where its configuration lives."""

import glob
import os
import re
from typing import Any, Dict, List

from components.postgresql.host.instance import Instance
from host import unit

PUT_ASIDE = re.compile(r"\.(before|new)-\d{8}T\d{6}Z$")
"""Names of databases that a restore has renamed, or was filling when it was killed."""

COMPANION_UNITS = ["repmgr*.service", "pgbouncer*.service"]


def summary(instance: Instance) -> Dict[str, Any]:
    """Version, role, locale, encoding, checksums and files of a server."""
    (row,) = instance.query(
        """
        SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
          current_setting('server_version_num')::int AS version_number,
          pg_is_in_recovery() AS standby,
          current_setting('config_file') AS config_file,
          current_setting('data_checksums') = 'on' AS data_checksums,
          current_setting('server_encoding') AS encoding,
          (SELECT conninfo FROM pg_stat_wal_receiver LIMIT 1) AS sender
        """
    )
    standby, sender = row.pop("standby"), row.pop("sender")
    described = dict(
        row,
        role="standby" if standby else "primary",
        port=instance.port,
        data_directory=instance.data_directory,
        programs=instance.programs,
    )
    if standby:
        described["follows"] = _host_of(sender) if sender else None
    return described


def databases(instance: Instance) -> List[Dict[str, Any]]:
    """All databases that accept connections, with all that a dump of one leaves out.

    Owner, encoding, locale, limits, comment, privileges and settings belong to the database
    as a whole: `pg_dump` has them only with --create and only since version 11.
    """
    version = instance.version_number()
    icu = "NULL"
    if version >= 170000:
        icu = "d.datlocale"
    elif version >= 150000:
        icu = "d.daticulocale"
    provider = "d.datlocprovider" if version >= 150000 else "'c'"
    rows = instance.query(
        """
        SELECT d.datname AS name, pg_get_userbyid(d.datdba) AS owner,
          pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate,
          d.datctype AS ctype, %s AS locale_provider, %s AS icu_locale,
          d.datconnlimit AS connection_limit, d.datistemplate AS is_template,
          s.spcname AS tablespace, pg_database_size(d.oid) AS bytes,
          shobj_description(d.oid, 'pg_database') AS comment,
          (SELECT json_agg(json_build_object(
              'grantee', CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
              'privilege', a.privilege_type, 'grantable', a.is_grantable))
            FROM aclexplode(d.datacl) a) AS privileges,
          (SELECT json_agg(json_build_object(
              'role', CASE c.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(c.setrole) END,
              'settings', c.setconfig))
            FROM pg_db_role_setting c WHERE c.setdatabase = d.oid) AS settings
        FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace
        WHERE d.datallowconn ORDER BY d.datname
        """
        % (provider, icu)
    )
    for row in rows:
        row.update(_contents(instance, row["name"]))
    # template1 as initdb made it is not worth a dump; with objects of users it is.
    return [row for row in rows if row["name"] != "template1" or row["user_objects"]]


def _contents(instance: Instance, database: str) -> Dict[str, Any]:
    """Whether users have objects in a database, and its extensions."""
    first_user_oid = 16384  # FirstNormalObjectId, src/include/access/transam.h
    row = instance.query(
        """
        SELECT (SELECT json_agg(extname ORDER BY extname) FROM pg_extension) AS extensions,
          EXISTS (SELECT FROM pg_class WHERE oid >= {0}) OR
          EXISTS (SELECT FROM pg_proc WHERE oid >= {0}) OR
          EXISTS (SELECT FROM pg_type WHERE oid >= {0}) OR
          EXISTS (SELECT FROM pg_namespace WHERE oid >= {0}
            AND nspname NOT LIKE 'pg\\_%temp\\_%') OR
          EXISTS (SELECT FROM pg_largeobject_metadata) AS user_objects
        """.format(first_user_oid),
        database,
    )[0]
    return {"extensions": row["extensions"] or [], "user_objects": row["user_objects"]}


def configuration_paths(instance: Instance) -> List[str]:
    """Configuration files wherever they live: server, repmgr, PgBouncer, units, .pgpass."""
    rows = instance.query(
        """
        SELECT setting AS path FROM pg_settings WHERE setting <> '' AND name IN
          ('config_file', 'hba_file', 'ident_file', 'ssl_cert_file', 'ssl_key_file',
           'ssl_ca_file', 'ssl_crl_file')
        UNION SELECT sourcefile FROM pg_settings WHERE sourcefile <> ''
        """
    )
    # Certificates may be named relative to the data directory; absolute paths stay as they are.
    paths = [os.path.join(instance.data_directory, str(row["path"])) for row in rows]
    config_folder = os.path.dirname(instance.setting("config_file"))
    if config_folder != instance.data_directory:
        paths.append(config_folder)
    patterns = [
        os.path.join(glob.escape(instance.data_directory), "*.conf"),
        os.path.join(glob.escape(instance.data_directory), "*.signal"),
        "/etc/repmgr*",
        "/etc/pgbouncer",
        os.path.join(os.path.expanduser("~" + instance.user), ".pgpass"),
    ]
    for pattern in patterns:
        paths += glob.glob(pattern)
    own_unit = unit.of_process(instance.process)
    for name in [*([own_unit] if own_unit else []), *unit.names(*COMPANION_UNITS)]:
        # Files of the distribution's packages come back with the packages.
        paths += [path for path in unit.files(name) if path.startswith("/etc/")]
    return [path for path in paths if os.path.exists(path)]


def _host_of(conninfo: str) -> str:
    """host:port of a connection string; other words (a password) are not kept."""
    words = dict(word.partition("=")[::2] for word in conninfo.split() if "=" in word)
    return "%s:%s" % (words.get("host", "?"), words.get("port", "5432"))

-- What belongs to the server as a whole: rows of key, tab, value.
SET statement_timeout = 0; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
SET timezone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 1;
SET search_path = pg_catalog; SET xmloption = 'content';
SELECT 'role/' || rolname, row(rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
    rolreplication, rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil,
    shobj_description(oid, 'pg_authid'))
  FROM pg_authid WHERE rolname NOT LIKE 'pg\_%' ORDER BY 1;
SELECT 'member/' || g.rolname || '/' || m.rolname, 'admin=' || bool_or(admin_option)
  FROM pg_auth_members a JOIN pg_roles g ON g.oid = roleid JOIN pg_roles m ON m.oid = member
  WHERE m.rolname NOT LIKE 'pg\_%' GROUP BY 1 ORDER BY 1;
SELECT 'setting/' || coalesce(datname, '') || '/' || coalesce(rolname, ''),
    (SELECT array_agg(c ORDER BY c) FROM unnest(setconfig) c)
  FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = setdatabase
  LEFT JOIN pg_roles r ON r.oid = setrole ORDER BY 1;
SELECT 'tablespace/' || spcname, row(pg_tablespace_location(t.oid), rolname,
    (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(spcacl) a), spcoptions,
    shobj_description(t.oid, 'pg_tablespace'))
  FROM pg_tablespace t JOIN pg_roles r ON r.oid = spcowner ORDER BY 1;
SELECT 'database/' || datname, row(rolname, pg_encoding_to_char(encoding), datcollate, datctype,
    datistemplate, datallowconn, datconnlimit, spcname,
    (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a),
    shobj_description(d.oid, 'pg_database'))
  FROM pg_database d JOIN pg_roles r ON r.oid = datdba JOIN pg_tablespace t ON t.oid = dattablespace
  ORDER BY 1;

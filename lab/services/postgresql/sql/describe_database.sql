-- What is in one database: rows of key, tab, value.
-- Rows are compared as text, whose form must not hang on a database's or a role's own settings.
SET statement_timeout = 0; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
SET timezone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 1;
SET search_path = pg_catalog; SET xmloption = 'content';
-- The sum of 60 bits of each row's hash hangs on no order and needs no memory.
SELECT format('SELECT %L, count(*) || '' rows, sum '' || coalesce(sum((''x'' ||
    substr(md5(t::text), 1, 15))::bit(60)::bigint), 0) FROM ONLY %I.%I t',
    'table/' || nspname || '.' || relname, nspname, relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE relkind IN ('r', 'm') AND relispopulated
    AND (relpersistence <> 'u' OR NOT pg_is_in_recovery())
    AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%' ORDER BY 1 \gexec
SELECT format('SELECT %L, last_value || '' '' || is_called FROM %I.%I',
    'sequence/' || nspname || '.' || relname, nspname, relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'S' ORDER BY 1 \gexec
SELECT 'large object/' || m.oid, row(rolname,
    (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(lomacl) a), md5(lo_get(m.oid)),
    obj_description(m.oid, 'pg_largeobject'))
  FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = lomowner ORDER BY 1;
SELECT 'extension/' || extname, extversion FROM pg_extension ORDER BY 1;

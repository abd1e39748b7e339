-- Back to a new server: databases were dropped before.
SELECT format('DROP TABLESPACE %I', spcname) FROM pg_tablespace
  WHERE spcname NOT LIKE 'pg\_%' \gexec
SELECT format('DROP ROLE %I', rolname) FROM pg_roles
  WHERE rolname NOT LIKE 'pg\_%' AND rolname NOT IN (:'superuser', :'replication_role') \gexec

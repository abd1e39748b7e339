-- Roles, memberships, settings and a tablespace. Quotes, spaces and upper case on purpose.
SET password_encryption = 'scram-sha-256';
CREATE ROLE readers NOLOGIN;
CREATE ROLE app LOGIN PASSWORD 'app''s "password"' CONNECTION LIMIT 20;
CREATE ROLE "Ops Team" LOGIN CREATEDB CREATEROLE PASSWORD 'ops'
  VALID UNTIL '2099-12-31 00:00:00+00';
SET password_encryption = 'md5';
CREATE ROLE legacy LOGIN NOINHERIT PASSWORD 'legacy';
GRANT readers TO app;
GRANT readers TO "Ops Team" WITH ADMIN OPTION;
ALTER ROLE app SET statement_timeout = '10min';
ALTER ROLE "Ops Team" SET search_path = 'public', 'Odd schema';
COMMENT ON ROLE app IS 'the shop''s own role';
CREATE TABLESPACE archive OWNER app LOCATION :'archive_folder';
ALTER TABLESPACE archive SET (random_page_cost = 2);
COMMENT ON TABLESPACE archive IS 'the slow disk';
GRANT CREATE ON TABLESPACE archive TO readers;

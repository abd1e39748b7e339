-- Bytes that are no text in any encoding: only a SQL_ASCII database takes them.
CREATE TABLE raw (id int PRIMARY KEY, value text);
SET client_encoding = 'SQL_ASCII';
INSERT INTO raw VALUES (1, E'caf\xe9'), (2, E'\xff\xfe'), (3, 'plain');

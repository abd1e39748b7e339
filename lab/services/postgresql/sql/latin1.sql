CREATE TABLE street (name text PRIMARY KEY, number int);
INSERT INTO street SELECT chr(223) || chr(228) || ' Straße ' || i, i FROM generate_series(1, 500) i;

-- Names that need quoting, and a table without columns.
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."select; ""from"" x" ("a column" text, "$1" int);
INSERT INTO "Odd schema"."select; ""from"" x" SELECT 'text ' || i, i FROM generate_series(1, 50) i;
CREATE TABLE nothing ();

-- A table from the rows that a program of the host prints.
CREATE TABLE :"table" (id bigint, at timestamptz, payload bytea, note text);
COPY :"table" FROM PROGRAM :'program';
ALTER TABLE :"table" ADD PRIMARY KEY (id);

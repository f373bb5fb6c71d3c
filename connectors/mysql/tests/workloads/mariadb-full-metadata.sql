-- Only a log that names columns tells which ones MariaDB has made for a unique index on a long text.
CREATE TABLE long_unique (id int PRIMARY KEY, t text, b blob, UNIQUE (t), UNIQUE (b));
INSERT INTO long_unique VALUES (1, 'a', x'00'), (2, NULL, NULL);

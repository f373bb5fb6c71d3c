-- What only MySQL has, in the way of every-type.sql.
SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION';

CREATE TABLE vectors (id int PRIMARY KEY, v vector(3), w vector);
INSERT INTO vectors VALUES (1, TO_VECTOR('[1,2.5,-3]'), TO_VECTOR('[1e-30]')), (2, NULL, NULL), (3, TO_VECTOR('[0,0,0]'), TO_VECTOR('[3.4e38,-0.1]'));

SET SESSION sql_generate_invisible_primary_key = ON;
CREATE TABLE made_key (id int, v varchar(10));
SET SESSION sql_generate_invisible_primary_key = OFF;
INSERT INTO made_key (id, v) VALUES (7, 'seven'), (NULL, NULL);

-- An index on an expression makes a column that nobody sees; a default that is an expression does not.
CREATE TABLE expressions (id int PRIMARY KEY, a int, b int DEFAULT (a + 1), j json, KEY ((a * 2)), KEY ((CAST(j->'$.n' AS UNSIGNED ARRAY))));
INSERT INTO expressions (id, a, j) VALUES (1, 10, '{"n": [1, 2]}'), (2, NULL, NULL);

CREATE TABLE json_kinds (id int PRIMARY KEY, j json);
INSERT INTO json_kinds VALUES (1, JSON_OBJECT('d', DATE'2024-02-29', 't', TIME'-12:34:56.789', 'dt', TIMESTAMP'2024-02-29 01:02:03.5')), (2, JSON_ARRAY(1.10, CAST(123456789.123456789 AS DECIMAL(30,15)), -0.5, 1e100)),
  (3, JSON_OBJECT('b', CAST('abcd' AS BINARY), 'l', CAST(REPEAT('z', 200) AS BINARY))), (4, JSON_OBJECT('y', CAST(2024 AS YEAR), 'g', ST_GeomFromText('POINT(1 2)'))), (5, JSON_ARRAY(b'101', x'ff00'));

CREATE TABLE referenced (id int PRIMARY KEY, p point NOT NULL SRID 4326, s geometry SRID 0);
INSERT INTO referenced VALUES (1, ST_SRID(POINT(1, 2), 4326), POINT(3, 4));

CREATE TABLE squeezed (id int PRIMARY KEY, a varchar(10), b int) ROW_FORMAT = COMPRESSED;
INSERT INTO squeezed VALUES (1, 'a', 1);

-- What only MariaDB has, in the way of every-type.sql.
SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION';

CREATE TABLE addresses (id int PRIMARY KEY, u uuid, i6 inet6, i4 inet4);
INSERT INTO addresses VALUES
  (1, '01234567-89ab-1def-8123-456789abcdef', '::', '0.0.0.0'), (2, '01234567-89ab-4def-8123-456789abcdef', '2001:db8::1', '127.0.0.1'),
  (3, '01234567-89ab-7def-8123-456789abcdef', '1::', '255.255.255.255'), (4, '00000000-0000-0000-0000-000000000000', 'ff00::', '10.0.0.0'),
  (5, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::ffff:1.2.3.4', NULL), (6, '01234567-89ab-6def-8123-456789abcdef', '::1.2.3.4', NULL),
  (7, '01234567-89ab-7def-0123-456789abcdef', '1:2:3:4:5:6:7:8', NULL), (8, '01234567-89ab-0def-8123-456789abcdef', '::1', NULL),
  (9, '01234567-89ab-8def-a123-456789abcdef', '1:0:0:2:0:0:0:3', NULL), (10, NULL, NULL, NULL),
  (11, NULL, '::1:0', NULL), (12, NULL, '1:0:2:3:4:5:6:7', NULL), (13, NULL, '1:2:0:0:5:0:0:8', NULL), (14, NULL, '0:0:1::', NULL), (15, NULL, '::ffff', NULL);
CREATE TABLE address_keys (u uuid, i6 inet6, i4 inet4, PRIMARY KEY (u, i6, i4));
INSERT INTO address_keys SELECT u, i6, i4 FROM addresses WHERE i4 IS NOT NULL;

CREATE TABLE packed (id int PRIMARY KEY, c text COMPRESSED, v varchar(2000) COMPRESSED, b blob COMPRESSED, l longtext COMPRESSED, w varchar(200) COMPRESSED CHARACTER SET latin1, vb varbinary(300) COMPRESSED);
INSERT INTO packed VALUES (1, REPEAT('compress me ', 20), REPEAT('é', 200), REPEAT('z', 300), REPEAT('汉', 30000), REPEAT('é', 150), REPEAT(x'00', 300)),
  (2, 'short', 'short', 'b', 'x', 'é', x'00'), (3, '', '', '', '', '', ''), (4, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE versioned (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING;
INSERT INTO versioned VALUES (1, 1), (2, NULL);
-- What a row once was is a row.
CREATE TABLE versions (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING;
SET SESSION system_versioning_insert_history = 1;
INSERT INTO versions (id, v, row_start, row_end) VALUES (1, 1, '2001-01-01', '2002-01-01'), (1, 2, '2002-01-01', '2003-01-01 00:00:00.5');
SET SESSION system_versioning_insert_history = 0;
INSERT INTO versions VALUES (1, 3), (2, 9);
CREATE TABLE versioned_named (id int PRIMARY KEY, v int, b timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE, e timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (b, e)) WITH SYSTEM VERSIONING;
INSERT INTO versioned_named (id, v) VALUES (1, 1);


CREATE TABLE fine_decimals (id int PRIMARY KEY, d decimal(38,38), e decimal(65,38));
INSERT INTO fine_decimals VALUES (1, 0.12345678901234567890123456789012345678, -123456789012345678901234567.12345678901234567890123456789012345678), (2, -0.00000000000000000000000000000000000001, 0);

CREATE TABLE documents_as_written (id int PRIMARY KEY, j json, k longtext CHECK (json_valid(k)));
INSERT INTO documents_as_written VALUES (1, '{"b":1,   "a" : 2.50}', '[ ]'), (2, NULL, NULL);
CREATE TABLE defaults (id int PRIMARY KEY, e enum('a','b') DEFAULT 'b', u uuid DEFAULT UUID());
INSERT INTO defaults (id) VALUES (1);

-- Labels beyond U+FFFF: only a log that names columns (binlog_row_metadata = FULL) has them, the catalog has `?`.
CREATE TABLE wide_labels (id int PRIMARY KEY, e enum('汉','😀') CHARACTER SET utf16, s set('😀','b') CHARACTER SET utf8mb4);
INSERT INTO wide_labels VALUES (1, '汉', 'b'), (2, '😀', '😀,b'), (3, NULL, '');

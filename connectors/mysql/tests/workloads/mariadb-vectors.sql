-- MariaDB's vectors, from 11.7 on.
CREATE TABLE vectors (id int PRIMARY KEY, v vector(3) NOT NULL, w vector(2), VECTOR INDEX (v));
INSERT INTO vectors VALUES (1, VEC_FromText('[1,2.5,-3]'), VEC_FromText('[1e-30,0]')), (2, VEC_FromText('[0,0,0]'), NULL);

//! The stream against real servers: transactions, resuming, what must stop it.
//!
//! `SEACHANGE_TEST_MYSQL` and `SEACHANGE_TEST_MARIADB` hold URLs (several with spaces between) of accounts that may do
//! everything; without them these tests say that they were skipped.

mod common;

use common::{DEADLINE, Database, LIMIT, Server, lines, servers};
use mysql_async::prelude::Queryable;
use seachange_mysql::flavor::Flavor;
use seachange_sdk::{Cut, Kind, Limit, Op, Position};

/// Runs the workload given by SEACHANGE_TEST_WORKLOAD and prints what the stream gives: for people.
#[tokio::test]
async fn show_workload() {
    let Ok(path) = std::env::var("SEACHANGE_TEST_WORKLOAD") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    for server in servers("show_workload") {
        let (_, seen) = run(&server, "show", &text).await;
        for line in &seen {
            println!("{line}");
        }
    }
}

/// Runs a script under a stream; what came before the end of it.
async fn run(server: &Server, name: &str, script: &str) -> (Database, Vec<String>) {
    let db = server.database(name).await;
    let mut stream = server.open(&[&format!("{db}.*")], None).await;
    server.script(&db, script).await;
    server.script(&db, "CREATE TABLE zz_end (id int primary key); INSERT INTO zz_end VALUES (1);").await;
    let seen = stream.until(&format!("{db}.zz_end")).await;
    let seen = seen.into_iter().map(|l| l.replace(&*db, "db")).collect();
    (db, seen)
}

const KV: &str = "CREATE TABLE t (id int PRIMARY KEY, v varchar(40))";

#[tokio::test]
async fn transactions_savepoints_and_rollbacks() {
    for server in servers("transactions_savepoints_and_rollbacks") {
        // MySQL refuses to mix engines in one transaction when GTIDs are on.
        let mixed = match server.flavor {
            Flavor::MySql => "INSERT INTO m VALUES (3, 3); INSERT INTO m VALUES (4, 4); INSERT INTO t VALUES (6, 'kept')",
            Flavor::MariaDb => "BEGIN; INSERT INTO t VALUES (5, 'lost'); INSERT INTO m VALUES (3, 3); ROLLBACK;
             BEGIN; INSERT INTO t VALUES (6, 'kept'); SAVEPOINT s; INSERT INTO t VALUES (7, 'lost'); INSERT INTO m VALUES (4, 4); ROLLBACK TO s; COMMIT",
        };
        let (_, seen) = run(&server, "txn", &format!(
            "{KV}; CREATE TABLE m (id int PRIMARY KEY, v int) ENGINE = MyISAM;
             BEGIN; INSERT INTO t VALUES (1, 'never'); ROLLBACK;
             BEGIN; INSERT INTO t VALUES (2, 'kept'); SAVEPOINT s; INSERT INTO t VALUES (3, 'lost'); ROLLBACK TO s; INSERT INTO t VALUES (4, 'kept'); COMMIT;
             INSERT INTO m VALUES (1, 1), (2, 2);
             {mixed};
             CREATE TABLE c AS SELECT * FROM t WHERE id < 5"
        )).await;
        let ids = |table: &str| -> Vec<String> {
            let p = format!("c db.{table} - {{id");
            seen.iter().filter(|l| l.starts_with(&p)).map(|l| l.split(['(', ')']).nth(1).unwrap().to_owned()).collect()
        };
        assert_eq!(ids("t"), ["2", "4", "6"], "{seen:#?}");
        assert_eq!(ids("m"), ["1", "2", "3", "4"], "{seen:#?}");
        assert_eq!(ids("c"), ["2", "4"], "{seen:#?}");
    }
}

#[tokio::test]
async fn prepared_transactions_come_when_they_are_committed() {
    for server in servers("prepared_transactions_come_when_they_are_committed") {
        let db = server.database("xa").await;
        server.script(&db, KV).await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        let name = format!("'{db}-1','b'");
        server
            .script(&db, &format!("XA START {name}; INSERT INTO t VALUES (1, 'xa'); XA END {name}; XA PREPARE {name}"))
            .await;
        server
            .script(
                &db,
                &format!("XA START '{db}-2'; INSERT INTO t VALUES (2, 'no'); XA END '{db}-2'; XA PREPARE '{db}-2'"),
            )
            .await;
        server.script(&db, &format!("XA START '{db}-3'; INSERT INTO t VALUES (3, 'one phase'); XA END '{db}-3'; XA COMMIT '{db}-3' ONE PHASE")).await;
        server.script(&db, "INSERT INTO t VALUES (4, 'between')").await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(stream.next(LIMIT).await.0);
        }
        assert!(seen[0].contains("I64(3)") && seen[1].contains("I64(4)"), "{seen:#?}");
        // a restart in between: the prepared rows are read again
        let mut stream = server.open(&[&format!("{db}.*")], Some(&stream.position.clone())).await;
        server.script(&db, &format!("XA ROLLBACK '{db}-2'")).await;
        server.script(&db, &format!("XA COMMIT {name}")).await;
        server.script(&db, "INSERT INTO t VALUES (5, 'after')").await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(stream.next(LIMIT).await.0);
        }
        assert!(seen[0].contains("I64(1)") && seen[1].contains("I64(5)"), "{seen:#?}");
        let mut again = server.open(&[&format!("{db}.*")], Some(&stream.position.clone())).await;
        server.script(&db, "INSERT INTO t VALUES (6, 'end')").await;
        assert!(again.next_changes().await[0].contains("I64(6)"));
    }
}

#[tokio::test]
async fn a_backlog_comes_in_batches_that_end_with_transactions() {
    for server in servers("a_backlog_comes_in_batches_that_end_with_transactions") {
        let db = server.database("ends").await;
        server.script(&db, "CREATE TABLE t (id int PRIMARY KEY)").await;
        let start = server.open(&[&format!("{db}.*")], None).await.position;
        let rows = |from: u32, n: u32| (from..from + n).map(|i| format!("({i})")).collect::<Vec<_>>().join(", ");
        // Thirty rows a transaction, then one of 250 in events of 50, then thirty again.
        let mut script: Vec<String> = (0..20).map(|t| format!("INSERT INTO t VALUES {}", rows(t * 30, 30))).collect();
        let large = (0..5).map(|e| format!("INSERT INTO t VALUES {}", rows(1000 + e * 50, 50)));
        script.push(format!("BEGIN; {}; COMMIT", large.collect::<Vec<_>>().join("; ")));
        script.extend((0..4).map(|t| format!("INSERT INTO t VALUES {}", rows(2000 + t * 30, 30))));
        server.script(&db, &script.join("; ")).await;
        let mut stream = server.open(&[&format!("{db}.*")], Some(&start)).await;
        let (mut sizes, mut inside, mut seen) = (Vec::new(), Vec::new(), 0);
        while seen < 20 * 30 + 250 + 4 * 30 {
            let (lines, cut) = stream.next(Limit { changes: 100, ..LIMIT }).await;
            seen += lines.len();
            if matches!(cut, Cut::Inside(_)) {
                inside.push(seen);
            }
            sizes.push(lines.len());
        }
        // Only the large one is cut, and the batch that has the rest of it ends with it.
        assert!(!inside.is_empty() && inside.iter().all(|n| (600..850).contains(n)), "{inside:?} {sizes:?}");
        let ends = sizes.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        });
        assert!(ends.into_iter().any(|n| n == 850), "{sizes:?}");
        assert!(sizes.len() < 20, "batches that hold next to nothing: {sizes:?}");
    }
}

/// Everything from a position on, with the position behind every batch of one event.
async fn suffix(server: &Server, db: &str, at: &Position, count: usize) -> Vec<(String, Position)> {
    let mut stream = server.open(&[&format!("{db}.*")], Some(at)).await;
    let mut out = Vec::new();
    while out.len() < count {
        let (seen, cut) = stream.next(Limit { changes: 1, ..LIMIT }).await;
        if let Cut::Txn(p) | Cut::Inside(p) = cut {
            let orders: Vec<String> =
                stream.batch.changes.iter().map(|c| format!("{}/{}", c.order, c.table_order)).collect();
            let n = seen.len();
            for (i, (line, order)) in seen.into_iter().zip(orders).enumerate() {
                // rows of one event share a position: only the last of them stands at it
                out.push((format!("{order} {line}"), if i + 1 == n { p.clone() } else { Position::default() }));
            }
        }
    }
    out
}

#[tokio::test]
async fn cut_after_every_event_and_opened_again() {
    for server in servers("cut_after_every_event_and_opened_again") {
        let db = server.database("cut").await;
        server.script(&db, &format!("{KV}; CREATE TABLE u (id int PRIMARY KEY)")).await;
        let start = server.open(&[&format!("{db}.*")], None).await.position;
        server.script(&db, "
            INSERT INTO t VALUES (1, 'a');
            BEGIN; INSERT INTO t VALUES (2, 'b'); INSERT INTO u VALUES (1), (2); UPDATE t SET v = 'c' WHERE id = 2; DELETE FROM t WHERE id = 1; COMMIT;
            INSERT INTO u VALUES (3);
            BEGIN; UPDATE u SET id = id + 10; DELETE FROM u; INSERT INTO t VALUES (3, 'z'); COMMIT").await;
        let whole = suffix(&server, &db, &start, 14).await;
        let text = |x: &[(String, Position)]| x.iter().map(|l| l.0.clone()).collect::<Vec<_>>();
        let mut cuts = 0;
        for (i, (_, at)) in whole.iter().enumerate().filter(|(i, (_, at))| *i + 1 < whole.len() && !at.0.is_empty()) {
            let rest = suffix(&server, &db, at, whole.len() - i - 1).await;
            assert_eq!(text(&rest), text(&whole[i + 1..]), "after change {i} of {:?}", server.flavor);
            cuts += 1;
        }
        assert!(cuts >= 8, "{cuts}");
        assert!(whole[4].0.starts_with("4/2 u ") && whole[2].0.starts_with("2/1 c "), "{:?}", text(&whole));
    }
}

#[tokio::test]
async fn row_images_that_leave_columns_out() {
    for server in servers("row_images_that_leave_columns_out") {
        for (image, update, delete) in [
            (
                "MINIMAL",
                "u db.t {id*: I64(1), v: absent, b: absent} {id*: I64(1), v: \"w\", b: unavailable}",
                "d db.t {id*: I64(1), v: absent, b: absent} -",
            ),
            (
                "NOBLOB",
                "u db.t {id*: I64(1), v: \"v\", b: absent} {id*: I64(1), v: \"w\", b: unavailable}",
                "d db.t {id*: I64(1), v: \"w\", b: absent} -",
            ),
            (
                "FULL",
                "u db.t {id*: I64(1), v: \"v\", b: \"blob\"} {id*: I64(1), v: \"w\", b: \"blob\"}",
                "d db.t {id*: I64(1), v: \"w\", b: \"blob\"} -",
            ),
        ] {
            let (_, seen) = run(
                &server,
                "image",
                &format!(
                "SET SESSION binlog_row_image = '{image}'; CREATE TABLE t (id int PRIMARY KEY, v varchar(9), b text);
                 INSERT INTO t VALUES (1, 'v', 'blob'); UPDATE t SET v = 'w'; DELETE FROM t"),
            )
            .await;
            assert_eq!(seen[1..], [update, delete], "{image} {:?}", server.flavor);
        }
    }
}

#[tokio::test]
async fn compressed_logs() {
    for server in servers("compressed_logs") {
        let on = match server.flavor {
            Flavor::MySql => "SET SESSION binlog_transaction_compression = ON",
            Flavor::MariaDb => "SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10",
        };
        let rows: Vec<String> = (0..3000).map(|i| format!("({i}, 'value of {i}')")).collect();
        let (_, seen) = run(&server, "packed", &format!(
            "{on}; {KV}; BEGIN; INSERT INTO t VALUES {}; UPDATE t SET v = 'x' WHERE id < 500; COMMIT; DELETE FROM t WHERE id >= 100;
             ALTER TABLE t ADD COLUMN added_by_a_statement_that_is_long_enough_to_be_compressed int DEFAULT 7; INSERT INTO t VALUES (5000, 'last', 8)", rows.join(","))).await;
        if server.flavor == Flavor::MariaDb {
            let mut c = server.conn().await;
            c.query_drop("SET GLOBAL log_bin_compress = OFF").await.unwrap();
        }
        assert_eq!(seen.len(), 3000 + 500 + 2900 + 1);
        assert_eq!(seen[2999], "c db.t - {id*: I64(2999), v: \"value of 2999\"}");
        assert_eq!(seen[3000], "u db.t {id*: I64(0), v: \"value of 0\"} {id*: I64(0), v: \"x\"}");
        assert!(seen.last().unwrap().contains("compressed: I64(8)"), "{:?}", seen.last());
    }
}

#[tokio::test]
async fn partial_json() {
    for server in servers("partial_json") {
        if server.flavor != Flavor::MySql {
            continue;
        }
        let (db, seen) = run(
            &server,
            "partial",
            "
            SET SESSION binlog_row_value_options = 'PARTIAL_JSON';
            CREATE TABLE t (id int PRIMARY KEY, a json, b json, v int);
            INSERT INTO t VALUES (1, '{\"a\": 1, \"list\": [1, 2, 3], \"deep\": {\"x\": {\"y\": \"z\"}}}', '[]', 1);
            UPDATE t SET a = JSON_SET(a, '$.a', 12345), v = 2;
            UPDATE t SET a = JSON_REMOVE(a, '$.list[1]'), b = JSON_ARRAY(1);
            UPDATE t SET a = JSON_REPLACE(a, '$.deep.x.y', 'Z'), v = 3;
            UPDATE t SET a = JSON_SET(JSON_REMOVE(a, '$.deep'), '$.d', 2);
            UPDATE t SET a = JSON_SET(a, '$.list[0]', CAST('null' AS JSON))",
        )
        .await;
        let last = seen.last().unwrap();
        let mut c = server.conn().await;
        let (a, b): (String, String) =
            c.query_first(format!("SELECT CAST(a AS CHAR), CAST(b AS CHAR) FROM {db}.t")).await.unwrap().unwrap();
        assert!(last.ends_with(&format!("{{id*: I64(1), a: {a:?}, b: {b:?}, v: I64(3)}}")), "{seen:#?}");
        assert!(seen[1].contains("\\\"a\\\": 12345"), "{seen:#?}");
        let e = common::fails(&server, "partial2", "
            SET SESSION binlog_row_value_options = 'PARTIAL_JSON', binlog_row_image = 'MINIMAL';
            CREATE TABLE t (id int PRIMARY KEY, a json); INSERT INTO t VALUES (1, '{\"a\": 1, \"b\": \"a long enough document for a difference to be smaller\"}'); UPDATE t SET a = JSON_SET(a, '$.a', 2)").await;
        assert_eq!(e.kind(), Kind::Value);
    }
}

#[tokio::test]
async fn what_cannot_change_a_captured_table_is_passed_over() {
    for server in servers("what_cannot_change_a_captured_table_is_passed_over") {
        // Where the log does not name columns, what is altered again before it was seen stops: `history` has that.
        if !server.names_columns().await {
            continue;
        }
        let (_, seen) = run(&server, "ddl", &format!("{KV};
            CREATE VIEW w AS SELECT 1 AS one; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '!');
            CREATE PROCEDURE p() DELETE FROM t; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1;
            INSERT INTO t VALUES (1, 'a'); DROP TRIGGER tr;
            ALTER TABLE t ADD (x int, y int), CONVERT TO CHARACTER SET latin1, COMMENT = 'x; DROP TABLE t';
            ALTER TABLE t RENAME COLUMN v TO `col``umn`, DROP COLUMN x, ADD INDEX (y);
            INSERT INTO t VALUES (2, 'é', 3);
            ANALYZE TABLE t; OPTIMIZE TABLE t; DROP VIEW w; CREATE TEMPORARY TABLE tmp (a int); INSERT INTO tmp VALUES (1); DROP TEMPORARY TABLE tmp;
            TRUNCATE t; RENAME TABLE t TO t2; INSERT INTO t2 VALUES (3, 'b', 4); DROP TABLE t2")).await;
        assert_eq!(
            seen,
            [
                "c db.t - {id*: I64(1), v: \"a!\"}",
                "c db.t - {id*: I64(2), col`umn: \"é\", y: I64(3)}",
                "t db.t - -",
                "c db.t2 - {id*: I64(3), col`umn: \"b\", y: I64(4)}",
            ],
            "{:?}",
            server.flavor
        );
    }
}

#[tokio::test]
async fn large_rows() {
    for server in servers("large_rows") {
        let mut c = server.conn().await;
        c.query_drop("SET GLOBAL max_allowed_packet = 1073741824").await.unwrap();
        let db = server.database("large").await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        server.script(&db, "CREATE TABLE t (id int PRIMARY KEY, b longblob); INSERT INTO t VALUES (1, REPEAT('x', 40000000)); UPDATE t SET id = 2").await;
        let mut sizes = Vec::new();
        while sizes.len() < 2 {
            stream.batch.clear();
            let filled = stream.source.fill(&mut stream.batch, Limit { row_bytes: 100 << 20, ..LIMIT });
            tokio::time::timeout(DEADLINE, filled).await.unwrap().unwrap();
            for c in stream.batch.changes.iter().filter(|c| c.op != Op::Message) {
                sizes.push(stream.batch.image(c.after)[1].len);
            }
        }
        assert_eq!(sizes, [40_000_000, 40_000_000]);
        // and beyond the limit it is an error that names the table
        let start = stream.position.clone();
        server.script(&db, "UPDATE t SET id = 3").await;
        let mut stream = server.open(&[&format!("{db}.*")], Some(&start)).await;
        let end = async {
            loop {
                stream.batch.clear();
                if let Err(e) = stream.source.fill(&mut stream.batch, LIMIT).await {
                    return e;
                }
            }
        };
        assert_eq!(tokio::time::timeout(DEADLINE, end).await.unwrap().kind(), Kind::Limit);
    }
}

#[tokio::test]
async fn a_quiet_stream_moves_on() {
    for server in servers("a_quiet_stream_moves_on") {
        let db = server.database("idle").await;
        server.script(&db, KV).await;
        let mut stream = server.open(&["other.*"], None).await;
        server.script(&db, "INSERT INTO t VALUES (1, 'x')").await;
        let (seen, cut) = stream.next(LIMIT).await;
        assert!(seen.is_empty() && matches!(cut, Cut::Idle(_)), "{cut:?}");
        assert!(lines(&stream.batch).is_empty());
    }
}

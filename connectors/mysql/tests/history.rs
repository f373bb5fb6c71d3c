//! Columns of tables whose log does not name them (`binlog_row_metadata` below FULL), read again from every place of the log.

mod common;

use common::{DEADLINE, LIMIT, Server, Stream, servers};
use mysql_async::prelude::Queryable;
use seachange_mysql::flavor::Flavor;
use seachange_sdk::{Kind, Limit, Resume, kit};
use tokio::sync::Mutex;

/// One at a time: what they set is the whole server's.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What a stream gives between a place and the log's end.
async fn rest(server: &Server, tables: &[&str], db: &str, at: &Resume) -> Vec<String> {
    let end = log_end(server).await;
    let mut stream = server.resume(tables, Some(at)).await;
    let mut out = Vec::new();
    while !passed(&stream, &end) {
        out.extend(stream.next(LIMIT).await.0.into_iter().map(|l| l.replace(db, "db")));
    }
    // The server would keep a lost connection until it next writes to it, and there are hundreds.
    stream.source.close().await.unwrap();
    out
}

/// The tables before the stream begins. `t`, `u` and `v` are captured, what the tools make beside them is not.
const BEFORE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a varchar(20) CHARACTER SET latin1, b int unsigned, e enum('x','y'));
    CREATE TABLE v (id int PRIMARY KEY, x varchar(9));
    CREATE TABLE p (id int PRIMARY KEY, gone text) PARTITION BY RANGE (id) (PARTITION x VALUES LESS THAN (10));
    CREATE TABLE q (id int PRIMARY KEY, gone text)";

/// Alterations that can be followed from the beginning to the end even by a stream that comes late.
fn workload(server: &Server) -> String {
    let lenient = match server.flavor {
        Flavor::MySql => "",
        Flavor::MariaDb => {
            "ALTER TABLE u ADD COLUMN IF NOT EXISTS id bigint, DROP COLUMN IF EXISTS nothing; INSERT INTO u VALUES (31, 'l', 1, 1);"
        }
    };
    format!(
        r#"INSERT INTO p VALUES (1, 'p'); ALTER TABLE p EXCHANGE PARTITION x WITH TABLE q; UPDATE q SET gone = 'q';
         INSERT INTO t VALUES (1, 'é', 4000000000, 'y');
         ALTER TABLE t ADD c text AFTER id;
         INSERT INTO t VALUES (2, 'cc', 'ä', 2, 'x');
         ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a;
         INSERT INTO t VALUES (3, 'c', 'swapped', 3, 'y');
         ALTER TABLE t DROP COLUMN e, ADD COLUMN s set('p','q') FIRST, COMMENT = 'ADD x int, (';
         ALTER TABLE t ADD n decimal(9,3), ENGINE = InnoDB;
         UPDATE t SET n = 1.5, s = 'p,q' WHERE id = 3;
         CREATE INDEX i ON t (a); ALTER TABLE t ADD UNIQUE KEY uk (id, a), ALTER COLUMN n SET DEFAULT 7;
         INSERT INTO t (id, a, b) VALUES (4, 4, 'after index');
         ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (a, id);
         INSERT INTO t VALUES ('q', 5, NULL, 'key', 5, 5);

         CREATE TABLE u LIKE t; ALTER TABLE u DROP PRIMARY KEY, DROP s, DROP c, DROP n, DROP KEY uk, DROP KEY i;
         INSERT INTO u VALUES (1, 'like', 1);
         ALTER TABLE u CHANGE a `a,b` int, ADD PRIMARY KEY (id);
         INSERT INTO u VALUES (2, 'two', 2);
         ALTER TABLE u RENAME old; RENAME TABLE old TO u; ALTER TABLE u RENAME COLUMN `a,b` TO z;
         UPDATE u SET z = 9 WHERE id = 1;
         SET sql_mode = 'ANSI_QUOTES'; ALTER TABLE "u" ADD "x""y" int /* ) , DROP id */ DEFAULT 5 -- one
         ; INSERT INTO "u" VALUES (3, 'three', 3, 3); SET sql_mode = DEFAULT;
         {lenient}

         INSERT INTO v VALUES (1, 'one');
         CREATE TABLE _v_gho LIKE v; ALTER TABLE _v_gho ADD g int, DROP x, ADD y text;
         INSERT INTO _v_gho VALUES (1, 1, 'copied'); INSERT INTO v VALUES (2, 'two');
         RENAME TABLE v TO _v_del, _v_gho TO v;
         INSERT INTO v VALUES (3, 3, 'ghost');
         DROP TABLE _v_del;
         CREATE TABLE _v_new (id int PRIMARY KEY, g int, y text) COMMENT 'pt'; ALTER TABLE _v_new ADD p bigint unsigned FIRST;
         INSERT INTO v VALUES (4, 4, 'before');
         RENAME TABLE v TO _v_old, _v_new TO v;
         INSERT INTO v VALUES (18446744073709551615, 5, 5, 'percona');
         DELETE FROM v WHERE id = 5;
         CREATE TABLE w AS SELECT id, a FROM t; INSERT INTO v VALUES (6, 6, 6, 'last')"#
    )
}

/// And some that a stream must see before the next comes.
const LIVE: &str = "DROP TABLE _v_old; DROP TABLE u; INSERT INTO t VALUES ('p', 6, 'c', 'b', 6, 6);
    CREATE TABLE u (other varchar(5)); INSERT INTO u VALUES ('anew');
    ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4; INSERT INTO t VALUES ('p', 7, 'ü', 'ü', 7, 7);
    ALTER TABLE t MODIFY s set('p','q','r') AFTER id; INSERT INTO t VALUES (8, 'r', 'c', 'b', 8, 8);
    ALTER TABLE t MODIFY s set('r','q','p'); INSERT INTO t VALUES (9, 'r', 'c', 'b', 9, 9);
    DROP DATABASE IF EXISTS sc_no_such; TRUNCATE t; INSERT INTO t VALUES (10, 'p', 'c', 'b', 1, 1)";

#[tokio::test]
async fn every_restart_finds_the_columns_of_its_place() {
    let _alone = ALONE.lock().await;
    for server in servers("every_restart_finds_the_columns_of_its_place") {
        let was = server.metadata("MINIMAL").await;
        let db = server.database("history").await;
        let tables: Vec<String> = ["p", "q", "t", "u", "v", "w"].iter().map(|t| format!("{db}.{t}")).collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        server.script(&db, BEFORE).await;
        let mut live = server.resume(&tables, None).await;
        let start = live.resume.clone();
        let mut c = server.conn().await;
        c.query_drop(format!("USE {db}")).await.unwrap();
        // As it goes along: after every statement what it gave is read in the finest pieces, and read again from in front of it.
        // Rows of one event share a place: the last of them has it.
        let mut seen: Vec<(String, Option<Resume>)> = Vec::new();
        let (mut followed, mut statements) = (0, 0);
        for (i, part) in [workload(&server).as_str(), LIVE].iter().enumerate() {
            for statement in common::split(part) {
                let before = live.resume.clone();
                let from = seen.len();
                c.query_drop(&statement).await.unwrap_or_else(|e| panic!("{e}: {statement}"));
                let end = log_end(&server).await;
                while !passed(&live, &end) {
                    let (lines, _) = live.next(Limit { changes: 1, ..LIMIT }).await;
                    statements += common::statements(&live.batch).len();
                    let last = lines.len();
                    let place = |i| (i + 1 == last).then(|| live.resume.clone());
                    seen.extend(lines.into_iter().enumerate().map(|(i, l)| (l.replace(&*db, "db"), place(i))));
                }
                let new: Vec<&str> = seen[from..].iter().map(|s| s.0.as_str()).collect();
                assert_eq!(rest(&server, &tables, &db, &before).await, new, "{statement}");
            }
            if i == 0 {
                followed = seen.len();
                // From the beginning, and from every place: what has become of the tables since must not be seen.
                let all: Vec<String> = seen.iter().map(|s| s.0.clone()).collect();
                assert_eq!(rest(&server, &tables, &db, &start).await, all);
                for (i, (line, at)) in seen.iter().enumerate() {
                    let Some(at) = at else { continue };
                    assert_eq!(rest(&server, &tables, &db, at).await, all[i + 1..], "after {line}");
                }
                // And so says the kit, which cuts a stream that reads all of it in one go.
                let open = async |at: Resume| Ok(server.resume(&tables, Some(&at)).await.source);
                let kit = kit::cut_after_every_change(open, &start, all.len() + statements);
                let cuts = tokio::time::timeout(10 * DEADLINE, kit).await.expect("the kit in time").unwrap();
                assert!(cuts > 15, "{cuts}");
            }
        }
        let has = |line: &str| {
            assert!(seen.iter().any(|l| l.0 == line), "{line}\nin {:#?}", seen.iter().map(|s| &s.0).collect::<Vec<_>>())
        };
        has(r#"u db.q {id*: I64(1), gone: "p"} {id*: I64(1), gone: "q"}"#);
        has(r#"c db.t - {id*: I64(1), a: "é", b: I64(4000000000), e: "y"}"#);
        has(r#"c db.t - {id*: I64(3), c: "c", b: "swapped", a: I64(3), e: "y"}"#);
        has(r#"c db.t - {s: "q", id*: I64(5), c: NULL, b: "key", a*: I64(5), n: Unscaled(5000, 3)}"#);
        has(r#"c db.u - {id: I64(1), b: "like", a: I64(1)}"#);
        has(r#"c db.u - {id*: I64(3), b: "three", z: I64(3), x"y: I64(3)}"#);
        has(r#"c db.v - {id*: I64(3), g: I64(3), y: "ghost"}"#);
        has(r#"c db.v - {p: U64(18446744073709551615), id*: I64(5), g: I64(5), y: "percona"}"#);
        has(r#"c db.u - {other: "anew"}"#);
        has(r#"c db.t - {id*: I64(9), s: "r", c: "c", b: "b", a*: I64(9), n: Unscaled(9000, 3)}"#);
        assert!(seen.len() > followed + 5);
        server.metadata(&was).await;
    }
}

async fn log_end(server: &Server) -> seachange_mysql::position::Place {
    let mut c = server.conn().await;
    let known = seachange_mysql::catalog::Server::ask(&mut c).await.unwrap();
    known.log_end(&mut c).await.unwrap().0
}

fn passed(stream: &Stream, end: &seachange_mysql::position::Place) -> bool {
    let stand = seachange_mysql::position::Stand::decode(&stream.position).unwrap();
    stand.place >= *end && stand.rows == 0
}

#[tokio::test]
async fn what_nobody_can_know_stops() {
    let _alone = ALONE.lock().await;
    for server in servers("what_nobody_can_know_stops") {
        let was = server.metadata("MINIMAL").await;
        let db = server.database("unknown").await;
        let tables = [&*format!("{db}.*")];
        server.script(&db, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE gone (id int)").await;
        let mut live = server.resume(&tables, None).await;
        let start = live.resume.clone();
        // What `c` was between its two definitions stands nowhere, unless somebody was looking.
        for (statement, want) in [
            ("INSERT INTO gone VALUES (5)", Some("c db.gone - {id: I64(5)}")),
            ("ALTER TABLE t ADD c varchar(5) CHARACTER SET latin1", None),
            ("INSERT INTO t VALUES (1, 'é')", Some(r#"c db.t - {id*: I64(1), c: "é"}"#)),
            ("ALTER TABLE t MODIFY c varchar(5) CHARACTER SET utf8mb4", None),
            ("INSERT INTO t VALUES (2, 'é')", Some(r#"c db.t - {id*: I64(2), c: "é"}"#)),
            ("DROP TABLE gone", None),
        ] {
            server.script(&db, statement).await;
            match want {
                Some(want) => assert_eq!(live.next_changes().await, [want.replace("db.", &format!("{db}."))]),
                None => {
                    let end = log_end(&server).await;
                    while !passed(&live, &end) {
                        live.next(LIMIT).await;
                    }
                }
            }
        }
        // Behind it: exactly on.
        server.script(&db, "INSERT INTO t VALUES (3, 'on')").await;
        let mut again = server.resume(&tables, Some(&live.resume)).await;
        assert_eq!(again.next_changes().await, [format!(r#"c {db}.t - {{id*: I64(3), c: "on"}}"#)]);
        // In front of it: the rows of the table that is gone are read (its columns are kept), then it stops.
        let mut again = server.resume(&tables, Some(&start)).await;
        let mut seen = Vec::new();
        let e = loop {
            again.batch.clear();
            let filled =
                tokio::time::timeout(DEADLINE, again.source.fill(&mut again.batch, Limit { changes: 1, ..LIMIT }));
            match filled.await.expect("neither data nor error") {
                Ok(()) => seen.extend(common::lines(&again.batch)),
                Err(e) => break e,
            }
        };
        assert_eq!(seen, [format!("c {db}.gone - {{id: I64(5)}}")]);
        assert_eq!(e.kind(), Kind::Schema, "{e:?}");
        let fix = e.remedy().unwrap();
        assert!(
            e.to_string().contains(&format!("{db}.t")) && fix.contains("FULL") && fix.contains("state reset"),
            "{e:?}"
        );
        // Without what was kept, the catalog is used only while it is provably right.
        let mut blind = server.resume(&tables, Some(&start.position.clone().into())).await;
        blind.batch.clear();
        let e = loop {
            match tokio::time::timeout(DEADLINE, blind.source.fill(&mut blind.batch, LIMIT)).await.unwrap() {
                Ok(()) => assert!(common::lines(&blind.batch).is_empty(), "{:?}", common::lines(&blind.batch)),
                Err(e) => break e,
            }
            blind.batch.clear();
        };
        assert_eq!(e.kind(), Kind::Schema, "{e:?}");
        server.metadata(&was).await;
    }
}

/// Clients may send statements in other character sets, in some of which a character ends in a byte that is `\\` or a backquote
/// in ASCII.
#[tokio::test]
async fn statements_in_any_character_set() {
    let _alone = ALONE.lock().await;
    for server in servers("statements_in_any_character_set") {
        let db = server.database("charsets").await;
        let mut live = server.resume(&[&format!("{db}.*")], None).await;
        let mut c = server.conn().await;
        c.query_drop(format!("USE {db}")).await.unwrap();
        for (set, w) in
            [("latin1", "é"), ("gbk", "乣"), ("sjis", "ソ能"), ("big5", "功"), ("utf8mb4", "ヱ"), ("binary", "ö")]
        {
            let statements = [
                format!(
                    "CREATE TABLE `t{w}` (id int PRIMARY KEY, `c{w}` varchar(20) CHARACTER SET utf8mb4 DEFAULT 'a{w}') COMMENT '{w}'"
                ),
                format!("ALTER TABLE `t{w}` ADD `d{w}` int, COMMENT = 'b{w}'"),
                format!("RENAME TABLE `t{w}` TO `u{w}`"),
                format!("INSERT INTO `u{w}` VALUES (1, 'c{w}', 1)"),
                format!("DROP TABLE `u{w}`"),
            ];
            let (mut told, mut rows) = (Vec::new(), Vec::new());
            for text in &statements {
                c.query_drop("SET NAMES utf8mb4").await.unwrap();
                let bytes: Vec<u8> = c
                    .exec_first(format!("SELECT CAST(CONVERT(? USING {set}) AS BINARY)"), (text,))
                    .await
                    .unwrap()
                    .unwrap();
                c.query_drop(format!("SET NAMES {set}")).await.unwrap();
                c.query_drop(bytes).await.unwrap_or_else(|e| panic!("{e}: {set}: {text}"));
                let end = log_end(&server).await;
                while !passed(&live, &end) {
                    rows.extend(live.next(LIMIT).await.0);
                    told.extend(common::statements(&live.batch));
                }
            }
            let told: Vec<&str> = told.iter().map(|s| s[1].as_str()).collect();
            assert_eq!(told[..3], statements[..3], "{set}");
            // The servers write this one anew.
            assert!(told.len() == 4 && told[3].starts_with(&format!("DROP TABLE `u{w}`")), "{set}: {told:?}");
            assert_eq!(rows, [format!("c {db}.u{w} - {{id*: I64(1), c{w}: \"c{w}\", d{w}: I64(1)}}")], "{set}");
        }
        // What is no text in its set is told as what it is.
        c.query_drop("SET NAMES utf8mb4").await.unwrap();
        c.query_drop(b"CREATE TABLE bytes (id int PRIMARY KEY, b varbinary(9) DEFAULT _binary'\xff')".to_vec())
            .await
            .unwrap();
        let end = log_end(&server).await;
        let mut told = Vec::new();
        while !passed(&live, &end) {
            live.next(LIMIT).await;
            told.extend(common::statements(&live.batch));
        }
        let text = "CREATE TABLE bytes (id int PRIMARY KEY, b varbinary(9) DEFAULT _binary'\\xFF')";
        assert_eq!(
            told[0][1],
            format!("/* not all of this is utf8mb4: what is not stands as \\xHH or U+FFFD */ {text}")
        );
    }
}

#[tokio::test]
async fn statements_about_captured_tables_are_told_once() {
    let _alone = ALONE.lock().await;
    for server in servers("statements_about_captured_tables_are_told_once") {
        for level in ["MINIMAL", "FULL"] {
            let was = server.metadata(level).await;
            let db = server.database("told").await;
            let tables = [&*format!("{db}.t*")];
            let mut live = server.resume(&tables, None).await;
            let mut seen = Vec::new();
            let mut c = server.conn().await;
            c.query_drop(format!("USE {db}")).await.unwrap();
            for statement in [
                "CREATE TABLE t (id int unsigned AUTO_INCREMENT PRIMARY KEY, v varchar(40) NOT NULL) COMMENT 'it''s'",
                "CREATE TABLE other (a int)",
                "INSERT INTO t (v) VALUES ('x')",
                "/* why */ ALTER TABLE t ADD e enum('a','b') NULL",
                "RENAME TABLE t TO tt, other TO o2",
                "CREATE TABLE t3 AS SELECT id FROM tt",
                "CREATE UNIQUE INDEX i ON tt (v)",
                "DROP TABLE tt, o2",
                "DROP TABLE t3",
            ] {
                c.query_drop(statement).await.unwrap();
                let end = log_end(&server).await;
                while !passed(&live, &end) {
                    live.next(LIMIT).await;
                    assert!(live.batch.txns.iter().all(|t| t.file.is_some() && t.ts_us > 0));
                    seen.extend(common::statements(&live.batch));
                }
            }
            let text: Vec<&str> = seen.iter().map(|s| s[1].split('/').next().unwrap().trim()).collect();
            let begins =
                ["CREATE TABLE t (", "", "RENAME TABLE", "CREATE TABLE", "CREATE UNIQUE", "DROP TABLE", "DROP TABLE"];
            assert!(text.iter().zip(begins).all(|(t, b)| t.starts_with(b)), "{text:#?}");
            assert!(seen[1][1].contains("/* why */ ALTER TABLE t ADD e"), "{:?}", seen[1]);
            assert!(seen.iter().all(|s| s[0] == *db));
            let became: Vec<String> = seen.iter().map(|s| shape(&s[2])).collect();
            let id = |t: &str| format!("\\\"{db}\\\".\\\"{t}\\\"");
            let [t, tt, t3] = ["t", "tt", "t3"].map(id);
            assert_eq!(
                became,
                [
                    format!("CREATE {t} id,v key id;"),
                    format!("ALTER {t} id,v,e key id;"),
                    format!("DROP {t};ALTER {tt} id,v,e key id;"),
                    format!("CREATE {t3} id key ;"),
                    format!("ALTER {tt} id,v,e key id;"),
                    format!("DROP {tt};"),
                    format!("DROP {t3};"),
                ]
            );
            // the same from the beginning and after every one of them, rows between them and within included
            let open = async |at: Resume| Ok(server.resume(&tables, Some(&at)).await.source);
            let from = live_start(&server, &tables, &db).await;
            let kit = kit::cut_after_every_change(open, &from, 5);
            tokio::time::timeout(10 * DEADLINE, kit).await.expect("the kit in time").unwrap();
            server.metadata(&was).await;
        }
    }
}

/// A fresh start, behind which stand a table that is made, altered and filled, and one that is made of it.
async fn live_start(server: &Server, tables: &[&str], db: &str) -> Resume {
    let start = server.resume(tables, None).await.resume;
    server.script(db, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE t2 AS SELECT id FROM t; ALTER TABLE t ADD x int").await;
    start
}

/// `tableChanges`, shortened: `ALTER "db"."t" columns key names;`.
fn shape(json: &str) -> String {
    let mut out = String::new();
    for part in json.split("{\"type\":\"").skip(1) {
        let (how, rest) = part.split_once("\",\"id\":\"").unwrap();
        let (id, table) = rest.split_once("\",\"table\":").unwrap();
        out.push_str(&format!("{how} {id}"));
        if !table.starts_with("null") {
            let names: Vec<&str> = table.split("{\"name\":\"").skip(1).map(|c| c.split('"').next().unwrap()).collect();
            let key = table.split("primaryKeyColumnNames\":[").nth(1).unwrap().split(']').next().unwrap();
            out.push_str(&format!(" {} key {}", names.join(","), key.replace('"', "")));
        }
        out.push(';');
    }
    out
}

//! What must stop a stream, and tests that change what a whole server does: a file of their own, so that they run alone.

mod common;

use common::{DEADLINE, LIMIT, servers};
use mysql_async::prelude::Queryable;
use seachange_mysql::flavor::Flavor;
use seachange_sdk::{Kind, Position, Result};
use tokio::sync::Mutex;

/// One at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const KV: &str = "CREATE TABLE t (id int PRIMARY KEY, v varchar(40))";

#[tokio::test]
async fn statements_instead_of_rows_stop_the_stream() {
    let _alone = ALONE.lock().await;
    for server in servers("statements_instead_of_rows_stop_the_stream") {
        let e = common::fails(
            &server,
            "stmt",
            &format!("{KV}; SET SESSION binlog_format = 'STATEMENT'; INSERT INTO t VALUES (1, 'secret')"),
        )
        .await;
        assert_eq!(e.kind(), Kind::Schema);
        assert!(e.remedy().unwrap().contains("ROW") && !format!("{e:?}").contains("secret"), "{e:?}");
    }
}

#[tokio::test]
async fn positions_that_cannot_be_gone_on_from() {
    let _alone = ALONE.lock().await;
    for server in servers("positions_that_cannot_be_gone_on_from") {
        let db = server.database("gap").await;
        server.script(&db, KV).await;
        let start = server.open(&[&format!("{db}.*")], None).await.position;
        let open = async |p: &Position| -> Result<()> {
            let mut opened = server.configured(&[&format!("{db}.*")], 5).open(Some(&p.clone().into())).await?;
            let mut batch = seachange_sdk::Batch::default();
            loop {
                tokio::time::timeout(DEADLINE, opened.source.fill(&mut batch, LIMIT))
                    .await
                    .expect("neither data nor error")?;
                if !common::lines(&batch).is_empty() {
                    return Ok(());
                }
                batch.clear();
            }
        };
        // the future: another server, or one that was reset
        let mut stand = seachange_mysql::position::Stand::decode(&start).unwrap();
        stand.place.offset = u64::from(u32::MAX);
        stand.gtids = match server.flavor {
            Flavor::MySql if stand.gtids == seachange_mysql::position::Gtids::Off => stand.gtids,
            Flavor::MySql => {
                seachange_mysql::position::Gtids::MySql("00000000-0000-0000-0000-000000000001:1-5".parse().unwrap())
            }
            Flavor::MariaDb => seachange_mysql::position::Gtids::Maria("0-1-99999999".parse().unwrap()),
        };
        let e = open(&stand.encode()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Gap, "{e:?}");
        assert!(e.remedy().is_some());
        // the past: purged
        server.script(&db, "INSERT INTO t VALUES (1, 'x'); FLUSH BINARY LOGS; INSERT INTO t VALUES (2, 'y')").await;
        let mut c = server.conn().await;
        let files: Vec<mysql_async::Row> = c.query("SHOW BINARY LOGS").await.unwrap();
        let last: String = files.last().unwrap().get(0).unwrap();
        open(&start).await.unwrap();
        // MariaDB keeps what a replica that is connected still needs
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            c.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.unwrap();
            let left: Vec<mysql_async::Row> = c.query("SHOW BINARY LOGS").await.unwrap();
            if left.len() == 1 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "the log is not purged");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let e = open(&start).await.unwrap_err();
        assert_eq!((e.kind(), e.retryable()), (Kind::Gap, seachange_sdk::Retry::Never), "{e:?}");
    }
}

#[tokio::test]
async fn check_and_init_tell_what_they_see() {
    let _alone = ALONE.lock().await;
    for server in servers("check_and_init_tell_what_they_see") {
        let db = server.database("check").await;
        server.script(&db, &format!("{KV}; CREATE TABLE nokey (a int)")).await;
        let checks = server.configured(&[&format!("{db}.*"), "no.such"], 9).check().await;
        let find = |name: &str| checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"));
        assert!(checks.iter().all(|c| !matches!(c.outcome, seachange_sdk::Outcome::Fail(..))), "{checks:#?}");
        assert!(matches!(find(&format!("table {db}.nokey")).outcome, seachange_sdk::Outcome::Warn(..)));
        assert!(matches!(find(&format!("table {db}.t")).outcome, seachange_sdk::Outcome::Pass(..)));
        use seachange_sdk::Connector;
        let which = if server.flavor == Flavor::MySql { &seachange_mysql::MYSQL } else { &seachange_mysql::MARIADB };
        let text = which.init(&format!("{}/{db}", server.url)).await.unwrap();
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        assert!(text.contains(&format!("tables = [\"{db}.*\"]")) && !text.contains("root:root"), "{text}");
        // the wrong kind is said plainly
        let other = if server.flavor == Flavor::MySql { &seachange_mysql::MARIADB } else { &seachange_mysql::MYSQL };
        let mut t = toml::Table::new();
        t.insert("url".into(), server.url.as_str().into());
        t.insert("tables".into(), toml::Value::Array(vec!["a.*".into()]));
        let e = other.configure("p", "p", &t).unwrap().open(None).await.err().unwrap();
        assert!(e.remedy().unwrap().contains(server.flavor.kind()), "{e:?}");
    }
}

#[tokio::test]
async fn columns_from_the_catalog_only_while_they_are_right() {
    let _alone = ALONE.lock().await;
    for server in servers("columns_from_the_catalog_only_while_they_are_right") {
        let was = server.metadata("MINIMAL").await;
        let db = server.database("minimal").await;
        let start = server.open(&[&format!("{db}.*")], None).await.position;
        let mut stream = server.open(&[&format!("{db}.*")], Some(&start)).await;
        server
            .script(&db, "CREATE TABLE t (id bigint unsigned PRIMARY KEY, e enum('a','b'), s set('x','y'), l varchar(9) CHARACTER SET latin1);
                CREATE TABLE other (a int); INSERT INTO t VALUES (18446744073709551615, 'b', 'x,y', 'é')")
            .await;
        let seen = stream.next_changes().await;
        assert_eq!(seen, [format!("c {db}.t - {{id*: U64(18446744073709551615), e: \"b\", s: \"x,y\", l: \"é\"}}")]);
        // several changes in a row: the columns are those of the last
        server
            .script(
                &db,
                "ALTER TABLE t ADD n int FIRST; ALTER TABLE t RENAME COLUMN e TO f; ALTER TABLE t DROP COLUMN s;
                INSERT INTO t VALUES (5, 7, 'a', 'ü'); CREATE TABLE made AS SELECT id, f FROM t",
            )
            .await;
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(stream.next_changes().await);
        }
        assert_eq!(seen[0], format!("c {db}.t - {{n: I64(5), id*: U64(7), f: \"a\", l: \"ü\"}}"));
        // the same log read again: the catalog has moved on, and a rename could not be told from its bytes
        let mut again = server.open(&[&format!("{db}.*")], Some(&start)).await;
        again.batch.clear();
        let e = loop {
            match tokio::time::timeout(DEADLINE, again.source.fill(&mut again.batch, LIMIT)).await.unwrap() {
                Ok(()) => assert!(common::lines(&again.batch).is_empty(), "{:?}", common::lines(&again.batch)),
                Err(e) => break e,
            }
            again.batch.clear();
        };
        assert_eq!(e.kind(), Kind::Schema, "{e:?}");
        assert!(e.to_string().contains(&format!("{db}.t")) && e.remedy().unwrap().contains("FULL"), "{e:?}");
        server.metadata(&was).await;
    }
}

#[tokio::test]
async fn labels_that_the_catalog_cannot_hold() {
    let _alone = ALONE.lock().await;
    for server in servers("labels_that_the_catalog_cannot_hold") {
        let was = server.metadata("MINIMAL").await;
        let db = server.database("labels").await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        server.script(&db, include_str!("workloads/full-metadata.sql")).await;
        while stream.batch.changes.iter().all(|c| c.op == seachange_sdk::Op::Message) {
            stream.batch.clear();
            tokio::time::timeout(DEADLINE, stream.source.fill(&mut stream.batch, LIMIT)).await.unwrap().unwrap();
        }
        let (mut read, mut refused) = (Vec::new(), Vec::new());
        for c in stream.batch.changes.iter().filter(|c| c.op == seachange_sdk::Op::Create) {
            let columns = &stream.batch.tables[c.table as usize].columns;
            let bytes = stream.batch.image(c.after)[1].bytes(stream.batch.chunk(c));
            match bytes.map(|b| columns[1].decode.value(b)) {
                Some(Err(e)) => refused.push(e),
                other => read.push(format!("{other:?}")),
            }
        }
        assert_eq!(read, ["Some(Ok(Text(\"汉\")))", "None"]);
        assert_eq!((refused.len(), refused[0].kind()), (1, Kind::Schema));
        assert!(refused[0].remedy().unwrap().contains("FULL"), "{refused:?}");
        server.metadata(&was).await;
    }
}

//! Another server takes over: a stream goes on by GTID where file names and offsets mean nothing. And what is set for a whole
//! server, which others would feel: a log without checksums, `LOAD DATA LOCAL`.
//!
//! The test makes the two servers itself, with other numbers and other names of log files, and wipes them: nobody else
//! needs them. `SEACHANGE_TEST_MYSQL_PAIR` and `SEACHANGE_TEST_MARIADB_PAIR` hold their ports, `SEACHANGE_TEST_SCRIPTS` the
//! folder of the scripts that make them.

mod common;

use bytes::Bytes;
use common::{DEADLINE, LIMIT, Server};
use futures_util::{StreamExt, stream};
use mysql_async::{Conn, prelude::Queryable};
use seachange_mysql::{flavor::Flavor, position::Stand};
use seachange_sdk::{Kind, Limit, Resume};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// What the log files of the second server are called.
const OTHER: &str = "other";

/// A first server and a second one, gone when this is dropped.
struct Pair {
    flavor: Flavor,
    ports: [String; 2],
}

impl Pair {
    /// `None`: there is no such server here.
    fn start(flavor: Flavor) -> Option<Pair> {
        let name = format!("SEACHANGE_TEST_{}_PAIR", flavor.name().to_uppercase());
        let Ok(ports) = std::env::var(&name) else {
            common::skipped(&format!("failover of {}", flavor.name()), &format!("{name} is not set"));
            return None;
        };
        let ports: Vec<_> = ports.split_whitespace().map(str::to_owned).collect();
        let pair = Pair { flavor, ports: ports.try_into().unwrap_or_else(|_| panic!("{name} holds two ports")) };
        // An earlier run that was killed may have left its own.
        pair.both("wipe").and_then(|()| pair.both("start")).unwrap_or_else(|e| panic!("{e}"));
        Some(pair)
    }

    /// Runs the servers' script for both at once: most of a start is waiting.
    fn both(&self, what: &str) -> Result<(), String> {
        let [first, second] = &self.ports;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.script(second, what, &format!("log_bin={OTHER}")));
            self.script(first, what, "").and(other.join().expect("the second script"))
        })
    }

    fn script(&self, port: &str, what: &str, conf: &str) -> Result<(), String> {
        let kind = self.flavor.name().to_lowercase();
        let scripts = std::env::var("SEACHANGE_TEST_SCRIPTS").map_err(|e| format!("SEACHANGE_TEST_SCRIPTS: {e}"))?;
        let setting = |name: &str| format!("{}_{name}", kind.to_uppercase());
        let shared = std::env::var(setting("CONF")).unwrap_or_default();
        let out = Command::new(PathBuf::from(scripts).join(&kind))
            .arg(what)
            .env(setting("PORT"), port)
            .env(setting("CONF"), format!("{shared} {conf}"))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("{kind} {what}: {e}"))?;
        let text = [out.stdout, out.stderr].concat();
        let failed = || format!("{kind} {what}: {}: {}", out.status, String::from_utf8_lossy(&text));
        if out.status.success() { Ok(()) } else { Err(failed()) }
    }

    fn server(&self, n: usize) -> Server {
        let url = format!("{}://root:root@127.0.0.1:{}", self.flavor.name().to_lowercase(), self.ports[n]);
        Server { flavor: self.flavor, url }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Err(e) = self.both("wipe") {
            eprintln!("the servers could not be wiped: {e}");
        }
    }
}

async fn run(c: &mut Conn, text: &str) {
    for statement in common::split(text) {
        c.query_drop(&statement).await.unwrap_or_else(|e| panic!("{e}: {statement}"));
    }
}

/// Everything forgotten on both, and the second follows the first.
async fn replicate(a: &Server, b: &Server) {
    let port = a.url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let (mut on_a, mut on_b) = (a.conn().await, b.conn().await);
    match a.flavor {
        Flavor::MySql => {
            run(&mut on_b, "STOP REPLICA; RESET REPLICA ALL; RESET BINARY LOGS AND GTIDS").await;
            run(&mut on_a, "STOP REPLICA; RESET REPLICA ALL; RESET BINARY LOGS AND GTIDS").await;
            run(&mut on_b, &format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', SOURCE_PASSWORD = 'root', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA")).await;
        }
        Flavor::MariaDb => {
            for c in [&mut on_b, &mut on_a] {
                run(c, "STOP SLAVE; RESET SLAVE ALL; RESET MASTER; SET GLOBAL gtid_slave_pos = ''").await;
            }
            run(&mut on_b, &format!("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'root', MASTER_PASSWORD = 'root', MASTER_USE_GTID = slave_pos; START SLAVE")).await;
        }
    }
}

/// Waits until the second has all that the first has.
async fn caught_up(a: &Server, b: &Server) {
    let (mut on_a, mut on_b) = (a.conn().await, b.conn().await);
    let (ask, wait) = match a.flavor {
        Flavor::MySql => ("SELECT @@GLOBAL.gtid_executed", "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)"),
        Flavor::MariaDb => ("SELECT @@GLOBAL.gtid_binlog_pos", "SELECT MASTER_GTID_WAIT(?, 60)"),
    };
    let have: String = on_a.query_first(ask).await.unwrap().unwrap();
    let waited: Option<i64> = on_b.exec_first(wait, (have,)).await.unwrap();
    assert_eq!(waited, Some(0), "the replica does not follow");
}

async fn promote(b: &Server) {
    let stop = match b.flavor {
        Flavor::MySql => "STOP REPLICA; RESET REPLICA ALL",
        Flavor::MariaDb => "STOP SLAVE; RESET SLAVE ALL",
    };
    run(&mut b.conn().await, stop).await;
}

/// The log's checksums are switched off and on again, under the eyes of one stream and before another one begins.
async fn without_checksums(a: &Server) {
    let db = a.database("checksums").await;
    let tables = [&*format!("{db}.*")];
    a.script(&db, "CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); SET GLOBAL local_infile = 1").await;
    let mut live = a.resume(&tables, None).await;
    a.script(
        &db,
        "INSERT INTO t VALUES (1, 'with'); SET GLOBAL binlog_checksum = 'NONE'; INSERT INTO t VALUES (2, 'without')",
    )
    .await;
    let mut late = a.resume(&tables, None).await;
    a.script(&db, "INSERT INTO t VALUES (3, 'late')").await;
    let mut c = a.conn().await;
    c.query_drop(format!("USE {db}")).await.unwrap();
    c.set_infile_handler(async { Ok(stream::iter([Ok(Bytes::from_static(b"4\tloaded\n5\ttoo\n"))]).boxed()) });
    c.query_drop("LOAD DATA LOCAL INFILE 'rows' INTO TABLE t").await.unwrap();
    c.disconnect().await.unwrap();
    a.script(&db, "SET GLOBAL binlog_checksum = 'CRC32'; INSERT INTO t VALUES (6, 'again')").await;
    let row = |(id, v)| format!("c {db}.t - {{id*: I64({id}), v: \"{v}\"}}");
    let want = [(1, "with"), (2, "without"), (3, "late"), (4, "loaded"), (5, "too"), (6, "again")].map(row);
    for (stream, want) in [(&mut live, &want[..]), (&mut late, &want[2..])] {
        let mut got = Vec::new();
        while got.len() < want.len() {
            got.extend(stream.next_changes().await);
        }
        assert_eq!(got, want);
    }
}

#[tokio::test]
async fn a_replica_takes_over_without_loss_or_repeat() {
    // One kind after the other: a few servers at a time are enough.
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let Some(pair) = Pair::start(flavor) else { continue };
        let (a, b) = (pair.server(0), pair.server(1));
        without_checksums(&a).await;
        replicate(&a, &b).await;
        let db = a.database("failover").await;
        let tables = [&*format!("{db}.*")];
        a.script(&db, "CREATE TABLE t (id int PRIMARY KEY, v varchar(9))").await;
        let mut live = a.resume(&tables, None).await;
        // Ids of every kind that the servers give: tags, domains.
        let (tagged, plain) = match a.flavor {
            Flavor::MySql => ("SET gtid_next = 'AUTOMATIC:seachange'", "SET gtid_next = 'AUTOMATIC'"),
            Flavor::MariaDb => ("SET gtid_domain_id = 7", "SET gtid_domain_id = 0"),
        };
        a.script(
            &db,
            &format!(
                "INSERT INTO t VALUES (1, 'a'); {tagged}; INSERT INTO t VALUES (2, 'tag'); UPDATE t SET v = 'again' WHERE id = 2; {plain};
                 BEGIN; INSERT INTO t VALUES (3, 'x'); INSERT INTO t VALUES (4, 'y'); INSERT INTO t VALUES (5, 'z'); COMMIT;
                 ALTER TABLE t ADD n int; {tagged}; INSERT INTO t VALUES (6, 'tag', 6); {plain}; INSERT INTO t VALUES (7, 'last', 7)"
            ),
        )
        .await;
        // One change after another at the first server: every place of it must be one at the second.
        let mut seen: Vec<(Vec<String>, Resume)> = vec![(vec![], live.resume.clone())];
        while !seen.iter().any(|s| s.0.iter().any(|l| l.contains("last"))) {
            let (lines, _) = live.next(Limit { changes: 1, ..LIMIT }).await;
            seen.push((lines, live.resume.clone()));
        }
        let stand = Stand::decode(&live.position).unwrap();
        let text = stand.gtids.to_string();
        match a.flavor {
            Flavor::MySql => assert!(text.contains(":seachange:1-3"), "{text}"),
            Flavor::MariaDb => assert!(text.starts_with("0-") && text.contains(",7-"), "{text}"),
        }
        assert!(
            seen.iter().any(|s| Stand::decode(&s.1.position).unwrap().rows > 0),
            "no place inside of a transaction"
        );
        caught_up(&a, &b).await;
        promote(&b).await;
        b.script(&db, "INSERT INTO t VALUES (8, 'promoted', 8); UPDATE t SET n = 9 WHERE id = 1").await;
        let at_b = [format!("c {db}.t - {{id*: I64(8), v: \"promoted\", n: I64(8)}}"), format!("u {db}.t")];
        for i in 0..seen.len() {
            let mut want: Vec<String> = seen[i + 1..].iter().flat_map(|s| s.0.clone()).collect();
            want.push(at_b[0].clone());
            let mut stream = b.resume(&tables, Some(&seen[i].1)).await;
            let mut got = Vec::new();
            while got.len() <= want.len() {
                got.extend(stream.next(LIMIT).await.0);
            }
            assert!(got.pop().unwrap().starts_with(&at_b[1]), "{got:?}");
            assert_eq!(got, want, "at the replica after {:?}", seen[i].0);
            let stand = Stand::decode(&stream.position).unwrap();
            assert!(stand.place.file.starts_with(&format!("{OTHER}.")), "{stand}");
        }
        // The first one does not have what the second has delivered since: a clear stop, not a hole.
        let mut ahead = b.resume(&tables, Some(&live.resume)).await;
        while !ahead.next(LIMIT).await.0.iter().any(|l| l.starts_with(&at_b[1])) {}
        let opened = a.configured(&tables, 4_000_001).open(Some(&ahead.resume)).await;
        let e = match opened {
            Err(e) => e,
            Ok(mut opened) => {
                let mut batch = seachange_sdk::Batch::default();
                let filled = tokio::time::timeout(DEADLINE, opened.source.fill(&mut batch, LIMIT)).await;
                filled.expect("neither data nor error").expect_err("it goes on without what is missing")
            }
        };
        assert_eq!(e.kind(), Kind::Gap, "{e:?}");
        assert!(e.remedy().is_some());
    }
}

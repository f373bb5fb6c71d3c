//! The stream against real servers. Runs where `SEACHANGE_TEST_PG` names one or more (URLs of the capture account,
//! separated by spaces); `SEACHANGE_TEST_PG_SUPER` names them as the superuser reaches them, in the same order. One test at
//! a time: some change settings of the whole server.

use seachange_postgres::{Configuration, Postgres, config::Config, conn::Replication, sql::Connector as Sql};
use seachange_sdk::{
    Batch, Cell, Configured, Connector, Cut, Kind, Limit, Op, Outcome, Position, Resume, Retry, Source, Span, Txn,
};
use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

const LIMIT: Limit = Limit { bytes: 1 << 20, changes: 100_000, row_bytes: 100 << 20, txn_tables: true };
const DEADLINE: Duration = Duration::from_secs(60);

fn servers() -> Vec<String> {
    let list = std::env::var("SEACHANGE_TEST_PG").unwrap_or_default();
    if list.trim().is_empty() {
        skipped("SEACHANGE_TEST_PG names no server");
    }
    list.split_whitespace().map(str::to_owned).collect()
}

/// Says that the running test cannot do its work here; `scripts/test` counts it apart from the passed.
fn skipped(why: &str) {
    let line = format!("{}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    eprintln!("SKIPPED {line}");
    if let Some(file) = std::env::var_os("SEACHANGE_TEST_SKIPPED") {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        opened.and_then(|mut f| f.write_all(line.as_bytes())).expect("the list of skipped tests");
    }
}

fn superuser(url: &str) -> String {
    let supers = std::env::var("SEACHANGE_TEST_PG_SUPER").unwrap_or_default();
    let rest = url.split_once('@').expect("the URL has a user").1.split('/').next().expect("a host");
    let found = supers.split_whitespace().find(|s| s.contains(&format!("@{rest}/")));
    found.unwrap_or_else(|| panic!("SEACHANGE_TEST_PG_SUPER has no URL for {rest}")).to_owned()
}

/// Some tests change settings of the whole server.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn sql(url: &str) -> Client {
    // Parameters (TLS) are for the connector under test.
    let url = url.split('?').next().unwrap();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}

/// A schema, slot and publication of a test's own.
struct Lab {
    name: &'static str,
    url: String,
    db: Client,
}

impl Lab {
    async fn new(url: &str, name: &'static str) -> Lab {
        let db = sql(url).await;
        let lab = Lab { name, url: url.to_owned(), db };
        lab.clean().await;
        lab.run(&format!("CREATE SCHEMA {name}")).await;
        lab
    }
    async fn run(&self, text: &str) {
        self.db.batch_execute(text).await.unwrap_or_else(|e| panic!("{text}: {e:?}"));
    }
    async fn clean(&self) {
        let n = self.name;
        let until = Instant::now() + DEADLINE;
        loop {
            let gone = self
                .db
                .batch_execute(&format!(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'seachange_{n}'"
                ))
                .await;
            match gone {
                Ok(()) => break,
                // The walsender of a stream that was just dropped is still on its way out.
                Err(e) if Instant::now() < until && e.code().is_some_and(|c| c.code() == "55006") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("{e:?}"),
            }
        }
        self.run(&format!("DROP PUBLICATION IF EXISTS seachange_{n}; DROP SCHEMA IF EXISTS {n} CASCADE")).await;
    }
    fn configured(&self, more: &str) -> Arc<dyn Configured> {
        let text = format!("url = '{}'\ntables = ['{}.*']\n{more}", self.url, self.name);
        Postgres.configure(self.name, "pipeline.x.source", &text.parse().unwrap()).unwrap()
    }
    async fn open(&self, c: &Arc<dyn Configured>, at: Option<&Position>) -> (Box<dyn Source>, Position) {
        let until = Instant::now() + DEADLINE;
        let at = at.cloned().map(Resume::from);
        loop {
            match c.open(at.as_ref()).await {
                Ok(o) => return (o.source, o.position),
                Err(e) if e.retryable() == Retry::Backoff && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("{e:?}"),
            }
        }
    }
}

fn lines(b: &Batch) -> Vec<String> {
    b.changes
        .iter()
        .map(|c| {
            let t: &Txn = &b.txns[c.txn as usize];
            let cells = |s: Span| -> String {
                let text = |x: &Cell| match *x {
                    Cell::NULL => "null".to_owned(),
                    Cell::ABSENT => "absent".to_owned(),
                    Cell::UNAVAILABLE => "unavailable".to_owned(),
                    x => {
                        let v = String::from_utf8_lossy(x.bytes(b.chunk(c)).unwrap()).into_owned();
                        if v.len() > 40 { format!("{} bytes", v.len()) } else { v }
                    }
                };
                b.image(s).iter().map(text).collect::<Vec<_>>().join(",")
            };
            let (op, at) = (c.op.letter(), c.at);
            let table = &b.tables[c.table as usize].id.name;
            let (before, after) = (cells(c.before), cells(c.after));
            format!("{op} {table} [{before}] [{after}] {at} {}/{} {} {}", c.order, c.table_order, t.id, t.commit)
        })
        .collect()
}

/// Without what differs from run to run.
fn plain(lines: &[String]) -> Vec<String> {
    lines.iter().map(|l| l[..=l.rfind(']').unwrap()].to_owned()).collect()
}

fn position(b: &Batch) -> Position {
    match &b.cut {
        Cut::Txn(p) | Cut::Inside(p) | Cut::Idle(p) => p.clone(),
        Cut::Open => panic!("an open cut"),
    }
}

/// Fills until `n` changes have come.
async fn take(source: &mut Box<dyn Source>, n: usize, limit: Limit) -> (Vec<String>, Position) {
    let mut out = Vec::new();
    loop {
        let mut b = Batch::default();
        timeout(DEADLINE, source.fill(&mut b, limit)).await.expect("changes in time").expect("fill");
        out.extend(lines(&b));
        if out.len() >= n {
            return (out, position(&b));
        }
    }
}

async fn workload(lab: &Lab) {
    let n = lab.name;
    lab.run(&format!(
        "SET search_path = {n};
         CREATE TABLE plain (id int PRIMARY KEY, a text, b text);
         CREATE TABLE whole (id int PRIMARY KEY, a text); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE \"Odd \"\"N\" (\"Id\" int PRIMARY KEY, \"é\" text);
         CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE UNLOGGED TABLE light (id int PRIMARY KEY);
         CREATE VIEW seen AS SELECT * FROM plain;
         ALTER TABLE plain ALTER a SET STORAGE EXTERNAL;
         RESET search_path"
    ))
    .await;
}

async fn changes(lab: &Lab) {
    let n = lab.name;
    for t in [
        "INSERT INTO plain VALUES (1, repeat('x', 9000), NULL), (2, 'b', 'c')".to_owned(),
        "UPDATE plain SET b = 'new' WHERE id = 1".to_owned(),
        "UPDATE plain SET id = 3 WHERE id = 2; DELETE FROM plain WHERE id = 3".to_owned(),
        "INSERT INTO whole VALUES (1, NULL); UPDATE whole SET a = 'x'; DELETE FROM whole".to_owned(),
        "INSERT INTO \"Odd \"\"N\" VALUES (1, 'ü')".to_owned(),
        "INSERT INTO parts VALUES (1, 5)".to_owned(),
        "ALTER TABLE plain ADD c int DEFAULT 7; INSERT INTO plain VALUES (4, 'a', 'b', 8)".to_owned(),
        "TRUNCATE plain, whole".to_owned(),
    ] {
        lab.run(&format!("BEGIN; SET LOCAL search_path = {n}; {t}; COMMIT")).await;
    }
}

const EXPECTED: &[&str] = &[
    "c plain [] [1,9000 bytes,null]",
    "c plain [] [2,b,c]",
    "u plain [] [1,unavailable,new]",
    "u plain [2,absent,absent] [3,b,c]",
    "d plain [3,absent,absent] []",
    "c whole [] [1,null]",
    "u whole [1,null] [1,x]",
    "d whole [1,x] []",
    "c Odd \"N [] [1,ü]",
    "c parts [] [1,5]",
    "c plain [] [4,a,b,8]",
    "t plain [] []",
    "t whole [] []",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_cut_after_each_and_reopened() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "cutting").await;
        workload(&lab).await;
        let c = lab.configured("");
        let (mut source, start) = lab.open(&c, None).await;
        changes(&lab).await;
        let (want, _) = take(&mut source, EXPECTED.len(), LIMIT).await;
        assert_eq!(plain(&want), EXPECTED);
        source.close().await.expect("close");
        // Nothing was confirmed, so every suffix is still there.
        let one = Limit { changes: 1, ..LIMIT };
        let mut at = start.clone();
        let mut got = Vec::new();
        while got.len() < want.len() {
            let (mut source, _) = lab.open(&c, Some(&at)).await;
            let (some, p) = take(&mut source, 1, one).await;
            got.extend(some);
            at = p;
            drop(source);
        }
        assert_eq!(got, want, "cut after every change");
        // And by the kit that every connector must pass: the whole rest, after each change, cut finely and coarsely.
        let (lab, c) = (&lab, &c);
        let open = async |at: Resume| Ok(lab.open(c, Some(&at.position)).await.0);
        let start = Resume::from(start);
        let kit = seachange_sdk::kit::cut_after_every_change(open, &start, EXPECTED.len());
        let cuts = timeout(2 * DEADLINE, kit).await.expect("in time").expect("conforms");
        // Every change ends a cut but the first of the two tables that one TRUNCATE names: they are one message.
        assert_eq!(cuts, EXPECTED.len() - 1);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logical_messages_and_heartbeat() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "messages").await;
        let version: i32 =
            lab.db.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
        if version < 140_000 {
            eprintln!("*** no logical messages in pgoutput before 14: skipped on {version} ***");
            continue;
        }
        lab.run("CREATE TABLE messages.t (id int PRIMARY KEY)").await;
        let c = lab.configured("heartbeat = '100ms'");
        let (mut source, _) = lab.open(&c, None).await;
        lab.run("BEGIN; INSERT INTO messages.t VALUES (1); SELECT pg_logical_emit_message(true, 'in', 'x'); COMMIT")
            .await;
        lab.run("SELECT pg_logical_emit_message(false, 'beside', 'y')").await;
        lab.run(
            "BEGIN; INSERT INTO messages.t VALUES (2); SELECT pg_logical_emit_message(false, 'lost', 'z'); ROLLBACK",
        )
        .await;
        let (got, _) = take(&mut source, 4, LIMIT).await;
        let name = |l: &str| l.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(got.len(), 4, "{got:?}");
        assert!(got[0].starts_with("c t [] [1]") && got[1].contains("[in,x]"), "{got:?}");
        assert!(got[2].contains("[beside,y]") && got[3].contains("[lost,z]"), "{got:?}");
        assert_eq!((name(&got[1]), name(&got[2])), (name(&got[3]), name(&got[3])));
        // Only heartbeats from here on: the position moves and nothing is published.
        let mut moved = 0;
        while moved < 2 {
            let mut b = Batch::default();
            timeout(DEADLINE, source.fill(&mut b, LIMIT)).await.expect("a heartbeat in time").unwrap();
            assert!(b.changes.is_empty(), "{:?}", lines(&b));
            moved += usize::from(matches!(b.cut, Cut::Idle(_)));
        }
        drop(source);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_positions_move_the_slot() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "idle").await;
        lab.run("CREATE TABLE idle.t (id int PRIMARY KEY)").await;
        let c = lab.configured("");
        let (mut source, _) = lab.open(&c, None).await;
        // Log that concerns no captured table.
        lab.run("CREATE TABLE IF NOT EXISTS public.other (n int); INSERT INTO public.other SELECT generate_series(1, 10000)").await;
        let target: String = lab.db.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
        let until = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < until, "the slot did not move to {target}");
            source.hasten();
            let mut b = Batch::default();
            match timeout(Duration::from_millis(500), source.fill(&mut b, LIMIT)).await {
                Ok(r) => {
                    r.unwrap();
                    assert!(matches!(b.cut, Cut::Idle(_)), "{:?}", lines(&b));
                    source.confirm(&position(&b));
                }
                Err(_) => continue,
            }
            let q = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = 'seachange_idle'";
            if lab.db.query_one(q, &[&target]).await.unwrap().get(0) {
                break;
            }
        }
        let status = c.status().await.unwrap();
        assert_eq!((status.active, status.slot_state.as_deref()), (Some(true), Some("reserved")));
        assert!(status.retained_bytes.is_some() && status.lag_bytes.is_some());
        drop(source);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_sender_timeout_and_a_paused_sink() {
    let _one = ONE.lock().await;
    for url in servers() {
        let admin = sql(&superuser(&url)).await;
        admin.batch_execute("ALTER SYSTEM SET wal_sender_timeout = '5s'").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let lab = Lab::new(&url, "paused").await;
        lab.run("CREATE TABLE paused.t (id int PRIMARY KEY, a text)").await;
        let c = lab.configured("");
        let (mut source, _) = lab.open(&c, None).await;
        tokio::select! {
            r = source.tend() => panic!("tend ended: {r:?}"),
            () = lab.run("INSERT INTO paused.t SELECT g, repeat('x', 50) FROM generate_series(1, 1000000) g") => {}
        }
        let small = Limit { bytes: 1 << 20, changes: 10_000, ..LIMIT };
        let (first, _) = take(&mut source, 1, small).await;
        // The sink stands still for longer than the timeout, in the middle of the transaction.
        let paused = timeout(Duration::from_secs(12), source.tend()).await;
        assert!(paused.is_err(), "tend ended: {paused:?}");
        let mut count = first.len();
        while count < 1_000_000 {
            let mut b = Batch::default();
            timeout(DEADLINE, source.fill(&mut b, small)).await.expect("changes in time").unwrap();
            count += b.changes.len();
            assert!(b.changes.len() <= small.changes);
        }
        assert_eq!(count, 1_000_000);
        drop(source);
        lab.clean().await;
        admin.batch_execute("ALTER SYSTEM RESET wal_sender_timeout").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_comes_in_batches_that_end_with_transactions() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "ends").await;
        lab.run("CREATE TABLE ends.t (id int PRIMARY KEY)").await;
        let c = lab.configured("");
        let (source, start) = lab.open(&c, None).await;
        drop(source);
        let rows = |from: u32, n: u32| format!("INSERT INTO ends.t SELECT generate_series({from}, {})", from + n - 1);
        // Thirty rows a transaction, then one of 250, then thirty again.
        for t in 0..20 {
            lab.run(&rows(t * 30, 30)).await;
        }
        lab.run(&rows(1000, 250)).await;
        for t in 0..4 {
            lab.run(&rows(2000 + t * 30, 30)).await;
        }
        let (mut source, _) = lab.open(&c, Some(&start)).await;
        let small = Limit { changes: 100, ..LIMIT };
        let (mut sizes, mut inside, mut seen) = (Vec::new(), Vec::new(), 0);
        while seen < 20 * 30 + 250 + 4 * 30 {
            let mut b = Batch::default();
            timeout(DEADLINE, source.fill(&mut b, small)).await.expect("changes in time").unwrap();
            seen += b.changes.len();
            if matches!(b.cut, Cut::Inside(_)) {
                inside.push(seen);
            }
            sizes.push(b.changes.len());
        }
        // Only the large one is cut, and the batch that has the rest of it ends with it.
        assert!(!inside.is_empty() && inside.iter().all(|n| (600..850).contains(n)), "{inside:?} {sizes:?}");
        let ends = sizes.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        });
        assert!(ends.into_iter().any(|n| n == 850), "{sizes:?}");
        drop(source);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_a_gap() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "gaps").await;
        lab.run("CREATE TABLE gaps.t (id int PRIMARY KEY)").await;
        let c = lab.configured("");
        let (mut source, start) = lab.open(&c, None).await;
        // In use.
        let e = c.open(Some(&start.clone().into())).await.err().expect("the slot is in use");
        assert_eq!((e.kind(), e.retryable()), (Kind::Connect, Retry::Backoff), "{e:?}");
        assert!(e.remedy().unwrap().contains("pg_terminate_backend("), "{e:?}");
        // Moved on.
        lab.run("INSERT INTO gaps.t VALUES (1)").await;
        let (_, p) = take(&mut source, 1, LIMIT).await;
        source.confirm(&p);
        source.close().await.unwrap();
        let e = loop {
            match c.open(Some(&start.clone().into())).await.err().expect("the slot has moved") {
                e if e.retryable() == Retry::Backoff => tokio::time::sleep(Duration::from_millis(20)).await,
                e => break e,
            }
        };
        assert_eq!((e.kind(), e.retryable()), (Kind::Gap, Retry::Never), "{e:?}");
        // Still good from the confirmed place.
        let (source, _) = lab.open(&c, Some(&p)).await;
        drop(source);
        // Gone.
        lab.clean().await;
        let e = c.open(Some(&p.clone().into())).await.err().expect("the slot is gone");
        assert_eq!((e.kind(), e.retryable()), (Kind::Gap, Retry::Never), "{e:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_fill_loses_nothing() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "cancel").await;
        lab.run("CREATE TABLE cancel.t (id int PRIMARY KEY, a text)").await;
        let c = lab.configured("");
        let (mut source, _) = lab.open(&c, None).await;
        for i in 0..50 {
            lab.run(&format!(
                "INSERT INTO cancel.t SELECT {i} * 1000 + g, repeat('x', 100) FROM generate_series(1, 1000) g"
            ))
            .await;
        }
        let mut ids: Vec<i64> = Vec::new();
        let mut b = Batch::default();
        let mut step = 0u64;
        let until = Instant::now() + DEADLINE;
        while ids.len() < 50_000 {
            assert!(Instant::now() < until, "only {} changes", ids.len());
            step += 1;
            match timeout(Duration::from_micros(step % 1500), source.fill(&mut b, LIMIT)).await {
                Ok(r) => {
                    r.unwrap();
                    for ch in &b.changes {
                        let id = b.image(ch.after)[0].bytes(b.chunk(ch)).unwrap();
                        ids.push(std::str::from_utf8(id).unwrap().parse().unwrap());
                    }
                    b.clear();
                }
                Err(_) => {
                    assert!(b.changes.iter().all(|ch| (ch.chunk as usize) < b.chunks.len()), "a chunk is not frozen");
                }
            }
        }
        assert!(ids.iter().enumerate().all(|(i, id)| *id == i as i64 + 1), "order or content");
        drop(source);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_row_and_a_row_above_the_limit() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "giant").await;
        lab.run("CREATE TABLE giant.t (id int PRIMARY KEY, a text)").await;
        let c = lab.configured("");
        let (mut source, start) = lab.open(&c, None).await;
        lab.run("INSERT INTO giant.t VALUES (1, 'a'), (2, repeat('x', 50000000)), (3, 'c')").await;
        let (got, _) = take(&mut source, 3, LIMIT).await;
        assert_eq!(plain(&got), ["c t [] [1,a]", "c t [] [2,50000000 bytes]", "c t [] [3,c]"]);
        drop(source);
        let (mut source, _) = lab.open(&c, Some(&start)).await;
        let small = Limit { row_bytes: 1 << 20, ..LIMIT };
        let e = loop {
            let mut b = Batch::default();
            match timeout(DEADLINE, source.fill(&mut b, small)).await.expect("in time") {
                Ok(()) => {}
                Err(e) => break e,
            }
        };
        assert_eq!(e.kind(), Kind::Limit);
        assert!(e.to_string().contains("giant.t"), "{e}");
        drop(source);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_tells_what_is_wrong() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "preflight").await;
        workload(&lab).await;
        lab.run("CREATE TABLE preflight.nokey (a int)").await;
        let checks = lab.configured("").check().await;
        let of = |name: &str| {
            &checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}")).outcome
        };
        assert!(matches!(of("connection"), Outcome::Pass(_)), "{checks:#?}");
        assert!(matches!(of("replication privilege"), Outcome::Pass(_)), "{checks:#?}");
        assert!(matches!(of("wal_level"), Outcome::Pass(_)));
        assert!(matches!(of("table preflight.nokey"), Outcome::Warn(..) | Outcome::Fail(..)), "{checks:#?}");
        assert!(matches!(of("table preflight.light"), Outcome::Warn(..)));
        assert!(matches!(of("table preflight.seen"), Outcome::Warn(..)));
        let admin = sql(&superuser(&url)).await;
        admin
            .batch_execute("DROP ROLE IF EXISTS preflight_weak; CREATE ROLE preflight_weak LOGIN PASSWORD 'weak'")
            .await
            .unwrap();
        let weak = url.replacen("cdc:cdc@", "preflight_weak:weak@", 1);
        let text = format!("url = '{weak}'\ntables = ['preflight.*', 'preflight.nothing_*']");
        let c = Postgres.configure("preflight", "pipeline.x.source", &text.parse().unwrap()).unwrap();
        let checks = c.check().await;
        let failed: Vec<_> =
            checks.iter().filter(|c| matches!(c.outcome, Outcome::Fail(..))).map(|c| c.name.as_str()).collect();
        for want in ["replication privilege", "publication", "table preflight.plain"] {
            assert!(failed.contains(&want), "{want} is not in {failed:?}: {checks:#?}");
        }
        assert!(checks.iter().any(|c| format!("{:?}", c.outcome).contains("preflight.nothing_*")), "{checks:#?}");
        let e = c.open(None).await.err().expect("no right to replicate");
        assert_eq!((e.kind(), e.retryable()), (Kind::Auth, Retry::Operator), "{e:?}");
        admin.batch_execute("DROP ROLE preflight_weak").await.unwrap();
        let wrong = url.replacen("cdc:cdc@", "cdc:wrong@", 1);
        let c = Postgres.configure("p", "p", &format!("url = '{wrong}'\ntables = ['a.b']").parse().unwrap()).unwrap();
        assert!(matches!(&c.check().await[0].outcome, Outcome::Fail(..)));
        let e = c.open(None).await.err().expect("a wrong password");
        assert_eq!((e.kind(), e.retryable()), (Kind::Auth, Retry::Operator), "{e:?}");
        let text = Postgres.init(&url).await.unwrap();
        assert!(text.contains("${env:PGPASSWORD}") && !text.contains("cdc:cdc"), "{text}");
        let parsed: toml::Table = text.parse().unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(parsed.contains_key("pipeline"), "{text}");
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_kinds_of_connection_print_alike() {
    let _one = ONE.lock().await;
    for url in servers() {
        let text = format!("url = '{url}'\ntables = ['a.b']");
        let config = Arc::new(Config::read("p", "p", &text.parse().unwrap()).unwrap());
        let connector = Sql::new(config.clone()).unwrap();
        let client = connector.connect().await.unwrap();
        let mut link = Replication::connect(&connector).await.unwrap();
        for name in [
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "bytea_output",
            "extra_float_digits",
            "search_path",
            "client_encoding",
            "lc_monetary",
            "xmloption",
        ] {
            let rows = link.query(&format!("SHOW {name}"), "asking").await.unwrap();
            let here: String = client.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0);
            assert_eq!(rows[0][0].as_deref(), Some(here.as_str()), "{name}");
        }
        // The default is to prefer it: a server that has TLS is spoken to in TLS.
        let ssl: String = client.query_one("SHOW ssl", &[]).await.unwrap().get(0);
        assert_eq!(link.encrypted(), ssl == "on");
        assert!(!Configuration::new((*config).clone()).describe().contains("cdc:cdc"));
        assert_eq!(Op::ALL.len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_unix_socket_and_with_a_failover_slot() {
    let _one = ONE.lock().await;
    for url in servers() {
        let lab = Lab::new(&url, "ways").await;
        lab.run("CREATE TABLE ways.t (id int PRIMARY KEY)").await;
        let folder: String = sql(&superuser(&url)).await.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
        let version: i32 =
            lab.db.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
        let failover = version >= 170_000;
        // A socket's path has 107 bytes at most.
        let socket = if folder.len() < 85 { format!("?host={}", folder.replace('/', "%2F")) } else { String::new() };
        let (before, after) = url.split_once('?').map_or((&*url, String::new()), |(a, b)| (a, format!("&{b}")));
        let way = if socket.is_empty() { url.clone() } else { format!("{before}{socket}{after}") };
        let text = format!("url = '{way}'\ntables = ['ways.*']\nfailover = {failover}");
        let c = Postgres.configure("ways", "pipeline.x.source", &text.parse().unwrap()).unwrap();
        let (mut source, _) = lab.open(&c, None).await;
        lab.run("INSERT INTO ways.t VALUES (1)").await;
        let (got, _) = take(&mut source, 1, LIMIT).await;
        assert!(got[0].starts_with("c t [] [1]"), "{got:?}");
        if failover {
            let q = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'seachange_ways'";
            assert!(lab.db.query_one(q, &[]).await.unwrap().get::<_, bool>(0));
        }
        let by: Option<String> = lab
            .db
            .query_one("SELECT client_addr::text FROM pg_stat_replication WHERE application_name LIKE '%ways%' OR pid IN (SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'seachange_ways')", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(by.is_none(), !socket.is_empty(), "{by:?}");
        drop(source);
        lab.clean().await;
    }
}

/// Needs `SEACHANGE_TEST_PG_TLS`: URL of a server with TLS whose certificate names the URL's host but not `127.0.0.1`,
/// and `SEACHANGE_TEST_PG_CA`: the folder with `ca.crt`. Both logins use SCRAM, so success with TLS proves the channel
/// binding: a wrong one is refused by the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_modes() {
    let _one = ONE.lock().await;
    let (Ok(url), Ok(folder)) = (std::env::var("SEACHANGE_TEST_PG_TLS"), std::env::var("SEACHANGE_TEST_PG_CA")) else {
        return skipped("SEACHANGE_TEST_PG_TLS and SEACHANGE_TEST_PG_CA are not set");
    };
    let host = url.split_once('@').unwrap().1.split(':').next().unwrap().to_owned();
    let by_address = url.replace(&host, "127.0.0.1");
    let ca = format!("{folder}/ca.crt");
    let alone = url.replace("cdc:cdc@", "certified@");
    let wrong = tempfile_with(include_bytes!("other-ca.pem"));
    let certificate = format!("ssl_cert = '{folder}/client.crt'\nssl_key = '{folder}/client.key'\n");
    for (url, mode, root, extra, works) in [
        (&url, "disable", None, "", Ok(())),
        (&url, "prefer", None, "", Ok(())),
        (&url, "require", None, "", Ok(())),
        (&url, "require", Some(wrong.as_str()), "", Err(Kind::Connect)),
        (&url, "verify-ca", Some(wrong.as_str()), "", Err(Kind::Connect)),
        (&by_address, "verify-ca", Some(ca.as_str()), "", Ok(())),
        (&url, "verify-full", Some(ca.as_str()), "", Ok(())),
        (&by_address, "verify-full", Some(ca.as_str()), "", Err(Kind::Connect)),
        (&url, "verify-full", None, "", Err(Kind::Connect)),
        // An account without a password: the certificate lets it in, and nothing else does.
        (&alone, "verify-full", Some(ca.as_str()), certificate.as_str(), Ok(())),
        (&alone, "verify-full", Some(ca.as_str()), "", Err(Kind::Auth)),
    ] {
        let root = root.map_or_else(String::new, |r| format!("ssl_root_cert = '{r}'\n"));
        let text = format!("url = '{url}'\ntables = ['a.b']\nsslmode = '{mode}'\n{root}{extra}");
        let config = Arc::new(Config::read("p", "p", &text.parse().unwrap()).unwrap());
        let connector = Sql::new(config).unwrap();
        let stream = Replication::connect(&connector).await;
        if let Ok(link) = &stream {
            assert_eq!(link.encrypted(), mode != "disable", "{mode}");
        }
        let session = connector.connect().await.map(drop);
        for result in [stream.map(drop), session] {
            if let Err(e) = &result {
                assert_eq!(e.retryable(), Retry::Operator, "{e:?}");
            }
            let kind = match &result {
                Ok(()) => Ok(()),
                Err(e) => Err(e.kind()),
            };
            assert_eq!(kind, works, "{mode} {root} {extra} {result:?}");
        }
    }
}

/// Writes a file that outlives the test's connections.
fn tempfile_with(bytes: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("seachange-test-{}.pem", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

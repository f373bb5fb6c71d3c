//! Something that the pipeline needs has been taken away.

use crate::rig::{LONG, Rig, on_each};
use mysql_async::prelude::Queryable;
use seachange_testkit::{Daemon, Kafka, MARIADB, OwnSource, Source, Which, audit, eventually, servers, topic};

on_each! { mysql = Which::MySql; log_purged log_reset }
on_each! { mysql_without_gtids = Which::MySqlNoGtid; log_purged log_reset }
on_each! { mariadb = MARIADB; log_purged log_reset }

/// Two pipelines of one daemon, each with a database of its own.
struct Pair {
    broken: Rig,
    other: Rig,
    daemon: Daemon,
}

async fn pair(broken: &Source, other: &Source, bootstrap: &str) -> Pair {
    let (broken, other) = (Rig::new(broken, bootstrap).await, Rig::new(other, bootstrap).await);
    for rig in [&broken, &other] {
        rig.ledger(0).create().await;
    }
    let config = Rig::pipeline(broken.config.clone(), &other.pipeline, &other.db);
    let mut daemon = Daemon::start(&config);
    daemon.ready(LONG).await;
    let pair = Pair { broken, other, daemon };
    for rig in [&pair.broken, &pair.other] {
        let done = rig.ledger(0).changes(200).run().await;
        audit::settle(&rig.bootstrap, &rig.topic, done.changes, LONG).await;
    }
    pair
}

impl Pair {
    /// Starts the daemon again and sees: the broken pipeline stands with this kind of error and a way out, the other goes
    /// on, and nothing has been published that could hide the loss.
    async fn stands(&mut self, kind: &str, fix: &str) {
        let before = topic::read(&self.broken.bootstrap, &self.broken.topic).await.len();
        self.daemon.restart();
        let line = self.daemon.said(&format!("kind=\"{kind}\""), LONG).await;
        println!("{line}");
        assert!(line.contains(&self.broken.pipeline), "{line}");
        let state = eventually(LONG, "the other one streams", async || {
            let (code, body) = self.daemon.get("/readyz").await?;
            let body: serde_json::Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
            let text = body.to_string();
            match code {
                503 if text.contains("streaming") => Ok(text),
                _ => Err(format!("{code} {text}")),
            }
        })
        .await;
        assert!(state.contains(fix), "{fix:?} in {state}");
        let already = audit::order(&self.other.bootstrap, &self.other.topic, audit::Order::default()).await.seen;
        let done = self.other.ledger(0).seed(7).changes(200).run().await;
        audit::settle(&self.other.bootstrap, &self.other.topic, already + done.changes, LONG).await;
        let after = topic::read(&self.broken.bootstrap, &self.broken.topic).await.len();
        assert_eq!(before, after, "records of a pipeline that stands");
        self.daemon.living().expect("one pipeline's end is not the process's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_dropped() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::kafka(1).await) else { return };
    let mut pair = pair(&pg, &pg, &kafka.bootstrap).await;
    pair.daemon.terminate(LONG).await;
    pair.broken.slot_is_free().await;
    pair.broken.db.run(&format!("SELECT pg_drop_replication_slot('{}')", pair.broken.slot())).await;
    pair.broken.ledger(0).seed(5).changes(50).run().await;
    pair.stands("gap", "reset the pipeline's state").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_moved_on() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::kafka(1).await) else { return };
    let mut pair = pair(&pg, &pg, &kafka.bootstrap).await;
    pair.daemon.terminate(LONG).await;
    pair.broken.slot_is_free().await;
    pair.broken.ledger(0).seed(5).changes(50).run().await;
    let sql = format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", pair.broken.slot());
    pair.broken.db.run(&sql).await;
    pair.stands("gap", "reset the pipeline's state").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_removed() {
    let (Some(pg), Some(kafka)) = (servers::own_postgres(15).await, servers::kafka(1).await) else { return };
    let mut pair = pair(&pg, &pg, &kafka.bootstrap).await;
    pair.daemon.terminate(LONG).await;
    pg.restart("max_slot_wal_keep_size=1MB min_wal_size=32MB max_wal_size=32MB");
    let (client, admin) = (pair.broken.db.connect().await, pair.broken.db.admin().await);
    // Two slots, one log: what one loses the other loses too.
    eventually(LONG, "the slot has lost its log", async || {
        client
            .batch_execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
            .await
            .map_err(|e| e.to_string())?;
        admin.batch_execute("SELECT pg_switch_wal()").await.map_err(|e| e.to_string())?;
        admin.batch_execute("CHECKPOINT").await.map_err(|e| e.to_string())?;
        let sql = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
        let status: String = admin.query_one(sql, &[&pair.broken.slot()]).await.map_err(|e| e.to_string())?.get(0);
        if status == "lost" { Ok(()) } else { Err(status) }
    })
    .await;
    pair.daemon.restart();
    for rig in [&pair.broken, &pair.other] {
        let line = pair.daemon.said(&format!("slot {} has lost its log", rig.slot()), LONG).await;
        assert!(line.contains("kind=\"gap\"") && line.contains("max_slot_wal_keep_size"), "{line}");
    }
    // Both have failed for good: so has the process, and it says so.
    assert_eq!(pair.daemon.ended(LONG).await.code(), Some(1));
}

/// The server has thrown away log that the pipeline has not read.
async fn log_purged(which: Which) {
    let Some((broken, other, kafka)) = with_another(which).await else { return };
    let mut pair = pair(&broken, &other, &kafka.bootstrap).await;
    pair.daemon.terminate(LONG).await;
    let rig = &pair.broken;
    rig.ledger(0).seed(5).changes(50).run().await;
    // What the server wrote last stays: only the file before it goes.
    rig.db.run("FLUSH BINARY LOGS").await;
    let mut session = rig.db.session().await;
    // A server keeps what a replica that it takes for alive still reads.
    eventually(LONG, "the log is purged", async || {
        let files: Vec<mysql_async::Row> = session.query("SHOW BINARY LOGS").await.map_err(|e| e.to_string())?;
        if files.len() == 1 {
            return Ok(());
        }
        let last: String = files[files.len() - 1].get(0).expect("a name");
        session.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.map_err(|e| e.to_string())?;
        Err(format!("{} files", files.len()))
    })
    .await;
    rig.ledger(0).seed(6).changes(50).run().await;
    pair.stands("gap", "under a new name").await;
}

/// The server has begun its log anew, and has written to it.
async fn log_reset(which: Which) {
    let Some((broken, other, kafka)) = with_another(which).await else { return };
    let mut pair = pair(&broken, &other, &kafka.bootstrap).await;
    pair.daemon.terminate(LONG).await;
    let rig = &pair.broken;
    let mut session = rig.db.session().await;
    let reset = if which == MARIADB { "RESET MASTER" } else { "RESET BINARY LOGS AND GTIDS" };
    eventually(LONG, "the log is reset", async || session.query_drop(reset).await.map_err(|e| e.to_string())).await;
    rig.ledger(0).seed(5).changes(300).run().await;
    pair.stands("gap", "under a new name").await;
}

/// The server to be broken, another one, and Kafka.
async fn with_another(which: Which) -> Option<(OwnSource, Source, Kafka)> {
    // In this order in every test: no two can wait for each other.
    let other = servers::postgres(15).await?;
    Some((servers::own_source(which).await?, other, servers::kafka(1).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publication_dropped_while_running() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&pg, &kafka.bootstrap).await;
    rig.ledger(0).create().await;
    let mut daemon = Daemon::start(&rig.config);
    daemon.ready(LONG).await;
    let done = rig.ledger(0).changes(100).run().await;
    audit::settle(&rig.bootstrap, &rig.topic, done.changes, LONG).await;
    rig.db.run(&format!("DROP PUBLICATION {}", rig.slot())).await;
    rig.ledger(0).seed(3).changes(50).run().await;
    let line = daemon.said("publication", LONG).await;
    println!("{line}");
    let line = daemon.said("retry_in", LONG).await;
    assert!(
        line.contains("publication") && line.contains("SQLSTATE 42704") && line.contains("drop the slot"),
        "{line}"
    );
    assert_eq!(daemon.get("/readyz").await.map(|(code, _)| code), Ok(503));
    // Changes that cannot be read are not passed over: not by this start, and not by the next.
    daemon.restart();
    daemon.said("SQLSTATE 42704", LONG).await;
    let report = audit::order(&rig.bootstrap, &rig.topic, audit::Order::default()).await;
    report.expect(done.changes);
}

/// Without its state a pipeline is new: it reads the tables again. Nothing is lost, and no row goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_topic_deleted() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&pg, &kafka.bootstrap).await;
    rig.ledger(0).create().await;
    let mut daemon = Daemon::start(&rig.config);
    daemon.ready(LONG).await;
    let done = rig.ledger(0).changes(300).run().await;
    audit::settle(&rig.bootstrap, &rig.topic, done.changes, LONG).await;
    assert_eq!(daemon.terminate(LONG).await.code(), Some(0));
    delete(&rig.bootstrap, &format!("__seachange.{}", rig.pipeline)).await;
    rig.ledger(0).seed(3).changes(100).run().await;
    daemon.restart();
    daemon.ready(LONG).await;
    let client = rig.db.connect().await;
    let rows = client.query("SELECT id, version FROM public.ledger", &[]).await.expect("the rows");
    let want: std::collections::BTreeMap<i64, i64> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    eventually(LONG, "the topic's end is the table", async || {
        let mut have = std::collections::BTreeMap::<i64, i64>::new();
        let records = topic::read(&rig.bootstrap, &rig.topic).await;
        for r in records.iter().filter(|r| r.value.is_some()) {
            let value = r.value_json();
            let key = r.key_json()["id"].as_i64().expect("a key");
            match value["after"]["version"].as_i64() {
                Some(v) => {
                    let last = have.insert(key, v).unwrap_or(0);
                    assert!(last <= v, "key {key} went back from version {last} to {v}");
                }
                None => drop(have.remove(&key)),
            }
        }
        if have == want { Ok(()) } else { Err(format!("{} keys of {}", have.len(), want.len())) }
    })
    .await;
}

async fn delete(bootstrap: &str, topic: &str) {
    use rdkafka::{ClientConfig, admin::AdminClient, admin::AdminOptions, client::DefaultClientContext};
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client");
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

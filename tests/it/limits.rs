//! Large transactions, large rows, servers that hang.

use crate::run::{SOON, Stage};
use seachange_testkit::{Config, Daemon, eventually, servers, topic, unique};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);

/// Rows of the large transaction; `SEACHANGE_TEST_TXN_ROWS` makes it larger.
fn large() -> i64 {
    std::env::var("SEACHANGE_TEST_TXN_ROWS").map_or(300_000, |n| n.parse().expect("a number"))
}

/// Streams one transaction of that many rows; the most memory the daemon had meanwhile.
async fn peak(stage: &Stage, daemon: &Daemon, first: i64, rows: i64) -> u64 {
    stage
        .sql(&format!(
            "INSERT INTO t SELECT g, md5(g::text), now() FROM generate_series({first}, {}) g",
            first + rows - 1
        ))
        .await;
    let (mut most, end) = (0, Instant::now() + LONG);
    let total = (first + rows - 1) as f64;
    loop {
        most = most.max(daemon.rss());
        let published = daemon.metrics().await.sum("seachange_events_total", &[]).unwrap_or(0.0);
        if published >= total {
            return most;
        }
        assert!(Instant::now() < end, "{published} of {total} records");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_a_transaction() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id bigint PRIMARY KEY, v text, at timestamptz)").await else {
        return;
    };
    let daemon = stage.start(&stage.config(&["public.*"])).await;
    let rows = large();
    let small = peak(&stage, &daemon, 1, rows / 5).await;
    let big = peak(&stage, &daemon, rows / 5 + 1, rows).await;
    eprintln!("{} rows: {} MiB, {rows} rows: {} MiB", rows / 5, small >> 20, big >> 20);
    assert!(big < 150 << 20, "{} MiB", big >> 20);
    assert!(big < small + (40 << 20), "{} MiB, then {} MiB", small >> 20, big >> 20);
    stage.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_50_megabytes() {
    // Not to be compressed to nothing on the way.
    let row = "SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 1562500) i";
    let table = "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL";
    let Some(stage) = Stage::set(15, &format!("{table}; INSERT INTO t {row}")).await else { return };
    let refused = unique("refused");
    let config = stage.config(&["public.*"]).set(&stage.at("topics.settings.\"max.message.bytes\""), "104857600");
    let config = stage.pipeline(config, &refused, &["public.*"]);
    let config = config.set(&format!("pipeline.{refused}.topics.settings.\"max.message.bytes\""), "1000000");
    let mut daemon = Daemon::start(&config);
    stage.wait("public.t", 1).await;
    stage.sql("UPDATE t SET v = v || 'x'").await;
    let records = stage.wait("public.t", 2).await;
    let length = |n: usize| records[n].value_json()["after"]["v"].as_str().map(str::len);
    assert_eq!((length(0), length(1)), (Some(50_000_000), Some(50_000_001)));
    // The other pipeline's topic takes a megabyte, as topics do by default: it says so, and publishes nothing of it.
    let said = eventually(SOON, "the refusal", async || {
        let (_, body) = daemon.get("/readyz").await?;
        let body: serde_json::Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
        let told = body["pipelines"][&refused].to_string();
        if told.contains("max.message.bytes") { Ok(told) } else { Err(told) }
    })
    .await;
    assert!(said.contains(&format!("{refused}.public.t")), "{said}");
    assert!(!daemon.log().contains("c4ca4238a0b92382"));
    assert!(topic::read(&stage.kafka.bootstrap, &format!("{refused}.public.t")).await.is_empty());
    daemon.living().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_does_not_cost_the_connection() {
    let Some(postgres) = servers::postgres(15).await else { return };
    let Some(kafka) = servers::own_kafka(1).await else { return };
    let db = postgres.database().await;
    let name = unique("hang");
    let admin = db.admin().await;
    admin.batch_execute(&format!("ALTER DATABASE {} SET wal_sender_timeout = '5s'", db.name)).await.unwrap();
    db.run("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let mut daemon = Daemon::start(&Config::kafka(&kafka.bootstrap).postgres(&name, &db.url, &["public.*"]));
    daemon.ready(SOON).await;
    db.run("INSERT INTO t VALUES (0, '')").await;
    let table = format!("{name}.public.t");
    topic::wait(&kafka.bootstrap, &table, 1, SOON).await;
    let walsender = async || -> Option<i32> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
        admin.query_one(sql, &[]).await.expect("a slot").get(0)
    };
    let before = walsender().await;
    assert!(before.is_some());
    kafka.pause(1);
    // More than all queues take, so that reading must stop; and for longer than two timeouts.
    db.run("INSERT INTO t SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 100000) g").await;
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        assert_eq!(walsender().await, before, "the server hung up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    kafka.resume(1);
    let records = topic::wait(&kafka.bootstrap, &table, 100_001, LONG).await;
    assert_eq!(records.len(), 100_001);
}

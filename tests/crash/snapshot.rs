//! The daemon is killed while it reads a table that is being written.

use crate::rig::{LONG, Random, Rig, on_each};
use seachange_testkit::{
    Daemon, Kafka, Record, Source, Which, servers,
    topic::{self, Isolation},
};
use std::time::Duration;

/// The named places, in the order in which a commit passes them.
#[cfg(feature = "failpoints")]
pub const PLACES: &[&str] =
    &["encoded", "appended", "before-commit", "staged", "flushed", "after-commit", "after-confirm"];

const KEYS: u64 = 4000;
const CHUNK: u64 = 50;

/// A table of [`KEYS`] rows in some 80 chunks; written by four clients, each with a quarter of the keys.
async fn rig(source: &Source, kafka: &Kafka) -> Rig {
    let mut rig = Rig::new(source, &kafka.bootstrap).await;
    let snapshot = format!("pipeline.{}.source.snapshot", rig.pipeline);
    rig.config = rig.config.set(&format!("{snapshot}.chunk_rows"), CHUNK as i64);
    rig.filled(KEYS).await;
    rig
}

/// Judges, and says how many rows were read in vain: by chunks that a kill took before their commit.
async fn end(rig: &Rig, daemon: &mut Daemon, kills: u64) {
    let (read, streamed) = rig.judge_snapshot(daemon).await;
    let all = topic::read_as(&rig.bootstrap, &rig.topic, Isolation::Uncommitted).await;
    let written = all.iter().filter(|r| r.value.is_some() && r.op() == "r").count() as u64;
    println!("{}: {kills} kills, {read} rows read, {streamed} changes, {} rows in vain", rig.pipeline, written - read);
    if rig.db.which.kind() != "postgres" {
        let statements = topic::read(&rig.bootstrap, &rig.pipeline).await;
        let told = |r: &&Record| r.value_json()["tableChanges"][0]["type"] == "CREATE";
        assert_eq!(statements.iter().filter(told).count(), 1, "the table's statement, once, after {kills} kills");
    }
    assert!(read > 4 * CHUNK, "{read} rows are no snapshot: the stream told nearly all");
    // Chunks that were done are not read again: what a kill costs is what was under way, two workers' chunks and what
    // was queued for one commit.
    assert!(written - read <= kills * 10 * CHUNK, "{} rows were read again after {kills} kills", written - read);
}

fn unfinished(daemon: &Daemon) -> bool {
    !daemon.log().contains("snapshot of the table is complete")
}

on_each! {
    killed_at_random_moments
    #[cfg(feature = "failpoints")] killed_at_every_named_place
}
on_each! { mysql_without_gtids = Which::MySqlNoGtid; killed_at_random_moments }

async fn killed_at_random_moments(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = rig(&source, &kafka).await;
    let load = rig.ledger(100).keys(KEYS / 4).start().await;
    let mut daemon = Daemon::start(&rig.config);
    let mut random = Random::new();
    let mut kills = 0;
    while kills < 8 && unfinished(&daemon) {
        daemon.said("snapshot", LONG).await;
        tokio::time::sleep(Duration::from_millis(random.below(250))).await;
        daemon.kill9();
        kills += u64::from(unfinished(&daemon));
        daemon.restart();
    }
    assert!(kills > 0, "no kill came before the snapshot's end");
    daemon.ready(LONG).await;
    load.stop().await;
    end(&rig, &mut daemon, kills).await;
}

#[cfg(feature = "failpoints")]
async fn killed_at_every_named_place(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = rig(&source, &kafka).await;
    let load = rig.ledger(100).keys(KEYS / 4).start().await;
    let mut daemon: Option<Daemon> = None;
    let mut kills = 0;
    for (n, place) in PLACES.iter().enumerate() {
        let crash = format!("{place}:{}", 3 + n % 4);
        let config = rig.config.clone().env("SEACHANGE_CRASH", &crash);
        let d = daemon.get_or_insert_with(|| Daemon::start(&config));
        if n > 0 {
            d.set_env("SEACHANGE_CRASH", Some(&crash));
            d.restart();
        }
        let status = d.ended(LONG).await;
        assert!(status.code().is_none(), "{place}: {status}");
        assert!(d.log_of_run().contains(&format!("crash point {place} reached")), "{place}");
        kills += u64::from(unfinished(d));
    }
    let mut daemon = daemon.expect("there are places");
    assert!(kills >= 4, "only {kills} kills came before the snapshot's end");
    daemon.set_env("SEACHANGE_CRASH", None);
    daemon.restart();
    daemon.ready(LONG).await;
    load.stop().await;
    end(&rig, &mut daemon, kills).await;
}

//! The daemon is killed, replaced, and asked to end, while it streams.

use crate::rig::{LONG, Random, Rig, on_each};
use seachange_testkit::{Daemon, Which, servers};
use std::time::Duration;

on_each! {
    killed_at_random_moments
    #[cfg(feature = "failpoints")] killed_at_every_named_place
    two_of_them_are_one
    asked_to_end_under_load
}
on_each! { mysql_without_gtids = Which::MySqlNoGtid; killed_at_random_moments }

async fn killed_at_random_moments(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(600).start().await;
    load.reach(500, LONG).await;
    rig.collect(&mut daemon, |r| r.seen > 0).await;
    let mut random = Random::new();
    let mut times = Vec::new();
    for _ in 0..9 {
        // The moment of the kill is what is random here: nothing is waited for.
        tokio::time::sleep(Duration::from_millis(random.below(1200))).await;
        daemon.kill9();
        times.push(rig.first_record_after(|| daemon.restart()).await.as_millis());
    }
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
    println!("9 kills; first record after the restart, in ms: {times:?}");
}

#[cfg(feature = "failpoints")]
async fn killed_at_every_named_place(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(400).start().await;
    for (n, place) in crate::snapshot::PLACES.iter().cycle().take(2 * crate::snapshot::PLACES.len()).enumerate() {
        daemon.set_env("SEACHANGE_CRASH", Some(&format!("{place}:{}", 3 + n)));
        daemon.restart();
        let status = daemon.ended(LONG).await;
        assert!(status.code().is_none(), "{place}: {status}");
        assert!(daemon.log_of_run().contains(&format!("crash point {place} reached")), "{place}");
    }
    daemon.set_env("SEACHANGE_CRASH", None);
    daemon.restart();
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
}

async fn two_of_them_are_one(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let mut older = rig.daemon().await;
    let load = rig.ledger(300).start().await;
    rig.collect(&mut older, |r| r.seen > 100).await;
    let mut newer = Daemon::start(&rig.config);
    // The older one sees that it has been replaced, says so, and does not come back: its only pipeline has ended.
    let status = older.ended(LONG).await;
    assert!(!status.success(), "{status}");
    let log = older.log_of_run();
    assert!(log.contains("another daemon has taken over"), "{log}");
    newer.ready(LONG).await;
    let took = rig.first_record_after(|| {}).await;
    let done = load.stop().await;
    rig.judge(&mut newer, done).await;
    println!("the newer one went on; next record after {took:?}");
}

async fn asked_to_end_under_load(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(600).start().await;
    let mut times = Vec::new();
    for n in 1..4 {
        daemon.ready(LONG).await;
        load.reach(n * 600, LONG).await;
        let began = std::time::Instant::now();
        let status = daemon.terminate(Duration::from_secs(20)).await;
        times.push(began.elapsed().as_millis());
        assert_eq!(status.code(), Some(0), "{status}");
        // An orderly end lets go of the slot.
        if which.kind() == "postgres" {
            rig.slot_is_free().await;
        }
        daemon.restart();
    }
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
    println!("3 ends in order, in ms: {times:?}");
}

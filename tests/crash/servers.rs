//! The servers are killed, frozen and stopped while the daemon streams.

use crate::rig::{LONG, Rig};
use seachange_testkit::servers;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_killed() {
    let (Some(pg), Some(kafka)) = (servers::own_postgres(15).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&pg, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(400).start().await;
    for n in 1..3 {
        load.reach(n * 600, LONG).await;
        pg.kill9();
        let took = rig.first_record_after(|| pg.start("")).await;
        println!("database killed; first record {took:?} after the order to start it");
    }
    load.reach(2000, LONG).await;
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_killed_in_turn() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::own_kafka(3).await) else { return };
    let rig = Rig::new(&pg, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(300).start().await;
    for n in 1..=3 {
        load.reach(u64::from(n) * 400, LONG).await;
        kafka.kill(n);
        let seen = load.committed();
        load.reach(seen + 400, LONG).await;
        kafka.start(n);
    }
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
}

/// The only broker is silent for half a minute, then away for some seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_frozen_and_stopped() {
    let (Some(pg), Some(kafka)) = (servers::postgres(15).await, servers::own_kafka(1).await) else { return };
    let rig = Rig::new(&pg, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(200).start().await;
    load.reach(400, LONG).await;
    rig.collect(&mut daemon, |r| r.seen > 0).await;
    kafka.pause(1);
    // The span is the fault.
    tokio::time::sleep(Duration::from_secs(35)).await;
    kafka.resume(1);
    let took = rig.first_record_after(|| {}).await;
    println!("broker silent for 35 s; next record {took:?} after it woke");
    kafka.kill(1);
    let seen = load.committed();
    load.reach(seen + 1000, LONG).await;
    let began = std::time::Instant::now();
    kafka.start(1);
    let took = rig.first_record_after(|| {}).await;
    println!("broker killed and started; next record {took:?} after it served, {:?} after the order", began.elapsed());
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
}

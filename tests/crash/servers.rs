//! The servers are killed, frozen and stopped while the daemon streams.

use crate::rig::{LONG, Rig, on_each};
use seachange_testkit::{Which, servers};
use std::time::Duration;

on_each! { database_killed brokers_killed_in_turn }
on_each! { mysql_without_gtids = Which::MySqlNoGtid; database_killed }
on_each! { frozen_for_postgres = Which::Postgres(15); broker_frozen_and_stopped }
on_each! { frozen_for_mysql = Which::MySql; broker_frozen_and_stopped }

async fn database_killed(which: Which) {
    let (Some(source), Some(kafka)) = (servers::own_source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(400).start().await;
    for n in 1..3 {
        load.reach(n * 600, LONG).await;
        source.kill9();
        let took = rig.first_record_after(|| source.start("")).await;
        println!("database killed; first record {took:?} after the order to start it");
    }
    load.reach(2000, LONG).await;
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
}

async fn brokers_killed_in_turn(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::own_kafka(3).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
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
async fn broker_frozen_and_stopped(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::own_kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
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

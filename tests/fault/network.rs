//! Connections that break, go silent, or are not there yet.

use crate::rig::{LONG, Rig, on_each};
use seachange_testkit::{Config, Daemon, Proxy, Way, Which, servers};
use std::time::Duration;

on_each! { connection_to_the_database_cut connection_to_the_database_silent servers_come_late }
on_each! { kafka_for_postgres = Which::Postgres(15); connection_to_kafka_cut }
on_each! { mysql_without_gtids = Which::MySqlNoGtid; connection_to_the_database_cut }

/// Breaks something `times` times, about once a second, while the load runs.
async fn again_and_again(times: u32, mut fault: impl FnMut(u32)) {
    for n in 0..times {
        // The span is the fault's own: with every start between 0.7 and 1.3 s old.
        tokio::time::sleep(Duration::from_millis(700 + u64::from(n * 277 % 600))).await;
        fault(n);
    }
}

async fn connection_to_the_database_cut(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", source.port)).await;
    let rig = rig.source_through(&proxy);
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(400).start().await;
    again_and_again(10, |n| if n % 3 == 2 { proxy.truncate(Way::Down, 3000 + n * 7) } else { proxy.cut() }).await;
    let took = rig.first_record_after(|| {}).await;
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
    println!("10 cuts, {} connections; next record after {took:?}", proxy.accepted());
}

/// Half-dead: the connection stands, nothing comes. The daemon must give it up by itself, and once the network is back
/// take up where it was.
async fn connection_to_the_database_silent(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", source.port)).await;
    let rig = rig.source_through(&proxy).with("source.read_timeout", "4s").with("source.connect_timeout", "2s");
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(200).start().await;
    rig.collect(&mut daemon, |r| r.seen > 0).await;
    // Short: it is over before anybody gives up.
    proxy.stall(Way::Down, true);
    let seen = load.committed();
    load.reach(seen + 200, LONG).await;
    let short = rig.first_record_after(|| proxy.stall(Way::Down, false)).await;
    // Long: until the daemon says that the connection is dead.
    proxy.stall(Way::Down, true);
    proxy.stall(Way::Up, true);
    let line = daemon.said("retry_in", LONG).await;
    assert!(line.contains("connect"), "{line}");
    let long = rig.first_record_after(|| {
        proxy.stall(Way::Down, false);
        proxy.stall(Way::Up, false);
    });
    let long = long.await;
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
    println!("next record {short:?} after a short silence, {long:?} after a long one");
}

async fn connection_to_kafka_cut(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::own_kafka(1).await) else { return };
    let mut rig = Rig::new(&source, &kafka.bootstrap).await;
    let (proxies, through) = kafka.proxied().await;
    rig.config = rig.config.set("kafka.bootstrap", through);
    let mut daemon = rig.daemon().await;
    let load = rig.ledger(400).start().await;
    again_and_again(10, |n| if n % 3 == 2 { proxies[0].truncate(Way::Up, 3000 + n * 7) } else { proxies[0].cut() })
        .await;
    // Half-dead for a while.
    proxies[0].stall(Way::Down, true);
    let seen = load.committed();
    load.reach(seen + 800, LONG).await;
    let took = rig.first_record_after(|| proxies[0].stall(Way::Down, false)).await;
    let done = load.stop().await;
    rig.judge(&mut daemon, done).await;
    println!("10 cuts, {} connections; next record {took:?} after a silence", proxies[0].accepted());
}

/// Neither server answers when the daemon starts; first the one comes, then the other.
async fn servers_come_late(which: Which) {
    let (Some(source), Some(kafka)) = (servers::source(which).await, servers::own_kafka(1).await) else { return };
    let rig = Rig::new(&source, &kafka.bootstrap).await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", source.port)).await;
    let (proxies, through) = kafka.proxied().await;
    let mut rig = rig.source_through(&proxy);
    rig.config = Config::set(rig.config, "kafka.bootstrap", through);
    rig.ledger(0).create().await;
    proxy.refuse(true);
    proxies[0].refuse(true);
    let mut daemon = Daemon::start(&rig.config);
    daemon.said("librdkafka", LONG).await;
    assert_eq!(daemon.get("/readyz").await.map(|(code, _)| code), Ok(503));
    assert_eq!(daemon.get("/healthz").await.map(|(code, _)| code), Ok(200));
    proxies[0].refuse(false);
    let line = daemon.said("side=\"source\"", LONG).await;
    assert!(line.contains("retry_in"), "{line}");
    assert_eq!(daemon.get("/readyz").await.map(|(code, _)| code), Ok(503));
    proxy.refuse(false);
    daemon.ready(LONG).await;
    let done = rig.ledger(0).changes(500).run().await;
    rig.judge(&mut daemon, done).await;
}

//! What a daemon costs that has nothing to do, and how soon it is back after `kill -9`.

use crate::{
    case::Case,
    latency::{self, Writer},
    measure::{Meter, median, resident_mib, round, server},
    rig::{Rig, SOON},
};
use rdkafka::Offset;
use seachange_testkit::Daemon;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Share of a core, and memory, of a daemon that is up and streams nothing.
pub async fn measure(case: &Case, seconds: u64) -> Value {
    let rig = Rig::new(case).await;
    let pipelines = rig.pipelines(case, 0);
    let began = Instant::now();
    let mut daemon = Daemon::start(&rig.config(case, &pipelines, "never"));
    daemon.ready(SOON).await;
    let ready = began.elapsed().as_secs_f64();
    // What start-up has left to do is not idleness.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let meter = Meter::new(daemon.pid(), server(case.kind.name()));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = meter.usage();
    let resident = resident_mib(daemon.pid());
    daemon.terminate(SOON).await;
    rig.end().await;
    json!({
        "bench": "idle", "db": case.kind.name(), "tables": case.tables, "pipelines": case.pipelines, "ready_s": round(ready),
        "daemon_core_percent": round(100.0 * used.daemon / used.at),
        "database_core_percent": round(100.0 * used.database / used.at),
        "broker_core_percent": round(100.0 * used.broker / used.at),
        "rss_mib": round(resident), "others": round(used.others()),
    })
}

/// Seconds from a restart right after `kill -9`, under load, to the next record that a `read_committed` consumer sees.
pub async fn recovery(case: &Case, times: u64) -> Value {
    let rig = Rig::new(case).await;
    let mut writer = Writer::new(&rig.load).await;
    let pipelines = rig.pipelines(case, 0);
    let mut daemon = Daemon::start(&rig.config(case, &pipelines, "never"));
    daemon.ready(SOON).await;
    writer.write(1).await;
    let topic = latency::topic(&rig, &pipelines[0]);
    latency::warm(&topic, &mut daemon).await;
    let done = Arc::new(AtomicBool::new(false));
    let writing = {
        let done = done.clone();
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                writer.write(1).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let mut took = Vec::new();
    for _ in 0..times {
        let before = topic.end();
        seachange_testkit::eventually(SOON, "records before the kill", async || {
            if topic.end() > before + 200 { Ok(()) } else { Err("not yet") }
        })
        .await;
        daemon.kill9();
        // What was committed before the kill is not what comes after it.
        let end = i64::try_from(topic.end()).expect("an offset");
        topic.read_from(Offset::Offset(end));
        let began = Instant::now();
        daemon.restart();
        while topic.next(Duration::from_millis(5)).is_none() {
            daemon.living().unwrap_or_else(|e| panic!("{e}\n{}", daemon.log_of_run()));
            assert!(began.elapsed() < SOON, "no record after the restart\n{}", daemon.log_of_run());
        }
        took.push(began.elapsed().as_secs_f64());
    }
    done.store(true, Ordering::Relaxed);
    writing.await.expect("the writer");
    daemon.terminate(SOON).await;
    topic.delete().await;
    rig.end().await;
    let most = took.iter().copied().fold(0.0, f64::max);
    json!({
        "bench": "recovery", "db": case.kind.name(), "kills": times, "median_s": round(median(took)), "max_s": round(most),
    })
}

//! A backlog and how fast it is drained: from the start of the process to the last record that a `read_committed` consumer
//! can see.
//!
//! Pipelines are started once before the backlog is written, which fixes where they begin, and ended; so every run, and
//! every peer, drains the same backlog. Progress is the end of the topic; of many topics, the daemon's own count of what it
//! has handed over, since asking the broker for thousands of ends would be a load in itself. So would be asking the daemon
//! often, which then counts thousands of tables: of many it is asked twice a second.

use crate::{
    case::Case,
    limits,
    measure::{Meter, Topics, Usage, median, peak_mib, round, server},
    peer::Debezium,
    rig::{Rig, SOON, written},
};
use seachange_testkit::Daemon;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Topics whose ends are asked for one by one.
const FEW: usize = 10;
const PATIENCE: f64 = 900.0;
/// So long nothing may have come for the backlog to count as drained: a record too many would be seen.
const STILL: f64 = 1.0;

/// When how much was there, and what had been used by then.
pub struct Course {
    points: Vec<(f64, u64)>,
    used: Usage,
}

impl Course {
    /// Watches `progress` until it has stood still at `want` or beyond.
    pub async fn watch(
        meter: &Meter,
        want: u64,
        every: Duration,
        mut progress: impl AsyncFnMut() -> Result<u64, String>,
    ) -> Result<Course, String> {
        let mut course = Course { points: vec![], used: Usage::default() };
        loop {
            let seen = progress().await?;
            let now = meter.elapsed();
            let last = course.points.last().copied().unwrap_or((0.0, 0));
            if seen > last.1 {
                course.points.push((now, seen));
                if seen >= want || now - course.used.at > 0.25 {
                    course.used = meter.usage();
                }
            } else if last.1 >= want && now - last.0 > STILL {
                return Ok(course);
            }
            if now > PATIENCE {
                return Err(format!("{} of {want} records after {PATIENCE} s", last.1));
            }
            tokio::time::sleep(every).await;
        }
    }

    fn first(&self) -> f64 {
        self.points.first().map_or(f64::NAN, |p| p.0)
    }
    fn last(&self) -> (f64, u64) {
        self.points.last().copied().unwrap_or((f64::NAN, 0))
    }
    /// Records a second between a tenth and nine tenths of all; where it all came at once, none.
    fn steady(&self) -> f64 {
        let all = self.last().1 as f64;
        let at = |share: f64| self.points.iter().find(|(_, n)| *n as f64 >= share * all).copied().unwrap_or((0.0, 0));
        let (low, high) = (at(0.1), at(0.9));
        if high.0 > low.0 { (high.1 - low.1) as f64 / (high.0 - low.0) } else { f64::NAN }
    }

    /// `rows` are all that were drained, `records` what one row became.
    pub fn figures(&self, rows: u64, records: u64, peak: f64) -> Map<String, Value> {
        let us = |s: f64| round(1e6 * s / rows as f64);
        let seconds = self.last().0;
        let figures = json!({
            "first_record_s": round(self.first()), "seconds": round(seconds), "rows_s": round(rows as f64 / seconds),
            "steady_rows_s": round(self.steady() / records as f64), "daemon_us_row": us(self.used.daemon),
            "database_us_row": us(self.used.database), "broker_us_row": us(self.used.broker), "peak_rss_mib": round(peak),
            "others": round(self.used.others()),
        });
        let Value::Object(figures) = figures else { return Map::new() };
        figures
    }
}

/// Each figure's median over the runs.
fn medians(runs: &[Map<String, Value>]) -> Map<String, Value> {
    let mut out = Map::new();
    for name in runs.first().into_iter().flat_map(Map::keys) {
        let values = runs.iter().filter_map(|r| r.get(name)?.as_f64()).collect();
        out.insert(name.clone(), json!(median(values)));
    }
    out
}

/// Starts the daemon on these pipelines and watches it to the end of the backlog.
pub async fn run(rig: &Rig, case: &Case, pipelines: &[String], snapshot: &str, topics: &Topics) -> Map<String, Value> {
    let config = rig.config(case, pipelines, snapshot);
    let mut daemon = Daemon::start(&config);
    let (pid, few) = (daemon.pid(), topics.names.len() <= FEW);
    let meter = Meter::new(pid, server(case.kind.name()));
    let want = case.pipelines * if few { case.records() } else { case.rows };
    let many = topics.names.len() > 100;
    let every = Duration::from_millis(if few {
        20
    } else if many {
        500
    } else {
        100
    });
    let course = Course::watch(&meter, want, every, async || {
        daemon.living()?;
        if few {
            return Ok(topics.end());
        }
        Ok(written(&daemon).await)
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", daemon.log_of_run()));
    let peak = peak_mib(pid);
    daemon.terminate(SOON).await;
    course.figures(case.rows * case.pipelines, if few { case.op.records() } else { 1 }, peak)
}

/// Bytes of key and value of a record, by the samples.
pub fn record_bytes(sample: &[(Vec<u8>, Vec<u8>)]) -> f64 {
    sample.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() as f64 / sample.len().max(1) as f64
}

/// The whole case.
pub async fn measure(case: &Case) -> Vec<Value> {
    let mut rig = Rig::new(case).await;
    let peer = if case.peers { Some(Debezium::begin(&rig, case).await) } else { None };
    let all: Vec<Vec<String>> = (0..case.runs).map(|n| rig.pipelines(case, n)).collect();
    let made = rig.begin(case, &all.concat()).await;
    if case.limits {
        rig.load.mark().await;
    }
    rig.load.write(case).await;
    let (mut runs, mut sample) = (Vec::new(), Vec::new());
    for pipelines in &all {
        let topics = rig.topics(case, pipelines);
        runs.push(run(&rig, case, pipelines, "never", &topics).await);
        sample = topics.sample(2000);
        topics.delete().await;
    }
    let mut out = medians(&runs);
    if let Some(seconds) = made {
        out.insert("topics_made_s".into(), json!(round(seconds)));
    }
    let bytes = record_bytes(&sample) * case.op.records() as f64;
    out.insert("bytes_row".into(), json!(round(bytes)));
    out.insert("mb_s".into(), json!(round(bytes * out["rows_s"].as_f64().unwrap_or(0.0) / 1e6)));
    if case.runs > 1 {
        let rates: Vec<&Value> = runs.iter().map(|r| &r["rows_s"]).collect();
        out.insert("rows_s_of_runs".into(), json!(rates));
    }
    if case.limits {
        out.insert("source_limit".into(), limits::source(&rig.load, case).await);
        out.insert("kafka_limit".into(), limits::kafka(&rig.kafka, sample, case.records()).await);
    }
    let mut results = vec![told(case, "Seachange", out)];
    if let Some(peer) = peer {
        let figures = peer.drain(case).await;
        results[0]["debezium"] = Value::Object(figures.clone());
        results.push(told(case, "Debezium", figures));
    }
    rig.end().await;
    results
}

/// Figures, and whose they are and of what.
fn told(case: &Case, by: &str, figures: Map<String, Value>) -> Value {
    let mut all = case.json();
    all["bench"] = json!("drain");
    all["by"] = json!(by);
    figures.into_iter().for_each(|(name, value)| all[name] = value);
    all
}

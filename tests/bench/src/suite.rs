//! The sets of runs: `core`, a few minutes; `all`; `peers`, drains with Debezium beside.

use crate::{
    case::{Case, Kind, Op, Table},
    drain, idle, latency, limits,
    options::{Options, refuse},
    report::{self, Report},
    snapshot,
};
use seachange_testkit::servers;
use serde_json::Value;
use std::time::Instant;

/// One run.
#[derive(Clone, Debug)]
pub enum Job {
    Drain(Case),
    Snapshot { kind: Kind, rows: u64 },
    Latency { kind: Kind, rate: u64, seconds: u64, limits: bool },
    Idle { case: Case, seconds: u64 },
    Recovery { case: Case, times: u64 },
}

impl Job {
    pub fn bench(&self) -> &'static str {
        match self {
            Job::Drain(_) => "drain",
            Job::Snapshot { .. } => "snapshot",
            Job::Latency { .. } => "latency",
            Job::Idle { .. } => "idle",
            Job::Recovery { .. } => "recovery",
        }
    }

    pub fn name(&self) -> String {
        match self {
            Job::Drain(case) => format!("drain {} {}", case.kind.name(), case.shape()),
            Job::Snapshot { kind, rows } => format!("snapshot {} {rows} rows", kind.name()),
            Job::Latency { kind, rate, .. } => format!("latency {} {rate} a second", kind.name()),
            Job::Idle { case, .. } => {
                format!("idle {} {} tables, {} pipelines", case.kind.name(), case.tables, case.pipelines)
            }
            Job::Recovery { case, .. } => format!("recovery {}", case.kind.name()),
        }
    }

    /// What it has measured, or why not. A run that panics is a failure of that run alone.
    pub async fn run(self) -> Vec<Value> {
        let (bench, name) = (self.bench(), self.name());
        // On a thread of its own: much of it blocks.
        let task = tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(self.measure()));
        match task.await {
            Ok(results) => results,
            Err(e) => {
                let why = e.into_panic();
                let why = why.downcast_ref::<String>().cloned().or(why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                vec![report::failure(bench, &name, &why.unwrap_or_default())]
            }
        }
    }

    async fn measure(self) -> Vec<Value> {
        match self {
            Job::Drain(case) => drain::measure(&case).await,
            Job::Snapshot { kind, rows } => vec![snapshot::measure(kind, rows).await],
            Job::Latency { kind, rate, seconds, limits } => vec![latency::measure(kind, rate, seconds, limits).await],
            Job::Idle { case, seconds } => vec![idle::measure(&case, seconds).await],
            Job::Recovery { case, times } => vec![idle::recovery(&case, times).await],
        }
    }
}

fn scaled(rows: u64, by: f64) -> u64 {
    ((rows as f64 * by) as u64).max(1000)
}

/// Cases that differ from the plain one in one thing: what matters most first, so many in the core set.
fn shapes(kind: Kind, scale: f64) -> (Vec<Case>, Vec<Case>) {
    let n = |rows| scaled(rows, scale);
    let plain = Case { rows: n(500_000), ..Case::new(kind) };
    let core = vec![
        Case { tx: 1, rows: n(100_000), ..plain.clone() },
        Case { tx: 100_000, ..plain.clone() },
        Case { table: Table::Wide(100), rows: n(50_000), ..plain.clone() },
        Case { table: Table::Fat(10_000), rows: n(30_000), ..plain.clone() },
        Case { op: Op::Update, rows: n(200_000), ..plain.clone() },
    ];
    let more = vec![
        Case { tx: n(5_000_000), rows: n(5_000_000), ..plain.clone() },
        Case { table: Table::Wide(3), ..plain.clone() },
        Case { table: Table::Wide(10), ..plain.clone() },
        Case { table: Table::Fat(100), ..plain.clone() },
        Case { table: Table::Fat(1000), rows: n(200_000), ..plain.clone() },
        Case { table: Table::Fat(100_000), tx: 10, rows: n(5_000), ..plain.clone() },
        Case { table: Table::Fat(1_000_000), tx: 1, rows: n(1_000), ..plain.clone() },
        Case { op: Op::Delete, rows: n(200_000), ..plain.clone() },
        Case { schemas: true, rows: n(200_000), ..plain.clone() },
        Case { values: "plain".into(), ..plain.clone() },
        Case { tables: 100, ..plain.clone() },
        Case { tables: 5000, ..plain.clone() },
        Case { pipelines: 10, rows: n(100_000), ..plain.clone() },
        Case { pipelines: 50, rows: n(20_000), ..plain },
    ];
    (core, more)
}

/// The runs of a set, one database after the other.
fn set(name: &str, kind: Kind, scale: f64) -> Vec<Job> {
    let all = name == "all";
    let n = |rows| scaled(rows, scale);
    let plain = Case::new(kind);
    if name == "peers" {
        let case = Case { rows: n(1_000_000), limits: true, peers: true, ..plain };
        return vec![Job::Drain(case.clone()), Job::Drain(Case { tx: 1, rows: n(200_000), ..case })];
    }
    let mut jobs =
        vec![Job::Drain(Case { rows: n(1_000_000), runs: if all { 3 } else { 1 }, limits: true, ..plain.clone() })];
    let (core, more) = shapes(kind, scale);
    if all || kind != Kind::Mariadb {
        jobs.extend(core.into_iter().map(Job::Drain));
    }
    if all {
        jobs.extend(more.into_iter().map(Job::Drain));
        jobs.extend([100, 10_000].map(|rate| Job::Latency { kind, rate, seconds: 15, limits: true }));
        jobs.push(Job::Idle { case: Case { tables: 5000, ..plain.clone() }, seconds: 20 });
        jobs.push(Job::Idle { case: Case { pipelines: 50, ..plain.clone() }, seconds: 20 });
    }
    jobs.push(Job::Snapshot { kind, rows: n(if all { 10_000_000 } else { 1_000_000 }) });
    jobs.push(Job::Latency { kind, rate: 1000, seconds: if all { 30 } else { 8 }, limits: all });
    jobs.push(Job::Idle { case: plain.clone(), seconds: if all { 20 } else { 10 } });
    jobs.push(Job::Recovery { case: plain, times: if all { 7 } else { 3 } });
    jobs
}

/// Runs a set: all databases or `--db a,b`, all runs or those whose name has `--only`, with `--scale` times the rows.
/// Returns whether every run came to its end.
pub async fn run(name: &str, mut options: Options) -> bool {
    if !matches!(name, "core" | "all" | "peers") {
        refuse(&format!("the set {name} is not known: core, all or peers"));
    }
    let scale = options.factor("scale", 1.0);
    let dir = options.given("out").unwrap_or_else(|| refuse("--out FOLDER is needed"));
    let kinds = options.text("db", "postgres,mysql,mariadb");
    let only = options.text("only", "");
    options.end();
    let kinds: Vec<Kind> = kinds
        .split(',')
        .map(|k| Kind::named(k).unwrap_or_else(|| refuse(&format!("--db {k}: postgres, mysql or mariadb"))))
        .collect();
    let jobs: Vec<Job> =
        kinds.into_iter().flat_map(|k| set(name, k, scale)).filter(|j| j.name().contains(&only)).collect();
    let (mut report, began, count) = (Report::new(dir.into(), name, scale), Instant::now(), jobs.len());
    if count > 0 {
        warm(scale).await;
    }
    for (i, job) in jobs.into_iter().enumerate() {
        let (what, at) = (job.name(), Instant::now());
        eprintln!("bench: {} of {count}: {what}", i + 1);
        let results = job.run().await;
        let seconds = at.elapsed().as_secs_f64();
        for result in results {
            eprintln!("bench: {what}: {seconds:.0} s: {result}");
            report.add(result);
        }
    }
    println!("{}", report.markdown());
    eprintln!("bench: {count} runs, {} failed, {:.0} s", report.failures(), began.elapsed().as_secs_f64());
    report.failures() == 0
}

/// A broker that was just started needs several times the CPU a record, until its JVM has compiled what it does: whoever is
/// measured first would pay for that.
async fn warm(scale: f64) {
    eprintln!("bench: warming the broker up");
    let sample = (0..1000u32).map(|n| {
        let value =
            format!("{{\"id\":{n},\"note\":\"{:x}\"}}", u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(12);
        (n.to_string().into_bytes(), value.into_bytes())
    });
    let kafka = servers::kafka(1).await.expect("SEACHANGE_TEST_KAFKA: run this through scripts/bench");
    limits::kafka(&kafka.bootstrap, sample.collect(), (3_000_000.0 * scale) as u64 + 1).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unlike() {
        for kind in Kind::ALL {
            let names: Vec<String> = set("all", kind, 1.0).iter().map(Job::name).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
            assert!(set("core", kind, 1.0).iter().all(|j| names.contains(&j.name()) || j.bench() == "snapshot"));
        }
    }
}

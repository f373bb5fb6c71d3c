//! Every metric: its name, labels and meaning, and the handles through which it is updated.
//!
//! Nobody else makes metrics (`clippy.toml` forbids the macros elsewhere), so the table below is complete, and
//! `docs/metrics.md` is written from it. Handles are made once a pipeline and once a table: an update is an atomic
//! operation, done once a batch, never once a row. Labels are bounded: above [`TABLES_MAX`] tables a pipeline's further
//! tables share `table="_other"`.
//!
//! Seconds that add up are fractional and only grow, but the recorder's counters hold whole numbers. They are kept in
//! gauges to which only positive amounts are added, and rendered with the type `counter`, which is what they are.
#![allow(clippy::disallowed_macros)]

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use seachange_sdk::{Error, Kind as ErrorKind, Op, Side, SourceStatus, TableId};
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Grows, in whole numbers.
    Counter,
    /// Grows, in fractions of a second.
    Seconds,
    /// Goes up and down. `NaN` while it is not known.
    Gauge,
    /// Distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

const SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 4e6, 16e6, 64e6, 256e6, 1e9];
const RECORDS: &[f64] = &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

const UP: &str = "seachange_up";
const BUILD_INFO: &str = "seachange_build_info";
const EVENTS: &str = "seachange_events_total";
const EVENT_BYTES: &str = "seachange_event_bytes_total";
const TRANSACTIONS: &str = "seachange_source_transactions_total";
const LAG_BYTES: &str = "seachange_source_lag_bytes";
const LAG_SECONDS: &str = "seachange_source_lag_seconds";
const RETAINED_BYTES: &str = "seachange_source_retained_bytes";
const SAFE_BYTES: &str = "seachange_slot_safe_bytes";
const SLOT_STATE: &str = "seachange_slot_state";
const SLOT_ACTIVE: &str = "seachange_slot_active";
const SNAPSHOT_ROWS: &str = "seachange_snapshot_rows_total";
const SNAPSHOT_ESTIMATE: &str = "seachange_snapshot_rows_estimate";
const SNAPSHOT_CHUNKS: &str = "seachange_snapshot_chunks_total";
const SNAPSHOT_TABLES: &str = "seachange_snapshot_tables_remaining";
const COMMIT_SECONDS: &str = "seachange_commit_seconds";
const COMMIT_BYTES: &str = "seachange_commit_bytes";
const COMMIT_RECORDS: &str = "seachange_commit_records";
const LAST_COMMIT: &str = "seachange_last_commit_timestamp_seconds";
const RESTARTS: &str = "seachange_restarts_total";
const ERRORS: &str = "seachange_errors_total";
const QUEUE: &str = "seachange_queue_batches";
const BUSY: &str = "seachange_busy_seconds_total";
const STATE: &str = "seachange_pipeline_state";

/// Every metric of Seachange's own. `process_*` come from the `metrics-process` crate beside these.
pub const METRICS: &[Metric] = &[
    metric(UP, Kind::Gauge, &[], "1 while the process answers."),
    metric(BUILD_INFO, Kind::Gauge, &["version"], "Always 1; the label is the version that runs."),
    metric(
        STATE,
        Kind::Gauge,
        &["pipeline", "state"],
        "1 for the state that the pipeline is in, 0 for the others: idle, starting, snapshotting, streaming, draining, \
         failed, done.",
    ),
    metric(
        EVENTS,
        Kind::Counter,
        &["pipeline", "table", "op"],
        "Changes written to the sink and committed, by table and operation (create, update, delete, read, truncate, message).",
    ),
    metric(
        EVENT_BYTES,
        Kind::Counter,
        &["pipeline", "table"],
        "Bytes of keys and values of committed records, before compression.",
    ),
    metric(TRANSACTIONS, Kind::Counter, &["pipeline"], "Source transactions committed to the sink."),
    metric(
        LAG_BYTES,
        Kind::Gauge,
        &["pipeline"],
        "Bytes of the database's log between the position that the sink has committed and the log's end.",
    ),
    metric(
        LAG_SECONDS,
        Kind::Gauge,
        &["pipeline"],
        "Seconds between the commit in the database and the commit in the sink, for the newest change committed; while \
         changes wait it grows with them, and it is 0 when none does.",
    ),
    metric(
        RETAINED_BYTES,
        Kind::Gauge,
        &["pipeline"],
        "Bytes of log that the database keeps on disk because of this pipeline.",
    ),
    metric(
        SAFE_BYTES,
        Kind::Gauge,
        &["pipeline"],
        "Bytes that can still be written before the slot may be invalidated (PostgreSQL's safe_wal_size); NaN without \
         max_slot_wal_keep_size.",
    ),
    metric(
        SLOT_STATE,
        Kind::Gauge,
        &["pipeline", "state"],
        "1 for the slot's state (PostgreSQL's wal_status: reserved, extended, unreserved, lost), 0 for the others.",
    ),
    metric(SLOT_ACTIVE, Kind::Gauge, &["pipeline"], "1 while a process streams from the slot."),
    metric(
        SNAPSHOT_ROWS,
        Kind::Counter,
        &["pipeline"],
        "Rows read by the snapshot, those dropped in the merge included.",
    ),
    metric(
        SNAPSHOT_ESTIMATE,
        Kind::Gauge,
        &["pipeline"],
        "Rows that the snapshot has to read in all, by the database's own estimate.",
    ),
    metric(SNAPSHOT_CHUNKS, Kind::Counter, &["pipeline"], "Chunks read by the snapshot."),
    metric(SNAPSHOT_TABLES, Kind::Gauge, &["pipeline"], "Tables that the snapshot has not finished."),
    metric(COMMIT_SECONDS, Kind::Histogram(SECONDS), &["pipeline"], "Duration of a commit at the sink."),
    metric(COMMIT_BYTES, Kind::Histogram(BYTES), &["pipeline"], "Bytes of records in a commit."),
    metric(COMMIT_RECORDS, Kind::Histogram(RECORDS), &["pipeline"], "Records in a commit."),
    metric(LAST_COMMIT, Kind::Gauge, &["pipeline"], "Unix time of the last commit at the sink; 0 before the first."),
    metric(RESTARTS, Kind::Counter, &["pipeline"], "Starts of the pipeline after an error."),
    metric(
        ERRORS,
        Kind::Counter,
        &["pipeline", "kind", "side"],
        "Errors that ended a run of the pipeline, by kind, and by side: source, sink, self.",
    ),
    metric(
        QUEUE,
        Kind::Gauge,
        &["pipeline"],
        "Batches between reader and writer: always full means that the sink is the bottleneck, always empty the source.",
    ),
    metric(
        BUSY,
        Kind::Seconds,
        &["pipeline", "stage"],
        "Seconds of work by stage: fill (reading), encode, append (handing records over), commit. The stage whose rate is \
         nearest to 1 is the bottleneck.",
    ),
];

/// Tables of one pipeline that get series of their own.
pub const TABLES_MAX: usize = 2000;

/// Renders what has been recorded.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Arc<metrics_process::Collector>,
}

/// Makes the recorder the process's own. Fails when there is one already.
pub fn install() -> seachange_sdk::Result<Metrics> {
    let (recorder, metrics) = recorder();
    metrics::set_global_recorder(recorder).map_err(|_| Error::bug("metrics are installed twice"))?;
    describe();
    metrics.process.describe();
    Ok(metrics)
}

fn recorder() -> (PrometheusRecorder, Metrics) {
    let mut builder = PrometheusBuilder::new();
    for m in METRICS {
        if let Kind::Histogram(buckets) = m.kind {
            // Refused only when the list is empty, which a test excludes; without buckets a summary would come out.
            match builder.set_buckets_for_metric(Matcher::Full(m.name.into()), buckets) {
                Ok(b) => builder = b,
                Err(e) => unreachable!("{}: {e}", m.name),
            }
        }
    }
    let recorder = builder.build_recorder();
    let metrics = Metrics { handle: recorder.handle(), process: Arc::new(metrics_process::Collector::default()) };
    (recorder, metrics)
}

fn describe() {
    for m in METRICS {
        match m.kind {
            Kind::Counter => describe_counter!(m.name, m.help),
            Kind::Seconds | Kind::Gauge => describe_gauge!(m.name, m.help),
            Kind::Histogram(_) => describe_histogram!(m.name, m.help),
        }
    }
    gauge!(UP).set(1.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

impl Metrics {
    /// Folds histogram samples into buckets. Call it every few seconds, or samples pile up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
    /// The exposition text. Takes milliseconds with many tables: not for an async thread.
    pub fn render(&self) -> String {
        self.process.collect();
        let mut text = self.handle.render();
        let growing = METRICS.iter().filter(|m| m.kind == Kind::Seconds).map(|m| m.name);
        for name in growing.chain(["process_cpu_seconds_total"]) {
            text = text.replacen(&format!("# TYPE {name} gauge\n"), &format!("# TYPE {name} counter\n"), 1);
        }
        text
    }
}

/// Where a pipeline's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// Reading from the source.
    Fill,
    /// Writing keys and values.
    Encode,
    /// Handing records to the sink.
    Append,
    /// Committing at the sink.
    Commit,
}

const STAGES: [&str; 4] = ["fill", "encode", "append", "commit"];
const SLOT_STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// The states of `seachange_pipeline_state`, in the order of `crate::status::Phase`.
pub const STATES: [&str; 7] = ["idle", "starting", "snapshotting", "streaming", "draining", "failed", "done"];

/// Errors that are expected to happen in the life of a pipeline: their series are there, at 0, before the first one, so
/// that `increase()` sees it.
const EXPECTED: &[(ErrorKind, Side)] = &[
    (ErrorKind::Connect, Side::Source),
    (ErrorKind::Auth, Side::Source),
    (ErrorKind::Protocol, Side::Source),
    (ErrorKind::Schema, Side::Source),
    (ErrorKind::Value, Side::Source),
    (ErrorKind::Limit, Side::Source),
    (ErrorKind::Gap, Side::Source),
    (ErrorKind::Connect, Side::Sink),
    (ErrorKind::Auth, Side::Sink),
    (ErrorKind::Sink, Side::Sink),
    (ErrorKind::Limit, Side::Sink),
    (ErrorKind::Fenced, Side::Sink),
    (ErrorKind::State, Side::Sink),
    (ErrorKind::Bug, Side::Own),
];

/// The name of an operation in the label `op`.
pub const fn op_name(op: Op) -> &'static str {
    match op {
        Op::Create => "create",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Read => "read",
        Op::Truncate => "truncate",
        Op::Message => "message",
    }
}

struct TableHandles {
    ops: [Counter; 6],
    bytes: Counter,
}

/// The handles of one pipeline. Make it once, after [`install`]; it may be shared between threads.
pub struct PipelineMetrics {
    name: String,
    /// Duration of a commit, in seconds.
    pub commit_seconds: Histogram,
    /// Bytes of a commit.
    pub commit_bytes: Histogram,
    /// Records of a commit.
    pub commit_records: Histogram,
    /// Unix time of the last commit.
    pub last_commit: Gauge,
    /// Source transactions committed.
    pub transactions: Counter,
    /// Starts after an error.
    pub restarts: Counter,
    /// Batches between reader and writer.
    pub queue: Gauge,
    /// Seconds behind.
    pub lag_seconds: Gauge,
    /// Rows read by the snapshot.
    pub snapshot_rows: Counter,
    /// Rows it has to read.
    pub snapshot_estimate: Gauge,
    /// Chunks read by the snapshot.
    pub snapshot_chunks: Counter,
    /// Tables not yet finished.
    pub snapshot_tables: Gauge,
    lag_bytes: Gauge,
    retained_bytes: Gauge,
    safe_bytes: Gauge,
    slot_active: Gauge,
    slot_state: [Gauge; 4],
    busy: [Gauge; 4],
    tables: Mutex<HashMap<TableId, Arc<TableHandles>>>,
    other: Mutex<Option<Arc<TableHandles>>>,
}

impl PipelineMetrics {
    /// Registers the series of a pipeline: they are there, at 0 or NaN, before anything happens.
    pub fn new(name: &str) -> PipelineMetrics {
        let p = || name.to_owned();
        let unknown = |g: Gauge| {
            g.set(f64::NAN);
            g
        };
        for (kind, side) in EXPECTED {
            counter!(ERRORS, "pipeline" => p(), "kind" => kind.name(), "side" => side.name()).absolute(0);
        }
        let last_commit = gauge!(LAST_COMMIT, "pipeline" => p());
        last_commit.set(0.0);
        PipelineMetrics {
            name: name.to_owned(),
            commit_seconds: histogram!(COMMIT_SECONDS, "pipeline" => p()),
            commit_bytes: histogram!(COMMIT_BYTES, "pipeline" => p()),
            commit_records: histogram!(COMMIT_RECORDS, "pipeline" => p()),
            last_commit,
            transactions: counter!(TRANSACTIONS, "pipeline" => p()),
            restarts: counter!(RESTARTS, "pipeline" => p()),
            queue: gauge!(QUEUE, "pipeline" => p()),
            lag_seconds: unknown(gauge!(LAG_SECONDS, "pipeline" => p())),
            snapshot_rows: counter!(SNAPSHOT_ROWS, "pipeline" => p()),
            snapshot_estimate: gauge!(SNAPSHOT_ESTIMATE, "pipeline" => p()),
            snapshot_chunks: counter!(SNAPSHOT_CHUNKS, "pipeline" => p()),
            snapshot_tables: gauge!(SNAPSHOT_TABLES, "pipeline" => p()),
            lag_bytes: unknown(gauge!(LAG_BYTES, "pipeline" => p())),
            retained_bytes: unknown(gauge!(RETAINED_BYTES, "pipeline" => p())),
            safe_bytes: unknown(gauge!(SAFE_BYTES, "pipeline" => p())),
            slot_active: unknown(gauge!(SLOT_ACTIVE, "pipeline" => p())),
            slot_state: SLOT_STATES.map(|s| gauge!(SLOT_STATE, "pipeline" => p(), "state" => s)),
            busy: STAGES.map(|s| gauge!(BUSY, "pipeline" => p(), "stage" => s)),
            tables: Mutex::default(),
            other: Mutex::default(),
        }
    }

    /// Committed changes of a table: how many of each operation (in the order of [`Op::ALL`]), and their bytes.
    pub fn record_table(&self, table: &TableId, ops: &[u64; 6], bytes: u64) {
        let handles = self.table(table);
        for (counter, n) in handles.ops.iter().zip(ops).filter(|(_, n)| **n > 0) {
            counter.increment(*n);
        }
        handles.bytes.increment(bytes);
    }

    fn table(&self, table: &TableId) -> Arc<TableHandles> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(h) = tables.get(table) {
            return h.clone();
        }
        let make = |label: String| {
            Arc::new(TableHandles {
                ops: Op::ALL.map(|op| {
                    counter!(EVENTS, "pipeline" => self.name.clone(), "table" => label.clone(), "op" => op_name(op))
                }),
                bytes: counter!(EVENT_BYTES, "pipeline" => self.name.clone(), "table" => label),
            })
        };
        if tables.len() >= TABLES_MAX {
            let mut other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
            return other.get_or_insert_with(|| make("_other".into())).clone();
        }
        let handles = make(table.to_string());
        tables.insert(table.clone(), handles.clone());
        handles
    }

    /// Time spent in a stage.
    pub fn busy(&self, stage: Stage, time: Duration) {
        self.busy[stage as usize].increment(time.as_secs_f64());
    }

    /// A commit at the sink that has succeeded.
    pub fn commit(&self, time: Duration, bytes: u64, records: u64, unix_seconds: f64) {
        self.commit_seconds.record(time.as_secs_f64());
        self.commit_bytes.record(bytes as f64);
        self.commit_records.record(records as f64);
        self.last_commit.set(unix_seconds);
    }

    /// What the database says about the pipeline's place in its log. What it does not say becomes NaN.
    pub fn source(&self, status: &SourceStatus) {
        let number = |n: Option<f64>| n.unwrap_or(f64::NAN);
        self.lag_bytes.set(number(status.lag_bytes.map(|n| n as f64)));
        self.retained_bytes.set(number(status.retained_bytes.map(|n| n as f64)));
        self.safe_bytes.set(number(status.safe_bytes.map(|n| n as f64)));
        self.slot_active.set(number(status.active.map(|a| f64::from(u8::from(a)))));
        for (name, handle) in SLOT_STATES.iter().zip(&self.slot_state) {
            handle.set(f64::from(u8::from(status.slot_state.as_deref() == Some(*name))));
        }
    }

    /// An error that ended a run.
    pub fn error(&self, e: &Error) {
        counter!(
            ERRORS, "pipeline" => self.name.clone(), "kind" => e.kind().name(), "side" => e.side().name()
        )
        .increment(1);
    }
}

/// The gauges of `seachange_pipeline_state` for one pipeline, in the order of [`STATES`].
pub fn state_gauges(pipeline: &str) -> [Gauge; 7] {
    STATES.map(|s| gauge!(STATE, "pipeline" => pipeline.to_owned(), "state" => s))
}

/// `docs/metrics.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# Metrics

<!-- Written from src/metrics.rs by `UPDATE=1 cargo test --test docs`: change it there. -->

`GET /metrics` on `server.listen` answers in Prometheus' text format. `pipeline` is the pipeline's name, `table` is
`schema.table`. A gauge that is not known (yet) is `NaN`. A pipeline has series for its first 2,000 tables; the others are counted
together under `table=\"_other\"`. Beside these there are `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_open_fds` and their kin, by Prometheus' own names.

| name | type | labels | what it says |
| --- | --- | --- | --- |
",
    );
    for m in METRICS {
        let kind = match m.kind {
            Kind::Counter | Kind::Seconds => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = m.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}` | {kind} | {labels} | {} |", m.name, m.help);
    }
    out.push_str(
        "
## Questions and the graphs that answer them

| question | expression |
| --- | --- |
| How fast? | `sum by (pipeline) (rate(seachange_events_total[1m]))` |
| How far behind? | `seachange_source_lag_seconds`, `seachange_source_lag_bytes` |
| What is the bottleneck? | `rate(seachange_busy_seconds_total[1m])` by `stage`: the one nearest to 1 |
| Will the database lose the slot? | `seachange_slot_safe_bytes`, `seachange_slot_state{state=~\"unreserved|lost\"} == 1` |
| How long does a commit take? | `histogram_quantile(0.99, sum by (le) (rate(seachange_commit_seconds_bucket[5m])))` |
| Is anything failing? | `seachange_pipeline_state{state=\"failed\"} == 1`, `increase(seachange_errors_total[10m])` |
| How much of the snapshot is done? | `seachange_snapshot_rows_total / seachange_snapshot_rows_estimate` |
",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(i: usize) -> TableId {
        TableId { database: "d".into(), schema: "s".into(), name: format!("t{i}").into() }
    }

    fn recorded(f: impl FnOnce(&Metrics)) -> String {
        let (recorder, metrics) = recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            f(&metrics);
            metrics.render()
        })
    }

    #[test]
    fn every_metric_is_there_from_the_start_with_its_type() {
        let text = recorded(|_| {
            let p = PipelineMetrics::new("shop");
            p.table(&table(0));
            state_gauges("shop").iter().for_each(|g| g.set(0.0));
            // A histogram without a sample has no series; one of each.
            p.commit(Duration::from_millis(3), 10, 1, 1.5);
        });
        for m in METRICS {
            let ty = match m.kind {
                Kind::Counter | Kind::Seconds => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {} {ty}\n", m.name)), "{}\n{text}", m.name);
            assert!(text.contains(&format!("# HELP {} ", m.name)), "{}", m.name);
            let line = text.lines().find(|l| l.starts_with(m.name)).unwrap();
            for label in m.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line}");
            }
        }
        // And nothing that is not in the table.
        for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(name.starts_with("process_") || METRICS.iter().any(|m| m.name == name), "{name}");
        }
        assert!(text.contains("seachange_commit_seconds_bucket{pipeline=\"shop\",le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("seachange_errors_total{pipeline=\"shop\",kind=\"gap\",side=\"source\"} 0\n"), "{text}");
    }

    #[test]
    fn values_come_out() {
        let text = recorded(|m| {
            let p = PipelineMetrics::new("shop");
            p.record_table(&table(1), &[2, 0, 1, 0, 0, 0], 300);
            p.record_table(&table(1), &[1, 0, 0, 0, 0, 0], 100);
            p.busy(Stage::Encode, Duration::from_millis(250));
            p.busy(Stage::Encode, Duration::from_millis(250));
            p.source(&SourceStatus { lag_bytes: Some(7), slot_state: Some("lost".into()), ..SourceStatus::default() });
            p.error(&Error::bug("x"));
            m.upkeep();
        });
        for line in [
            "seachange_events_total{pipeline=\"shop\",table=\"s.t1\",op=\"create\"} 3",
            "seachange_events_total{pipeline=\"shop\",table=\"s.t1\",op=\"delete\"} 1",
            "seachange_event_bytes_total{pipeline=\"shop\",table=\"s.t1\"} 400",
            "seachange_busy_seconds_total{pipeline=\"shop\",stage=\"encode\"} 0.5",
            "seachange_source_lag_bytes{pipeline=\"shop\"} 7",
            "seachange_slot_safe_bytes{pipeline=\"shop\"} NaN",
            "seachange_slot_state{pipeline=\"shop\",state=\"lost\"} 1",
            "seachange_slot_state{pipeline=\"shop\",state=\"reserved\"} 0",
            "seachange_errors_total{pipeline=\"shop\",kind=\"bug\",side=\"self\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn tables_are_bounded() {
        let text = recorded(|_| {
            let p = PipelineMetrics::new("shop");
            for i in 0..TABLES_MAX + 50 {
                p.record_table(&table(i), &[1, 0, 0, 0, 0, 0], 1);
            }
        });
        assert!(text.contains("table=\"_other\",op=\"create\"} 50\n"));
        assert_eq!(text.matches("op=\"create\"").count(), TABLES_MAX + 1);
    }
}

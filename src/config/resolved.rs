//! The configuration as it is meant: no options left open, no strings that mean something else. Everything above this
//! layer takes these types; only `config` makes them.

use seachange_sdk::{Configured, Secret};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The whole configuration.
pub struct Config {
    /// `[kafka]`; `None` when no pipeline needs it.
    pub kafka: Option<Kafka>,
    /// `[server]`.
    pub server: Server,
    /// `[log]`.
    pub log: Log,
    /// `[pipeline.NAME]`, by name.
    pub pipelines: Vec<Pipeline>,
}

/// Where Kafka is.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port,host:port`.
    pub bootstrap: String,
    /// librdkafka properties as given: any may hold a secret.
    pub properties: BTreeMap<String, Secret>,
}

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address; `None` switches it off.
    pub listen: Option<SocketAddr>,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// JSON lines instead of text.
    pub json: bool,
    /// Filter in `tracing`'s EnvFilter syntax: `info`, `seachange=debug`.
    pub level: String,
}

/// One pipeline.
#[derive(Clone)]
pub struct Pipeline {
    /// `[pipeline.NAME]`: letters, digits, `-`, `_`.
    pub name: String,
    /// The connector's kind: `postgres`.
    pub source_kind: &'static str,
    /// The source.
    pub source: Arc<dyn Configured>,
    /// What to read of what is already there.
    pub snapshot: Snapshot,
    /// Topics.
    pub topics: Topics,
    /// How values look.
    pub format: Format,
    /// Where records go.
    pub sink: Sink,
    /// Bounds.
    pub limits: Limits,
}

/// `snapshot = ...`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMode {
    /// Read what is there, then stream; tables that appear later are read too.
    Initial,
    /// Stream only.
    Never,
    /// Read what is there, catch up to the moment it ended, and stop.
    Only,
}

/// How to read what is already there.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether.
    pub mode: SnapshotMode,
    /// Connections that read at once.
    pub parallel: usize,
    /// Rows a chunk.
    pub chunk_rows: usize,
    /// How often the database is asked for tables that have appeared.
    pub discover: Duration,
}

/// Topic naming and creation.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Template with `{pipeline}`, `{database}`, `{schema}`, `{table}`.
    pub name: String,
    /// Partitions of topics that Seachange creates.
    pub partitions: i32,
    /// Replication factor of those; `None`: the broker's default.
    pub replication: Option<i32>,
    /// Topic settings of those (`cleanup.policy` ...).
    pub settings: BTreeMap<String, String>,
    /// Topic of transaction metadata, template with `{pipeline}`; Debezium's is `{pipeline}.transaction`.
    pub transaction: String,
    /// Topic of messages, Debezium's is `{pipeline}.message`.
    pub message: String,
}

impl Default for Topics {
    /// What a configuration gives that says nothing of topics.
    fn default() -> Topics {
        Topics {
            name: "{pipeline}.{schema}.{table}".into(),
            partitions: 1,
            replication: None,
            settings: BTreeMap::new(),
            transaction: "{pipeline}.transaction".into(),
            message: "{pipeline}.message".into(),
        }
    }
}

/// How decimals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalMode {
    /// Exact digits in a string.
    String,
    /// Debezium `precise`: base64 of the unscaled two's complement integer; `{scale, value}` when the scale varies.
    Precise,
    /// A JSON number of IEEE double: inexact.
    Double,
}

/// How dates and times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMode {
    /// ISO 8601 strings.
    Iso,
    /// Debezium `adaptive`: days; milliseconds or microseconds by the column's precision.
    Adaptive,
    /// Debezium `adaptive_time_microseconds`: as adaptive, times of day always in microseconds.
    AdaptiveTimeMicros,
    /// Debezium `connect`: days, milliseconds.
    Connect,
    /// Debezium `isostring`.
    IsoString,
    /// Debezium `microseconds`.
    Micros,
    /// Debezium `nanoseconds`.
    Nanos,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryMode {
    /// Base64 (JSON of Debezium's `bytes` is base64 too).
    Base64,
    /// Base64 with the URL alphabet.
    Base64UrlSafe,
    /// Hexadecimal.
    Hex,
}

/// How intervals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalMode {
    /// ISO 8601: `P1Y2M3DT4H5M6.789S`.
    Iso,
    /// Debezium `numeric`: microseconds, months counted as 365.25/12 days.
    Numeric,
    /// Debezium `string`: `P1Y2M3DT4H5M6.789S` with every part present.
    String,
}

/// How dates of no calendar are written (MySQL's `0000-00-00`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroDates {
    /// As the database prints them.
    Text,
    /// As null.
    Null,
}

/// How maps (hstore) are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMode {
    /// A JSON object.
    Object,
    /// The JSON object as a string (Debezium `json`).
    Json,
}

/// `values = ...`: the base that the single choices modify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Exact and readable.
    Plain,
    /// What Debezium would write.
    Debezium,
}

/// How values look.
#[derive(Clone, Debug)]
pub struct Format {
    /// The base: decides everything that has no choice of its own (absent columns, bits, points, UUIDs ...).
    pub values: Values,
    /// Decimals.
    pub decimal: DecimalMode,
    /// Dates and times.
    pub time: TimeMode,
    /// Bytes.
    pub binary: BinaryMode,
    /// Intervals.
    pub interval: IntervalMode,
    /// Maps.
    pub hstore: MapMode,
    /// Dates of no calendar.
    pub zero_dates: ZeroDates,
    /// Write the `schema` beside every `payload` (Kafka Connect's JsonConverter with `schemas.enable`).
    pub schemas: bool,
    /// Write a tombstone after a delete.
    pub tombstones: bool,
    /// Write the `transaction` block and BEGIN/END records.
    pub transaction: bool,
    /// Write the statements that change tables.
    pub schema_changes: bool,
    /// What stands for a value that the log does not carry, under `debezium`.
    pub placeholder: String,
}

/// Where records go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Kafka, exactly once.
    Kafka(KafkaSink),
    /// Standard output, one JSON line a record, at least once.
    Stdout {
        /// Where the position is kept.
        state: PathBuf,
    },
    /// A file, one JSON line a record, at least once.
    File {
        /// The file, appended to.
        path: PathBuf,
        /// Where the position is kept.
        state: PathBuf,
    },
}

/// The Kafka sink's own settings.
#[derive(Clone, Debug)]
pub struct KafkaSink {
    /// Prefix of the transactional id and, with `__`, of the state topic: `seachange`.
    pub cluster: String,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
}

impl KafkaSink {
    /// `<cluster>.<pipeline>`: one producer a pipeline.
    pub fn transactional_id(&self, pipeline: &str) -> String {
        format!("{}.{pipeline}", self.cluster)
    }
    /// `__<cluster>.<pipeline>`: one partition, compacted.
    pub fn state_topic(&self, pipeline: &str) -> String {
        format!("__{}.{pipeline}", self.cluster)
    }
}

/// Bounds. Each has one stated effect.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of rows in one batch between reader and writer.
    pub batch_bytes: usize,
    /// Bytes of records in one Kafka transaction above which it is committed at the next end of a source transaction.
    pub commit_bytes: usize,
    /// Age of an open Kafka transaction at which it is committed at the next end of a source transaction.
    pub commit_interval: Duration,
    /// Bytes of one source transaction above which it is split over several Kafka transactions.
    pub txn_bytes_max: usize,
    /// A row larger than this stops the pipeline.
    pub row_bytes_max: usize,
    /// How often a position without changes is committed.
    pub idle_interval: Duration,
    /// First delay before starting again after an error, doubled up to a minute.
    pub retry_first: Duration,
}

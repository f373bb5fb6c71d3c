//! Every option of the core, once: its name, what it may be, what it is when it is not given, and what it does.
//!
//! The reader checks a file against this table, `docs/configuration.md` and the JSON Schema are written from it, so the
//! three cannot disagree. `NAME` in a path is a pipeline's name. A connector has options of its own, in the same
//! `[pipeline.NAME.source]`; they are read and documented there.

/// What an option may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int(i64, i64),
    /// A duration within bounds, as they are written.
    Duration(&'static str, &'static str),
    /// A size within bounds, as they are written.
    Size(&'static str, &'static str),
    /// `address:port`, or `off`.
    Listen,
    /// A table of names with texts, numbers or truth values. Dotted keys are joined: `compression.type = "lz4"`.
    Map,
    /// A topic name with these placeholders.
    Template(&'static [&'static str]),
    /// The path of a file.
    Path,
    /// A log filter.
    Filter,
}

/// What an option is when it is not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fallback {
    /// It must be given.
    Required,
    /// This, as it would be written.
    Value(&'static str),
    /// Decided by other options; the text says how, for the reader of the page.
    Depends(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Where it stands: `pipeline.NAME.format.values`.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is when it is not given.
    pub default: Fallback,
    /// What it does.
    pub doc: &'static str,
}

impl Opt {
    /// The table it stands in: `pipeline.NAME.format`.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(s, _)| s)
    }
    /// Its name in that table: `values`.
    pub fn key(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, k)| k)
    }
}

const fn opt(path: &'static str, kind: Kind, default: Fallback, doc: &'static str) -> Opt {
    Opt { path, kind, default, doc }
}

/// The sections, in the order in which they are documented, with what each is for.
pub const SECTIONS: &[(&str, &str)] = &[
    ("kafka", "Where Kafka is. Needed as soon as one pipeline has the `kafka` sink; all pipelines share it."),
    ("server", "The HTTP server for metrics and health."),
    ("log", "Logs go to standard error."),
    (
        "pipeline.NAME.source",
        "Where changes come from. The options below belong to every source; `type` decides which others there are: \
         [postgres](sources/postgres.md), [mysql and mariadb](sources/mysql.md).",
    ),
    (
        "pipeline.NAME.source.snapshot",
        "`snapshot = \"initial\"` is short for `snapshot = { mode = \"initial\" }`; the table form has room for the rest.",
    ),
    (
        "pipeline.NAME.topics",
        "Names and settings of topics. Seachange creates a topic that is missing and never changes one that exists. It does so \
         before the topic's first record; of more than 32 tables that a snapshot is about to read, and that the database \
         does not take for empty, it creates the topics together before it reads.",
    ),
    ("pipeline.NAME.format", "How keys and values look. The envelope is Debezium's whatever is chosen here."),
    ("pipeline.NAME.sink", "Where records go."),
    (
        "pipeline.NAME.limits",
        "Bounds. Together they fix how much memory a pipeline takes, whatever the size of a transaction.",
    ),
];

use Fallback::{Depends, Required, Value};
use Kind::{Bool, Choice, Duration, Filter, Int, Listen, Map, Path, Size, Template, Text};

/// Every option of the core.
pub const OPTIONS: &[Opt] = &[
    opt("kafka.bootstrap", Text, Required, "Brokers to ask first: `host:port`, several separated by commas."),
    opt(
        "kafka.properties",
        Map,
        Value("{}"),
        "Any [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md): TLS, SASL, \
         compression. Refused are those on which exactly-once rests (`transactional.id`, `enable.idempotence`, `acks` \
         and their kin). Of librdkafka's own defaults these are others: `compression.type` lz4, `linger.ms` 50 (a commit \
         does not wait for it), `queue.buffering.max.kbytes` 16384, `queue.buffering.max.messages` 500000, \
         `message.max.bytes` 100000000, `socket.nagle.disable` true, `reconnect.backoff.ms` 10.",
    ),
    opt(
        "kafka.cluster",
        Text,
        Value("seachange"),
        "Prefix of the transactional ids (`<cluster>.<pipeline>`, `<cluster>.<pipeline>:2`) and, after `__`, of the state topics. Two daemons with \
         the same value and a pipeline of the same name are one pipeline: the newer fences the older. Changing it makes \
         every pipeline start anew.",
    ),
    opt(
        "server.listen",
        Listen,
        Value("127.0.0.1:9464"),
        "Address and port of `/metrics`, `/healthz` and `/readyz`, or `off`. There is no authentication: bind it to a \
         network that only your monitoring reaches.",
    ),
    opt("log.format", Choice(&["text", "json"]), Value("text"), "Lines for people, or one JSON object a line."),
    opt(
        "log.level",
        Filter,
        Value("info"),
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter by module such as `info,seachange=debug`.",
    ),
    opt("pipeline.NAME.source.type", Text, Required, "The connector: `postgres`, `mysql` or `mariadb`."),
    opt(
        "pipeline.NAME.source.snapshot.mode",
        Choice(&["initial", "never", "only"]),
        Value("initial"),
        "`initial`: read the rows that are already there, then stream; tables that appear later are read too. `never`: \
         stream only. `only`: read what is there, catch up to the moment at which that ended, and stop.",
    ),
    opt(
        "pipeline.NAME.source.snapshot.parallel",
        Int(1, 64),
        Value("2"),
        "Database connections that read rows at the same time.",
    ),
    opt(
        "pipeline.NAME.source.snapshot.chunk_rows",
        Int(1, 1_000_000),
        Value("10000"),
        "Rows read at once. After a restart the snapshot goes on at the chunk at which it was. A chunk is held in memory: \
         a smaller number for tables with large rows (a chunk ends early at four times `limits.batch_bytes`).",
    ),
    opt(
        "pipeline.NAME.source.snapshot.discover",
        Duration("1s", "24h"),
        Value("30s"),
        "How often the database is asked for tables that have appeared.",
    ),
    opt(
        "pipeline.NAME.topics.name",
        Template(&["pipeline", "database", "schema", "table"]),
        Value("{pipeline}.{schema}.{table}"),
        "Topic of a table. Characters that a topic name cannot have become `_`. Changing it does not rename topics that \
         exist.",
    ),
    opt("pipeline.NAME.topics.partitions", Int(1, 10_000), Value("1"), "Partitions of topics that Seachange creates."),
    opt(
        "pipeline.NAME.topics.replication",
        Int(1, 32),
        Depends("the broker's `default.replication.factor`"),
        "Replicas of topics that Seachange creates, its state topic included.",
    ),
    opt(
        "pipeline.NAME.topics.settings",
        Map,
        Value("{}"),
        "Settings of data topics that Seachange creates: `{ \"cleanup.policy\" = \"compact\" }`.",
    ),
    opt(
        "pipeline.NAME.topics.transaction",
        Template(&["pipeline"]),
        Value("{pipeline}.transaction"),
        "Topic of BEGIN and END records; written only with `format.transaction = true`.",
    ),
    opt(
        "pipeline.NAME.topics.message",
        Template(&["pipeline"]),
        Value("{pipeline}.message"),
        "Topic of messages that the database's log carries beside tables (`pg_logical_emit_message`).",
    ),
    opt(
        "pipeline.NAME.format.values",
        Choice(&["plain", "debezium"]),
        Value("plain"),
        "`plain`: exact and readable. `debezium`: byte for byte what Debezium writes with its defaults, for a drop-in. \
         The options below change one kind of value each.",
    ),
    opt(
        "pipeline.NAME.format.decimal",
        Choice(&["string", "precise", "double"]),
        Depends("`string` under `plain`, `precise` under `debezium`"),
        "`string`: the exact digits. `precise`: base64 of the unscaled integer, as Kafka Connect's Decimal. `double`: a \
         JSON number, inexact.",
    ),
    opt(
        "pipeline.NAME.format.time",
        Choice(&[
            "iso",
            "adaptive",
            "adaptive_time_microseconds",
            "connect",
            "isostring",
            "microseconds",
            "nanoseconds",
        ]),
        Depends(
            "`iso` under `plain`; under `debezium` `adaptive`, and `adaptive_time_microseconds` for MySQL and MariaDB",
        ),
        "`iso`: ISO 8601 text. The others are the values of Debezium's `time.precision.mode`.",
    ),
    opt(
        "pipeline.NAME.format.binary",
        Choice(&["base64", "base64-url-safe", "hex"]),
        Value("base64"),
        "How bytes are written.",
    ),
    opt(
        "pipeline.NAME.format.interval",
        Choice(&["iso", "numeric", "string"]),
        Depends("`iso` under `plain`, `numeric` under `debezium`"),
        "`iso`: `P1Y2M3DT4H5M6.789S`, parts that are zero left out. `numeric`: microseconds, a month counted as 365.25/12 \
         days. `string`: ISO 8601 with every part present.",
    ),
    opt(
        "pipeline.NAME.format.hstore",
        Choice(&["object", "json"]),
        Depends("`object` under `plain`, `json` under `debezium`"),
        "`object`: a JSON object. `json`: the object as a string.",
    ),
    opt(
        "pipeline.NAME.format.zero_dates",
        Choice(&["text", "null"]),
        Depends("`text` under `plain`, `null` under `debezium`"),
        "MySQL's and MariaDB's dates that are in no calendar (`0000-00-00`, `2024-00-00 00:00:00`). `text`: as the server \
         prints them. `null`: null, in keys too, so that rows which differ in such a key column alone share a key.",
    ),
    opt(
        "pipeline.NAME.format.schemas",
        Bool,
        Value("false"),
        "Write every key and value as `{\"schema\": ..., \"payload\": ...}`, as Kafka Connect's JsonConverter does with \
         `schemas.enable=true`.",
    ),
    opt(
        "pipeline.NAME.format.tombstones",
        Bool,
        Value("true"),
        "Write a record without value after every delete, so that a compacted topic forgets the key.",
    ),
    opt(
        "pipeline.NAME.format.transaction",
        Bool,
        Value("false"),
        "Write the `transaction` block into every value, and BEGIN and END records to `topics.transaction`.",
    ),
    opt(
        "pipeline.NAME.format.schema_changes",
        Bool,
        Value("true"),
        "Write the statements that change captured tables of MySQL and MariaDB to the topic named after the pipeline, as \
         Debezium does (`include.schema.changes`).",
    ),
    opt(
        "pipeline.NAME.format.placeholder",
        Text,
        Value("__debezium_unavailable_value"),
        "What stands for a value that the log does not carry (unchanged TOAST), under `debezium`. Under `plain` such a \
         column is left out.",
    ),
    opt(
        "pipeline.NAME.sink.type",
        Choice(&["kafka", "stdout", "file"]),
        Value("kafka"),
        "`kafka`: exactly once. `stdout` and `file`: one JSON line a record, at least once.",
    ),
    opt(
        "pipeline.NAME.sink.transaction_timeout",
        Duration("1s", "15m"),
        Value("60s"),
        "`kafka` only. After this long without progress the broker aborts an open Kafka transaction. At most the broker's \
         `transaction.max.timeout.ms`.",
    ),
    opt("pipeline.NAME.sink.path", Path, Depends("none: needed by `file`"), "`file` only. The file, appended to."),
    opt(
        "pipeline.NAME.sink.state",
        Path,
        Depends("`PATH.state` for `file`, `seachange-NAME.state` for `stdout`"),
        "`file` and `stdout` only. Where the position is kept. The `kafka` sink keeps it in Kafka.",
    ),
    opt(
        "pipeline.NAME.limits.batch_bytes",
        Size("64KiB", "256MiB"),
        Value("512KiB"),
        "Bytes of rows in one batch between reader and writer; about four batches are in memory.",
    ),
    opt(
        "pipeline.NAME.limits.commit_bytes",
        Size("64KiB", "1GiB"),
        Value("16MiB"),
        "Bytes of records in one Kafka transaction above which it is committed at the next end of a source transaction.",
    ),
    opt(
        "pipeline.NAME.limits.commit_interval",
        Duration("1ms", "5m"),
        Value("200ms"),
        "Age of a Kafka transaction at which it is committed at the next end of a source transaction. When there is \
         nothing more to read it is committed at once: this bounds latency under load only.",
    ),
    opt(
        "pipeline.NAME.limits.txn_bytes_max",
        Size("64KiB", "64GiB"),
        Value("256MiB"),
        "Bytes of records above which one source transaction is split over several Kafka transactions. Below it a \
         read_committed consumer sees a source transaction whole or not at all.",
    ),
    opt(
        "pipeline.NAME.limits.row_bytes_max",
        Size("64KiB", "1GiB"),
        Value("128MiB"),
        "A row larger than this stops the pipeline with an error that names its table. It is never cut.",
    ),
    opt(
        "pipeline.NAME.limits.idle_interval",
        Duration("100ms", "1h"),
        Value("5s"),
        "How often the position is committed while nothing captured changes, so that the database can drop its log.",
    ),
    opt(
        "pipeline.NAME.limits.retry_first",
        Duration("10ms", "1m"),
        Value("1s"),
        "Wait before the first new start after an error; doubled after each, up to a minute.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_table_is_sound() {
        let mut paths: Vec<_> = OPTIONS.iter().map(|o| o.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), OPTIONS.len(), "a path stands twice");
        // The whole program is to stay under 60, connectors included.
        assert!(OPTIONS.len() <= 42, "{} options", OPTIONS.len());
        for o in OPTIONS {
            assert!(SECTIONS.iter().any(|(s, _)| *s == o.section()), "{}: no such section", o.path);
            assert!(o.doc.ends_with('.'), "{}: the text wants a full stop", o.path);
        }
    }
}

//! From what was read to what is meant: defaults that depend on other options, and what contradicts what.
//!
//! Works also on a faulty file, so that contradictions are found in the same run as misspellings; the result of that is
//! thrown away (`super::parse` gives it back only when no fault was noted).

use super::{
    Registry,
    raw::{Document, UNREADABLE, join},
    read::{RawPipeline, Values},
    resolved::{
        BinaryMode, Config, DecimalMode, Format, IntervalMode, Kafka, KafkaSink, Limits, Log, MapMode, Pipeline,
        Server, Sink, Snapshot, SnapshotMode, TimeMode, Topics, Values as Base, ZeroDates,
    },
};
use seachange_sdk::{Configured, Fault, Secret};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Builds the configuration.
pub fn resolve(values: &Values, doc: &Document, registry: &Registry<'_>, faults: &mut Vec<Fault>) -> Config {
    let mut r = Resolver { v: values, faults };
    let kafka = values.kafka.then(|| r.kafka(registry));
    let pipelines: Vec<Pipeline> = values.pipelines.iter().filter_map(|raw| r.pipeline(raw, doc, registry)).collect();
    r.across(&pipelines);
    Config {
        kafka,
        server: Server { listen: values.text("server.listen").parse().ok() },
        log: Log { json: values.text("log.format") == "json", level: values.text("log.level").to_owned() },
        pipelines,
    }
}

struct Resolver<'a> {
    v: &'a Values,
    faults: &'a mut Vec<Fault>,
}

/// The value that stands beside a word of a choice. The words are those of the table of options; a word that is not
/// there has been noted as a fault, and the first value keeps the reading going.
fn pick<T: Copy>(word: &str, choices: &[(&str, T)]) -> T {
    choices.iter().find(|(w, _)| *w == word).unwrap_or(&choices[0]).1
}

impl Resolver<'_> {
    fn fault(&mut self, path: String, what: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(Fault::new(path, what, fix));
    }

    fn kafka(&mut self, registry: &Registry<'_>) -> Kafka {
        let bootstrap = self.v.text("kafka.bootstrap");
        let host_and_port = |s: &str| {
            s.trim().rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok_and(|p| p > 0))
        };
        if !bootstrap.is_empty() && !bootstrap.split(',').all(host_and_port) {
            self.fault(
                "kafka.bootstrap".into(),
                "not a list of brokers",
                "write host:port, several separated by commas: \"kafka1:9092,kafka2:9092\"",
            );
        }
        let cluster = self.v.text("kafka.cluster");
        if cluster.len() > 100 || !cluster.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            self.fault(
                "kafka.cluster".into(),
                "cannot be part of a topic name",
                "use letters, digits, dot, - and _, at most 100",
            );
        }
        let properties: BTreeMap<String, Secret> =
            self.v.map("kafka.properties").into_iter().map(|(k, v)| (k, Secret::new(v))).collect();
        let unread: Vec<&String> =
            properties.iter().filter(|(_, v)| v.reveal() == UNREADABLE).map(|(k, _)| k).collect();
        if unread.is_empty() {
            self.faults.extend((registry.properties)(&properties));
        }
        Kafka { bootstrap: bootstrap.to_owned(), properties }
    }

    fn pipeline(&mut self, raw: &RawPipeline, doc: &Document, registry: &Registry<'_>) -> Option<Pipeline> {
        let path = join("pipeline", &raw.name);
        let source = self.source(raw, &path, doc, registry);
        let snapshot = self.snapshot(&path);
        let topics = self.topics(&path);
        // Debezium's own default of `time` differs by connector.
        let binlog = source.as_ref().is_some_and(|(kind, _)| matches!(*kind, "mysql" | "mariadb"));
        let format = self.format(&path, if binlog { "adaptive_time_microseconds" } else { "adaptive" });
        let sink = self.sink(&path, &raw.name);
        let limits = self.limits(&path, &sink);
        if self.v.given(&format!("{path}.topics.transaction")) && !format.transaction {
            self.fault(
                format!("{path}.topics.transaction"),
                "has no effect: transaction metadata is not written",
                format!("set {path}.format.transaction = true, or leave this out"),
            );
        }
        let (source_kind, source) = source?;
        Some(Pipeline { name: raw.name.clone(), source_kind, source, snapshot, topics, format, sink, limits })
    }

    fn source(
        &mut self,
        raw: &RawPipeline,
        path: &str,
        doc: &Document,
        registry: &Registry<'_>,
    ) -> Option<(&'static str, Arc<dyn Configured>)> {
        let path = format!("{path}.source");
        // Empty: missing or not a text, which has been noted.
        let kind = self.v.text(&format!("{path}.type"));
        let Some(connector) = registry.connectors.iter().find(|c| c.kind() == kind) else {
            if !kind.is_empty() {
                let kinds: Vec<&str> = registry.connectors.iter().map(|c| c.kind()).collect();
                self.fault(
                    format!("{path}.type"),
                    "no such connector in this build",
                    match super::keys::nearest(kind, kinds.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("there are: {}", kinds.join(", ")),
                    },
                );
            }
            return None;
        };
        match connector.configure(&raw.name, &path, &raw.source) {
            Ok(source) => Some((connector.kind(), source)),
            Err(found) => {
                // What a stand-in for an unreadable reference leads to is no news.
                let unread = unreadable(&path, doc);
                self.faults.extend(found.into_iter().filter(|f| !unread.contains(&f.path)));
                None
            }
        }
    }

    fn snapshot(&mut self, path: &str) -> Snapshot {
        let at = format!("{path}.source.snapshot");
        let mode = pick(
            self.v.text(&format!("{at}.mode")),
            &[("initial", SnapshotMode::Initial), ("never", SnapshotMode::Never), ("only", SnapshotMode::Only)],
        );
        let unused: &[&str] = match mode {
            SnapshotMode::Initial => &[],
            SnapshotMode::Never => &["parallel", "chunk_rows", "discover"],
            SnapshotMode::Only => &["discover"],
        };
        for key in unused.iter().filter(|k| self.v.given(&format!("{at}.{k}"))).collect::<Vec<_>>() {
            let mode = self.v.text(&format!("{at}.mode")).to_owned();
            self.fault(
                format!("{at}.{key}"),
                format!("has no effect with snapshot mode `{mode}`"),
                "leave it out, or choose snapshot mode `initial`",
            );
        }
        let number = |key: &str| self.v.int(&format!("{at}.{key}")).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        Snapshot {
            mode,
            parallel: number("parallel"),
            chunk_rows: number("chunk_rows"),
            discover: self.v.duration(&format!("{at}.discover")),
        }
    }

    fn topics(&mut self, path: &str) -> Topics {
        let at = |key: &str| format!("{path}.topics.{key}");
        let int = |key: &str| self.v.int(&at(key)).and_then(|n| i32::try_from(n).ok());
        let text = |key: &str| self.v.text(&at(key)).to_owned();
        let topics = Topics {
            name: text("name"),
            partitions: int("partitions").unwrap_or(1),
            replication: int("replication"),
            settings: self.v.map(&at("settings")),
            transaction: text("transaction"),
            message: text("message"),
        };
        for (key, own) in [("transaction", &topics.transaction), ("message", &topics.message)] {
            if *own == topics.name {
                self.fault(at(key), "is the topic of the tables too", "give it a name of its own");
            }
        }
        if topics.transaction == topics.message {
            self.fault(at("message"), "is the topic of transaction metadata too", "give it a name of its own");
        }
        topics
    }

    fn format(&mut self, path: &str, debezium_time: &'static str) -> Format {
        let at = |key: &str| format!("{path}.format.{key}");
        let values = pick(self.v.text(&at("values")), &[("plain", Base::Plain), ("debezium", Base::Debezium)]);
        let plain = values == Base::Plain;
        let word = |key: &str, in_plain: &'static str, in_debezium: &'static str| {
            self.v.maybe_text(&at(key)).unwrap_or(if plain { in_plain } else { in_debezium }).to_owned()
        };
        let format = Format {
            values,
            decimal: pick(
                &word("decimal", "string", "precise"),
                &[("string", DecimalMode::String), ("precise", DecimalMode::Precise), ("double", DecimalMode::Double)],
            ),
            time: pick(
                &word("time", "iso", debezium_time),
                &[
                    ("iso", TimeMode::Iso),
                    ("adaptive", TimeMode::Adaptive),
                    ("adaptive_time_microseconds", TimeMode::AdaptiveTimeMicros),
                    ("connect", TimeMode::Connect),
                    ("isostring", TimeMode::IsoString),
                    ("microseconds", TimeMode::Micros),
                    ("nanoseconds", TimeMode::Nanos),
                ],
            ),
            binary: pick(
                &word("binary", "base64", "base64"),
                &[
                    ("base64", BinaryMode::Base64),
                    ("base64-url-safe", BinaryMode::Base64UrlSafe),
                    ("hex", BinaryMode::Hex),
                ],
            ),
            interval: pick(
                &word("interval", "iso", "numeric"),
                &[("iso", IntervalMode::Iso), ("numeric", IntervalMode::Numeric), ("string", IntervalMode::String)],
            ),
            hstore: pick(&word("hstore", "object", "json"), &[("object", MapMode::Object), ("json", MapMode::Json)]),
            zero_dates: pick(
                &word("zero_dates", "text", "null"),
                &[("text", ZeroDates::Text), ("null", ZeroDates::Null)],
            ),
            schemas: self.v.bool(&at("schemas")),
            tombstones: self.v.bool(&at("tombstones")),
            transaction: self.v.bool(&at("transaction")),
            schema_changes: self.v.bool(&at("schema_changes")),
            placeholder: self.v.text(&at("placeholder")).to_owned(),
        };
        let numeric = !matches!(format.time, TimeMode::Iso | TimeMode::IsoString);
        if format.schemas && numeric && format.zero_dates == ZeroDates::Text && self.v.given(&at("zero_dates")) {
            self.fault(
                at("zero_dates"),
                "cannot be \"text\" where the schemas declare dates to be numbers",
                format!("set {} = \"null\", or {} = \"isostring\"", at("zero_dates"), at("time")),
            );
        }
        if plain && self.v.given(&at("placeholder")) {
            self.fault(
                at("placeholder"),
                "has no effect under values = \"plain\", which leaves such columns out",
                format!("leave it out, or set {} = \"debezium\"", at("values")),
            );
        }
        format
    }

    fn sink(&mut self, path: &str, name: &str) -> Sink {
        let at = |key: &str| format!("{path}.sink.{key}");
        let kind = self.v.text(&at("type"));
        let unused: &[&str] = match kind {
            "stdout" => &["path", "transaction_timeout"],
            "file" => &["transaction_timeout"],
            _ => &["path", "state"],
        };
        for key in unused {
            if self.v.given(&at(key)) {
                self.fault(
                    at(key),
                    format!("does not belong to the `{}` sink", if kind.is_empty() { "kafka" } else { kind }),
                    format!("leave it out, or change {}", at("type")),
                );
            }
        }
        let state = |default: String| PathBuf::from(self.v.maybe_text(&at("state")).unwrap_or(&default));
        match kind {
            "stdout" => Sink::Stdout { state: state(format!("seachange-{name}.state")) },
            "file" => {
                let file = self.v.maybe_text(&at("path")).unwrap_or_default();
                if !self.v.given(&at("path")) {
                    self.fault(at("path"), "missing", "set the file that the `file` sink appends to");
                }
                Sink::File { path: file.into(), state: state(format!("{file}.state")) }
            }
            _ => {
                if !self.v.kafka {
                    self.fault(
                        "kafka".into(),
                        format!("missing: the pipeline {name} writes to Kafka"),
                        format!("add [kafka] with bootstrap = \"host:port\", or set {} to stdout or file", at("type")),
                    );
                }
                Sink::Kafka(KafkaSink {
                    cluster: self.v.text("kafka.cluster").to_owned(),
                    transaction_timeout: self.v.duration(&at("transaction_timeout")),
                })
            }
        }
    }

    fn limits(&mut self, path: &str, sink: &Sink) -> Limits {
        let at = |key: &str| format!("{path}.limits.{key}");
        let size = |key: &str| self.v.size(&at(key));
        let limits = Limits {
            batch_bytes: size("batch_bytes"),
            commit_bytes: size("commit_bytes"),
            commit_interval: self.v.duration(&at("commit_interval")),
            txn_bytes_max: size("txn_bytes_max"),
            row_bytes_max: size("row_bytes_max"),
            idle_interval: self.v.duration(&at("idle_interval")),
            retry_first: self.v.duration(&at("retry_first")),
        };
        if limits.txn_bytes_max < limits.commit_bytes {
            self.fault(
                at("txn_bytes_max"),
                "smaller than limits.commit_bytes: every Kafka transaction would be cut before it may end",
                "make it at least as large as limits.commit_bytes",
            );
        }
        if let Sink::Kafka(k) = sink
            && k.transaction_timeout / 2 < limits.commit_interval
        {
            self.fault(
                at("commit_interval"),
                "more than half of sink.transaction_timeout: the broker could abort transactions that are still filling",
                "shorten it, or lengthen sink.transaction_timeout",
            );
        }
        limits
    }

    /// What two pipelines may not share. Transactional ids and state topics cannot clash: names are unique.
    fn across(&mut self, pipelines: &[Pipeline]) {
        let mut owners: BTreeMap<String, (&str, String)> = BTreeMap::new();
        let mut found = Vec::new();
        for p in pipelines {
            let path = join("pipeline", &p.name);
            let mut claim = |what: &str, key: &str, value: String, fix: &str| {
                let at = format!("{path}.{key}");
                let (first, _) = owners.entry(format!("{what} {value}")).or_insert((&p.name, at.clone()));
                if *first != p.name {
                    found.push(Fault::new(at, format!("the pipeline {first} writes to the same {what}"), fix));
                }
            };
            match &p.sink {
                Sink::Kafka(_) => {
                    let name = |template: &str| {
                        template.replace("{pipeline}", &p.name).replace("{database}", &p.source.database())
                    };
                    let fix = "put {pipeline} into the name";
                    claim("topics", "topics.name", name(&p.topics.name), fix);
                    claim("topics", "topics.message", name(&p.topics.message), fix);
                    if p.format.transaction {
                        claim("topics", "topics.transaction", name(&p.topics.transaction), fix);
                    }
                }
                Sink::File { path, state } => {
                    claim("file", "sink.path", path.display().to_string(), "give each pipeline a file of its own");
                    claim("file", "sink.state", state.display().to_string(), "give each pipeline a file of its own");
                }
                Sink::Stdout { state } => {
                    claim("standard output", "sink.type", String::new(), "let one pipeline write to a file");
                    claim("file", "sink.state", state.display().to_string(), "give each pipeline a file of its own");
                }
            }
        }
        self.faults.extend(found);
    }
}

/// The paths under `path` whose references could not be resolved.
fn unreadable(path: &str, doc: &Document) -> Vec<String> {
    fn walk(path: &str, value: &toml::Value, out: &mut Vec<String>) {
        match value {
            toml::Value::String(s) if s == UNREADABLE => out.push(path.to_owned()),
            toml::Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, v)| walk(&format!("{path}[{i}]"), v, out));
            }
            toml::Value::Table(t) => t.iter().for_each(|(k, v)| walk(&join(path, k), v, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    doc.table.iter().for_each(|(k, v)| walk(&join("", k), v, &mut out));
    out.retain(|p| p.starts_with(path));
    out
}

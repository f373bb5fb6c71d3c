//! Faults, defaults and secrets, with a connector that exists for these tests only.

use super::{resolved::*, secret::tests::Fixed, *};
use seachange_sdk::{Check, Configured, Opened, Position, Resume, SourceStatus};
use std::{sync::Arc, time::Duration};

/// Takes `url` and `password`; refuses any other key and an unreadable url.
struct Fake;
#[derive(Debug)]
struct FakeSource;

#[async_trait::async_trait]
impl Configured for FakeSource {
    fn describe(&self) -> String {
        "fake".into()
    }
    async fn check(&self) -> Vec<Check> {
        vec![]
    }
    async fn open(&self, _: Option<&Resume>) -> seachange_sdk::Result<Opened> {
        Err(seachange_sdk::Error::bug("not in tests"))
    }
    async fn status(&self) -> seachange_sdk::Result<SourceStatus> {
        Ok(SourceStatus::default())
    }
    fn describe_position(&self, _: &Position) -> String {
        String::new()
    }
    fn database(&self) -> String {
        "db".into()
    }
}

#[async_trait::async_trait]
impl Connector for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }
    fn schemes(&self) -> &'static [&'static str] {
        &["fake"]
    }
    fn configure(&self, _: &str, path: &str, table: &toml::Table) -> Result<Arc<dyn Configured>, Vec<Fault>> {
        let mut faults: Vec<Fault> = table
            .keys()
            .filter(|k| !["url", "password"].contains(&k.as_str()))
            .map(|k| Fault::new(format!("{path}.{k}"), "unknown option", "there are: url, password"))
            .collect();
        if !table.get("url").and_then(|u| u.as_str()).is_some_and(|u| u.starts_with("fake://")) {
            faults.push(Fault::new(format!("{path}.url"), "not a fake URL", "write fake://"));
        }
        if faults.is_empty() { Ok(Arc::new(FakeSource)) } else { Err(faults) }
    }
    async fn init(&self, _: &str) -> seachange_sdk::Result<String> {
        Ok(String::new())
    }
}

fn refuse(properties: &BTreeMap<String, Secret>) -> Vec<Fault> {
    properties
        .keys()
        .filter(|k| *k == "acks")
        .map(|k| Fault::new(format!("kafka.properties.{k}"), "is Seachange's own", "leave it out"))
        .collect()
}

fn read_with(text: &str, outside: &Fixed) -> Result<Config, Faults> {
    parse("test.toml", text, &Registry { connectors: &[&Fake], properties: &refuse }, outside)
}

fn read(text: &str) -> Result<Config, Faults> {
    read_with(text, &Fixed::default())
}

const KAFKA: &str = "[kafka]\nbootstrap = 'k:9092'\n";
const SHOP: &str = "[pipeline.shop.source]\ntype = 'fake'\nurl = 'fake://x'\n";

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let c = read(&format!("{KAFKA}{SHOP}")).unwrap();
    let p = &c.pipelines[0];
    assert_eq!((p.name.as_str(), p.source_kind), ("shop", "fake"));
    assert_eq!(c.server.listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert!(!c.log.json && c.log.level == "info");
    assert_eq!((p.snapshot.mode, p.snapshot.parallel, p.snapshot.chunk_rows), (SnapshotMode::Initial, 2, 10_000));
    assert_eq!(p.topics.name, "{pipeline}.{schema}.{table}");
    assert_eq!((p.topics.partitions, p.topics.replication), (1, None));
    let f = &p.format;
    assert_eq!((f.values, f.decimal, f.time), (Values::Plain, DecimalMode::String, TimeMode::Iso));
    assert_eq!((f.binary, f.interval, f.hstore), (BinaryMode::Base64, IntervalMode::Iso, MapMode::Object));
    assert_eq!(f.zero_dates, ZeroDates::Text);
    assert!(f.tombstones && !f.schemas && !f.transaction);
    let Sink::Kafka(k) = &p.sink else { panic!() };
    assert_eq!(k.transactional_id("shop"), "seachange.shop");
    assert_eq!(k.state_topic("shop"), "__seachange.shop");
    assert_eq!(k.transaction_timeout, Duration::from_secs(60));
    assert_eq!(p.limits.commit_bytes, 16 << 20);
}

#[test]
fn debezium_changes_the_defaults_and_single_choices_change_those() {
    let c = read(&format!("{KAFKA}{SHOP}[pipeline.shop.format]\nvalues = 'debezium'\ntime = 'connect'\n")).unwrap();
    let f = &c.pipelines[0].format;
    assert_eq!((f.values, f.decimal, f.time), (Values::Debezium, DecimalMode::Precise, TimeMode::Connect));
    assert_eq!((f.interval, f.hstore, f.zero_dates), (IntervalMode::Numeric, MapMode::Json, ZeroDates::Null));
    assert_eq!(f.placeholder, "__debezium_unavailable_value");
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        [kafka]
        bootstrap = "a:1, [::1]:2"
        cluster = "east"
        properties = { "a.b" = 1, "c" = true, "d" = "${env:S}" }
        [server]
        listen = "off"
        [log]
        format = "json"
        level = "info,seachange=debug"
        [pipeline.a.source]
        type = "fake"
        url = "fake://"
        password = "${file:/pw}"
        snapshot = { mode = "only", parallel = 4, chunk_rows = 7 }
        [pipeline.a.topics]
        replication = 3
        settings = { cleanup.policy = "compact" }
        [pipeline.a.limits]
        batch_bytes = 65536
        commit_interval = "1s"
        [pipeline.b]
        source = { type = "fake", url = "fake://", snapshot = "never" }
        sink = { type = "file", path = "/out" }
        [pipeline.c]
        source = { type = "fake", url = "fake://" }
        sink = { type = "stdout" }
    "#;
    let outside = Fixed([("S".into(), "s3cret".into())].into(), [("/pw".into(), "pw\n".into())].into());
    let c = read_with(text, &outside).unwrap();
    let k = c.kafka.unwrap();
    assert_eq!(k.bootstrap, "a:1, [::1]:2");
    let seen: Vec<_> = k.properties.iter().map(|(k, v)| (k.as_str(), v.reveal())).collect();
    assert_eq!(seen, [("a.b", "1"), ("c", "true"), ("d", "s3cret")]);
    assert!(!format!("{:?}", k.properties).contains("s3cret"));
    assert_eq!(c.server.listen, None);
    let [a, b, d] = &c.pipelines[..] else { panic!() };
    assert_eq!((a.snapshot.mode, a.snapshot.parallel, a.snapshot.chunk_rows), (SnapshotMode::Only, 4, 7));
    assert_eq!(a.topics.settings["cleanup.policy"], "compact");
    assert_eq!(a.topics.replication, Some(3));
    assert_eq!((a.limits.batch_bytes, a.limits.commit_interval), (65536, Duration::from_secs(1)));
    assert!(matches!(&a.sink, Sink::Kafka(k) if k.transactional_id("a") == "east.a"));
    assert_eq!(b.snapshot.mode, SnapshotMode::Never);
    assert!(
        matches!(&b.sink, Sink::File { path, state } if path.to_str() == Some("/out") && state.to_str() == Some("/out.state"))
    );
    assert!(matches!(&d.sink, Sink::Stdout { state } if state.to_str() == Some("seachange-c.state")));
}

#[test]
fn dotted_properties_are_joined() {
    let text = format!("{KAFKA}[kafka.properties]\nssl.ca.location = '/ca'\n'ssl.key' = 'k'\n{SHOP}");
    let keys: Vec<String> = read(&text).unwrap().kafka.unwrap().properties.into_keys().collect();
    assert_eq!(keys, ["ssl.ca.location", "ssl.key"]);
}

/// Each case: the file, and what must stand in the one fault: path, what, remedy.
#[test]
fn each_fault_has_its_path_and_remedy() {
    let p = "pipeline.shop";
    let shop = |part: &str| format!("{KAFKA}{SHOP}{part}");
    let source = |line: &str| format!("{KAFKA}{SHOP}{line}\n");
    let cases: Vec<(String, String, &str, &str)> = vec![
        (SHOP.into(), "kafka".into(), "missing: the pipeline shop", "add [kafka]"),
        (KAFKA.into(), "pipeline".into(), "no pipeline", "init"),
        (format!("[kafka]\n{SHOP}"), "kafka.bootstrap".into(), "missing", "Brokers to ask first"),
        (format!("[kafka]\nbootstrap = 'k'\n{SHOP}"), "kafka.bootstrap".into(), "not a list", "host:port"),
        (format!("[kafka]\nbootstrap = 7\n{SHOP}"), "kafka.bootstrap".into(), "must be text, not a number", "quotes"),
        (format!("[kafka]\nbootstrap = ''\n{SHOP}"), "kafka.bootstrap".into(), "empty", "leave the line out"),
        (format!("{KAFKA}cluster = 'a b'\n{SHOP}"), "kafka.cluster".into(), "topic name", "letters"),
        (format!("{KAFKA}properties = {{ acks = 1 }}\n{SHOP}"), "kafka.properties.acks".into(), "own", "leave"),
        (format!("{KAFKA}properties = {{ a = [] }}\n{SHOP}"), "kafka.properties.a".into(), "not a list", "quotes"),
        (format!("{KAFKA}boostrap = 'x'\n{SHOP}"), "kafka.boostrap".into(), "unknown option", "`bootstrap`"),
        (format!("kafak = {{}}\n{KAFKA}{SHOP}"), "kafak".into(), "unknown table", "`kafka`"),
        (format!("server = 1\n{KAFKA}{SHOP}"), "server".into(), "must be a table", "[server]"),
        (shop("[server]\nlisten = 'x:1'\n"), "server.listen".into(), "not an address", "127.0.0.1:9464"),
        (shop("[log]\nformat = 'jsn'\n"), "log.format".into(), "possible values", "did you mean `json`"),
        (shop("[log]\nlevel = 'a=b=c'\n"), "log.level".into(), "not a log filter", "info"),
        (shop("[pipeline.shop.topic]\n"), format!("{p}.topic"), "unknown table", "`topics`"),
        (format!("{KAFKA}[pipeline.shop]\n"), format!("{p}.source"), "missing", "type, url"),
        (format!("{KAFKA}{SHOP}[pipeline.'a b'.source]\n"), "pipeline.\"a b\"".into(), "letters", "rename"),
        (source("tabels = []"), format!("{p}.source.tabels"), "unknown option", "url, password"),
        (source("snapshot = 'intial'"), format!("{p}.source.snapshot.mode"), "possible", "`initial`"),
        (source("snapshot_mode = 'never'"), format!("{p}.source.snapshot_mode"), "unknown", "snapshot = { mode"),
        (source("snapshot = { paralel = 1 }"), format!("{p}.source.snapshot.paralel"), "unknown", "`parallel`"),
        (source("snapshot = { parallel = 0 }"), format!("{p}.source.snapshot.parallel"), "bounds", "1 to 64"),
        (
            source("snapshot = { mode = 'never', parallel = 3 }"),
            format!("{p}.source.snapshot.parallel"),
            "no effect",
            "leave",
        ),
        (source("password = '${env:NO_SUCH}'"), format!("{p}.source.password"), "NO_SUCH is not set", "set NO_SUCH"),
        // The connector sees a stand-in for the url; that it does not like it is not reported.
        (
            format!("{KAFKA}[pipeline.shop.source]\ntype = 'fake'\nurl = '${{file:/no}}'"),
            format!("{p}.source.url"),
            "cannot be read",
            "readable",
        ),
        (
            format!("{KAFKA}[pipeline.shop.source]\ntype = 'fak'\n"),
            format!("{p}.source.type"),
            "no such connector",
            "`fake`",
        ),
        (
            format!("{KAFKA}[pipeline.shop.source]\nurl = 'fake://'\n"),
            format!("{p}.source.type"),
            "missing",
            "connector",
        ),
        (shop("[pipeline.shop.topics]\nname = '{schma}.x'\n"), format!("{p}.topics.name"), "placeholder", "`{schema}`"),
        (shop("[pipeline.shop.topics]\npartitions = 0\n"), format!("{p}.topics.partitions"), "bounds", "from 1"),
        (
            shop("[pipeline.shop.topics]\npartitions = '3'\n"),
            format!("{p}.topics.partitions"),
            "whole number",
            "without quotes",
        ),
        (
            shop("[pipeline.shop.topics]\nmessage = '{pipeline}.transaction'\n"),
            format!("{p}.topics.message"),
            "metadata too",
            "own",
        ),
        (
            shop("[pipeline.shop.topics]\ntransaction = 'tx'\n"),
            format!("{p}.topics.transaction"),
            "no effect",
            "format.transaction = true",
        ),
        (shop("[pipeline.shop.format]\nvalues = 'debezum'\n"), format!("{p}.format.values"), "possible", "`debezium`"),
        (
            shop("[pipeline.shop.format]\nvalues = 'debezium'\nschemas = true\nzero_dates = 'text'\n"),
            format!("{p}.format.zero_dates"),
            "declare dates to be numbers",
            "isostring",
        ),
        (
            shop("[pipeline.shop.format]\nplaceholder = 'x'\n"),
            format!("{p}.format.placeholder"),
            "no effect",
            "debezium",
        ),
        (
            shop("[pipeline.shop.format]\nschemas = 1\n"),
            format!("{p}.format.schemas"),
            "true or false",
            "without quotes",
        ),
        (
            shop("[pipeline.shop.sink]\npath = '/x'\n"),
            format!("{p}.sink.path"),
            "does not belong to the `kafka`",
            "sink.type",
        ),
        (shop("[pipeline.shop.sink]\ntype = 'file'\n"), format!("{p}.sink.path"), "missing", "appends"),
        (
            shop("[pipeline.shop.limits]\ncommit_bytes = '64MB'\n"),
            format!("{p}.limits.commit_bytes"),
            "not a size",
            "64MiB",
        ),
        (
            shop("[pipeline.shop.limits]\ncommit_bytes = '1GiB'\n"),
            format!("{p}.limits.txn_bytes_max"),
            "smaller",
            "as large",
        ),
        (
            shop("[pipeline.shop.limits]\ncommit_interval = '1 day'\n"),
            format!("{p}.limits.commit_interval"),
            "not a duration",
            "\"10s\"",
        ),
        (
            shop("[pipeline.shop.limits]\ncommit_interval = 5\n"),
            format!("{p}.limits.commit_interval"),
            "must be a duration",
            "\"10s\"",
        ),
        (
            shop("[pipeline.shop.limits]\ncommit_interval = '40s'\n"),
            format!("{p}.limits.commit_interval"),
            "half",
            "lengthen",
        ),
    ];
    for (text, path, what, fix) in cases {
        let e = read(&text).err().unwrap_or_else(|| panic!("no fault in:\n{text}"));
        assert_eq!(e.faults.len(), 1, "{text}\n{e}");
        let f = &e.faults[0].1;
        assert!(f.path == path && f.what.contains(what) && f.fix.contains(fix), "{path} / {what} / {fix}\ngot: {f}");
        assert!(e.faults[0].0.is_some() || ["kafka", "pipeline"].contains(&path.as_str()), "no line: {f}");
    }
}

#[test]
fn nobody_can_write_the_stand_in_for_an_unreadable_value() {
    let e = read(&format!("[kafka]\nbootstrap = \"\\u0000unreadable\"\n{SHOP}")).err().unwrap();
    assert!(e.faults.len() == 1 && e.faults[0].1.what.contains("NUL"), "{e}");
}

#[test]
fn the_example_in_the_documentation_is_right() {
    let page = reference::page();
    let toml = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // This test's connector has no tables.
    let toml = toml
        .replace("tables = [\"public.*\"]\n", "")
        .replace("\"postgres\"", "'fake'")
        .replace("postgres://", "fake://");
    let outside = Fixed([("PGPASSWORD".into(), "x".into())].into(), BTreeMap::new());
    let config = read_with(&toml, &outside).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.pipelines[0].name, "shop");
}

#[test]
fn what_two_pipelines_may_not_share() {
    for (part, says) in [
        ("topics = { name = 'x.{table}' }", "writes to the same topics"),
        ("sink = { type = 'file', path = '/x' }", "writes to the same file"),
        ("sink = { type = 'stdout' }", "writes to the same standard output"),
        ("topics = { message = 'm' }", "writes to the same topics"),
    ] {
        let source = "source = { type = 'fake', url = 'fake://' }";
        let e =
            read(&format!("{KAFKA}[pipeline.a]\n{source}\n{part}\n[pipeline.b]\n{source}\n{part}\n")).err().unwrap();
        assert!(e.faults.iter().all(|(_, f)| f.path.starts_with("pipeline.b.")), "{e}");
        assert!(e.faults[0].1.what.contains(says), "{e}");
    }
    // The database tells them apart when the name says it; here both have the same.
    let t = "topics = { name = '{database}.{pipeline}.{table}' }\nsource = { type = 'fake', url = 'fake://' }\n";
    assert!(read(&format!("{KAFKA}[pipeline.a]\n{t}[pipeline.b]\n{t}")).is_ok());
}

#[test]
fn all_faults_at_once_with_lines() {
    let e = read("[kafka]\nbootstrap = 1\nclster = 'x'\n[pipeline.shop.source]\ntype = 'fake'\nurl = 'no'\n[pipeline.shop.limits]\ncommit_bytes = 'much'\n")
        .err()
        .unwrap();
    let lines: Vec<_> = e.faults.iter().map(|(l, f)| (l.unwrap(), f.path.as_str())).collect();
    assert_eq!(
        lines,
        [
            (2, "kafka.bootstrap"),
            (3, "kafka.clster"),
            (6, "pipeline.shop.source.url"),
            (8, "pipeline.shop.limits.commit_bytes")
        ]
    );
    assert!(e.to_string().starts_with("test.toml: 4 faults\n  line 2: kafka.bootstrap: must be text"), "{e}");
}

/// A secret written into any value at all, or read by reference there, does not come out again in a fault.
#[test]
fn no_value_is_ever_repeated() {
    const MARK: &str = "hunter2-hunter2";
    let outside = Fixed([("S".into(), MARK.into())].into(), BTreeMap::new());
    let mut paths: Vec<String> = options::OPTIONS.iter().map(|o| o.path.replace("NAME", "shop")).collect();
    paths.extend(["pipeline.shop.source.url", "kafka.nonsense", "pipeline.shop.source.nonsense"].map(String::from));
    let values = [
        MARK.to_owned(),
        "${env:S}".into(),
        format!("{{{MARK}}}"),
        format!("${{{MARK}}}"),
        format!("${{env:S}} {MARK}=${{"),
    ];
    let mut faulty = 0;
    for path in &paths {
        for value in &values {
            for text in [format!("{path} = '{value}'"), format!("{path} = ['{value}']"), format!("{path} = '{value}")] {
                let base = "kafka.bootstrap = 'k:1'\npipeline.shop.source.type = 'fake'\npipeline.shop.source.url = 'fake://'\n";
                let base: String =
                    base.lines().filter(|l| !l.starts_with(&format!("{path} "))).map(|l| format!("{l}\n")).collect();
                if let Err(e) = read_with(&format!("{base}{text}\n"), &outside) {
                    faulty += 1;
                    let said = format!("{e} {e:?}");
                    assert!(!said.contains(MARK), "{text}: {said}");
                }
            }
        }
    }
    assert!(faulty > 300, "{faulty} of the files were faulty");
}

#[test]
fn any_text_is_read_without_panic() {
    use proptest::prelude::*;
    let word = prop::sample::select(vec![
        "[",
        "]",
        "kafka",
        ".",
        "pipeline",
        "shop",
        "source",
        "=",
        "\n",
        "\"",
        "'",
        "{",
        "}",
        "${env:",
        "$${",
        ",",
        "1",
        "1e9",
        "true",
        "1979-05-27",
        "é",
        "snapshot",
        "type",
        "limits",
        "#",
        "0x",
        "-",
        "\\u",
    ]);
    proptest!(|(words in prop::collection::vec(word, 0..40))| {
        if let Err(e) = read(&words.concat()) {
            prop_assert!(!e.faults.is_empty());
        }
    });
}

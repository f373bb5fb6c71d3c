//! A row of MySQL or MariaDB is the same bytes whether a snapshot has read it or the stream has brought it.

use crate::{
    mysql::MyStage,
    raw::field,
    run::{SOON, statements},
};
use mysql_async::prelude::Queryable;
use seachange_testkit::{Config, Daemon, eventually, unique};
use std::collections::BTreeMap;

const EVERY: &str = include_str!("../../connectors/mysql/tests/workloads/every-type.sql");
const MYSQL: &str = include_str!("../../connectors/mysql/tests/workloads/mysql-only.sql");
const MARIADB: &str = include_str!("../../connectors/mysql/tests/workloads/mariadb-only.sql");
const VECTORS: &str = include_str!("../../connectors/mysql/tests/workloads/mariadb-vectors.sql");
/// For logs that name columns.
const FULL: &str = include_str!("../../connectors/mysql/tests/workloads/full-metadata.sql");
const MARIADB_FULL: &str = include_str!("../../connectors/mysql/tests/workloads/mariadb-full-metadata.sql");

/// Every combination of which dates and binary values are told apart.
const FORMATS: [(&str, &[(&str, &str)]); 4] = [
    ("plain", &[]),
    ("debezium", &[]),
    ("plain", &[("zero_dates", "null"), ("binary", "hex"), ("decimal", "precise"), ("time", "microseconds")]),
    ("debezium", &[("zero_dates", "text"), ("time", "isostring"), ("decimal", "string")]),
];

/// One pipeline a format, each with a file.
struct Run {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Run {
    async fn start(stage: &MyStage, snapshot: &str) -> Run {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        for (i, (values, options)) in FORMATS.iter().enumerate() {
            let name = unique(&format!("f{i}"));
            config = stage.pipeline(config, &name, snapshot, values);
            for (option, value) in *options {
                config = config.set(&format!("pipeline.{name}.format.{option}"), *value);
            }
            let path = dir.path().join(i.to_string()).to_string_lossy().into_owned();
            config = config
                .set(&format!("pipeline.{name}.sink.type"), "file")
                .set(&format!("pipeline.{name}.sink.path"), path);
        }
        Run { daemon: stage.start(&config).await, dir }
    }

    /// The lines that are whole: the daemon may be in the midst of writing the last one.
    fn lines(&self, format: usize) -> Vec<String> {
        let text = std::fs::read(self.dir.path().join(format.to_string())).unwrap_or_default();
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&text[..whole]).expect("a sink of text");
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for all rows; gives key and new row of each, by table, in an order of their own.
    async fn rows(&self, format: usize, op: &str, count: usize) -> BTreeMap<String, Vec<String>> {
        let wanted = |line: &String| {
            let value = field(line, "value").unwrap_or("null");
            let table = field(value, "source").and_then(|s| field(s, "table"));
            field(value, "op") == Some(op) && table.is_some_and(|t| t != "\"done\"")
        };
        let lines = eventually(SOON, &format!("{count} rows"), async || {
            let found: Vec<String> = self.lines(format).into_iter().filter(wanted).collect();
            if found.len() >= count { Ok(found) } else { Err(format!("{} rows", found.len())) }
        })
        .await;
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let value = field(&line, "value").expect("a value");
            let table = field(field(value, "source").expect("a source"), "table").expect("a table").to_owned();
            let key = field(&line, "key").unwrap_or("none");
            rows.entry(table).or_default().push(format!("{key} {}", field(value, "after").expect("a row")));
        }
        rows.values_mut().for_each(|r| r.sort());
        rows
    }
}

async fn same_bytes(kind: &'static str) {
    for stage in MyStage::every(kind).await {
        let version: Option<String> = stage.conn().await.query_first("SELECT VERSION()").await.expect("a version");
        let vectors = if version.is_some_and(|v| v.starts_with("11.8")) { VECTORS } else { "" };
        let (own, own_full) = if kind == "mysql" { (MYSQL, "") } else { (MARIADB, MARIADB_FULL) };
        let mut workload = format!("{EVERY}{own}{vectors}");
        if stage.names_columns {
            workload += FULL;
            workload += own_full;
        }
        let tables = statements(&workload).iter().filter(|s| s.contains("CREATE TABLE ")).count();
        let mut streamed = Run::start(&stage, "never").await;
        stage.script(&workload).await;
        stage.script("INSERT INTO done VALUES (1)").await;
        let last = |l: &String| l.contains("\"table\":\"done\"");
        for format in 0..FORMATS.len() {
            eventually(SOON, "the last row", async || {
                if streamed.lines(format).iter().any(last) { Ok(()) } else { Err("not yet") }
            })
            .await;
        }
        let mut read = Run::start(&stage, "initial").await;
        let mut faults = Vec::new();
        for (format, choices) in FORMATS.iter().enumerate() {
            let stream = streamed.rows(format, "\"c\"", 1).await;
            let count = stream.values().map(Vec::len).sum();
            let snapshot = read.rows(format, "\"r\"", count).await;
            assert_eq!(stream.len(), tables, "tables: {:?}", stream.keys());
            for (table, rows) in &stream {
                let other = snapshot.get(table).map(Vec::as_slice).unwrap_or_default();
                if rows == other {
                    continue;
                }
                let differ = rows.iter().zip(other).find(|(a, b)| a != b);
                let short = |s: &str| s.chars().take(600).collect::<String>();
                let differ = differ.map(|(a, b)| format!("\n  streamed {}\n  read     {}", short(a), short(b)));
                let counts = format!("{} and {} rows", rows.len(), other.len());
                faults.push(format!("{choices:?} {table}: {}", differ.unwrap_or(counts)));
            }
            let all = || stream.values().flatten();
            assert!(format != 0 || !all().any(|r| r.contains("\"1970-01-01\"")), "a day that nobody wrote");
        }
        assert!(faults.is_empty(), "{kind}: {}", faults.join("\n"));
        assert!(streamed.daemon.terminate(SOON).await.success() && read.daemon.terminate(SOON).await.success());
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql() {
    same_bytes("mysql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb() {
    same_bytes("mariadb").await;
}

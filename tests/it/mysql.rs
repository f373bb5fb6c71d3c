//! A MySQL or MariaDB of the tests: a database, a daemon that captures it, what it published.
//!
//! `SEACHANGE_TEST_MYSQL` and `SEACHANGE_TEST_MARIADB` hold URLs of an account that may do everything, separated by blanks.
//! The database has a table `done`, always captured: a row that is put there after everything else comes last.

use crate::{golden::Seen, run::SOON};
use mysql_async::{Conn, Opts, prelude::Queryable};
use seachange_testkit::{Config, Daemon, Kafka, eventually, servers, skip, topic, unique};
use std::sync::atomic::{AtomicI32, Ordering};

/// What the daemon is started with and reads from.
pub struct MyStage {
    /// `mysql` or `mariadb`.
    pub kind: &'static str,
    /// The broker.
    pub kafka: Kafka,
    /// The test's database.
    pub db: String,
    /// Does its log name columns, or is the catalog asked for them?
    pub names_columns: bool,
    /// Does it give transactions GTIDs?
    gtids: bool,
    url: String,
    marks: AtomicI32,
}

impl MyStage {
    /// One for every server of a kind, with an empty database. Empty: the test is skipped.
    pub async fn every(kind: &'static str) -> Vec<MyStage> {
        let name = format!("SEACHANGE_TEST_{}", kind.to_uppercase());
        let urls = std::env::var(&name).unwrap_or_default();
        if urls.is_empty() {
            skip(&format!("needs a server: {name} names none"));
        }
        let mut all = Vec::new();
        for url in urls.split_whitespace() {
            let Some(kafka) = servers::kafka(1).await else { return Vec::new() };
            let (db, url) = (unique("t"), url.to_owned());
            let mut stage =
                MyStage { kind, kafka, db, names_columns: true, gtids: true, url, marks: AtomicI32::new(0) };
            stage.names_columns = stage.setting("binlog_row_metadata").await == "FULL";
            stage.gtids = kind != "mysql" || stage.setting("gtid_mode").await == "ON";
            stage.sql(&format!("CREATE DATABASE {} CHARACTER SET utf8mb4", stage.db)).await;
            stage.sql(&format!("CREATE TABLE {}.done (n int PRIMARY KEY)", stage.db)).await;
            all.push(stage);
        }
        all
    }

    /// A session in the test's database.
    pub async fn conn(&self) -> Conn {
        let url = self.url.replacen("mariadb://", "mysql://", 1);
        let opts = Opts::from_url(&url).unwrap_or_else(|e| panic!("the server's URL: {e}"));
        Conn::new(opts).await.unwrap_or_else(|e| panic!("{}: {e}", self.kind))
    }

    async fn setting(&self, name: &str) -> String {
        let value: Option<String> =
            self.conn().await.query_first(format!("SELECT @@GLOBAL.{name}")).await.unwrap_or_else(|e| panic!("{e}"));
        value.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Runs one statement.
    pub async fn sql(&self, sql: &str) {
        let mut conn = self.conn().await;
        conn.query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        conn.disconnect().await.unwrap_or_else(|e| panic!("the session's end: {e}"));
    }

    /// Runs statements one after another in one session.
    pub async fn script(&self, sql: &str) {
        self.script_before(sql, &[]).await;
    }

    /// The same, before pipelines that follow. If the log does not name columns, a table is altered only when they have read
    /// what was there before: of a column that is added and altered again unseen nobody knows what it was in between.
    pub async fn script_before(&self, sql: &str, pipelines: &[&str]) {
        let mut conn = self.conn().await;
        conn.query_drop(format!("USE {}", self.db)).await.expect("the database");
        for statement in crate::run::statements(sql) {
            let alters = ["ALTER", "RENAME", "DROP"].iter().any(|word| statement.starts_with(word));
            for pipeline in pipelines.iter().filter(|_| alters && !self.names_columns) {
                self.settled_by(pipeline).await;
            }
            conn.query_drop(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        conn.disconnect().await.unwrap_or_else(|e| panic!("the session's end: {e}"));
    }

    /// One more pipeline, with every table of the database.
    pub fn pipeline(&self, config: Config, name: &str, snapshot: &str, values: &str) -> Config {
        let at = |path: &str| format!("pipeline.{name}.{path}");
        config
            .set(&at("source.type"), self.kind)
            // The account that may do what capturing needs, and nothing else.
            .set(&at("source.url"), self.url.replacen("root:root", "cdc:cdc", 1))
            .set(&at("source.tables"), vec![format!("{}.*", self.db)])
            .set(&at("source.snapshot"), snapshot)
            .set(&at("format.values"), values)
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self, config: &Config) -> Daemon {
        let mut daemon = Daemon::start(config);
        daemon.ready(SOON).await;
        daemon
    }

    /// Waits until all that was committed so far has been published by this pipeline.
    pub async fn settled_by(&self, pipeline: &str) {
        let n = self.marks.fetch_add(1, Ordering::Relaxed);
        self.sql(&format!("INSERT INTO {}.done VALUES ({n})", self.db)).await;
        let topic = format!("{pipeline}.{}.done", self.db);
        eventually(SOON, &format!("the last row in {topic}"), async || {
            let records = topic::read(&self.kafka.bootstrap, &topic).await;
            if records.iter().any(|r| r.key_json()["n"] == n) { Ok(()) } else { Err(format!("{} rows", records.len())) }
        })
        .await;
    }

    /// All that a pipeline published but for `done`, as if the database were called `types`, and as if its streamed
    /// transactions had GTIDs.
    pub async fn published(&self, name: &str) -> Vec<Seen> {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("UTF-8").replace(&self.db, "types");
            if self.gtids || text.contains("\"snapshot\":\"true\"") {
                return text;
            }
            text.replace("\"gtid\":null", "\"gtid\":\"none\"")
        };
        let records = topic::read_all(&self.kafka.bootstrap, &format!("{name}.{}.", self.db)).await.into_iter();
        let seen = records.filter(|r| !r.topic.ends_with(".done")).map(|r| Seen {
            topic: r.topic.replace(&self.db, "types"),
            key: r.key.map(text),
            value: r.value.map(text),
            headers: r.headers.into_iter().map(|(k, v)| (k, v.map(text).unwrap_or_default())).collect(),
        });
        seen.collect()
    }

    /// Ends it: nothing is left on the server.
    pub async fn end(self) {
        self.sql(&format!("DROP DATABASE {}", self.db)).await;
    }
}

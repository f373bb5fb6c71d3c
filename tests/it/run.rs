//! One test's stage: a database of its own, a daemon, and what it published.
//!
//! The database has a table `public.done`, always captured, outside any publication of the test's own making. A row put
//! there after everything else comes last: when it is read, all that was committed before it has been published, once
//! or more often, and what is counted then is final.

use seachange_testkit::{Config, Daemon, Database, Kafka, Record, Source, eventually, servers, topic, unique};
use serde_json::Value;
use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

/// Deadline for anything that is expected to happen.
pub const SOON: Duration = Duration::from_secs(60);

/// What the daemon is started with and reads from.
pub struct Stage {
    /// The test's database. Before the servers' handles: it is dropped first.
    pub db: Database,
    /// The broker.
    pub kafka: Kafka,
    /// A name of this test's own: its pipeline, slot and publication, and the prefix of its topics.
    pub name: String,
    marks: AtomicI32,
    _postgres: Source,
}

impl Stage {
    /// Servers, and a database prepared with `sql` as the capture account. `None`: the test is skipped.
    pub async fn set(version: u32, sql: &str) -> Option<Stage> {
        let postgres = servers::postgres(version).await?;
        let kafka = servers::kafka(1).await?;
        let db = postgres.database().await;
        let stage = Stage { db, kafka, name: unique("it"), marks: AtomicI32::new(0), _postgres: postgres };
        stage.db.run("CREATE TABLE public.done (n int PRIMARY KEY)").await;
        stage.sql(sql).await;
        Some(stage)
    }

    /// Runs each statement by itself, as psql would.
    pub async fn sql(&self, sql: &str) {
        let client = self.db.connect().await;
        for statement in statements(sql) {
            client.batch_execute(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        }
    }

    /// A configuration with one pipeline of the stage's name. `public.done` is captured as well.
    pub fn config(&self, tables: &[&str]) -> Config {
        self.pipeline(Config::kafka(&self.kafka.bootstrap), &self.name, tables)
    }

    /// One more pipeline of this name.
    pub fn pipeline(&self, config: Config, name: &str, tables: &[&str]) -> Config {
        let tables: Vec<&str> = tables.iter().copied().chain(["public.done"]).collect();
        config.postgres(name, &self.db.url, &tables)
    }

    /// A path of the stage's own pipeline: `source.snapshot`.
    pub fn at(&self, path: &str) -> String {
        format!("pipeline.{}.{path}", self.name)
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
        self.db.run(&format!("INSERT INTO public.done VALUES ({n})")).await;
        let topic = format!("{pipeline}.public.done");
        eventually(SOON, &format!("the last row in {topic}"), async || {
            let records = topic::read(&self.kafka.bootstrap, &topic).await;
            if records.iter().any(|r| r.key_json()["n"] == n) { Ok(()) } else { Err(format!("{} rows", records.len())) }
        })
        .await;
    }

    /// Waits until all that was committed so far has been published.
    pub async fn settled(&self) {
        self.settled_by(&self.name).await;
    }

    /// All records of a topic, named without its prefix: `public.t`, `transaction`, `message`.
    pub async fn read(&self, topic: &str) -> Vec<Record> {
        topic::read(&self.kafka.bootstrap, &format!("{}.{topic}", self.name)).await
    }

    /// Waits for that many records at least.
    pub async fn wait(&self, topic: &str, count: usize) -> Vec<Record> {
        topic::wait(&self.kafka.bootstrap, &format!("{}.{topic}", self.name), count, SOON).await
    }

    /// After [`Stage::settled`]: the records of a topic in short, see [`brief`].
    pub async fn story(&self, topic: &str) -> Vec<String> {
        self.settled().await;
        self.read(topic).await.iter().map(brief).collect()
    }
}

/// `op key before after`, a tombstone as `- key`.
pub fn brief(r: &Record) -> String {
    match r.value_json() {
        Value::Null => format!("- {}", r.key_json()),
        v => format!("{} {} {} {}", v["op"].as_str().unwrap_or("?"), r.key_json(), v["before"], v["after"]),
    }
}

/// Statements, without comments. Strings may hold neither `;` nor a line that begins with `--`.
pub fn statements(sql: &str) -> Vec<String> {
    let code: Vec<&str> = sql.lines().filter(|l| !l.trim_start().starts_with("--")).collect();
    code.join("\n").split(';').map(str::trim).filter(|s| !s.is_empty()).map(|s| format!("{s};")).collect()
}

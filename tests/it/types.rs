//! Every type and every kind of change, as Debezium published them for the same workload.

use crate::{
    golden::{Recording, Seen, differences},
    raw::{field, names},
    run::{SOON, Stage},
};
use seachange_testkit::{Config, topic, unique};
use std::collections::BTreeMap;

/// One row of every kind of value, then the changes that trip CDC tools up.
pub const WORKLOAD: &str = include_str!("../../connectors/postgres/tests/workloads/postgres-types.sql");

/// A pipeline that writes what the recording has. Its publication is the superuser's.
fn pipeline(stage: &Stage, config: Config, name: &str, recording: Recording) -> Config {
    let snapshot = if recording == Recording::Snapshot { "initial" } else { "never" };
    let config = stage
        .pipeline(config, name, &["types.*"])
        .set(&format!("pipeline.{name}.source.publication"), "everything")
        .set(&format!("pipeline.{name}.source.snapshot"), snapshot)
        .set(&format!("pipeline.{name}.format.values"), "debezium");
    if recording != Recording::StreamStrings {
        return config;
    }
    config
        .set(&format!("pipeline.{name}.format.decimal"), "string")
        .set(&format!("pipeline.{name}.format.time"), "isostring")
        .set(&format!("pipeline.{name}.format.binary"), "base64")
}

async fn published(stage: &Stage, name: &str) -> Vec<Seen> {
    stage.settled_by(name).await;
    // The recording's database is called `lab`.
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&stage.db.name, "lab");
    let records = topic::read_all(&stage.kafka.bootstrap, &format!("{name}.types.")).await.into_iter();
    let seen = records.map(|r| Seen {
        topic: r.topic,
        key: r.key.map(text),
        value: r.value.map(text),
        headers: r.headers.into_iter().map(|(k, v)| (k, v.map(text).unwrap_or_default())).collect(),
    });
    seen.collect()
}

/// Places where the fields stand in another order than in the recording.
pub fn order_differences(recording: Recording, ours: &[Seen], prefix: &str) -> Vec<String> {
    let mut theirs: BTreeMap<String, Vec<Vec<(usize, String)>>> = BTreeMap::new();
    let until_headers = |text: &str| {
        let mut all = names(text);
        all.truncate(all.iter().position(|n| *n == (1, "headers".to_owned())).unwrap_or(all.len()));
        all
    };
    for line in recording.text().lines() {
        let json: serde_json::Value = serde_json::from_str(line).expect("a recorded line");
        let table = json["topic"].as_str().expect("a topic").strip_prefix("dbz.types.").expect("a table").to_owned();
        theirs.entry(table).or_default().push(until_headers(line));
    }
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for seen in ours {
        let table = seen.topic.strip_prefix(prefix).expect("our topic");
        let value = seen.value.as_deref().unwrap_or_default();
        // MySQL's truncates and two tables of MariaDB's snapshot are in no recording.
        if field(value, "op") == Some("\"t\"") || !theirs.contains_key(table) {
            continue;
        }
        let n = at.entry(table.to_owned()).or_default();
        let or_null = |part: &Option<String>| part.clone().unwrap_or("null".into());
        let mine = names(&format!(r#"{{"topic":0,"key":{},"value":{}}}"#, or_null(&seen.key), or_null(&seen.value)));
        let recorded = theirs.get(table).and_then(|t| t.get(*n));
        // What `ident` differs in is told by the comparer.
        // So is the generated column that only Debezium's snapshot has.
        let told = table == "ident" || (recording == Recording::Snapshot && table == "Odd__Name.s");
        if !told && recorded != Some(&mine) {
            found.push(format!("{table} record {n}: ours {mine:?}, recorded {recorded:?}"));
        }
        *n += 1;
    }
    found
}

/// Streams the workload, then reads it by a snapshot; both as the recordings of PostgreSQL 15 have it.
async fn as_recorded(version: u32) {
    let Some(stage) = Stage::set(version, "").await else { return };
    let admin = stage.db.admin().await;
    admin.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.expect("a publication");
    let (defaults, strings, read) = (unique("d"), unique("s"), unique("r"));
    let kafka = Config::kafka(&stage.kafka.bootstrap);
    let config = pipeline(&stage, kafka.clone(), &defaults, Recording::Stream);
    let config = pipeline(&stage, config, &strings, Recording::StreamStrings);
    let mut faults = Vec::new();
    let mut compare = |what: &str, recording, ours: &[Seen], name: &str| {
        let prefix = format!("{name}.types.");
        let found =
            differences(recording, ours, &prefix).into_iter().chain(order_differences(recording, ours, &prefix));
        faults.extend(found.map(|f| format!("{what}: {f}")));
    };
    let mut daemon = stage.start(&config).await;
    stage.sql(WORKLOAD).await;
    compare("stream", Recording::Stream, &published(&stage, &defaults).await, &defaults);
    compare("strings", Recording::StreamStrings, &published(&stage, &strings).await, &strings);
    assert!(daemon.terminate(SOON).await.success());

    let mut daemon = stage.start(&pipeline(&stage, kafka, &read, Recording::Snapshot)).await;
    daemon.said("snapshot is complete", SOON).await;
    compare("snapshot", Recording::Snapshot, &published(&stage, &read).await, &read);
    drop(daemon);
    assert!(faults.is_empty(), "PostgreSQL {version}: {} differences\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_13_as_recorded() {
    as_recorded(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15_as_recorded() {
    as_recorded(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18_as_recorded() {
    as_recorded(18).await;
}

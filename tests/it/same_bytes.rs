//! A row is the same bytes whether a snapshot has read it or the stream has brought it.

use crate::{
    raw::field,
    run::{SOON, Stage},
    types::WORKLOAD,
};
use seachange_testkit::{Record, eventually, topic, unique};
use std::collections::BTreeMap;

/// Every table of the workload ends with rows, and each row was written under the table's last shape.
const REST: &str = "
DELETE FROM types.evolve;
INSERT INTO types.evolve VALUES (100, 'x'), (101, NULL);
INSERT INTO types.toast SELECT i, 'v', string_agg(md5((i * j)::text), '') FROM generate_series(1, 2) i, generate_series(1, 300) j GROUP BY i;
INSERT INTO types.keys VALUES (7, 'sept', 70), (8, '', NULL);
INSERT INTO types.nokey VALUES (5, 'five'), (NULL, NULL);
INSERT INTO types.ident VALUES (7, 'c7', 7);
";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Key and `after` of the records with this `op`.
fn rows(records: &[Record], op: &str) -> Vec<(String, String)> {
    let with = records.iter().filter(|r| r.op() == op);
    let row = |r: &Record| {
        let key = r.key.as_deref().map_or("no key", text).to_owned();
        (key, field(text(r.value.as_deref().expect("a value")), "after").expect("after").to_owned())
    };
    with.map(row).collect()
}

async fn same_bytes(version: u32) {
    let Some(stage) = Stage::set(version, "CREATE SCHEMA types").await else { return };
    let kinds = ["plain", "debezium"];
    let start = async |snapshot: &str| {
        let names = kinds.map(unique);
        let mut config = seachange_testkit::Config::kafka(&stage.kafka.bootstrap);
        for (name, values) in names.iter().zip(kinds) {
            config = stage
                .pipeline(config, name, &["types.*"])
                .set(&format!("pipeline.{name}.source.snapshot.mode"), snapshot)
                .set(&format!("pipeline.{name}.source.publication"), "everything")
                .set(&format!("pipeline.{name}.format.values"), values);
        }
        (stage.start(&config).await, names)
    };
    stage.db.admin().await.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.expect("a publication");
    let (mut daemon, streamed) = start("never").await;
    stage.sql(WORKLOAD).await;
    stage.sql(REST).await;
    for name in &streamed {
        stage.settled_by(name).await;
    }
    assert!(daemon.terminate(SOON).await.success());
    let (_daemon, read) = start("initial").await;
    let client = stage.db.connect().await;
    let (mut compared, mut faults) = (0, Vec::new());
    let tables = client
        .query("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'types'::regnamespace", &[])
        .await
        .expect("the tables");
    for table in tables {
        let table: String = table.get(0);
        let quoted = format!("types.\"{}\"", table.replace('"', "\"\""));
        let count: i64 = client.query_one(&format!("SELECT count(*) FROM {quoted}"), &[]).await.expect("count").get(0);
        let part: String =
            table.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        for ((read, streamed), values) in read.iter().zip(&streamed).zip(kinds) {
            let of = |name: &str| format!("{name}.types.{part}");
            let snapshot = eventually(SOON, &format!("the {count} rows of {quoted}"), async || {
                let found = rows(&topic::read(&stage.kafka.bootstrap, &of(read)).await, "r");
                if found.len() as i64 == count { Ok(found) } else { Err(format!("{} rows", found.len())) }
            })
            .await;
            let mut stream: BTreeMap<(String, String), usize> = BTreeMap::new();
            for row in rows(&topic::read(&stage.kafka.bootstrap, &of(streamed)).await, "c") {
                *stream.entry(row).or_default() += 1;
            }
            for row in snapshot {
                compared += 1;
                if !stream.contains_key(&row) {
                    let same_key: Vec<_> = stream.keys().filter(|(k, _)| *k == row.0).map(|(_, v)| v).collect();
                    faults.push(format!("{table} {values} {}:\n  read     {}\n  streamed {same_key:?}", row.0, row.1));
                }
            }
        }
    }
    assert!(compared >= 60, "only {compared} rows were compared");
    assert!(faults.is_empty(), "PostgreSQL {version}: {}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_13() {
    same_bytes(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15() {
    same_bytes(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18() {
    same_bytes(18).await;
}

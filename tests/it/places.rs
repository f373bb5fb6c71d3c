//! Where records go: topics, partitions, files, several pipelines in one process.

use crate::run::{SOON, Stage};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use seachange_testkit::{Config, Daemon, eventually, topic, unique};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_to_the_partitions_that_java_clients_choose() {
    let Some(stage) = Stage::set(
        15,
        "CREATE TABLE t (id text PRIMARY KEY); CREATE TABLE k (v int); CREATE SCHEMA c; CREATE TABLE c.keyless (v int)",
    )
    .await
    else {
        return;
    };
    let config = stage.config(&["public.*"]).set(&stage.at("topics.partitions"), 7);
    let compacted = unique("compacted");
    let config = stage.pipeline(config, &compacted, &["c.*"]);
    let config = config.set(&format!("pipeline.{compacted}.topics.settings.\"cleanup.policy\""), "compact");
    let mut daemon = stage.start(&config).await;
    stage.sql("INSERT INTO t SELECT repeat('x', i) || i FROM generate_series(1, 60) i; INSERT INTO k SELECT generate_series(1, 30)").await;
    stage.settled().await;
    let ours = stage.read("public.t").await;
    assert_eq!(ours.len(), 60);
    // librdkafka's own murmur2 stands for the Java client's.
    let name = unique("murmur");
    let client =
        || ClientConfig::new().set("bootstrap.servers", &stage.kafka.bootstrap).set("partitioner", "murmur2").clone();
    let admin: AdminClient<DefaultClientContext> = client().create().expect("an admin client");
    let made = admin.create_topics([&NewTopic::new(&name, 7, TopicReplication::Fixed(1))], &AdminOptions::new()).await;
    assert!(made.expect("an answer").iter().all(Result::is_ok));
    let producer: BaseProducer = client().create().expect("a producer");
    for r in &ours {
        producer.send(BaseRecord::to(&name).key(r.key.as_ref().expect("a key")).payload("")).expect("room");
    }
    producer.flush(SOON).expect("all sent");
    let theirs: BTreeMap<_, _> =
        topic::read(&stage.kafka.bootstrap, &name).await.into_iter().map(|r| (r.key, r.partition)).collect();
    assert_eq!(theirs.len(), 60);
    for r in &ours {
        assert_eq!(theirs.get(&r.key), Some(&r.partition), "{:?}", r.key);
    }
    let keyless = stage.read("public.k").await;
    let values: Vec<_> = keyless.iter().map(|r| r.value_json()["after"]["v"].as_i64().expect("v")).collect();
    assert_eq!(values, (1..=30).collect::<Vec<_>>(), "in one partition, in order");
    assert!(keyless.iter().all(|r| r.partition == keyless[0].partition));
    // A compacted topic refuses records without key: the error says what to do.
    stage.sql("INSERT INTO c.keyless VALUES (1)").await;
    let said = daemon.said("takes no record without key", SOON).await;
    assert!(said.contains(&format!("{compacted}.c.keyless")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_a_hundred_new_tables() {
    const TABLES: usize = 100;
    let each = |sql: &str| (0..TABLES).map(|i| sql.replace('?', &i.to_string())).collect::<Vec<_>>().join(";");
    let Some(stage) = Stage::set(15, &each("CREATE TABLE t? (id int PRIMARY KEY)")).await else { return };
    let config = stage.config(&["public.*"]).set(&stage.at("topics.settings.\"segment.index.bytes\""), "65536");
    // A snapshot would make the topics first.
    let config = config.set(&stage.at("source.snapshot"), "never");
    let mut daemon = stage.start(&config).await;
    // Transactions take turns on two producers: each meets the topics, first when they are missing, then when they are there.
    for id in 0..3 {
        stage.sql(&format!("BEGIN; {}; COMMIT", each(&format!("INSERT INTO t? VALUES ({id})")))).await;
        stage.settled().await;
    }
    // A daemon that starts again meets all of them for the first time, and none is new.
    daemon.terminate(SOON).await;
    let mut daemon = stage.start(&config).await;
    for id in 3..5 {
        stage.sql(&format!("BEGIN; {}; COMMIT", each(&format!("INSERT INTO t? VALUES ({id})")))).await;
        stage.settled().await;
    }
    let records = topic::read_all(&stage.kafka.bootstrap, &format!("{}.public.t", stage.name)).await;
    let mut ids: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for r in records {
        ids.entry(r.topic.clone()).or_default().push(r.value_json()["after"]["id"].as_i64().expect("id"));
    }
    assert_eq!(ids.len(), TABLES);
    assert!(ids.values().all(|ids| *ids == [0, 1, 2, 3, 4]), "{ids:?}");
    daemon.terminate(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pipeline_fails_and_the_others_go_on() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)").await
    else {
        return;
    };
    let (second, broken) = (unique("second"), unique("broken"));
    let config = stage.pipeline(stage.config(&["public.t"]), &second, &["public.u"]);
    let config = stage
        .pipeline(config, &broken, &["public.*"])
        .set(&format!("pipeline.{broken}.source.create"), false)
        .set(&format!("pipeline.{broken}.source.publication"), "not_there");
    let mut daemon = Daemon::start(&config);
    daemon.said("not_there", SOON).await;
    stage.sql("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)").await;
    stage.settled().await;
    stage.settled_by(&second).await;
    assert_eq!(stage.read("public.t").await.len(), 1);
    assert_eq!(topic::read(&stage.kafka.bootstrap, &format!("{second}.public.u")).await.len(), 1);
    let (status, body) = daemon.get("/readyz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert_eq!(body["pipelines"][&broken]["ready"], json!(false), "{body}");
    assert_eq!(body["pipelines"][&second]["ready"], json!(true), "{body}");
    assert!(daemon.terminate(SOON).await.code().is_some());
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|l| l.starts_with("{\"topic\""))
        .map(|l| serde_json::from_str(l).expect("a line of JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_standard_output_get_the_same_lines() {
    let Some(stage) =
        Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'read')").await
    else {
        return;
    };
    let other = unique("out");
    let config = stage.pipeline(stage.pipeline(Config::default(), &stage.name, &["public.t"]), &other, &["public.t"]);
    let config = config
        .set(&stage.at("sink.type"), "file")
        .set(&stage.at("sink.path"), "out.jsonl")
        .set(&format!("pipeline.{other}.sink.type"), "stdout");
    let mut daemon = stage.start(&config).await;
    let written = async |daemon: &Daemon, n: usize| {
        eventually(SOON, &format!("{n} lines each"), async || {
            let file = std::fs::read_to_string(daemon.dir().join("out.jsonl")).unwrap_or_default();
            let (file, out) = (lines(&file), lines(&daemon.log()));
            if file.len() >= n && out.len() >= n {
                Ok((file, out))
            } else {
                Err(format!("{} and {}", file.len(), out.len()))
            }
        })
        .await
    };
    written(&daemon, 1).await;
    stage.sql("INSERT INTO t VALUES (2, 'streamed'); DELETE FROM t WHERE id = 2").await;
    written(&daemon, 4).await;
    assert!(daemon.terminate(SOON).await.success());
    daemon.restart();
    daemon.ready(SOON).await;
    stage.sql("INSERT INTO t VALUES (3, 'after the start')").await;
    let (file, out) = written(&daemon, 5).await;
    let short = |v: &Value| json!([v["key"], v["value"]["op"], v["value"]["after"]]);
    let expected = [
        json!([{"id": 1}, "r", {"id": 1, "v": "read"}]),
        json!([{"id": 2}, "c", {"id": 2, "v": "streamed"}]),
        json!([{"id": 2}, "d", null]),
        json!([{"id": 2}, null, null]),
        json!([{"id": 3}, "c", {"id": 3, "v": "after the start"}]),
    ];
    assert_eq!(file.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(out.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(file[0]["topic"], json!(format!("{}.public.t", stage.name)));
    assert!(daemon.terminate(Duration::from_secs(30)).await.success());
}

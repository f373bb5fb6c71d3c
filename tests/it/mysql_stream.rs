//! What a log of MySQL and MariaDB can carry, and where reading meets it: on every server that there is, as the account that
//! may do no more than capturing needs.

use crate::{
    mysql::MyStage,
    run::{SOON, brief},
};
use mysql_async::prelude::Queryable;
use seachange_testkit::{Config, Daemon, Record, topic, unique};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Every server of both kinds, with an empty database each.
async fn every() -> Vec<MyStage> {
    let mut all = MyStage::every("mysql").await;
    all.extend(MyStage::every("mariadb").await);
    all
}

impl MyStage {
    fn plain(&self, name: &str, snapshot: &str) -> Config {
        self.pipeline(Config::kafka(&self.kafka.bootstrap), name, snapshot, "plain")
    }
    async fn records(&self, name: &str, table: &str) -> Vec<Record> {
        let table: String =
            table.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        topic::read(&self.kafka.bootstrap, &format!("{name}.{}.{table}", self.db)).await
    }
    async fn story(&self, name: &str, table: &str) -> Vec<String> {
        self.settled_by(name).await;
        self.records(name, table).await.iter().map(brief).collect()
    }
}

fn header(r: &Record, name: &str) -> Value {
    r.header(name).map_or(Value::Null, |h| serde_json::from_slice(h).expect("a header in JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_change() {
    for stage in every().await {
        stage.script("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE k (v int)").await;
        let name = unique("p");
        let _daemon = stage.start(&stage.plain(&name, "never")).await;
        stage
            .script(
                "INSERT INTO t VALUES (1, 'a');
                 UPDATE t SET v = 'b';
                 UPDATE t SET id = 2;
                 DELETE FROM t;
                 INSERT INTO t VALUES (3, NULL), (4, 'é');
                 REPLACE INTO t VALUES (4, 'r');
                 INSERT INTO t VALUES (3, 'x') ON DUPLICATE KEY UPDATE v = 'y';
                 INSERT INTO k VALUES (1), (1);
                 UPDATE k SET v = 2;
                 DELETE FROM k LIMIT 1;
                 TRUNCATE t;
                 START TRANSACTION;
                 INSERT INTO t VALUES (5, 'kept');
                 SAVEPOINT s;
                 INSERT INTO t VALUES (6, 'lost');
                 ROLLBACK TO s;
                 COMMIT;
                 START TRANSACTION;
                 INSERT INTO t VALUES (7, 'lost');
                 ROLLBACK",
            )
            .await;
        let story = stage.story(&name, "t").await;
        let expected = [
            r#"c {"id":1} null {"id":1,"v":"a"}"#,
            r#"u {"id":1} {"id":1,"v":"a"} {"id":1,"v":"b"}"#,
            r#"d {"id":1} {"id":1,"v":"b"} null"#,
            r#"- {"id":1}"#,
            r#"c {"id":2} null {"id":2,"v":"b"}"#,
            r#"d {"id":2} {"id":2,"v":"b"} null"#,
            r#"- {"id":2}"#,
            r#"c {"id":3} null {"id":3,"v":null}"#,
            r#"c {"id":4} null {"id":4,"v":"é"}"#,
            r#"u {"id":4} {"id":4,"v":"é"} {"id":4,"v":"r"}"#,
            r#"u {"id":3} {"id":3,"v":null} {"id":3,"v":"y"}"#,
            "t null null null",
            r#"c {"id":5} null {"id":5,"v":"kept"}"#,
        ];
        assert_eq!(story, expected, "{}", stage.kind);
        let t = stage.records(&name, "t").await;
        for at in [2, 3] {
            assert_eq!(header(&t[at], "__debezium.newkey"), json!({"id": 2}));
        }
        assert_eq!(header(&t[4], "__debezium.oldkey"), json!({"id": 1}));
        assert_eq!((t[0].headers.len(), t[11].key.as_ref()), (0, None));
        let expected = [
            r#"c null null {"v":1}"#,
            r#"c null null {"v":1}"#,
            r#"u null {"v":1} {"v":2}"#,
            r#"u null {"v":1} {"v":2}"#,
            r#"d null {"v":2} null"#,
        ];
        assert_eq!(stage.story(&name, "k").await, expected, "{}", stage.kind);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    for stage in every().await {
        stage.script("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await;
        let name = unique("p");
        let config = stage.plain(&name, "never").set(&format!("pipeline.{name}.format.transaction"), true);
        let _daemon = stage.start(&config).await;
        stage
            .script(
                "START TRANSACTION; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); UPDATE a SET id = 2; COMMIT",
            )
            .await;
        stage.settled_by(&name).await;
        let all = topic::read(&stage.kafka.bootstrap, &format!("{name}.transaction")).await;
        let all: Vec<Value> = all.iter().map(Record::value_json).collect();
        let ends = |v: &&Value| v["status"] == "END";
        let mine = all.iter().filter(ends).find(|v| v["event_count"] == 3).unwrap_or_else(|| panic!("{all:?}"));
        let begin = all.iter().find(|v| v["status"] == "BEGIN" && v["id"] == mine["id"]).expect("its beginning");
        assert_eq!(begin["event_count"], Value::Null);
        let counts: BTreeSet<_> = mine["data_collections"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| (c["data_collection"].as_str().expect("a name").to_owned(), c["event_count"].as_i64()))
            .collect();
        let expected = [(format!("{}.a", stage.db), Some(2)), (format!("{}.b", stage.db), Some(1))];
        assert_eq!(counts, expected.into_iter().collect(), "{}", stage.kind);
        let of =
            |total: i32, table: i32| json!({"id": mine["id"], "total_order": total, "data_collection_order": table});
        let a = stage.records(&name, "a").await;
        assert_eq!(a[0].value_json()["transaction"], of(1, 1));
        assert_eq!(stage.records(&name, "b").await[0].value_json()["transaction"], of(2, 1));
        assert_eq!(a.last().expect("the new key").value_json()["transaction"], of(3, 2));
        // Ours and the mark's: every transaction begins and ends once.
        assert_eq!(all.iter().filter(ends).count(), 2, "{all:?}");
        assert_eq!(all.len(), 4, "{all:?}");
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_without_repeats() {
    for stage in every().await {
        stage.script("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        let name = unique("p");
        let config = stage.plain(&name, "never").set(&format!("pipeline.{name}.limits.commit_interval"), "5ms");
        let mut daemon = stage.start(&config).await;
        let rows = 2_000;
        let mut conn = stage.conn().await;
        let insert = format!("INSERT INTO {}.t VALUES (?, 'v')", stage.db);
        let load = tokio::spawn(async move {
            for id in 0..rows {
                conn.exec_drop(&insert, (id,)).await.expect("a row");
            }
        });
        for so_far in [200, 800, 1_400] {
            topic::wait(&stage.kafka.bootstrap, &format!("{name}.{}.t", stage.db), so_far, SOON).await;
            daemon.restart();
        }
        load.await.expect("the load");
        stage.settled_by(&name).await;
        let ids: Vec<_> =
            stage.records(&name, "t").await.iter().map(|r| r.key_json()["id"].as_i64().expect("an id")).collect();
        assert_eq!(ids, (0..i64::from(rows)).collect::<Vec<_>>(), "{}", stage.kind);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reads_and_ends() {
    for stage in every().await {
        let digits = "(SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4)";
        stage
            .script(&format!(
                "CREATE TABLE t (id int PRIMARY KEY);
                 INSERT INTO t SELECT a.n + 5 * b.n + 25 * c.n + 125 * d.n FROM {digits} a, {digits} b, {digits} c, {digits} d;
                 CREATE TABLE k (v int); INSERT INTO k SELECT id FROM t WHERE id < 50;
                 CREATE TABLE hidden (id int PRIMARY KEY, secret text); INSERT INTO hidden VALUES (1, 'hush')"
            ))
            .await;
        let name = unique("p");
        let at = |path: &str| format!("pipeline.{name}.source.{path}");
        let config = stage
            .plain(&name, "only")
            .set(&at("exclude"), vec![format!("{}.hid*", stage.db)])
            .set(&at("snapshot"), toml_table(&[("mode", "only".into()), ("chunk_rows", 100.into())]));
        let mut daemon = Daemon::start(&config);
        assert!(daemon.ended(SOON).await.success());
        let t = stage.records(&name, "t").await;
        let ids: BTreeSet<_> = t.iter().map(|r| r.key_json()["id"].as_i64()).collect();
        assert_eq!((t.len(), ids.len(), stage.records(&name, "k").await.len()), (625, 625, 50), "{}", stage.kind);
        assert!(t.iter().all(|r| r.op() == "r"));
        assert!(stage.records(&name, "hidden").await.is_empty());
        assert!(!daemon.log().contains("hush"));
        stage.end().await;
    }
}

fn toml_table(entries: &[(&str, toml::Value)]) -> toml::Value {
    toml::Value::Table(entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_key_comes_once() {
    for stage in every().await {
        let digits = "(SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4)";
        stage
            .script(&format!(
                "CREATE TABLE k (v int, t text);
                 INSERT INTO k SELECT a.n + 5 * b.n + 25 * c.n + 125 * d.n, 'x' FROM {digits} a, {digits} b, {digits} c, {digits} d"
            ))
            .await;
        let name = unique("p");
        let mut conn = stage.conn().await;
        let insert = format!("INSERT INTO {}.k VALUES (?, 'y')", stage.db);
        // Written while the daemon starts and reads, and while it starts again.
        let load = tokio::spawn(async move {
            for v in 625..1000 {
                conn.exec_drop(&insert, (v,)).await.expect("a row");
            }
        });
        let mut daemon = stage.start(&stage.plain(&name, "initial")).await;
        daemon.said("snapshot is complete", SOON).await;
        assert!(daemon.terminate(SOON).await.success());
        daemon.restart();
        load.await.expect("the load");
        stage.settled_by(&name).await;
        daemon.restart();
        stage.script("INSERT INTO k VALUES (1000, NULL)").await;
        stage.settled_by(&name).await;
        let mut values: Vec<_> =
            stage.records(&name, "k").await.iter().map(|r| r.value_json()["after"]["v"].as_i64().expect("v")).collect();
        values.sort_unstable();
        assert_eq!(values, (0..=1000).collect::<Vec<_>>(), "{}", stage.kind);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_appears_is_streamed_from_its_first_row() {
    for stage in every().await {
        let name = unique("p");
        let snapshot = toml_table(&[("mode", "initial".into()), ("discover", "1s".into())]);
        let config = stage.plain(&name, "initial").set(&format!("pipeline.{name}.source.snapshot"), snapshot);
        let _daemon = stage.start(&config).await;
        stage.script("CREATE TABLE late (id int PRIMARY KEY, v int); INSERT INTO late VALUES (1, 1), (2, 2)").await;
        for id in 3..60 {
            stage.script(&format!("INSERT INTO late VALUES ({id}, 0)")).await;
        }
        stage.script("UPDATE late SET v = 100 WHERE id = 1").await;
        stage.settled_by(&name).await;
        let mut times: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for r in stage.records(&name, "late").await {
            times.entry(r.key_json()["id"].as_i64().expect("an id")).or_default().push(brief(&r));
        }
        assert_eq!(times.len(), 59, "{}: {times:?}", stage.kind);
        let update = times.remove(&1).expect("the first");
        assert!(update.last().expect("a record").ends_with(r#"{"id":1,"v":100}"#), "{update:?}");
        assert!(times.values().all(|t| t.len() == 1), "{}: {times:?}", stage.kind);
        stage.end().await;
    }
}

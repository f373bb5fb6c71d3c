//! What a snapshot of MySQL and MariaDB tells of tables before their rows: how they are made, once.

use crate::{mysql::MyStage, run::SOON};
use mysql_async::{Row, prelude::Queryable};
use seachange_testkit::{Config, eventually, topic, unique};
use serde_json::Value;

/// What the schema topic holds: key and value.
async fn told(stage: &MyStage, name: &str) -> Vec<(Value, Value)> {
    let records = topic::read(&stage.kafka.bootstrap, name).await;
    records.iter().map(|r| (r.key_json(), r.value_json())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_tells_how_tables_are_made() {
    let mut all = MyStage::every("mysql").await;
    all.extend(MyStage::every("mariadb").await);
    for stage in all {
        stage
            .script(
                "CREATE TABLE a (id int PRIMARY KEY, `e``é` enum('x','it''s') DEFAULT 'x' COMMENT 'wörd') CHARACTER SET latin1;
                 INSERT INTO a (id) VALUES (1), (2), (3);
                 CREATE TABLE nokey (v varchar(9));
                 INSERT INTO nokey VALUES ('1'), ('2');
                 CREATE TABLE nothing (id bigint unsigned PRIMARY KEY);
                 ALTER TABLE nothing ADD d decimal(9,2)",
            )
            .await;
        let mut made = Vec::new();
        let mut conn = stage.conn().await;
        for table in ["a", "done", "nokey", "nothing"] {
            let row: Option<Row> = conn.query_first(format!("SHOW CREATE TABLE {}.{table}", stage.db)).await.unwrap();
            made.push(row.unwrap().get::<String, _>(1).unwrap());
        }
        conn.disconnect().await.unwrap();
        let name = unique("p");
        let at = |path: &str| format!("pipeline.{name}.{path}");
        let config = stage.pipeline(Config::kafka(&stage.kafka.bootstrap), &name, "initial", "plain");
        let config = config.set(&at("format.transaction"), true);
        let mut daemon = stage.start(&config).await;
        stage.settled_by(&name).await;
        eventually(SOON, "every table's statement", async || {
            let n = told(&stage, &name).await.len();
            if n >= made.len() { Ok(()) } else { Err(format!("{n} statements")) }
        })
        .await;
        // What is stored is not told again, and what is altered then is told by the stream.
        daemon.kill9();
        daemon.restart();
        daemon.ready(SOON).await;
        stage.script_before("ALTER TABLE a ADD w int; CREATE TABLE late (id int PRIMARY KEY)", &[&name]).await;
        stage.settled_by(&name).await;
        let all = told(&stage, &name).await;
        let (read, streamed): (Vec<_>, Vec<_>) = all.iter().partition(|(_, v)| v["source"]["snapshot"] == "true");
        let mut texts: Vec<&str> = read.iter().map(|(_, v)| v["ddl"].as_str().unwrap()).collect();
        texts.sort_unstable();
        made.sort_unstable();
        assert_eq!(texts, made);
        for (key, value) in &read {
            assert_eq!(*key, serde_json::json!({ "databaseName": stage.db }));
            assert_eq!((&value["databaseName"], &value["source"]["db"]), (&key["databaseName"], &key["databaseName"]));
            let changes = value["tableChanges"].as_array().unwrap();
            assert_eq!((changes.len(), &changes[0]["type"]), (1, &"CREATE".into()), "{value}");
            assert!(value["source"]["pos"].as_u64().unwrap() > 4 && value["source"]["ts_ms"].as_i64().unwrap() > 0);
        }
        let of = |table: &str| {
            let found = read.iter().find(|(_, v)| v["source"]["table"] == table);
            &found.unwrap_or_else(|| panic!("{table}")).1["tableChanges"][0]
        };
        assert_eq!(of("a")["id"], format!("\"{}\".\"a\"", stage.db));
        assert_eq!(of("a")["table"]["columns"][1]["name"], "e`é");
        assert_eq!(of("a")["table"]["columns"][1]["enumValues"], serde_json::json!(["'x'", "'it''s'"]));
        assert_eq!(of("nokey")["table"]["primaryKeyColumnNames"], serde_json::json!([]));
        assert_eq!(of("nothing")["table"]["columns"][1]["scale"], 2);
        let after: Vec<&str> = streamed.iter().map(|(_, v)| v["ddl"].as_str().unwrap()).collect();
        assert_eq!(after, ["ALTER TABLE a ADD w int", "CREATE TABLE late (id int PRIMARY KEY)"]);
        assert_eq!(streamed[0].1["tableChanges"][0]["table"]["columns"][2]["name"], "w");
        drop(daemon);

        // Whoever wants no such records has none.
        let quiet = unique("p");
        let config = stage.pipeline(Config::kafka(&stage.kafka.bootstrap), &quiet, "initial", "plain");
        let daemon = stage.start(&config.set(&format!("pipeline.{quiet}.format.schema_changes"), false)).await;
        stage.settled_by(&quiet).await;
        assert_eq!(told(&stage, &quiet).await.len(), 0);
        drop(daemon);
        stage.end().await;
    }
}

//! Everything a log can carry.

use crate::run::{SOON, Stage, brief};
use seachange_testkit::{Record, topic, unique};
use serde_json::{Value, json};

fn header(r: &Record, name: &str) -> Value {
    r.header(name).map_or(Value::Null, |h| serde_json::from_slice(h).expect("a header in JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_change_under_each_identity() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE TABLE whole (id int PRIMARY KEY, v text);
         ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE other (id int PRIMARY KEY, code text NOT NULL UNIQUE, v int);
         ALTER TABLE other REPLICA IDENTITY USING INDEX other_code_key";
    let Some(stage) = Stage::set(15, tables).await else { return };
    let _daemon = stage.start(&stage.config(&["public.*"])).await;
    stage
        .sql(
            "INSERT INTO t VALUES (1, 'a');
             UPDATE t SET v = 'b';
             UPDATE t SET id = 2;
             DELETE FROM t;
             INSERT INTO t VALUES (3, NULL);
             TRUNCATE t;
             INSERT INTO whole VALUES (1, 'a');
             UPDATE whole SET v = 'b';
             UPDATE whole SET id = 2, v = NULL;
             DELETE FROM whole;
             INSERT INTO other VALUES (1, 'x', 1);
             UPDATE other SET v = 2;
             UPDATE other SET code = 'y';
             DELETE FROM other;
             TRUNCATE t, whole",
        )
        .await;
    let story = stage.story("public.t").await;
    let expected = [
        r#"c {"id":1} null {"id":1,"v":"a"}"#,
        r#"u {"id":1} null {"id":1,"v":"b"}"#,
        r#"d {"id":1} {"id":1} null"#,
        r#"- {"id":1}"#,
        r#"c {"id":2} null {"id":2,"v":"b"}"#,
        r#"d {"id":2} {"id":2} null"#,
        r#"- {"id":2}"#,
        r#"c {"id":3} null {"id":3,"v":null}"#,
        "t null null null",
        "t null null null",
    ];
    assert_eq!(story, expected);
    let t = stage.read("public.t").await;
    for at in [2, 3] {
        assert_eq!(header(&t[at], "__debezium.newkey"), json!({"id": 2}));
    }
    assert_eq!(header(&t[2], "seachange.absent"), json!(["before.v"]));
    assert_eq!(header(&t[4], "__debezium.oldkey"), json!({"id": 1}));
    assert_eq!((t[0].headers.len(), t[8].key.as_ref()), (0, None));

    let expected = [
        r#"c {"id":1} null {"id":1,"v":"a"}"#,
        r#"u {"id":1} {"id":1,"v":"a"} {"id":1,"v":"b"}"#,
        r#"d {"id":1} {"id":1,"v":"b"} null"#,
        r#"- {"id":1}"#,
        r#"c {"id":2} null {"id":2,"v":null}"#,
        r#"d {"id":2} {"id":2,"v":null} null"#,
        r#"- {"id":2}"#,
        "t null null null",
    ];
    assert_eq!(stage.story("public.whole").await, expected);
    let expected = [
        r#"c {"id":1} null {"code":"x","id":1,"v":1}"#,
        r#"u {"id":1} null {"code":"x","id":1,"v":2}"#,
        r#"u {"id":1} {"code":"x"} {"code":"y","id":1,"v":2}"#,
        r#"d {"id":null} {"code":"y"} null"#,
        r#"- {"id":null}"#,
    ];
    assert_eq!(stage.story("public.other").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_transactions() {
    let Some(stage) = Stage::set(18, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await
    else {
        return;
    };
    let _daemon = stage.start(&stage.config(&["public.*"]).set(&stage.at("format.transaction"), true)).await;
    let mut client = stage.db.connect().await;
    let txn = client.transaction().await.unwrap();
    txn.batch_execute(
        "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); SELECT pg_logical_emit_message(true, 'in', 'abc');
         UPDATE a SET id = 2",
    )
    .await
    .unwrap();
    let id: i64 = txn.query_one("SELECT txid_current()", &[]).await.unwrap().get(0);
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let lost = "INSERT INTO a VALUES (9); SELECT pg_logical_emit_message(true, 'lost', 'x'), pg_logical_emit_message(false, 'kept', '')";
    txn.batch_execute(lost).await.unwrap();
    txn.rollback().await.unwrap();
    stage.settled().await;

    let (a, messages) = (stage.read("public.a").await, stage.read("message").await);
    let short = |r: &Record| {
        let v = r.value_json();
        (r.key_json()["prefix"].clone(), v["message"]["prefix"].clone(), v["message"]["content"].clone(), r.op())
    };
    let expected = [
        (json!("in"), json!("in"), json!("YWJj"), "m".to_owned()),
        (json!("kept"), json!("kept"), json!(""), "m".to_owned()),
    ];
    assert_eq!(messages.iter().map(short).collect::<Vec<_>>(), expected);
    let ops: Vec<_> = a.iter().map(brief).collect();
    assert_eq!(ops.len(), 4, "{ops:?}");

    let transactions = stage.read("transaction").await;
    let mine: Vec<Value> = transactions
        .iter()
        .map(Record::value_json)
        .filter(|v| v["id"].as_str().is_some_and(|i| i.starts_with(&format!("{id}:"))))
        .collect();
    assert_eq!(mine.len(), 2, "{transactions:?}");
    assert_eq!((&mine[0]["status"], &mine[0]["event_count"]), (&json!("BEGIN"), &Value::Null));
    assert_eq!((&mine[1]["status"], &mine[1]["event_count"]), (&json!("END"), &json!(4)));
    let mut counts: Vec<_> = mine[1]["data_collections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| (c["data_collection"].as_str().expect("a name").to_owned(), c["event_count"].clone()))
        .collect();
    counts.sort_by_key(|c| c.0.clone());
    let expected = [("LOGICAL_DECODING_MESSAGE", 1), ("public.a", 2), ("public.b", 1)];
    assert_eq!(counts, expected.map(|(n, c)| (n.to_owned(), json!(c))));
    let block = |r: &Record| r.value_json()["transaction"].clone();
    let of =
        |total: i32, table: i32| json!({"id": mine[0]["id"], "total_order": total, "data_collection_order": table});
    assert_eq!(block(&a[0]), of(1, 1));
    assert_eq!(block(&stage.read("public.b").await[0]), of(2, 1));
    assert_eq!(block(&messages[0]), of(3, 1));
    assert_eq!(block(&a[3]), of(4, 2));
    // BEGIN, END, and nothing for the transaction that was rolled back: besides ours, only the mark's.
    assert_eq!(transactions.iter().filter(|r| r.value_json()["status"] == "BEGIN").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn untouched_large_values_are_told_apart_from_null() {
    let tables = "CREATE TABLE big (id int PRIMARY KEY, v int, body text, raw bytea);
         ALTER TABLE big ALTER body SET STORAGE EXTERNAL;
         ALTER TABLE big ALTER raw SET STORAGE EXTERNAL";
    let Some(stage) = Stage::set(13, tables).await else { return };
    let debezium = unique("dbz");
    let config = stage.pipeline(stage.config(&["public.*"]), &debezium, &["public.*"]);
    // A snapshot would tell the rows whole once more.
    let config = config.set(&stage.at("source.snapshot"), "never");
    let config = config.set(&format!("pipeline.{debezium}.source.snapshot"), "never");
    let _daemon = stage.start(&config.set(&format!("pipeline.{debezium}.format.values"), "debezium")).await;
    stage
        .sql(
            "INSERT INTO big SELECT 1, 1, repeat('0123456789', 1000), NULL;
             UPDATE big SET v = 2;
             UPDATE big SET raw = decode(repeat('00ff', 5000), 'hex');
             UPDATE big SET v = 3, body = NULL;
             UPDATE big SET v = 4;
             UPDATE big SET id = 2",
        )
        .await;
    stage.settled().await;
    stage.settled_by(&debezium).await;
    let plain = stage.read("public.big").await;
    let absent: Vec<_> = plain.iter().map(|r| header(r, "seachange.absent")).collect();
    let before = json!(["before.v", "before.body", "before.raw"]);
    let untouched = json!(["after.raw"]);
    let expected = [
        Value::Null,
        json!(["after.body"]),
        json!(["after.body"]),
        untouched.clone(),
        untouched.clone(),
        before,
        Value::Null,
        untouched,
    ];
    assert_eq!(absent, expected);
    let after = |r: &Record| r.value_json()["after"].clone();
    assert_eq!(after(&plain[1]), json!({"id": 1, "v": 2, "raw": null}));
    assert_eq!(after(&plain[4]), json!({"id": 1, "v": 4, "body": null}));
    let theirs = topic::read(&stage.kafka.bootstrap, &format!("{debezium}.public.big")).await;
    assert!(theirs.iter().all(|r| r.header("seachange.absent").is_none()));
    let text = "__debezium_unavailable_value";
    assert_eq!(after(&theirs[1]), json!({"id": 1, "v": 2, "body": text, "raw": null}));
    assert_eq!(after(&theirs[4])["raw"], json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_change_their_shape() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY, a int)").await else { return };
    let mut daemon = stage.start(&stage.config(&["public.*"])).await;
    stage
        .sql(
            "INSERT INTO t VALUES (1, 1);
             ALTER TABLE t ADD COLUMN b text DEFAULT 'x';
             INSERT INTO t VALUES (2, 2, 'y');
             BEGIN;
             INSERT INTO t VALUES (3, 3, 'z');
             ALTER TABLE t ALTER COLUMN a TYPE text;
             INSERT INTO t VALUES (4, 'four');
             ALTER TABLE t RENAME COLUMN a TO aa;
             INSERT INTO t VALUES (5, 'five');
             COMMIT;
             ALTER TABLE t DROP COLUMN aa",
        )
        .await;
    let mut expected = vec![
        r#"c {"id":1} null {"a":1,"id":1}"#,
        r#"c {"id":2} null {"a":2,"b":"y","id":2}"#,
        r#"c {"id":3} null {"a":3,"b":"z","id":3}"#,
        r#"c {"id":4} null {"a":"four","b":"x","id":4}"#,
        r#"c {"id":5} null {"aa":"five","b":"x","id":5}"#,
    ];
    assert_eq!(stage.story("public.t").await, expected);
    // What the log has from before a change is read after it, by a daemon that was away.
    assert!(daemon.terminate(SOON).await.success());
    stage
        .sql(
            "INSERT INTO t VALUES (6, 'b6');
             ALTER TABLE t ADD COLUMN c numeric(6, 2);
             INSERT INTO t VALUES (7, 'b7', 1.5);
             ALTER TABLE t RENAME TO u;
             INSERT INTO u VALUES (8, 'b8', 2)",
        )
        .await;
    daemon.restart();
    expected.push(r#"c {"id":6} null {"b":"b6","id":6}"#);
    expected.push(r#"c {"id":7} null {"b":"b7","c":"1.50","id":7}"#);
    assert_eq!(stage.story("public.t").await, expected);
    // Another name is another table: a start that does not know it reads it. What the stream has told is not told again.
    let mut told: Vec<_> =
        stage.wait("public.u", 8).await.iter().map(|r| (r.key_json()["id"].as_i64(), r.op())).collect();
    told.sort();
    let expected = (1..=8).map(|id| (Some(id), if id == 8 { "c" } else { "r" }.to_owned()));
    assert_eq!(told, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_without_repeats() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY, v text)").await else { return };
    let config = stage.config(&["public.*"]).set(&stage.at("limits.commit_interval"), "5ms");
    let mut daemon = stage.start(&config).await;
    let rows = 3_000;
    let client = stage.db.connect().await;
    let load = tokio::spawn(async move {
        for id in 0..rows {
            client.execute("INSERT INTO t VALUES ($1, 'v')", &[&id]).await.expect("a row");
        }
    });
    for so_far in [200, 1_000, 1_800] {
        stage.wait("public.t", so_far).await;
        daemon.restart();
    }
    load.await.expect("the load");
    stage.settled().await;
    let ids: Vec<_> =
        stage.read("public.t").await.iter().map(|r| r.key_json()["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids, (0..i64::from(rows)).collect::<Vec<_>>());
}

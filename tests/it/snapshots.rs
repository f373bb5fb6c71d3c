//! What is read, what is not, and where it meets the stream.

use crate::run::{SOON, Stage, brief};
use seachange_testkit::{Daemon, eventually, topic};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn never_reads_nothing() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await else {
        return;
    };
    let _daemon = stage.start(&stage.config(&["public.*"]).set(&stage.at("source.snapshot"), "never")).await;
    stage.sql("INSERT INTO t VALUES (2)").await;
    assert_eq!(stage.story("public.t").await, [r#"c {"id":2} null {"id":2}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pipeline_is_ready_before_anything_changes() {
    let Some(stage) = Stage::set(15, "CREATE TABLE t (id int PRIMARY KEY)").await else { return };
    let config = stage.config(&["public.t"]).set(&stage.at("source.snapshot"), "never");
    // Nothing to read and nothing streamed: only where it begins is there to be committed.
    let daemon = stage.start(&config.set(&stage.at("limits.idle_interval"), "1h")).await;
    let committed = daemon.metrics().await.sum("seachange_commit_seconds_count", &[]);
    assert_eq!(committed, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reads_and_ends() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 2500);
         CREATE TABLE k (v int); INSERT INTO k SELECT generate_series(1, 50)";
    let Some(stage) = Stage::set(18, tables).await else { return };
    let config = stage.config(&["public.*"]).set(&stage.at("source.snapshot.mode"), "only");
    let mut daemon = Daemon::start(&config.set(&stage.at("source.snapshot.chunk_rows"), 1000));
    assert!(daemon.ended(SOON).await.success());
    let t = stage.read("public.t").await;
    assert_eq!((t.len(), stage.read("public.k").await.len()), (2500, 50));
    assert!(t.iter().all(|r| r.op() == "r"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_many_tables_are_made_together() {
    const TABLES: usize = 60;
    let each = |sql: &str| (0..TABLES).map(|i| sql.replace('?', &i.to_string())).collect::<Vec<_>>().join(";");
    let tables = each("CREATE TABLE t? (id int PRIMARY KEY); INSERT INTO t? VALUES (1), (2)");
    let Some(stage) = Stage::set(15, &format!("{tables}; CREATE TABLE nothing (id int PRIMARY KEY); ANALYZE")).await
    else {
        return;
    };
    let config = stage.config(&["public.*"]).set(&stage.at("topics.settings.\"segment.index.bytes\""), "65536");
    let daemon = stage.start(&config).await;
    stage.sql(&each("INSERT INTO t? VALUES (3)")).await;
    stage.settled().await;
    let mut ids: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for r in topic::read_all(&stage.kafka.bootstrap, &format!("{}.public.t", stage.name)).await {
        ids.entry(r.topic.clone()).or_default().push(r.value_json()["after"]["id"].as_i64().expect("id"));
    }
    ids.values_mut().for_each(|ids| ids.sort_unstable());
    assert_eq!(ids.len(), TABLES);
    assert!(ids.values().all(|ids| *ids == [1, 2, 3]), "{ids:?}");
    let names = topic::names(&stage.kafka.bootstrap, &format!("{}.public", stage.name)).await;
    assert!(!names.iter().any(|n| n.ends_with(".nothing")), "an empty table waits for its first row: {names:?}");
    // By what the sink says; the reader's lines come between.
    let log = daemon.log_of_run();
    let made = log.lines().filter(|l| l.contains("topic created") && l.contains(".public.t")).count();
    let rest = log.lines().filter(|l| l.contains("seachange::sink::")).skip_while(|l| !l.contains("tables to be read"));
    let together = rest.skip(1).take_while(|l| l.contains("topic created") && l.contains(".public.t")).count();
    assert_eq!((made, together), (TABLES, TABLES), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_appears_is_read_and_streamed() {
    let Some(stage) = Stage::set(15, "CREATE SCHEMA shop").await else { return };
    let config = stage.config(&["shop.*"]).set(&stage.at("source.snapshot.discover"), "1s");
    let _daemon = stage.start(&config).await;
    stage.sql("CREATE TABLE shop.late (id int PRIMARY KEY, v int); INSERT INTO shop.late VALUES (1, 1), (2, 2)").await;
    // Rows come while nobody knows whether the table is in the publication yet.
    for id in 3..200 {
        stage.sql(&format!("INSERT INTO shop.late VALUES ({id}, 0)")).await;
        if topic::names(&stage.kafka.bootstrap, &format!("{}.shop", stage.name)).await.len() == 1 {
            break;
        }
    }
    stage.sql("UPDATE shop.late SET v = 100 WHERE id = 1; INSERT INTO shop.late VALUES (1000, 0)").await;
    eventually(SOON, "the late table's rows", async || {
        let found = stage.read("shop.late").await;
        let last = found.iter().any(|r| r.key_json()["id"] == 1000);
        let read = found.iter().any(|r| r.key_json()["id"] == 2);
        if last && read { Ok(()) } else { Err(format!("{} records", found.len())) }
    })
    .await;
    stage.settled().await;
    let rows = stage.db.connect().await.query("SELECT id FROM shop.late", &[]).await.unwrap();
    let mut times: BTreeMap<i64, Vec<String>> =
        rows.iter().map(|r| (i64::from(r.get::<_, i32>(0)), Vec::new())).collect();
    for r in stage.read("shop.late").await {
        times.get_mut(&r.key_json()["id"].as_i64().unwrap()).expect("a row that is there").push(brief(&r));
    }
    let update = times.remove(&1).unwrap();
    assert!(update.last().unwrap().ends_with(r#"{"id":1,"v":100}"#), "{update:?}");
    assert!(times.values().all(|t| t.len() == 1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_comes_as_its_root() {
    for version in [13, 18] {
        let tables = "CREATE TABLE p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             INSERT INTO p VALUES (1, 1, 'one'), (2, 11, 'two')";
        let Some(stage) = Stage::set(version, tables).await else { return };
        let _daemon = stage.start(&stage.config(&["public.*"])).await;
        stage.wait("public.p", 2).await;
        stage.sql("INSERT INTO p VALUES (3, 12, 'three'); UPDATE p SET v = 'uno' WHERE id = 1; UPDATE p SET k = 13 WHERE id = 1").await;
        // A partition that has other columns' order, and one that comes later.
        stage
            .sql(
                "CREATE TABLE p3 (v text, junk int, k int NOT NULL, id int NOT NULL);
                 ALTER TABLE p3 DROP COLUMN junk;
                 ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
                 INSERT INTO p VALUES (4, 21, 'four')",
            )
            .await;
        let mut story = stage.story("public.p").await;
        story[..2].sort();
        let expected = [
            r#"r {"id":1,"k":1} null {"id":1,"k":1,"v":"one"}"#,
            r#"r {"id":2,"k":11} null {"id":2,"k":11,"v":"two"}"#,
            r#"c {"id":3,"k":12} null {"id":3,"k":12,"v":"three"}"#,
            r#"u {"id":1,"k":1} null {"id":1,"k":1,"v":"uno"}"#,
            r#"d {"id":1,"k":1} {"id":1,"k":1} null"#,
            r#"- {"id":1,"k":1}"#,
            r#"c {"id":1,"k":13} null {"id":1,"k":13,"v":"uno"}"#,
            r#"c {"id":4,"k":21} null {"id":4,"k":21,"v":"four"}"#,
        ];
        assert_eq!(story, expected, "PostgreSQL {version}");
        let topics = topic::names(&stage.kafka.bootstrap, &format!("{}.public.p", stage.name)).await;
        assert_eq!(topics, [format!("{}.public.p", stage.name)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_key_comes_once() {
    let Some(stage) =
        Stage::set(15, "CREATE TABLE k (v int, t text); INSERT INTO k SELECT g, 'x' FROM generate_series(1, 5000) g")
            .await
    else {
        return;
    };
    let config = stage.config(&["public.k"]).set(&stage.at("source.snapshot.chunk_rows"), 500);
    let client = stage.db.connect().await;
    // Written while the daemon starts and reads.
    let load = tokio::spawn(async move {
        for v in 5001..5400 {
            client.execute("INSERT INTO k VALUES ($1, 'y')", &[&v]).await.expect("a row");
        }
    });
    let mut daemon = stage.start(&config).await;
    load.await.expect("the load");
    stage.settled().await;
    let mut values: Vec<_> =
        stage.read("public.k").await.iter().map(|r| r.value_json()["after"]["v"].as_i64().expect("v")).collect();
    values.sort_unstable();
    assert_eq!(values, (1..5400).collect::<Vec<_>>());
    eventually(SOON, "the end of the snapshot", async || {
        let (_, body) = daemon.get("/readyz").await?;
        if body.contains("streaming") { Ok(()) } else { Err(body) }
    })
    .await;
    daemon.restart();
    stage.sql("INSERT INTO k VALUES (0, NULL)").await;
    stage.settled().await;
    assert_eq!(stage.read("public.k").await.len(), 5400);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_what_is_left_out() {
    let tables = r#"CREATE TABLE "we.ird ""T'" ("Id" int, "sel ect" text, "é" int, PRIMARY KEY ("Id", "é"));
         INSERT INTO "we.ird ""T'" VALUES (1, 'read', 1);
         CREATE TABLE hidden (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, secret text, v int);
         INSERT INTO t VALUES (1, 'hush', 1)"#;
    let Some(stage) = Stage::set(15, tables).await else { return };
    let config = stage
        .config(&["public.*"])
        .set(&stage.at("source.exclude"), vec!["public.hid*"])
        .set(&stage.at("source.columns.exclude"), vec!["*.*.secret"]);
    let daemon = stage.start(&config).await;
    stage.wait("public.we.ird__T_", 1).await;
    stage.wait("public.t", 1).await;
    stage
        .sql(
            r#"INSERT INTO hidden VALUES (1);
               INSERT INTO t VALUES (2, 'hush', 2);
               UPDATE t SET secret = 'hush hush' WHERE id = 2;
               UPDATE "we.ird ""T'" SET "sel ect" = 'streamed'"#,
        )
        .await;
    let expected =
        [r#"r {"id":1} null {"id":1,"v":1}"#, r#"c {"id":2} null {"id":2,"v":2}"#, r#"u {"id":2} null {"id":2,"v":2}"#];
    assert_eq!(stage.story("public.t").await, expected);
    let odd: Vec<_> = stage.read("public.we.ird__T_").await.iter().map(brief).collect();
    let expected = [
        r#"r {"Id":1,"é":1} null {"Id":1,"sel ect":"read","é":1}"#,
        r#"u {"Id":1,"é":1} null {"Id":1,"sel ect":"streamed","é":1}"#,
    ];
    assert_eq!(odd, expected);
    assert!(stage.read("public.hidden").await.is_empty());
    assert!(!daemon.log().contains("hush"));
}

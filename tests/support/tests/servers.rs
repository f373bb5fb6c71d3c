//! The testkit against real servers: is the ledger's count true when connections and the server break, and does a reader
//! see exactly what was committed?

use mysql_async::prelude::Queryable;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use seachange_testkit::{Database, Ledger, MARIADB, Proxy, Way, Which, audit, eventually, servers, topic, unique};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Counts the ledger's changes by means of the database alone.
struct Count<'a> {
    db: &'a Database,
    slot: String,
}

impl<'a> Count<'a> {
    async fn begin(db: &'a Database) -> Count<'a> {
        let slot = unique("s");
        if db.which.kind() == "postgres" {
            let sql = "SELECT pg_create_logical_replication_slot($1, 'test_decoding')";
            db.connect().await.execute(sql, &[&slot]).await.unwrap();
        } else {
            let mut conn = db.session().await;
            conn.query_drop("CREATE TABLE counted (n bigint AUTO_INCREMENT PRIMARY KEY)").await.unwrap();
            for what in ["INSERT", "UPDATE", "DELETE"] {
                let then = "FOR EACH ROW INSERT INTO counted VALUES (NULL)";
                conn.query_drop(format!("CREATE TRIGGER on_{what} AFTER {what} ON ledger {then}")).await.unwrap();
            }
        }
        Count { db, slot }
    }

    async fn so_far(&self) -> u64 {
        if self.db.which.kind() == "postgres" {
            let sql = "SELECT count(*) FROM pg_logical_slot_peek_changes($1, NULL, NULL) \
                       WHERE data ~ '^table public.ledger: '";
            let count: i64 = self.db.connect().await.query_one(sql, &[&self.slot]).await.expect("the log").get(0);
            count.unsigned_abs()
        } else {
            let count: Option<u64> =
                self.db.session().await.query_first("SELECT count(*) FROM counted").await.expect("the count");
            count.expect("a row")
        }
    }
}

async fn counts_right_while_connections_break(which: Which) {
    let Some(source) = servers::source(which).await else { return };
    let db = source.database().await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", db.port)).await;
    let load = Ledger::new(&db.writer_url_through(&proxy), "ledger").changes(4_000).rate(1_500).keys(50);
    load.create().await;
    let count = Count::begin(&db).await;
    let running = load.start().await;
    for at in 1..=6 {
        running.reach(at * 500, SOON).await;
        match at % 3 {
            // In the middle of an answer: a commit's, now and then.
            0 => proxy.truncate(Way::Down, 37),
            1 => proxy.truncate(Way::Up, 37),
            _ => proxy.cut(),
        }
    }
    let outcome = running.join().await;
    assert!(outcome.lost > 0 && outcome.rollbacks > 0, "{outcome:?}");
    assert_eq!(count.so_far().await, outcome.changes, "{outcome:?}");
}

async fn counts_right_through_a_crash_of_the_server(which: Which) {
    let Some(source) = servers::own_source(which).await else { return };
    let db = source.database().await;
    let load = Ledger::new(db.writer_url(), "ledger").changes(u64::MAX).keys(50);
    load.create().await;
    let count = Count::begin(&db).await;
    let running = load.start().await;
    running.reach(1_000, SOON).await;
    source.kill9();
    source.start("");
    running.reach(running.committed() + 500, SOON).await;
    let outcome = running.stop().await;
    assert!(outcome.lost > 0, "{outcome:?}");
    assert_eq!(count.so_far().await, outcome.changes, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_while_connections_break() {
    counts_right_while_connections_break(Which::Postgres(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_while_connections_to_mysql_break() {
    counts_right_while_connections_break(Which::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_while_connections_to_mariadb_break() {
    counts_right_while_connections_break(MARIADB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_through_a_crash_of_the_server() {
    counts_right_through_a_crash_of_the_server(Which::Postgres(18)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_through_a_crash_of_mysql() {
    counts_right_through_a_crash_of_the_server(Which::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_right_through_a_crash_of_mariadb() {
    counts_right_through_a_crash_of_the_server(MARIADB).await;
}

async fn make_topic(bootstrap: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client");
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

fn producer(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create()
        .expect("a producer");
    producer.init_transactions(SOON).expect("init_transactions");
    producer
}

fn send(producer: &BaseProducer, topic: &str, id: i64, version: i64) {
    let key = format!("{{\"id\":{id}}}");
    let value = format!("{{\"before\":null,\"after\":{{\"id\":{id},\"version\":{version}}},\"op\":\"u\"}}");
    producer.send(BaseRecord::to(topic).key(&key).payload(&value)).expect("room in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_was_committed_and_nothing_else() {
    let Some(kafka) = servers::kafka(1).await else { return };
    let (name, b) = (unique("reader"), kafka.bootstrap.clone());
    assert!(topic::read(&b, &name).await.is_empty(), "no topic, no record");
    make_topic(&b, &name, 2).await;
    assert!(topic::read(&b, &name).await.is_empty());
    let (topic_name, bootstrap) = (name.clone(), b.clone());
    let open = tokio::task::spawn_blocking(move || {
        let one = producer(&bootstrap, &format!("{topic_name}-one"));
        for version in 1..=3 {
            one.begin_transaction().expect("begin");
            send(&one, &topic_name, 1, version);
            // The second is taken back: versions 1, 3 are left.
            one.flush(SOON).expect("flush");
            if version == 2 { one.abort_transaction(SOON) } else { one.commit_transaction(SOON) }.expect("end");
        }
        // This one stays open while the test reads.
        one.begin_transaction().expect("begin");
        send(&one, &topic_name, 1, 4);
        one.flush(SOON).expect("flush");
        one
    })
    .await
    .unwrap();
    let seen = topic::read(&b, &name).await;
    let versions: Vec<_> = seen.iter().map(|r| r.value_json()["after"]["version"].as_i64()).collect();
    assert_eq!(versions, [Some(1), Some(3)]);
    assert_eq!(seen[0].key_json()["id"], 1);
    let all = topic::read_as(&b, &name, topic::Isolation::Uncommitted).await;
    assert_eq!(all.len(), 4);
    let report = audit::order(&b, &name, audit::Order::default()).await;
    assert_eq!(report.faults.len(), 1, "{report}");
    assert_eq!(report.faults[0].wrong, audit::Wrong::Gap(1, 3));
    tokio::task::spawn_blocking(move || open.commit_transaction(SOON)).await.unwrap().expect("commit");
    assert_eq!(topic::wait(&b, &name, 3, SOON).await.len(), 3);
    assert_eq!(topic::names(&b, &name).await, [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_reached_through_proxies_only() {
    let Some(kafka) = servers::own_kafka(1).await else { return };
    let (proxies, bootstrap) = kafka.proxied().await;
    let name = unique("proxied");
    make_topic(&bootstrap, &name, 1).await;
    let (topic_name, through) = (name.clone(), bootstrap.clone());
    tokio::task::spawn_blocking(move || {
        let one = producer(&through, &topic_name);
        one.begin_transaction().expect("begin");
        send(&one, &topic_name, 1, 1);
        one.commit_transaction(SOON).expect("commit");
    })
    .await
    .unwrap();
    assert_eq!(topic::read(&bootstrap, &name).await.len(), 1);
    assert!(proxies[0].bytes(Way::Up) > 0);
    // With the proxy closed there is no way round it, and the broker is still there for others.
    proxies[0].refuse(true);
    proxies[0].cut();
    assert_eq!(topic::read(&kafka.bootstrap, &name).await.len(), 1);
    eventually(SOON, "all closed", async || if proxies[0].open() == 0 { Ok(()) } else { Err(proxies[0].open()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_outlive_one() {
    let Some(kafka) = servers::own_kafka(3).await else { return };
    let name = unique("three");
    make_topic(&kafka.bootstrap, &name, 3).await;
    kafka.kill(2);
    let (topic_name, bootstrap) = (unique("lone"), kafka.bootstrap.clone());
    eventually(SOON, "a transaction with two of three", async || {
        let (topic_name, bootstrap) = (topic_name.clone(), bootstrap.clone());
        tokio::task::spawn_blocking(move || {
            let one: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &bootstrap)
                .set("transactional.id", &topic_name)
                .create()
                .map_err(|e| e.to_string())?;
            one.init_transactions(Duration::from_secs(10)).map_err(|e| e.to_string())
        })
        .await
        .expect("the thread")
    })
    .await;
    kafka.start(2);
    assert!(topic::names(&kafka.bootstrap, &name).await.contains(&name));
}

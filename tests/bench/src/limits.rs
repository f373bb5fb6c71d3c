//! What the source and Kafka can do by themselves: no daemon can be faster than the slower of them.
//!
//! - PostgreSQL: a bare replication socket ([`walsender`]); MySQL and MariaDB: a bare binlog socket ([`dump`]). Both read in
//!   gulps, look at message types to know the end, and at nothing else.
//! - Kafka: a transactional producer, set as the daemon's is, that sends records as the daemon wrote them; and for latency two
//!   that take turns and are told of each row by who wrote it ([`turns`]).

mod dump;
pub mod turns;
mod walsender;

use crate::{
    case::Case,
    load::Load,
    measure::{Meter, Topics, round, server},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaRespErr,
};
use seachange_testkit::unique;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(600);
/// As the daemon's `limits.commit_bytes`.
const COMMIT_BYTES: usize = 16 << 20;

/// What a bare socket has seen.
pub struct Drained {
    pub seconds: f64,
    pub bytes: u64,
}

/// The source alone, over the backlog that was written since [`Load::mark`].
pub async fn source(load: &Load, case: &Case) -> Value {
    let rows = case.rows;
    let meter = Meter::new(0, server(case.kind.name()));
    let drained = match load {
        Load::Postgres(l) => {
            let (port, db, name) = (l.db.port, l.db.name.clone(), l.limit.clone().expect("a mark"));
            tokio::task::spawn_blocking(move || walsender::drain(port, &db, &name, rows, PATIENCE)).await
        }
        Load::Binlog(l) => {
            let (url, file) = (l.url.clone(), l.limit.clone().expect("a mark"));
            tokio::task::spawn_blocking(move || dump::drain(&url, &file, PATIENCE)).await
        }
    };
    let drained = drained.expect("the draining thread").unwrap_or_else(|e| panic!("the source's limit: {e}"));
    let used = meter.usage();
    let us = |s: f64| round(1e6 * s / rows as f64);
    json!({
        "rows_s": round(rows as f64 / drained.seconds), "mb_s": round(drained.bytes as f64 / 1e6 / drained.seconds),
        "bytes_row": round(drained.bytes as f64 / rows as f64), "database_us_row": us(used.database),
        "reader_us_row": us(used.own), "others": round(used.others()),
    })
}

/// A new topic of one partition.
pub async fn topic(bootstrap: &str) -> String {
    let topic = unique("limit");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client");
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&new], &AdminOptions::new()).await.expect("an answer of the broker");
    made.into_iter().for_each(|r| drop(r.expect("a topic")));
    topic
}

/// A transactional producer, ready to begin, set as the daemon's own and as `more` says.
fn producer(bootstrap: &str, more: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", unique("limit"))
        // A batch that is due behind one on its way makes librdkafka's thread spin.
        .set("linger.ms", "50")
        .set("compression.type", "lz4")
        .set("delivery.report.only.error", "true");
    for (name, value) in more {
        config.set(*name, *value);
    }
    let producer: BaseProducer = config.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    producer
}

/// Commits, without the 100 ms that `commit_transaction` sleeps when a record is still on its way.
fn commit(producer: &BaseProducer) {
    // SAFETY: `native_ptr` is this producer's live handle, which the reference keeps alive during the call. The function is
    // thread-safe, takes no other pointer, and only waits until no message is left. With reports of errors only, nobody has to
    // serve events meanwhile.
    let answer = unsafe {
        rdkafka::bindings::rd_kafka_flush(
            producer.client().native_ptr(),
            PATIENCE.as_millis().try_into().unwrap_or(i32::MAX),
        )
    };
    assert_eq!(answer, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, "records on their way");
    producer.commit_transaction(PATIENCE).expect("a commit");
}

/// Kafka alone: as many records as these samples make, again and again, by one transactional producer that waits for each of
/// its commits. Two that take turns, as the daemon's, can be faster.
pub async fn kafka(bootstrap: &str, sample: Vec<(Vec<u8>, Vec<u8>)>, records: u64) -> Value {
    assert!(!sample.is_empty(), "records to repeat");
    let topic = topic(bootstrap).await;
    let (to, at) = (topic.clone(), bootstrap.to_owned());
    let meter = Meter::new(0, 0);
    let seconds =
        tokio::task::spawn_blocking(move || send(&at, &to, &sample, records)).await.expect("the sending thread");
    let used = meter.usage();
    Topics::new(bootstrap, vec![topic]).delete().await;
    let us = |s: f64| round(1e6 * s / records as f64);
    json!({
        "records_s": round(records as f64 / seconds), "broker_us_record": us(used.broker),
        "producer_us_record": us(used.own), "others": round(used.others()),
    })
}

/// Seconds from the first record to the last commit.
fn send(bootstrap: &str, topic: &str, sample: &[(Vec<u8>, Vec<u8>)], records: u64) -> f64 {
    let producer = producer(
        bootstrap,
        &[
            ("batch.size", "1000000"),
            ("queue.buffering.max.messages", "500000"),
            ("queue.buffering.max.kbytes", "5000"),
            ("message.max.bytes", "5000000"),
        ],
    );
    let (began, mut bytes, mut open) = (std::time::Instant::now(), 0, false);
    for (key, value) in sample.iter().cycle().take(usize::try_from(records).expect("a number of records")) {
        if !open {
            producer.begin_transaction().expect("a transaction");
            open = true;
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(0).key(key.as_slice()).payload(value.as_slice());
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(1));
                }
                Err((e, _)) => panic!("Kafka's limit: {e}"),
            }
        }
        bytes += key.len() + value.len();
        if bytes >= COMMIT_BYTES {
            commit(&producer);
            (bytes, open) = (0, false);
        }
    }
    if open {
        commit(&producer);
    }
    began.elapsed().as_secs_f64()
}

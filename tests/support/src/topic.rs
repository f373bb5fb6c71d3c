//! Topics as a consumer sees them.
//!
//! A read goes from the start of every partition to its end as of the read. The end is told by the broker, which under
//! `read_committed` is the last stable offset: an open transaction, and whatever follows it, is not seen and not waited
//! for. It is asked for at the start, so that a read ends although somebody goes on writing; the end-of-partition event
//! tells it where the last offsets hold no record (transaction markers).

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use serde_json::Value;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time, in milliseconds.
    pub timestamp: Option<i64>,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

fn json(bytes: &[u8], at: &Record, part: &str) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| {
        panic!(
            "{}[{}]@{}: the {part} is not JSON: {e}: {}",
            at.topic,
            at.partition,
            at.offset,
            String::from_utf8_lossy(bytes)
        )
    })
}

/// Takes the `payload` out of a `{"schema": .., "payload": ..}` pair.
fn unwrapped(value: Value) -> Value {
    match value {
        Value::Object(mut map) if map.contains_key("schema") && map.contains_key("payload") => {
            map.remove("payload").unwrap_or(Value::Null)
        }
        other => other,
    }
}

impl Record {
    /// The key as JSON, without its schema; null when there is none.
    pub fn key_json(&self) -> Value {
        self.key.as_ref().map_or(Value::Null, |k| unwrapped(json(k, self, "key")))
    }
    /// The value as JSON, without its schema; null for a tombstone.
    pub fn value_json(&self) -> Value {
        self.value.as_ref().map_or(Value::Null, |v| unwrapped(json(v, self, "value")))
    }
    /// The envelope's `op`, empty when there is none.
    pub fn op(&self) -> String {
        self.value_json()["op"].as_str().unwrap_or_default().to_owned()
    }
    /// A header's bytes.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(k, _)| k == name).and_then(|(_, v)| v.as_deref())
    }
}

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, up to the first open one.
    Committed,
    /// All, of aborted transactions too.
    Uncommitted,
}

/// How long a read may go without a record or an end.
const PATIENCE: Duration = Duration::from_secs(30);

fn consumer(bootstrap: &str, isolation: Isolation) -> BaseConsumer {
    let level = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", crate::unique("testkit"))
        .set("isolation.level", level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "error")
        // Behind the last record is the marker of its transaction: the end is told by a fetch of its own, which the broker
        // holds back this long for want of records (500 ms by default).
        .set("fetch.wait.max.ms", "10")
        .set("fetch.message.max.bytes", "104857600")
        .set("receive.message.max.bytes", "209715200")
        .create()
        .expect("a consumer")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let meta = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap_or_else(|e| panic!("metadata of {topic}: {e}"));
    let found = meta.topics().iter().find(|t| t.name() == topic);
    found.map_or_else(Vec::new, |t| t.partitions().iter().map(|p| p.id()).collect())
}

/// The end of a partition. One that was made a moment ago, or whose broker just came back, may have no leader yet. The
/// client keeps that answer and gives it again without asking the broker, so the metadata is fetched before each new try.
fn end_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    let began = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok((_, end)) => return end,
            Err(e) => assert!(began.elapsed() < PATIENCE, "end of {topic}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
        partitions(consumer, topic);
    }
}

fn read_topic(consumer: &BaseConsumer, topic: &str) -> Vec<Record> {
    let mut open: HashMap<i32, i64> = partitions(consumer, topic)
        .into_iter()
        .map(|p| (p, end_of(consumer, topic, p)))
        .filter(|(_, end)| *end > 0)
        .collect();
    let mut list = TopicPartitionList::new();
    for p in open.keys() {
        list.add_partition_offset(topic, *p, Offset::Beginning).expect("an offset");
    }
    let mut records = Vec::new();
    if open.is_empty() {
        return records;
    }
    consumer.assign(&list).expect("assign");
    let mut last = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None => {
                assert!(last.elapsed() < PATIENCE, "{topic}: neither a record nor the end of {open:?} for {PATIENCE:?}")
            }
            Some(Err(KafkaError::PartitionEOF(p))) => {
                open.remove(&p);
                last = Instant::now();
            }
            // A broker that is down is tried again by the client: only the patience ends it.
            Some(Err(e)) => assert!(last.elapsed() < PATIENCE, "{topic}: {e}"),
            Some(Ok(m)) => {
                last = Instant::now();
                // What comes after the end as of this read is another read's business.
                let Some(end) = open.get(&m.partition()).copied() else { continue };
                if m.offset() + 1 >= end {
                    open.remove(&m.partition());
                }
                if m.offset() >= end {
                    continue;
                }
                let headers = m.headers().map_or_else(Vec::new, |h| {
                    h.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                });
                records.push(Record {
                    topic: topic.to_owned(),
                    partition: m.partition(),
                    offset: m.offset(),
                    timestamp: m.timestamp().to_millis(),
                    key: m.key().map(<[u8]>::to_vec),
                    value: m.payload().map(<[u8]>::to_vec),
                    headers,
                });
            }
        }
    }
    records.sort_by_key(|r| (r.partition, r.offset));
    records
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the reading thread")
}

/// Every committed record of a topic, by partition and offset. None for a topic that is not there.
pub async fn read(bootstrap: &str, topic: &str) -> Vec<Record> {
    read_as(bootstrap, topic, Isolation::Committed).await
}

/// Every record of a topic, as a consumer of that isolation sees it.
pub async fn read_as(bootstrap: &str, topic: &str, isolation: Isolation) -> Vec<Record> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    on_thread(move || read_topic(&consumer(&bootstrap, isolation), &topic)).await
}

/// Every committed record of all topics whose name begins with `prefix`, by topic, partition and offset.
pub async fn read_all(bootstrap: &str, prefix: &str) -> Vec<Record> {
    let (bootstrap, prefix) = (bootstrap.to_owned(), prefix.to_owned());
    on_thread(move || {
        let consumer = consumer(&bootstrap, Isolation::Committed);
        names_of(&consumer, &prefix).iter().flat_map(|topic| read_topic(&consumer, topic)).collect()
    })
    .await
}

fn names_of(consumer: &BaseConsumer, prefix: &str) -> Vec<String> {
    let meta = consumer.fetch_metadata(None, PATIENCE).expect("the list of topics");
    let names = meta.topics().iter().map(|t| t.name().to_owned());
    let mut names: Vec<_> = names.filter(|n| n.starts_with(prefix)).collect();
    names.sort();
    names
}

/// The topics whose name begins with `prefix`, sorted.
pub async fn names(bootstrap: &str, prefix: &str) -> Vec<String> {
    let (bootstrap, prefix) = (bootstrap.to_owned(), prefix.to_owned());
    on_thread(move || names_of(&consumer(&bootstrap, Isolation::Committed), &prefix)).await
}

/// Waits until a topic has at least `count` committed records, and gives all it has then.
pub async fn wait(bootstrap: &str, topic: &str, count: usize, deadline: Duration) -> Vec<Record> {
    let what = format!("{count} records in {topic}");
    crate::eventually(deadline, &what, async || {
        let records = read(bootstrap, topic).await;
        if records.len() >= count { Ok(records) } else { Err(format!("{} so far", records.len())) }
    })
    .await
}

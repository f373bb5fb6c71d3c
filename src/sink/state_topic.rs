//! The state topic: one partition, compacted; what a pipeline stores, by key.
//!
//! Reading it back must not miss the last commit, or a pipeline would publish twice. "Up to the end" is a weak
//! notion: control records hold offsets that no reader is given, and a partition's new leader may for a moment tell a
//! high watermark that lies before the last acknowledged record. So [`read`] does not ask where the end is. The opener,
//! which has already fenced every older owner, commits a record of its own (key `opened`, with a nonce), and reads until
//! it meets that record. One partition is one order: everything committed before it has been read by then, and nobody
//! else can write after it. Compaction keeps the newest record of each key and never reorders, so it changes nothing.
//! Transactions with records hold it again ([`super::kafka`] says why): who opened last is who wrote last, all the same.

use super::{
    Stored, properties,
    topics::{self, Patience, Shape},
    trouble::Trouble,
};
use crate::config::resolved::Kafka;
use rdkafka::{
    TopicPartitionList,
    client::Client,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::Message,
    topic_partition_list::Offset,
};
use seachange_sdk::{Check, Error, Kind, Outcome, Result, Retry, Side};
use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

/// Key of the record by which an opener recognises the end. No part of [`Stored`].
pub const OPENED: &str = "opened";

/// How the topic is made. Small segments, so that compaction (which leaves the active one alone) keeps what has to be
/// read at start small, with indexes of their size (an entry of 12 bytes for 4 KiB at most): a broker lays out 10 MiB for each
/// otherwise. Tombstones and markers go after ten minutes, far longer than a reading takes.
pub fn shape(replication: Option<i32>) -> Shape {
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "8388608"),
        ("segment.index.bytes", "65536"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("delete.retention.ms", "600000"),
    ];
    Shape {
        partitions: 1,
        replication,
        settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
    }
}

/// Makes the topic if it is missing, and refuses one that would forget: retention by time or size loses the position.
pub fn ensure(
    client: &Client<Trouble>,
    kafka: &Kafka,
    topic: &str,
    replication: Option<i32>,
    patience: &Patience,
) -> Result<()> {
    if topics::partitions(client, topic, patience)?.is_none() {
        topics::ensure(client, kafka, &[(topic, &shape(replication))], patience)?;
        return Ok(());
    }
    match topics::compacted(client.context(), kafka, topic, patience)? {
        Some(false) => Err(not_compacted(topic)),
        Some(true) => Ok(()),
        None => {
            tracing::warn!(
                topic,
                "cannot see whether the state topic is compacted; grant DescribeConfigs to have it checked"
            );
            Ok(())
        }
    }
}

fn not_compacted(topic: &str) -> Error {
    let what = format!("the state topic {topic} is not compacted: its retention would delete the pipeline's position");
    Error::new(Kind::State, Side::Sink, Retry::Operator, what).fix(format!(
        "kafka-configs --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact"
    ))
}

/// A consumer of the topic's only partition, from its start, and where it ended then. While a pipeline runs the end moves on
/// quicker than one may read: who asks what is there must not wait until nothing more comes.
fn consumer(
    kafka: &Kafka,
    id: &str,
    topic: &str,
    trouble: &Trouble,
    eof: bool,
    patience: &Patience,
) -> Result<Option<(BaseConsumer<Trouble>, i64)>> {
    let what = || format!("reading the state topic {topic}");
    let mut config = properties::consumer(kafka, id);
    config.set("enable.partition.eof", if eof { "true" } else { "false" });
    let consumer: BaseConsumer<Trouble> =
        config.create_with_context(trouble.clone()).map_err(|e| trouble.error(&what(), &e))?;
    if topics::partitions(consumer.client(), topic, patience)?.is_none() {
        return Ok(None);
    }
    // Asking for the start by itself, instead of assigning "from the beginning", makes the client connect to the
    // partition's leader at once: an assignment whose leader it does not know yet is looked at again after 500 ms only.
    let (start, end) = loop {
        let Some(slice) = patience.left(Duration::from_secs(2)) else { return Err(patience.over(trouble, &what())) };
        match consumer.fetch_watermarks(topic, 0, slice) {
            Ok(bounds) => break bounds,
            Err(e) => {
                let error = trouble.error(&what(), &e);
                if error.retryable() != Retry::Backoff {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(20));
                // "No leader" stays in the client's cache, and would be its answer again: this asks the broker anew.
                topics::partitions(consumer.client(), topic, patience)?;
            }
        }
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(start)).map_err(|e| trouble.error(&what(), &e))?;
    consumer.assign(&list).map_err(|e| trouble.error(&what(), &e))?;
    Ok(Some((consumer, end)))
}

/// What one step of reading gave.
enum Step {
    /// An entry, or a tombstone, and its offset.
    Entry(i64, String, Option<Vec<u8>>),
    /// The partition's end, as far as the broker told.
    End,
}

fn step(consumer: &BaseConsumer<Trouble>, topic: &str, trouble: &Trouble, patience: &Patience) -> Result<Step> {
    let what = || format!("reading the state topic {topic}");
    loop {
        let Some(slice) = patience.left(Duration::from_millis(200)) else {
            return Err(patience.over(trouble, &what()));
        };
        match consumer.poll(slice) {
            None => {}
            Some(Ok(message)) => {
                let key = std::str::from_utf8(message.key().unwrap_or_default()).map_err(|_| {
                    Error::new(
                        Kind::State,
                        Side::Sink,
                        Retry::Operator,
                        format!(
                            "the state topic {topic} holds a record at offset {} that is not Seachange's",
                            message.offset()
                        ),
                    )
                    .fix("let nothing else write to the state topic; choose another cluster prefix for the sink")
                })?;
                return Ok(Step::Entry(message.offset(), key.to_owned(), message.payload().map(<[u8]>::to_vec)));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Step::End),
            Some(Err(e)) => match e.rdkafka_error_code() {
                // The consumer belongs to a group in name only: not being allowed to use it is no trouble.
                Some(Code::GroupAuthorizationFailed) => {}
                Some(code) => {
                    let error = trouble.error(&what(), &e);
                    // The client itself goes on after lost connections and elections; patience ends that.
                    if error.kind() != Kind::Connect
                        && code != Code::UnknownTopicOrPartition
                        && code != Code::UnknownTopic
                    {
                        return Err(error);
                    }
                }
                None => return Err(trouble.error(&what(), &e)),
            },
        }
    }
}

fn put(stored: &mut Stored, key: String, value: Option<Vec<u8>>) {
    match value {
        Some(v) => stored.insert(key, v),
        None => stored.remove(&key),
    };
}

/// Everything stored before the record [`OPENED`] that holds `nonce`.
pub fn read(
    kafka: &Kafka,
    id: &str,
    topic: &str,
    nonce: &[u8],
    trouble: &Trouble,
    patience: &Patience,
) -> Result<Stored> {
    let (consumer, _) = consumer(kafka, id, topic, trouble, false, patience)?.ok_or_else(|| {
        Error::sink(Kind::State, format!("the state topic {topic} has been deleted while it was read"))
    })?;
    let mut stored = Stored::new();
    loop {
        match step(&consumer, topic, trouble, patience)? {
            Step::Entry(_, key, value) if key == OPENED => {
                if value.as_deref() == Some(nonce) {
                    // Closing takes round trips and waits of 100 ms and more that nobody needs. Without a thread it is
                    // closed right here.
                    let closing = thread::Builder::new().name("closing".into()).spawn(move || drop(consumer));
                    if let Err(e) = closing {
                        tracing::debug!(error = %e, "no thread to close a consumer on");
                    }
                    return Ok(stored);
                }
            }
            Step::Entry(_, key, value) => put(&mut stored, key, value),
            Step::End => {}
        }
    }
}

/// What is stored now, for a person: fences nobody and changes nothing, so what a running pipeline commits meanwhile may
/// be missing. `None` when there is no state topic. Waits 30 s at most.
pub fn peek(kafka: &Kafka, id: &str, topic: &str, pipeline: &str) -> Result<Option<Stored>> {
    let (trouble, patience) = (&Trouble::new(pipeline), &Patience::new(&Arc::default(), Duration::from_secs(30)));
    let Some((consumer, end)) = consumer(kafka, id, topic, trouble, true, patience)? else { return Ok(None) };
    let mut stored = Stored::new();
    loop {
        match step(&consumer, topic, trouble, patience)? {
            Step::Entry(at, ..) if at >= end => return Ok(Some(stored)),
            Step::Entry(_, key, _) if key == OPENED => {}
            Step::Entry(_, key, value) => put(&mut stored, key, value),
            Step::End => return Ok(Some(stored)),
        }
    }
}

/// Who opened last: the newest record [`OPENED`]. `None` when there is none. Fences nobody.
pub fn opened_by(
    kafka: &Kafka,
    id: &str,
    topic: &str,
    trouble: &Trouble,
    patience: &Patience,
) -> Result<Option<Vec<u8>>> {
    let Some((consumer, end)) = consumer(kafka, id, topic, trouble, true, patience)? else { return Ok(None) };
    let mut last = None;
    loop {
        match step(&consumer, topic, trouble, patience)? {
            Step::Entry(at, ..) if at >= end => return Ok(last),
            Step::Entry(_, key, value) if key == OPENED => last = value,
            Step::Entry(..) => {}
            Step::End => return Ok(last),
        }
    }
}

/// Preflight: does a broker answer, and what of the state topic? Creates and fences nothing.
pub fn check(kafka: &Kafka, topic: &str, pipeline: &str) -> Vec<Check> {
    let trouble = Trouble::new(pipeline);
    let patience = Patience::new(&Arc::default(), Duration::from_secs(10));
    let fail = |e: &Error| Outcome::Fail(e.to_string(), e.remedy().unwrap_or("see the log").to_owned());
    let found = properties::client(kafka)
        .create_with_context::<_, BaseConsumer<Trouble>>(trouble.clone())
        .map_err(|e| trouble.error("Kafka client", &e))
        .and_then(|c| topics::partitions(c.client(), topic, &patience));
    let found = match found {
        Ok(found) => found,
        Err(e) => return vec![Check { name: "kafka".into(), outcome: fail(&e) }],
    };
    let state = match found {
        None => Outcome::Pass(format!("{topic} does not exist yet and will be created")),
        Some(_) => match topics::compacted(&trouble, kafka, topic, &patience) {
            Ok(Some(true)) => Outcome::Pass(format!("{topic} is compacted")),
            Ok(Some(false)) => fail(&not_compacted(topic)),
            Ok(None) => Outcome::Warn(
                format!("{topic}: the broker does not tell its settings"),
                "grant DescribeConfigs on it to have it checked".into(),
            ),
            Err(e) => fail(&e),
        },
    };
    vec![
        Check { name: "kafka".into(), outcome: Outcome::Pass(format!("{} answers", kafka.bootstrap)) },
        Check { name: "state topic".into(), outcome: state },
    ]
}

//! librdkafka's properties: what Seachange sets, what the user may set, and what nobody may.
//!
//! The user's `kafka.properties` go to every client as they are, over the defaults of [`producer`]. A few would break
//! what the sink promises (exactly once, order, topics made as configured); those are faults of the configuration, told
//! by [`property_faults`] with their name. Values may be secrets and are never repeated.

use crate::config::resolved::Kafka;
use rdkafka::{
    ClientConfig, config::RDKafkaLogLevel, error::KafkaError, producer::BaseProducer, types::RDKafkaConfRes,
};
use seachange_sdk::{Fault, Secret};
use std::{collections::BTreeMap, time::Duration};

/// Bytes of records that wait in the client, unless `queue.buffering.max.kbytes` says otherwise. The sink itself keeps to
/// it: librdkafka's own bound would refuse a record larger than it for ever, so that is set to let one such record pass.
pub const QUEUE_KBYTES: usize = 16 << 10;

/// Largest record that is tried: below the 100 MiB request that a broker reads at most by default (`socket.request.max.bytes`);
/// a larger one would only close the connection. The broker's and topic's own limits are lower and are told by it.
const MESSAGE_MAX: usize = 100_000_000;

/// librdkafka's own default, below the 1 MiB (and a few bytes) that a topic takes at most by default.
const BATCH_SIZE: usize = 1_000_000;

/// What every client has: addresses and the user's properties.
pub fn client(kafka: &Kafka) -> ClientConfig {
    let mut c = ClientConfig::new();
    // The first wait of several, each twice as long up to `reconnect.backoff.max.ms`. A client that has learned the name of
    // its bootstrap broker connects to it anew, which counts: 100 ms, the default, would be a third of a start.
    c.set("reconnect.backoff.ms", "10");
    for (name, value) in &kafka.properties {
        c.set(name, value.reveal());
    }
    c.set("bootstrap.servers", &kafka.bootstrap);
    // Topics are made with configured partitions and settings, never by the broker's guess.
    c.set("allow.auto.create.topics", "false");
    c.set_log_level(if kafka.properties.contains_key("debug") {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    c
}

/// The transactional producer.
pub fn producer(kafka: &Kafka, transactional_id: &str, timeout: Duration) -> ClientConfig {
    let mut c = client(kafka);
    for (name, value) in [
        // Long enough to fill batches under load; an explicit flush at commit cuts it short, so it adds no latency. A batch
        // that is due while another one is on its way makes librdkafka's thread spin (see `handover`).
        ("linger.ms", "50".to_owned()),
        ("batch.size", batch_size(kafka).to_string()),
        ("compression.type", "lz4".to_owned()),
        ("queue.buffering.max.messages", "500000".to_owned()),
        ("message.max.bytes", MESSAGE_MAX.to_string()),
        // Small requests (end of transaction) must not wait for the acknowledgement of the segment before.
        ("socket.nagle.disable", "true".to_owned()),
    ] {
        if !aliases(name).iter().any(|n| kafka.properties.contains_key(*n)) {
            c.set(name, value);
        }
    }
    let kbytes = (queue_bytes(kafka) >> 10).max(number(kafka, "message.max.bytes", MESSAGE_MAX) / 1000 * 2);
    for other in aliases("queue.buffering.max.kbytes") {
        c.remove(other);
    }
    c.set("queue.buffering.max.kbytes", kbytes.min(i32::MAX as usize).to_string());
    c.set("transactional.id", transactional_id);
    c.set("enable.idempotence", "true");
    c.set("transaction.timeout.ms", timeout.as_millis().to_string());
    // Deliveries are counted by librdkafka itself (flush, queue length): a report a record would cost a lock and a
    // callback for each, to say what the commit says anyway.
    c.set("delivery.report.only.error", "true");
    c
}

/// The consumer that reads the state topic.
pub fn consumer(kafka: &Kafka, transactional_id: &str) -> ClientConfig {
    let mut c = client(kafka);
    // librdkafka assigns partitions only to members of a named group; nothing is ever committed under it.
    c.set("group.id", transactional_id);
    c.set("enable.auto.commit", "false");
    c.set("enable.auto.offset.store", "false");
    c.set("isolation.level", "read_committed");
    c.set("auto.offset.reset", "earliest");
    c.set("queued.max.messages.kbytes", "8192");
    c
}

/// Bytes of records that may wait in the client.
pub fn queue_bytes(kafka: &Kafka) -> usize {
    number(kafka, "queue.buffering.max.kbytes", QUEUE_KBYTES).saturating_mul(1 << 10)
}

/// Bytes of one request to a partition. A queue that no whole batch fits into would be emptied by `linger.ms` alone.
pub fn batch_size(kafka: &Kafka) -> usize {
    number(kafka, "batch.size", BATCH_SIZE.min(queue_bytes(kafka) / 2))
}

fn number(kafka: &Kafka, name: &'static str, default: usize) -> usize {
    // A value that is no number is refused by librdkafka itself, with the property's name.
    let given = aliases(name).iter().find_map(|n| kafka.properties.get(*n));
    given.and_then(|v| v.reveal().trim().parse().ok()).unwrap_or(default)
}

/// All names of a property.
fn aliases(name: &'static str) -> &'static [&'static str] {
    match name {
        "linger.ms" => &["linger.ms", "queue.buffering.max.ms"],
        "compression.type" => &["compression.type", "compression.codec"],
        "queue.buffering.max.kbytes" => &["queue.buffering.max.kbytes"],
        "queue.buffering.max.messages" => &["queue.buffering.max.messages"],
        "message.max.bytes" => &["message.max.bytes"],
        "batch.size" => &["batch.size"],
        "socket.nagle.disable" => &["socket.nagle.disable"],
        _ => &[],
    }
}

/// Why a property may not be set, or not like this.
fn forbidden(name: &str, value: &str) -> Option<(&'static str, &'static str)> {
    let exactly_once = "would break exactly-once delivery";
    match name {
        "bootstrap.servers" | "metadata.broker.list" => {
            Some(("says what kafka.bootstrap says", "remove it and use kafka.bootstrap"))
        }
        "transactional.id" | "group.id" => {
            Some(("is derived from the pipeline's name", "remove it; change the sink's cluster to change the prefix"))
        }
        "transaction.timeout.ms" => {
            Some(("has an option of its own", "remove it and use the sink's transaction_timeout"))
        }
        "enable.idempotence" if value != "true" => Some((exactly_once, "remove it: it is always true")),
        "acks" | "request.required.acks" if !matches!(value, "all" | "-1") => {
            Some((exactly_once, "remove it: it is always all"))
        }
        "max.in.flight" | "max.in.flight.requests.per.connection"
            if !value.parse::<u32>().is_ok_and(|n| (1..=5).contains(&n)) =>
        {
            Some((exactly_once, "remove it, or set 1 to 5"))
        }
        "isolation.level" | "enable.auto.commit" | "enable.auto.offset.store" | "auto.offset.reset" => {
            Some(("belongs to the reading of stored state", "remove it"))
        }
        "delivery.report.only.error" | "queuing.strategy" | "enable.gapless.guarantee" => {
            Some(("belongs to how the sink follows deliveries", "remove it"))
        }
        "allow.auto.create.topics" if value != "false" => Some((
            "would let the broker guess a topic's shape",
            "remove it: topics are made as pipeline.NAME.topics says",
        )),
        "partitioner" | "sticky.partitioning.linger.ms" => {
            Some(("has no effect: records go to the partition that Kafka's Java client would choose", "remove it"))
        }
        _ => None,
    }
}

/// Everything wrong with `kafka.properties`: what librdkafka does not know or not accept, and what must not be set.
/// Names only, never values. Paths are `kafka.properties.NAME`.
pub fn property_faults(properties: &BTreeMap<String, Secret>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, value) in properties {
        let path = format!("kafka.properties.{name}");
        if let Some((what, fix)) = forbidden(name, value.reveal()) {
            faults.push(Fault::new(path, format!("the property {what}"), fix));
            continue;
        }
        let mut one = ClientConfig::new();
        one.set(name, value.reveal());
        match one.create_native_config() {
            Ok(_) => {}
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => faults.push(Fault::new(
                path,
                "librdkafka has no property of this name",
                "see librdkafka's CONFIGURATION.md for the names",
            )),
            Err(_) => faults.push(Fault::new(
                path,
                "librdkafka does not accept the value of this property",
                "see librdkafka's CONFIGURATION.md for its values",
            )),
        }
    }
    if faults.is_empty() {
        faults.extend(together(properties));
    }
    faults
}

/// Faults that show only when the properties meet: contradictions, files that cannot be read. A client is made and
/// dropped again; without addresses it connects to nothing.
fn together(properties: &BTreeMap<String, Secret>) -> Option<Fault> {
    let kafka = Kafka { bootstrap: String::new(), properties: properties.clone() };
    let mut c = producer(&kafka, "seachange.check", Duration::from_secs(60));
    c.remove("bootstrap.servers");
    c.set_log_level(RDKafkaLogLevel::Emerg);
    match c.create_with_context::<_, BaseProducer<super::trouble::Trouble>>(super::trouble::Trouble::new("check")) {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, _, key, _)) => Some(Fault::new(
            format!("kafka.properties.{key}"),
            "librdkafka does not accept the value of this property",
            "see librdkafka's CONFIGURATION.md for its values",
        )),
        Err(KafkaError::ClientCreation(text)) => {
            Some(Fault::new("kafka.properties", text, "correct the properties named here"))
        }
        Err(e) => Some(Fault::new("kafka.properties", e.to_string(), "correct the properties named here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn props(list: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        list.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect()
    }

    #[test]
    fn good_properties_have_no_faults() {
        let p = props(&[
            ("compression.type", "zstd"),
            ("linger.ms", "20"),
            ("acks", "all"),
            ("max.in.flight", "3"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
        ]);
        assert_eq!(property_faults(&p), []);
        assert_eq!(property_faults(&props(&[])), []);
    }

    #[test]
    fn every_fault_at_once_and_no_value() {
        let p = props(&[
            ("acks", "1"),
            ("batch.size", "hunter2"),
            ("enable.idempotence", "false"),
            ("max.in.flight.requests.per.connection", "6"),
            ("no.such.property", "hunter2"),
            ("transactional.id", "hunter2"),
        ]);
        let faults = property_faults(&p);
        assert_eq!(faults.len(), 6, "{faults:?}");
        for (fault, name) in faults.iter().zip(p.keys()) {
            assert_eq!(fault.path, format!("kafka.properties.{name}"));
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn contradictions_and_unreadable_files_are_told() {
        let f = property_faults(&props(&[("security.protocol", "ssl"), ("ssl.ca.location", "no-such-file.pem")]));
        assert_eq!(f.len(), 1, "{f:?}");
        assert!(f[0].what.contains("ssl.ca.location"), "{f:?}");
    }

    #[test]
    fn a_record_larger_than_the_queue_can_pass() {
        let kafka = Kafka { bootstrap: "b:1".into(), properties: props(&[("queue.buffering.max.kbytes", "1024")]) };
        assert_eq!(queue_bytes(&kafka), 1 << 20);
        let c = producer(&kafka, "t", Duration::from_secs(60));
        let kbytes: usize = c.get("queue.buffering.max.kbytes").unwrap().parse().unwrap();
        assert!(kbytes * 1024 > MESSAGE_MAX);
        assert_eq!(c.get("linger.ms"), Some("50"));
        assert_eq!(c.get("batch.size"), Some("524288"), "two batches fit into the queue, or `linger.ms` empties it");
    }
}

//! Kafka, exactly once: records and the pipeline's state become visible in one Kafka transaction.
//!
//! Why nothing is lost and nothing comes twice: there is one transactional id a pipeline. [`open`](Sink::open) calls
//! `init_transactions` first: the broker finishes or aborts what an older owner left and raises the epoch, so that
//! nothing an older owner still sends is accepted. Only then is the state read back ([`state_topic`] argues why it is
//! complete). From there on every commit carries the state that belongs to its records, so a reader sees both or neither,
//! and a start after any crash goes on exactly behind what is visible. When the outcome of a commit is unknown (no answer
//! in time), the sink only says so: opening again resolves it in one of the two ways and the state tells which.
//!
//! Who waits for what: librdkafka sends in its own threads while records are appended; `commit` waits until all are
//! acknowledged and then ends the transaction. Both waits are on conditions, never on a poll interval: the crate's own
//! `flush` and `commit_transaction` would sleep through 100 ms whenever a record is still on its way. Every wait has a
//! deadline and ends when the pipeline is stopped.
//!
//! Copies: a record is copied once by the hand-over (into librdkafka's message) and once when librdkafka builds and
//! compresses the batch.

use super::{
    Entries, Records, Sink, Stored, properties,
    state_topic::{self, OPENED},
    topics::{self, Patience, Shape},
    trouble::{self, Trouble},
};
use crate::{
    config::resolved::{self, Kafka},
    sink::partition::partition,
};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
    types::RDKafkaRespErr,
};
use seachange_sdk::{Error, Kind, Result, Retry};
use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

/// How long each step of opening may take.
const OPEN: Duration = Duration::from_secs(30);
/// Longest single call into librdkafka: how soon a stop is noticed.
const SLICE: Duration = Duration::from_millis(500);
/// Bytes between two looks at how much is on its way.
const LOOK: usize = 256 << 10;

/// What is known of a topic. Its index is the one in [`Records`].
struct Handle {
    name: Arc<str>,
    /// 0: not looked up yet.
    partitions: i32,
    /// Where records without key go.
    keyless: i32,
}

/// The Kafka sink.
pub struct KafkaSink {
    kafka: Kafka,
    shape: Shape,
    transactional_id: String,
    state_topic: String,
    timeout: Duration,
    stop: Arc<AtomicBool>,
    trouble: Trouble,
    producer: Option<ThreadedProducer<Trouble>>,
    /// Is a Kafka transaction open?
    open: bool,
    handles: Vec<Handle>,
    window: Window,
}

impl KafkaSink {
    /// A sink for a pipeline; connects to nothing yet. Setting `stop` makes every wait end with an error.
    pub fn new(
        kafka: &Kafka,
        sink: &resolved::KafkaSink,
        topics: &resolved::Topics,
        pipeline: &str,
        stop: Arc<AtomicBool>,
    ) -> KafkaSink {
        KafkaSink {
            kafka: kafka.clone(),
            shape: Shape {
                partitions: topics.partitions,
                replication: topics.replication,
                settings: topics.settings.clone(),
            },
            transactional_id: sink.transactional_id(pipeline),
            state_topic: sink.state_topic(pipeline),
            timeout: sink.transaction_timeout,
            stop,
            trouble: Trouble::new(pipeline),
            producer: None,
            open: false,
            handles: Vec::new(),
            window: Window::new(properties::queue_bytes(kafka)),
        }
    }

    fn patience(&self, time: Duration) -> Patience {
        Patience::new(&self.stop, time)
    }

    fn producer(&self) -> Result<&ThreadedProducer<Trouble>> {
        self.producer.as_ref().ok_or_else(|| Error::bug("the Kafka sink is used before it is opened"))
    }

    /// Begins a Kafka transaction unless one is open.
    fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.producer()?.begin_transaction().map_err(|e| self.trouble.error("beginning a transaction", &e))?;
            self.open = true;
        }
        Ok(())
    }

    /// Why a call failed, most telling reason first: a record that Kafka refused, the end of this producer, the call's own.
    fn failed(&self, what: &str, e: &KafkaError) -> Error {
        if let Some(refused) = self.trouble.refused() {
            return trouble::refused(&refused, properties::batch_size(&self.kafka));
        }
        if let Some((code, text)) = self.producer.as_ref().and_then(|p| p.client().fatal_error()) {
            let e = trouble::from_code(code, format!("{what}: {text}"));
            // Whatever the code, this producer can do nothing more; a new one can.
            return if e.kind() == Kind::Sink { e.retry(Retry::Backoff) } else { e };
        }
        self.trouble.error(what, e)
    }

    /// Looks up and creates the topics of these records that are new.
    fn meet(&mut self, records: &Records) -> Result<()> {
        for i in 0..records.topic_count() {
            let name = records.topic_name(i as u32);
            match self.handles.get(i) {
                Some(h) if Arc::ptr_eq(&h.name, name) || h.name == *name => {}
                _ => {
                    // Another arena numbers topics differently: what is known moves with the names.
                    let known = self.handles.iter().skip(i).position(|h| h.name == *name);
                    match known {
                        Some(at) => self.handles.swap(i, i + at),
                        None => self.handles.insert(i, Handle { name: name.clone(), partitions: 0, keyless: 0 }),
                    }
                }
            }
        }
        let mut new: Vec<usize> = Vec::new();
        for r in &records.items {
            let i = r.topic as usize;
            match self.handles.get(i) {
                Some(h) if h.partitions > 0 || new.contains(&i) => {}
                Some(_) => new.push(i),
                None => return Err(Error::bug(format!("a record names topic {i}, which does not exist"))),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = new.iter().map(|i| (&*self.handles[*i].name, &self.shape)).collect();
        let patience = self.patience(self.timeout / 2);
        let counts = topics::ensure(self.producer()?.client(), &self.kafka, &wanted, &patience)?;
        for (i, count) in new.into_iter().zip(counts) {
            let h = &mut self.handles[i];
            h.keyless = partition(h.name.as_bytes(), count);
            h.partitions = count;
        }
        Ok(())
    }

    /// Waits until `size` more bytes may be handed over.
    fn wait_room(&mut self, size: usize, patience: &Patience) -> Result<()> {
        loop {
            let producer = self.producer.as_ref().ok_or_else(|| Error::bug("the sink is closed"))?;
            let on_the_way = usize::try_from(producer.in_flight_count()).unwrap_or(0);
            if self.window.room(on_the_way, size) {
                return Ok(());
            }
            if let Some(r) = self.trouble.refused() {
                return Err(trouble::refused(&r, properties::batch_size(&self.kafka)));
            }
            let Some(_) = patience.left(SLICE) else {
                return Err(patience.over(&self.trouble, "handing over records: the client's queue stays full"));
            };
            thread::sleep(Duration::from_micros(500));
        }
    }

    fn send(
        &mut self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
        patience: &Patience,
    ) -> Result<()> {
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if self.window.due(size) {
            self.wait_room(size, patience)?;
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        record.key = key;
        record.payload = value;
        record.headers = headers;
        loop {
            match self.producer()?.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    patience.left(SLICE).ok_or_else(|| {
                        patience.over(&self.trouble, "handing over records: the client's queue stays full")
                    })?;
                    thread::sleep(Duration::from_micros(500));
                    record = back;
                }
                Err((KafkaError::MessageProduction(code @ Code::MessageSizeTooLarge), _)) => {
                    let r = trouble::Refused { code, topic: topic.to_owned(), size };
                    return Err(trouble::refused(&r, properties::batch_size(&self.kafka)));
                }
                Err((e, _)) => return Err(self.failed(&format!("topic {topic}: handing over a record"), &e)),
            }
        }
        self.window.add(size);
        Ok(())
    }

    /// Waits until every record handed over has been acknowledged.
    fn drain(&self, patience: &Patience) -> Result<()> {
        let producer = self.producer()?;
        loop {
            // SAFETY: `native_ptr` is this producer's live handle, which `producer` keeps alive during the call. The
            // function is thread-safe, takes no other pointer, and only waits until no message is left (the producer's
            // own thread serves the events that it waits for), at most the given time. The crate's own `flush` is a
            // poll loop with a step of 100 ms.
            let answer = unsafe { rdkafka::bindings::rd_kafka_flush(producer.client().native_ptr(), 100) };
            if let Some(r) = self.trouble.refused() {
                return Err(trouble::refused(&r, properties::batch_size(&self.kafka)));
            }
            match answer {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(()),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT => {}
                e => return Err(trouble::from_code(e.into(), "waiting for acknowledgements".to_owned())),
            }
            if let Some((code, text)) = producer.client().fatal_error() {
                return Err(trouble::from_code(code, format!("waiting for acknowledgements: {text}")));
            }
            if patience.left(SLICE).is_none() {
                return Err(patience.over(&self.trouble, "waiting for acknowledgements"));
            }
        }
    }

    /// Repeats a transaction call until it succeeds, fails for good, or patience is over.
    fn call(
        &self,
        what: &str,
        patience: &Patience,
        f: impl Fn(&ThreadedProducer<Trouble>, Duration) -> Result<(), KafkaError>,
    ) -> Result<()> {
        let producer = self.producer()?;
        loop {
            let Some(slice) = patience.left(SLICE) else { return Err(patience.over(&self.trouble, what)) };
            let begun = Instant::now();
            match f(producer, slice) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(t)) if t.is_retriable() && !t.is_fatal() && !t.txn_requires_abort() => {
                    // Wrong passwords and untrusted certificates do not get better by waiting.
                    if let Some(e) = self.trouble.hopeless(what) {
                        return Err(e);
                    }
                    tracing::trace!(what, error = %t, "trying again");
                    if begun.elapsed() < Duration::from_millis(5) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                Err(e) => return Err(self.failed(what, &e)),
            }
        }
    }

    fn commit_open(&mut self) -> Result<()> {
        let patience = self.patience(self.timeout);
        self.drain(&patience)?;
        self.call("committing a transaction", &patience, |p, t| p.commit_transaction(t)).map_err(|e| {
            if e.kind() == Kind::Connect { e.at("the outcome is unknown until the next start") } else { e }
        })?;
        self.open = false;
        self.window.clear();
        Ok(())
    }

    /// After an error: gives up the transaction if that is quick, so that readers are not held back until it times out.
    fn give_up(&mut self, error: Error) -> Error {
        if self.open && !matches!(error.kind(), Kind::Fenced | Kind::Connect | Kind::Bug) {
            let patience = self.patience(Duration::from_secs(5));
            match self.call("aborting the failed transaction", &patience, |p, t| p.abort_transaction(t)) {
                Ok(()) => self.open = false,
                Err(e) => tracing::debug!(error = %e, "the failed transaction is left to the next start"),
            }
        }
        error
    }
}

impl Sink for KafkaSink {
    fn open(&mut self) -> Result<Stored> {
        self.producer = None;
        self.open = false;
        self.handles.clear();
        self.window.clear();
        self.trouble.forget();
        let config = properties::producer(&self.kafka, &self.transactional_id, self.timeout);
        let producer =
            config.create_with_context(self.trouble.clone()).map_err(|e| self.trouble.error("Kafka client", &e))?;
        self.producer = Some(producer);
        let begun = Instant::now();
        // A question that any broker answers, only to be connected: asked for its coordinator before that, librdkafka
        // waits 500 ms until it looks again.
        topics::partitions(self.producer()?.client(), &self.state_topic, &self.patience(OPEN))?;
        let what = format!("transactional id {}: taking over", self.transactional_id);
        self.call(&what, &self.patience(OPEN), |p, t| p.init_transactions(t))?;

        let topic = self.state_topic.clone();
        let patience = self.patience(OPEN);
        state_topic::ensure(self.producer()?.client(), &self.kafka, &topic, self.shape.replication, &patience)?;
        let random = RandomState::new();
        let nonce = format!("{:016x}{:016x} pid {}", random.hash_one(0), random.hash_one(1), std::process::id());
        self.begin()?;
        self.send(&topic, 0, Some(OPENED.as_bytes()), Some(nonce.as_bytes()), None, &patience)?;
        self.commit_open()?;
        let patience = self.patience(OPEN);
        let id = &self.transactional_id;
        let stored = state_topic::read(&self.kafka, id, &topic, nonce.as_bytes(), &self.trouble, &patience)?;
        tracing::debug!(id, entries = stored.len(), ms = begun.elapsed().as_millis() as u64, "Kafka sink opened");
        Ok(stored)
    }

    fn append(&mut self, records: &Records) -> Result<()> {
        if records.items.is_empty() {
            return Ok(());
        }
        self.meet(records)?;
        self.begin()?;
        let patience = self.patience(self.timeout / 2);
        for r in &records.items {
            let h = &self.handles[r.topic as usize];
            let key = r.key.as_ref().map(|k| records.bytes(k));
            let to = key.map_or(h.keyless, |k| partition(k, h.partitions));
            let name = Arc::clone(&h.name);
            let headers = (!r.headers.is_empty()).then(|| {
                let list = &records.headers[r.headers.start as usize..r.headers.end as usize];
                list.iter().fold(OwnedHeaders::new_with_capacity(list.len()), |all, h| {
                    all.insert(Header { key: h.name, value: Some(records.bytes(&h.value)) })
                })
            });
            let value = r.value.as_ref().map(|v| records.bytes(v));
            if let Err(e) = self.send(&name, to, key, value, headers, &patience) {
                return Err(self.give_up(e));
            }
        }
        Ok(())
    }

    fn commit(&mut self, entries: &Entries) -> Result<()> {
        if entries.is_empty() && !self.open {
            return Ok(());
        }
        self.begin()?;
        let patience = self.patience(self.timeout / 2);
        let topic = self.state_topic.clone();
        for (key, value) in entries {
            if key == OPENED {
                return Err(Error::bug("the key of a state entry is the sink's own"));
            }
            if let Err(e) = self.send(&topic, 0, Some(key.as_bytes()), value.as_deref(), None, &patience) {
                return Err(self.give_up(e));
            }
        }
        self.commit_open().map_err(|e| self.give_up(e))
    }

    fn abort(&mut self) -> Result<()> {
        if self.open {
            // A stop is what brings us here: the flag must not keep the abort from its few milliseconds.
            let patience = Patience::new(&Arc::default(), Duration::from_secs(5));
            self.call("aborting a transaction", &patience, |p, t| p.abort_transaction(t))?;
            self.open = false;
            self.window.clear();
            self.trouble.forget();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.producer.as_ref().map_or(0, |p| usize::try_from(p.in_flight_count()).unwrap_or(0))
    }
}

/// About how many bytes are on their way. librdkafka tells how many *messages* are; the newest so many bytes are taken to
/// be theirs. That is exact for one partition and close for many, which is enough for a bound on memory, and costs one
/// look every [`LOOK`] bytes instead of a report for each record.
struct Window {
    bound: usize,
    messages: usize,
    bytes: usize,
    since: usize,
    /// (messages, bytes) handed over up to some moments.
    marks: VecDeque<(usize, usize)>,
}

impl Window {
    fn new(bound: usize) -> Window {
        Window { bound, messages: 0, bytes: 0, since: 0, marks: VecDeque::new() }
    }
    fn clear(&mut self) {
        *self = Window::new(self.bound);
    }
    fn add(&mut self, size: usize) {
        self.messages += 1;
        self.bytes += size;
        self.since += size;
    }
    /// Is it time for a look before handing over `size` more?
    fn due(&self, size: usize) -> bool {
        self.since + size >= LOOK
    }
    /// Is there room for `size` more, when so many messages are on their way? One record always fits an empty queue.
    fn room(&mut self, on_the_way: usize, size: usize) -> bool {
        if self.since > 0 {
            self.marks.push_back((self.messages, self.bytes));
            self.since = 0;
        }
        let arrived = self.messages.saturating_sub(on_the_way);
        let mut gone = 0;
        while let Some((messages, bytes)) = self.marks.front().copied() {
            // The last mark that has arrived stays, as the base.
            match self.marks.get(1) {
                Some(next) if next.0 <= arrived => {
                    self.marks.pop_front();
                }
                _ => {
                    gone = if messages <= arrived { bytes } else { 0 };
                    break;
                }
            }
        }
        on_the_way == 0 || self.bytes.saturating_sub(gone) + size <= self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_bounds_bytes_by_messages() {
        let mut w = Window::new(4 * LOOK);
        assert!(w.room(0, 100 * LOOK), "an empty queue takes anything");
        for i in 0..4 {
            w.add(LOOK);
            assert!(w.due(0));
            assert_eq!(w.room(i + 1, LOOK), i < 3, "{i}");
        }
        assert!(!w.room(4, LOOK) && w.room(3, LOOK) && !w.room(3, 2 * LOOK));
        w.add(LOOK);
        assert!(!w.room(4, LOOK) && w.room(2, 2 * LOOK) && w.room(0, 9 * LOOK));
        w.clear();
        assert!(w.room(0, 1));
    }
}

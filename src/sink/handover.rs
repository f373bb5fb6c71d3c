//! Handing records to librdkafka, in batches and without allocation of our own.
//!
//! The crate's `send` allocates a C string for the topic of every record, looks the topic up by name and takes its lock
//! once a record. `rd_kafka_produce_batch` takes a topic's handle, a partition and an array of records: one lock and one
//! look at the clock for all of them. So records are gathered by topic and partition while one arena is handed over;
//! nothing stays gathered when the call returns. It knows no headers: the few records that have some (key changes,
//! absent columns) go through `send`, after what is gathered for their partition. So the order within a partition is the
//! order in the arena, which is all the order that Kafka knows.
//!
//! How many bytes may be on their way is bounded by [`Window`], because librdkafka's own bound would refuse a record
//! larger than it for ever, and because more than it can use costs it time: an idempotent producer of librdkafka has one
//! request a partition on its way (it counts messages against the five requests that a broker can tell apart:
//! confluentinc/librdkafka#4989), and while a whole batch waits behind that one its thread asks the socket again and again
//! without waiting. None waiting leaves gaps between requests, though, when the reader is held up. So each partition gets one
//! batch on its way, and a few more wait behind them all.

use super::{
    Records,
    partition::partition,
    topics::Patience,
    transaction::{SLICE, Transactions},
};
use rdkafka::{
    bindings as ffi,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    types::RDKafkaRespErr,
};
use seachange_sdk::{Error, Result};
use std::{
    collections::VecDeque,
    ffi::{CString, c_int, c_void},
    ptr,
    sync::Arc,
    thread,
    time::Duration,
};

/// Bytes between two looks at how much is on its way.
const LOOK: usize = 128 << 10;
/// Batches that wait while each partition has one on its way. Measured with one partition (MySQL, 1.5M rows, three alternating
/// runs of one build): less than one 288,000 to 356,000 rows/s, four 422,000 to 459,000.
const BEHIND: usize = 4;
/// Most records gathered for one partition: their array stays in the processor's cache.
const BATCH: usize = 256;
const WAITING: &str = "handing over records: the client's queue stays full";

/// A topic of a producer.
pub struct Handle {
    name: Arc<str>,
    /// Where records without key go.
    keyless: i32,
    rkt: ptr::NonNull<ffi::rd_kafka_topic_t>,
    /// What is gathered, by partition. Empty between calls.
    gathered: Vec<Vec<ffi::rd_kafka_message_t>>,
    /// The transaction in which each partition last had a record.
    used: Vec<u64>,
    /// Keeps the client alive for longer than the handle.
    transactions: Arc<Transactions>,
}

// SAFETY: `rd_kafka_topic_t` is reference-counted and locked inside; librdkafka documents its handles as usable from any
// thread. The pointers in `gathered` are followed only within the call that put them there. The rest is `Send`.
unsafe impl Send for Handle {}

impl Handle {
    /// The handle of a topic that exists, with its number of partitions.
    pub fn new(transactions: &Arc<Transactions>, name: &Arc<str>, partitions: i32) -> Result<Handle> {
        let c = CString::new(&**name).map_err(|_| Error::bug("a topic's name has a zero byte"))?;
        // SAFETY: the client is alive (`transactions` is borrowed, and kept below), the name is a C string that is copied,
        // and no configuration means the client's default one.
        let rkt = unsafe { ffi::rd_kafka_topic_new(transactions.client().native_ptr(), c.as_ptr(), ptr::null_mut()) };
        let rkt =
            ptr::NonNull::new(rkt).ok_or_else(|| Error::bug(format!("topic {name}: librdkafka gives no handle")))?;
        Ok(Handle {
            name: Arc::clone(name),
            keyless: partition(name.as_bytes(), partitions),
            rkt,
            gathered: (0..partitions.max(1)).map(|_| Vec::new()).collect(),
            used: vec![0; partitions.max(1) as usize],
            transactions: Arc::clone(transactions),
        })
    }

    /// Hands over what is gathered for a partition: all of it, or an error. Nothing is gathered afterwards.
    fn send(&mut self, to: i32, patience: &Patience) -> Result<()> {
        let Some(gathered) = self.gathered.get_mut(to as usize) else {
            return Err(Error::bug(format!("topic {} has no partition {to}", self.name)));
        };
        let mut gathered = std::mem::take(gathered);
        let result = self.send_all(to, &mut gathered, patience);
        gathered.clear();
        // The memory is used again.
        self.gathered[to as usize] = gathered;
        result
    }

    fn send_all(&self, to: i32, gathered: &mut [ffi::rd_kafka_message_t], patience: &Patience) -> Result<()> {
        let mut from = 0;
        while let Some(rest) = gathered.get_mut(from..).filter(|r| !r.is_empty()) {
            // SAFETY: the topic's handle is alive. The array is ours, of the given length, and fully initialised. Its
            // payload and key pointers come, with their lengths, from slices borrowed by the calls of `Handover` that
            // gather and send before they return; they are only read, and F_COPY copies both before this call returns.
            let sent = unsafe {
                ffi::rd_kafka_produce_batch(
                    self.rkt.as_ptr(),
                    to,
                    ffi::RD_KAFKA_MSG_F_COPY,
                    rest.as_mut_ptr(),
                    rest.len() as c_int,
                )
            };
            if usize::try_from(sent) == Ok(rest.len()) {
                return Ok(());
            }
            // Records are taken in order. When the queue is full, the rest is refused (librdkafka does not try it), so
            // that going on at the first refused record keeps the order and repeats nothing. Any other refusal is final.
            let refused = |m: &ffi::rd_kafka_message_t| m.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            let Some((at, first)) = rest.iter().enumerate().find(|(_, m)| refused(m)) else {
                return Err(Error::bug("librdkafka counts fewer records than it took"));
            };
            match Code::from(first.err) {
                Code::QueueFull => {
                    from += at;
                    if let Some(e) = self.transactions.refused() {
                        return Err(e);
                    }
                    patience.left(SLICE).ok_or_else(|| self.transactions.over(WAITING, patience))?;
                    thread::sleep(Duration::from_micros(500));
                }
                Code::MessageSizeTooLarge => {
                    return Err(self.transactions.too_large(&self.name, first.len + first.key_len));
                }
                code => {
                    let what = format!("topic {}: handing over a record", self.name);
                    return Err(self.transactions.failed(&what, &KafkaError::MessageProduction(code)));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, is given back once, and its client lives until the field behind it is dropped.
        unsafe { ffi::rd_kafka_topic_destroy(self.rkt.as_ptr()) };
    }
}

/// Hands records over.
pub struct Handover {
    transactions: Arc<Transactions>,
    window: Window,
    /// (topic, partition) for which something is gathered.
    touched: Vec<(u32, i32)>,
    /// Counts transactions, from 1.
    transaction: u64,
}

impl Handover {
    /// For a producer whose requests have up to `batch` bytes, with at most `most` bytes on their way.
    pub fn new(transactions: &Arc<Transactions>, batch: usize, most: usize) -> Handover {
        let (transactions, window) = (Arc::clone(transactions), Window::new(batch, most));
        Handover { transactions, window, touched: Vec::new(), transaction: 1 }
    }

    /// All of them, in order. `topics` are those of the arena: `None` where no record goes.
    pub fn records(
        &mut self,
        records: &Records,
        topics: &mut [(Arc<str>, Option<Handle>)],
        patience: &Patience,
    ) -> Result<()> {
        let result = self.gather(records, topics, patience);
        if result.is_err() {
            // Pointers into the arena must not outlive the call.
            for (topic, to) in self.touched.drain(..) {
                if let Some((_, Some(h))) = topics.get_mut(topic as usize) {
                    h.gathered[to as usize].clear();
                }
            }
        }
        result
    }

    fn gather(
        &mut self,
        records: &Records,
        topics: &mut [(Arc<str>, Option<Handle>)],
        patience: &Patience,
    ) -> Result<()> {
        for r in &records.items {
            let key = r.key.as_ref().map(|k| records.bytes(k));
            let value = r.value.as_ref().map(|v| records.bytes(v));
            let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            if self.window.due(size) {
                self.send(topics, patience)?;
                self.room(size, patience)?;
            }
            let Some((_, Some(h))) = topics.get_mut(r.topic as usize) else {
                return Err(Error::bug(format!("topic {} of a record has no handle", r.topic)));
            };
            let to = key.map_or(h.keyless, |k| partition(k, h.gathered.len() as i32));
            self.window.add(size);
            if r.headers.is_empty() {
                let gathered = &mut h.gathered[to as usize];
                if gathered.is_empty() {
                    self.touched.push((r.topic, to));
                    if std::mem::replace(&mut h.used[to as usize], self.transaction) != self.transaction {
                        self.window.partitions += 1;
                    }
                }
                gathered.push(message(to, key, value));
                if gathered.len() < BATCH {
                    continue;
                }
            }
            h.send(to, patience)?;
            self.touched.retain(|t| *t != (r.topic, to));
            if !r.headers.is_empty() {
                let list = records.headers.get(r.headers.start as usize..r.headers.end as usize).unwrap_or_default();
                let headers = list.iter().fold(OwnedHeaders::new_with_capacity(list.len()), |all, x| {
                    all.insert(Header { key: x.name, value: Some(records.bytes(&x.value)) })
                });
                self.transactions.send(&h.name, to, key, value, headers, patience)?;
            }
        }
        self.send(topics, patience)
    }

    /// Hands over everything that is gathered.
    fn send(&mut self, topics: &mut [(Arc<str>, Option<Handle>)], patience: &Patience) -> Result<()> {
        for (topic, to) in &self.touched {
            if let Some((_, Some(h))) = topics.get_mut(*topic as usize) {
                h.send(*to, patience)?;
            }
        }
        self.touched.clear();
        Ok(())
    }

    /// One record, to a partition.
    pub fn one(
        &mut self,
        h: &mut Handle,
        to: i32,
        key: &[u8],
        value: Option<&[u8]>,
        patience: &Patience,
    ) -> Result<()> {
        let size = key.len() + value.map_or(0, <[u8]>::len);
        if self.window.due(size) {
            self.room(size, patience)?;
        }
        self.window.add(size);
        let Some(gathered) = h.gathered.get_mut(to as usize) else {
            return Err(Error::bug(format!("topic {} has no partition {to}", h.name)));
        };
        gathered.push(message(to, Some(key), value));
        h.send(to, patience)
    }

    /// Nothing is on its way any more.
    pub fn arrived(&mut self) {
        self.window.clear();
        self.transaction += 1;
    }

    /// Waits until `size` more bytes may be handed over.
    fn room(&mut self, size: usize, patience: &Patience) -> Result<()> {
        loop {
            if self.window.room(self.transactions.in_flight(), size) {
                return Ok(());
            }
            if let Some(e) = self.transactions.refused() {
                return Err(e);
            }
            patience.left(SLICE).ok_or_else(|| self.transactions.over(WAITING, patience))?;
            thread::sleep(Duration::from_micros(500));
        }
    }
}

fn message(partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) -> ffi::rd_kafka_message_t {
    // A null pointer is "none"; an empty slice's pointer is not null.
    let raw = |b: Option<&[u8]>| match b {
        Some(b) => (b.as_ptr().cast_mut().cast::<c_void>(), b.len()),
        None => (ptr::null_mut(), 0),
    };
    let ((payload, len), (key, key_len)) = (raw(value), raw(key));
    ffi::rd_kafka_message_t {
        err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: ptr::null_mut(),
    }
}

/// About how many bytes are on their way. librdkafka tells how many *messages* are; the newest so many bytes are taken to
/// be theirs. That is exact for one partition and close for many, which is enough for a bound, and costs one look every
/// [`LOOK`] bytes instead of a report for each record.
struct Window {
    /// Bytes of a full request.
    batch: usize,
    /// Bytes that are never exceeded, but by a single record.
    most: usize,
    /// Partitions that have had records.
    partitions: usize,
    messages: usize,
    bytes: usize,
    since: usize,
    /// (messages, bytes) handed over up to some moments.
    marks: VecDeque<(usize, usize)>,
}

impl Window {
    fn new(batch: usize, most: usize) -> Window {
        Window { batch, most, partitions: 0, messages: 0, bytes: 0, since: 0, marks: VecDeque::new() }
    }
    fn clear(&mut self) {
        self.marks.clear();
        (self.partitions, self.messages, self.bytes, self.since) = (0, 0, 0, 0);
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
    /// A batch on its way for each partition, and [`BEHIND`] that wait. Where partitions are many, less than a batch each.
    fn bound(&self) -> usize {
        (self.partitions.max(1).saturating_add(BEHIND)).saturating_mul(self.batch).min(self.most)
    }
    /// Is there room for `size` more, and for all that comes before the next look, when so many messages are on their way?
    /// One record always fits an empty queue.
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
        on_the_way == 0 || self.bytes.saturating_sub(gone) + size.max(LOOK) <= self.bound()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_bounds_bytes_by_messages() {
        let mut w = Window::new(100 * LOOK, 4 * LOOK);
        assert!(w.room(0, 100 * LOOK), "an empty queue takes anything");
        for i in 0..4 {
            w.add(LOOK);
            assert!(w.due(0));
            assert_eq!(w.room(i + 1, LOOK), i < 3, "{i}");
        }
        assert!(!w.room(4, 1), "what comes before the next look needs room too");
        assert!(!w.room(4, LOOK) && w.room(3, LOOK) && !w.room(3, 2 * LOOK));
        w.add(LOOK);
        assert!(!w.room(4, LOOK) && w.room(2, 2 * LOOK) && w.room(0, 9 * LOOK));
        w.clear();
        assert!(w.room(0, 1));
    }

    /// Whenever the bound is reached, at least one partition has more than a batch, so that nobody waits for `linger.ms`.
    #[test]
    fn window_grows_with_partitions() {
        let batch = 10 * LOOK;
        let mut w = Window::new(batch, 100 * LOOK);
        let fill = |w: &mut Window| {
            let mut n = 0;
            while w.room(n, 0) {
                w.add(LOOK);
                n += 1;
            }
            n * LOOK
        };
        assert_eq!(fill(&mut w), (1 + BEHIND) * batch);
        for (partitions, all) in [(2, 60), (5, 90), (6, 100), (7, 100), (5000, 100)] {
            w.clear();
            w.partitions = partitions;
            assert_eq!(fill(&mut w), all * LOOK, "{partitions}");
            assert!(all * LOOK == w.most || all * LOOK / partitions > batch);
        }
    }
}

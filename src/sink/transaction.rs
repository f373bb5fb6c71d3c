//! The transactional producer: begin, wait, commit, abort, each with a deadline and a meaning for its errors.
//!
//! All calls take `&self` and may come from any thread, one at a time: the sink's own thread, and the one in which a
//! commit runs while the sink's thread goes on encoding.

use super::{
    topics::Patience,
    trouble::{self, Trouble},
};
use crate::crash;
use rdkafka::{
    ClientConfig,
    client::Client,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig},
    types::RDKafkaRespErr,
};
use seachange_sdk::{Error, Kind, Result, Retry};
use std::{
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

/// Longest single call into librdkafka: how soon a stop is noticed.
pub const SLICE: Duration = Duration::from_millis(500);

/// How long the thread that serves a producer's events waits for one at a time. The crate's wait spins through its last
/// millisecond, so a short one costs an idle daemon its quiet (1 % of a core for each producer at 100 ms); a long one keeps
/// a producer that has been given up alive for so long.
const SERVE: Duration = Duration::from_secs(2);

/// A transactional producer and what is known of its trouble.
pub struct Transactions {
    producer: Arc<BaseProducer<Trouble>>,
    trouble: Trouble,
    stop: Arc<AtomicBool>,
    batch_size: usize,
}

/// Serves a producer's events (refused records, trouble with connections, logs) until it has no other owner.
fn serve(producer: &Arc<BaseProducer<Trouble>>) -> Result<()> {
    let mine = Arc::downgrade(producer);
    let serving = move || {
        while let Some(producer) = mine.upgrade() {
            producer.poll(SERVE);
        }
    };
    let thread = thread::Builder::new().name("kafka events".into()).spawn(serving);
    thread.map(drop).map_err(|e| Error::sink(Kind::Sink, "no thread for Kafka's events").cause(e))
}

impl Drop for Transactions {
    fn drop(&mut self) {
        // The client lives until its thread looks next; what it still has to send is nobody's any more.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl Transactions {
    /// Makes the producer; connects in the background.
    pub fn new(
        config: &ClientConfig,
        trouble: Trouble,
        stop: Arc<AtomicBool>,
        batch_size: usize,
    ) -> Result<Transactions> {
        let producer = config.create_with_context(trouble.clone()).map_err(|e| trouble.error("Kafka client", &e))?;
        let producer: Arc<BaseProducer<Trouble>> = Arc::new(producer);
        serve(&producer)?;
        Ok(Transactions { producer, trouble, stop, batch_size })
    }

    /// The client.
    pub fn client(&self) -> &Client<Trouble> {
        self.producer.client()
    }

    /// Records handed over that are not acknowledged.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// For this long, or until the pipeline is stopped.
    pub fn patience(&self, time: Duration) -> Patience {
        Patience::new(&self.stop, time)
    }

    /// Waits until a broker is connected under its own name, but not for long. The first answer comes from a bootstrap
    /// address; once that is known to be a broker's, librdkafka connects anew, and whoever asks for a coordinator
    /// meanwhile has to wait 500 ms until it looks again.
    pub fn settle(&self, topic: &str) {
        let patience = self.patience(SLICE);
        while let Some(slice) = patience.left(SLICE) {
            match self.client().fetch_metadata(Some(topic), slice) {
                Ok(m) if m.orig_broker_id() < 0 => thread::sleep(Duration::from_millis(1)),
                // What is wrong is told by the next call.
                _ => return,
            }
        }
    }

    /// Fences older owners and finishes what they left.
    pub fn init(&self, what: &str, patience: &Patience) -> Result<()> {
        self.call(what, patience, |p, t| p.init_transactions(t))
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        self.producer.begin_transaction().map_err(|e| self.failed("beginning a transaction", &e))
    }

    /// Waits until everything is acknowledged, says so, and commits.
    pub fn commit(&self, patience: &Patience, acknowledged: impl FnOnce()) -> Result<()> {
        self.drain(patience)?;
        acknowledged();
        crash::point("flushed");
        self.call("committing a transaction", patience, |p, t| p.commit_transaction(t)).map_err(|e| {
            if e.kind() == Kind::Connect { e.at("the outcome is unknown until the next start") } else { e }
        })
    }

    /// Aborts, and forgets the records that the transaction had trouble with.
    pub fn abort(&self, patience: &Patience) -> Result<()> {
        self.call("aborting a transaction", patience, |p, t| p.abort_transaction(t))?;
        self.trouble.forget();
        Ok(())
    }

    /// Hands over one record with headers, waiting while the client's queue is full.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
        patience: &Patience,
    ) -> Result<()> {
        let what = || format!("topic {topic}: handing over a record");
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).headers(headers);
        (record.key, record.payload) = (key, value);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    patience.left(SLICE).ok_or_else(|| self.over(&what(), patience))?;
                    thread::sleep(Duration::from_micros(500));
                    record = back;
                }
                Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                    return Err(self.too_large(topic, key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)));
                }
                Err((e, _)) => return Err(self.failed(&what(), &e)),
            }
        }
    }

    /// The error of a record that Kafka has refused, if it has.
    pub fn refused(&self) -> Option<Error> {
        self.trouble.refused().map(|r| trouble::refused(&r, self.batch_size))
    }

    /// The error of a record that librdkafka finds too large.
    pub fn too_large(&self, topic: &str, size: usize) -> Error {
        let code = Code::MessageSizeTooLarge;
        trouble::refused(&trouble::Refused { code, topic: topic.to_owned(), size }, self.batch_size)
    }

    /// The error of having waited too long, or having been stopped.
    pub fn over(&self, what: &str, patience: &Patience) -> Error {
        patience.over(&self.trouble, what)
    }

    /// Why a call failed, most telling reason first: a record that Kafka refused, the end of this producer, the call's own.
    pub fn failed(&self, what: &str, e: &KafkaError) -> Error {
        self.refused().or_else(|| self.fatal(what)).unwrap_or_else(|| self.trouble.error(what, e))
    }

    fn fatal(&self, what: &str) -> Option<Error> {
        let (code, text) = self.client().fatal_error()?;
        let e = trouble::from_code(code, format!("{what}: {text}"));
        // Whatever the code, this producer can do nothing more; a new one can.
        Some(if e.kind() == Kind::Sink { e.retry(Retry::Backoff) } else { e })
    }

    /// Waits until every record handed over has been acknowledged.
    fn drain(&self, patience: &Patience) -> Result<()> {
        const WHAT: &str = "waiting for acknowledgements";
        loop {
            // SAFETY: `native_ptr` is this producer's live handle, which `self.producer` keeps alive during the call. The
            // function is thread-safe, takes no other pointer, and only waits until no message is left (the producer's
            // own thread serves the events that it waits for), at most the given time.
            let answer = unsafe { rdkafka::bindings::rd_kafka_flush(self.client().native_ptr(), 100) };
            // A refused record counts as left until its report has been served: none can be missed here.
            if let Some(e) = self.refused() {
                return Err(e);
            }
            match answer {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(()),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT => {}
                e => return Err(trouble::from_code(e.into(), WHAT.to_owned())),
            }
            if let Some(e) = self.fatal(WHAT) {
                return Err(e);
            }
            if patience.left(SLICE).is_none() {
                return Err(self.over(WHAT, patience));
            }
        }
    }

    /// Repeats a transaction call until it succeeds, fails for good, or patience is over.
    fn call(
        &self,
        what: &str,
        patience: &Patience,
        f: impl Fn(&BaseProducer<Trouble>, Duration) -> Result<(), KafkaError>,
    ) -> Result<()> {
        loop {
            let Some(slice) = patience.left(SLICE) else { return Err(self.over(what, patience)) };
            let begun = Instant::now();
            match f(&self.producer, slice) {
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
}

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
    Entries, Records, Sink, Stored, Tenure,
    handover::{Handle, Handover},
    properties,
    state_topic::{self, OPENED},
    topics::{self, Patience, Shape},
    transaction::Transactions,
    trouble::Trouble,
};
use crate::{
    config::resolved::{self, Kafka},
    crash,
};
use seachange_sdk::{Error, Kind, Result, Retry};
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long each step of opening may take.
const OPEN: Duration = Duration::from_secs(30);
/// How long giving up may take: it is a courtesy to readers, the next start does it too.
const ABORT: Duration = Duration::from_secs(5);

/// Least time between the end of a transaction and the first record of the next. The broker answers a commit before it has
/// written the markers; asked too soon for the next transaction it says so, and librdkafka tries again a fixed 20 ms
/// later. One commit in forty met that when they followed each other at once, one in three hundred with this pause.
const BREATH: Duration = Duration::from_millis(1);

/// The Kafka sink.
pub struct KafkaSink {
    kafka: Kafka,
    shape: Shape,
    transactional_id: String,
    state_topic: String,
    timeout: Duration,
    stop: Arc<AtomicBool>,
    trouble: Trouble,
    tenure: Tenure,
    live: Option<Live>,
}

/// What an opened sink has.
struct Live {
    transactions: Arc<Transactions>,
    handover: Handover,
    state: Handle,
    /// Topics by their index in [`Records`]: the name, and the handle once it has been used.
    topics: Vec<(Arc<str>, Option<Handle>)>,
    /// Is a Kafka transaction open?
    open: bool,
    /// When the last one ended.
    ended: Option<Instant>,
    /// A commit that has begun.
    commit: Option<JoinHandle<Result<()>>>,
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
            tenure: Tenure::default(),
            live: None,
        }
    }

    /// With what this process remembers of its earlier sinks for the pipeline: one that another process has taken over
    /// from must not take back.
    pub fn with_tenure(self, tenure: &Tenure) -> KafkaSink {
        KafkaSink { tenure: tenure.clone(), ..self }
    }

    /// Fails when another process has opened this pipeline since this one did. Being fenced alone does not say so: the
    /// broker fences also whose transaction has outlived its timeout.
    fn not_taken_over(&self, patience: &Patience) -> Result<()> {
        if !self.tenure.held.load(Relaxed) {
            return Ok(());
        }
        let (id, topic) = (&self.transactional_id, &self.state_topic);
        match state_topic::opened_by(&self.kafka, id, topic, &self.trouble, patience)? {
            Some(last) if !last.starts_with(self.tenure.mark.as_bytes()) => {
                let what = format!("transactional id {id}: another daemon has taken over this pipeline");
                Err(Error::sink(Kind::Fenced, what).retry(Retry::Never).fix(
                    "let one daemon run a pipeline: the newer one goes on. If there is none (seachange state reset does \
                     this too), start this one again",
                ))
            }
            _ => Ok(()),
        }
    }

    fn live(&mut self) -> Result<&mut Live> {
        self.live.as_mut().ok_or_else(unopened)
    }

    /// Puts the entries behind the records. `false`: there is nothing to commit.
    fn stage(&mut self, entries: &Entries) -> Result<bool> {
        let time = self.timeout / 2;
        let live = self.live()?;
        if entries.is_empty() && !live.open {
            return Ok(false);
        }
        live.begin()?;
        let patience = live.transactions.patience(time);
        for (key, value) in entries {
            if key == OPENED {
                return Err(Error::bug("the key of a state entry is the sink's own"));
            }
            live.handover
                .one(&mut live.state, 0, key.as_bytes(), value.as_deref(), &patience)
                .map_err(|e| live.give_up(e))?;
        }
        crash::point("staged");
        Ok(true)
    }
}

fn unopened() -> Error {
    Error::bug("the Kafka sink is used before it is opened")
}

impl Live {
    /// Begins a Kafka transaction unless one is open.
    fn begin(&mut self) -> Result<()> {
        if self.commit.is_some() {
            return Err(Error::bug("a commit that has begun is not finished"));
        }
        if !self.open {
            if let Some(rest) = self.ended.and_then(|at| BREATH.checked_sub(at.elapsed())) {
                thread::sleep(rest);
            }
            self.transactions.begin()?;
            self.open = true;
        }
        Ok(())
    }

    /// Looks up and creates the topics of these records that are new.
    fn meet(&mut self, records: &Records, kafka: &Kafka, shape: &Shape, time: Duration) -> Result<()> {
        for i in 0..records.topic_count() {
            let name = records.topic_name(i as u32);
            match self.topics.get(i) {
                Some((known, _)) if Arc::ptr_eq(known, name) || known == name => {}
                // Another arena numbers topics differently: what is known moves with the names.
                _ => match self.topics.iter().skip(i).position(|(known, _)| known == name) {
                    Some(at) => self.topics.swap(i, i + at),
                    None => self.topics.insert(i, (Arc::clone(name), None)),
                },
            }
        }
        let mut new: Vec<usize> = Vec::new();
        for r in &records.items {
            let i = r.topic as usize;
            match self.topics.get(i) {
                Some((_, None)) if !new.contains(&i) => new.push(i),
                Some(_) => {}
                None => return Err(Error::bug(format!("a record names topic {i}, which does not exist"))),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = new.iter().map(|i| (&*self.topics[*i].0, shape)).collect();
        let patience = self.transactions.patience(time);
        let counts = topics::ensure(self.transactions.client(), kafka, &wanted, &patience)?;
        for (i, count) in new.into_iter().zip(counts) {
            let (name, handle) = &mut self.topics[i];
            *handle = Some(Handle::new(&self.transactions, name, count)?);
            // Told once more, now that the client has a handle to tell it to: otherwise the first records of a topic that
            // was only just made wait for the client's own next look, 100 ms later.
            topics::partitions(self.transactions.client(), name, &patience)?;
        }
        Ok(())
    }

    /// After an error: gives up the transaction if that is quick, so that readers are not held back until it times out.
    fn give_up(&mut self, error: Error) -> Error {
        if self.open && !matches!(error.kind(), Kind::Fenced | Kind::Connect | Kind::Bug) {
            match self.transactions.abort(&self.transactions.patience(ABORT)) {
                Ok(()) => self.open = false,
                Err(e) => tracing::debug!(error = %e, "the failed transaction is left to the next start"),
            }
        }
        error
    }

    /// A commit has ended.
    fn ended(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => {
                self.open = false;
                self.ended = Some(Instant::now());
                self.handover.arrived();
                Ok(())
            }
            Err(e) => Err(self.give_up(e)),
        }
    }
}

impl Sink for KafkaSink {
    fn open(&mut self) -> Result<Stored> {
        self.live = None;
        self.trouble.forget();
        let begun = Instant::now();
        let (kafka, id, topic) = (&self.kafka, &self.transactional_id, &self.state_topic);
        let config = properties::producer(kafka, id, self.timeout);
        let batch_size = properties::batch_size(kafka);
        let transactions =
            Arc::new(Transactions::new(&config, self.trouble.clone(), Arc::clone(&self.stop), batch_size)?);
        // A question that any broker answers, only to be connected: asked for its coordinator before that, librdkafka
        // waits 500 ms until it looks again.
        topics::partitions(transactions.client(), topic, &transactions.patience(OPEN))?;
        self.not_taken_over(&transactions.patience(OPEN))?;
        transactions.init(&format!("transactional id {id}: taking over"), &transactions.patience(OPEN))?;

        let patience = transactions.patience(OPEN);
        state_topic::ensure(transactions.client(), kafka, topic, self.shape.replication, &patience)?;
        let mut live = Live {
            handover: Handover::new(&transactions, properties::queue_bytes(kafka)),
            state: Handle::new(&transactions, &topic.as_str().into(), 1)?,
            topics: Vec::new(),
            open: false,
            ended: None,
            commit: None,
            transactions,
        };
        let nonce = format!("{}{:016x} pid {}", self.tenure.mark, RandomState::new().hash_one(0), std::process::id());
        live.begin()?;
        live.handover.one(&mut live.state, 0, OPENED.as_bytes(), Some(nonce.as_bytes()), &patience)?;
        live.ended(live.transactions.commit(&patience))?;
        let patience = live.transactions.patience(OPEN);
        let stored = state_topic::read(kafka, id, topic, nonce.as_bytes(), &self.trouble, &patience)?;
        tracing::debug!(id, entries = stored.len(), ms = begun.elapsed().as_millis() as u64, "Kafka sink opened");
        self.tenure.held.store(true, Relaxed);
        self.live = Some(live);
        Ok(stored)
    }

    fn append(&mut self, records: &Records) -> Result<()> {
        if records.items.is_empty() {
            return Ok(());
        }
        let KafkaSink { kafka, shape, timeout, live: Some(live), .. } = self else { return Err(unopened()) };
        live.meet(records, kafka, shape, *timeout / 2)?;
        live.begin()?;
        let patience = live.transactions.patience(*timeout / 2);
        live.handover.records(records, &mut live.topics, &patience).map_err(|e| live.give_up(e))
    }

    fn commit(&mut self, entries: &Entries) -> Result<()> {
        if !self.stage(entries)? {
            return Ok(());
        }
        let time = self.timeout;
        let live = self.live()?;
        let result = live.transactions.commit(&live.transactions.patience(time));
        live.ended(result)
    }

    fn begin_commit(&mut self, entries: &Entries) -> Result<()> {
        if !self.stage(entries)? {
            return Ok(());
        }
        let time = self.timeout;
        let live = self.live()?;
        let transactions = Arc::clone(&live.transactions);
        let commit = move || transactions.commit(&transactions.patience(time));
        let thread = thread::Builder::new().name("commit".into()).spawn(commit);
        live.commit = Some(thread.map_err(|e| Error::sink(Kind::Sink, "no thread for a commit").cause(e))?);
        Ok(())
    }

    fn finish_commit(&mut self) -> Result<()> {
        let live = self.live()?;
        let Some(thread) = live.commit.take() else { return Ok(()) };
        match thread.join() {
            Ok(result) => live.ended(result),
            Err(_) => Err(Error::bug("the thread of a commit panicked")),
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.finish_commit()?;
        let live = self.live()?;
        if live.open {
            // A stop is what brings us here: the flag must not keep the abort from its few milliseconds.
            live.transactions.abort(&Patience::new(&Arc::default(), ABORT))?;
            live.open = false;
            live.handover.arrived();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.live.as_ref().map_or(0, |l| l.transactions.in_flight())
    }
}

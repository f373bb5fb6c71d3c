//! Kafka, exactly once: records and the pipeline's state become visible in one Kafka transaction.
//!
//! Two producers, in turn. A broker answers the end of a transaction before it has written the markers that make it
//! visible; the same producer's next transaction would have to wait for them (the broker says `CONCURRENT_TRANSACTIONS`,
//! and librdkafka tries again after a fixed 20 ms). So each pipeline has two transactional ids, and while one
//! `Lane` ends its transaction the other one fills the next.
//!
//! Why nothing is lost and nothing comes twice:
//! - Of the two lanes' transactions one ends after the other: the end of the second is asked for only when the first is
//!   known to be committed. So what is committed is always a beginning of what was handed over.
//! - Order: a lane hands over its first record only when all records of the other have been acknowledged, which puts them
//!   in front of it in every partition. A `read_committed` reader passes no open transaction, so it sees them in that order
//!   whenever the markers come.
//! - [`open`](Sink::open) calls `init_transactions` for both ids first: the broker finishes or aborts what an older owner
//!   left and raises the epochs, so that nothing an older owner still sends is accepted. Only then is the state read back
//!   ([`state_topic`] argues why it is complete). Two that open at once may fence one another once; neither has committed
//!   anything by then, and both open again or find themselves taken over.
//! - Every commit carries the state that belongs to its records, so a reader sees both or neither, and a start after any
//!   crash goes on exactly behind what is visible. When the outcome of a commit is unknown (no answer in time), the sink
//!   only says so: opening again resolves it in one of the two ways and the state tells which.
//!
//! Who waits for what: librdkafka sends in its own threads while records are appended; a commit waits until all are
//! acknowledged and then ends the transaction. Both waits are on conditions, never on a poll interval: the crate's own
//! `flush` and `commit_transaction` would sleep through 100 ms whenever a record is still on its way. Every wait has a
//! deadline and ends when the pipeline is stopped.
//!
//! Copies: a record is copied once by the hand-over (into librdkafka's message) and once when librdkafka builds and
//! compresses the batch.

use super::{
    Ended, Entries, Records, Sink, Stored, Tenure,
    handover::{Handle, Handover},
    properties,
    state_topic::{self, OPENED},
    topics::{self, Known, Patience, Shape},
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
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long each step of opening may take.
const OPEN: Duration = Duration::from_secs(30);
/// How long giving up may take: it is a courtesy to readers, the next start does it too.
const ABORT: Duration = Duration::from_secs(5);
/// A broker's time for making one of many topics. Where it is slower the pipeline starts again, and finds those that are made.
const MAKING: Duration = Duration::from_millis(20);

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

/// A transactional producer with all that hangs on it.
struct Lane {
    transactions: Arc<Transactions>,
    handover: Handover,
    state: Handle,
    /// Topics by their index in [`Records`]: the name, and the handle once it has been used.
    topics: Vec<(Arc<str>, Option<Handle>)>,
}

/// What an opened sink has.
struct Live {
    lanes: [Lane; 2],
    /// The lane that is being filled; the other one may be committing.
    now: usize,
    /// Is a Kafka transaction open on it?
    open: bool,
    /// The commit of the other lane.
    commit: Option<Commit>,
    /// Value of this opener's record [`OPENED`].
    nonce: Vec<u8>,
    /// The topics that are known to exist.
    known: Known,
}

/// A commit that has begun.
struct Commit {
    thread: JoinHandle<Result<()>>,
    /// Told when all its records are; closed without a word if that fails. `None` once heard.
    acknowledged: Option<mpsc::Receiver<()>>,
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
        let lane = &mut live.lanes[live.now];
        let patience = lane.transactions.patience(time);
        for (key, value) in entries {
            if key == OPENED {
                return Err(Error::bug("the key of a state entry is the sink's own"));
            }
            if let Err(e) = lane.handover.one(&mut lane.state, 0, key.as_bytes(), value.as_deref(), &patience) {
                return Err(live.give_up(e));
            }
        }
        crash::point("staged");
        Ok(true)
    }
}

fn unopened() -> Error {
    Error::bug("the Kafka sink is used before it is opened")
}

impl Lane {
    fn new(transactions: Arc<Transactions>, kafka: &Kafka, state_topic: &str) -> Result<Lane> {
        Ok(Lane {
            handover: Handover::new(&transactions, properties::batch_size(kafka), properties::queue_bytes(kafka)),
            state: Handle::new(&transactions, &state_topic.into(), 1)?,
            topics: Vec::new(),
            transactions,
        })
    }

    /// After an error: gives up the transaction if that is quick, so that readers are not held back until it times out.
    /// Has it ended?
    fn give_up(&self, error: &Error) -> bool {
        if matches!(error.kind(), Kind::Fenced | Kind::Connect | Kind::Bug) {
            return false;
        }
        let aborted = self.transactions.abort(&self.transactions.patience(ABORT));
        aborted.inspect_err(|e| tracing::debug!(error = %e, "the failed transaction is left to the next start")).is_ok()
    }

    /// Makes handles for the topics of these records that are new here, and creates those that are new altogether.
    fn meet(
        &mut self,
        records: &Records,
        known: &mut Known,
        kafka: &Kafka,
        shape: &Shape,
        time: Duration,
    ) -> Result<()> {
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
            known.forget();
            return Ok(());
        }
        let patience = self.transactions.patience(time + MAKING * new.len() as u32);
        let names: Vec<Arc<str>> = new.iter().map(|i| Arc::clone(&self.topics[*i].0)).collect();
        known.ensure(self.transactions.client(), kafka, &names, shape, &patience)?;
        for i in &new {
            let (name, handle) = &mut self.topics[*i];
            let count = known.partitions(name).ok_or_else(|| Error::bug(format!("topic {name} was not looked up")))?;
            *handle = Some(Handle::new(&self.transactions, name, count)?);
        }
        if known.just_created() {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            topics::look(self.transactions.client(), &names, &patience)?;
        }
        Ok(())
    }
}

impl Live {
    /// Begins a Kafka transaction unless one is open.
    fn begin(&mut self) -> Result<()> {
        if self.open {
            return Ok(());
        }
        let acknowledged = self.commit.as_mut().and_then(|c| c.acknowledged.take());
        if acknowledged.is_some_and(|a| a.recv().is_err()) {
            self.finish()?;
        }
        self.lanes[self.now].transactions.begin()?;
        self.open = true;
        Ok(())
    }

    /// Begins a Kafka transaction that records come first in, unless one is open. The record [`OPENED`] is written into it
    /// once more, so that the client makes the state's partition part of the transaction by the request that it needs for
    /// the records anyway, not by another one between them and the commit; it leaves in one batch with the state.
    fn begin_with_records(&mut self, time: Duration) -> Result<()> {
        if self.open {
            return Ok(());
        }
        self.begin()?;
        let lane = &mut self.lanes[self.now];
        let patience = lane.transactions.patience(time);
        let marked = lane.handover.one(&mut lane.state, 0, OPENED.as_bytes(), Some(&self.nonce), &patience);
        marked.map_err(|e| self.give_up(e))
    }

    /// Waits for the end of the other lane's commit.
    fn finish(&mut self) -> Result<()> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let lane = &mut self.lanes[1 - self.now];
        match commit.thread.join() {
            Ok(Ok(())) => {
                lane.handover.arrived();
                Ok(())
            }
            Ok(Err(e)) => {
                lane.give_up(&e);
                Err(e)
            }
            Err(_) => Err(Error::bug("the thread of a commit panicked")),
        }
    }

    /// After an error: see [`Lane::give_up`].
    fn give_up(&mut self, error: Error) -> Error {
        if self.open && self.lanes[self.now].give_up(&error) {
            self.open = false;
        }
        error
    }
}

impl Sink for KafkaSink {
    fn open(&mut self) -> Result<Stored> {
        self.live = None;
        self.trouble.forget();
        let begun = Instant::now();
        self.not_taken_over(&Patience::new(&self.stop, OPEN))?;
        let (kafka, id, topic) = (&self.kafka, &self.transactional_id, &self.state_topic);
        let (trouble, stop, timeout) = (&self.trouble, &self.stop, self.timeout);
        let (a, b) = thread::scope(|scope| {
            let b = scope.spawn(|| take_over(kafka, &second(id), topic, timeout, trouble, stop));
            let a = take_over(kafka, id, topic, timeout, trouble, stop);
            (a, b.join().unwrap_or_else(|_| Err(Error::bug("opening a producer panicked"))))
        });
        let lanes = [Lane::new(a?, kafka, topic)?, Lane::new(b?, kafka, topic)?];
        let client = &lanes[0].transactions;
        state_topic::ensure(client.client(), kafka, topic, self.shape.replication, &client.patience(OPEN))?;
        let nonce = format!("{}{:016x} pid {}", self.tenure.mark, RandomState::new().hash_one(0), std::process::id());
        let mut live = Live {
            lanes,
            now: 0,
            open: false,
            commit: None,
            nonce: nonce.clone().into_bytes(),
            known: Known::default(),
        };
        live.begin()?;
        let lane = &mut live.lanes[0];
        let patience = lane.transactions.patience(OPEN);
        lane.handover.one(&mut lane.state, 0, OPENED.as_bytes(), Some(nonce.as_bytes()), &patience)?;
        lane.transactions.commit(&patience, || ())?;
        lane.handover.arrived();
        // The next transaction is the other lane's: this one's markers are still being written.
        (live.open, live.now) = (false, 1);
        let patience = Patience::new(&self.stop, OPEN);
        let stored = state_topic::read(kafka, id, topic, nonce.as_bytes(), &self.trouble, &patience)?;
        tracing::debug!(id, entries = stored.len(), ms = begun.elapsed().as_millis() as u64, "Kafka sink opened");
        self.tenure.held.store(true, Relaxed);
        self.live = Some(live);
        Ok(stored)
    }

    /// Creates the missing ones of many topics together. A few are created when their first records come.
    fn expect(&mut self, topics: &[String]) -> Result<()> {
        if topics.len() <= topics::MANY {
            return Ok(());
        }
        let KafkaSink { kafka, shape, timeout, live: Some(live), .. } = self else { return Err(unopened()) };
        let transactions = &live.lanes[live.now].transactions;
        let patience = transactions.patience(*timeout / 2 + MAKING * topics.len() as u32);
        tracing::info!(
            topics = topics.len(),
            "looking up the topics of the tables to be read, and making those that are missing"
        );
        let names: Vec<Arc<str>> = topics.iter().map(|t| Arc::from(t.as_str())).collect();
        live.known.ensure(transactions.client(), kafka, &names, shape, &patience)
    }

    fn append(&mut self, records: &Records) -> Result<()> {
        if records.items.is_empty() {
            return Ok(());
        }
        let KafkaSink { kafka, shape, timeout, live: Some(live), .. } = self else { return Err(unopened()) };
        live.lanes[live.now].meet(records, &mut live.known, kafka, shape, *timeout / 2)?;
        live.begin_with_records(*timeout / 2)?;
        let lane = &mut live.lanes[live.now];
        let patience = lane.transactions.patience(*timeout / 2);
        lane.handover.records(records, &mut lane.topics, &patience).map_err(|e| live.give_up(e))
    }

    fn commit(&mut self, entries: &Entries) -> Result<()> {
        self.begin_commit(entries, Box::new(|| ()))?;
        self.finish_commit()
    }

    fn begin_commit(&mut self, entries: &Entries, ended: Ended) -> Result<()> {
        // One after the other: what is committed is a beginning of what was handed over.
        self.finish_commit()?;
        if !self.stage(entries)? {
            ended();
            return Ok(());
        }
        let time = self.timeout;
        let live = self.live()?;
        let transactions = Arc::clone(&live.lanes[live.now].transactions);
        let (tell, acknowledged) = mpsc::channel();
        let commit = move || {
            let result = transactions.commit(&transactions.patience(time), move || {
                // Nobody listens when nothing follows.
                let _unheard = tell.send(());
            });
            ended();
            result
        };
        let thread = thread::Builder::new().name("commit".into()).spawn(commit);
        let thread = thread.map_err(|e| Error::sink(Kind::Sink, "no thread for a commit").cause(e))?;
        live.commit = Some(Commit { thread, acknowledged: Some(acknowledged) });
        (live.open, live.now) = (false, 1 - live.now);
        Ok(())
    }

    fn finish_commit(&mut self) -> Result<()> {
        self.live()?.finish()
    }

    fn abort(&mut self) -> Result<()> {
        let finished = self.finish_commit();
        let live = self.live()?;
        if live.open {
            let lane = &mut live.lanes[live.now];
            // A stop is what brings us here: the flag must not keep the abort from its few milliseconds.
            lane.transactions.abort(&Patience::new(&Arc::default(), ABORT))?;
            lane.handover.arrived();
            live.open = false;
        }
        finished
    }

    fn in_flight(&self) -> usize {
        self.live.as_ref().map_or(0, |l| l.lanes.iter().map(|l| l.transactions.in_flight()).sum())
    }
}

/// A producer that has fenced older owners of its id.
fn take_over(
    kafka: &Kafka,
    id: &str,
    state_topic: &str,
    timeout: Duration,
    trouble: &Trouble,
    stop: &Arc<AtomicBool>,
) -> Result<Arc<Transactions>> {
    let config = properties::producer(kafka, id, timeout);
    let t = Transactions::new(&config, trouble.clone(), Arc::clone(stop), properties::batch_size(kafka))?;
    topics::partitions(t.client(), state_topic, &t.patience(OPEN))?;
    t.settle(state_topic);
    t.init(&format!("transactional id {id}: taking over"), &t.patience(OPEN))?;
    Ok(Arc::new(t))
}

/// The transactional id of the second lane. No pipeline's name holds a colon.
fn second(id: &str) -> String {
    format!("{id}:2")
}

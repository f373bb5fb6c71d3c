//! The writer: encodes batches, hands records to the sink, and decides when what was handed over becomes durable.
//!
//! It runs on a thread of its own, because encoding is work for a CPU and a client library's transaction calls block.
//! It owns the encoder, the arena and the sink; nobody else touches them. Work arrives in order on one queue, and the
//! position of the newest work is what a commit makes durable, in the same transaction as the records: that is the whole
//! of "exactly once" on this side.
//!
//! When it commits:
//!
//! | the newest work ends | commit |
//! | --- | --- |
//! | at the end of a source transaction, and nothing more is queued | at once, but not sooner than [`PACE`] after the last one began: an idle pipeline adds no latency |
//! | the same, but records come faster than [`CALM`] | not sooner than [`GROUP`] after the last one began: a commit costs the same for one row and for thousands |
//! | the same, and the newest is older than [`OLD`], or was in a table that is being read | not sooner than [`BACKLOG`] after it: nobody waits for these |
//! | there, and more is queued | when the open Kafka transaction has `commit_bytes` or is `commit_interval` old |
//! | inside a source transaction | only above `txn_bytes_max`, or when the Kafka transaction nears its timeout |
//! | inside a table without key that is being read | never before its end |
//! | with a position but no change (keepalive) | every `idle_interval`; the first position of a new pipeline at once |
//!
//! While the sink waits for Kafka to end a transaction, the writer encodes and hands over what comes next, so that a row
//! waits for one commit under way, not for two. The reader is told of a position when its transaction has ended, and the
//! next commit begins only then.
//!
//! After an error nothing is repaired here: the thread ends, and start-up asks the sink what became of it.

use crate::{
    config::resolved::{Limits, Pipeline},
    crash,
    format::{Clock, Encoder},
    metrics::{PipelineMetrics, Stage},
    sink::{Entries, Records, Sink},
    state::Checkpoint,
};
use seachange_sdk::{Batch, Cut, Error, Kind, Position, Result, Retry, TableId};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};

/// Least time from commit to commit. A producer that begins its next transaction while the broker still writes the markers
/// of its last is refused, and librdkafka asks again only after 20 ms: two producers in turn at this pace leave the broker
/// twice this time less a commit. The half of it that a row waits on average is less than such waits cost.
const PACE: Duration = Duration::from_millis(8);
/// Records a second up to which that is all.
const CALM: f64 = 20_000.0;
/// Least time from commit to commit above that.
const GROUP: Duration = Duration::from_millis(25);
/// Age from which on a row is part of a backlog: its readers are behind by more than what it waits for a commit.
const OLD: Duration = Duration::from_secs(1);
/// Least time from commit to commit of a backlog.
const BACKLOG: Duration = Duration::from_millis(50);

/// What the reader hands to the writer.
#[derive(Debug)]
pub enum Work {
    /// Streamed changes, with state to store beside them.
    Stream(Batch, Entries),
    /// Rows of a snapshot.
    Chunk {
        /// The rows.
        batch: Batch,
        /// The snapshot's progress.
        entries: Entries,
        /// More of the same table follows that must be in the same Kafka transaction.
        hold: bool,
        /// Given back when the chunk has been handed to the sink: bounds how many are under way.
        permit: OwnedSemaphorePermit,
    },
    /// State alone.
    State(Entries),
    /// Rows of these tables are to come.
    Expect(Vec<TableId>),
}

/// What the writer tells after each commit.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Everything up to here is durable.
    pub position: Position,
    /// How many commits there have been since this run began.
    pub count: u64,
    /// How many changes they held.
    pub changes: u64,
}

/// Since the last commit.
#[derive(Default)]
struct Open {
    bytes: usize,
    records: usize,
    changes: u64,
    since: Option<Instant>,
    entries: Entries,
    position: Option<Position>,
    inside: bool,
    held: bool,
    /// Commit time at the source of the newest change.
    newest_us: i64,
}

/// The writer's end of a pipeline.
pub struct Writer {
    encoder: Encoder,
    records: Records,
    sink: Box<dyn Sink>,
    limits: Limits,
    transaction_timeout: Duration,
    metrics: Arc<PipelineMetrics>,
    free: mpsc::UnboundedSender<Batch>,
    committed: watch::Sender<Committed>,
    checkpoint: Option<Checkpoint>,
    position: Position,
    last_commit: Instant,
    begun: Option<Begun>,
    open: Open,
    /// A commit that the sink was told to begin and whose end nobody has waited for yet.
    pending: Option<Pending>,
    /// Wakes the writer when the pending commit has ended.
    ended: Arc<Notify>,
}

/// The newest commit.
struct Begun {
    at: Instant,
    records: usize,
    /// How long after the one before it.
    after: Duration,
}

impl Begun {
    /// Least time from it to the next commit, `since` after it, with that many more records and the newest so old.
    fn distance(&self, more: usize, since: Duration, age_us: i64) -> Duration {
        distance(self.records + more, self.after + since, age_us)
    }
}

/// What is told when a commit has ended.
struct Pending {
    /// Set when waiting for it takes no time.
    ended: Arc<AtomicBool>,
    started: Instant,
    checkpoint: Checkpoint,
    bytes: usize,
    records: usize,
    changes: u64,
    newest_us: i64,
}

/// Least time from commit to commit, where so many records came in that time, and the newest is so old.
fn distance(records: usize, since: Duration, age_us: i64) -> Duration {
    if records as f64 <= CALM * since.as_secs_f64() {
        PACE
    } else if age_us > OLD.as_micros() as i64 {
        BACKLOG
    } else {
        GROUP
    }
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

impl Writer {
    /// A writer that goes on after `checkpoint`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        pipeline: &Pipeline,
        sink: Box<dyn Sink>,
        checkpoint: Option<Checkpoint>,
        position: Position,
        metrics: Arc<PipelineMetrics>,
        free: mpsc::UnboundedSender<Batch>,
        committed: watch::Sender<Committed>,
    ) -> Result<Writer> {
        let transaction_timeout = match &pipeline.sink {
            crate::config::resolved::Sink::Kafka(k) => k.transaction_timeout,
            _ => Duration::MAX,
        };
        Ok(Writer {
            encoder: Encoder::new(&pipeline.name, &pipeline.source.database(), &pipeline.format, &pipeline.topics)?,
            records: Records::default(),
            sink,
            limits: pipeline.limits.clone(),
            transaction_timeout,
            metrics,
            free,
            committed,
            checkpoint,
            position,
            last_commit: Instant::now(),
            begun: None,
            open: Open::default(),
            pending: None,
            ended: Arc::default(),
        })
    }

    /// Writes until the queue is closed, then commits what may be committed. Called on the writer's own thread.
    pub fn run(mut self, queue: mpsc::Receiver<Work>, runtime: &tokio::runtime::Handle) -> Result<()> {
        let result = self.work(queue, runtime);
        if result.is_err() || self.open.bytes > 0 {
            // Not needed for correctness: the next start fences and aborts. It spares readers the wait.
            if let Err(e) = self.sink.abort() {
                tracing::debug!(error = %e, "abort failed; the next start resolves it");
            }
        }
        result
    }

    fn work(&mut self, mut queue: mpsc::Receiver<Work>, runtime: &tokio::runtime::Handle) -> Result<()> {
        loop {
            let work = match queue.try_recv() {
                Ok(work) => Some(work),
                Err(mpsc::error::TryRecvError::Disconnected) => break,
                Err(mpsc::error::TryRecvError::Empty) => {
                    if self.due(true) {
                        self.commit()?;
                        continue;
                    }
                    let ended = Arc::clone(&self.ended);
                    let patience = self.patience();
                    let next = runtime.block_on(async {
                        tokio::select! {
                            work = queue.recv() => Some(work),
                            () = ended.notified() => None,
                            () = tokio::time::sleep(patience) => None,
                        }
                    });
                    match next {
                        Some(None) => break,
                        Some(work) => work,
                        None => None,
                    }
                }
            };
            if let Some(work) = work {
                self.take(work)?;
            }
            if self.pending.as_ref().is_some_and(|p| p.ended.load(Acquire)) {
                self.settle()?;
            }
            self.metrics.queue.set(queue.len() as f64);
            if self.open.held && self.age() > self.transaction_timeout / 2 {
                return Err(Error::sink(
                    Kind::Limit,
                    "a table without key takes longer to read than one Kafka transaction may last",
                )
                .retry(Retry::Operator)
                .fix("raise sink.transaction_timeout (and the brokers' transaction.max.timeout.ms), give the table a key, or exclude it"));
            }
            if self.due(queue.is_empty()) {
                self.commit()?;
            }
        }
        if !self.open.inside && !self.open.held && self.anything() {
            self.commit()?;
        }
        self.settle()
    }

    /// How long to wait for work before `due` must be asked again.
    fn patience(&self) -> Duration {
        let longest = if self.open.since.is_some() { self.limits.commit_interval } else { self.limits.idle_interval };
        let longest = longest.clamp(Duration::from_millis(10), Duration::from_secs(1));
        self.grouping().map_or(longest, |rest| rest.min(longest))
    }

    /// How long to gather more before the next commit.
    fn grouping(&self) -> Option<Duration> {
        let begun = self.begun.as_ref()?;
        let since = begun.at.elapsed();
        let age_us = now_us().saturating_sub(self.open.newest_us);
        let least = begun.distance(self.open.records, since, age_us);
        least.checked_sub(since).filter(|rest| !rest.is_zero())
    }

    fn age(&self) -> Duration {
        self.open.since.map_or(Duration::ZERO, |t| t.elapsed())
    }

    fn anything(&self) -> bool {
        self.open.records > 0 || !self.open.entries.is_empty() || self.open.position.is_some()
    }

    /// Is a commit due? See the table above.
    fn due(&self, nothing_queued: bool) -> bool {
        let o = &self.open;
        if o.held || !self.anything() {
            return false;
        }
        if o.inside {
            return o.records > 0
                && (o.bytes >= self.limits.txn_bytes_max || self.age() > self.transaction_timeout / 3);
        }
        if o.records == 0 && o.entries.is_empty() {
            // Where a new pipeline begins is to be durable before anything else.
            return self.checkpoint.is_none() || self.last_commit.elapsed() >= self.limits.idle_interval;
        }
        (nothing_queued && self.pending.is_none() && self.grouping().is_none())
            || o.bytes >= self.limits.commit_bytes
            || self.age() >= self.limits.commit_interval
    }

    fn take(&mut self, work: Work) -> Result<()> {
        match work {
            Work::State(entries) => {
                self.open.entries.extend(entries);
                self.open.since.get_or_insert_with(Instant::now);
            }
            Work::Expect(tables) => self.sink.expect(&self.encoder.topics_of(&tables))?,
            Work::Stream(batch, entries) => {
                self.append(&batch)?;
                self.open.entries.extend(entries);
                match &batch.cut {
                    Cut::Txn(p) | Cut::Idle(p) => {
                        self.open.position = Some(p.clone());
                        self.open.inside = false;
                    }
                    Cut::Inside(p) => {
                        self.open.position = Some(p.clone());
                        self.open.inside = true;
                    }
                    Cut::Open => return Err(Error::bug("a batch without a cut reached the writer")),
                }
                if let Some(txn) = batch.txns.last() {
                    self.open.newest_us = txn.ts_us;
                } else if matches!(batch.cut, Cut::Idle(_)) {
                    self.open.newest_us = 0;
                }
                self.recycle(batch);
            }
            Work::Chunk { batch, entries, hold, permit } => {
                self.append(&batch)?;
                self.open.entries.extend(entries);
                self.open.held = hold;
                drop(permit);
            }
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<()> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        self.encoder.encode(batch, Clock::now(), &mut self.records)?;
        self.metrics.busy(Stage::Encode, started.elapsed());
        crash::point("encoded");
        let encoded = Instant::now();
        self.sink.append(&self.records)?;
        crash::point("appended");
        self.metrics.busy(Stage::Append, encoded.elapsed());
        self.open.bytes += self.records.buf.len();
        self.open.records += self.records.items.len();
        self.open.changes += batch.changes.len() as u64;
        self.open.since.get_or_insert(started);
        self.records.clear();
        let metrics = &self.metrics;
        self.encoder.drain_counts(&mut |table, events, bytes| metrics.record_table(table, events, bytes));
        Ok(())
    }

    fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        // The reader may be gone already: then nobody needs the batch.
        let _gone = self.free.send(batch);
    }

    /// Begins a commit of everything since the last one.
    fn commit(&mut self) -> Result<()> {
        self.settle()?;
        let started = Instant::now();
        let after = self.begun.as_ref().map_or(Duration::ZERO, |before| started.duration_since(before.at));
        self.begun = Some(Begun { at: started, records: self.open.records, after });
        let open = std::mem::take(&mut self.open);
        let mut entries = open.entries;
        let position = open.position.unwrap_or_else(|| self.position.clone());
        let checkpoint = Checkpoint::after(self.checkpoint.as_ref(), position, now_us() / 1000);
        entries.push(checkpoint.entry(self.checkpoint.as_ref())?);
        crash::point("before-commit");
        let ended = Arc::new(AtomicBool::new(false));
        let (flag, notify) = (Arc::clone(&ended), Arc::clone(&self.ended));
        let tell = move || {
            flag.store(true, Release);
            notify.notify_one();
        };
        self.sink.begin_commit(&entries, Box::new(tell))?;
        // A transaction that goes on is still open at the source, though what we have of it will be durable.
        self.open.inside = open.inside;
        self.pending = Some(Pending {
            ended,
            started,
            checkpoint,
            bytes: open.bytes,
            records: open.records,
            changes: open.changes,
            newest_us: open.newest_us,
        });
        Ok(())
    }

    /// Waits for the end of the commit that was begun, if one was, and tells the reader.
    fn settle(&mut self) -> Result<()> {
        let Some(p) = self.pending.take() else { return Ok(()) };
        let waited = Instant::now();
        self.sink.finish_commit()?;
        crash::point("after-commit");
        self.position = p.checkpoint.position.clone();
        self.checkpoint = Some(p.checkpoint);
        self.last_commit = Instant::now();
        self.metrics.busy(Stage::Commit, waited.elapsed());
        self.metrics.commit(p.started.elapsed(), p.bytes as u64, p.records as u64, now_us() as f64 / 1e6);
        let lag = if p.newest_us == 0 { 0 } else { now_us().saturating_sub(p.newest_us).max(0) };
        self.metrics.lag_seconds.set(lag as f64 / 1e6);
        self.committed.send_modify(|c| {
            c.position = self.position.clone();
            c.count += 1;
            c.changes += p.changes;
        });
        crash::point("after-confirm");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_keep_their_distance_by_rate_and_age() {
        let (since, fresh, old) = (Duration::from_millis(10), 5_000, 60_000_000);
        let calm = (CALM * since.as_secs_f64()) as usize;
        for age in [fresh, old] {
            assert_eq!(distance(calm, since, age), PACE, "few records: whoever reads them waits for nothing else");
        }
        assert_eq!(distance(calm + 1, since, fresh), GROUP);
        assert_eq!(distance(calm + 1, since, old), BACKLOG);
        // A database whose clock is ahead.
        assert_eq!(distance(calm + 1, since, -old), GROUP);
        // Rows that were there before have no time: their age is that of 1970.
        assert_eq!(distance(calm + 1, since, now_us()), BACKLOG);
    }

    #[test]
    fn a_rate_is_that_of_the_time_its_records_came_in() {
        let commit = |rate: usize, after: Duration| Begun {
            at: Instant::now(),
            records: rate * after.as_millis() as usize / 1000,
            after,
        };
        for between in [PACE, GROUP] {
            let at = |rate: usize| commit(rate, between).distance(rate * PACE.as_millis() as usize / 1000, PACE, 5_000);
            assert_eq!(at(15_000), PACE, "commits {between:?} apart so far");
            assert_eq!(at(25_000), GROUP, "commits {between:?} apart so far");
        }
    }
}

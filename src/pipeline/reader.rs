//! The reader: owns the source's socket, and the order in which streamed changes and snapshot rows reach the writer.
//!
//! It never waits for Kafka. When the writer is behind there is no free batch, so it does not read; but it goes on
//! tending the connection (keepalives, feedback), so that a slow broker cannot make the database hang up. Everything it
//! holds is bounded: [`BATCHES`] batches circulate between it and the writer, and a permit bounds the chunks under way.
//!
//! A chunk is placed between two source transactions, when no half-filled batch is in hand: then "streamed" and "handed
//! to the writer" are the same thing, which the merge relies on (see [`super::merge`]).
//!
//! The stream stands until the snapshot's first question has been answered: a change streamed before that would be told
//! without its key being remembered, and the row told again, or told older, by a chunk. Tables without key are read while
//! it still stands.

use super::{
    merge::{Merge, Verdict},
    progress::{Job, Progress},
    snapshot::{Ask, Begun, Placed, Preamble},
    writer::{Committed, Work},
};
use crate::{
    metrics::{PipelineMetrics, Stage},
    sink::Entries,
    state::{State, TableState, kept_entry},
    status::{Entry as Status, Phase},
};
use seachange_sdk::{
    Batch, Chunk, ChunkReader, Cut, Error, Fence, Limit, Range, Result, Source, TableFound, TableId, TableKind,
};
use std::{
    collections::{HashMap, HashSet},
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Batches that circulate between reader and writer.
pub const BATCHES: usize = 3;

/// How a run ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Shutdown,
    /// Everything that was to be read has been read (`snapshot = "only"`).
    Complete,
}

struct Waiting {
    chunk: Chunk,
    job: Job,
    reread: bool,
    reader: Box<dyn ChunkReader>,
    permit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Placed>,
}

/// A keyed table that is to be read once what is told before it has been placed.
struct Planned {
    table: TableId,
    ranges: Vec<Range>,
    preamble: Preamble,
    reply: oneshot::Sender<Option<Vec<Job>>>,
}

/// The reader's end of a pipeline.
pub struct Reader {
    source: Box<dyn Source>,
    limit: Limit,
    merge: Merge,
    progress: Progress,
    work: mpsc::Sender<Work>,
    free: mpsc::UnboundedReceiver<Batch>,
    committed: watch::Receiver<Committed>,
    asks: mpsc::Receiver<Ask>,
    current: Option<Batch>,
    /// State that goes with the next work.
    entries: Entries,
    waiting: Vec<Waiting>,
    planned: Option<Planned>,
    /// Statements streamed.
    statements: u64,
    /// Tables without key that were read whole: changes that this fence sees are already told.
    told: HashMap<TableId, Fence>,
    told_before: HashMap<String, Fence>,
    /// Are there looks at what is in the database?
    looks: bool,
    /// Tables whose keys need no longer be kept for a look that may come.
    known: HashSet<TableId>,
    /// Tables in the stream that no look has found yet: their keys are remembered.
    expected: Vec<TableId>,
    inside: bool,
    pause: Option<oneshot::Sender<()>>,
    standing: bool,
    finished: bool,
    metrics: Arc<PipelineMetrics>,
    status: Arc<Status>,
    busy: Duration,
    reported: Instant,
    changes_committed: u64,
    rows_read: u64,
    rows_estimate: u64,
    whole_rows: u64,
}

fn writer_gone() -> Error {
    Error::bug("the writer has ended")
}

/// Fills the batch if there is one, else tends the connection.
async fn advance(source: &mut dyn Source, batch: Option<&mut Batch>, limit: Limit, busy: &mut Duration) -> Result<()> {
    match batch {
        Some(batch) => {
            let mut fill = pin!(source.fill(batch, limit));
            poll_fn(|cx| {
                let started = Instant::now();
                let polled = fill.as_mut().poll(cx);
                *busy += started.elapsed();
                polled
            })
            .await
        }
        None => match source.tend().await? {},
    }
}

impl Reader {
    /// A reader of an opened source, with what an earlier run has stored. `looks`: a snapshot will look at what is there,
    /// and nothing is streamed before it has.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        source: Box<dyn Source>,
        limit: Limit,
        state: &mut State,
        work: mpsc::Sender<Work>,
        free: mpsc::UnboundedReceiver<Batch>,
        committed: watch::Receiver<Committed>,
        asks: mpsc::Receiver<Ask>,
        looks: bool,
        metrics: Arc<PipelineMetrics>,
        status: Arc<Status>,
    ) -> Reader {
        let progress = Progress::load(state);
        let told_before = progress.fences().into_iter().collect();
        Reader {
            source,
            limit,
            merge: Merge::default(),
            progress,
            work,
            free,
            committed,
            asks,
            current: None,
            entries: vec![],
            waiting: vec![],
            planned: None,
            statements: 0,
            told: HashMap::new(),
            told_before,
            looks,
            known: HashSet::new(),
            expected: vec![],
            inside: false,
            pause: None,
            // What is streamed before the first look has said which tables are read would come again with their rows.
            standing: looks,
            finished: false,
            metrics,
            status,
            busy: Duration::ZERO,
            reported: Instant::now(),
            changes_committed: 0,
            rows_read: 0,
            rows_estimate: 0,
            whole_rows: 0,
        }
    }

    /// Reads until told to stop. Cancel-safe only in the sense that dropping it ends the run.
    pub async fn run(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<End> {
        let mut hasten = tokio::time::interval(Duration::from_millis(20));
        hasten.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if *shutdown.borrow() {
                return Ok(End::Shutdown);
            }
            self.settle_chunks().await?;
            if self.finished && self.waiting.is_empty() && self.told.is_empty() && self.told_before.is_empty() {
                self.flush_entries().await?;
                return Ok(End::Complete);
            }
            if self.current.is_none() {
                self.current = self.free.try_recv().ok();
            }
            let wants = self.current.is_none();
            let batch = if self.standing { None } else { self.current.as_mut() };
            let waits = !self.waiting.is_empty() || self.planned.is_some() || !self.told.is_empty();
            tokio::select! {
                biased;
                changed = shutdown.changed() => if changed.is_err() { return Ok(End::Shutdown) },
                changed = self.committed.changed() => {
                    changed.map_err(|_| writer_gone())?;
                    let committed = self.committed.borrow_and_update().clone();
                    self.source.confirm(&committed.position);
                    self.status.committed(committed.changes - self.changes_committed);
                    self.changes_committed = committed.changes;
                }
                Some(ask) = self.asks.recv() => self.answer(ask).await?,
                free = self.free.recv(), if wants => match free {
                    Some(empty) => self.current = Some(empty),
                    None => return Err(writer_gone()),
                },
                _ = hasten.tick(), if waits => self.source.hasten(),
                done = advance(&mut *self.source, batch, self.limit, &mut self.busy) => {
                    done?;
                    if let Some(batch) = self.current.take() {
                        self.post(batch).await?;
                    }
                }
            }
        }
    }

    /// The last word to the database, after the writer has ended in order.
    pub async fn close(mut self) -> Result<()> {
        let position = self.committed.borrow().position.clone();
        if !position.0.is_empty() {
            self.source.confirm(&position);
        }
        self.source.close().await
    }

    /// Closes the queue to the writer, so that it drains and ends.
    pub fn close_queue(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.work = closed;
    }

    async fn send(&mut self, work: Work) -> Result<()> {
        // Never waits: there are fewer batches and permits than places in the queue.
        self.work.send(work).await.map_err(|_| writer_gone())
    }

    async fn flush_entries(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        self.send(Work::State(entries)).await
    }

    /// Hands a filled batch to the writer.
    async fn post(&mut self, mut batch: Batch) -> Result<()> {
        self.metrics.busy(Stage::Fill, std::mem::take(&mut self.busy));
        self.inside = matches!(batch.cut, Cut::Inside(_));
        if batch.cut == Cut::Open {
            return Err(Error::bug("a source ended a batch without a cut"));
        }
        if !batch.changes.is_empty() {
            if !self.told.is_empty() || !self.told_before.is_empty() {
                self.drop_told(&mut batch)?;
            }
            if self.looks {
                self.expect_tables(&batch);
                self.statements += batch.tables.iter().filter(|t| t.kind == TableKind::Statement).count() as u64;
            }
            if !self.merge.is_idle() {
                let source = &*self.source;
                for (table, keys) in self.merge.observe(&batch, &|txn| source.txn_id(txn))? {
                    let entries = self.progress.store_seen(&table, &keys)?;
                    self.entries.extend(entries);
                }
                if self.merge.is_full() {
                    // Forgotten before any row was read: such a row may come again, but not in an older state.
                    self.expected.drain(..).for_each(|table| self.merge.end(&table));
                }
            }
        }
        self.status.read(batch.changes.len() as u64);
        for keep in batch.kept.drain(..) {
            self.entries.push(kept_entry(keep)?);
        }
        let entries = std::mem::take(&mut self.entries);
        self.send(Work::Stream(batch, entries)).await
    }

    /// A table may be in the stream before a look has found it, and be read after that look: its keys are remembered from
    /// its first change on.
    fn expect_tables(&mut self, batch: &Batch) {
        for schema in &batch.tables {
            if schema.kind != TableKind::Table || schema.key.is_empty() || self.known.contains(&schema.id) {
                continue;
            }
            self.known.insert(schema.id.clone());
            if self.progress.get(&schema.id).is_none() {
                let seen = self.progress.take_seen(&schema.id);
                self.merge.begin(schema.id.clone(), seen);
                self.expected.push(schema.id.clone());
            }
        }
    }

    /// Takes out changes of tables without key which the reading of the whole table has already told.
    fn drop_told(&mut self, batch: &mut Batch) -> Result<()> {
        for (index, schema) in batch.tables.iter().enumerate() {
            let Some(fence) = self.told.get(&schema.id).or_else(|| self.told_before.get(&schema.id.to_string())) else {
                continue;
            };
            let mut seen = Vec::with_capacity(batch.txns.len());
            for txn in &batch.txns {
                seen.push(!self.source.hidden(fence, self.source.txn_id(txn))?);
            }
            batch.changes.retain(|c| c.table as usize != index || !seen.get(c.txn as usize).copied().unwrap_or(false));
        }
        Ok(())
    }

    /// At the end of a source transaction with nothing in hand?
    fn between(&self) -> bool {
        !self.inside && self.current.as_ref().is_none_or(Batch::is_empty)
    }

    /// Places every chunk whose fence has been passed; lets go of fences that have been passed; stands if asked to.
    async fn settle_chunks(&mut self) -> Result<()> {
        if !self.between() {
            return Ok(());
        }
        if let Some(planned) = self.planned.take() {
            if self.source.passed(&planned.preamble.chunk.fence)? {
                let Planned { table, ranges, preamble, reply } = planned;
                if preamble.statements.is_none_or(|n| n == self.statements) {
                    self.plan(&table, ranges, Some(preamble), reply).await?;
                } else {
                    let _gone = reply.send(None);
                }
            } else {
                self.planned = Some(planned);
            }
        }
        let mut i = 0;
        while i < self.waiting.len() {
            if self.source.passed(&self.waiting[i].chunk.fence)? {
                let waiting = self.waiting.remove(i);
                self.place(waiting).await?;
            } else {
                i += 1;
            }
        }
        if !self.told.is_empty() || !self.told_before.is_empty() {
            self.release_told()?;
        }
        if let Some(reply) = self.pause.take() {
            self.standing = true;
            // When the asker is gone, so is the run.
            let _gone = reply.send(());
        }
        Ok(())
    }

    fn release_told(&mut self) -> Result<()> {
        let mut passed = vec![];
        for (table, fence) in &self.told {
            if self.source.passed(fence)? {
                passed.push((table.to_string(), Some(table.clone())));
            }
        }
        for (table, fence) in &self.told_before {
            if self.source.passed(fence)? {
                passed.push((table.clone(), None));
            }
        }
        for (name, id) in passed {
            match id {
                Some(id) => self.told.remove(&id),
                None => self.told_before.remove(&name),
            };
            let entries = self.progress.set_named(&name, TableState::Done { rows: 0, fence: None })?;
            self.entries.extend(entries);
        }
        Ok(())
    }

    async fn place(&mut self, waiting: Waiting) -> Result<()> {
        let Waiting { mut chunk, job, reread, reader, permit, reply } = waiting;
        let source = &*self.source;
        let fence = chunk.fence.clone();
        let read = chunk.batch.changes.len() as u64;
        let verdict = self.merge.filter(&mut chunk, &|txn| source.hidden(&fence, txn))?;
        let rows = match verdict {
            Verdict::Again => {
                let _gone = reply.send(Placed { reader, refused: true, keys: vec![] });
                return Ok(());
            }
            Verdict::Accept(rows) => rows,
        };
        let mut keys = vec![];
        if let Some(rows) = rows {
            for i in 0..rows.changes.len() {
                keys.push(reader.key(&rows, i)?);
            }
        }
        let (entries, ended) = self.progress.advance(&job, chunk.last.clone(), keys.clone(), read, reread)?;
        self.entries.extend(entries);
        if ended {
            self.merge.end(&job.table);
            tracing::info!(table = %job.table, "snapshot of the table is complete");
        }
        self.chunk_read(read);
        self.report();
        self.status.read(chunk.batch.changes.len() as u64);
        let entries = std::mem::take(&mut self.entries);
        self.send(Work::Chunk { batch: chunk.batch, entries, hold: false, permit }).await?;
        let _gone = reply.send(Placed { reader, refused: false, keys });
        Ok(())
    }

    /// Tells how far the snapshot has come: the state, the log now and then.
    fn report(&mut self) {
        let left = self.progress.unfinished().len();
        self.metrics.snapshot_tables.set(left as f64);
        if left == 0 && self.status.phase() == Phase::Snapshotting {
            self.status.set(Phase::Streaming);
            tracing::info!("snapshot is complete; streaming");
        } else if self.reported.elapsed() > Duration::from_secs(10) {
            self.reported = Instant::now();
            tracing::info!(
                tables_left = left,
                rows = self.rows_read,
                rows_estimate = self.rows_estimate,
                "snapshot goes on"
            );
        }
    }

    fn chunk_read(&mut self, rows: u64) {
        self.rows_read += rows;
        self.metrics.snapshot_rows.increment(rows);
        self.metrics.snapshot_chunks.increment(1);
    }

    fn estimate(&mut self, table: &TableFound) {
        self.rows_estimate += table.rows_estimate.unwrap_or(0);
        self.metrics.snapshot_estimate.set(self.rows_estimate as f64);
    }

    async fn answer(&mut self, ask: Ask) -> Result<()> {
        match ask {
            Ask::Begin { found, first, reply } => {
                let begun = self.begin(found, first)?;
                // A table that the database takes for empty may stay so.
                let tables = begun.plan.iter().chain(&begun.whole).filter(|t| t.rows_estimate != Some(0));
                let tables: Vec<TableId> = tables.map(|t| t.id.clone()).collect();
                if !tables.is_empty() {
                    self.send(Work::Expect(tables)).await?;
                }
                let _gone = reply.send(begun);
            }
            Ask::Plan { table, ranges, preamble: None, reply } => self.plan(&table, ranges, None, reply).await?,
            // Tables are planned one after another: there is never a second one.
            Ask::Plan { table, ranges, preamble: Some(preamble), reply } => {
                self.planned = Some(Planned { table, ranges, preamble, reply });
                self.source.hasten();
            }
            Ask::Statements(reply) => {
                let _gone = reply.send(self.statements);
            }
            Ask::Preamble(Preamble { chunk, permit, .. }) => {
                self.send(Work::Chunk { batch: chunk.batch, entries: vec![], hold: true, permit }).await?;
            }
            Ask::Chunk { chunk, job, reread, reader, permit, reply } => {
                self.waiting.push(Waiting { chunk, job, reread, reader, permit, reply });
                self.source.hasten();
            }
            Ask::Pause(reply) => self.pause = Some(reply),
            Ask::Resume => self.standing = false,
            Ask::Whole { table, chunk, last, permit } => {
                let hold = last.is_none();
                self.whole_rows += chunk.batch.changes.len() as u64;
                self.chunk_read(chunk.batch.changes.len() as u64);
                self.status.read(chunk.batch.changes.len() as u64);
                if let Some(fence) = last {
                    let state = TableState::Done { rows: self.whole_rows, fence: Some(fence.0.clone()) };
                    self.whole_rows = 0;
                    let entries = self.progress.set(&table, state)?;
                    self.entries.extend(entries);
                    self.told.insert(table, fence);
                }
                let entries = if hold { vec![] } else { std::mem::take(&mut self.entries) };
                self.send(Work::Chunk { batch: chunk.batch, entries, hold, permit }).await?;
            }
            // Tables without key end here, those with one have ended with their last chunk.
            Ask::Read => self.report(),
            Ask::Finished => self.finished = true,
        }
        Ok(())
    }

    /// A keyed table is read from now on. What is told before it goes with the ranges: whoever finds them stored does not tell
    /// it again.
    async fn plan(
        &mut self,
        table: &TableId,
        ranges: Vec<Range>,
        preamble: Option<Preamble>,
        reply: oneshot::Sender<Option<Vec<Job>>>,
    ) -> Result<()> {
        let entries = self.progress.plan(table, ranges)?;
        self.entries.extend(entries);
        if let Some(Preamble { chunk, permit, .. }) = preamble {
            let entries = std::mem::take(&mut self.entries);
            self.send(Work::Chunk { batch: chunk.batch, entries, hold: false, permit }).await?;
        }
        let _gone = reply.send(Some(self.progress.jobs(table)));
        self.report();
        Ok(())
    }

    /// Decides which of the tables found are read, and remembers their streamed keys from now on.
    fn begin(&mut self, found: Vec<TableFound>, first: bool) -> Result<Begun> {
        let mut begun = Begun::default();
        for table in found {
            self.known.insert(table.id.clone());
            self.expected.retain(|t| *t != table.id);
            let known = self.progress.get(&table.id);
            let read = match known {
                None => first || table.added,
                // Dropped from the log and added again (a table made anew): what was written between is in no log.
                Some(TableState::Done { .. } | TableState::Skipped) => table.added && !first,
                Some(TableState::Whole { .. }) => false,
                Some(TableState::Reading { .. }) => {
                    if first {
                        let seen = self.progress.take_seen(&table.id);
                        self.merge.begin(table.id.clone(), seen);
                        begun.jobs.extend(self.progress.jobs(&table.id));
                        self.estimate(&table);
                        if begun.jobs.is_empty() {
                            tracing::warn!(table = %table.id, "nothing is left to read of a table said to be unfinished");
                        }
                    }
                    continue;
                }
            };
            if !read {
                if known.is_none() {
                    // The log carried the table from its creation on: the stream has told all of it.
                    let entries = self.progress.skip(&table.id)?;
                    self.entries.extend(entries);
                    self.merge.end(&table.id);
                }
                continue;
            }
            tracing::info!(table = %table.id, rows_estimate = table.rows_estimate, keyed = table.keyed, "snapshot begins");
            self.estimate(&table);
            if table.keyed {
                let seen = self.progress.take_seen(&table.id);
                self.merge.begin(table.id.clone(), seen);
                begun.plan.push(table);
            } else {
                begun.whole.push(table);
            }
        }
        for gone in self.expected.drain(..) {
            self.merge.end(&gone);
            self.known.remove(&gone);
        }
        if first {
            self.standing = !begun.whole.is_empty();
        }
        if !(begun.plan.is_empty() && begun.jobs.is_empty() && begun.whole.is_empty()) {
            self.status.set(Phase::Snapshotting);
        } else if first {
            self.status.set(Phase::Streaming);
        }
        Ok(begun)
    }
}

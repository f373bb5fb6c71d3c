//! Reads what is already there: finds tables, plans ranges, runs chunk readers, and asks the pipeline's reader to merge.
//!
//! It runs beside the stream as tasks of its own and owns nothing but its database connections: what has been read is
//! the reader's to know ([`super::progress`]), because only the reader knows where a chunk stands between streamed
//! transactions. A worker reads one chunk, hands it over and waits for the verdict before it reads the next, so that at
//! most one chunk a worker is in memory and a chunk that must be read again is simply read again.
//!
//! The order that makes it exact: tables are *begun* (the reader remembers their streamed keys from then on), then
//! [`Snapshotter::settle`] waits until whatever was committed before is visible, and only then is the first chunk read.

use super::progress::Job;
use crate::config::resolved::{Limits, Snapshot, SnapshotMode};
use bytes::Bytes;
use seachange_sdk::{Chunk, ChunkReader, ChunkRequest, Error, Fence, Range, Result, Snapshotter, TableFound, TableId};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// So often a table's preamble is read if statements are streamed meanwhile: a database whose tables are altered all the time
/// must not keep a snapshot from beginning.
pub(super) const PREAMBLES: usize = 5;

/// What the snapshot asks of the reader.
pub enum Ask {
    /// Which of these tables have to be read? Remember the streamed keys of those from now on.
    Begin {
        /// The tables as found.
        found: Vec<TableFound>,
        /// Is this the first look of this run? Then unknown tables are read; later only those added to the log.
        first: bool,
        /// Keyed tables to plan, jobs that an earlier run left, tables without key.
        reply: oneshot::Sender<Begun>,
    },
    /// A keyed table will be read in these ranges.
    Plan {
        /// The table.
        table: TableId,
        /// Its ranges.
        ranges: Vec<Range>,
        /// What is told before its first row, in one transaction with the ranges: so once.
        preamble: Option<Preamble>,
        /// The jobs, when that has been placed; `None`: it is to be read again, for statements were streamed meanwhile.
        reply: oneshot::Sender<Option<Vec<Job>>>,
    },
    /// How many statements that change tables have been streamed so far?
    Statements(oneshot::Sender<u64>),
    /// A chunk: place it after what its snapshot saw, filtered.
    Chunk {
        /// The rows.
        chunk: Chunk,
        /// Of which job.
        job: Job,
        /// Was it read by keys?
        reread: bool,
        /// The connection, lent for encoding keys.
        reader: Box<dyn ChunkReader>,
        /// Bounds the chunks under way.
        permit: OwnedSemaphorePermit,
        /// The verdict.
        reply: oneshot::Sender<Placed>,
    },
    /// Stop the stream at the next end of a transaction; answered when it stands. It stands from the start until the first
    /// [`Ask::Begin`] has been answered, and on if there are tables without key to be read.
    Pause(oneshot::Sender<()>),
    /// What is told before the first piece of a table without key, in one transaction with all of it.
    Preamble(Preamble),
    /// A piece of a table without key, while the stream stands.
    Whole {
        /// The table.
        table: TableId,
        /// The piece.
        chunk: Chunk,
        /// The fence, on the last piece.
        last: Option<Fence>,
        /// Bounds the chunks under way.
        permit: OwnedSemaphorePermit,
    },
    /// Let the stream go on.
    Resume,
    /// All tables of one look have been read.
    Read,
    /// Everything that was found has been read, and there will be no other look.
    Finished,
}

/// See [`Snapshotter::preamble`].
pub struct Preamble {
    /// What is told.
    pub chunk: Chunk,
    /// Bounds the chunks under way.
    pub permit: OwnedSemaphorePermit,
    /// The answer to [`Ask::Statements`] before it was read; `None`: it is placed whatever was streamed meanwhile.
    pub statements: Option<u64>,
}

/// Answer to [`Ask::Begin`].
#[derive(Default)]
pub struct Begun {
    /// Keyed tables to be planned.
    pub plan: Vec<TableFound>,
    /// Jobs left by an earlier run.
    pub jobs: Vec<Job>,
    /// Tables without key to be read whole.
    pub whole: Vec<TableFound>,
}

/// Answer to [`Ask::Chunk`].
pub struct Placed {
    /// The connection, given back.
    pub reader: Box<dyn ChunkReader>,
    /// The chunk was not placed: read the same again.
    pub refused: bool,
    /// Keys to be read again.
    pub keys: Vec<Bytes>,
}

fn gone() -> Error {
    // The reader has ended, and with it this run: its own error is the one that counts.
    Error::bug("the pipeline's reader has ended")
}

/// The snapshot's tasks.
pub struct Reading {
    snapshotter: Arc<dyn Snapshotter>,
    options: Snapshot,
    limits: Limits,
    ask: mpsc::Sender<Ask>,
    permits: Arc<Semaphore>,
}

impl Reading {
    /// Prepares, starts nothing.
    pub fn new(
        snapshotter: Arc<dyn Snapshotter>,
        options: Snapshot,
        limits: Limits,
        ask: mpsc::Sender<Ask>,
    ) -> Reading {
        let permits = Arc::new(Semaphore::new(options.parallel + 1));
        Reading { snapshotter, options, limits, ask, permits }
    }

    /// Reads what is there, then looks now and then for tables that have appeared. Ends only with an error, or, under
    /// `only`, when all has been read.
    pub async fn run(self) -> Result<()> {
        let mut first = true;
        loop {
            let found = self.snapshotter.discover().await?;
            if self.options.mode != SnapshotMode::Never {
                self.read(found, first).await?;
            }
            if self.options.mode == SnapshotMode::Only {
                self.send(Ask::Finished).await?;
                return Ok(());
            }
            first = false;
            tokio::time::sleep(self.options.discover).await;
        }
    }

    async fn send(&self, ask: Ask) -> Result<()> {
        self.ask.send(ask).await.map_err(|_| gone())
    }

    async fn read(&self, found: Vec<TableFound>, first: bool) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Begin { found, first, reply }).await?;
        let begun = answer.await.map_err(|_| gone())?;
        if begun.plan.is_empty() && begun.jobs.is_empty() && begun.whole.is_empty() {
            return Ok(());
        }
        self.snapshotter.settle().await?;
        if !begun.whole.is_empty() {
            // Once for all: what is streamed between two of them would be in the second one's rows as well.
            let (standing, stands) = oneshot::channel();
            self.send(Ask::Pause(standing)).await?;
            stands.await.map_err(|_| gone())?;
            for table in &begun.whole {
                self.read_whole(table).await?;
            }
            self.send(Ask::Resume).await?;
        }
        let mut jobs: VecDeque<Job> = begun.jobs.into();
        for table in begun.plan {
            // A small table is one range, and nobody has to be asked: there may be thousands of them.
            let ranges = if table.rows_estimate.unwrap_or(0) > 4 * self.options.chunk_rows as u64 {
                self.snapshotter.split(&table.id, self.options.parallel * 4).await?
            } else {
                vec![Range::default()]
            };
            let planned = async |exact: bool| {
                let preamble = self.preamble(&table.id, exact).await?;
                let (reply, answer) = oneshot::channel();
                self.send(Ask::Plan { table: table.id.clone(), ranges: ranges.clone(), preamble, reply }).await?;
                answer.await.map_err(|_| gone())
            };
            let mut looks = 0;
            let found = loop {
                looks += 1;
                if let Some(found) = planned(looks < PREAMBLES).await? {
                    break found;
                }
            };
            jobs.extend(found);
        }
        let workers = self.options.parallel.min(jobs.len());
        let jobs = Arc::new(Mutex::new(jobs));
        let work = |_| self.work(jobs.clone());
        futures_util::future::try_join_all((0..workers).map(work)).await?;
        self.send(Ask::Read).await
    }

    /// `exact`: it is not placed behind a statement that it does not show.
    async fn preamble(&self, table: &TableId, exact: bool) -> Result<Option<Preamble>> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Statements(reply)).await?;
        let streamed = answer.await.map_err(|_| gone())?;
        let Some(chunk) = self.snapshotter.preamble(table).await? else { return Ok(None) };
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| gone())?;
        Ok(Some(Preamble { chunk, permit, statements: exact.then_some(streamed) }))
    }

    /// One worker: takes ranges until none is left.
    async fn work(&self, jobs: Arc<Mutex<VecDeque<Job>>>) -> Result<()> {
        let mut reader: Option<Box<dyn ChunkReader>> = None;
        loop {
            let Some(mut job) = jobs.lock().await.pop_front() else { return Ok(()) };
            while !job.done || !job.again.is_empty() {
                let mut connection = match reader.take() {
                    Some(r) => r,
                    None => self.snapshotter.reader().await?,
                };
                let reread = !job.again.is_empty();
                let permit = self.permits.clone().acquire_owned().await.map_err(|_| gone())?;
                let request = ChunkRequest {
                    table: job.table.clone(),
                    range: job.range.clone(),
                    rows: self.options.chunk_rows,
                    bytes: self.limits.batch_bytes * 4,
                    row_bytes: self.limits.row_bytes_max,
                    keys: job.again.clone(),
                };
                let chunk = connection.read(&request).await.map_err(|e| e.at(format_args!("table {}", job.table)))?;
                let last = chunk.last.clone();
                let (reply, answer) = oneshot::channel();
                let ask = Ask::Chunk { chunk, job: job.clone(), reread, reader: connection, permit, reply };
                self.send(ask).await?;
                let placed = answer.await.map_err(|_| gone())?;
                reader = Some(placed.reader);
                if placed.refused {
                    continue;
                }
                job.again = placed.keys;
                match last {
                    _ if reread => {}
                    Some(key) => job.range.after = Some(key),
                    None => job.done = true,
                }
            }
        }
    }

    /// Reads a table without key while the stream stands.
    async fn read_whole(&self, table: &TableFound) -> Result<()> {
        let mut reader = self.snapshotter.reader().await?;
        if let Some(preamble) = self.preamble(&table.id, false).await? {
            self.send(Ask::Preamble(preamble)).await?;
        }
        let request = ChunkRequest {
            table: table.id.clone(),
            range: Range::default(),
            rows: self.options.chunk_rows,
            bytes: self.limits.batch_bytes * 4,
            row_bytes: self.limits.row_bytes_max,
            keys: vec![],
        };
        loop {
            let permit = self.permits.clone().acquire_owned().await.map_err(|_| gone())?;
            let chunk = reader.read_whole(&request).await.map_err(|e| e.at(format_args!("table {}", table.id)))?;
            let last = chunk.last.is_none().then(|| chunk.fence.clone());
            let end = last.is_some();
            self.send(Ask::Whole { table: table.id.clone(), chunk, last, permit }).await?;
            if end {
                return Ok(());
            }
        }
    }
}

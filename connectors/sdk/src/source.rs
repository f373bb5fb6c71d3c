//! The contracts of a connector.
//!
//! The whole contract of a [`Source`]: *opened at position P, it delivers exactly the changes after P, in order, even if
//! P lies inside a transaction.* Everything else (recovery, exactly once, the snapshot merge) is built by the core on that
//! sentence. Backpressure is not calling `fill`.

use crate::{
    batch::Batch,
    config::Fault,
    error::Result,
    position::{Fence, Keep, Position, Resume, TxnId},
    schema::{TableId, TableSchema},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{convert::Infallible, sync::Arc};

/// How much a [`Source::fill`] may put into a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Return once the batch holds this many bytes of rows. One row may exceed it: a row is never cut.
    pub bytes: usize,
    /// Return once the batch holds this many changes.
    pub changes: usize,
    /// Fail with [`crate::Kind::Limit`] on a row larger than this.
    pub row_bytes: usize,
    /// Fill [`crate::batch::TxnEnd::tables`]: transaction metadata is wanted.
    pub txn_tables: bool,
}

/// A stream of changes from one database. It owns its socket.
#[async_trait]
pub trait Source: Send {
    /// Appends changes to `batch` until a limit is met, or until it holds something and no more is there to read, and
    /// sets [`Batch::cut`]. Whoever commits can do so at the end of a batch only: it should be a transaction's end, for which
    /// a batch may be returned from half the limits on. Waits while there is nothing. A keepalive that moves the position gives an empty batch with
    /// [`crate::Cut::Idle`].
    ///
    /// Cancel-safe: when the future is dropped, nothing is lost; what was appended stays appended, and the next call
    /// with the same batch goes on. While it waits it also answers keepalives and sends feedback.
    async fn fill(&mut self, batch: &mut Batch, limit: Limit) -> Result<()>;

    /// Answers keepalives and sends feedback while nobody reads. Never returns but with an error. Cancel-safe.
    async fn tend(&mut self) -> Result<Infallible>;

    /// Everything up to `upto` is durable at the sink. Cheap: the next `fill` or `tend` tells the database.
    fn confirm(&mut self, upto: &Position);

    /// Sends the last confirmation now and ends the stream in an orderly way.
    async fn close(&mut self) -> Result<()>;

    /// Has everything that the fence's snapshot could see been delivered?
    fn passed(&self, fence: &Fence) -> Result<bool>;

    /// Was this transaction invisible to the snapshot behind the fence?
    fn hidden(&self, fence: &Fence, txn: TxnId) -> Result<bool>;

    /// The [`TxnId`] for a transaction of a batch (PostgreSQL widens the 32-bit xid by the current epoch).
    fn txn_id(&self, txn: &crate::batch::Txn) -> TxnId;

    /// Somebody waits for `passed`: ask the database to report progress soon. Called again while the wait lasts.
    fn hasten(&mut self);
}

/// A run of a table's key: rows after `after` (exclusive) up to `upto` (inclusive). `None`: from the start, to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Last key already read, in the connector's encoding.
    pub after: Option<Bytes>,
    /// Last key that belongs to the range.
    pub upto: Option<Bytes>,
}

/// A table that could be read by a snapshot.
#[derive(Clone, Debug)]
pub struct TableFound {
    /// Its name.
    pub id: TableId,
    /// Can it be read in chunks by key?
    pub keyed: bool,
    /// The database's own estimate of its rows, if it has one.
    pub rows_estimate: Option<u64>,
    /// Was it added to what the log carries only now, so that rows written before are in no log? (Tables that the log
    /// carried from their creation on need no snapshot.)
    pub added: bool,
}

/// What to read next.
#[derive(Clone, Debug)]
pub struct ChunkRequest {
    /// The table.
    pub table: TableId,
    /// The rest of the range.
    pub range: Range,
    /// At most this many rows ...
    pub rows: usize,
    /// ... and about this many bytes. One row may exceed it.
    pub bytes: usize,
    /// Fail with [`crate::Kind::Limit`] on a row larger than this.
    pub row_bytes: usize,
    /// Read just the rows with these keys (encoded as [`Chunk::last`] is) instead of the range; `range` is ignored.
    pub keys: Vec<Bytes>,
}

/// Rows of one table, read under one visibility snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// The rows: every change is an [`crate::Op::Read`] of one table; one transaction entry; the cut stays `Open`. Of a
    /// [`Snapshotter::preamble`]: the same, of a [`crate::TableKind::Statement`].
    pub batch: Batch,
    /// What they were read under.
    pub fence: Fence,
    /// The key of the last row; `None` when the range holds no more rows after these.
    pub last: Option<Bytes>,
}

/// One connection that reads chunks.
#[async_trait]
pub trait ChunkReader: Send {
    /// Reads the next rows of a range, in key order.
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk>;
    /// Encodes the key of a row of a chunk, so that it can stand in [`ChunkRequest::keys`].
    fn key(&self, chunk: &Batch, row: usize) -> Result<Bytes>;
    /// Reads a table that has no key, whole, under one visibility snapshot, in pieces: each call gives the next piece,
    /// all with the same fence; `last` is `None` on the last one. Dropping the reader ends it.
    async fn read_whole(&mut self, request: &ChunkRequest) -> Result<Chunk>;
}

/// What is already there: finds tables, splits them, opens connections that read them.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// The captured tables as of now. Adds tables that have appeared to what the log carries, where the connector keeps
    /// that list itself; those come back with `added`.
    async fn discover(&self) -> Result<Vec<TableFound>>;
    /// Waits until a chunk read from now on can see every transaction that was committed before the stream's start.
    /// Without this, a commit that was in the log before the start but became visible only after the first chunk would
    /// be in neither.
    async fn settle(&self) -> Result<()>;
    /// Splits a keyed table into at most `parts` ranges of about equal size, in key order, covering all keys.
    async fn split(&self, table: &TableId, parts: usize) -> Result<Vec<Range>>;
    /// What is told of a table before its first row, once, when its reading begins: the statement that makes it. The fence is
    /// behind every statement in the log that it already shows, and before every one that it does not.
    async fn preamble(&self, _table: &TableId) -> Result<Option<Chunk>> {
        Ok(None)
    }
    /// Opens a connection.
    async fn reader(&self) -> Result<Box<dyn ChunkReader>>;
    /// For a person: an encoded key.
    fn describe_key(&self, key: &Bytes) -> String;
}

/// What the database says about the pipeline's place in its log: for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStatus {
    /// Bytes of log between the confirmed position and the log's end.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the server keeps because of this pipeline.
    pub retained_bytes: Option<u64>,
    /// Bytes that can still be written before the slot is in danger (`safe_wal_size`).
    pub safe_bytes: Option<i64>,
    /// State of the slot: `reserved`, `extended`, `unreserved`, `lost`.
    pub slot_state: Option<String>,
    /// Is a process streaming from it?
    pub active: Option<bool>,
}

/// An opened source.
pub struct Opened {
    /// The stream.
    pub source: Box<dyn Source>,
    /// Reads what is already there.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Where the stream starts: the position resumed from, or the place where a new one begins.
    pub position: Position,
    /// What is to be stored with `position` before anything is streamed, beside what was stored already.
    pub kept: Vec<Keep>,
}

/// How a preflight check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In order; the text says what was found.
    Pass(String),
    /// Works, but the operator should know: what, and what to do.
    Warn(String, String),
    /// Will not work: what, and the exact thing to do (SQL where it is SQL).
    Fail(String, String),
}

/// One named preflight check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Short name: `wal_level`, `replication privilege`, `table public.orders`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// A source whose configuration has been read.
#[async_trait]
pub trait Configured: Send + Sync {
    /// For logs: address, database, user. No secrets.
    fn describe(&self) -> String;
    /// Every preflight check, changing nothing. Reports all problems, not the first.
    async fn check(&self) -> Vec<Check>;
    /// Makes what is missing (publication, slot) where it may, and opens the stream after `resume`; without it, where a new
    /// stream begins. Fails with
    /// [`crate::Kind::Gap`] when the log no longer holds what comes after it.
    async fn open(&self, resume: Option<&Resume>) -> Result<Opened>;
    /// The state of the pipeline's place in the log. Called every few seconds, on a connection of its own.
    async fn status(&self) -> Result<SourceStatus>;
    /// A position for a person: `LSN 0/16B3748`.
    fn describe_position(&self, position: &Position) -> String;
    /// Database name, for `source.db` in schema-change and other events that belong to no table.
    fn database(&self) -> String;
}

/// What every connector of the daemon is registered as.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The value of `type` in the configuration: `postgres`.
    fn kind(&self) -> &'static str;
    /// URL schemes that `seachange init` hands to this connector: `postgres`, `postgresql`.
    fn schemes(&self) -> &'static [&'static str];
    /// Reads `[pipeline.NAME.source]`, in which secrets have been put in place. `path` is `pipeline.NAME.source`. The
    /// keys `type` and `snapshot*` belong to the core and have been taken out. Reports every fault.
    fn configure(
        &self,
        pipeline: &str,
        path: &str,
        table: &toml::Table,
    ) -> std::result::Result<Arc<dyn Configured>, Vec<Fault>>;
    /// Looks into the database behind `url` and writes the `[pipeline.NAME.source]` table for it, with comments.
    async fn init(&self, url: &str) -> Result<String>;
}

/// The key cells of a row, or an error naming the table: shared by merge and sinks.
pub fn key_is_whole(schema: &TableSchema, cells: &[crate::Cell]) -> bool {
    schema.key.iter().all(|i| cells.get(*i as usize).is_some_and(|c| *c != crate::Cell::ABSENT))
}

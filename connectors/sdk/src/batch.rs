//! A batch: rows as offsets into the bytes the database sent.
//!
//! A row is never an object. The reader freezes its read buffer into a chunk, notes for every cell where its bytes are
//! (8 bytes a cell) and for every change which cells are its before and after image. Nothing is decoded and nothing is
//! copied until a compiled plan writes the output. Batches are recycled, so that steady state allocates nothing.
//!
//! Invariants, on which the encoder relies: a cell's span lies inside its change's chunk; a change's image has exactly
//! as many cells as its table has columns; changes stand in source order; `txn` and `table` index this batch's vectors.

use crate::{
    position::{Keep, Position},
    schema::TableSchema,
};
use bytes::Bytes;
use std::sync::Arc;

/// What happened to a row (or a table, or beside tables).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// A row was inserted: `after`.
    Create,
    /// A row was changed: `after`, and `before` as far as the log carries it.
    Update,
    /// A row was deleted: `before` as far as the log carries it.
    Delete,
    /// A row that was already there, read by the snapshot: `after`.
    Read,
    /// The table was emptied: no image.
    Truncate,
    /// A message beside all tables (PostgreSQL's `pg_logical_emit_message`): `after` = prefix, content. Or a statement that
    /// changed tables: see [`crate::TableKind::Statement`].
    Message,
}

impl Op {
    /// Debezium's letter for the operation.
    pub const fn letter(self) -> char {
        match self {
            Op::Create => 'c',
            Op::Update => 'u',
            Op::Delete => 'd',
            Op::Read => 'r',
            Op::Truncate => 't',
            Op::Message => 'm',
        }
    }

    /// All operations, in the order of their `repr`: for tables of counters.
    pub const ALL: [Op; 6] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Message];
}

/// Where a cell's bytes are in its chunk, or one of three states in which there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Byte offset in the chunk.
    pub off: u32,
    /// Length in bytes, or a sentinel.
    pub len: u32,
}

impl Cell {
    /// SQL NULL.
    pub const NULL: Cell = Cell { off: 0, len: u32::MAX };
    /// The log does not carry the value although the row has one (unchanged TOAST).
    pub const UNAVAILABLE: Cell = Cell { off: 0, len: u32::MAX - 1 };
    /// The log does not carry the column in this image (old row under a key-only replica identity, MINIMAL row image).
    pub const ABSENT: Cell = Cell { off: 0, len: u32::MAX - 2 };

    /// A cell of `len` bytes at `off`.
    pub const fn at(off: u32, len: u32) -> Cell {
        Cell { off, len }
    }
    /// Is there a value?
    #[inline]
    pub const fn is_value(self) -> bool {
        self.len < u32::MAX - 2
    }
    /// The bytes, if there is a value. `None` for the three sentinels.
    #[inline]
    pub fn bytes(self, chunk: &[u8]) -> Option<&[u8]> {
        if self.is_value() { chunk.get(self.off as usize..self.off as usize + self.len as usize) } else { None }
    }
}

/// A run of cells in [`Batch::cells`]: one image of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first cell; `u32::MAX` when there is no image.
    pub start: u32,
    /// Number of cells.
    pub len: u32,
}

impl Span {
    /// No image at all (not the same as an image with no columns).
    pub const NONE: Span = Span { start: u32::MAX, len: 0 };
    /// Is there an image?
    #[inline]
    pub const fn is_some(self) -> bool {
        self.start != u32::MAX
    }
}

/// One change of one row.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// Index into [`Batch::tables`].
    pub table: u32,
    /// Index into [`Batch::chunks`]: both images' cells point into it.
    pub chunk: u32,
    /// The old row, as far as the log carries it.
    pub before: Span,
    /// The new row.
    pub after: Span,
    /// Index into [`Batch::txns`].
    pub txn: u32,
    /// Where the change stands in the log (PostgreSQL: the LSN of the message; binlog: the event's position).
    pub at: u64,
    /// 0-based number of the row within the log's event at `at`; 0 where an event is a row.
    pub row: u32,
    /// 1-based order among the captured changes of its transaction (Debezium's `total_order`).
    pub order: u64,
    /// 1-based order among its table's changes in the transaction (Debezium's `data_collection_order`).
    pub table_order: u64,
}

/// The source transaction that changes of a batch belong to. A large transaction appears in several batches.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// The database's transaction id (PostgreSQL: xid, without epoch).
    pub id: u64,
    /// Commit time, microseconds since the Unix epoch.
    pub ts_us: i64,
    /// Where the transaction commits in the log.
    pub commit: u64,
    /// Commit position of the transaction before it, 0 when there is none known (Debezium's `sequence[0]`).
    pub prev_commit: u64,
    /// Name of the replication origin the transaction came through, if it did.
    pub origin: Option<Arc<str>>,
    /// The position at that origin; 0 without one.
    pub origin_at: u64,
    /// The transaction's identity as text where the database has one (GTID).
    pub gtid: Option<Arc<str>>,
    /// Number of the server that first committed it; 0 where servers have none.
    pub server_id: u32,
    /// Number of the session that made it, where the log says so.
    pub thread: Option<u64>,
    /// The log file it stands in, where [`Change::at`] is an offset in a file.
    pub file: Option<Arc<str>>,
    /// Does its first captured change stand in this batch?
    pub begins: bool,
    /// Set in the batch that holds its end: how many captured changes it had, in all and by table
    /// (index into [`Batch::tables`]). `None` while it goes on in a later batch.
    pub ends: Option<TxnEnd>,
}

/// The counts that close a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnEnd {
    /// Captured changes in the transaction.
    pub changes: u64,
    /// Per table: index into [`Batch::tables`], count. Filled only when transaction metadata is wanted
    /// ([`crate::Limit::txn_tables`]).
    pub tables: Vec<(u32, u64)>,
}

/// Where a batch ends, and so what may be committed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing says yet: the batch is being filled.
    Open,
    /// At the end of a source transaction: everything up to this position is in this and earlier batches.
    Txn(Position),
    /// Inside a source transaction, after the change this position names.
    Inside(Position),
    /// No change, but the log moved on to this position.
    Idle(Position),
}

/// Changes on their way from the reader to the writer.
#[derive(Debug)]
pub struct Batch {
    /// Frozen read buffers; a message never straddles two.
    pub chunks: Vec<Bytes>,
    /// The changes, in source order.
    pub changes: Vec<Change>,
    /// The cells of all images.
    pub cells: Vec<Cell>,
    /// The transactions that the changes belong to, in commit order.
    pub txns: Vec<Txn>,
    /// The tables (one entry a schema version) that the changes belong to.
    pub tables: Vec<Arc<TableSchema>>,
    /// What the connector stores with the cut: see [`crate::Kept`].
    pub kept: Vec<Keep>,
    /// Where it ends.
    pub cut: Cut,
    /// Bytes of row images held, the measure of [`crate::Limit::bytes`].
    pub bytes: usize,
    /// Wall clock at the server for the newest thing read, microseconds since the Unix epoch; 0 unknown.
    pub server_us: i64,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            chunks: Vec::new(),
            changes: Vec::new(),
            cells: Vec::new(),
            txns: Vec::new(),
            tables: Vec::new(),
            kept: Vec::new(),
            cut: Cut::Open,
            bytes: 0,
            server_us: 0,
        }
    }
}

impl Batch {
    /// Empties the batch and keeps its memory, unless a giant row has made it large.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 17;
        self.chunks.clear();
        self.changes.clear();
        self.cells.clear();
        self.txns.clear();
        self.tables.clear();
        self.kept.clear();
        self.changes.shrink_to(KEEP);
        self.cells.shrink_to(KEEP * 8);
        self.cut = Cut::Open;
        self.bytes = 0;
        self.server_us = 0;
    }
    /// No change and no cut: nothing worth sending.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.cut == Cut::Open
    }
    /// The cells of an image; empty for [`Span::NONE`].
    #[inline]
    pub fn image(&self, span: Span) -> &[Cell] {
        if span.is_some() { &self.cells[span.start as usize..(span.start + span.len) as usize] } else { &[] }
    }
    /// The chunk that a change's cells point into.
    #[inline]
    pub fn chunk(&self, change: &Change) -> &[u8] {
        &self.chunks[change.chunk as usize]
    }
    /// Index of a table in this batch, adding it if it is new. Compares by identity: few tables a batch, newest last.
    pub fn table_index(&mut self, table: &Arc<TableSchema>) -> u32 {
        if let Some(i) = self.tables.iter().rposition(|t| Arc::ptr_eq(t, table)) {
            return i as u32;
        }
        self.tables.push(table.clone());
        (self.tables.len() - 1) as u32
    }
}

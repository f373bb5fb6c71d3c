//! The snapshot merge: which rows of a chunk may still be told, given what the stream has told already.
//!
//! The stream runs first, chunks are read beside it, and both end in one order of records. From the moment a table is to
//! be read, this module remembers for every streamed change of it a hash of the row's key, the transaction, and whether
//! the change left values out (`UNAVAILABLE`). A chunk arrives here only after the stream has passed its fence, that is,
//! after everything that the chunk's snapshot can see has been streamed. Then for every row of the chunk:
//!
//! - its key was not streamed: nobody has told this row. It is emitted.
//! - its key was streamed by a transaction hidden from the chunk: the row is older than what was told. It is dropped; if
//!   values were left out, the row is read again by key, so that the consumer gets them once.
//! - its key was streamed and the last such transaction is visible to the chunk: the row *is* what was told. It is
//!   dropped, unless values were left out: then it is emitted, whole.
//!
//! Why this is exact. A row version in a chunk was made by a transaction that the chunk sees. If that one committed after
//! the stream's start it has been streamed (the fence was passed), so the key is remembered; if before, the key is
//! remembered only when something newer was streamed. Only the *last* transaction of a key matters for visibility,
//! because row locks order the writers of one row: when the later is visible, so are the earlier. A commit may be in the
//! log, and streamed, well before it is visible, so positions in the log cannot decide this; transaction ids do.
//!
//! Changes whose key the log does not tell (a delete under an identity that lacks the key) and truncations are remembered
//! as *opaque*: a chunk from which one of them is hidden is read again, whole.
//!
//! Memory is bounded by [`REMEMBERED_MAX`]: above it, keys whose transaction every later chunk will see are forgotten. The
//! price is that such a row may be told twice in the same state (as `u`, then as `r`), never in an older one.
//!
//! The keys are stored with the records (`seen/<table>/<n>`), so that a restart in the middle of a snapshot knows them.

use crate::format::key_hash;
use seachange_sdk::{Batch, Cell, Change, Chunk, Op, Result, Span, TableId, Txn, TxnId, source::key_is_whole};
use std::collections::HashMap;

/// Keys remembered at most, over all tables of a pipeline: about 50 bytes each.
pub const REMEMBERED_MAX: usize = 400_000;

/// A key that was streamed, as it is stored: hash, transaction, were values left out?
pub type SeenKey = (u128, TxnId, bool);

/// What is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace {
    txn: TxnId,
    partial: bool,
}

/// What is remembered of a table that is being read.
#[derive(Debug, Default)]
struct Remembered {
    keys: HashMap<u128, Trace>,
    opaque: Vec<TxnId>,
}

/// What the merge says of a chunk.
#[derive(Debug)]
pub enum Verdict {
    /// The chunk now holds the rows to emit. Rows to be read again by key, if any.
    Accept(Option<Batch>),
    /// Read the same range again: something happened that cannot be matched to rows.
    Again,
}

/// The tables that are being read.
#[derive(Debug, Default)]
pub struct Merge {
    tables: HashMap<TableId, Remembered>,
    count: usize,
    limit: Option<usize>,
    scratch: Vec<u8>,
}

impl Merge {
    /// Starts to remember a table's changes, with what an earlier run has stored of them.
    pub fn begin(&mut self, table: TableId, seen: impl IntoIterator<Item = SeenKey>) {
        let remembered = self.tables.entry(table).or_default();
        for (hash, txn, partial) in seen {
            remember(remembered, &mut self.count, hash, Trace { txn, partial });
        }
    }
    /// Forgets a table: it has been read.
    pub fn end(&mut self, table: &TableId) {
        if let Some(r) = self.tables.remove(table) {
            self.count -= r.keys.len();
        }
    }
    /// Are more keys remembered than there should be?
    pub fn is_full(&self) -> bool {
        self.count > self.limit.unwrap_or(REMEMBERED_MAX)
    }
    /// Is any table being read?
    pub fn is_idle(&self) -> bool {
        self.tables.is_empty()
    }

    /// Notes the changes of a streamed batch. Gives what is to be stored with it, by table.
    pub fn observe(&mut self, batch: &Batch, id: &dyn Fn(&Txn) -> TxnId) -> Result<Vec<(TableId, Vec<SeenKey>)>> {
        let mut out: Vec<(TableId, Vec<SeenKey>)> = Vec::new();
        for (index, schema) in batch.tables.iter().enumerate() {
            let Some(remembered) = self.tables.get_mut(&schema.id) else { continue };
            let mut new = Vec::new();
            for change in batch.changes.iter().filter(|c| c.table as usize == index) {
                let txn = batch.txns.get(change.txn as usize).map_or(0, id);
                let chunk = batch.chunk(change);
                let partial = batch.image(change.after).contains(&Cell::UNAVAILABLE);
                let mut known = false;
                for image in [change.before, change.after] {
                    let cells = batch.image(image);
                    if !image.is_some() || !key_is_whole(schema, cells) {
                        continue;
                    }
                    if let Some(hash) = key_hash(schema, cells, chunk, &mut self.scratch)? {
                        known = true;
                        remember(remembered, &mut self.count, hash, Trace { txn, partial });
                        new.push((hash, txn, partial));
                    }
                }
                if change.op == Op::Truncate || !known {
                    remembered.opaque.push(txn);
                }
            }
            if !new.is_empty() {
                new.dedup();
                out.push((schema.id.clone(), new));
            }
        }
        Ok(out)
    }

    /// Takes the rows out of a chunk that must not be emitted. The stream must have passed the chunk's fence.
    pub fn filter(&mut self, chunk: &mut Chunk, hidden: &dyn Fn(TxnId) -> Result<bool>) -> Result<Verdict> {
        let limit = self.limit.unwrap_or(REMEMBERED_MAX);
        let Some(schema) = chunk.batch.tables.first().cloned() else { return Ok(Verdict::Accept(None)) };
        let Some(remembered) = self.tables.get_mut(&schema.id) else { return Ok(Verdict::Accept(None)) };
        for txn in &remembered.opaque {
            if hidden(*txn)? {
                return Ok(Verdict::Again);
            }
        }
        // Visible to this chunk, so visible to every later one.
        remembered.opaque.clear();
        let mut again = Vec::new();
        if !remembered.keys.is_empty() {
            let changes = std::mem::take(&mut chunk.batch.changes);
            let mut kept = Vec::with_capacity(changes.len());
            for change in changes {
                let cells = chunk.batch.image(change.after);
                let trace = match key_hash(&schema, cells, chunk.batch.chunk(&change), &mut self.scratch)? {
                    Some(hash) => remembered.keys.get(&hash),
                    None => None,
                };
                match trace {
                    None => kept.push(change),
                    Some(t) if hidden(t.txn)? => {
                        if t.partial {
                            again.push(change);
                        }
                    }
                    Some(t) if t.partial => kept.push(change),
                    Some(_) => {}
                }
            }
            chunk.batch.changes = kept;
        }
        if self.count > limit {
            let before = remembered.keys.len();
            let mut error = None;
            remembered.keys.retain(|_, t| match hidden(t.txn) {
                Ok(h) => h,
                Err(e) => {
                    error = Some(e);
                    true
                }
            });
            if let Some(e) = error {
                return Err(e);
            }
            self.count -= before - remembered.keys.len();
        }
        Ok(Verdict::Accept(if again.is_empty() { None } else { Some(rows_of(&chunk.batch, &again)) }))
    }
}

fn remember(remembered: &mut Remembered, count: &mut usize, hash: u128, trace: Trace) {
    use std::collections::hash_map::Entry;
    match remembered.keys.entry(hash) {
        Entry::Vacant(e) => {
            e.insert(trace);
            *count += 1;
        }
        Entry::Occupied(mut e) => {
            // A row once told whole stays whole: what a later change leaves out has not changed since.
            let partial = e.get().partial && trace.partial;
            e.insert(Trace { txn: trace.txn, partial });
        }
    }
}

/// A small batch with just these rows: it shares the chunks' bytes.
fn rows_of(batch: &Batch, rows: &[Change]) -> Batch {
    let mut out = Batch {
        chunks: batch.chunks.clone(),
        tables: batch.tables.clone(),
        txns: batch.txns.clone(),
        ..Batch::default()
    };
    for change in rows {
        let start = out.cells.len() as u32;
        out.cells.extend_from_slice(batch.image(change.after));
        out.changes.push(Change { after: Span { start, len: change.after.len }, ..*change });
    }
    out
}

#[cfg(test)]
#[path = "merge_model.rs"]
pub(super) mod model;

//! From the stream's messages to a batch: transactions, ordinals, positions. No I/O, so that all of it is tested with
//! hand-made frames.
//!
//! Why resuming is exact. A position inside a transaction counts the change messages delivered of it. The server sends a
//! transaction again whole and with the same messages (decoding depends on the log and the catalog as it was then, and
//! the options of the stream are the same), so skipping that many leaves exactly the rest. Counters of order go on while
//! skipping, so that `order` and `table_order` are what they would have been.

use crate::{
    catalog::{self, Bound, RelationInfo},
    conn::unix_us,
    errors::protocol,
    pgoutput::{self, Frame, Message, Shape},
    position::{Inside, Lsn, PgPosition, widen},
};
use seachange_sdk::{
    Batch, Cell, Change, Cut, Error, Kind, Limit, Op, Position, Result, Retry, Selection, Side, Span, TableSchema, Txn,
    batch::TxnEnd,
};
use std::{collections::HashMap, sync::Arc};

/// Prefix of the messages that keep an idle slot moving. They are not published.
pub const HEARTBEAT: &str = "seachange-heartbeat";

/// What is to be done after a frame.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The next frame.
    Go,
    /// This frame could not be taken yet: bind the table first, then give it again.
    Bind(RelationInfo),
}

/// A table of the stream.
struct Rel {
    /// `None`: not captured.
    schema: Option<Arc<TableSchema>>,
    shape: Shape,
    name: String,
    /// Captured changes in transaction number `serial`.
    count: u64,
    serial: u64,
    /// Index in the tables of batch number `batch`.
    index: u32,
    batch: u64,
}

impl Rel {
    fn new(name: String, schema: Option<Arc<TableSchema>>, shape: Shape) -> Rel {
        Rel { schema, shape, name, count: 0, serial: 0, index: 0, batch: 0 }
    }
}

/// The transaction that is being received.
struct Open {
    xid: u32,
    ts_us: i64,
    commit: u64,
    origin: Option<Arc<str>>,
    origin_at: u64,
    /// Change messages seen, captured or not.
    seen: u64,
    /// The first so many were delivered before.
    skip: u64,
    /// Captured changes seen.
    order: u64,
    /// Tables with captured changes, by index into `rels`.
    touched: Vec<u32>,
    /// Its index in the current batch's transactions.
    index: Option<u32>,
}

/// Puts batches together.
pub struct Assembler {
    selection: Selection,
    system: u64,
    end: u64,
    prev_commit: u64,
    resume: Option<Inside>,
    received: u64,
    near_xid: u64,
    txn: Option<Open>,
    serial: u64,
    batch: u64,
    rels: Vec<Rel>,
    by_oid: HashMap<u32, u32>,
    last: (u32, u32),
    origin: Option<Arc<str>>,
    bound: Option<RelationInfo>,
    binary: bool,
    /// The server asked for an answer.
    pub asked: bool,
}

/// Index of the pseudo-table of logical messages.
const MESSAGES: u32 = 0;

impl Assembler {
    /// Starts at a position. `near_xid`: a full transaction id of about now.
    pub fn new(selection: Selection, database: &str, start: PgPosition, near_xid: u64, binary: bool) -> Assembler {
        let messages = Rel::new("logical messages".into(), Some(catalog::message_schema(database)), Shape::default());
        Assembler {
            selection,
            system: start.system,
            end: start.end,
            prev_commit: start.prev_commit,
            resume: start.inside,
            received: start.end,
            near_xid,
            txn: None,
            serial: 0,
            batch: 0,
            rels: vec![messages],
            by_oid: HashMap::new(),
            last: (u32::MAX, 0),
            origin: None,
            bound: None,
            binary,
            asked: false,
        }
    }

    /// Everything that commits below has been delivered.
    pub fn end(&self) -> u64 {
        self.end
    }
    /// The furthest place of the log that the server has shown.
    pub fn received(&self) -> u64 {
        self.received
    }
    /// Does the current transaction have changes in this batch?
    pub fn inside(&self) -> bool {
        self.txn.as_ref().is_some_and(|t| t.index.is_some())
    }
    /// The full id of a transaction.
    pub fn txn_id(&self, xid: u64) -> u64 {
        widen(xid as u32, self.near_xid)
    }

    /// A `fill` begins: the batch may be another one, or the same as before if the last `fill` was dropped.
    pub fn enter(&mut self, batch: &Batch) {
        self.batch += 1;
        if let Some(t) = &mut self.txn {
            let going_on = batch.txns.last().is_some_and(|x| x.ends.is_none());
            t.index = going_on.then(|| batch.txns.len().saturating_sub(1) as u32);
        }
    }

    /// Where what has been delivered ends.
    pub fn position(&self) -> Position {
        let inside = match (&self.txn, self.resume) {
            (Some(t), _) if t.order > 0 && t.seen >= t.skip => Some(Inside { commit: t.commit, ordinal: t.seen }),
            (Some(t), _) if t.skip > 0 => Some(Inside { commit: t.commit, ordinal: t.skip }),
            (Some(_), resume) | (None, resume) => resume,
        };
        PgPosition { system: self.system, end: self.end, prev_commit: self.prev_commit, inside }.encode()
    }

    /// Closes the batch; says whether there is anything to hand over.
    pub fn cut(&self, batch: &mut Batch) {
        batch.cut = if batch.txns.is_empty() {
            Cut::Idle(self.position())
        } else if self.inside() {
            Cut::Inside(self.position())
        } else {
            Cut::Txn(self.position())
        };
    }

    /// The catalog has answered for the relation of [`Next::Bind`].
    pub fn bind(&mut self, info: RelationInfo, bound: Bound) -> Result<()> {
        if bound.mask.len() != info.columns.len() {
            return Err(Error::bug("a mask of another length than its relation"));
        }
        let columns = info.columns.iter().zip(&bound.mask).map(|(c, m)| (*m, c.in_identity)).collect();
        self.put(&info, Some(bound.schema), Shape { columns, binary: self.binary });
        self.bound = Some(info);
        Ok(())
    }

    fn put(&mut self, info: &RelationInfo, schema: Option<Arc<TableSchema>>, shape: Shape) {
        let name = format!("{}.{}", info.schema, info.name);
        match self.by_oid.get(&info.oid).and_then(|i| self.rels.get_mut(*i as usize)) {
            // The counters stay: the table's columns may change within a transaction.
            Some(rel) => (rel.schema, rel.shape, rel.name, rel.batch) = (schema, shape, name, 0),
            None => {
                self.by_oid.insert(info.oid, self.rels.len() as u32);
                self.rels.push(Rel::new(name, schema, shape));
            }
        }
        self.last = (u32::MAX, 0);
    }

    #[inline]
    fn rel(&mut self, oid: u32) -> Result<u32> {
        // Oid u32::MAX is no table's (it is above every oid a server gives out to tables in practice), and if it were,
        // the map would be asked below.
        if self.last.0 == oid && self.last.1 != 0 {
            return Ok(self.last.1);
        }
        let i =
            *self.by_oid.get(&oid).ok_or_else(|| protocol(format!("pgoutput: a change of the unknown table {oid}")))?;
        self.last = (oid, i);
        Ok(i)
    }

    /// Is this table captured, and what is it called? For a message that has not been read whole.
    pub fn captured(&self, oid: u32) -> Option<&str> {
        let rel = self.rels.get(*self.by_oid.get(&oid)? as usize)?;
        rel.schema.as_ref().map(|_| rel.name.as_str())
    }

    /// Takes the contents of one CopyData message. `base`: its offset in the chunk that will be `batch.chunks[chunk]`.
    pub fn take(&mut self, copy: &[u8], base: u32, batch: &mut Batch, limit: &Limit) -> Result<Next> {
        let (at, sent, body) = match pgoutput::frame(copy)? {
            Frame::Keepalive { end, sent, reply } => {
                self.received = self.received.max(end);
                self.asked |= reply;
                batch.server_us = batch.server_us.max(unix_us(sent));
                // Inside a transaction a keepalive tells nothing that could be confirmed.
                if self.txn.is_none() {
                    self.end = self.end.max(end);
                }
                return Ok(Next::Go);
            }
            Frame::Data { at, sent, body } => (at, unix_us(sent), body),
        };
        self.received = self.received.max(at);
        batch.server_us = batch.server_us.max(sent);
        let base = base + pgoutput::DATA_HEADER as u32;
        match pgoutput::message(body)? {
            Message::Row { op, oid } => self.row(op, oid, at, body, base, batch, limit)?,
            Message::Begin { commit, time, xid } => self.begin(commit, time, xid)?,
            Message::Commit { commit, end } => self.commit(commit, end, batch, limit)?,
            Message::Origin { at, name } => {
                if self.origin.as_deref() != Some(name) {
                    self.origin = Some(name.into());
                }
                let origin = self.origin.clone();
                let txn = self.open("an origin")?;
                (txn.origin, txn.origin_at) = (origin, at);
            }
            Message::Relation(info) => {
                if !self.selection.table(&info.schema, &info.name) {
                    self.put(&info, None, Shape::default());
                } else if self.bound.as_ref() == Some(&info) {
                    self.bound = None;
                } else {
                    return Ok(Next::Bind(info));
                }
            }
            Message::Type => {}
            Message::Truncate { oids } => {
                self.open("a truncate")?.seen += 1;
                for oid in oids.iter() {
                    let rel = self.rel(oid)?;
                    self.change(Op::Truncate, rel, at, Span::NONE, Span::NONE, batch)?;
                }
            }
            Message::Logical { transactional, at: own, prefix, content } => {
                let heartbeat = body.get(prefix.clone()) == Some(HEARTBEAT.as_bytes());
                let cell = |r: &std::ops::Range<usize>| Cell::at(base + r.start as u32, r.len() as u32);
                let size = prefix.len() + content.len();
                if size > limit.row_bytes && !heartbeat {
                    return Err(too_large("a logical message", at, size, limit));
                }
                let cells = [cell(&prefix), cell(&content)];
                if transactional {
                    self.open("a transactional message")?.seen += 1;
                    if !heartbeat {
                        let after = span(batch, &cells)?;
                        self.change(Op::Message, MESSAGES, at, Span::NONE, after, batch)?;
                        batch.bytes += size;
                    }
                } else {
                    if !heartbeat {
                        self.beside(at, sent, span(batch, &cells)?, batch);
                        batch.bytes += size;
                    }
                    // A message's place is where its record begins: one byte further is behind it.
                    if self.txn.is_none() {
                        self.end = self.end.max(own.saturating_add(1));
                    }
                }
            }
        }
        Ok(Next::Go)
    }

    fn open(&mut self, what: &str) -> Result<&mut Open> {
        self.txn.as_mut().ok_or_else(|| protocol(format!("pgoutput sent {what} outside a transaction")))
    }

    fn begin(&mut self, commit: u64, time: i64, xid: u32) -> Result<()> {
        if self.txn.is_some() {
            return Err(protocol("pgoutput began a transaction inside another"));
        }
        // No record stands at 0, and a position inside a transaction that commits there could not be read back.
        if commit == 0 {
            return Err(protocol("pgoutput began a transaction that commits at no place of the log"));
        }
        let skip = match self.resume {
            Some(r) if r.commit == commit => {
                self.resume = None;
                r.ordinal
            }
            Some(r) if r.commit < commit => {
                return Err(Error::new(
                    Kind::Gap,
                    Side::Source,
                    Retry::Never,
                    format!(
                        "the log goes on at {} without the transaction that commits at {}, of which {} changes have been \
                         delivered",
                        Lsn(commit),
                        Lsn(r.commit),
                        r.ordinal
                    ),
                )
                .fix("the server's history is not the one that was read before: reset the pipeline's state for a new snapshot"));
            }
            _ => 0,
        };
        self.serial += 1;
        self.near_xid = widen(xid, self.near_xid);
        self.txn = Some(Open {
            xid,
            ts_us: unix_us(time),
            commit,
            origin: None,
            origin_at: 0,
            seen: 0,
            skip,
            order: 0,
            touched: Vec::new(),
            index: None,
        });
        Ok(())
    }

    fn commit(&mut self, commit: u64, end: u64, batch: &mut Batch, limit: &Limit) -> Result<()> {
        let Some(txn) = self.txn.take() else {
            return Err(protocol("pgoutput ended a transaction that it had not begun"));
        };
        if txn.commit != commit {
            return Err(protocol("pgoutput ended another transaction than it had begun"));
        }
        if txn.seen < txn.skip {
            return Err(Error::new(
                Kind::Gap,
                Side::Source,
                Retry::Never,
                format!(
                    "the transaction that commits at {} has {} changes now, and {} have been delivered of it",
                    Lsn(commit),
                    txn.seen,
                    txn.skip
                ),
            )
            .fix("the publication sends less than before: undo its change, or reset the pipeline's state"));
        }
        if txn.order > 0 {
            let mut tables = Vec::new();
            if limit.txn_tables {
                for i in &txn.touched {
                    if let Some(rel) = self.rels.get(*i as usize)
                        && let Some(schema) = &rel.schema
                    {
                        tables.push((batch.table_index(schema), rel.count));
                    }
                }
            }
            let ends = Some(TxnEnd { changes: txn.order, tables });
            match txn.index.and_then(|i| batch.txns.get_mut(i as usize)) {
                Some(x) => x.ends = ends,
                None => {
                    let mut x = self.entry(&txn, false);
                    x.ends = ends;
                    batch.txns.push(x);
                }
            }
        }
        self.end = self.end.max(end);
        self.received = self.received.max(end);
        self.prev_commit = end;
        Ok(())
    }

    fn entry(&self, txn: &Open, begins: bool) -> Txn {
        Txn {
            id: u64::from(txn.xid),
            ts_us: txn.ts_us,
            commit: txn.commit,
            prev_commit: self.prev_commit,
            origin: txn.origin.clone(),
            origin_at: txn.origin_at,
            gtid: None,
            server_id: 0,
            thread: None,
            file: None,
            begins,
            ends: None,
        }
    }

    /// A non-transactional message: published at once, whatever becomes of the transaction around it. It has no
    /// transaction and no commit time; the time is that at which the server sent it.
    fn beside(&mut self, at: u64, sent: i64, after: Span, batch: &mut Batch) {
        let txn = batch.txns.len() as u32;
        batch.txns.push(Txn {
            id: 0,
            ts_us: sent,
            commit: at,
            prev_commit: self.prev_commit,
            origin: None,
            origin_at: 0,
            gtid: None,
            server_id: 0,
            thread: None,
            file: None,
            begins: true,
            ends: Some(TxnEnd { changes: 1, tables: Vec::new() }),
        });
        if let Some(Rel { schema: Some(schema), .. }) = self.rels.first() {
            let table = batch.table_index(schema);
            let chunk = batch.chunks.len() as u32;
            let (before, order) = (Span::NONE, 1);
            batch.changes.push(Change {
                op: Op::Message,
                table,
                chunk,
                before,
                after,
                txn,
                at,
                row: 0,
                order,
                table_order: order,
            });
        }
    }

    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn row(
        &mut self,
        op: Op,
        oid: u32,
        at: u64,
        body: &[u8],
        base: u32,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<()> {
        let i = self.rel(oid)?;
        self.open("a change")?.seen += 1;
        let Some(rel) = self.rels.get(i as usize) else { return Err(Error::bug("a relation without an entry")) };
        if rel.schema.is_none() {
            return Ok(());
        }
        let before = batch.cells.len();
        let images = match pgoutput::row(body, base, &rel.shape, &mut batch.cells) {
            Ok(images) => images,
            Err(e) => {
                batch.cells.truncate(before);
                return Err(e.at(format_args!("table {} at {}", rel.name, Lsn(at))));
            }
        };
        if images.largest > limit.row_bytes {
            batch.cells.truncate(before);
            return Err(too_large(&format!("a row of table {}", rel.name), at, images.largest, limit));
        }
        if self.change(op, i, at, images.before, images.after, batch)? {
            batch.bytes += images.bytes;
        } else {
            batch.cells.truncate(before);
        }
        Ok(())
    }

    /// Appends a captured change, unless it was delivered before.
    #[inline]
    fn change(&mut self, op: Op, i: u32, at: u64, before: Span, after: Span, batch: &mut Batch) -> Result<bool> {
        let (Some(rel), Some(txn)) = (self.rels.get_mut(i as usize), self.txn.as_mut()) else {
            return Err(protocol("pgoutput sent a change outside a transaction"));
        };
        let Some(schema) = &rel.schema else { return Ok(false) };
        if rel.serial != self.serial {
            (rel.serial, rel.count) = (self.serial, 0);
            txn.touched.push(i);
        }
        txn.order += 1;
        rel.count += 1;
        if txn.seen <= txn.skip {
            return Ok(false);
        }
        if rel.batch != self.batch {
            (rel.batch, rel.index) = (self.batch, batch.table_index(schema));
        }
        let (table, order, table_order) = (rel.index, txn.order, rel.count);
        let index = match txn.index {
            Some(index) => index,
            None => {
                let index = batch.txns.len() as u32;
                txn.index = Some(index);
                // `order` is 1 at the first captured change of the transaction, wherever reading began.
                let entry = Txn {
                    id: u64::from(txn.xid),
                    ts_us: txn.ts_us,
                    commit: txn.commit,
                    prev_commit: self.prev_commit,
                    origin: txn.origin.clone(),
                    origin_at: txn.origin_at,
                    gtid: None,
                    server_id: 0,
                    thread: None,
                    file: None,
                    begins: order == 1,
                    ends: None,
                };
                batch.txns.push(entry);
                index
            }
        };
        let chunk = batch.chunks.len() as u32;
        batch.changes.push(Change { op, table, chunk, before, after, txn: index, at, row: 0, order, table_order });
        Ok(true)
    }
}

fn span(batch: &mut Batch, cells: &[Cell]) -> Result<Span> {
    let start = u32::try_from(batch.cells.len()).map_err(|_| protocol("more cells than a batch can count"))?;
    batch.cells.extend_from_slice(cells);
    Ok(Span { start, len: cells.len() as u32 })
}

/// The error for a row above the limit.
pub fn too_large(what: &str, at: u64, size: usize, limit: &Limit) -> Error {
    Error::new(
        Kind::Limit,
        Side::Source,
        Retry::Operator,
        format!("{what} at {} has {size} bytes, and the limit is {}", Lsn(at), limit.row_bytes),
    )
    .fix("raise limits.row_bytes_max, or leave the column out with columns.exclude")
}

#[cfg(test)]
#[path = "assembler_tests.rs"]
mod tests;

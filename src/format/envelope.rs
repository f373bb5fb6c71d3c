//! Debezium's envelope around every change: which records a change becomes, and in what order their parts are written.
//!
//! | change | records |
//! | --- | --- |
//! | create, read, update | one |
//! | update that changes the key | delete of the old key, its tombstone, create of the new key |
//! | delete | one, and its tombstone |
//! | truncate | one without key |
//! | message | one, keyed by its prefix |
//! | statement that changed tables | one, keyed by its database; none without `schema_changes` |
//!
//! Plans are found by the identity of the schema (the plan keeps the `Arc`, so an address cannot be used twice), once a batch.
//! Times are the caller's clock, read once a batch: its text is rendered once for all its records.

use super::{
    json,
    plan::{Absent, At, Image, Plan},
    source::Block,
    topic::Template,
    transaction::{self, Frames},
    values::Scratch,
};
use crate::{
    config::resolved::{Format, Topics, Values},
    records::{Header, Record, Records, Topic},
};
use seachange_sdk::{Batch, Cell, Change, Error, Kind, Op, Result, Retry, Side, Span, TableId, TableKind, Txn};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Names the columns that a record leaves out, as a JSON array: `["before.note"]`.
pub const ABSENT_HEADER: &str = "seachange.absent";
/// On the delete of a key change: the new key.
pub const NEW_KEY_HEADER: &str = "__debezium.newkey";
/// On the create of a key change: the old key.
pub const OLD_KEY_HEADER: &str = "__debezium.oldkey";

/// Plans kept before those that no recent batch used are dropped.
const PLANS: usize = 1024;
/// How recent.
const RECENT: u64 = 64;

/// The wall clock, in nanoseconds since the Unix epoch: the envelope's own `ts_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock(pub i64);

impl Clock {
    /// Now.
    pub fn now() -> Clock {
        let ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        };
        Clock(ns)
    }
}

/// Turns batches into records.
pub struct Encoder {
    pipeline: String,
    format: Format,
    table_topics: Template,
    message_topics: Template,
    /// Statements go to the topic named after the pipeline.
    statement_topic: Template,
    transaction_topic: String,
    frames: Frames,
    plans: Vec<Plan>,
    /// Plan of each of the batch's tables.
    resolved: Vec<usize>,
    /// The `source` block of each of the batch's tables, as its last row had it.
    blocks: Vec<Block>,
    /// Which table each topic belongs to, to tell (once) when two share one.
    owners: HashMap<String, (TableId, bool)>,
    /// Counts of plans that have been dropped.
    left: Vec<(TableId, [u64; 6], u64)>,
    shared: Shared,
    work: Work,
    round: u64,
}

/// What all records of a batch share.
struct Shared {
    /// From `,"op":` to the end of the payload, by operation.
    tails: Vec<u8>,
    tail: [Range<usize>; 6],
    now_ms: i64,
    transaction: bool,
    tombstones: bool,
    /// Also for tables without key, as Debezium does.
    keyless_tombstones: bool,
}

/// Reused from row to row.
#[derive(Default)]
struct Work {
    absent: Absent,
    scratch: Scratch,
}

impl Encoder {
    /// An encoder for one pipeline. Fails on a topic template that means nothing.
    pub fn new(pipeline: &str, database: &str, format: &Format, topics: &Topics) -> Result<Encoder> {
        let nothing = TableId { database: database.into(), schema: "".into(), name: "".into() };
        Ok(Encoder {
            pipeline: pipeline.to_owned(),
            table_topics: Template::parse(&topics.name)?,
            message_topics: Template::parse(&topics.message)?,
            statement_topic: Template::parse("{pipeline}")?,
            transaction_topic: Template::parse(&topics.transaction)?.name(pipeline, &nothing),
            frames: Frames::new(format.schemas),
            format: format.clone(),
            plans: Vec::new(),
            resolved: Vec::new(),
            blocks: Vec::new(),
            owners: HashMap::new(),
            left: Vec::new(),
            shared: Shared {
                tails: Vec::new(),
                tail: Default::default(),
                now_ms: 0,
                transaction: format.transaction,
                tombstones: format.tombstones,
                keyless_tombstones: format.values == Values::Debezium,
            },
            work: Work::default(),
            round: 0,
        })
    }

    /// The topics of the rows of these tables, each once.
    pub fn topics_of(&self, tables: &[TableId]) -> Vec<String> {
        let names: BTreeSet<String> = tables.iter().map(|t| self.table_topics.name(&self.pipeline, t)).collect();
        names.into_iter().collect()
    }

    /// Appends the records of every change of the batch, in order. After an error `out` holds the records of the changes
    /// before the one that failed, and perhaps bytes that no record points to.
    pub fn encode(&mut self, batch: &Batch, clock: Clock, out: &mut Records) -> Result<()> {
        self.round += 1;
        self.resolve(batch, out)?;
        self.shared.render(clock);
        let mut marks = self.format.transaction.then(|| Marks::new(out.topic(&self.transaction_topic)));
        for change in &batch.changes {
            let (Some(index), Some(txn), Some(chunk)) = (
                self.resolved.get(change.table as usize).copied(),
                batch.txns.get(change.txn as usize),
                batch.chunks.get(change.chunk as usize),
            ) else {
                return Err(Error::bug("a change of a table, transaction or chunk that its batch does not have"));
            };
            if self.plans[index].schema.kind == TableKind::Statement && !self.format.schema_changes {
                continue;
            }
            if let Some(marks) = &mut marks {
                marks.before(change, batch, &self.frames, out)?;
            }
            let from = out.buf.len();
            let plan = &mut self.plans[index];
            let block = &mut self.blocks[change.table as usize];
            let mut row =
                Row { shared: &self.shared, work: &mut self.work, plan, block, batch, change, txn, chunk, out };
            match row.plan.schema.kind {
                TableKind::Table => row.change()?,
                TableKind::Message => row.message()?,
                TableKind::Statement => row.statement()?,
            }
            plan.counts[change.op as usize] += 1;
            plan.bytes += (out.buf.len() - from) as u64;
        }
        if let Some(marks) = &mut marks {
            marks.finish(batch, &self.frames, out)?;
        }
        Ok(())
    }

    /// Per-table counts since the last call: changes by operation (in the order of [`Op::ALL`]) and bytes of keys, values
    /// and headers. A change of a key is one update although it becomes three records.
    pub fn drain_counts(&mut self, f: &mut dyn FnMut(&TableId, &[u64; 6], u64)) {
        for (id, counts, bytes) in self.left.drain(..) {
            f(&id, &counts, bytes);
        }
        for plan in &mut self.plans {
            let (counts, bytes) = (std::mem::take(&mut plan.counts), std::mem::take(&mut plan.bytes));
            if counts != [0; 6] {
                f(plan.id(), &counts, bytes);
            }
        }
    }

    /// Finds or compiles the plan of each of the batch's tables, and its topic's index in this arena.
    fn resolve(&mut self, batch: &Batch, out: &mut Records) -> Result<()> {
        if self.plans.len() > PLANS {
            let (round, left) = (self.round, &mut self.left);
            self.plans.retain(|plan| {
                let keep = plan.used + RECENT >= round;
                if !keep && plan.counts != [0; 6] {
                    left.push((plan.id().clone(), plan.counts, plan.bytes));
                }
                keep
            });
        }
        self.resolved.clear();
        self.blocks.iter_mut().for_each(Block::forget);
        self.blocks.resize_with(batch.tables.len().max(self.blocks.len()), Block::default);
        for table in &batch.tables {
            let index = match self.plans.iter().rposition(|p| Arc::ptr_eq(&p.schema, table)) {
                Some(index) => index,
                None => {
                    let template = match table.kind {
                        TableKind::Table => &self.table_topics,
                        TableKind::Message => &self.message_topics,
                        TableKind::Statement => &self.statement_topic,
                    };
                    let plan = Plan::new(table, &self.pipeline, &self.format, template)?;
                    if table.kind == TableKind::Table {
                        let fresh = || (table.id.clone(), false);
                        let (owner, told) = self.owners.entry(plan.topic_name.clone()).or_insert_with(fresh);
                        if *owner != table.id && !std::mem::replace(told, true) {
                            let (topic, other) = (plan.topic_name.as_str(), &*owner);
                            tracing::warn!(topic, table = %table.id, %other, "two tables share a topic");
                        }
                    }
                    self.plans.push(plan);
                    self.plans.len() - 1
                }
            };
            let plan = &mut self.plans[index];
            plan.used = self.round;
            plan.topic = out.topic(&plan.topic_name);
            self.resolved.push(index);
        }
        Ok(())
    }
}

impl Shared {
    /// Renders what all records of a batch end with.
    fn render(&mut self, clock: Clock) {
        let ns = clock.0;
        self.now_ms = ns.div_euclid(1_000_000);
        self.tails.clear();
        for (op, range) in Op::ALL.iter().zip(&mut self.tail) {
            let (from, out) = (self.tails.len(), &mut self.tails);
            out.extend_from_slice(b",\"op\":\"");
            out.push(op.letter() as u8);
            out.extend_from_slice(b"\",\"ts_ms\":");
            json::int(out, self.now_ms);
            out.extend_from_slice(b",\"ts_us\":");
            json::int(out, ns.div_euclid(1000));
            out.extend_from_slice(b",\"ts_ns\":");
            json::int(out, ns);
            out.push(b'}');
            *range = from..out.len();
        }
    }
}

/// Where a key stands in the arena: all of it, and its payload alone.
#[derive(Clone)]
struct Key {
    whole: Range<u32>,
    payload: Range<u32>,
}

/// One change on its way into the arena.
struct Row<'a> {
    shared: &'a Shared,
    work: &'a mut Work,
    plan: &'a Plan,
    block: &'a mut Block,
    batch: &'a Batch,
    change: &'a Change,
    txn: &'a Txn,
    chunk: &'a [u8],
    out: &'a mut Records,
}

impl<'a> Row<'a> {
    fn place(&self, at: At) -> Error {
        self.plan.place(at, self.change.op.letter(), self.change.at)
    }

    fn image(&self, span: Span) -> Result<Option<&'a [Cell]>> {
        if !span.is_some() {
            return Ok(None);
        }
        let cells = self.batch.cells.get(span.start as usize..).and_then(|c| c.get(..span.len as usize));
        cells.map(Some).ok_or_else(|| self.place(At(u32::MAX, Error::bug("an image outside its batch"))))
    }

    fn change(&mut self) -> Result<()> {
        let (before, after) = (self.image(self.change.before)?, self.image(self.change.after)?);
        match self.change.op {
            op @ (Op::Create | Op::Read) => {
                let key = self.key(after, None)?.map(|k| k.whole);
                self.record(op, None, after, None, key, None)
            }
            Op::Update => self.update(before, after),
            Op::Delete => {
                let key = self.key(before, None)?.map(|k| k.whole);
                self.record(Op::Delete, before, None, None, key.clone(), None)?;
                self.tombstone(key, None);
                Ok(())
            }
            Op::Truncate => self.record(Op::Truncate, None, None, None, None, None),
            Op::Message => Err(self.place(At(u32::MAX, Error::bug("a message in the place of a row")))),
        }
    }

    fn update(&mut self, before: Option<&'a [Cell]>, after: Option<&'a [Cell]>) -> Result<()> {
        let (plan, chunk) = (self.plan, self.chunk);
        let new = self.key(after, before)?;
        // An old row without its key cells (identity by another index than the key) cannot tell that the key changed.
        let may_differ = match (before, after) {
            (Some(b), Some(a)) => plan.key_is_there(b) && !plan.key_bytes_equal(b, a, chunk),
            _ => false,
        };
        let Some(new) = new.clone().filter(|_| may_differ) else {
            return self.record(Op::Update, before, after, before, new.map(|k| k.whole), None);
        };
        let mark = self.out.buf.len();
        let Some(old) = self.key(before, None)? else {
            return Err(self.place(At(u32::MAX, Error::bug("a table that lost its key"))));
        };
        if self.out.bytes(&old.payload) == self.out.bytes(&new.payload) {
            self.out.buf.truncate(mark); // other bytes, the same value: 1.0 and 1.00
            return self.record(Op::Update, before, after, before, Some(new.whole), None);
        }
        let newkey = Header { name: NEW_KEY_HEADER, value: new.payload };
        let oldkey = Header { name: OLD_KEY_HEADER, value: old.payload };
        self.record(Op::Delete, before, None, None, Some(old.whole.clone()), Some(newkey.clone()))?;
        self.tombstone(Some(old.whole), Some(newkey));
        self.record(Op::Create, None, after, before, Some(new.whole), Some(oldkey))
    }

    /// Writes the key of a row; `None` when the table has none or there is no row.
    fn key(&mut self, cells: Option<&[Cell]>, other: Option<&[Cell]>) -> Result<Option<Key>> {
        let plan = self.plan;
        let Some(cells) = cells.filter(|_| plan.has_key()) else { return Ok(None) };
        let (buf, Work { absent, scratch }) = (&mut self.out.buf, &mut *self.work);
        let from = buf.len();
        buf.extend_from_slice(&plan.key_open);
        let payload = buf.len();
        let done = plan.key(buf, cells, other, self.chunk, absent, scratch);
        let end = buf.len();
        buf.extend_from_slice(plan.close);
        let whole = from..buf.len();
        done.map_err(|at| self.place(at))?;
        Ok(Some(Key { whole: range(whole)?, payload: range(payload..end)? }))
    }

    /// Writes one record around the two images. `other`: where `after` may take an unavailable value from.
    fn record(
        &mut self,
        op: Op,
        before: Option<&[Cell]>,
        after: Option<&[Cell]>,
        other: Option<&[Cell]>,
        key: Option<Range<u32>>,
        header: Option<Header>,
    ) -> Result<()> {
        let (plan, chunk) = (self.plan, self.chunk);
        let (buf, Work { absent, scratch }) = (&mut self.out.buf, &mut *self.work);
        let from = buf.len();
        buf.extend_from_slice(&plan.value_open);
        let mut image = |buf: &mut Vec<u8>, which, cells: Option<&[Cell]>, other| match cells {
            Some(cells) => plan.image(buf, which, cells, other, chunk, absent, scratch),
            None => {
                buf.extend_from_slice(b"null");
                Ok(())
            }
        };
        buf.extend_from_slice(b"{\"before\":");
        let mut done = image(buf, Image::Before, before, None);
        if done.is_ok() {
            buf.extend_from_slice(b",\"after\":");
            done = image(buf, Image::After, after, other);
        }
        done.map_err(|at| self.place(at))?;
        let buf = &mut self.out.buf;
        buf.extend_from_slice(b",\"source\":");
        plan.source.write(buf, self.change, self.txn, self.block);
        buf.extend_from_slice(b",\"transaction\":");
        self.transaction_block();
        let buf = &mut self.out.buf;
        buf.extend_from_slice(&self.shared.tails[self.shared.tail[op as usize].clone()]);
        buf.extend_from_slice(plan.close);
        let value = range(from..buf.len())?;
        self.push(key, Some(value), header)
    }

    fn transaction_block(&mut self) {
        if self.shared.transaction && self.change.op != Op::Read {
            transaction::block(&mut self.out.buf, self.change, self.txn);
        } else {
            self.out.buf.extend_from_slice(b"null");
        }
    }

    /// Notes a record, with the names of what it leaves out.
    fn push(&mut self, key: Option<Range<u32>>, value: Option<Range<u32>>, header: Option<Header>) -> Result<()> {
        let first = self.out.headers.len() as u32;
        self.out.headers.extend(header);
        if !self.work.absent.is_empty() {
            let from = self.out.buf.len();
            self.plan.absent_names(&mut self.out.buf, &self.work.absent);
            self.work.absent.clear();
            let value = range(from..self.out.buf.len())?;
            self.out.headers.push(Header { name: ABSENT_HEADER, value });
        }
        let headers = first..self.out.headers.len() as u32;
        self.out.items.push(Record { topic: self.plan.topic, key, value, headers });
        Ok(())
    }

    /// A record without value, so that compaction forgets the key.
    fn tombstone(&mut self, key: Option<Range<u32>>, header: Option<Header>) {
        if self.shared.tombstones && (key.is_some() || self.shared.keyless_tombstones) {
            let first = self.out.headers.len() as u32;
            self.out.headers.extend(header);
            let headers = first..self.out.headers.len() as u32;
            self.out.items.push(Record { topic: self.plan.topic, key, value: None, headers });
        }
    }

    /// A statement that changed tables.
    fn statement(&mut self) -> Result<()> {
        let (plan, chunk) = (self.plan, self.chunk);
        let cells = self.image(self.change.after)?.unwrap_or_default();
        let text = |i: usize| {
            let bytes = cells.get(i).and_then(|c| c.bytes(chunk));
            bytes.and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(|| Error::bug("a statement that is no text"))
        };
        let parts = (|| Ok((text(0)?, text(1)?, text(2)?)))();
        let (database, ddl, changes) = parts.map_err(|e| self.place(At(u32::MAX, e)))?;
        let buf = &mut self.out.buf;
        let from = buf.len();
        buf.extend_from_slice(&plan.key_open);
        buf.extend_from_slice(b"{\"databaseName\":");
        json::string(buf, database);
        buf.push(b'}');
        buf.extend_from_slice(plan.close);
        let key = from..buf.len();
        let from = buf.len();
        buf.extend_from_slice(&plan.value_open);
        buf.extend_from_slice(b"{\"source\":");
        plan.source.write(buf, self.change, self.txn, self.block);
        buf.extend_from_slice(b",\"ts_ms\":");
        json::int(buf, self.shared.now_ms);
        buf.extend_from_slice(b",\"databaseName\":");
        json::string(buf, database);
        buf.extend_from_slice(b",\"schemaName\":null,\"ddl\":");
        json::string(buf, ddl);
        buf.extend_from_slice(b",\"tableChanges\":");
        buf.extend_from_slice(changes.as_bytes());
        buf.push(b'}');
        buf.extend_from_slice(plan.close);
        let value = range(from..buf.len())?;
        self.push(Some(range(key)?), Some(value), None)
    }

    /// A message beside all tables.
    fn message(&mut self) -> Result<()> {
        let (plan, chunk) = (self.plan, self.chunk);
        let cells = self.image(self.change.after)?.unwrap_or_default();
        let (buf, Work { scratch, .. }) = (&mut self.out.buf, &mut *self.work);
        let from = buf.len();
        buf.extend_from_slice(&plan.key_open);
        buf.push(b'{');
        let mut done = plan.message_field(buf, 0, cells, chunk, scratch);
        buf.push(b'}');
        buf.extend_from_slice(plan.close);
        let key = from..buf.len();
        let from = buf.len();
        buf.extend_from_slice(&plan.value_open);
        buf.extend_from_slice(b"{\"op\":\"m\",\"ts_ms\":");
        json::int(buf, self.shared.now_ms);
        buf.extend_from_slice(b",\"source\":");
        plan.source.write(buf, self.change, self.txn, self.block);
        buf.extend_from_slice(b",\"message\":{");
        if done.is_ok() {
            done = plan.message_field(buf, 0, cells, chunk, scratch);
            buf.push(b',');
        }
        if done.is_ok() {
            done = plan.message_field(buf, 1, cells, chunk, scratch);
        }
        buf.push(b'}');
        done.map_err(|at| self.place(at))?;
        if self.shared.transaction {
            self.out.buf.extend_from_slice(b",\"transaction\":");
            self.transaction_block();
        }
        self.out.buf.push(b'}');
        self.out.buf.extend_from_slice(plan.close);
        let value = range(from..self.out.buf.len())?;
        self.push(Some(range(key)?), Some(value), None)
    }
}

/// Writes BEGIN before a transaction's first change and END after its last one.
struct Marks {
    topic: Topic,
    /// The first transaction of the batch that has not been closed.
    next: usize,
    /// The transaction that has been opened last.
    opened: Option<usize>,
}

impl Marks {
    fn new(topic: Topic) -> Marks {
        Marks { topic, next: 0, opened: None }
    }

    fn before(&mut self, change: &Change, batch: &Batch, frames: &Frames, out: &mut Records) -> Result<()> {
        let index = change.txn as usize;
        while self.next < index {
            self.close(batch, frames, out)?;
        }
        if change.op != Op::Read && self.opened != Some(index) {
            self.open(index, batch, frames, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, batch: &Batch, frames: &Frames, out: &mut Records) -> Result<()> {
        while self.next < batch.txns.len() {
            self.close(batch, frames, out)?;
        }
        Ok(())
    }

    fn open(&mut self, index: usize, batch: &Batch, frames: &Frames, out: &mut Records) -> Result<()> {
        self.opened = Some(index);
        match batch.txns.get(index) {
            Some(txn) if txn.begins => self.record(txn, frames, out, |buf| {
                transaction::begin(buf, frames, txn);
                Ok(())
            }),
            _ => Ok(()),
        }
    }

    /// Closes the next transaction. One whose changes were all dropped on the way is opened first.
    fn close(&mut self, batch: &Batch, frames: &Frames, out: &mut Records) -> Result<()> {
        let index = self.next;
        self.next += 1;
        let Some(txn) = batch.txns.get(index) else { return Ok(()) };
        if txn.ends.as_ref().is_none_or(|e| e.changes == 0) {
            return Ok(());
        }
        if self.opened != Some(index) {
            self.open(index, batch, frames, out)?;
        }
        self.record(txn, frames, out, |buf| transaction::end(buf, frames, txn, batch))
    }

    fn record(
        &self,
        txn: &Txn,
        frames: &Frames,
        out: &mut Records,
        value: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if !transaction::is_real(txn) {
            return Ok(());
        }
        let from = out.buf.len();
        transaction::key(&mut out.buf, frames, txn);
        let key = range(from..out.buf.len())?;
        let from = out.buf.len();
        value(&mut out.buf)?;
        let value = range(from..out.buf.len())?;
        let headers = out.headers.len() as u32;
        out.items.push(Record { topic: self.topic, key: Some(key), value: Some(value), headers: headers..headers });
        Ok(())
    }
}

/// A range of the arena. Beyond 4 GiB nothing can be pointed to.
fn range(at: Range<usize>) -> Result<Range<u32>> {
    match (u32::try_from(at.start), u32::try_from(at.end)) {
        (Ok(start), Ok(end)) => Ok(start..end),
        _ => Err(Error::new(Kind::Limit, Side::Own, Retry::Operator, "the records of one batch exceed 4 GiB")
            .fix("set a smaller `limits.batch_bytes` or `limits.row_bytes_max` for the pipeline")),
    }
}

//! A model of a database that commits to its log before a commit becomes visible, against which the merge is run.
//!
//! Random schedules of writers, stream, chunk reads and restarts. A consumer applies what comes out and checks, for every
//! key: streamed versions run on without gap or repeat; a snapshot row comes only where nothing was told, or where values
//! had been left out; at the end the consumer holds the database's rows, each of them whole.

use super::*;
use bytes::Bytes;
use seachange_sdk::{Column, Cut, Decoder, Fence, Position, SourceLayout, TableKind, TableSchema, Type, Value};
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

pub(in crate::pipeline) struct Rng(pub(in crate::pipeline) u64);
impl Rng {
    pub(in crate::pipeline) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
    pub(in crate::pipeline) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(in crate::pipeline) const KEYS: u64 = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::pipeline) enum Write {
    Put { version: u64, partial: bool },
    Delete,
}

#[derive(Clone, Debug)]
pub(in crate::pipeline) struct Transaction {
    pub(in crate::pipeline) id: TxnId,
    pub(in crate::pipeline) writes: BTreeMap<u64, Write>,
}

#[derive(Default)]
pub(in crate::pipeline) struct Database {
    pub(in crate::pipeline) next: TxnId,
    pub(in crate::pipeline) versions: BTreeMap<u64, u64>,
    pub(in crate::pipeline) open: Vec<Transaction>,
    pub(in crate::pipeline) log: Vec<Transaction>,
    pub(in crate::pipeline) invisible: BTreeSet<TxnId>,
    pub(in crate::pipeline) rows: BTreeMap<u64, u64>,
}

impl Database {
    fn locked(&self) -> BTreeSet<u64> {
        let open = self.open.iter().flat_map(|t| t.writes.keys());
        let unseen = self.log.iter().filter(|t| self.invisible.contains(&t.id)).flat_map(|t| t.writes.keys());
        open.chain(unseen).copied().collect()
    }
    pub(in crate::pipeline) fn begin(&mut self, rng: &mut Rng) {
        let locked = self.locked();
        let mut writes = BTreeMap::new();
        for _ in 0..1 + rng.below(2) {
            let key = rng.below(KEYS);
            if locked.contains(&key) {
                continue;
            }
            let exists = self.rows.contains_key(&key);
            let write = if exists && rng.chance(20) {
                Write::Delete
            } else {
                let version = self.versions.get(&key).copied().unwrap_or(0) + 1;
                self.versions.insert(key, version);
                Write::Put { version, partial: exists && rng.chance(30) }
            };
            writes.entry(key).or_insert(write);
        }
        // A key drawn twice in one transaction keeps its first write: take the version back to that.
        for (key, write) in &writes {
            if let Write::Put { version, .. } = write {
                self.versions.insert(*key, *version);
            }
        }
        if !writes.is_empty() {
            self.next += 1;
            self.open.push(Transaction { id: self.next, writes });
        }
    }
    pub(in crate::pipeline) fn commit(&mut self, rng: &mut Rng) {
        if !self.open.is_empty() {
            let i = rng.below(self.open.len() as u64) as usize;
            let t = self.open.remove(i);
            self.invisible.insert(t.id);
            self.log.push(t);
        }
    }
    pub(in crate::pipeline) fn reveal(&mut self, rng: &mut Rng) {
        let Some(id) = self.invisible.iter().nth(rng.below(self.invisible.len().max(1) as u64) as usize).copied()
        else {
            return;
        };
        self.invisible.remove(&id);
        let t = self.log.iter().find(|t| t.id == id).expect("logged").clone();
        for (key, write) in t.writes {
            match write {
                Write::Put { version, .. } => self.rows.insert(key, version),
                Write::Delete => self.rows.remove(&key),
            };
        }
    }
    /// Everything not visible now, and everything not begun.
    pub(in crate::pipeline) fn fence(&self) -> (BTreeSet<TxnId>, TxnId) {
        let mut unseen = self.invisible.clone();
        unseen.extend(self.open.iter().map(|t| t.id));
        (unseen, self.next)
    }
}

pub(in crate::pipeline) fn schema() -> Arc<TableSchema> {
    fn text<'a>(_: &'a seachange_sdk::Param, b: &'a [u8]) -> Result<Value<'a>> {
        Ok(Value::Text(std::str::from_utf8(b).expect("model").into()))
    }
    let column = |name: &str, nullable| Column {
        name: name.into(),
        ty: Type::Text,
        type_name: "text".into(),
        nullable,
        decode: Decoder::plain(text),
    };
    Arc::new(TableSchema {
        id: TableId { database: "d".into(), schema: "s".into(), name: "t".into() },
        kind: TableKind::Table,
        version: 1,
        columns: vec![column("id", false), column("version", true), column("big", true)],
        key: vec![0],
        layout: Arc::new(SourceLayout { connector: "model", fields: vec![] }),
    })
}

pub(in crate::pipeline) fn push(
    batch: &mut Batch,
    text: &mut Vec<u8>,
    op: Op,
    key: u64,
    version: u64,
    partial: bool,
    txn: u32,
) {
    let start = batch.cells.len() as u32;
    for part in [key, version] {
        let off = text.len() as u32;
        text.extend_from_slice(part.to_string().as_bytes());
        batch.cells.push(Cell::at(off, text.len() as u32 - off));
    }
    batch.cells.push(if partial { Cell::UNAVAILABLE } else { Cell::NULL });
    let image = Span { start, len: 3 };
    let (before, after) = if op == Op::Delete { (image, Span::NONE) } else { (Span::NONE, image) };
    batch.changes.push(Change { op, table: 0, chunk: 0, before, after, txn, at: 0, row: 0, order: 1, table_order: 1 });
}

pub(in crate::pipeline) fn txn(id: TxnId) -> Txn {
    Txn {
        id,
        ts_us: 0,
        commit: 0,
        prev_commit: 0,
        origin: None,
        origin_at: 0,
        gtid: None,
        server_id: 0,
        thread: None,
        file: None,
        begins: true,
        ends: Some(Default::default()),
    }
}

pub(in crate::pipeline) fn streamed(table: &Arc<TableSchema>, t: &Transaction) -> Batch {
    let mut batch = Batch { tables: vec![table.clone()], txns: vec![txn(t.id)], ..Batch::default() };
    let mut text = vec![];
    for (key, write) in &t.writes {
        match write {
            Write::Put { version, partial } => push(&mut batch, &mut text, Op::Update, *key, *version, *partial, 0),
            Write::Delete => push(&mut batch, &mut text, Op::Delete, *key, 0, false, 0),
        }
    }
    batch.chunks.push(Bytes::from(text));
    batch.cut = Cut::Txn(Position::default());
    batch
}

struct Read {
    chunk: Chunk,
    unseen: BTreeSet<TxnId>,
    newest: TxnId,
    log: usize,
    upto: u64,
    keys: Option<Vec<u64>>,
}

fn read(db: &Database, table: &Arc<TableSchema>, keys: impl Iterator<Item = u64>, by_key: bool) -> Read {
    let mut batch = Batch { tables: vec![table.clone()], txns: vec![txn(0)], ..Batch::default() };
    let mut text = vec![];
    let keys: Vec<u64> = keys.collect();
    for key in &keys {
        if let Some(version) = db.rows.get(key) {
            push(&mut batch, &mut text, Op::Read, *key, *version, false, 0);
        }
    }
    batch.chunks.push(Bytes::from(text));
    let (unseen, newest) = db.fence();
    let chunk = Chunk { batch, fence: Fence::default(), last: None };
    let upto = keys.last().map_or(0, |k| k + 1);
    Read { chunk, unseen, newest, log: db.log.len(), upto, keys: by_key.then_some(keys) }
}

fn number(batch: &Batch, change: &Change, column: usize) -> u64 {
    let cells = batch.image(if change.after.is_some() { change.after } else { change.before });
    std::str::from_utf8(cells[column].bytes(batch.chunk(change)).expect("value"))
        .expect("text")
        .parse()
        .expect("number")
}

/// One schedule. `settle` and the merge as built; the limit makes the merge forget.
fn schedule(seed: u64, limit: Option<usize>) {
    let rng = &mut Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let table = schema();
    let mut db = Database::default();
    for _ in 0..rng.below(30) {
        step(&mut db, rng);
    }
    // The slot: everything in the log before is not streamed.
    let start = db.log.len();
    let mut at = start;
    let mut merge = Merge { limit, ..Merge::default() };
    merge.begin(table.id.clone(), []);
    let mut stored: Vec<SeenKey> = vec![];
    let must_end: BTreeSet<TxnId> = db.fence().0;
    let mut told: BTreeMap<u64, (Option<u64>, bool)> = BTreeMap::new();
    let mut next_key = 0;
    let mut pending: Option<Read> = None;
    let mut again: Vec<u64> = vec![];
    let mut settled = false;
    for tick in 0.. {
        assert!(tick < 5000, "seed {seed}: does not end");
        if tick < 200 || tick % 3 == 0 {
            if tick < 300 {
                step(&mut db, rng);
            } else {
                db.commit(rng);
                db.reveal(rng);
            }
        }
        if at < db.log.len() && rng.chance(50) {
            let batch = streamed(&table, &db.log[at]);
            for (_, keys) in merge.observe(&batch, &|t| t.id).unwrap() {
                stored.extend(keys);
            }
            for change in &batch.changes {
                let key = number(&batch, change, 0);
                if change.op == Op::Delete {
                    told.insert(key, (None, true));
                    continue;
                }
                let version = number(&batch, change, 1);
                let partial = batch.image(change.after)[2] == Cell::UNAVAILABLE;
                let (last, whole) = told.get(&key).copied().unwrap_or((None, false));
                if let Some(last) = last {
                    assert_eq!(version, last + 1, "seed {seed}: key {key} streamed");
                }
                told.insert(key, (Some(version), !partial || (whole && last.is_some())));
            }
            at += 1;
        }
        let waits = must_end.iter().any(|id| db.invisible.contains(id) || db.open.iter().any(|t| t.id == *id));
        settled |= !waits;
        if rng.chance(2) && limit.is_none() {
            // Killed and started again: the chunk under way is lost, what was stored is not.
            again.extend(pending.take().and_then(|r| r.keys).unwrap_or_default());
            merge = Merge::default();
            merge.begin(table.id.clone(), stored.clone());
        }
        match &mut pending {
            None if settled && !again.is_empty() && rng.chance(30) => {
                pending = Some(read(&db, &table, std::mem::take(&mut again).into_iter(), true));
            }
            None if settled && next_key < KEYS && rng.chance(30) => {
                let to = (next_key + 1 + rng.below(3)).min(KEYS);
                pending = Some(read(&db, &table, next_key..to, false));
            }
            Some(r) if at >= r.log => {
                let mut r = pending.take().expect("there");
                let (unseen, newest) = (&r.unseen, r.newest);
                let hidden = |id: TxnId| Ok(id > newest || unseen.contains(&id));
                match merge.filter(&mut r.chunk, &hidden).unwrap() {
                    Verdict::Again => again.extend(r.keys.unwrap_or_default()),
                    Verdict::Accept(rows) => {
                        for change in &r.chunk.batch.changes {
                            let (key, version) = (number(&r.chunk.batch, change, 0), number(&r.chunk.batch, change, 1));
                            match told.get(&key) {
                                None => {}
                                Some((Some(v), whole)) => {
                                    assert_eq!(version, *v, "seed {seed}: key {key} read after it was told");
                                    assert!(limit.is_some() || !whole, "seed {seed}: key {key} told twice");
                                }
                                Some((None, _)) => panic!("seed {seed}: key {key} is back from the dead"),
                            }
                            told.insert(key, (Some(version), true));
                        }
                        if let Some(rows) = rows {
                            again.extend(rows.changes.iter().map(|c| number(&rows, c, 0)));
                        }
                        if r.keys.is_none() {
                            next_key = r.upto;
                        }
                    }
                }
            }
            _ => {}
        }
        let quiet = db.open.is_empty() && db.invisible.is_empty() && at == db.log.len();
        if tick > 300 && quiet && next_key == KEYS && pending.is_none() && again.is_empty() {
            break;
        }
    }
    for (key, version) in &db.rows {
        assert_eq!(told.get(key), Some(&(Some(*version), true)), "seed {seed}: key {key} at the end");
    }
    for (key, (version, _)) in &told {
        assert_eq!(*version, db.rows.get(key).copied(), "seed {seed}: key {key} at the end");
    }
}

pub(in crate::pipeline) fn step(db: &mut Database, rng: &mut Rng) {
    match rng.below(10) {
        0..4 => db.begin(rng),
        4..7 => db.commit(rng),
        _ => db.reveal(rng),
    }
}

#[test]
fn twenty_thousand_schedules() {
    for seed in 1..=20_000 {
        schedule(seed, None);
    }
}

#[test]
fn forgetting_repeats_a_state_but_never_goes_back() {
    for seed in 1..=20_000 {
        schedule(seed, Some(1));
    }
}

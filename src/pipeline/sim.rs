//! The whole pipeline against a model database and a model sink that fail at seeded moments.
//!
//! Real: supervision, reader, writer, merge, progress, encoder, state codec. Model: the database (a log, and commits that
//! become visible later), its source, its snapshotter, and a sink with Kafka's promise (records and state become visible
//! together, an older owner is fenced, the outcome of a commit may be unknown). The invariant is the product's: when all
//! is quiet, the sink holds every change after the start once and in order, and a row as read where there was none.

use super::{
    merge::model::{Database, KEYS, Rng, Transaction, Write, push, schema, step, txn},
    snapshot::PREAMBLES,
    supervise::{MakeSink, supervise},
};
use crate::{
    config::resolved::{
        Format, KafkaSink, Limits, Pipeline, Sink as SinkOptions, Snapshot, SnapshotMode, Topics, Values,
    },
    metrics::PipelineMetrics,
    sink::{Entries, Records, Sink, Stored},
    status::Board,
};
use async_trait::async_trait;
use bytes::Bytes;
use seachange_sdk::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

struct World {
    db: Mutex<Database>,
    /// Log index of the slot.
    start: usize,
    table: Arc<TableSchema>,
    /// Of statements that change tables.
    statements: Arc<TableSchema>,
    /// How often this run has read what is told before a table's rows.
    preambles: AtomicU64,
    rng: Mutex<Rng>,
    /// Faults are injected while this is set.
    faults: AtomicBool,
    /// What the slot was confirmed up to: nothing before may be asked for again.
    confirmed: AtomicU64,
    sink: Mutex<Broker>,
    runs: AtomicU64,
}

#[derive(Default)]
struct Broker {
    owner: u64,
    state: Stored,
    /// (key, version or deleted, op)
    told: Vec<(u64, Option<u64>, char)>,
}

impl World {
    fn fault(&self, one_in: u64) -> bool {
        self.faults.load(Relaxed) && self.rng.lock().expect("rng").below(one_in) == 0
    }
    fn db(&self) -> MutexGuard<'_, Database> {
        self.db.lock().expect("db")
    }
}

fn broken(what: &str) -> Error {
    Error::source(Kind::Connect, what)
}

fn position(index: usize, ordinal: usize) -> Position {
    let mut bytes = (index as u64).to_be_bytes().to_vec();
    bytes.extend((ordinal as u64).to_be_bytes());
    Position(bytes.into())
}

fn parse(position: &Position) -> (usize, usize) {
    let n = |r: std::ops::Range<usize>| u64::from_be_bytes(position.0[r].try_into().expect("8 bytes")) as usize;
    (n(0..8), n(8..16))
}

fn fence(db: &Database) -> Fence {
    let (unseen, newest) = db.fence();
    let mut bytes = (db.log.len() as u64).to_be_bytes().to_vec();
    bytes.extend(newest.to_be_bytes());
    unseen.iter().for_each(|id| bytes.extend(id.to_be_bytes()));
    Fence(bytes.into())
}

fn words(fence: &Fence) -> Vec<u64> {
    fence.0.chunks(8).map(|c| u64::from_be_bytes(c.try_into().expect("8 bytes"))).collect()
}

/// Does the transaction that ends here in the log alter the table?
fn altering(index: usize) -> bool {
    index.is_multiple_of(16)
}

/// All that a statement tells: how long the log was before it, and a number, which is 0 of those in the log.
fn statement(batch: &mut Batch, schema: &Arc<TableSchema>, op: Op, log: u64, number: u64) {
    let (mut text, start) = (Vec::new(), batch.cells.len());
    push(batch, &mut text, op, log, number, false, (batch.txns.len() - 1) as u32);
    // Database, statement, tables.
    let (log, number) = (batch.cells[start], batch.cells[start + 1]);
    batch.cells[start..].copy_from_slice(&[number, log, log]);
    let (table, chunk) = (batch.table_index(schema), batch.chunks.len() as u32);
    let change = batch.changes.last_mut().expect("just pushed");
    (change.table, change.chunk) = (table, chunk);
    batch.chunks.push(text.into());
}

struct ModelSource {
    world: Arc<World>,
    index: usize,
    ordinal: usize,
    idle_told: usize,
}

impl ModelSource {
    /// Where it is, which it also keeps, in every way in which something can be kept.
    fn here(&self, batch: &mut Batch) -> Position {
        let here = position(self.index, self.ordinal);
        batch.kept.push((format!("odd{}", self.index % 2), Some(here.0.clone())));
        batch.kept.push((format!("odd{}", (self.index + 1) % 2), None));
        here
    }
}

#[async_trait]
impl Source for ModelSource {
    async fn fill(&mut self, batch: &mut Batch, limit: Limit) -> Result<()> {
        loop {
            tokio::task::yield_now().await;
            if self.world.fault(150) {
                return Err(broken("the stream broke"));
            }
            let next: Option<Transaction> = self.world.db().log.get(self.index).cloned();
            let Some(t) = next else {
                if !batch.changes.is_empty() {
                    batch.cut = Cut::Txn(self.here(batch));
                    return Ok(());
                }
                if self.idle_told != self.index {
                    self.idle_told = self.index;
                    batch.cut = Cut::Idle(self.here(batch));
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let table = batch.table_index(&self.world.table);
            batch.txns.push(txn(t.id));
            let of = (batch.txns.len() - 1) as u32;
            let mut text = Vec::new();
            let chunk = batch.chunks.len() as u32;
            let mut cut = false;
            for (key, write) in t.writes.iter().skip(self.ordinal) {
                match write {
                    Write::Put { version, partial } => {
                        push(batch, &mut text, Op::Update, *key, *version, *partial, of);
                    }
                    Write::Delete => push(batch, &mut text, Op::Delete, *key, 0, false, of),
                }
                let change = batch.changes.last_mut().expect("just pushed");
                (change.table, change.chunk) = (table, chunk);
                self.ordinal += 1;
                if batch.changes.len() >= limit.changes.min(2) && self.ordinal < t.writes.len() {
                    cut = true;
                    break;
                }
            }
            batch.chunks.push(Bytes::from(text));
            if cut {
                batch.cut = Cut::Inside(self.here(batch));
                return Ok(());
            }
            self.index += 1;
            self.ordinal = 0;
            if altering(self.index) {
                let before = self.index as u64 - 1;
                statement(batch, &self.world.statements, Op::Message, before, 0);
            }
            if batch.changes.len() >= 2 {
                batch.cut = Cut::Txn(self.here(batch));
                return Ok(());
            }
        }
    }
    async fn tend(&mut self) -> Result<Infallible> {
        std::future::pending().await
    }
    fn confirm(&mut self, upto: &Position) {
        self.world.confirmed.fetch_max(parse(upto).0 as u64, Relaxed);
    }
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
    fn passed(&self, fence: &Fence) -> Result<bool> {
        Ok(self.ordinal == 0 && self.index as u64 >= words(fence)[0])
    }
    fn hidden(&self, fence: &Fence, txn: TxnId) -> Result<bool> {
        let w = words(fence);
        Ok(txn > w[1] || w[2..].contains(&txn))
    }
    fn txn_id(&self, txn: &Txn) -> TxnId {
        txn.id
    }
    fn hasten(&mut self) {}
}

struct ModelSnapshotter(Arc<World>);

#[async_trait]
impl Snapshotter for ModelSnapshotter {
    async fn discover(&self) -> Result<Vec<TableFound>> {
        Ok(vec![TableFound { id: self.0.table.id.clone(), keyed: true, rows_estimate: Some(6), added: false }])
    }
    async fn settle(&self) -> Result<()> {
        let before = self.0.db().fence().0;
        loop {
            let now = self.0.db().fence().0;
            if before.is_disjoint(&now) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    async fn split(&self, _: &TableId, _: usize) -> Result<Vec<Range>> {
        let key = |k: u64| Some(Bytes::from(k.to_be_bytes().to_vec()));
        Ok(vec![Range { after: None, upto: key(2) }, Range { after: key(2), upto: None }])
    }
    async fn preamble(&self, _: &TableId) -> Result<Option<Chunk>> {
        if self.0.fault(4) {
            return Err(broken("the preamble's connection broke"));
        }
        let looks = self.0.preambles.fetch_add(1, Relaxed) + 1;
        let mut batch = Batch { txns: vec![txn(0)], ..Batch::default() };
        let fence = {
            let db = self.0.db();
            statement(&mut batch, &self.0.statements, Op::Read, db.log.len() as u64, looks);
            fence(&db)
        };
        // On its way: the stream may be farther when it comes.
        let under_way = self.0.rng.lock().expect("rng").below(8000);
        tokio::time::sleep(Duration::from_micros(under_way)).await;
        Ok(Some(Chunk { batch, fence, last: None }))
    }
    async fn reader(&self) -> Result<Box<dyn ChunkReader>> {
        Ok(Box::new(ModelReader(self.0.clone())))
    }
    fn describe_key(&self, key: &Bytes) -> String {
        format!("{key:?}")
    }
}

struct ModelReader(Arc<World>);

#[async_trait]
impl ChunkReader for ModelReader {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        tokio::task::yield_now().await;
        if self.0.fault(25) {
            return Err(broken("the chunk's connection broke"));
        }
        let number = |b: &Bytes| u64::from_be_bytes(b[..].try_into().expect("8 bytes"));
        let db = self.0.db();
        let mut batch = Batch { tables: vec![self.0.table.clone()], txns: vec![txn(0)], ..Batch::default() };
        let mut text = vec![];
        let mut last = None;
        if request.keys.is_empty() {
            let from = request.range.after.as_ref().map_or(0, |k| number(k) + 1);
            let upto = request.range.upto.as_ref().map_or(KEYS, &number);
            for (key, version) in db.rows.range(from..).take_while(|(k, _)| **k <= upto).take(1) {
                push(&mut batch, &mut text, Op::Read, *key, *version, false, 0);
                last = Some(Bytes::from(key.to_be_bytes().to_vec()));
            }
        } else {
            for key in request.keys.iter().map(number) {
                if let Some(version) = db.rows.get(&key) {
                    push(&mut batch, &mut text, Op::Read, key, *version, false, 0);
                }
            }
        }
        batch.chunks.push(text.into());
        Ok(Chunk { batch, fence: fence(&db), last })
    }
    fn key(&self, chunk: &Batch, row: usize) -> Result<Bytes> {
        let change = &chunk.changes[row];
        let key = chunk.image(change.after)[0].bytes(chunk.chunk(change)).expect("a key");
        let key: u64 = std::str::from_utf8(key).expect("text").parse().expect("number");
        Ok(Bytes::from(key.to_be_bytes().to_vec()))
    }
    async fn read_whole(&mut self, _: &ChunkRequest) -> Result<Chunk> {
        Err(Error::bug("the model has no table without key"))
    }
}

struct ModelConnector(Arc<World>);

#[async_trait]
impl Configured for ModelConnector {
    fn describe(&self) -> String {
        "model".into()
    }
    async fn check(&self) -> Vec<Check> {
        vec![]
    }
    async fn open(&self, resume: Option<&Resume>) -> Result<Opened> {
        self.0.runs.fetch_add(1, Relaxed);
        self.0.preambles.store(0, Relaxed);
        let position = resume.map(|r| r.position.clone()).unwrap_or_else(|| position(self.0.start, 0));
        let (index, ordinal) = parse(&position);
        if let Some(r) = resume {
            let kept: Vec<_> = r.kept.iter().map(|(k, b)| (k.clone(), b.clone())).collect();
            assert_eq!(kept, [(format!("odd{}", index % 2), position.0.clone())], "what was kept is not of this place");
        }
        assert!(index as u64 >= self.0.confirmed.load(Relaxed), "asked for a log that was given up");
        let kept = match resume {
            None => vec![(format!("odd{}", index % 2), Some(position.0.clone()))],
            Some(_) => vec![],
        };
        let source = Box::new(ModelSource { world: self.0.clone(), index, ordinal, idle_told: usize::MAX });
        Ok(Opened { source, snapshotter: Arc::new(ModelSnapshotter(self.0.clone())), position: position.clone(), kept })
    }
    async fn status(&self) -> Result<SourceStatus> {
        Ok(SourceStatus::default())
    }
    fn describe_position(&self, position: &Position) -> String {
        format!("{:?}", parse(position))
    }
    fn database(&self) -> String {
        "d".into()
    }
}

struct ModelSink {
    world: Arc<World>,
    owner: u64,
    open: Vec<(u64, Option<u64>, char)>,
}

impl Sink for ModelSink {
    fn open(&mut self) -> Result<Stored> {
        let mut broker = self.world.sink.lock().expect("sink");
        broker.owner += 1;
        self.owner = broker.owner;
        Ok(broker.state.clone())
    }
    fn append(&mut self, records: &Records) -> Result<()> {
        if self.world.fault(150) {
            return Err(Error::sink(Kind::Sink, "append failed"));
        }
        for record in &records.items {
            let Some(value) = &record.value else { continue };
            let value: serde_json::Value = serde_json::from_slice(records.bytes(value)).expect("JSON");
            if let Some(ddl) = value["ddl"].as_str() {
                let number = value["databaseName"].as_str().and_then(|n| n.parse().ok());
                let op = if number == Some(0) { 'S' } else { 's' };
                self.open.push((ddl.parse().expect("the log's length"), number, op));
                continue;
            }
            let row = if value["after"].is_null() { &value["before"] } else { &value["after"] };
            let number = |v: &serde_json::Value| v.as_str().expect("text").parse::<u64>().expect("number");
            let version = (!value["after"].is_null()).then(|| number(&row["version"]));
            let op = value["op"].as_str().expect("op").chars().next().expect("one letter");
            self.open.push((number(&row["id"]), version, op));
        }
        Ok(())
    }
    fn commit(&mut self, entries: &Entries) -> Result<()> {
        let before = self.world.fault(60);
        let after = self.world.fault(60);
        let mut broker = self.world.sink.lock().expect("sink");
        if before || broker.owner != self.owner {
            return Err(Error::sink(Kind::Sink, "commit failed"));
        }
        broker.told.append(&mut self.open);
        for (key, value) in entries {
            match value {
                Some(v) => broker.state.insert(key.clone(), v.clone()),
                None => broker.state.remove(key),
            };
        }
        if after { Err(Error::sink(Kind::Sink, "commit done, the answer lost")) } else { Ok(()) }
    }
    fn abort(&mut self) -> Result<()> {
        self.open.clear();
        Ok(())
    }
}

fn pipeline(world: &Arc<World>) -> Pipeline {
    let ms = Duration::from_millis;
    Pipeline {
        name: "sim".into(),
        source_kind: "model",
        source: Arc::new(ModelConnector(world.clone())),
        snapshot: Snapshot {
            mode: SnapshotMode::Initial,
            parallel: 2,
            chunk_rows: 1,
            discover: Duration::from_secs(3600),
        },
        topics: Topics::default(),
        format: Format { tombstones: false, ..crate::format::resolved_defaults(Values::Plain) },
        sink: SinkOptions::Kafka(KafkaSink { cluster: "sim".into(), transaction_timeout: Duration::from_secs(60) }),
        limits: Limits {
            batch_bytes: 1 << 16,
            commit_bytes: 400,
            commit_interval: ms(3),
            txn_bytes_max: 300,
            row_bytes_max: 1 << 20,
            idle_interval: ms(5),
            retry_first: ms(1),
        },
    }
}

/// What is told before the table's rows is told once, behind all that it shows, and before every statement that it does not.
fn judge_preamble(db: &Database, start: usize, broker: &Broker, seed: u64) {
    let preambles: Vec<_> = broker.told.iter().enumerate().filter(|(_, t)| t.2 == 's').collect();
    assert!(preambles.len() <= 1, "seed {seed}: {} preambles", preambles.len());
    let Some((at, &(log, looks, _))) = preambles.first().copied() else {
        assert!(broker.told.iter().all(|t| t.2 != 'r'), "seed {seed}: a row was read before the preamble");
        return;
    };
    let before = &broker.told[..at];
    assert!(before.iter().all(|t| t.2 != 'r'), "seed {seed}: a row was read before the preamble");
    let shown: usize = db.log[start..log as usize].iter().map(|t| t.writes.len()).sum();
    let told = before.iter().filter(|t| t.2 != 'S').count();
    assert!(told >= shown, "seed {seed}: the preamble shows {shown} changes and came after {told}");
    // Unless it was looked for as often as it may be: the table is altered all the time.
    let late = before.iter().any(|t| t.2 == 'S' && t.0 >= log);
    assert!(
        !late || looks >= Some(PREAMBLES as u64),
        "seed {seed}: the preamble came behind a statement that it does not show"
    );
}

/// What a read_committed consumer must find.
fn judge(world: &World, seed: u64) -> std::result::Result<(), String> {
    let db = world.db();
    let broker = world.sink.lock().expect("sink");
    let mut want = Vec::new();
    for t in &db.log[world.start..] {
        for (key, write) in &t.writes {
            want.push(match write {
                Write::Put { version, .. } => (*key, Some(*version), 'u'),
                Write::Delete => (*key, None, 'd'),
            });
        }
    }
    let got: Vec<_> = broker.told.iter().filter(|t| matches!(t.2, 'u' | 'd')).copied().collect();
    judge_preamble(&db, world.start, &broker, seed);
    if got.len() < want.len() {
        return Err(format!("seed {seed}: {} of {} changes", got.len(), want.len()));
    }
    assert_eq!(got, want, "seed {seed}: the streamed changes, once and in order");
    let altered: Vec<_> = broker.told.iter().filter(|t| t.2 == 'S').map(|t| t.0 as usize + 1).collect();
    let want: Vec<_> = (world.start + 1..=db.log.len()).filter(|i| altering(*i)).collect();
    assert_eq!(altered, want, "seed {seed}: the statements, once and in order");
    let mut state: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for (key, version, op) in broker.told.iter().filter(|t| !matches!(t.2, 's' | 'S')) {
        if *op == 'r'
            && let Some(known) = state.get(key)
        {
            assert_eq!(known, version, "seed {seed}: key {key} went back when it was read");
            // Once the stream has told a row whole, the snapshot must not tell it again.
            let partial = db.log[world.start..]
                .iter()
                .flat_map(|t| &t.writes)
                .any(|(k, w)| k == key && matches!(w, Write::Put { partial: true, .. }));
            assert!(partial, "seed {seed}: key {key} was told by the stream, and again when it was read");
        }
        state.insert(*key, *version);
    }
    let rows: BTreeMap<u64, u64> = state.iter().filter_map(|(k, v)| v.map(|v| (*k, v))).collect();
    if rows != db.rows {
        return Err(format!("seed {seed}: the rows are {:?}, the consumer has {rows:?}", db.rows));
    }
    Ok(())
}

async fn simulate(seed: u64) -> u64 {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut db = Database::default();
    for _ in 0..rng.below(40) {
        step(&mut db, &mut rng);
    }
    let world = Arc::new(World {
        start: db.log.len(),
        db: Mutex::new(db),
        table: schema(),
        statements: Arc::new(TableSchema {
            id: TableId { database: "d".into(), schema: "statements".into(), name: "t".into() },
            kind: TableKind::Statement,
            version: 1,
            columns: vec![schema().columns[0].clone(); 3],
            key: vec![],
            layout: schema().layout.clone(),
        }),
        preambles: AtomicU64::new(0),
        rng: Mutex::new(Rng(seed | 1)),
        faults: AtomicBool::new(true),
        confirmed: AtomicU64::new(0),
        sink: Mutex::new(Broker::default()),
        runs: AtomicU64::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let at = world.clone();
    let make: MakeSink =
        Arc::new(move |_| Ok(Box::new(ModelSink { world: at.clone(), owner: 0, open: vec![] }) as Box<dyn Sink>));
    let board = Board::new(["sim"]);
    let running = tokio::spawn(supervise(
        pipeline(&world),
        make,
        Arc::new(PipelineMetrics::new("sim")),
        board.entry("sim").expect("on the board"),
        stopped,
    ));
    for _ in 0..120 {
        step(&mut world.db(), &mut rng);
        if rng.chance(40) {
            tokio::time::sleep(Duration::from_micros(rng.below(1500))).await;
        }
    }
    let settled: BTreeSet<u64> = loop {
        let mut db = world.db();
        db.commit(&mut rng);
        db.reveal(&mut rng);
        if db.open.is_empty() && db.invisible.is_empty() {
            break db.fence().0;
        }
    };
    assert!(settled.is_empty());
    world.faults.store(false, Relaxed);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(what) = judge(&world, seed) {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.send(true).expect("running");
    assert!(running.await.expect("no panic"), "seed {seed}: ended in order");
    judge(&world, seed).expect("still exact after the end");
    world.runs.load(Relaxed)
}

/// Pins a failing seed: `SEACHANGE_SIM_SEED=n`; `SEACHANGE_SIM_RUNS=n` for more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_under_seeded_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    if let Some(seed) = number("SEACHANGE_SIM_SEED") {
        simulate(seed).await;
        return;
    }
    let mut runs = 0;
    for seed in 1..=number("SEACHANGE_SIM_RUNS").unwrap_or(60) {
        runs += simulate(seed).await;
    }
    assert!(runs > 60, "faults were injected and survived: {runs} runs");
}

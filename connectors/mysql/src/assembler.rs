//! From events to batches: transactions, tables, rows. No I/O: what has to be asked of the catalog is answered by the caller.
//!
//! - A group of events begins with a GTID (or BEGIN) and ends with XID, COMMIT, or the only statement in it. The position
//!   moves when a group has ended, and never in between but for the count of rows that were delivered.
//! - Rows are counted over captured tables, in the order of the log: a transaction that is read again, here or on another
//!   server, is passed over by that count.
//! - Rows that XA PREPARE left open are kept aside and delivered at XA COMMIT, under its GTID. Until then the prepared
//!   transaction is not part of the position, so that a restart reads it again.
//! - Whatever may be a change of a captured table and cannot be read is an error. Only what is known to be harmless, or is
//!   marked as ignorable by the server, is passed over.

pub(crate) mod ddl;
mod query;
mod rows;
mod xa;

use crate::{
    charset::Collations,
    columns::{Bound, CatalogTable},
    event::{self, Checksum, Format, Header, MariaGtid, kind},
    flavor::Flavor,
    gtid::{GtidPos, Uuid},
    history::{Draft, History, Name},
    payload::{self, PayloadReader},
    position::{Gtids, Place, Stand},
    wire::malformed,
};
use bytes::Bytes;
use seachange_sdk::{
    Batch, Error, Kind, Limit, Result, Retry, Selection, Side, SourceLayout, TableSchema, Txn, batch::TxnEnd,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

/// Rows of prepared XA transactions are kept in memory, up to this much.
const PREPARED_MOST: usize = 256 << 20;
/// Largest unpacked MariaDB event.
const EVENT_MOST: u64 = 1 << 30;
/// Transactions with absent values that are remembered for the snapshot merge.
const REMEMBERED: usize = 1 << 20;

/// What came of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken in.
    Done,
    /// The catalog's description of this table is needed: [`Assembler::provide`] it, and hand in the event again.
    NeedTable(Box<Need>),
}

/// A table that the catalog has to describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// What for.
    pub why: Why,
}

/// What a description is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It adds to what the log says; without it, less is told.
    Hints,
    /// The log does not name the columns: the description must be that of the place where the stream is.
    Columns,
    /// A statement has changed its columns: they are wanted as they are behind it, if that can be told.
    After {
        /// The end of the statement.
        at: Place,
        /// What is known of them.
        draft: Draft,
    },
}

#[derive(Clone, Debug)]
enum Entry {
    Passed,
    Captured(Arc<Bound>),
}

struct Known {
    identity: Vec<u8>,
    entry: Entry,
    stale: bool,
}

/// Who a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    None,
    MySql(Uuid, String, u64),
    Maria(u32, u32, u64),
}

struct Prepared {
    events: Vec<Bytes>,
    bytes: usize,
    id: Id,
    start: Place,
    before: GtidPos,
}

#[derive(Clone, Copy)]
struct Mark {
    changes: usize,
    cells: usize,
    order: u64,
}

struct Group {
    id: Id,
    text: Option<Arc<str>>,
    start: u64,
    begun: bool,
    ts_us: i64,
    server_id: u32,
    thread: Option<u64>,
    /// It was delivered before: only prepared rows are looked at.
    skip: bool,
    /// It is the one of which rows were delivered before the start.
    resumed: bool,
    /// Captured rows seen.
    rows: u64,
    /// Captured changes: Debezium's `total_order`.
    order: u64,
    tables: Vec<(Arc<TableSchema>, u64)>,
    /// Its entry in the batch being filled.
    txn: Option<u32>,
    /// Some of its rows were delivered in an earlier batch.
    delivered: bool,
    number: u64,
    /// XA: events kept aside.
    aside: Option<(Vec<Bytes>, usize)>,
    begin: Mark,
    savepoints: Vec<(String, Mark)>,
    absent: bool,
}

impl Group {
    /// As a batch tells of it.
    fn txn(&self, file: &Arc<str>) -> Txn {
        Txn {
            id: self.number,
            ts_us: self.ts_us,
            commit: self.start,
            gtid: self.text.clone(),
            server_id: self.server_id,
            thread: self.thread,
            file: Some(file.clone()),
            ..Txn::default()
        }
    }
}

/// What an [`Assembler`] is made with.
pub struct Setup {
    /// The kind of server.
    pub flavor: Flavor,
    /// What is captured.
    pub selection: Selection,
    /// The server's collations.
    pub collations: Collations,
    /// Where the stream starts.
    pub stand: Stand,
    /// The columns that tables have there.
    pub history: History,
}

/// The state of a stream.
pub struct Assembler {
    flavor: Flavor,
    selection: Selection,
    collations: Collations,
    layout: Arc<SourceLayout>,
    format: Option<Format>,
    file: Arc<str>,
    at: u64,
    stand: Stand,
    skip_rows: u64,
    group: Option<Group>,
    maps: Vec<(u64, Entry)>,
    known: HashMap<Box<[u8]>, Known>,
    history: History,
    /// The catalog's answers for the event in hand.
    answers: Vec<(Name, Option<CatalogTable>)>,
    version: u64,
    groups: u64,
    /// Where `groups` began in this run.
    first_group: u64,
    payload: Option<PayloadReader>,
    payload_start: Option<u64>,
    prepared: BTreeMap<String, Prepared>,
    absent: VecDeque<(u64, Id, Place)>,
    server_us: i64,
    scratch: String,
}

fn stop(kind: Kind, what: String, fix: &str) -> Error {
    Error::new(kind, Side::Source, Retry::Operator, what).fix(fix)
}

impl Assembler {
    /// At a position.
    pub fn new(setup: Setup) -> Assembler {
        let Setup { flavor, selection, collations, stand, history } = setup;
        // Numbers of one run are above those of every run before it, so that what an earlier run has stored is told apart.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let first_group = since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX / 2));
        Assembler {
            flavor,
            selection,
            collations,
            layout: flavor.layout(),
            format: None,
            file: stand.place.file.as_str().into(),
            at: stand.place.offset,
            skip_rows: stand.rows,
            stand,
            group: None,
            maps: Vec::new(),
            known: HashMap::new(),
            history,
            answers: Vec::new(),
            version: 0,
            first_group,
            groups: first_group,
            payload: None,
            payload_start: None,
            prepared: BTreeMap::new(),
            absent: VecDeque::new(),
            server_us: 0,
            scratch: String::new(),
        }
    }
    /// Is a transaction open?
    pub fn inside(&self) -> bool {
        self.group.is_some()
    }
    /// May a batch end here? Not inside of a transaction while another one, of which rows were delivered before the start,
    /// has not come yet (servers may order transactions differently): a position can name one of them only.
    pub fn may_cut(&self) -> bool {
        self.skip_rows == 0 || self.group.as_ref().is_none_or(|g| g.resumed)
    }
    /// Where everything delivered ends; inside a transaction, with the rows of it that were.
    pub fn stand(&self) -> Stand {
        let mut s = self.stand.clone();
        s.rows = self.skip_rows;
        if let Some(g) = self.group.as_ref().filter(|g| !g.skip && (g.resumed || self.skip_rows == 0)) {
            s.rows = g.rows.max(self.skip_rows);
            s.inside = g.text.as_deref().unwrap_or_default().to_owned();
        }
        if s.rows == 0 {
            s.inside = String::new();
        }
        s
    }
    /// How far the log has been read, whole transactions only.
    pub fn place(&self) -> &Place {
        &self.stand.place
    }
    /// Where the open transaction begins, or where the last one ended: the beginning of an event.
    pub fn boundary(&self) -> Place {
        let offset = self.group.as_ref().map_or(self.at, |g| g.start);
        Place { file: self.file.to_string(), offset: offset.max(4) }
    }
    /// Where the newest event that was taken in ends.
    pub fn here(&self) -> Place {
        Place { file: self.file.to_string(), offset: self.at }
    }
    /// Clock of the server at the newest event.
    pub fn server_us(&self) -> i64 {
        self.server_us
    }
    /// The batch that was being filled has been handed over.
    pub fn new_batch(&mut self) {
        if let Some(g) = &mut self.group {
            g.delivered |= g.txn.is_some();
            g.txn = None;
            g.savepoints.clear();
        }
    }
    /// The catalog's answer to [`Taken::NeedTable`].
    pub fn provide(&mut self, database: &str, table: &str, described: Option<CatalogTable>) {
        self.answers.push((self.history.folding().table(database, table), described));
    }
    /// The catalog's answer, if it has been asked.
    fn answer(&self, name: &Name) -> Option<&Option<CatalogTable>> {
        self.answers.iter().find(|a| a.0 == *name).map(|a| &a.1)
    }
    /// An event has been taken in, or must come again.
    fn taken(&mut self, taken: &Taken, batch: &mut Batch) {
        if *taken == Taken::Done {
            self.answers.clear();
            batch.kept.append(&mut self.history.take_changes());
        }
    }
    /// Was this transaction (by [`Txn::id`]) invisible under a fence? Only those with absent values are remembered.
    pub fn remembered(&self, number: u64) -> Option<Absent<'_>> {
        let i = self.absent.binary_search_by_key(&number, |a| a.0).ok()?;
        self.absent.get(i).map(|a| Absent { id: &a.1, end: &a.2 })
    }

    /// Was this transaction (by [`Txn::id`]) streamed by an earlier run? Then it was committed before this one settled, and
    /// every chunk of this one sees it.
    pub fn of_earlier_run(&self, number: u64) -> bool {
        number <= self.first_group
    }

    /// The next event out of a packed transaction.
    pub fn unpacked(&mut self) -> Result<Option<Bytes>> {
        let Some(reader) = &mut self.payload else { return Ok(None) };
        match reader.next()? {
            Some(event) => Ok(Some(event)),
            None => {
                self.payload = None;
                self.payload_start = None;
                Ok(None)
            }
        }
    }

    /// Takes an event of the stream in.
    pub fn take(&mut self, event: &Bytes, batch: &mut Batch, limit: &Limit) -> Result<Taken> {
        let header = Header::parse(event)?;
        let checksum = self.format.as_ref().map_or(Checksum::Off, |f| f.checksum);
        if header.timestamp > 0 {
            self.server_us = self.server_us.max(i64::from(header.timestamp) * 1_000_000);
        }
        match header.kind {
            kind::FORMAT_DESCRIPTION => {
                self.format = Some(Format::parse(event, &header)?);
                self.maps.clear();
                if !header.artificial() {
                    self.at = event::end_of(self.at, &header);
                }
                return Ok(Taken::Done);
            }
            kind::ROTATE => {
                let guess = header.artificial() || self.format.is_none();
                let body =
                    if guess { event::body_guessed(event, &header)? } else { event::body(event, &header, checksum)? };
                return self.rotate(&event::Rotate::parse(body)?).map(|()| Taken::Done);
            }
            _ if self.format.is_none() => return Err(malformed("an event before the format of the log is known")),
            _ => {}
        }
        let body = event::body(event, &header, checksum)?;
        if matches!(header.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2) {
            let beat = event::Heartbeat::parse(header.kind, body)?;
            if self.group.is_none() && beat.file == *self.file {
                let at = beat.position.unwrap_or_else(|| event::end_of(self.at, &header));
                if at >= self.at {
                    self.at = at;
                    self.passed_to(at);
                }
            }
            return Ok(Taken::Done);
        }
        let end = if header.artificial() { self.at } else { event::end_of(self.at, &header) };
        let start = if header.artificial() { end } else { end.saturating_sub(u64::from(header.size)) };
        let body_at = event::HEADER;
        let body_range = body_at..body_at + body.len();
        let taken = self.dispatch(event, &header, body_range, start, end, batch, limit)?;
        self.taken(&taken, batch);
        if taken == Taken::Done {
            self.at = end;
            if self.group.is_none() {
                self.passed_to(end);
            }
        }
        Ok(taken)
    }

    /// Takes an event out of a packed transaction in: it has no checksum and no place of its own.
    pub fn take_unpacked(&mut self, event: &Bytes, batch: &mut Batch, limit: &Limit) -> Result<Taken> {
        let header = Header::parse(event)?;
        if header.kind == kind::TRANSACTION_PAYLOAD {
            return Err(malformed("a packed transaction inside of a packed transaction"));
        }
        let start = self.payload_start.unwrap_or(self.at);
        let end = self.at;
        let taken = self.dispatch(event, &header, event::HEADER..event.len(), start, end, batch, limit)?;
        self.taken(&taken, batch);
        if taken == Taken::Done && self.group.is_none() {
            self.passed_to(end);
        }
        Ok(taken)
    }

    fn passed_to(&mut self, at: u64) {
        // When log is read again for prepared rows, the position stays where it was.
        let here = Place { file: self.file.to_string(), offset: at };
        if self.stand.place.file.is_empty() || here > self.stand.place {
            self.stand.place = here;
        }
    }

    fn rotate(&mut self, to: &event::Rotate) -> Result<()> {
        if self.group.is_some() {
            return Err(Error::source(
                Kind::Protocol,
                "the log goes on in another file in the middle of a transaction",
            ));
        }
        self.file = to.file.as_str().into();
        self.at = to.position;
        self.maps.clear();
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn dispatch(
        &mut self,
        event: &Bytes,
        header: &Header,
        range: std::ops::Range<usize>,
        start: u64,
        end: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        let body = event.get(range.clone()).ok_or_else(|| malformed("an event without a body"))?;
        match header.kind {
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED => {
                let g = event::Gtid::parse(header.kind, body)?;
                let (id, text) = if g.number == 0 {
                    (Id::None, None)
                } else {
                    let colon = if g.tag.is_empty() { "" } else { ":" };
                    let text = format!("{}{colon}{}:{}", g.uuid, g.tag, g.number);
                    (Id::MySql(g.uuid, g.tag, g.number), Some(text))
                };
                let seconds = i64::from(header.timestamp) * 1_000_000;
                let known = |us: u64| if us > 0 { us as i64 } else { seconds };
                // A replica repeats when the first server committed, and adds when it did so itself.
                let ts = known(g.original_us);
                self.server_us = self.server_us.max(known(g.commit_us));
                self.begin(id, text, start, ts, header.server_id, false, batch)
            }
            kind::MARIADB_GTID => {
                let g = MariaGtid::parse(body)?;
                let id = Id::Maria(g.domain, header.server_id, g.sequence);
                let text = format!("{}-{}-{}", g.domain, header.server_id, g.sequence);
                let begun = g.flags & MariaGtid::STANDALONE == 0;
                self.begin(
                    id,
                    Some(text),
                    start,
                    i64::from(header.timestamp) * 1_000_000,
                    header.server_id,
                    begun,
                    batch,
                )?;
                if g.flags & MariaGtid::PREPARED_XA != 0
                    && let Some(group) = &mut self.group
                {
                    group.aside = Some((Vec::new(), 0));
                }
                Ok(Taken::Done)
            }
            kind::QUERY | kind::QUERY_COMPRESSED => self.query(header, body, start, end, batch, limit),
            kind::XID => self.end(end, batch, limit),
            kind::XA_PREPARE => self.xa_prepare(&event::XaPrepare::parse(body)?, start, end, batch, limit),
            kind::TABLE_MAP
            | kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
            | kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::PARTIAL_UPDATE_ROWS
            | kind::WRITE_ROWS_COMPRESSED_V1..=kind::DELETE_ROWS_COMPRESSED => {
                self.aside_or_rows(event, header, range, start, batch, limit)
            }
            kind::TRANSACTION_PAYLOAD => {
                let p = payload::TransactionPayload::parse(body)?;
                let data_at = range.end - p.packed_size();
                self.payload = Some(p.reader(event.slice(data_at..range.end))?);
                self.payload_start = Some(start);
                Ok(Taken::Done)
            }
            kind::INCIDENT => {
                let (number, text) = event::incident(body)?;
                Err(Error::new(
                    Kind::Gap,
                    Side::Source,
                    Retry::Never,
                    format!("at {}:{start} the server says that changes are missing from its log (incident {number}: {text})", self.file),
                )
                .fix("what is missing is nowhere: start the pipeline under a new name, so that it takes a new snapshot"))
            }
            kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => self.statement_rows(None, start),
            kind::STOP
            | kind::INTVAR
            | kind::RAND
            | kind::USER_VAR
            | kind::IGNORABLE
            | kind::ROWS_QUERY
            | kind::PREVIOUS_GTIDS
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::ANNOTATE_ROWS
            | kind::BINLOG_CHECKPOINT
            | kind::GTID_LIST
            | kind::START_ENCRYPTION => Ok(Taken::Done),
            n if header.flags & event::FLAG_IGNORABLE != 0 => {
                tracing::debug!(kind = n, "an event that the server marks as ignorable");
                Ok(Taken::Done)
            }
            n => Err(stop(
                Kind::Protocol,
                format!("at {}:{start} an event of type {n}, which is not known and may hold changes", self.file),
                "use a version of Seachange that knows it; the server's version is in the log of this program",
            )),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        id: Id,
        text: Option<String>,
        start: u64,
        ts_us: i64,
        server_id: u32,
        begun: bool,
        batch: &Batch,
    ) -> Result<Taken> {
        if self.group.is_some() {
            return Err(malformed(format!("at {}:{start} a transaction begins inside of another", self.file)));
        }
        self.groups += 1;
        let skip = match (&id, &self.stand.gtids) {
            (Id::Maria(domain, _, n), Gtids::Maria(pos)) => pos.contains(*domain, *n),
            (Id::MySql(uuid, tag, n), Gtids::MySql(set)) => set.contains(*uuid, tag, *n),
            _ => Place { file: self.file.to_string(), offset: start } < self.stand.place,
        };
        let resumed =
            self.skip_rows > 0 && !skip && (self.stand.inside.is_empty() || text.as_ref() == Some(&self.stand.inside));
        self.group = Some(Group {
            id,
            resumed,
            text: text.map(Arc::from),
            start,
            begun,
            ts_us,
            server_id,
            thread: None,
            skip,
            rows: 0,
            order: 0,
            tables: Vec::new(),
            txn: None,
            delivered: false,
            number: self.groups,
            aside: None,
            begin: Mark { changes: batch.changes.len(), cells: batch.cells.len(), order: 0 },
            savepoints: Vec::new(),
            absent: false,
        });
        Ok(Taken::Done)
    }

    /// Counts a change of the open group: its transaction in the batch, its orders. `None`: it was delivered before.
    fn count(&mut self, schema: &Arc<TableSchema>, batch: &mut Batch) -> Option<(u32, u64, u64)> {
        let group = self.group.as_mut()?;
        group.rows += 1;
        group.order += 1;
        let table_order = count_table(&mut group.tables, schema);
        if group.resumed && group.rows <= self.skip_rows {
            group.delivered = true;
            return None;
        }
        let txn = match group.txn {
            Some(t) => t,
            None => {
                batch.txns.push(Txn { begins: !group.delivered, ..group.txn(&self.file) });
                let t = (batch.txns.len() - 1) as u32;
                group.txn = Some(t);
                t
            }
        };
        Some((txn, group.order, table_order))
    }

    /// A transaction belongs to the position.
    fn note(&mut self, id: &Id) {
        match (id, &mut self.stand.gtids) {
            (Id::MySql(uuid, tag, n), Gtids::MySql(set)) => set.insert(*uuid, tag, *n),
            (Id::Maria(domain, server, n), Gtids::Maria(pos)) if !pos.contains(*domain, *n) => {
                pos.advance(*domain, *server, *n)
            }
            _ => {}
        }
    }

    fn finish(&mut self, end: u64) {
        self.maps.clear();
        self.passed_to(end);
        self.stand.restart = match &self.stand.gtids {
            Gtids::MySql(_) => None,
            _ => {
                self.prepared.values().min_by(|a, b| a.start.cmp(&b.start)).map(|p| (p.start.clone(), p.before.clone()))
            }
        };
    }

    fn end(&mut self, end: u64, batch: &mut Batch, limit: &Limit) -> Result<Taken> {
        let Some(group) = self.group.take() else {
            return Err(malformed(format!("at {}:{end} a transaction ends that did not begin", self.file)));
        };
        if group.resumed && group.rows < self.skip_rows {
            return Err(Error::new(
                Kind::Gap,
                Side::Source,
                Retry::Never,
                format!(
                    "at {}:{end} a transaction has {} captured rows, of which {} were delivered: it is not the one that was being read",
                    self.file, group.rows, self.skip_rows
                ),
            )
            .fix("inside of a transaction the captured tables must not change: put tables and exclude back, let it pass, and change them then"));
        }
        if group.resumed {
            self.skip_rows = 0;
            self.stand.inside = String::new();
        }
        if group.order > 0 {
            let txn = match group.txn {
                Some(t) => t,
                None => {
                    batch.txns.push(group.txn(&self.file));
                    (batch.txns.len() - 1) as u32
                }
            };
            let tables = if limit.txn_tables {
                group.tables.iter().map(|(schema, n)| (batch.table_index(schema), *n)).collect()
            } else {
                Vec::new()
            };
            if let Some(t) = batch.txns.get_mut(txn as usize) {
                t.ends = Some(TxnEnd { changes: group.order, tables });
            }
        }
        self.note(&group.id);
        self.finish(end);
        if group.absent {
            if self.absent.len() == REMEMBERED {
                self.absent.pop_front();
            }
            self.absent.push_back((group.number, group.id, self.stand.place.clone()));
        }
        Ok(Taken::Done)
    }
}

/// A transaction with absent values.
pub struct Absent<'a> {
    id: &'a Id,
    /// Where it ended.
    pub end: &'a Place,
}

impl Absent<'_> {
    /// Is it in this set?
    pub fn is_in(&self, set: &crate::gtid::GtidSet) -> bool {
        matches!(self.id, Id::MySql(uuid, tag, n) if set.contains(*uuid, tag, *n))
    }
}

fn count_table(tables: &mut Vec<(Arc<TableSchema>, u64)>, schema: &Arc<TableSchema>) -> u64 {
    // by name: a table keeps its count when its columns change inside of a transaction
    match tables.iter_mut().rev().find(|t| Arc::ptr_eq(&t.0, schema) || t.0.id == schema.id) {
        Some(t) => {
            t.1 += 1;
            t.1
        }
        None => {
            tables.push((schema.clone(), 1));
            1
        }
    }
}

/// Database and table of a key of [`Assembler::known`].
fn names_of(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let n = usize::from(*key.first()?);
    let rest = key.get(1 + n + 1..)?;
    Some((key.get(1..=n)?, rest.get(1..)?))
}

//! One connection that reads chunks.
//!
//! A chunk is read in one REPEATABLE READ, READ ONLY transaction:
//!
//! 1. `LOCK TABLE ... IN ACCESS SHARE MODE`, the lock that any SELECT takes, *before* the transaction has a snapshot: from
//!    then on the table's shape stands still. Taken later, a table rewritten (or truncated) in between would look empty
//!    to the older snapshot, and its rows would silently be missing.
//! 2. One SELECT takes the visibility snapshot (`pg_current_snapshot()`) and then the log's insert position. A statement's
//!    snapshot is taken before it runs, so the position lies behind the commit of everything that the snapshot sees.
//! 3. The table is described as the stream would announce it now; a changed shape gives a new schema.
//! 4. `COPY (SELECT ... ORDER BY key LIMIT n) TO STDOUT`.
//!
//! Steps 1 to 3 are one message. Plans: with `enable_seqscan` and `enable_sort` off, a chunk is a run of the key's index (of
//! the partitions' indexes, merged), so that reading a table costs its rows and not its rows times its chunks.
//!
//! Bytes: the number of rows asked for follows the average row seen so far, and starts small; a run of rows much larger
//! than that is cut where the limit is met. What is left of the COPY is read and dropped if it is little, otherwise the
//! connection is given up and its statement cancelled: cheaper than reading it, and no cancel can hit a later statement.

use super::keys::{self, KeySql, PLAIN_PATH};
use crate::{
    catalog::{Bound, Catalog, Described, Prepared, describe_sql, described},
    copy::CopyRows,
    errors,
    position::{Lsn, PgFence},
    sql::{Connector, ident, table},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use seachange_sdk::{Batch, Chunk, ChunkReader, ChunkRequest, Error, Fence, Kind, Result, Retry, Side, TableId, Txn};
use std::{pin::Pin, sync::Arc};
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage};

/// Settings of a reading session beside those that decide how values print.
const SETTINGS: &str = "SET enable_seqscan = off; SET enable_sort = off; SET enable_incremental_sort = off; \
    SET max_parallel_workers_per_gather = 0; SET standard_conforming_strings = on";

/// Rows asked for as long as nothing is known of their size.
const FIRST_ROWS: usize = 1024;

struct Session {
    client: Client,
    pid: i32,
    prepared: Prepared,
}

/// How a table is read, as long as its description stays the same.
struct Plan {
    id: TableId,
    described: Described,
    bound: Bound,
    key: Option<KeySql>,
    /// `"b", "a"`: the captured columns.
    list: String,
    /// Bytes of an average row so far.
    row: Option<f64>,
}

impl Plan {
    fn search_path(&self) -> &str {
        self.key.as_ref().map_or(PLAIN_PATH, |k| &k.search_path)
    }
    fn from(&self) -> String {
        let only = if self.described.partitioned { "" } else { "ONLY " };
        format!("{only}{}", table(&self.id.schema, &self.id.name))
    }
    fn select(&self, conditions: &[String]) -> String {
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT {} FROM {}{conditions}", self.list, self.from())
    }
    fn filter(&self) -> Vec<String> {
        self.described.filter.iter().map(|f| format!("({f})")).collect()
    }
}

/// What a transaction reads under.
#[derive(Clone)]
struct Snapshot {
    fence: Fence,
    lsn: u64,
    ts_us: i64,
}

/// A table without key that is being read.
struct Whole {
    id: TableId,
    stream: Pin<Box<CopyOutStream>>,
    rows: CopyRows,
    snapshot: Snapshot,
}

/// Reads chunks.
pub struct PgReader {
    connector: Connector,
    catalog: Catalog,
    publication: String,
    session: Option<Session>,
    plan: Option<Plan>,
    whole: Option<Whole>,
    /// Set while a read runs: found set at the next one, the read before was dropped half-way.
    busy: bool,
}

impl PgReader {
    /// A reader on a session of its own; should that end, the next read opens another.
    pub async fn new(connector: Connector, client: Client, catalog: Catalog, publication: String) -> Result<PgReader> {
        let mut reader =
            PgReader { connector, catalog, publication, session: None, plan: None, whole: None, busy: false };
        reader.take(client).await?;
        Ok(reader)
    }

    async fn session(&mut self) -> Result<()> {
        if self.session.as_ref().is_some_and(|s| !s.client.is_closed()) {
            return Ok(());
        }
        let client = self.connector.connect().await?;
        self.take(client).await
    }

    async fn take(&mut self, client: Client) -> Result<()> {
        let doing = |e| errors::sql("preparing a session for the snapshot", e);
        client.batch_execute(SETTINGS).await.map_err(doing)?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(doing)?.get(0);
        self.session = Some(Session { client, pid, prepared: Prepared::default() });
        Ok(())
    }

    fn client(&self) -> Result<&Client> {
        self.session.as_ref().map(|s| &s.client).ok_or_else(|| Error::bug("a chunk is read without a session"))
    }

    /// Gives the connection up in the middle of a statement, and has the server end that statement: it would otherwise
    /// go on sending to a task that only drops what it gets.
    fn abandon(&mut self) {
        self.whole = None;
        self.busy = false;
        let Some(session) = self.session.take() else { return };
        if session.client.is_closed() {
            return;
        }
        let connector = self.connector.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The session is kept until the cancel has been sent, so that its process id cannot belong to another.
                let cancel = async {
                    let client = connector.connect().await?;
                    client
                        .execute("SELECT pg_cancel_backend($1)", &[&session.pid])
                        .await
                        .map_err(|e| errors::sql("cancelling a COPY", e))
                };
                if let Err(e) = cancel.await {
                    tracing::debug!(error = %e, "a COPY that nobody reads could not be cancelled");
                }
            });
        }
    }

    /// Opens the transaction, and makes sure that the plan is the table's.
    async fn begin(&mut self, id: &TableId) -> Result<Snapshot> {
        self.session().await?;
        if self.plan.as_ref().is_some_and(|p| p.id != *id) {
            self.plan = None;
        }
        let path = self.plan.as_ref().map_or(PLAIN_PATH, Plan::search_path).to_owned();
        let describe = describe_sql(self.catalog.server_version(), &self.publication, &id.schema, &id.name);
        // ONLY where it is not known yet: the lock is what matters, and the read takes those of partitions itself.
        let lock = match &self.plan {
            Some(p) => p.from(),
            None => table(&id.schema, &id.name),
        };
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = {path}; \
             LOCK TABLE {lock} IN ACCESS SHARE MODE; \
             SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text, pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text, \
               pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.statement_timestamp()) * 1000000)::pg_catalog.int8::pg_catalog.text; \
             {describe}"
        );
        let answer =
            self.client()?.simple_query(&sql).await.map_err(|e| errors::sql("opening a snapshot", e).at(id))?;
        let snapshot = read_snapshot(&answer)
            .ok_or_else(|| Error::source(Kind::Protocol, "the server's snapshot cannot be read").at(id))?;
        let now = described(&id.schema, &id.name, &answer)?.ok_or_else(|| gone(id))?;
        if self.plan.as_ref().is_none_or(|p| p.described != now) {
            let row = self.plan.take().and_then(|p| p.row);
            let Some(Session { client, prepared, .. }) = &mut self.session else {
                return Err(Error::bug("no session"));
            };
            let bound = self.catalog.bind(client, prepared, &now.relation).await?;
            let key = match bound.schema.key.is_empty() {
                true => None,
                false => Some(KeySql::load(client, &bound.schema, &now.relation).await?),
            };
            let list = bound.schema.columns.iter().map(|c| ident(&c.name)).collect::<Vec<_>>().join(", ");
            let plan = Plan { id: id.clone(), described: now, bound, key, list, row };
            if plan.search_path() != path {
                // The filter was printed under the other path; under this one, which only adds to it, it means the same.
                client
                    .batch_execute(&format!("SET LOCAL search_path = {}", plan.search_path()))
                    .await
                    .map_err(|e| errors::sql("opening a snapshot", e).at(id))?;
            }
            self.plan = Some(plan);
        }
        Ok(snapshot)
    }

    async fn commit(&mut self) -> Result<()> {
        self.client()?.batch_execute("COMMIT").await.map_err(|e| errors::sql("ending a snapshot", e))
    }

    async fn copy(&self, select: &str) -> Result<Pin<Box<CopyOutStream>>> {
        let stream = self.client()?.copy_out(&format!("COPY ({select}) TO STDOUT")).await;
        stream.map(Box::pin).map_err(|e| reading(e, self.plan.as_ref()))
    }

    fn plan(&self) -> Result<&Plan> {
        self.plan.as_ref().ok_or_else(|| Error::bug("a chunk is read without a plan"))
    }

    async fn chunk(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        let snapshot = self.begin(&request.table).await?;
        let plan = self.plan()?;
        let key = plan
            .key
            .as_ref()
            .ok_or_else(|| Error::bug("a table without a key cannot be read in chunks").at(&request.table))?;
        let by_key = !request.keys.is_empty();
        let mut conditions = plan.filter();
        let (select, limit) = if by_key {
            conditions.push(key.one_of(&request.keys)?);
            (plan.select(&conditions), usize::MAX)
        } else {
            key.range(&request.range, &mut conditions)?;
            let fits = plan.row.map_or(FIRST_ROWS as f64, |row| request.bytes as f64 / row.max(1.0));
            // A float that is too large for an integer becomes the largest one.
            let limit = request.rows.min(fits as usize + 1).max(1);
            (format!("{} ORDER BY {} LIMIT {limit}", plan.select(&conditions), key.order()), limit)
        };
        let columns = plan.bound.schema.columns.len();
        let mut batch = empty(plan, &snapshot);
        let mut stream = self.copy(&select).await?;
        let mut rows = CopyRows::new(columns, snapshot.lsn, request.row_bytes, request.bytes);
        let mut cut = false;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| reading(e, self.plan.as_ref()))?;
            rows.feed(&mut batch, &piece).map_err(|e| e.at(&request.table))?;
            if !by_key && batch.bytes >= request.bytes && rows.rows() < limit {
                cut = true;
                break;
            }
        }
        let read = rows.rows();
        rows.finish(&mut batch).map_err(|e| e.at(&request.table))?;
        let schema = &self.plan()?.bound.schema;
        let last = match batch.changes.last() {
            Some(c) if cut || (!by_key && read >= limit) => {
                Some(keys::of_row(schema, batch.image(c.after), batch.chunk(c))?)
            }
            _ => None,
        };
        if read > 0
            && let Some(plan) = &mut self.plan
        {
            // Weighted to what comes next; large rows count at once, small ones step by step.
            let seen = batch.bytes as f64 / read as f64;
            plan.row = Some(plan.row.map_or(seen, |before| seen.max((before + seen) / 2.0)));
        }
        if cut {
            let left = (limit - read) as f64 * (batch.bytes as f64 / read as f64);
            if left > request.bytes as f64 {
                drop(stream);
                self.abandon();
                return Ok(Chunk { batch, fence: snapshot.fence, last });
            }
            while let Some(piece) = stream.next().await {
                piece.map_err(|e| reading(e, self.plan.as_ref()))?;
            }
        }
        drop(stream);
        self.commit().await?;
        Ok(Chunk { batch, fence: snapshot.fence, last })
    }

    async fn piece(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        if self.whole.as_ref().is_none_or(|w| w.id != request.table) {
            if self.whole.is_some() {
                self.abandon();
            }
            let snapshot = self.begin(&request.table).await?;
            let plan = self.plan()?;
            let select = plan.select(&plan.filter());
            let columns = plan.bound.schema.columns.len();
            let stream = self.copy(&select).await?;
            let rows = CopyRows::new(columns, snapshot.lsn, request.row_bytes, request.bytes);
            self.whole = Some(Whole { id: request.table.clone(), stream, rows, snapshot });
        }
        let (Some(plan), Some(whole)) = (&self.plan, &mut self.whole) else {
            return Err(Error::bug("a table is read without a plan"));
        };
        let mut batch = empty(plan, &whole.snapshot);
        let fence = whole.snapshot.fence.clone();
        while let Some(data) = whole.stream.next().await {
            let data = data.map_err(|e| reading(e, self.plan.as_ref()))?;
            whole.rows.feed(&mut batch, &data).map_err(|e| e.at(&request.table))?;
            if whole.rows.rows() >= request.rows || batch.bytes >= request.bytes {
                whole.rows.cut(&mut batch);
                // There is no key to give; the mark only says that there is more.
                return Ok(Chunk { batch, fence, last: Some(Bytes::from_static(&[0])) });
            }
        }
        whole.rows.finish(&mut batch).map_err(|e| e.at(&request.table))?;
        self.whole = None;
        self.commit().await?;
        Ok(Chunk { batch, fence, last: None })
    }
}

#[async_trait]
impl ChunkReader for PgReader {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        if self.busy || self.whole.is_some() {
            self.abandon();
        }
        self.busy = true;
        let out = self.chunk(request).await;
        self.busy = false;
        if out.is_err() {
            // Whatever state the transaction is in: the next read begins with a new session.
            self.abandon();
        }
        out
    }

    fn key(&self, chunk: &Batch, row: usize) -> Result<Bytes> {
        let change = chunk.changes.get(row).ok_or_else(|| Error::bug("a chunk has no such row"))?;
        let schema: &Arc<_> =
            chunk.tables.get(change.table as usize).ok_or_else(|| Error::bug("a chunk has no such table"))?;
        keys::of_row(schema, chunk.image(change.after), chunk.chunk(change))
    }

    async fn read_whole(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        if self.busy {
            let torn = self.whole.is_some();
            self.abandon();
            if torn {
                self.busy = false;
                // The rows of the piece that was dropped cannot be had again under the same snapshot.
                return Err(Error::source(Kind::Connect, "reading a table without a key was interrupted")
                    .at(format_args!("table {}", request.table)));
            }
        }
        self.busy = true;
        let out = self.piece(request).await;
        self.busy = false;
        if out.is_err() {
            self.abandon();
        }
        out
    }
}

impl Drop for PgReader {
    fn drop(&mut self) {
        if self.whole.is_some() {
            self.abandon();
        }
    }
}

/// A batch that holds no row yet.
fn empty(plan: &Plan, snapshot: &Snapshot) -> Batch {
    let mut batch = Batch::default();
    batch.tables.push(plan.bound.schema.clone());
    // A transaction that only reads has no number of its own; nor has it a beginning or an end in the log.
    batch.txns.push(Txn {
        id: 0,
        ts_us: snapshot.ts_us,
        commit: snapshot.lsn,
        prev_commit: 0,
        origin: None,
        origin_at: 0,
        gtid: None,
        server_id: 0,
        thread: None,
        file: None,
        begins: false,
        ends: None,
    });
    batch.server_us = snapshot.ts_us;
    batch
}

/// The answer of step 2, the only one with three columns.
fn read_snapshot(answer: &[SimpleQueryMessage]) -> Option<Snapshot> {
    answer.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(r) if r.len() == 3 => {
            let lsn = Lsn::parse(r.get(1)?)?.0;
            let fence = PgFence::parse(r.get(0)?, lsn)?.encode();
            Some(Snapshot { fence, lsn, ts_us: r.get(2)?.parse().ok()? })
        }
        _ => None,
    })
}

fn gone(id: &TableId) -> Error {
    Error::new(Kind::Schema, Side::Source, Retry::Backoff, format!("table {id} is no longer there"))
        .fix("nothing, if it was dropped: the snapshot goes on without it")
}

/// An error while rows are read. Of a data exception only the code is told: its message can quote a value.
fn reading(e: tokio_postgres::Error, plan: Option<&Plan>) -> Error {
    let place = plan.map_or_else(|| "a table".to_owned(), |p| format!("table {}", p.id));
    match e.code().map(tokio_postgres::error::SqlState::code) {
        Some(code) if code.starts_with("22") => Error::new(
            Kind::Schema,
            Side::Source,
            Retry::Operator,
            format!("{place}: the server cannot evaluate the read (SQLSTATE {code})"),
        )
        .fix("look into the server's log; if a key column has got another type, have the table's snapshot taken again"),
        _ => errors::sql("reading rows", e).at(place),
    }
}

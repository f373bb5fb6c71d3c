//! One connection that reads chunks.

use super::{
    Shared,
    cells::{self, expression, literal, put_row},
};
use crate::{
    catalog,
    columns::{Binder, Bound, CatalogTable},
    errors,
    flavor::Flavor,
    open,
    position::{Gtids, Seen},
    sql::{self, ident},
    table_map::ty,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use mysql_async::{Conn, Row, prelude::Queryable};
use seachange_sdk::{
    Batch, Change, Chunk, ChunkReader, ChunkRequest, Error, Fence, Kind, Op, Result, Retry, Side, Span, TableId, Txn,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Rows asked for as long as nothing is known of their size.
const FIRST_ROWS: usize = 512;
/// Versions of schemas that a snapshot makes lie above those of the stream.
static VERSIONS: AtomicU64 = AtomicU64::new(1 << 40);

/// A table and how its key's columns are written in SQL.
pub struct Described {
    /// The table as the stream would bind it.
    pub bound: Bound,
    catalog: CatalogTable,
    /// Character set of every key column.
    charsets: Vec<String>,
    /// MariaDB keeps what its rows once were, and the log has those as rows.
    versioned: bool,
}

/// Describes a table as it is now; `None` when it is gone.
pub async fn describe(conn: &mut Conn, shared: &Shared, id: &TableId, version: u64) -> Result<Option<Described>> {
    let Some(found) = catalog::table(conn, &shared.server, &id.database, &id.name).await? else { return Ok(None) };
    let layout = shared.server.flavor.layout();
    let binder =
        Binder { collations: &shared.collations, selection: &shared.connector.config().selection, layout: &layout };
    let bound = binder.bind_catalog(&id.database, &id.name, &found, version)?.labels_as_text()?;
    let charsets = bound
        .schema
        .key
        .iter()
        .map(|i| {
            let name = bound.schema.columns.get(*i as usize).map(|c| c.name.clone()).unwrap_or_default();
            let charset = found.columns.iter().find(|c| c.name == *name).and_then(|c| c.charset);
            charset.map_or("utf8mb4", |c| c.name()).to_owned()
        })
        .collect();
    let versioned = shared.server.flavor == Flavor::MariaDb && catalog::versioned(conn, &id.database, &id.name).await?;
    Ok(Some(Described { bound, catalog: found, charsets, versioned }))
}

impl Described {
    fn key_columns(&self) -> Vec<String> {
        let columns = &self.bound.schema.columns;
        self.bound.schema.key.iter().filter_map(|i| columns.get(*i as usize)).map(|c| ident(&c.name)).collect()
    }
    /// The literals of an encoded key, or of its first columns.
    fn literals(&self, key: &[u8]) -> Result<Vec<String>> {
        let schema = &self.bound.schema;
        let parts = cells::split_key(key)?;
        if parts.is_empty() || parts.len() > schema.key.len() {
            return Err(Error::new(
                Kind::State,
                Side::Own,
                Retry::Operator,
                format!("table {}: a stored key does not fit its columns", schema.id),
            )
            .fix("the primary key was changed while the snapshot was running: start the pipeline under a new name"));
        }
        parts
            .iter()
            .zip(&schema.key)
            .zip(&self.charsets)
            .map(|((cell, i), charset)| {
                let missing = || Error::bug("a key column that is not there");
                let column = schema.columns.get(*i as usize).ok_or_else(missing)?;
                let physical = self.bound.physical.get(*i as usize).ok_or_else(missing)?;
                literal(cell, physical, charset, &column.ty, &column.type_name)
            })
            .collect()
    }
    /// `(a > 1) OR (a = 1 AND b > 2)`; with `upto`: `<` and, at the end, `<=`.
    fn beyond(&self, key: &[u8], upto: bool) -> Result<String> {
        let (columns, literals) = (self.key_columns(), self.literals(key)?);
        let mut out = Vec::new();
        for (n, (column, value)) in columns.iter().zip(&literals).enumerate() {
            let last = n + 1 == literals.len();
            let op = match (upto, last) {
                (false, _) => ">",
                (true, true) => "<=",
                (true, false) => "<",
            };
            let equal = columns.iter().zip(&literals).take(n).map(|(c, v)| format!("{c} = {v} AND "));
            out.push(format!("({}{column} {op} {value})", equal.collect::<String>()));
        }
        // Said once more plainly, so that the optimizer makes a range of the first column.
        let bound = match (columns.first(), literals.first()) {
            (Some(c), Some(v)) => format!("{c} {} {v} AND ", if upto { "<=" } else { ">=" }),
            _ => String::new(),
        };
        Ok(format!("{bound}({})", out.join(" OR ")))
    }
    fn select(&self) -> String {
        let list: Vec<String> =
            self.bound.schema.columns.iter().zip(&self.bound.physical).map(|(c, p)| expression(&c.name, p)).collect();
        let id = &self.bound.schema.id;
        let all = if self.versioned { " FOR SYSTEM_TIME ALL" } else { "" };
        format!("SELECT {} FROM {}{all}", list.join(", "), sql::table(&id.database, &id.name))
    }
}

/// At most `parts - 1` keys that part a table about evenly: by interpolation between the smallest and the largest value of an
/// integer. Other keys are read in one run.
pub async fn boundaries(conn: &mut Conn, d: &Described, parts: usize) -> Result<Vec<Bytes>> {
    let schema = &d.bound.schema;
    let Some(first) = schema.key.first() else { return Ok(Vec::new()) };
    let (Some(column), Some(physical)) = (schema.columns.get(*first as usize), d.bound.physical.get(*first as usize))
    else {
        return Ok(Vec::new());
    };
    let size = match physical.ty {
        ty::SHORT => 2,
        ty::INT24 => 3,
        ty::LONG => 4,
        ty::LONGLONG => 8,
        _ => return Ok(Vec::new()),
    };
    let name = ident(&column.name);
    let query = format!(
        "SELECT CAST(MIN({name}) AS CHAR), CAST(MAX({name}) AS CHAR) FROM {}",
        sql::table(&schema.id.database, &schema.id.name)
    );
    let row: Option<(Option<String>, Option<String>)> =
        conn.query_first(query).await.map_err(|e| errors::sql("splitting the table", e).at(&schema.id))?;
    let Some((Some(low), Some(high))) = row else { return Ok(Vec::new()) };
    let (Ok(low), Ok(high)) = (low.parse::<i128>(), high.parse::<i128>()) else { return Ok(Vec::new()) };
    let parts = parts as i128;
    let mut out: Vec<Bytes> = Vec::new();
    for i in 1..parts {
        let n = low + (high - low) * i / parts;
        if n >= high {
            break;
        }
        let bytes = (n as i64 as u64).to_le_bytes();
        let cell = bytes.get(..size).unwrap_or(&[]);
        let key: Bytes = [&(size as u32).to_le_bytes(), cell].concat().into();
        if out.last() != Some(&key) {
            out.push(key);
        }
    }
    Ok(out)
}

struct Plan {
    id: TableId,
    described: Described,
    /// Bytes of an average row so far.
    row: Option<f64>,
}

/// A table without a key that is being read.
struct Whole {
    id: TableId,
    pieces: mpsc::Receiver<Result<(Batch, bool)>>,
    fence: Fence,
    ts_us: i64,
    task: JoinHandle<()>,
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads chunks.
pub struct Reader {
    shared: Arc<Shared>,
    conn: Conn,
    plan: Option<Plan>,
    whole: Option<Whole>,
}

async fn session(shared: &Shared) -> Result<Conn> {
    let mut conn = shared.connector.connect().await?;
    // Text in each column's own character set, and a snapshot that stands for the whole transaction.
    for setting in
        ["SET SESSION character_set_results = NULL", "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"]
    {
        conn.query_drop(setting).await.map_err(|e| errors::sql("preparing a session for reading", e))?;
    }
    Ok(conn)
}

impl Reader {
    /// Opens a session.
    pub async fn open(shared: Arc<Shared>) -> Result<Reader> {
        let conn = session(&shared).await?;
        Ok(Reader { shared, conn, plan: None, whole: None })
    }

    /// Describes the table, keeping the schema (and so its version) as long as nothing has changed.
    async fn plan(&mut self, id: &TableId) -> Result<()> {
        let Some(now) = describe(&mut self.conn, &self.shared, id, VERSIONS.fetch_add(1, Ordering::Relaxed)).await?
        else {
            return Err(Error::source(Kind::Schema, format!("table {id} is no longer there")));
        };
        match &mut self.plan {
            Some(p) if p.id == *id && p.described.catalog == now.catalog => {}
            plan => *plan = Some(Plan { id: id.clone(), described: now, row: None }),
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<Option<crate::gtid::GtidSet>> {
        let failed = |e| errors::sql("beginning to read a chunk", e);
        match (self.shared.server.flavor, &self.shared.start.gtids) {
            (Flavor::MariaDb, _) => {
                self.conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed)?;
                Ok(None)
            }
            (Flavor::MySql, Gtids::MySql(_)) => {
                let executed = catalog::variable(&mut self.conn, "gtid_executed").await?.unwrap_or_default();
                Ok(Some(executed.parse()?))
            }
            (Flavor::MySql, _) => {
                let image = catalog::variable(&mut self.conn, "binlog_row_image").await?;
                if image.is_some_and(|i| !i.eq_ignore_ascii_case("FULL")) {
                    return Err(Error::new(
                        Kind::Config,
                        Side::Source,
                        Retry::Operator,
                        "a snapshot without GTIDs needs whole rows in the log",
                    )
                    .fix("SET GLOBAL binlog_row_image = 'FULL', or switch GTIDs on"));
                }
                Ok(Some(crate::gtid::GtidSet::default()))
            }
        }
    }

    async fn end(&mut self, before: Option<crate::gtid::GtidSet>) -> Result<Fence> {
        let seen = match before {
            Some(before) => Seen::Between { before, after: self.shared.server.log_end(&mut self.conn).await?.0 },
            None => {
                let place = open::snapshot_place(&mut self.conn).await?;
                self.conn.query_drop("COMMIT").await.map_err(|e| errors::sql("ending a chunk", e))?;
                Seen::Exactly(place)
            }
        };
        Ok(seen.encode())
    }

    async fn rows(&mut self, query: &str, row_bytes: usize, batch: &mut Batch) -> Result<()> {
        let Some(plan) = &self.plan else { return Err(Error::bug("a chunk without a table")) };
        let bound = &plan.described.bound;
        let failed = |e| errors::sql("reading a chunk", e).at(&bound.schema.id);
        let mut chunk = Vec::new();
        {
            let mut result = self.conn.exec_iter(query, ()).await.map_err(failed)?;
            let stream = result.stream::<Row>().await.map_err(failed)?;
            if let Some(mut rows) = stream {
                while let Some(row) = rows.next().await {
                    let values = row.map_err(failed)?.unwrap();
                    push_row(&values, bound, row_bytes, &mut chunk, batch)?;
                }
            }
        }
        finish(batch, bound, chunk);
        Ok(())
    }
}

fn push_row(
    values: &[mysql_async::Value],
    bound: &Bound,
    row_bytes: usize,
    chunk: &mut Vec<u8>,
    batch: &mut Batch,
) -> Result<()> {
    let start = batch.cells.len() as u32;
    let size =
        put_row(values, bound, chunk, &mut batch.cells).map_err(|e| e.at(format_args!("table {}", bound.schema.id)))?;
    if size > row_bytes {
        return Err(Error::new(
            Kind::Limit,
            Side::Source,
            Retry::Operator,
            format!("a row of table {} has {size} bytes, the limit is {row_bytes}", bound.schema.id),
        )
        .fix("raise row_bytes_max, or leave the table or its large column out"));
    }
    let order = batch.changes.len() as u64 + 1;
    batch.bytes += size;
    batch.changes.push(Change {
        op: Op::Read,
        table: 0,
        chunk: 0,
        before: Span::NONE,
        after: Span { start, len: batch.cells.len() as u32 - start },
        txn: 0,
        at: 0,
        row: 0,
        order,
        table_order: order,
    });
    Ok(())
}

fn finish(batch: &mut Batch, bound: &Bound, chunk: Vec<u8>) {
    batch.tables.push(bound.schema.clone());
    batch.chunks.push(chunk.into());
    batch.txns.push(Txn { begins: true, ..Txn::default() });
}

/// The server's clock, microseconds since the Unix epoch.
pub(super) async fn clock(conn: &mut Conn) -> Result<i64> {
    let us: Option<Option<i64>> = conn
        .query_first("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")
        .await
        .map_err(|e| errors::sql("asking for the time", e))?;
    Ok(us.flatten().unwrap_or(0))
}

/// Tells a batch of a snapshot where and when its rows were read: what Debezium's `source` block shows.
pub(super) fn place_rows(batch: &mut Batch, fence: &Fence, ts_us: i64) -> Result<()> {
    let place = match Seen::decode(fence)? {
        Seen::Between { after, .. } | Seen::Exactly(after) => after,
    };
    for t in &mut batch.txns {
        t.file = Some(place.file.as_str().into());
        t.ts_us = ts_us;
    }
    batch.server_us = ts_us;
    for c in &mut batch.changes {
        c.at = place.offset;
    }
    Ok(())
}

#[async_trait]
impl ChunkReader for Reader {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        let before = self.begin().await?;
        let ts_us = clock(&mut self.conn).await?;
        self.plan(&request.table).await?;
        let Some(plan) = &self.plan else { return Err(Error::bug("a chunk without a table")) };
        let d = &plan.described;
        let mut query = d.select();
        let by_key = !request.keys.is_empty();
        let mut asked = request.rows;
        if by_key {
            let columns = d.key_columns().join(", ");
            let keys = request
                .keys
                .iter()
                .map(|k| Ok(format!("({})", d.literals(k)?.join(", "))))
                .collect::<Result<Vec<_>>>()?;
            query.push_str(&format!(" WHERE ({columns}) IN ({})", keys.join(", ")));
        } else {
            let guess = plan.row.map_or(FIRST_ROWS, |r| (request.bytes as f64 / r.max(1.0)) as usize);
            asked = guess.clamp(1, request.rows.max(1));
            let mut conditions = Vec::new();
            if let Some(after) = &request.range.after {
                conditions.push(d.beyond(after, false)?);
            }
            if let Some(upto) = &request.range.upto {
                conditions.push(d.beyond(upto, true)?);
            }
            if !conditions.is_empty() {
                query.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
            }
            query.push_str(&format!(" ORDER BY {} LIMIT {asked}", d.key_columns().join(", ")));
        }
        let mut batch = Batch::default();
        self.rows(&query, request.row_bytes, &mut batch).await?;
        let fence = self.end(before).await?;
        place_rows(&mut batch, &fence, ts_us)?;
        let Some(plan) = &mut self.plan else { return Err(Error::bug("a chunk without a table")) };
        let n = batch.changes.len();
        if n > 0 {
            let average = batch.bytes as f64 / n as f64;
            // Follows large rows at once and small ones slowly.
            plan.row = Some(plan.row.map_or(average, |r| average.max(r * 0.75 + average * 0.25)));
        }
        let last = if by_key || n < asked {
            None
        } else {
            Some(cells::encode_key(&batch, n - 1, &plan.described.bound.schema)?)
        };
        Ok(Chunk { batch, fence, last })
    }

    fn key(&self, chunk: &Batch, row: usize) -> Result<Bytes> {
        let schema = chunk.tables.first().ok_or_else(|| Error::bug("a chunk without a table"))?;
        cells::encode_key(chunk, row, schema)
    }

    async fn read_whole(&mut self, request: &ChunkRequest) -> Result<Chunk> {
        if self.whole.as_ref().is_none_or(|w| w.id != request.table) {
            self.whole = Some(self.open_whole(request).await?);
        }
        let Some(whole) = &mut self.whole else { return Err(Error::bug("a table that is not being read")) };
        let (fence, ts_us) = (whole.fence.clone(), whole.ts_us);
        match whole.pieces.recv().await {
            Some(Ok((mut batch, more))) => {
                place_rows(&mut batch, &fence, ts_us)?;
                if !more {
                    self.whole = None;
                }
                // There is no key to go on after; that there is more is all it says.
                Ok(Chunk { batch, fence, last: more.then(Bytes::new) })
            }
            Some(Err(e)) => {
                self.whole = None;
                Err(e)
            }
            None => {
                self.whole = None;
                Err(Error::bug("the reading of a table ended without an answer"))
            }
        }
    }
}

impl Reader {
    async fn open_whole(&mut self, request: &ChunkRequest) -> Result<Whole> {
        let shared = self.shared.clone();
        let id = request.table.clone();
        let doing = "taking a snapshot of a table without a key";
        let failed = |e: mysql_async::Error| errors::sql(doing, e).at(&id);
        let mut conn = session(&shared).await?;
        let fence = match shared.server.flavor {
            Flavor::MariaDb => {
                conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed)?;
                Seen::Exactly(open::snapshot_place(&mut conn).await?)
            }
            Flavor::MySql => {
                self.conn
                    .query_drop(format!("LOCK TABLES {} READ", sql::table(&id.database, &id.name)))
                    .await
                    .map_err(|e| {
                        failed(e).fix(
                            "GRANT LOCK TABLES ON *.* TO the account, give the table a primary key, or leave it out",
                        )
                    })?;
                let begun =
                    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed);
                let end = shared.server.log_end(&mut self.conn).await;
                self.conn.query_drop("UNLOCK TABLES").await.map_err(failed)?;
                begun?;
                // Nobody was writing to the table: for it, the two ends of the fence are one.
                match end? {
                    (after, Gtids::MySql(before)) => Seen::Between { before, after },
                    (after, _) => Seen::Exactly(after),
                }
            }
        }
        .encode();
        let ts_us = clock(&mut conn).await?;
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        let Some(d) = describe(&mut conn, &shared, &id, version).await? else {
            return Err(Error::source(Kind::Schema, format!("table {id} is no longer there")));
        };
        let (sender, pieces) = mpsc::channel(1);
        let (rows, bytes, row_bytes) = (request.rows.max(1), request.bytes, request.row_bytes);
        let task = tokio::spawn(async move {
            let outcome = send_whole(&mut conn, &d, rows, bytes, row_bytes, &sender).await;
            if let Err(e) = outcome {
                // Nobody listens any more: the reader was dropped, and with it the interest in the error.
                if sender.send(Err(e)).await.is_err() {
                    tracing::debug!("a table's reader was dropped before its end");
                }
            }
        });
        Ok(Whole { id, pieces, fence, ts_us, task })
    }
}

async fn send_whole(
    conn: &mut Conn,
    d: &Described,
    most_rows: usize,
    most_bytes: usize,
    row_bytes: usize,
    to: &mpsc::Sender<Result<(Batch, bool)>>,
) -> Result<()> {
    let bound = &d.bound;
    let failed = |e| errors::sql("reading a table", e).at(&bound.schema.id);
    let mut result = conn.exec_iter(d.select(), ()).await.map_err(failed)?;
    let stream = result.stream::<Row>().await.map_err(failed)?;
    let (mut batch, mut chunk) = (Batch::default(), Vec::new());
    if let Some(mut rows) = stream {
        while let Some(row) = rows.next().await {
            let values = row.map_err(failed)?.unwrap();
            if batch.changes.len() >= most_rows || batch.bytes >= most_bytes {
                let mut full = std::mem::take(&mut batch);
                finish(&mut full, bound, std::mem::take(&mut chunk));
                if to.send(Ok((full, true))).await.is_err() {
                    return Ok(());
                }
            }
            push_row(&values, bound, row_bytes, &mut chunk, &mut batch)?;
        }
    }
    finish(&mut batch, bound, chunk);
    if to.send(Ok((batch, false))).await.is_err() {
        tracing::debug!("a table's reader was dropped before its end");
    }
    Ok(())
}

//! What is already there: finds the captured tables, splits them, opens readers.
//!
//! Nothing is locked beyond what a SELECT locks, nothing is written, and no transaction lasts longer than a chunk (but for
//! tables without a key, which are read in one). How a chunk is read is in [`reader`], how keys travel in [`keys`].
//!
//! `settle`: a transaction is in the log before it is visible. One that was committed in the log before the stream's start
//! is not streamed, so the first chunk has to see it. It had its id when the wait began; so the wait takes the *next* id to
//! be assigned first, and ends when no lower one is in progress (`xmin` has reached it). A snapshot's `xmax` would not do
//! as the bound: it is one past the last *ended* transaction, and the one that matters may lie beyond. The bound is taken
//! when `settle` is called, which the core does after the stream was opened: never too early.

pub mod keys;
pub mod reader;

use crate::{
    catalog::{self, Catalog, Prepared, describe},
    decode, errors, position,
    slot::{self, PublicationPlan},
    sql::{Connector, table},
};
use async_trait::async_trait;
use bytes::Bytes;
use keys::KeySql;
use reader::PgReader;
use seachange_sdk::{
    ChunkReader, Decoder, Error, Kind, Param, Range, Result, Selection, Snapshotter, TableFound, TableId, Value,
    Visitor,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_postgres::Client;

/// Reads what is already there.
pub struct PgSnapshotter {
    connector: Connector,
    selection: Selection,
    database: String,
    publication: PublicationPlan,
}

impl PgSnapshotter {
    /// A snapshotter for the captured tables of a database.
    pub async fn new(
        connector: Connector,
        selection: Selection,
        database: String,
        publication: PublicationPlan,
    ) -> Result<PgSnapshotter> {
        Ok(PgSnapshotter { connector, selection, database, publication })
    }

    async fn catalog(&self, client: &Client) -> Result<Catalog> {
        Catalog::load(client, &self.selection, &self.database).await
    }
}

#[async_trait]
impl Snapshotter for PgSnapshotter {
    async fn discover(&self) -> Result<Vec<TableFound>> {
        let client = self.connector.connect().await?;
        let added = slot::ensure_published(&client, &self.publication, &self.selection).await?;
        // Once per partitioned table, not per table, and by the index (OFFSET 0 keeps the planner from joining the whole of
        // pg_class for each of them): with 5,000 tables this is asked every few seconds. Where nothing was ever analysed, as
        // in an empty table, the statistics of what was written tell (its size would, too, but asking takes a lock).
        let rows = client
            .query(
                &format!(
                    "SELECT t.schemaname::text, t.tablename::text, {},
                       CASE WHEN c.relkind = 'p' THEN
                         (SELECT sum(leaf.reltuples)::int8 FROM pg_catalog.pg_partition_tree(c.oid) pt CROSS JOIN LATERAL
                            (SELECT l.reltuples FROM pg_catalog.pg_class l
                             WHERE l.oid = pt.relid AND l.relkind = 'r' AND l.reltuples >= 0 OFFSET 0) leaf WHERE pt.isleaf)
                         WHEN c.reltuples >= 0 THEN c.reltuples::int8
                         ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END
                     FROM pg_catalog.pg_publication_tables t
                       JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
                       JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
                     WHERE t.pubname = $1 ORDER BY 1, 2",
                    catalog::has_key_sql()
                ),
                &[&self.publication.name],
            )
            .await
            .map_err(|e| errors::sql("looking for published tables", e))?;
        let database: Arc<str> = self.database.as_str().into();
        let mut found = Vec::new();
        for r in &rows {
            let (schema, name): (&str, &str) = (r.get(0), r.get(1));
            if !self.selection.table(schema, name) {
                continue;
            }
            found.push(TableFound {
                id: TableId { database: database.clone(), schema: schema.into(), name: name.into() },
                keyed: r.get(2),
                rows_estimate: r.get::<_, Option<i64>>(3).and_then(|n| u64::try_from(n).ok()),
                added: added.iter().any(|a| a.schema == schema && a.name == name),
            });
        }
        Ok(found)
    }

    async fn settle(&self) -> Result<()> {
        let client = self.connector.connect().await?;
        let asking = |e| errors::sql("waiting for older transactions", e);
        // age() counts from the next id to be assigned, when the transaction that asks has none; 3 is the first id ever.
        let row = client
            .query_one("SELECT age('3'::xid), pg_snapshot_xmax(pg_current_snapshot())::text", &[])
            .await
            .map_err(asking)?;
        let next = row.get::<_, i32>(0).cast_unsigned().wrapping_add(3);
        let bound = position::widen(next, number(row.get(1))?);
        let begun = Instant::now();
        let mut told = Instant::now();
        let mut pause = Duration::from_millis(5);
        loop {
            let row =
                client.query_one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", &[]).await.map_err(asking)?;
            if number(row.get(0))? >= bound {
                return Ok(());
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let row = client
                    .query_one(
                        "SELECT (SELECT string_agg(pid::text, ', ') FROM pg_stat_activity WHERE backend_xid IS NOT NULL),
                           (SELECT string_agg(gid, ', ') FROM pg_prepared_xacts)",
                        &[],
                    )
                    .await
                    .map_err(asking)?;
                tracing::warn!(
                    waited_s = begun.elapsed().as_secs(),
                    pids = row.get::<_, Option<&str>>(0).unwrap_or("none that this account can see"),
                    prepared = row.get::<_, Option<&str>>(1).unwrap_or("none"),
                    "the snapshot waits for transactions that began before the stream: end them, or commit or roll back \
                     prepared ones"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn split(&self, id: &TableId, parts: usize) -> Result<Vec<Range>> {
        let client = self.connector.connect().await?;
        let mut catalog = self.catalog(&client).await?;
        let version = catalog.server_version();
        let Some(d) = describe(&client, version, &self.publication.name, &id.schema, &id.name).await? else {
            return Err(Error::source(Kind::Schema, format!("table {id} is no longer there")));
        };
        let bound = catalog.bind(&client, &mut Prepared::default(), &d.relation).await?;
        let boundaries = match bound.schema.key.first().and_then(|i| bound.schema.columns.get(*i as usize)) {
            Some(column) if parts > 1 => {
                let key = KeySql::load(&client, &bound.schema, &d.relation).await?;
                let only = if d.partitioned { "" } else { "ONLY " };
                let from = format!("{only}{}", table(&id.schema, &id.name));
                boundaries(&client, id, &column.name, &key, &from, d.partitioned, parts).await?
            }
            _ => Vec::new(),
        };
        let mut ranges = Vec::with_capacity(boundaries.len() + 1);
        let mut after: Option<Bytes> = None;
        for text in &boundaries {
            let upto = keys::encode([text.as_bytes()].into_iter())?;
            ranges.push(Range { after: after.replace(upto.clone()), upto: Some(upto) });
        }
        ranges.push(Range { after, upto: None });
        Ok(ranges)
    }

    async fn reader(&self) -> Result<Box<dyn ChunkReader>> {
        let client = self.connector.connect().await?;
        let catalog = self.catalog(&client).await?;
        let reader = PgReader::new(self.connector.clone(), client, catalog, self.publication.name.clone()).await?;
        Ok(Box::new(reader))
    }

    fn describe_key(&self, key: &Bytes) -> String {
        keys::describe(key)
    }
}

fn number(xid: &str) -> Result<u64> {
    xid.parse().map_err(|_| Error::source(Kind::Protocol, "a transaction id is not a number"))
}

/// At most `parts - 1` values of the key's first column, ascending as the column sorts, that part the table about evenly:
/// from the column's histogram where ANALYZE has left one and this account may see it, else by interpolation between the
/// smallest and the largest value of an integer. Neither reads the table.
async fn boundaries(
    client: &Client,
    id: &TableId,
    column: &str,
    key: &KeySql,
    from: &str,
    partitioned: bool,
    parts: usize,
) -> Result<Vec<String>> {
    let asking = |e| errors::sql("splitting the table", e).at(id);
    let Some((quoted, ty)) = key.first() else { return Ok(Vec::new()) };
    let row = client
        .query_opt(
            "SELECT histogram_bounds::text FROM pg_catalog.pg_stats
             WHERE schemaname = $1 AND tablename = $2 AND attname = $3 AND inherited = $4",
            &[&&*id.schema, &&*id.name, &column, &partitioned],
        )
        .await
        .map_err(asking)?;
    let histogram =
        row.and_then(|r| r.get::<_, Option<String>>(0)).and_then(|text| elements(&text)).unwrap_or_default();
    let mut chosen: Vec<String> = match histogram.len() {
        2.. => (1..parts).filter_map(|i| histogram.get(i * (histogram.len() - 1) / parts).cloned()).collect(),
        _ if matches!(ty, "\"pg_catalog\".\"int2\"" | "\"pg_catalog\".\"int4\"" | "\"pg_catalog\".\"int8\"") => {
            let row = client
                .query_one(&format!("SELECT min({quoted})::int8, max({quoted})::int8 FROM {from}"), &[])
                .await
                .map_err(asking)?;
            match (row.get::<_, Option<i64>>(0), row.get::<_, Option<i64>>(1)) {
                (Some(low), Some(high)) if low < high => {
                    let width = i128::from(high) - i128::from(low);
                    (1..parts).map(|i| (i128::from(low) + width * i as i128 / parts as i128).to_string()).collect()
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    chosen.dedup();
    if chosen.is_empty() {
        return Ok(chosen);
    }
    // The order of a range is the column's as it sorts now; a histogram of other times is no proof of that.
    let values: Vec<String> = chosen.iter().map(|v| format!("({}::{ty})", crate::sql::literal(v))).collect();
    let sql = format!(
        "SELECT s.k::text FROM (SELECT {quoted} AS k FROM {from} WHERE false UNION ALL VALUES {}) s \
         GROUP BY s.k ORDER BY s.k",
        values.join(", ")
    );
    client
        .batch_execute(&format!("BEGIN READ ONLY; SET LOCAL search_path = {}", key.search_path))
        .await
        .map_err(asking)?;
    let rows = client.query(&sql, &[]).await.map_err(asking)?;
    client.batch_execute("COMMIT").await.map_err(asking)?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// The elements of a one-dimensional array's text; nothing for any other.
fn elements(text: &str) -> Option<Vec<String>> {
    struct Flat {
        depth: u32,
        out: Vec<String>,
    }
    impl Visitor for Flat {
        fn begin_list(&mut self) -> Result<()> {
            self.depth += 1;
            if self.depth > 1 { Err(Error::value("a histogram of arrays")) } else { Ok(()) }
        }
        fn end_list(&mut self) -> Result<()> {
            Ok(())
        }
        fn begin_map(&mut self) -> Result<()> {
            Ok(())
        }
        fn end_map(&mut self) -> Result<()> {
            Ok(())
        }
        fn key(&mut self, _: &str) -> Result<()> {
            Ok(())
        }
        fn value(&mut self, value: Value<'_>) -> Result<()> {
            if let Value::Text(t) = value {
                self.out.push(t.into_owned());
            }
            Ok(())
        }
    }
    let param = Param { element: Some(Arc::new(Decoder::plain(decode::text))), ..Param::default() };
    let mut flat = Flat { depth: 0, out: Vec::new() };
    let Ok(Value::Nested(nested)) = decode::nested::array(&param, text.as_bytes()) else { return None };
    // Without boundaries the table is read as one range: slower, never wrong.
    nested.walk(&mut flat).ok().map(|()| flat.out)
}

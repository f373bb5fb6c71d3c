//! What is already there: finds the captured tables, splits them, opens readers.
//!
//! Nothing is locked while rows are read, nothing is written, and no transaction lasts longer than a chunk. What a chunk was
//! read under depends on the server:
//!
//! - **MariaDB**: `START TRANSACTION WITH CONSISTENT SNAPSHOT` tells where its snapshot is in the log: an exact cut.
//! - **MySQL with GTIDs**: `gtid_executed` before the chunk, the log's end after it. A transaction is in the log before it is
//!   visible and in `gtid_executed` after it: what is in the first was visible, what lies behind the second was not.
//! - **MySQL without GTIDs**: only the log's end after the chunk is known. That is enough as long as the log holds whole rows
//!   (`binlog_row_image = FULL`, which is demanded): a row that the stream has touched is taken from the stream.
//!
//! Tables without a key cannot be merged by key: their one snapshot has to be exact. MariaDB's is. On MySQL the table is
//! locked against writes (`LOCK TABLES ... READ`) for the moment in which the snapshot is taken and `gtid_executed` is read:
//! whoever was writing to it has been waited for, and is in both.

pub mod cells;
mod preamble;
pub mod reader;

use crate::{
    catalog::{self, Server},
    charset::Collations,
    errors,
    flavor::Flavor,
    open,
    position::{Gtids, Stand},
    sql,
};
use async_trait::async_trait;
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use reader::Reader;
use seachange_sdk::{Chunk, ChunkReader, Error, Kind, Range, Result, Snapshotter, TableFound, TableId};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What all readers of a snapshot share.
pub struct Shared {
    /// Opens sessions.
    pub connector: sql::Connector,
    /// The server.
    pub server: Server,
    /// Its collations.
    pub collations: Collations,
    /// Where the stream began.
    pub start: Stand,
}

/// Reads what is already there.
pub struct MySqlSnapshotter {
    shared: Arc<Shared>,
}

impl MySqlSnapshotter {
    /// For a server and a stream that began there.
    pub fn new(shared: Shared) -> MySqlSnapshotter {
        MySqlSnapshotter { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Snapshotter for MySqlSnapshotter {
    async fn discover(&self) -> Result<Vec<TableFound>> {
        let mut conn = self.shared.connector.connect().await?;
        let selection = &self.shared.connector.config().selection;
        let found = catalog::tables(&mut conn).await?;
        Ok(found
            .into_iter()
            .filter(|t| selection.table(&t.database, &t.name))
            .map(|t| TableFound {
                id: TableId { database: t.database.into(), schema: "".into(), name: t.name.into() },
                keyed: t.keyed,
                rows_estimate: t.rows,
                // The log carries every table from its creation on.
                added: false,
            })
            .collect())
    }

    async fn settle(&self) -> Result<()> {
        let shared = &self.shared;
        let mut conn = shared.connector.connect().await?;
        let begun = Instant::now();
        let mut told = begun;
        loop {
            let settled = match (&shared.start.gtids, shared.server.flavor) {
                (Gtids::MySql(set), _) => {
                    // 0: all of them are there
                    let missing: Option<i64> = conn
                        .exec_first("SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 1)", (set.to_string(),))
                        .await
                        .map_err(|e| errors::sql("waiting for older transactions", e))?;
                    missing == Some(0)
                }
                (Gtids::Maria(pos), Flavor::MariaDb) => {
                    let doing = "waiting for older transactions";
                    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                        .await
                        .map_err(|e| errors::sql(doing, e))?;
                    let place = open::snapshot_place(&mut conn).await?;
                    let at: Option<Option<String>> = conn
                        .exec_first("SELECT BINLOG_GTID_POS(?, ?)", (&place.file, place.offset))
                        .await
                        .map_err(|e| errors::sql(doing, e))?;
                    conn.query_drop("COMMIT").await.map_err(|e| errors::sql(doing, e))?;
                    let at: crate::gtid::GtidPos = at.flatten().unwrap_or_default().parse()?;
                    at.contains_all(pos)
                }
                // The server rotates only when everything in the old file is committed in the engines.
                _ => {
                    conn.query_drop("FLUSH BINARY LOGS").await.map_err(|e| {
                        errors::sql("waiting for older transactions", e)
                            .fix("GRANT RELOAD ON *.* TO the account, or switch GTIDs on")
                    })?;
                    true
                }
            };
            if settled {
                return Ok(());
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                tracing::warn!(
                    waited_s = begun.elapsed().as_secs(),
                    "the snapshot waits for transactions that are in the log and not yet visible"
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn split(&self, id: &TableId, parts: usize) -> Result<Vec<Range>> {
        let mut conn = self.shared.connector.connect().await?;
        let Some(bound) = reader::describe(&mut conn, &self.shared, id, 0).await? else {
            return Err(Error::source(Kind::Schema, format!("table {id} is no longer there")));
        };
        let boundaries = if parts > 1 { reader::boundaries(&mut conn, &bound, parts).await? } else { Vec::new() };
        let mut ranges = Vec::with_capacity(boundaries.len() + 1);
        let mut after: Option<Bytes> = None;
        for upto in boundaries {
            ranges.push(Range { after: after.replace(upto.clone()), upto: Some(upto) });
        }
        ranges.push(Range { after, upto: None });
        Ok(ranges)
    }

    async fn preamble(&self, id: &TableId) -> Result<Option<Chunk>> {
        let conn = self.shared.connector.connect().await?;
        preamble::read(conn, &self.shared, id).await.map(Some)
    }

    async fn reader(&self) -> Result<Box<dyn ChunkReader>> {
        Ok(Box::new(Reader::open(self.shared.clone()).await?))
    }

    fn describe_key(&self, key: &Bytes) -> String {
        match cells::split_key(key) {
            Ok(parts) => {
                let shown: Vec<String> = parts
                    .iter()
                    .map(|p| match std::str::from_utf8(p) {
                        Ok(s) if !s.is_empty() && s.chars().all(|c| !c.is_control()) => format!("{s:?}"),
                        _ => format!("0x{}", p.iter().map(|b| format!("{b:02x}")).collect::<String>()),
                    })
                    .collect();
                format!("({})", shown.join(", "))
            }
            Err(e) => e.to_string(),
        }
    }
}

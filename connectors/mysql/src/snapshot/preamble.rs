//! What is told of a table before its first row: the statement that makes it, as the server writes it.
//!
//! It must show all that was done to the table up to a place in the log, and nothing from behind it. Looking into the table
//! takes its metadata lock until the transaction ends: whatever CREATE, ALTER, RENAME or DROP came before has ended, and so is
//! in the log and in the catalog, and the next one has to wait until the log's end has been asked for.

use super::{
    Shared,
    reader::{clock, place_rows},
};
use crate::{
    assembler::ddl::{self, Became},
    catalog, errors,
    event::Status,
    position::Seen,
    sql, statement,
};
use mysql_async::{Conn, Row, prelude::Queryable};
use seachange_sdk::{Batch, Chunk, Error, Kind, Op, Result, TableId, Txn};

/// Reads it, on a session of its own.
pub(super) async fn read(mut conn: Conn, shared: &Shared, id: &TableId) -> Result<Chunk> {
    let failed = |e| errors::sql("asking how the table is made", e).at(id);
    let name = sql::table(&id.database, &id.name);
    conn.query_drop("START TRANSACTION READ ONLY").await.map_err(failed)?;
    conn.query_drop(format!("SELECT 1 FROM {name} LIMIT 0")).await.map_err(failed)?;
    let made: Option<Row> = conn.query_first(format!("SHOW CREATE TABLE {name}")).await.map_err(failed)?;
    let text: Option<Vec<u8>> = made.and_then(|mut row| row.take(1));
    let described = catalog::table(&mut conn, &shared.server, &id.database, &id.name).await?;
    let (Some(text), Some(table)) = (text, described) else {
        return Err(Error::source(Kind::Schema, format!("table {id} is no longer there")));
    };
    let ts_us = clock(&mut conn).await?;
    let place = shared.server.log_end(&mut conn).await?.0;
    conn.query_drop("COMMIT").await.map_err(failed)?;
    if let Err(e) = conn.disconnect().await {
        tracing::debug!(error = %e, "closing the session that asked how a table is made");
    }
    let text = statement::text(&text, &Status::default(), &shared.collations);
    let name = (id.database.to_string(), id.name.to_string());
    let became = [Became { name, how: "CREATE", table: Some(table) }];
    let layout = shared.server.flavor.layout();
    let mut batch = Batch { txns: vec![Txn { begins: true, ..Txn::default() }], ..Batch::default() };
    let record = ddl::record(&text, &id.database, &became, &layout, format_args!("{place}"));
    record.put(Op::Read, place.offset, 0, &mut batch);
    let fence = Seen::Exactly(place).encode();
    place_rows(&mut batch, &fence, ts_us)?;
    Ok(Chunk { batch, fence, last: None })
}

//! How fast a table is read by chunks, against the server's own `COPY ... TO STDOUT` into nothing.
//!
//! `cargo run --release --example snapshot_rate -- postgres://user:password@host:port/database [rows] [chunk rows] [chunk bytes]`
//! makes the table `rate.orders` (8 columns) if it is not there. Both ways alternate, three times each.

use futures_util::StreamExt;
use seachange_postgres::{config::Config, slot::PublicationPlan, snapshot::PgSnapshotter, sql::Connector};
use seachange_sdk::{ChunkRequest, Range, Snapshotter, TableId};
use std::{error::Error, sync::Arc, time::Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("give the URL of a database")?;
    let rows: usize = args.next().map_or(Ok(1_000_000), |s| s.parse())?;
    let chunk_rows: usize = args.next().map_or(Ok(50_000), |s| s.parse())?;
    let chunk_bytes: usize = args.next().map_or(Ok(4 << 20), |s| s.parse())?;
    let table: toml::Table = format!("url = {url:?}\ntables = [\"rate.*\"]\npublication = \"rate_pub\"").parse()?;
    let config = Arc::new(Config::read("rate", "source", &table).map_err(|f| format!("{f:?}"))?);
    let connector = Connector::new(config.clone())?;
    let client = connector.connect().await?;
    client
        .batch_execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS rate;
             CREATE TABLE IF NOT EXISTS rate.orders (id bigint PRIMARY KEY, customer int, status text, amount numeric(12,2),
               note text, created timestamptz, updated timestamp, paid boolean);
             INSERT INTO rate.orders SELECT i, i % 10000, (ARRAY['new', 'paid', 'sent'])[1 + i % 3], i * 1.37, 'note number ' || i,
               now() + i * interval '1 s', now()::timestamp, i % 2 = 0 FROM generate_series(1, {rows}) i
               WHERE NOT EXISTS (SELECT FROM rate.orders)"
        ))
        .await?;
    let snapshotter = PgSnapshotter::new(
        connector.clone(),
        config.selection.clone(),
        config.database.clone(),
        PublicationPlan::new(&config),
    )
    .await?;
    snapshotter.discover().await?;
    let id = TableId { database: config.database.as_str().into(), schema: "rate".into(), name: "orders".into() };
    for _ in 0..3 {
        let begun = Instant::now();
        let (mut n, mut bytes) = (0usize, 0usize);
        let mut stream = Box::pin(client.copy_out("COPY rate.orders TO STDOUT").await?);
        while let Some(row) = stream.next().await {
            bytes += row?.len();
            n += 1;
        }
        told("COPY to nowhere", n, bytes, begun);

        let mut reader = snapshotter.reader().await?;
        let mut request = ChunkRequest {
            table: id.clone(),
            range: Range::default(),
            rows: chunk_rows,
            bytes: chunk_bytes,
            row_bytes: 16 << 20,
            keys: Vec::new(),
        };
        let begun = Instant::now();
        let (mut n, mut bytes, mut chunks) = (0usize, 0usize, 0usize);
        loop {
            let chunk = reader.read(&request).await?;
            n += chunk.batch.changes.len();
            bytes += chunk.batch.bytes;
            chunks += 1;
            match chunk.last {
                Some(last) => request.range.after = Some(last),
                None => break,
            }
        }
        told(&format!("{chunks} chunks"), n, bytes, begun);
    }
    Ok(())
}

fn told(what: &str, rows: usize, bytes: usize, begun: Instant) {
    let s = begun.elapsed().as_secs_f64();
    println!("{what}: {rows} rows, {:.1} MB in {s:.2} s: {:.0} rows/s", bytes as f64 / 1e6, rows as f64 / s);
}

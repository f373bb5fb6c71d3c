//! Measures the source alone: drains what a slot holds into batches that are dropped.
//! `drain URL SCHEMA.TABLE SLOT PUBLICATION ROWS [binary]`

use seachange_postgres::{Configuration, config::Config};
use seachange_sdk::{Batch, Configured, Limit};
use std::time::Instant;

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let field = |i: usize| after.split_whitespace().nth(i).and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
    (field(11) + field(12)) / 100.0
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, url, table, slot, publication, rows, more @ ..] = args.as_slice() else {
        eprintln!("drain URL SCHEMA.TABLE SLOT PUBLICATION ROWS [binary]");
        std::process::exit(2)
    };
    let text = format!("url = '{url}'\ntables = ['{table}']\nslot = '{slot}'\npublication = '{publication}'");
    let config = Config::read("drain", "drain", &text.parse().expect("TOML")).expect("configuration");
    let rows: u64 = rows.parse().expect("a number");
    let c = Configuration::new(config);
    let binary = more.iter().any(|m| m == "binary");
    let mut opened = if binary { c.open_binary().await } else { c.open(None).await }.expect("open");
    let limit = Limit { bytes: 1 << 20, changes: 50_000, row_bytes: 64 << 20, txn_tables: false };
    let mut batch = Batch::default();
    let (mut n, mut batches, mut bytes) = (0, 0u64, 0);
    let (from, used) = (Instant::now(), cpu());
    let mut first = None;
    while n < rows {
        opened.source.fill(&mut batch, limit).await.expect("fill");
        first.get_or_insert_with(Instant::now);
        n += batch.changes.len() as u64;
        bytes += batch.bytes;
        batches += 1;
        batch.clear();
    }
    let s = from.elapsed().as_secs_f64();
    println!(
        "{n} rows in {s:.2} s: {:.0} rows/s, {:.2} us CPU a row, {} MB of values, {batches} batches, first after {:.3} s",
        n as f64 / s,
        (cpu() - used) / n as f64 * 1e6,
        bytes / 1_000_000,
        first.map_or(0.0, |f| f.duration_since(from).as_secs_f64())
    );
}

//! The same rows from the stream and from a snapshot.

use super::{Database, Server, lines};
use seachange_sdk::{ChunkReader, ChunkRequest, Range, Snapshotter, TableId};
use std::{collections::BTreeMap, sync::Arc};

/// The new image of a line of [`lines`] that has no old one: what stands last.
fn image(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

async fn read_all(
    snapshotter: &Arc<dyn Snapshotter>,
    reader: &mut dyn ChunkReader,
    id: &TableId,
    keyed: bool,
    rows: usize,
) -> Vec<String> {
    let mut out = Vec::new();
    for range in snapshotter.split(id, 3).await.unwrap() {
        if !keyed {
            break;
        }
        let mut request = ask(id, rows);
        request.range = range;
        loop {
            let chunk = reader.read(&request).await.unwrap();
            out.extend(lines(&chunk.batch).iter().map(|l| image(l).to_owned()));
            match chunk.last {
                Some(key) => request.range.after = Some(key),
                None => break,
            }
        }
    }
    if !keyed {
        loop {
            let chunk = reader.read_whole(&ask(id, rows)).await.unwrap();
            out.extend(lines(&chunk.batch).iter().map(|l| image(l).to_owned()));
            if chunk.last.is_none() {
                break;
            }
        }
    }
    out
}
fn ask(id: &TableId, rows: usize) -> ChunkRequest {
    ChunkRequest { table: id.clone(), range: Range::default(), rows, bytes: 1 << 20, row_bytes: 64 << 20, keys: vec![] }
}

/// Inserts, then reads the same rows from the stream and from a snapshot: the new rows of each table, and the database.
pub async fn both_ways(
    server: &Server,
    name: &str,
    chunks: &[usize],
    text: &str,
) -> (Database, BTreeMap<String, Vec<String>>) {
    let db = server.database(name).await;
    let mut stream = server.open(&[&format!("{db}.*")], None).await;
    server.script(&db, text).await;
    server.script(&db, "CREATE TABLE zz_end (id int primary key); INSERT INTO zz_end VALUES (1);").await;
    let mut streamed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in stream.until(&format!("{db}.zz_end")).await {
        let table = line.split(' ').nth(1).unwrap().to_owned();
        streamed.entry(table).or_default().push(image(&line).to_owned());
    }
    let opened = server.configured(&[&format!("{db}.*")], 77).open(None).await.unwrap();
    opened.snapshotter.settle().await.unwrap();
    let mut reader = opened.snapshotter.reader().await.unwrap();
    let (mut tables, mut faults) = (0, Vec::new());
    for found in opened.snapshotter.discover().await.unwrap() {
        let Some(rows) = streamed.get(&found.id.to_string()) else { continue };
        tables += 1;
        // Chunks of a few rows for tables of a few rows.
        for &chunk in chunks.iter().filter(|c| **c * 80 >= rows.len()) {
            let mut read = read_all(&opened.snapshotter, &mut *reader, &found.id, found.keyed, chunk).await;
            let mut rows = rows.clone();
            read.sort();
            rows.sort();
            if read.len() != rows.len() {
                faults.push(format!("{} in chunks of {chunk}: {} rows, not {}", found.id, read.len(), rows.len()));
            }
            for (r, s) in read.iter().zip(&rows).filter(|(r, s)| r != s) {
                let from = r.bytes().zip(s.bytes()).take_while(|(r, s)| r == s).count();
                let part = |s: &str| s.chars().skip(from.saturating_sub(60)).take(120).collect::<String>();
                faults.push(format!("{} in chunks of {chunk}:\n  {}\n  {}", found.id, part(r), part(s)));
            }
        }
    }
    assert!(faults.is_empty(), "{:?}: {}", server.flavor, faults.join("\n"));
    assert!(tables > 0);
    (db, streamed)
}

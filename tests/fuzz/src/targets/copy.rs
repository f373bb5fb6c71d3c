//! COPY's text format: rows out of a stream that arrives in any pieces.
//!
//! Input: number of columns (modulo 8), size of the pieces, then the stream.

use super::batch_holds;
use seachange_postgres::copy::CopyRows;
use seachange_sdk::{Batch, Column, Decoder, Result, TableId, TableKind, TableSchema, Txn, Type};
use std::sync::Arc;

/// What means something in COPY.
pub const TOKENS: &[&[u8]] = &[
    b"\t", b"\n", b"\\N", b"\\\\", b"\\t", b"\\n", b"\\b", b"\\f", b"\\r", b"\\v", b"\\", b"\\.", b"\\.\n", b"\\x41",
    b"\r\n", b"\t\t",
];

type Row = Vec<Option<Vec<u8>>>;

fn batch(columns: usize) -> Batch {
    let column = |i| Column {
        name: format!("c{i}").into(),
        ty: Type::Text,
        type_name: "text".into(),
        nullable: true,
        decode: Decoder::plain(seachange_postgres::decode::text),
    };
    let mut b = Batch::default();
    b.tables.push(Arc::new(TableSchema {
        id: TableId { database: "lab".into(), schema: "s".into(), name: "t".into() },
        kind: TableKind::Table,
        version: 1,
        columns: (0..columns).map(column).collect(),
        key: Vec::new(),
        layout: seachange_postgres::catalog::layout(),
    }));
    b.txns.push(Txn {
        id: 0,
        ts_us: 0,
        commit: 0,
        prev_commit: 0,
        origin: None,
        origin_at: 0,
        gtid: None,
        server_id: 0,
        thread: None,
        file: None,
        begins: true,
        ends: None,
    });
    b
}

fn read<'a>(columns: usize, row_bytes: usize, pieces: impl Iterator<Item = &'a [u8]>) -> (Result<()>, Vec<Row>) {
    let mut batch = batch(columns);
    let mut copy = CopyRows::new(columns, 7, row_bytes, 0);
    let mut done = Ok(());
    for p in pieces {
        done = copy.feed(&mut batch, p);
        if done.is_err() {
            break;
        }
    }
    if done.is_ok() {
        done = copy.finish(&mut batch);
    }
    if done.is_err() {
        copy.cut(&mut batch);
    }
    batch_holds(&batch);
    let rows = batch
        .changes
        .iter()
        .map(|c| batch.image(c.after).iter().map(|cell| cell.bytes(batch.chunk(c)).map(<[u8]>::to_vec)).collect())
        .collect();
    (done, rows)
}

/// As COPY TO writes it.
fn written(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        for (i, field) in row.iter().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            let Some(field) = field else {
                out.extend_from_slice(b"\\N");
                continue;
            };
            for b in field {
                match b {
                    8 => out.extend_from_slice(b"\\b"),
                    9 => out.extend_from_slice(b"\\t"),
                    10 => out.extend_from_slice(b"\\n"),
                    11 => out.extend_from_slice(b"\\v"),
                    12 => out.extend_from_slice(b"\\f"),
                    13 => out.extend_from_slice(b"\\r"),
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b => out.push(*b),
                }
            }
        }
        out.push(b'\n');
    }
    out
}

/// The target.
pub fn copy(input: &[u8]) {
    let [columns, size, stream @ ..] = input else { return };
    let columns = usize::from(columns % 8);
    let whole = read(columns, 1 << 20, std::iter::once(stream));
    let pieces = read(columns, 1 << 20, stream.chunks(usize::from(*size).max(1)));
    assert_eq!(whole.0.is_ok(), pieces.0.is_ok(), "how the stream is cut decides nothing");
    assert_eq!(whole.1, pieces.1, "how the stream is cut decides nothing");
    // Under a limit rows are fewer, never others.
    let (_, fewer) = read(columns, 16, stream.chunks(usize::from(*size).max(1)));
    assert!(whole.1.starts_with(&fewer), "a limit makes rows fewer, never others");
    let again = written(&whole.1);
    let (done, rows) = read(columns, 1 << 20, std::iter::once(&again[..]));
    assert!(done.is_ok(), "rows as COPY writes them are read");
    assert_eq!(rows, whole.1, "rows as COPY writes them are read as they were");
    if let Err(e) = &whole.0 {
        assert!(!format!("{e:?}").is_empty());
    }
}

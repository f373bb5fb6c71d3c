//! The replication stream: CopyData messages into the assembler, its batch into records.
//!
//! Input: a byte that says which columns are left out (bit n: every 8th column from n on), then messages, each behind its
//! length (two bytes, big-endian); the last one may be longer than what is there.

use super::{batch_holds, encodes};
use bytes::Bytes;
use seachange::config::resolved::Topics;
use seachange::{
    config::resolved::Values,
    format::{Encoder, resolved_defaults},
    sink::Records,
};
use seachange_postgres::{
    assembler::{Assembler, Next},
    catalog::{Bound, RelationInfo, layout, types::Types},
    pgoutput::{Frame, Message, Shape, frame, message, row},
    position::PgPosition,
};
use seachange_sdk::{Batch, Column, Cut, Limit, Selection, TableId, TableKind, TableSchema};
use std::sync::Arc;

/// Tags, markers of tuples, types by oid, lengths.
pub const TOKENS: &[&[u8]] = &[
    b"w",
    b"k",
    b"B",
    b"C",
    b"O",
    b"R",
    b"Y",
    b"I",
    b"U",
    b"D",
    b"T",
    b"M",
    b"N",
    b"K",
    b"n",
    b"u",
    b"t",
    b"b",
    b"public\0",
    b"\0\0\0\0",
    b"\0\0\0\x01",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\x01",
    b"\xff\xff",
    b"\0\0\0\x17",
    b"\0\0\0\x19",
    b"\0\0\x06\xa4",
    b"\0\0\x04\x3a",
    b"\0\0\x04\xa0",
    b"seachange-heartbeat\0",
];

/// The messages of an input: their places.
pub fn messages(input: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut at = 1;
    while let Some(len) = input.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
        let from = at + 2;
        let end = (from + usize::from(u16::from_be_bytes(*len))).min(input.len());
        out.push(from..end);
        at = end;
    }
    out
}

/// What a catalog would say of a relation whose types are all built in.
fn bound(info: &RelationInfo, left_out: u8) -> Bound {
    let types = Types::default();
    let mask: Vec<bool> = (0..info.columns.len()).map(|i| left_out >> (i % 8) & 1 == 0).collect();
    let kept = || info.columns.iter().zip(&mask).filter(|(_, m)| **m).map(|(c, _)| c);
    let columns: Vec<Column> = kept()
        .map(|c| {
            let (ty, decode) = types.resolve(c.type_oid, c.typmod);
            Column { name: c.name.as_str().into(), ty, type_name: "fuzz".into(), nullable: !c.in_identity, decode }
        })
        .collect();
    let key = (0..).zip(kept()).filter(|(_, c)| c.in_identity).map(|(i, _)| i).collect();
    let id = TableId { database: "lab".into(), schema: info.schema.as_str().into(), name: info.name.as_str().into() };
    let schema = Arc::new(TableSchema { id, kind: TableKind::Table, version: 1, columns, key, layout: layout() });
    Bound { schema, mask }
}

fn selection() -> Selection {
    let mut faults = Vec::new();
    let s = Selection::parse("fuzz", &["*.*".into()], &["hidden.*".into()], &[], &mut faults);
    assert!(faults.is_empty());
    s
}

/// A row message alone: its cells lie inside it.
fn one(body: &[u8], left_out: u8) {
    let Ok(Message::Row { .. }) = message(body) else { return };
    // As many columns as the first tuple says, so that it is read to its end.
    let Some(count) = body.get(6..).and_then(|b| b.first_chunk::<2>()) else { return };
    let count = usize::from(u16::from_be_bytes(*count)).min(2048);
    for binary in [false, true] {
        let columns: Vec<(bool, bool)> = (0..count).map(|i| (left_out >> (i % 8) & 1 == 0, i % 3 == 0)).collect();
        let captured = columns.iter().filter(|c| c.0).count();
        let mut cells = Vec::new();
        let Ok(images) = row(body, 1000, &Shape { columns, binary }, &mut cells) else { continue };
        let mut sum = 0;
        for span in [images.before, images.after].into_iter().filter(|s| s.is_some()) {
            assert_eq!(span.len as usize, captured, "a cell for every captured column");
            let cells = &cells[span.start as usize..(span.start + span.len) as usize];
            for cell in cells.iter().filter(|c| c.is_value()) {
                assert!(cell.off >= 1000, "a cell of this message");
                assert!(body.get((cell.off - 1000) as usize..(cell.off - 1000 + cell.len) as usize).is_some());
                sum += cell.len as usize;
            }
        }
        assert!(sum <= images.bytes && images.bytes <= body.len(), "bytes are counted once");
        assert!(images.before.is_some() || images.after.is_some(), "a row has an image");
    }
}

/// The target.
pub fn pgoutput(input: &[u8]) {
    let left_out = input.first().copied().unwrap_or(0);
    let start = PgPosition { system: 7, end: 0, prev_commit: 0, inside: None };
    let mut assembler = Assembler::new(selection(), "lab", start, 1 << 33, false);
    let limit = Limit { bytes: 1 << 20, changes: 1 << 14, row_bytes: 2048, txn_tables: true };
    let mut batch = Batch::default();
    assembler.enter(&batch);
    let places = messages(input);
    'stream: for place in places {
        let copy = &input[place.clone()];
        if let Ok(Frame::Data { body, .. }) = frame(copy) {
            one(body, left_out);
        }
        let base = place.start as u32;
        for again in [false, true] {
            match assembler.take(copy, base, &mut batch, &limit) {
                Ok(Next::Go) => continue 'stream,
                Ok(Next::Bind(info)) => {
                    assert!(!again, "a bound table is not asked for again");
                    let bound = bound(&info, left_out);
                    assembler.bind(info, bound).expect("a mask as long as its relation");
                }
                Err(_) => break 'stream,
            }
        }
    }
    assembler.cut(&mut batch);
    batch.chunks.push(Bytes::copy_from_slice(input));
    batch_holds(&batch);
    let (Cut::Txn(p) | Cut::Inside(p) | Cut::Idle(p)) = &batch.cut else { panic!("a batch has a cut") };
    assert_eq!(PgPosition::decode(p).expect("a position reads back").encode(), *p);
    if batch.changes.is_empty() {
        return;
    }
    for values in [Values::Plain, Values::Debezium] {
        let mut format = resolved_defaults(values);
        (format.schemas, format.transaction) = (values == Values::Debezium, true);
        let mut encoder = Encoder::new("dbz", "lab", &format, &Topics::default()).expect("a good template");
        // That a row's value is refused is for the format to say; what was encoded before it has been looked at.
        let refused = encodes(&mut encoder, &batch, &mut Records::default()).err();
        if let Some(e) = refused {
            assert!(!e.what().is_empty());
        }
    }
}

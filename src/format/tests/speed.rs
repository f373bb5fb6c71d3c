//! How long a row takes: `cargo test --release -p seachange format_speed -- --ignored --nocapture`.

use super::support::{NOW, layout};
use crate::config::resolved::Topics;
use crate::{
    config::resolved::{Format, Values},
    format::{Encoder, resolved_defaults},
    records::Records,
};
use seachange_sdk::{
    Batch, Cell, Change, Column, Decoder, Error, Op, Param, Result, Span, TableId, TableKind, TableSchema, Txn, Type,
    Value,
};
use std::{borrow::Cow, sync::Arc, time::Instant};

fn str(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| Error::value("not UTF-8").cause(e))
}
fn int<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::I64(str(bytes)?.parse().map_err(|e| Error::value("no integer").cause(e))?))
}
fn text<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Text(Cow::Borrowed(str(bytes)?)))
}
fn decimal<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Decimal(Cow::Borrowed(str(bytes)?)))
}
fn truth<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Bool(bytes == b"t"))
}
fn stamp<'a>(_: &'a Param, _: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::TimestampTz(1_709_212_455, 123_456))
}

#[test]
#[ignore = "a measurement"]
fn format_speed() {
    let columns: Vec<(&str, Type, seachange_sdk::DecodeFn, &str)> = vec![
        ("id", Type::I64, int, "1234567"),
        ("customer", Type::I32, int, "42"),
        ("status", Type::Text, text, "shipped"),
        ("email", Type::Text, text, "somebody.with.a.name@example.com"),
        (
            "note",
            Type::Text,
            text,
            "a note that is about as long as notes tend to be, with \"quotes\" in it and an end",
        ),
        ("total", Type::Decimal { precision: 12, scale: 2 }, decimal, "1299.95"),
        ("paid", Type::Bool, truth, "t"),
        ("created", Type::TimestampTz(6), stamp, "2024-02-29 13:14:15.123456+00"),
        ("payload", Type::Json, text, "{\"a\": 1, \"b\": [1, 2, 3], \"c\": {\"d\": null}}"),
        ("count", Type::I32, int, "-17"),
    ];
    let schema = Arc::new(TableSchema {
        id: TableId { database: "shop".into(), schema: "public".into(), name: "orders".into() },
        kind: TableKind::Table,
        version: 1,
        columns: columns
            .iter()
            .map(|(name, ty, decode, _)| Column {
                name: (*name).into(),
                ty: ty.clone(),
                type_name: "t".into(),
                nullable: true,
                decode: Decoder::plain(*decode),
            })
            .collect(),
        key: vec![0],
        layout: layout(),
    });
    let mut batch = Batch::default();
    let mut bytes = Vec::new();
    let txn = Txn { ts_us: 1_700_000_000_123_456, ..super::support::txn(7) };
    batch.txns.push(txn);
    let table = batch.table_index(&schema);
    const ROWS: u64 = 1024;
    for i in 0..ROWS {
        let start = batch.cells.len() as u32;
        for (.., value) in &columns {
            batch.cells.push(Cell::at(bytes.len() as u32, value.len() as u32));
            bytes.extend_from_slice(value.as_bytes());
        }
        let after = Span { start, len: columns.len() as u32 };
        batch.changes.push(Change {
            op: Op::Create,
            table,
            chunk: 0,
            before: Span::NONE,
            after,
            txn: 0,
            at: 452_257_240 + i,
            row: 0,
            order: i,
            table_order: i,
        });
    }
    batch.chunks.push(bytes.into());
    for (name, format) in [
        ("plain", resolved_defaults(Values::Plain)),
        ("debezium", resolved_defaults(Values::Debezium)),
        ("debezium with schemas", Format { schemas: true, ..resolved_defaults(Values::Debezium) }),
    ] {
        let mut encoder = Encoder::new("shop", "shop", &format, &Topics::default()).unwrap();
        let mut records = Records::default();
        let mut best = f64::MAX;
        for _ in 0..400 {
            records.clear();
            let start = Instant::now();
            encoder.encode(&batch, NOW, &mut records).unwrap();
            best = best.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
        }
        println!("{name}: {best:.0} ns a row of 10 columns, {} bytes", records.buf.len() as u64 / ROWS);
    }
}

//! Every decoder over any bytes, and whatever comes out in every form that the configuration knows.
//!
//! Input: which type (modulo how many there are), then the text of a cell.

use super::{batch_holds, encodes};
use bytes::Bytes;
use seachange::config::resolved::Topics;
use seachange::{
    config::resolved::{BinaryMode, DecimalMode, Format, IntervalMode, MapMode, TimeMode, Values},
    format::{Encoder, key_hash, resolved_defaults},
    sink::Records,
};
use seachange_postgres::{
    catalog::{layout, types::Types},
    decode::{self, MoneyFormat, nested},
};
use seachange_sdk::{
    Batch, Cell, Change, Column, DecodeFn, Decoder, Op, Param, Result, Span, TableId, TableKind, TableSchema, Txn,
    Type, Value, Visitor,
};
use std::{cell::RefCell, sync::Arc};

/// Pieces of the texts of types.
pub const TOKENS: &[&[u8]] = &[
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"infinity",
    b"-infinity",
    b"NULL",
    b"null",
    b" BC",
    b"-",
    b"+",
    b".",
    b"e+308",
    b"E-400",
    b"00",
    b"24:00:00",
    b":59",
    b".999999",
    b"+15:59:59",
    b"-00",
    b" year ",
    b" mons ",
    b" days ",
    b"2024-02-30",
    b"0000",
    b"5874897",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b",",
    b";",
    b"[0:1]=",
    b"=>",
    b", ",
    b"\\x",
    b"\\377",
    b"(",
    b")",
    b"\xff",
    b"\0",
    b"\xc3\xa9",
    b"$",
    b"9223372036854775807",
    b"99999999999999999999999999999999999999999",
    b"4294967295",
    b"true",
    b"t",
    b"f",
];

/// How a type is read and kept, with the name of its cells' corpus.
fn types() -> Vec<(Type, Decoder)> {
    let resolve = |oid: u32, typmod: i32| Types::default().resolve(oid, typmod);
    let packed = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
    let mut out: Vec<(Type, Decoder)> = [
        (16, -1),
        (17, -1),
        (18, -1),
        (25, -1),
        (20, -1),
        (21, -1),
        (23, -1),
        (26, -1),
        (114, -1),
        (142, -1),
        (600, -1),
        (700, -1),
        (701, -1),
        (1082, -1),
        (1083, -1),
        (1083, 3),
        (1114, -1),
        (1114, 3),
        (1184, -1),
        (1184, 0),
        (1186, -1),
        (1266, -1),
        (1560, 1),
        (1560, 8),
        (1562, -1),
        (1700, -1),
        (1700, packed(10, 2)),
        (1700, packed(3, -2)),
        (1700, packed(1000, 1000)),
        (2950, -1),
    ]
    .into_iter()
    .map(|(oid, typmod)| resolve(oid, typmod))
    .collect();
    for format in
        [MoneyFormat::DOLLARS, MoneyFormat { scale: 0, negative: b'(' }, MoneyFormat { scale: 3, negative: b'-' }]
    {
        let param = MoneyFormat::param(Some(format));
        out.push((Type::Money(u32::from(format.scale)), Decoder { decode: decode::money, param }));
    }
    let plain = |ty, f: DecodeFn| (ty, Decoder::plain(f));
    out.push(plain(Type::Map, nested::hstore));
    out.push(plain(Type::Bytes, decode::raw));
    let list = |(ty, element): (Type, Decoder), delimiter| {
        let param = Param { element: Some(Arc::new(element)), delimiter, ..Param::default() };
        (Type::Array(Box::new(ty)), Decoder { decode: nested::array, param })
    };
    for (oid, typmod) in
        [(23, -1), (25, -1), (16, -1), (17, -1), (1184, -1), (1186, -1), (1700, packed(6, 2)), (1700, -1), (1560, 8)]
    {
        out.push(list(resolve(oid, typmod), b','));
    }
    out.push(list(resolve(25, -1), b';'));
    out.push(list(plain(Type::Map, nested::hstore), b','));
    out.push(list(list(resolve(23, -1), b','), b','));
    out
}

/// Formats that together have every choice under each base.
fn formats() -> Vec<Format> {
    use {BinaryMode as B, DecimalMode as D, IntervalMode as I, MapMode as M, TimeMode as T};
    let times = [T::Iso, T::Adaptive, T::AdaptiveTimeMicros, T::Connect, T::IsoString, T::Micros, T::Nanos];
    let decimals = [D::String, D::Precise, D::Double];
    let mut out = vec![resolved_defaults(Values::Plain)];
    for base in [Values::Plain, Values::Debezium] {
        for (i, time) in times.into_iter().enumerate() {
            out.push(Format {
                time,
                decimal: decimals[(i + 1) % 3],
                binary: [B::Base64UrlSafe, B::Hex, B::Base64][i % 3],
                interval: [I::Numeric, I::String, I::Iso][i % 3],
                hstore: [M::Json, M::Object][i % 2],
                schemas: i % 3 == 0,
                ..resolved_defaults(base)
            });
        }
    }
    out
}

struct Kit {
    tables: Vec<Arc<TableSchema>>,
    encoders: Vec<Encoder>,
    records: Records,
    scratch: Vec<u8>,
}

impl Kit {
    fn new() -> Kit {
        let table = |(i, (ty, decode)): (usize, (Type, Decoder))| {
            let column = Column { name: "v".into(), ty, type_name: "fuzz".into(), nullable: false, decode };
            Arc::new(TableSchema {
                id: TableId { database: "lab".into(), schema: "s".into(), name: format!("t{i}").into() },
                kind: TableKind::Table,
                version: 1,
                columns: vec![column],
                key: vec![0],
                layout: layout(),
            })
        };
        let encoder = |f: Format| Encoder::new("dbz", "lab", &f, &Topics::default()).expect("a good template");
        Kit {
            tables: types().into_iter().enumerate().map(table).collect(),
            encoders: formats().into_iter().map(encoder).collect(),
            records: Records::default(),
            scratch: Vec::new(),
        }
    }
}

thread_local! {
    static KIT: RefCell<Kit> = RefCell::new(Kit::new());
}

/// Number of types: what an input's first byte counts modulo.
pub fn count() -> usize {
    types().len()
}

/// Holds that lists and maps are properly nested.
#[derive(Default)]
struct Nesting(Vec<u8>);

impl Visitor for Nesting {
    fn begin_list(&mut self) -> Result<()> {
        self.0.push(b'[');
        Ok(())
    }
    fn end_list(&mut self) -> Result<()> {
        assert_eq!(self.0.pop(), Some(b'['));
        Ok(())
    }
    fn begin_map(&mut self) -> Result<()> {
        self.0.push(b'{');
        Ok(())
    }
    fn end_map(&mut self) -> Result<()> {
        assert_eq!(self.0.pop(), Some(b'{'));
        Ok(())
    }
    fn key(&mut self, _: &str) -> Result<()> {
        assert_eq!(self.0.last(), Some(&b'{'));
        Ok(())
    }
    fn value(&mut self, value: Value<'_>) -> Result<()> {
        assert!(!self.0.is_empty());
        if let Value::Nested(n) = value {
            let mut inner = Nesting::default();
            n.walk(&mut inner)?;
            assert!(inner.0.is_empty(), "what begins ends");
        }
        Ok(())
    }
}

/// The target.
pub fn values(input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    KIT.with_borrow_mut(|kit| one(kit, usize::from(*which), text));
}

fn one(kit: &mut Kit, which: usize, text: &[u8]) {
    let table = kit.tables[which % kit.tables.len()].clone();
    let column = &table.columns[0];
    let value = match column.decode.value(text) {
        Ok(v) => v,
        Err(e) => {
            let shown = format!("{e:?}");
            let cell = std::str::from_utf8(text).unwrap_or_default();
            assert!(cell.len() < 24 || !shown.contains(cell), "an error never repeats the value");
            return;
        }
    };
    let readable = match &value {
        Value::Nested(n) => {
            let mut nesting = Nesting::default();
            let walked = n.walk(&mut nesting).is_ok();
            assert!(!walked || nesting.0.is_empty(), "what begins ends");
            walked
        }
        _ => true,
    };
    let mut batch = Batch::default();
    batch.tables.push(table.clone());
    batch.cells.push(Cell::at(0, text.len() as u32));
    batch.chunks.push(Bytes::copy_from_slice(text));
    batch.txns.push(Txn {
        id: 7,
        ts_us: 1_700_000_000_123_456,
        commit: 900,
        prev_commit: 100,
        origin: None,
        origin_at: 0,
        gtid: None,
        server_id: 0,
        thread: None,
        file: None,
        begins: true,
        ends: None,
    });
    let (before, after) = (Span::NONE, Span { start: 0, len: 1 });
    batch.changes.push(Change {
        op: Op::Create,
        table: 0,
        chunk: 0,
        before,
        after,
        txn: 0,
        at: 500,
        row: 0,
        order: 1,
        table_order: 1,
    });
    batch_holds(&batch);
    let hash = key_hash(&table, &batch.cells, text, &mut kit.scratch);
    assert_eq!(hash.is_ok(), readable, "a value that can be read can be a key");
    for (i, encoder) in kit.encoders.iter_mut().enumerate() {
        let done = encodes(encoder, &batch, &mut kit.records);
        assert!(done.is_err() || readable, "a value that cannot be read is not written");
        if i == 0 && readable {
            assert!(done.is_ok(), "the default format holds every value: {done:?}");
            if let Some(range) = kit.records.items.first().and_then(|r| r.value.as_ref()) {
                let record: serde_json::Value = serde_json::from_slice(kit.records.bytes(range)).expect("JSON");
                exact(&column.ty, &value, text, &record["after"]["v"], kit.records.bytes(range));
            }
        }
    }
}

/// The digits of a record's number: parsed by the tests themselves, for serde_json does not round as it should.
fn number(record: &[u8]) -> &str {
    let text = std::str::from_utf8(record).unwrap_or_default();
    let rest = text.split_once("\"after\":{\"v\":").unwrap_or_default().1;
    rest.split('}').next().unwrap_or_default()
}

/// In the default format nothing is lost: what is written says what the cell said.
fn exact(ty: &Type, value: &Value<'_>, text: &[u8], written: &serde_json::Value, record: &[u8]) {
    let shown = written.as_str().unwrap_or_default().as_bytes();
    match value {
        Value::I64(n) => {
            assert_eq!(n.to_string().as_bytes(), text, "an integer is the text it was read from");
            assert_eq!(written.as_i64(), Some(*n));
        }
        Value::Decimal(d) if !matches!(ty, Type::Money(_)) => {
            assert_eq!(d.as_bytes(), text);
            assert_eq!(shown, text);
        }
        Value::Text(t) => assert_eq!(shown, t.as_bytes()),
        Value::Bits(b) => assert_eq!(shown, b.as_bytes()),
        Value::F64(f) if f.is_finite() => {
            assert_eq!(number(record).parse::<f64>().ok().map(f64::to_bits), Some(f.to_bits()));
        }
        Value::F32(f) if f.is_finite() => {
            assert_eq!(number(record).parse::<f32>().ok().map(f32::to_bits), Some(f.to_bits()));
        }
        // Years of four digits and this era: the same text, so a day that does not exist would show.
        Value::Date(_) if text.len() == 10 => assert_eq!(shown, text),
        Value::Time(_) if text.len() == 8 => assert_eq!(shown, text),
        Value::Timestamp(..) if text.len() == 19 => {
            assert_eq!((shown.get(..10), shown.get(11..)), (text.get(..10), text.get(11..)));
        }
        _ => {}
    }
}

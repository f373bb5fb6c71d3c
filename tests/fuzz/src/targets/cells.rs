//! Cells of the binary log: every type of MySQL and MariaDB, JSON documents and what changes them in part; GTIDs, positions;
//! statements.
//!
//! `cells`: a byte that picks the column, then its cell. `documents`: a document behind its length (two bytes, little-endian),
//! then differences. `gtids`: a byte for what it is, then text or bytes. `statements`: a byte of SQL modes, then the text.

use super::{batch_holds, binlog::collations, encodes};
use bytes::Bytes;
use seachange::config::resolved::Topics;
use seachange::{
    config::resolved::{Format, TimeMode, Values, ZeroDates},
    format::{Encoder, key_hash, resolved_defaults},
    sink::Records,
};
use seachange_mysql::{
    charset::Charset,
    columns::{Binder, Bound, CatalogColumn, CatalogTable},
    decimal,
    flavor::Flavor,
    gtid::{GtidPos, GtidSet, Uuid},
    history::{Draft, Folding, History},
    jsonb,
    position::{Seen, Stand},
    statement::{self, Statement},
    temporal,
};
use seachange_sdk::{Batch, Cell, Change, Fence, Kept, Op, Position, Selection, Span, Txn, Type, Value};
use std::cell::RefCell;

/// Edges of cells, heads of documents.
pub const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x04",
    b"\x05",
    b"\x0b",
    b"\x0c",
    b"\x0f",
    b"\x7f",
    b"\x80",
    b"\x81",
    b"\xff",
    b"\xf6",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"$",
    b"$.a",
    b"$[0]",
    b"$.\"b c\"",
    b"$.a[1]",
    b"\0\0\0\0\0\0\xf0\x3f",
    b"\x83\x01",
    b"\xe9",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xd8\x3d\xde\x00",
];

/// Of GTIDs.
pub const GTIDS: &[&[u8]] = &[
    b"35ace1f0-e8eb-11f1-be49-02fc00000001",
    b":1",
    b"-5",
    b":1-5:7",
    b",",
    b":tag",
    b":tag:1-3",
    b"0-1-2",
    b"4294967295",
    b"18446744073709551615",
    b"9223372036854775807",
    b" ",
    b"\n",
    b"\x01",
    b"\x02",
    b"\0\0\0\0\0\0\0\0",
];

/// Of statements.
pub const STATEMENTS: &[&[u8]] = &[
    b"ALTER TABLE ",
    b"CREATE TABLE ",
    b"DROP TABLE ",
    b"RENAME TABLE ",
    b" ADD COLUMN ",
    b" FIRST",
    b" AFTER ",
    b" LIKE ",
    b" SELECT ",
    b"CHANGE ",
    b"MODIFY ",
    b"RENAME COLUMN ",
    b"PRIMARY KEY (",
    b"`",
    b"``",
    b"'",
    b"\"",
    b"/*",
    b"*/",
    b"/*!50000 ",
    b"-- \n",
    b"#",
    b"(",
    b")",
    b",",
    b".",
    b"IF NOT EXISTS ",
    b"IF EXISTS ",
    b"TRUNCATE ",
    b"\\",
    b" TO ",
    b" int",
    b" CHARACTER SET utf8mb4",
    b"XA COMMIT X'01',X'',1",
];

/// A column of every type. `which` counts modulo their number.
fn bound() -> Bound {
    let column = |data_type: &str, column_type: &str| CatalogColumn {
        name: String::new(),
        data_type: data_type.into(),
        column_type: column_type.into(),
        nullable: true,
        ..CatalogColumn::default()
    };
    let mut columns = Vec::new();
    for int in ["tinyint", "smallint", "mediumint", "int", "bigint"] {
        columns.push(column(int, int));
        columns.push(column(int, &format!("{int} unsigned")));
    }
    for plain in ["float", "double", "year", "date", "json", "geometry", "point", "vector", "uuid", "inet6", "inet4"] {
        columns.push(column(plain, plain));
    }
    for digits in [0, 1, 3, 6] {
        for ty in ["time", "datetime", "timestamp"] {
            columns.push(CatalogColumn { digits, ..column(ty, ty) });
        }
    }
    for decimal in [(1, 0), (10, 2), (9, 9), (65, 30), (65, 0), (38, 38)] {
        columns.push(CatalogColumn { decimal, ..column("decimal", "decimal") });
    }
    for bits in [1, 2, 8, 9, 64] {
        columns.push(CatalogColumn { decimal: (bits, 0), ..column("bit", "bit") });
    }
    let sets = [
        "utf8mb4", "utf8mb3", "latin1", "ascii", "ucs2", "utf16", "utf16le", "utf32", "gbk", "gb18030", "sjis", "ujis",
        "big5", "euckr", "cp1251", "koi8r", "hebrew", "tis620", "binary", "cp932", "gb2312", "eucjpms",
    ];
    for set in sets {
        columns.push(CatalogColumn { charset: Charset::named(set), octets: 400, ..column("varchar", "varchar(100)") });
    }
    columns.push(CatalogColumn { charset: Charset::named("binary"), octets: 4, ..column("binary", "binary(4)") });
    for list in ["('a','b','très','it''s')", "('?','x')"] {
        for ty in ["enum", "set"] {
            columns.push(CatalogColumn { charset: Charset::named("utf8mb4"), ..column(ty, &format!("{ty}{list}")) });
        }
    }
    for (i, c) in columns.iter_mut().enumerate() {
        c.name = format!("c{i}");
    }
    let selection = Selection::parse("fuzz", &["*.*".into()], &[], &[], &mut Vec::new());
    let (collations, layout) = (collations(), Flavor::MariaDb.layout());
    let binder = Binder { collations: &collations, selection: &selection, layout: &layout };
    let key = (0..columns.len()).collect();
    binder.bind_catalog("fz", "all", &CatalogTable { columns, key }, 1).expect("a column of every type")
}

struct Kit {
    bound: Bound,
    encoders: Vec<Encoder>,
    records: Records,
}

thread_local! {
    static KIT: RefCell<Kit> = RefCell::new(Kit {
        bound: bound(),
        encoders: formats().iter().map(|f| Encoder::new("dbz", "lab", f, &Topics::default()).expect("a good template")).collect(),
        records: Records::default(),
    });
}

fn formats() -> Vec<Format> {
    let debezium = resolved_defaults(Values::Debezium);
    vec![
        resolved_defaults(Values::Plain),
        Format { time: TimeMode::AdaptiveTimeMicros, ..debezium.clone() },
        Format { time: TimeMode::IsoString, zero_dates: ZeroDates::Text, ..debezium },
    ]
}

/// The target.
pub fn cells(input: &[u8]) {
    let Some((which, cell)) = input.split_first() else { return };
    KIT.with_borrow_mut(|kit| {
        let columns = &kit.bound.schema.columns;
        let place = usize::from(*which) % columns.len();
        let column = &columns[place];
        let Ok(value) = column.decode.value(cell) else { return };
        match (&value, &column.ty) {
            (Value::Decimal(text), Type::Decimal { precision, scale }) => {
                let (p, s) = (*precision as u8, *scale as u8);
                let mut again = Vec::new();
                decimal::encode(text.as_bytes(), p, s, &mut again).expect("what was decoded can be encoded");
                assert_eq!(*text, decimal::decode(&again, p, s).expect("and decoded"));
                assert!(
                    again == cell || text.bytes().all(|c| matches!(c, b'0' | b'.')),
                    "one form, but for minus zero"
                );
            }
            (Value::Time(us), Type::Time(digits)) => {
                let mut again = Vec::new();
                temporal::encode::time2(*us, (*digits).into(), &mut again);
                assert_eq!(temporal::time2(&again, (*digits).into()).expect("a time"), *us);
            }
            (Value::Date(_) | Value::ZeroDate(_), Type::Date) => {
                let mut again = Vec::new();
                temporal::encode::date(temporal::date(cell).expect("a date"), &mut again);
                assert_eq!(again, cell);
            }
            _ => {}
        }
        let cells = (0..columns.len()).map(|i| if i == place { Cell::at(0, cell.len() as u32) } else { Cell::NULL });
        let mut batch = Batch { cells: cells.collect(), ..Batch::default() };
        batch.tables.push(kit.bound.schema.clone());
        batch.txns.push(Txn { begins: true, ..Txn::default() });
        batch.chunks.push(Bytes::copy_from_slice(cell));
        let after = Span { start: 0, len: columns.len() as u32 };
        batch.changes.push(Change {
            op: Op::Create,
            table: 0,
            chunk: 0,
            before: Span::NONE,
            after,
            txn: 0,
            at: 4,
            row: 0,
            order: 1,
            table_order: 1,
        });
        batch_holds(&batch);
        let hash = key_hash(&kit.bound.schema, &batch.cells, cell, &mut Vec::new());
        assert!(hash.expect("what can be decoded can be hashed").is_some());
        for encoder in &mut kit.encoders {
            if let Err(e) = encodes(encoder, &batch, &mut kit.records) {
                assert!(!e.what().is_empty());
            }
        }
    });
}

/// The target.
pub fn documents(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return };
    let (old, diffs) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let holds = |text: &str| {
        let json = serde_json::from_str::<serde::de::IgnoredAny>(text);
        // The reader has a limit of nesting of its own.
        assert!(json.is_ok() || text.matches(['[', '{']).count() > 100, "a document is JSON: {text}");
        assert!(text.len() <= 4096 * 32, "a text is no longer than its document allows");
    };
    let mut text = String::new();
    let whole = jsonb::text(old, &mut text);
    if whole.is_ok() {
        holds(&text);
    }
    let mut changed = String::new();
    if jsonb::apply(old, diffs, &mut changed).is_ok() {
        holds(&changed);
        if diffs.is_empty() {
            assert_eq!(changed, text, "nothing changes nothing");
        }
    }
}

/// The target.
pub fn gtids(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let text = std::str::from_utf8(rest);
    match (which % 5, text) {
        (0, Ok(text)) => {
            let Ok(set) = text.parse::<GtidSet>() else { return };
            assert_eq!(set.to_string().parse::<GtidSet>().expect("a set reads back"), set);
            assert!(set.contains_all(&set) && set.minus(&set).is_empty());
            let mut twice = set.clone();
            twice.union(&set);
            assert_eq!(twice, set);
            for (uuid, tag, runs) in set.sources() {
                assert!(runs.iter().all(|(from, to)| from <= to));
                assert!(runs.first().is_none_or(|(from, _)| set.contains(uuid, tag, *from)));
            }
            assert!(!set.encode().is_empty());
        }
        (1, Ok(text)) => {
            let Ok(at) = text.parse::<GtidPos>() else { return };
            assert_eq!(at.to_string().parse::<GtidPos>().expect("a position reads back"), at);
            assert!(at.contains_all(&at));
        }
        (2, Ok(text)) => {
            let Ok(uuid) = text.parse::<Uuid>() else { return };
            assert_eq!(uuid.to_string().parse::<Uuid>().expect("it reads back"), uuid);
        }
        (3, _) => {
            let p = Position(Bytes::copy_from_slice(rest));
            if let Ok(stand) = Stand::decode(&p) {
                assert_eq!(Stand::decode(&stand.encode()).expect("a position reads back"), stand);
                assert!(!stand.to_string().is_empty());
            }
        }
        (4, _) => {
            let f = Fence(Bytes::copy_from_slice(rest));
            if let Ok(seen) = Seen::decode(&f) {
                assert_eq!(Seen::decode(&seen.encode()).expect("a fence reads back"), seen);
            }
        }
        _ => {}
    }
}

/// The target. A table that is known stays a table: its key names columns that it has.
pub fn statements(input: &[u8]) {
    let Some((modes, text)) = input.split_first() else { return };
    let Statement::Tables { changes, .. } = statement::read(text, modes & 1 != 0, modes & 2 != 0) else { return };
    let column = |name: &str, data_type: &str| CatalogColumn {
        name: name.into(),
        data_type: data_type.into(),
        column_type: data_type.into(),
        ..CatalogColumn::default()
    };
    let table =
        CatalogTable { columns: vec![column("id", "int"), column("a", "bigint"), column("b", "date")], key: vec![0] };
    let mut history = History::load(Folding(modes & 4 != 0), &Kept::default()).expect("nothing was kept");
    history.set(("db".into(), "t".into()), Some(&table));
    let Ok(effects) = history.effects(&changes, "db", |_| true) else { return };
    for effect in effects {
        let known = effect.draft.as_ref().and_then(Draft::known);
        if let Some(known) = &known {
            assert!(known.key.iter().all(|k| *k < known.columns.len()), "a key of columns that are there");
        }
        history.set(effect.name.clone(), known.as_ref());
        assert_eq!(history.get(&effect.name.0, &effect.name.1).expect("it reads back"), known);
    }
    let kept: Kept = history.take_changes().into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
    History::load(history.folding(), &kept).expect("what is kept reads back");
}

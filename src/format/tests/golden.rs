//! Against what Debezium 3.6.1 published for the type workload (PostgreSQL 15): under `debezium` our records equal the
//! recorded ones, field for field and in their order, except for the differences listed here and in
//! `docs/differences-from-debezium.md`.

use super::support::*;
use crate::{
    config::resolved::{DecimalMode, Format, TimeMode, Values},
    format::resolved_defaults,
};
use seachange_sdk::{Op, TableSchema, Type, Value};
use serde_json::Value as Json;
use std::{borrow::Cow, sync::Arc};

const DEFAULTS: &str = include_str!("../../../tests/golden/postgres-15-stream-defaults.jsonl");
const PLAIN: &str = include_str!("../../../tests/golden/postgres-15-stream-plain.jsonl");

/// A recorded record: its line, and the line parsed.
struct Line {
    raw: &'static str,
    json: Json,
}

fn recorded(file: &'static str, table: &str) -> Vec<Line> {
    let topic = format!("dbz.types.{table}");
    let lines = file.lines().map(|raw| Line { raw, json: serde_json::from_str(raw).unwrap() });
    lines.filter(|l| l.json["topic"] == topic.as_str()).collect()
}

/// Every object key of a JSON text, in order: what a parser that sorts would hide.
fn names(json: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), json);
    while let Some(start) = rest.find('"') {
        let mut end = start + 1;
        while rest.as_bytes()[end] != b'"' {
            end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        let string = &rest[start..=end];
        rest = &rest[end + 1..];
        if rest.trim_start().starts_with(':') {
            names.push(serde_json::from_str(string).unwrap());
        }
    }
    names
}

/// Numbers that the recording sets to 0, and the version.
fn normalised(mut value: Json) -> Json {
    for name in ["ts_ms", "ts_us", "ts_ns"] {
        for object in ["", "/source"] {
            if let Some(n) = value.pointer_mut(object).and_then(|o| o.get_mut(name)) {
                *n = 0.into();
            }
        }
    }
    if let Some(v) = value.pointer_mut("/source/version") {
        *v = "".into();
    }
    value
}

type RowOf = (Op, Option<Vec<C>>, Option<Vec<C>>);

/// Encodes the changes with the recorded positions and compares all records of the table. A known difference is the
/// number of the record, the place in the value, what was recorded, and what ours is.
fn compare(
    file: &'static str,
    format: &Format,
    table: &Arc<TableSchema>,
    rows: Vec<RowOf>,
    known: &[(usize, &str, Json, Json)],
) {
    let golden = recorded(file, &table.id.name);
    let source = |n: usize, name: &str| golden[n].json["value"]["source"][name].clone();
    let mut ours = Vec::new();
    for (op, before, after) in rows {
        // Tombstones have no source: their positions are those of the record before them.
        let n = ours.len();
        let mut batch = Rows::new();
        batch.batch.txns[0].id = source(n, "txId").as_u64().unwrap();
        let sequence: Vec<Option<String>> = serde_json::from_str(source(n, "sequence").as_str().unwrap()).unwrap();
        batch.batch.txns[0].prev_commit = sequence[0].as_ref().map_or(0, |s| s.parse().unwrap());
        batch.add(table, op, before, after).at = source(n, "lsn").as_u64().unwrap();
        ours.extend(encode(format, &batch.done()).unwrap());
    }
    assert_eq!(ours.len(), golden.len(), "records of {}", table.id);
    let mut met = 0;
    for (n, (our, golden)) in ours.iter().zip(&golden).enumerate() {
        let parsed = |s: &Option<String>| s.as_ref().map_or(Json::Null, |s| serde_json::from_str(s).unwrap());
        let mut want = golden.json.clone();
        for (_, pointer, theirs, ours) in known.iter().filter(|k| k.0 == n) {
            let at = want.pointer_mut(pointer).unwrap();
            assert_eq!(at, theirs, "record {n} {pointer} of {} was recorded differently", table.id);
            *at = ours.clone();
            met += 1;
        }
        assert_eq!(parsed(&our.key), want["key"], "key of record {n} of {}", table.id);
        let (mine, theirs) = (normalised(parsed(&our.value)), normalised(want["value"].clone()));
        assert_eq!(mine, theirs, "record {n} of {}", table.id);
        if let Some(text) = &our.value {
            let raw =
                &golden.raw[golden.raw.find("\"value\"").unwrap() + 7..golden.raw.find(", \"headers\": {").unwrap()];
            let theirs: Vec<String> = names(raw).into_iter().collect();
            // Where a known difference is another kind of value, the names inside it differ too.
            if !known.iter().any(|k| k.0 == n && k.2.is_object() != k.3.is_object()) {
                assert_eq!(names(text), theirs, "order of names in record {n} of {}", table.id);
            }
        }
        let want: Vec<(String, Json)> = want["headers"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !name.starts_with("__debezium.context."))
            .map(|(name, v)| (name.clone(), v.clone()))
            .collect();
        let mine: Vec<(String, Json)> = our.headers.iter().map(|(n, v)| (n.to_string(), v.as_str().into())).collect();
        assert_eq!(mine, want, "headers of record {n} of {}", table.id);
    }
    assert_eq!(met, known.len());
}

fn creates(rows: Vec<Vec<Value<'static>>>) -> Vec<RowOf> {
    rows.into_iter().map(|r| (Op::Create, None, Some(r.into_iter().map(C::from).collect()))).collect()
}
fn debezium() -> Format {
    resolved_defaults(Values::Debezium)
}
/// Debezium with decimals as strings and times as ISO strings: the recording's own `plain`.
fn strings() -> Format {
    Format { decimal: DecimalMode::String, time: TimeMode::IsoString, ..debezium() }
}
fn nulls(id: i64, columns: usize) -> Vec<Value<'static>> {
    std::iter::once(Value::I64(id)).chain(std::iter::repeat_n(Value::Null, columns - 1)).collect()
}
use Value::{Bool, Date, F32, F64, I64, Infinity, Interval, Null, Point, Time, TimeTz, Timestamp, TimestampTz};

#[test]
fn numbers() {
    let fixed = |precision, scale| Type::Decimal { precision, scale };
    let t = table(
        "types",
        "numbers",
        &[
            ("id", Type::I32),
            ("si", Type::I16),
            ("i", Type::I32),
            ("bi", Type::I64),
            ("n52", fixed(5, 2)),
            ("n380", fixed(38, 0)),
            ("n", Type::VarDecimal),
            ("nneg", fixed(6, 4)),
            ("r", Type::F32),
            ("d", Type::F64),
            ("m", Type::Money(2)),
            ("o", Type::I64),
            ("b", Type::Bool),
            ("dom", fixed(10, 2)),
        ],
        &[0],
    );
    #[rustfmt::skip]
    let rows = || creates(vec![
        vec![I64(1), I64(32767), I64(2147483647), I64(i64::MAX), decimal("999.99"), decimal("99999999999999999999999999999999999999"),
             decimal("3.14159265358979323846"), decimal("1.2345"), F32(1.5), F64(std::f64::consts::E), decimal("1234.56"), I64(4294967295), Bool(true), decimal("10.50")],
        vec![I64(2), I64(-32768), I64(-2147483648), I64(i64::MIN), decimal("-999.99"), decimal("-1"),
             decimal("0.000000000000000000001"), decimal("-0.0001"), F32(-1.17549e-38), F64(-1.7976931348623157e308), decimal("-0.01"), I64(0), Bool(false), decimal("-0.01")],
        vec![I64(3), I64(0), I64(0), I64(0), decimal("0.00"), decimal("0"), decimal("0"), decimal("0.0000"), F32(f32::NAN), F64(f64::NAN),
             decimal("0.00"), I64(1), Null, decimal("0.00")],
        vec![I64(4), I64(1), I64(1), I64(1), decimal("1.00"), decimal("1"), decimal("NaN"), decimal("1.0000"), F32(f32::INFINITY),
             F64(f64::NEG_INFINITY), decimal("92233720368547758.07"), I64(1), Bool(true), decimal("1.00")],
        nulls(5, 14),
        vec![I64(6), I64(7), I64(7), I64(9007199254740993), decimal("7.10"), decimal("7"), decimal("100.00"), decimal("7.0000"),
             F32(3.4028235e38), F64(0.1), decimal("7.00"), I64(7), Bool(true), decimal("7.70")],
    ]);
    compare(DEFAULTS, &debezium(), &t, rows(), &[(3, "/value/after/n", Json::Null, "NaN".into())]);
    compare(PLAIN, &strings(), &t, rows(), &[]);
}

#[test]
fn times() {
    let t = table(
        "types",
        "times",
        &[
            ("id", Type::I32),
            ("d", Type::Date),
            ("t", Type::Time(6)),
            ("t0", Type::Time(0)),
            ("t3", Type::Time(3)),
            ("tz", Type::TimeTz),
            ("ts", Type::Timestamp(6)),
            ("ts0", Type::Timestamp(0)),
            ("ts3", Type::Timestamp(3)),
            ("tstz", Type::TimestampTz(6)),
            ("iv", Type::Interval),
        ],
        &[0],
    );
    const S: i64 = 1_000_000;
    let (day, noon) = (86_400 * S, 43_200 * S);
    let (leap, first, last) = (1_709_212_455, -62_135_596_800, 253_402_300_799);
    #[rustfmt::skip]
    let rows = || creates(vec![
        vec![I64(1), Date(19_782), Time(47_655_123_456), Time(47_655 * S), Time(47_655_123_000), TimeTz(47_655_500_000, 7200),
             Timestamp(leap, 123_456), Timestamp(leap, 0), Timestamp(leap, 123_000), TimestampTz(leap - 19_800, 123_456), Interval(14, 3, 14_706_789_000)],
        vec![I64(2), Date(-1), Time(0), Time(0), Time(0), TimeTz(0, 0), Timestamp(-1, 999_999), Timestamp(-1, 0), Timestamp(-1, 999_000),
             TimestampTz(-1, 999_999), Interval(0, -1, -S)],
        vec![I64(3), Date(-719_162), Time(day - 1), Time(86_399 * S), Time(86_399_999_000), TimeTz(86_399 * S, -43_200),
             Timestamp(first, 0), Timestamp(first, 0), Timestamp(first, 0), TimestampTz(first, 0), Interval(0, 0, 0)],
        vec![I64(4), Date(2_932_896), Time(day), Time(noon), Time(noon), TimeTz(noon, 50_400),
             Timestamp(last, 999_999), Timestamp(last, 0), Timestamp(last, 999_000), TimestampTz(last, 999_999), Interval(0, 178_000, 0)],
        nulls(5, 11),
    ]);
    compare(DEFAULTS, &debezium(), &t, rows(), &[]);
    compare(PLAIN, &strings(), &t, rows(), &[(3, "/value/after/t", "00:00:00Z".into(), "24:00:00Z".into())]);
}

#[test]
fn odd_times() {
    let columns = [("id", Type::I32), ("d", Type::Date), ("ts", Type::Timestamp(6)), ("tstz", Type::TimestampTz(6))];
    let t = table("types", "odd_times", &columns, &[0]);
    let bc = -63_517_780_800;
    let rows = || {
        creates(vec![
            vec![I64(1), Infinity(true), Infinity(true), Infinity(true)],
            vec![I64(2), Infinity(false), Infinity(false), Infinity(false)],
            vec![I64(3), Date(-735_160), Timestamp(bc, 0), TimestampTz(bc, 0)],
        ])
    };
    let known = [
        (0, "/value/after/d", Json::from(-2147472692), Json::from(i32::MAX)),
        (1, "/value/after/d", Json::from(-2147472691), Json::from(i32::MIN)),
    ];
    compare(DEFAULTS, &debezium(), &t, rows(), &known);
    let known = [
        (0, "/value/after/d", "-5877611-06-21Z".into(), "infinity".into()),
        (0, "/value/after/ts", "+294247-01-10T04:00:25.2Z".into(), "infinity".into()),
        (1, "/value/after/d", "-5877611-06-22Z".into(), "-infinity".into()),
        (1, "/value/after/ts", "-290308-12-21T19:59:27.6Z".into(), "-infinity".into()),
    ];
    compare(PLAIN, &strings(), &t, rows(), &known);
}

#[test]
fn strings_and_maps() {
    let mut columns = vec![("id", Type::I32)];
    columns.extend(["c1", "c10", "vc", "t", "ci"].map(|c| (c, Type::Text)));
    columns.extend([("nm", Type::Text), ("by", Type::Bytes), ("u", Type::Uuid), ("j", Type::Json), ("jb", Type::Json)]);
    columns.extend([("x", Type::Xml), ("lt", Type::Ltree), ("h", Type::Map), ("tv", Type::Other)]);
    let t = table("types", "strings", &columns, &[0]);
    let map = |items: Vec<(&'static str, Value<'static>)>| nested(Tree::Map(items));
    #[rustfmt::skip]
    let rows = || creates(vec![
        vec![I64(1), text("a"), text("padded    "), text("plain"), text("tab\t newline\n quote\" backslash\\ ctrl\u{1} del\u{7f}"), text("CiText"),
             text("a_name"), bytes(b"\x00\xff\x10"), text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), text("{\"a\": 1,  \"b\":[1,2,{\"c\":null}]}"),
             text("{\"a\": \"é😀\", \"b\": 1.50, \"n\": 12345678901234567890.123}"), text("<a>1</a>"), text("top.science.astronomy"),
             map(vec![("k1", text("v1")), ("k2", Null)]), text("'a' 'cat' 'fat'")],
        vec![I64(2), text("é"), text("汉字        "), text("日本語テキスト"), text("😀 emoji, עברית, العربية"), text("ÀÉ"), text("n"), bytes(b""),
             text("00000000-0000-0000-0000-000000000000"), text("[]"), text("\"scalar\""), text("<r/>"), text("a"), map(vec![]), text("")],
        vec![I64(3), text(" "), text("          "), text(""), text(""), text(""), text(""), bytes(b"\xde\xad\xbe\xef"), Null, text("null"), text("null"),
             Null, text(""), map(vec![("q", text("\"x\"")), ("a b", text("c,d"))]), Null],
        nulls(4, 15),
    ]);
    // The type `name` comes as null from Debezium's stream (its snapshot has it).
    let known = [
        (0, "/value/after/nm", Json::Null, "a_name".into()),
        (1, "/value/after/nm", Json::Null, "n".into()),
        (2, "/value/after/nm", Json::Null, "".into()),
    ];
    compare(DEFAULTS, &debezium(), &t, rows(), &known);
    compare(PLAIN, &strings(), &t, rows(), &known);
}

#[test]
fn others() {
    let mut columns =
        vec![("id", Type::I32), ("b1", Type::Bit1), ("b8", Type::Bits(Some(8))), ("vb", Type::Bits(Some(20)))];
    columns.extend(["ip", "net", "mac", "mac8"].map(|c| (c, Type::Other)));
    columns.extend([("p", Type::Point), ("e", Type::Enum(["sad".into()].into())), ("em", Type::Text)]);
    columns.extend(["r4", "rn", "rts", "rtz", "rd", "r8"].map(|c| (c, Type::Other)));
    let t = table("types", "others", &columns, &[0]);
    #[rustfmt::skip]
    let rows = || creates(vec![
        vec![I64(1), bits("1"), bits("10101010"), bits("101"), text("192.168.1.1/24"), text("10.0.0.0/8"), text("08:00:2b:01:02:03"),
             text("08:00:2b:01:02:03:04:05"), Point(1.5, -2.5), text("très heureux"), text("a@b.c"), text("[1,10)"), text("(1.5,)"),
             text("[\"2024-01-01 00:00:00\",\"2024-01-02 00:00:00\")"), text("[\"2024-01-01 00:00:00+00\",)"), text("[2024-01-01,2024-12-31)"), text("empty")],
        vec![I64(2), bits("0"), bits("00000000"), bits(""), text("::1"), text("2001:db8::/32"), text("ff:ff:ff:ff:ff:ff"),
             text("ff:ff:ff:ff:ff:ff:ff:ff"), Point(0.0, 0.0), text("sad"), text("x@y"), text("empty"), text("(,)"), text("empty"), text("empty"), text("(,)"), text("[1,2)")],
        nulls(3, 17),
    ]);
    let known = [(1, "/value/after/b8", "".into(), "AA==".into())];
    compare(DEFAULTS, &debezium(), &t, rows(), &known);
    compare(PLAIN, &strings(), &t, rows(), &known);
}

#[test]
fn arrays() {
    let of = |ty: Type| Type::Array(Box::new(ty));
    let columns = [
        ("id", Type::I32),
        ("ai", of(Type::I32)),
        ("at", of(Type::Text)),
        ("an", of(Type::Decimal { precision: 10, scale: 2 })),
        ("ab", of(Type::Bool)),
        ("au", of(Type::Uuid)),
        ("ad", of(Type::Date)),
        ("atz", of(Type::TimestampTz(6))),
        ("av", of(Type::Text)),
        ("ae", of(Type::Enum(["sad".into()].into()))),
        ("aj", of(Type::Json)),
        ("ar", of(Type::F64)),
    ];
    let t = table("types", "arrays", &columns, &[0]);
    #[rustfmt::skip]
    let rows = || creates(vec![
        vec![I64(1), list(vec![I64(1), I64(2), I64(3)]), list(vec![text("a"), text("b c"), text("quote\"d"), Null, text("")]),
             list(vec![decimal("1.50"), Null, decimal("-2.25")]), list(vec![Bool(true), Bool(false)]),
             list(vec![text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]), list(vec![Date(19_723)]), list(vec![TimestampTz(1_704_067_200, 0)]),
             list(vec![text("x"), text("y,z")]), list(vec![text("sad"), text("très heureux")]), list(vec![text("{\"a\": 1}")]), list(vec![F64(1.5), F64(-0.25)])],
        std::iter::once(I64(2)).chain((0..11).map(|_| list(vec![]))).collect(),
        nulls(3, 12),
    ]);
    compare(DEFAULTS, &debezium(), &t, rows(), &[]);
    compare(PLAIN, &strings(), &t, rows(), &[]);
}

#[test]
fn unchanged_toast() {
    let t = table("types", "toast", &[("id", Type::I32), ("small", Type::Text), ("big", Type::Text)], &[0]);
    let big: &'static str =
        recorded(DEFAULTS, "toast")[0].json["value"]["after"]["big"].as_str().unwrap().to_owned().leak();
    assert_eq!(big.len(), 9600);
    let row = |small: &'static str, big: C| Some(vec![I64(1).into(), text(small).into(), big]);
    let whole = || C::V(Value::Text(Cow::Borrowed(big)));
    let rows = vec![
        (Op::Create, None, row("v1", whole())),
        (Op::Update, None, row("v2", C::Unavailable)),
        (Op::Update, row("v2", whole()), row("v3", C::Unavailable)), // full identity: the old row has it
        (Op::Delete, row("v3", whole()), None),
    ];
    compare(DEFAULTS, &debezium(), &t, rows, &[]);
}

#[test]
fn keys() {
    let t = table("types", "keys", &[("a", Type::I32), ("b", Type::Text), ("v", Type::I32)], &[1, 0]);
    let row = |a, b: &'static str, v| Some(vec![C::V(I64(a)), text(b).into(), I64(v).into()]);
    let old = |a, b: &'static str| Some(vec![C::V(I64(a)), text(b).into(), C::Absent]);
    let rows = vec![
        (Op::Create, None, row(1, "x", 10)),
        (Op::Create, None, row(2, "y", 20)),
        (Op::Update, None, row(1, "x", 11)),
        (Op::Update, old(1, "x"), row(3, "x", 11)),
        (Op::Delete, old(2, "y"), None),
    ];
    compare(DEFAULTS, &debezium(), &t, rows, &[]);
}

#[test]
fn no_key() {
    let t = table("types", "nokey", &[("a", Type::I32), ("b", Type::Text)], &[]);
    let row = |b: &'static str| Some(vec![C::V(I64(1)), text(b).into()]);
    let rows = vec![
        (Op::Create, None, row("one")),
        (Op::Create, None, row("one")),
        (Op::Update, row("one"), row("uno")),
        (Op::Update, row("one"), row("uno")),
        (Op::Delete, row("uno"), None),
        (Op::Delete, row("uno"), None),
    ];
    compare(DEFAULTS, &debezium(), &t, rows, &[]);
}

#[test]
fn names_and_a_schema_that_changes() {
    let t = table("types", "Odd \"Name.s", &[("Id", Type::I32), ("select", Type::I32), ("é à", Type::Text)], &[0]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Create, None, Some(vec![I64(1).into(), I64(21).into(), text("dflt").into()]));
    let out = encode(&debezium(), &rows.done()).unwrap();
    let golden = recorded(DEFAULTS, "Odd__Name.s");
    assert_eq!(out[0].topic, golden[0].json["topic"]);
    let ours: Json = serde_json::from_str(out[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(ours["after"], golden[0].json["value"]["after"]);
    assert_eq!(ours["source"]["table"], golden[0].json["value"]["source"]["table"]);
}

/// The identity is an index that is not the key: Debezium invents the key 0, and so a change of key that there was not.
#[test]
fn identity_without_the_key() {
    let t = table("types", "ident", &[("id", Type::I32), ("code", Type::Text), ("v", Type::I32)], &[0]);
    let row = |code: &'static str, v| Some(vec![C::V(I64(1)), text(code).into(), I64(v).into()]);
    let old = |code: &'static str| Some(vec![C::Absent, text(code).into(), C::Absent]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Create, None, row("c1", 1));
    rows.add(&t, Op::Update, None, row("c1", 2));
    rows.add(&t, Op::Update, old("c1"), row("c2", 2));
    rows.add(&t, Op::Delete, old("c2"), None);
    let out = encode(&debezium(), &rows.done()).unwrap();
    let golden = recorded(DEFAULTS, "ident");
    let theirs: Vec<String> = golden.iter().map(|l| format!("{} {}", l.json["key"], l.json["value"]["op"])).collect();
    let ours: Vec<String> = out
        .iter()
        .map(|o| {
            let value = o.value.as_ref().map_or(Json::Null, |v| serde_json::from_str(v).unwrap());
            format!("{} {}", o.key.as_ref().unwrap(), value["op"])
        })
        .collect();
    let id = |n: &str, op: &str| format!("{{\"id\":{n}}} {op}");
    let (c, u, d) = ("\"c\"", "\"u\"", "\"d\"");
    assert_eq!(theirs, [id("1", c), id("1", u), id("0", d), id("0", "null"), id("1", c), id("0", d), id("0", "null")]);
    assert_eq!(ours, [id("1", c), id("1", u), id("1", u), id("null", d), id("null", "null")]);
}

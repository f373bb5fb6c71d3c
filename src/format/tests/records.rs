//! Which records a change becomes: keys, headers, tombstones, key changes, truncates, messages, transaction metadata.

use super::support::*;
use crate::config::resolved::Topics;
use crate::{
    config::resolved::{Format, Values},
    format::{Encoder, key_hash, resolved_defaults},
    records::Records,
};
use seachange_sdk::{Cell, Kind, Op, TableSchema, Type, Value, batch::TxnEnd};
use std::sync::Arc;

const TAIL: &str = "\"ts_ms\":1800000000111,\"ts_us\":1800000000111222,\"ts_ns\":1800000000111222333}";

fn plain() -> Format {
    resolved_defaults(Values::Plain)
}
fn debezium() -> Format {
    resolved_defaults(Values::Debezium)
}
/// Composite key in an order that is not the column order.
fn keys() -> Arc<TableSchema> {
    table("types", "keys", &[("a", Type::I32), ("b", Type::Text), ("v", Type::I32)], &[1, 0])
}
fn row(a: i64, b: &'static str, v: i64) -> Vec<C> {
    vec![Value::I64(a).into(), text(b).into(), Value::I64(v).into()]
}
fn old_key(a: i64, b: &'static str) -> Vec<C> {
    vec![Value::I64(a).into(), text(b).into(), C::Absent]
}

#[test]
fn one_record_byte_for_byte() {
    let mut rows = Rows::new();
    rows.add(&keys(), Op::Create, None, Some(row(1, "x", 10)));
    let out = encode(&debezium(), &rows.done()).unwrap();
    let source = format!(
        "{{\"version\":\"{}\",\"connector\":\"postgresql\",\"name\":\"dbz\",\"ts_ms\":1700000000123,\"snapshot\":\"false\",\
         \"db\":\"lab\",\"sequence\":\"[\\\"100\\\",\\\"501\\\"]\",\"ts_us\":1700000000123456,\"ts_ns\":1700000000123456000,\
         \"schema\":\"types\",\"table\":\"keys\",\"txId\":7,\"lsn\":501,\"xmin\":null,\"origin\":null,\"origin_lsn\":null}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].topic, "dbz.types.keys");
    assert_eq!(out[0].key.as_deref(), Some("{\"b\":\"x\",\"a\":1}"));
    assert_eq!(
        out[0].value.as_deref().unwrap(),
        format!(
            "{{\"before\":null,\"after\":{{\"a\":1,\"b\":\"x\",\"v\":10}},\"source\":{source},\"transaction\":null,\"op\":\"c\",{TAIL}"
        )
    );
    assert_eq!(out[0].headers, []);
}

#[test]
fn source_of_snapshot_rows_and_of_origins() {
    let mut rows = Rows::new();
    rows.batch.txns[0].id = 0;
    rows.batch.txns[0].prev_commit = 0;
    rows.batch.txns[0].origin = Some("no\"de".into());
    rows.batch.txns[0].origin_at = 77;
    rows.add(&keys(), Op::Read, None, Some(row(1, "x", 10)));
    let out = encode(&Format { transaction: true, ..debezium() }, &rows.done()).unwrap();
    assert_eq!(out.len(), 1, "no BEGIN for what a snapshot reads");
    let v: serde_json::Value = serde_json::from_str(out[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((v["op"].as_str(), v["source"]["snapshot"].as_str()), (Some("r"), Some("true")));
    assert_eq!(v["source"]["sequence"], "[null,\"501\"]");
    assert_eq!(v["source"]["txId"], serde_json::Value::Null);
    assert_eq!((&v["source"]["origin"], &v["source"]["origin_lsn"]), (&"no\"de".into(), &77.into()));
}

#[test]
fn deletes_and_their_tombstones() {
    let mut rows = Rows::new();
    rows.add(&keys(), Op::Delete, Some(old_key(2, "y")), None);
    let batch = rows.done();
    let out = encode(&debezium(), &batch).unwrap();
    let key = Some("{\"b\":\"y\",\"a\":2}");
    assert_eq!(out.len(), 2);
    assert!(out[0].value.as_ref().unwrap().starts_with("{\"before\":{\"a\":2,\"b\":\"y\",\"v\":null},\"after\":null,"));
    assert_eq!((out[1].key.as_deref(), &out[1].value, out[1].headers.len()), (key, &None, 0));

    let out = encode(&plain(), &batch).unwrap();
    assert!(out[0].value.as_ref().unwrap().starts_with("{\"before\":{\"a\":2,\"b\":\"y\"},\"after\":null,"));
    assert_eq!(out[0].headers, [("seachange.absent", "[\"before.v\"]".to_owned())]);
    assert_eq!((out[1].key.as_deref(), &out[1].value, out[1].headers.len()), (key, &None, 0));

    assert_eq!(encode(&Format { tombstones: false, ..plain() }, &batch).unwrap().len(), 1);
}

#[test]
fn without_a_key() {
    let t = table("types", "nokey", &[("a", Type::I32)], &[]);
    let mut rows = Rows::new();
    let one = || Some(vec![Value::I64(1).into()]);
    rows.add(&t, Op::Update, one(), Some(vec![Value::I64(2).into()]));
    rows.add(&t, Op::Delete, one(), None);
    let batch = rows.done();
    let out = encode(&debezium(), &batch).unwrap();
    assert!(out.iter().all(|o| o.key.is_none()));
    assert_eq!(out.len(), 3, "Debezium sends a tombstone without key");
    assert_eq!(encode(&plain(), &batch).unwrap().len(), 2, "which forgets nothing, so plain does not");
}

#[test]
fn a_change_of_the_key_is_delete_and_create() {
    let mut rows = Rows::new();
    rows.add(&keys(), Op::Update, Some(old_key(1, "x")), Some(row(3, "x", 11)));
    let batch = rows.done();
    for format in [debezium(), Format { schemas: true, ..debezium() }] {
        let out = encode(&format, &batch).unwrap();
        assert_eq!(out.len(), 3);
        let newkey = [("__debezium.newkey", "{\"b\":\"x\",\"a\":3}".to_owned())];
        assert!(
            out[0].value.as_ref().unwrap().contains("{\"before\":{\"a\":1,\"b\":\"x\",\"v\":null},\"after\":null,")
        );
        assert!(out[0].value.as_ref().unwrap().contains("\"op\":\"d\""));
        assert_eq!(out[0].headers, newkey);
        assert_eq!((out[1].key == out[0].key, &out[1].value), (true, &None));
        assert_eq!(out[1].headers, newkey);
        assert!(out[2].value.as_ref().unwrap().contains("{\"before\":null,\"after\":{\"a\":3,\"b\":\"x\",\"v\":11},"));
        assert!(out[2].value.as_ref().unwrap().contains("\"op\":\"c\""));
        assert_eq!(out[2].headers, [("__debezium.oldkey", "{\"b\":\"x\",\"a\":1}".to_owned())]);
        assert_ne!(out[2].key, out[0].key);
    }
    // With its value left out under plain: both headers.
    let out = encode(&plain(), &batch).unwrap();
    assert_eq!(out[0].headers.len(), 2);
    assert_eq!(out[0].headers[1], ("seachange.absent", "[\"before.v\"]".to_owned()));
}

#[test]
fn what_is_no_change_of_the_key() {
    // Other bytes, the same value.
    let t = table("s", "n", &[("id", Type::VarDecimal)], &[0]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Update, Some(vec![decimal("1.0").into()]), Some(vec![decimal("1.00").into()]));
    let out = encode(&debezium(), &rows.done()).unwrap();
    assert_eq!(out.len(), 1);
    assert!(out[0].value.as_ref().unwrap().contains("\"op\":\"u\""));
    // An old row under another identity than the key does not have the key.
    let t = table("types", "ident", &[("id", Type::I32), ("code", Type::Text)], &[0]);
    let mut rows = Rows::new();
    let old = || Some(vec![C::Absent, text("c1").into()]);
    rows.add(&t, Op::Update, old(), Some(vec![Value::I64(1).into(), text("c2").into()]));
    rows.add(&t, Op::Delete, old(), None);
    let batch = rows.done();
    let out = encode(&debezium(), &batch).unwrap();
    assert_eq!(out[0].key.as_deref(), Some("{\"id\":1}"));
    assert!(
        out[0]
            .value
            .as_ref()
            .unwrap()
            .starts_with("{\"before\":{\"id\":null,\"code\":\"c1\"},\"after\":{\"id\":1,\"code\":\"c2\"},")
    );
    assert_eq!(out[1].key.as_deref(), Some("{\"id\":null}"), "absent, not 0");
    let out = encode(&plain(), &batch).unwrap();
    assert_eq!(out[0].headers, [("seachange.absent", "[\"before.id\"]".to_owned())]);
    assert_eq!(out[1].headers, [("seachange.absent", "[\"key.id\",\"before.id\"]".to_owned())]);
    assert_eq!(out[1].key.as_deref(), Some("{\"id\":null}"));
}

#[test]
fn unavailable_values_come_from_the_other_image_where_they_can() {
    let t = table("types", "toast", &[("id", Type::Text), ("big \"one\"", Type::Text)], &[0]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Update, None, Some(vec![text("1").into(), C::Unavailable]));
    rows.add(
        &t,
        Op::Update,
        Some(vec![text("1").into(), text("BIG").into()]),
        Some(vec![C::Unavailable, C::Unavailable]),
    );
    let batch = rows.done();
    let out = encode(&debezium(), &batch).unwrap();
    assert!(
        out[0]
            .value
            .as_ref()
            .unwrap()
            .contains("\"after\":{\"id\":\"1\",\"big \\\"one\\\"\":\"__debezium_unavailable_value\"}")
    );
    assert!(out[1].value.as_ref().unwrap().contains("\"after\":{\"id\":\"1\",\"big \\\"one\\\"\":\"BIG\"}"));
    assert_eq!(out[1].key.as_deref(), Some("{\"id\":\"1\"}"));
    let out = encode(&plain(), &batch).unwrap();
    assert!(out[0].value.as_ref().unwrap().contains("\"after\":{\"id\":\"1\"},"));
    assert_eq!(out[0].headers, [("seachange.absent", "[\"after.big \\\"one\\\"\"]".to_owned())]);
    assert_eq!(out[1].headers, []);
}

#[test]
fn the_first_column_left_out_leaves_no_comma() {
    let t = table("s", "t", &[("a", Type::Text), ("b", Type::Text)], &[]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Update, None, Some(vec![C::Unavailable, text("x").into()]));
    rows.add(&t, Op::Update, None, Some(vec![C::Unavailable, C::Unavailable]));
    let out = encode(&plain(), &rows.done()).unwrap();
    assert!(out[0].value.as_ref().unwrap().contains("\"after\":{\"b\":\"x\"},"));
    assert!(out[1].value.as_ref().unwrap().contains("\"after\":{},"));
}

#[test]
fn truncates() {
    let mut rows = Rows::new();
    rows.add(&keys(), Op::Truncate, None, None);
    let out = encode(&debezium(), &rows.done()).unwrap();
    assert_eq!((out.len(), &out[0].key), (1, &None));
    let value = out[0].value.as_ref().unwrap();
    assert!(value.starts_with("{\"before\":null,\"after\":null,\"source\":{"));
    assert!(value.ends_with(&format!("\"transaction\":null,\"op\":\"t\",{TAIL}")));
}

#[test]
fn messages_beside_tables() {
    let mut rows = Rows::new();
    rows.add(&messages(), Op::Message, None, Some(vec![text("pre\"fix").into(), bytes(b"abc").into()]));
    let batch = rows.done();
    let out = encode(&debezium(), &batch).unwrap();
    assert_eq!((out.len(), out[0].topic.as_str()), (1, "dbz.message"));
    assert_eq!(out[0].key.as_deref(), Some("{\"prefix\":\"pre\\\"fix\"}"));
    let value = out[0].value.as_ref().unwrap();
    assert!(value.starts_with("{\"op\":\"m\",\"ts_ms\":1800000000111,\"source\":{\"version\""), "{value}");
    assert!(value.ends_with(",\"message\":{\"prefix\":\"pre\\\"fix\",\"content\":\"YWJj\"}}"), "{value}");
    for schemas in [false, true] {
        let out = encode(&Format { transaction: true, schemas, ..debezium() }, &batch).unwrap();
        let v: serde_json::Value = serde_json::from_str(out[1].value.as_ref().unwrap()).unwrap();
        let v = if schemas { &v["payload"] } else { &v };
        assert_eq!(v["transaction"]["id"], "7:900");
    }
}

#[test]
fn transaction_metadata() {
    let t = keys();
    let mut rows = Rows::new();
    rows.batch.txns[0].begins = false; // it began in an earlier batch, and has no change in this one
    rows.batch.txns[0].ends = Some(TxnEnd { changes: 5, tables: vec![(0, 5)] });
    rows.batch.txns.push(txn(8));
    rows.add(&t, Op::Create, None, Some(row(1, "x", 1)));
    rows.add(&messages(), Op::Message, None, Some(vec![text("p").into(), bytes(b"").into()]));
    rows.batch.txns[1].ends = Some(TxnEnd { changes: 2, tables: vec![(0, 1), (1, 1)] });
    rows.batch.txns.push(txn(9));
    rows.batch.txns[2].gtid = Some("3E11FA47:23".into());
    rows.add(&t, Op::Create, None, Some(row(2, "x", 1))); // goes on in a later batch
    rows.batch.txns.push(txn(10));
    rows.batch.txns[3].ends = Some(TxnEnd::default()); // nothing captured
    let out = encode(&Format { transaction: true, ..debezium() }, &rows.done()).unwrap();
    let told: Vec<(String, String)> = out
        .iter()
        .map(|o| {
            let v: serde_json::Value = serde_json::from_str(o.value.as_ref().unwrap()).unwrap();
            let what = v.get("status").or_else(|| v.get("op")).unwrap().as_str().unwrap().to_owned();
            let id = v.get("id").unwrap_or(&v["transaction"]["id"]).as_str().unwrap().to_owned();
            (what, id)
        })
        .collect();
    let want = [
        ("END", "7:900"),
        ("BEGIN", "8:900"),
        ("c", "8:900"),
        ("m", "8:900"),
        ("END", "8:900"),
        ("BEGIN", "3E11FA47:23"),
        ("c", "3E11FA47:23"),
    ];
    assert_eq!(told, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(out[1].topic, "dbz.transaction");
    assert_eq!(out[1].key.as_deref(), Some("{\"id\":\"8:900\"}"));
    assert_eq!(
        out[1].value.as_deref().unwrap(),
        "{\"status\":\"BEGIN\",\"id\":\"8:900\",\"event_count\":null,\"data_collections\":null,\"ts_ms\":1700000000123}"
    );
    assert_eq!(
        out[4].value.as_deref().unwrap(),
        "{\"status\":\"END\",\"id\":\"8:900\",\"event_count\":2,\"data_collections\":[{\"data_collection\":\"types.keys\",\
         \"event_count\":1},{\"data_collection\":\"LOGICAL_DECODING_MESSAGE\",\"event_count\":1}],\"ts_ms\":1700000000123}"
    );
    assert!(
        out[2]
            .value
            .as_ref()
            .unwrap()
            .contains("\"transaction\":{\"id\":\"8:900\",\"total_order\":1,\"data_collection_order\":1},\"op\":\"c\"")
    );
}

#[test]
fn errors_name_the_place_and_no_value() {
    let mut rows = Rows::new();
    let mut bad = row(1, "x", 10);
    bad[1] = C::V(decimal("secret"));
    rows.add(&keys(), Op::Create, None, Some(bad));
    let e = encode(&debezium(), &rows.done()).unwrap_err();
    assert_eq!(e.kind(), Kind::Value);
    assert_eq!(e.what(), "table types.keys, column b (test), op c at 501: a decimal that is not digits");
    assert!(!format!("{e:?}").contains("secret"));
}

#[test]
fn broken_batches_are_errors_not_panics() {
    let good = || {
        let mut rows = Rows::new();
        rows.add(&keys(), Op::Create, None, Some(row(1, "x", 10)));
        rows.done()
    };
    let mut broken = Vec::new();
    for i in 0..7 {
        let mut b = good();
        match i {
            0 => b.changes[0].table = 9,
            1 => b.changes[0].txn = 9,
            2 => b.changes[0].chunk = 9,
            3 => b.changes[0].after.start = 900,
            4 => b.changes[0].after.len = 2,
            5 => b.cells[0] = Cell::at(900, 5),
            _ => b.changes[0].op = Op::Message,
        }
        broken.push(b);
    }
    for b in broken {
        assert_eq!(encode(&debezium(), &b).unwrap_err().kind(), Kind::Bug);
    }
}

#[test]
fn counts_and_plans_over_many_batches() {
    let mut encoder = Encoder::new("p", "lab", &plain(), &Topics::default()).unwrap();
    let mut records = Records::default();
    let mut bytes = 0;
    for i in 0..3000 {
        // A new schema object every time, as snapshot chunks may bring.
        let mut rows = Rows::new();
        rows.add(&keys(), Op::Update, Some(row(1, "x", i)), Some(row(2, "x", i)));
        rows.add(&keys(), Op::Delete, Some(row(1, "x", i)), None);
        encoder.encode(&rows.done(), NOW, &mut records).unwrap();
        bytes += records.buf.len() as u64;
        records.clear();
    }
    let (mut updates, mut deletes, mut seen) = (0, 0, 0);
    encoder.drain_counts(&mut |id, counts, b| {
        assert_eq!(id.to_string(), "types.keys");
        updates += counts[Op::Update as usize];
        deletes += counts[Op::Delete as usize];
        seen += b;
    });
    assert_eq!((updates, deletes, seen), (3000, 3000, bytes));
    encoder.drain_counts(&mut |_, _, _| panic!("drained"));
}

#[test]
fn key_hashes() {
    let t = keys();
    let hash = |cells: Vec<C>| {
        let mut rows = Rows::new();
        rows.add(&t, Op::Create, None, Some(cells));
        let batch = rows.done();
        key_hash(&t, &batch.cells, &batch.chunks[0], &mut Vec::new()).unwrap()
    };
    let one = hash(row(1, "x", 1));
    assert!(one.is_some());
    assert_eq!(one, hash(row(1, "x", 2)), "only the key counts");
    assert_eq!(one, hash(vec![Value::U64(1).into(), text("x").into(), C::Absent]));
    assert_ne!(one, hash(row(2, "x", 1)));
    assert_eq!(hash(vec![C::Absent, text("x").into(), C::Null]), None);
    assert_eq!(hash(vec![C::Unavailable, text("x").into(), C::Null]), None);
    let keyless = table("s", "t", &[("a", Type::I32)], &[]);
    assert_eq!(key_hash(&keyless, &[Cell::NULL], b"", &mut Vec::new()).unwrap(), None);
}

#[test]
fn statements_that_change_tables() {
    let changes = r#"[{"type":"DROP","id":"\"lab\".\"t\"","table":null}]"#;
    let batch = statement(["l\"ab", "DROP TABLE t /* \"why\" */", changes]);
    let format = resolved_defaults(Values::Plain);
    let got = encode(&format, &batch).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].topic, "dbz");
    assert_eq!(got[0].key.as_deref(), Some(r#"{"databaseName":"l\"ab"}"#));
    let value: serde_json::Value = serde_json::from_str(got[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(value["ddl"], "DROP TABLE t /* \"why\" */");
    assert_eq!(value["tableChanges"][0]["id"], "\"lab\".\"t\"");
    assert_eq!((&value["source"]["table"], &value["schemaName"]), (&"t".into(), &serde_json::Value::Null));
    let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = ["source", "ts_ms", "databaseName", "schemaName", "ddl", "tableChanges"];
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    // not counted as a transaction's, and not written where nobody wants them
    assert_eq!(encode(&Format { transaction: true, ..format.clone() }, &batch).unwrap().len(), 1);
    assert!(encode(&Format { schema_changes: false, ..format.clone() }, &batch).unwrap().is_empty());
    let with = encode(&Format { schemas: true, ..format }, &batch).unwrap();
    let value: serde_json::Value = serde_json::from_str(with[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(value["schema"]["name"], "io.debezium.connector.postgresql.SchemaChangeValue");
    let fields = value["schema"]["fields"].as_array().unwrap();
    let field = |i: usize| fields[i]["field"].as_str().unwrap();
    let written: Vec<&str> = (0..fields.len()).map(field).collect();
    assert_eq!(written, ["source", "ts_ms", "databaseName", "schemaName", "ddl", "tableChanges"]);
}

//! Kafka Connect's `schema` beside the payload.

use super::support::*;
use crate::{
    config::resolved::{Format, TimeMode, Values},
    format::resolved_defaults,
};
use seachange_sdk::{Op, Type, Value};

fn field(format: &Format, ty: Type) -> String {
    let t = table("s", "t", &[("v", ty)], &[]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Create, None, Some(vec![C::Null]));
    let out = encode(&Format { schemas: true, ..format.clone() }, &rows.done()).unwrap();
    let value = out[0].value.clone().unwrap();
    let start = "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"struct\",\"fields\":[";
    let rest = value.strip_prefix(start).unwrap();
    rest[..rest.find("],\"optional\":true,\"name\":\"dbz.s.t.Value\",\"field\":\"before\"}").unwrap()].to_owned()
}

#[test]
fn of_each_type() {
    let d = resolved_defaults(Values::Debezium);
    let p = resolved_defaults(Values::Plain);
    let named = |ty: &str, name: &str| {
        format!("{{\"type\":\"{ty}\",\"optional\":true,\"name\":\"{name}\",\"version\":1,\"field\":\"v\"}}")
    };
    let bare = |ty: &str| format!("{{\"type\":\"{ty}\",\"optional\":true,\"field\":\"v\"}}");
    let connect = Format { time: TimeMode::Connect, ..d.clone() };
    let iso = Format { time: TimeMode::IsoString, ..d.clone() };
    let nanos = Format { time: TimeMode::Nanos, ..d.clone() };
    for (format, ty, want) in [
        (&d, Type::Bool, bare("boolean")),
        (&d, Type::I16, bare("int16")),
        (&d, Type::F32, bare("float")),
        (&d, Type::F64, bare("double")),
        (&d, Type::Bytes, bare("bytes")),
        (&d, Type::Bit1, bare("boolean")),
        (&d, Type::Json, named("string", "io.debezium.data.Json")),
        (&d, Type::Uuid, named("string", "io.debezium.data.Uuid")),
        (&d, Type::Date, named("int32", "io.debezium.time.Date")),
        (&d, Type::Time(3), named("int32", "io.debezium.time.Time")),
        (&d, Type::Time(6), named("int64", "io.debezium.time.MicroTime")),
        (&d, Type::Timestamp(3), named("int64", "io.debezium.time.Timestamp")),
        (&d, Type::Timestamp(6), named("int64", "io.debezium.time.MicroTimestamp")),
        (&d, Type::TimestampTz(6), named("string", "io.debezium.time.ZonedTimestamp")),
        (&d, Type::TimeTz, named("string", "io.debezium.time.ZonedTime")),
        (&d, Type::Interval, named("int64", "io.debezium.time.MicroDuration")),
        (&d, Type::Map, named("string", "io.debezium.data.Json")),
        (&connect, Type::Timestamp(6), named("int64", "org.apache.kafka.connect.data.Timestamp")),
        (&connect, Type::Date, named("int32", "org.apache.kafka.connect.data.Date")),
        (&iso, Type::Timestamp(6), named("string", "io.debezium.time.IsoTimestamp")),
        (&nanos, Type::Time(0), named("int64", "io.debezium.time.NanoTime")),
        (&p, Type::Date, bare("string")),
        (&p, Type::VarDecimal, bare("string")),
        (&p, Type::Bits(Some(8)), bare("string")),
    ] {
        assert_eq!(field(format, ty.clone()), want, "{ty:?}");
    }
    assert_eq!(
        field(&d, Type::Decimal { precision: 5, scale: 2 }),
        "{\"type\":\"bytes\",\"optional\":true,\"name\":\"org.apache.kafka.connect.data.Decimal\",\"version\":1,\
         \"parameters\":{\"scale\":\"2\",\"connect.decimal.precision\":\"5\"},\"field\":\"v\"}"
    );
    assert_eq!(
        field(&d, Type::VarDecimal),
        "{\"type\":\"struct\",\"fields\":[{\"type\":\"int32\",\"optional\":false,\"field\":\"scale\"},\
         {\"type\":\"bytes\",\"optional\":false,\"field\":\"value\"}],\"optional\":true,\
         \"name\":\"io.debezium.data.VariableScaleDecimal\",\"version\":1,\"doc\":\"Variable scaled decimal\",\"field\":\"v\"}"
    );
    assert_eq!(
        field(&d, Type::Enum(["sad".into(), "très heureux".into()].into())),
        "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1,\
         \"parameters\":{\"allowed\":\"sad,très heureux\"},\"field\":\"v\"}"
    );
    assert_eq!(
        field(&d, Type::Array(Box::new(Type::Date))),
        "{\"type\":\"array\",\"items\":{\"type\":\"int32\",\"optional\":true,\"name\":\"io.debezium.time.Date\",\
         \"version\":1},\"optional\":true,\"field\":\"v\"}"
    );
    assert_eq!(
        field(&p, Type::Map),
        "{\"type\":\"map\",\"keys\":{\"type\":\"string\",\"optional\":false},\"values\":{\"type\":\"string\",\
         \"optional\":true},\"optional\":true,\"field\":\"v\"}"
    );
}

#[test]
fn of_envelope_and_key() {
    let t = table("s", "t", &[("id", Type::I32), ("v", Type::Text)], &[0]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Delete, Some(vec![Value::I64(1).into(), C::Absent]), None);
    rows.add(&messages(), Op::Message, None, Some(vec![text("p").into(), bytes(b"c").into()]));
    rows.batch.txns[0].ends = Some(seachange_sdk::batch::TxnEnd { changes: 2, tables: vec![(0, 1), (1, 1)] });
    let format = Format { schemas: true, transaction: true, ..resolved_defaults(Values::Debezium) };
    let out = encode(&format, &rows.done()).unwrap();
    assert_eq!(
        out[1].key.as_deref().unwrap(),
        "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"int32\",\"optional\":false,\"field\":\"id\"}],\
         \"optional\":false,\"name\":\"dbz.s.t.Key\"},\"payload\":{\"id\":1}}"
    );
    let value: serde_json::Value = serde_json::from_str(out[1].value.as_ref().unwrap()).unwrap();
    let schema = &value["schema"];
    assert_eq!((&schema["name"], &schema["version"]), (&"dbz.s.t.Envelope".into(), &2.into()));
    // Every schema's fields are the payload's fields, in the same order as far as the payload goes.
    for o in &out {
        for part in [o.key.as_ref(), o.value.as_ref()].into_iter().flatten() {
            let json: serde_json::Value = serde_json::from_str(part).unwrap();
            matches_schema(&json["schema"], &json["payload"]);
        }
    }
    let fields: Vec<&str> = schema["fields"].as_array().unwrap().iter().map(|f| f["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"]);
    let source = &schema["fields"][2];
    assert_eq!(source["name"], "io.debezium.connector.postgresql.Source");
    assert_eq!(source["fields"][4]["default"], "false");
}

/// A reader that checks as strictly as Connect's JsonConverter does.
fn matches_schema(schema: &serde_json::Value, payload: &serde_json::Value) {
    if payload.is_null() {
        assert_eq!(schema["optional"], true, "{schema} is null");
        return;
    }
    match schema["type"].as_str().unwrap() {
        "struct" => {
            let fields = schema["fields"].as_array().unwrap();
            assert_eq!(fields.len(), payload.as_object().unwrap().len(), "{schema}");
            for f in fields {
                matches_schema(f, &payload[f["field"].as_str().unwrap()]);
            }
        }
        "array" => payload.as_array().unwrap().iter().for_each(|p| matches_schema(&schema["items"], p)),
        "string" | "bytes" => assert!(payload.is_string(), "{schema} {payload}"),
        "int16" | "int32" | "int64" => assert!(payload.is_i64(), "{schema} {payload}"),
        other => panic!("{other}"),
    }
}

//! The `schema` beside every `payload`: what Kafka Connect's JsonConverter writes with `schemas.enable`, rendered once a table.
//!
//! Names and versions are Debezium's, so that a sink that knows `io.debezium.time.MicroTimestamp` knows ours. A field is
//! optional wherever a record may really hold null or leave it out: in `before` always (an old row may hold its key alone),
//! elsewhere where the column is nullable. Required fields that then come as null would stop every consumer that checks.

use super::{
    json,
    values::{Style, Unit},
};
use crate::config::resolved::{BinaryMode, DecimalMode, Format, IntervalMode, MapMode, TimeMode, Values};
use seachange_sdk::{Column, SourceLayout, SourceValue, TableSchema, Type};

/// One schema, without `optional` and `field`.
struct Kind {
    /// The start: `"type":"int32"`, or a type with its items, keys, values, fields.
    head: String,
    name: Option<&'static str>,
    version: Option<u32>,
    doc: Option<&'static str>,
    parameters: Vec<(&'static str, String)>,
    default: Option<&'static str>,
}

impl Kind {
    fn of(ty: &str) -> Kind {
        Kind {
            head: format!("\"type\":\"{ty}\""),
            name: None,
            version: None,
            doc: None,
            parameters: Vec::new(),
            default: None,
        }
    }
    fn named(ty: &str, name: &'static str) -> Kind {
        Kind { name: Some(name), version: Some(1), ..Kind::of(ty) }
    }
    fn with(mut self, key: &'static str, value: impl ToString) -> Kind {
        self.parameters.push((key, value.to_string()));
        self
    }
    fn render(&self, optional: bool, field: Option<&str>) -> String {
        let mut out = format!("{{{},\"optional\":{optional}", self.head);
        if let Some(name) = self.name {
            out += &format!(",\"name\":{}", quote(name));
        }
        if let Some(version) = self.version {
            out += &format!(",\"version\":{version}");
        }
        if let Some(doc) = self.doc {
            out += &format!(",\"doc\":{}", quote(doc));
        }
        if !self.parameters.is_empty() {
            let list: Vec<String> = self.parameters.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
            out += &format!(",\"parameters\":{{{}}}", list.join(","));
        }
        if let Some(default) = self.default {
            out += &format!(",\"default\":{}", quote(default));
        }
        if let Some(field) = field {
            out += &format!(",\"field\":{}", quote(field));
        }
        out.push('}');
        out
    }
}

fn quote(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

fn labels(labels: &[std::sync::Arc<str>]) -> String {
    labels.join(",")
}

fn struct_of(
    fields: &[String],
    optional: bool,
    name: Option<&str>,
    version: Option<u32>,
    field: Option<&str>,
) -> String {
    let mut out = format!("{{\"type\":\"struct\",\"fields\":[{}],\"optional\":{optional}", fields.join(","));
    if let Some(name) = name {
        out += &format!(",\"name\":{}", quote(name));
    }
    if let Some(version) = version {
        out += &format!(",\"version\":{version}");
    }
    if let Some(field) = field {
        out += &format!(",\"field\":{}", quote(field));
    }
    out.push('}');
    out
}

fn decimal(format: &Format, fixed: Option<(Option<u32>, i32)>) -> Kind {
    match (format.decimal, fixed) {
        (DecimalMode::String, _) => Kind::of("string"),
        (DecimalMode::Double, _) => Kind::of("double"),
        (DecimalMode::Precise, Some((precision, scale))) => {
            let kind = Kind::named("bytes", "org.apache.kafka.connect.data.Decimal").with("scale", scale);
            match precision {
                Some(p) => kind.with("connect.decimal.precision", p),
                None => kind,
            }
        }
        (DecimalMode::Precise, None) => {
            let fields =
                [Kind::of("int32").render(false, Some("scale")), Kind::of("bytes").render(false, Some("value"))];
            Kind {
                head: format!("\"type\":\"struct\",\"fields\":[{}]", fields.join(",")),
                doc: Some("Variable scaled decimal"),
                ..Kind::named("struct", "io.debezium.data.VariableScaleDecimal")
            }
        }
    }
}

fn kind(ty: &Type, type_name: &str, format: &Format) -> Kind {
    let debezium = format.values == Values::Debezium;
    match ty {
        Type::Bool | Type::Bit1 => Kind::of("boolean"),
        Type::I16 => Kind::of("int16"),
        Type::I32 => Kind::of("int32"),
        Type::I64 | Type::U64 => Kind::of("int64"),
        Type::F32 => Kind::of("float"),
        Type::F64 => Kind::of("double"),
        Type::Decimal { precision, scale } => decimal(format, Some((Some(*precision), *scale))),
        Type::Money(digits) => decimal(format, Some((None, *digits as i32))),
        Type::VarDecimal => decimal(format, None),
        Type::Text => Kind::of("string"),
        Type::Json => Kind::named("string", "io.debezium.data.Json"),
        Type::Xml => Kind::named("string", "io.debezium.data.Xml"),
        Type::Uuid => Kind::named("string", "io.debezium.data.Uuid"),
        Type::Enum(l) => Kind::named("string", "io.debezium.data.Enum").with("allowed", labels(l)),
        Type::Set(l) => Kind::named("string", "io.debezium.data.EnumSet").with("allowed", labels(l)),
        Type::Ltree => Kind::named("string", "io.debezium.data.Ltree"),
        Type::Bytes if format.binary == BinaryMode::Base64 => Kind::of("bytes"),
        Type::Bytes => Kind::of("string"),
        Type::Bits(n) if debezium => {
            Kind::named("bytes", "io.debezium.data.Bits").with("length", n.unwrap_or(i32::MAX as u32))
        }
        Type::Bits(_) => Kind::of("string"),
        Type::Date => match format.time {
            TimeMode::Iso => Kind::of("string"),
            TimeMode::IsoString => Kind::named("string", "io.debezium.time.IsoDate"),
            TimeMode::Connect => Kind::named("int32", "org.apache.kafka.connect.data.Date"),
            _ => Kind::named("int32", "io.debezium.time.Date"),
        },
        Type::Time(p) => match (format.time, Style::unit(format.time, *p, true)) {
            (TimeMode::Connect, _) => Kind::named("int32", "org.apache.kafka.connect.data.Time"),
            (_, Some(Unit::Millis)) => Kind::named("int32", "io.debezium.time.Time"),
            (_, Some(Unit::Micros)) => Kind::named("int64", "io.debezium.time.MicroTime"),
            (_, Some(Unit::Nanos)) => Kind::named("int64", "io.debezium.time.NanoTime"),
            (TimeMode::IsoString, None) => Kind::named("string", "io.debezium.time.IsoTime"),
            (_, None) => Kind::of("string"),
        },
        Type::Timestamp(p) => match (format.time, Style::unit(format.time, *p, false)) {
            (TimeMode::Connect, _) => Kind::named("int64", "org.apache.kafka.connect.data.Timestamp"),
            (_, Some(Unit::Millis)) => Kind::named("int64", "io.debezium.time.Timestamp"),
            (_, Some(Unit::Micros)) => Kind::named("int64", "io.debezium.time.MicroTimestamp"),
            (_, Some(Unit::Nanos)) => Kind::named("int64", "io.debezium.time.NanoTimestamp"),
            (TimeMode::IsoString, None) => Kind::named("string", "io.debezium.time.IsoTimestamp"),
            (_, None) => Kind::of("string"),
        },
        Type::TimeTz if format.time == TimeMode::Iso => Kind::of("string"),
        Type::TimeTz => Kind::named("string", "io.debezium.time.ZonedTime"),
        Type::TimestampTz(_) if format.time == TimeMode::Iso => Kind::of("string"),
        Type::TimestampTz(_) => Kind::named("string", "io.debezium.time.ZonedTimestamp"),
        Type::Interval => match format.interval {
            IntervalMode::Iso => Kind::of("string"),
            IntervalMode::Numeric => Kind::named("int64", "io.debezium.time.MicroDuration"),
            IntervalMode::String => Kind::named("string", "io.debezium.time.Interval"),
        },
        Type::Year => Kind::named("int32", "io.debezium.time.Year"),
        Type::Point => {
            let mut fields =
                vec![Kind::of("double").render(false, Some("x")), Kind::of("double").render(false, Some("y"))];
            if debezium {
                fields.push(Kind::of("bytes").render(true, Some("wkb")));
                fields.push(Kind::of("int32").render(true, Some("srid")));
            }
            let head = format!("\"type\":\"struct\",\"fields\":[{}]", fields.join(","));
            if debezium {
                let point = Kind::named("struct", "io.debezium.data.geometry.Point");
                Kind { head, doc: Some("Geometry (POINT)"), ..point }
            } else {
                Kind { head, ..Kind::of("struct") }
            }
        }
        Type::Geometry(point) => {
            let mut fields = Vec::new();
            if *point {
                fields.push(Kind::of("double").render(false, Some("x")));
                fields.push(Kind::of("double").render(false, Some("y")));
            }
            fields.push(Kind::of("bytes").render(false, Some("wkb")));
            fields.push(Kind::of("int32").render(true, Some("srid")));
            let (name, doc) = if *point {
                ("io.debezium.data.geometry.Point", "Geometry (POINT)")
            } else {
                ("io.debezium.data.geometry.Geometry", "Geometry")
            };
            let head = format!("\"type\":\"struct\",\"fields\":[{}]", fields.join(","));
            Kind { head, doc: Some(doc), ..Kind::named("struct", name) }
        }
        Type::Map if format.hstore == MapMode::Json => Kind::named("string", "io.debezium.data.Json"),
        Type::Map => {
            let (key, value) = (Kind::of("string").render(false, None), Kind::of("string").render(true, None));
            Kind { head: format!("\"type\":\"map\",\"keys\":{key},\"values\":{value}"), ..Kind::of("map") }
        }
        Type::Array(element) => {
            let items = kind(element, "", format).render(true, None);
            Kind { head: format!("\"type\":\"array\",\"items\":{items}"), ..Kind::of("array") }
        }
        Type::Other if type_name == "tsvector" => Kind::named("string", "io.debezium.data.TsVector"),
        Type::Other => Kind::of("string"),
    }
}

/// Who may be null.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    /// Nullable columns.
    Nullable,
    /// Every column outside the key.
    Rest,
    /// Every column.
    All,
}

fn row(schema: &TableSchema, format: &Format, nulls: Nulls, topic: &str, field: &str) -> String {
    let fields: Vec<String> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let key = schema.key.contains(&(i as u32));
            let optional = c.nullable || nulls == Nulls::All || (nulls == Nulls::Rest && !key);
            column(c, format, optional)
        })
        .collect();
    struct_of(&fields, true, Some(&format!("{topic}.Value")), None, Some(field))
}

fn column(c: &Column, format: &Format, optional: bool) -> String {
    kind(&c.ty, &c.type_name, format).render(optional, Some(&c.name))
}

/// The schema of the `source` block.
fn source(layout: &SourceLayout) -> String {
    let fields: Vec<String> = layout
        .fields
        .iter()
        .map(|f| {
            let (kind, optional) = match f.value {
                SourceValue::Version
                | SourceValue::Connector
                | SourceValue::Name
                | SourceValue::Database
                | SourceValue::Schema
                | SourceValue::Table => (Kind::of("string"), false),
                SourceValue::TsMs => (Kind::of("int64"), false),
                SourceValue::TsUs
                | SourceValue::TsNs
                | SourceValue::TxnId
                | SourceValue::At
                | SourceValue::OriginAt => (Kind::of("int64"), true),
                SourceValue::Snapshot => {
                    let allowed = "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental";
                    let kind = Kind::named("string", "io.debezium.data.Enum").with("allowed", allowed);
                    (Kind { default: Some("false"), ..kind }, true)
                }
                SourceValue::LsnSequence | SourceValue::Origin | SourceValue::Gtid => (Kind::of("string"), true),
                SourceValue::ServerId => (Kind::of("int64"), false),
                SourceValue::File => (Kind::of("string"), false),
                SourceValue::Row => (Kind::of("int32"), false),
                SourceValue::Thread => (Kind::of("int64"), true),
                SourceValue::Null => (Kind::of("int64"), true),
            };
            kind.render(optional, Some(f.name))
        })
        .collect();
    let name = format!("io.debezium.connector.{}.Source", layout.connector);
    struct_of(&fields, false, Some(&name), Some(1), Some("source"))
}

fn transaction_block() -> String {
    let fields = [
        Kind::of("string").render(false, Some("id")),
        Kind::of("int64").render(false, Some("total_order")),
        Kind::of("int64").render(false, Some("data_collection_order")),
    ];
    struct_of(&fields, true, Some("event.block"), Some(1), Some("transaction"))
}

/// The schema of a change's value.
pub fn envelope(schema: &TableSchema, format: &Format, topic: &str) -> String {
    // Under `plain`, a value that the log does not carry is left out of `after` too.
    let after = if format.values == Values::Plain { Nulls::Rest } else { Nulls::Nullable };
    let fields = [
        row(schema, format, Nulls::All, topic, "before"),
        row(schema, format, after, topic, "after"),
        source(&schema.layout),
        transaction_block(),
        Kind::of("string").render(false, Some("op")),
        Kind::of("int64").render(true, Some("ts_ms")),
        Kind::of("int64").render(true, Some("ts_us")),
        Kind::of("int64").render(true, Some("ts_ns")),
    ];
    struct_of(&fields, false, Some(&format!("{topic}.Envelope")), Some(2), None)
}

/// The schema of a change's key.
pub fn key(schema: &TableSchema, format: &Format, topic: &str) -> String {
    let columns = schema.key.iter().filter_map(|i| schema.columns.get(*i as usize));
    let fields: Vec<String> = columns.map(|c| column(c, format, c.nullable)).collect();
    struct_of(&fields, false, Some(&format!("{topic}.Key")), None, None)
}

/// The schema of a message's key.
pub fn message_key(layout: &SourceLayout) -> String {
    let fields = [Kind::of("string").render(true, Some("prefix"))];
    let name = format!("io.debezium.connector.{}.MessageKey", layout.connector);
    struct_of(&fields, false, Some(&name), Some(1), None)
}

/// The schema of a message's value.
pub fn message(layout: &SourceLayout, format: &Format) -> String {
    let content = kind(&Type::Bytes, "", format).render(true, Some("content"));
    let block = [Kind::of("string").render(true, Some("prefix")), content];
    let name = |last: &str| format!("io.debezium.connector.{}.{last}", layout.connector);
    let mut fields = vec![
        Kind::of("string").render(false, Some("op")),
        Kind::of("int64").render(true, Some("ts_ms")),
        source(layout),
        struct_of(&block, false, Some(&name("Message")), Some(1), Some("message")),
    ];
    if format.transaction {
        fields.push(transaction_block());
    }
    struct_of(&fields, false, Some(&name("MessageValue")), Some(1), None)
}

/// The schema of the key of a statement.
pub fn statement_key(layout: &SourceLayout) -> String {
    let fields = [Kind::of("string").render(false, Some("databaseName"))];
    let name = format!("io.debezium.connector.{}.SchemaChangeKey", layout.connector);
    struct_of(&fields, false, Some(&name), Some(1), None)
}

/// The schema of the value of a statement.
pub fn statement(layout: &SourceLayout) -> String {
    let list = |items: String| Kind { head: format!("\"type\":\"array\",\"items\":{items}"), ..Kind::of("array") };
    let field = |ty: &str, optional: bool, name: &str| Kind::of(ty).render(optional, Some(name));
    let names = |name: &str| list(Kind::of("string").render(false, None)).render(true, Some(name));
    let of = |last: &str| format!("io.debezium.connector.schema.{last}");
    let columns = [
        field("string", false, "name"),
        field("int32", false, "jdbcType"),
        field("int32", true, "nativeType"),
        field("string", false, "typeName"),
        field("string", true, "typeExpression"),
        field("string", true, "charsetName"),
        field("int32", true, "length"),
        field("int32", true, "scale"),
        field("int32", false, "position"),
        field("boolean", true, "optional"),
        field("boolean", true, "autoIncremented"),
        field("boolean", true, "generated"),
        field("string", true, "comment"),
        field("string", true, "defaultValueExpression"),
        names("enumValues"),
    ];
    let column = struct_of(&columns, false, Some(&of("Column")), Some(1), None);
    let table = [
        field("string", true, "defaultCharsetName"),
        names("primaryKeyColumnNames"),
        list(column).render(false, Some("columns")),
        field("string", true, "comment"),
    ];
    let change = [
        field("string", false, "type"),
        field("string", false, "id"),
        struct_of(&table, true, Some(&of("Table")), Some(1), Some("table")),
    ];
    let fields = [
        source(layout),
        field("int64", false, "ts_ms"),
        field("string", true, "databaseName"),
        field("string", true, "schemaName"),
        field("string", true, "ddl"),
        list(struct_of(&change, false, Some(&of("Change")), Some(1), None)).render(false, Some("tableChanges")),
    ];
    let name = format!("io.debezium.connector.{}.SchemaChangeValue", layout.connector);
    struct_of(&fields, false, Some(&name), Some(1), None)
}

/// The schema of the key of transaction metadata.
pub fn transaction_key() -> String {
    let fields = [Kind::of("string").render(false, Some("id"))];
    struct_of(&fields, false, Some("io.debezium.connector.common.TransactionMetadataKey"), Some(1), None)
}

/// The schema of transaction metadata.
pub fn transaction_value() -> String {
    let counts = [
        Kind::of("string").render(false, Some("data_collection")),
        Kind::of("int64").render(false, Some("event_count")),
    ];
    let items = struct_of(&counts, true, Some("event.collection"), Some(1), None);
    let collections = Kind { head: format!("\"type\":\"array\",\"items\":{items}"), ..Kind::of("array") };
    let fields = [
        Kind::of("string").render(false, Some("status")),
        Kind::of("string").render(false, Some("id")),
        Kind::of("int64").render(true, Some("event_count")),
        collections.render(true, Some("data_collections")),
        Kind::of("int64").render(false, Some("ts_ms")),
    ];
    struct_of(&fields, false, Some("io.debezium.connector.common.TransactionMetadataValue"), Some(1), None)
}

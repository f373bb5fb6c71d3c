//! Statements that changed captured tables, as records: Debezium's schema change events.
//!
//! A statement is one change, beside its transaction's rows and not counted among them; but it is counted among what was
//! delivered of a transaction, so that it comes once even where rows follow it (CREATE TABLE ... SELECT).

use super::Assembler;
use crate::{charset::Charset, columns::CatalogTable, decode, history::Name, jsonb, statement::Text};
use seachange_sdk::{
    Batch, Cell, Change, Column, Decoder, Op, Param, SourceLayout, Span, TableId, TableKind, TableSchema, Type,
};
use std::{fmt::Write, sync::Arc};

/// Stands in the place of a schema, so that a statement about a table is not taken for a change of it.
const SCHEMA: &str = "schema-changes";

/// What became of one captured table.
pub(crate) struct Became {
    /// Its name.
    pub(crate) name: Name,
    /// `CREATE`, `ALTER` or `DROP`.
    pub(crate) how: &'static str,
    /// Its columns, where there are any and they are known.
    pub(crate) table: Option<CatalogTable>,
}

impl Assembler {
    /// Delivers a statement of the open group, unless it was delivered before.
    pub(super) fn tell(&mut self, text: &Text<'_>, database: &str, became: &[Became], start: u64, batch: &mut Batch) {
        let Some(group) = &mut self.group else { return };
        group.rows += 1;
        if group.skip || group.resumed && group.rows <= self.skip_rows {
            return;
        }
        let record = record(text, database, became, &self.layout, format_args!("{}:{start}", self.file));
        batch.txns.push(group.txn(&self.file));
        let txn = (batch.txns.len() - 1) as u32;
        record.put(Op::Message, start, txn, batch);
    }
}

/// A statement as a record: its one row, and the schema of that.
pub(crate) struct Record {
    chunk: String,
    cells: [Cell; 3],
    schema: TableSchema,
}

impl Record {
    /// Adds it to a batch whose transaction is there.
    pub(crate) fn put(self, op: Op, at: u64, txn: u32, batch: &mut Batch) {
        let after = Span { start: batch.cells.len() as u32, len: self.cells.len() as u32 };
        batch.cells.extend(self.cells);
        batch.bytes += self.chunk.len();
        batch.chunks.push(self.chunk.into());
        batch.tables.push(Arc::new(self.schema));
        batch.changes.push(Change {
            op,
            table: (batch.tables.len() - 1) as u32,
            chunk: (batch.chunks.len() - 1) as u32,
            before: Span::NONE,
            after,
            txn,
            at,
            row: 0,
            order: 0,
            table_order: 0,
        });
    }
}

/// The record of a statement. `at`: where it stands, for the log.
pub(crate) fn record(
    text: &Text<'_>,
    database: &str,
    became: &[Became],
    layout: &Arc<SourceLayout>,
    at: std::fmt::Arguments<'_>,
) -> Record {
    let (text, broken) = text.told();
    if broken {
        tracing::warn!(
            at,
            "a statement about a captured table has bytes that are no text in its character set: it is told with a mark"
        );
    }
    let changes = changes(became);
    let mut chunk = String::with_capacity(database.len() + text.len() + changes.len());
    let mut cell = |s: &str| {
        let at = chunk.len() as u32;
        chunk.push_str(s);
        Cell::at(at, s.len() as u32)
    };
    let cells = [cell(database), cell(&text), cell(&changes)];
    let names: Vec<&str> = became.iter().map(|b| b.name.1.as_str()).collect();
    let decode = Decoder { decode: decode::utf8, param: Param { n: Charset::UTF8MB4.number(), ..Param::default() } };
    let column = |name: &str, ty| Column {
        name: name.into(),
        ty,
        type_name: "text".into(),
        nullable: false,
        decode: decode.clone(),
    };
    let schema = TableSchema {
        id: TableId { database: database.into(), schema: SCHEMA.into(), name: names.join(",").into() },
        kind: TableKind::Statement,
        version: 1,
        columns: vec![
            column("databaseName", Type::Text),
            column("ddl", Type::Text),
            column("tableChanges", Type::Json),
        ],
        key: Vec::new(),
        layout: layout.clone(),
    };
    Record { chunk, cells, schema }
}

/// Debezium's `tableChanges`.
fn changes(became: &[Became]) -> String {
    let mut out = String::from("[");
    for (i, b) in became.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        out.push_str(&format!("{comma}{{\"type\":\"{}\",\"id\":", b.how));
        let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
        jsonb::quote(&format!("{}.{}", quoted(&b.name.0), quoted(&b.name.1)), &mut out);
        out.push_str(",\"table\":");
        match &b.table {
            Some(t) => table(t, &mut out),
            None => out.push_str("null"),
        }
        out.push('}');
    }
    out.push(']');
    out
}

fn table(t: &CatalogTable, out: &mut String) {
    out.push_str("{\"defaultCharsetName\":null,\"primaryKeyColumnNames\":[");
    for (i, k) in t.key.iter().filter_map(|k| t.columns.get(*k)).enumerate() {
        if i > 0 {
            out.push(',');
        }
        jsonb::quote(&k.name, out);
    }
    out.push_str("],\"columns\":[");
    for (i, c) in t.columns.iter().enumerate() {
        let (name, numbers) = c.declared();
        let number = |n: Option<&u32>| n.map_or("null".to_owned(), u32::to_string);
        out.push_str(if i > 0 { ",{\"name\":" } else { "{\"name\":" });
        jsonb::quote(&c.name, out);
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(
            out,
            ",\"jdbcType\":{},\"nativeType\":null,\"typeName\":\"{name}\",\"typeExpression\":\"{name}\",\"charsetName\":",
            jdbc(&c.data_type)
        );
        match c.charset {
            Some(set) if !set.is_binary() => jsonb::quote(set.name(), out),
            _ => out.push_str("null"),
        }
        let auto = c.extra.contains("auto_increment");
        let generated = auto || c.extra.contains("GENERATED");
        let _: std::fmt::Result = write!(
            out,
            ",\"length\":{},\"scale\":{},\"position\":{},\"optional\":{},\"autoIncremented\":{auto},\"generated\":{generated},\
             \"comment\":null,\"defaultValueExpression\":null,\"enumValues\":",
            number(numbers.first()),
            number(numbers.get(1)),
            i + 1,
            c.nullable,
        );
        if matches!(c.data_type.as_str(), "enum" | "set") {
            for (i, label) in c.labels().iter().enumerate() {
                out.push(if i > 0 { ',' } else { '[' });
                jsonb::quote(&format!("'{}'", label.replace('\'', "''")), out);
            }
            out.push(']');
        } else {
            out.push_str("null");
        }
        out.push('}');
    }
    out.push_str("],\"comment\":null}");
}

/// The number that `java.sql.Types` gives to what Debezium reads a column as.
fn jdbc(data_type: &str) -> i32 {
    match data_type {
        "bit" => -7,
        "tinyint" | "smallint" => 5,
        "mediumint" | "int" | "year" => 4,
        "bigint" => -5,
        "float" => 6,
        "double" => 8,
        "decimal" => 3,
        "date" => 91,
        "time" => 92,
        "datetime" => 93,
        "timestamp" => 2014,
        "binary" => -2,
        "varbinary" => -3,
        "tinyblob" | "blob" | "mediumblob" | "longblob" => 2004,
        "char" | "enum" | "set" => 1,
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => 12,
        _ => 1111,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::CatalogColumn;

    #[test]
    fn as_debezium_writes_it() {
        let column = |name: &str, data: &str, ty: &str| CatalogColumn {
            name: name.into(),
            data_type: data.into(),
            column_type: ty.into(),
            ..CatalogColumn::default()
        };
        let t = CatalogTable {
            columns: vec![
                CatalogColumn { extra: "auto_increment".into(), ..column("i\"d", "int", "int unsigned") },
                CatalogColumn {
                    charset: Some(Charset::UTF8MB4),
                    nullable: true,
                    ..column("n", "varchar", "varchar(40)")
                },
                column("d", "decimal", "decimal(10,2)"),
                CatalogColumn { charset: Some(Charset::UTF8MB4), ..column("e", "enum", "enum('a','it''s')") },
            ],
            key: vec![0],
        };
        let became = [
            Became { name: ("d".into(), "t".into()), how: "ALTER", table: Some(t) },
            Became { name: ("d".into(), "u\"v".into()), how: "DROP", table: None },
        ];
        let rest = r#""comment":null,"defaultValueExpression":null,"enumValues":"#;
        assert_eq!(
            changes(&became),
            format!(
                r#"[{{"type":"ALTER","id":"\"d\".\"t\"","table":{{"defaultCharsetName":null,"primaryKeyColumnNames":["i\"d"],"columns":[{},{},{},{}],"comment":null}}}},{{"type":"DROP","id":"\"d\".\"u\"\"v\"","table":null}}]"#,
                format_args!(
                    r#"{{"name":"i\"d","jdbcType":4,"nativeType":null,"typeName":"INT UNSIGNED","typeExpression":"INT UNSIGNED","charsetName":null,"length":null,"scale":null,"position":1,"optional":false,"autoIncremented":true,"generated":true,{rest}null}}"#
                ),
                format_args!(
                    r#"{{"name":"n","jdbcType":12,"nativeType":null,"typeName":"VARCHAR","typeExpression":"VARCHAR","charsetName":"utf8mb4","length":40,"scale":null,"position":2,"optional":true,"autoIncremented":false,"generated":false,{rest}null}}"#
                ),
                format_args!(
                    r#"{{"name":"d","jdbcType":3,"nativeType":null,"typeName":"DECIMAL","typeExpression":"DECIMAL","charsetName":null,"length":10,"scale":2,"position":3,"optional":false,"autoIncremented":false,"generated":false,{rest}null}}"#
                ),
                format_args!(
                    r#"{{"name":"e","jdbcType":1,"nativeType":null,"typeName":"ENUM","typeExpression":"ENUM","charsetName":"utf8mb4","length":1,"scale":null,"position":4,"optional":false,"autoIncremented":false,"generated":false,{rest}["'a'","'it''s'"]}}"#
                ),
            )
        );
    }
}

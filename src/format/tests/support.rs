//! Batches by hand. A cell's bytes are the number of a [`Value`] that the test keeps, so any value can stand in any row
//! without a database's text form.

use crate::{
    config::resolved::{Format, Topics},
    format::{Clock, Encoder},
    records::Records,
};
use seachange_sdk::{
    Batch, Cell, Change, Column, Decoder, Error, Nested, Op, Param, Result, SourceField, SourceLayout, SourceValue,
    Span, TableId, TableKind, TableSchema, Txn, Type, Value, Visitor,
};
use std::{borrow::Cow, cell::RefCell, sync::Arc};

/// What a list or map holds.
#[derive(Clone)]
pub enum Tree {
    Leaf(Value<'static>),
    List(Vec<Tree>),
    Map(Vec<(&'static str, Value<'static>)>),
}

thread_local! {
    static VALUES: RefCell<Vec<Value<'static>>> = const { RefCell::new(Vec::new()) };
    static TREES: RefCell<Vec<Tree>> = const { RefCell::new(Vec::new()) };
}

fn number(bytes: &[u8]) -> Result<usize> {
    std::str::from_utf8(bytes).ok().and_then(|s| s.parse().ok()).ok_or_else(|| Error::value("no such value"))
}
fn kept(_: &Param, bytes: &[u8]) -> Result<Value<'static>> {
    let index = number(bytes)?;
    VALUES.with_borrow(|v| v.get(index).cloned()).ok_or_else(|| Error::value("no such value"))
}
fn walk(_: &Param, raw: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
    fn visit(tree: &Tree, visitor: &mut dyn Visitor) -> Result<()> {
        match tree {
            Tree::Leaf(value) => visitor.value(value.clone()),
            Tree::List(items) => {
                visitor.begin_list()?;
                items.iter().try_for_each(|t| visit(t, visitor))?;
                visitor.end_list()
            }
            Tree::Map(items) => {
                visitor.begin_map()?;
                for (key, value) in items {
                    visitor.key(key)?;
                    visitor.value(value.clone())?;
                }
                visitor.end_map()
            }
        }
    }
    let tree = TREES.with_borrow(|t| t[number(raw).unwrap()].clone());
    visit(&tree, visitor)
}

pub fn nested(tree: Tree) -> Value<'static> {
    let index = TREES.with_borrow_mut(|t| {
        t.push(tree);
        t.len() - 1
    });
    static PARAM: std::sync::LazyLock<Param> = std::sync::LazyLock::new(Param::default);
    Value::Nested(Nested { raw: Box::leak(index.to_string().into_bytes().into_boxed_slice()), param: &PARAM, walk })
}
pub fn list(items: Vec<Value<'static>>) -> Value<'static> {
    nested(Tree::List(items.into_iter().map(Tree::Leaf).collect()))
}
pub fn text(s: &'static str) -> Value<'static> {
    Value::Text(Cow::Borrowed(s))
}
pub fn decimal(s: &'static str) -> Value<'static> {
    Value::Decimal(Cow::Borrowed(s))
}
pub fn bits(s: &'static str) -> Value<'static> {
    Value::Bits(Cow::Borrowed(s))
}
pub fn bytes(b: &'static [u8]) -> Value<'static> {
    Value::Bytes(Cow::Borrowed(b))
}

/// A cell of a row under construction.
#[derive(Clone)]
pub enum C {
    V(Value<'static>),
    Null,
    Unavailable,
    Absent,
}
impl From<Value<'static>> for C {
    fn from(value: Value<'static>) -> C {
        if value == Value::Null { C::Null } else { C::V(value) }
    }
}

pub fn layout() -> Arc<SourceLayout> {
    use SourceValue as V;
    let fields = [
        ("version", V::Version),
        ("connector", V::Connector),
        ("name", V::Name),
        ("ts_ms", V::TsMs),
        ("snapshot", V::Snapshot),
        ("db", V::Database),
        ("sequence", V::LsnSequence),
        ("ts_us", V::TsUs),
        ("ts_ns", V::TsNs),
        ("schema", V::Schema),
        ("table", V::Table),
        ("txId", V::TxnId),
        ("lsn", V::At),
        ("xmin", V::Null),
        ("origin", V::Origin),
        ("origin_lsn", V::OriginAt),
    ];
    let fields = fields.into_iter().map(|(name, value)| SourceField { name, value }).collect();
    Arc::new(SourceLayout { connector: "postgresql", fields })
}

/// A table; a type name ending in `!` marks the column NOT NULL, key columns are always.
pub fn table(schema: &str, name: &str, columns: &[(&str, Type)], key: &[u32]) -> Arc<TableSchema> {
    let column = |(i, (name, ty)): (usize, &(&str, Type))| Column {
        name: (*name).into(),
        ty: ty.clone(),
        type_name: "test".into(),
        nullable: !key.contains(&(i as u32)),
        decode: Decoder::plain(kept),
    };
    Arc::new(TableSchema {
        id: TableId { database: "lab".into(), schema: schema.into(), name: name.into() },
        kind: TableKind::Table,
        version: 1,
        columns: columns.iter().enumerate().map(column).collect(),
        key: key.to_vec(),
        layout: layout(),
    })
}

pub fn messages() -> Arc<TableSchema> {
    let t = table("", "", &[("prefix", Type::Text), ("content", Type::Bytes)], &[]);
    let t = Arc::into_inner(t).unwrap();
    Arc::new(TableSchema { kind: TableKind::Message, ..t })
}

/// Statements about a table.
pub fn statements(table_name: &str) -> Arc<TableSchema> {
    let columns = [("databaseName", Type::Text), ("ddl", Type::Text), ("tableChanges", Type::Json)];
    let t = Arc::into_inner(table("schema-changes", table_name, &columns, &[])).unwrap();
    Arc::new(TableSchema { kind: TableKind::Statement, ..t })
}

/// A batch of one statement: its cells are its text.
pub fn statement(parts: [&str; 3]) -> Batch {
    let mut rows = Rows::new();
    rows.batch.txns[0].begins = false;
    let table = statements("t");
    let change = *rows.add(&table, Op::Message, None, Some(vec![C::Null, C::Null, C::Null]));
    let mut batch = rows.done();
    let (mut at, start) = (0, change.after.start as usize);
    for (cell, part) in batch.cells[start..].iter_mut().zip(parts) {
        *cell = Cell::at(at, part.len() as u32);
        at += part.len() as u32;
    }
    batch.chunks[0] = parts.concat().into();
    batch
}

/// A batch under construction.
pub struct Rows {
    pub batch: Batch,
    bytes: Vec<u8>,
}

pub fn txn(id: u64) -> Txn {
    Txn {
        id,
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
    }
}

impl Rows {
    pub fn new() -> Rows {
        let mut batch = Batch::default();
        batch.txns.push(txn(7));
        Rows { batch, bytes: Vec::new() }
    }
    fn span(&mut self, row: Option<Vec<C>>) -> Span {
        let Some(row) = row else { return Span::NONE };
        let start = self.batch.cells.len() as u32;
        for c in &row {
            let cell = match c {
                C::Null => Cell::NULL,
                C::Unavailable => Cell::UNAVAILABLE,
                C::Absent => Cell::ABSENT,
                C::V(value) => {
                    let index = VALUES.with_borrow_mut(|v| {
                        v.push(value.clone());
                        v.len() - 1
                    });
                    let at = self.bytes.len() as u32;
                    self.bytes.extend_from_slice(index.to_string().as_bytes());
                    Cell::at(at, self.bytes.len() as u32 - at)
                }
            };
            self.batch.cells.push(cell);
        }
        Span { start, len: row.len() as u32 }
    }
    pub fn add(
        &mut self,
        table: &Arc<TableSchema>,
        op: Op,
        before: Option<Vec<C>>,
        after: Option<Vec<C>>,
    ) -> &mut Change {
        let (before, after) = (self.span(before), self.span(after));
        let table = self.batch.table_index(table);
        let order = self.batch.changes.len() as u64 + 1;
        let txn = self.batch.txns.len() as u32 - 1;
        let change =
            Change { op, table, chunk: 0, before, after, txn, at: 500 + order, row: 0, order, table_order: order };
        self.batch.changes.push(change);
        self.batch.changes.last_mut().unwrap()
    }
    pub fn done(mut self) -> Batch {
        self.batch.chunks.push(self.bytes.into());
        self.batch
    }
}

/// A record read back, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Out {
    pub topic: String,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(&'static str, String)>,
}

pub fn read(records: &Records) -> Vec<Out> {
    let string = |r: &std::ops::Range<u32>| String::from_utf8(records.bytes(r).to_vec()).unwrap();
    let record = |r: &crate::records::Record| Out {
        topic: records.topic_name(r.topic).to_string(),
        key: r.key.as_ref().map(string),
        value: r.value.as_ref().map(string),
        headers: records.headers[r.headers.start as usize..r.headers.end as usize]
            .iter()
            .map(|h| (h.name, string(&h.value)))
            .collect(),
    };
    records.items.iter().map(record).collect()
}

pub const NOW: Clock = Clock(1_800_000_000_111_222_333);

pub fn encode(format: &Format, batch: &Batch) -> Result<Vec<Out>> {
    let mut records = Records::default();
    Encoder::new("dbz", "lab", format, &Topics::default())?.encode(batch, NOW, &mut records)?;
    Ok(read(&records))
}

/// How one value of a type is written.
pub fn value(format: &Format, ty: Type, cell: impl Into<C>) -> Result<String> {
    let t = table("s", "t", &[("v", ty)], &[]);
    let mut rows = Rows::new();
    rows.add(&t, Op::Create, None, Some(vec![cell.into()]));
    let out = encode(format, &rows.done())?;
    let text = out[0].value.clone().unwrap();
    serde_json::from_str::<serde_json::Value>(&text).expect("valid JSON");
    let inside = text.strip_prefix("{\"before\":null,\"after\":{").unwrap();
    let end = inside.find("},\"source\":{\"version\"").unwrap();
    Ok(inside[..end].strip_prefix("\"v\":").unwrap_or("left out").to_owned())
}

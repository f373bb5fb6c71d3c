//! Tables as a consumer will see them: columns, logical types, keys, and how the `source` block is laid out.
//!
//! A [`TableSchema`] is immutable and shared by `Arc`; a change of columns is a new one with a higher `version`. Plans are
//! compiled per schema, so the row path never looks at these fields.

use crate::value::Decoder;
use std::{fmt, sync::Arc};

/// A table's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// Database (catalog).
    pub database: Arc<str>,
    /// Schema; empty where the database has none (MySQL).
    pub schema: Arc<str>,
    /// Table.
    pub name: Arc<str>,
}

impl fmt::Display for TableId {
    /// `schema.table`, or `database.table` where there are no schemas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.schema.is_empty() { &self.database } else { &self.schema };
        write!(f, "{first}.{}", self.name)
    }
}

/// What the rows of a schema are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Rows of a table.
    Table,
    /// Messages beside all tables: two columns, prefix (text) and content (bytes).
    Message,
    /// Statements that changed tables: three columns, the database they were made in (text), their text, and what became of the
    /// tables, as JSON (Debezium's `tableChanges`). The id names the database and, for people, the tables.
    Statement,
}

/// A column's logical type: what an encoder needs to choose a representation.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Truth value.
    Bool,
    /// 16-bit (also 8-bit) integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// Decimal with declared precision and scale.
    Decimal {
        /// Digits in all.
        precision: u32,
        /// Digits after the point.
        scale: i32,
    },
    /// Decimal whose scale varies by value (PostgreSQL `numeric`).
    VarDecimal,
    /// Money: a decimal with this many digits after the point.
    Money(u32),
    /// Text.
    Text,
    /// A JSON document as its text.
    Json,
    /// An XML document as its text.
    Xml,
    /// A UUID as its text.
    Uuid,
    /// One of the labels.
    Enum(Arc<[Arc<str>]>),
    /// Some of the labels, comma-separated.
    Set(Arc<[Arc<str>]>),
    /// A label tree (PostgreSQL `ltree`).
    Ltree,
    /// Bytes.
    Bytes,
    /// One bit: a truth value.
    Bit1,
    /// Bits: declared length, or `None` when it varies without bound.
    Bits(Option<u32>),
    /// Date.
    Date,
    /// Time of day with this many fractional digits (0 to 6).
    Time(u8),
    /// Time of day with offset.
    TimeTz,
    /// Timestamp without zone, fractional digits 0 to 6.
    Timestamp(u8),
    /// Instant, fractional digits 0 to 6.
    TimestampTz(u8),
    /// Months, days, microseconds.
    Interval,
    /// A year.
    Year,
    /// A point of the plane.
    Point,
    /// A geometry in well-known binary form ([`crate::Value::Geometry`]); `true` when it can only be a point.
    Geometry(bool),
    /// Text to text-or-NULL (PostgreSQL `hstore`).
    Map,
    /// A list (any number of dimensions).
    Array(Box<Type>),
    /// A type without a representation of its own: its text as the database prints it. The database's name for it is
    /// the column's `type_name`.
    Other,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name, as the database has it.
    pub name: Arc<str>,
    /// Logical type.
    pub ty: Type,
    /// The database's own name of the type, with its modifiers: `numeric(10,2)`.
    pub type_name: Arc<str>,
    /// May it be NULL?
    pub nullable: bool,
    /// How to read it.
    pub decode: Decoder,
}

/// A table at one version of its schema.
#[derive(Debug)]
pub struct TableSchema {
    /// Its name.
    pub id: TableId,
    /// Tables, or messages.
    pub kind: TableKind,
    /// Grows with every change of columns; unique within one opened source for one `id`.
    pub version: u64,
    /// The captured columns, in table order.
    pub columns: Vec<Column>,
    /// The key: indexes into `columns`, in key order. Empty when there is none.
    pub key: Vec<u32>,
    /// How the `source` block is laid out: the same for all tables of a connector.
    pub layout: Arc<SourceLayout>,
}

/// The `source` block of the envelope, in order.
#[derive(Debug, PartialEq)]
pub struct SourceLayout {
    /// Value of `connector`: `postgresql`, `mysql`, `mariadb`.
    pub connector: &'static str,
    /// The fields, in the order in which they are written.
    pub fields: Vec<SourceField>,
}

/// One field of the `source` block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceField {
    /// Its name.
    pub name: &'static str,
    /// Where its value comes from.
    pub value: SourceValue,
}

/// Where a field of the `source` block takes its value from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SourceValue {
    /// Seachange's version (string).
    Version,
    /// [`SourceLayout::connector`] (string).
    Connector,
    /// The pipeline's topic prefix (string).
    Name,
    /// Commit time in milliseconds.
    TsMs,
    /// The same in microseconds.
    TsUs,
    /// The same in nanoseconds.
    TsNs,
    /// `"false"` for streamed changes, `"true"` for rows of a snapshot (string).
    Snapshot,
    /// Database (string).
    Database,
    /// `["<prev_commit or null>","<at>"]` as a JSON string (PostgreSQL).
    LsnSequence,
    /// Schema (string).
    Schema,
    /// Table (string).
    Table,
    /// [`crate::Txn::id`]; null when 0.
    TxnId,
    /// [`crate::Change::at`] (number).
    At,
    /// [`crate::Txn::origin`] (string or null).
    Origin,
    /// [`crate::Txn::origin_at`] (number, or null without an origin).
    OriginAt,
    /// [`crate::Txn::gtid`] (string or null).
    Gtid,
    /// [`crate::Txn::server_id`] (number).
    ServerId,
    /// [`crate::Txn::file`] (string).
    File,
    /// [`crate::Change::row`] (number).
    Row,
    /// [`crate::Txn::thread`] (number, or null when unknown).
    Thread,
    /// Always null.
    Null,
}

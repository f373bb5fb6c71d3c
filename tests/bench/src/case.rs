//! What a run is about: which database, which rows, in which transactions, for how many pipelines.
//!
//! A case is complete in itself: two runs of equal cases meet equal bytes, but for times and names.

use crate::options::Options;
use serde_json::{Value, json};

/// The databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Mysql,
    Mariadb,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Postgres, Kind::Mysql, Kind::Mariadb];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Mysql => "mysql",
            Kind::Mariadb => "mariadb",
        }
    }
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// What is done to the rows of the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Insert,
    /// With the whole row before and after.
    Update,
    /// With the whole row before; a tombstone follows each.
    Delete,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
        }
    }
    /// Records in Kafka for each row.
    pub fn records(self) -> u64 {
        if self == Op::Delete { 2 } else { 1 }
    }
}

/// What a row looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Eight columns of six types, about 160 bytes on the wire.
    Orders,
    /// That many columns, of six types in turn.
    Wide(u64),
    /// A key and a text of that many bytes. It repeats itself, so that it compresses well.
    Fat(u64),
}

/// A backlog and who drains it.
#[derive(Clone, Debug)]
pub struct Case {
    pub kind: Kind,
    pub table: Table,
    pub op: Op,
    /// In all tables together.
    pub rows: u64,
    /// Rows of a transaction; each transaction is in one table.
    pub tx: u64,
    pub tables: u64,
    /// Each drains the whole backlog.
    pub pipelines: u64,
    pub schemas: bool,
    /// `plain` or `debezium`.
    pub values: String,
    /// How often it is drained; the median is told.
    pub runs: u64,
    /// Are the source's and Kafka's own limits measured beside it?
    pub limits: bool,
    /// Does Debezium drain it, too?
    pub peers: bool,
    /// More of the configuration: `limits.commit_bytes` of each pipeline, `kafka.linger.ms` for librdkafka.
    pub set: Vec<(String, String)>,
}

impl Case {
    pub fn new(kind: Kind) -> Case {
        Case {
            kind,
            table: Table::Orders,
            op: Op::Insert,
            rows: 1_000_000,
            tx: 100,
            tables: 1,
            pipelines: 1,
            schemas: false,
            values: "debezium".to_owned(),
            runs: 1,
            limits: false,
            peers: false,
            set: Vec::new(),
        }
    }

    pub fn of(options: &mut Options) -> Case {
        let mut case = Case::new(options.kind());
        case.rows = options.number("rows", case.rows);
        case.tx = options.number("tx", case.tx).max(1);
        case.tables = options.number("tables", 1).max(1);
        case.pipelines = options.number("pipelines", 1).max(1);
        case.runs = options.number("runs", 1).max(1);
        case.schemas = options.flag("schemas");
        case.limits = options.flag("limits");
        case.peers = options.flag("peers");
        case.values = options.text("values", &case.values);
        let set = options.text("set", "");
        case.set = set
            .split(',')
            .filter(|s| !s.is_empty())
            .map(|s| s.split_once('=').unwrap_or_else(|| crate::options::refuse("--set NAME=VALUE,NAME=VALUE")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        case.op = match options.text("op", "insert").as_str() {
            "insert" => Op::Insert,
            "update" => Op::Update,
            "delete" => Op::Delete,
            other => crate::options::refuse(&format!("--op {other}: insert, update or delete")),
        };
        let (columns, bytes) = (options.number("columns", 0), options.number("row-bytes", 0));
        case.table = match (columns, bytes) {
            (0, 0) => Table::Orders,
            (n, 0) => Table::Wide(n.max(2)),
            (0, n) => Table::Fat(n),
            _ => crate::options::refuse("--columns and --row-bytes exclude each other"),
        };
        if case.peers && (case.op != Op::Insert || case.tables > 1) {
            crate::options::refuse("--peers goes with inserts into one table");
        }
        case
    }

    /// Records that a pipeline writes.
    pub fn records(&self) -> u64 {
        self.rows * self.op.records()
    }

    /// What differs from the plain case, for people.
    pub fn shape(&self) -> String {
        let mut parts = vec![format!("{} a transaction", thousands(self.tx))];
        match self.table {
            Table::Orders => {}
            Table::Wide(n) => parts.push(format!("{n} columns")),
            Table::Fat(n) => parts.push(format!("rows of {} bytes", thousands(n))),
        }
        if self.op != Op::Insert {
            parts.push(format!("{}s", self.op.name()));
        }
        if self.tables > 1 {
            parts.push(format!("{} tables", thousands(self.tables)));
        }
        if self.pipelines > 1 {
            parts.push(format!("{} pipelines", self.pipelines));
        }
        if self.schemas {
            parts.push("with schemas".to_owned());
        }
        if self.values != "debezium" {
            parts.push(format!("values {}", self.values));
        }
        parts.join(", ")
    }

    pub fn json(&self) -> Value {
        let table = match self.table {
            Table::Orders => json!("orders"),
            Table::Wide(n) => json!({ "columns": n }),
            Table::Fat(n) => json!({ "row_bytes": n }),
        };
        json!({
            "db": self.kind.name(), "shape": self.shape(), "rows": self.rows, "rows_a_transaction": self.tx, "table": table,
            "op": self.op.name(), "tables": self.tables, "pipelines": self.pipelines, "schemas": self.schemas,
            "values": self.values, "runs": self.runs,
        })
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (thousands(7), thousands(1000), thousands(1_234_567)),
            ("7".into(), "1,000".into(), "1,234,567".into())
        );
    }
}

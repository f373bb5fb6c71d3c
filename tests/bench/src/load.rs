//! A database with a backlog: its tables, the rows, the transactions they come in.
//!
//! Row `k` of a table has the same values in every database. Rows are made by the server, in a procedure that commits after
//! every `tx` of them, so that the load is not bound by round trips. Transaction `i` writes to table `i % tables`; updates
//! and deletes go through the rows in the order and in the transactions in which they were inserted.

mod binlog;
mod postgres;

use crate::case::{Case, Kind, Op, Table};
use seachange_testkit::Config;

/// One column: its name, its type and the value of row `k`, for PostgreSQL and for MySQL.
struct Column {
    name: String,
    types: [&'static str; 2],
    values: [String; 2],
}

fn column(name: impl Into<String>, types: [&'static str; 2], values: [&str; 2]) -> Column {
    Column { name: name.into(), types, values: values.map(str::to_owned) }
}

fn columns(table: Table) -> Vec<Column> {
    let id = column("id", ["bigint", "bigint"], ["k", "k"]);
    let mut all = vec![id];
    match table {
        Table::Orders => all.extend([
            column("customer_id", ["int", "int"], ["(k * 31 % 100000)::int", "k * 31 % 100000"]),
            column(
                "sku",
                ["text", "varchar(40)"],
                ["'SKU-' || lpad((k % 50000)::text, 8, '0')", "concat('SKU-', lpad(k % 50000, 8, '0'))"],
            ),
            column("qty", ["int", "int"], ["(k % 9)::int + 1", "k % 9 + 1"]),
            column(
                "price",
                ["numeric(12,2)", "decimal(12,2)"],
                ["(k * 104729 % 1000000) / 100.0", "(k * 104729 % 1000000) / 100.0"],
            ),
            column("note", ["text", "text"], ["'note for order ' || k", "concat('note for order ', k)"]),
            column("created_at", ["timestamptz", "timestamp(6)"], ["now()", "now(6)"]),
            column("updated_at", ["timestamptz", "datetime(6)"], ["now()", "now(6)"]),
        ]),
        Table::Wide(n) => all.extend((1..n).map(|j| {
            let name = format!("c{j}");
            match j % 6 {
                1 => column(name, ["int", "int"], ["(k % 1000000)::int", "k % 1000000"]),
                2 => column(name, ["text", "text"], ["'a text of row ' || k", "concat('a text of row ', k)"]),
                3 => column(name, ["numeric(12,2)", "decimal(12,2)"], ["k % 10000000 / 100.0", "k % 10000000 / 100.0"]),
                4 => column(name, ["boolean", "tinyint(1)"], ["k % 2 = 0", "k % 2 = 0"]),
                5 => column(name, ["timestamptz", "datetime(6)"], ["now()", "now(6)"]),
                _ => column(name, ["double precision", "double"], ["k / 7.0::float8", "k / 7e0"]),
            }
        })),
        Table::Fat(bytes) => {
            // 64 digits; MySQL has no md5 any more.
            let repeated = |text: &str| format!("left(repeat({text}, {}), {bytes})", bytes / 64 + 1);
            let values = [repeated("encode(sha256(k::text::bytea), 'hex')"), repeated("sha2(k, 256)")];
            all.push(Column { name: "body".to_owned(), types: ["text", "longtext"], values });
        }
    }
    all
}

/// What an update does.
fn touch(table: Table) -> &'static str {
    match table {
        Table::Orders => "qty = qty + 1",
        Table::Wide(_) => "c1 = c1 + 1",
        Table::Fat(_) => "body = reverse(body)",
    }
}

fn table_name(i: u64, tables: u64) -> String {
    if tables == 1 { "orders".to_owned() } else { format!("orders_{i:04}") }
}

/// A database of its own for one case, and the account that captures it. It goes when this is dropped or [`Load::end`]ed.
pub enum Load {
    Postgres(postgres::Load),
    Binlog(binlog::Load),
}

impl Load {
    /// An empty database.
    pub async fn new(kind: Kind) -> Load {
        match kind {
            Kind::Postgres => Load::Postgres(postgres::Load::new().await),
            Kind::Mysql | Kind::Mariadb => Load::Binlog(binlog::Load::new(kind).await),
        }
    }

    /// The tables of a case, and the rows that its updates and deletes need.
    pub async fn tables(&self, case: &Case) {
        match self {
            Load::Postgres(l) => l.tables(case).await,
            Load::Binlog(l) => l.tables(case).await,
        }
        if case.op != Op::Insert {
            self.write(&Case { op: Op::Insert, ..case.clone() }).await;
        }
    }

    /// Notes where the source's own limit is to begin: what is written after this is drained by [`crate::limits`].
    pub async fn mark(&mut self) {
        match self {
            Load::Postgres(l) => l.mark().await,
            Load::Binlog(l) => l.mark().await,
        }
    }

    /// Writes the backlog.
    pub async fn write(&self, case: &Case) {
        match self {
            Load::Postgres(l) => l.write(case).await,
            Load::Binlog(l) => l.write(case).await,
        }
    }

    /// Before rows are read by SQL: as tidy as a server that has had time.
    pub async fn settle(&self) {
        match self {
            Load::Postgres(l) => l.settle().await,
            Load::Binlog(l) => l.sql("ANALYZE TABLE orders").await,
        }
    }

    /// A pipeline of the database's tables.
    pub fn pipeline(&self, config: Config, name: &str, snapshot: &str) -> Config {
        let config = match self {
            Load::Postgres(l) => l.pipeline(config, name),
            Load::Binlog(l) => l.pipeline(config, name),
        };
        config.set(&format!("pipeline.{name}.source.snapshot"), snapshot)
    }

    /// Topics of a pipeline's tables.
    pub fn topics(&self, pipeline: &str, tables: u64) -> Vec<String> {
        let schema = match self {
            Load::Postgres(_) => "public",
            Load::Binlog(l) => l.name(),
        };
        (0..tables).map(|i| format!("{pipeline}.{schema}.{}", table_name(i, tables))).collect()
    }

    /// A row in each table before all rows of the backlog.
    pub async fn first_rows(&self, tables: u64) {
        let row = |i| format!("INSERT INTO {} (id) VALUES (0)", table_name(i, tables));
        match self {
            Load::Postgres(l) => l.db.run(&(0..tables).map(row).collect::<Vec<_>>().join(";")).await,
            Load::Binlog(l) => l.each(&mut (0..tables).map(row)).await,
        }
    }

    /// Port of the server and name of the database.
    pub fn place(&self) -> (u16, &str) {
        match self {
            Load::Postgres(l) => (l.db.port, &l.db.name),
            Load::Binlog(l) => (l.port(), l.name()),
        }
    }

    pub async fn end(self) {
        match self {
            Load::Postgres(l) => drop(l),
            Load::Binlog(l) => l.end().await,
        }
    }
}

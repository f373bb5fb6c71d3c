//! The backlog of a MySQL or MariaDB: stored procedures that commit after each transaction's rows.

use super::{columns, table_name, touch};
use crate::case::{Case, Kind, Op, Table};
use mysql_async::{Conn, Opts, prelude::Queryable};
use seachange_testkit::{Config, unique};

/// Rows of one statement: a larger transaction has several.
const STATEMENT: u64 = 1000;

pub struct Load {
    pub kind: Kind,
    /// URL of the account that may do everything.
    pub url: String,
    db: String,
    /// The file with which the source's own limit begins.
    pub limit: Option<String>,
}

impl Load {
    pub async fn new(kind: Kind) -> Load {
        let name = format!("SEACHANGE_TEST_{}", kind.name().to_uppercase());
        let url = std::env::var(&name).unwrap_or_else(|_| panic!("{name}: run this through scripts/bench"));
        let load = Load { kind, url, db: unique("t"), limit: None };
        let mut conn = load.conn("lab").await;
        conn.query_drop(format!("CREATE DATABASE {} CHARACTER SET utf8mb4", load.db)).await.expect("a database");
        drop(conn.disconnect().await);
        // The log of earlier cases is not read over.
        load.sql("FLUSH BINARY LOGS").await;
        load
    }

    pub fn name(&self) -> &str {
        &self.db
    }

    pub fn port(&self) -> u16 {
        let port = self.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        port.expect("a port in the URL")
    }

    async fn conn(&self, db: &str) -> Conn {
        let url = self.url.replacen("mariadb://", "mysql://", 1);
        let url = format!("{}/{db}", url.rsplit_once('/').expect("a database in the URL").0);
        let opts = Opts::from_url(&url).unwrap_or_else(|e| panic!("the server's URL: {e}"));
        Conn::new(opts).await.unwrap_or_else(|e| panic!("{}: {e}", self.kind.name()))
    }

    /// A session in the database.
    pub async fn session(&self) -> Conn {
        self.conn(&self.db).await
    }

    pub async fn sql(&self, sql: &str) {
        self.each(&mut std::iter::once(sql.to_owned())).await;
    }

    pub async fn each(&self, statements: &mut (dyn Iterator<Item = String> + Send)) {
        let mut conn = self.session().await;
        for sql in statements {
            conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        drop(conn.disconnect().await);
    }

    pub async fn tables(&self, case: &Case) {
        let mut conn = self.session().await;
        let columns: Vec<String> =
            columns(case.table).iter().map(|c| format!("{} {} NULL", c.name, c.types[1])).collect();
        let columns = columns.join(", ").replacen(" NULL", " NOT NULL PRIMARY KEY", 1);
        for i in 0..case.tables {
            let sql = format!("CREATE TABLE {} ({columns})", table_name(i, case.tables));
            conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        conn.query_drop("CREATE TABLE numbers (g int PRIMARY KEY)").await.expect("a table");
        let numbers: Vec<String> = (1..=STATEMENT).map(|g| format!("({g})")).collect();
        conn.query_drop(format!("INSERT INTO numbers VALUES {}", numbers.join(","))).await.expect("numbers");
        for op in [Op::Insert, Op::Update, Op::Delete] {
            conn.query_drop(procedure(case, op)).await.expect("the loading procedure");
        }
        drop(conn.disconnect().await);
    }

    pub async fn write(&self, case: &Case) {
        let mut conn = self.session().await;
        let call = format!("CALL load_{}({}, {})", case.op.name(), case.rows, case.tx);
        conn.query_drop(call).await.expect("the load");
        drop(conn.disconnect().await);
    }

    pub async fn mark(&mut self) {
        let mut conn = self.session().await;
        conn.query_drop("FLUSH BINARY LOGS").await.expect("FLUSH");
        self.limit = Some(last_file(&mut conn).await);
        drop(conn.disconnect().await);
    }

    pub fn pipeline(&self, config: Config, name: &str) -> Config {
        let at = |path: &str| format!("pipeline.{name}.{path}");
        let url = self.url.replacen("root:root@", "cdc:cdc@", 1);
        config
            .set(&at("source.type"), self.kind.name())
            .set(&at("source.url"), format!("{}/{}", url.rsplit_once('/').expect("a database in the URL").0, self.db))
            .set(&at("source.tables"), vec![format!("{}.orders*", self.db)])
            .set(&at("sink.type"), "kafka")
    }

    pub async fn end(self) {
        self.sql(&format!("DROP DATABASE {}", self.db)).await;
        let mut conn = self.conn("lab").await;
        conn.query_drop("FLUSH BINARY LOGS").await.expect("FLUSH");
        let file = last_file(&mut conn).await;
        // A dump thread that has not noticed its reader's end may hold a file: the next case's end takes it.
        drop(conn.query_drop(format!("PURGE BINARY LOGS TO '{file}'")).await);
        drop(conn.disconnect().await);
    }
}

async fn last_file(conn: &mut Conn) -> String {
    let rows: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.expect("the list of log files");
    rows.last().and_then(|r| r.get(0)).expect("a log file")
}

fn procedure(case: &Case, op: Op) -> String {
    let columns = columns(case.table);
    let values: Vec<&str> = columns.iter().map(|c| c.values[1].as_str()).collect();
    // A statement's rows are `upto - part + 1` to `upto`.
    let statement = |table: &str, before: &str, part: &str| match op {
        Op::Insert => format!(
            "INSERT INTO {table} SELECT {} FROM (SELECT {before} + g AS k FROM numbers WHERE g <= {part}) s",
            values.join(", ")
        ),
        Op::Update => {
            format!("UPDATE {table} SET {} WHERE id BETWEEN {before} + 1 AND {before} + {part}", touch(case.table))
        }
        Op::Delete => format!("DELETE FROM {table} WHERE id BETWEEN {before} + 1 AND {before} + {part}"),
    };
    let run = if case.tables == 1 {
        statement("orders", "seen", "part")
    } else {
        let text = statement("\u{1}", "@seen", "@part").replace('\'', "''");
        let (head, tail) = text.split_once('\u{1}').expect("a table in the statement");
        format!(
            "SET @seen = seen, @part = part, @sql = concat('{head}', 'orders_', lpad(i % {}, 4, '0'), '{tail}');
             PREPARE s FROM @sql; EXECUTE s",
            case.tables
        )
    };
    // One statement can be as large as the rows of a table are few.
    let most =
        if let Table::Fat(bytes) = case.table { (8_000_000 / bytes.max(1)).clamp(1, STATEMENT) } else { STATEMENT };
    format!(
        "CREATE PROCEDURE load_{}(n bigint, per bigint)
         BEGIN
           DECLARE seen, upto, part, i bigint DEFAULT 0;
           WHILE seen < n DO
             SET upto = least(seen + per, n);
             START TRANSACTION;
             WHILE seen < upto DO
               SET part = least(upto - seen, {most});
               {run};
               SET seen = seen + part;
             END WHILE;
             COMMIT;
             SET i = i + 1;
           END WHILE;
         END",
        op.name()
    )
}

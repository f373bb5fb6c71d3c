//! The backlog of a PostgreSQL: plpgsql procedures that commit after each transaction's rows.

use super::{columns, table_name, touch};
use crate::case::{Case, Op, Table};
use seachange_testkit::{Config, Database, servers};

pub struct Load {
    pub db: Database,
    /// The slot and the publication of the source's own limit, once they are there.
    pub limit: Option<String>,
}

impl Load {
    pub async fn new() -> Load {
        let pg = servers::postgres(15).await.expect("SEACHANGE_TEST_PG: run this through scripts/bench");
        Load { db: pg.database().await, limit: None }
    }

    pub async fn tables(&self, case: &Case) {
        let client = self.db.connect().await;
        let columns: Vec<String> = columns(case.table).iter().map(|c| format!("{} {}", c.name, c.types[0])).collect();
        for i in 0..case.tables {
            let name = table_name(i, case.tables);
            let mut sql = format!("CREATE TABLE {name} ({}, PRIMARY KEY (id));", columns.join(", "));
            if case.op != Op::Insert {
                sql += &format!("ALTER TABLE {name} REPLICA IDENTITY FULL;");
            }
            if let Table::Fat(_) = case.table {
                // Bytes on disk and on the wire are those that were asked for.
                sql += &format!("ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL;");
            }
            client.batch_execute(&sql).await.expect("a table");
        }
        for op in [Op::Insert, Op::Update, Op::Delete] {
            client.batch_execute(&procedure(case, op)).await.expect("the loading procedure");
        }
    }

    pub async fn write(&self, case: &Case) {
        let client = self.db.connect().await;
        client.batch_execute("SET synchronous_commit = off").await.expect("a setting");
        let call = format!("CALL load_{}({}, {})", case.op.name(), case.rows, case.tx);
        client.batch_execute(&call).await.expect("the load");
    }

    pub async fn settle(&self) {
        self.db.admin().await.batch_execute("VACUUM (ANALYZE, FREEZE) orders").await.expect("VACUUM");
    }

    pub async fn mark(&mut self) {
        let name = format!("limit_{}", self.db.name);
        let admin = self.db.admin().await;
        admin.batch_execute(&format!("CREATE PUBLICATION {name} FOR ALL TABLES")).await.expect("a publication");
        admin
            .execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&name])
            .await
            .expect("a replication slot");
        self.limit = Some(name);
    }

    pub fn pipeline(&self, config: Config, name: &str) -> Config {
        config.postgres(name, &self.db.url, &["public.orders*"])
    }
}

fn procedure(case: &Case, op: Op) -> String {
    let columns = columns(case.table);
    let values: Vec<&str> = columns.iter().map(|c| c.values[0].as_str()).collect();
    let statement = |table: &str, from: &str, to: &str| match op {
        Op::Insert => format!("INSERT INTO {table} SELECT {} FROM generate_series({from}, {to}) k", values.join(", ")),
        Op::Update => format!("UPDATE {table} SET {} WHERE id BETWEEN {from} AND {to}", touch(case.table)),
        Op::Delete => format!("DELETE FROM {table} WHERE id BETWEEN {from} AND {to}"),
    };
    let run = if case.tables == 1 {
        statement("orders", "done + 1", "upto")
    } else {
        // As text that `format` reads: its own percent signs doubled.
        let text = statement("\u{1}", "$1", "$2").replace('%', "%%").replace('\u{1}', "%I");
        format!(
            "EXECUTE format($q${text}$q$, 'orders_' || lpad((i % {})::text, 4, '0')) USING done + 1, upto",
            case.tables
        )
    };
    format!(
        "CREATE PROCEDURE load_{}(n bigint, per bigint) LANGUAGE plpgsql AS $$
         DECLARE done bigint := 0; upto bigint; i bigint := 0;
         BEGIN
           WHILE done < n LOOP
             upto := least(done + per, n);
             {run};
             COMMIT;
             done := upto;
             i := i + 1;
           END LOOP;
         END $$",
        op.name()
    )
}

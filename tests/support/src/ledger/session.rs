//! The ledger's sessions: what differs between PostgreSQL and MySQL with MariaDB.
//!
//! A session that was lost may live on at the server's side, and commit. [`Session::open`] ends it before anything is looked
//! at: in PostgreSQL by its process id and start, in MySQL by a named lock that every session of a client holds, and that the
//! server frees when it has ended the session's transaction, one way or the other.

use crate::database;
use mysql_async::{Conn, prelude::Queryable};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio_postgres::{Client, Statement};

/// Why something did not work.
#[derive(Debug)]
pub enum Failed {
    /// The session or the server is gone.
    Lost(String),
    /// The server has rolled the transaction back, for others were in its way.
    Deadlock,
    /// Anything else, which is the load's own fault.
    Wrong(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Lost(e) | Failed::Wrong(e) => f.write_str(e),
            Failed::Deadlock => f.write_str("deadlock"),
        }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(e: tokio_postgres::Error) -> Failed {
        let gone = |c: &tokio_postgres::error::SqlState| c.code().starts_with("57") || c.code().starts_with("08");
        if e.is_closed() || e.code().is_none_or(gone) {
            Failed::Lost(e.to_string())
        } else {
            Failed::Wrong(format!("{e:?}"))
        }
    }
}

impl From<mysql_async::Error> for Failed {
    fn from(e: mysql_async::Error) -> Failed {
        match &e {
            mysql_async::Error::Io(_) | mysql_async::Error::Driver(_) => Failed::Lost(e.to_string()),
            mysql_async::Error::Server(s) => match s.code {
                1213 => Failed::Deadlock,
                // shutdown, killed query, killed session (of MySQL, of MariaDB), too early
                1053 | 1077 | 1079 | 1317 | 1927 | 3169 | 1040 => Failed::Lost(e.to_string()),
                _ => Failed::Wrong(e.to_string()),
            },
            _ => Failed::Wrong(e.to_string()),
        }
    }
}

/// Makes the ledger's table if it is not there.
pub async fn create(url: &str, table: &str) {
    let sql = |time: &str| {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id bigint PRIMARY KEY, version bigint NOT NULL, client int NOT NULL, \
             note varchar(400), at {time})"
        )
    };
    if is_postgres(url) {
        let client = database::postgres(url).await.expect("the ledger's connection");
        client.batch_execute(&sql("timestamptz DEFAULT now()")).await.expect("CREATE TABLE");
    } else {
        let mut conn = database::mysql(url).await.expect("the ledger's connection");
        conn.query_drop(sql("timestamp(6) NULL DEFAULT CURRENT_TIMESTAMP(6)")).await.expect("CREATE TABLE");
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres")
}

/// A session that the load writes in.
// There is one for each client: its size matters to nobody.
#[allow(clippy::large_enum_variant)]
pub enum Session {
    Postgres {
        client: Client,
        insert: Statement,
        update: Statement,
        delete: Statement,
        table: String,
        /// Process id and start of the server's side.
        backend: (i32, String),
    },
    MySql {
        conn: Conn,
        table: String,
    },
}

impl Session {
    /// A session of client `n`; the one that it lost, if it did, has ended.
    pub async fn open(url: &str, table: &str, n: u64, lost: Option<&Session>) -> Result<Session, Failed> {
        if is_postgres(url) { Session::postgres(url, table, lost).await } else { Session::mysql(url, table, n).await }
    }

    async fn postgres(url: &str, table: &str, lost: Option<&Session>) -> Result<Session, Failed> {
        let client = database::postgres(url).await?;
        if let Some(Session::Postgres { backend: (pid, start), .. }) = lost {
            // The same process id with another start is somebody else, after a restart of the server.
            let sql =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";
            while !client.query(sql, &[pid, start]).await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let insert = format!("INSERT INTO {table} (id, version, client, note) VALUES ($1, 1, $2, $3)");
        let update = format!("UPDATE {table} SET version = version + 1, note = $2 WHERE id = $1");
        let delete = format!("DELETE FROM {table} WHERE id = $1");
        let backend = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let backend = client.query_one(backend, &[]).await?;
        Ok(Session::Postgres {
            insert: client.prepare(&insert).await?,
            update: client.prepare(&update).await?,
            delete: client.prepare(&delete).await?,
            backend: (backend.get(0), backend.get(1)),
            table: table.to_owned(),
            client,
        })
    }

    async fn mysql(url: &str, table: &str, n: u64) -> Result<Session, Failed> {
        let mut conn = database::mysql(url).await?;
        let lock = format!("{table}/{n}");
        while conn.exec_first::<i64, _, _>("SELECT GET_LOCK(?, 0)", (&lock,)).await? != Some(1) {
            let holder: Option<Option<u64>> = conn.exec_first("SELECT IS_USED_LOCK(?)", (&lock,)).await?;
            if let Some(Some(holder)) = holder {
                match conn.query_drop(format!("KILL {holder}")).await {
                    // gone by itself
                    Err(mysql_async::Error::Server(e)) if e.code == 1094 => {}
                    other => other?,
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Session::MySql { conn, table: table.to_owned() })
    }

    /// Versions of the keys from `from` up to, and without, `to`.
    pub async fn rows(&mut self, from: i64, to: i64) -> Result<BTreeMap<i64, i64>, Failed> {
        Ok(match self {
            Session::Postgres { client, table, .. } => {
                let sql = format!("SELECT id, version FROM {table} WHERE id >= $1 AND id < $2");
                client.query(&sql, &[&from, &to]).await?.iter().map(|r| (r.get(0), r.get(1))).collect()
            }
            Session::MySql { conn, table } => {
                let sql = format!("SELECT id, version FROM {table} WHERE id >= ? AND id < ?");
                let rows: Vec<(i64, i64)> = conn.exec(sql, (from, to)).await?;
                rows.into_iter().collect()
            }
        })
    }

    /// `BEGIN`, `COMMIT` or `ROLLBACK`.
    pub async fn say(&mut self, sql: &str) -> Result<(), Failed> {
        match self {
            Session::Postgres { client, .. } => client.batch_execute(sql).await?,
            Session::MySql { conn, .. } => conn.query_drop(sql).await?,
        }
        Ok(())
    }

    /// A new row, of version 1.
    pub async fn insert(&mut self, id: i64, client_number: i32, note: &str) -> Result<u64, Failed> {
        Ok(match self {
            Session::Postgres { client, insert, .. } => client.execute(insert, &[&id, &client_number, &note]).await?,
            Session::MySql { conn, table } => {
                let sql = format!("INSERT INTO {table} (id, version, client, note) VALUES (?, 1, ?, ?)");
                conn.exec_drop(sql, (id, client_number, note)).await?;
                conn.affected_rows()
            }
        })
    }

    /// The row's next version.
    pub async fn update(&mut self, id: i64, note: &str) -> Result<u64, Failed> {
        Ok(match self {
            Session::Postgres { client, update, .. } => client.execute(update, &[&id, &note]).await?,
            Session::MySql { conn, table } => {
                let sql = format!("UPDATE {table} SET version = version + 1, note = ? WHERE id = ?");
                conn.exec_drop(sql, (note, id)).await?;
                conn.affected_rows()
            }
        })
    }

    /// The row's end.
    pub async fn delete(&mut self, id: i64) -> Result<u64, Failed> {
        Ok(match self {
            Session::Postgres { client, delete, .. } => client.execute(delete, &[&id]).await?,
            Session::MySql { conn, table } => {
                conn.exec_drop(format!("DELETE FROM {table} WHERE id = ?"), (id,)).await?;
                conn.affected_rows()
            }
        })
    }
}

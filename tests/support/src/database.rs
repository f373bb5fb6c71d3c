//! A database for one test, of whatever kind its server is.

use crate::{
    Proxy,
    servers::{Server, Which},
};
use mysql_async::{Conn, Opts, OptsBuilder, prelude::Queryable};
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::NoTls;

/// A session of PostgreSQL, with a task that drives it until the client is dropped.
pub async fn postgres(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its error reaches whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

/// A session of MySQL or MariaDB. It waits for a lock no longer than a test does.
pub async fn mysql(url: &str) -> Result<Conn, mysql_async::Error> {
    let opts = Opts::from_url(&url.replacen("mariadb://", "mysql://", 1))?;
    let opts = OptsBuilder::from_opts(opts).setup(vec!["SET SESSION lock_wait_timeout = 60"]);
    Conn::new(opts).await
}

/// A database for one test.
#[derive(Debug)]
pub struct Database {
    /// Its server.
    pub which: Which,
    /// Its name.
    pub name: String,
    /// Port of its server on 127.0.0.1.
    pub port: u16,
    /// URL of the capture account.
    pub url: String,
    /// URL of the superuser.
    pub super_url: String,
    admin_url: String,
}

impl Database {
    pub(crate) async fn create(server: &Server, name: String) -> Database {
        match server.which {
            Which::Postgres(_) => {
                let admin = postgres(&server.super_url).await.expect("the superuser's connection");
                admin.batch_execute(&format!("CREATE DATABASE {name} OWNER cdc")).await.expect("CREATE DATABASE");
            }
            _ => {
                let mut admin = mysql(&server.super_url).await.expect("the superuser's connection");
                let sql = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
                admin.query_drop(sql).await.expect("CREATE DATABASE");
            }
        }
        let on = |url: &str| format!("{}/{name}", url.rsplit_once('/').expect("a database in the URL").0);
        Database {
            which: server.which,
            url: on(&server.url),
            super_url: on(&server.super_url),
            admin_url: server.super_url.clone(),
            port: server.port,
            name,
        }
    }

    /// PostgreSQL: a connection as the capture account, which owns the database.
    pub async fn connect(&self) -> tokio_postgres::Client {
        postgres(&self.url).await.unwrap_or_else(|e| panic!("database {}: {e}", self.name))
    }
    /// PostgreSQL: a connection as the superuser.
    pub async fn admin(&self) -> tokio_postgres::Client {
        postgres(&self.super_url).await.unwrap_or_else(|e| panic!("database {}: {e}", self.name))
    }
    /// MySQL and MariaDB: a session as the superuser. The capture account may only read.
    pub async fn session(&self) -> Conn {
        mysql(&self.super_url).await.unwrap_or_else(|e| panic!("database {}: {e}", self.name))
    }
    /// Runs a statement as who may write: the capture account of PostgreSQL, where it may be several, else the superuser.
    pub async fn run(&self, sql: &str) {
        match self.which {
            Which::Postgres(_) => {
                self.connect().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            }
            _ => self.session().await.query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")),
        }
    }
    /// URL of who may write, see [`Database::run`].
    pub fn writer_url(&self) -> &str {
        if self.which.kind() == "postgres" { &self.url } else { &self.super_url }
    }
    /// A table's full name, as patterns and topics have it: `public.t`, or the database's name before it.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}", if self.which.kind() == "postgres" { "public" } else { &self.name })
    }
    /// The ledger's rows: each key's version.
    pub async fn versions(&self, table: &str) -> BTreeMap<i64, i64> {
        let sql = format!("SELECT id, version FROM {table}");
        match self.which {
            Which::Postgres(_) => {
                let rows = self.connect().await.query(&sql, &[]).await.expect("the ledger's rows");
                rows.iter().map(|r| (r.get(0), r.get(1))).collect()
            }
            _ => {
                let rows: Vec<(i64, i64)> = self.session().await.query(sql).await.expect("the ledger's rows");
                rows.into_iter().collect()
            }
        }
    }
    /// The capture account's URL through a proxy's port.
    pub fn url_through(&self, proxy: &Proxy) -> String {
        through(&self.url, self.port, proxy)
    }
    /// URL of who may write, through a proxy's port.
    pub fn writer_url_through(&self, proxy: &Proxy) -> String {
        through(self.writer_url(), self.port, proxy)
    }

    async fn remove(which: Which, name: &str, admin_url: &str) -> Result<(), String> {
        match which {
            Which::Postgres(_) => remove_postgres(name, admin_url).await.map_err(|e| e.to_string()),
            _ => {
                let mut admin = mysql(admin_url).await.map_err(|e| e.to_string())?;
                admin.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await.map_err(|e| e.to_string())
            }
        }
    }
}

fn through(url: &str, port: u16, proxy: &Proxy) -> String {
    url.replace(&format!("127.0.0.1:{port}"), &proxy.addr().to_string())
}

async fn remove_postgres(name: &str, admin_url: &str) -> Result<(), tokio_postgres::Error> {
    let admin = postgres(admin_url).await?;
    // A slot keeps both the database and its share of the log. A walsender that is told to go takes a moment.
    for _ in 0..200 {
        let slots = admin
            .query("SELECT slot_name::text, active_pid FROM pg_replication_slots WHERE database = $1", &[&name])
            .await?;
        if slots.is_empty() {
            break;
        }
        for slot in slots {
            let (slot, pid): (String, Option<i32>) = (slot.get(0), slot.get(1));
            let dropped = match pid {
                Some(pid) => admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await,
                None => admin.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await,
            };
            // In use again, or gone already: the next round sees.
            drop(dropped);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

impl Drop for Database {
    fn drop(&mut self) {
        let (which, name, url) = (self.which, self.name.clone(), self.admin_url.clone());
        // Drop cannot await, and may run on a runtime: so, a runtime and a thread of its own.
        let removed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(async {
                match tokio::time::timeout(Duration::from_secs(30), Database::remove(which, &name, &url)).await {
                    Ok(done) => done,
                    Err(_) => Err("no answer within 30 s".to_owned()),
                }
            })
        })
        .join();
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(e)) => eprintln!("database {} is left behind: {e}", self.name),
            Err(_) => eprintln!("database {} is left behind", self.name),
        }
    }
}

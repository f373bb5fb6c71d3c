//! MySQL and MariaDB: the row binlog as a stream of changes, and a snapshot that agrees with it to the byte.
//!
//! One reader serves both kinds; what differs is in `flavor`. Everything up to `position` is pure: bytes in, values or errors
//! out, and no input can make it panic.
//!
//! | module | owns |
//! | --- | --- |
//! | [`wire`] | bounds-checked reading |
//! | [`event`] | headers, checksums, events that are not rows |
//! | [`payload`] | compressed transactions, events and columns |
//! | [`table_map`] | what the rows of a table look like |
//! | [`rows`] | where every cell of every row is |
//! | [`decode`] | cells to values, with [`decimal`], [`temporal`], [`jsonb`], [`charset`] |
//! | [`statement`], [`history`] | what statements do to tables, and the columns that tables had |
//! | [`gtid`], [`position`] | where a stream stands |

pub mod assembler;
pub mod cascade;
pub mod catalog;
pub mod charset;
pub mod columns;
pub mod config;
pub mod conn;
pub mod decimal;
pub mod decode;
pub mod errors;
pub mod event;
pub mod flavor;
pub mod gtid;
pub mod history;
pub mod jsonb;
pub mod lookahead;
pub mod payload;
pub mod position;
pub mod rows;
pub mod source;
pub mod sql;
pub mod statement;
pub mod table_map;
pub mod temporal;
pub mod wire;

pub mod snapshot;

mod check;
mod init;
mod inquiry;
mod open;

use async_trait::async_trait;
use config::Config;
use flavor::Flavor;
use position::Stand;
use seachange_sdk::{Check, Configured, Connector, Fault, Opened, Position, Result, Resume, SourceStatus};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The connector as the daemon registers it: once for each kind.
#[derive(Debug)]
pub struct Binlog(pub Flavor);

/// `type = "mysql"`.
pub static MYSQL: Binlog = Binlog(Flavor::MySql);
/// `type = "mariadb"`.
pub static MARIADB: Binlog = Binlog(Flavor::MariaDb);

#[async_trait]
impl Connector for Binlog {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn schemes(&self) -> &'static [&'static str] {
        match self.0 {
            Flavor::MySql => &["mysql"],
            Flavor::MariaDb => &["mariadb"],
        }
    }
    fn configure(
        &self,
        pipeline: &str,
        path: &str,
        table: &toml::Table,
    ) -> std::result::Result<Arc<dyn Configured>, Vec<Fault>> {
        Ok(Arc::new(Configuration::new(self.0, Config::read(pipeline, path, table)?)))
    }
    async fn init(&self, url: &str) -> Result<String> {
        init::init(url).await
    }
}

/// A source whose configuration has been read.
pub struct Configuration {
    flavor: Flavor,
    config: Arc<Config>,
    /// The newest confirmed place, for `status`.
    confirmed: source::Confirmed,
    /// The session of `status`.
    session: Mutex<Option<(mysql_async::Conn, catalog::Server)>>,
}

impl Configuration {
    /// Of a configuration.
    pub fn new(flavor: Flavor, config: Config) -> Configuration {
        Configuration {
            flavor,
            config: Arc::new(config),
            confirmed: source::Confirmed::default(),
            session: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Configured for Configuration {
    fn describe(&self) -> String {
        format!("{} as replica {}", self.config, self.config.server_id)
    }
    async fn check(&self) -> Vec<Check> {
        check::check(self.flavor, &self.config).await
    }
    async fn open(&self, resume: Option<&Resume>) -> Result<Opened> {
        open::open(self, resume).await
    }
    async fn status(&self) -> Result<SourceStatus> {
        let mut session = self.session.lock().await;
        let (mut conn, server) = match session.take() {
            Some(s) => s,
            None => {
                let mut conn = sql::Connector::new(self.config.clone()).connect().await?;
                let server = catalog::Server::ask(&mut conn).await?;
                (conn, server)
            }
        };
        let files = server.files(&mut conn).await?;
        // Kept only after an answer: a session that failed is not used again.
        *session = Some((conn, server));
        let confirmed = self.confirmed.lock().ok().and_then(|c| c.clone());
        let lag = confirmed.map(|at| {
            files
                .iter()
                .filter(|f| f.number() >= at.number())
                .map(|f| if f.number() == at.number() { f.offset.saturating_sub(at.offset) } else { f.offset })
                .sum()
        });
        Ok(SourceStatus { lag_bytes: lag, ..SourceStatus::default() })
    }
    fn describe_position(&self, position: &Position) -> String {
        match Stand::decode(position) {
            Ok(s) => format!("{s} of server {}", s.server),
            Err(e) => e.to_string(),
        }
    }
    fn database(&self) -> String {
        self.config.database.clone()
    }
}

//! PostgreSQL connector: logical replication by pgoutput, PostgreSQL 13 and newer.
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | `[pipeline.NAME.source]`, typed |
//! | [`sql`], [`conn`], [`binding`] | SQL sessions, the replication connection, its log-in's tie to TLS |
//! | [`pgoutput`], [`assembler`], [`source`] | messages, transactions, the stream |
//! | [`slot`], [`position`] | publication and slot, places in the log |
//! | [`catalog`], [`decode`] | table schemas, values |
//! | [`copy`], [`snapshot`] | reading what is already there |
//! | [`check`], [`init`], [`errors`] | what the operator sees |

pub mod assembler;
pub mod binding;
pub mod catalog;
pub mod check;
pub mod config;
pub mod conn;
pub mod copy;
pub mod decode;
pub mod errors;
pub mod init;
pub mod pgoutput;
pub mod position;
pub mod slot;
pub mod snapshot;
pub mod source;
pub mod sql;

mod open;

use async_trait::async_trait;
use config::Config;
use position::{Lsn, PgPosition};
use seachange_sdk::{Check, Configured, Connector, Fault, Opened, Position, Result, Resume, SourceStatus};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_postgres::Client;

/// The connector as the daemon registers it.
#[derive(Debug)]
pub struct Postgres;

#[async_trait]
impl Connector for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }
    fn schemes(&self) -> &'static [&'static str] {
        config::DIALECT.schemes
    }
    fn configure(
        &self,
        pipeline: &str,
        path: &str,
        table: &toml::Table,
    ) -> std::result::Result<Arc<dyn Configured>, Vec<Fault>> {
        Ok(Arc::new(Configuration::new(Config::read(pipeline, path, table)?)))
    }
    async fn init(&self, url: &str) -> Result<String> {
        init::init(url).await
    }
}

/// A source whose configuration has been read.
pub struct Configuration {
    config: Arc<Config>,
    /// The session of `status`.
    session: Mutex<Option<Client>>,
}

impl Configuration {
    /// Of a configuration.
    pub fn new(config: Config) -> Configuration {
        Configuration { config: Arc::new(config), session: Mutex::new(None) }
    }
    /// Opens the stream as [`Configured::open`] does, but for measuring: with the binary format, which no decoder reads.
    #[doc(hidden)]
    pub async fn open_binary(&self) -> Result<Opened> {
        open::open(&self.config, None, true).await
    }
}

#[async_trait]
impl Configured for Configuration {
    fn describe(&self) -> String {
        format!("{} slot {} publication {}", self.config, self.config.slot, self.config.publication)
    }
    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }
    async fn open(&self, resume: Option<&Resume>) -> Result<Opened> {
        open::open(&self.config, resume.map(|r| &r.position), false).await
    }
    async fn status(&self) -> Result<SourceStatus> {
        let mut session = self.session.lock().await;
        let client = match session.take().filter(|c| !c.is_closed()) {
            Some(c) => c,
            None => sql::Connector::new(self.config.clone())?.connect().await?,
        };
        let status = open::status(&client, &self.config.slot).await?;
        // Kept only after an answer: a session that failed is not used again.
        *session = Some(client);
        Ok(status)
    }
    fn describe_position(&self, position: &Position) -> String {
        match PgPosition::decode(position) {
            Ok(p) => format!("{p} of system {}", p.system),
            Err(e) => e.to_string(),
        }
    }
    fn database(&self) -> String {
        self.config.database.clone()
    }
}

/// An LSN as a number, for tests and tools.
pub fn parse_lsn(text: &str) -> Option<u64> {
    Lsn::parse(text).map(|l| l.0)
}

//! SQL sessions: the same TLS, account and output settings as the replication connection has.
//!
//! The settings decide how values print, so they are one list used by both kinds of connection: a row must have the same
//! bytes in stream and snapshot. `search_path = pg_catalog` makes `regclass` and its kin print with their schema, and
//! means that a query finds objects of the catalog only, never a namesake somebody made.

use crate::{config::Config, errors};
use rustls::ClientConfig;
use seachange_database::{SslMode, tls};
use seachange_sdk::{Error, Kind, Result};
use std::{sync::Arc, time::Duration};
use tokio_postgres::{Client, NoTls, config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What decides how values print. Given at start-up to every connection of a pipeline. Not `lc_monetary`: money prints right
/// only under the database's own, whose form the catalog finds out.
pub const SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("xmloption", "content"),
    ("search_path", "pg_catalog"),
];

/// What SQL sessions have beside that: they wait for no lock for long, and are never ended for waiting. What they ask is
/// asked of the catalog or read by an index: compiling it takes the server far longer than doing it (with 5,000 tables, 1.2 s
/// of the 1.4 s that looking for them took).
const SESSION: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("jit", "off"),
];

/// The settings as the start-up packet's `options`.
pub fn options(session: bool) -> String {
    let more: &[(&str, &str)] = if session { SESSION } else { &[] };
    SETTINGS.iter().chain(more).map(|(k, v)| format!("-c {k}={v}")).collect::<Vec<_>>().join(" ")
}

/// Quotes an identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a table's name.
pub fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Quotes a string. With `standard_conforming_strings` (the default since 9.1) a backslash needs nothing.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Opens connections to one source.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Config>,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// Reads the TLS files.
    pub fn new(config: Arc<Config>) -> Result<Connector> {
        let tls = tls::client_config(&config)?;
        Ok(Connector { config, tls })
    }
    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }
    /// TLS for the replication connection.
    pub fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }
    /// Opens a SQL session with our settings. A task of its own drives it and ends with the client.
    pub async fn connect(&self) -> Result<Client> {
        let c = &self.config;
        let mut pg = config::Config::new();
        pg.user(&c.user)
            .dbname(&c.database)
            .port(c.port)
            .application_name(&c.application_name)
            .options(options(true))
            .connect_timeout(c.connect_timeout)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(c.read_timeout)
            .ssl_mode(match c.sslmode {
                SslMode::Disable => config::SslMode::Disable,
                SslMode::Prefer => config::SslMode::Prefer,
                _ => config::SslMode::Require,
            });
        if c.is_unix() {
            pg.host_path(&c.host);
        } else {
            pg.host(&c.host);
        }
        if let Some(p) = &c.password {
            pg.password(p.reveal());
        }
        let doing = format!("connecting to {c}");
        // connect_timeout bounds the TCP connection only; the handshake and the login must not hang either.
        let late = || {
            Error::source(Kind::Connect, format!("{doing}: no answer within {:?}", c.connect_timeout))
                .fix("check that the server runs and can be reached")
        };
        let within = c.connect_timeout * 2;
        match &self.tls {
            Some(tls) if !c.is_unix() => {
                let connect = pg.connect(MakeRustlsConnect::new((**tls).clone()));
                let (client, connection) = tokio::time::timeout(within, connect)
                    .await
                    .map_err(|_| late())?
                    .map_err(|e| errors::sql(&doing, e))?;
                tokio::spawn(drive(connection));
                Ok(client)
            }
            _ => {
                let (client, connection) = tokio::time::timeout(within, pg.connect(NoTls))
                    .await
                    .map_err(|_| late())?
                    .map_err(|e| errors::sql(&doing, e))?;
                tokio::spawn(drive(connection));
                Ok(client)
            }
        }
    }
}

async fn drive<C: Future<Output = std::result::Result<(), tokio_postgres::Error>>>(connection: C) {
    // Whoever uses the client gets the error of its own call; this one only tells when it happened.
    if let Err(e) = connection.await {
        tracing::debug!(error = %e, "SQL connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn quoting() {
        assert_eq!(table("a b", "Odd \"N"), r#""a b"."Odd ""N""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), " E'a\\\\'''");
    }
}

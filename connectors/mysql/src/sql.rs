//! SQL sessions: how they are opened, and names and values in statements.

use crate::{config::Config, errors};
use futures_util::FutureExt;
use mysql_async::{ClientIdentity, Conn, OptsBuilder, SslOpts, prelude::Queryable};
use seachange_database::SslMode;
use seachange_sdk::{Result, Side};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::time::{error::Elapsed, timeout};

/// Opens SQL sessions.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Config>,
}

impl Connector {
    /// For a source.
    pub fn new(config: Arc<Config>) -> Connector {
        Connector { config }
    }
    /// The source.
    pub fn config(&self) -> &Config {
        &self.config
    }
    fn options(&self, tls: bool) -> OptsBuilder {
        let c = &self.config;
        let ssl = tls.then(|| {
            let mut s = SslOpts::default();
            if let Some(root) = &c.tls.root {
                s = s.with_root_certs(vec![root.clone().into()]).with_disable_built_in_roots(true);
            }
            if let (Some(cert), Some(key)) = (&c.tls.cert, &c.tls.key) {
                s = s.with_client_identity(Some(ClientIdentity::new(cert.clone().into(), key.clone().into())));
            }
            match (c.sslmode, &c.tls.root) {
                (SslMode::VerifyFull, _) => s,
                // mysql_async knows an error about the name by a word that rustls no longer says, unless the name is that word.
                (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => s
                    .with_danger_skip_domain_validation(true)
                    .with_danger_tls_hostname_override(Some("NotValidForName")),
                _ => s.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true),
            }
        });
        OptsBuilder::default()
            .ip_or_hostname(c.host.clone())
            .tcp_port(c.port)
            .user(Some(c.user.clone()))
            .pass(c.password.as_ref().map(|p| p.reveal().to_owned()))
            .prefer_socket(false)
            .stmt_cache_size(64)
            .tcp_keepalive(Some(std::time::Duration::from_secs(30)))
            // A row can be as large as the protocol allows, whatever the server's own limit is.
            .max_allowed_packet(Some(1 << 30))
            .ssl_opts(ssl)
    }
    /// In time, and without the panics that the library has for some of what a server may say: a password that is asked for by
    /// parsec and is empty is one.
    async fn opened(&self, tls: bool, doing: &str) -> Result<Result<mysql_async::Result<Conn>, Elapsed>> {
        let opening = AssertUnwindSafe(Conn::new(self.options(tls))).catch_unwind();
        match timeout(self.config.connect_timeout, opening).await {
            Ok(Ok(opened)) => Ok(Ok(opened)),
            Ok(Err(_)) => Err(errors::unanswered(doing)),
            Err(elapsed) => Ok(Err(elapsed)),
        }
    }
    /// Opens a session: values come in UTC, with no SQL mode that changes what is read (and the one under which a date of no
    /// calendar may be compared with), waiting as long as it takes.
    pub async fn connect(&self) -> Result<Conn> {
        let doing = format!("connecting to {}", self.config);
        let tls = self.config.sslmode != SslMode::Disable;
        let opened = self.opened(tls, &doing).await?;
        let opened = match opened {
            Ok(Err(mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer)))
                if self.config.sslmode == SslMode::Prefer =>
            {
                self.opened(false, &doing).await?
            }
            other => other,
        };
        let mut conn = match opened {
            Ok(c) => c.map_err(|e| errors::sql(&doing, e))?,
            Err(_) => {
                return Err(seachange_sdk::Error::new(
                    seachange_sdk::Kind::Connect,
                    Side::Source,
                    seachange_sdk::Retry::Backoff,
                    format!("{doing}: no answer within {:?}", self.config.connect_timeout),
                )
                .fix("check that the server runs and can be reached"));
            }
        };
        conn.query_drop(
            "SET SESSION time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES', net_write_timeout = 86400, wait_timeout = 86400",
        )
        .await
        .map_err(|e| errors::sql(&doing, e))?;
        Ok(conn)
    }
}

/// A name in a statement.
pub fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table in a statement.
pub fn table(database: &str, name: &str) -> String {
    format!("{}.{}", ident(database), ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn names() {
        assert_eq!(table("a`b", "c.d"), "`a``b`.`c.d`");
    }
}

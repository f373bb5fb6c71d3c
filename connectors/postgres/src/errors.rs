//! What PostgreSQL's error codes mean for a pipeline: one table from SQLSTATE to kind, retry and remedy.
//!
//! A server's message is kept (it names objects); its DETAIL is not, because it can hold row values.

use seachange_sdk::{Error, Kind, Retry, Side};
use std::io;

/// An error that the server reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The hint, if it gave one.
    pub hint: Option<String>,
}

/// The table. The remedy is for codes that have the same one wherever they happen.
fn meaning(code: &str, message: &str) -> (Kind, Retry, Option<&'static str>) {
    use Kind::*;
    use Retry::*;
    let removed = || {
        Some(
            "the log that the pipeline needs is gone: drop the slot and reset the pipeline's state, so that it takes a new \
             snapshot; raise max_slot_wal_keep_size so that it does not happen again",
        )
    };
    match code {
        "28P01" => (Auth, Operator, Some("check user and password in the pipeline's source")),
        "28000" if message.contains("replication") => {
            (Auth, Operator, Some("let the account replicate: ALTER ROLE <account> REPLICATION;"))
        }
        "28000" => (
            Auth,
            Operator,
            Some("let the account in: check pg_hba.conf (a line for this host, database and user), and sslmode"),
        ),
        "42501" if message.contains("replication") => {
            (Auth, Operator, Some("let the account replicate: ALTER ROLE <account> REPLICATION;"))
        }
        "42501" => (Auth, Operator, Some("grant what is missing: seachange check lists it with the SQL")),
        "3D000" => (Config, Operator, Some("check the database's name in the url")),
        "53300" => (Connect, Backoff, Some("raise max_connections or max_wal_senders, or end unused sessions")),
        "53400" => (Connect, Operator, Some("raise max_replication_slots (restart needed), or drop unused slots")),
        "55006" => (Connect, Backoff, None),
        "58P01" => (Gap, Never, removed()),
        "55000" if message.contains("wal_level") || message.contains("logical decoding requires") => {
            (Config, Operator, Some("set wal_level = logical in postgresql.conf and restart the server"))
        }
        "55000" if message.contains("slot") && !message.contains("max_replication_slots") => (Gap, Never, removed()),
        "55000" => (Config, Operator, None),
        "42704" if message.contains("replication slot") => (Gap, Never, removed()),
        "42704" if message.contains("publication") => (
            Config,
            Operator,
            Some(
                "the publication is missing, or is younger than the log that is read with it: make it before the slot; if it \
                 was dropped and made again, drop the slot and reset the pipeline's state",
            ),
        ),
        "42P01" | "3F000" | "42703" => (Schema, Operator, None),
        "0A000" | "42601" | "42883" | "22023" => (Config, Operator, None),
        _ if code.starts_with("08") || code.starts_with("57") || code.starts_with("53") => (Connect, Backoff, None),
        _ if code.starts_with("40") || code.starts_with("55") => (Connect, Backoff, None),
        _ if code.starts_with("28") => (Auth, Operator, None),
        _ => (Protocol, Backoff, None),
    }
}

impl ServerError {
    /// As the pipeline's error; `doing` says what was tried: "opening the stream".
    pub fn error(&self, doing: &str) -> Error {
        let (kind, retry, fix) = meaning(&self.code, &self.message);
        let e = Error::new(
            kind,
            Side::Source,
            retry,
            format!("{doing}: {} (SQLSTATE {})", self.message.trim_end(), self.code),
        );
        match (fix, &self.hint) {
            (Some(f), _) => e.fix(f),
            (None, Some(h)) => e.fix(h.clone()),
            (None, None) => e,
        }
    }
}

/// An error of a SQL session; `doing` says what was tried.
pub fn sql(doing: &str, e: tokio_postgres::Error) -> Error {
    if let Some(db) = e.as_db_error() {
        let server = ServerError {
            code: db.code().code().to_owned(),
            message: db.message().to_owned(),
            hint: db.hint().map(str::to_owned),
        };
        return server.error(doing);
    }
    let text = chain(&e);
    if text.contains("certificate") || text.contains("TLS") || text.contains("tls") {
        return Error::new(Kind::Connect, Side::Source, Retry::Operator, format!("{doing}: {text}"))
            .fix("check sslmode, ssl_root_cert and the server's certificate");
    }
    if text.contains("password missing") {
        return Error::new(
            Kind::Auth,
            Side::Source,
            Retry::Operator,
            format!("{doing}: the server asks for a password"),
        )
        .fix("set password = \"${env:PGPASSWORD}\" in the pipeline's source");
    }
    Error::source(Kind::Connect, format!("{doing}: {text}")).fix("check that the server runs and can be reached")
}

/// The texts of an error and its causes, each once.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let t = c.to_string();
        if !text.contains(&t) {
            text = format!("{text}: {t}");
        }
        cause = c.source();
    }
    text
}

/// A broken connection.
pub fn io(doing: &str, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData => {
            Error::new(Kind::Connect, Side::Source, Retry::Operator, format!("{doing}: {}", chain(&e)))
                .fix("check sslmode, ssl_root_cert and the server's certificate")
        }
        _ => Error::source(Kind::Connect, format!("{doing}: {}", chain(&e)))
            .fix("check that the server runs and can be reached"),
    }
}

/// The server said something that the protocol does not allow.
pub fn protocol(what: impl Into<String>) -> Error {
    Error::source(Kind::Protocol, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn of(code: &str, message: &str) -> (Kind, Retry) {
        let e = ServerError { code: code.into(), message: message.into(), hint: None }.error("x");
        (e.kind(), e.retryable())
    }
    #[test]
    fn codes() {
        assert_eq!(of("28P01", "password authentication failed"), (Kind::Auth, Retry::Operator));
        assert_eq!(of("55006", "replication slot \"s\" is active for PID 1"), (Kind::Connect, Retry::Backoff));
        assert_eq!(of("42704", "replication slot \"s\" does not exist"), (Kind::Gap, Retry::Never));
        assert_eq!(of("42704", "publication \"p\" does not exist"), (Kind::Config, Retry::Operator));
        assert_eq!(of("55000", "can no longer get changes from replication slot \"s\""), (Kind::Gap, Retry::Never));
        assert_eq!(of("58P01", "requested WAL segment has already been removed"), (Kind::Gap, Retry::Never));
        assert_eq!(of("57P01", "terminating connection"), (Kind::Connect, Retry::Backoff));
        assert_eq!(of("53300", "too many"), (Kind::Connect, Retry::Backoff));
    }
}

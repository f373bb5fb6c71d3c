//! What the servers' error codes mean for a pipeline: one table from code to kind, retry and remedy.
//!
//! A server's message is kept (it names objects), up to the point where some of them quote a value.

use mysql_async::DriverError;
use seachange_sdk::{Error, Kind, Retry, Side};

/// An error that the server reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Its number.
    pub code: u16,
    /// Its words.
    pub message: String,
}

const GONE: &str = "the log that the pipeline needs is gone from this server: point the pipeline at a server that still has it, or \
    start it under a new name so that it takes a new snapshot; keep the log longer (binlog_expire_logs_seconds) so that it \
    does not happen again";

/// What to do about an account whose plugin is not one that we know.
pub const PLUGINS: &str = "let the account use another plugin: on MySQL ALTER USER ... IDENTIFIED WITH caching_sha2_password BY '...', on \
    MariaDB ALTER USER ... IDENTIFIED VIA ed25519 (or parsec, mysql_native_password) USING PASSWORD('...')";

fn meaning(code: u16, message: &str) -> (Kind, Retry, Option<&'static str>) {
    use Kind::*;
    use Retry::*;
    let has = |s: &str| message.contains(s);
    match code {
        1045 | 1698 => (Auth, Operator, Some("check user and password in the pipeline's source")),
        1130 | 1129 => {
            (Auth, Operator, Some("let this host in: CREATE USER or ALTER USER for it, FLUSH HOSTS if it was blocked"))
        }
        1227 if has("SLAVE") || has("REPLICATION") => {
            (Auth, Operator, Some("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the account"))
        }
        1044 | 1142 | 1143 | 1227 | 1370 => {
            (Auth, Operator, Some("grant what is missing: seachange check lists it with the SQL"))
        }
        1236 | 1789 | 3510 => {
            if has("max_allowed_packet") {
                (Limit, Operator, Some("SET GLOBAL max_allowed_packet = 1073741824 at the server"))
            } else if has("same server_uuid") || has("same server_id") || has("same server-id") || has("zombie") {
                (Fenced, Backoff, Some("another replica uses this number: give the pipeline a server_id of its own"))
            } else if has("Could not find first log")
                || has("purged")
                || has("could not find GTID")
                || has("Could not find GTID")
                || has("not in the master's binlog")
                || has("is not in the master")
                || has("missing")
            {
                (Gap, Never, Some(GONE))
            } else if has("Slave has more GTIDs")
                || has("Replica has more GTIDs")
                || has("more GTIDs than")
                || has("ahead")
            {
                (
                    Gap,
                    Operator,
                    Some(
                        "this server has not got the transactions that the pipeline has delivered: it lags behind, was reset, or is \
                         another one; wait until it has caught up, or point the pipeline at the right server",
                    ),
                )
            } else if has("corrupt") || has("checksum") || has("bogus data") || has("impossible position") {
                (Gap, Operator, Some("the server cannot read its own log there: check it with mysqlbinlog"))
            } else {
                (Protocol, Backoff, None)
            }
        }
        1040 | 1203 | 1226 => (Connect, Backoff, Some("raise max_connections, or end unused sessions")),
        1053 | 1077 | 1079 | 1152 | 1153 | 1158..=1161 | 1927 | 2006 | 2013 | 3169 => (Connect, Backoff, None),
        1205 | 1213 | 1317 | 3024 => (Connect, Backoff, None),
        1049 | 1146 | 1054 => (Schema, Operator, None),
        1381 => (Config, Operator, Some("start the server with log_bin")),
        1064 | 1193 | 1231 | 1235 => (Config, Operator, None),
        _ => (Protocol, Backoff, None),
    }
}

impl ServerError {
    /// As the pipeline's error; `doing` says what was tried: "opening the stream".
    pub fn error(&self, doing: &str) -> Error {
        let (kind, retry, fix) = meaning(self.code, &self.message);
        let e = Error::new(
            kind,
            Side::Source,
            retry,
            format!("{doing}: {} (error {})", self.message.trim_end(), self.code),
        );
        match fix {
            Some(f) => e.fix(f),
            None => e,
        }
    }
}

/// An error of a SQL session; `doing` says what was tried.
pub fn sql(doing: &str, e: mysql_async::Error) -> Error {
    match e {
        mysql_async::Error::Server(s) => ServerError { code: s.code, message: s.message }.error(doing),
        mysql_async::Error::Driver(
            e @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled
            | DriverError::InvalidParsecSalt),
        ) => Error::new(Kind::Auth, Side::Source, Retry::Operator, format!("{doing}: {e}")).fix(PLUGINS),
        other => {
            let text = other.to_string();
            let tls =
                text.contains("certificate") || text.contains("TLS") || text.contains("Tls") || text.contains("tls");
            if tls {
                return Error::new(Kind::Connect, Side::Source, Retry::Operator, format!("{doing}: {text}"))
                    .fix("check sslmode, ssl_root_cert and the server's certificate");
            }
            Error::source(Kind::Connect, format!("{doing}: {text}"))
                .fix("check that the server runs and can be reached")
        }
    }
}

/// A SQL session whose opening has panicked: the library does so when a password is asked for in a way that it cannot answer.
pub fn unanswered(doing: &str) -> Error {
    let what = format!("{doing}: the server asks for the password in a way that cannot be answered");
    Error::new(Kind::Auth, Side::Source, Retry::Operator, what)
        .fix(format!("set the password of the pipeline's source if it has none; or {PLUGINS}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_hole_in_the_log_is_never_tried_again() {
        let e = ServerError {
            code: 1236,
            message: "Cannot replicate because the source purged required binary logs.".into(),
        }
        .error("opening the stream");
        assert_eq!((e.kind(), e.retryable()), (Kind::Gap, Retry::Never));
        let e = ServerError { code: 1236, message: "log event entry exceeded max_allowed_packet".into() }.error("x");
        assert_eq!(e.kind(), Kind::Limit);
        let e = ServerError { code: 1053, message: "Server shutdown in progress".into() }.error("x");
        assert_eq!((e.kind(), e.retryable()), (Kind::Connect, Retry::Backoff));
    }
}

//! What differs between MySQL and MariaDB, and the `source` block that both have.

use seachange_sdk::{SourceField, SourceLayout, SourceValue};
use std::sync::Arc;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Oracle MySQL, Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavor {
    /// The value of `type` in the configuration, and of `connector` in the `source` block.
    pub const fn kind(self) -> &'static str {
        match self {
            Flavor::MySql => "mysql",
            Flavor::MariaDb => "mariadb",
        }
    }
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        }
    }
    /// Of a server's version text.
    pub fn of(version: &str) -> Flavor {
        if version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql }
    }
    /// The statement that tells the log's end. MySQL renamed it in 8.2 and dropped the old name in 8.4.
    pub fn log_status(self, version: (u32, u32, u32)) -> &'static str {
        if self == Flavor::MySql && version >= (8, 2, 0) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }
    /// The `source` block, in Debezium's order.
    pub fn layout(self) -> Arc<SourceLayout> {
        use SourceValue::*;
        let field = |name, value| SourceField { name, value };
        Arc::new(SourceLayout {
            connector: self.kind(),
            fields: vec![
                field("version", Version),
                field("connector", Connector),
                field("name", Name),
                field("ts_ms", TsMs),
                field("snapshot", Snapshot),
                field("db", Database),
                field("sequence", Null),
                field("ts_us", TsUs),
                field("ts_ns", TsNs),
                field("table", Table),
                field("server_id", ServerId),
                field("gtid", Gtid),
                field("file", File),
                field("pos", At),
                field("row", Row),
                field("thread", Thread),
                field("query", Null),
            ],
        })
    }
}

/// Three numbers at the beginning of a version: `10.11.18-MariaDB`.
pub fn version(text: &str) -> (u32, u32, u32) {
    // MariaDB hides behind 5.5.5- in its greeting
    let text = text.strip_prefix("5.5.5-").unwrap_or(text);
    let mut n = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    let mut next = || n.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn versions() {
        assert_eq!(version("9.7.4"), (9, 7, 4));
        assert_eq!(version("5.5.5-10.11.18-MariaDB-0+deb12u1-log"), (10, 11, 18));
        assert_eq!((Flavor::of("10.11.18-MariaDB"), Flavor::of("8.4.3")), (Flavor::MariaDb, Flavor::MySql));
        assert_eq!(Flavor::MySql.log_status((8, 0, 40)), "SHOW MASTER STATUS");
        assert_eq!(Flavor::MySql.log_status((9, 7, 4)), "SHOW BINARY LOG STATUS");
    }
}

//! `[pipeline.NAME.source]` of types `mysql` and `mariadb`, typed.

use seachange_database::{Dialect, Reader, Settings};
use seachange_sdk::Fault;
use std::{fmt, ops::Deref, time::Duration};

/// The words of MySQL and MariaDB.
pub static DIALECT: Dialect = Dialect {
    schemes: &["mysql", "mariadb"],
    port: 3306,
    keys: &[
        "url",
        "password",
        "tables",
        "exclude",
        "columns",
        "server_id",
        "sslmode",
        "ssl_root_cert",
        "ssl_cert",
        "ssl_key",
        "connect_timeout",
        "read_timeout",
        "start_timeout",
    ],
    params: &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout"],
    password: "MYSQL_PASSWORD",
    password_file: "/run/secrets/mysql",
    space: "database",
    example: "shop",
    tables: "tables = [\"shop.*\"] (database.table)",
};

/// The source's configuration. The database of the URL is only what `describe` shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What every source has.
    pub settings: Settings,
    /// Number under which this pipeline registers as a replica.
    pub server_id: u32,
    /// How long the server may be silent at first, while it looks for the place to start from.
    pub start_timeout: Duration,
}

impl Deref for Config {
    type Target = Settings;
    fn deref(&self) -> &Settings {
        &self.settings
    }
}
impl fmt::Display for Config {
    /// `mysql://cdc@db:3306/shop`: no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql://{}", self.settings)
    }
}

/// The number under which a pipeline registers as a replica, when none is configured: from its name, in the upper half,
/// where people do not number their servers.
pub fn default_server_id(pipeline: &str) -> u32 {
    let hash = pipeline.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (hash | 0x8000_0000).min(u32::MAX - 1)
}

impl Config {
    /// Reads the table. `path` is `pipeline.NAME.source`.
    pub fn read(pipeline: &str, path: &str, table: &toml::Table) -> Result<Config, Vec<Fault>> {
        let mut reader = Reader::new(&DIALECT, path, table);
        let start_timeout = reader.keys.duration("start_timeout", Duration::from_secs(1));
        let settings = reader.settings(pipeline);
        let start_timeout = start_timeout.unwrap_or(Duration::from_secs(600)).max(settings.read_timeout);
        let mut k = reader.keys;
        let server_id = match table.get("server_id") {
            None => default_server_id(pipeline),
            Some(toml::Value::Integer(n)) if (1..i64::from(u32::MAX)).contains(n) => *n as u32,
            Some(_) => {
                k.fault(
                    "server_id",
                    "is no number from 1 to 4294967294",
                    "write a number that no replica of the server has",
                );
                1
            }
        };
        k.end(Config { settings, server_id, start_timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seachange_database::SslMode;

    fn read(text: &str) -> Result<Config, Vec<Fault>> {
        Config::read("shop", "pipeline.shop.source", &text.parse().unwrap())
    }
    fn paths(text: &str) -> Vec<String> {
        read(text).unwrap_err().into_iter().map(|f| f.path.replace("pipeline.shop.source.", "")).collect()
    }

    #[test]
    fn the_shortest_one_that_works() {
        let c = read("url = 'mysql://cdc@db'\ntables = ['shop.*']").unwrap();
        assert_eq!((c.host.as_str(), c.port, c.user.as_str(), c.database.as_str()), ("db", 3306, "cdc", ""));
        assert!(c.sslmode == SslMode::Prefer && c.server_id >= 0x8000_0000);
        assert_eq!(c.to_string(), "mysql://cdc@db:3306/");
        assert_ne!(default_server_id("a"), default_server_id("b"));
    }
    #[test]
    fn everything_wrong_at_once() {
        let got = paths("server_id = 0\nstart_timeout = '10'\nread_timeout = '10'");
        for want in ["url", "tables", "server_id", "start_timeout", "read_timeout"] {
            assert!(got.iter().any(|g| g == want), "{want} is not in {got:?}");
        }
        let c = read("url = 'mariadb://c@h'\ntables = ['a.b']\nstart_timeout = '5s'\nserver_id = 7").unwrap();
        assert_eq!((c.start_timeout.as_secs(), c.server_id), (60, 7), "silence is allowed as long as later, at least");
    }
}

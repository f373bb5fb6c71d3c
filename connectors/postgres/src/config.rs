//! `[pipeline.NAME.source]` of type `postgres`, typed.

use seachange_database::{Dialect, Reader, Settings};
use seachange_sdk::Fault;
use std::{fmt, ops::Deref, time::Duration};

/// PostgreSQL's words.
pub static DIALECT: Dialect = Dialect {
    schemes: &["postgres", "postgresql"],
    port: 5432,
    keys: &[
        "url",
        "password",
        "tables",
        "exclude",
        "columns",
        "slot",
        "publication",
        "create",
        "failover",
        "heartbeat",
        "sslmode",
        "ssl_root_cert",
        "ssl_cert",
        "ssl_key",
        "connect_timeout",
        "read_timeout",
        "application_name",
    ],
    params: &[
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "application_name",
        "connect_timeout",
        "user",
        "password",
        "host",
        "port",
        "dbname",
    ],
    password: "PGPASSWORD",
    password_file: "/run/secrets/pg",
    space: "schema",
    example: "public",
    tables: "tables = [\"public.*\"]",
};

/// The source's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What every source has.
    pub settings: Settings,
    /// Name of the replication slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// May publication and slot be made, and tables added to the publication?
    pub create: bool,
    /// Make the slot a failover slot (17 and newer).
    pub failover: bool,
    /// How often to write a heartbeat message.
    pub heartbeat: Option<Duration>,
    /// Name shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Deref for Config {
    type Target = Settings;
    fn deref(&self) -> &Settings {
        &self.settings
    }
}
impl fmt::Display for Config {
    /// `postgres://cdc@db:5432/shop`: no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}", self.settings)
    }
}

/// The default name of slot and publication: lower case, because slots allow nothing else.
pub fn default_name(pipeline: &str) -> String {
    let mut s: String = format!("seachange_{pipeline}")
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
        .collect();
    s.truncate(63);
    s
}

fn valid_slot(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Config {
    /// Reads the table. `path` is `pipeline.NAME.source`.
    pub fn read(pipeline: &str, path: &str, table: &toml::Table) -> Result<Config, Vec<Fault>> {
        let mut reader = Reader::new(&DIALECT, path, table);
        let application_name =
            reader.either("application_name", "application_name").unwrap_or_else(|| format!("seachange {pipeline}"));
        let mut settings = reader.settings(pipeline);
        if settings.database.is_empty() {
            // As in libpq.
            settings.database.clone_from(&settings.user);
        }
        let mut k = reader.keys;
        let slot = k.filled("slot").unwrap_or_else(|| default_name(pipeline));
        if !valid_slot(&slot) {
            k.fault(
                "slot",
                format!("{slot:?} is no name of a replication slot"),
                "use up to 63 lower-case letters, digits and underscores",
            );
        }
        let publication = k.filled("publication").unwrap_or_else(|| default_name(pipeline));
        if publication.len() > 63 || publication.contains('\0') {
            k.fault("publication", "is longer than 63 bytes", "choose a shorter name");
        }
        let create = k.flag("create").unwrap_or(true);
        let failover = k.flag("failover").unwrap_or(false);
        if failover && !create {
            k.fault("failover", "has no effect with create = false", "make the slot with failover, or let it be made");
        }
        let heartbeat = k.duration("heartbeat", Duration::from_millis(100));
        k.end(Config { settings, slot, publication, create, failover, heartbeat, application_name })
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
        let c = read("url = 'postgres://cdc@db/shop'\ntables = ['public.*']").unwrap();
        assert_eq!((c.host.as_str(), c.port, c.user.as_str(), c.database.as_str()), ("db", 5432, "cdc", "shop"));
        assert_eq!((c.slot.as_str(), c.publication.as_str()), ("seachange_shop", "seachange_shop"));
        assert!(c.create && !c.failover && c.heartbeat.is_none() && c.sslmode == SslMode::Prefer);
        assert_eq!(c.to_string(), "postgres://cdc@db:5432/shop");
    }
    #[test]
    fn parameters_of_the_url() {
        let c =
            read("url = 'postgresql://h?user=u&password=w&host=%2Ftmp&port=99&application_name=a'\ntables = ['a.b']")
                .unwrap();
        assert_eq!((c.to_string().as_str(), c.application_name.as_str()), ("postgres://u@/tmp:99/u", "a"));
        assert_eq!(c.password.as_ref().map(|p| p.reveal()), Some("w"));
    }
    #[test]
    fn everything_wrong_at_once() {
        let got = paths("slot = 'Bad-Slot'\nheartbeat = '10'\ncreate = 'yes'\nfailover = 1\nread_timeout = '10'");
        for want in ["url", "tables", "slot", "heartbeat", "create", "failover", "read_timeout"] {
            assert!(got.iter().any(|g| g == want), "{want} is not in {got:?}");
        }
        assert_eq!(paths("url = 'postgres://c@h/d'\ntables = ['a.b']\ncreate = false\nfailover = true"), ["failover"]);
    }
    #[test]
    fn names() {
        assert_eq!(default_name("Shop-1"), "seachange_shop_1");
        assert_eq!(default_name(&"x".repeat(99)).len(), 63);
    }
}

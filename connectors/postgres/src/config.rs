//! `[pipeline.NAME.source]` of type `postgres`, typed.
//!
//! Read by hand and not by serde's derive, because every fault is to be reported at once with its path and a remedy.

use percent_encoding::percent_decode_str;
use seachange_sdk::{Fault, Secret, Selection};
use std::{fmt, path::PathBuf, time::Duration};

/// How much TLS: libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server has it, unverified. The default, as in libpq.
    Prefer,
    /// Always, unverified (with `ssl_root_cert`: as `verify-ca`).
    Require,
    /// Always; the certificate must come from a trusted CA.
    VerifyCa,
    /// Always; the certificate must come from a trusted CA and name the host.
    VerifyFull,
}

impl SslMode {
    fn parse(s: &str) -> Option<SslMode> {
        Some(match s {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
    /// libpq's word.
    pub const fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// TLS files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// CA certificates, PEM. `None`: the system's.
    pub root: Option<PathBuf>,
    /// Client certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

/// The source's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pipeline's name.
    pub pipeline: String,
    /// Host name, address, or the folder of a Unix socket (starts with `/`).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// What is captured.
    pub selection: Selection,
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
    /// TLS.
    pub sslmode: SslMode,
    /// Its files.
    pub tls: TlsFiles,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long the server may be silent.
    pub read_timeout: Duration,
    /// Name shown in `pg_stat_activity`.
    pub application_name: String,
}

impl fmt::Display for Config {
    /// `postgres://cdc@db:5432/shop`: no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = self.host.contains(':') && !self.host.starts_with('/');
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        write!(f, "postgres://{}@{open}{}{close}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Config {
    /// Is the host a Unix socket's folder?
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }
    /// Does the connection stay on this machine?
    pub fn is_local(&self) -> bool {
        self.is_unix()
            || self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

const KEYS: &[&str] = &[
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
];

/// The parts of a connection URL.
#[derive(Debug, Default, PartialEq)]
pub struct Url {
    /// Account.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database.
    pub database: Option<String>,
    /// Parameters after `?`.
    pub params: Vec<(String, String)>,
}

impl Url {
    /// Parses `postgres://user:password@host:port/database?sslmode=...`. The error never quotes the URL: it may hold a
    /// password.
    pub fn parse(text: &str) -> Result<Url, String> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("does not begin with postgres:// or postgresql://")?;
        let decode = |s: &str| {
            percent_decode_str(s)
                .decode_utf8()
                .map(|s| s.into_owned())
                .map_err(|_| "is not UTF-8 when decoded".to_owned())
        };
        let some =
            |s: &str| -> Result<Option<String>, String> { if s.is_empty() { Ok(None) } else { decode(s).map(Some) } };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut url = Url::default();
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        url.user = some(user)?;
        url.password = some(password)?.map(Secret::new);
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("has a [ without ]")?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or("has text after ]")?) })
            }
            None => address.split_once(':').map_or((address, None), |(h, p)| (h, Some(p))),
        };
        if host.contains(',') || port.is_some_and(|p| p.contains(',')) {
            return Err("names more than one host: name the primary's".into());
        }
        url.host = some(host)?;
        url.port = match port {
            None | Some("") => None,
            Some(p) => Some(p.parse().map_err(|_| "has a port that is no number from 1 to 65535")?),
        };
        url.database = some(path)?;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = pair.split_once('=').ok_or("has a parameter without =")?;
            url.params.push((decode(k)?, decode(v)?));
        }
        Ok(url)
    }
}

/// A number and a unit: `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (n, unit) = text.split_at(at);
    let n: u64 = n.parse().ok()?;
    Some(match unit.trim() {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n.checked_mul(60)?),
        "h" => Duration::from_secs(n.checked_mul(3600)?),
        _ => return None,
    })
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (distance(key, k), *k))
        .min()
        .filter(|(d, k)| *d <= 3 && *d * 2 <= k.len().max(key.len()))
        .map(|(_, k)| k)
}

fn unknown(path: &str, key: &str, known: &[&str]) -> Fault {
    let fix = match nearest(key, known) {
        Some(k) => format!("did you mean {k}?"),
        None => format!("known keys: {}", known.join(", ")),
    };
    Fault::new(format!("{path}.{key}"), "unknown key", fix)
}

/// Reads typed values out of a table and collects faults.
struct Keys<'a> {
    table: &'a toml::Table,
    path: &'a str,
    faults: Vec<Fault>,
}

impl Keys<'_> {
    fn fault(&mut self, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}.{key}", self.path), what, fix));
    }
    fn wrong(&mut self, key: &str, found: &toml::Value, want: &str) {
        self.fault(key, format!("is {}, not {want}", article(found.type_str())), format!("write {want}"));
    }
    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.get(key)? {
            toml::Value::String(s) => Some(s.clone()),
            other => {
                let other = other.clone();
                self.wrong(key, &other, "a string");
                None
            }
        }
    }
    fn filled(&mut self, key: &str) -> Option<String> {
        let s = self.text(key)?;
        if s.is_empty() {
            self.fault(key, "is empty", "give it a value, or leave the key out");
            return None;
        }
        Some(s)
    }
    fn flag(&mut self, key: &str) -> Option<bool> {
        match self.table.get(key)? {
            toml::Value::Boolean(b) => Some(*b),
            other => {
                let other = other.clone();
                self.wrong(key, &other, "true or false");
                None
            }
        }
    }
    fn duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        let s = self.text(key)?;
        match duration(&s) {
            Some(d) if d >= least => Some(d),
            Some(_) => {
                self.fault(key, "is too short", format!("write at least {least:?}"));
                None
            }
            None => {
                self.fault(key, "is no duration", "write a number and a unit, such as \"10s\" or \"500ms\"");
                None
            }
        }
    }
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

/// A list of strings under `table[key]`.
fn list(table: &toml::Table, key: &str, path: &str, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
    let value = table.get(key)?;
    let items = match value {
        toml::Value::Array(a) => a.as_slice(),
        other => {
            faults.push(Fault::new(
                path,
                format!("is {}, not a list of strings", article(other.type_str())),
                "write [\"...\"]",
            ));
            return None;
        }
    };
    let mut out = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match item {
            toml::Value::String(s) => out.push(s.clone()),
            other => faults.push(Fault::new(
                format!("{path}[{i}]"),
                format!("is {}, not a string", article(other.type_str())),
                "put it in quotes",
            )),
        }
    }
    Some(out)
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
        let mut k = Keys { table, path, faults: Vec::new() };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            k.faults.push(unknown(path, key, KEYS));
        }
        let url = match k.text("url").map(|s| Url::parse(&s)) {
            Some(Ok(url)) => url,
            Some(Err(what)) => {
                k.fault("url", what, "write postgres://user@host:5432/database; percent-encode special characters");
                Url::default()
            }
            None => {
                if !table.contains_key("url") {
                    k.fault("url", "is missing", "write url = \"postgres://user@host:5432/database\"");
                }
                Url::default()
            }
        };
        let mut from_url = |name: &str| {
            let found = url.params.iter().filter(|(key, _)| key == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
            if found.len() > 1 {
                k.faults.push(Fault::new(
                    format!("{path}.url"),
                    format!("gives {name} more than once"),
                    "give it once",
                ));
            }
            found.into_iter().next()
        };
        let in_url = [
            ("sslmode", from_url("sslmode")),
            ("ssl_root_cert", from_url("sslrootcert")),
            ("ssl_cert", from_url("sslcert")),
            ("ssl_key", from_url("sslkey")),
            ("application_name", from_url("application_name")),
            ("connect_timeout", from_url("connect_timeout")),
            ("user", from_url("user")),
            ("password", from_url("password")),
            ("host", from_url("host")),
            ("port", from_url("port")),
            ("dbname", from_url("dbname")),
        ];
        let param = |name: &str| in_url.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.clone());
        const PARAMS: &[&str] = &[
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
        ];
        for (name, _) in url.params.iter().filter(|(n, _)| !PARAMS.contains(&n.as_str())) {
            let fix = nearest(name, PARAMS)
                .map_or_else(|| format!("known parameters: {}", PARAMS.join(", ")), |n| format!("did you mean {n}?"));
            k.fault("url", format!("has the unknown parameter {name}"), fix);
        }
        // The same thing said twice, differently, is a contradiction and not a precedence to be learned.
        let both = |k: &mut Keys<'_>, key: &str| -> Option<String> {
            let own = k.filled(key);
            let theirs = param(key);
            if let (Some(a), Some(b)) = (&own, &theirs)
                && a != b
            {
                k.fault(key, "contradicts the url's parameter", "say it in one place");
            }
            own.or(theirs)
        };
        let sslmode = both(&mut k, "sslmode");
        let root = both(&mut k, "ssl_root_cert").map(PathBuf::from);
        let cert = both(&mut k, "ssl_cert").map(PathBuf::from);
        let key = both(&mut k, "ssl_key").map(PathBuf::from);
        let application_name = both(&mut k, "application_name").unwrap_or_else(|| format!("seachange {pipeline}"));
        let sslmode = match sslmode.as_deref().map(|s| (s, SslMode::parse(s))) {
            None => SslMode::Prefer,
            Some((_, Some(m))) => m,
            Some((s, None)) => {
                const MODES: &[&str] = &["disable", "prefer", "require", "verify-ca", "verify-full"];
                k.fault("sslmode", format!("{s:?} is no sslmode"), format!("write one of {}", MODES.join(", ")));
                SslMode::Prefer
            }
        };
        if sslmode == SslMode::Disable {
            for (name, file) in [("ssl_root_cert", &root), ("ssl_cert", &cert), ("ssl_key", &key)] {
                if file.is_some() {
                    k.fault(name, "has no effect with sslmode = \"disable\"", "remove it, or choose another sslmode");
                }
            }
        }
        match (&cert, &key) {
            (Some(_), None) => k.fault("ssl_cert", "has no key", "set ssl_key too"),
            (None, Some(_)) => k.fault("ssl_key", "has no certificate", "set ssl_cert too"),
            _ => {}
        }
        let connect_timeout =
            match (k.duration("connect_timeout", Duration::from_millis(100)), param("connect_timeout")) {
                (Some(d), _) => d,
                (None, Some(s)) => match s.parse::<u64>() {
                    Ok(n) if n > 0 => Duration::from_secs(n),
                    _ => {
                        k.fault(
                            "url",
                            "has a connect_timeout that is no number of seconds",
                            "write connect_timeout=10",
                        );
                        Duration::from_secs(10)
                    }
                },
                (None, None) => Duration::from_secs(10),
            };
        let read_timeout = k.duration("read_timeout", Duration::from_secs(1)).unwrap_or(Duration::from_secs(60));
        let password = match (k.text("password"), url.password.clone().or_else(|| param("password").map(Secret::new))) {
            (Some(_), Some(_)) => {
                k.fault("password", "is given here and in the url", "keep one: better here, as \"${env:PGPASSWORD}\"");
                None
            }
            (Some(s), None) => Some(Secret::new(s)),
            (None, theirs) => theirs,
        };
        let user = url.user.clone().or_else(|| param("user"));
        let database = url.database.clone().or_else(|| param("dbname")).or_else(|| user.clone());
        if table.get("url").is_some_and(toml::Value::is_str) && user.is_none() && k.faults.is_empty() {
            k.fault("url", "names no user", "write postgres://user@host:5432/database");
        }
        let port = match (url.port, param("port")) {
            (Some(0), _) => {
                k.fault("url", "has port 0", "write the server's port, usually 5432");
                5432
            }
            (Some(p), _) => p,
            (None, Some(p)) => p.parse().unwrap_or_else(|_| {
                k.fault("url", "has a port that is no number", "write the server's port, usually 5432");
                5432
            }),
            (None, None) => 5432,
        };
        // As in libpq, the parameter wins: it can name the folder of a Unix socket.
        let host = param("host").or_else(|| url.host.clone()).unwrap_or_else(|| "localhost".into());

        let mut faults = std::mem::take(&mut k.faults);
        let tables = list(table, "tables", &format!("{path}.tables"), &mut faults);
        if !table.contains_key("tables") || tables.as_ref().is_some_and(Vec::is_empty) {
            faults.push(Fault::new(
                format!("{path}.tables"),
                if tables.is_some() { "is empty: nothing would be captured" } else { "is missing" },
                "name the tables to capture, such as tables = [\"public.*\"]",
            ));
        }
        let exclude = list(table, "exclude", &format!("{path}.exclude"), &mut faults).unwrap_or_default();
        let columns = match table.get("columns") {
            None => Vec::new(),
            Some(toml::Value::Table(t)) => {
                for key in t.keys().filter(|key| *key != "exclude") {
                    faults.push(unknown(&format!("{path}.columns"), key, &["exclude"]));
                }
                list(t, "exclude", &format!("{path}.columns.exclude"), &mut faults).unwrap_or_default()
            }
            Some(other) => {
                faults.push(Fault::new(
                    format!("{path}.columns"),
                    format!("is {}, not a table", article(other.type_str())),
                    "write columns.exclude = [\"schema.table.column\"]",
                ));
                Vec::new()
            }
        };
        let selection = Selection::parse(path, &tables.unwrap_or_default(), &exclude, &columns, &mut faults);
        k.faults = faults;

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
        if !k.faults.is_empty() {
            return Err(k.faults);
        }
        Ok(Config {
            pipeline: pipeline.to_owned(),
            host,
            port,
            user: user.unwrap_or_default(),
            password,
            database: database.unwrap_or_default(),
            selection,
            slot,
            publication,
            create,
            failover,
            heartbeat,
            sslmode,
            tls: TlsFiles { root, cert, key },
            connect_timeout,
            read_timeout,
            application_name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn urls() {
        let u = Url::parse("postgresql://a%40b:p%3Aw%2F@[::1]:77/d%20b?sslmode=require&host=%2Ftmp").unwrap();
        assert_eq!((u.user.as_deref(), u.password.as_ref().map(Secret::reveal)), (Some("a@b"), Some("p:w/")));
        assert_eq!((u.host.as_deref(), u.port, u.database.as_deref()), (Some("::1"), Some(77), Some("d b")));
        assert_eq!(u.params, [("sslmode".into(), "require".into()), ("host".into(), "/tmp".into())]);
        for bad in [
            "mysql://x",
            "postgres://[::1/x",
            "postgres://h:99999/x",
            "postgres://a,b/x",
            "postgres://h/x?a",
            "postgres://%ff@h/x",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn everything_wrong_at_once() {
        let got = paths(
            "urll = 'x'\ntables = 'public.*'\nslot = 'Bad-Slot'\nheartbeat = '10'\nsslmode = 'on'\nssl_cert = 'a'\n\
             create = 'yes'\nexclude = [1, 'a.b.c']\ncolumns.excludes = []\nfailover = 1",
        );
        for want in [
            "urll",
            "url",
            "tables",
            "slot",
            "heartbeat",
            "sslmode",
            "ssl_cert",
            "create",
            "exclude[0]",
            "columns.excludes",
        ] {
            assert!(got.iter().any(|g| g == want), "{want} is not in {got:?}");
        }
    }
    #[test]
    fn suggestions_and_contradictions() {
        let f = read("url = 'postgres://c@h/d'\ntables = ['a.b']\npublicaton = 'x'").unwrap_err();
        assert!(f.iter().any(|f| f.fix == "did you mean publication?"), "{f:?}");
        assert_eq!(
            paths("url = 'postgres://c@h/d?sslmode=require'\nsslmode = 'disable'\ntables = ['a.b']"),
            ["sslmode"]
        );
        assert_eq!(paths("url = 'postgres://c:x@h/d'\npassword = 'y'\ntables = ['a.b']"), ["password"]);
        assert_eq!(paths("url = 'postgres://c@h/d'\ntables = ['a.b']\ncreate = false\nfailover = true"), ["failover"]);
        assert_eq!(paths("url = 'postgres://c@h/d'\ntables = []"), ["tables"]);
    }
    #[test]
    fn no_fault_quotes_a_password() {
        let f = read("url = 'postgre://c:hunter2@h/d'\npassword = 'hunter2'\ntables = ['x']\nslot = ''").unwrap_err();
        assert!(!format!("{f:?}").contains("hunter2"));
        let c = read("url = 'postgres://c:hunter2@h/d'\ntables = ['a.x']").unwrap();
        assert!(!format!("{c:?} {c}").contains("hunter2"));
    }
    #[test]
    fn durations_and_names() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("5 m"), Some(Duration::from_secs(300)));
        for bad in ["", "10", "s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(default_name("Shop-1"), "seachange_shop_1");
        assert_eq!(default_name(&"x".repeat(99)).len(), 63);
    }
}

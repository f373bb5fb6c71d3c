//! `[pipeline.NAME.source]` of types `mysql` and `mariadb`, typed.
//!
//! Read by hand and not by serde's derive, because every fault is to be reported at once with its path and a remedy.

use percent_encoding::percent_decode_str;
use seachange_sdk::{Fault, Secret, Selection};
use std::{fmt, path::PathBuf, time::Duration};

/// How much TLS: the same words as for PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server has it, unverified. The default.
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
    /// Its word.
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
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Database of the URL, if it names one: only what `describe` shows.
    pub database: String,
    /// What is captured.
    pub selection: Selection,
    /// Number under which this pipeline registers as a replica.
    pub server_id: u32,
    /// TLS.
    pub sslmode: SslMode,
    /// Its files.
    pub tls: TlsFiles,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long the server may be silent.
    pub read_timeout: Duration,
    /// How long it may be silent at first, while it looks for the place to start from.
    pub start_timeout: Duration,
}

impl fmt::Display for Config {
    /// `mysql://cdc@db:3306/shop`: no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = self.host.contains(':');
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        write!(f, "mysql://{}@{open}{}{close}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Config {
    /// Does the connection stay on this machine?
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

const KEYS: &[&str] = &[
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
    /// Parses `mysql://user:password@host:port/database?sslmode=...` (or `mariadb://`). The error never quotes the URL: it may hold a
    /// password.
    pub fn parse(text: &str) -> Result<Url, String> {
        let rest = text
            .strip_prefix("mysql://")
            .or_else(|| text.strip_prefix("mariadb://"))
            .ok_or("does not begin with mysql:// or mariadb://")?;
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

/// The number under which a pipeline registers as a replica, when none is configured: from its name, in the upper half,
/// where people do not number their servers.
pub fn default_server_id(pipeline: &str) -> u32 {
    let hash = pipeline.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (hash | 0x8000_0000).min(u32::MAX - 1)
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
                k.fault("url", what, "write mysql://user@host:3306/database; percent-encode special characters");
                Url::default()
            }
            None => {
                if !table.contains_key("url") {
                    k.fault("url", "is missing", "write url = \"mysql://user@host:3306/database\"");
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
            ("connect_timeout", from_url("connect_timeout")),
        ];
        let param = |name: &str| in_url.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.clone());
        const PARAMS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout"];
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
        let start_timeout =
            k.duration("start_timeout", Duration::from_secs(1)).unwrap_or(Duration::from_secs(600)).max(read_timeout);
        let password = match (k.text("password"), url.password.clone()) {
            (Some(_), Some(_)) => {
                k.fault(
                    "password",
                    "is given here and in the url",
                    "keep one: better here, as \"${env:MYSQL_PASSWORD}\"",
                );
                None
            }
            (Some(s), None) => Some(Secret::new(s)),
            (None, theirs) => theirs,
        };
        let user = url.user.clone();
        let database = url.database.clone();
        if table.get("url").is_some_and(toml::Value::is_str) && user.is_none() && k.faults.is_empty() {
            k.fault("url", "names no user", "write mysql://user@host:3306/database");
        }
        let port = match url.port {
            Some(0) => {
                k.fault("url", "has port 0", "write the server's port, usually 3306");
                3306
            }
            Some(p) => p,
            None => 3306,
        };
        let host = url.host.clone().unwrap_or_else(|| "localhost".into());

        let mut faults = std::mem::take(&mut k.faults);
        let tables = list(table, "tables", &format!("{path}.tables"), &mut faults);
        if !table.contains_key("tables") || tables.as_ref().is_some_and(Vec::is_empty) {
            faults.push(Fault::new(
                format!("{path}.tables"),
                if tables.is_some() { "is empty: nothing would be captured" } else { "is missing" },
                "name the tables to capture, such as tables = [\"shop.*\"] (database.table)",
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
                    "write columns.exclude = [\"database.table.column\"]",
                ));
                Vec::new()
            }
        };
        let selection = Selection::parse(path, &tables.unwrap_or_default(), &exclude, &columns, &mut faults);
        k.faults = faults;

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
            server_id,
            sslmode,
            tls: TlsFiles { root, cert, key },
            connect_timeout,
            read_timeout,
            start_timeout,
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
        let c = read("url = 'mysql://cdc@db'\ntables = ['shop.*']").unwrap();
        assert_eq!((c.host.as_str(), c.port, c.user.as_str(), c.database.as_str()), ("db", 3306, "cdc", ""));
        assert!(c.sslmode == SslMode::Prefer && c.server_id >= 0x8000_0000);
        assert_eq!(c.to_string(), "mysql://cdc@db:3306/");
        assert_ne!(default_server_id("a"), default_server_id("b"));
    }
    #[test]
    fn urls() {
        let u = Url::parse("mariadb://a%40b:p%3Aw%2F@[::1]:77/d%20b?sslmode=require").unwrap();
        assert_eq!((u.user.as_deref(), u.password.as_ref().map(Secret::reveal)), (Some("a@b"), Some("p:w/")));
        assert_eq!((u.host.as_deref(), u.port, u.database.as_deref()), (Some("::1"), Some(77), Some("d b")));
        for bad in
            ["postgres://x", "mysql://[::1/x", "mysql://h:99999/x", "mysql://a,b/x", "mysql://h/x?a", "mysql://%ff@h/x"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn everything_wrong_at_once() {
        let got = paths(
            "urll = 'x'\ntables = 'shop.*'\nserver_id = 0\nread_timeout = '10'\nsslmode = 'on'\nssl_cert = 'a'\n\
             exclude = [1, 'a.b.c']\ncolumns.excludes = []",
        );
        for want in [
            "urll",
            "url",
            "tables",
            "server_id",
            "read_timeout",
            "sslmode",
            "ssl_cert",
            "exclude[0]",
            "columns.excludes",
        ] {
            assert!(got.iter().any(|g| g == want), "{want} is not in {got:?}");
        }
    }
    #[test]
    fn contradictions() {
        assert_eq!(paths("url = 'mysql://c@h/d?sslmode=require'\nsslmode = 'disable'\ntables = ['a.b']"), ["sslmode"]);
        assert_eq!(paths("url = 'mysql://c:x@h/d'\npassword = 'y'\ntables = ['a.b']"), ["password"]);
        assert_eq!(paths("url = 'mysql://c@h/d'\ntables = []"), ["tables"]);
    }
    #[test]
    fn no_fault_quotes_a_password() {
        let f = read("url = 'mysq://c:hunter2@h/d'\npassword = 'hunter2'\ntables = ['x']").unwrap_err();
        assert!(!format!("{f:?}").contains("hunter2"));
        let c = read("url = 'mysql://c:hunter2@h/d'\ntables = ['a.x']").unwrap();
        assert!(!format!("{c:?} {c}").contains("hunter2"));
    }
    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        for bad in ["", "10", "s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

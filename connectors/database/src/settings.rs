//! What the settings of every source have, typed: server, account, what is captured, TLS, timeouts.

use crate::{
    keys::{Keys, suggestion},
    url::Url,
};
use seachange_sdk::{Secret, Selection};
use std::{fmt, path::PathBuf, time::Duration};

/// How much TLS: libpq's words, for every database.
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
    const ALL: [SslMode; 5] =
        [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];

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

/// In what words and numbers the settings of one database differ from those of another.
#[derive(Debug)]
pub struct Dialect {
    /// The URL's schemes, without `://`. The first is the one to be shown.
    pub schemes: &'static [&'static str],
    /// The server's usual port.
    pub port: u16,
    /// All keys of the table.
    pub keys: &'static [&'static str],
    /// All parameters of the URL. What is not among them is a fault, and never read.
    pub params: &'static [&'static str],
    /// The environment variable in which a password is likely to be.
    pub password: &'static str,
    /// The file in which it may be instead.
    pub password_file: &'static str,
    /// What a table is in: `schema`, `database`.
    pub space: &'static str,
    /// One of them, as an example: `public`.
    pub example: &'static str,
    /// What to capture, as an example: `tables = ["public.*"]`.
    pub tables: &'static str,
}

impl Dialect {
    /// What a URL looks like.
    pub fn url(&self) -> String {
        format!("{}://user@host:{}/database", self.schemes.first().unwrap_or(&""), self.port)
    }
}

/// What every source has.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Pipeline's name.
    pub pipeline: String,
    /// Host name or address; where a database is reached by Unix sockets, also a socket's folder (starts with `/`).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Database of the URL; empty, if it names none.
    pub database: String,
    /// What is captured.
    pub selection: Selection,
    /// TLS.
    pub sslmode: SslMode,
    /// Its files.
    pub tls: TlsFiles,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long the server may be silent.
    pub read_timeout: Duration,
}

impl fmt::Display for Settings {
    /// `cdc@db:5432/shop`: no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = self.host.contains(':') && !self.is_unix();
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        write!(f, "{}@{open}{}{close}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Settings {
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

/// Reads a source's table: its URL, what every source has ([`Reader::settings`]), and its own keys.
#[derive(Debug)]
pub struct Reader<'a> {
    /// The table's keys.
    pub keys: Keys<'a>,
    dialect: &'static Dialect,
    url: Url,
}

impl<'a> Reader<'a> {
    /// Reads the URL. `path` is `pipeline.NAME.source`.
    pub fn new(dialect: &'static Dialect, path: &'a str, table: &'a toml::Table) -> Reader<'a> {
        let mut keys = Keys::new(path, table, dialect.keys);
        let url = match keys.text("url").map(|s| Url::parse(&s, dialect.schemes)) {
            Some(Ok(url)) => url,
            Some(Err(what)) => {
                keys.fault("url", what, format!("write {}; percent-encode special characters", dialect.url()));
                Url::default()
            }
            None => {
                if !table.contains_key("url") {
                    keys.fault("url", "is missing", format!("write url = \"{}\"", dialect.url()));
                }
                Url::default()
            }
        };
        for name in dialect.params {
            if url.params.iter().filter(|(n, _)| n == name).count() > 1 {
                keys.fault("url", format!("gives {name} more than once"), "give it once");
            }
        }
        for (name, _) in url.params.iter().filter(|(n, _)| !dialect.params.contains(&n.as_str())) {
            let fix = suggestion(name, dialect.params, "parameters");
            keys.fault("url", format!("has the unknown parameter {name}"), fix);
        }
        Reader { keys, dialect, url }
    }

    fn param(&self, name: &str) -> Option<String> {
        let known = self.dialect.params.contains(&name);
        self.url.params.iter().find(|(n, _)| known && n == name).map(|(_, v)| v.clone())
    }

    /// A key, or the URL's parameter that means the same.
    pub fn either(&mut self, key: &str, param: &str) -> Option<String> {
        let own = self.keys.filled(key);
        let theirs = self.param(param);
        // The same thing said twice, differently, is a contradiction and not a precedence to be learned.
        if let (Some(a), Some(b)) = (&own, &theirs)
            && a != b
        {
            self.keys.fault(key, "contradicts the url's parameter", "say it in one place");
        }
        own.or(theirs)
    }

    /// Reads what every source has.
    pub fn settings(&mut self, pipeline: &str) -> Settings {
        let (sslmode, tls) = self.tls();
        let (connect_timeout, read_timeout) = self.timeouts();
        let password = match (
            self.keys.text("password"),
            self.url.password.clone().or_else(|| self.param("password").map(Secret::new)),
        ) {
            (Some(_), Some(_)) => {
                let fix = format!("keep one: better here, as \"${{env:{}}}\"", self.dialect.password);
                self.keys.fault("password", "is given here and in the url", fix);
                None
            }
            (Some(s), None) => Some(Secret::new(s)),
            (None, theirs) => theirs,
        };
        let user = self.url.user.clone().or_else(|| self.param("user"));
        let written = self.keys.table.get("url").is_some_and(toml::Value::is_str);
        if written && user.is_none() && self.keys.faults.is_empty() {
            self.keys.fault("url", "names no user", format!("write {}", self.dialect.url()));
        }
        let port = self.port();
        Settings {
            pipeline: pipeline.to_owned(),
            // As in libpq, the parameter wins: it can name the folder of a Unix socket.
            host: self.param("host").or_else(|| self.url.host.clone()).unwrap_or_else(|| "localhost".into()),
            port,
            user: user.unwrap_or_default(),
            password,
            database: self.url.database.clone().or_else(|| self.param("dbname")).unwrap_or_default(),
            selection: self.selection(),
            sslmode,
            tls,
            connect_timeout,
            read_timeout,
        }
    }

    fn tls(&mut self) -> (SslMode, TlsFiles) {
        let mode = self.either("sslmode", "sslmode");
        let root = self.either("ssl_root_cert", "sslrootcert").map(PathBuf::from);
        let cert = self.either("ssl_cert", "sslcert").map(PathBuf::from);
        let key = self.either("ssl_key", "sslkey").map(PathBuf::from);
        let k = &mut self.keys;
        let mode = mode.map_or(SslMode::Prefer, |s| {
            SslMode::ALL.into_iter().find(|m| m.name() == s).unwrap_or_else(|| {
                let all = SslMode::ALL.map(SslMode::name).join(", ");
                k.fault("sslmode", format!("{s:?} is no sslmode"), format!("write one of {all}"));
                SslMode::Prefer
            })
        });
        if mode == SslMode::Disable {
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
        (mode, TlsFiles { root, cert, key })
    }

    /// To connect, and between two signs of life.
    fn timeouts(&mut self) -> (Duration, Duration) {
        let own = self.keys.duration("connect_timeout", Duration::from_millis(100));
        // The URL has it in whole seconds, as in libpq.
        let connect = match (own, self.param("connect_timeout").map(|s| s.parse::<u64>())) {
            (Some(d), _) => d,
            (None, Some(Ok(n))) if n > 0 => Duration::from_secs(n),
            (None, theirs) => {
                if theirs.is_some() {
                    let what = "has a connect_timeout that is no number of seconds";
                    self.keys.fault("url", what, "write connect_timeout=10");
                }
                Duration::from_secs(10)
            }
        };
        (connect, self.keys.duration("read_timeout", Duration::from_secs(1)).unwrap_or(Duration::from_secs(60)))
    }

    fn port(&mut self) -> u16 {
        let usual = self.dialect.port;
        let param = self.param("port");
        let mut wrong = |what: &str| {
            self.keys.fault("url", what, format!("write the server's port, usually {usual}"));
            usual
        };
        match (self.url.port, param) {
            (Some(0), _) => wrong("has port 0"),
            (Some(p), _) => p,
            (None, Some(p)) => p.parse().unwrap_or_else(|_| wrong("has a port that is no number")),
            (None, None) => usual,
        }
    }

    fn selection(&mut self) -> Selection {
        let k = &mut self.keys;
        let tables = k.list("tables");
        if !k.table.contains_key("tables") || tables.as_ref().is_some_and(Vec::is_empty) {
            let what = if tables.is_some() { "is empty: nothing would be captured" } else { "is missing" };
            k.fault("tables", what, format!("name the tables to capture, such as {}", self.dialect.tables));
        }
        let exclude = k.list("exclude").unwrap_or_default();
        let like = format!("{}.table.column", self.dialect.space);
        let columns = k.list_in("columns", "exclude", &like).unwrap_or_default();
        Selection::parse(k.path, &tables.unwrap_or_default(), &exclude, &columns, &mut k.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seachange_sdk::Fault;

    static DIALECT: Dialect = Dialect {
        schemes: &["db"],
        port: 77,
        keys: &["url", "password", "tables", "exclude", "columns", "sslmode", "ssl_cert", "read_timeout"],
        params: &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "host"],
        password: "DB_PASSWORD",
        password_file: "/run/secrets/db",
        space: "schema",
        example: "public",
        tables: "tables = [\"public.*\"]",
    };
    fn read(text: &str) -> Result<Settings, Vec<Fault>> {
        let table = text.parse().unwrap();
        let mut reader = Reader::new(&DIALECT, "source", &table);
        let settings = reader.settings("shop");
        reader.keys.end(settings)
    }
    fn paths(text: &str) -> Vec<String> {
        read(text).unwrap_err().into_iter().map(|f| f.path.replace("source.", "")).collect()
    }

    #[test]
    fn the_shortest_one_that_works() {
        let s = read("url = 'db://cdc@[::1]'\ntables = ['a.*']").unwrap();
        assert_eq!((s.to_string().as_str(), s.sslmode), ("cdc@[::1]:77/", SslMode::Prefer));
        assert_eq!((s.connect_timeout.as_secs(), s.read_timeout.as_secs()), (10, 60));
        assert!(s.is_local() && !s.is_unix());
    }
    #[test]
    fn parameters_of_the_url() {
        let s =
            read("url = 'db://c@h/d?sslmode=verify-ca&sslrootcert=r&connect_timeout=7&host=%2Frun'\ntables = ['a.b']");
        let s = s.unwrap();
        assert_eq!((s.sslmode, s.tls.root, s.connect_timeout.as_secs()), (SslMode::VerifyCa, Some("r".into()), 7));
        assert_eq!(s.host, "/run");
        for bad in ["connect_timeout=x", "connect_timeout=0", "port=1", "sslmode=prefer&sslmode=require"] {
            assert_eq!(paths(&format!("url = 'db://c@h/d?{bad}'\ntables = ['a.b']")), ["url"], "{bad}");
        }
    }
    #[test]
    fn everything_wrong_at_once() {
        let got = paths(
            "urll = 'x'\ntables = 'public.*'\nread_timeout = '10'\nsslmode = 'on'\nssl_cert = 'a'\nexclude = [1, 'a.b.c']\n\
             columns.excludes = []\npassword = 1",
        );
        let want = [
            "urll",
            "url",
            "sslmode",
            "ssl_cert",
            "read_timeout",
            "password",
            "tables",
            "exclude[0]",
            "columns.excludes",
        ];
        for want in want {
            assert!(got.iter().any(|g| g == want), "{want} is not in {got:?}");
        }
        let [f] = &read("url = 'db://h'\ntables = ['a.b']").unwrap_err()[..] else { panic!("one fault") };
        assert_eq!(f.to_string(), "source.url: names no user; write db://user@host:77/database");
    }
    #[test]
    fn contradictions() {
        assert_eq!(paths("url = 'db://c@h/d?sslmode=require'\nsslmode = 'disable'\ntables = ['a.b']"), ["sslmode"]);
        assert_eq!(paths("url = 'db://c:x@h/d'\npassword = 'y'\ntables = ['a.b']"), ["password"]);
        assert_eq!(paths("url = 'db://c@h/d'\ntables = []"), ["tables"]);
    }
    #[test]
    fn no_fault_quotes_a_password() {
        let f = read("url = 'bd://c:hunter2@h/d'\npassword = 'hunter2'\ntables = ['x']").unwrap_err();
        assert!(!format!("{f:?}").contains("hunter2"));
        let s = read("url = 'db://c:hunter2@h/d'\ntables = ['a.x']").unwrap();
        assert!(!format!("{s:?} {s}").contains("hunter2"));
    }
}

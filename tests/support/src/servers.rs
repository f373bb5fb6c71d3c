//! The real servers: who they are, a database for each test, and what breaks them.
//!
//! Environment (`scripts/test` sets it):
//! - `SEACHANGE_TEST_PG`, `SEACHANGE_TEST_PG_SUPER`: URLs of the capture account and of the superuser, one a server,
//!   separated by blanks, in the same order.
//! - `SEACHANGE_TEST_MYSQL`, `SEACHANGE_TEST_MARIADB`: URLs of the all-powerful account `root`/`root`, one a server; the
//!   capture account is `cdc`/`cdc`.
//! - `SEACHANGE_TEST_KAFKA`, `SEACHANGE_TEST_KAFKA3`: bootstrap addresses of the cluster of one broker and of three.
//! - `SEACHANGE_TEST_SCRIPTS`: the folder with `postgres`, `mysql` and their kin, for the tests that break servers.
//!
//! Tests of one binary run side by side. Those that only use a server share it ([`source`], [`kafka`]); one that kills
//! or stops it must have it for itself ([`own_source`], [`own_kafka`]) and waits until the others are done. The handle
//! is the permission: keep it until the test ends. An owner's handle starts the server again when dropped.

use crate::{
    database::{self, Database},
    skip, unique,
};
use mysql_async::prelude::Queryable;
use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// One lock a server, by port, for the whole process.
fn turn(port: u16) -> Arc<RwLock<()>> {
    static TURNS: OnceLock<Mutex<HashMap<u16, Arc<RwLock<()>>>>> = OnceLock::new();
    let turns = TURNS.get_or_init(Default::default);
    turns.lock().expect("no panic under this lock").entry(port).or_default().clone()
}

fn words(name: &str) -> Vec<String> {
    std::env::var(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Runs one of the project's scripts to its end; the error has its output.
fn script(name: &str, args: &[&str], env: &[(&str, String)]) -> Result<(), String> {
    let dir = std::env::var("SEACHANGE_TEST_SCRIPTS").map_err(|e| format!("SEACHANGE_TEST_SCRIPTS: {e}"))?;
    let out = Command::new(PathBuf::from(dir).join(name))
        .args(args)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{name} {args:?}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Err(format!("{name} {args:?}: {}: {text}", out.status))
}

#[track_caller]
fn must(done: Result<(), String>) {
    done.unwrap_or_else(|e| panic!("{e}"));
}

/// A database server of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// PostgreSQL of this major version.
    Postgres(u32),
    /// MySQL with GTIDs.
    MySql,
    /// MySQL without GTIDs: positions are files and offsets.
    MySqlNoGtid,
    /// MariaDB of this version.
    MariaDb(u32, u32),
}

/// MariaDB as Debian 12 has it.
pub const MARIADB: Which = Which::MariaDb(10, 11);

impl From<u32> for Which {
    fn from(version: u32) -> Which {
        Which::Postgres(version)
    }
}

impl Which {
    /// What a pipeline's `source.type` calls it; also the name of its script.
    pub fn kind(self) -> &'static str {
        match self {
            Which::Postgres(_) => "postgres",
            Which::MySql | Which::MySqlNoGtid => "mysql",
            Which::MariaDb(..) => "mariadb",
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Postgres(version) => write!(f, "PostgreSQL {version}"),
            Which::MySql => f.write_str("MySQL"),
            Which::MySqlNoGtid => f.write_str("MySQL without GTIDs"),
            Which::MariaDb(major, minor) => write!(f, "MariaDB {major}.{minor}"),
        }
    }
}

/// One database server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Which one.
    pub which: Which,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// URL of the capture account, on database `lab`.
    pub url: String,
    /// URL of the superuser, on database `lab`.
    pub super_url: String,
}

/// A database server that others use as well.
pub struct Source {
    server: Server,
    _turn: Option<OwnedRwLockReadGuard<()>>,
}

impl Deref for Source {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

/// A database server that is this test's alone.
pub struct OwnSource {
    shared: Source,
    _turn: OwnedRwLockWriteGuard<()>,
}

impl Deref for OwnSource {
    type Target = Source;
    fn deref(&self) -> &Source {
        &self.shared
    }
}

async fn find_postgres() -> Vec<Server> {
    let (urls, supers) = (words("SEACHANGE_TEST_PG"), words("SEACHANGE_TEST_PG_SUPER"));
    assert_eq!(urls.len(), supers.len(), "SEACHANGE_TEST_PG and SEACHANGE_TEST_PG_SUPER name the same servers");
    let mut found = Vec::new();
    for (url, super_url) in urls.into_iter().zip(supers) {
        let client = database::postgres(&super_url)
            .await
            .unwrap_or_else(|e| panic!("a PostgreSQL of SEACHANGE_TEST_PG_SUPER: {e}"));
        let row = client.query_one("SELECT current_setting('server_version_num')::int4, inet_server_port()", &[]).await;
        let row = row.expect("the server's version");
        let (number, port): (i32, i32) = (row.get(0), row.get(1));
        let which = Which::Postgres(number.unsigned_abs() / 10_000);
        found.push(Server { which, port: u16::try_from(port).expect("a port"), url, super_url });
    }
    found
}

async fn find_mysql(kind: &str) -> Vec<Server> {
    let name = format!("SEACHANGE_TEST_{}", kind.to_uppercase());
    let mut found = Vec::new();
    for super_url in words(&name) {
        let mut conn = database::mysql(&super_url).await.unwrap_or_else(|e| panic!("a server of {name}: {e}"));
        let row: Option<(String, u16)> = conn.query_first("SELECT VERSION(), @@port").await.expect("the version");
        let (version, port) = row.expect("a row");
        let which = if kind == "mysql" {
            let mode: Option<String> = conn.query_first("SELECT @@gtid_mode").await.expect("gtid_mode");
            if mode.as_deref() == Some("ON") { Which::MySql } else { Which::MySqlNoGtid }
        } else {
            let mut numbers = version.split('.').map_while(|n| n.parse().ok());
            let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
                panic!("a server of {name} has the version {version:?}")
            };
            Which::MariaDb(major, minor)
        };
        conn.disconnect().await.expect("the end of the session");
        found.push(Server { which, port, url: super_url.replacen("root:root", "cdc:cdc", 1), super_url });
    }
    found
}

async fn servers() -> &'static [Server] {
    static SERVERS: OnceCell<Vec<Server>> = OnceCell::const_new();
    SERVERS
        .get_or_init(async || {
            let mut found = find_postgres().await;
            found.extend(find_mysql("mysql").await);
            found.extend(find_mysql("mariadb").await);
            found
        })
        .await
}

async fn find(which: Which) -> Option<Server> {
    let found = servers().await.iter().find(|s| s.which == which).cloned();
    if found.is_none() {
        skip(&format!("needs {which}: there is none"));
    }
    found
}

/// This server, shared with other tests. `None`: the test is skipped.
pub async fn source(which: Which) -> Option<Source> {
    let server = find(which).await?;
    let guard = turn(server.port).read_owned().await;
    Some(Source { server, _turn: Some(guard) })
}

/// This server, for this test alone. `None`: the test is skipped.
pub async fn own_source(which: Which) -> Option<OwnSource> {
    let server = find(which).await?;
    let guard = turn(server.port).write_owned().await;
    Some(OwnSource { shared: Source { server, _turn: None }, _turn: guard })
}

/// PostgreSQL of this major version, shared with other tests. `None`: the test is skipped.
pub async fn postgres(version: u32) -> Option<Source> {
    source(Which::Postgres(version)).await
}

/// PostgreSQL of this major version, for this test alone. `None`: the test is skipped.
pub async fn own_postgres(version: u32) -> Option<OwnSource> {
    own_source(Which::Postgres(version)).await
}

impl Server {
    /// A new, empty database of the capture account. It goes, with all that hangs on it, when the handle is dropped.
    pub async fn database(&self) -> Database {
        Database::create(self, unique("t")).await
    }

    fn script(&self, args: &[&str], conf: &str) -> Result<(), String> {
        let (port, conf) = (self.port.to_string(), conf.to_owned());
        let env = match self.which {
            Which::Postgres(version) => vec![("PG_VERSION", version.to_string()), ("PG_PORT", port), ("PG_CONF", conf)],
            Which::MySql | Which::MySqlNoGtid => vec![("MYSQL_PORT", port), ("MYSQL_CONF", conf)],
            Which::MariaDb(major, minor) => {
                vec![("MARIADB_VERSION", format!("{major}.{minor}")), ("MARIADB_PORT", port), ("MARIADB_CONF", conf)]
            }
        };
        script(self.which.kind(), args, &env)
    }
}

impl OwnSource {
    /// Starts it, with more settings (`name=value name=value`) for this start.
    pub fn start(&self, conf: &str) {
        must(self.script(&["start"], conf));
    }
    /// Stops it in good order.
    pub fn stop(&self) {
        must(self.script(&["stop"], ""));
    }
    /// Stops and starts it, with more settings for this start.
    pub fn restart(&self, conf: &str) {
        must(self.script(&["restart"], conf));
    }
    /// Kills it and its children at once: the next start is a crash recovery.
    pub fn kill9(&self) {
        must(self.script(&["kill9"], ""));
    }
}

impl Drop for OwnSource {
    fn drop(&mut self) {
        // Also out of a failing test: the next one needs the server, with its ordinary settings.
        if let Err(e) = self.script(&["restart"], "") {
            eprintln!("{} could not be started again: {e}", self.which);
        }
    }
}

/// A Kafka cluster that others use as well.
pub struct Kafka {
    /// `host:port,host:port`.
    pub bootstrap: String,
    /// The first broker's port.
    pub port: u16,
    /// How many brokers.
    pub brokers: u16,
    _turn: Option<OwnedRwLockReadGuard<()>>,
}

/// A Kafka cluster that is this test's alone.
pub struct OwnKafka {
    shared: Kafka,
    _turn: OwnedRwLockWriteGuard<()>,
}

impl Deref for OwnKafka {
    type Target = Kafka;
    fn deref(&self) -> &Kafka {
        &self.shared
    }
}

fn cluster(brokers: u16) -> Option<(String, u16)> {
    let name = if brokers == 1 { "SEACHANGE_TEST_KAFKA" } else { "SEACHANGE_TEST_KAFKA3" };
    let Some(bootstrap) = words(name).into_iter().next() else {
        skip(&format!("needs a Kafka of {brokers}: {name} is not set"));
        return None;
    };
    let first = bootstrap.split(',').next().and_then(|a| a.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
    let port = first.unwrap_or_else(|| panic!("{name}: host:port expected, not {bootstrap}"));
    Some((bootstrap, port))
}

/// Runs `scripts/kafka` against a cluster.
pub fn kafka_script(kafka: &Kafka, args: &[&str]) {
    must(script("kafka", args, &[("KAFKA_PORT", kafka.port.to_string())]));
}

/// The cluster of one broker or of three, shared with other tests. `None`: the test is skipped.
pub async fn kafka(brokers: u16) -> Option<Kafka> {
    let (bootstrap, port) = cluster(brokers)?;
    let guard = turn(port).read_owned().await;
    Some(Kafka { bootstrap, port, brokers, _turn: Some(guard) })
}

/// The cluster of one broker or of three, for this test alone. `None`: the test is skipped.
pub async fn own_kafka(brokers: u16) -> Option<OwnKafka> {
    let (bootstrap, port) = cluster(brokers)?;
    let guard = turn(port).write_owned().await;
    Some(OwnKafka { shared: Kafka { bootstrap, port, brokers, _turn: None }, _turn: guard })
}

impl Kafka {
    fn script(&self, args: &[&str]) -> Result<(), String> {
        script("kafka", args, &[("KAFKA_PORT", self.port.to_string())])
    }
}

impl OwnKafka {
    /// Kills broker `n` (from 1) at once.
    pub fn kill(&self, n: u16) {
        must(self.script(&["kill", &n.to_string()]));
    }
    /// Starts broker `n` again and waits until it serves.
    pub fn start(&self, n: u16) {
        must(self.script(&["start-one", &n.to_string()]));
    }
    /// Freezes broker `n`: connections stay, nothing is answered.
    pub fn pause(&self, n: u16) {
        must(self.script(&["pause", &n.to_string()]));
    }
    /// Thaws broker `n`.
    pub fn resume(&self, n: u16) {
        must(self.script(&["resume", &n.to_string()]));
    }
    /// A proxy for each broker, and the bootstrap addresses that lead through them: the brokers name the proxies as
    /// their own address to whoever comes that way, so that no client gets round them.
    pub async fn proxied(&self) -> (Vec<crate::Proxy>, String) {
        let mut proxies = Vec::new();
        for n in 0..self.brokers {
            let (listen, upstream) = (self.port + 30 + n, self.port + 20 + n);
            proxies.push(crate::Proxy::listen(listen, format!("127.0.0.1:{upstream}")).await);
        }
        let bootstrap = proxies.iter().map(|p| p.addr().to_string()).collect::<Vec<_>>().join(",");
        (proxies, bootstrap)
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        for n in 1..=self.brokers {
            // Of a broker that is frozen, `resume` is enough; of one that runs, it does nothing.
            let n = n.to_string();
            if self.script(&["resume", &n]).is_err()
                && let Err(e) = self.script(&["start-one", &n])
            {
                eprintln!("Kafka broker {n} could not be started again: {e}");
            }
        }
    }
}

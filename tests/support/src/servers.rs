//! The real servers: who they are, a database for each test, and what breaks them.
//!
//! Environment (`scripts/test` sets it):
//! - `SEACHANGE_TEST_PG`, `SEACHANGE_TEST_PG_SUPER`: URLs of the capture account and of the superuser, one a server,
//!   separated by blanks, in the same order.
//! - `SEACHANGE_TEST_KAFKA`, `SEACHANGE_TEST_KAFKA3`: bootstrap addresses of the cluster of one broker and of three.
//! - `SEACHANGE_TEST_SCRIPTS`: the folder with `postgres` and `kafka`, for the tests that break servers.
//!
//! Tests of one binary run side by side. Those that only use a server share it ([`postgres`], [`kafka`]); one that kills
//! or stops it must have it for itself ([`own_postgres`], [`own_kafka`]) and waits until the others are done. The handle
//! is the permission: keep it until the test ends. An owner's handle starts the server again when dropped.

use crate::{skip, unique};
use std::{
    collections::HashMap,
    ops::Deref,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_postgres::NoTls;

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

/// Connects, with a task that drives the connection until the client is dropped.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its error reaches whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

/// One PostgreSQL server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Major version.
    pub version: u32,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// URL of the capture account, on database `lab`.
    pub url: String,
    /// URL of the superuser, on database `lab`.
    pub super_url: String,
}

/// A PostgreSQL that others use as well.
pub struct Postgres {
    server: Server,
    _turn: Option<OwnedRwLockReadGuard<()>>,
}

impl Deref for Postgres {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

/// A PostgreSQL that is this test's alone.
pub struct OwnPostgres {
    shared: Postgres,
    _turn: OwnedRwLockWriteGuard<()>,
}

impl Deref for OwnPostgres {
    type Target = Postgres;
    fn deref(&self) -> &Postgres {
        &self.shared
    }
}

async fn servers() -> &'static [Server] {
    static SERVERS: OnceCell<Vec<Server>> = OnceCell::const_new();
    SERVERS
        .get_or_init(async || {
            let (urls, supers) = (words("SEACHANGE_TEST_PG"), words("SEACHANGE_TEST_PG_SUPER"));
            assert_eq!(urls.len(), supers.len(), "SEACHANGE_TEST_PG and SEACHANGE_TEST_PG_SUPER name the same servers");
            let mut found = Vec::new();
            for (url, super_url) in urls.into_iter().zip(supers) {
                let client = connect(&super_url)
                    .await
                    .unwrap_or_else(|e| panic!("a PostgreSQL of SEACHANGE_TEST_PG_SUPER: {e}"));
                let row = client
                    .query_one("SELECT current_setting('server_version_num')::int4, inet_server_port()", &[])
                    .await;
                let row = row.expect("the server's version");
                let (number, port): (i32, i32) = (row.get(0), row.get(1));
                let port = u16::try_from(port).expect("a port");
                found.push(Server { version: number.unsigned_abs() / 10_000, port, url, super_url });
            }
            found
        })
        .await
}

async fn find(version: u32) -> Option<Server> {
    let found = servers().await.iter().find(|s| s.version == version).cloned();
    if found.is_none() {
        skip(&format!("needs PostgreSQL {version}: SEACHANGE_TEST_PG has none"));
    }
    found
}

/// PostgreSQL of this major version, shared with other tests. `None`: the test is skipped.
pub async fn postgres(version: u32) -> Option<Postgres> {
    let server = find(version).await?;
    let guard = turn(server.port).read_owned().await;
    Some(Postgres { server, _turn: Some(guard) })
}

/// Every PostgreSQL there is, shared. Empty: the test is skipped.
pub async fn every_postgres() -> Vec<Postgres> {
    let mut all = Vec::new();
    // In the order of their ports, as every test takes them: no two can wait for each other.
    let mut servers = servers().await.to_vec();
    servers.sort_by_key(|s| s.port);
    for server in servers {
        let guard = turn(server.port).read_owned().await;
        all.push(Postgres { server, _turn: Some(guard) });
    }
    if all.is_empty() {
        skip("needs a PostgreSQL: SEACHANGE_TEST_PG names none");
    }
    all
}

/// PostgreSQL of this major version, for this test alone. `None`: the test is skipped.
pub async fn own_postgres(version: u32) -> Option<OwnPostgres> {
    let server = find(version).await?;
    let guard = turn(server.port).write_owned().await;
    Some(OwnPostgres { shared: Postgres { server, _turn: None }, _turn: guard })
}

impl Server {
    /// A new, empty database owned by the capture account. It goes, with its slots, when the handle is dropped.
    pub async fn database(&self) -> Database {
        let name = unique("t");
        let admin = connect(&self.super_url).await.expect("the superuser's connection");
        admin.batch_execute(&format!("CREATE DATABASE {name} OWNER cdc")).await.expect("CREATE DATABASE");
        let on = |url: &str| format!("{}/{name}", url.rsplit_once('/').expect("a database in the URL").0);
        Database {
            url: on(&self.url),
            super_url: on(&self.super_url),
            admin_url: self.super_url.clone(),
            port: self.port,
            name,
        }
    }

    fn script(&self, args: &[&str], conf: &str) -> Result<(), String> {
        let env = [
            ("PG_VERSION", self.version.to_string()),
            ("PG_PORT", self.port.to_string()),
            ("PG_CONF", conf.to_owned()),
        ];
        script("postgres", args, &env)
    }
}

impl OwnPostgres {
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

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // Also out of a failing test: the next one needs the server, with its ordinary settings.
        if let Err(e) = self.script(&["restart"], "") {
            eprintln!("PostgreSQL {} could not be started again: {e}", self.version);
        }
    }
}

/// A database for one test.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Port of its server on 127.0.0.1.
    pub port: u16,
    /// URL of the capture account.
    pub url: String,
    /// URL of the superuser.
    pub super_url: String,
    admin_url: String,
}

impl Database {
    /// A connection as the capture account, which owns the database.
    pub async fn connect(&self) -> tokio_postgres::Client {
        connect(&self.url).await.unwrap_or_else(|e| panic!("database {}: {e}", self.name))
    }
    /// A connection as the superuser.
    pub async fn admin(&self) -> tokio_postgres::Client {
        connect(&self.super_url).await.unwrap_or_else(|e| panic!("database {}: {e}", self.name))
    }
    /// Runs statements as the capture account.
    pub async fn run(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    /// The capture account's URL through a proxy's port.
    pub fn url_through(&self, proxy: &crate::Proxy) -> String {
        self.url.replace(&format!("127.0.0.1:{}", self.port), &proxy.addr().to_string())
    }

    async fn remove(name: &str, admin_url: &str) -> Result<(), tokio_postgres::Error> {
        let admin = connect(admin_url).await?;
        // A slot keeps both the database and its share of the log. A walsender that is told to go takes a moment.
        for _ in 0..200 {
            let slots = admin
                .query("SELECT slot_name::text, active_pid FROM pg_replication_slots WHERE database = $1", &[&name])
                .await?;
            if slots.is_empty() {
                break;
            }
            for slot in slots {
                let (slot, pid): (String, Option<i32>) = (slot.get(0), slot.get(1));
                let dropped = match pid {
                    Some(pid) => admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await,
                    None => admin.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await,
                };
                // In use again, or gone already: the next round sees.
                drop(dropped);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (name, url) = (self.name.clone(), self.admin_url.clone());
        // Drop cannot await, and may run on a runtime: so, a runtime and a thread of its own.
        let removed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(async {
                match tokio::time::timeout(Duration::from_secs(30), Database::remove(&name, &url)).await {
                    Ok(done) => done.map_err(|e| e.to_string()),
                    Err(_) => Err("no answer within 30 s".to_owned()),
                }
            })
        })
        .join();
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(e)) => eprintln!("database {} is left behind: {e}", self.name),
            Err(_) => eprintln!("database {} is left behind", self.name),
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

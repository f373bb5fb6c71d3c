//! The built `seachange` binary, from outside: started, watched, killed.
//!
//! The binary is `$SEACHANGE_BIN`, or the one beside the running test (`target/<profile>/seachange`), which
//! `cargo test --workspace` has built. Output goes to one log file that outlives kills and starts; when a test fails,
//! its end is printed.

use crate::{
    eventually,
    http::{self, Metrics},
};
use std::{
    fs::{File, OpenOptions},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use toml::{Table, Value};

/// A configuration in the making.
#[derive(Clone, Debug, Default)]
pub struct Config {
    root: Table,
    env: Vec<(String, String)>,
}

impl Config {
    /// Nothing but Kafka.
    pub fn kafka(bootstrap: &str) -> Config {
        Config::default().set("kafka.bootstrap", bootstrap)
    }

    /// With a pipeline that reads PostgreSQL.
    pub fn postgres(self, pipeline: &str, url: &str, tables: &[&str]) -> Config {
        self.source(pipeline, "postgres", url, tables)
    }

    /// With a pipeline that reads a database of this kind.
    pub fn source(self, pipeline: &str, kind: &str, url: &str, tables: &[&str]) -> Config {
        let source = format!("pipeline.{pipeline}.source");
        self.set(&format!("{source}.type"), kind)
            .set(&format!("{source}.url"), url)
            .set(&format!("{source}.tables"), tables.to_vec())
            .set(&format!("pipeline.{pipeline}.sink.type"), "kafka")
    }

    /// Sets one value by its path: `pipeline.shop.source.snapshot`. A part may be in double quotes.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Config {
        let parts = split(path);
        let (last, parents) = parts.split_last().expect("a path");
        let mut table = &mut self.root;
        for part in parents {
            let entry = table.entry(part.clone()).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().unwrap_or_else(|| panic!("{path}: {part} is no table"));
        }
        table.insert(last.clone(), value.into());
        self
    }

    /// Sets an environment variable of the daemon.
    pub fn env(mut self, name: &str, value: &str) -> Config {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As TOML.
    pub fn toml(&self) -> String {
        toml::to_string(&self.root).expect("a configuration is TOML")
    }
}

fn split(path: &str) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => parts.last_mut().expect("never empty").push(c),
        }
    }
    parts
}

/// Where the binary is.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEACHANGE_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("the test's own path");
    // target/debug/deps/test-0123 -> target/debug/seachange
    let dir = exe.parent().filter(|d| d.ends_with("deps")).and_then(Path::parent).or(exe.parent()).expect("a folder");
    let path = dir.join("seachange");
    assert!(path.exists(), "{} is not there: `cargo build` first, or set SEACHANGE_BIN", path.display());
    path
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    dir: TempDir,
    env: Vec<(String, String)>,
    listen: SocketAddr,
    child: Option<Child>,
    /// Where the log of the present run begins.
    began: u64,
}

impl Daemon {
    /// Starts `seachange run` with this configuration; [`Daemon::ready`] waits for it.
    pub fn start(config: &Config) -> Daemon {
        let dir = tempfile::Builder::new().prefix("seachange-").tempdir().expect("a folder");
        let listen = free_port();
        let config = config.clone().set("server.listen", listen.to_string());
        std::fs::write(dir.path().join("seachange.toml"), config.toml()).expect("the configuration file");
        let mut daemon = Daemon { dir, env: config.env, listen, child: None, began: 0 };
        daemon.launch();
        daemon
    }

    fn launch(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log file");
        self.began = log.metadata().expect("the log's size").len();
        let child =
            self.command(&["run"]).stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("{}: {e}", binary().display())));
    }

    /// `seachange ARGS --config FILE`, ready to be run, with this daemon's configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--config").arg(self.dir.path().join("seachange.toml")).current_dir(self.dir.path());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts it again, same configuration, after its end.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch();
    }

    /// Sets an environment variable for the next start (a crash point, for example); `None` takes it away.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.env.retain(|(k, _)| k != name);
        self.env.extend(value.map(|v| (name.to_owned(), v.to_owned())));
    }

    /// Its folder: configuration, log, files it writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// Where its HTTP server is.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }
    /// Its process id. Panics when it has ended.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }
    fn log_path(&self) -> PathBuf {
        self.dir.path().join("seachange.log")
    }
    /// All it has said, in all its runs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).expect("the log file")).into_owned()
    }
    /// What it has said since it was last started.
    pub fn log_of_run(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let mut bytes = Vec::new();
        let mut file = File::open(self.log_path()).expect("the log file");
        file.seek(SeekFrom::Start(self.began)).and_then(|_| file.read_to_end(&mut bytes)).expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has said this since it was last started; gives the line.
    pub async fn said(&mut self, text: &str, deadline: Duration) -> String {
        eventually(deadline, &format!("{text:?} in the log"), async || {
            let log = self.log_of_run();
            match log.lines().find(|l| l.contains(text)) {
                Some(line) => Ok(line.to_owned()),
                None => Err(self.living().err().unwrap_or_default()),
            }
        })
        .await
    }

    /// Waits until `/readyz` says yes. An early end of the daemon ends the wait.
    pub async fn ready(&mut self, deadline: Duration) {
        let end = std::time::Instant::now() + deadline;
        loop {
            self.living().unwrap_or_else(|e| panic!("{e} before it was ready"));
            let answer = http::get(self.listen, "/readyz").await;
            match answer {
                Ok((200, _)) => return,
                answer => assert!(std::time::Instant::now() < end, "not ready within {deadline:?}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        http::get(self.listen, path).await
    }

    /// Its metrics now.
    pub async fn metrics(&self) -> Metrics {
        match http::get(self.listen, "/metrics").await {
            Ok((200, body)) => Metrics(body),
            other => panic!("/metrics: {other:?}"),
        }
    }

    /// `Err`, with how it ended, when it does not run.
    pub fn living(&mut self) -> Result<(), String> {
        let Some(child) = &mut self.child else { return Err("the daemon was not started".into()) };
        match child.try_wait().expect("the daemon's state") {
            None => Ok(()),
            Some(status) => Err(format!("the daemon has ended ({status})")),
        }
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        // The shell's own kill: a minimal system has no other.
        let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status().expect("sh");
        assert!(done.success(), "kill -{name}: {done}");
    }

    /// Kills it at once, as `kill -9` does, and waits for its end.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            drop(child.kill());
            child.wait().expect("the daemon's end");
        }
    }

    /// Waits for its end.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("a running daemon");
        let status = eventually(deadline, "the daemon's end", async || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("still running".to_owned()),
            Err(e) => Err(e.to_string()),
        })
        .await;
        self.child = None;
        status
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub async fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal("TERM");
        self.ended(deadline).await
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("kilobytes") * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of the daemon's log:");
            for line in &lines[lines.len().saturating_sub(60)..] {
                eprintln!("{line}");
            }
            eprintln!("---");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_built_by_path() {
        let config =
            Config::kafka("b:1").postgres("p", "postgres://x", &["public.*"]).set("kafka.properties.\"a.b\"", "c");
        let read: Table = config.toml().parse().unwrap();
        assert_eq!(read["kafka"]["properties"]["a.b"].as_str(), Some("c"));
        assert_eq!(read["pipeline"]["p"]["source"]["tables"][0].as_str(), Some("public.*"));
    }
}

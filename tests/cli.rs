//! The command as a user meets it: exit codes, and what it says where.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const EXE: &str = env!("CARGO_BIN_EXE_seachange");

fn seachange(args: &[&str]) -> Output {
    Command::new(EXE).args(args).env_remove("NOTIFY_SOCKET").output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(o: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (o.status.code().unwrap(), text(&o.stdout), text(&o.stderr))
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("seachange.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn version_and_help() {
    let want = format!("seachange {}\n", env!("CARGO_PKG_VERSION"));
    for arg in ["version", "--version"] {
        assert_eq!(said(&seachange(&[arg])), (0, want.clone(), String::new()));
    }
    let (code, out, _) = said(&seachange(&["--help"]));
    assert_eq!(code, 0);
    for command in ["run", "check", "init", "state", "version"] {
        assert!(out.contains(&format!("\n  {command} ")), "{out}");
    }
}

#[test]
fn usage_errors_are_2() {
    for args in [&[][..], &["nonsense"], &["run", "--nonsense"], &["init"], &["run"], &["state"], &["check"]] {
        let (code, out, err) = said(&seachange(args));
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(out.is_empty() && !err.is_empty(), "{args:?}");
    }
    let (_, _, err) = said(&seachange(&["run"]));
    assert!(err.contains("--config FILE is missing"), "{err}");
}

#[test]
fn configuration_faults_are_2_and_all_told() {
    let (_dir, path) = file(
        "[kafka]\nboostrap = 'x:1'\n[server]\nlisten = 'nowhere'\n\
         [pipeline.shop.source]\ntype = 'postgers'\npassword = '${env:SEACHANGE_TEST_NOT_SET}'\nsnapshot = 'maybe'\n",
    );
    for command in ["run", "check", "state"] {
        let (code, out, err) = said(&seachange(&[command, "--config", &path]));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        for part in [
            "6 faults",
            "line 2: kafka.boostrap: unknown option\n      -> did you mean `bootstrap`?",
            "kafka.bootstrap: missing",
            "line 4: server.listen: not an address",
            "line 6: pipeline.shop.source.type: no such connector",
            "line 7: pipeline.shop.source.password: the environment variable SEACHANGE_TEST_NOT_SET is not set",
            "line 8: pipeline.shop.source.snapshot.mode: not one of",
        ] {
            assert!(err.contains(part), "{part}\n{err}");
        }
    }
    let (code, _, err) = said(&seachange(&["check", "--config", "/nonexistent/file.toml"]));
    assert!(code == 2 && err.contains("cannot be read") && err.contains("seachange init"), "{err}");
    let (_dir, path) = file("[kafka\n");
    let (code, _, err) = said(&seachange(&["check", "--config", &path]));
    assert!(code == 2 && err.contains("line 1: not TOML"), "{err}");
}

#[test]
fn init_refuses_what_it_does_not_know_and_keeps_the_password() {
    let (code, out, err) = said(&seachange(&["init", "oracle://scott:hunter2@db/x"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("no connector") && !err.contains("hunter2"), "{err}");
}

/// A daemon, ended when the test ends.
struct Daemon {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Daemon {
    fn start(config: &str) -> Daemon {
        let mut child = Command::new(EXE)
            .args(["run", "--config", config])
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Daemon { child, err, said: String::new() }
    }
    /// Reads the log up to a line that holds `part`, and gives what stands after it on that line.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.err.read_line(&mut line).unwrap() > 0, "ended before it said {part:?}:\n{}", self.said);
            self.said += &line;
            if let Some((_, rest)) = line.split_once(part) {
                return rest.trim().to_owned();
            }
        }
    }
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
    /// Waits for the end: the exit code and the whole log.
    fn end(mut self) -> (i32, String) {
        let until = Instant::now() + Duration::from_secs(30);
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            assert!(Instant::now() < until, "still there:\n{}", self.said);
            std::thread::sleep(Duration::from_millis(20));
        };
        self.err.read_to_string(&mut self.said).unwrap();
        (code, std::mem::take(&mut self.said))
    }
}
impl Drop for Daemon {
    fn drop(&mut self) {
        // Has ended already, mostly.
        self.child.kill().ok();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut s = TcpStream::connect(address).unwrap();
    write!(s, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut out = String::new();
    s.read_to_string(&mut out).unwrap();
    out
}

/// The database is not there: the daemon waits for it, says so, and can be asked and ended all the same.
#[test]
fn run_is_up_without_a_database_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = |listen: &str| {
        format!(
            "[server]\nlisten = '{listen}'\n[pipeline.shop.source]\ntype = 'postgres'\n\
             url = 'postgres://cdc:hunter2@127.0.0.1:1/none'\ntables = ['public.*']\n\
             [pipeline.shop.sink]\ntype = 'file'\npath = '{0}/out'\n",
            dir.path().display()
        )
    };
    let (_a, path) = file(&config("127.0.0.1:0"));
    let mut daemon = Daemon::start(&path);
    let rest = daemon.wait_for("listening on http://");
    let address = rest.split(' ').next().unwrap().to_owned();

    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(&address, "/metrics");
    assert!(metrics.contains("\nseachange_up 1\n") && metrics.contains("pipeline=\"shop\""), "{metrics}");
    let ready = get(&address, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"ready\":false"), "{ready}");

    // A second daemon on the same address is told at once.
    let (_b, second) = file(&config(&address));
    let (code, _, err) = said(&seachange(&["run", "--config", &second]));
    assert!(
        code == 1 && err.contains(&format!("cannot listen on {address}")) && err.contains("server.listen"),
        "{err}"
    );

    daemon.signal("-TERM");
    let (code, log) = daemon.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("SIGTERM"), "{log}");
    for text in [&log, &metrics, &ready, &err] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// Nobody is there to be asked, but the files are read: faults in them would be 2.
#[test]
fn configurations_of_the_demos_are_read() {
    let (root, none) = (env!("CARGO_MANIFEST_DIR"), tempfile::tempdir().unwrap());
    let mut checks = Vec::new();
    for folder in ["deploy", "demo"] {
        for entry in fs::read_dir(format!("{root}/{folder}")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // The example's secrets are in files of the machine that it is for.
            if path.extension().is_none_or(|e| e != "toml") || name == "Cargo.toml" || name.contains("example") {
                continue;
            }
            // Every address becomes one at which nothing listens: `host:port` in quotes or behind @.
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| match (line.find("bootstrap = "), line.find('@')) {
                (Some(_), _) => "bootstrap = '127.0.0.1:1'".to_owned(),
                (_, Some(at)) => {
                    let path = line[at..].find('/').map_or(line.len(), |i| at + i);
                    format!("{}@127.0.0.1:1{}", &line[..at], &line[path..])
                }
                _ => line.to_owned(),
            });
            let copy = none.path().join(format!("{folder}-{name}"));
            fs::write(&copy, lines.collect::<Vec<_>>().join("\n")).unwrap();
            let mut check = Command::new(EXE);
            check.args(["check", "--config"]).arg(&copy).env("PGPASSWORD", "p").env("MYSQL_PASSWORD", "p");
            checks.push((copy, check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
        }
    }
    assert!(checks.len() >= 7, "{checks:?}");
    for (file, check) in checks {
        let (code, out, err) = said(&check.wait_with_output().unwrap());
        assert_eq!(code, 1, "{}: {out}{err}", file.display());
        assert!(out.contains("pipeline ") && out.contains("Connection refused"), "{}: {out}{err}", file.display());
    }
}

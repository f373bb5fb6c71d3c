//! Debezium on the same backlog: `scripts/debezium`, a JVM that is measured as the daemon is.
//!
//! It is started once before the backlog is written and ended in good order, so that its slot or offsets say where it
//! begins. On a binlog it keeps an offset only once it has seen a change: it is given a row, before anybody else begins.

use crate::{
    case::{Case, Kind},
    drain::Course,
    load::Load,
    measure::{Meter, Topics, peak_mib, server},
    rig::{Rig, SOON},
};
use seachange_testkit::eventually;
use serde_json::{Map, Value};
use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

pub struct Debezium {
    args: Vec<String>,
    dir: PathBuf,
    topics: Topics,
}

/// The JVM; ended when dropped.
struct Running(Child);

impl Running {
    fn living(&mut self, log: &std::path::Path) -> Result<(), String> {
        match self.0.try_wait().map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(status) => Err(format!("Debezium has ended ({status}): {}", log.display())),
        }
    }
    async fn end(mut self) {
        let pid = self.0.id().to_string();
        let told = Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status().expect("sh");
        assert!(told.success(), "kill -TERM {pid}");
        eventually(SOON, "Debezium's end", async || match self.0.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("still running".to_owned()),
            Err(e) => Err(e.to_string()),
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Debezium {
    /// Fixes where it begins.
    pub async fn begin(rig: &Rig, case: &Case) -> Debezium {
        let name = format!("{}_debezium", rig.name);
        let (port, db) = rig.load.place();
        let table = if let Load::Postgres(_) = rig.load { "public.orders".to_owned() } else { format!("{db}.orders") };
        let dir = std::env::var_os("SEACHANGE_RUN_DIR").map(PathBuf::from).expect("SEACHANGE_RUN_DIR");
        let dir = dir.join("debezium").join(&name);
        std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let args = [case.kind.name(), &name, &port.to_string(), db, &table, &rig.kafka].map(str::to_owned).to_vec();
        let topics = Topics::new(&rig.kafka, rig.load.topics(&name, 1));
        let debezium = Debezium { args, dir, topics };
        let (mut jvm, log) = (debezium.start(), debezium.log());
        let streaming = "its stream";
        eventually(SOON, streaming, async || {
            jvm.living(&log)?;
            let text = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
            let said = ["Processing messages", "Keepalive thread is running"].iter().any(|s| text.contains(s));
            if said { Ok(()) } else { Err(format!("not in {}", log.display())) }
        })
        .await;
        if case.kind != Kind::Postgres {
            rig.load.first_rows(1).await;
            eventually(SOON, "Debezium's first record", async || {
                jvm.living(&log)?;
                if debezium.topics.end() > 0 { Ok(()) } else { Err(format!("see {}", log.display())) }
            })
            .await;
        }
        jvm.end().await;
        debezium
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn start(&self) -> Running {
        let log = File::create(self.log()).expect("Debezium's log");
        let scripts = std::env::var_os("SEACHANGE_TEST_SCRIPTS").map(PathBuf::from).expect("SEACHANGE_TEST_SCRIPTS");
        let rest = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let child = Command::new(scripts.join("debezium"))
            .args(&self.args)
            .arg(rest.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn();
        Running(child.unwrap_or_else(|e| panic!("scripts/debezium: {e}")))
    }

    /// Drains the backlog, and leaves nothing behind.
    pub async fn drain(self, case: &Case) -> Map<String, Value> {
        let (before, log) = (self.topics.end(), self.log());
        let mut jvm = self.start();
        let meter = Meter::new(jvm.0.id(), server(case.kind.name()));
        let course = Course::watch(&meter, case.records(), Duration::from_millis(20), async || {
            jvm.living(&log)?;
            Ok(self.topics.end().saturating_sub(before))
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
        let figures = course.figures(case.rows, case.op.records(), peak_mib(jvm.0.id()));
        jvm.end().await;
        self.topics.delete().await;
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left behind: {e}", self.dir.display());
        }
        figures
    }
}

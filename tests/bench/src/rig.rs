//! Broker, database and daemon of one run, and the pipelines' configuration.

use crate::{case::Case, load::Load, measure::Topics};
use seachange_testkit::{Config, Daemon, eventually, http, servers, unique};
use std::time::{Duration, Instant};

pub const SOON: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(900);

/// What a run has for itself.
pub struct Rig {
    pub kafka: String,
    pub load: Load,
    /// Its pipelines' names begin with it.
    pub name: String,
}

impl Rig {
    pub async fn new(case: &Case) -> Rig {
        let kafka = servers::kafka(1).await.expect("SEACHANGE_TEST_KAFKA: run this through scripts/bench");
        let load = Load::new(case.kind).await;
        load.tables(case).await;
        Rig { kafka: kafka.bootstrap.clone(), load, name: unique("bench") }
    }

    /// The pipelines of run `n`.
    pub fn pipelines(&self, case: &Case, run: u64) -> Vec<String> {
        (0..case.pipelines).map(|p| format!("{}_{run}_{p}", self.name)).collect()
    }

    pub fn config(&self, case: &Case, pipelines: &[String], snapshot: &str) -> Config {
        let mut config = Config::kafka(&self.kafka);
        for name in pipelines {
            config = self.load.pipeline(config, name, snapshot);
            config = config.set(&format!("pipeline.{name}.format.values"), case.values.as_str());
            if case.tables > 1 {
                // A broker maps 10 MiB of index twice for each partition, and the kernel fills as much of it with zeros at the
                // first touch as it reads ahead of a disk: 8 MiB have been seen, which took longer than the rows.
                config = config.set(&format!("pipeline.{name}.topics.settings.\"segment.index.bytes\""), "65536");
            }
            if case.schemas {
                config = config.set(&format!("pipeline.{name}.format.schemas"), true);
            }
            for (option, value) in &case.set {
                config = match option.strip_prefix("kafka.") {
                    Some(property) => config.set(&format!("kafka.properties.\"{property}\""), value.as_str()),
                    None => config.set(&format!("pipeline.{name}.{option}"), value.as_str()),
                };
            }
        }
        config
    }

    pub fn topics(&self, case: &Case, pipelines: &[String]) -> Topics {
        Topics::new(&self.kafka, pipelines.iter().flat_map(|p| self.load.topics(p, case.tables)).collect())
    }

    /// Fixes where these pipelines begin: what is written from now on is theirs. Of many tables, each gets a row first, so that
    /// the backlog finds its topics made: making one costs the broker more than thousands of rows. Gives the seconds that took.
    pub async fn begin(&self, case: &Case, pipelines: &[String]) -> Option<f64> {
        let mut daemon = Daemon::start(&self.config(case, pipelines, "never"));
        daemon.ready(SOON).await;
        let mut took = None;
        if case.tables > 1 {
            let began = Instant::now();
            self.load.first_rows(case.tables).await;
            let want = case.tables * pipelines.len() as u64;
            eventually(LONG, &format!("{want} records in topics that have to be made"), async || {
                daemon.living()?;
                // A page for thousands of tables is megabytes: asking for one after the other takes what is to be measured.
                tokio::time::sleep(Duration::from_millis(case.tables / 10)).await;
                let seen = written(&daemon).await;
                if seen >= want { Ok(()) } else { Err(format!("{seen} so far")) }
            })
            .await;
            took = Some(began.elapsed().as_secs_f64());
        }
        daemon.terminate(SOON).await;
        took
    }

    pub async fn end(self) {
        self.load.end().await;
    }
}

/// How many records a daemon counts as handed over.
pub async fn written(daemon: &Daemon) -> u64 {
    let page = http::get(daemon.addr(), "/metrics").await;
    page.ok().and_then(|(_, body)| http::Metrics(body).sum("seachange_events_total", &[])).unwrap_or(0.0) as u64
}

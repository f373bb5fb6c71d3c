//! Broker, database and daemon of one run, and the pipelines' configuration.

use crate::{case::Case, load::Load, measure::Topics};
use seachange_testkit::{Config, Daemon, servers, unique};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(120);

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

    /// Fixes where these pipelines begin: what is written from now on is theirs.
    pub async fn begin(&self, case: &Case, pipelines: &[String]) {
        let mut daemon = Daemon::start(&self.config(case, pipelines, "never"));
        daemon.ready(SOON).await;
        daemon.terminate(SOON).await;
    }

    pub async fn end(self) {
        self.load.end().await;
    }
}

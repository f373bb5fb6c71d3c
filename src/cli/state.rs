//! `seachange state`: what the pipelines have stored, readable, and how to forget it.

use super::Failure;
use crate::config::{Config, resolved::Pipeline};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use serde_json::{Map, Value};

/// INTEGRATE: `crate::sink::read_state(config, pipeline)` and `crate::state::State::load(..)` dumped to JSON, with the
/// position by `pipeline.source.describe_position`. Must read without fencing a running daemon.
fn read(_config: &Config, pipeline: &Pipeline) -> Result<Value> {
    Err(missing(pipeline))
}

/// INTEGRATE: tombstones every entry that is stored; answers how many there were.
fn forget(_config: &Config, pipeline: &Pipeline) -> Result<usize> {
    Err(missing(pipeline))
}

fn missing(pipeline: &Pipeline) -> Error {
    Error::new(Kind::State, Side::Own, Retry::Never, "stored state cannot be read by this build").at(&pipeline.name)
}

pub(super) fn show(config: &Config) -> Result<(), Failure> {
    let mut out = Map::new();
    let mut failed = Vec::new();
    for p in &config.pipelines {
        match read(config, p) {
            Ok(state) => {
                out.insert(p.name.clone(), state);
            }
            Err(e) => failed.push(e),
        }
    }
    // What could be read is shown even if something could not.
    println!("{:#}", Value::Object(out));
    match failed.into_iter().reduce(|first, e| first.cause(e)) {
        Some(e) => Err(Failure::Run(e.to_string())),
        None => Ok(()),
    }
}

pub(super) fn reset(config: &Config, name: &str, yes: bool) -> Result<(), Failure> {
    let Some(pipeline) = config.pipelines.iter().find(|p| p.name == name) else {
        let names: Vec<&str> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
        return Err(Failure::Config(format!(
            "there is no pipeline of that name in the configuration\n  -> there are: {}",
            names.join(", ")
        )));
    };
    if !yes {
        return Err(Failure::Config(format!(
            "this makes the pipeline {name} forget its position and its snapshot: its next start is a first start\n  \
             -> stop the daemon, then say it again with --yes"
        )));
    }
    let n = forget(config, pipeline)?;
    println!("{name}: {n} entries forgotten");
    Ok(())
}

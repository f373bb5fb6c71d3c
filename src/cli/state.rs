//! `seachange state`: what the pipelines have stored, readable, and how to forget it.

use super::Failure;
use crate::{
    config::{Config, resolved::Pipeline},
    sink,
    state::State,
};
use bytes::Bytes;
use seachange_sdk::Result;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What is stored, in words. Fences nobody: a running daemon goes on.
fn read(config: &Config, pipeline: &Pipeline) -> Result<Value> {
    let Some(stored) = sink::peek(config.kafka.as_ref(), pipeline)? else { return Ok(Value::Null) };
    // Only an opened source can put a key into words; to open one is no business of a command that shows.
    let key = |k: &Bytes| k.iter().map(|b| format!("{b:02x}")).collect();
    Ok(State::load(&stored)?.describe(|p| pipeline.source.describe_position(p), key))
}

/// Forgets every entry; says how many there were. Fences a daemon that runs the pipeline: it must not commit on.
fn forget(config: &Config, pipeline: &Pipeline) -> Result<usize> {
    let mut sink = sink::build(config.kafka.as_ref(), pipeline, Arc::default(), &sink::Tenure::default())?;
    let entries: sink::Entries = sink.open()?.into_keys().map(|key| (key, None)).collect();
    sink.commit(&entries)?;
    Ok(entries.len())
}

pub(super) fn show(config: &Config) -> Result<(), Failure> {
    let mut out = Map::new();
    let mut failed = Vec::new();
    for p in &config.pipelines {
        match read(config, p) {
            Ok(state) => {
                out.insert(p.name.clone(), state);
            }
            Err(e) => failed.push(super::explain(&e.at(format!("pipeline {}", p.name)))),
        }
    }
    // What could be read is shown even if something could not.
    println!("{:#}", Value::Object(out));
    if failed.is_empty() { Ok(()) } else { Err(Failure::Run(failed.join("\n"))) }
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
    if sink::peek(config.kafka.as_ref(), pipeline)?.is_none_or(|s| s.is_empty()) {
        println!("{name}: nothing is stored");
        return Ok(());
    }
    let n = forget(config, pipeline)?;
    println!("{name}: {n} entries forgotten");
    Ok(())
}

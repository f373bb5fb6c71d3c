//! Sinks: where records and the pipeline's state become durable together.
//!
//! A sink is the state store. Its calls block and run on the writer's own thread. The order of calls is
//! `open (append* commit)*`; after any error the sink is dropped and a new one is opened: there is no in-place repair.

mod handover;
pub mod kafka;
pub mod lines;
pub mod partition;
pub mod properties;
pub mod state_topic;
pub mod topics;
mod transaction;
mod trouble;

pub use crate::records::{Header, Record, Records, Topic};
pub use properties::property_faults;

use crate::config::resolved::{self, Kafka};
use seachange_sdk::{Check, Error, Kind, Outcome, Result, Retry, Side};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::AtomicBool},
};

/// What a pipeline has stored: opaque entries by key, see [`crate::state`].
pub type Stored = BTreeMap<String, Vec<u8>>;

/// Entries to store (`Some`) or forget (`None`), in order.
pub type Entries = Vec<(String, Option<Vec<u8>>)>;

/// What is called when a commit has ended.
pub type Ended = Box<dyn FnOnce() + Send>;

/// A destination.
pub trait Sink: Send {
    /// Fences every older owner of this pipeline, and only then reads back what is stored.
    fn open(&mut self) -> Result<Stored>;

    /// Records of these topics are to come: what a sink has to do before the first record of each, it may do now for all of
    /// them together.
    fn expect(&mut self, _topics: &[String]) -> Result<()> {
        Ok(())
    }

    /// Hands over records. They are not visible to readers before `commit`. Everything needed is copied: the arena may be
    /// cleared afterwards.
    fn append(&mut self, records: &Records) -> Result<()>;

    /// Makes everything appended, and these entries, visible together, or not at all. An error means that the outcome may
    /// be unknown: only a new `open` tells.
    fn commit(&mut self, entries: &Entries) -> Result<()>;

    /// Begins a commit, so that the caller can go on encoding and appending what comes after it while the sink waits for
    /// Kafka; waits for the one before it. `ended` is called, by any thread, when it has ended in whatever way and
    /// `finish_commit` will not wait any more. A sink that cannot do both commits here.
    fn begin_commit(&mut self, entries: &Entries, ended: Ended) -> Result<()> {
        self.commit(entries)?;
        ended();
        Ok(())
    }

    /// Waits for the commit that `begin_commit` began, if one did. An error means what one of `commit` means.
    fn finish_commit(&mut self) -> Result<()> {
        Ok(())
    }

    /// Drops what was appended since the last commit, for an orderly end.
    fn abort(&mut self) -> Result<()>;

    /// Records handed over that are still on their way: a gauge.
    fn in_flight(&self) -> usize {
        0
    }
}

/// What a process remembers of the sinks that it has opened for one pipeline, from one start-up to the next.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// Stands in every record by which this process says that it has opened.
    mark: Arc<str>,
    /// Has it opened once?
    held: Arc<AtomicBool>,
}

impl Default for Tenure {
    fn default() -> Tenure {
        // Seeded by the system's random numbers: no other process has the same.
        let random = RandomState::new();
        let mark = format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
        Tenure { mark: mark.into(), held: Arc::default() }
    }
}

/// The sink of a pipeline; connects to nothing yet. Setting `stop` makes every wait inside it end with an error soon.
pub fn build(
    kafka: Option<&Kafka>,
    pipeline: &resolved::Pipeline,
    stop: Arc<AtomicBool>,
    tenure: &Tenure,
) -> Result<Box<dyn Sink>> {
    Ok(match &pipeline.sink {
        resolved::Sink::Kafka(sink) => {
            let sink = kafka::KafkaSink::new(needed(kafka)?, sink, &pipeline.topics, &pipeline.name, stop);
            Box::new(sink.with_tenure(tenure))
        }
        resolved::Sink::Stdout { state } => Box::new(lines::LinesSink::stdout(state)),
        resolved::Sink::File { path, state } => Box::new(lines::LinesSink::file(path, state)),
    })
}

/// What a pipeline has stored, read without fencing the daemon that may run it. `None`: nothing yet.
pub fn peek(kafka: Option<&Kafka>, pipeline: &resolved::Pipeline) -> Result<Option<Stored>> {
    match &pipeline.sink {
        resolved::Sink::Kafka(sink) => state_topic::peek(
            needed(kafka)?,
            &sink.transactional_id(&pipeline.name),
            &sink.state_topic(&pipeline.name),
            &pipeline.name,
        ),
        resolved::Sink::Stdout { state } | resolved::Sink::File { state, .. } => lines::read_state(state),
    }
}

/// Preflight of a pipeline's sink: changes nothing, fences nobody.
pub fn check(kafka: Option<&Kafka>, pipeline: &resolved::Pipeline) -> Vec<Check> {
    match &pipeline.sink {
        resolved::Sink::Kafka(sink) => match needed(kafka) {
            Ok(kafka) => state_topic::check(kafka, &sink.state_topic(&pipeline.name), &pipeline.name),
            Err(e) => vec![Check {
                name: "kafka".into(),
                outcome: Outcome::Fail(e.to_string(), e.remedy().unwrap_or_default().to_owned()),
            }],
        },
        resolved::Sink::Stdout { state } => vec![lines::check(state)],
        resolved::Sink::File { path, state } => vec![lines::check(path), lines::check(state)],
    }
}

fn needed(kafka: Option<&Kafka>) -> Result<&Kafka> {
    kafka.ok_or_else(|| {
        Error::new(Kind::Config, Side::Own, Retry::Operator, "a pipeline writes to Kafka, but there is no [kafka]")
            .fix("add [kafka] with bootstrap = \"host:port\"")
    })
}

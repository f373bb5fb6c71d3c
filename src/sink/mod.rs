//! Sinks: where records and the pipeline's state become durable together.
//!
//! A sink is the state store. Its calls block and run on the writer's own thread. The order of calls is
//! `open (append* commit)*`; after any error the sink is dropped and a new one is opened: there is no in-place repair.

pub mod records;

pub use records::{Header, Record, Records, Topic};

use seachange_sdk::Result;
use std::collections::BTreeMap;

/// What a pipeline has stored: opaque entries by key, see [`crate::state`].
pub type Stored = BTreeMap<String, Vec<u8>>;

/// Entries to store (`Some`) or forget (`None`), in order.
pub type Entries = Vec<(String, Option<Vec<u8>>)>;

/// A destination.
pub trait Sink: Send {
    /// Fences every older owner of this pipeline, and only then reads back what is stored.
    fn open(&mut self) -> Result<Stored>;

    /// Hands over records. They are not visible to readers before `commit`. Everything needed is copied: the arena may be
    /// cleared afterwards.
    fn append(&mut self, records: &Records) -> Result<()>;

    /// Makes everything appended, and these entries, visible together, or not at all. An error means that the outcome may
    /// be unknown: only a new `open` tells.
    fn commit(&mut self, entries: &Entries) -> Result<()>;

    /// Drops what was appended since the last commit, for an orderly end.
    fn abort(&mut self) -> Result<()>;
}

//! Records on their way from a plan to a sink: one arena, reused.
//!
//! A plan writes keys, values and header values into `buf` and notes their ranges. The sink reads them before the next
//! `clear`. Topics are interned for the life of the pipeline, so that a sink can keep what it knows of a topic by index.

use std::{ops::Range, sync::Arc};

/// Index of a topic, given by [`Records::topic`].
pub type Topic = u32;

/// One record: ranges of [`Records::buf`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it goes.
    pub topic: Topic,
    /// The key; `None` for a record without key.
    pub key: Option<Range<u32>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Range<u32>>,
    /// Its headers: a range of [`Records::headers`].
    pub headers: Range<u32>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// Its value: a range of [`Records::buf`].
    pub value: Range<u32>,
}

/// The arena.
#[derive(Debug, Default)]
pub struct Records {
    /// All bytes.
    pub buf: Vec<u8>,
    /// The records, in order.
    pub items: Vec<Record>,
    /// The headers of all records.
    pub headers: Vec<Header>,
    topics: Vec<Arc<str>>,
}

impl Records {
    /// Empties the arena, keeping its memory (unless a giant row has made it large) and its topics.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.buf.shrink_to(8 << 20);
        self.items.clear();
        self.headers.clear();
    }
    /// The index of a topic, interned at first use. For set-up, not for the row path.
    pub fn topic(&mut self, name: &str) -> Topic {
        if let Some(i) = self.topics.iter().position(|t| &**t == name) {
            return i as Topic;
        }
        self.topics.push(name.into());
        (self.topics.len() - 1) as Topic
    }
    /// The name of a topic.
    pub fn topic_name(&self, topic: Topic) -> &Arc<str> {
        &self.topics[topic as usize]
    }
    /// How many topics are known.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }
    /// The bytes of a range.
    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        &self.buf[range.start as usize..range.end as usize]
    }
}

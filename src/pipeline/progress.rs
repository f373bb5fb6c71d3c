//! How far the reading of what is already there has come, table by table: the one owner of that knowledge at run time.
//!
//! Every change of it yields the state entries that must be committed with the rows they speak of. What is stored is
//! enough to go on after a kill at the chunk where it was: for each range of a table the last key delivered and the keys
//! to be read again; and the keys that the stream has told meanwhile (see [`super::merge`]).

use super::merge::SeenKey;
use crate::{
    sink::Entries,
    state::{RangeState, SEEN_KEYS_MAX, Seen, State, TableState},
};
use bytes::Bytes;
use seachange_sdk::{Error, Fence, Range, Result, TableId};
use std::collections::BTreeMap;

/// A range of a table that remains to be read.
#[derive(Clone, Debug)]
pub struct Job {
    /// The table.
    pub table: TableId,
    /// Which range of it.
    pub index: usize,
    /// What is left of the range.
    pub range: Range,
    /// Keys to be read again first.
    pub again: Vec<Bytes>,
    /// The range is exhausted: only `again` is left.
    pub done: bool,
}

/// All tables whose reading has begun or ended.
#[derive(Default)]
pub struct Progress {
    tables: BTreeMap<String, TableState>,
    seen: BTreeMap<String, Vec<SeenKey>>,
    seen_next: BTreeMap<String, u64>,
    seen_first: BTreeMap<String, u64>,
}

impl Progress {
    /// What an earlier run has stored.
    pub fn load(state: &mut State) -> Progress {
        let mut p = Progress { tables: std::mem::take(&mut state.tables), ..Progress::default() };
        for (table, parts) in std::mem::take(&mut state.seen) {
            p.seen_first.insert(table.clone(), parts.iter().map(|(n, _)| *n).min().unwrap_or(0));
            p.seen_next.insert(table.clone(), parts.iter().map(|(n, _)| n + 1).max().unwrap_or(0));
            p.seen.insert(table, parts.into_iter().flat_map(|(_, part)| part.keys).collect());
        }
        p
    }
    /// The state of a table, if its reading has begun.
    pub fn get(&self, table: &TableId) -> Option<&TableState> {
        self.tables.get(&table.to_string())
    }
    /// The tables without key that had been read, but whose fence the stream had not passed: with that fence.
    pub fn fences(&self) -> Vec<(String, Fence)> {
        let fence = |(k, t): (&String, &TableState)| match t {
            TableState::Done { fence: Some(fence), .. } => Some((k.clone(), Fence(fence.clone()))),
            _ => None,
        };
        self.tables.iter().filter_map(fence).collect()
    }
    /// The keys that an earlier run has stored for a table. They are handed out once.
    pub fn take_seen(&mut self, table: &TableId) -> Vec<SeenKey> {
        self.seen.remove(&table.to_string()).unwrap_or_default()
    }
    /// Begins a table with these ranges.
    pub fn plan(&mut self, table: &TableId, ranges: Vec<Range>) -> Result<Entries> {
        let ranges = ranges
            .into_iter()
            .map(|r| RangeState { last: r.after, upto: r.upto, done: false, rows: 0, again: vec![] })
            .collect();
        self.set(table, TableState::Reading { ranges })
    }
    /// The ranges of a table that remain.
    pub fn jobs(&self, table: &TableId) -> Vec<Job> {
        let Some(TableState::Reading { ranges }) = self.get(table) else { return vec![] };
        let job = |(index, r): (usize, &RangeState)| Job {
            table: table.clone(),
            index,
            range: Range { after: r.last.clone(), upto: r.upto.clone() },
            again: r.again.clone(),
            done: r.done,
        };
        ranges.iter().enumerate().filter(|(_, r)| !r.done || !r.again.is_empty()).map(job).collect()
    }
    /// A chunk of a range has been emitted: up to `last` (`None`: the range is exhausted), with keys to read again.
    /// When that was the last of the table, its entry says so and the stored keys are forgotten; `true` then.
    pub fn advance(
        &mut self,
        job: &Job,
        last: Option<Bytes>,
        again: Vec<Bytes>,
        rows: u64,
        reread: bool,
    ) -> Result<(Entries, bool)> {
        let name = job.table.to_string();
        let Some(TableState::Reading { ranges }) = self.tables.get_mut(&name) else {
            return Err(Error::bug(format!("a chunk of {name}, which is not being read")));
        };
        let Some(range) = ranges.get_mut(job.index) else {
            return Err(Error::bug(format!("a chunk of range {} of {name}, which has no such range", job.index)));
        };
        range.rows += rows;
        if reread {
            range.again = again;
        } else {
            range.again.extend(again);
            match last {
                Some(key) => range.last = Some(key),
                None => range.done = true,
            }
        }
        if ranges.iter().all(|r| r.done && r.again.is_empty()) {
            let rows = ranges.iter().map(|r| r.rows).sum();
            let mut entries = self.set(&job.table, TableState::Done { rows, fence: None })?;
            entries.extend(self.forget_seen(&name));
            return Ok((entries, true));
        }
        let entry = self.tables[&name].entry(&name)?;
        Ok((vec![entry], false))
    }
    /// Sets a table's state.
    pub fn set(&mut self, table: &TableId, state: TableState) -> Result<Entries> {
        let name = table.to_string();
        self.set_named(&name, state)
    }
    /// Sets the state of a table known by its printed name.
    pub fn set_named(&mut self, name: &str, state: TableState) -> Result<Entries> {
        let entry = state.entry(name)?;
        self.tables.insert(name.to_owned(), state);
        Ok(vec![entry])
    }
    /// Entries that store keys which the stream has told.
    pub fn store_seen(&mut self, table: &TableId, keys: &[SeenKey]) -> Result<Entries> {
        let name = table.to_string();
        let next = self.seen_next.entry(name.clone()).or_default();
        let mut entries = Vec::new();
        for part in keys.chunks(SEEN_KEYS_MAX) {
            entries.push(Seen { keys: part.to_vec() }.entry(&name, *next)?);
            *next += 1;
        }
        Ok(entries)
    }
    /// A table that need not be read: the stream has told all of it. Keys that were stored for it are forgotten.
    pub fn skip(&mut self, table: &TableId) -> Result<Entries> {
        let mut entries = self.set(table, TableState::Skipped)?;
        entries.extend(self.forget_seen(&table.to_string()));
        Ok(entries)
    }
    fn forget_seen(&mut self, name: &str) -> Entries {
        let first = self.seen_first.remove(name).unwrap_or(0);
        let next = self.seen_next.remove(name).unwrap_or(0);
        self.seen.remove(name);
        (first..next).map(|n| Seen::forget(name, n)).collect()
    }
    /// Names of tables whose reading has begun and not ended.
    pub fn unfinished(&self) -> Vec<String> {
        let open = |t: &TableState| matches!(t, TableState::Reading { .. } | TableState::Whole { .. });
        self.tables.iter().filter(|(_, t)| open(t)).map(|(n, _)| n.clone()).collect()
    }
}

//! What every pipeline is doing, for `/readyz`, for systemd and for the state metric.
//!
//! Readiness follows progress: a pipeline that has read changes must see them committed. Reader and writer each add to a
//! counter; while the first is ahead of the second, a clock runs that every commit starts again. A pipeline whose clock
//! shows more than [`STALLED`] is not ready. Nothing to read is progress enough: an idle database never makes a pipeline
//! unready, and a slow one does not either, as long as commits go through.

use crate::metrics::{STATES, state_gauges};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Changes may wait this long for a commit before the pipeline counts as stalled.
pub const STALLED: Duration = Duration::from_secs(30);

/// What a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    Idle,
    /// Fencing, reading state back, opening the source.
    Starting,
    /// Streaming, and reading what was already there.
    Snapshotting,
    /// Streaming.
    Streaming,
    /// Bringing to its end what has been read.
    Draining,
    /// Ended by an error; starts again by itself, or waits for an operator.
    Failed {
        /// What happened.
        error: String,
        /// How to mend it.
        fix: Option<String>,
    },
    /// Ended in order, with nothing left to do.
    Done,
}

impl Phase {
    const fn index(&self) -> usize {
        match self {
            Phase::Idle => 0,
            Phase::Starting => 1,
            Phase::Snapshotting => 2,
            Phase::Streaming => 3,
            Phase::Draining => 4,
            Phase::Failed { .. } => 5,
            Phase::Done => 6,
        }
    }
    /// Lower-case name: metric label and JSON.
    pub const fn name(&self) -> &'static str {
        STATES[self.index()]
    }
}

/// One pipeline's place on the board. Cheap to update from reader and writer.
pub struct Entry {
    name: String,
    start: Instant,
    phase: Mutex<Phase>,
    gauges: [metrics::Gauge; 7],
    read: AtomicU64,
    committed: AtomicU64,
    /// Milliseconds since `start`, plus one; 0 is never.
    read_at: AtomicU64,
    committed_at: AtomicU64,
    /// Since when changes wait without a commit; 0 when none waits.
    waiting: AtomicU64,
    /// It is new, and the place where it begins is not durable yet.
    begins: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Entry {
    fn new(name: &str) -> Entry {
        let entry = Entry {
            name: name.to_owned(),
            start: Instant::now(),
            phase: Mutex::new(Phase::Idle),
            gauges: state_gauges(name),
            read: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
            committed_at: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            begins: AtomicBool::new(false),
            last_error: Mutex::new(None),
        };
        entry.show(&Phase::Idle);
        entry
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn show(&self, phase: &Phase) {
        for (i, g) in self.gauges.iter().enumerate() {
            g.set(f64::from(u8::from(i == phase.index())));
        }
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Enters a phase. `Starting` forgets what was read and not committed: it will be read again.
    pub fn set(&self, phase: Phase) {
        if phase == Phase::Starting {
            self.read.store(0, SeqCst);
            self.committed.store(0, SeqCst);
            self.waiting.store(0, SeqCst);
            self.begins.store(false, SeqCst);
        }
        if let Phase::Failed { error, .. } = &phase {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        self.show(&phase);
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// It is a new pipeline. Until its first commit has made durable where it begins it is not ready: a start would choose
    /// the place anew, behind what was changed meanwhile.
    pub fn begins(&self) {
        self.begins.store(true, SeqCst);
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The source has delivered this many changes. 0 is allowed: the position moved without any.
    pub fn read(&self, changes: u64) {
        let now = self.now();
        self.read_at.store(now, SeqCst);
        if changes > 0 {
            self.read.fetch_add(changes, SeqCst);
            // Keeps the older time if the clock runs already: that is no failure. After the addition, see `committed`.
            self.waiting.compare_exchange(0, now, SeqCst, SeqCst).ok();
        }
    }

    /// The sink has committed this many of the changes that were read (those the merge dropped included).
    pub fn committed(&self, changes: u64) {
        let now = self.now();
        self.committed_at.store(now, SeqCst);
        self.begins.store(false, SeqCst);
        let committed = self.committed.fetch_add(changes, SeqCst) + changes;
        self.waiting.store(if self.read.load(SeqCst) > committed { now } else { 0 }, SeqCst);
        // A read between that load and the store may have found the clock running; it has added to `read` before, so
        // looking once more finds it.
        if self.read.load(SeqCst) > committed {
            self.waiting.compare_exchange(0, now, SeqCst, SeqCst).ok();
        }
    }

    /// `None` when the pipeline is ready, else why it is not.
    pub fn unready(&self) -> Option<String> {
        self.unready_at(self.now())
    }

    fn unready_at(&self, now: u64) -> Option<String> {
        match self.phase() {
            Phase::Idle | Phase::Starting => return Some("has not started yet".into()),
            Phase::Failed { error, .. } => return Some(format!("failed: {error}")),
            Phase::Draining => return Some("is shutting down".into()),
            Phase::Done => return None,
            Phase::Snapshotting | Phase::Streaming => {}
        }
        if self.begins.load(SeqCst) {
            return Some("the place where it begins is not durable yet".into());
        }
        let waiting = self.waiting.load(SeqCst);
        let waited = Duration::from_millis(now.saturating_sub(waiting));
        (waiting != 0 && waited > STALLED)
            .then(|| format!("changes have been read, but nothing has been committed for {} s", waited.as_secs()))
    }

    fn json(&self) -> Value {
        let ago = |at: &AtomicU64| match at.load(SeqCst) {
            0 => Value::Null,
            at => json!(self.now().saturating_sub(at) as f64 / 1000.0),
        };
        let phase = self.phase();
        let fix = if let Phase::Failed { fix, .. } = &phase { fix.clone() } else { None };
        let unready = self.unready();
        json!({
            "ready": unready.is_none(),
            "reason": unready,
            "state": phase.name(),
            "fix": fix,
            "last_error": *self.last_error.lock().unwrap_or_else(PoisonError::into_inner),
            "changes_waiting": self.read.load(SeqCst).saturating_sub(self.committed.load(SeqCst)),
            "seconds_since_read": ago(&self.read_at),
            "seconds_since_commit": ago(&self.committed_at),
        })
    }
}

/// All pipelines of the process.
#[derive(Clone)]
pub struct Board {
    entries: Arc<[Arc<Entry>]>,
}

impl Board {
    /// A board for these pipelines. Make it after the metrics are installed.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Board {
        Board { entries: names.into_iter().map(|n| Arc::new(Entry::new(n))).collect() }
    }
    /// The place of a pipeline.
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|e| e.name == name).cloned()
    }
    /// All places.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
    /// The body of `/readyz`, and whether all are ready.
    pub fn report(&self) -> (bool, Value) {
        let pipelines: serde_json::Map<String, Value> =
            self.entries.iter().map(|e| (e.name.clone(), e.json())).collect();
        let ready = pipelines.values().all(|p| p["ready"] == true);
        (ready, json!({ "ready": ready, "pipelines": pipelines }))
    }
    /// One line for systemd's status: `shop streaming, crm failed`.
    pub fn line(&self) -> String {
        let all: Vec<String> = self.entries.iter().map(|e| format!("{} {}", e.name, e.phase().name())).collect();
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_follows_progress() {
        let board = Board::new(["a"]);
        let e = board.entry("a").unwrap();
        let late = || e.now() + 31_000;
        assert!(e.unready().is_some_and(|r| r.contains("not started")));
        e.set(Phase::Starting);
        assert!(e.unready().is_some());
        e.set(Phase::Streaming);
        assert_eq!(e.unready_at(late()), None, "an idle source is no stall");
        e.read(0);
        assert_eq!(e.unready_at(late()), None, "a position that moves without changes is no stall");
        e.read(10);
        assert_eq!(e.unready(), None);
        assert!(e.unready_at(late()).is_some_and(|r| r.contains("nothing has been committed for 3")));
        // A commit of a part starts the clock again, of the rest stops it.
        e.committed(4);
        assert_eq!(e.unready_at(e.now() + 29_000), None);
        assert!(e.unready_at(late()).is_some());
        assert_eq!(board.report().1["pipelines"]["a"]["changes_waiting"], 6);
        e.committed(6);
        assert_eq!(e.unready_at(late()), None);
        e.read(1);
        e.set(Phase::Failed { error: "boom".into(), fix: Some("mend".into()) });
        let (ready, body) = board.report();
        assert!(!ready && body["pipelines"]["a"]["fix"] == "mend", "{body}");
        assert_eq!(board.line(), "a failed");
        // A new start reads again what was not committed.
        e.set(Phase::Starting);
        e.set(Phase::Streaming);
        assert_eq!(e.unready_at(late()), None);
        assert_eq!(board.report().1["pipelines"]["a"]["last_error"], "boom");
    }

    #[test]
    fn a_new_pipeline_is_ready_when_its_beginning_is_durable() {
        let board = Board::new(["a"]);
        let e = board.entry("a").unwrap();
        e.set(Phase::Starting);
        e.begins();
        e.set(Phase::Streaming);
        assert!(e.unready().is_some_and(|r| r.contains("durable")));
        e.committed(0);
        assert_eq!(e.unready(), None);
    }

    #[test]
    fn names_and_states_agree() {
        let all = [
            Phase::Idle,
            Phase::Starting,
            Phase::Snapshotting,
            Phase::Streaming,
            Phase::Draining,
            Phase::Failed { error: String::new(), fix: None },
            Phase::Done,
        ];
        assert_eq!(all.map(|p| format!("{p:?}").split(' ').next().unwrap().to_lowercase()), STATES);
    }
}

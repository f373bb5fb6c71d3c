//! The judge of exactly once and in order.
//!
//! Every row of the load carries a key and a version that each change of the row raises by one ([`crate::Ledger`]). So
//! what was published is right exactly when, for each key, the versions run 1, 2, 3 .. without a gap (a change lost), a
//! repeat (a change twice) or a step back (out of order); a delete ends a run, and an insert may begin another. The
//! judge knows records only: nothing of how they came to be.

use crate::topic::{self, Record};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A run begins at another version than 1.
    Start(i64),
    /// Versions are missing between the two.
    Gap(i64, i64),
    /// The version that was there already.
    Repeat(i64),
    /// From the first version back to the second.
    Back(i64, i64),
    /// A delete of a key that is not there.
    Delete,
    /// Not an event of the ledger.
    Strange(String),
}

/// One fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `topic[partition]@offset`.
    pub at: String,
    /// The row's key.
    pub key: String,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: key {}: ", self.at, self.key)?;
        match &self.wrong {
            Wrong::Start(v) => write!(f, "begins at version {v}: what came before is lost"),
            Wrong::Gap(a, b) => write!(f, "from version {a} to {b}: what lies between is lost"),
            Wrong::Repeat(v) => write!(f, "version {v} twice"),
            Wrong::Back(a, b) => write!(f, "from version {a} back to {b}"),
            Wrong::Delete => f.write_str("deleted, but not there"),
            Wrong::Strange(what) => f.write_str(what),
        }
    }
}

/// The judgement in the making.
#[derive(Debug)]
pub struct Order {
    id: String,
    version: String,
    overtaking: bool,
    seen: u64,
    topics: BTreeSet<String>,
    met: BTreeSet<String>,
    live: HashMap<String, i64>,
    faults: Vec<Fault>,
}

/// The judgement.
#[derive(Debug)]
pub struct Report {
    /// Topics that had records.
    pub topics: usize,
    /// Changes seen, tombstones not counted.
    pub seen: u64,
    /// The keys that are left, with their version.
    pub live: BTreeMap<String, i64>,
    /// All that is wrong, in the order of the records.
    pub faults: Vec<Fault>,
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str().and_then(|s| s.parse().ok()))
}

impl Default for Order {
    fn default() -> Order {
        Order::new("id", "version")
    }
}

impl Order {
    /// A judge of rows with these key and version columns.
    pub fn new(id: &str, version: &str) -> Order {
        Order {
            id: id.to_owned(),
            version: version.to_owned(),
            overtaking: false,
            seen: 0,
            topics: BTreeSet::new(),
            met: BTreeSet::new(),
            live: HashMap::new(),
            faults: Vec::new(),
        }
    }

    /// For a snapshot with writers beside it: the stream may bring a change of a row before the snapshot came to it. So
    /// the first event of a key may be any; from then on the rule holds.
    pub fn overtaking(mut self) -> Order {
        self.overtaking = true;
        self
    }

    /// Judges one more record. Records of a key must come in the order of their offsets.
    pub fn record(&mut self, record: &Record) {
        if record.value.is_none() {
            return;
        }
        self.topics.insert(record.topic.clone());
        let at = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
        let value = record.value_json();
        let op = value["op"].as_str().unwrap_or_default();
        if !matches!(op, "c" | "u" | "d" | "r") {
            let wrong = Wrong::Strange(format!("op {op:?} is none of the ledger"));
            self.faults.push(Fault { at, key: "?".to_owned(), wrong });
            return;
        }
        self.seen += 1;
        let row = if value["after"].is_null() { &value["before"] } else { &value["after"] };
        let Some(id) = row.get(&self.id).filter(|id| !id.is_null()) else {
            let wrong = Wrong::Strange(format!("op {op}: no column {}", self.id));
            self.faults.push(Fault { at, key: "?".to_owned(), wrong });
            return;
        };
        let key = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let name = format!("{} {key}", record.topic);
        let first = self.met.insert(name.clone());
        let free = first && self.overtaking;
        if op == "d" {
            // Under REPLICA IDENTITY FULL the old row tells which version was deleted; otherwise it tells 0 or nothing.
            let old = number(&row[self.version.as_str()]).filter(|v| *v > 0);
            let wrong = match (self.live.remove(&name), old) {
                (None, _) if !free => Some(Wrong::Delete),
                (Some(last), Some(old)) if old > last => Some(Wrong::Gap(last, old)),
                (Some(last), Some(old)) if old < last => Some(Wrong::Back(last, old)),
                _ => None,
            };
            if let Some(wrong) = wrong {
                self.faults.push(Fault { at, key, wrong });
            }
            return;
        }
        let Some(version) = number(&row[self.version.as_str()]) else {
            let wrong = Wrong::Strange(format!("op {op}: no number in column {}", self.version));
            self.faults.push(Fault { at, key, wrong });
            return;
        };
        let wrong = match self.live.insert(name, version) {
            None if version == 1 || op == "r" || free => None,
            None => Some(Wrong::Start(version)),
            Some(last) if version == last + 1 => None,
            Some(last) if version == last => Some(Wrong::Repeat(version)),
            Some(last) if version < last => Some(Wrong::Back(last, version)),
            Some(last) => Some(Wrong::Gap(last, version)),
        };
        if let Some(wrong) = wrong {
            self.faults.push(Fault { at, key, wrong });
        }
    }

    /// The judgement over all records.
    pub fn finish(self) -> Report {
        // Without the topic when there is but one: the keys then are the table's.
        let one = self.topics.len() == 1;
        let name = |k: String| if one { k.rsplit(' ').next().unwrap_or_default().to_owned() } else { k };
        Report {
            topics: self.topics.len(),
            seen: self.seen,
            live: self.live.into_iter().map(|(k, v)| (name(k), v)).collect(),
            faults: self.faults,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in self.faults.iter().take(20) {
            writeln!(f, "{fault}")?;
        }
        if self.faults.len() > 20 {
            writeln!(f, "..")?;
        }
        let (topics, seen, live, faults) = (self.topics, self.seen, self.live.len(), self.faults.len());
        write!(f, "{topics} topics, {seen} changes, {live} live keys, {faults} faults")
    }
}

impl Report {
    /// Panics unless there is no fault and exactly `changes` were seen.
    #[track_caller]
    pub fn expect(&self, changes: u64) {
        assert!(self.faults.is_empty() && self.seen == changes, "{changes} changes expected:\n{self}");
    }
    /// Panics unless there is no fault.
    #[track_caller]
    pub fn expect_order(&self) {
        assert!(self.faults.is_empty(), "{self}");
    }
    /// Panics unless what is left is what the ledger's table holds now.
    pub async fn expect_table(&self, database: &crate::Database, table: &str) {
        let rows = database.versions(table).await;
        let there: BTreeMap<String, i64> = rows.into_iter().map(|(id, version)| (id.to_string(), version)).collect();
        let differ = |a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>| -> Vec<String> {
            a.iter().filter(|(k, v)| b.get(*k) != Some(v)).take(5).map(|(k, v)| format!("{k}: version {v}")).collect()
        };
        let (table_only, topic_only) = (differ(&there, &self.live), differ(&self.live, &there));
        assert!(
            table_only.is_empty() && topic_only.is_empty(),
            "table and topic differ: the table has {table_only:?}, the topic has {topic_only:?}:\n{self}"
        );
    }
}

/// Judges one topic, as a `read_committed` consumer sees it.
pub async fn order(bootstrap: &str, name: &str, mut judge: Order) -> Report {
    for record in topic::read(bootstrap, name).await {
        judge.record(&record);
    }
    judge.finish()
}

/// Waits until a topic holds `changes` changes or more, then judges it: exactly so many, once and in order.
pub async fn settle(bootstrap: &str, name: &str, changes: u64, deadline: std::time::Duration) -> Report {
    let what = format!("{changes} changes in {name}");
    let report = crate::eventually(deadline, &what, async || {
        let report = order(bootstrap, name, Order::default()).await;
        if report.seen >= changes { Ok(report) } else { Err(report) }
    })
    .await;
    report.expect(changes);
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(offset: i64, value: Option<Value>) -> Record {
        Record {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            value: value.map(|v| v.to_string().into_bytes()),
            headers: Vec::new(),
        }
    }
    fn put(op: &str, id: i64, version: i64) -> Option<Value> {
        Some(json!({"before": null, "after": {"id": id, "version": version}, "op": op}))
    }
    fn gone(id: i64) -> Option<Value> {
        Some(json!({"before": {"id": id}, "after": null, "op": "d"}))
    }
    fn judge(judge: Order, values: &[Option<Value>]) -> Report {
        let mut judge = judge;
        for (n, v) in values.iter().enumerate() {
            judge.record(&record(n as i64, v.clone()));
        }
        judge.finish()
    }
    /// Two keys between each other, one deleted, made again, and changed.
    fn good() -> Vec<Option<Value>> {
        vec![
            put("c", 1, 1),
            put("c", 2, 1),
            put("u", 1, 2),
            gone(1),
            None,
            put("c", 1, 1),
            put("u", 1, 2),
            put("u", 2, 2),
        ]
    }
    fn wrongs(report: &Report) -> Vec<Wrong> {
        report.faults.iter().map(|f| f.wrong.clone()).collect()
    }

    #[test]
    fn a_right_history_has_no_fault() {
        let report = judge(Order::default(), &good());
        report.expect(7);
        assert_eq!(report.live, BTreeMap::from([("1".to_owned(), 2), ("2".to_owned(), 2)]));
    }

    #[test]
    fn a_lost_insert_is_found() {
        let mut history = good();
        history.remove(1);
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Start(2)]);
    }

    #[test]
    fn a_lost_update_is_found() {
        let history = [put("c", 1, 1), put("u", 1, 3)];
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Gap(1, 3)]);
    }

    #[test]
    fn a_lost_delete_is_found() {
        let mut history = good();
        history.remove(3);
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Back(2, 1)]);
    }

    #[test]
    fn a_change_twice_is_found() {
        let mut history = good();
        history.insert(3, put("u", 1, 2));
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Repeat(2)]);
    }

    #[test]
    fn a_delete_twice_is_found() {
        let mut history = good();
        history.insert(4, gone(1));
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Delete]);
    }

    #[test]
    fn a_swap_is_found() {
        let history = [put("c", 1, 1), put("u", 1, 3), put("u", 1, 2), put("u", 1, 4)];
        assert_eq!(wrongs(&judge(Order::default(), &history)), [Wrong::Gap(1, 3), Wrong::Back(3, 2), Wrong::Gap(2, 4)]);
    }

    /// Whatever one record is doubled, order tells; whatever one is lost, order tells too, except at the end of a run:
    /// there the count tells.
    #[test]
    fn every_single_loss_and_repeat_is_found() {
        let history = good();
        let right = judge(Order::default(), &history);
        for n in (0..history.len()).filter(|n| history[*n].is_some()) {
            for double in [false, true] {
                let mut broken = history.clone();
                if double {
                    broken.insert(n, history[n].clone())
                } else {
                    drop(broken.remove(n))
                }
                let report = judge(Order::default(), &broken);
                assert_ne!(report.seen, right.seen, "record {n}");
                let end_of_run = !double && [2, 6, 7].contains(&n);
                assert_eq!(report.faults.is_empty(), end_of_run, "record {n}, double {double}: {report}");
            }
        }
    }

    #[test]
    fn the_old_row_of_a_delete_tells_what_was_lost_before_it() {
        let delete = |version: i64| Some(json!({"before": {"id": 1, "version": version}, "after": null, "op": "d"}));
        judge(Order::default(), &[put("c", 1, 1), put("u", 1, 2), delete(2)]).expect(3);
        judge(Order::default(), &[put("c", 1, 1), delete(0)]).expect(2);
        assert_eq!(wrongs(&judge(Order::default(), &[put("c", 1, 1), delete(2)])), [Wrong::Gap(1, 2)]);
        assert_eq!(wrongs(&judge(Order::default(), &[put("c", 1, 1), put("u", 1, 2), delete(1)])), [Wrong::Back(2, 1)]);
    }

    #[test]
    fn a_wrong_count_is_found() {
        let report = judge(Order::default(), &good());
        assert!(std::panic::catch_unwind(|| report.expect(8)).is_err());
    }

    #[test]
    fn strangers_are_told() {
        let history = [Some(json!({"op": "t"})), Some(json!({"op": "c", "after": {"x": 1}})), put("c", 1, 1)];
        assert_eq!(judge(Order::default(), &history).faults.len(), 2);
    }

    #[test]
    fn a_snapshot_may_begin_a_run_anywhere() {
        judge(Order::default(), &[put("r", 1, 7), put("u", 1, 8)]).expect(2);
        // but not say what was said
        assert_eq!(wrongs(&judge(Order::default(), &[put("u", 1, 1), put("r", 1, 1)])), [Wrong::Repeat(1)]);
    }

    #[test]
    fn the_stream_may_overtake_the_snapshot_once() {
        let history = [put("u", 1, 8), gone(2), put("u", 1, 9), put("c", 2, 1)];
        assert_eq!(judge(Order::default(), &history).faults.len(), 2);
        judge(Order::default().overtaking(), &history).expect(4);
        let late = [put("u", 1, 8), put("r", 1, 8)];
        assert_eq!(wrongs(&judge(Order::default().overtaking(), &late)), [Wrong::Repeat(8)]);
        let twice = [gone(2), gone(2)];
        assert_eq!(wrongs(&judge(Order::default().overtaking(), &twice)), [Wrong::Delete]);
    }

    #[test]
    fn payloads_with_schemas_and_numbers_in_strings_are_read() {
        let value = json!({"schema": {}, "payload": {"op": "c", "before": null, "after": {"id": "a", "version": "1"}}});
        judge(Order::default(), &[Some(value)]).expect(1);
    }
}

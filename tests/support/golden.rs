//! Compares what Seachange published for the type workload with what Debezium published for it (`tests/golden`).
//!
//! Pure code: the caller reads the records, in order per topic, and gets the differences that are not known. Positions,
//! transaction ids, clocks and versions differ between any two runs and are blanked on both sides, but null stays null. Every
//! known difference is listed here with what was recorded, and explained in `docs/differences-from-debezium.md`: should the
//! recording or our output change, the entry no longer fits and is reported.

#[path = "golden_mysql.rs"]
mod mysql;

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// One record as a consumer read it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Topic.
    pub topic: String,
    /// Key, if any.
    pub key: Option<String>,
    /// Value; `None` for a tombstone.
    pub value: Option<String>,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// Which recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// PostgreSQL, streamed, Debezium's defaults.
    Stream,
    /// PostgreSQL, streamed, `decimal = "string"` and `time = "isostring"`.
    StreamStrings,
    /// PostgreSQL, read by a snapshot, Debezium's defaults.
    Snapshot,
    /// MySQL, as [`Recording::Stream`].
    MySqlStream,
    /// MySQL, as [`Recording::StreamStrings`].
    MySqlStreamStrings,
    /// MySQL, as [`Recording::Snapshot`].
    MySqlSnapshot,
    /// MariaDB, as [`Recording::Stream`].
    MariaDbStream,
    /// MariaDB, as [`Recording::Snapshot`].
    MariaDbSnapshot,
}

/// Table, number of the record, place, what was recorded, what ours is.
type Known = (&'static str, usize, &'static str, Json, Json);

impl Recording {
    /// Its lines.
    pub fn text(self) -> &'static str {
        match self {
            Recording::Stream => include_str!("../golden/postgres-15-stream-defaults.jsonl"),
            Recording::StreamStrings => include_str!("../golden/postgres-15-stream-plain.jsonl"),
            Recording::Snapshot => include_str!("../golden/postgres-15-snapshot-defaults.jsonl"),
            Recording::MySqlStream => include_str!("../golden/mysql-9.7-stream-defaults.jsonl"),
            Recording::MySqlStreamStrings => include_str!("../golden/mysql-9.7-stream-plain.jsonl"),
            Recording::MySqlSnapshot => include_str!("../golden/mysql-9.7-snapshot-defaults.jsonl"),
            Recording::MariaDbStream => include_str!("../golden/mariadb-10.11-stream-defaults.jsonl"),
            Recording::MariaDbSnapshot => include_str!("../golden/mariadb-10.11-snapshot-defaults.jsonl"),
        }
    }

    /// Of rows that were read, not streamed?
    pub fn is_snapshot(self) -> bool {
        matches!(self, Recording::Snapshot | Recording::MySqlSnapshot | Recording::MariaDbSnapshot)
    }

    fn is_postgres(self) -> bool {
        matches!(self, Recording::Stream | Recording::StreamStrings | Recording::Snapshot)
    }

    fn known(self) -> Vec<Known> {
        if !self.is_postgres() {
            return mysql::known(self);
        }
        let null = Json::Null;
        let mut known = vec![("others", 1, "/value/after/b8", json!(""), json!("AA=="))];
        if self != Recording::StreamStrings {
            known.push(("numbers", 3, "/value/after/n", null.clone(), json!("NaN")));
        }
        if self != Recording::Snapshot {
            for (n, name) in ["a_name", "n", ""].into_iter().enumerate() {
                known.push(("strings", n, "/value/after/nm", null.clone(), json!(name)));
            }
            known.push(("evolve", 10, "/value/before/bb", json!("filled"), null.clone()));
        }
        match self {
            Recording::Stream => {
                known.push(("odd_times", 0, "/value/after/d", json!(-2147472692), json!(i32::MAX)));
                known.push(("odd_times", 1, "/value/after/d", json!(-2147472691), json!(i32::MIN)));
            }
            Recording::Snapshot => {
                known.push(("odd_times", 0, "/value/after/d", json!(-622191234), json!(i32::MAX)));
                known.push(("odd_times", 1, "/value/after/d", json!(-625821272), json!(i32::MIN)));
                known.push(("odd_times", 2, "/value/after/d", json!(-703383), json!(-735160)));
                known.push((GENERATED.0, 0, GENERATED.1, json!(42), null));
            }
            Recording::StreamStrings => {
                known.push(("times", 3, "/value/after/t", json!("00:00:00Z"), json!("24:00:00Z")));
                known.push(("odd_times", 0, "/value/after/d", json!("-5877611-06-21Z"), json!("infinity")));
                known.push(("odd_times", 0, "/value/after/ts", json!("+294247-01-10T04:00:25.2Z"), json!("infinity")));
                known.push(("odd_times", 1, "/value/after/d", json!("-5877611-06-22Z"), json!("-infinity")));
                known.push(("odd_times", 1, "/value/after/ts", json!("-290308-12-21T19:59:27.6Z"), json!("-infinity")));
            }
            _ => {}
        }
        known
    }
}

/// A generated column: Debezium's snapshot has it, its stream does not.
const GENERATED: (&str, &str) = ("Odd__Name.s", "/value/after/twice");

/// Key, operation, old row and new row of what Seachange publishes for `ident`, where Debezium invents the key 0.
fn ident() -> Vec<Json> {
    let row = |code: &str, v: i32| json!({"id": 1, "code": code, "v": v});
    let old = |code: &str| json!({"id": null, "code": code, "v": null});
    let (one, none) = (json!({"id": 1}), json!({"id": null}));
    vec![
        json!([one, "c", null, row("c1", 1)]),
        json!([one, "u", null, row("c1", 2)]),
        json!([one, "u", old("c1"), row("c2", 2)]),
        json!([none, "d", old("c2"), null]),
        json!([none, null, null, null]),
    ]
}

/// Blanks what differs between any two runs.
fn normalised(mut record: Json) -> Json {
    for (object, name) in [
        ("/value", "ts_ms"),
        ("/value", "ts_us"),
        ("/value", "ts_ns"),
        ("/value/source", "ts_ms"),
        ("/value/source", "ts_us"),
        ("/value/source", "ts_ns"),
        ("/value/source", "txId"),
        ("/value/source", "lsn"),
        ("/value/source", "version"),
        ("/value/source", "sequence"),
        ("/value/source", "gtid"),
        ("/value/source", "file"),
        ("/value/source", "pos"),
        ("/value/source", "thread"),
    ] {
        if let Some(v) = record.pointer_mut(object).and_then(|o| o.get_mut(name)).filter(|v| !v.is_null()) {
            *v = json!(0);
        }
    }
    // Any server's number, but not that of none.
    if let Some(v) = record.pointer_mut("/value/source/server_id").filter(|v| **v != 0) {
        *v = json!(1);
    }
    // A snapshot here has no first and no last row, and its transaction, which only reads, no number.
    if let Some(source) =
        record.pointer_mut("/value/source").filter(|s| s["snapshot"].as_str().is_some_and(|s| s != "false"))
    {
        source["snapshot"] = json!("true");
        if let Some(number) = source.get_mut("txId") {
            *number = Json::Null;
        }
    }
    if let Some(headers) = record.get_mut("headers").and_then(Json::as_object_mut) {
        headers.retain(|name, _| !name.starts_with("__debezium.context."));
    }
    record
}

type ByTable = BTreeMap<String, Vec<Json>>;

/// The records by the part of their topic behind the last prefix (`dbz.types.`).
fn by_table(records: impl Iterator<Item = Json>, prefix: &str) -> ByTable {
    let mut tables = ByTable::new();
    for record in records {
        let topic = record["topic"].as_str().unwrap_or_default();
        let table = topic.strip_prefix(prefix).unwrap_or(topic).to_owned();
        tables.entry(table).or_default().push(normalised(record));
    }
    tables
}

/// Every unknown difference, as text; empty when all is as it should be. `prefix` is that of our topics: `shop.types.`.
pub fn differences(recording: Recording, ours: &[Seen], prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parse = |text: &Option<String>| match text {
        None => Json::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|e| json!(format!("not JSON: {e}: {text}"))),
    };
    let pipeline = prefix.split('.').next().unwrap_or_default();
    let ours = ours.iter().map(|seen| {
        let mut value = parse(&seen.value);
        if let Some(name) = value.pointer_mut("/source/name").filter(|n| **n == pipeline) {
            *name = json!("dbz");
        }
        let headers: serde_json::Map<String, Json> = seen.headers.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        json!({"topic": seen.topic, "key": parse(&seen.key), "value": value, "headers": headers})
    });
    let ours = by_table(ours, prefix);
    let golden = recording.text().lines().filter_map(|line| match serde_json::from_str(line) {
        Ok(json) => Some(json),
        Err(e) => {
            found.push(format!("a recorded line is not JSON: {e}"));
            None
        }
    });
    let mut golden = by_table(golden.collect::<Vec<Json>>().into_iter(), "dbz.types.");
    for (table, n, place, recorded, now) in recording.known() {
        match golden.get_mut(table).and_then(|r| r.get_mut(n)).and_then(|r| r.pointer_mut(place)) {
            Some(at) if *at == recorded && (table, place) == GENERATED => {
                let row = golden.get_mut(table).and_then(|r| r.get_mut(n)).and_then(|r| r.pointer_mut("/value/after"));
                row.and_then(Json::as_object_mut).and_then(|r| r.remove("twice"));
            }
            Some(at) if *at == recorded => *at = now,
            other => found
                .push(format!("{table} record {n} {place}: recorded {other:?}, the known difference says {recorded}")),
        }
    }
    let (mut ours, mut golden) = (ours, golden);
    if !recording.is_postgres() {
        mysql::complete(recording, &golden, &mut ours, &mut found);
    }
    if recording.is_snapshot() {
        // Read in the order of the key here, in the order of the file there.
        for records in ours.values_mut().chain(golden.values_mut()) {
            records.sort_by_cached_key(|r| (r["key"]["id"].as_i64(), r["key"].to_string()));
        }
    }
    let tables: std::collections::BTreeSet<&String> = ours.keys().chain(golden.keys()).collect();
    for table in tables {
        let (none, mine) = (Vec::new(), ours.get(table));
        let (mine, theirs) = (mine.unwrap_or(&none), golden.get(table).unwrap_or(&none));
        if table == "ident" && recording != Recording::Snapshot {
            let part = |r: &Json| {
                let v = &r["value"];
                json!([r["key"], v["op"], v["before"], v["after"]])
            };
            let told: Vec<Json> = mine.iter().map(part).collect();
            if told != ident() {
                found.push(format!("ident: {}", json!(told)));
            }
            continue;
        }
        if mine.len() != theirs.len() {
            found.push(format!("{table}: {} records, recorded were {}", mine.len(), theirs.len()));
        }
        for (n, (mine, theirs)) in mine.iter().zip(theirs).enumerate() {
            for part in ["key", "value", "headers"] {
                differ(&mine[part], &theirs[part], &format!("{table} record {n} {part}"), &mut found);
            }
        }
    }
    found
}

/// Reports the places where two values differ.
fn differ(mine: &Json, theirs: &Json, place: &str, found: &mut Vec<String>) {
    match (mine, theirs) {
        (Json::Object(a), Json::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                match (a.get(name), b.get(name)) {
                    (Some(x), Some(y)) => differ(x, y, &format!("{place}.{name}"), found),
                    (x, y) => found.push(format!("{place}.{name}: ours {x:?}, recorded {y:?}")),
                }
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{place}: ours {a}, recorded {b}")),
    }
}

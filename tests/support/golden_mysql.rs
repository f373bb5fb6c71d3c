//! What is known of the recordings of MySQL and MariaDB.

use super::{ByTable, Known, Recording, differ};
use serde_json::{Value as Json, json};

/// A document as MySQL prints it, and as Debezium does.
const DOCUMENT: &str = r#"{"a": 1, "b": [1, 2.5, {"c": null}], "d": true, "f": 10000000000.0, "é": "😀", "big": 18446744073709551615, "neg": -9223372036854775808}"#;
const THEIRS: &str = r#"{"a":1,"b":[1,2.5,{"c":null}],"d":true,"f":10000000000,"é":"😀","big":18446744073709551615,"neg":-9223372036854775808}"#;

pub fn known(recording: Recording) -> Vec<Known> {
    use Recording::*;
    let null = Json::Null;
    let mut known = Vec::new();
    // An upper half that a signed number does not have.
    let evolved = if recording.is_snapshot() { "evolved" } else { "evolve" };
    known.push((evolved, 2, "/value/after/a", json!(-1), json!(u64::MAX)));
    if recording != MariaDbSnapshot {
        known.push(("numbers", 0, "/value/after/biu", json!(-1), json!(u64::MAX)));
        known.push(("numbers", 3, "/value/after/biu", json!(i64::MIN), json!(1u64 << 63)));
        let year = if recording.is_snapshot() { 2000 } else { 1900 };
        known.push(("numbers", 3, "/value/after/y", json!(year), json!(0)));
    }
    let (day, second) = match recording {
        MySqlStreamStrings => (json!("1970-01-01Z"), json!("1970-01-01T00:00:00Z")),
        _ => (json!(0), json!(0)),
    };
    for n in [0, 1] {
        known.push(("zero_dates", n, "/value/after/dn", day.clone(), null.clone()));
        known.push(("zero_dates", n, "/value/after/dtn", second.clone(), null.clone()));
    }
    if recording == MariaDbStream {
        known.push(("zero_dates", 0, "/value/after/ts", json!("1970-01-01T00:00:00Z"), null.clone()));
    }
    if matches!(recording, MySqlStream | MySqlStreamStrings) {
        known.push(("strings", 0, "/value/after/j", json!(THEIRS), json!(DOCUMENT)));
    }
    if recording == MySqlStreamStrings {
        for (n, place, ours) in [
            (1, "/value/after/t", "-838:59:59Z"),
            (1, "/value/after/t3", "-00:00:01.001Z"),
            (1, "/value/after/t6", "-00:00:00.000001Z"),
            (2, "/value/after/t", "838:59:59Z"),
            (2, "/value/after/t3", "838:59:58.999Z"),
        ] {
            known.push(("times", n, place, null.clone(), json!(ours)));
        }
    }
    known
}

/// What a recording lacks: tables at which Debezium failed, and truncates, which it leaves out by default.
pub fn complete(recording: Recording, golden: &ByTable, ours: &mut ByTable, found: &mut Vec<String>) {
    if recording == Recording::MariaDbSnapshot {
        for table in ["numbers", "shapes"] {
            // Should it be recorded one day, its records are compared.
            if !golden.contains_key(table) {
                ours.remove(table);
            }
        }
    }
    if recording.is_snapshot() {
        return;
    }
    let (Some(golden), Some(ours)) = (golden.get("evolve"), ours.get_mut("evolve")) else { return };
    if ours.get(TRUNCATE).is_none_or(|r| r["value"]["op"] != "t") {
        found.push("evolve: its truncate is not there".into());
        return;
    }
    let mut expected = golden[TRUNCATE].clone();
    expected["key"] = Json::Null;
    for (name, value) in [("before", Json::Null), ("after", Json::Null), ("op", json!("t"))] {
        expected["value"][name] = value;
    }
    let truncate = ours.remove(TRUNCATE);
    for part in ["key", "value", "headers"] {
        differ(&truncate[part], &expected[part], &format!("evolve's truncate {part}"), found);
    }
}

/// Records of `evolve` before its truncate.
const TRUNCATE: usize = 6;

//! The comparer itself: the recordings, with the known differences put in, differ from themselves in nothing else.

#[path = "support/golden.rs"]
mod golden;

use golden::{Recording, Seen, differences};

fn seen(recording: Recording) -> Vec<Seen> {
    let text = |v: &serde_json::Value| (!v.is_null()).then(|| v.to_string());
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        Seen {
            topic: json["topic"].as_str().unwrap().to_owned(),
            key: text(&json["key"]),
            value: text(&json["value"]),
            headers: json["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
                .collect(),
        }
    };
    recording.text().lines().map(line).collect()
}

#[test]
fn what_debezium_published_differs_just_where_it_is_known_to() {
    use Recording::*;
    for (recording, known) in [
        (Stream, 9),
        (StreamStrings, 11),
        (Snapshot, 6),
        (MySqlStream, 10),
        (MySqlStreamStrings, 15),
        (MySqlSnapshot, 8),
        (MariaDbStream, 10),
        (MariaDbSnapshot, 5),
    ] {
        let found = differences(recording, &seen(recording), "dbz.types.");
        assert_eq!(found.len(), known, "{recording:?}: {found:#?}");
    }
}

#[test]
fn a_lost_record_and_a_changed_value_are_found() {
    let mut records = seen(Recording::Snapshot);
    let base = differences(Recording::Snapshot, &records, "dbz.types.").len();
    let lost = records.pop().unwrap();
    assert!(lost.topic.ends_with("times"));
    let value = records[0].value.take().unwrap();
    records[0].value = Some(value.replace("\"op\":\"r\"", "\"op\":\"c\""));
    assert_eq!(differences(Recording::Snapshot, &records, "dbz.types.").len(), base + 2);
}

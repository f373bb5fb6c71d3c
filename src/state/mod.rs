//! What a pipeline keeps: where it is in the log, how far each table's snapshot is, and which keys it has seen meanwhile.
//!
//! The sink stores opaque entries, in the same transaction as the records they belong to; this module gives them meaning.
//! It knows no sink and no connector: positions, fences and keys stay as opaque as they came. The bytes are [`codec`]'s.
//!
//! | key | entry |
//! | --- | --- |
//! | `position` | [`Checkpoint`] |
//! | `snapshot/<schema>.<table>` | [`TableState`] |
//! | `seen/<schema>.<table>/<n>` | part `n` of the keys seen: [`Seen`] |
//! | `source/<key>` | what the connector keeps: [`seachange_sdk::Kept`] |

pub mod codec;

use bytes::Bytes;
use seachange_sdk::{Error, Keep, Kept, Kind, Position, Result, Retry, Side, TxnId};
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write as _};

/// Key of the [`Checkpoint`].
pub const POSITION: &str = "position";
const SNAPSHOT: &str = "snapshot/";
const SEEN: &str = "seen/";
const SOURCE: &str = "source/";

/// Most keys that one [`Seen`] entry should hold: 25 bytes each, so that an entry stays under half a megabyte and with it
/// under every broker's default limit for a record.
pub const SEEN_KEYS_MAX: usize = 16_384;

/// Where the pipeline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Counts commits: each is the one before plus 1.
    pub sequence: u64,
    /// Place in the log.
    pub position: Position,
    /// When it was written, milliseconds since the Unix epoch.
    pub time_ms: i64,
}

impl Checkpoint {
    /// The first one, or the one after `previous`.
    pub fn after(previous: Option<&Checkpoint>, position: Position, time_ms: i64) -> Checkpoint {
        Checkpoint { sequence: previous.map_or(0, |p| p.sequence).saturating_add(1), position, time_ms }
    }
    /// The entry. `previous` is what is stored now: a gap or a repeat means that two writers share a state, or that one
    /// has lost count, and is refused.
    pub fn entry(&self, previous: Option<&Checkpoint>) -> Result<(String, Option<Vec<u8>>)> {
        let expected = previous.map_or(0, |p| p.sequence).checked_add(1);
        if expected != Some(self.sequence) {
            return Err(Error::bug(format!(
                "checkpoint {} does not follow checkpoint {}",
                self.sequence,
                previous.map_or(0, |p| p.sequence)
            )));
        }
        Ok((POSITION.to_owned(), Some(codec::encode_checkpoint(self)?)))
    }
}

/// How far a table's snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableState {
    /// Being read by key, in ranges.
    Reading {
        /// The ranges, in key order.
        ranges: Vec<RangeState>,
    },
    /// Being read whole, because it has no key: begins again after a restart.
    Whole {
        /// What it is read under, once that is known.
        fence: Option<Bytes>,
    },
    /// Read.
    Done {
        /// Rows read.
        rows: u64,
        /// What a table without key was read under, while it still has to be held against the stream.
        fence: Option<Bytes>,
    },
    /// Not to be read.
    Skipped,
}

impl TableState {
    /// The entry of a table, `schema.table`.
    pub fn entry(&self, table: &str) -> Result<(String, Option<Vec<u8>>)> {
        Ok((format!("{SNAPSHOT}{table}"), Some(codec::encode_table(self)?)))
    }
    /// The entry that forgets a table.
    pub fn forget(table: &str) -> (String, Option<Vec<u8>>) {
        (format!("{SNAPSHOT}{table}"), None)
    }
}

/// How far a range of a table's keys is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeState {
    /// Last key of the range; `None`: to the table's end.
    pub upto: Option<Bytes>,
    /// Last key read; `None`: nothing yet.
    pub last: Option<Bytes>,
    /// Read to its end?
    pub done: bool,
    /// Rows read.
    pub rows: u64,
    /// Keys of rows that must be read again: the stream has told them, but left values out.
    pub again: Vec<Bytes>,
}

/// Keys that the stream has carried while the table was being read: a part of them, at most [`SEEN_KEYS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Hash of the key's values; the transaction that changed the row; did the change lack values that the log does not
    /// carry?
    pub keys: Vec<(u128, TxnId, bool)>,
}

impl Seen {
    /// The entry of part `n` of a table's keys.
    pub fn entry(&self, table: &str, n: u64) -> Result<(String, Option<Vec<u8>>)> {
        Ok((format!("{SEEN}{table}/{n}"), Some(codec::encode_seen(self)?)))
    }
    /// The entry that forgets part `n`.
    pub fn forget(table: &str, n: u64) -> (String, Option<Vec<u8>>) {
        (format!("{SEEN}{table}/{n}"), None)
    }
}

/// The entry of what a connector keeps or forgets.
pub fn kept_entry((key, value): Keep) -> Result<(String, Option<Vec<u8>>)> {
    Ok((format!("{SOURCE}{key}"), value.as_ref().map(codec::encode_kept).transpose()?))
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Where the pipeline is; `None` before its first commit.
    pub checkpoint: Option<Checkpoint>,
    /// Snapshots, by `schema.table`.
    pub tables: BTreeMap<String, TableState>,
    /// Keys seen, by `schema.table`: numbered parts, in order.
    pub seen: BTreeMap<String, Vec<(u64, Seen)>>,
    /// What the connector keeps, as opaque as it came.
    pub kept: Kept,
}

impl State {
    /// Gives meaning to what a sink has stored.
    pub fn load(stored: &BTreeMap<String, Vec<u8>>) -> Result<State> {
        let mut state = State::default();
        for (key, bytes) in stored {
            let at = |e: Error| e.at(format!("state entry {key}"));
            if key == POSITION {
                state.checkpoint = Some(codec::decode_checkpoint(bytes).map_err(at)?);
            } else if let Some(table) = key.strip_prefix(SNAPSHOT) {
                state.tables.insert(table.to_owned(), codec::decode_table(bytes).map_err(at)?);
            } else if let Some((table, n)) =
                key.strip_prefix(SEEN).and_then(|k| k.rsplit_once('/')).and_then(|(t, n)| Some((t, n.parse().ok()?)))
            {
                let part = codec::decode_seen(bytes).map_err(at)?;
                state.seen.entry(table.to_owned()).or_default().push((n, part));
            } else if let Some(key) = key.strip_prefix(SOURCE) {
                state.kept.insert(key.to_owned(), codec::decode_kept(bytes).map_err(at)?);
            } else {
                return Err(Error::new(
                    Kind::State,
                    Side::Sink,
                    Retry::Operator,
                    format!("state entry {key:?} is not one that this Seachange knows"),
                )
                .fix("run the newer Seachange that wrote it; let nothing else write to the state"));
            }
        }
        // Keys come in the order of their text: 10 before 2.
        state.seen.values_mut().for_each(|parts| parts.sort_by_key(|(n, _)| *n));
        Ok(state)
    }

    /// For a person. `position` and `key` put the connector's encodings into words.
    pub fn describe(
        &self,
        position: impl Fn(&Position) -> String,
        key: impl Fn(&Bytes) -> String,
    ) -> serde_json::Value {
        let range = |r: &RangeState| json!({"upto": r.upto.as_ref().map(&key), "last": r.last.as_ref().map(&key), "done": r.done, "rows": r.rows});
        let table = |t: &TableState| match t {
            TableState::Reading { ranges } => json!({
                "state": "reading",
                "rows": ranges.iter().fold(0_u64, |n, r| n.saturating_add(r.rows)),
                "ranges": ranges.iter().map(range).collect::<Vec<_>>(),
            }),
            TableState::Whole { .. } => json!({"state": "reading whole"}),
            TableState::Done { rows, .. } => json!({"state": "done", "rows": rows}),
            TableState::Skipped => json!({"state": "skipped"}),
        };
        let keys = |parts: &Vec<(u64, Seen)>| parts.iter().map(|(_, s)| s.keys.len()).sum::<usize>();
        json!({
            "checkpoint": self.checkpoint.as_ref().map(|c| json!({
                "sequence": c.sequence,
                "position": position(&c.position),
                "bytes": hex(&c.position.0),
                "time_ms": c.time_ms,
            })),
            "snapshot": self.tables.iter().map(|(n, t)| (n.clone(), table(t))).collect::<serde_json::Map<_, _>>(),
            "kept": self.kept.iter().map(|(k, b)| (k.clone(), b.len().into())).collect::<serde_json::Map<_, _>>(),
            "keys_seen": self.seen.iter().map(|(n, p)| (n.clone(), keys(p).into())).collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(s, "{b:02x}");
        s
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        let b = |s: &'static str| Some(Bytes::from_static(s.as_bytes()));
        let checkpoint = Checkpoint {
            sequence: 42,
            position: Position(Bytes::from_static(b"\x01pos\xff")),
            time_ms: 1_700_000_000_123,
        };
        let ranges = vec![
            RangeState { upto: b("k5"), last: b("k3"), done: false, rows: 3, again: vec![Bytes::from_static(b"k1")] },
            RangeState { upto: None, last: None, done: true, rows: u64::MAX, again: vec![] },
        ];
        let tables = [
            ("public.orders", TableState::Reading { ranges }),
            ("public.log", TableState::Whole { fence: b("fence") }),
            ("public.new", TableState::Whole { fence: None }),
            ("public.\"a/b\"", TableState::Done { rows: 7, fence: b("f") }),
            ("public.skip", TableState::Skipped),
        ];
        let key = |n: u128| (n << 64 | 5, 700 + n as u64, n % 2 == 1);
        let seen = Seen { keys: (0..3).map(key).collect() };
        State {
            checkpoint: Some(checkpoint),
            tables: tables.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            seen: [("public.a/b".to_owned(), vec![(2, seen), (10, Seen::default())])].into(),
            kept: Kept::new(),
        }
    }

    fn store(s: &State) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        let mut put = |(k, v): (String, Option<Vec<u8>>)| out.insert(k, v.unwrap());
        let c = s.checkpoint.as_ref().unwrap();
        let before = Checkpoint { sequence: c.sequence - 1, ..c.clone() };
        put(c.entry(Some(&before)).unwrap());
        s.tables.iter().for_each(|(n, t)| drop(put(t.entry(n).unwrap())));
        s.seen.iter().for_each(|(t, p)| p.iter().for_each(|(n, s)| drop(put(s.entry(t, *n).unwrap()))));
        out
    }

    #[test]
    fn everything_comes_back() {
        let s = sample();
        assert_eq!(State::load(&store(&s)).unwrap(), s);
        let keep = ("schema/a/b".to_owned(), Some(Bytes::from_static(b"\0columns")));
        let (key, value) = kept_entry(keep.clone()).unwrap();
        assert_eq!(State::load(&[(key.clone(), value.unwrap())].into()).unwrap().kept[&keep.0], keep.1.unwrap());
        assert_eq!(kept_entry((keep.0, None)).unwrap(), (key, None));
        assert_eq!(State::load(&BTreeMap::new()).unwrap(), State::default());
    }

    #[test]
    fn version_1_stays_readable() {
        // Written once by version 1 of the format; SEACHANGE_WRITE_GOLDEN=1 writes it where it is missing.
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state/v1.bin");
        if std::env::var_os("SEACHANGE_WRITE_GOLDEN").is_some() && !std::path::Path::new(path).exists() {
            std::fs::write(path, codec::seal_file(&store(&sample())).unwrap()).unwrap();
        }
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(State::load(&codec::open_file(&bytes).unwrap()).unwrap(), sample());
        // The version is not raised yet, so the bytes are also those that are written today.
        assert_eq!(codec::seal_file(&store(&sample())).unwrap(), bytes);
    }

    #[test]
    fn gaps_and_repeats_are_refused() {
        let first = Checkpoint::after(None, Position::default(), 0);
        assert_eq!(first.sequence, 1);
        assert!(first.entry(None).is_ok() && first.entry(Some(&first)).is_err());
        let second = Checkpoint::after(Some(&first), Position::default(), 0);
        assert!(second.entry(Some(&first)).is_ok() && second.entry(None).is_err());
        let last = Checkpoint { sequence: u64::MAX, ..second };
        assert!(Checkpoint::after(Some(&last), Position::default(), 0).entry(Some(&last)).is_err());
    }

    #[test]
    fn unknown_and_damaged_entries_name_their_key() {
        for key in ["other", "seen/x", "seen/x/y"] {
            let e = State::load(&[(key.to_owned(), vec![])].into()).unwrap_err();
            assert!(e.what().contains(key) && e.kind() == Kind::State, "{e}");
        }
        let e = State::load(&[("snapshot/public.t".to_owned(), vec![1, 2])].into()).unwrap_err();
        assert!(e.what().starts_with("state entry snapshot/public.t: "), "{e}");
    }

    #[test]
    fn reads_well() {
        let v = sample().describe(|p| format!("{} bytes", p.0.len()), |k| String::from_utf8_lossy(k).into_owned());
        assert_eq!(v["checkpoint"]["position"], "5 bytes");
        assert_eq!(v["checkpoint"]["bytes"], "01706f73ff");
        assert_eq!(v["snapshot"]["public.orders"]["ranges"][0]["last"], "k3");
        assert_eq!(v["snapshot"]["public.orders"]["rows"], u64::MAX);
        assert_eq!(v["keys_seen"]["public.a/b"], 3);
    }

    #[test]
    fn a_full_part_fits_every_broker() {
        let full = Seen { keys: vec![(u128::MAX, u64::MAX, true); SEEN_KEYS_MAX] };
        assert!(full.entry("public.t", 0).unwrap().1.unwrap().len() < 500_000);
    }
}

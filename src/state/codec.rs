//! The bytes of stored state: the one place that knows them.
//!
//! ```text
//! "SCST"  magic                                             4 bytes
//! version of the format, little-endian                      2
//! kind of the entry                                         1
//! payload: bincode, fixed-size little-endian integers       n
//! CRC32C of all of the above, little-endian                 4
//! ```
//! Every version ever written stays readable, and has a golden file under `tests/golden/state`. Version 1 is the
//! structures in `v1`: they are apart from those that the program works with, so that a change of the latter cannot
//! change the bytes unnoticed. What is damaged, cut short, of another kind or from a newer Seachange is an error that says
//! which; the checksum is looked at before anything is decoded, so a decoder only ever sees what an encoder wrote.
//!
//! bincode is pinned to 1.3.3: small, stable bytes, no longer developed. Should it have to go, this module is all there
//! is to change.

use super::{Checkpoint, RangeState, Seen, TableState};
use bincode::Options as _;
use bytes::Bytes;
use seachange_sdk::{Error, Kind, Position, Result, Retry, Side};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

const MAGIC: [u8; 4] = *b"SCST";
const VERSION: u16 = 1;
const HEAD: usize = 7;
const TAIL: usize = 4;
/// Largest entry. Far above what a record can hold; a bound for the decoder, not for the state.
const LIMIT: u64 = 256 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Entry {
    Checkpoint = 1,
    Table = 2,
    Seen = 3,
    File = 4,
    Kept = 5,
}

/// The structures of version 1. Never change them.
mod v1 {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub struct Checkpoint {
        pub sequence: u64,
        pub position: Vec<u8>,
        pub time_ms: i64,
    }
    #[derive(Serialize, Deserialize)]
    pub enum Table {
        Reading { ranges: Vec<Range> },
        Whole { fence: Option<Vec<u8>> },
        Done { rows: u64, fence: Option<Vec<u8>> },
        Skipped,
    }
    #[derive(Serialize, Deserialize)]
    pub struct Range {
        pub upto: Option<Vec<u8>>,
        pub last: Option<Vec<u8>>,
        pub done: bool,
        pub rows: u64,
        pub again: Vec<Vec<u8>>,
    }
    #[derive(Serialize, Deserialize)]
    pub struct Seen {
        pub keys: Vec<(u128, u64, bool)>,
    }
}

fn damaged(what: &str) -> Error {
    Error::new(Kind::State, Side::Sink, Retry::Operator, format!("stored state is damaged: {what}"))
        .fix("restore the state, or drop it with `seachange state reset` and let the pipeline begin anew")
}

fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(LIMIT).reject_trailing_bytes()
}

fn seal<T: Serialize>(kind: Entry, payload: &T) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(kind as u8);
    options().serialize_into(&mut out, payload).map_err(|e| Error::bug("state that cannot be encoded").cause(e))?;
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    Ok(out)
}

fn unseal<T: DeserializeOwned>(kind: Entry, bytes: &[u8]) -> Result<T> {
    let Some((head, _)) = bytes.split_first_chunk::<4>() else { return Err(damaged("it is cut short")) };
    if *head != MAGIC {
        return Err(damaged("it does not begin as Seachange's state does"));
    }
    let Some((body, sum)) = bytes.split_last_chunk::<TAIL>() else { return Err(damaged("it is cut short")) };
    let Some((head, payload)) = body.split_first_chunk::<HEAD>() else { return Err(damaged("it is cut short")) };
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err(damaged("its checksum is wrong"));
    }
    let [.., low, high, found] = *head;
    let version = u16::from_le_bytes([low, high]);
    if version == 0 || version > VERSION {
        return Err(Error::new(
            Kind::State,
            Side::Sink,
            Retry::Operator,
            format!("stored state has format version {version}, this Seachange reads up to {VERSION}"),
        )
        .fix("run the newer Seachange that wrote it"));
    }
    if found != kind as u8 {
        return Err(damaged("an entry is of another kind than its key says"));
    }
    options().deserialize(payload).map_err(|e| damaged("it cannot be decoded").cause(e))
}

fn vec(b: &Option<Bytes>) -> Option<Vec<u8>> {
    b.as_ref().map(|b| b.to_vec())
}
fn bytes(v: Option<Vec<u8>>) -> Option<Bytes> {
    v.map(Bytes::from)
}

/// Encodes a checkpoint.
pub fn encode_checkpoint(c: &Checkpoint) -> Result<Vec<u8>> {
    let wire = v1::Checkpoint { sequence: c.sequence, position: c.position.0.to_vec(), time_ms: c.time_ms };
    seal(Entry::Checkpoint, &wire)
}

/// Decodes a checkpoint.
pub fn decode_checkpoint(b: &[u8]) -> Result<Checkpoint> {
    let c: v1::Checkpoint = unseal(Entry::Checkpoint, b)?;
    Ok(Checkpoint { sequence: c.sequence, position: Position(c.position.into()), time_ms: c.time_ms })
}

/// Encodes the state of a table's snapshot.
pub fn encode_table(t: &TableState) -> Result<Vec<u8>> {
    let wire = match t {
        TableState::Reading { ranges } => v1::Table::Reading {
            ranges: ranges
                .iter()
                .map(|r| v1::Range {
                    upto: vec(&r.upto),
                    last: vec(&r.last),
                    done: r.done,
                    rows: r.rows,
                    again: r.again.iter().map(|k| k.to_vec()).collect(),
                })
                .collect(),
        },
        TableState::Whole { fence } => v1::Table::Whole { fence: vec(fence) },
        TableState::Done { rows, fence } => v1::Table::Done { rows: *rows, fence: vec(fence) },
        TableState::Skipped => v1::Table::Skipped,
    };
    seal(Entry::Table, &wire)
}

/// Decodes the state of a table's snapshot.
pub fn decode_table(b: &[u8]) -> Result<TableState> {
    Ok(match unseal(Entry::Table, b)? {
        v1::Table::Reading { ranges } => TableState::Reading {
            ranges: ranges
                .into_iter()
                .map(|r| RangeState {
                    upto: bytes(r.upto),
                    last: bytes(r.last),
                    done: r.done,
                    rows: r.rows,
                    again: r.again.into_iter().map(Bytes::from).collect(),
                })
                .collect(),
        },
        v1::Table::Whole { fence } => TableState::Whole { fence: bytes(fence) },
        v1::Table::Done { rows, fence } => TableState::Done { rows, fence: bytes(fence) },
        v1::Table::Skipped => TableState::Skipped,
    })
}

/// Encodes a part of the keys seen.
pub fn encode_seen(s: &Seen) -> Result<Vec<u8>> {
    seal(Entry::Seen, &v1::Seen { keys: s.keys.clone() })
}

/// Decodes a part of the keys seen.
pub fn decode_seen(b: &[u8]) -> Result<Seen> {
    let s: v1::Seen = unseal(Entry::Seen, b)?;
    Ok(Seen { keys: s.keys })
}

/// Encodes what the connector keeps under a key.
pub fn encode_kept(b: &Bytes) -> Result<Vec<u8>> {
    seal(Entry::Kept, &b.to_vec())
}

/// Decodes what the connector keeps under a key.
pub fn decode_kept(b: &[u8]) -> Result<Bytes> {
    Ok(Bytes::from(unseal::<Vec<u8>>(Entry::Kept, b)?))
}

/// Encodes all entries as the content of a state file.
pub fn seal_file(entries: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    seal(Entry::File, entries)
}

/// Decodes the content of a state file. Keys stand in order and once: of two entries for one key, one would be lost.
pub fn open_file(b: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    // A map's encoding is that of a list of pairs.
    let entries: Vec<(String, Vec<u8>)> = unseal(Entry::File, b)?;
    if !entries.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(damaged("its keys are out of order"));
    }
    Ok(entries.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec as list, prelude::*};

    fn some_bytes() -> impl Strategy<Value = Option<Bytes>> {
        proptest::option::of(list(any::<u8>(), 0..40).prop_map(Bytes::from))
    }
    fn checkpoint() -> impl Strategy<Value = Checkpoint> {
        (any::<u64>(), list(any::<u8>(), 0..64), any::<i64>()).prop_map(|(sequence, p, time_ms)| Checkpoint {
            sequence,
            position: Position(p.into()),
            time_ms,
        })
    }
    fn table() -> impl Strategy<Value = TableState> {
        let range = (some_bytes(), some_bytes(), any::<bool>(), any::<u64>())
            .prop_map(|(upto, last, done, rows)| RangeState { upto, last, done, rows, again: vec![] });
        prop_oneof![
            list(range, 0..5).prop_map(|ranges| TableState::Reading { ranges }),
            some_bytes().prop_map(|fence| TableState::Whole { fence }),
            (any::<u64>(), some_bytes()).prop_map(|(rows, fence)| TableState::Done { rows, fence }),
            Just(TableState::Skipped),
        ]
    }
    fn seen() -> impl Strategy<Value = Seen> {
        list((any::<u128>(), any::<u64>(), any::<bool>()), 0..20).prop_map(|keys| Seen { keys })
    }

    proptest! {
        #[test]
        fn everything_comes_back(c in checkpoint(), t in table(), s in seen(),
                                 f in proptest::collection::btree_map(".*", list(any::<u8>(), 0..30), 0..6)) {
            prop_assert_eq!(decode_checkpoint(&encode_checkpoint(&c).unwrap()).unwrap(), c);
            prop_assert_eq!(decode_table(&encode_table(&t).unwrap()).unwrap(), t);
            prop_assert_eq!(decode_seen(&encode_seen(&s).unwrap()).unwrap(), s);
            for bytes in f.values().map(|v| Bytes::copy_from_slice(v)) {
                prop_assert_eq!(decode_kept(&encode_kept(&bytes).unwrap()).unwrap(), bytes);
            }
            prop_assert_eq!(open_file(&seal_file(&f).unwrap()).unwrap(), f);
        }

        #[test]
        fn any_damage_is_an_error(c in checkpoint(), t in table()) {
            for good in [encode_checkpoint(&c).unwrap(), encode_table(&t).unwrap()] {
                for at in 0..good.len() * 8 {
                    let mut bad = good.clone();
                    bad[at / 8] ^= 1 << (at % 8);
                    prop_assert!(decode_checkpoint(&bad).is_err() && decode_table(&bad).is_err(), "bit {}", at);
                }
                for len in 0..good.len() {
                    prop_assert!(decode_checkpoint(&good[..len]).is_err() && decode_table(&good[..len]).is_err());
                }
                let mut more = good.clone();
                more.push(0);
                prop_assert!(decode_checkpoint(&more).is_err() && decode_table(&more).is_err());
            }
        }

        #[test]
        fn foreign_bytes_never_panic(mut b in list(any::<u8>(), 0..200)) {
            // Whatever the payload is, behind a head and a checksum that are right.
            if b.len() >= HEAD {
                b[..4].copy_from_slice(&MAGIC);
                b[4..6].copy_from_slice(&VERSION.to_le_bytes());
            }
            let sum = crc32c::crc32c(&b);
            b.extend_from_slice(&sum.to_le_bytes());
            let results = [decode_checkpoint(&b).err(), decode_table(&b).err(), decode_seen(&b).err(), decode_kept(&b).err(), open_file(&b).err()];
            for e in results.into_iter().flatten() {
                prop_assert_eq!(e.kind(), Kind::State);
            }
        }
    }

    #[test]
    fn a_key_twice_or_out_of_order_is_damage() {
        let pairs = |keys: &[&str]| keys.iter().map(|k| ((*k).to_owned(), vec![1u8])).collect::<Vec<_>>();
        for keys in [&["a", "a"][..], &["b", "a"]] {
            let e = open_file(&seal(Entry::File, &pairs(keys)).unwrap()).unwrap_err();
            assert_eq!(e.kind(), Kind::State, "{keys:?}");
        }
        assert_eq!(open_file(&seal(Entry::File, &pairs(&["a", "b"])).unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn a_newer_version_and_another_kind_are_told() {
        let mut b = encode_table(&TableState::Skipped).unwrap();
        assert!(decode_checkpoint(&b).unwrap_err().what().contains("another kind"));
        b[4] = 9;
        let body = b.len() - TAIL;
        let sum = crc32c::crc32c(&b[..body]);
        b[body..].copy_from_slice(&sum.to_le_bytes());
        let e = decode_table(&b).unwrap_err();
        assert!(e.what().contains("version 9") && e.remedy().is_some_and(|f| f.contains("newer")), "{e:?}");
    }
}

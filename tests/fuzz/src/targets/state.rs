//! What is stored and read again: checkpoints, snapshot states, positions, fences, keys.
//!
//! What is accepted must be written back as the same bytes: two encodings of one state would be two states.

use bytes::Bytes;
use seachange::state::codec;
use seachange_postgres::{
    parse_lsn,
    position::{Lsn, PgFence, PgPosition},
    snapshot::keys,
};
use seachange_sdk::{Fence, Position};

/// Heads, counts, flags.
pub const TOKENS: &[&[u8]] = &[
    b"SCST\x01\0",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x04",
    b"\0\0\0\0",
    b"\0\0\0\0\0\0\0\0",
    b"\x01\0\0\0\0\0\0\0",
    b"\x02\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\x01",
    b"\0\0\0\x02",
    b"0/16B3748",
    b"10:20:10,12",
    b"\0\0\0\0\0\0\0\0\x0a",
];

/// Input: a kind of entry; 0: the whole entry as it is, 1 to 4: its payload, which gets a head and a checksum that are right;
/// 5: a position, 6: a fence, 7: text.
pub fn checkpoint(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 8 {
        0 => entry(rest),
        kind @ 1..=4 => entry(&sealed(kind, rest)),
        5 => {
            let p = Position(Bytes::copy_from_slice(rest));
            if let Ok(read) = PgPosition::decode(&p) {
                assert_eq!(read.encode(), p, "a position is written as it was read");
                assert!(!read.to_string().is_empty());
            }
        }
        6 => {
            let f = Fence(Bytes::copy_from_slice(rest));
            if let Ok(read) = PgFence::decode(&f) {
                assert_eq!(read.encode(), f, "a fence is written as it was read");
                assert!(!read.xip.iter().any(|x| *x < read.xmax && *x >= read.xmin && read.sees(*x)));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            if let Some(lsn) = parse_lsn(text) {
                assert_eq!(parse_lsn(&Lsn(lsn).to_string()), Some(lsn));
            }
            if let Some(fence) = PgFence::parse(text, 1) {
                assert_eq!(PgFence::decode(&fence.encode()).expect("a fence reads back"), fence);
            }
        }
    }
}

/// An entry with a head and a checksum that are right.
pub fn sealed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = [&b"SCST\x01\0"[..], &[kind], payload].concat();
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn entry(bytes: &[u8]) {
    let again = [
        codec::decode_checkpoint(bytes).and_then(|c| codec::encode_checkpoint(&c)),
        codec::decode_table(bytes).and_then(|t| codec::encode_table(&t)),
        codec::decode_seen(bytes).and_then(|s| codec::encode_seen(&s)),
        codec::open_file(bytes).and_then(|f| codec::seal_file(&f)),
    ];
    let read: Vec<Vec<u8>> = again.into_iter().flatten().collect();
    assert!(read.len() <= 1, "an entry is of one kind");
    for again in read {
        assert_eq!(again, bytes, "an entry is written as it was read");
    }
}

/// The key of a row as it is stored.
pub fn key(input: &[u8]) {
    assert!(!keys::describe(input).is_empty());
    if let Ok(values) = keys::decode(input) {
        let again = keys::encode(values.iter().map(|v| v.as_bytes())).expect("a short key");
        assert_eq!(again, input, "a key is written as it was read");
    }
}

//! The binary log: events into the assembler, its batch into records; and what they carry that is packed.
//!
//! `binlog`: a byte that says whose log it is (bit 0: MariaDB) and which columns are left out (bit 1), then events without
//! checksums, one behind the other, as long as their headers say. `packed`: a byte for the sort of packing, then the bytes.

use super::{batch_holds, encodes};
use bytes::Bytes;
use seachange::config::resolved::Topics;
use seachange::{
    config::resolved::Values,
    format::{Encoder, resolved_defaults},
    sink::Records,
};
use seachange_mysql::{
    assembler::{Assembler, Setup, Taken, Why},
    charset::Collations,
    columns::{CatalogColumn, CatalogTable},
    event::{HEADER, Header, kind},
    flavor::Flavor,
    history::{Folding, History},
    payload,
    position::{Gtids, Place, Stand},
};
use seachange_sdk::{Batch, Kept, Limit, Selection};

/// Kinds of events, of columns, of what a TABLE_MAP tells.
pub const TOKENS: &[&[u8]] = &[
    b"\x02",
    b"\x0f",
    b"\x10",
    b"\x13",
    b"\x1e",
    b"\x1f",
    b"\x20",
    b"\x21",
    b"\x22",
    b"\x26",
    b"\x27",
    b"\x28",
    b"\x2a",
    b"\xa0",
    b"\xa2",
    b"\xa5",
    b"\xa6",
    b"\xaa",
    b"\xf5",
    b"\xf6",
    b"\xfe",
    b"\xff",
    b"\xfc\xff\xff",
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
    b"BEGIN",
    b"COMMIT",
    b"ROLLBACK TO s",
    b"SAVEPOINT s",
    b"TRUNCATE TABLE fz.kv",
    b"ALTER TABLE kv ADD w int FIRST",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x28\xb5\x2f\xfd",
    b"\x78\x9c",
];

/// Character sets by their numbers, as a server tells them.
pub fn collations() -> Collations {
    let sets = [
        (8, "latin1"),
        (11, "ascii"),
        (1, "big5"),
        (13, "sjis"),
        (28, "gbk"),
        (33, "utf8mb3"),
        (35, "ucs2"),
        (45, "utf8mb4"),
        (54, "utf16"),
        (60, "utf32"),
        (63, "binary"),
        (248, "gb18030"),
        (255, "utf8mb4"),
        (309, "utf8mb4"),
    ];
    Collations::new(sets.into_iter().map(|(id, name)| (id, name.to_owned())))
}

/// The events of an input: their places.
fn events(input: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut out, mut at) = (Vec::new(), 1);
    while let Some(size) = input.get(at + 9..at + 13).and_then(|s| s.first_chunk::<4>()) {
        let size = (u32::from_le_bytes(*size) as usize).max(HEADER);
        let end = at.saturating_add(size).min(input.len());
        out.push(at..end);
        at = end;
    }
    out
}

/// A format description that promises no checksums.
fn format(flavor: Flavor) -> Bytes {
    let mut body = 4u16.to_le_bytes().to_vec();
    let version: &[u8] = if flavor == Flavor::MySql { b"9.7.4" } else { b"10.11.18-MariaDB-log" };
    body.extend_from_slice(version);
    body.resize(2 + 50, 0);
    body.extend([0, 0, 0, 0, HEADER as u8]);
    // Rows events have ten bytes of their own since 2012, eight before.
    let own = |n: u8| match n {
        23..=25 => 8,
        30..=32 | kind::PARTIAL_UPDATE_ROWS => 10,
        _ => 8,
    };
    body.extend((1..=171).map(own));
    body.extend([0; 5]);
    let mut event = vec![0, 0, 0, 0, kind::FORMAT_DESCRIPTION, 1, 0, 0, 0];
    event.extend(((HEADER + body.len()) as u32).to_le_bytes());
    event.extend([0; 6]);
    event.extend(body);
    event.into()
}

/// What a catalog says of the table `kv`; of others it knows nothing.
fn catalog(table: &str) -> Option<CatalogTable> {
    let column = |name: &str, data_type: &str, octets| CatalogColumn {
        name: name.into(),
        data_type: data_type.into(),
        column_type: data_type.into(),
        charset: seachange_mysql::charset::Charset::named("utf8mb4"),
        octets,
        ..CatalogColumn::default()
    };
    let columns = vec![column("k", "varchar", 80), column("vv", "int", 0), column("w", "int", 0)];
    (table == "kv").then(|| CatalogTable { columns, key: vec![0] })
}

fn selection(left_out: bool) -> Selection {
    let mut faults = Vec::new();
    let without: Vec<String> = if left_out { vec!["*.*.t".into(), "*.*.v".into()] } else { Vec::new() };
    let s = Selection::parse("fuzz", &["*.*".into()], &["hidden.*".into()], &without, &mut faults);
    assert!(faults.is_empty());
    s
}

/// The target.
pub fn binlog(input: &[u8]) {
    changes(input);
}

/// How many changes came of an input.
pub fn changes(input: &[u8]) -> usize {
    let first = input.first().copied().unwrap_or(0);
    let flavor = if first & 1 == 0 { Flavor::MySql } else { Flavor::MariaDb };
    let gtids = match flavor {
        Flavor::MySql if first & 4 == 0 => Gtids::MySql(Default::default()),
        Flavor::MySql => Gtids::Off,
        Flavor::MariaDb => Gtids::Maria(Default::default()),
    };
    let stand = Stand { gtids, place: Place { file: "binlog.000001".into(), offset: 4 }, ..Stand::default() };
    let history = History::load(Folding(false), &Kept::default()).expect("nothing was kept");
    let mut assembler = Assembler::new(Setup {
        flavor,
        selection: selection(first & 2 != 0),
        collations: collations(),
        stand,
        history,
    });
    let limit = Limit { bytes: 1 << 20, changes: 1 << 14, row_bytes: 2048, txn_tables: true };
    let mut batch = Batch::default();
    let described = |assembler: &mut Assembler, need: &seachange_mysql::assembler::Need| {
        let found = if need.why == Why::Hints { None } else { catalog(&need.table) };
        assembler.provide(&need.database, &need.table, found);
    };
    let mut take = |assembler: &mut Assembler, event: &Bytes, inside: bool| -> bool {
        let before = batch.changes.len();
        // A statement may name many tables, each of which is asked for once.
        for _ in 0..64 {
            let taken = match inside {
                true => assembler.take_unpacked(event, &mut batch, &limit),
                false => assembler.take(event, &mut batch, &limit),
            };
            match taken {
                Ok(Taken::Done) => return true,
                Ok(Taken::NeedTable(need)) => described(assembler, &need),
                Err(e) => {
                    assert!(!e.what().is_empty());
                    // The stream ends there, and with it the batch: what came of events before this one is looked at.
                    batch.changes.truncate(before);
                    return false;
                }
            }
        }
        false
    };
    assert!(take(&mut assembler, &format(flavor), false), "the format is sound");
    'stream: for place in events(input) {
        let event = Bytes::copy_from_slice(&input[place]);
        if !take(&mut assembler, &event, false) {
            break;
        }
        loop {
            match assembler.unpacked() {
                Ok(Some(event)) if take(&mut assembler, &event, true) => {}
                Ok(None) => break,
                _ => break 'stream,
            }
        }
    }
    batch_holds(&batch);
    let stand = assembler.stand();
    assert_eq!(Stand::decode(&stand.encode()).expect("a position reads back"), stand);
    if batch.changes.is_empty() {
        return 0;
    }
    for values in [Values::Plain, Values::Debezium] {
        let mut format = resolved_defaults(values);
        (format.schemas, format.transaction) = (values == Values::Debezium, true);
        let mut encoder = Encoder::new("dbz", "lab", &format, &Topics::default()).expect("a good template");
        // That a row's value is refused is for the format to say; what was encoded before it has been looked at.
        if let Err(e) = encodes(&mut encoder, &batch, &mut Records::default()) {
            assert!(!e.what().is_empty());
        }
    }
    batch.changes.len()
}

/// What unpacks has exactly the size that was declared.
pub fn packed(input: &[u8]) {
    const MOST: u64 = 1 << 20;
    let Some((which, rest)) = input.split_first() else { return };
    match which % 3 {
        0 => {
            let Ok(payload) = payload::TransactionPayload::parse(rest) else { return };
            let whole = payload.unpack(MOST);
            if let Ok(plain) = &whole {
                assert_eq!(plain.len() as u64, payload.plain_size());
            }
            let data = Bytes::copy_from_slice(&rest[rest.len() - payload.packed_size()..]);
            // Event by event gives the same bytes.
            let Ok(mut reader) = payload.reader(data) else { return };
            if payload.plain_size() > MOST {
                return;
            }
            let mut joined = Vec::new();
            let end = loop {
                match reader.next() {
                    Ok(Some(event)) => {
                        assert_eq!(Header::peek(&event).expect("a header").size as usize, event.len());
                        joined.extend_from_slice(&event);
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if end {
                assert_eq!(whole.expect("what can be read event by event can be read whole"), joined);
                assert!(payload::events(&joined).all(|e| e.is_ok()));
            }
        }
        1 => {
            if let Ok(plain) = payload::unpack_mariadb(rest, MOST) {
                assert!(plain.len() as u64 <= MOST);
            }
        }
        _ => {
            let plain = payload::unpack_column(rest);
            if let (Ok(plain), true) = (plain, rest.first().is_some_and(|h| h >> 4 == 0)) {
                assert_eq!(*plain, rest[1..], "what is stored as it is");
            }
        }
    }
}

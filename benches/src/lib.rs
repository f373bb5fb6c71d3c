//! The row path on fixed inputs: inserts into a table `orders` of eight columns, as three servers send them.
//!
//! PostgreSQL's messages are built here; `inputs/` holds a binary log file of a MySQL and of a MariaDB as those have written
//! it, for one `INSERT` of 200 rows. Every case is a round that can be repeated and does the same each time: a stream of one
//! transaction from its beginning (set-up included, which the many rows make small), or a batch that is encoded. What is
//! compiled once a table is a case of its own. `benches/rows.rs` tells the time of a round; `scripts/counts` its instructions.

use bytes::Bytes;
use seachange::{
    config::resolved::{Topics, Values},
    format::{Clock, Encoder, resolved_defaults},
    sink::Records,
};
use seachange_mysql::{
    assembler::{Assembler as BinlogAssembler, Setup, Taken},
    charset::Collations,
    event::kind,
    flavor::Flavor,
    gtid::{GtidPos, GtidSet},
    history::History,
    position::{Gtids, Place, Stand},
};
use seachange_postgres::{
    assembler::{Assembler, Next},
    catalog::{Bound, RelationInfo, layout, types::Types},
    position::PgPosition,
};
use seachange_sdk::{Batch, Column, Limit, Selection, TableId, TableKind, TableSchema};
use std::sync::Arc;

/// Rows of a round.
pub const ROWS: usize = 2000;

/// The cases: what is done, to whose rows, and in which form. A round of `plan-*` does one table.
pub const CASES: [&str; 9] = [
    "decode-postgres",
    "decode-mysql",
    "decode-mariadb",
    "plan-postgres",
    "plan-mysql",
    "encode-postgres-plain",
    "encode-postgres-debezium",
    "encode-mysql-plain",
    "encode-mysql-debezium",
];

const CLOCK: Clock = Clock(1_750_000_000_123_456_789);
const LIMIT: Limit = Limit { bytes: 8 << 20, changes: 1 << 16, row_bytes: 1 << 20, txn_tables: false };

fn selection() -> Selection {
    let mut faults = Vec::new();
    let selection = Selection::parse("micro", &["*.orders".into()], &[], &[], &mut faults);
    assert!(faults.is_empty(), "a pattern that can be read");
    selection
}

/// CopyData messages of PostgreSQL: begin, the relation, the rows, commit; one chunk and their places in it.
fn postgres_messages() -> (Bytes, Vec<std::ops::Range<usize>>) {
    const COMMIT: u64 = 0x0200_0000;
    let columns: [(&str, u32, i32); 8] = [
        ("id", 20, -1),
        ("customer_id", 23, -1),
        ("sku", 25, -1),
        ("qty", 23, -1),
        ("price", 1700, (12 << 16 | 2) + 4),
        ("note", 25, -1),
        ("created_at", 1184, -1),
        ("updated_at", 1184, -1),
    ];
    let (mut chunk, mut places) = (Vec::new(), Vec::new());
    let mut message = |at: u64, body: &[u8]| {
        let from = chunk.len();
        chunk.push(b'w');
        [at, COMMIT, 0].iter().for_each(|n| chunk.extend(n.to_be_bytes()));
        chunk.extend(body);
        places.push(from..chunk.len());
    };
    let mut begin = vec![b'B'];
    begin.extend(COMMIT.to_be_bytes());
    begin.extend(0u64.to_be_bytes());
    begin.extend(7u32.to_be_bytes());
    message(0x0100_0000, &begin);
    let mut relation = b"R\0\0\x40\0public\0orders\0d\0\x08".to_vec();
    for (i, (name, oid, typmod)) in columns.iter().enumerate() {
        relation.push(u8::from(i == 0));
        relation.extend([name.as_bytes(), b"\0"].concat());
        relation.extend(oid.to_be_bytes());
        relation.extend(typmod.to_be_bytes());
    }
    message(0, &relation);
    for n in 0..ROWS {
        let k = 1_234_567 + n;
        let cells = [
            k.to_string(),
            (k * 31 % 100_000).to_string(),
            format!("SKU-{:08}", k % 50_000),
            (k % 9 + 1).to_string(),
            format!("{}.{:02}", k * 104_729 % 1_000_000 / 100, k * 104_729 % 100),
            format!("note for order {k}"),
            "2025-06-15 15:06:40.123456+00".to_owned(),
            "2025-06-15 15:06:40.123456+00".to_owned(),
        ];
        let mut row = b"I\0\0\x40\0N\0\x08".to_vec();
        for cell in &cells {
            row.push(b't');
            row.extend((cell.len() as u32).to_be_bytes());
            row.extend(cell.as_bytes());
        }
        message(0x0100_0100 + 200 * n as u64, &row);
    }
    let mut commit = vec![b'C', 0];
    commit.extend(COMMIT.to_be_bytes());
    commit.extend((COMMIT + 48).to_be_bytes());
    commit.extend(0u64.to_be_bytes());
    message(COMMIT, &commit);
    (chunk.into(), places)
}

/// What a catalog would say of the table.
fn bound(info: &RelationInfo) -> Bound {
    let types = Types::default();
    let column = |(i, c): (usize, &seachange_postgres::catalog::RelationColumn)| {
        let (ty, decode) = types.resolve(c.type_oid, c.typmod);
        Column { name: c.name.as_str().into(), ty, type_name: "micro".into(), nullable: i > 0, decode }
    };
    let columns = info.columns.iter().enumerate().map(column).collect();
    let id = TableId { database: "app".into(), schema: "public".into(), name: "orders".into() };
    let schema = TableSchema { id, kind: TableKind::Table, version: 1, columns, key: vec![0], layout: layout() };
    Bound { schema: Arc::new(schema), mask: vec![true; info.columns.len()] }
}

fn decode_postgres(chunk: &Bytes, places: &[std::ops::Range<usize>], batch: &mut Batch) {
    batch.clear();
    let start = PgPosition { system: 7, end: 0, prev_commit: 0, inside: None };
    let mut assembler = Assembler::new(selection(), "app", start, 1 << 33, false);
    assembler.enter(batch);
    for place in places {
        let message = &chunk[place.clone()];
        let base = u32::try_from(place.start).expect("a small input");
        if let Next::Bind(info) = assembler.take(message, base, batch, &LIMIT).expect("a message") {
            let bound = bound(&info);
            assembler.bind(info, bound).expect("as many columns as the relation has");
            assembler.take(message, base, batch, &LIMIT).expect("a message");
        }
    }
    assembler.cut(batch);
    batch.chunks.push(chunk.clone());
}

/// The events of a log file, of which those with the rows come again until there are [`ROWS`] in the one transaction.
fn events(file: &'static [u8]) -> Vec<Bytes> {
    const ROWS_OF_FILE: usize = 200;
    let (mut out, mut at) = (Vec::new(), 4);
    while let Some(length) = file.get(at + 9..at + 13).and_then(|b| b.first_chunk::<4>()) {
        let end = at + u32::from_le_bytes(*length) as usize;
        out.push(Bytes::from_static(&file[at..end]));
        at = end;
    }
    let of = |wanted: u8| out.iter().position(|e| e[4] == wanted).expect("an event of this kind");
    let end = of(kind::XID);
    let rows = out[of(kind::TABLE_MAP)..end].to_vec();
    for _ in 1..ROWS / ROWS_OF_FILE {
        out.splice(end..end, rows.iter().cloned());
    }
    out
}

fn decode_binlog(flavor: Flavor, events: &[Bytes], batch: &mut Batch) {
    batch.clear();
    let gtids = match flavor {
        Flavor::MySql => Gtids::MySql(GtidSet::default()),
        Flavor::MariaDb => Gtids::Maria(GtidPos::default()),
    };
    let place = Place { file: "binlog.000003".into(), offset: 4 };
    let stand = Stand { gtids, place, ..Stand::default() };
    let collations = Collations::new([(255, "utf8mb4".to_owned()), (45, "utf8mb4".to_owned())]);
    let history = History::default();
    let mut assembler = BinlogAssembler::new(Setup { flavor, selection: selection(), collations, stand, history });
    assembler.new_batch();
    for event in events {
        if let Taken::NeedTable(need) = assembler.take(event, batch, &LIMIT).expect("an event") {
            // The log names all columns; nobody is there to say more (MariaDB: that a text is JSON).
            assembler.provide(&need.database, &need.table, None);
            let taken = assembler.take(event, batch, &LIMIT).expect("an event");
            assert_eq!(taken, Taken::Done, "all metadata is there");
        }
    }
}

static MYSQL: &[u8] = include_bytes!("../inputs/mysql-9.7.binlog");
static MARIADB: &[u8] = include_bytes!("../inputs/mariadb-10.11.binlog");

fn encoder(values: Values) -> Encoder {
    Encoder::new("micro", "app", &resolved_defaults(values), &Topics::default()).expect("a good template")
}

/// What a connector makes of the rows.
fn decoded(mysql: bool, batch: &mut Batch) {
    if mysql {
        decode_binlog(Flavor::MySql, &events(MYSQL), batch);
    } else {
        let (chunk, places) = postgres_messages();
        decode_postgres(&chunk, &places, batch);
    }
}

/// A case, ready to be run; each call is one round and gives how many rows (or tables) it has done.
pub fn case(name: &str) -> Option<Box<dyn FnMut() -> usize>> {
    let mut batch = Batch::default();
    let mysql = name.contains("-mysql");
    Some(match name {
        "decode-postgres" => {
            let (chunk, places) = postgres_messages();
            Box::new(move || {
                decode_postgres(&chunk, &places, &mut batch);
                batch.changes.len()
            })
        }
        "decode-mysql" | "decode-mariadb" => {
            let (flavor, file) = if mysql { (Flavor::MySql, MYSQL) } else { (Flavor::MariaDb, MARIADB) };
            let events = events(file);
            Box::new(move || {
                decode_binlog(flavor, &events, &mut batch);
                batch.changes.len()
            })
        }
        // A batch that has tables and no rows.
        "plan-postgres" | "plan-mysql" => {
            decoded(mysql, &mut batch);
            batch.changes.clear();
            Box::new(move || {
                let mut records = Records::default();
                encoder(Values::Debezium).encode(&batch, CLOCK, &mut records).expect("no records");
                records.topic_count()
            })
        }
        "encode-postgres-plain" | "encode-postgres-debezium" | "encode-mysql-plain" | "encode-mysql-debezium" => {
            decoded(mysql, &mut batch);
            let values = if name.ends_with("-plain") { Values::Plain } else { Values::Debezium };
            let (mut encoder, mut records) = (encoder(values), Records::default());
            Box::new(move || {
                records.clear();
                encoder.encode(&batch, CLOCK, &mut records).expect("records");
                records.items.len()
            })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_does_the_same_every_time() {
        for name in CASES {
            let mut round = case(name).expect("a case of this name");
            let all = if name.starts_with("plan-") { 1 } else { ROWS };
            assert_eq!([round(), round(), round()], [all; 3], "{name}");
        }
    }

    #[test]
    fn rows_are_what_the_servers_sent() {
        let postgres = r#""id":1234567,"customer_id":71577,"sku":"SKU-00034567","qty":2,"price":"9673.43","note":"note for order 1234567","created_at":"2025-06-15T15:06:40.123456Z","#;
        let mysql = r#""id":1234568,"customer_id":71608,"sku":"SKU-00034568","qty":3,"price":"720.72","note":"note for order 1234568","created_at":""#;
        for (mysql, said) in [(false, postgres), (true, mysql)] {
            let (mut batch, mut records) = (Batch::default(), Records::default());
            decoded(mysql, &mut batch);
            encoder(Values::Plain).encode(&batch, CLOCK, &mut records).expect("records");
            let value = records.items[0].value.clone().expect("a value");
            let value = String::from_utf8_lossy(records.bytes(&value)).into_owned();
            assert!(value.contains(said), "{value}");
        }
    }
}

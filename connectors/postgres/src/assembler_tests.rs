//! Transactions of hand-made frames, whole and cut after every change.

use super::*;
use crate::{
    catalog::Catalog,
    pgoutput::frames::{self, C},
};
use bytes::Bytes;
use seachange_sdk::{Column, Decoder, TableId, TableKind, Type};

const LIMIT: Limit = Limit { bytes: 1 << 20, changes: 1 << 20, row_bytes: 100, txn_tables: true };

fn schema(info: &RelationInfo) -> Arc<TableSchema> {
    let column = |name: &str| Column {
        name: name.into(),
        ty: Type::Text,
        type_name: "text".into(),
        nullable: true,
        decode: Decoder::plain(|_, _| Ok(seachange_sdk::Value::Null)),
    };
    Arc::new(TableSchema {
        id: TableId { database: "d".into(), schema: info.schema.as_str().into(), name: info.name.as_str().into() },
        kind: TableKind::Table,
        version: 1,
        columns: info.columns.iter().map(|c| column(&c.name)).collect(),
        key: vec![0],
        layout: catalog::layout(),
    })
}
// The type is named so that a change of the neighbour's constructor shows here.
#[allow(dead_code)]
type Neighbour = Catalog;

fn start(at: Option<&Position>) -> Assembler {
    let mut faults = vec![];
    let selection = Selection::parse("p", &["public.*".into()], &["public.skip".into()], &[], &mut faults);
    assert!(faults.is_empty());
    let p = match at {
        Some(p) => PgPosition::decode(p).unwrap(),
        None => PgPosition { system: 1, end: 10, prev_commit: 0, inside: None },
    };
    Assembler::new(selection, "d", p, 5_000_000_000, false)
}

/// Frames that commit at or behind where the assembler stands: what a server would send again.
fn from_server(txns: &[(u64, Vec<Vec<u8>>)], end: u64) -> Vec<Vec<u8>> {
    txns.iter().filter(|(commit, _)| *commit >= end).flat_map(|(_, f)| f.clone()).collect()
}

fn feed(a: &mut Assembler, frames: &[Vec<u8>], batch: &mut Batch, limit: &Limit, most: usize) -> Result<usize> {
    let mut taken = 0;
    a.enter(batch);
    for f in frames {
        if batch.changes.len() >= most {
            break;
        }
        if let Next::Bind(info) = a.take(f, 0, batch, limit)? {
            let bound = Bound { schema: schema(&info), mask: vec![true; info.columns.len()] };
            a.bind(info, bound)?;
            assert_eq!(a.take(f, 0, batch, limit)?, Next::Go);
        }
        batch.chunks.push(Bytes::copy_from_slice(f));
        taken += 1;
    }
    a.cut(batch);
    Ok(taken)
}

fn insert(oid: u32, id: &str) -> Vec<u8> {
    frames::row(b'I', oid, &[(b'N', &[C::T(id), C::T("v")])])
}

#[test]
fn a_transaction_that_commits_nowhere_is_refused() {
    let (mut a, mut batch) = (start(None), Batch::default());
    let e = feed(&mut a, &[frames::data(20, &frames::begin(0, 1, 7))], &mut batch, &LIMIT, 1).unwrap_err();
    assert_eq!(e.kind(), Kind::Protocol);
}

fn workload() -> Vec<(u64, Vec<Vec<u8>>)> {
    let d = frames::data;
    let cols: &[(&str, bool)] = &[("id", true), ("b", false)];
    vec![
        (
            100,
            vec![
                d(20, &frames::begin(100, 1, 7)),
                d(20, &frames::origin(55, "other")),
                d(0, &frames::relation(1, "a", b'd', cols)),
                d(30, &insert(1, "1")),
                d(0, &frames::relation(2, "b", b'd', cols)),
                d(31, &insert(2, "2")),
                d(0, &frames::relation(3, "skip", b'd', cols)),
                d(32, &insert(3, "3")),
                d(33, &frames::row(b'U', 1, &[(b'K', &[C::T("1"), C::Null]), (b'N', &[C::T("4"), C::Toast])])),
                d(34, &frames::logical(true, 34, "p", b"c")),
                d(35, &frames::logical(true, 35, HEARTBEAT, b"")),
                d(36, &frames::truncate(&[1, 3, 2])),
                d(110, &frames::commit(100, 110)),
            ],
        ),
        (
            200,
            vec![
                d(150, &frames::begin(200, 2, 8)),
                d(0, &frames::relation(3, "skip", b'd', cols)),
                d(151, &insert(3, "x")),
                d(210, &frames::commit(200, 210)),
            ],
        ),
        (250, vec![d(250, &frames::logical(false, 250, "beside", b"now"))]),
        (
            300,
            vec![
                d(260, &frames::begin(300, 3, 9)),
                d(0, &frames::relation(1, "a", b'd', cols)),
                d(261, &frames::row(b'D', 1, &[(b'K', &[C::T("4"), C::Null])])),
                d(310, &frames::commit(300, 310)),
            ],
        ),
    ]
}

/// A change as a person would write it down.
fn lines(b: &Batch) -> Vec<String> {
    b.changes
        .iter()
        .map(|c| {
            let t = &b.txns[c.txn as usize];
            let cells = |s: Span| -> String {
                b.image(s)
                    .iter()
                    .map(|x| match *x {
                        Cell::NULL => "null ".to_owned(),
                        Cell::ABSENT => "absent ".to_owned(),
                        Cell::UNAVAILABLE => "unavailable ".to_owned(),
                        x => format!("{} ", String::from_utf8_lossy(x.bytes(b.chunk(c)).unwrap())),
                    })
                    .collect()
            };
            let name = &b.tables[c.table as usize].id.name;
            format!(
                "{} {name} [{}] [{}] at {} order {}/{} xid {} prev {} origin {:?}@{}",
                c.op.letter(),
                cells(c.before),
                cells(c.after),
                c.at,
                c.order,
                c.table_order,
                t.id,
                t.prev_commit,
                t.origin,
                t.origin_at
            )
        })
        .collect()
}

#[test]
fn transactions() {
    let mut a = start(None);
    let mut b = Batch::default();
    feed(&mut a, &from_server(&workload(), 10), &mut b, &LIMIT, usize::MAX).unwrap();
    let got = lines(&b);
    let o = "xid 7 prev 0 origin Some(\"other\")@55";
    assert_eq!(
        got,
        [
            format!("c a [] [1 v ] at 30 order 1/1 {o}"),
            format!("c b [] [2 v ] at 31 order 2/1 {o}"),
            format!("u a [1 absent ] [4 unavailable ] at 33 order 3/2 {o}"),
            format!("m {} [] [p c ] at 34 order 4/1 {o}", catalog::message_schema("d").id.name),
            format!("t a [] [] at 36 order 5/3 {o}"),
            format!("t b [] [] at 36 order 6/2 {o}"),
            format!(
                "m {} [] [beside now ] at 250 order 1/1 xid 0 prev 210 origin None@0",
                catalog::message_schema("d").id.name
            ),
            "d a [4 absent ] [] at 261 order 1/1 xid 9 prev 210 origin None@0".to_owned(),
        ]
    );
    // The transaction without captured changes has no entry.
    assert_eq!(b.txns.iter().map(|t| t.id).collect::<Vec<_>>(), [7, 0, 9]);
    assert!(b.txns.iter().all(|t| t.begins));
    let end = b.txns[0].ends.as_ref().unwrap();
    assert_eq!((end.changes, end.tables.iter().map(|t| t.1).collect::<Vec<_>>()), (6, vec![3, 2, 1]));
    assert_eq!((b.txns[0].ts_us, b.txns[1].ts_us), (946_684_800_000_001, 946_684_800_000_007));
    let Cut::Txn(p) = &b.cut else { panic!("{:?}", b.cut) };
    assert_eq!(PgPosition::decode(p).unwrap(), PgPosition { system: 1, end: 310, prev_commit: 310, inside: None });
    assert_eq!(a.txn_id(9), (1 << 32) + 9);
}

#[test]
fn cut_after_every_change_and_reopened() {
    let txns = workload();
    let mut whole = Batch::default();
    feed(&mut start(None), &from_server(&txns, 10), &mut whole, &LIMIT, usize::MAX).unwrap();
    let want = lines(&whole);
    for n in 1..=want.len() {
        let mut first = Batch::default();
        feed(&mut start(None), &from_server(&txns, 10), &mut first, &LIMIT, n).unwrap();
        let p = match &first.cut {
            Cut::Txn(p) | Cut::Inside(p) => p.clone(),
            other => panic!("{other:?}"),
        };
        let mut a = start(Some(&p));
        // Cut again at once: nothing may be taken back before the first frame.
        let mut nothing = Batch::default();
        a.cut(&mut nothing);
        assert_eq!(nothing.cut, Cut::Idle(p.clone()));
        let mut rest = Batch::default();
        let frames = from_server(&txns, a.end());
        feed(&mut a, &frames, &mut rest, &LIMIT, usize::MAX).unwrap();
        assert_eq!([lines(&first), lines(&rest)].concat(), want, "cut after {n}");
        let begins = |b: &Batch| b.txns.iter().filter(|t| t.begins).count();
        let ends = |b: &Batch| b.txns.iter().filter(|t| t.ends.is_some()).count();
        assert_eq!((begins(&first) + begins(&rest), ends(&first) + ends(&rest)), (3, 3), "cut after {n}");
    }
}

#[test]
fn one_transaction_over_many_batches() {
    let frames = from_server(&workload(), 10);
    let mut a = start(None);
    let (mut at, mut all, mut ends) = (0, vec![], 0);
    while at < frames.len() {
        let mut b = Batch::default();
        at += feed(&mut a, &frames[at..], &mut b, &LIMIT, 1).unwrap();
        all.extend(lines(&b));
        ends += b.txns.iter().filter(|t| t.ends.is_some()).count();
    }
    assert_eq!((all.len(), ends), (8, 3));
}

#[test]
fn keepalives_move_the_position_only_between_transactions() {
    let mut a = start(None);
    let mut b = Batch::default();
    feed(&mut a, &[frames::keepalive(50, true)], &mut b, &LIMIT, usize::MAX).unwrap();
    assert!(a.asked && a.end() == 50 && matches!(b.cut, Cut::Idle(_)));
    let begin = frames::data(60, &frames::begin(100, 1, 7));
    feed(&mut a, &[begin, frames::keepalive(90, false)], &mut b, &LIMIT, usize::MAX).unwrap();
    assert_eq!((a.end(), a.received()), (50, 90));
}

#[test]
fn a_history_that_is_another_is_a_gap() {
    let p = PgPosition { system: 1, end: 10, prev_commit: 0, inside: Some(Inside { commit: 90, ordinal: 3 }) }.encode();
    let mut b = Batch::default();
    let e = feed(&mut start(Some(&p)), &from_server(&workload(), 10), &mut b, &LIMIT, usize::MAX).unwrap_err();
    assert_eq!((e.kind(), e.retryable()), (Kind::Gap, Retry::Never));
    let p =
        PgPosition { system: 1, end: 10, prev_commit: 0, inside: Some(Inside { commit: 100, ordinal: 99 }) }.encode();
    let e = feed(&mut start(Some(&p)), &from_server(&workload(), 10), &mut Batch::default(), &LIMIT, usize::MAX)
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Gap);
}

#[test]
fn a_row_above_the_limit_names_table_and_place() {
    let small = Limit { row_bytes: 1, ..LIMIT };
    let mut b = Batch::default();
    let e = feed(&mut start(None), &from_server(&workload(), 10), &mut b, &small, usize::MAX).unwrap_err();
    assert_eq!(e.kind(), Kind::Limit);
    assert!(e.to_string().contains("public.a at 0/1E"), "{e}");
    assert!(b.cells.is_empty() && b.changes.is_empty());
}

#[test]
fn messages_out_of_turn_are_refused() {
    let d = frames::data;
    for bad in [
        vec![d(1, &insert(1, "1"))],
        vec![d(1, &frames::commit(1, 2))],
        vec![d(1, &frames::begin(1, 1, 1)), d(1, &frames::begin(1, 1, 1))],
        vec![d(1, &frames::begin(1, 1, 1)), d(1, &frames::commit(2, 2))],
        vec![d(1, &frames::begin(1, 1, 1)), d(1, &insert(77, "1"))],
        vec![d(1, &frames::truncate(&[]))],
        vec![d(1, &frames::origin(1, "x"))],
        vec![vec![b'?']],
        vec![vec![]],
    ] {
        assert!(feed(&mut start(None), &bad, &mut Batch::default(), &LIMIT, usize::MAX).is_err(), "{bad:?}");
    }
}

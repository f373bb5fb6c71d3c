//! pgoutput's messages (protocol version 1), read in place.
//!
//! Everything here reads foreign bytes through [`Cursor`], which checks every step, so a damaged message is an error and
//! never a panic. Row messages are not turned into anything: [`row`] notes where each captured cell's bytes are.
//!
//! What the three markers of a tuple mean: `n` is NULL, `u` is a value that is stored out of line and was not changed
//! (the log does not carry it), and in a key-only old tuple (`K`) every column outside the replica identity is sent as
//! `n` although nothing is known of it: that one is *absent*, not NULL.

use crate::{
    catalog::{RelationColumn, RelationInfo},
    errors::protocol,
};
use seachange_sdk::{Cell, Op, Result, Span};
use std::ops::Range;

/// Checked reading.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, pos: 0 }
    }
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes.get(self.pos..).and_then(|b| b.first_chunk::<N>()) {
            Some(a) => {
                self.pos += N;
                Ok(*a)
            }
            None => Err(short()),
        }
    }
    /// A byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(|[b]| b)
    }
    /// Two bytes.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }
    /// Four bytes.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }
    /// Eight bytes.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }
    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }
    /// Text that ends with a zero byte: its place.
    fn text_range(&mut self) -> Result<Range<usize>> {
        let rest = self.bytes.get(self.pos..).ok_or_else(short)?;
        let len = rest.iter().position(|b| *b == 0).ok_or_else(short)?;
        let range = self.pos..self.pos + len;
        self.pos += len + 1;
        Ok(range)
    }
    /// Text that ends with a zero byte.
    pub fn text(&mut self) -> Result<&'a str> {
        let range = self.text_range()?;
        let bytes = self.bytes.get(range).ok_or_else(short)?;
        std::str::from_utf8(bytes).map_err(|_| protocol("pgoutput: a name that is not UTF-8"))
    }
    /// Steps over `n` bytes, which must be there.
    #[inline]
    fn skip(&mut self, n: usize) -> Result<()> {
        match self.pos.checked_add(n) {
            Some(end) if end <= self.bytes.len() => {
                self.pos = end;
                Ok(())
            }
            _ => Err(short()),
        }
    }
    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        if self.pos == self.bytes.len() { Ok(()) } else { Err(protocol("pgoutput: a message is longer than it says")) }
    }
}

#[cold]
fn short() -> seachange_sdk::Error {
    protocol("pgoutput: a message ends too early")
}

/// What a CopyData message of the stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// XLogData.
    Data {
        /// Where the message stands in the log.
        at: u64,
        /// Send time, PostgreSQL's microseconds.
        sent: i64,
        /// pgoutput's message.
        body: &'a [u8],
    },
    /// Primary keepalive.
    Keepalive {
        /// Everything that commits below has been sent.
        end: u64,
        /// Send time, PostgreSQL's microseconds.
        sent: i64,
        /// Does the server want an answer?
        reply: bool,
    },
}

/// Bytes of an XLogData message before pgoutput's.
pub const DATA_HEADER: usize = 25;

/// Reads the contents of a CopyData message.
#[inline]
pub fn frame(copy: &[u8]) -> Result<Frame<'_>> {
    let mut c = Cursor::new(copy);
    match c.u8()? {
        b'w' => {
            let at = c.u64()?;
            c.u64()?;
            let sent = c.i64()?;
            Ok(Frame::Data { at, sent, body: copy.get(DATA_HEADER..).unwrap_or_default() })
        }
        b'k' => {
            let f = Frame::Keepalive { end: c.u64()?, sent: c.i64()?, reply: c.u8()? != 0 };
            c.end()?;
            Ok(f)
        }
        other => Err(protocol(format!("replication stream: unknown message {}", letter(other)))),
    }
}

fn letter(b: u8) -> String {
    if b.is_ascii_graphic() { format!("'{}'", b as char) } else { format!("0x{b:02x}") }
}

/// A message of pgoutput; rows by their head only.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// Where it commits.
        commit: u64,
        /// Commit time, PostgreSQL's microseconds.
        time: i64,
        /// Transaction id.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Where its commit record begins: the same as Begin's.
        commit: u64,
        /// Where its commit record ends.
        end: u64,
    },
    /// It came through a replication origin.
    Origin {
        /// Its commit at the origin.
        at: u64,
        /// The origin's name.
        name: &'a str,
    },
    /// A table's columns, before its first change and after every change of them.
    Relation(RelationInfo),
    /// A type that is not built in: only tells a name.
    Type,
    /// Insert, update, delete: [`row`] reads the rest.
    Row {
        /// Create, Update, Delete.
        op: Op,
        /// The table.
        oid: u32,
    },
    /// Tables were emptied.
    Truncate {
        /// Their oids, four bytes each.
        oids: Oids<'a>,
    },
    /// `pg_logical_emit_message`.
    Logical {
        /// Part of the transaction, or beside all of them.
        transactional: bool,
        /// Where it stands in the log.
        at: u64,
        /// Place of its prefix in the message.
        prefix: Range<usize>,
        /// Place of its content in the message.
        content: Range<usize>,
    },
}

/// The tables of a truncate message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl Oids<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b))
    }
}

/// Reads a message.
#[inline]
pub fn message(body: &[u8]) -> Result<Message<'_>> {
    let mut c = Cursor::new(body);
    let m = match c.u8()? {
        b'I' => return Ok(Message::Row { op: Op::Create, oid: c.u32()? }),
        b'U' => return Ok(Message::Row { op: Op::Update, oid: c.u32()? }),
        b'D' => return Ok(Message::Row { op: Op::Delete, oid: c.u32()? }),
        b'B' => Message::Begin { commit: c.u64()?, time: c.i64()?, xid: c.u32()? },
        b'C' => {
            c.u8()?;
            let (commit, end) = (c.u64()?, c.u64()?);
            c.i64()?;
            Message::Commit { commit, end }
        }
        b'O' => Message::Origin { at: c.u64()?, name: c.text()? },
        b'R' => Message::Relation(relation(&mut c)?),
        b'Y' => {
            c.u32()?;
            c.text()?;
            c.text()?;
            Message::Type
        }
        b'T' => {
            let n = c.u32()? as usize;
            c.u8()?;
            let from = c.pos;
            c.skip(n.checked_mul(4).ok_or_else(short)?)?;
            Message::Truncate { oids: Oids(body.get(from..c.pos).ok_or_else(short)?) }
        }
        b'M' => {
            let transactional = c.u8()? & 1 != 0;
            let at = c.u64()?;
            let prefix = c.text_range()?;
            let len = c.u32()? as usize;
            let from = c.pos;
            c.skip(len)?;
            Message::Logical { transactional, at, prefix, content: from..c.pos }
        }
        tag @ (b'S' | b'E' | b'c' | b'A') => {
            return Err(protocol(format!(
                "pgoutput sent {}, part of an unfinished transaction, which was not asked for",
                letter(tag)
            )));
        }
        tag @ (b'b' | b'P' | b'K' | b'r' | b'p') => {
            return Err(protocol(format!(
                "pgoutput sent {}, part of a prepared transaction, which was not asked for",
                letter(tag)
            ))
            .fix("make the slot without two_phase"));
        }
        tag => return Err(protocol(format!("pgoutput sent the unknown message {}", letter(tag)))),
    };
    c.end()?;
    Ok(m)
}

fn relation(c: &mut Cursor<'_>) -> Result<RelationInfo> {
    let oid = c.u32()?;
    let schema = c.text()?;
    let name = c.text()?.to_owned();
    let identity = c.u8()?;
    let n = c.u16()?;
    let mut columns = Vec::new();
    for _ in 0..n {
        let flags = c.u8()?;
        let name = c.text()?.to_owned();
        let type_oid = c.u32()?;
        let typmod = c.u32()? as i32;
        columns.push(RelationColumn { name, type_oid, typmod, in_identity: flags & 1 != 0 });
    }
    let schema = if schema.is_empty() { "pg_catalog" } else { schema }.to_owned();
    Ok(RelationInfo { oid, schema, name, identity, columns })
}

/// What the tuples of a table look like: per column of the Relation message, whether it is captured and whether it
/// belongs to the replica identity.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// (captured, in the identity).
    pub columns: Vec<(bool, bool)>,
    /// Accept binary cells: for measurements; the decoders read text.
    pub binary: bool,
}

/// Where a row message's images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowImages {
    /// Old row, as far as the log carries it.
    pub before: Span,
    /// New row.
    pub after: Span,
    /// Bytes of values in the larger image.
    pub largest: usize,
    /// Bytes of values in both.
    pub bytes: usize,
}

/// Notes the cells of a row message. `base` is the message's offset in its chunk. On an error, what was appended to
/// `cells` has no meaning.
#[inline]
pub fn row(body: &[u8], base: u32, shape: &Shape, cells: &mut Vec<Cell>) -> Result<RowImages> {
    let mut c = Cursor { bytes: body, pos: 5 };
    let tag = body.first().copied().unwrap_or(0);
    let mut images = RowImages { before: Span::NONE, after: Span::NONE, largest: 0, bytes: 0 };
    let mut part = c.u8()?;
    if matches!((tag, part), (b'U' | b'D', b'K' | b'O')) {
        let (span, bytes) = tuple(&mut c, base, shape, part == b'K', cells)?;
        images.before = span;
        images.largest = bytes;
        images.bytes = bytes;
        if tag == b'D' {
            c.end()?;
            return Ok(images);
        }
        part = c.u8()?;
    }
    if part != b'N' || tag == b'D' {
        return Err(protocol(format!("pgoutput: {} in a row message {}", letter(part), letter(tag))));
    }
    let (span, bytes) = tuple(&mut c, base, shape, false, cells)?;
    images.after = span;
    images.largest = images.largest.max(bytes);
    images.bytes += bytes;
    c.end()?;
    Ok(images)
}

#[inline]
fn tuple(c: &mut Cursor<'_>, base: u32, shape: &Shape, key_only: bool, cells: &mut Vec<Cell>) -> Result<(Span, usize)> {
    let n = usize::from(c.u16()?);
    if n != shape.columns.len() {
        return Err(protocol(format!("pgoutput: a row of {n} columns in a table of {}", shape.columns.len())));
    }
    let start = cells.len();
    let mut bytes = 0;
    for &(captured, identity) in &shape.columns {
        let cell = match c.u8()? {
            b't' => {
                let len = c.u32()?;
                let off = base + c.pos as u32;
                c.skip(len as usize)?;
                bytes += len as usize;
                Cell::at(off, len)
            }
            b'n' if key_only && !identity => Cell::ABSENT,
            b'n' => Cell::NULL,
            b'u' => Cell::UNAVAILABLE,
            b'b' if shape.binary => {
                let len = c.u32()?;
                let off = base + c.pos as u32;
                c.skip(len as usize)?;
                bytes += len as usize;
                Cell::at(off, len)
            }
            other => return Err(protocol(format!("pgoutput: a cell of the unknown kind {}", letter(other)))),
        };
        if captured {
            cells.push(cell);
        }
    }
    let span = |n: usize| u32::try_from(n).map_err(|_| protocol("pgoutput: more cells than a batch can count"));
    Ok((Span { start: span(start)?, len: span(cells.len() - start)? }, bytes))
}

#[cfg(test)]
pub(crate) mod frames {
    //! Hand-made messages.
    pub enum C<'a> {
        T(&'a str),
        Null,
        Toast,
    }
    pub fn text(out: &mut Vec<u8>, s: &str) {
        out.extend_from_slice(s.as_bytes());
        out.push(0);
    }
    pub fn tuple(out: &mut Vec<u8>, cells: &[C<'_>]) {
        out.extend_from_slice(&(cells.len() as u16).to_be_bytes());
        for c in cells {
            match c {
                C::T(s) => {
                    out.push(b't');
                    out.extend_from_slice(&(s.len() as u32).to_be_bytes());
                    out.extend_from_slice(s.as_bytes());
                }
                C::Null => out.push(b'n'),
                C::Toast => out.push(b'u'),
            }
        }
    }
    pub fn row(tag: u8, oid: u32, parts: &[(u8, &[C<'_>])]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&oid.to_be_bytes());
        for (part, cells) in parts {
            out.push(*part);
            tuple(&mut out, cells);
        }
        out
    }
    pub fn begin(commit: u64, time: i64, xid: u32) -> Vec<u8> {
        [&[b'B'][..], &commit.to_be_bytes(), &time.to_be_bytes(), &xid.to_be_bytes()].concat()
    }
    pub fn commit(commit: u64, end: u64) -> Vec<u8> {
        [&[b'C', 0][..], &commit.to_be_bytes(), &end.to_be_bytes(), &0i64.to_be_bytes()].concat()
    }
    pub fn origin(at: u64, name: &str) -> Vec<u8> {
        let mut out = [&[b'O'][..], &at.to_be_bytes()].concat();
        text(&mut out, name);
        out
    }
    pub fn relation(oid: u32, name: &str, identity: u8, columns: &[(&str, bool)]) -> Vec<u8> {
        let mut out = [&[b'R'][..], &oid.to_be_bytes()].concat();
        text(&mut out, "public");
        text(&mut out, name);
        out.push(identity);
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (name, key) in columns {
            out.push(u8::from(*key));
            text(&mut out, name);
            out.extend_from_slice(&25u32.to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
        }
        out
    }
    pub fn truncate(oids: &[u32]) -> Vec<u8> {
        let mut out = [&[b'T'][..], &(oids.len() as u32).to_be_bytes(), &[0]].concat();
        oids.iter().for_each(|o| out.extend_from_slice(&o.to_be_bytes()));
        out
    }
    pub fn logical(transactional: bool, at: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
        let mut out = [&[b'M', u8::from(transactional)][..], &at.to_be_bytes()].concat();
        text(&mut out, prefix);
        out.extend_from_slice(&(content.len() as u32).to_be_bytes());
        out.extend_from_slice(content);
        out
    }
    pub fn data(at: u64, body: &[u8]) -> Vec<u8> {
        [&[b'w'][..], &at.to_be_bytes(), &0u64.to_be_bytes(), &7i64.to_be_bytes(), body].concat()
    }
    pub fn keepalive(end: u64, reply: bool) -> Vec<u8> {
        [&[b'k'][..], &end.to_be_bytes(), &9i64.to_be_bytes(), &[u8::from(reply)]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{frames::relation, frames::*, *};
    use proptest::prelude::*;

    fn shape(columns: &[(bool, bool)]) -> Shape {
        Shape { columns: columns.to_vec(), binary: false }
    }
    const ALL: &[(bool, bool)] = &[(true, true), (true, false), (true, false)];

    fn images(body: &[u8], columns: &[(bool, bool)]) -> (Option<Vec<Cell>>, Option<Vec<Cell>>) {
        let mut cells = vec![];
        let r = super::row(body, 1000, &shape(columns), &mut cells).unwrap();
        let of = |s: Span| s.is_some().then(|| cells[s.start as usize..(s.start + s.len) as usize].to_vec());
        (of(r.before), of(r.after))
    }

    #[test]
    fn rows() {
        let m = frames::row(b'I', 5, &[(b'N', &[C::T("1"), C::Null, C::T("ab")])]);
        assert_eq!(message(&m).unwrap(), Message::Row { op: Op::Create, oid: 5 });
        assert_eq!(images(&m, ALL), (None, Some(vec![Cell::at(1013, 1), Cell::NULL, Cell::at(1020, 2)])));

        let m = frames::row(b'U', 5, &[(b'N', &[C::T("1"), C::Toast, C::Null])]);
        assert_eq!(images(&m, ALL).1.unwrap()[1..], [Cell::UNAVAILABLE, Cell::NULL]);

        // A key-only old row: NULL outside the key is no NULL.
        let m = frames::row(b'U', 5, &[(b'K', &[C::T("1"), C::Null, C::Null]), (b'N', &[C::T("2"), C::Null, C::Null])]);
        let (before, after) = images(&m, ALL);
        assert_eq!(before.unwrap()[1..], [Cell::ABSENT, Cell::ABSENT]);
        assert_eq!(after.unwrap()[1..], [Cell::NULL, Cell::NULL]);

        // A whole old row: NULL is NULL, also outside the key.
        let m = frames::row(b'D', 5, &[(b'O', &[C::T("1"), C::Null, C::Null])]);
        assert_eq!(images(&m, ALL).0.unwrap()[1..], [Cell::NULL, Cell::NULL]);
        let m = frames::row(b'D', 5, &[(b'K', &[C::T("1"), C::Null, C::Null])]);
        assert_eq!(images(&m, ALL), (Some(vec![Cell::at(1013, 1), Cell::ABSENT, Cell::ABSENT]), None));
    }
    #[test]
    fn excluded_columns_leave_no_cell() {
        let m = frames::row(b'I', 5, &[(b'N', &[C::T("1"), C::T("secret"), C::T("ab")])]);
        let got = images(&m, &[(true, true), (false, false), (true, false)]).1.unwrap();
        assert_eq!(got, [Cell::at(1013, 1), Cell::at(1030, 2)]);
    }
    #[test]
    fn wrong_shapes_are_refused() {
        let mut cells = vec![];
        for bad in [
            frames::row(b'I', 5, &[(b'N', &[C::T("1")])]),
            frames::row(b'I', 5, &[(b'K', &[C::T("1"), C::Null, C::Null])]),
            frames::row(b'D', 5, &[(b'N', &[C::T("1"), C::Null, C::Null])]),
        ] {
            assert!(super::row(&bad, 0, &shape(ALL), &mut cells).is_err());
        }
        for tag in b"SEcAbPKrpZ" {
            assert!(message(&[*tag, 0, 0, 0, 0, 0]).is_err());
        }
    }
    #[test]
    fn the_other_messages() {
        assert_eq!(message(&begin(9, -5, 7)).unwrap(), Message::Begin { commit: 9, time: -5, xid: 7 });
        assert_eq!(message(&commit(9, 12)).unwrap(), Message::Commit { commit: 9, end: 12 });
        assert_eq!(message(&origin(3, "node é")).unwrap(), Message::Origin { at: 3, name: "node é" });
        let bytes = relation(5, "tä\"b", b'd', &[("id", true), ("ö", false)]);
        let Message::Relation(r) = message(&bytes).unwrap() else { panic!() };
        assert_eq!((r.oid, r.schema.as_str(), r.name.as_str(), r.identity), (5, "public", "tä\"b", b'd'));
        assert!(r.columns[0].in_identity && !r.columns[1].in_identity && r.columns[1].typmod == -1);
        let bytes = truncate(&[5, 6]);
        let Message::Truncate { oids } = message(&bytes).unwrap() else { panic!() };
        assert_eq!(oids.iter().collect::<Vec<_>>(), [5, 6]);
        let bytes = logical(false, 77, "pre", &[0, 255]);
        let Message::Logical { transactional, at, prefix, content } = message(&bytes).unwrap() else { panic!() };
        assert_eq!((transactional, at, &bytes[prefix], &bytes[content]), (false, 77, &b"pre"[..], &[0u8, 255][..]));
        let k = keepalive(8, true);
        assert_eq!(frame(&k).unwrap(), Frame::Keepalive { end: 8, sent: 9, reply: true });
    }
    fn every() -> Vec<Vec<u8>> {
        vec![
            begin(9, -5, 7),
            commit(9, 12),
            origin(3, "node"),
            relation(5, "t", b'f', &[("id", true), ("b", false), ("c", false)]),
            truncate(&[5, 6]),
            logical(true, 77, "pre", b"content"),
            frames::row(b'I', 5, &[(b'N', &[C::T("1"), C::Null, C::Toast])]),
            frames::row(b'U', 5, &[(b'O', &[C::T("1"), C::Null, C::T("")]), (b'N', &[C::T("1"), C::Null, C::T("x")])]),
            frames::row(b'D', 5, &[(b'K', &[C::T("1"), C::Null, C::Null])]),
        ]
    }
    fn read(body: &[u8]) -> Result<()> {
        match message(body)? {
            Message::Row { .. } => super::row(body, 0, &shape(ALL), &mut vec![]).map(|_| ()),
            _ => Ok(()),
        }
    }
    #[test]
    fn cut_at_every_byte_is_an_error() {
        for m in every() {
            read(&m).unwrap();
            for cut in 0..m.len() {
                assert!(read(&m[..cut]).is_err(), "{:?} cut at {cut}", m[0] as char);
            }
            let mut longer = m.clone();
            longer.push(0);
            assert!(read(&longer).is_err(), "{:?} and a byte more", m[0] as char);
            let framed = data(1, &m);
            for cut in 0..DATA_HEADER {
                assert!(frame(&framed[..cut]).is_err());
            }
        }
    }
    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = frame(&bytes);
            let _ = read(&bytes);
        }
        #[test]
        fn any_damage(which in 0usize..9, at: usize, with: u8) {
            let mut m = every()[which].clone();
            let at = at % m.len();
            m[at] = with;
            let _ = read(&m);
        }
        #[test]
        fn cells_point_at_their_values(values in prop::collection::vec(prop::option::of(".{0,20}"), 1..20)) {
            let cells: Vec<C<'_>> = values.iter().map(|v| v.as_deref().map_or(C::Null, C::T)).collect();
            let m = frames::row(b'I', 1, &[(b'N', &cells)]);
            let mut got = vec![];
            super::row(&m, 0, &shape(&vec![(true, false); values.len()]), &mut got).unwrap();
            for (v, c) in values.iter().zip(got) {
                prop_assert_eq!(v.as_deref().map(str::as_bytes), c.bytes(&m));
            }
        }
    }
}

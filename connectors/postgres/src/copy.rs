//! COPY's text format, back into the bytes that the output functions printed.
//!
//! COPY writes a row as its columns' text with tabs between and a newline after; bytes that would be mistaken are written
//! with a backslash, NULL as `\N`. A newline inside a value is therefore never a bare newline, and neither is a tab: a
//! row is found without understanding its values. A row is copied once, whole, into the chunk, and its escapes are
//! undone in place (they only shrink), so that a cell holds exactly what the stream would have carried and the same
//! decoder reads it. What lies between cells (tabs, what is left behind a shrunken value) is never looked at again.

use bytes::{Bytes, BytesMut};
use seachange_sdk::{Batch, Cell, Change, Error, Kind, Op, Result, Span};

/// Size of a chunk buffer: rows are appended while they fit.
const CHUNK: usize = 1 << 20;

/// Fills a batch with the rows of one COPY.
#[derive(Debug)]
pub struct CopyRows {
    columns: usize,
    row_bytes: usize,
    at: u64,
    buffer: BytesMut,
    /// The beginning of a row whose end has not come yet. The server sends a row a message, but it need not.
    partial: BytesMut,
    /// Where the cells of the last row begin.
    last: Option<Span>,
    rows: usize,
}

impl CopyRows {
    /// For rows of so many columns; `at` is where all of them stand in the log. The first buffer has room for `expect`.
    pub fn new(columns: usize, at: u64, row_bytes: usize, expect: usize) -> CopyRows {
        CopyRows {
            columns,
            row_bytes,
            at,
            buffer: BytesMut::with_capacity(expect.clamp(4096, CHUNK)),
            partial: BytesMut::new(),
            last: None,
            rows: 0,
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes a piece of the COPY stream.
    pub fn feed(&mut self, batch: &mut Batch, data: &[u8]) -> Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            // A message is a row nearly always: its newline is its last byte, and a bare newline can be nothing else.
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                if self.partial.len() + rest.len() > self.row_bytes.saturating_mul(2).saturating_add(self.columns * 3) {
                    return Err(self.too_large(self.partial.len() + rest.len()));
                }
                self.partial.extend_from_slice(rest);
                return Ok(());
            };
            let (line, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            if self.partial.is_empty() {
                self.row(batch, line)?;
            } else {
                self.partial.extend_from_slice(line);
                let whole = self.partial.split();
                self.row(batch, &whole)?;
            }
            rest = after;
        }
        Ok(())
    }

    /// One row without its newline.
    fn row(&mut self, batch: &mut Batch, line: &[u8]) -> Result<()> {
        if self.buffer.capacity() - self.buffer.len() < line.len() {
            self.flush(batch);
            self.buffer = BytesMut::with_capacity(line.len().max(CHUNK));
        }
        let base = self.buffer.len();
        self.buffer.extend_from_slice(line);
        let first = batch.cells.len();
        let fields = self.buffer.get_mut(base..).unwrap_or_default();
        let Some(bytes) = split(fields, base, self.columns, &mut batch.cells) else {
            return Err(Error::source(Kind::Protocol, "a row of COPY is not in its text format"));
        };
        if bytes > self.row_bytes {
            return Err(self.too_large(bytes));
        }
        let index = |n: usize| u32::try_from(n).map_err(|_| Error::bug("a chunk holds more cells than can be counted"));
        let span = Span { start: index(first)?, len: index(self.columns)? };
        self.rows += 1;
        batch.bytes += bytes;
        batch.changes.push(Change {
            op: Op::Read,
            table: 0,
            chunk: index(batch.chunks.len())?,
            before: Span::NONE,
            after: span,
            txn: 0,
            at: self.at,
            row: 0,
            order: self.rows as u64,
            table_order: self.rows as u64,
        });
        self.last = Some(span);
        Ok(())
    }

    fn too_large(&self, bytes: usize) -> Error {
        Error::new(
            Kind::Limit,
            seachange_sdk::Side::Source,
            seachange_sdk::Retry::Operator,
            format!("a row of {bytes} bytes is larger than the limit of {} bytes", self.row_bytes),
        )
        .fix("raise the row limit (and what Kafka takes), or leave the large column out with columns.exclude")
    }

    /// Freezes what is in the buffer as a chunk of the batch.
    fn flush(&mut self, batch: &mut Batch) {
        // Even an empty buffer may be what rows point into (rows of empty texts), so it counts once there are rows.
        let used = batch.changes.last().is_some_and(|c| c.chunk as usize == batch.chunks.len());
        if used {
            batch.chunks.push(Bytes::from(std::mem::take(&mut self.buffer)));
        }
    }

    /// Ends a piece: everything read so far is in the batch, and the next rows go into another.
    pub fn cut(&mut self, batch: &mut Batch) {
        self.flush(batch);
        self.buffer = BytesMut::new();
        self.rows = 0;
    }

    /// Ends the COPY. A row without an end is an error: the stream was cut.
    pub fn finish(&mut self, batch: &mut Batch) -> Result<()> {
        if !self.partial.is_empty() {
            return Err(Error::source(Kind::Protocol, "COPY ended inside a row"));
        }
        self.cut(batch);
        Ok(())
    }
}

/// Notes the cells of one row that stands at `base` of its chunk, undoing escapes in place. Gives the bytes of its
/// values, or nothing if that is no row of so many columns.
fn split(row: &mut [u8], base: usize, columns: usize, cells: &mut Vec<Cell>) -> Option<usize> {
    if columns == 0 {
        return row.is_empty().then_some(0);
    }
    let mut total = 0usize;
    let mut start = 0usize;
    for n in 0..columns {
        let rest = row.get(start..)?;
        let stop = rest.iter().position(|b| matches!(b, b'\t' | b'\\')).unwrap_or(rest.len());
        let (raw, kept) = if rest.get(stop) != Some(&b'\\') {
            (stop, Some(stop))
        } else {
            let raw = stop + rest.get(stop..)?.iter().position(|b| *b == b'\t').unwrap_or(rest.len() - stop);
            let field = row.get_mut(start..start + raw)?;
            (raw, if field == b"\\N" { None } else { Some(unescape(field, stop)?) })
        };
        cells.push(match kept {
            None => Cell::NULL,
            Some(len) => {
                total += len;
                Cell::at(u32::try_from(base + start).ok()?, u32::try_from(len).ok()?)
            }
        });
        start += raw;
        if n + 1 < columns {
            (row.get(start) == Some(&b'\t')).then_some(())?;
            start += 1;
        }
    }
    (start == row.len()).then_some(total)
}

/// Undoes the escapes of a field in place, from the first backslash on; gives the new length.
fn unescape(field: &mut [u8], first: usize) -> Option<usize> {
    let (mut from, mut to) = (first, first);
    while let Some(b) = field.get(from).copied() {
        let plain = if b == b'\\' {
            from += 1;
            // What COPY TO writes; octal and hexadecimal escapes are for COPY FROM alone.
            match field.get(from)? {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                b'\\' => b'\\',
                _ => return None,
            }
        } else {
            b
        };
        *field.get_mut(to)? = plain;
        from += 1;
        to += 1;
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = Vec<Option<Vec<u8>>>;

    fn read(columns: usize, pieces: &[&[u8]]) -> Result<Vec<Row>> {
        let mut batch = Batch::default();
        let mut copy = CopyRows::new(columns, 7, 1 << 20, 0);
        for p in pieces {
            copy.feed(&mut batch, p)?;
        }
        copy.finish(&mut batch)?;
        Ok(batch
            .changes
            .iter()
            .map(|c| {
                assert_eq!((c.op, c.at, c.before), (Op::Read, 7, Span::NONE));
                let chunk = batch.chunk(c);
                batch.image(c.after).iter().map(|cell| cell.bytes(chunk).map(<[u8]>::to_vec)).collect()
            })
            .collect())
    }
    fn some(s: &[u8]) -> Option<Vec<u8>> {
        Some(s.to_vec())
    }

    #[test]
    fn rows() {
        assert_eq!(
            read(4, &[b"1\t\\N\t\ta\\tb\\\\c\\n\n", b"\\\\N\t\\N\tx\t\\b\\f\\r\\v\n"]).unwrap(),
            vec![
                vec![some(b"1"), None, some(b""), some(b"a\tb\\c\n")],
                vec![some(b"\\N"), None, some(b"x"), some(b"\x08\x0c\r\x0b")],
            ]
        );
        assert_eq!(read(0, &[b"\n\n"]).unwrap(), vec![Vec::new() as Row, Vec::new()]);
        assert_eq!(read(1, &[b"\n"]).unwrap(), vec![vec![some(b"")]]);
        assert_eq!(read(1, &[]).unwrap(), Vec::<Row>::new());
        for bad in [&b"1\n"[..], b"1\t2\t3\n", b"1\t\\x\n", b"1\t2\\\n", b"\n", b"1\t2", b"1\ta\\Nb\n"] {
            assert!(read(2, &[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_row_over_the_limit_is_refused() {
        let mut batch = Batch::default();
        let mut copy = CopyRows::new(2, 0, 10, 0);
        copy.feed(&mut batch, b"12345\t67890\n").unwrap();
        let e = copy.feed(&mut batch, b"123456\t67890\n").unwrap_err();
        assert_eq!(e.kind(), Kind::Limit);
        assert!(!format!("{e:?}").contains("67890"), "{e:?}");
        let endless = copy.feed(&mut batch, &[b'x'; 100]).unwrap_err();
        assert_eq!(endless.kind(), Kind::Limit);
    }

    fn escape(row: &Row) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, field) in row.iter().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            match field {
                None => out.extend_from_slice(b"\\N"),
                Some(f) => {
                    for b in f {
                        match b {
                            8 => out.extend_from_slice(b"\\b"),
                            12 => out.extend_from_slice(b"\\f"),
                            b'\n' => out.extend_from_slice(b"\\n"),
                            b'\r' => out.extend_from_slice(b"\\r"),
                            b'\t' => out.extend_from_slice(b"\\t"),
                            11 => out.extend_from_slice(b"\\v"),
                            b'\\' => out.extend_from_slice(b"\\\\"),
                            b => out.push(*b),
                        }
                    }
                }
            }
        }
        out.push(b'\n');
        out
    }

    proptest! {
        #[test]
        fn any_rows_cut_anywhere(
            rows in proptest::collection::vec(proptest::collection::vec(proptest::option::of(proptest::collection::vec(prop_oneof![any::<u8>(), 8u8..14, Just(b'\\'), Just(b'N')], 0..12)), 3..=3), 0..20),
            cuts in proptest::collection::vec(1usize..40, 0..20),
        ) {
            let all: Vec<u8> = rows.iter().flat_map(escape).collect();
            let mut pieces = Vec::new();
            let mut rest = &all[..];
            for c in cuts {
                let (a, b) = rest.split_at(c.min(rest.len()));
                pieces.push(a);
                rest = b;
            }
            pieces.push(rest);
            prop_assert_eq!(read(3, &pieces).unwrap(), rows);
        }
        #[test]
        fn large_rows_get_chunks_that_hold_them(sizes in proptest::collection::vec(0usize..700_000, 1..8)) {
            let rows: Vec<Row> = sizes.iter().map(|n| vec![Some(vec![b'x'; *n]), None, Some(b"\n".to_vec())]).collect();
            let all: Vec<Vec<u8>> = rows.iter().map(escape).collect();
            let pieces: Vec<&[u8]> = all.iter().map(|r| &r[..]).collect();
            prop_assert_eq!(read(3, &pieces).unwrap(), rows);
        }
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\t'), Just(b'\\'), Just(b'\n')], 0..60), columns in 0usize..4) {
            let _: Result<_> = read(columns, &[&bytes]);
        }
    }
}

//! Rows events: where every cell of every row is.
//!
//! A row image is a bitmap of NULLs over the columns that are present, then the cells. A column that is not in the event's
//! bitmap of present columns is *absent*, which is not NULL (row images MINIMAL and NOBLOB). Cells are noted by offset, and
//! nothing is allocated for a row.

use crate::{
    event::kind,
    table_map::{Physical, Width},
    wire::{Bytes, bit, malformed},
};
use seachange_sdk::{Cell, Op, Result};

/// What kind of rows an event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// Inserts, updates, deletes.
    pub op: Op,
    /// Version 2: the fixed part goes on with a length.
    pub v2: bool,
    /// JSON columns of the new image may be differences.
    pub partial: bool,
    /// The rows are packed.
    pub packed: bool,
}

/// Is this a rows event, and which?
pub fn sort(event: u8) -> Option<Sort> {
    use kind::*;
    let (op, v2, packed) = match event {
        WRITE_ROWS => (Op::Create, true, false),
        UPDATE_ROWS | PARTIAL_UPDATE_ROWS => (Op::Update, true, false),
        DELETE_ROWS => (Op::Delete, true, false),
        WRITE_ROWS_V1 => (Op::Create, false, false),
        UPDATE_ROWS_V1 => (Op::Update, false, false),
        DELETE_ROWS_V1 => (Op::Delete, false, false),
        WRITE_ROWS_COMPRESSED_V1 => (Op::Create, false, true),
        UPDATE_ROWS_COMPRESSED_V1 => (Op::Update, false, true),
        DELETE_ROWS_COMPRESSED_V1 => (Op::Delete, false, true),
        WRITE_ROWS_COMPRESSED => (Op::Create, true, true),
        UPDATE_ROWS_COMPRESSED => (Op::Update, true, true),
        DELETE_ROWS_COMPRESSED => (Op::Delete, true, true),
        _ => return None,
    };
    Some(Sort { op, v2, partial: event == PARTIAL_UPDATE_ROWS, packed })
}

/// A rows event, up to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// The table's number.
    pub table: u64,
    /// Flags: 1 ends the statement.
    pub flags: u16,
    /// Columns in the table.
    pub columns: usize,
    /// Columns that are in the first image (the old one of an update).
    pub before: &'a [u8],
    /// Columns that are in the new image of an update.
    pub after: &'a [u8],
    /// The rows, perhaps packed.
    pub data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Parses the body. `short_id`: table numbers have four bytes (servers of 2006).
    pub fn parse(body: &'a [u8], sort: Sort, short_id: bool) -> Result<Rows<'a>> {
        let mut b = Bytes::new(body);
        let table = b.uint(if short_id { 4 } else { 6 })?;
        let flags = b.u16()?;
        if sort.v2 {
            let extra = usize::from(b.u16()?);
            b.take(extra.checked_sub(2).ok_or_else(|| malformed("a rows event with a negative length"))?)?;
        }
        let columns = b.size()?;
        let before = b.take(columns.div_ceil(8))?;
        let after = if sort.op == Op::Update { b.take(columns.div_ceil(8))? } else { before };
        Ok(Rows { table, flags, columns, before, after, data: b.rest() })
    }
}

/// How the rows of a table are walked: made once for a TABLE_MAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    widths: Vec<Width>,
    /// Where a column's cell goes in the image; `None` for one that is not captured.
    place: Vec<Option<u32>>,
    json: Vec<bool>,
    captured: usize,
}

impl Layout {
    /// For a table's columns, of which some are captured.
    pub fn new(columns: &[Physical], captured: impl Fn(usize) -> bool) -> Result<Layout> {
        let widths = columns.iter().map(Physical::width).collect::<Result<Vec<_>>>()?;
        let mut n = 0;
        let place = (0..columns.len())
            .map(|i| {
                captured(i).then(|| {
                    n += 1;
                    n - 1
                })
            })
            .collect();
        let json = columns.iter().map(|c| c.ty == crate::table_map::ty::JSON).collect();
        Ok(Layout { widths, place, json, captured: n as usize })
    }
    /// Columns of the table.
    pub fn columns(&self) -> usize {
        self.widths.len()
    }
    /// Cells of an image.
    pub fn captured(&self) -> usize {
        self.captured
    }

    /// Walks one image: appends a cell for every captured column. `base` is where `data` begins in the chunk; `at` is where
    /// the image begins in `data`. Gives where it ends.
    #[inline]
    pub fn image(&self, data: &[u8], at: usize, base: usize, present: &[u8], cells: &mut Vec<Cell>) -> Result<usize> {
        self.walk(data, at, base, present, cells, None)
    }

    /// Walks the new image of a PARTIAL_UPDATE_ROWS row, which begins with options: the cells of JSON columns that hold
    /// differences instead of documents are noted in `diffs` (cell's place in the image). Gives where it ends.
    pub fn partial_image(
        &self,
        data: &[u8],
        at: usize,
        base: usize,
        present: &[u8],
        cells: &mut Vec<Cell>,
        diffs: &mut Vec<u32>,
    ) -> Result<usize> {
        let rest = data.get(at..).ok_or_else(cut_off)?;
        let mut b = Bytes::new(rest);
        let options = b.lenenc()?;
        let mut bits: &[u8] = &[];
        if options & 1 != 0 {
            // one bit for every JSON column of the table, present or not
            let n = self.json.iter().filter(|j| **j).count();
            bits = b.take(n.div_ceil(8))?;
        }
        let at = at + (rest.len() - b.len());
        self.walk(data, at, base, present, cells, Some((bits, diffs)))
    }

    fn walk(
        &self,
        data: &[u8],
        at: usize,
        base: usize,
        present: &[u8],
        cells: &mut Vec<Cell>,
        mut partial: Option<(&[u8], &mut Vec<u32>)>,
    ) -> Result<usize> {
        let first = cells.len();
        cells.resize(first + self.captured, Cell::ABSENT);
        let image = cells.get_mut(first..).unwrap_or_default();
        let count = count(present, self.widths.len());
        let mut at = at;
        let nulls = data.get(at..at + count.div_ceil(8)).ok_or_else(cut_off)?;
        at += nulls.len();
        let (mut nth, mut json) = (0, 0);
        for (i, width) in self.widths.iter().enumerate() {
            let is_json = self.json.get(i).copied().unwrap_or(false);
            let json_index = json;
            json += usize::from(is_json);
            if !bit(present, i) {
                continue;
            }
            let null = bit(nulls, nth);
            nth += 1;
            let cell = if null {
                Cell::NULL
            } else {
                let len = match *width {
                    Width::Fixed(n) => n as usize,
                    Width::Prefix(n) => {
                        let prefix = data.get(at..at + usize::from(n)).ok_or_else(cut_off)?;
                        at += usize::from(n);
                        crate::wire::le(prefix) as usize
                    }
                };
                let end = at.checked_add(len).filter(|e| *e <= data.len()).ok_or_else(cut_off)?;
                let off = base + at;
                at = end;
                // A chunk is an event, and events are below 4 GiB.
                Cell::at(off as u32, len as u32)
            };
            if let Some(Some(place)) = self.place.get(i) {
                if let Some(slot) = image.get_mut(*place as usize) {
                    *slot = cell;
                }
                if let Some((bits, diffs)) = &mut partial
                    && is_json
                    && !null
                    && bit(bits, json_index)
                {
                    diffs.push(*place);
                }
            }
        }
        Ok(at)
    }
}

#[cold]
fn cut_off() -> seachange_sdk::Error {
    malformed("a row that is cut off")
}

/// How many of the first `n` bits are set.
fn count(bitmap: &[u8], n: usize) -> usize {
    let whole = n / 8;
    let full: u32 = bitmap.iter().take(whole).map(|b| b.count_ones()).sum();
    let rest = bitmap.get(whole).map_or(0, |b| (b & ((1u16 << (n % 8)) - 1) as u8).count_ones());
    (full + rest) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_map::ty;
    use proptest::prelude::*;

    fn column(ty: u8, meta: [u8; 2]) -> Physical {
        Physical { ty, meta, nullable: true }
    }
    fn columns() -> Vec<Physical> {
        vec![
            column(ty::LONG, [0, 0]),
            column(ty::VARCHAR, [44, 1]),
            column(ty::JSON, [4, 0]),
            column(ty::TINY, [0, 0]),
            column(ty::JSON, [4, 0]),
        ]
    }
    #[test]
    fn absent_is_not_null() {
        let layout = Layout::new(&columns(), |i| i != 3).unwrap();
        // columns 0, 1, 3, 4 present; 1 NULL
        let data = [0b0010, 7, 0, 0, 0, 9, 3, 0, 0, 0, b'x', b'y', b'z', 0xee];
        let mut cells = vec![];
        let end = layout.image(&data, 0, 100, &[0b11011], &mut cells).unwrap();
        assert_eq!(cells, [Cell::at(101, 4), Cell::NULL, Cell::ABSENT, Cell::at(110, 3)]);
        assert_eq!(end, 13);
        for cut in 0..13 {
            assert!(layout.image(&data[..cut], 0, 0, &[0b11011], &mut cells).is_err(), "{cut}");
        }
    }
    #[test]
    fn differences_are_told_apart_from_documents() {
        let layout = Layout::new(&columns(), |_| true).unwrap();
        // options, bits of the two JSON columns (second is a difference), nulls, both JSON columns present
        let data = [1, 0b10, 0, 1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b', b'c'];
        let (mut cells, mut diffs) = (vec![], vec![]);
        let end = layout.partial_image(&data, 0, 0, &[0b10100], &mut cells, &mut diffs).unwrap();
        assert_eq!((end, diffs), (data.len(), vec![4]));
        assert_eq!(cells[2], Cell::at(7, 1));
        assert_eq!(cells[4], Cell::at(12, 2));
    }
    #[test]
    fn headers() {
        let body = [5, 0, 0, 0, 0, 0, 1, 0, 4, 0, 1, 2, 3, 0b111, 0b101, 9, 9];
        let r = Rows::parse(&body, sort(kind::UPDATE_ROWS).unwrap(), false).unwrap();
        assert_eq!(
            (r.table, r.flags, r.columns, r.before, r.after, r.data),
            (5, 1, 3, &[7u8][..], &[5u8][..], &[9u8, 9][..])
        );
        assert!(Rows::parse(&[5, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0], sort(kind::WRITE_ROWS).unwrap(), false).is_err());
        assert_eq!(sort(kind::QUERY), None);
    }
    proptest! {
        #[test]
        fn cells_stay_inside(data in proptest::collection::vec(any::<u8>(), 0..80), present in any::<u8>(), at in 0usize..90) {
            let layout = Layout::new(&columns(), |_| true).unwrap();
            let (mut cells, mut diffs) = (vec![], vec![]);
            if let Ok(end) = layout.image(&data, at, 0, &[present], &mut cells) {
                prop_assert!(end <= data.len());
                prop_assert!(cells.iter().all(|c| !c.is_value() || c.bytes(&data).is_some()));
            }
            let seen = layout.partial_image(&data, at, 0, &[present], &mut cells, &mut diffs).is_ok();
            std::hint::black_box(seen);
            for k in 0..=255 { if let Some(s) = sort(k) { std::hint::black_box(Rows::parse(&data, s, present & 1 == 1).is_ok()); } }
        }
    }
}

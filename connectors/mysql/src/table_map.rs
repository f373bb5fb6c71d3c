//! TABLE_MAP: what the rows after it look like.
//!
//! The physical part (types, their parameters, nullability) is always there and decides where cells begin and end. The
//! optional part says what the bytes mean: sign, character sets, names, labels, keys. How much of it there is depends on the
//! server's `binlog_row_metadata`; [`Optional`] says exactly what was told, so that nothing untold is ever assumed.

use crate::wire::{Bytes, bit, bit_high, malformed};
use seachange_sdk::Result;

/// Numbers of column types.
#[allow(missing_docs)]
pub mod ty {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// A column as it stands in a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Physical {
    /// Its type; ENUM and SET are told apart from STRING.
    pub ty: u8,
    /// Its parameters: length, precision and scale, fraction digits, bytes of a length.
    pub meta: [u8; 2],
    /// May it be NULL?
    pub nullable: bool,
}

/// How many bytes a cell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Always so many.
    Fixed(u32),
    /// A length of so many bytes stands before it.
    Prefix(u8),
}

impl Physical {
    /// The parameters as one number.
    pub fn length(&self) -> u32 {
        u32::from(u16::from_le_bytes(self.meta))
    }
    /// How many bytes its cells have.
    pub fn width(&self) -> Result<Width> {
        let [a, b] = self.meta;
        let fraction = |base: u32| Width::Fixed(base + u32::from(a).div_ceil(2));
        if matches!(self.ty, ty::TIMESTAMP2 | ty::DATETIME2 | ty::TIME2) && a > 6 {
            return Err(malformed(format!("{a} digits of a second's fraction")));
        }
        Ok(match self.ty {
            ty::NULL => Width::Fixed(0),
            ty::TINY | ty::YEAR => Width::Fixed(1),
            ty::SHORT => Width::Fixed(2),
            ty::INT24 | ty::DATE | ty::NEWDATE | ty::TIME => Width::Fixed(3),
            ty::LONG | ty::FLOAT | ty::TIMESTAMP => Width::Fixed(4),
            ty::LONGLONG | ty::DOUBLE | ty::DATETIME => Width::Fixed(8),
            ty::TIMESTAMP2 => fraction(4),
            ty::DATETIME2 => fraction(5),
            ty::TIME2 => fraction(3),
            ty::BIT => {
                if a > 7 {
                    return Err(malformed(format!("{a} bits left over from whole bytes")));
                }
                Width::Fixed(u32::from(b) + u32::from(a > 0))
            }
            ty::NEWDECIMAL => Width::Fixed(crate::decimal::width(a, b)? as u32),
            ty::ENUM if matches!(b, 1 | 2) => Width::Fixed(u32::from(b)),
            ty::SET if (1..=8).contains(&b) => Width::Fixed(u32::from(b)),
            ty::STRING => Width::Prefix(if self.string_length() > 255 { 2 } else { 1 }),
            ty::VARCHAR | ty::VAR_STRING | ty::VARCHAR_COMPRESSED => {
                Width::Prefix(if self.length() > 255 { 2 } else { 1 })
            }
            ty::BLOB
            | ty::TINY_BLOB
            | ty::MEDIUM_BLOB
            | ty::LONG_BLOB
            | ty::GEOMETRY
            | ty::JSON
            | ty::VECTOR
            | ty::BLOB_COMPRESSED
                if (1..=4).contains(&a) =>
            {
                Width::Prefix(a)
            }
            n => return Err(malformed(format!("a column of type {n} with parameters {a} and {b}"))),
        })
    }
    /// Longest length in bytes of a CHAR or BINARY. Two bits of it hide in the type byte.
    pub fn string_length(&self) -> u32 {
        let [a, b] = self.meta;
        u32::from(b) | u32::from((a & 0x30) ^ 0x30) << 4
    }
    /// Does it have a sign bit in the metadata?
    pub fn is_numeric(&self) -> bool {
        use ty::*;
        matches!(self.ty, TINY | SHORT | INT24 | LONG | LONGLONG | YEAR | FLOAT | DOUBLE | NEWDECIMAL)
    }
    /// Does it have a character set in the metadata (ENUM and SET have theirs apart)?
    pub fn is_character(&self) -> bool {
        use ty::*;
        matches!(
            self.ty,
            STRING
                | VAR_STRING
                | VARCHAR
                | BLOB
                | TINY_BLOB
                | MEDIUM_BLOB
                | LONG_BLOB
                | BLOB_COMPRESSED
                | VARCHAR_COMPRESSED
        )
    }
    /// Can it hold a date, and so one that is in no calendar?
    pub fn is_date(&self) -> bool {
        use ty::*;
        matches!(self.ty, DATE | NEWDATE | DATETIME | DATETIME2 | TIMESTAMP | TIMESTAMP2)
    }
    /// ENUM or SET.
    pub fn is_choice(&self) -> bool {
        matches!(self.ty, ty::ENUM | ty::SET)
    }
}

/// What the optional part tells. `None`: not told. Vectors that are told have one entry a column of their sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Optional {
    /// Unsigned? For every column; false where it does not apply.
    pub unsigned: Option<Vec<bool>>,
    /// Collation of every character column, 0 for the others.
    pub collations: Option<Vec<u64>>,
    /// Collation of every ENUM and SET, 0 for the others.
    pub choice_collations: Option<Vec<u64>>,
    /// Names.
    pub names: Option<Vec<String>>,
    /// Labels of every SET in its character set, empty for the others.
    pub set_labels: Option<Vec<Vec<Vec<u8>>>>,
    /// Labels of every ENUM.
    pub enum_labels: Option<Vec<Vec<Vec<u8>>>>,
    /// Kind of geometry, 0 any, 1 point ..., for every column; 0 where it does not apply.
    pub geometry: Option<Vec<u64>>,
    /// The primary key: column and length of the prefix (0: whole), in key order.
    pub key: Option<Vec<(usize, u64)>>,
    /// Visible? For every column.
    pub visible: Option<Vec<bool>>,
    /// Dimensions of every vector.
    pub dimensions: Option<Vec<u64>>,
}

/// A parsed TABLE_MAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// Number that the rows refer to it by.
    pub id: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// The columns.
    pub columns: Vec<Physical>,
    /// What the optional part tells.
    pub optional: Optional,
}

/// The table's number, without parsing the rest.
pub fn id(body: &[u8]) -> Result<u64> {
    Bytes::new(body).uint(6)
}

/// The table's name and everything behind its number: equal bytes mean an equal table. Without allocation.
pub fn identity(body: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let mut b = Bytes::new(body);
    b.take(8)?;
    let whole = b.rest();
    let n = usize::from(b.u8()?);
    let database = b.take(n)?;
    b.u8()?;
    let n = usize::from(b.u8()?);
    Ok((database, b.take(n)?, whole))
}

impl TableMap {
    /// Parses the body.
    pub fn parse(body: &[u8]) -> Result<TableMap> {
        let (database, table, _) = identity(body)?;
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).map_err(|_| malformed("a table name that is not UTF-8"));
        let (database, table) = (text(database)?, text(table)?);
        let mut b = Bytes::new(body);
        let id = b.uint(6)?;
        b.take(2 + 1 + database.len() + 1 + 1 + table.len() + 1)?;
        let count = b.size()?;
        let types = b.take(count)?;
        let mut meta = Bytes::new(b.lenenc_bytes()?);
        let nulls = b.take(count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (i, t) in types.iter().enumerate() {
            columns.push(physical(*t, &mut meta, bit(nulls, i))?);
        }
        if !meta.is_empty() {
            return Err(malformed(format!("table {database}.{table}: column parameters that belong to no column")));
        }
        let optional = Optional::parse(b.rest(), &columns)?;
        Ok(TableMap { id, database, table, columns, optional })
    }
}

fn physical(t: u8, meta: &mut Bytes<'_>, nullable: bool) -> Result<Physical> {
    use ty::*;
    let meta = match t {
        FLOAT | DOUBLE | BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB_COMPRESSED | GEOMETRY | JSON | VECTOR
        | TIME2 | DATETIME2 | TIMESTAMP2 => [meta.u8()?, 0],
        VARCHAR | VAR_STRING | VARCHAR_COMPRESSED | NEWDECIMAL | BIT | ENUM | SET | STRING => meta.array()?,
        _ => [0, 0],
    };
    let ty = match t {
        // The type byte of STRING holds the real type, and for CHAR and BINARY two bits of the length.
        STRING => match meta[0] {
            ENUM => ENUM,
            SET => SET,
            a if a | 0x30 == STRING => STRING,
            a => return Err(malformed(format!("a string column of type {a}"))),
        },
        t => t,
    };
    let column = Physical { ty, meta, nullable };
    column.width()?;
    Ok(column)
}

impl Optional {
    fn parse(bytes: &[u8], columns: &[Physical]) -> Result<Optional> {
        let mut out = Optional::default();
        let mut b = Bytes::new(bytes);
        let numeric: Vec<usize> = pick(columns, Physical::is_numeric);
        let character: Vec<usize> = pick(columns, Physical::is_character);
        let choice: Vec<usize> = pick(columns, Physical::is_choice);
        let of = |t: u8| pick(columns, |c| c.ty == t);
        while !b.is_empty() {
            let field = b.u8()?;
            let value = b.lenenc_bytes()?;
            let mut v = Bytes::new(value);
            match field {
                1 => {
                    let mut all = vec![false; columns.len()];
                    if value.len() != numeric.len().div_ceil(8) {
                        return Err(malformed("signs that do not match the numeric columns"));
                    }
                    for (n, i) in numeric.iter().enumerate() {
                        set_at(&mut all, *i, bit_high(value, n))?;
                    }
                    out.unsigned = Some(all);
                }
                2 => out.collations = Some(default_charset(&mut v, &character, columns.len())?),
                3 => out.collations = Some(each(&mut v, &character, columns.len())?),
                10 => out.choice_collations = Some(default_charset(&mut v, &choice, columns.len())?),
                11 => out.choice_collations = Some(each(&mut v, &choice, columns.len())?),
                4 => {
                    let mut names = Vec::with_capacity(columns.len());
                    while !v.is_empty() {
                        let name = v.lenenc_bytes()?;
                        let name =
                            std::str::from_utf8(name).map_err(|_| malformed("a column name that is not UTF-8"))?;
                        names.push(name.to_owned());
                    }
                    if names.len() != columns.len() {
                        return Err(malformed(format!("{} names for {} columns", names.len(), columns.len())));
                    }
                    out.names = Some(names);
                }
                5 => out.set_labels = Some(labels(&mut v, &of(ty::SET), columns.len())?),
                6 => out.enum_labels = Some(labels(&mut v, &of(ty::ENUM), columns.len())?),
                7 => out.geometry = Some(each(&mut v, &of(ty::GEOMETRY), columns.len())?),
                8 => {
                    let mut key = Vec::new();
                    while !v.is_empty() {
                        key.push((column(&mut v, columns)?, 0));
                    }
                    out.key = Some(key);
                }
                9 => {
                    let mut key = Vec::new();
                    while !v.is_empty() {
                        key.push((column(&mut v, columns)?, v.lenenc()?));
                    }
                    out.key = Some(key);
                }
                12 => out.visible = Some((0..columns.len()).map(|i| bit_high(value, i)).collect()),
                13 => out.dimensions = Some(each(&mut v, &of(ty::VECTOR), columns.len())?),
                // Newer servers may tell more; what is known stays true.
                _ => {}
            }
        }
        Ok(out)
    }
}

fn pick(columns: &[Physical], f: impl Fn(&Physical) -> bool) -> Vec<usize> {
    columns.iter().enumerate().filter(|(_, c)| f(c)).map(|(i, _)| i).collect()
}
fn set_at<T>(all: &mut [T], i: usize, value: T) -> Result<()> {
    let n = all.len();
    *all.get_mut(i).ok_or_else(|| malformed(format!("column {i} of {n}")))? = value;
    Ok(())
}
fn column(v: &mut Bytes<'_>, columns: &[Physical]) -> Result<usize> {
    let i = v.size()?;
    if i < columns.len() { Ok(i) } else { Err(malformed(format!("a key over column {i} of {}", columns.len()))) }
}
/// A default, then number and collation of each column that differs (numbered among the columns of its sort).
fn default_charset(v: &mut Bytes<'_>, which: &[usize], count: usize) -> Result<Vec<u64>> {
    let mut all = vec![0; count];
    let default = v.lenenc()?;
    for i in which {
        set_at(&mut all, *i, default)?;
    }
    while !v.is_empty() {
        let n = v.size()?;
        let collation = v.lenenc()?;
        let i = which.get(n).ok_or_else(|| malformed(format!("a collation for column {n} of {}", which.len())))?;
        set_at(&mut all, *i, collation)?;
    }
    Ok(all)
}
/// One number for each column of a sort.
fn each(v: &mut Bytes<'_>, which: &[usize], count: usize) -> Result<Vec<u64>> {
    let mut all = vec![0; count];
    for i in which {
        set_at(&mut all, *i, v.lenenc()?)?;
    }
    if v.is_empty() { Ok(all) } else { Err(malformed("metadata for more columns than there are")) }
}
/// The labels of each column of a sort.
fn labels(v: &mut Bytes<'_>, which: &[usize], count: usize) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut all = vec![Vec::new(); count];
    for i in which {
        let n = v.size()?;
        let mut list = Vec::new();
        for _ in 0..n {
            list.push(v.lenenc_bytes()?.to_vec());
        }
        set_at(&mut all, *i, list)?;
    }
    if v.is_empty() { Ok(all) } else { Err(malformed("labels for more columns than there are")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A TABLE_MAP body.
    pub(crate) fn map(columns: &[(u8, &[u8])], nulls: &[u8], optional: &[u8]) -> Vec<u8> {
        let mut b = vec![9, 0, 0, 0, 0, 0, 1, 0, 2, b'd', b'b', 0, 1, b't', 0];
        b.push(columns.len() as u8);
        b.extend(columns.iter().map(|c| c.0));
        let meta: Vec<u8> = columns.iter().flat_map(|c| c.1.to_vec()).collect();
        b.push(meta.len() as u8);
        b.extend(meta);
        b.extend(nulls);
        b.extend(optional);
        b
    }
    #[test]
    fn everything_it_can_tell() {
        let columns: &[(u8, &[u8])] = &[
            (ty::LONG, &[]),
            (ty::VARCHAR, &[44, 1]),
            (ty::STRING, &[ty::ENUM, 1]),
            (ty::STRING, &[ty::SET, 1]),
            (ty::STRING, &[0xee, 0x58]),
            (ty::GEOMETRY, &[4]),
            (ty::VECTOR, &[4]),
            (ty::NEWDECIMAL, &[10, 2]),
        ];
        let optional: &[&[u8]] = &[
            &[1, 1, 0x80],
            &[2, 3, 45, 1, 63],
            &[4, 16, 1, b'a', 1, b'b', 1, b'c', 1, b'd', 1, b'e', 1, b'f', 1, b'g', 1, b'h'],
            &[5, 5, 2, 1, b'x', 1, b'y'],
            &[6, 3, 1, 1, b'z'],
            &[7, 1, 1],
            &[9, 4, 1, 10, 0, 0],
            &[10, 1, 8],
            &[12, 1, 0b1111_1101],
            &[13, 1, 3],
            &[77, 1, 1],
        ];
        let t = TableMap::parse(&map(columns, &[0b0000_0010], &optional.concat())).unwrap();
        assert_eq!((t.id, t.database.as_str(), t.table.as_str()), (9, "db", "t"));
        let kinds: Vec<u8> = t.columns.iter().map(|c| c.ty).collect();
        use ty::*;
        assert_eq!(kinds, [LONG, VARCHAR, ENUM, SET, STRING, GEOMETRY, VECTOR, NEWDECIMAL]);
        assert_eq!(t.columns[4].string_length(), 0x158);
        assert_eq!(t.columns[4].width().unwrap(), Width::Prefix(2));
        assert_eq!(t.columns[1].width().unwrap(), Width::Prefix(2));
        assert!(t.columns[1].nullable && !t.columns[0].nullable);
        let o = t.optional;
        assert_eq!(o.unsigned.unwrap(), [true, false, false, false, false, false, false, false]);
        assert_eq!(o.collations.unwrap(), [0, 45, 0, 0, 63, 0, 0, 0]);
        assert_eq!(o.choice_collations.unwrap(), [0, 0, 8, 8, 0, 0, 0, 0]);
        assert_eq!(o.names.unwrap().concat(), "abcdefgh");
        assert_eq!(o.set_labels.unwrap()[3], [b"x", b"y"]);
        assert_eq!(o.enum_labels.unwrap()[2], [b"z"]);
        assert_eq!((o.geometry.unwrap()[5], o.dimensions.unwrap()[6]), (1, 3));
        assert_eq!(o.key.unwrap(), [(1, 10), (0, 0)]);
        assert!(!o.visible.unwrap()[6]);
    }
    #[test]
    fn what_is_not_told_is_not_assumed() {
        let t = TableMap::parse(&map(&[(ty::LONG, &[])], &[0], &[])).unwrap();
        assert_eq!(t.optional, Optional::default());
    }
    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            map(&[(ty::LONG, &[1])], &[0], &[]),
            map(&[(200, &[])], &[0], &[]),
            map(&[(ty::NEWDECIMAL, &[66, 2])], &[0], &[]),
            map(&[(ty::NEWDECIMAL, &[5, 6])], &[0], &[]),
            map(&[(ty::TIME2, &[7])], &[0], &[]),
            map(&[(ty::LONG, &[])], &[0], &[4, 4, 1, b'a', 1, b'b']),
            map(&[(ty::LONG, &[])], &[0], &[8, 1, 1]),
            map(&[(ty::LONG, &[])], &[0], &[1, 2, 0, 0]),
        ] {
            assert!(TableMap::parse(&bad).is_err(), "{bad:?}");
        }
    }
    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120), flip in 0usize..60, to in any::<u8>()) {
            let seen = TableMap::parse(&bytes).is_ok();
            let mut near = map(&[(ty::LONG, &[]), (ty::STRING, &[ty::ENUM, 1])], &[0], &[1, 1, 0, 6, 3, 1, 1, b'z', 8, 1, 1]);
            let at = flip % near.len();
            near[at] = to;
            std::hint::black_box((seen, TableMap::parse(&near).is_ok()));
        }
    }
}

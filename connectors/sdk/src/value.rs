//! The value of one cell, borrowed from the bytes the database sent, alive only while it is written out.
//!
//! A [`Decoder`] is the only database knowledge that reaches an encoder: one function a column with its parameters,
//! resolved when the schema arrives. Every decoder must give equal `Value`s for equal rows whether they came from the
//! stream or from a snapshot, and must answer [`crate::Error::value`], never panic, for bytes it cannot read.

use crate::error::Result;
use std::{borrow::Cow, fmt, sync::Arc};

/// What a decoder finds in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL (inside arrays and maps; a cell that is NULL is never decoded).
    Null,
    /// A truth value.
    Bool(bool),
    /// Any signed integer, and unsigned ones that fit.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// IEEE single: printed with as many digits as a single needs.
    F32(f32),
    /// IEEE double.
    F64(f64),
    /// A decimal as its exact digits: `-?[0-9]+(\.[0-9]+)?`, or `NaN`, `Infinity`, `-Infinity`.
    Decimal(Cow<'a, str>),
    /// A decimal as a whole number and how many of its digits come after the point: `(-1234, 2)` is `-12.34`, the same as
    /// [`Value::Decimal`] with the text that [`digits`] gives. For databases that do not send text.
    Unscaled(i128, u8),
    /// Text (also everything whose faithful form is text: JSON, XML, UUID, network addresses, ranges, enum labels).
    Text(Cow<'a, str>),
    /// Raw bytes.
    Bytes(Cow<'a, [u8]>),
    /// Bits as ASCII `0` and `1`, most significant first.
    Bits(Cow<'a, str>),
    /// Days since 1970-01-01, proleptic Gregorian.
    Date(i64),
    /// Microseconds since midnight; 86,400,000,000 is 24:00; MySQL's TIME may be negative or longer than a day.
    Time(i64),
    /// Microseconds since midnight local time, and the zone's offset in seconds east of UTC.
    TimeTz(i64, i32),
    /// A timestamp without zone: seconds since 1970-01-01T00:00:00 as if UTC (floor), microseconds 0..1,000,000.
    Timestamp(i64, u32),
    /// An instant: seconds since the Unix epoch (floor), microseconds 0..1,000,000.
    TimestampTz(i64, u32),
    /// `infinity` (true) or `-infinity` (false) of a date or timestamp.
    Infinity(bool),
    /// A date or timestamp that is in no calendar, as the database writes it (MySQL's `0000-00-00`, `2024-00-00 00:00:00`).
    ZeroDate(Cow<'a, str>),
    /// Months, days, microseconds.
    Interval(i32, i32, i64),
    /// A point of the plane.
    Point(f64, f64),
    /// A geometry: its reference system if it has one, and its well-known binary form.
    Geometry(Option<u32>, Cow<'a, [u8]>),
    /// A list or a map: walked, never built.
    Nested(Nested<'a>),
}

/// Appends the digits of [`Value::Unscaled`]: all of its scale, and no more zeros in front than the one before a point.
pub fn digits(unscaled: i128, scale: u8, out: &mut String) {
    const CHUNK: u128 = 10u128.pow(19); // the most digits that a u64 always holds
    let mut room = [b'0'; 39];
    let mut at = room.len();
    let mut rest = unscaled.unsigned_abs();
    while rest != 0 {
        let (mut chunk, end) = ((rest % CHUNK) as u64, at.saturating_sub(19));
        rest /= CHUNK;
        while chunk != 0 {
            at -= 1;
            room[at] = b'0' + (chunk % 10) as u8;
            chunk /= 10;
        }
        if rest != 0 {
            at = end; // zeros in the middle
        }
    }
    let all = &room[at..];
    let (whole, fraction) = all.split_at(all.len().saturating_sub(scale.into()));
    if unscaled < 0 {
        out.push('-');
    }
    let text = |digits: &'_ [u8], out: &mut String| out.extend(digits.iter().map(|d| char::from(*d)));
    text(if whole.is_empty() { b"0" } else { whole }, out);
    if scale > 0 {
        out.push('.');
        out.extend(std::iter::repeat_n('0', usize::from(scale) - fraction.len()));
        text(fraction, out);
    }
}

/// Parameters of a decoder, fixed when the schema arrives.
#[derive(Clone, Default)]
pub struct Param {
    /// A small number: scale, width, precision.
    pub n: i32,
    /// Decoder of the elements of a list or map.
    pub element: Option<Arc<Decoder>>,
    /// Labels of an enum or set, in order.
    pub labels: Option<Arc<[Arc<str>]>>,
    /// Separator of elements.
    pub delimiter: u8,
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Param").field("n", &self.n).field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// Turns a cell's bytes into a value that borrows from them.
pub type DecodeFn = for<'a> fn(&'a Param, &'a [u8]) -> Result<Value<'a>>;

/// One column's decoder.
#[derive(Clone)]
pub struct Decoder {
    /// The function.
    pub decode: DecodeFn,
    /// Its parameters.
    pub param: Param,
}

impl Decoder {
    /// A decoder without parameters.
    pub fn plain(decode: DecodeFn) -> Decoder {
        Decoder { decode, param: Param::default() }
    }
    /// Decodes one cell.
    #[inline]
    pub fn value<'a>(&'a self, bytes: &'a [u8]) -> Result<Value<'a>> {
        (self.decode)(&self.param, bytes)
    }
}
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.param.fmt(f)
    }
}

/// A list or map still in the database's form. [`Nested::walk`] tells a [`Visitor`] what is inside.
#[derive(Clone, Copy)]
pub struct Nested<'a> {
    /// The bytes.
    pub raw: &'a [u8],
    /// The decoder's parameters.
    pub param: &'a Param,
    /// Walks the bytes.
    pub walk: fn(&Param, &[u8], &mut dyn Visitor) -> Result<()>,
}

impl Nested<'_> {
    /// Tells the visitor what is inside, in order.
    pub fn walk(&self, visitor: &mut dyn Visitor) -> Result<()> {
        (self.walk)(self.param, self.raw, visitor)
    }
}
impl fmt::Debug for Nested<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nested({} bytes)", self.raw.len())
    }
}
impl PartialEq for Nested<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

/// Is told what a [`Nested`] holds. Calls are properly nested; inside a map every value follows its key.
pub trait Visitor {
    /// A list begins (lists of lists: more than one dimension).
    fn begin_list(&mut self) -> Result<()>;
    /// It ends.
    fn end_list(&mut self) -> Result<()>;
    /// A map begins.
    fn begin_map(&mut self) -> Result<()>;
    /// It ends.
    fn end_map(&mut self) -> Result<()>;
    /// The key of the next value.
    fn key(&mut self, key: &str) -> Result<()>;
    /// An element or a map's value.
    fn value(&mut self, value: Value<'_>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_numbers() {
        for (n, scale, want) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (-1, 2, "-0.01"),
            (1234, 2, "12.34"),
            (-1234, 0, "-1234"),
            (5, 38, "0.00000000000000000000000000000000000005"),
            (i128::MIN, 1, "-17014118346046923173168730371588410572.8"),
            (1 << 64, 0, "18446744073709551616"),
        ] {
            let mut out = String::from("x");
            digits(n, scale, &mut out);
            assert_eq!(out, format!("x{want}"));
        }
    }
}

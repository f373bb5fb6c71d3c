//! Cells to values: one function for every form in which a column can stand in the log.
//!
//! The parameters (scale, digits, character set, labels) are fixed when the schema is bound, see [`crate::columns`]. A snapshot
//! brings its rows into the same forms, so that these functions serve both ways and the same row gives the same value.

use crate::{
    charset::Charset,
    decimal, jsonb, payload, temporal,
    wire::{be, le, malformed},
};
use seachange_sdk::{Error, Kind, Nested, Param, Result, Retry, Side, Value, Visitor};
use std::{borrow::Cow, fmt::Write};

#[cold]
fn wrong(what: &str, bytes: &[u8]) -> seachange_sdk::Error {
    malformed(format!("{} bytes where {what} was expected", bytes.len()))
}

/// A signed integer of 1 to 8 bytes.
pub fn signed<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.is_empty() || bytes.len() > 8 {
        return Err(wrong("an integer", bytes));
    }
    let unused = 64 - 8 * bytes.len() as u32;
    Ok(Value::I64((le(bytes) << unused) as i64 >> unused))
}

/// An unsigned integer of 1 to 4 bytes: it fits a signed one.
pub fn unsigned<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.is_empty() || bytes.len() > 4 {
        return Err(wrong("an integer", bytes));
    }
    Ok(Value::I64(le(bytes) as i64))
}

/// An unsigned integer of 8 bytes.
pub fn unsigned64<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.len() != 8 {
        return Err(wrong("a bigint", bytes));
    }
    Ok(Value::U64(le(bytes)))
}

/// FLOAT.
pub fn float<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::F32(f32::from_le_bytes(bytes.try_into().map_err(|_| wrong("a FLOAT", bytes))?)))
}

/// DOUBLE.
pub fn double<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::F64(f64::from_le_bytes(bytes.try_into().map_err(|_| wrong("a DOUBLE", bytes))?)))
}

/// DECIMAL; the parameter is precision * 256 + scale.
pub fn decimal<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let (precision, scale) = ((param.n >> 8) as u8, param.n as u8);
    Ok(if precision <= decimal::MOST_UNSCALED {
        Value::Unscaled(decimal::unscaled(bytes, precision, scale)?, scale)
    } else {
        Value::Decimal(Cow::Owned(decimal::decode(bytes, precision, scale)?))
    })
}

/// BIT(1).
pub fn bit1<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match bytes {
        [0] => Ok(Value::Bool(false)),
        [1] => Ok(Value::Bool(true)),
        _ => Err(wrong("a BIT(1)", bytes)),
    }
}

/// BIT; the parameter is the number of bits.
pub fn bits<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let n = usize::try_from(param.n).unwrap_or(0);
    if n > 64 || bytes.len() != n.div_ceil(8) {
        return Err(wrong("a BIT", bytes));
    }
    let value = be(bytes);
    Ok(Value::Bits(Cow::Owned((0..n).rev().map(|i| if value >> i & 1 == 1 { '1' } else { '0' }).collect())))
}

/// YEAR: 0 is the year 0000, the others count from 1900.
pub fn year<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match bytes {
        [0] => Ok(Value::I64(0)),
        [n] => Ok(Value::I64(1900 + i64::from(*n))),
        _ => Err(wrong("a YEAR", bytes)),
    }
}

/// DATE.
pub fn date<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(temporal::date(bytes)?.date())
}

/// TIME with the parameter's digits of a fraction.
pub fn time2<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Time(temporal::time2(bytes, digits(param))?))
}

/// The old TIME.
pub fn time<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Time(temporal::time(bytes)?))
}

/// DATETIME with the parameter's digits of a fraction.
pub fn datetime2<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(temporal::datetime2(bytes, digits(param))?.timestamp(digits(param)))
}

/// The old DATETIME.
pub fn datetime<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(temporal::datetime(bytes)?.timestamp(0))
}

/// TIMESTAMP with the parameter's digits of a fraction.
pub fn timestamp2<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    temporal::timestamp2(bytes, digits(param))
}

/// The old TIMESTAMP.
pub fn timestamp<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    temporal::timestamp(bytes)
}

fn digits(param: &Param) -> usize {
    usize::try_from(param.n).unwrap_or(0).min(6)
}

/// Text in UTF-8, which nearly all text is.
pub fn utf8<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match std::str::from_utf8(bytes) {
        Ok(s) => Ok(Value::Text(Cow::Borrowed(s))),
        Err(_) => text(param, bytes),
    }
}

/// Text in the parameter's character set.
pub fn text<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Charset::from_number(param.n).decode(bytes).map(Value::Text)
}

/// Text of a column with the attribute COMPRESSED.
pub fn packed_text<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match payload::unpack_column(bytes)? {
        Cow::Borrowed(b) => text(param, b),
        Cow::Owned(b) => Ok(Value::Text(Cow::Owned(Charset::from_number(param.n).decode(&b)?.into_owned()))),
    }
}

/// Bytes.
pub fn bytes<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Cow::Borrowed(bytes)))
}

/// Bytes of a column with the attribute COMPRESSED.
pub fn packed_bytes<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    payload::unpack_column(bytes).map(Value::Bytes)
}

/// BINARY(n): the log leaves out zeros at the end; the parameter is n.
pub fn binary<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let n = usize::try_from(param.n).unwrap_or(0);
    if bytes.len() >= n {
        return Ok(Value::Bytes(Cow::Borrowed(bytes)));
    }
    let mut out = Vec::with_capacity(n);
    out.extend_from_slice(bytes);
    out.resize(n, 0);
    Ok(Value::Bytes(Cow::Owned(out)))
}

/// ENUM: the label, by its number from 1; 0 is the empty string of a value that was refused.
pub fn choice<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.is_empty() || bytes.len() > 2 {
        return Err(wrong("an ENUM", bytes));
    }
    let labels = param.labels.as_deref().unwrap_or(&[]);
    match (le(bytes) as usize).checked_sub(1) {
        None => Ok(Value::Text(Cow::Borrowed(""))),
        Some(i) => match labels.get(i) {
            Some(label) => Ok(Value::Text(Cow::Borrowed(label))),
            None => Err(malformed(format!("label {} of an ENUM that has {}", i + 1, labels.len()))),
        },
    }
}

/// SET: its labels in their order, with commas between.
pub fn set<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.is_empty() || bytes.len() > 8 {
        return Err(wrong("a SET", bytes));
    }
    let labels = param.labels.as_deref().unwrap_or(&[]);
    let bits = le(bytes);
    if bits.checked_shr(labels.len() as u32).unwrap_or(0) != 0 {
        return Err(malformed(format!("a label beyond the {} of a SET", labels.len())));
    }
    let mut picked = labels.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, l)| &**l);
    Ok(Value::Text(match (picked.next(), picked.next()) {
        (None, _) => Cow::Borrowed(""),
        (Some(one), None) => Cow::Borrowed(one),
        (Some(one), Some(two)) => {
            let mut out = format!("{one},{two}");
            for l in picked {
                out.push(',');
                out.push_str(l);
            }
            Cow::Owned(out)
        }
    }))
}

/// ENUM with labels of which the catalog may have lost characters.
pub fn doubtful_choice<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    certain(choice(param, bytes)?)
}

/// SET with labels of which the catalog may have lost characters.
pub fn doubtful_set<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    certain(set(param, bytes)?)
}

fn certain(value: Value<'_>) -> Result<Value<'_>> {
    match value {
        Value::Text(t) if t.contains('?') => Err(Error::new(
            Kind::Schema,
            Side::Source,
            Retry::Operator,
            "a label with a question mark, which may stand for a character that the server's catalog has no room for",
        )
        .fix("SET GLOBAL binlog_row_metadata = 'FULL' puts the labels into the log; leave the column out if it is part of a key")),
        other => Ok(other),
    }
}

/// JSON: MySQL's binary form, or text (which no binary document can be taken for: it does not begin with a control
/// character), as it comes from a snapshot and from a partial update that has been applied.
pub fn json<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if bytes.first().is_some_and(|b| *b >= 0x20) {
        return Charset::UTF8MB4.decode(bytes).map(Value::Text);
    }
    let mut out = String::with_capacity(bytes.len() * 2);
    jsonb::text(bytes, &mut out)?;
    Ok(Value::Text(Cow::Owned(out)))
}

/// GEOMETRY: four bytes of the reference system, 0 for none, and well-known binary.
pub fn geometry<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong("a geometry", bytes))?;
    let srid = u32::from_le_bytes(*srid);
    Ok(Value::Geometry((srid != 0).then_some(srid), Cow::Borrowed(wkb)))
}

/// VECTOR: a list of singles.
pub fn vector<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    fn walk(_: &Param, raw: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
        visitor.begin_list()?;
        for n in raw.as_chunks::<4>().0 {
            visitor.value(Value::F32(f32::from_le_bytes(*n)))?;
        }
        visitor.end_list()
    }
    if !bytes.len().is_multiple_of(4) {
        return Err(wrong("a VECTOR", bytes));
    }
    Ok(Value::Nested(Nested { raw: bytes, param, walk }))
}

/// MariaDB's UUID as its text.
pub fn uuid<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Text(Cow::Owned(crate::gtid::Uuid(uuid_from_log(bytes)?).to_string())))
}

/// MariaDB stores a UUID of versions 1 to 5 with its segments in reverse, so that the index sorts by node and then by time;
/// others stand as they are written. The stored form tells which it is: reversed, the variant's highest bit stands in its
/// seventh byte, and a version in its ninth.
pub fn uuid_from_log(bytes: &[u8]) -> Result<[u8; 16]> {
    let mut s = [0u8; 16];
    s.get_mut(..bytes.len()).ok_or_else(|| wrong("a UUID", bytes))?.copy_from_slice(bytes);
    let [a0, a1, a2, a3, a4, a5, b0, b1, c0, c1, d0, d1, e0, e1, e2, e3] = s;
    if b0 & 0x80 == 0 || c0.wrapping_neg() & 0x80 == 0 {
        return Ok(s);
    }
    Ok([e0, e1, e2, e3, d0, d1, c0, c1, b0, b1, a0, a1, a2, a3, a4, a5])
}

/// The other way round.
pub fn uuid_to_log(u: [u8; 16]) -> [u8; 16] {
    let [e0, e1, e2, e3, d0, d1, c0, c1, b0, b1, a0, a1, a2, a3, a4, a5] = u;
    let reversed = (1..0x60).contains(&c0) && b0 & 0x80 != 0;
    if !reversed { u } else { [a0, a1, a2, a3, a4, a5, b0, b1, c0, c1, d0, d1, e0, e1, e2, e3] }
}

/// MariaDB's INET6 as its text.
pub fn inet6<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let mut all = [0u8; 16];
    all.get_mut(..bytes.len()).ok_or_else(|| wrong("an INET6", bytes))?.copy_from_slice(bytes);
    let mut out = String::new();
    print_inet6(std::net::Ipv6Addr::from(all), &mut out);
    Ok(Value::Text(Cow::Owned(out)))
}

/// As the server prints it: the first of the longest runs of zeros is left out, be it a single one, and what has an IPv4 address
/// in its end shows it.
pub fn print_inet6(address: std::net::Ipv6Addr, out: &mut String) {
    let words = address.segments();
    let (mut first, mut length) = (8, 0);
    for i in 0..8 {
        let run = words.iter().skip(i).take_while(|w| **w == 0).count();
        if run > length {
            (first, length) = (i, run);
        }
    }
    let [.., a, b] = words;
    for (i, word) in words.iter().enumerate() {
        if (first..first + length).contains(&i) {
            if i == first {
                out.push(':');
            }
            continue;
        }
        if i > 0 {
            out.push(':');
        }
        // Writing to a String does not fail.
        if i == 6 && first == 0 && (length == 6 || length == 5 && words[5] == 0xffff) {
            let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
            let _ok = write!(out, "{}.{}.{}.{}", a[0], a[1], b[0], b[1]).is_ok();
            return;
        }
        let _ok = write!(out, "{word:x}").is_ok();
    }
    if first + length == 8 && length > 0 {
        out.push(':');
    }
}

/// MariaDB's INET4 as its text.
pub fn inet4<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let mut all = [0u8; 4];
    all.get_mut(..bytes.len()).ok_or_else(|| wrong("an INET4", bytes))?.copy_from_slice(bytes);
    Ok(Value::Text(Cow::Owned(std::net::Ipv4Addr::from(all).to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seachange_sdk::DecodeFn;
    use std::sync::Arc;

    fn with(n: i32) -> Param {
        Param { n, ..Param::default() }
    }
    fn labels(l: &[&str]) -> Param {
        Param { labels: Some(l.iter().map(|s| Arc::from(*s)).collect()), ..Param::default() }
    }
    fn txt(s: &str) -> Value<'_> {
        Value::Text(s.into())
    }
    #[test]
    fn integers_of_every_width() {
        let p = with(0);
        assert_eq!(signed(&p, &[0x80]).unwrap(), Value::I64(-128));
        assert_eq!(signed(&p, &[0, 0, 0x80]).unwrap(), Value::I64(-8_388_608));
        assert_eq!(unsigned(&p, &[0xff, 0xff, 0xff]).unwrap(), Value::I64(16_777_215));
        assert_eq!(signed(&p, &i64::MIN.to_le_bytes()).unwrap(), Value::I64(i64::MIN));
        assert_eq!(unsigned64(&p, &[0xff; 8]).unwrap(), Value::U64(u64::MAX));
    }
    #[test]
    fn bits_and_years() {
        assert_eq!(bits(&with(8), &[0xaa]).unwrap(), Value::Bits("10101010".into()));
        assert_eq!(bits(&with(9), &[1, 0]).unwrap(), Value::Bits("100000000".into()));
        assert_eq!(bits(&with(64), &[0xff; 8]).unwrap(), Value::Bits("1".repeat(64).into()));
        assert_eq!(bit1(&with(1), &[1]).unwrap(), Value::Bool(true));
        assert_eq!((year(&with(0), &[0]).unwrap(), year(&with(0), &[255]).unwrap()), (Value::I64(0), Value::I64(2155)));
    }
    #[test]
    fn labels_of_enum_and_set() {
        let p = labels(&["small", "très grand", "c"]);
        assert_eq!(choice(&p, &[2]).unwrap(), txt("très grand"));
        assert_eq!(choice(&p, &[0]).unwrap(), txt(""));
        assert!(choice(&p, &[4]).is_err());
        assert_eq!(set(&p, &[0b101]).unwrap(), txt("small,c"));
        assert_eq!(set(&p, &[0b111]).unwrap(), txt("small,très grand,c"));
        assert_eq!(set(&p, &[0]).unwrap(), txt(""));
        assert!(set(&p, &[0b1000]).is_err());
        let many: Vec<String> = (0..64).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(set(&labels(&many), &[0, 0, 0, 0, 0, 0, 0, 0x80]).unwrap(), txt("63"));
    }
    #[test]
    fn padding_and_text() {
        assert_eq!(binary(&with(4), &[0, 0xff]).unwrap(), Value::Bytes(vec![0, 0xff, 0, 0].into()));
        assert_eq!(binary(&with(2), &[1, 2]).unwrap(), Value::Bytes(vec![1, 2].into()));
        let latin1 = with(Charset::named("latin1").unwrap().number());
        assert_eq!(text(&latin1, b"\xe9").unwrap(), txt("é"));
        assert!(utf8(&with(Charset::UTF8MB4.number()), b"\xff").is_err());
        assert_eq!(json(&with(0), b"{\"a\": 1}").unwrap(), txt("{\"a\": 1}"));
        assert_eq!(json(&with(0), &[5, 7, 0]).unwrap(), txt("7"));
        assert_eq!(json(&with(0), &[]).unwrap(), txt("null"));
    }
    #[test]
    fn the_rest() {
        assert_eq!(decimal(&with(5 << 8 | 2), &[0x83, 0xe7, 0x63]).unwrap(), Value::Unscaled(99999, 2));
        let long = with(39 << 8);
        let digits = decimal(&long, &[0x80, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(digits.unwrap(), Value::Decimal("1000000002000000003000000004".into()));
        assert_eq!(geometry(&with(0), &[0, 0, 0, 0, 1]).unwrap(), Value::Geometry(None, vec![1].into()));
        assert_eq!(geometry(&with(0), &[0xe6, 0x10, 0, 0, 1]).unwrap(), Value::Geometry(Some(4326), vec![1].into()));
        assert_eq!(inet6(&with(0), &[]).unwrap(), txt("::"));
        assert_eq!(inet4(&with(0), &[127, 0, 0, 1]).unwrap(), txt("127.0.0.1"));
        assert!(vector(&with(0), &[0; 5]).is_err());
    }
    #[test]
    fn addresses_as_mariadb_prints_them() {
        for (text, printed) in [
            ("::1:0", "::0.1.0.0"),
            ("::2", "::2"),
            ("::", "::"),
            ("::ffff:0:1", "::ffff:0.0.0.1"),
            ("::ffff", "::ffff"),
            ("::1:2:3", "::1:2:3"),
            ("1:0:2:3:4:5:6:7", "1::2:3:4:5:6:7"),
            ("0:2:3:4:5:6:7:8", "::2:3:4:5:6:7:8"),
            ("0:0:1::", "0:0:1::"),
            ("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"),
            ("1:2:0:0:5:0:0:8", "1:2::5:0:0:8"),
            ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ] {
            let address: std::net::Ipv6Addr = text.parse().unwrap();
            let mut out = String::new();
            print_inet6(address, &mut out);
            assert_eq!(out, printed);
            assert_eq!(printed.parse(), Ok(address));
        }
    }
    #[test]
    fn labels_in_doubt() {
        let p = labels(&["a", "b?"]);
        assert_eq!(doubtful_choice(&p, &[1]).unwrap(), txt("a"));
        assert!(doubtful_choice(&p, &[2]).is_err() && doubtful_set(&p, &[3]).is_err());
        assert_eq!(doubtful_set(&p, &[1]).unwrap(), txt("a"));
    }
    #[test]
    fn uuids_of_every_version() {
        let u = |s: &str| s.parse::<crate::gtid::Uuid>().unwrap().0;
        for (text, reversed) in [
            ("01234567-89ab-1def-8123-456789abcdef", true),
            ("01234567-89ab-4def-8123-456789abcdef", true),
            ("01234567-89ab-7def-8123-456789abcdef", false),
            ("01234567-89ab-7def-0123-456789abcdef", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", false),
        ] {
            let stored = uuid_to_log(u(text));
            assert_eq!(stored != u(text), reversed, "{text}");
            assert_eq!(uuid_from_log(&stored).unwrap(), u(text));
        }
        // zeros at the end are left out of the log
        assert_eq!(uuid_from_log(&[1]).unwrap()[0], 1);
    }
    proptest! {
        #[test]
        fn nothing_panics(b in proptest::collection::vec(any::<u8>(), 0..24), n in any::<i32>()) {
            let all: &[DecodeFn] = &[signed, unsigned, unsigned64, float, double, decimal, bit1, bits, year, date, time2, time, datetime2, datetime,
                timestamp2, timestamp, utf8, text, packed_text, bytes, packed_bytes, binary, choice, set, json, geometry, vector, uuid, inet6, inet4];
            for p in [with(n), with(n % 7), labels(&["a", "b"])] {
                for f in all {
                    if std::ptr::fn_addr_eq(*f, binary as DecodeFn) && n > 1 << 20 { continue; }
                    let seen = f(&p, &b).is_ok();
                    std::hint::black_box(seen);
                }
            }
        }
    }
}

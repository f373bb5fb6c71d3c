//! JSON columns: MySQL's binary documents as the text that the server itself prints.
//!
//! A document is walked in place and written straight to text: keys in their stored order, numbers as the server formats
//! them, decimals with their digits, dates with six digits of the fraction, other opaque values as `base64:typeN:...`.
//! Offsets are checked against the document, and nesting against the server's own limit, so that no document can make this
//! read outside of it, recurse without end or write without bound: entries that refer to the same bytes again and again are
//! stopped by a budget, since an honest document has fewer values than bytes.

use crate::{
    temporal,
    wire::{Bytes, le, malformed},
};
use seachange_sdk::Result;
use std::fmt::Write;

/// The server's own limit of nesting is 100.
const DEEPEST: u32 = 128;

/// Appends a document's text. An empty one is what the server makes of a missing value: `null`.
pub fn text(doc: &[u8], out: &mut String) -> Result<()> {
    match doc.split_first() {
        None => {
            out.push_str("null");
            Ok(())
        }
        Some((kind, rest)) => value(*kind, rest, out, 0, &mut Budget(doc.len())),
    }
}

/// How many more values a document may have.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return Err(malformed("a JSON document nested more deeply than the server allows"));
        }
        self.0 = self.0.checked_sub(1).ok_or_else(|| malformed("a JSON document with more values than bytes"))?;
        Ok(())
    }
}

/// What a container holds, entry by entry.
struct Container<'a> {
    data: &'a [u8],
    large: bool,
    count: usize,
    keys: bool,
}

impl<'a> Container<'a> {
    fn new(kind: u8, data: &'a [u8]) -> Result<Container<'a>> {
        let large = kind & 1 == 1;
        let keys = kind <= 1;
        let word = if large { 4 } else { 2 };
        let mut b = Bytes::new(data);
        let (count, size) = (b.uint(word)? as usize, b.uint(word)? as usize);
        let data = data.get(..size).ok_or_else(|| malformed("a JSON container larger than its document"))?;
        let c = Container { data, large, count, keys };
        // All entries must fit before any is read: the count cannot be used to spin.
        let needed = count.checked_mul(c.value_entry() + if keys { c.key_entry() } else { 0 });
        if needed.and_then(|n| n.checked_add(2 * word)).is_none_or(|n| n > size) {
            return Err(malformed("a JSON container with more entries than it has room for"));
        }
        Ok(c)
    }
    fn word(&self) -> usize {
        if self.large { 4 } else { 2 }
    }
    fn key_entry(&self) -> usize {
        self.word() + 2
    }
    fn value_entry(&self) -> usize {
        self.word() + 1
    }
    fn bytes(&self, at: usize, n: usize) -> Result<&'a [u8]> {
        at.checked_add(n)
            .and_then(|end| self.data.get(at..end))
            .ok_or_else(|| malformed("a JSON offset outside of its container"))
    }
    fn key(&self, i: usize) -> Result<&'a str> {
        let at = 2 * self.word() + i * self.key_entry();
        let entry = self.bytes(at, self.key_entry())?;
        let (offset, len) =
            entry.split_at_checked(self.word()).ok_or_else(|| malformed("a JSON key that is cut off"))?;
        let key = self.bytes(le(offset) as usize, le(len) as usize)?;
        std::str::from_utf8(key).map_err(|_| malformed("a JSON key that is not UTF-8"))
    }
    /// Kind and bytes of an entry: the bytes begin where the value does.
    fn value(&self, i: usize) -> Result<(u8, &'a [u8])> {
        let keys = if self.keys { self.count * self.key_entry() } else { 0 };
        let at = 2 * self.word() + keys + i * self.value_entry();
        let entry = self.bytes(at, self.value_entry())?;
        let Some((kind, rest)) = entry.split_first() else { return Err(malformed("a JSON entry that is cut off")) };
        let inline = matches!(kind, 4..=6) || (self.large && matches!(kind, 7 | 8));
        if inline {
            return Ok((*kind, rest));
        }
        let offset = le(rest) as usize;
        // A value lies behind the entries: no document can contain itself.
        let first = 2 * self.word() + keys + self.count * self.value_entry();
        if offset < first {
            return Err(malformed("a JSON value inside of the entries"));
        }
        Ok((*kind, self.data.get(offset..).ok_or_else(|| malformed("a JSON offset outside of its container"))?))
    }
}

fn value(kind: u8, data: &[u8], out: &mut String, depth: u32, budget: &mut Budget) -> Result<()> {
    budget.spend(depth)?;
    if kind > 3 {
        return scalar(kind, data, out);
    }
    let c = Container::new(kind, data)?;
    out.push(if c.keys { '{' } else { '[' });
    for i in 0..c.count {
        if i > 0 {
            out.push_str(", ");
        }
        if c.keys {
            quote(c.key(i)?, out);
            out.push_str(": ");
        }
        let (kind, data) = c.value(i)?;
        value(kind, data, out, depth + 1, budget)?;
    }
    out.push(if c.keys { '}' } else { ']' });
    Ok(())
}

/// A length in groups of seven bits, lowest first.
fn length(b: &mut Bytes<'_>) -> Result<usize> {
    let mut n = 0u64;
    for i in 0..5 {
        let byte = b.u8()?;
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return usize::try_from(n).map_err(|_| malformed("a JSON length beyond memory"));
        }
    }
    Err(malformed("a JSON length of more than five bytes"))
}

fn scalar(kind: u8, data: &[u8], out: &mut String) -> Result<()> {
    let mut b = Bytes::new(data);
    // Writing to a String does not fail.
    let mut print =
        |args: std::fmt::Arguments<'_>| out.write_fmt(args).map_err(|_| malformed("text that cannot be written"));
    match kind {
        4 => match b.u8()? {
            0 => out.push_str("null"),
            1 => out.push_str("true"),
            2 => out.push_str("false"),
            n => return Err(malformed(format!("JSON literal {n}"))),
        },
        5 => print(format_args!("{}", b.u16()? as i16))?,
        6 => print(format_args!("{}", b.u16()?))?,
        7 => print(format_args!("{}", b.u32()? as i32))?,
        8 => print(format_args!("{}", b.u32()?))?,
        9 => print(format_args!("{}", b.u64()? as i64))?,
        10 => print(format_args!("{}", b.u64()?))?,
        11 => double(f64::from_bits(b.u64()?), out),
        12 => {
            let n = length(&mut b)?;
            let s = std::str::from_utf8(b.take(n)?).map_err(|_| malformed("a JSON string that is not UTF-8"))?;
            quote(s, out);
        }
        15 => {
            let field = b.u8()?;
            let n = length(&mut b)?;
            opaque(field, b.take(n)?, out)?;
        }
        n => return Err(malformed(format!("a JSON value of type {n}"))),
    }
    Ok(())
}

fn opaque(field: u8, data: &[u8], out: &mut String) -> Result<()> {
    use crate::table_map::ty;
    match field {
        ty::NEWDECIMAL => match data {
            [precision, scale, digits @ ..] => {
                out.push_str(&crate::decimal::decode(digits, *precision, *scale)?);
                Ok(())
            }
            _ => Err(malformed("a JSON decimal that is cut off")),
        },
        ty::DATE | ty::DATETIME | ty::TIMESTAMP => {
            let f = temporal::Fields::unpack(Bytes::new(data).u64()?)?;
            let mut s = String::new();
            f.print(6, &mut s);
            out.push('"');
            out.push_str(if field == ty::DATE { s.get(..10).unwrap_or(&s) } else { &s });
            out.push('"');
            Ok(())
        }
        ty::TIME => {
            out.push('"');
            temporal::print_time(temporal::unpack_time(Bytes::new(data).u64()? as i64)?, 6, out);
            out.push('"');
            Ok(())
        }
        n => {
            let _ok = write!(out, "\"base64:type{n}:").is_ok();
            base64(data, out);
            out.push('"');
            Ok(())
        }
    }
}

/// Base64 in lines of 76 characters, as the server wraps it (the break is escaped: this stands in a JSON string).
fn base64(data: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (i, chunk) in data.chunks(3).enumerate() {
        if i > 0 && i % 19 == 0 {
            out.push_str("\\n");
        }
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for k in 0..4 {
            if k > chunk.len() {
                out.push('=');
            } else {
                out.push(char::from(DIGITS[(n >> (18 - 6 * k) & 63) as usize]));
            }
        }
    }
}

/// A JSON string as the server quotes it.
pub fn quote(s: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (i, c) in s.bytes().enumerate() {
        if c >= 0x20 && c != b'"' && c != b'\\' {
            continue;
        }
        out.push_str(s.get(plain..i).unwrap_or(""));
        plain = i + 1;
        match c {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            9 => out.push_str("\\t"),
            10 => out.push_str("\\n"),
            12 => out.push_str("\\f"),
            13 => out.push_str("\\r"),
            c => {
                let _ok = write!(out, "\\u{c:04x}").is_ok();
            }
        }
    }
    out.push_str(s.get(plain..).unwrap_or(""));
    out.push('"');
}

/// A double as the server prints it inside JSON: the shortest digits that give it back, without an exponent where the
/// point stands between 14 zeros and 15 digits, and never looking like an integer.
pub fn double(x: f64, out: &mut String) {
    if !x.is_finite() {
        out.push('0');
        return;
    }
    let shortest = format!("{x:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let len = digits.len() as i32;
    // where the point stands, counted from before the first digit
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let at = |n: i32| digits.get(..n as usize).unwrap_or("");
    let from = |n: i32| digits.get(n as usize..).unwrap_or("");
    out.push_str(sign);
    if x == 0.0 {
        out.push_str("0.0");
    } else if point >= -14 && (point <= 15 || len > point) {
        if point <= 0 {
            out.push_str("0.");
            (0..-point).for_each(|_| out.push('0'));
            out.push_str(&digits);
        } else if point < len {
            out.push_str(at(point));
            out.push('.');
            out.push_str(from(point));
        } else {
            out.push_str(&digits);
            (len..point).for_each(|_| out.push('0'));
            out.push_str(".0");
        }
    } else {
        out.push_str(at(1));
        if len > 1 {
            out.push('.');
            out.push_str(from(1));
        }
        let _ok = write!(out, "e{}", point - 1).is_ok();
    }
}

/// A document taken apart, so that differences can be applied: scalars are kept as their text.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Scalar(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn read(doc: &[u8]) -> Result<Node> {
        match doc.split_first() {
            None => Ok(Node::Scalar("null".into())),
            Some((kind, rest)) => Node::value(*kind, rest, 0, &mut Budget(doc.len())),
        }
    }
    fn value(kind: u8, data: &[u8], depth: u32, budget: &mut Budget) -> Result<Node> {
        budget.spend(depth)?;
        if kind > 3 {
            let mut s = String::new();
            scalar(kind, data, &mut s)?;
            return Ok(Node::Scalar(s));
        }
        let c = Container::new(kind, data)?;
        let mut child = |i: usize| {
            let (kind, data) = c.value(i)?;
            Node::value(kind, data, depth + 1, budget)
        };
        if c.keys {
            (0..c.count).map(|i| Ok((c.key(i)?.to_owned(), child(i)?))).collect::<Result<_>>().map(Node::Object)
        } else {
            (0..c.count).map(child).collect::<Result<_>>().map(Node::Array)
        }
    }
    fn print(&self, out: &mut String) {
        match self {
            Node::Scalar(s) => out.push_str(s),
            Node::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    item.print(out);
                }
                out.push(']');
            }
            Node::Object(items) => {
                out.push('{');
                for (i, (key, item)) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    quote(key, out);
                    out.push_str(": ");
                    item.print(out);
                }
                out.push('}');
            }
        }
    }
    fn child(&mut self, leg: &Leg) -> Option<&mut Node> {
        match (self, leg) {
            (Node::Object(items), Leg::Member(key)) => items.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v),
            (Node::Array(items), Leg::Cell(i)) => items.get_mut(*i),
            // the server treats a value that is no array as an array of one
            (node, Leg::Cell(0)) => Some(node),
            _ => None,
        }
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Leg {
    Member(String),
    Cell(usize),
}

/// Reads `$.a."b c"[3]`.
fn path(text: &str) -> Result<Vec<Leg>> {
    let wrong = || malformed("a JSON difference with a path that cannot be read");
    let mut rest = text.trim_start().strip_prefix('$').ok_or_else(wrong)?.trim_start();
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(r) = rest.strip_prefix('[') {
            let (n, r) = r.split_once(']').ok_or_else(wrong)?;
            legs.push(Leg::Cell(n.trim().parse().map_err(|_| wrong())?));
            rest = r.trim_start();
        } else if let Some(r) = rest.strip_prefix('.') {
            let r = r.trim_start();
            if let Some(quoted) = r.strip_prefix('"') {
                let (key, r) = unquote(quoted).ok_or_else(wrong)?;
                legs.push(Leg::Member(key));
                rest = r.trim_start();
            } else {
                let end = r.find(['.', '[', ' ']).unwrap_or(r.len());
                let (key, r) = r.split_at_checked(end).filter(|x| !x.0.is_empty()).ok_or_else(wrong)?;
                legs.push(Leg::Member(key.to_owned()));
                rest = r.trim_start();
            }
        } else {
            return Err(wrong());
        }
    }
    Ok(legs)
}

/// A quoted key after its first quote: the key, and what follows the closing quote.
fn unquote(s: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = s.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((out, s.get(i + 1..)?)),
            '\\' => match chars.next()?.1 {
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'u' => {
                    let mut unit = || -> Option<u16> {
                        (0..4).try_fold(0u32, |n, _| Some(n << 4 | chars.next()?.1.to_digit(16)?)).map(|n| n as u16)
                    };
                    let first = unit()?;
                    let units = if (0xd800..0xdc00).contains(&first) {
                        (chars.next()?.1 == '\\' && chars.next()?.1 == 'u').then_some(())?;
                        let mut second = || (0..4).try_fold(0u32, |n, _| Some(n << 4 | chars.next()?.1.to_digit(16)?));
                        vec![first, second()? as u16]
                    } else {
                        vec![first]
                    };
                    out.push_str(&String::from_utf16(&units).ok()?);
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

/// Applies the differences of a partial update to the old document and appends the new one's text.
pub fn apply(old: &[u8], diffs: &[u8], out: &mut String) -> Result<()> {
    let mut root = Node::read(old)?;
    let mut b = Bytes::new(diffs);
    while !b.is_empty() {
        let operation = b.u8()?;
        let path_text =
            std::str::from_utf8(b.lenenc_bytes()?).map_err(|_| malformed("a JSON path that is not UTF-8"))?;
        let legs = path(path_text)?;
        if legs.len() > DEEPEST as usize {
            return Err(malformed("a JSON difference deeper than the server allows"));
        }
        let new = if operation == 2 { None } else { Some(Node::read(b.lenenc_bytes()?)?) };
        let missing = || malformed("a JSON difference to a place that the old document does not have");
        let Some((last, parents)) = legs.split_last() else {
            match (operation, new) {
                (0, Some(new)) => root = new,
                _ => return Err(missing()),
            }
            continue;
        };
        let mut at = &mut root;
        for leg in parents {
            at = at.child(leg).ok_or_else(missing)?;
        }
        match (operation, new) {
            (0, Some(new)) => *at.child(last).ok_or_else(missing)? = new,
            (1, Some(new)) => match (at, last) {
                (Node::Object(items), Leg::Member(key)) => {
                    // the stored order: by length, then by bytes
                    let place = items.partition_point(|(k, _)| (k.len(), k.as_bytes()) < (key.len(), key.as_bytes()));
                    if items.get(place).is_some_and(|(k, _)| k == key) {
                        return Err(malformed("a JSON difference that adds a member which is there"));
                    }
                    items.insert(place, (key.clone(), new));
                }
                (Node::Array(items), Leg::Cell(i)) => items.insert((*i).min(items.len()), new),
                _ => return Err(missing()),
            },
            (2, None) => match (at, last) {
                (Node::Object(items), Leg::Member(key)) => {
                    let place = items.iter().position(|(k, _)| k == key).ok_or_else(missing)?;
                    items.remove(place);
                }
                (Node::Array(items), Leg::Cell(i)) if *i < items.len() => drop(items.remove(*i)),
                _ => return Err(missing()),
            },
            _ => return Err(malformed(format!("JSON difference of kind {operation}"))),
        }
    }
    root.print(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A document in the binary form, small layout.
    pub(crate) fn small(kind: u8, entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let object = kind == 0;
        let n = entries.len();
        let head = 4 + n * 3 + if object { n * 4 } else { 0 };
        let (mut keys, mut key_bytes, mut values, mut data) = (vec![], vec![], vec![], vec![]);
        let all_keys: usize = if object { entries.iter().map(|e| e.0.len()).sum() } else { 0 };
        for (key, kind, bytes) in entries {
            if object {
                keys.extend(((head + key_bytes.len()) as u16).to_le_bytes());
                keys.extend((key.len() as u16).to_le_bytes());
                key_bytes.extend(key.as_bytes());
            }
            values.push(*kind);
            if matches!(kind, 4..=6) {
                values.extend([bytes[0], bytes.get(1).copied().unwrap_or(0)]);
            } else {
                values.extend(((head + all_keys + data.len()) as u16).to_le_bytes());
                data.extend(*bytes);
            }
        }
        let body = [keys, values, key_bytes, data].concat();
        let mut out = vec![kind];
        out.extend((n as u16).to_le_bytes());
        out.extend(((4 + body.len()) as u16).to_le_bytes());
        out.extend(body);
        out
    }
    fn show(doc: &[u8]) -> String {
        let mut s = String::new();
        text(doc, &mut s).unwrap();
        s
    }
    fn num(x: f64) -> String {
        let mut s = String::new();
        double(x, &mut s);
        s
    }
    #[test]
    fn as_the_server_prints() {
        let inner = small(2, &[("", 5, &[1, 0]), ("", 4, &[0]), ("", 12, b"\x02hi")]);
        let doc = small(0, &[("a", 5, &[0xff, 0xff]), ("b", 2, &inner[1..]), ("cc", 4, &[1])]);
        assert_eq!(show(&doc), r#"{"a": -1, "b": [1, null, "hi"], "cc": true}"#);
        assert_eq!(show(&[]), "null");
        assert_eq!(show(&small(2, &[])), "[]");
        assert_eq!(show(b"\x0c\x06a\"\\\n\x01\x7f"), "\"a\\\"\\\\\\n\\u0001\u{7f}\"");
        assert_eq!(show(&[0x0f, 246, 4, 3, 2, 0x82, 50]), "2.50");
        // 2015-01-15 23:24:25.120000, and the date and time alone
        let packed = ((((2015u64 * 13 + 1) << 5 | 15) << 17 | 23 << 12 | 24 << 6 | 25) << 24 | 120_000).to_le_bytes();
        assert_eq!(show(&[&[0x0f, 12, 8], &packed[..]].concat()), "\"2015-01-15 23:24:25.120000\"");
        assert_eq!(show(&[&[0x0f, 10, 8], &packed[..]].concat()), "\"2015-01-15\"");
        let time = (-((1i64 << 12) << 24 | 1)).to_le_bytes();
        assert_eq!(show(&[&[0x0f, 11, 8], &time[..]].concat()), "\"-01:00:00.000001\"");
        assert_eq!(show(b"\x0f\xfc\x04abcd"), "\"base64:type252:YWJjZA==\"");
    }
    #[test]
    fn doubles() {
        for (x, s) in [
            (1.0, "1.0"),
            (1e10, "10000000000.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1e15"),
            (1e14, "100000000000000.0"),
            (1e16, "1e16"),
            (1.5e20, "1.5e20"),
            (123456789012345680.0, "1.2345678901234568e17"),
            (1e-5, "0.00001"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (2.718281828459042, "2.718281828459042"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(num(x), s);
        }
    }
    fn diff(op: u8, path: &str, value: Option<&[u8]>) -> Vec<u8> {
        let mut d = vec![op, path.len() as u8];
        d.extend(path.as_bytes());
        if let Some(v) = value {
            d.push(v.len() as u8);
            d.extend(v);
        }
        d
    }
    #[test]
    fn differences() {
        let inner = small(2, &[("", 5, &[1, 0]), ("", 5, &[2, 0])]);
        let doc = small(0, &[("a", 5, &[1, 0]), ("b", 2, &inner[1..]), ("é x", 4, &[1])]);
        let apply = |d: &[u8]| {
            let mut s = String::new();
            super::apply(&doc, d, &mut s).map(|()| s)
        };
        let seven: &[u8] = &[5, 7, 0];
        assert_eq!(apply(&diff(0, "$.a", Some(seven))).unwrap(), r#"{"a": 7, "b": [1, 2], "é x": true}"#);
        assert_eq!(apply(&diff(1, "$.ab", Some(seven))).unwrap(), r#"{"a": 1, "b": [1, 2], "ab": 7, "é x": true}"#);
        assert_eq!(apply(&diff(1, "$.b[1]", Some(seven))).unwrap(), r#"{"a": 1, "b": [1, 7, 2], "é x": true}"#);
        assert_eq!(apply(&diff(2, r#"$."é x""#, None)).unwrap(), r#"{"a": 1, "b": [1, 2]}"#);
        assert_eq!(apply(&diff(0, "$", Some(seven))).unwrap(), "7");
        let two = [diff(2, "$.b[0]", None), diff(0, "$.b[0]", Some(seven))].concat();
        assert_eq!(apply(&two).unwrap(), r#"{"a": 1, "b": [7], "é x": true}"#);
        // what does not fit the old document is refused
        for bad in [
            diff(0, "$.x", Some(seven)),
            diff(2, "$.b[5]", None),
            diff(1, "$.a", Some(seven)),
            diff(9, "$.a", Some(seven)),
            diff(0, "a", Some(seven)),
            diff(2, "$", None),
        ] {
            assert!(apply(&bad).is_err());
        }
        assert_eq!(apply(&[]).unwrap(), show(&doc));
    }
    #[test]
    fn hostile_documents() {
        // an array that contains itself: its value lies in front of its entries
        assert!(text(&[2, 1, 0, 7, 0, 2, 0, 0], &mut String::new()).is_err());
        // more entries than bytes
        assert!(text(&[3, 0xff, 0xff, 0xff, 0xff, 9, 0, 0, 0, 0], &mut String::new()).is_err());
        // the same child twice, thirty levels deep: two to the thirtieth values
        let mut twice = small(2, &[]);
        for _ in 0..30 {
            let mut next = small(2, &[("", 2, &twice[1..]), ("", 2, &[])]);
            let first = [next[6], next[7]];
            next[9..11].copy_from_slice(&first);
            twice = next;
        }
        assert!(text(&twice, &mut String::new()).is_err());
        let mut deep = small(2, &[]);
        for _ in 0..200 {
            deep = small(2, &[("", 2, &deep[1..])]);
        }
        assert!(text(&deep, &mut String::new()).is_err());
    }
    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), diffs in proptest::collection::vec(any::<u8>(), 0..30)) {
            let mut s = String::new();
            let seen = (text(&bytes, &mut s).is_ok(), apply(&bytes, &diffs, &mut s).is_ok());
            std::hint::black_box(seen);
        }
        #[test]
        fn near_documents_do_not_panic(at in 0usize..40, to in any::<u8>()) {
            let inner = small(2, &[("", 5, &[1, 0]), ("", 12, b"\x02hi")]);
            let mut doc = small(0, &[("a", 5, &[1, 0]), ("b", 2, &inner[1..]), ("cc", 15, b"\xf6\x04\x03\x02\x82\x32")]);
            let n = doc.len();
            doc[at % n] = to;
            let mut s = String::new();
            prop_assert!(text(&doc, &mut s).is_ok() || Node::read(&doc).is_err());
        }
        #[test]
        fn doubles_read_back(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            if x.is_finite() {
                prop_assert_eq!(num(x).parse::<f64>().unwrap().to_bits(), bits);
            }
        }
    }
}

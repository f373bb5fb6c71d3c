//! The identity of a row's key, for the snapshot merge: a hash over decoded values.
//!
//! Two rows with equal keys hash equal whatever wire form they came in (stream or snapshot, text or binary), because the
//! hash runs over a canonical, tagged form of the decoded [`Value`]s: integers of any width are one kind, decimals lose zeros
//! that carry no value, `-0.0` is `0.0`. Lengths precede contents, so that no two lists of values give the same bytes.
//! With 128 bits, a chance hit among a billion keys is less likely than one in 10^20.

use super::decimal::Digits;
use seachange_sdk::{Cell, Error, Result, TableSchema, Value, Visitor, digits};
use xxhash_rust::xxh3::xxh3_128;

/// The hash of a row's key; `None` when the table has no key or a key cell is not there (absent or unavailable).
pub fn key_hash(schema: &TableSchema, cells: &[Cell], chunk: &[u8], scratch: &mut Vec<u8>) -> Result<Option<u128>> {
    if schema.key.is_empty() {
        return Ok(None);
    }
    scratch.clear();
    for index in &schema.key {
        let place = || format!("table {}", schema.id);
        let (Some(column), Some(cell)) = (schema.columns.get(*index as usize), cells.get(*index as usize)) else {
            return Err(Error::bug("a key column that the row does not have").at(place()));
        };
        match cell.bytes(chunk) {
            Some(bytes) => {
                let hashed = column.decode.value(bytes).and_then(|v| canonical(scratch, v));
                hashed.map_err(|e| e.at(format_args!("{}, column {}", place(), column.name)))?;
            }
            None if *cell == Cell::NULL => scratch.push(0),
            None if cell.is_value() => return Err(Error::bug("a cell outside its chunk").at(place())),
            None => return Ok(None),
        }
    }
    Ok(Some(xxh3_128(scratch)))
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn float(out: &mut Vec<u8>, f: f64) {
    let canonical = if f.is_nan() {
        f64::NAN
    } else if f == 0.0 {
        0.0
    } else {
        f
    };
    out.extend_from_slice(&canonical.to_bits().to_le_bytes());
}

fn decimal(out: &mut Vec<u8>, text: &str) -> Result<()> {
    match Digits::parse(text)? {
        Some(digits) => {
            let (negative, whole, fraction) = digits.canonical();
            out.extend_from_slice(&[4, u8::from(negative)]);
            tagged(out, 4, whole.as_bytes());
            tagged(out, 4, fraction.as_bytes());
        }
        None => tagged(out, 5, text.as_bytes()),
    }
    Ok(())
}

fn canonical(out: &mut Vec<u8>, value: Value<'_>) -> Result<()> {
    match value {
        Value::Null => out.push(0),
        Value::Bool(b) => out.extend_from_slice(&[1, u8::from(b)]),
        Value::I64(n) => {
            out.push(2);
            out.extend_from_slice(&i128::from(n).to_le_bytes());
        }
        Value::U64(n) => {
            out.push(2);
            out.extend_from_slice(&i128::from(n).to_le_bytes());
        }
        Value::F32(f) => {
            out.push(3);
            float(out, f64::from(f));
        }
        Value::F64(f) => {
            out.push(3);
            float(out, f);
        }
        Value::Decimal(text) => decimal(out, &text)?,
        Value::Unscaled(n, scale) => {
            let mut text = String::new();
            digits(n, scale, &mut text);
            decimal(out, &text)?;
        }
        Value::Text(text) => tagged(out, 6, text.as_bytes()),
        Value::Bytes(bytes) => tagged(out, 7, &bytes),
        Value::Bits(bits) => tagged(out, 8, bits.as_bytes()),
        Value::Date(days) => {
            out.push(9);
            out.extend_from_slice(&days.to_le_bytes());
        }
        Value::Time(micros) => {
            out.push(10);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::TimeTz(micros, offset) => {
            out.push(11);
            out.extend_from_slice(&micros.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        Value::Timestamp(seconds, micros) => {
            out.push(12);
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::TimestampTz(seconds, micros) => {
            out.push(13);
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Infinity(positive) => out.extend_from_slice(&[14, u8::from(positive)]),
        Value::ZeroDate(text) => tagged(out, 18, text.as_bytes()),
        Value::Geometry(srid, wkb) => {
            out.push(19);
            out.extend_from_slice(&srid.map_or(-1, i64::from).to_le_bytes());
            tagged(out, 19, &wkb);
        }
        Value::Interval(months, days, micros) => {
            out.push(15);
            out.extend_from_slice(&months.to_le_bytes());
            out.extend_from_slice(&days.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Point(x, y) => {
            out.push(16);
            float(out, x);
            float(out, y);
        }
        Value::Nested(nested) => {
            struct Tags<'a>(&'a mut Vec<u8>);
            impl Visitor for Tags<'_> {
                fn begin_list(&mut self) -> Result<()> {
                    self.0.push(17);
                    Ok(())
                }
                fn end_list(&mut self) -> Result<()> {
                    self.0.push(18);
                    Ok(())
                }
                fn begin_map(&mut self) -> Result<()> {
                    self.0.push(19);
                    Ok(())
                }
                fn end_map(&mut self) -> Result<()> {
                    self.0.push(20);
                    Ok(())
                }
                fn key(&mut self, key: &str) -> Result<()> {
                    tagged(self.0, 21, key.as_bytes());
                    Ok(())
                }
                fn value(&mut self, value: Value<'_>) -> Result<()> {
                    canonical(self.0, value)
                }
            }
            nested.walk(&mut Tags(out))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn form(values: &[Value<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|v| canonical(&mut out, v.clone()).unwrap());
        out
    }
    fn decimal(s: &str) -> Value<'_> {
        Value::Decimal(Cow::Borrowed(s))
    }
    fn text(s: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(s))
    }

    #[test]
    fn equal_values_in_other_forms_are_equal() {
        assert_eq!(form(&[Value::I64(7)]), form(&[Value::U64(7)]));
        assert_eq!(form(&[decimal("1.50")]), form(&[decimal("01.5")]));
        assert_eq!(form(&[decimal("-0.00")]), form(&[decimal("0")]));
        assert_eq!(form(&[decimal("-1.5")]), form(&[Value::Unscaled(-1500, 3)]));
        assert_ne!(form(&[decimal("1.5")]), form(&[Value::Unscaled(150, 1)]));
        assert_eq!(form(&[Value::F64(-0.0)]), form(&[Value::F64(0.0)]));
        assert_eq!(form(&[Value::F32(1.5)]), form(&[Value::F64(1.5)]));
    }

    #[test]
    fn different_values_differ() {
        assert_ne!(form(&[text("a"), text("bc")]), form(&[text("ab"), text("c")]));
        assert_ne!(form(&[decimal("12.3")]), form(&[decimal("1.23")]));
        assert_ne!(form(&[decimal("1")]), form(&[decimal("-1")]));
        assert_ne!(form(&[text("1")]), form(&[Value::I64(1)]));
        assert_ne!(form(&[Value::Null]), form(&[text("")]));
        assert_ne!(form(&[decimal("NaN")]), form(&[text("NaN")]));
    }
}

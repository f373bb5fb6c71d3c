//! Rows of a SELECT in the form in which the log holds them, so that one set of decoders serves both, and keys as SQL.
//!
//! Rows come by the binary protocol (a FLOAT as text would lose digits), with `character_set_results = NULL` (text comes in
//! the column's own character set) and in UTC. ENUM and SET are asked for as numbers.

use crate::{
    columns::Bound,
    decimal,
    sql::ident,
    table_map::{Physical, ty},
    temporal::{self, Fields, encode},
    wire::{be, le, malformed},
};
use mysql_async::Value;
use seachange_sdk::{Batch, Cell, Error, Result, TableSchema, Type};
use std::fmt::Write;

/// What to select for a column.
pub fn expression(name: &str, physical: &Physical) -> String {
    match physical.ty {
        // As a sum it would be a double, which holds 53 of a SET's 64 labels.
        ty::ENUM | ty::SET => format!("{} | 0", ident(name)),
        _ => ident(name),
    }
}

#[cold]
fn wrong(p: &Physical) -> Error {
    malformed(format!("the server sent a value that does not fit the column's type {}", p.ty))
}

/// Appends a value's bytes as the log would hold them.
pub fn put(value: &Value, p: &Physical, column: &Type, type_name: &str, out: &mut Vec<u8>) -> Result<()> {
    let fixed =
        |out: &mut Vec<u8>, n: u64, size: usize| out.extend_from_slice(n.to_le_bytes().get(..size).unwrap_or(&[]));
    let size = match p.width()? {
        crate::table_map::Width::Fixed(n) => n as usize,
        crate::table_map::Width::Prefix(_) => 0,
    };
    let digits = usize::from(p.meta[0]);
    match (p.ty, value) {
        (ty::TINY | ty::SHORT | ty::INT24 | ty::LONG | ty::LONGLONG | ty::ENUM | ty::SET, Value::Int(n)) => {
            fixed(out, *n as u64, size);
        }
        (ty::TINY | ty::SHORT | ty::INT24 | ty::LONG | ty::LONGLONG | ty::ENUM | ty::SET, Value::UInt(n)) => {
            fixed(out, *n, size);
        }
        (ty::FLOAT, Value::Float(f)) => out.extend_from_slice(&f.to_le_bytes()),
        (ty::DOUBLE, Value::Double(f)) => out.extend_from_slice(&f.to_le_bytes()),
        (ty::NEWDECIMAL, Value::Bytes(b)) => decimal::encode(b, p.meta[0], p.meta[1], out)?,
        (ty::BIT, Value::Bytes(b)) if b.len() == size => out.extend_from_slice(b),
        (ty::YEAR, Value::Int(n)) => out.push(u8::try_from(if *n == 0 { 0 } else { n - 1900 }).map_err(|_| wrong(p))?),
        (ty::YEAR, Value::UInt(n)) => {
            out.push(u8::try_from(if *n == 0 { 0 } else { n.wrapping_sub(1900) }).map_err(|_| wrong(p))?);
        }
        (ty::DATE, Value::Date(..)) => encode::date(fields(value).ok_or_else(|| wrong(p))?, out),
        (ty::DATETIME2, Value::Date(..)) => encode::datetime2(fields(value).ok_or_else(|| wrong(p))?, digits, out),
        (ty::TIMESTAMP2, Value::Date(..)) => encode::timestamp2(fields(value).ok_or_else(|| wrong(p))?, digits, out)?,
        (ty::TIME2, Value::Time(negative, days, h, m, s, us)) => {
            let hours = i64::from(*days) * 24 + i64::from(*h);
            let n = (hours * 3600 + i64::from(*m) * 60 + i64::from(*s)) * 1_000_000 + i64::from(*us);
            encode::time2(if *negative { -n } else { n }, digits, out);
        }
        (ty::STRING, Value::Bytes(b)) if *column == Type::Uuid => {
            let text = std::str::from_utf8(b).map_err(|_| wrong(p))?;
            out.extend_from_slice(&crate::decode::uuid_to_log(text.parse::<crate::gtid::Uuid>()?.0));
        }
        (ty::STRING, Value::Bytes(b)) if matches!(type_name, "inet6" | "inet4") => {
            let text = std::str::from_utf8(b).map_err(|_| wrong(p))?;
            match text.parse::<std::net::IpAddr>().map_err(|_| wrong(p))? {
                std::net::IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                std::net::IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
            }
        }
        (
            ty::STRING | ty::VARCHAR | ty::BLOB | ty::JSON | ty::GEOMETRY | ty::VECTOR | ty::VAR_STRING,
            Value::Bytes(b),
        ) => out.extend_from_slice(b),
        _ => return Err(wrong(p)),
    }
    Ok(())
}

fn fields(value: &Value) -> Option<Fields> {
    let Value::Date(year, month, day, hour, minute, second, micros) = value else { return None };
    Some(Fields {
        year: (*year).into(),
        month: (*month).into(),
        day: (*day).into(),
        hour: (*hour).into(),
        minute: (*minute).into(),
        second: (*second).into(),
        micros: *micros,
    })
}

/// Appends a row's cells. Gives its size.
pub fn put_row(values: &[Value], bound: &Bound, chunk: &mut Vec<u8>, cells: &mut Vec<Cell>) -> Result<usize> {
    let begin = chunk.len();
    let columns = &bound.schema.columns;
    if values.len() != columns.len() {
        return Err(malformed(format!("{} values for {} columns", values.len(), columns.len())));
    }
    for ((value, column), physical) in values.iter().zip(columns).zip(&bound.physical) {
        if *value == Value::NULL {
            cells.push(Cell::NULL);
            continue;
        }
        let off = chunk.len();
        put(value, physical, &column.ty, &column.type_name, chunk)
            .map_err(|e| e.at(format_args!("column {}", column.name)))?;
        let place = u32::try_from(off).map_err(|_| malformed("a chunk of more than 4 GiB"))?;
        cells.push(Cell::at(place, (chunk.len() - off) as u32));
    }
    Ok(chunk.len() - begin)
}

/// A key: the cells of its columns, each behind its length.
pub fn encode_key(batch: &Batch, row: usize, schema: &TableSchema) -> Result<bytes::Bytes> {
    let missing = || Error::bug("a row of a chunk without its key");
    let change = batch.changes.get(row).ok_or_else(missing)?;
    let chunk = batch.chunk(change);
    let image = batch.image(change.after);
    let mut out = Vec::new();
    for i in &schema.key {
        let bytes = image.get(*i as usize).and_then(|c| c.bytes(chunk)).ok_or_else(missing)?;
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    Ok(out.into())
}

/// The cells of an encoded key.
pub fn split_key(key: &[u8]) -> Result<Vec<&[u8]>> {
    let mut b = crate::wire::Bytes::new(key);
    let mut out = Vec::new();
    while !b.is_empty() {
        let n = b.u32()? as usize;
        out.push(b.take(n)?);
    }
    Ok(out)
}

/// A key's cell as SQL that compares with its column: exactly, and as the column's index sorts.
pub fn literal(cell: &[u8], p: &Physical, charset: &str, ty: &Type, type_name: &str) -> Result<String> {
    let hex = |b: &[u8]| {
        b.iter().fold(String::from("X'"), |mut s, b| {
            let _ok = write!(s, "{b:02x}").is_ok();
            s
        }) + "'"
    };
    let quoted = |s: String| format!("'{s}'");
    let digits = usize::from(p.meta[0]);
    let number = |ty: &Type| -> String {
        let unsigned = matches!((p.ty, ty), (ty::LONGLONG, Type::U64) | (ty::LONG, Type::I64) | (ty::SHORT, Type::I32))
            || type_name.contains("unsigned");
        if unsigned || cell.len() > 8 {
            return le(cell).to_string();
        }
        let unused = 64 - 8 * cell.len() as u32;
        ((le(cell) << unused.min(63)) as i64 >> unused.min(63)).to_string()
    };
    Ok(match p.ty {
        ty::TINY | ty::SHORT | ty::INT24 | ty::LONG | ty::LONGLONG => number(ty),
        ty::ENUM | ty::SET => le(cell).to_string(),
        ty::BIT => be(cell).to_string(),
        ty::YEAR => cell.first().map_or(0, |n| if *n == 0 { 0 } else { 1900 + u32::from(*n) }).to_string(),
        ty::FLOAT => format!("{:e}", f64::from(f32::from_le_bytes(cell.try_into().map_err(|_| wrong(p))?))),
        ty::DOUBLE => format!("{:e}", f64::from_le_bytes(cell.try_into().map_err(|_| wrong(p))?)),
        ty::NEWDECIMAL => decimal::decode(cell, p.meta[0], p.meta[1])?,
        ty::DATE => {
            let mut s = String::new();
            temporal::date(cell)?.print(0, &mut s);
            quoted(s.get(..10).unwrap_or(&s).to_owned())
        }
        ty::DATETIME2 => {
            let mut s = String::new();
            temporal::datetime2(cell, digits)?.print(digits, &mut s);
            quoted(s)
        }
        ty::TIMESTAMP2 => {
            let seconds = cell.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
            let mut s = String::new();
            match temporal::timestamp2(cell, digits)? {
                seachange_sdk::Value::TimestampTz(_, micros) => {
                    let (year, month, day) = temporal::civil(i64::from(seconds) / 86_400);
                    let t = seconds % 86_400;
                    Fields {
                        year: year as u32,
                        month,
                        day,
                        hour: t / 3600,
                        minute: t / 60 % 60,
                        second: t % 60,
                        micros,
                    }
                    .print(digits, &mut s);
                }
                _ => Fields::default().print(digits, &mut s),
            }
            quoted(s)
        }
        ty::TIME2 => {
            let mut s = String::new();
            temporal::print_time(temporal::time2(cell, digits)?, digits, &mut s);
            quoted(s)
        }
        _ if *ty == Type::Uuid => quoted(crate::gtid::Uuid(crate::decode::uuid_from_log(cell)?).to_string()),
        _ if type_name == "inet6" || type_name == "inet4" => match *cell {
            [a, b, c, d] => quoted(std::net::Ipv4Addr::from([a, b, c, d]).to_string()),
            _ => {
                let all: [u8; 16] = cell.try_into().map_err(|_| wrong(p))?;
                quoted(std::net::Ipv6Addr::from(all).to_string())
            }
        },
        _ if *ty == Type::Bytes => hex(cell),
        // the column's own collation wins over that of a literal
        _ => format!("_{charset} {}", hex(cell)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(ty: u8, a: u8, b: u8) -> Physical {
        Physical { ty, meta: [a, b], nullable: false }
    }
    fn made(v: Value, p: &Physical, t: Type) -> Vec<u8> {
        let mut out = vec![];
        put(&v, p, &t, "", &mut out).unwrap();
        out
    }
    #[test]
    fn in_the_logs_form() {
        assert_eq!(made(Value::Int(-2), &p(ty::INT24, 0, 0), Type::I32), [0xfe, 0xff, 0xff]);
        assert_eq!(made(Value::UInt(u64::MAX), &p(ty::LONGLONG, 0, 0), Type::U64), [0xff; 8]);
        assert_eq!(made(Value::Int(0), &p(ty::YEAR, 0, 0), Type::Year), [0]);
        assert_eq!(made(Value::Int(2155), &p(ty::YEAR, 0, 0), Type::Year), [255]);
        assert_eq!(made(Value::Bytes(b"0.10".to_vec()), &p(ty::NEWDECIMAL, 4, 2), Type::F64), [0x80, 0x0a]);
        assert_eq!(
            made(Value::Date(0, 0, 0, 0, 0, 0, 0), &p(ty::TIMESTAMP2, 0, 0), Type::TimestampTz(0)),
            [0, 0, 0, 0]
        );
        let mut out = vec![];
        assert!(put(&Value::Int(1), &p(ty::VARCHAR, 1, 0), &Type::Text, "", &mut out).is_err());
    }
    #[test]
    fn keys_as_sql() {
        let sql = |cell: &[u8], p: Physical, t: Type| literal(cell, &p, "latin1", &t, "").unwrap();
        assert_eq!(sql(&[0xff; 8], p(ty::LONGLONG, 0, 0), Type::U64), "18446744073709551615");
        assert_eq!(sql(&[0xff; 8], p(ty::LONGLONG, 0, 0), Type::I64), "-1");
        assert_eq!(sql(&[0xff], p(ty::TINY, 0, 0), Type::I16), "-1");
        assert_eq!(sql(b"a'", p(ty::VARCHAR, 9, 0), Type::Text), "_latin1 X'6127'");
        assert_eq!(sql(b"\0", p(ty::VARCHAR, 9, 0), Type::Bytes), "X'00'");
        assert_eq!(sql(&[0x80, 0x0a], p(ty::NEWDECIMAL, 4, 2), Type::F64), "0.10");
        assert_eq!(sql(&[0, 0, 0, 1], p(ty::TIMESTAMP2, 0, 0), Type::TimestampTz(0)), "'1970-01-01 00:00:01'");
    }
    proptest! {
        #[test]
        fn nothing_panics(key in proptest::collection::vec(any::<u8>(), 0..40), t in any::<u8>(), a in any::<u8>(), b in any::<u8>()) {
            let seen = (split_key(&key).is_ok(), literal(&key, &p(t, a % 7, b), "utf8mb4", &Type::Text, "").is_ok());
            std::hint::black_box(seen);
        }
    }
}

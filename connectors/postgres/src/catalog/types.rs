//! Which logical type and which decoder a column gets.
//!
//! Built-in scalars are known by their fixed OIDs and cost no catalog read. Everything else is looked up once a schema:
//! domains are followed to their base type (with the domain's modifier), arrays to their element, enums to their labels;
//! types of extensions are recognised by their input function (`hstore_in`), because name and schema of a type are free.
//! What is not known is passed through as the text the server prints ([`Type::Other`]): nothing is dropped.
//!
//! Enum labels inform encoders that have enums; a label added later still passes, since a value is its text.

use super::Prepared;
use crate::{
    decode::{self, MoneyFormat, datetime, nested},
    errors,
};
use seachange_sdk::{DecodeFn, Decoder, Param, Result, Type};
use std::{collections::HashMap, sync::Arc};
use tokio_postgres::Client;

/// What the catalog says of a type that is not a built-in scalar.
#[derive(Clone, Debug)]
struct Entry {
    /// `pg_type.typtype`: b base, c composite, d domain, e enum, p pseudo, r range, m multirange.
    kind: u8,
    /// Base type of a domain, and the modifier the domain gives it.
    base: (u32, i32),
    element: u32,
    delimiter: u8,
    /// Name of the input function.
    input: String,
    labels: Option<Arc<[Arc<str>]>>,
}

/// Types, and the types that they are made of.
const TREE: &str = "WITH RECURSIVE tree AS (
       SELECT u.oid FROM unnest($1::oid[]) AS u(oid)
       UNION
       SELECT x.oid FROM tree JOIN pg_catalog.pg_type t ON t.oid = tree.oid,
         LATERAL (VALUES (t.typelem), (t.typbasetype)) AS x(oid) WHERE x.oid <> 0
     )
     SELECT t.oid, t.typtype::text, t.typbasetype, t.typtypmod, t.typelem,
       COALESCE(e.typdelim, t.typdelim)::text, p.proname::text,
       (SELECT array_agg(l.enumlabel::text ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum l
          WHERE l.enumtypid = t.oid)
     FROM tree JOIN pg_catalog.pg_type t ON t.oid = tree.oid
       JOIN pg_catalog.pg_proc p ON p.oid = t.typinput
       LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem";

/// The types of one relation.
#[derive(Debug, Default)]
pub struct Types {
    entries: HashMap<u32, Entry>,
    money: Option<MoneyFormat>,
}

/// More levels of arrays, domains and composites than anybody has; a bound for a damaged catalog.
const DEPTH: usize = 64;

impl Types {
    /// Reads what is needed to resolve these types: nothing, when all are built-in scalars.
    pub async fn load(
        client: &Client,
        prepared: &mut Prepared,
        oids: &[u32],
        money: Option<MoneyFormat>,
    ) -> Result<Types> {
        let mut unknown: Vec<u32> = oids.iter().copied().filter(|o| builtin(*o, -1, None).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let mut types = Types { entries: HashMap::new(), money };
        if unknown.is_empty() {
            return Ok(types);
        }
        let statement = Prepared::statement(&mut prepared.types, client, TREE).await?;
        let rows =
            client.query(statement, &[&unknown]).await.map_err(|e| errors::sql("reading types from the catalog", e))?;
        let letter = |s: &str| s.bytes().next().unwrap_or(b'?');
        for r in rows {
            let labels: Option<Vec<String>> = r.get(7);
            types.entries.insert(
                r.get(0),
                Entry {
                    kind: letter(r.get(1)),
                    base: (r.get(2), r.get(3)),
                    element: r.get(4),
                    delimiter: letter(r.get(5)),
                    input: r.get(6),
                    labels: labels.map(|l| l.into_iter().map(Arc::from).collect()),
                },
            );
        }
        Ok(types)
    }

    /// Logical type and decoder of a column of this type and modifier.
    pub fn resolve(&self, oid: u32, typmod: i32) -> (Type, Decoder) {
        self.resolve_within(oid, typmod, DEPTH)
    }

    fn resolve_within(&self, oid: u32, typmod: i32, depth: usize) -> (Type, Decoder) {
        if let Some(found) = builtin(oid, typmod, self.money) {
            return found;
        }
        let other = || (Type::Other, Decoder::plain(decode::text));
        // A type that the catalog no longer has (dropped since) still printed text.
        let (Some(entry), Some(depth)) = (self.entries.get(&oid), depth.checked_sub(1)) else { return other() };
        let plain = |ty, f: DecodeFn| (ty, Decoder::plain(f));
        match (entry.kind, entry.input.as_str()) {
            (b'd', _) => self.resolve_within(entry.base.0, entry.base.1, depth),
            (b'e', _) => {
                let labels = entry.labels.clone().unwrap_or_else(|| Arc::from([]));
                let param = Param { labels: Some(labels.clone()), ..Param::default() };
                (Type::Enum(labels), Decoder { decode: decode::text, param })
            }
            (_, "array_in") => {
                let (ty, element) = self.resolve_within(entry.element, typmod, depth);
                let param = Param { element: Some(Arc::new(element)), delimiter: entry.delimiter, ..Param::default() };
                (Type::Array(Box::new(ty)), Decoder { decode: nested::array, param })
            }
            (_, "hstore_in") => plain(Type::Map, nested::hstore),
            (_, "citextin") => plain(Type::Text, decode::text),
            (_, "ltree_in") => plain(Type::Ltree, decode::text),
            (b'r' | b'm', _) => plain(Type::Text, decode::text),
            _ => other(),
        }
    }
}

/// Digits of fraction that a time's modifier allows.
fn fraction(typmod: i32) -> u8 {
    u8::try_from(typmod).ok().filter(|p| *p <= 6).unwrap_or(6)
}

/// `numeric(precision, scale)` out of its modifier. The scale has 11 bits with a sign (from 15 on it may be negative; the
/// older servers' scales, 0 to 1000, read the same).
pub fn numeric_modifier(typmod: i32) -> Option<(u32, i32)> {
    let packed = typmod.checked_sub(4).filter(|t| *t >= 0)?;
    let precision = u32::try_from(packed >> 16 & 0xffff).ok()?;
    Some((precision, ((packed & 0x7ff) ^ 0x400) - 0x400))
}

/// Built-in scalars, by OID.
fn builtin(oid: u32, typmod: i32, money: Option<MoneyFormat>) -> Option<(Type, Decoder)> {
    let plain = |ty, f: DecodeFn| Some((ty, Decoder::plain(f)));
    match oid {
        16 => plain(Type::Bool, decode::boolean),
        17 => plain(Type::Bytes, decode::bytea),
        18 => plain(Type::Text, decode::single_char),
        // name, text, bpchar, varchar
        19 | 25 | 1042 | 1043 => plain(Type::Text, decode::text),
        20 => plain(Type::I64, decode::int8),
        21 => plain(Type::I16, decode::int2),
        23 => plain(Type::I32, decode::int4),
        26 => plain(Type::I64, decode::oid),
        114 | 3802 => plain(Type::Json, decode::text),
        142 => plain(Type::Xml, decode::text),
        600 => plain(Type::Point, decode::point),
        // cidr, macaddr8, macaddr, inet
        650 | 774 | 829 | 869 => plain(Type::Text, decode::text),
        700 => plain(Type::F32, decode::float4),
        701 => plain(Type::F64, decode::float8),
        790 => {
            let scale = money.map_or(2, |m| u32::from(m.scale));
            Some((Type::Money(scale), Decoder { decode: decode::money, param: MoneyFormat::param(money) }))
        }
        1082 => plain(Type::Date, datetime::date),
        1083 => plain(Type::Time(fraction(typmod)), datetime::time),
        1114 => plain(Type::Timestamp(fraction(typmod)), datetime::timestamp),
        1184 => plain(Type::TimestampTz(fraction(typmod)), datetime::timestamptz),
        1186 => plain(Type::Interval, datetime::interval),
        1266 => plain(Type::TimeTz, datetime::timetz),
        1560 if typmod == 1 => plain(Type::Bit1, decode::bit1),
        // bit, varbit
        1560 | 1562 => plain(Type::Bits(u32::try_from(typmod).ok().filter(|n| *n > 0)), decode::bits),
        1700 => match numeric_modifier(typmod) {
            Some((precision, scale)) => plain(Type::Decimal { precision, scale }, decode::numeric),
            None => plain(Type::VarDecimal, decode::numeric),
        },
        2950 => plain(Type::Uuid, decode::text),
        // int4range, numrange, tsrange, tstzrange, daterange, int8range and their multiranges
        3904 | 3906 | 3908 | 3910 | 3912 | 3926 | 4451 | 4532..=4536 => plain(Type::Text, decode::text),
        // regproc, tid, xid, cid, pg_lsn, tsvector, tsquery, xid8
        24 | 27 | 28 | 29 | 3220 | 3614 | 3615 | 5069 => plain(Type::Other, decode::text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, input: &str) -> Entry {
        Entry { kind, base: (0, -1), element: 0, delimiter: b',', input: input.into(), labels: None }
    }

    #[test]
    fn modifiers() {
        let packed = |p: i32, s: i32| (p << 16 | s & 0x7ff) + 4;
        assert_eq!(numeric_modifier(packed(5, 2)), Some((5, 2)));
        assert_eq!(numeric_modifier(packed(38, 0)), Some((38, 0)));
        assert_eq!(numeric_modifier(packed(2, -3)), Some((2, -3)));
        assert_eq!(numeric_modifier(packed(1000, -1000)), Some((1000, -1000)));
        assert_eq!(numeric_modifier(packed(1000, 1000)), Some((1000, 1000)));
        assert_eq!(numeric_modifier(-1), None);
        let t = Types::default();
        assert_eq!(t.resolve(1083, 3).0, Type::Time(3));
        assert_eq!(t.resolve(1114, -1).0, Type::Timestamp(6));
        assert_eq!(t.resolve(1560, 1).0, Type::Bit1);
        assert_eq!(t.resolve(1560, 8).0, Type::Bits(Some(8)));
        assert_eq!(t.resolve(1562, -1).0, Type::Bits(None));
        assert_eq!(t.resolve(99_999, -1).0, Type::Other, "a type that is gone");
    }

    #[test]
    fn domains_arrays_and_enums_are_followed() {
        let mut t = Types::default();
        t.entries.insert(1, Entry { base: (1700, (10 << 16 | 2) + 4), ..entry(b'd', "domain_in") });
        t.entries.insert(2, Entry { element: 1, ..entry(b'b', "array_in") });
        t.entries.insert(3, Entry { labels: Some(["a".into()].into()), ..entry(b'e', "enum_in") });
        t.entries.insert(4, Entry { base: (2, -1), ..entry(b'd', "domain_in") });
        t.entries.insert(5, Entry { base: (5, -1), ..entry(b'd', "domain_in") });
        let decimal = Type::Decimal { precision: 10, scale: 2 };
        assert_eq!(t.resolve(1, -1).0, decimal);
        assert_eq!(t.resolve(4, -1).0, Type::Array(Box::new(decimal)));
        let (ty, decoder) = t.resolve(3, -1);
        assert_eq!(ty, Type::Enum(["a".into()].into()));
        assert!(decoder.value(b"a label added later").is_ok());
        assert_eq!(t.resolve(5, -1).0, Type::Other, "a damaged catalog ends too");
    }
}

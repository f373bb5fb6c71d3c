//! Keys as bytes and as SQL: the encoding that [`seachange_sdk::Chunk::last`] carries, and conditions over it.
//!
//! A key is the text of its columns, in key order, with a version before. It may have fewer columns than the table's key:
//! such a prefix is a boundary that [`split`](super) chose. `(a, b) > (x)` compares only `a`, so a range that ends at a
//! prefix holds all rows with that `a` and the range after it none: ranges stay disjoint and cover everything.
//!
//! A value goes back to the server as a literal of the column's own type, never as a comparison of texts. Comparison
//! operators are found by name, so the `search_path` of the reading transaction is `pg_catalog` and the schemas of key
//! types that bring operators of their own (`citext`): otherwise an operator of a type they convert to would be taken,
//! which need not agree with the type's own order.

use crate::{
    catalog::RelationInfo,
    errors,
    sql::{ident, literal},
};
use bytes::Bytes;
use seachange_sdk::{Cell, Error, Kind, Range, Result, Retry, Side, TableSchema};
use std::fmt::Write as _;
use tokio_postgres::Client;

const KEY_V1: u8 = 1;

/// Encodes the texts of key columns.
pub fn encode<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<Bytes> {
    let size = |n: usize| u32::try_from(n).map_err(|_| Error::bug("a key value is longer than any row"));
    let mut out = vec![KEY_V1];
    out.extend_from_slice(&size(values.len())?.to_be_bytes());
    for v in values {
        out.extend_from_slice(&size(v.len())?.to_be_bytes());
        out.extend_from_slice(v);
    }
    Ok(Bytes::from(out))
}

/// Encodes the key of a row.
pub fn of_row(schema: &TableSchema, cells: &[Cell], chunk: &[u8]) -> Result<Bytes> {
    let mut values = Vec::with_capacity(schema.key.len());
    for i in &schema.key {
        let bytes = cells.get(*i as usize).and_then(|c| c.bytes(chunk));
        values.push(bytes.ok_or_else(|| Error::bug("a key column has no value").at(&schema.id))?);
    }
    encode(values.into_iter())
}

/// Reads a key back.
pub fn decode(key: &[u8]) -> Result<Vec<&str>> {
    let read = || {
        let (version, mut rest) = key.split_first()?;
        let mut number = || {
            let (n, tail) = rest.split_first_chunk::<4>()?;
            rest = tail;
            usize::try_from(u32::from_be_bytes(*n)).ok()
        };
        if *version != KEY_V1 {
            return None;
        }
        let count = number()?;
        let mut out = Vec::new();
        for _ in 0..count {
            let (n, tail) = rest.split_first_chunk::<4>()?;
            let n = usize::try_from(u32::from_be_bytes(*n)).ok()?;
            out.push(std::str::from_utf8(tail.get(..n)?).ok()?);
            rest = tail.get(n..)?;
        }
        (rest.is_empty() && !out.is_empty()).then_some(out)
    };
    read().ok_or_else(|| {
        Error::new(
            Kind::State,
            Side::Own,
            Retry::Never,
            format!("a stored key of a snapshot cannot be read ({} bytes)", key.len()),
        )
        .fix("run the version of Seachange that wrote it, or have the table's snapshot taken again")
    })
}

/// For a person: `('x', 3)`.
pub fn describe(key: &[u8]) -> String {
    match decode(key) {
        Ok(values) => format!("({})", values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ")),
        Err(_) => format!("(unreadable key of {} bytes)", key.len()),
    }
}

/// A table's key in SQL.
#[derive(Clone, Debug)]
pub struct KeySql {
    /// Quoted names, in key order.
    columns: Vec<String>,
    /// Qualified base types, to cast literals to.
    types: Vec<String>,
    /// The `search_path` under which comparisons mean the types' own.
    pub search_path: String,
}

/// The path when no key type brings operators of its own.
pub const PLAIN_PATH: &str = "pg_catalog";

impl KeySql {
    /// Looks the key's types up.
    pub async fn load(client: &Client, schema: &TableSchema, relation: &RelationInfo) -> Result<KeySql> {
        let mut names = Vec::with_capacity(schema.key.len());
        let mut oids: Vec<u32> = Vec::with_capacity(schema.key.len());
        for i in &schema.key {
            let name = schema.columns.get(*i as usize).map(|c| &*c.name).unwrap_or_default();
            let column = relation.columns.iter().find(|c| c.name == name);
            oids.push(column.ok_or_else(|| Error::bug("a key column is not in its relation").at(&schema.id))?.type_oid);
            names.push(ident(name));
        }
        let rows = client
            .query(
                "WITH RECURSIVE base AS (
                   SELECT u.place, u.oid FROM unnest($1::oid[]) WITH ORDINALITY AS u(oid, place)
                   UNION ALL
                   SELECT b.place, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
                     WHERE t.typtype = 'd'
                 )
                 SELECT n.nspname::text, t.typname::text, t.typtype = 'b'
                 FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
                   JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                 WHERE t.typtype <> 'd' ORDER BY b.place",
                &[&oids],
            )
            .await
            .map_err(|e| errors::sql("reading the types of the key", e).at(&schema.id))?;
        if rows.len() != names.len() {
            return Err(Error::source(Kind::Schema, "the type of a key column is not in the catalog").at(&schema.id));
        }
        let mut path = vec![PLAIN_PATH.to_owned()];
        let mut types = Vec::with_capacity(rows.len());
        for r in &rows {
            let (namespace, name, brings_operators): (&str, &str, bool) = (r.get(0), r.get(1), r.get(2));
            types.push(format!("{}.{}", ident(namespace), ident(name)));
            let quoted = ident(namespace);
            if brings_operators && namespace != "pg_catalog" && !path.contains(&quoted) {
                path.push(quoted);
            }
        }
        Ok(KeySql { columns: names, types, search_path: path.join(", ") })
    }

    /// How many columns the key has.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The first column, quoted, and its base type.
    pub fn first(&self) -> Option<(&str, &str)> {
        Some((self.columns.first()?, self.types.first()?))
    }

    /// `"b", "a"`: what to sort by.
    pub fn order(&self) -> String {
        self.columns.join(", ")
    }

    fn row(&self, key: &[u8]) -> Result<(usize, String)> {
        let values = decode(key)?;
        if values.len() > self.columns.len() {
            return Err(Error::new(
                Kind::Schema,
                Side::Source,
                Retry::Operator,
                "the table's key has changed while its snapshot was taken",
            )
            .fix("have the table's snapshot taken again"));
        }
        let mut out = String::from("(");
        for (i, (value, ty)) in values.iter().zip(&self.types).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(out, "{comma}{}::{ty}", literal(value)).map_err(|_| Error::bug("text cannot be written"))?;
        }
        out.push(')');
        Ok((values.len(), out))
    }

    fn compare(&self, operator: &str, key: &[u8]) -> Result<String> {
        let (n, row) = self.row(key)?;
        let columns = self.columns.get(..n).unwrap_or_default().join(", ");
        Ok(format!("({columns}) {operator} {row}"))
    }

    /// The conditions of a range.
    pub fn range(&self, range: &Range, conditions: &mut Vec<String>) -> Result<()> {
        if let Some(after) = &range.after {
            conditions.push(self.compare(">", after)?);
        }
        if let Some(upto) = &range.upto {
            conditions.push(self.compare("<=", upto)?);
        }
        Ok(())
    }

    /// The condition that a row has one of these keys.
    pub fn one_of(&self, keys: &[Bytes]) -> Result<String> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let (n, row) = self.row(key)?;
            if n != self.columns.len() {
                return Err(Error::bug("a row was asked for by a part of its key"));
            }
            rows.push(row);
        }
        Ok(format!("({}) IN ({})", self.columns.join(", "), rows.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sql() -> KeySql {
        KeySql {
            columns: vec![ident("b"), ident("A\"")],
            types: vec!["\"pg_catalog\".\"text\"".into(), "\"pg_catalog\".\"int4\"".into()],
            search_path: PLAIN_PATH.into(),
        }
    }
    fn key(values: &[&str]) -> Bytes {
        encode(values.iter().map(|v| v.as_bytes())).unwrap()
    }

    #[test]
    fn conditions() {
        let mut out = Vec::new();
        let range = Range { after: Some(key(&["it's", "3"])), upto: Some(key(&["z\\"])) };
        sql().range(&range, &mut out).unwrap();
        assert_eq!(out[0], r#"("b", "A""") > ('it''s'::"pg_catalog"."text", '3'::"pg_catalog"."int4")"#);
        assert_eq!(out[1], r#"("b") <= ( E'z\\'::"pg_catalog"."text")"#);
        assert!(sql().one_of(&[key(&["x"])]).is_err(), "a prefix names no row");
        assert_eq!(
            sql().one_of(&[key(&["x", "1"])]).unwrap(),
            r#"("b", "A""") IN (('x'::"pg_catalog"."text", '1'::"pg_catalog"."int4"))"#
        );
        let e = sql().compare(">", &key(&["a", "b", "c"])).unwrap_err();
        assert_eq!(e.kind(), Kind::Schema);
    }

    proptest! {
        #[test]
        fn keys_round_trip(values in proptest::collection::vec("\\PC*", 1..4)) {
            let texts: Vec<&str> = values.iter().map(String::as_str).collect();
            let encoded = key(&texts);
            prop_assert_eq!(decode(&encoded).unwrap(), texts);
        }
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _: Result<_> = decode(&bytes);
            let _shown = describe(&bytes);
        }
        #[test]
        fn cut_keys_are_refused(values in proptest::collection::vec("[a-z]{0,5}", 1..4), cut in 0usize..30) {
            let texts: Vec<&str> = values.iter().map(String::as_str).collect();
            let whole = key(&texts);
            if cut < whole.len() {
                prop_assert!(decode(&whole[..cut]).is_err());
            }
        }
    }
}

//! From what the log (and, where it must, the catalog) says of a table to a schema and a way to walk its rows.
//!
//! With `binlog_row_metadata = FULL` a TABLE_MAP says everything. With less, names, labels and keys come from the catalog,
//! and every column of it is held against the log: number, type, length, precision, sign. What does not agree is an error
//! that names the column; nothing is guessed.

use crate::{
    charset::{Charset, Collations},
    decode,
    flavor::Flavor,
    rows::Layout,
    table_map::{Physical, TableMap, ty},
};
use seachange_sdk::{
    Column, DecodeFn, Decoder, Error, Kind, Param, Result, Retry, Selection, Side, SourceLayout, TableId, TableKind,
    TableSchema, Type,
};
use std::sync::Arc;

/// A column as the catalog describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogColumn {
    /// Name.
    pub name: String,
    /// `DATA_TYPE`, lower case: `varchar`.
    pub data_type: String,
    /// `COLUMN_TYPE`: `int unsigned`, `enum('a','b')`.
    pub column_type: String,
    /// Character set, for text.
    pub charset: Option<Charset>,
    /// Longest value in bytes, for text and bytes.
    pub octets: u64,
    /// Precision and scale of a decimal.
    pub decimal: (u8, u8),
    /// Digits of a second's fraction.
    pub digits: u8,
    /// May it be NULL?
    pub nullable: bool,
    /// MariaDB: a text that is checked to be JSON.
    pub json: bool,
    /// `EXTRA`: `auto_increment`, `STORED GENERATED`.
    pub extra: String,
}

/// A table as the catalog describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogTable {
    /// Columns, in order, as many as a row image has.
    pub columns: Vec<CatalogColumn>,
    /// Primary key: indexes into `columns`, in key order.
    pub key: Vec<usize>,
}

/// A table that rows can be read for.
#[derive(Debug)]
pub struct Bound {
    /// Its schema.
    pub schema: Arc<TableSchema>,
    /// How its rows are walked.
    pub layout: Layout,
    /// For every captured column, how it stands in the log.
    pub physical: Vec<Physical>,
    /// Captured columns whose labels the catalog may have garbled, and their character sets.
    doubtful: Vec<(u32, Charset)>,
}

impl Bound {
    /// For rows that are asked for: labels that are in doubt are asked for as text. Not those of a key, which has to sort as
    /// its index does.
    pub fn labels_as_text(mut self) -> Result<Bound> {
        let schema = Arc::get_mut(&mut self.schema).ok_or_else(|| Error::bug("a schema that is shared already"))?;
        for (i, charset) in self.doubtful.iter().filter(|d| !schema.key.contains(&d.0)) {
            let place = *i as usize;
            if let (Some(c), Some(p)) = (schema.columns.get_mut(place), self.physical.get_mut(place)) {
                c.decode = Decoder { decode: decode::text, param: Param { n: charset.number(), ..Param::default() } };
                p.ty = ty::VARCHAR;
            }
        }
        Ok(self)
    }
}

/// What binding needs besides the table.
pub struct Binder<'a> {
    /// The server's collations.
    pub collations: &'a Collations,
    /// What is captured.
    pub selection: &'a Selection,
    /// The `source` block.
    pub layout: &'a Arc<SourceLayout>,
}

#[cold]
fn disagree(map: &TableMap, what: String) -> Error {
    Error::new(Kind::Schema, Side::Source, Retry::Operator, format!("table {}.{}: {what}", map.database, map.table)).fix(
        "the log was written under columns that the catalog no longer has: SET GLOBAL binlog_row_metadata = 'FULL' puts them \
         into the log from then on; for what is already in the log, reset the pipeline's state so that it takes a new snapshot",
    )
}

/// MariaDB before 10.1 had a form of its own for fractions of a second, of which the log does not tell the length.
#[cold]
fn old_fraction(map: &TableMap, column: &str) -> Error {
    let table = format!("{}.{}", crate::sql::ident(&map.database), crate::sql::ident(&map.table));
    let what = format!(
        "table {}.{}: column {column} holds fractions of a second in the form of MariaDB 5.3, whose rows cannot be told apart",
        map.database, map.table
    );
    Error::new(Kind::Schema, Side::Source, Retry::Operator, what).fix(format!(
        "SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE {table} FORCE; what the log has of it until then can only be had \
         by a new snapshot"
    ))
}

/// Everything known of one column.
struct Facts<'a> {
    physical: Physical,
    catalog: Option<&'a CatalogColumn>,
    unsigned: bool,
    charset: Option<Charset>,
    labels: Arc<[Arc<str>]>,
    /// The labels may not be those that the table has.
    doubtful: bool,
    point: bool,
}

impl Binder<'_> {
    /// Binds a TABLE_MAP, with the catalog's description where the log does not say enough (or for what no log says: that
    /// a text of MariaDB is JSON, that sixteen bytes are a UUID).
    pub fn bind(&self, map: &TableMap, catalog: Option<&CatalogTable>, version: u64) -> Result<Bound> {
        let o = &map.optional;
        let count = map.columns.len();
        let told = o.names.is_some();
        let described = catalog;
        let catalog = match catalog {
            Some(c) if c.columns.len() == count => {
                let wrong = c.columns.iter().zip(&map.columns).find(|(c, p)| !fits(c, p));
                match wrong {
                    None => Some(c),
                    Some(_) if told => None,
                    Some((c, p)) => {
                        return Err(disagree(
                            map,
                            format!(
                                "column {} is {} in the catalog and of type {} in the log",
                                c.name, c.column_type, p.ty
                            ),
                        ));
                    }
                }
            }
            Some(c) if !told => {
                return Err(disagree(
                    map,
                    format!("{} columns in the catalog and {count} in the log", c.columns.len()),
                ));
            }
            _ => None,
        };
        let names: Vec<&str> = match (&o.names, catalog) {
            (Some(names), _) => names.iter().map(String::as_str).collect(),
            (None, Some(c)) => c.columns.iter().map(|c| c.name.as_str()).collect(),
            (None, None) => {
                return Err(disagree(map, "the log does not name its columns and the catalog does not have it".into()));
            }
        };
        // The catalog's hints count only for a column of the same name.
        let hint = |i: usize| catalog.and_then(|c| c.columns.get(i)).filter(|c| names.get(i) == Some(&c.name.as_str()));
        let mut columns = Vec::with_capacity(count);
        let mut physical = Vec::with_capacity(count);
        let mut place = vec![None; count];
        let mut doubtful = Vec::new();
        for (i, (p, name)) in map.columns.iter().zip(&names).enumerate() {
            if !self.selection.column(&map.database, &map.table, name) || self.is_made(*p, name, described) {
                continue;
            }
            if matches!(p.ty, ty::TIME | ty::DATETIME | ty::TIMESTAMP)
                && described.is_some_and(|d| d.columns.iter().any(|c| c.name == *name && c.digits > 0))
            {
                return Err(old_fraction(map, name));
            }
            let facts = self.facts(map, i, *p, hint(i)).map_err(|e| e.at(format_args!("column {name}")))?;
            let (ty, type_name, decode) = resolve(&facts)?;
            if let Some(charset) = facts.charset.filter(|_| facts.doubtful) {
                doubtful.push((columns.len() as u32, charset));
            }
            if let Some(slot) = place.get_mut(i) {
                *slot = Some(columns.len() as u32);
            }
            columns.push(Column {
                name: (*name).into(),
                ty,
                type_name: facts.catalog.map_or(type_name, |c| c.column_type.clone()).into(),
                // A date of no calendar is no NULL, and yet may be written as null.
                nullable: p.nullable || p.is_date(),
                decode,
            });
            physical.push(*p);
        }
        // FULL leaves the key out when there is none.
        let key: Vec<usize> = match (&o.key, told, catalog) {
            (Some(key), ..) => key.iter().map(|k| k.0).collect(),
            (None, true, _) => Vec::new(),
            (None, false, Some(c)) => c.key.clone(),
            (None, false, None) => Vec::new(),
        };
        let mut key_places = Vec::with_capacity(key.len());
        for i in key {
            match place.get(i) {
                Some(Some(p)) => key_places.push(*p),
                _ => {
                    return Err(Error::new(
                        Kind::Config,
                        Side::Own,
                        Retry::Operator,
                        format!(
                            "table {}.{}: a column of the primary key is left out by columns.exclude",
                            map.database, map.table
                        ),
                    )
                    .fix("let the key's columns in"));
                }
            }
        }
        let layout = Layout::new(&map.columns, |i| place.get(i).is_some_and(Option::is_some))?;
        let schema = TableSchema {
            id: TableId { database: map.database.as_str().into(), schema: "".into(), name: map.table.as_str().into() },
            kind: TableKind::Table,
            version,
            columns,
            key: key_places,
            layout: self.layout.clone(),
        };
        Ok(Bound { schema: Arc::new(schema), layout, physical, doubtful })
    }

    /// MariaDB keeps a unique index over long texts by a column of its own making, which is in its log and in no catalog. It
    /// may have the name of a column that somebody else made: then the catalog has it.
    fn is_made(&self, p: Physical, name: &str, described: Option<&CatalogTable>) -> bool {
        let number = name.strip_prefix("DB_ROW_HASH_").unwrap_or_default();
        self.layout.connector == Flavor::MariaDb.kind()
            && p.ty == ty::LONGLONG
            && !number.is_empty()
            && number.bytes().all(|c| c.is_ascii_digit())
            && !described.is_some_and(|d| d.columns.iter().any(|c| c.name == name))
    }

    /// Binds what the catalog describes, without the log: for a snapshot, and for a table of which the log has no rows.
    pub fn bind_catalog(&self, database: &str, table: &str, c: &CatalogTable, version: u64) -> Result<Bound> {
        let columns = c
            .columns
            .iter()
            .map(|c| c.physical().map_err(|e| e.at(format_args!("table {database}.{table}"))))
            .collect::<Result<_>>()?;
        let map = TableMap {
            id: 0,
            database: database.to_owned(),
            table: table.to_owned(),
            columns,
            optional: crate::table_map::Optional::default(),
        };
        self.bind(&map, Some(c), version)
    }

    fn facts<'a>(&self, map: &TableMap, i: usize, p: Physical, hint: Option<&'a CatalogColumn>) -> Result<Facts<'a>> {
        let o = &map.optional;
        let at = |v: &Option<Vec<u64>>| v.as_ref().and_then(|v| v.get(i)).copied();
        let unsigned = match (&o.unsigned, hint) {
            (Some(all), _) => all.get(i).copied().unwrap_or(false),
            (None, Some(c)) => c.unsigned(),
            (None, None) if p.is_numeric() => {
                return Err(disagree(map, "the log does not say whether it is unsigned".into()));
            }
            _ => false,
        };
        let collation = if p.is_choice() { at(&o.choice_collations) } else { at(&o.collations) };
        let charset = match (collation.filter(|c| *c != 0), hint) {
            (Some(id), _) => Some(self.collations.charset(id).ok_or_else(|| {
                disagree(map, format!("the server does not say which character set collation {id} has"))
            })?),
            (None, Some(c)) if p.is_character() || p.is_choice() => Some(c.charset.unwrap_or(Charset::BINARY)),
            _ => None,
        };
        let raw = match p.ty {
            ty::ENUM => o.enum_labels.as_ref().and_then(|l| l.get(i)),
            ty::SET => o.set_labels.as_ref().and_then(|l| l.get(i)),
            _ => None,
        };
        let labels: Arc<[Arc<str>]> = match (raw, hint) {
            (Some(raw), _) => {
                let set = charset.unwrap_or(Charset::UTF8MB4);
                let set = if set.is_binary() { Charset::UTF8MB4 } else { set };
                raw.iter().map(|l| Ok(Arc::from(&*set.decode(l)?))).collect::<Result<Vec<_>>>()?.into()
            }
            (None, Some(c)) if p.is_choice() => c.labels().into_iter().map(Arc::from).collect(),
            (None, None) if p.is_choice() => return Err(disagree(map, "the log does not name its labels".into())),
            _ => Arc::from([]),
        };
        // The catalog is written in UTF-8 of three bytes, and has a question mark for every character that needs four.
        let doubtful = raw.is_none()
            && charset.is_some_and(|c| ["utf8mb4", "utf16", "utf16le", "utf32", "gb18030"].contains(&c.name()))
            && labels.iter().any(|l| l.contains('?'));
        let point =
            p.ty == ty::GEOMETRY && (at(&o.geometry) == Some(1) || hint.is_some_and(|c| c.data_type == "point"));
        Ok(Facts { physical: p, catalog: hint, unsigned, charset, labels, doubtful, point })
    }
}

impl CatalogColumn {
    /// Is it unsigned?
    pub fn unsigned(&self) -> bool {
        // behind the labels of an ENUM nothing numeric stands
        !matches!(self.data_type.as_str(), "enum" | "set") && self.column_type.contains("unsigned")
            || self.data_type == "year"
    }
    /// The type's name in capitals, and the numbers that were declared with it: length or precision, scale.
    pub fn declared(&self) -> (String, Vec<u32>) {
        let mut name = self.data_type.to_uppercase();
        let labels = || self.labels().len() as u32;
        let numbers = match self.data_type.as_str() {
            "enum" => vec![1],
            // as long as all labels with their commas, each counted as one
            "set" => vec![(labels() * 2).saturating_sub(1)],
            _ => {
                let rest = self.column_type.get(self.data_type.len()..).unwrap_or("");
                let inside = rest.strip_prefix('(').and_then(|r| r.split_once(')')).map(|r| r.0);
                inside.map(|i| i.split(',').filter_map(|n| n.trim().parse().ok()).collect()).unwrap_or_default()
            }
        };
        if self.unsigned() && self.data_type != "year" {
            name.push_str(" UNSIGNED");
            if self.column_type.contains("zerofill") {
                name.push_str(" ZEROFILL");
            }
        }
        (name, numbers)
    }
    /// How it stands in a row image that the server writes today.
    pub fn physical(&self) -> Result<Physical> {
        let word = self.octets.min(u64::from(u16::MAX)) as u16;
        let labels = self.labels().len();
        let (ty, meta) = match self.data_type.as_str() {
            "tinyint" => (ty::TINY, [0, 0]),
            "smallint" => (ty::SHORT, [0, 0]),
            "mediumint" => (ty::INT24, [0, 0]),
            "int" => (ty::LONG, [0, 0]),
            "bigint" => (ty::LONGLONG, [0, 0]),
            "float" => (ty::FLOAT, [4, 0]),
            "double" => (ty::DOUBLE, [8, 0]),
            "decimal" => (ty::NEWDECIMAL, [self.decimal.0, self.decimal.1]),
            "bit" => (ty::BIT, [self.decimal.0 % 8, self.decimal.0 / 8]),
            "year" => (ty::YEAR, [0, 0]),
            "date" => (ty::DATE, [0, 0]),
            "time" => (ty::TIME2, [self.digits, 0]),
            "datetime" => (ty::DATETIME2, [self.digits, 0]),
            "timestamp" => (ty::TIMESTAMP2, [self.digits, 0]),
            "char" | "binary" => (ty::STRING, [(((word >> 4) & 0x30) as u8 ^ 0x30) | (ty::STRING & 0xcf), word as u8]),
            "uuid" | "inet6" => (ty::STRING, [ty::STRING, 16]),
            "inet4" => (ty::STRING, [ty::STRING, 4]),
            "varchar" | "varbinary" => (ty::VARCHAR, word.to_le_bytes()),
            "tinytext" | "tinyblob" => (ty::BLOB, [1, 0]),
            "text" | "blob" => (ty::BLOB, [2, 0]),
            "mediumtext" | "mediumblob" => (ty::BLOB, [3, 0]),
            "longtext" | "longblob" => (ty::BLOB, [4, 0]),
            "json" => (ty::JSON, [4, 0]),
            "enum" => (ty::ENUM, [ty::ENUM, if labels > 255 { 2 } else { 1 }]),
            "set" => (
                ty::SET,
                [
                    ty::SET,
                    match labels.div_ceil(8) {
                        n @ 0..=4 => n.max(1) as u8,
                        _ => 8,
                    },
                ],
            ),
            "vector" => (ty::VECTOR, [4, 0]),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geometrycollection" | "geomcollection" => (ty::GEOMETRY, [4, 0]),
            other => {
                return Err(Error::new(
                    Kind::Schema,
                    Side::Source,
                    Retry::Operator,
                    format!("column {} has the type {other}, which is not known", self.name),
                )
                .fix("leave the column out with columns.exclude"));
            }
        };
        Ok(Physical { ty, meta, nullable: self.nullable })
    }
    /// The labels of ENUM and SET: `enum('a','it''s')`.
    pub fn labels(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut chars = self.column_type.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '\'' {
                continue;
            }
            let mut label = String::new();
            loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => label.push('\''),
                    Some('\'') | None => break,
                    Some(c) => label.push(c),
                }
            }
            out.push(label);
        }
        out
    }
}

/// Can a column that the catalog describes so stand in the log so?
fn fits(c: &CatalogColumn, p: &Physical) -> bool {
    let [a, b] = p.meta;
    let fraction = |new: u8, old: u8| p.ty == new && a == c.digits || p.ty == old && c.digits == 0;
    let blob = matches!(p.ty, ty::BLOB | ty::BLOB_COMPRESSED);
    match c.data_type.as_str() {
        "tinyint" | "bool" | "boolean" => p.ty == ty::TINY,
        "smallint" => p.ty == ty::SHORT,
        "mediumint" => p.ty == ty::INT24,
        "int" | "integer" => p.ty == ty::LONG,
        "bigint" => p.ty == ty::LONGLONG,
        "float" => p.ty == ty::FLOAT,
        "double" | "real" => p.ty == ty::DOUBLE,
        "decimal" | "numeric" => p.ty == ty::NEWDECIMAL && (a, b) == c.decimal,
        "bit" => p.ty == ty::BIT && u32::from(a) + 8 * u32::from(b) == u32::from(c.decimal.0),
        "year" => p.ty == ty::YEAR,
        "date" => matches!(p.ty, ty::DATE | ty::NEWDATE),
        "time" => fraction(ty::TIME2, ty::TIME),
        "datetime" => fraction(ty::DATETIME2, ty::DATETIME),
        "timestamp" => fraction(ty::TIMESTAMP2, ty::TIMESTAMP),
        "char" | "binary" => p.ty == ty::STRING && u64::from(p.string_length()) == c.octets,
        "varchar" | "varbinary" => {
            matches!(p.ty, ty::VARCHAR | ty::VAR_STRING) && u64::from(p.length()) == c.octets
                // the attribute COMPRESSED adds a byte
                || p.ty == ty::VARCHAR_COMPRESSED
        }
        "tinytext" | "tinyblob" => blob && a == 1,
        "text" | "blob" => blob && a == 2,
        "mediumtext" | "mediumblob" => blob && a == 3,
        "longtext" | "longblob" => blob && a == 4,
        "json" => p.ty == ty::JSON || blob && a == 4,
        "enum" => p.ty == ty::ENUM,
        "set" => p.ty == ty::SET,
        "vector" => matches!(p.ty, ty::VECTOR | ty::VARCHAR | ty::BLOB),
        "uuid" | "inet6" => p.ty == ty::STRING && p.string_length() == 16,
        "inet4" => p.ty == ty::STRING && p.string_length() == 4,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => p.ty == ty::GEOMETRY,
        _ => false,
    }
}

/// Logical type, name of the type as far as the log knows it, decoder.
fn resolve(f: &Facts<'_>) -> Result<(Type, String, Decoder)> {
    let [a, b] = f.physical.meta;
    let with = |decode: DecodeFn, n: i32| Decoder { decode, param: Param { n, ..Param::default() } };
    let plain = Decoder::plain;
    let sign = if f.unsigned { " unsigned" } else { "" };
    let int = |name: &str| format!("{name}{sign}");
    let frac = |name: &str| if a == 0 { name.to_owned() } else { format!("{name}({a})") };
    let integer: DecodeFn = if f.unsigned { decode::unsigned } else { decode::signed };
    Ok(match f.physical.ty {
        ty::TINY => (Type::I16, int("tinyint"), plain(integer)),
        ty::SHORT => (if f.unsigned { Type::I32 } else { Type::I16 }, int("smallint"), plain(integer)),
        ty::INT24 => (Type::I32, int("mediumint"), plain(integer)),
        ty::LONG => (if f.unsigned { Type::I64 } else { Type::I32 }, int("int"), plain(integer)),
        ty::LONGLONG if f.unsigned => (Type::U64, int("bigint"), plain(decode::unsigned64)),
        ty::LONGLONG => (Type::I64, int("bigint"), plain(decode::signed)),
        ty::FLOAT => (Type::F32, "float".into(), plain(decode::float)),
        ty::DOUBLE => (Type::F64, "double".into(), plain(decode::double)),
        ty::NEWDECIMAL => (
            Type::Decimal { precision: a.into(), scale: b.into() },
            format!("decimal({a},{b}){sign}"),
            with(decode::decimal, i32::from(a) << 8 | i32::from(b)),
        ),
        ty::BIT => match u32::from(a) + 8 * u32::from(b) {
            1 => (Type::Bit1, "bit(1)".into(), plain(decode::bit1)),
            n => (Type::Bits(Some(n)), format!("bit({n})"), with(decode::bits, n as i32)),
        },
        ty::YEAR => (Type::Year, "year".into(), plain(decode::year)),
        ty::DATE | ty::NEWDATE => (Type::Date, "date".into(), plain(decode::date)),
        ty::TIME2 => (Type::Time(a), frac("time"), with(decode::time2, a.into())),
        ty::TIME => (Type::Time(0), "time".into(), plain(decode::time)),
        ty::DATETIME2 => (Type::Timestamp(a), frac("datetime"), with(decode::datetime2, a.into())),
        ty::DATETIME => (Type::Timestamp(0), "datetime".into(), plain(decode::datetime)),
        ty::TIMESTAMP2 => (Type::TimestampTz(a), frac("timestamp"), with(decode::timestamp2, a.into())),
        ty::TIMESTAMP => (Type::TimestampTz(0), "timestamp".into(), plain(decode::timestamp)),
        ty::ENUM => {
            let decode = if f.doubtful { decode::doubtful_choice } else { decode::choice };
            (Type::Enum(f.labels.clone()), choice_name("enum", &f.labels), labelled(decode, &f.labels))
        }
        ty::SET => {
            let decode = if f.doubtful { decode::doubtful_set } else { decode::set };
            (Type::Set(f.labels.clone()), choice_name("set", &f.labels), labelled(decode, &f.labels))
        }
        ty::JSON => (Type::Json, "json".into(), plain(decode::json)),
        ty::GEOMETRY => {
            (Type::Geometry(f.point), if f.point { "point" } else { "geometry" }.into(), plain(decode::geometry))
        }
        ty::VECTOR => (Type::Array(Box::new(Type::F32)), "vector".into(), plain(decode::vector)),
        _ => return resolve_text(f),
    })
}

fn labelled(decode: DecodeFn, labels: &Arc<[Arc<str>]>) -> Decoder {
    Decoder { decode, param: Param { labels: Some(labels.clone()), ..Param::default() } }
}
fn choice_name(name: &str, labels: &[Arc<str>]) -> String {
    let list: Vec<String> = labels.iter().map(|l| format!("'{}'", l.replace('\'', "''"))).collect();
    format!("{name}({})", list.join(","))
}

/// CHAR, VARCHAR, TEXT, and their binary kin.
fn resolve_text(f: &Facts<'_>) -> Result<(Type, String, Decoder)> {
    let p = &f.physical;
    let with = |decode: DecodeFn, n: i32| Decoder { decode, param: Param { n, ..Param::default() } };
    match f.catalog.map(|c| c.data_type.as_str()) {
        Some("uuid") => return Ok((Type::Uuid, "uuid".into(), Decoder::plain(decode::uuid))),
        Some("inet6") => return Ok((Type::Text, "inet6".into(), Decoder::plain(decode::inet6))),
        Some("inet4") => return Ok((Type::Text, "inet4".into(), Decoder::plain(decode::inet4))),
        Some("vector") => {
            return Ok((Type::Array(Box::new(Type::F32)), "vector".into(), Decoder::plain(decode::vector)));
        }
        _ => {}
    }
    let Some(charset) = f.charset else {
        return Err(Error::new(Kind::Schema, Side::Source, Retry::Operator, "the log does not say its character set")
            .fix("SET GLOBAL binlog_row_metadata = 'FULL'"));
    };
    let binary = charset.is_binary();
    let packed = matches!(p.ty, ty::BLOB_COMPRESSED | ty::VARCHAR_COMPRESSED);
    let bytes = if p.ty == ty::STRING { p.string_length() } else { p.length() };
    let name = match (p.ty, binary) {
        (ty::STRING, true) => format!("binary({bytes})"),
        (ty::STRING, false) => "char".into(),
        (ty::VARCHAR | ty::VAR_STRING | ty::VARCHAR_COMPRESSED, true) => format!("varbinary({bytes})"),
        (ty::VARCHAR | ty::VAR_STRING | ty::VARCHAR_COMPRESSED, false) => "varchar".into(),
        (_, binary) => {
            let size =
                ["tiny", "", "medium", "long"].get(usize::from(p.meta[0]).wrapping_sub(1)).copied().unwrap_or("");
            format!("{size}{}", if binary { "blob" } else { "text" })
        }
    };
    let decoder = match (binary, packed) {
        (true, true) => Decoder::plain(decode::packed_bytes),
        (true, false) if p.ty == ty::STRING => with(decode::binary, bytes as i32),
        (true, false) => Decoder::plain(decode::bytes),
        (false, true) => with(decode::packed_text, charset.number()),
        (false, false) if charset == Charset::UTF8MB4 => with(decode::utf8, charset.number()),
        (false, false) => with(decode::text, charset.number()),
    };
    let ty = match (binary, f.catalog.is_some_and(|c| c.json)) {
        (true, _) => Type::Bytes,
        (false, true) => Type::Json,
        (false, false) => Type::Text,
    };
    Ok((ty, name, decoder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_map::tests::map;
    use seachange_sdk::{Cell, Value};

    fn layout() -> Arc<SourceLayout> {
        Arc::new(SourceLayout { connector: "mysql", fields: vec![] })
    }
    fn bind(map: &TableMap, catalog: Option<&CatalogTable>, exclude: &[&str]) -> Result<Bound> {
        let exclude: Vec<String> = exclude.iter().map(|s| (*s).to_owned()).collect();
        let selection = Selection::parse("p", &["*.*".into()], &[], &exclude, &mut vec![]);
        Binder { collations: &Collations::default(), selection: &selection, layout: &layout() }.bind(map, catalog, 1)
    }
    fn column(name: &str, data_type: &str, column_type: &str) -> CatalogColumn {
        CatalogColumn {
            name: name.into(),
            data_type: data_type.into(),
            column_type: column_type.into(),
            ..CatalogColumn::default()
        }
    }
    fn full() -> TableMap {
        let columns: &[(u8, &[u8])] =
            &[(ty::LONGLONG, &[]), (ty::VARCHAR, &[44, 1]), (ty::STRING, &[ty::ENUM, 1]), (ty::STRING, &[0xfe, 4])];
        let optional: &[&[u8]] = &[
            &[1, 1, 0x80],
            &[3, 2, 45, 63],
            &[4, 8, 1, b'a', 1, b'b', 1, b'c', 1, b'd'],
            &[6, 5, 2, 1, b'x', 1, 0xe9],
            &[10, 1, 8],
            &[8, 1, 0],
        ];
        TableMap::parse(&map(columns, &[0b10], &optional.concat())).unwrap()
    }
    #[test]
    fn the_log_alone_is_enough_when_it_tells_all() {
        let b = bind(&full(), None, &[]).unwrap();
        let types: Vec<_> = b.schema.columns.iter().map(|c| (&*c.name, &*c.type_name, c.nullable)).collect();
        assert_eq!(
            types,
            [
                ("a", "bigint unsigned", false),
                ("b", "varchar", true),
                ("c", "enum('x','é')", false),
                ("d", "binary(4)", false)
            ]
        );
        assert_eq!((b.schema.key.as_slice(), b.schema.id.to_string().as_str()), (&[0u32][..], "db.t"));
        let data = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, b'h', 2, 1, 7];
        let mut cells = vec![];
        b.layout.image(&data, 0, 0, &[0xf], &mut cells).unwrap();
        let values: Vec<_> = b
            .schema
            .columns
            .iter()
            .zip(&cells)
            .map(|(c, cell)| c.decode.value(cell.bytes(&data).unwrap()).unwrap())
            .collect();
        assert_eq!(
            values,
            [
                Value::U64(u64::MAX),
                Value::Text("h".into()),
                Value::Text("é".into()),
                Value::Bytes(vec![7, 0, 0, 0].into())
            ]
        );
    }
    #[test]
    fn columns_left_out() {
        let b = bind(&full(), None, &["db.t.b"]).unwrap();
        assert_eq!((b.schema.columns.len(), b.layout.captured()), (3, 3));
        let mut cells = vec![];
        b.layout.image(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'h', 2, 1, 7], 0, 0, &[0xf], &mut cells).unwrap();
        assert_eq!(cells, [Cell::at(1, 8), Cell::at(12, 1), Cell::at(14, 1)]);
        assert_eq!(bind(&full(), None, &["db.t.a"]).unwrap_err().kind(), Kind::Config);
    }
    #[test]
    fn what_mariadb_makes_for_itself_is_left_out() {
        let columns: &[(u8, &[u8])] = &[(ty::LONG, &[]), (ty::LONGLONG, &[])];
        let names: &[u8] = b"\x04\x11\x02id\x0dDB_ROW_HASH_1";
        let m = TableMap::parse(&map(columns, &[0b10], &[&[1, 1, 0x40][..], names].concat())).unwrap();
        let names = |connector: &'static str, catalog: Option<&CatalogTable>| -> Vec<String> {
            let selection = Selection::parse("p", &["*.*".into()], &[], &[], &mut vec![]);
            let layout = Arc::new(SourceLayout { connector, fields: vec![] });
            let binder = Binder { collations: &Collations::default(), selection: &selection, layout: &layout };
            let bound = binder.bind(&m, catalog, 1).unwrap();
            bound.schema.columns.iter().map(|c| c.name.to_string()).collect()
        };
        assert_eq!(names("mariadb", None), ["id"]);
        let mut c = CatalogTable { columns: vec![column("id", "int", "int")], key: vec![] };
        assert_eq!(names("mariadb", Some(&c)), ["id"]);
        assert_eq!(names("mysql", Some(&c)), ["id", "DB_ROW_HASH_1"]);
        c.columns.push(column("DB_ROW_HASH_1", "bigint", "bigint"));
        assert_eq!(names("mariadb", Some(&c)), ["id", "DB_ROW_HASH_1"]);
    }
    #[test]
    fn fractions_of_which_the_log_does_not_tell() {
        let columns: &[(u8, &[u8])] = &[(ty::TIME, &[])];
        let m = TableMap::parse(&map(columns, &[0], &[&[4, 2, 1, b't'][..]].concat())).unwrap();
        let mut c = CatalogTable { columns: vec![column("t", "time", "time")], key: vec![] };
        assert!(bind(&m, Some(&c), &[]).is_ok());
        c.columns[0].digits = 3;
        let e = bind(&m, Some(&c), &[]).unwrap_err();
        assert!(e.kind() == Kind::Schema && e.remedy().unwrap().contains("ALTER TABLE `db`.`t` FORCE"), "{e:?}");
    }
    #[test]
    fn less_than_all_needs_a_catalog_that_agrees() {
        let columns: &[(u8, &[u8])] = &[(ty::LONGLONG, &[]), (ty::STRING, &[ty::SET, 1]), (ty::NEWDECIMAL, &[10, 2])];
        let m = TableMap::parse(&map(columns, &[0], &[])).unwrap();
        assert!(bind(&m, None, &[]).is_err());
        let mut c = CatalogTable {
            columns: vec![
                column("id", "bigint", "bigint unsigned"),
                column("s", "set", "set('a','it''s')"),
                CatalogColumn { decimal: (10, 2), ..column("d", "decimal", "decimal(10,2)") },
            ],
            key: vec![0],
        };
        let b = bind(&m, Some(&c), &[]).unwrap();
        assert_eq!(b.schema.columns[0].ty, Type::U64);
        assert_eq!(b.schema.columns[1].ty, Type::Set(["a".into(), "it's".into()].into()));
        c.columns[2].decimal = (11, 2);
        assert!(bind(&m, Some(&c), &[]).unwrap_err().to_string().contains("column d is decimal(10,2)"));
        c.columns.pop();
        assert_eq!(bind(&m, Some(&c), &[]).unwrap_err().kind(), Kind::Schema);
    }
    #[test]
    fn hints_of_a_catalog_that_has_moved_on_are_not_taken() {
        let mut m = full();
        m.optional.names = Some(vec!["a".into(), "b".into(), "c".into(), "d".into()]);
        let c = CatalogTable { columns: vec![column("a", "int", "int")], key: vec![] };
        assert!(bind(&m, Some(&c), &[]).is_ok());
    }
}

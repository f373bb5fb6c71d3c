//! Relations of the catalog as [`TableSchema`]s: one way for the stream and the snapshot.
//!
//! The stream says what a relation was when a change was written (names, type OIDs, modifiers, identity: the pgoutput
//! `Relation` message); the snapshot asks the catalog for the very same facts ([`describe_sql`]) and goes through the very
//! same [`Catalog::bind`], so that a table cannot look different on the two ways. That is also why generated columns are
//! read exactly when the publication carries them (never before 18), and why a column list is honoured.
//!
//! `bind` adds what the message lacks: nullability, the key in key order, type trees. It reads the catalog of *now*. When
//! that has moved on from the message (another type, a column that is gone), the message is right: every column outside
//! the key may then be NULL, and the key is what the message flags.
//!
//! The key is the primary key; without one the replica identity's index, else the first unique index (by name) that
//! covers only NOT NULL columns, has no predicate and is not deferrable: under those conditions it names one row.
//!
//! Versions of schemas are handed out by one counter for the whole process, and an unchanged table gets the schema it had:
//! stream and snapshot hold catalogs of their own, and a version must mean one thing to the plans compiled for it.

pub mod types;

use crate::{
    decode::{self, MONEY_SAMPLE, MoneyFormat},
    errors,
    sql::literal,
};
use seachange_sdk::{
    Column, Decoder, Error, Kind, Result, Retry, Selection, Side, SourceField, SourceLayout, SourceValue, TableId,
    TableKind, TableSchema, Type,
};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};
use types::Types;

/// What a pgoutput `Relation` message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationInfo {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
    /// Replica identity: `d`efault, `i`ndex, `f`ull, `n`othing.
    pub identity: u8,
    /// The published columns, in table order.
    pub columns: Vec<RelationColumn>,
}

/// One column of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: u32,
    /// Type modifier, -1 without one.
    pub typmod: i32,
    /// Is it part of the replica identity?
    pub in_identity: bool,
}

/// A relation bound to a schema.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The captured columns.
    pub schema: Arc<TableSchema>,
    /// For each column of the relation: is it captured?
    pub mask: Vec<bool>,
}

/// What the snapshot must know of a table beside its relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The relation, as the stream would announce it now.
    pub relation: RelationInfo,
    /// Is it partitioned? Such a table is read through its root, any other without its inheritance children.
    pub partitioned: bool,
    /// The publication's row filter, as SQL.
    pub filter: Option<String>,
}

/// What [`Catalog::bind`] asks, prepared on one session when it is first asked there: planning it takes the server milliseconds,
/// which thousands of tables that come one after the other would each wait for.
#[derive(Default)]
pub struct Prepared {
    facts: Option<Statement>,
    types: Option<Statement>,
}

impl Prepared {
    /// The statement in `slot`, made of `sql` where it is not there yet.
    async fn statement<'a>(slot: &'a mut Option<Statement>, client: &Client, sql: &str) -> Result<&'a Statement> {
        let made = match slot.take() {
            Some(made) => made,
            None => client.prepare(sql).await.map_err(|e| errors::sql("preparing to read the catalog", e))?,
        };
        Ok(slot.insert(made))
    }
}

/// Makes schemas out of relations.
#[derive(Debug)]
pub struct Catalog {
    selection: Selection,
    database: Arc<str>,
    layout: Arc<SourceLayout>,
    server_version: u32,
    money: Option<MoneyFormat>,
}

/// The index that is a table's key, for `$c.oid`; NOT NULL is asked of the columns, for a primary key has it anyway.
const KEY_INDEX: &str = "SELECT i.indexrelid, (i.indkey::int2[])[0:i.indnkeyatts - 1] AS columns, i.indisprimary
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
     WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND (i.indisprimary OR (i.indimmediate AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute ka
         WHERE ka.attrelid = c.oid AND ka.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT ka.attnotnull)))
     ORDER BY i.indisprimary DESC, i.indisreplident DESC, ic.relname LIMIT 1";

/// For [`Catalog::bind`]: what is true of the columns of a relation, `$1`: their names, types and modifiers.
static FACTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT pg_catalog.format_type(m.type, m.typmod),
           COALESCE(a.atttypid = m.type AND a.atttypmod = m.typmod, false),
           COALESCE(a.attnotnull, false),
           (SELECT k.place::int4 FROM unnest(key.columns) WITH ORDINALITY AS k(attnum, place)
              WHERE k.attnum = a.attnum),
           COALESCE(cardinality(key.columns), 0), COALESCE(key.indisprimary, false)
         FROM unnest($2::text[], $3::oid[], $4::int4[]) WITH ORDINALITY AS m(name, type, typmod, place)
           LEFT JOIN pg_catalog.pg_class c ON c.oid = $1
           LEFT JOIN LATERAL ({KEY_INDEX}) key ON true
           LEFT JOIN pg_catalog.pg_attribute a
             ON a.attrelid = c.oid AND a.attname = m.name AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY m.place"
    )
});

/// For [`crate::snapshot`]: has the table behind `c` an index that is its key?
pub(crate) fn has_key_sql() -> String {
    format!("EXISTS ({KEY_INDEX})")
}

impl Catalog {
    /// Reads what is the same for all tables: the server's version, how its locale prints money.
    pub async fn load(client: &Client, selection: &Selection, database: &str) -> Result<Catalog> {
        let row = client
            .query_one(
                &format!(
                    "SELECT pg_catalog.current_setting('server_version_num'),
                       {MONEY_SAMPLE}::pg_catalog.numeric::pg_catalog.money::pg_catalog.text,
                       (-{MONEY_SAMPLE})::pg_catalog.numeric::pg_catalog.money::pg_catalog.text"
                ),
                &[],
            )
            .await
            .map_err(|e| errors::sql("reading the server's version", e))?;
        let server_version = row
            .get::<_, &str>(0)
            .parse()
            .map_err(|_| Error::source(Kind::Protocol, "the server's version is not a number"))?;
        let money = MoneyFormat::probe(row.get(1), row.get(2));
        if money.is_none() {
            tracing::warn!("how lc_monetary prints money cannot be told: columns of type money cannot be captured");
        }
        Ok(Catalog { selection: selection.clone(), database: database.into(), layout: layout(), server_version, money })
    }

    /// `server_version_num`.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The table's schema, and which of the relation's columns are in it. `prepared` belongs to the client's session.
    pub async fn bind(&mut self, client: &Client, prepared: &mut Prepared, relation: &RelationInfo) -> Result<Bound> {
        let facts = self.facts(client, prepared, relation).await?;
        let oids: Vec<u32> = relation.columns.iter().map(|c| c.type_oid).collect();
        let types = Types::load(client, prepared, &oids, self.money).await.map_err(|e| e.at(named(relation)))?;
        self.build(relation, &facts, &types)
    }

    /// What the catalog of now says of the relation's columns.
    async fn facts(&self, client: &Client, prepared: &mut Prepared, relation: &RelationInfo) -> Result<Vec<Fact>> {
        let names: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
        let oids: Vec<u32> = relation.columns.iter().map(|c| c.type_oid).collect();
        let typmods: Vec<i32> = relation.columns.iter().map(|c| c.typmod).collect();
        let statement =
            Prepared::statement(&mut prepared.facts, client, &FACTS).await.map_err(|e| e.at(named(relation)))?;
        let rows = client
            .query(statement, &[&relation.oid, &names, &oids, &typmods])
            .await
            .map_err(|e| errors::sql("reading the table from the catalog", e).at(named(relation)))?;
        Ok(rows
            .iter()
            .map(|r| Fact {
                type_name: r.get::<_, Option<String>>(0).unwrap_or_else(|| "unknown".into()),
                same: r.get(1),
                not_null: r.get(2),
                key_place: r.get(3),
                key_len: r.get(4),
                primary: r.get(5),
            })
            .collect())
    }

    fn build(&self, relation: &RelationInfo, facts: &[Fact], types: &Types) -> Result<Bound> {
        let mask: Vec<bool> =
            relation.columns.iter().map(|c| self.selection.column(&relation.schema, &relation.name, &c.name)).collect();
        let key = key(relation, facts);
        let current = facts.iter().all(|f| f.same);
        let id = TableId {
            database: self.database.clone(),
            schema: relation.schema.as_str().into(),
            name: relation.name.as_str().into(),
        };
        let mut place = vec![None; relation.columns.len()];
        let mut columns = Vec::new();
        for (i, ((c, fact), captured)) in relation.columns.iter().zip(facts).zip(&mask).enumerate() {
            if !captured {
                continue;
            }
            if let Some(slot) = place.get_mut(i) {
                *slot = u32::try_from(columns.len()).ok();
            }
            let (ty, decode) = types.resolve(c.type_oid, c.typmod);
            columns.push(Column {
                name: c.name.as_str().into(),
                ty,
                type_name: fact.type_name.as_str().into(),
                nullable: !(key.contains(&i) || (current && fact.not_null)),
                decode,
            });
        }
        let mut captured_key = Vec::with_capacity(key.len());
        for i in key {
            let Some(Some(n)) = place.get(i) else {
                let name = relation.columns.get(i).map_or("?", |c| c.name.as_str());
                return Err(Error::new(
                    Kind::Config,
                    Side::Source,
                    Retry::Operator,
                    format!("{}: column {name:?} is part of the key and is excluded", named(relation)),
                )
                .fix("take the pattern that matches it out of columns.exclude"));
            };
            captured_key.push(*n);
        }
        let signature: Vec<(u32, i32)> = relation.columns.iter().map(|c| (c.type_oid, c.typmod)).collect();
        let schema = TableSchema {
            id,
            kind: TableKind::Table,
            version: 0,
            columns,
            key: captured_key,
            layout: self.layout.clone(),
        };
        Ok(Bound { schema: numbered(schema, signature), mask })
    }
}

/// What the catalog says of one column of a relation.
#[derive(Clone, Debug)]
struct Fact {
    type_name: String,
    /// Has the catalog this column with this type?
    same: bool,
    not_null: bool,
    /// 1-based place in the key index.
    key_place: Option<i32>,
    key_len: i32,
    primary: bool,
}

/// The key: indexes into the relation's columns, in key order.
fn key(relation: &RelationInfo, facts: &[Fact]) -> Vec<usize> {
    let mut from_catalog: Vec<(i32, usize)> = facts
        .iter()
        .enumerate()
        .filter(|(_, f)| f.same)
        .filter_map(|(i, f)| f.key_place.map(|place| (place, i)))
        .collect();
    from_catalog.sort_unstable();
    let whole =
        facts.first().is_some_and(|f| usize::try_from(f.key_len).is_ok_and(|n| n > 0 && n == from_catalog.len()));
    let catalog: Vec<usize> = if whole { from_catalog.into_iter().map(|(_, i)| i).collect() } else { Vec::new() };
    let flagged: Vec<usize> =
        relation.columns.iter().enumerate().filter(|(_, c)| c.in_identity).map(|(i, _)| i).collect();
    match relation.identity {
        // The message flags the primary key as it was; the catalog adds the order as long as it is the same key.
        b'd' if !flagged.is_empty() => {
            let mut sorted = catalog.clone();
            sorted.sort_unstable();
            if sorted == flagged { catalog } else { flagged }
        }
        // A primary key names the row even where the identity is another index.
        b'i' if !facts.first().is_some_and(|f| f.primary) || catalog.is_empty() => {
            let mut sorted = catalog.clone();
            sorted.sort_unstable();
            if sorted == flagged || flagged.is_empty() { catalog } else { flagged }
        }
        _ => catalog,
    }
}

fn named(relation: &RelationInfo) -> String {
    format!("table {}.{}", relation.schema, relation.name)
}

/// A schema that was handed out, with what its decoders depend on beside its visible fields.
struct Numbered {
    schema: Weak<TableSchema>,
    signature: Vec<(u32, i32)>,
}

static NUMBERED: LazyLock<Mutex<(u64, HashMap<TableId, Numbered>)>> = LazyLock::new(Mutex::default);

/// Gives the schema its version, or the table's latest one if that is equal and still in use.
fn numbered(mut schema: TableSchema, signature: Vec<(u32, i32)>) -> Arc<TableSchema> {
    let mut registry = NUMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = registry.1.get(&schema.id)
        && known.signature == signature
        && let Some(latest) = known.schema.upgrade()
        && alike(&latest, &schema)
    {
        return latest;
    }
    registry.0 += 1;
    schema.version = registry.0;
    let schema = Arc::new(schema);
    registry.1.insert(schema.id.clone(), Numbered { schema: Arc::downgrade(&schema), signature });
    schema
}

fn alike(a: &TableSchema, b: &TableSchema) -> bool {
    a.kind == b.kind
        && a.key == b.key
        && a.columns.len() == b.columns.len()
        && a.columns.iter().zip(&b.columns).all(|(a, b)| {
            a.name == b.name
                && a.ty == b.ty
                && a.type_name == b.type_name
                && a.nullable == b.nullable
                && a.decode.param.n == b.decode.param.n
                && a.decode.param.delimiter == b.decode.param.delimiter
        })
}

/// Debezium's `source` block for PostgreSQL, in its order.
pub fn layout() -> Arc<SourceLayout> {
    static LAYOUT: LazyLock<Arc<SourceLayout>> = LazyLock::new(|| {
        use SourceValue as V;
        let fields = [
            ("version", V::Version),
            ("connector", V::Connector),
            ("name", V::Name),
            ("ts_ms", V::TsMs),
            ("snapshot", V::Snapshot),
            ("db", V::Database),
            ("sequence", V::LsnSequence),
            ("ts_us", V::TsUs),
            ("ts_ns", V::TsNs),
            ("schema", V::Schema),
            ("table", V::Table),
            ("txId", V::TxnId),
            ("lsn", V::At),
            ("xmin", V::Null),
            ("origin", V::Origin),
            ("origin_lsn", V::OriginAt),
        ];
        let fields = fields.into_iter().map(|(name, value)| SourceField { name, value }).collect();
        Arc::new(SourceLayout { connector: "postgresql", fields })
    });
    LAYOUT.clone()
}

/// The schema of logical messages: they belong to no table, so both names are empty, as Debezium has them.
pub fn message_schema(database: &str) -> Arc<TableSchema> {
    let column = |name: &str, ty, type_name: &str, f| Column {
        name: name.into(),
        ty,
        type_name: type_name.into(),
        nullable: false,
        decode: Decoder::plain(f),
    };
    Arc::new(TableSchema {
        id: TableId { database: database.into(), schema: "".into(), name: "".into() },
        kind: TableKind::Message,
        version: 1,
        columns: vec![
            column("prefix", Type::Text, "text", decode::text),
            column("content", Type::Bytes, "bytea", decode::raw),
        ],
        key: Vec::new(),
        layout: layout(),
    })
}

/// The SQL that asks for a table what the stream would say of it now; [`described`] reads the answer. It is text without
/// parameters, so that it can travel in one message with the statements around it.
pub fn describe_sql(server_version: u32, publication: &str, schema: &str, table: &str) -> String {
    let published = match server_version {
        ..150_000 => "a.attgenerated = ''",
        150_000..180_000 => "a.attgenerated = '' AND (pr.prattrs IS NULL OR a.attnum = ANY (pr.prattrs::int2[]))",
        _ => {
            "CASE WHEN pr.prattrs IS NOT NULL THEN a.attnum = ANY (pr.prattrs::int2[])
               ELSE a.attgenerated = '' OR (a.attgenerated = 's' AND p.pubgencols = 's') END"
        }
    };
    let filter = match server_version {
        ..150_000 => "NULL",
        _ => {
            "CASE WHEN p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace pn
               WHERE pn.pnpubid = p.oid AND pn.pnnspid = c.relnamespace)
             THEN NULL ELSE pg_catalog.pg_get_expr(pr.prqual, pr.prrelid) END"
        }
    };
    format!(
        "SELECT c.oid, c.relkind, c.relreplident, a.attname, a.atttypid, a.atttypmod,
           CASE c.relreplident WHEN 'f' THEN 't' WHEN 'n' THEN 'f' ELSE CASE WHEN EXISTS (
             SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
               AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE i.indisreplident END)
           THEN 't' ELSE 'f' END END,
           {filter}
         FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
           LEFT JOIN pg_catalog.pg_publication p ON p.pubname = {}
           LEFT JOIN pg_catalog.pg_publication_rel pr ON pr.prpubid = p.oid AND pr.prrelid = c.oid
           LEFT JOIN pg_catalog.pg_attribute a
             ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND ({published})
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p') ORDER BY a.attnum",
        literal(publication),
        literal(schema),
        literal(table)
    )
}

/// Reads the answer to [`describe_sql`]: rows of eight columns. `None` when there is no such table.
pub fn described(schema: &str, table: &str, rows: &[SimpleQueryMessage]) -> Result<Option<Described>> {
    let bad = || Error::source(Kind::Protocol, "the catalog's description of a table cannot be read").at(table);
    let mut out: Option<Described> = None;
    for message in rows {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if row.len() != 8 {
            continue;
        }
        let text = |i: usize| row.get(i);
        if out.is_none() {
            out = Some(Described {
                relation: RelationInfo {
                    oid: text(0).and_then(|s| s.parse().ok()).ok_or_else(bad)?,
                    schema: schema.to_owned(),
                    name: table.to_owned(),
                    identity: text(2).and_then(|s| s.bytes().next()).ok_or_else(bad)?,
                    columns: Vec::new(),
                },
                partitioned: text(1) == Some("p"),
                filter: text(7).map(str::to_owned),
            });
        }
        // A table without a column gives one row without a name.
        if let (Some(d), Some(name)) = (&mut out, text(3)) {
            d.relation.columns.push(RelationColumn {
                name: name.to_owned(),
                type_oid: text(4).and_then(|s| s.parse().ok()).ok_or_else(bad)?,
                typmod: text(5).and_then(|s| s.parse().ok()).ok_or_else(bad)?,
                in_identity: text(6) == Some("t"),
            });
        }
    }
    Ok(out)
}

/// What the stream would say of a table now, or `None` when there is none.
pub async fn describe(
    client: &Client,
    server_version: u32,
    publication: &str,
    schema: &str,
    table: &str,
) -> Result<Option<Described>> {
    let rows = client
        .simple_query(&describe_sql(server_version, publication, schema, table))
        .await
        .map_err(|e| errors::sql("describing a table", e).at(format_args!("table {schema}.{table}")))?;
    described(schema, table, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(identity: u8, columns: &[(&str, bool)]) -> RelationInfo {
        let columns = columns
            .iter()
            .map(|(name, in_identity)| RelationColumn {
                name: (*name).into(),
                type_oid: 23,
                typmod: -1,
                in_identity: *in_identity,
            })
            .collect();
        RelationInfo { oid: 1, schema: "s".into(), name: "t".into(), identity, columns }
    }
    fn fact(same: bool, key_place: Option<i32>, key_len: i32, primary: bool) -> Fact {
        Fact { type_name: "integer".into(), same, not_null: key_place.is_some(), key_place, key_len, primary }
    }

    #[test]
    fn keys() {
        // Primary key in key order, not in column order.
        let r = relation(b'd', &[("a", true), ("b", true), ("v", false)]);
        let facts = [fact(true, Some(2), 2, true), fact(true, Some(1), 2, true), fact(true, None, 2, true)];
        assert_eq!(key(&r, &facts), [1, 0]);
        // The catalog has another primary key by now: the message's flags are right.
        let facts = [fact(true, Some(1), 1, true), fact(true, None, 1, true), fact(true, None, 1, true)];
        assert_eq!(key(&r, &facts), [0, 1]);
        // The table is gone.
        let facts = vec![fact(false, None, 0, false); 3];
        assert_eq!(key(&r, &facts), [0, 1]);
        // Full identity flags everything and says nothing about the key.
        let r = relation(b'f', &[("a", true), ("b", true)]);
        assert_eq!(key(&r, &[fact(true, Some(1), 1, true), fact(true, None, 1, true)]), [0]);
        assert_eq!(key(&r, &[fact(true, None, 0, false), fact(true, None, 0, false)]), Vec::<usize>::new());
        // A primary key beside an identity index; an identity index alone.
        let r = relation(b'i', &[("id", false), ("code", true)]);
        assert_eq!(key(&r, &[fact(true, Some(1), 1, true), fact(true, None, 1, true)]), [0]);
        assert_eq!(key(&r, &[fact(true, None, 1, false), fact(true, Some(1), 1, false)]), [1]);
        assert_eq!(key(&r, &[fact(false, None, 0, false), fact(false, None, 0, false)]), [1]);
        // Part of the key index is not among the published columns.
        let r = relation(b'n', &[("a", false)]);
        assert_eq!(key(&r, &[fact(true, Some(1), 2, true)]), Vec::<usize>::new());
    }

    fn catalog(exclude: &str) -> Catalog {
        let mut faults = Vec::new();
        let selection = Selection::parse("p", &["*.*".into()], &[], &[exclude.into()], &mut faults);
        assert!(faults.is_empty());
        Catalog { selection, database: "db".into(), layout: layout(), server_version: 150_000, money: None }
    }

    #[test]
    fn schemas_get_a_version_that_means_one_thing() {
        let c = catalog("s.t.b");
        let r = relation(b'd', &[("a", true), ("b", false), ("v", false)]);
        let facts = [fact(true, Some(1), 1, true), fact(true, None, 1, true), fact(true, None, 1, true)];
        let one = c.build(&r, &facts, &Types::default()).unwrap();
        assert_eq!(one.mask, [true, false, true]);
        assert_eq!(one.schema.key, [0]);
        let names: Vec<&str> = one.schema.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["a", "v"]);
        assert!(!one.schema.columns[0].nullable && one.schema.columns[1].nullable);
        let again = catalog("s.t.b").build(&r, &facts, &Types::default()).unwrap();
        assert!(Arc::ptr_eq(&one.schema, &again.schema), "another catalog, the same schema");
        let mut wider = r.clone();
        wider.columns[2].type_oid = 20;
        let two = c.build(&wider, &facts, &Types::default()).unwrap();
        assert!(two.schema.version > one.schema.version);
        let back = c.build(&r, &facts, &Types::default()).unwrap();
        assert!(back.schema.version > two.schema.version, "a change back is a change");
        // What the catalog no longer knows may be NULL, the key may not.
        let stale = [fact(false, None, 1, true), fact(true, None, 1, true), fact(true, None, 1, true)];
        let stale = c.build(&r, &stale, &Types::default()).unwrap();
        assert!(!stale.schema.columns[0].nullable && stale.schema.columns[1].nullable);
    }

    #[test]
    fn an_excluded_key_column_is_refused() {
        let r = relation(b'd', &[("a", true), ("v", false)]);
        let facts = [fact(true, Some(1), 1, true), fact(true, None, 1, true)];
        let e = catalog("s.t.a").build(&r, &facts, &Types::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.what().contains("s.t") && e.what().contains("\"a\""), "{e:?}");
    }
}

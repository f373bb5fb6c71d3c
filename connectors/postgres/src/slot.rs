//! Publication and slot: found, made where we may, and the exact SQL where we may not.
//!
//! A publication names only captured tables, never all of them, so that no superuser is needed and the server spends
//! nothing on the rest. It is made before the slot: logical decoding looks it up in the catalog as it was at each
//! change, so changes older than the publication cannot be read with it.

use crate::{
    config::Config,
    conn::Replication,
    errors,
    position::Lsn,
    sql::{ident, literal, table},
};
use seachange_sdk::{Error, Kind, Result, Retry, Selection, Side};
use std::sync::{Arc, Mutex};
use tokio_postgres::{Client, Row};

/// How the pipeline's publication is to be treated.
#[derive(Clone, Debug)]
pub struct PublicationPlan {
    /// Its name.
    pub name: String,
    /// May it be made, and tables be added to it?
    pub create: bool,
    /// Tables added when the stream was opened, which `ensure_published` has yet to report.
    untold: Arc<Mutex<Vec<TableAdded>>>,
}

impl PublicationPlan {
    /// The plan of a configuration.
    pub fn new(config: &Config) -> PublicationPlan {
        PublicationPlan { name: config.publication.clone(), create: config.create, untold: Arc::default() }
    }
    /// Has the next [`ensure_published`] report these too.
    pub fn tell_later(&self, tables: Vec<TableAdded>) {
        self.untold.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(tables);
    }
    fn take_untold(&self) -> Vec<TableAdded> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// A table that was added to the publication just now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableAdded {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// A table that the patterns match, publishable or not.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relkind`: r p v m f.
    pub kind: u8,
    /// `pg_class.relpersistence`: p u t.
    pub persistence: u8,
    /// `pg_class.relreplident`: d n f i.
    pub identity: u8,
    /// Has it a primary key?
    pub primary_key: bool,
    /// Has it a valid replica identity index (identity `i`)?
    pub identity_index: bool,
    /// May the account read it?
    pub readable: bool,
    /// Does the account own it?
    pub owned: bool,
    /// Its owner.
    pub owner: String,
    /// Is it in the publication, itself or by an ancestor?
    pub published: bool,
    /// Is it a partition of a table that is captured too?
    pub partition: bool,
}

impl Candidate {
    /// Why it cannot be captured, if so.
    pub fn unpublishable(&self) -> Option<&'static str> {
        match (self.kind, self.persistence) {
            (b'v', _) => Some("is a view: views have no changes of their own; capture the tables behind it"),
            (b'm', _) => Some("is a materialized view: its refreshes are not in the log"),
            (b'f', _) => Some("is a foreign table: its changes are in another server's log"),
            (_, b'u') => Some("is unlogged: its changes are not in the log"),
            (_, b't') => Some("is temporary: its changes are not in the log"),
            (b'r' | b'p', _) => None,
            _ => Some("is no table"),
        }
    }
    /// Is it to be in the publication?
    pub fn wanted(&self) -> bool {
        self.unpublishable().is_none() && !self.partition
    }
}

/// All relations that the patterns match.
pub async fn candidates(client: &Client, selection: &Selection, publication: &str) -> Result<Vec<Candidate>> {
    let rows = client
        .query(
            "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
               EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid),
               EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid),
               has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
               pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text,
               EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $1 AND p.puballtables)
                 OR EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $1
                              AND t.schemaname = n.nspname AND t.tablename = c.relname)
                 OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                              WHERE p.pubname = $1 AND r.prrelid = c.oid),
               ARRAY(SELECT an.nspname::text FROM pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, k)
                       JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace
                       WHERE a.relid <> c.oid ORDER BY a.k),
               ARRAY(SELECT ac.relname::text FROM pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, k)
                       JOIN pg_class ac ON ac.oid = a.relid WHERE a.relid <> c.oid ORDER BY a.k)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema'
               AND n.nspname !~ '^pg_' ORDER BY 1, 2",
            &[&publication],
        )
        .await
        .map_err(|e| errors::sql("looking for tables", e))?;
    let letter = |r: &Row, i: usize| r.get::<_, &str>(i).bytes().next().unwrap_or(b'?');
    Ok(rows
        .iter()
        .filter(|r| selection.table(r.get(0), r.get(1)))
        .map(|r| {
            let (schemas, names): (Vec<String>, Vec<String>) = (r.get(11), r.get(12));
            Candidate {
                schema: r.get(0),
                name: r.get(1),
                kind: letter(r, 2),
                persistence: letter(r, 3),
                identity: letter(r, 4),
                primary_key: r.get(5),
                identity_index: r.get(6),
                readable: r.get(7),
                owned: r.get(8),
                owner: r.get(9),
                published: r.get(10),
                partition: schemas.iter().zip(&names).any(|(s, n)| selection.table(s, n)),
            }
        })
        .collect())
}

/// What is known of a publication.
#[derive(Clone, Debug)]
pub struct Publication {
    /// FOR ALL TABLES?
    pub all_tables: bool,
    /// May the account change it?
    pub owned: bool,
    /// Its owner.
    pub owner: String,
    /// publish_via_partition_root?
    pub via_root: bool,
    /// insert, update, delete, truncate.
    pub publishes: [bool; 4],
}

/// Finds a publication.
pub async fn publication(client: &Client, name: &str) -> Result<Option<Publication>> {
    let row = client
        .query_opt(
            "SELECT puballtables, pg_has_role(pubowner, 'USAGE'), pg_get_userbyid(pubowner)::text, pubviaroot,
               pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = $1",
            &[&name],
        )
        .await
        .map_err(|e| errors::sql("looking for the publication", e))?;
    Ok(row.map(|r| Publication {
        all_tables: r.get(0),
        owned: r.get(1),
        owner: r.get(2),
        via_root: r.get(3),
        publishes: [r.get(4), r.get(5), r.get(6), r.get(7)],
    }))
}

/// The SQL that makes the publication.
pub fn create_publication_sql(name: &str, tables: &[String]) -> String {
    let list = if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", tables.join(", ")) };
    format!("CREATE PUBLICATION {}{list} WITH (publish_via_partition_root = true);", ident(name))
}

/// The SQL that adds tables to it.
pub fn add_tables_sql(name: &str, tables: &[String]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {};", ident(name), tables.join(", "))
}

/// The SQL that makes the slot.
pub fn create_slot_sql(name: &str, failover: bool) -> String {
    let more = if failover { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput'{more});", literal(name))
}

/// Makes the publication, or adds tables that have appeared, where that is allowed; gives the tables that were added. A
/// publication that may not be changed is used as it is: what it lacks is told by a warning and by `check`.
pub async fn ensure_published(
    client: &Client,
    plan: &PublicationPlan,
    selection: &Selection,
) -> Result<Vec<TableAdded>> {
    let mut added = plan.take_untold();
    match publish(client, plan, selection).await {
        Ok(more) => {
            added.extend(more);
            added.sort();
            added.dedup();
            Ok(added)
        }
        Err(e) => {
            plan.tell_later(added);
            Err(e)
        }
    }
}

async fn publish(client: &Client, plan: &PublicationPlan, selection: &Selection) -> Result<Vec<TableAdded>> {
    let found = publication(client, &plan.name).await?;
    let missing: Vec<Candidate> =
        candidates(client, selection, &plan.name).await?.into_iter().filter(|c| c.wanted() && !c.published).collect();
    let names = |list: &[Candidate]| list.iter().map(|c| table(&c.schema, &c.name)).collect::<Vec<_>>();
    let refused = |what: String, sql: String| {
        Error::new(Kind::Auth, Side::Source, Retry::Operator, what)
            .fix(format!("run as the owner of the tables: {sql}"))
    };
    let Some(found) = found else {
        let sql = create_publication_sql(&plan.name, &names(&missing));
        if !plan.create {
            return Err(refused(format!("publication {} does not exist, and create = false", ident(&plan.name)), sql));
        }
        let mine = missing.iter().all(|c| c.owned);
        if !mine {
            let others: Vec<_> = missing.iter().filter(|c| !c.owned).map(|c| table(&c.schema, &c.name)).collect();
            return Err(refused(
                format!(
                    "publication {} does not exist, and this account owns not all its tables: not {}",
                    ident(&plan.name),
                    others.join(", ")
                ),
                sql,
            ));
        }
        return match client.batch_execute(&sql).await {
            Ok(()) => {
                tracing::info!(publication = plan.name, tables = missing.len(), "publication made");
                Ok(told(missing))
            }
            Err(e) if e.code().is_some_and(|c| c.code() == "42710") => Box::pin(publish(client, plan, selection)).await,
            Err(e) => {
                let permission = e.code().is_some_and(|c| c.code() == "42501");
                let e = errors::sql("making the publication", e);
                Err(if permission { e.fix(format!("run as the owner of the database: {sql}")) } else { e })
            }
        };
    };
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !plan.create || !found.owned {
        tracing::warn!(
            publication = plan.name,
            tables = names(&missing).join(", "),
            "tables match but are not published, so their changes are not captured; run: {}",
            add_tables_sql(&plan.name, &names(&missing))
        );
        return Ok(Vec::new());
    }
    // One table at a time: one that was dropped meanwhile, or that somebody else owns, must not hold back the others.
    let mut added = Vec::new();
    for c in missing {
        let sql = add_tables_sql(&plan.name, &[table(&c.schema, &c.name)]);
        match client.batch_execute(&sql).await {
            Ok(()) => {
                tracing::info!(
                    publication = plan.name,
                    table = table(&c.schema, &c.name),
                    "table added to publication"
                );
                added.push(TableAdded { schema: c.schema, name: c.name });
            }
            Err(e) => match e.code().map(|c| c.code().to_owned()).as_deref() {
                // Somebody else added it: its changes are carried, but nobody knows since when.
                Some("42710") => added.push(TableAdded { schema: c.schema, name: c.name }),
                Some("42P01" | "3F000") => {}
                Some("42501") => tracing::warn!(
                    publication = plan.name,
                    "this account may not publish a table that matches; run as its owner: {sql}"
                ),
                _ => {
                    plan.tell_later(added);
                    return Err(errors::sql("adding a table to the publication", e));
                }
            },
        }
    }
    Ok(added)
}

fn told(list: Vec<Candidate>) -> Vec<TableAdded> {
    list.into_iter().map(|c| TableAdded { schema: c.schema, name: c.name }).collect()
}

/// What is known of a slot.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// Process that uses it.
    pub active_pid: Option<i32>,
    /// Everything that commits below has been confirmed.
    pub confirmed: Option<Lsn>,
    /// The oldest log that it keeps.
    pub restart: Option<Lsn>,
    /// reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// Bytes that can still be written before it is lost.
    pub safe_wal_size: Option<i64>,
}

impl Slot {
    /// Has it lost its log?
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.restart.is_none() && self.confirmed.is_some()
    }
}

/// Finds a slot.
pub async fn find(client: &Client, name: &str) -> Result<Option<Slot>> {
    let row = client
        .query_opt(
            "SELECT plugin::text, database::text, active_pid, confirmed_flush_lsn::text, restart_lsn::text, wal_status,
               safe_wal_size FROM pg_replication_slots WHERE slot_name = $1",
            &[&name],
        )
        .await
        .map_err(|e| errors::sql("looking for the slot", e))?;
    let lsn = |r: &Row, i: usize| r.get::<_, Option<&str>>(i).and_then(Lsn::parse);
    Ok(row.map(|r| Slot {
        plugin: r.get(0),
        database: r.get(1),
        active_pid: r.get(2),
        confirmed: lsn(&r, 3),
        restart: lsn(&r, 4),
        wal_status: r.get(5),
        safe_wal_size: r.get(6),
    }))
}

/// Somebody else streams from the slot.
pub fn active(name: &str, pid: Option<i32>) -> Error {
    let who = pid.map_or_else(String::new, |p| format!(" by process {p}"));
    let how = pid.map_or_else(
        || "stop the other user of the slot".to_owned(),
        |p| {
            format!(
                "if that is a pipeline that has died, the server lets go after wal_sender_timeout, or at once with SELECT \
                 pg_terminate_backend({p}); otherwise give this pipeline a slot of its own (slot = \"...\")"
            )
        },
    );
    Error::source(Kind::Connect, format!("slot {name} is in use{who}")).fix(how)
}

/// Makes the slot on the replication connection and gives the LSN from which it decodes.
pub async fn create(link: &mut Replication, config: &Config, version: u32) -> Result<Lsn> {
    let name = ident(&config.slot);
    let sql = if version >= 170_000 && config.failover {
        format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)")
    } else {
        format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput NOEXPORT_SNAPSHOT")
    };
    let rows = link.query(&sql, &format!("making slot {}", config.slot)).await.map_err(|e| {
        let by_hand = create_slot_sql(&config.slot, config.failover);
        if e.kind() == Kind::Auth {
            e.fix(format!("grant REPLICATION to the account, or run as one that has it: {by_hand}"))
        } else {
            e
        }
    })?;
    let at = rows.first().and_then(|r| r.get(1)).and_then(|c| c.as_deref()).and_then(Lsn::parse);
    let at = at.ok_or_else(|| errors::protocol("CREATE_REPLICATION_SLOT gave no LSN"))?;
    tracing::info!(slot = config.slot, lsn = %at, "replication slot made");
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn sql_is_quoted() {
        let t = [table("public", "a\"b"), table("Shop", "x")];
        assert_eq!(
            create_publication_sql("p\"q", &t),
            "CREATE PUBLICATION \"p\"\"q\" FOR TABLE \"public\".\"a\"\"b\", \"Shop\".\"x\" WITH (publish_via_partition_root = true);"
        );
        assert_eq!(
            create_publication_sql("p", &[]),
            "CREATE PUBLICATION \"p\" WITH (publish_via_partition_root = true);"
        );
        assert_eq!(
            create_slot_sql("s", true),
            "SELECT pg_create_logical_replication_slot('s', 'pgoutput', failover => true);"
        );
    }
}

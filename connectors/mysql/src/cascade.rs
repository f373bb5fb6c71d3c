//! Foreign keys whose actions are not in the log: rows that the storage engine changes by itself.
//!
//! `ON DELETE CASCADE` and its kin are carried out inside InnoDB by MariaDB and by MySQL before 9.6; the log then holds the
//! change of the parent and nothing of the children. No reader of the log can know what it does not say, so it is said here:
//! by `check`, and in the daemon's log whenever the stream is opened. MySQL 9.6 and newer carries them out above the engine
//! and logs every row, unless `innodb_native_foreign_keys` asks for the old way.

use crate::{
    catalog::{self, Server},
    errors,
    flavor::Flavor,
};
use mysql_async::{Conn, prelude::Queryable};
use seachange_sdk::{Result, Selection};

/// What helps.
pub const REMEDY: &str = "let triggers or the application change those rows instead (their changes are in the log), or use \
                          MySQL 9.6 or newer";

/// A foreign key that changes rows of a captured table without a trace in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlogged {
    /// Database of the table that is changed.
    pub database: String,
    /// The table that is changed.
    pub table: String,
    /// The foreign key.
    pub name: String,
    /// `ON DELETE CASCADE`.
    pub action: String,
}

impl std::fmt::Display for Unlogged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Unlogged { database, table, name, action } = self;
        write!(f, "what foreign key {name} does to {database}.{table} ({action}) is not in the log and will be missing")
    }
}

/// All of them, by table.
pub async fn unlogged(conn: &mut Conn, server: &Server, selection: &Selection) -> Result<Vec<Unlogged>> {
    if server.flavor == Flavor::MySql {
        let native = catalog::variable(conn, "innodb_native_foreign_keys").await?;
        if native.is_some_and(|v| v.eq_ignore_ascii_case("OFF")) {
            return Ok(Vec::new());
        }
    }
    let rows: Vec<(String, String, String, String, String)> = conn
        .query(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS \
             WHERE DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION') \
             ORDER BY 1, 2, 3",
        )
        .await
        .map_err(|e| errors::sql("reading the foreign keys", e))?;
    let acts = |rule: &str| !matches!(rule, "RESTRICT" | "NO ACTION");
    let found =
        rows.into_iter().filter(|r| selection.table(&r.0, &r.1)).map(|(database, table, name, delete, update)| {
            let actions = [("DELETE", delete), ("UPDATE", update)];
            let actions: Vec<String> =
                actions.iter().filter(|(_, rule)| acts(rule)).map(|(on, rule)| format!("ON {on} {rule}")).collect();
            Unlogged { database, table, name, action: actions.join(", ") }
        });
    Ok(found.collect())
}

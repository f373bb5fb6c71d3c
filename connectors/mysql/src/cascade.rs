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
    let found =
        if server.flavor == Flavor::MySql { constraints(conn).await? } else { definitions(conn, selection).await? };
    let acts = |rule: &str| !matches!(rule, "RESTRICT" | "NO ACTION");
    let found =
        found.into_iter().filter(|f| selection.table(&f.database, &f.table) && (acts(&f.delete) || acts(&f.update)));
    let found = found.map(|Key { database, table, name, delete, update }| {
        let actions = [("DELETE", delete), ("UPDATE", update)];
        let actions: Vec<String> =
            actions.iter().filter(|(_, rule)| acts(rule)).map(|(on, rule)| format!("ON {on} {rule}")).collect();
        Unlogged { database, table, name, action: actions.join(", ") }
    });
    Ok(found.collect())
}

/// A foreign key with its rules.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    database: String,
    table: String,
    name: String,
    delete: String,
    update: String,
}

async fn constraints(conn: &mut Conn) -> Result<Vec<Key>> {
    let rows: Vec<(String, String, String, String, String)> = conn
        .query(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS ORDER BY 1, 2, 3",
        )
        .await
        .map_err(|e| errors::sql("reading the foreign keys", e))?;
    let key = |(database, table, name, delete, update)| Key { database, table, name, delete, update };
    Ok(rows.into_iter().map(key).collect())
}

/// MariaDB does not show constraints to an account that may only read; it does show which columns refer to others, and the
/// definition of a table.
async fn definitions(conn: &mut Conn, selection: &Selection) -> Result<Vec<Key>> {
    let failed = |e| errors::sql("reading the foreign keys", e);
    let tables: Vec<(String, String)> = conn
        .query(
            "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE \
             WHERE REFERENCED_TABLE_NAME IS NOT NULL ORDER BY 1, 2",
        )
        .await
        .map_err(failed)?;
    let mut keys = Vec::new();
    for (database, table) in tables.into_iter().filter(|(database, table)| selection.table(database, table)) {
        let sql = format!("SHOW CREATE TABLE {}.{}", crate::sql::ident(&database), crate::sql::ident(&table));
        let shown: Option<(String, String)> = match conn.query_first(sql).await {
            Ok(shown) => shown,
            // Dropped meanwhile.
            Err(mysql_async::Error::Server(e)) if e.code == 1146 => None,
            Err(e) => return Err(failed(e)),
        };
        let text = shown.map(|(_, text)| text).unwrap_or_default();
        keys.extend(text.lines().filter_map(|line| {
            let (name, delete, update) = defined(line)?;
            Some(Key { database: database.clone(), table: table.clone(), name, delete, update })
        }));
    }
    Ok(keys)
}

/// Name and rules of the foreign key that a line of a table's definition holds.
fn defined(line: &str) -> Option<(String, String, String)> {
    let (quoted, rest) = line.trim_start().strip_prefix("CONSTRAINT `")?.split_once("` FOREIGN KEY (")?;
    let (_, rules) = rest.rsplit_once(')')?;
    let rules = rules.trim_end_matches(',');
    let rule = |on: &str| {
        let after = rules.split_once(on).map_or("RESTRICT", |(_, after)| after);
        after.split(" ON ").next().unwrap_or_default().trim().to_owned()
    };
    Some((quoted.replace("``", "`"), rule(" ON DELETE "), rule(" ON UPDATE ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_a_definition() {
        let key =
            |name: &str, delete: &str, update: &str| Some((name.to_owned(), delete.to_owned(), update.to_owned()));
        let line =
            "  CONSTRAINT `c_ibfk_1` FOREIGN KEY (`p`) REFERENCES `p` (`id`) ON DELETE CASCADE ON UPDATE SET NULL,";
        assert_eq!(defined(line), key("c_ibfk_1", "CASCADE", "SET NULL"));
        let line = "  CONSTRAINT `a``b` FOREIGN KEY (`x)`,`y`) REFERENCES `p` (`id`,`z`) ON UPDATE CASCADE";
        assert_eq!(defined(line), key("a`b", "RESTRICT", "CASCADE"));
        assert_eq!(
            defined("  CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `p` (`id`)"),
            key("f", "RESTRICT", "RESTRICT")
        );
        assert_eq!(defined("  CONSTRAINT `f` CHECK (json_valid(`j`))"), None);
        assert_eq!(defined("  `c` text COMMENT 'CONSTRAINT `f` FOREIGN KEY (`p`) ON DELETE CASCADE',"), None);
    }
}

//! What the server says about itself, its log and its tables.

use crate::{
    charset::{Charset, Collations},
    columns::{CatalogColumn, CatalogTable},
    errors,
    flavor::{self, Flavor},
    history::Folding,
    position::{Gtids, Place},
};
use mysql_async::{Conn, Row, prelude::Queryable};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::collections::{BTreeMap, HashSet};

/// What a server says about itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its kind.
    pub flavor: Flavor,
    /// Its version text.
    pub version_text: String,
    /// Its version.
    pub version: (u32, u32, u32),
    /// Its identity: `server_uuid` of MySQL, `server_id` of MariaDB.
    pub identity: String,
    /// Are positions GTIDs? (MySQL: `gtid_mode = ON`; MariaDB: always.)
    pub gtids: bool,
    /// How it compares names of tables.
    pub folding: Folding,
}

/// A variable that may not exist.
pub async fn variable(conn: &mut Conn, name: &str) -> Result<Option<String>> {
    let row: Option<(String, String)> = conn
        .exec_first("SHOW GLOBAL VARIABLES WHERE Variable_name = ?", (name,))
        .await
        .map_err(|e| errors::sql("reading the server's settings", e))?;
    Ok(row.map(|r| r.1))
}

/// A column of a row, as text.
fn text(row: &Row, name: &str) -> Option<String> {
    match row.get::<Option<Vec<u8>>, _>(name) {
        Some(Some(b)) => Some(String::from_utf8_lossy(&b).into_owned()),
        _ => None,
    }
}
fn number(row: &Row, i: usize) -> Option<u64> {
    row.get::<Option<u64>, _>(i).flatten()
}

impl Server {
    /// Asks.
    pub async fn ask(conn: &mut Conn) -> Result<Server> {
        let version_text: Option<String> =
            conn.query_first("SELECT VERSION()").await.map_err(|e| errors::sql("asking for the version", e))?;
        let version_text = version_text.unwrap_or_default();
        let flavor = Flavor::of(&version_text);
        let version = flavor::version(&version_text);
        let (identity, gtids) = match flavor {
            Flavor::MySql => (
                variable(conn, "server_uuid").await?.unwrap_or_default(),
                variable(conn, "gtid_mode").await?.is_some_and(|m| m.eq_ignore_ascii_case("ON")),
            ),
            Flavor::MariaDb => (variable(conn, "server_id").await?.unwrap_or_default(), true),
        };
        let fold = variable(conn, "lower_case_table_names").await?.is_some_and(|v| v != "0");
        Ok(Server { flavor, version_text, version, identity, gtids, folding: Folding(fold) })
    }

    /// The log's end, and how far that is by GTID.
    pub async fn log_end(&self, conn: &mut Conn) -> Result<(Place, Gtids)> {
        let doing = "asking for the log's end";
        let row: Option<Row> =
            conn.query_first(self.flavor.log_status(self.version)).await.map_err(|e| errors::sql(doing, e))?;
        let Some(row) = row else {
            return Err(Error::new(Kind::Config, Side::Source, Retry::Operator, "the server writes no binary log")
                .fix("start the server with log_bin (and binlog_format = ROW)"));
        };
        let place =
            Place { file: text(&row, "File").unwrap_or_default(), offset: row.get::<u64, _>("Position").unwrap_or(4) };
        let gtids = match self.flavor {
            Flavor::MySql if self.gtids => Gtids::MySql(text(&row, "Executed_Gtid_Set").unwrap_or_default().parse()?),
            Flavor::MySql => Gtids::Off,
            Flavor::MariaDb => {
                let pos: Option<Option<String>> = conn
                    .exec_first("SELECT BINLOG_GTID_POS(?, ?)", (&place.file, place.offset))
                    .await
                    .map_err(|e| errors::sql(doing, e))?;
                Gtids::Maria(pos.flatten().unwrap_or_default().parse()?)
            }
        };
        Ok((place, gtids))
    }

    /// The files of the log and their sizes.
    pub async fn files(&self, conn: &mut Conn) -> Result<Vec<Place>> {
        let rows: Vec<Row> =
            conn.query("SHOW BINARY LOGS").await.map_err(|e| errors::sql("asking for the files of the log", e))?;
        Ok(rows
            .iter()
            .map(|r| Place { file: text(r, "Log_name").unwrap_or_default(), offset: number(r, 1).unwrap_or(0) })
            .collect())
    }
}

/// The character set of every collation.
pub async fn collations(conn: &mut Conn, server: &Server) -> Result<Collations> {
    let doing = "reading the collations";
    let mut rows: Vec<(Option<u64>, Option<String>)> = conn
        .query("SELECT CAST(ID AS UNSIGNED), CHARACTER_SET_NAME FROM information_schema.COLLATIONS")
        .await
        .map_err(|e| errors::sql(doing, e))?;
    if server.flavor == Flavor::MariaDb && server.version >= (10, 10, 0) {
        // collations that serve several character sets have a number for each
        let more: Vec<(Option<u64>, Option<String>)> = conn
            .query("SELECT CAST(ID AS UNSIGNED), CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY")
            .await
            .map_err(|e| errors::sql(doing, e))?;
        rows.extend(more);
    }
    Ok(Collations::new(rows.into_iter().filter_map(|(id, name)| Some((id?, name?)))))
}

/// A table's columns and key; `None` when there is no such table (or it is not to be seen).
pub async fn table(conn: &mut Conn, server: &Server, database: &str, name: &str) -> Result<Option<CatalogTable>> {
    let doing = format!("reading the columns of {database}.{name}");
    Ok(described(conn, server, database, Some(name), &doing).await?.into_values().next())
}

/// Columns and keys of all tables of a database.
pub async fn tables_of(conn: &mut Conn, server: &Server, database: &str) -> Result<BTreeMap<String, CatalogTable>> {
    described(conn, server, database, None, &format!("reading the columns of all tables of {database}")).await
}

/// Waits until a statement that has the table in its hands, and may stand in the log already, has ended. `false`: it takes
/// longer than the session wants to wait.
pub async fn settled(conn: &mut Conn, database: &str, name: &str) -> Result<bool> {
    // It opens the table, and for that waits for the metadata lock that CREATE, ALTER, RENAME and DROP hold to their end.
    let sql = format!("SHOW CREATE TABLE {}.{}", crate::sql::ident(database), crate::sql::ident(name));
    match conn.query_drop(sql).await {
        Ok(()) => Ok(true),
        Err(mysql_async::Error::Server(e)) if e.code == 1205 => Ok(false),
        // There is none, or it is not to be seen: the catalog says which.
        Err(mysql_async::Error::Server(_)) => Ok(true),
        Err(e) => Err(errors::sql(&format!("looking at {database}.{name}"), e)),
    }
}

async fn described(
    conn: &mut Conn,
    server: &Server,
    database: &str,
    name: Option<&str>,
    doing: &str,
) -> Result<BTreeMap<String, CatalogTable>> {
    let failed = |e| errors::sql(doing, e);
    // Without a name, the second parameter is the first again.
    let (only, name) = match name {
        Some(n) => ("TABLE_NAME = ?", n),
        None => ("TABLE_SCHEMA = ?", database),
    };
    let rows: Vec<Row> = conn
        .exec(
            format!(
                "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME,
                   CAST(CHARACTER_OCTET_LENGTH AS UNSIGNED), CAST(NUMERIC_PRECISION AS UNSIGNED),
                   CAST(NUMERIC_SCALE AS UNSIGNED), CAST(DATETIME_PRECISION AS UNSIGNED), IS_NULLABLE, EXTRA, TABLE_NAME
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND {only} ORDER BY TABLE_NAME, ORDINAL_POSITION"
            ),
            (database, name),
        )
        .await
        .map_err(failed)?;
    let string = |r: &Row, i: usize| match r.get::<Option<Vec<u8>>, _>(i) {
        Some(Some(b)) => String::from_utf8_lossy(&b).into_owned(),
        _ => String::new(),
    };
    let small = |r: &Row, i: usize| number(r, i).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let mut out: BTreeMap<String, CatalogTable> = BTreeMap::new();
    for r in &rows {
        out.entry(string(r, 10)).or_default().columns.push(CatalogColumn {
            name: string(r, 0),
            data_type: string(r, 1).to_ascii_lowercase(),
            column_type: string(r, 2),
            charset: Charset::named(&string(r, 3)),
            octets: number(r, 4).unwrap_or(0),
            decimal: (small(r, 5), small(r, 6)),
            digits: small(r, 7),
            nullable: string(r, 8) == "YES",
            json: false,
            extra: string(r, 9),
        });
    }
    if out.is_empty() {
        return Ok(out);
    }
    if server.flavor == Flavor::MariaDb {
        let sql =
            "SELECT TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ?";
        let sql = format!("{sql} AND {}", only.replace("TABLE_SCHEMA", "CONSTRAINT_SCHEMA"));
        let checks: Vec<(String, String)> = conn.exec(sql, (database, name)).await.map_err(failed)?;
        for (table, clause) in checks {
            for c in out.get_mut(&table).map_or(&mut [][..], |t| &mut t.columns) {
                c.json |= c.data_type == "longtext" && clause == format!("json_valid({})", crate::sql::ident(&c.name));
            }
        }
    }
    let keys: Vec<(String, String)> = conn
        .exec(
            format!(
                "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS
                 WHERE TABLE_SCHEMA = ? AND {only} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX"
            ),
            (database, name),
        )
        .await
        .map_err(failed)?;
    for (table, column) in keys {
        if let Some(t) = out.get_mut(&table) {
            t.key.extend(t.columns.iter().position(|c| c.name == column));
        }
    }
    if server.flavor == Flavor::MariaDb {
        let query = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE {VERSIONED} AND TABLE_SCHEMA = ? AND {only}"
        );
        let versioned: Vec<String> = conn.exec(query, (database, name)).await.map_err(failed)?;
        let query = format!(
            "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS
             WHERE GENERATION_EXPRESSION = 'ROW END' AND TABLE_SCHEMA = ? AND {only}"
        );
        let ends: Vec<(String, String)> = match versioned.is_empty() {
            true => Vec::new(),
            false => conn.exec(query, (database, name)).await.map_err(failed)?,
        };
        for table in versioned {
            if let Some(t) = out.get_mut(&table) {
                t.has_versions(ends.iter().find(|e| e.0 == table).map(|e| e.1.as_str()));
            }
        }
    }
    Ok(out)
}

/// Tables of which MariaDB keeps what their rows once were. Its log then has them, as rows of their own.
const VERSIONED: &str = "TABLE_TYPE = 'SYSTEM VERSIONED'";

/// Is it such a table?
pub async fn versioned(conn: &mut Conn, database: &str, name: &str) -> Result<bool> {
    let query = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE {VERSIONED} AND TABLE_SCHEMA = ? AND TABLE_NAME = ?"
    );
    let count: Option<u64> = conn
        .exec_first(query, (database, name))
        .await
        .map_err(|e| errors::sql(&format!("reading the kind of table {database}.{name}"), e))?;
    Ok(count.is_some_and(|n| n > 0))
}

impl CatalogTable {
    /// The log tells versions of a row apart by the column in which they end. Where the two columns of the period were not
    /// declared, the catalog does not tell of them, and they stand behind the others.
    fn has_versions(&mut self, end: Option<&str>) {
        if end.is_none() {
            for period in ["row_start", "row_end"] {
                self.columns.push(CatalogColumn {
                    name: period.into(),
                    data_type: "timestamp".into(),
                    column_type: "timestamp(6)".into(),
                    digits: 6,
                    ..CatalogColumn::default()
                });
            }
        }
        let end = end.unwrap_or("row_end");
        let place = self.columns.iter().position(|c| c.name == end);
        if let Some(place) = place.filter(|p| !self.key.is_empty() && !self.key.contains(p)) {
            self.key.push(place);
        }
    }
}

/// A table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Database.
    pub database: String,
    /// Name.
    pub name: String,
    /// The server's estimate of its rows.
    pub rows: Option<u64>,
    /// Has it a primary key?
    pub keyed: bool,
}

/// Every base table that the account can see.
pub async fn tables(conn: &mut Conn) -> Result<Vec<TableName>> {
    let failed = |e| errors::sql("looking for tables", e);
    let rows: Vec<Row> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME, CAST(TABLE_ROWS AS UNSIGNED) FROM information_schema.TABLES
             WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')
               AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
             ORDER BY 1, 2",
        )
        .await
        .map_err(failed)?;
    // Joined here: MariaDB would open every table for every table. Among the indexes, for it shows an account that may only
    // read no constraints.
    let keyed: HashSet<(String, String)> = conn
        .query(
            "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.STATISTICS WHERE INDEX_NAME = 'PRIMARY'",
        )
        .await
        .map_err(failed)?
        .into_iter()
        .collect();
    let string = |r: &Row, i: usize| match r.get::<Option<Vec<u8>>, _>(i) {
        Some(Some(b)) => String::from_utf8_lossy(&b).into_owned(),
        _ => String::new(),
    };
    Ok(rows
        .iter()
        .map(|r| {
            let (database, name) = (string(r, 0), string(r, 1));
            let keyed = keyed.contains(&(database.clone(), name.clone()));
            TableName { database, name, rows: number(r, 2), keyed }
        })
        .collect())
}

//! Preflight: everything that would stop the pipeline, or surprise its operator, told at once and each with the SQL that
//! mends it. Changes nothing.

use crate::{
    cascade,
    catalog::{self, Server, TableName},
    config::Config,
    conn::Link,
    flavor::Flavor,
    open, sql,
};
use mysql_async::{Conn, prelude::Queryable};
use seachange_database::{Report, SslMode};
use seachange_sdk::Check;
use std::sync::Arc;

/// Runs every check.
pub async fn check(flavor: Flavor, config: &Arc<Config>) -> Vec<Check> {
    let mut report = Report::default();
    let connector = sql::Connector::new(config.clone());
    let mut conn = match connector.connect().await {
        Ok(c) => c,
        Err(e) => {
            report.error("connection", &e);
            return report.0;
        }
    };
    report.pass("connection", format!("{config}"));
    let server = match Server::ask(&mut conn).await {
        Ok(s) => s,
        Err(e) => {
            report.error("server", &e);
            return report.0;
        }
    };
    match open::right_kind(flavor, &server) {
        Ok(()) => version(&mut report, &server),
        Err(e) => report.error("server", &e),
    }
    encryption(&mut report, &mut conn, config).await;
    log(&mut report, &mut conn, &server).await;
    privileges(&mut report, &mut conn, &server).await;
    match Link::connect(config).await {
        Ok(link) => {
            report.pass(
                "replication connection",
                format!("the account may open one; it will be replica {}", config.server_id),
            );
            link.close().await;
        }
        Err(e) => report.error("replication connection", &e),
    }
    match catalog::tables(&mut conn).await {
        Ok(tables) => captured(&mut report, config, &server, &tables),
        Err(e) => report.error("tables", &e),
    }
    match cascade::unlogged(&mut conn, &server, &config.selection).await {
        Ok(found) => {
            for u in found {
                report.warn(format!("table {}.{}", u.database, u.table), u.to_string(), cascade::REMEDY);
            }
        }
        Err(e) => report.error("foreign keys", &e),
    }
    report.0
}

fn version(report: &mut Report, server: &Server) {
    let text = format!("{} {}", server.flavor.name(), server.version_text);
    let least = match server.flavor {
        Flavor::MySql => (8, 0, 0),
        Flavor::MariaDb => (10, 5, 0),
    };
    if server.version < least {
        report.fail("version", text, format!("use {} {}.{} or newer", server.flavor.name(), least.0, least.1));
    } else {
        report.pass("version", text);
    }
}

async fn encryption(report: &mut Report, conn: &mut Conn, config: &Config) {
    let cipher: Option<(String, String)> = conn.query_first("SHOW STATUS LIKE 'Ssl_cipher'").await.unwrap_or(None);
    let encrypted = cipher.is_some_and(|c| !c.1.is_empty());
    match (encrypted, config.is_local()) {
        (false, false) => report.warn(
            "encryption",
            format!(
                "the connection to {} is not encrypted, and caching_sha2_password then sends the password under a key that the \
                 peer names and nobody has verified",
                config.host
            ),
            "switch TLS on at the server and set sslmode = \"verify-full\"",
        ),
        (true, false) if matches!(config.sslmode, SslMode::Prefer | SslMode::Require) && config.tls.root.is_none() => report.warn(
            "certificate",
            "the server's certificate is not verified",
            "set sslmode = \"verify-full\", and ssl_root_cert if its CA is your own",
        ),
        (encrypted, _) => {
            let how = if encrypted { format!("encrypted, sslmode {}", config.sslmode.name()) } else { "local".into() };
            report.pass("encryption", how);
        }
    }
}

async fn log(report: &mut Report, conn: &mut Conn, server: &Server) {
    let mut ask = async |name: &str| match catalog::variable(conn, name).await {
        Ok(v) => v.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let is = |v: &str, want: &str| v.eq_ignore_ascii_case(want);
    if is(&ask("log_bin").await, "ON") {
        report.pass("log_bin", "ON");
    } else {
        report.fail("log_bin", "the server writes no binary log", "start the server with log_bin");
        return;
    }
    let format = ask("binlog_format").await;
    if format.is_empty() || is(&format, "ROW") {
        report.pass("binlog_format", "ROW");
    } else {
        report.fail(
            "binlog_format",
            format!("{format}: changes are in the log as statements"),
            "run SET GLOBAL binlog_format = 'ROW'; (and in the server's configuration), and let all sessions reconnect",
        );
    }
    let image = ask("binlog_row_image").await;
    if image.is_empty() || is(&image, "FULL") {
        report.pass("binlog_row_image", "FULL");
    } else {
        let what = format!(
            "{image}: columns that a statement leaves alone are not in the log, and stand as unavailable in the records"
        );
        let fix = "run SET GLOBAL binlog_row_image = 'FULL'; (and in the server's configuration)";
        if server.flavor == Flavor::MySql && !server.gtids {
            report.fail("binlog_row_image", format!("{what}; without GTIDs there can be no snapshot then"), fix);
        } else {
            report.warn("binlog_row_image", what, fix);
        }
    }
    let metadata = ask("binlog_row_metadata").await;
    if is(&metadata, "FULL") {
        report.pass("binlog_row_metadata", "FULL");
    } else {
        report.warn(
            "binlog_row_metadata",
            format!(
                "{}: the log does not name columns; they are kept with the position and followed through the statements of the log, which \
                 fails for columns that were added and defined anew while the pipeline was stopped",
                if metadata.is_empty() { "not known to this server" } else { &metadata }
            ),
            "run SET GLOBAL binlog_row_metadata = 'FULL'; (and in the server's configuration)",
        );
    }
    if is(&ask("binlog_row_value_options").await, "PARTIAL_JSON") && !is(&image, "FULL") {
        report.fail(
            "binlog_row_value_options",
            "PARTIAL_JSON without whole old rows: changed documents cannot be put together",
            "run SET GLOBAL binlog_row_image = 'FULL'; or SET GLOBAL binlog_row_value_options = '';",
        );
    }
    if is(&ask("binlog_checksum").await, "NONE") {
        report.warn(
            "binlog_checksum",
            "NONE: damage to the log cannot be seen",
            "run SET GLOBAL binlog_checksum = 'CRC32';",
        );
    }
    if server.flavor == Flavor::MariaDb && is(&ask("mysql56_temporal_format").await, "OFF") {
        report.warn(
            "mysql56_temporal_format",
            "OFF: columns with fractions of a second are stored in a form that the log does not describe, and stop the stream",
            "run SET GLOBAL mysql56_temporal_format = ON; and ALTER TABLE ... FORCE; for tables that have such columns",
        );
    }
    if server.flavor == Flavor::MySql && !server.gtids {
        report.warn(
            "gtid_mode",
            "not ON: positions are files and offsets, which no other server understands (no failover), and the first start rotates the \
             log once (FLUSH BINARY LOGS)",
            "switch GTIDs on: enforce_gtid_consistency = ON, then gtid_mode by its four steps to ON",
        );
    }
    let expire =
        ask(if server.flavor == Flavor::MySql { "binlog_expire_logs_seconds" } else { "expire_logs_days" }).await;
    let seconds = expire.parse::<f64>().unwrap_or(0.0) * if server.flavor == Flavor::MySql { 1.0 } else { 86_400.0 };
    if seconds > 0.0 && seconds < 86_400.0 {
        report.warn(
            "log retention",
            format!("the log is kept for {seconds} seconds: a pipeline that is down for longer needs a new snapshot"),
            "run SET GLOBAL binlog_expire_logs_seconds = 259200; or more",
        );
    } else {
        report.pass(
            "log retention",
            if seconds == 0.0 { "until it is purged".into() } else { format!("{} hours", (seconds / 3600.0) as u64) },
        );
    }
}

async fn privileges(report: &mut Report, conn: &mut Conn, server: &Server) {
    let grants: Vec<String> = match conn.query("SHOW GRANTS").await {
        Ok(g) => g,
        Err(e) => {
            report.error("privileges", &crate::errors::sql("reading the account's grants", e));
            return;
        }
    };
    let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await.unwrap_or(None);
    let account = user.map_or("the account".into(), |u| match u.rsplit_once('@') {
        Some((name, host)) => format!("'{name}'@'{host}'"),
        None => u,
    });
    let global: Vec<String> =
        grants.iter().filter(|g| g.contains(" ON *.* ")).map(|g| g.to_ascii_uppercase()).collect();
    let has = |p: &str| global.iter().any(|g| g.contains(p) || g.contains("ALL PRIVILEGES"));
    let mut missing = Vec::new();
    if !has("REPLICATION SLAVE") {
        missing.push("REPLICATION SLAVE");
    }
    match server.flavor {
        Flavor::MySql if !has("REPLICATION CLIENT") => missing.push("REPLICATION CLIENT"),
        Flavor::MariaDb if !has("BINLOG MONITOR") && !has("REPLICATION CLIENT") => missing.push("BINLOG MONITOR"),
        _ => {}
    }
    if server.flavor == Flavor::MySql && !server.gtids && !has("RELOAD") {
        missing.push("RELOAD");
    }
    if missing.is_empty() {
        report.pass("replication privileges", account);
    } else {
        report.fail(
            "replication privileges",
            format!("{account} lacks {}", missing.join(", ")),
            format!("run GRANT {} ON *.* TO {account};", missing.join(", ")),
        );
    }
}

fn captured(report: &mut Report, config: &Config, server: &Server, tables: &[TableName]) {
    let mut n = 0;
    for p in &config.selection.include {
        if !tables.iter().any(|t| p.matches(&[&t.database, &t.name])) {
            let what = format!("the pattern {:?} matches no table that {} can see", p.text(), config.user);
            report.warn("tables", what, "check its spelling and case, and that the account may SELECT from it; a table that does not exist yet is captured when it appears");
        }
    }
    for t in tables.iter().filter(|t| config.selection.table(&t.database, &t.name)) {
        n += 1;
        let name = format!("table {}.{}", t.database, t.name);
        if t.keyed {
            report.pass(name, "captured");
        } else {
            let how = match server.flavor {
                Flavor::MariaDb => "is read in one piece",
                Flavor::MySql => {
                    "is read in one piece, and locked against writes for the moment in which that begins (LOCK TABLES)"
                }
            };
            report.warn(
                name,
                format!("has no primary key: its records have no key, and its snapshot {how}"),
                "give it a primary key",
            );
        }
    }
    if n > 0 {
        report.pass("tables", format!("{n} captured"));
    } else {
        report.fail("tables", "no table is captured", "see the patterns");
    }
}

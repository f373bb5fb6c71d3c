//! Preflight: everything that would stop the pipeline, or surprise its operator, told at once and each with the SQL that
//! mends it. Changes nothing.

use crate::{
    config::Config,
    conn::{CLEAR_TEXT, Replication},
    errors,
    slot::{self, Candidate, Publication, Slot},
    sql::{Connector, ident, literal, table},
};
use seachange_database::{Report, SslMode};
use seachange_sdk::{Check, Result};
use std::sync::Arc;
use tokio_postgres::Client;

/// What the server says about itself and the account.
struct Facts {
    version: i32,
    version_text: String,
    wal_level: String,
    standby: bool,
    slots: (i64, i64),
    senders: (i64, i64),
    replication: bool,
    superuser: bool,
    may_create: bool,
    keep: i64,
    encrypted: bool,
    standby_feedback: bool,
}

async fn facts(client: &Client) -> Result<Facts> {
    let r = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
               current_setting('wal_level'), pg_is_in_recovery(),
               (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::bigint,
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'),
               current_setting('max_wal_senders')::bigint, r.rolreplication, r.rolsuper,
               has_database_privilege(current_database(), 'CREATE'),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
               COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
               current_setting('hot_standby_feedback')::bool
             FROM pg_roles r WHERE r.rolname = current_user",
            &[],
        )
        .await
        .map_err(|e| errors::sql("asking the server about itself", e))?;
    Ok(Facts {
        version: r.get(0),
        version_text: r.get(1),
        wal_level: r.get(2),
        standby: r.get(3),
        slots: (r.get(4), r.get(5)),
        senders: (r.get(6), r.get(7)),
        replication: r.get(8),
        superuser: r.get(9),
        may_create: r.get(10),
        keep: r.get(11),
        encrypted: r.get(12),
        standby_feedback: r.get(13),
    })
}

/// Runs every check.
pub async fn check(config: &Arc<Config>) -> Vec<Check> {
    let mut report = Report::default();
    let connector = match Connector::new(config.clone()) {
        Ok(c) => c,
        Err(e) => {
            report.error("TLS files", &e);
            return report.0;
        }
    };
    // First the connection that refuses to send a password in clear text; a missing right to replicate is told below.
    let replication = Replication::connect(&connector).await;
    if let Err(e) = &replication
        && e.what().contains(CLEAR_TEXT)
    {
        report.error("connection", e);
        return report.0;
    }
    let client = match connector.connect().await {
        Ok(c) => c,
        Err(e) => {
            report.error("connection", &e);
            return report.0;
        }
    };
    report.pass("connection", format!("{config}"));
    let facts = match facts(&client).await {
        Ok(f) => f,
        Err(e) => {
            report.error("server", &e);
            return report.0;
        }
    };
    server(&mut report, config, &facts);
    if facts.replication || facts.superuser {
        match replication {
            Ok(_) => report.pass("replication connection", "the account may open one"),
            Err(e) => report.error("replication connection", &e),
        }
    }
    let publication = match slot::publication(&client, &config.publication).await {
        Ok(p) => p,
        Err(e) => {
            report.error("publication", &e);
            return report.0;
        }
    };
    match slot::candidates(&client, &config.selection, &config.publication).await {
        Ok(tables) => {
            publish(&mut report, config, &facts, publication.as_ref(), &tables);
            empty_patterns(&mut report, config, &tables);
            for t in &tables {
                one_table(&mut report, config, t);
            }
        }
        Err(e) => report.error("tables", &e),
    }
    match slot::find(&client, &config.slot).await {
        Ok(found) => slot_state(&mut report, config, &facts, found.as_ref()),
        Err(e) => report.error("slot", &e),
    }
    report.0
}

fn server(report: &mut Report, config: &Config, f: &Facts) {
    if f.version < 130_000 {
        report.fail("version", format!("PostgreSQL {}", f.version_text), "use PostgreSQL 13 or newer");
    } else {
        report.pass("version", format!("PostgreSQL {}", f.version_text));
    }
    if f.encrypted || config.is_local() {
        let how = if f.encrypted { format!("encrypted, sslmode {}", config.sslmode.name()) } else { "local".into() };
        report.pass("encryption", how);
    } else {
        report.warn(
            "encryption",
            format!("the connection to {} is not encrypted", config.host),
            "switch on ssl at the server and set sslmode = \"verify-full\"",
        );
    }
    if f.encrypted
        && !config.is_local()
        && matches!(config.sslmode, SslMode::Prefer | SslMode::Require)
        && config.tls.root.is_none()
    {
        report.warn(
            "certificate",
            "the server's certificate is not verified",
            "set sslmode = \"verify-full\" (and ssl_root_cert, if its CA is your own)",
        );
    }
    if f.wal_level == "logical" {
        report.pass("wal_level", "logical");
    } else {
        report.fail(
            "wal_level",
            format!("is {}", f.wal_level),
            "run ALTER SYSTEM SET wal_level = 'logical'; and restart the server",
        );
    }
    match (f.standby, f.version >= 160_000) {
        (false, _) => {}
        (true, false) => report.fail(
            "primary",
            "the server is a standby, and PostgreSQL before 16 cannot decode there",
            "connect to the primary",
        ),
        (true, true) => report.warn(
            "primary",
            format!(
                "the server is a standby: the publication must be made on the primary{}",
                if f.standby_feedback {
                    ""
                } else {
                    ", and hot_standby_feedback is off, so the slot can be invalidated"
                }
            ),
            "make the publication on the primary; on the standby run ALTER SYSTEM SET hot_standby_feedback = on; \
             SELECT pg_reload_conf();",
        ),
    }
    if f.replication || f.superuser {
        report.pass("replication privilege", format!("{} may replicate", config.user));
    } else {
        report.fail(
            "replication privilege",
            format!("{} may not replicate", config.user),
            format!("run as a superuser: ALTER ROLE {} REPLICATION;", ident(&config.user)),
        );
    }
    let (used, most) = f.senders;
    if used < most {
        report.pass("max_wal_senders", format!("{used} of {most} used"));
    } else {
        report.fail(
            "max_wal_senders",
            format!("all {most} are used"),
            format!("run ALTER SYSTEM SET max_wal_senders = {}; and restart the server", most + 4),
        );
    }
    if f.keep < 0 {
        report.warn(
            "max_slot_wal_keep_size",
            "is unlimited: a pipeline that stands still for long fills the server's disk",
            "bound it by what the disk can spare: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
        );
    } else {
        report.pass("max_slot_wal_keep_size", format!("{} MB: a pipeline further behind loses its slot", f.keep));
    }
}

fn names<'a>(list: impl IntoIterator<Item = &'a Candidate>) -> Vec<String> {
    list.into_iter().map(|c| table(&c.schema, &c.name)).collect()
}

fn publish(report: &mut Report, config: &Config, f: &Facts, found: Option<&Publication>, tables: &[Candidate]) {
    let wanted: Vec<&Candidate> = tables.iter().filter(|c| c.wanted()).collect();
    let name = &config.publication;
    let Some(p) = found else {
        let sql = slot::create_publication_sql(name, &names(wanted.iter().copied()));
        let others: Vec<&Candidate> = wanted.iter().copied().filter(|c| !c.owned).collect();
        let mut why = Vec::new();
        if !config.create {
            why.push("create = false".to_owned());
        }
        if !f.may_create {
            why.push(format!("{} may not create in this database", config.user));
        }
        if !others.is_empty() && !f.superuser {
            why.push(format!("{} does not own {}", config.user, names(others).join(", ")));
        }
        if why.is_empty() {
            report.pass("publication", format!("{name} will be made"));
        } else {
            report.fail(
                "publication",
                format!("{name} does not exist and cannot be made: {}", why.join("; ")),
                format!(
                    "run as the owner of the tables, who needs CREATE on the database (GRANT CREATE ON DATABASE {} TO ...;): {sql}",
                    ident(&config.database)
                ),
            );
        }
        return;
    };
    if p.all_tables {
        report.warn(
            "publication",
            format!("{name} is FOR ALL TABLES: the server decodes changes that are thrown away here"),
            "make one of just the captured tables, and name it with publication = \"...\"",
        );
    } else {
        report.pass("publication", format!("{name} exists, owned by {}", p.owner));
    }
    let missing: Vec<&Candidate> = wanted.iter().copied().filter(|c| !c.published).collect();
    if !missing.is_empty() {
        let sql = slot::add_tables_sql(name, &names(missing.iter().copied()));
        let mine = config.create && p.owned && missing.iter().all(|c| c.owned);
        if mine {
            report.pass("published tables", format!("{} will be added", names(missing).join(", ")));
        } else {
            report.fail(
                "published tables",
                format!("not in {name} and may not be added: {}", names(missing).join(", ")),
                format!("run as {}, who must own the tables: {sql}", ident(&p.owner)),
            );
        }
    }
    if tables.iter().any(|c| c.kind == b'p') && !p.via_root {
        report.warn(
            "publish_via_partition_root",
            format!("{name} publishes partitions under their own names"),
            format!("run ALTER PUBLICATION {} SET (publish_via_partition_root = true);", ident(name)),
        );
    }
    if p.publishes != [true; 4] {
        let all = ["insert", "update", "delete", "truncate"];
        let less: Vec<&str> = all.iter().zip(p.publishes).filter(|(_, yes)| !yes).map(|(n, _)| *n).collect();
        report.warn(
            "published operations",
            format!("{name} does not publish {}", less.join(", ")),
            format!("run ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');", ident(name)),
        );
    }
}

fn empty_patterns(report: &mut Report, config: &Config, tables: &[Candidate]) {
    let captured = tables.iter().filter(|c| c.wanted()).count();
    for p in &config.selection.include {
        if tables.iter().any(|t| p.matches(&[&t.schema, &t.name])) {
            continue;
        }
        let what = format!("the pattern {:?} matches no table that {} can see", p.text(), config.user);
        let fix = "check its spelling and case; a table that does not exist yet is captured when it appears";
        if captured == 0 { report.fail("tables", what, fix) } else { report.warn("tables", what, fix) }
    }
    if captured > 0 {
        report.pass("tables", format!("{captured} captured"));
    } else if !tables.is_empty() {
        report.fail("tables", "no table that matches can be captured", "see the tables below");
    }
}

fn one_table(report: &mut Report, config: &Config, t: &Candidate) {
    let name = format!("table {}.{}", t.schema, t.name);
    let quoted = table(&t.schema, &t.name);
    if let Some(why) = t.unpublishable() {
        report.warn(name, why, format!("leave it out: exclude = [\"{}.{}\"]", t.schema, t.name));
        return;
    }
    if t.partition {
        report.pass(name, "is captured as part of its partitioned table");
        return;
    }
    if !t.readable {
        report.fail(
            name,
            format!("{} may not read it, so it cannot be snapshot", config.user),
            format!(
                "run GRANT USAGE ON SCHEMA {} TO {u}; GRANT SELECT ON {quoted} TO {u};",
                ident(&t.schema),
                u = ident(&config.user)
            ),
        );
        return;
    }
    let full = format!("give it a primary key, or run ALTER TABLE {quoted} REPLICA IDENTITY FULL;");
    let identity = match t.identity {
        b'f' => true,
        b'n' => false,
        b'i' => t.identity_index,
        _ => t.primary_key,
    };
    if !identity {
        // An outage that publishing causes; but a table that is only inserted into is all right as it is.
        let when = if t.published { "it is published, so" } else { "once it is published," };
        let what = format!("has no replica identity: {when} the server refuses UPDATE and DELETE on it");
        report.warn(name, what, full);
        return;
    }
    if !t.primary_key && t.identity == b'f' {
        report.warn(
            name,
            "has no primary key: its records have no key, and its snapshot is read in one piece",
            "give it a primary key",
        );
        return;
    }
    let how = match t.identity {
        b'f' => "whole old rows",
        b'i' => "old key of the replica identity index",
        _ => "old primary key",
    };
    report.pass(name, format!("{} with {how}", if t.kind == b'p' { "partitioned," } else { "captured" }));
}

fn slot_state(report: &mut Report, config: &Config, f: &Facts, found: Option<&Slot>) {
    let name = &config.slot;
    let other = || "give the pipeline a slot of its own (slot = \"...\")".to_owned();
    let drop = || format!("run SELECT pg_drop_replication_slot({});", literal(name).trim_start());
    let Some(s) = found else {
        let (used, most) = f.slots;
        if !config.create {
            report.fail(
                "slot",
                format!("{name} does not exist, and create = false"),
                format!("run {}", slot::create_slot_sql(name, config.failover)),
            );
        } else if used >= most {
            report.fail(
                "max_replication_slots",
                format!("all {most} are used"),
                format!(
                    "drop unused slots, or run ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
                    most + 4
                ),
            );
        } else {
            report.pass("slot", format!("{name} will be made ({used} of {most} slots used)"));
        }
        if config.failover && f.version < 170_000 {
            report.warn("failover", "PostgreSQL before 17 has no failover slots", "remove failover = true");
        }
        return;
    };
    match s.plugin.as_deref() {
        Some("pgoutput") => {}
        Some(p) => report.fail("slot", format!("{name} has the output plugin {p}, not pgoutput"), other()),
        None => report.fail("slot", format!("{name} is a physical slot"), other()),
    }
    if s.plugin.is_some() && s.database.as_deref() != Some(config.database.as_str()) {
        let db = s.database.as_deref().unwrap_or_default();
        report.fail("slot", format!("{name} belongs to the database {db:?}"), other());
    }
    if s.is_lost() {
        report.fail(
            "slot state",
            format!("{name} has lost its log"),
            format!("{} and reset the pipeline's state for a new snapshot", drop()),
        );
    } else {
        match s.wal_status.as_deref() {
            Some("unreserved") => report.warn(
                "slot state",
                format!("{name} is about to lose its log"),
                "start the pipeline soon; raise max_slot_wal_keep_size",
            ),
            state => report.pass("slot state", format!("{name} is {}", state.unwrap_or("unknown"))),
        }
    }
    if let Some(pid) = s.active_pid {
        report.warn(
            "slot in use",
            format!("{name} is streamed by process {pid}: this pipeline if it runs, otherwise another"),
            "if the pipeline does not run, find out who uses its slot before starting it",
        );
    }
}

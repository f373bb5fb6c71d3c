//! Opening the stream: the one path of first start, restart and recovery.
//!
//! Order matters. The publication is made before the slot, because logical decoding looks it up in the catalog as it was
//! at each change. The slot is looked at before the stream is started, because only its state tells whether the log still
//! holds what comes after the stored position; if it does not, nothing is opened.

use crate::{
    catalog::Catalog,
    config::Config,
    conn::Replication,
    errors,
    position::{Lsn, PgPosition},
    slot::{self, PublicationPlan},
    snapshot::PgSnapshotter,
    source::{PgSource, Start},
    sql::{Connector, ident, literal},
};
use seachange_sdk::{Error, Kind, Opened, Position, Result, Retry, Side, SourceStatus};
use std::{sync::Arc, time::Duration};
use tokio_postgres::Client;

const ANEW: &str = "to go on without what was lost, reset the pipeline's state (seachange state reset): a new snapshot then makes \
                    the topics whole again, except for rows that were deleted meanwhile";

fn gap(what: String) -> Error {
    Error::new(Kind::Gap, Side::Source, Retry::Never, what).fix(ANEW)
}

/// What the server says about itself.
struct Server {
    version: u32,
    wal_level: String,
    sender_timeout: Duration,
    wal: (u64, u64),
    xid: u64,
    standby: bool,
}

async fn server(client: &Client) -> Result<Server> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_block_size'),
               pg_snapshot_xmax(pg_current_snapshot())::text",
            &[],
        )
        .await
        .map_err(|e| errors::sql("asking the server about itself", e))?;
    let number = |i: usize| row.get::<_, Option<i64>>(i).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    Ok(Server {
        version: u32::try_from(row.get::<_, i32>(0)).unwrap_or(0),
        wal_level: row.get(1),
        standby: row.get(2),
        sender_timeout: Duration::from_millis(number(3)),
        wal: (number(4), number(5)),
        xid: row.get::<_, String>(6).parse().map_err(|_| errors::protocol("a transaction id that is no number"))?,
    })
}

/// Opens the stream after `resume`.
pub async fn open(config: &Arc<Config>, resume: Option<&Position>, binary: bool) -> Result<Opened> {
    let resume = resume.map(PgPosition::decode).transpose()?;
    let connector = Connector::new(config.clone())?;
    // The replication connection first: it is the one that refuses to send a password in clear text to somebody else.
    let mut link = Replication::connect(&connector).await?;
    let client = connector.connect().await?;
    let server = server(&client).await?;
    let wrong = |what: String, fix: &str| Error::new(Kind::Config, Side::Source, Retry::Operator, what).fix(fix);
    if server.version < 130_000 {
        return Err(wrong(format!("the server is version {}", server.version), "use PostgreSQL 13 or newer"));
    }
    if server.wal_level != "logical" {
        return Err(wrong(
            format!("wal_level is {}", server.wal_level),
            "run ALTER SYSTEM SET wal_level = 'logical'; and restart the server",
        ));
    }
    if server.standby && server.version < 160_000 {
        return Err(wrong("the server is a standby".into(), "connect to the primary, or use PostgreSQL 16 or newer"));
    }
    let identity = link.query("IDENTIFY_SYSTEM", "asking for the system's identity").await?;
    let system: u64 = identity
        .first()
        .and_then(|r| r.first())
        .and_then(|c| c.as_deref())
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| errors::protocol("IDENTIFY_SYSTEM gave no system identifier"))?;
    if let Some(p) = &resume
        && p.system != system
    {
        return Err(gap(format!(
            "the stored position ({p}) belongs to the database system {}, and this server is {system}",
            p.system
        )));
    }

    let mut plan = PublicationPlan::new(config);
    // On a standby nothing can be made.
    plan.create &= !server.standby;
    let existing = slot::find(&client, &config.slot).await?;
    if let (Some(p), None) = (&resume, &existing) {
        return Err(gap(format!("slot {} is gone, and with it the log after the stored position ({p})", config.slot)));
    }
    let added =
        if server.standby { Vec::new() } else { slot::ensure_published(&client, &plan, &config.selection).await? };
    plan.tell_later(added);

    let position = match existing {
        Some(found) => PgPosition { system, ..position_of(config, &found, resume)? },
        None if !config.create => {
            return Err(wrong(
                format!("slot {} does not exist, and create = false", config.slot),
                &format!("run {}", slot::create_slot_sql(&config.slot, config.failover)),
            ));
        }
        None => {
            let at = slot::create(&mut link, config, server.version).await?;
            PgPosition { system, end: at.0, prev_commit: 0, inside: None }
        }
    };

    // The replication grammar knows no E'' strings, and a backslash is nothing special in it.
    let publication = ident(&config.publication).replace('\'', "''");
    let mut options = format!("proto_version '1', publication_names '{publication}'");
    if server.version >= 140_000 {
        options.push_str(", messages 'true'");
        if binary {
            options.push_str(", binary 'true'");
        }
    }
    let sql = format!("START_REPLICATION SLOT {} LOGICAL {} ({options})", ident(&config.slot), Lsn(position.end));
    if let Err(e) = link.start(&sql, "opening the stream").await {
        if e.kind() == Kind::Connect && e.what().contains("55006") {
            let pid = slot::find(&client, &config.slot).await?.and_then(|s| s.active_pid);
            return Err(slot::active(&config.slot, pid));
        }
        return Err(e);
    }
    tracing::info!(slot = config.slot, position = %position, "streaming");

    let catalog = Catalog::load(&client, &config.selection, &config.database).await?;
    let snapshotter =
        PgSnapshotter::new(connector.clone(), config.selection.clone(), config.database.clone(), plan).await?;
    let source = PgSource::new(Start {
        link,
        connector,
        client,
        catalog,
        position,
        near_xid: server.xid,
        sender_timeout: server.sender_timeout,
        wal: server.wal,
        binary,
    });
    Ok(Opened {
        source: Box::new(source),
        snapshotter: Arc::new(snapshotter),
        position: position.encode(),
        kept: vec![],
    })
}

/// Where to start on an existing slot, or why that cannot be.
fn position_of(config: &Config, found: &slot::Slot, resume: Option<PgPosition>) -> Result<PgPosition> {
    let name = &config.slot;
    let wrong = |what: String, fix: String| Error::new(Kind::Config, Side::Source, Retry::Operator, what).fix(fix);
    if found.plugin.as_deref() != Some("pgoutput") {
        let is = found.plugin.as_deref().unwrap_or("none: it is a physical slot");
        return Err(wrong(
            format!("slot {name} has another output plugin ({is})"),
            "give the pipeline a slot of its own (slot = \"...\")".into(),
        ));
    }
    if found.database.as_deref() != Some(config.database.as_str()) {
        let is = found.database.as_deref().unwrap_or_default();
        return Err(wrong(
            format!("slot {name} belongs to the database {is:?}, not to {:?}", config.database),
            "give the pipeline a slot of its own (slot = \"...\")".into(),
        ));
    }
    if found.is_lost() {
        return Err(gap(format!(
            "slot {name} has lost its log (wal_status {})",
            found.wal_status.as_deref().unwrap_or("unknown")
        ))
        .fix(format!(
            "run SELECT pg_drop_replication_slot({}); and raise max_slot_wal_keep_size; {ANEW}",
            literal(name).trim_start()
        )));
    }
    if let Some(pid) = found.active_pid {
        return Err(slot::active(name, Some(pid)));
    }
    let confirmed =
        found.confirmed.ok_or_else(|| errors::protocol(format!("slot {name} has no confirmed position")))?;
    match resume {
        None => Ok(PgPosition { system: 0, end: confirmed.0, prev_commit: 0, inside: None }),
        Some(p) if confirmed.0 > p.end => Err(gap(format!(
            "slot {name} has been moved to {confirmed}, beyond the stored position ({p}): the changes between are gone"
        ))),
        Some(p) => Ok(p),
    }
}

/// What the server says about the slot.
pub async fn status(client: &Client, name: &str) -> Result<SourceStatus> {
    let row = client
        .query_opt(
            "SELECT active, wal_status, safe_wal_size,
               (l.now - confirmed_flush_lsn)::bigint, (l.now - restart_lsn)::bigint
             FROM pg_replication_slots, (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
               ELSE pg_current_wal_lsn() END AS now) l WHERE slot_name = $1",
            &[&name],
        )
        .await
        .map_err(|e| errors::sql("asking about the slot", e))?;
    let Some(row) = row else { return Ok(SourceStatus { slot_state: Some("missing".into()), ..Default::default() }) };
    // The log's end may be read a moment before the confirmed position moves beyond it.
    let bytes = |i: usize| row.get::<_, Option<i64>>(i).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(SourceStatus {
        active: row.get(0),
        slot_state: row.get(1),
        safe_bytes: row.get(2),
        lag_bytes: bytes(3),
        retained_bytes: bytes(4),
    })
}

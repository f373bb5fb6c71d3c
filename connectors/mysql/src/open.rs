//! Opening the stream: at the log's end, or after a stored position if the server still has what follows it.
//!
//! A position by GTID is good on every server that has its transactions; one by file and offset on the server that gave it,
//! and on no other. Whatever is missing is named, and nothing is read past a hole.
//!
//! The first start, and what a snapshot may then miss. A transaction is in the log before it is visible. With MySQL's GTIDs
//! the start is `gtid_executed`, which holds visible transactions only. MariaDB tells the log's end together with a consistent
//! snapshot (`binlog_snapshot_position`): everything before it is visible. MySQL without GTIDs has neither: there the log is
//! rotated once (`FLUSH BINARY LOGS`), which the server does only when everything in the old file is committed in the
//! engines, and the stream starts with the new file. It costs one rotation and needs the privilege RELOAD.

use crate::{
    Configuration,
    assembler::{Assembler, Setup},
    cascade,
    catalog::{self, Server},
    config::Config,
    conn::{From, Link},
    errors,
    flavor::Flavor,
    gtid::{GtidPos, GtidSet},
    history::{Draft, History},
    lookahead::Lookahead,
    position::{self, Gtids, Place, Stand},
    snapshot::{MySqlSnapshotter, Shared},
    source::{MySqlSource, Start},
    sql,
};
use mysql_async::{Conn, prelude::Queryable};
use seachange_sdk::{Error, Kind, Opened, Result, Resume, Retry, Side};
use std::{collections::BTreeSet, sync::Arc};

const AGAIN: &str = "start the pipeline under a new name, so that it takes a new snapshot";

fn gap(what: String, fix: &str) -> Error {
    Error::new(Kind::Gap, Side::Source, Retry::Never, what).fix(fix)
}

/// Is it the kind of server that the configuration names?
pub fn right_kind(wanted: Flavor, server: &Server) -> Result<()> {
    if wanted == server.flavor {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        Side::Source,
        Retry::Operator,
        format!("the server is {} {}, not {}", server.flavor.name(), server.version_text, wanted.name()),
    )
    .fix(format!("set type = \"{}\" for the pipeline's source", server.flavor.kind())))
}

async fn settings(conn: &mut Conn) -> Result<()> {
    let on = |v: Option<String>, want: &str| v.is_some_and(|v| v.eq_ignore_ascii_case(want));
    let wrong = |what: &str, fix: &str| Err(Error::new(Kind::Config, Side::Source, Retry::Operator, what).fix(fix));
    if !on(catalog::variable(conn, "log_bin").await?, "ON") {
        return wrong("the server writes no binary log", "start the server with log_bin");
    }
    let format = catalog::variable(conn, "binlog_format").await?;
    if format.is_some() && !on(format, "ROW") {
        return wrong(
            "binlog_format is not ROW: changes would be in the log as statements",
            "SET GLOBAL binlog_format = 'ROW' (and in the server's configuration), and let all sessions reconnect",
        );
    }
    Ok(())
}

/// Where a new pipeline begins.
async fn first(conn: &mut Conn, server: &Server) -> Result<Stand> {
    let doing = "looking for the place to begin";
    let failed = |e| errors::sql(doing, e);
    let mut stand = Stand { server: server.identity.clone(), ..Stand::default() };
    match (server.flavor, server.gtids) {
        (Flavor::MySql, true) => (stand.place, stand.gtids) = server.log_end(conn).await?,
        (Flavor::MySql, false) => {
            conn.query_drop("FLUSH BINARY LOGS").await.map_err(|e| {
                errors::sql(doing, e).fix(
                    "without GTIDs the pipeline begins with a new log file: GRANT RELOAD ON *.* TO the account, or switch GTIDs on",
                )
            })?;
            let (end, _) = server.log_end(conn).await?;
            stand.place = Place { file: end.file, offset: 4 };
        }
        (Flavor::MariaDb, _) => {
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(failed)?;
            let place = snapshot_place(conn).await?;
            let pos: Option<Option<String>> =
                conn.exec_first("SELECT BINLOG_GTID_POS(?, ?)", (&place.file, place.offset)).await.map_err(failed)?;
            conn.query_drop("COMMIT").await.map_err(failed)?;
            stand.gtids = Gtids::Maria(pos.flatten().unwrap_or_default().parse()?);
            stand.place = place;
        }
    }
    Ok(stand)
}

/// MariaDB: where the log was when this session's snapshot was taken.
pub async fn snapshot_place(conn: &mut Conn) -> Result<Place> {
    let rows: Vec<(String, String)> = conn
        .query("SHOW STATUS LIKE 'binlog_snapshot_%'")
        .await
        .map_err(|e| errors::sql("asking where the snapshot is in the log", e))?;
    let value =
        |name: &str| rows.iter().find(|r| r.0.eq_ignore_ascii_case(name)).map(|r| r.1.clone()).unwrap_or_default();
    let file = value("Binlog_snapshot_file");
    let offset = value("Binlog_snapshot_position").parse().unwrap_or(4);
    if file.is_empty() {
        return Err(Error::new(
            Kind::Config,
            Side::Source,
            Retry::Operator,
            "the server does not tell where a snapshot is in its log",
        )
        .fix("start the server with log_bin"));
    }
    Ok(Place { file, offset })
}

/// Can this server go on after the stored position? Gives the position as this server sees it.
async fn resume(conn: &mut Conn, server: &Server, mut stand: Stand) -> Result<Stand> {
    let same = stand.server == server.identity;
    match (&stand.gtids, server.flavor) {
        (Gtids::MySql(set), Flavor::MySql) => {
            if !server.gtids {
                return Err(Error::new(
                    Kind::Config,
                    Side::Source,
                    Retry::Operator,
                    "the position is a GTID set, and gtid_mode is not ON",
                )
                .fix("switch gtid_mode on again"));
            }
            let ask = async |conn: &mut Conn, name: &str| -> Result<GtidSet> {
                catalog::variable(conn, name).await?.unwrap_or_default().parse()
            };
            let (purged, executed) = (ask(conn, "gtid_purged").await?, ask(conn, "gtid_executed").await?);
            let missing = purged.minus(set);
            if !missing.is_empty() {
                return Err(gap(
                    format!("the server has purged {missing} from its log, which the pipeline has not read"),
                    &format!(
                        "point the pipeline at a server that still has them (gtid_purged without them), or {AGAIN}"
                    ),
                ));
            }
            let foreign = set.minus(&executed);
            if !foreign.is_empty() {
                return Err(Error::new(
                    Kind::Gap,
                    Side::Source,
                    Retry::Operator,
                    format!("the pipeline has delivered {foreign}, which this server does not have"),
                )
                .fix(format!(
                    "if it is a replica that lags behind, wait; if it was reset or is another server, point the pipeline at the right one, or {AGAIN}"
                )));
            }
        }
        (Gtids::Maria(_), Flavor::MariaDb) => {}
        (Gtids::Off, _) => {
            if !same {
                return Err(gap(
                    format!(
                        "the position is {} of the server {}, and this is {}",
                        stand.place, stand.server, server.identity
                    ),
                    &format!(
                        "file and offset mean nothing on another server: point the pipeline at the right one, or switch GTIDs on and {AGAIN}"
                    ),
                ));
            }
            let files = server.files(conn).await?;
            let from = stand.restart.as_ref().map_or(&stand.place, |r| &r.0);
            match files.iter().find(|f| f.file == from.file) {
                None => {
                    let first = files.first().map_or("none", |f| f.file.as_str());
                    return Err(gap(
                        format!("the log file {} is gone from the server; its first is {first}", from.file),
                        &format!("keep the log longer (binlog_expire_logs_seconds), and {AGAIN}"),
                    ));
                }
                Some(f) if f.offset < from.offset => {
                    return Err(gap(
                        format!("the log file {} ends at {}, before the position {}", f.file, f.offset, from.offset),
                        &format!("the log was reset or lost its end in a crash (sync_binlog = 1 keeps it): {AGAIN}"),
                    ));
                }
                Some(_) => {}
            }
        }
        (_, flavor) => {
            return Err(gap(
                format!("the position is not one of {}", flavor.name()),
                &format!("point the pipeline at the server it was made for, or {AGAIN}"),
            ));
        }
    }
    if !same {
        tracing::info!(from = stand.server, to = server.identity, "going on by GTID at another server");
        stand.server.clone_from(&server.identity);
        stand.place = Place::default();
        if let Some((place, _)) = &mut stand.restart {
            *place = Place::default();
        }
    }
    Ok(stand)
}

/// The columns of all captured tables where a new stream begins.
async fn columns_at(
    conn: &mut Conn,
    server: &Server,
    config: &Config,
    place: &Place,
    ahead: &mut Lookahead,
    history: &mut History,
) -> Result<()> {
    let captured: Vec<_> = catalog::tables(conn).await?;
    let captured: Vec<_> = captured.iter().filter(|t| config.selection.table(&t.database, &t.name)).collect();
    let databases: BTreeSet<&str> = captured.iter().map(|t| t.database.as_str()).collect();
    let mut found = Vec::new();
    for database in databases {
        for (table, described) in catalog::tables_of(conn, server, database).await? {
            if config.selection.table(database, &table) {
                found.push((server.folding.table(database, &table), described));
            }
        }
    }
    // What was altered behind the place is not what the catalog says, or not yet: it is asked again when that comes.
    let end = server.log_end(conn).await?.0;
    ahead.read(config, place, &end).await?;
    for (name, described) in found {
        let followed = ahead.follow(place, &name, &Draft::unknown());
        if followed.changed.is_none() && followed.name.as_ref() == Some(&name) {
            history.set(name, Some(&described));
        }
    }
    Ok(())
}

/// Opens stream and snapshotter.
pub async fn open(of: &Configuration, at: Option<&Resume>) -> Result<Opened> {
    let connector = sql::Connector::new(of.config.clone());
    let mut conn = connector.connect().await?;
    let server = Server::ask(&mut conn).await?;
    right_kind(of.flavor, &server)?;
    settings(&mut conn).await?;
    for foreign_key in cascade::unlogged(&mut conn, &server, &of.config.selection).await? {
        tracing::warn!(fix = cascade::REMEDY, "{foreign_key}");
    }
    let collations = catalog::collations(&mut conn, &server).await?;
    let selection = position::fingerprint(&of.config.selection);
    let mut ahead = Lookahead::new(server.folding, collations.clone());
    let mut history = History::load(server.folding, &at.map(|a| a.kept.clone()).unwrap_or_default())?;
    let mut stand = match at {
        None => {
            let stand = first(&mut conn, &server).await?;
            columns_at(&mut conn, &server, &of.config, &stand.place, &mut ahead, &mut history).await?;
            stand
        }
        Some(a) => {
            let stand = Stand::decode(&a.position)?;
            if stand.rows > 0 && stand.selection != selection {
                return Err(Error::new(
                    Kind::Config,
                    Side::Own,
                    Retry::Operator,
                    "the captured tables were changed while the pipeline stands inside of a transaction",
                )
                .fix("put tables and exclude back, let the transaction pass, and change them then"));
            }
            resume(&mut conn, &server, stand).await?
        }
    };
    stand.selection = selection;
    let mut link = Link::connect(&of.config).await?;
    let pos: GtidPos;
    let from = match (&stand.gtids, &stand.restart) {
        (Gtids::MySql(set), _) => From::GtidSet(set),
        (Gtids::Maria(_), Some((_, before))) => {
            pos = before.clone();
            From::GtidPos(&pos)
        }
        (Gtids::Maria(p), None) => From::GtidPos(p),
        (Gtids::Off, Some((place, _))) => From::Place(place),
        (Gtids::Off, None) => From::Place(&stand.place),
    };
    link.dump(&of.config, &from).await?;
    let position = stand.encode();
    let kept = history.take_changes();
    let snapshotter = MySqlSnapshotter::new(Shared {
        connector: connector.clone(),
        server: server.clone(),
        collations: collations.clone(),
        start: stand.clone(),
    });
    let selection = of.config.selection.clone();
    let assembler = Assembler::new(Setup { flavor: server.flavor, selection, collations, stand, history });
    let source = MySqlSource::new(Start { link, assembler, connector, server, ahead, confirmed: of.confirmed.clone() });
    if let Err(e) = conn.disconnect().await {
        tracing::debug!(error = %e, "closing the session that opened the stream");
    }
    Ok(Opened { source: Box::new(source), snapshotter: Arc::new(snapshotter), position, kept })
}

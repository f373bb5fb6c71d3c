//! `seachange init`: a configuration to start with, from what is found in the database.

use crate::{
    catalog::{self, Server, TableName},
    check,
    config::{Config, DIALECT},
    sql::Connector,
};
use seachange_database::starter::{self, Starter, pipeline_name};
use seachange_sdk::{Result, Selection};
use std::{collections::BTreeMap, sync::Arc};

/// Looks into the database and writes the configuration.
pub async fn init(url: &str) -> Result<String> {
    let parsed = starter::parse(&DIALECT, url)?;
    let wanted = parsed.database.clone().filter(|d| !d.is_empty());
    let pipeline = pipeline_name(wanted.as_deref().unwrap_or("main"));
    let mut config = starter::configured(&DIALECT, &pipeline, url, Config::read)?;
    let mut conn = Connector::new(Arc::new(config.clone())).connect().await?;
    let server = Server::ask(&mut conn).await?;
    let found = catalog::tables(&mut conn).await?;

    let mut databases: BTreeMap<&str, Vec<&TableName>> = BTreeMap::new();
    for t in found.iter().filter(|t| wanted.as_ref().is_none_or(|w| *w == t.database)) {
        databases.entry(&t.database).or_default().push(t);
    }
    let patterns: Vec<String> = if databases.is_empty() {
        vec![starter::all_of(wanted.as_deref().unwrap_or("shop"))]
    } else {
        databases.keys().map(|d| starter::all_of(d)).collect()
    };
    let mut faults = Vec::new();
    config.settings.selection = Selection::parse("", &patterns, &[], &[], &mut faults);
    let checks = check::check(server.flavor, &Arc::new(config.clone())).await;

    let notes = databases.iter().map(|(database, list)| {
        let names: Vec<String> = list.iter().map(|t| t.name.escape_debug().to_string()).collect();
        (*database, names.join(", "))
    });
    let id = config.server_id;
    Ok(Starter {
        dialect: &DIALECT,
        url,
        place: format!("{} {}", server.flavor.name(), server.version_text),
        kind: server.flavor.kind(),
        pipeline: &pipeline,
        secret: parsed.secret(),
        found: notes.collect(),
        patterns: &patterns,
        more: vec![format!("server_id = {id}                     # the number under which it registers as a replica")],
        checks: &checks,
    }
    .write())
}

//! `seachange init`: a configuration to start with, from what is found in the database.

use crate::{
    check,
    config::{Config, DIALECT},
    conn::{CLEAR_TEXT, Replication},
    slot,
    sql::Connector,
};
use seachange_database::starter::{self, Starter, pipeline_name, quoted};
use seachange_sdk::{Result, Selection};
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// Looks into the database and writes the configuration.
pub async fn init(url: &str) -> Result<String> {
    let parsed = starter::parse(&DIALECT, url)?;
    let database = parsed.database.clone().or(parsed.user.clone()).unwrap_or_default();
    let pipeline = pipeline_name(&database);
    let mut config = starter::configured(&DIALECT, &pipeline, url, Config::read)?;
    let connector = Connector::new(Arc::new(config.clone()))?;
    if let Err(e) = Replication::connect(&connector).await
        && e.what().contains(CLEAR_TEXT)
    {
        return Err(e);
    }
    let client = connector.connect().await?;
    let found = slot::candidates(&client, &config.selection, &config.publication).await?;

    let mut schemas: BTreeMap<&str, Vec<&slot::Candidate>> = BTreeMap::new();
    for c in &found {
        schemas.entry(&c.schema).or_default().push(c);
    }
    schemas.retain(|_, list| list.iter().any(|c| c.wanted()));
    let patterns: Vec<String> =
        if schemas.is_empty() { vec!["public.*".into()] } else { schemas.keys().map(|s| starter::all_of(s)).collect() };
    let mut faults = Vec::new();
    config.settings.selection = Selection::parse("", &patterns, &[], &[], &mut faults);
    let checks = check::check(&Arc::new(config.clone())).await;

    let notes = schemas.iter().map(|(schema, list)| {
        let mut note = String::new();
        for c in list.iter().filter(|c| !c.partition) {
            let mark = if c.wanted() { "" } else { " (cannot be captured)" };
            let _ = write!(note, "{}{}{mark}", if note.is_empty() { "" } else { ", " }, c.name.escape_debug());
        }
        (*schema, note)
    });
    Ok(Starter {
        dialect: &DIALECT,
        url,
        place: format!("the database {}", quoted(&database)),
        kind: "postgres",
        pipeline: &pipeline,
        secret: parsed.secret(),
        found: notes.collect(),
        patterns: &patterns,
        more: vec![
            format!(
                "slot = {}, publication = {}: made at the first start",
                quoted(&config.slot),
                quoted(&config.publication)
            ),
            "heartbeat = \"10s\"                              # where this database is idle and its server is busy"
                .into(),
        ],
        checks: &checks,
    }
    .write())
}

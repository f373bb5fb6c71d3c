//! `seachange init`: a configuration to start with, from what is found in the database. Writes no password.

use crate::{
    check,
    config::{Config, Url},
    conn::{CLEAR_TEXT, Replication},
    slot,
    sql::Connector,
};
use seachange_sdk::{Error, Kind, Outcome, Result, Retry, Side};
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

fn usage(what: String) -> Error {
    Error::new(Kind::Config, Side::Source, Retry::Never, what).fix("write postgres://user@host:5432/database")
}

/// A bare TOML key from a database's name.
fn pipeline_name(database: &str) -> String {
    let name: String =
        database.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    if name.is_empty() { "main".into() } else { name }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A part of a pattern that matches just this name.
fn part(name: &str) -> String {
    let plain = !name.is_empty() && !name.contains(['.', '*', '?', '"']);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The URL without its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (address, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
    let (authority, path) = address.split_once('/').map_or((address, None), |(a, p)| (a, Some(p)));
    let authority = match authority.rsplit_once('@') {
        Some((login, host)) => format!("{}@{host}", login.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let mut out = format!("{scheme}://{authority}");
    if let Some(p) = path {
        out.push('/');
        out.push_str(p);
    }
    let kept: Vec<&str> =
        query.unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.starts_with("password=")).collect();
    if !kept.is_empty() {
        out.push('?');
        out.push_str(&kept.join("&"));
    }
    out
}

/// Looks into the database and writes the configuration.
pub async fn init(url: &str) -> Result<String> {
    let parsed = Url::parse(url).map_err(|e| usage(format!("the url {e}")))?;
    let database = parsed.database.clone().or(parsed.user.clone()).unwrap_or_default();
    let pipeline = pipeline_name(&database);
    let secret = parsed.password.is_some() || parsed.params.iter().any(|(k, _)| k == "password");
    let mut table = toml::Table::new();
    table.insert("url".into(), url.into());
    table.insert("tables".into(), toml::Value::Array(vec!["*.*".into()]));
    let path = format!("pipeline.{pipeline}.source");
    let config = Config::read(&pipeline, &path, &table)
        .map_err(|f| usage(f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let mut config = config;
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
    let patterns: Vec<String> = if schemas.is_empty() {
        vec!["public.*".into()]
    } else {
        schemas.keys().map(|s| format!("{}.*", part(s))).collect()
    };
    let mut faults = Vec::new();
    config.selection = seachange_sdk::Selection::parse(&path, &patterns, &[], &[], &mut faults);
    let checks = check::check(&Arc::new(config.clone())).await;

    let mut out = String::new();
    let mut line = |s: String| {
        out.push_str(&s);
        out.push('\n');
    };
    line(format!("# A configuration to start with, made from what is in the database {}.", quoted(&database)));
    line("# Try it with: seachange check --config FILE".into());
    line(String::new());
    line("[kafka]".into());
    line("bootstrap = \"127.0.0.1:9092\"".into());
    line(String::new());
    line("[server]".into());
    line("listen = \"127.0.0.1:9464\"                        # /metrics /healthz /readyz".into());
    line(String::new());
    line(format!("[pipeline.{pipeline}.source]"));
    line("type = \"postgres\"".into());
    line(format!("url = {}", quoted(&without_password(url))));
    if secret {
        line("password = \"${env:PGPASSWORD}\"".into());
    } else {
        line("# password = \"${env:PGPASSWORD}\"                 # or \"${file:/run/secrets/pg}\"".into());
    }
    for (schema, list) in &schemas {
        let mut note = String::new();
        for c in list.iter().filter(|c| !c.partition) {
            let mark = if c.wanted() { "" } else { " (cannot be captured)" };
            let _ = write!(note, "{}{}{mark}", if note.is_empty() { "" } else { ", " }, c.name.escape_debug());
        }
        line(format!("# {}: {note}", schema.escape_debug()));
    }
    if schemas.is_empty() {
        line(
            "# No table that can be captured was found. Tables that appear later are captured when they match.".into(),
        );
    }
    line(format!("tables = [{}]", patterns.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(", ")));
    line("# exclude = [\"public.tmp_*\"]".into());
    line("# columns.exclude = [\"public.users.password\"]".into());
    line("snapshot = \"initial\"                             # initial | never | only".into());
    line(format!(
        "# slot = {}, publication = {}: made at the first start",
        quoted(&config.slot),
        quoted(&config.publication)
    ));
    line(
        "# heartbeat = \"10s\"                              # where this database is idle and its server is busy"
            .into(),
    );
    line(String::new());
    line(format!("[pipeline.{pipeline}.topics]"));
    line("name = \"{pipeline}.{schema}.{table}\"".into());
    line(String::new());
    line(format!("[pipeline.{pipeline}.format]"));
    line("values = \"plain\"                                 # plain | debezium".into());
    line(String::new());
    line(format!("[pipeline.{pipeline}.sink]"));
    line("type = \"kafka\"                                   # kafka | stdout | file".into());

    let mut told = false;
    for c in &checks {
        let (word, what, fix) = match &c.outcome {
            Outcome::Pass(_) => continue,
            Outcome::Warn(what, fix) => ("NOTE", what, fix),
            Outcome::Fail(what, fix) => ("MISSING", what, fix),
        };
        if !told {
            line(String::new());
            line("# What was found that needs a look:".into());
            told = true;
        }
        // A name may hold a line break: nothing may leave the comment.
        line(format!("# {word} {}: {}", c.name.escape_debug(), what.replace(['\n', '\r'], " ")));
        line(format!("#   {}", fix.replace(['\n', '\r'], " ")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn passwords_stay_out() {
        assert_eq!(
            without_password("postgres://a:b@h:1/d?sslmode=require&password=x"),
            "postgres://a@h:1/d?sslmode=require"
        );
        assert_eq!(without_password("postgres://h/d?password=x"), "postgres://h/d");
        assert_eq!(without_password("postgres://a:p%40@h"), "postgres://a@h");
    }
    #[test]
    fn names() {
        assert_eq!(pipeline_name("my db.é"), "my_db__");
        assert_eq!((part("a"), part("a.b"), part("q\"")), ("a".into(), "\"a.b\"".into(), "\"q\"\"\"".into()));
    }
}

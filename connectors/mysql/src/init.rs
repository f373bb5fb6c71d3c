//! `seachange init`: a configuration to start with, from what is found in the database. Writes no password.

use crate::{
    catalog::{self, Server, TableName},
    check,
    config::{Config, Url},
    sql::Connector,
};
use seachange_sdk::{Error, Kind, Outcome, Result, Retry, Side};
use std::{collections::BTreeMap, sync::Arc};

fn usage(what: String) -> Error {
    Error::new(Kind::Config, Side::Source, Retry::Never, what).fix("write mysql://user@host:3306/database")
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
    let wanted = parsed.database.clone().filter(|d| !d.is_empty());
    let pipeline = pipeline_name(wanted.as_deref().unwrap_or("main"));
    let mut table = toml::Table::new();
    table.insert("url".into(), url.into());
    table.insert("tables".into(), toml::Value::Array(vec!["*.*".into()]));
    let path = format!("pipeline.{pipeline}.source");
    let mut config = Config::read(&pipeline, &path, &table)
        .map_err(|f| usage(f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let mut conn = Connector::new(Arc::new(config.clone())).connect().await?;
    let server = Server::ask(&mut conn).await?;
    let found = catalog::tables(&mut conn).await?;

    let mut databases: BTreeMap<&str, Vec<&TableName>> = BTreeMap::new();
    for t in found.iter().filter(|t| wanted.as_ref().is_none_or(|w| *w == t.database)) {
        databases.entry(&t.database).or_default().push(t);
    }
    let patterns: Vec<String> = if databases.is_empty() {
        vec![format!("{}.*", part(wanted.as_deref().unwrap_or("shop")))]
    } else {
        databases.keys().map(|d| format!("{}.*", part(d))).collect()
    };
    let mut faults = Vec::new();
    config.selection = seachange_sdk::Selection::parse(&path, &patterns, &[], &[], &mut faults);
    let checks = check::check(server.flavor, &Arc::new(config.clone())).await;

    let mut out = String::new();
    let mut line = |s: String| {
        out.push_str(&s);
        out.push('\n');
    };
    line(format!(
        "# A configuration to start with, made from what is in {} {}.",
        server.flavor.name(),
        server.version_text
    ));
    line("# Try it with: seachange check --config FILE".into());
    line(String::new());
    line("[kafka]".into());
    line("bootstrap = \"127.0.0.1:9092\"".into());
    line(String::new());
    line("[server]".into());
    line("listen = \"127.0.0.1:9464\"                        # /metrics /healthz /readyz".into());
    line(String::new());
    line(format!("[pipeline.{pipeline}.source]"));
    line(format!("type = \"{}\"", server.flavor.kind()));
    line(format!("url = {}", quoted(&without_password(url))));
    if parsed.password.is_some() {
        line("password = \"${env:MYSQL_PASSWORD}\"".into());
    } else {
        line("# password = \"${env:MYSQL_PASSWORD}\"             # or \"${file:/run/secrets/mysql}\"".into());
    }
    for (database, list) in &databases {
        let names: Vec<String> = list.iter().map(|t| t.name.escape_debug().to_string()).collect();
        line(format!("# {}: {}", database.escape_debug(), names.join(", ")));
    }
    if databases.is_empty() {
        line(
            "# No table that can be captured was found. Tables that appear later are captured when they match.".into(),
        );
    }
    line(format!("tables = [{}]", patterns.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(", ")));
    line("# exclude = [\"shop.tmp_*\"]".into());
    line("# columns.exclude = [\"shop.users.password\"]".into());
    line("snapshot = \"initial\"                             # initial | never | only".into());
    line(format!(
        "# server_id = {}                     # the number under which it registers as a replica",
        config.server_id
    ));
    line(String::new());
    line(format!("[pipeline.{pipeline}.topics]"));
    line("name = \"{pipeline}.{database}.{table}\"".into());
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
        assert_eq!(without_password("mysql://a:b@h:1/d?sslmode=require&password=x"), "mysql://a@h:1/d?sslmode=require");
        assert_eq!(without_password("mysql://h/d?password=x"), "mysql://h/d");
        assert_eq!(without_password("mysql://a:p%40@h"), "mysql://a@h");
    }
    #[test]
    fn names() {
        assert_eq!(pipeline_name("my db.é"), "my_db__");
        assert_eq!((part("a"), part("a.b"), part("q\"")), ("a".into(), "\"a.b\"".into(), "\"q\"\"\"".into()));
    }
}

//! `seachange init`: a configuration to start with, from what a connector has found in the database. Holds no password.

use crate::{
    settings::Dialect,
    url::{Url, without_password},
};
use seachange_sdk::{Check, Error, Fault, Kind, Outcome, Result, Retry, Side};

/// What the configuration is made from.
#[derive(Debug)]
pub struct Starter<'a> {
    /// The database's words.
    pub dialect: &'static Dialect,
    /// The URL that was given.
    pub url: &'a str,
    /// Where it was found: `the database "shop"`.
    pub place: String,
    /// The source's type.
    pub kind: &'a str,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Has the URL a password?
    pub secret: bool,
    /// Schemas or databases, each with the names of its tables.
    pub found: Vec<(&'a str, String)>,
    /// What is to be captured.
    pub patterns: &'a [String],
    /// Settings of this source's own, as comments.
    pub more: Vec<String>,
    /// What the preflight says.
    pub checks: &'a [Check],
}

fn usage(dialect: &Dialect, what: String) -> Error {
    Error::new(Kind::Config, Side::Source, Retry::Never, what).fix(format!("write {}", dialect.url()))
}

/// Parses the URL that was given.
pub fn parse(dialect: &Dialect, url: &str) -> Result<Url> {
    Url::parse(url, dialect.schemes).map_err(|e| usage(dialect, format!("the url {e}")))
}

/// The configuration of a source that has only a URL; `read` reads it from pipeline, path and table.
pub fn configured<C>(
    dialect: &Dialect,
    pipeline: &str,
    url: &str,
    read: impl FnOnce(&str, &str, &toml::Table) -> std::result::Result<C, Vec<Fault>>,
) -> Result<C> {
    let mut table = toml::Table::new();
    table.insert("url".into(), url.into());
    table.insert("tables".into(), toml::Value::Array(vec!["*.*".into()]));
    read(pipeline, &format!("pipeline.{pipeline}.source"), &table)
        .map_err(|f| usage(dialect, f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// A bare TOML key from a database's name.
pub fn pipeline_name(database: &str) -> String {
    let name: String =
        database.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    if name.is_empty() { "main".into() } else { name }
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A part of a pattern that matches just this name.
fn part(name: &str) -> String {
    let plain = !name.is_empty() && !name.contains(['.', '*', '?', '"']);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The pattern of everything in a schema or database.
pub fn all_of(space: &str) -> String {
    format!("{}.*", part(space))
}

impl Starter<'_> {
    /// Writes it.
    pub fn write(&self) -> String {
        let Starter { dialect, pipeline, .. } = self;
        let mut out = String::new();
        let mut line = |s: String| {
            out.push_str(&s);
            out.push('\n');
        };
        // A setting, and in a column of its own what to know about it.
        let noted = |setting: &str, note: &str| format!("{setting:<49}# {note}");
        line(format!("# A configuration to start with, made from what is in {}.", self.place));
        line("# Try it with: seachange check --config FILE".into());
        line(String::new());
        line("[kafka]".into());
        line("bootstrap = \"127.0.0.1:9092\"".into());
        line(String::new());
        line("[server]".into());
        line(noted("listen = \"127.0.0.1:9464\"", "/metrics /healthz /readyz"));
        line(String::new());
        line(format!("[pipeline.{pipeline}.source]"));
        line(format!("type = \"{}\"", self.kind));
        line(format!("url = {}", quoted(&without_password(self.url))));
        let password = format!("password = \"${{env:{}}}\"", dialect.password);
        if self.secret {
            line(password);
        } else {
            line(noted(&format!("# {password}"), &format!("or \"${{file:{}}}\"", dialect.password_file)));
        }
        for (space, tables) in &self.found {
            line(format!("# {}: {tables}", space.escape_debug()));
        }
        if self.found.is_empty() {
            let none = "No table that can be captured was found.";
            line(format!("# {none} Tables that appear later are captured when they match."));
        }
        line(format!("tables = [{}]", self.patterns.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(", ")));
        line(format!("# exclude = [\"{}.tmp_*\"]", dialect.example));
        line(format!("# columns.exclude = [\"{}.users.password\"]", dialect.example));
        line(noted("snapshot = \"initial\"", "initial | never | only"));
        self.more.iter().for_each(|s| line(format!("# {s}")));
        line(String::new());
        line(format!("[pipeline.{pipeline}.topics]"));
        line(format!("name = \"{{pipeline}}.{{{}}}.{{table}}\"", dialect.space));
        line(String::new());
        line(format!("[pipeline.{pipeline}.format]"));
        line(noted("values = \"plain\"", "plain | debezium"));
        line(String::new());
        line(format!("[pipeline.{pipeline}.sink]"));
        line(noted("type = \"kafka\"", "kafka | stdout | file"));

        let mut told = false;
        for c in self.checks {
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
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn names() {
        assert_eq!(pipeline_name("my db.é"), "my_db__");
        assert_eq!((part("a"), part("a.b"), part("q\"")), ("a".into(), "\"a.b\"".into(), "\"q\"\"\"".into()));
    }
}

//! Holds a document against the table of options: unknown names, wrong types, values out of bounds, missing ones.
//!
//! Every fault is noted and reading goes on, with the default in the place of what was wrong, so that one run finds them
//! all. What comes out may therefore be used only if no fault was noted: `resolve` and its caller see to that.
//! A fault never repeats a value, because any value may be a secret, if only by mistake.

use super::{
    keys::nearest,
    options::{Fallback, Kind, OPTIONS, Opt},
    raw::{Document, UNREADABLE, join},
    units,
};
use seachange_sdk::Fault;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use toml::{Table, Value};

/// A value of an option's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    /// Text, choice, template, path, address, filter.
    Text(String),
    /// Truth value.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Duration.
    Duration(Duration),
    /// Bytes.
    Size(u64),
    /// Names with texts.
    Map(BTreeMap<String, String>),
}

/// What was read.
#[derive(Default)]
pub struct Values {
    values: BTreeMap<String, Typed>,
    given: BTreeSet<String>,
    /// Pipelines, in order of name.
    pub pipelines: Vec<RawPipeline>,
    /// Is there a `[kafka]`?
    pub kafka: bool,
}

/// What of a pipeline is not in the table of options.
pub struct RawPipeline {
    /// Its name.
    pub name: String,
    /// The connector's part of `[pipeline.NAME.source]`.
    pub source: Table,
}

impl Values {
    /// Was this option given?
    pub fn given(&self, path: &str) -> bool {
        self.given.contains(path)
    }
    /// A text; empty when it is missing (which has been noted as a fault) or left to other options.
    pub fn text(&self, path: &str) -> &str {
        if let Some(Typed::Text(s)) = self.values.get(path) { s } else { "" }
    }
    /// A text, if there is one.
    pub fn maybe_text(&self, path: &str) -> Option<&str> {
        if let Some(Typed::Text(s)) = self.values.get(path) { Some(s) } else { None }
    }
    /// A truth value.
    pub fn bool(&self, path: &str) -> bool {
        matches!(self.values.get(path), Some(Typed::Bool(true)))
    }
    /// A number, if there is one.
    pub fn int(&self, path: &str) -> Option<i64> {
        if let Some(Typed::Int(n)) = self.values.get(path) { Some(*n) } else { None }
    }
    /// A duration.
    pub fn duration(&self, path: &str) -> Duration {
        if let Some(Typed::Duration(d)) = self.values.get(path) { *d } else { Duration::ZERO }
    }
    /// A size that fits into memory: the bounds in the table see to that.
    pub fn size(&self, path: &str) -> usize {
        if let Some(Typed::Size(n)) = self.values.get(path) { usize::try_from(*n).unwrap_or(usize::MAX) } else { 0 }
    }
    /// A map.
    pub fn map(&self, path: &str) -> BTreeMap<String, String> {
        if let Some(Typed::Map(m)) = self.values.get(path) { m.clone() } else { BTreeMap::new() }
    }
}

/// The tables of a pipeline.
const PARTS: &[&str] = &["source", "topics", "format", "sink", "limits"];
/// The tables of the file.
const ROOTS: &[&str] = &["kafka", "server", "log", "pipeline"];

/// Reads a document.
pub fn read(doc: &Document, faults: &mut Vec<Fault>) -> Values {
    let mut r = Reader { out: Values::default(), faults };
    r.known("", &doc.table, ROOTS, "table");
    for root in ["kafka", "server", "log"] {
        let table = r.table(root, doc.table.get(root));
        r.out.kafka |= root == "kafka" && doc.table.contains_key(root);
        // Without [kafka] nothing of it is missing, unless a pipeline needs it: `resolve` knows.
        if root != "kafka" || r.out.kafka {
            r.section(root, root, table.unwrap_or(&Table::new()));
        }
    }
    let pipelines = r.table("pipeline", doc.table.get("pipeline"));
    if pipelines.is_none_or(Table::is_empty) {
        r.fault("pipeline", "there is no pipeline", "add [pipeline.NAME.source]; `seachange init URL` writes one");
    }
    for (name, value) in pipelines.into_iter().flatten() {
        r.pipeline(name, value);
    }
    r.out
}

struct Reader<'a> {
    out: Values,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(Fault::new(path, what, fix));
    }

    /// Notes every name that is not known.
    fn known(&mut self, path: &str, table: &Table, names: &[&str], what: &str) {
        for key in table.keys().filter(|k| !names.contains(&k.as_str())) {
            let fix = match nearest(key, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", names.join(", ")),
            };
            self.fault(&join(path, key), format!("unknown {what}"), fix);
        }
    }

    fn table<'t>(&mut self, path: &str, value: Option<&'t Value>) -> Option<&'t Table> {
        match value? {
            Value::Table(t) => Some(t),
            other => {
                self.fault(path, format!("must be a table, not {}", name_of(other)), format!("write [{path}]"));
                None
            }
        }
    }

    fn pipeline(&mut self, name: &str, value: &Value) {
        let path = join("pipeline", name);
        if name.is_empty()
            || name.len() > 100
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            self.fault(
                &path,
                "a pipeline's name has letters, digits, - and _, at most 100",
                "rename it; the name is part of topics and of the transactional id",
            );
            return;
        }
        let Some(table) = self.table(&path, Some(value)) else { return };
        self.known(&path, table, PARTS, "table");
        for part in PARTS.iter().filter(|p| **p != "source") {
            let at = join(&path, part);
            let inner = self.table(&at, table.get(*part));
            self.section(&at, &format!("pipeline.NAME.{part}"), inner.unwrap_or(&Table::new()));
        }
        let at = join(&path, "source");
        let Some(inner) = table.get("source") else {
            self.fault(&at, "missing", "say where the changes come from: type, url, tables");
            return;
        };
        let Some(inner) = self.table(&at, Some(inner)) else { return };
        let source = self.source(&at, inner);
        self.out.pipelines.push(RawPipeline { name: name.to_owned(), source });
    }

    /// The core's part of a source; gives back the connector's.
    fn source(&mut self, path: &str, table: &Table) -> Table {
        let mut rest = Table::new();
        let mut own = Table::new();
        let mut snapshot = Table::new();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("type", v) => {
                    own.insert(key.clone(), v.clone());
                }
                ("snapshot", Value::Table(t)) => snapshot.clone_from(t),
                ("snapshot", v) => {
                    snapshot.insert("mode".into(), v.clone());
                }
                (k, _) if k.starts_with("snapshot") => {
                    let inner = k.trim_start_matches("snapshot").trim_start_matches(['_', '-', '.']);
                    let near = nearest(inner, keys_of("pipeline.NAME.source.snapshot"));
                    let fix = near.map_or("write snapshot = { mode = \"initial\" }".to_owned(), |n| {
                        format!("did you mean `snapshot.{n}`? Write snapshot = {{ {n} = ... }}")
                    });
                    self.fault(&join(path, k), "unknown option", fix);
                }
                (_, v) => {
                    rest.insert(key.clone(), v.clone());
                }
            }
        }
        self.section(path, "pipeline.NAME.source", &own);
        self.section(&join(path, "snapshot"), "pipeline.NAME.source.snapshot", &snapshot);
        rest
    }

    /// Reads the options of one table.
    fn section(&mut self, path: &str, pattern: &str, table: &Table) {
        self.known(path, table, &keys_of(pattern).collect::<Vec<_>>(), "option");
        for opt in OPTIONS.iter().filter(|o| o.section() == pattern) {
            let at = join(path, opt.key());
            let given = table.get(opt.key()).and_then(|v| self.value(&at, opt, v));
            if table.contains_key(opt.key()) {
                self.out.given.insert(at.clone());
            }
            let value = match (given, opt.default) {
                (Some(v), _) => Some(v),
                (None, Fallback::Required) => {
                    if !table.contains_key(opt.key()) {
                        self.fault(&at, "missing", format!("set it: {}", first_sentence(opt.doc)));
                    }
                    None
                }
                (None, Fallback::Value(text)) => default_of(opt.kind, text),
                (None, Fallback::Depends(_)) => None,
            };
            if let Some(v) = value {
                self.out.values.insert(at, v);
            }
        }
    }

    /// Reads one value; notes what is wrong with it.
    fn value(&mut self, path: &str, opt: &Opt, value: &Value) -> Option<Typed> {
        if value.as_str() == Some(UNREADABLE) {
            return None;
        }
        let got = if let (Kind::Map, Value::Table(t)) = (opt.kind, value) {
            let mut out = BTreeMap::new();
            self.flatten(path, "", t, &mut out);
            return Some(Typed::Map(out));
        } else {
            typed(opt.kind, value)
        };
        got.map_err(|(what, fix)| self.fault(path, what, fix)).ok()
    }

    /// `compression.type = "lz4"` without quotes is a table in a table: joins the names again.
    fn flatten(&mut self, path: &str, prefix: &str, table: &Table, out: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let at = join(path, key);
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let text = match value {
                Value::Table(t) => {
                    self.flatten(&at, &name, t, out);
                    continue;
                }
                Value::String(s) => s.clone(),
                Value::Integer(n) => n.to_string(),
                Value::Float(n) => n.to_string(),
                Value::Boolean(b) => b.to_string(),
                other => {
                    let what = format!("must be text, a number, true or false, not {}", name_of(other));
                    self.fault(&at, what, "write it in quotes");
                    continue;
                }
            };
            if out.insert(name.clone(), text).is_some() {
                self.fault(&at, format!("{name} is given twice"), "keep one of the two");
            }
        }
    }
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(move |o| o.section() == section).map(Opt::key)
}

fn first_sentence(doc: &str) -> &str {
    doc.split_inclusive(['.', ':']).next().unwrap_or(doc).trim_end_matches(['.', ':'])
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The default of an option as a value. A test holds every default in the table against this.
fn default_of(kind: Kind, text: &str) -> Option<Typed> {
    let value = match kind {
        Kind::Map => return Some(Typed::Map(BTreeMap::new())),
        Kind::Bool => Value::Boolean(text == "true"),
        Kind::Int(..) => Value::Integer(text.parse().ok()?),
        _ => Value::String(text.to_owned()),
    };
    typed(kind, &value).ok()
}

type Wrong = (String, String);

fn wrong<T>(what: impl Into<String>, fix: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), fix.into()))
}

/// Reads a value of a kind, or says what is wrong with it.
fn typed(kind: Kind, value: &Value) -> Result<Typed, Wrong> {
    let expect = |what: &str, fix: String| wrong(format!("must be {what}, not {}", name_of(value)), fix);
    match (kind, value) {
        (Kind::Bool, Value::Boolean(b)) => Ok(Typed::Bool(*b)),
        (Kind::Bool, _) => expect("true or false", "write true or false, without quotes".into()),

        (Kind::Int(lo, hi), Value::Integer(n)) => {
            if (lo..=hi).contains(n) {
                Ok(Typed::Int(*n))
            } else {
                wrong("out of bounds", format!("choose a number from {lo} to {hi}"))
            }
        }
        (Kind::Int(lo, hi), _) => expect("a whole number", format!("write a number from {lo} to {hi}, without quotes")),

        (Kind::Duration(lo, hi), Value::String(s)) => {
            match (units::duration(s), units::duration(lo), units::duration(hi)) {
                (None, ..) => wrong("not a duration", units::DURATION),
                (Some(d), Some(l), Some(h)) if d < l || d > h => {
                    wrong("out of bounds", format!("choose a duration from {lo} to {hi}"))
                }
                (Some(d), ..) => Ok(Typed::Duration(d)),
            }
        }
        (Kind::Duration(..), _) => expect("a duration", units::DURATION.into()),

        (Kind::Size(lo, hi), Value::String(_) | Value::Integer(_)) => {
            let size = match value {
                Value::String(s) => units::size(s),
                other => other.as_integer().and_then(|n| u64::try_from(n).ok()),
            };
            match (size, units::size(lo), units::size(hi)) {
                (None, ..) => wrong("not a size", units::SIZE),
                (Some(n), Some(l), Some(h)) if n < l || n > h => {
                    wrong("out of bounds", format!("choose a size from {lo} to {hi}"))
                }
                (Some(n), ..) => Ok(Typed::Size(n)),
            }
        }
        (Kind::Size(..), _) => expect("a size", units::SIZE.into()),

        (Kind::Map, Value::Table(_)) => Ok(Typed::Map(BTreeMap::new())),
        (Kind::Map, _) => expect("a table", "write { \"name\" = \"value\" }".into()),

        (_, Value::String(s)) => text(kind, s).map(Typed::Text),
        (Kind::Choice(words), _) => expect("text", format!("write one of \"{}\"", words.join("\", \""))),
        (_, _) => expect("text", "write it in quotes".into()),
    }
}

/// Checks a text of a kind.
fn text(kind: Kind, s: &str) -> Result<String, Wrong> {
    if s.is_empty() {
        return wrong("empty", "give it a value, or leave the line out");
    }
    match kind {
        Kind::Choice(words) if !words.contains(&s) => {
            let all = format!("choose one of {}", words.join(", "));
            let fix = nearest(s, words.iter().copied()).map_or(all.clone(), |n| format!("did you mean `{n}`? ({all})"));
            wrong("not one of the possible values", fix)
        }
        Kind::Listen => {
            let addr = s.strip_prefix("localhost:").map_or(s.to_owned(), |port| format!("127.0.0.1:{port}"));
            if s == "off" || addr.parse::<SocketAddr>().is_ok() {
                Ok(addr)
            } else {
                wrong("not an address", "write an IP address and a port, \"127.0.0.1:9464\", or \"off\"")
            }
        }
        Kind::Template(known) => template(s, known).map(|()| s.to_owned()),
        Kind::Filter => match tracing_subscriber::EnvFilter::builder().parse(s) {
            Ok(_) => Ok(s.to_owned()),
            Err(_) => wrong("not a log filter", "write error, warn, info, debug or trace, or \"info,seachange=debug\""),
        },
        _ => Ok(s.to_owned()),
    }
}

/// Checks a topic template.
fn template(s: &str, known: &[&str]) -> Result<(), Wrong> {
    let list = || known.iter().map(|k| format!("{{{k}}}")).collect::<Vec<_>>().join(", ");
    let mut rest = s;
    let mut fixed = 0;
    loop {
        let open = rest.find('{').unwrap_or(rest.len());
        let literal = &rest[..open];
        if literal.contains('}') {
            return wrong("a } without its {", format!("placeholders are {}", list()));
        }
        if !literal.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
            return wrong("has characters that a topic name cannot have", "use letters, digits, dot, - and _");
        }
        fixed += literal.len();
        if open == rest.len() {
            break;
        }
        let Some(close) = rest[open..].find('}') else {
            return wrong("a { without its }", format!("placeholders are {}", list()));
        };
        let name = &rest[open + 1..open + close];
        if !known.contains(&name) {
            let fix = nearest(name, known.iter().copied())
                .map_or(format!("placeholders are {}", list()), |n| format!("did you mean `{{{n}}}`?"));
            return wrong("has an unknown placeholder", fix);
        }
        rest = &rest[open + close + 1..];
    }
    if fixed > 249 {
        return wrong("too long", "a topic name has at most 249 characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn every_default_and_bound_in_the_table_is_a_value_of_its_kind() {
        for o in OPTIONS {
            if let Fallback::Value(text) = o.default {
                assert!(default_of(o.kind, text).is_some(), "{}: {text}", o.path);
            }
            match o.kind {
                Kind::Duration(lo, hi) => assert!(units::duration(lo).unwrap() < units::duration(hi).unwrap()),
                Kind::Size(lo, hi) => assert!(units::size(lo).unwrap() < units::size(hi).unwrap()),
                _ => {}
            }
        }
    }
    #[test]
    fn templates() {
        let known = &["pipeline", "table"];
        for good in ["a", "{pipeline}.{table}", "a-_b.{table}"] {
            assert_eq!(template(good, known), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("{tabel}", "did you mean `{table}`"),
            ("{}", "{pipeline}, {table}"),
            ("{x", "placeholders"),
            ("x}", "placeholders"),
            ("a b", "letters"),
        ] {
            let (what, fix) = template(bad, known).unwrap_err();
            assert!(fix.contains(says), "{bad}: {what}; {fix}");
        }
        assert!(template(&"x".repeat(250), known).is_err());
    }
}

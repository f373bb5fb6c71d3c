//! `docs/configuration.md` and `docs/config.schema.json`, written from the table of options.
//!
//! Both are checked in; a test fails when they are not what this module writes. Run it with `UPDATE=1` to write them.

use super::options::{Fallback, Kind, OPTIONS, Opt, SECTIONS};
use serde_json::{Map, Value, json};
use std::fmt::Write;

const HEAD: &str = "# Configuration

<!-- Written from src/config/options.rs by `UPDATE=1 cargo test --test docs`: change it there. -->

One TOML file, given with `--config`. `seachange check --config FILE` reports every fault in it at once, with line, path and
remedy, and then asks database and Kafka whether they are ready. `seachange init URL` writes a first file.

- Any text value may hold `${env:NAME}` (an environment variable) and `${file:/path}` (a file's content, without its last line
  end); `$${` stands for `${` itself. They are read once, at start. Values never appear in logs, errors or metrics.
- Durations are texts with a unit: `\"500ms\"`, `\"10s\"`, `\"5m\"`, `\"1h\"`. Sizes are numbers of bytes or texts with a unit:
  `\"64KiB\"`, `\"64MiB\"`, `\"1GiB\"`.
- `NAME` is the pipeline's name: letters, digits, `-` and `_`. It is part of topics, of the transactional id and of every
  metric. Several pipelines in one file run beside each other and never disturb one another.

A complete file:

```toml
[kafka]
bootstrap = \"127.0.0.1:9092\"
properties = { \"compression.type\" = \"lz4\" }

[server]
listen = \"127.0.0.1:9464\"

[pipeline.shop.source]
type = \"postgres\"
url = \"postgres://cdc@127.0.0.1:5432/shop\"
password = \"${env:PGPASSWORD}\"
tables = [\"public.*\"]
snapshot = \"initial\"

[pipeline.shop.topics]
name = \"{pipeline}.{schema}.{table}\"

[pipeline.shop.format]
values = \"plain\"

[pipeline.shop.sink]
type = \"kafka\"
```
";

fn kind(k: Kind) -> String {
    let list = |words: &[&str]| words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
    match k {
        Kind::Text => "text".into(),
        Kind::Choice(words) => list(words),
        Kind::Bool => "`true`, `false`".into(),
        Kind::Int(lo, hi) => format!("number, {lo} to {hi}"),
        Kind::Duration(lo, hi) => format!("duration, {lo} to {hi}"),
        Kind::Size(lo, hi) => format!("size, {lo} to {hi}"),
        Kind::Listen => "address:port, or `off`".into(),
        Kind::Map => "table".into(),
        Kind::Template(names) => {
            format!("topic name with {}", names.iter().map(|n| format!("`{{{n}}}`")).collect::<Vec<_>>().join(", "))
        }
        Kind::Path => "file".into(),
        Kind::Filter => "log filter".into(),
    }
}

/// The page.
pub fn page() -> String {
    let mut out = String::from(HEAD);
    for (section, doc) in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n## `[{section}]`\n\n{doc}\n\n| option | is | default | what it does |\n| --- | --- | --- | --- |\n"
        );
        for o in OPTIONS.iter().filter(|o| o.section() == *section) {
            let default = match o.default {
                Fallback::Required => "needed".into(),
                Fallback::Value(v) => format!("`{v}`"),
                Fallback::Depends(text) => text.to_owned(),
            };
            let _ = writeln!(out, "| `{}` | {} | {default} | {} |", o.key(), kind(o.kind), o.doc);
        }
    }
    out
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> Value {
    let mut pipeline = Map::new();
    let mut root = Map::new();
    for (section, doc) in SECTIONS {
        let Some(part) = section.strip_prefix("pipeline.NAME.") else {
            root.insert((*section).to_owned(), object(section, doc, false));
            continue;
        };
        if part == "source.snapshot" {
            continue;
        }
        let mut table = object(section, doc, part == "source");
        if part == "source"
            && let Some(p) = table["properties"].as_object_mut()
        {
            let inner = "pipeline.NAME.source.snapshot";
            let words = OPTIONS.iter().find(|o| o.section() == inner && o.key() == "mode").map(value);
            p.insert(
                "snapshot".into(),
                json!({ "anyOf": [words, object(inner, "How to read what is there.", false)] }),
            );
        }
        pipeline.insert(part.to_owned(), table);
    }
    root.insert(
        "pipeline".into(),
        json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,100}$" },
            "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["source"], "properties": pipeline,
            },
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Seachange configuration",
        "type": "object",
        "additionalProperties": false,
        "required": ["pipeline"],
        "properties": root,
    })
}

fn object(section: &str, doc: &str, open: bool) -> Value {
    let own = || OPTIONS.iter().filter(|o| o.section() == section);
    let properties: Map<String, Value> = own().map(|o| (o.key().to_owned(), value(o))).collect();
    let required: Vec<&str> = own().filter(|o| o.default == Fallback::Required).map(Opt::key).collect();
    json!({
        "description": doc, "type": "object", "additionalProperties": open, "required": required,
        "properties": properties,
    })
}

fn value(o: &Opt) -> Value {
    let mut v = match o.kind {
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int(lo, hi) => json!({ "type": "integer", "minimum": lo, "maximum": hi }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h)$" }),
        Kind::Size(..) => json!({ "anyOf": [
            { "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)?$" },
        ] }),
        Kind::Map => json!({ "type": "object" }),
        _ => json!({ "type": "string", "minLength": 1 }),
    };
    v["description"] = o.doc.into();
    if let Fallback::Value(d) = o.default {
        v["default"] = match o.kind {
            Kind::Bool => Value::Bool(d == "true"),
            Kind::Int(..) => d.parse::<i64>().map_or(Value::Null, Value::from),
            Kind::Map => json!({}),
            _ => d.into(),
        };
    }
    v
}

//! `seachange init URL`: a first configuration that works.

use super::{Failure, block_on};
use seachange_sdk::Connector;
use std::io::Write;

const HEAD: &str = "# A first configuration for Seachange.
#   check it:  seachange check --config FILE
#   run it:    seachange run --config FILE
";

const KAFKA: &str = r#"
[kafka]
bootstrap = "127.0.0.1:9092"
properties = { "compression.type" = "lz4" }   # any librdkafka property: TLS, SASL ...
"#;

const SERVER: &str = r#"
[server]
listen = "127.0.0.1:9464"                     # /metrics, /healthz, /readyz
"#;

const TOPICS: &str = r#"name = "{pipeline}.{schema}.{table}"          # the names that Debezium would use
partitions = 1                                # of topics that Seachange creates
"#;

const FORMAT: &str = r#"values = "plain"                              # or "debezium", for a drop-in
"#;

const SINK: &str = r#"type = "kafka"                                # exactly once; stdout and file are for trying things out
"#;

pub(super) fn init(url: &str, connectors: &[&'static dyn Connector]) -> Result<(), Failure> {
    // The URL may hold a password: it is not repeated.
    let scheme = url.split_once("://").map_or("", |(s, _)| s);
    let Some(connector) = connectors.iter().find(|c| c.schemes().contains(&scheme)) else {
        let known: Vec<String> = connectors.iter().flat_map(|c| c.schemes()).map(|s| format!("{s}://")).collect();
        return Err(Failure::Config(format!(
            "no connector of this build knows this kind of URL\n  -> it begins with one of: {}",
            known.join(", ")
        )));
    };
    let text = compose(&block_on(connector.init(url))??)?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| Failure::Run(format!("standard output cannot be written: {e}")))
}

/// Puts the connector's part between the others; leaves out those that it has written itself.
fn compose(source: &str) -> Result<String, Failure> {
    let bug = |what: &str| Failure::Run(format!("the connector wrote {what}: a fault of Seachange, please report it"));
    let table: toml::Table = source.parse().map_err(|_| bug("no TOML"))?;
    let pipelines = table.get("pipeline").and_then(|p| p.as_table());
    let (name, own) = pipelines.and_then(|p| p.iter().next()).ok_or_else(|| bug("no pipeline"))?;
    let mut out = String::from(HEAD);
    for (root, text) in [("kafka", KAFKA), ("server", SERVER)] {
        if !table.contains_key(root) {
            out += text;
        }
    }
    out += &format!("\n{}\n", source.trim());
    for (part, text) in [("topics", TOPICS), ("format", FORMAT), ("sink", SINK)] {
        if own.get(part).is_none() {
            out += &format!("\n[pipeline.{name}.{part}]\n{text}");
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn composes_a_whole_file() {
        let Ok(text) = compose("# found 3 tables\n[pipeline.shop.source]\ntype = \"postgres\"\n") else { panic!() };
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["pipeline"]["shop"]["sink"]["type"].as_str(), Some("kafka"));
        assert_eq!(table["pipeline"]["shop"]["topics"]["name"].as_str(), Some("{pipeline}.{schema}.{table}"));
        // Every option that is written is one that there is.
        for key in ["kafka.bootstrap", "kafka.properties", "server.listen"] {
            assert!(crate::config::options::OPTIONS.iter().any(|o| o.path == key), "{key}");
        }
        let Ok(text) = compose("[kafka]\nbootstrap = 'x:1'\n[pipeline.a.source]\n[pipeline.a.sink]\n") else {
            panic!()
        };
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["kafka"]["bootstrap"].as_str(), Some("x:1"));
        assert_eq!(table["pipeline"]["a"]["topics"]["partitions"].as_integer(), Some(1));
        assert!(compose("x = ").is_err() && compose("[a]").is_err());
    }
}

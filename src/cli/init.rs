//! `seachange init URL`: a first configuration that works.

use super::{Failure, block_on};
use seachange_sdk::Connector;
use std::io::Write;

const HEAD: &str = r#"# A first configuration for Seachange. Check it:  seachange check --config FILE
#                                       run it:    seachange run --config FILE

[kafka]
bootstrap = "127.0.0.1:9092"
properties = { "compression.type" = "lz4" }   # any librdkafka property: TLS, SASL ...

[server]
listen = "127.0.0.1:9464"                     # /metrics, /healthz, /readyz
"#;

fn tail(pipeline: &str) -> String {
    format!(
        r#"
[pipeline.{pipeline}.topics]
name = "{{pipeline}}.{{schema}}.{{table}}"        # the names that Debezium would use
partitions = 1                                # of topics that Seachange creates

[pipeline.{pipeline}.format]
values = "plain"                              # or "debezium", for a drop-in

[pipeline.{pipeline}.sink]
type = "kafka"                                # exactly once; stdout and file are for trying things out
"#
    )
}

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

/// Puts the connector's part between the others.
fn compose(source: &str) -> Result<String, Failure> {
    let bug = |what: &str| Failure::Run(format!("the connector wrote {what}: a fault of Seachange, please report it"));
    let table: toml::Table = source.parse().map_err(|_| bug("no TOML"))?;
    let pipeline = table.get("pipeline").and_then(|p| p.as_table()).and_then(|p| p.keys().next());
    let pipeline = pipeline.ok_or_else(|| bug("no pipeline"))?;
    Ok(format!("{HEAD}\n{}\n{}", source.trim(), tail(pipeline)))
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
        assert!(compose("x = ").is_err() && compose("[a]").is_err());
    }
}

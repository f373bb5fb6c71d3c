//! Seachange: change data capture from databases to Kafka, exactly once.
//!
//! Layers, lower never imports upper: `config, metrics, status, records` < `format` < `sink, state` < `pipeline` < `server, cli`.

pub mod cli;
pub mod config;
pub mod connectors;
mod crash;
pub mod format;
pub mod metrics;
pub mod pipeline;
pub mod records;
pub mod server;
pub mod sink;
pub mod state;
pub mod status;
pub mod telemetry;

//! Pipelines at run time.
//!
//! ```text
//!  socket > READER (tokio task)  == work ==>  WRITER (own thread): encode, append, commit > sink
//!             ^  |  <== free batches ==          |
//!             |  +- snapshot workers             |
//!             +------ watch: committed position -+
//! ```
//!
//! Owns: the order of records, when they become durable, what happens after an error. Must never know: any database, any
//! format, Kafka. Several pipelines share nothing but the process: one that fails or waits disturbs no other.

mod merge;
mod progress;
mod reader;
#[cfg(test)]
mod sim;
mod snapshot;
mod supervise;
mod writer;

use crate::{config::resolved::Config, metrics::PipelineMetrics, status::Board};
use seachange_sdk::Result;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::Instrument;

/// Runs all pipelines until shutdown, or until each has ended. `true` when all ended in order.
pub async fn run(config: Config, board: Board, shutdown: watch::Receiver<bool>) -> Result<bool> {
    let mut tasks = tokio::task::JoinSet::new();
    for pipeline in config.pipelines {
        let metrics = Arc::new(PipelineMetrics::new(&pipeline.name));
        let status = board
            .entry(&pipeline.name)
            .ok_or_else(|| seachange_sdk::Error::bug(format!("pipeline {} is not on the board", pipeline.name)))?;
        let span = tracing::info_span!("pipeline", name = %pipeline.name);
        let (kafka, made_for) = (config.kafka.clone(), pipeline.clone());
        let tenure = crate::sink::Tenure::default();
        let make_sink: supervise::MakeSink =
            Arc::new(move |give_up| crate::sink::build(kafka.as_ref(), &made_for, give_up, &tenure));
        tasks.spawn(supervise::supervise(pipeline, make_sink, metrics, status, shutdown.clone()).instrument(span));
    }
    let mut in_order = true;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(fine) => in_order &= fine,
            Err(e) => {
                tracing::error!(error = %e, "a pipeline's task panicked");
                in_order = false;
            }
        }
    }
    Ok(in_order)
}

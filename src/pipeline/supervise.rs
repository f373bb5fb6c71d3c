//! One pipeline's life: start-up, run, and what follows from how it ended.
//!
//! There is one path for start, restart, failover and recovery: open the sink (which fences every older owner), read the
//! state back, open the source there, run. Any error drops both workers and comes back here; how long to wait is decided
//! by the error's own `retry`. Nothing is repaired in place.

use super::{
    reader::{BATCHES, End, Reader},
    snapshot::Reading,
    writer::{Committed, Work, Writer},
};
use crate::{
    config::resolved::{Pipeline, SnapshotMode},
    metrics::PipelineMetrics,
    sink::Sink,
    state::{State, kept_entry},
    status::{Entry as Status, Phase},
};
use seachange_sdk::{Batch, Configured, Cut, Error, Kind, Limit, Result, Resume, Retry};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest delay before a pipeline starts again by itself.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long an orderly end may take before it becomes a disorderly one (which loses only work).
const DRAIN: Duration = Duration::from_secs(15);

/// Makes a sink. The flag, once set, makes blocked calls of the sink give up.
pub type MakeSink = Arc<dyn Fn(Arc<AtomicBool>) -> Result<Box<dyn Sink>> + Send + Sync>;

/// Runs a pipeline until shutdown, completion, or an error after which going on would lose or invent data. `true` when it
/// ended in order.
pub async fn supervise(
    pipeline: Pipeline,
    make_sink: MakeSink,
    metrics: Arc<PipelineMetrics>,
    status: Arc<Status>,
    mut shutdown: watch::Receiver<bool>,
) -> bool {
    let mut delay = pipeline.limits.retry_first;
    loop {
        status.set(Phase::Starting);
        let commits = Arc::new(AtomicBool::new(false));
        let ended = run(&pipeline, &make_sink, &metrics, &status, &mut shutdown, &commits).await;
        let error = match ended {
            Ok(End::Complete) => {
                tracing::info!("complete: everything that was there has been read");
                status.set(Phase::Done);
                return true;
            }
            Ok(End::Shutdown) => {
                tracing::info!("stopped");
                status.set(Phase::Done);
                return true;
            }
            Err(e) => e,
        };
        metrics.error(&error);
        status.set(Phase::Failed { error: error.to_string(), fix: error.remedy().map(str::to_owned) });
        if commits.load(Ordering::Relaxed) {
            // It had worked: this is a new trouble, not the old one again.
            delay = pipeline.limits.retry_first;
        }
        let wait = match error.retryable() {
            Retry::Never => {
                let fix = error.remedy().unwrap_or("see the log");
                tracing::error!(
                    kind = error.kind().name(),
                    side = error.side().name(),
                    fix,
                    "{error}; the pipeline stays stopped until the process is started again"
                );
                return false;
            }
            Retry::Operator => RETRY_MAX,
            // Whoever fenced this one may still be on its way to saying so; fencing it back would only go on for ever.
            Retry::Backoff if error.kind() == Kind::Fenced => delay.max(FENCED),
            Retry::Backoff => delay,
        };
        let fix = error.remedy().unwrap_or("");
        tracing::error!(kind = error.kind().name(), side = error.side().name(), fix, retry_in = ?wait, "{error}");
        metrics.restarts.increment(1);
        delay = (delay * 2).min(RETRY_MAX);
        tokio::select! {
            _ = tokio::time::sleep(wait) => {}
            _ = shutdown.wait_for(|s| *s) => return true,
        }
    }
}

/// Least time before a fenced pipeline looks who has fenced it.
const FENCED: Duration = Duration::from_secs(5);

/// One run, from start-up to its end.
async fn run(
    pipeline: &Pipeline,
    make_sink: &MakeSink,
    metrics: &Arc<PipelineMetrics>,
    status: &Arc<Status>,
    shutdown: &mut watch::Receiver<bool>,
    commits: &Arc<AtomicBool>,
) -> Result<End> {
    let started = Instant::now();
    let give_up = Arc::new(AtomicBool::new(false));
    let _stop_blocked_calls = SetOnDrop(give_up.clone());
    // 1, 2: fence, then read back.
    let built = make_sink(give_up.clone())?;
    let (sink, mut state) = tokio::select! {
        opened = open_sink(built) => opened?,
        _ = shutdown.wait_for(|s| *s) => return Ok(End::Shutdown),
    };
    let resume = state
        .checkpoint
        .as_ref()
        .map(|c| Resume { position: c.position.clone(), kept: std::mem::take(&mut state.kept) });
    if let Some(r) = &resume {
        tracing::info!(position = %pipeline.source.describe_position(&r.position), "going on where the last commit ended");
    }
    // 3, 4: open the source there.
    let opened = tokio::select! {
        opened = pipeline.source.open(resume.as_ref()) => opened?,
        _ = shutdown.wait_for(|s| *s) => return Ok(End::Shutdown),
    };
    tracing::info!(
        source = %pipeline.source.describe(),
        position = %pipeline.source.describe_position(&opened.position),
        start_ms = started.elapsed().as_millis() as u64,
        "streaming"
    );

    let (work_in, work_out) = mpsc::channel::<Work>(BATCHES + pipeline.snapshot.parallel * 2 + 8);
    let (free_in, free_out) = mpsc::unbounded_channel::<Batch>();
    for _ in 0..BATCHES {
        let _open = free_in.send(Batch::default());
    }
    let committed = resume.as_ref().map(|r| r.position.clone()).unwrap_or_default();
    let (committed_in, committed_out) = watch::channel(Committed { position: committed, ..Committed::default() });
    let (ask_in, ask_out) = mpsc::channel(pipeline.snapshot.parallel + 1);

    if resume.is_none() || !opened.kept.is_empty() {
        // The place where the stream starts, and what the connector knows there, become durable before anything else does.
        // Inside of a transaction it is the place stored already: the entries go with the next commit.
        let entries = opened.kept.into_iter().map(kept_entry).collect::<Result<_>>()?;
        let first = match resume {
            None => Work::Stream(Batch { cut: Cut::Txn(opened.position.clone()), ..Batch::default() }, entries),
            Some(_) => Work::State(entries),
        };
        work_in.send(first).await.map_err(|_| Error::bug("the queue to the writer is closed at start"))?;
    }
    let writer = Writer::new(
        pipeline,
        sink,
        state.checkpoint.clone(),
        opened.position.clone(),
        metrics.clone(),
        free_in,
        committed_in,
    )?;
    let runtime = tokio::runtime::Handle::current();
    let span = tracing::Span::current();
    let (wrote_in, mut wrote) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("w:{}", pipeline.name))
        .spawn(move || {
            let _entered = span.enter();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run(work_out, &runtime)));
            let _gone = wrote_in.send(result.unwrap_or_else(|_| Err(Error::bug("the writer panicked"))));
        })
        .map_err(|e| Error::bug("cannot start a thread").cause(e))?;

    let limit = Limit {
        bytes: pipeline.limits.batch_bytes,
        changes: 16_384,
        row_bytes: pipeline.limits.row_bytes_max,
        txn_tables: pipeline.format.transaction,
    };
    let mut reader = Reader::new(
        opened.source,
        limit,
        &mut state,
        work_in,
        free_out,
        committed_out.clone(),
        ask_out,
        pipeline.snapshot.mode != SnapshotMode::Never,
        metrics.clone(),
        status.clone(),
    );
    if resume.is_none() {
        status.begins();
    }
    status.set(Phase::Streaming);
    let reading = Reading::new(opened.snapshotter, pipeline.snapshot.clone(), pipeline.limits.clone(), ask_in);
    let mut reading = Task(tokio::spawn(tracing::Instrument::in_current_span(reading.run())));
    let _polling =
        Task(tokio::spawn(tracing::Instrument::in_current_span(poll_status(pipeline.source.clone(), metrics.clone()))));

    let ended = tokio::select! {
        ended = reader.run(shutdown) => ended,
        failed = failure(&mut reading, pipeline.snapshot.mode) => Err(failed),
    };
    commits.store(committed_out.borrow().count > 0, Ordering::Relaxed);
    status.set(Phase::Draining);
    drop(reading);
    reader.close_queue();
    if ended.is_err() {
        give_up.store(true, Ordering::Relaxed);
    }
    let wrote = match tokio::time::timeout(DRAIN, &mut wrote).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::bug("the writer ended without a word")),
        Err(_) => {
            give_up.store(true, Ordering::Relaxed);
            Err(Error::sink(Kind::Sink, format!("the last commit did not end within {} s", DRAIN.as_secs())))
        }
    };
    match (ended, wrote) {
        // The writer's error is the cause; the reader only found it gone.
        (Err(e), Err(w)) if e.kind() == Kind::Bug => Err(w),
        (Err(e), _) => Err(e),
        (Ok(_), Err(w)) => Err(w),
        (Ok(end), Ok(())) => {
            match tokio::time::timeout(Duration::from_secs(5), reader.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    tracing::warn!(error = %e, "the source was not told the last position; the next start tells it")
                }
                Err(_) => tracing::warn!("the source did not answer the last word; the next start tells it"),
            }
            Ok(end)
        }
    }
}

/// Opens the sink on a thread that may block, and reads the state back.
async fn open_sink(mut sink: Box<dyn Sink>) -> Result<(Box<dyn Sink>, State)> {
    let opened = tokio::task::spawn_blocking(move || {
        let stored = sink.open()?;
        Ok::<_, Error>((sink, stored))
    });
    let (sink, stored) = opened.await.map_err(|e| Error::bug("opening the sink panicked").cause(e))??;
    Ok((sink, State::load(&stored)?))
}

/// Waits for the snapshot to fail. An end in order is no failure: the reader goes on.
async fn failure(reading: &mut Task<Result<()>>, mode: SnapshotMode) -> Error {
    match (&mut reading.0).await {
        Ok(Err(e)) => e,
        Err(e) => Error::bug("the snapshot panicked").cause(e),
        Ok(Ok(())) => {
            if mode != SnapshotMode::Only {
                return Error::bug("the snapshot ended by itself");
            }
            std::future::pending().await
        }
    }
}

/// Asks the database now and then where the pipeline stands in its log. A failure here disturbs nothing but the figures.
async fn poll_status(source: Arc<dyn Configured>, metrics: Arc<PipelineMetrics>) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match source.status().await {
            Ok(status) => metrics.source(&status),
            Err(e) => tracing::debug!(error = %e, "the source's status could not be read"),
        }
    }
}

struct SetOnDrop(Arc<AtomicBool>);
impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A task that ends with its owner.
struct Task<T>(tokio::task::JoinHandle<T>);
impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! `seachange run`: everything the daemon needs, in the order in which it can fail early.
//!
//! Address first, then pipelines: what is wrong with the set-up is told before anything is opened. One signal lets every
//! pipeline commit what it has and end; a second one, or a pipeline that hangs, does not keep the process.

use super::Failure;
use crate::{
    config::Config,
    metrics::{self, Metrics},
    server,
    status::Board,
    telemetry,
};
use sd_notify::NotifyState;
use seachange_sdk::{Error, Result};
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};

pub(super) fn run(config: Config) -> Result<(), Failure> {
    telemetry::start(&config.log);
    let metrics = metrics::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("seachange")
        .build()
        .map_err(|e| Failure::Run(format!("the runtime cannot start: {e}")))?;
    let ended = runtime.block_on(daemon(config, metrics));
    // Not waited for: a thread that hangs in a library must not keep the process.
    runtime.shutdown_background();
    // Whatever its kind: the configuration has been found right, so this is a failure of running.
    let ended = ended.map_err(|e| Failure::Run(super::explain(&e)))?;
    if ended { Ok(()) } else { Err(Failure::Run("a pipeline has failed; the log says which and why".into())) }
}

async fn daemon(config: Config, metrics: Metrics) -> Result<bool> {
    let board = Board::new(config.pipelines.iter().map(|p| p.name.as_str()));
    let (stop, stopped) = watch::channel(false);
    // Signals are caught before anything is opened: none may end the process in an unordered way.
    let signals = tokio::spawn(signals(stop)?);
    let serving = match config.server.listen {
        Some(listen) => {
            let listener = server::bind(listen).await?;
            let at = listener.local_addr().unwrap_or(listen);
            tracing::info!("listening on http://{at} (/metrics, /healthz, /readyz)");
            // Outlives the signal: a pipeline that drains can be watched. Ended with the runtime.
            let (keep, never) = watch::channel(false);
            let (m, b) = (metrics.clone(), board.clone());
            Some(tokio::spawn(async move {
                let _keep = keep;
                if let Err(e) = server::serve(listener, m, b, never).await {
                    tracing::error!("the HTTP server has ended: {e}");
                }
            }))
        }
        None => None,
    };
    let keeper = tokio::spawn(housekeeping(metrics, board.clone(), stopped.clone()));
    for p in &config.pipelines {
        tracing::info!(pipeline = p.name, source = p.source.describe(), "starting");
    }
    notify(&[NotifyState::Ready]);
    let ended = crate::pipeline::run(config, board, stopped).await;
    notify(&[NotifyState::Stopping]);
    keeper.abort();
    signals.abort();
    if let Some(s) = serving {
        s.abort();
    }
    ended
}

/// The first SIGTERM or SIGINT asks for an orderly end, the second one ends the process.
fn signals(stop: watch::Sender<bool>) -> Result<impl Future<Output = ()>> {
    let install = |kind| signal(kind).map_err(|e| Error::bug("signals cannot be caught").cause(e));
    let (mut term, mut int) = (install(SignalKind::terminate())?, install(SignalKind::interrupt())?);
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            if *stop.borrow() {
                tracing::warn!("{name} again: ending at once; what was not committed will be read again");
                std::process::exit(1);
            }
            tracing::info!("{name}: committing what has been read, then ending; a second signal ends at once");
            // After the line: what waits for this may end the process.
            stop.send_replace(true);
        }
    })
}

/// Metrics upkeep, systemd's watchdog and status.
async fn housekeeping(metrics: Metrics, board: Board, stopped: watch::Receiver<bool>) {
    const UPKEEP: Duration = Duration::from_secs(5);
    let mut usec = 0;
    let watched = sd_notify::watchdog_enabled(false, &mut usec);
    let period = if watched && usec > 0 { UPKEEP.min(Duration::from_micros(usec / 2)) } else { UPKEEP };
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = String::new();
    let mut stopping = false;
    loop {
        tick.tick().await;
        metrics.upkeep();
        if watched {
            notify(&[NotifyState::Watchdog]);
        }
        if *stopped.borrow() && !stopping {
            stopping = true;
            notify(&[NotifyState::Stopping]);
        }
        let line = board.line();
        if line != said {
            notify(&[NotifyState::Status(&line)]);
            said = line;
        }
    }
}

/// Tells systemd. Without it there is nobody to tell, which is no error; a broken socket is worth a line.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(false, state) {
        tracing::warn!("systemd cannot be told: {e}");
    }
}

//! What the tests on real servers share.
//!
//! - [`servers`]: databases and Kafka as `scripts/test` has started them; [`Database`]: one for each test.
//! - [`Proxy`]: a TCP proxy that cuts, stalls, delays and truncates.
//! - [`Daemon`], [`Config`]: the built `seachange` binary with a configuration, its log, its end.
//! - [`Ledger`]: a write load whose every change can be audited; [`audit`]: the judge of what was published.
//! - [`topic`]: records of a topic, as a `read_committed` consumer sees them.
//!
//! Two rules. A test waits for a condition with a deadline ([`eventually`]), never for a span of time. And a test that
//! cannot run says so ([`skip`]): `scripts/test` counts it, and with `SEACHANGE_TEST_STRICT` it fails.
//!
//! This crate may panic: a panic is how a test fails.

pub mod audit;
pub mod daemon;
pub mod database;
pub mod http;
pub mod ledger;
pub mod proxy;
pub mod servers;
pub mod topic;

pub use daemon::{Config, Daemon};
pub use database::Database;
pub use ledger::Ledger;
pub use proxy::{Proxy, Way};
pub use servers::{Kafka, MARIADB, OwnKafka, OwnSource, Source, Which};
pub use topic::Record;

use std::{
    fmt::Display,
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A name that no other test has, now or in an earlier run: letters, digits and `_`, fit for SQL, topics and pipelines.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
    format!("{prefix}_{millis}_{}_{n}", std::process::id())
}

/// Waits until `probe` gives a value, asking every 20 ms; panics at the deadline with `what` and the last reason.
///
/// ```text
/// let rows = eventually(Duration::from_secs(30), "three records", async || {
///     let r = topic::read(&kafka.bootstrap, "t").await;
///     if r.len() == 3 { Ok(r) } else { Err(format!("{} records", r.len())) }
/// }).await;
/// ```
pub async fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(why) if Instant::now() >= end => panic!("not within {deadline:?}: {what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Notes that the running test cannot do its work here, and why. Panics when everything is supposed to be there.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("SEACHANGE_TEST_STRICT").is_none(), "{test} cannot run: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("SEACHANGE_TEST_SKIPPED") {
        let line = format!("{test}: {reason}\n");
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut f| f.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

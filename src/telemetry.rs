//! Logs: to standard error, as text or JSON lines.
//!
//! librdkafka and the HTTP and TLS crates are held at warnings unless the filter names them: their `info` is about
//! their own insides.

use crate::config::resolved::Log;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Crates whose own messages matter only when something is wrong.
const QUIET: &[&str] = &["librdkafka", "rdkafka", "hyper", "hyper_util", "rustls", "tokio_postgres", "mio"];

fn filter(level: &str) -> String {
    let mut out = String::new();
    for name in QUIET.iter().filter(|q| !level.split(',').any(|d| d.trim().split(['=', ':', '[']).next() == Some(**q)))
    {
        // Quieter than this the user's own level stays: `error` must not be raised to `warn`.
        let cap = if matches!(level, "error" | "off") { level } else { "warn" };
        out.push_str(&format!("{name}={cap},"));
    }
    out + level
}

/// Starts logging. Later calls change nothing.
pub fn start(log: &Log) {
    let filter = EnvFilter::builder().parse_lossy(filter(&log.level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails when a subscriber is there already, which is then the one to keep.
    if log.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init().ok();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn quiet_unless_named() {
        assert!(filter("debug").contains("librdkafka=warn") && filter("debug").ends_with(",debug"));
        assert!(!filter("info,librdkafka=debug").contains("librdkafka=warn"));
        assert!(filter("error").contains("librdkafka=error"));
        for level in ["info", "info,seachange=debug", "off", "trace,rdkafka[x]=info"] {
            assert!(EnvFilter::builder().parse(filter(level)).is_ok(), "{level}");
        }
    }
}

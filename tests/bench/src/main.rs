//! How fast the daemon is, from outside: `make bench`, `scripts/bench`.
//!
//! ```text
//! seachange-bench drain     a backlog, from the daemon's start to its last record
//!     [--db postgres|mysql|mariadb] [--rows N] [--tx N] [--op insert|update|delete] [--columns N | --row-bytes N]
//!     [--tables N] [--pipelines N] [--schemas] [--values plain|debezium] [--runs N] [--limits] [--peers]
//!     [--set NAME=VALUE,...] (of a pipeline: limits.commit_bytes=64MiB; of librdkafka: kafka.linger.ms=20)
//! seachange-bench snapshot  a table that is already there  [--db D] [--rows N]
//! seachange-bench latency   a write until a consumer has it  [--db D] [--rate N] [--seconds N] [--limits]
//! seachange-bench idle      a daemon with nothing to do  [--db D] [--tables N] [--pipelines N] [--seconds N]
//! seachange-bench recovery  kill -9 under load until the next record  [--db D] [--times N]
//! seachange-bench suite core|all|peers --out FOLDER [--db D,D] [--scale F] [--only TEXT]
//! ```
//! Single runs print a line of JSON; a suite writes a table. Rates depend on whatever else the machine does: every result
//! has the share of the machine that others used.

mod case;
mod drain;
mod idle;
mod latency;
mod limits;
mod load;
mod measure;
mod options;
mod peer;
mod report;
mod rig;
mod snapshot;
mod suite;

use case::Case;
use options::Options;
use suite::Job;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((what, rest)) = args.split_first() else { usage() };
    if what == "suite" {
        let Some((set, rest)) = rest.split_first() else { usage() };
        let whole = suite::run(set, Options::of(rest)).await;
        std::process::exit(i32::from(!whole));
    }
    let mut options = Options::of(rest);
    let job = match what.as_str() {
        "drain" => Job::Drain(Case::of(&mut options)),
        "snapshot" => Job::Snapshot { kind: options.kind(), rows: options.number("rows", 1_000_000) },
        "latency" => Job::Latency {
            kind: options.kind(),
            rate: options.number("rate", 1000).max(1),
            seconds: options.number("seconds", 20),
            limits: options.flag("limits"),
        },
        "idle" => Job::Idle { seconds: options.number("seconds", 20), case: Case::of(&mut options) },
        "recovery" => Job::Recovery { times: options.number("times", 3).max(1), case: Case::of(&mut options) },
        _ => usage(),
    };
    options.end();
    let results = job.run().await;
    results.iter().for_each(|r| println!("{r}"));
    std::process::exit(i32::from(results.iter().any(|r| r.get("failed").is_some())));
}

fn usage() -> ! {
    eprintln!(
        "seachange-bench drain|snapshot|latency|idle|recovery|suite [--name value]; scripts/bench --help says more"
    );
    std::process::exit(2);
}

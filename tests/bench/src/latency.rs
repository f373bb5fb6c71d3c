//! From a write in the database to a `read_committed` consumer that has the record in hand.
//!
//! A row carries the microsecond at which its statement was sent. Up to 1,000 transactions a second are made; a higher rate
//! has more rows in each. The first second warms everything up and is not counted. How long the statements took by
//! themselves, with the commit in the database, is told beside it: that much is not the daemon's. So are the quantiles of the
//! quiet seconds, in which a hypervisor gave nearly nothing of the machine to others: whatever waits for a core that is not
//! there waits longer than for anything that the daemon does. With `--limits` the same writes are made again without the
//! daemon, and their program tells Kafka of each row itself ([`crate::limits::turns`]): no daemon can be faster.

use crate::{
    case::{Case, Kind},
    limits::{self, turns::Turns},
    load::Load,
    measure::{Meter, Topics, cores, round, server, stolen},
    rig::{Rig, SOON},
};
use mysql_async::prelude::Queryable;
use rdkafka::Offset;
use seachange_testkit::Daemon;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Transactions a second, at most.
const COMMITS: u64 = 1000;
/// Share of the machine that others may have in a quiet second, at most: two ticks of 10 ms of two cores.
const QUIET: f64 = 0.01;

pub fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros())
        .expect("this side of 292277")
}

/// A session that writes rows with the time in them.
pub enum Writer {
    Postgres(Box<tokio_postgres::Client>, tokio_postgres::Statement, i64),
    Binlog(Box<mysql_async::Conn>, i64),
}

impl Writer {
    /// Makes the table.
    pub async fn new(load: &Load) -> Writer {
        const TABLE: &str =
            "CREATE TABLE orders_timed (id bigint PRIMARY KEY, sent_us bigint NOT NULL, pad varchar(100))";
        match load {
            Load::Postgres(l) => {
                let client = l.db.connect().await;
                client.batch_execute(TABLE).await.expect("a table");
                // Written through at each commit, as by default: a walsender sends nothing that is not.
                let insert = "INSERT INTO orders_timed SELECT $1::bigint + g, $2::bigint, repeat('x', 100)
                              FROM generate_series(1, $3::bigint) g";
                let insert = client.prepare(insert).await.expect("a statement");
                Writer::Postgres(Box::new(client), insert, 0)
            }
            Load::Binlog(l) => {
                l.sql(TABLE).await;
                Writer::Binlog(Box::new(l.session().await), 0)
            }
        }
    }

    /// One transaction of that many rows. Answers when it was sent.
    pub async fn write(&mut self, rows: i64) -> i64 {
        let sent = now_us();
        match self {
            Writer::Postgres(client, insert, next) => {
                client.execute(insert, &[next, &sent, &rows]).await.expect("a row");
                *next += rows;
            }
            Writer::Binlog(conn, next) => {
                let values: Vec<String> =
                    (1..=rows).map(|g| format!("({},{sent},repeat('x',100))", *next + g)).collect();
                let sql = format!("INSERT INTO orders_timed VALUES {}", values.join(","));
                conn.query_drop(sql).await.expect("a row");
                *next += rows;
            }
        }
        sent
    }
}

/// The topic of the writer's table.
pub fn topic(rig: &Rig, pipeline: &str) -> Topics {
    let names = rig.load.topics(pipeline, 1).into_iter().map(|t| format!("{t}_timed")).collect();
    Topics::new(&rig.kafka, names)
}

/// Waits until the topic is there and has something.
pub async fn warm(topic: &Topics, daemon: &mut Daemon) {
    let began = Instant::now();
    while topic.end() == 0 {
        daemon.living().unwrap_or_else(|e| panic!("{e}\n{}", daemon.log_of_run()));
        assert!(began.elapsed() < SOON, "no record\n{}", daemon.log_of_run());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The quiet ones of these seconds: each begins at an entry and ends at the next, in microseconds; with what was stolen before.
fn quiet(theft: &[(i64, f64)]) -> impl Iterator<Item = (i64, i64)> {
    theft.windows(2).filter_map(|w| {
        let &[(from, before), (to, after)] = w else { return None };
        let machine = (to - from) as f64 / 1e6 * cores();
        (after - before <= QUIET * machine + 1e-9).then_some((from, to))
    })
}

/// What the rows took that were sent in that time.
fn of(took: &[(i64, f64)], (from, to): (i64, i64)) -> impl Iterator<Item = f64> {
    took.iter().filter(move |(sent, _)| (from..to).contains(sent)).map(|(_, ms)| *ms)
}

/// Reads a topic until nothing has come for two seconds after the last write; answers when each row was sent, and what it took
/// in milliseconds. Rows of the first second are left out.
struct Reader {
    done: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<(i64, f64)>, Topics)>,
}

impl Reader {
    fn start(topic: Topics) -> Reader {
        let (done, began) = (Arc::new(AtomicBool::new(false)), now_us());
        let finished = done.clone();
        let read = move || {
            topic.read_from(Offset::Beginning);
            let (mut took, mut quiet) = (Vec::new(), Instant::now());
            while !finished.load(Ordering::Relaxed) || quiet.elapsed() < Duration::from_secs(2) {
                let Some((_, value)) = topic.next(Duration::from_millis(20)) else { continue };
                let now = now_us();
                quiet = Instant::now();
                let value: Value = serde_json::from_slice(&value).expect("JSON");
                let sent = value["after"]["sent_us"].as_i64().unwrap_or(0);
                if sent > began + 1_000_000 {
                    took.push((sent, (now - sent) as f64 / 1000.0));
                }
            }
            (took, topic)
        };
        Reader { done, thread: std::thread::spawn(read) }
    }
    async fn end(self) -> Vec<(i64, f64)> {
        self.done.store(true, Ordering::Relaxed);
        let (took, topic) = self.thread.join().expect("the consumer");
        topic.delete().await;
        took
    }
}

/// So many transactions a second, each of so many rows, for so many seconds.
#[derive(Clone, Copy)]
struct Pace {
    commits: u64,
    rows: u64,
    seconds: u64,
}

impl Pace {
    fn new(rate: u64, seconds: u64) -> Pace {
        let commits = rate.clamp(1, COMMITS);
        Pace { commits, rows: (rate / commits).max(1), seconds }
    }
    fn total(self) -> f64 {
        (self.rows * self.commits * self.seconds) as f64
    }

    /// Writes, and tells of each row. Answers what the statements took, and at each second what had been stolen.
    async fn write(self, writer: &mut Writer, mut tell: impl FnMut(i64)) -> (Vec<f64>, Vec<(i64, f64)>) {
        let (mut writes, mut theft) = (Vec::new(), Vec::new());
        let start = tokio::time::Instant::now();
        for n in 0..self.commits * self.seconds {
            if n.is_multiple_of(self.commits) {
                theft.push((now_us(), stolen()));
            }
            tokio::time::sleep_until(start + Duration::from_nanos(n * 1_000_000_000 / self.commits)).await;
            let began = Instant::now();
            let sent = writer.write(i64::try_from(self.rows).expect("a number of rows")).await;
            writes.push(began.elapsed().as_secs_f64() * 1000.0);
            (0..self.rows).for_each(|_| tell(sent));
        }
        theft.push((now_us(), stolen()));
        writes.drain(..writes.len().min(usize::try_from(self.commits).unwrap_or(0)));
        (writes, theft)
    }
}

/// The one below which that share of them lies.
fn quantile(of: &mut [f64], share: f64) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    let at = ((of.len() as f64 * share) as usize).min(of.len().saturating_sub(1));
    of.get(at).copied().map(round)
}

/// Of all rows, and of those of quiet seconds.
fn quantiles(took: &[(i64, f64)], theft: &[(i64, f64)]) -> Value {
    let mut calm: Vec<f64> = quiet(theft).flat_map(|s| of(took, s)).collect();
    let mut all: Vec<f64> = took.iter().map(|(_, ms)| *ms).collect();
    let mut q = |share: f64| quantile(&mut all, share);
    json!({
        "p50_ms": q(0.5), "p99_ms": q(0.99), "p999_ms": q(0.999), "max_ms": q(1.0), "quiet_seconds": quiet(theft).count(),
        "quiet_p50_ms": quantile(&mut calm, 0.5), "quiet_p99_ms": quantile(&mut calm, 0.99),
    })
}

/// The same writes, told to Kafka by their own program.
async fn alone(kafka: &str, writer: &mut Writer, pace: Pace) -> Value {
    let topic = limits::topic(kafka).await;
    let reader = Reader::start(Topics::new(kafka, vec![topic.clone()]));
    let turns = Turns::start(kafka, &topic);
    let (_, theft) = pace.write(writer, |sent| turns.written(sent)).await;
    let commits = turns.end();
    let mut result = quantiles(&reader.end().await, &theft);
    result["commits"] = commits.into();
    result
}

pub async fn measure(kind: Kind, rate: u64, seconds: u64, limits: bool) -> Value {
    let case = Case::new(kind);
    let rig = Rig::new(&case).await;
    let mut writer = Writer::new(&rig.load).await;
    let pipelines = rig.pipelines(&case, 0);
    let mut daemon = Daemon::start(&rig.config(&case, &pipelines, "never"));
    daemon.ready(SOON).await;
    writer.write(1).await;
    let topic = topic(&rig, &pipelines[0]);
    warm(&topic, &mut daemon).await;
    let reader = Reader::start(topic);
    let (pace, meter) = (Pace::new(rate, seconds), Meter::new(daemon.pid(), server(kind.name())));
    let (mut writes, theft) = pace.write(&mut writer, |_| ()).await;
    let used = meter.usage();
    let took = reader.end().await;
    let page = daemon.metrics().await;
    let sum = |name: &str| page.sum(name, &[]).unwrap_or(f64::NAN);
    let kafka_commits = sum("seachange_commit_seconds_count");
    let commit_ms = 1000.0 * sum("seachange_commit_seconds_sum") / kafka_commits.max(1.0);
    daemon.terminate(SOON).await;
    let mut result = quantiles(&took, &theft);
    let more = json!({
        "bench": "latency", "db": kind.name(), "rate": rate, "rows_a_transaction": pace.rows,
        "reached": round(pace.total() / used.at), "seen": took.len(), "write_p50_ms": quantile(&mut writes, 0.5),
        "write_p99_ms": quantile(&mut writes, 0.99), "write_max_ms": quantile(&mut writes, 1.0), "commits": kafka_commits,
        "commit_mean_ms": round(commit_ms), "daemon_us_row": round(1e6 * used.daemon / pace.total()),
        "daemon_core_share": round(used.daemon / used.at), "others": round(used.others()),
    });
    if let (Value::Object(result), Value::Object(more)) = (&mut result, more) {
        result.extend(more);
    }
    if limits {
        result["kafka_alone"] = alone(&rig.kafka, &mut writer, pace).await;
    }
    rig.end().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_in_which_others_had_the_machine_are_not_quiet() {
        let second = |n: i64| n * 1_000_000;
        let stolen = 0.5 * cores();
        let theft = [(second(0), 7.0), (second(1), 7.0), (second(2), 7.0 + stolen), (second(3), 7.0 + stolen)];
        let found: Vec<_> = quiet(&theft).collect();
        assert_eq!(found, [(second(0), second(1)), (second(2), second(3))]);
        let took = [(second(0), 1.0), (second(1), 2.0), (second(2), 3.0), (second(3), 4.0)];
        let calm: Vec<f64> = found.into_iter().flat_map(|s| of(&took, s)).collect();
        assert_eq!(calm, [1.0, 3.0]);
    }
}

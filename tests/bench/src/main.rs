//! How fast the daemon is, from outside: `make bench`.
//!
//! ```text
//! seachange-bench drain [--rows N] [--tx N]       a backlog of inserts, from the daemon's start to its last record
//! seachange-bench snapshot [--rows N]             a table that is already there, against COPY to nowhere
//! seachange-bench latency [--rate N] [--seconds N]  commit to consumer, one row a transaction
//! ```
//! Each prints one line of JSON. Rates depend on whatever else the machine does: compare figures of one run, and CPU
//! rather than seconds. `others_s` is the CPU that everything else took meanwhile, database and broker included.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use seachange_testkit::{Config, Daemon, Database, servers, unique};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const TABLE: &str =
    "CREATE TABLE orders(id bigserial primary key, customer_id int, sku text, qty int, price numeric(12,2),
  note text, created_at timestamptz default now(), updated_at timestamptz)";

const LOAD: &str = "CREATE PROCEDURE load(n bigint, per int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 0 .. n / per - 1 LOOP
    INSERT INTO orders(customer_id, sku, qty, price, note, updated_at)
      SELECT (i * 31 + g) % 100000, 'SKU-' || lpad(((i::bigint * per + g) % 50000)::text, 8, '0'), g % 9 + 1,
             ((i * 7919 + g::bigint * 104729) % 1000000) / 100.0, 'note for order ' || i::bigint * per + g, now()
      FROM generate_series(1, per) g;
    COMMIT;
  END LOOP;
END $$";

fn option(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|a| *a != format!("--{name}")).skip(1);
    args.next().map_or(default, |v| v.replace('_', "").parse().unwrap_or_else(|_| panic!("--{name}: {v} is no number")))
}

/// User and system time of a process, seconds.
fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Busy time of all cores, seconds.
fn cpu_of_all() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let ticks: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / 100.0
}

fn peak_rss_mib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

struct Topic {
    consumer: BaseConsumer,
    name: String,
}

impl Topic {
    fn new(bootstrap: &str, name: &str) -> Topic {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", unique("bench"))
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", std::env::var("BENCH_FETCH_WAIT_MS").unwrap_or_else(|_| "100".into()))
            .set("fetch.min.bytes", "1")
            .create()
            .expect("a consumer");
        Topic { consumer, name: name.to_owned() }
    }
    /// End of partition 0; 0 while the topic is not there. Commit markers count.
    fn end(&self) -> u64 {
        self.consumer.fetch_watermarks(&self.name, 0, Duration::from_secs(2)).map_or(0, |(_, high)| high as u64)
    }
}

struct Bench {
    kafka: String,
    db: Database,
    pipeline: String,
}

impl Bench {
    async fn new() -> Bench {
        let kafka = servers::kafka(1).await.expect("SEACHANGE_TEST_KAFKA: run this through scripts/bench");
        let pg = servers::postgres(15).await.expect("SEACHANGE_TEST_PG: run this through scripts/bench");
        let db = pg.database().await;
        db.run(TABLE).await;
        db.run(LOAD).await;
        Bench { kafka: kafka.bootstrap.clone(), db, pipeline: unique("bench") }
    }
    fn config(&self, snapshot: &str) -> Config {
        let p = format!("pipeline.{}", self.pipeline);
        Config::kafka(&self.kafka)
            .postgres(&self.pipeline, &self.db.url, &["public.*"])
            .set(&format!("{p}.source.snapshot"), snapshot)
            .set(&format!("{p}.format.values"), std::env::var("BENCH_VALUES").unwrap_or_else(|_| "debezium".into()))
    }
    fn topic(&self) -> Topic {
        Topic::new(&self.kafka, &format!("{}.public.orders", self.pipeline))
    }
    async fn load(&self, rows: u64, tx: u64) {
        let client = self.db.connect().await;
        client.batch_execute("SET synchronous_commit = off").await.expect("a setting");
        client.batch_execute(&format!("CALL load({rows}, {tx})")).await.expect("the load");
    }
    /// Starts the daemon and watches the topic until `rows` records are there.
    async fn watch(&self, what: &str, snapshot: &str, rows: u64, more: Value) {
        let (all, started) = (cpu_of_all(), Instant::now());
        let mut daemon = Daemon::start(&self.config(snapshot));
        let topic = self.topic();
        let (mut series, mut last, mut cpu, mut others) = (vec![], 0, 0.0, 0.0);
        loop {
            daemon.living().expect("the daemon runs");
            let end = topic.end();
            let now = started.elapsed();
            if end > last {
                last = end;
                cpu = cpu_of(daemon.pid());
                others = cpu_of_all() - all - cpu;
                series.push((now.as_secs_f64(), end));
            }
            let still = series.last().map_or(0.0, |(t, _)| now.as_secs_f64() - t);
            if last >= rows && still > 1.0 {
                break;
            }
            assert!(
                now < Duration::from_secs(600),
                "{last} of {rows} records after 10 minutes\n{}",
                daemon.log_of_run()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rss = peak_rss_mib(daemon.pid());
        daemon.terminate(Duration::from_secs(20)).await;
        let (first, end) = (series[0], series[series.len() - 1]);
        let at = |share: f64| series.iter().find(|(_, n)| *n as f64 >= share * rows as f64).copied().unwrap_or(end);
        let (low, high) = (at(0.1), at(0.9));
        let rate =
            |a: (f64, u64), b: (f64, u64)| if b.0 > a.0 { ((b.1 - a.1) as f64 / (b.0 - a.0)).round() } else { 0.0 };
        let mut out = json!({
            "bench": what, "rows": rows, "start_s": round(first.0), "seconds": round(end.0),
            "rows_s": (rows as f64 / end.0).round(), "steady_rows_s": rate(low, high),
            "cpu_us_row": round(1e6 * cpu / rows as f64), "rss_mib": rss, "others_s": round(others),
        });
        out.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        println!("{out}");
    }
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

async fn drain() {
    let (rows, tx) = (option("rows", 1_000_000), option("tx", 100));
    let bench = Bench::new().await;
    let mut daemon = Daemon::start(&bench.config("never"));
    daemon.ready(Duration::from_secs(30)).await;
    daemon.terminate(Duration::from_secs(20)).await;
    bench.load(rows, tx).await;
    bench.watch("drain", "never", rows, json!({ "rows_a_transaction": tx })).await;
}

async fn snapshot() {
    let rows = option("rows", 1_000_000);
    let bench = Bench::new().await;
    bench.load(rows, 10_000).await;
    bench.db.admin().await.batch_execute("VACUUM ANALYZE orders").await.expect("vacuum");
    let client = bench.db.connect().await;
    let started = Instant::now();
    client.batch_execute("COPY (SELECT * FROM orders) TO PROGRAM 'cat > /dev/null'").await.err();
    let copied = started.elapsed();
    bench.watch("snapshot", "initial", rows, json!({ "copy_try_s": round(copied.as_secs_f64()) })).await;
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as i64
}

async fn latency() {
    let (rate, seconds) = (option("rate", 500), option("seconds", 20));
    let bench = Bench::new().await;
    let client = bench.db.connect().await;
    client
        .batch_execute("CREATE TABLE latency (id bigint PRIMARY KEY, sent_us bigint NOT NULL, pad text)")
        .await
        .expect("a table");
    let mut daemon = Daemon::start(&bench.config("never"));
    daemon.ready(Duration::from_secs(30)).await;
    client.batch_execute("INSERT INTO latency VALUES (0, 0, 'warm')").await.expect("a row");
    let topic = Topic::new(&bench.kafka, &format!("{}.public.latency", bench.pipeline));
    let warm = Instant::now();
    while topic.end() == 0 {
        assert!(warm.elapsed() < Duration::from_secs(30), "no record\n{}", daemon.log_of_run());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let (cpu, began) = (cpu_of(daemon.pid()), now_us());
    let reader = std::thread::spawn(move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic.name, 0, Offset::Beginning).expect("an offset");
        topic.consumer.assign(&list).expect("assigned");
        let mut took = Vec::new();
        let mut quiet = Instant::now();
        while !finished.load(Ordering::Relaxed) || quiet.elapsed() < Duration::from_secs(2) {
            let Some(Ok(m)) = topic.consumer.poll(Duration::from_millis(20)) else { continue };
            let now = now_us();
            quiet = Instant::now();
            let Some(value) = m.payload() else { continue };
            let value: Value = serde_json::from_slice(value).expect("JSON");
            let sent = value["after"]["sent_us"].as_i64().unwrap_or(0);
            // The first second warms everything up.
            if sent > began + 1_000_000 {
                took.push((now - sent) as f64 / 1000.0);
            }
        }
        took
    });
    let insert = client.prepare("INSERT INTO latency VALUES ($1, $2, $3)").await.expect("a statement");
    let start = tokio::time::Instant::now();
    let pad = "x".repeat(100);
    let total = rate * seconds;
    for n in 0..total {
        tokio::time::sleep_until(start + Duration::from_nanos(n * 1_000_000_000 / rate)).await;
        client.execute(&insert, &[&(n as i64 + 1), &now_us(), &pad]).await.expect("a row");
    }
    let spent = start.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let mut took = reader.join().expect("the consumer");
    let used = cpu_of(daemon.pid()) - cpu;
    let metrics = daemon.metrics().await.0;
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|l| l.starts_with(&format!("{name}{{")) && !l.contains("NaN"));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let commits = sum("seachange_commit_seconds_count");
    let commit_ms = round(1000.0 * sum("seachange_commit_seconds_sum") / commits.max(1.0));
    if std::env::var_os("BENCH_METRICS").is_some() {
        eprintln!("{metrics}");
    }
    daemon.terminate(Duration::from_secs(20)).await;
    took.sort_by(f64::total_cmp);
    let q = |f: f64| took.get(((took.len() as f64 * f) as usize).min(took.len().saturating_sub(1))).copied().map(round);
    println!(
        "{}",
        json!({ "bench": "latency", "rate": rate, "reached": (total as f64 / spent).round(), "seen": took.len(),
            "commits": commits, "commit_mean_ms": commit_ms,
            "p50_ms": q(0.5), "p95_ms": q(0.95), "p99_ms": q(0.99), "p999_ms": q(0.999), "max_ms": q(1.0),
            "cpu_us_row": round(1e6 * used / total as f64) })
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("drain") => drain().await,
        Some("snapshot") => snapshot().await,
        Some("latency") => latency().await,
        _ => {
            eprintln!("seachange-bench drain|snapshot|latency [--rows N] [--tx N] [--rate N] [--seconds N]");
            std::process::exit(2);
        }
    }
}

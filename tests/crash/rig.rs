//! A pipeline with a ledger as its source: what every test of this kind sets up, and how it judges at the end.

// Each of the two test targets uses a part of it.
#![allow(dead_code)]

use seachange_testkit::{
    Config, Daemon, Database, Ledger, Proxy, Source, Which,
    audit::{Order, Report},
    eventually,
    ledger::Outcome,
    topic, unique,
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Far more than anything here takes, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(120);

/// A test for each kind of database: `on_each! { a_test another_test }` makes `postgres::a_test`, `mysql::a_test` and
/// `mariadb::a_test` of a function that takes a [`seachange_testkit::Which`].
macro_rules! on_each {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        $crate::rig::on_each!(postgres = Which::Postgres(15); $($(#[$attribute])* $name)*);
        $crate::rig::on_each!(mysql = Which::MySql; $($(#[$attribute])* $name)*);
        $crate::rig::on_each!(mariadb = MARIADB; $($(#[$attribute])* $name)*);
    };
    ($kind:ident = $which:expr; $($(#[$attribute:meta])* $name:ident)*) => {
        mod $kind {
            #[allow(unused_imports)]
            use seachange_testkit::{MARIADB, Which};
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($which).await;
                }
            )*
        }
    };
}
pub(crate) use on_each;

/// A database of its own, a pipeline that reads its table `ledger`, and the topic that this becomes.
pub struct Rig {
    pub db: Database,
    /// The table's full name.
    pub table: String,
    pub bootstrap: String,
    pub pipeline: String,
    pub topic: String,
    pub config: Config,
}

impl Rig {
    pub async fn new(source: &Source, bootstrap: &str) -> Rig {
        let db = source.database().await;
        let pipeline = unique("p");
        let table = db.table("ledger");
        let topic = format!("{pipeline}.{table}");
        let config = Rig::pipeline(Config::kafka(bootstrap), &pipeline, &db);
        Rig { db, table, bootstrap: bootstrap.to_owned(), pipeline, topic, config }
    }

    /// The configuration, with a pipeline that reads the ledger of a database.
    pub fn pipeline(config: Config, name: &str, db: &Database) -> Config {
        config
            .source(name, db.which.kind(), &db.url, &[&db.table("ledger")])
            .set(&format!("pipeline.{name}.limits.retry_first"), "100ms")
    }

    /// Has the pipeline reach its database through a proxy; the load goes past it.
    pub fn source_through(mut self, proxy: &Proxy) -> Rig {
        let url = self.db.url_through(proxy);
        self.config = self.config.set(&format!("pipeline.{}.source.url", self.pipeline), url);
        self
    }

    /// Sets an option of the pipeline.
    pub fn with(mut self, path: &str, value: &str) -> Rig {
        self.config = self.config.set(&format!("pipeline.{}.{path}", self.pipeline), value);
        self
    }

    /// A load without an end, at this many changes a second.
    pub fn ledger(&self, rate: u64) -> Ledger {
        Ledger::new(self.db.writer_url(), &self.table).changes(u64::MAX).rate(rate).keys(300)
    }

    /// The daemon, streaming: the table is there and empty, so that every change of the load is in the stream.
    pub async fn daemon(&self) -> Daemon {
        self.ledger(0).create().await;
        let mut daemon = Daemon::start(&self.config);
        daemon.ready(LONG).await;
        daemon
    }

    /// PostgreSQL: name of the slot.
    pub fn slot(&self) -> String {
        format!("seachange_{}", self.pipeline)
    }

    /// Waits until nobody uses the slot.
    pub async fn slot_is_free(&self) {
        let client = self.db.connect().await;
        eventually(LONG, "the slot is free", async || {
            let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
            match client.query_one(sql, &[&self.slot()]).await.expect("the slot").get::<_, bool>(0) {
                false => Ok(()),
                true => Err("in use"),
            }
        })
        .await;
    }

    /// The table with `keys` rows of version 1.
    pub async fn filled(&self, keys: u64) {
        self.ledger(0).create().await;
        let numbers = match self.db.which {
            Which::Postgres(_) => format!("SELECT n, 1, 0, 'first' FROM generate_series(0, {}) n", keys - 1),
            Which::MariaDb(..) => format!("SELECT seq, 1, 0, 'first' FROM seq_0_to_{}", keys - 1),
            _ => format!(
                "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {}) \
                 SELECT /*+ SET_VAR(cte_max_recursion_depth = 1000000) */ n, 1, 0, 'first' FROM s",
                keys - 1
            ),
        };
        let sql = format!("INSERT INTO {} (id, version, client, note) {numbers}", self.table);
        self.db.run(&sql).await;
        let analyze = if self.db.which.kind() == "postgres" { "ANALYZE" } else { "ANALYZE TABLE" };
        self.db.run(&format!("{analyze} {}", self.table)).await;
    }

    /// Waits until the topic has so many changes, and judges: each once and in order, and the end is what the table is.
    pub async fn judge(&self, daemon: &mut Daemon, done: Outcome) -> Report {
        let report = self.collect(daemon, |r| r.seen >= done.changes || !r.faults.is_empty()).await;
        report.expect(done.changes);
        report.expect_table(&self.db, &self.table).await;
        println!(
            "{}: {} changes in {} transactions committed ({} rolled back, {} connections lost), {report}",
            self.pipeline, done.changes, done.transactions, done.rollbacks, done.lost
        );
        report
    }

    /// Reads the topic again and again until that is enough.
    pub async fn collect(&self, daemon: &mut Daemon, enough: impl Fn(&Report) -> bool) -> Report {
        let end = Instant::now() + LONG;
        loop {
            let report = self.report().await;
            if enough(&report) {
                return report;
            }
            daemon.living().unwrap_or_else(|e| panic!("{e}, with {report}"));
            assert!(Instant::now() < end, "not enough within {LONG:?}: {report}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn report(&self) -> Report {
        let mut judge = Order::default();
        topic::read(&self.bootstrap, &self.topic).await.iter().for_each(|r| judge.record(r));
        judge.finish()
    }

    /// Judges a topic that a snapshot and a stream beside it have made: a row that has been told is never read again, and
    /// the versions of a key are without gap from the first that was told. Gives the rows read and the changes streamed.
    pub async fn judge_snapshot(&self, daemon: &mut Daemon) -> (u64, u64) {
        let end = Instant::now() + LONG;
        loop {
            let records = topic::read(&self.bootstrap, &self.topic).await;
            let mut judge = Order::default().overtaking();
            let (mut told, mut read, mut again) = (HashSet::new(), 0, Vec::new());
            for r in records.iter().filter(|r| r.value.is_some()) {
                judge.record(r);
                let new = told.insert(r.key.clone());
                if r.op() == "r" {
                    read += 1;
                    if !new {
                        again.push(format!("{}@{}: {}", r.topic, r.offset, r.key_json()));
                    }
                }
            }
            let report = judge.finish();
            report.expect_order();
            assert!(again.is_empty(), "{} rows were told, then read: {:?}", again.len(), &again[..again.len().min(5)]);
            let rows = self.db.versions(&self.table).await;
            let same = rows.len() == report.live.len()
                && rows.iter().all(|(id, version)| report.live.get(&id.to_string()) == Some(version));
            if same {
                return (read, report.seen - read);
            }
            daemon.living().unwrap_or_else(|e| panic!("{e}, with {report}"));
            if Instant::now() > end {
                report.expect_table(&self.db, &self.table).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Does it, then waits for the first record that a consumer sees after it; says how long that took, to about the time
    /// that a reading of the topic takes.
    pub async fn first_record_after(&self, act: impl FnOnce()) -> Duration {
        let last = self.last().await;
        let began = Instant::now();
        tokio::task::block_in_place(act);
        while self.last().await == last {
            assert!(began.elapsed() < LONG, "no record within {LONG:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    }

    async fn last(&self) -> Option<i64> {
        topic::read(&self.bootstrap, &self.topic).await.last().map(|r| r.offset)
    }
}

/// SplitMix64, seeded by the clock: the seed is printed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        println!("seed {}", now.as_nanos() as u64);
        Random(now.as_nanos() as u64)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)) % bound
    }
}

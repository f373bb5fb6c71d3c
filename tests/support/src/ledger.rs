//! A write load whose every change can be audited afterwards.
//!
//! Several clients, each on keys of its own, insert (version 1), update (version + 1) and delete; a transaction now and
//! then is rolled back and must never be seen. [`crate::audit`] judges what was published against it.
//!
//! The count of committed changes must be exact although connections break. A commit without an answer is looked up: the
//! lost session is ended first, so that it cannot commit after the look; then the client's rows are either what they were
//! or what they were to become, and never both: a transaction that would leave them as they were is rolled back.
//!
//! What differs between the databases is in `session`.

mod session;

use crate::eventually;
use session::{Failed, Session};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// The load to be.
#[derive(Clone, Debug)]
pub struct Ledger {
    url: String,
    table: String,
    keys: u64,
    changes: u64,
    clients: u64,
    rate: u64,
    seed: u64,
    per_tx: u64,
    patience: Duration,
}

/// What was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Changes: inserts, updates and deletes.
    pub changes: u64,
    /// Transactions with them.
    pub transactions: u64,
    /// Transactions rolled back.
    pub rollbacks: u64,
    /// Connections that were lost and taken up again.
    pub lost: u64,
}

/// A load under way.
pub struct Running {
    clients: Vec<JoinHandle<Outcome>>,
    committed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Ledger {
    /// A load on `table`, which is made if it is not there: 20,000 changes by 4 clients with 500 keys each.
    pub fn new(url: &str, table: &str) -> Ledger {
        Ledger {
            url: url.to_owned(),
            table: table.to_owned(),
            keys: 500,
            changes: 20_000,
            clients: 4,
            rate: 0,
            seed: 1,
            per_tx: 5,
            patience: Duration::from_secs(120),
        }
    }
    /// Keys of each client.
    pub fn keys(mut self, keys: u64) -> Ledger {
        self.keys = keys;
        self
    }
    /// About how many changes are committed in all; `u64::MAX` goes on until stopped.
    pub fn changes(mut self, changes: u64) -> Ledger {
        self.changes = changes;
        self
    }
    /// Clients at once.
    pub fn clients(mut self, clients: u64) -> Ledger {
        self.clients = clients;
        self
    }
    /// Changes a second in all; 0 is as fast as it goes.
    pub fn rate(mut self, rate: u64) -> Ledger {
        self.rate = rate;
        self
    }
    /// Decides what is done; the same seed does the same.
    pub fn seed(mut self, seed: u64) -> Ledger {
        self.seed = seed;
        self
    }
    /// Changes a transaction, on average.
    pub fn per_tx(mut self, changes: u64) -> Ledger {
        self.per_tx = changes;
        self
    }
    /// How long a server may be away.
    pub fn patience(mut self, patience: Duration) -> Ledger {
        self.patience = patience;
        self
    }

    /// Makes the table if it is not there.
    pub async fn create(&self) {
        session::create(&self.url, &self.table).await;
    }

    /// Makes the table and starts the clients.
    pub async fn start(&self) -> Running {
        self.create().await;
        let (committed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = (0..self.clients)
            .map(|n| {
                let writer = Writer {
                    load: self.clone(),
                    n,
                    random: Random(self.seed.wrapping_mul(1_000).wrapping_add(n)),
                    rows: BTreeMap::new(),
                    done: Outcome::default(),
                    committed: committed.clone(),
                    stop: stop.clone(),
                };
                tokio::spawn(writer.work())
            })
            .collect();
        Running { clients, committed, stop }
    }

    /// The whole load, to its end.
    pub async fn run(&self) -> Outcome {
        self.start().await.join().await
    }
}

impl Running {
    /// Changes committed so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }
    /// Waits until so many changes are committed.
    pub async fn reach(&self, changes: u64, deadline: Duration) {
        eventually(deadline, &format!("{changes} changes committed"), async || match self.committed() {
            n if n >= changes => Ok(()),
            n => Err(n),
        })
        .await;
    }
    /// Lets every client end its transaction, and ends.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        self.join().await
    }
    /// Waits for the end.
    pub async fn join(self) -> Outcome {
        let mut all = Outcome::default();
        for client in self.clients {
            let one = client.await.unwrap_or_else(|e| panic!("a client of the ledger: {e}"));
            all.changes += one.changes;
            all.transactions += one.transactions;
            all.rollbacks += one.rollbacks;
            all.lost += one.lost;
        }
        all
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

type Rows = BTreeMap<i64, i64>;

/// What a lost session was committing, if it was.
type Pending = Option<(Rows, u64)>;

/// What a transaction came to.
enum End {
    Committed,
    RolledBack,
}

struct Writer {
    load: Ledger,
    n: u64,
    random: Random,
    /// This client's rows as committed: id to version.
    rows: Rows,
    done: Outcome,
    committed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    fn base(&self) -> i64 {
        i64::try_from(self.n * self.load.keys).expect("keys fit bigint")
    }

    async fn work(mut self) -> Outcome {
        let quota = self.load.changes / self.load.clients.max(1);
        let began = Instant::now();
        let mut session: Option<Session> = None;
        // The session that was lost, while what became of it is not known.
        let mut lost: Option<(Session, Pending)> = None;
        let mut down_since: Option<Instant> = None;
        // A commit without an answer must be known before the count is told.
        while lost.is_some() || (self.done.changes < quota && !self.stop.load(Ordering::SeqCst)) {
            let Some(mut open) = session.take() else {
                match self.open(&lost).await {
                    Ok(new) => {
                        session = Some(new);
                        lost = None;
                        down_since = None;
                    }
                    Err(e) => {
                        let since = *down_since.get_or_insert_with(Instant::now);
                        assert!(since.elapsed() < self.load.patience, "ledger client {}: server away: {e}", self.n);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                continue;
            };
            let mut pending = None;
            match self.transaction(&mut open, &mut pending).await {
                Ok(end) => {
                    match end {
                        End::Committed => self.settle(pending.take().expect("a commit has rows")),
                        End::RolledBack => self.done.rollbacks += 1,
                    }
                    session = Some(open);
                }
                Err(Failed::Deadlock) if pending.is_none() => {
                    self.done.rollbacks += 1;
                    session = Some(open);
                }
                Err(Failed::Lost(_)) => {
                    self.done.lost += 1;
                    lost = Some((open, pending.take()));
                }
                Err(e) => panic!("ledger client {}: {e}", self.n),
            }
            if let Some(pace) = (self.load.rate > 0).then(|| self.load.rate as f64 / self.load.clients.max(1) as f64) {
                let due = began + Duration::from_secs_f64(self.done.changes as f64 / pace);
                tokio::time::sleep_until(due.into()).await;
            }
        }
        self.done
    }

    fn settle(&mut self, (rows, changes): (Rows, u64)) {
        self.rows = rows;
        self.done.changes += changes;
        self.done.transactions += 1;
        self.committed.fetch_add(changes, Ordering::SeqCst);
    }

    /// A session; and, after a lost one, the truth about its last commit.
    async fn open(&mut self, lost: &Option<(Session, Pending)>) -> Result<Session, Failed> {
        let (from, to) = (self.base(), self.base() + i64::try_from(self.load.keys).expect("keys fit bigint"));
        let before = lost.as_ref().map(|(session, _)| session);
        let mut session = Session::open(&self.load.url, &self.load.table, self.n, before).await?;
        let rows = session.rows(from, to).await?;
        // Last, when nothing can fail any more: told once.
        match lost {
            Some((_, Some((pending, changes)))) if rows == *pending => self.settle((rows, *changes)),
            None => self.rows = rows,
            Some(_) => assert!(
                rows == self.rows,
                "ledger client {}: the table holds neither what was committed nor what was being committed",
                self.n
            ),
        }
        Ok(session)
    }

    /// One transaction. `pending` is set from the moment the commit is sent.
    async fn transaction(&mut self, session: &mut Session, pending: &mut Pending) -> Result<End, Failed> {
        session.say("BEGIN").await?;
        let (mut rows, mut changes) = (self.rows.clone(), 0);
        let number = i32::try_from(self.n).expect("clients fit int");
        for _ in 0..=self.random.below(2 * self.load.per_tx.max(1) - 1) {
            let id = self.base() + i64::try_from(self.random.below(self.load.keys)).expect("keys fit bigint");
            let length = usize::try_from(20 + self.random.below(180)).expect("small");
            let note = "x".repeat(length);
            let dice = self.random.below(100);
            let affected = match rows.get_mut(&id) {
                None => {
                    rows.insert(id, 1);
                    session.insert(id, number, &note).await?
                }
                Some(_) if dice < 5 => {
                    rows.remove(&id);
                    session.delete(id).await?
                }
                Some(version) => {
                    *version += 1;
                    session.update(id, &note).await?
                }
            };
            assert_eq!(affected, 1, "ledger client {}: key {id} is not as it was left", self.n);
            changes += 1;
        }
        if self.random.below(100) < 3 || rows == self.rows {
            session.say("ROLLBACK").await?;
            return Ok(End::RolledBack);
        }
        *pending = Some((rows, changes));
        session.say("COMMIT").await?;
        Ok(End::Committed)
    }
}

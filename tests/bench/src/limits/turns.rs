//! Kafka alone, for latency: what is told to it is sent at once by two transactional producers that take turns, as the daemon's do.
//!
//! It is told of a row by the program that wrote it, so no log is read, decoded or encoded, nothing is kept but the records, and
//! no state goes with them. What a row takes this way is what transactions of this broker on this machine take; a daemon can
//! only add to it.

use super::{commit, producer};
use rdkafka::producer::{BaseRecord, Producer};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// From the beginning of one commit to that of the next, as the daemon keeps it.
const DISTANCE: Duration = Duration::from_millis(8);

/// The producers' thread, and the way to it.
pub struct Turns {
    rows: Sender<i64>,
    thread: JoinHandle<u64>,
}

impl Turns {
    pub fn start(bootstrap: &str, topic: &str) -> Turns {
        let (rows, told) = channel();
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        Turns { rows, thread: std::thread::spawn(move || send(&bootstrap, &topic, &told)) }
    }
    /// A row was written, by a statement that was sent at that microsecond.
    pub fn written(&self, sent: i64) {
        self.rows.send(sent).expect("the producers' thread");
    }
    /// Waits for the last commit; answers how many there were.
    pub fn end(self) -> u64 {
        drop(self.rows);
        self.thread.join().expect("the producers' thread")
    }
}

fn send(bootstrap: &str, topic: &str, rows: &Receiver<i64>) -> u64 {
    let producers = [producer(bootstrap, &[]), producer(bootstrap, &[])];
    let (pad, mut commits, mut due) = ("x".repeat(500), 0, Instant::now());
    for producer in producers.iter().cycle() {
        let Ok(first) = rows.recv() else { break };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + DISTANCE;
        producer.begin_transaction().expect("a transaction");
        for sent in std::iter::once(first).chain(rows.try_iter()) {
            let value = format!("{{\"after\":{{\"sent_us\":{sent},\"pad\":\"{pad}\"}}}}");
            let record: BaseRecord<'_, [u8], str> = BaseRecord::to(topic).partition(0).payload(&value);
            producer.send(record).expect("room for a record");
        }
        commit(producer);
        commits += 1;
    }
    commits
}

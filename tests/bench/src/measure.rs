//! What a run costs and how far it is: CPU of processes, memory, ends of topics.
//!
//! CPU of a server is that of its process and all it has started, those that have ended included (the kernel adds them to
//! their parent). What neither daemon, database, broker nor this program used is `others`: where it is large, the rates are
//! not to be believed.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use seachange_testkit::unique;
use std::time::{Duration, Instant};
use std::{cell::RefCell, collections::HashSet};

const TICKS: f64 = 100.0;

fn stat(pid: u32) -> Option<Vec<u64>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // From the state on: the name may hold blanks and brackets.
    Some(stat.rsplit(')').next()?.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect())
}

fn seconds(fields: &[u64], at: &[usize]) -> f64 {
    at.iter().filter_map(|i| fields.get(*i)).sum::<u64>() as f64 / TICKS
}

/// User and system time of a process, in seconds; of one that has ended 0.
pub fn cpu_of(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |f| seconds(&f, &[11, 12]))
}

/// The same of a process with all its descendants, past and present; 0 of none.
pub fn cpu_of_tree(root: u32) -> f64 {
    if root == 0 {
        return 0.0;
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok())
            && let Some(fields) = stat(pid)
        {
            all.push((pid, fields));
        }
    }
    let parent = |f: &[u64]| f.get(1).copied().unwrap_or(0);
    let (mut sum, mut open) = (0.0, vec![root]);
    while let Some(pid) = open.pop() {
        for (child, fields) in &all {
            if *child == pid {
                sum += seconds(fields, &[11, 12, 13, 14]);
            } else if parent(fields) == u64::from(pid) {
                open.push(*child);
            }
        }
    }
    sum
}

/// Times of all cores since the machine started, by their place in `/proc/stat`.
fn cpu_of_machine(places: &[usize]) -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).map(|f| f.parse().unwrap_or(0)).collect();
    seconds(&fields, places)
}

/// Busy time of all cores, in seconds, with what a hypervisor has given to other machines meanwhile.
pub fn cpu_of_all() -> f64 {
    cpu_of_machine(&[0, 1, 2, 5, 6, 7])
}

/// Of it, what a hypervisor has given to other machines.
pub fn stolen() -> f64 {
    cpu_of_machine(&[7])
}

/// How many cores there are.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

fn status_mib(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The most memory that a process has had resident.
pub fn peak_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}
/// What it has resident now.
pub fn resident_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

/// Two digits are enough.
pub fn round(x: f64) -> f64 {
    if x.abs() >= 1000.0 { x.round() } else { (x * 100.0).round() / 100.0 }
}

/// The middle one.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The process of a server, by the environment that `scripts/bench` sets; 0, which costs nothing, when it is not set.
pub fn server(name: &str) -> u32 {
    let name = format!("SEACHANGE_BENCH_PID_{}", name.to_uppercase());
    std::env::var(name).ok().and_then(|p| p.trim().parse().ok()).unwrap_or(0)
}

/// CPU seconds by who used them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub at: f64,
    pub daemon: f64,
    pub database: f64,
    pub broker: f64,
    pub own: f64,
    pub all: f64,
}

/// Reads usage since it was made.
pub struct Meter {
    daemon: u32,
    database: u32,
    broker: u32,
    began: Instant,
    zero: Usage,
}

impl Meter {
    pub fn new(daemon: u32, database: u32) -> Meter {
        let mut meter =
            Meter { daemon, database, broker: server("kafka"), began: Instant::now(), zero: Usage::default() };
        meter.zero = Usage { at: 0.0, ..meter.read() };
        meter
    }
    pub fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
    fn read(&self) -> Usage {
        Usage {
            at: self.elapsed(),
            daemon: if self.daemon == 0 { 0.0 } else { cpu_of(self.daemon) },
            database: cpu_of_tree(self.database),
            broker: cpu_of(self.broker),
            own: cpu_of(std::process::id()),
            all: cpu_of_all(),
        }
    }
    pub fn usage(&self) -> Usage {
        let (now, zero) = (self.read(), self.zero);
        Usage {
            at: now.at,
            daemon: now.daemon - zero.daemon,
            database: now.database - zero.database,
            broker: now.broker - zero.broker,
            own: now.own - zero.own,
            all: now.all - zero.all,
        }
    }
}

impl Usage {
    /// Share of the whole machine that went to whoever has nothing to do with the run.
    pub fn others(&self) -> f64 {
        let others = self.all - self.daemon - self.database - self.broker - self.own;
        if self.at > 0.0 { (others / (self.at * cores())).max(0.0) } else { 0.0 }
    }
}

/// Topics of one partition each, watched as a `read_committed` consumer does.
pub struct Topics {
    consumer: BaseConsumer,
    probe: BaseConsumer,
    bootstrap: String,
    pub names: Vec<String>,
    /// Those of them that have been seen.
    found: RefCell<HashSet<String>>,
}

impl Topics {
    pub fn new(bootstrap: &str, names: Vec<String>) -> Topics {
        let probe = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("allow.auto.create.topics", "false")
            .create()
            .expect("a client");
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", unique("bench"))
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.min.bytes", "1")
            .set("fetch.message.max.bytes", "104857600")
            .set("receive.message.max.bytes", "209715200")
            .create()
            .expect("a consumer");
        Topics { consumer, probe, bootstrap: bootstrap.to_owned(), names, found: RefCell::default() }
    }

    /// Ends of all of them together; one that is not there ends at 0. Commit markers count.
    pub fn end(&self) -> u64 {
        let patience = Duration::from_secs(2);
        // A client that has once been told that a topic is not there sees it up to a second late: another one asks.
        let is_there = |t: &str| {
            let answer = self.probe.fetch_metadata(Some(t), patience);
            answer.is_ok_and(|m| m.topics().iter().any(|t| t.partitions().iter().any(|p| p.leader() >= 0)))
        };
        let end = |t: &String| {
            if !self.found.borrow().contains(t) {
                if !is_there(t) {
                    return 0;
                }
                self.found.borrow_mut().insert(t.clone());
            }
            self.consumer.fetch_watermarks(t, 0, patience).map_or(0, |(_, high)| high as u64)
        };
        self.names.iter().map(end).sum()
    }

    /// From where a consumer reads the first topic.
    pub fn read_from(&self, offset: Offset) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.names[0], 0, offset).expect("an offset");
        self.consumer.assign(&list).expect("assigned");
    }
    /// Key and value of the next record.
    pub fn next(&self, patience: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
        let message = self.consumer.poll(patience)?.ok()?;
        Some((message.key().unwrap_or_default().to_vec(), message.payload().unwrap_or_default().to_vec()))
    }

    /// The first records of the first topic, at most `records` and 16 MiB of them, while they come within 5 s.
    pub fn sample(&self, records: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.read_from(Offset::Beginning);
        let (mut out, mut bytes, began) = (Vec::new(), 0, Instant::now());
        while out.len() < records && bytes < 16 << 20 && began.elapsed() < Duration::from_secs(5) {
            if let Some((key, value)) = self.next(Duration::from_millis(100)) {
                bytes += key.len() + value.len();
                out.push((key, value));
            }
        }
        self.consumer.unassign().expect("unassigned");
        out
    }

    /// The broker forgets them.
    pub async fn delete(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("an admin client");
        for names in self.names.chunks(500) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // What was never made cannot be deleted: that is no fault.
            if let Err(e) = admin.delete_topics(&names, &AdminOptions::new()).await {
                eprintln!("topics are left behind: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_in_every_sum() {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(60) {}
        let (own, tree) = (cpu_of(std::process::id()), cpu_of_tree(std::process::id()));
        assert!(own > 0.0 && tree >= own && cpu_of_all() > own);
        assert!(resident_mib(std::process::id()) > 0.1);
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(round(1234.567), 1235.0);
        assert_eq!(round(1.2345), 1.23);
    }
}

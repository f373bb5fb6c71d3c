//! Topics: made before their first use, with configured partitions; how many partitions each has.
//!
//! Nothing is left to the broker's automatic creation: it would choose partitions, and for the state topic a retention
//! that loses the position. So metadata are asked for without permission to create, what is missing is created in one
//! request (a few, where there are hundreds), and then metadata are awaited. "Exists already" is fine (somebody else was
//! quicker); "not allowed" is an error that names the permission. Partition counts are kept until the sink is opened
//! again: a topic that gets more partitions while the pipeline runs uses them after its next start, and keys move then,
//! as with every producer.

use super::{
    properties,
    trouble::{self, Trouble},
};
use crate::config::resolved::Kafka;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::Client,
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode as Code,
    metadata::{Metadata, MetadataTopic},
};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// More topics than this are looked up by one request for all of the cluster's. A producer that is asked about a missing topic
/// goes on asking about it by itself, and about all such topics whenever it is asked about one more: 1,500 at once were not
/// found within half a minute.
pub const MANY: usize = 32;
/// Records that a controller makes of one request to create topics, one for each topic, partition and setting: it refuses a
/// request of more than 10,000.
const CONTROLLER_RECORDS: usize = 2000;
/// Between two looks at all topics: in a large cluster each is megabytes, and a partition may be without leader for long.
const LISTING: Duration = Duration::from_millis(200);
/// How long what a listing told of topics that nobody asked about is taken for true, and a topic for just created.
const RECENT: Duration = Duration::from_secs(10);

/// When to give up: a deadline, and a flag that stops the pipeline.
#[derive(Clone)]
pub struct Patience {
    stop: Arc<AtomicBool>,
    until: Instant,
}

impl Patience {
    /// From now on for this long.
    pub fn new(stop: &Arc<AtomicBool>, time: Duration) -> Patience {
        Patience { stop: Arc::clone(stop), until: Instant::now() + time }
    }
    /// Time left, at most `slice`. `None`: give up.
    pub fn left(&self, slice: Duration) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stop.load(Ordering::Relaxed) { None } else { Some(left.min(slice)) }
    }
    /// The error of having given up.
    pub fn over(&self, trouble: &Trouble, what: &str) -> Error {
        if self.stop.load(Ordering::Relaxed) {
            Error::sink(Kind::Sink, format!("{what}: stopped while waiting for Kafka"))
        } else {
            trouble.late(what)
        }
    }
}

/// How a topic is made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Partitions.
    pub partitions: i32,
    /// Replication; `None`: the broker's default.
    pub replication: Option<i32>,
    /// Settings.
    pub settings: BTreeMap<String, String>,
}

/// What a broker tells of a topic, or (`None`) of all topics that this account may see.
fn metadata(client: &Client<Trouble>, topic: Option<&str>, what: &str, patience: &Patience) -> Result<Metadata> {
    loop {
        let Some(slice) = patience.left(Duration::from_secs(2)) else {
            return Err(patience.over(client.context(), what));
        };
        let e = match client.fetch_metadata(topic, if topic.is_some() { slice } else { slice * 5 }) {
            Ok(m) => return Ok(m),
            Err(e) => e,
        };
        if let Some(e) = client.context().hopeless(what) {
            return Err(e);
        }
        let error = client.context().error(what, &e);
        if error.retryable() == Retry::Backoff && patience.left(slice).is_some() {
            thread::sleep(Duration::from_millis(50).min(slice));
            continue;
        }
        return Err(if error.kind() == Kind::Connect { patience.over(client.context(), what) } else { error });
    }
}

/// What is told of one topic.
enum Seen {
    /// It has so many partitions, each with a leader.
    Partitions(i32),
    Missing,
    /// A partition has no leader yet: a record to it would only lie in the queue.
    Leaderless,
}

fn seen(topic: &MetadataTopic, what: impl FnOnce() -> String) -> Result<Seen> {
    match topic.error().map(Code::from) {
        None if topic.partitions().is_empty() => Ok(Seen::Missing),
        None if topic.partitions().iter().all(|p| p.leader() >= 0) => {
            Ok(Seen::Partitions(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(Seen::Missing),
        None | Some(Code::LeaderNotAvailable) => Ok(Seen::Leaderless),
        Some(code) => Err(trouble::from_code(code, format!("{}: {code}", what()))),
    }
}

/// Partitions of a topic, or `None` if there is no such topic.
pub fn partitions(client: &Client<Trouble>, topic: &str, patience: &Patience) -> Result<Option<i32>> {
    let what = || format!("topic {topic}: reading its metadata");
    loop {
        let metadata = metadata(client, Some(topic), &what(), patience)?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
        match seen(found, what)? {
            Seen::Partitions(n) => return Ok(Some(n)),
            Seen::Missing => return Ok(None),
            Seen::Leaderless => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// The same of all topics that have leaders, by one request; asked again until all of `topics` that exist have theirs.
fn listing(client: &Client<Trouble>, topics: &[&str], patience: &Patience) -> Result<HashMap<Arc<str>, i32>> {
    loop {
        let all = metadata(client, None, "reading the metadata of all topics", patience)?;
        let found: HashMap<&str, &MetadataTopic> = all.topics().iter().map(|t| (t.name(), t)).collect();
        let mut leaderless = false;
        for topic in topics.iter().filter_map(|t| found.get(t)) {
            leaderless |=
                matches!(seen(topic, || format!("topic {}: reading its metadata", topic.name()))?, Seen::Leaderless);
        }
        if !leaderless {
            let partitions = |t: &MetadataTopic| match seen(t, String::new) {
                Ok(Seen::Partitions(n)) => Some((Arc::from(t.name()), n)),
                _ => None,
            };
            return Ok(found.into_values().filter_map(partitions).collect());
        }
        thread::sleep(LISTING);
    }
}

/// How many partitions topics have, as far as they were looked up since the sink was opened.
#[derive(Default)]
pub struct Known {
    counts: HashMap<Arc<str>, i32>,
    /// What the last listing told, and when: topics that meet their first record soon after it need not be asked about, so that
    /// thousands that come one after the other, as after a start, cost a listing now and then.
    listed: Option<(Instant, HashMap<Arc<str>, i32>)>,
    /// When topics were created last.
    created: Option<Instant>,
}

impl Known {
    /// Partitions of a topic that was looked up.
    pub fn partitions(&self, topic: &str) -> Option<i32> {
        self.counts.get(topic).copied()
    }

    /// Was any topic created so recently that not every broker may have heard of it?
    pub fn just_created(&self) -> bool {
        self.created.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Gives a listing up that is too old: in a large cluster it is megabytes.
    pub fn forget(&mut self) {
        if self.listed.as_ref().is_some_and(|(at, _)| at.elapsed() > RECENT) {
            self.listed = None;
        }
    }

    /// Looks up those of these topics that are not known, and creates those that are missing.
    pub fn ensure(
        &mut self,
        client: &Client<Trouble>,
        kafka: &Kafka,
        topics: &[Arc<str>],
        shape: &Shape,
        patience: &Patience,
    ) -> Result<()> {
        self.forget();
        let mut unknown = Vec::new();
        for topic in topics {
            if self.counts.contains_key(topic) {
                continue;
            }
            match self.listed.as_ref().and_then(|(_, all)| all.get(topic)) {
                Some(n) => {
                    self.counts.insert(Arc::clone(topic), *n);
                }
                None => unknown.push((&**topic, shape)),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let created = if unknown.len() > MANY {
            let (all, created) = ensure_many(client.context(), kafka, &unknown, patience)?;
            let (_, all) = self.listed.insert((Instant::now(), all));
            self.counts.extend(topics.iter().filter_map(|t| Some((Arc::clone(t), *all.get(t)?))));
            created
        } else {
            let (counts, created) = ensure(client, kafka, &unknown, patience)?;
            self.counts.extend(unknown.iter().map(|(t, _)| Arc::from(*t)).zip(counts));
            created
        };
        if created {
            self.created = Some(Instant::now());
        }
        Ok(())
    }
}

/// Partitions of every topic, in order, after creating those that do not exist; and whether any was.
pub fn ensure(
    client: &Client<Trouble>,
    kafka: &Kafka,
    topics: &[(&str, &Shape)],
    patience: &Patience,
) -> Result<(Vec<i32>, bool)> {
    let mut counts = Vec::with_capacity(topics.len());
    let mut missing = Vec::new();
    for (i, (name, shape)) in topics.iter().enumerate() {
        let count = partitions(client, name, patience)?;
        if count.is_none() {
            missing.push((i, *name, *shape));
        }
        counts.push(count.unwrap_or(0));
    }
    if missing.is_empty() {
        return Ok((counts, false));
    }
    let what = format!("creating topics {}", missing.iter().map(|m| m.1).collect::<Vec<_>>().join(", "));
    create(&Admin::new(client.context(), kafka, &what)?, client.context(), &missing, &what, patience)?;
    for (i, name, _) in missing {
        let mut wait = Duration::from_millis(2);
        loop {
            if let (Some(n), Some(slot)) = (partitions(client, name, patience)?, counts.get_mut(i)) {
                *slot = n;
                break;
            }
            let what = || format!("topic {name}: waiting for it to appear after its creation");
            thread::sleep(patience.left(wait).ok_or_else(|| patience.over(client.context(), &what()))?);
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }
    Ok((counts, true))
}

/// [`ensure`] by a client of its own, which is asked about all topics at once; tells of all that there are.
fn ensure_many(
    trouble: &Trouble,
    kafka: &Kafka,
    topics: &[(&str, &Shape)],
    patience: &Patience,
) -> Result<(HashMap<Arc<str>, i32>, bool)> {
    let what = format!("looking up {} topics", topics.len());
    let admin = Admin::new(trouble, kafka, &what)?;
    let names: Vec<&str> = topics.iter().map(|t| t.0).collect();
    let mut all = listing(admin.client()?.inner(), &names, patience)?;
    let missing = topics.iter().enumerate().filter(|(_, (name, _))| !all.contains_key(*name));
    let missing: Vec<_> = missing.map(|(i, (name, shape))| (i, *name, *shape)).collect();
    let records = |s: &Shape| 1 + s.settings.len() + usize::try_from(s.partitions).unwrap_or(1);
    let at_once = CONTROLLER_RECORDS / topics.iter().map(|t| records(t.1)).max().unwrap_or(1);
    for some in missing.chunks(at_once.max(1)) {
        let what = format!("creating {} topics, {} to {}", some.len(), some[0].1, some[some.len() - 1].1);
        create(&admin, trouble, some, &what, patience)?;
    }
    while !names.iter().all(|name| all.contains_key(*name)) {
        let what = || format!("waiting for {} topics to appear after their creation", missing.len());
        thread::sleep(patience.left(LISTING).ok_or_else(|| patience.over(trouble, &what()))?);
        all = listing(admin.client()?.inner(), &names, patience)?;
    }
    Ok((all, !missing.is_empty()))
}

/// Has a client look at topics for which it has handles: without, the first records of a topic that was only just made wait
/// for the client's own next look, 100 ms later. That is little where there are many of them, and a client that is told of
/// all topics goes through its own for each.
pub fn look(client: &Client<Trouble>, topics: &[&str], patience: &Patience) -> Result<()> {
    if topics.len() > MANY {
        return Ok(());
    }
    topics.iter().try_for_each(|topic| partitions(client, topic, patience).map(|_| ()))
}

fn create(
    admin: &Admin,
    trouble: &Trouble,
    missing: &[(usize, &str, &Shape)],
    what: &str,
    patience: &Patience,
) -> Result<()> {
    let new: Vec<_> = missing
        .iter()
        .map(|(_, name, shape)| {
            let mut t = NewTopic::new(name, shape.partitions, TopicReplication::Fixed(shape.replication.unwrap_or(-1)));
            for (k, v) in &shape.settings {
                t = t.set(k, v);
            }
            t
        })
        .collect();
    let time = patience.left(Duration::from_secs(30)).ok_or_else(|| patience.over(trouble, what))?;
    let options = AdminOptions::new().request_timeout(Some(time)).operation_timeout(Some(time));
    let results = block_on(admin.client()?.create_topics(&new, &options), patience)
        .ok_or_else(|| patience.over(trouble, what))?
        .map_err(|e| trouble.error(what, &e))?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, "topic created"),
            Err((name, Code::TopicAlreadyExists)) => tracing::debug!(topic = name, "topic exists already"),
            Err((name, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => {
                return Err(Error::new(
                    Kind::Auth,
                    Side::Sink,
                    Retry::Operator,
                    format!("topic {name} does not exist and the broker does not let Seachange create it"),
                )
                .fix(format!(
                    "grant the principal Create on the topic (kafka-acls --add --operation Create --operation Describe \
                     --operation Write --topic {name}), or create the topic"
                )));
            }
            Err((name, code)) => return Err(trouble::from_code(code, format!("creating topic {name}: {code}"))),
        }
    }
    Ok(())
}

/// Is the topic compacted, and nothing else? `None` when the broker does not say.
pub fn compacted(trouble: &Trouble, kafka: &Kafka, topic: &str, patience: &Patience) -> Result<Option<bool>> {
    let what = || format!("topic {topic}: reading its settings");
    let admin = Admin::new(trouble, kafka, &what())?;
    let time = patience.left(Duration::from_secs(10)).ok_or_else(|| patience.over(trouble, &what()))?;
    let options = AdminOptions::new().request_timeout(Some(time));
    let specifier = [ResourceSpecifier::Topic(topic)];
    let results = block_on(admin.client()?.describe_configs(&specifier, &options), patience)
        .ok_or_else(|| patience.over(trouble, &what()))?
        .map_err(|e| trouble.error(&what(), &e))?;
    match results.into_iter().next() {
        Some(Ok(resource)) => {
            let policy = resource.get("cleanup.policy").and_then(|e| e.value.as_deref());
            Ok(policy.map(|p| p.trim() == "compact"))
        }
        Some(Err(code)) => {
            tracing::debug!(topic, %code, "the broker does not tell the topic's settings");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// An admin client for one request.
struct Admin(Option<AdminClient<Trouble>>);

impl Admin {
    fn new(trouble: &Trouble, kafka: &Kafka, what: &str) -> Result<Admin> {
        let client = AdminClient::from_config_and_context(&properties::client(kafka), trouble.clone())
            .map_err(|e| trouble.error(what, &e))?;
        Ok(Admin(Some(client)))
    }
    fn client(&self) -> Result<&AdminClient<Trouble>> {
        self.0.as_ref().ok_or_else(|| Error::bug("an admin client is used after its end"))
    }
}

impl Drop for Admin {
    /// Ends it elsewhere: it waits up to 100 ms for its own thread, and start-up should not.
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread to do it, `client` was moved into the closure that is dropped here: it ends all the same.
        if let Err(e) = thread::Builder::new().name("admin-end".into()).spawn(move || drop(client)) {
            tracing::debug!(error = %e, "no thread to end an admin client in");
        }
    }
}

struct Unpark(Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. The admin client completes its futures from a thread of its own, so nothing but
/// parking is needed. `None`: patience is over.
fn block_on<F: Future>(future: F, patience: &Patience) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut context) {
            return Some(out);
        }
        thread::park_timeout(patience.left(Duration::from_millis(100))?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_by_time_and_by_flag() {
        let stop = Arc::new(AtomicBool::new(false));
        assert!(Patience::new(&stop, Duration::ZERO).left(Duration::from_secs(1)).is_none());
        let p = Patience::new(&stop, Duration::from_secs(60));
        assert_eq!(p.left(Duration::from_secs(1)), Some(Duration::from_secs(1)));
        assert_eq!(p.over(&Trouble::new("p"), "x").kind(), Kind::Connect);
        assert!(block_on(std::future::pending::<()>(), &Patience::new(&stop, Duration::from_millis(20))).is_none());
        assert_eq!(block_on(async { 7 }, &p), Some(7));
        stop.store(true, Ordering::Relaxed);
        assert!(p.left(Duration::from_secs(1)).is_none());
        assert!(p.over(&Trouble::new("p"), "x").what().contains("stopped"));
    }

    #[test]
    fn a_listing_answers_for_topics_for_a_while() {
        let kafka = Kafka { bootstrap: "127.0.0.1:1".into(), properties: BTreeMap::new() };
        let trouble = Trouble::new("p");
        let nobody = Admin::new(&trouble, &kafka, "a test").unwrap();
        let client = nobody.client().unwrap().inner();
        let shape = Shape { partitions: 1, replication: None, settings: BTreeMap::new() };
        let stop = Arc::new(AtomicBool::new(false));
        let mut known = Known { listed: Some((Instant::now(), HashMap::from([("a".into(), 3)]))), ..Known::default() };
        let ensure = |known: &mut Known, topic: &str| {
            known.ensure(client, &kafka, &[topic.into()], &shape, &Patience::new(&stop, Duration::from_millis(50)))
        };
        ensure(&mut known, "a").unwrap();
        assert_eq!((known.partitions("a"), known.partitions("b")), (Some(3), None));
        assert!(ensure(&mut known, "b").is_err(), "nobody there who could be asked");
        // What has been used stays known; what was only listed has to be asked about after a while.
        known.listed = Instant::now()
            .checked_sub(2 * RECENT)
            .map(|long_ago| (long_ago, HashMap::from([("a".into(), 4), ("c".into(), 3)])));
        ensure(&mut known, "a").unwrap();
        assert_eq!(known.partitions("a"), Some(3));
        assert!(ensure(&mut known, "c").is_err() && known.partitions("c").is_none());
    }
}

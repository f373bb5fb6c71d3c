//! The Kafka sink against a real broker: nothing lost, nothing twice, nothing seen before its commit.
//!
//! Runs when SEACHANGE_TEST_KAFKA (`host:port`) names a broker, and says loudly that it was skipped otherwise.
//! `cargo test --release --test sink -- --ignored --nocapture` prints throughput and CPU time.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use seachange::{
    config::resolved::{Kafka, KafkaSink as Settings, Topics},
    sink::{Header, Record, Records, Sink, kafka::KafkaSink, partition, state_topic},
};
use seachange_sdk::{Kind, Outcome, Retry, Secret};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The broker, or `None` with a loud word.
fn broker(test: &str) -> Option<String> {
    let broker = std::env::var("SEACHANGE_TEST_KAFKA").ok().filter(|b| !b.is_empty());
    if broker.is_none() {
        eprintln!("\n!!!! SKIPPED {test}: SEACHANGE_TEST_KAFKA is not set !!!!\n");
    }
    broker
}

/// A name that no earlier run has used.
fn fresh(name: &str) -> String {
    static N: AtomicU32 = AtomicU32::new(0);
    let us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("t{us:x}-{}-{name}", N.fetch_add(1, Ordering::Relaxed))
}

fn kafka(bootstrap: &str, properties: &[(&str, &str)]) -> Kafka {
    Kafka {
        bootstrap: bootstrap.to_owned(),
        properties: properties.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect(),
    }
}

fn settings() -> Settings {
    Settings { cluster: "seachange-test".into(), transaction_timeout: Duration::from_secs(60) }
}

fn topics(partitions: i32) -> Topics {
    Topics {
        name: String::new(),
        partitions,
        replication: None,
        settings: [("retention.ms".to_owned(), "86400000".to_owned())].into(),
        transaction: String::new(),
        message: String::new(),
    }
}

fn sink_with(kafka: &Kafka, pipeline: &str, partitions: i32) -> KafkaSink {
    KafkaSink::new(kafka, &settings(), &topics(partitions), pipeline, Arc::default())
}

fn sink(bootstrap: &str, pipeline: &str) -> KafkaSink {
    sink_with(&kafka(bootstrap, &[]), pipeline, 3)
}

/// An opened sink of a pipeline that nobody has used, with the pipeline's name.
fn opened(bootstrap: &str, name: &str) -> (String, KafkaSink) {
    let pipeline = fresh(name);
    let mut s = sink(bootstrap, &pipeline);
    s.open().unwrap();
    (pipeline, s)
}

fn push(r: &mut Records, topic: &str, key: Option<&str>, value: Option<&[u8]>, header: Option<(&'static str, &str)>) {
    let topic = r.topic(topic);
    let mut put = |b: &[u8]| {
        let start = r.buf.len() as u32;
        r.buf.extend_from_slice(b);
        start..r.buf.len() as u32
    };
    let key = key.map(|k| put(k.as_bytes()));
    let value = value.map(&mut put);
    let from = r.headers.len() as u32;
    if let Some((name, v)) = header {
        let value = put(v.as_bytes());
        r.headers.push(Header { name, value });
    }
    r.items.push(Record { topic, key, value, headers: from..r.headers.len() as u32 });
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct Got {
    partition: i32,
    key: Option<String>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

/// Everything in a topic up to its end, by partition and offset.
fn read(bootstrap: &str, topic: &str, isolation: &str) -> Vec<Got> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "seachange-test-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
    let mut list = TopicPartitionList::new();
    let mut open = metadata.topics()[0].partitions().len();
    for p in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, p.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut out = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while open > 0 {
        assert!(Instant::now() < deadline, "no end of {topic}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(e)) => panic!("{e}"),
            Some(Ok(m)) => {
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                let headers =
                    m.headers().map(|h| h.iter().map(|h| (h.key.to_owned(), text(h.value.unwrap()))).collect());
                out.push(Got {
                    partition: m.partition(),
                    key: m.key().map(text),
                    value: m.payload().map(<[u8]>::to_vec),
                    headers: headers.unwrap_or_default(),
                });
            }
        }
    }
    out
}

#[test]
fn exactly_once() {
    let Some(b) = broker("exactly_once") else { return };
    let (pipeline, topic) = (fresh("once"), fresh("once"));
    let mut first = sink(&b, &pipeline);
    assert!(first.open().unwrap().is_empty());
    let mut r = Records::default();
    for i in 0..100 {
        push(&mut r, &topic, Some(&format!("k{i}")), Some(b"v"), None);
    }
    first.append(&r).unwrap();
    drop(first);
    assert_eq!(read(&b, &topic, "read_committed"), [], "not committed");

    // The crashed owner's records never appear; what follows does, once, together with its state.
    let mut second = sink(&b, &pipeline);
    assert!(second.open().unwrap().is_empty());
    r.clear();
    push(&mut r, &topic, Some("a"), Some(b"1"), Some(("h", "x")));
    push(&mut r, &topic, Some("a"), None, None);
    second.append(&r).unwrap();
    second.commit(&vec![("position".into(), Some(b"p1".to_vec())), ("gone".into(), Some(b"x".to_vec()))]).unwrap();
    let got = read(&b, &topic, "read_committed");
    let p = partition::partition(b"a", 3);
    let a = Some("a".to_owned());
    assert_eq!(
        got,
        [
            Got { partition: p, key: a.clone(), value: Some(b"1".to_vec()), headers: vec![("h".into(), "x".into())] },
            Got { partition: p, key: a, value: None, headers: vec![] },
        ]
    );
    second.commit(&vec![("gone".into(), None), ("empty".into(), Some(vec![]))]).unwrap();
    second.commit(&vec![]).unwrap();

    // A third owner fences the second and reads its state.
    let mut third = sink(&b, &pipeline);
    let stored = third.open().unwrap();
    assert_eq!(
        stored.into_iter().collect::<Vec<_>>(),
        [("empty".to_owned(), vec![]), ("position".to_owned(), b"p1".to_vec())]
    );
    r.clear();
    push(&mut r, &topic, Some("a"), Some(b"fenced"), None);
    let e =
        second.append(&r).and_then(|()| second.commit(&vec![("position".into(), Some(b"p2".to_vec()))])).unwrap_err();
    assert_eq!((e.kind(), e.retryable()), (Kind::Fenced, Retry::Backoff), "{e:?}");
    assert!(e.remedy().is_some_and(|f| f.contains("another daemon")), "{e:?}");
    drop(second);
    third.commit(&vec![("position".into(), Some(b"p3".to_vec()))]).unwrap();
    assert_eq!(read(&b, &topic, "read_committed").len(), 2);
    let peeked = state_topic_peek(&b, &pipeline).unwrap();
    assert_eq!(peeked["position"], b"p3");
}

fn state_topic_peek(b: &str, pipeline: &str) -> Option<seachange::sink::Stored> {
    let s = settings();
    state_topic::peek(&kafka(b, &[]), &s.transactional_id(pipeline), &s.state_topic(pipeline), pipeline).unwrap()
}

#[test]
fn an_abort_leaves_nothing_and_the_sink_goes_on() {
    let Some(b) = broker("abort") else { return };
    let (pipeline, topic) = (fresh("abort"), fresh("abort"));
    assert_eq!(state_topic_peek(&b, &pipeline), None);
    let mut s = sink(&b, &pipeline);
    s.open().unwrap();
    let mut r = Records::default();
    push(&mut r, &topic, Some("a"), Some(b"1"), None);
    s.append(&r).unwrap();
    s.abort().unwrap();
    s.abort().unwrap();
    r.clear();
    push(&mut r, &topic, Some("a"), Some(b"2"), None);
    s.append(&r).unwrap();
    s.commit(&vec![]).unwrap();
    let got = read(&b, &topic, "read_committed");
    assert_eq!(got.iter().map(|g| g.value.as_deref().unwrap()).collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn partitions_are_those_of_kafkas_java_client() {
    let Some(b) = broker("partitions") else { return };
    let (pipeline, topic, keyless) = (fresh("part"), fresh("part"), fresh("keyless"));
    let mut s = sink_with(&kafka(&b, &[]), &pipeline, 7);
    s.open().unwrap();
    let mut r = Records::default();
    for i in 0..200 {
        push(&mut r, &topic, Some(&format!("{{\"id\":{i}}}")), Some(b"v"), None);
        push(&mut r, &keyless, None, Some(i.to_string().as_bytes()), None);
    }
    s.append(&r).unwrap();
    s.commit(&vec![]).unwrap();
    let got = read(&b, &topic, "read_committed");
    assert_eq!(got.len(), 200);
    for g in &got {
        assert_eq!(g.partition, partition::partition(g.key.as_ref().unwrap().as_bytes(), 7));
    }
    assert!((0..7).all(|p| got.iter().any(|g| g.partition == p)));
    let got = read(&b, &keyless, "read_committed");
    let values: Vec<_> = got.iter().map(|g| String::from_utf8(g.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values, (0..200).map(|i| i.to_string()).collect::<Vec<_>>(), "a topic without keys keeps its order");
}

#[test]
fn another_arena_may_number_topics_otherwise() {
    let Some(b) = broker("arenas") else { return };
    let (pipeline, t1, t2) = (fresh("arena"), fresh("a1"), fresh("a2"));
    let mut s = sink(&b, &pipeline);
    s.open().unwrap();
    let (mut x, mut y) = (Records::default(), Records::default());
    push(&mut x, &t1, Some("k"), Some(b"1"), None);
    push(&mut x, &t2, Some("k"), Some(b"2"), None);
    push(&mut y, &t2, Some("k"), Some(b"2"), None);
    push(&mut y, &t1, Some("k"), Some(b"1"), None);
    for r in [&x, &y, &x] {
        s.append(r).unwrap();
    }
    s.commit(&vec![]).unwrap();
    for (t, v) in [(&t1, b"1"), (&t2, b"2")] {
        let got = read(&b, t, "read_committed");
        assert!(got.len() == 3 && got.iter().all(|g| g.value.as_deref() == Some(v)), "{got:?}");
    }
}

#[test]
fn the_state_joins_a_transaction_with_its_first_record() {
    let Some(b) = broker("state joins") else { return };
    let ((pipeline, mut s), topic) = (opened(&b, "joins"), fresh("joins"));
    for n in 0..3 {
        let mut r = Records::default();
        push(&mut r, &topic, Some("k"), Some(b"v"), None);
        s.append(&r).unwrap();
        s.append(&r).unwrap();
        s.commit(&vec![(format!("entry{n}"), Some(b"x".to_vec()))]).unwrap();
    }
    // State alone needs no such record.
    s.commit(&vec![("alone".to_owned(), Some(b"x".to_vec()))]).unwrap();
    drop(s);
    let stored = read(&b, &settings().state_topic(&pipeline), "read_committed");
    let keys: Vec<&str> = stored.iter().filter_map(|g| g.key.as_deref()).collect();
    assert_eq!(keys, ["opened", "opened", "entry0", "opened", "entry1", "opened", "entry2", "alone"]);
    // All of one opener's are the same, and no part of what is stored.
    let marks: Vec<_> = stored.iter().filter(|g| g.key.as_deref() == Some("opened")).map(|g| &g.value).collect();
    assert!(marks.iter().all(|m| *m == marks[0]), "{marks:?}");
    let again = sink(&b, &pipeline).open().unwrap();
    assert_eq!(again.keys().collect::<Vec<_>>(), ["alone", "entry0", "entry1", "entry2"]);
}

#[test]
fn topics_that_are_expected_are_there_before_their_records() {
    let Some(b) = broker("expected topics") else { return };
    let ((_, mut s), prefix) = (opened(&b, "expect"), fresh("expect"));
    let names: Vec<String> = (0..40).map(|i| format!("{prefix}.{i}")).collect();
    create(&b, &names[7], &[]);
    s.expect(&names).unwrap();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &b).create().unwrap();
    let all = consumer.fetch_metadata(None, Duration::from_secs(20)).unwrap();
    let there = |name: &String| all.topics().iter().find(|t| t.name() == name).map_or(0, |t| t.partitions().len());
    let counts: Vec<usize> = names.iter().map(there).collect();
    assert!(counts.iter().enumerate().all(|(i, n)| *n == if i == 7 { 1 } else { 3 }), "{counts:?}");
    // Of those and of one more, by both producers: every record goes to a partition that exists.
    for round in 0..2 {
        let mut r = Records::default();
        for name in names.iter().chain([&format!("{prefix}.more")]) {
            push(&mut r, name, Some(&format!("k{round}")), Some(b"v"), None);
        }
        s.append(&r).unwrap();
        s.commit(&vec![]).unwrap();
    }
    for name in [&names[0], &names[7], &names[39], &format!("{prefix}.more")] {
        assert_eq!(read(&b, name, "read_committed").len(), 2, "{name}");
    }
}

/// Creates a topic as an administrator would.
fn create(b: &str, topic: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", b).create().unwrap();
    let mut new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    for (k, v) in settings {
        new = new.set(k, v);
    }
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = rt.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(results[0].is_ok(), "{results:?}");
}

#[test]
fn a_record_too_large_is_an_error_never_a_loss() {
    let Some(b) = broker("too large") else { return };
    let (pipeline, topic) = (fresh("large"), fresh("large"));
    create(&b, &topic, &[("max.message.bytes", "100000")]);
    // Bytes that no compression makes small.
    let mut x = 1_u64;
    let noise: Vec<u8> = (0..2_000_000)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        })
        .collect();
    let mut s = sink(&b, &pipeline);
    s.open().unwrap();
    let mut r = Records::default();
    push(&mut r, &topic, Some("small"), Some(b"v"), None);
    push(&mut r, &topic, Some("large"), Some(&noise), None);
    let e = s.append(&r).and_then(|()| s.commit(&vec![("position".into(), Some(vec![1]))])).unwrap_err();
    assert_eq!((e.kind(), e.retryable()), (Kind::Limit, Retry::Operator), "{e:?}");
    assert!(e.what().contains(&topic) && e.what().contains("2000005"), "{e}");
    assert!(e.remedy().is_some_and(|f| f.contains("max.message.bytes")), "{e:?}");
    assert_eq!(read(&b, &topic, "read_committed"), []);
    drop(s);
    let mut s = sink(&b, &pipeline);
    assert!(s.open().unwrap().is_empty(), "neither record nor position");
    // Larger than librdkafka takes: told at once.
    let mut s = sink_with(&kafka(&b, &[("message.max.bytes", "1000000")]), &fresh("large"), 1);
    s.open().unwrap();
    let e = s.append(&r).unwrap_err();
    assert_eq!((e.kind(), e.retryable()), (Kind::Limit, Retry::Operator), "{e:?}");
}

#[test]
fn a_record_larger_than_the_queue_passes() {
    let Some(b) = broker("larger than the queue") else { return };
    let (pipeline, topic) = (fresh("giant"), fresh("giant"));
    let mut s = sink_with(&kafka(&b, &[("queue.buffering.max.kbytes", "1024")]), &pipeline, 1);
    s.open().unwrap();
    let mut r = Records::default();
    push(&mut r, &topic, Some("a"), Some(&vec![b'x'; 8_000_000]), None);
    for i in 0..3_000 {
        push(&mut r, &topic, Some(&i.to_string()), Some(&[b'y'; 2_000]), None);
    }
    s.append(&r).unwrap();
    s.commit(&vec![]).unwrap();
    let got = read(&b, &topic, "read_committed");
    assert_eq!(got.len(), 3_001);
    assert_eq!(got[0].value.as_ref().unwrap().len(), 8_000_000);
    assert!(got[1..].iter().enumerate().all(|(i, g)| g.key == Some(i.to_string())), "order is kept");
}

#[test]
fn a_state_topic_that_would_forget_is_refused() {
    let Some(b) = broker("state topic") else { return };
    let pipeline = fresh("forget");
    let check = || state_topic::check(&kafka(&b, &[]), &settings().state_topic(&pipeline), &pipeline);
    assert!(check().iter().all(|c| matches!(c.outcome, Outcome::Pass(_))), "{:?}", check());
    create(&b, &settings().state_topic(&pipeline), &[("cleanup.policy", "delete")]);
    let e = sink(&b, &pipeline).open().unwrap_err();
    assert_eq!((e.kind(), e.retryable()), (Kind::State, Retry::Operator), "{e:?}");
    assert!(e.remedy().is_some_and(|f| f.contains("cleanup.policy=compact")), "{e:?}");
    assert!(matches!(&check()[1].outcome, Outcome::Fail(_, fix) if fix.contains("cleanup.policy=compact")));
}

#[test]
fn no_broker_is_an_error_in_time_and_a_stop_is_quicker() {
    let dead = "127.0.0.1:1";
    let stop = Arc::new(AtomicBool::new(false));
    let mut s = KafkaSink::new(&kafka(dead, &[]), &settings(), &topics(1), "nobody", Arc::clone(&stop));
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
    });
    let begun = Instant::now();
    let e = s.open().unwrap_err();
    stopper.join().unwrap();
    assert_eq!(e.retryable(), Retry::Backoff, "{e:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn tls_to_a_plaintext_listener_is_told() {
    let Some(b) = broker("tls") else { return };
    let begun = Instant::now();
    let e = sink_with(&kafka(&b, &[("security.protocol", "ssl")]), &fresh("tls"), 1).open().unwrap_err();
    println!("{:?}: {e:?}", begun.elapsed());
    assert!(e.to_string().to_lowercase().contains("ssl"), "{e:?}");
    assert!(e.remedy().is_some());
}

#[test]
fn small_commits_are_quick() {
    let Some(b) = broker("commit latency") else { return };
    let (pipeline, topic) = (fresh("quick"), fresh("quick"));
    let mut s = sink(&b, &pipeline);
    let begun = Instant::now();
    s.open().unwrap();
    let opened = begun.elapsed();
    let mut r = Records::default();
    let mut times = Vec::new();
    for i in 0..1_000 {
        r.clear();
        for j in 0..5 {
            push(&mut r, &topic, Some(&format!("{i}-{j}")), Some(&[b'v'; 300]), None);
        }
        let begun = Instant::now();
        s.append(&r).unwrap();
        s.commit(&vec![("position".into(), Some(vec![0; 60]))]).unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    let begun = Instant::now();
    drop(s);
    let closed = begun.elapsed();
    let begun = Instant::now();
    let stored = sink(&b, &pipeline).open().unwrap();
    println!(
        "open {opened:?}; 1,000 commits of 5 records: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}; close {closed:?}; open again {:?}",
        times[500],
        times[900],
        times[990],
        times[999],
        begun.elapsed()
    );
    assert_eq!(stored["position"], [0; 60]);
    assert_eq!(read(&b, &topic, "read_committed").len(), 5_000);
    // Far above what it takes, far below what the client's own flush would make of it (100 ms each).
    assert!(times[500] < Duration::from_millis(50), "{:?}", times[500]);
}

#[test]
fn a_commit_can_run_while_the_next_records_are_handed_over() {
    let Some(b) = broker("overlap") else { return };
    let ((pipeline, mut s), topic) = (opened(&b, "overlap"), fresh("overlap"));
    let mut r = Records::default();
    for i in 0..20 {
        r.clear();
        push(&mut r, &topic, Some("k"), Some(i.to_string().as_bytes()), None);
        s.append(&r).unwrap();
        s.begin_commit(&vec![("position".into(), Some(vec![i]))], Box::new(|| ())).unwrap();
    }
    // Appended behind a commit that runs, and never committed: it must not become visible with it.
    r.clear();
    push(&mut r, &topic, Some("k"), Some(b"dropped"), None);
    s.append(&r).unwrap();
    s.finish_commit().unwrap();
    s.finish_commit().unwrap();
    drop(s);
    assert_eq!(sink(&b, &pipeline).open().unwrap()["position"], [19]);
    let got = read(&b, &topic, "read_committed");
    let values: Vec<_> = got.iter().map(|g| String::from_utf8(g.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values, (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
#[ignore = "stops the broker for a while: needs it alone, and its process id in SEACHANGE_TEST_KAFKA_PID"]
fn a_stalled_broker_gives_errors_in_time_and_nothing_twice() {
    let Some(b) = broker("stall") else { return };
    let pid = std::env::var("SEACHANGE_TEST_KAFKA_PID").unwrap();
    let signal = |s: &str| assert!(std::process::Command::new("kill").args([s, &pid]).status().unwrap().success());
    let (pipeline, topic) = (fresh("stall"), fresh("stall"));
    let settings = Settings { cluster: "seachange-test".into(), transaction_timeout: Duration::from_secs(10) };
    let new =
        |stop: &Arc<AtomicBool>| KafkaSink::new(&kafka(&b, &[]), &settings, &topics(3), &pipeline, Arc::clone(stop));
    let go = Arc::new(AtomicBool::new(false));
    let mut s = new(&go);
    s.open().unwrap();
    let mut r = Records::default();
    // Each round: records of one value, committed with that value as the position; the broker stalls in between.
    let mut next = 0_u8;
    let round = |s: &mut KafkaSink, r: &mut Records, n: u8| {
        r.clear();
        for i in 0..50 {
            push(r, &topic, Some(&format!("{i}")), Some(&[n]), None);
        }
        s.append(r)?;
        s.commit(&vec![("position".into(), Some(vec![n]))])
    };
    round(&mut s, &mut r, next).unwrap();
    for stop_early in [false, true] {
        next += 1;
        signal("-STOP");
        let begun = Instant::now();
        let stop = Arc::clone(&go);
        let stopper = std::thread::spawn(move || {
            if stop_early {
                std::thread::sleep(Duration::from_millis(1_500));
                stop.store(true, Ordering::Relaxed);
            }
        });
        let e = round(&mut s, &mut r, next).unwrap_err();
        println!("stalled, stop {stop_early}: after {:?}: {e:?}", begun.elapsed());
        assert_eq!(e.retryable(), Retry::Backoff, "{e:?}");
        assert!(begun.elapsed() < Duration::from_secs(if stop_early { 4 } else { 12 }));
        stopper.join().unwrap();
        let begun = Instant::now();
        drop(s);
        println!("dropped in {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5));
        go.store(false, Ordering::Relaxed);
        let mut dead = new(&go);
        let begun = Instant::now();
        let e = dead.open().unwrap_err();
        println!("opening: after {:?}: {e:?}", begun.elapsed());
        assert_eq!((e.kind(), e.retryable()), (Kind::Connect, Retry::Backoff), "{e:?}");
        assert!(begun.elapsed() < Duration::from_secs(35));
        drop(dead);
        signal("-CONT");
        s = new(&go);
        let begun = Instant::now();
        let stored = loop {
            match s.open() {
                Ok(stored) => break stored,
                Err(e) => {
                    println!("again: {e:?}");
                    assert_eq!(e.retryable(), Retry::Backoff, "{e:?}");
                    assert!(begun.elapsed() < Duration::from_secs(60));
                    s = new(&go);
                }
            }
        };
        println!("open again after {:?}", begun.elapsed());
        // The outcome was unknown; the stored position tells, and what it tells is true.
        if stored["position"] != [next] {
            assert_eq!(stored["position"], [next - 1]);
            round(&mut s, &mut r, next).unwrap();
        }
    }
    let got = read(&b, &topic, "read_committed");
    for n in 0..=next {
        assert_eq!(got.iter().filter(|g| g.value.as_deref() == Some(&[n])).count(), 50, "{n}");
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
#[ignore = "a measurement: run it in release, with --nocapture"]
fn throughput() {
    let Some(b) = broker("throughput") else { return };
    for (per_commit, partitions, overlap) in [
        (20_000, 1, false),
        (20_000, 1, true),
        (20_000, 6, false),
        (20_000, 6, true),
        (1_000, 1, false),
        (1_000, 1, true),
        (100, 1, false),
    ] {
        let (pipeline, topic) = (fresh("fast"), fresh("fast"));
        let mut s = sink_with(&kafka(&b, &[]), &pipeline, partitions);
        s.open().unwrap();
        let mut r = Records::default();
        let commits = (1_000_000 / per_commit).min(1_000);
        let mut value = [b'v'; 600];
        let mut fill = |r: &mut Records, c: usize| {
            r.clear();
            for i in 0..per_commit {
                let n = format!("{:012}", c * per_commit + i);
                value[300..312].copy_from_slice(n.as_bytes());
                push(r, &topic, Some(&n), Some(&value), None);
            }
        };
        fill(&mut r, 0);
        s.append(&r).unwrap();
        s.commit(&vec![]).unwrap();
        let (mut append, mut commit, cpu_before, begun) = (Duration::ZERO, Duration::ZERO, cpu(), Instant::now());
        let mut filling = Duration::ZERO;
        for c in 0..commits {
            let t = Instant::now();
            fill(&mut r, c);
            filling += t.elapsed();
            let t = Instant::now();
            s.append(&r).unwrap();
            append += t.elapsed();
            let t = Instant::now();
            let entries = vec![("position".into(), Some(vec![0; 60]))];
            if overlap { s.begin_commit(&entries, Box::new(|| ())) } else { s.commit(&entries) }.unwrap();
            commit += t.elapsed();
        }
        s.finish_commit().unwrap();
        let (n, took, used) = ((commits * per_commit) as f64, begun.elapsed(), cpu() - cpu_before);
        println!(
            "{per_commit} records a commit, {partitions} partition(s), overlap {overlap}: {:.0} records/s, {:.2} us CPU a record (of it {:.2} \
             filling); append {:.2} us a record, commit {:.2} ms",
            n / took.as_secs_f64(),
            used.as_secs_f64() * 1e6 / n,
            filling.as_secs_f64() * 1e6 / n,
            append.as_secs_f64() * 1e6 / n,
            commit.as_secs_f64() * 1e3 / commits as f64,
        );
    }
}

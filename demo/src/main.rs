//! What `make demo` shows: every event of the shop's topics as a `read_committed` consumer gets it, a line each, and now
//! and then how far behind the daemon is.
//!
//! Usage: `seachange-demo BOOTSTRAP TOPIC_PREFIX METRICS_ADDRESS [SECONDS]`

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde_json::Value;
use std::{
    collections::HashSet,
    io::{self, IsTerminal, Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often the topics are looked up and the lag is shown.
const LOOK: Duration = Duration::from_millis(500);
const SHOW: Duration = Duration::from_secs(5);

struct Paper {
    colour: bool,
    width: Option<usize>,
}

impl Paper {
    fn new() -> Paper {
        let terminal = io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        Paper { colour: terminal && std::env::var_os("NO_COLOR").is_none(), width: columns.filter(|_| terminal) }
    }
    /// A line, cut to the terminal's width, in one of the terminal's colours.
    fn line(&self, colour: u8, text: &str) -> io::Result<()> {
        let cut = match self.width {
            Some(width) if text.chars().count() > width => {
                text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
            }
            _ => text.to_owned(),
        };
        let mut out = io::stdout().lock();
        if self.colour { writeln!(out, "\x1b[{colour}m{cut}\x1b[0m") } else { writeln!(out, "{cut}") }
    }
}

fn payload(value: &Value) -> &Value {
    match value.get("payload") {
        Some(inner) if value.get("schema").is_some() => inner,
        _ => value,
    }
}

/// Topic, key, operation, and the row after it: the line of one event.
fn event(topic: &str, key: &Value, value: Option<&Value>) -> (u8, String) {
    let key = match payload(key) {
        Value::Null => "-".to_owned(),
        key => key.to_string(),
    };
    let Some(value) = value.map(payload) else {
        return (90, format!("{topic:<26} {key:<24} -  (tombstone)"));
    };
    let op = value["op"].as_str().unwrap_or("?");
    let colour = match op {
        "r" => 36,
        "c" => 32,
        "u" => 33,
        "d" => 31,
        _ => 35,
    };
    let row = if value["after"].is_null() { "(gone)".to_owned() } else { value["after"].to_string() };
    (colour, format!("{topic:<26} {key:<24} {op}  {row}"))
}

/// Milliseconds from the commit in the database to this moment.
fn delay(value: &Value) -> Option<u64> {
    let value = payload(value);
    // A snapshot's rows were committed long ago; MariaDB's log tells whole seconds.
    if value["op"] == "r" || value["source"]["connector"] == "mariadb" {
        return None;
    }
    let then = value["source"]["ts_ms"].as_u64()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis();
    Some(u64::try_from(now).ok()?.saturating_sub(then))
}

fn page(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A metric's samples, with the pipeline that each is of.
fn samples<'a>(page: &'a str, name: &str) -> Vec<(&'a str, f64)> {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{')?;
        let pipeline = labels.split_once("pipeline=\"")?.1.split('"').next()?;
        let value = value.parse::<f64>().ok().filter(|v| v.is_finite())?;
        (found == name).then_some((pipeline, value))
    });
    values.collect()
}

/// How far behind each pipeline is; without its name when there is but one.
fn lag(page: &str) -> String {
    let mut seconds = samples(page, "seachange_source_lag_seconds");
    seconds.sort_by(|a, b| a.0.cmp(b.0));
    let bytes = samples(page, "seachange_source_lag_bytes");
    let several = seconds.len() > 1;
    let one = |(pipeline, seconds): &(&str, f64)| {
        let name = if several { format!("{pipeline} ") } else { String::new() };
        let behind = bytes.iter().find(|(p, _)| p == pipeline).map_or("?".into(), |(_, b)| format!("{b:.0}"));
        format!("{name}{seconds:.3} s {behind} bytes")
    };
    match seconds.as_slice() {
        [] => "unknown".into(),
        all => all.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

struct Tally {
    events: u64,
    delays: Vec<u64>,
}

impl Tally {
    fn show(&mut self, paper: &Paper, metrics: SocketAddr) -> io::Result<()> {
        let lag = match page(metrics) {
            Ok(page) => format!("lag {}", lag(&page)),
            Err(e) => format!("lag unknown ({e})"),
        };
        self.delays.sort_unstable();
        let reached = match self.delays.as_slice() {
            [] => String::new(),
            d => format!("; commit to consumer {} ms, at most {} ms", d[d.len() / 2], d[d.len() - 1]),
        };
        self.delays.clear();
        paper.line(1, &format!("-- {} events; {lag}{reached}; http://{metrics}/metrics", self.events))
    }
}

struct Watch {
    consumer: BaseConsumer,
    prefix: String,
    known: HashSet<(String, i32)>,
}

impl Watch {
    /// Takes up the topics that have appeared, from their beginning.
    fn look(&mut self) -> Result<(), KafkaError> {
        let meta = self.consumer.fetch_metadata(None, Duration::from_secs(5))?;
        let mut new = TopicPartitionList::new();
        for topic in meta.topics().iter().filter(|t| t.name().starts_with(&self.prefix)) {
            for partition in topic.partitions() {
                if self.known.insert((topic.name().to_owned(), partition.id())) {
                    new.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
                }
            }
        }
        if new.count() > 0 { self.consumer.incremental_assign(&new) } else { Ok(()) }
    }
}

fn watch(
    bootstrap: &str,
    prefix: &str,
    metrics: SocketAddr,
    end: Option<Instant>,
) -> Result<u64, Box<dyn std::error::Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "seachange-demo")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let mut watch = Watch { consumer, prefix: prefix.to_owned(), known: HashSet::new() };
    let (paper, mut tally) = (Paper::new(), Tally { events: 0, delays: Vec::new() });
    watch.look()?;
    let (mut looked, mut shown) = (Instant::now(), Instant::now());
    while end.is_none_or(|end| Instant::now() < end) {
        match watch.consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(e)) => paper.line(31, &format!("-- {e}"))?,
            Some(Ok(message)) => {
                let parse = |bytes: Option<&[u8]>| bytes.map(serde_json::from_slice::<Value>).transpose();
                let (key, value) = (parse(message.key())?.unwrap_or_default(), parse(message.payload())?);
                tally.events += 1;
                tally.delays.extend(value.as_ref().and_then(delay));
                let (colour, text) = event(message.topic(), &key, value.as_ref());
                paper.line(colour, &text)?;
            }
        }
        if looked.elapsed() >= LOOK {
            watch.look()?;
            looked = Instant::now();
        }
        if shown.elapsed() >= SHOW {
            tally.show(&paper, metrics)?;
            shown = Instant::now();
        }
    }
    tally.show(&paper, metrics)?;
    Ok(tally.events)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(bootstrap), Some(prefix), Some(Ok(metrics))) =
        (args.first(), args.get(1), args.get(2).map(|a| a.parse()))
    else {
        eprintln!("usage: seachange-demo BOOTSTRAP TOPIC_PREFIX METRICS_ADDRESS [SECONDS]");
        return ExitCode::from(2);
    };
    let seconds = args.get(3).map(|s| s.parse::<u64>());
    let end = match seconds {
        None => None,
        Some(Ok(seconds)) => Some(Instant::now() + Duration::from_secs(seconds)),
        Some(Err(e)) => {
            eprintln!("seachange-demo: SECONDS: {e}");
            return ExitCode::from(2);
        }
    };
    match watch(bootstrap, prefix, metrics, end) {
        Ok(0) => {
            eprintln!("seachange-demo: no event arrived");
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        // Whoever read the output has gone: the end, and no fault.
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("seachange-demo: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line() {
        let value = json!({"op": "u", "before": null, "after": {"id": 1, "city": "Wien"}});
        let (_, line) = event("shop.public.customers", &json!({"id": 1}), Some(&value));
        assert!(
            line.contains("shop.public.customers") && line.contains(r#"{"id":1}"#) && line.contains(" u  {"),
            "{line}"
        );
        assert!(event("t", &json!({"id": 1}), None).1.contains("tombstone"));
        assert!(event("t", &json!({"id": 1}), Some(&json!({"op": "d", "after": null}))).1.ends_with("d  (gone)"));
    }

    #[test]
    fn the_lag_of_one_and_of_several() {
        let two = "# TYPE seachange_source_lag_bytes gauge\nseachange_source_lag_bytes{pipeline=\"x\"} 1\n\
                   seachange_source_lag_seconds{pipeline=\"x\"} 0.5\nseachange_source_lag_seconds_more{pipeline=\"x\"} 7\n";
        assert_eq!(lag(two), "0.500 s 1 bytes");
        let two = two.to_owned()
            + "seachange_source_lag_bytes{pipeline=\"y\"} 2\nseachange_source_lag_seconds{pipeline=\"y\"} 0\n\
               seachange_source_lag_seconds{pipeline=\"z\"} NaN\n";
        assert_eq!(lag(&two), "x 0.500 s 1 bytes, y 0.000 s 2 bytes");
        assert_eq!(lag(""), "unknown");
    }
}

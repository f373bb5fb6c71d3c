//! What was measured, as JSON and as Markdown, with the machine and the versions it was measured on.
//!
//! The files are written anew after every result: what a run that was cut short has measured is not lost.

use crate::case::thousands;
use serde_json::{Map, Value, json};
use std::{fmt::Write, path::PathBuf};

/// A folder with `results.json` and `results.md`.
pub struct Report {
    dir: PathBuf,
    about: Value,
    results: Vec<Value>,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The machine, its load at the start, and what `scripts/bench` says of commit and versions.
fn about(set: &str, scale: f64) -> Value {
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
    };
    let kib = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0);
    let env = |name: &str| std::env::var(format!("SEACHANGE_BENCH_{name}")).unwrap_or_default();
    let versions: Vec<String> = env("VERSIONS").lines().map(str::to_owned).collect();
    json!({
        "set": set, "scale": scale, "date": env("DATE"), "commit": env("COMMIT"), "profile": env("PROFILE"),
        "versions": versions,
        "machine": {
            "cpu": after(&read("/proc/cpuinfo"), "model name"),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory_gib": (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "load_at_start": read("/proc/loadavg").split_whitespace().next().unwrap_or_default(),
        },
    })
}

impl Report {
    pub fn new(dir: PathBuf, set: &str, scale: f64) -> Report {
        std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        Report { dir, about: about(set, scale), results: Vec::new() }
    }

    pub fn add(&mut self, result: Value) {
        self.results.push(result);
        let json = json!({ "about": self.about, "results": self.results });
        let json = serde_json::to_string_pretty(&json).expect("JSON");
        for (name, text) in [("results.json", json), ("results.md", self.markdown())] {
            let path = self.dir.join(name);
            std::fs::write(&path, text + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }

    pub fn failures(&self) -> usize {
        self.results.iter().filter(|r| r.get("failed").is_some()).count()
    }

    pub fn markdown(&self) -> String {
        let (about, machine) = (&self.about, &self.about["machine"]);
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let mut out = format!(
            "# Bench: {}, {}, commit {}\n\n{}, {} cores, {} GiB, Linux {}; load {} at the start; profile {}{}\n\n",
            text(&about["set"]),
            text(&about["date"]),
            text(&about["commit"]),
            text(&machine["cpu"]),
            machine["cores"],
            machine["memory_gib"],
            text(&machine["kernel"]),
            text(&machine["load_at_start"]),
            text(&about["profile"]),
            if about["scale"] == json!(1.0) { String::new() } else { format!("; rows scaled by {}", about["scale"]) },
        );
        for version in about["versions"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "- {}", text(version));
        }
        for section in SECTIONS {
            let rows: Vec<&Value> =
                self.results.iter().filter(|r| r["bench"] == section.bench && r.get("failed").is_none()).collect();
            if !rows.is_empty() {
                section.write(&mut out, &rows);
            }
        }
        let failed: Vec<&Value> = self.results.iter().filter(|r| r.get("failed").is_some()).collect();
        if !failed.is_empty() {
            out.push_str("\n## Failed\n\n");
            for r in failed {
                let why = text(&r["failed"]);
                let _ = writeln!(out, "- {}: {}", text(&r["name"]), why.lines().next().unwrap_or_default());
            }
        }
        out.push_str(LEGEND);
        out
    }
}

struct Section {
    bench: &'static str,
    title: &'static str,
    /// Head of a column, and where its figure is: `a/b` is `b` of `a`; of `a:b` the share that `a` is of `b`,
    /// of `a*b` how many times `b` it is.
    columns: &'static [(&'static str, &'static str)],
}

const SECTIONS: &[Section] = &[
    Section {
        bench: "drain",
        title: "Draining a backlog",
        columns: &[
            ("database", "db"),
            ("by", "by"),
            ("shape", "shape"),
            ("rows", "rows"),
            ("rows/s", "rows_s"),
            ("steady", "steady_rows_s"),
            ("MB/s", "mb_s"),
            ("us a row", "daemon_us_row"),
            ("database us", "database_us_row"),
            ("broker us", "broker_us_row"),
            ("peak MiB", "peak_rss_mib"),
            ("first record s", "first_record_s"),
            ("source alone", "source_limit/rows_s"),
            ("of it", "rows_s:source_limit/rows_s"),
            ("Kafka alone", "kafka_limit/records_s"),
            ("of it", "rows_s:kafka_limit/records_s"),
            ("times Debezium's", "rows_s*debezium/rows_s"),
            ("others", "others"),
        ],
    },
    Section {
        bench: "snapshot",
        title: "Reading what is there",
        columns: &[
            ("database", "db"),
            ("rows", "rows"),
            ("rows/s", "rows_s"),
            ("steady", "steady_rows_s"),
            ("MB/s", "mb_s"),
            ("us a row", "daemon_us_row"),
            ("database us", "database_us_row"),
            ("broker us", "broker_us_row"),
            ("peak MiB", "peak_rss_mib"),
            ("first record s", "first_record_s"),
            ("read to nowhere", "source_limit/rows_s"),
            ("of it", "rows_s:source_limit/rows_s"),
            ("others", "others"),
        ],
    },
    Section {
        bench: "latency",
        title: "Latency",
        columns: &[
            ("database", "db"),
            ("rows/s", "rate"),
            ("reached", "reached"),
            ("p50 ms", "p50_ms"),
            ("p99 ms", "p99_ms"),
            ("p99.9 ms", "p999_ms"),
            ("write p50 ms", "write_p50_ms"),
            ("write p99 ms", "write_p99_ms"),
            ("largest ms", "max_ms"),
            ("quiet seconds", "quiet_seconds"),
            ("their p99 ms", "quiet_p99_ms"),
            ("Kafka alone p50", "kafka_alone/p50_ms"),
            ("p99", "kafka_alone/p99_ms"),
            ("quiet seconds", "kafka_alone/quiet_seconds"),
            ("their p99", "kafka_alone/quiet_p99_ms"),
            ("commits", "commits"),
            ("a commit ms", "commit_mean_ms"),
            ("us a row", "daemon_us_row"),
            ("others", "others"),
        ],
    },
    Section {
        bench: "idle",
        title: "Idle",
        columns: &[
            ("database", "db"),
            ("tables", "tables"),
            ("pipelines", "pipelines"),
            ("ready after s", "ready_s"),
            ("daemon, % of a core", "daemon_core_percent"),
            ("database, %", "database_core_percent"),
            ("broker, %", "broker_core_percent"),
            ("resident MiB", "rss_mib"),
            ("others", "others"),
        ],
    },
    Section {
        bench: "recovery",
        title: "Back after kill -9",
        columns: &[("database", "db"), ("kills", "kills"), ("next record s, median", "median_s"), ("most", "max_s")],
    },
];

const LEGEND: &str = "
rows/s: from the start of the process to the last record that a read_committed consumer sees; steady: between a tenth and
nine tenths of all. Source alone: a bare reader of the same log. Kafka alone: one producer that sends the same records and waits
for each commit (the daemon has two that take turns). us: CPU microseconds a row. MB/s: keys and values before compression. others: share of the whole machine
that neither daemon, database, broker nor the bench used, what a hypervisor took included; where it is more than a few hundredths, compare CPU, not rates.
Latency, Kafka alone: the same writes, and who wrote tells two transactional producers, which take turns, of each row.
Quiet seconds: those in which a hypervisor took a hundredth of the machine at most.
";

fn at<'a>(result: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(result, |v, name| v.get(name).unwrap_or(&Value::Null))
}

fn cell(result: &Value, path: &str) -> String {
    if let Some((part, whole)) = path.split_once(':') {
        return match (at(result, part).as_f64(), at(result, whole).as_f64()) {
            (Some(part), Some(whole)) if whole > 0.0 => format!("{:.0} %", 100.0 * part / whole),
            _ => String::new(),
        };
    }
    if let Some((many, one)) = path.split_once('*') {
        return match (at(result, many).as_f64(), at(result, one).as_f64()) {
            (Some(many), Some(one)) if one > 0.0 => format!("{:.1}", many / one),
            _ => String::new(),
        };
    }
    match at(result, path) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) => match n.as_f64() {
            Some(x) if x >= 1000.0 => thousands(x.round() as u64),
            Some(x) => x.to_string(),
            None => String::new(),
        },
        other => other.to_string(),
    }
}

impl Section {
    fn write(&self, out: &mut String, rows: &[&Value]) {
        let filled: Vec<_> =
            self.columns.iter().filter(|(_, path)| rows.iter().any(|r| !cell(r, path).is_empty())).collect();
        let _ = writeln!(out, "\n## {}\n", self.title);
        let _ = writeln!(out, "| {} |", filled.iter().map(|(head, _)| *head).collect::<Vec<_>>().join(" | "));
        let _ = writeln!(out, "|{}", " --- |".repeat(filled.len()));
        for r in rows {
            let _ = writeln!(out, "| {} |", filled.iter().map(|(_, p)| cell(r, p)).collect::<Vec<_>>().join(" | "));
        }
    }
}

/// A result that says why there is none.
pub fn failure(bench: &str, name: &str, why: &str) -> Value {
    let mut out = Map::new();
    for (key, value) in [("bench", bench), ("name", name), ("failed", why)] {
        out.insert(key.into(), json!(value));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_there_are() {
        let dir = std::env::temp_dir().join(seachange_testkit::unique("report"));
        let mut report = Report::new(dir.clone(), "core", 1.0);
        report.add(json!({ "bench": "drain", "db": "mysql", "rows": 5000, "rows_s": 50.0, "source_limit": { "rows_s": 200.0 } }));
        report.add(failure("idle", "idle mysql", "no such thing\nmore"));
        let text = std::fs::read_to_string(dir.join("results.md")).unwrap();
        assert!(text.contains("| database | rows | rows/s | source alone | of it |"), "{text}");
        assert!(text.contains("| mysql | 5,000 | 50 | 200 | 25 % |"), "{text}");
        assert!(text.contains("- idle mysql: no such thing\n") && report.failures() == 1);
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("results.json")).unwrap()).unwrap();
        assert_eq!(json["results"][0]["rows_s"], 50.0);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

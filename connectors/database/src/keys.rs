//! A table of settings, read with all its faults.
//!
//! Read by hand and not by serde's derive, because every fault is to be reported at once with its path and a remedy.

use seachange_sdk::Fault;
use std::time::Duration;

/// Reads typed values out of a table and collects faults. What is wrong is told, and then reads as if it were not there.
#[derive(Debug)]
pub struct Keys<'a> {
    /// The table.
    pub table: &'a toml::Table,
    /// Its path: `pipeline.NAME.source`.
    pub path: &'a str,
    /// What is wrong so far.
    pub faults: Vec<Fault>,
}

impl<'a> Keys<'a> {
    /// Of a table whose keys may be these.
    pub fn new(path: &'a str, table: &'a toml::Table, known: &[&str]) -> Keys<'a> {
        let strange = table.keys().filter(|key| !known.contains(&key.as_str()));
        Keys { table, path, faults: strange.map(|key| unknown(path, key, known)).collect() }
    }
    /// A fault of a key's.
    pub fn fault(&mut self, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}.{key}", self.path), what, fix));
    }
    fn wrong(&mut self, key: &str, found: &toml::Value, want: &str) {
        self.fault(key, format!("is {}, not {want}", article(found.type_str())), format!("write {want}"));
    }
    /// A string.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.table.get(key)? {
            toml::Value::String(s) => Some(s.clone()),
            other => {
                self.wrong(key, other, "a string");
                None
            }
        }
    }
    /// A string that is not empty.
    pub fn filled(&mut self, key: &str) -> Option<String> {
        let s = self.text(key)?;
        if s.is_empty() {
            self.fault(key, "is empty", "give it a value, or leave the key out");
            return None;
        }
        Some(s)
    }
    /// Yes or no.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        match self.table.get(key)? {
            toml::Value::Boolean(b) => Some(*b),
            other => {
                self.wrong(key, other, "true or false");
                None
            }
        }
    }
    /// A time of at least so much.
    pub fn duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        let s = self.text(key)?;
        match duration(&s) {
            Some(d) if d >= least => Some(d),
            Some(_) => {
                self.fault(key, "is too short", format!("write at least {least:?}"));
                None
            }
            None => {
                self.fault(key, "is no duration", "write a number and a unit, such as \"10s\" or \"500ms\"");
                None
            }
        }
    }
    /// A list of strings.
    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        self.strings(key, self.table.get(key)?)
    }
    /// The list of strings in the key `inner` of the table `outer`, which has no other key. `like` is an example of one.
    pub fn list_in(&mut self, outer: &str, inner: &str, like: &str) -> Option<Vec<String>> {
        match self.table.get(outer)? {
            toml::Value::Table(t) => {
                for key in t.keys().filter(|key| *key != inner) {
                    self.faults.push(unknown(&format!("{}.{outer}", self.path), key, &[inner]));
                }
                self.strings(&format!("{outer}.{inner}"), t.get(inner)?)
            }
            other => {
                let what = format!("is {}, not a table", article(other.type_str()));
                self.fault(outer, what, format!("write {outer}.{inner} = [\"{like}\"]"));
                None
            }
        }
    }
    fn strings(&mut self, key: &str, value: &toml::Value) -> Option<Vec<String>> {
        let toml::Value::Array(items) = value else {
            let what = format!("is {}, not a list of strings", article(value.type_str()));
            self.fault(key, what, "write [\"...\"]");
            return None;
        };
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item {
                toml::Value::String(s) => out.push(s.clone()),
                other => {
                    let what = format!("is {}, not a string", article(other.type_str()));
                    self.fault(&format!("{key}[{i}]"), what, "put it in quotes");
                }
            }
        }
        Some(out)
    }
    /// What was read, or everything that is wrong.
    pub fn end<T>(self, read: T) -> Result<T, Vec<Fault>> {
        if self.faults.is_empty() { Ok(read) } else { Err(self.faults) }
    }
}

/// A number and a unit: `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (n, unit) = text.split_at(at);
    let n: u64 = n.parse().ok()?;
    Some(match unit.trim() {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n.checked_mul(60)?),
        "h" => Duration::from_secs(n.checked_mul(3600)?),
        _ => return None,
    })
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// What to do about an unknown name: the known one it was probably meant to be, or all of them as `kind`.
pub(crate) fn suggestion(name: &str, known: &[&str], kind: &str) -> String {
    let near = known.iter().map(|k| (distance(name, k), *k)).min();
    match near.filter(|(d, k)| *d <= 3 && *d * 2 <= k.len().max(name.len())) {
        Some((_, k)) => format!("did you mean {k}?"),
        None => format!("known {kind}: {}", known.join(", ")),
    }
}

fn unknown(path: &str, key: &str, known: &[&str]) -> Fault {
    Fault::new(format!("{path}.{key}"), "unknown key", suggestion(key, known, "keys"))
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("5 m"), Some(Duration::from_secs(300)));
        for bad in ["", "10", "s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
    #[test]
    fn suggestions() {
        let known = ["slot", "publication"];
        assert_eq!(suggestion("publicaton", &known, "keys"), "did you mean publication?");
        assert_eq!(suggestion("heartbeat", &known, "keys"), "known keys: slot, publication");
    }
}

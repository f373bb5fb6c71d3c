//! Global transaction ids: MySQL's sets (`uuid[:tag]:from-to`) and MariaDB's positions (`domain-server-sequence`).
//!
//! A MySQL set is kept canonical: intervals sorted, apart and not touching, no empty ones, so that equality of sets is
//! equality of values and text round-trips. MariaDB's ids are compared by domain and sequence alone: the server in the
//! middle only names who wrote it, and changes with every failover.

use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A server's UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            write!(f, "{}{b:02x}", if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" })?;
        }
        Ok(())
    }
}
#[cold]
fn bad(what: &str, text: &str) -> Error {
    let shown: String = text.chars().take(60).collect();
    Error::new(Kind::Protocol, Side::Source, Retry::Operator, format!("{shown:?} is no {what}"))
}
impl FromStr for Uuid {
    type Err = Error;
    fn from_str(s: &str) -> Result<Uuid> {
        let mut out = [0; 16];
        let digits: Vec<u8> = s.bytes().filter(|c| *c != b'-').collect();
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 16 || !rest.is_empty() {
            return Err(bad("UUID", s));
        }
        for (byte, pair) in out.iter_mut().zip(pairs) {
            let hex = |c: u8| char::from(c).to_digit(16).ok_or_else(|| bad("UUID", s));
            *byte = (hex(pair[0])? << 4 | hex(pair[1])?) as u8;
        }
        Ok(Uuid(out))
    }
}

/// Closed intervals: sorted, and at least one number apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn contains(&self, n: u64) -> bool {
        let i = self.0.partition_point(|r| r.1 < n);
        self.0.get(i).is_some_and(|r| r.0 <= n)
    }
    fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        // The common case: the next number of the only or last interval.
        if let Some(last) = self.0.last_mut()
            && last.0 <= from
            && last.1.saturating_add(1) >= from
        {
            last.1 = last.1.max(to);
            return;
        }
        let start = self.0.partition_point(|r| r.1.saturating_add(1) < from);
        let mut end = start;
        let (mut from, mut to) = (from, to);
        while let Some(r) = self.0.get(end).filter(|r| r.0 <= to.saturating_add(1)) {
            from = from.min(r.0);
            to = to.max(r.1);
            end += 1;
        }
        self.0.splice(start..end, [(from, to)]);
    }
    fn remove(&mut self, from: u64, to: u64) {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        for &(a, b) in &self.0 {
            if b < from || a > to {
                out.push((a, b));
                continue;
            }
            if a < from {
                out.push((a, from - 1));
            }
            if b > to {
                out.push((to + 1, b));
            }
        }
        self.0 = out;
    }
}

/// A MySQL GTID set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GtidSet {
    /// By server and tag (empty without one).
    sources: BTreeMap<(Uuid, String), Intervals>,
}

impl GtidSet {
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
    /// Adds one.
    pub fn insert(&mut self, uuid: Uuid, tag: &str, number: u64) {
        self.insert_range(uuid, tag, number, number);
    }
    /// Adds a run.
    pub fn insert_range(&mut self, uuid: Uuid, tag: &str, from: u64, to: u64) {
        // Looked up before it is inserted: the name is only copied for a source that is new.
        let last = self.sources.iter_mut().find(|(k, _)| k.0 == uuid && k.1 == tag);
        match last {
            Some((_, intervals)) => intervals.insert(from, to),
            None => self.sources.entry((uuid, tag.to_owned())).or_default().insert(from, to),
        }
    }
    /// Takes one out.
    pub fn remove(&mut self, uuid: Uuid, tag: &str, number: u64) {
        let key = (uuid, tag.to_owned());
        if let Some(i) = self.sources.get_mut(&key) {
            i.remove(number, number);
            if i.0.is_empty() {
                self.sources.remove(&key);
            }
        }
    }
    /// Is this one in it?
    pub fn contains(&self, uuid: Uuid, tag: &str, number: u64) -> bool {
        self.sources.iter().find(|(k, _)| k.0 == uuid && k.1 == tag).is_some_and(|(_, i)| i.contains(number))
    }
    /// Adds all of another.
    pub fn union(&mut self, other: &GtidSet) {
        for ((uuid, tag), i) in &other.sources {
            for &(from, to) in &i.0 {
                self.insert_range(*uuid, tag, from, to);
            }
        }
    }
    /// What is in this one and not in the other.
    pub fn minus(&self, other: &GtidSet) -> GtidSet {
        let mut out = self.clone();
        for (key, i) in &other.sources {
            if let Some(mine) = out.sources.get_mut(key) {
                for &(from, to) in &i.0 {
                    mine.remove(from, to);
                }
            }
        }
        out.sources.retain(|_, i| !i.0.is_empty());
        out
    }
    /// Is all of another in this one?
    pub fn contains_all(&self, other: &GtidSet) -> bool {
        other.minus(self).is_empty()
    }
    /// Its sources: UUID, tag, closed intervals.
    pub fn sources(&self) -> impl Iterator<Item = (Uuid, &str, &[(u64, u64)])> {
        self.sources.iter().map(|((u, t), i)| (*u, t.as_str(), i.0.as_slice()))
    }
    /// As COM_BINLOG_DUMP_GTID wants it. Servers before 8.3 know no tags: without any, the old form is used.
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.sources.keys().any(|(_, tag)| !tag.is_empty());
        let mut out = Vec::new();
        let n = self.sources.len() as u64;
        // With tags, the number of sources stands in the middle six bytes, and the first and last byte say so.
        out.extend(if tagged { 1 | n << 8 | 1 << 56 } else { n }.to_le_bytes());
        for ((uuid, tag), i) in &self.sources {
            out.extend(uuid.0);
            if tagged {
                // a length in the variable form: tags are at most 32 bytes, so one byte holds it
                out.push((tag.len() as u8) << 1);
                out.extend(tag.as_bytes());
            }
            out.extend((i.0.len() as u64).to_le_bytes());
            for &(from, to) in &i.0 {
                out.extend(from.to_le_bytes());
                out.extend(to.saturating_add(1).to_le_bytes());
            }
        }
        out
    }
}

impl fmt::Display for GtidSet {
    /// As the server prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for ((uuid, tag), i) in &self.sources {
            if last != Some(*uuid) {
                write!(f, "{}{uuid}", if last.is_some() { "," } else { "" })?;
                last = Some(*uuid);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (from, to) in &i.0 {
                if from == to { write!(f, ":{from}")? } else { write!(f, ":{from}-{to}")? }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;
    /// Reads what the server prints, and what people write: spaces, line breaks, sets in any order.
    fn from_str(s: &str) -> Result<GtidSet> {
        let mut set = GtidSet::default();
        for part in s.split(',') {
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().unwrap_or("");
            if uuid.is_empty() {
                continue;
            }
            let uuid: Uuid = uuid.parse()?;
            let mut tag = String::new();
            for piece in pieces {
                if piece.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    let plain = piece.len() <= 32 && piece.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    if !plain {
                        return Err(bad("GTID tag", piece));
                    }
                    tag = piece.to_ascii_lowercase();
                    continue;
                }
                let (from, to) = piece.split_once('-').unwrap_or((piece, piece));
                let number = |s: &str| -> Result<u64> {
                    s.trim()
                        .parse()
                        .ok()
                        .filter(|n| (1..i64::MAX as u64).contains(n))
                        .ok_or_else(|| bad("GTID set", part))
                };
                let (from, to) = (number(from)?, number(to)?);
                if from > to {
                    return Err(bad("GTID set", part));
                }
                set.insert_range(uuid, &tag, from, to);
            }
        }
        Ok(set)
    }
}

/// A MariaDB GTID position: the last transaction of every domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GtidPos {
    /// Domain to server and sequence.
    domains: BTreeMap<u32, (u32, u64)>,
}

impl GtidPos {
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
    /// This transaction is the last of its domain.
    pub fn advance(&mut self, domain: u32, server: u32, sequence: u64) {
        self.domains.insert(domain, (server, sequence));
    }
    /// Has this transaction been passed?
    pub fn contains(&self, domain: u32, sequence: u64) -> bool {
        self.domains.get(&domain).is_some_and(|(_, at)| *at >= sequence)
    }
    /// Is every domain of the other as far, or further, here?
    pub fn contains_all(&self, other: &GtidPos) -> bool {
        other.domains.iter().all(|(d, (_, at))| self.contains(*d, *at))
    }
    /// Domain, server, sequence.
    pub fn domains(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.domains.iter().map(|(d, (s, n))| (*d, *s, *n))
    }
}

impl fmt::Display for GtidPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (domain, (server, sequence))) in self.domains.iter().enumerate() {
            write!(f, "{}{domain}-{server}-{sequence}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for GtidPos {
    type Err = Error;
    /// A domain that is given twice (`gtid_binlog_state` lists every server) counts with its highest sequence.
    fn from_str(s: &str) -> Result<GtidPos> {
        let mut pos = GtidPos::default();
        for part in s.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut n = part.split('-');
            let (Some(Ok(domain)), Some(Ok(server)), Some(Ok(sequence)), None) =
                (n.next().map(str::parse), n.next().map(str::parse), n.next().map(str::parse), n.next())
            else {
                return Err(bad("MariaDB GTID position", part));
            };
            if !pos.contains(domain, sequence) {
                pos.advance(domain, server, sequence);
            }
        }
        Ok(pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn text_as_the_server_prints_it() {
        for s in ["", &format!("{A}:1-5"), &format!("{A}:1-5:7:9-11,{B}:3"), &format!("{A}:1-2:tag_1:4:6-9,{B}:x:1")] {
            assert_eq!(s.parse::<GtidSet>().unwrap().to_string(), s);
        }
        let loose = format!(" {} : 7 - 9 : 1-3:4:8 ,\n{A}:5", A.to_uppercase());
        assert_eq!(loose.parse::<GtidSet>().unwrap().to_string(), format!("{A}:1-5:7-9"));
        for bad in ["x:1", &format!("{A}:0"), &format!("{A}:5-3"), &format!("{A}:1-x"), &format!("{A}:no-tag:1")] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad}");
        }
    }
    #[test]
    fn tags_are_sets_of_their_own() {
        let mut s: GtidSet = format!("{A}:1-5:t:1-5").parse().unwrap();
        let a = A.parse().unwrap();
        s.remove(a, "t", 3);
        assert!(s.contains(a, "", 3) && !s.contains(a, "t", 3) && !s.contains(a, "u", 3));
        assert_eq!(s.to_string(), format!("{A}:1-5:t:1-2:4-5"));
        assert_eq!(s.encode()[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
    }
    #[test]
    fn mariadb_compares_by_domain_and_sequence() {
        let p: GtidPos = "0-1-100,2-7-5".parse().unwrap();
        assert_eq!(p.to_string(), "0-1-100,2-7-5");
        assert!(p.contains(0, 100) && !p.contains(0, 101) && !p.contains(1, 1));
        assert!(p.contains_all(&"0-9-99".parse().unwrap()) && !p.contains_all(&"1-1-1".parse().unwrap()));
        assert_eq!("0-1-5,0-2-9,0-3-7".parse::<GtidPos>().unwrap().to_string(), "0-2-9");
        for bad in ["1", "1-2", "1-2-3-4", "a-b-c", "1-2--3"] {
            assert!(bad.parse::<GtidPos>().is_err(), "{bad}");
        }
    }
    fn set() -> impl Strategy<Value = Vec<(bool, bool, u64, u64)>> {
        proptest::collection::vec((any::<bool>(), any::<bool>(), 1u64..60, 0u64..6), 0..12)
    }
    fn build(runs: &[(bool, bool, u64, u64)]) -> (GtidSet, std::collections::BTreeSet<(bool, bool, u64)>) {
        let (mut s, mut model) = (GtidSet::default(), std::collections::BTreeSet::new());
        for &(b, t, from, n) in runs {
            s.insert_range(if b { B } else { A }.parse().unwrap(), if t { "t" } else { "" }, from, from + n);
            model.extend((from..=from + n).map(|x| (b, t, x)));
        }
        (s, model)
    }
    proptest! {
        #[test]
        fn algebra_is_that_of_sets(x in set(), y in set()) {
            let ((s, ms), (t, mt)) = (build(&x), build(&y));
            let member = |s: &GtidSet, &(b, t, n): &(bool, bool, u64)|
                s.contains(if b { B } else { A }.parse().unwrap(), if t { "t" } else { "" }, n);
            let mut u = s.clone();
            u.union(&t);
            let d = s.minus(&t);
            for b in [false, true] { for tag in [false, true] { for n in 1..70 {
                let k = (b, tag, n);
                prop_assert_eq!(member(&s, &k), ms.contains(&k));
                prop_assert_eq!(member(&u, &k), ms.contains(&k) || mt.contains(&k));
                prop_assert_eq!(member(&d, &k), ms.contains(&k) && !mt.contains(&k));
            }}}
            prop_assert_eq!(s.contains_all(&t), mt.is_subset(&ms));
            prop_assert_eq!(u.to_string().parse::<GtidSet>().unwrap(), u);
            prop_assert_eq!(d.to_string().parse::<GtidSet>().unwrap(), d);
        }
        #[test]
        fn nothing_panics(s in "[-0-9a-f:,_ ]{0,60}") {
            let seen = (s.parse::<GtidSet>().is_ok(), s.parse::<GtidPos>().is_ok());
            std::hint::black_box(seen);
        }
    }
}

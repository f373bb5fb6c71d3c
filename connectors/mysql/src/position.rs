//! Where a stream stands, and the fences of snapshots: what the core stores and hands back.
//!
//! A position names the last transaction that was delivered whole, twice: by GTID, which holds on every server that has
//! the transaction, and by file and offset, which hold on this server alone. If it lies inside a transaction it also says
//! how many rows of that transaction have been delivered, counting rows of all tables: the rows of a transaction are the
//! same, in the same order, wherever it is read again.
//!
//! Transactions that XA PREPARE left open are not in the GTID set, although they have been passed: they are sent again at
//! the next start, so that their rows are known when XA COMMIT comes. Where GTIDs cannot leave a hole (MariaDB, or no GTIDs)
//! `restart` says from where to read again, and what ends at or before the position is only looked at for prepared rows.

use crate::gtid::{GtidPos, GtidSet};
use seachange_sdk::{Error, Fence, Kind, Position, Result, Retry, Side};
use std::{cmp::Ordering, fmt};

/// A file and an offset in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The offset.
    pub offset: u64,
}

impl Place {
    /// The number at the end of the file's name: `binlog.999999` comes before `binlog.1000000`.
    pub fn number(&self) -> u64 {
        let digits = self.file.bytes().rev().take_while(u8::is_ascii_digit).count();
        self.file.get(self.file.len() - digits..).and_then(|d| d.parse().ok()).unwrap_or(0)
    }
}
impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Place {
    fn cmp(&self, other: &Place) -> Ordering {
        (self.number(), self.offset).cmp(&(other.number(), other.offset)).then_with(|| self.file.cmp(&other.file))
    }
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// How far, by the servers' own ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gtids {
    /// The server gives none.
    #[default]
    Off,
    /// MySQL's.
    MySql(GtidSet),
    /// MariaDB's.
    Maria(GtidPos),
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtids::Off => Ok(()),
            Gtids::MySql(s) => s.fmt(f),
            Gtids::Maria(p) => p.fmt(f),
        }
    }
}

/// A decoded [`Position`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// The server: its UUID (MySQL) or number (MariaDB). File and offset mean something on this one only.
    pub server: String,
    /// Transactions delivered whole.
    pub gtids: Gtids,
    /// Where the last of them ended.
    pub place: Place,
    /// Rows of a further transaction that have been delivered; 0: none.
    pub rows: u64,
    /// Which transaction that is, by GTID; empty: the next one.
    pub inside: String,
    /// Fingerprint of the table selection under which they were counted.
    pub selection: u64,
    /// Where to read from again because of prepared transactions, and how far that was by GTID (MariaDB).
    pub restart: Option<(Place, GtidPos)>,
}

/// A number that changes with the captured tables.
pub fn fingerprint(selection: &seachange_sdk::Selection) -> u64 {
    let patterns = selection.include.iter().map(|p| ('+', p)).chain(selection.exclude.iter().map(|p| ('-', p)));
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for (sign, p) in patterns {
        for c in std::iter::once(sign).chain(p.text().chars()).chain(['\0']) {
            hash = (hash ^ u64::from(c)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

const VERSION: u8 = 1;

#[cold]
pub(crate) fn unreadable(what: &str) -> Error {
    Error::new(Kind::State, Side::Own, Retry::Never, format!("what is stored of the place in the log cannot be read: {what}"))
        .fix("it was written by another version of Seachange, or damaged; start the pipeline under a new name to begin again")
}

pub(crate) fn put(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u32).to_le_bytes());
    out.extend(s.as_bytes());
}

pub(crate) struct Read<'a>(crate::wire::Bytes<'a>);
impl<'a> Read<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Read<'a> {
        Read(crate::wire::Bytes::new(bytes))
    }
    pub(crate) fn text(&mut self) -> Result<String> {
        let n = self.0.u32().map_err(|_| unreadable("it is cut off"))? as usize;
        let bytes = self.0.take(n).map_err(|_| unreadable("it is cut off"))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| unreadable("it holds what is no text"))
    }
    pub(crate) fn number(&mut self) -> Result<u64> {
        self.0.u64().map_err(|_| unreadable("it is cut off"))
    }
    pub(crate) fn small(&mut self) -> Result<u32> {
        self.0.u32().map_err(|_| unreadable("it is cut off"))
    }
    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(unreadable("there is more than there should be")) }
    }
    pub(crate) fn byte(&mut self) -> Result<u8> {
        self.0.u8().map_err(|_| unreadable("it is cut off"))
    }
}

impl Stand {
    /// For the core to store.
    pub fn encode(&self) -> Position {
        let mut out = vec![VERSION];
        put(&mut out, &self.server);
        let (kind, text) = match &self.gtids {
            Gtids::Off => (0, String::new()),
            Gtids::MySql(s) => (1, s.to_string()),
            Gtids::Maria(p) => (2, p.to_string()),
        };
        out.push(kind);
        put(&mut out, &text);
        put(&mut out, &self.place.file);
        out.extend(self.place.offset.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        put(&mut out, &self.inside);
        out.extend(self.selection.to_le_bytes());
        match &self.restart {
            None => out.push(0),
            Some((place, gtids)) => {
                out.push(1);
                put(&mut out, &place.file);
                out.extend(place.offset.to_le_bytes());
                put(&mut out, &gtids.to_string());
            }
        }
        Position(out.into())
    }
    /// From what the core has stored.
    pub fn decode(position: &Position) -> Result<Stand> {
        let mut r = Read::new(&position.0);
        let version = r.byte()?;
        if version != VERSION {
            return Err(unreadable(&format!("its version is {version}, this program knows {VERSION}")));
        }
        let server = r.text()?;
        let kind = r.byte()?;
        let text = r.text()?;
        let gtids = match kind {
            0 => Gtids::Off,
            1 => Gtids::MySql(text.parse().map_err(|_| unreadable("its GTID set is damaged"))?),
            2 => Gtids::Maria(text.parse().map_err(|_| unreadable("its GTID position is damaged"))?),
            _ => return Err(unreadable("its kind is unknown")),
        };
        let place = Place { file: r.text()?, offset: r.number()? };
        let rows = r.number()?;
        let inside = r.text()?;
        let selection = r.number()?;
        let restart = match r.byte()? {
            0 => None,
            _ => {
                let place = Place { file: r.text()?, offset: r.number()? };
                Some((place, r.text()?.parse().map_err(|_| unreadable("its GTID position is damaged"))?))
            }
        };
        r.end()?;
        Ok(Stand { server, gtids, place, rows, inside, selection, restart })
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        let gtids = self.gtids.to_string();
        if !gtids.is_empty() {
            write!(f, " (GTID {gtids})")?;
        }
        if self.rows > 0 {
            write!(f, " and {} rows of the transaction after it", self.rows)?;
        }
        Ok(())
    }
}

/// What a chunk was read under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Everything in `before` was visible, nothing that ended at or after `after` in the log was (MySQL with GTIDs).
    Between {
        /// `gtid_executed` read before the chunk.
        before: GtidSet,
        /// The log's end, read after it.
        after: Place,
    },
    /// Exactly the transactions that end at or before this place were visible (MariaDB; MySQL under a barrier).
    Exactly(Place),
}

impl Seen {
    /// For the core to carry.
    pub fn encode(&self) -> Fence {
        let mut out = Vec::new();
        let place = match self {
            Seen::Between { before, after } => {
                out.push(1);
                put(&mut out, &before.to_string());
                after
            }
            Seen::Exactly(place) => {
                out.push(2);
                place
            }
        };
        put(&mut out, &place.file);
        out.extend(place.offset.to_le_bytes());
        Fence(out.into())
    }
    /// From what the core hands back.
    pub fn decode(fence: &Fence) -> Result<Seen> {
        let mut r = Read::new(&fence.0);
        let before = match r.byte()? {
            1 => Some(r.text()?.parse()?),
            _ => None,
        };
        let place = Place { file: r.text()?, offset: r.number()? };
        Ok(match before {
            Some(before) => Seen::Between { before, after: place },
            None => Seen::Exactly(place),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(file: &str, offset: u64) -> Place {
        Place { file: file.into(), offset }
    }
    #[test]
    fn files_compare_as_numbers() {
        assert!(at("binlog.999999", 900) < at("binlog.1000000", 4));
        assert!(at("b.000009", 4) < at("b.000010", 4) && at("b.000010", 4) < at("b.000010", 5));
        assert!(at("b.000010", 0xffff_ffff) < at("b.000010", 0x1_0000_0000));
        assert_eq!((at("log-bin.2.000001", 1).number(), at("nodigits", 1).number(), at("", 1).number()), (1, 0, 0));
    }
    #[test]
    fn version_one_stays_readable() {
        let s = Stand {
            server: "u".into(),
            gtids: Gtids::Maria("0-1-2".parse().unwrap()),
            place: at("b.1", 4),
            rows: 3,
            inside: "x".into(),
            selection: 5,
            restart: Some((at("b.0", 9), GtidPos::default())),
        };
        let golden: &[u8] = b"\x01\x01\0\0\0u\x02\x05\0\0\x000-1-2\x03\0\0\0b.1\x04\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0x\x05\0\0\0\0\0\0\0\x01\x03\0\0\0b.0\x09\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(s.encode().0, golden);
        assert_eq!(Stand::decode(&Position(golden.into())).unwrap(), s);
        assert_eq!(s.to_string(), "b.1:4 (GTID 0-1-2) and 3 rows of the transaction after it");
    }
    proptest! {
        #[test]
        fn positions_round_trip(server in ".{0,8}", file in "[a-z.0-9]{0,12}", offset in any::<u64>(), rows in any::<u64>(), kind in 0..3) {
            let gtids = match kind {
                0 => Gtids::Off,
                1 => Gtids::MySql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:t:7".parse().unwrap()),
                _ => Gtids::Maria("0-1-9,3-2-7".parse().unwrap()),
            };
            let s = Stand { server, gtids, place: at(&file, offset), rows, inside: file.clone(), selection: rows ^ offset, restart: (kind == 2).then(|| (at(&file, 1), GtidPos::default())) };
            prop_assert_eq!(Stand::decode(&s.encode()).unwrap(), s.clone());
            let bytes = s.encode().0;
            for cut in 0..bytes.len() {
                prop_assert!(Stand::decode(&Position(bytes.slice(..cut))).is_err());
            }
        }
        #[test]
        fn fences_round_trip(file in "[a-z.0-9]{0,12}", offset in any::<u64>(), exact in any::<bool>()) {
            let after = at(&file, offset);
            let f = if exact { Seen::Exactly(after) } else { Seen::Between { before: GtidSet::default(), after } };
            prop_assert_eq!(Seen::decode(&f.encode()).unwrap(), f);
        }
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let seen = (Stand::decode(&Position(bytes.clone().into())).is_ok(), Seen::decode(&Fence(bytes.into())).is_ok());
            std::hint::black_box(seen);
        }
    }
}

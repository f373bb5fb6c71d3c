//! Events of the binary log: headers, checksums, and the events that are not rows.
//!
//! A checksum that does not match is an error that is tried again (bytes can be damaged on the way), never a warning.
//! Every parser takes the event's body as [`body`] gives it: behind the 19 bytes of the header, without the checksum.

use crate::{
    gtid::Uuid,
    wire::{Bytes, malformed},
};
use seachange_sdk::{Error, Kind, Result};

/// Numbers of event types.
#[allow(missing_docs)]
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const ANNOTATE_ROWS: u8 = 160;
    pub const BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const GTID_LIST: u8 = 163;
    pub const START_ENCRYPTION: u8 = 164;
    pub const QUERY_COMPRESSED: u8 = 165;
    pub const WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// Header flag: the event was made for this connection and is in no file.
pub const FLAG_ARTIFICIAL: u16 = 0x20;
/// Header flag: a reader that does not know the event may pass over it.
pub const FLAG_IGNORABLE: u16 = 0x80;
const FLAG_IN_USE: u16 = 0x1;

/// Bytes of a header.
pub const HEADER: usize = 19;

/// The header of every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seconds since the Unix epoch, at the server that first wrote it.
    pub timestamp: u32,
    /// Its type.
    pub kind: u8,
    /// Number of the server that first wrote it.
    pub server_id: u32,
    /// Bytes of the event, header and checksum included.
    pub size: u32,
    /// Where the next event begins, in 32 bits: it wraps in files beyond 4 GiB.
    pub log_pos: u32,
    /// Flags.
    pub flags: u16,
}

impl Header {
    /// Parses the first 19 bytes, whatever follows.
    pub fn peek(event: &[u8]) -> Result<Header> {
        let mut b = Bytes::new(event);
        Ok(Header {
            timestamp: b.u32()?,
            kind: b.u8()?,
            server_id: b.u32()?,
            size: b.u32()?,
            log_pos: b.u32()?,
            flags: b.u16()?,
        })
    }
    /// Parses the first 19 bytes and checks the size against the bytes there are.
    pub fn parse(event: &[u8]) -> Result<Header> {
        let header = Header::peek(event)?;
        if header.size as usize != event.len() {
            return Err(malformed(format!("an event of {} bytes says it has {}", event.len(), header.size)));
        }
        Ok(header)
    }
    /// Was it made for this connection, so that it has no place in a file?
    pub fn artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0 || self.log_pos == 0
    }
}

/// How events are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Not at all.
    #[default]
    Off,
    /// By four bytes at the end.
    Crc32,
}

#[cold]
fn damaged(header: &Header) -> Error {
    Error::source(
        Kind::Protocol,
        format!("the checksum of an event (type {}, ending at {}) does not match", header.kind, header.log_pos),
    )
    .fix("if it happens again at the same place, the log file is damaged: check it with mysqlbinlog --verify-binlog-checksum")
}

/// The body of an event: behind its header, without its checksum, which is verified.
#[inline]
pub fn body<'a>(event: &'a [u8], header: &Header, checksum: Checksum) -> Result<&'a [u8]> {
    let whole = event.get(HEADER..).ok_or_else(|| malformed("an event without a header"))?;
    if checksum == Checksum::Off {
        return Ok(whole);
    }
    let (covered, crc) = event.split_last_chunk::<4>().ok_or_else(|| malformed("an event without a checksum"))?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged(header));
    }
    covered.get(HEADER..).ok_or_else(|| malformed("an event without a body"))
}

/// The body of an event of which it is not known yet whether it has a checksum: the ROTATE that the server makes up
/// before it has told its format. (A file name does not end in the checksum of itself but by one in 2^32.)
pub fn body_guessed<'a>(event: &'a [u8], header: &Header) -> Result<&'a [u8]> {
    body(event, header, Checksum::Crc32).or_else(|_| body(event, header, Checksum::Off))
}

/// FORMAT_DESCRIPTION: how the events after it are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The server's version: `9.7.4`, `10.11.18-MariaDB-log`.
    pub server: String,
    /// How the events after it are protected.
    pub checksum: Checksum,
    /// Length of the fixed part, by event type less one.
    pub post_header: Vec<u8>,
}

impl Format {
    /// Parses the whole event, header and checksum included.
    pub fn parse(event: &[u8], header: &Header) -> Result<Format> {
        let mut b = Bytes::new(event.get(HEADER..).unwrap_or(&[]));
        let version = b.u16()?;
        if version != 4 {
            return Err(malformed(format!("binary log format {version}, where only 4 is known")));
        }
        let server = b.take(50)?;
        let server = String::from_utf8_lossy(server.split(|c| *c == 0).next().unwrap_or(&[])).into_owned();
        b.u32()?;
        if usize::from(b.u8()?) != HEADER {
            return Err(malformed("event headers that are not 19 bytes long"));
        }
        // The lengths, then the checksum's algorithm and the checksum itself (servers since 2012).
        let rest = b.rest();
        let Some((lengths, [algorithm, _crc @ ..])) = rest.split_at_checked(rest.len().saturating_sub(5)) else {
            return Err(malformed("a format description without event lengths"));
        };
        let checksum = match algorithm {
            0 | 255 => Checksum::Off,
            1 => Checksum::Crc32,
            n => return Err(malformed(format!("checksum algorithm {n}, where only CRC32 is known"))),
        };
        if checksum == Checksum::Crc32 && body(event, header, checksum).is_err() {
            // The flag that says "this file is still open" is not covered by the checksum.
            let mut copy = event.to_vec();
            let flags = (header.flags & !FLAG_IN_USE).to_le_bytes();
            if let Some(place) = copy.get_mut(17..19) {
                place.copy_from_slice(&flags);
            }
            body(&copy, header, checksum)?;
        }
        Ok(Format { server, checksum, post_header: lengths.to_vec() })
    }
    /// Length of the fixed part of an event type.
    pub fn post_header(&self, kind: u8) -> u8 {
        usize::from(kind).checked_sub(1).and_then(|i| self.post_header.get(i)).copied().unwrap_or(0)
    }
}

/// ROTATE: the log goes on in another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// Offset of the first event there.
    pub position: u64,
    /// Its name.
    pub file: String,
}

impl Rotate {
    /// Parses the body.
    pub fn parse(body: &[u8]) -> Result<Rotate> {
        let mut b = Bytes::new(body);
        let position = b.u64()?;
        Ok(Rotate { position, file: utf8(b.rest(), "file name")? })
    }
}

/// HEARTBEAT: the server is alive and its log ends here, as far as this stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The file.
    pub file: String,
    /// The offset; version 1 has only its low 32 bits, in the header.
    pub position: Option<u64>,
}

impl Heartbeat {
    /// Parses the body of version 1 or 2.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Heartbeat> {
        if kind == kind::HEARTBEAT {
            return Ok(Heartbeat { file: utf8(body, "file name")?, position: None });
        }
        let mut b = Bytes::new(body);
        let mut out = Heartbeat { file: String::new(), position: None };
        while !b.is_empty() {
            let field = b.lenenc()?;
            if field == 0 {
                break;
            }
            let value = b.lenenc_bytes()?;
            match field {
                1 => out.file = utf8(value, "file name")?,
                2 => out.position = Some(Bytes::new(value).lenenc()?),
                _ => {}
            }
        }
        Ok(out)
    }
}

fn utf8(bytes: &[u8], what: &str) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed(format!("a {what} that is not text")))
}

/// QUERY: a statement, or the beginning or end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The session's number.
    pub thread: u32,
    /// The error with which the statement ended at the server; 0 none.
    pub error: u16,
    /// Status variables, see [`Query::status`].
    pub vars: &'a [u8],
    /// The default database.
    pub database: &'a [u8],
    /// The statement (packed, when the event is [`kind::QUERY_COMPRESSED`]).
    pub text: &'a [u8],
}

/// What the status variables of a statement tell us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `sql_mode`.
    pub sql_mode: u64,
    /// Character set of the statement: a collation's number.
    pub charset: Option<u16>,
    /// The databases that the statement changed; `None`: not told, or more than can be told.
    pub databases: Option<Vec<String>>,
    /// Microseconds of the event's time.
    pub micros: u32,
}

impl Status {
    /// Does `"` quote names?
    pub fn ansi_quotes(&self) -> bool {
        self.sql_mode & 4 != 0
    }
    /// Is `\` an ordinary character in strings?
    pub fn no_backslash_escapes(&self) -> bool {
        self.sql_mode & (1 << 20) != 0
    }
}

impl<'a> Query<'a> {
    /// Parses the body.
    pub fn parse(body: &'a [u8]) -> Result<Query<'a>> {
        let mut b = Bytes::new(body);
        let thread = b.u32()?;
        b.u32()?;
        let database = usize::from(b.u8()?);
        let error = b.u16()?;
        let vars = usize::from(b.u16()?);
        let vars = b.take(vars)?;
        let database = b.take(database)?;
        b.u8()?;
        Ok(Query { thread, error, vars, database, text: b.rest() })
    }
    /// Reads the status variables up to the first that is unknown.
    pub fn status(&self) -> Status {
        let mut s = Status::default();
        let mut b = Bytes::new(self.vars);
        let mut walk = || -> Result<()> {
            while !b.is_empty() {
                match b.u8()? {
                    0 => drop(b.u32()?),         // flags2
                    1 => s.sql_mode = b.u64()?,  // sql_mode
                    2 => drop(skip(&mut b, 1)?), // catalog with its zero
                    3 => drop(b.take(4)?),       // auto_increment
                    4 => {
                        s.charset = Some(b.u16()?);
                        b.take(4)?;
                    }
                    5 | 6 => drop(skip(&mut b, 0)?), // time zone, catalog
                    7 => drop(b.take(2)?),           // lc_time_names
                    8 => drop(b.take(2)?),           // database's collation
                    9 | 10 => drop(b.take(8)?),      // tables for the update map, master's data
                    11 => {
                        skip(&mut b, 0)?; // invoker's user and host
                        skip(&mut b, 0)?;
                    }
                    12 => {
                        let n = b.u8()?;
                        if n < 254 {
                            let mut names = Vec::new();
                            for _ in 0..n {
                                let end = b.rest().iter().position(|c| *c == 0).unwrap_or(b.len());
                                names.push(String::from_utf8_lossy(b.take(end)?).into_owned());
                                b.u8()?;
                            }
                            s.databases = Some(names);
                        }
                    }
                    13 => s.micros = b.uint(3)? as u32,
                    16 => drop(b.u8()?),      // explicit_defaults_for_timestamp
                    17 => drop(b.u64()?),     // xid of the data dictionary
                    18 => drop(b.u16()?),     // default collation of utf8mb4
                    19 | 20 => drop(b.u8()?), // sql_require_primary_key, default table encryption
                    128 => drop(b.take(3)?),  // MariaDB: microseconds of the event's time
                    129 => drop(b.u64()?),    // MariaDB: xid of the statement
                    131 => {
                        // MariaDB 11.5: default collations of character sets, in front of the statement's own set
                        let n = usize::from(b.u8()?);
                        b.take(n * 4)?;
                    }
                    _ => break,
                }
            }
            Ok(())
        };
        // A variable that ends early says no more than one that is unknown: what was read before it holds.
        if walk().is_err() {
            s.databases = None;
        }
        s
    }
}

fn skip<'a>(b: &mut Bytes<'a>, more: usize) -> Result<&'a [u8]> {
    let n = usize::from(b.u8()?);
    b.take(n + more)
}

/// GTID, ANONYMOUS_GTID and GTID_TAGGED: a transaction begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gtid {
    /// The server it was first committed at.
    pub uuid: Uuid,
    /// Its tag; empty without one.
    pub tag: String,
    /// Its number; 0 for an anonymous one.
    pub number: u64,
    /// When this server committed it, microseconds since the Unix epoch; 0 unknown.
    pub commit_us: u64,
    /// When the first server committed it.
    pub original_us: u64,
}

impl Gtid {
    /// Parses the body.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Gtid> {
        if kind == kind::GTID_TAGGED {
            return Gtid::tagged(body);
        }
        let mut b = Bytes::new(body);
        b.u8()?;
        let uuid = Uuid(b.array()?);
        let number = b.u64()?;
        let mut g = Gtid { uuid, number, ..Gtid::default() };
        if kind == kind::ANONYMOUS_GTID {
            g.number = 0;
        } else {
            g.checked()?;
        }
        // Since 5.7: logical clock; since 8.0.1: commit times.
        if b.len() >= 17 && b.u8()? == 2 {
            b.take(16)?;
            if b.len() >= 7 {
                let at = b.uint(7)?;
                g.commit_us = at & !(1 << 55);
                g.original_us = if at >> 55 & 1 == 1 { b.uint(7)? } else { g.commit_us };
            }
        }
        Ok(g)
    }
    fn tagged(body: &[u8]) -> Result<Gtid> {
        let mut b = Bytes::new(body);
        let version = b.varint()?;
        if version != 1 {
            return Err(malformed(format!("a tagged GTID in serialization version {version}")));
        }
        let _size = b.varint()?;
        let _last_needed = b.varint()?;
        let mut g = Gtid::default();
        let mut last = None;
        while !b.is_empty() {
            let field = b.varint()?;
            if last.is_some_and(|l| field <= l) {
                return Err(malformed("fields of a tagged GTID out of order"));
            }
            last = Some(field);
            match field {
                0 => drop(b.varint()?),
                1 => {
                    for byte in &mut g.uuid.0 {
                        *byte = b.varint()? as u8;
                    }
                }
                2 => g.number = zigzag(b.varint()?),
                3 => {
                    let n = b.varint()? as usize;
                    g.tag = utf8(b.take(n)?, "tag")?;
                }
                4 | 5 => drop(b.varint()?),
                6 => g.commit_us = b.varint()?,
                7 => g.original_us = b.varint()?,
                _ => break,
            }
        }
        if g.original_us == 0 {
            g.original_us = g.commit_us;
        }
        g.checked()?;
        Ok(g)
    }
    /// Numbers and tags as servers give them: what is beyond could be stored, and not be read again.
    fn checked(&self) -> Result<()> {
        if !(1..i64::MAX as u64).contains(&self.number) {
            return Err(malformed("a GTID with a number that no server gives"));
        }
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        let digit_first = self.tag.as_bytes().first().is_some_and(u8::is_ascii_digit);
        if self.tag.len() > 32 || digit_first || !self.tag.bytes().all(plain) {
            return Err(malformed("a GTID with a tag that no server gives"));
        }
        Ok(())
    }
}

/// Signed numbers of MySQL's serialization library: the sign is the lowest bit.
fn zigzag(n: u64) -> u64 {
    if n & 1 == 1 { (n >> 1).wrapping_neg().wrapping_sub(1) } else { n >> 1 }
}

/// MariaDB's GTID: a transaction begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MariaGtid {
    /// Number within its domain.
    pub sequence: u64,
    /// Its domain.
    pub domain: u32,
    /// Flags.
    pub flags: u8,
}

impl MariaGtid {
    /// The transaction is one statement without BEGIN and COMMIT.
    pub const STANDALONE: u8 = 1;
    /// It is DDL.
    pub const DDL: u8 = 32;
    /// It ends with XA PREPARE.
    pub const PREPARED_XA: u8 = 64;
    /// It is XA COMMIT or XA ROLLBACK.
    pub const COMPLETED_XA: u8 = 128;

    /// Parses the body.
    pub fn parse(body: &[u8]) -> Result<MariaGtid> {
        let mut b = Bytes::new(body);
        Ok(MariaGtid { sequence: b.u64()?, domain: b.u32()?, flags: b.u8()? })
    }
}

/// XA_PREPARE: the rows before it are prepared under this name, not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XaPrepare {
    /// It was `XA COMMIT ... ONE PHASE`: committed at once.
    pub one_phase: bool,
    /// The name as XA COMMIT and XA ROLLBACK write it in the log: `X'6162',X'',1`.
    pub name: String,
}

impl XaPrepare {
    /// Parses the body.
    pub fn parse(body: &[u8]) -> Result<XaPrepare> {
        let mut b = Bytes::new(body);
        let one_phase = b.u8()? != 0;
        let format = b.u32()?;
        let (global, branch) = (b.u32()? as usize, b.u32()? as usize);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let global = hex(b.take(global)?);
        let branch = hex(b.take(branch)?);
        Ok(XaPrepare { one_phase, name: format!("X'{global}',X'{branch}',{format}") })
    }
}

/// Statement text of ROWS_QUERY (MySQL) and ANNOTATE_ROWS (MariaDB).
pub fn annotation(kind: u8, body: &[u8]) -> &[u8] {
    // MySQL: one byte that once held the length
    if kind == kind::ROWS_QUERY { body.get(1..).unwrap_or(&[]) } else { body }
}

/// INCIDENT: the server says that changes are missing from its log. The number and the server's words.
pub fn incident(body: &[u8]) -> Result<(u16, String)> {
    let mut b = Bytes::new(body);
    let number = b.u16()?;
    let text = if b.is_empty() { &[][..] } else { skip(&mut b, 0)? };
    Ok((number, String::from_utf8_lossy(text).into_owned()))
}

/// Where an event begins and ends in its file, in 64 bits.
///
/// The header's position has 32 bits and wraps in files beyond 4 GiB. `previous` is where the last event ended; events
/// that the server left out (other GTIDs) make the log go forward by less than 4 GiB between two events, because it sends
/// a heartbeat for what it skips.
pub fn end_of(previous: u64, header: &Header) -> u64 {
    let low = u64::from(header.log_pos);
    let at = (previous & !0xffff_ffff) | low;
    if at < previous { at + (1 << 32) } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An event with a right size and, if wanted, a right checksum.
    pub(crate) fn event(kind: u8, log_pos: u32, flags: u16, body: &[u8], checksum: Checksum) -> Vec<u8> {
        let size = HEADER + body.len() + if checksum == Checksum::Crc32 { 4 } else { 0 };
        let mut e = Vec::new();
        e.extend(1_700_000_000u32.to_le_bytes());
        e.push(kind);
        e.extend(7u32.to_le_bytes());
        e.extend((size as u32).to_le_bytes());
        e.extend(log_pos.to_le_bytes());
        e.extend(flags.to_le_bytes());
        e.extend(body);
        if checksum == Checksum::Crc32 {
            e.extend(crc32fast::hash(&e).to_le_bytes());
        }
        e
    }

    #[test]
    fn one_flipped_bit_is_seen() {
        let good = event(kind::XID, 100, 0, &[1; 8], Checksum::Crc32);
        let header = Header::parse(&good).unwrap();
        assert_eq!(body(&good, &header, Checksum::Crc32).unwrap(), [1; 8]);
        for i in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[i / 8] ^= 1 << (i % 8);
            let seen = Header::parse(&bad).and_then(|h| body(&bad, &h, Checksum::Crc32).map(<[u8]>::to_vec));
            assert!(seen.is_err(), "bit {i}");
        }
    }
    #[test]
    fn sizes_must_agree() {
        let mut e = event(kind::XID, 100, 0, &[1; 8], Checksum::Off);
        e.pop();
        assert!(Header::parse(&e).is_err());
        assert!(Header::parse(&[]).is_err());
    }
    #[test]
    fn rotation_before_the_format_is_known() {
        let mut b = 4u64.to_le_bytes().to_vec();
        b.extend(b"binlog.000012");
        for checksum in [Checksum::Off, Checksum::Crc32] {
            let e = event(kind::ROTATE, 0, FLAG_ARTIFICIAL, &b, checksum);
            let h = Header::parse(&e).unwrap();
            assert!(h.artificial());
            let r = Rotate::parse(body_guessed(&e, &h).unwrap()).unwrap();
            assert_eq!(r, Rotate { position: 4, file: "binlog.000012".into() });
        }
    }
    #[test]
    fn the_format_says_how_events_are_protected() {
        let mut b = 4u16.to_le_bytes().to_vec();
        b.extend([b"9.7.4".as_slice(), &[0; 45]].concat());
        b.extend([0, 0, 0, 0, 19]);
        b.extend([56, 13, 0, 8]);
        for (algorithm, checksum) in [(0, Checksum::Off), (1, Checksum::Crc32)] {
            let with = [b.clone(), vec![algorithm]].concat();
            let mut e = event(kind::FORMAT_DESCRIPTION, 126, 0, &with, Checksum::Crc32);
            let h = Header::parse(&e).unwrap();
            let f = Format::parse(&e, &h).unwrap();
            assert_eq!((f.server.as_str(), f.checksum, f.post_header(4)), ("9.7.4", checksum, 8));
            // a file that is still open: the flag is not covered
            e[17] |= 1;
            assert!(Format::parse(&e, &Header::parse(&e).unwrap()).is_ok());
            e[30] ^= 1;
            assert_eq!(Format::parse(&e, &Header::parse(&e).unwrap()).is_err(), checksum == Checksum::Crc32);
        }
    }
    #[test]
    fn heartbeats() {
        let v1 = Heartbeat::parse(kind::HEARTBEAT, b"binlog.000003").unwrap();
        assert_eq!((v1.file.as_str(), v1.position), ("binlog.000003", None));
        let mut b = vec![1, 4];
        b.extend(b"b.01");
        b.extend([2, 9, 254, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let v2 = Heartbeat::parse(kind::HEARTBEAT_V2, &b).unwrap();
        assert_eq!((v2.file.as_str(), v2.position), ("b.01", Some(0x2_0000_0000)));
    }
    #[test]
    fn offsets_beyond_four_gibibytes() {
        let at = |log_pos| Header { timestamp: 0, kind: 2, server_id: 0, size: 50, log_pos, flags: 0 };
        assert_eq!(end_of(4, &at(54)), 54);
        assert_eq!(end_of(0xffff_fff0, &at(0x22)), 0x1_0000_0022);
        assert_eq!(end_of(0x1_0000_0022, &at(0x40)), 0x1_0000_0040);
        assert_eq!(end_of(0x1_ffff_fff0, &at(0x10)), 0x2_0000_0010);
    }
    #[test]
    fn statements() {
        let vars = [0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 4, 45, 0, 1, 0, 2, 0, 12, 2, b'a', 0, b'b', b'c', 0];
        let mut b = vec![9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, vars.len() as u8, 0];
        b.extend(vars);
        b.extend(b"db\0ALTER TABLE t ADD x int");
        let q = Query::parse(&b).unwrap();
        assert_eq!((q.thread, q.database, q.text), (9, &b"db"[..], &b"ALTER TABLE t ADD x int"[..]));
        let s = q.status();
        assert!(s.ansi_quotes() && !s.no_backslash_escapes());
        assert_eq!((s.charset, s.databases), (Some(45), Some(vec!["a".into(), "bc".into()])));
        // As MariaDB 11.8 writes it: the default collations stand in front of the character set.
        let vars = [131, 2, 33, 0, 0, 8, 35, 0, 0, 10, 129, 1, 0, 0, 0, 0, 0, 0, 0, 128, 1, 2, 3, 4, 8, 0, 8, 0, 0, 9];
        let q = Query { thread: 0, error: 0, vars: &vars, database: b"", text: b"" };
        assert_eq!(q.status().charset, Some(8));
    }
    #[test]
    fn gtids() {
        let mut b = vec![1];
        b.extend([0xab; 16]);
        b.extend(42u64.to_le_bytes());
        b.push(2);
        b.extend([0; 16]);
        b.extend(&(1_700_000_000_123_456u64 | 1 << 55).to_le_bytes()[..7]);
        b.extend(&1_600_000_000_000_001u64.to_le_bytes()[..7]);
        let g = Gtid::parse(kind::GTID, &b).unwrap();
        assert_eq!((g.number, g.commit_us, g.original_us), (42, 1_700_000_000_123_456, 1_600_000_000_000_001));
        assert_eq!(Gtid::parse(kind::ANONYMOUS_GTID, &b).unwrap().number, 0);
        for beyond in [0, i64::MAX as u64, u64::MAX] {
            b[17..25].copy_from_slice(&beyond.to_le_bytes());
            assert!(Gtid::parse(kind::GTID, &b).is_err(), "{beyond}");
            assert!(Gtid::parse(kind::ANONYMOUS_GTID, &b).is_ok());
        }
        for tag in ["tag", "_1", ""] {
            assert!(Gtid { number: 1, tag: tag.into(), ..Gtid::default() }.checked().is_ok(), "{tag}");
        }
        for tag in ["1a", "Tag", "a b", "a:1", &"x".repeat(33)] {
            assert!(Gtid { number: 1, tag: tag.to_owned(), ..Gtid::default() }.checked().is_err(), "{tag}");
        }
        let m = MariaGtid::parse(&[5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]).unwrap();
        assert_eq!((m.sequence, m.domain, m.flags), (5, 3, MariaGtid::STANDALONE));
    }
    #[test]
    fn xa_names_as_the_log_writes_them() {
        let mut b = vec![0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
        b.extend(b"abc");
        assert_eq!(XaPrepare::parse(&b).unwrap().name, "X'6162',X'63',1");
    }
    proptest! {
        #[test]
        fn nothing_panics(kind in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let whole = event(kind, 9, 0, &bytes, Checksum::Crc32);
            let h = Header::parse(&whole).unwrap();
            let seen = [
                Format::parse(&whole, &h).is_ok(), Rotate::parse(&bytes).is_ok(), Heartbeat::parse(kind, &bytes).is_ok(),
                Heartbeat::parse(kind::HEARTBEAT_V2, &bytes).is_ok(), Gtid::parse(kind, &bytes).is_ok(),
                Gtid::parse(kind::GTID_TAGGED, &bytes).is_ok(), MariaGtid::parse(&bytes).is_ok(),
                XaPrepare::parse(&bytes).is_ok(), incident(&bytes).is_ok(),
                Query::parse(&bytes).map(|q| q.status()).is_ok(), Header::parse(&bytes).is_ok(),
            ];
            prop_assert_eq!(seen.len(), 11);
        }
    }
}

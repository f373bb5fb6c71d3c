//! Positions and fences in bytes: the only two encodings of this connector that are stored or compared.
//!
//! A position says what has been delivered: everything that commits below `end`, and, when it lies inside a transaction,
//! the first `ordinal` change messages of the transaction that commits at `commit`. Logical decoding sends transactions
//! whole and in commit order, and the same transaction always with the same messages in the same order, so counting
//! messages is enough to find the place again. All messages count, captured or not, so that a changed selection does not
//! move the place.
//!
//! A fence is a visibility snapshot and an LSN behind every commit that the snapshot sees.

use bytes::Bytes;
use seachange_sdk::{Error, Fence, Kind, Position, Result, Retry, Side};
use std::fmt;

const POSITION_V1: u8 = 1;
const FENCE_V1: u8 = 1;

/// A log sequence number, printed as PostgreSQL does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}
impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Lsn {
    /// Reads `16/B374D848`.
    pub fn parse(text: &str) -> Option<Lsn> {
        let (hi, lo) = text.split_once('/')?;
        let part = |s: &str| {
            let plain = !s.is_empty() && s.len() <= 8 && s.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(s, 16).ok()).flatten()
        };
        Some(Lsn((part(hi)? << 32) | part(lo)?))
    }
}

/// A place inside a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where the transaction commits (final LSN of its Begin).
    pub commit: u64,
    /// How many of its change messages have been delivered, captured or not.
    pub ordinal: u64,
}

/// A decoded [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgPosition {
    /// The cluster that the LSNs belong to.
    pub system: u64,
    /// Everything that commits below has been delivered.
    pub end: u64,
    /// End of the last commit seen before, 0 when none was: Debezium's `sequence[0]`.
    pub prev_commit: u64,
    /// Where in the next transaction, if inside.
    pub inside: Option<Inside>,
}

impl PgPosition {
    /// The bytes that the core stores.
    pub fn encode(&self) -> Position {
        let mut out = Vec::with_capacity(41);
        out.push(POSITION_V1);
        let (commit, ordinal) = self.inside.map_or((0, 0), |i| (i.commit, i.ordinal));
        for n in [self.system, self.end, self.prev_commit, commit, ordinal] {
            out.extend_from_slice(&n.to_be_bytes());
        }
        Position(Bytes::from(out))
    }
    /// Reads them back.
    pub fn decode(position: &Position) -> Result<PgPosition> {
        let [system, end, prev_commit, commit, ordinal] =
            numbers::<5>(&position.0, POSITION_V1).ok_or_else(|| damaged("position", &position.0))?;
        let inside = (commit != 0).then_some(Inside { commit, ordinal });
        if inside.is_none() && ordinal != 0 {
            return Err(damaged("position", &position.0));
        }
        Ok(PgPosition { system, end, prev_commit, inside })
    }
}
impl fmt::Display for PgPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {}", Lsn(self.end))?;
        match self.inside {
            Some(i) => write!(f, ", change {} of the transaction that commits at {}", i.ordinal, Lsn(i.commit)),
            None => Ok(()),
        }
    }
}

fn numbers<const N: usize>(bytes: &[u8], version: u8) -> Option<[u64; N]> {
    let (first, rest) = bytes.split_first()?;
    if *first != version || rest.len() != N * 8 {
        return None;
    }
    let mut out = [0; N];
    for (slot, chunk) in out.iter_mut().zip(rest.chunks_exact(8)) {
        *slot = u64::from_be_bytes(chunk.try_into().ok()?);
    }
    Some(out)
}

fn damaged(what: &str, bytes: &[u8]) -> Error {
    Error::new(
        Kind::State,
        Side::Own,
        Retry::Never,
        format!(
            "the stored {what} cannot be read: {} bytes, version {}",
            bytes.len(),
            bytes.first().map_or_else(|| "none".to_owned(), u8::to_string)
        ),
    )
    .fix("run the version of Seachange that wrote it, or reset the pipeline's state")
}

/// A decoded [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgFence {
    /// The lowest transaction id that was still in progress: every lower one had ended.
    pub xmin: u64,
    /// One past the highest transaction id that had ended: this and every higher one had not.
    pub xmax: u64,
    /// Transactions between the two that were in progress, ascending.
    pub xip: Vec<u64>,
    /// An insert LSN read after the snapshot was taken: behind the commit of everything that it sees.
    pub lsn: u64,
}

impl PgFence {
    /// Could the snapshot see this transaction (given that it has committed)?
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }
    /// Reads `pg_current_snapshot()`'s text, `xmin:xmax:xip,xip,...`.
    pub fn parse(snapshot: &str, lsn: u64) -> Option<PgFence> {
        let mut parts = snapshot.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() || xmin > xmax {
            return None;
        }
        let mut xip =
            list.split(',').filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect::<Option<Vec<u64>>>()?;
        xip.sort_unstable();
        Some(PgFence { xmin, xmax, xip, lsn })
    }
    /// The bytes that the core carries.
    pub fn encode(&self) -> Fence {
        let mut out = Vec::with_capacity(25 + self.xip.len() * 8);
        out.push(FENCE_V1);
        for n in [self.lsn, self.xmin, self.xmax].iter().chain(&self.xip) {
            out.extend_from_slice(&n.to_be_bytes());
        }
        Fence(Bytes::from(out))
    }
    /// Reads them back.
    pub fn decode(fence: &Fence) -> Result<PgFence> {
        let bad = || damaged("fence", &fence.0);
        let head = fence.0.get(..25).ok_or_else(bad)?;
        let [lsn, xmin, xmax] = numbers::<3>(head, FENCE_V1).ok_or_else(bad)?;
        let (items, rest) = fence.0.get(25..).unwrap_or_default().as_chunks::<8>();
        let xip: Vec<u64> = items.iter().map(|c| u64::from_be_bytes(*c)).collect();
        if !rest.is_empty() || !xip.is_sorted() || xmin > xmax {
            return Err(bad());
        }
        Ok(PgFence { xmin, xmax, xip, lsn })
    }
}

/// Reads a [`Fence`].
pub fn parse_fence(fence: &Fence) -> Result<PgFence> {
    PgFence::decode(fence)
}

/// Widens a 32-bit transaction id to the 64-bit one nearest to `near`: exact as long as the two are less than 2^31 apart,
/// which PostgreSQL guarantees for all transactions it can still tell apart.
pub fn widen(xid: u32, near: u64) -> u64 {
    let diff = xid.wrapping_sub(near as u32) as i32;
    near.saturating_add_signed(i64::from(diff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lsn_text() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for bad in ["", "/", "1", "1/", "/1", "g/1", "1/123456789", "+1/2"] {
            assert_eq!(Lsn::parse(bad), None, "{bad}");
        }
    }
    #[test]
    fn damaged_positions_are_refused() {
        let p = PgPosition { system: 7, end: 8, prev_commit: 9, inside: Some(Inside { commit: 10, ordinal: 11 }) };
        let bytes = p.encode().0;
        for cut in 0..bytes.len() {
            assert!(PgPosition::decode(&Position(bytes.slice(..cut))).is_err());
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        let e = PgPosition::decode(&Position(newer.into())).unwrap_err();
        assert_eq!((e.kind(), e.retryable()), (Kind::State, Retry::Never));
    }
    #[test]
    fn snapshot_visibility() {
        let f = PgFence::parse("10:20:10,12", 1).unwrap();
        assert!(f.sees(9) && !f.sees(10) && f.sees(11) && !f.sees(12) && f.sees(19) && !f.sees(20) && !f.sees(21));
        assert_eq!(PgFence::parse("10:10:", 1).unwrap().xip, Vec::<u64>::new());
        for bad in ["", "1", "1:2", "1:2:x", "1:2:3:4", "3:2:"] {
            assert!(PgFence::parse(bad, 1).is_none(), "{bad}");
        }
    }
    #[test]
    fn widening() {
        assert_eq!(widen(5, 3), 5);
        assert_eq!(widen(5, (1 << 32) + 100), (1 << 32) + 5);
        assert_eq!(widen(u32::MAX - 3, (1 << 32) + 100), (1 << 32) - 4);
        assert_eq!(widen(3, (1 << 32) - 2), (1 << 32) + 3);
    }
    proptest! {
        #[test]
        fn positions_round_trip(system: u64, end: u64, prev_commit: u64, c in 1u64.., o: u64, inside: bool) {
            let p = PgPosition { system, end, prev_commit, inside: inside.then_some(Inside { commit: c, ordinal: o }) };
            prop_assert_eq!(PgPosition::decode(&p.encode()).unwrap(), p);
        }
        #[test]
        fn fences_round_trip(lsn: u64, a: u64, b: u64, mut xip: Vec<u64>) {
            xip.sort_unstable();
            let f = PgFence { xmin: a.min(b), xmax: a.max(b), xip, lsn };
            prop_assert_eq!(PgFence::decode(&f.encode()).unwrap(), f);
        }
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = PgPosition::decode(&Position(bytes.clone().into()));
            let _ = PgFence::decode(&Fence(bytes.into()));
        }
        #[test]
        fn widen_inverts_truncation(near in (1u64 << 32)..(1 << 60), d in -(1i64 << 30)..(1 << 30)) {
            let full = near.saturating_add_signed(d);
            prop_assert_eq!(widen(full as u32, near), full);
        }
    }
}

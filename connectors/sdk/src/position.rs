//! Positions, fences and what is kept beside them: the connector's business, the core's cargo.

use bytes::Bytes;
use std::{collections::BTreeMap, fmt};

/// A transaction's number as the snapshot merge sees it. PostgreSQL: the 64-bit full transaction id.
pub type TxnId = u64;

/// A place in a source's log, in the connector's own encoding. The core stores it and hands it back; it never parses
/// or compares it. Opened at position P, a source delivers exactly the changes after P.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Position(pub Bytes);

/// What a snapshot chunk was read under, in the connector's own encoding (PostgreSQL: the visibility snapshot and an LSN
/// behind every commit that it sees).
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Fence(pub Bytes);

/// What a connector keeps beside its position, by key: what it must know there and the log does not tell again (the columns
/// that tables had). The core stores it in the same transaction as the position and hands both back; it never parses it.
pub type Kept = BTreeMap<String, Bytes>;

/// A change of [`Kept`]: an entry to store, or (`None`) to forget.
pub type Keep = (String, Option<Bytes>);

/// Where a source goes on: the position, and what was kept as of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resume {
    /// The position.
    pub position: Position,
    /// Every change of [`crate::Opened::kept`] and [`crate::Batch::kept`] up to there, applied in order.
    pub kept: Kept,
}

impl From<Position> for Resume {
    /// Beside which nothing was kept.
    fn from(position: Position) -> Resume {
        Resume { position, kept: Kept::new() }
    }
}

/// Applies changes in order.
pub fn keep(kept: &mut Kept, changes: impl IntoIterator<Item = Keep>) {
    for (key, value) in changes {
        match value {
            Some(v) => kept.insert(key, v),
            None => kept.remove(&key),
        };
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Position(")?;
        hex(&self.0, f)?;
        f.write_str(")")
    }
}
impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence(")?;
        hex(&self.0, f)?;
        f.write_str(")")
    }
}

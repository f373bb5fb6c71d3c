//! Positions and fences: the connector's business, the core's cargo.

use bytes::Bytes;
use std::fmt;

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

//! MySQL and MariaDB: the row binlog as a stream of changes, and a snapshot that agrees with it to the byte.
//!
//! One reader serves both kinds; what differs is in `flavor`. Everything up to `position` is pure: bytes in, values or errors
//! out, and no input can make it panic.
//!
//! | module | owns |
//! | --- | --- |
//! | [`wire`] | bounds-checked reading |
//! | [`event`] | headers, checksums, events that are not rows |
//! | [`payload`] | compressed transactions, events and columns |
//! | [`table_map`] | what the rows of a table look like |
//! | [`rows`] | where every cell of every row is |
//! | [`decode`] | cells to values, with [`decimal`], [`temporal`], [`jsonb`], [`charset`] |
//! | [`gtid`], [`position`] | where a stream stands |

pub mod charset;
pub mod decimal;
pub mod decode;
pub mod event;
pub mod gtid;
pub mod jsonb;
pub mod payload;
pub mod position;
pub mod rows;
pub mod table_map;
pub mod temporal;
pub mod wire;

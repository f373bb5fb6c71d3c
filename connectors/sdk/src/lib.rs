//! The contract between the Seachange core and its connectors.
//!
//! The core knows transactions and bytes; only a connector knows its database. This crate is what they share and
//! nothing else: no I/O, no runtime. A connector implements [`Connector`], [`Configured`], [`Source`] and, where it can
//! read what is already there, [`Snapshotter`]; the core drives them and never looks inside a [`Position`] or a
//! [`Fence`].
//!
//! | module | owns |
//! | --- | --- |
//! | [`batch`] | rows as offsets into the bytes the database sent |
//! | [`value`] | the borrowed value that a column's decoder hands to an encoder |
//! | [`schema`] | tables, columns, types, the layout of the `source` block |
//! | [`position`] | opaque positions and fences, and what is kept beside them |
//! | [`source`] | the contracts |
//! | [`error`] | errors that know whether to retry and what to do next |
//! | [`config`] | faults of a configuration, secrets |
//! | [`kit`] | what every connector must pass |
//! | [`select`] | which tables and columns a pattern captures |

pub mod batch;
pub mod config;
pub mod error;
pub mod kit;
pub mod position;
pub mod schema;
pub mod select;
pub mod source;
pub mod value;

pub use batch::{Batch, Cell, Change, Cut, Op, Span, Txn};
pub use config::{Fault, Secret};
pub use error::{Error, Kind, Result, Retry, Side};
pub use position::{Fence, Keep, Kept, Position, Resume, TxnId};
pub use schema::{Column, SourceField, SourceLayout, SourceValue, TableId, TableKind, TableSchema, Type};
pub use select::Selection;
pub use source::{
    Check, Chunk, ChunkReader, ChunkRequest, Configured, Connector, Limit, Opened, Outcome, Range, Snapshotter, Source,
    SourceStatus, TableFound,
};
pub use value::{DecodeFn, Decoder, Nested, Param, Value, Visitor, digits};

//! Formats: from batches of cells to records of bytes.
//!
//! Owns how records look: Debezium's envelope, keys, headers, topic names, and each type's representation in every mode. It
//! knows nothing of databases (a column's decoder is all it is given) and nothing of Kafka (it fills an arena).
//!
//! | module | owns |
//! | --- | --- |
//! | `envelope` | which records a change becomes; the [`Encoder`] |
//! | `plan` | what is constant for a table, compiled once a schema |
//! | `values` | a column's style: every choice of the configuration, for every type |
//! | `json`, `datetime`, `decimal` | text, numbers, times and decimals as bytes |
//! | `schema` | Kafka Connect's `schema` block |
//! | `source`, `transaction` | the blocks of those names, BEGIN and END |
//! | `topic` | topic names |
//! | `key` | [`key_hash`], the identity of a row for the snapshot merge |
//!
//! What it promises: records come out in the order of the changes; a value comes out exactly or is an error that names table,
//! column and position; no value appears in an error; the row path allocates nothing once its buffers have grown.

mod datetime;
mod decimal;
mod envelope;
mod json;
mod key;
mod plan;
mod schema;
mod source;
mod topic;
mod transaction;
mod values;

#[cfg(test)]
mod tests;

pub use envelope::{ABSENT_HEADER, Clock, Encoder, NEW_KEY_HEADER, OLD_KEY_HEADER};
pub use key::key_hash;

use crate::config::resolved::{BinaryMode, DecimalMode, Format, IntervalMode, MapMode, TimeMode, Values, ZeroDates};

/// Debezium's own stand-in for a value that the log does not carry.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// The choices that each base implies.
pub fn resolved_defaults(values: Values) -> Format {
    let debezium = values == Values::Debezium;
    Format {
        values,
        decimal: if debezium { DecimalMode::Precise } else { DecimalMode::String },
        time: if debezium { TimeMode::Adaptive } else { TimeMode::Iso },
        binary: BinaryMode::Base64,
        interval: if debezium { IntervalMode::Numeric } else { IntervalMode::Iso },
        hstore: if debezium { MapMode::Json } else { MapMode::Object },
        zero_dates: if debezium { ZeroDates::Null } else { ZeroDates::Text },
        schemas: false,
        tombstones: true,
        transaction: false,
        schema_changes: true,
        placeholder: PLACEHOLDER.to_owned(),
    }
}

//! The whole daemon against real servers: from SQL to what a consumer reads.
//!
//! - [`types`]: every type, compared with what Debezium published.
//! - [`mysql_types`]: the same for MySQL and MariaDB.
//! - [`same_bytes`], [`mysql_same_bytes`]: a row read by the snapshot and the same row streamed are the same bytes.
//! - [`stream`]: everything a log can carry.
//! - [`snapshots`]: what is read, what is not, and where it meets the stream.
//! - [`places`]: topics, partitions, sinks, several pipelines.
//! - [`secured`]: a broker that lets in only by TLS, password and grants.
//! - [`mysql_stream`]: what a log of MySQL and MariaDB can carry, and where reading meets it.
//! - [`mysql_schema`]: what a snapshot of them tells of tables before their rows.
//! - [`limits`]: large transactions, large rows, servers that hang.
//!
//! Servers come from `scripts/test`. Nothing here sleeps for luck: a test waits for a record that comes last.

#[path = "../support/golden.rs"]
mod golden;
mod limits;
mod mysql;
mod mysql_same_bytes;
mod mysql_schema;
mod mysql_stream;
mod mysql_types;
mod places;
mod raw;
mod run;
mod same_bytes;
mod secured;
mod snapshots;
mod stream;
mod types;

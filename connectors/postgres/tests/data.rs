//! The data half of the connector against real servers: decoders, catalog, COPY, chunks, fences.
//!
//! Runs when `SEACHANGE_TEST_PG` holds URLs of capture accounts (separated by spaces), each the owner of its database and
//! with REPLICATION; every test runs on every server. What the decoders say is compared with what the server says by
//! other ways than its output functions (binary sends, EXTRACT, casts), and a row of the snapshot with the same row of the
//! stream, byte by byte.

#[path = "data/canon.rs"]
mod canon;
#[path = "data/chunks.rs"]
mod chunks;
#[path = "data/lab.rs"]
mod lab;
#[path = "data/pgoutput.rs"]
mod pgoutput;
#[path = "data/types.rs"]
mod types;

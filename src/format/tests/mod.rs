//! Tests of the whole format: batches made by hand, records read back.

mod golden;
mod records;
mod schemas;
mod speed;
pub(super) mod support;
mod types;

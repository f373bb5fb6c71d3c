//! The configuration: raw as written, resolved as meant.

pub mod resolved;

//! PostgreSQL connector: logical replication by pgoutput.

pub mod catalog;
pub mod check;
pub mod config;
pub mod conn;
pub mod copy;
pub mod decode;
pub mod errors;
pub mod init;
pub mod pgoutput;
pub mod position;
pub mod slot;
pub mod snapshot;
pub mod source;
pub mod sql;
pub mod tls;

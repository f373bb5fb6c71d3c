//! `seachange init`.
use seachange_sdk::{Error, Result};

/// Looks into the database and writes the configuration.
pub async fn init(_url: &str) -> Result<String> {
    Err(Error::bug("not yet"))
}

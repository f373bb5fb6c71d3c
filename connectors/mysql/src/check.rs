//! Preflight.
use crate::{config::Config, flavor::Flavor};
use seachange_sdk::Check;
use std::sync::Arc;

/// Runs every check.
pub async fn check(_flavor: Flavor, _config: &Arc<Config>) -> Vec<Check> {
    Vec::new()
}

//! stub
use crate::config::Config;
use seachange_sdk::Check;
use std::sync::Arc;
/// stub
pub async fn check(_: &Arc<Config>) -> Vec<Check> { vec![] }

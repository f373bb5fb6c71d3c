//! stub
/// stub
pub async fn init(_: &str) -> seachange_sdk::Result<String> { Ok(String::new()) }

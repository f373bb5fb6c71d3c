//! Placeholder of the snapshotter's signatures.
#![allow(missing_docs)]
use async_trait::async_trait;
use bytes::Bytes;
use seachange_sdk::*;

pub struct PgSnapshotter;
impl PgSnapshotter {
    pub async fn new(
        _: crate::sql::Connector,
        _: Selection,
        _: String,
        _: crate::slot::PublicationPlan,
    ) -> Result<PgSnapshotter> {
        Ok(PgSnapshotter)
    }
}
#[async_trait]
impl Snapshotter for PgSnapshotter {
    async fn discover(&self) -> Result<Vec<TableFound>> {
        Ok(vec![])
    }
    async fn settle(&self) -> Result<()> {
        Ok(())
    }
    async fn split(&self, _: &TableId, _: usize) -> Result<Vec<Range>> {
        Ok(vec![])
    }
    async fn reader(&self) -> Result<Box<dyn ChunkReader>> {
        Err(Error::bug("placeholder"))
    }
    fn describe_key(&self, _: &Bytes) -> String {
        String::new()
    }
}

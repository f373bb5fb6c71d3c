//! Placeholder of the catalog's signatures.
#![allow(missing_docs)]
use seachange_sdk::*;
use std::{borrow::Cow, sync::Arc};
use tokio_postgres::Client;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationInfo {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: u8,
    pub columns: Vec<RelationColumn>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    pub in_identity: bool,
}
pub struct Bound {
    pub schema: Arc<TableSchema>,
    pub mask: Vec<bool>,
}
pub struct Catalog {
    selection: Selection,
    database: String,
    version: u64,
}
fn text<'a>(_: &'a Param, b: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Text(Cow::Borrowed(std::str::from_utf8(b).map_err(|e| Error::value("utf-8").cause(e))?)))
}
impl Catalog {
    pub async fn load(_: &Client, selection: &Selection, database: &str) -> Result<Catalog> {
        Ok(Catalog { selection: selection.clone(), database: database.into(), version: 0 })
    }
    pub async fn bind(&mut self, client: &Client, r: &RelationInfo) -> Result<Bound> {
        client.simple_query("SELECT 1").await.map_err(|e| crate::errors::sql("binding", e))?;
        self.version += 1;
        let mask: Vec<bool> = r.columns.iter().map(|c| self.selection.column(&r.schema, &r.name, &c.name)).collect();
        let kept: Vec<&RelationColumn> = r.columns.iter().zip(&mask).filter(|(_, m)| **m).map(|(c, _)| c).collect();
        let columns = kept
            .iter()
            .map(|c| Column {
                name: c.name.as_str().into(),
                ty: Type::Other,
                type_name: "text".into(),
                nullable: true,
                decode: Decoder::plain(text),
            })
            .collect();
        let key = kept.iter().enumerate().filter(|(_, c)| c.in_identity).map(|(i, _)| i as u32).collect();
        let id = TableId {
            database: self.database.as_str().into(),
            schema: r.schema.as_str().into(),
            name: r.name.as_str().into(),
        };
        let schema = TableSchema { id, kind: TableKind::Table, version: self.version, columns, key, layout: layout() };
        Ok(Bound { schema: Arc::new(schema), mask })
    }
}
pub fn layout() -> Arc<SourceLayout> {
    Arc::new(SourceLayout { connector: "postgresql", fields: vec![] })
}
pub fn message_schema(database: &str) -> Arc<TableSchema> {
    let c = |n: &str| Column {
        name: n.into(),
        ty: Type::Text,
        type_name: "text".into(),
        nullable: false,
        decode: Decoder::plain(text),
    };
    Arc::new(TableSchema {
        id: TableId { database: database.into(), schema: "".into(), name: "message".into() },
        kind: TableKind::Message,
        version: 0,
        columns: vec![c("prefix"), c("content")],
        key: vec![],
        layout: layout(),
    })
}

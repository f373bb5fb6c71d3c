//! Servers to test on, and a pipeline's view of each.

use seachange_postgres::{config::Config, slot::PublicationPlan, snapshot::PgSnapshotter, sql::Connector};
use seachange_sdk::{Chunk, ChunkReader, ChunkRequest, Range, Snapshotter, TableId};
use std::{
    future::Future,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_postgres::{Client, NoTls};

/// A table's rows as the texts that were read, NULL as `None`.
pub type Rows = Vec<Vec<Option<Vec<u8>>>>;

pub struct Lab {
    pub url: String,
    pub client: Client,
    pub connector: Connector,
    pub snapshotter: PgSnapshotter,
    pub version: u32,
    pub schema: String,
}

/// Runs a test on every server, or says that there is none.
pub fn on_every_server<F: Future<Output = ()>>(name: &str, test: impl Fn(Lab) -> F) {
    let urls = std::env::var("SEACHANGE_TEST_PG").unwrap_or_default();
    if urls.trim().is_empty() {
        // Past the test harness, which shows the output of failed tests only.
        let text =
            format!("SKIPPED: {name} needs PostgreSQL servers; set SEACHANGE_TEST_PG to URLs of capture accounts\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return;
    }
    // One at a time: transactions that one test holds open would hold up another's slot and its waits.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for url in urls.split_whitespace() {
        eprintln!("{name}: {}", url.rsplit('@').next().unwrap_or("?"));
        runtime.block_on(async { test(Lab::new(url, name).await).await });
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            eprintln!("connection ended: {e}");
        }
    });
    client
}

impl Lab {
    /// Empties the schema of this test (named after it) and looks at it as a pipeline would.
    pub async fn new(url: &str, name: &str) -> Lab {
        let client = connect(url).await;
        client
            .batch_execute(&format!(
                "SET client_min_messages = warning; DROP PUBLICATION IF EXISTS {name}_pub;
                 DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name};
                 SELECT pg_advisory_xact_lock(77);
                 CREATE EXTENSION IF NOT EXISTS citext; CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS ltree"
            ))
            .await
            .unwrap();
        let table: toml::Table =
            format!("url = {url:?}\ntables = [\"{name}.*\"]\npublication = \"{name}_pub\"\nconnect_timeout = \"60s\"")
                .parse()
                .unwrap();
        let config = Arc::new(Config::read("test", "pipeline.test.source", &table).unwrap());
        let connector = Connector::new(config.clone()).unwrap();
        let snapshotter = PgSnapshotter::new(
            connector.clone(),
            config.selection.clone(),
            config.database.clone(),
            PublicationPlan::new(&config),
        )
        .await
        .unwrap();
        let version: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
        Lab { url: url.into(), client, connector, snapshotter, version: version.parse().unwrap(), schema: name.into() }
    }
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    /// Statement by statement, for files with transactions of their own.
    pub async fn run_each(&self, sql: &str) {
        for statement in statements(sql) {
            self.run(&statement).await;
        }
    }
    pub fn id(&self, table: &str) -> TableId {
        TableId {
            database: self.connector.config().database.as_str().into(),
            schema: self.schema.as_str().into(),
            name: table.into(),
        }
    }
    pub fn request(&self, table: &str) -> ChunkRequest {
        ChunkRequest {
            table: self.id(table),
            range: Range::default(),
            rows: 10_000,
            bytes: 1 << 20,
            row_bytes: 8 << 20,
            keys: Vec::new(),
        }
    }
    pub async fn reader(&self) -> Box<dyn ChunkReader> {
        self.snapshotter.reader().await.unwrap()
    }
    /// All rows of a range in chunks.
    pub async fn read(&self, request: ChunkRequest) -> Vec<Chunk> {
        self.read_by(&mut *self.reader().await, request).await
    }
    pub async fn read_by(&self, reader: &mut dyn ChunkReader, mut request: ChunkRequest) -> Vec<Chunk> {
        let mut out = Vec::new();
        loop {
            let chunk = reader.read(&request).await.unwrap();
            assert!(chunk.batch.changes.len() <= request.rows);
            let last = chunk.last.clone();
            out.push(chunk);
            match last {
                Some(last) => request.range.after = Some(last),
                None => return out,
            }
        }
    }
}

pub fn rows(chunks: &[Chunk]) -> Rows {
    let mut out = Vec::new();
    for chunk in chunks {
        let batch = &chunk.batch;
        for change in &batch.changes {
            let bytes = batch.chunk(change);
            let cells = batch.image(change.after);
            assert_eq!(cells.len(), batch.tables[change.table as usize].columns.len());
            out.push(cells.iter().map(|c| c.bytes(bytes).map(<[u8]>::to_vec)).collect());
        }
    }
    out
}

/// Splits SQL at the semicolons that end statements.
fn statements(sql: &str) -> Vec<String> {
    let (mut out, mut now, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '-') if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, ';') => out.push(std::mem::take(&mut now)),
            (None, '\'' | '"') => {
                quote = Some(c);
                now.push(c);
            }
            (Some(q), c) => {
                if c == q {
                    quote = None;
                }
                now.push(c);
            }
            (None, c) => now.push(c),
        }
    }
    out.retain(|s| !s.trim().is_empty());
    out
}

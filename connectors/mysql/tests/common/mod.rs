//! Real servers for the tests of this folder.
#![allow(dead_code)]

use mysql_async::{Conn, Opts, prelude::Queryable};
use seachange_mysql::flavor::Flavor;
use seachange_sdk::{
    Batch, Cell, Configured, Connector, Cut, Limit, Nested, Position, Resume, Source, Span, TableKind, Value, Visitor,
    kit::begins, position::keep,
};
use std::{
    fmt::{self, Write},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

/// A server to test against.
#[derive(Clone)]
pub struct Server {
    pub flavor: Flavor,
    /// Without a database.
    pub url: String,
}

/// The servers that the environment names; says loudly which are missing.
pub fn servers(test: &str) -> Vec<Server> {
    let mut out = Vec::new();
    for (name, flavor) in [("SEACHANGE_TEST_MYSQL", Flavor::MySql), ("SEACHANGE_TEST_MARIADB", Flavor::MariaDb)] {
        match std::env::var(name) {
            Ok(urls) => out.extend(urls.split_whitespace().map(|u| {
                let url = u.rsplit_once('/').filter(|(server, _)| server.contains('@')).map_or(u, |(server, _)| server);
                Server { flavor, url: url.to_owned() }
            })),
            Err(_) => eprintln!("SKIPPED: {test} did not run against {}: {name} is not set", flavor.name()),
        }
    }
    if out.is_empty() {
        skipped(test, "SEACHANGE_TEST_MYSQL and SEACHANGE_TEST_MARIADB name no server");
    }
    out
}

/// `scripts/test` counts these apart from the passed.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write;
    if let Some(file) = std::env::var_os("SEACHANGE_TEST_SKIPPED") {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        opened.and_then(|mut f| writeln!(f, "{test}: {why}")).expect("the list of skipped tests");
    }
}

/// One server of each version: for what their settings do not change.
pub async fn versions(test: &str) -> Vec<Server> {
    let (mut out, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
    for server in servers(test) {
        let version: String = server.conn().await.query_first("SELECT VERSION()").await.unwrap().unwrap();
        if seen.insert(version) {
            out.push(server);
        }
    }
    out
}

/// Everything within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

impl Server {
    pub async fn conn(&self) -> Conn {
        Conn::new(Opts::from_url(&self.url.replace("mariadb://", "mysql://")).unwrap()).await.unwrap()
    }
    /// Does its log name columns and labels, or is the catalog asked for them?
    pub async fn names_columns(&self) -> bool {
        self.setting("binlog_row_metadata").await == "FULL"
    }
    /// Sets how much the log of the whole server says of columns, and gives what it was. `MINIMAL`: the server's default.
    pub async fn metadata(&self, value: &str) -> String {
        let was = self.setting("binlog_row_metadata").await;
        let value = if self.flavor == Flavor::MariaDb && value == "MINIMAL" { "NO_LOG" } else { value };
        self.conn().await.query_drop(format!("SET GLOBAL binlog_row_metadata = '{value}'")).await.unwrap();
        was
    }
    async fn setting(&self, name: &str) -> String {
        self.conn().await.query_first(format!("SELECT @@GLOBAL.{name}")).await.unwrap().unwrap()
    }
    /// An empty database of a name that no other test has.
    pub async fn database(&self, name: &str) -> Database {
        let name = format!("sc_{name}_{}", std::process::id());
        let mut c = self.conn().await;
        // A run that was killed may have left one.
        c.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
        c.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
        Database { name, server: self.clone() }
    }
    /// Runs statements, one after another, in one session.
    pub async fn script(&self, database: &str, text: &str) {
        let mut c = self.conn().await;
        c.query_drop(format!("USE {database}")).await.unwrap();
        for statement in split(text) {
            if let Err(e) = c.query_drop(&statement).await {
                panic!("{e}: {}", statement.chars().take(200).collect::<String>());
            }
        }
        c.disconnect().await.unwrap();
    }
    pub fn configured(&self, tables: &[&str], id: u32) -> Arc<dyn Configured> {
        let mut t = toml::Table::new();
        // The account that may do what capturing needs, and nothing else.
        t.insert("url".into(), self.url.replacen("root:root", "cdc:cdc", 1).into());
        t.insert("tables".into(), toml::Value::Array(tables.iter().map(|s| (*s).into()).collect()));
        t.insert("server_id".into(), toml::Value::Integer(i64::from(id)));
        // The server notices a lost connection when it next writes to it, which is then every five seconds.
        t.insert("read_timeout".into(), "15s".into());
        let which = match self.flavor {
            Flavor::MySql => &seachange_mysql::MYSQL,
            Flavor::MariaDb => &seachange_mysql::MARIADB,
        };
        which.configure("test", "pipeline.test.source", &t).unwrap()
    }
    pub async fn open(&self, tables: &[&str], at: Option<&Position>) -> Stream {
        self.resume(tables, at.cloned().map(Resume::from).as_ref()).await
    }
    /// Opens with what was kept beside the position.
    pub async fn resume(&self, tables: &[&str], at: Option<&Resume>) -> Stream {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = 100_000 + std::process::id() % 10_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let opened = tokio::time::timeout(DEADLINE, self.configured(tables, id).open(at)).await.unwrap().unwrap();
        let resume = begins(&opened, at);
        Stream { source: opened.source, position: opened.position, resume, batch: Batch::default(), cuts: Vec::new() }
    }
}

/// A database of a test, by its name. It goes when this is dropped, also when the test fails.
pub struct Database {
    name: String,
    server: Server,
}

impl Deref for Database {
    type Target = str;
    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = async || {
            let mut c = self.server.conn().await;
            // A failed test may have left a transaction that holds a table.
            c.query_drop("SET SESSION lock_wait_timeout = 5").await?;
            c.query_drop(format!("DROP DATABASE IF EXISTS {}", self.name)).await
        };
        // On a thread of its own: this one may be in the midst of a runtime.
        let dropped = std::thread::scope(|scope| {
            let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().map(|r| r.block_on(drop()));
            scope.spawn(run).join()
        });
        if !matches!(dropped, Ok(Ok(Ok(())))) {
            eprintln!("the database {} stays: {dropped:?}", self.name);
        }
    }
}

/// Splits at semicolons outside of quotes and comments.
pub fn split(text: &str) -> Vec<String> {
    let (mut out, mut now, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '-') if chars.peek() == Some(&'-') => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                continue;
            }
            (None, ';') => {
                out.push(std::mem::take(&mut now));
                continue;
            }
            (None, '\'' | '"' | '`') => quote = Some(c),
            (Some(q), _) if q == c => quote = None,
            (Some(q), '\\') if q != '`' => {
                now.push(c);
                now.extend(chars.next());
                continue;
            }
            _ => {}
        }
        now.push(c);
    }
    out.push(now);
    out.into_iter().filter(|s| !s.trim().is_empty()).collect()
}

pub const LIMIT: Limit = Limit { bytes: 1 << 20, changes: 10_000, row_bytes: 64 << 20, txn_tables: true };

/// An open stream and what came of it.
pub struct Stream {
    pub source: Box<dyn Source>,
    pub position: Position,
    /// Where it is, with what was kept.
    pub resume: Resume,
    pub batch: Batch,
    pub cuts: Vec<Cut>,
}

impl Stream {
    /// The next batch's changes as lines, and its cut.
    pub async fn next(&mut self, limit: Limit) -> (Vec<String>, Cut) {
        self.batch.clear();
        tokio::time::timeout(DEADLINE, self.source.fill(&mut self.batch, limit))
            .await
            .expect("no batch in time")
            .unwrap();
        if let Cut::Txn(p) | Cut::Inside(p) | Cut::Idle(p) = &self.batch.cut {
            self.position = p.clone();
            self.resume.position = p.clone();
            keep(&mut self.resume.kept, self.batch.kept.iter().cloned());
        }
        (lines(&self.batch), self.batch.cut.clone())
    }
    /// The next batch that has changes.
    pub async fn next_changes(&mut self) -> Vec<String> {
        loop {
            let (seen, _) = self.next(LIMIT).await;
            if !seen.is_empty() {
                return seen;
            }
        }
    }
    /// Everything before the first change of a table.
    pub async fn until(&mut self, table: &str) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            for line in self.next(LIMIT).await.0 {
                if line.split(' ').nth(1) == Some(table) {
                    return out;
                }
                out.push(line);
            }
        }
    }
}

/// A batch's statements: database, text, what became of tables.
pub fn statements(batch: &Batch) -> Vec<[String; 3]> {
    let of = |c: &&seachange_sdk::Change| batch.tables[c.table as usize].kind == TableKind::Statement;
    let text = |c: &seachange_sdk::Change, i: usize| {
        String::from_utf8(batch.image(c.after)[i].bytes(batch.chunk(c)).unwrap().to_vec()).unwrap()
    };
    batch.changes.iter().filter(of).map(|c| [text(c, 0), text(c, 1), text(c, 2)]).collect()
}

/// A batch's changes of rows: `c db.t {a: 1} -> {a: 2}`.
pub fn lines(batch: &Batch) -> Vec<String> {
    batch
        .changes
        .iter()
        .filter(|c| batch.tables[c.table as usize].kind == TableKind::Table)
        .map(|c| {
            let schema = &batch.tables[c.table as usize];
            let chunk = batch.chunk(c);
            let mut out = format!("{} {}", c.op.letter(), schema.id);
            for span in [c.before, c.after] {
                out.push(' ');
                image(batch, span, chunk, schema, &mut out);
            }
            out
        })
        .collect()
}

fn image(batch: &Batch, span: Span, chunk: &[u8], schema: &seachange_sdk::TableSchema, out: &mut String) {
    if !span.is_some() {
        out.push('-');
        return;
    }
    out.push('{');
    for (i, (cell, column)) in batch.image(span).iter().zip(&schema.columns).enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        let key = if schema.key.contains(&(i as u32)) { "*" } else { "" };
        write!(out, "{}{key}: ", column.name).unwrap();
        match *cell {
            Cell::NULL => out.push_str("NULL"),
            Cell::ABSENT => out.push_str("absent"),
            Cell::UNAVAILABLE => out.push_str("unavailable"),
            cell => show(&column.decode.value(cell.bytes(chunk).unwrap()).unwrap(), out),
        }
    }
    out.push('}');
}

/// A value as text.
pub fn show(v: &Value<'_>, out: &mut String) {
    struct List<'a>(&'a mut String);
    impl Visitor for List<'_> {
        fn begin_list(&mut self) -> seachange_sdk::Result<()> {
            self.0.push('[');
            Ok(())
        }
        fn end_list(&mut self) -> seachange_sdk::Result<()> {
            self.0.push(']');
            Ok(())
        }
        fn begin_map(&mut self) -> seachange_sdk::Result<()> {
            Ok(())
        }
        fn end_map(&mut self) -> seachange_sdk::Result<()> {
            Ok(())
        }
        fn key(&mut self, _: &str) -> seachange_sdk::Result<()> {
            Ok(())
        }
        fn value(&mut self, v: Value<'_>) -> seachange_sdk::Result<()> {
            show(&v, self.0);
            self.0.push(' ');
            Ok(())
        }
    }
    match v {
        Value::Text(s) => write!(out, "{s:?}").unwrap(),
        Value::Bytes(b) => {
            out.push('x');
            b.iter().fold((), |(), b| write!(out, "{b:02x}").unwrap())
        }
        Value::Geometry(srid, b) => {
            write!(out, "{srid:?}:").unwrap();
            b.iter().for_each(|b| write!(out, "{b:02x}").unwrap());
        }
        Value::Nested(n @ Nested { .. }) => n.walk(&mut List(out)).unwrap(),
        other => write!(out, "{other:?}").unwrap(),
    }
}

/// The error with which a stream ends.
pub async fn fails(server: &Server, name: &str, script: &str) -> seachange_sdk::Error {
    let db = server.database(name).await;
    let mut stream = server.open(&[&format!("{db}.*")], None).await;
    server.script(&db, script).await;
    let end = async {
        loop {
            stream.batch.clear();
            if let Err(e) = stream.source.fill(&mut stream.batch, LIMIT).await {
                return e;
            }
        }
    };
    tokio::time::timeout(DEADLINE, end).await.expect("the stream goes on")
}

pub mod both;

//! Has a table been altered between the place where the stream is and the log's end?
//!
//! Where the log does not name columns (`binlog_row_metadata` below FULL) they come from the catalog, which knows only the
//! present. Its answer is right for an older place if no statement between that place and the log's end has touched the
//! table. A statement is in the log before the catalog shows it, so a log's end that is read after the catalog covers
//! everything that the catalog can have seen.
//!
//! So the statements in between are read on a connection of their own, once: what has been read is kept, and only what came
//! since is read for the next table.

use crate::{
    assembler::Need,
    config::Config,
    conn::{From, Link},
    event::{self, Checksum, Format, Header, kind},
    payload,
    position::Place,
    statement::{self, Named, Statement},
};
use bytes::Bytes;
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::time::Duration;

/// Statements that may have changed tables, by the place behind them.
#[derive(Default)]
pub struct Lookahead {
    upto: Option<Place>,
    statements: Vec<(Place, Touched)>,
}

enum Touched {
    Any,
    Database(String),
    Table(String, String),
}

/// The error of a table that cannot be described for this place any more.
pub fn moved_on(need: &Need, from: &Place, at: &Place) -> Error {
    Error::new(
        Kind::Schema,
        Side::Source,
        Retry::Operator,
        format!(
            "table {}.{}: the log does not name its columns, and it was altered at {at}, behind {from} where the stream is: the \
             catalog no longer knows what they were",
            need.database, need.table
        ),
    )
    .fix(
        "SET GLOBAL binlog_row_metadata = 'FULL' puts columns into the log from then on; what is in the log already can only be had \
         by a new snapshot: start the pipeline under a new name",
    )
}

impl Lookahead {
    /// The first place behind `from` at which a table may have been changed.
    pub fn changed(&self, from: &Place, database: &str, table: &str) -> Option<&Place> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        self.statements
            .iter()
            .find(|(at, what)| {
                at > from
                    && match what {
                        Touched::Any => true,
                        Touched::Database(d) => same(d, database),
                        Touched::Table(d, t) => same(d, database) && same(t, table),
                    }
            })
            .map(|(at, _)| at)
    }

    /// Reads the statements between two places. `from` must be the beginning of an event.
    pub async fn read(&mut self, config: &Config, from: &Place, end: &Place) -> Result<()> {
        self.statements.retain(|(at, _)| at > from);
        let from = match &self.upto {
            Some(upto) if upto > from => upto.clone(),
            _ => from.clone(),
        };
        if from >= *end {
            return Ok(());
        }
        let begun = std::time::Instant::now();
        let mut config = config.clone();
        // Another number, so that the server does not take this for the stream itself and end that.
        config.server_id = config.server_id.wrapping_add(0x1000_0000).max(1);
        let mut link = Link::connect(&config).await?;
        link.dump(&config, &From::Place(&from)).await?;
        let mut scan =
            Scan { file: from.file.clone(), at: 4, from: from.offset, checksum: Checksum::Off, found: Vec::new() };
        loop {
            while let Some(packet) = link.buffered()? {
                let event = link.event(packet)?;
                scan.event(&event)?;
                let here = Place { file: scan.file.clone(), offset: scan.at };
                if here >= *end {
                    self.statements.append(&mut scan.found);
                    self.upto = Some(here.clone());
                    link.close().await;
                    if begun.elapsed() > Duration::from_secs(1) {
                        tracing::info!(to = %here, took_ms = begun.elapsed().as_millis() as u64, "read ahead for altered tables");
                    }
                    return Ok(());
                }
            }
            link.read().await?;
        }
    }
}

struct Scan {
    file: String,
    at: u64,
    /// Where to begin in the first file, when the server was asked for its beginning.
    from: u64,
    checksum: Checksum,
    found: Vec<(Place, Touched)>,
}

impl Scan {
    fn event(&mut self, event: &Bytes) -> Result<()> {
        let header = Header::parse(event)?;
        match header.kind {
            kind::FORMAT_DESCRIPTION => {
                self.checksum = Format::parse(event, &header)?.checksum;
                return Ok(());
            }
            kind::ROTATE => {
                let rotate = event::Rotate::parse(event::body_guessed(event, &header)?)?;
                if rotate.file != self.file {
                    self.from = 0;
                }
                self.file = rotate.file;
                self.at = rotate.position;
                return Ok(());
            }
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => return Ok(()),
            _ => {}
        }
        if header.artificial() {
            return Ok(());
        }
        self.at = event::end_of(self.at, &header);
        if self.at <= self.from {
            return Ok(());
        }
        let at = Place { file: self.file.clone(), offset: self.at };
        // Compressed transactions hold rows only: DDL is never compressed.
        if matches!(header.kind, kind::QUERY | kind::QUERY_COMPRESSED) {
            let body = event::body(event, &header, self.checksum)?;
            self.statement(header.kind, body, &at)?;
        }
        Ok(())
    }

    fn statement(&mut self, event: u8, body: &[u8], at: &Place) -> Result<()> {
        let q = event::Query::parse(body)?;
        let unpacked;
        let text = if event == kind::QUERY_COMPRESSED {
            unpacked = payload::unpack_mariadb(q.text, 1 << 30)?;
            &unpacked[..]
        } else {
            q.text
        };
        if text == b"BEGIN" || text == b"COMMIT" {
            return Ok(());
        }
        let status = q.status();
        let database = || String::from_utf8_lossy(q.database).into_owned();
        let named = |n: Named| Touched::Table(n.database.unwrap_or_else(database), n.table);
        match statement::read(text, status.ansi_quotes(), status.no_backslash_escapes()) {
            Statement::Tables { tables, .. } if tables.is_empty() => self.found.push((at.clone(), Touched::Any)),
            Statement::Tables { tables, .. } => {
                self.found.extend(tables.into_iter().map(|t| (at.clone(), named(t))));
            }
            Statement::DropDatabase(d) => self.found.push((at.clone(), Touched::Database(d))),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn at(offset: u64) -> Place {
        Place { file: "b.000002".into(), offset }
    }
    #[test]
    fn only_what_lies_behind_counts() {
        let l = Lookahead {
            upto: None,
            statements: vec![
                (at(10), Touched::Table("d".into(), "t".into())),
                (at(20), Touched::Database("e".into())),
                (at(30), Touched::Any),
            ],
        };
        assert_eq!(l.changed(&at(5), "d", "t"), Some(&at(10)));
        assert_eq!(l.changed(&at(10), "d", "T"), Some(&at(30)));
        assert_eq!(l.changed(&at(5), "e", "x"), Some(&at(20)));
        assert_eq!(l.changed(&at(30), "d", "t"), None);
        assert_eq!(l.changed(&Place { file: "b.000010".into(), offset: 4 }, "d", "t"), None);
    }
    #[test]
    fn statements_are_found() {
        let mut s = Scan { file: "b.000002".into(), at: 4, from: 0, checksum: Checksum::Off, found: vec![] };
        let body = |text: &str| [&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'd', 0][..], text.as_bytes()].concat();
        for text in
            ["BEGIN", "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD x int", "RENAME TABLE a TO e.b", "DROP DATABASE f"]
        {
            s.statement(kind::QUERY, &body(text), &at(9)).unwrap();
        }
        let l = Lookahead { upto: None, statements: s.found };
        let hit = |d: &str, t: &str| l.changed(&at(4), d, t).is_some();
        assert!(hit("d", "t") && hit("d", "a") && hit("e", "b") && hit("f", "any") && !hit("d", "b") && !hit("e", "t"));
    }
}

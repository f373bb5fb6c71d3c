//! What becomes of a table between the place where the stream is and the log's end?
//!
//! The catalog knows only the present. Its answer is right for an older place if no statement between that place and the
//! log's end has touched the table's columns; if one has, [`crate::history`] works back from it. A statement is in the log
//! before the catalog shows it, so a log's end that is read after the catalog covers everything that the catalog can have seen.
//!
//! So the statements in between are read on a connection of their own, once: what has been read is kept, and only what came
//! since is read for the next table.

use crate::{
    charset::Collations,
    config::Config,
    conn::{From, Link},
    event::{self, Checksum, Format, Header, kind},
    history::{Draft, Folding, Name},
    payload,
    position::Place,
    statement::{
        self, Statement,
        alter::{Like, What},
    },
};
use bytes::Bytes;
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::time::Duration;

/// Statements that may have changed tables, by the place behind them.
pub struct Lookahead {
    folding: Folding,
    collations: Collations,
    upto: Option<Place>,
    statements: Vec<(Place, Touched)>,
}

enum Touched {
    Any,
    Database(String),
    Table(Name, What),
}

/// What has become of a table by the log's end.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its name there; `None`: it is gone, or it cannot be told.
    pub name: Option<Name>,
    /// Its columns there.
    pub draft: Draft,
    /// The first statement that touched its columns, or ended it.
    pub changed: Option<Place>,
}

/// The error of a table whose columns at this place cannot be told any more.
pub fn moved_on(database: &str, table: &str, from: &Place, at: &Place) -> Error {
    Error::new(
        Kind::Schema,
        Side::Source,
        Retry::Operator,
        format!(
            "table {database}.{table}: the log does not name its columns, and it was altered at {at}, behind {from} where the \
             stream is: what they were can no longer be told"
        ),
    )
    .fix(
        "SET GLOBAL binlog_row_metadata = 'FULL' puts columns into the log from then on; what is in the log already can only be had \
         by a new snapshot: seachange state reset, or start the pipeline under a new name",
    )
}

impl Lookahead {
    /// Nothing read yet.
    pub fn new(folding: Folding, collations: Collations) -> Lookahead {
        Lookahead { folding, collations, upto: None, statements: Vec::new() }
    }

    /// What becomes of a table behind `from`, where its columns are those of `draft`.
    pub fn follow(&self, from: &Place, table: &Name, draft: &Draft) -> Followed {
        let mut f = Followed { name: Some(table.clone()), draft: draft.clone(), changed: None };
        for (at, touched) in self.statements.iter().filter(|(at, _)| at > from) {
            let Some(name) = &f.name else { break };
            let ended = match touched {
                Touched::Any => true,
                Touched::Database(d) if *d != name.0 => continue,
                Touched::Database(_) => true,
                Touched::Table(t, _) if t != name => continue,
                Touched::Table(_, what) => match what {
                    What::Created { if_missing: true, .. } => continue,
                    What::Created { .. } | What::Dropped => true,
                    What::Renamed(to) => {
                        f.name = Some(self.folding.named(to, &name.0));
                        continue;
                    }
                    What::Altered(clauses) if clauses.is_empty() => continue,
                    What::Altered(clauses) => {
                        f.draft.apply(clauses);
                        false
                    }
                    What::Unknown => {
                        f.draft = Draft::unknown();
                        false
                    }
                },
            };
            f.changed.get_or_insert_with(|| at.clone());
            if ended {
                f.name = None;
            }
        }
        f
    }

    /// Statements known.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
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
        let mut scan = Scan {
            file: from.file.clone(),
            at: 4,
            from: from.offset,
            checksum: Checksum::Off,
            folding: self.folding,
            collations: &self.collations,
            found: Vec::new(),
        };
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

struct Scan<'a> {
    folding: Folding,
    collations: &'a Collations,
    file: String,
    at: u64,
    /// Where to begin in the first file, when the server was asked for its beginning.
    from: u64,
    checksum: Checksum,
    found: Vec<(Place, Touched)>,
}

impl Scan<'_> {
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
        let database = String::from_utf8_lossy(q.database);
        let text = statement::text(text, &status, self.collations);
        match statement::read(&text, status.ansi_quotes(), status.no_backslash_escapes()) {
            Statement::Tables { changes, .. } if changes.is_empty() => self.found.push((at.clone(), Touched::Any)),
            Statement::Tables { changes, .. } => {
                for (named, mut what) in changes {
                    // A name without a database is one of the session's, wherever the table is later.
                    if let What::Renamed(to) | What::Created { like: Like::Table(to), .. } = &mut what {
                        to.database.get_or_insert_with(|| database.clone().into_owned());
                    }
                    self.found.push((at.clone(), Touched::Table(self.folding.named(&named, &database), what)));
                }
            }
            Statement::DropDatabase(d) => self.found.push((at.clone(), Touched::Database(self.folding.name(&d)))),
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
    fn name(t: &str) -> Name {
        ("d".into(), t.into())
    }
    fn scanned(statements: &[&str]) -> Lookahead {
        let collations = Collations::default();
        let mut s = Scan {
            file: "b.000002".into(),
            at: 4,
            from: 0,
            checksum: Checksum::Off,
            folding: Folding(false),
            collations: &collations,
            found: vec![],
        };
        let body = |text: &str| [&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'd', 0][..], text.as_bytes()].concat();
        for (i, text) in statements.iter().enumerate() {
            s.statement(kind::QUERY, &body(text), &at(10 * (i as u64 + 1))).unwrap();
        }
        let statements = s.found;
        Lookahead { statements, ..Lookahead::new(Folding(false), Collations::default()) }
    }
    fn followed(l: &Lookahead, from: u64, table: &str) -> (Option<String>, Option<u64>) {
        let f = l.follow(&at(from), &name(table), &Draft::unknown());
        (f.name.map(|n| format!("{}.{}", n.0, n.1)), f.changed.map(|p| p.offset))
    }
    #[test]
    fn only_what_lies_behind_counts() {
        let l =
            scanned(&["BEGIN", "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD x int", "ALTER TABLE u ENGINE=InnoDB"]);
        assert_eq!(followed(&l, 5, "t"), (Some("d.t".into()), Some(30)));
        assert_eq!(followed(&l, 30, "t"), (Some("d.t".into()), None));
        assert_eq!(followed(&l, 5, "T"), (Some("d.T".into()), None));
        assert_eq!(followed(&l, 5, "u"), (Some("d.u".into()), None));
        let far = l.follow(&Place { file: "b.000010".into(), offset: 4 }, &name("t"), &Draft::unknown());
        assert_eq!(far.changed, None);
    }
    #[test]
    fn names_are_followed_and_ends_found() {
        let l = scanned(&[
            "RENAME TABLE a TO e._a_del, _a_gho TO a",
            "ALTER TABLE a RENAME b",
            "CREATE TABLE IF NOT EXISTS b LIKE z",
            "DROP TABLE e._a_del",
            "CREATE INDEX i ON b (x)",
        ]);
        assert_eq!(followed(&l, 4, "_a_gho"), (Some("d.b".into()), None));
        assert_eq!(followed(&l, 4, "a"), (None, Some(40)));
        assert_eq!(followed(&scanned(&["DROP DATABASE d"]), 4, "any"), (None, Some(10)));
        assert_eq!(followed(&scanned(&["DROP DATABASE other"]), 4, "any"), (Some("d.any".into()), None));
        let exchanged = scanned(&["ALTER TABLE p EXCHANGE PARTITION x WITH TABLE q"]);
        for table in ["p", "q", "any"] {
            assert_eq!(followed(&exchanged, 4, table), (Some(format!("d.{table}")), None));
        }
        assert_eq!(followed(&scanned(&["DROP TABLE 'what'"]), 4, "any"), (None, Some(10)));
    }
}

//! Statements of the log: ends of transactions, rollbacks, tables that change, and rows that are not there.

use super::{Assembler, EVENT_MOST, Id, Mark, Need, Taken, Why, count_table, ddl::Became, names_of, stop};
use crate::{
    event::{self, Header, kind},
    flavor::Flavor,
    history::{Effect, Name},
    payload,
    position::Place,
    statement::{self, Named, Statement, alter::What},
};
use seachange_sdk::{Batch, Error, Kind, Limit, Result};
use std::collections::BTreeSet;

impl Assembler {
    pub(super) fn query(
        &mut self,
        header: &Header,
        body: &[u8],
        start: u64,
        end: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        let q = event::Query::parse(body)?;
        let unpacked;
        let text = if header.kind == kind::QUERY_COMPRESSED {
            unpacked = payload::unpack_mariadb(q.text, EVENT_MOST)?;
            &unpacked[..]
        } else {
            q.text
        };
        let status = match text {
            b"BEGIN" | b"COMMIT" => event::Status::default(),
            _ => q.status(),
        };
        let text = statement::text(text, &status, &self.collations);
        let what = statement::read(&text, status.ansi_quotes(), status.no_backslash_escapes());
        let alone = self.group.is_none();
        if alone {
            // no GTID event before it: servers that do not write them
            self.begin(Id::None, None, start, i64::from(header.timestamp) * 1_000_000, header.server_id, false, batch)?;
        }
        let Some(group) = &mut self.group else { return Err(Error::bug("no group")) };
        // MariaDB's number is that of a connection too, but its transactions have no statement to carry it.
        if self.flavor == Flavor::MySql {
            group.thread = Some(u64::from(q.thread));
        }
        let begun = group.begun;
        let (skip, resumed) = (group.skip, group.resumed);
        let database = || String::from_utf8_lossy(q.database).into_owned();
        match what {
            Statement::Begin => {
                group.begun = true;
                return Ok(Taken::Done);
            }
            Statement::Commit => return self.end(end, batch, limit),
            Statement::Rollback => {
                let mark = group.begin;
                self.roll_back(mark, start, batch)?;
                return self.end(end, batch, limit);
            }
            Statement::Savepoint(name) => {
                let mark = Mark { changes: batch.changes.len(), cells: batch.cells.len(), order: group.order };
                group.savepoints.push((name, mark));
                return Ok(Taken::Done);
            }
            Statement::RollbackTo(name) => {
                if group.order == 0 || group.skip {
                    return Ok(Taken::Done);
                }
                let mark = group.savepoints.iter().rev().find(|s| s.0 == name).map(|s| s.1);
                let Some(mark) = mark else { return Err(self.cannot_roll_back(start)) };
                return self.roll_back(mark, start, batch).map(|()| Taken::Done);
            }
            Statement::XaStart => {
                group.begun = true;
                group.aside.get_or_insert_default();
                return Ok(Taken::Done);
            }
            Statement::XaEnd => return Ok(Taken::Done),
            Statement::XaCommit(name) => return self.xa_commit(&name, start, end, batch, limit),
            Statement::XaRollback(name) => {
                let Some(p) = self.prepared.remove(&name) else { return self.end(end, batch, limit) };
                self.note(&p.id);
                return self.end(end, batch, limit);
            }
            Statement::Tables { changes, rows_follow, unlogged } => {
                let db = database();
                // What was delivered before is in the history already, and so is what stands before rows that were.
                let mut became = Vec::new();
                if !skip && !resumed {
                    let taken = self.altered(&changes, &db, end, &mut became)?;
                    if taken != Taken::Done {
                        if alone {
                            self.group = None;
                        }
                        return Ok(taken);
                    }
                }
                self.changed(&changes, &db);
                if self.concerns(&changes, &db) {
                    if let Some(clause) = unlogged.filter(|_| !skip) {
                        self.warn_of_unlogged(clause, &changes, &db, start);
                    }
                    self.tell(&text, &db, &became, start, batch);
                }
                if rows_follow {
                    if let Some(g) = &mut self.group {
                        g.begun = true;
                    }
                    return Ok(Taken::Done);
                }
            }
            Statement::DropDatabase(name) => {
                for (key, known) in &mut self.known {
                    known.stale |= names_of(key).is_some_and(|(db, _)| db.eq_ignore_ascii_case(name.as_bytes()));
                }
                let concerns = self.selection.schema(&name);
                let mut became = Vec::new();
                if !skip {
                    let gone = self.history.drop_database(&name).into_iter();
                    let captured = gone.filter(|n| self.selection.table(&n.0, &n.1));
                    became.extend(captured.map(|name| Became { name, how: "DROP", table: None }));
                }
                if concerns {
                    self.tell(&text, &name, &became, start, batch);
                }
            }
            Statement::Truncate(named) => {
                let db = named.database.unwrap_or_else(database);
                if !skip && self.selection.table(&db, &named.table) {
                    let taken = self.truncate(&db, &named.table, start, batch)?;
                    if taken != Taken::Done {
                        // The event comes again: what it began must not be there twice.
                        if alone {
                            self.group = None;
                        }
                        return Ok(taken);
                    }
                }
            }
            Statement::Rows => {
                if !skip && q.error == 0 {
                    let written = status.databases.or(None);
                    self.statement_rows(written.as_deref(), start)?;
                }
            }
            Statement::Other => {}
        }
        if begun { Ok(Taken::Done) } else { self.end(end, batch, limit) }
    }

    /// Rows were changed by a statement: harmless only if the log names the databases and none can be captured.
    pub(super) fn statement_rows(&self, databases: Option<&[String]>, start: u64) -> Result<Taken> {
        if databases.is_some_and(|d| !d.iter().any(|d| self.selection.schema(d))) {
            return Ok(Taken::Done);
        }
        Err(stop(
            Kind::Schema,
            format!(
                "at {}:{start} rows were changed by a statement that is in the log as text, not as rows",
                self.file
            ),
            "SET GLOBAL binlog_format = 'ROW' and let all sessions reconnect; what the statement changed can only be had by a new \
             snapshot: start the pipeline under a new name",
        ))
    }

    /// Rows of a captured table came or went that are nowhere in the log. Its columns stay, and later changes of it are
    /// followed: but what Kafka has of the table is no longer what the table has.
    fn warn_of_unlogged(&self, clause: &str, changes: &[(Named, What)], database: &str, start: u64) {
        let folding = self.history.folding();
        let captured: BTreeSet<String> = changes
            .iter()
            .map(|(n, _)| folding.named(n, database))
            .filter(|(database, table)| self.selection.table(database, table))
            .map(|(database, table)| format!("{database}.{table}"))
            .collect();
        tracing::warn!(
            at = format_args!("{}:{start}", self.file),
            tables = captured.into_iter().collect::<Vec<_>>().join(", "),
            fix = "whoever keeps a copy of these tables must correct it by hand, or take a new one: a snapshot under another pipeline name reads them whole",
            "{clause}: rows of captured tables came or went that are nowhere in the log, so no record tells of them"
        );
    }

    /// Does a statement name a captured table?
    fn concerns(&self, changes: &[(Named, What)], database: &str) -> bool {
        let folding = self.history.folding();
        let captured = |n: &Named| {
            let (database, table) = folding.named(n, database);
            self.selection.table(&database, &table)
        };
        changes.iter().any(|(named, what)| {
            let to = if let What::Renamed(to) = what { Some(to) } else { None };
            captured(named) || to.is_some_and(captured)
        })
    }

    /// Applies a statement to the history; says what became of captured tables. `end`: where it ends.
    fn altered(
        &mut self,
        changes: &[(Named, What)],
        database: &str,
        end: u64,
        became: &mut Vec<Became>,
    ) -> Result<Taken> {
        if changes.is_empty() {
            self.history.forget();
            return Ok(Taken::Done);
        }
        let selection = &self.selection;
        let captured = |name: &Name| selection.table(&name.0, &name.1);
        let effects = self.history.effects(changes, database, captured)?;
        for e in &effects {
            let Some(draft) = &e.draft else { continue };
            if draft.known().is_none() && self.answer(&e.name).is_none() {
                let at = Place { file: self.file.to_string(), offset: end };
                let why = Why::After { at, draft: draft.clone() };
                let (database, table) = e.name.clone();
                return Ok(Taken::NeedTable(Box::new(Need { database, table, why })));
            }
        }
        for Effect { name, draft } in effects {
            let there = draft.is_some();
            let known = draft.and_then(|d| d.known().or_else(|| self.answer(&name).cloned().flatten()));
            self.history.set(name.clone(), known.as_ref());
            if self.selection.table(&name.0, &name.1) {
                let folding = self.history.folding();
                let made = |(n, what): &(Named, What)| {
                    matches!(what, What::Created { .. }) && folding.named(n, database) == name
                };
                let how = match there {
                    false => "DROP",
                    true if changes.iter().any(made) => "CREATE",
                    true => "ALTER",
                };
                became.push(Became { name, how, table: known });
            }
        }
        Ok(Taken::Done)
    }

    fn changed(&mut self, changes: &[(Named, What)], database: &str) {
        if changes.is_empty() {
            self.known.values_mut().for_each(|k| k.stale = true);
        }
        for (named, what) in changes {
            let to = if let What::Renamed(to) = what { Some(to) } else { None };
            for t in std::iter::once(named).chain(to) {
                let db = t.database.as_deref().unwrap_or(database);
                for (key, known) in &mut self.known {
                    // names are compared without regard to case: a server may fold them
                    let same = names_of(key).is_some_and(|(d, n)| {
                        d.eq_ignore_ascii_case(db.as_bytes()) && n.eq_ignore_ascii_case(t.table.as_bytes())
                    });
                    known.stale |= same;
                }
            }
        }
    }

    pub(super) fn cannot_roll_back(&self, start: u64) -> Error {
        stop(
            Kind::Protocol,
            format!("at {}:{start} rows that were delivered already are rolled back", self.file),
            "raise txn_bytes_max so that the transaction is delivered whole, and start the pipeline again",
        )
    }

    pub(super) fn roll_back(&mut self, mark: Mark, start: u64, batch: &mut Batch) -> Result<()> {
        let refused = self.cannot_roll_back(start);
        let Some(group) = &mut self.group else { return Ok(()) };
        if group.skip || group.order == mark.order {
            return Ok(());
        }
        if group.delivered {
            return Err(refused);
        }
        batch.changes.truncate(mark.changes);
        batch.cells.truncate(mark.cells);
        group.order = mark.order;
        group.tables.clear();
        for c in batch.changes.iter().filter(|c| Some(c.txn) == group.txn) {
            if let Some(schema) = batch.tables.get(c.table as usize) {
                count_table(&mut group.tables, schema);
            }
        }
        if mark.order == 0 && group.txn.is_some() {
            batch.txns.pop();
            group.txn = None;
        }
        Ok(())
    }
}

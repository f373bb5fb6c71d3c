//! TABLE_MAP and rows events: tables are bound, rows become changes.

use super::{Assembler, EVENT_MOST, Entry, Known, Need, Taken, Why, names_of, stop};
use crate::{
    columns::{Binder, Bound},
    event::{Header, kind},
    flavor::Flavor,
    jsonb, payload,
    rows::{self, Rows},
    table_map::{self, TableMap},
    wire::malformed,
};
use bytes::Bytes;
use seachange_sdk::{Batch, Cell, Change, Error, Kind, Limit, Op, Result, Span};
use std::sync::Arc;

impl Assembler {
    pub(super) fn truncate(&mut self, database: &str, table: &str, start: u64, batch: &mut Batch) -> Result<Taken> {
        let found = self
            .known
            .iter()
            .find(|(key, k)| !k.stale && names_of(key) == Some((database.as_bytes(), table.as_bytes())));
        let bound = match found.map(|(_, k)| k.entry.clone()) {
            Some(Entry::Captured(b)) => b,
            _ => {
                let name = self.history.folding().table(database, table);
                let described = match (self.history.get(database, table)?, self.answer(&name)) {
                    (Some(known), _) => known,
                    (None, Some(Some(answer))) => answer.clone(),
                    (None, Some(None)) => {
                        tracing::warn!(
                            database,
                            table,
                            "a table that was emptied is no longer there: the event is left out"
                        );
                        return Ok(Taken::Done);
                    }
                    (None, None) => return Ok(need(database, table, Why::Hints)),
                };
                self.version += 1;
                let binder = Binder { collations: &self.collations, selection: &self.selection, layout: &self.layout };
                Arc::new(binder.bind_catalog(database, table, &described, self.version)?)
            }
        };
        let index = batch.table_index(&bound.schema);
        batch.chunks.push(Bytes::new());
        let chunk = (batch.chunks.len() - 1) as u32;
        let at = start;
        if let Some((txn, order, table_order)) = self.count(&bound.schema, batch) {
            // It matters for every row of the table whether a snapshot saw it.
            if let Some(g) = &mut self.group {
                g.absent = true;
            }
            batch.changes.push(Change {
                op: Op::Truncate,
                table: index,
                chunk,
                before: Span::NONE,
                after: Span::NONE,
                txn,
                at,
                row: 0,
                order,
                table_order,
            });
        }
        Ok(Taken::Done)
    }

    pub(super) fn table_or_rows(
        &mut self,
        event: &Bytes,
        header: &Header,
        range: std::ops::Range<usize>,
        start: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        if header.kind == kind::TABLE_MAP {
            let body = event.get(range).ok_or_else(|| malformed("a TABLE_MAP without a body"))?;
            return self.table_map(body);
        }
        self.rows(event, header, range, start, batch, limit).map(|()| Taken::Done)
    }

    pub(super) fn table_map(&mut self, body: &[u8]) -> Result<Taken> {
        let id = table_map::id(body)?;
        let (database, table, identity) = table_map::identity(body)?;
        let key = identity.get(..database.len() + table.len() + 3).unwrap_or(identity);
        if let Some(k) = self.known.get(key).filter(|k| !k.stale && k.identity == identity) {
            let entry = k.entry.clone();
            self.map_id(id, entry);
            return Ok(Taken::Done);
        }
        let name = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let (database, table) = (name(database), name(table));
        let entry = if self.selection.table(&database, &table) {
            let map = TableMap::parse(body)?;
            let name = self.history.folding().table(&database, &table);
            let told = map.optional.names.is_some();
            let answer = self.answer(&name).cloned();
            let asked = answer.is_some();
            let described = match answer {
                Some(answer) => answer,
                None => self.history.get(&database, &table)?,
            };
            // MariaDB's log does not say that a text is JSON or that bytes are a UUID, however much it says.
            let why = if told { Why::Hints } else { Why::Columns };
            if described.is_none() && !asked && (!told || self.flavor == Flavor::MariaDb) {
                return Ok(need(&database, &table, why));
            }
            self.version += 1;
            let binder = Binder { collations: &self.collations, selection: &self.selection, layout: &self.layout };
            let bound = match binder.bind(&map, described.as_ref(), self.version) {
                // Columns that the log contradicts were changed by a statement that is not in the log.
                Err(_) if !told && !asked => {
                    tracing::warn!(database, table, "the log has other columns than were known; the catalog is asked");
                    return Ok(need(&database, &table, why));
                }
                bound => bound?,
            };
            if asked && !told && described.is_some() {
                self.history.set(name, described.as_ref());
            }
            tracing::debug!(
                database,
                table,
                version = self.version,
                columns = bound.schema.columns.len(),
                "table bound"
            );
            Entry::Captured(Arc::new(bound))
        } else {
            Entry::Passed
        };
        self.known.insert(key.into(), Known { identity: identity.to_vec(), entry: entry.clone(), stale: false });
        self.map_id(id, entry);
        Ok(Taken::Done)
    }

    pub(super) fn map_id(&mut self, id: u64, entry: Entry) {
        match self.maps.iter_mut().find(|m| m.0 == id) {
            Some(m) => m.1 = entry,
            None => self.maps.push((id, entry)),
        }
    }

    pub(super) fn rows(
        &mut self,
        event: &Bytes,
        header: &Header,
        range: std::ops::Range<usize>,
        start: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<()> {
        let Some(sort) = rows::sort(header.kind) else { return Err(Error::bug("no rows event")) };
        let body = event.get(range.clone()).ok_or_else(|| malformed("a rows event without a body"))?;
        let short = self.format.as_ref().is_some_and(|f| f.post_header(header.kind) == 6);
        let parsed = Rows::parse(body, sort, short)?;
        let bound = match self.maps.iter().rev().find(|m| m.0 == parsed.table) {
            Some((_, Entry::Passed)) => return Ok(()),
            Some((_, Entry::Captured(b))) => b.clone(),
            // MySQL writes a dummy event under this number when no table is left
            None if parsed.table == 0xff_ffff && parsed.data.is_empty() => return Ok(()),
            None => return Err(malformed(format!("at {}:{start} rows of a table that was not named", self.file))),
        };
        if parsed.columns != bound.layout.columns() {
            return Err(malformed(format!(
                "at {}:{start} rows of {} columns for table {}, which has {}",
                self.file,
                parsed.columns,
                bound.schema.id,
                bound.layout.columns()
            )));
        }
        // Where the cells' bytes are: the event itself, or what it unpacks to, or a copy that applied differences are added to.
        let unpacked = if sort.packed { Some(payload::unpack_mariadb(parsed.data, EVENT_MOST)?) } else { None };
        let mut copy = if sort.partial { Some(event.to_vec()) } else { None };
        let (data, base) = match &unpacked {
            Some(u) => (&u[..], 0),
            None => (parsed.data, range.end - parsed.data.len()),
        };
        let table = batch.table_index(&bound.schema);
        let chunk = batch.chunks.len() as u32;
        let mut at = 0;
        let mut row = 0u32;
        let mut diffs = Vec::new();
        let mut used = false;
        while at < data.len() {
            let begin = at;
            let first = batch.cells.len();
            at = bound.layout.image(data, at, base, parsed.before, &mut batch.cells)?;
            let width = bound.layout.captured() as u32;
            let one = Span { start: first as u32, len: width };
            let (before, after) = match sort.op {
                Op::Update => {
                    let second = Span { start: one.start + width, len: width };
                    if sort.partial {
                        diffs.clear();
                        at = bound.layout.partial_image(data, at, base, parsed.after, &mut batch.cells, &mut diffs)?;
                        if let Some(copy) = &mut copy {
                            self.apply(&diffs, one, second, copy, batch, &bound, start)?;
                        }
                    } else {
                        at = bound.layout.image(data, at, base, parsed.after, &mut batch.cells)?;
                    }
                    (one, second)
                }
                Op::Delete => (one, Span::NONE),
                _ => (Span::NONE, one),
            };
            if at == begin {
                return Err(malformed(format!("at {}:{start} rows of no bytes", self.file)));
            }
            if at - begin > limit.row_bytes {
                return Err(stop(
                    Kind::Limit,
                    format!(
                        "a row of table {} has {} bytes, the limit is {}",
                        bound.schema.id,
                        at - begin,
                        limit.row_bytes
                    ),
                    "raise row_bytes_max, or leave the table or its large column out",
                ));
            }
            // Rows without a key cannot be merged by key: for them, too, it matters what a snapshot saw.
            let absent = complete(batch, before, after) || bound.schema.key.is_empty();
            match self.count(&bound.schema, batch) {
                None => batch.cells.truncate(first),
                Some((txn, order, table_order)) => {
                    if absent && let Some(g) = &mut self.group {
                        g.absent = true;
                    }
                    used = true;
                    batch.bytes += at - begin;
                    batch.changes.push(Change {
                        op: sort.op,
                        table,
                        chunk,
                        before,
                        after,
                        txn,
                        at: start,
                        row,
                        order,
                        table_order,
                    });
                }
            }
            row += 1;
        }
        if used {
            batch.chunks.push(match (unpacked, copy) {
                (Some(u), _) => u.into(),
                (None, Some(c)) => c.into(),
                (None, None) => event.clone(),
            });
        }
        Ok(())
    }

    /// Applies the differences of a row's JSON columns to the old documents.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn apply(
        &mut self,
        diffs: &[u32],
        before: Span,
        after: Span,
        copy: &mut Vec<u8>,
        batch: &mut Batch,
        bound: &Bound,
        start: u64,
    ) -> Result<()> {
        for place in diffs {
            let cell = |span: Span| batch.cells.get((span.start + place) as usize).copied().unwrap_or(Cell::ABSENT);
            let (old, diff) = (cell(before), cell(after));
            let (Some(old), Some(diff)) = (old.bytes(copy), diff.bytes(copy)) else {
                return Err(stop(
                    Kind::Value,
                    format!(
                        "at {}:{start} a JSON column of table {} was changed in part, and the log does not hold its old document",
                        self.file, bound.schema.id
                    ),
                    "SET GLOBAL binlog_row_image = 'FULL' or SET GLOBAL binlog_row_value_options = ''; the row itself can only be had by a new snapshot",
                ));
            };
            self.scratch.clear();
            jsonb::apply(old, diff, &mut self.scratch).map_err(|e| e.at(&bound.schema.id))?;
            let new = Cell::at(copy.len() as u32, self.scratch.len() as u32);
            copy.extend_from_slice(self.scratch.as_bytes());
            if let Some(slot) = batch.cells.get_mut((after.start + place) as usize) {
                *slot = new;
            }
        }
        Ok(())
    }
}

fn need(database: &str, table: &str, why: Why) -> Taken {
    Taken::NeedTable(Box::new(Need { database: database.to_owned(), table: table.to_owned(), why }))
}

/// Completes a new image from the old one: what the log leaves out of it has not changed. What neither holds is
/// unavailable, and then the answer is true.
fn complete(batch: &mut Batch, before: Span, after: Span) -> bool {
    let mut absent = false;
    for i in 0..after.len {
        let at = (after.start + i) as usize;
        if batch.cells.get(at) != Some(&Cell::ABSENT) {
            continue;
        }
        let old = if before.is_some() { batch.cells.get((before.start + i) as usize).copied() } else { None };
        let new = match old {
            Some(c) if c != Cell::ABSENT => c,
            _ => {
                absent = true;
                Cell::UNAVAILABLE
            }
        };
        if let Some(slot) = batch.cells.get_mut(at) {
            *slot = new;
        }
    }
    absent
}

//! A plan: everything about one table's records that does not change from row to row, compiled once a schema.
//!
//! Constant bytes (field names, the opening with its `schema` block, the constant parts of `source`) and one [`Style`] a column.
//! The row path walks the columns in order and copies; it looks nothing up and allocates nothing.

use super::{
    json, schema,
    source::SourcePlan,
    topic::Template,
    values::{Scratch, Style},
};
use crate::{
    config::resolved::{Format, Values},
    records::Topic,
};
use seachange_sdk::{Cell, Decoder, Error, Result, TableId, TableKind, TableSchema};
use std::{ops::Range, sync::Arc};

/// Which object of a record a column stands in: for naming what was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The old row.
    Before,
    /// The new row.
    After,
    /// The record's key.
    Key,
}

impl Image {
    fn name(self) -> &'static [u8] {
        match self {
            Image::Before => b"before",
            Image::After => b"after",
            Image::Key => b"key",
        }
    }
}

/// Columns that a record leaves out although the row has them.
pub type Absent = Vec<(Image, u32)>;

struct PlannedColumn {
    /// `,"name":` in [`Plan::names`].
    name: Range<usize>,
    decode: Decoder,
    style: Style,
    /// What stands for an unavailable value.
    placeholder: Box<[u8]>,
}

/// One table's plan.
pub struct Plan {
    /// The schema it was compiled for; keeping it keeps its address, by which it is found.
    pub schema: Arc<TableSchema>,
    names: Vec<u8>,
    columns: Vec<PlannedColumn>,
    /// Before a value's payload; empty without schemas.
    pub value_open: Vec<u8>,
    /// Before a key's payload; empty without schemas.
    pub key_open: Vec<u8>,
    /// After either payload.
    pub close: &'static [u8],
    /// The `source` block.
    pub source: SourcePlan,
    /// Its topic's name.
    pub topic_name: String,
    /// Its topic in the arena of the current batch.
    pub topic: Topic,
    /// Leave out what the log does not carry (`plain`), or write null and placeholders (`debezium`).
    leave_out: bool,
    /// Changes since the counts were last taken, by operation.
    pub counts: [u64; 6],
    /// Bytes of keys, values and headers since then.
    pub bytes: u64,
    /// The last batch that used it.
    pub used: u64,
}

/// A column's fault, to be placed by the caller.
pub struct At(pub u32, pub Error);

impl Plan {
    /// Compiles the plan of a table. A change of rows is named after the table, a message after the pipeline alone.
    pub fn new(table: &Arc<TableSchema>, pipeline: &str, format: &Format, template: &Template) -> Result<Plan> {
        if let Some(i) = table.key.iter().find(|i| **i as usize >= table.columns.len()) {
            return Err(Error::bug(format!("table {}: key column {i} of {}", table.id, table.columns.len())));
        }
        if table.kind == TableKind::Message && table.columns.len() != 2 {
            return Err(Error::bug(format!("messages with {} columns instead of 2", table.columns.len())));
        }
        if table.kind == TableKind::Statement && table.columns.len() != 3 {
            return Err(Error::bug(format!("statements with {} columns instead of 3", table.columns.len())));
        }
        let topic_name = template.name(pipeline, &table.id);
        let mut names = Vec::new();
        let columns = table
            .columns
            .iter()
            .map(|c| {
                let from = names.len();
                names.push(b',');
                json::string(&mut names, &c.name);
                names.push(b':');
                PlannedColumn {
                    name: from..names.len(),
                    decode: c.decode.clone(),
                    style: Style::new(&c.ty, format),
                    placeholder: Style::placeholder(&c.ty, format).into(),
                }
            })
            .collect();
        let open = |schema: String| format!("{{\"schema\":{schema},\"payload\":").into_bytes();
        let (key_open, value_open) = match (format.schemas, table.kind) {
            (false, _) => (Vec::new(), Vec::new()),
            (true, TableKind::Table) => {
                (open(schema::key(table, format, &topic_name)), open(schema::envelope(table, format, &topic_name)))
            }
            (true, TableKind::Statement) => {
                (open(schema::statement_key(&table.layout)), open(schema::statement(&table.layout)))
            }
            (true, TableKind::Message) => {
                (open(schema::message_key(&table.layout)), open(schema::message(&table.layout, format)))
            }
        };
        Ok(Plan {
            schema: table.clone(),
            names,
            columns,
            value_open,
            key_open,
            close: if format.schemas { b"}" } else { b"" },
            source: SourcePlan::new(&table.layout, pipeline, &table.id),
            topic_name,
            topic: 0,
            leave_out: format.values == Values::Plain,
            counts: [0; 6],
            bytes: 0,
            used: 0,
        })
    }

    /// The table's name.
    pub fn id(&self) -> &TableId {
        &self.schema.id
    }

    /// Does the table have a key?
    pub fn has_key(&self) -> bool {
        !self.schema.key.is_empty()
    }

    /// Are all key cells there (a value or NULL)?
    pub fn key_is_there(&self, cells: &[Cell]) -> bool {
        self.schema.key.iter().all(|i| cells.get(*i as usize).is_some_and(|c| c.is_value() || *c == Cell::NULL))
    }

    /// Do the two images' key cells, as far as both are there, have the same bytes? Then the key is the same.
    pub fn key_bytes_equal(&self, a: &[Cell], b: &[Cell], chunk: &[u8]) -> bool {
        self.schema.key.iter().all(|i| {
            let (Some(a), Some(b)) = (a.get(*i as usize), b.get(*i as usize)) else { return true };
            let there = |c: &Cell| c.is_value() || *c == Cell::NULL;
            !there(a) || !there(b) || (*a == Cell::NULL) == (*b == Cell::NULL) && a.bytes(chunk) == b.bytes(chunk)
        })
    }

    #[inline]
    fn value(&self, out: &mut Vec<u8>, index: u32, cell: Cell, chunk: &[u8], scratch: &mut Scratch) -> Result<(), At> {
        let column = &self.columns[index as usize];
        let bytes = cell.bytes(chunk).ok_or_else(|| At(index, Error::bug("a cell outside its chunk")))?;
        let value = column.decode.value(bytes).map_err(|e| At(index, e))?;
        column.style.write(out, value, scratch).map_err(|e| At(index, e))
    }

    /// Writes a row as an object. `other` is the change's other image: where this one lacks a value that is the same in
    /// both (unchanged TOAST), it is taken from there.
    #[allow(clippy::too_many_arguments)]
    pub fn image(
        &self,
        out: &mut Vec<u8>,
        which: Image,
        cells: &[Cell],
        other: Option<&[Cell]>,
        chunk: &[u8],
        absent: &mut Absent,
        scratch: &mut Scratch,
    ) -> Result<(), At> {
        if cells.len() != self.columns.len() {
            let what = format!("a row of {} cells for {} columns", cells.len(), self.columns.len());
            return Err(At(u32::MAX, Error::bug(what)));
        }
        out.push(b'{');
        let mut first = true;
        for (index, (column, cell)) in (0u32..).zip(self.columns.iter().zip(cells)) {
            let mut cell = *cell;
            if cell == Cell::UNAVAILABLE {
                let elsewhere = other.and_then(|o| o.get(index as usize)).filter(|c| c.is_value());
                cell = elsewhere.copied().unwrap_or(cell);
            }
            if self.leave_out && (cell == Cell::UNAVAILABLE || cell == Cell::ABSENT) {
                absent.push((which, index));
                continue;
            }
            let name = &self.names[column.name.clone()];
            out.extend_from_slice(if std::mem::replace(&mut first, false) { &name[1..] } else { name });
            if cell.is_value() {
                self.value(out, index, cell, chunk, scratch)?;
            } else if cell == Cell::UNAVAILABLE {
                out.extend_from_slice(&column.placeholder);
            } else {
                out.extend_from_slice(b"null");
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes a key as an object, in key order. A key column that the log does not carry is null.
    pub fn key(
        &self,
        out: &mut Vec<u8>,
        cells: &[Cell],
        other: Option<&[Cell]>,
        chunk: &[u8],
        absent: &mut Absent,
        scratch: &mut Scratch,
    ) -> Result<(), At> {
        out.push(b'{');
        for (nth, index) in self.schema.key.iter().enumerate() {
            let column = &self.columns[*index as usize];
            let name = &self.names[column.name.clone()];
            out.extend_from_slice(if nth == 0 { &name[1..] } else { name });
            let mine = cells.get(*index as usize).copied().unwrap_or(Cell::ABSENT);
            let elsewhere = || other.and_then(|o| o.get(*index as usize)).copied().filter(|c| c.is_value());
            let cell = if mine == Cell::UNAVAILABLE { elsewhere().unwrap_or(mine) } else { mine };
            if cell.is_value() {
                self.value(out, *index, cell, chunk, scratch)?;
            } else {
                if self.leave_out && cell != Cell::NULL {
                    absent.push((Image::Key, *index));
                }
                if cell == Cell::UNAVAILABLE && !self.leave_out {
                    out.extend_from_slice(&column.placeholder);
                } else {
                    out.extend_from_slice(b"null");
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes one field of a message: `"prefix":...` (0) or `"content":...` (1).
    pub fn message_field(
        &self,
        out: &mut Vec<u8>,
        index: u32,
        cells: &[Cell],
        chunk: &[u8],
        scratch: &mut Scratch,
    ) -> Result<(), At> {
        out.extend_from_slice(if index == 0 { b"\"prefix\":".as_slice() } else { b"\"content\":" });
        match cells.get(index as usize) {
            Some(cell) if cell.is_value() => self.value(out, index, *cell, chunk, scratch),
            Some(_) => {
                out.extend_from_slice(b"null");
                Ok(())
            }
            None => Err(At(index, Error::bug("a message without its two cells"))),
        }
    }

    /// Writes the names of what was left out: `["before.note","after.big"]`.
    pub fn absent_names(&self, out: &mut Vec<u8>, absent: &Absent) {
        out.push(b'[');
        for (nth, (which, index)) in absent.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(which.name());
            out.push(b'.');
            let name = &self.names[self.columns[*index as usize].name.clone()];
            out.extend_from_slice(&name[2..name.len() - 2]); // between `,"` and `":`
            out.push(b'"');
        }
        out.push(b']');
    }

    /// For an error: where it happened, without any value.
    pub fn place(&self, at: At, op: char, position: u64) -> Error {
        let At(index, error) = at;
        let id = &self.schema.id;
        match self.schema.columns.get(index as usize) {
            Some(c) => error.at(format_args!("table {id}, column {} ({}), op {op} at {position}", c.name, c.type_name)),
            None => error.at(format_args!("table {id}, op {op} at {position}")),
        }
    }
}

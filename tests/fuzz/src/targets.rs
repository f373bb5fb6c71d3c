//! The targets, by name.

pub mod binlog;
pub mod cells;
pub mod copy;
pub mod pgoutput;
pub mod settings;
pub mod state;
pub mod values;

use seachange::{
    format::{Clock, Encoder},
    sink::Records,
};
use seachange_sdk::{Batch, Kind, TableKind};

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics when an invariant is broken.
    pub run: fn(&[u8]),
    /// Pieces that mean something to it.
    pub tokens: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "pgoutput", run: pgoutput::pgoutput, tokens: pgoutput::TOKENS },
    Target { name: "copy", run: copy::copy, tokens: copy::TOKENS },
    Target { name: "values", run: values::values, tokens: values::TOKENS },
    Target { name: "checkpoint", run: state::checkpoint, tokens: state::TOKENS },
    Target { name: "key", run: state::key, tokens: state::TOKENS },
    Target { name: "config", run: settings::config, tokens: settings::TOKENS },
    Target { name: "binlog", run: binlog::binlog, tokens: binlog::TOKENS },
    Target { name: "packed", run: binlog::packed, tokens: binlog::TOKENS },
    Target { name: "cells", run: cells::cells, tokens: cells::TOKENS },
    Target { name: "documents", run: cells::documents, tokens: cells::TOKENS },
    Target { name: "gtids", run: cells::gtids, tokens: cells::GTIDS },
    Target { name: "statements", run: cells::statements, tokens: cells::STATEMENTS },
    Target { name: "select", run: settings::select, tokens: settings::TOKENS },
];

/// The invariants of a batch, on which encoders rely.
fn batch_holds(batch: &Batch) {
    for c in &batch.changes {
        let schema = batch.tables.get(c.table as usize).expect("a change of a table of its batch");
        assert!((c.txn as usize) < batch.txns.len(), "a change of a transaction of its batch");
        let chunk = batch.chunks.get(c.chunk as usize).expect("a change of a chunk of its batch");
        for span in [c.before, c.after] {
            if !span.is_some() {
                continue;
            }
            let cells = batch.cells.get(span.start as usize..span.start as usize + span.len as usize);
            let cells = cells.expect("an image inside the cells of its batch");
            assert_eq!(cells.len(), schema.columns.len(), "an image has a cell for every column");
            for cell in cells {
                assert!(!cell.is_value() || cell.bytes(chunk).is_some(), "a cell lies inside its chunk");
            }
        }
        // A statement is no change of a row, and not counted.
        let counted = schema.kind != TableKind::Statement;
        assert!(!counted || c.order >= 1 && c.table_order >= 1 && c.table_order <= c.order, "orders count from 1");
    }
}

/// Encodes a batch. Keys and values must be JSON; that a value is refused is fine, that the encoder blames itself is not.
fn encodes(encoder: &mut Encoder, batch: &Batch, records: &mut Records) -> seachange_sdk::Result<()> {
    records.clear();
    let done = encoder.encode(batch, Clock(1_800_000_000_111_222_333), records);
    for record in &records.items {
        for range in [&record.key, &record.value].into_iter().flatten() {
            let text = std::str::from_utf8(records.bytes(range)).expect("a record is UTF-8");
            let json = serde_json::from_str::<serde::de::IgnoredAny>(text);
            assert!(json.is_ok(), "a record is JSON: {text}");
        }
    }
    if let Err(e) = &done {
        assert!(e.kind() != Kind::Bug, "a value is refused as what it is: {e}");
    }
    done
}

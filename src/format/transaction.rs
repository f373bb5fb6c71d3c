//! Transaction metadata, by option: the `transaction` block of every change, and a BEGIN and an END record around each
//! transaction.
//!
//! The id is `<transaction id>:<commit position>`, or the GTID where there is one, and is the same in BEGIN, in END and in
//! every change: it names the transaction. END counts what was captured, in all and by table.

use super::{json, schema};
use seachange_sdk::{Batch, Change, Error, Result, TableKind, Txn};

/// What a message counts as in END's `data_collections`.
const MESSAGES: &str = "LOGICAL_DECODING_MESSAGE";

/// The parts around keys and values of BEGIN and END that never change.
#[derive(Debug)]
pub struct Frames {
    /// Before a key's payload.
    pub key_open: Vec<u8>,
    /// Before a value's payload.
    pub value_open: Vec<u8>,
    /// After either.
    pub close: &'static [u8],
}

impl Frames {
    /// With or without schemas.
    pub fn new(schemas: bool) -> Frames {
        if schemas {
            let open = |schema: String| format!("{{\"schema\":{schema},\"payload\":").into_bytes();
            Frames {
                key_open: open(schema::transaction_key()),
                value_open: open(schema::transaction_value()),
                close: b"}",
            }
        } else {
            Frames { key_open: Vec::new(), value_open: Vec::new(), close: b"" }
        }
    }
}

/// Writes the id as a JSON string.
fn id(out: &mut Vec<u8>, txn: &Txn) {
    match &txn.gtid {
        Some(gtid) => json::string(out, gtid),
        None => {
            out.push(b'"');
            json::uint(out, txn.id);
            out.push(b':');
            json::uint(out, txn.commit);
            out.push(b'"');
        }
    }
}

/// Is it a transaction? A message beside all transactions stands in one only for the batch's sake.
pub fn is_real(txn: &Txn) -> bool {
    txn.id != 0 || txn.gtid.is_some()
}

/// Writes the block of a change; null for what belongs to no transaction.
pub fn block(out: &mut Vec<u8>, change: &Change, txn: &Txn) {
    if !is_real(txn) {
        out.extend_from_slice(b"null");
        return;
    }
    out.extend_from_slice(b"{\"id\":");
    id(out, txn);
    out.extend_from_slice(b",\"total_order\":");
    json::uint(out, change.order);
    out.extend_from_slice(b",\"data_collection_order\":");
    json::uint(out, change.table_order);
    out.push(b'}');
}

/// Writes the key of BEGIN and END.
pub fn key(out: &mut Vec<u8>, frames: &Frames, txn: &Txn) {
    out.extend_from_slice(&frames.key_open);
    out.extend_from_slice(b"{\"id\":");
    id(out, txn);
    out.push(b'}');
    out.extend_from_slice(frames.close);
}

/// Writes the value of BEGIN.
pub fn begin(out: &mut Vec<u8>, frames: &Frames, txn: &Txn) {
    out.extend_from_slice(&frames.value_open);
    out.extend_from_slice(b"{\"status\":\"BEGIN\",\"id\":");
    id(out, txn);
    out.extend_from_slice(b",\"event_count\":null,\"data_collections\":null,\"ts_ms\":");
    json::int(out, txn.ts_us.div_euclid(1000));
    out.push(b'}');
    out.extend_from_slice(frames.close);
}

/// Writes the value of END, if the transaction ends in this batch.
pub fn end(out: &mut Vec<u8>, frames: &Frames, txn: &Txn, batch: &Batch) -> Result<()> {
    let ends = txn.ends.as_ref().ok_or_else(|| Error::bug("the end of a transaction that goes on"))?;
    out.extend_from_slice(&frames.value_open);
    out.extend_from_slice(b"{\"status\":\"END\",\"id\":");
    id(out, txn);
    out.extend_from_slice(b",\"event_count\":");
    json::uint(out, ends.changes);
    out.extend_from_slice(b",\"data_collections\":[");
    for (i, (table, count)) in ends.tables.iter().enumerate() {
        let table = batch
            .tables
            .get(*table as usize)
            .ok_or_else(|| Error::bug("the end of a transaction counts a table that its batch does not have"))?;
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"data_collection\":\"");
        match table.kind {
            TableKind::Message => out.extend_from_slice(MESSAGES.as_bytes()),
            TableKind::Table | TableKind::Statement => {
                let id = &table.id;
                json::escaped(out, if id.schema.is_empty() { &id.database } else { &id.schema });
                out.push(b'.');
                json::escaped(out, &id.name);
            }
        }
        out.extend_from_slice(b"\",\"event_count\":");
        json::uint(out, *count);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"ts_ms\":");
    json::int(out, txn.ts_us.div_euclid(1000));
    out.push(b'}');
    out.extend_from_slice(frames.close);
    Ok(())
}

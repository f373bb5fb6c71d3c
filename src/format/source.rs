//! The `source` block: its constant parts are rendered once a table, the rest is a short list of steps.

use super::json;
use seachange_sdk::{Change, Op, SourceLayout, SourceValue, TableId, Txn};
use std::ops::Range;

/// One step of writing the block.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes that never change.
    Constant(Range<usize>),
    /// A value that changes.
    Field(SourceValue),
}

/// A compiled block.
#[derive(Debug)]
pub struct SourcePlan {
    constants: Vec<u8>,
    steps: Vec<Step>,
}

impl SourcePlan {
    /// Compiles the block of one table.
    pub fn new(layout: &SourceLayout, pipeline: &str, id: &TableId) -> SourcePlan {
        let mut plan = SourcePlan { constants: Vec::new(), steps: Vec::new() };
        let mut from = 0;
        plan.constants.push(b'{');
        for (i, field) in layout.fields.iter().enumerate() {
            let out = &mut plan.constants;
            if i > 0 {
                out.push(b',');
            }
            json::string(out, field.name);
            out.push(b':');
            match field.value {
                SourceValue::Version => json::string(out, env!("CARGO_PKG_VERSION")),
                SourceValue::Connector => json::string(out, layout.connector),
                SourceValue::Name => json::string(out, pipeline),
                SourceValue::Database => json::string(out, &id.database),
                SourceValue::Schema => json::string(out, &id.schema),
                SourceValue::Table => json::string(out, &id.name),
                SourceValue::Null => out.extend_from_slice(b"null"),
                changing => {
                    plan.steps.push(Step::Constant(from..out.len()));
                    plan.steps.push(Step::Field(changing));
                    from = out.len();
                }
            }
        }
        plan.constants.push(b'}');
        plan.steps.push(Step::Constant(from..plan.constants.len()));
        plan
    }

    /// Writes the block of one change.
    pub fn write(&self, out: &mut Vec<u8>, change: &Change, txn: &Txn) {
        for step in &self.steps {
            match step {
                Step::Constant(range) => out.extend_from_slice(&self.constants[range.clone()]),
                Step::Field(field) => write_field(out, *field, change, txn),
            }
        }
    }
}

fn write_field(out: &mut Vec<u8>, field: SourceValue, change: &Change, txn: &Txn) {
    let null = |out: &mut Vec<u8>| out.extend_from_slice(b"null");
    match field {
        SourceValue::TsMs => json::int(out, txn.ts_us.div_euclid(1000)),
        SourceValue::TsUs => json::int(out, txn.ts_us),
        SourceValue::TsNs => json::int(out, txn.ts_us.saturating_mul(1000)),
        SourceValue::Snapshot if change.op == Op::Read => out.extend_from_slice(b"\"true\""),
        SourceValue::Snapshot => out.extend_from_slice(b"\"false\""),
        SourceValue::LsnSequence => {
            out.extend_from_slice(b"\"[");
            if txn.prev_commit == 0 {
                null(out);
            } else {
                out.extend_from_slice(b"\\\"");
                json::uint(out, txn.prev_commit);
                out.extend_from_slice(b"\\\"");
            }
            out.extend_from_slice(b",\\\"");
            json::uint(out, change.at);
            out.extend_from_slice(b"\\\"]\"");
        }
        SourceValue::TxnId if txn.id == 0 => null(out),
        SourceValue::TxnId => json::uint(out, txn.id),
        SourceValue::At => json::uint(out, change.at),
        SourceValue::Origin => match &txn.origin {
            Some(origin) => json::string(out, origin),
            None => null(out),
        },
        SourceValue::OriginAt => match &txn.origin {
            Some(_) => json::uint(out, txn.origin_at),
            None => null(out),
        },
        SourceValue::Gtid => match &txn.gtid {
            Some(gtid) => json::string(out, gtid),
            None => null(out),
        },
        // The constant ones are rendered by `SourcePlan::new`; should one come here, null is at least valid JSON.
        SourceValue::Version
        | SourceValue::Connector
        | SourceValue::Name
        | SourceValue::Database
        | SourceValue::Schema
        | SourceValue::Table
        | SourceValue::Null => null(out),
    }
}

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
        let (mut at, mut us) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (at, us) = (at.format(change.at).as_bytes(), us.format(txn.ts_us).as_bytes());
        for step in &self.steps {
            match step {
                Step::Constant(range) => out.extend_from_slice(&self.constants[range.clone()]),
                Step::Field(field) => write_field(out, *field, change, txn, at, us),
            }
        }
    }
}

/// Writes one field. `at` and `us` are the digits of the position and of the commit time, which are needed several times.
#[inline]
fn write_field(out: &mut Vec<u8>, field: SourceValue, change: &Change, txn: &Txn, at: &[u8], us: &[u8]) {
    let null = |out: &mut Vec<u8>| out.extend_from_slice(b"null");
    match field {
        // The digits of milliseconds and nanoseconds are those of microseconds, cut or with zeros, after 1970.
        SourceValue::TsMs if txn.ts_us >= 1000 => out.extend_from_slice(&us[..us.len() - 3]),
        SourceValue::TsMs => json::int(out, txn.ts_us.div_euclid(1000)),
        SourceValue::TsUs => out.extend_from_slice(us),
        SourceValue::TsNs if txn.ts_us > 0 => {
            out.extend_from_slice(us);
            out.extend_from_slice(b"000");
        }
        SourceValue::TsNs => json::int(out, txn.ts_us.saturating_mul(1000)),
        SourceValue::Snapshot if change.op == Op::Read => out.extend_from_slice(b"\"true\""),
        SourceValue::Snapshot => out.extend_from_slice(b"\"false\""),
        SourceValue::LsnSequence => {
            if txn.prev_commit == 0 {
                out.extend_from_slice(b"\"[null,\\\"");
            } else {
                out.extend_from_slice(b"\"[\\\"");
                json::uint(out, txn.prev_commit);
                out.extend_from_slice(b"\\\",\\\"");
            }
            out.extend_from_slice(at);
            out.extend_from_slice(b"\\\"]\"");
        }
        SourceValue::TxnId if txn.id == 0 => null(out),
        SourceValue::TxnId => json::uint(out, txn.id),
        SourceValue::At => out.extend_from_slice(at),
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
        SourceValue::ServerId => json::uint(out, txn.server_id.into()),
        SourceValue::File => match &txn.file {
            Some(file) => json::string(out, file),
            None => null(out),
        },
        SourceValue::Row => json::uint(out, change.row.into()),
        SourceValue::Thread => match txn.thread {
            Some(thread) => json::uint(out, thread),
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

#[cfg(test)]
mod tests {
    use super::*;
    use seachange_sdk::{SourceField, Span};

    #[test]
    fn times_in_all_units() {
        let id = TableId { database: "d".into(), schema: "s".into(), name: "t".into() };
        let fields = [("ms", SourceValue::TsMs), ("us", SourceValue::TsUs), ("ns", SourceValue::TsNs)];
        let fields = fields.into_iter().map(|(name, value)| SourceField { name, value }).collect();
        let plan = SourcePlan::new(&SourceLayout { connector: "c", fields }, "p", &id);
        let none = Span::NONE;
        let change = Change {
            op: Op::Create,
            table: 0,
            chunk: 0,
            before: none,
            after: none,
            txn: 0,
            at: 1,
            row: 0,
            order: 1,
            table_order: 1,
        };
        for ts_us in [0, 1, 999, 1000, 1_700_000_000_123_456, -1, -1_000_001] {
            let txn = Txn {
                id: 1,
                ts_us,
                commit: 0,
                prev_commit: 0,
                origin: None,
                origin_at: 0,
                gtid: None,
                server_id: 0,
                thread: None,
                file: None,
                begins: false,
                ends: None,
            };
            let mut out = Vec::new();
            plan.write(&mut out, &change, &txn);
            let want = format!("{{\"ms\":{},\"us\":{ts_us},\"ns\":{}}}", ts_us.div_euclid(1000), ts_us * 1000);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}

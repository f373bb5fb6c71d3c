//! The `source` block: its constant parts are rendered once a table, what belongs to the transaction once a transaction and
//! table, and only the position and the row's number for every row.
//!
//! A [`Block`] is what was rendered for the transaction of the row before. It is asked for by the transaction's index in its
//! batch, so its owner forgets all blocks when a batch begins.

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

/// What differs between the rows of a transaction.
#[derive(Clone, Copy, Debug)]
enum PerRow {
    At,
    Row,
}

/// The block of one table as the rows of one transaction have it, with gaps.
#[derive(Debug, Default)]
pub struct Block {
    /// The transaction's index in the batch, and whether these are rows of a snapshot.
    of: Option<(u32, bool)>,
    bytes: Vec<u8>,
    /// Where each gap is in `bytes`, and what fills it.
    gaps: Vec<(usize, PerRow)>,
}

impl Block {
    /// Another batch begins: its transactions are others.
    pub fn forget(&mut self) {
        self.of = None;
    }
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

    /// Writes the block of one change. `block` is this table's, of the row before or forgotten.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, change: &Change, txn: &Txn, block: &mut Block) {
        let of = Some((change.txn, change.op == Op::Read));
        if block.of != of {
            self.render(block, change.op == Op::Read, txn);
            block.of = of;
        }
        let mut digits = itoa::Buffer::new();
        let at = digits.format(change.at).as_bytes();
        let mut from = 0;
        for &(gap, field) in &block.gaps {
            out.extend_from_slice(&block.bytes[from..gap]);
            match field {
                PerRow::At => out.extend_from_slice(at),
                PerRow::Row => json::uint(out, change.row.into()),
            }
            from = gap;
        }
        out.extend_from_slice(&block.bytes[from..]);
    }

    /// Renders all but the gaps.
    #[cold]
    fn render(&self, block: &mut Block, read: bool, txn: &Txn) {
        block.bytes.clear();
        block.gaps.clear();
        for step in &self.steps {
            match step {
                Step::Constant(range) => block.bytes.extend_from_slice(&self.constants[range.clone()]),
                Step::Field(field) => render_field(block, *field, read, txn),
            }
        }
    }
}

/// Renders one field, or leaves a gap for it.
fn render_field(block: &mut Block, field: SourceValue, read: bool, txn: &Txn) {
    let Block { bytes: out, gaps, .. } = block;
    let text = |out: &mut Vec<u8>, text: Option<&str>| match text {
        Some(text) => json::string(out, text),
        None => out.extend_from_slice(b"null"),
    };
    match field {
        SourceValue::TsMs => json::int(out, txn.ts_us.div_euclid(1000)),
        SourceValue::TsUs => json::int(out, txn.ts_us),
        SourceValue::TsNs => json::int(out, txn.ts_us.saturating_mul(1000)),
        SourceValue::Snapshot if read => out.extend_from_slice(b"\"true\""),
        SourceValue::Snapshot => out.extend_from_slice(b"\"false\""),
        SourceValue::LsnSequence => {
            if txn.prev_commit == 0 {
                out.extend_from_slice(b"\"[null,\\\"");
            } else {
                out.extend_from_slice(b"\"[\\\"");
                json::uint(out, txn.prev_commit);
                out.extend_from_slice(b"\\\",\\\"");
            }
            gaps.push((out.len(), PerRow::At));
            out.extend_from_slice(b"\\\"]\"");
        }
        SourceValue::TxnId if txn.id == 0 => text(out, None),
        SourceValue::TxnId => json::uint(out, txn.id),
        SourceValue::At => gaps.push((out.len(), PerRow::At)),
        SourceValue::Origin => text(out, txn.origin.as_deref()),
        SourceValue::OriginAt if txn.origin.is_some() => json::uint(out, txn.origin_at),
        SourceValue::OriginAt => text(out, None),
        SourceValue::Gtid => text(out, txn.gtid.as_deref()),
        SourceValue::ServerId => json::uint(out, txn.server_id.into()),
        SourceValue::File => text(out, txn.file.as_deref()),
        SourceValue::Row => gaps.push((out.len(), PerRow::Row)),
        SourceValue::Thread => match txn.thread {
            Some(thread) => json::uint(out, thread),
            None => text(out, None),
        },
        // The constant ones are rendered by `SourcePlan::new`; should one come here, null is at least valid JSON.
        SourceValue::Version
        | SourceValue::Connector
        | SourceValue::Name
        | SourceValue::Database
        | SourceValue::Schema
        | SourceValue::Table
        | SourceValue::Null => text(out, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::support::txn, *};
    use seachange_sdk::{SourceField, Span};

    fn change() -> Change {
        let (before, after) = (Span::NONE, Span::NONE);
        Change { op: Op::Create, table: 0, chunk: 0, before, after, txn: 0, at: 1, row: 0, order: 1, table_order: 1 }
    }

    #[test]
    fn times_in_all_units() {
        let id = TableId { database: "d".into(), schema: "s".into(), name: "t".into() };
        let fields = [("ms", SourceValue::TsMs), ("us", SourceValue::TsUs), ("ns", SourceValue::TsNs)];
        let fields = fields.into_iter().map(|(name, value)| SourceField { name, value }).collect();
        let plan = SourcePlan::new(&SourceLayout { connector: "c", fields }, "p", &id);
        for ts_us in [0, 1, 999, 1000, 1_700_000_000_123_456, -1, -1_000_001] {
            let txn = Txn { ts_us, ..txn(1) };
            let mut out = Vec::new();
            plan.write(&mut out, &change(), &txn, &mut Block::default());
            let want = format!("{{\"ms\":{},\"us\":{ts_us},\"ns\":{}}}", ts_us.div_euclid(1000), ts_us * 1000);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn a_block_follows_its_row_and_its_transaction() {
        let id = TableId { database: "d".into(), schema: "s".into(), name: "t".into() };
        let fields = [
            ("snapshot", SourceValue::Snapshot),
            ("seq", SourceValue::LsnSequence),
            ("tx", SourceValue::TxnId),
            ("at", SourceValue::At),
            ("row", SourceValue::Row),
            ("gtid", SourceValue::Gtid),
        ];
        let fields = fields.into_iter().map(|(name, value)| SourceField { name, value }).collect();
        let plan = SourcePlan::new(&SourceLayout { connector: "c", fields }, "p", &id);
        let row = |op, txn, at, row| Change { op, txn, at, row, ..change() };
        let first = Txn { prev_commit: 0, ..txn(7) };
        let second = Txn { prev_commit: 5, gtid: Some("u:1".into()), ..txn(8) };
        let mut block = Block::default();
        let line = |change: Change, txn: &Txn, block: &mut Block| {
            let mut out = Vec::new();
            plan.write(&mut out, &change, txn, block);
            String::from_utf8(out).unwrap()
        };
        let one = r#"{"snapshot":"false","seq":"[null,\"10\"]","tx":7,"at":10,"row":0,"gtid":null}"#;
        let next = r#"{"snapshot":"false","seq":"[null,\"9\"]","tx":7,"at":9,"row":12,"gtid":null}"#;
        let read = r#"{"snapshot":"true","seq":"[null,\"9\"]","tx":7,"at":9,"row":0,"gtid":null}"#;
        let other = r#"{"snapshot":"false","seq":"[\"5\",\"11\"]","tx":8,"at":11,"row":0,"gtid":"u:1"}"#;
        assert_eq!(line(row(Op::Create, 0, 10, 0), &first, &mut block), one);
        assert_eq!(line(row(Op::Update, 0, 9, 12), &first, &mut block), next);
        assert_eq!(line(row(Op::Read, 0, 9, 0), &first, &mut block), read);
        assert_eq!(line(row(Op::Delete, 1, 11, 0), &second, &mut block), other);
        // The next batch's first transaction has the index of this one's.
        block.forget();
        assert_eq!(line(row(Op::Create, 1, 10, 0), &first, &mut block), one);
    }
}

//! Conformance kit: what every connector's stream must pass, against a real database.
//!
//! The contract of a [`Source`] is one sentence: opened at position P, it delivers exactly the changes after P, in order,
//! even if P lies inside a transaction. [`cut_after_every_change`] reads a workload once, keeps the position after every
//! single change, opens the source again at each of them, and compares what comes with what must come. It confirms
//! nothing, so the database keeps the log for all rounds.

use crate::{
    Batch, Cell, Cut, Error, Kept, Limit, Opened, Result, Resume, Source, Span, TableSchema,
    error::{Kind, Retry, Side},
    position::keep,
};
use std::future::Future;

/// One change as text (everything an envelope would be made of), and the position after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Operation, table, order, transaction, decoded images.
    pub change: String,
    /// Where to resume after it; `None` when the source delivered more before it said where it was.
    pub resume: Option<Resume>,
}

fn failed(what: String) -> Error {
    Error::new(Kind::Bug, Side::Source, Retry::Never, what)
}

/// One image of a row as text: decoded values, and the three states in which there are none.
pub fn image(schema: &TableSchema, cells: &[Cell], chunk: &[u8]) -> Result<String> {
    if cells.len() != schema.columns.len() {
        return Err(failed(format!("{} cells for {} columns of {}", cells.len(), schema.columns.len(), schema.id)));
    }
    let mut out = String::new();
    for (column, cell) in schema.columns.iter().zip(cells) {
        let text = match *cell {
            Cell::NULL => "null".to_owned(),
            Cell::UNAVAILABLE => "unavailable".to_owned(),
            Cell::ABSENT => "absent".to_owned(),
            _ => {
                let bytes = cell.bytes(chunk).ok_or_else(|| failed(format!("a cell of {} lies outside", schema.id)))?;
                format!("{:?}", column.decode.value(bytes)?)
            }
        };
        out.push_str(&format!("{}={text} ", column.name));
    }
    Ok(out)
}

fn describe(batch: &Batch, index: usize) -> Result<String> {
    let c = &batch.changes[index];
    let schema = batch.tables.get(c.table as usize).ok_or_else(|| failed("a change of no table".into()))?;
    let txn = batch.txns.get(c.txn as usize).ok_or_else(|| failed("a change of no transaction".into()))?;
    let side = |span: Span| -> Result<String> {
        if span.is_some() { image(schema, batch.image(span), batch.chunk(c)) } else { Ok("-".into()) }
    };
    // A log of files numbers no transactions: the connector's own numbers are those of a run.
    let name = match (&txn.gtid, &txn.file) {
        (Some(gtid), _) => gtid.to_string(),
        (None, Some(file)) => file.to_string(),
        (None, None) => txn.id.to_string(),
    };
    Ok(format!(
        "{} {} at {} order {}/{} txn {name} commit {} after {} us {}: {} -> {}",
        c.op.letter(),
        schema.id,
        c.at,
        c.order,
        c.table_order,
        txn.commit,
        txn.prev_commit,
        txn.ts_us,
        side(c.before)?,
        side(c.after)?
    ))
}

/// Reads `count` changes, as finely as `limit` cuts them. `kept` is what was kept so far. The caller bounds the time.
pub async fn read(source: &mut dyn Source, mut kept: Kept, count: usize, limit: Limit) -> Result<Vec<Delivered>> {
    let mut out: Vec<Delivered> = Vec::new();
    let mut batch = Batch::default();
    while out.len() < count {
        source.fill(&mut batch, limit).await?;
        for i in 0..batch.changes.len() {
            out.push(Delivered { change: describe(&batch, i)?, resume: None });
        }
        keep(&mut kept, batch.kept.drain(..));
        match &batch.cut {
            Cut::Open => return Err(failed("a batch was given back without a cut".into())),
            Cut::Txn(p) | Cut::Inside(p) | Cut::Idle(p) => {
                if let Some(last) = out.last_mut() {
                    last.resume = Some(Resume { position: p.clone(), kept: kept.clone() });
                }
            }
        }
        batch.clear();
    }
    Ok(out)
}

/// Where an opened source begins, after `resume` if it had one.
pub fn begins(opened: &Opened, resume: Option<&Resume>) -> Resume {
    let mut kept = resume.map(|r| r.kept.clone()).unwrap_or_default();
    keep(&mut kept, opened.kept.iter().cloned());
    Resume { position: opened.position.clone(), kept }
}

/// Opens at `start`, reads `count` changes one by one, and then opens again after each and compares. Gives how many
/// places it cut at.
pub async fn cut_after_every_change<F, Fut>(open: F, start: &Resume, count: usize) -> Result<usize>
where
    F: Fn(Resume) -> Fut,
    Fut: Future<Output = Result<Box<dyn Source>>>,
{
    let fine = Limit { bytes: 1, changes: 1, row_bytes: 1 << 30, txn_tables: false };
    let coarse = Limit { bytes: 1 << 20, changes: 1 << 14, ..fine };
    let mut source = open(start.clone()).await?;
    let all = read(&mut *source, start.kept.clone(), count, fine).await?;
    source.close().await?;
    let mut cuts = 0;
    for (i, delivered) in all.iter().enumerate() {
        let Some(resume) = &delivered.resume else { continue };
        cuts += 1;
        if i + 1 == all.len() {
            break;
        }
        for limit in [fine, coarse] {
            let mut source = open(resume.clone()).await?;
            let rest = read(&mut *source, resume.kept.clone(), all.len() - i - 1, limit).await?;
            source.close().await?;
            for (n, (got, want)) in rest.iter().zip(&all[i + 1..]).enumerate() {
                if got.change != want.change {
                    return Err(failed(format!(
                        "opened after change {i}, change {} came as\n  {}\nand should be\n  {}",
                        i + 1 + n,
                        got.change,
                        want.change
                    )));
                }
            }
        }
    }
    Ok(cuts)
}

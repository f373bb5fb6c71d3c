//! XA transactions: rows are kept aside from XA START on, and delivered when the transaction is committed.

use super::{Assembler, Id, PREPARED_MOST, Prepared, Taken, stop};
use crate::{
    event::{self, Header, kind},
    gtid::GtidPos,
    position::{Gtids, Place},
    wire::malformed,
};
use bytes::Bytes;
use seachange_sdk::{Batch, Error, Kind, Limit, Result, Retry, Side};

impl Assembler {
    pub(super) fn aside_or_rows(
        &mut self,
        event: &Bytes,
        header: &Header,
        range: std::ops::Range<usize>,
        start: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        let Some(group) = &self.group else {
            return Err(malformed(format!("at {}:{start} rows outside of a transaction", self.file)));
        };
        if group.aside.is_some() && header.kind == kind::TABLE_MAP {
            // Bound now, while the catalog is nearest to it. It cannot change before the end: the server holds the table.
            let body = event.get(range.clone()).ok_or_else(|| malformed("a TABLE_MAP without a body"))?;
            let taken = self.table_map(body)?;
            if taken != Taken::Done {
                return Ok(taken);
            }
        }
        let Some(group) = &mut self.group else { return Err(Error::bug("no group")) };
        if let Some((events, bytes)) = &mut group.aside {
            *bytes += event.len();
            let kept: usize = self.prepared.values().map(|p| p.bytes).sum();
            if kept + *bytes > PREPARED_MOST {
                return Err(stop(
                    Kind::Limit,
                    format!(
                        "at {}:{start} prepared XA transactions with more than {} MiB of rows",
                        self.file,
                        PREPARED_MOST >> 20
                    ),
                    "commit or roll back what XA RECOVER lists, and start the pipeline again",
                ));
            }
            // Without its checksum, which has been verified: it is read again when XA COMMIT comes.
            events.push(event.slice(..range.end));
            return Ok(Taken::Done);
        }
        if group.skip {
            return Ok(Taken::Done);
        }
        self.table_or_rows(event, header, range, start, batch, limit)
    }

    pub(super) fn xa_prepare(
        &mut self,
        xa: &event::XaPrepare,
        start: u64,
        end: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        let Some(group) = &mut self.group else { return Err(malformed("XA PREPARE outside of a transaction")) };
        let Some((events, bytes)) = group.aside.take() else { return Err(malformed("XA PREPARE without XA START")) };
        if xa.one_phase {
            let skip = group.skip;
            if !skip {
                self.replay(&events, start, batch, limit)?;
            }
            return self.end(end, batch, limit);
        }
        let before = match &self.stand.gtids {
            Gtids::Maria(p) => p.clone(),
            _ => GtidPos::default(),
        };
        let prepared = Prepared {
            events,
            bytes,
            id: group.id.clone(),
            start: Place { file: self.file.to_string(), offset: group.start },
            before,
        };
        self.prepared.insert(xa.name.clone(), prepared);
        let own = self.group.take().map(|g| g.id);
        if let Some(id @ Id::Maria(..)) = own {
            // no holes in MariaDB's positions: `restart` remembers instead
            self.note(&id);
        }
        self.finish(end);
        Ok(Taken::Done)
    }

    pub(super) fn xa_commit(
        &mut self,
        name: &str,
        start: u64,
        end: u64,
        batch: &mut Batch,
        limit: &Limit,
    ) -> Result<Taken> {
        let Some(p) = self.prepared.remove(name) else {
            if self.group.as_ref().is_some_and(|g| g.skip) {
                return self.end(end, batch, limit);
            }
            return Err(Error::new(
                Kind::Gap,
                Side::Source,
                Retry::Never,
                format!(
                    "at {}:{start} an XA transaction is committed that was prepared before the pipeline began",
                    self.file
                ),
            )
            .fix("its rows are in no snapshot and before the stream: start the pipeline under a new name"));
        };
        if !self.group.as_ref().is_some_and(|g| g.skip) {
            self.replay(&p.events, start, batch, limit)?;
        }
        self.note(&p.id);
        self.end(end, batch, limit)
    }

    /// Reads rows that were kept aside.
    pub(super) fn replay(&mut self, events: &[Bytes], start: u64, batch: &mut Batch, limit: &Limit) -> Result<()> {
        for e in events {
            let header = Header::peek(e)?;
            if let Taken::NeedTable(need) =
                self.table_or_rows(e, &header, event::HEADER..e.len(), start, batch, limit)?
            {
                return Err(stop(
                    Kind::Schema,
                    format!(
                        "the columns of table {}.{} are not known for a prepared XA transaction",
                        need.database, need.table
                    ),
                    "SET GLOBAL binlog_row_metadata = 'FULL'",
                ));
            }
        }
        Ok(())
    }
}

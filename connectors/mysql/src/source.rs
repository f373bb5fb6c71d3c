//! The stream: one task owns the socket and hands batches of whole events to the core.
//!
//! Cancellation. Between two `await`s everything read is in the connection's buffer, in `waiting` (an event for
//! which the catalog is being asked), or whole in the batch: dropping the future at an `await` loses nothing. The catalog is
//! asked by a task of its own, which goes on meanwhile.
//!
//! A batch ends at a transaction's end: at the first one when it is half full, so that the writer, which commits at the end
//! of a batch, finds whole transactions there; and with the transaction in which it began. Only a batch that is full before
//! it comes to one is cut inside. The server keeps no account of us: there is
//! nothing to confirm, and nothing to answer while nobody reads. What is read ahead meanwhile is bounded.

use crate::{
    assembler::{Assembler, Need, Taken},
    catalog::Server,
    columns::CatalogTable,
    conn::Link,
    inquiry::Inquirer,
    lookahead::Lookahead,
    position::{Place, Seen, Stand},
    sql,
};
use async_trait::async_trait;
use bytes::Bytes;
use seachange_sdk::{Batch, Cut, Error, Fence, Limit, Position, Result, Source, Txn, TxnId};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Idle positions are handed over at most this often, unless somebody waits.
const IDLE: Duration = Duration::from_millis(500);
/// Read ahead while nobody reads.
const AHEAD: usize = 1 << 20;

/// What the stream shares with [`crate::Configuration`]: the newest confirmed place.
pub type Confirmed = Arc<Mutex<Option<Place>>>;

/// An open stream.
pub struct MySqlSource {
    link: Option<Link>,
    assembler: Assembler,
    /// `None` while it is asking.
    inquirer: Option<Box<Inquirer>>,
    inquiry: JoinSet<(Box<Inquirer>, Result<Option<CatalogTable>>)>,
    /// An event that waits for the catalog, and whether it came out of a packed transaction.
    waiting: Option<(Bytes, bool, Box<Need>)>,
    read_timeout: Duration,
    begun: bool,
    confirmed: Confirmed,
    idle_at: Instant,
    idle_place: Place,
    hurried: bool,
    /// The last batch ended inside of a transaction.
    cut_inside: bool,
}

/// What a [`MySqlSource`] is opened with.
pub struct Start {
    /// The connection, dumping.
    pub link: Link,
    /// The state.
    pub assembler: Assembler,
    /// For the catalog.
    pub connector: sql::Connector,
    /// The server.
    pub server: Server,
    /// The statements ahead, as far as they are known.
    pub ahead: Lookahead,
    /// For [`crate::Configuration`].
    pub confirmed: Confirmed,
}

impl MySqlSource {
    /// From an open connection.
    pub fn new(start: Start) -> MySqlSource {
        let Start { link, assembler, connector, server, ahead, confirmed } = start;
        let read_timeout = connector.config().read_timeout;
        MySqlSource {
            link: Some(link),
            idle_place: assembler.place().clone(),
            assembler,
            inquirer: Some(Box::new(Inquirer::new(connector, server, ahead))),
            inquiry: JoinSet::new(),
            waiting: None,
            read_timeout,
            begun: false,
            confirmed,
            idle_at: Instant::now(),
            hurried: false,
            cut_inside: false,
        }
    }

    /// The next event, if one is there: out of a packed transaction, or from the connection's buffer.
    fn next(&mut self) -> Result<Option<(Bytes, bool)>> {
        if let Some(event) = self.assembler.unpacked()? {
            return Ok(Some((event, true)));
        }
        let link = self.link.as_mut().ok_or_else(|| Error::bug("the stream is closed"))?;
        let Some(packet) = link.buffered()? else { return Ok(None) };
        if !self.begun {
            self.begun = true;
            link.begun(self.read_timeout);
        }
        Ok(Some((link.event(packet)?, false)))
    }

    fn take(&mut self, event: Bytes, unpacked: bool, batch: &mut Batch, limit: &Limit) -> Result<()> {
        let taken = if unpacked {
            self.assembler.take_unpacked(&event, batch, limit)?
        } else {
            self.assembler.take(&event, batch, limit)?
        };
        if let Taken::NeedTable(need) = taken {
            self.waiting = Some((event, unpacked, need));
        }
        Ok(())
    }

    fn position(&self) -> Position {
        self.assembler.stand().encode()
    }
}

#[async_trait]
impl Source for MySqlSource {
    async fn fill(&mut self, batch: &mut Batch, limit: Limit) -> Result<()> {
        if batch.txns.is_empty() && batch.changes.is_empty() {
            self.assembler.new_batch();
        }
        loop {
            if let Some((_, _, need)) = &self.waiting {
                let need = need.clone();
                if let Some(mut inquirer) = self.inquirer.take() {
                    let (need, here, from) = (need.clone(), self.assembler.here(), self.assembler.boundary());
                    self.inquiry.spawn(async move {
                        let described = inquirer.describe(&need, here, &from).await;
                        (inquirer, described)
                    });
                }
                let Some(answer) = self.inquiry.join_next().await else { return Err(Error::bug("nobody asks")) };
                let (inquirer, described) = answer.map_err(|e| Error::bug("an inquiry broke off").cause(e))?;
                self.inquirer = Some(inquirer);
                let described = described?;
                let Some((event, unpacked, _)) = self.waiting.take() else { continue };
                self.assembler.provide(&need.database, &need.table, described);
                self.take(event, unpacked, batch, &limit)?;
                continue;
            }
            batch.server_us = self.assembler.server_us();
            let inside = self.assembler.inside();
            let held = |bytes: usize, changes: usize| batch.bytes >= bytes || batch.changes.len() >= changes;
            let full = if inside {
                held(limit.bytes, limit.changes)
            } else {
                self.cut_inside && !batch.txns.is_empty() || held(limit.bytes.div_ceil(2), limit.changes.div_ceil(2))
            };
            if full && self.assembler.may_cut() {
                batch.cut = if inside { Cut::Inside(self.position()) } else { Cut::Txn(self.position()) };
                self.cut_inside = inside;
                return Ok(());
            }
            if let Some((event, unpacked)) = self.next()? {
                self.take(event, unpacked, batch, &limit)?;
                continue;
            }
            if !inside {
                if !batch.changes.is_empty() || !batch.txns.is_empty() {
                    batch.cut = Cut::Txn(self.position());
                    self.cut_inside = false;
                    return Ok(());
                }
                let due = self.hurried || self.idle_at.elapsed() >= IDLE;
                if due && *self.assembler.place() != self.idle_place {
                    self.hurried = false;
                    self.idle_at = Instant::now();
                    self.idle_place = self.assembler.place().clone();
                    batch.cut = Cut::Idle(self.position());
                    return Ok(());
                }
            }
            let moved = !inside && *self.assembler.place() != self.idle_place;
            let link = self.link.as_mut().ok_or_else(|| Error::bug("the stream is closed"))?;
            if moved {
                // Something moved that is not worth telling at once: tell it when it is due.
                let due = IDLE.saturating_sub(self.idle_at.elapsed());
                tokio::select! {
                    r = link.read() => r?,
                    () = tokio::time::sleep(due) => {}
                }
            } else {
                link.read().await?;
            }
        }
    }

    async fn tend(&mut self) -> Result<Infallible> {
        loop {
            let link = self.link.as_mut().ok_or_else(|| Error::bug("the stream is closed"))?;
            if link.pending() >= AHEAD {
                // The server waits for us (`net_write_timeout` is a day), and its heartbeats wait behind what is unread.
                std::future::pending::<()>().await;
            }
            if let Err(e) = link.read().await {
                // What the server said before it closed may be why it closed: `fill` reads that first, then meets the end.
                if link.pending() > 0 {
                    std::future::pending::<()>().await;
                }
                return Err(e);
            }
        }
    }

    fn confirm(&mut self, upto: &Position) {
        match (Stand::decode(upto), self.confirmed.lock()) {
            (Ok(stand), Ok(mut at)) => *at = Some(stand.place),
            (Err(e), _) => tracing::warn!(error = %e, "a confirmed position that cannot be read"),
            (_, Err(_)) => tracing::warn!("the confirmed position is held by a thread that panicked"),
        }
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(link) = self.link.take() {
            link.close().await;
        }
        match self.inquirer.take() {
            Some(inquirer) => inquirer.close().await?,
            None => self.inquiry.shutdown().await,
        }
        Ok(())
    }

    fn passed(&self, fence: &Fence) -> Result<bool> {
        let after = match Seen::decode(fence)? {
            Seen::Between { after, .. } | Seen::Exactly(after) => after,
        };
        Ok(*self.assembler.place() >= after)
    }

    fn hidden(&self, fence: &Fence, txn: TxnId) -> Result<bool> {
        if self.assembler.of_earlier_run(txn) {
            return Ok(false);
        }
        // What is not remembered had no absent values: the merge drops such a row either way.
        let Some(absent) = self.assembler.remembered(txn) else { return Ok(true) };
        Ok(match Seen::decode(fence)? {
            Seen::Between { before, .. } => !absent.is_in(&before),
            Seen::Exactly(place) => *absent.end > place,
        })
    }

    fn txn_id(&self, txn: &Txn) -> TxnId {
        txn.id
    }

    fn hasten(&mut self) {
        self.hurried = true;
    }
}

//! The stream: one task owns the socket; it reads, answers and confirms.
//!
//! Feedback. The server ends a connection that is silent for `wal_sender_timeout`, and its own question (a keepalive that
//! wants an answer) stands in the stream behind data that nobody may be reading. So a status is sent by the clock, three
//! times within that timeout, in `fill` and `tend` alike, and while the catalog is asked.
//!
//! Cancellation. Between two `await`s everything read is either still in the connection's buffer or whole in the batch,
//! with its chunk frozen: dropping the future at an `await` loses nothing.
//!
//! Reading in gulps. The walsender sends row by row; a reader that is woken for every row costs both sides more than the
//! decoding. When `Pace` sees many or large reads within a millisecond, the socket is parked and emptied once a
//! millisecond instead, until gulps stay small. A single small transaction never gets there, so it waits for nothing.
//! A gulp of small rows is one read: what is left closes the window, and behind a closed window the server's kernel puts
//! rows together instead of sending each by itself (`conn` says how that is so on a loopback connection, too). Of larger rows
//! it is several, until one is short: a window of them would be too few for a millisecond.

use crate::{
    assembler::{Assembler, HEARTBEAT, Next, too_large},
    catalog::{Bound, Catalog, Prepared, RelationInfo},
    conn::{LOOPBACK_WINDOW, Replication},
    errors,
    pgoutput::DATA_HEADER,
    position::{Lsn, PgPosition, parse_fence},
    slot,
    sql::Connector,
};
use async_trait::async_trait;
use postgres_protocol::message::backend;
use seachange_sdk::{Batch, Cut, Error, Fence, Kind, Limit, Position, Result, Source, Txn, TxnId};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinHandle,
    time::{sleep_until, timeout},
};
use tokio_postgres::Client;

/// How long a parked socket is left to fill.
const GULP: Duration = Duration::from_millis(1);
/// Within a gulp's time: so many reads, or so many bytes, and the reader counts as behind.
const BUSY_READS: u32 = 16;
const BUSY_BYTES: usize = 32 << 10;
/// Messages of this size and more need nobody to put them together: what there is of them is read at once.
const LARGE: usize = 2 << 10;
/// Messages of a gulp, about: with one window of larger rows in each, a stream that could be faster would wait for the clock.
const MESSAGES: usize = 256;
const WINDOW: usize = LOOPBACK_WINDOW as usize;
/// So many gulps below this in a row: no longer behind. One alone says only that somebody else had the processor.
const CALM_BYTES: usize = 4 << 10;
const CALM_GULPS: u32 = 8;
/// In a gulping stream a batch older than this is handed over at the next commit.
const HOLD: Duration = Duration::from_millis(3);
/// Idle positions are handed over at most this often, unless somebody waits.
const IDLE: Duration = Duration::from_millis(500);
/// Confirmations and requests for progress are sent at most this often.
const CONFIRM: Duration = Duration::from_millis(200);
const HASTEN: Duration = Duration::from_millis(10);
/// The catalog must answer within this time.
const CATALOG: Duration = Duration::from_secs(30);
/// A silent server is believed to be decoding for at most this long.
const PATIENCE: Duration = Duration::from_secs(900);
const DOING: &str = "streaming";

/// Asks the catalog, on a SQL session that is opened when it is first needed.
struct Binder {
    connector: Connector,
    session: Option<(Client, Prepared)>,
    catalog: Catalog,
}

impl Binder {
    /// The session and the catalog that is asked on it.
    async fn session(&mut self) -> Result<(&Client, &mut Prepared, &mut Catalog)> {
        if self.session.as_ref().is_none_or(|(client, _)| client.is_closed()) {
            self.session = Some((self.connector.connect().await?, Prepared::default()));
        }
        match &mut self.session {
            Some((client, prepared)) => Ok((client, prepared, &mut self.catalog)),
            None => Err(Error::bug("a session that was just opened is not there")),
        }
    }
    async fn bind(&mut self, info: &RelationInfo) -> Result<Bound> {
        let place = format!("table {}.{}", info.schema, info.name);
        let (client, prepared, catalog) = self.session().await?;
        match catalog.bind(client, prepared, info).await {
            // The session may have been idle for days and cut off by something between: once more on a new one.
            Err(e) if e.kind() == Kind::Connect => {
                tracing::debug!(error = %e, "catalog session lost; opening another");
                self.session = None;
                let (client, prepared, catalog) = self.session().await?;
                catalog.bind(client, prepared, info).await.map_err(|e| e.at(place))
            }
            other => other.map_err(|e| e.at(place)),
        }
    }
    /// Which process streams from the slot?
    async fn active_pid(&mut self, name: &str) -> Result<Option<i32>> {
        let (client, ..) = self.session().await?;
        Ok(slot::find(client, name).await?.and_then(|s| s.active_pid))
    }
}

/// Sees whether the reader is behind.
#[derive(Debug)]
struct Pace {
    since: Instant,
    reads: u32,
    bytes: usize,
}

impl Pace {
    fn new() -> Pace {
        Pace { since: Instant::now(), reads: 0, bytes: 0 }
    }
    /// Notes a read; is the reader behind?
    fn note(&mut self, bytes: usize, now: Instant) -> bool {
        if now.duration_since(self.since) > GULP {
            *self = Pace { since: now, reads: 0, bytes: 0 };
        }
        self.reads += 1;
        self.bytes += bytes;
        self.reads >= BUSY_READS || self.bytes >= BUSY_BYTES
    }
}

/// How much to read at once, by the bytes and the number of the messages before: as many whole windows as come closest to
/// [`MESSAGES`]; of large ones all there is.
fn gulp(bytes: usize, messages: usize) -> usize {
    match bytes.checked_div(messages) {
        Some(size) if size < LARGE => ((size * MESSAGES + WINDOW / 2) / WINDOW).max(1) * WINDOW,
        _ => usize::MAX,
    }
}

/// What [`PgSource`] is opened with.
pub struct Start {
    /// The connection, in CopyBoth.
    pub link: Replication,
    /// For the catalog.
    pub connector: Connector,
    /// A session that is open already.
    pub client: Client,
    /// The catalog.
    pub catalog: Catalog,
    /// Where the stream starts.
    pub position: PgPosition,
    /// A full transaction id of about now.
    pub near_xid: u64,
    /// The server's `wal_sender_timeout`; zero: none.
    pub sender_timeout: Duration,
    /// Size of a segment and of a block of the log.
    pub wal: (u64, u64),
    /// Measuring only: the stream is binary.
    pub binary: bool,
}

/// The stream.
pub struct PgSource {
    link: Replication,
    asm: Assembler,
    binder: Binder,
    slot: String,
    wal: (u64, u64),
    confirmed: u64,
    /// Confirmed position of the last status, and when it was sent.
    told: u64,
    told_at: Instant,
    every: Duration,
    hasten: bool,
    hastened_at: Option<Instant>,
    /// The last position handed over, and when.
    given: u64,
    given_at: Option<Instant>,
    heard: Instant,
    pinged: bool,
    silent_since: Option<Instant>,
    read_timeout: Duration,
    tended: bool,
    pace: Pace,
    gulp: usize,
    gulp_at: Instant,
    /// The last batch ended inside of a transaction: the next one ends with it, so that it can be committed.
    cut_inside: bool,
    /// Bytes and number of messages parsed since the last gulp.
    parsed: usize,
    messages: usize,
    /// Small gulps in a row.
    calm: u32,
    batch_since: Option<Instant>,
    heartbeat: Option<JoinHandle<()>>,
}

enum Parsed {
    /// No whole message is left.
    Starved,
    /// A limit was met, or it is time to hand over.
    Full,
    /// A table has to be bound first.
    Bind(RelationInfo),
}

impl PgSource {
    /// Takes over an open stream.
    pub fn new(start: Start) -> PgSource {
        let config = start.connector.config().clone();
        let every = if start.sender_timeout.is_zero() { Duration::from_secs(10) } else { start.sender_timeout / 3 };
        let heartbeat = config.heartbeat.map(|every| tokio::spawn(heartbeat(start.connector.clone(), every)));
        let now = Instant::now();
        PgSource {
            link: start.link,
            asm: Assembler::new(
                config.selection.clone(),
                &config.database,
                start.position,
                start.near_xid,
                start.binary,
            ),
            binder: Binder {
                connector: start.connector,
                session: Some((start.client, Prepared::default())),
                catalog: start.catalog,
            },
            slot: config.slot.clone(),
            wal: start.wal,
            confirmed: start.position.end,
            told: 0,
            told_at: now,
            every: every.clamp(Duration::from_millis(50), Duration::from_secs(10)),
            hasten: false,
            hastened_at: None,
            given: start.position.end,
            given_at: None,
            heard: now,
            pinged: false,
            silent_since: None,
            read_timeout: config.read_timeout,
            tended: false,
            pace: Pace::new(),
            gulp: 0,
            cut_inside: false,
            parsed: 0,
            messages: 0,
            calm: 0,
            gulp_at: now,
            batch_since: None,
            heartbeat,
        }
    }

    fn status(&mut self, now: Instant, ask: bool) {
        self.link.queue_status(Lsn(self.asm.received().max(self.confirmed)), Lsn(self.confirmed), ask);
        self.told = self.confirmed;
        self.told_at = now;
        self.asm.asked = false;
    }

    /// When the next status is due by the clock.
    fn due(&self) -> Instant {
        self.told_at + if self.confirmed > self.told { CONFIRM.min(self.every) } else { self.every }
    }

    /// Queues the status that is due, if one is.
    fn feedback(&mut self, now: Instant) {
        let hasten = self.hasten && self.hastened_at.is_none_or(|t| now.duration_since(t) >= HASTEN);
        if hasten {
            self.hastened_at = Some(now);
        }
        if self.asm.asked || hasten || now >= self.due() {
            let ask = hasten || self.pinged;
            self.status(now, ask);
        }
    }

    /// Takes whole messages out of the buffer. What was taken is frozen when this returns, also with an error.
    fn parse(&mut self, batch: &mut Batch, limit: &Limit) -> Result<Parsed> {
        let changes = batch.changes.len();
        let hold = self.link.is_parked() && self.batch_since.is_some_and(|t| t.elapsed() > HOLD);
        let mut at = 0;
        let result = self.parse_from(&mut at, batch, limit, hold);
        if batch.changes.len() > changes {
            if self.batch_since.is_none() {
                self.batch_since = Some(Instant::now());
            }
            let chunk = self.link.split(at);
            batch.chunks.push(chunk);
        } else {
            self.link.skip(at);
        }
        result
    }

    fn parse_from(&mut self, at: &mut usize, batch: &mut Batch, limit: &Limit, hold: bool) -> Result<Parsed> {
        let PgSource { link, asm, parsed, messages, cut_inside, .. } = self;
        let buf = link.unread();
        loop {
            let rest = buf.get(*at..).unwrap_or_default();
            let Some((&[tag, a, b, c, d], body)) = rest.split_first_chunk::<5>() else { return Ok(Parsed::Starved) };
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(len) = len.checked_sub(4).filter(|n| *n < i32::MAX as usize) else {
                return Err(errors::protocol("a message of an impossible length"));
            };
            let met = batch.bytes >= limit.bytes || batch.changes.len() >= limit.changes;
            let Some(copy) = body.get(..len) else {
                if tag == backend::COPY_DATA_TAG {
                    refuse_giant(asm, len, body, limit)?;
                }
                return Ok(if met && !batch.txns.is_empty() { Parsed::Full } else { Parsed::Starved });
            };
            // The commit that closes a full batch is taken with it: the batch then ends at a transaction's end.
            if met && !(asm.inside() && copy.get(DATA_HEADER) == Some(&b'C') && copy.first() == Some(&b'w')) {
                return Ok(Parsed::Full);
            }
            match tag {
                backend::COPY_DATA_TAG => {
                    let base = u32::try_from(*at + 5).map_err(|_| Error::bug("a read buffer of 4 GiB"))?;
                    let inside = asm.inside();
                    if let Next::Bind(info) = asm.take(copy, base, batch, limit)? {
                        return Ok(Parsed::Bind(info));
                    }
                    *at += 5 + len;
                    *parsed += len;
                    *messages += 1;
                    let half =
                        batch.bytes >= limit.bytes.div_ceil(2) || batch.changes.len() >= limit.changes.div_ceil(2);
                    let enough = hold || half || (*cut_inside && !batch.txns.is_empty());
                    if enough && inside && !asm.inside() {
                        return Ok(Parsed::Full);
                    }
                }
                backend::ERROR_RESPONSE_TAG => {
                    // Hand over what came before it first.
                    if !batch.txns.is_empty() && !asm.inside() {
                        return Ok(Parsed::Full);
                    }
                    return Err(server_error(rest.get(..5 + len).unwrap_or_default()));
                }
                backend::NOTICE_RESPONSE_TAG | backend::PARAMETER_STATUS_TAG => *at += 5 + len,
                backend::COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG | backend::READY_FOR_QUERY_TAG => {
                    return Err(Error::source(Kind::Connect, "the server has ended the stream")
                        .fix("it does so when it is shut down: the pipeline connects again when it is back"));
                }
                other => {
                    return Err(errors::protocol(format!("the stream holds the unexpected message 0x{other:02x}")));
                }
            }
        }
    }

    /// Reads once if something is there.
    async fn read_now(&mut self) -> Result<Option<usize>> {
        let got = poll_fn(|cx| {
            Poll::Ready(match self.link.poll_read(cx) {
                Poll::Ready(r) => Some(r),
                Poll::Pending => None,
            })
        })
        .await;
        let n = got.transpose().map_err(|e| errors::io(DOING, e))?;
        if n.is_some() {
            self.heard = Instant::now();
            self.pinged = false;
            self.silent_since = None;
        }
        Ok(n)
    }

    /// Waits until something can be read, but not beyond `until`.
    async fn wait(&mut self, until: Instant) -> Result<()> {
        tokio::select! {
            r = poll_fn(|cx| self.link.poll_read(cx)) => {
                let n = r.map_err(|e| errors::io(DOING, e))?;
                let now = Instant::now();
                (self.heard, self.pinged, self.silent_since) = (now, false, None);
                self.noted(n, now)
            }
            () = sleep_until(until.into()) => Ok(()),
        }
    }

    fn noted(&mut self, n: usize, now: Instant) -> Result<()> {
        self.gulp += n;
        if !self.link.is_parked() && self.pace.note(n, now) {
            self.link.park().map_err(|e| errors::io(DOING, e))?;
            (self.gulp, self.gulp_at) = (n, now);
        }
        Ok(())
    }

    async fn bind(&mut self, info: RelationInfo) -> Result<()> {
        let bound = {
            let PgSource { binder, link, asm, told_at, every, confirmed, told, .. } = self;
            let mut work = pin!(timeout(CATALOG, binder.bind(&info)));
            loop {
                tokio::select! {
                    r = &mut work => {
                        break r.map_err(|_| {
                            Error::source(Kind::Connect, format!("the catalog gave no answer about {}.{} within {CATALOG:?}", info.schema, info.name))
                                .fix("look for sessions that hold locks on the catalog or the table")
                        })?;
                    }
                    () = sleep_until((*told_at + *every).into()) => {
                        link.queue_status(Lsn(asm.received().max(*confirmed)), Lsn(*confirmed), false);
                        (*told, *told_at) = (*confirmed, Instant::now());
                        send_now(link).await?;
                    }
                }
            }
        };
        self.heard = Instant::now();
        self.asm.bind(info, bound?)
    }

    /// The server has been silent: asks it, then asks another process of it, then gives up.
    async fn watch(&mut self, now: Instant) -> Result<()> {
        let silent = now.duration_since(self.heard);
        if !self.pinged && silent >= self.read_timeout / 2 {
            self.pinged = true;
            self.status(now, true);
        }
        if silent < self.read_timeout {
            return Ok(());
        }
        // A walsender that decodes a large transaction without a captured change may be mute for minutes; to connect
        // again would only have it begin anew. If the slot is still ours, it lives.
        let since = *self.silent_since.get_or_insert(self.heard);
        let ask = timeout(Duration::from_secs(10).min(self.every * 2), self.binder.active_pid(&self.slot)).await;
        let ours = matches!(ask, Ok(Ok(Some(pid))) if pid == self.link.pid());
        if ours && now.duration_since(since) < PATIENCE {
            tracing::warn!(
                seconds = now.duration_since(since).as_secs(),
                "the server is silent but still has the slot"
            );
            (self.heard, self.pinged) = (Instant::now(), false);
            return Ok(());
        }
        Err(Error::source(Kind::Connect, format!("nothing came from the server for {silent:?}, not even an answer"))
            .fix("the connection is dead: look at the network between; the pipeline connects again"))
    }

    fn next_timer(&self, batch: &Batch) -> Instant {
        let mut t = self.due();
        let quiet = self.heard + if self.pinged { self.read_timeout } else { self.read_timeout / 2 };
        t = t.min(quiet);
        if batch.txns.is_empty() && self.asm.end() > self.given {
            t = t.min(self.given_at.map_or_else(Instant::now, |g| g + IDLE));
        }
        if self.hasten {
            t = t.min(self.hastened_at.map_or_else(Instant::now, |h| h + HASTEN));
        }
        t
    }

    /// May the batch be handed over, now that nothing more is there?
    fn ready(&self, batch: &Batch, now: Instant) -> bool {
        if batch.txns.is_empty() {
            let moved = self.asm.end() > self.given;
            moved && (self.hasten || self.asm.asked || self.given_at.is_none_or(|t| now.duration_since(t) >= IDLE))
        } else {
            !self.asm.inside()
        }
    }

    fn hand_over(&mut self, batch: &mut Batch) {
        self.asm.cut(batch);
        if matches!(batch.cut, Cut::Idle(_)) {
            self.hasten = false;
        }
        self.given = self.asm.end();
        self.given_at = Some(Instant::now());
        self.batch_since = None;
        self.cut_inside = self.asm.inside();
    }

    /// The first LSN at or above which nothing of the log that was written before `lsn` was read can commit: an insert
    /// position that stands behind a page's header is the end of what is before that page.
    fn floor(&self, lsn: u64) -> u64 {
        let (segment, block) = self.wal;
        let header = if segment > 0 && lsn % segment < block { 40 } else { 24 };
        if block > 0 && lsn % block == header { lsn - header } else { lsn }
    }
}

async fn send_now(link: &mut Replication) -> Result<()> {
    poll_fn(|cx| match link.poll_send(cx) {
        // A full send buffer is no error: the rest goes with the next call.
        Poll::Pending => Poll::Ready(Ok(())),
        ready => ready,
    })
    .await
    .map_err(|e| errors::io(DOING, e))
}

/// A message that is not whole yet and whose row cannot be within the limit is refused before memory is spent on it.
fn refuse_giant(asm: &Assembler, len: usize, start: &[u8], limit: &Limit) -> Result<()> {
    // Two images, and for each column of each a few bytes.
    let most = limit.row_bytes.saturating_mul(2).saturating_add(64 << 10);
    if len <= most {
        return Ok(());
    }
    let Some(head) = start.get(..DATA_HEADER + 5) else { return Ok(()) };
    if let (&[b'w', a, b, c, d, e, f, g, h, ..], [.., b'I' | b'U' | b'D', o, p, q, r]) = (head, head)
        && let Some(name) = asm.captured(u32::from_be_bytes([*o, *p, *q, *r]))
    {
        let at = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        return Err(too_large(&format!("a row of table {name}"), at, len, limit));
    }
    Ok(())
}

fn server_error(message: &[u8]) -> Error {
    let mut buf = bytes::BytesMut::from(message);
    match backend::Message::parse(&mut buf) {
        Ok(Some(backend::Message::ErrorResponse(body))) => crate::conn::server_error(body.fields()).error(DOING),
        _ => errors::protocol("the server reports an error that cannot be read"),
    }
}

#[async_trait]
impl Source for PgSource {
    async fn fill(&mut self, batch: &mut Batch, limit: Limit) -> Result<()> {
        self.asm.enter(batch);
        if std::mem::take(&mut self.tended) {
            self.heard = Instant::now();
        }
        loop {
            match self.parse(batch, &limit)? {
                Parsed::Bind(info) => {
                    self.bind(info).await?;
                    continue;
                }
                Parsed::Full => {
                    self.hand_over(batch);
                    return Ok(());
                }
                Parsed::Starved => {}
            }
            let now = Instant::now();
            self.feedback(now);
            if self.link.is_parked() {
                // Behind: empty the socket, hand over what is whole, leave it alone for a moment.
                if now < self.gulp_at + GULP {
                    if self.ready(batch, now) {
                        self.hand_over(batch);
                        return Ok(());
                    }
                    sleep_until((self.gulp_at + GULP).into()).await;
                }
                let mut got = 0;
                let all = gulp(self.parsed, self.messages);
                (self.parsed, self.messages) = (0, 0);
                while let Some(n) = self.read_now().await? {
                    got += n;
                    // A read of less than half the window took what there was, and nothing needs two halves. TLS gives a record
                    // of at most 16 KiB at a time.
                    let half = if self.link.encrypted() { 0 } else { WINDOW / 2 };
                    if self.link.is_full() || got.saturating_add(half) >= all || (n < half && all < usize::MAX) {
                        break;
                    }
                }
                self.gulp += got;
                if self.link.is_full() {
                    continue;
                }
                self.calm = if self.gulp < CALM_BYTES { self.calm + 1 } else { 0 };
                if self.calm >= CALM_GULPS {
                    self.calm = 0;
                    self.link.wake().map_err(|e| errors::io(DOING, e))?;
                    self.pace = Pace::new();
                }
                (self.gulp, self.gulp_at) = (0, Instant::now());
                continue;
            }
            if let Some(n) = self.read_now().await? {
                self.noted(n, Instant::now())?;
                continue;
            }
            if self.ready(batch, now) {
                self.hand_over(batch);
                return Ok(());
            }
            self.watch(now).await?;
            let until = self.next_timer(batch);
            self.wait(until).await?;
        }
    }

    async fn tend(&mut self) -> Result<Infallible> {
        self.tended = true;
        loop {
            self.feedback(Instant::now());
            send_now(&mut self.link).await?;
            sleep_until(self.due().into()).await;
        }
    }

    fn confirm(&mut self, upto: &Position) {
        match PgPosition::decode(upto) {
            Ok(p) => self.confirmed = self.confirmed.max(p.end),
            Err(e) => tracing::error!(error = %e, "a position to confirm cannot be read; the slot is not moved"),
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.status(Instant::now(), false);
        send_now(&mut self.link).await?;
        match timeout(Duration::from_secs(2), self.link.end()).await {
            Ok(r) => r,
            // The server is in the middle of something long. The status is with it; it sees the end of the connection.
            Err(_) => Ok(()),
        }
    }

    fn passed(&self, fence: &Fence) -> Result<bool> {
        Ok(self.asm.end() >= self.floor(parse_fence(fence)?.lsn))
    }

    fn hidden(&self, fence: &Fence, txn: TxnId) -> Result<bool> {
        Ok(!parse_fence(fence)?.sees(txn))
    }

    fn txn_id(&self, txn: &Txn) -> TxnId {
        self.asm.txn_id(txn.id)
    }

    fn hasten(&mut self) {
        self.hasten = true;
    }
}

impl Drop for PgSource {
    fn drop(&mut self) {
        if let Some(h) = self.heartbeat.take() {
            h.abort();
        }
    }
}

/// Writes a message now and then, so that the slot of an idle database on a busy server moves.
async fn heartbeat(connector: Connector, every: Duration) {
    let mut client: Option<Client> = None;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let beat = async {
            if client.as_ref().is_none_or(Client::is_closed) {
                client = Some(connector.connect().await?);
            }
            let Some(c) = &client else { return Err(Error::bug("no session")) };
            c.execute("SELECT pg_logical_emit_message(true, $1, '')", &[&HEARTBEAT])
                .await
                .map_err(|e| errors::sql("writing a heartbeat", e))
        };
        if let Err(e) = beat.await {
            tracing::warn!(error = %e, fix = e.remedy(), "heartbeat failed");
            client = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gulps_are_windows_of_enough_messages() {
        let messages = 1000;
        for (size, windows) in [(1, 1), (100, 1), (300, 1), (400, 2), (1000, 4), (LARGE - 1, 8)] {
            assert_eq!(gulp(size * messages, messages), windows * WINDOW, "{size}");
        }
        assert_eq!(gulp(LARGE * messages, messages), usize::MAX);
        assert_eq!(gulp(0, 0), usize::MAX, "part of a message: it is large");
    }
}

//! The replication connection: log-in, simple queries, CopyBoth, and the read buffer that becomes the batches' chunks.
//!
//! tokio-postgres has no replication mode, so this is a client of its own on postgres-protocol's messages. `W`
//! (CopyBothResponse) is taken out before `Message::parse`, which does not know it.
//!
//! The buffer: bytes are read into one block, whole messages are split off its front and frozen, and when a block is used
//! up the bytes of the unfinished message move to a fresh one. So a message never straddles two chunks, nothing else is
//! copied, and a message larger than a block gets a block of its own size, which is not kept afterwards. Used-up blocks
//! are reused as soon as no batch holds them.
//!
//! Reading in gulps: while a reader is behind, it is the walsender that sets the pace, and it sends row by row; waking a
//! reader for each of them costs more than decoding it. [`Replication::park`] takes the socket out of the reactor, so that
//! arriving segments wake nobody; reads then go to the socket directly, whenever the owner chooses.
//!
//! The window of a loopback connection. On a network rows are put together while earlier ones wait for the wire. On the
//! loopback device nothing waits: every row goes through the whole of TCP by itself, at the walsender's expense (9 us of
//! CPU a row of 180 bytes, against 5 to 6), until the receive window is full; and the kernel lets the window grow to
//! megabytes. So there it is limited to [`LOOPBACK_WINDOW`], which must be done before connecting: the window scale, which
//! makes the limit last, is agreed upon then.

use crate::{
    binding,
    errors::{self, ServerError},
    position::Lsn,
    sql::{self, Connector},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::{self, sasl},
    message::{
        backend::{self, DataRowBody, ErrorFields, Header, Message},
        frontend,
    },
};
use rustls::pki_types::ServerName;
use seachange_database::{Io, SslMode};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use socket2::{SockRef, TcpKeepalive};
use std::{
    collections::VecDeque,
    io,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

/// Part of the error with which a password is not sent in clear text over a network.
pub const CLEAR_TEXT: &str = "the server asks for the password in clear text on an unencrypted connection";
/// Size of a block of the read buffer.
pub const BLOCK: usize = 256 << 10;
/// A fresh block is taken when less than this is free.
const LEAST_READ: usize = 32 << 10;
/// Used-up blocks kept for reuse.
const SPENT: usize = 32;
/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const PG_EPOCH_US: i64 = 946_684_800_000_000;

/// PostgreSQL's time as microseconds since the Unix epoch.
pub fn unix_us(pg_us: i64) -> i64 {
    pg_us.saturating_add(PG_EPOCH_US)
}

/// Receive window of a connection within this machine: the most that goes without window scaling.
pub const LOOPBACK_WINDOW: u32 = 65_535;

/// Limits the receive window of a socket that is not connected yet. A kernel that does not want to is no fault: it only
/// costs time.
#[cfg(target_os = "linux")]
fn limit_window(socket: &TcpSocket) {
    use std::os::fd::AsRawFd;
    let window = LOOPBACK_WINDOW as libc::c_int;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads the value, an int of the given
    // size, before the call returns, and keeps no pointer to it (tcp(7), TCP_WINDOW_CLAMP).
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_WINDOW_CLAMP,
            std::ptr::from_ref(&window).cast(),
            size_of_val(&window) as libc::socklen_t,
        )
    };
    if done != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the receive window could not be limited");
    }
}
#[cfg(not(target_os = "linux"))]
fn limit_window(_: &TcpSocket) {}

/// Connects to the first of the host's addresses that answers; the error is the last one's.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let connected = match socket {
            Ok(socket) => {
                if address.ip().is_loopback() {
                    limit_window(&socket);
                }
                socket.connect(address).await
            }
            Err(e) => Err(e),
        };
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// A socket that can be taken out of the reactor.
enum Socket {
    Tcp(TcpStream),
    TcpParked(std::net::TcpStream),
    Unix(UnixStream),
    Gone,
}

impl Socket {
    fn park(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Socket::Gone) {
            Socket::Tcp(s) => Socket::TcpParked(s.into_std()?),
            other => other,
        };
        Ok(())
    }
    fn wake(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Socket::Gone) {
            Socket::TcpParked(s) => Socket::Tcp(TcpStream::from_std(s)?),
            other => other,
        };
        Ok(())
    }
    fn gone<T>() -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

impl AsyncRead for Socket {
    /// A parked socket that holds nothing is `Pending` without a waker: its owner comes back by itself.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Socket::TcpParked(s) => {
                // SAFETY: `recv` only writes to the slice, so nothing that is initialised ceases to be.
                let free = unsafe { buf.unfilled_mut() };
                match SockRef::from(&*s).recv(free) {
                    Ok(n) => {
                        // SAFETY: `recv` has initialised the first `n` bytes of the unfilled part.
                        unsafe { buf.assume_init(n) };
                        buf.advance(n);
                        Poll::Ready(Ok(()))
                    }
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        Poll::Pending
                    }
                    Err(e) => Poll::Ready(Err(e)),
                }
            }
            Socket::Gone => Socket::gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Socket::TcpParked(s) => match SockRef::from(&*s).send(buf) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Poll::Pending,
                other => Poll::Ready(other),
            },
            Socket::Gone => Socket::gone(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Socket::TcpParked(s) => Poll::Ready(s.shutdown(std::net::Shutdown::Write)),
            Socket::Gone => Poll::Ready(Ok(())),
        }
    }
}

/// One row of a simple query: text or NULL.
pub type TextRow = Vec<Option<String>>;

/// What stands at the front of the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// Message type.
    pub tag: u8,
    /// Bytes of the message, with its header of five.
    pub size: usize,
}

/// The replication connection.
pub struct Replication {
    io: Io<Socket>,
    buf: BytesMut,
    out: BytesMut,
    unflushed: bool,
    spent: VecDeque<BytesMut>,
    pid: i32,
    parked: bool,
    /// The current block was made for one large message.
    giant: bool,
}

impl Replication {
    /// Connects and logs in with `replication=database`.
    pub async fn connect(connector: &Connector) -> Result<Replication> {
        let within = connector.config().connect_timeout * 2;
        match tokio::time::timeout(within, Self::open(connector)).await {
            Ok(r) => r,
            Err(_) => Err(Error::source(
                Kind::Connect,
                format!("connecting to {} for replication: no answer within {within:?}", connector.config()),
            )
            .fix("check that the server runs and can be reached")),
        }
    }

    async fn open(connector: &Connector) -> Result<Replication> {
        let c = connector.config();
        let doing = format!("connecting to {c} for replication");
        let fail = |e| errors::io(&doing, e);
        let mut io = if c.is_unix() {
            let path = Path::new(&c.host).join(format!(".s.PGSQL.{}", c.port));
            Io::Plain(Socket::Unix(UnixStream::connect(path).await.map_err(fail)?))
        } else {
            let tcp = match tokio::time::timeout(c.connect_timeout, connect_tcp(&c.host, c.port)).await {
                Ok(r) => r.map_err(fail)?,
                Err(_) => return Err(fail(io::ErrorKind::TimedOut.into())),
            };
            tcp.set_nodelay(true).map_err(fail)?;
            let sock = SockRef::from(&tcp);
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3);
            sock.set_tcp_keepalive(&keepalive).map_err(fail)?;
            // What we send (feedback, every few seconds) must be acknowledged by the other machine within this time: finds
            // a dead peer without asking the walsender, which is mute while it decodes a large transaction.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            sock.set_tcp_user_timeout(Some(c.read_timeout)).map_err(fail)?;
            Io::Plain(Socket::Tcp(tcp))
        };
        let mut binding = None;
        if let (Some(config), false) = (connector.tls(), c.is_unix()) {
            let mut ask = BytesMut::new();
            frontend::ssl_request(&mut ask);
            io.write_all(&ask).await.map_err(fail)?;
            // Exactly one byte: anything that a man in the middle puts behind it goes to TLS and breaks it.
            match io.read_u8().await.map_err(fail)? {
                b'S' => {
                    let name = ServerName::try_from(c.host.clone()).map_err(|e| {
                        Error::new(Kind::Config, Side::Source, Retry::Operator, format!("{doing}: {e}"))
                            .fix("give a host name that a certificate can hold")
                    })?;
                    let Io::Plain(socket) = io else { return Err(Error::bug("TLS inside TLS")) };
                    let stream = TlsConnector::from(config.clone()).connect(name, socket).await.map_err(fail)?;
                    binding = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .and_then(|l| l.first())
                        .and_then(|c| binding::end_point(c));
                    io = Io::Tls(Box::new(stream));
                }
                b'N' if c.sslmode == SslMode::Prefer => {}
                b'N' => {
                    return Err(Error::new(
                        Kind::Connect,
                        Side::Source,
                        Retry::Operator,
                        format!("{doing}: the server has no TLS, and sslmode = {:?} needs it", c.sslmode.name()),
                    )
                    .fix("switch on ssl at the server, or choose sslmode = \"prefer\" or \"disable\""));
                }
                _ => {
                    return Err(errors::protocol(format!(
                        "{doing}: the answer to the TLS request is not PostgreSQL's"
                    )));
                }
            }
        }
        let mut this = Replication {
            io,
            buf: BytesMut::with_capacity(BLOCK),
            out: BytesMut::with_capacity(1024),
            unflushed: false,
            spent: VecDeque::new(),
            pid: 0,
            parked: false,
            giant: false,
        };
        this.log_in(connector, &doing, binding).await?;
        Ok(this)
    }

    async fn log_in(&mut self, connector: &Connector, doing: &str, binding: Option<Vec<u8>>) -> Result<()> {
        let c = connector.config();
        let encode = |e: io::Error| Error::new(Kind::Config, Side::Source, Retry::Operator, format!("{doing}: {e}"));
        let options = sql::options(false);
        let parameters = [
            ("user", c.user.as_str()),
            ("database", c.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", c.application_name.as_str()),
            ("options", options.as_str()),
        ];
        frontend::startup_message(parameters, &mut self.out).map_err(encode)?;
        let password = || {
            c.password.as_ref().map(|p| p.reveal().as_bytes()).ok_or_else(|| {
                Error::new(
                    Kind::Auth,
                    Side::Source,
                    Retry::Operator,
                    format!("{doing}: the server asks for a password"),
                )
                .fix("set password = \"${env:PGPASSWORD}\" in the pipeline's source")
            })
        };
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            let message = self.message(doing).await?;
            match message {
                Message::AuthenticationOk => break,
                Message::AuthenticationCleartextPassword => {
                    let secret = password()?;
                    if !self.io.encrypted() && !c.is_local() {
                        return Err(Error::new(
                            Kind::Auth,
                            Side::Source,
                            Retry::Operator,
                            format!("{doing}: {CLEAR_TEXT}"),
                        )
                        .fix("use TLS (sslmode = \"verify-full\"), or scram-sha-256 in pg_hba.conf"));
                    }
                    frontend::password_message(secret, &mut self.out).map_err(encode)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = authentication::md5_hash(c.user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.out).map_err(encode)?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered: Vec<String> =
                        body.mechanisms().map(|m| Ok(m.to_owned())).collect().map_err(|e| errors::io(doing, e))?;
                    let plus = offered.iter().any(|m| m == sasl::SCRAM_SHA_256_PLUS);
                    let plain = offered.iter().any(|m| m == sasl::SCRAM_SHA_256);
                    let (bind, name) = match &binding {
                        Some(hash) if plus => {
                            (sasl::ChannelBinding::tls_server_end_point(hash.clone()), sasl::SCRAM_SHA_256_PLUS)
                        }
                        // "We could have": the server then refuses if it offered and somebody took the offer away.
                        Some(_) if plain => (sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
                        None if plain => (sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
                        _ => {
                            return Err(Error::new(
                                Kind::Auth,
                                Side::Source,
                                Retry::Operator,
                                format!(
                                    "{doing}: the server offers no log-in that is known here: {}",
                                    offered.join(", ")
                                ),
                            )
                            .fix("use scram-sha-256 in pg_hba.conf"));
                        }
                    };
                    let s = sasl::ScramSha256::new(password()?, bind);
                    frontend::sasl_initial_response(name, s.message(), &mut self.out).map_err(encode)?;
                    scram = Some(s);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let s = scram.as_mut().ok_or_else(|| errors::protocol(format!("{doing}: SCRAM out of turn")))?;
                    s.update(body.data()).map_err(|e| errors::protocol(format!("{doing}: {e}")))?;
                    frontend::sasl_response(s.message(), &mut self.out).map_err(encode)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let s = scram.as_mut().ok_or_else(|| errors::protocol(format!("{doing}: SCRAM out of turn")))?;
                    s.finish(body.data()).map_err(|e| {
                        Error::new(Kind::Auth, Side::Source, Retry::Operator, format!("{doing}: {e}")).fix(
                            "the server could not prove that it knows the password: make sure that it is the right one",
                        )
                    })?;
                }
                Message::AuthenticationGss
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationScmCredential
                | Message::AuthenticationSspi => {
                    return Err(Error::new(
                        Kind::Auth,
                        Side::Source,
                        Retry::Operator,
                        format!("{doing}: the server wants a log-in that is not known here"),
                    )
                    .fix("use scram-sha-256 or a client certificate in pg_hba.conf"));
                }
                _ => return Err(errors::protocol(format!("{doing}: an unexpected message during log-in"))),
            }
        }
        loop {
            match self.message(doing).await? {
                Message::BackendKeyData(body) => self.pid = body.process_id(),
                Message::ParameterStatus(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                _ => return Err(errors::protocol(format!("{doing}: an unexpected message after log-in"))),
            }
        }
    }

    /// The server process at the other end.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Is the connection encrypted?
    pub fn encrypted(&self) -> bool {
        self.io.encrypted()
    }

    /// The next message outside CopyBoth. An error the server reports becomes the pipeline's.
    async fn message(&mut self, doing: &str) -> Result<Message> {
        loop {
            if let Some(m) = Message::parse(&mut self.buf).map_err(|e| errors::protocol(format!("{doing}: {e}")))? {
                match m {
                    Message::ErrorResponse(body) => return Err(server_error(body.fields()).error(doing)),
                    Message::NoticeResponse(_) => continue,
                    m => return Ok(m),
                }
            }
            self.read_more(doing).await?;
        }
    }

    async fn read_more(&mut self, doing: &str) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await.map_err(|e| errors::io(doing, e)).map(|_| ())
    }

    /// Runs a query and gives its rows.
    pub async fn query(&mut self, sql: &str, doing: &str) -> Result<Vec<TextRow>> {
        frontend::query(sql, &mut self.out).map_err(|e| Error::bug(format!("{doing}: {e}")))?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            match self.message(doing).await {
                Ok(Message::DataRow(body)) => rows.push(text_row(&body, doing)?),
                Ok(Message::ReadyForQuery(_)) => return failed.map_or(Ok(rows), Err),
                Ok(Message::RowDescription(_) | Message::CommandComplete(_) | Message::ParameterStatus(_)) => {}
                Ok(_) => return Err(errors::protocol(format!("{doing}: an unexpected message"))),
                // After an error the server says ReadyForQuery, unless it has ended the connection.
                Err(e) if failed.is_none() && e.kind() != Kind::Connect => failed = Some(e),
                Err(e) => return Err(failed.unwrap_or(e)),
            }
        }
    }

    /// Sends START_REPLICATION and waits for CopyBoth.
    pub async fn start(&mut self, sql: &str, doing: &str) -> Result<()> {
        frontend::query(sql, &mut self.out).map_err(|e| Error::bug(format!("{doing}: {e}")))?;
        loop {
            if let Some(front) = self.front()?.filter(|f| self.buf.len() >= f.size) {
                if front.tag == b'W' {
                    self.buf.advance(front.size);
                    return Ok(());
                }
                match self.message(doing).await? {
                    Message::ParameterStatus(_) => continue,
                    _ => return Err(errors::protocol(format!("{doing}: an unexpected message"))),
                }
            }
            self.read_more(doing).await?;
        }
    }

    /// The header at the front of the buffer, if it is there.
    pub fn front(&self) -> Result<Option<Front>> {
        let Some(head) = self.buf.get(..5) else { return Ok(None) };
        let header = Header::parse(head).map_err(|e| errors::protocol(e.to_string()))?;
        let Some(header) = header else { return Ok(None) };
        let len = usize::try_from(header.len()).map_err(|_| errors::protocol("a message with a negative length"))?;
        Ok(Some(Front { tag: header.tag(), size: len + 1 }))
    }

    /// The bytes that have been read and not split off.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.buf
    }

    /// Splits the first `n` bytes off and freezes them.
    pub fn split(&mut self, n: usize) -> Bytes {
        self.buf.split_to(n).freeze()
    }

    /// Throws the first `n` bytes away.
    pub fn skip(&mut self, n: usize) {
        self.buf.advance(n);
    }

    /// Makes room for the message at the front, and for a read worth its call.
    fn make_room(&mut self) -> io::Result<()> {
        let need = match self.buf.get(1..5) {
            Some(&[a, b, c, d]) => {
                let len = i32::from_be_bytes([a, b, c, d]);
                usize::try_from(len).map_err(|_| io::Error::other("a message with a negative length"))? + 1
            }
            _ => 5,
        };
        let missing = need.saturating_sub(self.buf.len());
        if self.buf.capacity() - self.buf.len() >= missing.max(LEAST_READ) {
            return Ok(());
        }
        let want = need + LEAST_READ;
        let mut fresh = if want <= BLOCK { self.block() } else { BytesMut::with_capacity(want) };
        fresh.put_slice(&self.buf);
        let mut old = std::mem::replace(&mut self.buf, fresh);
        old.clear();
        // A giant's block is given back to the allocator as soon as no batch holds it.
        if !self.giant && self.spent.len() < SPENT {
            self.spent.push_back(old);
        }
        self.giant = want > BLOCK;
        Ok(())
    }

    /// A block: the oldest used-up one that no batch holds any more, or a new one.
    fn block(&mut self) -> BytesMut {
        for _ in 0..self.spent.len().min(2) {
            if let Some(mut old) = self.spent.pop_front() {
                if old.try_reclaim(BLOCK) {
                    return old;
                }
                self.spent.push_back(old);
            }
        }
        BytesMut::with_capacity(BLOCK)
    }

    /// Sends what is to be sent as far as the socket takes it, and reads once. `Pending` when there is nothing to read.
    /// Never gives 0: the end of the connection is an error.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let unsent = match self.poll_send(cx) {
            Poll::Ready(Err(e)) => Some(e),
            _ => None,
        };
        self.make_room()?;
        let polled = pin!(self.io.read_buf(&mut self.buf)).poll(cx);
        match (polled, unsent) {
            // What the server said before it went tells more than that nothing can be sent.
            (Poll::Ready(Ok(n)), _) if n > 0 => Poll::Ready(Ok(n)),
            (_, Some(e)) => Poll::Ready(Err(e)),
            (Poll::Ready(Ok(_)), None) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")))
            }
            (other, None) => other,
        }
    }

    /// Was the last read stopped by the buffer's end rather than by the socket's?
    pub fn is_full(&self) -> bool {
        self.buf.len() == self.buf.capacity()
    }

    /// Sends what is to be sent.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = match Pin::new(&mut self.io).poll_write(cx, &self.out) {
                Poll::Ready(r) => r?,
                Poll::Pending => return Poll::Pending,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(r) => r?,
                Poll::Pending => return Poll::Pending,
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Is anything waiting to be sent?
    pub fn sending(&self) -> bool {
        self.unflushed || !self.out.is_empty()
    }

    /// Takes the socket out of the reactor: nothing that arrives wakes anybody until [`Replication::wake`].
    pub fn park(&mut self) -> io::Result<()> {
        self.parked = true;
        self.io.socket().park()
    }

    /// Puts it back.
    pub fn wake(&mut self) -> io::Result<()> {
        self.parked = false;
        self.io.socket().wake()
    }

    /// Is it out of the reactor?
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// Writes a standby status update to the send buffer. `ask`: have the server answer.
    pub fn queue_status(&mut self, written: Lsn, flushed: Lsn, ask: bool) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        self.out.put_u8(b'd');
        self.out.put_u32(4 + 34);
        self.out.put_u8(b'r');
        self.out.put_u64(written.0);
        self.out.put_u64(flushed.0);
        self.out.put_u64(flushed.0);
        self.out.put_i64(now.saturating_sub(PG_EPOCH_US));
        self.out.put_u8(u8::from(ask));
    }

    /// Ends the stream: CopyDone, what is still on its way is thrown away, Terminate. The caller bounds the time.
    pub async fn end(&mut self) -> Result<()> {
        let doing = "closing the stream";
        self.wake().map_err(|e| errors::io(doing, e))?;
        frontend::copy_done(&mut self.out);
        loop {
            while let Some(front) = self.front()? {
                if self.buf.len() < front.size {
                    break;
                }
                if front.tag == backend::READY_FOR_QUERY_TAG {
                    self.buf.clear();
                    frontend::terminate(&mut self.out);
                    std::future::poll_fn(|cx| self.poll_send(cx)).await.map_err(|e| errors::io(doing, e))?;
                    // The server may close first: then there is nothing left to shut down.
                    if let Err(e) = self.io.shutdown().await {
                        tracing::debug!(error = %e, "closing the replication connection");
                    }
                    return Ok(());
                }
                if front.tag == backend::ERROR_RESPONSE_TAG {
                    return Err(self.take_error(doing)?);
                }
                self.buf.advance(front.size);
            }
            self.read_more(doing).await?;
        }
    }

    /// The error message at the front of the buffer (which must be one, and whole).
    pub fn take_error(&mut self, doing: &str) -> Result<Error> {
        match Message::parse(&mut self.buf).map_err(|e| errors::protocol(e.to_string()))? {
            Some(Message::ErrorResponse(body)) => Ok(server_error(body.fields()).error(doing)),
            _ => Err(errors::protocol(format!("{doing}: an unexpected message"))),
        }
    }
}

/// Reads the fields of an ErrorResponse.
pub fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut out = ServerError::default();
    loop {
        match fields.next() {
            Ok(Some(f)) => {
                let text = String::from_utf8_lossy(f.value_bytes()).into_owned();
                match f.type_() {
                    b'C' => out.code = text,
                    b'M' => out.message = text,
                    b'H' => out.hint = Some(text),
                    _ => {}
                }
            }
            Ok(None) => return out,
            Err(_) => {
                out.message.push_str(" (the rest of the server's message is damaged)");
                return out;
            }
        }
    }
}

fn text_row(body: &DataRowBody, doing: &str) -> Result<TextRow> {
    let mut row = Vec::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next().map_err(|e| errors::protocol(format!("{doing}: {e}")))? {
        let cell = match range {
            None => None,
            Some(r) => {
                let bytes = body.buffer().get(r).ok_or_else(|| errors::protocol(format!("{doing}: a damaged row")))?;
                Some(String::from_utf8(bytes.to_vec()).map_err(|_| errors::protocol(format!("{doing}: not UTF-8")))?)
            }
        };
        row.push(cell);
    }
    Ok(row)
}

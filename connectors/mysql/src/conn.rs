//! The replication connection: handshake, TLS, authentication, and the binary log as frozen bytes.
//!
//! SQL goes through mysql_async. The dump does not, because its stream unpacks compressed transactions without bound and
//! drops the error when it cannot, panics on an event that is shorter than it says, and copies every event twice. Here a
//! packet is split off the read buffer and frozen: it becomes a batch's chunk as it came.
//!
//! - Packets up to 1 GiB (the protocol's own limit for a row) are put together from 16 MiB pieces, whatever the server's
//!   `max_allowed_packet` is.
//! - A heartbeat is asked for three times within `read_timeout`; silence longer than that is a broken connection.
//! - The server may wait for a day for us to read (`net_write_timeout`): a slow sink does not end the stream.
//! - Semi-synchronous replication is not asked for.

use crate::{
    config::Config,
    errors::{self, ServerError},
    gtid::{GtidPos, GtidSet},
    position::Place,
    wire::{self, malformed},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use seachange_database::{Io, SslMode, tls};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// MariaDB's plugin that signs with a key made of the password, the account's salt and a number of rounds.
const PARSEC: &str = "parsec";
const PIECE: usize = 0xff_ffff;
/// A packet: an event of at most 1 GiB, and a little.
const LARGEST: usize = (1 << 30) + (1 << 20);
/// The read buffer grows by this.
const READ: usize = 256 << 10;

mod flags {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 4;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
}

/// A connection to the server.
pub struct Link {
    io: Option<Io<TcpStream>>,
    buf: BytesMut,
    /// Pieces of a packet larger than 16 MiB.
    pieces: BytesMut,
    sequence: u8,
    patience: Duration,
    /// The server's version.
    pub version: String,
    /// Is it encrypted?
    pub encrypted: bool,
}

/// Where a dump starts.
#[derive(Debug)]
pub enum From<'a> {
    /// MySQL: after these transactions.
    GtidSet(&'a GtidSet),
    /// MariaDB: after these.
    GtidPos(&'a GtidPos),
    /// At an offset of a file.
    Place(&'a Place),
}

fn broken(doing: &str, e: impl std::fmt::Display) -> Error {
    Error::source(Kind::Connect, format!("{doing}: {e}")).fix("check that the server runs and can be reached")
}
fn refused(what: impl Into<String>, fix: &str) -> Error {
    Error::new(Kind::Auth, Side::Source, Retry::Operator, what).fix(fix)
}

/// What the server says first.
struct Greeting {
    version: String,
    capabilities: u32,
    nonce: Vec<u8>,
    plugin: String,
}

impl Greeting {
    fn parse(packet: &[u8]) -> Result<Greeting> {
        let mut b = wire::Bytes::new(packet);
        if b.u8()? != 10 {
            return Err(malformed("the peer does not speak the MySQL protocol, version 10"));
        }
        let version = until_zero(&mut b)?;
        b.u32()?;
        let mut nonce = b.take(8)?.to_vec();
        b.u8()?;
        let low = u32::from(b.u16()?);
        b.u8()?;
        b.u16()?;
        let capabilities = low | u32::from(b.u16()?) << 16;
        let length = usize::from(b.u8()?);
        b.take(10)?;
        nonce.extend_from_slice(b.take(length.saturating_sub(8).max(13))?);
        nonce.truncate(20);
        let plugin = until_zero(&mut b).unwrap_or_else(|_| String::from_utf8_lossy(b.rest()).into_owned());
        Ok(Greeting { version, capabilities, nonce, plugin })
    }
}

fn until_zero(b: &mut wire::Bytes<'_>) -> Result<String> {
    let n = b.rest().iter().position(|c| *c == 0).ok_or_else(|| malformed("a text without an end"))?;
    let text = String::from_utf8_lossy(b.take(n)?).into_owned();
    b.u8()?;
    Ok(text)
}

impl Link {
    /// Connects and authenticates.
    pub async fn connect(config: &Config) -> Result<Link> {
        let doing = format!("connecting to {config}");
        match timeout(config.connect_timeout, Link::open(config, &doing)).await {
            Ok(r) => r,
            Err(_) => Err(broken(&doing, format!("no answer within {:?}", config.connect_timeout))),
        }
    }

    async fn open(config: &Config, doing: &str) -> Result<Link> {
        let stream = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(|e| broken(doing, e))?;
        stream.set_nodelay(true).map_err(|e| broken(doing, e))?;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(|e| broken(doing, e))?;
        let mut link = Link {
            io: Some(Io::Plain(stream)),
            buf: BytesMut::with_capacity(READ),
            pieces: BytesMut::new(),
            sequence: 0,
            patience: config.connect_timeout,
            version: String::new(),
            encrypted: false,
        };
        let first = link.packet().await?;
        link.not_an_error(&first, doing)?;
        let greeting = Greeting::parse(&first)?;
        link.version.clone_from(&greeting.version);
        link.secure(config, &greeting, doing).await?;
        link.authenticate(config, greeting, doing).await?;
        link.patience = config.read_timeout;
        Ok(link)
    }

    fn capabilities(&self) -> u32 {
        use flags::*;
        let ssl = if self.encrypted { SSL } else { 0 };
        LONG_PASSWORD
            | LONG_FLAG
            | PROTOCOL_41
            | TRANSACTIONS
            | SECURE_CONNECTION
            | PLUGIN_AUTH
            | PLUGIN_AUTH_LENENC
            | ssl
    }

    fn hello(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32_le(self.capabilities());
        out.put_u32_le(1 << 30);
        out.put_u8(45);
        out.put_bytes(0, 23);
        out
    }

    async fn secure(&mut self, config: &Config, greeting: &Greeting, doing: &str) -> Result<()> {
        let Some(tls) = tls::client_config(config)? else { return Ok(()) };
        if greeting.capabilities & flags::SSL == 0 {
            if config.sslmode == SslMode::Prefer {
                return Ok(());
            }
            return Err(Error::new(
                Kind::Connect,
                Side::Source,
                Retry::Operator,
                format!("{doing}: the server has no TLS"),
            )
            .fix("switch TLS on at the server, or set sslmode = \"disable\""));
        }
        self.encrypted = true;
        let hello = self.hello();
        self.send(&hello).await?;
        let Some(Io::Plain(stream)) = self.io.take() else {
            return Err(Error::bug("a connection that is encrypted already"));
        };
        let name = ServerName::try_from(config.host.clone()).map_err(|e| broken(doing, e))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|e| {
            Error::new(Kind::Connect, Side::Source, Retry::Operator, format!("{doing}: TLS: {e}"))
                .fix("check sslmode, ssl_root_cert and the server's certificate")
        })?;
        self.io = Some(Io::Tls(Box::new(stream)));
        Ok(())
    }

    async fn authenticate(&mut self, config: &Config, greeting: Greeting, doing: &str) -> Result<()> {
        let password = config.password.as_ref().map_or("", |p| p.reveal());
        let (mut plugin, mut nonce) = (greeting.plugin, greeting.nonce);
        let answer = self.answer(&plugin, password, &nonce).unwrap_or_default();
        let mut out = self.hello();
        out.put_slice(config.user.as_bytes());
        out.put_u8(0);
        out.put_u8(answer.len().min(250) as u8);
        out.put_slice(&answer);
        out.put_slice(plugin.as_bytes());
        out.put_u8(0);
        self.send(&out).await?;
        loop {
            let packet = self.packet().await?;
            self.not_an_error(&packet, doing)?;
            match packet.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xfe, rest)) => {
                    // another plugin for this account
                    let mut b = wire::Bytes::new(rest);
                    plugin = until_zero(&mut b)?;
                    nonce = b.rest().strip_suffix(&[0]).unwrap_or(b.rest()).to_vec();
                    let answer = self.answer(&plugin, password, &nonce)?;
                    self.send(&answer).await?;
                }
                // Before or behind the mark of more data: servers do both.
                Some((1, [b'P', ..])) | Some((b'P', _)) if plugin == PARSEC => {
                    let salt = packet.strip_prefix(&[1]).unwrap_or(&packet);
                    self.send(&parsec(password, &nonce, salt)?).await?;
                }
                Some((1, [3])) => {} // caching_sha2_password: the server remembered the password; OK follows
                Some((1, [4])) => {
                    let clear = [password.as_bytes(), &[0]].concat();
                    if self.encrypted {
                        self.send(&clear).await?;
                    } else {
                        // Without TLS the password goes out under the key that the peer sends: it is not known whose it is.
                        self.send(&[2]).await?;
                        let key = self.packet().await?;
                        self.not_an_error(&key, doing)?;
                        let secret = encrypted(&clear, &nonce, key.get(1..).unwrap_or(&[]))?;
                        self.send(&secret).await?;
                    }
                }
                _ => return Err(malformed(format!("{doing}: an answer to {plugin} that is not understood"))),
            }
        }
    }

    fn answer(&self, plugin: &str, password: &str, nonce: &[u8]) -> Result<Vec<u8>> {
        use mysql_common::scramble;
        if password.is_empty() {
            return Ok(Vec::new());
        }
        let password = password.as_bytes();
        Ok(match plugin {
            "mysql_native_password" => {
                scramble::scramble_native(nonce, password).map(|s| s.to_vec()).unwrap_or_default()
            }
            "caching_sha2_password" => {
                scramble::scramble_sha256(nonce, password).map(|s| s.to_vec()).unwrap_or_default()
            }
            // It answers when the server has told the account's salt.
            PARSEC => Vec::new(),
            "client_ed25519" => scramble::create_response_for_ed25519(password, nonce).to_vec(),
            "mysql_clear_password" | "sha256_password" if self.encrypted => [password, &[0]].concat(),
            other => {
                return Err(refused(
                    format!("the account authenticates by {other}, which the replication connection does not know"),
                    errors::PLUGINS,
                ));
            }
        })
    }

    fn not_an_error(&self, packet: &[u8], doing: &str) -> Result<()> {
        let Some((0xff, rest)) = packet.split_first() else { return Ok(()) };
        let mut b = wire::Bytes::new(rest);
        let code = b.u16()?;
        let text = match b.rest() {
            [b'#', rest @ ..] => rest.get(5..).unwrap_or(&[]),
            rest => rest,
        };
        Err(ServerError { code, message: String::from_utf8_lossy(text).into_owned() }.error(doing))
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut out = BytesMut::with_capacity(payload.len() + 4);
        if payload.len() >= PIECE {
            return Err(Error::bug("a command of more than 16 MiB"));
        }
        out.put_uint_le(payload.len() as u64, 3);
        out.put_u8(self.sequence);
        out.put_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        let patience = self.patience;
        let io = self.io.as_mut().ok_or_else(|| Error::bug("a connection that was never opened"))?;
        let write = async {
            io.write_all(&out).await?;
            io.flush().await
        };
        match timeout(patience, write).await {
            Ok(r) => r.map_err(|e| broken("sending", e)),
            Err(_) => Err(broken("sending", format!("nothing was taken within {patience:?}"))),
        }
    }

    async fn command(&mut self, payload: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(payload).await
    }

    /// Runs a statement that gives no rows.
    pub async fn run(&mut self, sql: &str, doing: &str) -> Result<()> {
        self.command(&[&[3], sql.as_bytes()].concat()).await?;
        let packet = self.packet().await?;
        self.not_an_error(&packet, doing)
    }

    /// A whole packet, if the buffer holds one.
    pub fn buffered(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(head) = self.buf.first_chunk::<4>() else { return Ok(None) };
            let length = wire::le(head.get(..3).unwrap_or(&[])) as usize;
            let sequence = head[3];
            if self.buf.len() < 4 + length {
                // Room for the rest of it, so that a large packet does not grow by doubling.
                let missing = 4 + length - self.buf.len();
                self.buf.reserve(missing.max(READ));
                return Ok(None);
            }
            self.sequence = sequence.wrapping_add(1);
            self.buf.advance(4);
            let piece = self.buf.split_to(length);
            if length < PIECE && self.pieces.is_empty() {
                return Ok(Some(piece.freeze()));
            }
            if self.pieces.len() + length > LARGEST {
                return Err(Error::new(Kind::Limit, Side::Source, Retry::Operator, "a packet larger than 1 GiB"));
            }
            self.pieces.extend_from_slice(&piece);
            if length < PIECE {
                return Ok(Some(std::mem::take(&mut self.pieces).freeze()));
            }
        }
    }

    /// Bytes that have been read and not taken.
    pub fn pending(&self) -> usize {
        self.buf.len()
    }

    /// Reads what is there, waiting for it. Cancel-safe: what was read stays in the buffer.
    pub async fn read(&mut self) -> Result<()> {
        if self.buf.capacity() - self.buf.len() < READ / 4 {
            self.buf.reserve(READ);
        }
        let io = self.io.as_mut().ok_or_else(|| Error::bug("a connection that was never opened"))?;
        match timeout(self.patience, io.read_buf(&mut self.buf)).await {
            Ok(Ok(0)) => Err(broken("reading", "the server closed the connection")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(broken("reading", e)),
            Err(_) => Err(broken("reading", format!("the server has been silent for {:?}", self.patience))),
        }
    }

    async fn packet(&mut self) -> Result<Bytes> {
        loop {
            if let Some(p) = self.buffered()? {
                return Ok(p);
            }
            self.read().await?;
        }
    }

    /// Prepares the session and asks for the log. Nothing has been read of it when this returns.
    pub async fn dump(&mut self, config: &Config, from: &From<'_>) -> Result<()> {
        let doing = "opening the stream";
        let heartbeat = (config.read_timeout / 3).max(Duration::from_millis(100)).as_nanos();
        self.run("SET NAMES utf8mb4", doing).await?;
        self.run(&format!("SET @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}"), doing)
            .await?;
        // "Checksums are understood"; a log without them is read all the same.
        self.run("SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'", doing).await?;
        // A server's default is a minute: a sink that is away for longer would end the stream.
        self.run("SET SESSION net_write_timeout = 86400", doing).await?;
        let id = config.server_id;
        let uuid = format!("5eac4a9e-0000-4000-8000-0000{id:08x}");
        self.run(&format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"), doing).await?;
        // Whose number this is, in SHOW REPLICAS.
        let mut register = BytesMut::new();
        register.put_u8(0x15);
        register.put_u32_le(id);
        register.put_slice(&[9]);
        register.put_slice(b"seachange");
        register.put_slice(&[0, 0]);
        register.put_u16_le(0);
        register.put_u32_le(0);
        register.put_u32_le(0);
        self.command(&register).await?;
        let answer = self.packet().await?;
        self.not_an_error(&answer, "registering as a replica")?;

        let mut out = BytesMut::new();
        match from {
            From::GtidSet(set) => {
                let set = set.encode();
                out.put_u8(0x1e);
                out.put_u16_le(4);
                out.put_u32_le(id);
                out.put_u32_le(0);
                out.put_u64_le(4);
                out.put_u32_le(set.len() as u32);
                out.put_slice(&set);
            }
            From::GtidPos(pos) => {
                // 4: knows GTIDs; without it the server would rewrite the events for us
                self.run("SET @mariadb_slave_capability = 4", doing).await?;
                self.run(
                    &format!("SET @slave_connect_state = '{pos}', @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"),
                    doing,
                )
                .await?;
                dump_at(&mut out, id, "", 4);
            }
            From::Place(place) => {
                if self.version.contains("MariaDB") {
                    self.run("SET @mariadb_slave_capability = 4", doing).await?;
                }
                // The command has 32 bits for the offset. Beyond, the file is read from its beginning and passed over.
                dump_at(&mut out, id, &place.file, u32::try_from(place.offset).unwrap_or(4));
            }
        }
        self.command(&out).await?;
        self.patience = config.start_timeout;
        Ok(())
    }

    /// The stream has begun: from now on silence is counted.
    pub fn begun(&mut self, read_timeout: Duration) {
        self.patience = read_timeout;
    }

    /// The event in a packet of the stream.
    pub fn event(&self, packet: Bytes) -> Result<Bytes> {
        match packet.first() {
            Some(0) => Ok(packet.slice(1..)),
            Some(0xfe) if packet.len() < 9 => Err(broken("reading", "the server ended the stream")),
            Some(0xff) => {
                self.not_an_error(&packet, "reading the log")?;
                Err(malformed("an error without a number"))
            }
            _ => Err(malformed("a packet that is no event")),
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // The server ends the dump when the connection goes: there is nothing to wait for, and nothing that can be lost.
        if let Some(io) = &mut self.io {
            let closed = timeout(Duration::from_secs(1), io.shutdown()).await;
            tracing::trace!(orderly = matches!(closed, Ok(Ok(()))), "replication connection closed");
        }
    }
}

fn dump_at(out: &mut BytesMut, id: u32, file: &str, offset: u32) {
    out.put_u8(0x12);
    out.put_u32_le(offset.max(4));
    out.put_u16_le(0);
    out.put_u32_le(id);
    out.put_slice(file.as_bytes());
}

/// The password under the server's RSA key, mixed with the nonce.
fn encrypted(clear: &[u8], nonce: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    if nonce.is_empty() {
        return Err(malformed("a greeting without a nonce"));
    }
    let mixed: Vec<u8> = clear.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
    // The key comes from the peer, and the function panics on one that is none.
    std::panic::catch_unwind(|| mysql_common::crypto::encrypt(&mixed, key))
        .map_err(|_| refused("the server's RSA key cannot be read", "switch TLS on"))
}

/// What [`PARSEC`] wants once the server has told the account's salt.
fn parsec(password: &str, nonce: &[u8], salt: &[u8]) -> Result<[u8; 96]> {
    let nonce = nonce.try_into().map_err(|_| malformed("parsec with a nonce that has not 32 bytes"))?;
    let told = mysql_common::packets::parse_parsec_salt(salt);
    let (rounds, salt) = told.ok_or_else(|| malformed("parsec with a salt that is not understood"))?;
    Ok(mysql_common::scramble::create_response_for_parsec(password.as_bytes(), nonce, rounds, salt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> Link {
        Link {
            io: None,
            buf: BytesMut::new(),
            pieces: BytesMut::new(),
            sequence: 0,
            patience: Duration::from_secs(1),
            version: String::new(),
            encrypted: false,
        }
    }
    fn frame(out: &mut BytesMut, n: usize, fill: u8) {
        out.put_uint_le(n as u64, 3);
        out.put_u8(0);
        out.put_bytes(fill, n);
    }
    #[test]
    fn packets_beyond_sixteen_mebibytes() {
        let mut l = link();
        frame(&mut l.buf, 3, 1);
        frame(&mut l.buf, PIECE, 2);
        frame(&mut l.buf, PIECE, 3);
        frame(&mut l.buf, 0, 0);
        frame(&mut l.buf, 2, 4);
        l.buf.put_slice(&[9, 0, 0, 0, 1]);
        assert_eq!(&l.buffered().unwrap().unwrap()[..], [1, 1, 1]);
        let large = l.buffered().unwrap().unwrap();
        assert_eq!((large.len(), large[0], large[2 * PIECE - 1]), (2 * PIECE, 2, 3));
        assert_eq!(&l.buffered().unwrap().unwrap()[..], [4, 4]);
        assert_eq!((l.buffered().unwrap(), l.pending()), (None, 5));
    }
    #[test]
    fn greetings() {
        let mut g = vec![10];
        g.extend(b"9.7.4\0");
        g.extend([1, 0, 0, 0]);
        g.extend(b"abcdefgh\0");
        g.extend([0xff, 0xff, 45, 2, 0, 0xff, 0xdf, 21]);
        g.extend([0; 10]);
        g.extend(b"ijklmnopqrst\0caching_sha2_password\0");
        let g = Greeting::parse(&g).unwrap();
        assert_eq!(
            (g.version.as_str(), &g.nonce[..], g.plugin.as_str()),
            ("9.7.4", &b"abcdefghijklmnopqrst"[..], "caching_sha2_password")
        );
        assert_ne!(g.capabilities & flags::SSL, 0);
    }
    #[test]
    fn a_key_that_is_none_does_not_end_the_program() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let e = encrypted(b"x\0", b"abc", b"no key").is_err();
        std::panic::set_hook(hook);
        assert!(e);
    }
    proptest! {
        #[test]
        fn nothing_panics(b in proptest::collection::vec(any::<u8>(), 0..90)) {
            let l = link();
            let seen = (Greeting::parse(&b).is_ok(), l.not_an_error(&b, "x").is_ok(), l.event(Bytes::from(b.clone())).is_ok());
            std::hint::black_box(seen);
        }
    }
}

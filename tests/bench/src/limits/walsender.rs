//! PostgreSQL's walsender, read by a bare socket.
//!
//! The reader lets the socket fill for a millisecond between reads: woken for every row, it would cost the walsender more
//! than decoding does. The slot is not moved on, so the same backlog can be drained again.

use super::Drained;
use bytes::BytesMut;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::frontend,
};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const GULP: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(1);
/// Well within `wal_sender_timeout`.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

struct Socket {
    stream: TcpStream,
    buf: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Socket {
    fn send(&mut self, build: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
        let mut out = BytesMut::new();
        build(&mut out)?;
        self.stream.write_all(&out)
    }
    /// Type and body of the next message.
    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.saturating_sub(4)];
        self.stream.read_exact(&mut body)?;
        if head[0] == b'E' {
            return Err(wrong(String::from_utf8_lossy(&body).replace('\0', " ")));
        }
        Ok((head[0], body))
    }

    fn open(port: u16, db: &str) -> io::Result<Socket> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut socket = Socket { stream, buf: vec![0; GULP] };
        let startup = [("user", "cdc"), ("database", db), ("replication", "database")];
        socket.send(|out| frontend::startup_message(startup, out))?;
        let mut scram = ScramSha256::new(b"cdc", ChannelBinding::unsupported());
        loop {
            let (kind, body) = socket.message()?;
            let step = body.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
            match (kind, step) {
                (b'R', 0) => {}
                (b'R', 10) => {
                    socket.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out))?
                }
                (b'R', 11) => {
                    scram.update(&body[4..])?;
                    socket.send(|out| frontend::sasl_response(scram.message(), out))?;
                }
                (b'R', 12) => scram.finish(&body[4..])?,
                (b'R', other) => return Err(wrong(format!("a way to authenticate that is not expected: {other}"))),
                (b'Z', _) => return Ok(socket),
                _ => {}
            }
        }
    }
}

/// Reads `rows` rows from the slot and by the publication of this name.
pub fn drain(port: u16, db: &str, name: &str, rows: u64, patience: Duration) -> io::Result<Drained> {
    let mut socket = Socket::open(port, db)?;
    let began = Instant::now();
    let start =
        format!("START_REPLICATION SLOT {name} LOGICAL 0/0 (\"proto_version\" '1', \"publication_names\" '{name}')");
    socket.send(|out| frontend::query(&start, out))?;
    let (mut seen, mut bytes, mut alive) = (0, 0, began);
    // Bytes of the message under way that are still to come; the head of one that is cut.
    let (mut skip, mut cut) = (0, Vec::new());
    while seen < rows {
        if began.elapsed() > patience {
            return Err(wrong(format!("{seen} of {rows} rows within {patience:?}")));
        }
        if alive.elapsed() > SIGN_OF_LIFE {
            alive = Instant::now();
            socket.stream.write_all(&[&b"d\0\0\0\x26r"[..], &[0; 33]].concat())?;
        }
        let n = socket.stream.read(&mut socket.buf)?;
        if n == 0 {
            return Err(wrong("the server closed the connection"));
        }
        let mut rest = &socket.buf[..n];
        while !rest.is_empty() {
            if skip > 0 {
                let passed = rest.len().min(skip);
                skip -= passed;
                rest = &rest[passed..];
                continue;
            }
            // 'd', length, 'w', three numbers, and pgoutput's own type.
            const HEAD: usize = 1 + 4 + 1 + 24 + 1;
            let wanted = if cut.is_empty() { 5 } else { head_length(&cut) } - cut.len();
            let taken = rest.len().min(wanted);
            cut.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if cut.len() < 5 || cut.len() < head_length(&cut) {
                continue;
            }
            let length = 1 + length_of(&cut);
            if cut[0] == b'E' {
                return Err(wrong("the server ended the stream with an error: its log says why"));
            }
            if cut[0] == b'd' && cut.len() == HEAD && cut[5] == b'w' {
                seen += u64::from(matches!(cut[HEAD - 1], b'I' | b'U' | b'D'));
                bytes += (length - 5) as u64;
            }
            skip = length - cut.len();
            cut.clear();
        }
        if n < GULP {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(Drained { seconds: began.elapsed().as_secs_f64(), bytes })
}

fn length_of(head: &[u8]) -> usize {
    u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
}

/// How much of a message is looked at: up to pgoutput's type, where there is one.
fn head_length(head: &[u8]) -> usize {
    if head.len() < 5 { 5 } else { (1 + length_of(head)).min(31) }
}

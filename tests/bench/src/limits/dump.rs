//! A binary log, read by a bare socket: `COM_BINLOG_DUMP` to the log's end, as `mysqlbinlog` does.

use super::Drained;
use mysql_common::scramble::{scramble_native, scramble_sha256};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const GULP: usize = 1 << 20;
/// Say EOF at the log's end instead of waiting for more.
const NON_BLOCK: u16 = 1;

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

struct Socket {
    stream: TcpStream,
    sequence: u8,
}

impl Socket {
    fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        self.sequence = head[3].wrapping_add(1);
        let mut body = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16];
        self.stream.read_exact(&mut body)?;
        if body.first() == Some(&0xff) {
            return Err(wrong(String::from_utf8_lossy(body.get(9..).unwrap_or_default())));
        }
        Ok(body)
    }
    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
        let head = [length[0], length[1], length[2], self.sequence];
        self.stream.write_all(&[&head, body].concat())
    }
    fn command(&mut self, body: &[u8]) -> io::Result<()> {
        self.sequence = 0;
        self.send(body)
    }

    fn open(address: &str, user: &str, password: &str) -> io::Result<Socket> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut socket = Socket { stream, sequence: 0 };
        let hello = socket.packet()?;
        let short = || wrong("a greeting that is too short");
        // Protocol, version, thread; 8 bytes of the nonce; capabilities and the like; the rest of the nonce; the plugin.
        let at = 1 + hello.iter().skip(1).position(|b| *b == 0).ok_or_else(short)? + 1 + 4;
        let nonce = [hello.get(at..at + 8).ok_or_else(short)?, hello.get(at + 27..at + 39).ok_or_else(short)?].concat();
        let plugin = hello.get(at + 40..).ok_or_else(short)?.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        let answer = answer(&plugin, &nonce, password)?;
        let mut out = Vec::new();
        // Protocol 4.1, long passwords, transactions, secure connection, plugins.
        out.extend_from_slice(&(1u32 | 4 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19).to_le_bytes());
        out.extend_from_slice(&(1u32 << 30).to_le_bytes());
        out.push(45);
        out.extend_from_slice(&[0; 23]);
        out.extend_from_slice(&[user.as_bytes(), &[0, answer.len() as u8], &answer, &plugin, &[0]].concat());
        socket.send(&out)?;
        loop {
            let packet = socket.packet()?;
            match packet.split_first() {
                Some((0, _)) => return Ok(socket),
                Some((1, [3])) => {} // the server remembers the password of whoever wrote the backlog
                Some((0xfe, rest)) => {
                    let mut parts = rest.splitn(2, |b| *b == 0);
                    let (plugin, nonce) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
                    let answer = self::answer(plugin, nonce, password)?;
                    socket.send(&answer)?;
                }
                _ => return Err(wrong("the server wants another way to authenticate")),
            }
        }
    }
}

fn answer(plugin: &[u8], nonce: &[u8], password: &str) -> io::Result<Vec<u8>> {
    let password = password.as_bytes();
    let answer = match plugin {
        b"mysql_native_password" => scramble_native(nonce, password).map(|a| a.to_vec()),
        b"caching_sha2_password" => scramble_sha256(nonce, password).map(|a| a.to_vec()),
        other => return Err(wrong(format!("{}: not known here", String::from_utf8_lossy(other)))),
    };
    Ok(answer.unwrap_or_default())
}

/// Reads the log of the server at `url` from the start of `file` to its end.
pub fn drain(url: &str, file: &str, patience: Duration) -> io::Result<Drained> {
    let (account, address) = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .ok_or_else(|| wrong("no account in the URL"))?;
    let (user, password) = account.split_once(':').ok_or_else(|| wrong("no password in the URL"))?;
    let mut socket = Socket::open(address.split('/').next().unwrap_or_default(), user, password)?;
    for sql in [
        "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'",
        "SET @mariadb_slave_capability = 4",
    ] {
        socket.command(&[&[3], sql.as_bytes()].concat())?;
        socket.packet()?;
    }
    let began = Instant::now();
    let mut dump = vec![0x12, 4, 0, 0, 0];
    dump.extend_from_slice(&NON_BLOCK.to_le_bytes());
    dump.extend_from_slice(&(1_000_000 + std::process::id()).to_le_bytes());
    dump.extend_from_slice(file.as_bytes());
    socket.command(&dump)?;
    let (mut buf, mut bytes, mut skip, mut head) = (vec![0; GULP], 0, 0, Vec::with_capacity(5));
    loop {
        if began.elapsed() > patience {
            return Err(wrong(format!("the log's end is not reached within {patience:?}")));
        }
        let n = socket.stream.read(&mut buf)?;
        if n == 0 {
            return Err(wrong("the server closed the connection"));
        }
        bytes += n as u64;
        let mut rest = buf.get(..n).unwrap_or_default();
        while let Some((first, tail)) = rest.split_first() {
            if skip > 0 {
                let passed = rest.len().min(skip);
                skip -= passed;
                rest = &rest[passed..];
                continue;
            }
            // Length, sequence, and the packet's first byte.
            head.push(*first);
            rest = tail;
            let &[a, b, c, _, kind] = head.as_slice() else { continue };
            let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            match kind {
                0xfe if length < 9 => return Ok(Drained { seconds: began.elapsed().as_secs_f64(), bytes }),
                0xff => return Err(wrong("the server ended the stream with an error: its log says why")),
                _ => {}
            }
            skip = length.saturating_sub(1);
            head.clear();
        }
    }
}

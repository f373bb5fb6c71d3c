//! Compressed parts of the log: MySQL's whole transactions (zstd), MariaDB's single events and columns (zlib).
//!
//! What is unpacked must have exactly the size that was declared, and the declared size is bounded before anything is
//! allocated. A payload that cannot be unpacked is an error: a transaction never vanishes.

use crate::wire::{Bytes, malformed};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::io::Read;

/// A row image can be 1 GiB; a transaction is several events.
pub const MOST: u64 = 4 << 30;

#[cold]
fn too_large(what: &str, declared: u64, limit: u64) -> Error {
    Error::new(
        Kind::Limit,
        Side::Source,
        Retry::Operator,
        format!("{what} is {declared} bytes when unpacked, the limit is {limit}"),
    )
    .fix("raise the pipeline's memory limit, or switch compression of the binary log off")
}

/// TRANSACTION_PAYLOAD: the events of one transaction, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionPayload<'a> {
    zstd: bool,
    plain_size: u64,
    data: &'a [u8],
}

impl<'a> TransactionPayload<'a> {
    /// Parses the body.
    pub fn parse(body: &'a [u8]) -> Result<TransactionPayload<'a>> {
        let mut b = Bytes::new(body);
        let (mut size, mut kind, mut plain) = (None, None, None);
        loop {
            let field = b.lenenc()?;
            if field == 0 {
                break;
            }
            let value = b.lenenc_bytes()?;
            let number = || Bytes::new(value).lenenc();
            match field {
                1 => size = Some(number()?),
                2 => kind = Some(number()?),
                3 => plain = Some(number()?),
                _ => {}
            }
        }
        let zstd = match kind {
            Some(0) => true,
            Some(255) => false,
            other => return Err(malformed(format!("a transaction packed by method {other:?}"))),
        };
        let data = b.rest();
        if size.is_some_and(|n| n != data.len() as u64) {
            return Err(malformed("a packed transaction whose size is not the declared one"));
        }
        let plain_size = match plain {
            Some(n) => n,
            None if !zstd => data.len() as u64,
            None => return Err(malformed("a packed transaction that does not say how large it is")),
        };
        Ok(TransactionPayload { zstd, plain_size, data })
    }
    /// Size of the events.
    pub fn plain_size(&self) -> u64 {
        self.plain_size
    }
    /// Bytes of the packed events, at the end of the body.
    pub fn packed_size(&self) -> usize {
        self.data.len()
    }
    /// Reads event by event, so that memory is bounded by the largest event and not by the transaction. `data` is the
    /// packed part, [`TransactionPayload::packed_size`] bytes.
    pub fn reader(&self, data: bytes::Bytes) -> Result<PayloadReader> {
        let data = bytes::Buf::reader(data);
        let source: Box<dyn Read + Send> = if self.zstd {
            let decoder = zstd::stream::read::Decoder::new(data).map_err(|e| damaged(&e))?;
            Box::new(decoder)
        } else {
            Box::new(data)
        };
        Ok(PayloadReader { source, left: self.plain_size })
    }
    /// The events, one after another, without checksums of their own.
    pub fn unpack(&self, limit: u64) -> Result<Vec<u8>> {
        if self.plain_size > limit.min(MOST) {
            return Err(too_large("a packed transaction", self.plain_size, limit.min(MOST)));
        }
        if !self.zstd {
            return if self.data.len() as u64 == self.plain_size {
                Ok(self.data.to_vec())
            } else {
                Err(malformed("a stored transaction whose size is not the declared one"))
            };
        }
        let reader = zstd::stream::read::Decoder::with_buffer(self.data).map_err(|e| damaged(&e))?;
        exactly(reader, self.plain_size)
    }
}

#[cold]
fn damaged(e: &std::io::Error) -> Error {
    malformed(format!("packed data that cannot be unpacked ({})", e.kind()))
}

/// Reads exactly `size` bytes: fewer and more are errors.
fn exactly(reader: impl Read, size: u64) -> Result<Vec<u8>> {
    // Grown as it is read, so that a lie about the size costs no more than the data that is there.
    let mut out = Vec::with_capacity(size.min(1 << 20) as usize);
    reader.take(size + 1).read_to_end(&mut out).map_err(|e| damaged(&e))?;
    if out.len() as u64 == size {
        Ok(out)
    } else {
        Err(malformed(format!("packed data that gives {} bytes where {size} were declared", out.len())))
    }
}

/// The events of a packed transaction, unpacked one by one.
pub struct PayloadReader {
    source: Box<dyn Read + Send>,
    left: u64,
}

impl PayloadReader {
    /// The next event; `None` when exactly the declared size has been read and nothing follows.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        if self.left == 0 {
            let more = self.source.read(&mut [0u8]).map_err(|e| damaged(&e))?;
            return if more == 0 {
                Ok(None)
            } else {
                Err(malformed("a packed transaction with more than the declared size"))
            };
        }
        let mut head = [0u8; crate::event::HEADER];
        self.source.read_exact(&mut head).map_err(|e| damaged(&e))?;
        let size = u64::from(crate::event::Header::peek(&head)?.size);
        if size < head.len() as u64 || size > self.left {
            return Err(malformed("an event inside a packed transaction that does not fit it"));
        }
        let rest = size - head.len() as u64;
        let mut event = Vec::with_capacity(size.min(1 << 20) as usize);
        event.extend_from_slice(&head);
        let got = (&mut self.source).take(rest).read_to_end(&mut event).map_err(|e| damaged(&e))?;
        if got as u64 != rest {
            return Err(malformed("a packed transaction that is cut off"));
        }
        self.left -= size;
        Ok(Some(event.into()))
    }
}

/// Splits unpacked events; each is checked to be whole.
pub fn events(mut plain: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    std::iter::from_fn(move || {
        if plain.is_empty() {
            return None;
        }
        let size = plain.get(9..13).and_then(|s| s.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
        match plain.split_at_checked(size).filter(|_| size >= crate::event::HEADER) {
            Some((event, rest)) => {
                plain = rest;
                Some(Ok(event))
            }
            None => {
                plain = &[];
                Some(Err(malformed("an event inside a packed transaction is cut off")))
            }
        }
    })
}

/// MariaDB's compressed part of an event: the statement of QUERY_COMPRESSED, the rows of a compressed rows event.
pub fn unpack_mariadb(packed: &[u8], limit: u64) -> Result<Vec<u8>> {
    let mut b = Bytes::new(packed);
    let head = b.u8()?;
    let lengths = usize::from(head & 7);
    if head & 0x80 == 0 || head >> 4 & 7 != 0 || !(1..=4).contains(&lengths) {
        return Err(malformed(format!("a packed event of unknown form {head:#x}")));
    }
    let size = crate::wire::be(b.take(lengths)?);
    if size > limit.min(MOST) {
        return Err(too_large("a packed event", size, limit.min(MOST)));
    }
    exactly(flate2::read::ZlibDecoder::new(b.rest()), size)
}

/// A value of a MariaDB column with the attribute COMPRESSED.
pub fn unpack_column(cell: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>> {
    let Some((head, rest)) = cell.split_first() else { return Ok(std::borrow::Cow::Borrowed(cell)) };
    match head >> 4 {
        0 => Ok(std::borrow::Cow::Borrowed(rest)),
        8 => {
            let lengths = usize::from(head & 7);
            let mut b = Bytes::new(rest);
            let size = crate::wire::be(b.take(lengths)?);
            let data = b.rest();
            if size > 1 << 30 {
                return Err(too_large("a packed column", size, 1 << 30));
            }
            // Bit 3: a raw deflate stream without zlib's frame.
            let out = if head & 8 != 0 {
                exactly(flate2::read::DeflateDecoder::new(data), size)
            } else {
                exactly(flate2::read::ZlibDecoder::new(data), size)
            };
            out.map(std::borrow::Cow::Owned)
        }
        n => Err(malformed(format!("a column packed by method {n}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn payload(kind: u8, declared: u32, data: &[u8]) -> Vec<u8> {
        let mut b = if kind == 255 { vec![2, 3, 0xfc, 255, 0] } else { vec![2, 1, kind] };
        b.extend([3, 9, 0xfe]);
        b.extend(u64::from(declared).to_le_bytes());
        b.extend([1, 9, 0xfe]);
        b.extend((data.len() as u64).to_le_bytes());
        b.push(0);
        b.extend(data);
        b
    }
    fn unpack(body: &[u8]) -> Result<Vec<u8>> {
        TransactionPayload::parse(body)?.unpack(1 << 20)
    }
    #[test]
    fn a_transaction_never_vanishes() {
        let plain: Vec<u8> = (0..5000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        let n = plain.len() as u32;
        assert_eq!(unpack(&payload(0, n, &packed)).unwrap(), plain);
        assert_eq!(unpack(&payload(255, n, &plain)).unwrap(), plain);
        // too small, too large, damaged, cut off, of an unknown kind, beyond the bound: all are errors
        for bad in [
            payload(0, n - 1, &packed),
            payload(0, n + 1, &packed),
            payload(0, n, &packed[..packed.len() - 9]),
            payload(0, n, &plain),
            payload(255, n, &packed),
            payload(7, n, &packed),
            payload(0, 2 << 20, &packed),
            payload(0, n, &packed)[..40].to_vec(),
            payload(0, n, &[]),
        ] {
            assert!(unpack(&bad).is_err());
        }
    }
    #[test]
    fn event_by_event() {
        let one = |n: usize| {
            let mut e = vec![0u8; n];
            e[9..13].copy_from_slice(&(n as u32).to_le_bytes());
            e
        };
        let plain = [one(19), one(500), one(30)].concat();
        let read = |declared: u64, packed: &[u8]| -> Result<Vec<usize>> {
            let body = payload(0, declared as u32, packed);
            let p = TransactionPayload::parse(&body)?;
            let mut r = p.reader(bytes::Bytes::copy_from_slice(&body[body.len() - p.packed_size()..]))?;
            let mut sizes = vec![];
            while let Some(e) = r.next()? {
                sizes.push(e.len());
            }
            Ok(sizes)
        };
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        let n = plain.len() as u64;
        assert_eq!(read(n, &packed).unwrap(), [19, 500, 30]);
        assert!(read(n - 30, &packed).is_err() && read(n + 1, &packed).is_err() && read(n - 1, &packed).is_err());
        assert!(read(n, &packed[..packed.len() - 6]).is_err() && read(n, &[]).is_err());
    }
    #[test]
    fn mariadb_events() {
        let plain = vec![7u8; 70_000];
        let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        z.write_all(&plain).unwrap();
        let z = z.finish().unwrap();
        let packed = [&[0x83, 1, 0x11, 0x70][..], &z].concat();
        assert_eq!(unpack_mariadb(&packed, 1 << 20).unwrap(), plain);
        assert!(unpack_mariadb(&packed, 1 << 10).is_err());
        assert!(unpack_mariadb(&[&[0x83, 1, 0x11, 0x71][..], &z].concat(), 1 << 20).is_err());
        assert!(unpack_mariadb(&packed[..packed.len() - 5], 1 << 20).is_err());
        assert!(unpack_mariadb(&[0x93, 1, 2, 3], 1 << 20).is_err());
        let column = [&[0x83, 1, 0x11, 0x70][..], &z].concat();
        assert_eq!(*unpack_column(&column).unwrap(), plain[..]);
        assert_eq!(*unpack_column(b"\0abc").unwrap(), b"abc"[..]);
        assert_eq!(*unpack_column(b"").unwrap(), b""[..]);
    }
    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let seen = (unpack(&bytes).is_ok(), unpack_mariadb(&bytes, 1 << 16).is_ok(), unpack_column(&bytes).is_ok(),
                events(&bytes).filter(Result::is_ok).count());
            prop_assert!(seen.3 <= bytes.len());
        }
    }
}

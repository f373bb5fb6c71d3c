//! Reading the server's bytes without trusting them.
//!
//! Every parser of this crate takes its bytes through [`Bytes`]: each step is bounds-checked and answers an [`Error`], so
//! that no input can make the reader panic, read beyond an event or allocate more than the input is long.

use seachange_sdk::{Error, Kind, Result, Retry, Side};

/// An event or value that does not have the form it must have.
#[cold]
pub fn malformed(what: impl Into<String>) -> Error {
    Error::new(Kind::Protocol, Side::Source, Retry::Operator, what)
        .fix("check the binary log with mysqlbinlog --verify-binlog-checksum; if the log is sound, please report this")
}

/// Bytes yet to be read.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Starts at the beginning of `rest`.
    pub fn new(rest: &'a [u8]) -> Self {
        Bytes { rest }
    }
    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// How many bytes have not been read.
    pub fn len(&self) -> usize {
        self.rest.len()
    }
    /// Has everything been read?
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(n) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(malformed(format!("{n} bytes expected where {} are left", self.rest.len()))),
        }
    }
    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(malformed(format!("{N} bytes expected where {} are left", self.rest.len()))),
        }
    }
    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// `n` bytes (at most 8), little-endian.
    #[inline]
    pub fn uint(&mut self, n: usize) -> Result<u64> {
        if n > 8 {
            return Err(malformed(format!("an integer of {n} bytes")));
        }
        Ok(le(self.take(n)?))
    }
    /// A length-encoded integer.
    #[inline]
    pub fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            n @ 0..=250 => Ok(u64::from(n)),
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.uint(8),
            n => Err(malformed(format!("{n:#x} is no length-encoded integer"))),
        }
    }
    /// A length-encoded integer that counts things in memory.
    #[inline]
    pub fn size(&mut self) -> Result<usize> {
        let n = self.lenenc()?;
        usize::try_from(n).map_err(|_| malformed(format!("a length of {n}")))
    }
    /// Bytes behind a length-encoded length.
    #[inline]
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.size()?;
        self.take(n)
    }
    /// An integer in the variable-length form of MySQL's serialization library: the trailing ones of the first byte say
    /// how many bytes follow.
    pub fn varint(&mut self) -> Result<u64> {
        let first = self.u8()?;
        let more = first.trailing_ones() as usize;
        let tail = le(self.take(more)?);
        Ok(match more {
            8 => tail,
            7 => tail,
            n => u64::from(first >> (n + 1)) | tail << (7 - n),
        })
    }
}

/// Up to eight bytes as a little-endian integer.
#[inline]
pub fn le(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Up to eight bytes as a big-endian integer.
#[inline]
pub fn be(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Bit `i` of a bitmap whose first bit is the lowest of its first byte; beyond its end: not set.
#[inline]
pub fn bit(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)
}

/// Bit `i` of a bitmap whose first bit is the highest of its first byte.
#[inline]
pub fn bit_high(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|b| b >> (7 - i % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(n: u64) -> Vec<u8> {
        let bits = 64 - (n | 1).leading_zeros() as usize;
        let more = (bits - 1) / 7;
        if more >= 8 {
            let mut out = vec![0xff];
            out.extend(n.to_le_bytes());
            return out;
        }
        let word = (u128::from(n) << (more + 1)) | ((1u128 << more) - 1);
        word.to_le_bytes()[..=more].to_vec()
    }

    proptest! {
        #[test]
        fn varints_round_trip(n in any::<u64>(), shift in 0u32..64) {
            let n = n >> shift;
            let bytes = varint(n);
            let mut b = Bytes::new(&bytes);
            prop_assert_eq!(b.varint().unwrap(), n);
            prop_assert!(b.is_empty());
        }
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut b = Bytes::new(&bytes);
            while !b.is_empty() && b.varint().is_ok() && b.lenenc().is_ok() {}
        }
    }
    #[test]
    fn length_encoded() {
        let mut b = Bytes::new(&[0xfa, 0xfc, 1, 2, 0xfd, 1, 2, 3, 0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80, 0xfb]);
        assert_eq!((b.lenenc().unwrap(), b.lenenc().unwrap(), b.lenenc().unwrap()), (250, 0x201, 0x30201));
        assert_eq!(b.lenenc().unwrap(), 1 | 0x80 << 56);
        assert!(b.lenenc().is_err());
    }
}

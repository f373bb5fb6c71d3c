//! DECIMAL: the servers' packed form to exact digits, and back.
//!
//! Nine digits take four bytes, fewer take as many bytes as they need; whole digits first, then those after the point, each
//! group big-endian. The highest bit is set for values that are not negative; for negative ones all bits are inverted.

use crate::wire::{be, malformed};
use seachange_sdk::Result;

/// Bytes of a group of 0 to 9 digits.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes of a DECIMAL(precision, scale).
pub fn width(precision: u8, scale: u8) -> Result<usize> {
    let (p, s) = (usize::from(precision), usize::from(scale));
    // MariaDB allows 38 digits after the point, MySQL 30.
    if p == 0 || p > 65 || s > p || s > 38 {
        return Err(malformed(format!("DECIMAL({p},{s})")));
    }
    let part = |digits: usize| digits / 9 * 4 + BYTES[digits % 9];
    Ok(part(p - s) + part(s))
}

/// Appends the digits of a packed value: `-?[0-9]+(\.[0-9]+)?`, all of its scale, no leading zeros.
pub fn decode(bytes: &[u8], precision: u8, scale: u8, out: &mut String) -> Result<()> {
    if bytes.len() != width(precision, scale)? {
        return Err(malformed(format!("a DECIMAL({precision},{scale}) of {} bytes", bytes.len())));
    }
    let (p, s) = (usize::from(precision), usize::from(scale));
    let mut copy = [0u8; 32];
    let copy = copy.get_mut(..bytes.len()).ok_or_else(|| malformed("a DECIMAL of more than 32 bytes"))?;
    copy.copy_from_slice(bytes);
    let Some(first) = copy.first_mut() else { return Err(malformed("a DECIMAL of no bytes")) };
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        copy.iter_mut().for_each(|b| *b = !*b);
    }
    let mut rest: &[u8] = copy;
    let mut group = |digits: usize| -> Result<u32> {
        let (head, tail) =
            rest.split_at_checked(BYTES[digits]).ok_or_else(|| malformed("a DECIMAL that is cut off"))?;
        rest = tail;
        let n = be(head) as u32;
        if n >= 10u32.pow(digits as u32) { Err(malformed("a DECIMAL with a group out of range")) } else { Ok(n) }
    };
    let start = out.len();
    if negative {
        out.push('-');
    }
    let whole = p - s;
    let mut begun = false;
    for digits in std::iter::once(whole % 9).chain(std::iter::repeat_n(9, whole / 9)).filter(|d| *d > 0) {
        let n = group(digits)?;
        if begun {
            push(out, n, digits);
        } else if n > 0 {
            begun = true;
            push(out, n, n.ilog10() as usize + 1);
        }
    }
    if !begun {
        out.push('0');
    }
    let mut zero = !begun;
    if s > 0 {
        out.push('.');
        for digits in std::iter::repeat_n(9, s / 9).chain(std::iter::once(s % 9)).filter(|d| *d > 0) {
            let n = group(digits)?;
            zero &= n == 0;
            push(out, n, digits);
        }
    }
    if negative && zero {
        out.remove(start);
    }
    Ok(())
}

fn push(out: &mut String, n: u32, digits: usize) {
    for i in (0..digits as u32).rev() {
        out.push(char::from(b'0' + (n / 10u32.pow(i) % 10) as u8));
    }
}

/// Packs digits as the server prints them: the snapshot's rows get the stream's form. Refuses what does not fit.
pub fn encode(text: &[u8], precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<()> {
    let total = width(precision, scale)?;
    let wrong = || malformed(format!("a value that is no DECIMAL({precision},{scale})"));
    let (p, s) = (usize::from(precision), usize::from(scale));
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut parts = digits.splitn(2, |c| *c == b'.');
    let whole = parts.next().unwrap_or(&[]);
    let fraction = parts.next().unwrap_or(&[]);
    let whole = whole.get(whole.iter().take_while(|c| **c == b'0').count()..).unwrap_or(&[]);
    if whole.len() > p - s || fraction.len() > s || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let mut all = [b'0'; 65];
    let end = p - s;
    all.get_mut(end - whole.len()..end).ok_or_else(wrong)?.copy_from_slice(whole);
    all.get_mut(end..end + fraction.len()).ok_or_else(wrong)?.copy_from_slice(fraction);
    let start = out.len();
    let mut rest = &all[..];
    let mut group = |digits: usize, out: &mut Vec<u8>| -> Result<()> {
        let (head, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        rest = tail;
        let n = head.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
        out.extend(n.to_be_bytes().get(4 - BYTES[digits]..).unwrap_or(&[]));
        Ok(())
    };
    for digits in std::iter::once(end % 9).chain(std::iter::repeat_n(9, end / 9)).filter(|d| *d > 0) {
        group(digits, out)?;
    }
    for digits in std::iter::repeat_n(9, s / 9).chain(std::iter::once(s % 9)).filter(|d| *d > 0) {
        group(digits, out)?;
    }
    let made = out.get_mut(start..).unwrap_or_default();
    if made.len() != total {
        return Err(wrong());
    }
    if negative {
        made.iter_mut().for_each(|b| *b = !*b);
    }
    if let Some(first) = made.first_mut() {
        *first ^= 0x80;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], p: u8, s: u8) -> String {
        let mut out = String::new();
        decode(bytes, p, s, &mut out).unwrap();
        out
    }
    #[test]
    fn known_values() {
        // from the server's documentation of the format
        assert_eq!(text(&[0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2], 14, 4), "1234567890.1234");
        assert_eq!(text(&[0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D], 14, 4), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0x0a], 4, 2), "0.10");
        assert_eq!(text(&[0x83, 0xe7, 0x63], 5, 2), "999.99");
        assert_eq!(text(&[0x7f, 0xff], 4, 2), "0.00");
    }
    #[test]
    fn what_cannot_be_is_refused() {
        let mut out = String::new();
        assert!(decode(&[0xff, 0xff], 4, 2, &mut out).is_err());
        assert!(decode(&[0x80], 4, 2, &mut out).is_err());
        for (p, s) in [(0, 0), (66, 0), (5, 6), (65, 39), (255, 255)] {
            assert!(width(p, s).is_err(), "{p} {s}");
        }
        let mut bytes = vec![];
        for bad in ["100.0", "1.234", "x", "1e5", "--1"] {
            assert!(encode(bad.as_bytes(), 4, 2, &mut bytes).is_err(), "{bad}");
        }
    }
    proptest! {
        #[test]
        fn round_trip((p, s) in (1u8..=65).prop_flat_map(|p| (Just(p), 0..=p.min(38))), seed in any::<[u8; 32]>(), negative in any::<bool>()) {
            let digit = |i: usize| char::from(b'0' + seed[i % 32].wrapping_mul(i as u8 | 1) % 10);
            let whole: String = (0..p - s).map(|i| digit(i.into())).collect();
            let whole = whole.trim_start_matches('0');
            let mut t = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
            if s > 0 {
                t.push('.');
                t.extend((0..s).map(|i| digit(usize::from(i) + 40)));
            }
            if negative && t.bytes().any(|c| (b'1'..=b'9').contains(&c)) {
                t.insert(0, '-');
            }
            let mut packed = vec![];
            encode(t.as_bytes(), p, s, &mut packed).unwrap();
            prop_assert_eq!(text(&packed, p, s), t);
        }
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40), p in any::<u8>(), s in any::<u8>()) {
            let mut out = String::new();
            let seen = (decode(&bytes, p, s, &mut out).is_ok(), encode(&bytes, p, s, &mut vec![]).is_ok());
            std::hint::black_box(seen);
        }
    }
}

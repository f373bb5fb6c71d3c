//! DECIMAL: the servers' packed form to exact digits, and back.
//!
//! Nine digits take four bytes, fewer take as many bytes as they need; whole digits first, then those after the point, each
//! group big-endian. The highest bit is set for values that are not negative; for negative ones all bits are inverted.

use crate::wire::malformed;
use seachange_sdk::Result;

/// Bytes of a group of 0 to 9 digits.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// 10 to the power of a group's digits.
const POWERS: [u32; 10] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

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

/// The most digits whose number always fits an `i128`.
pub const MOST_UNSCALED: u8 = 38;

/// A packed value of at most [`MOST_UNSCALED`] digits without its point.
pub fn unscaled(bytes: &[u8], precision: u8, scale: u8) -> Result<i128> {
    if precision > MOST_UNSCALED {
        return Err(malformed(format!("a DECIMAL({precision},{scale}) to be read as a number")));
    }
    // Groups have no more than the precision's digits, so neither product nor sum leaves its type.
    let (mut few, mut many) = (0u64, 0i128);
    let negative = if precision <= 19 {
        walk(bytes, precision, scale, |count, group| {
            few = few * u64::from(POWERS[count]) + u64::from(group);
            Some(())
        })?
    } else {
        walk(bytes, precision, scale, |count, group| {
            many = many * i128::from(POWERS[count]) + i128::from(group);
            Some(())
        })?
    };
    let n = many + i128::from(few);
    Ok(if negative { -n } else { n })
}

/// The digits of a packed value: `-?[0-9]+(\.[0-9]+)?`, all of its scale, no leading zeros.
pub fn decode(bytes: &[u8], precision: u8, scale: u8) -> Result<String> {
    let (p, s) = (usize::from(precision), usize::from(scale));
    // All digits of the declared precision, the whole ones first.
    let mut digits = [b'0'; 65];
    let mut free = digits.as_mut_slice();
    let put = |count: usize, group: u32| {
        let (place, after) = std::mem::take(&mut free).split_at_mut_checked(count)?;
        let mut left = group;
        for digit in place.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        free = after;
        Some(())
    };
    let negative = walk(bytes, precision, scale, put)?;
    let digits = std::str::from_utf8(digits.get(..p).unwrap_or_default()).map_err(|_| malformed("a DECIMAL"))?;
    let (whole, fraction) = digits.split_at(p - s);
    let whole = whole.trim_start_matches('0');
    let mut out = String::with_capacity(p + 3);
    if negative && digits.bytes().any(|d| d != b'0') {
        out.push('-');
    }
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if s > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(out)
}

/// Tells of each group, the highest first, how many digits it has and their number; answers whether the value is negative.
#[inline]
fn walk(bytes: &[u8], precision: u8, scale: u8, mut tell: impl FnMut(usize, u32) -> Option<()>) -> Result<bool> {
    if bytes.len() != width(precision, scale)? {
        return Err(malformed(format!("a DECIMAL({precision},{scale}) of {} bytes", bytes.len())));
    }
    let (p, s) = (usize::from(precision), usize::from(scale));
    let Some(first) = bytes.first() else { return Err(malformed("a DECIMAL of no bytes")) };
    let negative = first & 0x80 == 0;
    let flip = if negative { 0xff } else { 0 };
    let mut rest = bytes;
    let mut sign = 0x80; // of the first group's highest bit only
    let mut group = |count: usize| {
        let cut = || malformed("a DECIMAL that is cut off");
        let (head, tail) = rest.split_at_checked(BYTES[count]).ok_or_else(cut)?;
        rest = tail;
        let n = head.iter().fold(0u32, |n, b| n << 8 | u32::from(b ^ flip ^ std::mem::take(&mut sign)));
        if n >= POWERS[count] {
            return Err(malformed("a DECIMAL with a group out of range"));
        }
        tell(count, n).ok_or_else(cut)
    };
    let whole = p - s;
    if whole % 9 > 0 {
        group(whole % 9)?;
    }
    for _ in 0..whole / 9 + s / 9 {
        group(9)?;
    }
    if s % 9 > 0 {
        group(s % 9)?;
    }
    Ok(negative)
}

/// How many digits each group has, for that many digits before the point and after it.
fn groups(whole: usize, fraction: usize) -> impl Iterator<Item = usize> {
    use std::iter::{once, repeat_n};
    let whole = once(whole % 9).chain(repeat_n(9, whole / 9));
    whole.chain(repeat_n(9, fraction / 9)).chain(once(fraction % 9)).filter(|digits| *digits > 0)
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
    for digits in groups(end, s) {
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
        decode(bytes, p, s).unwrap()
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
        assert!(decode(&[0xff, 0xff], 4, 2).is_err());
        assert!(decode(&[0x80], 4, 2).is_err());
        assert!(unscaled(&[0xff, 0xff], 4, 2).is_err() && unscaled(&[0x80], 4, 2).is_err());
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
            prop_assert_eq!(text(&packed, p, s), &t[..]);
            if p <= MOST_UNSCALED {
                let mut digits = String::new();
                seachange_sdk::digits(unscaled(&packed, p, s).unwrap(), s, &mut digits);
                prop_assert_eq!(digits, t);
            }
        }
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40), p in any::<u8>(), s in any::<u8>()) {
            let seen = (decode(&bytes, p, s).is_ok(), unscaled(&bytes, p, s).is_ok(), encode(&bytes, p, s, &mut vec![]).is_ok());
            std::hint::black_box(seen);
        }
    }
}

//! Decimals as Kafka Connect has them: the unscaled number as big-endian two's complement, exact for any number of digits.
//!
//! Up to 38 digits fit a `u128` (every declared precision that databases use in practice); longer ones go through limbs in a
//! reused buffer. Input is the exact text of [`seachange_sdk::Value::Decimal`]; it is checked, never trusted.

use seachange_sdk::{Error, Result};

/// A decimal's text, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

fn bad() -> Error {
    Error::value("a decimal that is not digits").fix(
        "this is a fault of the connector: please report the column's type; `columns.exclude` keeps the column out",
    )
}

impl<'a> Digits<'a> {
    /// Takes `-?[0-9]+(\.[0-9]+)?` apart; leading zeros are dropped. `None` for `NaN` and infinities.
    pub fn parse(text: &'a str) -> Result<Option<Digits<'a>>> {
        let bytes = text.as_bytes();
        let from = usize::from(bytes.first() == Some(&b'-'));
        if matches!(bytes.get(from), Some(b'N' | b'I')) && matches!(text, "NaN" | "Infinity" | "-Infinity") {
            return Ok(None);
        }
        // One walk: nothing but digits and at most one point, and at least one digit.
        let mut point = None;
        for (at, byte) in bytes.iter().enumerate().skip(from) {
            match byte {
                b'0'..=b'9' => {}
                b'.' if point.is_none() => point = Some(at),
                _ => return Err(bad()),
            }
        }
        if bytes.len() - from == usize::from(point.is_some()) {
            return Err(bad());
        }
        let whole = text[from..point.unwrap_or(text.len())].trim_start_matches('0');
        Ok(Some(Digits { negative: from == 1, whole, fraction: point.map_or("", |at| &text[at + 1..]) }))
    }

    /// Without zeros at the end of the fraction, as Debezium strips them when the scale varies by value.
    pub fn stripped(self) -> Digits<'a> {
        Digits { fraction: self.fraction.trim_end_matches('0'), ..self }
    }

    /// Digits after the point.
    pub fn scale(self) -> usize {
        self.fraction.len()
    }

    /// Is it zero?
    pub fn is_zero(self) -> bool {
        self.whole.is_empty() && self.fraction.bytes().all(|b| b == b'0')
    }

    /// The parts for a canonical form: sign (never of a zero), whole digits without leading zeros, fraction without
    /// trailing ones.
    pub fn canonical(self) -> (bool, &'a str, &'a str) {
        let d = self.stripped();
        (d.negative && !d.is_zero(), d.whole, d.fraction)
    }

    /// Appends the unscaled number at `scale` as the shortest big-endian two's complement. Fails when digits would be lost.
    pub fn unscaled(self, scale: i32, limbs: &mut Vec<u32>, out: &mut Vec<u8>) -> Result<()> {
        let lost = || {
            Error::value(format!("a decimal has more digits than its declared scale {scale} holds"))
                .fix("set `decimal = \"string\"` for the pipeline, which keeps every digit")
        };
        // What remains of the digits, and how many zeros follow them.
        let (whole, fraction, zeros) = if scale >= 0 {
            let scale = scale as usize;
            match self.fraction.split_at_checked(scale) {
                Some((kept, cut)) if cut.bytes().all(|b| b == b'0') => (self.whole, kept, 0),
                Some(_) => return Err(lost()),
                None => (self.whole, self.fraction, scale - self.fraction.len()),
            }
        } else {
            if self.fraction.bytes().any(|b| b != b'0') {
                return Err(lost());
            }
            let drop = scale.unsigned_abs() as usize;
            let (kept, cut) = self.whole.split_at(self.whole.len().saturating_sub(drop));
            if cut.bytes().any(|b| b != b'0') {
                return Err(lost());
            }
            (kept, "", 0)
        };
        const MOST_ZEROS: usize = 1 << 17; // more than any database's scale
        if zeros > MOST_ZEROS {
            return Err(lost());
        }
        let digits = || whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', zeros)).map(|b| b - b'0');
        if whole.len() + fraction.len() + zeros <= 38 {
            // below 10^38, and so below 2^127
            let n = digits().fold(0i128, |n, d| n * 10 + i128::from(d));
            out.extend_from_slice(shortest(if self.negative { -n } else { n }, &mut [0; 16]));
            return Ok(());
        }
        // Nine digits at a time into limbs of base 2^32, lowest first.
        limbs.clear();
        let mut iter = digits();
        loop {
            let (mut group, mut power) = (0u32, 1u32);
            for d in iter.by_ref().take(9) {
                group = group * 10 + u32::from(d);
                power *= 10;
            }
            if power == 1 {
                break;
            }
            let mut carry = u64::from(group);
            for limb in limbs.iter_mut() {
                let n = u64::from(*limb) * u64::from(power) + carry;
                *limb = n as u32;
                carry = n >> 32;
            }
            if carry != 0 {
                limbs.push(carry as u32);
            }
        }
        let start = out.len();
        out.push(0); // room for the sign
        limbs.iter().rev().for_each(|limb| out.extend_from_slice(&limb.to_be_bytes()));
        negate_and_shorten(self.negative, start, out);
        Ok(())
    }
}

/// The shortest big-endian two's complement, at the end of `room`.
pub fn shortest(n: i128, room: &mut [u8; 16]) -> &[u8] {
    *room = n.to_be_bytes();
    // Of the 1 to 128 bits that repeat the sign, one has to stay: 15 bytes at most are spare.
    let spare = (n.leading_zeros().max(n.leading_ones()) - 1) / 8;
    &room[spare as usize..]
}

/// `out[start..]` is a magnitude with a zero byte before it: gives it its sign and drops bytes that say nothing.
fn negate_and_shorten(negative: bool, start: usize, out: &mut Vec<u8>) {
    let Some(bytes) = out.get_mut(start..) else { return };
    if negative {
        let mut carry = true;
        for b in bytes.iter_mut().rev() {
            let (n, over) = (!*b).overflowing_add(u8::from(carry));
            (*b, carry) = (n, over);
        }
    }
    let spare = bytes.windows(2).take_while(|w| (w[0] == 0 && w[1] < 0x80) || (w[0] == 0xff && w[1] >= 0x80)).count();
    out.drain(start..start + spare);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json;
    use proptest::prelude::*;

    fn base64(text: &str, scale: i32) -> String {
        let (mut limbs, mut raw, mut out) = (Vec::new(), Vec::new(), Vec::new());
        Digits::parse(text).unwrap().unwrap().unscaled(scale, &mut limbs, &mut raw).unwrap();
        json::base64(&mut out, &raw);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_recorded() {
        for (text, scale, want) in [
            ("999.99", 2, "AYaf"),
            ("-999.99", 2, "/nlh"),
            ("0.00", 2, "AA=="),
            ("1.00", 2, "ZA=="),
            ("7.10", 2, "AsY="),
            ("99999999999999999999999999999999999999", 0, "SztMqFqGxHoJiiI//////w=="),
            ("-1", 0, "/w=="),
            ("1.2345", 4, "MDk="),
            ("-0.0001", 4, "/w=="),
            ("7.0000", 4, "ARFw"),
            ("10.50", 2, "BBo="),
            ("92233720368547758.07", 2, "f/////////8="),
            ("1234.56", 2, "AeJA"),
            ("3.14159265358979323846", 20, "EQfV61tbpNfG"),
            ("0.000000000000000000001", 21, "AQ=="),
            ("12300", -2, "ew=="),
            ("1.5", 2, "AJY="),
        ] {
            assert_eq!(base64(text, scale), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        for text in ["", "-", ".", "1e5", "+1", "1.2.3", " 1", "１"] {
            assert!(Digits::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Digits::parse("NaN").unwrap(), None);
        let (mut limbs, mut out) = (Vec::new(), Vec::new());
        assert!(Digits::parse("1.234").unwrap().unwrap().unscaled(2, &mut limbs, &mut out).is_err());
        assert!(Digits::parse("123").unwrap().unwrap().unscaled(-2, &mut limbs, &mut out).is_err());
        assert!(Digits::parse("1").unwrap().unwrap().unscaled(i32::MAX, &mut limbs, &mut out).is_err());
        assert_eq!(Digits::parse("-0.00").unwrap().unwrap().canonical(), (false, "", ""));
    }

    proptest! {
        #[test]
        fn small_numbers_equal_the_machine(n: i64) {
            let (mut limbs, mut out) = (Vec::new(), Vec::new());
            Digits::parse(&n.to_string()).unwrap().unwrap().unscaled(0, &mut limbs, &mut out).unwrap();
            let mut wide = if n < 0 { [0xff; 8] } else { [0; 8] };
            wide[8 - out.len()..].copy_from_slice(&out);
            prop_assert_eq!(i64::from_be_bytes(wide), n);
            prop_assert!(out.len() == 1 || n != i64::from(n as i8), "shortest");
        }
        /// The long way (limbs) gives the digits back by repeated division.
        #[test]
        fn long_numbers_read_back(text in "-?[1-9][0-9]{38,400}") {
            let (mut limbs, mut out) = (Vec::new(), Vec::new());
            Digits::parse(&text).unwrap().unwrap().unscaled(0, &mut limbs, &mut out).unwrap();
            let negative = out[0] >= 0x80;
            let mut magnitude = out.clone();
            if negative {
                let mut carry = true;
                for b in magnitude.iter_mut().rev() {
                    let (n, over) = (!*b).overflowing_add(u8::from(carry));
                    (*b, carry) = (n, over);
                }
            }
            let mut digits = Vec::new();
            while magnitude.iter().any(|b| *b != 0) {
                let mut rest = 0u32;
                for b in magnitude.iter_mut() {
                    let n = rest * 256 + u32::from(*b);
                    *b = (n / 10) as u8;
                    rest = n % 10;
                }
                digits.push(b'0' + rest as u8);
            }
            if negative {
                digits.push(b'-');
            }
            digits.reverse();
            prop_assert_eq!(String::from_utf8(digits).unwrap(), text);
        }
    }
}

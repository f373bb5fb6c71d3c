//! Dates and times: the packed forms of the log, old and new, and the ones inside JSON.
//!
//! A date that is in no calendar (zero, partly zero, or the 31st of February under ALLOW_INVALID_DATES) keeps its text: it is
//! never moved to another day. TIME runs from -838:59:59.999999 to 838:59:59.999999; the new form is one signed number in which
//! the fraction belongs to the sign, the old form is `HHMMSS` as a signed decimal number.

use crate::wire::{be, le, malformed};
use seachange_sdk::{Result, Value};
use std::{borrow::Cow, fmt::Write};

/// A date and time of day, field by field, as the server stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 9999.
    pub year: u32,
    /// 0 to 12.
    pub month: u32,
    /// 0 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// Microseconds.
    pub micros: u32,
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar; `None` if there is no such day.
pub fn days(year: u32, month: u32, day: u32) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    // The server counts its year 0 as a year, and its dates begin there; month 0 and day 0 are "unknown".
    if day == 0 || day > length {
        return None;
    }
    let y = i64::from(year) - i64::from(month <= 2);
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The day of a number of days since 1970-01-01.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month as u32, (doy - (153 * mp + 2) / 5 + 1) as u32)
}

impl Fields {
    fn checked(self) -> Result<Fields> {
        let ok = self.year <= 9999
            && self.month <= 12
            && self.day <= 31
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 59
            && self.micros < 1_000_000;
        if ok { Ok(self) } else { Err(malformed("a date or time with a field out of range")) }
    }
    /// A date.
    pub fn date(self) -> Value<'static> {
        match days(self.year, self.month, self.day) {
            Some(d) => Value::Date(d),
            None => {
                let mut s = String::new();
                self.print_date(&mut s);
                Value::ZeroDate(Cow::Owned(s))
            }
        }
    }
    /// A date and time with so many digits of the second's fraction.
    pub fn timestamp(self, digits: usize) -> Value<'static> {
        match self.seconds() {
            Some(s) => Value::Timestamp(s, self.micros),
            None => {
                let mut s = String::new();
                self.print(digits, &mut s);
                Value::ZeroDate(Cow::Owned(s))
            }
        }
    }
    /// Seconds since 1970-01-01T00:00:00, as if UTC.
    pub fn seconds(self) -> Option<i64> {
        let d = days(self.year, self.month, self.day)?;
        Some(d * 86_400 + i64::from(self.hour * 3600 + self.minute * 60 + self.second))
    }
    fn print_date(self, out: &mut String) {
        // writing to a String does not fail
        let _ok = write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day).is_ok();
    }
    /// As the server prints it.
    pub fn print(self, digits: usize, out: &mut String) {
        self.print_date(out);
        let _ok = write!(out, " {:02}:{:02}:{:02}", self.hour, self.minute, self.second).is_ok();
        print_fraction(self.micros, digits, out);
    }
    /// From `YYYY-MM-DD[ hh:mm:ss[.ffffff]]`.
    pub fn parse(text: &[u8]) -> Result<Fields> {
        let wrong = || malformed("a date that does not look like one");
        let mut n = [0u32; 6];
        let mut at = 0;
        for (i, width) in [4usize, 2, 2, 2, 2, 2].iter().enumerate() {
            if i == 3 && at == text.len() {
                break;
            }
            if i > 0 {
                let separator = text.get(at).ok_or_else(wrong)?;
                if !matches!(separator, b'-' | b' ' | b':' | b'T') {
                    return Err(wrong());
                }
                at += 1;
            }
            let digits = text.get(at..at + width).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or_else(wrong)?;
            if let Some(slot) = n.get_mut(i) {
                *slot = digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'));
            }
            at += width;
        }
        let micros = match text.get(at..) {
            None | Some([]) => 0,
            Some([b'.', rest @ ..]) if rest.len() <= 6 && rest.iter().all(u8::is_ascii_digit) => {
                rest.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0')) * 10u32.pow(6 - rest.len() as u32)
            }
            _ => return Err(wrong()),
        };
        let [year, month, day, hour, minute, second] = n;
        Fields { year, month, day, hour, minute, second, micros }.checked()
    }
    /// Unpacks the number that DATETIME2 and JSON hold: the fraction in the low 24 bits.
    pub fn unpack(packed: u64) -> Result<Fields> {
        let (high, micros) = (packed >> 24, (packed & 0xff_ffff) as u32);
        let (ymd, hms) = (high >> 17, (high & 0x1_ffff) as u32);
        let ym = (ymd >> 5) as u32;
        Fields {
            year: ym / 13,
            month: ym % 13,
            day: (ymd & 31) as u32,
            hour: hms >> 12,
            minute: hms >> 6 & 63,
            second: hms & 63,
            micros,
        }
        .checked()
    }
    fn pack(self) -> u64 {
        let ymd = u64::from((self.year * 13 + self.month) << 5 | self.day);
        let hms = u64::from(self.hour << 12 | self.minute << 6 | self.second);
        (ymd << 17 | hms) << 24 | u64::from(self.micros)
    }
}

/// Appends `.ffffff` cut to so many digits.
pub fn print_fraction(micros: u32, digits: usize, out: &mut String) {
    if digits > 0 {
        let text = format!("{micros:06}");
        out.push('.');
        out.push_str(text.get(..digits.min(6)).unwrap_or(""));
    }
}

/// Bytes of a fraction of so many digits, and what one unit of it is in microseconds.
fn fraction(digits: usize) -> (usize, u32) {
    match digits {
        0 => (0, 0),
        1 | 2 => (1, 10_000),
        3 | 4 => (2, 100),
        _ => (3, 1),
    }
}

/// DATE, three bytes.
pub fn date(bytes: &[u8]) -> Result<Fields> {
    if bytes.len() != 3 {
        return Err(malformed("a DATE that is not 3 bytes"));
    }
    let n = le(bytes) as u32;
    Fields { year: n >> 9, month: n >> 5 & 15, day: n & 31, ..Fields::default() }.checked()
}

/// DATETIME2: five bytes and the fraction.
pub fn datetime2(bytes: &[u8], digits: usize) -> Result<Fields> {
    let (size, unit) = fraction(digits);
    let (whole, part) = bytes
        .split_first_chunk::<5>()
        .filter(|x| x.1.len() == size)
        .ok_or_else(|| malformed("a DATETIME of a wrong length"))?;
    // The sign is set for all dates there are.
    let high = be(whole).checked_sub(1 << 39).ok_or_else(|| malformed("a DATETIME before the year 0"))?;
    let micros = be(part) as u32;
    Fields::unpack(high << 24 | u64::from(micros.saturating_mul(unit.max(1)).min(0xff_ffff)))
}

/// The old DATETIME: `YYYYMMDDhhmmss` as a number of eight bytes.
pub fn datetime(bytes: &[u8]) -> Result<Fields> {
    if bytes.len() != 8 {
        return Err(malformed("a DATETIME that is not 8 bytes"));
    }
    let n = le(bytes);
    let (d, t) = (n / 1_000_000, (n % 1_000_000) as u32);
    let year = u32::try_from(d / 10_000).map_err(|_| malformed("a DATETIME beyond the year 9999"))?;
    let md = (d % 10_000) as u32;
    Fields { year, month: md / 100, day: md % 100, hour: t / 10_000, minute: t / 100 % 100, second: t % 100, micros: 0 }
        .checked()
}

/// TIMESTAMP2: four bytes big-endian and the fraction. Zero is the zero date.
pub fn timestamp2(bytes: &[u8], digits: usize) -> Result<Value<'static>> {
    let (size, unit) = fraction(digits);
    let (whole, part) = bytes
        .split_first_chunk::<4>()
        .filter(|x| x.1.len() == size)
        .ok_or_else(|| malformed("a TIMESTAMP of a wrong length"))?;
    let micros = (be(part) as u32).saturating_mul(unit.max(1));
    if micros >= 1_000_000 {
        return Err(malformed("a TIMESTAMP with a fraction out of range"));
    }
    Ok(instant(u32::from_be_bytes(*whole), micros, digits))
}

/// The old TIMESTAMP: four bytes little-endian.
pub fn timestamp(bytes: &[u8]) -> Result<Value<'static>> {
    let whole = bytes.try_into().map_err(|_| malformed("a TIMESTAMP that is not 4 bytes"))?;
    Ok(instant(u32::from_le_bytes(whole), 0, 0))
}

fn instant(seconds: u32, micros: u32, digits: usize) -> Value<'static> {
    if seconds == 0 && micros == 0 {
        let mut s = String::new();
        Fields::default().print(digits, &mut s);
        return Value::ZeroDate(Cow::Owned(s));
    }
    Value::TimestampTz(i64::from(seconds), micros)
}

/// TIME2: three bytes and the fraction, one signed number. Microseconds.
pub fn time2(bytes: &[u8], digits: usize) -> Result<i64> {
    let (size, unit) = fraction(digits);
    if bytes.len() != 3 + size {
        return Err(malformed("a TIME of a wrong length"));
    }
    let bits = 8 * bytes.len() as u32;
    let n = be(bytes) as i64 - (1i64 << (bits - 1));
    let (negative, n) = (n < 0, n.unsigned_abs());
    let part = (n & ((1 << (8 * size)) - 1)) as i64 * i64::from(unit);
    micros_of(negative, n >> (8 * size), part)
}

/// The packed time inside JSON: the fraction in the low 24 bits. Sign and microseconds.
pub fn unpack_time(packed: i64) -> Result<i64> {
    let n = packed.unsigned_abs();
    micros_of(packed < 0, n >> 24, (n & 0xff_ffff) as i64)
}

fn micros_of(negative: bool, hms: u64, micros: i64) -> Result<i64> {
    let (hour, minute, second) = ((hms >> 12) as i64, (hms >> 6 & 63) as i64, (hms & 63) as i64);
    if hour > 1023 || minute > 59 || second > 59 || micros > 999_999 {
        return Err(malformed("a TIME with a field out of range"));
    }
    let n = (hour * 3600 + minute * 60 + second) * 1_000_000 + micros;
    Ok(if negative { -n } else { n })
}

/// The old TIME: `HHMMSS` as a signed number of three bytes. Microseconds.
pub fn time(bytes: &[u8]) -> Result<i64> {
    let [a, b, c] = bytes.try_into().map_err(|_| malformed("a TIME that is not 3 bytes"))?;
    let n = i64::from(i32::from_le_bytes([0, a, b, c]) >> 8);
    let (negative, n) = (n < 0, n.abs());
    let (hour, minute, second) = (n / 10_000, n / 100 % 100, n % 100);
    if minute > 59 || second > 59 {
        return Err(malformed("a TIME with a field out of range"));
    }
    let n = (hour * 3600 + minute * 60 + second) * 1_000_000;
    Ok(if negative { -n } else { n })
}

/// Appends a time of day as the server prints it: `-838:59:59.999999`.
pub fn print_time(micros: i64, digits: usize, out: &mut String) {
    if micros < 0 {
        out.push('-');
    }
    let n = micros.unsigned_abs();
    let s = n / 1_000_000;
    let _ok = write!(out, "{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60).is_ok();
    print_fraction((n % 1_000_000) as u32, digits, out);
}

/// Snapshot rows in the stream's form.
pub mod encode {
    use super::*;

    fn put(n: u64, bytes: usize, out: &mut Vec<u8>) {
        out.extend(n.to_be_bytes().get(8usize.saturating_sub(bytes)..).unwrap_or(&[]));
    }
    fn put_fraction(micros: u32, digits: usize, out: &mut Vec<u8>) {
        let (size, unit) = fraction(digits);
        put(u64::from(micros / unit.max(1)), size, out);
    }
    /// DATE.
    pub fn date(f: Fields, out: &mut Vec<u8>) {
        let n = f.year << 9 | f.month << 5 | f.day;
        out.extend(n.to_le_bytes().get(..3).unwrap_or(&[]));
    }
    /// DATETIME2.
    pub fn datetime2(f: Fields, digits: usize, out: &mut Vec<u8>) {
        put((f.pack() >> 24) + (1 << 39), 5, out);
        put_fraction(f.micros, digits, out);
    }
    /// TIMESTAMP2, from the fields in UTC. A zero date becomes zero.
    pub fn timestamp2(f: Fields, digits: usize, out: &mut Vec<u8>) -> Result<()> {
        let seconds = match f.seconds() {
            Some(s) => u32::try_from(s).map_err(|_| malformed("a TIMESTAMP out of range"))?,
            None => 0,
        };
        out.extend(seconds.to_be_bytes());
        put_fraction(f.micros, digits, out);
        Ok(())
    }
    /// TIME2.
    pub fn time2(micros: i64, digits: usize, out: &mut Vec<u8>) {
        let (size, unit) = fraction(digits);
        let n = micros.unsigned_abs();
        let s = n / 1_000_000;
        let hms = ((s / 3600) << 12) | ((s / 60 % 60) << 6) | (s % 60);
        let part = n % 1_000_000 / u64::from(unit.max(1));
        let n = (if size == 0 { hms } else { hms << (8 * size) | part }) as i64;
        let n = if micros < 0 { -n } else { n };
        put((n + (1i64 << (8 * (3 + size) - 1))) as u64, 3 + size, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn calendar() {
        assert_eq!(
            (days(1970, 1, 1), days(2024, 2, 29), days(1000, 1, 1), days(9999, 12, 31)),
            (Some(0), Some(19782), Some(-354285), Some(2932896))
        );
        assert_eq!(
            (days(2023, 2, 29), days(2024, 0, 1), days(2024, 1, 0), days(2024, 13, 1), days(0, 0, 0)),
            (None, None, None, None, None)
        );
        for d in (-720_000..2_940_000).step_by(97) {
            let (y, m, day) = civil(d);
            if let Ok(y) = u32::try_from(y) {
                assert_eq!(days(y, m, day), Some(d));
            }
        }
    }
    #[test]
    fn negative_and_fractional_times() {
        // -838:59:59, -00:00:01.001, -00:00:00.000001 as the server packs them
        for (micros, digits) in
            [(-3_020_399_000_000i64, 0), (-1_001_000, 3), (-1, 6), (3_020_398_999_000, 3), (0, 6), (-10_000, 2)]
        {
            let mut b = vec![];
            encode::time2(micros, digits, &mut b);
            assert_eq!(time2(&b, digits).unwrap(), micros);
        }
        assert_eq!(time2(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], 6).unwrap(), -1);
        assert_eq!(time2(&[0x7f, 0xff, 0xfe, 0xff, 0xf6], 3).unwrap(), -1_001_000);
        // the old form: sign and hours past 255
        assert_eq!(time(&(-8_385_959i32).to_le_bytes()[..3]).unwrap(), -3_020_399_000_000);
        assert_eq!(time(&8_385_959i32.to_le_bytes()[..3]).unwrap(), 3_020_399_000_000);
        let mut s = String::new();
        print_time(-3_020_399_000_001, 6, &mut s);
        assert_eq!(s, "-838:59:59.000001");
    }
    #[test]
    fn zero_dates_keep_their_text() {
        let zero = |s: &'static str| Value::ZeroDate(s.into());
        assert_eq!(date(&[0, 0, 0]).unwrap().date(), zero("0000-00-00"));
        assert_eq!(date(&[0, 0xd0, 0x0f]).unwrap().date(), zero("2024-00-00"));
        assert_eq!(timestamp2(&[0, 0, 0, 0], 0).unwrap(), zero("0000-00-00 00:00:00"));
        assert_eq!(timestamp2(&[0, 0, 0, 0, 0, 0], 3).unwrap(), zero("0000-00-00 00:00:00.000"));
        assert_eq!(timestamp(&[1, 0, 0, 0]).unwrap(), Value::TimestampTz(1, 0));
        assert_eq!(datetime(&20_240_100_000_000u64.to_le_bytes()).unwrap().timestamp(0), zero("2024-01-00 00:00:00"));
        let f = Fields::parse(b"2024-02-31 01:02:03.5").unwrap();
        let mut b = vec![];
        encode::datetime2(f, 1, &mut b);
        assert_eq!(datetime2(&b, 1).unwrap().timestamp(1), zero("2024-02-31 01:02:03.5"));
        assert!(datetime(&99_991_399_000_000u64.to_le_bytes()).is_err());
        assert!(Fields::parse(b"2024-1-1").is_err() && Fields::parse(b"").is_err());
    }
    proptest! {
        #[test]
        fn round_trip(year in 0u32..10_000, month in 0u32..13, day in 0u32..32, s in 0u32..86_400, micros in 0u32..1_000_000, digits in 0usize..7) {
            let keep = 10u32.pow(6 - digits as u32);
            let f = Fields { year, month, day, hour: s / 3600, minute: s / 60 % 60, second: s % 60, micros: micros / keep * keep };
            let mut b = vec![];
            encode::datetime2(f, digits, &mut b);
            prop_assert_eq!(datetime2(&b, digits).unwrap(), f);
            let mut text = String::new();
            f.print(digits, &mut text);
            prop_assert_eq!(Fields::parse(text.as_bytes()).unwrap(), f);
            b.clear();
            encode::date(f, &mut b);
            prop_assert_eq!(date(&b).unwrap().date(), f.date());
            if let Some(at) = f.seconds().filter(|at| (1..1 << 32).contains(at)) {
                b.clear();
                encode::timestamp2(f, digits, &mut b).unwrap();
                prop_assert_eq!(timestamp2(&b, digits).unwrap(), Value::TimestampTz(at, f.micros));
            }
        }
        #[test]
        fn times_round_trip(micros in -3_020_399_999_999i64..3_020_400_000_000, digits in 0usize..7) {
            let keep = 10i64.pow(6 - digits as u32);
            let micros = micros / keep * keep;
            let mut b = vec![];
            encode::time2(micros, digits, &mut b);
            prop_assert_eq!(time2(&b, digits).unwrap(), micros);
        }
        #[test]
        fn nothing_panics(b in proptest::collection::vec(any::<u8>(), 0..12), digits in 0usize..7, n in any::<i64>()) {
            let seen = [date(&b).is_ok(), datetime(&b).is_ok(), datetime2(&b, digits).is_ok(), timestamp(&b).is_ok(), timestamp2(&b, digits).is_ok(),
                time(&b).is_ok(), time2(&b, digits).is_ok(), unpack_time(n).is_ok(), Fields::unpack(n as u64).is_ok(), Fields::parse(&b).is_ok()];
            prop_assert_eq!(seen.len(), 10);
        }
    }
}

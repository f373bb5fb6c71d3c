//! Dates, times, timestamps and intervals in ISO style, exactly: years from 4713 BC to 5874897, infinity, 24:00:00,
//! offsets with seconds, intervals of style `postgres`.
//!
//! The calendar is proleptic Gregorian, as PostgreSQL's is, by integer arithmetic on days (era of 400 years). A year `n BC`
//! is the astronomical year `1 - n`: there is no year 0 in the text and there is one in the arithmetic.

use crate::decode::unreadable;
use seachange_sdk::{Param, Result, Value};

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Takes pieces off the front of a text, or nothing.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((b, rest)) if *b == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
    fn want(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }
    /// Between `min` and `max` digits.
    fn number(&mut self, min: usize, max: usize) -> Option<i64> {
        let mut n = 0i64;
        let mut count = 0;
        while let Some((b @ b'0'..=b'9', rest)) = self.0.split_first() {
            if count == max {
                return None;
            }
            n = n.checked_mul(10)?.checked_add(i64::from(b - b'0'))?;
            self.0 = rest;
            count += 1;
        }
        (count >= min).then_some(n)
    }
    /// `.123456`, or nothing: microseconds.
    fn fraction(&mut self) -> Option<i64> {
        if !self.eat(b'.') {
            return Some(0);
        }
        let before = self.0.len();
        let n = self.number(1, 6)?;
        let digits = u32::try_from(before - self.0.len()).ok()?;
        n.checked_mul(10i64.checked_pow(6u32.checked_sub(digits)?)?)
    }
    /// ` BC`, or nothing.
    fn bc(&mut self) -> bool {
        match self.0.strip_prefix(b" BC") {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
    fn ymd(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.number(4, 7)?;
        self.want(b'-')?;
        let month = self.number(2, 2)?;
        self.want(b'-')?;
        let day = self.number(2, 2)?;
        Some((year, month, day))
    }
    /// `HH:MM:SS[.ffffff]` up to and including 24:00:00: microseconds.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2, 2)?;
        self.want(b':')?;
        let minute = self.number(2, 2)?;
        self.want(b':')?;
        let second = self.number(2, 2)?;
        let micros = self.fraction()?;
        if minute > 59 || second > 59 {
            return None;
        }
        let all = (hour * 3600 + minute * 60 + second) * SECOND + micros;
        (all <= DAY_SECONDS * SECOND).then_some(all)
    }
    /// `+HH[:MM[:SS]]`: seconds east of UTC.
    fn offset(&mut self) -> Option<i32> {
        let sign = if self.eat(b'+') {
            1
        } else if self.eat(b'-') {
            -1
        } else {
            return None;
        };
        let hour = self.number(2, 2)?;
        let minute = if self.eat(b':') { self.number(2, 2)? } else { 0 };
        let second = if self.eat(b':') { self.number(2, 2)? } else { 0 };
        if hour > 15 || minute > 59 || second > 59 {
            return None;
        }
        i32::try_from(sign * (hour * 3600 + minute * 60 + second)).ok()
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date.
fn days(year: i64, month: i64, day: i64, bc: bool) -> Option<i64> {
    if year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    let year = if bc { 1 - year } else { year };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // A day that the month does not have would quietly become one of the next month.
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last; an era is 400 years of 146,097 days.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn infinite<'a>(bytes: &[u8]) -> Option<Value<'a>> {
    match bytes {
        b"infinity" => Some(Value::Infinity(true)),
        b"-infinity" => Some(Value::Infinity(false)),
        _ => None,
    }
}

/// `date`.
pub fn date<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let read = || {
        let mut s = Scan(bytes);
        let (y, m, d) = s.ymd()?;
        let bc = s.bc();
        s.end()?;
        Some(Value::Date(days(y, m, d, bc)?))
    };
    read().or_else(|| infinite(bytes)).ok_or_else(|| unreadable("date"))
}

/// `time without time zone`.
pub fn time<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let read = || {
        let mut s = Scan(bytes);
        let t = s.clock()?;
        s.end()?;
        Some(Value::Time(t))
    };
    read().ok_or_else(|| unreadable("time"))
}

/// `time with time zone`.
pub fn timetz<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let read = || {
        let mut s = Scan(bytes);
        let t = s.clock()?;
        let offset = s.offset()?;
        s.end()?;
        Some(Value::TimeTz(t, offset))
    };
    read().ok_or_else(|| unreadable("time with time zone"))
}

/// Seconds since the epoch (floor) and microseconds of a timestamp, with its offset taken off when it has to have one.
fn instant(bytes: &[u8], zoned: bool) -> Option<(i64, u32)> {
    let mut s = Scan(bytes);
    let (y, m, d) = s.ymd()?;
    s.want(b' ')?;
    let clock = s.clock()?;
    let offset = if zoned { s.offset()? } else { 0 };
    let bc = s.bc();
    s.end()?;
    if clock == DAY_SECONDS * SECOND {
        return None; // a timestamp has no 24:00:00: the server carries it into the next day
    }
    let seconds = days(y, m, d, bc)? * DAY_SECONDS + clock / SECOND - i64::from(offset);
    Some((seconds, u32::try_from(clock % SECOND).ok()?))
}

/// `timestamp without time zone`.
pub fn timestamp<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    instant(bytes, false)
        .map(|(s, us)| Value::Timestamp(s, us))
        .or_else(|| infinite(bytes))
        .ok_or_else(|| unreadable("timestamp"))
}

/// `timestamp with time zone`.
pub fn timestamptz<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    instant(bytes, true)
        .map(|(s, us)| Value::TimestampTz(s, us))
        .or_else(|| infinite(bytes))
        .ok_or_else(|| unreadable("timestamp with time zone"))
}

/// `interval`: `1 year 2 mons -3 days +04:05:06.789`. Years and months are one field, days another, the time a third,
/// each with its own sign, as PostgreSQL keeps them.
pub fn interval<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    duration(bytes)
        .map(|(months, days, us)| Value::Interval(months, days, us))
        .or_else(|| infinite(bytes))
        .ok_or_else(|| unreadable("interval"))
}

fn duration(bytes: &[u8]) -> Option<(i32, i32, i64)> {
    let (mut months, mut days, mut micros) = (0i64, 0i64, 0i64);
    let mut words = bytes.split(|b| *b == b' ');
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        let mut s = Scan(word);
        let negative = s.eat(b'-');
        if !negative {
            s.eat(b'+');
        }
        let n = s.number(1, 19)?;
        if s.0.is_empty() {
            let n = if negative { -n } else { n };
            match words.next()? {
                b"year" | b"years" => months = months.checked_add(n.checked_mul(12)?)?,
                b"mon" | b"mons" => months = months.checked_add(n)?,
                b"day" | b"days" => days = days.checked_add(n)?,
                _ => return None,
            }
            continue;
        }
        s.want(b':')?;
        let minute = s.number(2, 2)?;
        s.want(b':')?;
        let second = s.number(2, 2)?;
        let fraction = s.fraction()?;
        s.end()?;
        if minute > 59 || second > 59 || words.next().is_some() {
            return None;
        }
        // Summed below zero when negative: the smallest i64 of microseconds is a legal interval.
        let sign = if negative { -1 } else { 1 };
        micros = n.checked_mul(sign * 3600)?.checked_add(sign * (minute * 60 + second))?.checked_mul(SECOND)?;
        micros = micros.checked_add(sign * fraction)?;
    }
    any.then_some(())?;
    Some((i32::try_from(months).ok()?, i32::try_from(days).ok()?, micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(f: seachange_sdk::DecodeFn, text: &str) -> Option<Value<'static>> {
        let p = Param::default();
        f(&p, text.as_bytes()).ok().map(|v| match v {
            Value::Date(d) => Value::Date(d),
            Value::Time(t) => Value::Time(t),
            Value::TimeTz(t, o) => Value::TimeTz(t, o),
            Value::Timestamp(s, u) => Value::Timestamp(s, u),
            Value::TimestampTz(s, u) => Value::TimestampTz(s, u),
            Value::Infinity(up) => Value::Infinity(up),
            Value::Interval(m, d, u) => Value::Interval(m, d, u),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn dates_of_all_ages() {
        for (text, day) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2024-02-29", 19_782),
            ("0005-02-29 BC", -720_930),
            ("0001-01-01", -719_162),
            ("0001-12-31 BC", -719_163),
            ("0044-03-15 BC", -735_160),
            ("4713-01-01 BC", -2_440_550),
            ("9999-12-31", 2_932_896),
            ("5874897-12-31", 2_145_042_905),
        ] {
            assert_eq!(run(date, text), Some(Value::Date(day)), "{text}");
        }
        assert_eq!(run(date, "infinity"), Some(Value::Infinity(true)));
        assert_eq!(run(date, "-infinity"), Some(Value::Infinity(false)));
        for bad in [
            "",
            "1970-1-1",
            "1970-13-01",
            "1970-00-01",
            "1970-01-32",
            "1970-02-29",
            "1900-02-29",
            "2024-02-30",
            "2024-04-31",
            "0004-02-29 BC",
            "0000-01-01",
            "1970-01-01 AD",
            "70-01-01",
            "1970-01-01BC",
            "99999999-01-01",
            "01/02/1970",
        ] {
            assert_eq!(run(date, bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(run(time, "24:00:00"), Some(Value::Time(86_400_000_000)));
        assert_eq!(run(time, "23:59:59.999999"), Some(Value::Time(86_399_999_999)));
        assert_eq!(run(time, "00:00:00.5"), Some(Value::Time(500_000)));
        assert_eq!(run(timetz, "13:14:15.5+02"), Some(Value::TimeTz(47_655_500_000, 7200)));
        assert_eq!(run(timetz, "12:00:00-15:59:59"), Some(Value::TimeTz(43_200_000_000, -57_599)));
        assert_eq!(run(timetz, "12:00:00+05:30"), Some(Value::TimeTz(43_200_000_000, 19_800)));
        for bad in ["", "24:00:01", "24:00:00.000001", "12:60:00", "1:00:00", "12:00", "12:00:00.", "12:00:00.1234567"]
        {
            assert_eq!(run(time, bad), None, "{bad}");
        }
        for bad in ["12:00:00", "12:00:00+", "12:00:00+16", "12:00:00+05:60", "12:00:00+5", "12:00:00Z"] {
            assert_eq!(run(timetz, bad), None, "{bad}");
        }
    }

    #[test]
    fn timestamps() {
        assert_eq!(run(timestamp, "1969-12-31 23:59:59.999999"), Some(Value::Timestamp(-1, 999_999)));
        assert_eq!(run(timestamp, "0044-03-15 12:00:00 BC"), Some(Value::Timestamp(-63_517_780_800, 0)));
        assert_eq!(run(timestamp, "294276-12-31 23:59:59.999999"), Some(Value::Timestamp(9_224_318_015_999, 999_999)));
        assert_eq!(run(timestamptz, "2024-02-29 07:44:15.123456+00"), Some(Value::TimestampTz(1_709_192_655, 123_456)));
        assert_eq!(
            run(timestamptz, "2024-02-29 13:14:15.123456+05:30"),
            Some(Value::TimestampTz(1_709_192_655, 123_456))
        );
        assert_eq!(run(timestamptz, "0044-03-15 12:00:00+00 BC"), Some(Value::TimestampTz(-63_517_780_800, 0)));
        assert_eq!(run(timestamp, "infinity"), Some(Value::Infinity(true)));
        assert_eq!(run(timestamptz, "-infinity"), Some(Value::Infinity(false)));
        for bad in ["2024-02-29", "2024-02-29T00:00:00", "2024-02-29 24:00:00", "2024-02-29 00:00:00+00"] {
            assert_eq!(run(timestamp, bad), None, "{bad}");
        }
        assert_eq!(run(timestamptz, "2024-02-29 00:00:00"), None, "an instant needs its offset");
    }

    #[test]
    fn intervals() {
        for (text, want) in [
            ("1 year 2 mons 3 days 04:05:06.789", (14, 3, 14_706_789_000)),
            ("-1 days -00:00:01", (0, -1, -1_000_000)),
            ("-1 years -2 mons +3 days -04:05:06.000001", (-14, 3, -14_706_000_001)),
            ("1 mon -1 days", (1, -1, 0)),
            ("00:00:00", (0, 0, 0)),
            ("178000 days", (0, 178_000, 0)),
            ("1 year", (12, 0, 0)),
            ("-178956970 years -8 mons", (i32::MIN, 0, 0)),
            ("2147483647 days", (0, i32::MAX, 0)),
            ("2562047788:00:54.775807", (0, 0, i64::MAX)),
            ("-2562047788:00:54.775808", (0, 0, i64::MIN)),
        ] {
            assert_eq!(run(interval, text), Some(Value::Interval(want.0, want.1, want.2)), "{text}");
        }
        assert_eq!(run(interval, "infinity"), Some(Value::Infinity(true)));
        for bad in [
            "",
            " ",
            "1",
            "1 week",
            "P1Y",
            "1 year ",
            "2562047788:00:54.775808",
            "2147483648 days",
            "00:00:00 1 day",
            "@ 1 year",
            "1-2",
            "99999999999999999999 days",
        ] {
            assert_eq!(run(interval, bad), None, "{bad}");
        }
    }

    /// Renders a day number by counting years and months, an independent way back.
    fn civil(day: i64) -> (i64, i64, i64) {
        let z = day + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
    }
    fn shown_date(day: i64) -> (String, &'static str) {
        let (y, m, d) = civil(day);
        if y > 0 { (format!("{y:04}-{m:02}-{d:02}"), "") } else { (format!("{:04}-{m:02}-{d:02}", 1 - y), " BC") }
    }
    fn shown_clock(us: i64) -> String {
        let s = us / SECOND;
        let fraction = format!("{:06}", us % SECOND);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{:02}:{:02}:{:02}{dot}{fraction}", s / 3600, s / 60 % 60, s % 60)
    }

    proptest! {
        #[test]
        fn dates_round_trip(day in -2_440_550i64..=2_145_042_905) {
            let (text, bc) = shown_date(day);
            prop_assert_eq!(run(date, &format!("{text}{bc}")), Some(Value::Date(day)));
        }
        #[test]
        fn timestamps_round_trip(s in -210_866_803_200i64..9_224_318_016_000, u in 0u32..1_000_000, offset in -57_599i32..=57_599) {
            let (day, clock) = (s.div_euclid(86_400), s.rem_euclid(86_400) * SECOND + i64::from(u));
            let (text, bc) = shown_date(day);
            prop_assert_eq!(run(timestamp, &format!("{text} {}{bc}", shown_clock(clock))), Some(Value::Timestamp(s, u)));
            let a = offset.abs();
            let zone = format!("{}{:02}:{:02}:{:02}", if offset < 0 { '-' } else { '+' }, a / 3600, a / 60 % 60, a % 60);
            prop_assert_eq!(run(timestamptz, &format!("{text} {}{zone}{bc}", shown_clock(clock))), Some(Value::TimestampTz(s - i64::from(offset), u)));
            prop_assert_eq!(run(timetz, &format!("{}{zone}", shown_clock(clock))), Some(Value::TimeTz(clock, offset)));
        }
        #[test]
        fn intervals_round_trip(months in any::<i32>(), days in any::<i32>(), us in any::<i64>()) {
            // As EncodeInterval does: zero fields left out, a plus after a negative field, years and months apart.
            let mut parts = Vec::new();
            let mut before_negative = false;
            for (n, one, many) in [(months / 12, "year", "years"), (months % 12, "mon", "mons"), (days, "day", "days")] {
                if n != 0 {
                    let plus = if before_negative && n > 0 { "+" } else { "" };
                    parts.push(format!("{plus}{n} {}", if n == 1 { one } else { many }));
                    before_negative = n < 0;
                }
            }
            if us != 0 || parts.is_empty() {
                let sign = if us < 0 { "-" } else if before_negative { "+" } else { "" };
                let abs = us.unsigned_abs();
                let (s, f) = (abs / 1_000_000, abs % 1_000_000);
                let fraction = format!("{f:06}");
                let fraction = fraction.trim_end_matches('0');
                let dot = if fraction.is_empty() { "" } else { "." };
                parts.push(format!("{sign}{:02}:{:02}:{:02}{dot}{fraction}", s / 3600, s / 60 % 60, s % 60));
            }
            prop_assert_eq!(run(interval, &parts.join(" ")), Some(Value::Interval(months, days, us)));
        }
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[-+0-9: .BCyearmonsday]{0,50}") {
            let p = Param::default();
            for f in [date, time, timetz, timestamp, timestamptz, interval] {
                let _: Result<_> = f(&p, &bytes);
                let _: Result<_> = f(&p, text.as_bytes());
            }
        }
    }
}

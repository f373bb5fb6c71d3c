//! Dates and times as text: own integer arithmetic, because no crate covers 24:00, years of six digits or BC.
//!
//! The form is ISO 8601 on the proleptic Gregorian calendar with astronomical years (1 BC is `0000`, 44 BC is `-0043`);
//! years beyond 9999 carry a `+`. It is also what Java's `ISO_LOCAL_DATE` prints, and so what Debezium writes.

use super::json;

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
pub const DAY: i64 = 86_400 * SECOND;

/// How the fraction of a second is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fraction {
    /// As many digits as are needed; none for a whole second.
    Needed,
    /// Exactly this many digits (0 to 6).
    Exactly(u8),
}

/// The two digits of a number below 100.
#[inline]
fn pair(n: u32) -> [u8; 2] {
    [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]
}

fn two(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(&pair((n % 100) as u32));
}

/// Year, month and day of days since 1970-01-01.
#[inline]
fn civil(days: i64) -> (i64, u32, u32) {
    // Days are counted from 0000-03-01 in eras of 400 years, so that the leap day is the last day of a year.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097) as u32;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153; // months from March
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (i64::from(year_of_era) + era * 400 + i64::from(month <= 2), month, day)
}

/// Writes `yyyy-mm-dd` for days since 1970-01-01 (any that a 64-bit count of seconds can reach).
pub fn date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    let year = year.unsigned_abs();
    let (m, d) = (pair(month), pair(day));
    if year < 10_000 {
        let (c, y) = (pair(year as u32 / 100), pair(year as u32 % 100));
        out.extend_from_slice(&[c[0], c[1], y[0], y[1], b'-', m[0], m[1], b'-', d[0], d[1]]);
    } else {
        json::uint(out, year);
        out.extend_from_slice(&[b'-', m[0], m[1], b'-', d[0], d[1]]);
    }
}

fn fraction(out: &mut Vec<u8>, micros: u32, how: Fraction) {
    if micros == 0 && how == Fraction::Needed {
        return;
    }
    let (a, b, c) = (pair(micros / 10_000 % 100), pair(micros / 100 % 100), pair(micros % 100));
    let text = [b'.', a[0], a[1], b[0], b[1], c[0], c[1]];
    let count = match how {
        Fraction::Exactly(n) => usize::from(n.min(6)),
        Fraction::Needed => text.iter().rposition(|d| *d != b'0').unwrap_or(0),
    };
    if count > 0 {
        out.extend_from_slice(&text[..=count]);
    }
}

/// Writes `hh:mm:ss[.f]` for microseconds since midnight. 24:00 is `24:00:00`; a duration (MySQL's TIME) may be negative and
/// have more than two digits of hours.
pub fn time(out: &mut Vec<u8>, micros: i64, how: Fraction) {
    if micros < 0 {
        out.push(b'-');
    }
    let micros = micros.unsigned_abs();
    let (seconds, micros) = (micros / SECOND as u64, (micros % SECOND as u64) as u32);
    let (hours, of_hour) = (seconds / 3600, (seconds % 3600) as u32);
    let (m, s) = (pair(of_hour / 60), pair(of_hour % 60));
    if hours < 100 {
        let h = pair(hours as u32);
        out.extend_from_slice(&[h[0], h[1], b':', m[0], m[1], b':', s[0], s[1]]);
    } else {
        json::uint(out, hours);
        out.extend_from_slice(&[b':', m[0], m[1], b':', s[0], s[1]]);
    }
    fraction(out, micros, how);
}

/// Writes `yyyy-mm-ddThh:mm:ss[.f]` for seconds since 1970-01-01T00:00:00 and microseconds.
pub fn timestamp(out: &mut Vec<u8>, seconds: i64, micros: u32, how: Fraction) {
    date(out, seconds.div_euclid(86_400));
    out.push(b'T');
    time(out, seconds.rem_euclid(86_400) * SECOND + i64::from(micros), how);
}

/// Writes an offset from UTC in seconds: `Z`, `+05:30`, `-02:30:15`.
pub fn offset(out: &mut Vec<u8>, seconds: i32) {
    if seconds == 0 {
        out.push(b'Z');
        return;
    }
    out.push(if seconds < 0 { b'-' } else { b'+' });
    let seconds = i64::from(seconds.unsigned_abs());
    two(out, seconds / 3600);
    out.push(b':');
    two(out, seconds / 60 % 60);
    if seconds % 60 != 0 {
        out.push(b':');
        two(out, seconds % 60);
    }
}

/// A time of day with offset, moved to UTC. It wraps around midnight; only 24:00 in UTC itself stays 24:00.
pub fn time_in_utc(micros: i64, offset: i32) -> i64 {
    if micros == DAY && offset == 0 { micros } else { (micros - i64::from(offset) * SECOND).rem_euclid(DAY) }
}

/// Writes an interval as PostgreSQL's `iso_8601` style does: parts that are zero are left out, each part has its own sign,
/// nothing at all is `PT0S`.
pub fn interval(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    let start = out.len();
    out.push(b'P');
    let part = |out: &mut Vec<u8>, n: i64, unit: u8| {
        if n != 0 {
            json::int(out, n);
            out.push(unit);
        }
    };
    part(out, i64::from(months / 12), b'Y');
    part(out, i64::from(months % 12), b'M');
    part(out, i64::from(days), b'D');
    if micros != 0 || out.len() == start + 1 {
        out.push(b'T');
        part(out, micros / (3600 * SECOND), b'H');
        part(out, micros / (60 * SECOND) % 60, b'M');
        let seconds = micros % (60 * SECOND);
        if seconds != 0 || micros == 0 {
            signed_seconds(out, seconds);
            out.push(b'S');
        }
    }
}

/// Writes an interval as Debezium does, every part present: `P1Y2M3DT4H5M6.789S`.
pub fn interval_full(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    let parts = [
        (i64::from(months / 12), "Y"),
        (i64::from(months % 12), "M"),
        (i64::from(days), "DT"),
        (micros / (3600 * SECOND), "H"),
        (micros / (60 * SECOND) % 60, "M"),
    ];
    out.push(b'P');
    for (n, unit) in parts {
        json::int(out, n);
        out.extend_from_slice(unit.as_bytes());
    }
    signed_seconds(out, micros % (60 * SECOND));
    out.push(b'S');
}

fn signed_seconds(out: &mut Vec<u8>, micros: i64) {
    if micros < 0 {
        out.push(b'-');
    }
    let micros = micros.unsigned_abs();
    json::uint(out, micros / SECOND as u64);
    fraction(out, (micros % SECOND as u64) as u32, Fraction::Needed);
}

/// An interval in microseconds, months counted as a twelfth of 365.25 days (2,629,800 seconds, so the result is whole).
/// `None` when it does not fit.
pub fn interval_micros(months: i32, days: i32, micros: i64) -> Option<i64> {
    let whole = i128::from(months) * 2_629_800 * i128::from(SECOND) + i128::from(days) * i128::from(DAY);
    i64::try_from(whole + i128::from(micros)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates() {
        for (days, want) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (-719_162, "0001-01-01"),
            (-719_163, "0000-12-31"),
            (-735_160, "-0043-03-15"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+10000-01-01"),
            (2_145_042_905, "+5874897-12-31"),
            (-2_440_588, "-4713-11-24"),
        ] {
            assert_eq!(written(|o| date(o, days)), want);
        }
    }

    #[test]
    fn times() {
        use Fraction::*;
        for (micros, how, want) in [
            (0, Needed, "00:00:00"),
            (47_655_123_456, Needed, "13:14:15.123456"),
            (47_655_500_000, Needed, "13:14:15.5"),
            (47_655_500_000, Exactly(3), "13:14:15.500"),
            (47_655_500_000, Exactly(0), "13:14:15"),
            (DAY, Needed, "24:00:00"),
            (DAY - 1, Needed, "23:59:59.999999"),
            (-3_020_399 * SECOND, Needed, "-838:59:59"),
        ] {
            assert_eq!(written(|o| time(o, micros, how)), want);
        }
        assert_eq!(written(|o| timestamp(o, -1, 999_999, Needed)), "1969-12-31T23:59:59.999999");
        for (secs, want) in [(0, "Z"), (7200, "+02:00"), (-43_200, "-12:00"), (19_800, "+05:30"), (-9015, "-02:30:15")]
        {
            assert_eq!(written(|o| offset(o, secs)), want);
        }
        assert_eq!(time_in_utc(DAY, 0), DAY);
        assert_eq!(time_in_utc(DAY, 3600), 23 * 3600 * SECOND);
        assert_eq!(time_in_utc(86_399 * SECOND, -43_200), 43_199 * SECOND);
    }

    #[test]
    fn intervals() {
        for (months, days, micros, iso, full, count) in [
            (14, 3, 14_706_789_000, "P1Y2M3DT4H5M6.789S", "P1Y2M3DT4H5M6.789S", 37_091_106_789_000),
            (0, -1, -1_000_000, "P-1DT-1S", "P0Y0M-1DT0H0M-1S", -86_401_000_000),
            (0, 0, 0, "PT0S", "P0Y0M0DT0H0M0S", 0),
            (0, 178_000, 0, "P178000D", "P0Y0M178000DT0H0M0S", 15_379_200_000_000_000),
            (-14, 0, -60_500_000, "P-1Y-2MT-1M-0.5S", "P-1Y-2M0DT0H-1M-0.5S", -36_817_260_500_000),
            (0, 0, 360_000_000_000, "PT100H", "P0Y0M0DT100H0M0S", 360_000_000_000),
        ] {
            assert_eq!(written(|o| interval(o, months, days, micros)), iso);
            assert_eq!(written(|o| interval_full(o, months, days, micros)), full);
            assert_eq!(interval_micros(months, days, micros), Some(count));
        }
        assert_eq!(interval_micros(i32::MAX, i32::MAX, 0), None);
    }

    proptest! {
        /// Each day follows the one before it in text order within one year, and months and days are in range.
        #[test]
        fn days_are_consecutive(days in -2_500_000i64..2_900_000) {
            let (a, b) = (written(|o| date(o, days)), written(|o| date(o, days + 1)));
            let part = |s: &str| s[s.len() - 5..].split('-').map(|n| n.parse::<u32>().unwrap()).collect::<Vec<_>>();
            let (x, y) = (part(&a), part(&b));
            prop_assert!((1..=12).contains(&x[0]) && (1..=31).contains(&x[1]));
            prop_assert!(y == [x[0], x[1] + 1] || (y[1] == 1 && y[0] == x[0] % 12 + 1 && x[1] >= 28), "{} {}", a, b);
        }
        #[test]
        fn intervals_never_panic(months: i32, days: i32, micros: i64) {
            let text = written(|o| interval(o, months, days, micros));
            prop_assert!(text.starts_with('P') && text.len() > 2);
            written(|o| interval_full(o, months, days, micros));
            interval_micros(months, days, micros);
        }
        #[test]
        fn times_never_panic(seconds in -10_000_000_000_000i64..10_000_000_000_000, micros in 0u32..1_000_000) {
            written(|o| timestamp(o, seconds, micros, Fraction::Needed));
        }
    }
}

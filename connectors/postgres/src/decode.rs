//! Scalars: the text that PostgreSQL's output functions print, turned into [`Value`]s.
//!
//! Both paths (pgoutput and COPY) carry the text form, printed under the same session settings (`DateStyle` ISO,
//! `IntervalStyle` postgres, `TimeZone` UTC, `bytea_output` hex, `extra_float_digits` 3), so one decoder a type serves
//! both and equal rows give equal values. Nothing is guessed: what the output function cannot have printed is an error,
//! and the error never repeats the bytes. Text, decimals and bits borrow; only `bytea`, and a `money` with separators or
//! a sign, need a buffer of their own.
//!
//! Dates and times are in [`datetime`], arrays and hstore in [`nested`]; which decoder a column gets is
//! decided in [`crate::catalog::types`].

pub mod datetime;
pub mod nested;

use seachange_sdk::{Error, Param, Result, Value};
use std::borrow::Cow;

/// The error for bytes that a type's output function does not print. Never holds the bytes.
#[cold]
pub(crate) fn unreadable(what: &str) -> Error {
    Error::value(format!("a value of type {what} is not in the form in which PostgreSQL prints it"))
        .fix("check that nothing between Seachange and the server changes session settings, and report the type")
}

/// The bytes as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| {
        Error::value("a value is not valid UTF-8: the database's encoding is SQL_ASCII and holds other bytes").fix(
            "convert the database to UTF8, mend the rows, or leave the column out with columns.exclude; bytes belong in bytea",
        )
    })
}

/// An integer in decimal, with its sign, and only as it is printed: no leading zeros, no `-0`. No allocation, overflow is
/// an error.
fn integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() || (digits.first() == Some(&b'0') && bytes.len() > 1) {
        return None;
    }
    // 18 digits cannot overflow. More are accumulated below zero, because only there the smallest i64 has room.
    let mut n = 0i64;
    if digits.len() <= 18 {
        for d in digits {
            let d = d.wrapping_sub(b'0');
            if d > 9 {
                return None;
            }
            n = n * 10 + i64::from(d);
        }
        return Some(if negative { -n } else { n });
    }
    for d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_sub(i64::from(d))?;
    }
    if negative { Some(n) } else { n.checked_neg() }
}

/// `boolean`: `t` or `f`.
pub fn boolean<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match bytes {
        b"t" => Ok(Value::Bool(true)),
        b"f" => Ok(Value::Bool(false)),
        _ => Err(unreadable("boolean")),
    }
}

/// `smallint`.
pub fn int2<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    ranged(bytes, i64::from(i16::MIN), i64::from(i16::MAX), "smallint")
}

/// `integer`.
pub fn int4<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    ranged(bytes, i64::from(i32::MIN), i64::from(i32::MAX), "integer")
}

/// `bigint`.
pub fn int8<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    ranged(bytes, i64::MIN, i64::MAX, "bigint")
}

/// `oid`: unsigned, 32 bits.
pub fn oid<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    ranged(bytes, 0, i64::from(u32::MAX), "oid")
}

fn ranged<'a>(bytes: &[u8], low: i64, high: i64, what: &str) -> Result<Value<'a>> {
    match integer(bytes) {
        Some(n) if n >= low && n <= high => Ok(Value::I64(n)),
        _ => Err(unreadable(what)),
    }
}

/// A float's text, checked to be a number or one of the three words that PostgreSQL prints: Rust's own parser would take
/// more than that, and would round a number out of range to infinity.
fn float_text<'a>(bytes: &'a [u8], what: &str) -> Result<(&'a str, bool)> {
    let finite = match bytes {
        b"NaN" | b"Infinity" | b"-Infinity" => false,
        _ if bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) => true,
        _ => return Err(unreadable(what)),
    };
    Ok((utf8(bytes)?, finite))
}

/// `real`.
pub fn float4<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let (text, finite) = float_text(bytes, "real")?;
    match text.parse::<f32>() {
        Ok(x) if !finite || x.is_finite() => Ok(Value::F32(x)),
        _ => Err(unreadable("real")),
    }
}

/// `double precision`.
pub fn float8<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::F64(double(bytes, "double precision")?))
}

fn double(bytes: &[u8], what: &str) -> Result<f64> {
    let (text, finite) = float_text(bytes, what)?;
    match text.parse::<f64>() {
        Ok(x) if !finite || x.is_finite() => Ok(x),
        _ => Err(unreadable(what)),
    }
}

/// `numeric`: its digits as they are.
pub fn numeric<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if !matches!(bytes, b"NaN" | b"Infinity" | b"-Infinity") && !is_decimal(bytes) {
        return Err(unreadable("numeric"));
    }
    Ok(Value::Decimal(Cow::Borrowed(utf8(bytes)?)))
}

/// `-?[0-9]+(\.[0-9]+)?`
fn is_decimal(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(i) => (digits.get(..i), digits.get(i + 1..)),
        None => (Some(digits), None),
    };
    let all = |d: &[u8]| !d.is_empty() && d.iter().all(u8::is_ascii_digit);
    whole.is_some_and(all) && fraction.is_none_or(all)
}

/// How the server's locale prints `money`: found out by printing two known amounts (see [`MoneyFormat::probe`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoneyFormat {
    /// Digits after the point.
    pub scale: u8,
    /// The character that only negative amounts have: `-` or `(`.
    pub negative: u8,
}

/// The amount that [`MoneyFormat::probe`] wants printed, once as it is and once negative, as `numeric::money::text`:
/// a cast from `numeric` does not depend on the locale, only the printing does.
pub const MONEY_SAMPLE: &str = "1234567";

impl MoneyFormat {
    /// What the `C` and most English locales print.
    pub const DOLLARS: MoneyFormat = MoneyFormat { scale: 2, negative: b'-' };

    /// Reads the locale's rules off the two printed samples. `None` when they cannot be told: amounts are then refused.
    pub fn probe(positive: &str, negative: &str) -> Option<MoneyFormat> {
        let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>();
        let shown = digits(positive);
        let fraction = shown.strip_prefix(MONEY_SAMPLE)?;
        if fraction.len() > 10 || fraction.bytes().any(|b| b != b'0') || digits(negative) != shown {
            return None;
        }
        let sign =
            [b'-', b'('].into_iter().find(|c| negative.as_bytes().contains(c) && !positive.as_bytes().contains(c))?;
        Some(MoneyFormat { scale: u8::try_from(fraction.len()).ok()?, negative: sign })
    }

    /// The parameters of [`money`] for this locale; without one every amount is an error that says so.
    pub fn param(format: Option<MoneyFormat>) -> Param {
        let (n, delimiter) = format.map_or((-1, 0), |f| (i32::from(f.scale), f.negative));
        Param { n, delimiter, ..Param::default() }
    }
}

/// `money`: currency signs, separators and signs stand where the server's locale wants them, but the digits are always
/// the whole amount with `scale` of them after the point. So the digits are taken and everything else is left.
pub fn money<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let Ok(scale) = usize::try_from(param.n) else {
        return Err(Error::value("a value of type money cannot be read: how the server's locale prints it is not known")
            .fix("set lc_monetary of the database or of the capture role to C (ALTER DATABASE ... SET lc_monetary = 'C'), or leave the column out with columns.exclude"));
    };
    let negative = bytes.contains(&param.delimiter);
    let first = bytes.iter().position(u8::is_ascii_digit).ok_or_else(|| unreadable("money"))?;
    let last = bytes.iter().rposition(u8::is_ascii_digit).ok_or_else(|| unreadable("money"))?;
    let amount = bytes.get(first..=last).unwrap_or_default();
    // The usual small amount needs no buffer: `$12.34`.
    if !negative {
        let point = amount.len().checked_sub(scale + 1).and_then(|i| amount.get(i));
        let plain =
            if scale == 0 { amount.iter().all(u8::is_ascii_digit) } else { point == Some(&b'.') && is_decimal(amount) };
        if plain {
            return Ok(Value::Decimal(Cow::Borrowed(utf8(amount)?)));
        }
    }
    let count = amount.iter().filter(|b| b.is_ascii_digit()).count();
    if count <= scale {
        return Err(unreadable("money"));
    }
    let mut out = String::with_capacity(count + 2);
    if negative {
        out.push('-');
    }
    for (i, b) in amount.iter().filter(|b| b.is_ascii_digit()).enumerate() {
        if scale > 0 && i == count - scale {
            out.push('.');
        }
        out.push(char::from(*b));
    }
    Ok(Value::Decimal(Cow::Owned(out)))
}

/// Everything whose faithful form is its text.
pub fn text<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Text(Cow::Borrowed(utf8(bytes)?)))
}

/// `"char"`: one byte. Servers before 16 print one above 127 as it is, which is no text in UTF-8; later ones print it as
/// a backslash and three octal digits. The later form is given for both.
pub fn single_char<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match bytes {
        [b] if !b.is_ascii() => Ok(Value::Text(Cow::Owned(format!("\\{b:03o}")))),
        _ => Ok(Value::Text(Cow::Borrowed(utf8(bytes)?))),
    }
}

/// `bit` and `bit varying`.
pub fn bits<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    if !bytes.iter().all(|b| matches!(b, b'0' | b'1')) {
        return Err(unreadable("bit"));
    }
    Ok(Value::Bits(Cow::Borrowed(utf8(bytes)?)))
}

/// `bit(1)`: a truth value.
pub fn bit1<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    match bytes {
        b"1" => Ok(Value::Bool(true)),
        b"0" => Ok(Value::Bool(false)),
        _ => Err(unreadable("bit(1)")),
    }
}

/// `bytea`: `\x` and hexadecimal, or the old escape form should a pooler have set that.
pub fn bytea<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let out = match bytes.strip_prefix(b"\\x") {
        Some(hex) => unhex(hex),
        None => unescape(bytes),
    };
    out.map(|b| Value::Bytes(Cow::Owned(b))).ok_or_else(|| unreadable("bytea"))
}

fn unhex(hex: &[u8]) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let mut out = Vec::with_capacity(hex.len() / 2);
    for pair in hex.chunks_exact(2) {
        if let [high, low] = pair {
            out.push(digit(*high)? << 4 | digit(*low)?);
        }
    }
    Some(out)
}

fn unescape(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => return None,
            _ => {
                out.push(*first);
                after
            }
        };
    }
    Some(out)
}

/// Bytes as they come: the content of a logical message, which has no output function.
pub fn raw<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Cow::Borrowed(bytes)))
}

/// `point`: `(x,y)`.
pub fn point<'a>(_: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    let inner = bytes.strip_prefix(b"(").and_then(|b| b.strip_suffix(b")")).ok_or_else(|| unreadable("point"))?;
    let comma = inner.iter().position(|b| *b == b',').ok_or_else(|| unreadable("point"))?;
    let (x, y) = (inner.get(..comma).unwrap_or_default(), inner.get(comma + 1..).unwrap_or_default());
    Ok(Value::Point(double(x, "point")?, double(y, "point")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn none() -> Param {
        Param::default()
    }

    #[test]
    fn integers_keep_their_range() {
        let p = none();
        assert_eq!(int8(&p, b"-9223372036854775808").unwrap(), Value::I64(i64::MIN));
        assert_eq!(int8(&p, b"9223372036854775807").unwrap(), Value::I64(i64::MAX));
        assert_eq!(oid(&p, b"4294967295").unwrap(), Value::I64(4_294_967_295));
        for bad in [
            "",
            "-",
            "+1",
            "1 ",
            " 1",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "1e3",
            "\u{0661}",
            "007",
            "00",
            "-0",
            "-01",
        ] {
            assert!(int8(&p, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(int2(&p, b"32768").is_err() && int2(&p, b"-32768").is_ok() && int4(&p, b"2147483648").is_err());
        assert!(oid(&p, b"-1").is_err() && oid(&p, b"4294967296").is_err());
    }

    #[test]
    fn floats_take_only_what_is_printed() {
        let p = none();
        assert_eq!(float4(&p, b"-1.17549e-38").unwrap(), Value::F32(-1.17549e-38));
        assert_eq!(float8(&p, b"-1.7976931348623157e+308").unwrap(), Value::F64(-1.797_693_134_862_315_7e308));
        assert_eq!(float8(&p, b"-Infinity").unwrap(), Value::F64(f64::NEG_INFINITY));
        assert!(matches!(float8(&p, b"NaN").unwrap(), Value::F64(x) if x.is_nan()));
        assert!(matches!(float8(&p, b"-0").unwrap(), Value::F64(x) if x == 0.0 && x.is_sign_negative()));
        for bad in ["", "nan", "inf", "1e400", "1e", "0x1", "--1", "infinity"] {
            assert!(float8(&p, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(float4(&p, b"1e39").is_err(), "out of range for a single");
    }

    #[test]
    fn numerics_stay_digits() {
        let p = none();
        for good in ["0", "-0.0001", "99999999999999999999999999999999999999", "1.50", "NaN", "Infinity", "-Infinity"] {
            assert_eq!(numeric(&p, good.as_bytes()).unwrap(), Value::Decimal(good.into()));
        }
        for bad in ["", "-", ".5", "5.", "1e5", "1,5", "1.2.3", "--1", "nan"] {
            assert!(numeric(&p, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn money_of_many_locales() {
        let read = |positive: &str, negative: &str, shown: &str| {
            let format = MoneyFormat::probe(positive, negative).expect(positive);
            let param = MoneyFormat::param(Some(format));
            match money(&param, shown.as_bytes()).unwrap() {
                Value::Decimal(d) => d.into_owned(),
                other => panic!("{other:?}"),
            }
        };
        let c = ("$1,234,567.00", "-$1,234,567.00");
        assert_eq!(read(c.0, c.1, "$1,234.56"), "1234.56");
        assert_eq!(read(c.0, c.1, "-$0.01"), "-0.01");
        assert_eq!(read(c.0, c.1, "$92,233,720,368,547,758.07"), "92233720368547758.07");
        assert_eq!(read(c.0, c.1, "-$92,233,720,368,547,758.08"), "-92233720368547758.08");
        assert_eq!(read("$1,234,567.00", "($1,234,567.00)", "($1.00)"), "-1.00");
        assert_eq!(read("1.234.567,00 €", "-1.234.567,00 €", "-1.234,50 €"), "-1234.50");
        assert_eq!(read("1.234.567,00 €", "-1.234.567,00 €", "7,00 €"), "7.00");
        assert_eq!(read("￥1,234,567", "-￥1,234,567", "￥1,234"), "1234");
        assert_eq!(read("￥1,234,567", "-￥1,234,567", "￥7"), "7");
        assert_eq!(read("د.ب. 1,234,567.000", "د.ب. -1,234,567.000", "د.ب. 0.005"), "0.005");
        assert_eq!(MoneyFormat::probe("$1,234,567.00", "$1,234,567.00"), None, "no sign");
        assert_eq!(MoneyFormat::probe("garbage", "-garbage"), None);
        let unknown = MoneyFormat::param(None);
        let e = money(&unknown, b"$1.00").unwrap_err();
        assert!(e.what().contains("locale") && e.remedy().is_some_and(|f| f.contains("lc_monetary")), "{e:?}");
        let p = MoneyFormat::param(Some(MoneyFormat::DOLLARS));
        assert!(money(&p, b"$").is_err() && money(&p, b"").is_err() && money(&p, b"$12").is_err());
    }

    #[test]
    fn bytes_and_bits() {
        let p = none();
        assert_eq!(bytea(&p, b"\\x00ff10").unwrap(), Value::Bytes(vec![0, 255, 16].into()));
        assert_eq!(bytea(&p, b"\\x").unwrap(), Value::Bytes(Vec::new().into()));
        assert_eq!(bytea(&p, b"a\\\\b\\000\\377").unwrap(), Value::Bytes(vec![b'a', b'\\', b'b', 0, 255].into()));
        for bad in [&b"\\x0"[..], b"\\xzz", b"a\\", b"\\400", b"\\09"] {
            assert!(bytea(&p, bad).is_err());
        }
        assert_eq!(bits(&p, b"0010").unwrap(), Value::Bits("0010".into()));
        assert_eq!(bits(&p, b"").unwrap(), Value::Bits("".into()));
        assert!(bits(&p, b"012").is_err());
        assert_eq!(bit1(&p, b"1").unwrap(), Value::Bool(true));
        assert!(bit1(&p, b"").is_err() && bit1(&p, b"10").is_err());
    }

    #[test]
    fn text_is_checked_and_single_chars_are_alike_in_all_versions() {
        let p = none();
        assert_eq!(text(&p, "très".as_bytes()).unwrap(), Value::Text("très".into()));
        let e = text(&p, b"secret\xff").unwrap_err();
        assert!(!format!("{e:?}").contains("secret"), "{e:?}");
        assert_eq!(single_char(&p, b"\xff").unwrap(), Value::Text("\\377".into()));
        assert_eq!(single_char(&p, b"\\377").unwrap(), Value::Text("\\377".into()));
        assert_eq!(single_char(&p, b"").unwrap(), Value::Text("".into()));
    }

    #[test]
    fn points() {
        let p = none();
        assert_eq!(point(&p, b"(1.5,-2.5)").unwrap(), Value::Point(1.5, -2.5));
        assert_eq!(point(&p, b"(1e+300,-Infinity)").unwrap(), Value::Point(1e300, f64::NEG_INFINITY));
        for bad in ["", "()", "(1)", "(1,2", "1,2", "(1,2,3)", "(,)"] {
            assert!(point(&p, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(n in any::<i64>()) {
            let shown = n.to_string();
            let p = none();
            prop_assert_eq!(int8(&p, shown.as_bytes()).unwrap(), Value::I64(n));
        }
        #[test]
        fn floats_round_trip(x in any::<f64>().prop_filter("finite", |x| x.is_finite()), y in any::<f32>().prop_filter("finite", |x| x.is_finite())) {
            let (p, x_shown, y_shown) = (none(), format!("{x:e}"), format!("{y:e}"));
            prop_assert_eq!(float8(&p, x_shown.as_bytes()).unwrap(), Value::F64(x));
            prop_assert_eq!(float4(&p, y_shown.as_bytes()).unwrap(), Value::F32(y));
        }
        #[test]
        fn bytea_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let hex = bytes.iter().fold("\\x".to_owned(), |s, b| s + &format!("{b:02x}"));
            let p = none();
            prop_assert_eq!(bytea(&p, hex.as_bytes()).unwrap(), Value::Bytes(bytes.clone().into()));
            let escaped: Vec<u8> = bytes.iter().flat_map(|b| match b {
                b'\\' => b"\\\\".to_vec(),
                0x20..=0x7e => vec![*b],
                _ => format!("\\{b:03o}").into_bytes(),
            }).collect();
            prop_assert_eq!(bytea(&p, &escaped).unwrap(), Value::Bytes(bytes.into()));
        }
        #[test]
        fn money_round_trips(cents in any::<i64>()) {
            let digits = format!("{:03}", cents.unsigned_abs());
            let (whole, fraction) = digits.split_at(digits.len() - 2);
            let grouped: Vec<&str> = whole.as_bytes().rchunks(3).rev().map(|c| std::str::from_utf8(c).unwrap()).collect();
            let sign = if cents < 0 { "-" } else { "" };
            let shown = format!("{sign}${}.{fraction}", grouped.join(","));
            let param = MoneyFormat::param(Some(MoneyFormat::DOLLARS));
            prop_assert_eq!(money(&param, shown.as_bytes()).unwrap(), Value::Decimal(format!("{sign}{whole}.{fraction}").into()));
        }
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), n in -2i32..12, delimiter in any::<u8>()) {
            let p = Param { n, delimiter, ..Param::default() };
            for f in [boolean, int2, int4, int8, oid, float4, float8, numeric, money, text, single_char, bits, bit1, bytea, raw, point] {
                let _: Result<_> = f(&p, &bytes);
            }
        }
    }
}

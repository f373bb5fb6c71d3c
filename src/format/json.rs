//! JSON on the row path: text, integers, floats and bytes straight into the record, without a tree and without
//! allocation.
//!
//! Text is copied in runs: eight bytes at a time are looked at with one subtraction for each of the three things that must be
//! escaped (control characters, `"`, `\`). The lowest byte that such a test marks is always right (a borrow can only
//! mark bytes above a true hit), and only the lowest is used. What is not ASCII is copied: it is UTF-8 already, because it
//! comes out of a `str`.

const HEX: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The second character of a byte's escape; 0: needs none; `u`: `\u00XX`.
const ESCAPE: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Marks (in the high bit of each byte) what must be escaped; only the lowest mark is exact.
#[inline]
fn marks(x: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let control = x.wrapping_sub(ONES * 0x20) & !x;
    let quote = x ^ (ONES * b'"' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = x ^ (ONES * b'\\' as u64);
    let slash = slash.wrapping_sub(ONES) & !slash;
    (control | quote | slash) & HIGH
}

/// Writes the inside of a JSON string: the text with what must be escaped, without the quotes around it.
pub fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut rest = bytes;
    let mut run = 0; // length of what needs no escape, from the start of `rest`
    loop {
        while let Some(eight) = rest.get(run..).and_then(|r| r.first_chunk::<8>()) {
            let found = marks(u64::from_le_bytes(*eight));
            if found == 0 {
                run += 8;
                continue;
            }
            run += found.trailing_zeros() as usize / 8;
            break;
        }
        while run < rest.len() && ESCAPE[rest[run] as usize] == 0 {
            run += 1;
        }
        let (clean, tail) = rest.split_at(run);
        out.extend_from_slice(clean);
        let Some((&byte, tail)) = tail.split_first() else { return };
        match ESCAPE[byte as usize] {
            b'u' => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX_UPPER[byte as usize >> 4],
                HEX_UPPER[byte as usize & 15],
            ]),
            short => out.extend_from_slice(&[b'\\', short]),
        }
        rest = tail;
        run = 0;
    }
}

/// Writes a JSON string.
#[inline]
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Writes an integer.
#[inline]
pub fn int(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Writes an unsigned integer.
#[inline]
pub fn uint(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Writes a truth value.
#[inline]
pub fn boolean(out: &mut Vec<u8>, b: bool) {
    out.extend_from_slice(if b { b"true" } else { b"false" });
}

/// The string that stands for a float that JSON has no number for.
fn not_finite(out: &mut Vec<u8>, nan: bool, negative: bool) {
    out.extend_from_slice(match (nan, negative) {
        (true, _) => b"\"NaN\"".as_slice(),
        (false, false) => b"\"Infinity\"",
        (false, true) => b"\"-Infinity\"",
    });
}

/// Writes a double: the shortest digits that read back as the same double; `"NaN"`, `"Infinity"`, `"-Infinity"` as strings.
pub fn f64(out: &mut Vec<u8>, f: f64) {
    if f.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(f).as_bytes());
    } else {
        not_finite(out, f.is_nan(), f < 0.0);
    }
}

/// Writes a single: the shortest digits that read back as the same single.
pub fn f32(out: &mut Vec<u8>, f: f32) {
    if f.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(f).as_bytes());
    } else {
        not_finite(out, f.is_nan(), f < 0.0);
    }
}

fn base64_with(out: &mut Vec<u8>, bytes: &[u8], alphabet: &[u8; 64]) {
    let digit = |n: u32| alphabet[(n & 63) as usize];
    out.reserve(bytes.len().div_ceil(3) * 4);
    let mut threes = bytes.chunks_exact(3);
    for three in &mut threes {
        let n = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        out.extend_from_slice(&[digit(n >> 18), digit(n >> 12), digit(n >> 6), digit(n)]);
    }
    match *threes.remainder() {
        [a] => {
            let n = u32::from(a) << 16;
            out.extend_from_slice(&[digit(n >> 18), digit(n >> 12), b'=', b'=']);
        }
        [a, b] => {
            let n = u32::from(a) << 16 | u32::from(b) << 8;
            out.extend_from_slice(&[digit(n >> 18), digit(n >> 12), digit(n >> 6), b'=']);
        }
        _ => {}
    }
}

/// Writes base64 with padding (RFC 4648), without quotes.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    base64_with(out, bytes, STANDARD);
}

/// Writes base64 with the URL alphabet and padding, without quotes.
pub fn base64_url(out: &mut Vec<u8>, bytes: &[u8]) {
    base64_with(out, bytes, URL_SAFE);
}

/// Writes lower-case hexadecimal, without quotes.
pub fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.extend_from_slice(&[HEX[*b as usize >> 4], HEX[*b as usize & 15]]);
    }
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
    fn every_ascii_character_alone_and_at_every_offset() {
        for c in 0u8..128 {
            for before in 0..20 {
                let text = format!("{}{}{}", "x".repeat(before), c as char, "é".repeat(before % 5));
                let json = written(|o| string(o, &text));
                assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
            }
        }
        assert_eq!(
            written(|o| string(o, "\u{1}\u{1f}\t\n\r\u{8}\u{c}\"\\/\u{7f}")),
            "\"\\u0001\\u001F\\t\\n\\r\\b\\f\\\"\\\\/\u{7f}\""
        );
    }

    #[test]
    fn numbers() {
        assert_eq!(written(|o| int(o, i64::MIN)), "-9223372036854775808");
        assert_eq!(written(|o| uint(o, u64::MAX)), "18446744073709551615");
        for (f, want) in [(0.0, "0.0"), (1.5, "1.5"), (-2.5, "-2.5"), (0.1, "0.1"), (f64::NAN, "\"NaN\"")] {
            assert_eq!(written(|o| f64(o, f)), want);
        }
        assert_eq!(written(|o| f64(o, f64::NEG_INFINITY)), "\"-Infinity\"");
        assert_eq!(written(|o| f32(o, f32::INFINITY)), "\"Infinity\"");
        let single = written(|o| f32(o, -1.17549e-38));
        assert_eq!(single.parse::<f64>().unwrap(), -1.17549e-38, "{single}: no more digits than a single needs");
    }

    #[test]
    fn bytes() {
        for (raw, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(written(|o| base64(o, raw.as_bytes())), want);
        }
        assert_eq!(written(|o| base64_url(o, &[0xfb, 0xff, 0xfe])), "-__-");
        assert_eq!(written(|o| base64(o, &[0xfb, 0xff, 0xfe])), "+//+");
        assert_eq!(written(|o| hex(o, &[0, 0xff, 0x10])), "00ff10");
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in "\\PC*|(?s).{0,80}") {
            let json = written(|o| string(o, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        #[test]
        fn any_float_reads_back(bits: u64) {
            let f = f64::from_bits(bits);
            prop_assume!(f.is_finite());
            let json = written(|o| super::f64(o, f));
            prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap().is_number());
        }
        #[test]
        fn any_single_reads_back(bits: u32) {
            let f = f32::from_bits(bits);
            prop_assume!(f.is_finite());
            let json = written(|o| super::f32(o, f));
            prop_assert_eq!(json.parse::<f32>().unwrap().to_bits(), bits);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap().is_number());
        }
    }
}

//! Durations and sizes as people write them: `500ms`, `10s`, `5m`, `1h`; `64KiB`, `64MiB`, `1GiB`, or a number of bytes.
//!
//! Sizes are powers of two and say so in their unit; `MB` is refused rather than guessed at.

use std::time::Duration;

/// What a duration looks like, for faults.
pub const DURATION: &str = "write a duration in quotes with its unit: \"500ms\", \"10s\", \"5m\" or \"1h\"";
/// What a size looks like, for faults.
pub const SIZE: &str = "write a size in quotes with its unit, \"64KiB\", \"64MiB\" or \"1GiB\", or a number of bytes";

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text.get(..digits)?.parse().ok()?, text.get(digits..)?.trim()))
}

/// Reads a duration.
pub fn duration(text: &str) -> Option<Duration> {
    let (n, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    n.checked_mul(ms).map(Duration::from_millis)
}

/// Reads a size in bytes.
pub fn size(text: &str) -> Option<u64> {
    let (n, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    n.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses() {
        for bad in ["", "s", "1", "1 day", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for bad in ["", "MiB", "1MB", "1mib", "-1", "1.5GiB", "18446744073709551615KiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
    proptest! {
        #[test]
        fn units(n in 0u64..1 << 30) {
            for (unit, ms) in [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)] {
                prop_assert_eq!(duration(&format!("{n}{unit}")), Some(Duration::from_millis(n * ms)));
            }
            for (unit, factor) in [("", 1u64), ("B", 1), ("KiB", 1 << 10), (" MiB", 1 << 20), ("GiB", 1 << 30)] {
                prop_assert_eq!(size(&format!("{n}{unit}")), Some(n * factor));
            }
        }
        #[test]
        fn never_panics(s in "\\PC{0,20}") {
            duration(&s);
            size(&s);
        }
    }
}

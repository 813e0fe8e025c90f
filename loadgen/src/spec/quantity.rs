//! Quantities with units, as a workload spells them: `"500ms"`, `"5000/s"`, `"1KiB"`, `"0.1%"`.
//!
//! Each function gives the value in the unit of its name, or `None` for a text that it does not understand;
//! who calls says what was expected. Ranges are checked by the caller too, except that no result is
//! negative, infinite or NaN.

/// What a duration looks like, for complaints.
pub const DURATION_FORM: &str = "a duration such as \"500ms\", \"5s\" or \"2m\"";
/// What a rate looks like, for complaints.
pub const RATE_FORM: &str = "a rate such as \"5000/s\"";
/// What a size looks like, for complaints.
pub const SIZE_FORM: &str = "a size such as \"100B\" or \"1KiB\"";
/// What a share looks like, for complaints.
pub const SHARE_FORM: &str = "a share such as \"90%\" or 0.9";

/// `"1.5s"` in nanoseconds. Units: ns, us, ms, s, m (also min), h; always needed.
pub fn duration_ns(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let ns_per_unit = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    let ns = (number * ns_per_unit).round();
    (ns < u64::MAX as f64).then_some(ns as u64)
}

/// `"5000/s"` or `"5000"` per second.
pub fn rate_per_s(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    matches!(unit, "/s" | "").then_some(number)
}

/// `"1KiB"` or `"100"` in bytes. Units: B, kB and MB (thousands), KiB and MiB.
pub fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes_per_unit = match unit {
        "" | "B" => 1.0,
        "kB" => 1e3,
        "KiB" => 1024.0,
        "MB" => 1e6,
        "MiB" => 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * bytes_per_unit;
    (bytes.fract() == 0.0 && bytes < 1e15).then_some(bytes as u64)
}

/// `"0.1%"` or `"0.001"` as a share of one, from 0 to 1.
pub fn share(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return None,
    };
    (share <= 1.0).then_some(share)
}

/// A plain number that is not negative.
pub fn number(text: &str) -> Option<f64> {
    split(text).filter(|(_, unit)| unit.is_empty()).map(|(number, _)| number)
}

/// The number at the front (digits, one point, underscores between digits) and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || !digits.ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = digits.replace('_', "").parse().ok()?;
    number.is_finite().then_some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("500ms", Some(500_000_000)),
            ("5s", Some(5_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("2m", Some(120_000_000_000)),
            ("1h", Some(3_600_000_000_000)),
            ("250us", Some(250_000)),
            ("7 ns", Some(7)),
            ("0s", Some(0)),
            ("5", None),
            ("s", None),
            ("5 parsecs", None),
            ("-5s", None),
            ("5s5", None),
            ("1.2.3s", None),
            ("1e3s", None),
            ("infs", None),
            ("9999999999999h", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration_ns(text), expected, "{text}");
        }
    }

    #[test]
    fn rates_sizes_and_shares() {
        assert_eq!(rate_per_s("5000/s"), Some(5000.0));
        assert_eq!(rate_per_s("1_000.5 /s"), Some(1000.5));
        assert_eq!(rate_per_s("5000/m"), None);
        assert_eq!(size_bytes("100B"), Some(100));
        assert_eq!(size_bytes("1.5KiB"), Some(1536));
        assert_eq!(size_bytes("2kB"), Some(2000));
        assert_eq!(size_bytes("1KB"), None, "neither kB nor KiB");
        assert_eq!(size_bytes("0.3B"), None);
        assert_eq!(share("0.1%"), Some(0.001));
        assert_eq!(share("0.25"), Some(0.25));
        assert_eq!(share("101%"), None);
        assert_eq!(number("12"), Some(12.0));
        assert_eq!(number("12%"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("."), None);
    }
}

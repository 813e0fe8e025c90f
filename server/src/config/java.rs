//! How Java reads numbers and switches: what stands in a zoo.cfg that Apache starts with must mean the same here.

/// A number as `Integer.getInteger` and `Long.getLong` read system properties: decimal, hexadecimal behind `0x` or
/// `#`, octal behind a `0`, each with a sign in front or without. Source: `Long.decode`.
pub(super) fn decode(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) if text.starts_with('-') => (-1, digits),
        Some(digits) => (1, digits),
        None => (1, text),
    };
    let hexadecimal = ["0x", "0X", "#"].iter().find_map(|prefix| digits.strip_prefix(prefix));
    let (radix, digits) = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(digits), _) => (16, digits),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        (None, _) => (10, digits),
    };
    if digits.starts_with(['-', '+']) {
        return None;
    }
    // Wider than the result, so that the smallest number can be read without its sign.
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(sign * magnitude).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_java_decodes_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("+12", Some(12)),
            ("-12", Some(-12)),
            ("0xff", Some(255)),
            ("-0XfF", Some(-255)),
            ("#ff", Some(255)),
            ("0100", Some(64)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("0x-1", None),
            ("--1", None),
            ("08", None),
            ("1M", None),
            ("1 ", None),
        ] {
            assert_eq!(decode(text), number, "{text:?}");
        }
    }
}

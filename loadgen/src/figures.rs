//! How numbers are written for people: three significant digits, a unit that keeps them between 1 and 999.

/// A time: `82.1 µs`, `3.40 ms`, `1.25 s`.
pub fn time_us(us: f64) -> String {
    match us {
        us if !us.is_finite() => "-".to_string(),
        us if us >= 999_500.0 => format!("{} s", digits(us / 1e6)),
        us if us >= 999.5 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} µs", digits(us)),
    }
}

/// A time that may be unknown: `-`.
pub fn time_us_or_dash(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_string(), time_us)
}

/// A number with its digits grouped: `7`, `1,234`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate per second, without the unit: `9.87`, `123`, `20,013`.
pub fn rate(per_second: f64) -> String {
    if per_second >= 99.95 { count(per_second.round() as u64) } else { digits(per_second) }
}

/// A size: `512 B`, `1.50 KiB`, `12.0 MiB`.
pub fn bytes(n: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{} {}", digits(value), UNITS[unit]) }
}

/// A share as percent: `12.3 %`, `0.042 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}

/// Seconds of a run: `150 ms`, `12.0 s`, `2 min 5 s`.
pub fn seconds(s: f64) -> String {
    if s < 0.9995 {
        time_us(s * 1e6)
    } else if s < 119.95 {
        format!("{s:.1} s")
    } else {
        let whole = s.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// Three significant digits, or all digits before the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "-".to_string(),
        v if v >= 9_999.5 => count(value.round() as u64),
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 || v == 0.0 => format!("{value:.2}"),
        v if v >= 0.00995 => format!("{value:.3}"),
        v if v >= 0.000995 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A moment (milliseconds since 1970) in UTC: `2026-11-22 13:45:10`.
pub fn utc(unix_ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(unix_ms);
    format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}")
}

/// The same for file names: `20261122T134510Z`.
pub fn utc_compact(unix_ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(unix_ms);
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z")
}

/// Days since 1970 to a date of the Gregorian calendar (years begin in March, so that leap days come last).
fn civil(unix_ms: u64) -> (u64, u64, u64, u64, u64, u64) {
    let seconds = unix_ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_fitting_unit() {
        assert_eq!(time_us(0.0), "0.00 µs");
        assert_eq!(time_us(82.13), "82.1 µs");
        assert_eq!(time_us(999.6), "1.00 ms");
        assert_eq!(time_us(3_401.0), "3.40 ms");
        assert_eq!(time_us(1_250_000.0), "1.25 s");
        assert_eq!(time_us(f64::INFINITY), "-");
        assert_eq!(rate(20_013.4), "20,013");
        assert_eq!(rate(9.871), "9.87");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(percent(0.00042), "0.042 %");
        assert_eq!(seconds(0.15), "150 ms");
        assert_eq!(seconds(1.0), "1.0 s");
        assert_eq!(seconds(125.2), "2 min 5 s");
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_355_110_000), "2026-11-22 13:45:10");
        assert_eq!(utc_compact(1_795_355_110_000), "20261122T134510Z");
    }
}

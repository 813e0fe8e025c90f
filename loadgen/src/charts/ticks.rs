//! Ranges and ticks that people read easily.

use crate::figures;

use super::plot::{Axis, Scale};

/// A linear axis from 0 to a round number above `max`, with about five ticks.
pub(crate) fn from_zero(name: &str, max: f64, label: fn(f64) -> String) -> Axis {
    let step = round_step(max.max(1e-9) / 4.0);
    let top = (max / step).ceil().max(1.0) * step;
    let ticks = (0..=(top / step).round() as usize).map(|n| n as f64 * step);
    Axis {
        name: name.to_string(),
        scale: Scale::Linear,
        range: (0.0, top),
        ticks: ticks.map(|value| (value, label(value))).collect(),
    }
}

/// A time axis in seconds, from the first moment, which is its zero, to the last.
pub(crate) fn time(from_s: f64, to_s: f64) -> Axis {
    let step = round_step((to_s - from_s) / 8.0).max(0.1);
    let last = ((to_s - from_s) / step + 1e-6).floor() as i64;
    let decimals = usize::from(step < 1.0);
    let ticks = (0..=last).map(|n| (from_s + n as f64 * step, format!("{:.decimals$}", n as f64 * step)));
    Axis {
        name: "seconds since the first phase began".to_string(),
        scale: Scale::Linear,
        range: (from_s, to_s.max(from_s + 1e-3)),
        ticks: ticks.collect(),
    }
}

/// A logarithmic axis of times in microseconds that holds `low` and `high`.
pub(crate) fn latency(low_us: f64, high_us: f64) -> Axis {
    let (low, high) = (low_us.max(0.1), high_us.max(low_us.max(0.1) * 1.01));
    // Marks at 1, 2, 5 where that gives few; at 1 only where the range is wide.
    let decades = (high / low).log10();
    let marks: &[f64] = if decades < 2.6 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let exponents = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32;
    let all: Vec<f64> = exponents.flat_map(|e| marks.iter().map(move |mark| mark * 10f64.powi(e))).collect();
    let from = all.iter().rev().find(|tick| **tick <= low * 1.0001).copied().unwrap_or(low);
    let to = all.iter().find(|tick| **tick >= high * 0.9999).copied().unwrap_or(high);
    let ticks = all.iter().filter(|tick| **tick >= from && **tick <= to);
    Axis {
        name: "log scale".to_string(),
        scale: Scale::Log,
        range: (from, to),
        ticks: ticks.map(|us| (*us, time_label(*us))).collect(),
    }
}

/// The axis of percentiles on which each further nine takes the same room, up to `1 - 1/n`.
pub(crate) fn nines(samples: u64) -> Axis {
    let end = (samples.max(20) as f64).log10();
    let named: &[(f64, &str)] = &[
        (0.0, "0"),
        (0.5, "50 %"),
        (0.75, "75 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
        (0.999999, "99.9999 %"),
        (0.9999999, "99.99999 %"),
    ];
    let ticks = named.iter().map(|(q, text)| (nines_of(*q), text.to_string()));
    Axis {
        name: "percentile (each further nine takes the same room)".to_string(),
        scale: Scale::Linear,
        range: (0.0, end),
        ticks: ticks.filter(|(at, _)| *at <= end).collect(),
    }
}

/// Where a quantile stands on that axis.
pub(crate) fn nines_of(q: f64) -> f64 {
    -(1.0 - q).max(1e-12).log10()
}

/// 1, 2 or 5 times a power of ten, at least `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw * 0.999).unwrap_or(raw)
}

/// `500 µs`, `2 ms`: round numbers need no decimals.
fn time_label(us: f64) -> String {
    let (value, unit) = match us {
        us if us >= 0.999e6 => (us / 1e6, "s"),
        us if us >= 0.999e3 => (us / 1e3, "ms"),
        us => (us, "µs"),
    };
    format!("{} {unit}", plain(value))
}

/// A tick's number without needless zeros.
pub(crate) fn plain(value: f64) -> String {
    if value.abs() >= 1_000.0 {
        return figures::count(value.round() as u64);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

//! Colours: Okabe and Ito's set, which people with any kind of colour vision can tell apart, and the greys
//! around it. The report's style sheet knows the greys, and the shades of a failover's parts, by these very values and
//! replaces them in the dark.

use plotters::style::RGBColor;

use crate::op::Op;

pub(crate) const PAPER: RGBColor = RGBColor(255, 255, 255);
pub(crate) const INK: RGBColor = RGBColor(27, 31, 36);
pub(crate) const MUTED: RGBColor = RGBColor(89, 99, 110);
pub(crate) const GRID: RGBColor = RGBColor(227, 231, 235);
pub(crate) const BAND: RGBColor = RGBColor(245, 247, 249);

pub(crate) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(crate) const VERMILLION: RGBColor = RGBColor(213, 94, 0);
pub(crate) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(crate) const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub(crate) const SKY: RGBColor = RGBColor(86, 180, 233);
pub(crate) const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub(crate) const OLIVE: RGBColor = RGBColor(153, 138, 0);
/// Between those, for the kinds of operation that are left.
const SAND: RGBColor = RGBColor(221, 204, 119);
pub(crate) const INDIGO: RGBColor = RGBColor(110, 94, 190);
const TEAL: RGBColor = RGBColor(136, 204, 190);
const BROWN: RGBColor = RGBColor(153, 79, 60);

/// For things without a colour of their own: phases, members, runs.
pub(crate) const SERIES: [RGBColor; 7] = [BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, OLIVE];

/// What failed.
pub(crate) const ERRORS: RGBColor = PURPLE;

/// The colour of a kind of operation, the same in every chart.
pub(crate) fn of_op(op: Op) -> RGBColor {
    match op {
        Op::Get => BLUE,
        Op::Exists => SKY,
        Op::Children => GREEN,
        Op::Set => VERMILLION,
        Op::Create => ORANGE,
        Op::CreateEphemeral => SAND,
        Op::CreateSequential => OLIVE,
        Op::Delete => INDIGO,
        Op::Multi => BROWN,
        Op::Sync => TEAL,
        Op::Connect => MUTED,
        Op::Notify => INK,
    }
}

/// From few to many, 0 to 1: light to dark, so that it also reads in grey.
pub(crate) fn heat(share: f64) -> RGBColor {
    const STOPS: [(f64, f64, f64); 5] = [
        (214.0, 230.0, 244.0),
        (130.0, 190.0, 224.0),
        (46.0, 134.0, 193.0),
        (120.0, 60.0, 130.0),
        (75.0, 5.0, 50.0),
    ];
    let at = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let low = (at.floor() as usize).min(STOPS.len() - 2);
    let mix = at - low as f64;
    let (a, b) = (STOPS[low], STOPS[low + 1]);
    let blend = |x: f64, y: f64| (x + (y - x) * mix).round() as u8;
    RGBColor(blend(a.0, b.0), blend(a.1, b.1), blend(a.2, b.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_of_operation_look_alike_and_none_like_an_error() {
        let mut colours: Vec<_> = Op::ALL.iter().map(|op| of_op(*op)).chain([ERRORS]).collect();
        colours.sort_unstable_by_key(|colour| (colour.0, colour.1, colour.2));
        let apart = |pair: &[RGBColor]| {
            let [a, b] = pair else { unreachable!() };
            a.0.abs_diff(b.0).max(a.1.abs_diff(b.1)).max(a.2.abs_diff(b.2)) > 20
        };
        assert!(colours.windows(2).all(apart), "{colours:?}");
    }
}

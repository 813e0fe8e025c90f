//! What charts tell apart: the kinds of operation that a user would name.

use plotters::style::RGBColor;

use crate::op::Op;
use crate::recorder::Class;
use crate::summary::{OpSummary, PhaseSummary};

use super::palette;

/// A kind of thing that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Reads,
    Writes,
    /// Watch events, from the write that was due to the watcher that heard of it.
    Notifications,
    /// Opening sessions.
    Connects,
}

impl Kind {
    /// The kinds that a run is about; opening sessions is not one of them.
    pub(crate) const MEASURED: [Kind; 3] = [Kind::Reads, Kind::Writes, Kind::Notifications];

    pub(crate) fn of(op: Op) -> Kind {
        match (op, Class::of(op)) {
            (Op::Notify, _) => Kind::Notifications,
            (_, Some(Class::Reads)) => Kind::Reads,
            (_, Some(Class::Writes)) => Kind::Writes,
            (_, None) => Kind::Connects,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Reads => "reads",
            Kind::Writes => "writes",
            Kind::Notifications => "notifications",
            Kind::Connects => "session openings",
        }
    }

    pub(crate) fn colour(self) -> RGBColor {
        match self {
            Kind::Reads => palette::BLUE,
            Kind::Writes => palette::VERMILLION,
            Kind::Notifications => palette::GREEN,
            Kind::Connects => palette::MUTED,
        }
    }

    /// A phase's figures for this kind.
    pub(crate) fn summary(self, phase: &PhaseSummary) -> Option<&OpSummary> {
        match self {
            Kind::Reads | Kind::Writes => phase.class(self.name()),
            Kind::Notifications => phase.op(Op::Notify.name()),
            Kind::Connects => phase.op(Op::Connect.name()),
        }
    }
}

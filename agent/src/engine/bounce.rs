//! The bounce: the wired link is interrupted for a moment, as if the cable had been pulled, so that hosts behind it ask for new
//! addresses by themselves.
//!
//! ```text
//!          begin            DOWN over             carrier, or GRACE over
//! (none) --------> Down ----------------> Rising ------------------------> (none)
//! ```
//!
//! Until it is over, a missing carrier is our own doing and nobody's cable.

use std::time::{Duration, Instant};

use crate::addr::IfIndex;

/// How long the interface is down: longer than the time for which hosts overlook a lost carrier.
const DOWN: Duration = Duration::from_millis(2000);
/// How long the carrier may take to come back: two ports need up to four seconds to agree on a speed.
const GRACE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Rising,
}

/// An interruption under way, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Bounce {
    under_way: Option<(IfIndex, Phase, Instant)>,
}

impl Bounce {
    /// Begins, unless one is under way whose end the hosts have yet to see.
    pub(crate) fn begin(&mut self, index: IfIndex, now: Instant) {
        if !self.is_under_way(index) {
            self.under_way = Some((index, Phase::Down, now + DOWN));
        }
    }

    /// Returns whether the interface is being interrupted, so that its carrier says nothing.
    pub(crate) fn is_under_way(&self, index: IfIndex) -> bool {
        self.under_way.is_some_and(|(on, ..)| on == index)
    }

    /// Returns the interface that is to be down.
    pub(crate) fn down(&self) -> Option<IfIndex> {
        let down = self.under_way.filter(|(_, phase, _)| *phase == Phase::Down);
        down.map(|(index, ..)| index)
    }

    /// Takes the wired interface and whether it has carrier.
    pub(crate) fn watch(&mut self, wired: Option<IfIndex>, carrier: bool) {
        let over = |(index, phase, _): &(IfIndex, Phase, Instant)| {
            Some(*index) != wired || (*phase == Phase::Rising && carrier)
        };
        if self.under_way.as_ref().is_some_and(over) {
            self.under_way = None;
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.map(|(.., until)| until)
    }

    /// Goes on to the next phase. Returns whether it did.
    pub(crate) fn handle_tick(&mut self, now: Instant) -> bool {
        let Some((index, phase, until)) = self.under_way.filter(|(.., until)| *until <= now) else {
            return false;
        };
        self.under_way = match phase {
            Phase::Down => Some((index, Phase::Rising, until.max(now) + GRACE)),
            Phase::Rising => None,
        };
        true
    }
}

//! One host: where it is, how sure that is, and when something is due for it.
//!
//! ```text
//!  OFFER -> Provisional --+            +-- claim from elsewhere --> Challenged --silent, and the other answered--> Verified (there)
//!                         | evidence   |                               | answered
//!  evidence, ACK ---------+-------> Verified <-------------------------+
//!                         |          |    ^
//!                         |  60 s old|    | answered
//!                         |          v    |
//!  cable in (asked) -> Remembered <- Checking (unicast, then broadcast)
//! ```

use std::time::{Duration, Instant};

use crate::addr::{MacAddr, Side};

/// How long a silent wired host is remembered, if no lease says longer.
const REMEMBER: Duration = Duration::from_secs(600);

/// How a host was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Arp,
    Dhcp,
}

/// How sure a host's place is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// Offered an address, not yet given it.
    Provisional { until: Instant },
    /// It showed that it is there.
    Verified { until: Instant },
    /// It has been silent for some time and is being asked.
    Checking(Check),
    /// Somebody elsewhere claims its address; both are being asked, and `answered` says that the other spoke again.
    Challenged {
        check: Check,
        by: Place,
        answered: bool,
    },
    /// It was there, and may come back; it is being asked if there is a check.
    Remembered {
        until: Instant,
        check: Option<Check>,
    },
}

/// Requests under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) sent: u8,
    pub(crate) next: Instant,
}

/// Where a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) mac: MacAddr,
    pub(crate) side: Side,
}

/// Announcements still to be made on the side a host left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announcements {
    pub(crate) side: Side,
    pub(crate) left: u8,
    pub(crate) next: Instant,
}

/// A host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) source: Source,
    pub(crate) state: State,
    /// When it last showed that it is alive.
    pub(crate) evidence: Instant,
    pub(crate) lease_end: Option<Instant>,
    /// When somebody on the other side last asked for it.
    pub(crate) asked: Option<Instant>,
    /// Until when another claim is not looked into.
    pub(crate) held_until: Option<Instant>,
    /// When its own announcement was last passed on.
    pub(crate) passed_on: Option<Instant>,
    pub(crate) announcements: Option<Announcements>,
}

impl Host {
    pub(crate) fn new(place: Place, source: Source, state: State, now: Instant) -> Host {
        Host {
            place,
            source,
            state,
            evidence: now,
            lease_end: None,
            asked: None,
            held_until: None,
            passed_on: None,
            announcements: None,
        }
    }

    /// Returns whether the host is, or was a moment ago, where the table says.
    pub(crate) fn is_present(&self) -> bool {
        match self.state {
            State::Verified { .. } | State::Checking(_) | State::Challenged { .. } => true,
            State::Provisional { .. } | State::Remembered { .. } => false,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        let state = self.state_deadline();
        self.announcements.map_or(state, |a| a.next.min(state))
    }

    pub(crate) fn state_deadline(&self) -> Instant {
        match self.state {
            State::Provisional { until } | State::Verified { until } => until,
            State::Checking(check) | State::Challenged { check, .. } => check.next,
            State::Remembered { until, check } => {
                check.map_or(until, |check| check.next.min(until))
            }
        }
    }

    pub(crate) fn remembered(&mut self, now: Instant) {
        let until = self
            .lease_end
            .map_or(now + REMEMBER, |end| end.max(now + REMEMBER));
        self.state = State::Remembered { until, check: None };
        self.announcements = None;
    }
}

impl Check {
    pub(crate) fn new(now: Instant) -> Check {
        Check { sent: 0, next: now }
    }
}

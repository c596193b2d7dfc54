//! One host: where it is, how sure that is, and when something is due for it.
//!
//! ```text
//!  OFFER -> Provisional --+            +-- claim from elsewhere --> Challenged --silent, and the other answered--> Verified (there)
//!                         | evidence   |                               | answered
//!  evidence, ACK ---------+-------> Verified <-------------------------+
//!                         |          |   |   ^
//!                         |  60 s old|   |   | answered (elsewhere: Verified there)
//!                         |          v   |   |
//!                         |  Checking ---|-> Sought (everybody on both sides is asked)
//!                         |  (alone)     |   ^    |
//!                         |      wanted, |   |    | silent
//!                         |      silent, +---+    v
//!  cable in (asked) ------+ asked alone       Remembered (on the wire), or dropped
//! ```

use std::time::{Duration, Instant};

use crate::addr::{MacAddr, Side};

/// How long a silent wired host without a lease is remembered.
const REMEMBER: Duration = Duration::from_secs(600);

/// How a host was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Arp,
    Dhcp,
}

/// What a host did that shows that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It said something by itself, as anybody could in its name.
    Spoke,
    /// It answered a question of ours.
    Answered,
}

/// How sure a host's place is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// Offered an address, not yet given it.
    Provisional { until: Instant },
    /// It showed that it is there.
    Verified { until: Instant },
    /// It has been silent for some time and is being asked, alone.
    Checking(Check),
    /// It did not answer when asked alone; everybody is asked.
    Sought(Check),
    /// Somebody elsewhere claims its address; both are being asked, and `answered` says that the other did answer.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) mac: MacAddr,
    pub(crate) side: Side,
}

/// Announcements of a host still to be made on the other side: of its move, or those it made itself. They wait until it answered a
/// question of ours (A6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announcements {
    pub(crate) side: Side,
    /// The host kept its hardware address, and so may have kept what it knew of others.
    pub(crate) remembers: bool,
    pub(crate) left: u8,
    /// When the next is due; while the host has not answered, from when it may be asked (again) if it speaks.
    pub(crate) next: Instant,
    /// Whether the host was asked because of them.
    pub(crate) asked: bool,
}

/// A second machine with the host's address (A7).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) with: Place,
    /// When it was last found out that both are alive.
    pub(crate) seen: Instant,
}

/// A host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) source: Source,
    pub(crate) state: State,
    /// When it last showed that it is alive.
    pub(crate) evidence: Instant,
    /// It answered a question of ours: more than a packet that anybody can send in any name.
    pub(crate) proven: bool,
    pub(crate) lease_end: Option<Instant>,
    /// When somebody on the other side last asked for it.
    pub(crate) asked: Option<Instant>,
    /// Requests to a verified host that somebody wants and that has not spoken since.
    pub(crate) doubt: Option<Check>,
    /// From when it may be doubted (again).
    pub(crate) doubt_from: Instant,
    /// Whether it was asked for on the other side as well since it fell silent.
    pub(crate) searched: bool,
    pub(crate) conflict: Option<Conflict>,
    /// When a claim to its address was last dropped because nobody stood behind it.
    pub(crate) idle_claim: Option<Instant>,
    /// When its own announcement was last passed on.
    pub(crate) passed_on: Option<Instant>,
    pub(crate) announcements: Option<Announcements>,
}

/// Who is missed least, in the order of going when there is no room; of equals, the one that was silent for longest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// Not there, and without a lease.
    Absent,
    /// Nobody but one packet vouched for it.
    Unproven,
    /// Not there, but its lease is its own.
    AbsentWithLease,
    /// It answered.
    Proven,
    /// A server gave it its address.
    Leased,
}

impl Host {
    pub(crate) fn new(place: Place, source: Source, state: State, now: Instant) -> Host {
        Host {
            place,
            source,
            state,
            evidence: now,
            proven: false,
            lease_end: None,
            asked: None,
            doubt: None,
            doubt_from: now,
            searched: false,
            conflict: None,
            idle_claim: None,
            passed_on: None,
            announcements: None,
        }
    }

    /// Returns whether the host is, or was a moment ago, where the table says.
    pub(crate) fn is_present(&self) -> bool {
        match self.state {
            State::Verified { .. }
            | State::Checking(_)
            | State::Sought(_)
            | State::Challenged { .. } => true,
            State::Provisional { .. } | State::Remembered { .. } => false,
        }
    }

    pub(crate) fn worth(&self) -> Worth {
        match (self.is_present(), self.lease_end.is_some()) {
            (true, true) => Worth::Leased,
            (true, false) if self.proven => Worth::Proven,
            (true, false) => Worth::Unproven,
            (false, true) => Worth::AbsentWithLease,
            (false, false) => Worth::Absent,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        let announcements = self.announcements.filter(|_| self.proven);
        let announcements = announcements.map(|announcements| announcements.next);
        let doubt = self.doubt.map(|check| check.next);
        let others = announcements.into_iter().chain(doubt);
        others.fold(self.state_deadline(), Instant::min)
    }

    pub(crate) fn state_deadline(&self) -> Instant {
        match self.state {
            State::Provisional { until } | State::Verified { until } => until,
            State::Checking(check) | State::Sought(check) | State::Challenged { check, .. } => {
                check.next
            }
            State::Remembered { until, check } => {
                check.map_or(until, |check| check.next.min(until))
            }
        }
    }

    /// Takes note that the host is where it was thought to be.
    pub(crate) fn confirm(&mut self, word: Word, until: Instant, now: Instant) {
        if word == Word::Answered && !self.proven {
            self.proven = true;
            if let Some(announcements) = &mut self.announcements {
                announcements.next = now;
            }
        }
        self.evidence = now;
        self.searched = false;
        self.outlive_lease(now);
        // Who spoke before it was asked may be doubted again at once: that it talks is what is expected of it.
        if self.doubt.take_if(|check| check.sent == 0).is_some() {
            self.doubt_from = now;
        }
        self.doubt = None;
        self.state = State::Verified { until };
    }

    /// Takes the lease away once it is over: who outlives it is a host like any that nobody vouches for.
    pub(crate) fn outlive_lease(&mut self, now: Instant) {
        if self.lease_end.take_if(|end| *end <= now).is_some() {
            self.source = Source::Arp;
        }
    }

    /// Returns whether an answer is expected before it is announced.
    pub(crate) fn is_to_prove_itself(&self) -> bool {
        !self.proven && self.announcements.is_some_and(|waiting| waiting.asked)
    }

    /// Keeps the host in mind for as long as the address is likely to be its own: until its lease ends, or for a while.
    pub(crate) fn remember(&mut self, now: Instant) {
        let until = self
            .lease_end
            .map_or(now + REMEMBER, |lease_end| lease_end.max(now));
        self.state = State::Remembered { until, check: None };
        self.announcements = None;
        self.doubt = None;
    }
}

impl Check {
    pub(crate) fn new(next: Instant) -> Check {
        Check { sent: 0, next }
    }
}

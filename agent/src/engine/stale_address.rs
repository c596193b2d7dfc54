//! An address that the uplink kept from a network it left.
//!
//! When the supplicant joins a network of another name, whoever manages the uplink's addresses has to give up the old lease. That
//! fails where it overlooks that the name changed: systemd-networkd compares names only at an association, and with one that
//! failed in between it compares with nothing, so a carrier that was away for less than its `IgnoreCarrierLoss` costs nothing and
//! the old lease lives on. An address that was seen under another name and never went since is such a one. Nothing is served
//! with it, and the interface is set down for longer than lost carrier is ignored, so that whoever manages it begins anew.
//!
//! ```text
//!           another name              GRACE over             DOWN over             up, and in a network again
//!  Settled --------------> Doubted -----------------> Down ------------> Rising ------------------------------> Settled
//!     ^                       |                                             |      (what is still there is of this network)
//!     +-- its own name again, -+                                            |
//!     |   none, or the address goes                                         |
//!     +-------------------------------- the address went, and it is up -----+
//! ```
//!
//! An address that is still there after that is somebody's wish, a static one perhaps, and is taken for the new network's: the
//! interface goes down once for each change of name. Where nothing is known of a radio, nothing happens.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::info;

use crate::addr::IfIndex;

use super::doctor::Problem;
use super::{BridgeState, Engine, link};

/// How long whoever manages the address may take to see that the network is another one.
const GRACE: Duration = Duration::from_secs(5);
/// How long the interface is down: longer than `IgnoreCarrierLoss` in `overlays/site/uplink.network`.
const DOWN: Duration = Duration::from_secs(4);

/// What the radio is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// There is no radio, as far as is known.
    Unknown,
    /// No network.
    Nothing,
    /// The network of this name.
    Network(Vec<u8>),
}

/// The uplink as it is seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) index: IfIndex,
    pub(crate) up: bool,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) joined: Joined,
}

/// The address of the uplink.
#[derive(Clone, Debug)]
struct Origin {
    address: Ipv4Addr,
    /// The name of the network under which it was first seen, once one is known.
    name: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Settled,
    Doubted {
        until: Instant,
    },
    Down {
        index: IfIndex,
        until: Instant,
    },
    Rising {
        index: IfIndex,
    },
}

/// Where the uplink's address is from, and what is done about one from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct StaleAddress {
    origin: Option<Origin>,
    phase: Phase,
}

impl StaleAddress {
    /// Returns whether the address is another network's, so that nothing may be said with it.
    pub(crate) fn is_stale(&self) -> bool {
        match self.phase {
            Phase::Settled | Phase::Doubted { .. } => false,
            Phase::Down { .. } | Phase::Rising { .. } => true,
        }
    }

    /// Returns the interface that is to be down.
    pub(crate) fn down(&self) -> Option<IfIndex> {
        match self.phase {
            Phase::Down { index, .. } => Some(index),
            Phase::Settled | Phase::Doubted { .. } | Phase::Rising { .. } => None,
        }
    }

    /// Returns the address that is watched.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.origin.as_ref().map(|origin| origin.address)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Settled | Phase::Rising { .. } => None,
            Phase::Doubted { until } | Phase::Down { until, .. } => Some(until),
        }
    }

    /// Takes the uplink as it is. Returns whether it changes what may be served or is to be down.
    pub(crate) fn review(&mut self, seen: Option<Seen>, now: Instant) -> bool {
        let before = (self.is_stale(), self.down());
        match seen {
            Some(seen) => {
                self.trace_address(&seen);
                self.phase = self.next_phase(&seen, now);
            }
            None => *self = StaleAddress::default(),
        }
        before != (self.is_stale(), self.down())
    }

    fn trace_address(&mut self, seen: &Seen) {
        let known = self.origin.take();
        let known = known.filter(|origin| Some(origin.address) == seen.address);
        self.origin = seen.address.map(|address| Origin {
            address,
            name: known
                .and_then(|origin| origin.name)
                .or(seen.joined.name().cloned()),
        });
    }

    fn next_phase(&mut self, seen: &Seen, now: Instant) -> Phase {
        let index = seen.index;
        match self.phase {
            Phase::Settled if self.is_from_elsewhere(seen) => Phase::Doubted { until: now + GRACE },
            Phase::Settled => Phase::Settled,
            Phase::Doubted { .. } if !self.is_from_elsewhere(seen) => Phase::Settled,
            Phase::Doubted { until } if until > now => self.phase,
            Phase::Doubted { .. } => Phase::Down {
                index,
                until: now + DOWN,
            },
            Phase::Down { index: of, .. } | Phase::Rising { index: of } if of != index => {
                Phase::Settled
            }
            Phase::Down { until, .. } if until > now => self.phase,
            Phase::Down { .. } => Phase::Rising { index },
            Phase::Rising { .. } if !seen.up => self.phase,
            Phase::Rising { .. } => self.risen(seen),
        }
    }

    /// What is there once the interface is up again and in a network belongs to that.
    fn risen(&mut self, seen: &Seen) -> Phase {
        let Some(origin) = &mut self.origin else {
            return Phase::Settled;
        };
        match &seen.joined {
            Joined::Nothing => self.phase,
            Joined::Unknown => Phase::Settled,
            Joined::Network(name) => {
                origin.name = Some(name.clone());
                Phase::Settled
            }
        }
    }

    fn is_from_elsewhere(&self, seen: &Seen) -> bool {
        let origin = self.origin.as_ref().and_then(|origin| origin.name.as_ref());
        let names = origin.zip(seen.joined.name());
        names.is_some_and(|(origin, present)| origin != present)
    }
}

impl Joined {
    fn name(&self) -> Option<&Vec<u8>> {
        match self {
            Joined::Network(name) => Some(name),
            Joined::Unknown | Joined::Nothing => None,
        }
    }
}

impl Engine {
    /// Looks whether the uplink's address is of the network it is in. Returns whether that changes what may be served.
    pub(super) fn review_address(&mut self, now: Instant) -> bool {
        if self.state == BridgeState::Stopping {
            return false;
        }
        let was_stale = self.stale_address.is_stale();
        let seen = self.interfaces.uplink.and_then(|index| {
            let watched = self.stale_address.address();
            let address = link::uplink_address(index, watched, &self.mirror);
            Some(Seen {
                index,
                up: self.mirror.links.get(&index)?.up,
                address: address.map(|address| address.address),
                joined: self.radio.joined(),
            })
        });
        let changed = self.stale_address.review(seen, now);
        if self.stale_address.is_stale() && !was_stale {
            let uplink = &self.settings.uplink;
            info!(%uplink, "the address is of another network; setting the interface down for a moment");
            self.count("uplink-address-stale");
        }
        changed
    }
}

/// Returns what is wrong while the address is another network's.
pub(crate) fn problem(engine: &Engine) -> Option<Problem> {
    let uplink = &engine.settings.uplink;
    engine.stale_address.is_stale().then(|| {
        Problem::new(
            format!("{uplink} kept its address when it joined another network"),
            "wait some seconds: it is set down, so that it asks for an address of its own there",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WLAN: IfIndex = IfIndex(2);
    const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const NEW: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

    fn seen(address: Option<Ipv4Addr>, joined: &str) -> Option<Seen> {
        Some(Seen {
            index: WLAN,
            up: joined != "down",
            address,
            joined: match joined {
                "unknown" => Joined::Unknown,
                "nothing" | "down" => Joined::Nothing,
                name => Joined::Network(name.as_bytes().to_vec()),
            },
        })
    }

    /// Tells a story: seconds, the address, the network; and what is to be after each.
    fn check(story: &[(u64, Option<Ipv4Addr>, &str, &str)]) {
        let start = crate::engine::test_clock();
        let mut machine = StaleAddress::default();
        for (at, address, joined, expected) in story {
            machine.review(seen(*address, joined), start + Duration::from_secs(*at));
            let state = match (machine.is_stale(), machine.down(), machine.next_deadline()) {
                (false, None, None) => "settled",
                (false, None, Some(_)) => "doubted",
                (true, Some(WLAN), Some(_)) => "down",
                (true, None, None) => "rising",
                other => panic!("{other:?}"),
            };
            assert_eq!(state, *expected, "at {at} s, {address:?} in {joined}");
        }
    }

    #[test]
    fn an_address_that_stays_is_given_up_once() {
        check(&[
            (0, Some(OLD), "home", "settled"),
            (10, Some(OLD), "nothing", "settled"),
            (11, Some(OLD), "office", "doubted"),
            (15, Some(OLD), "office", "doubted"),
            (16, Some(OLD), "office", "down"),
            (17, Some(OLD), "down", "down"),
            (19, None, "down", "down"),
            (20, None, "down", "rising"),
            (21, None, "nothing", "settled"),
            (25, Some(NEW), "office", "settled"),
            (40, Some(NEW), "office", "settled"),
        ]);
    }

    #[test]
    fn a_static_address_is_left_alone_after_one_try() {
        check(&[
            (0, Some(OLD), "home", "settled"),
            (11, Some(OLD), "office", "doubted"),
            (16, Some(OLD), "office", "down"),
            (20, Some(OLD), "down", "rising"),
            (21, Some(OLD), "nothing", "rising"),
            (23, Some(OLD), "office", "settled"),
            (60, Some(OLD), "office", "settled"),
            (61, Some(OLD), "home", "doubted"),
        ]);
    }

    #[test]
    fn whoever_manages_the_address_has_time_to_see_it() {
        check(&[
            (0, Some(OLD), "home", "settled"),
            (11, Some(OLD), "office", "doubted"),
            (14, None, "office", "settled"),
            // The same numbers, but given here.
            (15, Some(OLD), "office", "settled"),
            (60, Some(OLD), "office", "settled"),
        ]);
        check(&[
            (0, Some(OLD), "home", "settled"),
            (11, Some(OLD), "office", "doubted"),
            (13, Some(OLD), "nothing", "settled"),
            (14, Some(OLD), "home", "settled"),
            (60, Some(OLD), "home", "settled"),
        ]);
    }

    #[test]
    fn nothing_happens_without_a_radio_or_before_its_first_word() {
        check(&[
            (0, Some(OLD), "unknown", "settled"),
            (60, Some(OLD), "unknown", "settled"),
        ]);
        check(&[
            (0, Some(OLD), "unknown", "settled"),
            (1, Some(OLD), "home", "settled"),
            (60, Some(OLD), "home", "settled"),
        ]);
    }

    #[test]
    fn it_is_down_for_longer_than_lost_carrier_is_ignored() {
        let network = include_str!("../../../overlays/site/uplink.network");
        let ignored = network
            .lines()
            .find_map(|line| line.strip_prefix("IgnoreCarrierLoss=")?.strip_suffix('s'));
        let ignored = Duration::from_secs(ignored.unwrap().parse().unwrap());
        assert!(DOWN > ignored, "{DOWN:?} is not longer than {ignored:?}");
    }
}

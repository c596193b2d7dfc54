//! What a bystander on both sides heard, which is all that may justify an answer.
//!
//! It knows nothing of the engine's table: packets that bear a host's address, leases that a server gave, and who asked for
//! whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::{MacAddr, Side};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::dhcp::{self, MessageType};
use crate::wire::{ethernet, udp};

/// How long what was heard justifies an answer: the time the engine trusts evidence, and that of a challenge.
const TRUSTED: Duration = Duration::from_secs(70);

/// The bystander.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    heard: BTreeMap<(Side, Ipv4Addr), Instant>,
    /// The same by station.
    said: BTreeMap<(Side, Ipv4Addr, MacAddr), Instant>,
    /// Whom the engine asked for, on which side.
    questions: BTreeSet<(Side, Ipv4Addr)>,
    /// Who ever replied to such a question.
    answered: BTreeSet<(Side, Ipv4Addr, MacAddr)>,
    leased: BTreeMap<Ipv4Addr, Instant>,
    asked: BTreeSet<(Side, MacAddr, Ipv4Addr)>,
}

impl Witness {
    /// Hears a frame on a side; `ours` is the engine's address.
    pub(crate) fn hear(&mut self, side: Side, bytes: &[u8], ours: Option<Ipv4Addr>, now: Instant) {
        if let Some(arp) = arp_of(bytes) {
            if !arp.spa.is_unspecified() {
                self.heard.insert((side, arp.spa), now);
                self.said.insert((side, arp.spa, arp.sha), now);
            }
            let to_us = arp.tpa.is_unspecified() || Some(arp.tpa) == ours;
            let asked = self.questions.contains(&(side, arp.spa));
            if arp.operation == Operation::Reply && to_us && asked {
                self.answered.insert((side, arp.spa, arp.sha));
            }
            if arp.operation == Operation::Request {
                self.asked.insert((side, arp.sha, arp.tpa));
            }
        } else if side == Side::Uplink
            && let Some((address, time)) = lease_of(bytes)
        {
            self.leased.insert(address, now + time);
        }
    }

    /// Sees traffic come from an address on a side.
    pub(crate) fn glimpse(&mut self, side: Side, from: (Ipv4Addr, MacAddr), now: Instant) {
        self.heard.insert((side, from.0), now);
        self.said.insert((side, from.0, from.1), now);
    }

    /// Sees the engine ask for a host on a side.
    pub(crate) fn see_question(&mut self, side: Side, target: Ipv4Addr) {
        self.questions.insert((side, target));
    }

    /// Forgets everybody, because the network is another one.
    pub(crate) fn forget(&mut self) {
        *self = Witness::default();
    }

    /// Returns whether something heard vouches for a host on a side.
    pub(crate) fn vouches(&self, ip: Ipv4Addr, side: Side, now: Instant) -> bool {
        let spoke = self.heard.get(&(side, ip));
        let leased = self.leased.get(&ip).filter(|_| side == Side::Wired);
        spoke.is_some_and(|at| *at + TRUSTED > now) || leased.is_some_and(|end| *end > now)
    }

    /// Returns whether a station that vouches for itself on a side once answered the engine: only such a one may be announced.
    pub(crate) fn proves(&self, ip: Ipv4Addr, side: Side, now: Instant) -> bool {
        let leased = self.leased.get(&ip).filter(|_| side == Side::Wired);
        let leased = leased.is_some_and(|end| *end > now);
        let stations = self
            .answered
            .iter()
            .filter(|(on, of, _)| (*on, *of) == (side, ip));
        stations
            .into_iter()
            .any(|station| leased || self.said.get(station).is_some_and(|at| *at + TRUSTED > now))
    }

    /// Returns whether the host spoke at this very moment.
    pub(crate) fn hears(&self, ip: Ipv4Addr, side: Side, now: Instant) -> bool {
        self.heard.get(&(side, ip)) == Some(&now)
    }

    /// Returns whether a station on a side ever asked for an address.
    pub(crate) fn was_asked(&self, side: Side, station: MacAddr, ip: Ipv4Addr) -> bool {
        self.asked.contains(&(side, station, ip))
    }
}

/// Returns the ARP packet of a frame, if it is one that anybody may believe.
pub(crate) fn arp_of(bytes: &[u8]) -> Option<Arp> {
    let frame = ethernet::decode(bytes).ok()?;
    (frame.ether_type == ethernet::TYPE_ARP).then_some(())?;
    arp::decode(&frame).ok()
}

fn lease_of(bytes: &[u8]) -> Option<(Ipv4Addr, Duration)> {
    let frame = ethernet::decode(bytes).ok()?;
    let datagram = udp::decode(&frame).ok()?;
    let message = dhcp::decode(datagram.payload).ok()?;
    let acknowledged = message.message_type() == MessageType::Ack;
    let time = message.lease_time().filter(|_| acknowledged)?;
    Some((message.yiaddr(), Duration::from_secs(time.into())))
}

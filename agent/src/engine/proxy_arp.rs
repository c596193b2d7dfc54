//! Proxy ARP (RFC 925, 1027, 5227): answers on one side for hosts that are verified on the other.
//!
//! A target that is not verified is asked for on the other side with our own address (A4), and whoever asked is answered when
//! it answers. A probe is passed on as a probe and answered only by an answer obtained since (A3). The kernel answers for our
//! own address on both sides, so nothing here does; what it does not do is defend it (A7).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::trace;

use crate::addr::{MacAddr, Side};
use crate::wire::arp::{Arp, Operation};

use super::host::{Place, Word};
use super::hosts::{Hosts, Learned};
use super::pace::Pace;
use super::questions::{Asker, Key, Kind, Manner, Questions};
use super::turn::Turn;

/// Most answers in a second to strangers, and to one. A flood comes in the names of strangers, and what it gets back is no more
/// than this.
const MOST_TO_STRANGERS: u32 = 512;
const MOST_TO_STRANGER: u32 = 32;
/// Most answers in a second to one host that is known; there are no more of these than the table holds.
const MOST_TO_KNOWN: u32 = 1024;
/// Most probes passed on in a second, and for one station: each is a broadcast.
const MOST_PROBES: u32 = 64;
const MOST_PROBES_OF_ONE: u32 = 8;
/// Most announcements passed on in one second, whoever makes them, and for one station.
const MOST_ANNOUNCEMENTS: u32 = 32;
/// How long a claim to our own address, or to the gateway's on the wire, is shown as a problem.
const CLAIM_SHOWN: Duration = Duration::from_secs(300);
/// Shortest time between two defences of our own address (RFC 5227's DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// The questions under way, and what was given to whom lately.
#[derive(Debug)]
pub(crate) struct ProxyArp {
    questions: Questions,
    answers: Pace,
    answers_to_known: Pace,
    probes: Pace,
    announcements: Pace,
    /// When another station last spoke with our own address.
    own_address_claimed: Option<Instant>,
    own_address_defended: Option<Instant>,
    /// When somebody on the wire last spoke with the gateway's address.
    gateway_claimed: Option<Instant>,
}

impl Default for ProxyArp {
    fn default() -> ProxyArp {
        ProxyArp {
            questions: Questions::default(),
            answers: Pace::new(MOST_TO_STRANGERS, MOST_TO_STRANGER),
            answers_to_known: Pace::new(u32::MAX, MOST_TO_KNOWN),
            probes: Pace::new(MOST_PROBES, MOST_PROBES_OF_ONE),
            announcements: Pace::new(MOST_ANNOUNCEMENTS, MOST_ANNOUNCEMENTS),
            own_address_claimed: None,
            own_address_defended: None,
            gateway_claimed: None,
        }
    }
}

impl ProxyArp {
    /// Takes an ARP packet of another station on a side.
    pub(crate) fn handle_arp(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        side: Side,
        arp: Arp,
    ) {
        trace!(%side, ?arp, "ARP received");
        turn.count("arp-received");
        let place = Place { mac: arp.sha, side };
        if arp.spa == turn.bridge.address {
            return self.defend(turn, side);
        }
        if side == Side::Wired && turn.bridge.gateway == Some(arp.spa) {
            self.gateway_claimed = Some(turn.now);
        }
        if !arp.spa.is_unspecified() {
            let learned = hosts.learn(turn, arp.spa, place, self.word(turn, hosts, side, &arp));
            self.answer_waiting(turn, hosts, arp.spa, place);
            match learned {
                Learned::Here => {}
                // The sender may still be where it was, and then this is a reflection of what it said there.
                Learned::Contested => return turn.count("arp-sender-contested"),
                Learned::Refused => return turn.count("arp-sender-refused"),
                // An answer would be of no use to a host on the wire that has no route.
                Learned::Crowded if side == Side::Wired => return turn.count("arp-sender-crowded"),
                Learned::Crowded => {}
            }
        }
        let asker = Asker {
            mac: arp.sha,
            ip: arp.spa,
            known: hosts.knows(arp.spa, place),
        };
        if arp.spa == arp.tpa {
            return self.pass_on(turn, hosts, arp.spa, place);
        }
        match arp.operation {
            Operation::Request if arp.spa.is_unspecified() => {
                self.pass_on_probe(turn, asker, side, arp.tpa)
            }
            Operation::Request => self.answer_or_ask(turn, hosts, asker, side, arp.tpa),
            Operation::Reply => {}
        }
    }

    /// Returns whether the packet answers a question of ours: to us, about a host that was asked for there.
    fn word(&self, turn: &Turn<'_>, hosts: &Hosts, side: Side, arp: &Arp) -> Word {
        let to_us = arp.tpa == turn.bridge.address || arp.tpa.is_unspecified();
        let expected = || self.questions.expects(side, arp.spa) || hosts.expects(side, arp.spa);
        if arp.operation == Operation::Reply && to_us && expected() {
            Word::Answered
        } else {
            Word::Spoke
        }
    }

    /// Tells whoever believes another station that our own address is ours, but not often: two that defend one address without
    /// end would be a storm.
    fn defend(&mut self, turn: &mut Turn<'_>, side: Side) {
        turn.count("own-address-claimed");
        self.own_address_claimed = Some(turn.now);
        let defended = self.own_address_defended;
        if defended.is_none_or(|at| at + DEFEND_INTERVAL <= turn.now) {
            self.own_address_defended = Some(turn.now);
            turn.announce(side, turn.bridge.address);
        }
    }

    fn answer_or_ask(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        asker: Asker,
        side: Side,
        target: Ipv4Addr,
    ) {
        if !may_be_asked(turn, side, target) {
            return;
        }
        if let Some(host) = hosts.find(target).filter(|host| host.is_present()).copied()
            && (host.place.side == side || host.place.mac == asker.mac)
        {
            turn.count("arp-same-side");
            if host.place.mac != asker.mac {
                hosts.suspect(target, turn.now);
            }
            return;
        }
        hosts.want(target, turn.now);
        let beyond = side.other();
        if hosts.verified(target, beyond, turn.now).is_some() {
            self.answer(turn, side, asker, target);
        } else if self.questions.is_silent(beyond, target, turn.now) {
            turn.count("arp-silent");
        } else {
            let kind = Kind::Ask;
            let key = Key {
                side: beyond,
                target,
                kind,
            };
            let manner = match hosts.find(target) {
                Some(_) => Manner::Eager,
                None => Manner::AsAsked,
            };
            self.questions.ask(turn, key, asker, manner);
        }
    }

    fn pass_on_probe(&mut self, turn: &mut Turn<'_>, from: Asker, side: Side, target: Ipv4Addr) {
        if !may_be_asked(turn, side, target) {
            return;
        }
        if !self.probes.allows(from.mac, turn.now) {
            return turn.count("arp-probe-capped");
        }
        let key = Key {
            side: side.other(),
            target,
            kind: Kind::Probe,
        };
        self.questions.ask(turn, key, from, Manner::AsAsked);
    }

    /// Asks for a host on a side because of what a station sent, in the host's name or to it; nobody waits for the answer.
    pub(crate) fn look_for(
        &mut self,
        turn: &mut Turn<'_>,
        side: Side,
        target: Ipv4Addr,
        because_of: MacAddr,
    ) {
        if !self.questions.is_silent(side, target, turn.now) {
            let kind = Kind::Ask;
            let key = Key { side, target, kind };
            self.questions.look_for(turn, key, because_of);
        }
    }

    /// Answers those who wait for a host that just showed itself.
    fn answer_waiting(&mut self, turn: &mut Turn<'_>, hosts: &Hosts, ip: Ipv4Addr, place: Place) {
        let probe = Key {
            side: place.side,
            target: ip,
            kind: Kind::Probe,
        };
        self.answer_question(turn, hosts, probe, place);
        self.answer_verified(turn, hosts, ip, place.side);
    }

    /// Answers those who wait for a host, if it is verified on the side.
    pub(crate) fn answer_verified(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &Hosts,
        ip: Ipv4Addr,
        side: Side,
    ) {
        if let Some(place) = hosts.verified(ip, side, turn.now) {
            self.questions.spoke(side, ip);
            let ask = |side| Key {
                side,
                target: ip,
                kind: Kind::Ask,
            };
            self.answer_question(turn, hosts, ask(side), place);
            self.questions.close(ask(side.other()));
        }
    }

    fn answer_question(&mut self, turn: &mut Turn<'_>, hosts: &Hosts, key: Key, place: Place) {
        let waiting = self.questions.close(key);
        let side = key.side.other();
        // A station is never told that its own address is somebody's (A2).
        for asker in waiting
            .askers
            .into_iter()
            .filter(|asker| asker.mac != place.mac)
        {
            self.answer(turn, side, asker, key.target);
        }
        // Whoever found no room to wait in hears it with everybody.
        if waiting.crowded
            && hosts.proven(key.target, key.side, turn.now) == Some(place)
            && self.announcements.allows(place.mac, turn.now)
        {
            turn.announce(side, key.target);
        }
    }

    fn answer(&mut self, turn: &mut Turn<'_>, side: Side, to: Asker, address: Ipv4Addr) {
        let pace = if to.known {
            &mut self.answers_to_known
        } else {
            &mut self.answers
        };
        if pace.allows(to.mac, turn.now) {
            turn.answer(side, (to.mac, to.ip), address);
        } else {
            turn.count("arp-answer-capped");
        }
    }

    fn pass_on(&mut self, turn: &mut Turn<'_>, hosts: &mut Hosts, ip: Ipv4Addr, place: Place) {
        if hosts.verified(ip, place.side, turn.now) != Some(place) {
            return;
        }
        // A host that announces without end is stopped first, lest it use up what is everybody's.
        if hosts.may_pass_on(ip, turn.now) && self.announcements.allows(place.mac, turn.now) {
            hosts.pass_on(turn, ip, place);
        } else {
            turn.count("arp-announcement-capped");
        }
    }

    /// Returns whether another station spoke with our own address lately.
    pub(crate) fn own_address_is_claimed(&self, now: Instant) -> bool {
        is_shown(self.own_address_claimed, now)
    }

    /// Returns whether somebody on the wire spoke with the gateway's address lately.
    pub(crate) fn gateway_is_claimed(&self, now: Instant) -> bool {
        is_shown(self.gateway_claimed, now)
    }

    /// Forgets all questions, because the sides they were about are gone.
    pub(crate) fn clear(&mut self) {
        *self = ProxyArp::default();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.questions.next_deadline()
    }

    /// Asks again, and gives up on those who stay silent. Returns those of the uplink that a host on the wire wanted.
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>) -> Vec<Ipv4Addr> {
        self.questions.handle_tick(turn)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        self.questions.sizes()
    }
}

fn is_shown(claimed: Option<Instant>, now: Instant) -> bool {
    claimed.is_some_and(|at| at + CLAIM_SHOWN > now)
}

/// Returns whether a target of a request seen on a side may be looked for on the other.
fn may_be_asked(turn: &mut Turn<'_>, side: Side, target: Ipv4Addr) -> bool {
    if target == turn.bridge.address {
        return false;
    }
    let gateway_on_wire = side == Side::Uplink && turn.bridge.gateway == Some(target);
    let may = turn.bridge.may_be_host(target) && !gateway_on_wire;
    if !may {
        turn.count("arp-target-refused");
    }
    may
}

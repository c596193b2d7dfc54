//! Proxy ARP (RFC 925, 1027, 5227): answers on one side for hosts that are verified on the other.
//!
//! A target that is not verified is asked for on the other side with our own address (A4), and whoever asked is answered when
//! it answers. A probe is passed on as a probe and answered only by an answer obtained since (A3). The kernel answers for our
//! own address on both sides, so nothing here does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::trace;

use crate::addr::{MacAddr, Side};
use crate::wire::arp::{Arp, Operation};

use super::host::Place;
use super::hosts::{Hosts, Learned};
use super::turn::Turn;

/// Most questions open on a side: half a /24, so that a sweep from one side cannot flood the other, nor keep the other from
/// asking.
pub(crate) const MOST_QUESTIONS: usize = 128;
/// Most open questions of one asker: more than an ordinary host's new conversations in two seconds.
const MOST_PER_ASKER: usize = 16;
/// Most askers waiting for one answer; the rest ask again by themselves.
const MOST_WAITING: usize = 8;
/// Waits after each request; after the last one the target counts as silent.
const WAITS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(1000),
];
/// How long an answer to a passed-on probe counts as obtained for it: RFC 5227's wait after its last probe.
const PROBE_WINDOW: Duration = Duration::from_secs(2);
/// Shortest time between two probes passed on for one target: well below a probing host's own pace, and no flood.
const PROBE_PACE: Duration = Duration::from_millis(200);
/// How long a silent target is not asked for again: shorter than any host's own retry.
const SILENCE_LASTS: Duration = Duration::from_millis(900);
/// Most silent targets kept; the oldest go first and are merely asked for again.
pub(crate) const MOST_SILENT: usize = 256;
/// Most announcements passed on in one second, whoever makes them.
const MOST_ANNOUNCEMENTS: u32 = 32;

/// How long a claim to our own address is shown as a problem.
const CLAIM_SHOWN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ask,
    Probe,
}

/// What is asked, and on which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    side: Side,
    target: Ipv4Addr,
    kind: Kind,
}

#[derive(Debug)]
struct Question {
    waiting: Vec<(MacAddr, Ipv4Addr)>,
    sent: usize,
    next: Instant,
}

/// The questions under way.
#[derive(Debug, Default)]
pub(crate) struct ProxyArp {
    questions: BTreeMap<Key, Question>,
    silent: BTreeMap<(Side, Ipv4Addr), Instant>,
    announcements: Option<(Instant, u32)>,
    /// When another station last spoke with our own address.
    own_address_claimed: Option<Instant>,
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
            turn.count("own-address-claimed");
            self.own_address_claimed = Some(turn.now);
            return;
        }
        if !arp.spa.is_unspecified() {
            let learned = hosts.learn(turn, arp.spa, place);
            self.answer_waiting(turn, hosts, arp.spa, place);
            match learned {
                Learned::Here => {}
                // The sender may still be where it was, and then this is a reflection of what it said there.
                Learned::Contested => return turn.count("arp-sender-contested"),
                Learned::Refused => return turn.count("arp-sender-refused"),
            }
        }
        let announcement = arp.spa == arp.tpa;
        match arp.operation {
            _ if announcement => self.pass_on(turn, hosts, arp.spa, place),
            Operation::Request if arp.spa.is_unspecified() => {
                self.pass_on_probe(turn, place, arp.tpa)
            }
            Operation::Request => {
                self.answer_or_ask(turn, hosts, (arp.sha, arp.spa), side, arp.tpa)
            }
            Operation::Reply => {}
        }
    }

    fn answer_or_ask(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        asker: (MacAddr, Ipv4Addr),
        side: Side,
        target: Ipv4Addr,
    ) {
        if !may_be_asked(turn, side, target) {
            return;
        }
        if let Some(host) = hosts.find(target).filter(|host| host.is_present())
            && (host.place.side == side || host.place.mac == asker.0)
        {
            turn.count("arp-same-side");
            return;
        }
        hosts.note_asked(target, turn.now);
        let beyond = side.other();
        if hosts.verified(target, beyond, turn.now).is_some() {
            turn.answer(side, asker, target);
        } else if self
            .silent
            .get(&(beyond, target))
            .is_some_and(|until| *until > turn.now)
        {
            turn.count("arp-silent");
        } else {
            let kind = Kind::Ask;
            let key = Key {
                side: beyond,
                target,
                kind,
            };
            self.open(turn, key, Some(asker));
        }
    }

    fn pass_on_probe(&mut self, turn: &mut Turn<'_>, from: Place, target: Ipv4Addr) {
        if may_be_asked(turn, from.side, target) {
            let key = Key {
                side: from.side.other(),
                target,
                kind: Kind::Probe,
            };
            self.open(turn, key, Some((from.mac, Ipv4Addr::UNSPECIFIED)));
        }
    }

    /// Asks for the gateway, for which nobody may be waiting yet (A10).
    pub(crate) fn ask_gateway(&mut self, turn: &mut Turn<'_>) {
        if let Some(target) = turn
            .bridge
            .gateway
            .filter(|gateway| turn.bridge.may_be_host(*gateway))
        {
            let key = Key {
                side: Side::Uplink,
                target,
                kind: Kind::Ask,
            };
            self.open(turn, key, None);
        }
    }

    /// Opens a question, or lets the asker wait with the others who asked the same (A8).
    fn open(&mut self, turn: &mut Turn<'_>, key: Key, asker: Option<(MacAddr, Ipv4Addr)>) {
        if let Some(question) = self.questions.get_mut(&key) {
            let known = asker.is_none_or(|asker| question.waiting.contains(&asker));
            if !known && question.waiting.len() < MOST_WAITING {
                question.waiting.extend(asker);
            }
            match key.kind {
                Kind::Ask => turn.count("arp-coalesced"),
                // A host probes three times because one may be lost; each is passed on.
                Kind::Probe if question.next + PROBE_PACE <= turn.now + PROBE_WINDOW => {
                    question.send(turn, key)
                }
                Kind::Probe => turn.count("arp-coalesced"),
            }
            return;
        }
        let on_side = self.questions.keys().filter(|open| open.side == key.side);
        if on_side.count() >= MOST_QUESTIONS || self.is_greedy(asker) {
            turn.count("arp-capped");
            return;
        }
        let mut question = Question {
            waiting: asker.into_iter().collect(),
            sent: 0,
            next: turn.now,
        };
        question.send(turn, key);
        self.questions.insert(key, question);
    }

    fn is_greedy(&self, asker: Option<(MacAddr, Ipv4Addr)>) -> bool {
        asker.is_some_and(|(mac, _)| {
            let own = |question: &&Question| question.waiting.iter().any(|(m, _)| *m == mac);
            self.questions.values().filter(own).count() >= MOST_PER_ASKER
        })
    }

    /// Answers those who wait for a host that just showed itself.
    fn answer_waiting(&mut self, turn: &mut Turn<'_>, hosts: &Hosts, ip: Ipv4Addr, place: Place) {
        let probe = Key {
            side: place.side,
            target: ip,
            kind: Kind::Probe,
        };
        self.answer_question(turn, probe, place.mac);
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
            self.silent.remove(&(side, ip));
            let ask = |side| Key {
                side,
                target: ip,
                kind: Kind::Ask,
            };
            self.answer_question(turn, ask(side), place.mac);
            self.questions.remove(&ask(side.other()));
        }
    }

    fn answer_question(&mut self, turn: &mut Turn<'_>, key: Key, mac: MacAddr) {
        let question = self.questions.remove(&key);
        let waiting = question
            .map(|question| question.waiting)
            .unwrap_or_default();
        // A station is never told that its own address is somebody's (A2).
        for asker in waiting.into_iter().filter(|(asker, _)| *asker != mac) {
            turn.answer(key.side.other(), asker, key.target);
        }
    }

    fn pass_on(&mut self, turn: &mut Turn<'_>, hosts: &mut Hosts, ip: Ipv4Addr, place: Place) {
        if hosts.verified(ip, place.side, turn.now) != Some(place) {
            return;
        }
        // A host that announces without end is stopped first, lest it use up what is everybody's.
        if hosts.may_pass_on(ip, turn.now) && self.may_announce(turn.now) {
            hosts.note_passed_on(ip, turn.now);
            turn.announce(place.side.other(), ip);
        } else {
            turn.count("arp-announcement-capped");
        }
    }

    fn may_announce(&mut self, now: Instant) -> bool {
        let (since, count) = self
            .announcements
            .filter(|(since, _)| *since + Duration::from_secs(1) > now)
            .unwrap_or((now, 0));
        self.announcements = Some((since, count.saturating_add(1)));
        count < MOST_ANNOUNCEMENTS
    }

    /// Returns whether another station spoke with our own address lately.
    pub(crate) fn own_address_is_claimed(&self, now: Instant) -> bool {
        self.own_address_claimed
            .is_some_and(|at| at + CLAIM_SHOWN > now)
    }

    /// Forgets all questions, because the sides they were about are gone.
    pub(crate) fn clear(&mut self) {
        self.questions.clear();
        self.silent.clear();
        self.own_address_claimed = None;
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let questions = self.questions.values().map(|question| question.next);
        questions.chain(self.silent.values().copied()).min()
    }

    /// Asks again, and gives up on those who stay silent.
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.silent.retain(|_, until| *until > now);
        let mut over = Vec::new();
        for (&key, question) in &mut self.questions {
            if question.next > now {
                continue;
            }
            match key.kind {
                Kind::Ask if question.sent < WAITS.len() => question.send(turn, key),
                Kind::Ask | Kind::Probe => over.push(key),
            }
        }
        for key in over {
            self.questions.remove(&key);
            if key.kind == Kind::Ask {
                turn.count("arp-unanswered");
                self.silence(key, now);
            }
        }
    }

    fn silence(&mut self, key: Key, now: Instant) {
        if self.silent.len() >= MOST_SILENT {
            let oldest = self
                .silent
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(key, _)| *key);
            oldest.map(|key| self.silent.remove(&key));
        }
        self.silent
            .insert((key.side, key.target), now + SILENCE_LASTS);
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.questions.len(), self.silent.len())
    }
}

impl Question {
    fn send(&mut self, turn: &mut Turn<'_>, key: Key) {
        match key.kind {
            Kind::Ask => {
                turn.count("arp-asked");
                turn.ask(key.side, None, key.target);
                self.next = turn.now + WAITS[self.sent.min(WAITS.len() - 1)];
            }
            Kind::Probe => {
                turn.count("arp-probe-relayed");
                turn.probe(key.side, key.target);
                self.next = turn.now + PROBE_WINDOW;
            }
        }
        self.sent += 1;
    }
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

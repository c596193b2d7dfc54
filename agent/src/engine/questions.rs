//! The questions under way: what is asked on which side, who waits for the answer, and who stayed silent lately.
//!
//! Identical questions share one request (A8). What is open is bounded for each side and each asker, and where it is full a
//! host that is known gets its question in before a stranger's, because a flood comes from strangers. A question that nobody
//! waits for is raised by what was said in a host's name; it is paced by who said it, and makes room for any that somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::{MacAddr, Side};

use super::pace::Pace;
use super::turn::Turn;

/// Most questions open on the wire, which is fast: as many as a router has that wakes up beside five hundred hosts.
const MOST_ON_WIRE: usize = 512;
/// Most questions open on the uplink, where every broadcast costs everybody air: half a /24.
const MOST_ON_UPLINK: usize = 128;
/// Most questions open in all.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const MOST_QUESTIONS: usize = MOST_ON_WIRE + MOST_ON_UPLINK;
/// Most open questions of a stranger: more than an ordinary host's new conversations in two seconds.
const MOST_OF_STRANGER: usize = 16;
/// Part of a side's questions that one known host may have: half.
const PART_OF_KNOWN: usize = 2;
/// Most questions in a second that nobody waits for, and most of them because of one station. With the two seconds that each
/// is open, all of these together leave room on the wire, and those of one station are a small part.
const MOST_UNASKED: u32 = 128;
const MOST_UNASKED_OF_ONE: u32 = 32;
/// Most askers waiting for one answer; if there are more, everybody is told.
const MOST_WAITING: usize = 8;
/// Waits after each request for a host that was there lately, which may doze; after the last one it counts as silent.
const WAITS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(1000),
];
/// How long anybody else may take to answer each request. It is repeated when an asker repeats its question: hosts ask three
/// times for whom they want, and who sweeps a network for whoever is there, mostly nobody, asks once.
const STRANGER_WAITS: [Duration; 3] = [
    Duration::from_millis(2000),
    Duration::from_millis(2000),
    Duration::from_millis(1000),
];
/// Shortest time between two such requests: below the second that hosts wait before they ask again.
const REPEAT_PACE: Duration = Duration::from_millis(700);
/// How long an answer to a passed-on probe counts as obtained for it: RFC 5227's wait after its last probe.
const PROBE_WINDOW: Duration = Duration::from_secs(2);
/// Shortest time between two probes passed on for one target: well below a probing host's own pace, and no flood.
const PROBE_PACE: Duration = Duration::from_millis(200);
/// How long a silent target is not asked for again: shorter than any host's own retry.
const SILENCE_LASTS: Duration = Duration::from_millis(900);
/// Most silent targets kept; the oldest go first and are merely asked for again.
pub(crate) const MOST_SILENT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ask,
    Probe,
}

/// What is asked, and on which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) side: Side,
    pub(crate) target: Ipv4Addr,
    pub(crate) kind: Kind,
}

/// How a question is pursued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Repeated soon and by itself: the target was there lately, or there is no asker to repeat it.
    Eager,
    /// Repeated when an asker asks again.
    AsAsked,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
    /// Whether it is a host that answered us (`Hosts::knows`).
    pub(crate) known: bool,
}

#[derive(Debug)]
struct Question {
    waiting: Vec<Asker>,
    /// There were more askers than could wait.
    crowded: bool,
    manner: Manner,
    opened: Instant,
    sent: usize,
    last: Instant,
    next: Instant,
}

/// Who waited for an answer.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) askers: Vec<Asker>,
    /// There were more, who are not in the list.
    pub(crate) crowded: bool,
}

/// The questions under way.
#[derive(Debug)]
pub(crate) struct Questions {
    open: BTreeMap<Key, Question>,
    due: BTreeSet<(Instant, Key)>,
    /// Those that nobody waits for, by when they were opened.
    unasked: BTreeSet<(Instant, Key)>,
    unasked_pace: Pace,
    on_wire: usize,
    of_asker: BTreeMap<MacAddr, usize>,
    silent: BTreeMap<(Side, Ipv4Addr), Instant>,
    silent_until: BTreeSet<(Instant, (Side, Ipv4Addr))>,
}

impl Default for Questions {
    fn default() -> Questions {
        Questions {
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            unasked: BTreeSet::new(),
            unasked_pace: Pace::new(MOST_UNASKED, MOST_UNASKED_OF_ONE),
            on_wire: 0,
            of_asker: BTreeMap::new(),
            silent: BTreeMap::new(),
            silent_until: BTreeSet::new(),
        }
    }
}

impl Questions {
    /// Opens a question, or lets the asker wait with the others who asked the same (A8).
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>, key: Key, asker: Asker, manner: Manner) {
        if self.join(turn, key, asker) {
            return;
        }
        if !self.has_room(key, asker) {
            turn.count("arp-capped");
            return;
        }
        self.begin(turn, key, vec![asker], manner);
        *self.of_asker.entry(asker.mac).or_default() += 1;
    }

    /// Opens a question that nobody waits for, because of what a station sent.
    pub(crate) fn look_for(&mut self, turn: &mut Turn<'_>, key: Key, because_of: MacAddr) {
        let (on_side, most) = self.on_side(key.side);
        if self.open.contains_key(&key) {
            turn.count("arp-coalesced");
        } else if on_side >= most || !self.unasked_pace.allows(because_of, turn.now) {
            turn.count("arp-capped");
        } else {
            self.begin(turn, key, Vec::new(), Manner::Eager);
            self.unasked.insert((turn.now, key));
        }
    }

    fn begin(&mut self, turn: &mut Turn<'_>, key: Key, waiting: Vec<Asker>, manner: Manner) {
        let mut question = Question {
            waiting,
            crowded: false,
            manner,
            opened: turn.now,
            sent: 0,
            last: turn.now,
            next: turn.now,
        };
        question.send(turn, key);
        self.due.insert((question.next, key));
        self.open.insert(key, question);
        self.on_wire += usize::from(key.side == Side::Wired);
    }

    /// Returns how many questions are open on a side, and how many may be.
    fn on_side(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Wired => (self.on_wire, MOST_ON_WIRE),
            Side::Uplink => (self.open.len() - self.on_wire, MOST_ON_UPLINK),
        }
    }

    /// Lets an asker wait for a question that is open. Returns whether one is.
    fn join(&mut self, turn: &mut Turn<'_>, key: Key, asker: Asker) -> bool {
        let Some(question) = self.open.get_mut(&key) else {
            return false;
        };
        self.unasked.remove(&(question.opened, key));
        let same = |waiting: &Asker| (waiting.mac, waiting.ip) == (asker.mac, asker.ip);
        if !question.waiting.iter().any(same) {
            let stranger = question.waiting.iter().position(|waiting| !waiting.known);
            if question.waiting.len() < MOST_WAITING {
                question.waiting.push(asker);
                *self.of_asker.entry(asker.mac).or_default() += 1;
            } else {
                question.crowded = true;
                if let Some(place) = stranger.filter(|_| asker.known) {
                    let displaced = std::mem::replace(&mut question.waiting[place], asker);
                    *self.of_asker.entry(asker.mac).or_default() += 1;
                    uncount(&mut self.of_asker, displaced.mac);
                }
            }
        }
        if question.may_repeat(key.kind, turn.now) {
            self.due.remove(&(question.next, key));
            question.send(turn, key);
            self.due.insert((question.next, key));
        } else {
            turn.count("arp-coalesced");
        }
        true
    }

    /// Returns whether the asker may open one more question, perhaps in the place of the oldest that nobody waits for, or, if
    /// it is known, only strangers.
    fn has_room(&mut self, key: Key, asker: Asker) -> bool {
        let (on_side, most) = self.on_side(key.side);
        let most_of_one = if asker.known {
            most / PART_OF_KNOWN
        } else {
            MOST_OF_STRANGER
        };
        let own = self.of_asker.get(&asker.mac).copied().unwrap_or_default();
        if own >= most_of_one {
            return false;
        }
        if on_side < most {
            return true;
        }
        let mut unasked = self.unasked.iter().map(|(_, key)| *key);
        let mut displaced = unasked.find(|unasked| unasked.side == key.side);
        if displaced.is_none() && asker.known {
            displaced = self.oldest_of_strangers(key.side);
        }
        displaced.map(|key| self.close(key)).is_some()
    }

    fn oldest_of_strangers(&self, side: Side) -> Option<Key> {
        let of_strangers = self.open.iter().filter(|(open, question)| {
            open.side == side && question.waiting.iter().all(|waiting| !waiting.known)
        });
        let oldest = of_strangers.min_by_key(|(_, question)| question.opened);
        oldest.map(|(key, _)| *key)
    }

    /// Returns whether a question is open about the target on the side.
    pub(crate) fn expects(&self, side: Side, target: Ipv4Addr) -> bool {
        [Kind::Ask, Kind::Probe]
            .into_iter()
            .any(|kind| self.open.contains_key(&Key { side, target, kind }))
    }

    /// Closes a question and returns who waited.
    pub(crate) fn close(&mut self, key: Key) -> Waiting {
        let Some(question) = self.open.remove(&key) else {
            return Waiting::default();
        };
        self.due.remove(&(question.next, key));
        self.unasked.remove(&(question.opened, key));
        self.on_wire -= usize::from(key.side == Side::Wired);
        for asker in &question.waiting {
            uncount(&mut self.of_asker, asker.mac);
        }
        Waiting {
            askers: question.waiting,
            crowded: question.crowded,
        }
    }

    /// Returns whether the target did not answer a question a moment ago.
    pub(crate) fn is_silent(&self, side: Side, target: Ipv4Addr, now: Instant) -> bool {
        let until = self.silent.get(&(side, target));
        until.is_some_and(|until| *until > now)
    }

    /// Forgets that the target was silent.
    pub(crate) fn spoke(&mut self, side: Side, target: Ipv4Addr) {
        if let Some(until) = self.silent.remove(&(side, target)) {
            self.silent_until.remove(&(until, (side, target)));
        }
    }

    fn silence(&mut self, side: Side, target: Ipv4Addr, now: Instant) {
        self.spoke(side, target);
        if self.silent.len() >= MOST_SILENT
            && let Some((_, oldest)) = self.silent_until.pop_first()
        {
            self.silent.remove(&oldest);
        }
        let until = now + SILENCE_LASTS;
        self.silent.insert((side, target), until);
        self.silent_until.insert((until, (side, target)));
    }

    /// Returns when something is due; that a silence is over is noticed by who asks next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Asks again, and gives up on those who stay silent. Returns those of the uplink that somebody on the wire asked for.
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>) -> Vec<Ipv4Addr> {
        let now = turn.now;
        let mut missed = Vec::new();
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            match self.open.get_mut(&key) {
                Some(question) if question.is_repeated_unasked(key.kind) => {
                    question.send(turn, key);
                    self.due.insert((question.next, key));
                }
                question => {
                    let often = question.is_some_and(|question| question.sent == WAITS.len());
                    let waiting = self.close(key);
                    if key.kind == Kind::Ask {
                        turn.count("arp-unanswered");
                        if key.side == Side::Uplink && !waiting.askers.is_empty() {
                            missed.push(key.target);
                        }
                    }
                    // Who was asked only once may have missed it.
                    if key.kind == Kind::Ask && often {
                        self.silence(key.side, key.target, now);
                    }
                }
            }
        }
        missed
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.open.len(), self.silent.len())
    }
}

impl Question {
    /// Returns whether an asker's repetition is passed on: askers repeat because one may be lost.
    fn may_repeat(&self, kind: Kind, now: Instant) -> bool {
        match kind {
            Kind::Probe => self.last + PROBE_PACE <= now,
            Kind::Ask => {
                self.manner == Manner::AsAsked
                    && self.sent < WAITS.len()
                    && self.last + REPEAT_PACE <= now
            }
        }
    }

    fn is_repeated_unasked(&self, kind: Kind) -> bool {
        kind == Kind::Ask && self.manner == Manner::Eager && self.sent < WAITS.len()
    }

    fn send(&mut self, turn: &mut Turn<'_>, key: Key) {
        match key.kind {
            Kind::Ask => {
                turn.count("arp-asked");
                turn.ask(key.side, None, key.target);
                let waits = match self.manner {
                    Manner::Eager => WAITS,
                    Manner::AsAsked => STRANGER_WAITS,
                };
                self.next = turn.now + waits[self.sent.min(waits.len() - 1)];
            }
            Kind::Probe => {
                turn.count("arp-probe-relayed");
                turn.probe(key.side, key.target);
                self.next = turn.now + PROBE_WINDOW;
            }
        }
        self.sent += 1;
        self.last = turn.now;
    }
}

fn uncount(of_asker: &mut BTreeMap<MacAddr, usize>, mac: MacAddr) {
    if let Some(count) = of_asker.get_mut(&mac) {
        *count -= 1;
        if *count == 0 {
            of_asker.remove(&mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::addr::IfIndex;
    use crate::engine::link::{Bridge, Port};
    use crate::engine::turn::Counters;

    use super::*;

    fn station(number: u8) -> MacAddr {
        MacAddr(2, 0, 0, 0, 0, number)
    }

    fn stranger(number: u8) -> Asker {
        Asker {
            mac: station(number),
            ip: Ipv4Addr::new(10, 0, 0, number),
            known: false,
        }
    }

    fn key(side: Side, number: u16) -> Key {
        let [high, low] = number.to_be_bytes();
        Key {
            side,
            target: Ipv4Addr::new(10, 0, 100 + high, low),
            kind: Kind::Ask,
        }
    }

    /// Lets the questions hear something in one moment, and returns how often anybody was asked.
    fn ask(
        questions: &mut Questions,
        now: Instant,
        act: impl Fn(&mut Questions, &mut Turn<'_>),
    ) -> usize {
        let port = Port {
            index: IfIndex(2),
            mac: station(2),
        };
        let bridge = Bridge {
            uplink: port,
            wired: port,
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 16,
            gateway: None,
        };
        let (mut counters, mut frames) = (Counters::new(), Vec::new());
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut counters,
            frames: &mut frames,
        };
        act(questions, &mut turn);
        frames.len()
    }

    #[test]
    fn a8_questions_that_nobody_asked_are_paced_by_who_raised_them() {
        let now = crate::engine::test_clock();
        let mut questions = Questions::default();
        let asked = ask(&mut questions, now, |questions, turn| {
            for number in 0..400 {
                questions.look_for(turn, key(Side::Wired, number), station(9));
            }
        });
        assert_eq!(asked, MOST_UNASKED_OF_ONE as usize);
        let asked = ask(&mut questions, now, |questions, turn| {
            for number in 400..800 {
                questions.look_for(turn, key(Side::Wired, number), station((number % 64) as u8));
            }
        });
        assert_eq!(asked, (MOST_UNASKED - MOST_UNASKED_OF_ONE) as usize);
    }

    #[test]
    fn a8_whoever_asks_comes_before_what_nobody_waits_for() {
        let now = crate::engine::test_clock();
        let mut questions = Questions::default();
        let asked = ask(&mut questions, now, |questions, turn| {
            for number in 0..400 {
                questions.look_for(
                    turn,
                    key(Side::Uplink, number),
                    station((number % 64) as u8),
                );
            }
        });
        assert_eq!(asked, MOST_ON_UPLINK);
        // Each of many strangers gets as many in as a stranger may have, until all are somebody's.
        let strangers = MOST_ON_UPLINK / MOST_OF_STRANGER;
        let asked = ask(&mut questions, now, |questions, turn| {
            for number in 0..2 * MOST_ON_UPLINK {
                let asker = stranger((number % (2 * strangers)) as u8);
                questions.ask(
                    turn,
                    key(Side::Uplink, 1000 + number as u16),
                    asker,
                    Manner::AsAsked,
                );
            }
        });
        assert_eq!(asked, MOST_ON_UPLINK);
        assert!(questions.unasked.is_empty());
        assert_eq!(questions.sizes().0, MOST_ON_UPLINK);
    }

    #[test]
    fn a_question_that_somebody_joins_is_somebodys() {
        let now = crate::engine::test_clock();
        let mut questions = Questions::default();
        ask(&mut questions, now, |questions, turn| {
            questions.look_for(turn, key(Side::Wired, 1), station(9));
            questions.ask(turn, key(Side::Wired, 1), stranger(8), Manner::AsAsked);
        });
        assert!(questions.unasked.is_empty());
        assert_eq!(questions.close(key(Side::Wired, 1)).askers.len(), 1);
    }
}

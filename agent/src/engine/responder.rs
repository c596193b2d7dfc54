//! The multicast DNS responder of the device itself (RFC 6762), on the uplink: the device is found there under its name.
//!
//! Other hosts' mDNS is passed on by `discovery` and none of this file's business, except where one has our name. Nothing is said
//! on the wire; what is said there is heard, as it reaches the uplink, too.
//!
//! ```text
//!            presence       250 ms after      a second later
//!  Absent ------------> Probing -------> Announcing -------> Settled
//!     ^                 |  ^  ^ three probes                   |
//!     |   another name -+  |  +--- the name is contradicted ---+
//!     |                    +- later, if two probe at once and the other wins
//!     +--- presence lost, from everywhere
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::addr::{MacAddr, Side};
use crate::wire::discovery::group_mac;
use crate::wire::dns::{self, Message, Question, Record};
use crate::wire::{mdns, udp};

use super::fleet::Presence;
use super::host::Place;
use super::link;
use super::mix;
use super::own_records::{Own, OwnRecords};
use super::pace::Pace;
use super::turn::Counters;

/// Probes, and the time between them and after the last (RFC 6762, 8.1).
const PROBES: u8 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long the first probe waits at most, for all devices may be switched on together.
const PROBE_DELAY: Duration = Duration::from_millis(250);
/// How long the loser of two who probe at once waits before it asks again (8.2).
const LOST: Duration = Duration::from_secs(1);
/// Announcements, and the time between them (8.3).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// So many contradictions, none of them longer than so after the one before, slow the search for another name down (8.1).
const MANY_CONFLICTS: u32 = 15;
const CONFLICT_GAP: Duration = Duration::from_secs(10);
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);
/// When what others answer as well is answered (6), and a question whose known answers go on in another message (7.2).
const SHARED_DELAY: (u64, u64) = (20, 120);
const TRUNCATED_DELAY: (u64, u64) = (400, 500);
/// How soon a record may be said to the group again, and in defence of a name (6).
const REPEAT: Duration = Duration::from_secs(1);
const REPEAT_DEFENCE: Duration = Duration::from_millis(250);
/// Longest time that a simple resolver may believe an answer, in seconds (6.7).
const LEGACY_TTL: u32 = 10;
/// Most questions that are repeated to a simple resolver, which asks one.
const LEGACY_QUESTIONS: usize = 4;
/// Most answers to single stations in a second, and most to one of them.
const MOST_DIRECT: u32 = 32;
const MOST_DIRECT_TO_ONE: u32 = 8;
/// Most messages that are looked into in a second, and most of one station.
const MOST_HEARD: u32 = 128;
const MOST_HEARD_OF_ONE: u32 = 32;
/// Most answers that wait; what is let in by the paces is less.
pub(crate) const MOST_WAITING: usize = 64;

/// What the responder does things with.
pub(crate) struct Voice<'a> {
    pub(crate) now: Instant,
    pub(crate) counters: &'a mut Counters,
    pub(crate) frames: &'a mut Vec<(Side, Vec<u8>)>,
}

impl Voice<'_> {
    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }
}

/// What the device is called, and what was said about it.
#[derive(Debug)]
pub(crate) struct Responder {
    present: Option<Present>,
    /// When the last contradiction was, and how many there were in a row.
    conflicts: Option<(Instant, u32)>,
    /// The last network, and how many names were given up there.
    given_up: Option<((Ipv4Addr, u8), u32)>,
    heard: Pace,
    direct: Pace,
    chance: u64,
}

/// What there is while the device is in a network.
#[derive(Debug)]
struct Present {
    presence: Presence,
    hostname: String,
    /// How many names were given up.
    rank: u32,
    records: OwnRecords,
    phase: Phase,
    waiting: Vec<Waiting>,
    /// When each record was last said to the group.
    said: BTreeMap<Own, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Probing { sent: u8, next: Instant },
    Announcing { sent: u8, next: Instant },
    Settled,
}

/// An answer that is due at a moment.
#[derive(Clone, Debug)]
struct Waiting {
    due: Instant,
    answers: BTreeSet<Own>,
    asker: (MacAddr, SocketAddrV4),
    way: Way,
    /// Whether more of what the asker knows may come.
    truncated: bool,
}

/// How an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Group,
    /// The same in defence of a name.
    Defence,
    /// To the asker alone.
    Direct,
    /// To a simple resolver, with its question.
    Legacy {
        id: u16,
        questions: Vec<Question>,
    },
}

impl Responder {
    /// Returns one that is nowhere; `chance` is where its delays begin.
    pub(crate) fn new(chance: u64) -> Responder {
        Responder {
            present: None,
            conflicts: None,
            given_up: None,
            heard: Pace::new(MOST_HEARD, MOST_HEARD_OF_ONE),
            direct: Pace::new(MOST_DIRECT, MOST_DIRECT_TO_ONE),
            chance,
        }
    }

    /// Begins anew in another place, or ends; a name that was taken stays given up until the device has been in another network.
    pub(crate) fn follow(&mut self, presence: Option<Presence>, hostname: &str, now: Instant) {
        self.remember_names();
        let here = presence.as_ref().map(network_of);
        let given_up = self.given_up.filter(|(there, _)| Some(*there) == here);
        let rank = given_up.map_or(0, |(_, rank)| rank);
        let next = now + self.delay((0, PROBE_DELAY.as_millis() as u64));
        self.present = presence.map(|presence| Present {
            presence,
            hostname: hostname.to_owned(),
            rank,
            records: OwnRecords::new(hostname, presence.mac, rank, presence.address),
            phase: Phase::Probing { sent: 0, next },
            waiting: Vec::new(),
            said: BTreeMap::new(),
        });
    }

    fn remember_names(&mut self) {
        if let Some(present) = &self.present {
            self.given_up = Some((network_of(&present.presence), present.rank));
        }
    }

    /// Ends, and returns the frame that takes everything back; none if nothing was told.
    pub(crate) fn goodbye(&mut self) -> Option<Vec<u8>> {
        self.remember_names();
        let present = self.present.take().filter(Present::is_known)?;
        let records = [Own::Service, Own::Srv, Own::Txt, Own::Address];
        let records = records.map(|own| Record {
            ttl: 0,
            ..present.records.record(own)
        });
        present.encode_for_group(&response(records.into(), Vec::new()))
    }

    /// Returns when `handle_tick` is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let present = self.present.as_ref()?;
        let next = match present.phase {
            Phase::Probing { next, .. } | Phase::Announcing { next, .. } => Some(next),
            Phase::Settled => None,
        };
        let due = present.waiting.iter().map(|waiting| waiting.due);
        due.chain(next).min()
    }

    /// Asks, announces and answers what is due.
    pub(crate) fn handle_tick(&mut self, voice: &mut Voice<'_>) {
        if let Some(present) = &mut self.present {
            present.move_on(voice);
            present.answer_due(voice);
        }
    }

    /// Whether one more message of a station is looked into.
    pub(crate) fn listens_to(&mut self, station: MacAddr, now: Instant) -> bool {
        self.heard.allows(station, now)
    }

    /// Takes what a neighbour said to the group.
    pub(crate) fn hear(
        &mut self,
        voice: &mut Voice<'_>,
        from: Place,
        address: SocketAddrV4,
        message: Message,
    ) {
        let Some(present) = &mut self.present else {
            return;
        };
        if message.response {
            let probing = !present.is_known();
            let mut records = message.answers.iter().chain(&message.additional);
            if records.any(|theirs| present.records.is_contradicted(theirs, probing)) {
                self.give_way(voice, from);
            }
        } else if from.side == Side::Uplink {
            self.hear_query(voice, (from.mac, address), message);
        }
    }

    /// Somebody has our name. Who hears our probes would defend it, and then it is given up; who is on the wire does not hear them.
    fn give_way(&mut self, voice: &mut Voice<'_>, to: Place) {
        voice.count("fleet-name-conflict");
        let now = voice.now;
        let asked_nobody = |present: &Present| matches!(present.phase, Phase::Probing { sent: 0, next } if next > now);
        if self.present.as_ref().is_some_and(asked_nobody) {
            // Whoever has the name says so when it is asked. So no more names are given up than are asked for.
            return;
        }
        let recent = self
            .conflicts
            .filter(|(last, _)| *last + CONFLICT_GAP > now);
        let conflicts = recent.map_or(1, |(_, count)| count.saturating_add(1));
        self.conflicts = Some((now, conflicts));
        let pause = match conflicts < MANY_CONFLICTS {
            true => self.delay((0, PROBE_DELAY.as_millis() as u64)),
            false => CONFLICT_PAUSE,
        };
        let Some(present) = &mut self.present else {
            return;
        };
        let taken = present.records.host.clone();
        if !present.is_known() || to.side == Side::Wired {
            present.rank = present.rank.saturating_add(1);
            let Presence { mac, address, .. } = present.presence;
            present.records = OwnRecords::new(&present.hostname, mac, present.rank, address);
            warn!(%taken, name = %present.records.host, "another machine has our name; we take another");
        } else {
            info!(%taken, "another machine claims our name");
        }
        present.waiting.clear();
        present.said.clear();
        present.phase = Phase::Probing {
            sent: 0,
            next: now + pause,
        };
    }

    fn hear_query(
        &mut self,
        voice: &mut Voice<'_>,
        asker: (MacAddr, SocketAddrV4),
        message: Message,
    ) {
        let Some(present) = &mut self.present else {
            return;
        };
        let now = voice.now;
        if !present.is_known() {
            if present.records.loses_to(&message.authority) {
                voice.count("fleet-probe-lost");
                present.phase = Phase::Probing {
                    sent: 0,
                    next: now + LOST,
                };
            }
            return;
        }
        if message.questions.is_empty() {
            return present.forget_known(asker, &message.answers);
        }
        let mut answers = BTreeSet::new();
        let mut asked = message.questions;
        asked.retain(|question| {
            let found = present.records.answers(question);
            answers.extend(&found);
            !found.is_empty()
        });
        present.records.forget_known(&message.answers, &mut answers);
        if answers.is_empty() {
            return;
        }
        let mut claims = message.authority.iter();
        let defence = claims.any(|claim| present.records.is_own_name(&claim.name));
        let way = if asker.1.port() != mdns::PORT {
            asked.truncate(LEGACY_QUESTIONS);
            Way::Legacy {
                id: message.id,
                questions: asked,
            }
        } else if defence {
            Way::Defence
        } else if asked.iter().all(|question| question.unicast) && present.is_fresh(&answers, now) {
            Way::Direct
        } else {
            Way::Group
        };
        let truncated = message.truncated;
        let alone = truncated || !matches!(way, Way::Group | Way::Defence);
        if alone && !self.direct.allows(asker.0, now) {
            return voice.count("fleet-mdns-capped");
        }
        let shared = answers.iter().any(|own| own.is_shared());
        let delay = match (truncated, shared) {
            (true, _) => self.delay(TRUNCATED_DELAY),
            (false, true) => self.delay(SHARED_DELAY),
            (false, false) => Duration::ZERO,
        };
        let Some(present) = &mut self.present else {
            return;
        };
        present.wait(Waiting {
            due: now + delay,
            answers,
            asker,
            way,
            truncated,
        });
        present.answer_due(voice);
    }

    /// Returns some time from so many to so many milliseconds.
    fn delay(&mut self, (least, most): (u64, u64)) -> Duration {
        let spread = mix::next(&mut self.chance) % (most - least + 1);
        Duration::from_millis(least + spread)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn size(&self) -> usize {
        self.present
            .as_ref()
            .map_or(0, |present| present.waiting.len())
    }
}

fn network_of(presence: &Presence) -> (Ipv4Addr, u8) {
    let network = link::network(presence.address, presence.prefix);
    (network, presence.prefix)
}

impl Present {
    /// Whether the names are ours.
    fn is_known(&self) -> bool {
        !matches!(self.phase, Phase::Probing { .. })
    }

    fn move_on(&mut self, voice: &mut Voice<'_>) {
        let now = voice.now;
        match self.phase {
            Phase::Probing { sent, next } if next <= now && sent < PROBES => {
                self.probe(voice);
                self.phase = Phase::Probing {
                    sent: sent + 1,
                    next: now + PROBE_INTERVAL,
                };
            }
            Phase::Probing { next, .. } if next <= now => {
                info!(name = %self.records.host, "found under this name on the uplink");
                self.announce(voice);
                self.phase = Phase::Announcing {
                    sent: 1,
                    next: now + ANNOUNCEMENT_INTERVAL,
                };
            }
            Phase::Announcing { sent, next } if next <= now => {
                self.announce(voice);
                let sent = sent + 1;
                self.phase = match sent < ANNOUNCEMENTS {
                    true => Phase::Announcing {
                        sent,
                        next: now + ANNOUNCEMENT_INTERVAL,
                    },
                    false => Phase::Settled,
                };
            }
            Phase::Probing { .. } | Phase::Announcing { .. } | Phase::Settled => {}
        }
    }

    fn probe(&self, voice: &mut Voice<'_>) {
        let question = |name: &dns::Name| Question {
            name: name.clone(),
            kind: dns::TYPE_ANY,
            class: dns::CLASS_IN,
            unicast: false,
        };
        let message = Message {
            questions: vec![
                question(&self.records.host),
                question(&self.records.instance),
            ],
            authority: self.records.claims(),
            ..Message::default()
        };
        self.say(voice, &message);
    }

    fn announce(&mut self, voice: &mut Voice<'_>) {
        let answers = BTreeSet::from([Own::Service, Own::Srv, Own::Txt, Own::Address]);
        self.tell_group(voice, &answers);
    }

    /// Takes the rest of what an asker knows (7.2) off the answers that wait for it.
    fn forget_known(&mut self, asker: (MacAddr, SocketAddrV4), known: &[Record]) {
        let records = &self.records;
        let its = |waiting: &&mut Waiting| waiting.truncated && waiting.asker == asker;
        for waiting in self.waiting.iter_mut().filter(its) {
            records.forget_known(known, &mut waiting.answers);
        }
        self.waiting.retain(|waiting| !waiting.answers.is_empty());
    }

    /// Has an answer wait; of those to the group, all that may go together do.
    fn wait(&mut self, waiting: Waiting) {
        let is_for_all = matches!(waiting.way, Way::Group | Way::Defence);
        let together = |other: &Waiting| other.way == waiting.way && !other.truncated;
        let mut others = self.waiting.iter_mut();
        if is_for_all
            && !waiting.truncated
            && let Some(other) = others.find(|other| together(other))
        {
            other.answers.extend(&waiting.answers);
            other.due = other.due.min(waiting.due);
        } else if self.waiting.len() < MOST_WAITING {
            self.waiting.push(waiting);
        }
    }

    fn answer_due(&mut self, voice: &mut Voice<'_>) {
        let now = voice.now;
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.due <= now);
        self.waiting = waiting;
        for answer in due {
            self.answer(voice, answer);
        }
    }

    fn answer(&mut self, voice: &mut Voice<'_>, waiting: Waiting) {
        let repeat = match waiting.way {
            Way::Group => REPEAT,
            Way::Defence => REPEAT_DEFENCE,
            Way::Direct => return self.tell_one(voice, &waiting, None),
            Way::Legacy { id, ref questions } => {
                return self.tell_one(voice, &waiting, Some((id, questions)));
            }
        };
        let long_ago = |own: &Own| {
            let said = self.said.get(own);
            said.is_none_or(|said| *said + repeat <= voice.now)
        };
        let answers: BTreeSet<Own> = waiting.answers.into_iter().filter(long_ago).collect();
        if !answers.is_empty() {
            self.tell_group(voice, &answers);
        }
    }

    fn tell_group(&mut self, voice: &mut Voice<'_>, answers: &BTreeSet<Own>) {
        let additional = self.records.additional(answers);
        let said = answers.iter().map(|own| (*own, voice.now));
        self.said.extend(said);
        let message = response(self.records_of(answers), self.records_of(&additional));
        self.say(voice, &message);
    }

    fn tell_one(
        &self,
        voice: &mut Voice<'_>,
        waiting: &Waiting,
        legacy: Option<(u16, &Vec<Question>)>,
    ) {
        let additional = self.records.additional(&waiting.answers);
        let (answers, additional) = (
            self.records_of(&waiting.answers),
            self.records_of(&additional),
        );
        let message = match legacy {
            None => response(answers, additional),
            Some((id, questions)) => Message {
                id,
                questions: questions.clone(),
                ..response(simple(answers), simple(additional))
            },
        };
        let frame = self.encode(&message, waiting.asker);
        voice
            .frames
            .extend(frame.map(|frame| (Side::Uplink, frame)));
    }

    fn records_of(&self, own: &BTreeSet<Own>) -> Vec<Record> {
        own.iter().map(|own| self.records.record(*own)).collect()
    }

    fn say(&self, voice: &mut Voice<'_>, message: &Message) {
        let frame = self.encode_for_group(message);
        voice
            .frames
            .extend(frame.map(|frame| (Side::Uplink, frame)));
    }

    fn encode_for_group(&self, message: &Message) -> Option<Vec<u8>> {
        let group: Ipv4Addr = mdns::GROUP;
        self.encode(
            message,
            (group_mac(group), SocketAddrV4::new(group, mdns::PORT)),
        )
    }

    fn encode(&self, message: &Message, to: (MacAddr, SocketAddrV4)) -> Option<Vec<u8>> {
        let Presence { mac, address, .. } = self.presence;
        let from = (mac, SocketAddrV4::new(address, mdns::PORT));
        udp::encode_with_ttl(mdns::TTL, from, to, &dns::encode(message))
    }

    /// Whether the group heard all of this within a quarter of the time that it may be believed (5.4).
    fn is_fresh(&self, answers: &BTreeSet<Own>, now: Instant) -> bool {
        answers.iter().all(|own| {
            let ttl = self.records.record(*own).ttl;
            let quarter = Duration::from_secs(u64::from(ttl) / 4);
            self.said.get(own).is_some_and(|said| *said + quarter > now)
        })
    }
}

/// Makes records what a simple resolver understands.
fn simple(records: Vec<Record>) -> Vec<Record> {
    let simple = records.into_iter().map(|record| Record {
        flush: false,
        ttl: record.ttl.min(LEGACY_TTL),
        ..record
    });
    simple.collect()
}

fn response(answers: Vec<Record>, additional: Vec<Record>) -> Message {
    Message {
        response: true,
        answers,
        additional,
        ..Message::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::engine::model::{Model, Told, station, usual};
    use crate::engine::{Action, Settings};
    use crate::wire::{discovery, ethernet};

    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const NAMES: [&str; 6] = [
        "hall-1.local",
        "hall-1-000002.local",
        "hall-1._footbridge._tcp.local",
        "_footbridge._tcp.local",
        "_services._dns-sd._udp.local",
        "lamp.local",
    ];

    fn model() -> Model {
        let mut settings = Settings::new("wlan0", "eth0");
        settings.fleet.status = true;
        settings.fleet.device.hostname = "hall-1".to_owned();
        let mut model = Model::new(settings);
        model.dump(usual(24));
        model
    }

    fn frame(number: u8, port: u16, message: &Message) -> Vec<u8> {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), port);
        let to = (
            group_mac(mdns::GROUP),
            SocketAddrV4::new(mdns::GROUP, mdns::PORT),
        );
        let payload = dns::encode(message);
        udp::encode_with_ttl(mdns::TTL, (station(number), from), to, &payload).unwrap()
    }

    fn question(name: &str, kind: u16, unicast: bool) -> Question {
        Question {
            name: dns::Name::parse(name).unwrap(),
            kind,
            class: dns::CLASS_IN,
            unicast,
        }
    }

    fn query(name: &str, kind: u16, unicast: bool) -> Message {
        Message {
            questions: vec![question(name, kind, unicast)],
            ..Message::default()
        }
    }

    fn claim(name: &str, last: u8) -> Message {
        let name = dns::Name::parse(name).unwrap();
        let address = Ipv4Addr::new(10, 0, 0, last);
        response(vec![Record::a(name, 120, address)], Vec::new())
    }

    /// Returns what of ours is among the actions: the side, the addressee's hardware address, and the message.
    fn ours(actions: &[Action]) -> Vec<(Side, MacAddr, Message)> {
        let sent = actions.iter().filter_map(|action| match action {
            Action::Send { side, frame } => Some((*side, frame)),
            _ => None,
        });
        let decoded = sent.filter_map(|(side, bytes)| {
            let frame = ethernet::decode(bytes).ok()?;
            let datagram = udp::decode(&frame).ok()?;
            let own = *datagram.source.ip() == US && datagram.source.port() == mdns::PORT;
            let message = dns::decode(datagram.payload).ok()?;
            own.then_some((side, frame.destination, message))
        });
        decoded.collect()
    }

    /// Passes time, and returns what is said of ours in it.
    fn pass(model: &mut Model, time: Duration) -> Vec<(Side, MacAddr, Message)> {
        let end = model.now + time;
        let mut said = Vec::new();
        while let Some(due) = model.engine.next_deadline().filter(|due| *due <= end) {
            model.now = due.max(model.now);
            let mut actions = Vec::new();
            model
                .engine
                .handle(crate::engine::Input::Tick, model.now, &mut actions);
            said.extend(ours(&actions));
        }
        model.now = end;
        said
    }

    #[test]
    fn f3_a_flood_of_questions_gets_few_answers() {
        let mut model = model();
        pass(&mut model, Duration::from_secs(5));
        let (mut to_group, mut to_one) = (0, 0);
        for round in 0u16..2000 {
            let number = 10 + (round % 100) as u8;
            let name = NAMES[usize::from(round) % 5];
            let port = if round % 3 == 0 { 40_000 } else { mdns::PORT };
            let message = Message {
                truncated: round % 7 == 0,
                ..query(name, dns::TYPE_ANY, round % 2 == 0)
            };
            let actions = model.hear(Side::Uplink, &frame(number, port, &message));
            let mut said = ours(&actions);
            said.extend(pass(&mut model, Duration::from_millis(1)));
            model.check_bounds();
            for (_, to, _) in said {
                match to == group_mac(mdns::GROUP) {
                    true => to_group += 1,
                    false => to_one += 1,
                }
            }
        }
        // Two seconds: each of five records twice or three times, and what the paces let through in three counts of a second.
        assert!((1..=15).contains(&to_group), "{to_group}");
        assert!((1..=3 * MOST_DIRECT).contains(&to_one), "{to_one}");
    }

    #[test]
    fn f1_a_quarrel_without_end_slows_down() {
        let mut model = model();
        pass(&mut model, Duration::from_secs(5));
        let mut probes = 0;
        for round in 0..300 {
            let present = model.engine.responder.present.as_ref().unwrap();
            let name = present.records.host.to_string();
            let side = if round % 2 == 0 {
                Side::Uplink
            } else {
                Side::Wired
            };
            model.hear(side, &frame(9, mdns::PORT, &claim(&name, 9)));
            let said = pass(&mut model, Duration::from_millis(300));
            probes += said
                .iter()
                .filter(|(_, _, message)| !message.response)
                .count();
        }
        // A minute and a half; without the pause there would be two probes in each of the 300 rounds.
        assert!(probes < 100, "{probes}");
        let said = pass(&mut model, Duration::from_secs(20));
        assert!(
            said.iter().any(|(_, _, message)| message.response),
            "it ends"
        );
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let question = (0usize..6, 0usize..4, any::<bool>()).prop_map(|(name, kind, unicast)| {
            let kinds = [dns::TYPE_A, dns::TYPE_PTR, dns::TYPE_ANY, dns::TYPE_SRV];
            question(NAMES[name], kinds[kind], unicast)
        });
        let record = || {
            (0usize..6, 0u8..4, 0u32..3).prop_map(|(name, last, ttl)| {
                let name = dns::Name::parse(NAMES[name]).unwrap();
                let instance = dns::Name::parse(NAMES[2]).unwrap();
                match last {
                    0 => Record::ptr(name, ttl * 2000, &instance),
                    _ => Record::a(name, ttl * 60, Ipv4Addr::new(10, 0, 0, last)),
                }
            })
        };
        let flags = any::<(u16, bool, bool)>();
        let records = || proptest::collection::vec(record(), 0..3);
        let questions = proptest::collection::vec(question, 0..3);
        (flags, questions, records(), records()).prop_map(
            |((id, response, truncated), questions, answers, authority)| Message {
                id,
                response,
                truncated,
                questions,
                answers,
                authority,
                ..Message::default()
            },
        )
    }

    proptest! {
        #[test]
        fn f2_whatever_is_said_the_wire_hears_nothing_of_us(
            told in proptest::collection::vec((any::<bool>(), 1u8..12, any::<bool>(), any_message(), 0u64..1500), 0..60),
        ) {
            let mut model = model();
            for (wired, number, simple, message, time) in told {
                let side = if wired { Side::Wired } else { Side::Uplink };
                let port = if simple { 40_000 } else { mdns::PORT };
                let mut said = ours(&model.hear(side, &frame(number, port, &message)));
                said.extend(pass(&mut model, Duration::from_millis(time)));
                model.check_bounds();
                for (side, to, message) in said {
                    prop_assert_eq!(side, Side::Uplink);
                    prop_assert!(to == group_mac(mdns::GROUP) || message.response);
                }
            }
            model.tell(Told::Report);
            model.stop();
        }

        /// What we say is taken by ourselves for nothing that contradicts us, whoever repeats it.
        #[test]
        fn a_reflection_of_ours_is_no_quarrel(times in 1u8..4) {
            let mut model = model();
            let said = pass(&mut model, Duration::from_secs(5));
            for _ in 0..times {
                for (_, _, message) in &said {
                    model.hear(Side::Uplink, &frame(9, mdns::PORT, message));
                    pass(&mut model, Duration::from_millis(100));
                }
            }
            let present = model.engine.responder.present.as_ref().unwrap();
            prop_assert_eq!(present.rank, 0);
            prop_assert!(present.is_known());
        }
    }

    #[test]
    fn what_we_say_is_multicast_dns() {
        let mut model = model();
        for (_, _, message) in pass(&mut model, Duration::from_secs(5)) {
            let bytes = frame(2, mdns::PORT, &message);
            let heard = discovery::decode(&ethernet::decode(&bytes).unwrap()).unwrap();
            assert!(heard.is_some() && bytes.len() < 1514);
        }
    }
}

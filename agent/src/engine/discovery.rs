//! Discovery across the bridge: what a host says to everybody on its side is said again on the other (RFC 6762, M1 to M5).
//!
//! The sender's address stays (M4): an answer comes to it by the routed path, and proxy ARP leads it there. The message stays,
//! too (M3). What is not passed on: strangers' words, words heard at a place where their sender is not, our own (M2), more
//! than is good for a radio, and what somebody else already carried across.
//!
//! ```text
//!   heard on a side --> from a host of that side? --> said a moment ago? --> too often? --> said on the other side
//!                                |                          |                    |
//!                         a stranger: dropped      elsewhere, or by       dropped
//!                         elsewhere: asked for     another: a reflector,
//!                         there (A6), dropped      dropped for a while
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{debug, trace};

use crate::addr::Side;
use crate::wire::discovery::{Addressed, Fragment, FragmentKey, Heard, Message, Protocol};
use crate::wire::mdns;

use super::host::Place;
use super::hosts::Hosts;
use super::pace::Pace;
use super::proxy_arp::ProxyArp;
use super::settings::DiscoverySettings;
use super::turn::Turn;

/// Most messages of one protocol passed on in a second: a radio sends them slowly, and everybody has to listen.
const MOST_OF_A_PROTOCOL: u32 = 64;
/// Most of them of one station, which starts with a few dozen when it has much to offer.
const MOST_OF_A_STATION: u32 = 32;
/// Most questions in a second after whom a station speaks for: it has one address, or a few.
const MOST_QUESTIONS_OF_A_STATION: u32 = 8;
/// How long a message is remembered: as long as a reflector may take, and not so long that a host's own repetition meets it.
const RECENT: Duration = Duration::from_secs(1);
/// Most messages remembered: all that may have been passed on since, in two counts of a second.
pub(crate) const MOST_RECENT: usize = 2 * MOST_OF_A_PROTOCOL as usize * Protocol::ALL.len();
/// How long the same message from another machine on the other side may be a reflection.
const REFLECTED_WITHIN: Duration = Duration::from_millis(500);
/// How often one message may be said in `RECENT`; the eagerest senders repeat three or four times.
const MOST_REPETITIONS: u8 = 8;
/// How long a reflected message is not passed on, from nobody.
const HUSHED: Duration = Duration::from_secs(2);
/// Reflections within `REFLECTOR_SHOWN` that make a reflector; two machines may well say the same by coincidence.
const REFLECTIONS: u32 = 3;
/// How long a reflector is shown as a problem.
const REFLECTOR_SHOWN: Duration = Duration::from_secs(300);
/// Most datagrams whose later fragments are awaited.
pub(crate) const MOST_FRAGMENTED: usize = 32;
/// How long the later fragments may take: they leave their sender together with the first.
const FRAGMENTS_WITHIN: Duration = Duration::from_secs(1);
/// Most later fragments of one datagram: 9000 octets, the most RFC 6762 allows, in an MTU of 1500.
const MOST_LATER_FRAGMENTS: u8 = 6;

/// What a message is known by: its protocol and a hash of its words, as a reflector changes the addresses around them.
type Words = (Protocol, u64);

/// What was passed on lately.
#[derive(Debug)]
pub(crate) struct Discovery {
    protocols: BTreeSet<Protocol>,
    paces: BTreeMap<Protocol, Pace>,
    recent: BTreeMap<Words, Said>,
    fragmented: BTreeMap<(Side, FragmentKey), Awaited>,
    /// How often somebody may be asked for because of what is said in its name.
    questions: Pace,
    reflector: Option<Reflector>,
}

/// A message passed on, and who said it last.
#[derive(Clone, Copy, Debug)]
struct Said {
    by: Place,
    source: Option<Ipv4Addr>,
    at: Instant,
    /// When the count began, and the count.
    since: Instant,
    times: u8,
    /// Whether it was said on both sides.
    crossed: bool,
    hushed_until: Option<Instant>,
}

impl Said {
    fn until(&self) -> Instant {
        let recent = self.at + RECENT;
        self.hushed_until
            .map_or(recent, |hushed| hushed.max(recent))
    }
}

/// Fragments that belong to a datagram whose beginning was passed on.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    until: Instant,
    left: u8,
}

/// Another machine that carries discovery between the two sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reflector {
    pub(crate) protocol: Protocol,
    pub(crate) place: Place,
    times: u32,
    seen: Instant,
}

impl Discovery {
    pub(crate) fn new(settings: &DiscoverySettings) -> Discovery {
        let pace = |protocol| (protocol, Pace::new(MOST_OF_A_PROTOCOL, MOST_OF_A_STATION));
        let protocols = settings.protocols();
        Discovery {
            paces: protocols.iter().copied().map(pace).collect(),
            protocols,
            recent: BTreeMap::new(),
            fragmented: BTreeMap::new(),
            questions: Pace::new(MOST_OF_A_PROTOCOL, MOST_QUESTIONS_OF_A_STATION),
            reflector: None,
        }
    }

    /// Takes what another station said on a side.
    pub(crate) fn handle(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &Hosts,
        proxy_arp: &mut ProxyArp,
        from: Place,
        heard: &Heard<'_>,
    ) {
        let refusal = match heard {
            Heard::Message(message) => self.refusal(turn, hosts, proxy_arp, from, message),
            Heard::Fragment(fragment) => self.refusal_of_rest(turn.now, from.side, fragment),
        };
        if let Some(reason) = refusal {
            trace!(side = %from.side, reason, "not passed on");
            return turn.count(reason);
        }
        turn.count("discovery-passed-on");
        let to = from.side.other();
        let frame = heard.encode(turn.bridge.port(to).mac);
        turn.frames.push((to, frame));
    }

    /// Returns why a message is not passed on.
    fn refusal(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &Hosts,
        proxy_arp: &mut ProxyArp,
        from: Place,
        message: &Message<'_>,
    ) -> Option<&'static str> {
        let protocol = message.protocol;
        if !self.protocols.contains(&protocol) {
            return Some("discovery-switched-off");
        }
        if let Some(datagram) = message.datagram {
            let stranger = stranger(turn, from.side, protocol, &datagram);
            if stranger.is_some() {
                return stranger;
            }
            let malformed = protocol == Protocol::Mdns && !may_be_mdns(&datagram, message.payload);
            if malformed {
                return Some("discovery-malformed");
            }
            let host = *datagram.source.ip();
            let needs_answers = protocol != Protocol::WakeOnLan;
            // A word is no proof, but a reason to ask (A6): an answer then is, and brings the route for those who reply (M4).
            if needs_answers
                && !is_at(hosts, host, from, turn.now)
                && self.questions.allows(from.mac, turn.now)
            {
                proxy_arp.look_for(turn, from.side, host, from.mac);
            }
            if is_elsewhere(hosts, host, from.side) {
                let reflected = self.storm(turn.now, from, message);
                return reflected.or(Some("discovery-elsewhere"));
            }
        }
        let storm = self.storm(turn.now, from, message);
        if storm.is_some() {
            return storm;
        }
        let pace = self.paces.get_mut(&protocol)?;
        if !pace.allows(from.mac, turn.now) {
            return Some("discovery-capped");
        }
        self.remember(turn.now, from, message);
        None
    }

    /// Returns whether, and why, passing the message on might begin a storm (M2, M5).
    fn storm(&mut self, now: Instant, from: Place, message: &Message<'_>) -> Option<&'static str> {
        let said = self.recent.get_mut(&words(message))?;
        if said.hushed_until.is_some_and(|until| until > now) {
            return Some("discovery-reflected");
        }
        if said.until() <= now {
            return None;
        }
        let in_its_name = said.source == source(message);
        let reflected = if said.by.side == from.side {
            // The host may say it again, and others the same; nobody else in its name.
            in_its_name && said.by.mac != from.mac
        } else {
            let coincidence = is_anybodys(message) && !said.crossed;
            in_its_name || (said.at + REFLECTED_WITHIN > now && !coincidence)
        };
        let endless = said.times >= MOST_REPETITIONS && said.since + RECENT > now;
        if reflected || endless {
            said.hushed_until = Some(now + HUSHED);
        }
        if reflected {
            self.note_reflector(now, from, message.protocol);
            return Some("discovery-reflected");
        }
        endless.then_some("discovery-repeated")
    }

    fn note_reflector(&mut self, now: Instant, place: Place, protocol: Protocol) {
        debug!(side = %place.side, mac = %place.mac, %protocol, "somebody else carries discovery across");
        let times = self
            .reflector
            .filter(|reflector| reflector.seen + REFLECTOR_SHOWN > now)
            .map_or(0, |reflector| reflector.times);
        self.reflector = Some(Reflector {
            protocol,
            place,
            times: times.saturating_add(1),
            seen: now,
        });
    }

    /// Returns the other machine that carries discovery across, if that is no coincidence.
    pub(crate) fn reflector(&self, now: Instant) -> Option<Reflector> {
        self.reflector.filter(|reflector| {
            reflector.times >= REFLECTIONS && reflector.seen + REFLECTOR_SHOWN > now
        })
    }

    fn remember(&mut self, now: Instant, by: Place, message: &Message<'_>) {
        let words = words(message);
        let before = self.recent.get(&words);
        let before = before.filter(|said| said.since + RECENT > now);
        let (since, times) = before.map_or((now, 0), |said| (said.since, said.times));
        let crossed = before.is_some_and(|said| said.crossed || said.by.side != by.side);
        let said = Said {
            by,
            source: source(message),
            at: now,
            since,
            times: times.saturating_add(1),
            crossed,
            hushed_until: None,
        };
        make_room(&mut self.recent, &words, MOST_RECENT, now, Said::until);
        self.recent.insert(words, said);
        if let Some(key) = message.fragmented {
            let key = (by.side, key);
            let awaited = Awaited {
                until: now + FRAGMENTS_WITHIN,
                left: MOST_LATER_FRAGMENTS,
            };
            make_room(&mut self.fragmented, &key, MOST_FRAGMENTED, now, |a| {
                a.until
            });
            self.fragmented.insert(key, awaited);
        }
    }

    /// Returns why a later fragment is not passed on: it has to follow a beginning that was (M5).
    fn refusal_of_rest(
        &mut self,
        now: Instant,
        side: Side,
        fragment: &Fragment<'_>,
    ) -> Option<&'static str> {
        let awaited = self.fragmented.get_mut(&(side, fragment.key));
        let Some(awaited) = awaited.filter(|a| a.until > now && a.left > 0) else {
            return Some("discovery-fragment-unknown");
        };
        awaited.left -= 1;
        None
    }

    /// Forgets what was said, because the sides it was said on are gone.
    pub(crate) fn clear(&mut self) {
        self.recent.clear();
        self.fragmented.clear();
        self.reflector = None;
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.recent.len(), self.fragmented.len())
    }
}

/// Returns why a datagram's sender or destination has no place on the side.
fn stranger(
    turn: &Turn<'_>,
    side: Side,
    protocol: Protocol,
    datagram: &Addressed,
) -> Option<&'static str> {
    let bridge = turn.bridge;
    let source = *datagram.source.ip();
    let destination = datagram.destination;
    if protocol.group().is_none()
        && ![Ipv4Addr::BROADCAST, bridge.broadcast()].contains(&destination)
    {
        return Some("discovery-other-network");
    }
    if source == bridge.address {
        return Some("discovery-own-address");
    }
    // Nobody answers a magic packet, and a router may pass one on from afar.
    if !bridge.may_be_host(source) && protocol != Protocol::WakeOnLan {
        return Some("discovery-off-link");
    }
    if side == Side::Wired && bridge.gateway == Some(source) {
        return Some("gateway-claimed-on-wire");
    }
    None
}

/// Whether RFC 6762 lets anybody listen to it: from port 5353 with the TTL that no router left (M1), or a simple resolver's
/// question, for which neither is asked.
fn may_be_mdns(datagram: &Addressed, payload: &[u8]) -> bool {
    match datagram.source.port() {
        mdns::PORT => datagram.ttl == mdns::TTL,
        _ => mdns::is_query(payload),
    }
}

fn is_at(hosts: &Hosts, ip: Ipv4Addr, place: Place, now: Instant) -> bool {
    // A host on the uplink needs no route, and whoever replies to it asks for it.
    let unknown_is_fine = place.side == Side::Uplink && !is_elsewhere(hosts, ip, place.side);
    unknown_is_fine || hosts.verified(ip, place.side, now) == Some(place)
}

fn is_elsewhere(hosts: &Hosts, ip: Ipv4Addr, side: Side) -> bool {
    let host = hosts.find(ip).filter(|host| host.is_present());
    host.is_some_and(|host| host.place.side != side)
}

/// Whether two hosts may say the same by chance, as they do when they ask; what a host tells of itself, only it can say.
fn is_anybodys(message: &Message<'_>) -> bool {
    message.protocol != Protocol::Mdns || mdns::is_query(message.payload)
}

fn source(message: &Message<'_>) -> Option<Ipv4Addr> {
    message.datagram.map(|datagram| *datagram.source.ip())
}

fn words(message: &Message<'_>) -> Words {
    let mut hasher = DefaultHasher::new();
    message.payload.hash(&mut hasher);
    (message.protocol, hasher.finish())
}

/// Makes room for one more, at the cost of whatever is over, or else of the oldest.
fn make_room<K: Ord + Copy, V>(
    table: &mut BTreeMap<K, V>,
    key: &K,
    most: usize,
    now: Instant,
    until: impl Fn(&V) -> Instant,
) {
    if table.len() < most || table.contains_key(key) {
        return;
    }
    table.retain(|_, value| until(value) > now);
    if table.len() >= most {
        let oldest = table.iter().min_by_key(|(_, value)| until(value));
        let oldest = oldest.map(|(key, _)| *key);
        oldest.map(|key| table.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use proptest::prelude::*;

    use crate::addr::MacAddr;
    use crate::engine::model::{Model, Told, station, usual};
    use crate::engine::{Action, Settings};
    use crate::wire::discovery::group_mac;
    use crate::wire::ethernet::{self, HEADER_LEN};
    use crate::wire::udp;

    use super::*;

    /// Few stations, addresses and words, so that they meet; ours, the gateway's and a stranger's are among them.
    fn any_talk() -> impl Strategy<Value = (Side, Vec<u8>)> {
        let side = prop_oneof![Just(Side::Wired), Just(Side::Uplink)];
        let addresses = (1u8..8, 0u8..8, 0usize..6);
        let shape = (0u8..4, 0u16..3, 0u8..3, any::<bool>());
        (side, addresses, shape).prop_map(|(side, (mac, last, protocol), shape)| {
            let (words, id, part, stranger) = shape;
            let words = [&[0; 12][..], &[words; 3]].concat();
            let magic = [&[0xff; 6][..], &station(words[12]).octets().repeat(16)].concat();
            let from = station(mac);
            let Some(&protocol) = Protocol::ALL.get(protocol) else {
                let kind = ethernet::TYPE_WAKE_ON_LAN;
                return (
                    side,
                    ethernet::encode(MacAddr::broadcast(), from, kind, &magic),
                );
            };
            let words = match protocol {
                Protocol::WakeOnLan => magic,
                Protocol::Mdns | Protocol::Ssdp | Protocol::WsDiscovery | Protocol::Netbios => {
                    words
                }
            };
            let source = Ipv4Addr::new(10, 0, u8::from(stranger && last == 7), last);
            (side, talk(protocol, (from, source), &words, id, part))
        })
    }

    /// A message, or the first or a later fragment of one.
    fn talk(
        protocol: Protocol,
        (mac, source): (MacAddr, Ipv4Addr),
        words: &[u8],
        id: u16,
        part: u8,
    ) -> Vec<u8> {
        let port = protocol.ports()[0];
        let to = protocol.group().unwrap_or(Ipv4Addr::BROADCAST);
        let mut frame = udp::encode(
            (mac, SocketAddrV4::new(source, port)),
            (group_mac(to), SocketAddrV4::new(to, port)),
            words,
        )
        .unwrap();
        let header = &mut frame[HEADER_LEN..HEADER_LEN + 20];
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[6..8].copy_from_slice(&[[0x40, 0], [0x20, 0], [0, 185]][usize::from(part)]);
        header[8] = 255;
        header[10..12].fill(0);
        let sum: u32 = header
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Returns how many frames are passed on; the model checks what they are.
    fn tell(model: &mut Model, side: Side, frame: &[u8]) -> usize {
        let actions = model.hear(side, frame);
        model.check_bounds();
        let types = actions.iter().filter_map(|action| {
            let Action::Send { frame, .. } = action else {
                return None;
            };
            Some(ethernet::decode(frame).unwrap().ether_type)
        });
        types.filter(|sent| *sent != ethernet::TYPE_ARP).count()
    }

    fn bridging() -> Model {
        let mut model = Model::new(Settings::new("wlan0", "eth0"));
        model.dump(usual(16));
        model
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn m2_m3_m4_whatever_is_said(story in proptest::collection::vec((any_talk(), 0u64..700), 1..150)) {
            let mut model = bridging();
            for ((side, frame), wait) in story {
                tell(&mut model, side, &frame);
                model.tell(Told::Pass(Duration::from_millis(wait)));
            }
        }
    }

    #[test]
    fn m5_a_flood_is_paced_and_fills_no_table() {
        let mut model = bridging();
        let mut passed_on = 0;
        for number in 0..4000u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let mac = MacAddr(2, 1, 0, 0, high, low);
            let source = Ipv4Addr::new(10, 0, 100 + high, low);
            let words = [&[0; 12][..], &number.to_be_bytes()].concat();
            let side = [Side::Wired, Side::Uplink][number as usize % 2];
            for (protocol, part) in [(Protocol::Mdns, 1), (Protocol::Ssdp, 0)] {
                let frame = talk(protocol, (mac, source), &words, low.into(), part);
                passed_on += tell(&mut model, side, &frame);
            }
            if number % 400 == 399 {
                model.tell(Told::Pass(Duration::from_secs(1)));
            }
        }
        assert_eq!(passed_on, 10 * 2 * MOST_OF_A_PROTOCOL as usize);
    }

    #[test]
    fn m5_one_station_leaves_room_for_others() {
        let mut model = bridging();
        let mut say = |last, number: u32| {
            let from = (station(last), Ipv4Addr::new(10, 0, 0, last));
            let words = [&[0; 12][..], &number.to_be_bytes()].concat();
            let frame = talk(Protocol::Mdns, from, &words, 0, 0);
            tell(&mut model, Side::Wired, &frame)
        };
        let loud: usize = (0..100).map(|number| say(7, number)).sum();
        assert_eq!(loud, MOST_OF_A_STATION as usize);
        assert_eq!(say(8, 100), 1);
    }
}

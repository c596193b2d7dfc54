//! Who lives where: every host's address, hardware address and side, and how sure that is.
//!
//! A host is verified by a packet it sent itself, or by a lease it was given. Verified hosts are answered for on the other
//! side, and those on the wire have a route. What happens with time is in `ageing`, what happens when a host shows up
//! elsewhere in `moves`; here is what is learned and asked.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::addr::{MacAddr, Side};

use super::gateway::GatewayWatch;
use super::host::{Check, Host, Place, Source, State, Word, Worth};
use super::link::Bridge;
use super::mix::next;
use super::pace::Pace;
use super::reminders::Reminders;
use super::table::Table;
use super::turn::Turn;

/// How long evidence lasts: as long as the kernels of most hosts believe theirs.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// Spread of that time, so that hosts found in one moment are not checked in one moment.
pub(super) const SPREAD: Duration = Duration::from_secs(5);
/// Between the first requests to two remembered hosts.
const RECALL_PACE: Duration = Duration::from_millis(2);
/// How long an offered address waits for its lease.
const OFFER_LASTS: Duration = Duration::from_secs(60);
/// How long a client may take from its lease until it answers with the address: it looks for duplicates, and runs scripts.
const SETTLE: Duration = Duration::from_secs(10);

/// How long traffic of an address given up is not followed: the message that gave it up is itself traffic, and glimpsed later.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Most addresses given up that are remembered for it; the oldest go first, and cost a question.
const MOST_GIVEN_UP: usize = 64;

/// Most hosts learned in a second from what they said by themselves, and most of them from one station. Whoever is not learned
/// is when it speaks again, or when somebody asks for it.
const MOST_NEWCOMERS: u32 = 128;
const MOST_NEWCOMERS_OF_ONE: u32 = 16;
/// Most wanted hosts that are asked in a second whether they are there, and most with the same hardware address.
const MOST_DOUBTS: u32 = 64;
const MOST_DOUBTS_OF_ONE: u32 = 32;
/// Most claims to a known host's address that are weighed in a second, and most of one claimant: each costs up to six requests.
const MOST_CLAIMS: u32 = 64;
const MOST_CLAIMS_OF_ONE: u32 = 8;
/// Most requests in a second to everybody on the other side for hosts that do not answer on theirs.
const MOST_SEARCHES: u32 = 32;
const MOST_SEARCHES_OF_ONE: u32 = 16;

/// What evidence led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The host is verified at this place.
    Here,
    /// It is believed to be elsewhere, which is being looked into or was decided lately.
    Contested,
    /// Nothing was learned: nobody may have the address there, or there is no room.
    Refused,
    /// Nothing was learned, because too many newcomers speak at once.
    Crowded,
}

/// What is known of all hosts.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(super) table: Table,
    pub(super) gateway: GatewayWatch,
    pub(super) reminders: Reminders,
    random: u64,
    newcomers: Pace,
    pub(super) doubts: Pace,
    pub(super) claims: Pace,
    pub(super) searches: Pace,
    pub(super) conflict_logged: Option<Instant>,
    /// Addresses given up lately, oldest first.
    given_up: VecDeque<(Ipv4Addr, Instant)>,
}

impl Hosts {
    pub(crate) fn new(seed: u64) -> Hosts {
        Hosts {
            table: Table::default(),
            gateway: GatewayWatch::default(),
            reminders: Reminders::default(),
            random: seed,
            newcomers: Pace::new(MOST_NEWCOMERS, MOST_NEWCOMERS_OF_ONE),
            doubts: Pace::new(MOST_DOUBTS, MOST_DOUBTS_OF_ONE),
            claims: Pace::new(MOST_CLAIMS, MOST_CLAIMS_OF_ONE),
            searches: Pace::new(MOST_SEARCHES, MOST_SEARCHES_OF_ONE),
            conflict_logged: None,
            given_up: VecDeque::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Host)> {
        self.table.iter()
    }

    pub(crate) fn find(&self, ip: Ipv4Addr) -> Option<&Host> {
        self.table.find(ip)
    }

    /// Returns the verified host of an address on a side: the only ones that are answered for (A2).
    pub(crate) fn verified(&self, ip: Ipv4Addr, side: Side, now: Instant) -> Option<Place> {
        let host = self.table.find(ip).filter(|host| host.place.side == side)?;
        match host.state {
            State::Verified { until } => (until > now).then_some(host.place),
            State::Provisional { .. }
            | State::Checking(_)
            | State::Sought(_)
            | State::Challenged { .. }
            | State::Remembered { .. } => None,
        }
    }

    /// Returns the same of a host that answered a question of ours.
    pub(crate) fn proven(&self, ip: Ipv4Addr, side: Side, now: Instant) -> Option<Place> {
        let is_proven = self.table.find(ip).is_some_and(|host| host.proven);
        self.verified(ip, side, now).filter(|_| is_proven)
    }

    /// Returns whether the station is a host that answered us at this place: what it asks for comes before what strangers do.
    pub(crate) fn knows(&self, ip: Ipv4Addr, place: Place) -> bool {
        let host = self.table.find(ip).filter(|host| host.place == place);
        host.is_some_and(|host| host.worth() >= Worth::Proven)
    }

    /// Returns whether any host is or was at a place; an offer is nothing that the station there did.
    pub(crate) fn has_any_at(&self, place: Place) -> bool {
        self.table.has_any_at(place)
    }

    /// Takes a packet that the host itself sent from a place.
    pub(crate) fn learn(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        place: Place,
        word: Word,
    ) -> Learned {
        if !may_live(&turn.bridge, ip, place.side) {
            if turn.bridge.gateway == Some(ip) {
                turn.count("gateway-claimed-on-wire");
            }
            return Learned::Refused;
        }
        let now = turn.now;
        let until = self.fresh_until(now);
        let Some(host) = self.table.find(ip).copied() else {
            let before = self.gateway.before(ip).filter(|mac| *mac != place.mac);
            return match before {
                Some(mac) => self.claim_gateway(turn, (ip, mac), place, word),
                None => self.meet(turn, ip, place, word),
            };
        };
        if host.place != place {
            return self.claim(turn, ip, place, word);
        }
        self.gateway.heard(ip, place.mac, word, now);
        if let State::Challenged { by, .. } = host.state {
            self.hold(turn, ip, by);
        }
        self.table.update(ip, |host| host.confirm(word, until, now));
        if host.announcements.is_some() {
            self.announce_due(turn, ip);
            self.have_prove_itself(turn, ip);
        }
        Learned::Here
    }

    fn meet(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, place: Place, word: Word) -> Learned {
        let now = turn.now;
        if word == Word::Spoke
            && turn.bridge.gateway != Some(ip)
            && !self.newcomers.allows(place.mac, now)
        {
            turn.count("host-newcomer-capped");
            return Learned::Crowded;
        }
        let until = self.fresh_until(now);
        let mut host = Host::new(place, Source::Arp, State::Verified { until }, now);
        host.proven = word == Word::Answered;
        let learned = self.insert(turn, ip, host);
        self.gateway.heard(ip, place.mac, word, now);
        learned
    }

    /// Takes a word of another machine than the one that was the gateway before an interruption: a claim to its address (A10).
    /// The question that it may answer went to everybody on that side.
    fn claim_gateway(
        &mut self,
        turn: &mut Turn<'_>,
        (ip, mac): (Ipv4Addr, MacAddr),
        by: Place,
        word: Word,
    ) -> Learned {
        let side = Side::Uplink;
        let state = State::Challenged {
            check: Check::new(turn.now),
            by,
            answered: word == Word::Answered,
        };
        let host = Host::new(Place { mac, side }, Source::Arp, state, turn.now);
        self.insert(turn, ip, host);
        self.step(turn, ip);
        Learned::Contested
    }

    /// Takes over a host that an earlier process left in the kernel: its route stays while it is being asked.
    pub(crate) fn adopt(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, mac: MacAddr) {
        let side = Side::Wired;
        if self.table.find(ip).is_none() && may_live(&turn.bridge, ip, side) {
            let state = State::Checking(Check::new(turn.now));
            let host = Host::new(Place { mac, side }, Source::Arp, state, turn.now);
            self.insert(turn, ip, host);
        }
    }

    /// Takes an offer made to a client on the wire. Who is there, or has the lease, loses nothing by it: the client may not take it.
    pub(crate) fn offer(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, mac: MacAddr) {
        let side = Side::Wired;
        let now = turn.now;
        let is_taken = self.table.find(ip).is_some_and(|host| {
            host.is_present() || host.lease_end.is_some_and(|lease_end| lease_end > now)
        });
        if is_taken || !may_live(&turn.bridge, ip, side) {
            return;
        }
        let until = turn.now + OFFER_LASTS;
        let host = Host::new(
            Place { mac, side },
            Source::Dhcp,
            State::Provisional { until },
            turn.now,
        );
        self.insert(turn, ip, host);
    }

    /// Takes a lease given to a client on the wire (D6). Returns false where there is no room for its route.
    pub(crate) fn lease(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        mac: MacAddr,
        time: Duration,
    ) -> bool {
        let place = Place {
            mac,
            side: Side::Wired,
        };
        if !may_live(&turn.bridge, ip, place.side) {
            turn.count("dhcp-lease-not-routable");
            return true;
        }
        // Nothing but the lease may vouch for the host, so trust ends with it.
        let until = self.fresh_until(turn.now).min(turn.now + time);
        let state = State::Verified { until };
        let mut leased = Host::new(place, Source::Dhcp, state, turn.now);
        leased.lease_end = Some(turn.now + time);
        leased.doubt_from = turn.now + SETTLE;
        match self.table.find(ip).copied() {
            Some(host) if host.place == place => {
                self.table.update(ip, |host| {
                    host.confirm(Word::Spoke, until, turn.now);
                    host.source = Source::Dhcp;
                    host.lease_end = leased.lease_end;
                    host.doubt_from = leased.doubt_from;
                });
                true
            }
            Some(host) if host.place.side == place.side || self.has_room(turn, ip, &leased) => {
                self.move_host(turn, ip, place, Word::Spoke);
                // The server may be wrong, or an impostor: who had the address and is there says so, and the client does not
                // speak before it looked for duplicates.
                if host.is_present() {
                    turn.ask(host.place.side, Some(host.place.mac), ip);
                }
                self.table.update(ip, |host| {
                    host.source = Source::Dhcp;
                    host.lease_end = leased.lease_end;
                    host.doubt_from = leased.doubt_from;
                });
                // There may have been no room after all.
                self.table.find(ip).is_some_and(|host| host.place == place)
            }
            Some(_) => false,
            None => self.insert(turn, ip, leased) == Learned::Here,
        }
    }

    /// Takes a renewal seen on its way through the routed path (D7); returns whether it was a host's on the wire.
    pub(crate) fn renew(&mut self, ip: Ipv4Addr, mac: MacAddr, lease_end: Instant) -> bool {
        let side = Side::Wired;
        let is_its_own = |host: &&Host| host.place == Place { mac, side };
        if self.table.find(ip).filter(is_its_own).is_none() {
            return false;
        }
        self.table.update(ip, |host| {
            host.source = Source::Dhcp;
            host.lease_end = Some(lease_end);
        });
        true
    }

    /// Forgets a host that gave its lease up. An address that is its own without a lease is none it could give up.
    pub(crate) fn release(&mut self, ip: Ipv4Addr, mac: MacAddr, now: Instant) {
        let place = Place {
            mac,
            side: Side::Wired,
        };
        let is_its_own = |host: &&Host| host.place == place && host.source == Source::Dhcp;
        if self.table.find(ip).filter(is_its_own).is_some() {
            debug!(%ip, "host gave its address up");
            self.table.remove(ip);
            if self.given_up.len() >= MOST_GIVEN_UP {
                self.given_up.pop_front();
            }
            self.given_up.push_back((ip, now));
        }
    }

    /// Returns whether the address was given up a moment ago.
    pub(super) fn was_given_up(&self, ip: Ipv4Addr, now: Instant) -> bool {
        let mut lately = self.given_up.iter();
        lately.any(|(given_up, at)| *given_up == ip && *at + GIVEN_UP > now)
    }

    /// Keeps what can be found again when the bridge is interrupted: the hosts on the wire.
    pub(crate) fn interrupt(&mut self, now: Instant) {
        self.gateway.follow(None, now);
        self.reminders.clear();
        self.table.retain(|_, host| {
            host.place.side == Side::Wired && !matches!(host.state, State::Provisional { .. })
        });
        for ip in self.table.addresses() {
            self.table.update(ip, |host| {
                if host.is_present() {
                    host.remember(now);
                }
                if let State::Remembered { check, .. } = &mut host.state {
                    *check = None;
                }
            });
        }
    }

    /// Asks all remembered hosts whether they are there, because the bridge is back.
    pub(crate) fn recall(&mut self, now: Instant) {
        let mut next = now;
        for ip in self.table.addresses() {
            self.table.update(ip, |host| {
                if let State::Remembered { check, .. } = &mut host.state {
                    *check = Some(Check::new(next));
                    next += RECALL_PACE;
                }
            });
        }
    }

    /// Watches the bridge's gateway, beginning at once (A10).
    pub(crate) fn watch_gateway(&mut self, turn: &mut Turn<'_>) {
        let bridge = turn.bridge;
        let gateway = bridge
            .gateway
            .filter(|gateway| bridge.may_be_host(*gateway));
        self.gateway.follow(gateway, turn.now);
        self.watch_tick(turn);
    }

    /// Asks the gateway anew, because the uplink is in another place.
    pub(crate) fn recognise_gateway(&mut self, turn: &mut Turn<'_>) {
        if let Some(gateway) = turn.bridge.gateway {
            self.table.remove(gateway);
        }
        self.gateway.hurry(turn.now);
        self.watch_tick(turn);
    }

    /// Returns the gateway's watch, for who wants to know how it is.
    pub(crate) fn gateway(&self) -> &GatewayWatch {
        &self.gateway
    }

    /// Forgets everybody who cannot be a host of the network.
    pub(crate) fn retain(&mut self, may_stay: impl Fn(Ipv4Addr, Side) -> bool) {
        self.table.retain(|ip, host| may_stay(ip, host.place.side));
    }

    /// Takes the hosts that came, went or moved, so that the kernel can be told of these alone.
    pub(crate) fn take_moved(&mut self) -> BTreeSet<Ipv4Addr> {
        self.table.take_moved()
    }

    /// Forgets remembered hosts whose time is over while there is no bridge.
    pub(crate) fn handle_idle_tick(&mut self, now: Instant) {
        for ip in self.table.due(now) {
            self.table.remove(ip);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.table.next_deadline(),
            self.gateway.next_deadline(),
            self.reminders.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn insert(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, host: Host) -> Learned {
        if self.table.find(ip).is_none() && !self.has_room(turn, ip, &host) {
            return Learned::Refused;
        }
        debug!(%ip, side = %host.place.side, source = ?host.source, "host found");
        self.table.put(ip, host);
        Learned::Here
    }

    /// Finds or makes room for one more host of a side. A host that answered makes room only for the gateway and for one that a
    /// server gave a lease, and one with a lease for nobody.
    pub(super) fn has_room(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, newcomer: &Host) -> bool {
        let is_gateway = turn.bridge.gateway == Some(ip);
        let limit = match newcomer.worth() {
            Worth::Absent | Worth::AbsentWithLease | Worth::Unproven | Worth::Proven
                if is_gateway =>
            {
                Worth::Proven
            }
            Worth::Absent | Worth::AbsentWithLease => Worth::Absent,
            Worth::Unproven | Worth::Proven => Worth::Unproven,
            Worth::Leased => Worth::Proven,
        };
        let place = newcomer.place;
        let leased = newcomer.worth() == Worth::Leased;
        let room = (leased || self.table.has_room_at(place))
            && self.table.make_room(place.side, limit, turn.bridge.gateway);
        if !room {
            turn.count("host-table-full");
        }
        room
    }

    pub(super) fn fresh_until(&mut self, now: Instant) -> Instant {
        let spread = next(&mut self.random) % (SPREAD.as_millis() as u64);
        now + FRESH + Duration::from_millis(spread)
    }
}

/// Returns whether a host may have the address on the side: not us, inside the subnet, and the gateway only where it is (A10).
pub(super) fn may_live(bridge: &Bridge, ip: Ipv4Addr, side: Side) -> bool {
    let is_misplaced = side == Side::Wired && bridge.gateway == Some(ip);
    bridge.may_be_host(ip) && !is_misplaced
}

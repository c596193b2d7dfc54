//! Who lives where: every host's address, hardware address and side, and how sure that is.
//!
//! A host is verified by a packet it sent itself, or by a lease it was given. Verified hosts are answered for on the other
//! side, and those on the wire have a route. Being verified ends with time; then the host is asked, first alone and then by
//! broadcast (A5), and if silent it is remembered for a while (wired hosts) or dropped.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::addr::{MacAddr, Side};

use super::host::{Announcements, Check, Host, Place, Source, State};
use super::turn::Turn;

/// Most hosts on one side: two /24 full of them; a flood of invented ones costs no more than this many routes and checks.
pub(crate) const MOST_PER_SIDE: usize = 512;
/// How long evidence lasts: as long as the kernels of most hosts believe theirs.
const FRESH: Duration = Duration::from_secs(60);
/// Spread of that time, so that hosts found in one moment are not checked in one moment.
const SPREAD: Duration = Duration::from_secs(5);
/// Requests to the host alone, and then as many to everybody (A5).
const TRIES: u8 = 3;
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Between requests to the old place of a host that shows up elsewhere: a move should not take half a second.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(150);
/// Between requests to remembered hosts when the cable is back; the first ones often meet a switch that does not forward yet.
const RECALL_INTERVAL: Duration = Duration::from_millis(300);
/// Between the first requests to two remembered hosts.
const RECALL_PACE: Duration = Duration::from_millis(2);
/// How long an offered address waits for its lease.
const OFFER_LASTS: Duration = Duration::from_secs(60);
/// How long a second claim to a host that answered for itself is only counted.
const HOLD: Duration = Duration::from_secs(10);
/// Announcements after a move, and their distance (A6).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// What evidence led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The host is verified at this place.
    Here,
    /// It is believed to be elsewhere, which is being looked into or was decided lately.
    Contested,
    /// Nothing was learned: nobody may have the address there, or the table is full.
    Refused,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Hosts {
    table: BTreeMap<Ipv4Addr, Host>,
    random: u64,
    /// Whether `routed` may give something else than when this was last taken.
    rerouted: bool,
}

impl Hosts {
    pub(crate) fn new(seed: u64) -> Hosts {
        Hosts {
            table: BTreeMap::new(),
            random: seed,
            rerouted: false,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Host)> {
        self.table.iter().map(|(&ip, host)| (ip, host))
    }

    pub(crate) fn find(&self, ip: Ipv4Addr) -> Option<&Host> {
        self.table.get(&ip)
    }

    /// Returns the verified host of an address on a side: the only ones that are answered for (A2).
    pub(crate) fn verified(&self, ip: Ipv4Addr, side: Side, now: Instant) -> Option<Place> {
        let host = self.table.get(&ip).filter(|host| host.place.side == side)?;
        match host.state {
            State::Verified { until } => (until > now).then_some(host.place),
            State::Provisional { .. }
            | State::Checking(_)
            | State::Challenged { .. }
            | State::Remembered { .. } => None,
        }
    }

    /// Notes that somebody on the other side wants to talk to the host.
    pub(crate) fn note_asked(&mut self, ip: Ipv4Addr, now: Instant) {
        if let Some(host) = self.table.get_mut(&ip) {
            host.asked = Some(now);
        }
    }

    /// Returns whether the host's own announcement may be passed on, at most one in a while.
    pub(crate) fn may_pass_on(&self, ip: Ipv4Addr, now: Instant) -> bool {
        self.table.get(&ip).is_some_and(|host| {
            host.passed_on
                .is_none_or(|at| at + ANNOUNCE_INTERVAL <= now)
        })
    }

    /// Notes that the host's own announcement was passed on.
    pub(crate) fn note_passed_on(&mut self, ip: Ipv4Addr, now: Instant) {
        if let Some(host) = self.table.get_mut(&ip) {
            host.passed_on = Some(now);
        }
    }

    /// Takes a packet that the host itself sent from a place.
    pub(crate) fn learn(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, place: Place) -> Learned {
        if !may_live(turn, ip, place.side) {
            return Learned::Refused;
        }
        let now = turn.now;
        let until = self.fresh_until(now);
        let Some(host) = self.table.get_mut(&ip) else {
            let host = Host::new(place, Source::Arp, State::Verified { until }, now);
            return self.insert(turn, ip, host);
        };
        if host.place == place {
            if let State::Challenged { by, .. } = host.state {
                host.held_until = Some(now + HOLD);
                turn.count("host-conflict");
                debug!(%ip, mac = %place.mac, claimant = %by.mac, "host is still at its place");
            }
            self.rerouted |= !host.is_present();
            host.evidence = now;
            host.state = State::Verified { until };
            return Learned::Here;
        }
        match &mut host.state {
            State::Provisional { .. } | State::Remembered { .. } => {
                self.move_host(turn, ip, place);
                Learned::Here
            }
            State::Verified { .. } | State::Checking(_) => {
                if host.held_until.is_some_and(|until| until > now) {
                    turn.count("host-conflict");
                } else {
                    debug!(%ip, from = %host.place.side, to = %place.side, "host claimed elsewhere");
                    host.state = State::Challenged {
                        check: Check::new(now),
                        by: place,
                        answered: false,
                    };
                    self.step(turn, ip);
                }
                Learned::Contested
            }
            State::Challenged { by, answered, .. } => {
                *answered |= *by == place;
                Learned::Contested
            }
        }
    }

    /// Takes over a host that an earlier process left in the kernel: its route stays while it is being asked.
    pub(crate) fn adopt(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, mac: MacAddr) {
        let side = Side::Wired;
        if !self.table.contains_key(&ip) && may_live(turn, ip, side) {
            let state = State::Checking(Check::new(turn.now));
            let host = Host::new(Place { mac, side }, Source::Arp, state, turn.now);
            self.insert(turn, ip, host);
        }
    }

    /// Takes an offer made to a client on the wire.
    pub(crate) fn offer(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, mac: MacAddr) {
        let side = Side::Wired;
        let known = self.table.get(&ip).is_some_and(Host::is_present);
        if known || !may_live(turn, ip, side) {
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

    /// Takes a lease given to a client on the wire (D6).
    pub(crate) fn lease(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        mac: MacAddr,
        time: Duration,
    ) {
        let place = Place {
            mac,
            side: Side::Wired,
        };
        if !may_live(turn, ip, place.side) {
            turn.count("dhcp-lease-not-routable");
            return;
        }
        let until = self.fresh_until(turn.now);
        match self.table.get_mut(&ip) {
            None => {
                let host = Host::new(place, Source::Dhcp, State::Verified { until }, turn.now);
                self.insert(turn, ip, host);
            }
            Some(host) if host.place == place => {
                self.rerouted |= !host.is_present();
                host.evidence = turn.now;
                host.state = State::Verified { until };
            }
            Some(_) => self.move_host(turn, ip, place),
        }
        if let Some(host) = self.table.get_mut(&ip) {
            host.source = Source::Dhcp;
            host.lease_end = Some(turn.now + time);
        }
    }

    /// Takes a renewal seen on its way through the routed path (D7); returns whether it was a host's on the wire.
    pub(crate) fn renew(&mut self, ip: Ipv4Addr, mac: MacAddr, lease_end: Instant) -> bool {
        if let Some(host) = self.table.get_mut(&ip)
            && host.place.mac == mac
            && host.place.side == Side::Wired
        {
            host.source = Source::Dhcp;
            host.lease_end = Some(lease_end);
            return true;
        }
        false
    }

    /// Forgets a host that gave its address up.
    pub(crate) fn release(&mut self, ip: Ipv4Addr, mac: MacAddr) {
        let place = Place {
            mac,
            side: Side::Wired,
        };
        if self.table.get(&ip).is_some_and(|host| host.place == place) {
            debug!(%ip, "host gave its address up");
            self.rerouted = true;
            self.table.remove(&ip);
        }
    }

    /// Keeps what can be found again when the bridge is interrupted: the hosts on the wire.
    pub(crate) fn interrupt(&mut self, now: Instant) {
        self.table.retain(|_, host| {
            host.place.side == Side::Wired && !matches!(host.state, State::Provisional { .. })
        });
        for host in self.table.values_mut().filter(|host| host.is_present()) {
            host.remembered(now);
        }
        for host in self.table.values_mut() {
            if let State::Remembered { check, .. } = &mut host.state {
                *check = None;
            }
        }
    }

    /// Asks all remembered hosts whether they are there, because the bridge is back.
    pub(crate) fn recall(&mut self, now: Instant) {
        let mut next = now;
        for host in self.table.values_mut() {
            if let State::Remembered { check, .. } = &mut host.state {
                *check = Some(Check { sent: 0, next });
                next += RECALL_PACE;
            }
        }
    }

    /// Forgets everybody who cannot be a host of the network.
    pub(crate) fn retain(&mut self, may_stay: impl Fn(Ipv4Addr, Side) -> bool) {
        self.table.retain(|ip, host| may_stay(*ip, host.place.side));
    }

    /// Returns the hosts that are to have a route on the wire.
    pub(crate) fn routed(&self) -> impl Iterator<Item = (Ipv4Addr, MacAddr)> {
        let present =
            |(_, host): &(Ipv4Addr, &Host)| host.place.side == Side::Wired && host.is_present();
        self.iter()
            .filter(present)
            .map(|(ip, host)| (ip, host.place.mac))
    }

    /// Returns whether a packet may have changed `routed` since the last call. What time or the kernel changes is not noted.
    pub(crate) fn take_rerouted(&mut self) -> bool {
        std::mem::take(&mut self.rerouted)
    }

    /// Forgets remembered hosts whose time is over while there is no bridge.
    pub(crate) fn handle_idle_tick(&mut self, now: Instant) {
        self.table.retain(|_, host| host.deadline() > now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.table.values().map(Host::deadline).min()
    }

    /// Does what is due and returns the hosts that were found at another place.
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>) -> Vec<(Ipv4Addr, Side)> {
        let due: Vec<Ipv4Addr> = self
            .iter()
            .filter(|(_, host)| host.deadline() <= turn.now)
            .map(|(ip, _)| ip)
            .collect();
        let mut moved = Vec::new();
        for ip in due {
            let before = self.table.get(&ip).map(|host| host.place.side);
            self.announce_due(turn, ip);
            self.step(turn, ip);
            let after = self.table.get(&ip).map(|host| host.place.side);
            if let Some(side) = after
                && before != after
            {
                moved.push((ip, side));
            }
        }
        moved
    }

    fn announce_due(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        let Some(host) = self.table.get_mut(&ip) else {
            return;
        };
        let Some(announcements) = &mut host.announcements else {
            return;
        };
        if announcements.next > turn.now {
            return;
        }
        let verified = matches!(host.state, State::Verified { until } if until > turn.now);
        if verified {
            turn.announce(announcements.side, ip);
            announcements.left -= 1;
            announcements.next = turn.now + ANNOUNCE_INTERVAL;
        }
        if !verified || announcements.left == 0 {
            host.announcements = None;
        }
    }

    /// Moves one host on through its states for as long as it is due.
    fn step(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        let now = turn.now;
        while let Some(host) = self.table.get_mut(&ip)
            && host.state_deadline() <= now
        {
            let place = host.place;
            match &mut host.state {
                State::Provisional { .. } => drop_host(&mut self.table, ip),
                State::Verified { .. } => {
                    let wanted = host.asked.is_some_and(|at| at + FRESH + SPREAD > now);
                    if wanted || place.side == Side::Wired || turn.bridge.gateway == Some(ip) {
                        host.state = State::Checking(Check::new(now));
                    } else {
                        drop_host(&mut self.table, ip);
                    }
                }
                State::Checking(check) if check.sent < 2 * TRIES => {
                    let to = (check.sent < TRIES).then_some(place.mac);
                    send(turn, ip, place.side, to, check, CHECK_INTERVAL);
                }
                State::Checking(_) => {
                    turn.count("host-expired");
                    debug!(%ip, side = %place.side, "host is silent");
                    match place.side {
                        Side::Wired => host.remembered(now),
                        Side::Uplink => drop_host(&mut self.table, ip),
                    }
                }
                State::Challenged {
                    check,
                    by,
                    answered,
                } if check.sent < TRIES => {
                    if !*answered {
                        turn.ask(by.side, Some(by.mac), ip);
                    }
                    send(
                        turn,
                        ip,
                        place.side,
                        Some(place.mac),
                        check,
                        CHALLENGE_INTERVAL,
                    );
                }
                State::Challenged { by, answered, .. } => {
                    let (by, answered) = (*by, *answered);
                    // One packet may bear anybody's name. And meanwhile the address may have become the gateway's (A10).
                    if answered && may_live(turn, ip, by.side) {
                        self.move_host(turn, ip, by);
                    } else {
                        host.state = State::Checking(Check::new(now));
                    }
                }
                State::Remembered { until, .. } if *until <= now => drop_host(&mut self.table, ip),
                State::Remembered { check, .. } => match check {
                    Some(asking) if asking.sent < 2 * TRIES => {
                        let to = (asking.sent < TRIES).then_some(place.mac);
                        send(turn, ip, place.side, to, asking, RECALL_INTERVAL);
                    }
                    Some(_) | None => *check = None,
                },
            }
        }
    }

    /// Puts a known host to another place in one step, and tells the side it left if it changed sides.
    fn move_host(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, place: Place) {
        let until = self.fresh_until(turn.now);
        let Some(host) = self.table.get_mut(&ip) else {
            return;
        };
        let left = host.place.side;
        let mut moved = Host::new(place, Source::Arp, State::Verified { until }, turn.now);
        if left != place.side {
            moved.announcements = Some(Announcements {
                side: left,
                left: ANNOUNCEMENTS,
                next: turn.now,
            });
        }
        *host = moved;
        self.rerouted = true;
        turn.count("host-moved");
        debug!(%ip, from = %left, to = %place.side, "host moved");
        self.announce_due(turn, ip);
    }

    fn insert(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, host: Host) -> Learned {
        if !self.table.contains_key(&ip) && !self.make_room(host.place.side, turn.bridge.gateway) {
            turn.count("host-table-full");
            return Learned::Refused;
        }
        debug!(%ip, side = %host.place.side, source = ?host.source, "host found");
        self.table.insert(ip, host);
        self.rerouted = true;
        Learned::Here
    }

    /// Makes room for one more host of a side, at the cost of whoever is missed least.
    fn make_room(&mut self, side: Side, gateway: Option<Ipv4Addr>) -> bool {
        let of_side = || {
            self.table
                .iter()
                .filter(|(_, host)| host.place.side == side)
        };
        if of_side().count() < MOST_PER_SIDE {
            return true;
        }
        let victim = of_side()
            .filter(|(ip, host)| match side {
                Side::Wired => !host.is_present(),
                Side::Uplink => Some(**ip) != gateway,
            })
            .min_by_key(|(_, host)| host.evidence)
            .map(|(&ip, _)| ip);
        victim.is_some_and(|ip| self.table.remove(&ip).is_some())
    }

    fn fresh_until(&mut self, now: Instant) -> Instant {
        // SplitMix64: a good spread from any seed, and nothing depends on its being secret.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let spread = (z ^ (z >> 31)) % (SPREAD.as_millis() as u64);
        now + FRESH + Duration::from_millis(spread)
    }
}

/// Returns whether a host may have the address on the side: not us, inside the subnet, and the gateway only where it is (A10).
fn may_live(turn: &mut Turn<'_>, ip: Ipv4Addr, side: Side) -> bool {
    if !turn.bridge.may_be_host(ip) {
        return false;
    }
    let misplaced = side == Side::Wired && turn.bridge.gateway == Some(ip);
    if misplaced {
        turn.count("gateway-claimed-on-wire");
    }
    !misplaced
}

fn send(
    turn: &mut Turn<'_>,
    ip: Ipv4Addr,
    side: Side,
    to: Option<MacAddr>,
    check: &mut Check,
    interval: Duration,
) {
    turn.count("host-checked");
    turn.ask(side, to, ip);
    check.sent += 1;
    check.next = turn.now + interval;
}

fn drop_host(table: &mut BTreeMap<Ipv4Addr, Host>, ip: Ipv4Addr) {
    table.remove(&ip);
}

//! What time does to hosts: who was silent for long, or is wanted and does not speak, is asked, first alone and then by everybody
//! (A5), and who stays silent is remembered (on the wire) or dropped.
//!
//! A wanted host that does not answer alone may have moved without a word, so it is asked for on both sides.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::addr::{MacAddr, Side};

use super::gateway::Asking;
use super::host::{Check, Host, Place, State, Word};
use super::hosts::{FRESH, Hosts, SPREAD, may_live};
use super::turn::Turn;

/// Requests to a host alone (A5).
const TRIES: u8 = 3;
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Between requests to the old place of a host that shows up elsewhere, and to one that is wanted and silent: a move should not
/// take half a second.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(150);
/// Waits after each request to everybody. A host that moved answers the first; one that dozes gets more time than radios doze.
const SEARCH: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// How long a wanted host may take to speak before it is asked: longer than the time between two glimpses of the traffic, so
/// that hosts that talk are never asked.
const PATIENCE: Duration = Duration::from_millis(150);
/// Shortest time between two such checks of one host.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
/// How long a sign of life leaves no doubt when a host is asked for.
const SURE: Duration = Duration::from_secs(1);
/// The same where it is asked for on its own side, which every host is now and then.
const UNSURE: Duration = Duration::from_secs(10);
/// Between requests to remembered hosts when the cable is back; the first ones often meet a switch that does not forward yet.
const RECALL_INTERVAL: Duration = Duration::from_millis(300);

impl Hosts {
    /// Takes note that somebody on the other side wants to talk to a host. If it has not spoken for some time, it is asked.
    pub(crate) fn want(&mut self, ip: Ipv4Addr, now: Instant) {
        self.table.update(ip, |host| {
            host.asked = Some(now);
            if host.evidence + SURE <= now {
                host.doubt(DOUBT_INTERVAL, now);
            }
        });
    }

    /// Takes note that somebody on the other side talks to a host. If it does not talk, it is asked.
    pub(super) fn miss(&mut self, ip: Ipv4Addr, now: Instant) {
        self.table.update(ip, |host| {
            host.asked = Some(now);
            host.doubt(DOUBT_INTERVAL, now);
        });
    }

    /// Takes note that a host is looked for on its own side, by somebody who should know better if it were there.
    pub(crate) fn suspect(&mut self, ip: Ipv4Addr, now: Instant) {
        let unsure = |host: &&Host| host.evidence + UNSURE <= now;
        if self.table.find(ip).filter(unsure).is_some() {
            self.table.update(ip, |host| host.doubt(UNSURE, now));
        }
    }

    /// Returns whether a question of ours for the host is open on a side.
    pub(crate) fn expects(&self, side: Side, ip: Ipv4Addr) -> bool {
        let asked = |host: &Host| {
            let here = host.place.side == side;
            match host.state {
                State::Verified { .. } => {
                    let doubted = host.doubt.is_some_and(|check| check.sent > 0);
                    here && (doubted || host.is_to_prove_itself())
                }
                State::Checking(_) => here,
                State::Sought(_) => here || host.searched,
                State::Challenged { by, .. } => here || by.side == side,
                State::Remembered { check, .. } => {
                    here && check.is_some_and(|check| check.sent > 0)
                }
                State::Provisional { .. } => false,
            }
        };
        let gateway = side == Side::Uplink && self.gateway.expects(ip);
        gateway || self.table.find(ip).is_some_and(asked)
    }

    /// Does what is due and returns the hosts that were found at another place.
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>) -> Vec<(Ipv4Addr, Side)> {
        self.watch_tick(turn);
        self.remind_due(turn);
        let mut moved = Vec::new();
        for ip in self.table.due(turn.now) {
            let before = self.table.find(ip).map(|host| host.place.side);
            self.announce_due(turn, ip);
            self.doubt_due(turn, ip);
            self.step(turn, ip);
            let after = self.table.find(ip).map(|host| host.place.side);
            if let Some(side) = after
                && before != after
            {
                moved.push((ip, side));
            }
        }
        moved
    }

    /// Asks the gateway if that is due.
    pub(super) fn watch_tick(&mut self, turn: &mut Turn<'_>) {
        let Some(asking) = self.gateway.handle_tick(turn.now) else {
            return;
        };
        turn.count("gateway-asked");
        let mac = |ip| {
            self.table
                .find(ip)
                .filter(|host| host.is_present())
                .map(|host| host.place.mac)
        };
        let (ip, to) = match asking {
            Asking::Alone(ip) => {
                let before = self.gateway.before(ip);
                if before.is_some() {
                    // Another may be the gateway by now, and nobody knows where.
                    turn.ask(Side::Uplink, None, ip);
                }
                (ip, mac(ip).or(before))
            }
            Asking::Everybody(ip) => (ip, None),
            Asking::Lost(ip) => {
                self.table.remove(ip);
                (ip, None)
            }
        };
        turn.ask(Side::Uplink, to, ip);
    }

    /// Asks a verified host that is wanted and has not spoken since; one that does not answer is looked for everywhere.
    fn doubt_due(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        let now = turn.now;
        let Some(host) = self.table.find(ip) else {
            return;
        };
        let (place, verified) = (host.place, matches!(host.state, State::Verified { .. }));
        let Some(mut check) = host.doubt.filter(|check| check.next <= now) else {
            return;
        };
        let begins = check.sent == 0;
        if !verified || (begins && !self.doubts.allows(place.mac, now)) {
            self.table.update(ip, |host| host.doubt = None);
        } else if check.sent < TRIES {
            send(
                turn,
                ip,
                place.side,
                Some(place.mac),
                &mut check,
                CHALLENGE_INTERVAL,
            );
            self.table.update(ip, |host| host.doubt = Some(check));
        } else {
            debug!(%ip, side = %place.side, "wanted host does not answer");
            turn.count("host-doubted");
            self.table.update(ip, |host| {
                host.doubt = None;
                host.state = State::Sought(Check::new(now));
            });
        }
    }

    /// Moves one host on through its states for as long as it is due.
    pub(super) fn step(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        while let Some(host) = self.table.find(ip).copied()
            && host.state_deadline() <= turn.now
        {
            match host.state {
                State::Provisional { .. } => self.table.remove(ip),
                State::Verified { .. } => self.grow_old(turn, ip, &host),
                State::Checking(check) => self.check_on(turn, ip, &host, check),
                State::Sought(check) => self.seek(turn, ip, &host, check),
                State::Challenged {
                    check,
                    by,
                    answered,
                } => {
                    self.weigh(turn, ip, &host, (check, by, answered));
                }
                State::Remembered { until, .. } if until <= turn.now => self.table.remove(ip),
                State::Remembered { until, check } => {
                    self.recall_on(turn, ip, &host, (until, check))
                }
            }
        }
    }

    fn grow_old(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, host: &Host) {
        let is_kept = host.place.side == Side::Wired || turn.bridge.gateway == Some(ip);
        if is_kept || host.is_wanted(turn.now) {
            let now = turn.now;
            self.table.update(ip, |host| {
                host.state = State::Checking(Check::new(now));
                host.outlive_lease(now);
            });
        } else {
            self.table.remove(ip);
        }
    }

    fn check_on(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, host: &Host, mut check: Check) {
        let state = if check.sent < TRIES {
            let place = host.place;
            send(
                turn,
                ip,
                place.side,
                Some(place.mac),
                &mut check,
                CHECK_INTERVAL,
            );
            State::Checking(check)
        } else {
            State::Sought(Check::new(turn.now))
        };
        self.table.update(ip, |host| host.state = state);
    }

    fn seek(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, host: &Host, mut check: Check) {
        let Place { side, .. } = host.place;
        if let Some(wait) = SEARCH.get(usize::from(check.sent)) {
            // Only who is wanted is worth a word to everybody on the other side.
            let beyond = side.other();
            if host.is_wanted(turn.now)
                && may_live(&turn.bridge, ip, beyond)
                && self.searches.allows(host.place.mac, turn.now)
            {
                turn.count("host-sought");
                turn.ask(beyond, None, ip);
                self.table.update(ip, |host| host.searched = true);
            }
            send(turn, ip, side, None, &mut check, *wait);
            self.table
                .update(ip, |host| host.state = State::Sought(check));
            return;
        }
        turn.count("host-expired");
        debug!(%ip, %side, "host is silent");
        match side {
            Side::Wired => {
                self.table.update(ip, |host| host.remember(turn.now));
                self.remind_later(turn, ip);
            }
            Side::Uplink => self.table.remove(ip),
        }
    }

    /// Asks a remembered host on, first alone and then everybody; whose lease lasts may be asked again later.
    fn recall_on(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        host: &Host,
        (until, check): (Instant, Option<Check>),
    ) {
        match check {
            Some(mut check) if check.sent < 2 * TRIES => {
                let to = (check.sent < TRIES).then_some(host.place.mac);
                send(turn, ip, host.place.side, to, &mut check, RECALL_INTERVAL);
                let check = Some(check);
                self.table
                    .update(ip, |host| host.state = State::Remembered { until, check });
            }
            Some(_) | None => {
                let check = None;
                self.table
                    .update(ip, |host| host.state = State::Remembered { until, check });
                self.remind_later(turn, ip);
            }
        }
    }

    /// Has a silent host be asked again, if its lease says that it may come back.
    fn remind_later(&mut self, turn: &Turn<'_>, ip: Ipv4Addr) {
        let host = self.table.find(ip);
        if host.is_some_and(|host| host.lease_end.is_some()) {
            self.reminders.wait(ip, turn.now);
        }
    }

    /// Begins to ask the silent host whose turn it is.
    fn remind_due(&mut self, turn: &mut Turn<'_>) {
        while let Some(ip) = self.reminders.next(turn.now) {
            // Who came back meanwhile, or is being asked because the cable did, costs no turn.
            let Some(State::Remembered { until, check: None }) =
                self.table.find(ip).map(|host| host.state)
            else {
                continue;
            };
            self.reminders.asked(turn.now);
            let check = Some(Check::new(turn.now));
            self.table
                .update(ip, |host| host.state = State::Remembered { until, check });
        }
    }

    /// Asks the old place of a host, and whoever claims to be its new one; then decides.
    fn weigh(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        host: &Host,
        (mut check, by, answered): (Check, Place, bool),
    ) {
        if check.sent < TRIES {
            if !answered {
                turn.ask(by.side, Some(by.mac), ip);
            }
            let place = host.place;
            send(
                turn,
                ip,
                place.side,
                Some(place.mac),
                &mut check,
                CHALLENGE_INTERVAL,
            );
            let state = State::Challenged {
                check,
                by,
                answered,
            };
            self.table.update(ip, |host| host.state = state);
        } else if answered && may_live(&turn.bridge, ip, by.side) {
            // One packet may bear anybody's name. And meanwhile the address may have become the gateway's (A10).
            self.move_host(turn, ip, by, Word::Answered);
        } else {
            let now = turn.now;
            self.table.update(ip, |host| {
                host.state = State::Checking(Check::new(now));
                host.idle_claim = Some(now);
            });
        }
    }
}

impl Host {
    fn doubt(&mut self, interval: Duration, now: Instant) {
        if self.doubt_from <= now && matches!(self.state, State::Verified { .. }) {
            self.doubt_from = now + interval;
            self.doubt = Some(Check::new(now + PATIENCE));
        }
    }

    /// Returns whether somebody on the other side asked for the host since it was last to be verified.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.asked.is_some_and(|at| at + FRESH + SPREAD > now)
    }
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

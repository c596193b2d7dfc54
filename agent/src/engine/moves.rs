//! Hosts that show up elsewhere: moves (A6) and addresses that two machines have (A7).
//!
//! A claim from elsewhere is weighed by asking both places. The first place keeps the address as long as it answers; the other
//! gets it when the first is silent and the other answers as well. After a claim that came to nothing, further ones are only
//! counted for a while, and all claims together have a pace: weighing one costs more packets than making it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::host::{Announcements, Check, Conflict, Host, Place, Source, State, Word};
use super::hosts::{Hosts, Learned};
use super::turn::Turn;

/// How long another claim to a host that answered for itself is only counted.
const HOLD: Duration = Duration::from_secs(10);
/// The same after a claim that nobody stood behind, for claims that are no answers: a host that does move must not wait for long.
const IDLE_HOLD: Duration = Duration::from_secs(2);
/// How long two machines with one address are shown as a problem.
const CONFLICT_SHOWN: Duration = Duration::from_secs(300);
/// Between two lines in the log about such machines, whichever they are.
const CONFLICT_LOGGED: Duration = Duration::from_secs(60);
/// Announcements after a move, and their distance (A6).
const ANNOUNCEMENTS: u8 = 2;
pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Shortest time between two questions to a host that speaks and has yet to answer before it is announced.
const PROOF_INTERVAL: Duration = Duration::from_millis(200);

impl Hosts {
    /// Takes a word from another place than the host's.
    pub(super) fn claim(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        by: Place,
        word: Word,
    ) -> Learned {
        let Some(host) = self.table.find(ip).copied() else {
            return Learned::Refused;
        };
        match host.state {
            State::Provisional { .. } | State::Remembered { .. } => {
                self.move_host(turn, ip, by, word);
                self.have_prove_itself(turn, ip);
                return self.learned(ip, by);
            }
            // Its old place did not answer when it was asked, and somebody elsewhere did.
            State::Sought(check) if check.sent > 0 && word == Word::Answered => {
                self.move_host(turn, ip, by, word);
                return self.learned(ip, by);
            }
            State::Verified { .. } | State::Checking(_) | State::Sought(_) => {
                if host
                    .conflict
                    .is_some_and(|conflict| conflict.seen + HOLD > turn.now)
                {
                    turn.count("host-conflict");
                    return Learned::Contested;
                }
                if !self.may_weigh(turn, ip, &host, (by, word)) {
                    turn.count("host-claim-capped");
                    return Learned::Contested;
                }
                debug!(%ip, from = %host.place.side, to = %by.side, "host claimed elsewhere");
                let state = State::Challenged {
                    check: Check::new(turn.now),
                    by,
                    answered: false,
                };
                self.table.update(ip, |host| host.state = state);
                self.step(turn, ip);
            }
            State::Challenged {
                check,
                by: first,
                answered,
            } => {
                // What the claimant says by itself it would say if it were an impostor, too.
                let answered = answered || (first == by && word == Word::Answered);
                let state = State::Challenged {
                    check,
                    by: first,
                    answered,
                };
                self.table.update(ip, |host| host.state = state);
            }
        }
        Learned::Contested
    }

    /// Returns whether there is time for a claim. For the gateway's there always is.
    fn may_weigh(
        &mut self,
        turn: &Turn<'_>,
        ip: Ipv4Addr,
        host: &Host,
        (by, word): (Place, Word),
    ) -> bool {
        let lately = host.idle_claim.is_some_and(|at| at + IDLE_HOLD > turn.now);
        let is_held = lately && word == Word::Spoke;
        !is_held && (turn.bridge.gateway == Some(ip) || self.claims.allows(by.mac, turn.now))
    }

    fn learned(&self, ip: Ipv4Addr, place: Place) -> Learned {
        match self.table.find(ip) {
            Some(host) if host.place == place => Learned::Here,
            Some(_) | None => Learned::Refused,
        }
    }

    /// Takes note that a host spoke at its place while another claimed its address: both are alive.
    pub(super) fn hold(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, with: Place) {
        turn.count("host-conflict");
        let seen = turn.now;
        self.table
            .update(ip, |host| host.conflict = Some(Conflict { with, seen }));
        if self
            .conflict_logged
            .is_none_or(|at| at + CONFLICT_LOGGED <= turn.now)
        {
            self.conflict_logged = Some(turn.now);
            warn!("two machines have one address: see `footbridge status`");
        }
        debug!(%ip, claimant = %with.mac, side = %with.side, "host is still at its place");
    }

    /// Returns the addresses that two machines have, with the places of both.
    pub(crate) fn conflicts(&self, now: Instant) -> impl Iterator<Item = (Ipv4Addr, Place, Place)> {
        self.iter().filter_map(move |(ip, host)| {
            let conflict = host.conflict?;
            let is_shown = conflict.seen + CONFLICT_SHOWN > now;
            is_shown.then_some((ip, host.place, conflict.with))
        })
    }

    /// Puts a known host to another place in one step, and has the side it left told if it changed sides: at once if it answered
    /// from there.
    pub(super) fn move_host(
        &mut self,
        turn: &mut Turn<'_>,
        ip: Ipv4Addr,
        place: Place,
        word: Word,
    ) {
        let until = self.fresh_until(turn.now);
        let Some(host) = self.table.find(ip) else {
            return;
        };
        let left = host.place.side;
        let remembers = host.place.mac == place.mac;
        let mut moved = Host::new(place, Source::Arp, State::Verified { until }, turn.now);
        moved.proven = word == Word::Answered;
        if left != place.side && !self.has_room(turn, ip, &moved) {
            return self.table.remove(ip);
        }
        if left != place.side {
            moved.announcements = Some(Announcements {
                side: left,
                remembers,
                left: ANNOUNCEMENTS,
                next: turn.now,
                asked: false,
            });
        }
        self.table.put(ip, moved);
        turn.count("host-moved");
        debug!(%ip, from = %left, to = %place.side, "host moved");
        self.announce_due(turn, ip);
    }

    /// Makes the announcement that is due for a host, while it is verified and once it is proven.
    pub(super) fn announce_due(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        let Some(host) = self.table.find(ip) else {
            return;
        };
        let Some(mut announcements) = host.announcements else {
            return;
        };
        if !host.proven || announcements.next > turn.now {
            return;
        }
        let verified = matches!(host.state, State::Verified { until } if until > turn.now);
        if verified {
            turn.announce(announcements.side, ip);
            if announcements.remembers {
                self.give_bearings(turn, ip, host.place);
            }
            announcements.left -= 1;
            announcements.next = turn.now + ANNOUNCE_INTERVAL;
        }
        let more = verified && announcements.left > 0;
        self.table.update(ip, |host| {
            host.announcements = more.then_some(announcements)
        });
    }

    /// Returns whether the host's own announcement may be passed on, at most one in a while.
    pub(crate) fn may_pass_on(&self, ip: Ipv4Addr, now: Instant) -> bool {
        self.find(ip).is_some_and(|host| {
            host.passed_on
                .is_none_or(|at| at + ANNOUNCE_INTERVAL <= now)
        })
    }

    /// Passes the host's own announcement on: at once if it ever answered us, and otherwise as soon as it does.
    pub(crate) fn pass_on(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr, place: Place) {
        let (now, side) = (turn.now, place.side.other());
        let waits = self.table.update(ip, |host| {
            host.passed_on = Some(now);
            if !host.proven {
                host.announcements.get_or_insert(Announcements {
                    side,
                    remembers: false,
                    left: 1,
                    next: now,
                    asked: false,
                });
            }
            !host.proven
        });
        match waits {
            Some(true) => self.have_prove_itself(turn, ip),
            Some(false) => turn.announce(side, ip),
            None => {}
        }
    }

    /// Asks a host that just spoke, if announcements wait for its answer.
    pub(super) fn have_prove_itself(&mut self, turn: &mut Turn<'_>, ip: Ipv4Addr) {
        let now = turn.now;
        let Some(host) = self.table.find(ip).filter(|host| !host.proven) else {
            return;
        };
        let place = host.place;
        if host
            .announcements
            .is_some_and(|waiting| waiting.next <= now)
        {
            turn.count("host-checked");
            turn.ask(place.side, Some(place.mac), ip);
            self.table.update(ip, |host| {
                if let Some(waiting) = &mut host.announcements {
                    waiting.asked = true;
                    waiting.next = now + PROOF_INTERVAL;
                }
            });
        }
    }
}

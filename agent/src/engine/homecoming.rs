//! The homecoming: once the uplink is back in its network, every host on the wire that is there is announced once, so that
//! nobody has to wait until an entry of before the interruption is given up.
//!
//! The announcements are spread, because all stations of a network hear each of them.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::Side;

use super::hosts::Hosts;
use super::turn::Turn;

/// Until the first announcement: by then hosts that were asked whether they are there have answered.
const FIRST: Duration = Duration::from_millis(500);
/// Between two.
const PACE: Duration = Duration::from_millis(20);

/// The announcements to be made.
#[derive(Debug, Default)]
pub(crate) struct Homecoming {
    waiting: VecDeque<Ipv4Addr>,
    next: Option<Instant>,
}

impl Homecoming {
    /// Begins to announce all hosts on the wire.
    pub(crate) fn begin(&mut self, hosts: &Hosts, now: Instant) {
        let wired = hosts
            .iter()
            .filter(|(_, host)| host.place.side == Side::Wired);
        self.waiting = wired.map(|(ip, _)| ip).collect();
        self.next = (!self.waiting.is_empty()).then_some(now + FIRST);
    }

    /// Forgets the rest.
    pub(crate) fn clear(&mut self) {
        *self = Homecoming::default();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Announces the next host, if it is there (A6).
    pub(crate) fn handle_tick(&mut self, turn: &mut Turn<'_>, hosts: &Hosts) {
        while self.next.is_some_and(|next| next <= turn.now) {
            let ip = self.waiting.pop_front();
            let there = ip.filter(|ip| hosts.proven(*ip, Side::Wired, turn.now).is_some());
            if let Some(ip) = there {
                turn.announce(Side::Uplink, ip);
                self.next = Some(turn.now + PACE);
            }
            if self.waiting.is_empty() {
                self.next = None;
            }
        }
    }
}

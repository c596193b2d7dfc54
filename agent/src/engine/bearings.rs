//! Bearings for a host that changed sides without noticing: where the others are, seen from its new side.
//!
//! Such a host still sends to the hardware addresses of its old side, where on the wire everybody beyond was us, and its kernel
//! gives these up only after half a minute. So it alone is told, with the announcements of its move (A6), of the gateway and of
//! those who are talked to: that they are reached through us, or, if they are on its new side, at their own address. That is a
//! binding we verified and the host would find by asking; it is not asked in anybody's name (A4), nobody else hears of it, and
//! the frame bears our own source address, so no switch learns anything wrong.

use std::cmp::Reverse;
use std::net::Ipv4Addr;

use super::host::{Host, Place};
use super::hosts::Hosts;
use super::turn::Turn;

/// Most others a host is told of.
const MOST: usize = 4;

impl Hosts {
    /// Tells a host where those are that it may be talking to.
    pub(super) fn give_bearings(&self, turn: &mut Turn<'_>, ip: Ipv4Addr, place: Place) {
        let gateway = turn.bridge.gateway;
        let is_talked_to = |(other, host): &(Ipv4Addr, &Host)| {
            *other != ip && (Some(*other) == gateway || host.is_wanted(turn.now))
        };
        let mut others: Vec<(Ipv4Addr, &Host)> = self.iter().filter(is_talked_to).collect();
        others.sort_by_key(|(other, host)| (Some(*other) != gateway, Reverse(host.asked)));
        for (other, host) in others.into_iter().take(MOST) {
            if self.verified(other, host.place.side, turn.now) != Some(host.place)
                || host.place.mac == place.mac
            {
                continue;
            }
            let at = if host.place.side == place.side {
                host.place.mac
            } else {
                turn.bridge.port(place.side).mac
            };
            turn.point(place.side, place.mac, other, at);
        }
    }
}

//! What the traffic that the kernel forwards says about hosts: who is talked to, and who talks.
//!
//! A host that is talked to and does not talk may have moved without a word (A6), long before anybody asks for it by ARP: the
//! router's kernel is sure of its neighbour for half a minute and more. So a glimpse of the traffic, now and then, is enough to
//! ask the host; and a host that talks need not be asked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tracing::trace;

use crate::addr::{MacAddr, Side};
use crate::wire::{ethernet, ipv4};

use super::host::{Place, State, Word};
use super::hosts::Hosts;
use super::seam::Glimpse;
use super::turn::Turn;

impl Hosts {
    /// Takes glimpses of traffic, all of about one moment: questions first, because their answers may be among them.
    pub(crate) fn handle_traffic(&mut self, turn: &mut Turn<'_>, glimpses: &[Glimpse]) {
        for glimpse in glimpses {
            if let Some((_, _, to)) = ends(turn, glimpse) {
                let beyond = glimpse.side.other();
                let is_there = self.verified(to, beyond, turn.now).is_some();
                if is_there {
                    self.miss(to, turn.now);
                }
            }
        }
        for glimpse in glimpses {
            if let Some((place, from, _)) = ends(turn, glimpse) {
                trace!(%from, side = %place.side, "traffic");
                self.hear(turn, from, place);
            }
        }
    }

    /// Returns who is sent to through us, or sends through us from the wire, without being known there, and the station that
    /// sent. Both ends may be sure of us as their neighbour from the time before a restart, ask nobody for half a minute, and
    /// wait in vain.
    pub(crate) fn strangers(
        &self,
        turn: &Turn<'_>,
        glimpses: &[Glimpse],
    ) -> BTreeMap<Ipv4Addr, MacAddr> {
        let ends = glimpses.iter().filter_map(|glimpse| ends(turn, glimpse));
        let on_wire = ends.map(|(place, from, to)| match place.side {
            Side::Uplink => (to, place.mac),
            Side::Wired => (from, place.mac),
        });
        on_wire
            .filter(|&(ip, _)| turn.bridge.may_be_host(ip) && turn.bridge.gateway != Some(ip))
            .filter(|&(ip, _)| self.find(ip).is_none_or(|host| !host.is_present()))
            .filter(|&(ip, _)| !self.was_given_up(ip, turn.now))
            .collect()
    }

    /// Takes a packet that the kernel forwards as a sign of life of the host that it is from. What a router passes on bears other
    /// stations' addresses, so it is believed from a known place, or from the other side as a claim to be looked into.
    fn hear(&mut self, turn: &mut Turn<'_>, from: Ipv4Addr, place: Place) {
        let gateway = turn.bridge.gateway.and_then(|gateway| self.find(gateway));
        let by_gateway = gateway.is_some_and(|gateway| gateway.place == place);
        if let (true, Some(gateway)) = (by_gateway, turn.bridge.gateway) {
            self.gateway.glimpsed(gateway, turn.now);
        }
        let Some(host) = self.find(from).copied() else {
            return;
        };
        let is_there = host.place == place;
        let is_elsewhere = host.is_present() && host.place.side != place.side && !by_gateway;
        if is_there && matches!(host.state, State::Verified { .. }) {
            let until = self.fresh_until(turn.now);
            let now = turn.now;
            self.table
                .update(from, |host| host.confirm(Word::Spoke, until, now));
        } else if is_elsewhere {
            self.learn(turn, from, place, Word::Spoke);
        }
    }
}

/// Returns the stations of the uplink that sent something to us, or through us.
pub(crate) fn stations_of_uplink(
    turn: &Turn<'_>,
    glimpses: &[Glimpse],
) -> impl Iterator<Item = MacAddr> {
    let places = glimpses.iter().filter_map(|glimpse| ends(turn, glimpse));
    let of_uplink = places.filter(|(place, _, _)| place.side == Side::Uplink);
    of_uplink.map(|(place, _, _)| place.mac)
}

/// Returns the sender's place and the two addresses of a packet that another station sent to one of our hardware addresses.
fn ends(turn: &Turn<'_>, glimpse: &Glimpse) -> Option<(Place, Ipv4Addr, Ipv4Addr)> {
    let frame = ethernet::decode(&glimpse.headers).ok()?;
    let ours = [
        turn.bridge.port(Side::Wired).mac,
        turn.bridge.port(Side::Uplink).mac,
    ];
    if ours.contains(&frame.source) || frame.destination != turn.bridge.port(glimpse.side).mac {
        return None;
    }
    let (from, to) = ipv4::ends(&frame)?;
    let place = Place {
        mac: frame.source,
        side: glimpse.side,
    };
    Some((place, from, to))
}

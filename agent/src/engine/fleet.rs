//! What the device tells its network of itself, where that is wanted (`[fleet] status`): where it is, by multicast DNS on the
//! uplink (`responder`), and how it is, in one small document for whoever connects there.
//!
//! Both begin with the uplink's address, with or without a cable, and end with it. Nothing is told on the wire: what is plugged in
//! there is a guest. Nothing is told to other networks either, and nothing is read of those who ask but their address.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::trace;

use crate::addr::{IfIndex, MacAddr, Side};
use crate::wire::discovery::{self, Heard, Protocol};
use crate::wire::{dns, ethernet, mdns};

use super::host::Place;
use super::link;
use super::radio::RadioReport;
use super::responder::Voice;
use super::{Action, BridgeState, Engine, doctor};

/// The TCP port of the document: of those that are registered to nobody (RFC 6335, 6), and above those that Linux hands out.
pub const STATUS_PORT: u16 = 61067;
/// Most clients that are let in in a second, and most of one address.
pub(crate) const MOST_CLIENTS: u32 = 16;
pub(crate) const MOST_CLIENTS_OF_AN_ADDRESS: u32 = 4;

/// Where the device is in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) index: IfIndex,
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl Presence {
    /// Whether an address is one of the network's, and not our own.
    pub(crate) fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        address != self.address
            && link::network(address, self.prefix) == link::network(self.address, self.prefix)
    }
}

/// What the device tells: no secret, and nothing of those it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetReport {
    /// What it calls itself.
    pub name: String,
    /// The number of its processor, where it has one.
    pub serial: Option<String>,
    /// Which image it runs, where the image says so.
    pub image: Option<String>,
    /// The agent's version.
    pub version: &'static str,
    /// What the bridge is doing.
    pub state: BridgeState,
    /// The interface that is a member of the network.
    pub uplink: String,
    /// Its address there.
    pub address: Option<Ipv4Addr>,
    /// The network's name, if the uplink is a radio.
    pub ssid: Option<String>,
    /// How strong the access point is received, in dBm.
    pub signal_dbm: Option<i8>,
    /// For how many seconds the machine has been on.
    pub uptime: Option<u64>,
    /// How many problems `footbridge status` would show.
    pub problems: usize,
}

impl Engine {
    /// Returns what the device tells; `uptime` is the machine's.
    pub fn fleet_report(&self, now: Instant, uptime: Option<Duration>) -> FleetReport {
        let device = &self.settings.fleet.device;
        let radio = RadioReport::new(&self.radio);
        FleetReport {
            name: device.hostname.clone(),
            serial: device.serial.clone(),
            image: device.image.clone(),
            version: env!("CARGO_PKG_VERSION"),
            state: self.state,
            uplink: self.settings.uplink.clone(),
            address: self.presence.map(|presence| presence.address),
            signal_dbm: radio.as_ref().and_then(|radio| radio.signal_dbm),
            ssid: radio.and_then(|radio| radio.ssid),
            uptime: uptime.map(|uptime| uptime.as_secs()),
            problems: doctor::problems(self, now).len(),
        }
    }

    /// Returns whether somebody who connected is told: a neighbour, not too often.
    pub fn admits(&mut self, client: Ipv4Addr, now: Instant) -> bool {
        let is_neighbour = self
            .presence
            .is_some_and(|presence| presence.is_neighbour(client));
        let admitted = is_neighbour && self.clients.allows(client, now);
        self.count(match admitted {
            true => "fleet-client",
            false => "fleet-client-refused",
        });
        admitted
    }

    /// Follows the settings and the uplink.
    pub(super) fn review_presence(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wanted = self.settings.fleet.status && self.state != BridgeState::Stopping;
        let presence = self.uplink().filter(|_| wanted);
        let presence = presence.map(|(port, address)| Presence {
            index: port.index,
            mac: port.mac,
            address: address.address,
            prefix: address.prefix,
        });
        let before = std::mem::replace(&mut self.presence, presence);
        if before == presence {
            return;
        }
        let place = |presence: Presence| (presence.index, presence.address);
        if before.map(place) != presence.map(place) {
            actions.extend(before.map(|_| Action::CloseStatus));
            actions.extend(
                presence
                    .map(|Presence { index, address, .. }| Action::OpenStatus { index, address }),
            );
        }
        let hostname = &self.settings.fleet.device.hostname;
        self.responder.follow(presence, hostname, now);
    }

    /// Takes back what was told, while there is still a socket to do it with, and tells no more.
    pub(super) fn end_presence(&mut self, actions: &mut Vec<Action>) {
        let frame = self.responder.goodbye();
        let side = Side::Uplink;
        actions.extend(frame.map(|frame| Action::Send { side, frame }));
        actions.extend(self.presence.take().map(|_| Action::CloseStatus));
    }

    /// Takes a frame to the group of multicast DNS.
    pub(super) fn hear_mdns(
        &mut self,
        side: Side,
        frame: &ethernet::Frame<'_>,
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let Some(presence) = self.presence else {
            return;
        };
        let Ok(Some(Heard::Message(message))) = discovery::decode(frame) else {
            return;
        };
        let (Protocol::Mdns, None, Some(datagram)) =
            (message.protocol, message.fragmented, message.datagram)
        else {
            return;
        };
        let speaks = datagram.source.port() == mdns::PORT;
        // A simple resolver's question may have any time to live (RFC 6762, 5.1 and 11).
        let heard =
            (speaks && datagram.ttl == mdns::TTL) || (!speaks && mdns::is_query(message.payload));
        if !heard || frame.source == presence.mac || !presence.is_neighbour(*datagram.source.ip()) {
            return;
        }
        // Nobody is answered there.
        if side == Side::Wired && mdns::is_query(message.payload) {
            return;
        }
        if !self.responder.listens_to(frame.source, now) {
            return self.count("fleet-mdns-capped");
        }
        let message = match dns::decode(message.payload) {
            Ok(message) => message,
            Err(reason) => {
                trace!(%side, %reason, "mDNS dropped");
                return self.count("fleet-mdns-malformed");
            }
        };
        let place = Place {
            mac: frame.source,
            side,
        };
        let mut voice = Voice {
            now,
            counters: &mut self.counters,
            frames,
        };
        self.responder
            .hear(&mut voice, place, datagram.source, message);
    }
}

//! The DHCP relay (RFC 1542, 2131, 3046): clients on the wire, servers on the uplink, `giaddr` ours.
//!
//! A client's message goes out on the uplink from our own address, and the server answers to us. Answers are frames on the
//! wire to the client's hardware address (D4), because a client without an address cannot be routed to. Messages between a
//! client that has its address and its server pass through the kernel; they are only watched, for leases and releases (D7).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tracing::{debug, trace};

use crate::addr::{MacAddr, Side};
use crate::wire::dhcp::{self, Dhcp, MessageType, Op};
use crate::wire::udp::Datagram;

use super::host::Place;
use super::hosts::Hosts;
use super::pace::Pace;
use super::turn::Turn;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Most transactions remembered; the oldest go first, and their clients try again with new ones.
pub(crate) const MOST_TRANSACTIONS: usize = 256;
/// How long a server may take: clients give up on a transaction before this.
const TRANSACTION_LASTS: Duration = Duration::from_secs(60);
/// Longest lease believed, so that "for ever" is a time like any other.
const LONGEST_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most requests relayed in a second: each is a broadcast in the network, and makes a server work.
const MOST_REQUESTS: u32 = 64;
/// Most requests relayed in a second for one station, which may be an access point that speaks for its clients.
const MOST_OF_ONE_STATION: u32 = 16;
/// Most replies delivered to one request: more than there are servers in any network.
const MOST_REPLIES: u8 = 8;

/// What identifies a client's conversation: its number and the client's whole hardware address field.
type Transaction = (u32, [u8; 16]);

/// The relay.
#[derive(Debug)]
pub(crate) struct DhcpRelay {
    max_hops: u8,
    /// Another program has port 67; two relays or a relay beside a server would answer twice.
    pub(crate) port_taken: bool,
    transactions: BTreeMap<Transaction, Pending>,
    pace: Pace,
}

/// What is still expected in a conversation.
#[derive(Clone, Copy, Debug)]
struct Pending {
    until: Instant,
    replies_left: u8,
}

impl DhcpRelay {
    pub(crate) fn new(max_hops: u8) -> DhcpRelay {
        DhcpRelay {
            max_hops,
            port_taken: false,
            transactions: BTreeMap::new(),
            pace: Pace::new(MOST_REQUESTS, MOST_OF_ONE_STATION),
        }
    }

    /// Takes a datagram to one of DHCP's ports.
    pub(crate) fn handle_datagram(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        from: Place,
        datagram: &Datagram<'_>,
    ) {
        let message = match dhcp::decode(datagram.payload) {
            Ok(message) => message,
            Err(reason) => {
                trace!(side = %from.side, %reason, "DHCP message dropped");
                turn.count("dhcp-malformed");
                return;
            }
        };
        let to = *datagram.destination.ip();
        match (from.side, datagram.destination.port(), message.op()) {
            (Side::Wired, SERVER_PORT, Op::Request) => {
                watch_request(hosts, from.mac, &message);
                self.handle_request(turn, from.mac, to, &message)
            }
            (Side::Uplink, SERVER_PORT, Op::Reply) if to == turn.bridge.address => {
                self.handle_reply(turn, hosts, &message);
            }
            (Side::Uplink, CLIENT_PORT, Op::Reply) => watch_reply(turn, hosts, to, &message),
            (Side::Wired, _, Op::Reply) => turn.count("dhcp-reply-on-wire"),
            (Side::Uplink, _, Op::Request) => turn.count("dhcp-request-on-uplink"),
            (Side::Wired, _, Op::Request) | (Side::Uplink, _, Op::Reply) => {
                turn.count("dhcp-other")
            }
        }
    }

    fn handle_request(
        &mut self,
        turn: &mut Turn<'_>,
        station: MacAddr,
        to: Ipv4Addr,
        message: &Dhcp<'_>,
    ) {
        let bridge = turn.bridge;
        if ![bridge.address, bridge.broadcast(), Ipv4Addr::BROADCAST].contains(&to) {
            turn.count("dhcp-routed");
            return;
        }
        if let Some(reason) = self.refusal(turn, message) {
            turn.count(reason);
            return;
        }
        if !self.pace.allows(station, turn.now) {
            turn.count("dhcp-request-capped");
            return;
        }
        self.remember(message, turn.now);
        debug!(kind = ?message.message_type(), secs = message.secs(), "DHCP request relayed");
        turn.count("dhcp-request-relayed");
        let from = SocketAddrV4::new(bridge.address, SERVER_PORT);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
        let bytes = message.forwarded(bridge.address);
        turn.send_udp(Side::Uplink, from, (MacAddr::broadcast(), to), &bytes);
    }

    /// Returns why a request is not relayed (D1, D2).
    fn refusal(&self, turn: &Turn<'_>, message: &Dhcp<'_>) -> Option<&'static str> {
        let first_relay = message.giaddr().is_unspecified();
        if self.port_taken {
            Some("dhcp-port-taken")
        } else if message.hops() >= self.max_hops {
            Some("dhcp-too-many-hops")
        } else if message.giaddr() == turn.bridge.address {
            Some("dhcp-own-giaddr")
        } else if first_relay && message.has_relay_information() {
            Some("dhcp-untrusted-option-82")
        } else {
            None
        }
    }

    fn remember(&mut self, message: &Dhcp<'_>, now: Instant) {
        let key = (message.xid(), message.chaddr());
        if self.transactions.len() >= MOST_TRANSACTIONS && !self.transactions.contains_key(&key) {
            let oldest = self
                .transactions
                .iter()
                .min_by_key(|(_, pending)| pending.until)
                .map(|(key, _)| *key);
            oldest.map(|key| self.transactions.remove(&key));
        }
        let pending = Pending {
            until: now + TRANSACTION_LASTS,
            replies_left: MOST_REPLIES,
        };
        self.transactions.insert(key, pending);
    }

    fn handle_reply(&mut self, turn: &mut Turn<'_>, hosts: &mut Hosts, message: &Dhcp<'_>) {
        if message.giaddr() != turn.bridge.address {
            turn.count("dhcp-foreign-giaddr");
            return;
        }
        let key = (message.xid(), message.chaddr());
        let pending = self.transactions.get_mut(&key);
        let Some(pending) = pending.filter(|pending| pending.until > turn.now) else {
            turn.count("dhcp-reply-unasked");
            return;
        };
        if pending.replies_left == 0 {
            turn.count("dhcp-reply-capped");
            return;
        }
        pending.replies_left -= 1;
        take_reply(turn, hosts, message);
        debug!(kind = ?message.message_type(), "DHCP reply delivered");
        turn.count("dhcp-reply-delivered");
        deliver(turn, message);
    }

    /// Forgets all conversations, because the address they were held under is gone.
    pub(crate) fn clear(&mut self) {
        self.transactions.clear();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.transactions
            .values()
            .map(|pending| pending.until)
            .min()
    }

    /// Forgets conversations that are over.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.transactions.retain(|_, pending| pending.until > now);
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.transactions.len()
    }
}

/// Takes what a relayed reply says about the client's address (D6).
fn take_reply(turn: &mut Turn<'_>, hosts: &mut Hosts, message: &Dhcp<'_>) {
    let address = message.yiaddr();
    let Some(mac) = message.client_mac().filter(|_| !address.is_unspecified()) else {
        return;
    };
    match (message.message_type(), message.lease_time()) {
        (MessageType::Offer, _) => hosts.offer(turn, address, mac),
        (MessageType::Ack, Some(seconds)) => hosts.lease(turn, address, mac, lease(seconds)),
        // An acknowledgement without a lease answers an INFORM; nothing else says where a client is.
        (_, _) => {}
    }
}

/// Sends a reply to the client as a frame (D4).
fn deliver(turn: &mut Turn<'_>, message: &Dhcp<'_>) {
    let by_broadcast = message.broadcast_flag()
        || message.yiaddr().is_unspecified()
        || message.message_type() == MessageType::Nak;
    let (mac, address) = match message.client_mac() {
        Some(mac) if !by_broadcast => (mac, message.yiaddr()),
        Some(_) | None => (MacAddr::broadcast(), Ipv4Addr::BROADCAST),
    };
    let server = message
        .server_identifier()
        .filter(|server| !server.is_unspecified());
    let from = SocketAddrV4::new(server.unwrap_or(turn.bridge.address), SERVER_PORT);
    let to = (mac, SocketAddrV4::new(address, CLIENT_PORT));
    turn.send_udp(Side::Wired, from, to, &message.padded());
}

/// Takes note of an address given up, whichever way the message goes. A station speaks for itself alone.
fn watch_request(hosts: &mut Hosts, station: MacAddr, message: &Dhcp<'_>) {
    let Some(mac) = message.client_mac().filter(|mac| *mac == station) else {
        return;
    };
    match message.message_type() {
        MessageType::Release => hosts.release(message.ciaddr(), mac),
        MessageType::Decline => {
            if let Some(address) = message.requested_address() {
                hosts.release(address, mac);
            }
        }
        MessageType::Discover
        | MessageType::Offer
        | MessageType::Request
        | MessageType::Ack
        | MessageType::Nak
        | MessageType::Inform
        | MessageType::Other => {}
    }
}

/// Takes note of a lease renewed past the relay.
fn watch_reply(turn: &mut Turn<'_>, hosts: &mut Hosts, to: Ipv4Addr, message: &Dhcp<'_>) {
    if let (MessageType::Ack, Some(mac), Some(seconds)) = (
        message.message_type(),
        message.client_mac(),
        message.lease_time(),
    ) && to == message.yiaddr()
    {
        turn.count("dhcp-renewal-seen");
        hosts.renew(to, mac, turn.now + lease(seconds));
    }
}

fn lease(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds)).min(LONGEST_LEASE)
}

//! The DHCP relay (RFC 1542, 2131, 3046): clients on the wire, servers on the uplink.
//!
//! A client's message goes out on the uplink in the way that the ladder chooses (`dhcp_ladder`, `dhcp_crossing`). Answers are
//! frames on the wire to the client's hardware address (D4), because a client without an address cannot be routed to.
//! Messages between a client that has its address and its server pass through the kernel; they are only watched, for leases
//! and releases (D7).
//!
//! How long a lease lasts is not kept over a restart. A host that is taken over is there or not by its own answers, and its
//! next renewal, which is at half its time, says how long it has.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tracing::{debug, trace};

use crate::addr::{MacAddr, Side};
use crate::wire::dhcp::{self, Dhcp, MessageType, Op};
use crate::wire::udp::Datagram;

use super::DhcpSettings;
use super::dhcp_admission::{Admission, Rank};
use super::dhcp_crossing::{self as crossing, CLIENT_PORT, Crossing, Request, SERVER_PORT, Way};
use super::dhcp_ladder::{Ladder, Network};
use super::dhcp_renewals::Renewals;
use super::dhcp_transactions::{Pending, Transactions, Unwelcome};
use super::host::Place;
use super::hosts::Hosts;
use super::link::Bridge;
use super::secrets::{Secret, Secrets};
use super::turn::Turn;

/// Longest lease believed, so that "for ever" is a time like any other.
const LONGEST_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a server that cannot tell clients apart by option 61 is complained of.
const COMPLAIN: Duration = Duration::from_secs(300);

/// The relay.
#[derive(Debug)]
pub(crate) struct DhcpRelay {
    settings: DhcpSettings,
    numbers: Secret,
    /// Another program has port 67; two relays or a relay beside a server would answer twice.
    pub(crate) port_taken: bool,
    pub(crate) ladder: Ladder,
    transactions: Transactions,
    renewals: Renewals,
    admission: Admission,
    /// When a server gave our own address to a client that bore our hardware address.
    mistaken: Option<Instant>,
}

impl DhcpRelay {
    pub(crate) fn new(settings: DhcpSettings, secrets: &Secrets) -> DhcpRelay {
        DhcpRelay {
            numbers: secrets.dhcp_numbers,
            port_taken: false,
            ladder: Ladder::new(settings.mode),
            transactions: Transactions::default(),
            renewals: Renewals::default(),
            admission: Admission::new(secrets.dhcp_admission),
            mistaken: None,
            settings,
        }
    }

    /// Takes other settings; what was learned of servers under another mode counts for nothing.
    pub(crate) fn configure(&mut self, settings: DhcpSettings) {
        if settings.mode != self.settings.mode {
            self.ladder = Ladder::new(settings.mode);
        }
        self.settings = settings;
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
                watch_request(turn, hosts, from.mac, &message);
                self.handle_request(turn, hosts, from.mac, to, &message);
            }
            (Side::Uplink, SERVER_PORT, Op::Reply) if to == turn.bridge.address => {
                self.handle_reply(turn, hosts, &message);
            }
            (Side::Uplink, CLIENT_PORT, Op::Reply) if self.is_ours(turn, &message) => {
                self.handle_reply(turn, hosts, &message);
            }
            (Side::Uplink, CLIENT_PORT, Op::Reply) => self.watch_reply(turn, hosts, to, &message),
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
        hosts: &mut Hosts,
        station: MacAddr,
        to: Ipv4Addr,
        message: &Dhcp<'_>,
    ) {
        let bridge = turn.bridge;
        if ![bridge.address, bridge.broadcast(), Ipv4Addr::BROADCAST].contains(&to) {
            turn.count("dhcp-routed");
            return self.watch_renewal(turn, hosts, station, message);
        }
        if let Some(reason) = self.refusal(turn, message) {
            turn.count(reason);
            return;
        }
        if self.admission.refuses(station, turn.now) {
            turn.count("dhcp-request-capped");
            return;
        }
        let rank = self.rank(turn, hosts, station, message);
        let Some(rank) = self.admission.admit(station, rank, turn.now) else {
            turn.count("dhcp-request-capped");
            return;
        };
        debug!(kind = ?message.message_type(), secs = message.secs(), "DHCP request relayed");
        turn.count("dhcp-request-relayed");
        if !message.giaddr().is_unspecified() {
            let from = SocketAddrV4::new(bridge.address, SERVER_PORT);
            send_to_servers(turn, from, &crossing::pass_on(message));
        } else if let Some(request) = self.cross(turn, hosts, message) {
            let pending = Pending::new(request.crossing, station, rank, turn.now);
            self.transactions.expect(request.key, pending);
            send_to_servers(turn, request.from, &request.bytes);
        } else {
            turn.count("dhcp-not-cloned");
        }
    }

    /// Returns the request in the form in which it is sent; `None` where a client cannot be given our hardware address.
    fn cross(&mut self, turn: &mut Turn<'_>, hosts: &Hosts, message: &Dhcp<'_>) -> Option<Request> {
        let (network, now) = (network(&turn.bridge, hosts), turn.now);
        let (client, kind) = (message.chaddr(), message.message_type());
        let way = match expects_answer(kind) {
            true => self.ladder.choose(network, client, kind, now),
            false => self.ladder.present(network, client),
        };
        match way {
            Way::Relay => Some(crossing::relay(turn, message, &self.settings.circuit_id)),
            Way::Broadcast => Some(crossing::broadcast(message, self.numbers)),
            Way::Clone => crossing::clone(&turn.bridge, message, self.numbers),
        }
    }

    /// Returns why a request is not relayed (D1, D2).
    fn refusal(&self, turn: &Turn<'_>, message: &Dhcp<'_>) -> Option<&'static str> {
        let first_relay = message.giaddr().is_unspecified();
        let untrusted = first_relay && !self.settings.trust_option_82;
        if self.port_taken {
            Some("dhcp-port-taken")
        } else if message.hops() >= self.settings.max_hops {
            Some("dhcp-too-many-hops")
        } else if message.giaddr() == turn.bridge.address {
            Some("dhcp-own-giaddr")
        } else if untrusted && message.has_relay_information() {
            Some("dhcp-untrusted-option-82")
        } else if message.client_mac() == Some(turn.bridge.uplink.mac) {
            // Its replies would be those of our own client on the uplink.
            Some("dhcp-own-chaddr")
        } else {
            None
        }
    }

    /// Returns what speaks for a station, besides its patience.
    fn rank(&self, turn: &Turn<'_>, hosts: &Hosts, station: MacAddr, message: &Dhcp<'_>) -> Rank {
        let place = Place {
            mac: station,
            side: Side::Wired,
        };
        if message.client_mac() != Some(station) {
            Rank::ForOthers
        } else if hosts.has_any_at(place) {
            Rank::Known
        } else if self.transactions.is_answered(station, turn.now) {
            Rank::Returning
        } else {
            Rank::New
        }
    }

    /// Returns whether a reply to a client's port answers a request that we sent, and how we sent it (D3).
    fn is_ours(&self, turn: &Turn<'_>, message: &Dhcp<'_>) -> bool {
        let key = (message.xid(), message.chaddr());
        let pending = self.transactions.find(&key, turn.now);
        pending.is_some_and(|pending| giaddr_of(pending.crossing.way, turn) == message.giaddr())
    }

    fn handle_reply(&mut self, turn: &mut Turn<'_>, hosts: &mut Hosts, message: &Dhcp<'_>) {
        let key = (message.xid(), message.chaddr());
        let pending = self.transactions.find(&key, turn.now);
        // What is refused here must not count as one of the few replies that are believed.
        if let Some(way) = pending.map(|pending| pending.crossing.way)
            && !self.fits(turn, way, message)
        {
            return;
        }
        let crossing = match self.transactions.take(&key, message, turn.now) {
            Ok(crossing) => crossing,
            Err(reason) => {
                turn.count(match reason {
                    Unwelcome::Unasked => "dhcp-reply-unasked",
                    Unwelcome::Capped => "dhcp-reply-capped",
                    Unwelcome::Duplicate => "dhcp-reply-duplicate",
                });
                return;
            }
        };
        let network = network(&turn.bridge, hosts);
        let server = message.server_identifier();
        self.ladder
            .take_answer(network, crossing.chaddr, crossing.way, server, turn.now);
        hand_over(turn, hosts, &crossing, message);
    }

    /// Returns whether a reply can be one to a request that crossed in a way.
    fn fits(&mut self, turn: &mut Turn<'_>, way: Way, message: &Dhcp<'_>) -> bool {
        if giaddr_of(way, turn) != message.giaddr() {
            turn.count("dhcp-foreign-giaddr");
            return false;
        }
        let mistaken = way == Way::Clone && message.yiaddr() == turn.bridge.address;
        if mistaken {
            turn.count("dhcp-clone-mistaken");
            self.mistaken = Some(turn.now);
        }
        !mistaken
    }

    /// Takes note of a renewal that is asked for past the relay: its acknowledgement is expected. A station speaks for itself
    /// alone, and for the address that it has.
    fn watch_renewal(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        station: MacAddr,
        message: &Dhcp<'_>,
    ) {
        let (side, address) = (Side::Wired, message.ciaddr());
        let place = Place { mac: station, side };
        let is_its_own = hosts.find(address).is_some_and(|host| host.place == place);
        if message.message_type() == MessageType::Request
            && message.client_mac() == Some(station)
            && is_its_own
        {
            let key = (message.xid(), message.chaddr());
            if let Some(lease_end) = self.renewals.ask(address, key, turn.now) {
                turn.count("dhcp-renewal-seen");
                hosts.renew(address, station, lease_end);
            }
        }
    }

    /// Takes note of a lease renewed past the relay (D7), if its client asked for that (D3).
    fn watch_reply(
        &mut self,
        turn: &mut Turn<'_>,
        hosts: &mut Hosts,
        to: Ipv4Addr,
        message: &Dhcp<'_>,
    ) {
        let (MessageType::Ack, Some(mac), Some(seconds)) = (
            message.message_type(),
            message.client_mac(),
            message.lease_time(),
        ) else {
            return;
        };
        let key = (message.xid(), message.chaddr());
        let lease_end = turn.now + lease(seconds);
        if to == message.yiaddr() && self.renewals.acknowledge(to, key, lease_end, turn.now) {
            turn.count("dhcp-renewal-seen");
            hosts.renew(to, mac, lease_end);
        } else {
            turn.count("dhcp-renewal-unasked");
        }
    }

    /// Returns whether a server gave our own address to a client, lately.
    pub(crate) fn clone_is_mistaken(&self, now: Instant) -> bool {
        self.mistaken.is_some_and(|at| at + COMPLAIN > now)
    }

    /// Forgets all conversations, because the address they were held under is gone.
    pub(crate) fn clear(&mut self) {
        self.transactions.clear();
        self.renewals.clear();
        self.ladder.clear();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.transactions.next_deadline()
    }

    /// Forgets conversations that are over.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.transactions.handle_tick(now);
        self.renewals.handle_tick(now);
        self.ladder.handle_tick(now);
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn size(&self) -> usize {
        assert!(self.ladder.is_bounded());
        assert!(self.renewals.is_bounded());
        self.transactions.size()
    }
}

/// Returns how the network of the uplink is recognised. It is the same one while its gateway is silent.
pub(crate) fn network(bridge: &Bridge, hosts: &Hosts) -> Network {
    let gateway = bridge.gateway.and_then(|gateway| hosts.find(gateway));
    let gateway = gateway.map(|host| host.place.mac);
    Network {
        subnet: (bridge.network(), bridge.prefix),
        gateway: gateway.or(hosts.gateway().mac()),
    }
}

/// Returns whether silence means anything: what a client gives up is never answered.
fn expects_answer(kind: MessageType) -> bool {
    match kind {
        MessageType::Discover | MessageType::Request | MessageType::Inform | MessageType::Other => {
            true
        }
        MessageType::Decline
        | MessageType::Release
        | MessageType::Offer
        | MessageType::Ack
        | MessageType::Nak => false,
    }
}

/// Returns the giaddr of a reply to a request that crossed in a way.
fn giaddr_of(way: Way, turn: &Turn<'_>) -> Ipv4Addr {
    match way {
        Way::Relay => turn.bridge.address,
        Way::Broadcast | Way::Clone => Ipv4Addr::UNSPECIFIED,
    }
}

fn send_to_servers(turn: &mut Turn<'_>, from: SocketAddrV4, bytes: &[u8]) {
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    turn.send_udp(Side::Uplink, from, (MacAddr::broadcast(), to), bytes);
}

/// Gives a reply to its client as if no relay had been between, once there is a route to the client (D6).
fn hand_over(turn: &mut Turn<'_>, hosts: &mut Hosts, crossing: &Crossing, reply: &Dhcp<'_>) {
    let bytes = crossing.undo(reply);
    let Ok(message) = dhcp::decode(&bytes) else {
        // What was taken out may have been the half of something.
        turn.count("dhcp-malformed");
        return;
    };
    if !take_reply(turn, hosts, &message) {
        // The client asks again, and by then there may be room.
        turn.count("dhcp-ack-withheld");
        return;
    }
    debug!(kind = ?message.message_type(), "DHCP reply delivered");
    turn.count("dhcp-reply-delivered");
    deliver(turn, &message);
}

/// Takes what a relayed reply says about the client's address (D6). Returns whether the reply may be delivered.
fn take_reply(turn: &mut Turn<'_>, hosts: &mut Hosts, message: &Dhcp<'_>) -> bool {
    let address = message.yiaddr();
    let Some(mac) = message.client_mac().filter(|_| !address.is_unspecified()) else {
        return true;
    };
    match message.message_type() {
        MessageType::Offer => {
            hosts.offer(turn, address, mac);
            true
        }
        // Without a lease, it answers an INFORM.
        MessageType::Ack => message
            .lease_time()
            .is_none_or(|seconds| hosts.lease(turn, address, mac, lease(seconds))),
        MessageType::Discover
        | MessageType::Request
        | MessageType::Decline
        | MessageType::Nak
        | MessageType::Release
        | MessageType::Inform
        | MessageType::Other => true,
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
    turn.send_udp(Side::Wired, from, to, message.bytes());
}

/// Takes note of an address given up, whichever way the message goes. A station speaks for itself alone.
fn watch_request(turn: &Turn<'_>, hosts: &mut Hosts, station: MacAddr, message: &Dhcp<'_>) {
    let Some(mac) = message.client_mac().filter(|mac| *mac == station) else {
        return;
    };
    match message.message_type() {
        MessageType::Release => hosts.release(message.ciaddr(), mac, turn.now),
        MessageType::Decline => {
            if let Some(address) = message.requested_address() {
                hosts.release(address, mac, turn.now);
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

fn lease(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds)).min(LONGEST_LEASE)
}

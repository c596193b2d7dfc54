//! Discovery protocols on the wire: which frame belongs to which, and how it is said again on another segment.
//!
//! mDNS (RFC 6762), SSDP and WS-Discovery are UDP to a multicast group; NetBIOS names and datagrams (RFC 1002) and magic
//! packets are broadcasts. Magic packets are also frames of a type of their own. What is said again is the packet as it was,
//! behind another Ethernet header: addresses, ports, time to live and payload stay.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use pnet_base::MacAddr;
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::udp::{self, UdpPacket};

use super::ethernet::{self, Frame};
use super::ipv4::{self, Packet};
use super::mdns;

const UDP_HEADER: usize = 8;
const UDP_CHECKSUM_AT: usize = 6;

/// A discovery protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Multicast DNS.
    Mdns,
    /// The simple service discovery protocol of UPnP.
    Ssdp,
    /// WS-Discovery.
    WsDiscovery,
    /// Magic packets.
    WakeOnLan,
    /// NetBIOS name and datagram service.
    Netbios,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] = [
        Protocol::Mdns,
        Protocol::Ssdp,
        Protocol::WsDiscovery,
        Protocol::WakeOnLan,
        Protocol::Netbios,
    ];

    /// Returns the group that the protocol speaks to; none if it broadcasts.
    pub const fn group(self) -> Option<Ipv4Addr> {
        match self {
            Protocol::Mdns => Some(mdns::GROUP),
            Protocol::Ssdp | Protocol::WsDiscovery => Some(Ipv4Addr::new(239, 255, 255, 250)),
            Protocol::WakeOnLan | Protocol::Netbios => None,
        }
    }

    /// Returns the UDP ports that the protocol speaks to.
    pub const fn ports(self) -> &'static [u16] {
        match self {
            Protocol::Mdns => &[mdns::PORT],
            Protocol::Ssdp => &[1900],
            Protocol::WsDiscovery => &[3702],
            Protocol::WakeOnLan => &[7, 9],
            Protocol::Netbios => &[137, 138],
        }
    }

    fn of_port(port: u16) -> Option<Protocol> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.ports().contains(&port))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Mdns => "mDNS",
            Protocol::Ssdp => "SSDP",
            Protocol::WsDiscovery => "WS-Discovery",
            Protocol::WakeOnLan => "Wake-on-LAN",
            Protocol::Netbios => "NetBIOS",
        })
    }
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message, or as much of one as its first fragment has.
    Message(Message<'a>),
    /// A later fragment of something said to a protocol's group.
    Fragment(Fragment<'a>),
}

/// A message of a discovery protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The protocol.
    pub protocol: Protocol,
    /// Who spoke to whom; a magic packet in a frame of its own says neither.
    pub datagram: Option<Addressed>,
    /// What the later fragments will be known by, if there are any.
    pub fragmented: Option<FragmentKey>,
    /// What was said.
    pub payload: &'a [u8],
    said: Said<'a>,
}

/// The addresses of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// From whom.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
}

/// A later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// What it has in common with the others.
    pub key: FragmentKey,
    said: Said<'a>,
}

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentKey {
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// The packet's number.
    pub id: u16,
}

/// The bytes behind the Ethernet header, and what has to be done to say them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<'a> {
    ether_type: u16,
    to: MacAddr,
    bytes: &'a [u8],
    /// Where a checksum is to be filled in, and which.
    checksum: Option<(usize, u16)>,
}

/// Why a frame was refused that was meant for discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Shorter than its UDP header or its length says.
    #[error("datagram is shorter than its header says")]
    Short,
    /// The UDP checksum is wrong.
    #[error("UDP checksum is wrong")]
    Checksum,
    /// Nobody is woken by it.
    #[error("no magic packet is inside")]
    NoMagic,
}

impl Heard<'_> {
    /// Encodes it for another segment, as sent by `from`.
    pub fn encode(&self, from: MacAddr) -> Vec<u8> {
        match self {
            Heard::Message(message) => message.said.encode(from),
            Heard::Fragment(fragment) => fragment.said.encode(from),
        }
    }
}

impl Said<'_> {
    fn encode(&self, from: MacAddr) -> Vec<u8> {
        let mut frame = ethernet::encode(self.to, from, self.ether_type, self.bytes);
        if let Some((at, checksum)) = self.checksum {
            let at = ethernet::HEADER_LEN + at;
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        frame
    }
}

/// Decodes a frame; `None` if it is no discovery protocol's.
pub fn decode<'a>(frame: &Frame<'a>) -> Result<Option<Heard<'a>>, DiscoveryError> {
    match frame.ether_type {
        ethernet::TYPE_WAKE_ON_LAN => decode_magic_frame(frame.payload).map(Some),
        // Whether a broken packet was meant for discovery, nobody can say.
        ethernet::TYPE_IPV4 => match ipv4::decode(frame.payload) {
            Ok(packet) => decode_ipv4(frame, &packet),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

fn decode_magic_frame(payload: &[u8]) -> Result<Heard<'_>, DiscoveryError> {
    if !has_magic(payload) {
        return Err(DiscoveryError::NoMagic);
    }
    Ok(Heard::Message(Message {
        protocol: Protocol::WakeOnLan,
        datagram: None,
        fragmented: None,
        payload,
        said: Said {
            ether_type: ethernet::TYPE_WAKE_ON_LAN,
            to: MacAddr::broadcast(),
            bytes: payload,
            checksum: None,
        },
    }))
}

fn decode_ipv4<'a>(
    frame: &Frame<'a>,
    packet: &Packet<'a>,
) -> Result<Option<Heard<'a>>, DiscoveryError> {
    if packet.protocol != IpNextHeaderProtocols::Udp.0 {
        return Ok(None);
    }
    let destination = packet.destination;
    let to_group = Protocol::ALL
        .iter()
        .any(|protocol| protocol.group() == Some(destination));
    if !to_group && frame.destination != MacAddr::broadcast() {
        return Ok(None);
    }
    let mut said = Said {
        ether_type: ethernet::TYPE_IPV4,
        to: group_mac(destination),
        bytes: packet.bytes,
        checksum: None,
    };
    let key = FragmentKey {
        source: packet.source,
        destination,
        id: packet.id,
    };
    if packet.later_fragment {
        return Ok(to_group.then_some(Heard::Fragment(Fragment { key, said })));
    }
    let udp = UdpPacket::new(packet.payload).ok_or(DiscoveryError::Short)?;
    let meant = |protocol: &Protocol| match protocol.group() {
        Some(group) => group == destination,
        None => !to_group && !packet.more_fragments,
    };
    let Some(protocol) = Protocol::of_port(udp.get_destination()).filter(meant) else {
        return Ok(None);
    };
    let payload = match packet.more_fragments {
        true => &packet.payload[UDP_HEADER..],
        false => whole_payload(&udp, packet, &mut said)?,
    };
    if protocol == Protocol::WakeOnLan && !has_magic(payload) {
        return Err(DiscoveryError::NoMagic);
    }
    Ok(Some(Heard::Message(Message {
        protocol,
        datagram: Some(Addressed {
            source: SocketAddrV4::new(packet.source, udp.get_source()),
            destination,
            ttl: packet.ttl,
        }),
        fragmented: packet.more_fragments.then_some(key),
        payload,
        said,
    })))
}

/// Returns the payload of a datagram that came in one piece, its checksum verified. The sum of a packet from the same machine
/// (a veth pair) is left to the card, which is to find that of the pseudo header in its place; then it is noted to be filled in.
fn whole_payload<'a>(
    udp: &UdpPacket<'_>,
    packet: &Packet<'a>,
    said: &mut Said<'a>,
) -> Result<&'a [u8], DiscoveryError> {
    let length = usize::from(udp.get_length());
    let segment = packet
        .payload
        .get(..length)
        .filter(|segment| segment.len() >= UDP_HEADER)
        .ok_or(DiscoveryError::Short)?;
    let exact = UdpPacket::new(segment).ok_or(DiscoveryError::Short)?;
    let found = exact.get_checksum();
    let sum = udp::ipv4_checksum(&exact, &packet.source, &packet.destination);
    // Zero on the wire says "no checksum"; a sum of zero is sent as its other representation.
    let right = if sum == 0 { 0xffff } else { sum };
    if found != 0 && found != right {
        if found != pseudo_header_sum(packet, udp.get_length()) {
            return Err(DiscoveryError::Checksum);
        }
        let header = packet.bytes.len() - packet.payload.len();
        said.checksum = Some((header + UDP_CHECKSUM_AT, right));
    }
    Ok(&segment[UDP_HEADER..])
}

fn pseudo_header_sum(packet: &Packet<'_>, length: u16) -> u16 {
    let words = |address: Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]))
    };
    let sum = words(packet.source)
        + words(packet.destination)
        + u32::from(packet.protocol)
        + u32::from(length);
    let folded = (sum & 0xffff) + (sum >> 16);
    // Six words of 16 bits carry at most twice.
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Returns the hardware address that everybody hears who is meant (RFC 1112).
pub fn group_mac(destination: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = destination.octets();
    if destination.is_multicast() {
        MacAddr(0x01, 0x00, 0x5e, b & 0x7f, c, d)
    } else {
        MacAddr::broadcast()
    }
}

/// Whether somebody is woken: six octets of ones, then an address sixteen times, anywhere.
fn has_magic(payload: &[u8]) -> bool {
    const ADDRESS: usize = 6;
    const TIMES: usize = 16;
    payload.windows(ADDRESS * (1 + TIMES)).any(|window| {
        let (ones, rest) = window.split_at(ADDRESS);
        ones.iter().all(|&octet| octet == 0xff)
            && rest.chunks(ADDRESS).all(|chunk| chunk == &rest[..ADDRESS])
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::udp as wire_udp;

    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
    const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 3);
    const CHECKSUM: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + UDP_CHECKSUM_AT;

    fn frame(to: &str, payload: &[u8]) -> Vec<u8> {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 40000);
        let to: SocketAddrV4 = to.parse().unwrap();
        wire_udp::encode((A, from), (group_mac(*to.ip()), to), payload).unwrap()
    }

    fn magic() -> Vec<u8> {
        [&[1, 2][..], &[0xff; 6], &A.octets().repeat(16), &[7; 6]].concat()
    }

    fn summary(bytes: &[u8]) -> String {
        match decode(&ethernet::decode(bytes).unwrap()) {
            Ok(Some(heard @ Heard::Message(message))) => {
                let again = heard.encode(US);
                let length = ethernet::HEADER_LEN + message.said.bytes.len();
                assert_eq!(again[..6], bytes[..6]);
                assert_eq!(again[6..12], US.octets());
                assert_eq!(again[12..], bytes[12..length]);
                format!("{}, {} octets", message.protocol, message.payload.len())
            }
            Ok(Some(Heard::Fragment(fragment))) => format!("{:?}", fragment.key),
            Ok(None) => "nothing".to_owned(),
            Err(reason) => reason.to_string(),
        }
    }

    fn check(bytes: &[u8], expected: &Expect) {
        expected.assert_eq(&summary(bytes));
    }

    #[test]
    fn protocols_are_told_apart() {
        let cases = [
            ("224.0.0.251:5353", expect!["mDNS, 108 octets"]),
            ("239.255.255.250:1900", expect!["SSDP, 108 octets"]),
            ("239.255.255.250:3702", expect!["WS-Discovery, 108 octets"]),
            ("10.0.0.255:137", expect!["NetBIOS, 108 octets"]),
            ("255.255.255.255:138", expect!["NetBIOS, 108 octets"]),
            ("255.255.255.255:9", expect!["Wake-on-LAN, 108 octets"]),
            ("10.0.0.255:7", expect!["Wake-on-LAN, 108 octets"]),
            ("239.255.255.250:5353", expect!["nothing"]),
            ("224.0.0.251:9", expect!["nothing"]),
            ("255.255.255.255:5353", expect!["nothing"]),
            ("255.255.255.255:67", expect!["nothing"]),
        ];
        let payload = &magic()[..108];
        for (to, expected) in cases {
            check(&frame(to, payload), &expected);
        }
        let mut padded = frame("224.0.0.251:5353", b"short");
        padded.resize(60, 0);
        check(&padded, &expect!["mDNS, 5 octets"]);
        let kind = ethernet::TYPE_WAKE_ON_LAN;
        let bytes = ethernet::encode(MacAddr::broadcast(), A, kind, &magic());
        check(&bytes, &expect!["Wake-on-LAN, 110 octets"]);
    }

    #[test]
    fn refusals_name_their_reason() {
        check(
            &frame("255.255.255.255:9", &magic()[..103]),
            &expect!["no magic packet is inside"],
        );
        let mut bytes = frame("224.0.0.251:5353", b"hello");
        bytes[CHECKSUM] ^= 1;
        check(&bytes, &expect!["UDP checksum is wrong"]);
        bytes[CHECKSUM - 2] = 9;
        check(&bytes, &expect!["datagram is shorter than its header says"]);
        let kind = ethernet::TYPE_WAKE_ON_LAN;
        let bytes = ethernet::encode(MacAddr::broadcast(), A, kind, &[0xff; 50]);
        check(&bytes, &expect!["no magic packet is inside"]);
    }

    #[test]
    fn a_checksum_left_to_the_card_is_filled_in() {
        let whole = frame("224.0.0.251:5353", b"hello");
        let mut unfinished = whole.clone();
        let packet = ipv4::decode(&whole[ethernet::HEADER_LEN..]).unwrap();
        let partial = pseudo_header_sum(&packet, 13);
        unfinished[CHECKSUM..CHECKSUM + 2].copy_from_slice(&partial.to_be_bytes());
        let heard = decode(&ethernet::decode(&unfinished).unwrap()).unwrap();
        assert_eq!(heard.unwrap().encode(A), whole);
        let mut without = whole;
        without[CHECKSUM..CHECKSUM + 2].fill(0);
        check(&without, &expect!["mDNS, 5 octets"]);
    }

    proptest! {
        #[test]
        fn decode_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
            let kind = if magic { ethernet::TYPE_WAKE_ON_LAN } else { ethernet::TYPE_IPV4 };
            let bytes = ethernet::encode(MacAddr::broadcast(), A, kind, &payload);
            let _ = decode(&ethernet::decode(&bytes).unwrap());
        }

        #[test]
        fn decode_never_panics_on_what_looks_right(
            at in proptest::collection::vec((14usize..70, any::<u8>()), 0..4), length in 14usize..80, port in 0usize..7
        ) {
            let ports: Vec<(Protocol, u16)> =
                Protocol::ALL.iter().flat_map(|p| p.ports().iter().map(|port| (*p, *port))).collect();
            let (protocol, port) = ports[port];
            let to = protocol.group().unwrap_or(Ipv4Addr::BROADCAST);
            let mut bytes = frame(&format!("{to}:{port}"), b"some words that are long enough");
            for (at, octet) in at {
                bytes[at.min(72)] = octet;
            }
            bytes.truncate(length);
            let header = bytes.get_mut(14..34);
            if let Some(mut packet) = header.and_then(pnet_packet::ipv4::MutableIpv4Packet::new) {
                let sum = pnet_packet::ipv4::checksum(&packet.to_immutable());
                packet.set_checksum(sum);
            }
            let _ = decode(&ethernet::decode(&bytes).unwrap());
        }
    }
}

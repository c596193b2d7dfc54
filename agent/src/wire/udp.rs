//! UDP in IPv4 in Ethernet (RFC 768, 791), as much of it as DHCP needs.
//!
//! Fragments are refused: a DHCP message of any size in use fits one frame. The IPv4 header checksum is verified. The UDP
//! checksum is not: a packet from the same machine (a veth pair) is seen before anything has filled it in.
//!
//! ```text
//!  0    1     2        4        6        8     9      10        12        16        20 (ihl * 4)
//! +----+-----+--------+--------+--------+-----+------+---------+---------+---------+--------
//! |4|ihl| tos| length | id     |flg|frag| ttl | 17   | checksum| source  | dest    | options
//! +----+-----+--------+--------+--------+-----+------+---------+---------+---------+--------
//! | source port | dest port | length | checksum | payload
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use pnet_base::MacAddr;
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, Ipv4Flags, MutableIpv4Packet};
use pnet_packet::udp::{self, MutableUdpPacket, UdpPacket};

use super::ethernet::{self, Frame};
use super::ipv4::{HEADER_LEN as IP_HEADER, Ipv4Error};

const UDP_HEADER: usize = 8;
const TTL: u8 = 64;

/// A decoded datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// The UDP payload, without the frame's padding.
    pub payload: &'a [u8],
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The packet is broken.
    #[error(transparent)]
    Packet(#[from] Ipv4Error),
    /// Shorter than its UDP header or its length says.
    #[error("datagram is shorter than its header says")]
    Short,
    /// A fragment.
    #[error("packet is a fragment")]
    Fragment,
    /// Another protocol than UDP.
    #[error("packet is not UDP")]
    NotUdp,
}

/// Decodes the datagram of an IPv4 frame.
pub fn decode<'a>(frame: &Frame<'a>) -> Result<Datagram<'a>, UdpError> {
    let packet = super::ipv4::decode(frame.payload)?;
    if packet.later_fragment || packet.more_fragments {
        return Err(UdpError::Fragment);
    }
    if packet.protocol != IpNextHeaderProtocols::Udp.0 {
        return Err(UdpError::NotUdp);
    }
    let segment = packet.payload;
    let udp = UdpPacket::new(segment).ok_or(UdpError::Short)?;
    let length = usize::from(udp.get_length());
    if length < UDP_HEADER {
        return Err(UdpError::Short);
    }
    Ok(Datagram {
        source: SocketAddrV4::new(packet.source, udp.get_source()),
        destination: SocketAddrV4::new(packet.destination, udp.get_destination()),
        payload: segment.get(UDP_HEADER..length).ok_or(UdpError::Short)?,
    })
}

/// Encodes a datagram as a frame, checksums included; `None` if the payload does not fit an IPv4 packet.
pub fn encode(
    from: (MacAddr, SocketAddrV4),
    to: (MacAddr, SocketAddrV4),
    payload: &[u8],
) -> Option<Vec<u8>> {
    encode_with_ttl(TTL, from, to, payload)
}

/// Encodes it with another time to live than the usual.
pub fn encode_with_ttl(
    ttl: u8,
    (from_mac, from): (MacAddr, SocketAddrV4),
    (to_mac, to): (MacAddr, SocketAddrV4),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let total_length = u16::try_from(IP_HEADER + usize::from(udp_length)).ok()?;
    let mut bytes = vec![0; usize::from(total_length)];
    let (header, segment) = bytes.split_at_mut(IP_HEADER);
    write_ipv4(header, total_length, ttl, (*from.ip(), *to.ip()))?;

    segment[UDP_HEADER..].copy_from_slice(payload);
    let mut packet = MutableUdpPacket::new(segment)?;
    packet.set_source(from.port());
    packet.set_destination(to.port());
    packet.set_length(udp_length);
    let sum = udp::ipv4_checksum(&packet.to_immutable(), from.ip(), to.ip());
    // Zero on the wire says "no checksum"; a sum of zero is sent as its other representation.
    packet.set_checksum(if sum == 0 { 0xffff } else { sum });
    Some(ethernet::encode(
        to_mac,
        from_mac,
        ethernet::TYPE_IPV4,
        &bytes,
    ))
}

fn write_ipv4(
    header: &mut [u8],
    total_length: u16,
    ttl: u8,
    (from, to): (Ipv4Addr, Ipv4Addr),
) -> Option<()> {
    let mut packet = MutableIpv4Packet::new(header)?;
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(total_length);
    packet.set_flags(Ipv4Flags::DontFragment);
    packet.set_ttl(ttl);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Udp);
    packet.set_source(from);
    packet.set_destination(to);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    Some(())
}

#[cfg(test)]
mod tests {
    use pnet_packet::ipv4::Ipv4Packet;
    use proptest::prelude::*;

    use super::*;

    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 67);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);

    fn sample(payload: &[u8]) -> Vec<u8> {
        encode((A, FROM), (MacAddr::broadcast(), TO), payload).unwrap()
    }

    #[test]
    fn refusals_name_their_reason() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(Spoil, UdpError); 8] = [
            (|b| b.truncate(14 + 19), Ipv4Error::Short.into()),
            (|b| b.truncate(14 + 25), Ipv4Error::Short.into()),
            (|b| b[14] = 0x65, Ipv4Error::NotIpv4.into()),
            (|b| b[14] = 0x44, Ipv4Error::NotIpv4.into()),
            (|b| b[24] ^= 1, Ipv4Error::Checksum.into()),
            (|b| b[14 + 25] = 7, UdpError::Short),
            (|b| b[14 + 25] = 200, UdpError::Short),
            (
                |b| {
                    b[20] = 0x20;
                    b[24..26].fill(0);
                    let sum = ipv4::checksum(&Ipv4Packet::new(&b[14..]).unwrap());
                    b[24..26].copy_from_slice(&sum.to_be_bytes());
                },
                UdpError::Fragment,
            ),
        ];
        for (spoil, reason) in cases {
            let mut bytes = sample(&[1, 2, 3, 4]);
            spoil(&mut bytes);
            assert_eq!(decode(&ethernet::decode(&bytes).unwrap()), Err(reason));
        }
    }

    #[test]
    fn too_long_a_payload_is_refused() {
        assert_eq!(encode((A, FROM), (A, TO), &vec![0; 65_536]), None);
        assert_eq!(encode((A, FROM), (A, TO), &vec![0; 65_520]), None);
    }

    proptest! {
        #[test]
        fn decode_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = ethernet::encode(A, A, ethernet::TYPE_IPV4, &payload);
            let _ = decode(&ethernet::decode(&bytes).unwrap());
        }

        #[test]
        fn decode_undoes_encode(payload in proptest::collection::vec(any::<u8>(), 0..600), padding in 0usize..20) {
            let mut bytes = sample(&payload);
            bytes.resize(bytes.len() + padding, 0);
            let datagram = decode(&ethernet::decode(&bytes).unwrap()).unwrap();
            prop_assert_eq!(datagram.payload, &payload[..]);
            prop_assert_eq!((datagram.source, datagram.destination), (FROM, TO));
        }
    }
}

//! IPv4 packets in Ethernet frames (RFC 791): whole ones, and from whom to whom a beginning goes.
//!
//! Of a whole packet the header's checksum is verified, options are skipped, and the frame's padding is cut off; fragments are
//! packets, too. Of traffic that the kernel forwards only the ends are read: neither checksum nor length is checked, because
//! the kernel does, and because a packet on its way through the same machine may have neither yet. What the fields look like
//! is drawn in `udp`.

use std::net::Ipv4Addr;

use pnet_packet::ipv4::{self, Ipv4Flags, Ipv4Packet};

use super::ethernet::{self, Frame};

/// Length of an Ethernet header and the fixed part of an IPv4 header.
pub const HEADERS: usize = 34;
/// Length of the header without options.
pub const HEADER_LEN: usize = 20;

/// A decoded packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Number of the protocol inside.
    pub protocol: u8,
    /// What the fragments of one packet have in common.
    pub id: u16,
    /// Whether the payload does not begin at the packet's beginning.
    pub later_fragment: bool,
    /// Whether the payload does not end at the packet's end.
    pub more_fragments: bool,
    /// What is inside.
    pub payload: &'a [u8],
    /// All of it, header and payload.
    pub bytes: &'a [u8],
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ipv4Error {
    /// Shorter than its header or its length says.
    #[error("packet is shorter than its header says")]
    Short,
    /// Not version 4, or an impossible header length.
    #[error("packet is not IPv4")]
    NotIpv4,
    /// The header checksum is wrong.
    #[error("IPv4 header checksum is wrong")]
    Checksum,
}

/// Decodes the payload of an IPv4 frame.
pub fn decode(bytes: &[u8]) -> Result<Packet<'_>, Ipv4Error> {
    let ip = Ipv4Packet::new(bytes).ok_or(Ipv4Error::Short)?;
    let header = usize::from(ip.get_header_length()) * 4;
    if ip.get_version() != 4 || header < HEADER_LEN {
        return Err(Ipv4Error::NotIpv4);
    }
    let bytes = bytes
        .get(..usize::from(ip.get_total_length()))
        .ok_or(Ipv4Error::Short)?;
    let payload = bytes.get(header..).ok_or(Ipv4Error::Short)?;
    if ip.get_checksum() != ipv4::checksum(&ip) {
        return Err(Ipv4Error::Checksum);
    }
    Ok(Packet {
        source: ip.get_source(),
        destination: ip.get_destination(),
        ttl: ip.get_ttl(),
        protocol: ip.get_next_level_protocol().0,
        id: ip.get_identification(),
        later_fragment: ip.get_fragment_offset() != 0,
        more_fragments: ip.get_flags() & Ipv4Flags::MoreFragments != 0,
        payload,
        bytes,
    })
}

const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// Returns source and destination of the frame's packet, if it is IPv4.
pub fn ends(frame: &Frame<'_>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let is_ipv4 = frame.ether_type == ethernet::TYPE_IPV4;
    let version = frame.payload.first().map(|byte| byte >> 4);
    let address = |at: usize| {
        let octets: [u8; 4] = frame.payload.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    if !is_ipv4 || version != Some(4) {
        return None;
    }
    Some((address(SOURCE)?, address(DESTINATION)?))
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;

    #[test]
    fn source_and_destination_are_found_in_the_fixed_header() {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[12..20].copy_from_slice(&[10, 0, 0, 7, 10, 0, 0, 1]);
        let of = |ether_type, header: &[u8]| {
            let mac = MacAddr(2, 0, 0, 0, 0, 1);
            let frame = ethernet::encode(mac, mac, ether_type, header);
            // What is sent is padded; what the kernel hands on of it is not.
            let frame = &frame[..14 + header.len()];
            ends(&ethernet::decode(frame).unwrap())
        };
        let both = Some((Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(of(ethernet::TYPE_IPV4, &header), both);
        assert_eq!(of(ethernet::TYPE_ARP, &header), None);
        assert_eq!(of(ethernet::TYPE_IPV4, &header[..19]), None);
        header[0] = 0x60;
        assert_eq!(of(ethernet::TYPE_IPV4, &header), None);
    }
}

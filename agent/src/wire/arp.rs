//! ARP for IPv4 over Ethernet (RFC 826), refusing what rule A1 refuses.
//!
//! ```text
//!  0        2        4    5    6      8              14        18             24        28
//! +--------+--------+----+----+------+--------------+---------+--------------+---------+
//! | hrd 1  | 0x0800 | 6  | 4  | op   | sha          | spa     | tha          | tpa     | padding
//! +--------+--------+----+----+------+--------------+---------+--------------+---------+
//! ```

use std::net::Ipv4Addr;

use pnet_base::MacAddr;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::EtherTypes;

use super::ethernet::{self, Frame};

const LEN: usize = 28;

/// What the packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has `tpa`?
    Request,
    /// `spa` is at `sha`.
    Reply,
}

/// A decoded ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's hardware address.
    pub sha: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227).
    pub spa: Ipv4Addr,
    /// The target's hardware address; without meaning in a request.
    pub tha: MacAddr,
    /// The target's IPv4 address.
    pub tpa: Ipv4Addr,
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Shorter than an ARP packet for IPv4 over Ethernet.
    #[error("packet is too short")]
    Short,
    /// Another hardware or protocol type, or other address lengths.
    #[error("packet is not about IPv4 over Ethernet")]
    NotIpv4OverEthernet,
    /// Neither request nor reply.
    #[error("operation is neither request nor reply")]
    Operation,
    /// The sender's hardware address is zero or a group.
    #[error("sender's hardware address is not a station's")]
    BadSender,
    /// The sender names another hardware address than the frame came from.
    #[error("sender's hardware address differs from the frame's source")]
    SenderMismatch,
    /// An address that no single host can have.
    #[error("address belongs to no single host")]
    BadAddress,
    /// A reply that names no sender.
    #[error("reply names no sender")]
    AnonymousReply,
}

/// Decodes the ARP packet of a frame; trailing padding is ignored.
pub fn decode(frame: &Frame<'_>) -> Result<Arp, ArpError> {
    let packet = ArpPacket::new(frame.payload).ok_or(ArpError::Short)?;
    let kind = (
        packet.get_hardware_type(),
        packet.get_protocol_type(),
        packet.get_hw_addr_len(),
        packet.get_proto_addr_len(),
    );
    if kind != (ArpHardwareTypes::Ethernet, EtherTypes::Ipv4, 6, 4) {
        return Err(ArpError::NotIpv4OverEthernet);
    }
    let operation = match packet.get_operation() {
        ArpOperation(1) => Operation::Request,
        ArpOperation(2) => Operation::Reply,
        ArpOperation(_) => return Err(ArpError::Operation),
    };
    let arp = Arp {
        operation,
        sha: packet.get_sender_hw_addr(),
        spa: packet.get_sender_proto_addr(),
        tha: packet.get_target_hw_addr(),
        tpa: packet.get_target_proto_addr(),
    };
    check(&arp, frame.source).map(|()| arp)
}

fn check(arp: &Arp, source: MacAddr) -> Result<(), ArpError> {
    if !ethernet::is_station(arp.sha) {
        return Err(ArpError::BadSender);
    }
    if arp.sha != source {
        return Err(ArpError::SenderMismatch);
    }
    if belongs_to_nobody(arp.spa) || belongs_to_nobody(arp.tpa) {
        return Err(ArpError::BadAddress);
    }
    if arp.operation == Operation::Reply && arp.spa.is_unspecified() {
        return Err(ArpError::AnonymousReply);
    }
    Ok(())
}

fn belongs_to_nobody(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_loopback() || address.is_broadcast()
}

/// Encodes the packet as a frame from its sender to `destination`.
pub fn encode(arp: &Arp, destination: MacAddr) -> Vec<u8> {
    encode_from(arp.sha, arp, destination)
}

/// Encodes the packet as a frame from `source`, which speaks of another station.
pub fn encode_from(source: MacAddr, arp: &Arp, destination: MacAddr) -> Vec<u8> {
    let mut bytes = [0; LEN];
    let mut packet = MutableArpPacket::new(&mut bytes).expect("the buffer has the packet's length");
    packet.set_hardware_type(ArpHardwareTypes::Ethernet);
    packet.set_protocol_type(EtherTypes::Ipv4);
    packet.set_hw_addr_len(6);
    packet.set_proto_addr_len(4);
    packet.set_operation(match arp.operation {
        Operation::Request => ArpOperation(1),
        Operation::Reply => ArpOperation(2),
    });
    packet.set_sender_hw_addr(arp.sha);
    packet.set_sender_proto_addr(arp.spa);
    packet.set_target_hw_addr(arp.tha);
    packet.set_target_proto_addr(arp.tpa);
    ethernet::encode(destination, source, ethernet::TYPE_ARP, &bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
    const B: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);

    fn request() -> Arp {
        Arp {
            operation: Operation::Request,
            sha: A,
            spa: Ipv4Addr::new(10, 0, 0, 1),
            tha: MacAddr::zero(),
            tpa: Ipv4Addr::new(10, 0, 0, 2),
        }
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Arp, ArpError> {
        decode(&ethernet::decode(bytes).unwrap())
    }

    #[test]
    fn a1_padding_is_ignored() {
        let mut bytes = encode(&request(), MacAddr::broadcast());
        bytes.resize(60, 0xff);
        assert_eq!(decode_bytes(&bytes), Ok(request()));
    }

    #[test]
    fn a1_refusals_name_their_reason() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(Spoil, ArpError); 12] = [
            (|b| b.truncate(41), ArpError::Short),
            (|b| b[15] = 6, ArpError::NotIpv4OverEthernet),
            (|b| b[16] = 0x86, ArpError::NotIpv4OverEthernet),
            (|b| b[18] = 8, ArpError::NotIpv4OverEthernet),
            (|b| b[19] = 16, ArpError::NotIpv4OverEthernet),
            (|b| b[21] = 3, ArpError::Operation),
            (|b| b[22] |= 1, ArpError::BadSender),
            (|b| b[22..28].fill(0), ArpError::BadSender),
            (|b| b[27] = 0xb, ArpError::SenderMismatch),
            (|b| b[28] = 127, ArpError::BadAddress),
            (|b| b[38] = 224, ArpError::BadAddress),
            (|b| b[38..42].fill(255), ArpError::BadAddress),
        ];
        for (spoil, reason) in cases {
            let mut bytes = encode(&request(), MacAddr::broadcast());
            spoil(&mut bytes);
            assert_eq!(decode_bytes(&bytes), Err(reason));
        }
        let anonymous = Arp {
            operation: Operation::Reply,
            spa: Ipv4Addr::UNSPECIFIED,
            ..request()
        };
        assert_eq!(
            decode_bytes(&encode(&anonymous, B)),
            Err(ArpError::AnonymousReply)
        );
    }

    proptest! {
        #[test]
        fn decode_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = ethernet::encode(B, A, ethernet::TYPE_ARP, &payload);
            let _ = decode_bytes(&bytes);
        }
    }
}

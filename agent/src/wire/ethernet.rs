//! Ethernet II frames without their FCS, as packet sockets give and take them.
//!
//! A frame with an 802.1Q tag belongs to another network than the untagged one that is bridged, and is refused.
//!
//! ```text
//!  0                   6                  12        14
//! +-------------------+-------------------+---------+-----------
//! | destination       | source            | type    | payload
//! +-------------------+-------------------+---------+-----------
//! ```

use pnet_base::MacAddr;
use pnet_packet::ethernet::EthernetPacket;

/// Length of the header.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of magic packets.
pub const TYPE_WAKE_ON_LAN: u16 = 0x0842;

const TYPES_TAGGED: [u16; 2] = [0x8100, 0x88a8];

/// A decoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// To whom.
    pub destination: MacAddr,
    /// From whom.
    pub source: MacAddr,
    /// EtherType.
    pub ether_type: u16,
    /// Everything behind the header, padding included.
    pub payload: &'a [u8],
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header.
    #[error("frame is shorter than its header")]
    Short,
    /// Carries a VLAN tag.
    #[error("frame carries a VLAN tag")]
    Tagged,
    /// The source is zero or a group address.
    #[error("source address is not a station's")]
    BadSource,
}

/// Decodes a frame.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let packet = EthernetPacket::new(bytes).ok_or(FrameError::Short)?;
    let ether_type = packet.get_ethertype().0;
    if TYPES_TAGGED.contains(&ether_type) {
        return Err(FrameError::Tagged);
    }
    let source = packet.get_source();
    if !is_station(source) {
        return Err(FrameError::BadSource);
    }
    Ok(Frame {
        destination: packet.get_destination(),
        source,
        ether_type,
        payload: &bytes[HEADER_LEN..],
    })
}

/// Encodes a frame.
pub fn encode(destination: MacAddr, source: MacAddr, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend(destination.octets());
    bytes.extend(source.octets());
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns whether the address can be one station's: neither zero nor a group.
pub fn is_station(mac: MacAddr) -> bool {
    !mac.is_zero() && mac.octets()[0] & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(MacAddr::broadcast(), A, TYPE_ARP, &[1, 2, 3]);
        let frame = decode(&bytes).unwrap();
        assert_eq!(frame.destination, MacAddr::broadcast());
        assert_eq!((frame.source, frame.ether_type), (A, TYPE_ARP));
        assert_eq!(frame.payload, [1, 2, 3]);
    }

    #[test]
    fn refusals_name_their_reason() {
        let group = MacAddr(3, 0, 0, 0, 0, 1);
        let cases = [
            (vec![0; 13], FrameError::Short),
            (encode(A, A, 0x8100, &[0; 50]), FrameError::Tagged),
            (encode(A, A, 0x88a8, &[0; 50]), FrameError::Tagged),
            (encode(A, group, TYPE_ARP, &[]), FrameError::BadSource),
            (
                encode(A, MacAddr::zero(), TYPE_ARP, &[]),
                FrameError::BadSource,
            ),
        ];
        for (bytes, reason) in cases {
            assert_eq!(decode(&bytes), Err(reason));
        }
    }
}

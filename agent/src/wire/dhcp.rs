//! DHCPv4 messages (RFC 2131, 2132) as a relay sees them: a checked view for reading, and patches on the original bytes.
//!
//! Nothing is ever decoded and encoded again (rule D1): options the relay does not know, their order and their padding reach
//! the other side as they were. Options may continue in `sname` and `file` (option 52), and all areas are walked when the
//! view is made, so that a message with an option across a bound is refused whole (rule D10).
//!
//! ```text
//!   0 op | 1 htype | 2 hlen | 3 hops | 4 xid | 8 secs | 10 flags (0x8000: broadcast)
//!  12 ciaddr | 16 yiaddr | 20 siaddr | 24 giaddr | 28 chaddr (16) | 44 sname (64) | 108 file (128)
//! 236 cookie 63 82 53 63 | 240 options: code, length, value ...; 0 is padding, 255 the end
//! ```

use std::net::Ipv4Addr;

use pnet_base::MacAddr;

const HOPS: usize = 3;
const GIADDR: usize = 24;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const OPTIONS: usize = 240;
/// Length below which old clients drop a BOOTP message (RFC 1542, section 2.1).
const MIN_LEN: usize = 300;

const PAD: u8 = 0;
const END: u8 = 255;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const RELAY_INFORMATION: u8 = 82;

/// Direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From a client.
    Request,
    /// From a server.
    Reply,
}

/// DHCP message types that the relay tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPOFFER.
    Offer,
    /// DHCPREQUEST.
    Request,
    /// DHCPDECLINE.
    Decline,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
    /// DHCPRELEASE.
    Release,
    /// DHCPINFORM.
    Inform,
    /// Any other, or none (BOOTP).
    Other,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    /// Shorter than the fixed part and the cookie.
    #[error("message is too short")]
    Short,
    /// Neither request nor reply.
    #[error("message is neither request nor reply")]
    Op,
    /// A hardware address longer than its field.
    #[error("hardware address is longer than its field")]
    HardwareLength,
    /// No DHCP cookie.
    #[error("message has no DHCP cookie")]
    Cookie,
    /// An option reaches over the end of its area, or has an impossible length.
    #[error("an option does not fit")]
    OptionBounds,
}

/// A checked view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Dhcp<'a> {
    bytes: &'a [u8],
    op: Op,
    options: Options,
}

/// The options a relay reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    message_type: Option<u8>,
    requested_address: Option<Ipv4Addr>,
    lease_time: Option<u32>,
    server_identifier: Option<Ipv4Addr>,
    overload: u8,
    relay_information: bool,
}

/// Checks a message and returns a view of it.
pub fn decode(bytes: &[u8]) -> Result<Dhcp<'_>, DhcpError> {
    if bytes.len() < OPTIONS {
        return Err(DhcpError::Short);
    }
    let op = match bytes[0] {
        1 => Op::Request,
        2 => Op::Reply,
        _ => return Err(DhcpError::Op),
    };
    if bytes[2] > 16 {
        return Err(DhcpError::HardwareLength);
    }
    if bytes[236..OPTIONS] != COOKIE {
        return Err(DhcpError::Cookie);
    }
    let mut options = Options::default();
    options.read(&bytes[OPTIONS..])?;
    // RFC 2131, section 4.1: `file` is read before `sname`, and neither may extend the overload again.
    let overload = options.overload;
    if overload & 1 != 0 {
        options.read(&bytes[108..236])?;
    }
    if overload & 2 != 0 {
        options.read(&bytes[44..108])?;
    }
    Ok(Dhcp { bytes, op, options })
}

impl Options {
    fn read(&mut self, mut area: &[u8]) -> Result<(), DhcpError> {
        while let [code, rest @ ..] = area {
            area = match *code {
                PAD => rest,
                END => return Ok(()),
                code => {
                    let (&length, rest) = rest.split_first().ok_or(DhcpError::OptionBounds)?;
                    let (value, rest) = rest
                        .split_at_checked(usize::from(length))
                        .ok_or(DhcpError::OptionBounds)?;
                    self.take(code, value)?;
                    rest
                }
            };
        }
        // The end mark is missing in some clients' messages; the area's own end is as good.
        Ok(())
    }

    fn take(&mut self, code: u8, value: &[u8]) -> Result<(), DhcpError> {
        match code {
            MESSAGE_TYPE => self.message_type = Some(fixed::<1>(value)?[0]),
            REQUESTED_ADDRESS => self.requested_address = Some(fixed(value)?.into()),
            LEASE_TIME => self.lease_time = Some(u32::from_be_bytes(fixed(value)?)),
            SERVER_IDENTIFIER => self.server_identifier = Some(fixed(value)?.into()),
            OVERLOAD => self.overload = fixed::<1>(value)?[0],
            RELAY_INFORMATION => self.relay_information = true,
            _ => {}
        }
        Ok(())
    }
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], DhcpError> {
    value.try_into().map_err(|_| DhcpError::OptionBounds)
}

impl Dhcp<'_> {
    /// Returns the direction.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Returns how many relays the message passed.
    pub fn hops(&self) -> u8 {
        self.bytes[HOPS]
    }

    /// Returns the transaction identifier.
    pub fn xid(&self) -> u32 {
        u32::from_be_bytes(self.array(4))
    }

    /// Returns the seconds the client says it has been trying.
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.array(8))
    }

    /// Returns whether the client asks for replies by broadcast.
    pub fn broadcast_flag(&self) -> bool {
        self.bytes[10] & 0x80 != 0
    }

    /// Returns the address the client has and uses.
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.array(12).into()
    }

    /// Returns the address the server gives.
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.array(16).into()
    }

    /// Returns the address of the first relay.
    pub fn giaddr(&self) -> Ipv4Addr {
        self.array(GIADDR).into()
    }

    /// Returns the whole hardware address field, as it identifies a client whatever its length.
    pub fn chaddr(&self) -> [u8; 16] {
        self.array(28)
    }

    /// Returns the client's Ethernet address, where it has one.
    pub fn client_mac(&self) -> Option<MacAddr> {
        let [a, b, c, d, e, f] = self.array(28);
        let mac = MacAddr(a, b, c, d, e, f);
        let ethernet = self.bytes[1] == 1 && self.bytes[2] == 6;
        (ethernet && super::ethernet::is_station(mac)).then_some(mac)
    }

    /// Returns the message type.
    pub fn message_type(&self) -> MessageType {
        match self.options.message_type {
            Some(1) => MessageType::Discover,
            Some(2) => MessageType::Offer,
            Some(3) => MessageType::Request,
            Some(4) => MessageType::Decline,
            Some(5) => MessageType::Ack,
            Some(6) => MessageType::Nak,
            Some(7) => MessageType::Release,
            Some(8) => MessageType::Inform,
            Some(_) | None => MessageType::Other,
        }
    }

    /// Returns the address the client asks for or declines (option 50).
    pub fn requested_address(&self) -> Option<Ipv4Addr> {
        self.options.requested_address
    }

    /// Returns the lease time in seconds (option 51).
    pub fn lease_time(&self) -> Option<u32> {
        self.options.lease_time
    }

    /// Returns the server identifier (option 54).
    pub fn server_identifier(&self) -> Option<Ipv4Addr> {
        self.options.server_identifier
    }

    /// Returns whether a relay added its information (option 82).
    pub fn has_relay_information(&self) -> bool {
        self.options.relay_information
    }

    /// Returns the bytes for the next hop: one more relay passed, and `giaddr` where the message had none.
    pub fn forwarded(&self, giaddr: Ipv4Addr) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        bytes[HOPS] = bytes[HOPS].saturating_add(1);
        if self.giaddr().is_unspecified() {
            bytes[GIADDR..GIADDR + 4].copy_from_slice(&giaddr.octets());
        }
        bytes
    }

    /// Returns the bytes for a client, padded to the length that every client accepts.
    pub fn padded(&self) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        bytes.resize(bytes.len().max(MIN_LEN), PAD);
        bytes
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{self, DhcpOption};
    use dhcproto::{Decodable, Decoder, Encodable};
    use proptest::prelude::*;

    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        bytes[236..].copy_from_slice(&COOKIE);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn another_implementation_reads_the_same() {
        let mut theirs = v4::Message::default();
        theirs
            .set_opcode(v4::Opcode::BootReply)
            .set_xid(0xdead_beef)
            .set_secs(7)
            .set_flags(v4::Flags::default().set_broadcast())
            .set_yiaddr([10, 0, 0, 9])
            .set_giaddr([10, 0, 0, 2])
            .set_chaddr(&[2, 0, 0, 0, 0, 7]);
        let options = theirs.opts_mut();
        options.insert(DhcpOption::MessageType(v4::MessageType::Ack));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        options.insert(DhcpOption::ServerIdentifier([10, 0, 0, 1].into()));
        let bytes = theirs.to_vec().unwrap();

        let ours = decode(&bytes).unwrap();
        assert_eq!(ours.op(), Op::Reply);
        assert_eq!((ours.xid(), ours.secs()), (0xdead_beef, 7));
        assert!(ours.broadcast_flag());
        assert_eq!(ours.yiaddr(), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(ours.giaddr(), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(ours.client_mac(), Some(MacAddr(2, 0, 0, 0, 0, 7)));
        assert_eq!(ours.message_type(), MessageType::Ack);
        assert_eq!(ours.lease_time(), Some(3600));
        assert_eq!(ours.server_identifier(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(!ours.has_relay_information());
    }

    #[test]
    fn d1_another_implementation_reads_what_was_patched() {
        let bytes = message(&[53, 1, 1, 224, 2, 9, 9, 255]);
        let patched = decode(&bytes).unwrap().forwarded([10, 0, 0, 2].into());
        let theirs = v4::Message::decode(&mut Decoder::new(&patched)).unwrap();
        assert_eq!((theirs.hops(), theirs.giaddr()), (1, [10, 0, 0, 2].into()));
        // Everything but hops and giaddr is as it was.
        let changed: Vec<usize> = (0..bytes.len())
            .filter(|&i| bytes[i] != patched[i])
            .collect();
        assert_eq!(changed, [3, 24, 27]);
        let again = decode(&patched).unwrap().forwarded([10, 0, 0, 3].into());
        assert_eq!(&again[24..28], [10, 0, 0, 2]);
    }

    #[test]
    fn d4_a_short_reply_is_padded() {
        let bytes = message(&[53, 1, 2, 255]);
        assert_eq!(decode(&bytes).unwrap().padded().len(), 300);
    }

    #[test]
    fn d10_refusals_name_their_reason() {
        let spoilt = |at: usize, value: u8| {
            let mut bytes = message(&[255]);
            bytes[at] = value;
            bytes
        };
        let cases = [
            (vec![1; 239], DhcpError::Short),
            (spoilt(0, 3), DhcpError::Op),
            (spoilt(2, 17), DhcpError::HardwareLength),
            (spoilt(236, 0), DhcpError::Cookie),
            (message(&[53]), DhcpError::OptionBounds),
            (message(&[53, 2, 1]), DhcpError::OptionBounds),
            (message(&[53, 2, 1, 1, 255]), DhcpError::OptionBounds),
            (message(&[51, 3, 0, 0, 1, 255]), DhcpError::OptionBounds),
        ];
        for (bytes, reason) in cases {
            assert_eq!(decode(&bytes).err(), Some(reason));
        }
    }

    #[test]
    fn d10_overloaded_areas_are_read_and_checked() {
        let mut bytes = message(&[52, 1, 3, 255]);
        bytes[108..112].copy_from_slice(&[53, 1, 5, 255]);
        bytes[44..51].copy_from_slice(&[51, 4, 0, 0, 14, 16, 255]);
        let view = decode(&bytes).unwrap();
        assert_eq!(view.message_type(), MessageType::Ack);
        assert_eq!(view.lease_time(), Some(3600));
        bytes[105..108].copy_from_slice(&[82, 9, 0]);
        bytes[50] = 0;
        assert_eq!(decode(&bytes).err(), Some(DhcpError::OptionBounds));
    }

    #[test]
    fn a_long_hardware_address_is_no_ethernet_address() {
        let mut bytes = message(&[53, 1, 1, 255]);
        bytes[2] = 16;
        assert_eq!(decode(&bytes).unwrap().client_mac(), None);
    }

    proptest! {
        #[test]
        fn decode_never_panics(
            fixed in proptest::collection::vec(any::<u8>(), 0..236),
            options in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = fixed;
            bytes.resize(236, 0);
            bytes.extend(COOKIE);
            bytes.extend(options);
            if let Ok(view) = decode(&bytes) {
                prop_assert_eq!(view.forwarded(Ipv4Addr::LOCALHOST).len(), bytes.len());
                prop_assert!(view.padded().len() >= MIN_LEN);
            }
        }
    }
}

//! DHCPv4 messages (RFC 2131, 2132) as a relay sees them: a checked view of the original bytes.
//!
//! Nothing is ever decoded and encoded again (rule D1): options the relay does not know, their order and their padding reach
//! the other side as they were (`dhcp_patch` has the patches). Options may continue in `file` and `sname` (option 52), and all
//! areas are walked when the view is made, so that a message with an option across a bound is refused whole (rule D10). An
//! option that is there several times is one option in pieces (RFC 3396).
//!
//! ```text
//!   0 op | 1 htype | 2 hlen | 3 hops | 4 xid | 8 secs | 10 flags (0x8000: broadcast)
//!  12 ciaddr | 16 yiaddr | 20 siaddr | 24 giaddr | 28 chaddr (16) | 44 sname (64) | 108 file (128)
//! 236 cookie 63 82 53 63 | 240 options: code, length, value ...; 0 is padding, 255 the end
//! ```

use std::net::Ipv4Addr;
use std::ops::Range;

use pnet_base::MacAddr;

pub(super) const HOPS: usize = 3;
pub(super) const XID: usize = 4;
pub(super) const FLAGS: usize = 10;
pub(super) const GIADDR: usize = 24;
pub(super) const CHADDR: usize = 28;
const SNAME: Range<usize> = 44..108;
const FILE: Range<usize> = 108..236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
pub(super) const OPTIONS: usize = 240;

const PAD: u8 = 0;
const END: u8 = 255;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
/// By what a server tells clients apart, where it is there (RFC 2132, section 9.14; RFC 6842).
pub const CLIENT_IDENTIFIER: u8 = 61;
/// What relays tell a server (RFC 3046).
pub const RELAY_INFORMATION: u8 = 82;

/// The flag by which a client asks for replies by broadcast.
pub const BROADCAST_FLAG: u16 = 0x8000;

/// Direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From a client.
    Request,
    /// From a server.
    Reply,
}

/// DHCP message types that the relay tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Option 52 names no area there is.
    #[error("option overload names no area")]
    Overload,
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
    message_type: Value<1>,
    requested_address: Value<4>,
    lease_time: Value<4>,
    server_identifier: Value<4>,
    overload: Value<1>,
    client_identifier: bool,
    relay_information: bool,
}

/// An option of known length, gathered from as many pieces as it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value<const N: usize> {
    bytes: [u8; N],
    /// How many bytes there were; `None` where the option is not there.
    length: Option<usize>,
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
    // What the other areas say of the overload itself does not count.
    let overload = options.overload;
    if !matches!(overload.get(), None | Some([1..=3])) {
        return Err(DhcpError::Overload);
    }
    for area in continued(overload.get().map_or(0, |[areas]| areas)) {
        options.read(&bytes[area])?;
    }
    options.overload = overload;
    options.check()?;
    Ok(Dhcp { bytes, op, options })
}

/// Returns the areas that options continue in, in the order in which they are read (RFC 3396, section 5).
fn continued(overload: u8) -> impl Iterator<Item = Range<usize>> {
    let areas = [(1, FILE), (2, SNAME)];
    let used = areas
        .into_iter()
        .filter(move |(bit, _)| overload & bit != 0);
    used.map(|(_, area)| area)
}

/// An option's place in its area.
pub(super) struct Placed {
    pub(super) code: u8,
    /// Code, length and value.
    pub(super) all: Range<usize>,
}

/// A walk over the options of one area.
pub(super) struct Walk<'a> {
    area: &'a [u8],
    /// After the walk: where the end mark is, or the area's end where there is none.
    pub(super) at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(area: &'a [u8]) -> Walk<'a> {
        Walk { area, at: 0 }
    }

    /// Returns the next option, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Placed>, DhcpError> {
        while self.area.get(self.at) == Some(&PAD) {
            self.at += 1;
        }
        // The end mark is missing in some clients' messages; the area's own end is as good.
        let Some(&code) = self.area.get(self.at).filter(|code| **code != END) else {
            return Ok(None);
        };
        let length = self.area.get(self.at + 1).ok_or(DhcpError::OptionBounds)?;
        let all = self.at..self.at + 2 + usize::from(*length);
        if all.end > self.area.len() {
            return Err(DhcpError::OptionBounds);
        }
        self.at = all.end;
        Ok(Some(Placed { code, all }))
    }
}

impl Options {
    fn read(&mut self, area: &[u8]) -> Result<(), DhcpError> {
        let mut walk = Walk::new(area);
        while let Some(option) = walk.next()? {
            self.take(option.code, &area[option.all.start + 2..option.all.end]);
        }
        Ok(())
    }

    fn take(&mut self, code: u8, value: &[u8]) {
        match code {
            MESSAGE_TYPE => self.message_type.gather(value),
            REQUESTED_ADDRESS => self.requested_address.gather(value),
            LEASE_TIME => self.lease_time.gather(value),
            SERVER_IDENTIFIER => self.server_identifier.gather(value),
            OVERLOAD => self.overload.gather(value),
            CLIENT_IDENTIFIER => self.client_identifier = true,
            RELAY_INFORMATION => self.relay_information = true,
            _ => {}
        }
    }

    fn check(&self) -> Result<(), DhcpError> {
        let fit = self.message_type.fits()
            && self.requested_address.fits()
            && self.lease_time.fits()
            && self.server_identifier.fits()
            && self.overload.fits();
        fit.then_some(()).ok_or(DhcpError::OptionBounds)
    }
}

impl<const N: usize> Default for Value<N> {
    fn default() -> Value<N> {
        Value {
            bytes: [0; N],
            length: None,
        }
    }
}

impl<const N: usize> Value<N> {
    fn gather(&mut self, piece: &[u8]) {
        let before = self.length.unwrap_or_default();
        for (to, from) in self.bytes.iter_mut().skip(before).zip(piece) {
            *to = *from;
        }
        self.length = Some(before + piece.len());
    }

    fn fits(&self) -> bool {
        self.length.is_none_or(|length| length == N)
    }

    fn get(&self) -> Option<[u8; N]> {
        self.length
            .filter(|length| *length == N)
            .map(|_| self.bytes)
    }
}

impl<'a> Dhcp<'a> {
    /// Returns the message as it came.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the areas of the options, in reading order.
    pub(super) fn areas(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let overload = self.options.overload.get().map_or(0, |[areas]| areas);
        std::iter::once(OPTIONS..self.bytes.len()).chain(continued(overload))
    }

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
        u32::from_be_bytes(self.array(XID))
    }

    /// Returns the seconds the client says it has been trying.
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.array(8))
    }

    /// Returns all flags.
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes(self.array(FLAGS))
    }

    /// Returns whether the client asks for replies by broadcast.
    pub fn broadcast_flag(&self) -> bool {
        self.flags() & BROADCAST_FLAG != 0
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
        self.array(CHADDR)
    }

    /// Returns the client's Ethernet address, where it has one.
    pub fn client_mac(&self) -> Option<MacAddr> {
        let [a, b, c, d, e, f] = self.array(CHADDR);
        let mac = MacAddr(a, b, c, d, e, f);
        let ethernet = self.bytes[1] == 1 && self.bytes[2] == 6;
        (ethernet && super::ethernet::is_station(mac)).then_some(mac)
    }

    /// Returns the message type.
    pub fn message_type(&self) -> MessageType {
        match self.options.message_type.get().map(|[kind]| kind) {
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
        self.options.requested_address.get().map(Ipv4Addr::from)
    }

    /// Returns the lease time in seconds (option 51).
    pub fn lease_time(&self) -> Option<u32> {
        self.options.lease_time.get().map(u32::from_be_bytes)
    }

    /// Returns the server identifier (option 54).
    pub fn server_identifier(&self) -> Option<Ipv4Addr> {
        self.options.server_identifier.get().map(Ipv4Addr::from)
    }

    /// Returns whether a relay added its information (option 82).
    pub fn has_relay_information(&self) -> bool {
        self.options.relay_information
    }

    /// Returns whether the client identifies itself by more than its hardware address (option 61).
    pub fn has_client_identifier(&self) -> bool {
        self.options.client_identifier
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::Encodable;
    use dhcproto::v4::{self, DhcpOption};
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
            (message(&[53, 0, 255]), DhcpError::OptionBounds),
            (message(&[53, 1, 1, 53, 1, 1]), DhcpError::OptionBounds),
            (message(&[52, 1, 0, 255]), DhcpError::Overload),
            (message(&[52, 1, 4, 255]), DhcpError::Overload),
            (message(&[52, 2, 1, 1, 255]), DhcpError::OptionBounds),
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
    fn d10_an_option_in_pieces_is_one_option() {
        let mut bytes = message(&[52, 1, 3, 51, 1, 0, 51, 1, 0, 255]);
        bytes[108..115].copy_from_slice(&[51, 1, 14, 53, 1, 5, 255]);
        bytes[44..50].copy_from_slice(&[51, 1, 16, 52, 0, 255]);
        let view = decode(&bytes).unwrap();
        assert_eq!(view.lease_time(), Some(3600));
        assert_eq!(view.message_type(), MessageType::Ack);
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
                prop_assert_eq!(view.bytes(), &bytes[..]);
            }
        }
    }
}

//! As much of multicast DNS (RFC 1035, 6762) as tells whether a message may be listened to. Nothing is rewritten; `dns` has what is
//! inside.

use std::net::Ipv4Addr;

/// The group that mDNS speaks to.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// The port that mDNS speaks from and to.
pub const PORT: u16 = 5353;
/// The time to live that shows that no router was passed.
pub const TTL: u8 = 255;

const HEADER_LEN: usize = 12;
const FLAGS_AT: usize = 2;
const RESPONSE: u8 = 0x80;

/// Returns whether the message is a query.
pub fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER_LEN && message[FLAGS_AT] & RESPONSE == 0
}

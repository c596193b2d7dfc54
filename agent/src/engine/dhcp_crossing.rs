//! The three ways a client's DHCP message can cross to the network and its answer back (D8): what each looks like there.
//!
//! ```text
//!            giaddr  xid        chaddr    flags      option 61        from         replies come to
//! Relay      ours    client's   client's  client's   client's         us:67        our address, port 67
//! Broadcast  -       masked     client's  broadcast  client's         0.0.0.0:68   everybody, port 68
//! Clone      -       masked     ours      broadcast  client's, or     0.0.0.0:68   everybody, port 68
//!                                                    made of its MAC
//! ```
//!
//! The number is masked where there is no giaddr: a client tries one number in several ways, but on the uplink no number is
//! ever seen in two, so a late answer to one way is not taken for an answer to the other. Nobody can foresee a masked number, not
//! even who saw others of the same client in the clear and masked, so nobody can make it meet another client's, or that of this
//! machine's own DHCP client on the uplink.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use crate::wire::dhcp::{BROADCAST_FLAG, CLIENT_IDENTIFIER, Dhcp, RELAY_INFORMATION};
use crate::wire::dhcp_patch::Patch;

use super::dhcp_transactions::{Chaddr, Key};
use super::link::Bridge;
use super::secrets::Secret;
use super::turn::Turn;

pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;
/// The sub-option of relay information that names the port a client is at (RFC 3046, section 3.1). Link selection (RFC 3527)
/// is not given: it is for relays whose giaddr lies in another subnet than the client, and ours is in the client's own.
const CIRCUIT_ID: u8 = 1;

/// A way to cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// With giaddr, as a relay.
    Relay,
    /// Without giaddr, replies by broadcast.
    Broadcast,
    /// Without giaddr, and with our own hardware address.
    Clone,
}

/// How a request crossed: what has to be undone in its replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crossing {
    pub(crate) way: Way,
    xid: u32,
    flags: u16,
    pub(crate) chaddr: Chaddr,
    added_relay_information: bool,
    added_client_identifier: bool,
}

/// A request as it is sent to the network.
#[derive(Debug)]
pub(crate) struct Request {
    /// By what its replies are known.
    pub(crate) key: Key,
    pub(crate) crossing: Crossing,
    pub(crate) from: SocketAddrV4,
    pub(crate) bytes: Vec<u8>,
}

impl Crossing {
    fn new(way: Way, message: &Dhcp<'_>) -> Crossing {
        Crossing {
            way,
            xid: message.xid(),
            flags: message.flags(),
            chaddr: message.chaddr(),
            added_relay_information: false,
            added_client_identifier: false,
        }
    }

    /// Returns a reply as its client is to see it.
    pub(crate) fn undo(&self, reply: &Dhcp<'_>) -> Vec<u8> {
        let mut patch = Patch::new(reply);
        if self.way != Way::Relay {
            patch = patch
                .with_xid(self.xid)
                .with_flags(self.flags)
                .with_chaddr(self.chaddr);
        }
        if self.added_relay_information {
            patch.remove_option(RELAY_INFORMATION);
        }
        if self.added_client_identifier {
            patch.remove_option(CLIENT_IDENTIFIER);
        }
        patch.padded().into_bytes()
    }
}

/// Returns the request of a relay that is not the first: it has the other's giaddr, and its replies go there.
pub(crate) fn pass_on(message: &Dhcp<'_>) -> Vec<u8> {
    Patch::new(message).one_more_hop().into_bytes()
}

/// Returns the request with our giaddr, and with relay information if there is any to add (D1, D2).
pub(crate) fn relay(turn: &mut Turn<'_>, message: &Dhcp<'_>, circuit_id: &str) -> Request {
    let address = turn.bridge.address;
    let mut crossing = Crossing::new(Way::Relay, message);
    let mut patch = Patch::new(message).one_more_hop().with_giaddr(address);
    if !circuit_id.is_empty() && !message.has_relay_information() {
        match patch.add_option(RELAY_INFORMATION, &relay_information(circuit_id)) {
            Ok(()) => crossing.added_relay_information = true,
            // RFC 3046, section 2.1: a message without room goes on without.
            Err(_) => turn.count("dhcp-option-82-no-room"),
        }
    }
    Request {
        key: (message.xid(), message.chaddr()),
        crossing,
        from: SocketAddrV4::new(address, SERVER_PORT),
        bytes: patch.into_bytes(),
    }
}

/// Returns the request as if the client itself were on the uplink, but for its frame's source.
pub(crate) fn broadcast(message: &Dhcp<'_>, numbers: Secret) -> Request {
    let xid = masked(message, numbers);
    let patch = Patch::new(message).with_xid(xid);
    Request {
        key: (xid, message.chaddr()),
        crossing: Crossing::new(Way::Broadcast, message),
        from: SocketAddrV4::new(message.ciaddr(), CLIENT_PORT),
        bytes: by_broadcast(patch, message).into_bytes(),
    }
}

/// Returns the request as one of our own hardware address; `None` where the client could not be told from us.
pub(crate) fn clone(bridge: &Bridge, message: &Dhcp<'_>, numbers: Secret) -> Option<Request> {
    let client = message.client_mac()?;
    let mut chaddr = Chaddr::default();
    chaddr[..6].copy_from_slice(&bridge.uplink.mac.octets());
    let xid = masked(message, numbers);
    let mut crossing = Crossing::new(Way::Clone, message);
    let mut patch = Patch::new(message).with_xid(xid).with_chaddr(chaddr);
    if !message.has_client_identifier() {
        let [a, b, c, d, e, f] = client.octets();
        let identifier = [1, a, b, c, d, e, f];
        patch.add_option(CLIENT_IDENTIFIER, &identifier).ok()?;
        crossing.added_client_identifier = true;
    }
    Some(Request {
        key: (xid, chaddr),
        crossing,
        from: SocketAddrV4::new(message.ciaddr(), CLIENT_PORT),
        bytes: by_broadcast(patch, message).into_bytes(),
    })
}

fn by_broadcast(patch: Patch, message: &Dhcp<'_>) -> Patch {
    patch
        .with_flags(message.flags() | BROADCAST_FLAG)
        .with_giaddr(Ipv4Addr::UNSPECIFIED)
}

fn relay_information(circuit_id: &str) -> Vec<u8> {
    // The configuration allows 64 bytes.
    let length = u8::try_from(circuit_id.len()).unwrap_or(u8::MAX);
    let value = circuit_id.bytes().take(usize::from(length));
    [CIRCUIT_ID, length].into_iter().chain(value).collect()
}

/// Returns another number for a client's, always the same one for the same.
fn masked(message: &Dhcp<'_>, numbers: Secret) -> u32 {
    let client = u128::from_be_bytes(message.chaddr());
    let xid = message.xid();
    let masked = numbers.hash(&[(client >> 64) as u64, client as u64, xid.into()]) as u32;
    if masked == xid { !xid } else { masked }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::{RANDOM_BYTES, Secrets};
    use super::*;
    use crate::wire::dhcp;

    #[test]
    fn a_masked_number_tells_nothing_of_the_next() {
        let numbers = Secrets::split([5; RANDOM_BYTES]).dhcp_numbers;
        let masked_of = |xid: u32| {
            let mut bytes = vec![0; 240];
            bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
            bytes[4..8].copy_from_slice(&xid.to_be_bytes());
            bytes[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
            bytes.extend([53, 1, 1, 255]);
            masked(&dhcp::decode(&bytes).unwrap(), numbers)
        };
        assert_eq!(
            masked_of(1),
            masked_of(1),
            "a client's tries are one conversation"
        );
        assert_ne!(masked_of(1) ^ 1, masked_of(2) ^ 2);
        assert!((0..1000).all(|xid| masked_of(xid) != xid));
    }
}

//! Supervision: which interfaces exist, what they are good for, and what the bridge does because of it.
//!
//! The conditions are read from the kernel's state each time it changes, not from the sequence of its messages, so a lost
//! message costs nothing.
//!
//! ```text
//!                      uplink ready                     cable in           one segment
//! WaitingForUplink ------------------> WaitingForCable ----------> Bridging -----------> Loop
//!        ^  ^                             |       ^                 | ^  |  <----------- | |
//!        |  +------- uplink lost ---------+       +--- cable out ---+-|--|---- two ------+ |
//!        +------------------------- uplink lost ----------------------+--+-----------------+
//!
//! Where several conditions change at once, the states between are passed over: WaitingForUplink leads to Bridging or Loop when
//! the cable is in, WaitingForCable to Loop when both ports are on one segment.
//! While it is not known whether the ports are on one segment, the state stays. Stop leads from every state to Stopping, and
//! nothing leads out of it.
//! ```

use std::net::Ipv4Addr;

use crate::addr::{IfIndex, MacAddr, Side};

use super::loop_guard::Segments;
use super::mirror::Mirror;
use super::{Address, BridgeState, Link};

/// Longest prefix that leaves room for another host.
const LONGEST_PREFIX: u8 = 30;

/// One usable interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) index: IfIndex,
    pub(crate) mac: MacAddr,
}

/// Everything that serving hosts depends on, while both sides are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) uplink: Port,
    pub(crate) wired: Port,
    /// The uplink's address, which both sides carry.
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
}

impl Bridge {
    pub(crate) fn port(&self, side: Side) -> Port {
        match side {
            Side::Wired => self.wired,
            Side::Uplink => self.uplink,
        }
    }

    /// Returns whether a host other than us may have the address.
    pub(crate) fn may_be_host(&self, address: Ipv4Addr) -> bool {
        let host_bits = !mask(self.prefix);
        let host = u32::from(address) & host_bits;
        self.network() == network(address, self.prefix)
            && host != 0
            && host != host_bits
            && address != self.address
    }

    /// Returns the network's first address.
    pub(crate) fn network(&self) -> Ipv4Addr {
        network(self.address, self.prefix)
    }

    /// Returns the network's broadcast address.
    pub(crate) fn broadcast(&self) -> Ipv4Addr {
        (u32::from(self.address) | !mask(self.prefix)).into()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Returns the first address of a network.
pub(crate) fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    (u32::from(address) & mask(prefix)).into()
}

/// What the state depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) uplink_ready: bool,
    pub(crate) cable: bool,
    pub(crate) segments: Segments,
    pub(crate) stop: bool,
}

/// Returns the state that follows.
pub(crate) fn next_state(state: BridgeState, conditions: Conditions) -> BridgeState {
    match state {
        BridgeState::Stopping => BridgeState::Stopping,
        BridgeState::WaitingForUplink
        | BridgeState::WaitingForCable
        | BridgeState::Bridging
        | BridgeState::Loop => match conditions {
            Conditions { stop: true, .. } => BridgeState::Stopping,
            Conditions {
                uplink_ready: false,
                ..
            } => BridgeState::WaitingForUplink,
            Conditions { cable: false, .. } => BridgeState::WaitingForCable,
            Conditions { segments, .. } => match segments {
                // It is known in a moment.
                Segments::Unknown => state,
                Segments::Same => BridgeState::Loop,
                Segments::Separate => BridgeState::Bridging,
            },
        },
    }
}

/// The two interfaces as they were found; names select an index once, the index is the identity from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces {
    pub(crate) uplink: Option<IfIndex>,
    pub(crate) wired: Option<IfIndex>,
}

/// Returns the interface with the name; without one, the interface found before, as long as it exists under another name.
pub(crate) fn resolve(name: &str, before: Option<IfIndex>, mirror: &Mirror) -> Option<IfIndex> {
    let named = mirror.links.iter().find(|(_, link)| link.name == name);
    named
        .map(|(&index, _)| index)
        .or(before.filter(|index| mirror.links.contains_key(index)))
}

/// Returns the link of an index as a port, if frames can pass.
pub(crate) fn live_port(index: Option<IfIndex>, mirror: &Mirror) -> Option<Port> {
    let index = index?;
    match mirror.links.get(&index)? {
        Link {
            mac: Some(mac),
            up: true,
            carrier: true,
            ..
        } => Some(Port { index, mac: *mac }),
        Link { .. } => None,
    }
}

/// Returns the uplink's address to bridge with: the one in use while it lasts, else the one the gateway is near to, else
/// the first.
pub(crate) fn uplink_address(
    index: IfIndex,
    in_use: Option<Ipv4Addr>,
    mirror: &Mirror,
) -> Option<Address> {
    let gateway = mirror.gateway(index);
    mirror
        .addresses
        .iter()
        .filter(|a| a.index == index && !a.ours && a.prefix <= LONGEST_PREFIX)
        .filter(|a| !a.address.is_link_local() && !a.address.is_loopback())
        .min_by_key(|a| {
            let near_gateway =
                gateway.is_some_and(|g| network(g, a.prefix) == network(a.address, a.prefix));
            (Some(a.address) != in_use, !near_gateway)
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect;

    use super::*;

    const STATES: [BridgeState; 5] = [
        BridgeState::WaitingForUplink,
        BridgeState::WaitingForCable,
        BridgeState::Bridging,
        BridgeState::Loop,
        BridgeState::Stopping,
    ];

    #[test]
    fn every_state_and_every_condition() {
        let mut table = String::new();
        for state in STATES {
            for bits in 0..8 {
                let (uplink_ready, cable, stop) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                let word = |said: bool, word| if said { word } else { "-" };
                let said = format!(
                    "{} {} {}",
                    word(uplink_ready, "uplink"),
                    word(cable, "cable"),
                    word(stop, "stop"),
                );
                let next =
                    [Segments::Unknown, Segments::Separate, Segments::Same].map(|segments| {
                        let conditions = Conditions {
                            uplink_ready,
                            cable,
                            segments,
                            stop,
                        };
                        next_state(state, conditions)
                    });
                writeln!(table, "{:16} + {said:17} -> {next:?}", format!("{state:?}")).unwrap();
            }
        }
        // Unknown, separate, the same.
        expect![[r#"
            WaitingForUplink + - - -             -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            WaitingForUplink + uplink - -        -> [WaitingForCable, WaitingForCable, WaitingForCable]
            WaitingForUplink + - cable -         -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            WaitingForUplink + uplink cable -    -> [WaitingForUplink, Bridging, Loop]
            WaitingForUplink + - - stop          -> [Stopping, Stopping, Stopping]
            WaitingForUplink + uplink - stop     -> [Stopping, Stopping, Stopping]
            WaitingForUplink + - cable stop      -> [Stopping, Stopping, Stopping]
            WaitingForUplink + uplink cable stop -> [Stopping, Stopping, Stopping]
            WaitingForCable  + - - -             -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            WaitingForCable  + uplink - -        -> [WaitingForCable, WaitingForCable, WaitingForCable]
            WaitingForCable  + - cable -         -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            WaitingForCable  + uplink cable -    -> [WaitingForCable, Bridging, Loop]
            WaitingForCable  + - - stop          -> [Stopping, Stopping, Stopping]
            WaitingForCable  + uplink - stop     -> [Stopping, Stopping, Stopping]
            WaitingForCable  + - cable stop      -> [Stopping, Stopping, Stopping]
            WaitingForCable  + uplink cable stop -> [Stopping, Stopping, Stopping]
            Bridging         + - - -             -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            Bridging         + uplink - -        -> [WaitingForCable, WaitingForCable, WaitingForCable]
            Bridging         + - cable -         -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            Bridging         + uplink cable -    -> [Bridging, Bridging, Loop]
            Bridging         + - - stop          -> [Stopping, Stopping, Stopping]
            Bridging         + uplink - stop     -> [Stopping, Stopping, Stopping]
            Bridging         + - cable stop      -> [Stopping, Stopping, Stopping]
            Bridging         + uplink cable stop -> [Stopping, Stopping, Stopping]
            Loop             + - - -             -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            Loop             + uplink - -        -> [WaitingForCable, WaitingForCable, WaitingForCable]
            Loop             + - cable -         -> [WaitingForUplink, WaitingForUplink, WaitingForUplink]
            Loop             + uplink cable -    -> [Loop, Bridging, Loop]
            Loop             + - - stop          -> [Stopping, Stopping, Stopping]
            Loop             + uplink - stop     -> [Stopping, Stopping, Stopping]
            Loop             + - cable stop      -> [Stopping, Stopping, Stopping]
            Loop             + uplink cable stop -> [Stopping, Stopping, Stopping]
            Stopping         + - - -             -> [Stopping, Stopping, Stopping]
            Stopping         + uplink - -        -> [Stopping, Stopping, Stopping]
            Stopping         + - cable -         -> [Stopping, Stopping, Stopping]
            Stopping         + uplink cable -    -> [Stopping, Stopping, Stopping]
            Stopping         + - - stop          -> [Stopping, Stopping, Stopping]
            Stopping         + uplink - stop     -> [Stopping, Stopping, Stopping]
            Stopping         + - cable stop      -> [Stopping, Stopping, Stopping]
            Stopping         + uplink cable stop -> [Stopping, Stopping, Stopping]
        "#]].assert_eq(&table);
    }

    fn bridge(address: [u8; 4], prefix: u8) -> Bridge {
        let port = Port {
            index: IfIndex(1),
            mac: MacAddr::zero(),
        };
        Bridge {
            uplink: port,
            wired: port,
            address: address.into(),
            prefix,
            gateway: None,
        }
    }

    #[test]
    fn hosts_are_inside_the_subnet_and_not_ourselves() {
        let bridge = bridge([10, 0, 0, 2], 24);
        let cases = [
            ([10, 0, 0, 1], true),
            ([10, 0, 0, 254], true),
            ([10, 0, 0, 2], false),
            ([10, 0, 0, 0], false),
            ([10, 0, 0, 255], false),
            ([10, 0, 1, 1], false),
            ([0, 0, 0, 0], false),
        ];
        for (address, expected) in cases {
            assert_eq!(bridge.may_be_host(address.into()), expected, "{address:?}");
        }
        assert_eq!(bridge.broadcast(), Ipv4Addr::new(10, 0, 0, 255));
    }

    #[test]
    fn a_prefix_of_nothing_is_the_whole_internet() {
        assert_eq!(bridge([10, 0, 0, 2], 0).network(), Ipv4Addr::UNSPECIFIED);
    }
}

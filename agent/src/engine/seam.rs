//! The two closed sets of words between the engine and the world: what it can be told, and what it can ask for.
//!
//! Everything here is data. The shell translates between these words and sockets, netlink and files, and adds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::addr::{IfIndex, MacAddr, Side};
use crate::wire::discovery::Protocol;
use crate::wire::ipv4;

use super::settings::Settings;

use super::radio::{RadioAction, RadioEvent};

/// Everything the engine can be told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The whole of the kernel's state, at start and whenever netlink lost messages.
    KernelDump(KernelState),
    /// One change reported by netlink.
    Kernel(KernelEvent),
    /// The kernel refused a change (`errno` is positive).
    Refused {
        /// The change.
        change: Change,
        /// The kernel's error number.
        errno: i32,
    },
    /// Port 67 could not be held: another program serves or relays DHCP on this machine.
    Port67Taken,
    /// Port 67 is held after all.
    Port67Held,
    /// A frame received on a side, as the packet socket gave it (`wire` decodes it before any policy sees it).
    Frame {
        /// The side.
        side: Side,
        /// The frame, without FCS.
        bytes: &'a [u8],
    },
    /// The uplink's radio, or its supplicant, told something.
    Radio(RadioEvent),
    /// What there was to see of the traffic that the kernel forwards or takes, all of about one moment.
    Traffic(&'a [Glimpse]),
    /// The configuration was read again.
    Configured(Settings),
    /// A deadline passed.
    Tick,
    /// The process was asked to end: give everything back.
    Stop,
}

/// The beginning of an IPv4 frame that was received for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// The side it came from.
    pub side: Side,
    /// Its Ethernet header and the fixed part of its IPv4 header.
    pub headers: [u8; ipv4::HEADERS],
}

/// Everything the engine can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a packet socket (ARP, DHCP and discovery) on the interface; its memberships last as long as the socket.
    OpenPort {
        /// The side.
        side: Side,
        /// The interface.
        index: IfIndex,
        /// Whether to hold promiscuous membership.
        promiscuous: bool,
        /// Which discovery protocols to hear, and whose groups to join (M1).
        protocols: BTreeSet<Protocol>,
    },
    /// Close that socket.
    ClosePort {
        /// The side.
        side: Side,
    },
    /// Serve the device's own status by TCP at an address of the uplink, to whoever the engine admits.
    OpenStatus {
        /// The uplink.
        index: IfIndex,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Serve it no longer.
    CloseStatus,
    /// Send a complete Ethernet frame out of a side.
    Send {
        /// The side.
        side: Side,
        /// The frame, without FCS.
        frame: Vec<u8>,
    },
    /// Change the kernel's state.
    Apply(Change),
    /// Ask something of the uplink's radio.
    Radio(RadioAction),
    /// The state shown to people and to the service manager changed.
    StateChanged {
        /// The state left.
        from: BridgeState,
        /// The state entered.
        to: BridgeState,
    },
    /// Everything was given back; the process may end.
    Finished,
}

/// A change to the kernel's state. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Set the interface administratively up.
    SetUp(IfIndex),
    /// Set the interface administratively down.
    SetDown(IfIndex),
    /// Add `address`/32 to the interface, marked as ours (`IFA_PROTO`), without a prefix route.
    AddAddress {
        /// The interface.
        index: IfIndex,
        /// The address.
        address: Ipv4Addr,
    },
    /// Remove our `address`/32 from the interface.
    RemoveAddress {
        /// The interface.
        index: IfIndex,
        /// The address.
        address: Ipv4Addr,
    },
    /// Add or replace the link-scope route to `host`/32, marked as ours (`RTA_PROTO`), preferring `source`.
    AddRoute {
        /// The interface.
        index: IfIndex,
        /// The host.
        host: Ipv4Addr,
        /// The preferred source address.
        source: Ipv4Addr,
    },
    /// Remove our route to `host`/32.
    RemoveRoute {
        /// The interface.
        index: IfIndex,
        /// The host.
        host: Ipv4Addr,
    },
    /// Add or replace the neighbour entry, permanent, marked as ours (`NDA_PROTOCOL`): no packet but one that the engine judged
    /// changes it.
    SetNeighbour {
        /// The interface.
        index: IfIndex,
        /// The host.
        host: Ipv4Addr,
        /// The host's hardware address.
        mac: MacAddr,
    },
    /// Remove the neighbour entry.
    RemoveNeighbour {
        /// The interface.
        index: IfIndex,
        /// The host.
        host: Ipv4Addr,
    },
    /// Set a sysctl, remembering (also across a kill) the value it had; see `Sysctl`.
    HoldSysctl {
        /// Which one.
        sysctl: Sysctl,
        /// The value to hold.
        value: u8,
    },
    /// Give a held sysctl its remembered value back.
    ReleaseSysctl {
        /// Which one.
        sysctl: Sysctl,
    },
}

/// `net.ipv4.conf.<interface>.<setting>`; no interface means `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// The interface, or `None` for `all`.
    pub index: Option<IfIndex>,
    /// The last component of the name, such as `arp_ignore`.
    pub setting: &'static str,
}

/// What the kernel holds that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// All interfaces by index.
    pub links: BTreeMap<IfIndex, Link>,
    /// IPv4 addresses of all interfaces.
    pub addresses: BTreeSet<Address>,
    /// IPv4 unicast routes of the main table: default routes (any protocol) and ours.
    pub routes: BTreeSet<Route>,
    /// Neighbour entries marked as ours.
    pub neighbours: BTreeMap<(IfIndex, Ipv4Addr), MacAddr>,
}

/// One netlink notification, in the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// An interface appeared or changed (name, address, flags, carrier).
    Link(IfIndex, Link),
    /// An interface vanished.
    LinkGone(IfIndex),
    /// An address was added.
    AddressAdded(Address),
    /// An address was removed.
    AddressRemoved(Address),
    /// A route was added.
    RouteAdded(Route),
    /// A route took the place of another of its destination and metric, of whose end nothing else is told.
    RouteReplaced(Route),
    /// A route was removed.
    RouteRemoved(Route),
    /// Somebody else's route took the place of whatever route to this host there was, of whose end nothing else is told.
    HostRouteDisplaced(Ipv4Addr),
    /// A neighbour entry of ours was set.
    NeighbourSet(IfIndex, Ipv4Addr, MacAddr),
    /// A neighbour entry of ours was removed.
    NeighbourRemoved(IfIndex, Ipv4Addr),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its present name.
    pub name: String,
    /// Its hardware address; `None` where it is not Ethernet-like.
    pub mac: Option<MacAddr>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier present (`IFF_LOWER_UP`) and in use (`IFF_RUNNING`, RFC 2863): a supplicant keeps an associated radio dormant until the
    /// keys are agreed on, and what is sent before is lost.
    pub carrier: bool,
}

/// An IPv4 address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub index: IfIndex,
    /// The local address.
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Carries our protocol mark.
    pub ours: bool,
}

/// An IPv4 route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The outgoing interface.
    pub index: IfIndex,
    /// Destination prefix (0.0.0.0/0 is the default route).
    pub destination: (Ipv4Addr, u8),
    /// Of several routes to one destination, the kernel uses that of the lowest metric.
    pub metric: u32,
    /// The gateway, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Carries our protocol mark.
    pub ours: bool,
}

/// What the bridge as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeState {
    /// The uplink is missing, has no carrier or no address.
    WaitingForUplink,
    /// The uplink is ready; the wired interface is missing or has no carrier.
    WaitingForCable,
    /// Both sides are up and hosts are served.
    Bridging,
    /// Both ports are on one segment; nothing is served.
    Loop,
    /// Asked to end.
    Stopping,
}

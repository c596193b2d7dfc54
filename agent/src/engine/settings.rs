//! What the engine is told by the configuration: plain values, checked where they were read.
//!
//! The meaning of each for a person is told once, at the keys of `config`; here stands what the engine does with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::addr::Side;
use crate::wire::discovery::Protocol;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the interface that is a member of the network.
    pub uplink: String,
    /// Name of the interface whose hosts are to become members.
    pub downlink: String,
    /// How DHCP crosses.
    pub dhcp: DhcpSettings,
    /// Which discovery protocols cross.
    pub discovery: DiscoverySettings,
    /// What the agent may do to the wired port.
    pub wired: WiredSettings,
    /// What the agent may do to the radio.
    pub wifi: WifiSettings,
    /// What the device tells its network of itself.
    pub fleet: FleetSettings,
}

impl Settings {
    /// Returns the settings for two interfaces, everything else at its default.
    pub fn new(uplink: impl Into<String>, downlink: impl Into<String>) -> Settings {
        Settings {
            uplink: uplink.into(),
            downlink: downlink.into(),
            dhcp: DhcpSettings::default(),
            discovery: DiscoverySettings::default(),
            wired: WiredSettings::default(),
            wifi: WifiSettings::default(),
            fleet: FleetSettings::default(),
        }
    }

    /// Returns the discovery protocols to be heard on a side.
    pub(crate) fn heard(&self, side: Side) -> BTreeSet<Protocol> {
        let mut heard = self.discovery.protocols();
        if side == Side::Uplink && self.fleet.status {
            heard.insert(Protocol::Mdns);
        }
        heard
    }
}

/// How DHCP crosses (D1, D2, D8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpSettings {
    /// The way, or that it is to be found out.
    pub mode: DhcpMode,
    /// A request that already passed this many relays is dropped (D1).
    pub max_hops: u8,
    /// Whether a client's message that carries option 82 but no giaddr is relayed (D2).
    pub trust_option_82: bool,
    /// The circuit id of the option 82 that is added to requests and taken from replies; empty adds none (D2).
    pub circuit_id: String,
}

impl Default for DhcpSettings {
    fn default() -> DhcpSettings {
        DhcpSettings {
            mode: DhcpMode::Auto,
            max_hops: 16,
            trust_option_82: false,
            circuit_id: String::new(),
        }
    }
}

/// The ways DHCP can cross (D8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// Relay first, broadcast where a network's servers do not answer relayed requests.
    Auto,
    /// With giaddr, as a relay of RFC 1542.
    Relay,
    /// Without giaddr, the broadcast flag set, so that the reply can be picked up on the uplink.
    Broadcast,
    /// With the uplink's hardware address as chaddr and the client's in option 61.
    Clone,
}

/// Which discovery protocols cross the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Multicast DNS, UDP port 5353 (RFC 6762).
    pub mdns: bool,
    /// The simple service discovery protocol of UPnP, UDP port 1900.
    pub ssdp: bool,
    /// WS-Discovery, UDP port 3702.
    pub ws_discovery: bool,
    /// Magic packets, as frames of type 0x0842 or to UDP port 7 or 9.
    pub wake_on_lan: bool,
    /// NetBIOS name and datagram broadcasts, UDP ports 137 and 138.
    pub netbios: bool,
}

impl DiscoverySettings {
    /// Returns the protocols that are switched on.
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        let on = |protocol: &Protocol| match protocol {
            Protocol::Mdns => self.mdns,
            Protocol::Ssdp => self.ssdp,
            Protocol::WsDiscovery => self.ws_discovery,
            Protocol::WakeOnLan => self.wake_on_lan,
            Protocol::Netbios => self.netbios,
        };
        Protocol::ALL.into_iter().filter(on).collect()
    }
}

impl Default for DiscoverySettings {
    fn default() -> DiscoverySettings {
        DiscoverySettings {
            mdns: true,
            ssdp: true,
            ws_discovery: true,
            wake_on_lan: true,
            netbios: true,
        }
    }
}

/// What the agent may do to the wired port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WiredSettings {
    /// Whether the carrier is interrupted after the uplink joined another network, so that clients ask for new leases.
    pub bounce: bool,
}

impl Default for WiredSettings {
    fn default() -> WiredSettings {
        WiredSettings { bounce: true }
    }
}

/// What the agent may do to the radio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WifiSettings {
    /// Whether the radio may doze between beacons.
    pub power_save: bool,
    /// How far the recovery of a stalled radio may go.
    pub recovery: Recovery,
}

impl Default for WifiSettings {
    fn default() -> WifiSettings {
        WifiSettings {
            power_save: false,
            recovery: Recovery::Reboot,
        }
    }
}

/// The stages of recovering a stalled radio, each harder than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// Nothing is done.
    Off,
    /// The supplicant is told to associate again.
    Reassociate,
    /// The interface is set down and up.
    Interface,
    /// The driver is bound anew.
    Driver,
    /// The machine is rebooted.
    Reboot,
}

/// What the device tells its network of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    /// Whether it is found by multicast DNS and tells how it is to whoever asks on the uplink.
    pub status: bool,
    /// Which device it is.
    pub device: Device,
}

/// What tells a device from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// What it calls itself.
    pub hostname: String,
    /// The number of its processor, where it has one.
    pub serial: Option<String>,
    /// Which image it runs, where the image says so.
    pub image: Option<String>,
}

//! What `footbridge status` shows: the engine's knowledge in words and numbers that people and programs can read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::{BridgeState, Settings};
use crate::addr::{IfIndex, Side};

/// The state of the whole bridge at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the bridge is doing.
    pub state: BridgeState,
    /// The interface that is a member of the network.
    pub uplink: InterfaceReport,
    /// The interface whose hosts become members.
    pub downlink: InterfaceReport,
    /// Every host known, by address.
    pub hosts: Vec<HostReport>,
    /// How often each thing happened since the start.
    pub counters: BTreeMap<String, u64>,
    /// What is wrong, each with a next step.
    pub problems: Vec<String>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// The name it is configured by.
    pub name: String,
    /// Its index, where it exists.
    pub index: Option<IfIndex>,
    /// Whether it is up and has carrier.
    pub carrier: bool,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its IPv4 addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// The gateway of its default route.
    pub gateway: Option<Ipv4Addr>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its hardware address.
    pub mac: String,
    /// The side it lives on.
    pub side: Side,
    /// How it was learned: `arp` or `dhcp`.
    pub source: &'static str,
    /// `provisional`, `verified`, `verifying` or `remembered`.
    pub state: &'static str,
    /// Seconds since it last showed that it is alive.
    pub age: u64,
    /// Seconds until its lease ends, where it has one.
    pub lease_end: Option<u64>,
}

impl Report {
    pub(crate) fn new(state: BridgeState, settings: &Settings) -> Report {
        let named = |name: &String| InterfaceReport {
            name: name.clone(),
            ..InterfaceReport::default()
        };
        Report {
            state,
            uplink: named(&settings.uplink),
            downlink: named(&settings.downlink),
            hosts: Vec::new(),
            counters: BTreeMap::new(),
            problems: Vec::new(),
        }
    }
}

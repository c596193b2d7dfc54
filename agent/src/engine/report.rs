//! What `footbridge status` shows: the engine's knowledge in words and numbers that people and programs can read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::Serialize;

use super::host::{Host, Source, State};
use super::mirror::Mirror;
use super::radio::RadioReport;
use super::{BridgeState, DhcpMode, Engine, Problem, Way, dhcp_relay, doctor};
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
    /// How DHCP crosses.
    pub dhcp: DhcpReport,
    /// The uplink's radio, if it is one.
    pub radio: Option<RadioReport>,
    /// Every host known, by address.
    pub hosts: Vec<HostReport>,
    /// How often each thing happened since the start.
    pub counters: BTreeMap<String, u64>,
    /// What is wrong, each with a next step.
    pub problems: Vec<Problem>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// The name it is configured by.
    pub name: String,
    /// Its index, where it exists.
    pub index: Option<IfIndex>,
    /// Whether it is up, has carrier and may be used.
    pub carrier: bool,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its IPv4 addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// The gateway of its default route.
    pub gateway: Option<Ipv4Addr>,
}

/// How DHCP crosses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DhcpReport {
    /// The mode that is configured.
    pub mode: DhcpMode,
    /// The way that worked in this network, where one did.
    pub remembered: Option<Way>,
    /// The servers of this network that answered.
    pub servers: Vec<DhcpServerReport>,
}

/// One DHCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DhcpServerReport {
    /// Its address, as it says itself.
    pub ip: Ipv4Addr,
    /// The way by which it last answered.
    pub way: Way,
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
    pub(crate) fn new(engine: &Engine, now: Instant) -> Report {
        let (settings, found) = (&engine.settings, engine.interfaces);
        let counters = engine.counters.iter();
        Report {
            state: engine.state,
            uplink: interface(&settings.uplink, found.uplink, &engine.mirror),
            downlink: interface(&settings.downlink, found.wired, &engine.mirror),
            dhcp: dhcp(engine),
            radio: RadioReport::new(&engine.radio),
            hosts: engine
                .hosts
                .iter()
                .map(|(ip, h)| host(ip, h, now))
                .collect(),
            counters: counters
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            problems: doctor::problems(engine, now),
        }
    }
}

fn interface(name: &str, index: Option<IfIndex>, mirror: &Mirror) -> InterfaceReport {
    let link = index.and_then(|index| mirror.links.get(&index));
    let addresses = mirror.addresses.iter().filter(|a| Some(a.index) == index);
    InterfaceReport {
        name: name.to_owned(),
        index,
        carrier: link.is_some_and(|link| link.up && link.carrier),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        addresses: addresses
            .map(|a| format!("{}/{}", a.address, a.prefix))
            .collect(),
        gateway: index.and_then(|index| mirror.gateway(index)),
    }
}

fn dhcp(engine: &Engine) -> DhcpReport {
    let ladder = &engine.dhcp_relay.ladder;
    let bridge = engine.bridge.as_ref();
    let network = bridge.map(|bridge| dhcp_relay::network(bridge, &engine.hosts));
    let servers = network.map(|network| ladder.servers(network));
    let servers = servers.unwrap_or_default().into_iter();
    DhcpReport {
        mode: engine.settings.dhcp.mode,
        remembered: network.and_then(|network| ladder.remembered(network)),
        servers: servers
            .map(|(ip, way)| DhcpServerReport { ip, way })
            .collect(),
    }
}

fn host(ip: Ipv4Addr, host: &Host, now: Instant) -> HostReport {
    HostReport {
        ip,
        mac: host.place.mac.to_string(),
        side: host.place.side,
        source: match host.source {
            Source::Arp => "arp",
            Source::Dhcp => "dhcp",
        },
        state: match host.state {
            State::Provisional { .. } => "provisional",
            State::Verified { .. } => "verified",
            State::Checking(_) | State::Sought(_) | State::Challenged { .. } => "verifying",
            State::Remembered {
                check: Some(check), ..
            } if check.sent > 0 => "verifying",
            State::Remembered { .. } => "remembered",
        },
        age: now.saturating_duration_since(host.evidence).as_secs(),
        lease_end: host
            .lease_end
            .map(|end| end.saturating_duration_since(now).as_secs()),
    }
}

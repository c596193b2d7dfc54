//! What `footbridge status` shows: the engine's knowledge in words and numbers that people and programs can read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::Serialize;

use super::host::{Host, Source, State};
use super::kernel_state::Mirror;
use super::{Address, BridgeState, Engine, link};
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
    pub(crate) fn new(engine: &Engine, now: Instant) -> Report {
        let (settings, found) = (&engine.settings, engine.interfaces);
        let counters = engine.counters.iter();
        Report {
            state: engine.state,
            uplink: interface(&settings.uplink, found.uplink, &engine.mirror),
            downlink: interface(&settings.downlink, found.wired, &engine.mirror),
            hosts: engine
                .hosts
                .iter()
                .map(|(ip, h)| host(ip, h, now))
                .collect(),
            counters: counters
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            problems: problems(engine, now),
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
            State::Checking(_) | State::Challenged { .. } => "verifying",
            State::Remembered { check: Some(_), .. } => "verifying",
            State::Remembered { check: None, .. } => "remembered",
        },
        age: now.saturating_duration_since(host.evidence).as_secs(),
        lease_end: host
            .lease_end
            .map(|end| end.saturating_duration_since(now).as_secs()),
    }
}

fn problems(engine: &Engine, now: Instant) -> Vec<String> {
    let mut problems = Vec::new();
    let (uplink, wired) = (&engine.settings.uplink, &engine.settings.downlink);
    problems.extend(uplink_problem(engine));
    if engine.interfaces.wired.is_none() {
        problems.push(format!(
            "there is no interface {wired}: plug the adapter in, or correct `downlink`"
        ));
    } else if link::live_port(engine.interfaces.wired, &engine.mirror).is_none() {
        problems.push(format!(
            "{wired} has no carrier: check the cable and the device at its other end"
        ));
    }
    let foreign = |a: &&Address| {
        Some(a.index) == engine.interfaces.wired && !a.ours && !a.address.is_link_local()
    };
    if let Some(address) = engine.mirror.addresses.iter().find(foreign) {
        let address = address.address;
        problems.push(format!(
            "{wired} has the address {address} from elsewhere: keep other network managers away from it"
        ));
    }
    if engine.dhcp_relay.port_taken {
        problems.push(format!(
            "another program holds UDP port 67: stop the DHCP server or relay of this machine (`ss -ulpn sport = 67` \
             names it) and restart the agent; until then, hosts behind {wired} get no address"
        ));
    }
    if engine.mirror.refused() > 0 {
        problems.push(
            "the kernel refuses changes: see the log, and check that the agent has CAP_NET_ADMIN"
                .to_owned(),
        );
    }
    for (ip, host) in engine.hosts.iter() {
        if host.held_until.is_some_and(|until| until > now) {
            problems.push(format!(
                "{ip} is claimed by two machines, one on each side: change the address of one"
            ));
        }
    }
    if engine.proxy_arp.own_address_is_claimed(now) {
        problems.push(format!(
            "another machine claims the address of {uplink}: see the router's list of leases"
        ));
    }
    problems
}

fn uplink_problem(engine: &Engine) -> Option<String> {
    let name = &engine.settings.uplink;
    let Some(index) = engine.interfaces.uplink else {
        return Some(format!(
            "there is no interface {name}: wait for its driver, or correct `uplink`"
        ));
    };
    if link::live_port(Some(index), &engine.mirror).is_none() {
        return Some(format!(
            "{name} is not connected: check the network's name, its key and the distance"
        ));
    }
    if link::uplink_address(index, None, &engine.mirror).is_none() {
        return Some(format!(
            "{name} has no IPv4 address in a subnet with room for hosts: check the DHCP server of the network"
        ));
    }
    None
}

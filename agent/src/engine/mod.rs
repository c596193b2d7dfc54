//! The bridge's decisions, as a pure machine: inputs and the time in, actions out.
//!
//! Nothing here reads a clock, opens a socket or knows tokio. Time is an `Instant` handed in by the caller; timers are data
//! (`next_deadline`); the kernel's addresses, routes and neighbours are desired state, compared with what netlink reports.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod seam;

mod link;

mod turn;

mod host;

mod hosts;

mod pace;

mod proxy_arp;

mod dhcp_relay;

mod kernel_state;

mod report;

#[cfg(test)]
mod invariants;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::{debug, info, trace, warn};

use crate::addr::{IfIndex, Side};
use crate::wire::ethernet;
use crate::wire::{arp, udp};

use dhcp_relay::DhcpRelay;
use host::Place;
use hosts::Hosts;
use kernel_state::{Mirror, Ours};
use link::{Bridge, Conditions, Interfaces};
use proxy_arp::ProxyArp;
use turn::{Counters, Turn};

pub use report::{HostReport, InterfaceReport, Report};
pub use seam::{
    Action, Address, BridgeState, Change, Input, KernelEvent, KernelState, Link, Route, Sysctl,
};

/// What the engine is told once, by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the interface that is a member of the network.
    pub uplink: String,
    /// Name of the interface whose hosts are to become members.
    pub downlink: String,
    /// A DHCP request that already passed this many relays is dropped (D1).
    pub dhcp_max_hops: u8,
}

impl Settings {
    /// Returns the settings for two interfaces, everything else at its default.
    pub fn new(uplink: impl Into<String>, downlink: impl Into<String>) -> Settings {
        Settings {
            uplink: uplink.into(),
            downlink: downlink.into(),
            dhcp_max_hops: 16,
        }
    }
}

/// The bridge's decisions: what it knows, and what follows from what it is told.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    state: BridgeState,
    interfaces: Interfaces,
    /// Interfaces with an open packet socket.
    ports: BTreeMap<Side, IfIndex>,
    /// Present while hosts are served.
    bridge: Option<Bridge>,
    /// The network that the hosts in the table belong to.
    network: Option<(Ipv4Addr, u8)>,
    mirror: Mirror,
    hosts: Hosts,
    proxy_arp: ProxyArp,
    dhcp_relay: DhcpRelay,
    counters: Counters,
    finished: bool,
}

impl Engine {
    /// Returns an engine that knows nothing of the kernel yet; `seed` spreads its timers.
    pub fn new(settings: Settings, seed: u64, _now: Instant) -> Engine {
        Engine {
            state: BridgeState::WaitingForUplink,
            interfaces: Interfaces::default(),
            ports: BTreeMap::new(),
            bridge: None,
            network: None,
            mirror: Mirror::default(),
            hosts: Hosts::new(seed),
            proxy_arp: ProxyArp::default(),
            dhcp_relay: DhcpRelay::new(settings.dhcp_max_hops),
            counters: Counters::new(),
            finished: false,
            settings,
        }
    }

    /// Takes one input and appends what is to be done, in the order in which it must be done: ports, then the kernel's state,
    /// then frames.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, actions: &mut Vec<Action>) {
        if self.finished {
            return;
        }
        let mut frames = Vec::new();
        let is_frame = matches!(input, Input::Frame { .. });
        match input {
            Input::KernelDump(state) => {
                self.mirror.load(state);
                self.supervise(now, BridgeState::Bridging, actions, &mut frames);
            }
            Input::Kernel(event) => {
                self.mirror.take(event);
                self.supervise(now, BridgeState::Bridging, actions, &mut frames);
            }
            Input::Stop => {
                self.supervise(now, BridgeState::Stopping, actions, &mut frames);
            }
            Input::Refused { change, errno } => {
                warn!(?change, errno, "the kernel refused a change");
                self.count("kernel-refused");
                self.mirror.refuse(change, errno, now);
            }
            Input::Port67Taken => {
                warn!("port 67 is taken by another program; DHCP is not relayed");
                self.dhcp_relay.port_taken = true;
            }
            Input::Port67Held => {
                if std::mem::replace(&mut self.dhcp_relay.port_taken, false) {
                    info!("port 67 is free again; DHCP is relayed");
                }
            }
            Input::Frame { side, bytes } => self.handle_frame(side, bytes, now, &mut frames),
            Input::Tick => self.handle_tick(now, &mut frames),
        }
        // Comparing hundreds of hosts for each frame of a flood would cost the frames that matter.
        if self.hosts.take_rerouted() || !is_frame {
            self.reconcile(now, actions);
        }
        let sends = frames.into_iter();
        actions.extend(sends.map(|(side, frame)| Action::Send { side, frame }));
        if self.state == BridgeState::Stopping {
            self.finished = true;
            actions.push(Action::Finished);
        }
    }

    /// Returns when `Input::Tick` is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let deadlines = [
            self.mirror.next_deadline(),
            self.hosts.next_deadline(),
            self.proxy_arp.next_deadline(),
            self.dhcp_relay.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Returns what `footbridge status` shows.
    pub fn report(&self, now: Instant) -> Report {
        Report::new(self, now)
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    /// Draws the consequences of a change of the interfaces, or of the wish to end.
    fn supervise(
        &mut self,
        now: Instant,
        wish: BridgeState,
        actions: &mut Vec<Action>,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let before = self.interfaces;
        self.interfaces = Interfaces {
            uplink: link::resolve(&self.settings.uplink, before.uplink, &self.mirror),
            wired: link::resolve(&self.settings.downlink, before.wired, &self.mirror),
        };
        let uplink = self.uplink();
        let wired = link::live_port(self.interfaces.wired, &self.mirror);
        let conditions = Conditions {
            uplink_ready: uplink.is_some(),
            cable: wired.is_some(),
            stop: wish == BridgeState::Stopping,
        };
        let from = self.state;
        self.state = link::next_state(from, conditions);
        self.switch_ports(actions);
        let bridge = match (self.state, uplink, wired) {
            (BridgeState::Bridging, Some((uplink, address)), Some(wired)) => Some(Bridge {
                uplink,
                wired,
                address: address.address,
                prefix: address.prefix,
                gateway: self.mirror.gateway(uplink.index),
            }),
            _ => None,
        };
        self.switch_bridge(bridge, now, frames);
        if from != self.state {
            let to = self.state;
            info!(?from, ?to, "bridge state changed");
            actions.push(Action::StateChanged { from, to });
        }
    }

    fn uplink(&self) -> Option<(link::Port, Address)> {
        let port = link::live_port(self.interfaces.uplink, &self.mirror)?;
        let in_use = self.bridge.map(|bridge| bridge.address);
        Some((
            port,
            link::uplink_address(port.index, in_use, &self.mirror)?,
        ))
    }

    /// Opens and closes packet sockets. They are open whenever an interface is there and was up once, so that no frame is
    /// missed when the bridge begins; on the uplink promiscuous, because a radio's firmware otherwise answers and drops ARP
    /// for addresses it does not know as its own.
    fn switch_ports(&mut self, actions: &mut Vec<Action>) {
        for (side, found) in [
            (Side::Uplink, self.interfaces.uplink),
            (Side::Wired, self.interfaces.wired),
        ] {
            let stopping = self.state == BridgeState::Stopping;
            let found = found.filter(|_| !stopping);
            let open = self.ports.get(&side).copied();
            if open.is_some() && open != found {
                self.ports.remove(&side);
                actions.push(Action::ClosePort { side });
            }
            let links = &self.mirror.links;
            let usable = |index: &IfIndex| {
                links
                    .get(index)
                    .is_some_and(|link| link.up && link.mac.is_some())
            };
            if let Some(index) = found.filter(usable)
                && !self.ports.contains_key(&side)
            {
                self.ports.insert(side, index);
                actions.push(Action::OpenPort {
                    side,
                    index,
                    promiscuous: side == Side::Uplink,
                });
            }
        }
    }

    /// Begins, ends or changes the serving of hosts.
    fn switch_bridge(
        &mut self,
        bridge: Option<Bridge>,
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let before = std::mem::replace(&mut self.bridge, bridge);
        if before == bridge {
            return;
        }
        let place = |bridge: Bridge| (bridge.uplink, bridge.wired, bridge.network(), bridge.prefix);
        let same_place = before.map(place) == bridge.map(place);
        if !same_place {
            self.hosts.interrupt(now);
            self.proxy_arp.clear();
        }
        if before.map(|b| b.address) != bridge.map(|b| b.address) {
            self.dhcp_relay.clear();
        }
        let Some(bridge) = bridge else {
            return;
        };
        debug!(address = %bridge.address, prefix = bridge.prefix, gateway = ?bridge.gateway, "bridge changed");
        let network = Some((bridge.network(), bridge.prefix));
        let same_network = std::mem::replace(&mut self.network, network) == network;
        self.hosts.retain(|ip, side| {
            same_network
                && bridge.may_be_host(ip)
                && (side == Side::Uplink || bridge.gateway != Some(ip))
        });
        if !same_place {
            self.hosts.recall(now);
        }
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut self.counters,
            frames,
        };
        self.proxy_arp.ask_gateway(&mut turn);
        for (ip, mac) in self.mirror.neighbours(bridge.wired.index) {
            self.hosts.adopt(&mut turn, ip, mac);
        }
        self.hosts.handle_tick(&mut turn);
    }

    fn handle_frame(
        &mut self,
        side: Side,
        bytes: &[u8],
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let Some(bridge) = self.bridge else {
            self.count("frame-while-waiting");
            return;
        };
        let frame = match ethernet::decode(bytes) {
            Ok(frame) => frame,
            Err(reason) => {
                trace!(%side, %reason, "frame dropped");
                self.count("frame-malformed");
                return;
            }
        };
        if [bridge.uplink.mac, bridge.wired.mac].contains(&frame.source) {
            self.count("frame-own");
            return;
        }
        let group = frame.destination.octets()[0] & 1 != 0;
        if !group && frame.destination != bridge.port(side).mac {
            self.count("frame-not-for-us");
            return;
        }
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut self.counters,
            frames,
        };
        match frame.ether_type {
            ethernet::TYPE_ARP => match arp::decode(&frame) {
                Ok(arp) => self
                    .proxy_arp
                    .handle_arp(&mut turn, &mut self.hosts, side, arp),
                Err(reason) => {
                    trace!(%side, %reason, "ARP packet dropped");
                    turn.count("arp-malformed");
                }
            },
            ethernet::TYPE_IPV4 => match udp::decode(&frame) {
                Ok(datagram) => {
                    let from = Place {
                        mac: frame.source,
                        side,
                    };
                    self.dhcp_relay
                        .handle_datagram(&mut turn, &mut self.hosts, from, &datagram)
                }
                Err(reason) => {
                    trace!(%side, %reason, "datagram dropped");
                    turn.count("udp-malformed");
                }
            },
            _ => turn.count("frame-other"),
        }
    }

    fn handle_tick(&mut self, now: Instant, frames: &mut Vec<(Side, Vec<u8>)>) {
        self.dhcp_relay.handle_tick(now);
        let Some(bridge) = self.bridge else {
            self.hosts.handle_idle_tick(now);
            return;
        };
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut self.counters,
            frames,
        };
        for (ip, side) in self.hosts.handle_tick(&mut turn) {
            self.proxy_arp
                .answer_verified(&mut turn, &self.hosts, ip, side);
        }
        self.proxy_arp.handle_tick(&mut turn);
    }

    /// Brings the kernel's state to what it should be.
    fn reconcile(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wanted = self.wanted();
        let changes = self.mirror.reconcile(&wanted, now);
        actions.extend(changes.into_iter().map(Action::Apply));
    }

    fn wanted(&self) -> Ours {
        let mut wanted = Ours::default();
        if self.state == BridgeState::Stopping {
            return wanted;
        }
        wanted.up.extend(self.interfaces.wired);
        let Some(bridge) = self.bridge else {
            return wanted;
        };
        let index = bridge.wired.index;
        wanted.sysctls = kernel_state::held_sysctls(bridge.uplink.index, index);
        wanted.addresses.insert((index, bridge.address));
        for (ip, mac) in self.hosts.routed() {
            wanted.routes.insert((index, ip), Some(bridge.address));
            wanted.neighbours.insert((index, ip), mac);
        }
        wanted
    }
}

/// Returns a moment for tests to begin at; what they do with time from there is arithmetic.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise"
)]
fn test_clock() -> Instant {
    Instant::now()
}

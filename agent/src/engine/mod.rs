//! The bridge's decisions, as a pure machine: inputs and the time in, actions out.
//!
//! Nothing here reads a clock, opens a socket or knows tokio. Time is an `Instant` handed in by the caller; timers are data
//! (`next_deadline`); the kernel's addresses, routes and neighbours are desired state, compared with what netlink reports.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod seam;

mod secrets;

mod settings;

mod link;

mod loop_guard;

mod network;

mod bounce;

mod homecoming;

mod roaming;

mod stale_address;

mod supervision;

mod turn;

mod host;

mod table;

mod hosts;

mod ageing;

mod reminders;

mod bearings;

mod moves;

mod traffic;

mod gateway;

mod mix;

mod pace;

mod questions;

mod proxy_arp;

mod dhcp_relay;

mod dhcp_ladder;

mod dhcp_crossing;

mod dhcp_transactions;

mod dhcp_renewals;

mod dhcp_admission;

mod discovery;

mod fleet;

mod own_records;

mod responder;

mod radio;

mod kernel_state;

mod mirror;

mod isolation;

mod doctor;

mod report;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;

#[cfg(test)]
mod invariants;

#[cfg(test)]
mod starvation;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::{info, trace, warn};

use crate::addr::{IfIndex, Side};
use crate::wire::{self, arp, ethernet, udp};

use bounce::Bounce;
use dhcp_relay::DhcpRelay;
use discovery::Discovery;
use fleet::Presence;
use homecoming::Homecoming;
use host::Place;
use hosts::Hosts;
use isolation::Isolation;
use link::{Bridge, Interfaces};
use loop_guard::{LoopGuard, Segments};
use mirror::Mirror;
use network::Network;
use pace::Pace;
use proxy_arp::ProxyArp;
use radio::Radio;
use responder::{Responder, Voice};
use secrets::Secrets;
use stale_address::StaleAddress;
use turn::{Counters, Turn};

pub(crate) use mirror::is_done_already;

pub use dhcp_crossing::Way;
pub use doctor::Problem;
pub use fleet::{FleetReport, STATUS_PORT};
pub use radio::{
    Association, RadioAction, RadioEvent, RadioReport, RadioState, Stage, SupplicantEvent,
};
pub use report::{DhcpReport, DhcpServerReport, HostReport, InterfaceReport, Report};
pub use seam::{
    Action, Address, BridgeState, Change, Glimpse, Input, KernelEvent, KernelState, Link, Route,
    Sysctl,
};
pub use secrets::RANDOM_BYTES;
pub use settings::{
    Device, DhcpMode, DhcpSettings, DiscoverySettings, FleetSettings, Recovery, Settings,
    WifiSettings, WiredSettings,
};

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
    /// Whether there was a bridge yet.
    served: bool,
    /// The network that the hosts in the table belong to.
    network: Network,
    bounce: Bounce,
    homecoming: Homecoming,
    stale_address: StaleAddress,
    /// Interfaces that were down until we set them up.
    raised: BTreeSet<IfIndex>,
    /// Interfaces that are down because we wanted it so for a moment, until they are up again.
    lowered: BTreeSet<IfIndex>,
    mirror: Mirror,
    hosts: Hosts,
    loop_guard: LoopGuard,
    /// What the loop guard knew when the consequences were last drawn.
    segments: Segments,
    proxy_arp: ProxyArp,
    dhcp_relay: DhcpRelay,
    radio: Radio,
    discovery: Discovery,
    isolation: Isolation,
    /// Where the device tells of itself, while it does.
    presence: Option<Presence>,
    responder: Responder,
    /// Those who ask for its status.
    clients: Pace<Ipv4Addr>,
    counters: Counters,
    finished: bool,
}

impl Engine {
    /// Returns an engine that knows nothing of the kernel yet; `random` is what its secrets are made of.
    pub fn new(settings: Settings, random: [u8; RANDOM_BYTES]) -> Engine {
        let secrets = Secrets::split(random);
        Engine {
            state: BridgeState::WaitingForUplink,
            interfaces: Interfaces::default(),
            ports: BTreeMap::new(),
            bridge: None,
            served: false,
            network: Network::default(),
            bounce: Bounce::default(),
            homecoming: Homecoming::default(),
            stale_address: StaleAddress::default(),
            raised: BTreeSet::new(),
            lowered: BTreeSet::new(),
            mirror: Mirror::default(),
            hosts: Hosts::new(secrets.timers),
            loop_guard: LoopGuard::new(secrets.loop_nonces),
            segments: Segments::Unknown,
            proxy_arp: ProxyArp::default(),
            dhcp_relay: DhcpRelay::new(settings.dhcp.clone(), &secrets),
            radio: Radio::default(),
            discovery: Discovery::new(&settings.discovery),
            isolation: Isolation::default(),
            presence: None,
            responder: Responder::new(secrets.timers),
            clients: Pace::new(fleet::MOST_CLIENTS, fleet::MOST_CLIENTS_OF_AN_ADDRESS),
            counters: Counters::new(),
            finished: false,
            settings,
        }
    }

    /// Takes one input and appends what is to be done, in the order in which it must be done: ports and the state that people see,
    /// then the kernel's state, then frames, and the end last. What is asked of the radio comes anywhere before the frames, and a
    /// farewell before the port that it leaves by is closed.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, actions: &mut Vec<Action>) {
        if self.finished {
            return;
        }
        let mut frames = Vec::new();
        let is_frame = matches!(input, Input::Frame { .. } | Input::Traffic(_));
        let is_tick = matches!(input, Input::Tick);
        // What concerns single hosts is compared for these alone: with a thousand of them, each tells of itself.
        let mut touched = None;
        let mut whole = match input {
            Input::Frame { .. } | Input::Traffic(_) => false,
            Input::Tick => {
                let due = self.mirror.next_deadline();
                self.bridge.is_none() || due.is_some_and(|due| due <= now)
            }
            Input::KernelDump(_)
            | Input::Kernel(_)
            | Input::Refused { .. }
            | Input::Port67Taken
            | Input::Port67Held
            | Input::Radio(_)
            | Input::Configured(_)
            | Input::Stop => true,
        };
        match input {
            Input::KernelDump(state) => {
                self.mirror.load(state, now);
                self.supervise(now, BridgeState::Bridging, actions, &mut frames);
            }
            Input::Kernel(event) => {
                touched = self.mirror.take(event, now);
                whole = touched.is_none();
                if whole {
                    self.supervise(now, BridgeState::Bridging, actions, &mut frames);
                }
            }
            Input::Stop => {
                self.end_presence(actions);
                self.supervise(now, BridgeState::Stopping, actions, &mut frames);
            }
            Input::Refused { change, errno } => {
                touched = mirror::host(&change);
                whole = touched.is_none();
                self.note_refusal(&change);
                if self.mirror.refuse(change.clone(), errno, now) {
                    warn!(?change, errno, "the kernel refused a change");
                    self.count("kernel-refused");
                }
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
            Input::Frame { side, bytes } => {
                self.radio.hear(side, now);
                self.handle_frame(side, bytes, now, &mut frames);
            }
            Input::Traffic(glimpses) => {
                self.hear_traffic(glimpses, now);
                self.handle_traffic(glimpses, now, &mut frames);
            }
            Input::Radio(event) => {
                let before = self.radio.access_point();
                self.radio.take(event, &self.settings, now, actions);
                let after = self.radio.access_point();
                if before.is_some() && after.is_some() && before != after {
                    self.handle_roam(now, &mut frames);
                }
            }
            Input::Configured(settings) => {
                self.configure(settings, actions);
                self.supervise(now, BridgeState::Bridging, actions, &mut frames);
            }
            Input::Tick => self.handle_tick(now, &mut frames),
        }
        let bounced = is_tick && self.bounce.handle_tick(now);
        let readdressed = !is_frame && self.review_address(now);
        self.note_gateway(now);
        let elsewhere = self.review_network(now);
        self.isolation.follow(self.network.number);
        if elsewhere {
            // What was to be said concerned hosts that are nobody's here.
            frames.clear();
        }
        let resupervised =
            bounced || readdressed || elsewhere || self.segments != self.loop_guard.segments();
        if resupervised {
            self.supervise(now, BridgeState::Bridging, actions, &mut frames);
        }
        if !is_frame || resupervised {
            self.review_presence(now, actions);
        }
        let mut moved = self.hosts.take_moved();
        moved.extend(touched);
        whole |= self.bridge.is_none() && !moved.is_empty();
        if whole || resupervised {
            self.reconcile(now, actions);
        } else if !moved.is_empty() {
            self.reconcile_hosts(&moved, now, actions);
        }
        if !is_frame {
            self.review_radio(now, actions);
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
            self.loop_guard.next_deadline(),
            self.bounce.next_deadline(),
            self.homecoming.next_deadline(),
            self.stale_address.next_deadline(),
            self.hosts.next_deadline(),
            self.proxy_arp.next_deadline(),
            self.dhcp_relay.next_deadline(),
            self.radio.next_deadline(),
            self.responder.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Returns since when the gateway does not answer, if it is asked and does not.
    pub fn gateway_silent_since(&self) -> Option<Instant> {
        self.hosts.gateway().silent_since()
    }

    /// Returns what `footbridge status` shows.
    pub fn report(&self, now: Instant) -> Report {
        Report::new(self, now)
    }

    fn note_gateway(&mut self, now: Instant) {
        if let Some(mac) = self.proven_gateway(now) {
            self.network.note_gateway(mac);
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    /// Takes another configuration. Interfaces of other names are found anew; all else is only done otherwise from here on.
    fn configure(&mut self, settings: Settings, actions: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.settings, settings);
        if (&before.uplink, &before.downlink) != (&self.settings.uplink, &self.settings.downlink) {
            self.interfaces = Interfaces::default();
        }
        if before.dhcp != self.settings.dhcp {
            self.dhcp_relay.configure(self.settings.dhcp.clone());
        }
        if before.fleet != self.settings.fleet {
            self.end_presence(actions);
        }
        if before.discovery != self.settings.discovery {
            self.discovery = Discovery::new(&self.settings.discovery);
        }
        let sides = [Side::Wired, Side::Uplink];
        if sides
            .iter()
            .any(|side| before.heard(*side) != self.settings.heard(*side))
        {
            // What a socket lets pass is decided when it is opened.
            let open = std::mem::take(&mut self.ports).into_keys();
            actions.extend(open.map(|side| Action::ClosePort { side }));
        }
        self.radio.configure(&self.settings, actions);
    }

    fn handle_frame(
        &mut self,
        side: Side,
        bytes: &[u8],
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let frame = match ethernet::decode(bytes) {
            Ok(frame) => frame,
            Err(reason) => {
                trace!(%side, %reason, "frame dropped");
                self.count("frame-malformed");
                return;
            }
        };
        let serving = self.bridge.map(|bridge| bridge.address);
        let address = serving.or_else(|| Some(self.uplink()?.1.address));
        if self.guard(now, address, frames, |guard, outlet| {
            guard.handle_frame(side, &frame, outlet)
        }) {
            return;
        }
        let is_mdns = || frame.destination == wire::discovery::group_mac(wire::mdns::GROUP);
        if self.presence.is_some() && is_mdns() {
            self.hear_mdns(side, &frame, now, frames);
        }
        let Some(bridge) = self.bridge else {
            self.count("frame-while-waiting");
            return;
        };
        if [bridge.uplink.mac, bridge.wired.mac].contains(&frame.source) {
            self.count("frame-own");
            return;
        }
        if side == Side::Uplink {
            self.isolation.hear(frame.source);
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
            ethernet::TYPE_IPV4 | ethernet::TYPE_WAKE_ON_LAN => {
                let from = Place {
                    mac: frame.source,
                    side,
                };
                self.handle_packet(from, &frame, now, frames);
            }
            _ => turn.count("frame-other"),
        }
    }

    fn handle_traffic(
        &mut self,
        glimpses: &[Glimpse],
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        if let Some(bridge) = self.bridge {
            let mut turn = Turn {
                now,
                bridge,
                counters: &mut self.counters,
                frames,
            };
            self.hosts.handle_traffic(&mut turn, glimpses);
            for station in traffic::stations_of_uplink(&turn, glimpses) {
                self.isolation.hear(station);
            }
            for (ip, station) in self.hosts.strangers(&turn, glimpses) {
                self.proxy_arp.look_for(&mut turn, Side::Wired, ip, station);
            }
        }
    }

    /// Takes a packet that is discovery's or DHCP's.
    fn handle_packet(
        &mut self,
        from: Place,
        frame: &ethernet::Frame<'_>,
        now: Instant,
        frames: &mut Vec<(Side, Vec<u8>)>,
    ) {
        let Some(bridge) = self.bridge else {
            return;
        };
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut self.counters,
            frames,
        };
        let (side, hosts) = (from.side, &mut self.hosts);
        match wire::discovery::decode(frame) {
            Ok(Some(heard)) => {
                let proxy_arp = &mut self.proxy_arp;
                return self
                    .discovery
                    .handle(&mut turn, hosts, proxy_arp, from, &heard);
            }
            Ok(None) => {}
            Err(reason) => {
                trace!(%side, %reason, "discovery dropped");
                return turn.count("discovery-malformed");
            }
        }
        match udp::decode(frame) {
            Ok(datagram) => self
                .dhcp_relay
                .handle_datagram(&mut turn, hosts, from, &datagram),
            Err(reason) => {
                trace!(%side, %reason, "datagram dropped");
                turn.count("udp-malformed");
            }
        }
    }

    fn handle_tick(&mut self, now: Instant, frames: &mut Vec<(Side, Vec<u8>)>) {
        let address = self.uplink().map(|(_, address)| address.address);
        self.guard(now, address, frames, LoopGuard::handle_tick);
        self.dhcp_relay.handle_tick(now);
        self.responder.handle_tick(&mut Voice {
            now,
            counters: &mut self.counters,
            frames,
        });
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
        for ip in self.proxy_arp.handle_tick(&mut turn) {
            self.isolation.miss(ip, now);
        }
        self.homecoming.handle_tick(&mut turn, &self.hosts);
    }
}

/// Returns a moment for tests to begin at; what they do with time from there is arithmetic.
#[cfg(any(test, feature = "fuzzing"))]
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise"
)]
pub(crate) fn test_clock() -> Instant {
    Instant::now()
}

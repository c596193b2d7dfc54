//! What the engine does because of the interfaces: ports opened and closed, the bridge begun, changed and ended, and the kernel's
//! state brought to what that needs.
//!
//! What follows from which interfaces is decided in `link`; here it is drawn.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::{debug, info, warn};

use crate::addr::{IfIndex, Side};

use super::kernel_state::{self, Ours};
use super::link::{self, Bridge, Conditions, Interfaces};
use super::loop_guard::{LoopGuard, Outlet, Ports, Segments};
use super::turn::Turn;
use super::{Action, Address, BridgeState, Change, Engine};

impl Engine {
    /// Draws the consequences of a change of the interfaces, or of the wish to end.
    pub(super) fn supervise(
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
        let stop = wish == BridgeState::Stopping;
        let uplink = self.uplink();
        self.watch_network(uplink, now);
        let wired = self.wired();
        let ports = link::live_port(self.interfaces.uplink, &self.mirror)
            .zip(wired)
            .map(|(uplink, wired)| Ports { uplink, wired });
        let address = uplink.map(|(_, address)| address.address);
        self.guard(now, address, frames, |guard, outlet| {
            guard.watch(ports.filter(|_| !stop), outlet);
        });
        self.segments = self.loop_guard.segments();
        // The cable that we pulled ourselves is as good as it was.
        let bouncing = wired.is_none() && self.is_bouncing();
        let conditions = Conditions {
            uplink_ready: uplink.is_some(),
            cable: wired.is_some() || bouncing,
            segments: if bouncing {
                Segments::Separate
            } else {
                self.segments
            },
            stop,
        };
        let from = self.state;
        self.state = link::next_state(from, conditions);
        self.switch_ports(actions);
        self.watch_radio(actions);
        let served = self.state == BridgeState::Bridging && self.segments == Segments::Separate;
        let bridge = match (uplink, wired) {
            (Some((uplink, address)), Some(wired)) if served => Some(Bridge {
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
            if to == BridgeState::Loop {
                let (uplink, wired) = (&self.settings.uplink, &self.settings.downlink);
                warn!(
                    "{wired} and {uplink} are on one network: unplug {wired} from the access point or its switch"
                );
            }
            actions.push(Action::StateChanged { from, to });
        }
    }

    /// Lets the loop guard do something.
    pub(super) fn guard<T>(
        &mut self,
        now: Instant,
        address: Option<Ipv4Addr>,
        frames: &mut Vec<(Side, Vec<u8>)>,
        act: impl FnOnce(&mut LoopGuard, &mut Outlet<'_>) -> T,
    ) -> T {
        let mut outlet = Outlet {
            now,
            address,
            counters: &mut self.counters,
            frames,
        };
        act(&mut self.loop_guard, &mut outlet)
    }

    /// Returns the uplink and the address to bridge with, if it is one of the network that the uplink is in.
    pub(super) fn uplink(&self) -> Option<(link::Port, Address)> {
        if self.stale_address.is_stale() {
            return None;
        }
        let port = link::live_port(self.interfaces.uplink, &self.mirror)?;
        let in_use = self.bridge.map(|bridge| bridge.address);
        Some((
            port,
            link::uplink_address(port.index, in_use, &self.mirror)?,
        ))
    }

    /// Returns the wired port, unless it is being interrupted.
    fn wired(&mut self) -> Option<link::Port> {
        let wired = link::live_port(self.interfaces.wired, &self.mirror);
        self.bounce.watch(self.interfaces.wired, wired.is_some());
        wired.filter(|port| self.bounce.down() != Some(port.index))
    }

    /// Returns whether the wired link is interrupted on purpose.
    pub(super) fn is_bouncing(&self) -> bool {
        let wired = self.interfaces.wired;
        wired.is_some_and(|index| self.bounce.is_under_way(index))
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
                    protocols: self.settings.heard(side),
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
            self.homecoming.clear();
            self.discovery.clear();
        }
        if before.map(|b| b.address) != bridge.map(|b| b.address) {
            self.dhcp_relay.clear();
        }
        let Some(bridge) = bridge else {
            return;
        };
        debug!(address = %bridge.address, prefix = bridge.prefix, gateway = ?bridge.gateway, "bridge changed");
        self.hosts.retain(|ip, side| {
            bridge.may_be_host(ip) && (side == Side::Uplink || bridge.gateway != Some(ip))
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
        self.hosts.watch_gateway(&mut turn);
        if !std::mem::replace(&mut self.served, true) {
            for (ip, mac) in self.mirror.neighbours(bridge.wired.index) {
                self.hosts.adopt(&mut turn, ip, mac);
            }
        }
        self.hosts.handle_tick(&mut turn);
    }

    /// Brings the kernel's state to what it should be.
    pub(super) fn reconcile(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wanted = self.wanted();
        let changes = self.mirror.reconcile(&wanted, now);
        for change in &changes {
            if let Change::SetUp(index) = *change
                && !self.lowered.contains(&index)
            {
                self.raised.insert(index);
            }
            if let Change::SetDown(index) = *change {
                if self.pulled().contains(&index) {
                    self.lowered.insert(index);
                } else {
                    self.raised.remove(&index);
                }
            }
        }
        actions.extend(changes.into_iter().map(Action::Apply));
        let (up, stopping) = (&self.mirror.ours().up, self.state == BridgeState::Stopping);
        // What was down before we came stays so at the end.
        let given_back = |index: &IfIndex| stopping && self.raised.contains(index);
        self.lowered
            .retain(|index| !up.contains(index) && !given_back(index));
    }

    /// Takes note that the kernel refused to set an interface up that was down for a moment only.
    pub(super) fn note_refusal(&mut self, change: &Change) {
        if let Change::SetUp(index) = *change
            && !self.raised.contains(&index)
        {
            self.lowered.insert(index);
        }
    }

    /// Returns the interfaces that are to be down for a moment.
    fn pulled(&self) -> BTreeSet<IfIndex> {
        let pulled = [self.bounce.down(), self.stale_address.down()];
        pulled.into_iter().flatten().collect()
    }

    pub(super) fn wanted(&self) -> Ours {
        let mut wanted = Ours::default();
        if self.state == BridgeState::Stopping {
            wanted.down.clone_from(&self.raised);
            wanted.up.extend(self.lowered_links());
            wanted.up.retain(|index| !self.raised.contains(index));
            return wanted;
        }
        if self.takes_over() {
            wanted.clone_from(self.mirror.ours());
        }
        let (wired, pulled) = (self.interfaces.wired, self.pulled());
        let raised = self.raised.iter().copied();
        wanted
            .down
            .extend(raised.filter(|index| Some(*index) != wired));
        wanted.down.extend(&pulled);
        wanted.up.extend(wired);
        wanted.up.extend(self.lowered_links());
        wanted.up.retain(|index| !wanted.down.contains(index));
        let Some(bridge) = self.bridge else {
            return wanted;
        };
        let index = bridge.wired.index;
        wanted.sysctls = kernel_state::held_sysctls(bridge.uplink.index, index);
        wanted.addresses.insert((index, bridge.address));
        for (ip, host) in self.hosts.iter() {
            wanted.want_host(&bridge, ip, host);
        }
        wanted
    }

    fn lowered_links(&self) -> impl Iterator<Item = IfIndex> {
        let lowered = self.lowered.iter().copied();
        lowered.filter(|index| self.mirror.links.contains_key(index))
    }

    /// Returns whether what a killed process left goes on serving, because this one is about to begin.
    fn takes_over(&self) -> bool {
        !self.served && self.loop_guard.is_asking() && self.uplink().is_some()
    }

    /// Brings the kernel's state of these hosts alone to what it should be.
    pub(super) fn reconcile_hosts(
        &mut self,
        hosts: &BTreeSet<Ipv4Addr>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let mut wanted = Ours::default();
        if let Some(bridge) = &self.bridge {
            for &ip in hosts {
                if let Some(host) = self.hosts.find(ip) {
                    wanted.want_host(bridge, ip, host);
                }
            }
        }
        let changes = self.mirror.reconcile_hosts(hosts, &wanted, now);
        actions.extend(changes.into_iter().map(Action::Apply));
    }
}

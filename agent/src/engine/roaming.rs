//! What the engine does when the uplink leaves its network, comes back to it, or enters another.
//!
//! How networks are told apart is decided in `network`; here its consequences are drawn.

use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::info;

use crate::addr::{MacAddr, Side};

use super::network::Judgement;
use super::turn::Turn;
use super::{Address, Engine, link};

impl Engine {
    /// Judges which network the uplink is in by its addresses, or takes note that it is away.
    pub(super) fn watch_network(&mut self, uplink: Option<(link::Port, Address)>, now: Instant) {
        let Some((port, address)) = uplink else {
            return self.interrupt_network(now);
        };
        let subnet = link::network(address.address, address.prefix);
        let near = |gateway: &Ipv4Addr| link::network(*gateway, address.prefix) == subnet;
        let gateways: Vec<Ipv4Addr> = self.mirror.gateways(port.index).filter(near).collect();
        let judgement = self
            .network
            .see_addresses((subnet, address.prefix), &gateways);
        if judgement == Some(Judgement::Another) {
            self.leave_network(now);
        }
    }

    /// Takes note that the uplink may be elsewhere from here on, which is for the gateway to tell.
    fn interrupt_network(&mut self, now: Instant) {
        let gateway = self.proven_gateway(now);
        self.network.interrupt(gateway);
        self.hosts.gateway.remember(self.network.gateway_mac());
    }

    /// Returns where the network's gateway is, if it answered us there.
    pub(super) fn proven_gateway(&self, now: Instant) -> Option<MacAddr> {
        let gateway = self.network.gateway()?;
        let place = self.hosts.proven(gateway, Side::Uplink, now);
        place.map(|place| place.mac)
    }

    /// Judges by who answers as the gateway whether the uplink is back in its network. Returns whether it is in another one.
    pub(super) fn review_network(&mut self, now: Instant) -> bool {
        if self.bridge.is_none() || !self.network.is_interrupted() {
            return false;
        }
        let answered = self.proven_gateway(now);
        if self.network.gateway().is_some() && answered.is_none() {
            return false;
        }
        self.hosts.gateway.remember(None);
        match self.network.see_gateway(answered) {
            Judgement::Back => {
                self.homecoming.begin(&self.hosts, now);
                false
            }
            Judgement::Another => {
                self.leave_network(now);
                true
            }
        }
    }

    /// Forgets the network that the uplink was in, and has the hosts on the wire ask for addresses of the one it is in.
    fn leave_network(&mut self, now: Instant) {
        info!("the uplink is in another network");
        self.count("network-changed");
        self.hosts.retain(|_, _| false);
        self.hosts.gateway.remember(None);
        self.proxy_arp.clear();
        self.dhcp_relay.clear();
        self.homecoming.clear();
        if self.settings.wired.bounce
            && let Some(port) = link::live_port(self.interfaces.wired, &self.mirror)
        {
            let wired = &self.settings.downlink;
            info!(%wired, "interrupting the wired link, so that hosts ask for new addresses");
            self.count("wired-bounced");
            self.bounce.begin(port.index, now);
        }
    }

    /// Looks at everything anew that may be otherwise at another access point, while serving goes on.
    pub(super) fn handle_roam(&mut self, now: Instant, frames: &mut Vec<(Side, Vec<u8>)>) {
        let Some(bridge) = self.bridge else {
            return;
        };
        self.count("uplink-roamed");
        self.interrupt_network(now);
        self.guard(now, Some(bridge.address), frames, |guard, outlet| {
            guard.ask_again(outlet);
        });
        let mut turn = Turn {
            now,
            bridge,
            counters: &mut self.counters,
            frames,
        };
        self.hosts.recognise_gateway(&mut turn);
    }
}

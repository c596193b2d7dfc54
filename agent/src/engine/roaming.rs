//! What the engine does when the uplink leaves its network, comes back to it, or enters another.
//!
//! How networks are told apart is decided in `network`; here its consequences are drawn.

use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::info;

use crate::addr::Side;

use super::network::Judgement;
use super::turn::Turn;
use super::{Address, Engine, link};

impl Engine {
    /// Judges which network the uplink is in by its addresses, or takes note that it is away.
    pub(super) fn watch_network(&mut self, uplink: Option<(link::Port, Address)>, now: Instant) {
        let Some((port, address)) = uplink else {
            let gateway = self.network.gateway();
            let gateway = gateway.and_then(|ip| self.hosts.verified(ip, Side::Uplink, now));
            return self.network.interrupt(gateway.map(|place| place.mac));
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

    /// Judges by the gateway's first answer whether the uplink is back in its network. Returns whether it is in another one.
    pub(super) fn review_network(&mut self, now: Instant) -> bool {
        if self.bridge.is_none() || !self.network.is_interrupted() {
            return false;
        }
        let gateway = self.network.gateway();
        let answered = gateway.and_then(|ip| self.hosts.verified(ip, Side::Uplink, now));
        if gateway.is_some() && answered.is_none() {
            return false;
        }
        match self.network.see_gateway(answered.map(|place| place.mac)) {
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
        let gateway = bridge.gateway;
        let place = gateway.and_then(|ip| self.hosts.verified(ip, Side::Uplink, now));
        self.network.interrupt(place.map(|place| place.mac));
        // It is its first answer from here on that tells.
        self.hosts
            .retain(|ip, side| side == Side::Wired || Some(ip) != gateway);
        self.guard(now, Some(bridge.address), frames, |guard, outlet| {
            guard.ask_again(outlet);
        });
        if let Some(gateway) = gateway {
            let mut turn = Turn {
                now,
                bridge,
                counters: &mut self.counters,
                frames,
            };
            turn.ask(Side::Uplink, None, gateway);
        }
    }
}

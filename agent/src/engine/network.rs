//! Which network the uplink is in, and whether it is still that one when it comes back.
//!
//! Networks have no names here. Another subnet is another network, and so is another gateway. Since many homes are
//! 192.168.1.0/24 behind 192.168.1.1, so is the same gateway at another hardware address, but only after an interruption: a
//! gateway that is replaced, or impersonated, while the uplink stays changes no network. And only if the gateway of before, asked
//! again, stays silent while the other answers (A10): one packet in a gateway's name must not cost all hosts their leases.

use std::net::Ipv4Addr;

use crate::addr::MacAddr;

/// What is found out after an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is the network of before.
    Back,
    /// It is another one: nobody known is a member of it.
    Another,
}

/// The network as it was last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// How many were entered.
    pub(crate) number: u32,
    subnet: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    gateway_mac: Option<MacAddr>,
    /// Whether the uplink was away and it is not yet known where it came back.
    interrupted: bool,
}

impl Network {
    /// Takes note that the uplink is away, and where its gateway was last, if that is known.
    pub(crate) fn interrupt(&mut self, gateway_mac: Option<MacAddr>) {
        self.gateway_mac = gateway_mac.or(self.gateway_mac);
        self.interrupted = self.subnet.is_some();
    }

    /// Takes note where the gateway is, while the uplink stays: often it falls silent before the uplink is known to be away.
    pub(crate) fn note_gateway(&mut self, mac: MacAddr) {
        if !self.interrupted {
            self.gateway_mac = Some(mac);
        }
    }

    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// Returns where the gateway was last.
    pub(crate) fn gateway_mac(&self) -> Option<MacAddr> {
        self.gateway_mac
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Judges by the uplink's subnet and the gateways of its default routes: a gateway is another one if it took the old one's
    /// place, and none says nothing, because a default route comes a moment after its address.
    pub(crate) fn see_addresses(
        &mut self,
        subnet: (Ipv4Addr, u8),
        gateways: &[Ipv4Addr],
    ) -> Option<Judgement> {
        let before = self.subnet;
        let replaced = |gateway| !gateways.is_empty() && !gateways.contains(&gateway);
        let another = before != Some(subnet) || self.gateway.is_some_and(replaced);
        if another {
            *self = Network {
                number: self.number + 1,
                subnet: Some(subnet),
                ..Network::default()
            };
        }
        self.gateway = self.gateway.or(gateways.first().copied());
        (another && before.is_some()).then_some(Judgement::Another)
    }

    /// Judges by who proved to be the gateway after an interruption; `None` where there is no gateway that could answer.
    pub(crate) fn see_gateway(&mut self, mac: Option<MacAddr>) -> Judgement {
        self.interrupted = false;
        let before = self.gateway_mac;
        self.gateway_mac = mac.or(before);
        if before.is_some() && before != self.gateway_mac {
            self.number += 1;
            Judgement::Another
        } else {
            Judgement::Back
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 24);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
    const B: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);

    fn at_home() -> Network {
        let mut network = Network::default();
        assert_eq!(network.see_addresses(HOME, &[]), None);
        assert_eq!(network.see_addresses(HOME, &[ROUTER]), None);
        network
    }

    #[test]
    fn addresses_tell_networks_apart() {
        let another = Some(Judgement::Another);
        let away = (Ipv4Addr::new(10, 0, 1, 0), 24);
        let cases = [
            (HOME, vec![], None),
            (HOME, vec![ROUTER], None),
            (HOME, vec![OTHER], another),
            (HOME, vec![OTHER, ROUTER], None),
            (away, vec![], another),
            (away, vec![ROUTER], another),
            ((HOME.0, 16), vec![ROUTER], another),
        ];
        for (subnet, gateways, expected) in cases {
            let mut network = at_home();
            let judged = network.see_addresses(subnet, &gateways);
            assert_eq!(judged, expected, "{subnet:?} {gateways:?}");
            assert_eq!(network.see_addresses(subnet, &gateways), None, "once");
        }
    }

    #[test]
    fn the_gateways_hardware_address_tells_after_an_interruption() {
        let mut network = at_home();
        assert!(!network.is_interrupted());
        network.interrupt(Some(A));
        network.interrupt(None);
        assert!(network.is_interrupted());
        assert_eq!(network.see_gateway(Some(A)), Judgement::Back);
        network.interrupt(None);
        assert_eq!(network.see_gateway(Some(B)), Judgement::Another);
        assert_eq!(network.number, 2);
        network.interrupt(None);
        assert_eq!(network.see_gateway(None), Judgement::Back);
    }
}

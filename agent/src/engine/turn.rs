//! What the policies may use while the engine handles one input: the time, the bridge as it stands, frames and counters.
//!
//! Frames are collected here and leave after the kernel's changes of the same turn. So a lease is routed before the client
//! hears of it (D6), and a host that moved is routed to its new place before anybody is told (A6).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use crate::addr::{MacAddr, Side};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::udp;

use super::link::Bridge;

/// How often each thing happened, by a fixed set of names.
pub(crate) type Counters = BTreeMap<&'static str, u64>;

/// One turn of the engine while it is bridging.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) bridge: Bridge,
    pub(crate) counters: &'a mut Counters,
    /// Frames to send, in order.
    pub(crate) frames: &'a mut Vec<(Side, Vec<u8>)>,
}

impl Turn<'_> {
    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    /// Asks who has `target`, with our own address: everybody, or only the station `to`.
    pub(crate) fn ask(&mut self, side: Side, to: Option<MacAddr>, target: Ipv4Addr) {
        let spa = self.bridge.address;
        self.send_arp(side, to.unwrap_or(MacAddr::broadcast()), |sha| Arp {
            operation: Operation::Request,
            sha,
            spa,
            tha: MacAddr::zero(),
            tpa: target,
        });
    }

    /// Asks who has `target` the way a host does that wants it for itself (RFC 5227).
    pub(crate) fn probe(&mut self, side: Side, target: Ipv4Addr) {
        self.send_arp(side, MacAddr::broadcast(), |sha| Arp {
            operation: Operation::Request,
            sha,
            spa: Ipv4Addr::UNSPECIFIED,
            tha: MacAddr::zero(),
            tpa: target,
        });
    }

    /// Tells everybody on a side that `address` is reached through us.
    pub(crate) fn announce(&mut self, side: Side, address: Ipv4Addr) {
        self.count("arp-announced");
        self.send_arp(side, MacAddr::broadcast(), |sha| Arp {
            operation: Operation::Request,
            sha,
            spa: address,
            tha: MacAddr::zero(),
            tpa: address,
        });
    }

    /// Tells one station alone where to reach `address` on its own side: at `at`, which need not be us.
    pub(crate) fn point(&mut self, side: Side, to: MacAddr, address: Ipv4Addr, at: MacAddr) {
        self.count("arp-pointed");
        let arp = Arp {
            operation: Operation::Request,
            sha: at,
            spa: address,
            tha: MacAddr::zero(),
            tpa: address,
        };
        let source = self.bridge.port(side).mac;
        self.frames.push((side, arp::encode_from(source, &arp, to)));
    }

    /// Tells one station that `address` is reached through us.
    pub(crate) fn answer(&mut self, side: Side, to: (MacAddr, Ipv4Addr), address: Ipv4Addr) {
        self.count("arp-answered");
        self.send_arp(side, to.0, |sha| Arp {
            operation: Operation::Reply,
            sha,
            spa: address,
            tha: to.0,
            tpa: to.1,
        });
    }

    fn send_arp(&mut self, side: Side, to: MacAddr, arp: impl FnOnce(MacAddr) -> Arp) {
        let arp = arp(self.bridge.port(side).mac);
        self.frames.push((side, arp::encode(&arp, to)));
    }

    /// Sends a datagram from our hardware address.
    pub(crate) fn send_udp(
        &mut self,
        side: Side,
        from: SocketAddrV4,
        to: (MacAddr, SocketAddrV4),
        payload: &[u8],
    ) {
        match udp::encode((self.bridge.port(side).mac, from), to, payload) {
            Some(frame) => self.frames.push((side, frame)),
            None => self.count("dhcp-too-long"),
        }
    }
}

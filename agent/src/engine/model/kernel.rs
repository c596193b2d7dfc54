//! The kernel as the engine's changes and the story's events leave it, kept apart from what the engine believes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::addr::{IfIndex, Side};
use crate::engine::kernel_state::Ours;
use crate::engine::{Action, Address, KernelEvent, KernelState};

/// What of the kernel's state is the engine's doing.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) ours: Ours,
    /// Interfaces' addresses that are not: the kernel drops what it forwards with the last of any.
    others: BTreeSet<(IfIndex, Ipv4Addr, u8)>,
    /// Open packet sockets.
    pub(crate) ports: BTreeMap<Side, IfIndex>,
    /// Where the status is served.
    pub(crate) status: Option<(IfIndex, Ipv4Addr)>,
    /// Whether a change was ever refused: from then on, what is wanted may come late.
    pub(crate) refused: bool,
}

impl Kernel {
    /// Makes a change, or opens or closes a socket.
    pub(crate) fn perform(&mut self, action: &Action) {
        match action {
            Action::Apply(change) => self.ours.apply(change),
            Action::OpenPort { side, index, .. } => {
                let open = self.ports.insert(*side, *index);
                assert_eq!(open, None, "a second socket on the {side} side");
            }
            Action::ClosePort { side } => {
                assert!(self.ports.remove(side).is_some(), "no socket on {side}");
            }
            Action::OpenStatus { index, address } => {
                let open = self.status.replace((*index, *address));
                assert_eq!(open, None, "a second status socket");
            }
            Action::CloseStatus => {
                assert!(self.status.take().is_some(), "no status socket");
            }
            Action::Send { .. }
            | Action::Radio(_)
            | Action::StateChanged { .. }
            | Action::Finished => {}
        }
    }

    /// Does what an event tells of.
    pub(crate) fn happen(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Link(index, link) if !link.up => self.drop_forwarding(*index),
            KernelEvent::LinkGone(index) => {
                self.drop_forwarding(*index);
                self.ours.addresses.retain(|(on, _)| on != index);
                self.others.retain(|(on, ..)| on != index);
                self.ours
                    .sysctls
                    .retain(|sysctl, _| sysctl.index != Some(*index));
            }
            KernelEvent::AddressAdded(address) if !address.ours => {
                self.others.insert(key(address));
            }
            KernelEvent::AddressRemoved(address) => {
                let index = address.index;
                self.others.remove(&key(address));
                if address.prefix == 32 {
                    self.ours.addresses.remove(&(index, address.address));
                }
                let others = self.others.iter().map(|(on, ..)| on);
                let ours = self.ours.addresses.iter().map(|(on, _)| on);
                if !others.chain(ours).any(|on| *on == index) {
                    self.drop_forwarding(index);
                }
            }
            KernelEvent::HostRouteDisplaced(host) => {
                let before = self.ours.routes.len();
                self.ours.routes.retain(|(_, to), _| to != host);
                // It is put back later, as what was refused is.
                self.refused |= self.ours.routes.len() < before;
            }
            KernelEvent::RouteRemoved(route) => {
                self.ours.routes.remove(&(route.index, route.destination.0));
            }
            KernelEvent::NeighbourRemoved(index, host) => {
                self.ours.neighbours.remove(&(*index, *host));
            }
            KernelEvent::Link(..)
            | KernelEvent::AddressAdded(_)
            | KernelEvent::RouteAdded(_)
            | KernelEvent::RouteReplaced(_)
            | KernelEvent::NeighbourSet(..) => {}
        }
    }

    /// Becomes what a dump says; held sysctls are in no dump.
    pub(crate) fn become_dump(&mut self, state: &KernelState) {
        let sysctls = std::mem::take(&mut self.ours.sysctls);
        self.ours = Ours::default();
        self.ours.sysctls = sysctls;
        let ours = state.addresses.iter().filter(|address| address.ours);
        let ours = ours.map(|address| (address.index, address.address));
        self.ours.addresses.extend(ours);
        let others = state.addresses.iter().filter(|address| !address.ours);
        self.others = others.map(key).collect();
        let neighbours = state.neighbours.iter();
        self.ours
            .neighbours
            .extend(neighbours.map(|(key, mac)| (*key, *mac)));
    }

    /// What the kernel drops without a word when an interface is set down, or loses its last address.
    fn drop_forwarding(&mut self, down: IfIndex) {
        self.ours.routes.retain(|(index, _), _| *index != down);
        self.ours.neighbours.retain(|(index, _), _| *index != down);
    }

    /// Checks that the kernel is as the engine wants it.
    pub(crate) fn check(&self, wanted: &Ours) {
        if self.refused {
            return;
        }
        assert_eq!(self.ours.addresses, wanted.addresses, "addresses");
        assert_eq!(self.ours.routes, wanted.routes, "routes");
        assert_eq!(self.ours.neighbours, wanted.neighbours, "neighbours");
        assert_eq!(self.ours.sysctls, wanted.sysctls, "sysctls");
    }
}

fn key(address: &Address) -> (IfIndex, Ipv4Addr, u8) {
    (address.index, address.address, address.prefix)
}

//! The kernel's state as it should be, and the changes that lead there from what the kernel has of it (`mirror`).
//!
//! What a killed predecessor left carries the same mark and is found in the mirror like anything else of ours: what is wanted is
//! kept, the rest goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::addr::{IfIndex, MacAddr, Side};

use super::host::{Host, Place};
use super::link::Bridge;
use super::{Change, Link, Sysctl};

/// State that is ours: the wanted one, or what of it the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) up: BTreeSet<IfIndex>,
    /// Interfaces that are not to be up; those that are in neither set are not our business.
    pub(crate) down: BTreeSet<IfIndex>,
    pub(crate) sysctls: BTreeMap<Sysctl, u8>,
    pub(crate) addresses: BTreeSet<(IfIndex, Ipv4Addr)>,
    /// Host routes and their preferred source; `None` where the kernel did not say.
    pub(crate) routes: BTreeMap<(IfIndex, Ipv4Addr), Option<Ipv4Addr>>,
    pub(crate) neighbours: BTreeMap<(IfIndex, Ipv4Addr), MacAddr>,
}

/// Returns the values the bridge depends on (A9): both interfaces forward and trust each other's return paths, neither tells
/// hosts to bypass the bridge or believes such advice, and each answers ARP for its own addresses alone.
pub(crate) fn held_sysctls(uplink: IfIndex, wired: IfIndex) -> BTreeMap<Sysctl, u8> {
    const EACH: [(&str, u8); 7] = [
        ("forwarding", 1),
        ("send_redirects", 0),
        ("accept_redirects", 0),
        ("arp_ignore", 1),
        ("arp_announce", 2),
        ("rp_filter", 2),
        ("proxy_arp", 0),
    ];
    // What is said of `all` counts as well. Of arp_announce and rp_filter the larger value does, and there is none larger than
    // these; an interface that forwards accepts redirects only if both say so, and its forwarding is its own. But one word of
    // `all` is enough to send redirects, to answer ARP for others, and not to answer for an address of the interface's own. It
    // is held at the kernel's default, which changes nothing for other interfaces where nobody changed it.
    const ALL: [(&str, u8); 3] = [("send_redirects", 0), ("arp_ignore", 0), ("proxy_arp", 0)];
    let hold = |index, settings: &[(&'static str, u8)]| {
        let settings = settings.iter().copied();
        let held = settings.map(|(setting, value)| (Sysctl { index, setting }, value));
        held.collect::<BTreeMap<_, _>>()
    };
    let mut held = hold(None, &ALL);
    held.extend(hold(Some(uplink), &EACH));
    held.extend(hold(Some(wired), &EACH));
    held
}

/// Returns the changes that lead from `actual` to `wanted`: what is added first, from the ground up, then what is removed, in
/// the reverse order.
pub(crate) fn diff(wanted: &Ours, actual: &Ours) -> Vec<Change> {
    let mut changes = Vec::new();
    additions(wanted, actual, &mut changes);
    removals(wanted, actual, &mut changes);
    changes
}

fn additions(wanted: &Ours, actual: &Ours, changes: &mut Vec<Change>) {
    changes.extend(
        wanted
            .up
            .difference(&actual.up)
            .map(|&index| Change::SetUp(index)),
    );
    for (&sysctl, &value) in &wanted.sysctls {
        if actual.sysctls.get(&sysctl) != Some(&value) {
            changes.push(Change::HoldSysctl { sysctl, value });
        }
    }
    for &(index, address) in wanted.addresses.difference(&actual.addresses) {
        changes.push(Change::AddAddress { index, address });
    }
    for (&(index, host), &source) in &wanted.routes {
        if let Some(source) = source
            && actual.routes.get(&(index, host)) != Some(&Some(source))
        {
            changes.push(Change::AddRoute {
                index,
                host,
                source,
            });
        }
    }
    for (&(index, host), &mac) in &wanted.neighbours {
        if actual.neighbours.get(&(index, host)) != Some(&mac) {
            changes.push(Change::SetNeighbour { index, host, mac });
        }
    }
}

fn removals(wanted: &Ours, actual: &Ours, changes: &mut Vec<Change>) {
    for &(index, host) in actual.neighbours.keys() {
        if !wanted.neighbours.contains_key(&(index, host)) {
            changes.push(Change::RemoveNeighbour { index, host });
        }
    }
    for &(index, host) in actual.routes.keys() {
        if !wanted.routes.contains_key(&(index, host)) {
            changes.push(Change::RemoveRoute { index, host });
        }
    }
    for &(index, address) in actual.addresses.difference(&wanted.addresses) {
        changes.push(Change::RemoveAddress { index, address });
    }
    for &sysctl in actual.sysctls.keys() {
        if !wanted.sysctls.contains_key(&sysctl) {
            changes.push(Change::ReleaseSysctl { sysctl });
        }
    }
    let down = wanted.down.intersection(&actual.up);
    changes.extend(down.map(|&index| Change::SetDown(index)));
}

impl Ours {
    /// Adds what a host needs: on the wire a route, for which the neighbour is known; and for the gateway (A10) that no packet
    /// moves it, once it answered.
    pub(crate) fn want_host(&mut self, bridge: &Bridge, ip: Ipv4Addr, host: &Host) {
        if !host.is_present() {
            return;
        }
        let Place { mac, side } = host.place;
        let index = bridge.port(side).index;
        match side {
            Side::Wired => {
                self.routes.insert((index, ip), Some(bridge.address));
                self.neighbours.insert((index, ip), mac);
            }
            Side::Uplink if bridge.gateway == Some(ip) && host.proven => {
                self.neighbours.insert((index, ip), mac);
            }
            Side::Uplink => {}
        }
    }

    /// Returns the part that concerns these hosts.
    pub(crate) fn part(&self, hosts: &BTreeSet<Ipv4Addr>, links: &BTreeMap<IfIndex, Link>) -> Ours {
        let mut part = Ours::default();
        for &index in links.keys() {
            for &host in hosts {
                let key = (index, host);
                part.routes
                    .extend(self.routes.get(&key).map(|source| (key, *source)));
                part.neighbours
                    .extend(self.neighbours.get(&key).map(|mac| (key, *mac)));
            }
        }
        part
    }

    /// Takes a change as made.
    pub(crate) fn apply(&mut self, change: &Change) {
        match *change {
            Change::SetUp(index) => {
                self.up.insert(index);
            }
            Change::SetDown(index) => {
                self.up.remove(&index);
                self.forget_forwarding(index);
            }
            Change::AddAddress { index, address } => {
                self.addresses.insert((index, address));
            }
            Change::RemoveAddress { index, address } => {
                self.addresses.remove(&(index, address));
            }
            Change::AddRoute {
                index,
                host,
                source,
            } => {
                self.routes.insert((index, host), Some(source));
            }
            Change::RemoveRoute { index, host } => {
                self.routes.remove(&(index, host));
            }
            Change::SetNeighbour { index, host, mac } => {
                self.neighbours.insert((index, host), mac);
            }
            Change::RemoveNeighbour { index, host } => {
                self.neighbours.remove(&(index, host));
            }
            Change::HoldSysctl { sysctl, value } => {
                self.sysctls.insert(sysctl, value);
            }
            Change::ReleaseSysctl { sysctl } => {
                self.sysctls.remove(&sysctl);
            }
        }
    }

    /// Takes a change as not made.
    pub(crate) fn undo(&mut self, change: &Change) {
        match *change {
            Change::SetUp(index) => {
                self.up.remove(&index);
            }
            Change::SetDown(index) => {
                self.up.insert(index);
            }
            Change::AddAddress { index, address } => {
                self.addresses.remove(&(index, address));
            }
            Change::AddRoute { index, host, .. } => {
                self.routes.remove(&(index, host));
            }
            Change::SetNeighbour { index, host, .. } => {
                self.neighbours.remove(&(index, host));
            }
            Change::HoldSysctl { sysctl, .. } => {
                self.sysctls.remove(&sysctl);
            }
            Change::RemoveAddress { index, address } => {
                self.addresses.insert((index, address));
            }
            Change::RemoveRoute { index, host } => {
                self.routes.insert((index, host), None);
            }
            Change::RemoveNeighbour { index, host } => {
                self.neighbours.insert((index, host), MacAddr::zero());
            }
            Change::ReleaseSysctl { sysctl } => {
                self.sysctls.insert(sysctl, u8::MAX);
            }
        }
    }

    /// Forgets what vanished with an interface.
    pub(crate) fn forget(&mut self, gone: IfIndex) {
        self.up.remove(&gone);
        self.addresses.retain(|(index, _)| *index != gone);
        self.sysctls.retain(|sysctl, _| sysctl.index != Some(gone));
        self.forget_forwarding(gone);
    }

    /// Forgets what the kernel drops, in part without a message, when an interface is set down or loses its last address.
    pub(crate) fn forget_forwarding(&mut self, down: IfIndex) {
        self.routes.retain(|(index, _), _| *index != down);
        self.neighbours.retain(|(index, _), _| *index != down);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = (IfIndex, Ipv4Addr)> {
        (1u32..4, 0u8..6).prop_map(|(index, last)| (IfIndex(index), Ipv4Addr::new(10, 0, 0, last)))
    }

    prop_compose! {
        fn any_ours()(
            up in proptest::collection::btree_set((1u32..4).prop_map(IfIndex), 0..3),
            addresses in proptest::collection::btree_set(any_key(), 0..4),
            routes in proptest::collection::btree_map(any_key(), 0u8..3, 0..6),
            neighbours in proptest::collection::btree_map(any_key(), 0u8..3, 0..6),
            sysctls in proptest::collection::btree_map(1u32..4, 0u8..3, 0..3),
        ) -> Ours {
            let sysctl = |index| Sysctl { index: Some(IfIndex(index)), setting: "forwarding" };
            Ours {
                up,
                down: BTreeSet::new(),
                addresses,
                routes: routes.into_iter().map(|(key, last)| (key, Some(Ipv4Addr::new(10, 9, 9, last)))).collect(),
                neighbours: neighbours.into_iter().map(|(key, last)| (key, MacAddr(2, 0, 0, 0, 0, last))).collect(),
                sysctls: sysctls.into_iter().map(|(index, value)| (sysctl(index), value)).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_changed_is_what_is_wanted(wanted in any_ours(), mut actual in any_ours()) {
            for change in diff(&wanted, &actual) {
                actual.apply(&change);
            }
            prop_assert_eq!(diff(&wanted, &actual), []);
        }
    }

    #[test]
    fn a9_settings_held() {
        let mut lines = String::new();
        for (sysctl, value) in held_sysctls(IfIndex(2), IfIndex(3)) {
            let index = sysctl
                .index
                .map_or("all".to_owned(), |index| index.to_string());
            lines += &format!("{index} {}={value}\n", sysctl.setting);
        }
        expect![[r#"
            all arp_ignore=0
            all proxy_arp=0
            all send_redirects=0
            2 accept_redirects=0
            2 arp_announce=2
            2 arp_ignore=1
            2 forwarding=1
            2 proxy_arp=0
            2 rp_filter=2
            2 send_redirects=0
            3 accept_redirects=0
            3 arp_announce=2
            3 arp_ignore=1
            3 forwarding=1
            3 proxy_arp=0
            3 rp_filter=2
            3 send_redirects=0
        "#]]
        .assert_eq(&lines);
    }
}

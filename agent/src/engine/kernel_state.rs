//! The kernel's state as it should be, as it is believed to be, and the changes between the two.
//!
//! `Mirror` is filled by netlink and, ahead of it, by the engine's own changes, so that nothing is asked for twice; a refused
//! change is taken back and tried again later. What a killed predecessor left carries the same mark and is found in the
//! mirror like anything else of ours: what is wanted is kept, the rest goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::{IfIndex, MacAddr, Side};

use super::host::{Host, Place};
use super::link::Bridge;
use super::{Address, Change, KernelEvent, KernelState, Link, Route, Sysctl};

/// First wait before a refused change is tried again; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest wait: what is refused this often is for a person to solve, who should not have to restart anything after.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// `errno` values that say that what was to be removed is not there: ENOENT, ESRCH, ENXIO, ENODEV, EADDRNOTAVAIL.
const ALREADY_GONE: [i32; 5] = [2, 3, 6, 19, 99];
/// `errno` value that says that what was to be added is there: EEXIST.
const ALREADY_THERE: i32 = 17;

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
    // An interface sends redirects if it or `all` says so; the other values are decided by the interface's own.
    let all = Sysctl {
        index: None,
        setting: "send_redirects",
    };
    let mut held = BTreeMap::from([(all, 0)]);
    for index in [Some(uplink), Some(wired)] {
        held.extend(EACH.map(|(setting, value)| (Sysctl { index, setting }, value)));
    }
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
        let Place { mac, side } = host.place;
        let index = bridge.port(side).index;
        match side {
            _ if !host.is_present() => {}
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
    fn part(&self, hosts: &BTreeSet<Ipv4Addr>, links: &BTreeMap<IfIndex, Link>) -> Ours {
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
    fn undo(&mut self, change: &Change) {
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
    fn forget(&mut self, gone: IfIndex) {
        self.up.remove(&gone);
        self.addresses.retain(|(index, _)| *index != gone);
        self.sysctls.retain(|sysctl, _| sysctl.index != Some(gone));
        self.forget_forwarding(gone);
    }

    /// Forgets what the kernel drops, in part without a message, when an interface is set down.
    fn forget_forwarding(&mut self, down: IfIndex) {
        self.routes.retain(|(index, _), _| *index != down);
        self.neighbours.retain(|(index, _), _| *index != down);
    }
}

/// Returns whether an error means that things are as the change wants them: an addition of what is there, a removal of what
/// is not.
fn is_done_already(change: &Change, errno: i32) -> bool {
    match change {
        Change::AddAddress { .. } | Change::AddRoute { .. } | Change::SetNeighbour { .. } => {
            errno == ALREADY_THERE
        }
        Change::RemoveAddress { .. }
        | Change::RemoveRoute { .. }
        | Change::RemoveNeighbour { .. }
        | Change::ReleaseSysctl { .. } => ALREADY_GONE.contains(&errno),
        Change::SetUp(_) | Change::SetDown(_) | Change::HoldSysctl { .. } => false,
    }
}

/// Returns the interface that a change is about, if it is about one.
fn interface(change: &Change) -> Option<IfIndex> {
    match *change {
        Change::SetUp(index)
        | Change::SetDown(index)
        | Change::AddAddress { index, .. }
        | Change::RemoveAddress { index, .. }
        | Change::AddRoute { index, .. }
        | Change::RemoveRoute { index, .. }
        | Change::SetNeighbour { index, .. }
        | Change::RemoveNeighbour { index, .. } => Some(index),
        Change::HoldSysctl { sysctl, .. } | Change::ReleaseSysctl { sysctl } => sysctl.index,
    }
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    wait: Duration,
    at: Instant,
    waiting: bool,
}

/// The kernel's state as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) links: BTreeMap<IfIndex, Link>,
    /// All addresses, ours included.
    pub(crate) addresses: BTreeSet<Address>,
    default_routes: BTreeSet<Route>,
    ours: Ours,
    refused: BTreeMap<Change, Retry>,
}

impl Mirror {
    /// Takes a dump as the truth. What netlink does not report (held sysctls, the routes' sources) stays as it was believed.
    pub(crate) fn load(&mut self, state: KernelState) {
        let before = std::mem::take(self);
        self.refused = before.refused;
        self.ours.sysctls = before.ours.sysctls;
        for (index, link) in state.links {
            self.take(KernelEvent::Link(index, link));
        }
        let links = &self.links;
        self.ours
            .sysctls
            .retain(|sysctl, _| sysctl.index.is_none_or(|index| links.contains_key(&index)));
        for address in state.addresses {
            self.take(KernelEvent::AddressAdded(address));
        }
        for route in state.routes {
            self.take(KernelEvent::RouteAdded(route));
        }
        for (key, source) in &mut self.ours.routes {
            *source = before.ours.routes.get(key).copied().flatten();
        }
        for ((index, host), mac) in state.neighbours {
            self.take(KernelEvent::NeighbourSet(index, host, mac));
        }
    }

    /// Takes one notification. Returns the host it is about, if it is about our route or neighbour of one.
    pub(crate) fn take(&mut self, event: KernelEvent) -> Option<Ipv4Addr> {
        let host = match event {
            KernelEvent::RouteAdded(route) | KernelEvent::RouteRemoved(route) => {
                let is_host = route.ours && route.destination.1 == 32;
                is_host.then_some(route.destination.0)
            }
            KernelEvent::NeighbourSet(_, host, _) | KernelEvent::NeighbourRemoved(_, host) => {
                Some(host)
            }
            KernelEvent::Link(..)
            | KernelEvent::LinkGone(_)
            | KernelEvent::AddressAdded(_)
            | KernelEvent::AddressRemoved(_) => None,
        };
        match event {
            KernelEvent::Link(index, link) => self.take_link(index, link),
            KernelEvent::LinkGone(index) => {
                self.links.remove(&index);
                self.addresses.retain(|address| address.index != index);
                self.default_routes.retain(|route| route.index != index);
                self.ours.forget(index);
            }
            KernelEvent::AddressAdded(address) => {
                let same = |a: &Address| {
                    (a.index, a.address, a.prefix)
                        == (address.index, address.address, address.prefix)
                };
                self.addresses.retain(|a| !same(a));
                self.addresses.insert(address);
                if address.ours && address.prefix == 32 {
                    self.ours.addresses.insert((address.index, address.address));
                }
            }
            KernelEvent::AddressRemoved(address) => {
                self.addresses.retain(|a| {
                    (a.index, a.address, a.prefix)
                        != (address.index, address.address, address.prefix)
                });
                if address.prefix == 32 {
                    self.ours
                        .addresses
                        .remove(&(address.index, address.address));
                }
                // The kernel drops an interface's routes with its last address, and tells of none of them.
                if !self.addresses.iter().any(|a| a.index == address.index) {
                    self.default_routes.retain(|r| r.index != address.index);
                }
            }
            KernelEvent::RouteAdded(route) => self.take_route(route),
            KernelEvent::RouteRemoved(route) => {
                self.default_routes.remove(&route);
                if route.ours && route.destination.1 == 32 {
                    self.ours.routes.remove(&(route.index, route.destination.0));
                }
            }
            KernelEvent::NeighbourSet(index, host, mac) => {
                self.ours.neighbours.insert((index, host), mac);
            }
            KernelEvent::NeighbourRemoved(index, host) => {
                self.ours.neighbours.remove(&(index, host));
            }
        }
        host
    }

    fn take_link(&mut self, index: IfIndex, link: Link) {
        if link.up {
            self.ours.up.insert(index);
        } else {
            self.ours.up.remove(&index);
            self.ours.forget_forwarding(index);
            self.default_routes.retain(|route| route.index != index);
        }
        self.links.insert(index, link);
    }

    fn take_route(&mut self, route: Route) {
        let (destination, prefix) = route.destination;
        if route.ours && prefix == 32 {
            self.ours
                .routes
                .entry((route.index, destination))
                .or_default();
        } else if prefix == 0 {
            // A route that replaces another is all that is told of the other's end.
            self.default_routes.retain(|r| r.metric != route.metric);
            self.default_routes.insert(route);
        }
    }

    /// Returns the gateway of the interface's default route of the lowest metric.
    pub(crate) fn gateway(&self, index: IfIndex) -> Option<Ipv4Addr> {
        self.gateways(index).next()
    }

    /// Returns the gateways of all the interface's default routes.
    pub(crate) fn gateways(&self, index: IfIndex) -> impl Iterator<Item = Ipv4Addr> {
        let routes = self.default_routes.iter();
        let routes = routes.filter(move |route| route.index == index);
        routes.filter_map(|route| route.gateway)
    }

    /// Returns what of ours the kernel has.
    pub(crate) fn ours(&self) -> &Ours {
        &self.ours
    }

    /// Returns the neighbours of ours on an interface.
    pub(crate) fn neighbours(&self, index: IfIndex) -> Vec<(Ipv4Addr, MacAddr)> {
        let all = self.ours.neighbours.iter();
        all.filter(|((on, _), _)| *on == index)
            .map(|((_, host), mac)| (*host, *mac))
            .collect()
    }

    /// Takes note that the kernel refused a change. Returns whether that leaves anything to be done.
    pub(crate) fn refuse(&mut self, change: Change, errno: i32, now: Instant) -> bool {
        if is_done_already(&change, errno) {
            return false;
        }
        if let Some(index) = interface(&change)
            && !self.links.contains_key(&index)
        {
            self.ours.forget(index);
            return false;
        }
        self.ours.undo(&change);
        let wait = self
            .refused
            .get(&change)
            .map_or(FIRST_RETRY, |retry| (retry.wait * 2).min(LONGEST_RETRY));
        let at = now + wait;
        let retry = Retry {
            wait,
            at,
            waiting: true,
        };
        self.refused.insert(change, retry);
        true
    }

    /// Returns the changes to make, and takes them as made. What was refused lately waits, for as long as it is wanted.
    pub(crate) fn reconcile(&mut self, wanted: &Ours, now: Instant) -> Vec<Change> {
        let mut changes = diff(wanted, &self.ours);
        for retry in self.refused.values_mut() {
            retry.waiting &= retry.at > now;
        }
        // A retry that succeeded is remembered for a while, so that a change refused again soon does not start over.
        self.refused.retain(|change, retry| {
            changes.contains(change) || (!retry.waiting && retry.at + LONGEST_RETRY > now)
        });
        changes.retain(|change| self.refused.get(change).is_none_or(|retry| !retry.waiting));
        for change in &changes {
            self.ours.apply(change);
        }
        changes
    }

    /// Returns the changes to make for these hosts alone, and takes them as made. To be called while nothing is refused.
    pub(crate) fn reconcile_hosts(
        &mut self,
        hosts: &BTreeSet<Ipv4Addr>,
        wanted: &Ours,
    ) -> Vec<Change> {
        let changes = diff(wanted, &self.ours.part(hosts, &self.links));
        for change in &changes {
            self.ours.apply(change);
        }
        changes
    }

    /// Returns the changes that nobody made or was refused.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn missing(&self, wanted: &Ours) -> Vec<Change> {
        let mut changes = diff(wanted, &self.ours);
        changes.retain(|change| !self.refused.contains_key(change));
        changes
    }

    /// Returns when a refused change is due again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.refused.values().filter(|retry| retry.waiting);
        waiting.map(|retry| retry.at).min()
    }

    /// Returns how many changes the kernel refused and has not been asked for again.
    pub(crate) fn refused(&self) -> usize {
        self.refused.values().filter(|retry| retry.waiting).count()
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

    const WIRED: IfIndex = IfIndex(3);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    fn link(up: bool) -> Link {
        Link {
            name: "eth0".to_owned(),
            mac: None,
            up,
            carrier: up,
        }
    }

    fn mirror() -> Mirror {
        let mut mirror = Mirror::default();
        mirror.take(KernelEvent::Link(WIRED, link(true)));
        mirror
    }

    fn wanted() -> Ours {
        let mut wanted = Ours::default();
        wanted.addresses.insert((WIRED, HOST));
        wanted
    }

    #[test]
    fn a_refused_change_waits_longer_each_time() {
        let mut now = crate::engine::test_clock();
        let mut mirror = mirror();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let changes = mirror.reconcile(&wanted(), now);
            assert_eq!(changes.len(), 1);
            mirror.refuse(changes[0].clone(), 12, now);
            assert_eq!(mirror.reconcile(&wanted(), now), []);
            let due = mirror.next_deadline().unwrap();
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        assert_eq!(mirror.reconcile(&wanted(), now).len(), 1);
        assert_eq!((mirror.next_deadline(), mirror.refused()), (None, 0));
    }

    #[test]
    fn what_is_done_already() {
        let (index, address) = (WIRED, HOST);
        let addition = Change::AddAddress { index, address };
        let removal = Change::RemoveAddress { index, address };
        let sysctl = Sysctl {
            index: Some(WIRED),
            setting: "forwarding",
        };
        let hold = Change::HoldSysctl { sysctl, value: 1 };
        let release = Change::ReleaseSysctl { sysctl };
        for (change, errors) in [
            (addition, &[17][..]),
            (removal, &[2, 3, 6, 19, 99]),
            (release, &[2, 3, 6, 19, 99]),
            (hold, &[]),
            (Change::SetUp(WIRED), &[]),
        ] {
            let done: Vec<i32> = (1..134).filter(|e| is_done_already(&change, *e)).collect();
            assert_eq!(done, errors, "{change:?}");
        }
    }

    #[test]
    fn a_refused_change_that_nobody_wants_any_more_is_dropped() {
        let now = crate::engine::test_clock();
        let mut mirror = mirror();
        let change = mirror.reconcile(&wanted(), now).remove(0);
        assert!(mirror.refuse(change, 12, now));
        assert_eq!(mirror.refused(), 1);
        assert_eq!(mirror.reconcile(&Ours::default(), now), []);
        assert_eq!((mirror.next_deadline(), mirror.refused()), (None, 0));
    }

    #[test]
    fn nothing_is_undone_on_an_interface_that_is_gone() {
        let now = crate::engine::test_clock();
        for late_removal in [false, true] {
            let mut mirror = mirror();
            let mut change = mirror.reconcile(&wanted(), now).remove(0);
            if late_removal {
                change = mirror.reconcile(&Ours::default(), now).remove(0);
            }
            mirror.take(KernelEvent::LinkGone(WIRED));
            assert!(!mirror.refuse(change, 1, now));
            assert_eq!(mirror.reconcile(&Ours::default(), now), []);
            assert_eq!((mirror.next_deadline(), mirror.refused()), (None, 0));
        }
    }

    #[test]
    fn a_removal_of_what_is_gone_is_done() {
        let now = crate::engine::test_clock();
        let mut mirror = mirror();
        mirror.reconcile(&wanted(), now);
        let removal = mirror.reconcile(&Ours::default(), now).remove(0);
        assert!(!mirror.refuse(removal.clone(), 99, now));
        let later = now + LONGEST_RETRY;
        assert_eq!(mirror.reconcile(&Ours::default(), later), []);
        assert!(mirror.refuse(removal.clone(), 1, later));
        let much_later = later + LONGEST_RETRY;
        assert_eq!(mirror.reconcile(&Ours::default(), much_later), [removal]);
    }

    #[test]
    fn routes_are_gone_when_their_interface_goes_down() {
        let now = crate::engine::test_clock();
        let mut wanted = Ours::default();
        wanted.up.insert(WIRED);
        wanted.routes.insert((WIRED, HOST), Some(HOST));
        let mut mirror = mirror();
        assert_eq!(mirror.reconcile(&wanted, now).len(), 1);
        mirror.take(KernelEvent::Link(WIRED, link(false)));
        assert_eq!(mirror.reconcile(&wanted, now).len(), 2);
    }
}

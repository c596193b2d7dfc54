//! The kernel's state as far as it is known, and what was refused.
//!
//! The mirror is filled by netlink and, ahead of it, by the engine's own changes, so that nothing is asked for twice; a refused
//! change is taken back and tried again later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::addr::{IfIndex, MacAddr};

use super::kernel_state::{Ours, diff};
use super::{Address, Change, KernelEvent, KernelState, Link, Route};

/// First wait before a refused change is tried again; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest wait: what is refused this often is for a person to solve, who should not have to restart anything after.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// `errno` values that say that what was to be removed is not there: ENOENT, ESRCH, ENXIO, ENODEV, EADDRNOTAVAIL.
const ALREADY_GONE: [i32; 5] = [2, 3, 6, 19, 99];
/// `errno` value that says that what was to be added is there: EEXIST.
const ALREADY_THERE: i32 = 17;

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

#[derive(Clone, Copy, Debug)]
struct Retry {
    wait: Duration,
    at: Instant,
    waiting: bool,
}

impl Mirror {
    /// Takes a dump as the truth. What netlink does not report (held sysctls, the routes' sources) stays as it was believed.
    pub(crate) fn load(&mut self, state: KernelState, now: Instant) {
        let before = std::mem::take(self);
        self.refused = before.refused;
        self.ours.sysctls = before.ours.sysctls;
        for (index, link) in state.links {
            self.take(KernelEvent::Link(index, link), now);
        }
        let links = &self.links;
        self.ours
            .sysctls
            .retain(|sysctl, _| sysctl.index.is_none_or(|index| links.contains_key(&index)));
        for address in state.addresses {
            self.take(KernelEvent::AddressAdded(address), now);
        }
        for route in state.routes {
            self.take(KernelEvent::RouteAdded(route), now);
        }
        for (key, source) in &mut self.ours.routes {
            *source = before.ours.routes.get(key).copied().flatten();
        }
        for ((index, host), mac) in state.neighbours {
            self.take(KernelEvent::NeighbourSet(index, host, mac), now);
        }
    }

    /// Takes one notification. Returns the host it is about, if it is about our route or neighbour of one.
    pub(crate) fn take(&mut self, event: KernelEvent, now: Instant) -> Option<Ipv4Addr> {
        let host = match event {
            KernelEvent::RouteAdded(route)
            | KernelEvent::RouteReplaced(route)
            | KernelEvent::RouteRemoved(route) => {
                let is_host = route.ours && route.destination.1 == 32;
                is_host.then_some(route.destination.0)
            }
            KernelEvent::HostRouteDisplaced(host)
            | KernelEvent::NeighbourSet(_, host, _)
            | KernelEvent::NeighbourRemoved(_, host) => Some(host),
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
                if !self.has_address(address.index) {
                    self.default_routes.retain(|r| r.index != address.index);
                    self.ours.forget_forwarding(address.index);
                }
            }
            KernelEvent::RouteAdded(route) => self.take_route(route),
            KernelEvent::RouteReplaced(route) => {
                if route.destination.1 == 0 {
                    self.drop_replaced(&route);
                }
                self.take_route(route);
            }
            KernelEvent::HostRouteDisplaced(host) => self.lose_route(host, now),
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

    fn has_address(&self, index: IfIndex) -> bool {
        let others = self.addresses.iter().filter(|address| !address.ours);
        let others = others.map(|address| address.index);
        let ours = self.ours.addresses.iter().map(|(on, _)| *on);
        others.chain(ours).any(|on| on == index)
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
            self.default_routes.insert(route);
        }
    }

    /// Drops the default route that another took the place of. Where interfaces have one of the same metric each, that of the same
    /// interface is taken for it: whoever manages an interface replaces what it set there itself.
    fn drop_replaced(&mut self, by: &Route) {
        let alike = |route: &Route| route.metric == by.metric;
        let own = |route: &Route| alike(route) && route.index == by.index;
        if self.default_routes.iter().any(own) {
            self.default_routes.retain(|route| !own(route));
        } else {
            self.default_routes.retain(|route| !alike(route));
        }
    }

    /// Takes note that our route to a host made room for somebody else's. It is put back as if it had been refused, so that two who
    /// want different routes do not replace each other's without a pause.
    fn lose_route(&mut self, host: Ipv4Addr, now: Instant) {
        let ours = self.ours.routes.iter();
        let lost: Vec<_> = ours
            .filter(|((_, to), _)| *to == host)
            .map(|(&(index, _), &source)| (index, source))
            .collect();
        for (index, source) in lost {
            warn!(%host, "somebody else's route took the place of ours");
            self.ours.routes.remove(&(index, host));
            if let Some(source) = source {
                let change = Change::AddRoute {
                    index,
                    host,
                    source,
                };
                self.wait(change, now);
            }
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
        self.wait(change, now);
        true
    }

    /// Has a change wait, longer each time.
    fn wait(&mut self, change: Change, now: Instant) {
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
    }

    /// Returns the changes to make, and takes them as made. What was refused lately waits, for as long as it is wanted.
    pub(crate) fn reconcile(&mut self, wanted: &Ours, now: Instant) -> Vec<Change> {
        let changes = diff(wanted, &self.ours);
        self.make(changes, |_| true, now)
    }

    /// Returns the changes to make for these hosts alone, and takes them as made.
    pub(crate) fn reconcile_hosts(
        &mut self,
        hosts: &BTreeSet<Ipv4Addr>,
        wanted: &Ours,
        now: Instant,
    ) -> Vec<Change> {
        let changes = diff(wanted, &self.ours.part(hosts, &self.links));
        let concerned = |change: &Change| host(change).is_some_and(|host| hosts.contains(&host));
        self.make(changes, concerned, now)
    }

    /// Takes changes as made, but for those that wait. Whatever else was refused of what is concerned is not wanted any more.
    fn make(
        &mut self,
        mut changes: Vec<Change>,
        concerned: impl Fn(&Change) -> bool,
        now: Instant,
    ) -> Vec<Change> {
        let wanted: BTreeSet<&Change> = changes.iter().collect();
        // A retry that succeeded is remembered for a while, so that a change refused again soon does not start over.
        self.refused.retain(|change, retry| {
            if !concerned(change) {
                return true;
            }
            retry.waiting &= retry.at > now;
            wanted.contains(change) || (!retry.waiting && retry.at + LONGEST_RETRY > now)
        });
        changes.retain(|change| self.refused.get(change).is_none_or(|retry| !retry.waiting));
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

/// Returns whether an error means that things are as the change wants them: an addition of what is there, a removal of what
/// is not.
pub(crate) fn is_done_already(change: &Change, errno: i32) -> bool {
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

/// Returns the host that a change is about, if it is about the route to one or the neighbour.
pub(super) fn host(change: &Change) -> Option<Ipv4Addr> {
    match *change {
        Change::AddRoute { host, .. }
        | Change::RemoveRoute { host, .. }
        | Change::SetNeighbour { host, .. }
        | Change::RemoveNeighbour { host, .. } => Some(host),
        Change::SetUp(_)
        | Change::SetDown(_)
        | Change::AddAddress { .. }
        | Change::RemoveAddress { .. }
        | Change::HoldSysctl { .. }
        | Change::ReleaseSysctl { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Sysctl;

    use super::*;

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
        let now = crate::engine::test_clock();
        mirror.take(KernelEvent::Link(WIRED, link(true)), now);
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
    fn what_is_refused_for_one_host_waits_while_others_are_served() {
        let now = crate::engine::test_clock();
        let other = Ipv4Addr::new(10, 0, 0, 8);
        let with_routes = |hosts: &[Ipv4Addr]| {
            let mut wanted = Ours::default();
            let routes = hosts.iter().map(|host| ((WIRED, *host), Some(HOST)));
            wanted.routes.extend(routes);
            wanted
        };
        let (first, second) = (BTreeSet::from([HOST]), BTreeSet::from([other]));
        let mut mirror = mirror();
        let change = mirror.reconcile_hosts(&first, &with_routes(&[HOST]), now);
        assert!(mirror.refuse(change[0].clone(), 12, now));
        let changes = mirror.reconcile_hosts(&second, &with_routes(&[other]), now);
        assert_eq!(changes.len(), 1);
        let changes = mirror.reconcile_hosts(&first, &with_routes(&[HOST]), now);
        assert_eq!((changes, mirror.refused()), (vec![], 1));
        // Others that move when it is due leave it due.
        let due = mirror.next_deadline().unwrap();
        mirror.reconcile_hosts(&second, &with_routes(&[]), due);
        assert_eq!(mirror.next_deadline(), Some(due));
        let changes = mirror.reconcile_hosts(&first, &with_routes(&[HOST]), due);
        assert_eq!((changes.len(), mirror.refused()), (1, 0));
        // A host that goes while its change waits takes it along.
        assert!(mirror.refuse(changes[0].clone(), 12, due));
        let changes = mirror.reconcile_hosts(&first, &with_routes(&[]), due);
        assert_eq!((changes, mirror.refused()), (vec![], 0));
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
            mirror.take(KernelEvent::LinkGone(WIRED), now);
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
        mirror.take(KernelEvent::Link(WIRED, link(false)), now);
        assert_eq!(mirror.reconcile(&wanted, now).len(), 2);
    }

    #[test]
    fn routes_are_gone_with_the_last_address_of_their_interface() {
        let now = crate::engine::test_clock();
        let mut wanted = wanted();
        wanted.up.insert(WIRED);
        wanted.routes.insert((WIRED, HOST), Some(HOST));
        wanted.neighbours.insert((WIRED, HOST), MacAddr::zero());
        let address = |last, ours| Address {
            index: WIRED,
            address: Ipv4Addr::new(10, 0, 0, last),
            prefix: 32,
            ours,
        };
        let mut mirror = mirror();
        assert_eq!(mirror.reconcile(&wanted, now).len(), 3);
        for address in [address(7, true), address(8, false)] {
            mirror.take(KernelEvent::AddressAdded(address), now);
        }
        mirror.take(KernelEvent::AddressRemoved(address(8, false)), now);
        assert_eq!(mirror.reconcile(&wanted, now), []);
        mirror.take(KernelEvent::AddressRemoved(address(7, true)), now);
        assert_eq!(mirror.reconcile(&wanted, now).len(), 3);
    }

    #[test]
    fn default_routes_of_one_metric_are_beside_each_other_until_one_replaces_another() {
        const UPLINK: IfIndex = IfIndex(2);
        let route = |index, last| Route {
            index,
            destination: (Ipv4Addr::UNSPECIFIED, 0),
            metric: 1024,
            gateway: Some(Ipv4Addr::new(10, 0, 0, last)),
            ours: false,
        };
        let gateways = |mirror: &Mirror| {
            [UPLINK, WIRED].map(|index| {
                let last = mirror.gateways(index).map(|ip| ip.octets()[3]);
                last.collect::<Vec<_>>()
            })
        };
        let state = KernelState {
            routes: [route(UPLINK, 1), route(WIRED, 2)].into(),
            ..KernelState::default()
        };
        let now = crate::engine::test_clock();
        let mut mirror = Mirror::default();
        mirror.load(state, now);
        assert_eq!(gateways(&mirror), [vec![1], vec![2]]);
        mirror.take(KernelEvent::RouteRemoved(route(WIRED, 2)), now);
        mirror.take(KernelEvent::RouteAdded(route(WIRED, 3)), now);
        assert_eq!(gateways(&mirror), [vec![1], vec![3]]);
        mirror.take(KernelEvent::RouteReplaced(route(WIRED, 4)), now);
        assert_eq!(gateways(&mirror), [vec![1], vec![4]]);
        mirror.take(KernelEvent::RouteRemoved(route(WIRED, 4)), now);
        mirror.take(KernelEvent::RouteReplaced(route(WIRED, 5)), now);
        assert_eq!(gateways(&mirror), [vec![], vec![5]]);
    }

    #[test]
    fn a_route_that_made_room_for_anothers_is_put_back_after_a_while() {
        let mut now = crate::engine::test_clock();
        let mut wanted = Ours::default();
        wanted.routes.insert((WIRED, HOST), Some(HOST));
        let host = BTreeSet::from([HOST]);
        let mut mirror = mirror();
        let displaced = KernelEvent::HostRouteDisplaced(HOST);
        assert_eq!(mirror.take(displaced.clone(), now), Some(HOST));
        assert_eq!((mirror.next_deadline(), mirror.refused()), (None, 0));
        assert_eq!(mirror.reconcile_hosts(&host, &wanted, now).len(), 1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            mirror.take(displaced.clone(), now);
            assert_eq!(mirror.reconcile_hosts(&host, &wanted, now), []);
            let due = mirror.next_deadline().unwrap();
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(mirror.reconcile(&wanted, now).len(), 1);
        }
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
    }
}

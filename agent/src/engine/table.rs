//! The hosts by address, bounded, with indexes of those that are due, of those that make room first, of each station's share, and
//! of those whose place in the kernel may have changed. So what every packet asks is found without a walk through all hosts; that
//! is for what is rare: a move, a new bridge, a report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::addr::Side;

use super::host::{Host, Place, State, Worth};

/// Most hosts on one side: eight /24 full of them; a flood of invented ones costs no more than this many routes and checks.
pub(crate) const MOST_PER_SIDE: usize = 2048;
/// Most addresses of one station: half the table. Routers and machines full of containers have many; nobody has all.
pub(crate) const MOST_PER_STATION: usize = MOST_PER_SIDE / 2;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    hosts: BTreeMap<Ipv4Addr, Host>,
    due: BTreeSet<(Instant, Ipv4Addr)>,
    /// Each side's hosts in the order in which they make room.
    wired: BTreeSet<(Worth, Instant, Ipv4Addr)>,
    uplink: BTreeSet<(Worth, Instant, Ipv4Addr)>,
    of_station: BTreeMap<Place, Share>,
    /// Hosts that came, went or moved since this was last taken.
    moved: BTreeSet<Ipv4Addr>,
}

/// What of the table is one station's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    hosts: usize,
    /// Those of them that were merely offered an address.
    provisional: usize,
}

impl Table {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Host)> {
        self.hosts.iter().map(|(&ip, host)| (ip, host))
    }

    pub(crate) fn find(&self, ip: Ipv4Addr) -> Option<&Host> {
        self.hosts.get(&ip)
    }

    /// Changes a host, if there is one.
    pub(crate) fn update<R>(
        &mut self,
        ip: Ipv4Addr,
        change: impl FnOnce(&mut Host) -> R,
    ) -> Option<R> {
        let mut host = *self.hosts.get(&ip)?;
        let result = change(&mut host);
        self.put(ip, host);
        Some(result)
    }

    /// Puts a host in, in the place of another with its address.
    pub(crate) fn put(&mut self, ip: Ipv4Addr, host: Host) {
        let before = self.hosts.insert(ip, host);
        if let Some(before) = &before {
            self.unlist(ip, before);
        }
        self.due.insert((host.deadline(), ip));
        let rank = rank(ip, &host);
        self.ranks(host.place.side).insert(rank);
        let share = self.of_station.entry(host.place).or_default();
        share.hosts += 1;
        share.provisional += usize::from(is_provisional(&host));
        if before.as_ref().and_then(where_present) != where_present(&host) {
            self.moved.insert(ip);
        }
    }

    pub(crate) fn remove(&mut self, ip: Ipv4Addr) {
        if let Some(host) = self.hosts.remove(&ip) {
            self.unlist(ip, &host);
            if host.is_present() {
                self.moved.insert(ip);
            }
        }
    }

    fn unlist(&mut self, ip: Ipv4Addr, host: &Host) {
        self.due.remove(&(host.deadline(), ip));
        let rank = rank(ip, host);
        self.ranks(host.place.side).remove(&rank);
        if let Some(share) = self.of_station.get_mut(&host.place) {
            share.hosts -= 1;
            share.provisional -= usize::from(is_provisional(host));
            if share.hosts == 0 {
                self.of_station.remove(&host.place);
            }
        }
    }

    fn ranks(&mut self, side: Side) -> &mut BTreeSet<(Worth, Instant, Ipv4Addr)> {
        match side {
            Side::Wired => &mut self.wired,
            Side::Uplink => &mut self.uplink,
        }
    }

    /// Keeps the hosts of which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl Fn(Ipv4Addr, &Host) -> bool) {
        let leaving: Vec<Ipv4Addr> = self
            .iter()
            .filter(|(ip, host)| !keep(*ip, host))
            .map(|(ip, _)| ip)
            .collect();
        for ip in leaving {
            self.remove(ip);
        }
    }

    /// Returns everybody's address.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.hosts.keys().copied().collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns the hosts for which something is due.
    pub(crate) fn due(&self, now: Instant) -> Vec<Ipv4Addr> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, ip)| *ip).collect()
    }

    /// Returns whether the station may have one more address.
    pub(crate) fn has_room_at(&self, place: Place) -> bool {
        self.of_station
            .get(&place)
            .is_none_or(|share| share.hosts < MOST_PER_STATION)
    }

    /// Returns whether the station has a host that did anything.
    pub(crate) fn has_any_at(&self, place: Place) -> bool {
        let share = self.of_station.get(&place);
        share.is_some_and(|share| share.hosts > share.provisional)
    }

    /// Makes room for one more host of a side at the cost of whoever is missed least, up to `limit` and never of `kept`.
    pub(crate) fn make_room(&mut self, side: Side, limit: Worth, kept: Option<Ipv4Addr>) -> bool {
        let ranks = self.ranks(side);
        if ranks.len() < MOST_PER_SIDE {
            return true;
        }
        let victim = ranks.iter().find(|(_, _, ip)| Some(*ip) != kept);
        let victim = victim
            .filter(|(worth, _, _)| *worth <= limit)
            .map(|(_, _, ip)| *ip);
        victim.map(|ip| self.remove(ip)).is_some()
    }

    /// Takes the addresses of those that came, went or moved.
    pub(crate) fn take_moved(&mut self) -> BTreeSet<Ipv4Addr> {
        std::mem::take(&mut self.moved)
    }
}

fn rank(ip: Ipv4Addr, host: &Host) -> (Worth, Instant, Ipv4Addr) {
    (host.worth(), host.evidence, ip)
}

fn is_provisional(host: &Host) -> bool {
    matches!(host.state, State::Provisional { .. })
}

/// Returns the place that the kernel has to know of. Where a host proves itself, the gateway's entry may follow.
fn where_present(host: &Host) -> Option<(Place, bool)> {
    host.is_present().then_some((host.place, host.proven))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::addr::MacAddr;
    use crate::engine::host::Source;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);

    #[test]
    fn a_station_counts_for_what_it_did_and_not_for_offers() {
        let now = crate::engine::test_clock();
        let until = now + Duration::from_secs(60);
        let place = Place {
            mac: MacAddr(2, 0, 0, 0, 0, 7),
            side: Side::Wired,
        };
        let host = |state| Host::new(place, Source::Dhcp, state, now);
        let mut table = Table::default();
        assert!(!table.has_any_at(place));
        table.put(HOST, host(State::Provisional { until }));
        assert!(!table.has_any_at(place));
        table.update(HOST, |host| host.state = State::Verified { until });
        assert!(table.has_any_at(place));
        table.put(OTHER, host(State::Provisional { until }));
        assert!(table.has_any_at(place));
        table.remove(HOST);
        assert!(!table.has_any_at(place));
        table.remove(OTHER);
        assert!(table.of_station.is_empty());
    }
}

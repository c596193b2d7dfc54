//! Whether the access point keeps its clients apart, as far as that shows.
//!
//! What an access point withholds looks like machines that are switched off, so nothing proves it. It is suspected where nothing
//! was ever heard of any station but the gateway, and hosts on the wire want several others, for minutes, in vain. An access point
//! that isolates but lets broadcasts through is not found out this way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::MacAddr;

/// Others that are wanted in vain: one or two may be gone.
const ENOUGH: usize = 3;
/// How long they are: longer than it takes to switch something on.
const LASTING: Duration = Duration::from_secs(120);
/// After which time without being wanted again they are forgotten: programs that look for a machine do so every few minutes.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Most kept of them; those go first that were wanted for the shortest time.
const MOST: usize = 32;

/// What was seen of a network's stations.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    /// Which network it was seen in.
    network: u32,
    /// The first two stations heard: one of two is not the gateway, whichever that is.
    stations: BTreeSet<MacAddr>,
    missed: BTreeMap<Ipv4Addr, Missed>,
}

/// When a host was wanted in vain.
#[derive(Clone, Copy, Debug)]
struct Missed {
    first: Instant,
    last: Instant,
}

impl Isolation {
    /// Forgets what was seen in another network.
    pub(crate) fn follow(&mut self, network: u32) {
        if self.network != network {
            *self = Isolation {
                network,
                ..Isolation::default()
            };
        }
    }

    /// Takes note that a station of the uplink was heard.
    pub(crate) fn hear(&mut self, station: MacAddr) {
        if self.stations.len() < 2 {
            self.stations.insert(station);
        }
    }

    /// Takes note that a host on the wire wanted one of the uplink and nobody answered.
    pub(crate) fn miss(&mut self, ip: Ipv4Addr, now: Instant) {
        self.missed
            .retain(|_, missed| missed.last + FORGOTTEN > now);
        if self.missed.len() >= MOST && !self.missed.contains_key(&ip) {
            let lasted = |missed: &Missed| (missed.last - missed.first, missed.last);
            let least = self.missed.iter().min_by_key(|(_, missed)| lasted(missed));
            if let Some(least) = least.map(|(ip, _)| *ip) {
                self.missed.remove(&least);
            }
        }
        let first = now;
        let missed = self.missed.entry(ip).or_insert(Missed { first, last: now });
        missed.last = now;
    }

    /// Returns whether the access point seems to keep its clients apart, given the gateway, which answers.
    pub(crate) fn is_suspected(&self, gateway: (Ipv4Addr, MacAddr), now: Instant) -> bool {
        let in_vain = self.missed.iter().filter(|(ip, missed)| {
            **ip != gateway.0
                && missed.first + LASTING <= missed.last
                && missed.last + FORGOTTEN > now
        });
        self.stations.iter().all(|mac| *mac == gateway.1) && in_vain.count() >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const GATEWAY: (Ipv4Addr, MacAddr) = (Ipv4Addr::new(10, 0, 0, 1), ROUTER);

    fn host(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    /// Has hosts be wanted at two times.
    fn missed(hosts: std::ops::Range<u8>, start: Instant, between: Duration) -> Isolation {
        let mut isolation = Isolation::default();
        for last in hosts {
            isolation.miss(host(last), start);
            isolation.miss(host(last), start + between);
        }
        isolation
    }

    #[test]
    fn several_wanted_for_minutes_are_needed_and_nobody_else() {
        let start = crate::engine::test_clock();
        let end = start + LASTING;
        for (hosts, between, expected) in [
            (20..23, LASTING, true),
            (20..22, LASTING, false),
            (20..23, LASTING - Duration::from_secs(1), false),
            // The gateway is no other.
            (1..4, LASTING, false),
        ] {
            let mut isolation = missed(hosts.clone(), start, between);
            assert_eq!(isolation.is_suspected(GATEWAY, end), expected, "{hosts:?}");
            isolation.hear(ROUTER);
            assert_eq!(isolation.is_suspected(GATEWAY, end), expected, "{hosts:?}");
            isolation.hear(MacAddr(2, 0, 0, 0, 0, 9));
            assert!(!isolation.is_suspected(GATEWAY, end), "{hosts:?}");
        }
    }

    #[test]
    fn the_suspicion_ends_with_the_want_and_with_the_network() {
        let start = crate::engine::test_clock();
        let mut isolation = missed(20..23, start, LASTING);
        let end = start + LASTING;
        assert!(isolation.is_suspected(GATEWAY, end));
        assert!(!isolation.is_suspected(GATEWAY, end + FORGOTTEN));
        isolation.follow(1);
        assert!(!isolation.is_suspected(GATEWAY, end));
    }

    #[test]
    fn a_sweep_fills_no_table_and_costs_no_suspicion() {
        let start = crate::engine::test_clock();
        let mut isolation = missed(20..23, start, LASTING);
        let end = start + LASTING;
        for number in 0..1000u32 {
            isolation.miss(Ipv4Addr::from(number), end);
        }
        assert!(isolation.missed.len() <= MOST);
        assert!(isolation.is_suspected(GATEWAY, end));
    }
}

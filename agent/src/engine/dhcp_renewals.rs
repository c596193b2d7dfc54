//! The renewals under way past the relay (D7): whose acknowledgement may be believed.
//!
//! A client that has its address renews it with its server directly, through the kernel's routing, and the acknowledgement says
//! how long the lease lasts from then on. Anybody on the uplink can send one, so only that one counts which answers a request
//! the client was seen to send (D3): same address, same number, same hardware address, soon after. Of each address the last
//! request counts, as it does for the client.
//!
//! Both are seen by the way, on two sockets, so the answer may be read before the question. It is kept for a moment, because
//! nobody but the server knows the question's number so early.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::dhcp_transactions::Key;

/// Most renewals under way, and most early answers. What is pushed out costs no more than a lease that is thought to end before
/// it does; and of leases that last an hour, these many are renewed in a minute by thirty thousand hosts.
const MOST: usize = 512;
/// How long a server may take: clients that wait longer ask again.
const LASTS: Duration = Duration::from_secs(60);
/// How much earlier than its question an answer may be read.
const EARLY: Duration = Duration::from_secs(1);

/// The renewals, by the client's address.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    asked: BTreeMap<Ipv4Addr, Asked>,
    early: BTreeMap<Ipv4Addr, Early>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    key: Key,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Early {
    key: Key,
    lease_end: Instant,
    until: Instant,
}

impl Renewals {
    /// Takes note that a client asks for its address. Returns the new end of its lease, if the answer was there before.
    pub(crate) fn ask(&mut self, address: Ipv4Addr, key: Key, now: Instant) -> Option<Instant> {
        let answers = |early: &Early| early.key == key && early.until > now;
        if let Some(early) = self.early.get(&address).copied().filter(answers) {
            self.early.remove(&address);
            return Some(early.lease_end);
        }
        let until = now + LASTS;
        make_room(&mut self.asked, address, |asked| asked.until);
        self.asked.insert(address, Asked { key, until });
        None
    }

    /// Takes an acknowledgement. Returns whether its client asked for it, which it did once.
    pub(crate) fn acknowledge(
        &mut self,
        address: Ipv4Addr,
        key: Key,
        lease_end: Instant,
        now: Instant,
    ) -> bool {
        let asked = |asked: &Asked| asked.key == key && asked.until > now;
        if self.asked.get(&address).is_some_and(asked) {
            self.asked.remove(&address);
            return true;
        }
        let early = Early {
            key,
            lease_end,
            until: now + EARLY,
        };
        make_room(&mut self.early, address, |early| early.until);
        self.early.insert(address, early);
        false
    }

    /// Forgets all, because the network they were asked of is gone.
    pub(crate) fn clear(&mut self) {
        *self = Renewals::default();
    }

    /// Forgets what is over.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.asked.retain(|_, asked| asked.until > now);
        self.early.retain(|_, early| early.until > now);
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_bounded(&self) -> bool {
        self.asked.len() <= MOST && self.early.len() <= MOST
    }
}

/// Makes room for an address at the cost of the oldest.
fn make_room<V>(
    table: &mut BTreeMap<Ipv4Addr, V>,
    address: Ipv4Addr,
    until: impl Fn(&V) -> Instant,
) {
    if table.len() < MOST || table.contains_key(&address) {
        return;
    }
    let oldest = table.iter().min_by_key(|(_, value)| until(value));
    if let Some(oldest) = oldest.map(|(address, _)| *address) {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    const KEY: Key = (1, [7; 16]);

    #[test]
    fn d3_an_acknowledgement_is_expected_once_and_for_a_while() {
        let now = crate::engine::test_clock();
        let end = now + LASTS;
        let mut renewals = Renewals::default();
        assert_eq!(renewals.ask(HOST, KEY, now), None);
        let (other, another) = (Ipv4Addr::new(10, 0, 0, 8), (1, [8; 16]));
        for (address, key) in [(HOST, (2, KEY.1)), (HOST, another), (other, KEY)] {
            let believed = renewals.acknowledge(address, key, end, now);
            assert!(!believed, "{address} {key:?}");
        }
        assert!(renewals.acknowledge(HOST, KEY, end, now));
        assert!(!renewals.acknowledge(HOST, KEY, end, now + EARLY), "once");
        renewals.handle_tick(now + 2 * EARLY);
        renewals.ask(HOST, KEY, now);
        let late = now + LASTS;
        assert!(!renewals.acknowledge(HOST, KEY, end, late), "too late");
        renewals.handle_tick(late + LASTS);
        assert!(renewals.asked.is_empty() && renewals.early.is_empty());
    }

    #[test]
    fn d3_an_acknowledgement_may_be_read_a_moment_early() {
        let now = crate::engine::test_clock();
        let end = now + LASTS;
        let mut renewals = Renewals::default();
        for (key, after, expected) in [
            (KEY, Duration::ZERO, Some(end)),
            (KEY, EARLY, None),
            ((2, KEY.1), Duration::ZERO, None),
        ] {
            renewals.acknowledge(HOST, KEY, end, now);
            let found = renewals.ask(HOST, key, now + after);
            assert_eq!(found, expected, "{key:?} {after:?} later");
            renewals.clear();
        }
    }

    #[test]
    fn a_flood_fills_no_table() {
        let now = crate::engine::test_clock();
        let mut renewals = Renewals::default();
        for number in 0..1000u32 {
            let now = now + Duration::from_millis(number.into());
            let last = Ipv4Addr::from(number);
            renewals.ask(last, KEY, now);
            assert!(!renewals.acknowledge(last, (2, KEY.1), now, now));
        }
        assert!(renewals.is_bounded());
        let last = Ipv4Addr::from(999);
        assert!(renewals.acknowledge(last, KEY, now, now));
    }
}

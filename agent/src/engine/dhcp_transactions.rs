//! The DHCP conversations under way: what was sent to the network, for whom, and what may still come back.
//!
//! A conversation is known by the number and the client's hardware address as the network sees them, because replies are all
//! that is ever looked up. The table is bounded. Where it is full, the one goes that was let in for the weakest reason, of the
//! station that has most; its client asks again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::addr::MacAddr;
use crate::wire::dhcp::{Dhcp, MessageType};

use super::dhcp_admission::Rank;
use super::dhcp_crossing::{Crossing, Way};

/// Most conversations remembered.
pub(crate) const MOST_TRANSACTIONS: usize = 512;
/// How long a server may take: clients give up before this.
const LASTS: Duration = Duration::from_secs(60);
/// Most replies delivered to one request: more than there are servers in any network.
const MOST_REPLIES: usize = 8;

/// A whole hardware address field: it identifies a client whatever its length.
pub(crate) type Chaddr = [u8; 16];
/// A conversation's number and client, as they are on the uplink.
pub(crate) type Key = (u32, Chaddr);

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    table: BTreeMap<Key, Pending>,
    due: BTreeSet<(Instant, Key)>,
    of_station: BTreeSet<(MacAddr, Key)>,
}

/// What is still expected in a conversation.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) crossing: Crossing,
    pub(crate) station: MacAddr,
    pub(crate) rank: Rank,
    until: Instant,
    replies: usize,
    /// What was delivered since the last request: a reply by broadcast may come several times (D9).
    delivered: BTreeSet<(MessageType, Option<Ipv4Addr>)>,
}

/// Why a reply is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwelcome {
    /// Nobody asked for it.
    Unasked,
    /// As many came as are believed.
    Capped,
    /// The same one came already.
    Duplicate,
}

impl Pending {
    pub(crate) fn new(crossing: Crossing, station: MacAddr, rank: Rank, now: Instant) -> Pending {
        Pending {
            crossing,
            station,
            rank,
            until: now + LASTS,
            replies: 0,
            delivered: BTreeSet::new(),
        }
    }
}

impl Transactions {
    /// Expects replies to a request, which opens the door again that earlier replies may have closed.
    pub(crate) fn expect(&mut self, key: Key, pending: Pending) {
        if self.table.len() >= MOST_TRANSACTIONS && !self.table.contains_key(&key) {
            self.make_room();
        }
        self.remove(&key);
        self.due.insert((pending.until, key));
        self.of_station.insert((pending.station, key));
        self.table.insert(key, pending);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(pending) = self.table.remove(key) {
            self.due.remove(&(pending.until, *key));
            self.of_station.remove(&(pending.station, *key));
        }
    }

    /// Returns how the request crossed that a reply answers.
    pub(crate) fn find(&self, key: &Key, now: Instant) -> Option<&Pending> {
        self.table.get(key).filter(|pending| pending.until > now)
    }

    /// Returns whether a server answers the station: it is in the middle of something.
    pub(crate) fn is_answered(&self, station: MacAddr, now: Instant) -> bool {
        let first = (station, (u32::MIN, [u8::MIN; 16]));
        let last = (station, (u32::MAX, [u8::MAX; 16]));
        let mut own = self.of_station.range(first..=last);
        let is_answered = |pending: &Pending| pending.replies > 0;
        own.any(|(_, key)| self.find(key, now).is_some_and(is_answered))
    }

    /// Takes a reply; what it says is the caller's matter.
    pub(crate) fn take(
        &mut self,
        key: &Key,
        reply: &Dhcp<'_>,
        now: Instant,
    ) -> Result<Crossing, Unwelcome> {
        let pending = self.table.get_mut(key);
        let pending = pending
            .filter(|pending| pending.until > now)
            .ok_or(Unwelcome::Unasked)?;
        if pending.replies >= MOST_REPLIES {
            return Err(Unwelcome::Capped);
        }
        let said = (reply.message_type(), reply.server_identifier());
        let first = pending.delivered.insert(said);
        if !first && pending.crossing.way != Way::Relay {
            return Err(Unwelcome::Duplicate);
        }
        pending.replies += 1;
        Ok(pending.crossing)
    }

    fn make_room(&mut self) {
        let mut shares: BTreeMap<MacAddr, usize> = BTreeMap::new();
        for pending in self.table.values() {
            *shares.entry(pending.station).or_default() += 1;
        }
        let worth = |pending: &Pending| {
            let share = shares.get(&pending.station).copied();
            (pending.rank, Reverse(share), pending.until)
        };
        let victim = self.table.iter().min_by_key(|(_, pending)| worth(pending));
        if let Some(key) = victim.map(|(key, _)| *key) {
            self.remove(&key);
        }
    }

    /// Forgets all, because the address they were held under is gone.
    pub(crate) fn clear(&mut self) {
        *self = Transactions::default();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets what is over.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.remove(&key);
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn size(&self) -> usize {
        assert_eq!(self.due.len(), self.table.len());
        assert_eq!(self.of_station.len(), self.table.len());
        self.table.len()
    }
}

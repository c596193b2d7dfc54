//! Which of the wire's DHCP requests are relayed when there are too many: those of a starvation tool last.
//!
//! A tool that empties a server's pool invents hardware addresses: behind one station, which is held to a station's share, or
//! as stations of their own, each of which looks like a machine that was just switched on. What those do not have is a host
//! that is known already, a conversation that goes on, or the patience of a client that was refused and asks again some
//! seconds later. So the second's budget is filled in steps, and each better reason to be let in may go one step further.
//!
//! ```text
//!  0            48      64      80      96 requests a second
//!  |-- for others --|
//!  |-- new -------------|
//!  |-- returning ---------------|
//!  |-- known -----------------------------|
//! ```

use std::time::{Duration, Instant};

use crate::addr::MacAddr;

use super::mix::mix;
use super::pace::{Exhausted, Pace};

/// Most requests relayed in a second: each is a broadcast in the network, and makes a server work.
const MOST_REQUESTS: u32 = 96;
/// Most requests relayed in a second for one station, which may be an access point that speaks for its clients.
const MOST_OF_ONE_STATION: u32 = 16;

/// Why a request is let in, the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The station speaks for another: its hardware address is not the client's.
    ForOthers,
    /// A station that was not heard of.
    New,
    /// A station that was refused some seconds ago and asks again, or whom a server just answered.
    Returning,
    /// A station with a host in the table.
    Known,
}

/// The pace of the second that runs, and who was refused lately.
#[derive(Debug)]
pub(crate) struct Admission {
    pace: Pace,
    refused: Refused,
}

impl Admission {
    pub(crate) fn new(seed: u64) -> Admission {
        Admission {
            pace: Pace::new(MOST_REQUESTS, MOST_OF_ONE_STATION),
            refused: Refused::new(seed),
        }
    }

    /// Returns whether a station's request is refused whatever speaks for it, so that nobody need find out what does.
    pub(crate) fn refuses(&mut self, station: MacAddr, now: Instant) -> bool {
        match self.pace.exhausted(station, now) {
            None => false,
            Some(Exhausted::Own) => true,
            Some(Exhausted::All) => {
                // It may be new, and then its patience is to speak for it.
                self.refused.note(station, now);
                true
            }
        }
    }

    /// Returns the rank by which a station's request is let in, if it is. `rank` is what else is known of it.
    pub(crate) fn admit(&mut self, station: MacAddr, rank: Rank, now: Instant) -> Option<Rank> {
        let rank = match rank {
            Rank::New if self.refused.remembers(station, now) => Rank::Returning,
            Rank::ForOthers | Rank::New | Rank::Returning | Rank::Known => rank,
        };
        let admitted = match rank {
            Rank::ForOthers => self.pace.allows_up_to(48, station, now),
            Rank::New => self.pace.allows_up_to(64, station, now),
            Rank::Returning => self.pace.allows_up_to(80, station, now),
            Rank::Known => self.pace.allows(station, now),
        };
        if rank == Rank::New && !admitted {
            self.refused.note(station, now);
        }
        admitted.then_some(rank)
    }
}

/// How long a generation of refused stations is written to. Clients ask again after two seconds or more.
const GENERATION: Duration = Duration::from_secs(4);
/// How many generations are kept: as long as clients wait between their first tries.
const GENERATIONS: usize = 4;
/// Words of a generation: at a thousand invented stations a second, one in a hundred passes for a returning one.
const WORDS: usize = 1024;

/// Stations refused lately, as Bloom filters: of a flood of invented ones each costs three bits, and none pushes out another.
#[derive(Debug)]
struct Refused {
    seed: u64,
    /// The newest first; empty until somebody is refused in its time.
    generations: [Vec<u64>; GENERATIONS],
    since: Option<Instant>,
}

impl Refused {
    fn new(seed: u64) -> Refused {
        Refused {
            seed,
            generations: Default::default(),
            since: None,
        }
    }

    /// Returns whether the station was refused in an older generation: asking twice at once is no patience.
    fn remembers(&mut self, station: MacAddr, now: Instant) -> bool {
        self.age(now);
        let bits = self.bits(station);
        let set = |words: &Vec<u64>| {
            let mut set = bits.iter().map(|bit| {
                words
                    .get(bit / 64)
                    .is_some_and(|w| w >> (bit % 64) & 1 == 1)
            });
            set.all(|set| set)
        };
        self.generations[1..].iter().any(set)
    }

    fn note(&mut self, station: MacAddr, now: Instant) {
        self.age(now);
        let bits = self.bits(station);
        let words = &mut self.generations[0];
        words.resize(WORDS, 0);
        for bit in bits {
            words[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn age(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_secs() / GENERATION.as_secs();
        for _ in 0..passed.min(GENERATIONS as u64) {
            self.generations.rotate_right(1);
            self.generations[0] = Vec::new();
        }
        if passed > 0 {
            self.since = Some(now);
        }
    }

    fn bits(&self, station: MacAddr) -> [usize; 3] {
        let [a, b, c, d, e, f] = station.octets();
        let station = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let hash = mix(self.seed ^ station);
        let bit = |part: u32| (hash >> (16 * part)) as usize % (64 * WORDS);
        [bit(0), bit(1), bit(2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTER: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn invented(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr(6, 0, a, b, c, d)
    }

    /// Floods for some seconds, a thousand requests in each, and counts what is let in.
    fn flood(admission: &mut Admission, start: Instant, seconds: u32, rank: Rank) -> u32 {
        let mut admitted = 0;
        for number in 0..seconds * 1000 {
            let now = start + Duration::from_millis(u64::from(number));
            let station = match rank {
                Rank::ForOthers => invented(number % 10),
                Rank::New | Rank::Returning | Rank::Known => invented(number),
            };
            admitted += u32::from(admission.admit(station, rank, now).is_some());
        }
        admitted
    }

    #[test]
    fn one_station_has_a_stations_share() {
        let start = crate::engine::test_clock();
        let mut admission = Admission::new(1);
        let admitted =
            (0..100).filter(|_| admission.admit(PRINTER, Rank::ForOthers, start).is_some());
        assert_eq!(admitted.count(), 16);
        assert!(admission.admit(invented(1), Rank::New, start).is_some());
        let next = start + Duration::from_secs(1);
        assert!(admission.admit(PRINTER, Rank::ForOthers, next).is_some());
    }

    #[test]
    fn a_flood_leaves_room_for_better_reasons() {
        let start = crate::engine::test_clock();
        for (rank, share) in [(Rank::ForOthers, 48), (Rank::New, 64)] {
            let mut admission = Admission::new(1);
            assert_eq!(flood(&mut admission, start, 1, rank), share);
            let end = start + Duration::from_millis(999);
            assert_eq!(
                admission.admit(PRINTER, Rank::Known, end),
                Some(Rank::Known)
            );
        }
    }

    #[test]
    fn whoever_finds_the_second_used_up_is_remembered() {
        let start = crate::engine::test_clock();
        let mut admission = Admission::new(1);
        assert!(!admission.refuses(PRINTER, start));
        for number in 0..MOST_REQUESTS {
            assert!(!admission.refuses(invented(number), start));
            let admitted = admission.admit(invented(number), Rank::Known, start);
            assert!(admitted.is_some());
        }
        assert!(admission.refuses(PRINTER, start));
        let again = start + GENERATION;
        assert!(!admission.refuses(PRINTER, again));
        flood(&mut admission, again, 1, Rank::New);
        let again = again + Duration::from_millis(999);
        assert_eq!(
            admission.admit(PRINTER, Rank::New, again),
            Some(Rank::Returning)
        );
    }

    #[test]
    fn a_new_client_that_asks_again_comes_through_a_flood() {
        let start = crate::engine::test_clock();
        let mut admission = Admission::new(1);
        flood(&mut admission, start, 3, Rank::New);
        let at = |seconds: u64| start + Duration::from_millis(seconds * 1000 - 1);
        assert_eq!(admission.admit(PRINTER, Rank::New, at(3)), None);
        assert_eq!(admission.admit(PRINTER, Rank::New, at(3)), None);
        flood(&mut admission, at(3), 8, Rank::New);
        let again = admission.admit(PRINTER, Rank::New, at(11));
        assert_eq!(again, Some(Rank::Returning));
        // Long after, it is a stranger again.
        flood(&mut admission, at(11), 30, Rank::New);
        assert_eq!(admission.admit(PRINTER, Rank::New, at(41)), None);
    }
}

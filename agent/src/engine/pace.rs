//! How often something may happen because a station asked for it: so many times a second in all, and fewer for each station.
//!
//! Nothing is queued. Who is refused asks again by itself, and the protocols' own back-off spreads a crowd.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::addr::MacAddr;

const WINDOW: Duration = Duration::from_secs(1);

/// What of the second is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The station's own share.
    Own,
    /// Everybody's.
    All,
}

/// The count of the second that runs.
#[derive(Debug)]
pub(crate) struct Pace<Station = MacAddr> {
    most: u32,
    most_of_one: u32,
    since: Option<Instant>,
    used: u32,
    /// Holds no more stations than `most`.
    counts: BTreeMap<Station, u32>,
}

impl<Station: Ord> Pace<Station> {
    pub(crate) fn new(most: u32, most_of_one: u32) -> Pace<Station> {
        Pace {
            most,
            most_of_one,
            since: None,
            used: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Returns whether the station may have its way once more, and counts it if so.
    pub(crate) fn allows(&mut self, station: Station, now: Instant) -> bool {
        self.allows_up_to(self.most, station, now)
    }

    /// Returns what is used up, so that the station is refused whatever its purpose.
    pub(crate) fn exhausted(&self, station: Station, now: Instant) -> Option<Exhausted> {
        if self.since.is_none_or(|since| since + WINDOW <= now) {
            return None;
        }
        let own = self.counts.get(&station);
        if own.is_some_and(|own| *own >= self.most_of_one) {
            return Some(Exhausted::Own);
        }
        (self.used >= self.most).then_some(Exhausted::All)
    }

    /// The same for a purpose that must leave the rest of the second to better ones.
    pub(crate) fn allows_up_to(&mut self, most: u32, station: Station, now: Instant) -> bool {
        if self.since.is_none_or(|since| since + WINDOW <= now) {
            self.since = Some(now);
            self.used = 0;
            self.counts.clear();
        }
        if self.used >= most {
            return false;
        }
        let own = self.counts.entry(station).or_default();
        let allowed = *own < self.most_of_one;
        if allowed {
            *own += 1;
            self.used += 1;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_station_leaves_room_for_others_until_all_is_used() {
        let start = crate::engine::test_clock();
        let mut pace = Pace::new(5, 2);
        let mut allowed = |station, at| {
            let station = MacAddr(2, 0, 0, 0, 0, station);
            pace.allows(station, start + Duration::from_millis(at))
        };
        let cases = [
            (1, 0, true),
            (1, 0, true),
            (1, 999, false),
            (2, 999, true),
            (2, 999, true),
            (3, 999, true),
            (4, 999, false),
            (4, 1000, true),
            (1, 1000, true),
        ];
        for (station, at, expected) in cases {
            assert_eq!(allowed(station, at), expected, "{station} at {at} ms");
        }
    }

    #[test]
    fn what_is_exhausted_allows_nothing() {
        let start = crate::engine::test_clock();
        let mut pace = Pace::new(5, 2);
        let station = |number| MacAddr(2, 0, 0, 0, 0, number);
        let mut seen = Vec::new();
        for number in [1, 1, 1, 2, 2, 3, 4] {
            let exhausted = pace.exhausted(station(number), start);
            assert_eq!(pace.allows(station(number), start), exhausted.is_none());
            seen.push(exhausted);
        }
        let (own, all) = (Some(Exhausted::Own), Some(Exhausted::All));
        assert_eq!(seen, [None, None, own, None, None, None, all]);
        assert_eq!(pace.exhausted(station(1), start + WINDOW), None);
    }
}

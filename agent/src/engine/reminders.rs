//! Whose turn it is to be reminded: hosts that are silent while their lease lasts are asked now and then, because they may wake
//! up and say nothing.
//!
//! Each waits a minute, and all wait for each other: whoever waits longest is next, and between two of them passes some time. So
//! a few are asked every minute, and two thousand, of which each would cost as many frames, cost no more than a few at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Until a silent host is asked again; the address is nobody else's until the lease ends.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two hosts. A reminder is six frames, half of them to everybody on the wire: these are two dozen frames a second.
const PACE: Duration = Duration::from_millis(250);
/// Most that wait: as many as there can be hosts on the wire. Whoever comes when it is full is found when it speaks.
const MOST: usize = super::table::MOST_PER_SIDE;

/// Who waits.
#[derive(Debug, Default)]
pub(crate) struct Reminders {
    due: BTreeMap<Ipv4Addr, Instant>,
    order: BTreeSet<(Instant, Ipv4Addr)>,
    /// From when the next may be asked.
    free: Option<Instant>,
}

impl Reminders {
    /// Puts a host at the end of those who wait.
    pub(crate) fn wait(&mut self, ip: Ipv4Addr, now: Instant) {
        if let Some(before) = self.due.remove(&ip) {
            self.order.remove(&(before, ip));
        }
        if self.due.len() < MOST {
            self.due.insert(ip, now + INTERVAL);
            self.order.insert((now + INTERVAL, ip));
        }
    }

    /// Takes the host out whose turn it is. If it is to be asked, `asked` has to be called.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Ipv4Addr> {
        self.next_deadline().filter(|due| *due <= now)?;
        let (_, ip) = self.order.pop_first()?;
        self.due.remove(&ip);
        Some(ip)
    }

    /// Takes note that a host is being asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.free = Some(now + PACE);
    }

    /// Forgets all who wait.
    pub(crate) fn clear(&mut self) {
        *self = Reminders::default();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (due, _) = self.order.first()?;
        Some(self.free.map_or(*due, |free| free.max(*due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 + number)
    }

    /// Reminds for some time, each host again and again, and returns how often each was.
    fn remind(hosts: u32, time: Duration) -> Vec<u32> {
        let start = crate::engine::test_clock();
        let mut reminders = Reminders::default();
        for number in 0..hosts {
            reminders.wait(host(number), start);
        }
        let mut times = vec![0; hosts as usize];
        while let Some(due) = reminders.next_deadline().filter(|due| *due <= start + time) {
            let ip = reminders.next(due).unwrap();
            times[(u32::from(ip) - 0x0a00_0000) as usize] += 1;
            reminders.asked(due);
            reminders.wait(ip, due);
        }
        times
    }

    #[test]
    fn a_few_are_reminded_every_minute() {
        assert_eq!(remind(10, Duration::from_secs(600 + 5)), [10; 10]);
    }

    #[test]
    fn a_crowd_is_reminded_slowly_and_in_turn() {
        let times = remind(2000, Duration::from_secs(3600));
        let all: u32 = times.iter().sum();
        assert!(all <= 4 * 3600, "{all}");
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least >= 6 && most - least <= 1, "{least} to {most}");
    }

    #[test]
    fn whoever_waits_again_waits_once() {
        let now = crate::engine::test_clock();
        let mut reminders = Reminders::default();
        for number in 0..3 * MOST as u32 {
            reminders.wait(host(number), now);
            reminders.wait(host(0), now + PACE);
        }
        assert_eq!((reminders.due.len(), reminders.order.len()), (MOST, MOST));
        reminders.clear();
        assert_eq!(reminders.next_deadline(), None);
    }
}

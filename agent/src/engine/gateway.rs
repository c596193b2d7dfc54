//! The watch over the gateway (A10): it is asked all the time, alone while it answers, and so its silence is known within seconds.
//!
//! Where the gateway lives is decided like any host's, with one difference: while the uplink's default route names it, it never
//! moves to the wire, whoever answers for it there and however silent it is. The machine itself could not use it there, and
//! a gateway that truly is on the wire means that the two ports are swapped, which is for a person to mend.
//!
//! After an interruption, the gateway's address may be another machine's. Until that is judged (`network`), the old one is asked
//! as well as everybody, and whoever else speaks for the address only claims it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::addr::MacAddr;

use super::host::Word;

/// Between a sign of life and the next question: a third of what most kernels believe without asking.
const INTERVAL: Duration = Duration::from_secs(20);
/// Questions to the gateway alone, and then as many to everybody, before it counts as lost.
const TRIES: u32 = 3;
const ALONE_WAIT: Duration = Duration::from_millis(300);
const EVERYBODY_WAIT: Duration = Duration::from_millis(500);
/// Longest wait for a lost one.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The watch; it watches nothing while there is no bridge or no gateway.
#[derive(Debug, Default)]
pub(crate) struct GatewayWatch {
    watched: Option<Watched>,
    /// Where the gateway was before an interruption, while it is not known whether it still is.
    before: Option<MacAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    gateway: Ipv4Addr,
    next: Instant,
    /// Questions since it last spoke, and when the first was.
    sent: u32,
    first_sent: Instant,
    /// When traffic was last seen to come from it.
    glimpsed: Option<Instant>,
    /// Where it last spoke.
    mac: Option<MacAddr>,
}

/// What the watch wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Ask the gateway, at the hardware address it has if that is known.
    Alone(Ipv4Addr),
    /// Ask everybody for the gateway.
    Everybody(Ipv4Addr),
    /// Ask everybody, and believe no longer that it is where it was.
    Lost(Ipv4Addr),
}

impl GatewayWatch {
    /// Watches this gateway from now on.
    pub(crate) fn follow(&mut self, gateway: Option<Ipv4Addr>, now: Instant) {
        if self.watched.map(|watched| watched.gateway) != gateway {
            self.watched = gateway.map(|gateway| Watched {
                gateway,
                next: now,
                sent: 0,
                first_sent: now,
                glimpsed: None,
                mac: None,
            });
        }
    }

    /// Asks soon, whenever it last spoke.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if let Some(watched) = &mut self.watched {
            watched.sent = 0;
            watched.next = now;
        }
    }

    /// Keeps in mind where the gateway was before an interruption, or no longer.
    pub(crate) fn remember(&mut self, before: Option<MacAddr>) {
        self.before = before;
    }

    /// Returns where the gateway was before an interruption that is not judged yet, if it has this address.
    pub(crate) fn before(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        let watched = self.watched.filter(|watched| watched.gateway == ip);
        watched.and(self.before)
    }

    /// Takes note of a sign of life of a host; an answer of the gateway puts the next question off.
    pub(crate) fn heard(&mut self, ip: Ipv4Addr, mac: MacAddr, word: Word, now: Instant) {
        let Some(watched) = self
            .watched
            .as_mut()
            .filter(|watched| watched.gateway == ip)
        else {
            return;
        };
        if watched.is_lost() {
            info!("the gateway answers again");
        }
        match word {
            Word::Answered => watched.next = now + INTERVAL,
            Word::Spoke if watched.sent > 0 => {
                watched.next = watched.next.min(now + ALONE_WAIT);
            }
            Word::Spoke => {}
        }
        watched.sent = 0;
        watched.mac = Some(mac);
    }

    /// Returns the hardware address at which the gateway last spoke since it is watched, however silent it is.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.watched?.mac
    }

    /// Takes note that a packet came from the gateway: it is alive, whatever it does not answer.
    pub(crate) fn glimpsed(&mut self, ip: Ipv4Addr, now: Instant) {
        if let Some(watched) = self
            .watched
            .as_mut()
            .filter(|watched| watched.gateway == ip)
        {
            watched.glimpsed = Some(now);
        }
    }

    /// Returns when a packet was last seen to come from it.
    pub(crate) fn last_glimpsed(&self) -> Option<Instant> {
        self.watched.and_then(|watched| watched.glimpsed)
    }

    /// Returns whether an answer of the gateway is expected.
    pub(crate) fn expects(&self, ip: Ipv4Addr) -> bool {
        self.watched
            .is_some_and(|watched| watched.gateway == ip && watched.sent > 0)
    }

    /// Returns since when the gateway does not answer, if it is asked and does not. One lost frame is not silence.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let silent = self.watched.filter(|watched| watched.sent > TRIES);
        silent.map(|watched| {
            watched
                .glimpsed
                .map_or(watched.first_sent, |at| at.max(watched.first_sent))
        })
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.watched.map(|watched| watched.next)
    }

    /// Returns what is due, and takes it as done.
    pub(crate) fn handle_tick(&mut self, now: Instant) -> Option<Asking> {
        let watched = self
            .watched
            .as_mut()
            .filter(|watched| watched.next <= now)?;
        if watched.sent == 0 {
            watched.first_sent = now;
        }
        watched.sent = watched.sent.saturating_add(1);
        watched.next = now + watched.wait();
        let gateway = watched.gateway;
        Some(match watched.sent {
            sent if sent <= TRIES => Asking::Alone(gateway),
            sent if sent <= 2 * TRIES => Asking::Everybody(gateway),
            sent => {
                if sent == 2 * TRIES + 1 {
                    warn!("the gateway does not answer");
                }
                Asking::Lost(gateway)
            }
        })
    }
}

impl Watched {
    fn is_lost(&self) -> bool {
        self.sent > 2 * TRIES
    }

    fn wait(&self) -> Duration {
        match self.sent {
            sent if sent <= TRIES => ALONE_WAIT,
            sent if sent <= 2 * TRIES => EVERYBODY_WAIT,
            sent => Duration::from_secs(1 << (sent - 2 * TRIES - 1).min(8)).min(LONGEST_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ROUTER: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    #[test]
    fn a10_the_gateway_is_asked_all_the_time_and_its_silence_is_known() {
        let start = crate::engine::test_clock();
        let mut watch = GatewayWatch::default();
        watch.follow(Some(GATEWAY), start);
        assert_eq!(watch.handle_tick(start), Some(Asking::Alone(GATEWAY)));
        assert_eq!(watch.mac(), None);
        watch.heard(GATEWAY, ROUTER, Word::Answered, start);
        assert_eq!(watch.next_deadline(), Some(start + INTERVAL));
        let mut times = Vec::new();
        for _ in 0..12 {
            let due = watch.next_deadline().unwrap();
            let asking = watch.handle_tick(due).unwrap();
            let lost = matches!(asking, Asking::Lost(_));
            times.push((
                (due - start).as_millis() - 20_000,
                lost,
                watch.silent_since().is_some(),
            ));
        }
        let silent = |ms, lost| (ms, lost, true);
        assert_eq!(
            times,
            [
                (0, false, false),
                (300, false, false),
                (600, false, false),
                silent(900, false),
                silent(1400, false),
                silent(1900, false),
                silent(2400, true),
                silent(3400, true),
                silent(5400, true),
                silent(9400, true),
                silent(17_400, true),
                silent(32_400, true),
            ]
        );
        assert_eq!(watch.silent_since(), Some(start + INTERVAL));
        assert_eq!(watch.mac(), Some(ROUTER));
        watch.heard(GATEWAY, ROUTER, Word::Answered, start + 3 * INTERVAL);
        assert_eq!(watch.silent_since(), None);
        watch.follow(None, start);
        assert_eq!((watch.next_deadline(), watch.mac()), (None, None));
    }
}

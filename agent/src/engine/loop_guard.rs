//! The loop guard: whether both ports are on one segment, where a bridge would feed itself for ever.
//!
//! As soon as both ports have carrier, a nonce goes out of each, in a frame of a type of its own and in an ARP probe, which passes
//! where an access point drops EtherTypes it does not know. One that comes in at the other port has crossed by itself: both are
//! on one segment, and nothing may be served. Only a nonce decides. It cannot be guessed, it differs by port and by round, and
//! so a station that hears one port can send back nothing that would be taken for the other's. A frame that merely bears our
//! other port's hardware address may be anybody's; it makes us ask again, at once.
//!
//! ```text
//!            carrier on both                  nothing seen
//!  (unknown) ---------------> first round ------------------> Separate (later rounds, rarer and rarer)
//!      ^                           | nonce on the other port    | nonce on the other port
//!      |   carrier lost            v                            v
//!      +------------------------- Same (a round after 5 s, 10 s, ... 60 s; nothing seen: Separate)
//! ```

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::addr::{MacAddr, Side};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{self, Frame};
use crate::wire::loop_probe;

use super::link::Port;
use super::secrets::Secret;
use super::turn::Counters;

/// How long the first round may take: a frame crosses an access point in a few milliseconds, and clients wait meanwhile.
pub(crate) const VERDICT: Duration = Duration::from_millis(150);
/// How long a round may take that is to end a loop, for which nobody waits: longer than a beacon interval or three, for which
/// an access point keeps broadcasts back from dozing stations.
const RECHECK_VERDICT: Duration = Duration::from_millis(500);
/// Distances of the later rounds: a switch may take half a minute until it forwards, and nothing tells when.
const LATER_ROUNDS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(7),
    Duration::from_secs(20),
    Duration::from_secs(30),
];
/// Shortest time between two rounds because of our own address seen elsewhere, which anybody can send.
const SUSPICION_PACE: Duration = Duration::from_secs(1);
/// First wait before a loop is looked for again; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What is known of the two ports' segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segments {
    /// Nothing yet.
    Unknown,
    /// Nothing crosses by itself.
    Separate,
    /// What leaves one port arrives at the other.
    Same,
}

/// The two ports, while both have carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) uplink: Port,
    pub(crate) wired: Port,
}

impl Ports {
    fn mac(&self, side: Side) -> MacAddr {
        match side {
            Side::Wired => self.wired.mac,
            Side::Uplink => self.uplink.mac,
        }
    }
}

/// The frames that carry a nonce; a round sends both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A frame of an EtherType of its own.
    Own,
    /// An ARP probe for our own address with the nonce where the target's hardware address has no meaning.
    Arp,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    FirstRound {
        until: Instant,
    },
    Separate {
        /// When the next round is due, and which it is.
        next: Option<(Instant, usize)>,
    },
    Same {
        wait: Duration,
        retry: Instant,
    },
    /// Still the same segment as far as anybody knows, and a round is out.
    Recheck {
        wait: Duration,
        until: Instant,
    },
}

/// What the loop guard may use while it handles something.
pub(crate) struct Outlet<'a> {
    pub(crate) now: Instant,
    /// The address for which nobody but us answers, where there is one.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) frames: &'a mut Vec<(Side, Vec<u8>)>,
}

impl Outlet<'_> {
    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }
}

/// The nonces of one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    uplink: u64,
    wired: u64,
}

impl Round {
    fn nonce(&self, side: Side) -> u64 {
        match side {
            Side::Wired => self.wired,
            Side::Uplink => self.uplink,
        }
    }
}

/// The guard.
#[derive(Debug)]
pub(crate) struct LoopGuard {
    nonces: Secret,
    /// How many rounds were sent.
    rounds: u64,
    /// The last one.
    round: Option<Round>,
    ports: Option<Ports>,
    phase: Phase,
    suspected: Option<Instant>,
}

impl LoopGuard {
    pub(crate) fn new(nonces: Secret) -> LoopGuard {
        LoopGuard {
            nonces,
            rounds: 0,
            round: None,
            ports: None,
            phase: Phase::Idle,
            suspected: None,
        }
    }

    pub(crate) fn segments(&self) -> Segments {
        match self.phase {
            Phase::Idle | Phase::FirstRound { .. } => Segments::Unknown,
            Phase::Separate { .. } => Segments::Separate,
            Phase::Same { .. } | Phase::Recheck { .. } => Segments::Same,
        }
    }

    /// Returns whether it will be known in a moment.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::FirstRound { .. })
    }

    /// Takes the ports as they are, and asks anew if they are others, or were without carrier.
    pub(crate) fn watch(&mut self, ports: Option<Ports>, outlet: &mut Outlet<'_>) {
        if self.ports == ports {
            return;
        }
        self.ports = ports;
        self.phase = Phase::Idle;
        if ports.is_some() {
            self.phase = Phase::FirstRound {
                until: outlet.now + VERDICT,
            };
            self.send_round(outlet);
        }
    }

    /// Asks again while everything goes on, because the uplink is in another place.
    pub(crate) fn ask_again(&mut self, outlet: &mut Outlet<'_>) {
        if matches!(self.phase, Phase::Separate { .. }) {
            self.phase = later_rounds(outlet.now);
            self.send_round(outlet);
        }
    }

    /// Takes a frame of one of our own hardware addresses, or of the probes' type. Returns whether it was for nobody but us.
    pub(crate) fn handle_frame(
        &mut self,
        side: Side,
        frame: &Frame<'_>,
        outlet: &mut Outlet<'_>,
    ) -> bool {
        let Some(ports) = self.ports else {
            return false;
        };
        let other = side.other();
        let strays = frame.source == ports.mac(other) && frame.source != ports.mac(side);
        match carried(frame) {
            Some((form, nonce)) if self.is_ours(other, form, nonce) => self.found(form, outlet),
            Some((Form::Own, _)) => outlet.count("loop-probe-foreign"),
            Some((Form::Arp, _)) | None if strays => self.suspect(outlet),
            Some((Form::Arp, _)) | None => return false,
        }
        true
    }

    fn found(&mut self, form: Form, outlet: &mut Outlet<'_>) {
        outlet.count("loop-probe-seen");
        let wait = match self.phase {
            // The other port's probe of a round already judged.
            Phase::Same { .. } | Phase::Idle => return,
            Phase::Recheck { wait, .. } => (wait * 2).min(LONGEST_RETRY),
            Phase::FirstRound { .. } | Phase::Separate { .. } => FIRST_RETRY,
        };
        debug!(?form, ?wait, "our own probe came in at the other port");
        let retry = outlet.now + wait;
        self.phase = Phase::Same { wait, retry };
    }

    fn suspect(&mut self, outlet: &mut Outlet<'_>) {
        outlet.count("loop-suspected");
        let lately = self
            .suspected
            .is_some_and(|at| at + SUSPICION_PACE > outlet.now);
        let open = match &mut self.phase {
            Phase::FirstRound { until } if !lately => {
                *until = outlet.now + VERDICT;
                true
            }
            Phase::FirstRound { .. } | Phase::Separate { .. } => !lately,
            Phase::Idle | Phase::Same { .. } | Phase::Recheck { .. } => false,
        };
        if open {
            debug!("a frame with our other port's address came in");
            self.suspected = Some(outlet.now);
            self.send_round(outlet);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => None,
            Phase::FirstRound { until } | Phase::Recheck { until, .. } => Some(until),
            Phase::Separate { next } => next.map(|(at, _)| at),
            Phase::Same { retry, .. } => Some(retry),
        }
    }

    pub(crate) fn handle_tick(&mut self, outlet: &mut Outlet<'_>) {
        let now = outlet.now;
        match self.phase {
            Phase::FirstRound { until } if until <= now => self.phase = later_rounds(now),
            Phase::Recheck { until, .. } if until <= now => {
                info!("nothing crosses between the two ports any more");
                self.phase = later_rounds(now);
            }
            Phase::Separate {
                next: Some((at, round)),
            } if at <= now => {
                let next = LATER_ROUNDS
                    .get(round + 1)
                    .map(|wait| (now + *wait, round + 1));
                self.phase = Phase::Separate { next };
                self.send_round(outlet);
            }
            Phase::Same { wait, retry } if retry <= now => {
                let until = now + RECHECK_VERDICT;
                self.phase = Phase::Recheck { wait, until };
                self.send_round(outlet);
            }
            Phase::Idle
            | Phase::FirstRound { .. }
            | Phase::Recheck { .. }
            | Phase::Separate { .. }
            | Phase::Same { .. } => {}
        }
    }

    /// Sends one round out of both ports; what is left of an earlier one counts for nothing from here on.
    fn send_round(&mut self, outlet: &mut Outlet<'_>) {
        let Some(ports) = self.ports else {
            return;
        };
        self.rounds += 1;
        let round = Round {
            uplink: self.nonces.hash(&[self.rounds, 0]),
            wired: self.nonces.hash(&[self.rounds, 1]),
        };
        self.round = Some(round);
        outlet.count("loop-probed");
        for side in [Side::Uplink, Side::Wired] {
            let (mac, nonce) = (ports.mac(side), round.nonce(side));
            let target = outlet.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
            outlet.frames.push((side, loop_probe::encode(mac, nonce)));
            outlet.frames.push((side, arp_probe(mac, target, nonce)));
        }
    }

    /// Returns whether it is what this round's frame of a form and a side carries.
    fn is_ours(&self, side: Side, form: Form, nonce: u64) -> bool {
        let round = self.round;
        round.is_some_and(|round| nonce == cut(form, round.nonce(side)))
    }
}

fn later_rounds(now: Instant) -> Phase {
    let next = Some((now + LATER_ROUNDS[0], 0));
    Phase::Separate { next }
}

/// Returns the ARP form of a probe: the way a host asks before it takes an address, so it touches no table and, the address being
/// ours, finds no one to answer.
fn arp_probe(sha: MacAddr, target: Ipv4Addr, nonce: u64) -> Vec<u8> {
    let arp = Arp {
        operation: Operation::Request,
        sha,
        spa: Ipv4Addr::UNSPECIFIED,
        tha: nonce_mac(nonce),
        tpa: target,
    };
    arp::encode(&arp, MacAddr::broadcast())
}

/// Returns the nonce that a frame may carry, and in which form.
fn carried(frame: &Frame<'_>) -> Option<(Form, u64)> {
    match frame.ether_type {
        loop_probe::TYPE_LOOP_PROBE => Some((Form::Own, loop_probe::decode(frame)?)),
        ethernet::TYPE_ARP => {
            let arp = arp::decode(frame).ok()?;
            let probe = arp.operation == Operation::Request && arp.spa.is_unspecified();
            let [a, b, c, d, e, f] = arp.tha.octets();
            let nonce = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
            probe.then_some((Form::Arp, nonce))
        }
        _ => None,
    }
}

/// Returns what of a nonce the form carries.
fn cut(form: Form, nonce: u64) -> u64 {
    match form {
        Form::Own => nonce,
        Form::Arp => nonce & 0xffff_ffff_ffff,
    }
}

fn nonce_mac(nonce: u64) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = nonce.to_be_bytes();
    MacAddr(a, b, c, d, e, f)
}

//! Whoever asks all the time whether a host is still there, and the longest time without an answer.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use footbridge_agent::addr::MacAddr;
use footbridge_agent::wire::arp::{self, Arp, Operation};
use footbridge_agent::wire::ethernet;
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;
use super::packet_socket;
use super::rig::PATIENCE;

/// An ICMP echo request: type and code, checksum, identifier, sequence number.
const REQUEST: [u8; 8] = [8, 0, 0x07, 0xf8, 0xf0, 0x07, 0, 0];
/// The echo reply's type, and the identifier as in the request.
const REPLY: (u8, [u8; 2]) = (0, [0xf0, 0x07]);
/// Who asks by ARP: addresses that are nobody's in the rig.
const ASKER: (MacAddr, Ipv4Addr) = (MacAddr(2, 0, 0, 0, 0, 9), Ipv4Addr::new(192, 168, 77, 9));

/// What a prober saw.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) asked: u32,
    pub(super) answered: u32,
    /// The longest time between two answers, or between one and the begin or the end.
    pub(super) longest: Duration,
}

/// Someone who asks, and knows an answer.
pub(super) trait Prober {
    /// The time between two questions.
    const EVERY: Duration;
    /// Asks once more; whether that can be sent is part of what is measured.
    fn ask(&self);
    /// Waits for the time at most, and returns whether an answer came.
    fn hears(&self, patience: Duration) -> bool;
}

/// Asks until told to stop.
pub(super) fn probe<P: Prober>(prober: &P, stop: &AtomicBool) -> Record {
    probe_while(prober, |_| !stop.load(Ordering::Relaxed))
}

/// Asks until there is an answer, and fails if it does not come.
pub(super) fn await_answer(prober: &impl Prober) {
    let begin = Instant::now();
    let goes_on = |record: &Record| record.answered == 0 && begin.elapsed() < PATIENCE;
    let record = probe_while(prober, goes_on);
    assert!(
        record.answered > 0,
        "waited {PATIENCE:?} in vain for an answer"
    );
}

fn probe_while<P: Prober>(prober: &P, goes_on: impl Fn(&Record) -> bool) -> Record {
    let begin = Instant::now();
    let (mut last, mut next) = (begin, begin);
    let mut record = Record {
        asked: 0,
        answered: 0,
        longest: Duration::ZERO,
    };
    while goes_on(&record) {
        if Instant::now() >= next {
            prober.ask();
            record.asked += 1;
            next = Instant::now() + P::EVERY;
        }
        let patience = next.saturating_duration_since(Instant::now());
        if prober.hears(patience.max(Duration::from_millis(1))) {
            let now = Instant::now();
            record.answered += 1;
            record.longest = record.longest.max(now - last);
            last = now;
        }
    }
    record.longest = record.longest.max(last.elapsed());
    record
}

/// The network stack of a namespace, which sends echo requests as `ping` does.
pub(super) struct Echo {
    socket: Socket,
    target: Ipv4Addr,
}

impl Echo {
    pub(super) fn open(namespace: &Namespace, target: &str) -> Echo {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        Echo {
            socket: namespace.inside(open),
            target: target.parse().unwrap(),
        }
    }
}

impl Prober for Echo {
    const EVERY: Duration = Duration::from_millis(20);

    fn ask(&self) {
        let to = SocketAddrV4::new(self.target, 0);
        // Unreachable is what the target may be for now.
        let _ = self.socket.send_to(&REQUEST, &to.into());
    }

    fn hears(&self, patience: Duration) -> bool {
        let mut packet = [0; 128];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let length = (&self.socket).read(&mut packet).unwrap_or_default();
        let packet = &packet[..length];
        packet.get(12..16) == Some(&self.target.octets())
            && packet.get(20) == Some(&REPLY.0)
            && packet.get(24..26) == Some(&REPLY.1)
    }
}

/// A machine beside a namespace's own on its wire, which asks for a hardware address by ARP and never remembers it.
pub(super) struct Asker {
    socket: Socket,
    question: Vec<u8>,
    target: Ipv4Addr,
}

impl Asker {
    pub(super) fn open(namespace: &Namespace, interface: &str, target: &str) -> Asker {
        let target = target.parse().unwrap();
        let question = Arp {
            operation: Operation::Request,
            sha: ASKER.0,
            spa: ASKER.1,
            tha: MacAddr::zero(),
            tpa: target,
        };
        Asker {
            socket: packet_socket::open_for_arp(namespace, interface),
            question: arp::encode(&question, MacAddr::broadcast()),
            target,
        }
    }
}

impl Prober for Asker {
    /// A station that asks more often than 32 times a second is not always answered.
    const EVERY: Duration = Duration::from_millis(40);

    fn ask(&self) {
        let _ = self.socket.send(&self.question);
    }

    fn hears(&self, patience: Duration) -> bool {
        let mut frame = [0; 128];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let length = (&self.socket).read(&mut frame).unwrap_or_default();
        let heard = ethernet::decode(&frame[..length]).ok();
        heard
            .filter(|frame| frame.destination == ASKER.0)
            .and_then(|frame| arp::decode(&frame).ok())
            .is_some_and(|arp| arp.operation == Operation::Reply && arp.spa == self.target)
    }
}

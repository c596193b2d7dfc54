//! What is measured, case by case. A case builds its machines, sets one contender to work, and reads one or more metrics.

mod arp;
mod change;
mod crowd;
mod lease;
mod load;
mod nuisance;

use std::time::Duration;

use anyhow::Result;

use super::contender::{Contender, Programs};
use super::results::{Goal, Metric, Unit};

/// One contender's turn at a case.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) contender: Contender,
    pub(crate) programs: &'a Programs,
    /// Whether to be content with less.
    pub(crate) quick: bool,
    pub(crate) readings: Vec<(&'static str, f64)>,
}

impl Turn<'_> {
    fn read(&mut self, metric: &'static str, value: f64) {
        self.readings.push((metric, value));
    }

    fn read_time(&mut self, metric: &'static str, time: Duration) {
        self.read(metric, time.as_secs_f64());
    }
}

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Whether it mostly waits for seconds to pass, so that others may run at the same time.
    pub(crate) waits: bool,
    pub(crate) contenders: &'static [Contender],
    pub(crate) measure: fn(&mut Turn<'_>) -> Result<()>,
}

const BOTH: &[Contender] = &[Contender::Recipe, Contender::Footbridge];

/// All cases, in the order of the table.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "lease",
        waits: false,
        contenders: BOTH,
        measure: lease::without_flag,
    },
    Case {
        name: "lease-flag",
        waits: false,
        contenders: BOTH,
        measure: lease::with_flag,
    },
    Case {
        name: "arp",
        waits: false,
        contenders: BOTH,
        measure: arp::from_the_air,
    },
    Case {
        name: "arp-wired",
        waits: false,
        contenders: BOTH,
        measure: arp::from_the_wire,
    },
    Case {
        name: "move",
        waits: true,
        contenders: BOTH,
        measure: change::silent_move,
    },
    Case {
        name: "replug",
        waits: true,
        contenders: BOTH,
        measure: change::replug,
    },
    Case {
        name: "loop",
        waits: true,
        contenders: BOTH,
        measure: nuisance::one_segment,
    },
    Case {
        name: "sweep",
        waits: true,
        contenders: BOTH,
        measure: nuisance::sweep,
    },
    Case {
        name: "hosts",
        waits: false,
        contenders: BOTH,
        measure: crowd::hosts,
    },
    Case {
        name: "idle",
        waits: true,
        contenders: BOTH,
        measure: load::idle,
    },
    Case {
        name: "load",
        waits: false,
        contenders: BOTH,
        measure: load::flood,
    },
    Case {
        name: "forwarding",
        waits: false,
        contenders: &Contender::ALL,
        measure: load::forwarding,
    },
];

const fn metric(name: &'static str, unit: Unit, goal: Goal, limits: &'static str) -> Metric {
    Metric {
        name,
        unit,
        goal,
        limits,
    }
}

/// All metrics, in the order of the table.
pub(crate) const METRICS: &[Metric] = &[
    metric(
        "lease",
        Unit::Seconds,
        Goal::Ratio(0.05),
        "DISCOVER to ACK, a client of our own that repeats after 3 s as udhcpc does, broadcast flag clear; the server does not ping before it offers",
    ),
    metric(
        "lease-flag",
        Unit::Seconds,
        Goal::None,
        "the same with the broadcast flag set",
    ),
    metric(
        "arp-cold",
        Unit::Seconds,
        Goal::Ratio(0.05),
        "the router's question about a silent wired address until the first answer, repeated each second as kernels do; 16 addresses of one machine, one after the other",
    ),
    metric(
        "arp-warm",
        Unit::Seconds,
        Goal::Ratio(0.01),
        "the same question again; scheduling of the measuring thread included",
    ),
    metric(
        "arp-wired-cold",
        Unit::Seconds,
        Goal::None,
        "a wired machine's question about a silent address on the router's side",
    ),
    metric(
        "arp-wired-warm",
        Unit::Seconds,
        Goal::None,
        "the same question again",
    ),
    metric(
        "silent-move",
        Unit::Seconds,
        Goal::Ratio(0.15),
        "a wired host that says nothing moves to the router's switch, carriers unchanged; until the router's echo requests, one each 20 ms, are answered; the router's and the host's own caches, with Linux' default times, are part of it; given up after 60 s",
    ),
    metric(
        "replug",
        Unit::Seconds,
        Goal::None,
        "cable out for 2 s; from carrier to the first answered echo request; given up after 60 s",
    ),
    metric(
        "loop-frames",
        Unit::Count,
        Goal::Ratio(0.02),
        "both ports on one switch; frames the box sends in the 10 s after two ARP questions",
    ),
    metric(
        "sweep-frames",
        Unit::Count,
        Goal::None,
        "two sweeps of 254 addresses, 200 a second, one of them exists; frames the box sends on both sides until 3 s later",
    ),
    metric(
        "sweep-wrong",
        Unit::Count,
        Goal::None,
        "answers for addresses that do not exist, in the same sweeps",
    ),
    metric("per-host-1", Unit::Seconds, Goal::None, CROWD),
    metric("per-host-10", Unit::Seconds, Goal::None, CROWD),
    metric("per-host-100", Unit::Seconds, Goal::None, CROWD),
    metric(
        "per-host-1000",
        Unit::Seconds,
        Goal::NotAbove("per-host-10"),
        CROWD,
    ),
    metric(
        "reached-of-1000",
        Unit::Count,
        Goal::None,
        "hosts of the thousand that answered within 20 s",
    ),
    metric(
        "at-once-100",
        Unit::Seconds,
        Goal::None,
        "the router asks for 100 hosts in one moment; until all answered an echo request, 20 s at most",
    ),
    metric(
        "memory-100-hosts",
        Unit::Bytes,
        Goal::AtMost(2.0 * 1024.0 * 1024.0),
        "proportional set size of all daemons; the agent is linked statically as on a board, the recipe shares its C library with the rest of this machine",
    ),
    metric(
        "memory-1000-hosts",
        Unit::Bytes,
        Goal::None,
        "the same with 1000 hosts",
    ),
    metric(
        "idle-wakeups",
        Unit::PerSecond,
        Goal::Ratio(1.0),
        "voluntary context switches of all threads, one host known, nobody speaking",
    ),
    metric(
        "flood-cpu",
        Unit::Count,
        Goal::None,
        "per cent of one processor for the daemons and the programs they start, while 5000 ARP questions a second about 250 addresses arrive on the uplink; counted in ticks of 10 ms",
    ),
    metric(
        "flood-latency",
        Unit::Seconds,
        Goal::None,
        "warm ARP answer for a good wired host during that flood",
    ),
    metric(
        "throughput",
        Unit::BytesPerSecond,
        Goal::None,
        "one TCP connection from router to host over virtual cables: the kernel's forwarding, no radio",
    ),
    metric(
        "cpu-per-gigabyte",
        Unit::Seconds,
        Goal::None,
        "processor time of the whole machine for that, ends and other programs included",
    ),
];

const CROWD: &str = "time until all hosts answered the router's echo request, by host; each asked for by ARP first, eight at a time, asked again each second; hosts played by one thread; 20 s at most";

/// Lets time pass that is part of what is measured.
fn pass(time: Duration) {
    std::thread::sleep(time);
}

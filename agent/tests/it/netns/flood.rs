//! Floods from either side, and the printer that has to stay reachable meanwhile.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::in_namespace;
use super::namespace::Namespace;
use super::packet_socket;
use super::rig::{BOX, PRINTER, ROUTER, Rig, eventually};
use footbridge_agent::addr::MacAddr;
use footbridge_agent::wire::arp::{self, Arp, Operation};
use footbridge_agent::wire::ethernet;

const LASTS: Duration = Duration::from_secs(2);
/// What the issue of it is: so many frames in a second, or as many as the machine sends.
const MOST_A_SECOND: u32 = 100_000;

/// Numbers that look like chance, the same in each run (xorshift).
struct Chance(u32);

impl Chance {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

/// Garbage, sweeps, probes, invented hosts, and the names of the gateway, the box and the printer.
fn frame(chance: &mut Chance) -> Vec<u8> {
    let (kind, station, last) = (chance.next() % 8, chance.next(), chance.next());
    let [a, b, c, d] = station.to_be_bytes();
    let sha = MacAddr(6, 0, a, b, c, d);
    let any = Ipv4Addr::new(192, 168, 77, last.to_be_bytes()[3]);
    let (operation, spa, tpa) = match kind {
        0 => return ethernet::encode(MacAddr::broadcast(), sha, ethernet::TYPE_ARP, &[a; 28]),
        1 => (Operation::Request, Ipv4Addr::UNSPECIFIED, any),
        2 => (Operation::Request, ROUTER.parse().unwrap(), any),
        3 => (Operation::Reply, BOX.parse().unwrap(), any),
        4 => (
            Operation::Request,
            PRINTER.parse().unwrap(),
            PRINTER.parse().unwrap(),
        ),
        5 => (
            Operation::Request,
            ROUTER.parse().unwrap(),
            ROUTER.parse().unwrap(),
        ),
        6 => (Operation::Request, any, any),
        _ => (Operation::Request, any, Ipv4Addr::new(192, 168, c, d)),
    };
    let arp = Arp {
        operation,
        sha,
        spa,
        tha: MacAddr::zero(),
        tpa,
    };
    arp::encode(&arp, MacAddr::broadcast())
}

/// Sends such frames out of an interface of a namespace until told to stop; returns how many.
fn flood(from: &Namespace, interface: &str, stop: &AtomicBool) -> u32 {
    let socket = packet_socket::open(from, interface);
    {
        let frames: Vec<Vec<u8>> = {
            let mut chance = Chance(0x2545_f491);
            (0..4096).map(|_| frame(&mut chance)).collect()
        };
        let (start, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let due = start.elapsed().as_secs_f64() * f64::from(MOST_A_SECOND);
            if f64::from(sent) > due {
                std::thread::yield_now();
                continue;
            }
            let frame = &frames[sent as usize % frames.len()];
            // A full queue is the machine's limit, not the test's.
            let _ = socket.send(frame);
            sent += 1;
        }
        sent
    }
}

fn stays_reachable(rig: &mut Rig, flooded: impl Fn(&Rig) -> (&Namespace, &'static str)) {
    rig.make_client_a_printer();
    let _agent = rig.start_bridging();
    eventually("the router reaches the printer", || {
        rig.router.pings(PRINTER)
    });
    let stop = AtomicBool::new(false);
    let (sent, took) = std::thread::scope(|scope| {
        let (namespace, interface) = flooded(rig);
        let stop = &stop;
        let flood = scope.spawn(move || flood(namespace, interface, stop));
        let start = Instant::now();
        let mut worst = Duration::ZERO;
        while start.elapsed() < LASTS {
            let asked = Instant::now();
            // A neighbour entry that was forgotten has to be found again in the midst of it.
            rig.router.run(&["ip", "neigh", "flush", "dev", "r0"]);
            eventually("the printer answers", || rig.router.pings(PRINTER));
            worst = worst.max(asked.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        (flood.join().unwrap(), worst)
    });
    eprintln!(
        "MEASURED flood: {} frames a second, the printer answered after {} ms at worst",
        sent / LASTS.as_secs() as u32,
        took.as_millis()
    );
    // Kernels ask once a second, and one question may find the agent's buffer full.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let status = rig.status().expect("the agent is alive");
    let hosts = status["hosts"].as_array().unwrap();
    assert!(hosts.len() <= 256, "{} hosts of one /24", hosts.len());
    let printer = hosts.iter().find(|host| host["ip"] == PRINTER).unwrap();
    assert_eq!(printer["side"], "wired", "{printer}");
    let gateway = hosts.iter().find(|host| host["ip"] == ROUTER).unwrap();
    assert_eq!(gateway["mac"], "02:00:00:00:00:01", "{gateway}");
}

#[test]
fn the_printer_stays_reachable_under_a_flood_from_the_wire() {
    in_namespace(|rig| stays_reachable(rig, |rig| (&rig.client, "c0")));
}

#[test]
fn the_printer_stays_reachable_under_a_flood_from_the_uplink() {
    in_namespace(|rig| stays_reachable(rig, |rig| (&rig.router, "r0")));
}

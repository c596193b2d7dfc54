//! Floods, sweeps and starvation from either side, and the good wired host that has to stay reachable meanwhile.
//!
//! Two probers ask for it all the time, each from a socket of its own: the router's network stack by echo requests, and a machine
//! beside it by ARP, which is what anybody needs who has not talked to the host lately. Neither may wait for a second.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dhcproto::Encodable as _;
use dhcproto::v4::{DhcpOption, Message, MessageType};
use footbridge_agent::addr::{MacAddr, Side};
use footbridge_agent::wire::arp::{self, Arp, Operation};
use footbridge_agent::wire::{ethernet, udp};

use super::alone_in_namespace;
use super::namespace::Namespace;
use super::packet_socket;
use super::prober::{Asker, Echo, Record, probe};
use super::rig::{Agent, BOX, PRINTER, ROUTER, Rig, eventually, ip};

const LASTS: Duration = Duration::from_secs(4);
/// What the agent has to stand: so many frames in a second, or as many as the machine sends.
const MOST_A_SECOND: u32 = 100_000;
/// What one thread sends on a busy machine with two processors, of which the agent has the other. Less would be no flood.
const LEAST_A_SECOND: u32 = 20_000;
const OUT_OF_REACH: Duration = Duration::from_secs(1);
/// Each of a tool's pretended machines has its own; a tool that repeats itself after so many is none that could be told.
const DIFFERENT: u32 = 1 << 14;

/// Numbers that look like chance, the same in each run (xorshift).
struct Chance(u32);

impl Chance {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn frames(frame: fn(&mut Chance) -> Vec<u8>) -> Vec<Vec<u8>> {
        let mut chance = Chance(0x2545_f491);
        (0..DIFFERENT).map(|_| frame(&mut chance)).collect()
    }

    fn station(&mut self) -> MacAddr {
        let [a, b, c, d] = self.next().to_be_bytes();
        MacAddr(6, 0, a, b, c, d)
    }
}

/// Garbage, sweeps, probes, invented hosts, and the names of the gateway, the box and the printer.
fn garbage(chance: &mut Chance) -> Vec<u8> {
    let (kind, sha, last) = (chance.next() % 10, chance.station(), chance.next());
    let [_, _, c, d] = last.to_be_bytes();
    let any = Ipv4Addr::new(192, 168, 77, d);
    let named = |name: &str| name.parse().unwrap();
    let (operation, spa, tpa) = match kind {
        0 => return ethernet::encode(MacAddr::broadcast(), sha, ethernet::TYPE_ARP, &[c; 28]),
        1 => return datagram(sha, any, 67, &last.to_be_bytes().repeat(usize::from(d))),
        2 => return datagram(sha, any, 5353, &last.to_be_bytes().repeat(usize::from(d))),
        3 => (Operation::Request, Ipv4Addr::UNSPECIFIED, any),
        4 => (Operation::Request, named(ROUTER), any),
        5 => (Operation::Reply, named(BOX), any),
        6 => (Operation::Request, named(PRINTER), named(PRINTER)),
        7 => (Operation::Request, named(ROUTER), named(ROUTER)),
        8 => (Operation::Request, any, any),
        _ => (Operation::Request, any, Ipv4Addr::new(192, 168, c, d)),
    };
    question(operation, sha, spa, tpa)
}

fn question(operation: Operation, sha: MacAddr, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        operation,
        sha,
        spa,
        tha: MacAddr::zero(),
        tpa,
    };
    arp::encode(&arp, MacAddr::broadcast())
}

fn datagram(from: MacAddr, source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    udp::encode(
        (from, SocketAddrV4::new(source, port)),
        (
            MacAddr::broadcast(),
            SocketAddrV4::new(Ipv4Addr::BROADCAST, port),
        ),
        payload,
    )
    .unwrap()
}

/// One machine asks for every address of a /16.
fn sweep() -> Vec<Vec<u8>> {
    let (sha, spa) = (MacAddr(2, 0, 0, 0, 0, 8), Ipv4Addr::new(192, 168, 77, 8));
    let target = |number: u16| {
        let [c, d] = number.to_be_bytes();
        Ipv4Addr::new(192, 168, c, d)
    };
    (0..=u16::MAX)
        .map(|number| question(Operation::Request, sha, spa, target(number)))
        .collect()
}

/// A machine that was never heard of asks for an address.
fn discover(chance: &mut Chance) -> Vec<u8> {
    let client = chance.station();
    let mut message = Message::default();
    message.set_xid(chance.next()).set_chaddr(&client.octets());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    let payload = message.to_vec().unwrap();
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    udp::encode((client, from), (MacAddr::broadcast(), to), &payload).unwrap()
}

/// Where an attacker sits.
fn place(rig: &Rig, side: Side) -> (&Namespace, &'static str) {
    match side {
        Side::Wired => (&rig.client, "c0"),
        Side::Uplink => (&rig.router, "r0"),
    }
}

/// Sends the frames again and again until told to stop; returns how many were sent each second.
fn flood((from, interface): (&Namespace, &str), frames: &[Vec<u8>], stop: &AtomicBool) -> u32 {
    let socket = packet_socket::open(from, interface);
    let (start, mut tried, mut sent) = (Instant::now(), 0, 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * f64::from(MOST_A_SECOND);
        if f64::from(tried) > due {
            std::thread::yield_now();
            continue;
        }
        // A full queue is the machine's limit, not the test's.
        sent += u32::from(socket.send(&frames[tried as usize % frames.len()]).is_ok());
        tried += 1;
    }
    (f64::from(sent) / start.elapsed().as_secs_f64()) as u32
}

/// Starts an agent that says as much as one on a board does, and waits until it bridges.
fn start_quiet(rig: &mut Rig) -> Agent {
    rig.log_level = "info";
    rig.start_bridging()
}

/// Floods, probes, and asserts that the host was never out of reach for long.
fn stays_reachable(rig: &Rig, host: &str, from: Side, frames: &[Vec<u8>]) {
    eventually("the router reaches the host", || rig.router.pings(host));
    let echo = Echo::open(&rig.router, host);
    let asker = Asker::open(&rig.router, "r0", host);
    let stop = AtomicBool::new(false);
    let (rate, echo, asker) = std::thread::scope(|scope| {
        let stop = &stop;
        let flood = scope.spawn(move || flood(place(rig, from), frames, stop));
        let echo = scope.spawn(move || probe(&echo, stop));
        let asker = scope.spawn(move || probe(&asker, stop));
        // The time is what is measured over.
        std::thread::sleep(LASTS);
        stop.store(true, Ordering::Relaxed);
        (
            flood.join().unwrap(),
            echo.join().unwrap(),
            asker.join().unwrap(),
        )
    });
    let said = |record: &Record| {
        let longest = record.longest.as_millis();
        format!(
            "{} of {} answered, {longest} ms without at most",
            record.answered, record.asked
        )
    };
    eprintln!(
        "MEASURED {rate} frames a second from the {from} side: echo requests {}; ARP {}",
        said(&echo),
        said(&asker)
    );
    assert!(
        rate >= LEAST_A_SECOND,
        "{rate} frames a second are no flood"
    );
    assert!(echo.longest < OUT_OF_REACH, "{echo:?}");
    assert!(asker.longest < OUT_OF_REACH, "{asker:?}");
}

/// Asserts that nobody was believed who said to be the host or the gateway.
fn knows_who_is_who(rig: &Rig, good: &str) {
    let status = rig.status().expect("the agent is alive");
    let hosts = status["hosts"].as_array().unwrap();
    assert!(hosts.len() <= 512, "{} hosts", hosts.len());
    let host = hosts.iter().find(|host| host["ip"] == good).unwrap();
    assert_eq!(host["side"], "wired", "{host}");
    let gateway = hosts.iter().find(|host| host["ip"] == ROUTER).unwrap();
    assert_eq!(gateway["mac"], "02:00:00:00:00:01", "{gateway}");
}

fn printer_under_garbage(rig: &mut Rig, from: Side) {
    rig.make_client_a_printer();
    let _agent = start_quiet(rig);
    stays_reachable(rig, PRINTER, from, &Chance::frames(garbage));
    knows_who_is_who(rig, PRINTER);
}

#[test]
fn the_printer_stays_reachable_under_garbage_from_the_wire() {
    alone_in_namespace(|rig| printer_under_garbage(rig, Side::Wired));
}

#[test]
fn the_printer_stays_reachable_under_garbage_from_the_uplink() {
    alone_in_namespace(|rig| printer_under_garbage(rig, Side::Uplink));
}

fn printer_under_a_sweep(rig: &mut Rig, from: Side) {
    rig.router.ip("addr del 192.168.77.1/24 dev r0");
    rig.router.ip("addr add 192.168.77.1/16 dev r0");
    ip("addr del 192.168.77.2/24 dev up0");
    ip("addr add 192.168.77.2/16 dev up0");
    ip("route replace default via 192.168.77.1 dev up0");
    rig.client.ip("addr add 192.168.77.50/16 dev c0");
    let _agent = start_quiet(rig);
    stays_reachable(rig, PRINTER, from, &sweep());
    knows_who_is_who(rig, PRINTER);
}

#[test]
fn the_printer_stays_reachable_while_a_16_is_swept_from_the_wire() {
    alone_in_namespace(|rig| printer_under_a_sweep(rig, Side::Wired));
}

#[test]
fn the_printer_stays_reachable_while_a_16_is_swept_from_the_uplink() {
    alone_in_namespace(|rig| printer_under_a_sweep(rig, Side::Uplink));
}

#[test]
fn a_leased_host_stays_reachable_beside_a_dhcp_starvation_tool() {
    alone_in_namespace(|rig| {
        rig.start_dhcp_server();
        let _agent = start_quiet(rig);
        rig.lease();
        let address = rig.client_address().unwrap();
        stays_reachable(rig, &address, Side::Wired, &Chance::frames(discover));
        knows_who_is_who(rig, &address);
    });
}

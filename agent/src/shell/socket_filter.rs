//! What the kernel lets a packet socket hear, as a classic BPF program (linux/filter.h).
//!
//! Only untagged frames that arrived from outside: ARP, loop probes, unfragmented DHCP, and of the discovery protocols those that are
//! switched on. Multicast ones pass in fragments, too: the first is known by its port, the later ones by their group. The
//! program is written with names for the places it jumps to; a jump counts lines in eight bits, which the longest program is
//! far from needing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use socket2::SockFilter;

use crate::wire::discovery::Protocol;
use crate::wire::ethernet;
use crate::wire::loop_probe::TYPE_LOOP_PROBE;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Start of the kernel's own fields (`SKF_AD_OFF`): packet type at 4, presence of a VLAN tag at 48.
const ANCILLARY: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const VLAN_TAG_PRESENT: u32 = ANCILLARY + 48;

const ETHER_TYPE_AT: u32 = 12;
const IPV4_AT: u32 = 14;
const FRAGMENT_AT: u32 = IPV4_AT + 6;
const PROTOCOL_AT: u32 = IPV4_AT + 9;
const DESTINATION_AT: u32 = IPV4_AT + 16;
const FRAGMENT_OFFSET: u32 = 0x1fff;
const MORE_FRAGMENTS: u32 = 0x2000;

const DHCP_PORTS: [u16; 2] = [67, 68];

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Next,
    LaterFragment,
    /// To a group, of which the fragments pass as well.
    Group(Ipv4Addr),
    Broadcast,
    Unfragmented,
    Accept,
    Drop,
}

/// A line of the program.
#[derive(Clone, Copy, Debug)]
enum Line {
    Load(u16, u32),
    Jump {
        code: u16,
        operand: u32,
        yes: To,
        no: To,
    },
    Return(u32),
    /// The place that jumps lead to; no line of its own.
    Place(To),
}

/// Returns the program for a socket that listens to the protocols.
pub(crate) fn filter(protocols: &BTreeSet<Protocol>) -> Vec<SockFilter> {
    assemble(&program(protocols))
        .into_iter()
        .map(|(code, yes, no, operand)| SockFilter::new(code, yes, no, operand))
        .collect()
}

fn program(protocols: &BTreeSet<Protocol>) -> Vec<Line> {
    let mut lines = frame_part(protocols);
    lines.extend(port_part(protocols));
    let groups: BTreeSet<Ipv4Addr> = protocols
        .iter()
        .filter_map(|protocol| protocol.group())
        .collect();
    lines.push(Line::Place(To::LaterFragment));
    lines.push(Line::Load(LOAD_WORD, DESTINATION_AT));
    for &group in &groups {
        lines.push(equal(group.into(), To::Accept, To::Next));
    }
    lines.push(Line::Return(0));
    for &group in &groups {
        lines.extend([
            Line::Place(To::Group(group)),
            Line::Load(LOAD_WORD, DESTINATION_AT),
            equal(group.into(), To::Accept, To::Drop),
        ]);
    }
    lines.extend([
        Line::Place(To::Broadcast),
        Line::Load(LOAD_WORD, 0),
        equal(u32::MAX, To::Next, To::Drop),
        Line::Place(To::Unfragmented),
        Line::Load(LOAD_HALF, FRAGMENT_AT),
        any_bit(MORE_FRAGMENTS, To::Drop, To::Next),
        Line::Place(To::Accept),
        Line::Return(u32::MAX),
        Line::Place(To::Drop),
        Line::Return(0),
    ]);
    lines
}

/// Tells frames apart; what goes on is UDP, its fragments included.
fn frame_part(protocols: &BTreeSet<Protocol>) -> Vec<Line> {
    let mut lines = vec![
        Line::Load(LOAD_WORD, PACKET_TYPE),
        equal(u32::from(libc::PACKET_OUTGOING), To::Drop, To::Next),
        Line::Load(LOAD_WORD, VLAN_TAG_PRESENT),
        equal(0, To::Next, To::Drop),
        Line::Load(LOAD_HALF, ETHER_TYPE_AT),
        equal(ethernet::TYPE_ARP.into(), To::Accept, To::Next),
        equal(TYPE_LOOP_PROBE.into(), To::Accept, To::Next),
    ];
    if protocols.contains(&Protocol::WakeOnLan) {
        lines.push(equal(
            ethernet::TYPE_WAKE_ON_LAN.into(),
            To::Accept,
            To::Next,
        ));
    }
    lines.extend([
        equal(ethernet::TYPE_IPV4.into(), To::Next, To::Drop),
        Line::Load(LOAD_BYTE, PROTOCOL_AT),
        equal(libc::IPPROTO_UDP as u32, To::Next, To::Drop),
    ]);
    lines
}

/// Tells datagrams and first fragments apart by the port they are sent to.
fn port_part(protocols: &BTreeSet<Protocol>) -> Vec<Line> {
    let mut lines = vec![
        Line::Load(LOAD_HALF, FRAGMENT_AT),
        any_bit(FRAGMENT_OFFSET, To::LaterFragment, To::Next),
        Line::Load(LOAD_X_HEADER_LENGTH, IPV4_AT),
        Line::Load(LOAD_HALF_INDEXED, IPV4_AT + 2),
    ];
    for port in DHCP_PORTS {
        lines.push(equal(port.into(), To::Unfragmented, To::Next));
    }
    for protocol in protocols {
        let to = protocol.group().map_or(To::Broadcast, To::Group);
        for &port in protocol.ports() {
            lines.push(equal(port.into(), to, To::Next));
        }
    }
    lines.push(Line::Return(0));
    lines
}

fn equal(operand: u32, yes: To, no: To) -> Line {
    Line::Jump {
        code: JUMP_EQUAL,
        operand,
        yes,
        no,
    }
}

fn any_bit(operand: u32, yes: To, no: To) -> Line {
    Line::Jump {
        code: JUMP_ANY_BIT,
        operand,
        yes,
        no,
    }
}

/// Puts distances for names, as (code, jump if true, jump if false, operand); jumps count from the next line.
fn assemble(lines: &[Line]) -> Vec<(u16, u8, u8, u32)> {
    let mut program = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        match *line {
            Line::Load(code, operand) => program.push((code, 0, 0, operand)),
            Line::Return(operand) => program.push((RETURN, 0, 0, operand)),
            Line::Jump {
                code,
                operand,
                yes,
                no,
            } => {
                let rest = &lines[at + 1..];
                program.push((code, distance(rest, yes), distance(rest, no), operand));
            }
            Line::Place(_) => {}
        }
    }
    program
}

fn distance(rest: &[Line], to: To) -> u8 {
    if to == To::Next {
        return 0;
    }
    let place = rest
        .iter()
        .position(|line| matches!(line, Line::Place(place) if *place == to))
        .expect("every place that is named stands further down");
    let lines = rest[..place]
        .iter()
        .filter(|line| !matches!(line, Line::Place(_)))
        .count();
    u8::try_from(lines).expect("the longest program is shorter than a jump reaches")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: u32 = 1;
    const MULTICAST: u32 = 2;

    fn all() -> BTreeSet<Protocol> {
        Protocol::ALL.into()
    }

    /// Runs a program the way the kernel does and says whether the frame passes.
    fn passes(
        program: &[(u16, u8, u8, u32)],
        frame: &[u8],
        packet_type: u32,
        tagged: bool,
    ) -> bool {
        let number = |at: usize, octets: usize| {
            let bytes = frame.get(at..at + octets)?;
            Some(bytes.iter().fold(0, |sum, &b| sum << 8 | u32::from(b)))
        };
        let (mut at, mut a, mut x) = (0, 0, 0);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let mut jump = |taken: bool| at += usize::from(if taken { yes } else { no });
            let loaded = match code {
                LOAD_WORD if k == PACKET_TYPE => Some(packet_type),
                LOAD_WORD if k == VLAN_TAG_PRESENT => Some(tagged.into()),
                LOAD_WORD => number(k as usize, 4),
                LOAD_HALF => number(k as usize, 2),
                LOAD_BYTE => number(k as usize, 1),
                LOAD_HALF_INDEXED => number(x + k as usize, 2),
                LOAD_X_HEADER_LENGTH => {
                    x = 4 * usize::from(frame[k as usize] & 0xf);
                    Some(a)
                }
                JUMP_EQUAL => {
                    jump(a == k);
                    Some(a)
                }
                JUMP_ANY_BIT => {
                    jump(a & k != 0);
                    Some(a)
                }
                RETURN => return k != 0,
                other => panic!("unknown code {other:#x}"),
            };
            // A load past the end drops the frame.
            match loaded {
                Some(value) => a = value,
                None => return false,
            }
        }
    }

    /// A frame to everybody; `fragment` is the header's field, flags and offset.
    fn frame(
        ether_type: u16,
        protocol: u8,
        fragment: u16,
        header_words: u8,
        to: &str,
        port: u16,
    ) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ether_type.to_be_bytes());
        let mut ip = vec![0; 4 * usize::from(header_words)];
        ip[0] = 0x40 | header_words;
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[9] = protocol;
        ip[16..20].copy_from_slice(&to.parse::<Ipv4Addr>().unwrap().octets());
        frame.extend(ip);
        frame.extend([0, 9]);
        frame.extend(port.to_be_bytes());
        frame
    }

    fn udp(to: &str, port: u16) -> Vec<u8> {
        frame(0x0800, 17, 0, 5, to, port)
    }

    fn to_one(mut frame: Vec<u8>) -> Vec<u8> {
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 3]);
        frame
    }

    const EVERYBODY: &str = "255.255.255.255";
    const MDNS: &str = "224.0.0.251";
    const SSDP: &str = "239.255.255.250";

    #[test]
    fn the_filter_passes_arp_and_dhcp_from_outside_only() {
        let dhcp = udp(EVERYBODY, 67);
        let fragment = |fragment| frame(0x0800, 17, fragment, 5, EVERYBODY, 67);
        let cases = [
            (
                "arp",
                frame(0x0806, 0, 0, 5, EVERYBODY, 0),
                BROADCAST,
                false,
                true,
            ),
            (
                "loop probe",
                frame(TYPE_LOOP_PROBE, 0, 0, 5, EVERYBODY, 0),
                BROADCAST,
                false,
                true,
            ),
            ("dhcp to a server", dhcp.clone(), BROADCAST, false, true),
            (
                "dhcp to a client",
                to_one(udp("10.0.0.7", 68)),
                0,
                false,
                true,
            ),
            ("dhcp, don't fragment", fragment(0x4000), 0, false, true),
            (
                "dhcp behind IP options",
                frame(0x0800, 17, 0, 8, EVERYBODY, 67),
                0,
                false,
                true,
            ),
            ("dns", udp(EVERYBODY, 53), 0, false, false),
            (
                "tcp to port 67",
                frame(0x0800, 6, 0, 5, EVERYBODY, 67),
                0,
                false,
                false,
            ),
            ("first fragment", fragment(0x2000), 0, false, false),
            ("later fragment", fragment(0x0010), 0, false, false),
            (
                "IPv6",
                frame(0x86dd, 17, 0, 5, EVERYBODY, 67),
                0,
                false,
                false,
            ),
            ("our own", dhcp.clone(), 4, false, false),
            ("tagged", dhcp.clone(), BROADCAST, true, false),
            ("cut short", dhcp[..30].to_vec(), BROADCAST, false, false),
        ];
        for protocols in [all(), BTreeSet::new()] {
            let program = assemble(&program(&protocols));
            for (name, frame, packet_type, tagged, expected) in &cases {
                let passed = passes(&program, frame, *packet_type, *tagged);
                assert_eq!(passed, *expected, "{name} with {protocols:?}");
            }
        }
    }

    #[test]
    fn m1_the_filter_passes_discovery_that_is_switched_on() {
        let magic = frame(0x0842, 0, 0, 5, EVERYBODY, 0);
        let first = |to, port| frame(0x0800, 17, 0x2000, 5, to, port);
        let later = |to| frame(0x0800, 17, 0x00b9, 5, to, 0);
        let cases = [
            ("mdns", udp(MDNS, 5353), Some(Protocol::Mdns)),
            (
                "mdns, first fragment",
                first(MDNS, 5353),
                Some(Protocol::Mdns),
            ),
            ("mdns, later fragment", later(MDNS), Some(Protocol::Mdns)),
            (
                "mdns in a frame to us alone",
                to_one(udp(MDNS, 5353)),
                Some(Protocol::Mdns),
            ),
            ("mdns to one host", udp("10.0.0.7", 5353), None),
            ("mdns to another group", udp(SSDP, 5353), None),
            ("ssdp", udp(SSDP, 1900), Some(Protocol::Ssdp)),
            ("ssdp to another group", udp(MDNS, 1900), None),
            ("ws-discovery", udp(SSDP, 3702), Some(Protocol::WsDiscovery)),
            ("another group's fragment", later("239.1.1.1"), None),
            ("magic frame", magic, Some(Protocol::WakeOnLan)),
            (
                "magic to port 7",
                udp(EVERYBODY, 7),
                Some(Protocol::WakeOnLan),
            ),
            (
                "magic to port 9",
                udp("10.0.0.255", 9),
                Some(Protocol::WakeOnLan),
            ),
            ("magic, first fragment", first(EVERYBODY, 9), None),
            ("discard of one host", to_one(udp("10.0.0.7", 9)), None),
            (
                "netbios name",
                udp("10.0.0.255", 137),
                Some(Protocol::Netbios),
            ),
            (
                "netbios datagram",
                udp(EVERYBODY, 138),
                Some(Protocol::Netbios),
            ),
            ("netbios to one host", to_one(udp("10.0.0.7", 137)), None),
        ];
        let everything = assemble(&program(&all()));
        for (name, frame, protocol) in cases {
            let passed = passes(&everything, &frame, MULTICAST, false);
            assert_eq!(passed, protocol.is_some(), "{name}");
            let Some(protocol) = protocol else {
                continue;
            };
            for heard in Protocol::ALL {
                let same_group = heard.group() == protocol.group() && frame[20] | frame[21] != 0;
                let alone = assemble(&program(&[heard].into()));
                let expected = heard == protocol || (same_group && name.contains("later"));
                let passed = passes(&alone, &frame, MULTICAST, false);
                assert_eq!(passed, expected, "{name} with only {heard}");
            }
        }
    }
}

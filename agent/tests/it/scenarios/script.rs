//! The notation of a story's inputs.
//!
//! ```text
//! 0.0 bridging                                     the usual machine: wlan0 (2) 10.0.0.2/24 via 10.0.0.1, eth0 (3), all up
//! 0.0 dump link 2 wlan0 up carrier; address ...    a dump of the kernel's state, as a list of facts
//! 1.0 kernel link 3 eth0 up                        notifications, in the same words, several with `;`
//! 1.0 kernel no address 2 10.0.0.2/24
//! 2.0 wired printer who-has 10.0.0.1 tell 10.0.0.7 [to NAME]
//! 2.0 uplink router 10.0.0.1 is-at router [to NAME]
//! 2.0 wired printer probe 10.0.0.7 | announce 10.0.0.7
//! 3.0 wired laptop dhcp discover xid=1 [broadcast] [hops=N] [giaddr=A] [option82] [ciaddr=A] [requested=A] [to=A]
//! 3.0 uplink router dhcp ack xid=1 client=laptop yiaddr=A [lease=S] [server=A] [giaddr=A] [to=A] [port=68]
//! 4.0 wait | status | stop | port67-taken
//! 4.0 refused route 3 10.0.0.7 errno=12
//! ```
//!
//! Stations have names; a name stands for a hardware address of its own. `us-uplink` and `us-wired` are ours.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use dhcproto::v4::{self, DhcpOption};
use dhcproto::{Encodable, v4::relay};
use footbridge_agent::addr::{IfIndex, MacAddr, Side};
use footbridge_agent::engine::{Address, Change, Input, KernelEvent, KernelState, Link, Route};
use footbridge_agent::wire::arp::{self, Arp, Operation};
use footbridge_agent::wire::udp;

/// The machine most stories are about.
const BRIDGING: &str =
    "link 2 wlan0 up carrier; link 3 eth0 up carrier; address 2 10.0.0.2/24; default 2 10.0.0.1";

/// What a line says.
pub(super) enum Event {
    Wait,
    Status,
    Kernel(Vec<Input<'static>>),
    Frame(Side, Vec<u8>),
    Input(Input<'static>),
}

/// Names of stations.
#[derive(Default)]
pub(super) struct Names(RefCell<Vec<String>>);

impl Names {
    pub(super) fn mac_of(&self, name: &str) -> MacAddr {
        match name {
            "broadcast" => return MacAddr::broadcast(),
            "us-uplink" => return MacAddr(2, 0, 0, 0, 0, 2),
            "us-wired" => return MacAddr(2, 0, 0, 0, 0, 3),
            _ => {}
        }
        let mut names = self.0.borrow_mut();
        let known = names.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        MacAddr(2, 0, 0, 0, 1, u8::try_from(number).unwrap())
    }

    pub(super) fn name_of(&self, mac: MacAddr) -> String {
        match mac {
            MacAddr(255, ..) => "broadcast".to_owned(),
            MacAddr(2, 0, 0, 0, 0, 2) => "us-uplink".to_owned(),
            MacAddr(2, 0, 0, 0, 0, 3) => "us-wired".to_owned(),
            MacAddr(2, 0, 0, 0, 1, number) => self.0.borrow()[usize::from(number)].clone(),
            _ => mac.to_string(),
        }
    }

    pub(super) fn parse(&self, line: &str) -> (Duration, Event) {
        let (time, rest) = line
            .split_once(' ')
            .unwrap_or_else(|| panic!("no time: {line}"));
        let time = Duration::from_secs_f64(parse(time));
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let event = match verb {
            "wait" => Event::Wait,
            "status" => Event::Status,
            "stop" => Event::Input(Input::Stop),
            "port67-taken" => Event::Input(Input::Port67Taken),
            "bridging" => Event::Input(Input::KernelDump(self.dump(BRIDGING))),
            "dump" => Event::Input(Input::KernelDump(self.dump(rest))),
            "kernel" => Event::Kernel(
                rest.split(';')
                    .map(|fact| Input::Kernel(self.fact(fact)))
                    .collect(),
            ),
            "refused" => Event::Input(refused(rest)),
            "wired" => Event::Frame(Side::Wired, self.frame("us-wired", rest)),
            "uplink" => Event::Frame(Side::Uplink, self.frame("us-uplink", rest)),
            _ => panic!("no such input: {line}"),
        };
        (time, event)
    }

    fn dump(&self, facts: &str) -> KernelState {
        let mut state = KernelState::default();
        for fact in facts.split(';') {
            match self.fact(fact) {
                KernelEvent::Link(index, link) => drop(state.links.insert(index, link)),
                KernelEvent::AddressAdded(address) => assert!(state.addresses.insert(address)),
                KernelEvent::RouteAdded(route) => assert!(state.routes.insert(route)),
                KernelEvent::NeighbourSet(index, host, mac) => {
                    state.neighbours.insert((index, host), mac);
                }
                other => panic!("a dump has no {other:?}"),
            }
        }
        state
    }

    fn fact(&self, fact: &str) -> KernelEvent {
        let words: Vec<&str> = fact.split_whitespace().collect();
        let (removed, words) = match words[..] {
            ["no", ..] => (true, &words[1..]),
            _ => (false, &words[..]),
        };
        let index = IfIndex(parse(words[1]));
        let ours = words.last() == Some(&"ours");
        match (words[0], removed) {
            ("link", true) => KernelEvent::LinkGone(index),
            ("link", false) => KernelEvent::Link(index, self.link(index, words)),
            ("address", _) => {
                let (address, prefix) = words[2].split_once('/').unwrap();
                let address = Address {
                    index,
                    address: parse(address),
                    prefix: parse(prefix),
                    ours,
                };
                match removed {
                    true => KernelEvent::AddressRemoved(address),
                    false => KernelEvent::AddressAdded(address),
                }
            }
            ("default" | "route", _) => {
                let default = words[0] == "default";
                let route = Route {
                    index,
                    destination: if default {
                        (Ipv4Addr::UNSPECIFIED, 0)
                    } else {
                        (parse(words[2]), 32)
                    },
                    gateway: default.then(|| parse(words[2])),
                    ours,
                };
                match removed {
                    true => KernelEvent::RouteRemoved(route),
                    false => KernelEvent::RouteAdded(route),
                }
            }
            ("neighbour", true) => KernelEvent::NeighbourRemoved(index, parse(words[2])),
            ("neighbour", false) => {
                KernelEvent::NeighbourSet(index, parse(words[2]), self.mac_of(words[3]))
            }
            _ => panic!("no such fact: {fact}"),
        }
    }

    fn link(&self, index: IfIndex, words: &[&str]) -> Link {
        let mac = match index.0 {
            2 => self.mac_of("us-uplink"),
            3 => self.mac_of("us-wired"),
            other => self.mac_of(&format!("interface-{other}")),
        };
        Link {
            name: words[2].to_owned(),
            mac: Some(mac),
            up: words.contains(&"up"),
            carrier: words.contains(&"carrier"),
        }
    }

    fn frame(&self, us: &str, rest: &str) -> Vec<u8> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let sha = self.mac_of(words[0]);
        if words[1] == "dhcp" {
            return self.dhcp(us, sha, &words[2..]);
        }
        let everybody = Ipv4Addr::UNSPECIFIED;
        let (operation, spa, tpa, default_to) = match words[1..] {
            ["who-has", tpa, "tell", spa, ..] => {
                (Operation::Request, parse(spa), parse(tpa), "broadcast")
            }
            ["probe", tpa, ..] => (Operation::Request, everybody, parse(tpa), "broadcast"),
            ["announce", ip, ..] => (Operation::Request, parse(ip), parse(ip), "broadcast"),
            [spa, "is-at", ..] => (Operation::Reply, parse(spa), Ipv4Addr::new(10, 0, 0, 2), us),
            _ => panic!("no such frame: {rest}"),
        };
        let to = words
            .iter()
            .position(|word| *word == "to")
            .map(|at| words[at + 1]);
        let arp = Arp {
            operation,
            sha,
            spa,
            tha: MacAddr::zero(),
            tpa,
        };
        arp::encode(&arp, self.mac_of(to.unwrap_or(default_to)))
    }

    fn dhcp(&self, us: &str, from: MacAddr, words: &[&str]) -> Vec<u8> {
        let given: BTreeMap<&str, &str> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        let reply = matches!(words[0], "offer" | "ack" | "nak");
        let client = given.get("client").map_or(from, |name| self.mac_of(name));
        let message = dhcp_message(words, &given, client).to_vec().unwrap();
        let to = given.get("to").map_or(Ipv4Addr::BROADCAST, |to| parse(to));
        let to_mac = if to.is_broadcast() {
            MacAddr::broadcast()
        } else {
            self.mac_of(us)
        };
        let port = given.get("port").map_or(67, |port| parse(port));
        let (source, source_port) = match reply {
            true => (
                given
                    .get("server")
                    .map_or(Ipv4Addr::new(10, 0, 0, 1), |s| parse(s)),
                67,
            ),
            false => (
                given
                    .get("ciaddr")
                    .map_or(Ipv4Addr::UNSPECIFIED, |c| parse(c)),
                68,
            ),
        };
        let from = (from, SocketAddrV4::new(source, source_port));
        udp::encode(from, (to_mac, SocketAddrV4::new(to, port)), &message).unwrap()
    }
}

fn dhcp_message(words: &[&str], given: &BTreeMap<&str, &str>, client: MacAddr) -> v4::Message {
    let (kind, op) = match words[0] {
        "discover" => (v4::MessageType::Discover, v4::Opcode::BootRequest),
        "request" => (v4::MessageType::Request, v4::Opcode::BootRequest),
        "decline" => (v4::MessageType::Decline, v4::Opcode::BootRequest),
        "release" => (v4::MessageType::Release, v4::Opcode::BootRequest),
        "inform" => (v4::MessageType::Inform, v4::Opcode::BootRequest),
        "offer" => (v4::MessageType::Offer, v4::Opcode::BootReply),
        "ack" => (v4::MessageType::Ack, v4::Opcode::BootReply),
        "nak" => (v4::MessageType::Nak, v4::Opcode::BootReply),
        other => panic!("no such DHCP message: {other}"),
    };
    let address = |key: &str| {
        given
            .get(key)
            .map_or(Ipv4Addr::UNSPECIFIED, |address| parse(address))
    };
    let mut message = v4::Message::default();
    message
        .set_opcode(op)
        .set_xid(given.get("xid").map_or(1, |xid| parse(xid)))
        .set_hops(given.get("hops").map_or(0, |hops| parse(hops)))
        .set_ciaddr(address("ciaddr"))
        .set_yiaddr(address("yiaddr"))
        .set_giaddr(address("giaddr"))
        .set_chaddr(&client.octets());
    if words.contains(&"broadcast") {
        message.set_flags(v4::Flags::default().set_broadcast());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    if let Some(seconds) = given.get("lease") {
        options.insert(DhcpOption::AddressLeaseTime(parse(seconds)));
    }
    if let Some(server) = given.get("server") {
        options.insert(DhcpOption::ServerIdentifier(parse(server)));
    }
    if let Some(requested) = given.get("requested") {
        options.insert(DhcpOption::RequestedIpAddress(parse(requested)));
    }
    if words.contains(&"option82") {
        let mut information = relay::RelayAgentInformation::default();
        information.insert(relay::RelayInfo::AgentCircuitId(vec![1]));
        options.insert(DhcpOption::RelayAgentInformation(information));
    }
    message
}

fn refused(rest: &str) -> Input<'static> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (index, host) = (IfIndex(parse(words[1])), parse(words[2]));
    let change = match words[0] {
        "route" => Change::AddRoute {
            index,
            host,
            source: Ipv4Addr::new(10, 0, 0, 2),
        },
        "address" => Change::AddAddress {
            index,
            address: host,
        },
        other => panic!("no such change: {other}"),
    };
    let errno = parse(words[3].trim_start_matches("errno="));
    Input::Refused { change, errno }
}

fn parse<T: FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse()
        .unwrap_or_else(|error| panic!("{word}: {error:?}"))
}

//! The notation of a story's inputs.
//!
//! ```text
//! 0.0 bridging                                     the usual machine: wlan0 (2) 10.0.0.2/24 via 10.0.0.1, eth0 (3), all up
//!                                                  and the loop guard content
//! 0.0 dump link 2 wlan0 up carrier; address ...    a dump of the kernel's state, as a list of facts
//! 1.0 kernel link 3 eth0 up                        notifications, in the same words, several with `;`
//! 1.0 kernel no address 2 10.0.0.2/24
//! 2.0 wired printer who-has 10.0.0.1 tell 10.0.0.7 [to NAME]
//! 2.0 uplink router 10.0.0.1 is-at router [to NAME]
//! 2.0 wired printer probe 10.0.0.7 | announce 10.0.0.7
//! 2.0 wired stranger loop-probe
//! 2.0 echo uplink to wired [arp] [old]             our last (but one) loop probe out of the first comes in at the other
//! 2.0 uplink router talks 10.0.0.1 to 10.0.0.7      a glimpse of traffic through us
//! 3.0 wired laptop dhcp discover xid=1             and what else is said in DHCP: see `dhcp_talk`
//! 0.0 dhcp-settings mode=broadcast                 before all else
//! 3.0 wired tv mdns 10.0.0.7 query lamp.local      and what else is said in discovery: see `discovery_talk`
//! 0.0 no-discovery netbios                         before all else; one protocol or several
//! 0.0 fleet-settings [mdns=false]                   before all else: the device tells its network of itself
//! 5.0 client 10.0.0.9                              connects, to be told how the device is
//! 5.0 fleet-configured [status=false]              and how it is set anew
//! 4.0 wait | status | counters PREFIX | stop | port67-taken
//! 4.0 configured [uplink=NAME] [downlink=NAME] [bounce=false] [mdns=false]
//! 4.0 refused route 3 10.0.0.7 errno=12
//! ```
//!
//! The words of the radio are in `radio.rs`. Stations have names; a name stands for a hardware address of its own. `us-uplink` and `us-wired` are ours.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use footbridge_agent::addr::{IfIndex, MacAddr, Side};
use footbridge_agent::engine::{
    Address, Change, Glimpse, Input, KernelEvent, KernelState, Link, Route, Settings,
};
use footbridge_agent::wire::arp::{self, Arp, Operation};
use footbridge_agent::wire::ethernet;
use footbridge_agent::wire::ipv4;
use footbridge_agent::wire::loop_probe;

use super::dhcp_talk;
use super::discovery_talk;
use super::radio;

/// The machine most stories are about.
const BRIDGING: &str =
    "link 2 wlan0 up carrier; link 3 eth0 up carrier; address 2 10.0.0.2/24; default 2 10.0.0.1";

/// What a line says.
pub(super) enum Event {
    Wait,
    Status,
    /// Those whose names begin so.
    Counters(String),
    /// Before anything else happens.
    Settings(Settings),
    Bridging(KernelState),
    Echo(Echo),
    Kernel(Vec<Input<'static>>),
    Frame(Side, Vec<u8>),
    Traffic(Glimpse),
    /// Somebody connects to the device's own port.
    Client(Ipv4Addr),
    Input(Input<'static>),
}

/// A loop probe of ours that comes in at a port.
pub(super) struct Echo {
    pub(super) left: Side,
    pub(super) came: Side,
    pub(super) arp: bool,
    pub(super) old: bool,
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
            MacAddr(1, ..) => "group".to_owned(),
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
            "counters" => Event::Counters(rest.to_owned()),
            "stop" => Event::Input(Input::Stop),
            "configured" => Event::Input(Input::Configured(settings(rest))),
            "dhcp-settings" => Event::Settings(dhcp_talk::settings(rest)),
            "fleet-settings" => Event::Settings(discovery_talk::settings_of_fleet(rest)),
            "fleet-configured" => {
                Event::Input(Input::Configured(discovery_talk::settings_of_fleet(rest)))
            }
            "client" => Event::Client(parse(rest)),
            "no-discovery" => Event::Settings(discovery_talk::settings_without(rest)),
            "port67-taken" => Event::Input(Input::Port67Taken),
            "bridging" => Event::Bridging(self.dump(BRIDGING)),
            "dump" => Event::Input(Input::KernelDump(self.dump(rest))),
            "kernel" => Event::Kernel(
                rest.split(';')
                    .map(|fact| Input::Kernel(self.fact(fact)))
                    .collect(),
            ),
            "radio" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                Event::Input(Input::Radio(radio::radio(&words, self)))
            }
            "supplicant" => Event::Input(Input::Radio(radio::supplicant(rest))),
            "refused" => Event::Input(refused(rest)),
            "echo" => Event::Echo(echo(rest)),
            "wired" if rest.contains(" talks ") => {
                Event::Traffic(self.glimpse(Side::Wired, "us-wired", rest))
            }
            "uplink" if rest.contains(" talks ") => {
                Event::Traffic(self.glimpse(Side::Uplink, "us-uplink", rest))
            }
            "wired" => Event::Frame(Side::Wired, self.frame("us-wired", rest)),
            "uplink" => Event::Frame(Side::Uplink, self.frame("us-uplink", rest)),
            _ => panic!("no such input: {line}"),
        };
        (time, event)
    }

    fn glimpse(&self, side: Side, us: &str, rest: &str) -> Glimpse {
        let [name, "talks", from, "to", to] = rest.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("no such traffic: {rest}")
        };
        let mut header = vec![0x45; 12];
        header.extend(parse::<Ipv4Addr>(from).octets());
        header.extend(parse::<Ipv4Addr>(to).octets());
        let (us, source) = (self.mac_of(us), self.mac_of(name));
        let frame = ethernet::encode(us, source, ethernet::TYPE_IPV4, &header);
        let mut headers = [0; ipv4::HEADERS];
        headers.copy_from_slice(&frame[..ipv4::HEADERS]);
        Glimpse { side, headers }
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
        if let ["displaced", host] = words {
            return KernelEvent::HostRouteDisplaced(parse(host));
        }
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
                let metric = words.iter().position(|word| *word == "metric");
                let route = Route {
                    index,
                    destination: if default {
                        (Ipv4Addr::UNSPECIFIED, 0)
                    } else {
                        (parse(words[2]), 32)
                    },
                    metric: metric.map_or(0, |at| parse(words[at + 1])),
                    gateway: default.then(|| parse(words[2])),
                    ours,
                };
                match removed {
                    true => KernelEvent::RouteRemoved(route),
                    false if words.last() == Some(&"replaces") => KernelEvent::RouteReplaced(route),
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
        match words[1] {
            "dhcp" => return dhcp_talk::frame(self, us, sha, &words[2..]),
            "loop-probe" => return loop_probe::encode(sha, 1),
            _ => {}
        }
        if let Some(frame) = discovery_talk::frame(self, sha, &words[1..]) {
            return frame;
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
}

fn settings(rest: &str) -> Settings {
    let given: BTreeMap<&str, &str> = rest
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .collect();
    let name = |key, default| *given.get(key).unwrap_or(&default);
    let mut settings = Settings::new(name("uplink", "wlan0"), name("downlink", "eth0"));
    settings.wired.bounce = given.get("bounce").is_none_or(|bounce| parse(bounce));
    settings.discovery.mdns = given.get("mdns").is_none_or(|mdns| parse(mdns));
    settings
}

fn echo(rest: &str) -> Echo {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let side = |word| match word {
        "wired" => Side::Wired,
        "uplink" => Side::Uplink,
        other => panic!("no such side: {other}"),
    };
    Echo {
        left: side(words[0]),
        came: side(words[2]),
        arp: words.contains(&"arp"),
        old: words.contains(&"old"),
    }
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

pub(super) fn parse<T: FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse()
        .unwrap_or_else(|error| panic!("{word}: {error:?}"))
}

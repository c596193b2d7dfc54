//! What holds whatever the engine is told: tables stay bounded, timers move on, nobody is answered for whom nobody vouched,
//! and the kernel's state is what is wanted.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::addr::MacAddr;
use crate::wire::arp::{Arp, Operation};
use crate::wire::dhcp::MessageType;

use super::dhcp_relay::MOST_TRANSACTIONS;
use super::hosts::MOST_PER_SIDE;
use super::proxy_arp::{MOST_QUESTIONS, MOST_SILENT};
use super::*;

const UPLINK: IfIndex = IfIndex(2);
const WIRED: IfIndex = IfIndex(3);

fn station(number: u8) -> MacAddr {
    MacAddr(2, 0, 0, 0, 0, number)
}

fn link(index: IfIndex, up: bool, carrier: bool) -> Link {
    Link {
        name: if index == UPLINK { "wlan0" } else { "eth0" }.to_owned(),
        mac: Some(station(index.0 as u8)),
        up,
        carrier,
    }
}

fn address(index: IfIndex, last: u8, prefix: u8) -> Address {
    Address {
        index,
        address: Ipv4Addr::new(10, 0, 0, last),
        prefix,
        ours: prefix == 32,
    }
}

fn route(index: IfIndex, gateway: u8) -> Route {
    Route {
        index,
        destination: (Ipv4Addr::UNSPECIFIED, 0),
        gateway: Some(Ipv4Addr::new(10, 0, 0, gateway)),
        ours: false,
    }
}

fn usual(prefix: u8) -> KernelState {
    KernelState {
        links: [
            (UPLINK, link(UPLINK, true, true)),
            (WIRED, link(WIRED, true, true)),
        ]
        .into(),
        addresses: [address(UPLINK, 2, prefix)].into(),
        routes: [route(UPLINK, 1)].into(),
        neighbours: BTreeMap::new(),
    }
}

#[derive(Clone, Debug)]
enum Told {
    Dump,
    Event(KernelEvent),
    Frame(Side, Vec<u8>),
    RefuseLast(i32),
    Pass(Duration),
    NextDeadline,
}

fn any_side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Wired), Just(Side::Uplink)]
}

/// Few stations and addresses, so that they meet; ours and the gateway's are among them.
fn any_arp() -> impl Strategy<Value = Told> {
    (
        any_side(),
        1u8..10,
        0u8..8,
        0u8..8,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(side, mac, spa, tpa, reply, unicast)| {
            let ip = |last| {
                if last == 0 {
                    Ipv4Addr::UNSPECIFIED
                } else {
                    Ipv4Addr::new(10, 0, 0, last)
                }
            };
            let arp = Arp {
                operation: if reply {
                    Operation::Reply
                } else {
                    Operation::Request
                },
                sha: station(mac),
                spa: ip(spa),
                tha: MacAddr::zero(),
                tpa: ip(tpa),
            };
            let us = station(if side == Side::Wired { 3 } else { 2 });
            Told::Frame(
                side,
                arp::encode(&arp, if unicast { us } else { MacAddr::broadcast() }),
            )
        })
}

fn any_dhcp() -> impl Strategy<Value = Told> {
    (any_side(), 1u8..10, 1u8..9, 0u8..3, 0u8..8, any::<bool>()).prop_map(
        |(side, mac, kind, xid, yiaddr, reply)| {
            let mut message = vec![0; 240];
            message[..8].copy_from_slice(&[if reply { 2 } else { 1 }, 1, 6, 0, 0, 0, 0, xid]);
            message[16..20].copy_from_slice(&[10, 0, 0, yiaddr]);
            if reply {
                message[24..28].copy_from_slice(&[10, 0, 0, 2]);
            }
            message[28..34].copy_from_slice(&station(mac).octets());
            message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
            message.extend([
                53, 1, kind, 51, 4, 0, 0, 0, 60, 50, 4, 10, 0, 0, yiaddr, 255,
            ]);
            let to = if reply {
                Ipv4Addr::new(10, 0, 0, 2)
            } else {
                Ipv4Addr::BROADCAST
            };
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 67);
            let frame = udp::encode(
                (station(mac), from),
                (MacAddr::broadcast(), SocketAddrV4::new(to, 67)),
                &message,
            );
            Told::Frame(side, frame.unwrap())
        },
    )
}

fn any_event() -> impl Strategy<Value = Told> {
    let index = prop_oneof![Just(UPLINK), Just(WIRED)];
    (index, 0u8..8, any::<bool>(), any::<bool>(), 1u8..8).prop_map(
        |(index, kind, up, carrier, last)| {
            let ip = Ipv4Addr::new(10, 0, 0, last);
            Told::Event(match kind {
                0 | 1 => KernelEvent::Link(index, link(index, up, carrier)),
                2 => KernelEvent::LinkGone(index),
                3 => KernelEvent::AddressAdded(address(UPLINK, 2 + last % 2, 24)),
                4 => KernelEvent::AddressRemoved(address(UPLINK, 2 + last % 2, 24)),
                5 => KernelEvent::AddressRemoved(address(WIRED, 2, 32)),
                6 => KernelEvent::NeighbourRemoved(WIRED, ip),
                _ if up => KernelEvent::RouteAdded(route(UPLINK, last)),
                _ => KernelEvent::RouteRemoved(route(UPLINK, last)),
            })
        },
    )
}

fn any_told() -> impl Strategy<Value = Told> {
    prop_oneof![
        1 => Just(Told::Dump),
        2 => any_event(),
        12 => any_arp(),
        6 => any_dhcp(),
        1 => (any_side(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(side, bytes)| Told::Frame(side, bytes)),
        1 => prop_oneof![Just(3), Just(12)].prop_map(Told::RefuseLast),
        3 => (0u64..90_000).prop_map(|ms| Told::Pass(Duration::from_millis(ms))),
        6 => Just(Told::NextDeadline),
    ]
}

struct Model {
    engine: Engine,
    now: Instant,
    last_change: Option<Change>,
}

impl Model {
    fn new() -> Model {
        let now = test_clock();
        Model {
            engine: Engine::new(Settings::new("wlan0", "eth0"), 7, now),
            now,
            last_change: None,
        }
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::Dump => drop(self.handle(Input::KernelDump(usual(24)))),
            Told::Event(event) => drop(self.handle(Input::Kernel(event))),
            Told::Frame(side, bytes) => {
                let actions = self.handle(Input::Frame {
                    side,
                    bytes: &bytes,
                });
                self.check_replies(&actions, Some((side, &bytes)));
            }
            Told::RefuseLast(errno) => {
                if let Some(change) = self.last_change.take() {
                    self.handle(Input::Refused { change, errno });
                }
            }
            Told::Pass(time) => {
                self.now += time;
                self.tick();
            }
            Told::NextDeadline => {
                self.now = self
                    .engine
                    .next_deadline()
                    .map_or(self.now, |due| due.max(self.now));
                self.tick();
            }
        }
        self.check_bounds();
    }

    fn tick(&mut self) {
        let actions = self.handle(Input::Tick);
        self.check_replies(&actions, None);
        let next = self.engine.next_deadline();
        assert!(
            next.is_none_or(|due| due > self.now),
            "a deadline stays in the past"
        );
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.engine.handle(input, self.now, &mut actions);
        for (at, action) in actions.iter().enumerate() {
            if let Action::Apply(change) = action {
                assert!(
                    !actions[..at].contains(action),
                    "{change:?} is asked for twice"
                );
                self.last_change = Some(change.clone());
            }
        }
        actions
    }

    fn check_bounds(&self) {
        let engine = &self.engine;
        let missing = engine.mirror.missing(&engine.wanted());
        assert_eq!(missing, [], "the kernel's state is not what is wanted");
        for side in [Side::Wired, Side::Uplink] {
            let hosts = engine
                .hosts
                .iter()
                .filter(|(_, host)| host.place.side == side);
            assert!(hosts.count() <= MOST_PER_SIDE);
        }
        let (questions, silent) = engine.proxy_arp.sizes();
        assert!(questions <= 2 * MOST_QUESTIONS && silent <= MOST_SILENT);
        assert!(engine.dhcp_relay.size() <= MOST_TRANSACTIONS);
        if let Some(bridge) = engine.bridge {
            let gateway = engine
                .hosts
                .iter()
                .find(|(ip, _)| Some(*ip) == bridge.gateway);
            assert!(
                gateway.is_none_or(|(_, host)| host.place.side == Side::Uplink),
                "A10"
            );
            assert!(
                engine.hosts.find(bridge.address).is_none(),
                "our own address is nobody's"
            );
        }
    }

    /// A2: whoever is answered for is verified on the other side, or spoke there this very moment.
    fn check_replies(&self, actions: &[Action], heard: Option<(Side, &[u8])>) {
        for action in actions {
            let Action::Send { side, frame } = action else {
                continue;
            };
            let Ok(reply) = arp::decode(&ethernet::decode(frame).unwrap()) else {
                continue;
            };
            if reply.operation == Operation::Request {
                let ours = self.engine.bridge.map(|bridge| bridge.address);
                let announced = self
                    .engine
                    .hosts
                    .verified(reply.spa, side.other(), self.now);
                assert!(
                    reply.spa.is_unspecified() || Some(reply.spa) == ours || announced.is_some(),
                    "A4, A6"
                );
                continue;
            }
            let spoke = heard.is_some_and(|(from, bytes)| {
                let arp = ethernet::decode(bytes)
                    .ok()
                    .and_then(|frame| arp::decode(&frame).ok());
                from == side.other() && arp.is_some_and(|arp| arp.spa == reply.spa)
            });
            let verified = self
                .engine
                .hosts
                .verified(reply.spa, side.other(), self.now);
            assert!(
                spoke || verified.is_some(),
                "{reply:?} on {side} is vouched for by nobody"
            );
            assert!(
                verified.is_none_or(|place| place.mac != reply.tha) || spoke,
                "its own address"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_told(story in proptest::collection::vec(any_told(), 1..150)) {
        let mut model = Model::new();
        model.tell(Told::Dump);
        for told in story {
            model.tell(told);
        }
        let actions = model.handle(Input::Stop);
        prop_assert_eq!(actions.last(), Some(&Action::Finished));
        prop_assert_eq!(model.engine.next_deadline(), None);
    }
}

fn announcement(side: Side, number: u32) -> Told {
    let [_, _, high, low] = number.to_be_bytes();
    let arp = Arp {
        operation: Operation::Request,
        sha: MacAddr(2, 1, 0, 0, high, low),
        spa: Ipv4Addr::new(10, 0, high, low),
        tha: MacAddr::zero(),
        tpa: Ipv4Addr::new(10, 0, high, low),
    };
    Told::Frame(side, arp::encode(&arp, MacAddr::broadcast()))
}

#[test]
fn a_flood_of_invented_hosts_fills_no_table() {
    let mut model = Model::new();
    model.handle(Input::KernelDump(usual(16)));
    for number in 100..1500 {
        model.tell(announcement(Side::Wired, number));
        model.tell(announcement(Side::Uplink, number + 2000));
    }
    assert_eq!(model.engine.hosts.iter().count(), 2 * MOST_PER_SIDE);
    assert!(model.engine.counters["host-table-full"] > 0);
    // Announcements are not passed on faster than a fixed rate, whoever makes them.
    assert!(model.engine.counters["arp-announced"] <= 32);
}

#[test]
fn a8_a_flood_of_questions_fills_no_table() {
    let mut model = Model::new();
    model.handle(Input::KernelDump(usual(16)));
    for number in 0..2000u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let arp = Arp {
            operation: Operation::Request,
            sha: MacAddr(2, 1, 0, 0, high, low),
            spa: Ipv4Addr::new(10, 0, 100 + high, low),
            tha: MacAddr::zero(),
            tpa: Ipv4Addr::new(10, 0, 200 + high, low),
        };
        model.tell(Told::Frame(
            Side::Uplink,
            arp::encode(&arp, MacAddr::broadcast()),
        ));
        if number % 100 == 0 {
            model.tell(Told::NextDeadline);
        }
    }
    assert!(model.engine.counters["arp-capped"] > 0);
}

#[test]
fn a_flood_of_transactions_fills_no_table_and_is_not_relayed() {
    let mut model = Model::new();
    model.handle(Input::KernelDump(usual(16)));
    for xid in 0..600u16 {
        let mut message = vec![0; 240];
        message[..6].copy_from_slice(&[1, 1, 6, 0, 0, 0]);
        message[6..8].copy_from_slice(&xid.to_be_bytes());
        message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend([53, 1, MessageType::Discover as u8 + 1, 255]);
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let frame = udp::encode(
            (station((xid % 100) as u8 + 10), from),
            (MacAddr::broadcast(), to),
            &message,
        );
        model.tell(Told::Frame(Side::Wired, frame.unwrap()));
        if xid % 100 == 99 {
            model.now += Duration::from_secs(1);
        }
    }
    let count = |name| model.engine.counters[name];
    assert_eq!(count("dhcp-request-relayed"), 6 * 64);
    assert_eq!(count("dhcp-request-capped"), 6 * 36);
    assert_eq!(model.engine.dhcp_relay.size(), MOST_TRANSACTIONS);
}

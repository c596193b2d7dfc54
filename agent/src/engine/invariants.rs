//! Random stories and floods told to the engine, with the model looking on.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use proptest::prelude::*;

use crate::addr::MacAddr;
use crate::wire::arp::{Arp, Operation};
use crate::wire::dhcp::MessageType;

use super::dhcp_transactions::MOST_TRANSACTIONS;
use super::model::{Model, Told, UPLINK, WIRED, address, dhcp_frame, link, route, station, usual};
use super::table::MOST_PER_SIDE;
use super::*;

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

fn any_traffic() -> impl Strategy<Value = Told> {
    (any_side(), 1u8..10, 1u8..8, 1u8..8).prop_map(|(side, mac, from, to)| {
        let ip = |last| Ipv4Addr::new(10, 0, 0, last);
        Told::Traffic(side, station(mac), ip(from), ip(to))
    })
}

fn any_dhcp() -> impl Strategy<Value = Told> {
    (any_side(), 1u8..10, 1u8..9, 0u8..3, 0u8..8, any::<bool>()).prop_map(
        |(side, mac, kind, xid, last, reply)| {
            let yiaddr = Ipv4Addr::new(10, 0, 0, last);
            Told::Frame(side, dhcp_frame(station(mac), kind, xid, yiaddr, reply))
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
                6 if up => KernelEvent::NeighbourRemoved(WIRED, ip),
                6 => KernelEvent::HostRouteDisplaced(ip),
                _ if up && carrier => KernelEvent::RouteAdded(route(UPLINK, last)),
                _ if up => KernelEvent::RouteReplaced(route(UPLINK, last)),
                _ => KernelEvent::RouteRemoved(route(UPLINK, last)),
            })
        },
    )
}

fn any_radio() -> impl Strategy<Value = RadioEvent> {
    let names = prop_oneof![Just(b"home"), Just(b"away")];
    let association = (1u8..3, names).prop_map(|(number, name)| Association {
        bssid: station(number),
        ssid: name.to_vec(),
        frequency: None,
        signal: Some(-60),
        tx_rate: None,
        rx_rate: None,
    });
    let state = (proptest::option::of(association), any::<Option<bool>>());
    let state = state.prop_map(|(association, power_save)| RadioState {
        association,
        country: None,
        power_save,
    });
    let state = (proptest::option::weighted(0.9, state), 0u64..10_000);
    let state = state.prop_map(|(state, uptime)| RadioEvent::State {
        state,
        uptime: Duration::from_secs(uptime),
    });
    let other = [
        RadioEvent::Attached(true),
        RadioEvent::Supplicant(SupplicantEvent::WrongKey),
        RadioEvent::Supplicant(SupplicantEvent::Refused),
        RadioEvent::Supplicant(SupplicantEvent::WrongServer),
        RadioEvent::Supplicant(SupplicantEvent::Connected),
        RadioEvent::PowerSaveRefused { errno: 95 },
    ];
    prop_oneof![3 => state, 1 => proptest::sample::select(other.to_vec())]
}

fn any_told() -> impl Strategy<Value = Told> {
    prop_oneof![
        1 => Just(Told::Dump),
        2 => any_event(),
        12 => any_arp(),
        4 => any_traffic(),
        6 => any_dhcp(),
        1 => (any_side(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(side, bytes)| Told::Frame(side, bytes)),
        1 => prop_oneof![Just(3), Just(12)].prop_map(Told::RefuseLast),
        1 => any_radio().prop_map(Told::Radio),
        1 => prop_oneof![Just(Told::Port67Taken), Just(Told::Port67Held), Just(Told::Report)],
        2 => (0u64..90_000).prop_map(|ms| Told::Pass(Duration::from_millis(ms))),
        1 => (0u64..2_000).prop_map(|ms| Told::Stall(Duration::from_millis(ms))),
        6 => Just(Told::NextDeadline),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_told(story in proptest::collection::vec(any_told(), 1..150)) {
        let mut model = Model::new(Settings::new("wlan0", "eth0"));
        model.tell(Told::Dump);
        for told in story {
            model.tell(told);
        }
        model.stop();
    }
}

fn announcement(side: Side, number: u32) -> (Side, Vec<u8>) {
    let [_, _, high, low] = number.to_be_bytes();
    let arp = Arp {
        operation: Operation::Request,
        sha: MacAddr(2, 1, 0, 0, high, low),
        spa: Ipv4Addr::new(10, 0, high, low),
        tha: MacAddr::zero(),
        tpa: Ipv4Addr::new(10, 0, high, low),
    };
    (side, arp::encode(&arp, MacAddr::broadcast()))
}

/// Invents hosts on both sides, as fast as they are learned.
fn invent(model: &mut Model, numbers: std::ops::Range<u32>) {
    for number in numbers {
        for (side, frame) in [
            announcement(Side::Wired, number),
            announcement(Side::Uplink, number + 0x3000),
        ] {
            model.hear(side, &frame);
        }
        model.now += Duration::from_millis(20);
    }
    model.check_bounds();
}

#[test]
fn a_flood_of_invented_hosts_fills_no_table_and_costs_no_host_that_answered() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
    let printer = Ipv4Addr::new(10, 0, 0, 7);
    model.tell(question(Side::Uplink, 9, printer));
    model.tell(reply(Side::Wired, 7, printer));
    let leased = Ipv4Addr::new(10, 0, 0, 8);
    acknowledge(&mut model, leased);
    let most = MOST_PER_SIDE as u32;
    invent(&mut model, 0x300..0x300 + most + 500);
    let of_side = |side| {
        let hosts = model.engine.hosts.iter();
        hosts.filter(|(_, host)| host.place.side == side).count()
    };
    assert_eq!(of_side(Side::Wired), MOST_PER_SIDE);
    assert_eq!(of_side(Side::Uplink), MOST_PER_SIDE);
    for ip in [printer, leased] {
        assert!(
            model
                .engine
                .hosts
                .find(ip)
                .is_some_and(|host| host.is_present()),
            "{ip}"
        );
    }
    // A thousand in one moment are no more than a second's share, and so are the questions that their announcements wait for.
    let asked = model.engine.counters["host-checked"];
    for number in 0x2000..0x2400 {
        let (side, frame) = announcement(Side::Wired, number);
        model.hear(side, &frame);
    }
    assert!(model.engine.counters["host-newcomer-capped"] >= 0x400 - 128);
    assert!(model.engine.counters["host-checked"] <= asked + 32);
    assert_eq!(model.engine.counters.get("arp-announced"), None);
}

fn question(side: Side, asker: u8, target: Ipv4Addr) -> Told {
    let arp = Arp {
        operation: Operation::Request,
        sha: station(asker),
        spa: Ipv4Addr::new(10, 0, 0, asker),
        tha: MacAddr::zero(),
        tpa: target,
    };
    Told::Frame(side, arp::encode(&arp, MacAddr::broadcast()))
}

fn reply(side: Side, number: u8, address: Ipv4Addr) -> Told {
    let us = station(if side == Side::Wired { 3 } else { 2 });
    let arp = Arp {
        operation: Operation::Reply,
        sha: station(number),
        spa: address,
        tha: us,
        tpa: Ipv4Addr::new(10, 0, 0, 2),
    };
    Told::Frame(side, arp::encode(&arp, us))
}

/// Relays a request and returns what its acknowledgement leads to.
fn acknowledge(model: &mut Model, address: Ipv4Addr) -> Vec<Action> {
    model.now += Duration::from_secs(1);
    let request = dhcp_frame(station(50), 3, 1, address, false);
    model.hear(Side::Wired, &request);
    model.hear(Side::Uplink, &dhcp_frame(station(50), 5, 1, address, true))
}

#[test]
fn d6_a_lease_finds_room_in_a_full_table_or_is_withheld() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
    for number in 0x300..0x300 + MOST_PER_SIDE as u32 {
        model.now += Duration::from_millis(10);
        let (side, frame) = announcement(Side::Wired, number);
        model.hear(side, &frame);
    }
    let wired =
        |action: &Action| matches!(action, Action::Send { side, .. } if *side == Side::Wired);
    for number in 0..MOST_PER_SIDE as u16 {
        let [high, low] = number.to_be_bytes();
        let leased = Ipv4Addr::new(10, 0, 100 + high, low);
        let evicted = Ipv4Addr::new(10, 0, 3 + high, low);
        let actions = acknowledge(&mut model, leased);
        let routed = |action: &Action| matches!(action, Action::Apply(Change::AddRoute { host, .. }) if *host == leased);
        let removal = Action::Apply(Change::RemoveRoute {
            index: WIRED,
            host: evicted,
        });
        let route = actions.iter().position(routed);
        assert!(
            route.is_some() && route < actions.iter().position(wired),
            "{leased}: {actions:?}"
        );
        assert!(actions.contains(&removal), "{evicted}: {actions:?}");
    }
    model.check_bounds();
    let actions = acknowledge(&mut model, Ipv4Addr::new(10, 0, 200, 1));
    assert_eq!(actions, []);
    assert_eq!(model.engine.counters["dhcp-ack-withheld"], 1);
}

#[test]
fn a8_a_flood_of_questions_fills_no_table() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
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

/// Everything at once, four hundred times a second each: a station and invented ones sweep a /16 from either side, and a tool
/// asks for all the addresses that a DHCP server has.
fn lay_siege(model: &mut Model, moment: u32) {
    for number in 10 * moment..10 * moment + 10 {
        let [_, a, b, c] = number.to_be_bytes();
        let target = Ipv4Addr::new(10, 0, 128 + b % 64, c);
        for (side, first) in [(Side::Uplink, 4), (Side::Wired, 6)] {
            for (sha, spa) in [
                (station(100 + first), Ipv4Addr::new(10, 0, 3, first)),
                (
                    MacAddr(first, 1, 0, a, b, c),
                    Ipv4Addr::new(10, 0, 64 + 8 * first + b % 8, c),
                ),
            ] {
                let arp = Arp {
                    operation: Operation::Request,
                    sha,
                    spa,
                    tha: MacAddr::zero(),
                    tpa: target,
                };
                model.hear(side, &arp::encode(&arp, MacAddr::broadcast()));
            }
        }
        let invented = MacAddr(6, 2, 0, a, b, c);
        let discover = dhcp_frame(invented, 1, 1, target, false);
        model.hear(Side::Wired, &discover);
        model.now += Duration::from_micros(2500);
    }
    model.tell(Told::Pass(Duration::ZERO));
}

/// Tells a step, and returns whether a frame leaves on a side that `wanted` describes.
fn leads_to(model: &mut Model, told: Told, side: Side, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let Told::Frame(from, bytes) = told else {
        panic!("no frame: {told:?}");
    };
    let actions = model.hear(from, &bytes);
    actions.iter().any(
        |action| matches!(action, Action::Send { side: to, frame } if *to == side && wanted(frame)),
    )
}

/// Returns what tells whether a frame is an ARP packet of a kind about an address.
fn about(operation: Operation, address: Ipv4Addr) -> impl Fn(&[u8]) -> bool {
    move |frame| {
        let frame = ethernet::decode(frame).unwrap();
        arp::decode(&frame).is_ok_and(|arp| {
            let subject = match operation {
                Operation::Request => arp.tpa,
                Operation::Reply => arp.spa,
            };
            (arp.operation, subject) == (operation, address)
        })
    }
}

/// Whoever is known is answered and relayed at once; and whom they want is asked for at once, and they hear of it with the
/// answer.
#[test]
fn a8_the_good_are_answered_whatever_is_swept() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
    let (printer, phone) = (7, 9);
    let address = |number| Ipv4Addr::new(10, 0, 0, number);
    let router = address(1);
    for told in [
        question(Side::Uplink, phone, address(printer)),
        reply(Side::Wired, printer, address(printer)),
        // Whoever only spoke is asked, once it is wanted and did not speak for a while.
        Told::Pass(Duration::from_secs(2)),
        question(Side::Wired, printer, address(phone)),
        Told::Pass(Duration::from_millis(200)),
        reply(Side::Uplink, phone, address(phone)),
        reply(Side::Uplink, 1, router),
    ] {
        model.tell(told);
    }
    for moment in 0..400 {
        lay_siege(&mut model, moment);
        if moment % 20 != 19 {
            continue;
        }
        let at = format!("after {} ms", 25 * (moment + 1));
        model.tell(reply(Side::Uplink, 1, router));
        for (side, asker, target) in [
            (Side::Wired, printer, router),
            (Side::Uplink, phone, address(printer)),
        ] {
            let answer = about(Operation::Reply, target);
            let asks = question(side, asker, target);
            assert!(leads_to(&mut model, asks, side, answer), "{side} {at}");
        }
        for (side, asker) in [(Side::Wired, printer), (Side::Uplink, phone)] {
            let [.., number] = moment.to_be_bytes();
            let other = Ipv4Addr::new(10, 0, if side == Side::Wired { 1 } else { 2 }, number);
            let asked = about(Operation::Request, other);
            let asks = question(side, asker, other);
            let beyond = side.other();
            assert!(leads_to(&mut model, asks, beyond, asked), "{other} {at}");
            let answer = about(Operation::Reply, other);
            let answers = reply(beyond, 20 + number % 8, other);
            assert!(leads_to(&mut model, answers, side, answer), "{other} {at}");
        }
        let renewal = dhcp_frame(station(printer), 3, 7, address(printer), false);
        let relayed =
            |frame: &[u8]| ethernet::decode(frame).unwrap().ether_type == ethernet::TYPE_IPV4;
        let renews = Told::Frame(Side::Wired, renewal);
        assert!(leads_to(&mut model, renews, Side::Uplink, relayed), "{at}");
    }
    for name in ["arp-capped", "dhcp-request-capped", "host-newcomer-capped"] {
        assert!(model.engine.counters[name] > 100, "{name}");
    }
}

#[test]
fn a8_a_station_that_sends_to_nobody_leaves_room_for_those_who_ask() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
    let asked = |model: &Model| {
        let asked = model.engine.counters.get("arp-asked");
        asked.copied().unwrap_or_default()
    };
    for number in 0..1000u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let to = Ipv4Addr::new(10, 0, 100 + high, low);
        let from = Ipv4Addr::new(10, 0, 0, 9);
        model.tell(Told::Traffic(Side::Uplink, station(9), from, to));
    }
    assert_eq!(asked(&model), 32);
    model.tell(question(Side::Uplink, 8, Ipv4Addr::new(10, 0, 0, 7)));
    assert_eq!(asked(&model), 33);
}

#[test]
fn a_flood_of_transactions_fills_no_table_and_is_not_relayed() {
    let mut model = Model::new(Settings::new("wlan0", "eth0"));
    model.dump(usual(16));
    for xid in 0..1200u16 {
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
    assert_eq!(count("dhcp-request-relayed"), 12 * 48);
    assert_eq!(count("dhcp-request-capped"), 12 * 52);
    assert_eq!(model.engine.dhcp_relay.size(), MOST_TRANSACTIONS);
}

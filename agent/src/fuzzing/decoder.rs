//! The decoders: none panics, and what one accepts is what was sent.

use std::fmt::Debug;
use std::net::Ipv4Addr;

use crate::addr::MacAddr;
use crate::config::{Overrides, parse_config};
use crate::engine::{Engine, Input, RANDOM_BYTES, Settings};
use crate::shell::ledger::{self, Held};
use crate::shell::netlink::decode_datagram;
use crate::wire::arp::Operation;
use crate::wire::dhcp::{self, Dhcp};
use crate::wire::dhcp_patch::Patch;
use crate::wire::discovery::{self, Heard};
use crate::wire::{self, dns, ethernet, loop_probe};

const GIADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// A frame that is accepted is made of what was read.
pub(super) fn ethernet(bytes: &[u8]) {
    if let Ok(frame) = ethernet::decode(bytes) {
        let (to, from) = (frame.destination, frame.source);
        assert!(ethernet::is_station(from));
        let again = ethernet::encode(to, from, frame.ether_type, frame.payload);
        assert_eq!(again, bytes);
    }
}

/// A1: an ARP packet that is accepted is about IPv4 over Ethernet, speaks for its sender alone, and is made of what was read.
pub(super) fn arp(bytes: &[u8]) {
    let Ok(frame) = ethernet::decode(bytes) else {
        return;
    };
    let Ok(arp) = wire::arp::decode(&frame) else {
        return;
    };
    assert_eq!(arp.sha, frame.source);
    for address in [arp.spa, arp.tpa] {
        assert!(!address.is_multicast() && !address.is_loopback() && !address.is_broadcast());
    }
    assert!(arp.operation == Operation::Request || !arp.spa.is_unspecified());
    let again = wire::arp::encode(&arp, frame.destination);
    assert_eq!(again[14..], frame.payload[..28]);
}

/// A datagram that is accepted lies inside its packet, and is read again from what it is encoded to.
pub(super) fn udp(bytes: &[u8]) {
    let Ok(frame) = ethernet::decode(bytes) else {
        return;
    };
    let Ok(datagram) = wire::udp::decode(&frame) else {
        return;
    };
    assert!(datagram.payload.len() + 28 <= frame.payload.len());
    let from = (frame.source, datagram.source);
    let to = (frame.destination, datagram.destination);
    let again = wire::udp::encode(from, to, datagram.payload);
    let again = again.expect("what came in one packet fits one");
    let again = ethernet::decode(&again).map(|frame| wire::udp::decode(&frame) == Ok(datagram));
    assert_eq!(again, Ok(true));
}

/// D1, D2, D9, D10: a message that is accepted stays acceptable however it is patched, and says what it said.
pub(super) fn dhcp(bytes: &[u8]) {
    let Ok(message) = dhcp::decode(bytes) else {
        return;
    };
    assert!(message.client_mac().is_none_or(ethernet::is_station));
    let patch = Patch::new(&message);
    assert_eq!(patch.clone().into_bytes(), bytes);
    let relayed = patch.clone().one_more_hop().with_giaddr(GIADDR);
    let relayed = relayed.into_bytes();
    assert_eq!(relayed.len(), bytes.len());
    for (at, (new, old)) in relayed.iter().zip(bytes).enumerate() {
        assert!(new == old || [3, 24, 25, 26, 27].contains(&at), "byte {at}");
    }
    let padded = patch.clone().padded().into_bytes();
    assert!(padded.len() >= 300 && padded.starts_with(bytes));
    for patched in [&relayed, &padded] {
        assert_eq!(said(&read_again(patched)), said(&message));
    }
    let disguised = patch.clone().with_xid(7).with_flags(dhcp::BROADCAST_FLAG);
    let disguised = disguised.with_chaddr([2; 16]).into_bytes();
    let again = read_again(&disguised);
    assert_eq!((again.xid(), again.chaddr()), (7, [2; 16]));
    assert_eq!(options_said(&again), options_said(&message));
    for code in [dhcp::RELAY_INFORMATION, dhcp::CLIENT_IDENTIFIER] {
        let mut without = patch.clone();
        without.remove_option(code);
        let without = without.into_bytes();
        assert_eq!(without.len(), bytes.len());
        assert_eq!(options_said(&read_again(&without)), options_said(&message));
        let mut with = patch.clone();
        if with.add_option(code, b"port 1").is_ok() {
            let with = with.into_bytes();
            assert!(with.len() <= bytes.len() + 8);
            let again = read_again(&with);
            assert_eq!(options_said(&again), options_said(&message));
            let found = match code {
                dhcp::RELAY_INFORMATION => again.has_relay_information(),
                _ => again.has_client_identifier(),
            };
            assert!(found, "option {code} was added");
        }
    }
}

fn read_again(bytes: &[u8]) -> Dhcp<'_> {
    dhcp::decode(bytes).expect("patching spoils no message")
}

/// Everything a relay reads but hops and giaddr.
fn said(message: &Dhcp<'_>) -> impl PartialEq + Debug + use<> {
    (
        (message.op(), message.xid(), message.secs(), message.flags()),
        (message.ciaddr(), message.yiaddr(), message.chaddr()),
        options_said(message),
    )
}

/// What the options say that no patch is about.
fn options_said(message: &Dhcp<'_>) -> impl PartialEq + Debug + use<> {
    (
        (message.message_type(), message.lease_time()),
        (message.requested_address(), message.server_identifier()),
    )
}

/// A probe of the loop guard that is accepted is one that could have been sent.
pub(super) fn loop_probe(bytes: &[u8]) {
    if let Ok(frame) = ethernet::decode(bytes)
        && let Some(nonce) = loop_probe::decode(&frame)
    {
        let again = loop_probe::encode(frame.source, nonce);
        let again = ethernet::decode(&again).map(|frame| loop_probe::decode(&frame));
        assert_eq!(again, Ok(Some(nonce)));
    }
}

/// M3, M4: what a discovery protocol said is said on the other side by the same sender, in the same words.
pub(super) fn discovery(bytes: &[u8]) {
    let Ok(frame) = ethernet::decode(bytes) else {
        return;
    };
    let Ok(Some(heard)) = discovery::decode(&frame) else {
        return;
    };
    let us = MacAddr(2, 0, 0, 0, 0, 3);
    let again = heard.encode(us);
    assert!(again.len() <= bytes.len(), "nothing is added");
    let again = ethernet::decode(&again).expect("a whole frame");
    assert_eq!(again.source, us);
    match (heard, discovery::decode(&again)) {
        (Heard::Message(said), Ok(Some(Heard::Message(again)))) => {
            assert_eq!(again.protocol, said.protocol);
            assert_eq!(again.datagram, said.datagram);
            assert_eq!(again.fragmented, said.fragmented);
            assert_eq!(again.payload, said.payload);
        }
        (Heard::Fragment(said), Ok(Some(Heard::Fragment(again)))) => {
            assert_eq!(again.key, said.key);
        }
        (said, again) => panic!("{said:?} became {again:?}"),
    }
}

/// A message that is accepted is read again from what it is encoded to, and no name in it is longer than a name can be.
pub(super) fn dns(bytes: &[u8]) {
    let Ok(message) = dns::decode(bytes) else {
        return;
    };
    let questions = message.questions.iter().map(|question| &question.name);
    let records = message
        .answers
        .iter()
        .chain(&message.authority)
        .chain(&message.additional);
    for name in questions.chain(records.map(|record| &record.name)) {
        assert!(name.as_bytes().len() <= 255 && name.to_string().len() < 4 * 255);
    }
    assert_eq!(dns::decode(&dns::encode(&message)), Ok(message));
}

/// Whatever the radio's driver, its neighbours' beacons and the supplicant say, it can be read.
pub(super) fn radio(bytes: &[u8]) {
    crate::shell::radio::decode_anything(bytes);
}

/// A refusal can be told to a person, and what is accepted names two interfaces.
pub(super) fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match parse_config(text, Overrides::default()) {
        Ok(config) => {
            let (uplink, downlink) = (config.settings.uplink, config.settings.downlink);
            assert_ne!(uplink, downlink);
            for name in [uplink, downlink] {
                assert!((1..=15).contains(&name.len()) && !name.contains('/'));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.hint().is_empty()),
    }
}

/// Whatever netlink says, it can be read, and the engine takes it.
pub(super) fn netlink(bytes: &[u8]) {
    let mut engine = Engine::new(Settings::new("wlan0", "eth0"), [7; RANDOM_BYTES]);
    let now = crate::engine::test_clock();
    for event in decode_datagram(bytes) {
        engine.handle(Input::Kernel(event), now, &mut Vec::new());
    }
}

/// A ledger, whoever wrote it, leads to no file but a setting's own.
pub(super) fn ledger(bytes: &[u8]) {
    for entry in ledger::parse(bytes, "boot", "net") {
        match entry.held {
            Held::Sysctl { index: _, setting } => {
                assert!(!setting.is_empty() && !setting.contains(['/', '.']));
            }
            Held::Up { index: _ } | Held::PowerSave { index: _ } => {}
        }
    }
}

//! The notation of what discovery protocols say, in both directions.
//!
//! ```text
//! tv mdns 10.0.0.7 query lamp.local [ttl=N] [port=N] [to=A] [mac=NAME]     WORDS are the payload of all but mDNS
//! tv mdns 10.0.0.7 response lamp.local=10.0.0.7
//! tv ssdp|ws-discovery|netbios 10.0.0.7 WORDS
//! tv mdns 10.0.0.7 response lamp.local=10.0.0.7 id=5 first                 of a packet with the number 5
//! tv mdns 10.0.0.7 later id=5
//! pc magic NAME [10.0.0.8]                                                 a frame of its own, or a datagram from there
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use footbridge_agent::addr::MacAddr;
use footbridge_agent::engine::Settings;
use footbridge_agent::wire::discovery::{self, Heard, Message, Protocol, group_mac};
use footbridge_agent::wire::ethernet::{self, Frame, HEADER_LEN};
use footbridge_agent::wire::udp;
use pnet_packet::ipv4::{self, MutableIpv4Packet};

use super::script::{Names, parse};

const NETWORK_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);
const MORE_FRAGMENTS: u8 = 1;

/// Returns the frame for the words after a station's name; `None` if no discovery protocol is the first of them.
pub(super) fn frame(names: &Names, from: MacAddr, words: &[&str]) -> Option<Vec<u8>> {
    let protocol = match words[0] {
        "mdns" => Protocol::Mdns,
        "ssdp" => Protocol::Ssdp,
        "ws-discovery" => Protocol::WsDiscovery,
        "netbios" => Protocol::Netbios,
        "magic" => Protocol::WakeOnLan,
        _ => return None,
    };
    let (given, said): (Vec<&str>, Vec<&str>) = words[1..]
        .iter()
        .partition(|word| is_option(word) || ["first", "later"].contains(word));
    let options: BTreeMap<&str, &str> = given
        .iter()
        .filter_map(|word| word.split_once('='))
        .collect();
    if protocol == Protocol::WakeOnLan {
        let magic = magic(names.mac_of(said[0]));
        let Some(source) = said.get(1) else {
            let (to, kind) = (MacAddr::broadcast(), ethernet::TYPE_WAKE_ON_LAN);
            return Some(ethernet::encode(to, from, kind, &magic));
        };
        return Some(datagram(
            names,
            protocol,
            (from, parse(source)),
            &options,
            &magic,
        ));
    }
    let source = (from, parse(said[0]));
    let payload = match protocol {
        Protocol::Mdns => dns(&said[1..]),
        _ => said[1..].join(" ").into_bytes(),
    };
    let mut frame = datagram(names, protocol, source, &options, &payload);
    let mut packet = MutableIpv4Packet::new(&mut frame[HEADER_LEN..]).unwrap();
    if given.contains(&"first") {
        packet.set_flags(MORE_FRAGMENTS);
    }
    if given.contains(&"later") {
        packet.set_fragment_offset(185);
    }
    let sum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(sum);
    Some(frame)
}

/// Returns the usual settings but for the discovery protocols that are named.
pub(super) fn settings_without(rest: &str) -> Settings {
    let mut settings = Settings::new("wlan0", "eth0");
    for word in rest.split_whitespace() {
        match word {
            "mdns" => settings.discovery.mdns = false,
            "ssdp" => settings.discovery.ssdp = false,
            "ws-discovery" => settings.discovery.ws_discovery = false,
            "wake-on-lan" => settings.discovery.wake_on_lan = false,
            "netbios" => settings.discovery.netbios = false,
            other => panic!("no such protocol: {other}"),
        }
    }
    settings
}

fn is_option(word: &str) -> bool {
    ["ttl=", "port=", "to=", "mac=", "id="]
        .iter()
        .any(|key| word.starts_with(key))
}

fn datagram(
    names: &Names,
    protocol: Protocol,
    (mac, source): (MacAddr, Ipv4Addr),
    options: &BTreeMap<&str, &str>,
    payload: &[u8],
) -> Vec<u8> {
    let default = protocol.group().unwrap_or(NETWORK_BROADCAST);
    let to = options.get("to").map_or(default, |to| parse(to));
    let to_mac = options
        .get("mac")
        .map_or(group_mac(to), |name| names.mac_of(name));
    let port = protocol.ports()[0];
    let from_port = options.get("port").map_or(port, |port| parse(port));
    let from = (mac, SocketAddrV4::new(source, from_port));
    let to = (to_mac, SocketAddrV4::new(to, port));
    let mut frame = udp::encode(from, to, payload).unwrap();
    let ttl = if protocol == Protocol::Mdns { 255 } else { 4 };
    let mut packet = MutableIpv4Packet::new(&mut frame[HEADER_LEN..]).unwrap();
    packet.set_ttl(options.get("ttl").map_or(ttl, |ttl| parse(ttl)));
    packet.set_identification(options.get("id").map_or(0, |id| parse(id)));
    let sum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(sum);
    frame
}

fn magic(sleeper: MacAddr) -> Vec<u8> {
    let mut magic = vec![0xff; 6];
    magic.extend(sleeper.octets().repeat(16));
    magic
}

/// A question for a name's address, or an answer to it.
fn dns(words: &[&str]) -> Vec<u8> {
    let [kind, what] = words else {
        return words.join(" ").into_bytes();
    };
    let (name, address) = match what.split_once('=') {
        Some((name, address)) => (name, Some(parse::<Ipv4Addr>(address))),
        None => (*what, None),
    };
    let response = *kind == "response";
    let mut message = vec![0; 12];
    message[2] = if response { 0x84 } else { 0 };
    message[if response { 7 } else { 5 }] = 1;
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    if let Some(address) = address {
        message.extend([0, 0, 0, 120, 0, 4]);
        message.extend(address.octets());
    }
    message
}

/// Returns the words for a frame; `None` if it is no discovery protocol's. Its checksums are right, or it is not decoded.
pub(super) fn render(names: &Names, frame: &Frame<'_>) -> Option<String> {
    let message = match discovery::decode(frame).unwrap()? {
        Heard::Message(message) => message,
        Heard::Fragment(fragment) => return Some(format!("fragment id={}", fragment.key.id)),
    };
    let said = match message.protocol {
        Protocol::WakeOnLan => {
            let [.., a, b, c, d, e, f] = *message.payload else {
                panic!("magic is longer than an address");
            };
            format!("magic {}", names.name_of(MacAddr(a, b, c, d, e, f)))
        }
        Protocol::Mdns => render_dns(message.payload),
        Protocol::Ssdp | Protocol::WsDiscovery | Protocol::Netbios => {
            String::from_utf8(message.payload.to_vec()).unwrap()
        }
    };
    Some(format!(
        "{}{said}{}",
        render_datagram(&message),
        render_fragment(&message)
    ))
}

fn render_datagram(message: &Message<'_>) -> String {
    message.datagram.map_or_else(String::new, |datagram| {
        format!(
            "{} {} -> {} ttl={} ",
            message.protocol, datagram.source, datagram.destination, datagram.ttl
        )
    })
}

fn render_fragment(message: &Message<'_>) -> String {
    let key = message.fragmented;
    key.map_or_else(String::new, |key| format!(" id={} first", key.id))
}

fn render_dns(message: &[u8]) -> String {
    let response = message[2] & 0x80 != 0;
    let mut rest = &message[12..];
    let mut labels = Vec::new();
    while let [length, ..] = rest
        && *length > 0
    {
        let (label, after) = rest[1..].split_at(usize::from(*length));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        rest = after;
    }
    let name = labels.join(".");
    match (response, rest) {
        (true, [.., a, b, c, d]) => format!("response {name}={a}.{b}.{c}.{d}"),
        _ => format!("query {name}"),
    }
}

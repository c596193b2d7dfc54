//! The notation of what discovery protocols say, in both directions.
//!
//! ```text
//! tv mdns 10.0.0.7 query lamp.local [ttl=N] [port=N] [to=A] [mac=NAME]     WORDS are the payload of all but mDNS
//! tv mdns 10.0.0.7 response lamp.local=10.0.0.7
//! tv mdns 10.0.0.7 query|response MESSAGE                                  what has more to it than one name's address, as below
//! tv ssdp|ws-discovery|netbios 10.0.0.7 WORDS
//! tv mdns 10.0.0.7 response lamp.local=10.0.0.7 id=5 first                 of a packet with the number 5
//! tv mdns 10.0.0.7 later id=5
//! pc magic NAME [10.0.0.8]                                                 a frame of its own, or a datagram from there
//! ```
//!
//! A message is questions, then records with a comma before each section, here of a probe and of an announcement:
//! ```text
//! query ANY:hall-1.local ,, A:hall-1.local=10.0.0.2:120
//! response , PTR:_footbridge._tcp.local=hall-1._footbridge._tcp.local:4500 A!:hall-1.local=10.0.0.2:120
//! ```
//! A question of type `A?` may be answered to the asker alone, a record of type `A!` is the only one of its name, the number
//! behind a record is its time to live; `id=N` and `truncated` come first.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use footbridge_agent::addr::MacAddr;
use footbridge_agent::engine::Settings;
use footbridge_agent::wire::discovery::{self, Heard, Message, Protocol, group_mac};
use footbridge_agent::wire::dns::{self, Name, Question, Record};
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
        Protocol::Mdns if said.iter().any(|word| word.contains(':')) || said.contains(&",") => {
            dns::encode(&message(&said[1..]))
        }
        Protocol::Mdns => one_address(&said[1..]),
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

/// Returns the usual settings, with the device telling its network of itself.
pub(super) fn settings_of_fleet(rest: &str) -> Settings {
    let mut settings = Settings::new("wlan0", "eth0");
    settings.fleet.status = true;
    let device = &mut settings.fleet.device;
    device.hostname = "hall-1".to_owned();
    device.serial = Some("10000000abcdef01".to_owned());
    device.image = Some("footbridge-pi3 13".to_owned());
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            Some(("mdns", on)) => settings.discovery.mdns = parse(on),
            Some(("status", on)) => settings.fleet.status = parse(on),
            other => panic!("no such setting: {other:?}"),
        }
    }
    settings
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
fn one_address(words: &[&str]) -> Vec<u8> {
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

const TYPES: [(&str, u16); 7] = [
    ("A", dns::TYPE_A),
    ("PTR", dns::TYPE_PTR),
    ("TXT", dns::TYPE_TXT),
    ("AAAA", dns::TYPE_AAAA),
    ("SRV", dns::TYPE_SRV),
    ("NSEC", dns::TYPE_NSEC),
    ("ANY", dns::TYPE_ANY),
];

fn dns_type(word: &str) -> u16 {
    let known = TYPES.iter().find(|(name, _)| *name == word);
    known.unwrap_or_else(|| panic!("no such type: {word}")).1
}

fn type_name(kind: u16) -> &'static str {
    TYPES.iter().find(|(_, number)| *number == kind).unwrap().0
}

fn dns_name(text: &str) -> Name {
    Name::parse(text).unwrap_or_else(|| panic!("no such name: {text}"))
}

/// Reads what `render_message` writes.
fn message(words: &[&str]) -> dns::Message {
    let mut message = dns::Message {
        response: words[0] == "response",
        ..dns::Message::default()
    };
    let mut section = 0;
    for word in &words[1..] {
        if let Some(id) = word.strip_prefix("number=") {
            message.id = parse(id);
        } else if *word == "truncated" {
            message.truncated = true;
        } else if word.chars().all(|c| c == ',') {
            section += word.len();
        } else if section == 0 {
            let (kind, name) = word.split_once(':').unwrap();
            message.questions.push(Question {
                name: dns_name(name),
                kind: dns_type(kind.trim_end_matches('?')),
                class: dns::CLASS_IN,
                unicast: kind.ends_with('?'),
            });
        } else {
            let records = match section {
                1 => &mut message.answers,
                2 => &mut message.authority,
                _ => &mut message.additional,
            };
            records.push(record(word));
        }
    }
    message
}

fn record(word: &str) -> Record {
    let (kind, rest) = word.split_once(':').unwrap();
    let (rest, ttl) = rest.rsplit_once(':').unwrap();
    let (name, data) = rest.split_once('=').unwrap();
    let (name, ttl) = (dns_name(name), parse(ttl));
    let record = match kind.trim_end_matches('!') {
        "A" => Record::a(name, ttl, parse(data)),
        "PTR" => Record::ptr(name, ttl, &dns_name(data)),
        "TXT" => Record::txt(name, ttl, data),
        "SRV" => {
            let (host, port) = data.split_once('@').unwrap();
            Record::srv(name, ttl, parse(port), &dns_name(host))
        }
        other => panic!("no such record: {other}"),
    };
    Record {
        flush: kind.ends_with('!'),
        ..record
    }
}

fn render_message(message: &dns::Message) -> String {
    let mut words = vec![
        if message.response {
            "response"
        } else {
            "query"
        }
        .to_owned(),
    ];
    if message.id != 0 {
        words.push(format!("number={}", message.id));
    }
    if message.truncated {
        words.push("truncated".to_owned());
    }
    for question in &message.questions {
        let mark = if question.unicast { "?" } else { "" };
        words.push(format!(
            "{}{mark}:{}",
            type_name(question.kind),
            question.name
        ));
    }
    let sections = [&message.answers, &message.authority, &message.additional];
    let mut commas = String::new();
    for section in sections {
        commas.push(',');
        if !section.is_empty() {
            words.push(std::mem::take(&mut commas));
            words.extend(section.iter().map(render_record));
        }
    }
    words.join(" ")
}

fn render_record(record: &Record) -> String {
    let mark = if record.flush { "!" } else { "" };
    let data = match (record.kind, &record.data[..]) {
        (dns::TYPE_A, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
        (dns::TYPE_PTR, name) => name_of(name),
        (dns::TYPE_SRV, [_, _, _, _, high, low, name @ ..]) => {
            format!("{}@{}", name_of(name), u16::from_be_bytes([*high, *low]))
        }
        (dns::TYPE_TXT, [_, text @ ..]) => text.escape_ascii().to_string(),
        (dns::TYPE_NSEC, data) => {
            let bits = &data[record.name.as_bytes().len() + 2..];
            let has = |kind: &u16| {
                let bits = bits.get(usize::from(kind / 8));
                bits.is_some_and(|bits| bits & (0x80 >> (kind % 8)) != 0)
            };
            let kinds: Vec<&str> = (0..256).filter(has).map(type_name).collect();
            kinds.join("+")
        }
        other => panic!("{other:?}"),
    };
    let kind = type_name(record.kind);
    format!("{kind}{mark}:{}={data}:{}", record.name, record.ttl)
}

fn name_of(bytes: &[u8]) -> String {
    let question = [&[0; 5][..], &[1], &[0; 6], bytes, &[0, 1, 0, 1]].concat();
    dns::decode(&question).unwrap().questions[0]
        .name
        .to_string()
}

/// Returns the words for a frame; `None` if it is no discovery protocol's. Its checksums are right, or it is not decoded.
pub(super) fn render(names: &Names, frame: &Frame<'_>) -> Option<String> {
    let message = match discovery::decode(frame).unwrap() {
        None => return render_direct(frame),
        Some(Heard::Message(message)) => message,
        Some(Heard::Fragment(fragment)) => {
            return Some(format!("fragment id={}", fragment.key.id));
        }
    };
    let said = match message.protocol {
        Protocol::WakeOnLan => {
            let [.., a, b, c, d, e, f] = *message.payload else {
                panic!("magic is longer than an address");
            };
            format!("magic {}", names.name_of(MacAddr(a, b, c, d, e, f)))
        }
        Protocol::Mdns => match dns::decode(message.payload) {
            Ok(decoded) if !is_one_address(&decoded) => render_message(&decoded),
            Ok(_) | Err(_) => render_one_address(message.payload),
        },
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

/// Returns the words for mDNS to one station.
fn render_direct(frame: &Frame<'_>) -> Option<String> {
    let datagram = udp::decode(frame).ok()?;
    let (from, to, ttl) = (datagram.source, datagram.destination, frame.payload[8]);
    let said = || render_message(&dns::decode(datagram.payload).unwrap());
    (from.port() == Protocol::Mdns.ports()[0])
        .then(|| format!("mDNS {from} -> {to} ttl={ttl} {}", said()))
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

/// Whether a message is about one name's address and nothing else.
fn is_one_address(message: &dns::Message) -> bool {
    let questions = message.questions.iter().map(|question| question.kind);
    let answers = message.answers.iter().map(|answer| answer.kind);
    let rest = message.authority.len() + message.additional.len();
    let plain = message.answers.iter().all(|answer| !answer.flush);
    rest == 0 && plain && questions.chain(answers).eq([dns::TYPE_A])
}

fn render_one_address(message: &[u8]) -> String {
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

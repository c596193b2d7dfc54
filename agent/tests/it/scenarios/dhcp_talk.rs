//! What is said in DHCP, as a story has it, made and read by another implementation.
//!
//! ```text
//! dhcp KIND xid=1 [client=NAME] [broadcast] [hops=N] [secs=N] [ciaddr=A] [yiaddr=A] [giaddr=A] [requested=A] [server=A]
//!      [lease=S] [option82] [client-id=NAME] [bulk=N] [to=A] [port=68] [truncated]
//! ```
//!
//! `masked` is the number that a number of the client's is on the uplink, where that is another one; `xid=masked` in a reply
//! is the number last seen there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{self, DhcpOption, OptionCode, UnknownOption, relay};
use dhcproto::{Decodable, Decoder, Encodable};
use footbridge_agent::addr::MacAddr;
use footbridge_agent::engine::{DhcpMode, DhcpReport, Settings, Way};
use footbridge_agent::wire::ethernet::Frame;
use footbridge_agent::wire::udp;

use super::script::{Names, parse};

/// Numbers of stories are small; what is not is masked.
const LARGEST_XID: u32 = 0xffff;

thread_local! {
    /// The masked number last sent.
    static MASKED: Cell<u32> = const { Cell::new(0) };
}

/// Returns the settings that a line gives.
pub(super) fn settings(rest: &str) -> Settings {
    let mut settings = Settings::new("wlan0", "eth0");
    for word in rest.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("mode", mode) => settings.dhcp.mode = parse_mode(mode),
            ("max-hops", hops) => settings.dhcp.max_hops = parse(hops),
            ("trust-option-82", _) => settings.dhcp.trust_option_82 = true,
            ("circuit-id", id) => settings.dhcp.circuit_id = id.to_owned(),
            other => panic!("no such setting: {other:?}"),
        }
    }
    settings
}

fn parse_mode(word: &str) -> DhcpMode {
    match word {
        "auto" => DhcpMode::Auto,
        "relay" => DhcpMode::Relay,
        "broadcast" => DhcpMode::Broadcast,
        "clone" => DhcpMode::Clone,
        other => panic!("no such mode: {other}"),
    }
}

/// Returns how DHCP crosses, in words.
pub(super) fn describe(report: &DhcpReport) -> String {
    let way = |way: Way| format!("{way:?}").to_lowercase();
    let remembered = report.remembered.map_or("nothing".to_owned(), way);
    let servers = report.servers.iter();
    let servers: Vec<String> = servers
        .map(|server| format!("{} by {}", server.ip, way(server.way)))
        .collect();
    format!(
        "mode={:?} remembered={remembered} servers: {}",
        report.mode,
        servers.join(", ")
    )
}

/// Returns the frame that a line says a station sends.
pub(super) fn frame(names: &Names, us: &str, from: MacAddr, words: &[&str]) -> Vec<u8> {
    let given: BTreeMap<&str, &str> = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .collect();
    let reply = matches!(words[0], "offer" | "ack" | "nak");
    let client = given.get("client").map_or(from, |name| names.mac_of(name));
    let mut message = message(names, words, &given, client).to_vec().unwrap();
    if words.contains(&"truncated") {
        message.truncate(message.len() - 3);
    }
    let address =
        |key: &str, otherwise: Ipv4Addr| given.get(key).map_or(otherwise, |address| parse(address));
    let to = address("to", Ipv4Addr::BROADCAST);
    let to_mac = if to.is_broadcast() {
        MacAddr::broadcast()
    } else {
        names.mac_of(us)
    };
    let port = given.get("port").map_or(67, |port| parse(port));
    let from_ip = match reply {
        true => SocketAddrV4::new(address("server", Ipv4Addr::new(10, 0, 0, 1)), 67),
        false => SocketAddrV4::new(address("ciaddr", Ipv4Addr::UNSPECIFIED), 68),
    };
    let to = (to_mac, SocketAddrV4::new(to, port));
    udp::encode((from, from_ip), to, &message).unwrap()
}

fn message(
    names: &Names,
    words: &[&str],
    given: &BTreeMap<&str, &str>,
    client: MacAddr,
) -> v4::Message {
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
    let xid = match given.get("xid") {
        Some(&"masked") => MASKED.get(),
        Some(xid) => parse(xid),
        None => 1,
    };
    let mut message = v4::Message::default();
    message
        .set_opcode(op)
        .set_xid(xid)
        .set_hops(given.get("hops").map_or(0, |hops| parse(hops)))
        .set_secs(given.get("secs").map_or(0, |secs| parse(secs)))
        .set_ciaddr(address("ciaddr"))
        .set_yiaddr(address("yiaddr"))
        .set_giaddr(address("giaddr"))
        .set_chaddr(&client.octets());
    if words.contains(&"broadcast") {
        message.set_flags(v4::Flags::default().set_broadcast());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    add_options(options, names, words, given);
    message
}

fn add_options(
    options: &mut v4::DhcpOptions,
    names: &Names,
    words: &[&str],
    given: &BTreeMap<&str, &str>,
) {
    if let Some(seconds) = given.get("lease") {
        options.insert(DhcpOption::AddressLeaseTime(parse(seconds)));
    }
    if let Some(server) = given.get("server") {
        options.insert(DhcpOption::ServerIdentifier(parse(server)));
    }
    if let Some(requested) = given.get("requested") {
        options.insert(DhcpOption::RequestedIpAddress(parse(requested)));
    }
    if let Some(name) = given.get("client-id") {
        let mac = names.mac_of(name).octets();
        let identifier = [1].into_iter().chain(mac).collect();
        options.insert(DhcpOption::ClientIdentifier(identifier));
    }
    if let Some(bytes) = given.get("bulk") {
        let bulk = UnknownOption::new(OptionCode::from(224), vec![7; parse(bytes)]);
        options.insert(DhcpOption::Unknown(bulk));
    }
    let circuit = given.get("option82").map(|id| id.as_bytes().to_vec());
    if let Some(circuit) = circuit.or_else(|| words.contains(&"option82").then(|| vec![1])) {
        let mut information = relay::RelayAgentInformation::default();
        information.insert(relay::RelayInfo::AgentCircuitId(circuit));
        options.insert(DhcpOption::RelayAgentInformation(information));
    }
}

/// Returns what a frame says.
pub(super) fn render(frame: &Frame<'_>, names: &Names) -> String {
    let datagram = udp::decode(frame).unwrap();
    let message = v4::Message::decode(&mut Decoder::new(datagram.payload)).unwrap();
    let xid = match message.xid() {
        xid if xid > LARGEST_XID => {
            MASKED.set(xid);
            "masked".to_owned()
        }
        xid => xid.to_string(),
    };
    let kind = message.opts().msg_type().unwrap();
    let mut said = format!(
        "dhcp {kind:?} {} -> {} xid={xid} hops={} giaddr={} yiaddr={}",
        datagram.source,
        datagram.destination,
        message.hops(),
        message.giaddr(),
        message.yiaddr(),
    );
    if message.flags().broadcast() {
        said.push_str(" broadcast");
    }
    said.push_str(&render_client(frame, &message, names));
    format!("{said} ({} octets)", datagram.payload.len())
}

/// Returns who the client is, where frame and message do not agree or more is said of it.
fn render_client(frame: &Frame<'_>, message: &v4::Message, names: &Names) -> String {
    let mac = |bytes: &[u8]| match *bytes {
        [a, b, c, d, e, f, ..] => names.name_of(MacAddr(a, b, c, d, e, f)),
        _ => format!("{bytes:?}"),
    };
    let mut said = String::new();
    let ours = names.mac_of("us-uplink").octets();
    if message.chaddr().starts_with(&ours) && frame.source.octets() == ours {
        said.push_str(" client=us-uplink");
    }
    if let Some(DhcpOption::ClientIdentifier(id)) = message.opts().get(OptionCode::ClientIdentifier)
    {
        said.push_str(&format!(" client-id={}", mac(&id[1..])));
    }
    let information = message.opts().get(OptionCode::RelayAgentInformation);
    if let Some(DhcpOption::RelayAgentInformation(information)) = information {
        let circuit = information.get(relay::RelayCode::AgentCircuitId);
        if let Some(relay::RelayInfo::AgentCircuitId(id)) = circuit {
            said.push_str(&format!(" circuit={}", id.escape_ascii()));
        }
    }
    said
}

//! Translates between route netlink messages and the engine's terms; pure, so that the tests need no kernel.
//!
//! Our addresses, routes and neighbours carry one protocol number (`IFA_PROTO`, `rtm_protocol`, `NDA_PROTOCOL`), which tells
//! them from everybody else's, also after a kill. What the engine is not to see (other families, tables and route types,
//! neighbours that are not ours) becomes `None` here.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_core::NLM_F_REPLACE;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::addr::{IfIndex, MacAddr};
use crate::engine::{Address, KernelEvent, Link, Route};

/// Our protocol number. Free in the registry of rtnetlink.h (the highest taken one is 192) and in iproute2's rt_protos.
pub(crate) const PROTOCOL: u8 = 0xfb;

/// Decodes a notification and the flags of its header; `None` if it is about something the engine is not to see.
pub(crate) fn decode_event(message: &RouteNetlinkMessage, flags: u16) -> Option<KernelEvent> {
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            decode_link(link).map(|(index, link)| KernelEvent::Link(index, link))
        }
        RouteNetlinkMessage::DelLink(link) => {
            decode_link(link).map(|(index, _)| KernelEvent::LinkGone(index))
        }
        RouteNetlinkMessage::NewAddress(address) => {
            decode_address(address).map(KernelEvent::AddressAdded)
        }
        RouteNetlinkMessage::DelAddress(address) => {
            decode_address(address).map(KernelEvent::AddressRemoved)
        }
        RouteNetlinkMessage::NewRoute(route) if flags & NLM_F_REPLACE != 0 => {
            let replaced = decode_route(route).map(KernelEvent::RouteReplaced);
            replaced.or_else(|| decode_displacement(route).map(KernelEvent::HostRouteDisplaced))
        }
        RouteNetlinkMessage::NewRoute(route) => decode_route(route).map(KernelEvent::RouteAdded),
        RouteNetlinkMessage::DelRoute(route) => decode_route(route).map(KernelEvent::RouteRemoved),
        RouteNetlinkMessage::NewNeighbour(entry) => {
            decode_neighbour(entry).map(|(index, host, mac)| match mac {
                Some(mac) => KernelEvent::NeighbourSet(index, host, mac),
                None => KernelEvent::NeighbourRemoved(index, host),
            })
        }
        RouteNetlinkMessage::DelNeighbour(entry) => decode_neighbour(entry)
            .map(|(index, host, _)| KernelEvent::NeighbourRemoved(index, host)),
        _ => None,
    }
}

/// Decodes an interface.
pub(crate) fn decode_link(message: &LinkMessage) -> Option<(IfIndex, Link)> {
    // A bridge speaks of its ports under its own family, also when a port leaves it: that is not the interface's end.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => mac_from(bytes),
            _ => None,
        });
    let flags = message.header.flags;
    let link = Link {
        name,
        mac: mac.filter(|_| message.header.link_layer_type == LinkLayerType::Ether),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp | LinkFlags::Running),
    };
    Some((IfIndex(message.header.index), link))
}

/// Decodes an IPv4 address.
pub(crate) fn decode_address(message: &AddressMessage) -> Option<Address> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let mut address = None;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => address = Some(*local),
            AddressAttribute::Protocol(protocol) => {
                ours = *protocol == AddressProtocol::Other(PROTOCOL)
            }
            _ => {}
        }
    }
    Some(Address {
        index: IfIndex(message.header.index),
        address: address?,
        prefix: message.header.prefix_len,
        ours,
    })
}

/// Decodes an IPv4 unicast route of the main table that is a default route or ours.
pub(crate) fn decode_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let ours = header.protocol == RouteProtocol::Other(PROTOCOL);
    let wanted = header.address_family == AddressFamily::Inet
        && header.kind == RouteType::Unicast
        && (ours || header.destination_prefix_length == 0);
    if !wanted {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut index = None;
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut metric = 0;
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Oif(oif) => index = Some(IfIndex(*oif)),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            _ => {}
        }
    }
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(Route {
        index: index?,
        destination: (destination, header.destination_prefix_length),
        metric,
        gateway,
        ours,
    })
}

/// Decodes the host to which somebody else's route, of whatever type, took the place of one: of the main table and the metric that
/// ours have.
fn decode_displacement(message: &RouteMessage) -> Option<Ipv4Addr> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut host = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => host = Some(*address),
            _ => {}
        }
    }
    let like_ours = header.destination_prefix_length == 32
        && header.tos == 0
        && metric == 0
        && table == u32::from(RouteHeader::RT_TABLE_MAIN);
    host.filter(|_| like_ours)
}

/// Decodes an IPv4 neighbour of ours; no hardware address if the entry is of no use, whatever it still carries.
pub(crate) fn decode_neighbour(
    message: &NeighbourMessage,
) -> Option<(IfIndex, Ipv4Addr, Option<MacAddr>)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let mut host = None;
    let mut mac = None;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                host = Some(*address)
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = mac_from(bytes),
            NeighbourAttribute::Protocol(protocol) => {
                ours = *protocol == RouteProtocol::Other(PROTOCOL)
            }
            _ => {}
        }
    }
    let useless = matches!(
        message.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed
    );
    let host = host.filter(|_| ours)?;
    Some((
        IfIndex(message.header.ifindex),
        host,
        mac.filter(|_| !useless),
    ))
}

/// Encodes our `address`/32, which brings no prefix route along.
pub(crate) fn encode_address(index: IfIndex, address: Ipv4Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = index.0;
    message.attributes = vec![
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
        AddressAttribute::Flags(AddressFlags::Noprefixroute),
        AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)),
    ];
    message
}

/// Encodes our link-scope route to `host`/32; no source where it does not matter, as when it is removed.
pub(crate) fn encode_route(
    index: IfIndex,
    host: Ipv4Addr,
    source: Option<Ipv4Addr>,
) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(host)),
        RouteAttribute::Oif(index.0),
    ];
    if let Some(source) = source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
    }
    message
}

/// Encodes our neighbour entry; no hardware address when it is removed. It is permanent because the kernel lets any ARP packet
/// change the address of another, verified or not.
pub(crate) fn encode_neighbour(
    index: IfIndex,
    host: Ipv4Addr,
    mac: Option<MacAddr>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index.0;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(
        host,
    ))];
    if let Some(mac) = mac {
        message.attributes.extend([
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
            NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ]);
    }
    message
}

fn mac_from(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
    const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    #[test]
    fn the_mark_is_nobody_elses() {
        // A number `rtnetlink` has a name for decodes as that name.
        assert_eq!(
            RouteProtocol::from(PROTOCOL),
            RouteProtocol::Other(PROTOCOL)
        );
        assert_eq!(
            AddressProtocol::from(PROTOCOL),
            AddressProtocol::Other(PROTOCOL)
        );
    }

    #[test]
    fn what_we_add_is_recognised_as_ours() {
        assert_eq!(
            decode_address(&encode_address(IfIndex(3), BOX)),
            Some(Address {
                index: IfIndex(3),
                address: BOX,
                prefix: 32,
                ours: true
            })
        );
        assert_eq!(
            decode_route(&encode_route(IfIndex(3), HOST, Some(BOX))),
            Some(Route {
                index: IfIndex(3),
                destination: (HOST, 32),
                metric: 0,
                gateway: None,
                ours: true
            })
        );
        assert_eq!(
            decode_neighbour(&encode_neighbour(IfIndex(3), HOST, Some(MAC))),
            Some((IfIndex(3), HOST, Some(MAC)))
        );
    }

    #[test]
    fn a_spoofed_packet_does_not_move_our_neighbour_entry() {
        let entry = encode_neighbour(IfIndex(3), HOST, Some(MAC));
        assert_eq!(entry.header.state, NeighbourState::Permanent);
    }

    #[test]
    fn routes_that_are_neither_default_nor_ours_are_not_seen() {
        let ours = encode_route(IfIndex(3), HOST, None);
        let with = |change: fn(&mut RouteMessage)| {
            let mut message = ours.clone();
            change(&mut message);
            decode_route(&message).is_some()
        };
        type Edit = fn(&mut RouteMessage);
        let cases: [(&str, bool, Edit); 6] = [
            ("ours", true, |_| {}),
            ("another's host route", false, |m| {
                m.header.protocol = RouteProtocol::Static
            }),
            ("default route", true, |m| {
                m.header.protocol = RouteProtocol::Dhcp;
                m.header.destination_prefix_length = 0;
            }),
            ("local", false, |m| m.header.kind = RouteType::Local),
            ("another table", false, |m| {
                m.attributes.push(RouteAttribute::Table(1000))
            }),
            ("IPv6", false, |m| {
                m.header.address_family = AddressFamily::Inet6
            }),
        ];
        for (name, seen, change) in cases {
            assert_eq!(with(change), seen, "{name}");
        }
    }

    #[test]
    fn a_default_route_has_its_gateway_and_metric() {
        let mut message = encode_route(IfIndex(3), BOX, None);
        message.header.destination_prefix_length = 0;
        message.attributes = vec![
            RouteAttribute::Oif(3),
            RouteAttribute::Priority(1024),
            RouteAttribute::Gateway(RouteAddress::Inet(BOX)),
        ];
        let route = decode_route(&message).unwrap();
        assert_eq!((route.metric, route.gateway), (1024, Some(BOX)));
    }

    #[test]
    fn a_failed_neighbour_is_a_removed_one_and_a_foreign_one_is_not_seen() {
        let mut failed = encode_neighbour(IfIndex(3), HOST, Some(MAC));
        failed.header.state = NeighbourState::Failed;
        assert_eq!(
            decode_event(&RouteNetlinkMessage::NewNeighbour(failed), 0),
            Some(KernelEvent::NeighbourRemoved(IfIndex(3), HOST))
        );
        let mut foreign = encode_neighbour(IfIndex(3), HOST, Some(MAC));
        foreign.attributes.pop();
        assert_eq!(
            decode_event(&RouteNetlinkMessage::NewNeighbour(foreign), 0),
            None
        );
    }

    #[test]
    fn a_port_leaving_a_bridge_is_not_the_end_of_the_interface() {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        message
            .attributes
            .push(LinkAttribute::IfName("eth0".to_owned()));
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(
            decode_event(&RouteNetlinkMessage::DelLink(message.clone()), 0),
            None
        );
        message.header.interface_family = AddressFamily::Unspec;
        assert_eq!(
            decode_event(&RouteNetlinkMessage::DelLink(message), 0),
            Some(KernelEvent::LinkGone(IfIndex(3)))
        );
    }

    #[test]
    fn anothers_route_that_replaces_one_to_a_host_displaces_it() {
        let mut message = encode_route(IfIndex(3), HOST, None);
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::BlackHole;
        message.attributes.truncate(1);
        let told = |message: &RouteMessage, flags| {
            decode_event(&RouteNetlinkMessage::NewRoute(message.clone()), flags)
        };
        let displaced = Some(KernelEvent::HostRouteDisplaced(HOST));
        assert_eq!(told(&message, NLM_F_REPLACE), displaced);
        assert_eq!(told(&message, 0), None);
        message.attributes.push(RouteAttribute::Priority(1));
        assert_eq!(told(&message, NLM_F_REPLACE), None);
        message.attributes[1] = RouteAttribute::Table(1000);
        assert_eq!(told(&message, NLM_F_REPLACE), None);
    }
}

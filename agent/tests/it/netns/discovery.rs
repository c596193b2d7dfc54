//! Discovery across the bridge with plain sockets: questions to groups and broadcasts, and their answers, which come back by
//! the routed path because the asker's address stays (M4).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::{Domain, Socket, Type};

use super::in_namespace;
use super::namespace::Namespace;
use super::rig::{Agent, PATIENCE, PRINTER, ROUTER, Rig};

const UPNP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const NETWORK: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 255);

/// One end of a conversation.
struct Speaker(UdpSocket);

impl Speaker {
    /// A socket of the host with the address; port 0 is any. It is a member of `group`, if that is one.
    fn new(place: &Namespace, address: &str, port: u16, group: Ipv4Addr) -> Speaker {
        let address: Ipv4Addr = address.parse().unwrap();
        Speaker(place.inside(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            socket.bind(&any.into()).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_multicast_if_v4(&address).unwrap();
            socket.set_multicast_ttl_v4(2).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            if group.is_multicast() {
                socket.join_multicast_v4(&group, &address).unwrap();
            }
            socket.into()
        }))
    }

    fn say(&self, what: &[u8], to: SocketAddr) {
        assert_eq!(self.0.send_to(what, to).unwrap(), what.len());
    }

    /// Waits for a message, and returns who sent it.
    fn hear(&self, what: &[u8]) -> SocketAddr {
        let mut buffer = [0; 9000];
        let (length, from) = self.0.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], *what);
        from
    }
}

/// The client on the wire with a fixed address, of which the agent has not heard.
fn bridge_with_a_silent_client(rig: &mut Rig) -> Agent {
    rig.make_client_a_printer();
    rig.start_bridging()
}

/// Has one ask everybody, and the other answer it; once.
fn round_trip(
    (asker, asker_address): (&Namespace, &str),
    (other, other_address): (&Namespace, &str),
    (to, port): (Ipv4Addr, u16),
    question: &[u8],
) {
    let answerer = Speaker::new(other, other_address, port, to);
    let asker = Speaker::new(asker, asker_address, 0, Ipv4Addr::UNSPECIFIED);
    asker.say(question, SocketAddrV4::new(to, port).into());
    let from = answerer.hear(question);
    assert_eq!(from.ip().to_string(), asker_address);
    answerer.say(b"here", from);
    assert_eq!(asker.hear(b"here").ip().to_string(), other_address);
}

#[test]
fn m4_an_ssdp_search_is_answered_across_the_bridge() {
    in_namespace(|rig| {
        let _agent = bridge_with_a_silent_client(rig);
        let (wired, uplink) = ((&rig.client, PRINTER), (&rig.router, ROUTER));
        let search = b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nST: ssdp:all\r\n\r\n";
        round_trip(wired, uplink, (UPNP, 1900), search);
        round_trip(uplink, wired, (UPNP, 1900), search);
    });
}

#[test]
fn m4_a_ws_discovery_probe_is_answered_across_the_bridge() {
    in_namespace(|rig| {
        let _agent = bridge_with_a_silent_client(rig);
        let (wired, uplink) = ((&rig.client, PRINTER), (&rig.router, ROUTER));
        round_trip(wired, uplink, (UPNP, 3702), b"<Probe/>");
        // M5: longer than a frame, so it comes in fragments.
        round_trip(uplink, wired, (UPNP, 3702), &[b'x'; 4000]);
        round_trip(wired, uplink, (UPNP, 3702), &[b'y'; 4000]);
    });
}

#[test]
fn m4_a_netbios_name_query_is_answered_across_the_bridge() {
    in_namespace(|rig| {
        let _agent = bridge_with_a_silent_client(rig);
        let (wired, uplink) = ((&rig.client, PRINTER), (&rig.router, ROUTER));
        round_trip(wired, uplink, (NETWORK, 137), b"who is WORKGROUP?");
        round_trip(uplink, wired, (NETWORK, 137), b"who is PRINTER?");
        round_trip(uplink, wired, (NETWORK, 138), b"a datagram");
    });
}

#[test]
fn m4_a_magic_packet_crosses_to_a_host_that_answers_nothing() {
    in_namespace(|rig| {
        let _agent = bridge_with_a_silent_client(rig);
        let mac = [2, 0, 0, 0, 0, 4];
        let magic = [&[0xff; 6][..], &mac.repeat(16)].concat();
        let sleeper = Speaker::new(&rig.client, PRINTER, 9, NETWORK);
        let waker = Speaker::new(&rig.router, ROUTER, 0, NETWORK);
        // What is no magic packet does not cross.
        waker.say(b"no magic", SocketAddrV4::new(NETWORK, 9).into());
        waker.say(&magic, SocketAddrV4::new(NETWORK, 9).into());
        let from = sleeper.hear(&magic);
        assert_eq!(from.ip().to_string(), ROUTER);
    });
}

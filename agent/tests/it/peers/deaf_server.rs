//! A DHCP server that does not hear relays, as some routers' do: a request with giaddr is as if it had not been sent, and
//! whoever has no address is answered by broadcast.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use socket2::{Domain, Socket, Type};

use crate::netns::namespace::Namespace;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const FIRST: u8 = 100;

/// Starts the server; it ends with the test's process.
pub(super) fn start(router: &Namespace) {
    let socket = router.inside(open_socket);
    std::thread::spawn(move || serve(&socket));
}

fn open_socket() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    // Without a route to everybody, broadcasts need to be told their interface.
    socket.bind_device(Some(b"r0")).unwrap();
    socket.set_broadcast(true).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67);
    socket.bind(&address.into()).unwrap();
    socket.into()
}

fn serve(socket: &UdpSocket) {
    let mut leases: BTreeMap<Vec<u8>, Ipv4Addr> = BTreeMap::new();
    let mut buffer = [0; 1500];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let Ok(request) = Message::decode(&mut Decoder::new(&buffer[..length])) else {
            continue;
        };
        if !request.giaddr().is_unspecified() {
            continue;
        }
        let next = FIRST + u8::try_from(leases.len()).unwrap();
        let client = request.chaddr().to_vec();
        let address = *leases
            .entry(client)
            .or_insert(Ipv4Addr::new(192, 168, 77, next));
        let Some(reply) = answer(&request, address) else {
            continue;
        };
        let to = match request.ciaddr() {
            nobody if nobody.is_unspecified() => Ipv4Addr::BROADCAST,
            client => client,
        };
        let bytes = reply.to_vec().unwrap();
        let _ = socket.send_to(&bytes, SocketAddrV4::new(to, 68));
    }
}

fn answer(request: &Message, address: Ipv4Addr) -> Option<Message> {
    let wanted = match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(wanted)) => *wanted,
        _ => request.ciaddr(),
    };
    let kind = match request.opts().msg_type()? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if wanted == address => MessageType::Ack,
        MessageType::Request => MessageType::Nak,
        _ => return None,
    };
    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid())
        .set_flags(request.flags())
        .set_chaddr(request.chaddr());
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    if kind != MessageType::Nak {
        options.insert(DhcpOption::AddressLeaseTime(3600));
        options.insert(DhcpOption::Renewal(3));
        options.insert(DhcpOption::Rebinding(3000));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::Router(vec![SERVER]));
        reply.set_yiaddr(address);
    }
    Some(reply)
}

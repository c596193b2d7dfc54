//! A DHCP server that does not hear relays, as some routers' do: a request with giaddr is as if it had not been sent, and
//! whoever has no address is answered by broadcast.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use socket2::{Domain, Socket, Type};

use crate::netns::rig::Namespace;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const FIRST: u8 = 100;

/// Starts the server; it ends with the test's process.
pub(super) fn start(router: &Namespace) {
    let namespace = format!("/proc/{}/ns/net", router.pid());
    let bound = std::thread::spawn(move || socket_in(&namespace)).join();
    let socket = bound.unwrap();
    std::thread::spawn(move || serve(&socket));
}

/// Opens the server's socket. The thread that does so is in the namespace from then on, which is why it has to end.
#[expect(unsafe_code, reason = "no safe wrapper changes a thread's namespace")]
fn socket_in(namespace: &str) -> UdpSocket {
    let namespace = File::open(namespace).unwrap();
    // SAFETY: the call takes no pointers, and the descriptor is open until after it.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
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

//! A packet socket on one interface: ARP, DHCP and discovery in, complete Ethernet frames out (packet(7)).
//!
//! The kernel filters (`socket_filter`). The socket is created for protocol 0, so that no frame is queued before filter and
//! interface are in place. Memberships belong to the sockets: the kernel takes them back when the process ends, however it
//! ends. Of a group there are two (M1): the packet socket's, by which the card hears its frames, and that of an ordinary UDP
//! socket, by which the kernel says on the wire that somebody listens (IGMP); switches and access points that watch for that
//! send the group's frames nowhere else. The UDP socket is never bound, so nothing is ever delivered to it.
//!
//! An interface that goes down or away is not an error here; netlink tells the engine.

use std::collections::BTreeSet;
use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tracing::warn;

use super::socket_filter::filter;
use super::socket_option::set_option;
use crate::addr::IfIndex;
use crate::wire::discovery::{self, group_mac};

/// The largest frame handed on. All that is meant for us fits a 1500-byte MTU; a longer frame is cut short by the kernel and
/// dropped.
pub(crate) const FRAME_LIMIT: usize = 2048;

/// An open packet socket.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: AsyncFd<Socket>,
    /// Holds the memberships that are told on the wire.
    _groups: Option<Socket>,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame of this many bytes.
    Frame(usize),
    /// A frame too long to be meant for us.
    Oversized,
    /// The interface went down or away.
    LinkGone,
    /// Nothing is waiting.
    Nothing,
}

impl PacketSocket {
    /// Opens a socket on an interface that hears the discovery protocols as well.
    pub(crate) fn open(
        index: IfIndex,
        promiscuous: bool,
        protocols: &BTreeSet<discovery::Protocol>,
    ) -> io::Result<PacketSocket> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&filter(protocols))?;
        ignore_outgoing(socket.as_raw_fd())?;
        bind_to_interface(socket.as_raw_fd(), index, libc::ETH_P_ALL)?;
        if promiscuous {
            add_membership(socket.as_raw_fd(), index, libc::PACKET_MR_PROMISC, None)?;
        }
        let groups: BTreeSet<Ipv4Addr> = protocols.iter().filter_map(|p| p.group()).collect();
        for &group in &groups {
            let kind = libc::PACKET_MR_MULTICAST;
            add_membership(socket.as_raw_fd(), index, kind, Some(group))?;
        }
        let groups = (!groups.is_empty())
            .then(|| join(&groups, index))
            .transpose()?;
        let socket = register(socket)?;
        Ok(PacketSocket {
            socket,
            _groups: groups,
        })
    }

    /// Waits until there is something to receive.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.socket.readable().await
    }

    /// Receives one frame without waiting.
    pub(crate) fn receive(&self, buffer: &mut [u8; FRAME_LIMIT]) -> io::Result<Received> {
        let read = self.socket.try_io(Interest::READABLE, |mut socket| {
            io::Read::read(&mut socket, buffer)
        });
        match read {
            Ok(FRAME_LIMIT) => Ok(Received::Oversized),
            Ok(length) => Ok(Received::Frame(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if is_link_gone(&error) => Ok(Received::LinkGone),
            Err(error) => Err(error),
        }
    }

    /// Sends a complete frame. A full queue is an error like any other: the caller drops the frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(frame).map(drop)
    }
}

/// Whether an error says that the interface is down, or does not exist (any more).
pub(crate) fn is_link_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO)
    )
}

#[expect(
    unsafe_code,
    reason = "the runtime takes the word of its caller for it"
)]
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns one open descriptor from creation to drop and always gives the same number, and the `AsyncFd`
    // owns the `Socket`, which nothing takes out again.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "no safe wrapper takes a link-layer address")]
pub(super) fn bind_to_interface(socket: RawFd, index: IfIndex, protocol: i32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index.0.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and its size is the one given.
    let result = unsafe {
        libc::bind(
            socket,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Joins the groups on the interface as far as the kernel lets us: discovery is no reason not to bridge.
fn join(groups: &BTreeSet<Ipv4Addr>, index: IfIndex) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    for group in groups {
        let interface = InterfaceIndexOrAddress::Index(index.0);
        if let Err(error) = socket.join_multicast_v4_n(group, &interface) {
            warn!(%index, %group, %error, "a multicast group was not joined");
        }
    }
    Ok(socket)
}

/// Spares the kernel a copy of every frame that leaves through the interface, forwarded ones among them, just for the filter to
/// drop it. Before Linux 4.20 there is no such option, and the filter alone does it.
pub(super) fn ignore_outgoing(socket: RawFd) -> io::Result<()> {
    /// Of linux/if_packet.h.
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let on: libc::c_int = 1;
    match set_option(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, on) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

fn add_membership(
    socket: RawFd,
    index: IfIndex,
    kind: libc::c_int,
    group: Option<Ipv4Addr>,
) -> io::Result<()> {
    let octets = group.map(|group| group_mac(group).octets());
    let mut address = [0; 8];
    if let Some(octets) = octets {
        address[..octets.len()].copy_from_slice(&octets);
    }
    let membership = libc::packet_mreq {
        mr_ifindex: index.0.cast_signed(),
        mr_type: kind as u16,
        mr_alen: octets.map_or(0, |octets| octets.len() as u16),
        mr_address: address,
    };
    let name = libc::PACKET_ADD_MEMBERSHIP;
    set_option(socket, libc::SOL_PACKET, name, membership)
}

//! A packet socket, to say on a wire what no network stack would.

use std::ffi::CString;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;

/// Opens a packet socket on an interface of a namespace; it sends, and hears nothing.
pub(super) fn open(namespace: &Namespace, interface: &str) -> Socket {
    open_with_protocol(namespace, interface, 0)
}

/// Opens one that hears the ARP packets which arrive there, whoever they are for.
pub(super) fn open_for_arp(namespace: &Namespace, interface: &str) -> Socket {
    open_with_protocol(namespace, interface, libc::ETH_P_ARP as u16)
}

#[expect(unsafe_code, reason = "no safe wrapper takes a link-layer address")]
fn open_with_protocol(namespace: &Namespace, interface: &str, protocol: u16) -> Socket {
    namespace.inside(|| {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
        let name = CString::new(interface).unwrap();
        // SAFETY: the name is a whole C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "{}", std::io::Error::last_os_error());
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and its size is the one given.
        let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        socket
    })
}

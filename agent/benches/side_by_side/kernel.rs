//! The few calls into the kernel that have no safe wrapper among our dependencies: entering network namespaces, and packet
//! sockets bound to an interface.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

/// Moves the calling thread into a network namespace of its own.
#[expect(unsafe_code, reason = "no safe wrapper among our dependencies")]
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: the call takes a number and changes nothing but the thread's namespace.
    succeeded(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Moves the calling thread into the network namespace of an open `/proc/.../ns/net`.
#[expect(unsafe_code, reason = "no safe wrapper among our dependencies")]
pub(crate) fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as the borrow, and nothing but the thread's namespace changes.
    succeeded(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Opens a packet socket on an interface of the calling thread's namespace. `protocol` is an EtherType or `ETH_P_ALL`.
#[expect(unsafe_code, reason = "no safe wrapper takes a link-layer address")]
pub(crate) fn packet_socket(interface: &str, protocol: libc::c_int) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let name = CString::new(interface)?;
    // SAFETY: `name` is a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and its size is the one given.
    succeeded(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

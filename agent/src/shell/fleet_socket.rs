//! The TCP port at which the device tells how it is (`engine::STATUS_PORT`), at the uplink's address and on the uplink alone.
//!
//! Both ports carry that address. Bound to one interface, the socket is not there for connections that come in at the other: the
//! kernel refuses those as it refuses any port that nobody has. Who of the others is told is for the engine to say; nothing that
//! they send is read.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::socket_option::set_option;
use crate::addr::IfIndex;
use crate::engine::STATUS_PORT;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 16;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct FleetSocket(TcpListener);

impl FleetSocket {
    /// Listens at an interface's address.
    pub(crate) fn open(index: IfIndex, address: Ipv4Addr) -> io::Result<FleetSocket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Clients of a moment ago do not keep the next agent from listening.
        socket.set_reuse_address(true)?;
        let index = libc::c_int::try_from(index.0).map_err(io::Error::other)?;
        let fd = socket.as_raw_fd();
        set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index)?;
        // The address may be gone for a moment and back before anybody tells.
        socket.set_freebind_v4(true)?;
        socket.bind(&SocketAddrV4::new(address, STATUS_PORT).into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(FleetSocket)
    }

    /// Waits for a client, and returns its address with it.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, Ipv4Addr)> {
        let (client, from) = self.0.accept().await?;
        match from {
            SocketAddr::V4(from) => Ok((client, *from.ip())),
            SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

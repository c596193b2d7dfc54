//! Holds UDP port 67 without reading from it.
//!
//! A server answers a relayed request to the relay's address, port 67. The packet socket sees the answer, but so does the
//! kernel's UDP, which would return "port unreachable" to the server if nobody had the port. The socket here has it; a filter
//! drops everything before it is queued.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The held port.
#[derive(Debug)]
pub(crate) struct Port67 {
    _socket: Socket,
}

/// What came of trying to hold the port.
#[derive(Debug)]
pub(crate) enum Holding {
    /// It is held for as long as the value lives.
    Held(Port67),
    /// Another program has it.
    Taken,
}

/// Tries to hold the port. Any failure but a taken port is an error.
pub(crate) fn hold_port67() -> io::Result<Holding> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Return 0 bytes of every packet: BPF_RET | BPF_K.
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    match socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67).into()) {
        Ok(()) => Ok(Holding::Held(Port67 { _socket: socket })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Holding::Taken),
        Err(error) => Err(error),
    }
}

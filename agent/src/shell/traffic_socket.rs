//! Packet sockets that give glimpses of the IPv4 traffic the two interfaces receive for this machine (packet(7)): the headers of
//! a few frames now and then, never all.
//!
//! Their buffers are small and they are read ten times a second at most, so what they cost does not grow with the traffic: what
//! finds no room is dropped by the kernel for the price of a short filter. Losing frames is their way of sampling. Where they
//! cannot be opened, the bridge works without.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::packet_socket::{bind_to_interface, ignore_outgoing, register};
use crate::addr::{IfIndex, Side};
use crate::engine::Glimpse;
use crate::wire::ipv4::HEADERS;

/// Shortest time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// Most frames of a side in one look.
const MOST: usize = 32;
/// Room for about that many small frames.
const BUFFER: usize = 16 << 10;

/// The sockets of both sides.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sockets: BTreeMap<Side, AsyncFd<Socket>>,
    looked: Option<Instant>,
}

impl Traffic {
    /// Begins to look at an interface.
    pub(crate) fn open(&mut self, side: Side, index: IfIndex) {
        match open(index).and_then(register) {
            Ok(socket) => drop(self.sockets.insert(side, socket)),
            Err(error) => debug!(%side, %error, "traffic is not looked at"),
        }
    }

    /// Ends that.
    pub(crate) fn close(&mut self, side: Side) {
        self.sockets.remove(&side);
    }

    /// Waits until there is something to see and the last look is long enough ago.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        if let Some(looked) = self.looked {
            tokio::time::sleep_until((looked + INTERVAL).into()).await;
        }
        tokio::select! {
            ready = readable(self.sockets.get(&Side::Wired)) => ready,
            ready = readable(self.sockets.get(&Side::Uplink)) => ready,
        }
    }

    /// Returns what there is to see. That an interface is gone is for netlink to tell.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<Glimpse> {
        self.looked = Some(now);
        let mut glimpses = Vec::new();
        for (&side, socket) in &self.sockets {
            for _ in 0..MOST {
                let mut headers = [0; HEADERS];
                let read = |mut socket: &Socket| socket.read(&mut headers);
                match socket.try_io(Interest::READABLE, read) {
                    Ok(HEADERS) => glimpses.push(Glimpse { side, headers }),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
        glimpses
    }
}

async fn readable(socket: Option<&AsyncFd<Socket>>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await.map(drop),
        None => pending().await,
    }
}

fn open(index: IfIndex) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.attach_filter(&FILTER.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)))?;
    ignore_outgoing(socket.as_raw_fd())?;
    bind_to_interface(socket.as_raw_fd(), index, libc::ETH_P_IP)?;
    Ok(socket)
}

const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Start of the kernel's own fields (`SKF_AD_OFF`): packet type at 4, presence of a VLAN tag at 48.
const ANCILLARY: u32 = 0xffff_f000;

/// Passes the headers of untagged frames to this machine; jumps count from the next line.
const FILTER: [(u16, u8, u8, u32); 6] = [
    (LOAD_WORD, 0, 0, ANCILLARY + 4),
    (JUMP_EQUAL, 0, 3, libc::PACKET_HOST as u32),
    (LOAD_WORD, 0, 0, ANCILLARY + 48),
    (JUMP_EQUAL, 0, 1, 0),
    (RETURN, 0, 0, HEADERS as u32),
    (RETURN, 0, 0, 0),
];

//! A packet socket on one interface: ARP and DHCP in, complete Ethernet frames out (packet(7)).
//!
//! The kernel filters: only untagged ARP, and unfragmented IPv4 UDP to port 67 or 68, that arrived from outside. The socket is
//! created for protocol 0, so that no frame is queued before filter and interface are in place. Promiscuous membership
//! belongs to the socket: the kernel takes it back when the process ends, however it ends.
//!
//! An interface that goes down or away is not an error here; netlink tells the engine.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, RawFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::addr::IfIndex;

/// The largest frame handed on. ARP and DHCP fit a 1500-byte MTU; a longer frame is cut short by the kernel and dropped.
pub(crate) const FRAME_LIMIT: usize = 2048;

/// An open packet socket.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: AsyncFd<Socket>,
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
    /// Opens a socket on an interface.
    pub(crate) fn open(index: IfIndex, promiscuous: bool) -> io::Result<PacketSocket> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&FILTER.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)))?;
        bind_to_interface(socket.as_raw_fd(), index)?;
        if promiscuous {
            join_promiscuous(socket.as_raw_fd(), index)?;
        }
        let socket = register(socket)?;
        Ok(PacketSocket { socket })
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
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns one open descriptor from creation to drop and always gives the same number, and the `AsyncFd`
    // owns the `Socket`, which nothing takes out again.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "no safe wrapper takes a link-layer address")]
fn bind_to_interface(socket: RawFd, index: IfIndex) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
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

#[expect(unsafe_code, reason = "no safe wrapper knows packet memberships")]
fn join_promiscuous(socket: RawFd, index: IfIndex) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index.0.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: `membership` is a whole packet_mreq that outlives the call, and its size is the one given.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Start of the kernel's own fields (`SKF_AD_OFF`): packet type at 4, presence of a VLAN tag at 48.
const ANCILLARY: u32 = 0xffff_f000;

/// The filter, as (code, jump if true, jump if false, operand); jumps count from the next line.
const FILTER: [(u16, u8, u8, u32); 17] = [
    (LOAD_WORD, 0, 0, ANCILLARY + 4),
    (JUMP_EQUAL, 14, 0, libc::PACKET_OUTGOING as u32),
    (LOAD_WORD, 0, 0, ANCILLARY + 48),
    (JUMP_EQUAL, 0, 12, 0),
    (LOAD_HALF, 0, 0, 12),
    (JUMP_EQUAL, 9, 0, libc::ETH_P_ARP as u32),
    (JUMP_EQUAL, 0, 9, libc::ETH_P_IP as u32),
    (LOAD_BYTE, 0, 0, 23),
    (JUMP_EQUAL, 0, 7, libc::IPPROTO_UDP as u32),
    // More fragments, or an offset: the ports are not in this frame, or not all of the message is.
    (LOAD_HALF, 0, 0, 20),
    (JUMP_ANY_BIT, 5, 0, 0x3fff),
    (LOAD_X_HEADER_LENGTH, 0, 0, 14),
    (LOAD_HALF_INDEXED, 0, 0, 16),
    (JUMP_EQUAL, 1, 0, 67),
    (JUMP_EQUAL, 0, 1, 68),
    (RETURN, 0, 0, u32::MAX),
    (RETURN, 0, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter the way the kernel does and says whether the frame passes.
    fn passes(frame: &[u8], packet_type: u32, tagged: u32) -> bool {
        let half = |at: usize| {
            frame
                .get(at..at + 2)
                .map(|b| u32::from(b[0]) << 8 | u32::from(b[1]))
        };
        let (mut at, mut a, mut x) = (0, 0, 0);
        loop {
            let (code, jt, jf, k) = FILTER[at];
            at += 1;
            let mut jump = |taken: bool| at += usize::from(if taken { jt } else { jf });
            let loaded = match code {
                LOAD_WORD if k == ANCILLARY + 4 => Some(packet_type),
                LOAD_WORD => Some(tagged),
                LOAD_HALF => half(k as usize),
                LOAD_BYTE => frame.get(k as usize).copied().map(u32::from),
                LOAD_HALF_INDEXED => half(x + k as usize),
                LOAD_X_HEADER_LENGTH => {
                    x = 4 * usize::from(frame[k as usize] & 0xf);
                    Some(a)
                }
                JUMP_EQUAL => {
                    jump(a == k);
                    Some(a)
                }
                JUMP_ANY_BIT => {
                    jump(a & k != 0);
                    Some(a)
                }
                RETURN => return k != 0,
                other => panic!("unknown code {other:#x}"),
            };
            // A load past the end drops the frame.
            match loaded {
                Some(value) => a = value,
                None => return false,
            }
        }
    }

    fn frame(ethertype: u16, protocol: u8, fragment: u16, header_words: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ethertype.to_be_bytes());
        let mut ip = vec![0; 4 * usize::from(header_words)];
        ip[0] = 0x40 | header_words;
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[9] = protocol;
        frame.extend(ip);
        frame.extend([0, 9]);
        frame.extend(port.to_be_bytes());
        frame
    }

    #[test]
    fn the_filter_passes_arp_and_dhcp_from_outside_only() {
        const BROADCAST: u32 = 1;
        let dhcp = frame(0x0800, 17, 0, 5, 67);
        let cases = [
            ("arp", frame(0x0806, 0, 0, 5, 0), BROADCAST, 0, true),
            ("dhcp to a server", dhcp.clone(), BROADCAST, 0, true),
            ("dhcp to a client", frame(0x0800, 17, 0, 5, 68), 0, 0, true),
            (
                "dhcp, don't fragment",
                frame(0x0800, 17, 0x4000, 5, 67),
                0,
                0,
                true,
            ),
            (
                "dhcp behind IP options",
                frame(0x0800, 17, 0, 8, 67),
                0,
                0,
                true,
            ),
            ("dns", frame(0x0800, 17, 0, 5, 53), 0, 0, false),
            ("tcp to port 67", frame(0x0800, 6, 0, 5, 67), 0, 0, false),
            (
                "first fragment",
                frame(0x0800, 17, 0x2000, 5, 67),
                0,
                0,
                false,
            ),
            (
                "later fragment",
                frame(0x0800, 17, 0x0010, 5, 67),
                0,
                0,
                false,
            ),
            ("IPv6", frame(0x86dd, 17, 0, 5, 67), 0, 0, false),
            ("our own", dhcp.clone(), 4, 0, false),
            ("tagged", dhcp.clone(), BROADCAST, 1, false),
            ("cut short", dhcp[..30].to_vec(), BROADCAST, 0, false),
        ];
        for (name, frame, packet_type, tagged, expected) in cases {
            assert_eq!(passes(&frame, packet_type, tagged), expected, "{name}");
        }
    }
}

//! Frames nobody should send, a few thousand at a time: invented hosts, sweeps and garbage.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::rig::Namespace;

const FRAMES: u16 = 1500;

/// Floods the interface of a namespace with stations and addresses of a network that do not exist.
pub(super) fn flood(namespace: &Namespace, interface: &str, network: u8) {
    let socket = socket_in(namespace.pid(), interface);
    for number in 0..FRAMES {
        let [high, low] = number.to_be_bytes();
        let station = [2, 9, network, 0, high, low];
        // Hosts from .160 up, which are nobody's; each eighth frame is cut short.
        let host = [192, 168, network, 160 + (low % 90)];
        let target = [192, 168, network, 160 + (low.wrapping_mul(7) % 90)];
        let target = if number % 2 == 0 { host } else { target };
        let mut frame = [0xff; 6].to_vec();
        frame.extend(station);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(station);
        frame.extend(host);
        frame.extend([0; 6]);
        frame.extend(target);
        if number % 8 == 7 {
            frame.truncate(14 + usize::from(low % 28));
        }
        // A full queue, or an interface that just went down, takes what it takes.
        let _ = socket.send(&frame);
    }
}

/// Opens a packet socket on an interface of another namespace, where it stays.
fn socket_in(holder: u32, interface: &str) -> Socket {
    let namespace = File::open(format!("/proc/{holder}/ns/net")).unwrap();
    let interface = CString::new(interface).unwrap();
    let opened = std::thread::spawn(move || open(&namespace, &interface));
    opened.join().unwrap()
}

#[expect(unsafe_code, reason = "no safe wrapper among our dependencies")]
fn open(namespace: &File, interface: &CString) -> Socket {
    // SAFETY: the descriptor is open, and only this thread, which ends soon, changes its namespace.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    // SAFETY: the name is a whole C string.
    let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and its size is the one given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

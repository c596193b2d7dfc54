//! Frames nobody should send, a few thousand at a time: invented hosts, sweeps and garbage.

use super::super::namespace::Namespace;
use super::super::packet_socket;

const FRAMES: u16 = 1500;

/// Floods the interface of a namespace with stations and addresses of a network that do not exist.
pub(super) fn flood(namespace: &Namespace, interface: &str, network: u8) {
    let socket = packet_socket::open(namespace, interface);
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

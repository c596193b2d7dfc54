//! A station on a wire: frames out, frames in until a moment has come, and the few frames a measurement needs.
//!
//! Written apart from the agent's own decoders, so that a measurement does not believe what the measured believes.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::Socket;

use super::kernel;
use super::namespace::Namespace;

pub(crate) type Mac = [u8; 6];
pub(crate) const BROADCAST: Mac = [0xff; 6];

/// A packet socket on an interface.
pub(crate) struct Station {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Station {
    /// Hears everything, but for what it says itself if it ignores its own source address.
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> Result<Station> {
        Station::with_protocol(namespace, interface, libc::ETH_P_ALL)
    }

    /// Hears ARP only, and nothing of its own.
    pub(crate) fn arp(namespace: &Namespace, interface: &str) -> Result<Station> {
        Station::with_protocol(namespace, interface, libc::ETH_P_ARP)
    }

    fn with_protocol(
        namespace: &Namespace,
        interface: &str,
        protocol: libc::c_int,
    ) -> Result<Station> {
        let socket = namespace.inside(|| {
            kernel::packet_socket(interface, protocol)
                .with_context(|| format!("while opening a packet socket on {interface}"))
        })?;
        // A burst of a thousand answers has to fit.
        socket.set_recv_buffer_size(4 << 20)?;
        Ok(Station {
            socket,
            buffer: vec![0; 2048],
        })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        match self.socket.send(frame) {
            // The interface may be down for a moment, or its queue full: the frame is lost like any other.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS)) => {
                Ok(())
            }
            sent => sent.map(drop).context("while sending a frame"),
        }
    }

    /// Returns the next frame, or nothing if none came until then.
    pub(crate) fn receive(&mut self, until: Instant) -> Result<Option<&[u8]>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            match io::Read::read(&mut &self.socket, &mut self.buffer) {
                Ok(length) => return Ok(Some(&self.buffer[..length])),
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN)
                    ) => {}
                Err(error) => return Err(error).context("while receiving"),
            }
        }
    }

    /// Waits for a frame in which `find` finds something.
    pub(crate) fn await_frame<T>(
        &mut self,
        until: Instant,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        while let Some(frame) = self.receive(until)? {
            if let Some(found) = find(frame) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Throws away what has come.
    pub(crate) fn drain(&mut self) -> Result<()> {
        while self
            .receive(Instant::now() + Duration::from_millis(1))?
            .is_some()
        {}
        Ok(())
    }
}

/// An ARP packet of IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) operation: u8,
    pub(crate) sha: Mac,
    pub(crate) spa: Ipv4Addr,
    pub(crate) tha: Mac,
    pub(crate) tpa: Ipv4Addr,
}

pub(crate) const REQUEST: u8 = 1;
pub(crate) const REPLY: u8 = 2;
const ARP_HEAD: [u8; 7] = [0, 1, 8, 0, 6, 4, 0];

impl Arp {
    /// A question to everybody.
    pub(crate) fn question(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
        let operation = REQUEST;
        let tha = [0; 6];
        Arp {
            operation,
            sha,
            spa,
            tha,
            tpa,
        }
        .frame(BROADCAST)
    }

    pub(crate) fn frame(&self, to: Mac) -> Vec<u8> {
        let mut frame = ethernet(to, self.sha, libc::ETH_P_ARP as u16);
        frame.extend(ARP_HEAD);
        frame.push(self.operation);
        frame.extend(self.sha);
        frame.extend(self.spa.octets());
        frame.extend(self.tha);
        frame.extend(self.tpa.octets());
        frame.resize(60, 0);
        frame
    }

    pub(crate) fn parse(frame: &[u8]) -> Option<Arp> {
        let body = frame.get(12..42)?;
        if body[..2] != [8, 6] || body[2..9] != ARP_HEAD {
            return None;
        }
        Some(Arp {
            operation: body[9],
            sha: body[10..16].try_into().ok()?,
            spa: address(&body[16..20])?,
            tha: body[20..26].try_into().ok()?,
            tpa: address(&body[26..30])?,
        })
    }

    /// Returns the hardware address in an answer about `ip`.
    pub(crate) fn answer_about(frame: &[u8], ip: Ipv4Addr) -> Option<Mac> {
        Arp::parse(frame)
            .filter(|arp| arp.operation == REPLY && arp.spa == ip)
            .map(|arp| arp.sha)
    }
}

/// An ICMP echo request or reply without options around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    pub(crate) kind: u8,
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
}

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const ECHO_REQUEST: u8 = 8;
/// Same for all: who is answered is told by the addresses.
pub(crate) const ECHO_ID: u16 = 0xf007;

impl Echo {
    pub(crate) fn frame(&self, to: Mac, from: Mac) -> Vec<u8> {
        let mut frame = ethernet(to, from, libc::ETH_P_IP as u16);
        let icmp = echo_message(self.kind);
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0];
        ip[2..4].copy_from_slice(&(20 + icmp.len() as u16).to_be_bytes());
        ip.extend(self.from.octets());
        ip.extend(self.to.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(icmp);
        frame.resize(60, 0);
        frame
    }

    pub(crate) fn parse(frame: &[u8]) -> Option<Echo> {
        let ip = frame.get(14..)?;
        let plain = frame[12..14] == [8, 0] && *ip.first()? == 0x45 && *ip.get(9)? == 1;
        if !plain || ip.get(24..26)? != ECHO_ID.to_be_bytes() {
            return None;
        }
        Some(Echo {
            kind: ip[20],
            from: address(&ip[12..16])?,
            to: address(&ip[16..20])?,
        })
    }
}

/// The ICMP message alone, for sockets that add the rest.
pub(crate) fn echo_message(kind: u8) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0];
    icmp.extend(ECHO_ID.to_be_bytes());
    icmp.extend([0, 1]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp
}

/// A UDP datagram from 0.0.0.0 to everybody, without checksum, as DHCP clients send it.
pub(crate) fn dhcp_request_frame(from: Mac, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, from, libc::ETH_P_IP as u16);
    let length = payload.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0];
    ip.extend([0xff; 4]);
    ip[2..4].copy_from_slice(&(28 + length).to_be_bytes());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend([0, 68, 0, 67]);
    frame.extend((8 + length).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// Returns the payload of a datagram to a DHCP client.
pub(crate) fn dhcp_reply_payload(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..)?;
    let header = 4 * usize::from(*ip.first()? & 0xf);
    let udp = ip.get(header..)?;
    let to_client = frame[12..14] == [8, 0] && ip.get(9) == Some(&17) && udp.get(2..4)? == [0, 68];
    to_client.then(|| udp.get(8..)).flatten()
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes()].concat()
}

fn address(octets: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

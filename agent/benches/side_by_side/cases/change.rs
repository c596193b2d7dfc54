//! How soon a host is reachable again after it changed its place.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Turn, pass};
use crate::rig::{Layout, Rig, eventually, host};
use crate::wire::{ECHO_REPLY, ECHO_REQUEST, echo_message};

const BETWEEN_ECHOES: Duration = Duration::from_millis(20);
const GIVE_UP: Duration = Duration::from_secs(60);
const UNPLUGGED: Duration = Duration::from_secs(2);

/// A wired host turns up on the router's switch and says nothing of it.
pub(super) fn silent_move(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::Switches)?;
    rig.give_addresses(1)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let pinger = Pinger::open(&rig, host(0))?;
    pinger.await_answer()?;
    rig.air.ip(&["link set h0 master r0"])?;
    turn.read_time("silent-move", pinger.time_to_answer()?);
    Ok(())
}

/// The cable is out for a while.
pub(super) fn replug(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(1)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let pinger = Pinger::open(&rig, host(0))?;
    pinger.await_answer()?;
    rig.hosts.ip(&["link set c0 down"])?;
    eventually("the box sees no carrier", || {
        let links = rig.bridge_box.ip(&["link show eth0"])?;
        Ok(links.contains("NO-CARRIER"))
    })?;
    pass(UNPLUGGED);
    rig.hosts.ip(&["link set c0 up"])?;
    turn.read_time("replug", pinger.time_to_answer()?);
    Ok(())
}

/// The router's own network stack, asking a host for echoes.
pub(super) struct Pinger {
    socket: Socket,
    target: Ipv4Addr,
}

impl Pinger {
    pub(super) fn open(rig: &Rig, target: Ipv4Addr) -> Result<Pinger> {
        let socket = rig.air.inside(|| {
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
                .context("while opening an ICMP socket")
        })?;
        socket.set_read_timeout(Some(BETWEEN_ECHOES))?;
        Ok(Pinger { socket, target })
    }

    /// Sends requests until one is answered, and fails if none is.
    pub(super) fn await_answer(&self) -> Result<()> {
        let answered = self.answered_after()?;
        answered.map(drop).with_context(|| {
            format!(
                "{} never answered, so there is nothing to measure",
                self.target
            )
        })
    }

    /// Sends requests until one is answered and returns how long that took, or the time after which it gave up.
    fn time_to_answer(&self) -> Result<Duration> {
        Ok(self.answered_after()?.unwrap_or(GIVE_UP))
    }

    fn answered_after(&self) -> Result<Option<Duration>> {
        let start = Instant::now();
        let to = SocketAddrV4::new(self.target, 0).into();
        let mut buffer = [0; 256];
        // What was answered before the call does not count.
        self.socket.set_nonblocking(true)?;
        while io::Read::read(&mut &self.socket, &mut buffer).is_ok() {}
        self.socket.set_nonblocking(false)?;
        while start.elapsed() < GIVE_UP {
            // Unreachable is what it is for now.
            let _ = self.socket.send_to(&echo_message(ECHO_REQUEST), &to);
            let next = Instant::now() + BETWEEN_ECHOES;
            while Instant::now() < next {
                let length = io::Read::read(&mut &self.socket, &mut buffer).unwrap_or(0);
                if self.is_answer(&buffer[..length]) {
                    return Ok(Some(start.elapsed()));
                }
            }
        }
        Ok(None)
    }

    fn is_answer(&self, packet: &[u8]) -> bool {
        packet.get(12..16) == Some(&self.target.octets()) && packet.get(20) == Some(&ECHO_REPLY)
    }
}

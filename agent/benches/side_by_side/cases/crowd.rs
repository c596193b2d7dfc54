//! One, ten, a hundred and a thousand hosts on the wire: how long each takes to be reached, and what all of them cost.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Turn;
use crate::crowd::Crowd;
use crate::rig::{Layout, ROUTER, ROUTER_MAC, Rig, host};
use crate::wire::{Arp, ECHO_REPLY, ECHO_REQUEST, Echo, Mac, Station};

/// Hosts being asked for at a time.
const WINDOW: usize = 8;
const REPEAT: Duration = Duration::from_secs(1);
const GIVE_UP: Duration = Duration::from_secs(20);

/// Crowds of growing size.
pub(super) fn hosts(turn: &mut Turn<'_>) -> Result<()> {
    gather(turn, 1, WINDOW, |turn, reached, _| {
        turn.read("per-host-1", reached.per_host())
    })?;
    gather(turn, 10, WINDOW, |turn, reached, _| {
        turn.read("per-host-10", reached.per_host())
    })?;
    gather(turn, 100, WINDOW, |turn, reached, memory| {
        turn.read("per-host-100", reached.per_host());
        turn.read("memory-100-hosts", memory);
    })?;
    gather(turn, 100, 100, |turn, reached, _| {
        turn.read_time("at-once-100", reached.took)
    })?;
    if turn.quick {
        return Ok(());
    }
    gather(turn, 1000, WINDOW, |turn, reached, memory| {
        turn.read("per-host-1000", reached.per_host());
        turn.read("reached-of-1000", reached.hosts as f64);
        turn.read("memory-1000-hosts", memory);
    })
}

/// What came of reaching for a crowd.
struct Reached {
    hosts: usize,
    took: Duration,
}

impl Reached {
    fn per_host(&self) -> f64 {
        self.took.as_secs_f64() / self.hosts.max(1) as f64
    }
}

fn gather(
    turn: &mut Turn<'_>,
    size: u32,
    window: usize,
    read: impl FnOnce(&mut Turn<'_>, Reached, f64),
) -> Result<()> {
    let rig = Rig::build(Layout::Cable)?;
    let _crowd = Crowd::gather(&rig, size)?;
    let bridge = rig.start(turn.contender, turn.programs)?;
    let mut station = Station::open(&rig.air, "a0")?;
    let reached = reach((0..size).map(host).collect(), window, &mut station)?;
    let memory: u64 = bridge.usage()?.values().map(|usage| usage.memory).sum();
    read(turn, reached, memory as f64);
    Ok(())
}

/// A host that was asked for and has not answered an echo request yet.
struct Asked {
    ip: Ipv4Addr,
    /// What ARP said.
    mac: Option<Mac>,
    repeat: Instant,
}

impl Asked {
    fn send(&mut self, station: &Station) -> Result<()> {
        self.repeat = Instant::now() + REPEAT;
        match self.mac {
            None => station.send(&Arp::question(ROUTER_MAC, ROUTER, self.ip)),
            Some(mac) => {
                let echo = Echo {
                    kind: ECHO_REQUEST,
                    from: ROUTER,
                    to: self.ip,
                };
                station.send(&echo.frame(mac, ROUTER_MAC))
            }
        }
    }
}

/// Asks for hosts as the router does, but from a station that keeps its own table: the kernel's is one for all namespaces.
fn reach(mut waiting: Vec<Ipv4Addr>, window: usize, station: &mut Station) -> Result<Reached> {
    waiting.reverse();
    let mut asked: Vec<Asked> = Vec::new();
    let mut hosts = 0;
    let start = Instant::now();
    while start.elapsed() < GIVE_UP {
        while asked.len() < window
            && let Some(ip) = waiting.pop()
        {
            let mut host = Asked {
                ip,
                mac: None,
                repeat: start,
            };
            host.send(station)?;
            asked.push(host);
        }
        let Some(repeat) = asked.iter().map(|host| host.repeat).min() else {
            break;
        };
        if let Some(frame) = station.receive(repeat)?.map(<[u8]>::to_vec) {
            hosts += usize::from(take(&frame, &mut asked, station)?);
        }
        for host in asked
            .iter_mut()
            .filter(|host| host.repeat <= Instant::now())
        {
            host.send(station)?;
        }
    }
    Ok(Reached {
        hosts,
        took: start.elapsed(),
    })
}

/// Takes a frame; returns whether it was the echo of a host.
fn take(frame: &[u8], asked: &mut Vec<Asked>, station: &Station) -> Result<bool> {
    if let Some(arp) = Arp::parse(frame)
        && let Some(mac) = Arp::answer_about(frame, arp.spa)
        && let Some(host) = asked
            .iter_mut()
            .find(|host| host.ip == arp.spa && host.mac.is_none())
    {
        host.mac = Some(mac);
        host.send(station)?;
    }
    let echo = Echo::parse(frame).filter(|echo| echo.kind == ECHO_REPLY);
    let place = echo.and_then(|echo| asked.iter().position(|host| host.ip == echo.from));
    Ok(place.map(|place| asked.swap_remove(place)).is_some())
}

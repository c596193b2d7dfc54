//! How soon a question about an address is answered, the first time and later.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Turn;
use crate::rig::{HOST_MAC, Layout, ROUTER, ROUTER_MAC, Rig, host};
use crate::wire::{Arp, Mac, Station};

const COLD: u32 = 16;
const WARM: u32 = 10;
/// As long as kernels wait before they ask again, and how often they do.
const REPEAT: Duration = Duration::from_secs(1);
const TRIES: u32 = 10;

/// The router asks for wired hosts.
pub(super) fn from_the_air(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(COLD)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let asker = (ROUTER_MAC, ROUTER);
    let mut station = Station::arp(&rig.air, "r0")?;
    let targets: Vec<Ipv4Addr> = (0..COLD).map(host).collect();
    ask_cold_and_warm(
        turn,
        &mut station,
        asker,
        &targets,
        ["arp-cold", "arp-warm"],
    )
}

/// A wired host asks for others on the router's side.
pub(super) fn from_the_wire(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::Cable)?;
    let others: Vec<Ipv4Addr> = (0..COLD)
        .map(|n| Ipv4Addr::new(10, 77, 0, 100 + n as u8))
        .collect();
    let lines: Vec<String> = others
        .iter()
        .map(|ip| format!("addr add {ip}/20 dev r0"))
        .collect();
    rig.air.ip(&lines)?;
    rig.give_addresses(1)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let asker = (HOST_MAC, host(0));
    let mut station = Station::arp(&rig.hosts, "c0")?;
    let metrics = ["arp-wired-cold", "arp-wired-warm"];
    ask_cold_and_warm(turn, &mut station, asker, &others, metrics)
}

fn ask_cold_and_warm(
    turn: &mut Turn<'_>,
    station: &mut Station,
    asker: (Mac, Ipv4Addr),
    targets: &[Ipv4Addr],
    [cold, warm]: [&'static str; 2],
) -> Result<()> {
    for &target in targets {
        turn.read_time(cold, ask(station, asker, target)?);
        for _ in 0..WARM {
            turn.read_time(warm, ask(station, asker, target)?);
        }
    }
    Ok(())
}

/// Returns how long it takes until a question is answered.
pub(super) fn ask(
    station: &mut Station,
    (mac, ip): (Mac, Ipv4Addr),
    target: Ipv4Addr,
) -> Result<Duration> {
    station.drain()?;
    let start = Instant::now();
    for tries in 1..=TRIES {
        station.send(&Arp::question(mac, ip, target))?;
        let answered = station.await_frame(start + REPEAT * tries, |frame| {
            Arp::answer_about(frame, target)
        })?;
        if answered.is_some() {
            return Ok(start.elapsed());
        }
    }
    bail!("nobody answers for {target}")
}

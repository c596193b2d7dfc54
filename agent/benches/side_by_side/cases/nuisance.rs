//! What a bridge does to the network when somebody plugs wrongly or asks for everybody.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Turn, pass};
use crate::rig::{Layout, ROUTER, ROUTER_MAC, Rig, host};
use crate::wire::{Arp, Station};

const COUNTED: Duration = Duration::from_secs(10);
const SWEPT: u32 = 254;
const SWEEPS: u32 = 2;
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(5);
const AFTER_SWEEP: Duration = Duration::from_secs(3);

/// Both ports on one switch, and two questions.
pub(super) fn one_segment(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::OneSegment)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let station = Station::arp(&rig.air, "r0")?;
    let before = sent(&rig)?;
    for target in [host(0), host(1)] {
        station.send(&Arp::question(ROUTER_MAC, ROUTER, target))?;
    }
    pass(COUNTED);
    turn.read("loop-frames", (sent(&rig)? - before) as f64);
    Ok(())
}

/// The router, or a program on it, asks for a whole /24.
pub(super) fn sweep(turn: &mut Turn<'_>) -> Result<()> {
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(1)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let mut station = Station::arp(&rig.air, "r0")?;
    let before = sent(&rig)?;
    let mut wrong = 0;
    for _ in 0..SWEEPS {
        for target in (0..SWEPT).map(host) {
            station.send(&Arp::question(ROUTER_MAC, ROUTER, target))?;
            wrong += wrong_answers(&mut station, Instant::now() + BETWEEN_QUESTIONS)?;
        }
        wrong += wrong_answers(&mut station, Instant::now() + AFTER_SWEEP)?;
    }
    turn.read("sweep-frames", (sent(&rig)? - before) as f64);
    turn.read("sweep-wrong", f64::from(wrong));
    Ok(())
}

fn wrong_answers(station: &mut Station, until: Instant) -> Result<u32> {
    let nobody = |ip: Ipv4Addr| (1..SWEPT).map(host).any(|swept| swept == ip);
    let mut wrong = 0;
    while let Some(frame) = station.receive(until)? {
        let answer = Arp::parse(frame).filter(|arp| Arp::answer_about(frame, arp.spa).is_some());
        wrong += u32::from(answer.is_some_and(|arp| nobody(arp.spa)));
    }
    Ok(wrong)
}

/// Returns how many frames the box has sent on both sides.
fn sent(rig: &Rig) -> Result<u64> {
    Ok(rig.bridge_box.sent("wlan0")? + rig.bridge_box.sent("eth0")?)
}

//! What it costs to do nothing, to be flooded, and to carry data.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::arp::ask;
use super::change::Pinger;
use super::{Turn, pass};
use crate::process::Usage;
use crate::rig::{Layout, ROUTER, ROUTER_MAC, Rig, host};
use crate::wire::{Arp, Station};

const FLOOD_PER_MILLISECOND: u32 = 5;
const FLOOD_TARGETS: u32 = 250;
const PORT: u16 = 5001;

/// One host known, nobody speaking.
pub(super) fn idle(turn: &mut Turn<'_>) -> Result<()> {
    let watched = Duration::from_secs(if turn.quick { 10 } else { 30 });
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(1)?;
    let bridge = rig.start(turn.contender, turn.programs)?;
    Pinger::open(&rig, host(0))?.await_answer()?;
    // What the ping set off comes to rest.
    pass(Duration::from_secs(3));
    let before = bridge.usage()?;
    let start = Instant::now();
    pass(watched);
    let after = bridge.usage()?;
    let sleeps = grown(&before, &after, |usage| usage.sleeps);
    turn.read(
        "idle-wakeups",
        sleeps as f64 / start.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Questions about many addresses, and one host that matters.
pub(super) fn flood(turn: &mut Turn<'_>) -> Result<()> {
    let lasts = Duration::from_secs(if turn.quick { 2 } else { 4 });
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(1)?;
    let bridge = rig.start(turn.contender, turn.programs)?;
    let mut good = Station::arp(&rig.air, "r0")?;
    ask(&mut good, (ROUTER_MAC, ROUTER), host(0))?;
    let flooder = Station::arp(&rig.air, "r0")?;
    let before = bridge.usage()?;
    let start = Instant::now();
    let (flooded, latencies) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood_until(&flooder, start + lasts));
        let mut latencies = Vec::new();
        while start.elapsed() + Duration::from_millis(100) < lasts {
            latencies.push(ask(&mut good, (ROUTER_MAC, ROUTER), host(0)));
            pass(Duration::from_millis(20));
        }
        (flood.join(), latencies)
    });
    flooded.expect("the flood does not panic")?;
    let after = bridge.usage()?;
    let cpu = grown(&before, &after, |usage| usage.cpu.as_millis() as u64);
    turn.read(
        "flood-cpu",
        cpu as f64 / start.elapsed().as_millis() as f64 * 100.0,
    );
    for latency in latencies {
        turn.read_time("flood-latency", latency?);
    }
    Ok(())
}

fn flood_until(station: &Station, end: Instant) -> Result<()> {
    // Another machine of the network; its address is in use by nobody else.
    let asker = ([2, 0, 0, 0, 0, 9], Ipv4Addr::new(10, 77, 0, 9));
    let start = Instant::now();
    let mut sent = 0;
    while Instant::now() < end {
        let due = start.elapsed().as_millis() as u32 * FLOOD_PER_MILLISECOND;
        while sent < due {
            let target = host(1 + sent % FLOOD_TARGETS);
            station.send(&Arp::question(asker.0, asker.1, target))?;
            sent += 1;
        }
        pass(Duration::from_millis(1));
    }
    Ok(())
}

/// Bulk data from the router to a wired host.
pub(super) fn forwarding(turn: &mut Turn<'_>) -> Result<()> {
    let lasts = Duration::from_secs(if turn.quick { 1 } else { 2 });
    let rig = Rig::build(Layout::Cable)?;
    rig.give_addresses(1)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    Pinger::open(&rig, host(0))?.await_answer()?;
    let address = SocketAddrV4::new(host(0), PORT);
    let listener = rig
        .hosts
        .inside(|| TcpListener::bind(address).context("while listening on the wired host"))?;
    let sink = std::thread::spawn(move || drain(&listener));
    let mut stream = rig
        .air
        .inside(|| TcpStream::connect(address).context("while connecting to the wired host"))?;
    let data = vec![0; 256 << 10];
    let before = machine_time()?;
    let start = Instant::now();
    while start.elapsed() < lasts {
        stream.write_all(&data)?;
    }
    drop(stream);
    let carried = sink.join().expect("the sink does not panic")?;
    let took = start.elapsed().as_secs_f64();
    let cpu = machine_time()? - before;
    turn.read("throughput", carried as f64 / took);
    turn.read(
        "cpu-per-gigabyte",
        cpu.as_secs_f64() / (carried as f64 / 1e9),
    );
    Ok(())
}

fn drain(listener: &TcpListener) -> Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 256 << 10];
    let mut carried = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(carried),
            length => carried += length as u64,
        }
    }
}

/// Returns the time all processors have worked.
fn machine_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("while reading /proc/stat")?;
    let words = text
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse::<u64>().unwrap_or(0));
    // user, nice, system, idle, iowait, irq, softirq
    let numbers: Vec<u64> = words.take(7).collect();
    let worked = numbers.iter().sum::<u64>() - numbers[3] - numbers[4];
    Ok(Duration::from_millis(worked * 10))
}

/// Returns by how much processes' usage grew; one that came meanwhile counts from nothing.
fn grown(
    before: &BTreeMap<u32, Usage>,
    after: &BTreeMap<u32, Usage>,
    of: impl Fn(&Usage) -> u64,
) -> u64 {
    after
        .iter()
        .map(|(pid, usage)| of(usage).saturating_sub(before.get(pid).map_or(0, &of)))
        .sum()
}

//! A day of life in minutes: link flaps, uplink changes, host moves, leases, floods and kills, in an order that a seed gives.
//!
//! After each batch the wired host has to be reachable in both directions within a bounded time. In the first part the agent
//! lives through everything, and may not grow; in the second it is killed now and then. Each part ends with SIGTERM, which
//! leaves the machine and the run directory as they were. `cargo xtask soak` runs it long; the ordinary tests run a short one.

mod flood;

mod gauge;

mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::in_namespace;
use super::rig::{Rig, network_state};
use super::tear_down::LEFT;
use gauge::Gauge;
use world::{Event, World};

/// How many events to live through, and from which seed.
const EVENTS: &str = "FOOTBRIDGE_SOAK_EVENTS";
const SEED: &str = "FOOTBRIDGE_SOAK_SEED";
const SHORT: u64 = 40;
/// What an allocator may still take after a tenth of the first part; tables are bounded, and floods fill them by then.
const GROWTH_KIB: u64 = 512;
/// How long the host may be out of reach after a batch: the kernel tells of a lost carrier once a second, and DHCP clients
/// and routers ask again after one.
const OUT_OF_REACH: Duration = Duration::from_secs(20);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn a_life_leaves_nothing_over_and_nothing_grows() {
    in_namespace(|rig| {
        let events = number(EVENTS, SHORT);
        let mut life = Life::new(number(SEED, 1));
        live_through(rig, &mut life, events * 3 / 5);
        live_and_be_killed(rig, &mut life, events * 2 / 5);
        life.report();
    });
}

/// What happened, for whoever runs it.
struct Life {
    random: Random,
    counts: BTreeMap<String, u64>,
    waits: Vec<Duration>,
    began: Instant,
}

/// SplitMix64: the same story from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

impl Life {
    fn new(seed: u64) -> Life {
        eprintln!("MEASURED soak seed: {seed}");
        Life {
            random: Random(seed),
            counts: BTreeMap::new(),
            waits: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Has a few things happen at once, and waits until all is well again.
    fn batch(&mut self, world: &mut World<'_>, kills: bool) -> u64 {
        let size = 1 + self.random.below(8);
        let mut happened = Vec::new();
        for _ in 0..size {
            let event = Event::any(|limit| self.random.below(limit), kills);
            *self.counts.entry(format!("{event:?}")).or_default() += 1;
            world.happen(event);
            happened.push(event);
        }
        let start = Instant::now();
        world.await_reach();
        let took = start.elapsed();
        assert!(took < OUT_OF_REACH, "{took:?} after {happened:?}");
        self.waits.push(took);
        size
    }

    fn report(&mut self) {
        self.waits.sort();
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        let at = |part: usize| self.waits[(self.waits.len() - 1) * part / 100].as_millis();
        eprintln!(
            "MEASURED soak: {} events ({}) in {} s; reachable again after {} batches in {} ms (median), {} ms (99 %), {} ms (worst)",
            self.counts.values().sum::<u64>(),
            counts.join(", "),
            self.began.elapsed().as_secs(),
            self.waits.len(),
            at(50),
            at(99),
            at(100),
        );
    }
}

/// One process lives through all of it: neither memory nor descriptors grow after the first tenth.
fn live_through(rig: &mut Rig, life: &mut Life, events: u64) {
    let mut world = World::begin(rig);
    let before = network_state();
    world.start();
    let (mut lived, mut first) = (0, None);
    while lived < events {
        lived += life.batch(&mut world, false);
        if first.is_none() && lived * 10 >= events {
            // The tables are as full as floods make them.
            world.happen(Event::Flood);
            world.await_reach();
            first = Some(Gauge::read(world.agent_pid()));
        }
    }
    world.settle();
    let last = Gauge::read(world.agent_pid());
    let first = first.unwrap();
    eprintln!("MEASURED soak: first {first:?}, after {lived} events {last:?}");
    assert_eq!(last.descriptors, first.descriptors, "descriptors");
    let limit = first.resident_kib + GROWTH_KIB;
    assert!(
        last.resident_kib <= limit,
        "memory grew: {first:?} {last:?}"
    );
    world.end();
    assert_eq!(network_state(), before, "after a whole life");
    assert_eq!(rig.run_files(), LEFT, "after a whole life");
}

/// The same with kills among it: the last of all the processes gives back what the first one took.
fn live_and_be_killed(rig: &mut Rig, life: &mut Life, events: u64) {
    let mut world = World::begin(rig);
    let before = network_state();
    world.start();
    let mut lived = 0;
    while lived < events {
        lived += life.batch(&mut world, true);
    }
    world.settle();
    world.end();
    assert_eq!(network_state(), before, "after many lives");
    assert_eq!(rig.run_files(), LEFT, "after many lives");
}

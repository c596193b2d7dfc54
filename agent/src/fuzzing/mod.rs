//! What `fuzz/` runs: for every decoder, and for the engine as a whole, a function that takes any bytes and panics if
//! something does not hold.
//!
//! The functions are part of the library with the feature `fuzzing`, and of its tests, which run the seeds of each through it
//! (`replay`). None of them touches a file, a socket or a clock that matters.

mod decoder;

mod story;

#[cfg(test)]
mod replay;

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, that of its program in `fuzz/`, and of its folder of seeds.
    pub name: &'static str,
    /// What to call with each input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    target("ethernet", decoder::ethernet),
    target("arp", decoder::arp),
    target("udp", decoder::udp),
    target("dhcp", decoder::dhcp),
    target("discovery", decoder::discovery),
    target("dns", decoder::dns),
    target("loop-probe", decoder::loop_probe),
    target("radio", decoder::radio),
    target("config", decoder::config),
    target("netlink", decoder::netlink),
    target("ledger", decoder::ledger),
    target("engine", story::engine),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs one input through the target of the name.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("the programs in `fuzz/` are named after targets");
    (target.run)(input);
}

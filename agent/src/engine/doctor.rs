//! What is wrong and what a person can do about it, judged from what the engine knows at the moment it is asked.
//!
//! A problem is shown for as long as its cause lasts, or was seen lately where it shows only now and then. Nothing here
//! changes what the bridge does.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use super::loop_guard::Segments;
use super::{Address, Engine, dhcp_relay, link, radio, stale_address};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub next: String,
}

impl Problem {
    /// Returns a problem and its next step.
    pub(crate) fn new(what: impl Into<String>, next: impl Into<String>) -> Problem {
        Problem {
            what: what.into(),
            next: next.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.next)
    }
}

/// Returns everything that is wrong, what explains most first.
pub(crate) fn problems(engine: &Engine, now: Instant) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(one_segment(engine));
    problems.extend(uplink(engine));
    problems.extend(radio::problems(engine));
    problems.extend(wired(engine));
    problems.extend(foreign_address(engine));
    problems.extend(port_67(engine));
    problems.extend(dhcp(engine, now));
    problems.extend(refused_changes(engine));
    problems.extend(duplicate_addresses(engine, now));
    problems.extend(own_address(engine, now));
    problems.extend(silent_gateway(engine, now));
    problems.extend(isolation(engine, now));
    problems.extend(gateway_on_wire(engine, now));
    problems.extend(reflector(engine, now));
    problems
}

fn one_segment(engine: &Engine) -> Option<Problem> {
    let (uplink, wired) = (&engine.settings.uplink, &engine.settings.downlink);
    (engine.segments == Segments::Same).then(|| {
        Problem::new(
            format!("{wired} and {uplink} are on one network, so nothing is bridged"),
            format!(
                "unplug {wired} from the access point or its switch, and plug the device in that is to join the network"
            ),
        )
    })
}

fn uplink(engine: &Engine) -> Option<Problem> {
    let name = &engine.settings.uplink;
    let Some(index) = engine.interfaces.uplink else {
        return Some(Problem::new(
            format!("there is no interface {name}"),
            "wait for its driver, or correct `uplink`",
        ));
    };
    if let Some(problem) = stale_address::problem(engine) {
        return Some(problem);
    }
    if link::live_port(Some(index), &engine.mirror).is_none() {
        return Some(Problem::new(
            format!("{name} is not connected"),
            "check the network's name, its key and the distance",
        ));
    }
    if link::uplink_address(index, None, &engine.mirror).is_none() {
        return Some(Problem::new(
            format!("{name} has no IPv4 address in a subnet with room for hosts"),
            "check the DHCP server of the network",
        ));
    }
    None
}

fn wired(engine: &Engine) -> Option<Problem> {
    let name = &engine.settings.downlink;
    let Some(index) = engine.interfaces.wired else {
        return Some(Problem::new(
            format!("there is no interface {name}"),
            "plug the adapter in, or correct `downlink`",
        ));
    };
    let carrier = link::live_port(Some(index), &engine.mirror);
    (carrier.is_none() && !engine.is_bouncing()).then(|| {
        Problem::new(
            format!("{name} has no carrier"),
            "check the cable and the device at its other end",
        )
    })
}

fn foreign_address(engine: &Engine) -> Option<Problem> {
    let name = &engine.settings.downlink;
    let foreign = |a: &&Address| {
        Some(a.index) == engine.interfaces.wired && !a.ours && !a.address.is_link_local()
    };
    let found = engine.mirror.addresses.iter().find(foreign)?;
    Some(Problem::new(
        format!("{name} has the address {} from elsewhere", found.address),
        "keep other network managers away from it",
    ))
}

fn port_67(engine: &Engine) -> Option<Problem> {
    let wired = &engine.settings.downlink;
    engine.dhcp_relay.port_taken.then(|| {
        Problem::new(
            "another program holds UDP port 67",
            format!(
                "stop the DHCP server or relay of this machine (`ss -ulpn sport = 67` names it); until then, hosts behind \
                 {wired} get no address"
            ),
        )
    })
}

fn dhcp(engine: &Engine, now: Instant) -> Option<Problem> {
    let (relay, wired) = (&engine.dhcp_relay, &engine.settings.downlink);
    let network = dhcp_relay::network(&engine.bridge?, &engine.hosts);
    if relay.clone_is_mistaken(now) {
        return Some(Problem::new(
            "a DHCP server knows clients by their hardware address alone",
            "with `mode = \"clone\"` in [dhcp] it takes all of them for this machine: choose another mode, or another server",
        ));
    }
    if relay.ladder.hopeless(now) > 0 {
        return Some(Problem::new(
            format!("no DHCP server answers the hosts behind {wired}"),
            "check that the network has a server with free addresses and lets other stations' broadcasts through; try \
             `mode = \"clone\"` in [dhcp], or give the hosts fixed addresses",
        ));
    }
    relay.ladder.giaddr_is_ignored(network).then(|| {
        Problem::new(
            "giaddr ignored: the network's DHCP server does not answer a relay",
            "nothing has to be done while addresses are given by broadcast; `mode = \"broadcast\"` in [dhcp] spares the \
             first client some seconds",
        )
    })
}

fn refused_changes(engine: &Engine) -> Option<Problem> {
    (engine.mirror.refused() > 0).then(|| {
        Problem::new(
            "the kernel refuses changes",
            "see the log, and check that the agent has CAP_NET_ADMIN",
        )
    })
}

fn duplicate_addresses(engine: &Engine, now: Instant) -> impl Iterator<Item = Problem> {
    let conflicts = engine.hosts.conflicts(now);
    conflicts.map(|(ip, first, second)| {
        Problem::new(
            format!(
                "{ip} is claimed by two machines: {} ({}) and {} ({})",
                first.mac, first.side, second.mac, second.side
            ),
            "change the address of one",
        )
    })
}

fn gateway_on_wire(engine: &Engine, now: Instant) -> Option<Problem> {
    engine.proxy_arp.gateway_is_claimed(now).then(|| {
        Problem::new(
            format!(
                "a machine behind {} claims the address of the gateway",
                engine.settings.downlink
            ),
            "change its address; a router is to be plugged in with one of its LAN ports, or not at all",
        )
    })
}

fn silent_gateway(engine: &Engine, now: Instant) -> Option<Problem> {
    let since = engine.gateway_silent_since()?;
    let seconds = now.saturating_duration_since(since).as_secs();
    Some(Problem::new(
        format!("the gateway does not answer for {seconds} s"),
        "check that the router is on and in reach",
    ))
}

fn isolation(engine: &Engine, now: Instant) -> Option<Problem> {
    let gateway = engine.bridge?.gateway?;
    let mac = engine.hosts.gateway().mac()?;
    let answers = engine.gateway_silent_since().is_none();
    (answers && engine.isolation.is_suspected((gateway, mac), now)).then(|| {
        Problem::new(
            "no station of the network but the gateway answers",
            "if others are on, the access point may isolate its clients: switch client (AP) isolation off",
        )
    })
}

fn own_address(engine: &Engine, now: Instant) -> Option<Problem> {
    let claimed = engine.proxy_arp.own_address_is_claimed(now);
    claimed.then(|| {
        Problem::new(
            format!(
                "another machine claims the address of {}",
                engine.settings.uplink
            ),
            "see the router's list of leases",
        )
    })
}

fn reflector(engine: &Engine, now: Instant) -> Option<Problem> {
    let reflector = engine.discovery.reflector(now)?;
    let (protocol, place) = (reflector.protocol, reflector.place);
    Some(Problem::new(
        format!(
            "another {protocol} reflector ({} on the {} side) repeats what this bridge passes on",
            place.mac, place.side
        ),
        format!("turn it off, or switch {protocol} off in [discovery]"),
    ))
}

//! dnsmasq on the router, as the DHCP server of a home.

use std::fs;

use super::rig::{Rig, eventually};

/// Fifty addresses of the rig's network.
pub(crate) const POOL: &str = "--dhcp-range=192.168.77.100,192.168.77.150,255.255.255.0,1h";
/// Left to itself it tells clients of a relay that the relay is their router.
pub(crate) const ROUTER: &str = "--dhcp-option=option:router,192.168.77.1";

/// Starts it with a pool and what else is to be different, its output in `dnsmasq.log`.
pub(crate) fn start(rig: &mut Rig, options: &[&str]) {
    let leases = rig.dir.path().join("dnsmasq.leases");
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let command = [
        "dnsmasq",
        // In the foreground it changes neither user nor groups, which these namespaces do not let it.
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=r0",
        "--bind-interfaces",
        "--dhcp-authoritative",
        // Its question whether an offered address is free would add its own seconds.
        "--no-ping",
        "--log-facility=-",
        &leases,
    ];
    rig.start_on_router("dnsmasq", &[&command, options].concat());
    let log = rig.dir.path().join("dnsmasq.log");
    eventually("dnsmasq listens", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("DHCP, IP range"))
    });
}

//! Hosts that change their side without a word.

use std::time::{Duration, Instant};

use super::in_namespace;
use super::rig::{PRINTER, Rig, eventually, ip};

/// Puts a switch before the router, and a second interface of the client at it, as yet without an address.
fn connect_client_to_the_router(rig: &Rig) {
    rig.router.ip("link add sw type bridge");
    rig.router.ip("link add w1 type veth peer name w0");
    rig.router
        .ip(&format!("link set w0 netns {}", rig.client.pid()));
    for port in ["r0", "w1"] {
        rig.router.ip(&format!("link set {port} master sw"));
        rig.router.ip(&format!("link set {port} up"));
    }
    rig.router.ip("addr del 192.168.77.1/24 dev r0");
    rig.router.ip("link set sw address 02:00:00:00:00:01");
    rig.router.ip("addr add 192.168.77.1/24 dev sw");
    rig.router.ip("link set sw up");
    rig.client.ip("link set w0 up");
    // Each interface takes and answers what is its own alone, as two machines would.
    rig.client.run(&[
        "sh",
        "-c",
        "cd /proc/sys/net/ipv4/conf/all; echo 1 > arp_ignore; echo 1 > rp_filter",
    ]);
}

/// Pings until there is an answer; returns how long it took.
fn reached_after(rig: &Rig) -> Duration {
    let start = Instant::now();
    eventually("the printer is reached at its new place", || {
        let ping = ["busybox", "ping", "-c", "1", "-W", "1", PRINTER];
        rig.router.run(&ping).status.success()
    });
    start.elapsed()
}

#[test]
fn a6_a_silent_host_is_followed_from_the_wire_to_the_air() {
    in_namespace(|rig| {
        connect_client_to_the_router(rig);
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        rig.client.ip("addr del 192.168.77.50/24 dev c0");
        rig.client.ip("addr add 192.168.77.50/24 dev w0");
        let took = reached_after(rig);
        eprintln!(
            "MEASURED silent move from wire to air: {} ms",
            took.as_millis()
        );
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!ip("route").contains(PRINTER));
    });
}

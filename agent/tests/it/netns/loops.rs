//! Both ports of the box in one switch: nothing is served, few frames are sent, and it ends by itself.

use std::time::Instant;

use super::in_namespace;
use super::rig::{PRINTER, Rig, eventually, frames_sent, ip};

/// Most frames of the box while a loop is found and looked for again: two rounds of four, the kernel's answers to the two of each
/// that ask for its own address, and what the machine says by itself. A storm would be hundreds.
const FEW: u64 = 20;

/// Puts the box's cable into the switch that its uplink is in.
fn close_loop(rig: &Rig) {
    rig.client
        .ip(&format!("link set c0 netns {}", rig.router.pid()));
    rig.router.ip("link add br0 type bridge");
    for port in ["r0", "c0"] {
        rig.router.ip(&format!("link set {port} master br0"));
    }
    rig.router.ip("addr del 192.168.77.1/24 dev r0");
    rig.router.ip("addr add 192.168.77.1/24 dev br0");
    rig.router.ip("link set c0 up");
    rig.router.ip("link set br0 up");
}

/// Puts the cable back into the client.
fn open_loop(rig: &Rig) {
    rig.router.ip("link set c0 down nomaster");
    rig.router
        .ip(&format!("link set c0 netns {}", rig.client.pid()));
    rig.client.ip("link set c0 up");
}

fn ask_for_everybody(rig: &Rig) {
    for address in ["192.168.77.60", "192.168.77.61"] {
        rig.router
            .run(&["arping", "-c", "1", "-w", "1", "-I", "br0", address]);
    }
}

#[test]
fn a_loop_from_the_start_is_never_served() {
    in_namespace(|rig| {
        close_loop(rig);
        let before = frames_sent();
        let _agent = rig.start_agent();
        rig.await_state("loop");
        ask_for_everybody(rig);
        eventually("it is looked for again", || rig.counter("loop-probed") >= 2);
        let sent = frames_sent() - before;
        eprintln!("MEASURED frames sent in the first seconds of a loop: {sent}");
        assert!(sent <= FEW, "{sent} frames");
        assert_eq!(ip("-4 -o addr show dev down0"), "");
        let status = rig.status().unwrap();
        assert!(
            status["problems"].to_string().contains("unplug down0"),
            "{status:#}"
        );
        open_loop(rig);
        rig.make_client_a_printer();
        rig.await_state("bridging");
        rig.router.ip("link set br0 up");
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
    });
}

#[test]
fn a_loop_closed_while_bridging_ends_it() {
    in_namespace(|rig| {
        let _agent = rig.start_bridging();
        rig.client.ip("link set c0 down");
        let before = frames_sent();
        let start = Instant::now();
        close_loop(rig);
        rig.await_state("loop");
        eprintln!(
            "MEASURED loop found after {} ms",
            start.elapsed().as_millis()
        );
        ask_for_everybody(rig);
        let sent = frames_sent() - before;
        assert!(sent <= FEW, "{sent} frames");
    });
}

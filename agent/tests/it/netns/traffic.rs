//! What crosses the bridge, and what does not.

use super::in_namespace;
use super::rig::{BOX, CLIENT_MAC, PRINTER, ROUTER, Rig, UPLINK_MAC, eventually};

/// The hardware address the router has for an address.
fn router_neighbour(rig: &Rig, address: &str) -> String {
    rig.router.ip(&format!("neigh show to {address} dev r0"))
}

#[test]
fn a_client_gets_a_lease_without_the_broadcast_flag() {
    in_namespace(|rig| {
        rig.start_dhcp_server();
        let _agent = rig.start_bridging();
        let took = rig.lease();
        eprintln!(
            "MEASURED lease without broadcast flag: {} ms",
            took.as_millis()
        );
        // A lost first OFFER would cost the client's four seconds until it asks again.
        assert!(took.as_secs() < 4, "{took:?}");
        let address = rig.client_address().unwrap();
        let status = rig.status().unwrap();
        let hosts = status["hosts"].as_array().unwrap();
        let host = hosts.iter().find(|host| host["ip"] == address.as_str());
        let host = host.unwrap_or_else(|| panic!("{address} is not in {status:#}"));
        assert_eq!(host["mac"], CLIENT_MAC);
        assert_eq!(host["side"], "wired");
        assert_eq!(host["source"], "dhcp");
        assert!(host["lease_end"].as_u64().unwrap() > 3000, "{host}");
        assert!(rig.client.pings(ROUTER), "the first ping after the lease");
        assert!(router_neighbour(rig, &address).contains(UPLINK_MAC));
    });
}

#[test]
fn ping_and_tcp_cross_both_ways() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        eventually("the router reaches the client", || {
            rig.router.pings(PRINTER)
        });
        eventually("the client reaches the router", || rig.client.pings(ROUTER));
        eventually("the client reaches the box", || rig.client.pings(BOX));
        // `nc` serves one connection, also one that ends before the greeting: each try finds a new one.
        let serve = "while :; do echo hello | busybox nc -l -p 5000; done";
        for (server, client, address) in [
            (&rig.client, &rig.router, PRINTER),
            (&rig.router, &rig.client, ROUTER),
        ] {
            let mut listener = server.command(&["sh", "-c", serve]).spawn().unwrap();
            eventually(&format!("a greeting from {address}"), || {
                let output = client.run(&["busybox", "nc", "-w", "3", address, "5000"]);
                output.stdout == b"hello\n"
            });
            listener.kill().unwrap();
            listener.wait().unwrap();
        }
    });
}

#[test]
fn a_host_that_never_speaks_first_is_found_by_the_routers_arp() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        assert!(router_neighbour(rig, PRINTER).contains(UPLINK_MAC));
    });
}

#[test]
fn duplicates_are_detected_across_the_bridge_and_free_addresses_are_free() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        assert!(rig.router.detects_duplicate("r0", PRINTER));
        assert!(rig.client.detects_duplicate("c0", ROUTER));
        assert!(rig.client.detects_duplicate("c0", BOX));
        assert!(!rig.client.detects_duplicate("c0", "192.168.77.60"));
        assert!(!rig.router.detects_duplicate("r0", "192.168.77.60"));
        // Nobody else has the client's own address.
        assert!(!rig.client.detects_duplicate("c0", PRINTER));
    });
}

#[test]
fn a_host_that_does_not_exist_is_not_claimed() {
    in_namespace(|rig| {
        let _agent = rig.start_bridging();
        let arping = ["arping", "-c", "3", "-w", "4", "-I", "r0", "192.168.77.99"];
        assert!(!rig.router.run(&arping).status.success());
        let status = rig.status().unwrap();
        assert!(
            !status["hosts"].to_string().contains("192.168.77.99"),
            "{status:#}"
        );
    });
}

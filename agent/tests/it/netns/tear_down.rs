//! What the agent leaves behind: nothing, however it ends.

use super::in_namespace;
use super::rig::{BOX, PRINTER, ROUTER, eventually, ip, network_state, sysctls};

/// What is in the run directory after a process that was told to end: the name that the next one locks.
pub(super) const LEFT: [&str; 1] = ["lock"];

#[test]
fn sigterm_leaves_nothing_behind() {
    in_namespace(|rig| {
        rig.start_dhcp_server();
        let before = network_state();
        let agent = rig.start_bridging();
        rig.lease();
        rig.make_client_a_printer();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        let during = network_state();
        assert!(
            during["ip -d link"].contains("promiscuity 1"),
            "{}",
            during["ip -d link"]
        );
        // The two hosts on the wire and the gateway.
        assert_eq!(during["neighbours with a protocol"].lines().count(), 3);
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
        assert_eq!(rig.run_files(), LEFT);
    });
}

#[test]
fn after_sigkill_the_next_agent_takes_over_and_gives_back_what_was_first() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let before = network_state();
        let killed = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        killed.kill();
        let left = network_state();
        assert!(
            left["ip -4 route show table all"].contains(PRINTER),
            "{left:#?}"
        );
        let agent = rig.start_bridging();
        eventually("the printer is reached again", || rig.router.pings(PRINTER));
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
        assert_eq!(rig.run_files(), LEFT);
    });
}

/// Whatever `all` says counts for every interface, beside what its own settings say.
#[test]
fn what_is_said_of_all_interfaces_does_not_count_while_bridging() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let all = ["proxy_arp", "send_redirects", "arp_ignore"]
            .map(|setting| format!("/proc/sys/net/ipv4/conf/all/{setting}"));
        for (path, value) in all.iter().zip(["1", "1", "8"]) {
            std::fs::write(path, value).unwrap();
        }
        let before = network_state();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        eventually("the client reaches the box", || rig.client.pings(BOX));
        let during = sysctls();
        for path in &all {
            assert_eq!(during[path].trim(), "0", "{path}");
        }
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn a_link_that_a_killed_agent_raised_is_set_down_at_the_end() {
    in_namespace(|rig| {
        ip("link set down0 down");
        let before = network_state();
        rig.start_bridging().kill();
        let agent = rig.start_bridging();
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn an_agent_killed_while_it_interrupts_the_wire_leaves_it_up_in_the_end() {
    in_namespace(|rig| {
        let before = network_state();
        let killed = rig.start_bridging();
        // On another network, hosts are made to ask for another address.
        ip("addr del 192.168.77.2/24 dev up0");
        ip("addr add 192.168.88.2/24 dev up0");
        let is_up = || ip("link show dev down0").contains(",UP");
        eventually("the wire is interrupted", || !is_up());
        killed.kill();
        assert!(!is_up());
        ip("addr del 192.168.88.2/24 dev up0");
        ip("addr add 192.168.77.2/24 dev up0");
        ip("route add default via 192.168.77.1 dev up0");
        let agent = rig.start_bridging();
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn a_start_after_sigkill_and_a_change_of_network_cleans_up() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let killed = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        killed.kill();
        ip("addr del 192.168.77.2/24 dev up0");
        ip("addr add 192.168.77.7/24 dev up0");
        let agent = rig.start_bridging();
        eventually("the printer is reached again", || rig.router.pings(PRINTER));
        eventually("the client reaches the router", || rig.client.pings(ROUTER));
        let addresses = ip("-4 -o addr show dev down0");
        assert!(addresses.contains("192.168.77.7/32"), "{addresses}");
        assert!(!addresses.contains("192.168.77.2/32"), "{addresses}");
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(ip("-4 -o addr show dev down0"), "");
    });
}

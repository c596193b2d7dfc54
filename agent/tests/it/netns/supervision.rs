//! Cables, interfaces and addresses that come and go while the agent runs, and company it does not want.

use std::net::UdpSocket;

use super::in_namespace;
use super::rig::{PRINTER, ROUTER, eventually, ip, network_state, sysctls};

#[test]
fn the_cable_is_pulled_and_put_back() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        rig.client.ip("link set c0 down");
        rig.await_state("waiting-for-cable");
        assert_eq!(ip("-4 -o addr show dev down0"), "");
        rig.client.ip("link set c0 up");
        rig.await_state("bridging");
        eventually("the printer is reached again", || rig.router.pings(PRINTER));
    });
}

#[test]
fn the_uplink_is_lost_and_found() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        rig.router.ip("link set r0 down");
        rig.await_state("waiting-for-uplink");
        rig.router.ip("link set r0 up");
        rig.await_state("bridging");
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
    });
}

#[test]
fn an_uplink_whose_keys_are_not_agreed_on_is_none() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        // What a supplicant does: the interface goes dormant with the carrier that comes, until it is told otherwise.
        ip("link set up0 mode dormant");
        let _agent = rig.start_bridging();
        rig.router.ip("link set r0 down");
        rig.await_state("waiting-for-uplink");
        rig.router.ip("link set r0 up");
        eventually("the uplink is dormant", || {
            ip("link show up0").contains("DORMANT")
        });
        assert_eq!(rig.status().unwrap()["state"], "waiting-for-uplink");
        ip("link set up0 state up");
        rig.await_state("bridging");
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
    });
}

#[test]
fn the_wired_interface_is_deleted_and_made_again() {
    in_namespace(|rig| {
        let _agent = rig.start_bridging();
        ip("link del down0");
        rig.await_state("waiting-for-cable");
        assert!(rig.status().unwrap()["downlink"]["index"].is_null());
        rig.plug_client();
        rig.make_client_a_printer();
        rig.await_state("bridging");
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
    });
}

#[test]
fn a_renamed_interface_stays_bridged_and_gets_its_settings_back() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let before = sysctls();
        let agent = rig.start_bridging();
        ip("link set down0 down");
        ip("link set down0 name lan0");
        ip("link set lan0 up");
        eventually("the agent bridges over the new name", || {
            ip("-4 -o addr show dev lan0").contains("192.168.77.2/32")
        });
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        assert_eq!(agent.terminate(), Some(0));
        ip("link set lan0 down");
        ip("link set lan0 name down0");
        assert_eq!(sysctls(), before);
    });
}

#[test]
fn interfaces_missing_at_the_start_are_awaited() {
    in_namespace(|rig| {
        ip("link del down0");
        ip("link set up0 down");
        let _agent = rig.start_agent();
        rig.await_state("waiting-for-uplink");
        ip("link set up0 up");
        rig.await_state("waiting-for-cable");
        rig.plug_client();
        rig.await_state("bridging");
    });
}

#[test]
fn the_uplinks_address_changes() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        ip("addr add 192.168.77.3/24 dev up0");
        ip("addr del 192.168.77.2/24 dev up0");
        // The first address takes the second along, as an ordinary DHCP change does, unless the kernel promotes it.
        if !ip("-4 -o addr show dev up0").contains("192.168.77.3") {
            ip("addr add 192.168.77.3/24 dev up0");
        }
        eventually("the clone follows", || {
            let addresses = ip("-4 -o addr show dev down0");
            addresses.contains("192.168.77.3/32") && !addresses.contains("192.168.77.2/32")
        });
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        eventually("the client reaches the router", || rig.client.pings(ROUTER));
    });
}

#[test]
fn hosts_are_reached_again_after_all_addresses_of_the_wire_were_flushed() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let before = network_state();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        ip("addr flush dev down0");
        eventually("the printer's route and neighbour are there again", || {
            ip("-4 route show dev down0").contains(PRINTER)
                && ip("-4 neigh show dev down0").contains("PERMANENT")
        });
        eventually("the printer is reached again", || rig.router.pings(PRINTER));
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn somebody_elses_route_takes_no_host_away_for_good() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let before = network_state();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        let others = [
            format!("{PRINTER}/32 dev up0"),
            format!("blackhole {PRINTER}/32"),
        ];
        for other in others {
            ip(&format!("route replace {other}"));
            eventually("the printer's route is there again", || {
                ip("-4 route show dev down0").contains(PRINTER)
            });
            eventually("the printer is reached again", || rig.router.pings(PRINTER));
        }
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn a_taken_port_67_is_reported_until_it_is_free() {
    in_namespace(|rig| {
        let other = UdpSocket::bind("0.0.0.0:67").unwrap();
        let _agent = rig.start_bridging();
        let status = rig.status().unwrap();
        assert!(status["problems"].to_string().contains("67"), "{status:#}");
        drop(other);
        eventually("the port is held after all", || {
            let status = rig.status();
            status.is_some_and(|status| !status["problems"].to_string().contains("67"))
        });
    });
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    in_namespace(|rig| {
        let _agent = rig.start_bridging();
        let second = rig.agent_command().output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        let stderr = String::from_utf8(second.stderr).unwrap();
        assert!(stderr.contains("another agent is running"), "{stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
        rig.await_state("bridging");
    });
}

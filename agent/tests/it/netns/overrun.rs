//! More news than the agent fetches at a time, and more than the kernel keeps for an agent that does not fetch it.

use std::fs;

use super::in_namespace;
use super::rig::{PRINTER, Rig, eventually, ip, ip_batch, network_state};

/// Changes that fill the receive buffer many times over and leave nothing behind.
fn flood() -> String {
    let mut flood = String::new();
    for host in 0..2000 {
        let (high, low) = (host / 250, host % 250);
        for verb in ["add", "del"] {
            flood += &format!("addr {verb} 10.9.{high}.{low}/32 dev lo\n");
        }
    }
    flood
}

fn overruns(rig: &Rig) -> usize {
    let log = fs::read_to_string(rig.dir.path().join("agent.log")).unwrap();
    log.matches("netlink notifications were lost").count()
}

#[test]
fn what_was_lost_is_read_and_what_is_older_is_not_believed() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let before = network_state();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        agent.signal("STOP");
        // Of this the kernel keeps the notifications: the uplink loses its address, and its default route with it.
        ip("addr del 192.168.77.2/24 dev up0");
        ip_batch(&flood());
        // Of this it keeps none: all is as it was, but for the printer's route.
        ip("addr add 192.168.77.2/24 dev up0");
        ip("route add default via 192.168.77.1 dev up0");
        ip(&format!("route del {PRINTER} dev down0"));
        agent.signal("CONT");
        eventually("the agent knows that it missed something", || {
            overruns(rig) > 0
        });
        // What follows is notified again: had it believed the old ones, it would be waiting for the uplink here.
        rig.client.ip("link set c0 down");
        rig.await_state("waiting-for-cable");
        rig.client.ip("link set c0 up");
        rig.await_state("bridging");
        eventually("the printer is reached again", || rig.router.pings(PRINTER));
        assert_eq!(agent.terminate(), Some(0));
        assert_eq!(network_state(), before);
    });
}

#[test]
fn what_is_lost_while_the_agent_reads_is_read_after_all() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        let flood = flood();
        agent.signal("STOP");
        ip_batch(&flood);
        agent.signal("CONT");
        // The agent is reading when this comes, or has just read.
        ip_batch(&flood);
        ip(&format!("route del {PRINTER} dev down0"));
        eventually("the printer's route is there again", || {
            ip("-4 route show dev down0").contains(PRINTER)
        });
        assert!(overruns(rig) > 0);
        assert_eq!(agent.terminate(), Some(0));
    });
}

#[test]
fn news_at_the_end_of_what_is_fetched_at_a_time_is_not_lost() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let agent = rig.start_bridging();
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        // The agent fetches 64 at a time. What else there is to notify makes the exact place uncertain.
        for before in 58..=68 {
            let others: String = (0..before)
                .map(|number| match number % 2 {
                    0 => "route add 10.9.0.1 dev lo\n",
                    _ => "route del 10.9.0.1 dev lo\n",
                })
                .collect();
            agent.signal("STOP");
            ip_batch(&format!("{others}route del {PRINTER} dev down0\n"));
            agent.signal("CONT");
            eventually("the printer's route is there again", || {
                ip("-4 route show dev down0").contains(PRINTER)
            });
            if before % 2 == 1 {
                ip("route del 10.9.0.1 dev lo");
            }
        }
        assert_eq!(overruns(rig), 0);
        assert_eq!(agent.terminate(), Some(0));
    });
}

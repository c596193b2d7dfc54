//! What happens to the box and around it: two networks, a fixed host on the wire, one that wanders, and a DHCP client.

use std::time::{Duration, Instant};

use super::super::dnsmasq;
use super::super::rig::{Agent, Rig, eventually, ip, write_script};
use super::flood::flood;

/// The third number of the two networks that the uplink joins.
const NETWORKS: [u8; 2] = [77, 88];

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    CableFlap,
    AccessPointFlap,
    UplinkDownAndUp,
    UplinkAddress,
    OtherNetwork,
    MoveAnnounced,
    MoveUnannounced,
    Lease,
    Flood,
    Sweep,
    Kill,
}

impl Event {
    /// Draws one; flaps and moves are the most common.
    pub(super) fn any(mut below: impl FnMut(u64) -> u64, kills: bool) -> Event {
        const ALL: [(u64, Event); 11] = [
            (26, Event::CableFlap),
            (22, Event::AccessPointFlap),
            (6, Event::UplinkDownAndUp),
            (8, Event::UplinkAddress),
            (4, Event::OtherNetwork),
            (10, Event::MoveAnnounced),
            (8, Event::MoveUnannounced),
            (6, Event::Lease),
            (4, Event::Flood),
            (2, Event::Sweep),
            (4, Event::Kill),
        ];
        let mut drawn = below(if kills { 100 } else { 96 });
        for (weight, event) in ALL {
            if drawn < weight {
                return event;
            }
            drawn -= weight;
        }
        Event::CableFlap
    }
}

/// The rig and what is to be known of it.
pub(super) struct World<'r> {
    rig: &'r mut Rig,
    agent: Option<Agent>,
    network: usize,
    /// The last number of the uplink's address.
    uplink: u8,
    wanderer_on_wire: bool,
}

impl World<'_> {
    /// Sets the scene; the second time, it is there.
    pub(super) fn begin(rig: &mut Rig) -> World<'_> {
        rig.log_level = "info";
        let scene = !rig.client.ip("-4 -o addr show dev c0").contains("77.50");
        if scene {
            rig.make_client_a_printer();
            rig.client.ip("addr add 192.168.88.50/24 dev c0");
            rig.client.ip("addr add 192.168.77.60/24 dev c0");
            rig.router.ip("addr add 192.168.88.1/24 dev r0");
            let other = "--dhcp-range=192.168.88.100,192.168.88.150,255.255.255.0,1h";
            dnsmasq::start(rig, &[dnsmasq::POOL, other]);
            write_script(&rig.dir.path().join("nothing.sh"), "#!/bin/sh\n");
        }
        World {
            rig,
            agent: None,
            network: 0,
            uplink: 2,
            wanderer_on_wire: true,
        }
    }

    pub(super) fn start(&mut self) {
        self.agent = Some(self.rig.start_agent());
        self.rig.await_state("bridging");
    }

    pub(super) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, |agent| agent.0.id())
    }

    /// Has the agent end, which is to succeed.
    pub(super) fn end(&mut self) {
        let agent = self.agent.take().unwrap();
        assert_eq!(agent.terminate(), Some(0));
    }

    /// Does one thing, without waiting for what the agent makes of it.
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::CableFlap => {
                self.rig.client.ip("link set c0 down");
                self.rig.client.ip("link set c0 up");
            }
            Event::AccessPointFlap => {
                self.rig.router.ip("link set r0 down");
                self.rig.router.ip("link set r0 up");
            }
            Event::UplinkDownAndUp => {
                ip("link set up0 down");
                ip("link set up0 up");
                self.route();
            }
            Event::UplinkAddress => {
                let next = if self.uplink == 2 { 3 } else { 2 };
                self.readdress(self.network, next);
            }
            Event::OtherNetwork => self.readdress(1 - self.network, self.uplink),
            Event::MoveAnnounced => self.wander(true),
            Event::MoveUnannounced => self.wander(false),
            Event::Lease => self.lease(),
            Event::Flood => {
                let network = NETWORKS[self.network];
                flood(&self.rig.client, "c0", network);
                flood(&self.rig.router, "r0", network);
            }
            Event::Sweep => self.sweep(),
            Event::Kill => {
                if let Some(agent) = self.agent.take() {
                    agent.kill();
                }
                self.agent = Some(self.rig.start_agent());
            }
        }
    }

    fn readdress(&mut self, network: usize, last: u8) {
        let old = format!("192.168.{}.{}/24", NETWORKS[self.network], self.uplink);
        let new = format!("192.168.{}.{last}/24", NETWORKS[network]);
        ip(&format!("addr del {old} dev up0"));
        ip(&format!("addr add {new} dev up0"));
        (self.network, self.uplink) = (network, last);
        self.route();
    }

    fn route(&self) {
        let gateway = self.address(1);
        ip(&format!("route replace default via {gateway} dev up0"));
    }

    fn address(&self, last: u8) -> String {
        format!("192.168.{}.{last}", NETWORKS[self.network])
    }

    /// The wanderer's address changes sides; unannounced, it is seen by what its host sends.
    fn wander(&mut self, announced: bool) {
        let (rig, address) = (&self.rig, "192.168.77.60");
        let ends = [(&rig.client, "c0"), (&rig.router, "r0")];
        let (from, to) = if self.wanderer_on_wire {
            (0, 1)
        } else {
            (1, 0)
        };
        let (left, left_port) = ends[from];
        let (joined, joined_port) = ends[to];
        left.ip(&format!("addr del {address}/24 dev {left_port}"));
        joined.ip(&format!("addr add {address}/24 dev {joined_port}"));
        let witness = if self.wanderer_on_wire {
            "192.168.77.50"
        } else {
            "192.168.77.1"
        };
        // The frame is sent at once; nobody waits for an answer.
        let word: &[&str] = if announced {
            &["arping", "-q", "-U", "-c", "1", "-I", joined_port, address]
        } else {
            &["busybox", "ping", "-c", "1", "-I", address, witness]
        };
        joined.run(&[&["timeout", "0.1"], word].concat());
        self.wanderer_on_wire = !self.wanderer_on_wire;
    }

    /// A whole lease: asked for, given, and released.
    fn lease(&self) {
        self.await_reach();
        let script = self.rig.dir.path().join("nothing.sh");
        let script = script.display().to_string();
        let client = [
            "busybox", "udhcpc", "-i", "c0", "-f", "-q", "-n", "-R", "-t", "10", "-T", "1", "-s",
        ];
        let output = self.rig.client.run(&[&client[..], &[&script]].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no lease: {text}");
    }

    /// Somebody on either side asks for addresses that nobody has.
    fn sweep(&self) {
        for (namespace, port) in [(&self.rig.router, "r0"), (&self.rig.client, "c0")] {
            for last in 240..243 {
                let target = self.address(last);
                let arping = ["arping", "-q", "-c", "1", "-I", port, &target];
                namespace.run(&[&["timeout", "0.02"], &arping[..]].concat());
            }
        }
    }

    /// Waits until the fixed host and the router reach each other.
    pub(super) fn await_reach(&self) {
        let (host, router) = (self.address(50), self.address(1));
        self.eventually_pings("the router reaches the host", true, &host);
        self.eventually_pings("the host reaches the router", false, &router);
    }

    fn eventually_pings(&self, what: &str, from_router: bool, to: &str) {
        let from = if from_router {
            &self.rig.router
        } else {
            &self.rig.client
        };
        // Who does not answer now answers the next one, and nobody waits for a whole second in between.
        let ping = ["timeout", "0.2", "busybox", "ping", "-c", "1", to];
        eventually(what, || from.run(&ping).status.success());
    }

    /// Puts everything back to where it was in the beginning, and waits until the agent has seen it.
    pub(super) fn settle(&mut self) {
        if !self.wanderer_on_wire {
            self.wander(true);
        }
        if (self.network, self.uplink) != (0, 2) {
            self.readdress(0, 2);
        }
        let start = Instant::now();
        self.await_reach();
        self.rig.await_state("bridging");
        eventually("the router reaches the wanderer", || {
            self.rig.router.pings("192.168.77.60")
        });
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

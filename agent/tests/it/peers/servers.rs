//! The DHCP servers, each with a pool of fifty addresses, and how each is told so.

use std::fs;
use std::path::Path;

use super::deaf_server;
use crate::netns::dnsmasq;
use crate::netns::rig::{Rig, eventually};
use crate::skip::missing_tools;

/// A DHCP server.
pub(super) struct Server {
    pub(super) name: &'static str,
    /// Its program; empty for the one that is part of this test.
    program: &'static str,
    start: fn(&mut Rig),
}

pub(super) const SERVERS: [Server; 5] = [
    Server {
        name: "deaf",
        program: "",
        start: |rig| deaf_server::start(&rig.router),
    },
    Server {
        name: "dhcpd",
        program: "dhcpd",
        start: start_dhcpd,
    },
    Server {
        name: "dnsmasq",
        program: "dnsmasq",
        start: start_dnsmasq,
    },
    Server {
        name: "kea",
        program: "kea-dhcp4",
        start: start_kea,
    },
    Server {
        name: "udhcpd",
        program: "busybox",
        start: start_udhcpd,
    },
];

impl Server {
    /// Returns the program that is not installed, if so.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let needed = [self.program];
        let missing = !self.program.is_empty() && !missing_tools(&needed).is_empty();
        missing.then_some(self.program)
    }

    /// Starts the server on the router.
    pub(super) fn start(&self, rig: &mut Rig) {
        (self.start)(rig);
    }
}

fn write(rig: &Rig, name: &str, text: &str) -> String {
    let path = rig.dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn await_word(rig: &Rig, name: &str, word: &str) {
    let log = rig.dir.path().join(format!("{name}.log"));
    let says = |path: &Path| fs::read_to_string(path).is_ok_and(|log| log.contains(word));
    eventually(&format!("{name} says {word}"), || says(&log));
}

fn start_dnsmasq(rig: &mut Rig) {
    let renewal = "--dhcp-option=option:T1,3";
    dnsmasq::start(rig, &[dnsmasq::POOL, dnsmasq::ROUTER, renewal]);
}

fn start_kea(rig: &mut Rig) {
    let config = write(
        rig,
        "kea.json",
        r#"{"Dhcp4": {
            "interfaces-config": {"interfaces": ["r0"], "dhcp-socket-type": "raw"},
            "lease-database": {"type": "memfile", "persist": false},
            "authoritative": true,
            "valid-lifetime": 3600, "renew-timer": 3, "rebind-timer": 3000,
            "subnet4": [{
                "id": 1, "subnet": "192.168.77.0/24",
                "pools": [{"pool": "192.168.77.100-192.168.77.150"}],
                "option-data": [{"name": "routers", "data": "192.168.77.1"}]
            }],
            "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]
        }}"#,
    );
    let dir = rig.dir.path().display().to_string();
    let (pid, lock) = (
        format!("KEA_PIDFILE_DIR={dir}"),
        format!("KEA_LOCKFILE_DIR={dir}"),
    );
    rig.start_on_router("kea", &["env", &pid, &lock, "kea-dhcp4", "-c", &config]);
    await_word(rig, "kea", "DHCP4_STARTED");
}

fn start_dhcpd(rig: &mut Rig) {
    let config = write(
        rig,
        "dhcpd.conf",
        "authoritative;\ndefault-lease-time 3600;\nping-check false;\noption dhcp-renewal-time 3;\n\
         subnet 192.168.77.0 netmask 255.255.255.0 {\n\
         range 192.168.77.100 192.168.77.150;\noption routers 192.168.77.1;\n}\n",
    );
    let leases = write(rig, "dhcpd.leases", "");
    let arguments = [
        "dhcpd", "-4", "-f", "-d", "--no-pid", "-cf", &config, "-lf", &leases, "r0",
    ];
    rig.start_on_router("dhcpd", &arguments);
    await_word(rig, "dhcpd", "Server starting service");
}

fn start_udhcpd(rig: &mut Rig) {
    let leases = write(rig, "udhcpd.leases", "");
    let pid = rig.dir.path().join("udhcpd.pid").display().to_string();
    let config = write(
        rig,
        "udhcpd.conf",
        &format!(
            "start 192.168.77.100\nend 192.168.77.150\ninterface r0\noption subnet 255.255.255.0\n\
             option router 192.168.77.1\noption lease 3600\noption 0x3a 00000003\noption 0x3b 00000009\n\
             lease_file {leases}\npidfile {pid}\n"
        ),
    );
    let arguments = ["busybox", "udhcpd", "-f", "-I", "192.168.77.1", &config];
    rig.start_on_router("udhcpd", &arguments);
    await_word(rig, "udhcpd", "started");
}

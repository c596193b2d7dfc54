//! Avahi on both sides: each finds the other's services, nobody is renamed, and a service that ends is gone (M3).
//!
//! Each daemon has a message bus and a `/run` of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use super::in_namespace;
use super::namespace::Namespace;
use super::rig::{PRINTER, ROUTER, Rig, eventually, frames_sent};
use crate::skip::{missing_tools, skip};

const TOOLS: [&str; 4] = [
    "avahi-daemon",
    "avahi-browse",
    "avahi-publish",
    "dbus-daemon",
];

/// A running daemon; it and its bus are ended with the value.
struct Avahi {
    bus: String,
    dir: PathBuf,
    processes: Vec<Child>,
}

impl Avahi {
    /// Starts a daemon for a host with the name.
    fn start(rig: &Rig, place: &Namespace, name: &str, settings: &str) -> Avahi {
        let dir = rig.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("bus");
        let bus = format!("unix:path={}", socket.display());
        let policy = "<policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                      <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy>";
        fs::write(
            dir.join("bus.conf"),
            format!("<busconfig><listen>{bus}</listen><auth>EXTERNAL</auth>{policy}</busconfig>"),
        )
        .unwrap();
        fs::write(
            dir.join("avahi.conf"),
            format!(
                "[server]\nhost-name={name}\nuse-ipv4=yes\nuse-ipv6=no\n[wide-area]\nenable-wide-area=no\n\
                 [publish]\npublish-workstation=no\n{settings}"
            ),
        )
        .unwrap();
        let mut avahi = Avahi {
            bus,
            dir,
            processes: Vec::new(),
        };
        let config = format!("--config-file={}", avahi.dir.join("bus.conf").display());
        avahi.spawn(place, &["dbus-daemon", &config, "--nofork", "--nopidfile"]);
        eventually("the message bus listens", || socket.exists());
        // The only user here is root, so the daemon's is made the same.
        fs::write(avahi.dir.join("passwd"), "avahi:x:0:0::/:/bin/false\n").unwrap();
        fs::write(avahi.dir.join("group"), "avahi:x:0:\nnetdev:x:0:\n").unwrap();
        let script = "mount -t tmpfs tmpfs /run && for file in passwd group; do \
                      mount --bind \"$0/$file\" \"/etc/$file\" || exit; done; exec \"$@\"";
        let dir = avahi.dir.display().to_string();
        let config = format!("--file={}", avahi.dir.join("avahi.conf").display());
        avahi.spawn(
            place,
            &[
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
                &dir,
                "avahi-daemon",
                "--no-rlimits",
                "--no-drop-root",
                "--no-chroot",
                &config,
            ],
        );
        eventually(&format!("avahi of {name} serves"), || {
            avahi.log().contains("Server startup complete")
        });
        avahi
    }

    fn spawn(&mut self, place: &Namespace, arguments: &[&str]) -> usize {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let child = place
            .command(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.push(child);
        self.processes.len() - 1
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Offers a printer for as long as the process lives.
    fn publish(&mut self, place: &Namespace, service: &str) -> usize {
        self.spawn(place, &["avahi-publish", "-s", service, "_ipp._tcp", "631"])
    }

    /// Says goodbye for it.
    fn withdraw(&mut self, process: usize) {
        let mut child = self.processes.remove(process);
        let pid = child.id();
        let kill = std::process::Command::new("sh")
            .args(["-c", &format!("kill -TERM {pid}")])
            .status();
        assert!(kill.unwrap().success());
        child.wait().unwrap();
    }

    /// Returns the printers that are found, resolved to host and address.
    fn browse(&self, place: &Namespace) -> String {
        let output = place
            .command(&[
                "avahi-browse",
                "--parsable",
                "--resolve",
                "--terminate",
                "_ipp._tcp",
            ])
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn await_printer(&self, place: &Namespace, service: &str, host: &str, address: &str) {
        eventually(&format!("{service} is found"), || {
            self.browse(place).lines().any(|line| {
                let words: Vec<&str> = line.split(';').collect();
                words[0] == "=" && words[3] == service && words[6] == host && words[7] == address
            })
        });
    }

    fn await_absence(&self, place: &Namespace, service: &str) {
        eventually(&format!("{service} is gone"), || {
            !self.browse(place).contains(service)
        });
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.dir.display(), self.log());
        }
    }
}

fn have_tools(test: &str) -> bool {
    let missing = missing_tools(&TOOLS);
    if !missing.is_empty() {
        skip(test, &format!("no {}", missing.join(", ")));
    }
    missing.is_empty()
}

#[test]
fn m3_avahi_on_both_sides_find_each_others_services() {
    if !have_tools("m3_avahi_on_both_sides_find_each_others_services") {
        return;
    }
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        let mut wired = Avahi::start(rig, &rig.client, "desk", "");
        let mut uplink = Avahi::start(rig, &rig.router, "hall", "");
        let laser = wired.publish(&rig.client, "Laser");
        uplink.publish(&rig.router, "Inkjet");
        uplink.await_printer(&rig.router, "Laser", "desk.local", PRINTER);
        wired.await_printer(&rig.client, "Inkjet", "hall.local", ROUTER);
        wired.withdraw(laser);
        uplink.await_absence(&rig.router, "Laser");
        for avahi in [&wired, &uplink] {
            assert!(!avahi.log().contains("conflict"), "{}", avahi.log());
        }
    });
}

/// Puts a third machine into both segments, and returns its namespace.
fn join_both_segments(rig: &Rig) -> Namespace {
    let third = Namespace::hold();
    for (place, port, bridge, end, address) in [
        (&rig.router, "r0", "br0", "x0", "192.168.77.60/24"),
        (&rig.client, "c0", "br1", "x1", "192.168.77.61/24"),
    ] {
        let host = if port == "r0" { ROUTER } else { PRINTER };
        place.ip(&format!("link add {bridge} type bridge"));
        place.ip(&format!("link add {end} type veth peer name {end}p"));
        place.ip(&format!("link set {end} netns {}", third.pid()));
        place.ip(&format!("addr del {host}/24 dev {port}"));
        for port in [port, &format!("{end}p")] {
            place.ip(&format!("link set {port} master {bridge} up"));
        }
        place.ip(&format!("addr add {host}/24 dev {bridge}"));
        place.ip(&format!("link set {bridge} up"));
        third.ip(&format!("link set {end} up"));
        third.ip(&format!("addr add {address} dev {end}"));
    }
    third
}

#[test]
fn m5_a_second_reflector_begins_no_storm() {
    if !have_tools("m5_a_second_reflector_begins_no_storm") {
        return;
    }
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let third = join_both_segments(rig);
        let _agent = rig.start_bridging();
        let reflector = "[reflector]\nenable-reflector=yes\n";
        let _mirror = Avahi::start(rig, &third, "mirror", reflector);
        let mut wired = Avahi::start(rig, &rig.client, "desk", "");
        let mut uplink = Avahi::start(rig, &rig.router, "hall", "");
        let (frames, start) = (frames_sent(), Instant::now());
        let laser = wired.publish(&rig.client, "Laser");
        uplink.publish(&rig.router, "Inkjet");
        eventually("the printers are found", || {
            uplink.browse(&rig.router).contains("Laser")
                && wired.browse(&rig.client).contains("Inkjet")
        });
        wired.withdraw(laser);
        uplink.await_absence(&rig.router, "Laser");
        let seconds = start.elapsed().as_secs_f64();
        let frames = frames_sent() - frames;
        eprintln!("MEASURED frames sent beside a second reflector: {frames} in {seconds:.1} s");
        // A storm would be as many as the limits allow: 32 a second of a station's, with the ARP for it.
        assert!(
            frames as f64 <= 60.0 + 12.0 * seconds,
            "{frames} in {seconds:.1} s"
        );
    });
}

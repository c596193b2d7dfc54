//! The DHCP clients, and how each is started, told to renew and told to give its lease up.
//!
//! dhcpcd and networkd want to become users of their own, which an ordinary user's namespace does not have: they see a list
//! of users in which theirs is root's number, and folders for their state that are theirs alone.

use std::fs::{self, File};
use std::process::{Child, Command};

use crate::netns::rig::{Rig, write_script};
use crate::skip::missing_tools;

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// A DHCP client.
pub(super) struct Client {
    pub(super) name: &'static str,
    program: &'static str,
    /// The shell command line that becomes the client; `$DIR` is a folder of the test's.
    start: &'static str,
    renew: Request,
    release: Request,
}

/// How a client is told something.
enum Request {
    /// By a signal.
    Signal(&'static str),
    /// By a command line.
    Command(&'static str),
    /// Not at all: it does so by itself, or never.
    None,
}

pub(super) const CLIENTS: [Client; 4] = [
    Client {
        name: "dhclient",
        program: "dhclient",
        start: "exec dhclient -4 -d -v -cf /dev/null -sf $DIR/bound.sh -lf $DIR/dhclient.leases -pf $DIR/dhclient.pid c0",
        renew: Request::None,
        release: Request::Command(
            "dhclient -4 -r -cf /dev/null -sf $DIR/bound.sh -lf $DIR/dhclient.leases -pf $DIR/dhclient.pid c0",
        ),
    },
    Client {
        name: "dhcpcd",
        program: "dhcpcd",
        start: "mount --bind $DIR/passwd /etc/passwd; mount --bind $DIR/group /etc/group\n\
                mount -t tmpfs none /run; mount -t tmpfs none /var/lib\n\
                exec dhcpcd -4 -B -d -f /dev/null --script /bin/true c0",
        renew: Request::None,
        release: Request::Signal("ALRM"),
    },
    Client {
        name: "networkd",
        program: NETWORKD,
        start: "mount --bind $DIR/passwd /etc/passwd; mount --bind $DIR/group /etc/group\n\
                mount -t tmpfs none /run; mkdir -p /run/systemd/network /run/systemd/netif\n\
                cp $DIR/c0.network /run/systemd/network/\n\
                # A system that cannot be written to has no udev to wait for.\n\
                mount -t sysfs -o ro sysfs /sys\n\
                exec /lib/systemd/systemd-networkd",
        renew: Request::None,
        release: Request::None,
    },
    Client {
        name: "udhcpc",
        program: "busybox",
        start: "exec busybox udhcpc -i c0 -f -s $DIR/bound.sh",
        renew: Request::Signal("USR1"),
        release: Request::Signal("USR2"),
    },
];

/// What the clients run that leave the setting of addresses to a script.
const BOUND: &str = "#!/bin/sh
case \"$1$reason\" in
bound) ip addr add \"$ip/$mask\" dev \"$interface\" ;;
BOUND) ip addr add \"$new_ip_address/24\" dev \"$interface\" ;;
esac
";
const NETWORK: &str = "[Match]
Name=c0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
";

/// A client that runs; killed with the value.
pub(super) struct Running {
    client: &'static Client,
    process: Child,
    /// Begins a command in the client's network with `$DIR` set.
    dir: String,
}

impl Client {
    /// Returns the program that is not installed, if so.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let missing = match self.program.starts_with('/') {
            true => !fs::exists(self.program).unwrap(),
            false => !missing_tools(&[self.program]).is_empty(),
        };
        missing.then_some(self.program)
    }

    /// Starts the client on the wire.
    pub(super) fn start(&'static self, rig: &mut Rig) -> Running {
        let dir = rig.dir.path();
        write_script(&dir.join("bound.sh"), BOUND);
        let files = [
            (
                "passwd",
                "root:x:0:0::/:/bin/sh\nsystemd-network:x:0:0::/:/bin/false\n",
            ),
            ("group", "root:x:0:\nsystemd-network:x:0:\n"),
            ("c0.network", NETWORK),
            ("dhclient.leases", ""),
        ];
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let log = File::create(dir.join("client.log")).unwrap();
        let process = rig
            .client
            .command(&["unshare", "--mount", "sh", "-c", self.start])
            .env("DIR", dir)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running {
            client: self,
            process,
            dir: dir.display().to_string(),
        }
    }
}

impl Running {
    /// Whether the client can be told to give its lease up.
    pub(super) fn can_release(&self) -> bool {
        !matches!(self.client.release, Request::None)
    }

    pub(super) fn renew(&self, rig: &Rig) {
        self.ask(rig, &self.client.renew);
    }

    pub(super) fn release(&self, rig: &Rig) {
        self.ask(rig, &self.client.release);
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(format!("{}/client.log", self.dir)).unwrap_or_default()
    }

    fn ask(&self, rig: &Rig, request: &Request) {
        let line = match request {
            Request::None => return,
            Request::Signal(signal) => format!("kill -{signal} {}", self.process.id()),
            Request::Command(line) => (*line).to_owned(),
        };
        let mut command: Command = rig.client.command(&["sh", "-c", &line]);
        let output = command.env("DIR", &self.dir).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

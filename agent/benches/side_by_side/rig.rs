//! The machines of one measurement, fresh for each:
//!
//! ```text
//!  air: router                    box: a contender                 hosts: on the wire
//!  r0 (a switch) 10.77.0.1/20 --- wlan0 10.77.0.2/20   eth0 ------ c0
//!  02:..:01                       02:..:02             02:..:03    02:..:04
//! ```
//!
//! With `Layout::Switches` there is a second switch between `eth0` and `c0`, so that a host can change sides without the box
//! seeing a carrier go; with `Layout::OneSegment` both ports of the box are on the router's switch.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::contender::{Bridge, Contender, Programs};
use super::namespace::Namespace;
use super::wire::Mac;

pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 0, 4];
/// How long anything may take that is bound to happen; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is plugged where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Cable,
    Switches,
    OneSegment,
}

/// One measurement's machines; everything in them ends with the value.
pub(crate) struct Rig {
    pub(crate) air: Namespace,
    pub(crate) bridge_box: Namespace,
    pub(crate) hosts: Namespace,
    pub(crate) dir: tempfile::TempDir,
    helpers: Vec<Child>,
}

/// The wired host of a number.
pub(crate) fn host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 1, 1)) + number)
}

impl Rig {
    pub(crate) fn build(layout: Layout) -> Result<Rig> {
        let rig = Rig {
            air: Namespace::create()?,
            bridge_box: Namespace::create()?,
            hosts: Namespace::create()?,
            dir: tempfile::tempdir()?,
            helpers: Vec::new(),
        };
        rig.air.ip(&[
            "link add r0 address 02:00:00:00:00:01 type bridge mcast_snooping 0",
            "link set r0 up",
            "addr add 10.77.0.1/20 dev r0",
            "link add wire type bridge mcast_snooping 0",
            "link set wire up",
        ])?;
        // The second switch is only a switch: the router answers for none of its addresses there.
        rig.air
            .inside(|| Ok(fs::write("/proc/sys/net/ipv4/conf/wire/arp_ignore", "8")?))?;
        rig.bridge_box.ip(&[
            &format!(
                "link add wlan0 address 02:00:00:00:00:02 type veth peer name a0 netns {}",
                rig.air.path()
            ),
            // The broadcast address is what dhcp-helper sends to; DHCP clients set it.
            "addr add 10.77.0.2/20 brd + dev wlan0",
            "link set wlan0 up",
        ])?;
        rig.air.ip(&["link set a0 master r0 up"])?;
        rig.bridge_box
            .ip(&["route add default via 10.77.0.1 dev wlan0"])?;
        rig.plug(layout)?;
        eventually("both ports have a carrier", || {
            let links = rig.bridge_box.ip(&["link show wlan0", "link show eth0"])?;
            Ok(links.matches("LOWER_UP").count() == 2)
        })?;
        Ok(rig)
    }

    fn plug(&self, layout: Layout) -> Result<()> {
        let (box_path, hosts) = (self.bridge_box.path(), self.hosts.path());
        let eth0 = "address 02:00:00:00:00:03";
        let c0 = "address 02:00:00:00:00:04";
        match layout {
            Layout::Cable => {
                self.hosts.ip(&[&format!(
                    "link add c0 {c0} type veth peer name eth0 {eth0} netns {box_path}"
                )])?;
            }
            Layout::Switches | Layout::OneSegment => {
                let switch = if layout == Layout::Switches {
                    "wire"
                } else {
                    "r0"
                };
                self.air.ip(&[
                    format!("link add w0 type veth peer name eth0 {eth0} netns {box_path}"),
                    format!("link set w0 master {switch} up"),
                    format!("link add h0 type veth peer name c0 {c0} netns {hosts}"),
                    "link set h0 master wire up".to_owned(),
                ])?;
            }
        }
        self.hosts.ip(&["link set c0 up"])?;
        self.bridge_box.ip(&["link set eth0 up"])?;
        Ok(())
    }

    /// Gives the wired machine fixed addresses, without a word on the wire.
    pub(crate) fn give_addresses(&self, count: u32) -> Result<()> {
        let lines: Vec<String> = (0..count)
            .map(|number| format!("addr add {}/20 dev c0", host(number)))
            .collect();
        self.hosts.ip(&lines)?;
        Ok(())
    }

    /// Sets a contender to work in the box and waits until it is ready.
    pub(crate) fn start(&self, contender: Contender, programs: &Programs) -> Result<Bridge<'_>> {
        Bridge::start(contender, programs, self)
    }

    /// Starts a program on the router, its output in a file of its name.
    pub(crate) fn start_on_router(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let log = fs::File::create(self.log(name))?;
        let errors = log.try_clone()?;
        let child = self.air.inside(|| {
            Ok(Command::new(name)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .spawn()?)
        })?;
        self.helpers.push(child);
        Ok(())
    }

    pub(crate) fn log(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(format!("{name}.log"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

/// Waits for a condition, and fails if it does not come.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain until {what}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

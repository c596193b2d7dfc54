//! What is compared: the recipe people follow, Footbridge, and plain routing, which is what the kernel does with nobody's help.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::process::{self, Usage};
use super::rig::{Rig, eventually, host};

/// A way to bring a wired host onto the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// parprouted and dhcp-helper, as the guides on the web set them up.
    Recipe,
    Footbridge,
    /// A static route for one host, and no daemon.
    PlainRouting,
}

impl Contender {
    pub(crate) const ALL: [Contender; 3] = [
        Contender::Recipe,
        Contender::Footbridge,
        Contender::PlainRouting,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Recipe => "recipe",
            Contender::Footbridge => "footbridge",
            Contender::PlainRouting => "routing",
        }
    }
}

/// The programs under measurement.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) footbridge: PathBuf,
    pub(crate) parprouted: PathBuf,
    pub(crate) dhcp_helper: PathBuf,
}

/// A contender at work in a rig's box; its processes end with the value.
pub(crate) struct Bridge<'a> {
    rig: &'a Rig,
}

impl<'a> Bridge<'a> {
    pub(super) fn start(
        contender: Contender,
        programs: &Programs,
        rig: &'a Rig,
    ) -> Result<Bridge<'a>> {
        let bridge = Bridge { rig };
        match contender {
            Contender::Recipe => bridge.start_recipe(programs),
            Contender::Footbridge => bridge.start_footbridge(programs),
            Contender::PlainRouting => bridge.route(),
        }
        .with_context(|| format!("while starting {}", contender.name()))?;
        Ok(bridge)
    }

    /// The steps of the guides: address cloned to the wired port, forwarding, promiscuous radio, both daemons.
    fn start_recipe(&self, programs: &Programs) -> Result<()> {
        let bridge_box = &self.rig.bridge_box;
        bridge_box.ip(&[
            "link set wlan0 promisc on",
            "addr add 10.77.0.2/32 dev eth0",
        ])?;
        self.allow_forwarding()?;
        let pid_file = self.rig.dir.path().join("dhcp-helper.pid");
        self.run(Command::new(&programs.parprouted).args(["eth0", "wlan0"]))?;
        self.run(
            Command::new(&programs.dhcp_helper)
                .args(["-b", "wlan0", "-r"])
                .arg(pid_file),
        )?;
        eventually("the recipe listens", || {
            let listening = bridge_box.inside(|| {
                let packet = fs::read_to_string("/proc/thread-self/net/packet")?;
                let udp = fs::read_to_string("/proc/thread-self/net/udp")?;
                Ok(packet.matches(" 0806 ").count() == 2 && udp.contains("00000000:0043"))
            })?;
            Ok(listening)
        })
    }

    fn start_footbridge(&self, programs: &Programs) -> Result<()> {
        let run_dir = self.rig.dir.path().join("run");
        let log = fs::File::create(self.rig.log("footbridge"))?;
        self.rig.bridge_box.inside(|| {
            Command::new(&programs.footbridge)
                .args(["run", "--uplink", "wlan0", "--downlink", "eth0"])
                .arg("--run-dir")
                .arg(&run_dir)
                .env_clear()
                .stdin(Stdio::null())
                .stderr(log)
                .spawn()
                .context("while starting footbridge")
        })?;
        eventually("footbridge has made up its mind", || {
            let output = Command::new(&programs.footbridge)
                .args(["status", "--json", "--run-dir"])
                .arg(&run_dir)
                .output()?;
            let status: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            Ok(["bridging", "loop"]
                .iter()
                .any(|state| status["state"] == *state))
        })
        .with_context(|| fs::read_to_string(self.rig.log("footbridge")).unwrap_or_default())
    }

    fn route(&self) -> Result<()> {
        self.allow_forwarding()?;
        let host = host(0);
        let bridge_box = &self.rig.bridge_box;
        bridge_box.ip(&[
            "addr add 10.77.0.2/32 dev eth0",
            &format!("route add {host}/32 dev eth0"),
        ])?;
        self.rig
            .air
            .ip(&[&format!("route add {host}/32 via 10.77.0.2 dev r0")])?;
        self.rig
            .hosts
            .ip(&["route add 10.77.0.1/32 via 10.77.0.2 dev c0"])?;
        Ok(())
    }

    fn allow_forwarding(&self) -> Result<()> {
        self.rig
            .bridge_box
            .inside(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
    }

    /// Runs a program that puts itself into the background.
    fn run(&self, command: &mut Command) -> Result<()> {
        let program = command.get_program().display().to_string();
        let status = self.rig.bridge_box.inside(|| {
            command
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ok(command.status()?)
        });
        let status = status.with_context(|| format!("while starting {program}"))?;
        if !status.success() {
            bail!("{program}: {status}");
        }
        Ok(())
    }

    /// Returns what the contender's processes have used so far, by process.
    pub(crate) fn usage(&self) -> Result<BTreeMap<u32, Usage>> {
        let identity = self.rig.bridge_box.identity()?;
        Ok(process::in_network(&identity)
            .into_iter()
            .filter_map(|pid| Usage::load(pid).map(|usage| (pid, usage)))
            .collect())
    }
}

impl Drop for Bridge<'_> {
    fn drop(&mut self) {
        if let Ok(identity) = self.rig.bridge_box.identity() {
            process::kill_in_network(&identity);
        }
    }
}

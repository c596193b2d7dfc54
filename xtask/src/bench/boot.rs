//! `cargo xtask bench boot`: how long an image takes to bridge, beside the same packages as Debian sets them up.
//!
//! The Debian system is debootstrap's, with the packages' own scripts run in a guest (`xtask/recipe/second-stage`), Debian's initramfs, a
//! root that can be written to, and the services as they come; what the bridge needs of settings and the agent are the image's. Both boot
//! on the same emulated machine among the same simulated networks, in turns, each time from the same state.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use imagegen::board::{Board, Bus, Emulator};
use imagegen::make::disk::ImageFormat;
use imagegen::make::initramfs::write_cpio;
use imagegen::make::rootfs::AGENT_PATH;
use imagegen::mirror::{Archive, without_password};
use imagegen::plan::Place;
use imagegen::tree::{Node, Tree};
use xshell::Shell;

use super::results::{Contender, Goal, Measure, Results, Unit};
use crate::guest::{Check, Guest, Heard, parse_check};
use crate::image::{self, Job, Outcome};
use crate::networks::Networks;
use crate::progress::Bars;
use crate::qemu::{Boot, Load, Machine};
use crate::rig::{self, Errand};
use crate::source::Source;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;
use crate::{boards, interrupt, tools};

/// What to boot, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// Board whose image to boot: one on a virtual machine
    #[arg(long, default_value = "virt")]
    board: String,
    /// Boots of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where all samples go [default: bench/boot.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

const BRIDGING: Measure = Measure {
    name: "kernel's start to bridging",
    unit: Unit::Seconds,
    goal: Goal::Ratio(0.5),
    limits: "By the guest's clock. Firmware and the loading of kernel and initramfs are left out: Debian's is several times as large. The \
             simulated radio and its networks are set up by the guest itself, which is part of the time of both.",
};
const SERVICES: Measure = Measure {
    name: "of which until services start",
    unit: Unit::Seconds,
    goal: Goal::None,
    limits: "Until a service that waits for nothing of its own runs its first line.",
};

/// All measures, in the table's order.
const MEASURES: [&Measure; 2] = [&BRIDGING, &SERVICES];

/// The Debian suite of the images.
const SUITE: &str = "trixie";
/// Debian's way to make an initramfs, and what the simulated radio's network needs of a system that is not read-only.
const DEBIAN_ALSO: &[&str] = &["initramfs-tools", "passwd"];
/// What the second stage needs of the kernel beside what an image's own initramfs has.
const DISK_MODULES: &[&str] = &["virtio_mmio", "virtio_blk", "ext4"];
/// The parts of the image's root that the bridge is made of, beside the agent. Whatever makes a start fast stays behind.
const BRIDGE: &[&str] = &[
    "etc/systemd/network/",
    "etc/systemd/system/footbridge.service",
    "etc/systemd/system/wpa_supplicant@.service.d/",
];

/// Room for a Debian system; the file is as large as what is in it.
const DISK_SIZE: u64 = 2 << 30;
/// Maintainer scripts, and an initramfs made, in an emulated machine whose host has other work.
const SECOND_STAGE_LIMIT: Duration = Duration::from_secs(3600);
/// A guest that takes longer to bridge hangs.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// Boots, and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let emulator = emulator(&board)?;
    let shell = Shell::new()?;
    tools::provide_debian(&shell)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let json = match &args.json {
        Some(path) => std::path::absolute(path)?,
        None => workspace.target.join("bench/boot.json"),
    };
    let bars = Bars::new();

    let output = scratch.path().join("image.img");
    let networks = Networks::new()?;
    let job = Job {
        board: &board,
        site: &networks.home.site,
        source: &args.source,
        output: &output,
        format: ImageFormat::Img,
        agent: None,
    };
    let (outcome, kit) = rig::build(&workspace, &job, &networks, Errand::PowerCuts, &bars)?;
    let debian = Debian {
        folder: scratch.path().join("debian"),
        emulator,
        image: &output,
        board: &board,
        country: board_country(&job),
    };
    debian.set_up(&workspace, &job, &outcome, &kit, &bars)?;

    let mut results = Results::default();
    let places = [scratch.path().join("ours"), scratch.path().join("theirs")];
    for place in &places {
        fs::create_dir(place)?;
    }
    for run in 0..=args.runs {
        let boot = Boot::among_networks(&output, &board, &kit);
        let mut ours = rig::emulator(&boot, &places[0])?;
        let mut theirs = debian.command(&places[1])?;
        for (contender, command) in [
            (Contender::Recipe, &mut theirs),
            (Contender::Footbridge, &mut ours),
        ] {
            let times = time(command)?;
            // A Debian system's first boot does more than its others.
            if run > 0 {
                results.add(&BRIDGING, contender, times.bridging.as_secs_f64());
                results.add(&SERVICES, contender, times.services.as_secs_f64());
            }
        }
        eprintln!("boot {run} of {}", args.runs);
    }
    print!("{}", results.table(&MEASURES));
    results.keep(&MEASURES, &args.board, &json)
}

fn emulator(board: &Board) -> Result<&Emulator> {
    let virtual_machine = board
        .emulator
        .as_ref()
        .filter(|emulator| emulator.bus == Bus::Virtio);
    virtual_machine.ok_or_else(|| {
        UsageError::new(
            format!("a Debian system for `{}` cannot be booted here", board.id),
            "its machine has to be a virtual one: --board virt",
        )
        .into()
    })
}

fn board_country(job: &Job) -> String {
    job.site
        .country
        .as_ref()
        .map_or_else(String::new, |country| {
            format!(" cfg80211.ieee80211_regdom={country}")
        })
}

/// The system that the image is compared with.
struct Debian<'a> {
    /// Holds its disk and what is made on the way to it.
    folder: PathBuf,
    emulator: &'a Emulator,
    image: &'a Path,
    board: &'a Board,
    /// What the command line says of the country, with a blank before it.
    country: String,
}

impl Debian<'_> {
    /// Has debootstrap fetch and unpack the packages, and a guest do the rest.
    fn set_up(
        &self,
        workspace: &Workspace,
        job: &Job,
        outcome: &Outcome,
        kit: &[u8],
        bars: &Bars,
    ) -> Result<()> {
        fs::create_dir(&self.folder)?;
        let mirror = job.source.mirror()?;
        let mirror = mirror.base(Archive::Main);
        if without_password(mirror) != mirror {
            return Err(Failure::new(
                "debootstrap would show the mirror's password to everybody on this machine",
                "name a mirror without one: --mirror URL",
            )
            .into());
        }
        let step = bars.step("fetching a Debian system");
        let root = self.folder.join("root");
        let packages = packages(outcome, self.board);
        call(
            Command::new("debootstrap")
                .args(["--foreign", "--variant=minbase"])
                .arg(format!("--arch={}", self.board.arch.debian_name()))
                .arg(format!("--include={}", packages.join(",")))
                .arg(SUITE)
                .arg(&root)
                .arg(mirror),
        )?;
        File::create(self.disk())?.set_len(DISK_SIZE)?;
        call(
            Command::new("mkfs.ext4")
                .args(["-q", "-d"])
                .args([&root, &self.disk()]),
        )?;
        drop(step);

        let step = bars.step("running its packages' scripts in a guest");
        let kernel = image::kernel(workspace, job.source, outcome, bars)?;
        let second_stage = fs::read(workspace.root.join("xtask/recipe/second-stage"))
            .context("while reading xtask/recipe/second-stage")?;
        let mut tree = Tree::new();
        tree.insert("init", Node::file(0o755, second_stage))?;
        let names: Vec<String> = DISK_MODULES.iter().map(ToString::to_string).collect();
        let mut order = String::new();
        for (path, bytes) in kernel.load_order(&names)? {
            let name = path.rsplit('/').next().unwrap_or(&path);
            tree.insert(format!("modules/{name}"), Node::file(0o644, bytes))?;
            order += &format!("/modules/{name}\n");
        }
        tree.insert("modules/order", Node::file(0o644, order.into_bytes()))?;
        tree.graft("overlay", bridge(workspace, outcome)?)?;
        let mut archive = Vec::new();
        write_cpio(&tree, outcome.prepared.lock.time()?, &mut archive)?;

        let boot = Boot::among_networks(self.image, self.board, &[]);
        let mut load = Load {
            initramfs: archive,
            command_line: format!("console={} quiet", self.board.console),
            ..boot.load()?
        };
        load.add_initramfs(kit);
        let begin = Instant::now();
        listen(
            &mut self.machine(&load, &self.folder)?,
            "E2E set up",
            SECOND_STAGE_LIMIT,
        )
        .context("while running the scripts of Debian's packages")?;
        drop(step);
        eprintln!("their scripts took {:.0} s", begin.elapsed().as_secs_f64());
        for name in ["kernel", "initramfs"] {
            call(
                Command::new("debugfs")
                    .arg("-R")
                    .arg(format!("dump /boot/{name} {name}"))
                    .arg(self.disk())
                    .current_dir(&self.folder),
            )?;
        }
        Ok(())
    }

    /// Returns what boots the system, from its disk as it is now.
    fn command(&self, scratch: &Path) -> Result<Command> {
        let read = |name: &str| {
            fs::read(self.folder.join(name))
                .with_context(|| format!("while reading Debian's {name}"))
        };
        let load = Load {
            kernel: read("kernel")?,
            initramfs: read("initramfs")?,
            device_tree: None,
            command_line: format!(
                "root=/dev/vda ro quiet console={} net.ifnames=0{}",
                self.board.console, self.country
            ),
        };
        self.machine(&load, scratch)
    }

    fn machine(&self, load: &Load, scratch: &Path) -> Result<Command> {
        let machine = Machine {
            emulator: self.emulator,
            disk: &self.disk(),
            wired_port: false,
        };
        let mut command = machine.prepare(load, scratch)?;
        command.args(["-monitor", "none", "-serial", "stdio"]);
        Ok(command)
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk.img")
    }
}

/// Returns the packages that the image has files of in its root, and the kernel's.
fn packages<'a>(outcome: &'a Outcome, board: &'a Board) -> Vec<&'a str> {
    let planned = outcome.prepared.plan.packages.iter();
    planned
        .filter(|(_, package)| package.place == Place::Root)
        .map(|(name, _)| name.as_str())
        .chain([board.kernel.package.as_str()])
        .chain(DEBIAN_ALSO.iter().copied())
        .collect()
}

/// Returns what makes a Debian system a bridge: the agent, its unit and its settings, and those of the services it works with.
fn bridge(workspace: &Workspace, outcome: &Outcome) -> Result<Tree> {
    let plan = &outcome.prepared.plan;
    let mut tree = Tree::new();
    for (path, planned) in &plan.root.nodes {
        let is_part = |part: &&str| path == part || part.ends_with('/') && path.starts_with(*part);
        if BRIDGE.iter().any(is_part) && !planned.node.is_directory() {
            tree.insert(path.clone(), planned.node.clone())?;
        }
    }
    for file in image::overlays(workspace)?.rules.site {
        if let Some(planned) = plan.boot.site.get(&file.name)
            && let Some(bytes) = planned.node.bytes()
        {
            tree.replace(file.destination, Node::file(file.mode, bytes.clone()))?;
        }
    }
    tree.insert(AGENT_PATH, Node::file(0o755, outcome.agent.clone()))?;
    Ok(tree)
}

/// When a guest came how far, after its kernel's start.
struct Times {
    services: Duration,
    bridging: Duration,
}

/// Boots until the guest bridges, and cuts its power.
fn time(command: &mut Command) -> Result<Times> {
    let checks = listen(command, "E2E bridging", BOOT_LIMIT)?;
    let position = checks.iter().position(|check| check.name == "bridging");
    let position = position.context("the kit says nothing of bridging")?;
    let bridging = parse_moment(&checks[position].detail)
        .with_context(|| format!("no moment: {}", checks[position].detail))?;
    let since_services: Duration = checks[..=position].iter().map(|check| check.took).sum();
    Ok(Times {
        services: bridging.saturating_sub(since_services),
        bridging,
    })
}

/// `at 12345 ms after boot`.
fn parse_moment(detail: &str) -> Option<Duration> {
    let number = detail.strip_prefix("at ")?.strip_suffix(" ms after boot")?;
    Some(Duration::from_millis(number.parse().ok()?))
}

/// Boots a guest and returns the checks that it reported until it said the word; one that failed ends everything.
fn listen(command: &mut Command, word: &str, limit: Duration) -> Result<Vec<Check>> {
    let deadline = Instant::now() + limit;
    let guest = Guest::start(command)?;
    let mut checks = Vec::new();
    let mut last = String::new();
    loop {
        match guest.listen(deadline) {
            Heard::Line(line) if line == word => return Ok(checks),
            Heard::Line(line) => match parse_check(&line) {
                Some(check) if check.passed => checks.push(check),
                Some(check) => bail!("{} failed: {}", check.name, check.detail),
                None => last = line,
            },
            Heard::Nothing => bail!("the guest is stuck; its last word: {last}"),
            Heard::End => bail!("the guest ended; its last word: {last}"),
        }
    }
}

/// Runs a program to its end; what it says is for when it fails.
fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("while starting {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(10)..];
        bail!("{name} ended with {}\n{}", output.status, last.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kits_moments_are_understood() {
        assert_eq!(
            parse_moment("at 12345 ms after boot"),
            Some(Duration::from_millis(12345))
        );
        assert_eq!(parse_moment("soon"), None);
    }
}

//! The simulated Wi-Fi networks that `e2e`, `power-cuts`, `site-boots` and `bench boot` boot an image among, as a second initramfs archive.
//!
//! It carries hostapd, dnsmasq and their libraries from the same signed packages as the image, the kernel's own simulated
//! radio (mac80211_hwsim) from the image's very kernel package, and `xtask/kit/`, which runs the checks. The image's init
//! lays the archive's `/overlay` over the root; nothing of the image itself is changed. `bench boot` copies it into the root of its
//! Debian system.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::make::disk::ImageFormat;
use imagegen::make::fetch::Fetcher;
use imagegen::make::initramfs::write_cpio;
use imagegen::make::kernel::Kernel;
use imagegen::recipe::Feature;
use imagegen::tree::{Node, Tree};

use crate::image::{self, Job, Outcome, Prepared};
use crate::networks::Networks;
use crate::progress::Bars;
use crate::qemu::{Boot, with_console};
use crate::source::{Offer, Security, Source, choose_beside, unpack};
use crate::workspace::Workspace;

/// Programs of the router and of the wired client.
const PACKAGES: &[&str] = &[
    "hostapd",
    "dnsmasq-base",
    "iw",
    "iproute2",
    "socat",
    "busybox-static",
];

/// The simulated radio, the cipher modes that mac80211 asks modprobe for, the routers' bridges, and the link that stands for the cable.
const MODULES: &[&str] = &[
    "ccm",
    "ctr",
    "cmac",
    "gcm",
    "bridge",
    "veth",
    "mac80211_hwsim",
];

/// A USB port that is plugged into another one of the same machine, and the driver that a computer has for what it finds there.
const USB_CABLE: &[&str] = &["cdc_ether", "dummy_hcd"];

/// Programs the scripts call that the image has no need of.
const APPLETS: &[&str] = &[
    "awk", "cat", "cmp", "cut", "date", "diff", "false", "find", "grep", "insmod", "kill",
    "killall", "ls", "mkdir", "mv", "nc", "ping", "rm", "sed", "seq", "sh", "sort", "sync", "tail",
    "test", "timeout", "touch", "tr", "true", "udhcpc", "usleep",
];

/// The guest's scripts.
const SCRIPTS: &[&str] = &[
    "air",
    "bridging",
    "client",
    "discovery",
    "hurrying",
    "lease",
    "moving",
    "power-cuts",
    "radio",
    "reboot",
    "record",
    "report",
    "roaming",
    "run",
    "sandbox",
    "sandboxed",
    "site-boots",
];

/// The folder of the archive that lies over the image's root.
pub const OVERLAY: &str = "overlay";

/// What the guest's scripts are there for.
#[derive(Clone, Copy, Debug)]
pub enum Errand {
    /// To check everything once, and end the guest.
    Checks,
    /// To bridge, and edit the card's files until the power is cut.
    PowerCuts,
    /// To bridge, and tell what became of the card's settings.
    SiteBoots,
}

impl Errand {
    fn script(self) -> &'static str {
        match self {
            Self::Checks => "run",
            Self::PowerCuts => "power-cuts",
            Self::SiteBoots => "site-boots",
        }
    }
}

/// Returns what is built for a boot among the networks: a card for the one at home.
pub fn job<'a>(
    board: &'a Board,
    networks: &'a Networks,
    source: &'a Source,
    output: &'a Path,
) -> Job<'a> {
    Job {
        board,
        site: &networks.home.site,
        source,
        output,
        format: ImageFormat::Img,
        agent: None,
    }
}

/// Builds an image; returns what it came of, and the archive that its guest needs beside it.
pub fn build(
    workspace: &Workspace,
    job: &Job,
    networks: &Networks,
    errand: Errand,
    bars: &Bars,
) -> Result<(Outcome, Vec<u8>)> {
    let outcome = image::build(workspace, job, bars)?;
    let rig = Rig {
        board: job.board,
        prepared: &outcome.prepared,
        kernel: &image::kernel(workspace, job.source, &outcome, bars)?,
        networks,
        errand,
    };
    let archive = rig.archive(workspace, job.source, bars)?;
    Ok((outcome, archive))
}

/// Returns the emulator for a boot among the networks, with the guest's console on its standard streams.
pub fn emulator(boot: &Boot, scratch: &Path) -> Result<Command> {
    Ok(with_console(boot.prepare(scratch)?))
}

/// A rig, before it is packed.
struct Rig<'a> {
    board: &'a Board,
    /// The image as it was planned.
    prepared: &'a Prepared,
    /// The image's kernel, whose modules the guest gets more of.
    kernel: &'a Kernel,
    /// The networks in the air.
    networks: &'a Networks,
    /// What the guest's scripts are there for.
    errand: Errand,
}

impl Rig<'_> {
    /// Fetches what the guest needs beside the image, and returns the archive.
    fn archive(&self, workspace: &Workspace, source: &Source, bars: &Bars) -> Result<Vec<u8>> {
        let fetcher = source.fetcher(workspace, bars)?;
        let offer = source.offer_for(
            &fetcher,
            std::slice::from_ref(self.board),
            Security::of(Some(&self.prepared.lock)),
        )?;
        let mut tree = programs(&fetcher, &offer, self.prepared)?;
        let cable: &[&str] = match self.board.features.contains(&Feature::Gadget) {
            true => USB_CABLE,
            false => &[],
        };
        let modules = add_modules(&mut tree, self.kernel, &[MODULES, cable].concat())?;
        add_kit(&mut tree, workspace)?;
        tree.insert("e2e/errand", Node::symlink(self.errand.script()))?;
        self.networks.describe(workspace, self.board, &mut tree)?;
        tree.insert(
            "e2e/modules/order",
            Node::file(0o644, (modules.join("\n") + "\n").into_bytes()),
        )?;
        let mut root = Tree::default();
        root.graft(OVERLAY, tree)?;
        let mut archive = Vec::new();
        write_cpio(&root, self.prepared.lock.time()?, &mut archive)?;
        Ok(archive)
    }
}

/// What the image has already is not looked for again; the overlay lets it through.
fn programs(fetcher: &Fetcher, offer: &Offer, prepared: &Prepared) -> Result<Tree> {
    let present = prepared
        .resolution
        .packages
        .keys()
        .filter(|name| *name != "busybox-static")
        .cloned()
        .collect();
    let chosen = choose_beside(offer, PACKAGES, present)?;
    let mut tree = Tree::new();
    for package in chosen.packages.values() {
        unpack(fetcher, package, &mut tree, |path| {
            path.starts_with("usr/") && !path.starts_with("usr/share")
        })?;
    }
    Ok(tree)
}

/// Adds the modules, uncompressed; returns their paths in the order in which they load.
fn add_modules(tree: &mut Tree, kernel: &Kernel, names: &[&str]) -> Result<Vec<String>> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut paths = Vec::new();
    for (path, bytes) in kernel.load_order(&names)? {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let inside = format!("e2e/modules/{name}");
        tree.insert(inside.clone(), Node::file(0o644, bytes))?;
        paths.push(format!("/{inside}"));
    }
    Ok(paths)
}

fn add_kit(tree: &mut Tree, workspace: &Workspace) -> Result<()> {
    let kit = workspace.root.join("xtask/kit");
    let read = |name: &str| {
        fs::read(kit.join(name)).with_context(|| format!("while reading xtask/kit/{name}"))
    };
    let busybox = tree
        .get("usr/bin/busybox")
        .context("busybox-static has no usr/bin/busybox")?
        .clone();
    tree.insert("e2e/busybox", busybox)?;
    for applet in APPLETS {
        tree.insert(format!("e2e/bin/{applet}"), Node::symlink("/e2e/busybox"))?;
    }
    for script in SCRIPTS {
        tree.insert(format!("e2e/{script}"), Node::file(0o755, read(script)?))?;
    }
    let unit = "etc/systemd/system/footbridge-e2e.service";
    tree.insert(unit, Node::file(0o644, read("footbridge-e2e.service")?))?;
    tree.insert(
        "etc/systemd/system/multi-user.target.wants/footbridge-e2e.service",
        Node::symlink(format!("/{unit}")),
    )?;
    Ok(())
}

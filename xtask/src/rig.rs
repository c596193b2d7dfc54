//! The simulated Wi-Fi network that `e2e` boots an image against, as a second initramfs archive.
//!
//! It carries hostapd, dnsmasq and their libraries from the same signed packages as the image, the kernel's own simulated
//! radio (mac80211_hwsim) from the image's very kernel package, and `xtask/kit/`, which runs the checks. The image's init
//! lays the archive's `/overlay` over the root; nothing of the image itself is changed.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use imagegen::make::fetch::Fetcher;
use imagegen::make::initramfs::write_cpio;
use imagegen::make::kernel::Kernel;
use imagegen::tree::{Node, Tree};

use crate::image::Prepared;
use crate::source::{choose_beside, unpack};
use crate::workspace::Workspace;

/// Programs of the router and of the wired client.
const PACKAGES: &[&str] = &[
    "hostapd",
    "dnsmasq-base",
    "iw",
    "iproute2",
    "busybox-static",
];

/// The simulated radio, the cipher modes that mac80211 asks modprobe for, and the link that stands for the cable.
const MODULES: &[&str] = &["ccm", "ctr", "cmac", "gcm", "veth", "mac80211_hwsim"];

/// Programs the scripts call that the image has no need of.
const APPLETS: &[&str] = &[
    "cat", "cut", "find", "grep", "insmod", "kill", "nc", "ping", "sed", "sh", "tail", "test",
    "timeout", "touch", "tr", "udhcpc", "usleep",
];

/// What the guest's scripts are told about the network.
pub struct Settings<'a> {
    /// Name of the network.
    pub ssid: &'a [u8],
    /// Its key, as 64 hex digits.
    pub pmk: String,
    /// Its country.
    pub country: &'a str,
}

/// Returns the archive.
pub fn archive(
    workspace: &Workspace,
    fetcher: &Fetcher,
    prepared: &Prepared,
    kernel: &Kernel,
    settings: &Settings,
) -> Result<Vec<u8>> {
    let mut tree = programs(fetcher, prepared)?;
    let modules = add_modules(&mut tree, kernel)?;
    add_kit(&mut tree, workspace, &render(settings, &modules))?;
    let mut root = Tree::default();
    root.graft("overlay", tree)?;
    let mut archive = Vec::new();
    write_cpio(&root, prepared.offer.time()?, &mut archive)?;
    Ok(archive)
}

/// What the image has already is not looked for again; the overlay lets it through.
fn programs(fetcher: &Fetcher, prepared: &Prepared) -> Result<Tree> {
    let present = prepared
        .resolution
        .packages
        .keys()
        .filter(|name| *name != "busybox-static")
        .cloned()
        .collect();
    let chosen = choose_beside(&prepared.offer, PACKAGES, present)?;
    let mut tree = Tree::new();
    for package in chosen.packages.values() {
        unpack(fetcher, package, &mut tree, |path| {
            path.starts_with("usr/") && !path.starts_with("usr/share")
        })?;
    }
    Ok(tree)
}

/// Adds the modules, uncompressed; returns their paths in the order in which they load.
fn add_modules(tree: &mut Tree, kernel: &Kernel) -> Result<Vec<String>> {
    let names: Vec<String> = MODULES.iter().map(ToString::to_string).collect();
    let mut paths = Vec::new();
    for path in kernel.index.closure(&names)? {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let inside = format!("e2e/modules/{name}");
        tree.insert(inside.clone(), Node::file(0o644, kernel.module(&path)?))?;
        paths.push(format!("/{inside}"));
    }
    Ok(paths)
}

fn add_kit(tree: &mut Tree, workspace: &Workspace, settings: &str) -> Result<()> {
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
    tree.insert("e2e/run", Node::file(0o755, read("run")?))?;
    tree.insert("e2e/lease", Node::file(0o755, read("lease")?))?;
    tree.insert("e2e/settings", Node::file(0o644, settings.as_bytes()))?;
    let unit = "etc/systemd/system/footbridge-e2e.service";
    tree.insert(unit, Node::file(0o644, read("footbridge-e2e.service")?))?;
    tree.insert(
        "etc/systemd/system/multi-user.target.wants/footbridge-e2e.service",
        Node::symlink(format!("/{unit}")),
    )?;
    Ok(())
}

fn render(settings: &Settings, modules: &[String]) -> String {
    let mut ssid = String::new();
    for byte in settings.ssid {
        // Writing to a string cannot fail.
        let _ = write!(ssid, "{byte:02x}");
    }
    format!(
        "SSID_HEX={ssid}\nPMK={}\nCOUNTRY={}\nMODULES='{}'\n",
        settings.pmk,
        settings.country,
        modules.join(" ")
    )
}

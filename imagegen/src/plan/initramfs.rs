//! The initramfs: what its `init` finds there beside itself.

use std::collections::BTreeMap;

use crate::board::Board;
use crate::overlays::{OverlayRules, Overlays};
use crate::plan::overlay::PlannedNode;
use crate::tree::Node;

/// The programs that `init` calls, all of them busybox.
const APPLETS: [&str; 11] = [
    "cat",
    "cp",
    "hexdump",
    "modprobe",
    "mount",
    "reboot",
    "sh",
    "sha256sum",
    "sleep",
    "switch_root",
    "umount",
];

/// Mount points of `init`.
const DIRECTORIES: [&str; 7] = ["boot", "dev", "layers", "lower", "proc", "root", "sys"];

/// Plans everything but busybox itself and the modules, which come from packages.
pub fn plan_initramfs(board: &Board, overlays: &Overlays) -> BTreeMap<String, PlannedNode> {
    let planned = |node, source: &str| PlannedNode {
        node,
        source: source.to_owned(),
    };
    let mut nodes = BTreeMap::new();
    for (path, bytes) in &overlays.initramfs {
        nodes.insert(
            path.clone(),
            planned(
                Node::file(0o755, bytes.clone()),
                &format!("overlays/initramfs/{path}"),
            ),
        );
    }
    for applet in APPLETS {
        nodes.insert(
            format!("bin/{applet}"),
            planned(Node::symlink("busybox"), "link"),
        );
    }
    for directory in DIRECTORIES {
        nodes.insert(
            directory.to_owned(),
            planned(Node::directory(0o755), "mount point"),
        );
    }
    let modules = format!("{}\n", board.modules.initramfs.join(" "));
    nodes.insert(
        "etc/modules".to_owned(),
        planned(Node::file(0o644, modules.into_bytes()), "board"),
    );
    nodes.insert(
        "etc/site-files".to_owned(),
        planned(
            Node::file(0o644, site_table(&overlays.rules).into_bytes()),
            "overlay.toml",
        ),
    );
    for (path, mode) in site_directories(&overlays.rules) {
        nodes.insert(
            format!("site-directories/{path}"),
            planned(Node::directory(mode), "overlay.toml"),
        );
    }
    nodes
}

/// What `init` reads line by line: name, mode, destination.
fn site_table(rules: &OverlayRules) -> String {
    rules
        .site
        .iter()
        .map(|file| format!("{} {:04o} {}\n", file.name, file.mode, file.destination))
        .collect()
}

/// Every directory on the way to a destination; in an overlay file system, the upper layer's mode is the one that counts.
fn site_directories(rules: &OverlayRules) -> BTreeMap<String, u16> {
    let mut directories = BTreeMap::new();
    for file in &rules.site {
        for (end, _) in file.destination.match_indices('/') {
            let path = &file.destination[..end];
            directories.insert(
                path.to_owned(),
                rules.site_directories.get(path).copied().unwrap_or(0o755),
            );
        }
    }
    directories
}

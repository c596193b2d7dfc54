//! Checks of the initramfs: what its `init` needs before there is a root.

use super::{Check, Seen, Subject, seen};
use crate::tree::{Content, Tree};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "initramfs-unreadable",
        why: "the kernel unpacks the initramfs before anything else, and stops if it cannot",
        next: "the image may be damaged: compare its .sha256, or build it anew",
        look: unreadable,
    },
    Check {
        id: "initramfs-init",
        why: "/init is the first program that the kernel starts",
        next: "see overlays/initramfs/init",
        look: init,
    },
    Check {
        id: "initramfs-links",
        why: "a program that is a link to nothing fails at the moment init calls it",
        next: "see what `cargo xtask plan` puts there",
        look: links,
    },
    Check {
        id: "initramfs-modules",
        why: "without these modules init finds neither card nor root",
        next: "compare [modules] initramfs in the board's description with the kernel's package",
        look: modules,
    },
];

fn unreadable(subject: &Subject<'_>) -> Vec<Seen> {
    match &subject.initramfs {
        Some(Err(why)) => {
            let path = subject.initramfs_path().unwrap_or("initramfs");
            vec![seen(
                format!("boot/{path}"),
                format!("cannot be read: {why}"),
            )]
        }
        Some(Ok(_)) | None => Vec::new(),
    }
}

fn tree<'a>(subject: &'a Subject<'_>) -> Option<&'a Tree> {
    subject.initramfs().map(|found| &found.tree)
}

fn init(subject: &Subject<'_>) -> Vec<Seen> {
    let what = match tree(subject).map(|tree| tree.get("init")) {
        None => return Vec::new(),
        Some(None) => "is not there",
        Some(Some(node)) if node.mode & 0o100 == 0 => "is not executable",
        Some(Some(_)) => return Vec::new(),
    };
    vec![seen("initramfs/init", what)]
}

fn links(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    tree.iter()
        .filter_map(|(path, node)| match &node.content {
            Content::Symlink(target) => Some((path, target)),
            Content::Directory | Content::File(_) => None,
        })
        .filter(|(path, _)| !tree.resolve(path).is_ok_and(|end| tree.contains(&end)))
        .map(|(path, target)| {
            seen(
                format!("initramfs/{path}"),
                format!("leads to {target}, which is not there"),
            )
        })
        .collect()
}

/// The modules that init loads have to be files here, or in the list of those that the kernel has built in.
fn modules(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let list = tree.bytes("etc/modules").map_or_else(String::new, |bytes| {
        String::from_utf8_lossy(bytes).into_owned()
    });
    let is_file = |module: &str| {
        tree.iter().any(|(path, _)| {
            let name = path
                .rsplit('/')
                .next()
                .and_then(|name| name.strip_suffix(".ko"));
            name.is_some_and(|name| name.replace('-', "_") == module)
        })
    };
    let is_builtin = |module: &str| {
        tree.iter()
            .filter(|(path, _)| path.ends_with("/modules.builtin"))
            .filter_map(|(_, node)| node.bytes())
            .any(|bytes| {
                String::from_utf8_lossy(bytes)
                    .lines()
                    .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"))
                    .any(|name| name.replace('-', "_") == module)
            })
    };
    list.split_whitespace()
        .map(|module| module.replace('-', "_"))
        .filter(|module| !is_file(module) && !is_builtin(module))
        .map(|module| {
            seen(
                "initramfs/etc/modules",
                format!("names {module}, which is neither a file nor built in"),
            )
        })
        .collect()
}

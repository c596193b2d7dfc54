//! What two images differ in: partitions, packages, files, and the text of settings.
//!
//! Keys and passwords of a site are hidden on both sides, so that the result may be shown to others. That they differ still shows, in that
//! their file does.

use std::collections::{BTreeMap, BTreeSet};

use similar::TextDiff;
use thiserror::Error;

use crate::inspect::cpio::read_initramfs;
use crate::inspect::image::{Image, Unreadable};
use crate::plan::boot::INITRAMFS_FILE;
use crate::tree::{Node, Tree};

/// Where a root says which packages it is made from: a line for each, with name and version.
const PACKAGE_LIST: &str = "usr/share/footbridge/packages";

/// Longer texts are no settings.
const TEXT_MAX: usize = 64 << 10;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// What stands where something is hidden.
const HIDDEN: &str = "<hidden>";

/// What one image has and another has not, or has otherwise; each list in order, and empty where they agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The disk and its partitions.
    pub partitions: Vec<Change>,
    /// Packages and their versions.
    pub packages: Vec<Change>,
    /// Files, directories and links, by a path that begins with `boot/`, `root/` or `initramfs/`.
    pub files: Vec<Change>,
    /// The texts among the files that both have, as unified diffs.
    pub texts: Vec<String>,
}

/// Something that is not the same; at least one side is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// What the first image has.
    pub before: Option<String>,
    /// What the second image has.
    pub after: Option<String>,
}

/// Why images cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the {part} cannot be read: {why}")]
pub struct DiffError {
    part: &'static str,
    why: Unreadable,
}

impl Difference {
    /// Whether the images hold the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares two images.
pub fn diff(before: &Image, after: &Image) -> Result<Difference, DiffError> {
    let (files_before, files_after) = (files_of(before)?, files_of(after)?);
    Ok(Difference {
        partitions: changes(&partitions_of(before), &partitions_of(after)),
        packages: changes(&packages_of(before), &packages_of(after)),
        files: file_changes(&files_before, &files_after),
        texts: text_changes(&files_before, &files_after),
    })
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Change {
            name: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

fn partitions_of(image: &Image) -> BTreeMap<String, String> {
    let disk = format!(
        "{} bytes, signature {:08x}",
        image.size, image.table.signature
    );
    let partitions = (1..).zip(&image.table.partitions);
    let partitions = partitions.filter_map(|(number, partition)| {
        let partition = partition.as_ref()?;
        let what = format!(
            "{} bytes at {}, type {:#04x}",
            partition.size(),
            partition.offset(),
            partition.kind.0
        );
        Some((format!("partition {number}"), what))
    });
    [("disk".to_owned(), disk)]
        .into_iter()
        .chain(partitions)
        .collect()
}

/// The versions of what an image is made from: of its packages, where it has a list of them, and else what can be told from the root.
fn packages_of(image: &Image) -> BTreeMap<String, String> {
    let Ok(root) = &image.root else {
        return BTreeMap::new();
    };
    let text = |path: &str| {
        let path = root.tree.resolve(path).ok()?;
        let bytes = root.tree.bytes(&path)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    if let Some(list) = text(PACKAGE_LIST) {
        let words = list.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        });
        return words.collect();
    }
    let kernels = root.tree.entries("usr/lib/modules");
    let kernels = kernels.map(|(release, _)| ("kernel".to_owned(), release.to_owned()));
    let system = text("etc/os-release").unwrap_or_default();
    let system = system.lines().filter_map(|line| {
        let version = line.strip_prefix("DEBIAN_VERSION_FULL=")?;
        Some(("Debian".to_owned(), version.trim_matches('"').to_owned()))
    });
    kernels.chain(system).collect()
}

/// Everything that can be looked into, by path with the place before it.
fn files_of(image: &Image) -> Result<BTreeMap<String, Node>, DiffError> {
    let unreadable = |part| {
        move |why: &Unreadable| DiffError {
            part,
            why: why.clone(),
        }
    };
    let boot = image.boot.as_ref().map_err(unreadable("boot partition"))?;
    let root = image.root.as_ref().map_err(unreadable("root"))?;
    let initramfs = match boot.bytes(INITRAMFS_FILE) {
        None => Tree::new(),
        Some(bytes) => {
            read_initramfs(bytes)
                .map_err(|err| DiffError {
                    part: "initramfs",
                    why: Unreadable::of_error(&err),
                })?
                .tree
        }
    };
    let mut files = BTreeMap::new();
    for (place, tree) in [
        ("boot", &boot.tree),
        ("initramfs", &initramfs),
        ("root", &root.tree),
    ] {
        let nodes = tree.iter();
        files.extend(nodes.map(|(path, node)| (format!("{place}/{path}"), node.clone())));
    }
    Ok(files)
}

fn file_changes(before: &BTreeMap<String, Node>, after: &BTreeMap<String, Node>) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let (old, new) = (before.get(name), after.get(name));
            let told = |node: Option<&Node>| node.map(ToString::to_string);
            let (old, new) = (told(old), told(new));
            let same = old == new;
            Change {
                name: name.clone(),
                before: old,
                after: new.map(|new| if same { "other bytes".to_owned() } else { new }),
            }
        })
        .collect()
}

fn text_changes(before: &BTreeMap<String, Node>, after: &BTreeMap<String, Node>) -> Vec<String> {
    // Indices of modules are texts too, but nobody's settings.
    let is_setting = |path: &str| !path.contains("/lib/modules/");
    before
        .iter()
        .filter(|(path, _)| is_setting(path))
        .filter_map(|(path, old)| {
            let (old, new) = (text_of(path, old)?, text_of(path, after.get(path)?)?);
            let lines = TextDiff::from_lines(&old, &new)
                .unified_diff()
                .context_radius(CONTEXT)
                .header(&format!("a/{path}"), &format!("b/{path}"))
                .to_string();
            Some(lines).filter(|lines| !lines.is_empty())
        })
        .collect()
}

fn text_of(path: &str, node: &Node) -> Option<String> {
    let bytes = node.bytes().filter(|bytes| bytes.len() <= TEXT_MAX)?;
    let text = str::from_utf8(bytes).ok()?;
    let is_site = path.starts_with("boot/site/");
    match text.contains('\0') {
        true => None,
        false if is_site => Some(hide_secrets(text)),
        false => Some(text.to_owned()),
    }
}

/// Puts a mark in place of the values of keys and passwords, in comments too.
fn hide_secrets(text: &str) -> String {
    const SECRET: [&str; 5] = ["psk", "pass", "secret", "wep_key", "private_key"];
    let hide = |line: &str| match line.split_once('=') {
        Some((key, _)) if SECRET.iter().any(|part| key.to_lowercase().contains(part)) => {
            format!("{key}={HIDDEN}\n")
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        for (line, expected) in [
            ("\tpsk=0123\n", "\tpsk=<hidden>\n"),
            ("# psk=\"old = one\"\n", "# psk=<hidden>\n"),
            ("sae_password=\"x\"", "sae_password=<hidden>\n"),
            ("Passphrase = x\n", "Passphrase =<hidden>\n"),
            ("key_mgmt=WPA-PSK\n", "key_mgmt=WPA-PSK\n"),
            ("ssid=\"net\"\n", "ssid=\"net\"\n"),
        ] {
            assert_eq!(hide_secrets(line), expected);
        }
    }
}

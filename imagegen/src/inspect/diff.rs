//! What two images differ in: partitions, packages, files, and the text of settings.
//!
//! Keys and passwords of a site are hidden on both sides, so that the result may be shown to others. That they differ still shows, in that
//! their file does.

use std::collections::{BTreeMap, BTreeSet};

use similar::TextDiff;
use thiserror::Error;

use crate::inspect::cpio::read_initramfs;
use crate::inspect::image::{Image, Unreadable};
use crate::inspect::squashfs::Found;
use crate::plan::boot::INITRAMFS_FILE;
use crate::site::secrets::{is_secret_file, without_secret};
use crate::tree::{Node, Tree};

/// Where a root says which packages it is made from: a line for each, with name and version.
const PACKAGE_LIST: &str = "usr/share/footbridge/packages";

/// Longer texts are no settings.
const TEXT_MAX: usize = 64 << 10;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// Files of the boot partition beside `site/` whose texts are shown.
const SHOWN_BOOT_FILES: [&str; 2] = ["config.txt", "cmdline.txt"];

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
    let (before_files, after_files) = (Files::of(before)?, Files::of(after)?);
    Ok(Difference {
        partitions: changes(&partitions_of(before), &partitions_of(after)),
        packages: changes(&packages_of(before), &packages_of(after)),
        files: file_changes(&before_files, &after_files),
        texts: text_changes(&before_files.nodes, &after_files.nodes),
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
#[derive(Default)]
struct Files {
    nodes: BTreeMap<String, Node>,
    /// Devices and their kin.
    oddities: BTreeMap<String, String>,
}

impl Files {
    fn of(image: &Image) -> Result<Self, DiffError> {
        let unreadable = |part| {
            move |why: &Unreadable| DiffError {
                part,
                why: why.clone(),
            }
        };
        let boot = image.boot.as_ref().map_err(unreadable("boot partition"))?;
        let root = image.root.as_ref().map_err(unreadable("root"))?;
        let initramfs = match boot.bytes(INITRAMFS_FILE) {
            None => Found::default(),
            Some(bytes) => read_initramfs(bytes).map_err(|err| DiffError {
                part: "initramfs",
                why: Unreadable::of_error(&err),
            })?,
        };
        let mut files = Self::default();
        files.add("boot", &boot.tree, &[]);
        files.add("initramfs", &initramfs.tree, &initramfs.oddities);
        files.add("root", &root.tree, &root.oddities);
        Ok(files)
    }

    fn add(&mut self, place: &str, tree: &Tree, oddities: &[(String, &'static str)]) {
        let nodes = tree.iter();
        self.nodes
            .extend(nodes.map(|(path, node)| (format!("{place}/{path}"), node.clone())));
        let oddities = oddities.iter();
        self.oddities
            .extend(oddities.map(|(path, what)| (format!("{place}/{path}"), (*what).to_owned())));
    }
}

fn file_changes(before: &Files, after: &Files) -> Vec<Change> {
    let (old, new) = (&before.nodes, &after.nodes);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let nodes = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let told = |node: Option<&Node>| node.map(ToString::to_string);
            let (old, new) = (told(old.get(name)), told(new.get(name)));
            let same = old == new;
            Change {
                name: name.clone(),
                before: old,
                after: new.map(|new| if same { "other bytes".to_owned() } else { new }),
            }
        });
    let mut found: Vec<Change> = nodes
        .chain(changes(&before.oddities, &after.oddities))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
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

/// The text of a file whose changes are shown. Of the boot partition only what the builder writes there itself is: what an imager or a person
/// puts beside it may be a key.
fn text_of(path: &str, node: &Node) -> Option<String> {
    let bytes = node.bytes().filter(|bytes| bytes.len() <= TEXT_MAX)?;
    let text = str::from_utf8(bytes).ok()?;
    if text.contains('\0') {
        return None;
    }
    let Some(file) = path.strip_prefix("boot/") else {
        return Some(text.to_owned());
    };
    // Names of a FAT are the same in capitals.
    match file.to_ascii_lowercase().split_once('/') {
        None if SHOWN_BOOT_FILES.contains(&file) => Some(text.to_owned()),
        Some(("site", name)) if !is_secret_file(name) => {
            let lines = text.lines().map(|line| without_secret(line) + "\n");
            Some(lines.collect())
        }
        _ => None,
    }
}

//! What the recipe's script is given (see `xtask/recipe/image`): a repository of the very packages that Footbridge uses, the lists of what is
//! wanted of them, and the files that are of no package. Laid out before anything is measured, in a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::index::Package;
use imagegen::inspect::cpio::read_initramfs;
use imagegen::inspect::image::{Image, Unreadable};
use imagegen::make::identity::{OS_RELEASE, PACKAGES_PATH};
use imagegen::make::image::BOOT_LABEL;
use imagegen::make::initramfs::InitramfsOptions;
use imagegen::make::rootfs::{AGENT_PATH, FIRMWARE_DIRECTORY};
use imagegen::make::squashfs::SquashfsOptions;
use imagegen::plan::boot::INITRAMFS_FILE;
use imagegen::plan::overlay::PlannedNode;
use imagegen::tree::Tree;

use crate::bench::folder::write_tree;
use crate::image::Prepared;

/// Where the recipe's ingredients come from.
pub struct Ingredients<'a> {
    /// The board.
    pub board: &'a Board,
    /// What Footbridge planned.
    pub prepared: &'a Prepared,
    /// The fetched file of each package.
    pub debs: &'a BTreeMap<String, PathBuf>,
    /// What Footbridge made of it.
    pub ours: &'a Image,
}

impl Ingredients<'_> {
    /// Lays everything out in a folder.
    pub fn lay_out(&self, folder: &Path) -> Result<()> {
        let plan = &self.prepared.plan;
        let root = part(&self.ours.root, "root")?;
        let boot = part(&self.ours.boot, "boot partition")?;
        let initramfs = boot.bytes(INITRAMFS_FILE).context("it has no initramfs")?;
        let initramfs = read_initramfs(initramfs).context("while reading its initramfs")?;
        let modules = format!("usr/lib/modules/{}", plan.kernel_release);

        let repository = folder.join("repository");
        fs::create_dir_all(&repository)?;
        let packages = self.prepared.resolution.packages.values();
        write_repository(packages, self.debs, &repository)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("while writing {}", path.display()))
        };
        write("settings", self.settings()?)?;
        write("removals", self.removals())?;
        write("firmware", lines(files(&root.tree, FIRMWARE_DIRECTORY)))?;
        write("modules", lines(modules_of(&root.tree, &modules)))?;
        let lib = modules.trim_start_matches("usr/");
        write("initramfs-modules", lines(modules_of(&initramfs.tree, lib)))?;
        write("device-trees", lines(plan.boot.device_trees.iter()))?;
        write("boot-firmware", lines(plan.boot.firmware.iter()))?;
        write_tree(&self.overlay(&root.tree)?, &folder.join("overlay"))?;
        write_tree(&tree_of(&plan.initramfs)?, &folder.join("initramfs"))?;
        write_tree(&self.boot_texts()?, &folder.join("boot"))
    }

    /// What the script asks, as a shell reads it.
    fn settings(&self) -> Result<String> {
        let plan = &self.prepared.plan;
        let time = self.prepared.lock.time()?;
        let squashfs = SquashfsOptions::at(time);
        let [boot, root] = [0, 1].map(|slot| self.ours.table.partitions[slot]);
        let (boot, root) = boot.zip(root).context("the image has not two partitions")?;
        let names: Vec<&str> = self
            .prepared
            .resolution
            .packages
            .keys()
            .map(String::as_str)
            .collect();
        let mut text = String::new();
        for (name, value) in [
            ("time", time.to_string()),
            ("architecture", self.board.arch.debian_name().to_owned()),
            ("packages", names.join(",")),
            ("release", plan.kernel_release.clone()),
            ("kernel_file", plan.boot.kernel_file.clone()),
            ("squashfs_level", squashfs.zstd_level.to_string()),
            ("squashfs_block", squashfs.block_size.to_string()),
            (
                "initramfs_level",
                InitramfsOptions::at(time).zstd_level.to_string(),
            ),
            ("label", BOOT_LABEL.to_owned()),
            ("signature", format!("{:#010x}", plan.signature.number())),
            ("size", self.ours.size.to_string()),
        ] {
            writeln!(text, "{name}='{value}'")?;
        }
        for (name, partition) in [("boot", boot), ("root", root)] {
            let (offset, size) = (partition.offset(), partition.size());
            writeln!(text, "{name}_offset={offset}\n{name}_size={size}")?;
        }
        Ok(text)
    }

    /// Patterns below the root, which the shell expands.
    fn removals(&self) -> String {
        let patterns = self.prepared.plan.root.removals.iter();
        let patterns =
            patterns.map(|pattern| pattern.to_string().trim_start_matches('/').to_owned());
        lines(patterns)
    }

    /// Our own files in the root: those of the plan, and the agent.
    fn overlay(&self, root: &Tree) -> Result<Tree> {
        let mut tree = tree_of(&self.prepared.plan.root.nodes)?;
        // What the image says of itself is made while it is built.
        for path in [AGENT_PATH, OS_RELEASE, PACKAGES_PATH] {
            let made = root.get(path);
            let made = made.with_context(|| format!("the image has no /{path}"))?;
            tree.insert(path, made.clone())?;
        }
        Ok(tree)
    }

    fn boot_texts(&self) -> Result<Tree> {
        let boot = &self.prepared.plan.boot;
        let mut tree = tree_of(&boot.texts)?;
        tree.graft("site", tree_of(&boot.site)?)?;
        Ok(tree)
    }
}

fn part<'a, T>(part: &'a Result<T, Unreadable>, name: &str) -> Result<&'a T> {
    let why = |why: &Unreadable| anyhow::anyhow!("the {name} of our image cannot be read: {why}");
    part.as_ref().map_err(why)
}

/// A repository with one list and no folders. Apt takes relations from the list, and it has none: what is wanted is chosen already.
fn write_repository<'a>(
    packages: impl Iterator<Item = &'a Package>,
    debs: &BTreeMap<String, PathBuf>,
    folder: &Path,
) -> Result<()> {
    let mut list = String::new();
    for package in packages {
        let Package {
            name,
            version,
            architecture,
            size,
            sha256,
            ..
        } = package;
        let deb = debs
            .get(name)
            .with_context(|| format!("package {name} was not fetched"))?;
        symlink(deb, folder.join(format!("{name}.deb")))?;
        writeln!(
            list,
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: nobody\nDescription: {name}\n\
             Filename: ./{name}.deb\nSize: {size}\nSHA256: {sha256}\n"
        )?;
    }
    fs::write(folder.join("Packages"), list).context("while writing the recipe's package list")
}

/// Returns the files and links below a folder, by their path in it.
fn files<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = &'a str> {
    let inside = move |path: &'a str| path.strip_prefix(folder)?.strip_prefix('/');
    tree.subtree(folder)
        .filter(|(_, node)| !node.is_directory())
        .filter_map(move |(path, _)| inside(path))
}

fn modules_of<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = &'a str> {
    files(tree, folder).filter(|path| path.ends_with(".ko"))
}

fn lines(items: impl Iterator<Item = impl AsRef<str>>) -> String {
    items.map(|item| format!("{}\n", item.as_ref())).collect()
}

fn tree_of(planned: &BTreeMap<String, PlannedNode>) -> Result<Tree> {
    let mut tree = Tree::new();
    for (path, planned) in planned {
        tree.replace(path.clone(), planned.node.clone())?;
    }
    Ok(tree)
}

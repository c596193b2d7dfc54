//! The pipeline that turns a plan and its packages into an image, one call a stage.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::make::deb::{DebError, read_control, unpack_deb};
use crate::make::disk::{DiskError, DiskParts, Draft, write_disk};
use crate::make::fat::{FatError, FatLabel};
use crate::make::fetch::Progress;
use crate::make::initramfs::{InitramfsError, InitramfsOptions, write_initramfs};
use crate::make::kernel::{Kernel, KernelError, take_kernel};
use crate::make::rootfs::{RootError, RootParts, assemble_root};
use crate::make::squashfs::{SquashfsError, SquashfsOptions, write_squashfs};
use crate::plan::boot::INITRAMFS_FILE;
use crate::plan::disk::{BOOT_SIZE_MIN, DiskLayout, DiskSizes, LayoutError};
use crate::plan::{Place, Plan};
use crate::recipe::Cover;
use crate::resolve::Resolution;
use crate::tree::{Node, Tree, TreeError};

/// Name of the boot partition, which people see when they put the card into a computer.
pub const BOOT_LABEL: &str = "FOOTBRIDGE";

/// Room on the boot partition for a person's files and for a kernel that grows.
const BOOT_SLACK: u64 = 16 << 20;

/// Where the boot firmware's package has its files.
const BOOT_FIRMWARE_DIRECTORY: &str = "usr/lib/raspi-firmware";

/// Where busybox is in its package.
const BUSYBOX: &str = "usr/bin/busybox";

/// What an image is made from, beside its plan.
#[derive(Clone, Debug)]
pub struct ImageInputs<'a> {
    /// The packages of the plan.
    pub resolution: &'a Resolution,
    /// The fetched and checked file of each package.
    pub debs: &'a BTreeMap<String, PathBuf>,
    /// The agent's program.
    pub agent: Arc<[u8]>,
    /// Time of everything in the image, seconds since 1970.
    pub time: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Built {
    /// Bytes of the whole image.
    pub image_size: u64,
    /// Bytes of the root file system.
    pub root_size: u64,
    /// Bytes of the initramfs.
    pub initramfs_size: u64,
    /// Bytes of the files on the boot partition.
    pub boot_size: u64,
    /// Bytes of the agent.
    pub agent_size: u64,
    /// Where everything lies.
    pub layout: DiskLayout,
    /// The kernel, with every module it has.
    pub kernel: Kernel,
}

/// Why there is no image. Nothing is left behind.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A package's file is not there.
    #[error("package `{0}` was not fetched")]
    NotFetched(String),
    /// A package's file cannot be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// A package cannot be unpacked.
    #[error("failed to unpack package `{package}`")]
    Unpack {
        /// Which.
        package: String,
        /// Why.
        #[source]
        err: DebError,
    },
    /// A package has scripts that nobody has read.
    #[error(
        "package `{package}` is listed as scriptless but has {script}; read it, and list the package under scripts in packages.toml"
    )]
    UnknownScript {
        /// Which package.
        package: String,
        /// Which script.
        script: String,
    },
    /// The kernel is not as expected.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The root cannot be made.
    #[error("failed to make the root file system")]
    Root(#[from] RootError),
    /// A package lacks a file that the boot needs.
    #[error("no package has /{0}")]
    Missing(String),
    /// Parts of the boot do not fit together.
    #[error("the boot files do not fit together")]
    Tree(#[from] TreeError),
    /// The root file system cannot be written.
    #[error(transparent)]
    Squashfs(#[from] SquashfsError),
    /// The initramfs cannot be written.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// The boot partition cannot be named.
    #[error(transparent)]
    Label(#[from] FatError),
    /// The partitions cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The image cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl ImageError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Disk(err) => err.hint(),
            _ => None,
        }
    }
}

/// Makes the image of a plan and gives it its name, once all of it is there.
pub fn make_image(
    plan: &Plan,
    inputs: &ImageInputs<'_>,
    output: Draft,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    check_scripts(plan, inputs)?;
    let packages = step(progress, "unpacking packages", || unpack_root(plan, inputs))?;
    let radio = unpack_packages(plan.radio.firmware.keys(), inputs)?;
    let boot_firmware = unpack_packages(packages_at(plan, Place::BootFirmware), inputs)?;
    let kernel = step(progress, "unpacking the kernel", || {
        unpack_kernel(plan, inputs)
    })?;
    let initramfs = make_initramfs(plan, &packages, &kernel, inputs.time)?;
    let root_parts = RootParts {
        packages,
        radio: &radio,
        radio_files: plan.radio.firmware.values().flatten().cloned().collect(),
        modules: kernel.select_modules(
            &[&plan.modules.initramfs[..], &plan.modules.root].concat(),
            "usr/lib",
        )?,
        agent: inputs.agent.clone(),
    };
    let root = assemble_root(&plan.root, root_parts)?;
    let root = step(progress, "compressing the root file system", || {
        make_squashfs(&root, inputs.time)
    })?;
    let initramfs_size = initramfs.len() as u64;
    let boot = make_boot(plan, &boot_firmware, &kernel, initramfs)?;
    let sizes = DiskSizes {
        boot: BOOT_SIZE_MIN.max(boot.total_size() + BOOT_SLACK),
        root: root.len() as u64,
    };
    let layout = DiskLayout::new(plan.signature, sizes)?;
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new(BOOT_LABEL)?,
        time: inputs.time,
        root: &root,
    };
    step(progress, "writing the image", || {
        write_disk(output, &layout, &parts)
    })?;
    Ok(Built {
        image_size: layout.total,
        root_size: root.len() as u64,
        initramfs_size,
        boot_size: boot.total_size(),
        agent_size: inputs.agent.len() as u64,
        layout,
        kernel,
    })
}

/// The recipe knows packages by name; that one listed as scriptless has grown scripts shows only in its file.
fn check_scripts(plan: &Plan, inputs: &ImageInputs<'_>) -> Result<(), ImageError> {
    for (name, package) in plan
        .packages
        .iter()
        .filter(|(_, package)| package.cover == Cover::Scriptless)
    {
        if package.place == Place::Nowhere {
            continue;
        }
        let control = read_control(&read_deb(name, inputs)?).map_err(|err| ImageError::Unpack {
            package: name.clone(),
            err,
        })?;
        if let Some((script, _)) = control.scripts().next() {
            return Err(ImageError::UnknownScript {
                package: name.clone(),
                script: script.to_owned(),
            });
        }
    }
    Ok(())
}

fn unpack_root(plan: &Plan, inputs: &ImageInputs<'_>) -> Result<Tree, ImageError> {
    let removed = |path: &str| {
        plan.root
            .removals
            .iter()
            .any(|pattern| pattern.covers(path))
    };
    unpack_wanted(packages_at(plan, Place::Root), inputs, |path| {
        !removed(path)
    })
}

fn unpack_packages<'a>(
    names: impl IntoIterator<Item = &'a String>,
    inputs: &ImageInputs<'_>,
) -> Result<Tree, ImageError> {
    unpack_wanted(names, inputs, |_| true)
}

fn unpack_wanted<'a>(
    names: impl IntoIterator<Item = &'a String>,
    inputs: &ImageInputs<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    for name in names {
        let failed = |err| ImageError::Unpack {
            package: name.clone(),
            err,
        };
        unpack_deb(
            &read_deb(name, inputs)?,
            unpack_limit(name, inputs)?,
            &mut tree,
            &wanted,
        )
        .map_err(failed)?;
    }
    Ok(tree)
}

/// Packages in the order of their names, but first the one that brings the links of the top level: `bin -> usr/bin` and so on.
fn packages_at(plan: &Plan, place: Place) -> Vec<&String> {
    const FIRST: &str = "base-files";
    let mut names: Vec<&String> = plan
        .packages
        .iter()
        .filter(|(_, package)| package.place == place)
        .map(|(name, _)| name)
        .collect();
    names.sort_by_key(|name| *name != FIRST);
    names
}

fn unpack_kernel(plan: &Plan, inputs: &ImageInputs<'_>) -> Result<Kernel, ImageError> {
    let packages = unpack_packages(packages_at(plan, Place::Kernel), inputs)?;
    Ok(take_kernel(&packages, &plan.kernel_release)?)
}

fn make_initramfs(
    plan: &Plan,
    packages: &Tree,
    kernel: &Kernel,
    time: u32,
) -> Result<Vec<u8>, ImageError> {
    let mut tree = kernel.select_modules(&plan.modules.initramfs, "lib")?;
    let busybox = packages
        .bytes(BUSYBOX)
        .ok_or_else(|| ImageError::Missing(BUSYBOX.to_owned()))?;
    tree.insert("bin/busybox", Node::file(0o755, busybox.clone()))?;
    for (path, planned) in &plan.initramfs {
        tree.replace(path.clone(), planned.node.clone())?;
    }
    let mut bytes = Vec::new();
    write_initramfs(&tree, &InitramfsOptions::at(time), &mut bytes)?;
    // The firmware hands over whole words, and whoever appends another archive has to begin at one.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

fn make_squashfs(tree: &Tree, time: u32) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    write_squashfs(tree, &SquashfsOptions::at(time), &mut bytes)?;
    Ok(bytes.into_inner())
}

fn make_boot(
    plan: &Plan,
    firmware: &Tree,
    kernel: &Kernel,
    initramfs: Vec<u8>,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    for name in &plan.boot.firmware {
        let path = format!("{BOOT_FIRMWARE_DIRECTORY}/{name}");
        let bytes = firmware.bytes(&path).ok_or(ImageError::Missing(path))?;
        tree.insert(name.clone(), Node::file(0o644, bytes.clone()))?;
    }
    for path in &plan.boot.device_trees {
        let name = path.rsplit('/').next().unwrap_or(path);
        tree.insert(name, Node::file(0o644, kernel.device_tree(path)?))?;
    }
    tree.insert(
        plan.boot.kernel_file.clone(),
        Node::file(0o644, kernel.image.clone()),
    )?;
    tree.insert(INITRAMFS_FILE, Node::file(0o644, initramfs))?;
    for (name, planned) in &plan.boot.texts {
        tree.insert(name.clone(), planned.node.clone())?;
    }
    for (name, planned) in &plan.boot.site {
        tree.insert(format!("site/{name}"), planned.node.clone())?;
    }
    Ok(tree)
}

fn read_deb(name: &str, inputs: &ImageInputs<'_>) -> Result<Vec<u8>, ImageError> {
    let path = inputs
        .debs
        .get(name)
        .ok_or_else(|| ImageError::NotFetched(name.to_owned()))?;
    std::fs::read(path).map_err(|err| ImageError::Read {
        path: path.clone(),
        err,
    })
}

fn unpack_limit(name: &str, inputs: &ImageInputs<'_>) -> Result<u64, ImageError> {
    let package = inputs.resolution.packages.get(name);
    package
        .map(|package| package.unpack_limit())
        .ok_or_else(|| ImageError::NotFetched(name.to_owned()))
}

fn step<T, E>(
    progress: &dyn Progress,
    what: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    progress.started(what, None);
    let result = work();
    progress.finished();
    result
}

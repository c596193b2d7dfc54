//! The pipeline that turns a plan and its packages into an image, one call a stage, in two halves: [`make_system`] makes what does not depend
//! on the site, which takes long and can be kept, and [`make_image`] adds the site to it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::make::deb::{DebError, Files, decompress_data, read_control, read_files};
use crate::make::disk::{DiskError, DiskParts, Draft, ImageFormat, write_disk};
use crate::make::fat::{FatError, FatLabel};
use crate::make::fetch::Progress;
use crate::make::identity::identify;
use crate::make::initramfs::{InitramfsError, InitramfsOptions, pack_initramfs};
use crate::make::kept::{Kept, KeptKey};
use crate::make::kernel::{Kernel, KernelError, take_kernel};
use crate::make::licences::{collect_licences, is_licence};
use crate::make::parallel;
use crate::make::rootfs::{RootError, RootParts, assemble_root};
use crate::make::squashfs::{SquashfsError, SquashfsOptions, write_squashfs_with};
use crate::make::system::System;
use crate::plan::boot::INITRAMFS_FILE;
use crate::plan::disk::{BOOT_SIZE_MIN, DiskLayout, DiskSizes, LayoutError};
use crate::plan::{Place, Plan};
use crate::recipe::Cover;
use crate::resolve::Resolution;
use crate::sbom::{Bill, Build, NonFree, Origin, papers};
use crate::sha256::Sha256;
use crate::tree::{Node, Tree, TreeError};

/// Name of the boot partition, which people see when they put the card into a computer.
pub const BOOT_LABEL: &str = "FOOTBRIDGE";

/// Room on the boot partition for a person's files and for a kernel that grows.
const BOOT_SLACK: u64 = 16 << 20;

/// Where the boot firmware's package has its files.
const BOOT_FIRMWARE_DIRECTORY: &str = "usr/lib/raspi-firmware";

/// Where busybox is in its package.
const BUSYBOX: &str = "usr/bin/busybox";

/// The fetched and checked file of each package, by the package's name.
pub type Debs = BTreeMap<String, PathBuf>;

/// What an image is made from, beside its plan and the packages' files.
#[derive(Clone, Debug)]
pub struct ImageInputs<'a> {
    /// The packages of the plan.
    pub resolution: &'a Resolution,
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
    /// Where everything lies.
    pub layout: DiskLayout,
    /// What of it is not free software.
    pub non_free: Vec<NonFree>,
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
    /// The packages' documents do not fit together.
    #[error("the packages' copyright files do not fit together")]
    Licences(#[source] TreeError),
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

/// Makes what of the image does not depend on the site, with what earlier builds kept of it.
pub fn make_system(
    plan: &Plan,
    inputs: &ImageInputs<'_>,
    debs: &Debs,
    kept: &dyn Kept,
    progress: &dyn Progress,
) -> Result<System, ImageError> {
    let source = Source {
        plan,
        inputs,
        debs,
        kept,
    };
    let mut documents = Tree::new();
    let kernel = step(progress, "unpacking the kernel", || {
        unpack_kernel(&source, &mut documents)
    })?;
    let modules = Modules::select(plan, &kernel)?;
    let mut boot = Tree::new();
    add_kernel(plan, &kernel, &mut boot)?;
    drop(kernel);
    let packages = step(progress, "unpacking packages", || {
        Unpacked::read(&source, &mut documents)
    })?;
    add_boot_firmware(plan, &packages.firmware, &mut boot)?;
    let busybox = packages
        .root
        .bytes(BUSYBOX)
        .cloned()
        .ok_or_else(|| ImageError::Missing(BUSYBOX.to_owned()))?;
    let root_parts = RootParts {
        packages: packages.root,
        radio: &packages.firmware,
        radio_files: plan.radio.firmware.values().flatten().cloned().collect(),
        modules: modules.root,
        agent: inputs.agent.clone(),
    };
    let mut root = assemble_root(&plan.root, root_parts)?;
    let identity = identify(&mut root, &boot, plan, inputs)?;
    let (root, initramfs) = step(progress, "compressing the file systems", || {
        both(
            || make_squashfs(&root, inputs.time, kept),
            || make_initramfs(plan, modules.initramfs, busybox, inputs.time, kept),
        )
    })?;
    boot.insert(INITRAMFS_FILE, Node::file(0o644, initramfs))?;
    let files = boot
        .iter()
        .filter_map(|(path, node)| Some((path.to_owned(), node.bytes()?.clone())));
    Ok(System {
        root: root.into(),
        boot: files.collect(),
        identity,
        licences: collect_licences(&documents, inputs.resolution).map_err(ImageError::Licences)?,
    })
}

/// Makes the image of a plan from its system and gives it its name, once all of it is there, and so to what describes it.
pub fn make_image(
    plan: &Plan,
    system: &System,
    inputs: &ImageInputs<'_>,
    origin: &Origin,
    output: Draft,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    let build = Build {
        plan,
        system,
        inputs,
    };
    let bill = Bill::of(&build, &origin.agent);
    let boot = make_boot(plan, system)?;
    let sizes = DiskSizes {
        boot: BOOT_SIZE_MIN.max(boot.total_size() + BOOT_SLACK),
        root: system.root.len() as u64,
    };
    let layout = DiskLayout::new(plan.signature, sizes)?;
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new(BOOT_LABEL)?,
        time: inputs.time,
        root: &system.root,
    };
    let writing = match output.format() {
        ImageFormat::Img => "writing the image",
        ImageFormat::ImgZst | ImageFormat::ImgXz => "writing and compressing the image",
    };
    step(progress, writing, || {
        write_disk(output, &layout, &parts, |name, digest| {
            papers(&build, &bill, origin, name, digest)
        })
    })?;
    let initramfs = system.boot.get(INITRAMFS_FILE);
    Ok(Built {
        image_size: layout.total,
        root_size: system.root.len() as u64,
        initramfs_size: initramfs.map_or(0, |bytes| bytes.len() as u64),
        boot_size: boot.total_size(),
        layout,
        non_free: bill.non_free().collect(),
    })
}

/// Unpacks the kernel of a plan.
pub fn load_kernel(
    plan: &Plan,
    inputs: &ImageInputs<'_>,
    debs: &Debs,
    kept: &dyn Kept,
) -> Result<Kernel, ImageError> {
    let source = Source {
        plan,
        inputs,
        debs,
        kept,
    };
    unpack_kernel(&source, &mut Tree::new())
}

/// What packages are read for.
struct Source<'a> {
    plan: &'a Plan,
    inputs: &'a ImageInputs<'a>,
    debs: &'a Debs,
    kept: &'a dyn Kept,
}

/// The modules of an image, with their indices.
struct Modules {
    initramfs: Tree,
    root: Tree,
}

impl Modules {
    fn select(plan: &Plan, kernel: &Kernel) -> Result<Self, KernelError> {
        let both = [&plan.modules.initramfs[..], &plan.modules.root].concat();
        Ok(Modules {
            initramfs: kernel.select_modules(&plan.modules.initramfs, "lib")?,
            root: kernel.select_modules(&both, "usr/lib")?,
        })
    }
}

/// The packages but for the kernel's, in a tree for each place.
struct Unpacked {
    root: Tree,
    /// The radio's and the boot loader's, which one package may have both of.
    firmware: Tree,
}

impl Unpacked {
    fn read(source: &Source<'_>, documents: &mut Tree) -> Result<Self, ImageError> {
        let mut firmware = packages_at(source.plan, Place::BootFirmware);
        firmware.extend(source.plan.radio.firmware.keys());
        firmware.sort();
        firmware.dedup();
        let root = packages_at(source.plan, Place::Root);
        let names = [&root[..], &firmware].concat();
        let mut files = read_packages(source, &names)?;
        place_documents(&files, documents)?;
        let removals = &source.plan.root.removals;
        let removed = |path: &str| removals.iter().any(|pattern| pattern.covers(path));
        Ok(Unpacked {
            root: place(&root, &mut files, |path| !removed(path))?,
            firmware: place(&firmware, &mut files, |_| true)?,
        })
    }
}

/// Decompresses packages, several at a time and the largest first, so that at the end no processor waits for long.
fn read_packages(
    source: &Source<'_>,
    names: &[&String],
) -> Result<BTreeMap<String, Files>, ImageError> {
    let packages = &source.inputs.resolution.packages;
    let mut names = names.to_vec();
    names.sort_by_key(|name| Reverse(packages.get(*name).map(|package| package.size)));
    let files = parallel::map(names, |name| {
        read_package(source, name).map(|files| (name.clone(), files))
    })?;
    Ok(files.into_iter().collect())
}

fn read_package(source: &Source<'_>, name: &str) -> Result<Files, ImageError> {
    let failed = |err| ImageError::Unpack {
        package: name.to_owned(),
        err,
    };
    let package = source.inputs.resolution.packages.get(name);
    let (Some(package), Some(path)) = (package, source.debs.get(name)) else {
        return Err(ImageError::NotFetched(name.to_owned()));
    };
    let deb = std::fs::read(path).map_err(|err| ImageError::Read {
        path: path.clone(),
        err,
    })?;
    if source.plan.packages.get(name).map(|package| &package.cover) == Some(&Cover::Scriptless) {
        check_scripts(name, &deb)?;
    }
    let limit = package.unpack_limit();
    // What was read, and not what should have been.
    let key = KeptKey::of("package", &[limit], Sha256::of(&deb));
    let kept = source.kept;
    let data = kept.load_or_make(key, || decompress_data(&deb, limit));
    drop(deb);
    read_files(&data.map_err(failed)?).map_err(failed)
}

/// The recipe knows packages by name; that one listed as scriptless has grown scripts shows only in its file.
fn check_scripts(name: &str, deb: &[u8]) -> Result<(), ImageError> {
    let control = read_control(deb).map_err(|err| ImageError::Unpack {
        package: name.to_owned(),
        err,
    })?;
    match control.scripts().next() {
        None => Ok(()),
        Some((script, _)) => Err(ImageError::UnknownScript {
            package: name.to_owned(),
            script: script.to_owned(),
        }),
    }
}

/// Puts packages into a tree, in the order of their names as given.
fn place(
    names: &[&String],
    files: &mut BTreeMap<String, Files>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    for name in names {
        let files = files
            .remove(*name)
            .ok_or_else(|| ImageError::NotFetched((*name).clone()))?;
        files
            .place(&mut tree, &wanted)
            .map_err(|err| ImageError::Unpack {
                package: (*name).clone(),
                err,
            })?;
    }
    Ok(tree)
}

/// Puts what packages say of their licences into a tree; the image has none of it.
fn place_documents(
    files: &BTreeMap<String, Files>,
    documents: &mut Tree,
) -> Result<(), ImageError> {
    for (name, files) in files {
        let selected = files.select(is_licence);
        let placed = selected.place(documents, |_| true);
        placed.map_err(|err| ImageError::Unpack {
            package: name.clone(),
            err,
        })?;
    }
    Ok(())
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

fn unpack_kernel(source: &Source<'_>, documents: &mut Tree) -> Result<Kernel, ImageError> {
    let names = packages_at(source.plan, Place::Kernel);
    let mut files = read_packages(source, &names)?;
    place_documents(&files, documents)?;
    let packages = place(&names, &mut files, |_| true)?;
    Ok(take_kernel(&packages, &source.plan.kernel_release)?)
}

/// Does two things at the same time.
fn both<A: Send, B, E: Send>(
    one: impl FnOnce() -> Result<A, E> + Send,
    other: impl FnOnce() -> Result<B, E>,
) -> Result<(A, B), E> {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((one?, other?))
    })
}

fn make_initramfs(
    plan: &Plan,
    modules: Tree,
    busybox: Arc<[u8]>,
    time: u32,
    kept: &dyn Kept,
) -> Result<Vec<u8>, ImageError> {
    let mut tree = modules;
    tree.insert("bin/busybox", Node::file(0o755, busybox))?;
    for (path, planned) in &plan.initramfs {
        tree.replace(path.clone(), planned.node.clone())?;
    }
    let mut bytes = pack_initramfs(&tree, &InitramfsOptions::at(time), kept)?;
    // The firmware hands over whole words, and whoever appends another archive has to begin at one.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

fn make_squashfs(tree: &Tree, time: u32, kept: &dyn Kept) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    write_squashfs_with(tree, &SquashfsOptions::at(time), kept, &mut bytes)?;
    Ok(bytes.into_inner())
}

fn add_kernel(plan: &Plan, kernel: &Kernel, boot: &mut Tree) -> Result<(), ImageError> {
    for path in &plan.boot.device_trees {
        let name = path.rsplit('/').next().unwrap_or(path);
        boot.insert(name, Node::file(0o644, kernel.device_tree(path)?))?;
    }
    let image = Node::file(0o644, kernel.image.clone());
    Ok(boot.insert(plan.boot.kernel_file.clone(), image)?)
}

fn add_boot_firmware(plan: &Plan, firmware: &Tree, boot: &mut Tree) -> Result<(), ImageError> {
    for name in &plan.boot.firmware {
        let path = format!("{BOOT_FIRMWARE_DIRECTORY}/{name}");
        let bytes = firmware.bytes(&path).ok_or(ImageError::Missing(path))?;
        boot.insert(name.clone(), Node::file(0o644, bytes.clone()))?;
    }
    Ok(())
}

fn make_boot(plan: &Plan, system: &System) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    for (name, bytes) in &system.boot {
        tree.insert(name.clone(), Node::file(0o644, bytes.clone()))?;
    }
    for (name, planned) in &plan.boot.texts {
        tree.insert(name.clone(), planned.node.clone())?;
    }
    for (name, planned) in &plan.boot.site {
        tree.insert(format!("site/{name}"), planned.node.clone())?;
    }
    Ok(tree)
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

//! The kernel out of its packages: the image itself, device trees, and modules, unpacked and indexed.
//!
//! Debian compresses each module with xz. They are stored plain here: the loaders of the initramfs then need no decompressor, and the file
//! systems around them compress better.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use liblzma::read::XzDecoder;
use thiserror::Error;

use crate::make::modules::{ModuleError, ModuleIndex};
use crate::tree::{Node, Tree, TreeError};

/// Files of a kernel's build that the module index is made from.
const LISTS: [&str; 3] = [
    "modules.order",
    "modules.builtin",
    "modules.builtin.modinfo",
];

/// No module comes near this size.
const MODULE_MAX: u64 = 64 << 20;

/// A kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release, as in `uname -r`.
    pub release: String,
    /// What the boot firmware loads.
    pub image: Arc<[u8]>,
    /// Device trees by path, such as `broadcom/bcm2837-rpi-3-b.dtb`.
    pub device_trees: BTreeMap<String, Arc<[u8]>>,
    /// All modules (`kernel/…/x.ko`, uncompressed), and the lists that came with them.
    pub modules: Tree,
    /// How the modules hang together.
    pub index: ModuleIndex,
}

/// Why packages yield no kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A file is not where Debian puts it.
    #[error("no package of the kernel has /{0}")]
    Missing(String),
    /// A module cannot be decompressed.
    #[error("failed to decompress the module {path}")]
    Decompress {
        /// Which.
        path: String,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// The modules cannot be indexed, or one is wanted that is not there.
    #[error("failed to index the kernel's modules")]
    Modules(#[from] ModuleError),
    /// Modules do not fit into a tree.
    #[error("failed to place the kernel's modules")]
    Tree(#[from] TreeError),
}

/// Takes a kernel out of its unpacked packages. Since Linux 7, Debian has all of it below the directory of the modules.
pub fn take_kernel(packages: &Tree, release: &str) -> Result<Kernel, KernelError> {
    let directory = format!("usr/lib/modules/{release}");
    let image_path = format!("boot/vmlinuz-{release}");
    let image = packages
        .bytes(&image_path)
        .or_else(|| packages.bytes(&format!("{directory}/vmlinuz")))
        .cloned()
        .ok_or(KernelError::Missing(image_path))?;
    let modules = unpack_modules(packages, &directory)?;
    let mut trees = device_trees(packages, &format!("usr/lib/linux-image-{release}"));
    trees.extend(device_trees(packages, &format!("{directory}/dtb")));
    Ok(Kernel {
        release: release.to_owned(),
        image,
        device_trees: trees,
        index: index_modules(&modules)?,
        modules,
    })
}

impl Kernel {
    /// Returns the directory of this kernel's modules, relative to a root whose `/lib` is at `lib`.
    pub fn modules_directory(&self, lib: &str) -> String {
        format!("{lib}/modules/{}", self.release)
    }

    /// Returns a tree with some modules, all they need, and their index, below `lib`.
    pub fn select_modules(&self, names: &[String], lib: &str) -> Result<Tree, KernelError> {
        let directory = self.modules_directory(lib);
        let paths = self.index.closure(names)?;
        let mut tree = Tree::new();
        for path in paths.iter().map(String::as_str).chain(LISTS) {
            let bytes = self.module(path)?;
            tree.insert(format!("{directory}/{path}"), Node::file(0o644, bytes))?;
        }
        self.index
            .subset(&paths)?
            .write_into(&mut tree, &directory)?;
        Ok(tree)
    }

    /// Returns the bytes of a module by the path its index gives.
    pub fn module(&self, path: &str) -> Result<Arc<[u8]>, KernelError> {
        self.modules
            .bytes(path)
            .cloned()
            .ok_or_else(|| KernelError::Missing(path.to_owned()))
    }

    /// Returns a device tree by its path in the package.
    pub fn device_tree(&self, path: &str) -> Result<Arc<[u8]>, KernelError> {
        self.device_trees
            .get(path)
            .cloned()
            .ok_or_else(|| KernelError::Missing(path.to_owned()))
    }
}

fn device_trees(tree: &Tree, directory: &str) -> BTreeMap<String, Arc<[u8]>> {
    let inside = |path: &str| {
        path.strip_prefix(directory)?
            .strip_prefix('/')
            .map(str::to_owned)
    };
    tree.subtree(directory)
        .filter_map(|(path, node)| Some((inside(path)?, node.bytes()?.clone())))
        .collect()
}

/// Some thousand modules: each processor takes a share.
fn unpack_modules(tree: &Tree, directory: &str) -> Result<Tree, KernelError> {
    let files: Vec<(&str, &Arc<[u8]>)> = tree
        .subtree(directory)
        .filter_map(|(path, node)| {
            let inside = path.strip_prefix(directory)?.strip_prefix('/')?;
            let wanted = inside.starts_with("kernel/") || LISTS.contains(&inside);
            Some((inside, node.bytes()?)).filter(|_| wanted)
        })
        .collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(workers).max(1);
    let unpacked: Vec<Vec<(String, Arc<[u8]>)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(share)
            .map(|chunk| scope.spawn(|| chunk.iter().map(|file| decompress(*file)).collect()))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<_, KernelError>>| {
            thread.join().expect("a decompressor does not panic")
        };
        threads.into_iter().map(join).collect::<Result<_, _>>()
    })?;
    let mut modules = Tree::new();
    for (path, bytes) in unpacked.into_iter().flatten() {
        modules.insert(path, Node::file(0o644, bytes))?;
    }
    Ok(modules)
}

fn decompress((path, bytes): (&str, &Arc<[u8]>)) -> Result<(String, Arc<[u8]>), KernelError> {
    let Some(plain) = path.strip_suffix(".xz") else {
        return Ok((path.to_owned(), bytes.clone()));
    };
    let mut module = Vec::new();
    let read = XzDecoder::new(bytes.as_ref())
        .take(MODULE_MAX)
        .read_to_end(&mut module);
    read.map_err(|err| KernelError::Decompress {
        path: path.to_owned(),
        err,
    })?;
    Ok((plain.to_owned(), module.into()))
}

fn index_modules(modules: &Tree) -> Result<ModuleIndex, KernelError> {
    let text = |name: &str| {
        modules.bytes(name).map_or_else(String::new, |bytes| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    };
    let (order, builtin) = (text(LISTS[0]), text(LISTS[1]));
    let lists = crate::make::modules::KernelLists {
        order: &order,
        builtin: &builtin,
        builtin_modinfo: modules.bytes(LISTS[2]).map_or(&[], |bytes| bytes),
    };
    let files = modules.iter().filter(|(path, _)| path.ends_with(".ko"));
    Ok(ModuleIndex::build(
        files.filter_map(|(path, node)| Some((path, node.bytes()?.as_ref()))),
        &lists,
    )?)
}

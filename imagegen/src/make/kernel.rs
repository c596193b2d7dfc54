//! The kernel out of its packages: the image itself, device trees, and those modules that somebody asks for, unpacked and indexed.
//!
//! Debian compresses each module with xz. They are stored plain here: the loaders of the initramfs then need no decompressor, and the file
//! systems around them compress better. A kernel has some thousand modules and a board needs a hundred, so only those are decompressed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use liblzma::read::XzDecoder;
use thiserror::Error;

use crate::make::modules::{
    KernelLists, ModuleError, ModuleIndex, ModuleInfo, module_name, pre_dependencies,
};
use crate::make::parallel;
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
    /// All modules (`kernel/…/x.ko.xz`) as they are in the package.
    modules: BTreeMap<String, Arc<[u8]>>,
    /// [`LISTS`] by name.
    lists: BTreeMap<&'static str, Arc<[u8]>>,
}

/// A module's path (`kernel/…/x.ko`) and its uncompressed bytes.
pub type PlainModule = (String, Arc<[u8]>);

/// Some modules of a kernel and all that they need.
#[derive(Clone, Debug)]
struct Selection {
    /// By path (`kernel/…/x.ko`), uncompressed.
    files: BTreeMap<String, Arc<[u8]>>,
    /// In an order in which they can be loaded one by one.
    order: Vec<String>,
    index: ModuleIndex,
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
    let mut trees = device_trees(packages, &format!("usr/lib/linux-image-{release}"));
    trees.extend(device_trees(packages, &format!("{directory}/dtb")));
    let inside = |path: &str| {
        path.strip_prefix(&directory)?
            .strip_prefix('/')
            .map(str::to_owned)
    };
    let modules = packages
        .subtree(&format!("{directory}/kernel"))
        .filter_map(|(path, node)| Some((inside(path)?, node.bytes()?.clone())));
    let list = |name: &'static str| {
        let bytes = packages.bytes(&format!("{directory}/{name}"));
        let missing = || KernelError::Missing(format!("{directory}/{name}"));
        Ok((name, bytes.cloned().ok_or_else(missing)?))
    };
    Ok(Kernel {
        release: release.to_owned(),
        image,
        device_trees: trees,
        modules: modules.collect(),
        lists: LISTS
            .into_iter()
            .map(list)
            .collect::<Result<_, KernelError>>()?,
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
        let Selection {
            files,
            order,
            index,
        } = self.select(names)?;
        let mut tree = Tree::new();
        let modules = order.iter().map(|path| (path.as_str(), &files[path]));
        for (path, bytes) in modules.chain(self.lists.iter().map(|(name, bytes)| (*name, bytes))) {
            tree.insert(
                format!("{directory}/{path}"),
                Node::file(0o644, bytes.clone()),
            )?;
        }
        index.subset(&order)?.write_into(&mut tree, &directory)?;
        Ok(tree)
    }

    /// Returns some modules and all they need, by path and uncompressed, in an order in which they can be loaded one by one.
    pub fn load_order(&self, names: &[String]) -> Result<Vec<PlainModule>, KernelError> {
        let Selection { files, order, .. } = self.select(names)?;
        let module = |path: String| {
            let bytes = files[&path].clone();
            (path, bytes)
        };
        Ok(order.into_iter().map(module).collect())
    }

    /// Returns a device tree by its path in the package.
    pub fn device_tree(&self, path: &str) -> Result<Arc<[u8]>, KernelError> {
        self.device_trees
            .get(path)
            .cloned()
            .ok_or_else(|| KernelError::Missing(path.to_owned()))
    }

    fn select(&self, names: &[String]) -> Result<Selection, KernelError> {
        let files = self.read_with_needed(names)?;
        let index = ModuleIndex::build(
            files
                .iter()
                .map(|(path, bytes)| (path.as_str(), &bytes[..])),
            &KernelLists {
                order: &self.text(LISTS[0]),
                builtin: &self.text(LISTS[1]),
                builtin_modinfo: &self.lists[LISTS[2]],
            },
        )?;
        let order = index.closure(names)?;
        Ok(Selection {
            files,
            order,
            index,
        })
    }

    fn text(&self, list: &str) -> String {
        String::from_utf8_lossy(&self.lists[list]).into_owned()
    }

    /// Decompresses modules and at least all that they need; names that no module has are left for [`ModuleIndex::closure`] to judge.
    fn read_with_needed(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, Arc<[u8]>>, KernelError> {
        let paths = self.paths_by_name()?;
        let builtin = self.text(LISTS[1]);
        let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
        let mut files = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut wanted: BTreeSet<String> = names.iter().map(|name| module_name(name)).collect();
        while !wanted.is_empty() {
            let new = wanted.iter().filter_map(|name| paths.get(name).copied());
            let read = parallel::map(new.collect(), |path| self.read(path))?;
            seen.append(&mut wanted);
            for (path, bytes, info) in read {
                let needed = needed_names(&info);
                // An alias says nothing of whose it is: that is known only when all modules have been read.
                if needed
                    .iter()
                    .any(|name| !paths.contains_key(name) && !builtin.contains(name))
                {
                    wanted.extend(paths.keys().cloned());
                }
                wanted.extend(needed);
                files.insert(path, bytes);
            }
            wanted.retain(|name| !seen.contains(name));
        }
        Ok(files)
    }

    fn paths_by_name(&self) -> Result<BTreeMap<String, &str>, ModuleError> {
        let mut paths = BTreeMap::new();
        for path in self.modules.keys() {
            let name = module_name(path);
            if let Some(first) = paths.insert(name.clone(), path.as_str()) {
                return Err(ModuleError::SameName {
                    name,
                    first: first.to_owned(),
                    second: path.clone(),
                });
            }
        }
        Ok(paths)
    }

    /// Decompresses a module; its path comes back as it is then.
    fn read(&self, path: &str) -> Result<(String, Arc<[u8]>, ModuleInfo), KernelError> {
        let (plain, bytes) = decompress(path, &self.modules[path])?;
        let info = ModuleInfo::parse(&bytes).map_err(|err| ModuleError::Elf {
            path: plain.clone(),
            err,
        })?;
        Ok((plain, bytes, info))
    }
}

/// What a module names as needed: `depends`, which the kernel's build derived from all symbols, and soft dependencies.
fn needed_names(info: &ModuleInfo) -> BTreeSet<String> {
    let depends = info.values("depends").flat_map(|names| names.split(','));
    let soft = info.values("softdep").flat_map(pre_dependencies);
    depends
        .chain(soft)
        .filter(|name| !name.is_empty())
        .map(module_name)
        .collect()
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

fn decompress(path: &str, bytes: &Arc<[u8]>) -> Result<(String, Arc<[u8]>), KernelError> {
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

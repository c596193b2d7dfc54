//! Kernel modules: which ones need which, and the index files the loaders read. Does what `depmod` does, without running it.
//!
//! No kernel package ships these files, a maintainer script makes them. Dependencies follow from symbols, as with
//! `depmod`, and not from the `depends` field. In names `-` and `_` are the same.

mod elf;
mod tables;
mod trie;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

pub use elf::{ElfError, ModuleInfo};

use crate::tree::{Node, Tree, TreeError};

/// The modules of one kernel and how they hang together.
#[derive(Clone, Debug)]
pub struct ModuleIndex {
    /// In the order of `modules.order`, then by path; the place in this list is a module's number and priority.
    modules: Vec<Module>,
    by_name: BTreeMap<String, usize>,
    /// Exported symbols and who has them.
    symbols: BTreeMap<String, usize>,
    order: String,
    builtin: String,
    builtin_modinfo: String,
}

#[derive(Clone, Debug)]
struct Module {
    /// Relative to the directory of the kernel, as in `kernel/net/wireless/cfg80211.ko`.
    path: String,
    /// With underscores.
    name: String,
    info: ModuleInfo,
    /// Modules whose symbols this one uses.
    dependencies: Vec<usize>,
    /// Those and theirs, in the order of `modules.dep`.
    all_dependencies: Vec<usize>,
}

/// What a kernel's build left beside its modules.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelLists<'a> {
    /// `modules.order`: paths of modules by priority.
    pub order: &'a str,
    /// `modules.builtin`: paths of what would be modules if it were not built in.
    pub builtin: &'a str,
    /// `modules.builtin.modinfo`: what those say about themselves.
    pub builtin_modinfo: &'a [u8],
}

/// Why modules could not be indexed or found.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// A file is not a module.
    #[error("{path} is not a kernel module: {err}")]
    Elf {
        /// The file.
        path: String,
        /// What is wrong with it.
        err: ElfError,
    },
    /// Two files are the same module to the kernel.
    #[error("{first} and {second} are both called {name}")]
    SameName {
        /// The name.
        name: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// Modules need each other in a circle, so none could be loaded first.
    #[error("kernel modules depend on each other in a circle: {}", names.join(", "))]
    Cycle {
        /// Modules in such a circle or needed by one.
        names: Vec<String>,
    },
    /// There is no such module.
    #[error("this kernel has no module {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The index files could not be put into the tree.
    #[error("failed to put the module index into the image")]
    Tree(#[from] TreeError),
}

impl ModuleIndex {
    /// Reads and connects modules, given as paths (`kernel/…/x.ko`) with uncompressed bytes.
    pub fn build<'a>(
        modules: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        lists: &KernelLists<'_>,
    ) -> Result<Self, ModuleError> {
        let infos = modules.into_iter().map(|(path, bytes)| {
            let info = ModuleInfo::parse(bytes).map_err(|err| ModuleError::Elf {
                path: path.to_owned(),
                err,
            })?;
            Ok((path.to_owned(), info))
        });
        let infos = infos.collect::<Result<BTreeMap<_, _>, ModuleError>>()?;
        Self::connect(infos, lists)
    }

    /// Reads the modules below a kernel's directory of a tree, such as `usr/lib/modules/6.12.0`.
    pub fn of_tree(tree: &Tree, directory: &str) -> Result<Self, ModuleError> {
        let list = |name| {
            tree.bytes(&format!("{directory}/{name}"))
                .map_or(&[][..], |bytes| bytes.as_ref())
        };
        let order = String::from_utf8_lossy(list("modules.order"));
        let builtin = String::from_utf8_lossy(list("modules.builtin"));
        let lists = KernelLists {
            order: &order,
            builtin: &builtin,
            builtin_modinfo: list("modules.builtin.modinfo"),
        };
        let modules = tree.subtree(directory).filter_map(|(path, node)| {
            let path = path.strip_prefix(directory)?.strip_prefix('/')?;
            path.ends_with(".ko")
                .then_some((path, node.bytes()?.as_ref()))
        });
        Self::build(modules, &lists)
    }

    /// Puts the index files into a kernel's directory of a tree, over older ones.
    pub fn write_into(&self, tree: &mut Tree, directory: &str) -> Result<(), ModuleError> {
        for (name, bytes) in self.files() {
            tree.replace(format!("{directory}/{name}"), Node::file(0o644, bytes))?;
        }
        Ok(())
    }

    /// The paths of all modules.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(|module| module.path.as_str())
    }

    /// What a module says about itself.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&ModuleInfo> {
        Some(&self.modules[*self.by_name.get(&module_name(name))?].info)
    }

    /// Whether a module is part of the kernel itself.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin
            .lines()
            .any(|line| module_name(line) == module_name(name))
    }

    /// The paths of modules and of all that they need, in an order in which they can be loaded one by one.
    ///
    /// What is built in needs no file and is left out. Soft dependencies of the `pre:` kind are taken where this kernel
    /// has them, by name or alias; where it has not, the module works without.
    pub fn closure<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<String>, ModuleError> {
        let aliases = self.plain_aliases();
        let mut walk = Walk {
            index: self,
            aliases: &aliases,
            seen: BTreeSet::new(),
            found: Vec::new(),
        };
        for name in names.iter().map(AsRef::as_ref) {
            match self.by_name.get(&module_name(name)) {
                Some(number) => walk.visit(*number),
                None if self.is_builtin(name) => {}
                None => {
                    return Err(ModuleError::Unknown {
                        name: name.to_owned(),
                    });
                }
            }
        }
        Ok(walk
            .found
            .into_iter()
            .map(|number| self.modules[number].path.clone())
            .collect())
    }

    /// The same kernel with only some of its modules, by path.
    pub fn subset<S: AsRef<str>>(&self, paths: &[S]) -> Result<Self, ModuleError> {
        let wanted: BTreeSet<&str> = paths.iter().map(AsRef::as_ref).collect();
        let kept = self
            .modules
            .iter()
            .filter(|module| wanted.contains(module.path.as_str()));
        let infos = kept
            .map(|module| (module.path.clone(), module.info.clone()))
            .collect();
        let builtin_modinfo = self.builtin_modinfo.as_bytes();
        Self::connect(
            infos,
            &KernelLists {
                order: &self.order,
                builtin: &self.builtin,
                builtin_modinfo,
            },
        )
    }

    fn connect(
        infos: BTreeMap<String, ModuleInfo>,
        lists: &KernelLists<'_>,
    ) -> Result<Self, ModuleError> {
        let modules = in_order(infos, lists.order);
        let by_name = number_names(&modules)?;
        let symbols = symbol_owners(&modules);
        let mut index = Self {
            modules,
            by_name,
            symbols,
            order: lists.order.to_owned(),
            builtin: lists.builtin.to_owned(),
            builtin_modinfo: String::from_utf8_lossy(lists.builtin_modinfo).into_owned(),
        };
        for number in 0..index.modules.len() {
            index.modules[number].dependencies = index.direct_dependencies(number);
        }
        let rank = rank_users_first(&index.modules)?;
        for number in 0..index.modules.len() {
            index.modules[number].all_dependencies = index.transitive_dependencies(number, &rank);
        }
        Ok(index)
    }

    /// In the order in which the module's symbols ask for them.
    fn direct_dependencies(&self, number: usize) -> Vec<usize> {
        let mut dependencies = Vec::new();
        for symbol in &self.modules[number].info.imports {
            match self.symbols.get(plain_symbol(symbol)) {
                Some(owner) if *owner != number && !dependencies.contains(owner) => {
                    dependencies.push(*owner)
                }
                _ => {}
            }
        }
        dependencies
    }

    fn transitive_dependencies(&self, number: usize, rank: &[usize]) -> Vec<usize> {
        let mut all = BTreeSet::new();
        let mut todo = self.modules[number].dependencies.clone();
        while let Some(next) = todo.pop() {
            if all.insert(next) {
                todo.extend(&self.modules[next].dependencies);
            }
        }
        let mut all: Vec<usize> = all.into_iter().collect();
        all.sort_by_key(|number| rank[*number]);
        all
    }

    /// Aliases without wildcards, such as `crypto-md5`, and the modules that have them.
    fn plain_aliases(&self) -> BTreeMap<String, Vec<usize>> {
        let mut aliases: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, module) in self.modules.iter().enumerate() {
            for alias in module
                .info
                .values("alias")
                .filter(|alias| !alias.contains(['*', '?', '[']))
            {
                aliases.entry(underscored(alias)).or_default().push(number);
            }
        }
        aliases
    }
}

/// A walk over dependencies that lists the deepest first.
struct Walk<'a> {
    index: &'a ModuleIndex,
    aliases: &'a BTreeMap<String, Vec<usize>>,
    seen: BTreeSet<usize>,
    found: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, number: usize) {
        // Soft dependencies may go round in circles; whoever is being visited already is not waited for.
        if !self.seen.insert(number) {
            return;
        }
        let module = &self.index.modules[number];
        for name in module
            .info
            .values("softdep")
            .flat_map(pre_dependencies)
            .map(underscored)
        {
            match self.index.by_name.get(&name) {
                Some(number) => self.visit(*number),
                None => self
                    .aliases
                    .get(&name)
                    .into_iter()
                    .flatten()
                    .for_each(|number| self.visit(*number)),
            }
        }
        for number in module.dependencies.iter() {
            self.visit(*number);
        }
        self.found.push(number);
    }
}

/// The names after `pre:` in `pre: a b post: c`.
pub(super) fn pre_dependencies(softdep: &str) -> Vec<&str> {
    let mut pre = false;
    let mut names = Vec::new();
    for word in softdep.split_ascii_whitespace() {
        match word {
            "pre:" => pre = true,
            "post:" => pre = false,
            name if pre => names.push(name),
            _ => {}
        }
    }
    names
}

fn in_order(mut infos: BTreeMap<String, ModuleInfo>, order: &str) -> Vec<Module> {
    let listed: Vec<(String, ModuleInfo)> = order
        .lines()
        .filter_map(|line| infos.remove_entry(line))
        .collect();
    let module = |(path, info): (String, ModuleInfo)| Module {
        name: module_name(&path),
        path,
        info,
        dependencies: Vec::new(),
        all_dependencies: Vec::new(),
    };
    listed.into_iter().chain(infos).map(module).collect()
}

fn number_names(modules: &[Module]) -> Result<BTreeMap<String, usize>, ModuleError> {
    let mut names = BTreeMap::new();
    for (number, module) in modules.iter().enumerate() {
        if let Some(other) = names.insert(module.name.clone(), number) {
            return Err(ModuleError::SameName {
                name: module.name.clone(),
                first: modules[other].path.clone(),
                second: module.path.clone(),
            });
        }
    }
    Ok(names)
}

/// If two modules export the same symbol, the later one has it.
fn symbol_owners(modules: &[Module]) -> BTreeMap<String, usize> {
    let exports = modules.iter().enumerate().flat_map(|(number, module)| {
        module
            .info
            .exports
            .iter()
            .map(move |symbol| (plain_symbol(symbol).to_owned(), number))
    });
    exports.collect()
}

/// Gives every module a rank such that users come before what they use. Among the possible orders it is the one of
/// `depmod`: the last root first, then what it freed last.
fn rank_users_first(modules: &[Module]) -> Result<Vec<usize>, ModuleError> {
    let mut users = vec![0usize; modules.len()];
    for dependency in modules.iter().flat_map(|module| &module.dependencies) {
        users[*dependency] += 1;
    }
    let mut rank = vec![0; modules.len()];
    let mut ranked = 0;
    let mut roots: Vec<usize> = (0..modules.len())
        .filter(|number| users[*number] == 0)
        .collect();
    while let Some(number) = roots.pop() {
        rank[number] = ranked;
        ranked += 1;
        for dependency in &modules[number].dependencies {
            users[*dependency] -= 1;
            if users[*dependency] == 0 {
                roots.push(*dependency);
            }
        }
    }
    if ranked < modules.len() {
        let stuck = modules.iter().zip(users).filter(|(_, users)| *users > 0);
        return Err(ModuleError::Cycle {
            names: stuck.map(|(module, _)| module.name.clone()).collect(),
        });
    }
    Ok(rank)
}

/// The name the kernel knows a module by, from its path or a name with dashes.
pub(super) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    underscored(file.split_once('.').map_or(file, |(stem, _)| stem))
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

/// Some compilers put a dot before functions; it does not belong to the name.
fn plain_symbol(symbol: &str) -> &str {
    symbol.strip_prefix('.').unwrap_or(symbol)
}

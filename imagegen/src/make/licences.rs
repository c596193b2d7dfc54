//! The copyright files of packages, as they lie in the packages: images leave them out, and what lies beside an image has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resolve::Resolution;
use crate::tree::{Tree, TreeError};

/// Where packages have their copyright files: `NAME/copyright` each.
const DOCUMENTS: &str = "usr/share/doc";

/// Where Debian keeps licences that copyright files refer to.
const COMMON: &str = "usr/share/common-licenses";

/// What packages say of their copyright and licences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Licences {
    /// Copyright files by package.
    pub of_packages: BTreeMap<String, Arc<[u8]>>,
    /// Licences that copyright files refer to, by their file's name.
    pub common: BTreeMap<String, Arc<[u8]>>,
}

/// Tells whether a path of a package is wanted here.
pub(crate) fn is_licence(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
    match below(DOCUMENTS) {
        // A package may have a link to the documents of another one of its source.
        Some(rest) => !rest.contains('/') || rest.ends_with("/copyright"),
        None => below(COMMON).is_some(),
    }
}

/// Collects the licences out of a tree that has the wanted paths of all packages.
///
/// A package that has no copyright file, such as one that is not unpacked because it only depends on others, has that of a package of the
/// same source.
pub(crate) fn collect_licences(
    tree: &Tree,
    resolution: &Resolution,
) -> Result<Licences, TreeError> {
    let mut of_packages = BTreeMap::new();
    let mut of_sources = BTreeMap::new();
    for (name, package) in &resolution.packages {
        let path = tree.resolve(&format!("{DOCUMENTS}/{name}/copyright"))?;
        if let Some(bytes) = tree.bytes(&path) {
            of_packages.insert(name.clone(), bytes.clone());
            of_sources.entry(&package.source).or_insert(bytes);
        }
    }
    for (name, package) in &resolution.packages {
        if let Some(bytes) = of_sources.get(&package.source)
            && !of_packages.contains_key(name)
        {
            of_packages.insert(name.clone(), (*bytes).clone());
        }
    }
    let mut common = BTreeMap::new();
    for (name, _) in tree.entries(COMMON) {
        let path = tree.resolve(&format!("{COMMON}/{name}"))?;
        if let Some(bytes) = tree.bytes(&path) {
            common.insert(name.to_owned(), bytes.clone());
        }
    }
    Ok(Licences {
        of_packages,
        common,
    })
}
